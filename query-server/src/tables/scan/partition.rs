//! Reads the segments of one partition, one after the other, and opens the next ones meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;

use capstan_model::{Failure, FailureKind};
use capstan_storage_engine::catalog::{Segment, SegmentEntry};
use capstan_view::access::hidden_gap;
use capstan_view::{Ahead, Cost, PinnedView, ScopedView, may_skip};
use datafusion::arrow::array::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder,
};

use super::ScanExec;
use crate::tables::flow_rows::Constants;
use crate::tables::segment_table::{SegmentRequest, SegmentRows};
use crate::tables::skipped::Skipped;
use crate::tables::source::CountingFetch;

/// Rows of one batch at most.
const BATCH_ROWS: usize = 8_192;

/// Memory that segments opened ahead may take in one partition, bytes.
const AHEAD_BYTES: usize = 8 << 20;

async fn open(view: &ScopedView, segment: &Segment) -> Result<(CountingFetch, Constants), Failure> {
    let was_kept = view.is_kept(segment);
    let source = CountingFetch::new(view.open(segment).await?, was_kept);
    let constants = Constants::new(&segment.of, source.open())?;
    Ok((source, constants))
}

/// Adds the name of the damaged segment to a failure, if it is missing.
fn named(segment: &str, failure: Failure) -> Failure {
    if failure.kind() != FailureKind::Damaged || failure.to_string().contains(segment) {
        return failure;
    }
    Failure::caused_by(FailureKind::Damaged, format!("segment {segment} cannot be read"), failure)
}

/// The cost of reading a segment.
///
/// # Errors
/// Any failure of the store.
pub(super) async fn cost(
    view: Arc<PinnedView>,
    request: Arc<dyn SegmentRequest>,
    segment: Arc<Segment>,
) -> Result<Cost, Failure> {
    let (source, constants) = open(&view, &segment).await?;
    request.cost(source, constants).await
}

/// Opens a segment and fetches what its first rows need.
async fn start(
    view: Arc<PinnedView>,
    request: Arc<dyn SegmentRequest>,
    segment: Arc<Segment>,
    memory: MemoryReservation,
) -> Result<Box<dyn SegmentRows>, Failure> {
    let start = async {
        let (source, constants) = open(&view, &segment).await?;
        request.start(source, constants, memory).await
    };
    start.await.map_err(|failure| named(&segment.entry.name, failure))
}

/// A segment that is opened while another one is read.
type Opening = (Arc<Segment>, SpawnedTask<Result<Box<dyn SegmentRows>, Failure>>);

/// One partition while it is read.
pub(super) struct Partition {
    view: Arc<PinnedView>,
    request: Arc<dyn SegmentRequest>,
    /// Segments still to be opened, the next one last.
    segments: Vec<Arc<Segment>>,
    /// The next segments, in order.
    opening: VecDeque<Opening>,
    ahead: Ahead,
    rows: Option<Box<dyn SegmentRows>>,
    /// Rows that were read and are not returned yet.
    batch: Option<RecordBatch>,
    limit: Option<usize>,
    /// The batch size of the statement, in rows.
    batch_rows: usize,
    memory: MemoryReservation,
    metrics: Counts,
    /// Records what cannot be read; if none, a failure ends the answer.
    skipped: Option<Arc<Skipped>>,
}

/// The metrics of `EXPLAIN ANALYZE`.
struct Counts {
    baseline: BaselineMetrics,
    /// None under a mask.
    reads: Option<ReadCounts>,
}

/// What was read.
struct ReadCounts {
    segments: Count,
    objects: Count,
    requests: Count,
    bytes: Count,
    cached: Count,
}

impl Counts {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize, masked: bool) -> Self {
        let count = |name: &'static str| MetricBuilder::new(metrics).counter(name, partition);
        let reads = || ReadCounts {
            segments: count("segments_opened"),
            objects: count("objects_read"),
            requests: count("requests"),
            bytes: count("bytes_scanned"),
            cached: count("bytes_cached"),
        };
        let baseline = BaselineMetrics::new(metrics, partition);
        Counts { baseline, reads: (!masked).then(reads) }
    }

    fn add(&self, cost: Cost) {
        let Some(reads) = &self.reads else { return };
        let count = |count: &Count, by: u64| count.add(usize::try_from(by).unwrap_or(usize::MAX));
        reads.segments.add(1);
        count(&reads.objects, cost.objects);
        count(&reads.requests, cost.requests);
        count(&reads.bytes, cost.bytes);
        count(&reads.cached, cost.cached);
    }
}

impl Partition {
    /// Nothing is read before the first rows are asked for.
    pub(super) fn new(
        scan: &ScanExec,
        mut segments: Vec<Arc<Segment>>,
        memory: MemoryReservation,
        partition: usize,
        batch_rows: usize,
        skipped: Option<Arc<Skipped>>,
    ) -> Self {
        segments.reverse();
        Partition {
            view: Arc::clone(&scan.view),
            request: Arc::clone(&scan.request),
            segments,
            opening: VecDeque::new(),
            ahead: Ahead::new(scan.view.is_remote(), AHEAD_BYTES),
            rows: None,
            batch: None,
            limit: scan.limit,
            batch_rows,
            memory,
            metrics: Counts::new(&scan.metrics, partition, scan.is_masked()),
            skipped,
        }
    }

    /// Opens segments until there are so many that are not read yet.
    fn open_ahead(&mut self, many: usize) {
        while self.opening.len() < many
            && let Some(segment) = self.segments.pop()
        {
            let rows = start(
                Arc::clone(&self.view),
                Arc::clone(&self.request),
                Arc::clone(&segment),
                self.memory.new_empty(),
            );
            self.opening.push_back((segment, SpawnedTask::spawn(rows)));
        }
    }

    /// The next rows; none if there are no more.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, Failure> {
        if self.limit == Some(0) {
            return Ok(None);
        }
        loop {
            if let Some(batch) = self.batch.take() {
                let batch = self.cut(batch);
                self.metrics.baseline.record_output(batch.num_rows());
                return Ok(Some(batch));
            }
            if let Some(rows) = &mut self.rows {
                match rows.next().await {
                    Ok(Some(batch)) if batch.num_rows() == 0 => {}
                    Ok(Some(batch)) => self.batch = Some(batch),
                    Ok(None) => {
                        self.metrics.add(rows.source().sent());
                        self.rows = None;
                    }
                    Err(failure) => {
                        let entry = rows.source().open().entry();
                        let failure = named(&entry.name, failure);
                        skip(&self.view, self.skipped.as_deref(), entry, failure)?;
                        if !rows.goes_on() {
                            self.rows = None;
                        }
                    }
                }
                continue;
            }
            // With a limit the next segment may not be needed at all.
            let limited = self.limit.is_some();
            self.open_ahead(if limited { 1 } else { self.ahead.depth() });
            let Some((segment, opening)) = self.opening.pop_front() else { return Ok(None) };
            let rows = opening.join_unwind().await.map_err(|error| {
                Failure::caused_by(FailureKind::Interrupted, "reading was stopped", error)
            })?;
            match rows {
                Ok(rows) => {
                    let segment = rows.source().open().memory();
                    self.ahead.opened(segment.saturating_add(rows.memory()));
                    self.rows = Some(rows);
                }
                Err(failure) if failure.kind() == FailureKind::Full && self.ahead.depth() > 1 => {
                    self.take_back(segment);
                    continue;
                }
                Err(failure) => {
                    skip(&self.view, self.skipped.as_deref(), &segment.entry, failure)?;
                }
            }
            if !limited {
                self.open_ahead(self.ahead.depth());
            }
        }
    }

    /// There was not enough memory for a segment, because others were opened ahead. Closes those, and continues
    /// with one segment at a time.
    fn take_back(&mut self, segment: Arc<Segment>) {
        self.ahead.limit_to_one();
        self.segments.extend(self.opening.drain(..).rev().map(|(segment, _)| segment));
        self.segments.push(segment);
    }

    /// The first rows of a batch; the others are kept for later.
    fn cut(&mut self, batch: RecordBatch) -> RecordBatch {
        let at_a_time = rows_at_a_time(&batch, self.batch_rows);
        let most = self.limit.unwrap_or(usize::MAX).min(at_a_time);
        let now = batch.num_rows().min(most);
        if now < batch.num_rows() {
            self.batch = Some(batch.slice(now, batch.num_rows() - now));
        }
        if let Some(limit) = &mut self.limit {
            *limit -= now;
        }
        batch.slice(0, now)
    }
}

/// Continues without unreadable data, if it can be recorded.
fn skip(
    view: &PinnedView,
    skipped: Option<&Skipped>,
    entry: &SegmentEntry,
    failure: Failure,
) -> Result<(), Failure> {
    let failure = view.note_sweep(failure);
    match skipped {
        Some(skipped) if may_skip(&failure) => {
            match view.who().is_masked() {
                true => skipped.add_gap(&hidden_gap()),
                false => skipped.add(entry, &failure),
            }
            Ok(())
        }
        _ => Err(failure),
    }
}

/// Rows without columns are only counted, so they weigh nothing.
fn rows_at_a_time(batch: &RecordBatch, most: usize) -> usize {
    if batch.num_columns() == 0 { usize::MAX } else { most.min(BATCH_ROWS) }
}
