//! A survey of a catalog, readable or not.
//!
//! Memory use is a few bytes per commit, and about a kilobyte per generation and per slot.

mod checkpoints;
mod kinds;
mod logs;
mod row;
mod slots;
mod truncated;

use std::collections::{BTreeMap, BTreeSet};

use capstan_model::{Failure, GenerationId};
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use self::checkpoints::BadCheckpoint;
pub(super) use self::kinds::Kinds;
use self::row::{Row, sound};
use self::slots::SlotSurvey;
use super::named::NamedSegments;
use crate::catalog::facts::slots_of;
use crate::catalog::names;
use crate::catalog::root::Root;
use crate::catalog::sums::Sums;
use crate::catalog::versions;
use crate::catalog::walk::{Walked, walk};
use crate::catalog::{CommitId, GenerationState, Segment, TimeSlot};
use crate::store::Store;

/// Hours at this distance are taken to share facts. A fact may touch a few hours that are further apart.
const NEAR: u32 = 24;

/// Numbers of commits, by generation.
pub(super) type Commits = BTreeMap<GenerationId, RoaringTreemap>;

/// The state of the catalog.
#[derive(Debug)]
pub(super) struct Survey {
    /// The state of all logs.
    pub(super) logs: Walked,
    /// Commits with facts about a slot, according to the logs.
    logged: BTreeMap<TimeSlot, Commits>,
    pub(super) roots: Row<Root>,
    pub(super) slots: BTreeMap<TimeSlot, SlotSurvey>,
    /// Ended generations; none where the object is unreadable.
    pub(super) generations: BTreeMap<GenerationId, Option<GenerationState>>,
    /// Logs with an open mark.
    pub(super) open: BTreeSet<GenerationId>,
    /// Boundaries; none where the object is unreadable.
    pub(super) boundaries: BTreeMap<u64, Option<u64>>,
    /// The version of the root that admitted each generation, according to manifests.
    pub(super) admitted: BTreeMap<GenerationId, u64>,
    /// Segments that logs or manifests name.
    pub(super) named: NamedSegments,
    /// Segments that changed commits name: readers trust them until these commits are rolled up.
    pub(super) named_by_changed: Vec<Segment>,
    /// Versions of manifests that the newest readable root names. Also, for hours whose manifest is gone and that the
    /// root does not name: a version that is not lower than the lost one.
    pub(super) named_versions: BTreeMap<TimeSlot, u64>,
    /// Number of commits of a generation that manifests count.
    counted: BTreeMap<GenerationId, u64>,
    /// The kind of each writer and the generation that it continues, from logs, manifests, roots and ended
    /// generations.
    pub(super) kinds: Kinds,
    /// Commits with wrong checksums, and the SHA-256 of their current bytes.
    changed: BTreeMap<CommitId, String>,
    /// Those of them that were rolled up with these bytes.
    rolled_up_changed: BTreeSet<CommitId>,
    /// Generations that committed during the survey: their logs are longer than surveyed.
    grown: BTreeSet<GenerationId>,
    /// Checkpoints that are unreadable or lost.
    pub(super) bad_checkpoints: BTreeMap<GenerationId, BadCheckpoint>,
    /// What manifests have of the commits of truncated logs.
    sums: Sums,
    /// Slots that share facts, beside those within a day of each other: the manifests of the second ones have facts of the
    /// first one, too.
    far: BTreeMap<TimeSlot, BTreeSet<TimeSlot>>,
}

impl Survey {
    /// Reads the whole catalog.
    ///
    /// # Errors
    /// Errors of the store; of kind `TooNew` if a newer version wrote any object: a repair must not touch it then.
    pub(super) async fn take(store: &Store) -> Result<Survey, Failure> {
        let mut named = NamedSegments::new()?;
        let mut logged = BTreeMap::<TimeSlot, Commits>::new();
        let mut named_by_changed = Vec::new();
        let logs = walk(store, |met| {
            let (id, content) = (met.id, met.commit.content);
            if met.is_changed {
                let segments = content.segments().cloned();
                named_by_changed.extend(segments.map(|entry| Segment::of(id, entry)));
                return Ok(());
            }
            for slot in slots_of(&content.facts) {
                let commits = logged.entry(slot).or_default();
                commits.entry(id.of).or_default().insert(id.seq);
            }
            content.facts.into_iter().try_for_each(|fact| named.take(id, fact))
        })
        .await?;
        let (mut roots, mut generations, mut slots) =
            (BTreeSet::new(), BTreeSet::new(), BTreeMap::<TimeSlot, BTreeSet<u64>>::new());
        let mut listed = store.list(&names::catalog());
        while let Some(object) = listed.try_next().await? {
            roots.extend(names::parse_root(&object.path));
            generations.extend(names::parse_ended(&object.path));
            if let Some((slot, version)) = names::parse_manifest(&object.path) {
                slots.entry(slot).or_default().insert(version);
            }
        }
        drop(listed);
        let read = |version| versions::read_root(store, version);
        let mut survey = Survey {
            logs,
            logged,
            roots: Row::read(store, roots, names::root, read).await?.map(|root| root),
            slots: BTreeMap::new(),
            generations: BTreeMap::new(),
            open: BTreeSet::new(),
            boundaries: BTreeMap::new(),
            admitted: BTreeMap::new(),
            named,
            named_by_changed,
            named_versions: BTreeMap::new(),
            counted: BTreeMap::new(),
            kinds: Kinds::default(),
            changed: BTreeMap::new(),
            rolled_up_changed: BTreeSet::new(),
            grown: BTreeSet::new(),
            bad_checkpoints: BTreeMap::new(),
            sums: Sums::default(),
            far: BTreeMap::new(),
        };
        for of in generations {
            let state = sound(versions::read_ended(store, of).await)?;
            survey.generations.insert(of, state);
        }
        if let Some(root) = &survey.roots.readable {
            survey.named_versions = root.slots.iter().map(|of| (of.slot, of.version)).collect();
            let gone = root.hours().map(TimeSlot::Hour).filter(|slot| !slots.contains_key(slot));
            // Each root adds at most one version to a slot.
            for slot in gone {
                survey.named_versions.entry(slot).or_insert(root.version);
            }
        }
        survey.take_kinds();
        survey.take_changed(store).await?;
        let cut = survey.take_checkpoints(store).await?;
        survey.sums = Sums::of(&survey.logs.truncated);
        cut.iter().for_each(|(missing, seq)| survey.sums.add_log(missing.of, *seq));
        for (slot, there) in slots {
            survey.take_slot(store, slot, there).await?;
        }
        survey.rebuild_checkpoints(store, cut).await?;
        let open: Vec<_> = store.list(&names::open_logs()).try_collect().await?;
        survey.open = open.iter().filter_map(|object| names::parse_open(&object.path)).collect();
        let boundaries: Vec<_> = store.list(&names::boundaries()).try_collect().await?;
        for number in boundaries.iter().filter_map(|object| names::parse_boundary(&object.path)) {
            let below = sound(versions::read_boundary(store, number).await)?;
            survey.boundaries.insert(number, below);
        }
        survey.find_grown_logs(store).await?;
        Ok(survey)
    }

    /// The highest boundary; 0 if there is none.
    pub(super) fn boundary(&self) -> u64 {
        self.boundaries.keys().max().copied().unwrap_or(0)
    }

    /// Whether all rolled-up objects are readable: a root exists, every manifest that it names exists, and none is
    /// damaged.
    pub(super) fn is_sound(&self) -> bool {
        self.roots.readable.is_some()
            && self.slots.values().all(|found| !found.is_damaged())
            && self.named_versions.iter().all(|(slot, version)| self.newest(*slot) >= *version)
    }
}
