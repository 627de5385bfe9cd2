//! SQL and PCAPNG over Arrow Flight: the protocol of analysts' tools, BI drivers and the command line's
//! `--server`.
//!
//! * [`serve()`] serves a listener; the answers come from a [`Sessions`]
//! * [`client`] is the client side
//! * `gate` receives every Flight call, `service` the Flight SQL commands among them
//! * `statement` plans and runs SQL, `limits` bounds the size of a statement, `rewrite` changes statements for
//!   the engine, `handle` is the contents of tickets and prepared handles, `metadata` lists catalogs, tables,
//!   types
//! * `wire` encodes results as messages of bounded size, `status` encodes errors
//! * `notes` says what an answer lacks although nothing failed
//! * [`export`] is the request for a PCAPNG file
//!
//! The server is stateless between calls: a ticket or a prepared handle carries the SQL text and the bound
//! parameters. So any server over the same store can answer the next call, and a restart loses nothing.
//!
//! There is no authentication: all callers of a server are the one [`Principal`] it was started for. A handshake is
//! refused with an explanation, so that a password does not seem to protect anything. The `gate` will tell callers
//! apart (by the request's `authorization` header); [`Sessions`] takes the principal of each question.

pub mod client;
pub mod export;
mod gate;
mod handle;
mod limits;
pub mod local;
mod metadata;
mod notes;
mod rewrite;
mod serve;
mod service;
mod statement;
mod status;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use capstan_model::Failure;
use capstan_view::access::Principal;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::stream::BoxStream;

pub use export::ExportRequest;
pub use notes::{NOTES, Notes};
pub use serve::{GRACE, serve};

use crate::questions::Questions;

/// The catalog the tables are in.
pub const CATALOG: &str = "capstan";
/// The schema the tables are in.
pub const SCHEMA: &str = "public";

/// The source of answers.
#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// A context with the current tables as a principal sees them, built on [`session_config`].
    ///
    /// Called once for each statement, so the tables of one statement show the same moment. The memory limit of
    /// a query is the context's memory pool; contexts must share it to bound the server as a whole.
    async fn session(&self, who: &Arc<Principal>) -> Result<SessionContext, Failure>;

    /// Runs the statements.
    fn questions(&self) -> &Questions;

    /// The bytes of a PCAPNG file with the packets that a principal may see, in order. A failure ends the stream, and the caller gets the error that the
    /// file is incomplete.
    ///
    /// Dropping the stream cancels the work behind it.
    async fn export(
        &self,
        who: &Arc<Principal>,
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
