//! One module a subcommand.

mod asked;
mod bind;
mod cells;
pub(crate) mod export;
pub(crate) mod files;
pub(crate) mod import;
mod limited;
mod metrics;
pub(crate) mod record;
pub(crate) mod repair;
mod rollup;
mod selected;
pub(crate) mod serve;
pub(crate) mod sql;
pub(crate) mod status;
pub(crate) mod up;
pub(crate) mod verify;
mod window;
