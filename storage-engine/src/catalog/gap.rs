//! Gaps: catalog objects that cannot be used, and the questions that they affect.
//!
//! A *gap* hides facts: an answer that it touches may lack rows, and must say so. A fault that hides nothing is a
//! note, not a gap (an example: an older root was used and the logs have the rest).
//!
//! This module is pure.

use std::fmt;

use capstan_model::{Failure, FailureKind, TimeRange};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::commit_id::CommitId;
use super::slot::TimeSlot;
use crate::catalog::names;
use crate::store::is_store_gone;

/// An unusable catalog object that hides facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Its name, below the cluster.
    pub object: String,
    /// The reason.
    pub kind: GapKind,
    /// The times of the hidden facts.
    pub about: About,
    /// The fault, as text that names the object.
    pub what: String,
}

/// Why a catalog object cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapKind {
    /// A newer version wrote it, and may be able to read it.
    TooNew,
    /// Its bytes differ from the written ones.
    Damaged,
    /// It does not exist.
    Missing,
}

impl GapKind {
    /// Its name, as stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            GapKind::TooNew => "too-new",
            GapKind::Damaged => "damaged",
            GapKind::Missing => "missing",
        }
    }

    /// The kind for a failure to read an object; none if the object itself may be usable.
    pub(crate) fn of(failure: &Failure) -> Option<GapKind> {
        match failure.kind() {
            FailureKind::Damaged => Some(GapKind::Damaged),
            FailureKind::NotFound if !is_store_gone(failure) => Some(GapKind::Missing),
            FailureKind::TooNew => Some(GapKind::TooNew),
            _ => None,
        }
    }
}

/// The times of hidden facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// The times are unknown: every question is affected.
    AnyTime,
    /// Times of this range.
    Times(TimeRange),
    /// Packets without a time: questions about all of time are affected.
    NoTime,
}

impl About {
    /// The times of a slot.
    pub(crate) fn slot(slot: TimeSlot) -> About {
        match slot {
            TimeSlot::Wide => About::AnyTime,
            TimeSlot::Hour(hour) => hour.range().map_or(About::NoTime, About::Times),
        }
    }

    /// Whether a question about a range is affected.
    pub fn touches(self, asked: &TimeRange) -> bool {
        match self {
            About::AnyTime => true,
            About::NoTime => asked.is_all(),
            About::Times(range) => asked.is_all() || range.intersect(asked).is_some(),
        }
    }

    /// The time range, if it is known.
    pub fn range(self) -> Option<TimeRange> {
        match self {
            About::Times(range) => Some(range),
            About::AnyTime | About::NoTime => None,
        }
    }
}

impl Gap {
    /// A gap of an object; `what` describes the fault.
    pub(crate) fn new(object: &Path, kind: GapKind, about: About, what: String) -> Gap {
        Gap { object: object.to_string(), kind, about, what }
    }

    /// The commit that is unusable; none if the object is not a commit.
    pub fn commit(&self) -> Option<CommitId> {
        names::parse_commit(&Path::from(self.object.as_str()))
    }

    /// The kind of failure of an answer that lacks the object.
    pub fn failure_kind(&self) -> FailureKind {
        match self.kind {
            GapKind::TooNew => FailureKind::TooNew,
            GapKind::Damaged | GapKind::Missing => FailureKind::Damaged,
        }
    }

    /// Parses the text that roots of earlier versions hold. For an unreadable commit it begins with the commit's
    /// name.
    pub(crate) fn of_words(words: &str) -> Option<Gap> {
        let (object, rest) = words.split_once(' ')?;
        names::parse_commit(&Path::from(object))?;
        let kind = if rest.starts_with("is damaged") || rest.starts_with("is not what was written")
        {
            GapKind::Damaged
        } else if rest.starts_with("is missing") {
            GapKind::Missing
        } else if rest.starts_with("was written by a newer version") {
            GapKind::TooNew
        } else {
            return None;
        };
        Some(Gap { object: object.to_owned(), kind, about: About::AnyTime, what: words.to_owned() })
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match self.about {
            About::AnyTime => f.write_str(" (times unknown)"),
            About::NoTime => f.write_str(" (packets without a time)"),
            About::Times(TimeRange { start, end }) => write!(f, " ({start} to {end})"),
        }
    }
}

#[cfg(test)]
mod harmed;

#[cfg(test)]
mod tests {
    use capstan_model::{HOUR_NANOS, Hour, Time};

    use super::*;

    #[test]
    fn gap_affects_only_queries_of_its_times() {
        let hour = |hour: i64| TimeRange {
            start: Time(hour * HOUR_NANOS),
            end: Time((hour + 1) * HOUR_NANOS),
        };
        for (about, first, second, all) in [
            (About::slot(TimeSlot::Hour(Hour(1))), false, true, true),
            (About::slot(TimeSlot::Hour(Hour::UNKNOWN)), false, false, true),
            (About::slot(TimeSlot::Wide), true, true, true),
        ] {
            let touched = [hour(0), hour(1), TimeRange::ALL].map(|asked| about.touches(&asked));
            assert_eq!(touched, [first, second, all], "{about:?}");
        }
    }

    #[test]
    fn gap_kinds_are_parsed_from_texts_of_earlier_roots() {
        let commit = names::commit(
            capstan_model::GenerationId::new(
                capstan_model::RecorderId(1),
                capstan_model::Generation(1),
            ),
            7,
        );
        for (rest, kind) in [
            ("is damaged: it cannot be read: EOF", Some(GapKind::Damaged)),
            ("is missing, though later commits of its log are there", Some(GapKind::Missing)),
            ("is not what was written: something in it is wrong", Some(GapKind::Damaged)),
            ("has no writer: its log is read, but not who wrote it", None),
        ] {
            let gap = Gap::of_words(&format!("{commit} {rest}"));
            assert_eq!(gap.map(|gap| gap.kind), kind, "{rest}");
        }
        assert_eq!(Gap::of_words("writers/0000000000000001/00000001 is damaged: x"), None);
        assert_eq!(Gap::of_words(""), None);
    }
}
