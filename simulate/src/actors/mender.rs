//! Damage of rolled-up objects, and repairs: while other actors run, interrupted midway, and after
//! all actors have stopped. After each complete repair the data must be as before.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use capstan_model::{Failure, Hour, TimeRange};
use capstan_storage_engine::catalog::CatalogView;
use capstan_storage_engine::repair::{self, Action, Options, Report, repair};
use capstan_storage_engine::segment::Layers;
use capstan_storage_engine::store::Store;
use capstan_storage_engine::verify::{self, Finding, Severity};

use super::Scene;
use crate::bucket::Faults;
use crate::chance::Chance;

/// Damages and repairs until the scene ends.
pub(crate) async fn mend(scene: Scene, chance: Chance) {
    let store = scene.patient_store(&chance, 0).await;
    loop {
        tokio::time::sleep(chance.millis(10_000..2_000_000)).await;
        wound(&scene, &chance);
        tokio::time::sleep(chance.millis(1..100_000)).await;
        loop {
            // Killed in the middle of it, sometimes.
            let patience = Duration::from_millis(chance.of(100..120_000));
            match tokio::time::timeout(patience, repaired(&scene, &store)).await {
                Ok(Ok(report)) if report.beyond == 0 => break,
                Ok(Ok(report)) => scene.broken(format!("a repair beside others: {report:?}")),
                Ok(Err(failure)) => scene.check("a repair beside others", &failure),
                Err(_) => scene.tell(|| "a repair is killed".to_owned()),
            }
            tokio::time::sleep(chance.millis(1_000..60_000)).await;
        }
        scene.is_wounded(false);
        scene.tell(|| "all is repaired, beside others".to_owned());
    }
}

/// Damages what is there when all others are gone, sometimes, and repairs it if it is damaged.
///
/// # Errors
/// The repair could not be done.
pub(crate) async fn mended(
    scene: &Scene,
    chance: &Chance,
    store: &Store,
    faults: Faults,
) -> Result<(), Failure> {
    if chance.of(0..3) == 0 {
        wound(scene, chance);
    }
    if scene.is_unharmed() {
        return Ok(());
    }
    // Broken off in the middle, in bad weather.
    scene.bucket.be(faults);
    for _ in 0..chance.of(0..4) {
        let patience = Duration::from_millis(chance.of(1..30_000));
        match tokio::time::timeout(patience, repaired(scene, store)).await {
            Ok(Ok(_)) => break,
            Ok(Err(failure)) => scene.check("a repair", &failure),
            Err(_) => scene.tell(|| "a repair is killed".to_owned()),
        }
    }
    scene.bucket.be(Faults::default());
    tokio::time::sleep(Duration::from_secs(600)).await;
    let report = repaired(scene, store).await?;
    scene.tell(|| format!("{report:?}"));
    let again = repaired(scene, store).await?;
    if report.beyond > 0 || again != Report::default() {
        scene.broken(format!("repaired: {report:?}, and again: {again:?}"));
    }
    scene.is_wounded(false);
    look(scene, store).await
}

/// Nothing must be told to be damaged.
///
/// # Errors
/// The store could not be read.
pub(crate) async fn look(scene: &Scene, store: &Store) -> Result<(), Failure> {
    let heard = Heard::default();
    // The catalog alone: no segment here has bytes.
    let none = Hour(0).range().unwrap_or(TimeRange::ALL);
    let options = verify::Options { range: none, deep: false, layers: Layers::KNOWN };
    let report = verify::verify(store, &options, &heard).await?;
    scene.tell(|| format!("{} commits of {} are removed", report.truncated, report.commits));
    for finding in heard.0.into_inner().unwrap_or_default() {
        let text = finding.to_string();
        // Of a version that was lost when it was the newest nobody knows that it was there. It is made again,
        // and then the next one may be of who had read the first.
        if finding.severity() > Severity::Note && !text.contains("hash of the predecessor differs")
        {
            scene.broken(format!("a check: {text}"));
        }
    }
    let view = CatalogView::load(store).await?;
    let gaps = view.gaps().iter().map(ToString::to_string);
    for problem in view.notes().map(str::to_owned).chain(gaps) {
        scene.broken(format!("a check: {problem}"));
    }
    Ok(())
}

/// Damages some of what is rolled up, or loses it: mostly a little, sometimes everything. Of truncated logs only manifests
/// have the facts, so from then on these stay whole.
fn wound(scene: &Scene, chance: &Chance) {
    let mut names = scene.bucket.names("sim/catalog/");
    names.extend(scene.bucket.names("sim/boundary/"));
    let checkpoints = scene.bucket.names("sim/checkpoint/");
    if !checkpoints.is_empty() {
        let has_facts = |name: &String| {
            name.starts_with("sim/catalog/date=") || name.starts_with("sim/catalog/wide/")
        };
        names.retain(|name| !has_facts(name));
    }
    let many = match chance.of(0..10) {
        0 => names.len() as u64,
        1..4 => chance.of(1..20),
        _ => 1,
    };
    scene.is_wounded(true);
    for _ in 0..many.min(names.len() as u64) {
        // The newest ones matter most, and are what nobody else has read so far.
        let last = names.len() as u64 - 1;
        let place = if chance.per_mille(300) { last } else { chance.of(0..last + 1) };
        let name = names.swap_remove(place as usize);
        if chance.per_mille(500) {
            scene.tell(|| format!("{name} is lost"));
            scene.bucket.lose(&name);
        } else {
            scene.tell(|| format!("{name} is damaged"));
            scene.bucket.spoil(&name);
        }
    }
}

/// Repairs as `capstan repair` does beside others. No segment here has bytes: that the layers of named segments are
/// gone is not counted.
///
/// # Errors
/// The repair could not be done.
async fn repaired(scene: &Scene, store: &Store) -> Result<Report, Failure> {
    let options = Options { host: "mender".to_owned(), ..Options::default() };
    let telling = Telling { scene, incomplete: AtomicU64::new(0) };
    let report = repair(store, &options, &telling).await?;
    let beyond = report.beyond - telling.incomplete.into_inner();
    Ok(Report { beyond, ..report })
}

/// Tells what a repair does.
struct Telling<'a> {
    scene: &'a Scene,
    /// Segments that the catalog names and that have not all of their layers.
    incomplete: AtomicU64,
}

impl repair::Watch for Telling<'_> {
    fn did(&self, action: &Action) {
        match action {
            Action::Incomplete { .. } => {
                self.incomplete.fetch_add(1, Ordering::Relaxed);
            }
            _ => self.scene.tell(|| format!("repair: {action}")),
        }
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<Finding>>);

impl verify::Watch for Heard {
    fn found(&self, finding: &Finding) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(finding.clone());
    }
}
