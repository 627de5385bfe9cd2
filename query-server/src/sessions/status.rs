//! What is in the store, for people and probes.

use std::collections::BTreeMap;

use capstan_model::{Failure, GenerationId, TimeRange};
use capstan_storage_engine::catalog::{Gap, GenerationState};
use capstan_view::ScopedView;
use capstan_view::access::Right;
use serde::Serialize;

/// The answer of `/api/v1/status`. Times are RFC 3339, UTC.
#[derive(Debug, Serialize)]
pub struct Status {
    version: &'static str,
    store: String,
    segments: u64,
    packets: u64,
    flow_parts: u64,
    captured_bytes: u64,
    wire_bytes: u64,
    /// Earliest and latest packet.
    first: Option<String>,
    last: Option<String>,
    layers: BTreeMap<String, Layer>,
    writers: Vec<Writer>,
    /// What is wrong with the catalog, in words.
    problems: Vec<String>,
    /// Objects of the catalog that cannot be used: what is said here is without what they say.
    hidden: Vec<Hidden>,
}

#[derive(Debug, Serialize)]
struct Hidden {
    object: String,
    kind: &'static str,
    /// The times it is about; none if they cannot be told.
    from: Option<String>,
    to: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct Layer {
    objects: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Writer {
    recorder: String,
    generation: u32,
    kind: Option<capstan_storage_engine::catalog::WriterKind>,
    description: String,
    started_at: Option<String>,
    last_commit: Option<String>,
    finished: bool,
    packets: u64,
    packets_lost: u64,
}

impl Status {
    /// Of a range: what of the store touches it.
    ///
    /// # Errors
    /// What the store says. The principal lacks [`Right::CatalogRead`].
    pub(super) async fn of(view: &ScopedView, range: TimeRange) -> Result<Status, Failure> {
        view.who().require(Right::CatalogRead, "the status of the store")?;
        let window = view.window(range).await?;
        let generations = view.generations().await?;
        let mut gaps = window.gaps.clone();
        let known = |gaps: &[Gap], gap: &Gap| gaps.iter().any(|of| of.object == gap.object);
        for gap in generations.gaps {
            if !known(&gaps, &gap) {
                gaps.push(gap);
            }
        }
        let words = gaps.iter().map(Gap::to_string);
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION"),
            store: view.place().to_owned(),
            segments: 0,
            packets: 0,
            flow_parts: 0,
            captured_bytes: 0,
            wire_bytes: 0,
            first: None,
            last: None,
            layers: BTreeMap::new(),
            writers: generations.generations.iter().map(|state| Writer::of(state)).collect(),
            problems: words.chain(view.notes().map(str::to_owned)).collect(),
            hidden: gaps.iter().map(Hidden::of).collect(),
        };
        let (mut first, mut last) = (None, None);
        for segment in window.segments.iter().filter(|segment| segment.entry.touches(&range)) {
            let entry = &segment.entry;
            status.segments += 1;
            status.packets = status.packets.saturating_add(entry.packets);
            status.flow_parts = status.flow_parts.saturating_add(entry.flow_parts);
            status.captured_bytes = status.captured_bytes.saturating_add(entry.captured_bytes);
            status.wire_bytes = status.wire_bytes.saturating_add(entry.wire_bytes);
            first = [first, entry.first].into_iter().flatten().min();
            last = last.max(entry.last);
            for layer in segment.layers() {
                let sums = status.layers.entry(layer.layer.clone()).or_default();
                sums.objects += 1;
                sums.bytes = sums.bytes.saturating_add(layer.bytes);
            }
        }
        status.first = first.map(|time| time.to_string());
        status.last = last.map(|time| time.to_string());
        Ok(status)
    }
}

impl Hidden {
    fn of(gap: &Gap) -> Hidden {
        let range = gap.about.range();
        Hidden {
            object: gap.object.clone(),
            kind: gap.kind.name(),
            from: range.map(|range| range.start.to_string()),
            to: range.map(|range| range.end.to_string()),
        }
    }
}

impl Writer {
    fn of(state: &GenerationState) -> Writer {
        let info = state.writer().map(|writer| &writer.info);
        let GenerationId { recorder, generation } = state.id();
        Writer {
            recorder: recorder.to_string(),
            generation: generation.0,
            kind: info.map(|info| info.kind),
            description: info.map(|info| info.description.clone()).unwrap_or_default(),
            started_at: info.map(|info| info.started_at.to_string()),
            last_commit: state.last_commit().map(|time| time.to_string()),
            finished: state.finished().is_some(),
            packets: state.packets(),
            packets_lost: state.packets_lost(),
        }
    }
}
