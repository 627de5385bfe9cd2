//! Sends frames at an even pace: a process of its own, in the namespace that is recorded.

use std::fs;
use std::time::{Duration, Instant};

use capstan_model::{Failure, FailureKind};
use serde::{Deserialize, Serialize};

use crate::sys::{FrameSocket, MAX_BATCH};
use crate::traffic::{Frame, Traffic};

/// How far behind its pace the sender may fall and still make up for it. A longer burst would be
/// another traffic than what is asked for.
const CATCH_UP: Duration = Duration::from_millis(10);

/// How long it sleeps when it is ahead.
const NAP: Duration = Duration::from_micros(250);

/// Sends frames into an interface
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The interface
    #[arg(long)]
    interface: String,
    /// Packets a second
    #[arg(long)]
    rate: u64,
    /// For how long
    #[arg(long)]
    seconds: f64,
}

/// What was sent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
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
    let mut traffic = Traffic::new();
    let mut frames: [Frame; MAX_BATCH] = std::array::from_fn(|_| Frame::default());
    let mut pace = Pace::new(arguments.rate);
    let mut sent = Sent { packets: 0, bytes: 0, refused: 0, seconds: 0.0 };
    let started = Instant::now();
    loop {
        let elapsed = started.elapsed();
        if elapsed.as_secs_f64() >= arguments.seconds {
            sent.seconds = elapsed.as_secs_f64();
            return Ok(sent);
        }
        let count = pace.due(elapsed).min(MAX_BATCH);
        if count == 0 {
            std::thread::sleep(NAP);
            continue;
        }
        for frame in &mut frames[..count] {
            traffic.fill(frame, elapsed.as_millis() as u32);
            sent.bytes += frame.len() as u64;
        }
        let parts: [_; MAX_BATCH] = std::array::from_fn(|at| traffic.parts(&frames[at]));
        let mut done = 0;
        while done < count {
            let more = socket.send(&parts[done..count]).map_err(cannot)?;
            sent.refused += u64::from(more == 0);
            done += more;
        }
        pace.sent(count);
        sent.packets += count as u64;
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
    fn the_pace_is_kept_and_a_long_pause_is_not_made_up_for() {
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
