//! The order of flow parts in a segment: by run, then remote end, then flow. So packets of one
//! endpoint are contiguous and, within them, those of each remote host. A pure function of counters.
//!
//! A *run* holds the flow parts of one local endpoint. Until identities are known, addresses
//! determine the local end of a flow: a private one before a public one, else the one with more
//! bytes in this segment.
//!
//! A *quiet* host has few packets in a large segment (see `layout/quiet.rs`). It is the local end of all
//! its flows, and the runs of quiet hosts come first. Otherwise its few packets would lie in the
//! runs of all hosts that it talks to, and each of these places would cost requests.

mod quiet;

use std::collections::HashMap;
use std::net::IpAddr;

use capstan_model::Address;

/// What the layout needs to know of a flow part.
#[derive(Debug, Clone, Copy)]
pub struct PartSize {
    /// One end.
    pub source: Address,
    /// The other.
    pub destination: Address,
    /// Packets, both ways.
    pub packets: u64,
    /// Bytes on the wire, both ways.
    pub bytes: u64,
    /// Whether body blocks of its own exist already: such parts come before
    /// others between the same two, so that these can fill the block behind their tail.
    pub has_own_blocks: bool,
    /// Whether its payload is encrypted: such parts lie together, so that their
    /// blocks are stored without trying to compress them.
    pub encrypted: bool,
}

/// The parts of a segment in the order in which they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Part numbers (places in the input) in stored order.
    pub order: Vec<u32>,
    /// The runs, one after the other.
    pub runs: Vec<Run>,
    /// How many parts are in runs of quiet hosts. They come first.
    pub quiet_flows: u32,
}

/// The parts of one local endpoint: `flows` parts from stored place `first_flow` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The local endpoint's address; [`Address::NONE`] for what has none.
    pub address: Address,
    /// Its first flow ordinal.
    pub first_flow: u32,
    /// How many flow parts it has.
    pub flows: u32,
}

/// Puts flow parts in order.
pub fn plan(parts: &[PartSize]) -> Layout {
    let mut bytes_of: HashMap<Address, u64> = HashMap::new();
    for part in parts {
        *bytes_of.entry(part.source).or_default() += part.bytes;
        *bytes_of.entry(part.destination).or_default() += part.bytes;
    }
    let quiet = quiet::hosts(parts);
    // Whether a quiet host is an end, the local end and the remote one.
    let ends_of = |part: &PartSize| {
        let rank = |address: Address| {
            (quiet.contains(&address), is_private(address), bytes_of[&address], address)
        };
        let (source, destination) = (rank(part.source), rank(part.destination));
        let is_quiet = source.0 || destination.0;
        if source >= destination {
            (is_quiet, part.source, part.destination)
        } else {
            (is_quiet, part.destination, part.source)
        }
    };
    let mut keyed: Vec<_> = parts
        .iter()
        .zip(0..)
        .map(|(part, number)| {
            let (is_quiet, local, remote) = ends_of(part);
            (!is_quiet, local, part.encrypted, remote, !part.has_own_blocks, number)
        })
        .collect();
    keyed.sort_unstable();

    let mut runs: Vec<Run> = Vec::new();
    for ((_, address, ..), place) in keyed.iter().zip(0..) {
        match runs.last_mut() {
            Some(run) if run.address == *address => run.flows += 1,
            _ => runs.push(Run { address: *address, first_flow: place, flows: 1 }),
        }
    }
    let quiet_flows = keyed.partition_point(|(is_loud, ..)| !is_loud) as u32;
    Layout { order: keyed.into_iter().map(|(.., number)| number).collect(), runs, quiet_flows }
}

/// Addresses that belong to a site rather than to the Internet (RFC 1918, 4193,
/// 6598, loopback, link-local).
fn is_private(address: Address) -> bool {
    match address.ip() {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(source: &str, destination: &str, bytes: u64) -> PartSize {
        PartSize {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            packets: 1,
            bytes,
            has_own_blocks: false,
            encrypted: false,
        }
    }

    #[test]
    fn run_of_a_busy_server_holds_its_clients() {
        let parts = [
            part("10.0.0.1", "10.0.0.9", 10),
            part("10.0.0.2", "10.0.0.9", 20),
            part("10.0.0.3", "10.0.0.4", 1),
        ];
        let layout = plan(&parts);
        assert_eq!(layout.runs.len(), 2);
        let server = layout.runs.iter().find(|run| run.flows == 2).unwrap();
        assert_eq!(server.address.to_string(), "10.0.0.9");
    }

    #[test]
    fn private_end_is_local_even_if_the_public_one_is_busier() {
        let parts = [part("10.0.0.1", "1.1.1.1", 10), part("10.0.0.2", "1.1.1.1", 10)];
        let addresses: Vec<_> =
            plan(&parts).runs.iter().map(|run| run.address.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.1", "10.0.0.2"]);
    }

    #[test]
    fn parts_of_a_remote_end_are_adjacent_within_a_run() {
        let server = "10.0.0.9";
        let part = |client: u8| part(&format!("10.0.0.{client}"), server, 10);
        let layout = plan(&[part(3), part(1), part(3), part(2), part(1), part(3)]);
        assert_eq!(layout.order, [1, 4, 3, 0, 2, 5]);
    }

    #[test]
    fn each_flow_part_is_placed_once_and_large_ones_first() {
        let mut parts: Vec<_> = (0..50).map(|n| part("10.0.0.1", "10.0.0.2", n)).collect();
        parts[30].has_own_blocks = true;
        let layout = plan(&parts);
        assert_eq!(layout.order[0], 30);
        let mut sorted = layout.order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        assert_eq!(
            layout.runs,
            [Run { address: layout.runs[0].address, first_flow: 0, flows: 50 }]
        );
    }
    /// A busy server with a hundred thousand packets of ten clients, and clients of few packets that
    /// talk to the server and to two of these.
    fn busy_with_few() -> Vec<PartSize> {
        let part = |source: &str, destination: &str, packets: u64| PartSize {
            packets,
            ..part(source, destination, packets * 100)
        };
        let mut parts: Vec<_> =
            (1..=10).map(|n| part(&format!("10.0.0.{n}"), "10.0.0.200", 10_000)).collect();
        for few in [101, 102] {
            for server in [200, 1, 2] {
                parts.push(part(&format!("10.0.0.{few}"), &format!("10.0.0.{server}"), 40));
            }
        }
        parts
    }

    #[test]
    fn a_quiet_host_has_all_its_parts_in_one_run_at_the_front() {
        let layout = plan(&busy_with_few());
        assert_eq!(layout.quiet_flows, 6);
        let runs: Vec<_> =
            layout.runs.iter().map(|run| (run.address.to_string(), run.flows)).collect();
        let run = |address: &str, flows| (address.to_owned(), flows);
        assert_eq!(runs, [run("10.0.0.101", 3), run("10.0.0.102", 3), run("10.0.0.200", 10)]);
        assert!(layout.order[..6].iter().all(|part| *part >= 10), "{:?}", layout.order);
    }

    #[test]
    fn in_a_small_segment_no_host_is_quiet() {
        let mut parts = busy_with_few();
        parts.iter_mut().for_each(|part| part.packets = part.packets.div_ceil(100));
        assert_eq!(plan(&parts).quiet_flows, 0);
    }
}
