//! `writers`, `problems`, `store`: who wrote, and what is wrong with it.

use capstan_storage_engine::catalog::{WriterInfo, WriterKind};
use datafusion::arrow::array::ArrayRef;

use super::{Columns, Kind, flags, larges, smalls, texts, times};
use crate::snapshot::{Life, Snapshot};

pub(super) const WRITERS: Columns = &[
    ("recorder", Kind::Text, false),
    ("generation", Kind::Small, false),
    ("kind", Kind::Text, true),
    ("description", Kind::Text, true),
    ("host", Kind::Text, true),
    ("source_sha256", Kind::Text, true),
    ("source_bytes", Kind::Large, true),
    ("resumes", Kind::Small, true),
    ("started_at", Kind::Time, true),
    ("last_commit", Kind::Time, true),
    ("commits", Kind::Large, false),
    ("packets", Kind::Large, false),
    ("finished", Kind::Flag, false),
    ("complete", Kind::Flag, false),
];

pub(super) const PROBLEMS: Columns = &[("problem", Kind::Text, false)];

pub(super) const STORE: Columns = &[("place", Kind::Text, false), ("cluster", Kind::Text, false)];

fn kind(info: &WriterInfo) -> &'static str {
    match info.kind {
        WriterKind::Live => "live",
        WriterKind::Import => "import",
    }
}

fn info(life: &Life) -> Option<&WriterInfo> {
    life.writer.as_ref().map(|writer| &writer.info)
}

/// Known once a source was read to its end.
fn source_sha256(life: &Life) -> Option<String> {
    let complete = life.finished.as_ref().is_some_and(|end| end.complete);
    life.source_read.as_ref().filter(|_| complete).map(|mark| mark.sha256.clone())
}

pub(super) fn writers(snapshot: &Snapshot) -> Vec<ArrayRef> {
    let all = || snapshot.lives().map(|life| &**life);
    let text = |of: fn(&WriterInfo) -> &str| {
        texts(all().map(|life| info(life).map(|info| of(info).to_owned())))
    };
    let source = || all().map(|life| info(life).and_then(|info| info.source.as_ref()));
    vec![
        texts(all().map(|life| Some(life.recorder.to_string()))),
        smalls(all().map(|life| Some(life.generation.0))),
        text(|info| kind(info)),
        text(|info| &info.description),
        text(|info| &info.host),
        texts(all().map(source_sha256)),
        larges(source().map(|source| source.map(|source| source.bytes))),
        smalls(all().map(|life| info(life)?.resumes.map(|generation| generation.0))),
        times(all().map(|life| info(life).map(|info| info.started_at.0))),
        times(all().map(|life| life.last_commit.map(|time| time.0))),
        larges(all().map(|life| Some(life.commits))),
        larges(all().map(|life| Some(life.packets))),
        flags(all().map(|life| Some(life.finished.is_some()))),
        flags(all().map(|life| Some(life.finished.as_ref().is_some_and(|end| end.complete)))),
    ]
}

pub(super) fn problems(snapshot: &Snapshot) -> Vec<ArrayRef> {
    vec![texts(snapshot.problems().iter().map(|problem| Some(problem.to_string())))]
}

pub(super) fn store(snapshot: &Snapshot) -> Vec<ArrayRef> {
    let store = snapshot.store();
    let one = |text: &str| texts(std::iter::once(Some(text.to_owned())));
    vec![one(store.place()), one(&store.format().cluster)]
}
