//! The identity of a commit.

use capstan_model::GenerationId;
use serde::{Deserialize, Serialize};

/// The identity of a commit: its generation and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CommitId {
    /// The generation that owns the log.
    pub of: GenerationId,
    /// Its number in that log.
    pub seq: u64,
}
