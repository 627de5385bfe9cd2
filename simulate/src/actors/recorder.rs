//! Recorders: some packets every few seconds, until they end, are killed, or sleep.

use std::time::Duration;

use capstan_model::coverage::Listened;
use capstan_model::{FailureKind, GenerationId, Hour, RecorderId, Time, TimeRange};
use capstan_storage_engine::catalog::{
    CommitDraft, Finished, Layer, LayerEntry, Recorder, SegmentEntry, WriterInfo, WriterKind,
};

use super::{Scene, skew};
use crate::chance::Chance;

const SECOND: i64 = 1_000_000_000;

/// Records until the scene ends.
pub(crate) async fn record(scene: Scene, chance: Chance, id: RecorderId) {
    write(scene, chance, id, draft).await;
}

/// Makes the next commit of a log. Arguments: the scene, chance, the name of the generation, the number of the commit.
type Draft = fn(&Scene, &Chance, &str, u64) -> CommitDraft;

/// Writes one log after the other until the scene ends.
pub(super) async fn write(scene: Scene, chance: Chance, id: RecorderId, draft: Draft) {
    loop {
        let store = scene.patient_store(&chance, skew(&chance)).await;
        let info = WriterInfo {
            kind: WriterKind::Live,
            description: String::new(),
            host: id.to_string(),
            source: None,
            resumes: None,
            started_at: store.now(),
        };
        let recorder = match Recorder::start(&store, id, info).await {
            Ok(recorder) => recorder,
            Err(failure) => {
                scene.check("a recorder that starts", &failure);
                tokio::time::sleep(chance.millis(500..5_000)).await;
                continue;
            }
        };
        live(&scene, &chance, recorder, draft).await;
        tokio::time::sleep(chance.millis(100..60_000)).await;
    }
}

/// One generation.
async fn live(scene: &Scene, chance: &Chance, mut recorder: Recorder, draft: Draft) {
    let mut owner = GenerationId::new(recorder.recorder(), recorder.generation());
    let name = owner.to_string();
    for number in 0_u64.. {
        tokio::time::sleep(chance.millis(2_000..20_000)).await;
        if chance.per_mille(5) {
            scene.tell(|| format!("{name} sleeps"));
            tokio::time::sleep(Duration::from_secs(chance.of(600..20_000))).await;
        }
        let ends = chance.per_mille(20);
        let mut draft = draft(scene, chance, &name, number);
        draft.finished = ends.then_some(Finished { complete: true, packets_total: 0 });
        scene.truth.tries(owner, &draft);
        // Killed in the middle of it, somewhere.
        let killed = chance.per_mille(15);
        let patience = if killed { chance.millis(1..200) } else { Duration::from_secs(1_000_000) };
        let done = tokio::time::timeout(patience, commit(scene, &mut recorder, draft)).await;
        match done {
            Ok(true) => {
                let now = GenerationId::new(owner.recorder, recorder.generation());
                match now == owner {
                    true => scene.truth.acknowledge(owner),
                    false => {
                        scene.tell(|| {
                            format!("{name} was ended, and goes on as {}", now.generation)
                        });
                        scene.truth.moved(owner, now);
                        owner = now;
                    }
                }
                scene.tell(|| format!("{name} has committed {number}"));
            }
            Ok(false) => return,
            Err(_) => {
                scene.tell(|| format!("{name} is killed in commit {number}"));
                return;
            }
        }
        if ends || chance.per_mille(10) {
            scene.tell(|| format!("{name} ends ({ends})"));
            return;
        }
    }
}

/// Commits, however often it has to be tried; false if the log is another's.
async fn commit(scene: &Scene, recorder: &mut Recorder, draft: CommitDraft) -> bool {
    loop {
        match recorder.commit(draft.clone()).await {
            Ok(_) => return true,
            Err(failure) if failure.kind() == FailureKind::Busy => {
                scene.broken(format!("a recorder lost its own log: {failure}"));
                return false;
            }
            Err(failure) => {
                scene.check("a recorder that commits", &failure);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Something to commit: mostly of now, some late, some of many hours, some without a time.
fn draft(scene: &Scene, chance: &Chance, name: &str, number: u64) -> CommitDraft {
    let now = scene.clock.now().0;
    let segments = (0..chance.of(0..3)).map(|place| {
        let late = if chance.per_mille(50) { chance.of(1..100) as i64 * 3_600 } else { 0 };
        let first = Time(now - (late + chance.of(0..30) as i64) * SECOND);
        let long = if chance.per_mille(30) { chance.of(1..60) as i64 * 3_600 } else { 9 };
        let last = Time(first.0 + long * SECOND);
        let hours: Vec<Hour> = (first.hour().0..=last.hour().0).map(Hour).collect();
        let timed = !chance.per_mille(20);
        segment(format!("{name}-{number}-{place}"), timed.then_some((first, last)), hours)
    });
    let segments: Vec<_> = segments.collect();
    let range = TimeRange { start: Time(now - 10 * SECOND), end: Time(now) };
    CommitDraft::recorded(segments, [Listened { range, interfaces: Vec::new() }], [])
}

pub(super) fn segment(name: String, times: Option<(Time, Time)>, hours: Vec<Hour>) -> SegmentEntry {
    let hour = if times.is_some() { hours[0] } else { Hour::UNKNOWN };
    let is_long = times.is_some() && hours.len() > 1;
    SegmentEntry {
        name,
        hour,
        hours: if is_long { hours } else { Vec::new() },
        first: times.map(|(first, _)| first),
        last: times.map(|(_, last)| last),
        first_ordinal: 0,
        last_ordinal: 9,
        packets: 10,
        flow_parts: 1,
        captured_bytes: 1_000,
        wire_bytes: 1_000,
        layers: vec![LayerEntry::new(Layer::Index.name(), 1, "")],
        protocols: [].into(),
        secrets: false,
        address_filter: None,
        term_filters: Default::default(),
        flow_ids: None,
        owner: None,
    }
}
