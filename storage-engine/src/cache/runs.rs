//! Byte ranges of an object, as returned by requests.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Disjoint ranges of one object, in ascending order.
#[derive(Debug, Default)]
pub struct Runs(Vec<(u64, Bytes)>);

impl Runs {
    /// Merges the results of requests, in any order.
    pub fn new(requests: &[Range<u64>], came: Vec<Bytes>) -> Runs {
        let mut runs: Vec<_> = requests.iter().map(|request| request.start).zip(came).collect();
        runs.sort_unstable_by_key(|(start, _)| *start);
        Runs(runs)
    }

    /// The bytes of a range if one request returned them all, without a copy.
    pub(super) fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        let place = self.0.partition_point(|(start, _)| *start <= range.start).checked_sub(1)?;
        let (start, bytes) = self.0.get(place)?;
        let place = |at: u64| usize::try_from(at.checked_sub(*start)?).ok();
        let (from, to) = (place(range.start)?, place(range.end)?);
        (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
    }

    /// The bytes of a range, joined from several requests if necessary. None if some are missing.
    pub fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        if range.is_empty() {
            return Some(Bytes::new());
        }
        self.slice(range).or_else(|| self.join(range))
    }

    fn join(&self, range: &Range<u64>) -> Option<Bytes> {
        let first = self.0.partition_point(|(start, _)| *start <= range.start).checked_sub(1)?;
        let (mut at, mut parts) = (range.start, BytesMut::new());
        for (start, bytes) in self.0.get(first..)? {
            let end = start.saturating_add(bytes.len() as u64).min(range.end);
            parts.extend_from_slice(&self.slice(&(at..end)).filter(|part| !part.is_empty())?);
            at = end;
            if at == range.end {
                return Some(parts.freeze());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_over_several_requests_are_joined(at in 0_u64..40, length in 0_u64..60) {
            let requests = [20..30, 0..10, 10..20, 32..100];
            let bytes = |range: &Range<u64>| range.clone().map(|n| n as u8).collect::<Bytes>();
            let came: Vec<_> = requests.iter().map(bytes).collect();
            let runs = Runs::new(&requests, came.clone());
            let range = at..at + length;
            let there = range.is_empty() || range.end <= 30 || range.start >= 32;
            prop_assert_eq!(runs.get(&range), there.then(|| bytes(&range)));
            // An object that is shorter than it should be.
            let short = [came[0].slice(..5), came[1].clone(), came[2].clone(), Bytes::new()];
            let runs = Runs::new(&requests, short.into());
            let there = range.is_empty() || range.end <= 25;
            prop_assert_eq!(runs.get(&range), there.then(|| bytes(&range)));
        }
    }

    #[test]
    fn range_of_one_request_is_not_copied() {
        let came = Bytes::from_static(b"0123456789");
        let runs = Runs::new(std::slice::from_ref(&(100..110)), vec![came.clone()]);
        let part = runs.get(&(103..105)).unwrap();
        assert_eq!(part.as_ptr(), came[3..].as_ptr());
    }
}
