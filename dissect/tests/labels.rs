//! Labels of real flows against the ones nDPI publishes for the same captures.

#![allow(clippy::unwrap_used)] // Of a test, all of it.

mod captures;

use std::collections::{BTreeMap, HashMap};
use std::fs;

use capstan_dissect::{decode, label};
use capstan_model::{Address, Protocol};
use captures::Packet;

type End = (Address, u16);

/// The label of each flow of a capture: that of the first payload that has one.
fn labels(packets: &[Packet]) -> HashMap<(u8, End, End), Protocol> {
    let mut initiators: HashMap<(u8, End, End), End> = HashMap::new();
    let mut labels = HashMap::new();
    for packet in packets {
        let headers = decode(packet.link, &packet.data, packet.wire_length);
        let source = (headers.source, headers.source_port);
        let destination = (headers.destination, headers.destination_port);
        let key = (headers.ip_protocol, source.min(destination), source.max(destination));
        let initiator = *initiators.entry(key).or_insert(source);
        let prefix = usize::from(headers.prefix);
        let end = prefix + headers.transport_payload as usize;
        let payload = &packet.data[prefix..end.min(packet.data.len())];
        if payload.is_empty() || headers.fragment.is_some_and(|fragment| fragment.offset > 0) {
            continue;
        }
        let (from, to) = (headers.source_port, headers.destination_port);
        if let Some(found) = label(headers.ip_protocol, from, to, source == initiator, payload) {
            labels.entry(key).or_insert(found);
        }
    }
    labels
}

fn end(text: &str) -> Option<End> {
    let (address, port) = text.rsplit_once(':')?;
    let address = address.trim_matches(['[', ']']).parse().ok()?;
    Some((address, port.parse().ok()?))
}

/// nDPI's names for what has one label here; those of mail and the like say which
/// protocol is inside TLS.
const SAME: &[(Protocol, &[&str])] = &[
    (Protocol::Dns, &["DNS", "MDNS", "LLMNR"]),
    (Protocol::Http, &["HTTP", "SOAP"]),
    (Protocol::Tls, &["TLS", "ApplePush", "FTPS", "IMAPS", "POPS", "RDP", "SMTPS"]),
    (Protocol::Redis, &["RESP"]),
    (Protocol::Quic, &["QUIC"]),
    (Protocol::Amqp, &["AMQP"]),
    (Protocol::Kafka, &["Kafka"]),
    (Protocol::Mongodb, &["MongoDB"]),
    (Protocol::Mysql, &["MySQL"]),
    (Protocol::Postgresql, &["PostgreSQL"]),
];

/// Flows with another label, or none, and why: capture, our label, nDPI's, flows.
const DIFFERENT: &[(&str, Option<Protocol>, &str, usize)] = &[
    // Fuzzed queries that no longer read as DNS.
    ("fuzz-2006-06-26-2594.pcap", None, "DNS", 32),
    // Google's QUIC without the client's packets, which alone name the version.
    ("gquic_only_from_server.pcap", None, "QUIC", 1),
    // Inside GTP, which is not opened.
    ("http_origin_different_than_host.pcap", None, "HTTP", 1),
    // RDP in its own encryption, without TLS.
    ("rdp3.pcap", None, "RDP", 1),
    // The SOCKS handshake has no label; the request after it has.
    ("shadowsocks.pcap", Some(Protocol::Http), "SOCKS", 1),
    // The second flow is seen in the middle: bodies, and no line of HTTP.
    ("soap.pcap", None, "SOAP", 1),
];

#[test]
fn ndpi_agrees_where_it_looked_at_the_content() {
    let Some(folder) = captures::folder() else {
        return;
    };
    let mut agree: BTreeMap<&str, usize> = BTreeMap::new();
    let mut differ: BTreeMap<(String, Option<Protocol>, String), usize> = BTreeMap::new();
    for file in fs::read_dir(folder.join("published/ndpi")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let capture = fs::read(folder.join("ndpi").join(name)).unwrap();
        let Some(packets) = captures::packets(&capture) else {
            continue;
        };
        let ours = labels(&packets);
        let said: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for flow in said["flows"].as_array().into_iter().flatten() {
            let text = |key: &str| flow[key].as_str().unwrap_or_default();
            let protocol = match text("l4") {
                "TCP" => 6,
                "UDP" => 17,
                _ => continue,
            };
            let (Some(a), Some(b)) = (end(text("a")), end(text("b"))) else {
                continue;
            };
            // What nDPI guesses by the port alone is left open here.
            if !text("confidence").starts_with("DPI") {
                continue;
            }
            let theirs = text("label").split('.').next().unwrap_or_default();
            let ours = ours.get(&(protocol, a.min(b), a.max(b))).copied();
            let same = SAME.iter().find(|(_, names)| names.contains(&theirs));
            let same = same.map(|(protocol, _)| *protocol);
            if ours != same {
                *differ.entry((name.to_owned(), ours, theirs.to_owned())).or_default() += 1;
            } else if let Some(label) = ours {
                *agree.entry(label.name()).or_default() += 1;
            }
        }
    }
    println!("agreeing flows: {agree:?}");
    assert!(agree.values().sum::<usize>() > 1000);
    let expected = DIFFERENT.iter().map(|(name, ours, theirs, count)| {
        (((*name).to_owned(), *ours, (*theirs).to_owned()), *count)
    });
    assert_eq!(differ, expected.collect());
}
