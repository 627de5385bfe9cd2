//! Limits of queries and exports: `--memory` and `--query-seconds`.

use std::time::Duration;

use capstan_model::{Failure, FailureKind, MemoryBudget, ServerShares};
use capstan_query_server::questions::Limits;

use crate::settings::Settings;

/// Default time limit of one query in a server, seconds.
const SECONDS: u64 = 300;

/// Limits of queries and exports.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Limited {
    /// Memory limit for queries and exports together, in a server also for its caches, MiB
    /// [default: a quarter of the machine's, at most half of the control group's]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(16..))]
    memory: Option<u32>,
    /// Time limit of one query in seconds; 0 is no limit
    /// [default: 300 in a server, 0 in a command that reads the store itself]
    #[arg(long, value_name = "SECONDS")]
    query_seconds: Option<u64>,
}

impl Limited {
    /// Of a server: what is not given comes from the settings file. `cache` is the memory of the cache in MiB, if it is
    /// given.
    pub(super) fn of_server(
        self,
        settings: &Settings,
        cache: Option<usize>,
    ) -> Result<(Limits, ServerShares), Failure> {
        let file = &settings.serve;
        let seconds = self.query_seconds.or(file.query_seconds).unwrap_or(SECONDS);
        let mut limits = limits(None, seconds);
        let shares = server_shares(self.memory.or(file.memory_mib), limits.memory, cache)?;
        limits.memory = shares.queries;
        Ok((limits, shares))
    }

    /// Of a command for one person, who can stop it.
    pub(super) fn of_command(self) -> Limits {
        limits(self.memory, self.query_seconds.unwrap_or(0))
    }
}

/// Shares of a server. Without `--memory`, a cache of a given size replaces the usual one, and the other shares stay.
fn server_shares(
    memory: Option<u32>,
    usual: usize,
    cache: Option<usize>,
) -> Result<ServerShares, Failure> {
    let cache = cache.map(|mib| mib.saturating_mul(1 << 20));
    let shares = match memory {
        Some(mib) => MemoryBudget::from_mib(mib as usize).for_server(cache),
        None => MemoryBudget::from_bytes(usual)
            .for_server(None)
            .map(|shares| ServerShares { cache: cache.unwrap_or(shares.cache), ..shares }),
    };
    shares.map_err(|error| {
        let what =
            format!("{error}; --memory sets the memory, --cache-memory-mib that of the cache");
        Failure::new(FailureKind::Usage, what)
    })
}

fn limits(memory: Option<u32>, seconds: u64) -> Limits {
    let mut limits = Limits::default();
    if let Some(mib) = memory {
        limits.memory = (mib as usize).saturating_mul(1 << 20);
    }
    limits.time = (seconds > 0).then(|| Duration::from_secs(seconds));
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_time_limit_is_none_by_default_and_for_zero() {
        let limited = |memory, query_seconds| Limited { memory, query_seconds }.of_command();
        assert_eq!(limited(None, None), Limits::default());
        assert_eq!(limited(None, Some(0)).time, None);
        let given = limited(Some(64), Some(7));
        assert_eq!((given.memory, given.time), (64 << 20, Some(Duration::from_secs(7))));
    }

    #[test]
    fn cache_of_a_given_size_changes_other_shares_only_if_the_memory_is_given() {
        const MIB: usize = 1 << 20;
        let shares = |memory, cache| server_shares(memory, 256 * MIB, cache).unwrap();
        let usual = shares(None, None);
        assert_eq!((usual.cache, usual.queries), (32 * MIB, 192 * MIB));
        for cache in [0, 32, 100] {
            let expected = ServerShares { cache: cache * MIB, ..usual };
            assert_eq!(shares(None, Some(cache)), expected);
        }
        assert_eq!(shares(Some(512), Some(100)).queries, (512 - 64 - 100) * MIB);
        let failure = server_shares(Some(128), 256 * MIB, Some(120)).unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Usage);
        for said in ["128 MiB", "120 MiB", "--memory", "--cache-memory-mib"] {
            assert!(failure.to_string().contains(said), "{failure}");
        }
    }
}
