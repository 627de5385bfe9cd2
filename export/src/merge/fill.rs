//! Reads one segment into sorted runs, within the memory budget.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;

use capstan_model::Failure;
use capstan_storage_engine::catalog::Segment;
use capstan_view::{ScopedSegment, may_skip};

use super::{Merge, Source};
use crate::Order;
use crate::large::LargePart;
use crate::output::unwanted;
use crate::read::{Fetched, Prefetch, Reading, SegmentExtras, Slice};
use crate::records::Arena;
use crate::run::Run;

/// The next part of a segment to read.
enum Coming {
    /// Some flows, being fetched.
    Slice(Slice, Prefetch<Fetched>),
    /// One flow part that is larger than a slice.
    Large(Slice),
}

/// A segment whose packets are being read.
struct Filling<'a> {
    open: &'a Arc<ScopedSegment>,
    segment: &'a Segment,
    beside: &'a SegmentExtras,
    arena: Arena,
    /// Its index among the merged segments.
    place: usize,
}

impl Merge<'_> {
    /// Reads the selected packets of a segment, and prefetches the next ones meanwhile.
    pub(super) async fn read(
        &mut self,
        reading: &mut Reading,
        segment: &Segment,
        beside: &SegmentExtras,
        place: usize,
    ) -> Result<(), Failure> {
        let open = &Arc::clone(&reading.open);
        let mut filling = Filling { open, segment, beside, arena: Arena::default(), place };
        let mut coming = VecDeque::new();
        loop {
            while coming.len() < 2 {
                match reading.next(self.what.selection.range, self.slice_bytes).await {
                    Ok(Some((slice, _))) if slice.is_large(self.slice_bytes) => {
                        coming.push_back(Coming::Large(slice));
                    }
                    Ok(Some((slice, fetching))) => {
                        let fetching = fetching.unwrap_or_else(|| slice.prefetch(open));
                        coming.push_back(Coming::Slice(slice, fetching));
                    }
                    Ok(None) => break,
                    Err(failure) => {
                        let packets = reading.give_up_flows();
                        self.skip(segment, packets, failure)?;
                    }
                }
            }
            match coming.pop_front() {
                Some(Coming::Slice(slice, fetch)) => {
                    let fetched = fetch.wait().await;
                    if let Err(failure) = self.fill(&slice, fetched, &mut filling) {
                        self.halve(slice, failure, &mut filling).await?;
                    }
                }
                Some(Coming::Large(slice)) => self.fill_large(&slice, &mut filling).await?,
                None => break,
            }
        }
        self.add_run(filling.arena, place);
        Ok(())
    }

    /// Assembles the packets of a slice.
    fn fill(
        &mut self,
        slice: &Slice,
        fetched: Result<Fetched, Failure>,
        to: &mut Filling<'_>,
    ) -> Result<(), Failure> {
        if self.output.is_unwanted() {
            return Err(unwanted());
        }
        let (fetched, range) = (fetched?, self.what.selection.range);
        self.make_room(&mut to.arena, fetched.size(range).1, to.place)?;
        fetched.assemble(slice, range, to.beside, &mut to.arena)
    }

    /// After a failed read of a slice, bisects it to find the damaged flows.
    async fn halve(
        &mut self,
        slice: Slice,
        failure: Failure,
        to: &mut Filling<'_>,
    ) -> Result<(), Failure> {
        let mut failed = vec![(slice, failure)];
        while let Some((slice, failure)) = failed.pop() {
            let packets = slice.packets();
            let halves = if may_skip(&failure) { slice.halves() } else { None };
            let Some(halves) = halves else {
                self.skip(to.segment, packets, failure)?;
                continue;
            };
            for half in halves {
                let fetched = half.fetch(to.open).await;
                if let Err(failure) = self.fill(&half, fetched, to) {
                    failed.push((half, failure));
                }
            }
        }
        Ok(())
    }

    /// Reads a flow part that is larger than a slice, piece by piece. Stops at damage; earlier packets stay.
    async fn fill_large(&mut self, slice: &Slice, to: &mut Filling<'_>) -> Result<(), Failure> {
        let range = self.what.selection.range;
        let mut part = match LargePart::begin(to.open, slice, self.slice_bytes) {
            Ok(part) => part,
            Err(failure) => return self.skip(to.segment, slice.packets(), failure),
        };
        loop {
            if self.output.is_unwanted() {
                return Err(unwanted());
            }
            self.make_room(&mut to.arena, part.size(), to.place)?;
            let read = match part.assemble(range, to.beside, &mut to.arena) {
                Ok(None) => return Ok(()),
                Ok(Some(wants)) => part.read(wants).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = read {
                return self.skip(to.segment, part.left(), failure);
            }
        }
    }

    /// Frees memory for packets of this many bytes: first spills runs of other segments, the largest first, then
    /// the packets of this one.
    fn make_room(&mut self, arena: &mut Arena, bytes: usize, place: usize) -> Result<(), Failure> {
        // Stored and raw bytes of this slice and of prefetched ones.
        let slices = self.slice_bytes.saturating_mul(4);
        let allowed = self.memory.saturating_sub(usize::try_from(slices).unwrap_or(usize::MAX));
        while self.resident() + arena.memory() + bytes > allowed {
            let largest = self
                .sources
                .iter_mut()
                .flatten()
                .filter(|source| matches!(source.run, Run::Memory { .. }))
                .max_by_key(|source| source.run.memory());
            match largest {
                Some(source) => self.spill.spill(&mut source.run)?,
                None if arena.is_empty() => break,
                None => {
                    self.add_run(std::mem::take(arena), place);
                }
            }
        }
        Ok(())
    }

    /// Sorts the packets that were read and adds them to the merge as a run.
    fn add_run(&mut self, mut arena: Arena, segment: usize) {
        arena.sort(self.what.order == Order::Time);
        let run = Run::new(arena);
        let Some(active) = self.active.get_mut(segment) else { return };
        let Some(head) = run.head() else { return };
        active.runs += 1;
        let position = self.position(head, self.active.get(segment).map_or(0, |a| a.state));
        let free = self.sources.iter().position(Option::is_none);
        let place = free.unwrap_or(self.sources.len());
        let source = Some(Source { run, segment });
        match self.sources.get_mut(place) {
            Some(slot) => *slot = source,
            None => self.sources.push(source),
        }
        self.heap.push(Reverse((position, place)));
    }
}
