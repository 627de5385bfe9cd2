//! The client side: the command line's access to a server.

use std::str::FromStr;
use std::time::Duration;

use arrow_flight::client::FlightClient;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{FlightDescriptor, FlightInfo};
use bytes::Bytes;
use capstan_model::{Failure, FailureKind};
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use tonic::transport::{Channel, Endpoint};

use super::notes::Notes;
use super::{ExportRequest, status, wire};

/// Time-out for connecting to a server.
const CONNECT: Duration = Duration::from_secs(10);

/// Most bytes of a message that is taken: the largest row a server sends, and room.
const MAX_TAKEN: usize = wire::MAX_ROW_BYTES + (16 << 20);

/// A connection to a server. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    server: String,
}

/// The answer to a query.
pub struct Answer {
    /// Its columns, also when no row follows.
    pub schema: SchemaRef,
    /// Its rows. A failure ends the stream: what came before is not all.
    pub batches: BoxStream<'static, Result<RecordBatch, Failure>>,
    /// What it lacks although nothing failed.
    pub notes: Notes,
}

impl Client {
    /// Connects to `http://host:port` (`grpc://` and `grpc+tcp://`, as other Flight
    /// clients write it, mean the same).
    ///
    /// # Errors
    ///
    /// [`FailureKind::Usage`] if `server` is not such an address,
    /// [`FailureKind::Unavailable`] if nobody answers there.
    pub async fn connect(server: &str) -> Result<Client, Failure> {
        let channel = endpoint(server)?.connect().await.map_err(|error| {
            let words = format!("no Capstan server answers at {server}");
            Failure::caused_by(FailureKind::Unavailable, words, error)
        })?;
        Ok(Client { channel, server: server.to_owned() })
    }

    /// Runs an SQL query. Dropping the answer cancels it.
    ///
    /// # Errors
    ///
    /// The failure of the server, with its kind.
    pub async fn query(&self, sql: &str) -> Result<Answer, Failure> {
        let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
        let info = self.find(command.as_any().encode_to_vec().into()).await?;
        let schema = info.clone().try_decode_schema().map_err(|e| self.odd(e))?;
        let notes = Notes::default();
        let batches = self.get(info, &notes);
        Ok(Answer { schema: schema.into(), batches, notes })
    }

    /// Requests a PCAPNG file; the pieces in order are the file. Dropping the stream cancels the export.
    ///
    /// # Errors
    ///
    /// The failure of the server, with its kind.
    pub async fn export(
        &self,
        request: &ExportRequest,
    ) -> Result<BoxStream<'static, Result<Bytes, Failure>>, Failure> {
        let info = self.find(request.to_json()?).await?;
        let client = self.clone();
        let pieces = self.get(info, &Notes::default()).map(move |batch| {
            let batch = batch?;
            let column = batch.columns().first().filter(|c| *c.data_type() == DataType::Binary);
            let column = column.ok_or_else(|| client.odd("an export has one binary column"))?;
            let pieces: Vec<_> = column
                .as_binary::<i32>()
                .iter()
                .map(|piece| Ok(Bytes::copy_from_slice(piece.unwrap_or_default())))
                .collect();
            Ok::<_, Failure>(stream::iter(pieces))
        });
        Ok(pieces.try_flatten().boxed())
    }

    async fn find(&self, command: Bytes) -> Result<FlightInfo, Failure> {
        let descriptor = FlightDescriptor::new_cmd(command);
        self.flight().get_flight_info(descriptor).await.map_err(|e| self.failed(e))
    }

    /// The rows at every endpoint, one after the other.
    fn get(
        &self,
        info: FlightInfo,
        notes: &Notes,
    ) -> BoxStream<'static, Result<RecordBatch, Failure>> {
        let (client, notes) = (self.clone(), notes.clone());
        stream::iter(info.endpoint)
            .then(move |endpoint| {
                let (client, notes) = (client.clone(), notes.clone());
                async move {
                    let ticket = endpoint.ticket.unwrap_or_default();
                    let rows = client.flight().do_get(ticket).await;
                    let rows = notes.taking(rows.map_err(|error| client.failed(error))?);
                    Ok::<_, Failure>(rows.map_err(move |error| client.failed(error)))
                }
            })
            .try_flatten()
            .boxed()
    }

    fn flight(&self) -> FlightClient {
        let inner =
            FlightServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_TAKEN);
        FlightClient::new_from_inner(inner)
    }

    fn failed(&self, error: FlightError) -> Failure {
        match error {
            FlightError::Tonic(status) => status::from_status(&status),
            other => self.odd(other),
        }
    }

    /// The failure of an unexpected answer, for instance from another version.
    fn odd(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
        let words = format!("invalid response from the server at {}", self.server);
        Failure::caused_by(FailureKind::Other, words, error)
    }
}

fn endpoint(server: &str) -> Result<Endpoint, Failure> {
    let usage = |words: String| Failure::new(FailureKind::Usage, words);
    let Some((scheme, place)) = server.split_once("://") else {
        return Err(usage(format!("'{server}' is not a server: write http://host:port")));
    };
    match scheme {
        "http" | "grpc" | "grpc+tcp" => {}
        "https" | "grpc+tls" => {
            return Err(usage(format!(
                "{server}: TLS is not supported yet: write http://, or use a tunnel"
            )));
        }
        _ => return Err(usage(format!("'{server}' is not a server: write http://host:port"))),
    }
    let endpoint = Endpoint::from_str(&format!("http://{place}"))
        .map_err(|_| usage(format!("'{server}' is not a server: write http://host:port")))?;
    endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_while_idle(false)
        .user_agent(concat!("capstan/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| Failure::caused_by(FailureKind::Other, "cannot create the client", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_in_its_usual_forms() {
        for server in ["http://localhost:7070", "grpc://[::1]:7070", "grpc+tcp://10.0.0.1:7070/"] {
            assert!(endpoint(server).is_ok(), "{server}");
        }
        for server in ["localhost:7070", "https://host:1", "s3://bucket", "http://", "http://a b"] {
            let failure = endpoint(server).expect_err(server);
            assert_eq!(failure.kind(), FailureKind::Usage, "{failure}");
        }
    }
}
