//! One statement of a commit.
//!
//! Recorders commit segments, coverage and losses. A maintenance process may later commit a *change* of a segment:
//! added or retired layers, segments that replace it, pins. A segment's entry itself never changes; its current state
//! is [derived](super::SegmentState).
//!
//! A new kind of fact is a variant here. Versions that do not know a kind keep it and roll it up with the rest: the
//! fact itself lists its slots.

use std::fmt;

use capstan_model::coverage::{Listened, Loss};
use capstan_model::words::count;
use capstan_model::{Time, TimeRange};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::segment_entry::{LayerEntry, SegmentEntry};
use super::slot::TimeSlot;

/// A statement of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// A segment whose layers are all in the store.
    Segment(SegmentEntry),
    /// A time range and place of capture (coverage).
    Listened(Listened),
    /// A loss.
    Loss(Loss),
    /// A change of a segment.
    Change(Change),
    /// A fact of a kind that this version does not know.
    Unknown(Unknown),
}

/// A change of a segment, kept in all slots of the segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The segment's name.
    pub segment: String,
    /// The slots that its entry is kept in.
    pub slots: Vec<TimeSlot>,
    /// Time, by the clock of the committing process.
    pub at: Time,
    /// The change.
    #[serde(flatten)]
    pub what: What,
}

/// The kinds of changes. Their names are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum What {
    /// A layer was added.
    LayerAdded {
        /// Its object, which is in the store.
        layer: LayerEntry,
    },
    /// Layers may be deleted: readers no longer use them.
    LayersRetired {
        /// Their objects, as they were committed.
        layers: Vec<LayerEntry>,
        /// The reason, as text.
        why: String,
    },
    /// Other segments hold all data of this segment.
    Replaced {
        /// Their names.
        by: Vec<String>,
    },
    /// No layer of it may be retired.
    Pinned {
        /// The name of the pin, unique.
        pin: String,
        /// End of the pin; none = until it is removed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Time>,
    },
    /// A pin was removed.
    Unpinned {
        /// Its name.
        pin: String,
    },
}

/// The names of the kinds of changes that this version knows.
const CHANGES: [&str; 5] = ["layer-added", "layers-retired", "replaced", "pinned", "unpinned"];

/// A fact of a newer version: an object with `kind` and `slots`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The slots that it belongs to.
    pub slots: Vec<TimeSlot>,
    /// All fields of the object.
    fields: Map<String, Value>,
}

impl Unknown {
    /// Name of the kind.
    pub fn kind(&self) -> &str {
        self.fields.get("kind").and_then(Value::as_str).unwrap_or_default()
    }
}

impl Serialize for Unknown {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.fields.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Unknown {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(from)?;
        if !fields.get("kind").is_some_and(Value::is_string) {
            return Err(D::Error::missing_field("kind"));
        }
        let slots = fields.get("slots").ok_or_else(|| D::Error::missing_field("slots"))?;
        let slots = Vec::deserialize(slots).map_err(D::Error::custom)?;
        Ok(Unknown { slots, fields })
    }
}

/// The kind of facts in a part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holds {
    /// Any facts. Every query reads them: segments that the filter does not cover. Versions before
    /// [`Holds::Segments`] wrote all facts into such parts.
    #[default]
    Both,
    /// Only segments: queries for other addresses skip it, see
    /// [`Manifest::address_filter`](super::manifest::Manifest::address_filter).
    Segments,
    /// No segments: hashes of commits, coverage and losses.
    Statements,
}

impl Holds {
    /// Suffix of the names of such parts.
    pub fn name(self) -> &'static str {
        match self {
            Holds::Both => "both",
            Holds::Segments => "segments",
            Holds::Statements => "statements",
        }
    }

    pub(super) fn is_both(&self) -> bool {
        *self == Holds::Both
    }
}

/// A fact in its stored form: only the content, as its list tells the kind.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Bare<'a> {
    Segment(&'a SegmentEntry),
    Listened(&'a Listened),
    Loss(&'a Loss),
    Change(&'a Change),
    Unknown(&'a Unknown),
}

impl<'a> Bare<'a> {
    /// The stored form of a fact.
    pub(crate) fn of(fact: &'a Fact) -> Bare<'a> {
        match fact {
            Fact::Segment(entry) => Bare::Segment(entry),
            Fact::Listened(listened) => Bare::Listened(listened),
            Fact::Loss(loss) => Bare::Loss(loss),
            Fact::Change(change) => Bare::Change(change),
            Fact::Unknown(unknown) => Bare::Unknown(unknown),
        }
    }
}

impl Fact {
    /// Parses a fact that is neither a segment nor coverage nor a loss.
    ///
    /// # Errors
    /// It has no kind or no slots, or a known kind lacks a field.
    pub(crate) fn of_json(value: Value) -> Result<Fact, serde_json::Error> {
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
        if CHANGES.contains(&kind) {
            return Change::deserialize(value).map(Fact::Change);
        }
        Unknown::deserialize(value).map(Fact::Unknown)
    }

    /// The slots of the fact: at least one, except for a fact of a newer version that names none.
    pub fn slots(&self) -> Vec<TimeSlot> {
        match self {
            Fact::Segment(entry) => entry.slots(),
            Fact::Listened(listened) => TimeSlot::of_range(&listened.range),
            Fact::Loss(loss) => TimeSlot::of_range(&loss.range),
            Fact::Change(change) => change.slots.clone(),
            Fact::Unknown(unknown) => unknown.slots.clone(),
        }
    }

    /// The earliest and the latest time of the fact; none if it has no time, or its time is unknown.
    pub fn span(&self) -> Option<(Time, Time)> {
        let of_range = |range: &TimeRange| Some((range.start, range.end));
        match self {
            Fact::Segment(entry) => entry.first.zip(entry.last),
            Fact::Listened(listened) => of_range(&listened.range),
            Fact::Loss(loss) => of_range(&loss.range),
            Fact::Change(_) | Fact::Unknown(_) => None,
        }
    }

    /// The kind of part that the fact moves into. Changes go where every query reads them: otherwise a segment
    /// without layers would look whole.
    pub(crate) fn holds(&self) -> Holds {
        match self {
            Fact::Segment(entry) if entry.address_filter.is_some() => Holds::Segments,
            Fact::Segment(_) | Fact::Change(_) | Fact::Unknown(_) => Holds::Both,
            Fact::Listened(_) | Fact::Loss(_) => Holds::Statements,
        }
    }

    /// Whether versions before this one would misread a catalog with this fact.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self, Fact::Change(_) | Fact::Unknown(_))
    }

    /// Distinguishes the fact from all others of its commit: the name of a segment, or the statement as JSON.
    pub fn identity(&self) -> String {
        match self {
            Fact::Segment(entry) => entry.name.clone(),
            // JSON cannot fail here: the keys of all maps are strings.
            other => serde_json::to_string(&Bare::of(other)).unwrap_or_default(),
        }
    }

    /// The segment, if it is one.
    pub fn segment(&self) -> Option<&SegmentEntry> {
        match self {
            Fact::Segment(entry) => Some(entry),
            _ => None,
        }
    }

    /// The change, if it is one.
    pub fn change(&self) -> Option<&Change> {
        match self {
            Fact::Change(change) => Some(change),
            _ => None,
        }
    }
}

/// Display form for operators: the name of a segment, or the statement.
impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Segment(entry) => f.write_str(&entry.name),
            Fact::Listened(of) => write!(f, "coverage from {} to {}", of.range.start, of.range.end),
            Fact::Loss(of) => {
                let (start, end) = (of.range.start, of.range.end);
                write!(f, "loss of {} from {start} to {end}", count(of.packets, "packet"))
            }
            Fact::Change(change) => change.fmt(f),
            Fact::Unknown(unknown) => write!(f, "fact of kind {}", unknown.kind()),
        }
    }
}

/// Display form for operators.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segment = &self.segment;
        match &self.what {
            What::LayerAdded { layer } => write!(f, "layer {} added to {segment}", layer.layer),
            What::LayersRetired { layers, .. } => {
                let names: Vec<&str> = layers.iter().map(|layer| layer.layer.as_str()).collect();
                write!(f, "layers {} of {segment} retired", names.join(", "))
            }
            What::Replaced { by } => write!(f, "{segment} replaced by {}", by.join(", ")),
            What::Pinned { pin, .. } => write!(f, "{segment} pinned by {pin}"),
            What::Unpinned { pin } => write!(f, "{segment} no longer pinned by {pin}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use capstan_model::Hour;
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_stored_with_their_kind() {
        let layer = LayerEntry::new("body", 7, "ab");
        let stored = json!({
            "kind": "layers-retired", "segment": "s", "slots": ["date=1970-01-01/hour=00"], "at": 5,
            "layers": [{"layer": "body", "bytes": 7, "sha256": "ab"}], "why": "older than 7 d",
        });
        let fact = Fact::of_json(stored.clone()).unwrap();
        let expected = Change {
            segment: "s".to_owned(),
            slots: vec![TimeSlot::Hour(Hour(0))],
            at: Time(5),
            what: What::LayersRetired { layers: vec![layer], why: "older than 7 d".to_owned() },
        };
        assert_eq!(fact.change(), Some(&expected));
        assert_eq!(serde_json::to_value(expected).unwrap(), stored);
        for kind in CHANGES {
            let bare = json!({"kind": kind, "slots": []});
            assert!(Fact::of_json(bare).is_err(), "{kind} without a segment");
        }
    }

    #[test]
    fn unknown_facts_are_preserved() {
        let stored = json!({"kind": "named", "slots": ["wide"], "of": {"b": [1, null], "a": "x"}});
        let fact = Fact::of_json(stored.clone()).unwrap();
        let Fact::Unknown(unknown) = &fact else { panic!("{fact:?}") };
        assert_eq!((unknown.kind(), fact.slots()), ("named", vec![TimeSlot::Wide]));
        assert_eq!(serde_json::to_value(unknown).unwrap(), stored);
        for wrong in
            [json!({"kind": "x"}), json!({"slots": []}), json!({"kind": 1, "slots": []}), json!(7)]
        {
            assert!(Fact::of_json(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
