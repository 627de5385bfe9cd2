use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::*;

/// A pcap file of `count` packets of 60 bytes.
fn pcap(count: usize) -> Vec<u8> {
    let mut bytes = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([0xff, 0xff, 0, 0, 1, 0, 0, 0]);
    for _ in 0..count {
        bytes.extend([1, 0, 0, 0, 2, 0, 0, 0, 60, 0, 0, 0, 60, 0, 0, 0]);
        bytes.extend([7; 60]);
    }
    bytes
}

fn packets(mut source: CaptureFile) -> (usize, Result<(), SourceError>) {
    let mut count = 0;
    loop {
        match source.next_event() {
            Ok(Some(Event::Packet(_))) => count += 1,
            Ok(Some(_)) => {}
            Ok(None) => return (count, Ok(())),
            Err(error) => return (count, Err(error)),
        }
    }
}

#[test]
fn names_folders_and_standard_input_are_expanded() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("in/deep")).expect("made");
    fs::write(at("in/b.cap"), pcap(1)).expect("written");
    fs::write(at("in/a.log"), pcap(2)).expect("written");
    fs::write(at("in/deep/z"), pcap(3)).expect("written");
    fs::write(at("in/cut.pcap"), &pcap(0)[..20]).expect("written");
    fs::write(at("in/readme.pcap"), "not a capture").expect("written");
    fs::write(at("in/empty"), "").expect("written");
    fs::write(at("out.txt"), "named, so taken at its word").expect("written");
    std::os::unix::fs::symlink(at("in"), at("in/deep/round")).expect("linked");
    std::os::unix::fs::symlink(at("nowhere"), at("in/dangling")).expect("linked");

    let names = [at("out.txt"), PathBuf::from("-"), at("in")];
    let places = expand(&names).expect("expanded");
    let file = |name: &str| Place::File(at(name));
    assert_eq!(
        places.found,
        [
            file("out.txt"),
            Place::StandardInput,
            file("in/a.log"),
            file("in/b.cap"),
            file("in/cut.pcap"),
            file("in/deep/z"),
        ]
    );
    let skipped: Vec<_> = places.skipped.iter().map(|skipped| skipped.path.clone()).collect();
    assert_eq!(
        skipped,
        [at("in/dangling"), at("in/deep/round"), at("in/empty"), at("in/readme.pcap")]
    );
    assert!(places.skipped[1].reason.contains("link to a folder"));
    assert!(places.skipped[2].reason.contains("empty"));

    let error = expand(&[at("missing")]).expect_err("nowhere");
    assert!(matches!(error, SourceError::Io { .. }));
}

#[test]
fn compressed_captures_are_read_and_progress_is_the_file_s() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = pcap(5_000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).expect("into memory");
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(&plain).expect("into memory");
    let cases = [
        ("plain", plain.clone()),
        ("gzip", gzip.finish().expect("into memory")),
        ("zstd", zstd::stream::encode_all(&plain[..], 1).expect("into memory")),
        ("lz4", lz4.finish().expect("into memory")),
    ];
    for (name, bytes) in cases {
        let path = folder.path().join(name);
        fs::write(&path, &bytes).expect("written");
        let source = open(&path).expect(name);
        let (size, progress) = (source.size(), source.progress());
        assert_eq!(size, Some(bytes.len() as u64));
        let (count, result) = packets(source);
        assert!(result.is_ok(), "{name}: {result:?}");
        assert_eq!(count, 5_000);
        assert_eq!(progress.consumed(), bytes.len() as u64);

        // Cut in the middle: packets first, then the damage.
        fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
        let (count, result) = open(&path).map_or_else(|error| (0, Err(error)), packets);
        assert!(count < 5_000);
        assert!(matches!(result, Err(SourceError::Damaged { .. })), "{name}: {result:?}");
    }
}

#[test]
fn read_error_of_a_stream_is_not_damage() {
    struct Fails(Vec<u8>);
    impl Read for Fails {
        fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
            let count = room.len().min(self.0.len());
            if count == 0 {
                return Err(std::io::Error::from_raw_os_error(5));
            }
            room[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Ok(count)
        }
    }
    let (count, result) = packets(open_reader("it", Fails(pcap(3))).expect("a capture"));
    assert_eq!(count, 3);
    assert!(matches!(result, Err(SourceError::Io { .. })), "{result:?}");
    let zipped = zstd::stream::encode_all(&pcap(3)[..], 1).expect("into memory");
    let half = zipped[..zipped.len() / 2].to_vec();
    let result = open_reader("it", Fails(half)).map(|source| packets(source).1);
    assert!(
        matches!(result, Err(SourceError::Io { .. }) | Ok(Err(SourceError::Io { .. }))),
        "{result:?}"
    );
}

#[test]
fn compression_truncated_in_its_header_is_damage() {
    let skippable = vec![0x50, 0x2a, 0x4d, 0x18, 200, 0, 0, 0, 1, 2];
    let error = open_reader("it", std::io::Cursor::new(skippable)).expect_err("cut");
    assert!(matches!(error, SourceError::Damaged { offset: 0, .. }), "{error}");
}

#[test]
fn packets_of_a_live_pipe_are_returned_without_waiting_for_more() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(&pcap(2)).expect("written");
    let mut source = open_reader("pipe", reader).expect("a capture");
    // The writer is open and silent: what is there must come without more.
    for _ in 0..3 {
        assert!(matches!(source.next_event(), Ok(Some(_))));
    }
    drop(writer);
    assert!(matches!(source.next_event(), Ok(None)));
}

#[test]
fn missing_file_is_reported() {
    let error = open(Path::new("/nonexistent/x.pcap")).expect_err("missing");
    let failure = capstan_model::Failure::from(error);
    assert_eq!(failure.kind(), capstan_model::FailureKind::NotFound);
}
