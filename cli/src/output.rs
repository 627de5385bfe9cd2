//! Output for people: messages, tables, progress bars.

mod visible;

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use capstan_model::failure::words;
pub(crate) use capstan_model::words::{agree, count};
use capstan_model::{Failure, FailureKind};
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format;

pub(crate) use self::visible::{Keep, json as visible_json, visible};

/// Logs go to standard error. `CAPSTAN_LOG` has priority over `-v`.
pub(crate) fn start_logging(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let asked = std::env::var("CAPSTAN_LOG").ok().filter(|text| !text.is_empty());
    let filter = asked.and_then(|text| match EnvFilter::try_new(&text) {
        Ok(filter) => Some(filter),
        Err(error) => {
            tell(&format!("capstan: CAPSTAN_LOG is ignored: '{text}': {error}"));
            None
        }
    });
    let filter = filter.unwrap_or_else(|| EnvFilter::new(level));
    // Log fields may hold names from captures and catalogs: they are escaped, one line each.
    let fields = format::debug_fn(|writer, field, value| {
        let value = format!("{value:?}");
        let value = visible(&value, Keep::Nothing);
        match field.name() {
            "message" => write!(writer, "{value}"),
            name => write!(writer, "{name}={value}"),
        }
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(has_colours(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR")))
        .with_target(false)
        .fmt_fields(fields.delimited(" "))
        .init();
}

/// Whether colours may be used; <https://no-color.org>.
fn has_colours(terminal: bool, no_color: Option<std::ffi::OsString>) -> bool {
    terminal && no_color.is_none_or(|value| value.is_empty())
}

/// An error with all its causes, in one sentence a line.
pub(crate) fn print_failure(failure: &Failure) {
    tell(&format!("capstan: {}", with_causes(failure)));
}

/// A line, or some, on standard error.
pub(crate) fn tell(text: &str) {
    // Without standard error the message is lost.
    let _ = writeln!(std::io::stderr(), "{}", visible(text, Keep::Lines));
}

/// A name from a capture, a catalog or a file system, to stand in a line.
pub(crate) fn name(text: &str) -> std::borrow::Cow<'_, str> {
    visible(text, Keep::Nothing)
}

/// A message about something that did not fail.
pub(crate) fn print_warning(text: &str) {
    let _ = writeln!(std::io::stderr(), "capstan: {text}");
}

/// An error and its causes, each on a line.
fn with_causes(failure: &dyn std::error::Error) -> String {
    // A name with line feeds in it must not look like a message of its own.
    let indented = |words: &String| words.replace('\n', "\n  ");
    words(failure).iter().map(indented).collect::<Vec<_>>().join("\n  because: ")
}

/// Writes lines of a report about work to standard output. The work goes on when the reader has gone away (`| head`).
pub(crate) fn report(text: &str) -> Result<(), Failure> {
    match write(visible(text, Keep::Lines).as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(unwritten),
    }
}

/// Writes lines of an answer to standard output. The process ends well when the reader has gone away (`| head`).
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    written(write(visible(text, Keep::Lines).as_bytes()))
}

/// Writes text of an answer for programs to standard output: as it is, but not on a terminal.
pub(crate) fn print_data(bytes: &[u8]) -> Result<(), Failure> {
    if std::io::stdout().is_terminal() {
        return print(&String::from_utf8_lossy(bytes));
    }
    written(write(bytes))
}

fn write(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())
}

/// Judges a write of an answer to standard output: nobody needs the rest of it when the reader has gone away.
pub(crate) fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.map_err(unwritten),
    }
}

fn unwritten(error: std::io::Error) -> Failure {
    Failure::io("cannot write to standard output", error)
}

/// A table without lines between rows.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header);
    table
}

/// JSON of a value, for people and programs.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    ended(serde_json::to_string_pretty(value))
}

/// JSON of a value in one line, for programs that read line by line.
pub(crate) fn json_line(value: &impl serde::Serialize) -> Result<String, Failure> {
    ended(serde_json::to_string(value))
}

fn ended(json: serde_json::Result<String>) -> Result<String, Failure> {
    json.map(|text| visible::json(&text).into_owned() + "\n")
        .map_err(|error| Failure::caused_by(FailureKind::Other, "cannot write JSON", error))
}

/// A progress bar of bytes on standard error; nothing if that is not a terminal.
pub(crate) fn byte_bar(total: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {msg} {eta}",
        ),
        None => (ProgressBar::new_spinner(), "{prefix} {spinner} {bytes} {bytes_per_sec} {msg}"),
    };
    styled(bar, template)
}

/// A progress bar of steps with a message on standard error; nothing if that is not a terminal.
pub(crate) fn step_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    styled(ProgressBar::new(0), "{spinner} {msg} {pos}/{len} {eta}")
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    bar.set_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Bytes as people read them: binary units, three digits.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ if value < 10.0 => format!("{value:.2} {}", UNITS[unit]),
        _ if value < 100.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_is_printed_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("a library: {0}")]
        struct Library(#[source] std::io::Error);
        let failure = |inner| Failure::caused_by(FailureKind::Other, "cannot do it", inner);
        let cause = || std::io::Error::other("no such thing");
        assert_eq!(
            with_causes(&failure(Library(cause()))),
            "cannot do it\n  because: a library: no such thing"
        );
        let text = "cannot do it\n  because: no such thing";
        assert_eq!(
            with_causes(&Failure::caused_by(FailureKind::Other, "cannot do it", cause())),
            text
        );
    }

    #[test]
    fn hostile_name_cannot_imitate_a_message() {
        let failure = Failure::new(FailureKind::Other, "cannot read a\ncapstan: all is well");
        assert_eq!(with_causes(&failure), "cannot read a\n  capstan: all is well");
    }

    #[test]
    fn colours_are_for_terminals() {
        assert!(has_colours(true, None) && has_colours(true, Some("".into())));
        assert!(!has_colours(true, Some("1".into())) && !has_colours(false, None));
    }

    #[test]
    fn bytes_are_readable() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(bytes(20 << 20), "20.0 MiB");
        assert_eq!(bytes(u64::MAX), "16384 PiB");
    }
}
