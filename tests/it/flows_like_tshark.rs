//! Stream counts as tshark has them, from our own walk over the headers.
//!
//! A flow of ours and a stream of tshark's are not the same thing: tshark never
//! times a stream out, counts the outer conversation of a tunnel beside the
//! inner one, reassembles fragments before it looks for ports, and follows more
//! kinds of carrier (ICMP errors, GTP, CAPWAP ...) than Capstan records flows
//! for. This module states those rules over [`capstan_dissect::walk`], so that
//! every TCP, UDP and SCTP header in 1,646 real captures is one the walk found at
//! the right place. What tshark says is in `expected/` of the shared captures
//! (tshark 4.0.17); the rules are those that reproduce its counts on these files:
//!
//! * A TCP SYN whose sequence number is not the one its sender began the stream
//!   with opens a new stream. Where the beginning was not seen, it is guessed:
//!   one less than the first number seen, or than the first one acknowledged.
//! * The first SNMP message makes the datagrams after it a new stream.
//! * SCTP associations all have the same number in a single pass over a file.
//! * Fragments whose bytes are all captured count once reassembled, others if
//!   they are first ones.
//!
//! [`DIFFERENT`] lists the files where counts differ, with the packets and why.

#![allow(clippy::unwrap_used)] // Of a test, all of it.

mod carriers;
mod fragments;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use capstan_dissect::walk::{HeaderKind, Next, Walk};
use capstan_ingest::source::{Event, PacketSource, SourceError, open};
use capstan_model::headers::tcp_flags::{ACK, SYN};
use capstan_model::{Address, LinkType};

use crate::captures::shared;
use fragments::{DatagramKey, Fragments};

/// Files with other counts than tshark's: the capture, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("arkime/gtp-iphone.pcap", "64: RTP that SIP announced begins a stream in each direction"),
    ("ndpi/fuzz-2006-06-26-2594.pcap", "626, 631: RTP that SIP announced is one stream with 625"),
    ("ndpi/hart_ip.pcap", "4: tshark's HART-IP begins another stream between the same ends"),
    ("ndpi/skinny.pcap", "70: media that Skinny announced begins a stream in each direction"),
    ("pcapplusplus/ExamplesTest__pcap_examples__tcp-reassembly.pcap", "66: samples in sFlow"),
    ("suricata/detect-ipopts__input.pcap", "2, 7: a source route's last hop is the destination"),
    ("tcpdump/macsec-short-longer.pcap", "1: UDP behind a MACsec tag, not encrypted"),
    ("tcpdump/quic_32_bit_pointer_overflow.pcap", "1: UDP length 0 counts in a jumbogram"),
    ("wireshark/wireguard-ping-tcp-dsb.pcapng", "10 on: decrypted with the file's secrets"),
    (
        "zeek/nfs__nfs_write_bad_stable_how.pcap",
        "24 to 29, 147 to 150: one stream, as the port mapper told the server's port only",
    ),
];

/// Carriers inside carriers that are followed.
const DEEPEST: u8 = 16;

/// How many streams of each kind a capture has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Streams {
    /// TCP streams.
    pub(crate) tcp: u64,
    /// UDP streams.
    pub(crate) udp: u64,
    /// 1 if there is any SCTP.
    pub(crate) sctp: u64,
}

/// Counts streams, packet by packet.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    streams: Streams,
    tcp: HashMap<Pair, TcpStream>,
    udp: HashMap<Pair, UdpStream>,
    fragments: Fragments,
}

/// An address and a port.
type End = (Address, u16);

/// Both ends, the smaller first.
type Pair = (End, End);

#[derive(Debug, Default)]
struct TcpStream {
    /// The number before the first byte, of the smaller and the larger end.
    first_number: [Option<u32>; 2],
}

#[derive(Debug, Default)]
struct UdpStream {
    /// SNMP was met on it.
    is_snmp: bool,
    /// The next datagram opens a new stream.
    ends: bool,
}

impl Counter {
    /// Takes the next packet of the capture.
    pub(crate) fn packet(&mut self, link: LinkType, data: &[u8], wire_length: u32) {
        let walk = match carriers::link(link, data) {
            Some((next, at)) => {
                let limit = data.len().max(wire_length as usize);
                Walk::at(next, data, at, limit)
            }
            None => Walk::new(link, data, wire_length),
        };
        self.follow(walk, data, (Address::NONE, Address::NONE), 0);
    }

    /// What was counted.
    pub(crate) fn streams(&self) -> Streams {
        self.streams
    }

    /// Walks over the headers, counts transports and opens what the walk does not.
    /// `addresses` are those of the IP header round what `data` holds.
    fn follow(
        &mut self,
        mut walk: Walk<'_>,
        data: &[u8],
        mut addresses: (Address, Address),
        depth: u8,
    ) {
        if depth > DEEPEST {
            return;
        }
        loop {
            if let Ok(next) = walk.state() {
                let at = walk.offset();
                let inside = data.get(..walk.limit().min(data.len())).unwrap_or_default();
                let bytes = inside.get(at..).unwrap_or_default();
                if let Next::Ipv4Payload(protocol) | Next::Ipv6Payload(protocol) = next {
                    match protocol {
                        6 => return self.tcp(addresses, bytes),
                        17 if !self.udp(addresses, bytes) => return,
                        132 if bytes.len() >= 12 => self.streams.sctp = 1,
                        _ => {}
                    }
                }
                if let Some((inner, skip)) = carriers::inside(next, bytes) {
                    let inner = Walk::at(inner, data, at + skip, walk.limit());
                    return self.follow(inner, data, addresses, depth + 1);
                }
            }
            let Some(header) = walk.next() else {
                return;
            };
            let (fragment, next) = match header.kind {
                HeaderKind::Ipv4 { source, destination, protocol, fragment } => {
                    let address = |number: u32| Address::v4(number.to_be_bytes());
                    addresses = (address(source), address(destination));
                    (fragment, Next::Ipv4Payload(protocol))
                }
                HeaderKind::Ipv6 { source, destination, .. } => {
                    addresses = (Address::v6(source), Address::v6(destination));
                    continue;
                }
                HeaderKind::FragmentExtension { protocol, fragment } => {
                    (fragment, Next::Ipv6Payload(protocol))
                }
                _ => continue,
            };
            let Some(fragment) = fragment else {
                continue;
            };
            // Cut by the snap length: it cannot be put together and is read as it is.
            let Some(bytes) = data.get(header.end..walk.limit()) else {
                continue;
            };
            let key = DatagramKey { addresses, next, id: fragment.id };
            if let Some(whole) = self.fragments.add(key, fragment, bytes) {
                let walk = Walk::at(next, &whole, 0, whole.len());
                self.follow(walk, &whole, addresses, depth + 1);
            }
            return;
        }
    }

    fn tcp(&mut self, addresses: (Address, Address), header: &[u8]) {
        // Ports, numbers and flags are all that tshark reads before it counts.
        let Some(header) = header.first_chunk::<14>() else {
            return;
        };
        let (pair, forward) = pair(addresses, header[0..4].try_into().unwrap());
        let seq = u32::from_be_bytes(header[4..8].try_into().unwrap());
        let ack = u32::from_be_bytes(header[8..12].try_into().unwrap());
        let flags = header[13];
        let opens = flags & (SYN | ACK) == SYN;
        let known = self.tcp.get(&pair).map(|stream| stream.first_number[forward]);
        let is_new = match known {
            None => true,
            Some(first) => opens && first.is_some_and(|first| first != seq),
        };
        if is_new {
            self.streams.tcp += 1;
            self.tcp.insert(pair, TcpStream::default());
        }
        let numbers = &mut self.tcp.get_mut(&pair).unwrap().first_number;
        let before = if flags & SYN != 0 { seq } else { seq.wrapping_sub(1) };
        numbers[forward].get_or_insert(before);
        if flags & ACK != 0 {
            numbers[1 - forward].get_or_insert(ack.wrapping_sub(1));
        }
    }

    /// Counts a UDP header; false if it is cut or its length cannot be.
    fn udp(&mut self, addresses: (Address, Address), datagram: &[u8]) -> bool {
        const SNMP_AND_TRAPS: [u16; 2] = [161, 162];
        let Some(header) = datagram.first_chunk::<8>() else {
            return false;
        };
        if u16::from_be_bytes([header[4], header[5]]) < 8 {
            return false;
        }
        let (pair, _) = pair(addresses, header[0..4].try_into().unwrap());
        let stream = self.udp.entry(pair).or_insert_with(|| {
            self.streams.udp += 1;
            UdpStream::default()
        });
        if std::mem::take(&mut stream.ends) {
            self.streams.udp += 1;
        }
        let is_request = SNMP_AND_TRAPS.contains(&u16::from_be_bytes([header[2], header[3]]));
        if is_request && !stream.is_snmp && is_sequence(&datagram[8..]) {
            stream.is_snmp = true;
            stream.ends = true;
        }
        true
    }
}

/// Whether `bytes` are one whole BER sequence, as an SNMP message is.
fn is_sequence(bytes: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30;
    match *bytes {
        [SEQUENCE, length @ ..=0x7f, ref rest @ ..] => rest.len() == usize::from(length),
        [SEQUENCE, 0x81, length, ref rest @ ..] => rest.len() == usize::from(length),
        [SEQUENCE, 0x82, high, low, ref rest @ ..] => {
            rest.len() == usize::from(u16::from_be_bytes([high, low]))
        }
        _ => false,
    }
}

/// Both ends in order, and whether the first four bytes of the transport are the
/// larger end's (1) or the smaller one's (0).
fn pair((source, destination): (Address, Address), ports: [u8; 4]) -> (Pair, usize) {
    let from = (source, u16::from_be_bytes([ports[0], ports[1]]));
    let to = (destination, u16::from_be_bytes([ports[2], ports[3]]));
    if from <= to { ((from, to), 0) } else { ((to, from), 1) }
}

/// Counts a capture file; damage ends it, as it does for tshark.
pub(crate) fn count(path: &Path) -> Result<Streams, SourceError> {
    let mut source = open(path)?;
    let mut counter = Counter::default();
    let mut links = Vec::new();
    loop {
        match source.next_event() {
            Ok(Some(Event::Interface(interface))) => links.push(interface.link_type),
            Ok(Some(Event::Packet(packet))) => {
                let link = links[packet.interface as usize];
                counter.packet(link, packet.data, packet.length);
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(SourceError::Damaged { .. }) => return Ok(counter.streams()),
            Err(error) => return Err(error),
        }
    }
}

/// Every capture's name ("zeek/pop3.pcap") with what tshark counts in it.
fn expected(captures: &Path) -> Vec<(String, Streams)> {
    let mut all = Vec::new();
    for origin in fs::read_dir(captures.join("expected")).unwrap() {
        let origin = origin.unwrap();
        for file in fs::read_dir(origin.path()).unwrap() {
            let path = file.unwrap().path();
            let text = fs::read(&path).unwrap();
            let said: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let count = |kind: &str| said["flows"][kind].as_u64().unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let name = format!("{}/{name}", origin.file_name().to_str().unwrap());
            let streams = Streams { tcp: count("tcp"), udp: count("udp"), sctp: count("sctp") };
            all.push((name, streams));
        }
    }
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

#[test]
fn every_capture_has_the_streams_tshark_counts() {
    let Some(shared) = shared() else { return };
    let captures = shared.join("captures");
    let expected = expected(&captures);
    assert!(expected.len() > 1000, "only {} captures", expected.len());
    let mut wrong = Vec::new();
    for (name, streams) in &expected {
        let counted = match count(&captures.join(name)) {
            Ok(counted) => counted,
            // Of a file that is no capture to us, only an empty one counts right.
            Err(SourceError::NotACapture { .. }) => Streams::default(),
            Err(error) => panic!("{name}: {error}"),
        };
        let is_listed = DIFFERENT.iter().any(|(listed, _)| listed == name);
        if (counted == *streams) == is_listed {
            wrong.push(format!("{name}: {counted:?}, tshark {streams:?}, listed: {is_listed}"));
        }
    }
    for (listed, _) in DIFFERENT {
        assert!(expected.iter().any(|(name, _)| name == listed), "{listed} is not there");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
