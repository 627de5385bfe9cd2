//! What questions may take: `--memory` and `--query-seconds`.

use std::time::Duration;

use capstan_query_server::questions::Limits;

use crate::settings::Settings;

/// How long a server works for one question unless said otherwise, seconds.
const SECONDS: u64 = 300;

/// Limits on questions.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Limited {
    /// Memory limit for all queries and exports of this process together, MiB
    /// [default: a quarter of the machine's, at most half of the control group's]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(16..))]
    memory: Option<u32>,
    /// Time limit of one query in seconds; 0 is no limit
    /// [default: 300 in a server, 0 in a command that reads the store itself]
    #[arg(long, value_name = "SECONDS")]
    query_seconds: Option<u64>,
}

impl Limited {
    /// Of a server: what is not given comes from the settings file.
    pub(super) fn of_server(self, settings: &Settings) -> Limits {
        let file = &settings.serve;
        let seconds = self.query_seconds.or(file.query_seconds).unwrap_or(SECONDS);
        limits(self.memory.or(file.memory_mib), seconds)
    }

    /// Of a command for one person, who can stop it.
    pub(super) fn of_command(self) -> Limits {
        limits(self.memory, self.query_seconds.unwrap_or(0))
    }
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
}
