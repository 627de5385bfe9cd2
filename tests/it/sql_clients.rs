//! SQL by every client: the command over a store and over a server, pyarrow and ADBC. The queries and the comparison
//! with DuckDB are in `tests/python`.

use std::path::{Path, PathBuf};

use crate::capstan::{answer, binary, over, row};
use crate::captures::{packets, shared};
use crate::server::Server;
use crate::tools::{python, run_python};
use crate::traffic::{Noise, Pcap};

/// Small captures with much in them: VLANs and tunnels in each other, fragments, IPv6, cut
/// packets, names in TLS, DNS, HTTP, Redis, MySQL, packets without IP.
const CAPTURES: [&str; 12] = [
    "arkime/arkime_synthetic.pcap",
    "ndpi/vxlan.pcap",
    "arkime/tcpdump-geneve.pcap",
    "zeek/tunnels__gre-within-gre.pcap",
    "zeek/pppoe-over-qinq.pcap",
    "zeek/mysql__auth.pcap",
    "zeek/redis__attr.pcap",
    "ndpi/fuzz-2006-06-26-2594.pcap",
    "suricata/enip-keywords__enip_cip_example.pcap",
    "wireshark/many_interfaces.pcapng.1",
    "wireshark/dhcp-nanosecond.pcap",
    "tcpdump/ipoib.pcap",
];

/// TLS, HTTP and DNS that go on for hours, so that flows have parts in several segments: the
/// packets of a capture of 20 seconds again and again, 25 minutes apart.
fn for_hours(shared: &Path, to: &Path) {
    const APART: u64 = 25 * 60 * 1_000_000_000;
    let once = packets(&shared.join("captures/ndpi/netflix.pcap"));
    let mut file = Pcap::create(to);
    for again in 0..5 {
        for packet in &once {
            let time = packet.time.and_then(|time| u64::try_from(time.0).ok()).expect("a time");
            file.packet(time + again * APART, packet.length, &packet.data);
        }
    }
    file.finish();
}

#[test]
fn all_sql_clients_give_the_rows_of_duckdb() {
    let Some(shared) = shared() else { return };
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = scratch.path().join("store");
    let (long, noise) = (scratch.path().join("long.pcap"), scratch.path().join("noise.pcap"));
    for_hours(&shared, &long);
    Noise { hours: 3, packets_an_hour: 1_200 }.write(&noise);
    let mut files: Vec<PathBuf> =
        CAPTURES.iter().map(|name| shared.join("captures").join(name)).collect();
    files.extend([long, noise]);
    answer(over(&store, "import").args(&files));
    let parts = "select count(*) from (select flow_id, count(*) n, count(distinct segment) s \
                 from flow_parts group by 1) t where n > 1 and n = s";
    let merged: u64 = row(&store, parts)[0].parse().expect("a number");
    assert!(merged > 50, "only {merged} flows have several parts: nothing is merged");

    let server = Server::start(&store);
    let mut questions = python("sql_against_duckdb.py");
    questions.arg("--store").arg(&store).arg("--capstan").arg(binary());
    questions.arg("--server").arg(format!("grpc://{}", server.flight));
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "pcap")) {
        questions.arg("--capture").arg(file);
    }
    run_python(&mut questions);
}

#[test]
fn flight_clients_are_served() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (store, file) = (scratch.path().join("store"), scratch.path().join("noise.pcap"));
    Noise { hours: 1, packets_an_hour: 500 }.write(&file);
    answer(over(&store, "import").arg(&file));
    let server = Server::start(&store);
    let mut clients = python("flight_clients.py");
    run_python(clients.arg("--server").arg(format!("grpc://{}", server.flight)));
}
