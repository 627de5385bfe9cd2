//! Sends the frames of a capture at an even pace: a process of its own, in the namespace that is
//! recorded.

use std::fs;
use std::io::IoSlice;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use capstan_model::{Failure, FailureKind};
use serde::{Deserialize, Serialize};

use crate::network::LONGEST_FRAME;
use crate::pcap::{Pcap, cannot_read};
use crate::sys::{FrameSocket, MAX_BATCH};

/// How far behind its pace the sender may fall and still make up for it. A longer burst would be
/// another traffic than what is asked for.
const CATCH_UP: Duration = Duration::from_millis(10);

/// How long it sleeps when it is ahead.
const NAP: Duration = Duration::from_micros(250);

/// The Ethernet header, without which nothing can be sent, bytes.
const SHORTEST_FRAME: usize = 14;

/// Sends a capture's frames into an interface, once through
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The interface
    #[arg(long)]
    interface: String,
    /// A pcap file of Ethernet frames
    #[arg(long)]
    capture: PathBuf,
    /// Packets a second
    #[arg(long)]
    rate: u64,
    /// For how long at most
    #[arg(long)]
    seconds: f64,
}

/// What was sent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Packets of the capture that no Ethernet interface sends, being too short or too long.
    pub(crate) left_out: u64,
    /// What the kernel had no room for, and was sent again.
    pub(crate) refused: u64,
    pub(crate) seconds: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Sent, Failure> {
    let name = &arguments.interface;
    let cannot = |error| Failure::io(format!("cannot send into {name}"), error);
    let number = fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).map_err(cannot)?;
    let number = number.trim().parse().map_err(|error| {
        Failure::caused_by(FailureKind::Other, "an interface number that is none", error)
    })?;
    let socket = FrameSocket::open(number).map_err(cannot)?;
    let mut capture = Pcap::open(&arguments.capture)?;
    let mut pace = Pace::new(arguments.rate);
    let mut sent = Sent { packets: 0, bytes: 0, left_out: 0, refused: 0, seconds: 0.0 };
    let mut started = None;
    loop {
        let batch = capture.next_batch().map_err(|error| cannot_read(&arguments.capture, error))?;
        let packets = batch.len();
        let frames: Vec<IoSlice<'_>> = batch
            .filter(|packet| (SHORTEST_FRAME..=LONGEST_FRAME).contains(&packet.data.len()))
            .map(|packet| IoSlice::new(packet.data))
            .collect();
        sent.left_out += (packets - frames.len()) as u64;
        // Time runs once there is something to send.
        let started = *started.get_or_insert_with(Instant::now);
        let mut rest = frames.as_slice();
        loop {
            let elapsed = started.elapsed();
            sent.seconds = elapsed.as_secs_f64();
            if packets == 0 || sent.seconds >= arguments.seconds {
                return Ok(sent);
            }
            if rest.is_empty() {
                break;
            }
            let due = pace.due(elapsed).min(MAX_BATCH).min(rest.len());
            if due == 0 {
                std::thread::sleep(NAP);
                continue;
            }
            let count = socket.send(&rest[..due]).map_err(cannot)?;
            let (gone, more) = rest.split_at(count);
            rest = more;
            pace.sent(count);
            sent.refused += u64::from(count == 0);
            sent.packets += count as u64;
            sent.bytes += gone.iter().map(|frame| frame.len() as u64).sum::<u64>();
        }
    }
}

/// When how many packets are due.
struct Pace {
    rate: u64,
    /// Packets sent, and those that were given up for being too late.
    gone: u64,
}

impl Pace {
    fn new(rate: u64) -> Pace {
        Pace { rate, gone: 0 }
    }

    /// Packets that the rate gives in a time.
    fn within(&self, time: Duration) -> u64 {
        let packets = time.as_micros() * u128::from(self.rate) / 1_000_000;
        u64::try_from(packets).unwrap_or(u64::MAX)
    }

    /// How many packets are due. Those that are too late are not made up for.
    fn due(&mut self, elapsed: Duration) -> usize {
        let should = self.within(elapsed);
        self.gone = self.gone.max(should.saturating_sub(self.within(CATCH_UP)));
        usize::try_from(should.saturating_sub(self.gone)).unwrap_or(usize::MAX)
    }

    fn sent(&mut self, count: usize) {
        self.gone += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_is_kept_without_catching_up_after_a_pause() {
        let mut pace = Pace::new(10_000);
        let at = Duration::from_millis;
        assert_eq!(pace.due(at(0)), 0);
        assert_eq!(pace.due(at(5)), 50);
        pace.sent(50);
        assert_eq!(pace.due(at(5)), 0);
        assert_eq!(pace.due(at(6)), 10);
        // A second too late: no more than ten milliseconds' worth comes at once.
        assert_eq!(pace.due(at(1000)), 100);
        pace.sent(100);
        assert_eq!(pace.due(at(1001)), 10);
    }
}
