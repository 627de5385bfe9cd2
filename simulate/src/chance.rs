//! Seeded random numbers, and machine clocks with errors.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capstan_model::Time;
use capstan_storage_engine::store::{Env, Planted};
use tokio::time::Instant;

/// When every simulation begins: 2026-03-01, by the clock of the bucket.
const BEGIN: i64 = 1_772_323_200_000_000_000;

/// Numbers that follow from a seed (xorshift64*). Clones draw from the same row.
#[derive(Debug, Clone)]
pub(crate) struct Chance(Arc<Mutex<u64>>);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        // Seeds that lie near each other begin far apart, and none is 0.
        let state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Chance(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number of a range that is not empty.
    pub(crate) fn of(&self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True this often of a thousand times.
    pub(crate) fn per_mille(&self, often: u64) -> bool {
        self.of(0..1_000) < often
    }

    /// Between two numbers of milliseconds.
    pub(crate) fn millis(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.of(range))
    }
}

/// The bucket's clock, which is right.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Begins now.
    pub(crate) fn begin() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn now(&self) -> Time {
        let since = i64::try_from(self.0.elapsed().as_nanos()).unwrap_or(i64::MAX);
        Time(BEGIN.saturating_add(since))
    }
}

/// A machine: its clock may be wrong.
#[derive(Debug)]
pub(crate) struct SimulatedEnv {
    pub(crate) clock: Clock,
    /// How far its clock is off, nanoseconds.
    pub(crate) skew: i64,
    pub(crate) chance: Chance,
    pub(crate) planted: Option<Planted>,
}

impl Env for SimulatedEnv {
    fn now(&self) -> Time {
        Time(self.clock.now().0.saturating_add(self.skew))
    }

    fn draw(&self) -> u64 {
        self.chance.next()
    }

    fn planted(&self) -> Option<Planted> {
        self.planted
    }
}
