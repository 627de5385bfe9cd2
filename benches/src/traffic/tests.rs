//! The frames are read by etherparse, which knows nothing of how they were made.

use std::collections::{HashMap, HashSet};

use etherparse::{SlicedPacket, TransportSlice};

use super::*;

fn frames(count: usize) -> Vec<Vec<u8>> {
    let mut traffic = Traffic::new();
    let mut frame = Frame::default();
    (0..count)
        .map(|number| {
            traffic.fill(&mut frame, number as u32 / 200);
            let bytes: Vec<u8> =
                traffic.parts(&frame).iter().flat_map(|part| part.iter().copied()).collect();
            assert_eq!(bytes.len(), frame.len());
            bytes
        })
        .collect()
}

#[test]
fn lengths_and_checksums_are_right() {
    let mut seen = [0; 2];
    for frame in frames(5_000) {
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(etherparse::NetSlice::Ipv4(ip)) = &packet.net else { panic!("no IPv4") };
        let header = ip.header();
        assert_eq!(usize::from(header.total_len()), frame.len() - 14);
        assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
        match packet.transport.unwrap() {
            TransportSlice::Tcp(tcp) => {
                seen[0] += 1;
                let is = tcp.to_header().calc_checksum_ipv4(&header.to_header(), tcp.payload());
                assert_eq!(tcp.checksum(), is.unwrap());
            }
            TransportSlice::Udp(udp) => {
                seen[1] += 1;
                assert_eq!(usize::from(udp.length()), frame.len() - 34);
                let is = udp.to_header().calc_checksum_ipv4(&header.to_header(), udp.payload());
                assert_eq!(udp.checksum(), is.unwrap());
            }
            _ => panic!("neither TCP nor UDP"),
        }
    }
    assert!(seen[0] > 3_500 && seen[1] > 300, "{seen:?}");
}

#[test]
fn frames_are_as_long_as_promised() {
    let lengths: Vec<usize> = frames(1 << 16).iter().map(Vec::len).collect();
    let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
    assert!((mean - 625.0).abs() < 10.0, "{mean}");
    assert_eq!(lengths.iter().max(), Some(&1514));
}

#[test]
fn sequence_numbers_go_on_and_connections_are_renewed() {
    let mut next: HashMap<[u8; 12], u32> = HashMap::new();
    let (mut begun, mut ended) = (HashSet::new(), 0);
    for frame in frames(300_000) {
        if frame[23] != 6 {
            continue;
        }
        let mut key = [0; 12];
        key.copy_from_slice(&frame[26..38]);
        let sequence = u32::from_be_bytes(frame[38..42].try_into().unwrap());
        let flags = frame[47];
        if flags & SYN != 0 {
            assert!(begun.insert((key, sequence)), "a connection begins twice");
        } else if let Some(expected) = next.get(&key) {
            assert_eq!(*expected, sequence);
        }
        ended += u32::from(flags & FIN != 0);
        let counts = (frame.len() - 66) as u32 + u32::from(flags & (SYN | FIN) != 0);
        next.insert(key, sequence.wrapping_add(counts));
    }
    assert!(begun.len() > 300 && ended > 300, "{} {ended}", begun.len());
}

#[test]
fn half_of_the_payload_compresses() {
    let pool = Pool::new(1 << 20);
    let stored = |random| zstd::bulk::compress(&pool.bytes[pool.half(random)], 1).unwrap().len();
    assert!(stored(false) < (1 << 19) / 3, "{}", stored(false));
    assert!(stored(true) >= 1 << 19);
}
