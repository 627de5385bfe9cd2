//! Folders and buckets that stop a command at each change.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use capstan_tests::proxy::{Mishap, Request, Rule};

use super::calls::{Call, Held, hold};
use super::{Changes, Kill, Place, Run};
use crate::bucket::{Bucket, behind};
use crate::running::Running;
use crate::tools::skipped;

/// A store in a folder.
pub(super) struct InFolder {
    _scratch: tempfile::TempDir,
    store: PathBuf,
}

impl InFolder {
    /// One that is not there yet.
    pub(super) fn new() -> Option<InFolder> {
        // What a thread may do once it may do again.
        let holds = std::thread::spawn(|| hold().map(drop)).join().expect("it does not panic");
        if let Err(error) = holds {
            skipped(&format!("system calls cannot be held here: {error}"));
            return None;
        }
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let store = scratch.path().canonicalize().expect("it is there").join("store");
        Some(InFolder { _scratch: scratch, store })
    }

    /// Lets calls be made one after the other, until the one to be killed at.
    fn watch(&self, held: &Held, victim: &Weak<Running>, kill: Kill) -> Vec<String> {
        let mut changes = Changes { kill, made: Vec::new() };
        // Who waits for its end has it until then.
        while let Some(victim) = victim.upgrade() {
            let Some(call) = held.next() else { continue };
            if let Some(change) = self.change(&call)
                && changes.note(change)
            {
                victim.signal(libc::SIGKILL);
                break;
            }
            held.allow(&call);
        }
        changes.made
    }

    /// What a call does to the store, if anything. Of a file only the first write counts: half a file
    /// is half a file.
    fn change(&self, call: &Call) -> Option<String> {
        // It cannot be told of a process that has gone.
        let (what, path) = call.change().ok()?;
        let name = path.strip_prefix(&self.store).ok()?;
        let is_old = match what {
            "make folder" => path.exists(),
            "write" => path.metadata().is_ok_and(|about| about.len() > 0),
            _ => false,
        };
        (!is_old).then(|| format!("{what} {}", name.display()))
    }
}

impl Place for InFolder {
    fn store(&self) -> &Path {
        &self.store
    }

    fn run(&self, command: &mut Command, kill: Kill, meanwhile: &mut dyn FnMut(&Running)) -> Run {
        std::thread::scope(|scope| {
            // A thread of its own: what is held is held as long as it lives.
            let start = || (hold().expect("it could before"), Running::start(command));
            let (held, victim) = scope.spawn(start).join().expect("capstan starts");
            let victim = Arc::new(victim);
            let watched = Arc::downgrade(&victim);
            let watcher = scope.spawn(move || self.watch(&held, &watched, kill));
            meanwhile(&victim);
            let output = victim.wait();
            drop(victim);
            Run { output, changes: watcher.join().expect("it watches") }
        })
    }
}

/// A store in a bucket.
pub(super) struct InBucket(Bucket);

impl InBucket {
    /// One that is not there yet.
    pub(super) fn new() -> Option<InBucket> {
        Bucket::new().map(InBucket)
    }
}

impl Place for InBucket {
    fn store(&self) -> &Path {
        self.0.store()
    }

    fn run(&self, command: &mut Command, kill: Kill, meanwhile: &mut dyn FnMut(&Running)) -> Run {
        let changes = Mutex::new(Changes { kill, made: Vec::new() });
        let watcher = Arc::new(Watcher { victim: OnceLock::new(), changes });
        let proxy = self.0.proxy(Arc::clone(&watcher));
        let victim = Arc::new(Running::start(behind(&proxy, command)));
        assert!(watcher.victim.set(Arc::clone(&victim)).is_ok(), "it is set once");
        meanwhile(&victim);
        let output = victim.wait();
        Run { output, changes: std::mem::take(&mut watcher.changes().made) }
    }
}

/// Watches the requests of one process.
struct Watcher {
    victim: OnceLock<Arc<Running>>,
    changes: Mutex<Changes>,
}

impl Watcher {
    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a moment of a request; true if the process is killed then.
    fn note(&self, moment: &str, request: &Request) -> bool {
        let mut changes = self.changes();
        let Request { method, path, .. } = request;
        let hit = request.writes() && changes.note(format!("{moment} {method} {path}"));
        if hit {
            self.victim.wait().signal(libc::SIGKILL);
            changes.kill = Kill::Never;
        }
        hit
    }
}

impl Rule for Watcher {
    fn meets(&self, request: &Request) -> Mishap {
        if self.note("before", request) { Mishap::RequestLost } else { Mishap::None }
    }

    fn answered(&self, request: &Request) {
        self.note("after", request);
    }
}
