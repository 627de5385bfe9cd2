//! Packets that went into a store come out again: all of them, once, in order.

mod deleted;
mod large;
mod sections;
mod year;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use capstan_fixtures::*;
use capstan_ingest::source::open_reader;
use capstan_model::coverage::{Loss, LossCause};
use capstan_model::packet::Stamp;
use capstan_model::{Address, Block, LinkType, Ports, Time, TimeRange};
use capstan_model::{block::block_type, link::Interface};
use capstan_storage_engine::catalog::WriterKind;
use capstan_storage_engine::catalog::rollup::roll_up_all;
use capstan_storage_engine::segment::Layer;
use capstan_view::StoreView;
use futures::TryStreamExt;

use super::*;

#[tokio::test]
async fn coverage_of_pruned_hours_is_reported() {
    let store = busy_hours().await;
    let host = Selection {
        hosts: vec![Address::v4([10, 0, 0, 2]).into()],
        ..Selection::of_range(TimeRange::ALL)
    };
    let mut found = Vec::new();
    for selection in [host, Selection::of_range(TimeRange::ALL)] {
        let view = StoreView::load(store.clone()).await.unwrap();
        let before = store.requests();
        let (_, report) = run(&view, &Export::new(selection, Order::Time)).await;
        let bytes = (store.requests() - before).bytes_read;
        found.push((report.packets, bytes, report.completeness));
    }
    let [(of_host, less, completeness), (of_all, bytes, expected)] = &found[..] else { panic!() };
    assert_eq!((*of_host, *of_all), (600, 1_200));
    assert!(less < bytes, "{less} of {bytes}");
    assert_eq!(completeness, expected);
}

/// A view of a store with one recording.
async fn view_of(recording: Recording, given: Vec<Given>) -> Arc<StoreView> {
    StoreView::load(store_of(recording, given).await).await.unwrap()
}

/// A view as a principal with all rights and without a mask sees it.
fn whole(view: &Arc<StoreView>) -> ScopedView {
    view.scoped(&Principal::everything())
}

#[tokio::test(flavor = "multi_thread")]
async fn running_export_pins_the_view() {
    let view = view_of(Recording::of(1), traffic(1, 100, 0, 1_000)).await;
    // Nobody takes the second piece.
    let what = of(Selection::of_range(TimeRange::ALL), Order::Time);
    let mut file = stream(whole(&view), what);
    file.try_next().await.unwrap();
    drop(file);
    while view.is_pinned() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The whole file and the report.
async fn run(view: &Arc<StoreView>, what: &Export) -> (Vec<u8>, Report) {
    let (to, mut from) = mpsc::channel::<Bytes>(2);
    let collect = async move {
        let mut file = Vec::new();
        while let Some(piece) = from.recv().await {
            file.extend_from_slice(&piece);
        }
        file
    };
    let work = async move {
        let report = export(&whole(view), what, &to).await;
        drop(to);
        report
    };
    let (file, report) = futures::future::join(collect, work).await;
    let report = report.unwrap();
    assert_eq!(report.bytes, file.len() as u64);
    (file, report)
}

fn of(selection: Selection, order: Order) -> Export {
    Export::new(selection, order)
}

/// What is in a file, but for its own section headers.
fn read(file: &[u8]) -> Vec<Given> {
    let mut given = read_all(open_reader("export", std::io::Cursor::new(file.to_vec())).unwrap());
    let header = |given: &Given| match given {
        Given::Block(block) => block.block_type == block_type::SECTION_HEADER,
        _ => false,
    };
    given.retain(|given| !header(given));
    given
}

/// What tells packets apart in tests: interfaces are numbered anew.
fn plain(packets: &[Owned]) -> Vec<(Stamp, u32, Vec<u8>)> {
    packets.iter().map(|packet| (packet.stamp, packet.length, packet.data.clone())).collect()
}

/// By time, packets without one first, as given where times are equal.
fn by_time(given: &[Given]) -> Vec<(Stamp, u32, Vec<u8>)> {
    let mut all = plain(&packets(given));
    all.sort_by_key(|packet| packet.0.time());
    all
}

/// Whether a frame of [`udp`] has that host at either end.
fn has_host(data: &[u8], host: u8) -> bool {
    data[29] == host || data[33] == host
}

#[tokio::test(flavor = "multi_thread")]
async fn all_packets_come_in_order_of_time() {
    let given = traffic(1, 5_000, 1_000_000, 1_000);
    let view = view_of(Recording::of(1), given.clone()).await;
    assert!(all_segments(view.store()).await.len() > 2);
    let (file, report) = run(&view, &of(Selection::default(), Order::Time)).await;
    assert_eq!(plain(&packets(&read(&file))), by_time(&given));
    assert_eq!((report.packets, report.skipped.len(), report.spilled), (5_000, 0, 0));
    assert!(report.completeness.is_complete());
    assert!(report.failure().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn recorders_are_merged_and_equal_times_go_by_recorder() {
    let store = store().await;
    let mut all: Vec<(Option<Time>, u64, usize, Vec<u8>)> = Vec::new();
    for recorder in [3, 1, 2] {
        // The same steps: many equal times.
        let given = traffic(recorder, 2_000, 1_000_000, 1_000);
        let packets = packets(&given).into_iter().enumerate();
        all.extend(packets.map(|(n, p)| (p.stamp.time(), recorder, n, p.data)));
        record(&store, Recording::of(recorder), given).await;
    }
    all.sort();
    let view = StoreView::load(store).await.unwrap();
    let (file, _) = run(&view, &of(Selection::default(), Order::Time)).await;
    let got: Vec<Vec<u8>> = packets(&read(&file)).into_iter().map(|packet| packet.data).collect();
    assert!(got == all.into_iter().map(|packet| packet.3).collect::<Vec<_>>());
    // One interface a recorder, in the order of their first packets.
    let interfaces = read(&file).iter().filter(|g| matches!(g, Given::Interface(_))).count();
    assert_eq!(interfaces, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn export_with_little_memory_gives_the_same_bytes() {
    let store = store().await;
    for recorder in 1..=6 {
        let recording = Recording { segment_bytes: 1 << 20, ..Recording::of(recorder) };
        record(&store, recording, traffic(recorder, 6_000, 1_000_000, 1_000)).await;
    }
    let view = StoreView::load(store).await.unwrap();
    for order in [Order::Time, Order::Recorded] {
        let much = of(Selection::default(), order);
        let little = Export { memory: LEAST_MEMORY, ..much.clone() };
        let (file, report) = run(&view, &much).await;
        assert_eq!((report.spilled, report.packets), (0, 36_000));
        let (same, report) = run(&view, &little).await;
        assert!(report.spilled > 0, "{order:?}");
        assert!(file == same, "{order:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn export_selects_a_window_and_hosts() {
    let given = traffic(1, 4_000, 0, 1_000);
    let view = view_of(Recording::of(1), given.clone()).await;
    let range = TimeRange { start: Time(1_000_000), end: Time(3_000_000) };
    for (ips, ports) in [(vec![], vec![]), (vec![7], vec![]), (vec![7, 101], vec![53])] {
        let selection = Selection {
            range,
            hosts: ips.iter().map(|host| Address::v4([10, 0, 0, *host]).into()).collect(),
            ports: ports.iter().map(|port: &u16| Ports::from(*port)).collect(),
            ..Selection::default()
        };
        let expected: Vec<_> = by_time(&given)
            .into_iter()
            .filter(|(stamp, _, data)| {
                range.contains(stamp.time().unwrap())
                    && ips.iter().all(|host| has_host(data, *host))
                    && ports.iter().all(|port: &u16| data[36..38] == port.to_be_bytes())
            })
            .collect();
        assert!(!expected.is_empty() && expected.len() < 3_000);
        let (file, report) = run(&view, &of(selection, Order::Time)).await;
        assert_eq!(plain(&packets(&read(&file))), expected);
        assert_eq!(report.packets, expected.len() as u64);
    }
    let nobody = Selection { hosts: vec![Address::v4([9; 4]).into()], ..Selection::default() };
    let (file, report) = run(&view, &of(nobody, Order::Time)).await;
    assert_eq!((report.packets, report.segments), (0, 0));
    assert!(read(&file).is_empty(), "a file without packets is still one");
}

/// Two interfaces, comments, a packet without a time, raw ticks, and other blocks.
fn mixed() -> Vec<Given> {
    let other = Interface {
        link_type: LinkType::RAW,
        snap_length: 96,
        name: None,
        resolution: 12,
        offset_seconds: 0,
        options: Vec::new(),
    };
    let block = |block_type, body: &[u8], before| {
        Given::Block(Block { block_type, body: body.to_vec(), big_endian: false, before })
    };
    let comment = [1, 0, 3, 0, b'h', b'e', b'y', 0].to_vec();
    let packet = |interface, stamp, options| {
        let data = udp((1, 2), (5_000, 53), &[interface as u8; 9]);
        Given::Packet(Owned { interface, stamp, length: data.len() as u32 + 4, data, options })
    };
    // No packet of it comes.
    let idle = Interface {
        link_type: LinkType::ETHERNET,
        snap_length: 0,
        name: Some("idle".into()),
        resolution: 9,
        offset_seconds: 0,
        options: Vec::new(),
    };
    let names = [1, 0, 8, 0, 10, 0, 0, 1, b'w', b'e', b'b', 0, 0, 0, 0, 0];
    // Private enterprise number 32473 is for examples.
    let custom = [0xd9, 0x7e, 0, 0, 1, 2, 3, 4];
    vec![
        ethernet("eth0"),
        Given::Interface(other),
        Given::Interface(idle),
        block(block_type::NAME_RESOLUTION, &names, 0),
        packet(1, Stamp::Raw { ticks: 5_000_000_000_123, time: Some(Time(5_000_000_000)) }, vec![]),
        packet(0, Stamp::At(Time(4_000_000_000)), comment),
        block(block_type::CUSTOM, &custom, 2),
        packet(0, Stamp::At(Time(6_000_000_000)), vec![]),
        block(block_type::INTERFACE_STATISTICS, &[0; 12], 3),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_order_restores_a_capture() {
    let view = view_of(Recording::of(1), mixed()).await;
    let (file, report) = run(&view, &of(Selection::default(), Order::Recorded)).await;
    assert_eq!(read(&file), mixed());
    assert_eq!((report.packets, report.blocks_left_out), (3, 0));
}

#[tokio::test]
async fn the_first_bytes_come_before_most_segments_are_opened() {
    let store = store().await;
    for number in 0..60_u32 {
        let start = i64::from(number) * 1_000_000_000;
        record(&store, Recording::of(u64::from(1 + number)), traffic(1, 1_000, start, 1_000)).await;
    }
    roll_up_all(&store, "test").await.unwrap();
    for order in [Order::Recorded, Order::Time] {
        let what = of(Selection::default(), order);
        let view = StoreView::load(store.clone()).await.unwrap();
        let before = store.requests();
        let (to, mut from) = mpsc::channel::<Bytes>(1);
        let first = async {
            from.recv().await.unwrap();
            let asked = (store.requests() - before).gets;
            while from.recv().await.is_some() {}
            asked
        };
        let work = async {
            let report = export(&whole(&view), &what, &to).await;
            drop(to);
            report
        };
        let (asked, report) = futures::future::join(first, work).await;
        assert_eq!(report.unwrap().packets, 60_000);
        let all = (store.requests() - before).gets;
        assert!(asked < all / 2, "{order:?}: {asked} of {all} requests");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interface_without_packets_is_exported_only_with_everything() {
    let view = view_of(Recording::of(1), mixed()).await;
    let interfaces = |file: &[u8]| {
        let all = read(file).into_iter();
        let names = all.filter_map(|given| match given {
            Given::Interface(interface) => Some(interface.name.unwrap_or_default()),
            _ => None,
        });
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    let (file, _) = run(&view, &of(Selection::default(), Order::Time)).await;
    assert_eq!(interfaces(&file), ["", "eth0", "idle"]);
    let range = TimeRange { start: Time(5_500_000_000), end: Time::MAX };
    let (file, _) = run(&view, &of(Selection::of_range(range), Order::Time)).await;
    assert_eq!(interfaces(&file), ["eth0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn decryption_secrets_are_exported_with_every_part_of_their_capture() {
    let mut given = traffic(1, 3_000, 0, 1_000_000);
    // TLS key log, 4 bytes.
    let body = b"KSLT\x04\0\0\0key\n".to_vec();
    let kind = block_type::DECRYPTION_SECRETS;
    let secret = Block { block_type: kind, body, big_endian: false, before: 10 };
    given.insert(11, Given::Block(secret));
    let store = store().await;
    record(&store, Recording::of(1), given).await;
    // Another capture has nothing to do with it.
    record(&store, Recording::of(2), traffic(2, 100, 9_000_000_000, 1_000)).await;
    let view = StoreView::load(store.clone()).await.unwrap();
    assert!(all_segments(view.store()).await.iter().filter(|of| of.entry.secrets).count() == 1);
    let range = |start, end| TimeRange { start: Time(start), end: Time(end) };
    for (range, secrets) in [
        (TimeRange::ALL, 1),
        (range(0, 1_000_000_000), 1),
        (range(2_900_000_000, Time::MAX.0), 1),
        (range(9_000_000_000, Time::MAX.0), 0),
    ] {
        for order in [Order::Time, Order::Recorded] {
            let what = of(Selection::of_range(range), order);
            let cold = StoreView::load(store.clone()).await.unwrap();
            let cost = plan(&whole(&cold), &what).await.unwrap();
            let cold = StoreView::load(store.clone()).await.unwrap();
            let before = store.requests();
            let (file, report) = run(&cold, &what).await;
            assert_eq!((store.requests() - before).gets, cost.requests);
            assert!(report.packets > 0);
            let all = read(&file);
            let is_secret =
                |given: &Given| matches!(given, Given::Block(b) if b.block_type == kind);
            assert_eq!(all.iter().filter(|given| is_secret(given)).count(), secrets, "{range:?}");
            let packet = all.iter().position(|given| matches!(given, Given::Packet(_))).unwrap();
            let early = all[..packet + 12].iter().any(is_secret);
            assert_eq!(early, secrets == 1, "before what it decrypts");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_export_has_name_resolution_but_no_statistics() {
    let view = view_of(Recording::of(1), mixed()).await;
    let range = TimeRange { start: Time(5_500_000_000), end: Time::MAX };
    let (file, _) = run(&view, &of(Selection::of_range(range), Order::Time)).await;
    let kinds: Vec<Option<u32>> = read(&file)
        .iter()
        .filter_map(|given| match given {
            Given::Block(block) => Some(Some(block.block_type)),
            Given::Packet(_) => Some(None),
            Given::Interface(_) => None,
        })
        .collect();
    assert_eq!(kinds, [Some(block_type::NAME_RESOLUTION), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn untimed_packets_come_first_and_only_in_unbounded_exports() {
    let mut given = traffic(1, 50, 1_000_000, 1_000);
    let data = udp((1, 2), (1, 2), b"when?");
    let (length, stamp) = (data.len() as u32, Stamp::None);
    given.push(Given::Packet(Owned { interface: 0, stamp, length, data, options: vec![] }));
    let view = view_of(Recording::of(1), given.clone()).await;
    let (file, _) = run(&view, &of(Selection::default(), Order::Time)).await;
    let got = plain(&packets(&read(&file)));
    assert_eq!((got[0].0, got.len()), (Stamp::None, 51));
    assert_eq!(got, by_time(&given));
    let range = TimeRange { start: Time(0), end: Time::MAX };
    let (file, _) = run(&view, &of(Selection::of_range(range), Order::Time)).await;
    assert_eq!(packets(&read(&file)).len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_block_costs_its_own_flows_only() {
    let recording = || Recording { segment_bytes: 2 << 20, ..Recording::of(1) };
    let given = traffic(1, 20_000, 0, 1_000);
    let view = view_of(recording(), given.clone()).await;
    damage(view.store(), 1, Layer::Head).await;
    let (file, report) = run(&view, &of(Selection::default(), Order::Time)).await;
    let missing: u64 = report.skipped.iter().map(|part| part.packets).sum();
    let segment = &all_segments(view.store()).await[1];
    assert!(missing > 0 && missing < segment.entry.packets, "{missing}");
    assert_eq!(report.packets + missing, 20_000);
    let failure = report.failure().unwrap();
    assert_eq!(failure.kind(), FailureKind::Damaged);
    let words = failure.to_string();
    assert!(words.contains(&segment.entry.name) && words.contains("checksum"), "{words}");
    // What is there is right and in order.
    let whole = by_time(&given);
    let mut rest = whole.iter();
    for packet in plain(&packets(&read(&file))) {
        assert!(rest.any(|expected| *expected == packet));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_segment_is_reported_and_the_rest_exported() {
    for layer in [Layer::Index, Layer::Flows, Layer::Packets] {
        let view = view_of(Recording::of(1), traffic(1, 4_000, 0, 1_000)).await;
        let segments = all_segments(view.store()).await;
        delete(view.store(), 1, layer).await;
        let (_, report) = run(&view, &of(Selection::default(), Order::Time)).await;
        let missing: u64 = report.skipped.iter().map(|part| part.packets).sum();
        assert_eq!(missing, segments[1].entry.packets, "{layer:?}");
        assert!(report.skipped.iter().all(|part| part.segment == segments[1].entry.name));
        assert_eq!(report.packets + missing, 4_000);
        let failed = stream(whole(&view), of(Selection::default(), Order::Time));
        assert_eq!(failed.try_collect::<Vec<_>>().await.unwrap_err().kind(), FailureKind::Damaged);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn losses_are_in_the_header_and_at_their_interface() {
    let range = TimeRange { start: Time(5_000), end: Time(6_000) };
    let loss = Loss {
        range,
        interface: Some(0),
        cause: LossCause::KernelDrop,
        packets: 17,
        bytes: 0,
        note: String::new(),
    };
    let recording = Recording { kind: WriterKind::Live, losses: vec![loss], ..Recording::of(1) };
    let view = view_of(recording, traffic(1, 20, 0, 1_000)).await;
    let (file, report) = run(&view, &of(Selection::default(), Order::Time)).await;
    assert_eq!(report.completeness.packets_lost(), 17);
    let text = String::from_utf8_lossy(&file);
    // At the beginning, and as the last word.
    assert!(text.contains("known to be missing: 17 packets"), "{text}");
    assert!(text.contains("end of the file, which is not complete: it has 20 packets; 17 packets"));
    assert!(!text.contains("which is complete"));
    let statistics: Vec<_> = read(&file)
        .into_iter()
        .filter_map(|given| match given {
            Given::Block(block) => Some(block),
            _ => None,
        })
        .collect();
    assert_eq!(statistics.len(), 1);
    assert_eq!(statistics[0].block_type, block_type::INTERFACE_STATISTICS);
    assert!(statistics[0].body.windows(12).any(|w| w == [7, 0, 8, 0, 17, 0, 0, 0, 0, 0, 0, 0]));
    // A window without the loss does not have it, and one beyond what was heard says so.
    let range = TimeRange { start: Time(10_000), end: Time(90_000) };
    let (file, report) = run(&view, &of(Selection::of_range(range), Order::Time)).await;
    assert_eq!(report.completeness.packets_lost(), 0);
    assert_eq!(report.completeness.unknown.len(), 1);
    assert!(String::from_utf8_lossy(&file).contains("unknown coverage from"));
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_of_a_cold_export_equals_its_requests() {
    let store = store().await;
    for recorder in 1..=3 {
        let recording = Recording { segment_bytes: 1 << 20, ..Recording::of(recorder) };
        record(&store, recording, traffic(recorder, 10_000, 0, 1_000)).await;
    }
    let recording = Recording { segment_bytes: 6 << 20, ..Recording::of(4) };
    record(&store, recording, large::one_large_flow(12_000)).await;
    let range = TimeRange { start: Time(1_000_000), end: Time(5_000_000) };
    let narrow =
        Selection { range, hosts: vec![Address::v4([10, 0, 0, 7]).into()], ..Selection::default() };
    for selection in [Selection::default(), narrow] {
        for memory in [LEAST_MEMORY, MEMORY] {
            let what = Export { memory, ..of(selection.clone(), Order::Time) };
            let cold = StoreView::load(store.clone()).await.unwrap();
            let cost = plan(&whole(&cold), &what).await.unwrap();
            let cold = StoreView::load(store.clone()).await.unwrap();
            let before = store.requests();
            run(&cold, &what).await;
            let asked = store.requests() - before;
            let (planned, asked) = ((cost.requests, cost.bytes), (asked.gets, asked.bytes_read));
            if memory == LEAST_MEMORY {
                // Some slices have pages in common, which the second one finds in the cache.
                assert!(asked.0 <= planned.0 && asked.1 <= planned.1, "{asked:?} {planned:?}");
            } else {
                assert_eq!(asked, planned);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_without_identities_are_counted() {
    let view = view_of(Recording::of(1), traffic(1, 100, 0, 1_000)).await;
    let selection = Selection { namespaces: vec!["shop".into()], ..Selection::default() };
    let (_, report) = run(&view, &of(selection, Order::Time)).await;
    assert_eq!((report.packets, report.unknown), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_export_stops() {
    let view = view_of(Recording::of(1), traffic(1, 30_000, 0, 1_000)).await;
    let (to, from) = mpsc::channel(1);
    drop(from);
    let given_up = export(&whole(&view), &of(Selection::default(), Order::Time), &to).await;
    assert_eq!(given_up.unwrap_err().kind(), FailureKind::Interrupted);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_tools_read_the_file() {
    let view = view_of(Recording::of(1), mixed()).await;
    for order in [Order::Time, Order::Recorded] {
        let (file, _) = run(&view, &of(Selection::default(), order)).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("export.pcapng");
        std::fs::write(&path, &file).unwrap();
        let tshark = Command::new("tshark")
            .args(["-n", "-T", "fields", "-e", "frame.time_epoch", "-e", "frame.comment", "-r"])
            .arg(&path)
            .output();
        let Ok(tshark) = tshark else {
            println!("skipped: tshark is not installed");
            return;
        };
        assert!(tshark.status.success(), "{}", String::from_utf8_lossy(&tshark.stderr));
        let text = String::from_utf8_lossy(&tshark.stdout);
        // Wireshark shows a custom block as a record, too; it has no time.
        let timed = text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
        assert_eq!(timed.count(), 3, "{text}");
        assert_eq!(text.matches("hey").count(), 1);
        let capinfos = Command::new("capinfos").arg("-M").arg(&path).output().unwrap();
        assert!(capinfos.status.success());
        let text = String::from_utf8_lossy(&capinfos.stdout);
        assert!(text.contains("Number of packets:   3"), "{text}");
        assert!(text.contains("capstan"), "{text}");
    }
}

/// Every real capture: what is read from it is what is read from its export.
#[tokio::test(flavor = "multi_thread")]
async fn real_captures_round_trip() {
    let shared = std::env::var("CAPSTAN_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared").to_owned());
    let captures = std::path::Path::new(&shared).join("captures");
    let Ok(origins) = std::fs::read_dir(&captures) else {
        println!("skipped: no captures at {}", captures.display());
        return;
    };
    let mut files = Vec::new();
    for origin in origins.map(Result::unwrap).filter(|origin| origin.path().is_dir()) {
        let inside = std::fs::read_dir(origin.path()).unwrap();
        files.extend(inside.map(|file| file.unwrap().path()));
    }
    files.sort();
    let mut compared: BTreeMap<&str, usize> = BTreeMap::new();
    // A part of them: all take minutes without optimisation.
    for path in files.iter().step_by(9) {
        let Ok(source) = capstan_ingest::source::open(path) else { continue };
        let mut source = source;
        let mut given = Vec::new();
        // A damaged one as far as it can be read.
        while let Ok(Some(event)) = capstan_ingest::source::PacketSource::next_event(&mut source) {
            match event {
                capstan_ingest::source::Event::Interface(i) => given.push(Given::Interface(i)),
                capstan_ingest::source::Event::Packet(p) => {
                    given.push(Given::Packet(Owned::of(&p)))
                }
                capstan_ingest::source::Event::Block(b) => given.push(Given::Block(b)),
                _ => {}
            }
        }
        let view = view_of(Recording::of(1), given.clone()).await;
        let (file, report) = run(&view, &of(Selection::default(), Order::Recorded)).await;
        assert!(report.skipped.is_empty() && report.cut == 0, "{}", path.display());
        let (expected, got) = (packets(&given), packets(&read(&file)));
        assert_eq!(expected.len(), got.len(), "{}", path.display());
        for (expected, got) in expected.iter().zip(&got) {
            let path = path.display();
            assert_eq!(expected.stamp.time(), got.stamp.time(), "{path}");
            assert_eq!((expected.length, &expected.data), (got.length, &got.data), "{path}");
            assert_eq!(expected.options, got.options, "{path}");
        }
        let (_, by_time) = run(&view, &of(Selection::default(), Order::Time)).await;
        assert_eq!(by_time.packets, expected.len() as u64);
        *compared.entry("captures").or_default() += 1;
        *compared.entry("packets").or_default() += expected.len();
    }
    println!("{compared:?}");
    assert!(compared.get("captures").is_some_and(|count| *count > 20));
}
