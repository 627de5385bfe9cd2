//! The contents of tickets and prepared handles: the whole statement, so that any server can answer it. To
//! clients they are opaque bytes.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_flight::error::FlightError;
use arrow_flight::utils::{batches_to_flight_data, flight_data_to_arrow_batch};
use arrow_flight::{FlightData, IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use capstan_model::{Failure, FailureKind};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::ipc::root_as_message;
use datafusion::arrow::ipc::writer::IpcWriteOptions;
use prost::Message;

use super::wire;

/// The version of the encoding. Unknown versions are refused, so a server of another version never misreads a
/// statement.
const VERSION: u32 = 1;

/// Longest SQL text that is taken, bytes.
pub(super) const MAX_SQL_BYTES: usize = 1 << 20;

/// Most bytes of bound parameters: they travel with each later call.
pub(super) const MAX_PARAMETER_BYTES: usize = 4 << 20;

/// A statement and its bound parameters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statement {
    /// The text as the caller wrote it.
    pub(super) sql: String,
    /// One row, a column a parameter; none if nothing is bound.
    pub(super) parameters: Option<RecordBatch>,
}

#[derive(Clone, PartialEq, Message)]
struct Encoded {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(string, tag = "2")]
    sql: String,
    #[prost(message, optional, tag = "3")]
    parameters: Option<Row>,
}

/// A batch in Flight's encoding. Not an IPC stream: its reader trusts lengths in the stream and allocates as
/// much. Here every length is that of bytes that are present.
#[derive(Clone, PartialEq, Message)]
struct Row {
    /// The schema, an encapsulated IPC message.
    #[prost(bytes = "bytes", tag = "1")]
    schema: Bytes,
    /// The batch's IPC message.
    #[prost(bytes = "bytes", tag = "2")]
    header: Bytes,
    /// The batch's buffers.
    #[prost(bytes = "bytes", tag = "3")]
    body: Bytes,
}

impl Statement {
    /// A statement with nothing bound.
    pub(super) fn new(sql: String) -> Result<Self, Failure> {
        if sql.len() > MAX_SQL_BYTES {
            return Err(usage(format!(
                "the statement has {} bytes; at most {MAX_SQL_BYTES} are accepted",
                sql.len()
            )));
        }
        Ok(Statement { sql, parameters: None })
    }

    /// The bytes of a ticket or handle for the client.
    pub(super) fn encode(&self) -> Result<Bytes, Failure> {
        let parameters = self.parameters.as_ref().map(write).transpose().map_err(|error| {
            Failure::caused_by(FailureKind::Usage, "the parameters cannot be encoded", error)
        })?;
        let length = parameters.as_ref().map_or(0, |row| row.body.len());
        if length > MAX_PARAMETER_BYTES {
            return Err(usage(format!(
                "the parameters have {length} bytes; at most {MAX_PARAMETER_BYTES} can be bound"
            )));
        }
        let encoded = Encoded { version: VERSION, sql: self.sql.clone(), parameters };
        Ok(encoded.encode_to_vec().into())
    }

    /// Decodes the bytes from a client, which are untrusted.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Failure> {
        let foreign = || usage("the ticket or prepared statement was not issued by this server");
        let encoded = Encoded::decode(bytes).map_err(|_| foreign())?;
        if encoded.version != VERSION {
            return Err(foreign());
        }
        let mut statement = Statement::new(encoded.sql)?;
        if let Some(row) = encoded.parameters {
            // Arrow's reader validates its input, but is not hardened against malicious input: if it panics,
            // only this call fails.
            let batch = catch_unwind(AssertUnwindSafe(|| read(row)));
            statement.parameters = Some(batch.ok().flatten().ok_or_else(foreign)?);
        }
        Ok(statement)
    }
}

fn write(batch: &RecordBatch) -> Result<Row, FlightError> {
    // A dictionary would be a message of its own.
    let batch = wire::plain(batch)?;
    let options = IpcWriteOptions::default();
    let IpcMessage(schema) = SchemaAsIpc::new(&batch.schema(), &options).try_into()?;
    let messages = batches_to_flight_data(&batch.schema(), vec![batch])?;
    let message = messages.into_iter().next_back().unwrap_or_default();
    Ok(Row { schema, header: message.data_header, body: message.data_body })
}

/// Refuses a compressed batch: Arrow's reader allocates as many bytes as the message claims to decompress to.
pub(super) fn check_plain(header: &[u8]) -> Result<(), Failure> {
    let compressed = root_as_message(header).is_ok_and(|message| {
        let inside = message.header_as_dictionary_batch().and_then(|batch| batch.data());
        let batch = message.header_as_record_batch().or(inside);
        batch.is_some_and(|batch| batch.compression().is_some())
    });
    if compressed {
        return Err(usage("compressed parameters are not supported: send them uncompressed"));
    }
    Ok(())
}

fn read(row: Row) -> Option<RecordBatch> {
    check_plain(&row.header).ok()?;
    let schema = Schema::try_from(IpcMessage(row.schema)).ok()?;
    let message =
        FlightData { data_header: row.header, data_body: row.body, ..FlightData::default() };
    let batch = flight_data_to_arrow_batch(&message, Arc::new(schema), &HashMap::new()).ok()?;
    (batch.num_rows() == 1).then_some(batch)
}

/// Takes the single parameter row from a client's messages.
pub(super) struct Binding {
    row: Option<RecordBatch>,
    messages: usize,
}

impl Binding {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Binding { row: None, messages: 0 }
    }

    /// Takes the next batch.
    pub(super) fn take(&mut self, batch: RecordBatch) -> Result<(), Failure> {
        self.messages += 1;
        let rows = batch.num_rows() + usize::from(self.row.is_some());
        // Empty batches are accepted, but not without limit.
        if rows > 1 || self.messages > 16 {
            return Err(usage(
                "only one row of parameters can be bound: run the statement once per row",
            ));
        }
        if rows == 1 && batch.num_rows() == 1 {
            self.row = Some(batch);
        }
        Ok(())
    }

    /// What is bound; a row without columns binds nothing.
    pub(super) fn finish(self) -> Option<RecordBatch> {
        self.row.filter(|row| row.num_columns() > 0)
    }
}

fn usage(words: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Usage, words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_flight::encode::FlightDataEncoderBuilder;
    use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};
    use datafusion::arrow::ipc::CompressionType;
    use proptest::prelude::*;

    fn row() -> RecordBatch {
        RecordBatch::try_from_iter([
            ("0", Arc::new(Int64Array::from(vec![7])) as ArrayRef),
            ("1", Arc::new(StringArray::from(vec![None::<&str>])) as ArrayRef),
        ])
        .expect("two columns of one row")
    }

    #[test]
    fn a_statement_comes_back_with_its_parameters() {
        let mut statement = Statement::new("SELECT $1, $2".into()).expect("short");
        assert_eq!(
            Statement::decode(&statement.encode().expect("small")).expect("ours"),
            statement
        );
        statement.parameters = Some(row());
        assert_eq!(
            Statement::decode(&statement.encode().expect("small")).expect("ours"),
            statement
        );
    }

    #[test]
    fn another_version_is_refused() {
        let other = Encoded { version: 2, sql: "SELECT 1".into(), parameters: None };
        let error = Statement::decode(&other.encode_to_vec()).expect_err("version 2");
        assert_eq!(error.kind(), FailureKind::Usage);
    }

    #[test]
    fn excessive_parameters_are_refused() {
        assert!(Statement::new(" ".repeat(MAX_SQL_BYTES + 1)).is_err());
        let long = StringArray::from(vec!["x".repeat(MAX_PARAMETER_BYTES)]);
        let batch = RecordBatch::try_from_iter([("0", Arc::new(long) as ArrayRef)]);
        let parameters = Some(batch.expect("one column"));
        assert!(Statement { sql: String::new(), parameters }.encode().is_err());
    }

    #[test]
    fn only_one_row_of_parameters_can_be_bound() {
        let mut binding = Binding::new();
        binding.take(row().slice(0, 0)).expect("empty");
        binding.take(row()).expect("the row");
        assert!(binding.take(row()).is_err());
        assert_eq!(binding.finish(), Some(row()));
    }

    proptest! {
        #[test]
        fn no_bytes_crash_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Statement::decode(&bytes);
        }

        #[test]
        fn no_damage_crashes_the_reader(
            part in 0..3, at in any::<usize>(), with in proptest::collection::vec(any::<u8>(), 1..9),
        ) {
            let mut row = write(&row()).expect("two columns");
            let part = match part {
                0 => &mut row.schema,
                1 => &mut row.header,
                _ => &mut row.body,
            };
            let mut bytes = part.to_vec();
            let at = at % bytes.len();
            bytes.iter_mut().skip(at).zip(with).for_each(|(byte, with)| *byte = with);
            *part = bytes.into();
            let _ = decode_row(row);
        }
    }

    #[test]
    fn no_flipped_bit_crashes_the_reader() {
        let whole = write(&row()).expect("two columns");
        for at in 0..whole.schema.len() + whole.header.len() {
            for bit in 0..8 {
                let mut row = whole.clone();
                let (part, at) = match at.checked_sub(whole.schema.len()) {
                    None => (&mut row.schema, at),
                    Some(at) => (&mut row.header, at),
                };
                let mut bytes = part.to_vec();
                bytes[at] ^= 1 << bit;
                *part = bytes.into();
                let _ = decode_row(row);
            }
        }
    }

    fn decode_row(row: Row) -> Result<Statement, Failure> {
        let sql = "SELECT $1".to_owned();
        let encoded = Encoded { version: VERSION, sql, parameters: Some(row) };
        Statement::decode(&encoded.encode_to_vec())
    }

    #[test]
    fn a_compressed_row_is_refused() {
        let options = IpcWriteOptions::default()
            .try_with_compression(Some(CompressionType::ZSTD))
            .expect("it is compiled in");
        let texts = StringArray::from(vec!["x".repeat(10_000)]);
        let batch = RecordBatch::try_from_iter([("0", Arc::new(texts) as ArrayRef)]);
        let mut messages = FlightDataEncoderBuilder::new()
            .with_options(options)
            .build(futures::stream::iter([Ok(batch.expect("one column"))]));
        let messages: Vec<FlightData> = futures::executor::block_on_stream(&mut messages)
            .map(|m| m.expect("a message"))
            .collect();
        assert!(check_plain(&messages[0].data_header).is_ok());
        assert!(check_plain(&messages[1].data_header).is_err());
    }
}
