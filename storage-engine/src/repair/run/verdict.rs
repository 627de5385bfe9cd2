//! Opens an orphan segment, and carries out what is decided about it.

use std::collections::BTreeMap;

use capstan_model::{Failure, FailureKind, Generation, GenerationId, Time};

use super::Repair;
use crate::catalog::{CommitId, Segment, SegmentEntry};
use crate::repair::action::{Action, Watch};
use crate::repair::adopt::{Log, Stray, Unnamed, Why, judge};
use crate::repair::doubt::Doubtful;
use crate::repair::log::repairer;
use crate::repair::named::NamedSegments;
use crate::repair::survey::Kinds;
use crate::segment::Layer;

/// A segment that is named again.
pub(super) struct Adopted {
    pub(super) entry: SegmentEntry,
    /// Layers that are missing for an unknown reason.
    absent: Vec<&'static str>,
}

impl Adopted {
    pub(super) fn action(&self) -> Action {
        let Adopted { entry, absent } = self;
        let (segment, packets) = (entry.name.clone(), entry.packets);
        Action::Adopted { segment, packets, absent: absent.clone() }
    }
}

/// Decision about an orphan segment.
pub(super) enum Verdict {
    /// Name it with this entry.
    Adopted(Box<Adopted>),
    /// Leave it; answers may lack its packets.
    Left,
    /// It is useless.
    Waste,
}

impl<W: Watch> Repair<'_, W> {
    /// Decides about an orphan segment.
    pub(super) async fn judge(
        &mut self,
        stray: &Stray,
        is_in_doubt: bool,
        kinds: &Kinds,
        logs: &BTreeMap<GenerationId, Log>,
        named: &mut NamedSegments,
        doubtful: &Doubtful,
    ) -> Result<Verdict, Failure> {
        let young = !self.options.nobody_writes && is_young(stray.put(), self.store.now());
        let opened = match stray.open(self.store).await? {
            Ok(opened) => opened,
            // An upload in progress may have no index layer yet.
            Err(Why::NoIndex) if young && !is_in_doubt => {
                return self.leave(stray, Why::Young).await;
            }
            Err(Why::NoIndex) if is_in_doubt || may_be_committed(&stray.name, logs) => {
                let why = Why::Unreadable("its index layer is missing".to_owned());
                return self.leave(stray, why).await;
            }
            Err(why) => return self.leave(stray, why).await,
        };
        let owner = opened.owner();
        let in_doubt = |commit: &CommitId| doubtful.contains_key(commit);
        let mut taken = named.of_other_generations(owner, &opened.hours(), in_doubt)?;
        taken.iter_mut().for_each(|of| {
            of.import = kinds.import(GenerationId::new(owner.recorder, of.generation))
        });
        let unnamed = Unnamed { holds: opened.holds(), young, is_in_doubt };
        if let Err(why) = judge(&unnamed, logs.get(&owner), &taken) {
            return self.leave(stray, why).await;
        }
        let entry = match opened.entry(self.store, stray.hour).await {
            Ok(entry) => entry,
            Err(failure) if failure.kind() == FailureKind::Damaged => {
                return self.leave(stray, Why::Unreadable(failure.to_string())).await;
            }
            Err(failure) => return Err(failure),
        };
        let of = GenerationId::new(repairer(self.store), Generation(0));
        named.add(&Segment::of(CommitId { of, seq: 0 }, entry.clone()))?;
        let absent = opened.absent.iter().copied().map(Layer::name).collect();
        Ok(Verdict::Adopted(Box::new(Adopted { entry, absent })))
    }

    async fn leave(&mut self, stray: &Stray, why: Why) -> Result<Verdict, Failure> {
        let (segment, bytes) = (stray.name.clone(), stray.bytes());
        let remove = self.options.remove_waste && why.is_waste();
        if remove && !self.options.dry_run {
            let paths = Vec::from_iter(stray.objects.iter().map(|object| object.path.clone()));
            self.store.delete_many(&paths).await?;
        }
        // Duplicates of existing packets are not missed.
        let is_settled = remove || matches!(why, Why::Double { .. });
        self.did(match remove {
            true => Action::Waste { segment, bytes, why },
            false => Action::Left { segment, bytes, why },
        });
        Ok(if is_settled { Verdict::Waste } else { Verdict::Left })
    }
}

/// Whether a lost commit may have named a segment, judging by its name.
fn may_be_committed(segment: &str, logs: &BTreeMap<GenerationId, Log>) -> bool {
    let owner = owner_of(segment);
    owner.is_some_and(|owner| logs.get(&owner).is_none_or(|log| log.has_hole))
}

fn is_young(put: Time, now: Time) -> bool {
    now < put.saturating_add(crate::verify::listing::YOUNG)
}

/// The generation in a segment's name.
pub(super) fn owner_of(segment: &str) -> Option<GenerationId> {
    let mut parts = segment.split('-');
    let recorder = parts.next()?.parse().ok()?;
    let generation = parts.next()?.parse().ok().map(Generation)?;
    Some(GenerationId::new(recorder, generation))
}
