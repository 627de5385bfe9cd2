//! The scan of a table over the layers of segments: an execution plan with one partition for each group of segments,
//! which streams rows segment by segment.

mod partition;

use std::fmt;
use std::sync::Arc;

use capstan_model::{Hour, RecorderId, TimeRange};
use capstan_storage_engine::catalog::{Gap, Segment};
use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::store::Requests;
use capstan_view::{Cost, Deleted, PinnedView};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions, StatisticsArgs,
};
use futures::{StreamExt, TryStreamExt, stream};

use self::partition::{Partition, cost};
use super::external;
use super::segment_table::SegmentRequest;
use super::skipped::Skipped;
use super::window::Window;

/// Segments whose index and flows are read concurrently to compute the cost of a query.
const PLANNED_AT_ONCE: usize = 8;

/// The same for a store whose requests take time.
const PLANNED_AT_ONCE_REMOTE: usize = 32;

/// The requests of a scan as if the cache were empty, and what is cached.
#[derive(Debug, Clone, Copy, Default)]
struct Planned {
    segments: usize,
    cost: Cost,
}

/// See the module.
#[derive(Debug)]
pub(super) struct ScanExec {
    view: Arc<PinnedView>,
    request: Arc<dyn SegmentRequest>,
    /// Segments of each partition.
    groups: Vec<Vec<Arc<Segment>>>,
    /// Segments of the selected hours, without the pruned ones.
    considered: usize,
    /// See [`capstan_storage_engine::catalog::Window::pruned_by_manifest`].
    pruned_by_manifest: u64,
    /// Segments that do not have a layer without which there are no rows.
    degraded: usize,
    /// What retention deleted of the rows and values that are asked for.
    deleted: Deleted,
    /// Gaps of the catalog that may hide rows.
    gaps: Vec<Gap>,
    limit: Option<usize>,
    planned: Option<Planned>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ScanExec {
    /// Selects the segments that may have rows and distributes them over partitions.
    ///
    /// # Errors
    /// Any failure of the store when hours are loaded for the first time.
    pub(super) async fn new(
        view: Arc<PinnedView>,
        request: Arc<dyn SegmentRequest>,
        partitions: usize,
        limit: Option<usize>,
    ) -> Result<ScanExec> {
        let range = request.window().map_or(TimeRange::ALL, Window::range);
        let hours = view.segments_of(range, request.flows()).await.map_err(external)?;
        let mut considered = 0;
        let mut degraded = 0;
        let mut deleted = view.deleted();
        let needed: Vec<Layer> = request.layers().iter().copied().chain([Layer::Index]).collect();
        let mut chosen: Vec<Arc<Segment>> = Vec::new();
        for segment in &hours.segments {
            considered += 1;
            let entry = &segment.entry;
            if !request.may_touch(entry) || !view.may_match(entry, request.flows()) {
                continue;
            }
            if needed.iter().any(|layer| segment.layer(*layer).is_none()) {
                degraded += 1;
                deleted.add_first(segment, &needed);
                continue;
            }
            for layer in request.of_values() {
                deleted.add(segment, *layer);
            }
            chosen.push(Arc::clone(segment));
        }
        let groups = match view.who().is_masked() {
            true => deal_by_hour(chosen, partitions, |segment| {
                (segment.of.recorder, segment.entry.hour)
            }),
            false => deal(chosen, partitions, |segment| {
                request.rows(&segment.entry).unwrap_or(segment.entry.packets)
            }),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(request.schema())),
            Partitioning::UnknownPartitioning(groups.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(ScanExec {
            view,
            request,
            groups,
            considered,
            pruned_by_manifest: hours.pruned_by_manifest,
            degraded,
            deleted,
            gaps: hours.gaps.clone(),
            limit,
            planned: None,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// Gaps of the catalog that may hide rows.
    pub(super) fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// What retention deleted of the rows and values that are asked for.
    pub(super) fn deleted(&self) -> &Deleted {
        &self.deleted
    }

    /// Whether numbers of segments, rows and requests are hidden: they depend on hidden flows.
    fn is_masked(&self) -> bool {
        self.view.who().is_masked()
    }

    fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.groups.iter().flatten()
    }

    /// Computes the requests of the scan: opens the segments and reads the needed columns of their flows, but no
    /// packet. Not under a mask.
    ///
    /// # Errors
    /// Any failure of the store.
    pub(super) async fn plan(mut self) -> Result<ScanExec> {
        if self.is_masked() {
            return Ok(self);
        }
        let segments: Vec<_> = self.segments().cloned().collect();
        let at_once = match self.view.is_remote() {
            true => PLANNED_AT_ONCE_REMOTE,
            false => PLANNED_AT_ONCE,
        };
        let costs = stream::iter(segments)
            .map(|segment| cost(Arc::clone(&self.view), Arc::clone(&self.request), segment))
            .buffered(at_once);
        let planned = costs
            .try_fold(Planned::default(), |mut sum, cost| async move {
                sum.segments += 1;
                sum.cost += cost;
                Ok(sum)
            })
            .await
            .map_err(external)?;
        self.planned = Some(planned);
        Ok(self)
    }
}

/// Distributes items over at most `partitions` groups of about as many rows, each in the given order.
fn deal<T>(items: Vec<T>, partitions: usize, rows: impl Fn(&T) -> u64) -> Vec<Vec<T>> {
    let count = partitions.min(items.len()).max(1);
    let mut by_size: Vec<(usize, T)> = items.into_iter().enumerate().collect();
    by_size.sort_by_key(|(_, item)| std::cmp::Reverse(rows(item)));
    let mut groups: Vec<(u64, Vec<(usize, T)>)> = (0..count).map(|_| (0, Vec::new())).collect();
    for (place, item) in by_size {
        if let Some(group) = groups.iter_mut().min_by_key(|(sum, _)| *sum) {
            // Counts at least one for each, so that many small ones are distributed, too.
            group.0 = group.0.saturating_add(rows(&item)).saturating_add(1);
            group.1.push((place, item));
        }
    }
    groups
        .into_iter()
        .map(|(_, mut group)| {
            group.sort_by_key(|(place, _)| *place);
            group.into_iter().map(|(_, item)| item).collect()
        })
        .collect()
}

/// Distributes items over `partitions` groups by their recorder and hour alone, each in the given order. Neither the
/// number of groups, which a plan shows, nor the group of an item depends on other items: under a mask those may be
/// hidden.
fn deal_by_hour<T>(
    items: Vec<T>,
    partitions: usize,
    of: impl Fn(&T) -> (RecorderId, Hour),
) -> Vec<Vec<T>> {
    let count = partitions.max(1);
    let mut groups: Vec<Vec<T>> = (0..count).map(|_| Vec::new()).collect();
    for item in items {
        let (recorder, Hour(hour)) = of(&item);
        // Neighbouring hours of a recorder are in different groups.
        let place = (i128::from(recorder.0) + i128::from(hour)).rem_euclid(count as i128);
        if let Some(group) = usize::try_from(place).ok().and_then(|place| groups.get_mut(place)) {
            group.push(item);
        }
    }
    groups
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, form: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if matches!(form, DisplayFormatType::TreeRender) { "\n" } else { ", " };
        let schema = self.request.schema();
        let columns: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let chosen = self.segments().count();
        if separator == ", " {
            write!(f, "CapstanScan: ")?;
        }
        write!(f, "table={}{separator}columns=[{}]", self.request.table(), columns.join(", "))?;
        if let Some(window) = self.request.window() {
            write!(f, "{separator}window={window}")?;
        }
        if !self.request.flows().is_all() {
            write!(f, "{separator}flows={}", self.request.flows())?;
        }
        if let Some(limit) = self.limit {
            write!(f, "{separator}limit={limit}")?;
        }
        let deleted = self.deleted.words();
        if !deleted.is_empty() {
            write!(f, "{separator}deleted=[{}]", deleted.join("; "))?;
        }
        if self.is_masked() {
            return Ok(());
        }
        let pruned_by_entry = self.considered - chosen - self.degraded;
        write!(f, "{separator}segments={} pruned_by_entry={pruned_by_entry}", self.considered)?;
        if self.pruned_by_manifest > 0 {
            write!(f, " pruned_by_manifest={}", self.pruned_by_manifest)?;
        }
        if self.degraded > 0 {
            write!(f, " degraded={}", self.degraded)?;
        }
        if let Some(Planned { segments, cost }) = &self.planned {
            write!(
                f,
                " opened={segments}{separator}objects={} requests={} bytes={} cached={}",
                cost.objects, cost.requests, cost.bytes, cost.cached
            )?;
            let requests =
                Requests { gets: cost.requests, bytes_read: cost.bytes, ..Requests::default() };
            let usd = self.view.prices().of(&requests);
            if usd > 0.0 {
                write!(f, " usd={usd:.8}")?;
            }
        }
        Ok(())
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &str {
        "CapstanScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let segments = self.groups.get(partition).cloned().unwrap_or_default();
        let memory = MemoryConsumer::new(format!("scan of {}", self.request.table()))
            .register(context.memory_pool());
        let skipped = context.session_config().get_extension::<Skipped>();
        let batch_rows = context.session_config().batch_size();
        let state = Partition::new(self, segments, memory, partition, batch_rows, skipped);
        let rows = stream::try_unfold(state, |mut state| async move {
            let batch = state.next().await.map_err(external)?;
            Ok(batch.map(|batch| (batch, state)))
        });
        let schema = Arc::clone(self.request.schema());
        Ok(make_cooperative(Box::pin(RecordBatchStreamAdapter::new(schema, rows))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let groups = match args.partition() {
            Some(partition) => self.groups.get(partition..=partition).unwrap_or_default(),
            None => &self.groups,
        };
        let rows = groups.iter().flatten().map(|segment| self.request.rows(&segment.entry));
        let rows: Option<u64> = rows.sum();
        let rows = rows.map(|rows| usize::try_from(rows).unwrap_or(usize::MAX));
        let columns = self.request.schema().fields().len();
        Ok(Arc::new(Statistics {
            num_rows: match rows.filter(|_| !self.is_masked()) {
                None => Precision::Absent,
                Some(rows) if self.request.is_everything() && self.limit.is_none() => {
                    Precision::Exact(rows)
                }
                Some(rows) => Precision::Inexact(self.limit.map_or(rows, |limit| limit.min(rows))),
            },
            total_byte_size: Precision::Absent,
            column_statistics: vec![ColumnStatistics::new_unknown(); columns],
        }))
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(ScanExec {
            view: Arc::clone(&self.view),
            request: Arc::clone(&self.request),
            groups: self.groups.clone(),
            considered: self.considered,
            pruned_by_manifest: self.pruned_by_manifest,
            degraded: self.degraded,
            deleted: self.deleted.clone(),
            gaps: self.gaps.clone(),
            limit,
            planned: self.planned,
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }))
    }

    fn fetch(&self) -> Option<usize> {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_dealt_out_evenly_and_keep_their_order() {
        let groups = deal(vec![5, 1, 1, 1, 1, 1, 0, 0], 2, |rows| *rows);
        assert_eq!(groups.len(), 2);
        let sums: Vec<u64> = groups.iter().map(|group| group.iter().sum()).collect();
        assert!(sums.iter().all(|sum| (4..=6).contains(sum)), "{sums:?}");
        assert!(groups.iter().all(|group| group.is_sorted_by(|a, b| a >= b)), "{groups:?}");
        let nothing = deal(Vec::<u64>::new(), 4, |rows| *rows);
        assert!(nothing.len() == 1 && nothing[0].is_empty());
        assert_eq!(deal(vec![3, 4], 4, |rows| *rows).len(), 2);
    }

    #[test]
    fn group_of_a_segment_does_not_depend_on_other_segments() {
        let of = |item: &(u64, i32)| (RecorderId(item.0), Hour(item.1));
        let all: Vec<(u64, i32)> =
            (0..40).map(|n| ([1, 2, u64::MAX][n % 3], n as i32 / 3 - 5)).collect();
        let groups = deal_by_hour(all.clone(), 3, of);
        assert_eq!(groups.len(), 3);
        assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), all.len());
        assert!(groups.iter().all(|group| group.len() > 10), "{groups:?}");
        let visible: Vec<_> = all.iter().copied().filter(|(recorder, _)| *recorder == 2).collect();
        let mut without = groups.clone();
        without.iter_mut().for_each(|group| group.retain(|(recorder, _)| *recorder == 2));
        assert_eq!(deal_by_hour(visible, 3, of), without);
        assert_eq!(deal_by_hour(Vec::new(), 0, of), [[]; 1]);
    }
}
