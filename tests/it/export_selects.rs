//! `export --ip A --port P` gives at least what other people's filters select from the capture itself:
//! tcpdump's `host A and port P`, and inside tunnels and VLANs tshark's fields.

mod expected;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use capstan_model::LinkType;

use crate::capstan::{answer, over, row, run};
use crate::captures::{Capture, Seen, captures, packets, shared};
use crate::parallel::check_all;
use crate::server::Server;
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

/// What `capstan export` gives, asked of a server: starting the command for each question would
/// take most of the time.
fn export(server: &Server, wanted: &Wanted, to: &Path) -> Vec<Seen> {
    let port = wanted.port.map(|port| format!("&port={port}")).unwrap_or_default();
    let (status, body) = server.get(&format!("/api/v1/export.pcapng?ip={}{port}", wanted.host));
    assert_eq!(status, 200, "{wanted:?}: {}", String::from_utf8_lossy(&body));
    std::fs::write(to, body).expect("a scratch file");
    packets(to)
}

/// The same by the command, over the store.
fn export_by_command(store: &Path, wanted: &Wanted, to: &Path) -> Vec<Seen> {
    let mut arguments = vec!["--ip", &wanted.host];
    let port = wanted.port.map(|port| port.to_string());
    if let Some(port) = &port {
        arguments.extend(["--port", port]);
    }
    exported(store, &arguments, to)
}

/// Whether the bytes of the address are in the packet, as they are if it is in a header. An IPv4
/// address and the same mapped into IPv6 are one.
fn names(packet: &Seen, host: &str) -> bool {
    let address: IpAddr = host.parse().expect("an address");
    let has = |octets: &[u8]| packet.data.windows(octets.len()).any(|window| window == octets);
    let in_ipv4 = match address.to_canonical() {
        IpAddr::V4(address) => has(&address.octets()),
        IpAddr::V6(_) => false,
    };
    in_ipv4 || matches!(address, IpAddr::V6(address) if has(&address.octets()))
}

/// Whether the packet's flow may have been in other tunnels, too, the ends of which stand for it.
fn is_tunnelled(packet: &Seen) -> bool {
    const GRE: u8 = 47;
    packet.link_type == LinkType(1) && packet.data.get(23) == Some(&GRE)
}

/// Checks one export against all that is expected of it.
fn holds(server: &Server, expected: &[&Expected], scratch: &Path) -> Result<(), String> {
    let wanted = &expected[0].wanted;
    let found = export(server, wanted, &scratch.join("found.pcapng"));
    let mut counts: HashMap<&Seen, usize> = HashMap::new();
    for packet in &found {
        *counts.entry(packet).or_default() += 1;
        if !names(packet, &wanted.host) && !is_tunnelled(packet) {
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
    let server = Server::start(store);
    check_all(&questions, |question, scratch| holds(&server, question, scratch));
    let some: Vec<&Wanted> = questions.iter().step_by(20).map(|same| &same[0].wanted).collect();
    check_all(&some, |wanted, scratch| {
        let to = scratch.join("found.pcapng");
        let same = export_by_command(store, wanted, &to) == export(&server, wanted, &to);
        if same { Ok(()) } else { Err(format!("{wanted:?}: the command exports something else")) }
    });
}

/// What is expected of all of these captures.
fn gathered(names: &[String], of: impl Fn(&str, &Path) -> Vec<Expected> + Sync) -> Vec<Expected> {
    let all = Mutex::new(Vec::new());
    check_all(names, |name, scratch| {
        let found = of(name, scratch);
        all.lock().expect("no panic").extend(found);
        Ok(())
    });
    all.into_inner().expect("no panic")
}

/// Captures of which other people's tools make something that we do not, and what.
const DIFFERENT: &[(&str, &str)] = &[
    (
        "pcapplusplus/Pcap++Test__PcapExamples__ip4_bad_fragment.pcap",
        "an IPv4 header of 60 bytes in 36",
    ),
    ("tcpdump/beep-oobr.pcap", "times that are none, and that tcpdump changes"),
    ("tcpdump/wccp_redirect_gre.pcap", "a WCCP header between GRE and IP"),
    ("zeek/trunc__mpls-6in6-broken.pcap.gz", "IP guessed behind MPLS labels in damaged packets"),
];

/// All captures with one of these tags, and every so many of the others.
fn chosen(shared: &Path, tags: &[&str], others: Option<usize>) -> Vec<String> {
    let all = captures(shared).into_iter().enumerate();
    let wanted = |(number, capture): &(usize, Capture)| {
        if DIFFERENT.iter().any(|(name, _)| *name == capture.name) {
            return false;
        }
        capture.tags.iter().any(|tag| tags.contains(&tag.as_str()))
            || others.is_some_and(|others| number % others == 0)
    };
    all.filter(wanted).map(|(_, capture)| capture.name).collect()
}

#[test]
fn export_selects_the_packets_of_tcpdump() {
    let Some(shared) = shared() else { return };
    if !have(&["tcpdump"]) {
        return;
    }
    let names = chosen(&shared, &["ip-fragments"], Some(25));
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = imported(&shared, &names, scratch.path());
    let expected = gathered(&names, |name, scratch| {
        expected::by_tcpdump(name, &shared.join("captures").join(name), scratch)
    });
    let with_port = expected.iter().filter(|one| one.wanted.port.is_some()).count();
    let packets: usize = expected.iter().map(|one| one.packets.len()).sum();
    assert!(with_port > 80 && expected.len() - with_port > 80, "{with_port}");
    assert!(packets > 4_000, "{packets}");
    check(&store, expected);
}

#[test]
fn export_selects_the_packets_of_tshark_in_tunnels_and_vlans() {
    let Some(shared) = shared() else { return };
    if !have(&["tshark"]) {
        return;
    }
    let names = chosen(&shared, &["qinq", "vxlan", "geneve", "gre", "erspan", "mpls"], Some(50));
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = imported(&shared, &names, scratch.path());
    let expected =
        gathered(&names, |name, _| expected::by_tshark(name, &shared.join("captures").join(name)));
    let packets: usize = expected.iter().map(|one| one.packets.len()).sum();
    assert!(expected.len() > 80 && packets > 2_000, "{} questions, {packets}", expected.len());
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
    let before = ["--from", "1990-01-01", "--to", "1990-01-02"];
    assert!(exported(&store, &before, &to).is_empty());

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

#[test]
fn networks_and_ranges_of_ports_are_what_tcpdump_says() {
    let Some(shared) = shared() else { return };
    if !have(&["tcpdump"]) {
        return;
    }
    let name = "ndpi/netflix.pcap";
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = imported(&shared, &[name.to_owned()], scratch.path());
    let capture = shared.join("captures").join(name);
    let to = scratch.path().join("out.pcapng");
    let all = packets(&capture).len();
    for (arguments, condition, filter) in [
        (&["--host", "52.0.0.0/8"][..], "host('52.0.0.0/8')", "net 52.0.0.0/8"),
        (&["--ip", "23.246.0.0/18"], "host('23.246.0.0/18')", "net 23.246.0.0/18"),
        (&["--port", "53100-53200"], "port(53100, 53200)", "portrange 53100-53200"),
        (
            &["--host", "23.246.0.0/16", "--port", "53150-53180"],
            "host('23.246.0.0/16') and port(53150, 53180)",
            "net 23.246.0.0/16 and portrange 53150-53180",
        ),
        (
            &["--port", "53-80", "--protocol", "dns", "--protocol", "http"],
            "port(53, 80) and protocol in ('dns', 'http')",
            "port 53 or (tcp and port 80)",
        ),
    ] {
        let expected = sorted(expected::filtered(&capture, filter, scratch.path()));
        let found = sorted(exported(&store, arguments, &to));
        if arguments.contains(&"--protocol") {
            // A label is of what was said, and tcpdump tells by port only.
            assert!(found.iter().all(|packet| expected.binary_search(packet).is_ok()), "{filter}");
        } else {
            assert_eq!(found, expected, "{filter}");
        }
        assert!(!found.is_empty() && found.len() < all, "{filter}: {}", found.len());
        let sql = format!("select count(*) from packets where {condition}");
        assert_eq!(row(&store, &sql), [found.len().to_string()], "{condition}");
    }
    let nowhere = "explain select * from packets where host('203.0.113.0/24')";
    let plan = answer(over(&store, "sql").arg(nowhere));
    assert!(plan.contains("flows=ip=203.0.113.0/24 or outer_ip=203.0.113.0/24"), "{plan}");
    assert!(plan.contains("segments=1 pruned_by_entry=1"), "{plan}");
}
