//! Rollups: two or three at once, each believes it is the only one.

use std::time::Duration;

use capstan_storage_engine::catalog::rollup::truncate::Limits;
use capstan_storage_engine::catalog::sweep::GRACE;
use capstan_storage_engine::catalog::{Outcome, Rollup, Stay};
use capstan_storage_engine::store::Store;

use super::{Scene, skew};
use crate::chance::Chance;

/// Logs here are short, so they are truncated early, and in small pieces.
pub(crate) const LIMITS: Limits = Limits { least: 2, most: 50 };

/// Recorders here sleep for longer at times.
const SILENT: Duration = Duration::from_secs(1_800);

/// Rolls up until the scene ends.
pub(crate) async fn roll_up(scene: Scene, chance: Chance, name: String) {
    loop {
        let store = scene.patient_store(&chance, skew(&chance)).await;
        // Killed in the middle of something, sooner or later.
        let patience = Duration::from_millis(chance.of(10..6_000_000));
        let work = hold(&scene, &chance, &store, &name);
        if tokio::time::timeout(patience, work).await.is_err() {
            scene.tell(|| format!("{name} is killed"));
        }
        tokio::time::sleep(chance.millis(1_000..300_000)).await;
    }
}

/// Holds the role for as long as nobody else takes it.
async fn hold(scene: &Scene, chance: &Chance, store: &Store, name: &str) {
    let mut rollup = match Rollup::claim(store, name, Stay::Keeps).await {
        Ok(rollup) => rollup,
        Err(failure) => return scene.check("a rollup that claims", &failure),
    };
    scene.tell(|| format!("{name} rolls up, epoch {}", rollup.root().epoch));
    loop {
        match rollup.step().await {
            Ok(Outcome::Done(done)) => {
                scene.tell(|| format!("{name}: root {}, {done:?}", rollup.root().version));
            }
            Ok(Outcome::Fenced { by }) => {
                scene.tell(|| format!("{name} is fenced by {by}"));
                return;
            }
            Err(failure) => scene.check("a rollup", &failure),
        }
        if chance.per_mille(100) {
            match rollup.sweep(GRACE).await {
                Ok(swept) => scene.tell(|| format!("{name}: {swept:?}")),
                Err(failure) => scene.check("a sweep", &failure),
            }
            match rollup.truncate(LIMITS).await {
                Ok(truncated) => scene.tell(|| format!("{name}: {truncated:?}")),
                Err(failure) => scene.check("a truncation", &failure),
            }
            match rollup.end_silent(SILENT).await {
                Ok(ended) => scene.tell(|| format!("{name} has ended {ended} logs")),
                Err(failure) => scene.check("a rollup that ends logs", &failure),
            }
        }
        let wait = match chance.of(0..100) {
            0..2 => Duration::from_secs(chance.of(3_000..15_000)),
            _ => chance.millis(1_000..60_000),
        };
        tokio::time::sleep(wait).await;
    }
}
