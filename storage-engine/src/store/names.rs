//! Names of objects: the one place that knows where things lie under `<root>/<cluster>/`.

use capstan_model::{Failure, FailureKind, Generation, Hour, RecorderId};
use object_store::path::Path;

/// `format`: says that this is a store, and of which format.
pub fn format() -> Path {
    Path::from("format")
}

/// `writers/<recorder>/<generation8>`.
pub fn writer(recorder: RecorderId, generation: Generation) -> Path {
    Path::from(format!("writers/{recorder}/{generation}"))
}

/// `writers/<recorder>`, or `writers` for all.
pub fn writers(recorder: Option<RecorderId>) -> Path {
    match recorder {
        Some(recorder) => Path::from(format!("writers/{recorder}")),
        None => Path::from("writers"),
    }
}

/// Takes the name of a writer apart.
pub fn parse_writer(path: &Path) -> Option<(RecorderId, Generation)> {
    let mut parts = path.as_ref().split('/');
    if parts.next()? != "writers" {
        return None;
    }
    let (recorder, generation) = (parts.next()?, parts.next()?);
    let parsed = (hex16(recorder)?, Generation(digits(generation, 8)?.try_into().ok()?));
    parts.next().is_none().then_some(parsed)
}

/// `log/<recorder>/<generation8>/<seq20>`.
pub fn commit(recorder: RecorderId, generation: Generation, seq: u64) -> Path {
    Path::from(format!("log/{recorder}/{generation}/{seq:020}"))
}

/// `log/<recorder>`, or `log` for the commits of all.
pub fn log(recorder: Option<RecorderId>) -> Path {
    match recorder {
        Some(recorder) => Path::from(format!("log/{recorder}")),
        None => Path::from("log"),
    }
}

/// Takes the name of a commit apart.
pub fn parse_commit(path: &Path) -> Option<(RecorderId, Generation, u64)> {
    let mut parts = path.as_ref().split('/');
    if parts.next()? != "log" {
        return None;
    }
    let (recorder, generation, seq) = (parts.next()?, parts.next()?, parts.next()?);
    let generation = Generation(digits(generation, 8)?.try_into().ok()?);
    let parsed = (hex16(recorder)?, generation, digits(seq, 20)?);
    parts.next().is_none().then_some(parsed)
}

/// `data/date=…/hour=…/<segment>/<file>`, where `file` is what the layer's object is called.
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

/// Takes the name of an hour's folder of data apart.
pub fn parse_data_of(path: &Path) -> Option<Hour> {
    Hour::from_path(path.as_ref().strip_prefix("data/")?)
}

/// The first path elements of all there is in a store.
pub const TOP: [&str; 5] = ["format", "writers", "log", "data", "probe"];

/// A cluster's name is a folder name: it must be one everywhere.
///
/// # Errors
///
/// [`FailureKind::Usage`] with the rule.
pub fn check_cluster(name: &str) -> Result<(), Failure> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if first && name.len() <= 63 && name.chars().all(allowed) {
        return Ok(());
    }
    Err(Failure::new(
        FailureKind::Usage,
        format!(
            "'{name}' cannot be a cluster's name: 1 to 63 letters, digits, '.', '_' or '-' of ASCII, \
             the first a letter or digit"
        ),
    ))
}

fn hex16(text: &str) -> Option<RecorderId> {
    let plain = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    (text.len() == 16 && text.chars().all(plain)).then(|| text.parse().ok()).flatten()
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
    fn names_go_there_and_back() {
        let path = writer(RECORDER, Generation(7));
        assert_eq!(path.as_ref(), "writers/00000000000000ab/00000007");
        assert_eq!(parse_writer(&path), Some((RECORDER, Generation(7))));
        let path = commit(RECORDER, Generation(7), u64::MAX);
        assert_eq!(path.as_ref(), "log/00000000000000ab/00000007/18446744073709551615");
        assert_eq!(parse_commit(&path), Some((RECORDER, Generation(7), u64::MAX)));
        let path = data_of(Hour(14));
        assert_eq!(path.as_ref(), "data/date=1970-01-01/hour=14");
        assert_eq!(parse_data_of(&path), Some(Hour(14)));
        let path = layer(Hour(0), "s", "body");
        assert_eq!(path.as_ref(), "data/date=1970-01-01/hour=00/s/body");
    }

    #[test]
    fn what_is_named_otherwise_is_not_ours() {
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

    #[test]
    fn a_cluster_name_is_a_folder_name() {
        for name in ["default", "prod-eu.1", "A_b"] {
            check_cluster(name).unwrap();
        }
        for name in ["", ".staging", "..", "a/b", "a b", "ä", &"x".repeat(64)] {
            assert_eq!(check_cluster(name).expect_err(name).kind(), FailureKind::Usage);
        }
    }
}
