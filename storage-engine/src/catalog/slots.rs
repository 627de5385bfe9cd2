//! A cache of manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use capstan_model::failure::with_causes;
use capstan_model::{Failure, HOUR_NANOS, Hour, Time, TimeRange};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use tokio::sync::OnceCell;

use super::commit_id::CommitId;
use super::fact::Holds;
use super::facts::Facts;
use super::gap::{About, Gap, GapKind};
use super::manifest::Manifest;
use super::part::Part;
use super::root::Root;
use super::slot::TimeSlot;
use super::state::KnownFact;
use super::versions;
use super::window::{Asked, Window};
use crate::catalog::names;
use crate::store::Store;

/// Requests in flight.
const AT_ONCE: usize = 32;

/// Maximum number of cached facts, about a kilobyte each.
const KEPT: u64 = 65_536;

/// Maximum number of hours of one day that are listed one by one; beyond that the whole day is listed.
const HOURS_LISTED: usize = 3;

/// Maximum number of days that are listed one by one; beyond that, existing days are listed first.
const DAYS_ASKED: i64 = 3;

/// Number of older manifests that are tried when the newest ones are damaged.
const OLDER: u64 = 4;

/// The cache, by slot; see the module.
#[derive(Debug, Default)]
pub(super) struct Slots {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    slots: BTreeMap<TimeSlot, CachedManifest>,
    /// Number of cached facts.
    facts: u64,
    uses: u64,
}

/// A cached manifest.
#[derive(Debug)]
struct CachedManifest {
    read: Arc<Read>,
    /// It was the newest manifest as of this version of the root.
    as_of: u64,
    /// Last use, as a counter.
    used: u64,
}

/// A manifest with those of its parts that were loaded so far.
#[derive(Debug)]
pub(super) struct Read {
    manifest: Manifest,
    held: Loaded,
    parts: BTreeMap<String, OnceCell<Arc<Loaded>>>,
    /// Number of facts in it and all its parts.
    facts: u64,
    /// Facts that it lacks because of a fault.
    gap: Option<Gap>,
}

/// Facts in the form for readers.
#[derive(Debug, Default)]
struct Loaded {
    /// Each fact with the index of its contributor.
    facts: Vec<(u32, KnownFact)>,
    gap: Option<Gap>,
}

/// A manifest and the parts of it that a query needs.
#[derive(Debug)]
pub(super) struct Chosen {
    read: Arc<Read>,
    parts: Vec<Arc<Loaded>>,
    /// Segments in skipped parts.
    pruned_by_manifest: u64,
}

impl Slots {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // The data is valid between statements, so a poisoned lock may be used.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requested manifests, as of a root or newer. `is_patched`: the root stands in for unreadable newer ones and
    /// names only the manifest versions of an older root.
    pub(super) async fn read(
        &self,
        store: &Store,
        root: &Root,
        is_patched: bool,
        asked: Asked<'_>,
    ) -> Result<Vec<Chosen>, Failure> {
        if root.version == 0 {
            return Ok(Vec::new());
        }
        let range = asked.range;
        let mut chosen = Vec::new();
        let mut missing: Vec<(TimeSlot, u64)> = Vec::new();
        let mut listed: BTreeSet<Hour> = BTreeSet::new();
        for slot in wanted(store, root, range).await? {
            let named = root.slot(slot);
            let exact = named.filter(|_| !is_patched || slot == TimeSlot::Wide);
            match (self.fresh(root, slot, exact), exact, slot) {
                (Some(read), ..) => chosen.push(read),
                (None, Some(version), _) => missing.push((slot, version)),
                (None, None, TimeSlot::Hour(hour)) => {
                    listed.insert(hour);
                }
                // The root always names the wide manifest, if there is one.
                (None, None, TimeSlot::Wide) => {}
            }
        }
        let there = list(store, &listed).await?;
        for hour in listed {
            let slot = TimeSlot::Hour(hour);
            let newest = there.get(&slot).copied().max(root.slot(slot));
            match newest {
                Some(version) => missing.push((slot, version)),
                None if root.has_hour(hour) => {
                    chosen.push(Arc::new(Read::gone(slot)));
                }
                None => {}
            }
        }
        let mut read = stream::iter(missing)
            .map(|(slot, version)| read(store, slot, version))
            .buffered(AT_ONCE);
        while let Some(read) = read.try_next().await? {
            let read = Arc::new(read);
            self.keep(root, Arc::clone(&read));
            chosen.push(read);
        }
        drop(read);
        stream::iter(chosen)
            .map(|read| choose(store, read, asked))
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }

    /// The cached manifest of a slot, unless it is older than the root. The root may name its version.
    fn fresh(&self, root: &Root, slot: TimeSlot, named: Option<u64>) -> Option<Arc<Read>> {
        let mut kept = self.kept();
        kept.uses += 1;
        let now = kept.uses;
        let found = kept.slots.get_mut(&slot)?;
        let fresh = match named {
            Some(version) => found.read.manifest.version >= version,
            None => found.as_of >= root.unnamed_since,
        };
        found.used = now;
        fresh.then(|| Arc::clone(&found.read))
    }

    /// Adds a manifest to the cache and evicts others.
    fn keep(&self, root: &Root, read: Arc<Read>) {
        let mut kept = self.kept();
        kept.uses += 1;
        let (slot, weight) = (read.manifest.slot, read.weight());
        let known = CachedManifest { read, as_of: root.version, used: kept.uses };
        let before = kept.slots.insert(slot, known).map_or(0, |of| of.read.weight());
        kept.facts = kept.facts + weight - before;
        while kept.facts > KEPT && kept.slots.len() > 1 {
            let oldest = kept.slots.iter().min_by_key(|(_, of)| of.used).map(|(slot, _)| *slot);
            let Some(gone) = oldest.and_then(|oldest| kept.slots.remove(&oldest)) else { break };
            kept.facts -= gone.read.weight();
        }
    }
}

/// The slots that a query may need.
async fn wanted(
    store: &Store,
    root: &Root,
    range: TimeRange,
) -> Result<BTreeSet<TimeSlot>, Failure> {
    let day = |time: Time| time.0.div_euclid(24 * HOUR_NANOS);
    let last = Time(range.end.0.saturating_sub(1)).max(range.start);
    let mut wanted: BTreeSet<TimeSlot> = [TimeSlot::Wide].into();
    if day(last) - day(range.start) < DAYS_ASKED {
        let hours = range.start.hour().0..=last.hour().0;
        wanted.extend(hours.map(|hour| TimeSlot::Hour(Hour(hour))));
        return Ok(wanted);
    }
    // A listing may lag behind the root, and does not show lost objects.
    let named = root.slots.iter().map(|of| of.slot);
    wanted.extend(named.filter(|slot| slot.touches(&range)));
    let of_root = root.hours.iter().flat_map(|of| of.within(range.start.hour(), last.hour()));
    wanted.extend(of_root.map(TimeSlot::Hour));
    if range.is_all() && root.has_hour(Hour::UNKNOWN) {
        wanted.insert(TimeSlot::Hour(Hour::UNKNOWN));
    }
    let (days, _) = store.names_below(&names::catalog()).await?;
    for path in days {
        let Some(day) = path.as_ref().strip_prefix("catalog/") else { continue };
        if let Some(first) = Hour::from_path(&format!("{day}/hour=00")) {
            let hours = (first.0..first.0.saturating_add(24)).map(Hour).map(TimeSlot::Hour);
            wanted.extend(hours.filter(|slot| slot.touches(&range)));
        } else if range.is_all() && format!("{day}/hour=unknown") == Hour::UNKNOWN.path() {
            wanted.insert(TimeSlot::Hour(Hour::UNKNOWN));
        }
    }
    Ok(wanted)
}

/// The newest manifests of those hours that have any.
async fn list(store: &Store, hours: &BTreeSet<Hour>) -> Result<BTreeMap<TimeSlot, u64>, Failure> {
    let mut days: BTreeMap<String, Vec<Hour>> = BTreeMap::new();
    for hour in hours {
        let path = hour.path();
        let day = path.split_once('/').map_or(path.as_str(), |(day, _)| day);
        days.entry(day.to_owned()).or_default().push(*hour);
    }
    let mut prefixes = Vec::new();
    for (day, hours) in days {
        if hours.len() > HOURS_LISTED {
            prefixes.push(names::catalog().join(day));
        } else {
            prefixes.extend(hours.into_iter().map(|hour| names::slot(TimeSlot::Hour(hour))));
        }
    }
    let mut newest: BTreeMap<TimeSlot, u64> = BTreeMap::new();
    let mut listed = stream::iter(prefixes)
        .map(|prefix| async move { store.list(&prefix).try_collect::<Vec<_>>().await })
        .buffered(AT_ONCE);
    while let Some(objects) = listed.try_next().await? {
        for object in objects {
            let Some((slot, version)) = names::parse_manifest(&object.path) else { continue };
            if matches!(slot, TimeSlot::Hour(hour) if hours.contains(&hour)) {
                let known = newest.entry(slot).or_default();
                *known = version.max(*known);
            }
        }
    }
    Ok(newest)
}

/// Reads a manifest. Falls back to a later one if it was removed, and to an earlier one if it is unusable; then its
/// facts are hidden.
async fn read(store: &Store, slot: TimeSlot, version: u64) -> Result<Read, Failure> {
    let mut gap = None;
    let (mut at, mut lowest) = (version, version.saturating_sub(OLDER));
    while at > lowest {
        let failure = match versions::read_manifest(store, slot, at).await {
            Ok(Some(found)) => return Ok(Read::of(found.value, gap)),
            Ok(None) => versions::gone(slot, at),
            Err(failure) => failure,
        };
        let Some(kind) = GapKind::of(&failure) else { return Err(failure) };
        if kind == GapKind::Missing && at == version {
            let newest = versions::listed_manifests(store, slot).await?.pop();
            if let Some((newest, _)) = newest.filter(|(newest, _)| *newest > version) {
                // It was removed, so newer ones exist.
                (at, lowest) = (newest, newest.saturating_sub(OLDER));
                continue;
            }
        }
        let path = names::manifest(slot, at);
        let new = || Gap::new(&path, kind, About::slot(slot), with_causes(&failure));
        gap.get_or_insert_with(new);
        at -= 1;
    }
    Ok(Read::of(Manifest::empty(slot), gap))
}

/// Selects the parts of a manifest that have requested facts.
async fn choose(store: &Store, read: Arc<Read>, asked: Asked<'_>) -> Result<Chosen, Failure> {
    let manifest = &read.manifest;
    // The wide manifest also has segments with secrets, which packets of others may need.
    let segments = manifest.slot == TimeSlot::Wide
        || asked.flows.is_none_or(|flows| manifest.may_match(flows));
    let mut pruned_by_manifest = 0;
    let mut chosen: Vec<Part> = Vec::new();
    for part in manifest.parts(asked.range) {
        match part.holds {
            Holds::Segments if !segments => pruned_by_manifest += part.facts,
            Holds::Statements if !asked.statements => {}
            _ => chosen.push(part.clone()),
        }
    }
    let parts = stream::iter(chosen)
        .map(|part| read.part(store, part))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(Chosen { read, parts, pruned_by_manifest })
}

impl Read {
    fn of(mut manifest: Manifest, gap: Option<Gap>) -> Read {
        let moved = manifest.parts.iter().map(|of| of.facts).sum::<u64>();
        let facts = moved + manifest.held.len() as u64;
        let held = std::mem::take(&mut manifest.held);
        let path = names::manifest(manifest.slot, manifest.version);
        let held = Loaded::of(&manifest, held, &path);
        let parts = manifest.parts.iter().map(|of| (of.name.clone(), OnceCell::new())).collect();
        Read { manifest, held, parts, facts, gap }
    }

    /// Stands in for a manifest that existed and is gone.
    fn gone(slot: TimeSlot) -> Read {
        let path = names::slot(slot);
        let what = format!("{path} is missing: its manifest has no version");
        let gap = Gap::new(&path, GapKind::Missing, About::slot(slot), what);
        Read::of(Manifest::empty(slot), Some(gap))
    }

    /// Its weight in the cache: its facts, and a constant.
    fn weight(&self) -> u64 {
        self.facts.saturating_add(1)
    }

    /// The facts of a part, loaded once. An unusable part has no facts, and records a gap.
    async fn part(&self, store: &Store, part: Part) -> Result<Arc<Loaded>, Failure> {
        let slot = self.manifest.slot;
        let path = names::part(slot, &part.name);
        let load = || async {
            let failure = match versions::read_part(store, slot, &part).await {
                Ok(content) => {
                    return Ok(Arc::new(Loaded::of(&self.manifest, content.facts, &path)));
                }
                Err(failure) => failure,
            };
            let Some(kind) = GapKind::of(&failure) else { return Err(failure) };
            let times = |(first, last): (Time, Time)| {
                About::Times(TimeRange { start: first, end: Time(last.0.saturating_add(1)) })
            };
            let about = part.span.map_or(About::slot(slot), times);
            let what = format!("{}; it hides {} facts", with_causes(&failure), part.facts);
            let gap = Some(Gap::new(&path, kind, about, what));
            Ok(Arc::new(Loaded { gap, ..Loaded::default() }))
        };
        match self.parts.get(&part.name) {
            Some(cell) => cell.get_or_try_init(load).await.cloned(),
            None => load().await,
        }
    }
}

impl Loaded {
    /// Converts facts from one object of a manifest.
    fn of(manifest: &Manifest, facts: Facts, path: &Path) -> Loaded {
        let hidden = facts.contributors().filter(|by| manifest.owner(*by).is_none()).count();
        let known = facts.facts.into_iter().filter_map(|of| {
            let commit = CommitId { of: manifest.owner(of.by)?.of(), seq: of.seq };
            Some((of.by, KnownFact::of(commit, of.fact)?))
        });
        Loaded {
            facts: known.collect(),
            gap: (hidden > 0).then(|| {
                let what = format!("{path} lacks the contributors of {hidden} of its facts");
                Gap::new(path, GapKind::Damaged, About::slot(manifest.slot), what)
            }),
        }
    }
}

impl Chosen {
    /// Adds the requested facts that a root covers to a window. Commits in `replaced` no longer count.
    pub(super) fn take(
        &self,
        root: &Root,
        replaced: &BTreeSet<CommitId>,
        asked: Asked<'_>,
        window: &mut Window,
    ) {
        let (manifest, range) = (&self.read.manifest, asked.range);
        window.pruned_by_manifest += self.pruned_by_manifest;
        let known: Vec<u64> =
            manifest.contributors.iter().map(|contributor| root.known(contributor)).collect();
        for contributor in &manifest.contributors {
            let of = contributor.of();
            window.writers.entry(of).or_insert_with(|| contributor.info.clone());
            if contributor.admitted > root.version {
                window.newcomers.insert(of, contributor.admitted);
            }
        }
        window.add_gap(self.read.gap.as_ref(), &range);
        for loaded in self.parts.iter().map(|part| &**part).chain([&self.read.held]) {
            window.add_gap(loaded.gap.as_ref(), &range);
            for (by, fact) in &loaded.facts {
                let commit = fact.commit();
                let is_known = known.get(*by as usize).is_some_and(|known| commit.seq < *known);
                if is_known && !replaced.contains(&commit) {
                    window.take(fact, asked);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
