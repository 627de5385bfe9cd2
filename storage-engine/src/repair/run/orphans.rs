//! Goes through the segments of the store hour by hour, and names orphans again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use capstan_model::{Failure, GenerationId, Hour};
use futures::TryStreamExt;

use super::Repair;
use super::verdict::{Adopted, Verdict, owner_of};
use crate::catalog::names;
use crate::catalog::{CommitId, Gap};
use crate::repair::action::{Action, Watch};
use crate::repair::adopt::Stray;
use crate::repair::doubt::{Doubtful, logs};
use crate::repair::log::RepairLog;
use crate::repair::survey::Survey;
use crate::segment::{Layer, Layers};
use crate::store::{Listed, Store};
use crate::verify::run::hours_with_data;

impl<W: Watch> Repair<'_, W> {
    /// Names orphan segments where needed; returns whether there were any. `lost`: what hides facts of truncated
    /// commits.
    pub(super) async fn adopt(
        &mut self,
        survey: Survey,
        doubtful: &Doubtful,
        lost: Vec<Gap>,
    ) -> Result<bool, Failure> {
        let logs = logs(&survey, doubtful, &lost);
        let truncated: BTreeSet<GenerationId> = survey.logs.truncated.keys().copied().collect();
        let Survey { mut named, named_by_changed, kinds, .. } = survey;
        for of in &named_by_changed {
            if doubtful.contains_key(&of.by) {
                named.add(of)?;
            }
        }
        let mut hours = hours_with_data(self.store).await?;
        hours.extend(named.hours());
        self.watch.begin("looking for orphan segments", hours.len() as u64);
        let (mut log, mut left) = (RepairLog::new(self.store, self.options), BTreeSet::new());
        // Segments that a commit in doubt names: readers find them there while it counts.
        let mut pending: Vec<(CommitId, Box<Adopted>)> = Vec::new();
        for hour in hours {
            if self.watch.is_stopped() {
                self.report.stopped = true;
                break;
            }
            let (mut sure, mut in_doubt) = (BTreeMap::new(), BTreeMap::new());
            for of in named.of_hour(hour)? {
                match doubtful.contains_key(&of.by) {
                    true => drop(in_doubt.insert(of.segment, of.by)),
                    false => drop(sure.insert(of.segment, of.layers)),
                };
            }
            let mut there = segments_in(self.store, hour).await?;
            let retired = named.retired_in(hour)?;
            for (segment, mut layers) in sure {
                let objects = there.remove(&segment).unwrap_or_default();
                // Retired layers may be deleted already.
                if let Some(retired) = retired.get(&segment) {
                    layers.retain(|(layer, _)| !retired.contains(layer));
                }
                self.check_named(hour, segment, &layers, &objects);
            }
            // Readers ignore a segment with a retired index, so it is not named again.
            for (segment, layers) in &retired {
                if layers.contains(Layer::Index.name()) {
                    there.remove(segment);
                }
            }
            let strays = there.into_iter().map(|(name, objects)| Stray { name, hour, objects });
            let mut strays: Vec<Stray> = strays.collect();
            // Of two segments with the same packets the first is named: a committed one first, then the larger one.
            strays.sort_by_key(|of| (!in_doubt.contains_key(&of.name), Reverse(of.bytes())));
            for stray in strays {
                let by = in_doubt.get(&stray.name).copied();
                let judged = self.judge(&stray, by.is_some(), &kinds, &logs, &mut named, doubtful);
                match (judged.await?, by) {
                    (Verdict::Adopted(adopted), None) => {
                        self.did(adopted.action());
                        log.name(adopted.entry).await?;
                    }
                    (Verdict::Adopted(adopted), Some(commit)) => pending.push((commit, adopted)),
                    (Verdict::Left, _) => left.extend(owner_of(&stray.name)),
                    (Verdict::Waste, _) => {}
                }
            }
            named.unload();
            self.watch.step();
        }
        let replaced = match self.report.stopped {
            true => BTreeMap::new(),
            false => self.replaced(doubtful, &left),
        };
        // A commit that is not replaced still counts: readers find its segments in it.
        pending.retain(|(commit, _)| replaced.contains_key(commit));
        pending.iter().for_each(|(_, adopted)| self.did(adopted.action()));
        let in_doubt = pending.into_iter().map(|(_, adopted)| adopted.entry);
        let mut replaced: Vec<String> = replaced.into_values().collect();
        if !self.report.stopped {
            replaced.extend(self.given_up(lost, left.is_disjoint(&truncated)));
        }
        log.end(in_doubt, replaced).await
    }

    /// Reports named segments with layers that are missing or have another length.
    fn check_named(
        &mut self,
        hour: Hour,
        segment: String,
        layers: &[(String, u64)],
        there: &[Listed],
    ) {
        let is_gone = |(name, bytes): &(String, u64)| {
            let layer = Layers::KNOWN.named(name)?;
            let path = names::layer(hour, &segment, layer.file());
            let is_it = |object: &Listed| object.path == path && object.bytes == *bytes;
            (!there.iter().any(is_it)).then_some(layer.name())
        };
        let missing: Vec<_> = layers.iter().filter_map(is_gone).collect();
        if !missing.is_empty() {
            self.did(Action::Incomplete { segment, missing });
        }
    }

    /// The commits that no longer count: all orphan segments of their generations were judged, and none was left that
    /// may still be named.
    fn replaced(
        &mut self,
        doubtful: &Doubtful,
        left: &BTreeSet<GenerationId>,
    ) -> BTreeMap<CommitId, String> {
        let mut replaced = BTreeMap::new();
        for (commit, gap) in doubtful {
            let object = gap.object.clone();
            if left.contains(&commit.of) {
                self.did(Action::Unresolved(object));
            } else {
                self.did(Action::Replaced(object.clone()));
                replaced.insert(*commit, object);
            }
        }
        replaced
    }

    /// The lost objects with facts of truncated commits that no longer count, if all segments are named again that
    /// they may have named.
    fn given_up(&mut self, lost: Vec<Gap>, all_named: bool) -> Vec<String> {
        let objects: Vec<String> = lost.into_iter().map(|gap| gap.object).collect();
        for object in objects.iter().cloned() {
            self.did(match all_named {
                true => Action::Replaced(object),
                false => Action::Unresolved(object),
            });
        }
        if all_named { objects } else { Vec::new() }
    }
}

/// The segments in an hour's folder and their objects.
async fn segments_in(store: &Store, hour: Hour) -> Result<BTreeMap<String, Vec<Listed>>, Failure> {
    let folder = names::data_of(hour);
    let mut found: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
    let mut listed = store.list(&folder);
    while let Some(object) = listed.try_next().await? {
        let below = object.path.as_ref().strip_prefix(folder.as_ref());
        let name = below.and_then(|below| below.strip_prefix('/')?.split_once('/'));
        if let Some((name, _)) = name {
            let name = name.to_owned();
            found.entry(name).or_default().push(object);
        }
    }
    Ok(found)
}
