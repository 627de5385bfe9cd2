//! Other programs read the files of Capstan: pyarrow and DuckDB the Parquet layers, tshark and capinfos PCAPNG.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::capstan::{answer, binary, over, run};
use crate::captures::{captures, packets, shared};
use crate::parallel::check_all;
use crate::tools::{have, python, run_python};
use crate::traffic::Noise;

/// Captures of every kind there is, for their format rather than for what is said in them.
const KINDS: [&str; 14] = [
    "nanosecond",
    "multi-interface",
    "linux-sll",
    "big-endian",
    "snaplen-truncated",
    "time-not-ordered",
    "pcapng-comments",
    "pcapng-name-resolution",
    "pcapng-simple-packet",
    "pcapng-statistics",
    "tls-secrets-dsb",
    "gzip-file",
    "file-cut-short",
    "802-11",
];

/// Names of some captures of each kind, and of some of each link type.
fn some(shared: &Path) -> Vec<String> {
    const OF_EACH: usize = 3;
    let mut names = Vec::new();
    let mut links: BTreeMap<u16, usize> = BTreeMap::new();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for capture in captures(shared) {
        let mut wanted = false;
        for kind in KINDS {
            if capture.tags.iter().any(|tag| tag == kind) {
                let had = kinds.entry(kind).or_default();
                wanted |= *had < OF_EACH;
                *had += 1;
            }
        }
        // Reading a tenth of all finds 50 link types.
        if wanted || capture.name.starts_with("tcpdump/") {
            let seen = packets(&shared.join("captures").join(&capture.name));
            let Some(first) = seen.first() else { continue };
            let had = links.entry(first.link_type.0).or_default();
            if wanted || *had == 0 {
                names.push(capture.name);
            }
            *had += 1;
        }
    }
    names
}

#[test]
fn parquet_is_read_by_pyarrow_and_duckdb() {
    let Some(shared) = shared() else { return };
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (store, noise) = (scratch.path().join("store"), scratch.path().join("noise.pcap"));
    Noise { hours: 3, packets_an_hour: 1_200 }.write(&noise);
    let names = ["arkime/arkime_synthetic.pcap", "ndpi/sites.pcapng", "tcpdump/ipoib.pcap"];
    let mut files: Vec<PathBuf> = names.map(|name| shared.join("captures").join(name)).into();
    files.push(noise);
    answer(over(&store, "import").args(&files));
    let mut reader = python("parquet_layers.py");
    run_python(reader.arg("--store").arg(&store).arg("--capstan").arg(binary()));
}

/// A reader that was written from docs/format.md alone finds in a store what the captures hold.
#[test]
fn second_reader_finds_every_packet() {
    /// It reads bytewise in Python.
    const LONGEST: u64 = 100_000;
    let Some(shared) = shared() else { return };
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    let short = |path: &PathBuf| std::fs::metadata(path).expect("a capture").len() <= LONGEST;
    let places = some(&shared).into_iter().map(|name| shared.join("captures").join(name));
    // What a damaged file gives is a question of its own (see `round_trip`).
    let whole = |path: &PathBuf| run(over(&store, "import").arg(path)).status.success();
    let files: Vec<PathBuf> = places.filter(short).filter(whole).collect();
    assert!(files.len() > 40, "{} captures", files.len());
    run_python(python("second_reader.py").arg(&store).arg("compare").args(&files));
}

/// What tshark sees of each packet of a file. The interface's name only where `names` says so: it
/// is not in a pcap file. An error is what tshark says of the file.
fn dissected(file: &Path, names: bool) -> Result<Vec<String>, String> {
    let mut command = Command::new("tshark");
    // Headers are enough, and what is put together from several packets costs time.
    command.args(["-n", "-r"]).arg(file).args(["-T", "fields"]);
    for field in ["encap_type", "time_epoch", "len", "cap_len", "protocols"] {
        command.args(["-e", &format!("frame.{field}")]);
    }
    if names {
        command.args(["-e", "frame.interface_name"]);
    }
    let output = command.output().expect("tshark starts");
    // Some blocks that are no packets are frames to tshark, without a link type.
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter(|line| !line.starts_with('\t')).map(str::to_owned).collect();
    let said = String::from_utf8_lossy(&output.stderr);
    let words: Vec<&str> = said.lines().filter(|line| !line.starts_with("Running as")).collect();
    if output.status.success() && words.is_empty() { Ok(lines) } else { Err(words.join("; ")) }
}

/// How many packets capinfos counts in a file it has nothing to say against.
fn counted(file: &Path) -> Result<u64, String> {
    let output = Command::new("capinfos").args(["-M", "-c"]).arg(file).output().expect("capinfos");
    let (text, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // Of some link types it has no name for what they are; that is all it may say.
    let mut words = said.lines().filter(|line| !line.contains("Unknown packet encapsulation 0 in"));
    if !output.status.success() || words.next().is_some() {
        return Err(format!("capinfos ended with {}: {said}", output.status));
    }
    let number = text.lines().find_map(|line| line.strip_prefix("Number of packets:"));
    number.and_then(|number| number.trim().parse().ok()).ok_or_else(|| format!("capinfos: {text}"))
}

/// How many sections a little-endian pcapng file has.
fn sections(file: &Path) -> usize {
    const SECTION_HEADER: &[u8] = &[0x0a, 0x0d, 0x0d, 0x0a];
    let bytes = std::fs::read(file).expect("an export");
    let mut rest = bytes.as_slice();
    let mut count = 0;
    while let Some((head, _)) = rest.split_first_chunk::<8>() {
        count += usize::from(head.starts_with(SECTION_HEADER));
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        rest = rest.get(length.max(12) as usize..).unwrap_or_default();
    }
    count
}

/// Exports everything as it was recorded, and has it read; how many packets.
fn read_back(store: &Path, to: &Path, before: &Path) -> Result<u64, String> {
    answer(over(store, "export").args(["--order", "recorded", "-o"]).arg(to));
    let counted = counted(to)?;
    let ours = packets(to).len() as u64;
    if counted != ours {
        return Err(format!("capinfos counts {counted} packets and we {ours}"));
    }
    // tshark looks an interface's name up by its number, whichever section that belongs to.
    let names = before.to_string_lossy().contains(".pcapng") && sections(to) == 1;
    let after = dissected(to, names)?;
    if after.len() as u64 != ours {
        return Err(format!("tshark sees {} packets of {ours}", after.len()));
    }
    // Where tshark finds fault with the original, and does not with ours, there is nothing to compare.
    if let Ok(before) = dissected(before, names)
        && let Some(at) =
            (0..before.len().max(after.len())).find(|at| before.get(*at) != after.get(*at))
    {
        return Err(format!("{:?} became {:?}", before.get(at), after.get(at)));
    }
    Ok(counted)
}

#[test]
fn pcapng_is_read_by_tshark_and_capinfos() {
    let Some(shared) = shared() else { return };
    if !have(&["tshark", "capinfos"]) {
        return;
    }
    let names = some(&shared);
    assert!(names.len() > 40, "only {names:?}");
    check_all(&names, |name, scratch| {
        let capture = shared.join("captures").join(name);
        let store = scratch.join("store");
        run(over(&store, "import").arg(&capture));
        let read = read_back(&store, &scratch.join("back.pcapng"), &capture);
        std::fs::remove_dir_all(&store).map_err(|error| error.to_string())?;
        read.map(drop).map_err(|why| format!("{name}: {why}"))
    });
    // All of them in one file: many sources, link types and clocks side by side.
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (store, all) = (scratch.path().join("store"), scratch.path().join("all.pcapng"));
    let files = names.iter().map(|name| shared.join("captures").join(name));
    let imported = run(over(&store, "import").args(files));
    assert!(matches!(imported.status.code(), Some(0 | 6)), "{imported:?}");
    answer(over(&store, "export").arg("-o").arg(&all));
    let ours = packets(&all).len() as u64;
    assert_eq!(counted(&all), Ok(ours));
    assert_eq!(dissected(&all, true).map(|lines| lines.len() as u64), Ok(ours));
}
