//! A file says what retention deleted of its window.

use capstan_index::filter::Term;
use capstan_storage_engine::catalog::Segment;
use capstan_view::MAY_BE_DELETED;
use capstan_view::access::{KEY_BYTES, Mask, Rights};

use super::*;

const AT: Time = Time(9_000_000_000);

/// A view of four thousand packets, without some layers of the first two segments.
async fn without(layers: &[Layer]) -> (Arc<StoreView>, Vec<Arc<Segment>>) {
    let store = store_of(Recording::of(1), traffic(1, 4_000, 0, 1_000)).await;
    let segments = all_segments(&store).await;
    assert!(segments.len() > 2);
    retire(&store, &segments[..2], layers, AT, "older than 7 d").await;
    (StoreView::load(store).await.unwrap(), segments)
}

fn times(segments: &[Arc<Segment>]) -> String {
    let first = segments.iter().filter_map(|of| of.entry.first).min().unwrap();
    let last = segments.iter().filter_map(|of| of.entry.last).max().unwrap();
    format!("with packets from {first} to {}", Time(last.0 + 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn file_says_which_packets_retention_deleted() {
    for (layers, first) in [
        (&[Layer::Packets][..], "packets"),
        (&[Layer::Body, Layer::Head, Layer::Packets, Layer::Flows], "packets"),
        (&Layer::SEALED, "packets"),
        (&[Layer::Flows], "flows"),
        (&[Layer::Index], "index"),
    ] {
        let (view, segments) = without(layers).await;
        let (file, report) = run(&view, &of(Selection::default(), Order::Time)).await;
        let left: u64 = segments[2..].iter().map(|of| of.entry.packets).sum();
        assert_eq!((report.packets, report.skipped.len()), (left, 0), "{layers:?}");
        assert!(report.failure().is_none() && !report.completeness.is_complete());
        let words = format!(
            "retention deleted the {first} layer of 2 segments {}, at 1970-01-01T00:00:09Z: older \
             than 7 d",
            times(&segments[..2])
        );
        assert!(report.notes().contains(&words), "{:?}", report.notes());
        let text = String::from_utf8_lossy(&file);
        assert!(text.contains(&format!("known to be missing: {words}")), "{text}");
        let end = format!("end of the file, which is not complete: it has {left} packets; {words}");
        assert!(text.contains(&end), "{text}");
        plan(&whole(&view), &of(Selection::default(), Order::Time)).await.unwrap();
        // A window that has all its packets says nothing of others.
        let start = segments[1].entry.last.unwrap().max(segments[0].entry.last.unwrap());
        let later = TimeRange { start: Time(start.0 + 1), end: Time::MAX };
        let (file, report) = run(&view, &of(Selection::of_range(later), Order::Time)).await;
        assert!(!report.completeness.deleted.is_known());
        assert!(!String::from_utf8_lossy(&file).contains("retention"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_deleted_segments_are_no_damage() {
    let secret = b"CLIENT_RANDOM 00";
    let log = [&0x544c_534b_u32.to_le_bytes()[..], &16_u32.to_le_bytes(), secret].concat();
    let block = Block {
        block_type: block_type::DECRYPTION_SECRETS,
        body: log,
        big_endian: false,
        before: 0,
    };
    let mut given = vec![Given::Block(block)];
    given.extend(traffic(1, 4_000, 0, 1_000));
    let store = store_of(Recording::of(1), given).await;
    let segments = all_segments(&store).await;
    let with_secrets = segments.iter().position(|of| of.entry.secrets).unwrap();
    let later = TimeRange { start: Time(3_900_000), end: Time::MAX };
    assert!(!segments[with_secrets].entry.touches(&later));
    let selected = of(Selection::of_range(later), Order::Time);
    let view = StoreView::load(store.clone()).await.unwrap();
    let (file, _) = run(&view, &selected).await;
    assert!(String::from_utf8_lossy(&file).contains("CLIENT_RANDOM"));
    retire(&store, &segments[with_secrets..=with_secrets], &Layer::SEALED, AT, "age").await;
    let view = StoreView::load(store).await.unwrap();
    let (file, report) = run(&view, &selected).await;
    assert!(!String::from_utf8_lossy(&file).contains("CLIENT_RANDOM"));
    assert!(report.failure().is_none(), "{:?}", report.failure());
    assert!(report.notes()[0].contains("the index layer of 1 segment"), "{:?}", report.notes());
}

#[tokio::test(flavor = "multi_thread")]
async fn masked_principal_gets_one_sentence_whatever_was_deleted() {
    let mask = Mask::new(Term::ip(Address::v4([10, 0, 0, 7])).into(), [7; KEY_BYTES]).unwrap();
    let who = Principal::new("team", Rights::all(), Some(mask));
    let mut endings = Vec::new();
    for layers in [&[][..], &[Layer::Packets], &Layer::SEALED] {
        let view = match layers {
            [] => view_of(Recording::of(1), traffic(1, 4_000, 0, 1_000)).await,
            layers => without(layers).await.0,
        };
        let scoped = view.scoped(&who);
        let pieces: Vec<Bytes> =
            stream(scoped, of(Selection::default(), Order::Time)).try_collect().await.unwrap();
        let file = pieces.concat();
        let text = String::from_utf8_lossy(&file);
        let (start, end) = text.rsplit_once("end of the file").unwrap();
        assert!(start.contains(MAY_BE_DELETED), "{text}");
        assert!(!text.contains("older than 7 d") && !text.contains("layer"), "{text}");
        let (_, end) = end.split_once(" packets").unwrap();
        endings.push(end.split('.').next().unwrap().to_owned());
    }
    assert!(endings.iter().all(|end| *end == endings[0]), "{endings:?}");
    assert!(endings[0].contains(MAY_BE_DELETED.trim_end_matches('.')), "{endings:?}");
}

/// Each packet of a file is the beginning of the one that went in: how many are whole, and how many are cut to their
/// headers.
fn whole_and_cut(given: &[Given], file: &[u8]) -> (usize, usize) {
    const HEADERS: usize = 42;
    let (mut expected, found) = (packets(given), packets(&read(file)));
    expected.sort_by_key(|packet| packet.stamp.time());
    assert_eq!(found.len(), expected.len());
    let (mut whole, mut bare) = (0, 0);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!((found.stamp, found.length), (expected.stamp, expected.length));
        assert!(found.data.len() >= HEADERS && expected.data.starts_with(&found.data));
        let left = expected.data.len() - found.data.len();
        whole += usize::from(left == 0);
        bare += usize::from(left > 0 && found.data.len() == HEADERS);
        let comment = format!("retention deleted the last {left} captured bytes");
        let options = if left == 0 { vec![] } else { options(&[(1, comment.as_bytes())]) };
        assert_eq!(found.options, options);
    }
    (whole, bare)
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_are_cut_where_retention_deleted_their_payload() {
    // Flow parts of many sizes, and one that is read in pieces.
    // The first have all their payload in `head`.
    for (given, has_body) in
        [(traffic(1, 6_000, 0, 1_000), false), (large::one_large_flow(12_000), true)]
    {
        let recording = Recording { segment_bytes: 6 << 20, ..Recording::of(1) };
        let store = store_of(recording, given.clone()).await;
        let segments = all_segments(&store).await;
        let mut counts = Vec::new();
        for layers in [&[][..], &[Layer::Body], &[Layer::Head]] {
            if !layers.is_empty() {
                retire(&store, &segments, layers, AT, "older than 7 d").await;
            }
            let view = StoreView::load(store.clone()).await.unwrap();
            let much = of(Selection::default(), Order::Time);
            let little = Export { memory: LEAST_MEMORY, ..much.clone() };
            let cost = plan(&whole(&view), &much).await.unwrap();
            let (file, report) = run(&view, &much).await;
            assert!(cost.objects <= 5 * segments.len() as u64);
            assert!(file == run(&view, &little).await.0, "{layers:?}");
            assert!(report.failure().is_none() && report.skipped.is_empty(), "{report:?}");
            assert_eq!(report.completeness.deleted.is_known(), !layers.is_empty());
            counts.push(whole_and_cut(&given, &file));
        }
        let [all, without_body, without_payload] = counts[..] else { panic!("three") };
        let empty = packets(&given).iter().filter(|of| of.data.len() == 42).count();
        assert_eq!(all, (packets(&given).len(), 0));
        assert!(without_body.0 > empty && (without_body.0 < all.0) == has_body, "{counts:?}");
        assert_eq!(without_payload, (empty, all.0 - empty), "{counts:?}");
    }
}
