//! Two stores that are the same but for hidden flows, and questions to them.

use capstan_fixtures::{Given, Owned, at, options, udp};
use capstan_index::filter::Term;
use capstan_model::coverage::{Loss, LossCause};
use capstan_model::link::Interface;
use capstan_model::{Block, HOUR_NANOS, LinkType, Time, TimeRange, block::block_type};
use capstan_storage_engine::catalog::WriterKind;
use capstan_view::access::{KEY_BYTES, Mask, Rights};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use super::super::*;

/// The last byte of the address of the visible host; the mask shows its flows.
pub(super) const SEEN: u8 = 1;

/// The last byte of the address of a host whose flows with others are hidden.
pub(super) const HIDDEN: u8 = 200;

/// Words that only hidden data has.
pub(super) const SECRETS: [&str; 7] =
    ["hidden-", "10.0.0.200", "10.0.0.201", "10.0.0.202", "CLIENT_RANDOM", "veth-h", "300000"];

pub(super) fn mask() -> Mask {
    let host = capstan_model::Address::v4([10, 0, 0, SEEN]);
    Mask::new(Term::ip(host).into(), [42; KEY_BYTES]).expect("a mask")
}

pub(super) fn team() -> Arc<Principal> {
    Principal::new("team", Rights::all(), Some(mask()))
}

fn interface(name: &str, options: Vec<u8>) -> Given {
    Given::Interface(Interface {
        link_type: LinkType::ETHERNET,
        snap_length: 0,
        name: Some(name.to_owned()),
        resolution: 9,
        offset_seconds: 0,
        options,
    })
}

fn block(block_type: u32, body: Vec<u8>) -> Given {
    Given::Block(Block { block_type, body, big_endian: false, before: 0 })
}

/// A packet that is hidden, of 700 bytes and more.
fn hidden(time: i64, number: u32) -> Given {
    let other = 201 + (number % 2) as u8;
    let payload = vec![b"hidden-"[(number % 7) as usize]; 700 + number as usize];
    at(time, udp((HIDDEN, other), (50_000 + (number % 900) as u16, 53), &payload))
}

/// A packet that is visible, of 42 to 141 bytes.
fn seen(time: i64, number: u32) -> Given {
    let other = 101 + (number % 3) as u8;
    let ports = (40_000 + (number % 5) as u16, [53, 4_433][(number % 2) as usize]);
    let hosts = if number.is_multiple_of(7) { (other, SEEN) } else { (SEEN, other) };
    at(time, udp(hosts, ports, &vec![number as u8; (number % 100) as usize]))
}

/// The traffic of a live recorder: visible packets in three of five hours, and hidden ones between them and in an hour of
/// their own.
fn live(with_hidden: bool) -> Vec<Given> {
    let mut given = vec![interface("eth0", Vec::new())];
    for hour in [0, 1, 3, 4] {
        for number in 0..60_u32 {
            let time = hour * HOUR_NANOS + 1_000_000 * i64::from(number);
            if hour != 3 {
                given.push(seen(time, number));
            }
            // The first and the last packet are visible: when a live recorder captured is no secret.
            if with_hidden && (hour, number) != (4, 59) {
                given.push(hidden(time + 1, number));
                given.push(hidden(time + 2, 7 * number));
            }
        }
    }
    given
}

/// An import that begins and ends with hidden packets, from a capture file that says much beside them.
fn import(with_hidden: bool) -> Vec<Given> {
    let hour = 10 * HOUR_NANOS;
    let filter = options(&[(3, b"hidden-interface"), (11, b"\0host 10.0.0.200")]);
    let mut given = Vec::new();
    if with_hidden {
        let header = options(&[(1, b"hidden-comment"), (2, b"hidden-hardware")]);
        given.push(block(
            block_type::SECTION_HEADER,
            [&[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0], &[0xff; 8][..], &header].concat(),
        ));
        given.push(interface("eth0", filter));
        given.push(interface("veth-h", Vec::new()));
        let record = [&[1, 0, 20, 0, 10, 0, 0, HIDDEN][..], b"hidden-name.org\0", &[0; 4]].concat();
        given.push(block(block_type::NAME_RESOLUTION, record));
        let secret = b"CLIENT_RANDOM 00";
        let log = [&0x544c_534b_u32.to_le_bytes()[..], &16_u32.to_le_bytes(), secret].concat();
        given.push(block(block_type::DECRYPTION_SECRETS, log));
        given.push(hidden(hour, 1));
    } else {
        given.push(interface("eth0", Vec::new()));
    }
    for number in 0..200_u32 {
        let time = hour + 1_000 + 1_000 * i64::from(number);
        let Given::Packet(mut packet) = seen(time, number) else { continue };
        if number % 50 == 3 {
            let dropped = (4, &300_000_u64.to_le_bytes()[..]);
            let more =
                if with_hidden { &[(1, &b"mine"[..]), dropped][..] } else { &[(1, &b"mine"[..])] };
            packet.options = options(more);
        }
        given.push(Given::Packet(packet));
        if with_hidden && number.is_multiple_of(2) {
            let Given::Packet(other) = hidden(time + 1, number) else { continue };
            given.push(Given::Packet(Owned { interface: number % 2, ..other }));
            let Given::Packet(other) = hidden(time + 2, number) else { continue };
            given.push(Given::Packet(Owned { interface: 1, ..other }));
        }
    }
    if with_hidden {
        given.push(hidden(hour + HOUR_NANOS / 2, 1));
    }
    given
}

/// A store with visible traffic, and with hidden traffic or without any.
pub(super) async fn store(with_hidden: bool) -> Store {
    let store = capstan_fixtures::store().await;
    let loss = |packets| Loss {
        range: TimeRange { start: Time(5), end: Time(6) },
        interface: Some(0),
        cause: LossCause::KernelDrop,
        packets,
        bytes: 0,
        note: if with_hidden { "hidden-note".to_owned() } else { String::new() },
    };
    let recording = Recording {
        kind: WriterKind::Live,
        segment_bytes: 64 << 20,
        losses: vec![loss(if with_hidden { 300_000 } else { 3 })],
        ..Recording::of(1)
    };
    record(&store, recording, live(with_hidden)).await;
    let losses = if with_hidden { vec![loss(300_000)] } else { Vec::new() };
    let recording = Recording { segment_bytes: 64 << 20, losses, ..Recording::of(2) };
    record(&store, recording, import(with_hidden)).await;
    if with_hidden {
        // An import of hidden packets alone, in many segments.
        let begin = 20 * HOUR_NANOS;
        let packets = (0..300).map(|number| hidden(begin + i64::from(number), number));
        let given = std::iter::once(interface("veth-h", Vec::new())).chain(packets).collect();
        record(&store, Recording { segment_bytes: 20_000, ..Recording::of(3) }, given).await;
    }
    store
}

pub(super) async fn over(store: &Store) -> Arc<StoreSessions> {
    let options = Options { partitions: Some(3), ..options_of(Duration::from_secs(3_600)) };
    Arc::new(StoreSessions::open(store.clone(), options).await.expect("a store"))
}

/// Both stores: with hidden flows, and without.
pub(super) async fn both() -> [Arc<StoreSessions>; 2] {
    [over(&store(true).await).await, over(&store(false).await).await]
}

/// Rows as lines, or the kind and the words of an error. Flow ids are replaced: they differ in stores, and a test of
/// its own is about them.
pub(super) async fn ask(
    sessions: &Arc<StoreSessions>,
    who: &Arc<Principal>,
    sql: &str,
) -> Result<Vec<String>, (FailureKind, String)> {
    let local = Local::new(Arc::clone(sessions) as _, Arc::clone(who));
    let told = |failure: Failure| (failure.kind(), failure.to_string());
    let batch = all(local.query(sql).await.map_err(told)?).await.map_err(told)?;
    let options = FormatOptions::default().with_null("-");
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options).expect("a shown type"))
        .collect();
    let line = |row| {
        let cells: Vec<String> =
            columns.iter().map(|column| without_id(&column.value(row).to_string())).collect();
        cells.join(" ")
    };
    Ok((0..batch.num_rows()).map(line).collect())
}

fn without_id(cell: &str) -> String {
    let is_id = cell.len() == 32 && cell.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { "id".to_owned() } else { cell.to_owned() }
}

/// Rows without an order.
pub(super) fn sorted<E>(mut rows: Result<Vec<String>, E>) -> Result<Vec<String>, E> {
    if let Ok(rows) = &mut rows {
        rows.sort();
    }
    rows
}

pub(super) fn mentions_secrets(text: &str) -> Option<&'static str> {
    SECRETS.into_iter().find(|secret| text.contains(secret))
}
