//! Byte ranges of a committed segment's layers, for the little an import reads back.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use capstan_model::Failure;
use capstan_storage_engine::catalog::SegmentEntry;
use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::segment::reader::Fetch;
use capstan_storage_engine::store::Store;

/// Reads straight from the store, one request a range.
pub(crate) struct StoreFetch<'a> {
    store: &'a Store,
    entry: &'a SegmentEntry,
}

impl<'a> StoreFetch<'a> {
    pub(crate) fn new(store: &'a Store, entry: &'a SegmentEntry) -> Self {
        StoreFetch { store, entry }
    }
}

#[async_trait]
impl Fetch for StoreFetch<'_> {
    async fn fetch(&self, layer: Layer, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Failure> {
        let (path, _) = self.entry.object(layer)?;
        self.store.get_ranges(&path, ranges).await
    }
}
