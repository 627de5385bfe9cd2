//! What tcpdump and tshark find in a capture.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::process::Command;

use capstan_model::LinkType;

use super::{Expected, Wanted};
use crate::captures::{Seen, packets};

/// tcpdump over a file. Nothing where it cannot read the file.
fn tcpdump(capture: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("tcpdump");
    command.args(["-n", "-r"]).arg(capture).args(arguments);
    command.output().expect("tcpdump starts").stdout
}

/// The packets that a filter of tcpdump's selects.
pub(super) fn filtered(capture: &Path, filter: &str, scratch: &Path) -> Vec<Seen> {
    // Written by us: as root, tcpdump gives its rights up before it makes a file.
    let bytes = tcpdump(capture, &["--time-stamp-precision=nano", "-w", "-", filter]);
    let file = scratch.join("tcpdump.pcap");
    std::fs::write(&file, bytes).expect("a scratch file");
    packets(&file)
}

/// What `host A` or `host A and port P` selects, and later fragments, for some A and P of a capture.
pub(super) fn by_tcpdump(name: &str, capture: &Path, scratch: &Path) -> Vec<Expected> {
    let all = packets(capture);
    let known: HashSet<&Seen> = all.iter().collect();
    let expect = |wanted: Wanted| {
        let filter = match wanted.port {
            Some(port) => format!("host {} and port {port}", wanted.host),
            None => format!("host {}", wanted.host),
        };
        let selected = filtered(capture, &filter, scratch).into_iter().filter(is_what_it_says);
        let mut packets: Vec<Seen> = selected
            .map(|packet| match known.contains(&packet) {
                true => packet,
                // tcpdump cuts packets that are longer than the file says they may be.
                false => whole(&all, &packet).cloned().unwrap_or(packet),
            })
            .collect();
        let later = later_fragments(&all, &packets);
        packets.extend(later);
        Expected { name: name.to_owned(), wanted, packets }
    };
    hosts_and_ports_printed(capture).into_iter().map(expect).collect()
}

/// The packet that this is the beginning of.
fn whole<'a>(all: &'a [Seen], cut: &Seen) -> Option<&'a Seen> {
    all.iter().find(|packet| {
        (packet.time, packet.length) == (cut.time, cut.length) && packet.data.starts_with(&cut.data)
    })
}

/// Whether a packet is what Ethernet says, by its own version, or by the kinds of address in ARP:
/// tcpdump's filter does not look, and takes bytes of damaged packets for addresses.
fn is_what_it_says(packet: &Seen) -> bool {
    if packet.link_type != LinkType(1) {
        return true;
    }
    match packet.data.get(12..20) {
        Some([8, 0, version, ..]) => version >> 4 == 4,
        Some([8, 6, kinds @ ..]) => *kinds == [0, 1, 8, 0, 6, 4],
        _ => true,
    }
}

/// The busiest and the quietest host, and host with port, of those that tcpdump prints.
fn hosts_and_ports_printed(capture: &Path) -> Vec<Wanted> {
    let printed = tcpdump(capture, &["-nn", "-t", "-q"]);
    let mut counts: BTreeMap<Wanted, usize> = BTreeMap::new();
    for line in String::from_utf8_lossy(&printed).lines() {
        for end in ends(line) {
            if end.port.is_some() {
                *counts.entry(Wanted { port: None, ..end.clone() }).or_default() += 1;
            }
            *counts.entry(end).or_default() += 1;
        }
    }
    outermost(&counts)
}

/// The most and the least frequent ones, with and without port.
fn outermost(counts: &BTreeMap<Wanted, usize>) -> Vec<Wanted> {
    let mut chosen = BTreeSet::new();
    for with_port in [false, true] {
        let of_kind = || counts.iter().filter(|(end, _)| end.port.is_some() == with_port);
        chosen.extend(of_kind().max_by_key(|(_, count)| **count).map(|(end, _)| end.clone()));
        chosen.extend(of_kind().min_by_key(|(_, count)| **count).map(|(end, _)| end.clone()));
    }
    chosen.into_iter().collect()
}

/// Both ends of a packet as tcpdump prints them: `IP 10.0.0.1.80 > 10.0.0.2.1234: …`. Of several
/// headers the first, which is the one that its filter looks at.
fn ends(line: &str) -> Vec<Wanted> {
    let words: Vec<&str> = line.split(' ').collect();
    let Some(at) = words.iter().position(|word| matches!(*word, "IP" | "IP6")) else {
        return Vec::new();
    };
    let (Some(from), Some(&">"), Some(to)) =
        (words.get(at + 1), words.get(at + 2), words.get(at + 3))
    else {
        return Vec::new();
    };
    [from, to.trim_end_matches(':')].iter().filter_map(|text| end(text, words[at])).collect()
}

fn end(text: &str, kind: &str) -> Option<Wanted> {
    let (address, port) = match text.rsplit_once('.') {
        // Ports are printed where there are any: an address of four numbers has none.
        Some((address, port)) if kind == "IP6" || text.split('.').count() == 5 => {
            (address, Some(port.parse().ok()?))
        }
        _ => (text, None),
    };
    address.parse::<std::net::IpAddr>().ok()?;
    Some(Wanted { host: address.to_owned(), port })
}

/// An IPv4 packet's place among the fragments of its datagram: who it belongs to, its offset, and
/// whether more follow. Of Ethernet without tags.
fn fragment(packet: &Seen) -> Option<(&[u8], u16, bool)> {
    let header = packet.data.get(14..34)?;
    if packet.link_type != LinkType(1) || packet.data[12..14] != [8, 0] || header[0] >> 4 != 4 {
        return None;
    }
    let place = u16::from_be_bytes([header[6], header[7]]);
    let more = place & 0x2000 != 0;
    (more || place & 0x1fff != 0).then_some((header, place & 0x1fff, more))
}

/// The later fragments of datagrams whose first one was selected, which have no ports: those
/// that follow it within 30 seconds.
fn later_fragments(all: &[Seen], selected: &[Seen]) -> Vec<Seen> {
    let is_first = |packet: &&Seen| fragment(packet).is_some_and(|(_, at, more)| at == 0 && more);
    let selected: HashSet<&Seen> = selected.iter().collect();
    let datagram = |header: &[u8]| (header[4..6].to_vec(), header[9], header[12..20].to_vec());
    let mut firsts = BTreeMap::new();
    let mut later = Vec::new();
    if !selected.iter().copied().any(|packet| is_first(&packet)) {
        return later;
    }
    for packet in all {
        let Some((header, offset, _)) = fragment(packet) else { continue };
        let time = packet.time.map_or(0, |time| time.0);
        if is_first(&packet) {
            // The number is used again, perhaps by others.
            match selected.contains(packet) {
                true => firsts.insert(datagram(header), time),
                false => firsts.remove(&datagram(header)),
            };
        } else if let Some(first) = firsts.get(&datagram(header))
            && offset > 0
            && (0..30_000_000_000).contains(&(time - first))
            && !selected.contains(packet)
        {
            later.push(packet.clone());
        }
    }
    later
}

/// Which hosts and ports tshark sees in which packets of a capture, and of those the outermost: what
/// `ip.addr == A && (tcp.port == P || …)` would select.
pub(super) fn by_tshark(name: &str, capture: &Path) -> Vec<Expected> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(capture).args(["-T", "fields", "-E", "occurrence=a"]);
    // Each packet by itself, as it is when it is recorded.
    for off in ["ip.defragment", "ipv6.defragment", "tcp.desegment_tcp_streams"] {
        command.args(["-o", &format!("{off}:FALSE")]);
    }
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark starts");
    let seen = packets(capture);
    let mut found: BTreeMap<Wanted, Vec<usize>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let (hosts, ports) = hosts_and_ports(&columns);
        let frame: usize = columns[0].parse().expect("a frame number");
        for host in hosts {
            found.entry(Wanted { host: host.clone(), port: None }).or_default().push(frame - 1);
            for port in &ports {
                found
                    .entry(Wanted { host: host.clone(), port: Some(*port) })
                    .or_default()
                    .push(frame - 1);
            }
        }
    }
    let counts = found.iter().map(|(wanted, frames)| (wanted.clone(), frames.len())).collect();
    let expected = outermost(&counts).into_iter().map(|wanted| {
        let packets = found[&wanted].iter().filter_map(|frame| seen.get(*frame).cloned()).collect();
        Expected { name: name.to_owned(), wanted, packets }
    });
    expected.collect()
}

const FIELDS: [&str; 11] = [
    "frame.number",
    "frame.protocols",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "arp.src.proto_ipv4",
    "arp.dst.proto_ipv4",
    "tcp.port",
    "udp.port",
    "sctp.port",
];

/// Headers that are read on behind. What comes behind others (802.11 in GRE, GTP, CAPWAP, what an
/// ICMP error quotes …) is payload.
const READ: [&str; 24] = [
    "eth",
    "ethertype",
    "vlan",
    "ieee8021ad",
    "llc",
    "sll",
    "null",
    "raw",
    "mpls",
    "pwethheuristic",
    "pwethcw",
    "pppoes",
    "ppp",
    "gre",
    "erspan",
    "ip",
    "ipv6",
    "ah",
    "arp",
    "tcp",
    "udp",
    "sctp",
    "vxlan",
    "geneve",
];

/// The addresses and ports in the headers of a packet that are read.
fn hosts_and_ports(columns: &[&str]) -> (BTreeSet<String>, BTreeSet<u16>) {
    let protocols: Vec<&str> = columns[1].split(':').collect();
    let is_read = |at: &usize| {
        let (name, before) = (protocols[*at], at.checked_sub(1).map(|at| protocols[at]));
        let in_datagram = before != Some("udp") || matches!(name, "vxlan" | "geneve");
        in_datagram && (READ.contains(&name) || name.starts_with("ipv6."))
    };
    let read = (0..protocols.len()).take_while(is_read).count();
    let layers = |name: &str| protocols[..read].iter().filter(|layer| **layer == name).count();
    let of_layers = |column: usize, count: usize| {
        columns[column].split(',').filter(|value| !value.is_empty()).take(count)
    };
    let mut hosts = BTreeSet::new();
    for (column, name) in [(2, "ip"), (3, "ip"), (4, "ipv6"), (5, "ipv6"), (6, "arp"), (7, "arp")] {
        hosts.extend(of_layers(column, layers(name)).map(str::to_owned));
    }
    let mut ports = BTreeSet::new();
    for (column, name) in [(8, "tcp"), (9, "udp"), (10, "sctp")] {
        // Source and destination.
        let values = of_layers(column, 2 * layers(name));
        ports.extend(values.filter_map(|value| value.parse::<u16>().ok()));
    }
    (hosts, ports)
}
