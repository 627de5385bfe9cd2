//! `coverage`.

use capstan_model::TimeRange;
use capstan_model::coverage::Loss;
use datafusion::arrow::array::ArrayRef;

use super::{Columns, Contents, Kind, larges, smalls, texts, times};

pub(super) const COVERAGE: Columns = &[
    ("recorder", Kind::Text, false),
    ("generation", Kind::Small, false),
    ("interface", Kind::Small, true),
    ("kind", Kind::Text, false),
    ("start_time", Kind::Time, true),
    ("end_time", Kind::Time, true),
    ("cause", Kind::Text, true),
    ("packets", Kind::Large, true),
    ("bytes", Kind::Large, true),
    ("note", Kind::Text, true),
];

/// A row of `coverage`.
struct Stretch<'a> {
    recorder: String,
    generation: u32,
    interface: Option<u32>,
    /// None for a loss at an unknown time.
    range: Option<TimeRange>,
    /// Set for a loss.
    lost: Option<&'a Loss>,
}

pub(super) fn coverage(contents: &Contents) -> Vec<ArrayRef> {
    let mut rows: Vec<Stretch<'_>> = Vec::new();
    for said in &contents.window.listened {
        let listened = &said.fact;
        let stretch = |interface| Stretch {
            recorder: said.by.recorder.to_string(),
            generation: said.by.generation.0,
            interface,
            range: Some(listened.range),
            lost: None,
        };
        match listened.interfaces.as_slice() {
            [] => rows.push(stretch(None)),
            interfaces => rows.extend(interfaces.iter().map(|number| stretch(Some(*number)))),
        }
    }
    for said in &contents.window.losses {
        let loss = &said.fact;
        rows.push(Stretch {
            recorder: said.by.recorder.to_string(),
            generation: said.by.generation.0,
            interface: loss.interface,
            range: loss.time(),
            lost: Some(loss),
        });
    }
    let all = || rows.iter();
    // 0 is stored for unknown.
    let told = |value: u64| (value > 0).then_some(value);
    vec![
        texts(all().map(|row| Some(row.recorder.clone()))),
        smalls(all().map(|row| Some(row.generation))),
        smalls(all().map(|row| row.interface)),
        texts(all().map(|row| Some(kind(row).to_owned()))),
        times(all().map(|row| row.range.map(|range| range.start.0))),
        times(all().map(|row| row.range.map(|range| range.end.0))),
        texts(all().map(|row| row.lost.map(|loss| loss.cause.name().to_owned()))),
        larges(all().map(|row| row.lost.and_then(|loss| told(loss.packets)))),
        larges(all().map(|row| row.lost.and_then(|loss| told(loss.bytes)))),
        texts(
            all().map(|row| row.lost.map(|loss| loss.note.clone()).filter(|note| !note.is_empty())),
        ),
    ]
}

fn kind(row: &Stretch<'_>) -> &'static str {
    if row.lost.is_some() { "lost" } else { "listened" }
}
