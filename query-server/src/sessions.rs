//! Statements and exports over a store that goes on growing: what [`flight::serve`] and the
//! command line answer from.
//!
//! The catalog is read again when what is known is older than [`Options::freshness`]. Opened
//! segments and the memory of all queries are shared, and tables until something is committed.
//!
//! [`flight::serve`]: crate::flight::serve()

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::cache::Cache;
use capstan_storage_engine::store::Store;
use datafusion::execution::SessionState;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::SessionContext;
use futures::stream::BoxStream;
use tokio::sync::Mutex;

use crate::export::{self, Export};
use crate::flight::{ExportRequest, Sessions, session_config};
use crate::select::Selection;
use crate::snapshot::{CACHE_BYTES, FRESHNESS, Latest, Snapshot};
use crate::tables;

/// Consumers of memory that are named when there is no more.
const NAMED_CONSUMERS: usize = 3;

/// How a store is answered from.
#[derive(Debug, Clone)]
pub struct Options {
    /// How old the catalog may be that an answer is from.
    pub freshness: Duration,
    /// What keeps pieces of segments.
    pub cache: Cache,
    /// Memory that all queries together may take for what they collect (joins, sorts, groups)
    /// and for what scans have fetched, bytes. What does not fit is spilled where that can be
    /// done; else the query is refused.
    pub memory: usize,
    /// Memory that one export may take for packets, bytes.
    pub export_memory: usize,
    /// Where temporary files go; the system's place for them if none.
    pub spill: Option<PathBuf>,
    /// Parts of a query that run at the same time; as many as there are processors if none.
    pub partitions: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            freshness: FRESHNESS,
            cache: Cache::in_memory(CACHE_BYTES),
            memory: 512 << 20,
            export_memory: export::MEMORY,
            spill: None,
            partitions: None,
        }
    }
}

/// A store, as it is now.
#[derive(Debug)]
pub struct StoreSessions {
    latest: Arc<Latest>,
    options: Options,
    runtime: Arc<RuntimeEnv>,
    tables: Mutex<Option<Tables>>,
}

/// Tables over a snapshot.
struct Tables {
    snapshot: Arc<Snapshot>,
    state: SessionState,
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

impl StoreSessions {
    /// Reads the catalog of a store.
    ///
    /// # Errors
    /// What the store says; the place for temporary files cannot be used.
    pub async fn open(store: Store, options: Options) -> Result<StoreSessions, Failure> {
        let latest = Latest::load(store, options.cache.clone(), options.freshness).await?;
        StoreSessions::over(Arc::new(latest), options)
    }

    /// Over a store that others follow, too; how fresh it is, is theirs to say.
    ///
    /// # Errors
    /// The place for temporary files cannot be used.
    pub fn over(latest: Arc<Latest>, options: Options) -> Result<StoreSessions, Failure> {
        let runtime = runtime(&options)?;
        Ok(StoreSessions { latest, options, runtime, tables: Mutex::new(None) })
    }

    /// What follows the store.
    pub fn latest(&self) -> &Arc<Latest> {
        &self.latest
    }

    /// The tables of the store as it is now.
    async fn tables(&self) -> Result<SessionState, Failure> {
        let snapshot = self.latest.get().await?;
        let mut tables = self.tables.lock().await;
        match &*tables {
            Some(known) if Arc::ptr_eq(&known.snapshot, &snapshot) => Ok(known.state.clone()),
            _ => {
                let state = make_tables(&snapshot, &self.options, &self.runtime)?;
                *tables = Some(Tables { snapshot, state: state.clone() });
                Ok(state)
            }
        }
    }
}

fn runtime(options: &Options) -> Result<Arc<RuntimeEnv>, Failure> {
    let failed = |error| {
        Failure::caused_by(FailureKind::Usage, "temporary files cannot be used there", error)
    };
    let pool = TrackConsumersPool::new(
        FairSpillPool::new(options.memory),
        std::num::NonZeroUsize::new(NAMED_CONSUMERS).unwrap_or(std::num::NonZeroUsize::MIN),
    );
    let mode = match &options.spill {
        Some(place) => DiskManagerMode::Directories(vec![place.clone()]),
        None => DiskManagerMode::OsTmpDirectory,
    };
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(mode))
        .build_arc()
        .map_err(failed)
}

fn make_tables(
    snapshot: &Arc<Snapshot>,
    options: &Options,
    runtime: &Arc<RuntimeEnv>,
) -> Result<SessionState, Failure> {
    let mut config = session_config();
    if let Some(partitions) = options.partitions {
        config = config.with_target_partitions(partitions.max(1));
    }
    tables::session(snapshot, config, Arc::clone(runtime))
}

#[async_trait]
impl Sessions for StoreSessions {
    async fn session(&self) -> Result<SessionContext, Failure> {
        Ok(SessionContext::new_with_state(self.tables().await?))
    }

    async fn export(
        &self,
        request: ExportRequest,
    ) -> Result<BoxStream<'static, Result<Bytes, Failure>>, Failure> {
        let snapshot = self.latest.get().await?;
        let mut what = Export::new(Selection::from(&request), request.order);
        what.memory = self.options.export_memory.max(export::LEAST_MEMORY);
        if let Some(place) = &self.options.spill {
            what.spill = place.clone();
        }
        Ok(export::stream(snapshot, what))
    }
}
