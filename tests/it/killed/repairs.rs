//! Killed repairs: the next one comes to the same result, and no packet is visible twice meanwhile.

use std::path::PathBuf;

use capstan_storage_engine::store::{Listed, Location, Options, Store};
use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;

use super::{InBucket, InFolder, Kill, Place, Run, everywhere};
use crate::capstan::{answer, in_csv, numeric, only_numbers, over, run, said};
use crate::traffic::Noise;

/// Two segments and commits, each with an hour of its own.
const FILE: Noise = Noise { hours: 2, packets_an_hour: 1_100 };

/// Repairs of stores that have nothing to do with each other, each known by its number.
struct Repairs<'a> {
    place: &'a dyn Place,
    /// What of each store is lost.
    lost: &'a [&'a str],
    file: PathBuf,
    _scratch: tempfile::TempDir,
}

impl Repairs<'_> {
    fn new<'a>(place: &'a dyn Place, lost: &'a [&'a str]) -> Repairs<'a> {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let file = scratch.path().join("noise.pcap");
        FILE.write(&file);
        Repairs { place, lost, file, _scratch: scratch }
    }

    fn store(&self, number: u64) -> PathBuf {
        self.place.store().join(number.to_string())
    }

    /// Makes a store, and removes from it what is lost.
    fn damaged(&self, number: u64) {
        answer(over(&self.store(number), "import").arg(&self.file));
        let location: Location =
            self.store(number).to_string_lossy().parse().expect("a folder or bucket");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let options = Options::from_env().expect("settings");
            let store = Store::open(&location, "default", &options).await.expect("a store");
            let all: Vec<Listed> =
                store.list(&ObjectPath::default()).try_collect().await.expect("names");
            for lost in self.lost {
                let lost = ObjectPath::from(*lost);
                let is_lost = |object: &&Listed| object.path.prefix_matches(&lost);
                assert!(all.iter().any(|object| is_lost(&object)), "there is no {lost}");
                for object in all.iter().filter(is_lost) {
                    store.delete(&object.path).await.expect("it is ours");
                }
            }
        });
    }

    fn repair(&self, number: u64, kill: Kill) -> Run {
        let mut command = over(&self.store(number), "repair");
        self.place.run(command.arg("--nobody-writes"), kill, &mut |_| ())
    }

    /// Checks what a run left, repairs it to its end, and then once more: nothing is left to be done.
    fn ends(&self, number: u64, repaired: &Run) {
        let store = self.store(number);
        let counts = "select count(*), count(distinct ordinal), count(data) from packets";
        let readable = run(&mut in_csv(&store, counts));
        if readable.status.success() {
            let text = String::from_utf8_lossy(&readable.stdout);
            let [packets, ordinals, whole] = only_numbers(&text)[..] else { panic!("{text}") };
            assert!(packets == ordinals && packets == whole && packets <= FILE.packets(), "{text}");
        }
        if !repaired.is_killed() {
            said("repair", &repaired.output, 0, &[]);
        }
        said("repair", &self.repair(number, Kill::Never).output, 0, &[]);
        assert_eq!(numeric(&store, counts), [FILE.packets(); 3]);
        answer(over(&store, "verify").arg("--deep"));
        let again = self.repair(number, Kill::Never);
        assert_eq!(String::from_utf8_lossy(&again.output.stdout), "nothing needs repair\n");
        assert_eq!(again.changes_made(), Vec::<&String>::new());
    }
}

/// What logs can give back.
const ROLLED_UP: &[&str] = &["catalog"];

/// All but the segments.
const ALL: &[&str] = &["catalog", "log", "writers", "format"];

fn repairing(place: &dyn Place, lost: &[&str]) {
    let repairs = Repairs::new(place, lost);
    everywhere(
        10,
        |number, kill| {
            repairs.damaged(number);
            repairs.repair(number, kill)
        },
        |number, run| repairs.ends(number, run),
    );
}

#[test]
fn a_repair_from_logs_in_a_folder() {
    InFolder::new().iter().for_each(|place| repairing(place, ROLLED_UP));
}

#[test]
fn a_repair_from_logs_in_a_bucket() {
    InBucket::new().iter().for_each(|place| repairing(place, ROLLED_UP));
}

#[test]
fn a_repair_from_segments_in_a_folder() {
    InFolder::new().iter().for_each(|place| repairing(place, ALL));
}

#[test]
fn a_repair_from_segments_in_a_bucket() {
    InBucket::new().iter().for_each(|place| repairing(place, ALL));
}
