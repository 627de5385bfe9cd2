//! A process that ends with the test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::capstan::signal;
use crate::crash;
use crate::server::PATIENCE;

/// The most memory that a running process had, MiB.
pub(crate) fn peak_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") / 1_024
}

/// A process that does not say much. Several threads may have to do with it.
pub(crate) struct Running {
    began: SystemTime,
    child: Mutex<Child>,
    words: Mutex<BufReader<ChildStderr>>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Running {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let began = SystemTime::now();
        let mut child = command.spawn().expect("capstan starts");
        let words = BufReader::new(child.stderr.take().expect("it is piped"));
        Running { began, child: Mutex::new(child), words: Mutex::new(words) }
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn words(&self) -> MutexGuard<'_, BufReader<ChildStderr>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Waits for the next line of what it says on standard error; nothing if it has ended.
    pub(crate) fn line(&self) -> String {
        let mut line = String::new();
        self.words().read_line(&mut line).expect("text");
        line
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.child().try_wait().expect("it is ours").is_some()
    }

    /// Sends a signal, if it still runs.
    pub(crate) fn signal(&self, number: i32) {
        let mut child = self.child();
        if child.try_wait().expect("it is ours").is_none() {
            signal(&child, number);
        }
    }

    /// Waits for its end; what it said, but for the lines that were taken.
    pub(crate) fn wait(&self) -> Output {
        let began = Instant::now();
        while !self.has_ended() {
            assert!(began.elapsed() < 3 * PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.words().read_to_end(&mut stderr).expect("it is piped");
        let mut child = self.child();
        child.stdout.take().map(|mut pipe| pipe.read_to_end(&mut stdout));
        let status = child.wait().expect("it is ours");
        crash::check(self.began, status, &String::from_utf8_lossy(&stderr));
        Output { status, stdout, stderr }
    }

    /// Asks it to stop, and waits for its end.
    pub(crate) fn stop(&self) -> Output {
        self.signal(libc::SIGINT);
        self.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }
}
