//! Checks the rolled-up catalog: each object, the sequence of versions, and their facts against the logs. It goes
//! slot by slot and keeps only one slot in memory.

use std::collections::{BTreeMap, BTreeSet};

use capstan_model::words::count;
use capstan_model::{Failure, FailureKind, GenerationId, Hour};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use super::finding::{Finding, Severity, What};
use crate::catalog::by_slot::Logged;
use crate::catalog::facts::Facts;
use crate::catalog::manifest::Manifest;
use crate::catalog::names;
use crate::catalog::root::Root;
use crate::catalog::state::KnownFact;
use crate::catalog::versions::{self, Versioned};
use crate::catalog::{Attributed, CommitId, Fact, Gap, GenerationState, TimeSlot};
use crate::store::{Listed, Store, is_store_gone};

/// Objects that are read at a time.
const AT_ONCE: usize = 16;

/// The identity of a fact: its commit, and [`Fact::identity`].
type Said = (CommitId, String);

/// State of the check of the rolled-up catalog.
#[derive(Debug, Default)]
pub(super) struct RolledUp {
    pub(super) findings: Vec<Finding>,
    /// Number of its objects.
    pub(super) objects: u64,
    /// Folders with manifests: the wide slot, and days.
    pub(super) folders: Vec<Path>,
    /// Number of commits of each log whose facts are all present.
    known: BTreeMap<GenerationId, u64>,
    /// Logs with an open mark.
    open: BTreeSet<GenerationId>,
    /// Commits that were unreadable when they were rolled up.
    hidden: BTreeSet<CommitId>,
    newest: Option<Root>,
}

/// The objects of some slots.
#[derive(Debug, Default)]
pub(super) struct Listing {
    manifests: BTreeMap<TimeSlot, BTreeSet<u64>>,
    parts: BTreeMap<(TimeSlot, String), Listed>,
}

impl Listing {
    /// The slots that have objects.
    pub(super) fn slots(&self) -> impl Iterator<Item = TimeSlot> {
        let parts = self.parts.keys().map(|(slot, _)| *slot);
        self.manifests.keys().copied().chain(parts)
    }
}

impl RolledUp {
    /// Reads all objects outside slots.
    ///
    /// # Errors
    /// Errors of the store.
    pub(super) async fn read(store: &Store) -> Result<RolledUp, Failure> {
        let mut rolled_up = RolledUp::default();
        let (folders, objects) = store.names_below(&names::catalog()).await?;
        let of_slot = |folder: &Path| {
            let name = folder.as_ref().strip_prefix("catalog/").unwrap_or_default();
            name == "wide" || name.starts_with("date=")
        };
        let (slots, rows) = folders.into_iter().partition(of_slot);
        rolled_up.folders = slots;
        let prefixes = rows.into_iter().chain([names::open_logs(), names::boundaries()]);
        let above = stream::iter(objects.into_iter().map(Ok));
        let mut listed = above.chain(stream::iter(prefixes).flat_map(|of| store.list(&of))).boxed();
        let mut roots = BTreeMap::new();
        while let Some(Listed { path, .. }) = listed.try_next().await? {
            rolled_up.objects += 1;
            if let Some(version) = names::parse_root(&path) {
                let read = rolled_up.take(&path, versions::read_root(store, version).await)?;
                roots.extend(read.map(|root| (version, root)));
            } else if let Some(of) = names::parse_ended(&path) {
                let read = versions::read_ended(store, of).await;
                let state = rolled_up.take(&path, read)?;
                rolled_up.known.extend(state.map(|state| (state.id(), state.chain().next())));
            } else if let Some(number) = names::parse_boundary(&path) {
                rolled_up.take(&path, versions::read_boundary(store, number).await)?;
            } else if let Some(owner) = names::parse_open(&path) {
                rolled_up.open.insert(owner);
            } else {
                rolled_up.foreign(&path);
            }
        }
        drop(listed);
        follow(&mut rolled_up, &roots, names::root, |root| &root.previous);
        rolled_up.newest = roots.pop_last().map(|(_, root)| root.value);
        for log in rolled_up.newest.iter().flat_map(|root| &root.logs) {
            rolled_up.known.insert(log.state.id(), log.state.chain().next());
        }
        let hidden: Vec<Gap> = rolled_up.newest.iter().flat_map(Root::hidden).collect();
        rolled_up.hidden = hidden.iter().filter_map(Gap::commit).collect();
        // Unreadable commits are found in the logs.
        for gap in hidden.into_iter().filter(|gap| gap.commit().is_none()) {
            let what = What::Catalog { problem: gap.what, severity: Severity::Lost };
            rolled_up.findings.push(Finding { object: gap.object, what });
        }
        Ok(rolled_up)
    }

    /// Lists the objects below one of the folders.
    ///
    /// # Errors
    /// Errors of the store.
    pub(super) async fn list(&mut self, store: &Store, folder: &Path) -> Result<Listing, Failure> {
        let mut listing = Listing::default();
        let mut listed = store.list(folder);
        while let Some(object) = listed.try_next().await? {
            self.objects += 1;
            if let Some((slot, version)) = names::parse_manifest(&object.path) {
                listing.manifests.entry(slot).or_default().insert(version);
            } else if let Some(part) = names::parse_part(&object.path) {
                listing.parts.insert(part, object);
            } else {
                self.foreign(&object.path);
            }
        }
        Ok(listing)
    }

    /// Whether the facts of a commit are rolled up, so that the commit object itself is not required.
    pub(super) fn has(&self, commit: &CommitId) -> bool {
        let known = self.known.get(&commit.of);
        known.is_some_and(|known| commit.seq < *known) && !self.hidden.contains(commit)
    }

    /// Whether facts of manifests are lost for good, or may be.
    pub(super) fn lacks_facts(&self) -> bool {
        self.newest.as_ref().is_none_or(Root::lacks_facts)
    }

    /// The hours that should have a manifest.
    pub(super) fn hours(&self) -> impl Iterator<Item = Hour> + '_ {
        self.newest.iter().flat_map(Root::hours)
    }

    /// Compares the generations of the logs with the stored ones. If the last commits of a log are gone, nothing is
    /// missing as long as they are rolled up. Logs are read before the rest of the catalog, so some may have grown
    /// meanwhile.
    ///
    /// # Errors
    /// Errors of the store.
    pub(super) async fn check_generations<'a>(
        &mut self,
        store: &Store,
        generations: impl IntoIterator<Item = &'a GenerationState>,
    ) -> Result<(), Failure> {
        for state in generations {
            let of = state.id();
            let Some(known) = self.known.get(&state.id()).copied() else {
                // Readers look for a log only after its first commit.
                if state.commits() > 0 && !self.open.contains(&state.id()) {
                    let what = "it is missing, and its log has no other reference".to_owned();
                    self.add(&names::ended_generation(of), what, Severity::Damaged);
                }
                continue;
            };
            let there = state.commits();
            if there < known {
                let first = names::commit(of, there);
                if store.head(&first).await?.is_some() {
                    continue;
                }
                let what = match known - there {
                    1 => "it is missing; its facts are rolled up, so nothing is lost".to_owned(),
                    many => format!(
                        "it and the next {} are missing; their facts are rolled up, so nothing is lost",
                        count(many - 1, "commit")
                    ),
                };
                self.add(&first, what, Severity::Note);
            }
        }
        Ok(())
    }

    fn foreign(&mut self, path: &Path) {
        self.findings.push(Finding { object: path.to_string(), what: What::Foreign });
    }

    fn add(&mut self, object: &Path, problem: String, severity: Severity) {
        let object = object.to_string();
        let what = What::Catalog { problem: format!("{object}: {problem}"), severity };
        self.findings.push(Finding { object, what });
    }

    /// Handles an object that was read; none if it is unreadable.
    fn take<T>(
        &mut self,
        path: &Path,
        read: Result<Option<T>, Failure>,
    ) -> Result<Option<T>, Failure> {
        match read {
            Ok(Some(value)) => Ok(Some(value)),
            // It was removed after it was listed.
            Ok(None) => Ok(None),
            Err(failure) => {
                let severity = match failure.kind() {
                    FailureKind::Damaged => Severity::Damaged,
                    FailureKind::TooNew => Severity::TooNew,
                    _ => return Err(failure),
                };
                let cause = std::error::Error::source(&failure);
                let why = cause.map_or_else(|| failure.to_string(), ToString::to_string);
                self.add(path, why, severity);
                Ok(None)
            }
        }
    }

    /// Checks the manifests of a slot, and the newest one against the logs; returns its facts.
    ///
    /// # Errors
    /// Errors of the store.
    pub(super) async fn check_slot(
        &mut self,
        store: &Store,
        slot: TimeSlot,
        listing: &mut Listing,
        logged: &[Logged],
    ) -> Result<Vec<KnownFact>, Failure> {
        let mut expected = self.expected(logged);
        let mut found = Vec::new();
        let Some(there) = listing.manifests.remove(&slot) else {
            let has = |hour| self.newest.as_ref().is_some_and(|root| root.has_hour(hour));
            let is_known = matches!(slot, TimeSlot::Hour(hour) if has(hour));
            if is_known || !expected.is_empty() {
                let what = match expected.len() as u64 {
                    0 => "it is missing, as are all versions after it".to_owned(),
                    facts => format!("it is missing; it hides {}", count(facts, "fact")),
                };
                self.add(&names::manifest(slot, 1), what, Severity::Damaged);
            }
            self.orphans(store, slot, listing);
            return Ok(found);
        };
        let mut read = BTreeMap::new();
        let mut reading =
            stream::iter(there)
                .map(|version| async move {
                    (version, versions::read_manifest(store, slot, version).await)
                })
                .buffered(AT_ONCE);
        while let Some((version, manifest)) = reading.next().await {
            let manifest = self.take(&names::manifest(slot, version), manifest)?;
            read.extend(manifest.map(|manifest| (version, manifest)));
        }
        drop(reading);
        follow(self, &read, |version| names::manifest(slot, version), |of| &of.previous);
        // Faults of each version are reported.
        let Some((version, newest)) = read.pop_last() else {
            self.orphans(store, slot, listing);
            return Ok(found);
        };
        let path = names::manifest(slot, version);
        if self.newest.as_ref().and_then(|root| root.slot(slot)).is_some_and(|of| of > version) {
            let what = "the root names a newer version, which is unreadable".to_owned();
            self.add(&path, what, Severity::Damaged);
        }
        // Older versions name some of the parts, too.
        for part in read.values().flat_map(|older| &older.value.parts) {
            listing.parts.remove(&(slot, part.name.clone()));
        }
        let manifest = newest.value;
        take_facts(&manifest, &manifest.held, &mut expected, &mut found);
        for part in &manifest.parts {
            listing.parts.remove(&(slot, part.name.clone()));
            let path = names::part(slot, &part.name);
            match versions::read_part(store, slot, part).await {
                Ok(content) => {
                    if !manifest.includes(part.holds, &content.facts) {
                        let what = "its address filter lacks addresses of its segments: queries \
                                    would prune segments wrongly";
                        self.add(&path, what.to_owned(), Severity::Damaged);
                    }
                    take_facts(&manifest, &content.facts, &mut expected, &mut found);
                }
                Err(failure)
                    if failure.kind() == FailureKind::NotFound && !is_store_gone(&failure) =>
                {
                    self.add(&path, "it is missing".to_owned(), Severity::Damaged);
                }
                Err(failure) => {
                    self.take::<()>(&path, Err(failure))?;
                }
            }
        }
        if let Some(((CommitId { of, seq }, _), fact)) = expected.first_key_value() {
            let commit = names::commit(*of, *seq);
            let many = expected.len() as u64;
            let what = format!(
                "it lacks {} of rolled-up commits, such as '{fact}' of {commit}",
                count(many, "fact"),
            );
            self.add(&path, what, Severity::Damaged);
        }
        self.orphans(store, slot, listing);
        Ok(found)
    }

    /// The facts that a manifest must have according to the logs: facts of rolled-up commits.
    fn expected<'a>(&self, logged: &'a [Logged]) -> BTreeMap<Said, &'a Fact> {
        let mut expected = BTreeMap::new();
        for Logged { by, facts, only_objects, .. } in logged {
            if !*only_objects && self.has(by) {
                expected.extend(facts.iter().map(|fact| ((*by, fact.identity()), fact)));
            }
        }
        expected
    }

    /// Orphan parts. A rollup may be about to name them.
    fn orphans(&mut self, store: &Store, slot: TimeSlot, listing: &mut Listing) {
        let of_slot = |(of, _): &(TimeSlot, String), _: &mut Listed| *of == slot;
        self.findings.extend(listing.parts.extract_if(.., of_slot).map(|(_, part)| {
            let young = store.now() < part.modified.saturating_add(super::listing::YOUNG);
            let what = What::Orphan { bytes: part.bytes, young };
            Finding { object: part.path.to_string(), what }
        }));
    }
}

/// Compares versions with the hashes in their successors.
fn follow<T>(
    rolled_up: &mut RolledUp,
    versions: &BTreeMap<u64, Versioned<T>>,
    name: impl Fn(u64) -> Path,
    previous: impl Fn(&T) -> &str,
) {
    for ((before, then), (version, now)) in versions.iter().zip(versions.iter().skip(1)) {
        if *version != before + 1 || previous(&now.value) == then.sha256 {
            continue;
        }
        let path = name(*version);
        let what = "it or the version before it was changed: the hash of the predecessor differs"
            .to_owned();
        rolled_up.add(&path, what, Severity::Damaged);
    }
}

/// Removes found facts from the expected ones, and collects the segments.
fn take_facts(
    manifest: &Manifest,
    facts: &Facts,
    expected: &mut BTreeMap<Said, &Fact>,
    found: &mut Vec<KnownFact>,
) {
    for Attributed { by, seq, fact } in &facts.facts {
        let Some(contributor) = manifest.owner(*by) else { continue };
        let commit = CommitId { of: contributor.of(), seq: *seq };
        expected.remove(&(commit, fact.identity()));
        found.extend(KnownFact::of(commit, fact.clone()));
    }
}
