//! Repairing a store, step by step. IO only: what is to be done is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use capstan_model::words::{agree, count};
use capstan_model::{Failure, FailureKind, Generation, Hour, RecorderId, Time};
use futures::TryStreamExt;
use object_store::path::Path;
use sha2::{Digest, Sha256};

use super::adopt::{Log, Stray, Taken, Why, judge};
use super::survey::{Owner, Survey};
use crate::catalog::entry::{self, Commit, sha256_hex};
use crate::catalog::facts::split;
use crate::catalog::fold::{MendingSlot, begin, seal};
use crate::catalog::manifest::{Folding, Manifest};
use crate::catalog::root::{Mending, Root};
use crate::catalog::versions;
use crate::catalog::{
    CommitDraft, CommitId, Finished, Folder, Gap, GapKind, Problem, Recorder, SegmentEntry, Slot,
    Stay, View, WriterInfo, WriterKind,
};
use crate::segment::Layer;
use crate::store::{Listed, Store, names};
use crate::verify::run::hours_with_data;

/// How often all is begun again because others fold meanwhile.
const TRIES: u32 = 4;

/// Segments in one commit.
const SEGMENTS: usize = 64;

/// The first store format that is folded.
const FOLDED: u32 = 3;

/// What is to be done.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Nobody writes into the store: segments that were put there less than a day ago are judged, too.
    pub nobody_writes: bool,
    /// Remove segments that nobody needs: uploads that were broken off, packets that are there already.
    pub remove_waste: bool,
    /// The machine that repairs, for people.
    pub host: String,
}

/// Something that was done, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A boundary was put anew.
    Boundary(u64),
    /// An ended life was put anew from its log.
    Life(RecorderId, Generation),
    /// A root was put.
    Root {
        /// Its version.
        version: u64,
        /// The one it goes on from; 0 = none can be read.
        from: u64,
        /// Logs that are read from their start again.
        logs: u64,
    },
    /// A manifest was put.
    Manifest {
        /// Of what.
        slot: Slot,
        /// Commits that were put into it.
        commits: u64,
        /// Commits that say something of it and cannot be read either.
        lost: u64,
    },
    /// A damaged object was removed, in whose place another one is.
    Removed(String),
    /// A commit that cannot be read, or is not what was written, counts no more: all that it may have named
    /// and that can be had is named again.
    Replaced(String),
    /// Such a commit still hides something: segments that it may have named were left.
    Unresolved(String),
    /// A segment that nobody named was named.
    Adopted {
        /// Its name.
        segment: String,
        /// Its packets.
        packets: u64,
        /// Layers that are not there, nobody knows why.
        absent: Vec<&'static str>,
    },
    /// A segment that nobody names was left as it is.
    Left {
        /// Its name.
        segment: String,
        /// Its bytes.
        bytes: u64,
        /// Why.
        why: Why,
    },
    /// A segment that nobody needs was removed.
    Waste {
        /// Its name.
        segment: String,
        /// Its bytes.
        bytes: u64,
        /// Why nobody needs it.
        why: Why,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Boundary(number) => write!(f, "{}: written again", names::boundary(*number)),
            Action::Life(recorder, generation) => {
                write!(f, "{}: written again from its log", names::life(*recorder, *generation))
            }
            Action::Root { version, from: 0, logs } => write!(
                f,
                "{}: written, as no root can be read; {} {} folded from the start",
                names::root(*version),
                count(*logs, "log"),
                agree(*logs, "is", "are")
            ),
            Action::Root { version, from, logs } => write!(
                f,
                "{}: written from version {from}; {} {} folded from the start",
                names::root(*version),
                count(*logs, "log"),
                agree(*logs, "is", "are")
            ),
            Action::Manifest { slot, commits, lost } => {
                write!(
                    f,
                    "catalog/{}: written again with {}",
                    slot.path(),
                    count(*commits, "commit")
                )?;
                match lost {
                    0 => Ok(()),
                    lost => write!(f, "; {lost} more cannot be read"),
                }
            }
            Action::Removed(object) => {
                write!(f, "{object}: removed, as another one is in its place")
            }
            Action::Replaced(commit) => {
                write!(f, "{commit}: counts no more, as what it named is named again")
            }
            Action::Unresolved(commit) => write!(
                f,
                "{commit}: cannot be read, and segments that it may have named were left; when these can be used \
                 or are removed, repair again"
            ),
            Action::Adopted { segment, packets, absent } => {
                write!(f, "segment {segment}: named again, {}", count(*packets, "packet"))?;
                match absent.as_slice() {
                    [] => Ok(()),
                    absent => write!(f, "; without {}, cause unknown", absent.join(", ")),
                }
            }
            Action::Left { segment, bytes, why } => {
                write!(f, "segment {segment}: left, {}: {why}", count(*bytes, "byte"))
            }
            Action::Waste { segment, bytes, why } => {
                write!(f, "segment {segment}: removed, {}: {why}", count(*bytes, "byte"))
            }
        }
    }
}

/// Hears how it goes on.
pub trait Watch: Sync {
    /// It goes on with something that has so many steps; 0 = nobody knows.
    fn begin(&self, _what: &'static str, _steps: u64) {}
    /// One of them is done.
    fn step(&self) {}
    /// Something was done.
    fn did(&self, _action: &Action) {}
    /// Whether to stop.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// What a repair came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Things that were put anew or removed.
    pub repaired: u64,
    /// Segments that were named again, and their packets.
    pub adopted: (u64, u64),
    /// Segments that were left as they are, and their bytes.
    pub left: (u64, u64),
    /// Segments that were removed, and their bytes.
    pub removed: (u64, u64),
    /// What can be repaired no more: segments that cannot be used, commits that cannot be read.
    pub beyond: u64,
    /// It was stopped before its end.
    pub stopped: bool,
}

struct Repair<'a, W> {
    store: &'a Store,
    options: &'a Options,
    watch: &'a W,
    report: Report,
}

/// Repairs a store.
///
/// # Errors
/// What the store says; of kind `TooNew` if a newer version wrote some of the catalog, of kind
/// `Unavailable` if others fold all the time. What was done until then stays, and calling again is right.
pub async fn repair(
    store: &Store,
    options: &Options,
    watch: &impl Watch,
) -> Result<Report, Failure> {
    let mut repair = Repair { store, options, watch, report: Report::default() };
    for _ in 0..TRIES {
        if repair.once().await? {
            return Ok(repair.report);
        }
    }
    let what = format!(
        "others fold the catalog of {} all the time: stop who records into it, and repair again",
        store.place()
    );
    Err(Failure::new(FailureKind::Unavailable, what))
}

impl<W: Watch> Repair<'_, W> {
    /// One attempt; false if another one folds meanwhile.
    async fn once(&mut self) -> Result<bool, Failure> {
        self.watch.begin("reading the catalog", 0);
        let mut survey = Survey::take(self.store).await?;
        let is_folded = self.store.format().format >= FOLDED;
        let doubtful = doubtful(self.store, &survey).await?;
        if is_folded
            && !(self.mend_root(&mut survey).await? && self.mend_slots(&survey, &doubtful).await?)
        {
            return Ok(false);
        }
        let named = self.adopt(&survey, &doubtful).await?;
        if is_folded && !self.options.dry_run && (named || self.report.repaired > 0) {
            self.watch.begin("folding", 0);
            // If another one took over, it folds.
            crate::catalog::fold::fold_all(self.store, "repair").await?;
        }
        Ok(true)
    }

    fn did(&mut self, action: Action) {
        match &action {
            Action::Adopted { packets, .. } => {
                self.report.adopted.0 += 1;
                self.report.adopted.1 += packets;
            }
            Action::Left { bytes, why, .. } => {
                self.report.left.0 += 1;
                self.report.left.1 += bytes;
                self.report.beyond += u64::from(matches!(why, Why::Unreadable(_)));
            }
            Action::Waste { bytes, .. } => {
                self.report.removed.0 += 1;
                self.report.removed.1 += bytes;
            }
            Action::Manifest { lost, .. } => {
                self.report.repaired += 1;
                self.report.beyond += lost;
            }
            Action::Unresolved(_) => self.report.beyond += 1,
            _ => self.report.repaired += 1,
        }
        self.watch.did(&action);
    }

    /// Removes an object that cannot be read, unless this is a rehearsal.
    async fn remove(&mut self, path: Path) -> Result<(), Failure> {
        if !self.options.dry_run {
            self.store.delete(&path).await?;
        }
        self.did(Action::Removed(path.to_string()));
        Ok(())
    }

    /// Puts boundaries, ended lives and the root anew where they cannot be used. False if
    /// another one put a root.
    async fn mend_root(&mut self, survey: &mut Survey) -> Result<bool, Failure> {
        let store = self.store;
        let real = !self.options.dry_run;
        for (recorder, generation) in survey.lost_lives() {
            let of_root = survey
                .roots
                .readable
                .as_ref()
                .and_then(|root| root.value.log((recorder, generation)).map(|log| &log.life));
            let of_log = survey.logs.life((recorder, generation));
            let mut known = of_log.into_iter().chain(of_root);
            let ended = known.find(|life| life.chain().finished()).cloned();
            if real {
                store.delete(&names::life(recorder, generation)).await?;
                if let Some(life) = &ended {
                    versions::put_ended(store, life).await?;
                }
            }
            self.did(Action::Life(recorder, generation));
            survey.lives.insert((recorder, generation), ended);
        }

        let homeless = survey.homeless();
        let readable = survey.roots.readable.as_ref().map(|root| root.value.clone());
        let is_newest = readable.as_ref().is_some_and(|of| of.version == survey.roots.newest);
        let lost = survey.boundaries.iter().filter(|(_, below)| below.is_none());
        let lost: Vec<u64> = lost.map(|(number, _)| *number).collect();
        let newest = survey.roots.newest;
        for number in lost {
            if real {
                store.delete(&names::boundary(number)).await?;
                // Whoever holds an older root than the newest looks for it.
                let _taken = versions::put_boundary(store, number, newest).await?;
            }
            self.did(Action::Boundary(number));
        }
        let nothing_folded = newest == 0 && survey.slots.is_empty() && survey.lives.is_empty();
        if !(is_newest || nothing_folded) || !homeless.is_empty() {
            let base = readable.unwrap_or_else(Root::empty);
            let root = self.put_root(survey, &base, &homeless).await?;
            let Some(root) = root else { return Ok(false) };
            let root = versions::Versioned { value: root, sha256: String::new() };
            survey.roots.readable = Some(root);
        }
        self.remove_roots(survey).await?;
        Ok(true)
    }

    /// Removes roots that cannot be read, with newer ones there that can be.
    async fn remove_roots(&mut self, survey: &Survey) -> Result<(), Failure> {
        let Some(newest) = &survey.roots.readable else { return Ok(()) };
        if survey.roots.damaged.is_empty() {
            return Ok(());
        }
        if !self.options.dry_run {
            // Who holds an older one would take it for the newest where the next is missing.
            let number = survey.boundary().saturating_add(1);
            let _taken = versions::put_boundary(self.store, number, newest.value.version).await?;
        }
        for version in &survey.roots.damaged {
            self.remove(names::root(*version)).await?;
        }
        Ok(())
    }

    /// Puts a root that goes on from `base`; none if another one put it.
    async fn put_root(
        &mut self,
        survey: &Survey,
        base: &Root,
        homeless: &BTreeSet<Owner>,
    ) -> Result<Option<Root>, Failure> {
        let mut logs = Vec::new();
        let unnamed = survey.open.iter().filter(|owner| base.log(**owner).is_none());
        for owner in homeless.iter().chain(unnamed) {
            let (life, _) = begin(self.store, owner.0, owner.1).await?;
            logs.push((life, survey.admitted.get(owner).copied()));
        }
        let many = logs.len() as u64;
        let manifests = || survey.slots.values().filter_map(|of| of.row.readable.as_ref());
        let epochs = manifests().map(|of| of.value.epoch).max().unwrap_or(0);
        // The damaged ones raised it by one each, at most.
        let damaged = survey.roots.newest.saturating_sub(base.version);
        let epoch = base.epoch.saturating_add(damaged).max(epochs).saturating_add(1);
        let below = survey.boundaries.values().flatten().max().copied().unwrap_or(0);
        let admitted = survey.admitted.values().max().copied().unwrap_or(0);
        // A number that was never used: who knows an older one may still go on from there.
        let newest = survey.roots.newest.max(admitted).max(below);
        let wide = survey.slots.get(&Slot::Wide).and_then(|of| of.row.readable.as_ref());
        let previous = match newest == survey.roots.newest {
            true => survey.roots.newest_sha256.clone(),
            false => String::new(),
        };
        let mending = Mending {
            version: newest.saturating_add(1),
            previous,
            epoch,
            boundary: survey.boundary(),
            logs,
            wide: wide.map(|of| of.value.version),
        };
        let root = base.mended(mending, self.store.nonce());
        let version = root.version;
        if !self.options.dry_run
            && versions::put_mended_root(self.store, root.clone()).await?.is_none()
        {
            return Ok(None);
        }
        self.did(Action::Root { version, from: base.version, logs: many });
        Ok(Some(root))
    }

    /// Puts manifests anew that cannot be read or lack facts. False if another one folds.
    async fn mend_slots(&mut self, survey: &Survey, doubtful: &Doubtful) -> Result<bool, Failure> {
        let empty = Root::empty();
        let root = survey.roots.readable.as_ref().map_or(&empty, |root| &root.value);
        let mut missing = survey.missing(root);
        for (slot, found) in &survey.slots {
            if found.is_damaged() {
                missing.entry(*slot).or_default();
            }
        }
        // One that is gone may have said no more than the one before, but it is the one that readers ask for.
        for named in root.slots.iter().filter(|of| survey.newest(of.slot) < of.version) {
            missing.entry(named.slot).or_default();
        }
        let mut waste = Vec::new();
        for (slot, found) in &survey.slots {
            waste.extend(found.unreadable.iter().map(|name| names::part(*slot, name)));
            let damaged = found.row.damaged.iter();
            waste.extend(damaged.map(|version| names::manifest(*slot, *version)));
        }
        if !missing.is_empty() && !self.put_slots(survey, root, &missing, doubtful).await? {
            return Ok(false);
        }
        for path in waste {
            self.remove(path).await?;
        }
        Ok(true)
    }

    /// Puts manifests with commits that they lack. False if another one folds.
    async fn put_slots(
        &mut self,
        survey: &Survey,
        root: &Root,
        missing: &BTreeMap<Slot, BTreeSet<(Owner, u64)>>,
        doubtful: &Doubtful,
    ) -> Result<bool, Failure> {
        self.watch.begin("reading commits", missing.values().map(|of| of.len() as u64).sum());
        let mut mendings = Vec::new();
        for (slot, commits) in missing {
            let (commits, lost) = self.foldings(survey, root, *slot, commits).await?;
            self.did(Action::Manifest { slot: *slot, commits: commits.len() as u64, lost });
            let found = survey.slots.get(slot);
            let readable = found.and_then(|found| found.row.readable.as_ref());
            let unreadable = found.map(|found| found.unreadable.clone()).unwrap_or_default();
            let there = survey.newest(*slot);
            // The number of one that is gone is not used again.
            let newest = there.max(root.slot(*slot).unwrap_or(0));
            let previous = found.filter(|_| there == newest).map(|of| of.row.newest_sha256.clone());
            mendings.push(MendingSlot {
                base: readable.map_or_else(|| Manifest::empty(*slot), |of| of.value.clone()),
                newest,
                previous: previous.unwrap_or_default(),
                unreadable,
                commits,
            });
        }
        if self.options.dry_run {
            return Ok(true);
        }
        let mut folder = Folder::claim(self.store, "repair", Stay::Leaves).await?;
        // What manifests said of commits that cannot be read is not said by those that are put now.
        Ok(folder.mend(&mendings, doubtful.values().cloned().collect()).await?.is_none())
    }

    /// What commits say of a slot, and how many of them cannot be read.
    async fn foldings(
        &self,
        survey: &Survey,
        root: &Root,
        slot: Slot,
        commits: &BTreeSet<(Owner, u64)>,
    ) -> Result<(Vec<Folding>, u64), Failure> {
        let (mut foldings, mut lost) = (Vec::new(), 0);
        for ((recorder, generation), seq) in commits.iter().copied() {
            self.watch.step();
            let owner = (recorder, generation);
            let path = names::commit(recorder, generation, seq);
            let bytes = self.store.get_if_present(&path).await?.unwrap_or_default();
            let Ok(commit) = entry::read::<Commit>(&bytes) else {
                lost += 1;
                continue;
            };
            let Some(share) = split(commit.content).remove(&slot) else { continue };
            let known = survey.admitted.get(&owner).copied();
            let named = root.log(owner).map(|log| log.admitted);
            let life = survey.logs.life(owner);
            foldings.push(Folding {
                recorder,
                generation,
                admitted: known.or(named).unwrap_or(root.version),
                info: life.and_then(|life| life.writer()).map(|writer| writer.info.clone()),
                seq,
                sha256: sha256_hex(&bytes),
                share,
            });
        }
        Ok((foldings, lost))
    }

    /// Names segments that nobody names and somebody should; whether there were any.
    async fn adopt(&mut self, survey: &Survey, doubtful: &Doubtful) -> Result<bool, Failure> {
        let logs = logs(survey);
        let mut taken: BTreeMap<RecorderId, Vec<Taken>> = BTreeMap::new();
        let (mut named, mut in_doubt) = (BTreeSet::<&str>::new(), BTreeSet::<&str>::new());
        for of in survey.named() {
            if doubtful.contains_key(&(of.by.0, of.by.1, of.seq)) {
                in_doubt.insert(&of.entry.name);
                continue;
            }
            named.insert(&of.entry.name);
            taken.entry(of.recorder).or_default().push(Taken {
                segment: of.entry.name.clone(),
                generation: of.generation,
                first: of.entry.first_ordinal,
                last: of.entry.last_ordinal,
            });
        }
        let hours = hours_with_data(self.store).await?;
        self.watch.begin("looking for segments that nobody names", hours.len() as u64);
        let (mut adopted, mut left) = (Vec::new(), BTreeSet::new());
        for hour in hours {
            if self.watch.is_stopped() {
                self.report.stopped = true;
                break;
            }
            for stray in strays(self.store, hour, &named).await? {
                match self.judge(&stray, &logs, &mut taken).await? {
                    Verdict::Adopted(entry) => adopted.push(*entry),
                    Verdict::Left => left.extend(owner_of(&stray.name)),
                    Verdict::Waste => {}
                }
            }
            self.watch.step();
        }
        let replaced = match self.report.stopped {
            true => Vec::new(),
            false => self.replaced(doubtful, &left),
        };
        let any = !(adopted.is_empty() && replaced.is_empty());
        if any && !self.options.dry_run {
            let of_doubt = |entry: &SegmentEntry| in_doubt.contains(entry.name.as_str());
            let (last, first) = adopted.into_iter().partition(of_doubt);
            self.name(first, last, replaced).await?;
        }
        Ok(any)
    }

    /// The commits that count no more: all segments of their lives that nothing else names were judged, and
    /// none was left that may yet be named.
    fn replaced(&mut self, doubtful: &Doubtful, left: &BTreeSet<Owner>) -> Vec<String> {
        let mut replaced = Vec::new();
        for ((recorder, generation, _), gap) in doubtful {
            let object = gap.object.clone();
            if left.contains(&(*recorder, *generation)) {
                self.did(Action::Unresolved(object));
            } else {
                self.did(Action::Replaced(object.clone()));
                replaced.push(object);
            }
        }
        replaced
    }

    /// What becomes of a segment that nobody names.
    async fn judge(
        &mut self,
        stray: &Stray,
        logs: &BTreeMap<Owner, Log>,
        taken: &mut BTreeMap<RecorderId, Vec<Taken>>,
    ) -> Result<Verdict, Failure> {
        let young = !self.options.nobody_writes && is_young(stray.put(), self.store.now());
        let opened = match stray.open(self.store).await? {
            Ok(opened) => opened,
            // An upload that goes on may have no index layer yet.
            Err(Why::NoIndex) if young => return self.leave(stray, Why::Young).await,
            Err(why) => return self.leave(stray, why).await,
        };
        let owner = opened.owner();
        let (first, last) = opened.ordinals();
        let of_recorder = taken.entry(owner.0).or_default();
        if let Err(why) = judge((owner.1, first, last), young, logs.get(&owner), of_recorder) {
            return self.leave(stray, why).await;
        }
        let entry = match opened.entry(self.store, stray.hour).await {
            Ok(entry) => entry,
            Err(failure) if failure.kind() == FailureKind::Damaged => {
                return self.leave(stray, Why::Unreadable(failure.to_string())).await;
            }
            Err(failure) => return Err(failure),
        };
        let segment = stray.name.clone();
        of_recorder.push(Taken { segment: segment.clone(), generation: owner.1, first, last });
        let absent = opened.absent.iter().copied().map(Layer::name).collect();
        self.did(Action::Adopted { segment, packets: entry.packets, absent });
        Ok(Verdict::Adopted(Box::new(entry)))
    }

    async fn leave(&mut self, stray: &Stray, why: Why) -> Result<Verdict, Failure> {
        let (segment, bytes) = (stray.name.clone(), stray.bytes());
        let remove = self.options.remove_waste && why.is_waste();
        if remove && !self.options.dry_run {
            for object in &stray.objects {
                self.store.delete(&object.path).await?;
            }
        }
        // What is there already is not missed.
        let is_settled = remove || matches!(why, Why::Double { .. });
        self.did(match remove {
            true => Action::Waste { segment, bytes, why },
            false => Action::Left { segment, bytes, why },
        });
        Ok(if is_settled { Verdict::Waste } else { Verdict::Left })
    }

    /// Names segments in a log of its own. Those of the last ones that a replaced commit names, too, come in
    /// the commit that says so: neither are they there twice meanwhile, nor not at all.
    async fn name(
        &self,
        first: Vec<SegmentEntry>,
        last: Vec<SegmentEntry>,
        replaces: Vec<String>,
    ) -> Result<(), Failure> {
        let store = self.store;
        let info = WriterInfo {
            kind: WriterKind::Repair,
            description: "segments whose commits are lost".to_owned(),
            host: self.options.host.clone(),
            source: None,
            resumes: None,
            started_at: store.now(),
        };
        let all = first.iter().chain(&last);
        let packets_total = all.map(|of| of.packets).fold(0, u64::saturating_add);
        let mut recorder = Recorder::start(store, repairer(store), info).await?;
        for segments in first.chunks(SEGMENTS) {
            let draft = CommitDraft { segments: segments.to_vec(), ..CommitDraft::default() };
            recorder.commit(draft).await?;
        }
        let finished = Some(Finished { complete: true, packets_total });
        let last = CommitDraft { segments: last, replaces, finished, ..CommitDraft::default() };
        recorder.commit(last).await?;
        Ok(())
    }
}

/// What became of a segment that nobody names.
enum Verdict {
    /// This is to be said of it.
    Adopted(Box<SegmentEntry>),
    /// It is left, and may be missed.
    Left,
    /// Nobody needs it.
    Waste,
}

/// Commits that cannot be read, or are not what was written, and whose facts no manifest has as they were.
type Doubtful = BTreeMap<CommitId, Gap>;

/// Finds them: those that readers miss, and those whose facts were in a manifest that cannot be read either.
async fn doubtful(store: &Store, survey: &Survey) -> Result<Doubtful, Failure> {
    let id = |gap: &Gap| names::parse_commit(&Path::from(gap.object.as_str()));
    let usable = |gap: &Gap| gap.kind != GapKind::TooNew;
    let view = View::load(store).await?;
    let mut doubtful = Doubtful::new();
    for gap in view.gaps().iter().filter(|gap| usable(gap)) {
        doubtful.extend(id(gap).map(|id| (id, gap.clone())));
    }
    if survey.slots.values().all(|found| !found.is_damaged()) && survey.are_all_there() {
        return Ok(doubtful);
    }
    let replaced = survey.logs.replaced();
    for gap in survey.logs.problems().iter().filter_map(Problem::gap).filter(usable) {
        let new = id(&gap).filter(|id| !replaced.contains(id));
        if let Some(id) = new {
            doubtful.entry(id).or_insert(gap);
        }
    }
    Ok(doubtful)
}

/// Whose a segment is, as its name says.
fn owner_of(segment: &str) -> Option<Owner> {
    let mut parts = segment.split('-');
    let recorder = parts.next()?.parse().ok()?;
    let generation = parts.next()?.parse().ok().map(Generation)?;
    Some((recorder, generation))
}

/// Who repairs a store.
fn repairer(store: &Store) -> RecorderId {
    let digest = Sha256::digest(format!("repair {}", store.format().cluster));
    let mut id = [0; 8];
    id.copy_from_slice(&digest[..8]);
    RecorderId(u64::from_be_bytes(id))
}

fn is_young(put: Time, now: Time) -> bool {
    now < put.saturating_add(crate::verify::listing::YOUNG)
}

/// What is known of each log.
fn logs(survey: &Survey) -> BTreeMap<Owner, Log> {
    let mut logs: BTreeMap<Owner, Log> = BTreeMap::new();
    for (recorder, generation, life) in survey.logs.lives() {
        let log = Log {
            kind: life.writer().map(|writer| writer.info.kind),
            has_hole: false,
            // Who was away when its log was ended could not say what else it had.
            finished: life.chain().finished() && !life.notes().contains(seal::NOTE),
            next_ordinal: life.chain().next_ordinal(),
        };
        logs.insert((recorder, generation), log);
    }
    for problem in survey.logs.problems() {
        // A newer version can read what it wrote.
        if let Some(gap) = problem.gap().filter(|gap| gap.kind != GapKind::TooNew)
            && let Some((recorder, generation, _)) =
                names::parse_commit(&Path::from(gap.object.as_str()))
            && let Some(log) = logs.get_mut(&(recorder, generation))
        {
            log.has_hole = true;
        }
    }
    logs
}

/// The segments in an hour's folder that nobody names.
async fn strays(store: &Store, hour: Hour, named: &BTreeSet<&str>) -> Result<Vec<Stray>, Failure> {
    let folder = names::data_of(hour);
    let mut found: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
    let mut listed = store.list(&folder);
    while let Some(object) = listed.try_next().await? {
        let below = object.path.as_ref().strip_prefix(folder.as_ref());
        let name = below.and_then(|below| below.strip_prefix('/')?.split_once('/'));
        if let Some((name, _)) = name.filter(|(name, _)| !named.contains(name)) {
            found.entry(name.to_owned()).or_default().push(object);
        }
    }
    Ok(found.into_iter().map(|(name, objects)| Stray { name, hour, objects }).collect())
}
