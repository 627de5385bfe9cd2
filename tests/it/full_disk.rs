//! A disk that is full in the middle of an import, on file systems that only the test sees.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::capstan::{answer, fails, over};
use crate::captures::read;
use crate::sandbox::{self, Own, tool};
use crate::traffic::{Noise, readable};

const FILE: Noise = Noise { hours: 14, packets_an_hour: 2_000 };
/// The disk, and how much of it somebody else has, MiB: what is left has room for some hours of
/// 2 MiB, but not for all.
const DISK: u64 = 96;
const TAKEN: u64 = 80;

/// An import that fills the disk, twice, and goes on when there is room.
fn fills(disk: &Path, scratch: &Path) {
    let (store, file) = (disk.join("store"), scratch.join("noise.pcap"));
    FILE.write(&file);
    let filler = disk.join("filler");
    std::fs::write(&filler, vec![1; (TAKEN << 20) as usize]).expect("it fits");
    let import = || {
        let mut command = over(&store, "import");
        command.arg(&file);
        command
    };

    let words = ["full", "No space left on device", "run the same command again to resume"];
    fails(&mut import(), 5, &words);
    let first = readable(&store);
    assert!(first < FILE.packets(), "{first} packets fit");
    // With nothing gained it fails again, and harms nothing.
    fails(&mut import(), 5, &words[1..2]);
    assert!(readable(&store) >= first);

    std::fs::remove_file(&filler).expect("it is ours");
    answer(&mut import());
    assert_eq!(readable(&store), FILE.packets());
    let back = scratch.join("back.pcapng");
    answer(over(&store, "export").args(["--order", "recorded", "-o"]).arg(&back));
    assert!(read(&back).eq(read(&file)), "the packets differ");
}

#[test]
fn import_into_a_full_memory_store_resumes_after_space_is_freed() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    sandbox::with(Own::Mounts, || {
        let disk = scratch.path().join("disk");
        std::fs::create_dir(&disk).expect("a scratch folder");
        tool(&format!("mount -t tmpfs -o size={DISK}m tmpfs {}", disk.display()));
        fills(&disk, scratch.path());
    });
}

#[test]
fn import_on_a_full_disk_resumes_after_space_is_freed() {
    if Command::new("mkfs.ext4").arg("-V").stderr(Stdio::null()).status().is_err() {
        crate::tools::skipped("no mkfs.ext4 on this machine");
        return;
    }
    let scratch = tempfile::tempdir().expect("a scratch folder");
    sandbox::with(Own::Mounts, || {
        let (disk, image) = (scratch.path().join("disk"), scratch.path().join("image"));
        std::fs::create_dir(&disk).expect("a scratch folder");
        let file = std::fs::File::create(&image).expect("a scratch file");
        file.set_len(DISK << 20).expect("a sparse file");
        tool(&format!("mkfs.ext4 -q -m 0 {}", image.display()));
        tool(&format!("mount -o loop {} {}", image.display(), disk.display()));
        fills(&disk, scratch.path());
    });
}

#[test]
fn an_export_to_a_full_disk_leaves_no_file() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (store, file) = (scratch.path().join("store"), scratch.path().join("noise.pcap"));
    Noise { hours: 1, packets_an_hour: 3_000 }.write(&file);
    answer(over(&store, "import").arg(&file));
    sandbox::with(Own::Mounts, || {
        let disk = scratch.path().join("disk");
        std::fs::create_dir(&disk).expect("a scratch folder");
        tool(&format!("mount -t tmpfs -o size=1m tmpfs {}", disk.display()));
        let to = disk.join("all.pcapng");
        fails(over(&store, "export").arg("-o").arg(&to), 5, &["all.pcapng", "No space left"]);
        assert_eq!(std::fs::read_dir(&disk).expect("the disk").count(), 0, "half a file");
    });
}
