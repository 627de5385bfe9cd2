//! Readers check that a view holds exactly the committed data, without holes, at one moment.

use std::time::Duration;

use capstan_model::{Failure, Time, TimeRange};
use capstan_storage_engine::catalog::{CatalogView, Window};
use capstan_storage_engine::store::Store;

use super::{Scene, Wounds, skew};
use crate::chance::Chance;
use crate::truth::{Counts, has_all, minute_of};

/// A view and what was seen with it.
struct Seen {
    view: CatalogView,
    counts: Counts,
    wounds: Wounds,
}

/// Reads until the scene ends.
pub(crate) async fn read(scene: Scene, chance: Chance) {
    let store = scene.patient_store(&chance, skew(&chance)).await;
    let mut before: Option<Seen> = None;
    loop {
        tokio::time::sleep(chance.millis(500..120_000)).await;
        if chance.per_mille(10) {
            tokio::time::sleep(Duration::from_secs(chance.of(3_000..20_000))).await;
        }
        if chance.per_mille(100) {
            before = None;
        }
        // Who knows a root that is lost, and that a repair could not know of, does not find the one that it put.
        before = before.filter(|seen| scene.was_sound(seen.wounds));
        let (wounds, aside) = (scene.wounds(), scene.aside());
        match look(&aside, &chance, &store, before.as_ref()).await {
            Ok(Some(seen)) => before = Some(seen),
            Ok(None) => {}
            Err(failure) => aside.check("a reader", &failure),
        }
        if scene.was_sound(wounds) {
            scene.believe(&aside);
        } else {
            // What it has may be in part.
            before = None;
        }
    }
}

/// Looks at all there is; none if something was wrong with it.
async fn look(
    scene: &Scene,
    chance: &Chance,
    store: &Store,
    before: Option<&Seen>,
) -> Result<Option<Seen>, Failure> {
    let (must, wounds) = (scene.truth.acknowledged(), scene.wounds());
    let view = match before {
        Some(before) => before.view.refresh().await?,
        None => CatalogView::load(store).await?,
    };
    // Long after, sometimes: others may have gone on since.
    tokio::time::sleep(chance.millis(0..100_000)).await;
    let Some(counts) = all(scene, &view).await? else { return Ok(None) };
    if scene.is_strict
        && let Err(what) = has_all(&counts, &must, "that were there before")
    {
        scene.broken(format!("a reader: {what}"));
    }
    if let Some(before) = before {
        if let Err(what) = has_all(&counts, &before.counts, "that were seen before") {
            scene.broken(format!("a reader that goes on: {what}"));
        }
        if chance.per_mille(300) {
            // What was seen stays what it was.
            let again = all(scene, &before.view).await?;
            if again.is_some_and(|again| again != before.counts) {
                scene.broken("a view shows something else than before".to_owned());
            }
        }
    }
    let hours = chance.of(0..120) as i64;
    let asked = Time(scene.clock.now().0 - hours * 3_600_000_000_000);
    let long = TimeRange { start: asked, end: Time::MAX };
    let range = if chance.per_mille(300) { long } else { minute_of(asked) };
    let window = view.window(range).await?;
    problems(scene, &view, &window);
    if let Err(what) = scene.truth.has_segments(&window, &counts, range) {
        scene.broken(format!("a window has {what}"));
    }
    if let Err(what) = scene.truth.has_layers(&window, &counts) {
        scene.broken(format!("a window: {what}"));
    }
    Ok(Some(Seen { view, counts, wounds }))
}

/// What a view shows of all of time.
async fn all(scene: &Scene, view: &CatalogView) -> Result<Option<Counts>, Failure> {
    let window = view.window(TimeRange::ALL).await?;
    problems(scene, view, &window);
    match scene.truth.seen(&window) {
        Ok(counts) => {
            if let Err(what) = scene.truth.has_layers(&window, &counts) {
                scene.broken(format!("a reader: {what}"));
            }
            Ok(Some(counts))
        }
        Err(what) => {
            scene.broken(format!("a reader: {what}"));
            Ok(None)
        }
    }
}

/// Nothing is damaged here, so nothing may look so.
fn problems(scene: &Scene, view: &CatalogView, window: &Window) {
    let gaps = window.gaps.iter().map(ToString::to_string);
    for problem in view.notes().map(str::to_owned).chain(gaps) {
        scene.broken(format!("a reader was told: {problem}"));
    }
}
