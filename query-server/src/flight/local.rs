//! A statement in this process, without a server: planned, run and put on the wire as a
//! server does, and taken off it as a client does, so that both ways give the same rows.

use std::sync::Arc;

use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use capstan_model::{Failure, FailureKind};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, oneshot};

use super::Sessions;
use super::client::Answer;
use super::handle::Statement;
use super::statement::{Planned, STACK_BYTES};
use super::status;

/// Batches that may wait for who takes them.
const WAITING: usize = 2;

/// Answers statements in this process, on threads of its own: long statements need more stack
/// than other threads have.
pub struct Local {
    sessions: Arc<dyn Sessions>,
    handle: Handle,
    threads: Option<Runtime>,
}

type Batches = mpsc::Sender<Result<RecordBatch, Failure>>;

impl Local {
    /// Answers from `sessions`.
    ///
    /// # Errors
    ///
    /// Threads cannot be started.
    pub fn new(sessions: Arc<dyn Sessions>) -> Result<Local, Failure> {
        let threads = Builder::new_multi_thread()
            .thread_name("capstan-query")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .map_err(|e| Failure::io("threads for queries cannot be started", e))?;
        Ok(Local { sessions, handle: threads.handle().clone(), threads: Some(threads) })
    }

    /// Runs a statement. Dropping the answer stops it.
    ///
    /// # Errors
    ///
    /// What a server would say, with its kind.
    pub async fn query(&self, sql: &str) -> Result<Answer, Failure> {
        let statement = Statement::new(sql.to_owned())?;
        let (tell, told) = oneshot::channel();
        let (to, from) = mpsc::channel(WAITING);
        let task = self.handle.spawn(run(Arc::clone(&self.sessions), statement, tell, to));
        let schema = told.await.map_err(|_| crashed())??;
        let batches = stream::unfold((from, Some(task)), async |(mut from, task)| {
            if let Some(batch) = from.recv().await {
                return Some((batch, (from, task)));
            }
            // A crash must not look like the end of the rows.
            let crash = task?.await.is_err();
            crash.then(|| (Err(crashed()), (from, None)))
        });
        Ok(Answer { schema, batches: batches.boxed() })
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            // Where futures run, a runtime may not be dropped in the ordinary way.
            threads.shutdown_background();
        }
    }
}

fn crashed() -> Failure {
    Failure::new(FailureKind::Other, "the query crashed; the log has more")
}

async fn run(
    sessions: Arc<dyn Sessions>,
    statement: Statement,
    tell: oneshot::Sender<Result<SchemaRef, Failure>>,
    to: Batches,
) {
    let mut batches = match start(&*sessions, &statement).await {
        Ok((schema, batches)) => {
            if tell.send(Ok(schema)).is_err() {
                return;
            }
            batches
        }
        Err(failure) => {
            // Who asked may be gone; then nobody wants to know.
            let _ = tell.send(Err(failure));
            return;
        }
    };
    loop {
        let next = tokio::select! {
            next = batches.next() => next,
            () = to.closed() => break,
        };
        let Some(batch) = next else { break };
        let failed = batch.is_err();
        if to.send(batch.map_err(failure)).await.is_err() || failed {
            break;
        }
    }
}

async fn start(
    sessions: &dyn Sessions,
    statement: &Statement,
) -> Result<(SchemaRef, FlightRecordBatchStream), Failure> {
    let planned = Planned::new(sessions.session().await?, statement).await?;
    let schema = planned.schema();
    let answer = planned.run().await?;
    let messages = answer.map_err(|status| FlightError::Tonic(Box::new(status)));
    Ok((schema, FlightRecordBatchStream::new_from_flight_data(messages)))
}

fn failure(error: FlightError) -> Failure {
    match error {
        FlightError::Tonic(status) => status::from_status(&status),
        other => Failure::caused_by(FailureKind::Other, "an answer cannot be read", other),
    }
}
