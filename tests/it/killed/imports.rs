//! Killed imports, and the rollup of what they leave.

use std::path::PathBuf;

use super::{InBucket, InFolder, Kill, Place, Run, everywhere};
use crate::capstan::{answer, numeric, over, run, said};
use crate::traffic::{HOUR, MIDNIGHT, Noise};

/// Two segments and commits, each with an hour of its own.
const FILE: Noise = Noise { hours: 2, packets_an_hour: 1_100 };

/// Imports of files that have nothing to do with each other, each known by its number.
struct Imports<'a> {
    place: &'a dyn Place,
    /// Each into a store that it has to make, or into one that holds something.
    makes: bool,
    scratch: tempfile::TempDir,
}

/// Imports into one store, which is then still a small one.
const TOGETHER: u64 = 8;

impl Imports<'_> {
    fn new(place: &dyn Place, makes: bool) -> Imports<'_> {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        Imports { place, makes, scratch }
    }

    fn store(&self, number: u64) -> PathBuf {
        let name = if self.makes { number } else { number / TOGETHER };
        self.place.store().join(name.to_string())
    }

    /// The file; the first time, a store for it.
    fn file(&self, number: u64) -> PathBuf {
        let file = |number: u64| {
            let path = self.scratch.path().join(format!("{number}.pcap"));
            if !path.exists() {
                FILE.write_from(&path, number * FILE.hours);
            }
            path
        };
        let first = 10_000 + number / TOGETHER;
        if !self.makes && !self.scratch.path().join(format!("{first}.pcap")).exists() {
            answer(over(&self.store(number), "import").arg(file(first)));
        }
        file(number)
    }

    fn run(&self, number: u64, kill: Kill) -> Run {
        let file = self.file(number);
        let store = self.store(number);
        // Who was killed before is known to be dead.
        let mut import = over(&store, "import");
        self.place.run(import.args(["--dead-after", "0"]).arg(file), kill, &mut |_| ())
    }

    /// How many packets of the file are in its store, all of which can be read, each once.
    fn readable(&self, number: u64) -> u64 {
        let from = MIDNIGHT + number * FILE.hours * HOUR;
        let to = from + FILE.hours * HOUR;
        let sql = format!(
            "select count(*), count(distinct ordinal), count(data) from packets \
             where to_timestamp_nanos({from}) <= time and time < to_timestamp_nanos({to})"
        );
        let [packets, ordinals, whole] = numeric(&self.store(number), &sql)[..] else {
            panic!("three columns")
        };
        assert_eq!((ordinals, whole), (packets, packets));
        packets
    }

    /// Checks that what was left is a whole store, or none; how many packets of the file are in it.
    fn left(&self, number: u64) -> u64 {
        let verified = run(&mut over(&self.store(number), "verify"));
        if self.makes && verified.status.code() == Some(3) {
            said("verify", &verified, 3, &["capstan import and capstan record create one"]);
            return 0;
        }
        said("verify", &verified, 0, &[]);
        self.readable(number)
    }

    /// Checks what a run left, runs it to its end, and then once more: nothing is left to be done.
    fn ends(&self, number: u64, run: &Run) {
        let left = self.left(number);
        assert!(left <= FILE.packets() && left.is_multiple_of(FILE.packets_an_hour), "{left}");
        if !run.is_killed() {
            said("import", &run.output, 0, &[]);
        }
        let again = self.run(number, Kill::Never).output;
        if again.status.code() != Some(9) {
            said("import", &again, 0, &[]);
        }
        assert_eq!(self.readable(number), FILE.packets());
        self.is_done(number);
    }

    /// Checks that nothing is left to be done.
    fn is_done(&self, number: u64) {
        let nothing = self.run(number, Kill::Never);
        said("import", &nothing.output, 9, &["already"]);
        assert_eq!(nothing.changes_made(), Vec::<&String>::new(), "all was rolled up");
    }

    /// Checks every byte of every store.
    fn are_whole(&self, numbers: u64) {
        for number in (0..numbers).step_by(if self.makes { 1 } else { TOGETHER as usize }) {
            answer(over(&self.store(number), "verify").arg("--deep"));
        }
    }
}

/// Kills imports, so many.
fn importing(imports: &Imports<'_>, most: usize) {
    let runs = everywhere(
        most,
        |number, kill| imports.run(number, kill),
        |number, run| imports.ends(number, run),
    );
    imports.are_whole(runs);
}

/// Kills those who roll up what two killed imports have left.
fn rolling_up(imports: &Imports<'_>) {
    let two = |number: u64| [2 * number, 2 * number + 1];
    let runs = everywhere(
        12,
        |number, kill| {
            for file in two(number) {
                assert!(
                    imports.run(file, Kill::AtFirst("catalog/")).is_killed(),
                    "it would roll up"
                );
            }
            // What is in the store already is not imported; what others left is rolled up.
            imports.run(2 * number, kill)
        },
        |number, run| {
            assert_eq!(two(number).map(|file| imports.left(file)), [FILE.packets(); 2]);
            if !run.is_killed() {
                said("import", &run.output, 9, &["already"]);
            }
            said("import", &imports.run(2 * number, Kill::Never).output, 9, &["already"]);
            assert_eq!(two(number).map(|file| imports.readable(file)), [FILE.packets(); 2]);
            imports.is_done(2 * number);
        },
    );
    imports.are_whole(2 * runs);
}

#[test]
fn an_import_that_makes_a_store_in_a_folder() {
    InFolder::new().iter().for_each(|place| importing(&Imports::new(place, true), 8));
}

#[test]
fn an_import_that_makes_a_store_in_a_bucket() {
    InBucket::new().iter().for_each(|place| importing(&Imports::new(place, true), 8));
}

#[test]
fn an_import_into_a_folder() {
    InFolder::new().iter().for_each(|place| importing(&Imports::new(place, false), 24));
}

#[test]
fn an_import_into_a_bucket() {
    InBucket::new().iter().for_each(|place| importing(&Imports::new(place, false), 24));
}

#[test]
fn rollup_in_a_folder() {
    InFolder::new().iter().for_each(|place| rolling_up(&Imports::new(place, false)));
}

#[test]
fn rollup_in_a_bucket() {
    InBucket::new().iter().for_each(|place| rolling_up(&Imports::new(place, false)));
}
