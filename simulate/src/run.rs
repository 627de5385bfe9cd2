//! One simulation run of one seed.

use std::sync::Arc;
use std::time::Duration;

use capstan_model::{Failure, RecorderId, TimeRange};
use capstan_storage_engine::catalog::lease::HOLDS;
use capstan_storage_engine::catalog::names;
use capstan_storage_engine::catalog::rollup::roll_up_all;
use capstan_storage_engine::catalog::rollup::silent::NOTE;
use capstan_storage_engine::catalog::rollup::truncate::Limits;
use capstan_storage_engine::catalog::succession;
use capstan_storage_engine::catalog::sweep::GRACE;
use capstan_storage_engine::catalog::{
    Catalog, CatalogView, Outcome, Problem, Rollup, Stay, WriterKind,
};
use capstan_storage_engine::store::{Planted, Store};
use futures::TryStreamExt;

use crate::actors::{
    LIMITS, Scene, hold, import, is_there_once, look, maintain, mend, mended, read, record, roll_up,
};
use crate::bucket::{Bucket, Faults};
use crate::chance::{Chance, Clock};
use crate::truth::has_all;

/// How a seed ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What must not be and was seen; empty if all went well.
    pub(crate) broken: Vec<String>,
    pub(crate) story: Vec<String>,
    pub(crate) commits: u64,
    pub(crate) requests: u64,
    /// Of all that is stored in the end.
    pub(crate) fingerprint: u64,
}

/// Runs a seed.
pub(crate) fn run(seed: u64, planted: Option<Planted>, is_told: bool) -> Ended {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime {
        Ok(runtime) => runtime.block_on(scene(seed, planted, is_told)),
        Err(error) => Ended {
            broken: vec![format!("no runtime: {error}")],
            story: Vec::new(),
            commits: 0,
            requests: 0,
            fingerprint: 0,
        },
    }
}

async fn scene(seed: u64, planted: Option<Planted>, is_told: bool) -> Ended {
    let chance = Chance::new(seed);
    let clock = Clock::begin();
    let bucket = Arc::new(Bucket::new(Chance::new(chance.next()), clock));
    let faults = faults(&chance);
    let is_strict = faults.lag.is_zero();
    let scene = Scene::new(Arc::clone(&bucket), clock, planted, is_strict, is_told);
    scene.patient_store(&Chance::new(chance.next()), 0).await;
    bucket.be(faults);
    scene.tell(|| format!("{faults:?}"));

    let mut actors = Vec::new();
    for number in 0..chance.of(1..5) {
        let (scene, chance) = (scene.clone(), Chance::new(chance.next()));
        actors.push(tokio::spawn(record(scene, chance, RecorderId(number + 1))));
    }
    for number in 0..chance.of(1..4) {
        let (scene, chance) = (scene.clone(), Chance::new(chance.next()));
        actors.push(tokio::spawn(roll_up(scene, chance, format!("rollup {number}"))));
    }
    for _ in 0..chance.of(1..3) {
        let (scene, chance) = (scene.clone(), Chance::new(chance.next()));
        actors.push(tokio::spawn(read(scene, chance)));
    }
    for number in 0..chance.of(0..3) {
        let (scene, chance) = (scene.clone(), Chance::new(chance.next()));
        actors.push(tokio::spawn(hold(scene, chance, format!("holder {number}"))));
    }
    if chance.of(0..4) == 0 {
        let (scene, chance) = (scene.clone(), Chance::new(chance.next()));
        actors.push(tokio::spawn(mend(scene, chance)));
    }
    for _ in 0..chance.of(0..4) {
        let (scene, chance) = (scene.clone(), Chance::new(chance.next()));
        actors.push(tokio::spawn(import(scene, chance)));
    }
    for number in 0..chance.of(0..3) {
        let (scene, chance) = (scene.clone(), Chance::new(chance.next()));
        actors.push(tokio::spawn(maintain(scene, chance, number)));
    }
    // Most scenes are short; some are long enough for what was replaced to be removed, and for
    // those who slept meanwhile to wake up.
    let long = if chance.of(0..8) == 0 { 4_000..15_000 } else { 60..900 };
    let long = Duration::from_secs(chance.of(long));
    tokio::time::sleep(long).await;
    for actor in &actors {
        actor.abort();
    }
    for actor in actors {
        if let Err(error) = actor.await
            && error.is_panic()
        {
            scene.broken(format!("an actor panicked: {error}"));
        }
    }
    // What is still on its way arrives, and nothing gets lost any more.
    bucket.be(Faults::default());
    tokio::time::sleep(Duration::from_secs(600)).await;
    let store = scene.patient_store(&Chance::new(chance.next()), 0).await;
    if let Err(failure) = mended(&scene, &Chance::new(chance.next()), &store, faults).await {
        scene.broken(format!("a repair with nobody else there: {failure}"));
    }
    if scene.is_unharmed() {
        read_older_roots(&scene, &Chance::new(chance.next())).await;
    }
    if let Err(failure) = quiet(&scene, &store).await {
        scene.broken(format!("in the end: {failure}"));
    }
    if let Err(failure) = swept(&scene, &store).await {
        scene.broken(format!("long after the end: {failure}"));
    }
    Ended {
        broken: scene.found(),
        story: scene.story(),
        commits: scene.truth.commits(),
        requests: bucket.requests(),
        fingerprint: bucket.fingerprint(),
    }
}

/// How bad the bucket is.
fn faults(chance: &Chance) -> Faults {
    let often = |most| if chance.of(0..3) == 0 { 0 } else { chance.of(0..most) };
    Faults {
        lost: often(40),
        unanswered: often(40),
        unavailable: often(40),
        conflict: often(40),
        cut: often(20),
        slow: often(5),
        lag: if chance.of(0..2) == 0 { Duration::ZERO } else { chance.millis(1..5_000) },
    }
}

/// Readers of the oldest existing root, and of another one, find each commit of the logs that their root names: they may
/// have been paused since they read it.
async fn read_older_roots(scene: &Scene, chance: &Chance) {
    const ROOTS: &str = "sim/catalog/roots/";
    let roots = scene.bucket.names(ROOTS);
    let Some(oldest) = roots.first() else { return };
    for root in [oldest, &roots[chance.of(0..roots.len() as u64) as usize]] {
        let is_newer = |name: &str| name.starts_with(ROOTS) && name > root.as_str();
        let then = scene.over(scene.bucket.without(is_newer));
        let store = then.patient_store(chance, 0).await;
        match sees_named_logs(&then, &store).await {
            Ok(Ok(())) => {}
            Ok(Err(what)) => scene.broken(format!("a reader of {root}: {what}")),
            Err(failure) => scene.broken(format!("a reader of {root}: {failure}")),
        }
    }
}

/// Whether a reader sees all commits of the logs that its root names.
async fn sees_named_logs(scene: &Scene, store: &Store) -> Result<Result<(), String>, Failure> {
    let view = CatalogView::load(store).await?;
    let window = view.window(TimeRange::ALL).await?;
    let mut must = scene.truth.acknowledged();
    must.retain(|owner, _| view.root().log(*owner).is_some());
    let seen = scene.truth.seen(&window);
    Ok(seen.and_then(|seen| has_all(&seen, &must, "that were acknowledged")))
}

/// When all is quiet everything is rolled up, once, and says what the logs say.
async fn quiet(scene: &Scene, store: &Store) -> Result<(), Failure> {
    let must = scene.truth.acknowledged();
    let logs = Catalog::load(store).await?;
    let not_rolled_up = CatalogView::load(store).await?.window(TimeRange::ALL).await?;
    if let Outcome::Fenced { by } = roll_up_all(store, "the last").await? {
        scene.broken(format!("fenced by {by} with nobody left"));
        return Ok(());
    }
    let view = CatalogView::load(store).await?;
    let window = view.window(TimeRange::ALL).await?;
    if view.waiting().count() > 0 {
        scene.broken("not all is rolled up in the end".to_owned());
    }
    if window.segments != not_rolled_up.segments || window.listened != not_rolled_up.listened {
        scene.broken("the rollup changed what is seen".to_owned());
    }
    if let Err(what) = is_there_once(&window, &scene.truth) {
        scene.broken(what);
    }
    match scene.truth.seen(&window) {
        Ok(seen) => {
            if let Err(what) = scene.truth.has_layers(&window, &seen) {
                scene.broken(format!("in the end: {what}"));
            }
            if let Err(what) = has_all(&seen, &must, "that were acknowledged, in the end") {
                scene.broken(what);
            }
            for (of, state) in logs.generations() {
                // A repair that only says what no longer counts has no facts.
                let kind = state.writer().map(|writer| writer.info.kind);
                if kind == Some(WriterKind::Repair) {
                    continue;
                }
                let found = seen.get(&of).copied().unwrap_or(0);
                // With the last one a rollup or a successor ended the log: it says nothing.
                let ended = |note: &String| note == NOTE || note.starts_with(succession::NOTE);
                let commits = state.commits() - u64::from(state.notes().iter().any(ended));
                if found != commits {
                    scene.broken(format!(
                        "{of}: {found} commits are rolled up of {commits} in the log"
                    ));
                }
            }
        }
        Err(what) => scene.broken(format!("in the end: {what}")),
    }
    // Of a lost checkpoint that covers few commits nobody can tell that there was one.
    let is_known = |problem: &&Problem| {
        matches!(problem, Problem::Missing { .. }) && scene.harm(|harm| harm.checkpoints)
    };
    let problems = logs.problems().iter().filter(|problem| !is_known(problem));
    let problems: Vec<String> = problems.map(ToString::to_string).collect();
    if !problems.is_empty() {
        scene.broken(format!("the logs: {problems:?}"));
    }
    Ok(())
}

/// Long after, all that was replaced is removed, leases that nobody gave back are, and everything is seen
/// as before.
async fn swept(scene: &Scene, store: &Store) -> Result<(), Failure> {
    let before = CatalogView::load(store).await?.window(TimeRange::ALL).await?;
    tokio::time::sleep(GRACE + HOLDS + Duration::from_secs(1)).await;
    let mut rollup = Rollup::claim(store, "the sweeper", Stay::Leaves).await?;
    rollup.sweep(GRACE).await?;
    let count = async |prefix| store.list(&prefix).try_collect::<Vec<_>>().await;
    let roots = count(names::roots()).await?.len();
    let leases = count(names::leases()).await?.len();
    // The newest few stay, and the one that says what was removed.
    if roots > 5 || leases > 0 {
        scene.broken(format!("{roots} roots and {leases} leases are left when all is over"));
    }
    let after = CatalogView::load(store).await?.window(TimeRange::ALL).await?;
    if after.segments != before.segments || after.listened != before.listened {
        scene.broken("removing what was replaced changed what is seen".to_owned());
    }
    rollup.truncate(Limits { most: 10_000, ..LIMITS }).await?;
    let after = CatalogView::load(store).await?.window(TimeRange::ALL).await?;
    if after.segments != before.segments || after.listened != before.listened {
        scene.broken("truncating the logs changed what is seen".to_owned());
    }
    look(scene, store).await
}
