//! SQL and PCAPNG over Arrow Flight: what analysts' tools, BI drivers and the
//! command line's `--server` speak.
//!
//! * [`serve()`] answers on a listener; what it answers *from* is a [`Sessions`]
//! * [`client`] is the other end
//! * `gate` takes every Flight call, `service` the Flight SQL commands among them
//! * `statement` plans and runs SQL, `limits` says how large a statement may grow, `rewrite` helps the
//!   engine to plan it, `handle` is what tickets and prepared handles carry, `metadata` lists catalogs,
//!   tables, types
//! * `wire` turns results into messages of bounded size, `status` errors into words
//! * [`export`] is the request for a PCAPNG file
//!
//! Nothing is kept between two calls: a ticket or a prepared handle carries the
//! SQL text and the bound parameters, so any server over the same store can
//! answer the next call, and a restart loses nothing.
//!
//! There is no authentication: whoever reaches the port can read what the store
//! holds. A handshake is refused with words, so that nobody takes a password for
//! protection. Access control will enter at two places: the `gate` (who is
//! calling, from the request's `authorization` header) and [`Sessions`] (what
//! that caller's tables show).

pub mod client;
pub mod export;
mod gate;
mod handle;
mod limits;
pub mod local;
mod metadata;
mod rewrite;
mod serve;
mod service;
mod statement;
mod status;
#[cfg(test)]
mod tests;
mod wire;

use async_trait::async_trait;
use bytes::Bytes;
use capstan_model::Failure;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::stream::BoxStream;

pub use export::ExportRequest;
pub use serve::{GRACE, serve};

use crate::questions::Questions;

/// The catalog the tables are in.
pub const CATALOG: &str = "capstan";
/// The schema the tables are in.
pub const SCHEMA: &str = "public";

/// Where answers come from.
#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// A context with the tables as they are now, built on [`session_config`].
    ///
    /// Called once for each statement, so the tables of one statement are of one
    /// moment. The memory a query may take is the context's memory pool; it must
    /// be shared between contexts for the server as a whole to be bounded.
    async fn session(&self) -> Result<SessionContext, Failure>;

    /// What runs statements.
    fn questions(&self) -> &Questions;

    /// The bytes of a PCAPNG file, in order. A failure ends the stream, and the
    /// caller is told that the file is not whole.
    ///
    /// Dropping the stream stops the work behind it.
    async fn export(
        &self,
        request: ExportRequest,
    ) -> Result<BoxStream<'static, Result<Bytes, Failure>>, Failure>;
}

/// The configuration that Flight clients count on: catalog and schema names,
/// `information_schema` and `SHOW TABLES`, times in UTC.
pub fn session_config() -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_information_schema(true);
    config.options_mut().execution.time_zone = Some("+00:00".to_owned());
    config
}
