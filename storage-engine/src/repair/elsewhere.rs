//! Facts of a lost manifest that others have, too: facts that touch several slots are in the manifest of each. The
//! commits of truncated logs are removed, so nothing else has these facts.

use std::collections::BTreeMap;

use capstan_model::Failure;

use super::survey::Survey;
use crate::catalog::facts::Facts;
use crate::catalog::manifest::{Manifest, SlotCommit};
use crate::catalog::versions;
use crate::catalog::{CommitId, TimeSlot};
use crate::store::Store;

/// Facts that touch more hours are wide.
const HOURS: i32 = 24;

/// The commits of truncated logs with facts about a slot whose manifest lacks them, from the manifests of other slots.
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
    for other in survey.slots.keys().copied().filter(|other| may_share(*other, slot)) {
        let Some(version) = survey.readable(other) else { continue };
        let Some(manifest) = versions::read_manifest(store, other, version).await? else {
            continue;
        };
        let manifest = manifest.value;
        take(survey, slot, &manifest, &manifest.held, &mut commits);
        for part in manifest.parts.iter().filter(|part| !survey.is_unreadable(other, &part.name)) {
            let content = versions::read_part(store, other, part).await?;
            take(survey, slot, &manifest, &content.facts, &mut commits);
        }
    }
    Ok(commits.into_values().collect())
}

/// Whether a fact may be in both slots. Pure.
fn may_share(other: TimeSlot, slot: TimeSlot) -> bool {
    match (other, slot) {
        (TimeSlot::Hour(other), TimeSlot::Hour(slot)) => {
            other != slot && other.0.saturating_sub(slot.0).saturating_abs() <= HOURS
        }
        // A segment with secrets is in its hours and wide.
        (TimeSlot::Wide, TimeSlot::Hour(_)) | (TimeSlot::Hour(_), TimeSlot::Wide) => true,
        (TimeSlot::Wide, TimeSlot::Wide) => false,
    }
}

/// Collects the facts about a slot.
fn take(
    survey: &Survey,
    slot: TimeSlot,
    manifest: &Manifest,
    facts: &Facts,
    commits: &mut BTreeMap<CommitId, SlotCommit>,
) {
    let hashes: BTreeMap<(u32, u64), &String> =
        facts.commits.iter().map(|of| ((of.by, of.seq), &of.fact)).collect();
    for of in facts.facts.iter().filter(|of| of.fact.slots().contains(&slot)) {
        let (Some(contributor), Some(sha256)) =
            (manifest.owner(of.by), hashes.get(&(of.by, of.seq)))
        else {
            continue;
        };
        let id = CommitId { of: contributor.of(), seq: of.seq };
        if !survey.is_removed(&id) || survey.is_present(slot, &id) {
            continue;
        }
        let commit = commits.entry(id).or_insert_with(|| SlotCommit {
            of: id.of,
            admitted: contributor.admitted,
            info: contributor.info.clone(),
            seq: id.seq,
            sha256: (*sha256).clone(),
            facts: Vec::new(),
        });
        // Several slots may have it.
        if !commit.facts.contains(&of.fact) {
            commit.facts.push(of.fact.clone());
        }
    }
}
