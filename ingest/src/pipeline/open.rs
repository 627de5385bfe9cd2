//! Open segments: one per hour. An import has one more that spans sparse hours.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::Instant;

use capstan_model::{FlowEnd, FlowId, GenerationId, Hour};
use capstan_storage_engine::segment::builder::{PartNumber, SegmentBuilder};
use foldhash::fast::RandomState;

use super::policy::{SPAN_HOURS, SealPolicy};
use crate::flow_table::{Flow, LastPart};

/// Packets between two memory checks.
const MEMORY_CHECK: u32 = 256;

/// One open segment.
#[derive(Debug)]
pub(super) struct Open {
    /// Unique number within this process.
    serial: u64,
    pub(super) builder: SegmentBuilder,
    parts: HashMap<FlowId, PartNumber, RandomState>,
    /// The section whose header it holds; 0 if none.
    pub(super) section: u32,
    /// When a tick first saw it.
    seen: Option<Instant>,
}

impl Open {
    /// The flow's part in this segment.
    pub(super) fn part_of(&mut self, flow: &mut Flow) -> PartNumber {
        if let Some((serial, part)) = flow.last_part
            && serial == self.serial
        {
            return part;
        }
        let builder = &mut self.builder;
        let part = *self.parts.entry(flow.id).or_insert_with(|| {
            flow.parts = flow.parts.saturating_add(1);
            builder.open_part(flow.id, flow.key)
        });
        flow.last_part = Some((self.serial, part));
        part
    }
}

/// Identifies an open segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Hour(Hour),
    Span,
}

/// The open segments of single hours, in the order of the hours.
#[derive(Debug, Default)]
struct Hours {
    open: Vec<(Hour, Open)>,
    /// Index of the last lookup, which usually fits the next packet too.
    last: Cell<usize>,
}

impl Hours {
    fn len(&self) -> usize {
        self.open.len()
    }

    fn find(&self, hour: Hour) -> Option<usize> {
        if self.open.get(self.last.get()).is_some_and(|(of, _)| *of == hour) {
            return Some(self.last.get());
        }
        let place = self.open.iter().position(|(of, _)| *of == hour)?;
        self.last.set(place);
        Some(place)
    }

    fn has(&self, hour: Hour) -> bool {
        self.find(hour).is_some()
    }

    fn get(&self, hour: Hour) -> Option<&Open> {
        self.find(hour).map(|place| &self.open[place].1)
    }

    fn get_mut(&mut self, hour: Hour) -> Option<&mut Open> {
        self.find(hour).map(|place| &mut self.open[place].1)
    }

    /// Inserts the segment of an hour that has none.
    fn insert(&mut self, hour: Hour, open: Open) {
        let place = self.open.partition_point(|(of, _)| *of < hour);
        self.open.insert(place, (hour, open));
    }

    fn take(&mut self, hour: Hour) -> Option<Open> {
        self.find(hour).map(|place| self.open.remove(place).1)
    }

    fn take_first(&mut self) -> Option<Open> {
        (!self.open.is_empty()).then(|| self.open.remove(0).1)
    }

    fn iter(&self) -> impl Iterator<Item = (Hour, &Open)> {
        self.open.iter().map(|(hour, open)| (*hour, open))
    }

    fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (Hour, &mut Open)> {
        self.open.iter_mut().map(|(hour, open)| (*hour, open))
    }
}

/// All open segments.
#[derive(Debug)]
pub(super) struct OpenSegments {
    writer: GenerationId,
    policy: SealPolicy,
    next_serial: u64,
    hours: Hours,
    span: Option<Span>,
    since_check: u32,
}

#[derive(Debug)]
struct Span {
    open: Open,
    /// Captured bytes of each hour in it.
    bytes: HashMap<Hour, u64>,
}

impl OpenSegments {
    pub(super) fn new(writer: GenerationId, policy: SealPolicy) -> Self {
        OpenSegments {
            writer,
            policy,
            next_serial: 0,
            hours: Hours::default(),
            span: None,
            since_check: 0,
        }
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.hours.len() + usize::from(self.span.is_some())
    }

    /// Captured bytes in all that are open.
    pub(super) fn captured_bytes(&self) -> u64 {
        self.all().map(|(_, open)| open.builder.captured_bytes()).sum()
    }

    /// All that are open.
    fn all(&self) -> impl Iterator<Item = (Which, &Open)> {
        let hours = self.hours.iter().map(|(hour, open)| (Which::Hour(hour), open));
        hours.chain(self.span.iter().map(|span| (Which::Span, &span.open)))
    }

    /// All that are open, to change them.
    fn all_mut(&mut self) -> impl Iterator<Item = &mut Open> {
        let hours = self.hours.iter_mut().map(|(_, open)| open);
        hours.chain(self.span.iter_mut().map(|span| &mut span.open))
    }

    /// The lowest ordinal in any open segment.
    pub(super) fn first_ordinal(&self) -> Option<u64> {
        self.all().filter_map(|(_, open)| open.builder.first_ordinal()).min()
    }

    /// The segment of a packet of `hour`.
    fn which(&self, hour: Hour) -> Which {
        let Some(limit) = self.policy.span else { return Which::Hour(hour) };
        if self.hours.has(hour) {
            return Which::Hour(hour);
        }
        match &self.span {
            Some(span) if span.bytes.get(&hour).is_some_and(|bytes| *bytes >= limit) => {
                Which::Hour(hour)
            }
            _ => Which::Span,
        }
    }

    /// Removes the segment that must be sealed before a packet of `hour` fits, if any.
    pub(super) fn make_room(&mut self, hour: Hour) -> Option<SegmentBuilder> {
        match self.which(hour) {
            Which::Hour(hour) => {
                // Also if the span becomes this hour's segment: the next hour opens another.
                if !self.hours.has(hour) && self.hours.len() >= self.policy.hours {
                    return self.hours.take_first().map(|open| open.builder);
                }
                None
            }
            Which::Span => {
                let full =
                    |span: &Span| span.bytes.len() >= SPAN_HOURS && !span.bytes.contains_key(&hour);
                if self.span.as_ref().is_some_and(full) {
                    return self.span.take().map(|span| span.open.builder);
                }
                None
            }
        }
    }

    /// Whether the span holds only `hour`. It then becomes that hour's segment.
    fn span_is_only(&self, hour: Hour) -> bool {
        self.span
            .as_ref()
            .is_some_and(|span| span.bytes.len() == 1 && span.bytes.contains_key(&hour))
    }

    /// The open segment for a packet of `hour`.
    pub(super) fn of_hour(&mut self, hour: Hour) -> std::io::Result<&mut Open> {
        match self.which(hour) {
            Which::Hour(hour) => {
                if !self.hours.has(hour) {
                    let open = if self.span_is_only(hour) {
                        self.span.take().map(|span| span.open)
                    } else {
                        None
                    };
                    let open = match open {
                        Some(open) => open,
                        None => self.new_segment()?,
                    };
                    self.hours.insert(hour, open);
                }
                Ok(self.hours.get_mut(hour).expect("just put there"))
            }
            Which::Span => {
                if self.span.is_none() {
                    let open = self.new_segment()?;
                    self.span = Some(Span { open, bytes: HashMap::new() });
                }
                Ok(&mut self.span.as_mut().expect("just put there").open)
            }
        }
    }

    /// Records the end of a flow in its part, if the segment is still open.
    pub(super) fn end_part(&mut self, (serial, part): LastPart, end: FlowEnd) {
        if let Some(open) = self.all_mut().find(|open| open.serial == serial) {
            open.builder.part_mut(part).end = end;
        }
    }

    /// Swaps source and destination of a flow, in the table and in its parts, if all parts are in
    /// open segments. Sealed parts cannot change, and a flow has the same ends in all parts.
    pub(super) fn turn_flow(&mut self, flow: &mut Flow) -> bool {
        let here = self.all().filter(|(_, open)| open.parts.contains_key(&flow.id)).count();
        if here != flow.parts as usize {
            return false;
        }
        flow.turn();
        for open in self.all_mut() {
            if let Some(part) = open.parts.get(&flow.id) {
                open.builder.turn_part(*part);
            }
        }
        true
    }

    fn new_segment(&mut self) -> std::io::Result<Open> {
        let serial = self.next_serial;
        self.next_serial += 1;
        let builder = SegmentBuilder::new(self.writer)?;
        Ok(Open { serial, builder, parts: HashMap::default(), section: 0, seen: None })
    }

    /// Accounts for a packet just added to `hour`. Removes a segment that is now full.
    pub(super) fn after_packet(&mut self, hour: Hour, captured: usize) -> Option<SegmentBuilder> {
        let which = self.which(hour);
        if which == Which::Span
            && let Some(span) = &mut self.span
        {
            *span.bytes.entry(hour).or_default() += captured as u64;
        }
        let full = match which {
            Which::Hour(hour) => self.hours.get(hour).map(|open| &open.builder),
            Which::Span => self.span.as_ref().map(|span| &span.open.builder),
        }
        .is_some_and(|builder| builder.captured_bytes() >= self.policy.bytes);
        if full {
            return self.take(which);
        }
        self.since_check += 1;
        if self.since_check < MEMORY_CHECK {
            return None;
        }
        self.since_check = 0;
        let sizes = self.all().map(|(which, open)| (which, open.builder.memory()));
        let (total, largest) =
            sizes.fold((0, None), |(total, largest): (usize, Option<(Which, usize)>), next| {
                let largest = largest.filter(|largest| largest.1 >= next.1).unwrap_or(next);
                (total + next.1, Some(largest))
            });
        let (which, memory) = largest?;
        if total > self.policy.memory || memory > self.policy.segment_memory {
            return self.take(which);
        }
        None
    }

    fn take(&mut self, which: Which) -> Option<SegmentBuilder> {
        match which {
            Which::Hour(hour) => self.hours.take(hour).map(|open| open.builder),
            Which::Span => self.span.take().map(|span| span.open.builder),
        }
    }

    /// Removes a segment older than the policy's age.
    pub(super) fn take_old(&mut self, now: Instant) -> Option<SegmentBuilder> {
        let age = self.policy.age?;
        let old = self.hours.iter_mut().find_map(|(hour, open)| {
            let seen = *open.seen.get_or_insert(now);
            (now.duration_since(seen) >= age).then_some(hour)
        })?;
        self.take(Which::Hour(old))
    }

    /// Removes any segment.
    pub(super) fn take_any(&mut self) -> Option<SegmentBuilder> {
        let first = self.hours.take_first().map(|open| open.builder);
        first.or_else(|| self.span.take().map(|span| span.open.builder))
    }

    /// Any open segment, to put something into.
    pub(super) fn any(&mut self) -> Option<&mut SegmentBuilder> {
        let last = self.hours.iter_mut().next_back().map(|(_, open)| &mut open.builder);
        last.or_else(|| self.span.as_mut().map(|span| &mut span.open.builder))
    }
}
