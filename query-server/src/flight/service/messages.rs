//! The answers of Flight SQL commands, and the parameter values of a client.

use std::panic::AssertUnwindSafe;

use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::sql::ProstMessageExt;
use arrow_flight::sql::server::PeekableFlightDataStream;
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket};
use bytes::Bytes;
use capstan_model::Failure;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::ipc::writer::IpcWriteOptions;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use prost::Message;
use tonic::{Response, Status};

use super::{Get, Info, failed};
use crate::flight::handle::{Binding, check_plain};
use crate::flight::wire;

fn unencodable(error: impl std::fmt::Display) -> Status {
    Status::internal(format!("a schema could not be encoded: {error}"))
}

/// One endpoint, at this server, whose ticket is `command`.
pub(super) fn info(
    schema: &Schema,
    command: &impl ProstMessageExt,
    descriptor: FlightDescriptor,
) -> Info {
    offer(schema, command.as_any().encode_to_vec().into(), descriptor)
}

/// One endpoint, at this server, with the ticket as it is.
pub(in crate::flight) fn offer(
    schema: &Schema,
    ticket: Bytes,
    descriptor: FlightDescriptor,
) -> Info {
    let info = FlightInfo::new()
        .try_with_schema(schema)
        .map_err(unencodable)?
        .with_endpoint(FlightEndpoint::new().with_ticket(Ticket { ticket }))
        .with_descriptor(descriptor);
    Ok(Response::new(info))
}

/// Rows that are all available already.
pub(super) fn one(batch: Result<RecordBatch, Failure>) -> Get {
    let batch = batch.map_err(failed)?;
    Ok(Response::new(wire::encode(batch.schema(), stream::iter([Ok(batch)]))))
}

/// A schema as prepared statements carry it.
pub(super) fn encode_schema(schema: &Schema) -> Result<Bytes, Status> {
    let options = IpcWriteOptions::default();
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &options).try_into().map_err(unencodable)?;
    Ok(bytes)
}

/// The row of parameters from a client. Arrow's reader, which decodes it, is not hardened: if it panics, only
/// this call fails.
pub(super) async fn bound(stream: PeekableFlightDataStream) -> Result<Option<RecordBatch>, Status> {
    let read = async {
        let data = stream.map(|data| {
            let data = data?;
            check_plain(&data.data_header).map_err(failed)?;
            Ok(data)
        });
        let mut batches = FlightRecordBatchStream::new_from_flight_data(data);
        let mut binding = Binding::new();
        while let Some(batch) = batches.try_next().await.map_err(|error| {
            Status::invalid_argument(format!("the parameters cannot be read: {error}"))
        })? {
            binding.take(batch).map_err(failed)?;
        }
        Ok(binding.finish())
    };
    AssertUnwindSafe(read)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Err(Status::invalid_argument("the parameters cannot be read")))
}
