//! Notes about an answer that is complete as far as it can be: what retention deleted. They are text in the metadata of
//! the answer's schema, which precedes the rows, so every client can read them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use futures::{Stream, StreamExt, stream};

/// The key in the metadata of a schema; its value is a line for each note.
pub const NOTES: &str = "capstan.notes";

/// The schema of an answer with these notes.
pub(super) fn with_notes(schema: SchemaRef, lines: &[String]) -> SchemaRef {
    if lines.is_empty() {
        return schema;
    }
    let mut metadata = schema.metadata().clone();
    metadata.insert(NOTES.to_owned(), lines.join("\n"));
    Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata))
}

/// The notes of an answer that is being read.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn all(&self) -> MutexGuard<'_, Vec<String>> {
        // The data is valid between statements, so a poisoned lock may be used.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line for each note. All are known as soon as the first rows, or the end, were read.
    pub fn lines(&self) -> Vec<String> {
        self.all().clone()
    }

    /// The rows of a part of the answer, whose notes are taken as they come.
    pub(super) fn taking(
        &self,
        mut rows: FlightRecordBatchStream,
    ) -> impl Stream<Item = Result<RecordBatch, FlightError>> + Send + use<> {
        let (notes, mut is_taken) = (self.clone(), false);
        stream::poll_fn(move |context| {
            let next = rows.poll_next_unpin(context);
            if !is_taken && let Some(schema) = rows.schema() {
                is_taken = true;
                let text = schema.metadata().get(NOTES);
                notes.all().extend(text.iter().flat_map(|text| text.lines()).map(str::to_owned));
            }
            next
        })
    }
}
