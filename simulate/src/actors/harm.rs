//! Damage of rolled-up objects and checkpoints, and the facts that it takes away.
//!
//! The commits of truncated logs are removed, so damage can take away the last object with a fact. A repair may lose such
//! facts, and must say so. It may lose no other: see `docs/catalog-safety.md`.

use std::collections::{BTreeMap, BTreeSet};

use capstan_model::GenerationId;
use capstan_storage_engine::catalog::{CommitId, TimeSlot, names, readable};
use object_store::path::Path;

use super::Scene;
use crate::chance::Chance;

/// What was damaged or lost, ever.
#[derive(Debug, Default)]
pub(crate) struct Harm {
    /// Slots of manifests and parts.
    slots: BTreeSet<TimeSlot>,
    /// A root.
    roots: bool,
    /// A checkpoint.
    pub(crate) checkpoints: bool,
    /// A repair has said that facts may be lost.
    pub(crate) is_told: bool,
}

/// Damages some of the rolled-up catalog and of the checkpoints, or loses it: mostly a little, sometimes everything.
pub(crate) fn wound(scene: &Scene, chance: &Chance) {
    let mut names = scene.bucket.names("sim/catalog/");
    names.extend(scene.bucket.names("sim/boundary/"));
    names.extend(scene.bucket.names("sim/checkpoint/"));
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
        scene.harm(|harm| harm.take(&Path::from(name.trim_start_matches("sim/"))));
        if chance.per_mille(500) {
            scene.tell(|| format!("{name} is lost"));
            scene.bucket.lose(&name);
        } else {
            scene.tell(|| format!("{name} is damaged"));
            scene.bucket.spoil(&name);
        }
    }
}

/// Damages the catalog while nobody else is there. What may be lost then is exactly what no readable object has any more.
pub(crate) async fn wound_alone(scene: &Scene, chance: &Chance) {
    let before = left(scene, chance).await;
    wound(scene, chance);
    let after = left(scene, chance).await;
    let lost = scene.truth.lose(before.difference(&after));
    scene.tell(|| format!("{lost} facts are lost"));
    scene.harm(|harm| harm.is_told = lost == 0);
}

/// Facts may be lost that others have truncated, swept or rolled up since the damage: those of removed commits that no
/// readable object has, about slots of which some object was damaged.
pub(crate) async fn take_losses(scene: &Scene, chance: &Chance) {
    let left = left(scene, chance).await;
    let logs = scene.bucket.names("sim/log/");
    let of_name = |name: &String| names::parse_commit(&Path::from(name.trim_start_matches("sim/")));
    let there: BTreeSet<CommitId> = logs.iter().filter_map(of_name).collect();
    let newest: BTreeMap<GenerationId, u64> = there.iter().map(|id| (id.of, id.seq)).collect();
    // The last commit of a log is never removed.
    let is_removed = |id: &CommitId| {
        !there.contains(id) && newest.get(&id.of).is_some_and(|newest| *newest > id.seq)
    };
    let slots = scene.harm(|harm| harm.slots.clone());
    let mut lost = Vec::new();
    for (id, identity, of_fact) in scene.truth.facts() {
        let is_harmed = of_fact.iter().any(|slot| slots.contains(slot));
        if is_harmed && is_removed(&id) && !left.contains(&(id, identity.clone())) {
            lost.push((id, identity));
        }
    }
    if scene.truth.lose(&lost) > 0 {
        scene.tell(|| format!("{} facts are lost", lost.len()));
        must_be_told(scene);
    }
}

/// A repair must have said that facts may be lost. Who loses a root also loses the names of manifests that it knew, and
/// need not know that there were any.
pub(crate) fn must_be_told(scene: &Scene) {
    if scene.harm(|harm| !harm.is_told && !harm.roots) {
        scene.broken("facts are lost, and no repair has said so".to_owned());
    }
}

/// The facts in all readable objects of the bucket as it is now.
async fn left(scene: &Scene, chance: &Chance) -> BTreeSet<(CommitId, String)> {
    let copy = scene.over(scene.bucket.without(|_| false));
    let store = copy.patient_store(chance, 0).await;
    match readable::facts(&store).await {
        Ok(facts) => facts,
        Err(failure) => {
            scene.broken(format!("the objects that are left: {failure}"));
            BTreeSet::new()
        }
    }
}

impl Harm {
    fn take(&mut self, path: &Path) {
        let of_manifest = names::parse_manifest(path).map(|(slot, _)| slot);
        let of_part = names::parse_part(path).map(|(slot, _)| slot);
        self.slots.extend(of_manifest.or(of_part));
        self.roots |= names::parse_root(path).is_some();
        self.checkpoints |= names::parse_checkpoint(path).is_some();
    }
}
