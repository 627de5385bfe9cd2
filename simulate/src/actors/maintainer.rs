//! Maintainers: add layers to segments that are committed, and retire layers again. Each commit also has a coverage
//! statement, so that readers can count it.

use capstan_model::coverage::Listened;
use capstan_model::{RecorderId, Time, TimeRange};
use capstan_storage_engine::catalog::{Change, CommitDraft, Fact, LayerEntry, SegmentEntry, What};

use super::Scene;
use super::recorder::write;
use crate::chance::Chance;

/// Above the ids of recorders and importers.
const FIRST_ID: u64 = 0x2_0000;

/// Maintains until the scene ends.
pub(crate) async fn maintain(scene: Scene, chance: Chance, number: u64) {
    write(scene, chance, RecorderId(FIRST_ID + number), draft).await;
}

/// Adds a layer to a segment, or retires one or more that were added.
fn draft(scene: &Scene, chance: &Chance, name: &str, number: u64) -> CommitDraft {
    let now = scene.clock.now();
    let range = TimeRange { start: Time(now.0 - 1), end: now };
    let mut facts = vec![Fact::Listened(Listened { range, interfaces: Vec::new() })];
    for place in 0..chance.of(1..4) {
        let layer = format!("{name}-{number}-{place}");
        facts.extend(change(scene, chance, layer, now).map(Fact::Change));
    }
    CommitDraft { facts, ..CommitDraft::default() }
}

fn change(scene: &Scene, chance: &Chance, layer: String, at: Time) -> Option<Change> {
    let of = |entry: &SegmentEntry, what| Change {
        segment: entry.name.clone(),
        slots: entry.slots(),
        at,
        what,
    };
    if chance.per_mille(400)
        && let Some((entry, layer)) = scene.truth.any_added(chance)
    {
        let layers = vec![layer];
        return Some(of(&entry, What::LayersRetired { layers, why: "simulated".to_owned() }));
    }
    let entry = scene.truth.any_segment(chance)?;
    // Each layer has a name of its own, so that the truth needs no rule for two of one name.
    let layer = LayerEntry::new(layer.clone(), 1, layer);
    Some(of(&entry, What::LayerAdded { layer }))
}
