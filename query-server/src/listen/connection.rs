//! The state of one connection, and when it is closed for being idle.

pub(super) mod answer;

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::answer::Slot;

/// Length of the HTTP/2 connection preface (RFC 9113, section 3.4).
const PREFACE: u64 = 24;

/// Time-outs of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// From the start of a connection to its first complete request.
    pub(super) first: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
    /// For the next part of a request that has begun.
    pub(super) request: Duration,
    /// For the client to read 64 KiB more of an answer.
    pub(super) stalled: Duration,
    /// Exempts HTTP/2 connections from `first`: clients connect before they have a request.
    pub(super) may_connect_early: bool,
}

impl Patience {
    /// Interval between checks of the time-outs.
    pub(super) fn tick(&self) -> Duration {
        let least = self.first.min(self.idle).min(self.stalled);
        (least / 4).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}

/// Input for the decision to close an idle connection.
#[derive(Debug, Clone, Copy)]
struct Quiet {
    /// How long it has been idle.
    time: Duration,
    /// Number of its requests so far.
    requests: u64,
    /// Bytes received.
    received: u64,
}

/// Whether an idle connection has to end.
fn is_over(quiet: Quiet, patience: &Patience) -> bool {
    let spoke = quiet.requests > 0 || (patience.may_connect_early && quiet.received >= PREFACE);
    quiet.time >= if spoke { patience.idle } else { patience.first }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    spare: bool,
    received: AtomicU64,
    state: Mutex<State>,
    end: Notify,
}

#[derive(Debug)]
struct State {
    /// Number of requests in progress.
    calls: usize,
    requests: u64,
    /// When the last answer ended, or the connection began.
    quiet_since: Instant,
    answers: Vec<Weak<Slot>>,
}

/// A request in progress, until this is dropped.
#[derive(Debug)]
pub(super) struct Call(Arc<Connection>);

impl Connection {
    pub(super) fn new(spare: bool) -> Connection {
        let state =
            State { calls: 0, requests: 0, quiet_since: Instant::now(), answers: Vec::new() };
        Connection {
            spare,
            received: AtomicU64::new(0),
            state: Mutex::new(state),
            end: Notify::new(),
        }
    }

    /// Whether it is beyond the limit, and only gets the answer "busy".
    pub(super) fn is_spare(&self) -> bool {
        self.spare
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when it is idle; none while a request is in progress.
    pub(super) fn quiet_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.calls == 0).then_some(state.quiet_since)
    }

    /// Begins a request.
    pub(super) fn begin(self: &Arc<Connection>) -> Call {
        let mut state = self.state();
        state.calls += 1;
        state.requests += 1;
        Call(Arc::clone(self))
    }

    /// Registers an answer, to check whether the client reads it.
    pub(super) fn watch(&self, answer: &Arc<Slot>) {
        let mut state = self.state();
        state.answers.retain(|known| known.strong_count() > 0);
        state.answers.push(Arc::downgrade(answer));
    }

    /// Aborts answers that their client does not read.
    pub(super) fn give_up_stalled(&self, patience: &Patience) {
        let answers: Vec<_> = self.state().answers.iter().filter_map(Weak::upgrade).collect();
        let now = Instant::now();
        for answer in answers {
            answer.give_up_if_stalled(now, patience.stalled);
        }
    }

    /// Whether it has been idle for too long.
    pub(super) fn is_over(&self, patience: &Patience) -> bool {
        let state = self.state();
        let quiet = Quiet {
            time: state.quiet_since.elapsed(),
            requests: state.requests,
            received: self.received.load(Ordering::Relaxed),
        };
        // A connection beyond the limit got its refusal with its first request.
        let told = self.spare && state.requests > 0;
        state.calls == 0 && (told || is_over(quiet, patience))
    }

    /// Requests its end at once.
    pub(super) fn end(&self) {
        self.end.notify_one();
    }

    /// Waits for that request.
    pub(super) async fn ended(&self) {
        self.end.notified().await;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.calls -= 1;
        if state.calls == 0 {
            state.quiet_since = Instant::now();
        }
    }
}

/// A socket that counts received bytes.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) stream: TcpStream,
    pub(super) connection: Arc<Connection>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = buffer.filled().len().saturating_sub(before) as u64;
        if came > 0 {
            self.connection.received.fetch_add(came, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_without_a_request_is_closed_before_an_idle_one() {
        let seconds = Duration::from_secs;
        let http = Patience {
            first: seconds(10),
            idle: seconds(100),
            request: seconds(1),
            stalled: seconds(1),
            may_connect_early: false,
        };
        let flight = Patience { may_connect_early: true, ..http };
        let quiet = |time, requests, received| Quiet { time: seconds(time), requests, received };
        for (of, http_ends, flight_ends) in [
            (quiet(9, 0, 0), false, false),
            (quiet(10, 0, 0), true, true),
            (quiet(10, 0, 23), true, true),
            // Half of a request's headers, or an HTTP/2 preface.
            (quiet(10, 0, 24), true, false),
            (quiet(99, 1, 500), false, false),
            (quiet(100, 1, 500), true, true),
            (quiet(100, 0, 500), true, true),
        ] {
            let ends = (is_over(of, &http), is_over(of, &flight));
            assert_eq!(ends, (http_ends, flight_ends), "{of:?}");
        }
    }

    #[tokio::test]
    async fn a_connection_is_quiet_between_calls() {
        let connection = Arc::new(Connection::new(false));
        let began = connection.quiet_since().unwrap();
        let (one, two) = (connection.begin(), connection.begin());
        drop(one);
        assert_eq!(connection.quiet_since(), None);
        drop(two);
        assert!(connection.quiet_since().unwrap() >= began);
    }
}
