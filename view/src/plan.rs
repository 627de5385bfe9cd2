//! Which requests fetch a set of byte ranges of an object. The decision precedes the first request, so that the
//! cost of a read is known without reading.

use std::collections::BTreeSet;
use std::ops::{AddAssign, Range};

use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::store::Store;

/// Which gaps between wanted ranges are read, so that fewer requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GapRule {
    /// A gap is read only if it is shorter than this, bytes.
    longest: u64,
    /// All gaps in one object are together at most this share of the wanted bytes: numerator and denominator.
    share: (u64, u64),
    /// All gaps in one object may have so many bytes, whatever is wanted.
    free: u64,
}

impl GapRule {
    /// For stores whose requests take no time, as a folder's do.
    pub(super) const LOCAL: GapRule = GapRule { longest: 1 << 20, share: (1, 5), free: 0 };

    /// For stores whose requests take 10 to 30 ms, as a bucket's do. In that time a connection delivers 1 to 2 MB,
    /// so by time alone nearly every gap is worth reading. What limits it is that the bytes of an answer stay
    /// within 1.5 times of what they are by [`GapRule::LOCAL`]. Measured: docs/costs.md.
    pub(super) const REMOTE: GapRule = GapRule { longest: 3 << 19, share: (2, 5), free: 16 << 10 };

    /// The rule for a store.
    pub(super) fn of(store: &Store) -> GapRule {
        if store.is_remote() { GapRule::REMOTE } else { GapRule::LOCAL }
    }

    /// The most bytes of all gaps, for so many wanted bytes.
    fn most(&self, wanted: u64) -> u64 {
        let (numerator, denominator) = self.share;
        (wanted / denominator).saturating_mul(numerator).max(self.free)
    }
}

/// The longest single request, bytes. A longer range is split into pieces of about equal length, which are
/// requested concurrently.
const MAX_REQUEST: u64 = 32 << 20;

/// The requests for some ranges of one object, ascending and disjoint.
///
/// Ranges that touch or overlap are merged. Gaps are read too, the smallest first, as far as the rule allows: a
/// thousand small gaps must not add up to reading a whole object.
pub(super) fn coalesce(ranges: &[Range<u64>], rule: GapRule) -> Vec<Range<u64>> {
    let wanted = union(ranges);
    let bytes: u64 = wanted.iter().map(|range| range.end - range.start).sum();
    let mut gaps: Vec<(u64, usize)> = wanted
        .windows(2)
        .enumerate()
        .map(|(place, pair)| (pair[1].start - pair[0].end, place))
        .collect();
    gaps.sort_unstable();
    let (mut waste, most) = (0, rule.most(bytes));
    let closed: BTreeSet<usize> = gaps
        .into_iter()
        .take_while(|(gap, _)| {
            waste += gap;
            *gap < rule.longest && waste < most
        })
        .map(|(_, place)| place)
        .collect();
    let mut joined: Vec<Range<u64>> = Vec::new();
    for (place, range) in wanted.into_iter().enumerate() {
        match joined.last_mut() {
            Some(last) if place > 0 && closed.contains(&(place - 1)) => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined.into_iter().flat_map(pieces).collect()
}

/// Ascending and disjoint, without empty ranges.
fn union(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted: Vec<_> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
    sorted.sort_unstable_by_key(|range| range.start);
    let mut union: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match union.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => union.push(range),
        }
    }
    union
}

/// Splits a range into pieces of one request each.
fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let count = (range.end - range.start).div_ceil(MAX_REQUEST).max(1);
    let length = (range.end - range.start).div_ceil(count);
    (0..count).map(move |piece| {
        let start = range.start + piece * length;
        start..(start + length).min(range.end)
    })
}

/// The cost of a read from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Objects that are read from.
    pub objects: u64,
    /// GETs.
    pub requests: u64,
    /// Bytes of those GETs, with the gaps between ranges.
    pub bytes: u64,
    /// Wanted bytes that are in the cache, so that fewer are requested.
    pub cached: u64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.objects = self.objects.saturating_add(other.objects);
        self.requests = self.requests.saturating_add(other.requests);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.cached = self.cached.saturating_add(other.cached);
    }
}

/// The planned reads of one segment, fetch by fetch.
#[derive(Debug, Clone)]
pub struct Plan {
    gaps: GapRule,
    layers: BTreeSet<Layer>,
    requests: u64,
    bytes: u64,
    cached: u64,
}

impl Plan {
    /// No read yet, of a store with that rule.
    pub(super) fn new(gaps: GapRule) -> Plan {
        Plan { gaps, layers: BTreeSet::new(), requests: 0, bytes: 0, cached: 0 }
    }

    /// One fetch of some ranges of a layer.
    pub fn fetch(&mut self, layer: Layer, ranges: &[Range<u64>]) {
        let requests = coalesce(ranges, self.gaps);
        if requests.is_empty() {
            return;
        }
        self.layers.insert(layer);
        self.requests += requests.len() as u64;
        self.bytes += requests.iter().map(|request| request.end - request.start).sum::<u64>();
    }

    /// A layer read whole in one request, as an `index` layer is.
    pub fn whole(&mut self, layer: Layer, bytes: u64) {
        self.layers.insert(layer);
        self.requests += 1;
        self.bytes += bytes;
    }

    /// Counts bytes of the fetches that are in the cache.
    pub fn cached(&mut self, bytes: u64) {
        self.cached = self.cached.saturating_add(bytes);
    }

    /// The cost of all fetches as if the cache were empty, and how much of it is cached.
    pub fn cost(&self) -> Cost {
        let Plan { gaps: _, layers, requests, bytes, cached } = self;
        let objects = layers.len() as u64;
        Cost { objects, requests: *requests, bytes: *bytes, cached: *cached }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use capstan_storage_engine::cache::Runs;
    use proptest::prelude::*;

    fn ranges(bounds: &[(u64, u64)]) -> Vec<Range<u64>> {
        bounds.iter().map(|(start, end)| *start..*end).collect()
    }

    #[test]
    fn small_gaps_are_read_over_and_large_ones_not() {
        let mib = 1 << 20;
        for (wanted, requests) in [
            (vec![(0, 100), (100, 200)], vec![(0, 200)]),
            (vec![(0, 100), (110, 200)], vec![(0, 200)]),
            (vec![(0, 100), (150, 200)], vec![(0, 100), (150, 200)]),
            (vec![(0, 20 * mib), (21 * mib, 22 * mib)], vec![(0, 20 * mib), (21 * mib, 22 * mib)]),
            (vec![(0, 20 * mib), (21 * mib - 1, 22 * mib)], vec![(0, 22 * mib)]),
            (vec![(5, 5), (9, 7)], vec![]),
        ] {
            assert_eq!(coalesce(&ranges(&wanted), GapRule::LOCAL), ranges(&requests), "{wanted:?}");
        }
    }

    #[test]
    fn many_small_gaps_do_not_add_up() {
        let ranges: Vec<_> = (0..1_000).map(|n| n * 20_000..n * 20_000 + 1_000).collect();
        let requests = coalesce(&ranges, GapRule::LOCAL);
        let bytes: u64 = requests.iter().map(|r| r.end - r.start).sum();
        assert!(bytes < 1_200_000, "{bytes}");
        assert!(requests.len() < 1_000);
    }

    #[test]
    fn where_requests_take_time_larger_gaps_are_read() {
        let bounds: Vec<_> = (0..20).map(|n| (n * 1_300, n * 1_300 + 1_000)).collect();
        let wanted = ranges(&bounds);
        assert!(coalesce(&wanted, GapRule::LOCAL).len() > 5);
        assert_eq!(coalesce(&wanted, GapRule::REMOTE), ranges(&[(0, 19 * 1_300 + 1_000)]));
        // What is free is so also for a small read, and no more than that is.
        let free = GapRule::REMOTE.free;
        let two = |gap| coalesce(&ranges(&[(0, 100), (100 + gap, 200 + gap)]), GapRule::REMOTE);
        assert_eq!((two(free - 1).len(), two(free).len()), (1, 2));
        let all: u64 =
            coalesce(&ranges(&[(0, 100 << 20), (102 << 20, 103 << 20)]), GapRule::REMOTE)
                .iter()
                .map(|range| range.end - range.start)
                .sum();
        assert_eq!(all, 101 << 20, "a gap that takes longer than a request");
    }

    #[test]
    fn a_long_range_comes_in_pieces_of_one_length() {
        let requests = coalesce(&ranges(&[(7, 7 + 3 * MAX_REQUEST)]), GapRule::LOCAL);
        assert_eq!(requests.len(), 3);
        assert!(requests.iter().all(|r| r.end - r.start == MAX_REQUEST));
    }

    #[test]
    fn a_plan_counts_objects_once() {
        let mut plan = Plan::new(GapRule::LOCAL);
        plan.whole(Layer::Index, 10);
        plan.fetch(Layer::Body, &[0..100, 150..200]);
        plan.fetch(Layer::Body, &ranges(&[(1_000, 1_100)]));
        plan.fetch(Layer::Head, &[]);
        plan.cached(70);
        assert_eq!(plan.cost(), Cost { objects: 2, requests: 4, bytes: 260, cached: 70 });
    }

    proptest! {
        #[test]
        fn every_requested_byte_is_returned(
            wanted in proptest::collection::vec((0_u64..5_000, 0_u64..400), 0..40),
        ) {
            let object: Vec<u8> = (0..6_000_u32).map(|n| (n * 7 % 251) as u8).collect();
            let ranges: Vec<_> = wanted.iter().map(|(at, length)| *at..at + length).collect();
            let rule = if wanted.len() % 2 == 0 { GapRule::LOCAL } else { GapRule::REMOTE };
            let requests = coalesce(&ranges, rule);
            prop_assert!(requests.windows(2).all(|pair| pair[0].end <= pair[1].start));
            let slice = |r: &Range<u64>| &object[r.start as usize..r.end as usize];
            let slices: Vec<_> =
                requests.iter().map(|r| Bytes::copy_from_slice(slice(r))).collect();
            let runs = Runs::new(&requests, slices);
            for range in ranges.iter().filter(|range| !range.is_empty()) {
                let back = runs.get(range);
                prop_assert_eq!(back.as_deref(), Some(slice(range)));
            }
        }
    }
}
