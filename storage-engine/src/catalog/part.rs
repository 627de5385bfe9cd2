//! Parts: objects with facts of a slot that has too many for its manifest.

use capstan_model::Time;
use serde::{Deserialize, Serialize};

use super::fact::Holds;
use super::facts::Facts;
use super::slot::TimeSlot;

/// An object with facts: `catalog/<slot>/part-<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name, unique: a random value and [its kind](Holds::name).
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// Number of facts.
    pub facts: u64,
    /// Kind of the facts.
    #[serde(default, skip_serializing_if = "Holds::is_both")]
    pub holds: Holds,
    /// The earliest and the latest time of its facts; none if a fact has no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<(Time, Time)>,
}

impl Part {
    /// The common stem of the names of parts that were written together: they hold the facts of the same commits.
    pub(crate) fn stem(&self) -> &str {
        let own = self.name.strip_suffix(self.holds.name());
        own.and_then(|rest| rest.strip_suffix('-')).unwrap_or(&self.name)
    }
}

/// Content of a part's object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartContent {
    /// The format number: the lowest one whose readers read this part correctly.
    pub format: u32,
    /// The slot whose manifest names it.
    pub slot: TimeSlot,
    /// The facts. Indexes of contributors refer to the manifest.
    pub facts: Facts,
}
