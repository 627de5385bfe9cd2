//! Byte ranges of a committed segment's layers, straight from the store.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use capstan_model::Failure;

use crate::catalog::SegmentEntry;
use crate::segment::Layer;
use crate::segment::reader::Fetch;
use crate::store::Store;

/// Reads a segment without a cache, for who reads little of it or all of it once.
#[derive(Debug)]
pub struct StoreFetch<'a> {
    store: &'a Store,
    entry: &'a SegmentEntry,
}

impl<'a> StoreFetch<'a> {
    /// Reads a segment of a store.
    pub fn new(store: &'a Store, entry: &'a SegmentEntry) -> Self {
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
