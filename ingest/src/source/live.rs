//! Live capture on Linux: packet sockets with a ring shared with the kernel
//! (AF_PACKET, TPACKET_V3; packet(7)). It needs CAP_NET_RAW.
//!
//! * [`options`]: options, errors, stop handle
//! * `capture`: one interface: socket, ring, counters
//! * `follow`: tracks interfaces that appear and disappear
//! * `frame`: restores frames from a ring block to wire format
//! * `links`: lists interfaces through netlink
//! * `ring`, `sys`: shared memory and system calls; the only unsafe code
//!
//! **Interfaces.** Each has one socket and one ring. With `any`, a new interface is opened within a
//! fraction of a second after a netlink notice. A removed interface is drained and closed. An
//! interface that only goes down stays open. A named interface that returns after removal is opened
//! again as a new interface of the source. When the last named interface is removed, the source ends
//! with an error.
//!
//! **Packets** are borrowed from the kernel ring without a copy, with the kernel's nanosecond time.
//! They are whole, except that a frame longer than a block (at least 128 KiB) is cut, which its
//! length shows. A VLAN tag that the kernel stripped is restored. Offloading leaves frames as the
//! kernel handles them: segments merged to 64 KiB, checksums of outgoing packets not filled in.
//! Packets of one interface keep the kernel's order. Across interfaces they may be out of order by
//! the content of the rings.
//!
//! **Loss.** The kernel counts drops caused by a full ring. The source reads the count each second,
//! when a block reports drops, and at the end. A loss spans from one reading to the next.

#[cfg(not(target_os = "linux"))]
compile_error!("live capture needs Linux (AF_PACKET sockets with a TPACKET_V3 ring)");

mod capture;
mod follow;
mod frame;
mod links;
pub mod options;
mod ring;
mod sys;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, PipeReader};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use capstan_model::packet::Stamp;
use capstan_model::{Packet, Time};
use capstan_storage_engine::store;

use self::capture::{Capture, SetupError};
use self::follow::warn_not_opened;
use self::frame::Frame;
use self::links::Links;
pub use self::options::{Interfaces, LiveError, LiveOptions, StopHandle};
use super::{Event, Lost, PacketSource, SourceError};

/// Interval of [`Event::Idle`], with or without packets.
const IDLE_EVERY: Duration = Duration::from_millis(250);
/// Maximum interval between reads of the kernel's counters.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Delay after an interface change notice, because changes come in bursts.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// The bounds of [`LiveOptions::retire`].
const RETIRE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));
/// Poll interval of a capture that is being drained.
const DRAIN_EVERY: Duration = Duration::from_millis(5);

/// Kernel counters of all interfaces since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets put in the rings.
    pub captured: u64,
    /// Drops because a ring was full. Each is reported by [`Event::Lost`].
    pub dropped: u64,
    /// How often a ring became full.
    pub freezes: u64,
}

/// Live packets from network interfaces.
///
/// [`Event::Idle`] reports a moment up to which the source has captured and delivered every packet.
/// Unread packets in the rings delay that moment, by some hundred milliseconds if the caller keeps
/// up.
///
/// A source belongs to the network namespace of the thread that opened it. A thread that reads
/// events must be in the same one.
#[derive(Debug)]
pub struct LiveSource {
    options: LiveOptions,
    links: Links,
    stop: StopHandle,
    wake: PipeReader,
    captures: Vec<Capture>,
    /// Events to deliver before the next packet.
    pending: VecDeque<Event<'static>>,
    current: Option<Cursor>,
    /// The capture whose ring is checked next.
    turn: usize,
    next_number: u32,
    phase: Phase,
    idle_due: Instant,
    count_due: Instant,
    list_due: Option<Instant>,
    statistics: Statistics,
    /// All packets up to this moment are delivered.
    heard: Time,
    /// The final error, delivered after the pending events.
    error: Option<SourceError>,
    /// Reused from one poll to the next.
    poll_set: Vec<libc::pollfd>,
}

/// The read position in the current block.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    /// Which of the captures.
    capture: usize,
    /// Offset of the next packet's header in the block.
    at: usize,
    /// Packets left in the block.
    left: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Stopped at this moment. The rings are still drained.
    Stopping(Time),
    Ended,
}

/// A packet found in the current block, without borrowing it.
struct Found {
    capture: usize,
    bytes: Range<usize>,
    length: u32,
    time: Time,
}

impl LiveSource {
    /// Starts the capture. After this returns, every packet of the interfaces is either delivered or
    /// counted as lost.
    pub fn open(mut options: LiveOptions) -> Result<LiveSource, LiveError> {
        options.retire = options.retire.clamp(RETIRE.0, RETIRE.1);
        let setup = |step| move |source| LiveError::Setup { interface: "any".into(), step, source };
        let mut links = Links::open().map_err(setup("opening a netlink socket"))?;
        let (stop, wake) = StopHandle::new().map_err(setup("opening a pipe"))?;
        let present = links.list().map_err(setup("listing the interfaces"))?;
        if let Interfaces::Named(names) = &options.interfaces {
            if names.is_empty() {
                return Err(LiveError::NoneNamed);
            }
            if let Some(name) = names.iter().find(|name| present.iter().all(|l| l.name != **name)) {
                let there = present.into_iter().map(|link| link.name).collect();
                return Err(LiveError::NoSuchInterface { name: name.clone(), there });
            }
        }
        let now = Instant::now();
        let mut source = LiveSource {
            options,
            links,
            stop,
            wake,
            captures: Vec::new(),
            pending: VecDeque::new(),
            current: None,
            turn: 0,
            next_number: 0,
            phase: Phase::Running,
            idle_due: now + IDLE_EVERY,
            count_due: now + COUNT_EVERY,
            list_due: None,
            statistics: Statistics::default(),
            heard: Time::MIN,
            error: None,
            poll_set: Vec::new(),
        };
        for (name, error) in source.open_missing(&present) {
            let all = source.options.interfaces == Interfaces::Any;
            let permission = error.source.kind() == io::ErrorKind::PermissionDenied;
            if permission {
                return Err(LiveError::Permission { source: error.source });
            }
            if all && !source.captures.is_empty() {
                warn_not_opened(&name, &error);
                continue;
            }
            let SetupError { step, source } = error;
            return Err(LiveError::Setup { interface: name, step, source });
        }
        Ok(source)
    }

    /// A handle to stop this source from another thread.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// The kernel counters at their last reading.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// The next packet of the current block. Releases the block at its end.
    fn next_packet(&mut self) -> Option<Found> {
        let cursor = self.current.as_mut()?;
        let capture = self.captures.get_mut(cursor.capture)?;
        while cursor.left > 0 {
            let block = capture.ring.block(capture.head);
            let found = block.and_then(|block| {
                let frame = Frame::read(block, cursor.at)?;
                let whole = frame.complete(block, capture.framing)?;
                Some((frame, whole))
            });
            let Some((frame, (bytes, length))) = found else {
                // The kernel does not write such a block. Its packets are missing, so report a loss.
                self.pending.push_back(Event::Lost(Lost {
                    interface: Some(capture.number),
                    packets: u64::from(cursor.left),
                    live: true,
                    since: Some(capture.counted_at()),
                    noticed: Some(store::now()),
                }));
                break;
            };
            cursor.left -= 1;
            cursor.at = cursor.at.saturating_add(frame.next);
            if capture.loopback && frame.kind == libc::PACKET_OUTGOING {
                continue;
            }
            let time = frame.time;
            return Some(Found { capture: cursor.capture, bytes, length, time });
        }
        capture.finish_block();
        self.current = None;
        None
    }

    /// Between two blocks: runs timers, then takes the next block or waits.
    fn advance(&mut self) -> Result<(), SourceError> {
        let now = Instant::now();
        if self.phase == Phase::Running && self.stop.is_stopped() {
            self.phase = Phase::Stopping(store::now());
            for capture in &mut self.captures {
                capture.end(now).map_err(|source| failed(&capture.name, source))?;
            }
        }
        self.do_what_is_due(now)?;
        if !self.pending.is_empty() || self.take_block()? {
            return Ok(());
        }
        self.close_drained(now)?;
        match (self.phase, &self.options.interfaces) {
            _ if !self.pending.is_empty() => Ok(()),
            (Phase::Stopping(at), _) if self.captures.is_empty() => {
                self.phase = Phase::Ended;
                self.pending.push_back(Event::Idle(at));
                Ok(())
            }
            (Phase::Running, Interfaces::Named(names)) if self.captures.is_empty() => {
                let gone = io::Error::new(io::ErrorKind::NotFound, "the interface was removed");
                Err(failed(&names.join(", "), gone))
            }
            _ => self.wait(self.patience(now)),
        }
    }

    /// Runs timers, however busy the rings are.
    fn do_what_is_due(&mut self, now: Instant) -> Result<(), SourceError> {
        if now >= self.count_due {
            self.count_due = now + COUNT_EVERY;
            for at in 0..self.captures.len() {
                self.count(at)?;
            }
        }
        if self.phase != Phase::Running {
            return Ok(());
        }
        if now >= self.idle_due {
            self.idle_due = now + IDLE_EVERY;
            let heard = self.heard_until();
            self.heard = self.heard.max(heard);
            self.pending.push_back(Event::Idle(self.heard));
            self.wait(Duration::ZERO)?;
        }
        if self.list_due.is_some_and(|due| now >= due) {
            self.list_due = None;
            self.follow_changes(now)?;
        }
        Ok(())
    }

    /// The time up to which every packet is delivered; the minimum time if unknown.
    fn heard_until(&mut self) -> Time {
        // Read the clock first: later packets have later times.
        let now = store::now();
        let mut unread = self.captures.iter_mut().map(|capture| capture.unread_since(now));
        unread.try_fold(now, |all, one| one.map(|one| all.min(one))).unwrap_or(Time::MIN)
    }

    /// Takes the next ready block, round-robin over the captures.
    fn take_block(&mut self) -> Result<bool, SourceError> {
        let count = self.captures.len();
        for offset in 0..count {
            let at = (self.turn + offset) % count;
            let Some(header) = self.captures.get_mut(at).and_then(Capture::next_block) else {
                continue;
            };
            self.turn = at + 1;
            if header.losing {
                self.count(at)?;
            }
            self.current = Some(Cursor { capture: at, at: header.first, left: header.packets });
            return Ok(true);
        }
        Ok(false)
    }

    /// Reads the kernel counters of one capture.
    fn count(&mut self, at: usize) -> Result<(), SourceError> {
        let Some(capture) = self.captures.get_mut(at) else { return Ok(()) };
        let counted = capture.take_counted().map_err(|source| failed(&capture.name, source))?;
        self.statistics.captured += counted.captured;
        self.statistics.dropped += counted.dropped;
        self.statistics.freezes += counted.freezes;
        if counted.dropped > 0 {
            self.pending.push_back(Event::Lost(Lost {
                interface: Some(capture.number),
                packets: counted.dropped,
                live: true,
                since: Some(counted.since),
                noticed: Some(counted.until),
            }));
        }
        Ok(())
    }

    /// Poll timeout while all rings are empty.
    fn patience(&self, now: Instant) -> Duration {
        if self.captures.iter().any(Capture::is_ending) {
            return DRAIN_EVERY;
        }
        let due = self.list_due.into_iter().fold(self.idle_due.min(self.count_due), Instant::min);
        due.saturating_duration_since(now)
    }

    /// Waits for a block, an interface change, or the stop.
    fn wait(&mut self, timeout: Duration) -> Result<(), SourceError> {
        // Descriptor -1 is skipped by poll: once stopping, the pipe stays readable.
        let watched = |fd| if self.phase == Phase::Running { fd } else { -1 };
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        self.poll_set.clear();
        self.poll_set.push(entry(watched(self.wake.as_raw_fd())));
        self.poll_set.push(entry(watched(self.links.notices().as_raw_fd())));
        self.poll_set.extend(self.captures.iter().map(|c| entry(c.socket().as_raw_fd())));
        sys::poll(&mut self.poll_set, timeout).map_err(|source| failed("any", source))?;
        let mut changed = match self.poll_set.get(1) {
            Some(notices) if notices.revents != 0 => {
                self.links.take_notices().map_err(|source| failed("any", source))?
            }
            _ => false,
        };
        for (entry, capture) in self.poll_set.iter().skip(2).zip(&self.captures) {
            if entry.revents & !libc::POLLIN != 0 {
                capture.clear_error().map_err(|source| failed(&capture.name, source))?;
                changed = true;
            }
        }
        if changed {
            self.list_due.get_or_insert(Instant::now() + DEBOUNCE);
        }
        Ok(())
    }
}

impl Drop for LiveSource {
    fn drop(&mut self) {
        follow::close(std::mem::take(&mut self.captures));
    }
}

impl PacketSource for LiveSource {
    fn next_event(&mut self) -> Result<Option<Event<'_>>, SourceError> {
        let found = loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            if let Some(found) = self.next_packet() {
                break found;
            }
            if self.phase == Phase::Ended {
                return self.error.take().map_or(Ok(None), Err);
            }
            if self.current.is_none()
                && self.pending.is_empty()
                && let Err(error) = self.advance()
            {
                self.phase = Phase::Ended;
                follow::close(std::mem::take(&mut self.captures));
                self.error = Some(error);
            }
        };
        let Found { capture, bytes, length, time } = found;
        let lent = self.captures.get_mut(capture).and_then(|capture| {
            let block = capture.ring.block(capture.head)?;
            Some((capture.number, block.get(bytes)?))
        });
        let Some((interface, data)) = lent else {
            // Not met: `next_packet` has just read it there. But an end is no answer.
            return Err(failed("any", io::ErrorKind::UnexpectedEof.into()));
        };
        let stamp = Stamp::At(time);
        Ok(Some(Event::Packet(Packet { interface, stamp, length, data, options: &[] })))
    }
}

fn failed(interface: &str, source: io::Error) -> SourceError {
    SourceError::Io { name: format!("interface {interface}"), source }
}
