//! `capstan sql`.

mod duration;
mod nested;
mod people;

use std::io::{IsTerminal, Read};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv::WriterBuilder;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use arrow::json::LineDelimitedWriter;
use capstan_model::{Failure, FailureKind};
use capstan_query_server::flight::client::Answer;
use futures::StreamExt;
use tokio::runtime::Runtime;

use self::people::{People, Shape};
use super::asked::Server;
use super::limited::Limited;
use crate::interrupt;
use crate::output::{self, count};
use crate::settings::Settings;

/// Run a SQL query
///
/// Tables: packets, flows, flow_parts; catalog tables: segments, files, protocols, coverage,
/// writers, problems, store. host('10.0.0.7') and port(53) match either end. Times are UTC. `SHOW
/// TABLES`, `DESCRIBE packets` and `EXPLAIN` work.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capstan sql --store ./store 'select protocol, count(*), sum(length) from packets group by protocol'
  capstan sql --store ./store --format csv \"select * from flows where host('10.0.0.7')\"
  capstan sql --store ./store --format vertical --rows 2 'select * from packets'
  capstan sql --server http://127.0.0.1:32010 'show tables'
  echo 'select 1' | capstan sql --store ./store -")]
pub(crate) struct Arguments {
    /// The statement, or - to read it from standard input
    #[arg(value_name = "QUERY")]
    query: String,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Maximum number of rows, 0 for all [default: 1000 for table and vertical, all for other
    /// formats]
    #[arg(long, value_name = "NUMBER", value_parser = rows)]
    rows: Option<u64>,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    limits: Limited,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people: one line per row, long cells truncated
    Table,
    /// For people: one line per cell, for wide rows
    Vertical,
    /// One JSON object per line
    Json,
    /// CSV with a header line
    Csv,
    /// An Arrow IPC stream
    Arrow,
}

fn rows(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "expected a number of rows, or 0 for all".to_owned())
}

/// Rows that people are shown unless they ask for more.
const ROWS: u64 = 1_000;

impl Format {
    fn shape(self) -> Option<Shape> {
        match self {
            Format::Table => Some(Shape::Table),
            Format::Vertical => Some(Shape::Vertical),
            Format::Json | Format::Csv | Format::Arrow => None,
        }
    }

    /// Most rows to give.
    fn limit(self, asked: Option<u64>) -> u64 {
        match asked {
            Some(0) => u64::MAX,
            Some(rows) => rows,
            None if self.shape().is_some() => ROWS,
            None => u64::MAX,
        }
    }
}

pub(crate) fn run(
    arguments: Arguments,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let query = if arguments.query == "-" { read_query()? } else { arguments.query };
    if arguments.format == Format::Arrow && std::io::stdout().is_terminal() {
        return Err(Failure::new(
            FailureKind::Usage,
            "an Arrow stream cannot be written to a terminal: redirect it to a file or a program",
        ));
    }
    let limits = arguments.limits.of_command();
    interrupt::until(runtime, "stopped: the result is incomplete", async {
        let asked = arguments.server.open_within(settings, limits).await?;
        let limit = arguments.format.limit(arguments.rows);
        print(asked.query(&query).await?, arguments.format, limit).await
    })
}

fn read_query() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::io("cannot read the query from standard input", error))?;
    Ok(text)
}

/// The rows of an answer up to a limit.
struct Rows {
    answer: Answer,
    left: u64,
    /// There are more rows than were asked for.
    more: bool,
}

impl Rows {
    /// The next rows. When enough were given it is only looked whether there are more; the answer is
    /// dropped soon after, which stops the query.
    async fn next(&mut self) -> Option<Result<RecordBatch, Failure>> {
        while !self.more {
            let batch = match self.answer.batches.next().await? {
                Ok(batch) => batch,
                Err(failure) => return Some(Err(failure)),
            };
            let rows = batch.num_rows() as u64;
            if self.left == 0 && rows > 0 {
                self.more = true;
                return None;
            }
            let given = rows.min(self.left);
            self.left -= given;
            if given > 0 {
                self.more = given < rows;
                // No more rows than the batch has.
                return Some(Ok(batch.slice(0, given as usize)));
            }
        }
        None
    }
}

async fn print(answer: Answer, format: Format, limit: u64) -> Result<(), Failure> {
    let schema = Arc::clone(&answer.schema);
    let mut rows = Rows { answer, left: limit, more: false };
    let ended = match format {
        Format::Table => for_people(&mut rows, People::new(Shape::Table, &schema)).await,
        Format::Vertical => for_people(&mut rows, People::new(Shape::Vertical, &schema)).await,
        Format::Json => json(&mut rows).await,
        Format::Csv => comma_separated(&mut rows, schema).await,
        Format::Arrow => arrow(&mut rows, &schema).await,
    };
    // They are about the whole answer, and precede its rows.
    for note in rows.answer.notes.lines() {
        output::tell(&format!("note: {}", output::name(&note)));
    }
    if rows.more && format.shape().is_none() {
        output::tell(&format!(
            "the output is limited to the first {}: there are more",
            count(limit, "row")
        ));
    }
    ended
}

/// Rows are printed as they come, a page at a time: no more than a page of them is held.
async fn for_people(rows: &mut Rows, mut people: People) -> Result<(), Failure> {
    let ended = loop {
        match rows.next().await {
            Some(Ok(batch)) => output::print(&people.add(&batch).map_err(unprintable)?)?,
            Some(Err(failure)) => break Err(failure),
            None => break Ok(()),
        }
    };
    // An answer may end with what is missing in it.
    if ended.is_ok() || people.rows() > 0 {
        output::print(&people.finish(rows.more))?;
    }
    ended
}

async fn json(rows: &mut Rows) -> Result<(), Failure> {
    while let Some(batch) = rows.next().await {
        let mut text = Vec::new();
        let mut writer = LineDelimitedWriter::new(&mut text);
        let batch = nested::with_text_keys(&batch?).map_err(has_no_text)?;
        writer.write(&batch).and_then(|()| writer.finish()).map_err(has_no_text)?;
        output::print_data(output::visible_json(&String::from_utf8_lossy(&text)).as_bytes())?;
    }
    Ok(())
}

async fn comma_separated(rows: &mut Rows, schema: SchemaRef) -> Result<(), Failure> {
    output::print_data(&csv(&RecordBatch::new_empty(schema), true)?)?;
    while let Some(batch) = rows.next().await {
        output::print_data(&csv(&batch?, false)?)?;
    }
    Ok(())
}

async fn arrow(rows: &mut Rows, schema: &SchemaRef) -> Result<(), Failure> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema).map_err(unprintable)?;
    let mut ended = Ok(());
    while let Some(batch) = rows.next().await {
        match batch {
            Ok(batch) => writer.write(&batch).map_err(unprintable)?,
            Err(failure) => ended = Err(failure),
        }
        output::print_data(&std::mem::take(writer.get_mut()))?;
    }
    writer.finish().map_err(unprintable)?;
    output::print_data(writer.get_ref())?;
    ended
}

fn csv(batch: &RecordBatch, header: bool) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let mut writer = WriterBuilder::new().with_header(header).build(&mut text);
    let batch = nested::as_text(batch).map_err(has_no_text)?;
    writer.write(&batch).map_err(has_no_text)?;
    drop(writer);
    Ok(text)
}

/// Some types have no text that programs could read again.
fn has_no_text(error: arrow::error::ArrowError) -> Failure {
    let what = "a column has no representation in this format: select its fields, cast it to \
                text, or use --format table or arrow";
    Failure::caused_by(FailureKind::Usage, what, error)
}

fn unprintable(error: arrow::error::ArrowError) -> Failure {
    Failure::caused_by(FailureKind::Other, "a result cannot be printed", error)
}
