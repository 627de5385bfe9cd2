//! Runs a program and measures the resources that it uses.
//!
//! Linux counts the peak memory of a process from its fork, so a child's peak is never below that of this process. So
//! the sender of frames, which needs much memory, is a process of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use capstan_model::{Failure, FailureKind};
use serde::{Serialize, Serializer};

use crate::sys;

/// What one run of a program used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Usage {
    /// User and system time.
    #[serde(rename = "cpu_seconds", serialize_with = "as_seconds")]
    pub(crate) cpu: Duration,
    /// From its start to its end.
    #[serde(rename = "wall_seconds", serialize_with = "as_seconds")]
    pub(crate) wall: Duration,
    /// Most resident memory, bytes.
    pub(crate) peak_bytes: u64,
}

fn as_seconds<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_secs_f64())
}

/// A program that has ended well.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) usage: Usage,
    /// Its standard output.
    pub(crate) output: String,
    /// Its standard error.
    pub(crate) said: String,
}

/// Runs a program to its end. What it prints goes to files in `logs`.
///
/// # Errors
/// It cannot be started; it fails, with the last it said; somebody interrupts.
pub(crate) fn run(command: Command, logs: &Path) -> Result<Ended, Failure> {
    Running::start(command, logs)?.finish()
}

/// A program at work. It is killed if nobody waits for its end.
pub(crate) struct Running {
    name: String,
    child: Child,
    waited: bool,
    started: Instant,
    output: PathBuf,
    errors: PathBuf,
}

impl Running {
    /// Starts a program.
    pub(crate) fn start(mut command: Command, logs: &Path) -> Result<Running, Failure> {
        check_interrupted()?;
        let name = Path::new(command.get_program())
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let log = |kind: &str| {
            let path = logs.join(format!("{name}.{kind}"));
            let file = File::create(&path)
                .map_err(|error| Failure::io(format!("cannot write {}", path.display()), error))?;
            Ok::<_, Failure>((path, file))
        };
        let (output, output_file) = log("output")?;
        let (errors, errors_file) = log("errors")?;
        command.stdin(Stdio::null()).stdout(output_file).stderr(errors_file);
        let started = Instant::now();
        let child = command.spawn().map_err(|error| {
            Failure::io(format!("cannot start {}", command.get_program().display()), error)
        })?;
        Ok(Running { name, child, waited: false, started, output, errors })
    }

    /// Waits until it has said this on standard error.
    pub(crate) fn wait_until_it_says(&mut self, words: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.said().contains(words) {
            check_interrupted()?;
            let ended = self.child.try_wait().map_err(|error| self.cannot_wait(error))?;
            self.waited = ended.is_some();
            if ended.is_some() || Instant::now() > deadline {
                return Err(self.failed(&format!("did not say '{words}'")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Asks it to end, as Ctrl-C would.
    pub(crate) fn ask_to_end(&self) -> Result<(), Failure> {
        sys::interrupt(self.child.id())
            .map_err(|error| Failure::io(format!("cannot stop {}", self.name), error))
    }

    /// Waits for its end.
    pub(crate) fn finish(self) -> Result<Ended, Failure> {
        self.wait(true)
    }

    /// Ends one that does not do so by itself.
    pub(crate) fn kill(mut self) -> Result<Ended, Failure> {
        self.child
            .kill()
            .map_err(|error| Failure::io(format!("cannot stop {}", self.name), error))?;
        self.wait(false)
    }

    fn wait(mut self, by_itself: bool) -> Result<Ended, Failure> {
        let (status, used) = loop {
            match sys::wait(self.child.id()) {
                Ok(ended) => break ended,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                    check_interrupted()?;
                }
                Err(error) => return Err(self.cannot_wait(error)),
            }
        };
        let wall = self.started.elapsed();
        self.waited = true;
        check_interrupted()?;
        if by_itself && !status.success() {
            return Err(self.failed(&format!("failed ({status})")));
        }
        let output = fs::read_to_string(&self.output).map_err(|error| {
            Failure::io(format!("cannot read what {} printed", self.name), error)
        })?;
        let usage = Usage { cpu: used.cpu, wall, peak_bytes: used.peak_bytes };
        Ok(Ended { usage, output, said: self.said() })
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    fn failed(&self, what: &str) -> Failure {
        let said = self.said();
        let last = last_lines(&said, 5);
        Failure::new(FailureKind::Other, format!("{} {what}; it said: {last}", self.name))
    }

    fn cannot_wait(&self, error: std::io::Error) -> Failure {
        Failure::io(format!("cannot wait for {}", self.name), error)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.waited {
            // It may have ended meanwhile, which is as good.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A command that is run by another, which takes it as its last arguments and becomes it.
pub(crate) fn run_by(mut by: Command, command: &Command) -> Command {
    by.arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        by.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => by.env(name, value),
            None => by.env_remove(name),
        };
    }
    by
}

/// The end of what a program said, on one line.
fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return "nothing".to_owned();
    }
    lines[lines.len().saturating_sub(count)..].join(" | ")
}

/// Fails once somebody has asked this process to end.
pub(crate) fn check_interrupted() -> Result<(), Failure> {
    if sys::interrupted() {
        return Err(Failure::new(FailureKind::Interrupted, "stopped; what was made is removed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn resource_use_of_a_program_is_reported() {
        let logs = tempfile::tempdir().unwrap();
        // 40 MiB held by dd's buffer, and some work.
        let ended = run(
            shell("echo out; exec dd if=/dev/zero of=/dev/null bs=41943040 count=20 2>/dev/null"),
            logs.path(),
        )
        .unwrap();
        assert_eq!(ended.output, "out\n");
        assert!(ended.usage.cpu > Duration::from_millis(5), "{:?}", ended.usage);
        assert!(ended.usage.peak_bytes >= 40 << 20, "{:?}", ended.usage);
        assert!(ended.usage.wall >= ended.usage.cpu / 2, "{:?}", ended.usage);
    }

    #[test]
    fn failure_has_the_output_of_the_program() {
        let logs = tempfile::tempdir().unwrap();
        let error =
            run(shell("echo first >&2; echo no room >&2; exit 3"), logs.path()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("first | no room") && text.contains('3'), "{text}");
        assert!(run(Command::new("/no/such/program"), logs.path()).is_err());
    }

    #[test]
    fn program_is_awaited_interrupted_and_killed() {
        let logs = tempfile::tempdir().unwrap();
        let script = "trap 'echo bye; exit 0' INT; echo ready >&2; while :; do sleep 0.01; done";
        let mut running = Running::start(shell(script), logs.path()).unwrap();
        running.wait_until_it_says("ready").unwrap();
        running.ask_to_end().unwrap();
        assert_eq!(running.finish().unwrap().output, "bye\n");

        let script = "trap 'echo done >&2' INT; echo ready >&2; while :; do sleep 0.01; done";
        let mut stubborn = Running::start(shell(script), logs.path()).unwrap();
        stubborn.wait_until_it_says("ready").unwrap();
        stubborn.ask_to_end().unwrap();
        stubborn.wait_until_it_says("done").unwrap();
        assert_eq!(stubborn.kill().unwrap().said, "ready\ndone\n");

        let running = Running::start(shell("exec sleep 600"), logs.path()).unwrap();
        let pid = running.child.id();
        drop(running);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());

        let mut running = Running::start(shell("echo other >&2"), logs.path()).unwrap();
        assert!(running.wait_until_it_says("ready").is_err());
    }

    #[test]
    fn command_run_by_a_wrapper_is_the_same() {
        let mut command = Command::new("true");
        command.arg("x").env("A", "b").env_remove("C").current_dir("/tmp");
        let by = run_by(Command::new("env"), &command);
        let arguments: Vec<_> = by.get_args().collect();
        assert_eq!(
            (by.get_program().to_str(), arguments),
            (Some("env"), vec!["true".as_ref(), "x".as_ref()])
        );
        assert_eq!(by.get_envs().count(), 2);
        assert_eq!(by.get_current_dir(), Some(Path::new("/tmp")));
    }

    #[test]
    fn only_the_end_is_quoted() {
        assert_eq!(last_lines("a\nb\n\nc\n", 2), "b | c");
        assert_eq!(last_lines("", 2), "nothing");
    }
}
