//! An export of many small segments, from a store whose requests take time.

use std::time::{Duration, Instant};

use capstan_storage_engine::store::Store;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};

use super::*;

/// Time to the first byte of each answer.
const FIRST_BYTE: Duration = Duration::from_millis(100);

/// Packets, each in a segment of its own.
const SEGMENTS: u32 = 300;

/// A store of many segments, seen from afar.
async fn far_store() -> Store {
    let objects = Arc::new(InMemory::new());
    let near = Store::on(objects.clone(), "test").await.unwrap();
    let payload = [7; 1_400];
    let packet = |number: u32| at(i64::from(number) * 1_000_000, udp((1, 101), (1, 53), &payload));
    let given = std::iter::once(ethernet("eth0")).chain((0..SEGMENTS).map(packet)).collect();
    record(&near, Recording { segment_bytes: 1, ..Recording::of(1) }, given).await;
    roll_up_all(&near, "test").await.unwrap();
    let config = ThrottleConfig { wait_get_per_call: FIRST_BYTE, ..ThrottleConfig::default() };
    // The same objects.
    Store::on(Arc::new(ThrottledStore::new(objects, config)), "test").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_byte_comes_before_most_segments_are_opened_and_these_overlap() {
    let store = far_store().await;
    for order in [Order::Time, Order::Recorded] {
        let view = StoreView::load(store.clone()).await.unwrap();
        assert_eq!(all_segments(view.store()).await.len() as u32, SEGMENTS);
        let (to, mut from) = mpsc::channel::<Bytes>(1);
        let (before, began) = (store.requests(), Instant::now());
        let read = async {
            let mut bytes = from.recv().await.unwrap().len();
            let first = (store.requests() - before).gets;
            while let Some(piece) = from.recv().await {
                bytes += piece.len();
            }
            (bytes, first)
        };
        let what = of(Selection::default(), order);
        let work = async {
            let report = export(&whole(&view), &what, &to).await;
            drop(to);
            report.unwrap()
        };
        let ((bytes, first), report) = futures::future::join(read, work).await;
        let (took, gets) = (began.elapsed(), (store.requests() - before).gets);
        assert_eq!((report.packets, report.skipped.len()), (u64::from(SEGMENTS), 0));
        assert!(bytes > 1_400 * SEGMENTS as usize);
        assert!(first < gets / 2, "{order:?}: {first} of {gets} requests before the first byte");
        // One after the other the requests take two minutes.
        let one_by_one = FIRST_BYTE * u32::try_from(gets).unwrap();
        assert!(gets >= u64::from(SEGMENTS) * 4, "{gets}");
        assert!(took < one_by_one / 3, "{order:?}: {took:?} for {gets} requests");
    }
}
