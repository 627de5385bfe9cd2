//! A flow that is larger than a slice.

use super::*;

/// One flow, larger than any slice: packets of all lengths, each fourth one the other way, and
/// a few packets of others.
pub(super) fn one_large_flow(packets: u32) -> Vec<Given> {
    let mut given = vec![ethernet("eth0")];
    let mut state = 7_u64;
    for number in 0..packets {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        let payload: Vec<u8> =
            (0..state % 1_400).map(|n| (state >> (n % 50)) as u8 ^ n as u8).collect();
        let (hosts, ports) = match number % 100 {
            99 => ((3, 4), (6_000, 53)),
            n if n % 4 == 3 => ((2, 1), (443, 5_000)),
            _ => ((1, 2), (5_000, 443)),
        };
        given.push(at(i64::from(number) * 1_000, udp(hosts, ports, &payload)));
    }
    given
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_larger_than_a_slice_comes_in_pieces() {
    let recording = Recording { segment_bytes: 6 << 20, ..Recording::of(1) };
    let given = one_large_flow(20_000);
    let view = view_of(recording, given.clone()).await;
    assert_eq!(all_segments(view.store()).await.len(), 3);
    let window = TimeRange { start: Time(3_000_000), end: Time(17_000_000) };
    for order in [Order::Time, Order::Recorded] {
        for range in [TimeRange::ALL, window] {
            let much = of(Selection::of_range(range), order);
            let little = Export { memory: LEAST_MEMORY, ..much.clone() };
            let (file, report) = run(&view, &much).await;
            let (same, of_little) = run(&view, &little).await;
            assert!(file == same, "{order:?}");
            assert!(of_little.spilled > 0 && report.skipped.is_empty());
            let mut expected = by_time(&given);
            expected.retain(|(stamp, ..)| range.contains(stamp.time().unwrap()));
            assert_eq!(plain(&packets(&read(&same))), expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_a_large_flow_loses_only_later_packets() {
    let recording = Recording { segment_bytes: 64 << 20, ..Recording::of(1) };
    let given = one_large_flow(20_000);
    let view = view_of(recording, given.clone()).await;
    damage(view.store(), 0, Layer::Body).await;
    let what = Export { memory: LEAST_MEMORY, ..of(Selection::default(), Order::Time) };
    let (file, report) = run(&view, &what).await;
    let missing: u64 = report.skipped.iter().map(|part| part.packets).sum();
    // The damage is in the middle, and the other flow has no body.
    assert!((8_000..13_000).contains(&missing), "{missing}");
    assert_eq!(report.packets + missing, 20_000);
    let whole = by_time(&given);
    let got = plain(&packets(&read(&file)));
    assert_eq!(got[..5_000], whole[..5_000]);
    let other = |packet: &&(Stamp, u32, Vec<u8>)| has_host(&packet.2, 3);
    assert_eq!(got.iter().filter(other).count(), 200);
}
