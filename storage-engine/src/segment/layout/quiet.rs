//! Which hosts of a segment are quiet: hosts with few packets, whose flows would otherwise lie in the
//! runs of the hosts that they talk to. A pure function of counters.
//!
//! The parts of all quiet hosts are the first row group of each table, which is so small that a
//! reader fetches all that it needs of it in one request. The limits keep it small, so that it costs
//! other readers little either.

use std::collections::{HashMap, HashSet};

use capstan_model::Address;

use super::PartSize;

/// A segment of fewer packets has no quiet hosts: its tables are small as a whole.
const LEAST_PACKETS: u64 = 16_384;

/// The most packets of a quiet host.
const HOST_PACKETS: u64 = 1_024;

/// The most bytes of a quiet host, on the wire.
const HOST_BYTES: u64 = 256 << 10;

/// The most packets of all quiet hosts together.
const ALL_PACKETS: u64 = 8_192;

/// All quiet hosts together have at most this share of the segment's packets and bytes, 1 of so many.
const ALL_SHARE: u64 = 32;

/// The most quiet hosts. Each has payload blocks of its own, which compress less.
const HOSTS: usize = 256;

/// What a host has in the segment.
#[derive(Debug, Clone, Copy, Default)]
struct Host {
    packets: u64,
    bytes: u64,
    /// Hosts that it talks to.
    peers: u32,
}

impl Host {
    fn may_be_quiet(&self) -> bool {
        self.packets <= HOST_PACKETS && self.bytes <= HOST_BYTES
    }
}

/// The quiet hosts. If there are too many, those that talk to the most hosts are taken first: their
/// packets would lie in the most places.
pub(super) fn hosts(parts: &[PartSize]) -> HashSet<Address> {
    let sum = |of: fn(&PartSize) -> u64| parts.iter().map(of).fold(0, u64::saturating_add);
    let (packets, bytes) = (sum(|part| part.packets), sum(|part| part.bytes));
    if packets < LEAST_PACKETS {
        return HashSet::new();
    }
    let mut candidates: Vec<_> = sizes(parts).into_iter().collect();
    let few_first = |(address, host): &(Address, Host)| {
        (std::cmp::Reverse(host.peers), host.packets, host.bytes, *address)
    };
    candidates.sort_unstable_by_key(few_first);
    let mut room = (ALL_PACKETS.min(packets / ALL_SHARE), bytes / ALL_SHARE);
    let mut quiet = HashSet::new();
    for (address, host) in candidates {
        let left = room.0.checked_sub(host.packets).zip(room.1.checked_sub(host.bytes));
        if let Some(left) = left
            && quiet.len() < HOSTS
        {
            room = left;
            quiet.insert(address);
        }
    }
    quiet
}

/// The hosts that may be quiet. A flow without addresses has no host.
fn sizes(parts: &[PartSize]) -> HashMap<Address, Host> {
    let mut hosts: HashMap<Address, Host> = HashMap::new();
    let ends = |part: &PartSize| [(part.source, part.destination), (part.destination, part.source)];
    for part in parts {
        for (address, _) in ends(part).into_iter().filter(|(address, _)| *address != Address::NONE)
        {
            let host = hosts.entry(address).or_default();
            host.packets = host.packets.saturating_add(part.packets);
            host.bytes = host.bytes.saturating_add(part.bytes);
        }
    }
    hosts.retain(|_, host| host.may_be_quiet());
    let pairs: HashSet<_> =
        parts.iter().flat_map(ends).filter(|(address, _)| hosts.contains_key(address)).collect();
    for (address, _) in pairs {
        if let Some(host) = hosts.get_mut(&address) {
            host.peers += 1;
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(source: u8, destination: u8, packets: u64, bytes: u64) -> PartSize {
        let address = |n: u8| format!("10.0.0.{n}").parse().unwrap();
        PartSize {
            source: address(source),
            destination: address(destination),
            packets,
            bytes,
            has_own_blocks: false,
            encrypted: false,
        }
    }

    fn names(parts: &[PartSize]) -> Vec<String> {
        let mut names: Vec<_> = hosts(parts).iter().map(Address::to_string).collect();
        names.sort();
        names
    }

    const BUSY: u64 = 100_000;

    #[test]
    fn a_host_with_few_packets_and_bytes_is_quiet() {
        let few = |packets, bytes| {
            let parts = [part(1, 2, BUSY, BUSY * 1_000), part(3, 1, packets, bytes)];
            names(&parts) == ["10.0.0.3"]
        };
        assert!(few(1, 60) && few(HOST_PACKETS, HOST_BYTES));
        assert!(!few(HOST_PACKETS + 1, 60) && !few(1, HOST_BYTES + 1));
    }

    #[test]
    fn all_parts_of_a_host_count() {
        let mut parts = vec![part(1, 2, BUSY, BUSY * 1_000)];
        parts.extend((0..3).map(|_| part(1, 3, HOST_PACKETS / 2, 60)));
        assert!(names(&parts).is_empty());
        assert_eq!(names(&parts[..3]), ["10.0.0.3"]);
    }

    #[test]
    fn if_there_is_no_room_those_with_most_peers_are_quiet() {
        let mut parts: Vec<_> = (1..=4).map(|n| part(n, n + 100, BUSY / 4, BUSY * 100)).collect();
        // All together have more than a 32nd.
        parts.extend((10..30).map(|n| part(n, 1, 500, 60)));
        parts.extend((1..=4).map(|n| part(200, n, 200, 60)));
        let names = names(&parts);
        assert!(names.contains(&"10.0.0.200".to_owned()), "{names:?}");
        let room = (BUSY + 20 * 500 + 800) / ALL_SHARE;
        assert_eq!(names.len() as u64, 1 + (room - 800) / 500);
    }

    #[test]
    fn packets_without_addresses_are_no_hosts() {
        let mut nobody = part(1, 1, 5, 60);
        (nobody.source, nobody.destination) = (Address::NONE, Address::NONE);
        assert!(names(&[part(1, 2, BUSY, BUSY), nobody]).is_empty());
        let odd = [part(1, 2, u64::MAX, u64::MAX), part(1, 3, u64::MAX, 0)];
        assert!(names(&odd).is_empty());
    }
}
