//! Parts: objects with facts of a slot, when they are too many for its manifest.

use capstan_model::Time;
use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::slot::TimeSlot;

/// An object with facts: `catalog/<slot>/part-<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name, unique: drawn at random, and [what it holds](Holds::name).
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// How many facts it has.
    pub facts: u64,
    /// Which ones.
    #[serde(default, skip_serializing_if = "Holds::is_both")]
    pub holds: Holds,
    /// From the earliest to the latest time they are about; none if one is about no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<(Time, Time)>,
}

/// Which facts a part has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holds {
    /// Anything, which every question reads: segments that cannot be found by their addresses. Versions before
    /// [`Holds::Segments`] wrote all facts into such parts.
    #[default]
    Both,
    /// Segments only: passed over by who wants others, see [`Manifest::address_filter`](super::manifest::Manifest::address_filter).
    Segments,
    /// No segments: which commits there are, what was listened to and lost.
    Statements,
}

impl Holds {
    /// At the end of the names of such parts.
    pub fn name(self) -> &'static str {
        match self {
            Holds::Both => "both",
            Holds::Segments => "segments",
            Holds::Statements => "statements",
        }
    }

    fn is_both(&self) -> bool {
        *self == Holds::Both
    }
}

impl Part {
    /// What the names of parts have in common that were put together: they have the facts of the same
    /// commits.
    pub(crate) fn stem(&self) -> &str {
        let own = self.name.strip_suffix(self.holds.name());
        own.and_then(|rest| rest.strip_suffix('-')).unwrap_or(&self.name)
    }
}

/// What is in a part's object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartContent {
    /// The format number, [`FORMAT`](super::manifest::FORMAT).
    pub format: u32,
    /// The slot whose manifest names it.
    pub slot: TimeSlot,
    /// The facts. Contributors are the manifest's.
    pub facts: Facts,
}
