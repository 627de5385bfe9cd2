//! The source of answers for a reading command: the store, or a Capstan server over it. Answers are the same.

use std::sync::Arc;
use std::time::Duration;

use capstan_model::{Failure, FailureKind, TimeRange};
use capstan_query_server::flight::client::{Answer, Client};
use capstan_query_server::flight::local::Local;
use capstan_query_server::questions::Limits;
use capstan_query_server::sessions::{Options, StoreSessions};
use capstan_view::access::Principal;
use clap::builder::NonEmptyStringValueParser;

use crate::settings::Settings;

/// `--server`, as every reading command has it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Server {
    /// Query this Capstan server instead of the store
    #[arg(long = "server", env = "CAPSTAN_SERVER", value_name = "URL",
          value_parser = NonEmptyStringValueParser::new())]
    pub(crate) url: Option<String>,
}

/// The source of SQL answers.
pub(crate) enum Asked {
    /// This process, from the store.
    Store(Local),
    /// A server.
    Server(Client),
}

impl Server {
    /// Opens the store, or connects to the server.
    pub(crate) async fn open(&self, settings: &Settings) -> Result<Asked, Failure> {
        self.open_within(settings, Limits::default()).await
    }

    /// As [`Server::open`], with other limits on what is asked of the store.
    pub(crate) async fn open_within(
        &self,
        settings: &Settings,
        limits: Limits,
    ) -> Result<Asked, Failure> {
        match &self.url {
            Some(url) => Ok(Asked::Server(Client::connect(url).await?)),
            None => {
                // One command is about one moment of the store.
                let options = Options { freshness: Duration::MAX, limits, ..Options::default() };
                let sessions = StoreSessions::open(settings.open().await?, options).await?;
                Ok(Asked::Store(Local::new(Arc::new(sessions), Principal::everything())))
            }
        }
    }
}

impl Asked {
    /// Runs a statement. The answer must not outlive its source.
    pub(crate) async fn query(&self, sql: &str) -> Result<Answer, Failure> {
        match self {
            Asked::Store(local) => local.query(sql).await,
            Asked::Server(client) => client.query(sql).await,
        }
    }
}

/// Whether an answer that ends with this failure has all readable rows.
pub(super) fn is_rest_of_answer(failure: &Failure) -> bool {
    matches!(failure.kind(), FailureKind::Damaged | FailureKind::TooNew)
}

/// The SQL condition for rows that may have packets in a range, by the columns of first and last time. Rows
/// without times match only all of time.
pub(super) fn touching(range: TimeRange, first: &str, last: &str) -> String {
    let mut conditions = vec!["true".to_owned()];
    if range.start != TimeRange::ALL.start {
        conditions.push(format!("{last} >= '{}'", range.start));
    }
    if range.end != TimeRange::ALL.end {
        conditions.push(format!("{first} < '{}'", range.end));
    }
    conditions.join(" AND ")
}

#[cfg(test)]
mod tests {
    use capstan_model::Time;

    use super::*;

    #[test]
    fn open_ends_add_no_condition() {
        let range = |start, end| TimeRange { start, end };
        assert_eq!(touching(TimeRange::ALL, "a", "b"), "true");
        assert_eq!(
            touching(range(Time(0), Time(1)), "a", "b"),
            "true AND b >= '1970-01-01T00:00:00Z' AND a < '1970-01-01T00:00:00.000000001Z'"
        );
        assert_eq!(
            touching(range(Time(0), Time::MAX), "a", "b"),
            "true AND b >= '1970-01-01T00:00:00Z'"
        );
    }
}
