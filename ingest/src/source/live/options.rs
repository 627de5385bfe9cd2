//! Options, errors and the stop handle of a live capture.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capstan_model::{Failure, FailureKind};

use super::ring::Shape;

/// Minimum size of the ring of an interface, bytes, also if the budget is used up.
const LEAST_RING: usize = 1 << 20;
/// Maximum size of the ring of an interface, bytes (the kernel counts in 32 bits).
const MOST_RING: usize = 1 << 30;

/// Which interfaces to capture on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interfaces {
    /// Interfaces by name. All must exist at the start. An interface that disappears and returns is captured
    /// again, as a new interface of the source.
    Named(Vec<String>),
    /// Every interface that is up, loopback included, also those that come up later.
    Any,
}

impl Interfaces {
    /// From names as they are given on a command line: `any` among them means all.
    pub fn from_names(names: Vec<String>) -> Interfaces {
        if names.iter().any(|name| name == "any") {
            Interfaces::Any
        } else {
            Interfaces::Named(names)
        }
    }
}

/// Options of a live capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveOptions {
    /// The interfaces.
    pub interfaces: Interfaces,
    /// Whether to capture also frames that are not for this host. By default yes on named interfaces, and no on
    /// all interfaces.
    pub promiscuous: Option<bool>,
    /// Memory for the rings of all interfaces together, bytes. It is divided equally at the start. With
    /// [`Interfaces::Any`], half is reserved for interfaces that come up later. No ring has less than 1 MiB, so
    /// many interfaces take more.
    pub ring_bytes: usize,
    /// Time from its first packet until a block that is not full is handed over: the maximum delay of a packet.
    /// From 1 ms to 1 s.
    pub retire: Duration,
}

impl LiveOptions {
    /// Capture on `interfaces`: 64 MiB of rings, 60 ms delay at most.
    pub fn new(interfaces: Interfaces) -> Self {
        LiveOptions {
            interfaces,
            promiscuous: None,
            ring_bytes: 64 << 20,
            retire: Duration::from_millis(60),
        }
    }

    /// The ring of each of `opening` interfaces, while rings of `used` bytes exist.
    pub(super) fn ring_shape(&self, opening: usize, used: usize) -> Shape {
        let parts = match self.interfaces {
            Interfaces::Any => opening.saturating_mul(2),
            Interfaces::Named(_) => opening,
        };
        let free = self.ring_bytes.saturating_sub(used);
        let bytes = (free / parts.max(1)).clamp(LEAST_RING, MOST_RING);
        // A block holds its packets until it is read, however few they are. So a ring survives a pause of the
        // reader of (blocks x retire), and many blocks have priority. Large blocks hold the largest frames
        // (512 KiB, BIG TCP) completely.
        let block_bytes: u32 = match bytes {
            ..0x80_0000 => 128 << 10,
            0x80_0000..0x200_0000 => 256 << 10,
            _ => 1 << 20,
        };
        // At least 8 blocks, at most 1024.
        Shape { block_bytes, blocks: (bytes / block_bytes as usize) as u32 }
    }
}

/// Why a live capture could not start.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// No permission to open packet sockets.
    #[error("capture needs CAP_NET_RAW: run as root, or run once: setcap cap_net_raw+ep <program>")]
    Permission {
        /// The error of the kernel.
        source: io::Error,
    },
    /// A named interface does not exist.
    #[error("interface '{name}' does not exist; existing interfaces: {}", there.join(", "))]
    NoSuchInterface {
        /// The requested name.
        name: String,
        /// The existing names.
        there: Vec<String>,
    },
    /// No interface was named.
    #[error("name at least one interface to capture on, or 'any' for all of them")]
    NoneNamed,
    /// A system call failed.
    #[error("cannot capture on {interface}: {step} failed")]
    Setup {
        /// The interface's name, or `any`.
        interface: String,
        /// The step that failed.
        step: &'static str,
        /// The cause.
        source: io::Error,
    },
}

impl From<LiveError> for Failure {
    fn from(error: LiveError) -> Self {
        let what = error.to_string();
        match error {
            LiveError::Permission { source } => {
                Failure::caused_by(FailureKind::Permission, what, source)
            }
            LiveError::Setup { source, .. } => Failure::io(what, source),
            LiveError::NoSuchInterface { .. } => Failure::new(FailureKind::NotFound, what),
            LiveError::NoneNamed => Failure::new(FailureKind::Usage, what),
        }
    }
}

/// Ends a live capture from another thread.
#[derive(Debug, Clone)]
pub struct StopHandle(Arc<Stop>);

#[derive(Debug)]
struct Stop {
    requested: AtomicBool,
    wake: PipeWriter,
}

impl StopHandle {
    /// A handle, and a descriptor that becomes readable when it is used.
    pub(super) fn new() -> io::Result<(StopHandle, PipeReader)> {
        let (reader, wake) = io::pipe()?;
        Ok((StopHandle(Arc::new(Stop { requested: AtomicBool::new(false), wake })), reader))
    }

    /// Requests the end of the source: it accepts no more packets, and delivers the packets in its rings and the
    /// losses. A second request changes nothing.
    pub fn stop(&self) {
        if !self.0.requested.swap(true, Ordering::AcqRel) {
            // One byte into an empty pipe cannot block. If it fails, the reader is gone, or it sees the
            // flag within 250 ms.
            let _ = (&self.0.wake).write_all(&[1]);
        }
    }

    /// Whether the end of the source was requested.
    pub fn is_stopped(&self) -> bool {
        self.0.requested.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(interfaces: Interfaces, total: usize, opening: usize, used: usize) -> Shape {
        let mut options = LiveOptions::new(interfaces);
        options.ring_bytes = total;
        options.ring_shape(opening, used)
    }

    #[test]
    fn ring_budget_is_divided_between_interfaces() {
        let named = || Interfaces::Named(vec![]);
        let mib = 1 << 20;
        assert_eq!(shape(named(), 64 * mib, 1, 0), Shape { block_bytes: 1 << 20, blocks: 64 });
        assert_eq!(shape(named(), 64 * mib, 2, 0), Shape { block_bytes: 1 << 20, blocks: 32 });
        assert_eq!(
            shape(Interfaces::Any, 64 * mib, 2, 0),
            Shape { block_bytes: 256 << 10, blocks: 64 }
        );
        assert_eq!(
            shape(Interfaces::Any, 64 * mib, 1, 56 * mib),
            Shape { block_bytes: 128 << 10, blocks: 32 }
        );
    }

    #[test]
    fn a_ring_is_never_tiny_nor_too_large_for_the_kernel() {
        for (total, opening, used) in [(0, 1, 0), (0, 0, 0), (1 << 20, 1000, 1 << 40)] {
            let least = shape(Interfaces::Any, total, opening, used);
            assert_eq!(least, Shape { block_bytes: 128 << 10, blocks: 8 });
        }
        assert_eq!(shape(Interfaces::Named(vec![]), usize::MAX, 1, 0).bytes(), MOST_RING);
    }

    #[test]
    fn any_among_the_names_means_all() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(Interfaces::from_names(names(&["lo", "any"])), Interfaces::Any);
        let lo = names(&["lo"]);
        assert_eq!(Interfaces::from_names(names(&["lo"])), Interfaces::Named(lo));
    }
}
