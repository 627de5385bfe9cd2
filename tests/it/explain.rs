//! `EXPLAIN` shows the cost of a query beforehand. The kernel counts the actual cost.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::capstan::{answer, in_csv, over};
use crate::captures::shared;
use crate::tools::can_trace;
use crate::traffic::Noise;

/// What is got from the objects below `data/`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cost {
    objects: usize,
    requests: u64,
    bytes: u64,
}

/// The number behind `name=`.
fn told(plan: &str, name: &str) -> u64 {
    let (_, rest) = plan.split_once(name).unwrap_or_else(|| panic!("{name}: {plan}"));
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().expect("a number")
}

/// What the plan says.
fn planned(store: &Path, sql: &str) -> Cost {
    let explain = format!("EXPLAIN {sql}");
    let plan = answer(&mut in_csv(store, &explain));
    if !plan.contains("CapstanScan") {
        // The catalog answers it.
        return Cost::default();
    }
    Cost {
        objects: told(&plan, " objects=") as usize,
        requests: told(&plan, " requests="),
        bytes: told(&plan, " bytes="),
    }
}

/// What the process does, by its system calls: a request opens the object and reads from it.
fn counted(store: &Path, sql: &str, scratch: &Path) -> Cost {
    let calls = scratch.join("calls");
    let _ = std::fs::remove_dir_all(&calls);
    std::fs::create_dir(&calls).expect("a scratch folder");
    let traced = in_csv(store, sql);
    let mut command = Command::new("strace");
    // A file a thread: calls are not torn apart by those of others.
    command.args(["-ff", "-y", "-qq", "-e", "trace=openat,read,pread64", "-o"]);
    command.arg(calls.join("of")).arg(traced.get_program()).args(traced.get_args());
    command.env_remove("CAPSTAN_SERVER").stdin(Stdio::null());
    answer(&mut command);
    let (mut cost, mut objects) = (Cost::default(), BTreeSet::new());
    for file in std::fs::read_dir(&calls).expect("a scratch folder") {
        let text = std::fs::read(file.expect("a file").path()).expect("what strace wrote");
        for line in
            String::from_utf8_lossy(&text).lines().filter(|line| line.contains("/data/date="))
        {
            if line.starts_with("openat(") {
                cost.requests += 1;
                continue;
            }
            let (_, opened) = line.split_once('<').expect("a file");
            let (path, rest) = opened.split_once('>').expect("its name");
            objects.insert(path.to_owned());
            let (_, got) = rest.rsplit_once("= ").expect("a result");
            cost.bytes += got.trim().parse::<u64>().expect("bytes");
        }
    }
    Cost { objects: objects.len(), ..cost }
}

#[test]
fn explain_plan_equals_the_reads() {
    let Some(shared) = shared() else { return };
    if !can_trace() {
        return;
    }
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (store, noise) = (scratch.path().join("store"), scratch.path().join("noise.pcap"));
    Noise { hours: 3, packets_an_hour: 1_500 }.write(&noise);
    let names = ["arkime/arkime_synthetic.pcap", "ndpi/netflix.pcap", "ndpi/vxlan.pcap"];
    let files = names.iter().map(|name| shared.join("captures").join(name));
    answer(over(&store, "import").args(files).arg(&noise));

    let nothing = Cost::default();
    for (sql, costs) in [
        ("SELECT count(*) FROM packets", false),
        ("SELECT sum(length) FROM packets", true),
        ("SELECT count(data) FROM packets", true),
        ("SELECT count(data) FROM packets WHERE port(53)", true),
        ("SELECT count(payload) FROM packets WHERE host('10.0.0.1') AND source_port = 1007", true),
        ("SELECT count(header) FROM packets WHERE protocol = 'dns'", true),
        ("SELECT max(tcp_seq) FROM packets WHERE time < '2017-06-01'", true),
        ("SELECT count(data) FROM packets WHERE time > '2100-01-01'", false),
        ("SELECT count(data) FROM packets WHERE host('203.0.113.77')", false),
        ("SELECT sni, count(*) FROM flows GROUP BY sni", true),
        ("SELECT * FROM flow_parts WHERE vni IS NOT NULL", true),
    ] {
        let (planned, counted) = (planned(&store, sql), counted(&store, sql, scratch.path()));
        assert_eq!(planned, counted, "{sql}");
        assert_eq!(planned != nothing, costs, "{sql}: {planned:?}");
    }
}
