//! Data objects of a store, read through the cache.

use std::ops::Range;
use std::sync::Arc;

use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::cache::{Cache, Extent, Keep, Object, Read, Runs};
use capstan_storage_engine::catalog::SegmentEntry;
use capstan_storage_engine::segment::{Layer, Layers};
use capstan_storage_engine::store::Store;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::plan::{GapRule, coalesce};

/// Concurrent GETs of all readers of one store in this process.
pub(super) const GETS_IN_FLIGHT: usize = 64;

/// Concurrent GETs of one fetch.
const GETS_OF_A_FETCH: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) store: Store,
    pub(super) cache: Cache,
    pub(super) gaps: GapRule,
    /// The layers that are known.
    pub(super) layers: Layers,
    /// Limits the concurrent GETs of the whole process.
    gets: Arc<Semaphore>,
}

impl Objects {
    pub(super) fn new(store: Store, cache: Cache, layers: Layers) -> Objects {
        let (gaps, gets) = (GapRule::of(&store), Arc::new(Semaphore::new(GETS_IN_FLIGHT)));
        Objects { store, cache, gaps, layers, gets }
    }

    /// Reads ranges of a layer; each range is returned as its extents. Sends few requests, and only for what is
    /// not cached.
    ///
    /// # Errors
    /// Any failure of the store; of kind `Damaged` if the layer is too short.
    pub(super) async fn read(
        &self,
        entry: &SegmentEntry,
        layer: Layer,
        keep: Keep,
        ranges: &[Vec<Extent>],
    ) -> Result<Read, Failure> {
        let (path, _) = entry.object(layer)?;
        let gaps = self.gaps;
        let get = |missing: Vec<Range<u64>>| {
            let (store, gets, path) = (self.store.clone(), Arc::clone(&self.gets), path.clone());
            async move {
                if layer == Layer::Index {
                    // Reads the whole object, so that a short layer is reported as damaged and not as a bad
                    // request.
                    let _permit = permit(&gets).await?;
                    let came = store.get(&path).await?;
                    return Ok(Runs::new(&missing, vec![came]));
                }
                let requests = coalesce(&missing, gaps);
                let get = |request| async {
                    let _permit = permit(&gets).await?;
                    store.get_range(&path, request).await
                };
                let came = stream::iter(requests.clone()).map(get).buffered(GETS_OF_A_FETCH);
                Ok(Runs::new(&requests, came.try_collect().await?))
            }
        };
        self.cache.read(Object::of(&self.store, &path), keep, ranges, get).await
    }

    /// How many bytes of these extents of a layer are cached.
    pub(super) fn bytes_kept(
        &self,
        entry: &SegmentEntry,
        layer: Layer,
        extents: &[Vec<Extent>],
    ) -> u64 {
        let object = Object::of(&self.store, &entry.path(layer));
        self.cache.bytes_kept(object, extents.iter().flatten())
    }
}

async fn permit(gets: &Semaphore) -> Result<SemaphorePermit<'_>, Failure> {
    gets.acquire()
        .await
        .map_err(|error| Failure::caused_by(FailureKind::Interrupted, "reading was stopped", error))
}
