//! Killed recordings: committed packets stay, no coverage is claimed for the others, and the next recording begins a
//! new generation.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use capstan_model::Time;
use capstan_storage_engine::store::now;

use super::{InBucket, InFolder, Kill, Place, Run, everywhere};
use crate::cable::{Cable, is_listening, numbers, record};
use crate::capstan::{answer, numeric, over, said};
use crate::running::Running;
use crate::sandbox::{self, Own, is_root};

/// Datagrams that are sent before the first commit, and again after it.
const BATCH: u32 = 50;

/// Recordings of one machine, one after the other, each of a network that is there for it alone. The
/// datagrams of a run have numbers of their own.
struct Recordings<'a> {
    place: &'a dyn Place,
    scratch: tempfile::TempDir,
    /// The numbers of all datagrams that have been seen in the store.
    seen: RefCell<Vec<u32>>,
    /// When the last run had sent each batch.
    sent: Cell<[Time; 2]>,
}

impl Recordings<'_> {
    /// Records in a new network; what is done meanwhile.
    fn record(
        &self,
        kill: Kill,
        first: u32,
        mut meanwhile: impl FnMut(&mut Cable, &Running) + Send,
    ) -> Run {
        let (place, mut ended) = (self.place, None);
        sandbox::with(Own::Network, || {
            let mut cable = Cable::new();
            cable.sent = first;
            let mut command = record(place.store(), &["--commit-seconds", "1"]);
            ended = Some(place.run(&mut command, kill, &mut |recorder| {
                if !begins(recorder, kill) {
                    return;
                }
                meanwhile(&mut cable, recorder);
                recorder.signal(libc::SIGINT);
            }));
        });
        ended.expect("root may")
    }

    /// Records two batches, with a commit in between.
    fn run(&self, number: u64, kill: Kill) -> Run {
        let mut sent = [now(); 2];
        let run = self.record(kill, first(number), |cable, recorder| {
            cable.send(BATCH);
            sent[0] = now();
            for _ in 0..14 {
                if !recorder.has_ended() {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            cable.send(BATCH);
            sent[1] = now();
        });
        self.sent.set(sent);
        run
    }

    /// Checks that all that was seen before is there, and nothing twice; the numbers that are there now
    /// and were not before.
    fn new_ones(&self) -> Vec<u32> {
        let found = numbers(self.place.store(), self.scratch.path());
        let mut seen = self.seen.borrow_mut();
        assert_eq!(found[..seen.len()], seen[..]);
        let new = found[seen.len()..].to_vec();
        *seen = found;
        new
    }

    /// Checks that coverage says what is so, where so many of the last run are stored. How many generations there
    /// are.
    fn covered(&self, stored: u32) -> u64 {
        // What was stored was heard, nothing was lost, and what is not stored is not said to have been heard.
        let missed = self.sent.get().get((stored / BATCH) as usize).map_or(Time::MAX, |sent| *sent);
        let sql = format!(
            "select (select count(distinct generation) from packets) as generations, \
             (select count(*) from coverage where kind <> 'listened') as others, \
             (select count(*) from coverage where end_time > to_timestamp_nanos({})) as later, \
             (select count(*) from packets p where not exists (select 1 from coverage c \
              where c.start_time <= p.time and p.time < c.end_time)) as outside",
            missed.0
        );
        let [generations, others, later, outside] = numeric(self.place.store(), &sql)[..] else {
            panic!("four columns")
        };
        assert_eq!([others, later, outside], [0; 3]);
        generations
    }

    /// Checks what a run left, and that the next one goes on.
    fn goes_on(&self, number: u64, run: &Run) {
        answer(&mut over(self.place.store(), "verify"));
        let stored = self.new_ones();
        assert!(stored.iter().copied().eq(first(number)..first(number) + stored.len() as u32));
        let generations = self.covered(stored.len() as u32);
        if !run.is_killed() {
            said("record", &run.output, 0, &[]);
            assert_eq!(stored.len() as u32, 2 * BATCH);
        }
        let next = first(number) + 2 * BATCH;
        let again = self.record(Kill::Never, next, |cable, _| cable.send(10));
        said("record", &again.output, 0, &[]);
        assert_eq!(self.new_ones(), Vec::from_iter(next..next + 10));
        assert_eq!(self.covered(2 * BATCH), generations + 1);
    }
}

/// Waits until a recorder listens; false if it was killed before.
fn begins(recorder: &Running, kill: Kill) -> bool {
    let line = recorder.line();
    if line.is_empty() && !matches!(kill, Kill::Never) {
        return false;
    }
    is_listening(&line);
    true
}

/// The number of the first datagram of a run.
fn first(number: u64) -> u32 {
    1_000 * number as u32
}

/// Kills recordings into a store that is there.
fn recording(place: &dyn Place) {
    let recordings = Recordings {
        place,
        scratch: tempfile::tempdir().expect("a scratch folder"),
        seen: RefCell::default(),
        sent: Cell::new([Time(0); 2]),
    };
    // Makes the store.
    recordings.goes_on(0, &recordings.run(0, Kill::Never));
    everywhere(
        12,
        |number, kill| recordings.run(number + 1, kill),
        |number, run| recordings.goes_on(number + 1, run),
    );
    answer(over(place.store(), "verify").arg("--deep"));
}

#[test]
fn a_recording_into_a_folder() {
    InFolder::new().filter(|_| is_root()).iter().for_each(|place| recording(place));
}

#[test]
fn a_recording_into_a_bucket() {
    InBucket::new().filter(|_| is_root()).iter().for_each(|place| recording(place));
}
