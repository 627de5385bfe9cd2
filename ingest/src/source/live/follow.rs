//! Tracks the captured interfaces: at the start, and as they appear and disappear.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use capstan_storage_engine::store;

use super::capture::{Capture, SetupError, describe};
use super::links::Link;
use super::{Event, Interfaces, LiveSource, SourceError, failed};

/// Maximum number of threads that set up or close rings at the same time. They only wait.
const MOST_THREADS: usize = 32;

impl LiveSource {
    /// Opens the wanted interfaces that exist and are not open yet. Returns those that could not be opened.
    pub(super) fn open_missing(&mut self, present: &[Link]) -> Vec<(String, SetupError)> {
        let open: Vec<i32> = self
            .captures
            .iter()
            .filter(|capture| !capture.is_ending())
            .map(|capture| capture.index)
            .collect();
        let missing = missing(&self.options.interfaces, present, &open);
        let used = self.captures.iter().map(|capture| capture.ring.shape().bytes()).sum();
        let shape = self.options.ring_shape(missing.len(), used);
        let named = self.options.interfaces != Interfaces::Any;
        let promiscuous = self.options.promiscuous.unwrap_or(named);
        let retire = self.options.retire;
        let opened = in_parallel(missing, |link: &Link| {
            (link, Capture::open(link, shape, retire, promiscuous))
        });
        let mut failed = Vec::new();
        for (link, result) in opened {
            match result {
                Ok(mut capture) => {
                    tracing::info!(interface = link.name, ring = shape.bytes(), "capturing");
                    let interface = self.next_number;
                    capture.number = interface;
                    self.captures.push(capture);
                    self.pending.push_back(Event::Interface(describe(link)));
                    self.pending.push_back(Event::Opened { interface, at: store::now() });
                    self.next_number += 1;
                }
                Err(error) => failed.push((link.name.clone(), error)),
            }
        }
        failed
    }

    /// Ends the captures of interfaces that are gone, and opens new interfaces.
    pub(super) fn follow_changes(&mut self, now: Instant) -> Result<(), SourceError> {
        for capture in &mut self.captures {
            let name = &capture.name;
            if !capture.is_attached().map_err(|source| failed(name, source))? {
                if !capture.is_ending() {
                    tracing::info!(interface = name, "the interface was removed");
                }
                capture.end(now).map_err(|source| failed(&capture.name, source))?;
            }
        }
        let present = self.links.list().map_err(|source| failed("any", source))?;
        for (name, error) in self.open_missing(&present) {
            warn_not_opened(&name, &error);
        }
        Ok(())
    }

    /// Closes captures that have ended and are empty.
    pub(super) fn close_drained(&mut self, now: Instant) -> Result<(), SourceError> {
        let mut drained = Vec::new();
        for at in (0..self.captures.len()).rev() {
            if self.captures.get(at).is_some_and(|capture| capture.is_drained(now)) {
                self.count(at)?;
                let capture = self.captures.swap_remove(at);
                let (interface, at) = (capture.number, capture.listened_until());
                self.pending.push_back(Event::Closed { interface, at });
                drained.push(capture);
            }
        }
        close(drained);
        Ok(())
    }
}

/// Closes captures, and drops the packets that they still hold.
pub(super) fn close(captures: Vec<Capture>) {
    in_parallel(captures, drop);
}

/// Does `work` for each item, and returns the results in the order of the items. To set up or close a ring, the
/// kernel waits for 10 to 25 ms, until no processor uses the old state. Nothing is read during that time, so the
/// waits run concurrently.
fn in_parallel<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let count = items.len();
    let queue = Mutex::new(items.into_iter().enumerate());
    let results = Mutex::new(Vec::with_capacity(count));
    let worker = || {
        loop {
            // A separate statement, so that the lock is not held during the work.
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((at, item)) = next else { break };
            let result = (at, work(item));
            results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
        }
    };
    thread::scope(|scope| {
        for _ in 1..count.min(MOST_THREADS) {
            // With fewer threads it takes longer.
            let _ = thread::Builder::new().spawn_scoped(scope, worker);
        }
        worker();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The wanted links that are not open yet.
fn missing<'a>(wanted: &Interfaces, present: &'a [Link], open: &[i32]) -> Vec<&'a Link> {
    let is_wanted = |link: &Link| match wanted {
        Interfaces::Any => link.up,
        Interfaces::Named(names) => names.contains(&link.name),
    };
    present.iter().filter(|link| is_wanted(link) && !open.contains(&link.index)).collect()
}

pub(super) fn warn_not_opened(interface: &str, error: &SetupError) {
    tracing::warn!(interface, step = error.step, error = %error.source, "cannot capture on it");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: i32, name: &str, up: bool) -> Link {
        let name = name.to_owned();
        Link { index, name, hardware: 1, up, loopback: false, address: vec![] }
    }

    #[test]
    fn work_in_parallel_keeps_its_order() {
        for count in [0, 1, 2, 31, 500] {
            let squares: Vec<u32> = in_parallel((0..count).collect(), |n: u32| n * n);
            assert_eq!(squares, (0..count).map(|n| n * n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn selected_existing_interface_that_is_not_open_is_missing() {
        let present = [link(1, "lo", true), link(2, "eth0", true), link(3, "eth1", false)];
        let of = |wanted: &Interfaces, open: &[i32]| -> Vec<i32> {
            missing(wanted, &present, open).iter().map(|link| link.index).collect()
        };
        assert_eq!(of(&Interfaces::Any, &[]), [1, 2]);
        assert_eq!(of(&Interfaces::Any, &[1, 9]), [2]);
        // A named one need not be up, and its name may have another number now.
        let named = Interfaces::Named(vec!["eth1".into(), "eth0".into(), "eth1".into()]);
        assert_eq!(of(&named, &[7]), [2, 3]);
        assert!(of(&named, &[2, 3]).is_empty());
    }
}
