//! `writers`, `problems`, `store`: the generations, and problems of the store.

use capstan_model::{Time, TimeRange};
use capstan_storage_engine::catalog::{GenerationState, SourceHash, WriterInfo};
use datafusion::arrow::array::ArrayRef;

use super::{Columns, Contents, Kind, flags, larges, smalls, texts, times};

pub(super) const WRITERS: Columns = &[
    ("recorder", Kind::Text, false),
    ("generation", Kind::Small, false),
    ("kind", Kind::Text, true),
    ("description", Kind::Text, true),
    ("host", Kind::Text, true),
    ("source_blake3", Kind::Text, true),
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

pub(super) const PROBLEMS: Columns = &[
    ("problem", Kind::Text, false),
    ("kind", Kind::Text, false),
    ("object", Kind::Text, true),
    ("start_time", Kind::Time, true),
    ("end_time", Kind::Time, true),
];

/// Kind of a problem that hides nothing.
const NOTE: &str = "note";

pub(super) const STORE: Columns = &[("place", Kind::Text, false), ("cluster", Kind::Text, false)];

fn info(state: &GenerationState) -> Option<&WriterInfo> {
    state.writer().map(|writer| &writer.info)
}

/// The hash of a source. Known once it was read to its end.
fn source_hash(state: &GenerationState) -> Option<&SourceHash> {
    let complete = state.finished().is_some_and(|end| end.complete);
    state.source_read().filter(|_| complete).map(|mark| &mark.hash)
}

/// A damaged source was not imported completely, although nothing more can be read from it.
fn is_complete(state: &GenerationState) -> bool {
    let damaged = state.source_read().is_some_and(|mark| mark.damaged);
    !damaged && state.finished().is_some_and(|end| end.complete)
}

pub(super) fn writers(contents: &Contents) -> Vec<ArrayRef> {
    let all = || contents.generations.generations.iter().map(|state| &**state);
    let text = |of: fn(&WriterInfo) -> &str| {
        texts(all().map(|state| info(state).map(|info| of(info).to_owned())))
    };
    let source = || all().map(|state| info(state).and_then(|info| info.source.as_ref()));
    vec![
        texts(all().map(|state| Some(state.id().recorder.to_string()))),
        smalls(all().map(|state| Some(state.id().generation.0))),
        text(|info| info.kind.name()),
        text(|info| &info.description),
        text(|info| &info.host),
        texts(all().map(|state| source_hash(state)?.blake3().map(str::to_owned))),
        texts(all().map(|state| source_hash(state)?.sha256().map(str::to_owned))),
        larges(source().map(|source| source.map(|source| source.bytes))),
        smalls(all().map(|state| info(state)?.resumes.map(|generation| generation.0))),
        times(all().map(|state| info(state).map(|info| info.started_at.0))),
        times(all().map(|state| state.last_commit().map(|time| time.0))),
        larges(all().map(|state| Some(state.commits()))),
        larges(all().map(|state| Some(state.packets()))),
        flags(all().map(|state| Some(state.finished().is_some()))),
        flags(all().map(|state| Some(is_complete(state)))),
    ]
}

pub(super) fn problems(contents: &Contents) -> Vec<ArrayRef> {
    let gaps = || contents.window.gaps.iter();
    let notes: Vec<&str> = contents.view.notes().collect();
    let none = || notes.iter().map(|_| None);
    let time = |of: fn(TimeRange) -> Time| {
        times(gaps().map(|gap| gap.about.range().map(|range| of(range).0)).chain(none()))
    };
    vec![
        texts(
            gaps()
                .map(|gap| Some(gap.to_string()))
                .chain(notes.iter().map(|of| Some((*of).to_owned()))),
        ),
        texts(
            gaps()
                .map(|gap| Some(gap.kind.name().to_owned()))
                .chain(notes.iter().map(|_| Some(NOTE.to_owned()))),
        ),
        texts(gaps().map(|gap| Some(gap.object.clone())).chain(notes.iter().map(|_| None))),
        time(|range| range.start),
        time(|range| range.end),
    ]
}

pub(super) fn store(contents: &Contents) -> Vec<ArrayRef> {
    let view = &contents.view;
    let one = |text: &str| texts(std::iter::once(Some(text.to_owned())));
    vec![one(view.place()), one(view.cluster())]
}
