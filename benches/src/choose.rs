//! Chooses the hosts and ports of the queries from the capture itself, so that any capture can be used.

use std::str::FromStr;

use serde_json::Value;

/// How much there is of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) packets: u64,
    /// Bytes on the wire.
    pub(crate) bytes: u64,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let wrong = || "it is PACKETS:BYTES, such as 570000:523000000".to_owned();
        let (packets, bytes) = text.split_once(':').ok_or_else(wrong)?;
        let number = |text: &str| text.parse().ok().filter(|number| *number > 0).ok_or_else(wrong);
        Ok(Size { packets: number(packets)?, bytes: number(bytes)? })
    }
}

/// An address, with how much it has sent and received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) ip: String,
    pub(crate) packets: u64,
}

/// An address and a port of its packets, with how much there is of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) ip: String,
    pub(crate) port: u16,
    pub(crate) size: Size,
}

/// A flow that tcpdump's `host` sees only with a filter for the VLAN or tunnel round it.
const HIDDEN: &str = "vlan is not null or outer_source_ip is not null or fragment_id is not null";

/// Asks for the hosts with the fewest packets. Those that are hidden from tcpdump now and then
/// are left out, and so are addresses that stand for none.
pub(crate) fn rare_hosts_query(limit: u64) -> String {
    let end = |ip: &str| format!("select {ip} as ip, packets, {HIDDEN} as hidden from flows");
    format!(
        "with ends as ({source} union all {destination} where source_ip <> destination_ip)
         select ip, sum(packets) as packets from ends
         where ip is not null and ip not in ('::', '0.0.0.0')
         group by ip having not bool_or(hidden) order by packets, ip limit {limit}",
        source = end("source_ip"),
        destination = end("destination_ip"),
    )
}

/// The rows of [`rare_hosts_query`].
pub(crate) fn hosts(rows: &[Value]) -> Vec<Host> {
    rows.iter()
        .filter_map(|row| {
            Some(Host { ip: row["ip"].as_str()?.to_owned(), packets: row["packets"].as_u64()? })
        })
        .collect()
}

/// The host with the most packets among those with at most `limit`; else the rarest.
pub(crate) fn rare_host(hosts: &[Host], limit: u64) -> Option<&Host> {
    let few = hosts.iter().filter(|host| host.packets <= limit);
    few.max_by_key(|host| host.packets).or_else(|| hosts.iter().min_by_key(|host| host.packets))
}

/// Asks for the pairs of host and port with the most packets. As in tcpdump's `host A and port P`
/// each may be of either end, and not of the same.
pub(crate) fn pairs_query(limit: u64) -> String {
    let side = |ip: &str, port: &str, unless: &str| {
        format!(
            "select {ip}_ip as ip, {port}_port as port, packets, bytes, {HIDDEN} as hidden
             from flows where ip_protocol in (6, 17){unless}"
        )
    };
    let other_ip = " and source_ip <> destination_ip";
    let other_port = " and source_port <> destination_port";
    let sides = [
        side("source", "source", ""),
        side("source", "destination", other_port),
        side("destination", "source", other_ip),
        side("destination", "destination", &format!("{other_ip}{other_port}")),
    ];
    format!(
        "with pairs as ({})
         select ip, port, sum(packets) as packets, sum(bytes) as bytes from pairs
         where port is not null group by ip, port having not bool_or(hidden)
         order by packets desc, ip, port limit {limit}",
        sides.join(" union all ")
    )
}

/// The rows of [`pairs_query`].
pub(crate) fn pairs(rows: &[Value]) -> Vec<Pair> {
    rows.iter()
        .filter_map(|row| {
            Some(Pair {
                ip: row["ip"].as_str()?.to_owned(),
                port: u16::try_from(row["port"].as_u64()?).ok()?,
                size: Size { packets: row["packets"].as_u64()?, bytes: row["bytes"].as_u64()? },
            })
        })
        .collect()
}

/// The pair that is nearest to a size, packets and bytes weighing the same; without one that
/// with the most packets.
pub(crate) fn pair(pairs: &[Pair], wanted: Option<Size>) -> Option<&Pair> {
    let Some(wanted) = wanted else { return pairs.iter().max_by_key(|pair| pair.size.packets) };
    let off = |is: u64, should: u64| is.abs_diff(should) as f64 / should as f64;
    let distance =
        |pair: &Pair| off(pair.size.packets, wanted.packets) + off(pair.size.bytes, wanted.bytes);
    pairs.iter().min_by(|one, other| distance(one).total_cmp(&distance(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(ip: &str, packets: u64) -> Host {
        Host { ip: ip.to_owned(), packets }
    }

    fn a_pair(port: u16, packets: u64, bytes: u64) -> Pair {
        Pair { ip: "10.0.0.1".to_owned(), port, size: Size { packets, bytes } }
    }

    #[test]
    fn a_rare_host_is_one_with_few_packets() {
        let hosts = [host("a", 2), host("b", 50), host("c", 51), host("d", 9)];
        assert_eq!(rare_host(&hosts, 50).unwrap().ip, "b");
        assert_eq!(rare_host(&hosts[2..3], 50).unwrap().ip, "c");
        assert_eq!(rare_host(&[], 50), None);
    }

    #[test]
    fn a_pair_is_the_biggest_or_the_nearest() {
        let pairs = [
            a_pair(80, 900, 100),
            a_pair(6379, 578, 296),
            a_pair(443, 557, 489),
            a_pair(22, 570, 10),
        ];
        assert_eq!(pair(&pairs, None).unwrap().port, 80);
        assert_eq!(pair(&pairs, Some(Size { packets: 570, bytes: 523 })).unwrap().port, 443);
        assert_eq!(pair(&[], None), None);
    }

    #[test]
    fn a_size_is_two_numbers() {
        assert_eq!("5:7".parse(), Ok(Size { packets: 5, bytes: 7 }));
        for wrong in ["", "5", "5:", "a:b", "0:1", "5:7:9"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rows_become_hosts_and_pairs() {
        let row = serde_json::json!({"ip": "10.0.0.1", "port": 80, "packets": 900, "bytes": 100});
        assert_eq!(hosts(std::slice::from_ref(&row)), [host("10.0.0.1", 900)]);
        assert_eq!(pairs(&[row]), [a_pair(80, 900, 100)]);
        assert_eq!(pairs(&[serde_json::json!({"ip": "x", "port": 70000})]), []);
    }
}
