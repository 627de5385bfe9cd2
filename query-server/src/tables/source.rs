//! Fetches bytes of a segment's layers for a table. Counts the requests, and keeps within the memory limit of
//! the query.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::cache::{Extent, Keep};
use capstan_storage_engine::segment::reader::{AddedTable, Fetch};
use capstan_storage_engine::segment::{Corrupt, Layer, TableLayer};
use capstan_view::{Cost, Plan, ScopedSegment};
use datafusion::execution::memory_pool::MemoryReservation;

/// An opened segment that counts its fetches.
#[derive(Debug)]
pub(super) struct CountingFetch {
    open: Arc<ScopedSegment>,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    /// The requests as if the cache were empty.
    asked: Plan,
    /// The requests sent to the store.
    sent: Plan,
}

impl CountingFetch {
    /// Counts from the `index` layer on, which was read whole to open the segment, unless it was cached.
    pub(super) fn new(open: Arc<ScopedSegment>, was_kept: bool) -> Self {
        let mut counts = Counts { asked: open.new_plan(), sent: open.new_plan() };
        let index = open.entry().layer(Layer::Index).map_or(0, |layer| layer.bytes);
        counts.asked.whole(Layer::Index, index);
        match was_kept {
            true => counts.asked.cached(index),
            false => counts.sent.whole(Layer::Index, index),
        }
        CountingFetch { open, counts: Mutex::new(counts) }
    }

    pub(super) fn open(&self) -> &Arc<ScopedSegment> {
        &self.open
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // The data is valid between statements, so a poisoned lock may be used.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cost of all planned and sent requests as if the cache were empty.
    pub(super) fn cost(&self) -> Cost {
        self.counts().asked.cost()
    }

    /// Requests sent to the store so far, and hits of the cache.
    pub(super) fn sent(&self) -> Cost {
        let counts = self.counts();
        Cost { cached: counts.asked.cost().cached, ..counts.sent.cost() }
    }

    /// Opens a table that was added to the segment: one request for its directory.
    ///
    /// # Errors
    /// Any failure of the store; the table is damaged, or has a newer format.
    pub(super) async fn open_added(
        &self,
        layer: &'static TableLayer,
    ) -> Result<AddedFetch<'_>, Failure> {
        let directory = self.open.directory(layer)?;
        let bytes = self.read(Layer::Added(layer), Keep::OnDisk, &[vec![directory]]).await?;
        let table = self.open.entry().open_added(layer, &bytes.concat().into())?;
        Ok(AddedFetch { source: self, layer: Layer::Added(layer), table })
    }

    async fn read(
        &self,
        layer: Layer,
        keep: Keep,
        extents: &[Vec<Extent>],
    ) -> Result<Vec<Bytes>, Failure> {
        self.plan(|plan| self.open.add_extents(plan, layer, extents));
        let read = self.open.read_extents(layer, keep, extents).await?;
        self.counts().sent.fetch(layer, &read.fetched);
        Ok(read.bytes)
    }

    /// Counts future requests.
    pub(super) fn plan<T>(&self, count: impl FnOnce(&mut Plan) -> T) -> T {
        count(&mut self.counts().asked)
    }
}

#[async_trait]
impl Fetch for CountingFetch {
    async fn fetch(&self, layer: Layer, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Failure> {
        self.plan(|plan| self.open.add_fetch(plan, layer, ranges));
        let read = self.open.read(layer, ranges).await?;
        self.counts().sent.fetch(layer, &read.fetched);
        Ok(read.bytes)
    }
}

/// A table that was added to a segment, and the fetches of its pages.
pub(super) struct AddedFetch<'a> {
    source: &'a CountingFetch,
    layer: Layer,
    table: AddedTable,
}

impl AddedFetch<'_> {
    pub(super) fn table(&self) -> &AddedTable {
        &self.table
    }

    /// Counts the future fetch of some pages.
    ///
    /// # Errors
    /// A range does not consist of whole pages.
    pub(super) fn plan(&self, ranges: &[Range<u64>]) -> Result<(), Failure> {
        let extents = self.extents(ranges)?;
        self.source.plan(|plan| self.source.open.add_extents(plan, self.layer, &extents));
        Ok(())
    }

    /// Fetches some pages.
    ///
    /// # Errors
    /// Any failure of the store; of kind `Full` if the query has not enough memory.
    pub(super) async fn fetch(
        &self,
        ranges: &[Range<u64>],
        memory: &MemoryReservation,
    ) -> Result<Vec<Bytes>, Failure> {
        reserve_ranges(memory, ranges)?;
        self.source.read(self.layer, Keep::AsAsked, &self.extents(ranges)?).await
    }

    fn extents(&self, ranges: &[Range<u64>]) -> Result<Vec<Vec<Extent>>, Failure> {
        let extents = ranges.iter().map(|range| self.table.extents(range));
        extents.collect::<Option<_>>().ok_or_else(|| {
            Corrupt::new(self.layer.name(), "a range is not a sequence of whole pages").into()
        })
    }
}

/// Reserves memory of a query.
///
/// # Errors
/// Of kind `Full`: there is not enough.
pub(super) fn reserve(memory: &MemoryReservation, bytes: u64) -> Result<(), Failure> {
    memory.try_grow(usize::try_from(bytes).unwrap_or(usize::MAX)).map_err(|error| {
        Failure::caused_by(FailureKind::Full, "the query exceeds its memory limit", error)
    })
}

/// Reserves memory for the bytes of some ranges.
///
/// # Errors
/// As [`reserve`].
pub(super) fn reserve_ranges(
    memory: &MemoryReservation,
    ranges: &[Range<u64>],
) -> Result<(), Failure> {
    let bytes = ranges.iter().map(|range| range.end.saturating_sub(range.start));
    reserve(memory, bytes.fold(0, u64::saturating_add))
}

/// Fetched ranges of one layer, to be read again in parts.
#[derive(Debug, Default)]
pub(super) struct PrefetchedRanges {
    /// Ascending and disjoint.
    parts: Vec<(u64, Bytes)>,
}

impl PrefetchedRanges {
    /// Combines ranges with their bytes.
    pub(super) fn new(ranges: &[Range<u64>], bytes: Vec<Bytes>) -> Self {
        let mut parts: Vec<_> = ranges.iter().map(|range| range.start).zip(bytes).collect();
        parts.sort_unstable_by_key(|(start, _)| *start);
        PrefetchedRanges { parts }
    }

    fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        let place = self.parts.partition_point(|(start, _)| *start <= range.start);
        let (start, bytes) = self.parts.get(place.checked_sub(1)?)?;
        let from = usize::try_from(range.start - start).ok()?;
        let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        let end = from.checked_add(length)?;
        (end <= bytes.len()).then(|| bytes.slice(from..end))
    }
}

#[async_trait]
impl Fetch for PrefetchedRanges {
    async fn fetch(&self, layer: Layer, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Failure> {
        ranges
            .iter()
            .map(|range| {
                self.get(range).ok_or_else(|| {
                    Failure::new(
                        FailureKind::Other,
                        format!(
                            "bytes {} to {} of a {} layer were not planned for",
                            range.start,
                            range.end,
                            layer.name()
                        ),
                    )
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn prefetched_ranges_return_only_bytes_that_they_hold() {
        let held = PrefetchedRanges::new(
            &[100..110, 10..14],
            vec![Bytes::from_static(b"0123456789"), Bytes::from_static(b"abcd")],
        );
        let got = held.fetch(Layer::Packets, &[102..105, 10..14, 12..12]).await.expect("held");
        assert_eq!(got, [&b"234"[..], b"abcd", b""]);
        for outside in [9..12, 12..15, 105..111, 50..60] {
            assert!(held.fetch(Layer::Packets, &[outside]).await.is_err());
        }
    }
}
