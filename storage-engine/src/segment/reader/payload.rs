//! Payload reads: finds the blocks of flow parts and decompresses them.

use std::ops::Range;

use capstan_model::Failure;

use super::{Fetch, Segment};
use crate::segment::block::{self, BlockDirectory};
use crate::segment::flows::FlowRow;
use crate::segment::{Corrupt, Layer};

/// Maximum bytes reserved for payload before the directory's sizes are verified.
const MOST_RESERVED: usize = 32 << 20;

impl Segment {
    /// The payload blocks of some flow parts.
    pub fn plan_payload(&self, flows: &[FlowRow]) -> PayloadPlan {
        let head = flows.iter().map(|row| {
            let from = row.placement.head_offset;
            self.head.blocks_of(from, from.saturating_add(u64::from(row.placement.head_bytes)))
        });
        let body = flows.iter().map(|row| {
            let from = row.placement.body_offset;
            self.body.blocks_of(from, from.saturating_add(row.placement.body_bytes))
        });
        let left = PayloadLeft::All;
        PayloadPlan { head: merge_spans(head), body: merge_spans(body), left }
    }

    /// The byte ranges a payload plan needs, by layer.
    pub fn payload_ranges(&self, plan: &PayloadPlan) -> Vec<(Layer, Vec<Range<u64>>)> {
        [(Layer::Head, &self.head, &plan.head), (Layer::Body, &self.body, &plan.body)]
            .into_iter()
            .map(|(layer, directory, spans)| (layer, block_ranges(directory, spans)))
            .filter(|(_, ranges)| !ranges.is_empty())
            .collect()
    }

    /// Fetches and decompresses the blocks of a plan.
    ///
    /// # Errors
    /// [`Failure`] of the fetch, or of kind `Damaged` when a block's checksum differs.
    pub async fn read_payload(
        &self,
        fetch: &dyn Fetch,
        plan: &PayloadPlan,
    ) -> Result<Payload, Failure> {
        let (head, body) = futures::try_join!(
            read_spans(fetch, Layer::Head, &self.head, &plan.head),
            read_spans(fetch, Layer::Body, &self.body, &plan.body)
        )?;
        Ok(Payload { head, body, left: plan.left })
    }
}

/// How much of its payload a segment still has: retention deletes `body` before `head`. Without `head`, `body` is not
/// read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum PayloadLeft {
    /// Nothing.
    Nothing,
    /// The first bytes of each flow part.
    Head,
    /// All of it.
    #[default]
    All,
}

/// Which blocks of the payload layers are needed: spans of consecutive numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PayloadPlan {
    pub(super) head: Vec<Range<usize>>,
    pub(super) body: Vec<Range<usize>>,
    pub(super) left: PayloadLeft,
}

impl PayloadPlan {
    /// The plan without layers that retention deleted. Packets that need them are cut.
    pub fn of_left(mut self, left: PayloadLeft) -> PayloadPlan {
        self.left = left;
        if left < PayloadLeft::All {
            self.body.clear();
        }
        if left < PayloadLeft::Head {
            self.head.clear();
        }
        self
    }
}

/// Merges block spans, sorted, touching ones joined.
fn merge_spans(spans: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut spans: Vec<_> = spans.filter(|span| !span.is_empty()).collect();
    spans.sort_unstable_by_key(|span| span.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => merged.push(span),
        }
    }
    merged
}

/// Where the blocks of some spans lie: a range for each, so that each can come from elsewhere.
fn block_ranges(directory: &BlockDirectory, spans: &[Range<usize>]) -> Vec<Range<u64>> {
    spans.iter().cloned().flatten().filter_map(|number| directory.range(number)).collect()
}

pub(super) async fn read_spans(
    fetch: &dyn Fetch,
    layer: Layer,
    directory: &BlockDirectory,
    spans: &[Range<usize>],
) -> Result<Vec<RawSpan>, Failure> {
    let ranges = block_ranges(directory, spans);
    if ranges.is_empty() {
        return Ok(Vec::new());
    }
    let mut blocks = fetch.fetch(layer, &ranges).await?.into_iter();
    let mut raw_spans = Vec::with_capacity(spans.len());
    for span in spans {
        let start = directory.raw_start(span.start);
        // The directory may say anything: past this the bytes must come first.
        let raw = usize::try_from(directory.raw_start(span.end) - start).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(raw.min(MOST_RESERVED));
        for number in span.clone() {
            let missing = || Corrupt::new(layer.name(), format!("block {number} is truncated"));
            let header = directory.header(number).ok_or_else(missing)?;
            let block = blocks.next().ok_or_else(missing)?;
            let stored = block.get(block::BLOCK_HEADER..).ok_or_else(missing)?;
            block::decode_into(header, stored, &mut bytes).map_err(|error| {
                Corrupt::new(layer.name(), format!("block {number}: {}", error.what))
            })?;
        }
        raw_spans.push(RawSpan { start, bytes });
    }
    Ok(raw_spans)
}

/// Decompressed payload of consecutive blocks.
#[derive(Debug)]
pub(super) struct RawSpan {
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
}

/// Decompressed payload of some flow parts.
#[derive(Debug, Default)]
pub struct Payload {
    head: Vec<RawSpan>,
    body: Vec<RawSpan>,
    left: PayloadLeft,
}

impl Payload {
    /// Some bytes of `head`; none if they are not all there. Empty if retention deleted the layer.
    pub(super) fn head(&self, offset: u64, length: u64) -> Option<&[u8]> {
        if self.left < PayloadLeft::Head {
            return Some(&[]);
        }
        bytes_of(&self.head, offset, length)
    }

    /// Some bytes of `body`; none if they are not all there. Empty if retention deleted the layer.
    pub(super) fn body(&self, offset: u64, length: u64) -> Option<&[u8]> {
        if self.is_cut() {
            return Some(&[]);
        }
        bytes_of(&self.body, offset, length)
    }

    /// Whether retention deleted some of it.
    pub(super) fn is_cut(&self) -> bool {
        self.left < PayloadLeft::All
    }
}

fn bytes_of(spans: &[RawSpan], offset: u64, length: u64) -> Option<&[u8]> {
    if length == 0 {
        return Some(&[]);
    }
    let span = &spans[spans.partition_point(|span| span.start <= offset).checked_sub(1)?];
    let from = usize::try_from(offset - span.start).ok()?;
    span.bytes.get(from..from.checked_add(usize::try_from(length).ok()?)?)
}
