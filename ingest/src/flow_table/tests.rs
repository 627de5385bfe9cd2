//! Tests of the flow table on hand-made headers.

use capstan_model::Address;
use capstan_model::headers::{Fragment, Tcp};

use super::*;

/// The most flows of a table here.
const MAX_FLOWS: usize = 256 * 1024;

fn table() -> FlowTable {
    let memory = MAX_FLOWS * BYTES_PER_FLOW;
    FlowTable::new(RecorderId(1), Generation(2), Timeouts::default(), memory)
}

fn udp(source: (u8, u16), destination: (u8, u16)) -> Headers {
    let mut headers = Headers::default();
    headers.network = Network::V4;
    headers.source = Address::v4([10, 0, 0, source.0]);
    headers.destination = Address::v4([10, 0, 0, destination.0]);
    headers.source_port = source.1;
    headers.destination_port = destination.1;
    headers.ip_protocol = 17;
    headers
}

fn tcp(source: (u8, u16), destination: (u8, u16), flags: u8, seq: u32) -> Headers {
    let mut headers = udp(source, destination);
    headers.ip_protocol = 6;
    headers.tcp = Some(Tcp { seq, ack: 0, flags, window: 0 });
    headers
}

fn find(table: &mut FlowTable, headers: &Headers, seconds: i64) -> (u64, Direction, bool) {
    let found = table.find(headers, LinkType::ETHERNET, 0, Some(Time(seconds * SECOND)));
    (table.flow_mut(found.slot).id.counter(), found.direction, found.new)
}

const SYN: u8 = tcp_flags::SYN;
const ACK: u8 = tcp_flags::ACK;
const FIN: u8 = tcp_flags::FIN;
const RST: u8 = tcp_flags::RST;
const CLIENT: (u8, u16) = (1, 40_000);
const SERVER: (u8, u16) = (2, 80);

#[test]
fn both_directions_are_one_flow() {
    let mut table = table();
    assert_eq!(find(&mut table, &udp(CLIENT, SERVER), 0), (0, Direction::Forward, true));
    assert_eq!(find(&mut table, &udp(SERVER, CLIENT), 1), (0, Direction::Backward, false));
    assert_eq!(find(&mut table, &udp((3, 40_000), SERVER), 1), (1, Direction::Forward, true));
}

#[test]
fn opener_is_the_source_even_if_its_answer_is_seen_first() {
    let mut table = table();
    let answer = tcp(SERVER, CLIENT, SYN | ACK, 9);
    assert_eq!(find(&mut table, &answer, 0).1, Direction::Backward);
    let mut joined = super::tests::table();
    assert_eq!(find(&mut joined, &udp(SERVER, CLIENT), 0).1, Direction::Backward);
}

#[test]
fn a_syn_opens_a_new_flow_after_fin_reset_or_with_another_number() {
    for closing in [FIN | ACK, RST] {
        let mut table = table();
        find(&mut table, &tcp(CLIENT, SERVER, SYN, 5), 0);
        find(&mut table, &tcp(CLIENT, SERVER, closing, 6), 1);
        assert_eq!(find(&mut table, &tcp(CLIENT, SERVER, SYN, 5), 2).0, 0, "sent again");
        assert_eq!(find(&mut table, &tcp(CLIENT, SERVER, SYN, 77), 2).0, 1, "port used again");
    }
    let mut table = table();
    find(&mut table, &tcp(CLIENT, SERVER, SYN, 5), 0);
    assert_eq!(find(&mut table, &tcp(CLIENT, SERVER, SYN, 5), 1).0, 0, "sent again");
    assert_eq!(find(&mut table, &tcp(CLIENT, SERVER, SYN, 77), 2).0, 1, "port used again");
}

#[test]
fn simultaneous_open_is_one_flow() {
    let mut table = table();
    find(&mut table, &tcp(CLIENT, SERVER, SYN, 5), 0);
    assert_eq!(find(&mut table, &tcp(SERVER, CLIENT, SYN, 9), 0).0, 0);
}

#[test]
fn last_packets_of_a_closed_connection_stay_in_its_flow() {
    let mut table = table();
    find(&mut table, &tcp(CLIENT, SERVER, SYN, 5), 0);
    find(&mut table, &tcp(CLIENT, SERVER, FIN | ACK, 6), 1);
    find(&mut table, &tcp(SERVER, CLIENT, FIN | ACK, 9), 1);
    assert_eq!(find(&mut table, &tcp(CLIENT, SERVER, ACK, 7), 2).0, 0);
}

#[test]
fn silence_ends_a_flow() {
    let mut table = table();
    find(&mut table, &udp(CLIENT, SERVER), 0);
    assert_eq!(find(&mut table, &udp(CLIENT, SERVER), 299).0, 0);
    assert_eq!(find(&mut table, &udp(CLIENT, SERVER), 700).0, 1);
    let mut sweeping = super::tests::table();
    find(&mut sweeping, &udp(CLIENT, SERVER), 0);
    find(&mut sweeping, &udp((9, 9), SERVER), 1_000);
    assert_eq!(sweeping.len(), 2, "one packet out of time moves no clock");
    find(&mut sweeping, &udp((9, 9), SERVER), 1_001);
    assert_eq!(sweeping.len(), 1, "the silent one was swept");
}

#[test]
fn later_fragments_follow_the_first_for_thirty_seconds() {
    let fragment = |offset, mut headers: Headers| {
        headers.fragment = Some(Fragment { id: 7, offset, more: true });
        if offset > 0 {
            (headers.source_port, headers.destination_port) = (0, 0);
        }
        headers
    };
    let mut table = table();
    let first = find(&mut table, &fragment(0, udp(CLIENT, SERVER)), 0).0;
    assert_eq!(find(&mut table, &fragment(1_480, udp(CLIENT, SERVER)), 1).0, first);
    let late = find(&mut table, &fragment(1_480, udp(CLIENT, SERVER)), 60);
    assert_ne!(late.0, first);
    let found = table.find(
        &fragment(1_480, udp(CLIENT, SERVER)),
        LinkType::ETHERNET,
        0,
        Some(Time(61 * SECOND)),
    );
    assert_eq!(table.flow_mut(found.slot).key.fragment_id, Some(7));
}

#[test]
fn flows_are_distinguished_by_network_and_interface() {
    let mut table = table();
    let mut tagged = udp(CLIENT, SERVER);
    find(&mut table, &tagged, 0);
    tagged.vlan = Some(0);
    assert_eq!(find(&mut table, &tagged, 0).0, 1);
    tagged.vni = Some(0);
    assert_eq!(find(&mut table, &tagged, 0).0, 2);
    let mut unknown = Headers::default();
    unknown.ethertype = 0x88cc;
    let on = |table: &mut FlowTable, interface| {
        let found = table.find(&unknown, LinkType::ETHERNET, interface, None);
        table.flow_mut(found.slot).id
    };
    assert_eq!(on(&mut table, 0), on(&mut table, 0));
    assert_ne!(on(&mut table, 0), on(&mut table, 1));
}

#[test]
fn a_flow_takes_no_more_memory_than_its_share() {
    // Entries of the hash table: two a flow at most, seven of eight places used, doubled when full.
    let entries = 2 * 2 * (size_of::<Entry>() + 1) * 8 / 7;
    let bytes = size_of::<Option<Flow>>() + Queues::BYTES_PER_FLOW + entries;
    assert!(bytes <= BYTES_PER_FLOW, "{bytes}");
    assert_eq!(flows_within(capstan_model::IngestShares::default().flows), MAX_FLOWS);
}

#[test]
fn the_table_stays_bounded() {
    let mut table = table();
    for number in 0..MAX_FLOWS as u32 + 10 {
        let bytes = number.to_be_bytes();
        let mut headers = udp((0, 1_000), SERVER);
        headers.source = Address::v4([11, bytes[1], bytes[2], bytes[3]]);
        find(&mut table, &headers, i64::from(number / 1_000));
    }
    assert_eq!((table.len(), table.evicted()), (MAX_FLOWS, 10));
    assert_eq!(table.opened(), MAX_FLOWS as u64 + 10);
}

/// A flow of its own for each number, of 2^24.
fn numbered(number: u32) -> Headers {
    let bytes = number.to_be_bytes();
    let mut headers = udp((0, 1_000), SERVER);
    headers.source = Address::v4([11, bytes[1], bytes[2], bytes[3]]);
    headers
}

#[test]
fn full_table_of_future_flows_evicts_for_current_ones() {
    // The clock is turned back by a year, a day, and less than a time-out.
    for back in [365 * 86_400, 86_400, 200] {
        let mut table = table();
        let full = MAX_FLOWS as u32;
        for number in 0..full {
            find(&mut table, &numbered(number), 400 * 86_400 + i64::from(number / 1_000));
        }
        let now = 400 * 86_400 + 262 - back;
        // A connection that goes on while new flows come.
        let (lasting, _, _) = find(&mut table, &udp(CLIENT, SERVER), now);
        let started = std::time::Instant::now();
        for number in full..full + 100_000 {
            let seconds = now + i64::from(number - full) / 1_000;
            assert!(find(&mut table, &numbered(number), seconds).2);
            if number.is_multiple_of(1_000) {
                assert_eq!(find(&mut table, &udp(CLIENT, SERVER), seconds).0, lasting);
            }
        }
        // It takes a fraction of a second; a look at every flow for each new one, hours.
        assert!(started.elapsed().as_secs() < 60);
        assert_eq!((table.len(), table.evicted()), (MAX_FLOWS, 100_001));
        // All of now are still there, and the first ones of then are not.
        for number in (full..full + 100_000).step_by(997) {
            assert!(!find(&mut table, &numbered(number), now + 100).2, "{number}");
        }
        assert!(find(&mut table, &numbered(0), now + 100).2);
    }
}

#[test]
fn flows_of_now_time_out_behind_flows_of_the_future() {
    let mut table = table();
    for number in 0..1_000 {
        find(&mut table, &numbered(number), 1_000_000);
    }
    for second in 0..400 {
        for _ in 0..20 {
            find(&mut table, &numbered(2_000 + second), i64::from(second));
        }
    }
    // Those of the first 90 seconds are gone, seen by a sweep each ten.
    let left = table.len();
    assert!((1_300..=1_315).contains(&left), "{left}");
    // One packet of then, or of 1970, changes nothing.
    for odd in [2_000_000, 0] {
        find(&mut table, &numbered(9_000 + odd as u32), odd);
        find(&mut table, &numbered(2_399), 400);
        find(&mut table, &numbered(2_399), 400);
    }
    assert_eq!(table.len(), left + 2);
}

#[test]
fn packets_of_two_clocks_may_alternate() {
    let mut table = table();
    for step in 0..1_000 {
        for (host, clock) in [(1, 0), (2, 1_000_000)] {
            find(&mut table, &udp((host, 9), SERVER), clock + step / 500);
        }
    }
    // When the later clock is first met the flow of the other one has timed out, and not again.
    assert_eq!((table.len(), table.opened()), (2, 3));
}

#[test]
fn flow_closest_to_its_timeout_is_evicted_first() {
    let mut table = table();
    let closed = tcp((50, 50), SERVER, SYN, 1);
    find(&mut table, &closed, 0);
    find(&mut table, &tcp((50, 50), SERVER, RST, 2), 0);
    find(&mut table, &tcp((51, 51), SERVER, SYN, 1), 0);
    for number in 0..MAX_FLOWS as u32 - 2 {
        find(&mut table, &numbered(number), 10);
    }
    assert_eq!(table.len(), MAX_FLOWS);
    find(&mut table, &numbered(1 << 23), 20);
    assert!(find(&mut table, &closed, 20).2, "closed for 20 of 30 seconds");
    find(&mut table, &numbered((1 << 23) + 1), 20);
    assert!(!find(&mut table, &tcp((51, 51), SERVER, ACK, 2), 20).2, "idle for 20 of 3,600");
}

#[test]
fn many_networks_between_the_same_ends_cost_no_more_than_one() {
    let mut table = table();
    let started = std::time::Instant::now();
    for number in 0..200_000 {
        let mut headers = udp(CLIENT, SERVER);
        headers.vni = Some(number);
        assert!(find(&mut table, &headers, 0).2);
    }
    let mut answer = udp(SERVER, CLIENT);
    for number in 0..200_000 {
        answer.vni = Some(number);
        assert!(!find(&mut table, &answer, 0).2);
    }
    assert!(started.elapsed().as_secs() < 60);
    assert_eq!(table.len(), 200_000);
    assert!(table.pairs.is_empty());
}
