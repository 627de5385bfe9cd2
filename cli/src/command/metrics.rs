//! The metrics of a recorder over HTTP: `--metrics`.

use std::future::pending;
use std::sync::Arc;

use capstan_ingest::metrics::RecorderMetrics;
use capstan_model::metrics::MetricsText;
use capstan_model::{Failure, FailureKind};
use capstan_query_server::http;
use capstan_query_server::listen::{Hosts, Listener, Rules};
use capstan_storage_engine::store::{self, Store};
use clap::builder::NonEmptyStringValueParser;
use tokio::runtime::Runtime;

use super::bind::{addresses, bind};
use crate::output;
use crate::settings::Settings;

/// Where the recorder of `capstan up` serves its metrics unless said otherwise.
pub(super) const METRICS_OF_UP: &str = "127.0.0.1:32090";

const HINT: &str = "--metrics chooses another port";

/// Where a recorder serves its metrics.
#[derive(Debug, clap::Args)]
pub(crate) struct MetricsPort {
    /// Listening address and port of the recorder's metrics; port 0 picks one
    /// [default: none for record, 127.0.0.1:32090 for up]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = NonEmptyStringValueParser::new())]
    metrics: Option<String>,
}

impl MetricsPort {
    /// Takes the port, if one is set. It may be on any address, and requests may name any host: metrics have no packets
    /// and no names. The usual port may be in use, for example by another recorder; then there are no metrics, and a warning.
    pub(super) async fn listen(
        &self,
        settings: &Settings,
        usual: Option<&str>,
    ) -> Result<Option<Listener>, Failure> {
        let set = self.metrics.as_deref().or(settings.record.metrics.as_deref());
        let Some(place) = set.or(usual) else { return Ok(None) };
        match bind(place, &addresses(place, HINT).await?, HINT).await {
            Ok(socket) => Ok(Some(Listener::new(socket, Rules::new(Hosts::any(), None)))),
            Err(failure) if set.is_none() && failure.kind() == FailureKind::AlreadyThere => {
                tracing::warn!(%failure, "this recorder serves no metrics");
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Serves metrics until the process ends. Says where.
pub(super) fn serve(
    listener: Option<Listener>,
    store: &Store,
    metrics: &Arc<RecorderMetrics>,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let Some(listener) = listener else { return Ok(()) };
    output::tell(&format!("metrics at http://{}/metrics", listener.address()?));
    let (store, metrics) = (store.clone(), Arc::clone(metrics));
    let write = move || {
        let mut text = MetricsText::default();
        metrics.write(store::now(), &mut text);
        store.write_metrics(&mut text);
        text
    };
    runtime.spawn(http::serve_metrics(listener, Arc::new(write), pending()));
    Ok(())
}
