//! What can be wrong with an object.

use std::fmt;

use capstan_model::FailureKind;
use capstan_model::failure::with_causes;
use capstan_model::words::count;

use crate::catalog::Problem;
use crate::segment::Layer;

/// How bad it is, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing that was recorded is missing.
    Note,
    /// A newer version may read it.
    TooNew,
    /// Some bytes are not those that were written.
    Damaged,
    /// Something that was recorded is gone.
    Lost,
}

impl Severity {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::TooNew => "too new",
            Severity::Damaged => "damaged",
            Severity::Lost => "lost",
        }
    }

    /// How a check ends whose worst finding this is; none if all is well.
    pub fn failure(self) -> Option<FailureKind> {
        match self {
            Severity::Note => None,
            Severity::TooNew => Some(FailureKind::TooNew),
            Severity::Damaged | Severity::Lost => Some(FailureKind::Damaged),
        }
    }
}

/// Something about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object's name, below the cluster.
    pub object: String,
    /// What is wrong with it.
    pub what: What,
}

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A layer that the catalog names is not there.
    Missing(Layer),
    /// A layer has another length than was committed.
    Length {
        /// Which.
        layer: Layer,
        /// Bytes that there are.
        found: u64,
        /// Bytes that were committed.
        committed: u64,
    },
    /// Bytes of a layer are not those that were written.
    Changed {
        /// Which.
        layer: Layer,
        /// Where, in words.
        places: String,
    },
    /// An `index` layer cannot be used, though its bytes are those that were committed or nearly.
    Index {
        /// Why not.
        why: String,
        /// A newer version may.
        too_new: bool,
    },
    /// An object of the catalog.
    Catalog {
        /// What is wrong with it.
        problem: String,
        /// How bad it is.
        severity: Severity,
    },
    /// No commit names it.
    Orphan {
        /// Its length.
        bytes: u64,
        /// It may belong to an upload that goes on: it was put there less than a day ago.
        young: bool,
    },
    /// It is nothing that Capstan puts there.
    Foreign,
}

impl Finding {
    /// What a log says of itself. `is_rolled_up`: what the object said is in manifests, too. `is_replaced`: a
    /// repair has named again what it named.
    pub fn of_log(problem: &Problem, is_rolled_up: bool, is_replaced: bool) -> Finding {
        let severity = match problem {
            _ if is_replaced => Severity::Note,
            Problem::TooNew { .. } => Severity::TooNew,
            Problem::Missing { .. } if is_rolled_up => Severity::Note,
            Problem::Missing { .. } => Severity::Lost,
            _ => Severity::Damaged,
        };
        let mut words = with_causes(problem);
        if is_replaced {
            words += "; a repair has named again what it named";
        } else if is_rolled_up {
            words += "; what it said is rolled up, so nothing is lost";
        }
        Finding {
            object: problem.object().to_owned(),
            what: What::Catalog { problem: words, severity },
        }
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match &self.what {
            What::Missing(_) => Severity::Lost,
            What::Length { .. } | What::Changed { .. } => Severity::Damaged,
            What::Index { too_new: true, .. } => Severity::TooNew,
            What::Index { .. } => Severity::Damaged,
            What::Catalog { severity, .. } => *severity,
            What::Orphan { .. } | What::Foreign => Severity::Note,
        }
    }

    /// What of the segment can be read all the same, for people; none where that is no question.
    pub fn readable(&self) -> Option<&'static str> {
        let (layer, whole) = match &self.what {
            What::Missing(layer) => (*layer, true),
            What::Length { layer, .. } | What::Changed { layer, .. } => (*layer, false),
            What::Index { .. } => (Layer::Index, true),
            What::Catalog { .. } | What::Orphan { .. } | What::Foreign => return None,
        };
        Some(match (layer, whole) {
            (Layer::Body, true) => "all but the payload past the first 16 KiB of each flow",
            (Layer::Body, false) => "all but the payload in the damaged blocks",
            (Layer::Head, true) => "all but the first 16 KiB of payload of each flow",
            (Layer::Head, false) => "all but the payload in the damaged blocks",
            (Layer::Packets, true) => "flows and their counters, but no packet",
            (Layer::Packets, false) => "all but the packets in the damaged pages",
            (Layer::Flows, true) => "packets.parquet, by programs that read Parquet",
            (Layer::Flows, false) => "all but the flows in the damaged pages and their packets",
            (Layer::Index, _) => "packets.parquet and flows.parquet, by programs that read Parquet",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Missing(layer) => {
                write!(f, "{}: the {} layer is missing", self.object, layer.name())
            }
            What::Length { found, committed, .. } => {
                write!(f, "{}: its length is {found} and {committed} was committed", self.object)
            }
            What::Changed { places, .. } => {
                write!(f, "{}: not what was written: {places}", self.object)
            }
            What::Index { why, .. } => write!(f, "{}: {why}", self.object),
            // These name their object.
            What::Catalog { problem, .. } => f.write_str(problem),
            What::Orphan { bytes, young: true } => write!(
                f,
                "{}: {} that no commit names: of an upload that goes on, or of one that \
                 was broken off less than a day ago",
                self.object,
                count(*bytes, "byte")
            ),
            What::Orphan { bytes, young: false } => {
                write!(f, "{}: {} that no commit names", self.object, count(*bytes, "byte"))
            }
            What::Foreign => write!(f, "{}: nothing that Capstan puts there", self.object),
        }
    }
}
