//! `segments`, `files`, `protocols`.

use capstan_model::Hour;
use capstan_storage_engine::catalog::{LayerEntry, Segment, SegmentEntry};
use capstan_storage_engine::segment::Layer;
use datafusion::arrow::array::ArrayRef;

use super::{Columns, Contents, Kind, larges, smalls, texts, times};

pub(super) const SEGMENTS: Columns = &[
    ("segment", Kind::Text, false),
    ("recorder", Kind::Text, false),
    ("generation", Kind::Small, false),
    ("hour", Kind::Time, true),
    ("first_time", Kind::Time, true),
    ("last_time", Kind::Time, true),
    ("first_ordinal", Kind::Large, false),
    ("last_ordinal", Kind::Large, false),
    ("packets", Kind::Large, false),
    ("flow_parts", Kind::Large, false),
    ("captured_bytes", Kind::Large, false),
    ("wire_bytes", Kind::Large, false),
    ("stored_bytes", Kind::Large, false),
    ("index_bytes", Kind::Large, true),
    ("flows_bytes", Kind::Large, true),
    ("packets_bytes", Kind::Large, true),
    ("head_bytes", Kind::Large, true),
    ("body_bytes", Kind::Large, true),
];

pub(super) const FILES: Columns = &[
    ("path", Kind::Text, false),
    ("segment", Kind::Text, false),
    ("layer", Kind::Text, false),
    ("bytes", Kind::Large, false),
    ("sha256", Kind::Text, false),
    ("first_time", Kind::Time, true),
    ("last_time", Kind::Time, true),
    ("packets", Kind::Large, false),
];

pub(super) const PROTOCOLS: Columns = &[
    ("segment", Kind::Text, false),
    ("protocol", Kind::Text, false),
    ("packets", Kind::Large, false),
    ("first_time", Kind::Time, true),
    ("last_time", Kind::Time, true),
];

fn first(entry: &SegmentEntry) -> Option<i64> {
    entry.first.map(|time| time.0)
}

fn last(entry: &SegmentEntry) -> Option<i64> {
    entry.last.map(|time| time.0)
}

pub(super) fn segments(contents: &Contents) -> Vec<ArrayRef> {
    let all = || contents.window.segments.iter();
    let number =
        |value: fn(&SegmentEntry) -> u64| larges(all().map(|segment| Some(value(&segment.entry))));
    let bytes =
        |layer: Layer| larges(all().map(|segment| segment.layer(layer).map(|layer| layer.bytes)));
    let hour = |hour: Hour| hour.range().map(|range| range.start.0);
    vec![
        texts(all().map(|segment| Some(segment.entry.name.clone()))),
        texts(all().map(|segment| Some(segment.of.recorder.to_string()))),
        smalls(all().map(|segment| Some(segment.of.generation.0))),
        times(all().map(|segment| hour(segment.entry.hour))),
        times(all().map(|segment| first(&segment.entry))),
        times(all().map(|segment| last(&segment.entry))),
        number(|entry| entry.first_ordinal),
        number(|entry| entry.last_ordinal),
        number(|entry| entry.packets),
        number(|entry| entry.flow_parts),
        number(|entry| entry.captured_bytes),
        number(|entry| entry.wire_bytes),
        larges(all().map(|segment| {
            let layers = segment.layers();
            Some(layers.fold(0, |sum: u64, layer| sum.saturating_add(layer.bytes)))
        })),
        bytes(Layer::Index),
        bytes(Layer::Flows),
        bytes(Layer::Packets),
        bytes(Layer::Head),
        bytes(Layer::Body),
    ]
}

pub(super) fn files(contents: &Contents) -> Vec<ArrayRef> {
    let cluster = contents.view.cluster();
    // A layer of a newer version is an object, too.
    let files = contents.window.segments.iter();
    let files = files.flat_map(|of| of.layers().map(move |layer| (&**of, layer)));
    let all: Vec<(&Segment, &LayerEntry)> = files.collect();
    let all = || all.iter();
    vec![
        texts(all().map(|(of, layer)| Some(format!("{cluster}/{}", of.path_of(layer))))),
        texts(all().map(|(of, _)| Some(of.entry.name.clone()))),
        texts(all().map(|(_, layer)| Some(layer.layer.clone()))),
        larges(all().map(|(.., file)| Some(file.bytes))),
        texts(all().map(|(.., file)| Some(file.sha256.clone()))),
        times(all().map(|(of, ..)| first(&of.entry))),
        times(all().map(|(of, ..)| last(&of.entry))),
        larges(all().map(|(of, ..)| Some(of.entry.packets))),
    ]
}

pub(super) fn protocols(contents: &Contents) -> Vec<ArrayRef> {
    let all = || {
        contents.window.segments.iter().flat_map(|of| {
            of.entry.protocols.iter().map(move |(name, packets)| (of, name, packets))
        })
    };
    vec![
        texts(all().map(|(of, ..)| Some(of.entry.name.clone()))),
        texts(all().map(|(_, name, _)| Some(name.clone()))),
        larges(all().map(|(.., packets)| Some(*packets))),
        times(all().map(|(of, ..)| first(&of.entry))),
        times(all().map(|(of, ..)| last(&of.entry))),
    ]
}
