//! Long-running readers with a lease: the objects named by their view's root must exist as long as
//! the lease does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capstan_model::Failure;
use capstan_storage_engine::catalog::CatalogView;
use capstan_storage_engine::catalog::lease::keep;
use capstan_storage_engine::catalog::names;
use capstan_storage_engine::catalog::sweep::GRACE;
use capstan_storage_engine::store::Store;

use super::{Scene, skew};
use crate::chance::Chance;

/// Reads, one long question after the other, until the scene ends.
pub(crate) async fn hold(scene: Scene, chance: Chance, name: String) {
    loop {
        let store = scene.patient_store(&chance, skew(&chance)).await;
        tokio::time::sleep(chance.millis(500..600_000)).await;
        let wounds = scene.wounds();
        let view = match CatalogView::load(&store).await {
            Ok(view) => view,
            Err(failure) => {
                scene.check("a reader that begins", &failure);
                continue;
            }
        };
        let (holds, aside) = (AtomicBool::new(false), scene.aside());
        let long = Duration::from_secs(chance.of(60..10_000));
        // Killed in the middle of it, sometimes: then nobody gives back what it leased.
        let killed = if chance.per_mille(200) { long / 2 } else { Duration::MAX };
        let reading = async {
            let ends = tokio::time::Instant::now() + long;
            while tokio::time::Instant::now() < ends {
                tokio::time::sleep(chance.millis(1_000..1_200_000)).await;
                if let Err(failure) = look(&aside, &store, &view, &holds, &name).await {
                    aside.check("a reader that goes on for long", &failure);
                }
            }
        };
        match tokio::time::timeout(
            killed,
            keep(view.store(), view.root().version, GRACE, &holds, reading),
        )
        .await
        {
            Ok(Ok(())) => scene.tell(|| format!("{name} is done")),
            Ok(Err(failure)) => scene.tell(|| format!("{name}: {failure}")),
            Err(_) => scene.tell(|| format!("{name} is killed")),
        }
        // What was damaged is put anew under another name.
        if scene.was_sound(wounds) {
            scene.believe(&aside);
        }
    }
}

/// Whether each version is there that the root of a view names.
async fn look(
    scene: &Scene,
    store: &Store,
    view: &CatalogView,
    holds: &AtomicBool,
    name: &str,
) -> Result<(), Failure> {
    let root = view.root();
    if root.version == 0 {
        return Ok(());
    }
    let manifests = root.slots.iter().map(|of| names::manifest(of.slot, of.version));
    let mut gone = Vec::new();
    for path in manifests.chain([names::root(root.version)]) {
        if store.get_if_present(&path).await?.is_none() {
            gone.push(path.to_string());
        }
    }
    let is_leased = holds.load(Ordering::Relaxed);
    scene.tell(|| format!("{name} reads as of root {}, leased: {is_leased}", root.version));
    // A lease that was lost meanwhile is one that came too late, or was not made again in time.
    if is_leased && !gone.is_empty() {
        scene.broken(format!("{name} leases root {}, and {gone:?} are gone", root.version));
    }
    Ok(())
}
