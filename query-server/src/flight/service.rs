//! The Flight SQL commands (Arrow Flight SQL protocol, FlightSql.proto). Each is a few lines that call its
//! implementation; `messages` builds their answers.

mod messages;

use std::sync::Arc;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::metadata::{SqlInfoData, XdbcTypeInfoData};
use arrow_flight::sql::server::{DoPutError, FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest,
    ActionBeginTransactionResult, ActionCancelQueryRequest, ActionCancelQueryResult,
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, ActionCreatePreparedSubstraitPlanRequest,
    ActionEndSavepointRequest, ActionEndTransactionRequest, Any, Command, CommandGetCatalogs,
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
    CommandGetXdbcTypeInfo, CommandPreparedStatementQuery, CommandPreparedStatementUpdate,
    CommandStatementIngest, CommandStatementQuery, CommandStatementSubstraitPlan,
    CommandStatementUpdate, DoPutPreparedStatementResult, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, Ticket,
};
use capstan_model::Failure;
use capstan_view::access::Principal;
use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

pub(super) use self::messages::offer;
use self::messages::{bound, encode_schema, info, one};
use super::handle::Statement;
use super::statement::Planned;
use super::status::to_status;
use super::{Sessions, metadata};

/// Answers Flight SQL from [`Sessions`] for a principal.
pub(super) struct Service {
    pub(super) sessions: Arc<dyn Sessions>,
    pub(super) who: Arc<Principal>,
    info: SqlInfoData,
    types: XdbcTypeInfoData,
}

/// What `DoGet` answers.
type Get = Result<Response<<Service as FlightService>::DoGetStream>, Status>;
/// What `GetFlightInfo` answers.
type Info = Result<Response<FlightInfo>, Status>;

impl Service {
    pub(super) fn new(sessions: Arc<dyn Sessions>, who: Arc<Principal>) -> Result<Self, Failure> {
        let (info, types) = (metadata::sql_info()?, metadata::xdbc_types()?);
        Ok(Service { sessions, who, info, types })
    }

    /// Plans `statement` and returns what `then` takes from the plan.
    async fn plan<T: Send + 'static>(
        &self,
        statement: &Statement,
        then: impl FnOnce(&Planned) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Status> {
        let (sessions, who) = (Arc::clone(&self.sessions), Arc::clone(&self.who));
        let statement = statement.clone();
        let planned = async move {
            let planned = Planned::new(sessions.session(&who).await?, &who, &statement).await?;
            then(&planned)
        };
        self.sessions.questions().ask(&self.who, planned).await.map_err(failed)
    }

    /// The endpoint for `statement`: this server, with a ticket that holds the whole statement.
    async fn offer(&self, statement: Statement, descriptor: FlightDescriptor) -> Info {
        let schema = self.plan(&statement, |planned| Ok(planned.schema())).await?;
        let statement_handle = statement.encode().map_err(failed)?;
        info(&schema, &TicketStatementQuery { statement_handle }, descriptor)
    }

    async fn answer(&self, statement: Statement) -> Get {
        let (sessions, who) = (Arc::clone(&self.sessions), Arc::clone(&self.who));
        let started = async move {
            let planned = Planned::new(sessions.session(&who).await?, &who, &statement).await?;
            Ok(((), planned.run().await?))
        };
        let ((), messages) =
            self.sessions.questions().stream(&self.who, weigh, started).await.map_err(failed)?;
        let messages = messages.map(|message| message.map_err(failed).and_then(|message| message));
        Ok(Response::new(messages.boxed()))
    }
}

/// Memory of a message, bytes.
fn weigh(message: &Result<FlightData, Status>) -> usize {
    message.as_ref().map_or(0, |data| data.data_body.len() + data.data_header.len())
}

fn failed(failure: Failure) -> Status {
    to_status(&failure)
}

/// The error for commands that a read-only store does not support.
fn read_only(what: &str) -> Status {
    Status::unimplemented(format!("{what} not possible: the store is read-only over Flight"))
}

#[tonic::async_trait]
impl FlightSqlService for Service {
    type FlightService = Service;

    async fn do_handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<BoxStream<'static, Result<HandshakeResponse, Status>>>, Status> {
        Err(Status::unimplemented(
            "this server has no authentication: connect without user and password (any client \
             that reaches the port can read the store)",
        ))
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Info {
        if query.transaction_id.is_some_and(|id| !id.is_empty()) {
            return Err(read_only("transactions are"));
        }
        self.offer(Statement::new(query.query).map_err(failed)?, request.into_inner()).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let statement = Statement::decode(&query.prepared_statement_handle).map_err(failed)?;
        self.offer(statement, request.into_inner()).await
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        _request: Request<Ticket>,
    ) -> Get {
        self.answer(Statement::decode(&ticket.statement_handle).map_err(failed)?).await
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        _request: Request<Ticket>,
    ) -> Get {
        self.answer(Statement::decode(&query.prepared_statement_handle).map_err(failed)?).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        if query.transaction_id.is_some_and(|id| !id.is_empty()) {
            return Err(read_only("transactions are"));
        }
        let statement = Statement::new(query.query).map_err(failed)?;
        let planned = |planned: &Planned| Ok((planned.schema(), planned.parameters()?));
        let (schema, parameters) = self.plan(&statement, planned).await?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: statement.encode().map_err(failed)?,
            dataset_schema: encode_schema(&schema)?,
            parameter_schema: encode_schema(&parameters)?,
        })
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let mut statement = Statement::decode(&query.prepared_statement_handle).map_err(failed)?;
        statement.parameters = bound(request.into_inner()).await?;
        // Reports values that do not fit now, while the caller knows what it bound.
        self.plan(&statement, |_| Ok(())).await?;
        let handle = statement.encode().map_err(failed)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    async fn do_action_close_prepared_statement(
        &self,
        _query: ActionClosePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        // The server holds no state for it.
        Ok(())
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Info {
        info(&query.into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, _request: Request<Ticket>) -> Get {
        let context = self.sessions.session(&self.who).await.map_err(failed)?;
        one(metadata::catalogs(&context, query))
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Info {
        info(&query.clone().into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, _request: Request<Ticket>) -> Get {
        let context = self.sessions.session(&self.who).await.map_err(failed)?;
        one(metadata::schemas(&context, query))
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Info {
        info(&query.clone().into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_tables(&self, query: CommandGetTables, _request: Request<Ticket>) -> Get {
        let context = self.sessions.session(&self.who).await.map_err(failed)?;
        one(metadata::tables(&context, query).await)
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Info {
        info(&query.into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_table_types(
        &self,
        query: CommandGetTableTypes,
        _request: Request<Ticket>,
    ) -> Get {
        one(metadata::table_types(query))
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Info {
        info(&self.info.schema(), &query, request.into_inner())
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, _request: Request<Ticket>) -> Get {
        one(metadata::chosen(&self.info, query))
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Info {
        info(&self.types.schema(), &query, request.into_inner())
    }

    async fn do_get_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        _request: Request<Ticket>,
    ) -> Get {
        one(metadata::types(&self.types, query))
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        info(&metadata::no_primary_keys().schema(), &query, request.into_inner())
    }

    async fn do_get_primary_keys(
        &self,
        _query: CommandGetPrimaryKeys,
        _request: Request<Ticket>,
    ) -> Get {
        one(Ok(metadata::no_primary_keys()))
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        info(&metadata::no_foreign_keys().schema(), &query, request.into_inner())
    }

    async fn do_get_exported_keys(
        &self,
        _query: CommandGetExportedKeys,
        _request: Request<Ticket>,
    ) -> Get {
        one(Ok(metadata::no_foreign_keys()))
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        info(&metadata::no_foreign_keys().schema(), &query, request.into_inner())
    }

    async fn do_get_imported_keys(
        &self,
        _query: CommandGetImportedKeys,
        _request: Request<Ticket>,
    ) -> Get {
        one(Ok(metadata::no_foreign_keys()))
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Info {
        info(&metadata::no_foreign_keys().schema(), &query, request.into_inner())
    }

    async fn do_get_cross_reference(
        &self,
        _query: CommandGetCrossReference,
        _request: Request<Ticket>,
    ) -> Get {
        one(Ok(metadata::no_foreign_keys()))
    }

    async fn get_flight_info_substrait_plan(
        &self,
        _query: CommandStatementSubstraitPlan,
        _request: Request<FlightDescriptor>,
    ) -> Info {
        Err(no_substrait())
    }

    async fn do_action_create_prepared_substrait_plan(
        &self,
        _query: ActionCreatePreparedSubstraitPlanRequest,
        _request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        Err(no_substrait())
    }

    async fn do_put_substrait_plan(
        &self,
        _query: CommandStatementSubstraitPlan,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(no_substrait())
    }

    async fn do_put_statement_update(
        &self,
        _query: CommandStatementUpdate,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(read_only("updates are"))
    }

    async fn do_put_prepared_statement_update(
        &self,
        _query: CommandPreparedStatementUpdate,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(read_only("updates are"))
    }

    async fn do_put_statement_ingest(
        &self,
        _query: CommandStatementIngest,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(read_only("bulk ingestion is"))
    }

    async fn do_put_error_callback(
        &self,
        _request: Request<PeekableFlightDataStream>,
        _error: DoPutError,
    ) -> Result<Response<<Self as FlightService>::DoPutStream>, Status> {
        Err(Status::invalid_argument("a put begins with a command in its flight descriptor"))
    }

    async fn do_put_fallback(
        &self,
        _request: Request<PeekableFlightDataStream>,
        message: Any,
    ) -> Result<Response<<Self as FlightService>::DoPutStream>, Status> {
        Err(unknown(&message.type_url))
    }

    async fn get_flight_info_fallback(
        &self,
        command: Command,
        _request: Request<FlightDescriptor>,
    ) -> Info {
        Err(unknown(command.type_url()))
    }

    async fn do_get_fallback(&self, _request: Request<Ticket>, message: Any) -> Get {
        Err(unknown(&message.type_url))
    }

    async fn do_action_begin_transaction(
        &self,
        _query: ActionBeginTransactionRequest,
        _request: Request<Action>,
    ) -> Result<ActionBeginTransactionResult, Status> {
        Err(read_only("transactions are"))
    }

    async fn do_action_end_transaction(
        &self,
        _query: ActionEndTransactionRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        Err(read_only("transactions are"))
    }

    async fn do_action_begin_savepoint(
        &self,
        _query: ActionBeginSavepointRequest,
        _request: Request<Action>,
    ) -> Result<ActionBeginSavepointResult, Status> {
        Err(read_only("savepoints are"))
    }

    async fn do_action_end_savepoint(
        &self,
        _query: ActionEndSavepointRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        Err(read_only("savepoints are"))
    }

    async fn do_action_cancel_query(
        &self,
        _query: ActionCancelQueryRequest,
        _request: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        Err(Status::unimplemented("to stop a query, cancel or close the stream of its answer"))
    }

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        Err(unknown(&request.get_ref().r#type))
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}

fn no_substrait() -> Status {
    Status::unimplemented("Substrait plans are not supported: send SQL")
}

fn unknown(what: &str) -> Status {
    Status::unimplemented(format!("'{what}' is not supported by this server"))
}
