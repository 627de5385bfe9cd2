//! Verifies a whole store, hour by hour. IO only: other modules judge the results.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind, Hour, TimeRange};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use sha2::{Digest, Sha256};

use super::finding::{Finding, Severity, What};
use super::rolled_up::RolledUp;
use super::{content, listing};
use crate::catalog::by_slot::{BySlot, Logged};
use crate::catalog::load::FIRST_FORMAT;
use crate::catalog::names;
use crate::catalog::segment_state;
use crate::catalog::state::KnownFact;
use crate::catalog::sums::{Lacking, Sums};
use crate::catalog::walk::walk;
use crate::catalog::{
    CommitId, GenerationState, LayerEntry, Segment as CatalogSegment, SegmentEntry, TimeSlot,
};
use crate::segment::reader::{AddedTable, Segment};
use crate::segment::{Layer, Layers, TableLayer};
use crate::store::{Listed, Store};

/// Segments that are read at a time.
const AT_ONCE: usize = 4;

/// Bytes of one request for a layer.
const PIECE: u64 = 8 << 20;

/// The options of a check.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The hours to check.
    pub range: TimeRange,
    /// Read every byte. Otherwise only the catalog and the `index` layers are read, and all other objects are checked
    /// for existence and length.
    pub deep: bool,
    /// The layers that are known. Others are of a newer version, and are not judged.
    pub layers: Layers,
}

/// Receives progress.
pub trait Watch: Sync {
    /// Total number of bytes to read.
    fn begin(&self, _bytes: u64) {}
    /// Number of bytes read since the last call.
    fn read(&self, _bytes: u64) {}
    /// A new finding.
    fn found(&self, _finding: &Finding) {}
    /// Whether to stop.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// Report of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of logs followed: all of the store.
    pub logs: u64,
    /// Their commits.
    pub commits: u64,
    /// How many of these are removed, because their logs are truncated.
    pub truncated: u64,
    /// Objects of the rolled-up catalog.
    pub rolled_up: u64,
    /// Segments in the requested hours.
    pub segments: u64,
    /// Objects in these hours.
    pub objects: u64,
    /// Bytes read of them.
    pub bytes: u64,
    /// Number of findings of each severity.
    pub findings: BTreeMap<Severity, u64>,
    /// Number of orphans, and their bytes.
    pub orphans: (u64, u64),
    /// The unfinished hour when the check was stopped; resume there.
    pub stopped_in: Option<Hour>,
}

impl Report {
    fn take(&mut self, finding: &Finding, watch: &impl Watch) {
        *self.findings.entry(finding.severity()).or_default() += 1;
        if let What::Orphan { bytes, .. } = finding.what {
            self.orphans.0 += 1;
            self.orphans.1 = self.orphans.1.saturating_add(bytes);
        }
        watch.found(finding);
    }

    /// The worst severity found.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.keys().next_back().copied()
    }
}

/// Checks a store. Findings are reported to `watch` as they occur; the report has the totals.
///
/// # Errors
/// The store cannot be read any more. Faults of the store's content are no errors.
pub async fn verify(
    store: &Store,
    options: &Options,
    watch: &impl Watch,
) -> Result<Report, Failure> {
    let mut report = Report::default();
    for finding in foreign(store).await? {
        report.take(&finding, watch);
    }
    if store.is_format_changed().await? {
        let object = names::format().to_string();
        let problem = format!("{object} is not what was written: something in it is wrong");
        let what = What::Catalog { problem, severity: Severity::Damaged };
        report.take(&Finding { object, what }, watch);
    }
    let mut logs = BySlot::<Logged>::new()?;
    let mut bytes = 0_u64;
    let walked = walk(store, |met| {
        let asked = met.commit.content.segments();
        let asked = asked.filter(|segment| is_asked_for(segment.hour, options.range));
        let read = asked.map(|segment| to_read(segment, options.deep));
        bytes = read.fold(bytes, u64::saturating_add);
        // A changed commit is reported as such, and not compared.
        if met.is_changed { Ok(()) } else { logs.keep(met) }
    })
    .await?;
    report.logs = walked.generations.len() as u64;
    report.commits = walked.generations.values().map(GenerationState::commits).sum();
    report.truncated = walked.truncated.values().map(|of| of.removed).sum();
    let mut rolled_up = RolledUp::read(store).await?;
    for problem in &walked.problems {
        let hidden = problem.gap().and_then(|gap| gap.commit());
        let is_rolled_up = hidden.is_some_and(|commit| rolled_up.has(&commit));
        let is_replaced = hidden.is_some_and(|commit| walked.replaced.contains(&commit));
        report.take(&Finding::of_log(problem, is_rolled_up, is_replaced), watch);
    }
    if store.format().format >= FIRST_FORMAT {
        rolled_up.check_generations(store, walked.generations.values()).await?;
    }
    watch.begin(bytes);

    // Of facts that are known to be lost a repair has named the segments again.
    let sums = match rolled_up.lacks_facts() {
        true => Sums::default(),
        false => Sums::of(&walked.truncated),
    };
    let replaced = walked.replaced;
    let mut check = Check { store, options, watch, report, logs, rolled_up, replaced, sums };
    // Wide segments first: their objects lie in hours.
    let wide = [TimeSlot::Wide].into();
    let mut goes_on = check.folder(&names::slot(TimeSlot::Wide), wide).await?;
    for (folder, hours) in check.days().await? {
        goes_on = goes_on && check.folder(&folder, hours).await?;
    }
    let Check { mut report, mut rolled_up, sums, .. } = check;
    if goes_on {
        rolled_up.findings.extend(sums.lacking().map(|Lacking { checkpoint, what }| {
            let what = What::Catalog { problem: what, severity: Severity::Lost };
            Finding { object: checkpoint.to_string(), what }
        }));
    }
    for finding in &rolled_up.findings {
        report.take(finding, watch);
    }
    report.rolled_up = rolled_up.objects;
    Ok(report)
}

/// A check in progress, after all logs were read.
struct Check<'a, W> {
    store: &'a Store,
    options: &'a Options,
    watch: &'a W,
    report: Report,
    logs: BySlot<Logged>,
    rolled_up: RolledUp,
    replaced: BTreeSet<CommitId>,
    sums: Sums,
}

impl<W: Watch> Check<'_, W> {
    /// Checks the slots below a folder of the rolled-up catalog, and the objects of its hours; false if it was
    /// stopped.
    async fn folder(
        &mut self,
        folder: &Path,
        mut slots: BTreeSet<TimeSlot>,
    ) -> Result<bool, Failure> {
        let Check { store, options, watch, report, logs, rolled_up, replaced, sums } = self;
        let mut listing = rolled_up.list(store, folder).await?;
        slots.extend(listing.slots());
        for slot in slots {
            let logged = logs.take(slot)?;
            let mut facts = rolled_up.check_slot(store, slot, &mut listing, &logged).await?;
            for finding in rolled_up.findings.drain(..) {
                report.take(&finding, *watch);
            }
            for fact in &facts {
                match fact {
                    KnownFact::Segment(of) => sums.add_segment(slot, of.by, &of.entry),
                    KnownFact::Loss(of) => sums.add_loss(slot, fact.commit(), &of.fact),
                    KnownFact::Listened(_) | KnownFact::Change(_) => {}
                }
            }
            facts.extend(logged.into_iter().flat_map(Logged::into_facts));
            facts.retain(|of| !replaced.contains(&of.commit()));
            match slot {
                TimeSlot::Wide => logs.keep_objects(facts)?,
                TimeSlot::Hour(hour) if is_asked_for(hour, options.range) => {
                    let segments = of_hour(facts, hour);
                    if !check_hour(store, hour, &segments, options, *watch, report).await? {
                        report.stopped_in = Some(hour);
                        return Ok(false);
                    }
                }
                TimeSlot::Hour(_) => {}
            }
        }
        Ok(true)
    }

    /// The days in the rolled-up catalog, the logs or the data folders, with the hours of the latter two, in order.
    async fn days(&self) -> Result<Vec<(Path, BTreeSet<TimeSlot>)>, Failure> {
        let mut days: BTreeMap<Path, BTreeSet<TimeSlot>> = BTreeMap::new();
        days.extend(self.rolled_up.folders.iter().map(|folder| (folder.clone(), BTreeSet::new())));
        days.remove(&names::slot(TimeSlot::Wide));
        let of_data = hours_with_data(self.store).await?.into_iter().map(TimeSlot::Hour);
        let of_root = self.rolled_up.hours().map(TimeSlot::Hour);
        for slot in
            self.logs.slots().chain(of_data).chain(of_root).filter(|slot| *slot != TimeSlot::Wide)
        {
            let path = slot.path();
            let day = path.split_once('/').map_or(path.as_str(), |(day, _)| day);
            days.entry(names::catalog().join(day)).or_default().insert(slot);
        }
        let unknown = names::slot(TimeSlot::Hour(Hour::UNKNOWN));
        let mut days: Vec<_> = days.into_iter().collect();
        days.sort_by_key(|(folder, _)| !unknown.as_ref().starts_with(folder.as_ref()));
        Ok(days)
    }
}

/// The segments whose objects lie in an hour, without duplicates, with their state.
fn of_hour(facts: Vec<KnownFact>, hour: Hour) -> Vec<Arc<CatalogSegment>> {
    let (mut segments, mut changes, mut known) = (Vec::new(), Vec::new(), BTreeSet::new());
    for fact in facts {
        match fact {
            KnownFact::Segment(of)
                if of.entry.hour == hour && known.insert(of.entry.name.clone()) =>
            {
                segments.push(of);
            }
            KnownFact::Change(of) => changes.push(of.fact),
            KnownFact::Segment(_) | KnownFact::Listened(_) | KnownFact::Loss(_) => {}
        }
    }
    segment_state::apply(&mut segments, &changes);
    segments
}

fn is_asked_for(hour: Hour, range: TimeRange) -> bool {
    range.is_all() || hour.range().is_some_and(|of| of.intersect(&range).is_some())
}

/// Bytes that checking a segment reads.
fn to_read(segment: &SegmentEntry, deep: bool) -> u64 {
    let read = |layer: &&LayerEntry| deep || layer.layer == Layer::Index.name();
    segment.layers.iter().filter(read).map(|layer| layer.bytes).sum()
}

/// Objects that do not belong in a store.
async fn foreign(store: &Store) -> Result<Vec<Finding>, Failure> {
    let (folders, objects) = store.names_below(&Path::default()).await?;
    let top = folders.into_iter().chain(objects.into_iter().map(|object| object.path));
    let mut foreign: Vec<Path> = top.filter(|path| !names::TOP.contains(&path.as_ref())).collect();
    let mut entries = store
        .list(&names::log(None))
        .chain(store.list(&names::checkpoints()))
        .chain(store.list(&names::writers(None)))
        .chain(store.list(&names::leases()));
    while let Some(Listed { path, .. }) = entries.try_next().await? {
        let is_ours = names::parse_commit(&path).is_some()
            || names::parse_checkpoint(&path).is_some()
            || names::parse_writer(&path).is_some()
            || names::parse_lease(&path).is_some();
        if !is_ours {
            foreign.push(path);
        }
    }
    let finding = |path: Path| Finding { object: path.to_string(), what: What::Foreign };
    Ok(foreign.into_iter().map(finding).collect())
}

/// The hours with a data folder, whether or not a commit names its objects.
pub(crate) async fn hours_with_data(store: &Store) -> Result<BTreeSet<Hour>, Failure> {
    let (dates, _) = store.names_below(&names::data()).await?;
    let mut hours = BTreeSet::new();
    for date in dates {
        let (below, _) = store.names_below(&date).await?;
        hours.extend(below.iter().filter_map(names::parse_data_of));
    }
    Ok(hours)
}

/// Checks the segments that lie in an hour's folder. False if it was stopped.
async fn check_hour(
    store: &Store,
    hour: Hour,
    segments: &[Arc<CatalogSegment>],
    options: &Options,
    watch: &impl Watch,
    report: &mut Report,
) -> Result<bool, Failure> {
    if watch.is_stopped() {
        return Ok(false);
    }
    let found: Vec<Listed> = store.list(&names::data_of(hour)).try_collect().await?;
    let compared = listing::compare(&options.layers, segments, &found, store.now());
    report.objects += found.len() as u64;
    for finding in &compared.findings {
        report.take(finding, watch);
    }
    let unfit = &compared.unfit;
    let mut checked = stream::iter(segments)
        .map(|segment| async move {
            match watch.is_stopped() {
                true => Ok(None),
                false => check_segment(store, segment, options, unfit, watch).await.map(Some),
            }
        })
        .buffered(AT_ONCE);
    while let Some(checked) = checked.try_next().await? {
        let Some((findings, bytes)) = checked else { return Ok(false) };
        report.segments += 1;
        report.bytes += bytes;
        for finding in &findings {
            report.take(finding, watch);
        }
    }
    Ok(true)
}

/// Checks a segment: returns its findings, and the number of bytes read.
async fn check_segment(
    store: &Store,
    segment: &CatalogSegment,
    options: &Options,
    unfit: &BTreeSet<String>,
    watch: &impl Watch,
) -> Result<(Vec<Finding>, u64), Failure> {
    let entry = &*segment.now();
    let (mut findings, mut bytes) = (Vec::new(), 0);
    let mut opened = None;
    // The index layer first: it locates changes in the others.
    for layer in options.layers.all().rev() {
        let path = entry.path(layer);
        let Some(committed) = entry.layer(layer).filter(|_| !unfit.contains(path.as_ref())) else {
            continue;
        };
        let what = match layer {
            Layer::Index => match store.get_if_present(&path).await? {
                None => Some(What::Missing(layer)),
                Some(index) => match entry.open_as(&options.layers, &index) {
                    Ok(index) => {
                        let what = disagreement(&segment.entry, &index);
                        opened = Some(index);
                        what.map(|why| What::Unusable { layer, why, too_new: false })
                    }
                    Err(failure) => Some(unusable(layer, &failure)),
                },
            },
            Layer::Body | Layer::Head | Layer::Packets | Layer::Flows if !options.deep => continue,
            Layer::Body | Layer::Head | Layer::Packets | Layer::Flows => {
                check_layer(store, &path, layer, committed, opened.as_ref()).await?
            }
            Layer::Added(table) => {
                let changed = match options.deep {
                    true => check_layer(store, &path, layer, committed, None).await?,
                    false => None,
                };
                match changed {
                    None => check_directory(store, &path, entry, table).await?,
                    changed => changed,
                }
            }
        };
        findings.extend(what.map(|what| Finding { object: path.to_string(), what }));
        let read = match layer {
            Layer::Added(_) if !options.deep => {
                committed.directory.as_ref().map_or(0, |directory| directory.bytes)
            }
            _ => committed.bytes,
        };
        bytes += read;
        watch.read(read);
    }
    Ok((findings, bytes))
}

/// A contradiction between an `index` layer and the commit about the other layers, if any.
fn disagreement(entry: &SegmentEntry, segment: &Segment) -> Option<String> {
    let said = |layer: Layer| {
        let known = segment.meta().layers.iter().find(|of| of.layer == layer.name())?;
        Some((known.bytes, known.sha256.as_str()))
    };
    let committed = |layer| entry.layer(layer).map(|of| (of.bytes, of.sha256.as_str()));
    // Nor are layers that were added in the index layer.
    let others = Layer::SEALED.into_iter().filter(|layer| *layer != Layer::Index);
    // A layer that was retired is not in the catalog any more.
    let mut unlike = others
        .filter(|layer| committed(*layer).is_some_and(|committed| said(*layer) != Some(committed)));
    let layer = unlike.next()?;
    Some(format!("it was written with another {} layer than the committed one", layer.name()))
}

fn unusable(layer: Layer, failure: &Failure) -> What {
    let too_new = failure.kind() == FailureKind::TooNew;
    What::Unusable { layer, why: with_causes(failure), too_new }
}

/// Opens an added layer by its directory, as a query does.
async fn check_directory(
    store: &Store,
    path: &Path,
    entry: &SegmentEntry,
    table: &'static TableLayer,
) -> Result<Option<What>, Failure> {
    let layer = Layer::Added(table);
    let range = entry.layer(layer).and_then(LayerEntry::directory_range).unwrap_or_default();
    let directory = match range.is_empty() {
        true => Bytes::new(),
        false => match store.get_range_if_present(path, range).await? {
            Some(directory) => directory,
            None => return Ok(Some(What::Missing(layer))),
        },
    };
    let opened = entry.open_added(table, &directory);
    Ok(opened.err().map(|failure| unusable(layer, &failure)))
}

/// Reads a whole layer, piece by piece, and judges it.
async fn check_layer(
    store: &Store,
    path: &Path,
    layer: Layer,
    committed: &LayerEntry,
    segment: Option<&Segment>,
) -> Result<Option<What>, Failure> {
    let mut hasher = Sha256::new();
    for start in (0..committed.bytes).step_by(PIECE as usize) {
        let end = committed.bytes.min(start + PIECE);
        // It may have been deleted after it was listed.
        match store.get_range_if_present(path, start..end).await? {
            Some(piece) => hasher.update(&piece),
            None => return Ok(Some(What::Missing(layer))),
        }
    }
    if hex::encode(hasher.finalize()) == committed.sha256 {
        return Ok(None);
    }
    Ok(Some(match store.get_if_present(path).await? {
        Some(bytes) => {
            let parts = parts(layer, committed, &bytes, segment);
            What::Changed { layer, places: content::places(layer, &bytes, parts.as_deref()) }
        }
        None => What::Missing(layer),
    }))
}

/// The blocks or pages of a layer with their CRC32C; none if its directory is not usable.
fn parts(
    layer: Layer,
    committed: &LayerEntry,
    bytes: &Bytes,
    segment: Option<&Segment>,
) -> Option<Vec<(Range<u64>, u32)>> {
    match layer {
        Layer::Added(table) => {
            let range = committed.directory_range()?;
            let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
            let directory = (range.end <= bytes.len()).then(|| bytes.slice(range))?;
            let known = &committed.directory.as_ref()?.sha256;
            let is_whole = hex::encode(Sha256::digest(&directory)) == *known;
            let opened = is_whole.then(|| AddedTable::open(table, committed.bytes, &directory))?;
            Some(opened.ok()?.parts())
        }
        Layer::Body | Layer::Head | Layer::Packets | Layer::Flows | Layer::Index => {
            Some(segment?.parts(layer))
        }
    }
}
