//! One module a subcommand.

pub(crate) mod export;
pub(crate) mod files;
pub(crate) mod import;
pub(crate) mod record;
pub(crate) mod status;
mod window;
