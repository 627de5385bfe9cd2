//! A scan of rows and columns of a Parquet layer: requests byte ranges, verifies and decodes them.

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
use crate::segment::pages::Pages;
use crate::segment::tabular::Column;
use crate::segment::{Corrupt, Layer, tabular};

/// Rows of a batch while a Parquet layer is read.
const BATCH_ROWS: usize = 32 * 1024;

/// The scan of some rows and columns of one Parquet layer.
#[derive(Debug)]
pub struct Scan {
    layer: Layer,
    pages: Arc<Pages>,
    decoder: ParquetPushDecoder,
    /// Columns that are wanted and that the object lacks.
    absent: Vec<Column>,
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
        let decoder = tabular::guarded(layer.name(), || {
            let descriptor = metadata.metadata().file_metadata().schema_descr();
            let projection = match columns {
                Some(columns) => ProjectionMask::columns(descriptor, columns.iter().copied()),
                None => ProjectionMask::all(),
            };
            ParquetPushDecoderBuilder::new_with_metadata(metadata.clone())
                .with_batch_size(BATCH_ROWS)
                .with_projection(projection)
                .with_row_selection(RowSelection::from_consecutive_ranges(ranges.into_iter(), rows))
                .with_row_selection_policy(RowSelectionPolicy::Selectors)
                .build()
        })?;
        let is_wanted = |of: &&Column| columns.is_none_or(|columns| columns.contains(&of.name));
        let absent = table.absent.iter().filter(is_wanted).cloned().collect();
        Ok(Scan { layer, pages: Arc::clone(&table.pages), decoder, absent })
    }

    /// Which layer is read.
    pub fn layer(&self) -> Layer {
        self.layer
    }

    /// The next batch; or the byte ranges that are needed for it first.
    pub fn step(&mut self) -> Result<Step, Corrupt> {
        match tabular::guarded(self.layer.name(), || self.decoder.try_decode())? {
            DecodeResult::Data(batch) if self.absent.is_empty() => Ok(Step::Rows(batch)),
            DecodeResult::Data(batch) => tabular::with_absent(batch, &self.absent)
                .map(Step::Rows)
                .map_err(|error| Corrupt::new(self.layer.name(), error.to_string())),
            DecodeResult::NeedsData(ranges) => Ok(Step::Needs(ranges)),
            DecodeResult::Finished => Ok(Step::End),
        }
    }

    /// Gives the bytes that [`Step::Needs`] named.
    ///
    /// # Errors
    /// [`Corrupt`] when they are not the pages that were written.
    pub fn give(&mut self, ranges: Vec<Range<u64>>, bytes: Vec<Bytes>) -> Result<(), Corrupt> {
        if ranges.len() != bytes.len() {
            let what = format!("{} ranges of bytes instead of {}", bytes.len(), ranges.len());
            return Err(Corrupt::new(self.layer.name(), what));
        }
        for (range, bytes) in ranges.iter().zip(&bytes) {
            self.pages.verify(self.layer, range, bytes)?;
        }
        tabular::guarded(self.layer.name(), || self.decoder.push_ranges(ranges, bytes))
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
