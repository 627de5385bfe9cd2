//! The server process of `capstan up`: the same command, with its listening sockets as standard input and
//! output.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::process::parent_id;

use capstan_model::{Failure, FailureKind};
use capstan_query_server::listen::Listener;
use capstan_query_server::sessions::Options;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::super::serve::{self, Listening};
use super::{Arguments, STORE};
use crate::interrupt;
use crate::process::die_with_parent;
use crate::settings::Settings;

/// Names the recorder's process to the server's.
pub(super) const PARENT: &str = "CAPSTAN_UP_RECORDER";

/// Added to the server's out-of-memory score, of 1,000: the kernel kills it before others.
const SOONER: i32 = 500;

/// The recorder's process, if this one is its server.
pub(super) fn parent() -> Option<u32> {
    let named = std::env::var(PARENT).ok()?.parse().ok()?;
    // The variable may be set by chance: only a real parent matches.
    (parent_id() == named).then_some(named)
}

/// Serves until the recorder requests a stop, or is gone.
pub(super) fn run(
    arguments: &Arguments,
    settings: &Settings,
    runtime: &Runtime,
    parent: u32,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io("the server cannot be set up", error);
    die_with_parent().map_err(failed)?;
    if parent_id() != parent {
        return Err(Failure::new(FailureKind::Interrupted, "the recorder has ended"));
    }
    go_first();
    let flight = inherited(&std::io::stdin()).map_err(failed)?;
    let http = inherited(&std::io::stdout()).map_err(failed)?;
    let (stop, stopped) = watch::channel(false);
    interrupt::watch(runtime, "answers in progress are incomplete", move || {
        stop.send_replace(true);
    })?;
    let cache = arguments.keeping.memory_mib(settings);
    let (limits, shares) = arguments.limits.of_server(settings, cache)?;
    runtime.block_on(async {
        let rules = arguments.ports.rules(settings)?;
        let listener = |socket| {
            let socket = tokio::net::TcpListener::from_std(socket).map_err(failed)?;
            Ok::<_, Failure>(Listener::new(socket, rules.clone()))
        };
        let (flight, http) = (listener(flight)?, listener(http)?);
        let store = settings.open_or_create(Some(STORE)).await?;
        let cache = arguments.keeping.open(settings, shares.cache).await?;
        let opened_memory = shares.opened;
        let options = Options { cache, limits, opened_memory, ..Options::default() };
        serve::serve(Listening { flight, http }, store, options, stopped).await
    })
}

fn inherited(place: &impl AsFd) -> std::io::Result<TcpListener> {
    let listener = TcpListener::from(place.as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    // Fails if it is no socket.
    listener.local_addr().map(|_| listener)
}

/// Asks the kernel to end this process before the recorder, if it has to end one.
fn go_first() {
    const PLACE: &str = "/proc/self/oom_score_adj";
    let now: Option<i32> =
        std::fs::read_to_string(PLACE).ok().and_then(|text| text.trim().parse().ok());
    let sooner = now.unwrap_or(0).saturating_add(SOONER).min(1_000);
    if let Err(error) = std::fs::write(PLACE, sooner.to_string()) {
        tracing::info!(%error, "cannot set oom_score_adj: the kernel may end the recorder before \
                                the server");
    }
}
