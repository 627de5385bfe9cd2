//! Time-outs of bodies: aborts answers that the client does not read, and requests that stall.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::{Call, Connection};

/// Longest piece that is passed on. The client has to read this much within the time-out of a stalled answer.
const PIECE: usize = 64 << 10;

type Failed = Box<dyn Error + Send + Sync>;

/// An answer in progress. The connection can abort it while the client does not read.
#[derive(Debug)]
pub(in crate::listen) struct Slot(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    /// None once it has ended or was aborted.
    body: Option<(Body, Call)>,
    /// The rest of the last piece.
    rest: Bytes,
    /// Since when the next piece is ready; none while it is being made.
    ready_since: Option<Instant>,
    given_up: bool,
}

impl Slot {
    /// Aborts the answer if its ready data was not read for so long. Frees its memory and cancels the work
    /// behind it. A client that reads later gets an error, not an end of the body.
    pub(super) fn give_up_if_stalled(&self, now: Instant, patience: Duration) {
        let mut kept = match self.0.try_lock() {
            Ok(kept) => kept,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // It is being read right now.
            Err(TryLockError::WouldBlock) => return,
        };
        let stalled = kept.ready_since.is_some_and(|since| now.duration_since(since) >= patience);
        if stalled && kept.body.is_some() {
            tracing::warn!("answer aborted: its client read nothing for {patience:?}");
            kept.body = None;
            kept.rest = Bytes::new();
            kept.given_up = true;
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(in crate::listen) struct Answer(Arc<Slot>);

impl Answer {
    pub(in crate::listen) fn new(body: Body, call: Call, connection: &Connection) -> Answer {
        let kept = Kept {
            body: Some((body, call)),
            rest: Bytes::new(),
            // Its headers are ready.
            ready_since: Some(Instant::now()),
            given_up: false,
        };
        let slot = Arc::new(Slot(Mutex::new(kept)));
        connection.watch(&slot);
        Answer(slot)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        let mut kept = self.kept();
        if kept.given_up {
            return Poll::Ready(Some(Err("the client did not read the answer in time".into())));
        }
        if kept.rest.is_empty() {
            let Some((body, _)) = &mut kept.body else { return Poll::Ready(None) };
            match Pin::new(body).poll_frame(context) {
                Poll::Pending => {
                    kept.ready_since = None;
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => kept.rest = data,
                    Err(trailers) => {
                        kept.ready_since = Some(Instant::now());
                        return Poll::Ready(Some(Ok(trailers)));
                    }
                },
                Poll::Ready(end) => {
                    kept.body = None;
                    kept.ready_since = None;
                    return Poll::Ready(end.map(|failed| failed.map_err(Into::into)));
                }
            }
        }
        let length = kept.rest.len().min(PIECE);
        let piece = kept.rest.split_to(length);
        kept.ready_since = Some(Instant::now());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.kept();
        let ended = kept.body.as_ref().is_none_or(|(body, _)| body.is_end_stream());
        ended && kept.rest.is_empty() && !kept.given_up
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.kept();
        match &kept.body {
            Some((body, _)) if kept.rest.is_empty() => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

/// The body of a request. It ends with an error if the client stalls for too long.
pub(in crate::listen) struct Request {
    body: Incoming,
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Request {
    pub(in crate::listen) fn new(body: Incoming, patience: Duration) -> Request {
        Request { body, patience, waiting: None }
    }
}

impl HttpBody for Request {
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        match waiting.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Some(Err("the request stalled".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
