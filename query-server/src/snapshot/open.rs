//! An opened segment: its `index` layer in memory, the others a request away.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::catalog::SegmentEntry;
use capstan_storage_engine::segment::reader::{Fetch, PayloadPlan, Scan, Segment, Step};
use capstan_storage_engine::segment::{Corrupt, Layer};
use capstan_storage_engine::store::Store;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use super::plan::{self, Plan, coalesce};

/// GETs in flight of one fetch.
const GETS_OF_A_FETCH: usize = 16;

/// A segment whose `index` layer was read and checked.
#[derive(Debug)]
pub struct OpenSegment {
    /// What the catalog says of it.
    entry: SegmentEntry,
    segment: Segment,
    store: Store,
    /// GETs that may be in flight of the whole process.
    gets: Arc<Semaphore>,
}

impl OpenSegment {
    /// Reads and checks the `index` layer: one GET.
    pub(super) async fn open(
        entry: &SegmentEntry,
        store: &Store,
        gets: &Arc<Semaphore>,
    ) -> Result<OpenSegment, Failure> {
        let (path, _) = entry.object(Layer::Index)?;
        let bytes = {
            let _permit = permit(gets).await?;
            store.get(&path).await?
        };
        let segment = entry.open(&bytes)?;
        let (store, gets) = (store.clone(), Arc::clone(gets));
        Ok(OpenSegment { entry: entry.clone(), segment, store, gets })
    }

    /// What the catalog says of it.
    pub fn entry(&self) -> &SegmentEntry {
        &self.entry
    }

    /// What its `index` layer holds. Pass this [`OpenSegment`] to it where it wants a [`Fetch`].
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Whether the segment still has that layer.
    pub fn has(&self, layer: Layer) -> bool {
        self.entry.layer(layer).is_some()
    }

    /// Adds to `plan` what running a scan will fetch.
    ///
    /// # Errors
    /// The scan does not make sense.
    pub fn plan_scan(&self, plan: &mut Plan, mut scan: Scan) -> Result<(), Failure> {
        // A layer is one row group, whose pages are all asked for before its first row.
        let named = |error: Corrupt| error.of(format_args!("segment {}", self.entry.name));
        if let Step::Needs(ranges) = scan.step().map_err(named)? {
            plan.fetch(scan.layer(), &ranges);
        }
        Ok(())
    }

    /// Adds to `plan` what reading payload will fetch.
    pub fn plan_payload(&self, plan: &mut Plan, payload: &PayloadPlan) {
        for (layer, ranges) in self.segment.payload_ranges(payload) {
            plan.fetch(layer, &ranges);
        }
    }
}

#[async_trait]
impl Fetch for OpenSegment {
    async fn fetch(&self, layer: Layer, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Failure> {
        let (path, known) = self.entry.object(layer)?;
        if let Some(outside) = ranges.iter().find(|range| range.end > known.bytes) {
            return Err(Failure::new(
                FailureKind::Damaged,
                format!(
                    "segment {}: bytes {} to {} are wanted of its {} layer of {} bytes",
                    self.entry.name,
                    outside.start,
                    outside.end,
                    layer.name(),
                    known.bytes
                ),
            ));
        }
        let requests = coalesce(ranges);
        let got: Vec<Bytes> = stream::iter(requests.clone())
            .map(|request| {
                let path = &path;
                async move {
                    let _permit = permit(&self.gets).await?;
                    self.store.get_range(path, request).await
                }
            })
            .buffered(GETS_OF_A_FETCH)
            .try_collect()
            .await?;
        plan::cut(ranges, &requests, &got).ok_or_else(|| {
            Failure::new(
                FailureKind::Damaged,
                format!(
                    "segment {}: its {} layer is shorter than was committed",
                    self.entry.name,
                    layer.name()
                ),
            )
        })
    }
}

async fn permit(gets: &Semaphore) -> Result<tokio::sync::SemaphorePermit<'_>, Failure> {
    gets.acquire()
        .await
        .map_err(|error| Failure::caused_by(FailureKind::Interrupted, "reading was stopped", error))
}
