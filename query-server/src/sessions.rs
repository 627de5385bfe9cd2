//! Statements, exports, status and metrics of a store that keeps growing. [`flight::serve`], HTTP and the command
//! line answer from this, each question for a [`Principal`].
//!
//! The catalog is read again when the loaded one is older than [`Options::freshness`]. All queries share opened
//! segments and the memory budget; those of one principal share tables until the next commit.
//!
//! [`flight::serve`]: crate::flight::serve()

mod metrics;
mod status;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use capstan_export::{Export, Order};
use capstan_model::metrics::MetricsText;
use capstan_model::{Failure, FailureKind, TimeRange};
use capstan_storage_engine::cache::Cache;
use capstan_storage_engine::store::Store;
use capstan_view::access::{Principal, Right};
use capstan_view::select::Selection;
use capstan_view::{CACHE_BYTES, FRESHNESS, LatestView, OPENED_BYTES, ScopedView};
use datafusion::execution::SessionState;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::Mutex;

pub use self::status::Status;
use crate::flight::{ExportRequest, Sessions, session_config};
use crate::questions::{Limits, Questions, StoppablePool};
use crate::tables;

/// Number of memory consumers that an out-of-memory error names.
const NAMED_CONSUMERS: usize = 3;

/// The share of the memory budget, 1 of so many, for what operators collect (joins, sorts, groups) and scans
/// prefetch. Beyond it operators spill to disk if they can; otherwise the query is refused. Operators use about
/// as much again that they do not report.
const COLLECTED_SHARE: usize = 2;

/// The share of the memory budget that one export may use: 1 of so many.
const EXPORT_SHARE: usize = 4;

/// Options for answering from a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// Maximal age of the catalog behind an answer.
    pub freshness: Duration,
    /// The cache for pieces of segments.
    pub cache: Cache,
    /// Memory of opened segments, bytes.
    pub opened_memory: usize,
    /// Limits of queries and exports.
    pub limits: Limits,
    /// Memory of one export for packets, bytes; at most a quarter of the memory budget.
    pub export_memory: usize,
    /// Folder for temporary files; the system's if none.
    pub spill: Option<PathBuf>,
    /// Partitions of a query that run concurrently; the number of processors if none.
    pub partitions: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            freshness: FRESHNESS,
            cache: Cache::in_memory(CACHE_BYTES),
            opened_memory: OPENED_BYTES,
            limits: Limits::default(),
            export_memory: capstan_export::MEMORY,
            spill: None,
            partitions: None,
        }
    }
}

/// A store that is followed as it grows.
#[derive(Debug)]
pub struct StoreSessions {
    latest: Arc<LatestView>,
    options: Options,
    runtime: Arc<RuntimeEnv>,
    questions: Questions,
    tables: Mutex<Tables>,
}

/// The tables over the newest view, those used last at the end.
#[derive(Default)]
struct Tables {
    /// One of that view, for any principal.
    view: Option<ScopedView>,
    of: Vec<(Arc<Principal>, SessionState)>,
}

/// Principals whose tables are kept.
const KEPT: usize = 64;

impl Tables {
    /// The tables over a view for its principal; `make` makes them if there are none.
    fn get(
        &mut self,
        view: &ScopedView,
        make: impl FnOnce() -> Result<SessionState, Failure>,
    ) -> Result<SessionState, Failure> {
        if self.view.as_ref().is_none_or(|known| !known.is_same(view)) {
            *self = Tables { view: Some(view.clone()), of: Vec::new() };
        }
        let who = view.who();
        let known = self.of.iter().position(|(known, _)| known == who);
        let state = match known {
            Some(place) => self.of.remove(place).1,
            None => make()?,
        };
        if self.of.len() == KEPT {
            self.of.remove(0);
        }
        self.of.push((Arc::clone(who), state.clone()));
        Ok(state)
    }
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
    /// Any failure of the store; the folder for temporary files cannot be used.
    pub async fn open(store: Store, options: Options) -> Result<StoreSessions, Failure> {
        let (cache, opened) = (options.cache.clone(), options.opened_memory);
        let latest = LatestView::load_within(store, cache, opened, options.freshness).await?;
        StoreSessions::over(Arc::new(latest), options)
    }

    /// Shares a followed store with other users, whose freshness applies.
    ///
    /// # Errors
    /// The folder for temporary files cannot be used.
    pub fn over(latest: Arc<LatestView>, options: Options) -> Result<StoreSessions, Failure> {
        let runtime = runtime(&options)?;
        let questions = Questions::new(options.limits.clone());
        Ok(StoreSessions { latest, options, runtime, questions, tables: Mutex::default() })
    }

    /// The newest view of the store.
    #[cfg(test)]
    pub(crate) fn latest(&self) -> &Arc<LatestView> {
        &self.latest
    }

    /// The packets of a selection that a principal may see, as a file; waits for free memory in the budget. Dropping
    /// the stream cancels the work.
    ///
    /// # Errors
    /// Any failure of the store; no free memory within the time-out ([`FailureKind::Unavailable`]). The principal may
    /// not export.
    pub async fn file(
        &self,
        who: &Arc<Principal>,
        selection: Selection,
        order: Order,
    ) -> Result<BoxStream<'static, Result<Bytes, Failure>>, Failure> {
        capstan_export::allowed(who)?;
        let mut what = Export::new(selection, order);
        let share = self.options.limits.memory / EXPORT_SHARE;
        what.memory = self.options.export_memory.min(share).max(capstan_export::LEAST_MEMORY);
        if let Some(place) = &self.options.spill {
            what.spill = place.clone();
        }
        let reserved = self.questions.reserve(what.memory, "this export").await?;
        let pieces = capstan_export::stream(self.view(who).await?, what);
        let kept = move |piece| {
            // Held until the stream is dropped.
            let _ = &reserved;
            piece
        };
        Ok(pieces.map(kept).boxed())
    }

    /// The state of the store: what of it touches a range.
    ///
    /// # Errors
    /// Any failure of the store. The principal lacks [`Right::CatalogRead`].
    pub async fn status(&self, who: &Arc<Principal>, range: TimeRange) -> Result<Status, Failure> {
        Status::of(&self.view(who).await?, range).await
    }

    /// The metrics of this process. They cost no request to the store, so that frequent scrapes cost nothing.
    ///
    /// # Errors
    /// The principal lacks [`Right::CatalogRead`].
    pub fn metrics(&self, who: &Principal) -> Result<MetricsText, Failure> {
        who.require(Right::CatalogRead, "metrics")?;
        Ok(metrics::of(self.latest.store(), self.latest.cache()))
    }

    /// The newest view, as a principal sees it.
    async fn view(&self, who: &Arc<Principal>) -> Result<ScopedView, Failure> {
        let latest = self.latest.get().await.map_err(|failure| who.told(failure))?;
        Ok(latest.scoped(who))
    }

    /// The tables of the newest view.
    async fn tables(&self, who: &Arc<Principal>) -> Result<SessionState, Failure> {
        let view = self.view(who).await?;
        let mut tables = self.tables.lock().await;
        tables.get(&view, || make_tables(&view, &self.options, &self.runtime))
    }
}

fn runtime(options: &Options) -> Result<Arc<RuntimeEnv>, Failure> {
    let failed = |error| {
        Failure::caused_by(FailureKind::Usage, "temporary files cannot be used there", error)
    };
    let pool = StoppablePool(TrackConsumersPool::new(
        FairSpillPool::new(options.limits.memory / COLLECTED_SHARE),
        std::num::NonZeroUsize::new(NAMED_CONSUMERS).unwrap_or(std::num::NonZeroUsize::MIN),
    ));
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
    view: &ScopedView,
    options: &Options,
    runtime: &Arc<RuntimeEnv>,
) -> Result<SessionState, Failure> {
    let mut config = session_config();
    if let Some(partitions) = options.partitions {
        config = config.with_target_partitions(partitions.max(1));
    }
    tables::session(view, config, Arc::clone(runtime))
}

#[async_trait]
impl Sessions for StoreSessions {
    async fn session(&self, who: &Arc<Principal>) -> Result<SessionContext, Failure> {
        Ok(SessionContext::new_with_state(self.tables(who).await?))
    }

    fn questions(&self) -> &Questions {
        &self.questions
    }

    async fn export(
        &self,
        who: &Arc<Principal>,
        request: ExportRequest,
    ) -> Result<BoxStream<'static, Result<Bytes, Failure>>, Failure> {
        self.file(who, request.selection, request.order).await
    }
}
