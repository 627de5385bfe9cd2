//! Importers of one file. At most one may store it at a time. They are killed, paused and restarted.

use std::collections::BTreeSet;
use std::time::Duration;

use capstan_model::coverage::Listened;
use capstan_model::{FailureKind, GenerationId, RecorderId, Time, TimeRange};
use capstan_storage_engine::catalog::succession::{self, DEAD_AFTER, Standing};
use capstan_storage_engine::catalog::{
    CommitDraft, Finished, GenerationState, Recorder, SegmentEntry, Source, Window, WriterInfo,
    WriterKind,
};
use capstan_storage_engine::store::Store;

use super::recorder::segment;
use super::{Scene, skew};
use crate::chance::Chance;
use crate::truth::Truth;

/// Who imports the file, in whichever process.
pub(crate) const IMPORT: RecorderId = RecorderId(0x1_0000);

/// Packets of the file, and of each segment.
const PACKETS: u64 = 400;
const OF_SEGMENT: u64 = 10;

/// Imports until all of the file is there.
pub(crate) async fn import(scene: Scene, chance: Chance) {
    loop {
        tokio::time::sleep(chance.millis(0..20_000)).await;
        let store = scene.patient_store(&chance, skew(&chance)).await;
        let waiting = |_: &GenerationState, _: Duration| ();
        match succession::look(&store, IMPORT, DEAD_AFTER, &waiting).await {
            Ok(Standing::Alive(_)) => scene.tell(|| "an importer gives way".to_owned()),
            Ok(Standing::Free { catalog, next }) => {
                let before = catalog.imports().pop();
                if before.as_ref().is_some_and(|of| of.complete) {
                    return;
                }
                let info = info(&store, before.as_ref().map(|of| of.last_generation));
                match Recorder::succeed(&store, IMPORT, next, info).await {
                    Ok(Some(recorder)) => {
                        let read = before.map_or(0, |of| of.next_ordinal);
                        scene.tell(|| format!("an import goes on as {next} from {read}"));
                        go_on(&scene, &chance, recorder, read).await;
                    }
                    Ok(None) => scene.tell(|| format!("an importer was too late for {next}")),
                    Err(failure) => scene.check("an importer that begins", &failure),
                }
            }
            Err(failure) => scene.check("an importer that looks", &failure),
        }
    }
}

fn info(store: &Store, resumes: Option<capstan_model::Generation>) -> WriterInfo {
    let source = Source { name: String::new(), bytes: PACKETS, sketch: String::new() };
    WriterInfo {
        kind: WriterKind::Import,
        description: String::new(),
        host: String::new(),
        source: Some(source),
        resumes,
        started_at: store.now(),
    }
}

/// One generation, from a packet on: until the end, until it is killed, or until another one has gone on.
async fn go_on(scene: &Scene, chance: &Chance, mut recorder: Recorder, mut read: u64) {
    let owner = GenerationId::new(recorder.recorder(), recorder.generation());
    let name = owner.to_string();
    for number in 0_u64.. {
        tokio::time::sleep(chance.millis(100..3_000)).await;
        if chance.per_mille(30) {
            scene.tell(|| format!("{name} is paused"));
            tokio::time::sleep(chance.millis(1_000..200_000)).await;
        }
        // Without a segment it is a sign of life.
        let segments = if chance.per_mille(600) && read < PACKETS {
            vec![part(scene, &format!("{name}-{number}"), read)]
        } else {
            Vec::new()
        };
        read += OF_SEGMENT * segments.len() as u64;
        let ends = read == PACKETS;
        let now = scene.clock.now().0;
        let range = TimeRange { start: Time(now - 10), end: Time(now) };
        let draft = CommitDraft {
            next_ordinal: read,
            finished: ends.then_some(Finished { complete: true, packets_total: read }),
            ..CommitDraft::recorded(segments, [Listened { range, interfaces: Vec::new() }], [])
        };
        scene.truth.tries(owner, &draft);
        let killed = chance.per_mille(20);
        let patience = if killed { chance.millis(1..200) } else { Duration::from_secs(1_000_000) };
        match tokio::time::timeout(patience, commit(scene, &mut recorder, draft)).await {
            Ok(true) => scene.truth.acknowledge(owner),
            Ok(false) => {
                scene.tell(|| format!("{name} was gone on with"));
                return;
            }
            Err(_) => {
                scene.tell(|| format!("{name} is killed in commit {number}"));
                return;
            }
        }
        if ends {
            scene.tell(|| format!("{name} has imported all"));
            return;
        }
    }
}

/// Commits, however often it has to be tried; false if another process has ended the log.
async fn commit(scene: &Scene, recorder: &mut Recorder, draft: CommitDraft) -> bool {
    loop {
        match recorder.commit(draft.clone()).await {
            Ok(_) => return true,
            Err(failure) if failure.kind() == FailureKind::Busy => return false,
            Err(failure) => {
                scene.check("an importer that commits", &failure);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Packets of the file, from one on.
fn part(scene: &Scene, name: &str, first: u64) -> SegmentEntry {
    let time = scene.clock.now();
    let entry = segment(name.to_owned(), Some((time, time)), vec![time.hour()]);
    SegmentEntry { first_ordinal: first, last_ordinal: first + OF_SEGMENT - 1, ..entry }
}

/// Whether every packet of the file that is in a window is there once, and none before it is missing that is not known to
/// be lost.
///
/// # Errors
/// Which is not.
pub(crate) fn is_there_once(window: &Window, truth: &Truth) -> Result<(), String> {
    let ours = window.segments.iter().filter(|of| of.of.recorder == IMPORT).map(|of| &of.entry);
    let there: BTreeSet<&String> = ours.clone().map(|of| &of.name).collect();
    let mut lost = truth.lost_segments(IMPORT);
    lost.retain(|of| !there.contains(&of.name));
    let parts = ours.chain(&lost).map(|of| (of.first_ordinal, of.last_ordinal));
    let mut parts: Vec<(u64, u64)> = parts.collect();
    parts.sort_unstable();
    let mut next = 0;
    for (first, last) in parts {
        if first != next {
            let what = if first < next { "there twice" } else { "missing" };
            return Err(format!("packet {} of the import is {what}", first.min(next)));
        }
        next = last + 1;
    }
    Ok(())
}
