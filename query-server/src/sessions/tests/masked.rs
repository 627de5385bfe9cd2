//! A masked principal learns nothing of hidden flows. Each test asks the same questions of two stores: one that has hidden
//! flows, and one that never had them. The answers and the errors must be the same.

mod answers;
mod parts;
mod stores;

use capstan_index::filter::FlowFilter;
use capstan_view::access::{KEY_BYTES, Mask, Rights};

use self::stores::*;
use super::*;

/// What a masked principal gets of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// Its visible rows, as they are but for columns that are null.
    Rows,
    /// What does not depend on hidden flows.
    Statements,
    /// Nothing.
    Refused,
}

/// Each table, as `docs/access.md` says.
fn decision(table: &str) -> Decision {
    match table {
        "packets" | "flow_parts" | "flows" => Decision::Rows,
        "coverage" => Decision::Statements,
        "segments" | "files" | "protocols" | "writers" | "problems" | "store" => Decision::Refused,
        other => panic!("the table {other} has no decision: decide, here and in docs/access.md"),
    }
}

async fn tables_and_columns(sessions: &Arc<StoreSessions>) -> Vec<(String, Vec<String>)> {
    let sql = "SELECT table_name, column_name FROM information_schema.columns \
               WHERE table_schema = 'public' ORDER BY 1, ordinal_position";
    let mut tables: Vec<(String, Vec<String>)> = Vec::new();
    for line in ask(sessions, &team(), sql).await.expect("columns") {
        let (table, column) = line.split_once(' ').expect("two cells");
        match tables.last_mut() {
            Some((last, columns)) if last == table => columns.push(column.to_owned()),
            _ => tables.push((table.to_owned(), vec![column.to_owned()])),
        }
    }
    tables
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masked_principal_sees_no_hidden_flow() {
    let [with, without] = &both().await;
    let (team, everybody) = (team(), Principal::everything());
    let tables = tables_and_columns(with).await;
    assert_eq!(tables.len(), 10);
    for (table, columns) in tables {
        let whole = format!("SELECT * FROM {table}");
        let got = sorted(ask(with, &team, &whole).await);
        assert_eq!(got, sorted(ask(without, &team, &whole).await), "{table}");
        match decision(&table) {
            Decision::Rows => {
                let shown: Vec<String> =
                    columns.into_iter().filter(|of| of != "ordinal" && of != "segment").collect();
                let sql = format!("SELECT {} FROM {table}", shown.join(", "));
                let got = sorted(ask(with, &team, &sql).await).expect("rows");
                assert_eq!(got, sorted(ask(without, &everybody, &sql).await).expect("rows"));
                let more = ask(with, &everybody, &sql).await.expect("rows");
                assert!(!got.is_empty() && more.len() > got.len(), "{table}: nothing was hidden");
            }
            Decision::Statements => {
                let got = got.expect("rows");
                assert_eq!(got.len(), 2, "a live recorder captured, and lost packets: {got:?}");
                assert_eq!(mentions_secrets(&got.join("\n")), None);
                let more = ask(with, &everybody, &whole).await.expect("rows").join("\n");
                assert!(mentions_secrets(&more).is_some(), "{more}");
            }
            Decision::Refused => {
                let (kind, words) = got.expect_err(&table);
                assert_eq!(kind, FailureKind::Permission);
                assert!(words.contains("catalog:read") && words.contains(&table), "{words}");
                assert!(ask(with, &everybody, &whole).await.is_ok(), "{table}");
            }
        }
    }
}

/// Statements over each column `{c}` of each table `{t}`.
const OF_COLUMNS: [&str; 5] = [
    "SELECT min({c}), max({c}), count({c}), count(DISTINCT {c}), count(*) FROM {t}",
    "SELECT {c}, count(*) FROM {t} GROUP BY {c} ORDER BY 2, 1",
    "SELECT count(*) FROM {t} WHERE {c} IS NULL",
    "SELECT {c} FROM {t} LIMIT 0",
    "EXPLAIN SELECT {c} FROM {t} WHERE {c} IS NOT NULL",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_column_or_count_depends_on_hidden_flows() {
    let [with, without] = &both().await;
    let team = team();
    let mut answered = 0;
    for (table, columns) in tables_and_columns(with).await {
        for column in columns {
            for sql in OF_COLUMNS {
                let sql = sql.replace("{c}", &column).replace("{t}", &table);
                let got = sorted(ask(with, &team, &sql).await);
                assert_eq!(got, sorted(ask(without, &team, &sql).await), "{sql}");
                answered += usize::from(got.is_ok());
            }
        }
    }
    assert!(answered > 300, "{answered}");
}

/// Statements whose plan, answer or error might depend on hidden flows.
const STATEMENTS: [&str; 42] = [
    "SELECT count(*) FROM packets",
    "SELECT count(*) FROM flows",
    "SELECT count(1), count(length), sum(length) FROM packets",
    "SELECT count(*) FROM (SELECT 1 FROM packets)",
    "SELECT count(*) FROM packets WHERE time IS NOT NULL",
    "SELECT count(*) FROM packets WHERE time >= '1970-01-01T03:00:00Z'",
    "SELECT count(*) FROM packets WHERE time BETWEEN '1970-01-01T20:00:00Z' AND '1970-01-01T21:00:00Z'",
    "SELECT count(*) FROM packets WHERE host('10.0.0.200')",
    "SELECT count(*) FROM packets WHERE NOT host('10.0.0.1')",
    "SELECT count(*) FROM packets WHERE source_ip = '10.0.0.200' OR destination_ip = '10.0.0.201'",
    "SELECT count(*) FROM packets WHERE source_ip <> '10.0.0.1' AND destination_ip <> '10.0.0.1'",
    "SELECT count(*) FROM packets WHERE source_port = 50001",
    "SELECT count(*) FROM flows WHERE source_port BETWEEN 50000 AND 50900",
    "SELECT count(*) FROM packets WHERE ip_protocol = 17",
    "SELECT count(*) FROM packets WHERE protocol <> 'dns'",
    "SELECT count(*) FROM packets WHERE recorder = '0000000000000003'",
    "SELECT DISTINCT recorder, generation FROM packets ORDER BY 1",
    "SELECT DISTINCT interface, interface_name FROM packets ORDER BY 1, 2",
    "SELECT count(*) FROM packets WHERE interface = 1",
    "SELECT count(*) FROM packets WHERE payload = X'00'",
    "SELECT count(DISTINCT flow_id) FROM packets",
    "SELECT p.length FROM packets p JOIN flows f ON p.flow_id = f.flow_id ORDER BY p.time LIMIT 20",
    "SELECT count(*) FROM flows a, flows b",
    "SELECT length FROM packets ORDER BY length DESC, time LIMIT 5",
    "SELECT time, lag(time) OVER (ORDER BY time) FROM packets ORDER BY time",
    "SELECT approx_distinct(source_ip), median(length) FROM packets",
    "SELECT (SELECT count(*) FROM packets) - (SELECT count(*) FROM packets WHERE host('10.0.0.1'))",
    "SELECT EXISTS (SELECT 1 FROM packets WHERE host('10.0.0.202'))",
    "EXPLAIN SELECT count(*) FROM packets",
    "EXPLAIN SELECT * FROM packets WHERE host('10.0.0.200')",
    "EXPLAIN SELECT * FROM flows WHERE first_time >= '1970-01-01T20:00:00Z'",
    "EXPLAIN SELECT p.length FROM packets p JOIN flows f ON p.flow_id = f.flow_id",
    "EXPLAIN SELECT * FROM flow_parts a, packets b",
    "EXPLAIN VERBOSE SELECT count(*) FROM packets",
    "EXPLAIN FORMAT TREE SELECT * FROM packets",
    "EXPLAIN SELECT * FROM coverage",
    "EXPLAIN SELECT count(*) FROM segments",
    "EXPLAIN SELECT * FROM writers",
    "SELECT count(*) FROM packets p, segments s",
    "SELECT * FROM coverage WHERE start_time > '1970-01-01T09:00:00Z'",
    "SELECT sum(packets), count(note) FROM coverage",
    "SHOW TABLES",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_or_plan_depends_on_hidden_flows() {
    let [with, without] = &both().await;
    let (team, everybody) = (team(), Principal::everything());
    let mut differs = 0;
    for sql in STATEMENTS {
        let got = sorted(ask(with, &team, sql).await);
        assert_eq!(got, sorted(ask(without, &team, sql).await), "{sql}");
        let (all, less) = (ask(with, &everybody, sql).await, ask(without, &everybody, sql).await);
        differs += usize::from(sorted(all) != sorted(less));
    }
    assert!(differs > 20, "{differs} statements tell a principal without a mask something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_analyze_counts_visible_rows_only() {
    let [with, without] = &both().await;
    let sql = "EXPLAIN ANALYZE SELECT length FROM packets";
    let scan = async |sessions: &Arc<StoreSessions>, who: &Arc<Principal>| {
        let plan = ask(sessions, who, sql).await.expect("a plan").join("\n");
        plan.lines().find(|line| line.contains("CapstanScan")).expect("a scan").to_owned()
    };
    let everybody = scan(with, &Principal::everything()).await;
    for name in ["segments_opened=", "bytes_scanned=", "segments="] {
        assert!(everybody.contains(name), "{everybody}");
    }
    let packets = ask(without, &team(), "SELECT count(*) FROM packets").await.expect("a number");
    for sessions in [with, without] {
        let line = scan(sessions, &team()).await;
        for name in ["segments", "bytes_", "requests", "objects", "pruned", "cached"] {
            assert!(!line.contains(name), "{line}");
        }
        assert!(line.contains(&format!("output_rows={}", packets[0])), "{line}");
    }
}

/// Expressions that fail for values of hidden packets only.
const ORACLES: [&str; 8] = [
    "SELECT count(*) FROM packets WHERE 1 / (length - 742) = 0",
    "SELECT count(*) FROM packets WHERE 1 / (CASE WHEN source_ip = '10.0.0.200' THEN 0 ELSE 1 END) = 1",
    "SELECT count(*) FROM packets WHERE host('10.0.0.200') AND 1 / (length - length) = 1",
    "SELECT 1 / (source_port - 50001) FROM packets",
    "SELECT count(*) FROM flows WHERE 1 / (source_port - 50003) = 0",
    "SELECT CAST(CASE WHEN length > 600 THEN 'x' ELSE '1' END AS INTEGER) FROM packets",
    "SELECT count(*) FROM packets WHERE recorder = '0000000000000003' AND 1 / (length - length) = 1",
    "SELECT sum(1 / (742 - length)) FROM packets GROUP BY length",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hidden_values_cause_no_errors() {
    let [with, without] = &both().await;
    for sql in ORACLES {
        assert!(sorted(ask(with, &team(), sql).await).is_ok(), "{sql}");
        assert!(ask(with, &Principal::everything(), sql).await.is_err(), "{sql}");
        let got = sorted(ask(with, &team(), sql).await);
        assert_eq!(got, sorted(ask(without, &team(), sql).await), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flow_ids_do_not_count_hidden_flows() {
    let [with, _] = &both().await;
    let local = |who: &Arc<Principal>| Local::new(Arc::clone(with) as _, Arc::clone(who));
    let ids = async |who: &Arc<Principal>| {
        let sql = "SELECT flow_id FROM flows ORDER BY first_time, flow_id";
        let answer = local(who).query(sql).await.expect("an answer");
        let batch = all(answer).await.expect("rows");
        let texts = datafusion::arrow::compute::cast(
            batch.column(0),
            &datafusion::arrow::datatypes::DataType::Utf8,
        );
        let texts = texts.expect("text");
        texts.as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>()
    };
    let (shown, stored) = (ids(&team()).await, ids(&Principal::everything()).await);
    assert!(!shown.is_empty() && shown.iter().all(|id| !stored.contains(id)));
    // The recorder and the generation stay, the number of the flow does not.
    assert!(shown.iter().all(|id| stored.iter().any(|other| other[..22] == id[..22])));
    let id = &shown[0];
    for (sql, expected) in [
        (format!("SELECT count(*) FROM flows WHERE flow_id = '{id}'"), "1"),
        (format!("SELECT count(*) FROM flows WHERE flow_id IN ('{id}', '{}')", shown[1]), "2"),
        (format!("SELECT count(*) > 0 FROM packets WHERE flow_id = '{id}'"), "true"),
        (
            format!("SELECT count(*) FROM flows WHERE flow_id <> '{id}'"),
            &(shown.len() - 1).to_string(),
        ),
        (format!("SELECT count(*) FROM flows WHERE flow_id = '{}'", stored[0]), "0"),
        (
            format!(
                "SELECT count(*) FROM flows f WHERE f.flow_id IN \
                 (SELECT flow_id FROM packets WHERE flow_id = '{id}')"
            ),
            "1",
        ),
    ] {
        assert_eq!(ask(with, &team(), &sql).await.expect("rows"), [expected], "{sql}");
    }
    let plan = format!("EXPLAIN SELECT * FROM packets WHERE flow_id = '{id}'");
    let plan = ask(with, &team(), &plan).await.expect("a plan").join("\n");
    assert!(stored.iter().all(|id| !plan.contains(id)), "{plan}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flow_of_unknown_identity_is_hidden() {
    let [with, _] = &both().await;
    for shown in [
        FlowFilter::from(capstan_index::filter::Term::namespace("shop")),
        !FlowFilter::from(capstan_index::filter::Term::namespace("shop")),
    ] {
        let mask = Mask::new(shown, [42; KEY_BYTES]).expect("a mask");
        let who = Principal::new("shop", Rights::all(), Some(mask));
        for sql in ["SELECT count(*) FROM packets", "SELECT count(*) FROM flows"] {
            assert_eq!(ask(with, &who, sql).await.expect("rows"), ["0"]);
        }
    }
}
