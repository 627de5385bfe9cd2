//! Repairs of damaged objects: while other actors run, interrupted midway, and after
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
use super::harm::{must_be_told, take_losses, wound, wound_alone};
use crate::bucket::Faults;
use crate::chance::Chance;

/// Damages and repairs until the scene ends.
pub(crate) async fn mend(scene: Scene, chance: Chance) {
    let store = scene.patient_store(&chance, 0).await;
    loop {
        tokio::time::sleep(chance.millis(10_000..2_000_000)).await;
        scene.harm(|harm| harm.is_told = false);
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
        // Who has compared commits with manifests before the damage may still remove them.
        tokio::time::sleep(Duration::from_secs(400)).await;
        take_losses(&scene, &chance).await;
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
    if !scene.is_unharmed() {
        // The last repair was broken off.
        scene.harm(|harm| harm.is_told = true);
        take_losses(scene, chance).await;
    }
    if chance.of(0..3) == 0 {
        wound_alone(scene, chance).await;
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
    must_be_told(scene);
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
        let is_known = text.contains("hash of the predecessor differs");
        if finding.severity() > Severity::Note && !is_known {
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

/// Repairs as `capstan repair` does beside others. No segment here has bytes: that the layers of named segments are
/// gone is not counted.
///
/// # Errors
/// The repair could not be done.
async fn repaired(scene: &Scene, store: &Store) -> Result<Report, Failure> {
    let options = Options { host: "mender".to_owned(), ..Options::default() };
    let telling = Telling { scene, known: AtomicU64::new(0) };
    let report = repair(store, &options, &telling).await?;
    let beyond = report.beyond - telling.known.into_inner();
    Ok(Report { beyond, ..report })
}

/// Tells what a repair does.
struct Telling<'a> {
    scene: &'a Scene,
    /// What cannot be repaired, and is known.
    known: AtomicU64,
}

impl repair::Watch for Telling<'_> {
    fn did(&self, action: &Action) {
        let scene = self.scene;
        match action {
            Action::Incomplete { .. } => {
                self.known.fetch_add(1, Ordering::Relaxed);
                return;
            }
            // Commits that were truncated while the repair read them.
            Action::Manifest { lost, .. } if *lost > 0 => {
                self.known.fetch_add(*lost, Ordering::Relaxed);
                scene.harm(|harm| harm.is_told = true);
            }
            Action::Replaced(_) | Action::Unresolved(_) => scene.harm(|harm| harm.is_told = true),
            _ => {}
        }
        scene.tell(|| format!("repair: {action}"));
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<Finding>>);

impl verify::Watch for Heard {
    fn found(&self, finding: &Finding) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(finding.clone());
    }
}
