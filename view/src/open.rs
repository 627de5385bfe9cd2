//! An opened segment. Its `index` layer is in memory; each other layer takes a request.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::cache::{Check, Extent, Keep, Read};
use capstan_storage_engine::catalog::{self, LayerEntry, SegmentEntry};
use capstan_storage_engine::segment::reader::{
    Fetch, PayloadLeft, PayloadPlan, Scan, Segment, Step,
};
use capstan_storage_engine::segment::{Corrupt, Layer, TableLayer};

use super::objects::Objects;
use super::plan::Plan;

/// A segment whose `index` layer was read and checked.
#[derive(Debug)]
pub(super) struct OpenSegment {
    /// The catalog's entry of the segment.
    entry: SegmentEntry,
    segment: Segment,
    payload: PayloadLeft,
    objects: Arc<Objects>,
}

impl OpenSegment {
    /// Reads and checks the `index` layer: one GET, or none if the disk cache has it.
    pub(super) async fn open(
        of: &catalog::Segment,
        objects: &Arc<Objects>,
    ) -> Result<OpenSegment, Failure> {
        let entry = &*of.now();
        let index = [vec![whole(entry.object(Layer::Index)?.1)]];
        let read = objects.read(entry, Layer::Index, Keep::OnDisk, &index).await;
        let read = read.map_err(|failure| named(entry, Layer::Index, failure))?;
        let bytes = read.bytes.into_iter().next().unwrap_or_default();
        let segment = entry.open_as(&objects.layers, &bytes)?;
        let deleted = |layer| of.retired(layer).is_some();
        let payload = match (deleted(Layer::Head), deleted(Layer::Body)) {
            (true, _) => PayloadLeft::Nothing,
            (false, true) => PayloadLeft::Head,
            (false, false) => PayloadLeft::All,
        };
        Ok(OpenSegment { entry: entry.clone(), segment, payload, objects: Arc::clone(objects) })
    }

    /// Whether the cache has the `index` layer of a segment.
    pub(super) fn is_kept(entry: &SegmentEntry, objects: &Objects) -> bool {
        let index = entry.layer(Layer::Index).map(|known| [vec![whole(known)]]);
        index.is_some_and(|index| objects.bytes_kept(entry, Layer::Index, &index) > 0)
    }

    /// The catalog's entry of the segment.
    pub(super) fn entry(&self) -> &SegmentEntry {
        &self.entry
    }

    /// The contents of its `index` layer. Pass this [`OpenSegment`] wherever it wants a [`Fetch`].
    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// How much of its payload retention has left. A layer that is missing for another reason is damage.
    pub(super) fn payload_left(&self) -> PayloadLeft {
        self.payload
    }

    /// A plan of reads of the segment, without any.
    pub(super) fn new_plan(&self) -> Plan {
        Plan::new(self.objects.gaps)
    }

    /// Adds to `plan` what a scan will fetch.
    ///
    /// # Errors
    /// The scan is invalid.
    pub(super) fn plan_scan(&self, plan: &mut Plan, mut scan: Scan) -> Result<(), Failure> {
        // The first step names the pages of all row groups.
        let named = |error: Corrupt| error.of(format_args!("segment {}", self.entry.name));
        if let Step::Needs(ranges) = scan.step().map_err(named)? {
            self.plan_fetch(plan, scan.layer(), &ranges);
        }
        Ok(())
    }

    /// Adds to `plan` what a read of payload will fetch.
    pub(super) fn plan_payload(&self, plan: &mut Plan, payload: &PayloadPlan) {
        for (layer, ranges) in self.segment.payload_ranges(payload) {
            self.plan_fetch(plan, layer, &ranges);
        }
    }

    /// Adds one fetch to `plan`, and how much of it the cache has.
    pub(super) fn plan_fetch(&self, plan: &mut Plan, layer: Layer, ranges: &[Range<u64>]) {
        plan.fetch(layer, ranges);
        if let Some(extents) = self.extents(layer, ranges) {
            plan.cached(self.objects.bytes_kept(&self.entry, layer, &extents));
        }
    }

    /// Like [`Fetch::fetch`], and also returns what was requested from the store.
    ///
    /// # Errors
    /// As [`Fetch::fetch`].
    pub(super) async fn read(&self, layer: Layer, ranges: &[Range<u64>]) -> Result<Read, Failure> {
        let (_, known) = self.entry.object(layer)?;
        let Some(extents) = self.extents(layer, ranges) else {
            let what = format!(
                "segment {}: the requested range of its {} layer of {} bytes is not a sequence of \
                 whole pages or blocks",
                self.entry.name,
                layer.name(),
                known.bytes
            );
            return Err(Failure::new(FailureKind::Damaged, what));
        };
        self.read_extents(layer, Keep::AsAsked, &extents).await
    }

    /// Reads ranges whose extents are known.
    ///
    /// # Errors
    /// As [`Fetch::fetch`].
    pub(super) async fn read_extents(
        &self,
        layer: Layer,
        keep: Keep,
        extents: &[Vec<Extent>],
    ) -> Result<Read, Failure> {
        let read = self.objects.read(&self.entry, layer, keep, extents).await;
        read.map_err(|failure| named(&self.entry, layer, failure))
    }

    /// Adds one fetch of ranges whose extents are known to `plan`, and how much of it the cache has.
    pub(super) fn plan_extents(&self, plan: &mut Plan, layer: Layer, extents: &[Vec<Extent>]) {
        let range =
            |extents: &Vec<Extent>| Some(extents.first()?.range.start..extents.last()?.range.end);
        let ranges: Vec<_> = extents.iter().filter_map(range).collect();
        plan.fetch(layer, &ranges);
        plan.cached(self.objects.bytes_kept(&self.entry, layer, extents));
    }

    /// The directory of a table that was added to the segment.
    ///
    /// # Errors
    /// The segment does not have the table; its entry names no directory.
    pub(super) fn directory(&self, layer: &'static TableLayer) -> Result<Extent, Failure> {
        let (_, known) = self.entry.object(Layer::Added(layer))?;
        let directory = known.directory.as_ref().zip(known.directory_range());
        let (entry, range) = directory.ok_or_else(|| {
            let what =
                format!("segment {}: its {} layer has no directory", self.entry.name, layer.name);
            Failure::new(FailureKind::Damaged, what)
        })?;
        Ok(Extent { range, check: Check::Sha256(entry.sha256.clone()) })
    }

    /// The extents of each range; none if a range does not consist of whole extents.
    fn extents(&self, layer: Layer, ranges: &[Range<u64>]) -> Option<Vec<Vec<Extent>>> {
        let extents = |range: &Range<u64>| match range.is_empty() {
            true => Some(Vec::new()),
            false => self.segment.extents(layer, range),
        };
        ranges.iter().map(extents).collect()
    }
}

/// A layer as one extent.
fn whole(layer: &LayerEntry) -> Extent {
    Extent { range: 0..layer.bytes, check: Check::Sha256(layer.sha256.clone()) }
}

/// Adds the name of the damaged layer to a failure.
fn named(entry: &SegmentEntry, layer: Layer, failure: Failure) -> Failure {
    if failure.kind() != FailureKind::Damaged {
        return failure;
    }
    let what = format!("segment {}: its {} layer is damaged", entry.name, layer.name());
    Failure::caused_by(FailureKind::Damaged, what, failure)
}

#[async_trait]
impl Fetch for OpenSegment {
    async fn fetch(&self, layer: Layer, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Failure> {
        self.read(layer, ranges).await.map(|read| read.bytes)
    }
}
