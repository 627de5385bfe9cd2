//! `export --ip A --port P` gives at least what other people's filters select from the capture itself:
//! tcpdump's `host A and port P`, and inside tunnels and VLANs tshark's fields.

mod expected;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::capstan::{answer, over, row, run};
use crate::captures::{Capture, Seen, captures, packets, shared};
use crate::parallel::check_all;
use crate::tools::have;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wanted {
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

/// Packets that must be in the answer to a question, from one capture.
pub(crate) struct Expected {
    pub(crate) name: String,
    pub(crate) wanted: Wanted,
    pub(crate) packets: Vec<Seen>,
}

/// A store with these captures in it. What is damaged, or the same as another, is no matter here.
fn imported(shared: &Path, names: &[String], scratch: &Path) -> PathBuf {
    let store = scratch.join("store");
    let files = names.iter().map(|name| shared.join("captures").join(name));
    let output = run(over(&store, "import").args(files));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 2 | 6 | 9)), "{said}");
    store
}

fn export(store: &Path, wanted: &Wanted, to: &Path) -> Vec<Seen> {
    let mut command = over(store, "export");
    command.args(["--ip", &wanted.host]);
    if let Some(port) = wanted.port {
        command.args(["--port", &port.to_string()]);
    }
    answer(command.arg("-o").arg(to));
    packets(to)
}

/// Whether the bytes of the address are in the packet, as they are if it is in a header.
fn names(packet: &Seen, host: &str) -> bool {
    let address = match host.parse().expect("an address") {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    packet.data.windows(address.len()).any(|window| window == address)
}

/// Checks one export against all that is expected of it.
fn holds(store: &Path, expected: &[&Expected], scratch: &Path) -> Result<(), String> {
    let wanted = &expected[0].wanted;
    let found = export(store, wanted, &scratch.join("found.pcapng"));
    let mut counts: HashMap<&Seen, usize> = HashMap::new();
    for packet in &found {
        *counts.entry(packet).or_default() += 1;
        if !names(packet, &wanted.host) {
            return Err(format!("{wanted:?}: a packet of others: {packet:?}"));
        }
    }
    for Expected { name, packets, .. } in expected {
        let mut left = counts.clone();
        for packet in packets {
            match left.get_mut(packet) {
                Some(count) if *count > 0 => *count -= 1,
                _ => {
                    let (found, all) = (found.len(), packets.len());
                    return Err(format!(
                        "{name}, {wanted:?}: {found} exported, {all} expected, not there: {packet:?}"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Checks that the store gives all of it, a question at a time.
fn check(store: &Path, mut expected: Vec<Expected>) {
    expected.sort_by(|a, b| a.wanted.cmp(&b.wanted));
    let questions: Vec<Vec<&Expected>> =
        expected.chunk_by(|a, b| a.wanted == b.wanted).map(|same| same.iter().collect()).collect();
    check_all(&questions, |question, scratch| holds(store, question, scratch));
}

/// All captures with one of these tags, and every so many of the others.
fn chosen(shared: &Path, tags: &[&str], others: Option<usize>) -> Vec<String> {
    let all = captures(shared).into_iter().enumerate();
    let wanted = |(number, capture): &(usize, Capture)| {
        capture.tags.iter().any(|tag| tags.contains(&tag.as_str()))
            || others.is_some_and(|others| number % others == 0)
    };
    all.filter(wanted).map(|(_, capture)| capture.name).collect()
}

#[test]
fn what_tcpdump_selects_is_exported() {
    let Some(shared) = shared() else { return };
    if !have(&["tcpdump"]) {
        return;
    }
    let names = chosen(&shared, &["ip-fragments", "qinq", "geneve", "sctp", "linux-sll"], Some(10));
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = imported(&shared, &names, scratch.path());
    let mut expected = Vec::new();
    let mut later = 0;
    for name in &names {
        let capture = shared.join("captures").join(name);
        for wanted in expected::by_tcpdump(&capture) {
            let mut packets = expected::selected_by_tcpdump(&capture, &wanted, scratch.path());
            let selected = packets.len();
            expected::add_later_fragments(&capture, &mut packets);
            later += packets.len() - selected;
            expected.push(Expected { name: name.clone(), wanted, packets });
        }
    }
    let with_port = expected.iter().filter(|one| one.wanted.port.is_some()).count();
    let packets: usize = expected.iter().map(|one| one.packets.len()).sum();
    assert!(with_port > 200 && expected.len() - with_port > 200, "{with_port}");
    assert!(packets > 10_000 && later > 20, "{packets} packets, {later} later fragments");
    check(&store, expected);
}

#[test]
fn what_tshark_finds_in_tunnels_and_vlans_is_exported() {
    let Some(shared) = shared() else { return };
    if !have(&["tshark"]) {
        return;
    }
    let names =
        chosen(&shared, &["vlan", "qinq", "vxlan", "geneve", "gre", "erspan", "mpls"], None);
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = imported(&shared, &names, scratch.path());
    let expected = std::sync::Mutex::new(Vec::new());
    check_all(&names, |name, _| {
        let found = expected::by_tshark(name, &shared.join("captures").join(name));
        expected.lock().expect("no panic").extend(found);
        Ok(())
    });
    let expected = expected.into_inner().expect("no panic");
    let packets: usize = expected.iter().map(|one| one.packets.len()).sum();
    assert!(expected.len() > 150 && packets > 3_000, "{} questions, {packets}", expected.len());
    check(&store, expected);
}

/// The packets of an export that must work.
fn exported(store: &Path, arguments: &[&str], to: &Path) -> Vec<Seen> {
    answer(over(store, "export").args(arguments).arg("-o").arg(to));
    packets(to)
}

fn sorted(mut packets: Vec<Seen>) -> Vec<Seen> {
    packets.sort();
    packets
}

#[test]
fn windows_protocols_and_orders_are_kept() {
    let Some(shared) = shared() else { return };
    if !have(&["tcpdump"]) {
        return;
    }
    let names = ["ndpi/netflix.pcap", "arkime/arkime_synthetic.pcap", "ndpi/sites.pcapng"];
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = imported(&shared, &names.map(str::to_owned), scratch.path());
    let to = scratch.path().join("out.pcapng");

    // By time: never back. As recorded: as in the files, of which the last two go back in time.
    let all = exported(&store, &[], &to);
    assert!(all.is_sorted_by_key(|packet| packet.time), "by time");
    let recorded = exported(&store, &["--order", "recorded"], &to);
    assert!(!recorded.is_sorted_by_key(|packet| packet.time));
    let files = names.map(|name| packets(&shared.join("captures").join(name)));
    for file in &files {
        let start =
            recorded.iter().position(|packet| packet == &file[0]).expect("its first packet");
        assert_eq!(&recorded[start..start + file.len()], file, "each file is in one piece");
    }
    assert_eq!(sorted(all.clone()), sorted(recorded));
    assert_eq!(sorted(all.clone()), sorted(files.concat()));

    // A window: from its start on, and up to before its end.
    let times: BTreeSet<_> = files[0].iter().filter_map(|packet| packet.time).collect();
    let times: Vec<_> = times.into_iter().collect();
    let (from, until) = (times[times.len() / 4], times[times.len() / 2]);
    let within = |packet: &&Seen| packet.time.is_some_and(|time| from <= time && time < until);
    let expected: Vec<Seen> = all.iter().filter(within).cloned().collect();
    let window = ["--from", &from.to_string(), "--to", &until.to_string()];
    let found = exported(&store, &window, &to);
    assert!(expected.len() > 100);
    assert_eq!(found, expected);
    let sql = format!("select count(*) from packets where time >= '{from}' and time < '{until}'");
    assert_eq!(row(&store, &sql), [expected.len().to_string()]);
    assert!(
        exported(&store, &["--from", &until.to_string(), "--to", &until.to_string()], &to)
            .is_empty()
    );

    // A protocol: in this file, what tcpdump finds by port.
    let one = imported(
        &shared,
        &names[..1].iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
        &scratch.path().join("one"),
    );
    let capture = shared.join("captures").join(names[0]);
    for (protocol, filter) in [("dns", "port 53"), ("icmp", "icmp"), ("arp", "arp")] {
        let expected = expected::filtered(&capture, filter, scratch.path());
        let found = exported(&one, &["--protocol", protocol], &to);
        assert_eq!(sorted(found), sorted(expected), "{protocol}");
    }
    let (dns, tls) =
        (exported(&one, &["--protocol", "dns"], &to), exported(&one, &["--protocol", "tls"], &to));
    assert!(dns.len() > 20 && tls.len() > 500);
    let both = exported(&one, &["--protocol", "tls", "--protocol", "dns"], &to);
    assert_eq!(sorted(both), sorted([dns, tls].concat()));
}
