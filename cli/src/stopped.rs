//! Ctrl-C while something waits for the store.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capstan_model::{Failure, FailureKind};

/// Interval of the checks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs a future until it ends or Ctrl-C comes, whatever it waits for.
pub(crate) async fn or_stopped<T>(
    stop: &AtomicBool,
    words: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    or_stopped_if(stop, || true, words, work).await
}

/// The same, but Ctrl-C aborts the future only if `may_leave` allows it.
pub(crate) async fn or_stopped_if<T>(
    stop: &AtomicBool,
    may_leave: impl Fn() -> bool,
    words: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            ended = &mut work => return ended,
            () = tokio::time::sleep(LOOK_EVERY) => {
                if stop.load(Ordering::Relaxed) && may_leave() {
                    return Err(Failure::new(FailureKind::Interrupted, words));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stop_ends_waiting_work_and_lets_healthy_work_complete() {
        let (stop, asked) = (AtomicBool::new(false), AtomicBool::new(true));
        let never = || std::future::pending::<Result<(), Failure>>();
        assert_eq!(or_stopped(&asked, "x", async { Ok(7) }).await.unwrap(), 7);
        let left = or_stopped(&asked, "stopped", never()).await.expect_err("left");
        assert_eq!((left.kind(), left.to_string()), (FailureKind::Interrupted, "stopped".into()));
        let soon = async {
            tokio::time::sleep(4 * LOOK_EVERY).await;
            Ok(8)
        };
        assert_eq!(or_stopped_if(&asked, || false, "x", soon).await.unwrap(), 8);
        let waits = tokio::time::timeout(4 * LOOK_EVERY, or_stopped(&stop, "x", never())).await;
        assert!(waits.is_err(), "nobody has asked it to stop");
    }
}
