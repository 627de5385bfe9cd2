//! `capstan sql`.

use std::io::{IsTerminal, Read, Write};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv::WriterBuilder;
use arrow::ipc::writer::StreamWriter;
use arrow::json::LineDelimitedWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use capstan_model::{Failure, FailureKind};
use capstan_query_server::flight::client::Answer;
use comfy_table::{Table, presets};
use futures::StreamExt;
use tokio::runtime::Runtime;

use super::asked::Server;
use super::limited::Limited;
use crate::interrupt;
use crate::output;
use crate::settings::Settings;

/// Ask in SQL
///
/// Tables: packets, flows, flow_parts; of the catalog segments, files, protocols, coverage,
/// writers, problems, store. host('10.0.0.7') and port(53) are predicates on either end. Times
/// are UTC. `SHOW TABLES`, `DESCRIBE packets` and `EXPLAIN` work.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capstan sql --store ./store 'select protocol, count(*), sum(length) from packets group by protocol'
  capstan sql --store ./store --format csv \"select * from flows where host('10.0.0.7')\"
  capstan sql --server http://127.0.0.1:32010 'show tables'
  echo 'select 1' | capstan sql --store ./store -")]
pub(crate) struct Arguments {
    /// The statement, or - to read it from standard input
    #[arg(value_name = "QUERY")]
    query: String,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    limits: Limited,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people; rows are held until the end
    Table,
    /// One JSON object a line
    Json,
    /// CSV with a header line
    Csv,
    /// An Arrow IPC stream
    Arrow,
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
            "an Arrow stream is not for a terminal: send it to a file or a program",
        ));
    }
    let limits = arguments.limits.of_command();
    interrupt::until(runtime, "stopped: these are not all rows", async {
        let asked = arguments.server.open_within(settings, limits).await?;
        print(asked.query(&query).await?, arguments.format).await
    })
}

fn read_query() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::io("cannot read the query from standard input", error))?;
    Ok(text)
}

async fn print(mut answer: Answer, format: Format) -> Result<(), Failure> {
    match format {
        Format::Table => {
            let mut batches = Vec::new();
            let mut ended = Ok(());
            while let Some(batch) = answer.batches.next().await {
                match batch {
                    Ok(batch) => batches.push(batch),
                    Err(failure) => ended = Err(failure),
                }
            }
            let names: Vec<&str> =
                answer.schema.fields().iter().map(|field| field.name().as_str()).collect();
            // An answer may end with what is missing in it.
            if ended.is_ok() || !batches.is_empty() {
                output::print(&table(&names, &batches)?)?;
            }
            ended
        }
        Format::Json => {
            while let Some(batch) = answer.batches.next().await {
                let mut text = Vec::new();
                let mut writer = LineDelimitedWriter::new(&mut text);
                writer.write(&batch?).and_then(|()| writer.finish()).map_err(unprintable)?;
                write(&text)?;
            }
            Ok(())
        }
        Format::Csv => {
            let empty = RecordBatch::new_empty(Arc::clone(&answer.schema));
            write(&csv(&empty, true)?)?;
            while let Some(batch) = answer.batches.next().await {
                write(&csv(&batch?, false)?)?;
            }
            Ok(())
        }
        Format::Arrow => {
            let mut writer =
                StreamWriter::try_new(Vec::new(), &answer.schema).map_err(unprintable)?;
            let mut ended = Ok(());
            while let Some(batch) = answer.batches.next().await {
                match batch {
                    Ok(batch) => writer.write(&batch).map_err(unprintable)?,
                    Err(failure) => ended = Err(failure),
                }
                write(&std::mem::take(writer.get_mut()))?;
            }
            writer.finish().map_err(unprintable)?;
            write(writer.get_ref())?;
            ended
        }
    }
}

fn csv(batch: &RecordBatch, header: bool) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let mut writer = WriterBuilder::new().with_header(header).build(&mut text);
    writer.write(batch).map_err(unprintable)?;
    drop(writer);
    Ok(text)
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    output::written(out.write_all(bytes).and_then(|()| out.flush()))
}

fn table(names: &[&str], batches: &[RecordBatch]) -> Result<String, Failure> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(names);
    let options = FormatOptions::new().with_null("");
    let mut rows = 0;
    for batch in batches {
        rows += batch.num_rows() as u64;
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<Vec<_>, _>>()
            .map_err(unprintable)?;
        for row in 0..batch.num_rows() {
            table.add_row(columns.iter().map(|column| column.value(row).to_string()));
        }
    }
    let noun = if rows == 1 { "row" } else { "rows" };
    Ok(format!("{table}\n({rows} {noun})\n"))
}

fn unprintable(error: arrow::error::ArrowError) -> Failure {
    Failure::caused_by(FailureKind::Other, "a result cannot be printed", error)
}
