//! Available and missing extents of one read.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::extent::{Extent, Key, Object};
use super::runs::Runs;

/// Extents still missing.
pub(super) type Missing<'a> = BTreeMap<Key, &'a Extent>;

/// Cached extents and extents from the store.
#[derive(Debug, Default)]
pub(super) struct Found {
    kept: BTreeMap<Key, Bytes>,
    came: Vec<Arc<Runs>>,
}

impl Found {
    pub(super) fn keep(&mut self, key: Key, bytes: Bytes) {
        self.kept.insert(key, bytes);
    }

    pub(super) fn add(&mut self, came: Arc<Runs>) {
        if !self.came.iter().any(|known| Arc::ptr_eq(known, &came)) {
            self.came.push(came);
        }
    }

    /// The bytes of adjacent extents; none if the store has fewer. Copied only if they come from
    /// several buffers.
    pub(super) fn range(&self, object: Object, extents: &[Extent]) -> Option<Bytes> {
        let (Some(first), Some(last)) = (extents.first(), extents.last()) else {
            return Some(Bytes::new());
        };
        let whole = first.range.start..last.range.end;
        if let Some(bytes) = self.came.iter().find_map(|runs| runs.slice(&whole)) {
            return Some(bytes);
        }
        if extents.len() == 1 {
            return self.extent(object, first);
        }
        let length = extents.iter().map(|extent| extent.len() as usize).sum();
        let mut parts = BytesMut::with_capacity(length);
        for extent in extents {
            parts.extend_from_slice(&self.extent(object, extent)?);
        }
        Some(parts.freeze())
    }

    fn extent(&self, object: Object, extent: &Extent) -> Option<Bytes> {
        let kept = self.kept.get(&Key::of(object, extent)).cloned();
        kept.or_else(|| self.came.iter().find_map(|runs| runs.get(&extent.range)))
    }
}
