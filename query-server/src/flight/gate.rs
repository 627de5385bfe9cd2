//! The entry point of every Flight call. Commands in JSON are Capstan's own; all others are Flight SQL and go on
//! to the service. Each question carries a principal; there is one for all callers until callers are told apart here.

use std::sync::Arc;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::Any;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, PollInfo, SchemaResult, Ticket, flight_descriptor::DescriptorType,
};
use capstan_model::Failure;
use capstan_storage_engine::store;
use capstan_view::access::Principal;
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::export::{self, ExportRequest};
use super::service::{self, Service};
use super::status::to_status;
use super::{Sessions, wire};

/// The Flight service.
pub(super) struct Gate {
    sql: Service,
}

impl Gate {
    pub(super) fn new(sessions: Arc<dyn Sessions>, who: Arc<Principal>) -> Result<Self, Failure> {
        Ok(Gate { sql: Service::new(sessions, who)? })
    }

    /// Resolves the times of an export now, so that "five minutes ago" still means the same when the ticket is
    /// used.
    fn offer_export(descriptor: FlightDescriptor) -> Result<Response<FlightInfo>, Status> {
        let ticket = ExportRequest::from_json(&descriptor.cmd, store::now())
            .and_then(|request| request.to_json())
            .map_err(|failure| to_status(&failure))?;
        service::offer(&export::schema(), ticket, descriptor)
    }
}

/// Refuses bytes that are not a protobuf message, before the Flight SQL layer does so with an obscure error.
fn check(command: &[u8]) -> Result<(), Status> {
    match Any::decode(command) {
        Ok(any) if !any.type_url.is_empty() => Ok(()),
        _ => Err(Status::invalid_argument(
            "the command is neither Flight SQL nor JSON such as {\"export\": {}}: use a Flight \
             SQL client, or its messages",
        )),
    }
}

#[tonic::async_trait]
impl FlightService for Gate {
    type HandshakeStream = <Service as FlightService>::HandshakeStream;
    type ListFlightsStream = <Service as FlightService>::ListFlightsStream;
    type DoGetStream = wire::Answer;
    type DoPutStream = <Service as FlightService>::DoPutStream;
    type DoActionStream = <Service as FlightService>::DoActionStream;
    type ListActionsStream = <Service as FlightService>::ListActionsStream;
    type DoExchangeStream = <Service as FlightService>::DoExchangeStream;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        self.sql.handshake(request).await
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let descriptor = request.get_ref();
        if descriptor.r#type != DescriptorType::Cmd as i32 {
            return Err(Status::invalid_argument(
                "flight paths are not supported: send a Flight SQL command",
            ));
        }
        if ExportRequest::is_json(&descriptor.cmd) {
            return Gate::offer_export(request.into_inner());
        }
        check(&descriptor.cmd)?;
        self.sql.get_flight_info(request).await
    }

    async fn get_schema(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        let info = self.get_flight_info(request).await?.into_inner();
        Ok(Response::new(SchemaResult { schema: info.schema }))
    }

    async fn do_get(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<Self::DoGetStream>, Status> {
        let ticket = &request.get_ref().ticket;
        if ExportRequest::is_json(ticket) {
            let failed = |failure: Failure| to_status(&failure);
            let request = ExportRequest::from_json(ticket, store::now()).map_err(failed)?;
            let chunks = self.sql.sessions.export(&self.sql.who, request).await.map_err(failed)?;
            return Ok(Response::new(export::encode(chunks)));
        }
        check(ticket)?;
        self.sql.do_get(request).await
    }

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        self.sql.do_put(request).await
    }

    async fn do_action(
        &self,
        request: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        self.sql.do_action(request).await
    }

    async fn list_actions(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        let actions = [
            ("CreatePreparedStatement", "Checks a statement and gives a handle that holds it"),
            ("ClosePreparedStatement", "Does nothing: a handle contains the whole statement"),
        ];
        let actions = actions.map(|(name, description)| {
            Ok(ActionType { r#type: name.to_owned(), description: description.to_owned() })
        });
        Ok(Response::new(Box::pin(futures::stream::iter(actions))))
    }

    async fn list_flights(
        &self,
        _request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(Status::unimplemented("listing flights is not supported: list tables with Flight SQL"))
    }

    async fn poll_flight_info(
        &self,
        _request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        Err(Status::unimplemented("polling is not needed: GetFlightInfo answers at once"))
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Status::unimplemented("DoExchange is not supported: send a Flight SQL command"))
    }
}
