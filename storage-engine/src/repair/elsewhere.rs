//! Facts of a lost manifest or part that others have, too. Facts that touch several slots are in the manifest of each.
//! Facts that moved into a part are in the manifests before it. Parts that were written together are dropped together,
//! though some of them may be readable. The commits of truncated logs are removed, so nothing else has these facts.

use std::collections::BTreeMap;

use capstan_model::Failure;

use super::survey::Survey;
use crate::catalog::facts::Facts;
use crate::catalog::manifest::{Manifest, SlotCommit};
use crate::catalog::versions;
use crate::catalog::{CommitId, GapKind, TimeSlot};
use crate::store::Store;

/// The commits of truncated logs with facts about a slot that its next manifest would lack, from all that is readable of
/// its manifests and of those of other slots.
///
/// # Errors
/// Errors of the store.
pub(super) async fn elsewhere(
    store: &Store,
    survey: &Survey,
    slot: TimeSlot,
) -> Result<Vec<SlotCommit>, Failure> {
    let mut commits = BTreeMap::new();
    if survey.logs.truncated.is_empty() {
        return Ok(Vec::new());
    }
    for other in survey.sharing(slot).into_iter().chain([slot]) {
        for version in survey.before_unreadable_parts(other) {
            if let Some(manifest) = versions::read_manifest(store, other, *version).await? {
                take(survey, slot, &manifest.value, &[&manifest.value.held], &mut commits);
            }
        }
        let Some(version) = survey.readable(other) else { continue };
        let Some(manifest) = versions::read_manifest(store, other, version).await? else {
            continue;
        };
        let manifest = manifest.value;
        let mut parts = Vec::new();
        for part in &manifest.parts {
            match versions::read_part(store, other, part).await {
                Ok(content) => parts.push(content.facts),
                // Those that were written with it may be readable.
                Err(failure)
                    if survey.is_unreadable(other, &part.name)
                        && GapKind::of(&failure).is_some() => {}
                Err(failure) => return Err(failure),
            }
        }
        let facts: Vec<&Facts> = parts.iter().chain([&manifest.held]).collect();
        take(survey, slot, &manifest, &facts, &mut commits);
    }
    Ok(commits.into_values().collect())
}

/// Collects the facts about a slot.
fn take(
    survey: &Survey,
    slot: TimeSlot,
    manifest: &Manifest,
    facts: &[&Facts],
    commits: &mut BTreeMap<CommitId, SlotCommit>,
) {
    let hashes = facts.iter().flat_map(|facts| &facts.commits);
    let hashes: BTreeMap<(u32, u64), &String> =
        hashes.map(|of| ((of.by, of.seq), &of.fact)).collect();
    let facts = facts.iter().flat_map(|facts| &facts.facts);
    for of in facts.filter(|of| of.fact.slots().contains(&slot)) {
        let Some(contributor) = manifest.owner(of.by) else { continue };
        let id = CommitId { of: contributor.of(), seq: of.seq };
        if !survey.is_removed(&id) || survey.is_present(slot, &id) {
            continue;
        }
        let commit = commits.entry(id).or_insert_with(|| SlotCommit {
            of: id.of,
            admitted: contributor.admitted,
            info: contributor.info.clone(),
            seq: id.seq,
            // It may be lost with the part that had it.
            sha256: hashes.get(&(of.by, of.seq)).copied().cloned().unwrap_or_default(),
            facts: Vec::new(),
        });
        // Several slots may have it.
        if !commit.facts.contains(&of.fact) {
            commit.facts.push(of.fact.clone());
        }
    }
}
