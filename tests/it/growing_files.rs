//! Files that are written, replaced or truncated while they are imported.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::capstan::{answer, fails, over, row, said, signal};
use crate::captures::read;
use crate::interrupted::{ended, halfway};
use crate::traffic::{Noise, readable};

/// Enough that an import commits many times before its end.
const FILE: Noise = Noise { hours: 24, packets_an_hour: 1_500 };

/// A capture file, and its bytes.
fn prepared(scratch: &Path) -> (PathBuf, Vec<u8>) {
    let file = scratch.join("noise.pcap");
    FILE.write(&file);
    let bytes = fs::read(&file).expect("the capture");
    (file, bytes)
}

fn append(file: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(file).expect("the capture");
    file.write_all(bytes).expect("the capture");
}

/// Checks that the store has exactly the packets of the file.
fn has_it_once(store: &Path, file: &Path, scratch: &Path) {
    assert_eq!(readable(store), FILE.packets());
    assert_eq!(row(store, "select count(*) from flows where not opened"), ["0"]);
    answer(over(store, "verify").arg("--deep"));
    let back = scratch.join("back.pcapng");
    answer(over(store, "export").args(["--order", "recorded", "-o"]).arg(&back));
    assert!(read(&back).eq(read(file)), "the packets differ");
    fails(over(store, "import").arg(file), 9, &["already"]);
    let lost = row(store, "select count(*) from coverage where kind = 'lost'");
    assert_eq!(lost, ["0"], "what came later is not lost");
}

#[test]
fn import_of_a_growing_file_stores_its_initial_part() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (file, bytes) = prepared(scratch.path());
    let store = scratch.path().join("store");
    // Its writer is in the middle of a packet, always.
    let (half, more) = (bytes.len() / 6 * 5 + 7, bytes.len() / 12 * 11 + 7);
    fs::write(&file, &bytes[..half]).expect("the capture");
    let import = halfway(&store, &file, 1);
    append(&file, &bytes[half..more]);
    signal(&import, libc::SIGCONT);
    let output = ended(import);
    said("import", &output, 0, &[]);
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(words.contains("the file grew during the import: its first"), "{words}");
    let taken = readable(&store);
    assert!(taken < FILE.packets(), "{taken}");
    // It has more now, and goes on to grow.
    append(&file, &bytes[more..]);
    let words = answer(over(&store, "import").arg(&file));
    assert!(words.contains("committed by an earlier run"), "{words}");
    has_it_once(&store, &file, scratch.path());
}

#[test]
fn import_of_a_grown_file_continues() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (file, bytes) = prepared(scratch.path());
    let store = scratch.path().join("store");
    // A file header of 24 bytes, then packets of 16 and 1,042 bytes each.
    let place = |packets: usize| 24 + packets * (16 + 1_042);
    fs::write(&file, &bytes[..place(1)]).expect("the capture");
    answer(over(&store, "import").arg(&file));
    fails(over(&store, "import").arg(&file), 9, &["already"]);
    let mut before = 1;
    for packets in [2, 3_000, FILE.packets() as usize] {
        append(&file, &bytes[place(before)..place(packets)]);
        let words = answer(over(&store, "import").arg(&file));
        assert!(words.contains(&format!("{before} packet")), "{words}");
        assert_eq!(readable(&store), packets as u64);
        before = packets;
    }
    has_it_once(&store, &file, scratch.path());
}

#[test]
fn file_replaced_or_truncated_during_its_import_is_an_error() {
    type Change = fn(&Path);
    let changes: [(Change, &str); 3] = [
        (
            |file| {
                let other = file.with_extension("new");
                FILE.write_from(&other, 100);
                fs::rename(&other, file).expect("the capture");
            },
            "was replaced by another file",
        ),
        (
            |file| {
                let cut = OpenOptions::new().write(true).open(file).expect("the capture");
                cut.set_len(5_000).expect("the capture");
            },
            "was truncated",
        ),
        (|file| FILE.write_from(file, 100), "was overwritten"),
    ];
    for (change, words) in changes {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let (file, _) = prepared(scratch.path());
        let store = scratch.path().join("store");
        let import = halfway(&store, &file, 1);
        change(&file);
        signal(&import, libc::SIGCONT);
        said("import", &ended(import), 6, &[words, "during the import", "stay"]);
        answer(&mut over(&store, "verify"));
        assert!(readable(&store) > 0);
    }
}

#[test]
fn possible_duplicate_capture_is_reported() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (file, bytes) = prepared(scratch.path());
    let store = scratch.path().join("store");
    let half = scratch.path().join("half.pcap");
    fs::write(&half, &bytes[..bytes.len() / 2]).expect("a capture");
    let gzip = scratch.path().join("noise.pcap.gz");
    let packed = Command::new("gzip").arg("-c").arg(&file).output().expect("gzip runs");
    fs::write(&gzip, packed.stdout).expect("a capture");
    let other = scratch.path().join("other.pcap");
    Noise { hours: 1, packets_an_hour: 10 }.write(&other);

    let imported = |file: &Path, is_alike: bool| {
        let output = over(&store, "import").arg(file).output().expect("capstan runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_said = said.contains("begins with the same packet as")
            && said.contains("of which the store has 36000 packets");
        assert_eq!(is_said, is_alike, "{}: {said}", file.display());
    };
    imported(&file, false);
    imported(&gzip, true);
    imported(&half, true);
    // Where it is wanted nothing is said.
    let again = over(&store, "import").arg("--again").arg(&file).output().expect("capstan runs");
    assert!(
        again.status.success() && !String::from_utf8_lossy(&again.stderr).contains("same packet")
    );
    let fresh = scratch.path().join("fresh");
    let first = over(&fresh, "import").arg(&other).output().expect("capstan runs");
    assert!(
        first.status.success() && !String::from_utf8_lossy(&first.stderr).contains("same packet")
    );
}

#[test]
fn import_of_a_shorter_version_of_a_stored_file_is_refused() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (file, bytes) = prepared(scratch.path());
    let store = scratch.path().join("store");
    // Up to the end of a packet in its middle.
    let mut end = 24;
    while end < bytes.len() / 2 {
        let length: [u8; 4] = bytes[end + 8..end + 12].try_into().expect("a packet's header");
        end += 16 + u32::from_le_bytes(length) as usize;
    }
    let half = scratch.path().join("half.pcap");
    fs::write(&half, &bytes[..end]).expect("a capture");
    answer(over(&store, "import").arg(&half));
    let words = answer(over(&store, "import").arg(&file));
    assert!(words.contains("by an earlier run"), "{words}");
    for known in [&half, &file] {
        fails(over(&store, "import").arg(known), 9, &["already"]);
    }
    has_it_once(&store, &file, scratch.path());
}
