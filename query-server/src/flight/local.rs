//! Runs a statement in this process, without a server. It is planned, run and encoded as in a server, and
//! decoded as in a client, so that both ways give the same rows.

use std::sync::Arc;

use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use capstan_model::{Failure, FailureKind};
use capstan_view::access::Principal;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use super::Sessions;
use super::client::Answer;
use super::handle::Statement;
use super::notes::Notes;
use super::statement::Planned;
use super::status;

/// Answers statements in this process.
pub struct Local {
    sessions: Arc<dyn Sessions>,
    who: Arc<Principal>,
}

/// The result of a query: its columns and its rows.
type Started = (SchemaRef, BoxStream<'static, Result<RecordBatch, Failure>>);

impl Local {
    /// Answers from `sessions` for a principal.
    pub fn new(sessions: Arc<dyn Sessions>, who: Arc<Principal>) -> Local {
        Local { sessions, who }
    }

    /// Runs a statement. Dropping the answer cancels it.
    ///
    /// # Errors
    ///
    /// The failure of a server, with its kind.
    pub async fn query(&self, sql: &str) -> Result<Answer, Failure> {
        let statement = Statement::new(sql.to_owned())?;
        let (sessions, who) = (Arc::clone(&self.sessions), Arc::clone(&self.who));
        let notes = Notes::default();
        let taken = notes.clone();
        let started = async move { start(&*sessions, &who, &statement, &taken).await };
        let (schema, batches) = self.sessions.questions().stream(&self.who, weigh, started).await?;
        let batches = batches.map(|batch| batch.and_then(|batch| batch)).boxed();
        Ok(Answer { schema, batches, notes })
    }
}

/// Memory of a batch, bytes.
fn weigh(batch: &Result<RecordBatch, Failure>) -> usize {
    batch.as_ref().map_or(0, RecordBatch::get_array_memory_size)
}

async fn start(
    sessions: &dyn Sessions,
    who: &Arc<Principal>,
    statement: &Statement,
    notes: &Notes,
) -> Result<Started, Failure> {
    let planned = Planned::new(sessions.session(who).await?, who, statement).await?;
    let schema = planned.schema();
    let answer = planned.run().await?;
    let messages = answer.map_err(|status| FlightError::Tonic(Box::new(status)));
    let rows = FlightRecordBatchStream::new_from_flight_data(messages);
    Ok((schema, notes.taking(rows).map_err(failure).boxed()))
}

fn failure(error: FlightError) -> Failure {
    match error {
        FlightError::Tonic(status) => status::from_status(&status),
        other => Failure::caused_by(FailureKind::Other, "an answer cannot be read", other),
    }
}
