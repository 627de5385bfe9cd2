//! Statements that would exhaust the machine: each is refused or stopped with an error, others are answered
//! meanwhile, and the server continues.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::capstan::{answer, capstan, fails, over, run, said, signal};
use crate::running::peak_mib;
use crate::server::{PATIENCE, Server};
use crate::traffic::Noise;

/// MiB that all questions of the server may take, and seconds of one.
const LIMITS: [&str; 4] = ["--memory", "256", "--query-seconds", "5"];

/// MiB that the server may take in all: what questions may, caches, what is not told at once.
const MOST_MIB: u64 = 1_200;

fn prepared(scratch: &Path) -> std::path::PathBuf {
    let (file, store) = (scratch.join("noise.pcap"), scratch.join("store"));
    Noise { hours: 2, packets_an_hour: 20_000 }.write(&file);
    answer(over(&store, "import").arg(&file));
    store
}

fn joined(tables: usize) -> String {
    let names: Vec<String> = (0..tables).map(|n| format!("flows f{n}")).collect();
    let equal: Vec<String> = (1..tables).map(|n| format!("f0.flow_id = f{n}.flow_id")).collect();
    format!("select count(*) from {} where {}", names.join(", "), equal.join(" and "))
}

fn doubling(levels: usize) -> String {
    let next =
        |n: usize| format!(", a{} as (select * from a{n} union all select * from a{n})", n + 1);
    let rest: String = (0..levels).map(next).collect();
    format!("with a0 as (select 1 x){rest} select count(*) from a{levels}")
}

fn nested(levels: usize) -> String {
    let inner = (0..levels).fold("select 'x' || port(1)::text as a".to_owned(), |sql, _| {
        format!("select a || a as a from ({sql})")
    });
    format!("select length(a) from ({})", inner.replace("port(1)::text", "'y'"))
}

#[test]
fn no_statement_exhausts_the_machine() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = prepared(scratch.path());
    let mut server = Server::launch(over(&store, "serve").args(LIMITS));
    let url = format!("http://{}", server.flight);
    let ask = |sql: &str| run(capstan().args(["sql", "--format", "csv", "--server", &url, sql]));
    for sql in [
        "select length(repeat('x', 1000000000))".to_owned(),
        "select sum(length(repeat(source_ip, 1000000))) from packets".to_owned(),
        joined(10),
        joined(100),
        doubling(12),
        doubling(30),
        nested(40),
        "with recursive t as (select 'x' as s union all select s || s from t) select max(length(s)) from t".to_owned(),
        "select string_agg(a.value::text || b.value::text, ',') from generate_series(1, 100000) a, generate_series(1, 100000) b".to_owned(),
        "select array_length(array_agg(a.value)) from generate_series(1, 10000000000) a".to_owned(),
        "select count(distinct a.value * 100000 + b.value) from generate_series(1, 100000) a, generate_series(1, 100000) b".to_owned(),
        "select a.value from generate_series(1, 100000) a, generate_series(1, 100000) b order by a.value * b.value % 1000003 limit 5 offset 1000000000".to_owned(),
        "select row_number() over (order by value desc) from generate_series(1, 1000000000)".to_owned(),
        "select max(array_length(range(0, value))) from generate_series(1, 100000000)".to_owned(),
        "select a.*, b.* from packets a join packets b on a.protocol = b.protocol order by a.time, b.time".to_owned(),
    ] {
        let began = Instant::now();
        let output = ask(&sql);
        let words = String::from_utf8_lossy(&output.stderr);
        println!("{:?} {:?}, peak {} MiB: {sql:.70}: {words:.200}", began.elapsed(), output.status.code(), peak_mib(server.pid()));
        // What is done within its limits is as good.
        assert!(matches!(output.status.code(), Some(0 | 2 | 5)), "{sql:.100}: {words}");
        assert!(began.elapsed() < Duration::from_secs(45), "{sql:.100}");
        assert_eq!(ask("select 1 as a").stdout, b"a\n1\n", "after {sql:.100}");
    }
    let peak = peak_mib(server.pid());
    assert!(peak < MOST_MIB, "{peak} MiB");
    said("serve", &server.stop(), 0, &[]);
}

/// MiB that a process holds now, and its threads.
fn held(process: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("it is told");
        line.split_whitespace().next().and_then(|text| text.parse::<u64>().ok()).expect("a number")
    };
    (number("VmRSS:") / 1_024, number("Threads:"))
}

/// Statements whose values would be too much together, or one of them.
fn too_long() -> Vec<String> {
    let long: Vec<String> =
        ["a", "b", "c", "d", "e", "f"].map(|of| format!("repeat('{of}', 60000000)")).into();
    let doubled = |inner: &str, times: usize| {
        (0..times).fold(format!("select {inner} as a0"), |sql, n| {
            format!("select [a{n}, a{n}] as a{} from ({sql})", n + 1)
        })
    };
    let window = |call: &str, from: &str| {
        format!(
            "select max(n) from (select {call} over (order by value rows between {from} and current row)) as n \
             from (select value, repeat('x', 1000) as x from generate_series(1, 20000)))"
        )
    };
    vec![
        format!("select length(concat({}))", long.join(", ")),
        format!("select length({})", long.join(" || ")),
        format!("select length(concat_ws('-', {}))", long.join(", ")),
        format!("select length(array_to_string([{}], '-'))", long.join(", ")),
        format!("select {}", long.join(", ")),
        format!("select [{}]", long.join(", ")),
        format!("select named_struct('a', {})", long.join(", 'b', ")),
        "select length(replace(repeat('ab', 30000000), 'b', 'cccccccc'))".to_owned(),
        format!("select array_length(a18) from ({})", doubled("repeat('x', 1000)", 18)),
        window("length(string_agg(x, ',')", "unbounded preceding"),
        window("array_length(array_agg(x)", "10000 preceding"),
        {
            let copies = ["upper", "reverse", "lower", "initcap"].iter().flat_map(|function| {
                (0..8).map(move |n| format!("{function}(left(a, 6000000{n}))"))
            });
            let copies: Vec<String> = copies.collect();
            format!(
                "select {} from (select repeat('x', 60000000) as a from packets limit 1)",
                copies.join(", ")
            )
        },
    ]
}

#[test]
fn refused_statements_leak_no_memory_and_no_threads() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = prepared(scratch.path());
    let mut server = Server::launch(over(&store, "serve").args(["--memory", "512"]));
    let url = format!("http://{}", server.flight);
    let command = |sql: &str| {
        let mut command = capstan();
        command.args(["sql", "--format", "csv", "--server", &url, sql]);
        command
    };
    let lives = |after: &str| {
        assert_eq!(run(&mut command("select 1 as a")).stdout, b"a\n1\n", "after {after:.100}");
    };
    lives("nothing");
    let before = held(server.pid());
    for sql in too_long() {
        for _ in 0..2 {
            let began = Instant::now();
            let output = run(&mut command(&sql));
            let words = String::from_utf8_lossy(&output.stderr);
            println!("{:?} {:?}: {sql:.70}: {words:.200}", began.elapsed(), held(server.pid()));
            assert!(matches!(output.status.code(), Some(2 | 5)), "{sql:.100}: {words}");
            lives(&sql);
        }
        let mut all: Vec<_> = (0..4).map(|_| start(&mut command(&sql))).collect();
        for client in &mut all {
            assert!(!client.wait().expect("it is ours").success(), "{sql:.100}");
        }
        lives(&sql);
    }
    let began = Instant::now();
    let (mib, threads) = loop {
        let now = held(server.pid());
        if now.1 <= before.1 + 2 || began.elapsed() > PATIENCE {
            break now;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    // What the allocator keeps for the next statement is no leak.
    assert!(mib < before.0 + 400 && threads <= before.1 + 2, "{before:?} and then {mib} {threads}");
    let ended = server.stop();
    said("serve", &ended, 0, &[]);
    let words = String::from_utf8_lossy(&ended.stderr);
    assert!(!words.contains("does not stop allocating memory"), "{words}");
}

#[test]
fn long_values_within_the_limits_are_made() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = prepared(scratch.path());
    for (sql, expected) in [
        ("select length(repeat('x', 60000000)) as n", "n\n60000000\n"),
        (
            "select max(length(repeat('x', 2000000))) as n from packets where ordinal < 600",
            "n\n2000000\n",
        ),
        ("select length(repeat('x', 30000000) || repeat('y', 30000000)) as n", "n\n60000000\n"),
        ("select length(replace(repeat('ab', 4000000), 'b', 'ccc')) as n", "n\n16000000\n"),
        ("select array_length(range(0, 100000)) as n", "n\n100000\n"),
        ("values (length(repeat('x', 5000)))", "column1\n5000\n"),
        ("select count(*) as n from packets where source_ip = repeat('x', 5000)", "n\n0\n"),
    ] {
        let mut command = over(&store, "sql");
        let got = answer(command.args(["--memory", "512", "--format", "csv", sql]));
        assert_eq!(got, expected, "{sql}");
    }
}

/// Statements that work for ever where nothing stops them.
const ENDLESS: [&str; 2] = [
    "select sum(a.value * b.value % 7) from generate_series(1, 200000) a cross join generate_series(1, 200000) b",
    "select count(*) from generate_series(1, 300000) a join generate_series(1, 300000) b on a.value + b.value < 0",
];

fn start(command: &mut Command) -> std::process::Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("capstan starts")
}

/// Processor time of a process, seconds.
fn cpu(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let after = stat.rsplit_once(')').expect("a name").1;
    let ticks = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / 100.0
}

#[test]
fn endless_statements_do_not_block_others_and_end_with_their_clients() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = prepared(scratch.path());
    let mut server = Server::launch(over(&store, "serve").args(["--query-seconds", "0"]));
    let url = format!("http://{}", server.flight);
    let mut clients: Vec<_> =
        ENDLESS.iter().map(|sql| start(capstan().args(["sql", "--server", &url, sql]))).collect();
    std::thread::sleep(Duration::from_secs(1));
    for sql in ["select 1", "select count(*) from packets", "show tables"] {
        let began = Instant::now();
        answer(capstan().args(["sql", "--server", &url, sql]));
        println!("{:?} beside endless statements: {sql}", began.elapsed());
    }
    assert_eq!(server.get("/healthz"), (200, b"ok\n".to_vec()));
    for client in &mut clients {
        client.kill().expect("it is ours");
        client.wait().expect("it is ours");
    }
    let began = Instant::now();
    loop {
        let before = cpu(server.pid());
        std::thread::sleep(Duration::from_secs(1));
        if cpu(server.pid()) - before < 0.2 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "it works for nobody");
    }
    println!("idle {:?} after the clients left", began.elapsed());
    said("serve", &server.stop(), 0, &[]);
}

fn stopped(mut child: std::process::Child, number: i32) -> Output {
    std::thread::sleep(Duration::from_secs(1));
    assert!(child.try_wait().expect("it is ours").is_none(), "it ended by itself");
    signal(&child, number);
    let began = Instant::now();
    while child.try_wait().expect("it is ours").is_none() {
        assert!(began.elapsed() < PATIENCE, "it does not hear");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().expect("it is ours")
}

#[test]
fn ctrl_c_stops_any_statement() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let store = prepared(scratch.path());
    for sql in ENDLESS {
        for number in [libc::SIGINT, libc::SIGTERM] {
            let child = start(over(&store, "sql").arg(sql));
            said(sql, &stopped(child, number), 130, &["stopped"]);
        }
    }
    let slow = ["--query-seconds", "1", ENDLESS[0]];
    fails(over(&store, "sql").args(slow), 5, &["--query-seconds"]);
    // A server gives answers some seconds to end, and no more.
    let server = Server::start(&store);
    let url = format!("http://{}", server.flight);
    let client = start(capstan().args(["sql", "--server", &url, ENDLESS[1]]));
    std::thread::sleep(Duration::from_secs(1));
    let mut server = server;
    let began = Instant::now();
    said("serve", &server.stop(), 0, &[]);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let ended = client.wait_with_output().expect("it is ours");
    assert!(!ended.status.success(), "a cut answer is no whole one");
}
