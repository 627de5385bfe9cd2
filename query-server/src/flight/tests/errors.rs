//! Errors reach the client with their kind and their text.

use capstan_model::FailureKind;
use futures::TryStreamExt;

use super::fixture::Server;

#[tokio::test]
async fn sql_errors_are_usage_errors_with_a_message() {
    let server = Server::start().await;
    let client = server.client().await;
    for (sql, word) in [
        ("SELECT src_pot FROM packets", "src_pot"),
        ("SELECT * FROM pakets", "pakets"),
        ("SELEC 1", "SELEC"),
        ("SELECT 'open", "nterminated"),
        ("", "SQL"),
        ("SELECT nosuch(1)", "nosuch"),
        ("SELECT $1", "$1"),
        ("SELECT ?", "$1"),
        ("DELETE FROM packets", "refused"),
        ("INSERT INTO packets SELECT * FROM packets", "INSERT"),
        ("COPY packets TO '/tmp/never.parquet'", "COPY"),
        ("SET datafusion.execution.batch_size = 7", "SET"),
        ("CREATE VIEW v AS SELECT 1", "CREATE"),
        ("SELECT CAST('abc' AS INT)", "abc"),
        ("SELECT CAST(src_ip AS INT) FROM packets", "10.0.0.1"),
        ("SELECT 1 / 0", "ivide by zero"),
    ] {
        let outcome = match client.query(sql).await {
            Ok(answer) => answer.batches.try_collect::<Vec<_>>().await.map(|_| ()),
            Err(failure) => Err(failure),
        };
        let failure = outcome.expect_err(sql);
        assert_eq!(failure.kind(), FailureKind::Usage, "{sql}: {failure}");
        let words = failure.to_string();
        assert!(words.contains(word), "{sql}: {words}");
        for debris in ["Error {", "Some(", "Status", "github.com", "backtrace", "ParserError"] {
            assert!(!words.contains(debris), "{sql}: {words}");
        }
    }
}

#[tokio::test]
async fn store_failure_during_an_answer_is_an_error() {
    let server = Server::start().await;
    let answer = server.client().await.query("SELECT * FROM broken").await.expect("a plan");
    let failure = answer.batches.try_collect::<Vec<_>>().await.expect_err("the store is away");
    assert_eq!(failure.kind(), FailureKind::Unavailable);
    assert_eq!(failure.to_string(), "the bucket does not answer");
}

#[tokio::test]
async fn query_over_its_memory_limit_gets_resource_exhausted() {
    let server = Server::start().await;
    let sql = "SELECT number FROM endless ORDER BY number DESC";
    let answer = server.client().await.query(sql).await.expect("a plan");
    let failure = answer.batches.try_collect::<Vec<_>>().await.expect_err("8 MiB are not enough");
    assert_eq!(failure.kind(), FailureKind::Full, "{failure}");
}

/// Chains of everything that makes a plan's tree high, as long as they are taken:
/// whatever the answer, the server must be there to give it.
#[tokio::test]
async fn no_statement_overflows_the_stack() {
    let server = Server::start().await;
    let client = server.client().await;
    let chain = |link: &str, between: &str, links: usize| vec![link; links].join(between);
    let joined: Vec<_> = (0..300).map(|n| format!("(SELECT 1) t{n}")).collect();
    for (name, sql) in [
        ("sum", format!("SELECT {}", chain("1", " + ", 990))),
        ("or", format!("SELECT * FROM packets WHERE {}", chain("length = 1", " OR ", 490))),
        ("not", format!("SELECT {} true", chain("NOT", " ", 990))),
        ("minus", format!("SELECT {} 1", chain("-", " ", 990))),
        ("cast", format!("SELECT 1{}", chain("::int", "", 450))),
        ("is null", format!("SELECT 1 {}", chain("IS NULL", " ", 490))),
        ("concat", format!("SELECT {}", chain("src_ip", " || ", 900)) + " FROM packets"),
        ("union", chain("SELECT 1", " UNION ALL ", 330)),
        ("join", format!("SELECT 1 FROM {}", joined.join(" CROSS JOIN "))),
        ("parentheses", format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000))),
        ("functions", format!("SELECT {}1{}", "abs(".repeat(900), ")".repeat(900))),
        ("subqueries", format!("SELECT {}1{}", "(SELECT ".repeat(490), ")".repeat(490))),
        ("case", format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(190), " END".repeat(190))),
    ] {
        let started = std::time::Instant::now();
        let outcome = match client.query(&sql).await {
            Ok(answer) => answer.batches.try_collect::<Vec<_>>().await.map(|_| ()),
            Err(failure) => Err(failure),
        };
        println!("{name}: {outcome:?} after {:?}", started.elapsed());
        if let Err(failure) = outcome {
            assert_eq!(failure.kind(), FailureKind::Usage, "{name}: {failure}");
        }
    }
    client.query("SELECT 1").await.expect("the server is there");
}

#[tokio::test]
async fn unreachable_server_is_reported() {
    let server = Server::start().await;
    let url = server.url();
    server.stopped().await.expect("an orderly end");
    let failure = super::super::client::Client::connect(&url).await.expect_err("stopped");
    assert_eq!(failure.kind(), FailureKind::Unavailable);
    assert!(failure.to_string().contains(&url), "{failure}");
}
