//! A cache for pieces of data objects, in memory and optionally on a local disk.
//!
//! The cache holds *extents*: a page of a Parquet layer, a payload block, a whole `index` layer. A
//! read takes cached extents and fetches the others from the store. Concurrent reads of the same
//! extent share one request (single-flight). Data objects are immutable, so a cached extent is never
//! stale. Catalog objects are not cached here, because readers must ask for newer ones.
//!
//! * Memory keeps what was fetched. [`WeightedCache`] decides the eviction and is scan-resistant.
//! * The disk keeps extents read twice, and `index` layers from the first read. So a single scan
//!   does not fill it.
//! * Bytes from the store are kept only if their checksum is right, and bytes from the disk are used
//!   only if it is. The checksum comes from the `index` layer or the commit.

mod disk;
mod extent;
mod found;
mod in_flight;
mod runs;
mod seen;
mod weighted;

use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use capstan_model::{Failure, FailureKind};

use self::disk::Disk;
pub use self::disk::DiskSettings;
use self::extent::Key;
pub use self::extent::{Check, Extent, Object};
use self::found::{Found, Missing};
use self::in_flight::{Fetching, InFlight};
pub use self::runs::Runs;
use self::seen::Seen;
pub use self::weighted::WeightedCache;

/// An extent larger than this fraction of the memory is not cached: it would be copied and evicted at once.
const MOST_OF_MEMORY: usize = 4;

/// Settings of a cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheSettings {
    /// Memory that extents may take, bytes.
    pub memory: usize,
    /// The disk cache, if enabled.
    pub disk: Option<DiskSettings>,
}

/// The extent cache; see the module. Clones share it.
#[derive(Debug, Clone)]
pub struct Cache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    memory: WeightedCache<Key, Bytes>,
    disk: Option<Arc<Disk>>,
    /// Keys to write to the disk on their next read.
    seen: Mutex<Seen>,
    in_flight: Arc<InFlight>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    from_memory: AtomicU64,
    from_disk: AtomicU64,
    from_flight: AtomicU64,
    misses: AtomicU64,
}

fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

/// Counters and sizes of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheCounts {
    /// Extents served from memory.
    pub from_memory: u64,
    /// Extents served from the disk.
    pub from_disk: u64,
    /// Extents served by the request of another read.
    pub from_flight: u64,
    /// Extents fetched from the store.
    pub misses: u64,
    /// Files with a wrong checksum or length.
    pub corrupt: u64,
    /// Files that could not be read or written.
    pub failed: u64,
    /// Bytes kept in memory.
    pub memory_bytes: u64,
    /// Bytes kept on the disk.
    pub disk_bytes: u64,
}

/// Where to keep an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// In memory, and on the disk from the second read on.
    AsAsked,
    /// On the disk from the first read on. The caller keeps it in memory in another form.
    OnDisk,
}

/// The result of a read.
#[derive(Debug)]
pub struct Read {
    /// The bytes of each requested range, in order.
    pub bytes: Vec<Bytes>,
    /// Ranges that this read fetched from the store.
    pub fetched: Vec<Range<u64>>,
}

impl Cache {
    /// An empty cache, except for the existing content of its disk.
    ///
    /// # Errors
    /// The disk folder cannot be created or written, other users may read it, or another process uses it.
    pub async fn open(settings: CacheSettings) -> Result<Cache, Failure> {
        let disk = match settings.disk {
            Some(disk) => Some(Arc::new(Disk::open(disk).await?)),
            None => None,
        };
        Ok(Cache::of(settings.memory, disk))
    }

    /// A cache in memory only, of `bytes` bytes.
    pub fn in_memory(bytes: usize) -> Cache {
        Cache::of(bytes, None)
    }

    fn of(memory: usize, disk: Option<Arc<Disk>>) -> Cache {
        let shared = Shared {
            memory: WeightedCache::new(memory),
            seen: Mutex::new(Seen::new(disk.as_ref().map_or(0, |disk| disk.room()))),
            disk,
            in_flight: Arc::default(),
            counters: Counters::default(),
        };
        Cache { shared: Arc::new(shared) }
    }

    /// Reads ranges of an object, each as a list of extents. `get` fetches the missing extents in a
    /// task that runs as long as any read waits for it.
    ///
    /// Extents that are damaged in the store are returned anyway: the reader checks them too and
    /// reports the damage.
    ///
    /// # Errors
    /// The error of `get`; kind `Damaged` if it returned too few bytes.
    pub async fn read<G, F>(
        &self,
        object: Object,
        keep: Keep,
        ranges: &[Vec<Extent>],
        get: G,
    ) -> Result<Read, Failure>
    where
        G: Fn(Vec<Range<u64>>) -> F,
        F: Future<Output = Result<Runs, Failure>> + Send + 'static,
    {
        let shared = &self.shared;
        let extents = ranges.iter().flatten().map(|extent| (Key::of(object, extent), extent));
        let (mut missing, mut found): (Missing<'_>, _) = (extents.collect(), Found::default());
        shared.look_in_memory(&mut missing, &mut found);
        shared.look_on_disk(keep, &mut missing, &mut found).await;
        let mut fetched = Vec::new();
        // One round, unless a request of another read fails.
        while !missing.is_empty() {
            fetched.extend(shared.fetch(keep, &mut missing, &mut found, &get).await?);
        }
        let bytes: Option<Vec<Bytes>> =
            ranges.iter().map(|range| found.range(object, range)).collect();
        let short = || {
            Failure::new(FailureKind::Damaged, "the object is shorter than the committed length")
        };
        Ok(Read { bytes: bytes.ok_or_else(short)?, fetched })
    }

    /// How many bytes of the extents are cached. Does not count as a read.
    pub fn bytes_kept<'a>(&self, object: Object, extents: impl Iterator<Item = &'a Extent>) -> u64 {
        let Shared { memory, disk, .. } = &*self.shared;
        let is_kept = |extent: &&Extent| {
            let key = Key::of(object, extent);
            memory.contains(&key) || disk.as_ref().is_some_and(|disk| disk.contains(&key))
        };
        extents.filter(is_kept).map(Extent::len).sum()
    }

    /// Its counters and sizes.
    pub fn counts(&self) -> CacheCounts {
        let Shared { memory, disk, counters, .. } = &*self.shared;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheCounts {
            from_memory: read(&counters.from_memory),
            from_disk: read(&counters.from_disk),
            from_flight: read(&counters.from_flight),
            misses: read(&counters.misses),
            corrupt: disk.as_ref().map_or(0, |disk| disk.corrupt()),
            failed: disk.as_ref().map_or(0, |disk| disk.failed()),
            memory_bytes: memory.bytes() as u64,
            disk_bytes: disk.as_ref().map_or(0, |disk| disk.bytes()),
        }
    }

    /// Waits for pending disk writes.
    pub async fn flush(&self) {
        if let Some(disk) = &self.shared.disk {
            disk.flush().await;
        }
    }
}

impl Shared {
    fn look_in_memory(&self, missing: &mut Missing<'_>, found: &mut Found) {
        let before = missing.len();
        missing.retain(|key, _| match self.memory.get(key) {
            Some(bytes) => {
                // The second read writes it to the disk. An existing file stays as it is.
                if let Some(disk) = &self.disk {
                    disk.write(*key, &bytes);
                }
                found.keep(*key, bytes);
                false
            }
            None => true,
        });
        count(&self.counters.from_memory, before - missing.len());
    }

    async fn look_on_disk(&self, keep: Keep, missing: &mut Missing<'_>, found: &mut Found) {
        let Some(disk) = &self.disk else { return };
        let wanted = missing.iter().map(|(key, extent)| (*key, (*extent).clone())).collect();
        let read = disk.read(wanted).await;
        count(&self.counters.from_disk, read.len());
        for (key, bytes) in read {
            missing.remove(&key);
            if keep == Keep::AsAsked {
                self.memory.insert(key, bytes.clone(), bytes.len());
            }
            found.keep(key, bytes);
        }
    }

    /// Fetches extents without a request in flight, then waits for the requests of other reads.
    /// Afterwards `missing` holds the extents whose requests failed. Returns the ranges fetched from
    /// the store.
    async fn fetch<G, F>(
        self: &Arc<Self>,
        keep: Keep,
        missing: &mut Missing<'_>,
        found: &mut Found,
        get: &G,
    ) -> Result<Vec<Range<u64>>, Failure>
    where
        G: Fn(Vec<Range<u64>>) -> F,
        F: Future<Output = Result<Runs, Failure>> + Send + 'static,
    {
        let keys: Vec<Key> = missing.keys().copied().collect();
        let boarded = self.in_flight.join(&keys, |key| match self.memory.get(key) {
            Some(bytes) => {
                found.keep(*key, bytes);
                missing.remove(key);
                count(&self.counters.from_flight, 1);
                true
            }
            None => false,
        });
        let own = boarded.fetching.keys().iter().filter_map(|key| missing.remove_entry(key));
        let own: Vec<(Key, Extent)> = own.map(|(key, extent)| (key, extent.clone())).collect();
        let ranges: Vec<_> = own.iter().map(|(_, extent)| extent.range.clone()).collect();
        if !own.is_empty() {
            count(&self.counters.misses, own.len());
            let fetching =
                fetch(Arc::clone(self), boarded.fetching, keep, own, get(ranges.clone()));
            // A separate task: other reads may wait for it while this one waits for something else.
            let arrived = tokio::spawn(fetching).await.map_err(|error| {
                Failure::caused_by(FailureKind::Interrupted, "reading was stopped", error)
            })?;
            found.add(arrived?);
        }
        drop(boarded.waiting);
        for (key, waiting) in boarded.others {
            if let Some(came) = waiting.wait().await {
                missing.remove(&key);
                found.add(came);
                count(&self.counters.from_flight, 1);
            }
        }
        Ok(ranges)
    }

    /// Caches extents with a right checksum.
    fn keep(&self, keep: Keep, extents: &[(Key, Extent)], came: &Runs) {
        let bytes: u64 = extents.iter().map(|(_, extent)| extent.len()).sum();
        let in_memory =
            keep == Keep::AsAsked && bytes <= (self.memory.budget() / MOST_OF_MEMORY) as u64;
        for (key, extent) in extents {
            let disk = self.disk.as_ref().filter(|_| keep == Keep::OnDisk || self.is_seen(*key));
            if !in_memory && disk.is_none() {
                continue;
            }
            let bytes = came.get(&extent.range).filter(|bytes| extent.holds(bytes));
            let Some(bytes) = bytes else { continue };
            if let Some(disk) = disk {
                disk.write(*key, &bytes);
            }
            if in_memory {
                // A slice would keep the whole receive buffer alive, so copy it.
                self.memory.insert(*key, Bytes::copy_from_slice(&bytes), bytes.len());
            }
        }
    }

    fn is_seen(&self, key: Key) -> bool {
        // The data is valid between statements, so a poisoned lock may be used.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).note(key)
    }
}

/// Fetches, caches and distributes extents, unless all waiting reads are dropped.
async fn fetch(
    shared: Arc<Shared>,
    fetching: Fetching,
    keep: Keep,
    extents: Vec<(Key, Extent)>,
    bytes: impl Future<Output = Result<Runs, Failure>>,
) -> Result<Arc<Runs>, Failure> {
    let came = tokio::select! {
        came = bytes => Arc::new(came?),
        () = fetching.abandoned() => {
            return Err(Failure::new(FailureKind::Interrupted, "all waiting requests were cancelled"));
        }
    };
    shared.keep(keep, &extents, &came);
    fetching.arrive(Arc::clone(&came));
    Ok(came)
}

#[cfg(test)]
mod tests;
