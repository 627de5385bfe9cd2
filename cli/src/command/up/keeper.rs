//! Keeps a server process running beside the recorder.

use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use capstan_model::{Failure, FailureKind};

use super::super::serve::Listening;
use super::apart::PARENT;
use crate::output;
use crate::process::terminate;

/// A server that ends by itself within this time of the start of `up` could not start at all.
const START: Duration = Duration::from_secs(10);
/// The longest wait before the server is started again.
const LONGEST: Duration = Duration::from_secs(60);
/// Interval of the checks whether the server still runs.
const LOOK: Duration = Duration::from_millis(100);
/// Time-out for the server to stop before it is killed: its answers have ten seconds to end.
const STOPPING: Duration = Duration::from_secs(15);

/// What to do when the server has ended.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It cannot start; there is no use in trying again.
    GiveUp,
    /// Start it again, after a while.
    Again(Duration),
}

/// Decides by how the server ended, how long it ran, and how many short runs came before.
fn next(first: bool, by_itself: bool, ran: Duration, soon_before: u32) -> Next {
    if first && by_itself && ran < START {
        return Next::GiveUp;
    }
    Next::Again(Duration::from_secs(1 << soon_before.min(6)).min(LONGEST))
}

/// Keeps the server running; see the module.
#[derive(Debug)]
pub(super) struct Keeper {
    flight: OwnedFd,
    http: OwnedFd,
    stopped: Mutex<bool>,
    told: Condvar,
}

impl Keeper {
    /// Keeps a server that answers on these.
    pub(super) fn new(listening: Listening) -> Result<Keeper, Failure> {
        let flight = listening.flight.into_std()?.into();
        let http = listening.http.into_std()?.into();
        Ok(Keeper { flight, http, stopped: Mutex::new(false), told: Condvar::new() })
    }

    /// Starts the server, and restarts it until a stop is requested; `given_up` runs if it cannot start.
    pub(super) fn start(
        keeper: &Arc<Keeper>,
        given_up: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<Result<(), Failure>>, Failure> {
        let keeper = Arc::clone(keeper);
        let keep = move || {
            let ended = keeper.keep();
            if ended.is_err() {
                given_up();
            }
            ended
        };
        // The kernel ends the server with the thread that started it, so this one stays.
        std::thread::Builder::new()
            .name("server".to_owned())
            .spawn(keep)
            .map_err(|error| Failure::io("cannot start", error))
    }

    /// Stops the server.
    pub(super) fn stop(&self) {
        *self.lock() = true;
        self.told.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        // The data is valid between statements, so a poisoned lock may be used.
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, but returns early on a stop. Returns whether to stop.
    fn wait(&self, longest: Duration) -> bool {
        let waited = self.told.wait_timeout_while(self.lock(), longest, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn keep(&self) -> Result<(), Failure> {
        let (mut first, mut soon) = (true, 0);
        loop {
            let began = Instant::now();
            let mut server = self.launch()?;
            let ended = loop {
                if let Some(status) = server.try_wait().map_err(lost)? {
                    break status;
                }
                if self.wait(LOOK) {
                    return end(&mut server);
                }
            };
            if self.wait(Duration::ZERO) {
                return Ok(());
            }
            let ran = began.elapsed();
            match next(first, ended.code().is_some(), ran, soon) {
                Next::GiveUp => return Err(not_started(ended)),
                Next::Again(after) => {
                    output::tell(&format!(
                        "capstan: the server has ended ({ended}); recording continues, and the \
                         server restarts in {} s",
                        after.as_secs()
                    ));
                    if self.wait(after) {
                        return Ok(());
                    }
                }
            }
            (first, soon) = (false, if ran > LONGEST { 0 } else { soon + 1 });
        }
    }

    /// The same command once more, as the server.
    fn launch(&self) -> Result<Child, Failure> {
        let failed = |error| Failure::io("the server's process cannot be started", error);
        Command::new(own_path())
            .args(std::env::args_os().skip(1))
            .env(PARENT, std::process::id().to_string())
            .stdin(Stdio::from(self.flight.try_clone().map_err(failed)?))
            .stdout(Stdio::from(self.http.try_clone().map_err(failed)?))
            // Ctrl-C on a terminal is for the recorder, which stops the server then.
            .process_group(0)
            .spawn()
            .map_err(failed)
    }
}

/// This program, also when its file was replaced by a newer one meanwhile.
fn own_path() -> PathBuf {
    let own = std::env::current_exe().ok().filter(|path| path.is_file());
    own.unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// Asks the server to stop, and kills it if it does not.
fn end(server: &mut Child) -> Result<(), Failure> {
    let asked = Instant::now();
    // It may have ended just now.
    let _ = terminate(server.id());
    while asked.elapsed() < STOPPING {
        if let Some(status) = server.try_wait().map_err(lost)? {
            if !status.success() {
                output::tell(&format!("capstan: the server ended with an error ({status})"));
            }
            return Ok(());
        }
        std::thread::sleep(LOOK / 10);
    }
    output::tell("capstan: the server does not stop and is killed");
    server.kill().and_then(|()| server.wait()).map_err(lost)?;
    Ok(())
}

fn lost(error: std::io::Error) -> Failure {
    Failure::io("cannot wait for the server process", error)
}

/// The server has said why; it ended with the code of that.
fn not_started(ended: ExitStatus) -> Failure {
    let kinds = [
        FailureKind::Usage,
        FailureKind::NotFound,
        FailureKind::Permission,
        FailureKind::Full,
        FailureKind::Damaged,
        FailureKind::TooNew,
        FailureKind::Unavailable,
        FailureKind::AlreadyThere,
        FailureKind::Interrupted,
    ];
    let code = ended.code();
    let kind = kinds.into_iter().find(|kind| Some(i32::from(kind.exit_code())) == code);
    let what = match ended.signal() {
        Some(_) => format!("the server could not be started ({ended})"),
        None => "the server could not be started: see its message above".to_owned(),
    };
    Failure::new(kind.unwrap_or(FailureKind::Other), what)
}

/// How keeping ended.
pub(super) fn joined(keeping: JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    let crashed =
        |_| Failure::new(FailureKind::Other, "the thread that supervises the server crashed");
    keeping.join().map_err(crashed)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_cannot_start_is_not_restarted() {
        let second = Duration::from_secs(1);
        for (first, by_itself, ran, soon, expected) in [
            (true, true, second, 0, Next::GiveUp),
            (true, false, second, 0, Next::Again(second)),
            (true, true, START, 0, Next::Again(second)),
            (false, true, second, 1, Next::Again(2 * second)),
            (false, false, second, 5, Next::Again(32 * second)),
            (false, false, second, 60, Next::Again(LONGEST)),
        ] {
            assert_eq!(next(first, by_itself, ran, soon), expected);
        }
    }

    #[test]
    fn failure_kind_of_the_server_is_preserved() {
        let ended = |code: i32| not_started(ExitStatus::from_raw(code << 8)).kind();
        assert_eq!(ended(6), FailureKind::Damaged);
        assert_eq!(ended(1), FailureKind::Other);
        assert_eq!(ended(77), FailureKind::Other);
    }
}
