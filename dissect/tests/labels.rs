//! Labels of real flows against the ones nDPI publishes for the same captures.

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

#[test]
fn ndpi_agrees_where_it_has_the_same_protocols() {
    let Some(folder) = captures::folder() else {
        return;
    };
    let mut table: BTreeMap<(String, String), usize> = BTreeMap::new();
    for file in fs::read_dir(folder.join("published/ndpi")).unwrap() {
        let path = file.unwrap().path();
        let said: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap();
        let Some(packets) =
            fs::read(folder.join("ndpi").join(name)).ok().and_then(|file| captures::packets(&file))
        else {
            continue;
        };
        let ours = labels(&packets);
        for flow in said["flows"].as_array().into_iter().flatten() {
            let protocol = match flow["l4"].as_str() {
                Some("TCP") => 6,
                Some("UDP") => 17,
                _ => continue,
            };
            let text = |key: &str| flow[key].as_str().unwrap_or_default();
            let (Some(a), Some(b)) = (end(text("a")), end(text("b"))) else {
                continue;
            };
            let theirs = text("label").split('.').next().unwrap_or_default().to_owned();
            let found = ours.get(&(protocol, a.min(b), a.max(b)));
            let ours = found.map_or("-", |found| found.name()).to_owned();
            if std::env::var("SHOW").is_ok_and(|show| show == format!("{ours}/{theirs}")) {
                println!("{name:?} {flow}");
            }
            *table.entry((ours, theirs)).or_default() += 1;
        }
    }
    for ((ours, theirs), count) in &table {
        if ours != "-"
            || [
                "HTTP",
                "TLS",
                "DNS",
                "QUIC",
                "Redis",
                "Kafka",
                "AMQP",
                "MySQL",
                "PostgreSQL",
                "MongoDB",
            ]
            .contains(&theirs.as_str())
        {
            println!("{ours:12} {theirs:20} {count}");
        }
    }
}
