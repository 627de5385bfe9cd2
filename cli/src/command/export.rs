//! `capstan export`.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use capstan_export::{Export, LAST_BLOCK, Order, Report};
use capstan_model::{Failure, FailureKind};
use capstan_query_server::flight::ExportRequest;
use capstan_query_server::flight::client::Client;
use capstan_view::StoreView;
use capstan_view::access::Principal;
use futures::StreamExt;
use indicatif::ProgressBar;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::asked::Server;
use super::selected::Selected;
use super::window::Window;
use crate::interrupt;
use crate::output::{self, bytes, count};
use crate::settings::Settings;

/// Write the packets of a time window as PCAPNG
///
/// Selects packets whose flow has every --host and every --port at either end (of the flow or of a
/// tunnel around it), and one of the --protocol labels. Later fragments of such a flow are
/// included. --host A --port P selects what `host A and port P` selects in tcpdump.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capstan export --store ./store -o all.pcapng
  capstan export --store ./store --from -15m --host 10.0.0.7 --port 443 -o - | wireshark -k -i -
  capstan export --store ./store --host 10.244.0.0/16 --port 8000-8999 -o pods.pcapng
  capstan export --store ./store --protocol dns --order recorded -o dns.pcapng
  capstan export --server http://127.0.0.1:32010 --from -1h -o window.pcapng")]
pub(crate) struct Arguments {
    #[command(flatten)]
    window: Window,
    #[command(flatten)]
    selected: Selected,
    /// Packet order
    #[arg(long, value_enum, default_value_t = By::Time)]
    order: By,
    /// The file to write, or - for standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Memory limit for packets, MiB; more packets go to temporary files
    #[arg(long, value_name = "MIB", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    memory: u32,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// By time
    Time,
    /// Capture order of each recorder
    Recorded,
}

pub(crate) fn run(
    arguments: Arguments,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let selection = arguments.selected.selection(arguments.window.range()?)?;
    let order = match arguments.order {
        By::Time => Order::Time,
        By::Recorded => Order::Recorded,
    };
    let to_screen = arguments.output.as_os_str() == "-" && std::io::stdout().is_terminal();
    if to_screen {
        return Err(Failure::new(
            FailureKind::Usage,
            "a capture cannot be written to a terminal: redirect it to a file or a program",
        ));
    }
    let remarks = selection.remarks();
    interrupt::until(runtime, "stopped: the file is incomplete", async {
        match &arguments.server.url {
            Some(server) => {
                let request = ExportRequest { selection, order };
                from_server(server, &request, &remarks, &arguments.output).await
            }
            None => {
                let mut what = Export::new(selection, order);
                what.memory = (arguments.memory as usize) << 20;
                from_store(what, &arguments.output, settings).await
            }
        }
    })
}

/// Pieces that may wait to be written.
const PIECES: usize = 4;

async fn from_store(what: Export, path: &Path, settings: &Settings) -> Result<(), Failure> {
    let view = StoreView::load(settings.open().await?).await?;
    let view = view.scoped(&Principal::everything());
    let mut file = Target::create(path)?;
    let (to, mut from) = mpsc::channel::<Bytes>(PIECES);
    let exporting = tokio::spawn(async move { capstan_export::export(&view, &what, &to).await });
    while let Some(piece) = from.recv().await {
        file.write(&piece)?;
    }
    let report = exporting
        .await
        .map_err(|error| Failure::caused_by(FailureKind::Other, "the export crashed", error))??;
    file.finish()?;
    tell(&report, path);
    report.failure().map_or(Ok(()), Err)
}

async fn from_server(
    server: &str,
    request: &ExportRequest,
    remarks: &[String],
    path: &Path,
) -> Result<(), Failure> {
    let client = Client::connect(server).await?;
    let mut pieces = client.export(request).await?;
    let mut file = Target::create(path)?;
    let mut ended = Ok(());
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => file.write(&piece)?,
            // The server has sent all readable packets, and the failure names the others.
            Err(failure) if file.is_ended() => ended = Err(failure),
            Err(failure) => return Err(failure),
        }
    }
    let written = file.finish()?;
    for remark in remarks {
        output::tell(&format!("  {remark}"));
    }
    output::tell(&format!("{} written to {}", bytes(written), shown(path)));
    ended
}

/// Reports on standard error what was written and what is missing: the file may be going to standard output.
fn tell(report: &Report, path: &Path) {
    output::tell(&format!(
        "{}, {} from {} written to {}",
        count(report.packets, "packet"),
        bytes(report.bytes),
        count(report.segments, "segment"),
        shown(path)
    ));
    for line in report.notes() {
        output::tell(&format!("  {}", output::name(&line)));
    }
}

fn shown(path: &Path) -> String {
    output::name(&path.display().to_string()).into_owned()
}

/// The destination of an export. A file gets its name only when it is whole.
struct Target {
    kind: Kind,
    bar: ProgressBar,
    written: u64,
    /// The last bytes.
    tail: Vec<u8>,
}

enum Kind {
    StandardOutput,
    /// Written beside its place, then renamed.
    File {
        file: File,
        partial: PathBuf,
        path: PathBuf,
    },
    /// A device or named pipe: written directly.
    Special(File, PathBuf),
}

impl Target {
    fn create(path: &Path) -> Result<Target, Failure> {
        let failed = |error| Failure::io(format!("cannot write {}", path.display()), error);
        let kind = if path.as_os_str() == "-" {
            Kind::StandardOutput
        } else if path.metadata().is_ok_and(|about| !about.is_file()) {
            let file = File::options().write(true).open(path).map_err(failed)?;
            Kind::Special(file, path.to_owned())
        } else {
            let mut partial = path.as_os_str().to_owned();
            partial.push(".partial");
            let partial = PathBuf::from(partial);
            let file = File::create(&partial).map_err(failed)?;
            Kind::File { file, partial, path: path.to_owned() }
        };
        let bar = output::byte_bar(None);
        bar.set_prefix("exporting");
        Ok(Target { kind, bar, written: 0, tail: Vec::new() })
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), Failure> {
        match &mut self.kind {
            Kind::StandardOutput => output::written(std::io::stdout().write_all(piece))?,
            Kind::File { file, path, .. } | Kind::Special(file, path) => file
                .write_all(piece)
                .map_err(|error| Failure::io(format!("cannot write {}", path.display()), error))?,
        }
        self.written += piece.len() as u64;
        let last = piece.len().saturating_sub(LAST_BLOCK);
        self.tail.extend_from_slice(piece.get(last..).unwrap_or_default());
        self.tail.drain(..self.tail.len().saturating_sub(LAST_BLOCK));
        self.bar.set_position(self.written);
        Ok(())
    }

    /// Whether it was written to its end, and says so.
    fn is_ended(&self) -> bool {
        capstan_export::is_ended(&self.tail)
    }

    fn finish(mut self) -> Result<u64, Failure> {
        match &self.kind {
            Kind::StandardOutput => output::written(std::io::stdout().flush())?,
            Kind::Special(..) => {}
            Kind::File { partial, path, .. } => {
                std::fs::rename(partial, path).map_err(|error| {
                    Failure::io(format!("cannot write {}", path.display()), error)
                })?;
                // Renamed: nothing is left to clean up.
                self.kind = Kind::StandardOutput;
            }
        }
        Ok(self.written)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        if let Kind::File { partial, .. } = &self.kind {
            // An incomplete file is removed.
            let _ = std::fs::remove_file(partial);
        }
    }
}
