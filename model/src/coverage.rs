//! What was listened to and what was lost: coverage is positive. Where nothing
//! says "listened", the answer is *unknown*, never *nothing happened*.

use serde::{Deserialize, Serialize};

use crate::time::{Time, TimeRange};

/// A stretch of time during which interfaces were listened to, also if no packet came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listened {
    /// From the first moment to (not including) the last.
    pub range: TimeRange,
    /// The interfaces, by number in the recorder's generation.
    pub interfaces: Vec<u32>,
}

/// Why packets or bytes are missing. The names are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossCause {
    /// The kernel had no room in the capture ring.
    KernelDrop,
    /// The source itself says that it dropped packets (pcapng statistics).
    SourceDrop,
    /// The source is damaged from some byte on.
    SourceDamaged,
}

/// Something that is missing inside what was listened to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// When, as closely as it is known.
    pub range: TimeRange,
    /// Where, by number in the recorder's generation; none if it cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<u32>,
    /// Why.
    pub cause: LossCause,
    /// Packets lost; 0 if it cannot be told.
    pub packets: u64,
    /// Bytes lost; 0 if it cannot be told.
    pub bytes: u64,
    /// What was met, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Loss {
    /// Whether something of it is missing in a range. One at a single moment has a range of one
    /// nanosecond or none.
    pub fn touches(&self, range: &TimeRange) -> bool {
        let last = Time(self.range.end.0.saturating_sub(1)).max(self.range.start);
        range.is_all() || range.touches(self.range.start, last)
    }
}

impl LossCause {
    /// The name in commits, SQL and messages.
    pub fn name(self) -> &'static str {
        match self {
            LossCause::KernelDrop => "kernel-drop",
            LossCause::SourceDrop => "source-drop",
            LossCause::SourceDamaged => "source-damaged",
        }
    }
}
