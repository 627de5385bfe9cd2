//! Every kind of column in every place where SQL can have it: grouped, ordered by its number, in windows,
//! in unions, in subqueries. Each statement goes the way that clients' statements go.

use std::sync::Arc;
use std::time::Duration;

use capstan_fixtures::{Recording, record, traffic};
use capstan_view::access::Principal;
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use futures::TryStreamExt;

use super::fixture::rows;
use crate::flight::local::Local;
use crate::sessions::{Options, StoreSessions};

async fn local() -> Local {
    let store = capstan_fixtures::store().await;
    record(&store, Recording::of(1), traffic(3, 400, 1_700_000_000_000_000_000, 1_000_000)).await;
    record(&store, Recording::of(2), traffic(4, 300, 1_700_000_000_000_000_000, 1_000_000)).await;
    let options = Options { partitions: Some(2), ..Options::default() };
    let options = Options { freshness: Duration::from_secs(3_600), ..options };
    let sessions = StoreSessions::open(store, options).await.expect("a store");
    Local::new(Arc::new(sessions), Principal::everything())
}

async fn ask(local: &Local, sql: &str) -> Result<RecordBatch, String> {
    let answer = local.query(sql).await.map_err(|failure| failure.to_string())?;
    let schema = Arc::clone(&answer.schema);
    let batches: Vec<_> =
        answer.batches.try_collect().await.map_err(|failure| failure.to_string())?;
    concat_batches(&schema, &batches).map_err(|error| error.to_string())
}

/// A column of each type, nullable or not, of each table.
async fn columns(local: &Local) -> Vec<(String, String, String)> {
    let sql = "SELECT table_name, min(column_name) AS c, data_type FROM information_schema.columns \
               WHERE table_schema = 'public' GROUP BY table_name, data_type, is_nullable ORDER BY 1, 2";
    let found = ask(local, sql).await.expect("columns");
    rows(&found).into_iter().map(|row| (row[0].clone(), row[1].clone(), row[2].clone())).collect()
}

/// Statements over a column `{c}` of a table `{t}`.
const ANY: &[&str] = &[
    "SELECT {c}, count(*) FROM {t} GROUP BY 1 ORDER BY 2 DESC, 1",
    "SELECT {c} AS value, count(*) / 2 AS half FROM {t} GROUP BY {c} ORDER BY half, value",
    "SELECT count(DISTINCT {c}), count({c}), min({c}), max({c}) FROM {t}",
    "SELECT DISTINCT {c} FROM {t} ORDER BY 1",
    "SELECT {c}, row_number() OVER (ORDER BY {c}) AS n FROM {t} ORDER BY 2",
    "SELECT rank() OVER (PARTITION BY {c} ORDER BY {c} DESC), lag({c}) OVER (ORDER BY {c}), \
     lead({c}, 2) OVER (ORDER BY {c}), first_value({c}) OVER (ORDER BY {c}), \
     last_value({c}) OVER (PARTITION BY {c}), nth_value({c}, 2) OVER (ORDER BY {c}), \
     count({c}) OVER (ORDER BY {c} ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM {t}",
    "SELECT max({c}) OVER (ORDER BY {c}), min({c}) OVER (PARTITION BY {c}) FROM {t}",
    "SELECT {c} FROM {t} UNION SELECT {c} FROM {t} ORDER BY 1",
    "SELECT {c} FROM {t} UNION ALL SELECT {c} FROM {t}",
    "SELECT {c} FROM {t} INTERSECT SELECT {c} FROM {t}",
    "SELECT {c} FROM {t} EXCEPT SELECT {c} FROM {t}",
    "WITH x AS (SELECT {c} AS v FROM {t}) SELECT v, count(*) FROM x GROUP BY v ORDER BY 2, 1",
    "SELECT v FROM (SELECT {c} AS v FROM {t} ORDER BY 1 LIMIT 3) WHERE v IS NOT NULL",
    "SELECT (SELECT max({c}) FROM {t}) AS most, count(*) FROM {t} GROUP BY 1 ORDER BY 2",
    "SELECT count(*) FROM {t} WHERE {c} IN (SELECT {c} FROM {t})",
    "SELECT a.{c}, count(*) FROM {t} a JOIN (SELECT DISTINCT {c} FROM {t}) b ON a.{c} = b.{c} \
     GROUP BY a.{c} ORDER BY 2 DESC",
    "SELECT coalesce({c}, {c}), CASE WHEN {c} IS NULL THEN 1 ELSE 2 END FROM {t} ORDER BY 2, 1",
    "SELECT array_agg({c}) FROM (SELECT {c} FROM {t} LIMIT 5)",
    "SELECT CAST({c} AS TEXT) FROM (SELECT {c} FROM {t} LIMIT 0)",
];

/// Those over numbers.
const NUMBERS: &[&str] = &[
    "SELECT {c}, sum({c})/1024, avg({c}), sum({c}) * 1.5 FROM {t} GROUP BY 1 ORDER BY 2",
    "SELECT {c} % 3 AS rest, sum({c})/1024 AS kib FROM {t} GROUP BY 1 ORDER BY kib DESC, 1",
    "SELECT sum({c}) OVER (ORDER BY {c}), avg({c}) OVER (PARTITION BY {c}), \
     sum({c}) OVER (ORDER BY {c} ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING), \
     sum(sum({c})) OVER (ORDER BY {c}) FROM {t} GROUP BY {c}",
    "SELECT {c}, sum({c}) OVER (PARTITION BY {c}) - lag({c}) OVER (ORDER BY {c}) FROM {t} ORDER BY 2",
    "SELECT stddev({c}), median({c}), approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY {c}) FROM {t}",
];

/// Those over times.
const TIMES: &[&str] = &[
    "SELECT date_trunc('minute', {c}) AS minute, count(*) FROM {t} GROUP BY 1 ORDER BY 1",
    "SELECT date_bin(INTERVAL '10 seconds', {c}), count(*) FROM {t} GROUP BY 1 ORDER BY 2 DESC, 1",
    "SELECT {c} - lag({c}) OVER (ORDER BY {c}) AS apart FROM {t} ORDER BY 1",
    "SELECT rank() OVER (ORDER BY apart) FROM (SELECT {c} - lag({c}) OVER (ORDER BY {c}) AS apart FROM {t})",
    "SELECT max({c}) - min({c}), extract(epoch FROM max({c})) FROM {t}",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_column_can_stand_everywhere() {
    let local = local().await;
    let columns = columns(&local).await;
    assert!(columns.len() > 25, "{columns:?}");
    let mut failed = Vec::new();
    for (table, column, kind) in &columns {
        let numbers = if kind.starts_with("Int") { NUMBERS } else { &[] };
        let times = if kind.starts_with("Timestamp") { TIMES } else { &[] };
        for template in ANY.iter().chain(numbers).chain(times) {
            let sql = template.replace("{c}", column).replace("{t}", table);
            if let Err(words) = ask(&local, &sql).await {
                failed.push(format!("{sql} ({kind}): {words}"));
            }
        }
    }
    assert!(failed.is_empty(), "{} fail:\n{}", failed.len(), failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_functions_and_ordinals_give_expected_rows() {
    let local = local().await;
    let numbers = async |sql: &str| -> Vec<i64> {
        let answer = ask(&local, sql).await.unwrap_or_else(|words| panic!("{sql}: {words}"));
        let column = cast(answer.column(0), &DataType::Int64).expect("numbers");
        column.as_primitive::<Int64Type>().iter().map(|number| number.unwrap_or(-1)).collect()
    };
    let kib = "SELECT sum(length)/1024, protocol FROM packets GROUP BY 2 ORDER BY 1 DESC";
    let sorted = numbers(kib).await;
    assert!(sorted.is_sorted_by(|a, b| a >= b) && !sorted.is_empty(), "{sorted:?}");
    let running = "SELECT sum(bytes) OVER (ORDER BY flow_id) FROM flows ORDER BY flow_id";
    let all = numbers("SELECT sum(bytes) FROM flows").await[0];
    let sums = numbers(running).await;
    assert!(sums.is_sorted(), "{sums:?}");
    assert_eq!(sums.last(), Some(&all));
    let before = "SELECT count(*) FROM (SELECT header, lag(header) OVER (ORDER BY recorder, ordinal) AS b \
                  FROM packets) WHERE b IS NULL";
    assert_eq!(numbers(before).await, [1]);
    let rank = "SELECT row_number() OVER (ORDER BY bytes DESC, flow_id) AS n FROM flows ORDER BY n";
    let flows = numbers("SELECT count(*) FROM flows").await[0];
    assert_eq!(numbers(rank).await, (1..=flows).collect::<Vec<_>>());
}
