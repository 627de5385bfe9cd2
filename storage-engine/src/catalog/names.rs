//! Names of objects: the layout under `<root>/<cluster>/`. The names that the store itself needs are in
//! `store::names`.

use capstan_model::{Generation, GenerationId, Hour, RecorderId};
use object_store::path::Path;

use super::commit_id::CommitId;
use super::slot::TimeSlot;
pub use crate::store::names::{TOP, format};

/// `writers/<recorder>/<generation8>`.
pub fn writer(of: GenerationId) -> Path {
    let GenerationId { recorder, generation } = of;
    Path::from(format!("writers/{recorder}/{generation}"))
}

/// `writers/<recorder>`, or `writers` for all.
pub fn writers(recorder: Option<RecorderId>) -> Path {
    match recorder {
        Some(recorder) => Path::from(format!("writers/{recorder}")),
        None => Path::from("writers"),
    }
}

/// Parses the name of a writer.
pub fn parse_writer(path: &Path) -> Option<GenerationId> {
    parse_generation(path.as_ref().strip_prefix("writers/")?)
}

/// `<recorder>/<generation8>`.
fn parse_generation(text: &str) -> Option<GenerationId> {
    generation_of(text, '/')
}

fn generation_of(text: &str, between: char) -> Option<GenerationId> {
    let (recorder, generation) = text.split_once(between)?;
    let generation = Generation(digits(generation, 8)?.try_into().ok()?);
    Some(GenerationId::new(hex16(recorder)?, generation))
}

/// `log/<recorder>/<generation8>/<seq20>`.
pub fn commit(of: GenerationId, seq: u64) -> Path {
    let GenerationId { recorder, generation } = of;
    Path::from(format!("log/{recorder}/{generation}/{seq:020}"))
}

/// `log/<recorder>`, or `log` for the commits of all.
pub fn log(recorder: Option<RecorderId>) -> Path {
    match recorder {
        Some(recorder) => Path::from(format!("log/{recorder}")),
        None => Path::from("log"),
    }
}

/// `log/<recorder>/<generation8>`, below which the commits of a generation lie.
pub fn log_of(of: GenerationId) -> Path {
    let GenerationId { recorder, generation } = of;
    Path::from(format!("log/{recorder}/{generation}"))
}

/// Parses the name of a commit.
pub fn parse_commit(path: &Path) -> Option<CommitId> {
    let (of, seq) = path.as_ref().strip_prefix("log/")?.rsplit_once('/')?;
    Some(CommitId { of: parse_generation(of)?, seq: digits(seq, 20)? })
}

/// `checkpoint/<recorder>/<generation8>/<seq20>`: the state of a log before the commit with that number.
pub fn checkpoint(of: GenerationId, seq: u64) -> Path {
    let GenerationId { recorder, generation } = of;
    Path::from(format!("checkpoint/{recorder}/{generation}/{seq:020}"))
}

/// `checkpoint`, below which the checkpoints of all logs lie.
pub fn checkpoints() -> Path {
    Path::from("checkpoint")
}

/// `checkpoint/<recorder>/<generation8>`, below which the checkpoints of a log lie.
pub fn checkpoints_of(of: GenerationId) -> Path {
    let GenerationId { recorder, generation } = of;
    Path::from(format!("checkpoint/{recorder}/{generation}"))
}

/// Parses the name of a checkpoint: the log, and the number of the first commit that it does not cover.
pub fn parse_checkpoint(path: &Path) -> Option<CommitId> {
    let (of, seq) = path.as_ref().strip_prefix("checkpoint/")?.rsplit_once('/')?;
    Some(CommitId { of: parse_generation(of)?, seq: digits(seq, 20)? })
}

/// `data/date=…/hour=…/<segment>/<file>`, where `file` is the file name of the layer.
pub fn layer(hour: Hour, segment: &str, file: &str) -> Path {
    Path::from(format!("data/{}/{segment}/{file}", hour.path()))
}

/// `data`, below which there are folders `date=…` with folders `hour=…`.
pub fn data() -> Path {
    Path::from("data")
}

/// `data/date=…/hour=…`.
pub fn data_of(hour: Hour) -> Path {
    Path::from(format!("data/{}", hour.path()))
}

/// Parses the name of an hour's data folder.
pub fn parse_data_of(path: &Path) -> Option<Hour> {
    Hour::from_path(path.as_ref().strip_prefix("data/")?)
}

/// `open/<recorder>-<generation8>`: exists while the log may grow or is not fully rolled up. All marks are in one
/// folder: on a disk, folders of removed names would remain.
pub fn open(of: GenerationId) -> Path {
    let GenerationId { recorder, generation } = of;
    Path::from(format!("open/{recorder}-{generation}"))
}

/// `open`: the folder of open marks, one name per open log.
pub fn open_logs() -> Path {
    Path::from("open")
}

/// Parses the name of an open mark.
pub fn parse_open(path: &Path) -> Option<GenerationId> {
    generation_of(path.as_ref().strip_prefix("open/")?, '-')
}

/// `catalog`.
pub fn catalog() -> Path {
    Path::from("catalog")
}

/// `catalog/<slot>`, below which a slot's manifests and their parts lie.
pub fn slot(slot: TimeSlot) -> Path {
    Path::from(format!("catalog/{}", slot.path()))
}

/// `catalog/<slot>/<version20>`.
pub fn manifest(slot: TimeSlot, version: u64) -> Path {
    Path::from(format!("catalog/{}/{version:020}", slot.path()))
}

/// Parses the name of a manifest.
pub fn parse_manifest(path: &Path) -> Option<(TimeSlot, u64)> {
    let (slot, version) = path.as_ref().strip_prefix("catalog/")?.rsplit_once('/')?;
    Some((TimeSlot::from_path(slot)?, digits(version, 20)?))
}

/// `catalog/<slot>/part-<name>`.
pub fn part(slot: TimeSlot, name: &str) -> Path {
    Path::from(format!("catalog/{}/part-{name}", slot.path()))
}

/// `catalog/roots`, below which the versions of the root lie.
pub fn roots() -> Path {
    Path::from("catalog/roots")
}

/// `catalog/roots/<version20>`.
pub fn root(version: u64) -> Path {
    Path::from(format!("catalog/roots/{version:020}"))
}

/// Parses the name of a root.
pub fn parse_root(path: &Path) -> Option<u64> {
    digits(path.as_ref().strip_prefix("catalog/roots/")?, 20)
}

/// `catalog/lives/<recorder>/<generation8>`: a generation whose log has ended and is rolled up.
pub fn ended_generation(of: GenerationId) -> Path {
    let GenerationId { recorder, generation } = of;
    Path::from(format!("catalog/lives/{recorder}/{generation}"))
}

/// `catalog/lives`, below which the ended generations of all recorders lie.
pub fn ended_generations() -> Path {
    Path::from("catalog/lives")
}

/// Parses the name of an ended generation.
pub fn parse_ended(path: &Path) -> Option<GenerationId> {
    parse_generation(path.as_ref().strip_prefix("catalog/lives/")?)
}

/// Parses the name of a part: its slot and name.
pub fn parse_part(path: &Path) -> Option<(TimeSlot, String)> {
    let (slot, name) = path.as_ref().strip_prefix("catalog/")?.rsplit_once('/')?;
    Some((TimeSlot::from_path(slot)?, name.strip_prefix("part-")?.to_owned()))
}

/// `boundary`.
pub fn boundaries() -> Path {
    Path::from("boundary")
}

/// Parses the name of a boundary.
pub fn parse_boundary(path: &Path) -> Option<u64> {
    digits(path.as_ref().strip_prefix("boundary/")?, 20)
}

/// `boundary/<number20>`: versions of the root below the limit in it may be gone.
pub fn boundary(number: u64) -> Path {
    Path::from(format!("boundary/{number:020}"))
}

/// `lease/<reader>-<root20>-<number20>`: the reader's view uses that root. The reader is 32 random hex digits, unique
/// to it. All leases are in one folder, like open marks.
pub fn lease(reader: &str, root: u64, number: u64) -> Path {
    Path::from(format!("lease/{reader}-{root:020}-{number:020}"))
}

/// `lease`.
pub fn leases() -> Path {
    Path::from("lease")
}

/// Parses the name of a lease: the version of the root that it protects.
pub fn parse_lease(path: &Path) -> Option<u64> {
    let (reader, rest) = path.as_ref().strip_prefix("lease/")?.split_once('-')?;
    let (root, number) = rest.split_once('-')?;
    digits(number, 20).filter(|_| is_hex(reader, 32))?;
    digits(root, 20)
}

fn hex16(text: &str) -> Option<RecorderId> {
    is_hex(text, 16).then(|| text.parse().ok()).flatten()
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn digits(text: &str, length: usize) -> Option<u64> {
    let plain = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDER: RecorderId = RecorderId(0xab);

    #[test]
    fn object_names_round_trip() {
        let path = writer(GenerationId::new(RECORDER, Generation(7)));
        assert_eq!(path.as_ref(), "writers/00000000000000ab/00000007");
        assert_eq!(parse_writer(&path), Some(GenerationId::new(RECORDER, Generation(7))));
        let path = commit(GenerationId::new(RECORDER, Generation(7)), u64::MAX);
        assert_eq!(path.as_ref(), "log/00000000000000ab/00000007/18446744073709551615");
        assert_eq!(
            parse_commit(&path),
            Some(CommitId { of: GenerationId::new(RECORDER, Generation(7)), seq: u64::MAX })
        );
        let path = checkpoint(GenerationId::new(RECORDER, Generation(7)), 12);
        assert_eq!(path.as_ref(), "checkpoint/00000000000000ab/00000007/00000000000000000012");
        assert_eq!(
            parse_checkpoint(&path),
            Some(CommitId { of: GenerationId::new(RECORDER, Generation(7)), seq: 12 })
        );
        assert_eq!(parse_commit(&path), None);
        let path = data_of(Hour(14));
        assert_eq!(path.as_ref(), "data/date=1970-01-01/hour=14");
        assert_eq!(parse_data_of(&path), Some(Hour(14)));
        let path = layer(Hour(0), "s", "body");
        assert_eq!(path.as_ref(), "data/date=1970-01-01/hour=00/s/body");
    }

    #[test]
    fn catalog_names_round_trip() {
        for slot in [TimeSlot::Hour(Hour(14)), TimeSlot::Hour(Hour::UNKNOWN), TimeSlot::Wide] {
            assert_eq!(parse_manifest(&manifest(slot, 7)), Some((slot, 7)));
            assert_eq!(parse_manifest(&part(slot, "a")), None);
            assert_eq!(parse_part(&part(slot, "a")), Some((slot, "a".to_owned())));
            assert_eq!(parse_part(&manifest(slot, 7)), None);
        }
        assert_eq!(manifest(TimeSlot::Wide, 1).as_ref(), "catalog/wide/00000000000000000001");
        assert_eq!(parse_root(&root(9)), Some(9));
        assert_eq!(parse_boundary(&boundary(3)), Some(3));
        assert_eq!(parse_manifest(&root(9)), None);
        let generation_of = GenerationId::new(RECORDER, Generation(7));
        assert_eq!(
            parse_open(&open(GenerationId::new(RECORDER, Generation(7)))),
            Some(generation_of)
        );
        assert_eq!(
            parse_ended(&ended_generation(GenerationId::new(RECORDER, Generation(7)))),
            Some(generation_of)
        );
        assert_eq!(parse_root(&ended_generation(GenerationId::new(RECORDER, Generation(7)))), None);
        let reader = "0123456789abcdef".repeat(2);
        assert_eq!(parse_lease(&lease(&reader, 7, 3)), Some(7));
        for name in ["lease/1-2-3", "lease", "open/1-2-3"] {
            assert_eq!(parse_lease(&Path::from(name)), None, "{name}");
        }
        assert_eq!(parse_lease(&lease(&reader.to_uppercase(), 7, 3)), None);
    }

    #[test]
    fn foreign_object_names_are_not_parsed() {
        for name in [
            "writers/00000000000000ab/7",
            "writers/00000000000000AB/00000007",
            "writers/00000000000000ab/00000007/x",
            "log/00000000000000ab/00000007",
            "log/00000000000000ab/00000007/+0000000000000000001",
            "writers",
            "",
        ] {
            assert_eq!(parse_writer(&Path::from(name)), None, "{name}");
            assert_eq!(parse_commit(&Path::from(name)), None, "{name}");
        }
    }
}
