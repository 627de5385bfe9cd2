//! Queries that try to exhaust the machine, and their effect on others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use capstan_fixtures::{Recording, record, traffic};
use capstan_index::filter::FlowFilter;
use capstan_view::access::{KEY_BYTES, Mask, Rights};
use futures::TryStreamExt;

use super::*;
use crate::flight::Sessions;
use crate::flight::local::Local;
use crate::sessions::{Options, StoreSessions};

/// How long anything may take before a test gives up on it.
const LONG: Duration = Duration::from_secs(60);

fn limited(change: impl FnOnce(&mut Limits)) -> Questions {
    let mut limits = Limits { threads: 2, ..Limits::default() };
    change(&mut limits);
    Questions::new(limits)
}

fn everybody() -> Arc<Principal> {
    Principal::everything()
}

async fn until_idle(questions: &Questions) {
    let began = Instant::now();
    while questions.running() > 0 {
        assert!(began.elapsed() < LONG, "{} still run", questions.running());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn busy(until: impl Fn() -> bool) -> Result<(), Failure> {
    while !until() {
        std::hint::spin_loop();
    }
    Ok(())
}

#[tokio::test]
async fn query_that_never_yields_blocks_none_and_sees_its_cancellation() {
    let questions = Arc::new(limited(|_| {}));
    let asked: Vec<_> = (0..3)
        .map(|_| {
            let questions = Arc::clone(&questions);
            tokio::spawn(async move { questions.ask(&everybody(), busy(is_stopped)).await })
        })
        .collect();
    while questions.running() < 3 {
        tokio::task::yield_now().await;
    }
    let other = tokio::time::timeout(LONG, questions.ask(&everybody(), async { Ok(7) })).await;
    assert_eq!(other.expect("it is held up").expect("an answer"), 7);
    assert!(questions.running() >= 3, "they were stopped");
    asked.iter().for_each(tokio::task::JoinHandle::abort);
    until_idle(&questions).await;
}

#[tokio::test]
async fn query_ends_at_its_deadline() {
    let questions = limited(|limits| limits.time = Some(Duration::from_millis(100)));
    let waits = questions.ask(&everybody(), std::future::pending::<Result<(), Failure>>()).await;
    let spins = questions.ask(&everybody(), busy(is_stopped)).await;
    for ended in [waits, spins] {
        let failure = ended.expect_err("it goes on");
        assert_eq!(failure.kind(), FailureKind::Full);
        assert!(failure.to_string().contains("--query-seconds"), "{failure}");
    }
    // One that ignores it is not waited for.
    let done = Arc::new(AtomicBool::new(false));
    let (flag, other) = (Arc::clone(&done), Arc::clone(&done));
    let deaf = questions.ask(&everybody(), busy(move || flag.load(Ordering::Relaxed))).await;
    assert_eq!(deaf.expect_err("it goes on").kind(), FailureKind::Full);
    other.store(true, Ordering::Relaxed);
    until_idle(&questions).await;
}

#[tokio::test]
async fn unread_rows_are_dropped_after_a_time_limit() {
    let questions = limited(|limits| limits.time = Some(Duration::from_millis(200)));
    let endless = async { Ok(((), stream::repeat(1).boxed())) };
    let ((), mut rows) = questions.stream(&everybody(), |_| 0, endless).await.expect("rows");
    // Taking them slowly is no work of the question.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(rows.next().await.expect("rows").expect("a row"), 1);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let failure = rows.next().await.expect("an end").expect_err("it goes on");
    assert!(failure.to_string().contains("took no rows"), "{failure}");
    assert!(rows.next().await.is_none());
    until_idle(&questions).await;
}

#[tokio::test]
async fn stop_for_memory_tells_a_masked_principal_no_numbers() {
    let mask = Mask::new(FlowFilter::all(), [0; KEY_BYTES]).expect("a mask");
    let masked = Principal::new("team", Rights::all(), Some(mask));
    for who in [everybody(), masked] {
        let questions = limited(|limits| limits.memory = 64 << 20);
        let greedy = async {
            // What an allocator does before it allocates so much.
            assert!(account::is_too_much(1 << 40));
            std::future::pending::<Result<(), Failure>>().await
        };
        let asked = tokio::time::timeout(LONG, questions.ask(&who, greedy)).await;
        let failure = asked.expect("it is stopped").expect_err("too much memory");
        assert_eq!(failure.kind(), FailureKind::Full);
        let has_numbers = failure.to_string().bytes().any(|byte| byte.is_ascii_digit());
        assert_eq!(has_numbers, !who.is_masked(), "{failure}");
        until_idle(&questions).await;
    }
}

#[tokio::test]
async fn excess_query_waits_and_is_refused() {
    let questions = limited(|limits| {
        limits.running = 1;
        limits.patience = Duration::from_millis(100);
    });
    let pending = async { Ok(((), stream::pending::<()>().boxed())) };
    let ((), rows) = questions.stream(&everybody(), |_| 0, pending).await.expect("it runs");
    let refused = questions.ask(&everybody(), async { Ok(()) }).await.expect_err("it runs");
    assert_eq!(refused.kind(), FailureKind::Unavailable);
    drop(rows);
    questions.ask(&everybody(), async { Ok(()) }).await.expect("there is room");
}

#[tokio::test]
async fn panic_of_a_query_is_an_error_and_does_not_affect_others() {
    let questions = limited(|_| {});
    let crash = async { if true { panic!("on purpose") } else { Ok(()) } };
    assert_eq!(
        questions.ask(&everybody(), crash).await.expect_err("it crashed").kind(),
        FailureKind::Other
    );
    let rows = stream::iter(0..3).map(|row| if row < 2 { row } else { panic!("on purpose") });
    let rows = async { Ok(((), rows.boxed())) };
    let ((), rows) = questions.stream(&everybody(), |_| 0, rows).await.expect("rows");
    let rows: Vec<_> = rows.collect().await;
    assert_eq!(rows.iter().filter(|row| row.is_ok()).count(), 2);
    assert!(rows.last().is_some_and(Result::is_err));
    assert_eq!(questions.ask(&everybody(), async { Ok(1) }).await.expect("an answer"), 1);
    until_idle(&questions).await;
    questions.stop_all();
    wait_for_all(LONG);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_joins_and_sums_are_stopped() {
    let store = capstan_fixtures::store().await;
    record(&store, Recording::of(1), traffic(1, 2_000, 0, 1_000)).await;
    let limits = Limits { time: Some(Duration::from_millis(500)), threads: 2, ..Limits::default() };
    let options = Options { limits, ..Options::default() };
    let sessions = Arc::new(StoreSessions::open(store, options).await.expect("a store"));
    let local = Local::new(Arc::clone(&sessions) as Arc<dyn Sessions>, Principal::everything());
    for sql in [
        "select sum(a.value * b.value % 7) from generate_series(1, 200000) a cross join generate_series(1, 200000) b",
        "select sum(value % 13) from generate_series(1, 50000000000)",
        "select count(*) from generate_series(1, 200000) a join generate_series(1, 200000) b on a.value + b.value < 0",
        "select count(*) from generate_series(1, 3000000) a join generate_series(1, 3000000) b \
         on a.value % 2 = b.value % 2 and a.value + b.value < 0",
        "select count(*) from packets a, packets b, packets c, packets d where a.length + b.length + c.length + d.length < 0",
        "with recursive t as (select 1 x union all select x + 1 from t) select count(*) from t",
        "select count(*) from (select unnest(range(0, 100000)) from generate_series(1, 10000000))",
        "select max(length(repeat('x', 100000))) from generate_series(1, 100000000)",
    ] {
        let answer = async {
            let answer = local.query(sql).await?;
            answer.batches.try_collect::<Vec<_>>().await
        };
        let ended = tokio::time::timeout(LONG, answer).await.expect(sql);
        let failure = ended.expect_err(sql);
        assert_eq!(failure.kind(), FailureKind::Full, "{sql}: {failure}");
        let began = Instant::now();
        until_idle(sessions.questions()).await;
        println!("idle after {:?}: {sql}", began.elapsed());
    }
}
