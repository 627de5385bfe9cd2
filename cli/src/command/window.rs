//! `--from` and `--to`, as every reading command has them.

use capstan_model::{Failure, FailureKind, Time, TimeRange};
use capstan_storage_engine::store;
use clap::builder::NonEmptyStringValueParser;

/// The time window. Without it: everything.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Window {
    /// Start time: RFC 3339, a date, or a distance from now such as -15m [default: the beginning]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true,
          value_parser = NonEmptyStringValueParser::new())]
    from: Option<String>,
    /// End time, exclusive; the same forms [default: the end]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true,
          value_parser = NonEmptyStringValueParser::new())]
    to: Option<String>,
}

impl Window {
    /// The window as times.
    pub(crate) fn range(&self) -> Result<TimeRange, Failure> {
        let now = store::now();
        let time = |text: &Option<String>, otherwise| match text {
            Some(text) => Time::parse(text, now),
            None => Ok(otherwise),
        };
        let from = time(&self.from, Time::MIN);
        let to = time(&self.to, Time::MAX);
        from.and_then(|from| to.and_then(|to| TimeRange::new(from, to)))
            .map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))
    }
}
