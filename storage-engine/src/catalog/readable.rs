//! What is left of a damaged store: all facts of readable objects. Simulations compare it with what a repair leaves.

use std::collections::BTreeSet;

use capstan_model::Failure;
use futures::TryStreamExt;

use super::commit_id::CommitId;
use super::entry::{self, Commit};
use super::facts::Facts;
use super::manifest::Manifest;
use super::versions;
use crate::catalog::names;
use crate::store::{Store, checked};

/// The facts in commits, and in all versions of manifests and their parts: each with its commit and its
/// [identity](super::Fact::identity).
///
/// # Errors
/// Errors of the store.
pub async fn facts(store: &Store) -> Result<BTreeSet<(CommitId, String)>, Failure> {
    let mut found = BTreeSet::new();
    let mut logs = store.list(&names::log(None));
    while let Some(object) = logs.try_next().await? {
        let Some(id) = names::parse_commit(&object.path) else { continue };
        let bytes = store.get_if_present(&object.path).await?.unwrap_or_default();
        if let Ok(commit) = entry::read::<Commit>(&bytes)
            && !checked::is_changed(commit.format, &bytes)
        {
            found.extend(commit.content.facts.iter().map(|fact| (id, fact.identity())));
        }
    }
    drop(logs);
    let mut parts = BTreeSet::new();
    let mut catalog = store.list(&names::catalog());
    while let Some(object) = catalog.try_next().await? {
        let Some((slot, version)) = names::parse_manifest(&object.path) else { continue };
        let Ok(Some(manifest)) = versions::read_manifest(store, slot, version).await else {
            continue;
        };
        let manifest = manifest.value;
        take(&manifest, &manifest.held, &mut found);
        for part in &manifest.parts {
            if parts.insert((slot, part.name.clone()))
                && let Ok(content) = versions::read_part(store, slot, part).await
            {
                take(&manifest, &content.facts, &mut found);
            }
        }
    }
    Ok(found)
}

fn take(manifest: &Manifest, facts: &Facts, found: &mut BTreeSet<(CommitId, String)>) {
    for of in &facts.facts {
        let Some(owner) = manifest.owner(of.by) else { continue };
        found.insert((CommitId { of: owner.of(), seq: of.seq }, of.fact.identity()));
    }
}
