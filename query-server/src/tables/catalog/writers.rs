//! `writers`, `problems`, `store`: who wrote, and what is wrong with it.

use capstan_storage_engine::catalog::{Life, WriterInfo};
use datafusion::arrow::array::ArrayRef;

use super::{Columns, Contents, Kind, flags, larges, smalls, texts, times};

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

fn info(life: &Life) -> Option<&WriterInfo> {
    life.writer().map(|writer| &writer.info)
}

/// Known once a source was read to its end.
fn source_sha256(life: &Life) -> Option<String> {
    let complete = life.finished().is_some_and(|end| end.complete);
    life.source_read().filter(|_| complete).map(|mark| mark.sha256.clone())
}

pub(super) fn writers(contents: &Contents) -> Vec<ArrayRef> {
    let all = || contents.lives.iter().map(|life| &**life);
    let text = |of: fn(&WriterInfo) -> &str| {
        texts(all().map(|life| info(life).map(|info| of(info).to_owned())))
    };
    let source = || all().map(|life| info(life).and_then(|info| info.source.as_ref()));
    vec![
        texts(all().map(|life| Some(life.owner().0.to_string()))),
        smalls(all().map(|life| Some(life.owner().1.0))),
        text(|info| info.kind.name()),
        text(|info| &info.description),
        text(|info| &info.host),
        texts(all().map(source_sha256)),
        larges(source().map(|source| source.map(|source| source.bytes))),
        smalls(all().map(|life| info(life)?.resumes.map(|generation| generation.0))),
        times(all().map(|life| info(life).map(|info| info.started_at.0))),
        times(all().map(|life| life.last_commit().map(|time| time.0))),
        larges(all().map(|life| Some(life.commits()))),
        larges(all().map(|life| Some(life.packets()))),
        flags(all().map(|life| Some(life.finished().is_some()))),
        flags(all().map(|life| Some(life.finished().is_some_and(|end| end.complete)))),
    ]
}

pub(super) fn problems(contents: &Contents) -> Vec<ArrayRef> {
    let of_hours = contents.window.problems.iter().map(String::as_str);
    vec![texts(
        contents.snapshot.problems().chain(of_hours).map(|problem| Some(problem.to_owned())),
    )]
}

pub(super) fn store(contents: &Contents) -> Vec<ArrayRef> {
    let store = contents.snapshot.store();
    let one = |text: &str| texts(std::iter::once(Some(text.to_owned())));
    vec![one(store.place()), one(&store.format().cluster)]
}
