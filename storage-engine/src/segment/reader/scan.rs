//! A scan of rows and columns of a Parquet layer: requests byte ranges, verifies and decodes them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use capstan_model::Failure;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{RowSelection, RowSelectionPolicy};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};

use super::Fetch;
use super::table::Table;
use crate::segment::column::Column;
use crate::segment::pages::Pages;
use crate::segment::{Corrupt, Layer, tabular};

/// Rows of a batch while a Parquet layer is read.
const BATCH_ROWS: usize = 32 * 1024;

/// The scan of some rows and columns of one Parquet layer.
///
/// Each row group has a decoder. The first [`Step::Needs`] names the bytes of all of them, so that one fetch is
/// enough and the cost is known before it.
#[derive(Debug)]
pub struct Scan {
    layer: Layer,
    pages: Arc<Pages>,
    groups: VecDeque<Group>,
    begun: bool,
    /// Columns that are wanted and that the object lacks.
    absent: Vec<Column>,
}

/// The scan of one row group.
#[derive(Debug)]
struct Group {
    decoder: ParquetPushDecoder,
    /// How many of the ranges that [`Step::Needs`] named are of this row group.
    needs: usize,
    /// A batch that was decoded before all bytes were asked for.
    batch: Option<RecordBatch>,
}

impl Scan {
    pub(super) fn new(
        table: &Table,
        ranges: impl Iterator<Item = Range<usize>>,
        columns: Option<&[&str]>,
    ) -> Result<Scan, Corrupt> {
        let (layer, metadata, rows) = (table.layer, &table.metadata, table.rows());
        let ranges = join_ranges(ranges);
        if ranges.last().is_some_and(|range| range.end > rows)
            || ranges.windows(2).any(|pair| pair[0].end > pair[1].start)
        {
            return Err(Corrupt::new(layer.name(), "a row number outside the table"));
        }
        let groups = tabular::guarded(layer.name(), || {
            let descriptor = metadata.metadata().file_metadata().schema_descr();
            let projection = match columns {
                Some(columns) => ProjectionMask::columns(descriptor, columns.iter().copied()),
                None => ProjectionMask::all(),
            };
            let mut groups = VecDeque::new();
            let mut start = 0_usize;
            for (number, group) in metadata.metadata().row_groups().iter().enumerate() {
                let rows = usize::try_from(group.num_rows()).unwrap_or(0);
                let end = start.saturating_add(rows);
                let inside = within(&ranges, start..end);
                start = end;
                if inside.is_empty() {
                    continue;
                }
                let decoder = ParquetPushDecoderBuilder::new_with_metadata(metadata.clone())
                    .with_row_groups(vec![number])
                    .with_batch_size(BATCH_ROWS)
                    .with_projection(projection.clone())
                    .with_row_selection(RowSelection::from_consecutive_ranges(
                        inside.into_iter(),
                        rows,
                    ))
                    .with_row_selection_policy(RowSelectionPolicy::Selectors)
                    .build()?;
                groups.push_back(Group { decoder, needs: 0, batch: None });
            }
            Ok(groups)
        })?;
        let is_wanted = |of: &&Column| columns.is_none_or(|columns| columns.contains(&of.name));
        let absent = table.absent.iter().filter(is_wanted).cloned().collect();
        Ok(Scan { layer, pages: Arc::clone(&table.pages), groups, begun: false, absent })
    }

    /// Which layer is read.
    pub fn layer(&self) -> Layer {
        self.layer
    }

    /// The next batch; or the byte ranges that are needed for it first.
    pub fn step(&mut self) -> Result<Step, Corrupt> {
        if !self.begun {
            self.begun = true;
            let needs = self.begin()?;
            if !needs.is_empty() {
                return Ok(Step::Needs(needs));
            }
        }
        while let Some(group) = self.groups.front_mut() {
            if let Some(batch) = group.batch.take() {
                return self.rows(batch);
            }
            match tabular::guarded(self.layer.name(), || group.decoder.try_decode())? {
                DecodeResult::Data(batch) => return self.rows(batch),
                DecodeResult::NeedsData(ranges) => {
                    group.needs = ranges.len();
                    return Ok(Step::Needs(ranges));
                }
                DecodeResult::Finished => {
                    self.groups.pop_front();
                }
            }
        }
        Ok(Step::End)
    }

    /// The byte ranges that all row groups need.
    fn begin(&mut self) -> Result<Vec<Range<u64>>, Corrupt> {
        let mut needs = Vec::new();
        for group in &mut self.groups {
            match tabular::guarded(self.layer.name(), || group.decoder.try_decode())? {
                DecodeResult::Data(batch) => group.batch = Some(batch),
                DecodeResult::NeedsData(ranges) => {
                    group.needs = ranges.len();
                    needs.extend(ranges);
                }
                DecodeResult::Finished => {}
            }
        }
        Ok(needs)
    }

    /// A batch, with the columns that the object lacks.
    fn rows(&self, batch: RecordBatch) -> Result<Step, Corrupt> {
        if self.absent.is_empty() {
            return Ok(Step::Rows(batch));
        }
        tabular::with_absent(batch, &self.absent)
            .map(Step::Rows)
            .map_err(|error| Corrupt::new(self.layer.name(), error.to_string()))
    }

    /// Gives the bytes that [`Step::Needs`] named.
    ///
    /// # Errors
    /// [`Corrupt`] when they are not the pages that were written.
    pub fn give(&mut self, ranges: Vec<Range<u64>>, bytes: Vec<Bytes>) -> Result<(), Corrupt> {
        let needs: usize = self.groups.iter().map(|group| group.needs).sum();
        if ranges.len() != bytes.len() || needs != ranges.len() {
            let what = format!("{} ranges of bytes instead of {needs}", bytes.len());
            return Err(Corrupt::new(self.layer.name(), what));
        }
        for (range, bytes) in ranges.iter().zip(&bytes) {
            self.pages.verify(self.layer, range, bytes)?;
        }
        let (mut ranges, mut bytes) = (ranges.into_iter(), bytes.into_iter());
        for group in &mut self.groups {
            let needs = std::mem::take(&mut group.needs);
            if needs > 0 {
                let ranges = ranges.by_ref().take(needs).collect();
                let bytes = bytes.by_ref().take(needs).collect();
                tabular::guarded(self.layer.name(), || group.decoder.push_ranges(ranges, bytes))?;
            }
        }
        Ok(())
    }

    /// Fetches and decodes everything.
    ///
    /// # Errors
    /// [`Failure`] of the fetch, or of kind `Damaged`.
    pub async fn run(mut self, fetch: &dyn Fetch) -> Result<Vec<RecordBatch>, Failure> {
        let mut batches = Vec::new();
        loop {
            match self.step()? {
                Step::Rows(batch) => batches.push(batch),
                Step::Needs(ranges) => {
                    let bytes = fetch.fetch(self.layer, &ranges).await?;
                    self.give(ranges, bytes)?;
                }
                Step::End => return Ok(batches),
            }
        }
    }
}

/// What a [`Scan`] has next.
#[derive(Debug)]
pub enum Step {
    /// Some rows.
    Rows(RecordBatch),
    /// Bytes must be given first.
    Needs(Vec<Range<u64>>),
    /// No more.
    End,
}

/// Joins ascending ranges that touch.
fn join_ranges(ranges: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in ranges.filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

/// The parts of ascending ranges that are inside of one, relative to its start.
fn within(ranges: &[Range<usize>], of: Range<usize>) -> Vec<Range<usize>> {
    let from = ranges.partition_point(|range| range.end <= of.start);
    let touching = ranges.iter().skip(from).take_while(|range| range.start < of.end);
    let cut = |range: &Range<usize>| {
        range.start.max(of.start) - of.start..range.end.min(of.end) - of.start
    };
    touching.map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_row_group_are_counted_from_its_start() {
        let ranges = [3..5, 8..12, 20..30];
        assert_eq!(within(&ranges, 0..10), [3..5, 8..10]);
        for (group, rows) in [(10..20, 0..2), (21..22, 0..1)] {
            assert_eq!(within(&ranges, group), [rows]);
        }
        assert!(within(&ranges, 12..20).is_empty() && within(&ranges, 5..8).is_empty());
        assert!(within(&[], 0..10).is_empty());
    }
}
