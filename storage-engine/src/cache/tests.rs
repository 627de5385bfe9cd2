//! The cache over a store that counts its requests.

mod disk;

use std::path::Path as FilePath;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;

use super::*;
use crate::store::Store;

const PIECE: u64 = 1_000;

/// A store with one object, and the ways to read it.
struct Fixture {
    store: Store,
    path: Path,
    bytes: Bytes,
}

impl Fixture {
    /// An object of so many pieces.
    async fn new(pieces: u64) -> Fixture {
        let store = Store::on(Arc::new(InMemory::new()), "test").await.unwrap();
        let path = Path::from("data/object");
        let byte = |number: u64| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        let bytes: Bytes = (0..pieces * PIECE).map(byte).collect();
        store.put_new(&path, vec![bytes.clone()]).await.unwrap();
        Fixture { store, path, bytes }
    }

    fn slice(&self, range: &Range<u64>) -> Bytes {
        self.bytes.slice(range.start as usize..range.end as usize)
    }

    fn piece(&self, number: u64) -> Extent {
        let range = number * PIECE..(number + 1) * PIECE;
        let crc = crc32c::crc32c(&self.slice(&range));
        Extent { range, check: Check::Crc32c { skip: 0, crc } }
    }

    fn object(&self) -> Object {
        Object::of(&self.store, &self.path)
    }

    /// Reads some pieces, each as a range of its own, and checks what came. The GETs it took.
    async fn read(&self, cache: &Cache, numbers: impl IntoIterator<Item = u64>) -> u64 {
        let ranges: Vec<_> = numbers.into_iter().map(|number| vec![self.piece(number)]).collect();
        self.read_as(cache, Keep::AsAsked, &ranges).await
    }

    async fn read_as(&self, cache: &Cache, keep: Keep, ranges: &[Vec<Extent>]) -> u64 {
        let before = self.store.requests().gets;
        let read = self.try_read(cache, keep, ranges).await.unwrap();
        for (range, bytes) in ranges.iter().zip(&read.bytes) {
            let (first, last) = (range.first().unwrap(), range.last().unwrap());
            assert_eq!(*bytes, self.slice(&(first.range.start..last.range.end)));
        }
        self.store.requests().gets - before
    }

    /// One request for each stretch that is missing.
    async fn try_read(
        &self,
        cache: &Cache,
        keep: Keep,
        ranges: &[Vec<Extent>],
    ) -> Result<Read, Failure> {
        let get = |missing: Vec<Range<u64>>| {
            let (store, path) = (self.store.clone(), self.path.clone());
            async move {
                tokio::task::yield_now().await;
                let mut requests: Vec<Range<u64>> = Vec::new();
                for range in missing {
                    match requests.last_mut() {
                        Some(last) if last.end == range.start => last.end = range.end,
                        _ => requests.push(range),
                    }
                }
                Ok(Runs::new(&requests, store.get_ranges(&path, &requests).await?))
            }
        };
        cache.read(self.object(), keep, ranges, get).await
    }
}

#[tokio::test]
async fn second_read_sends_no_request() {
    let (fixture, cache) = (Fixture::new(20).await, Cache::in_memory(100_000));
    assert_eq!(fixture.read(&cache, 0..10).await, 1);
    assert_eq!(fixture.read(&cache, 0..10).await, 0);
    assert_eq!(fixture.read(&cache, [3, 9, 4]).await, 0);
    let counts = cache.counts();
    assert_eq!((counts.misses, counts.from_memory), (10, 13));
    // The memory is that of the pieces alone, not of the request that they came with.
    assert!((10_000..15_000).contains(&counts.memory_bytes), "{counts:?}");
    let kept: Vec<_> = (8..12).map(|number| fixture.piece(number)).collect();
    assert_eq!(cache.bytes_kept(fixture.object(), kept.iter()), 2 * PIECE);
}

#[tokio::test]
async fn only_missing_pieces_are_requested() {
    let (fixture, cache) = (Fixture::new(20).await, Cache::in_memory(100_000));
    fixture.read(&cache, [2, 3, 7]).await;
    // One range of ten pieces, of which three are there.
    let range: Vec<_> = (0..10).map(|number| fixture.piece(number)).collect();
    let read = fixture.try_read(&cache, Keep::AsAsked, std::slice::from_ref(&range)).await.unwrap();
    let fetched: u64 = read.fetched.iter().map(|range| range.end - range.start).sum();
    assert_eq!((read.fetched.len(), fetched), (7, 7 * PIECE));
    assert_eq!(read.bytes[0], fixture.slice(&(0..10 * PIECE)));
    assert_eq!(fixture.read_as(&cache, Keep::AsAsked, &[range, vec![fixture.piece(1)]]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_reads_of_one_piece_share_a_request() {
    let (fixture, cache) = (Fixture::new(20).await, Cache::in_memory(100_000));
    let before = fixture.store.requests().gets;
    let all = (0..8).map(|_| fixture.read(&cache, 0..5));
    futures::future::join_all(all).await;
    assert_eq!(fixture.store.requests().gets - before, 1);
    let counts = cache.counts();
    assert_eq!((counts.misses, counts.from_flight + counts.from_memory), (5, 35));
    // Those who want more ask for what is more.
    let before = fixture.store.requests();
    futures::future::join(fixture.read(&cache, 10..14), fixture.read(&cache, 10..16)).await;
    assert_eq!((fixture.store.requests() - before).bytes_read, 6 * PIECE);
    assert_eq!(cache.shared.in_flight.count(), 0);
}

#[tokio::test]
async fn waiter_of_a_failed_request_retries() {
    let (fixture, cache) = (Fixture::new(4).await, Cache::in_memory(100_000));
    let (object, ranges) = (fixture.object(), [vec![fixture.piece(0)]]);
    let fails = cache.read(object, Keep::AsAsked, &ranges, |_| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(Failure::new(FailureKind::Unavailable, "away"))
    });
    let (failed, gets) = futures::future::join(fails, fixture.read(&cache, [0])).await;
    assert_eq!(failed.unwrap_err().kind(), FailureKind::Unavailable);
    assert_eq!(gets, 1);
    assert_eq!(cache.shared.in_flight.count(), 0);
}

#[tokio::test]
async fn shared_request_is_cancelled_with_its_last_waiter() {
    let (fixture, cache) = (Fixture::new(4).await, Cache::in_memory(100_000));
    let ranges = [vec![fixture.piece(0)]];
    let slow = |milliseconds| {
        let bytes = fixture.slice(&(0..PIECE));
        let get = move |missing: Vec<Range<u64>>| {
            let bytes = bytes.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                Ok(Runs::new(&missing, vec![bytes]))
            }
        };
        let read = cache.read(fixture.object(), Keep::AsAsked, &ranges, get);
        tokio::time::timeout(Duration::from_millis(5), read)
    };
    // Who began it gives up; who came later has what it brings.
    let (gave_up, gets) = futures::future::join(slow(50), fixture.read(&cache, [0])).await;
    assert!(gave_up.is_err() && gets == 0);

    let (cache, hour) = (Cache::in_memory(100_000), 3_600_000);
    let get = |_| async move {
        tokio::time::sleep(Duration::from_millis(hour)).await;
        Ok(Runs::default())
    };
    let read = cache.read(fixture.object(), Keep::AsAsked, &ranges, get);
    assert!(tokio::time::timeout(Duration::from_millis(5), read).await.is_err());
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(cache.shared.in_flight.count(), 0);
    assert_eq!(fixture.read(&cache, [0]).await, 1);
}

#[tokio::test]
async fn damaged_and_missing_pieces_are_not_cached() {
    let (fixture, cache) = (Fixture::new(4).await, Cache::in_memory(100_000));
    let wrong = Extent { check: Check::Crc32c { skip: 0, crc: 7 }, ..fixture.piece(1) };
    for _ in 0..2 {
        let ranges = [vec![wrong.clone()]];
        // Who reads it is to say what is wrong with it.
        assert_eq!(fixture.read_as(&cache, Keep::AsAsked, &ranges).await, 1);
    }
    let outside = Extent { range: 3 * PIECE..5 * PIECE, ..fixture.piece(3) };
    let failure = fixture.try_read(&cache, Keep::AsAsked, &[vec![outside]]).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Damaged);
    let nothing = fixture.try_read(&cache, Keep::AsAsked, &[vec![]]).await.unwrap();
    assert_eq!(nothing.bytes, [Bytes::new()]);
    assert_eq!(cache.counts().memory_bytes, 0);
}

#[tokio::test]
async fn scan_larger_than_the_cache_does_not_evict_hot_pieces() {
    let (fixture, cache) = (Fixture::new(2_100).await, Cache::in_memory(125_000));
    for _ in 0..3 {
        fixture.read(&cache, 0..10).await;
        fixture.read(&cache, 30..50).await;
    }
    for number in (100..2_100).step_by(10) {
        assert_eq!(fixture.read(&cache, number..number + 10).await, 1);
    }
    // In one go it does not even pass through.
    let before = cache.counts().memory_bytes;
    fixture.read(&cache, 100..2_100).await;
    assert_eq!(cache.counts().memory_bytes, before);
    assert_eq!(fixture.read(&cache, 0..10).await, 0);
    assert_eq!(fixture.read(&cache, 30..50).await, 0);
}
