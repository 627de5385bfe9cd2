//! Findings: the possible faults of an object.

use std::fmt;

use capstan_model::FailureKind;
use capstan_model::failure::with_causes;
use capstan_model::words::count;

use crate::catalog::Problem;
use crate::segment::Layer;

/// Severity of a finding, ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// No recorded data is missing.
    Note,
    /// A newer version may be able to read it.
    TooNew,
    /// Some bytes differ from the written ones.
    Damaged,
    /// Recorded data is gone.
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

    /// The failure of a check whose worst finding this is; none for a note.
    pub fn failure(self) -> Option<FailureKind> {
        match self {
            Severity::Note => None,
            Severity::TooNew => Some(FailureKind::TooNew),
            Severity::Damaged | Severity::Lost => Some(FailureKind::Damaged),
        }
    }
}

/// A fault of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object's name, below the cluster.
    pub object: String,
    /// The fault.
    pub what: What,
}

/// The kinds of faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A named layer does not exist.
    Missing(Layer),
    /// A layer's length differs from the committed length.
    Length {
        /// The layer.
        layer: Layer,
        /// Actual length.
        found: u64,
        /// Committed length.
        committed: u64,
    },
    /// Bytes of a layer differ from the written ones.
    Changed {
        /// The layer.
        layer: Layer,
        /// The places, as text.
        places: String,
    },
    /// An `index` layer, or the directory of an added layer, is unusable, although its bytes match the committed ones,
    /// or nearly.
    Unusable {
        /// The layer.
        layer: Layer,
        /// The reason.
        why: String,
        /// A newer version may be able to use it.
        too_new: bool,
    },
    /// A fault of a catalog object.
    Catalog {
        /// The fault, as text.
        problem: String,
        /// How bad it is.
        severity: Severity,
    },
    /// No commit names the object.
    Orphan {
        /// Its length.
        bytes: u64,
        /// It is less than a day old, so it may belong to an upload in progress.
        young: bool,
    },
    /// Capstan does not create such objects.
    Foreign,
}

impl Finding {
    /// A finding about a log. `is_rolled_up`: manifests have the facts of the object. `is_replaced`: a repair has
    /// named its segments again.
    pub fn of_log(problem: &Problem, is_rolled_up: bool, is_replaced: bool) -> Finding {
        let severity = match problem {
            _ if is_replaced => Severity::Note,
            Problem::TooNew { .. } | Problem::Checkpoint { is_newer: true, .. } => Severity::TooNew,
            Problem::Missing { .. } if is_rolled_up => Severity::Note,
            Problem::Missing { .. } => Severity::Lost,
            Problem::Damaged { .. }
            | Problem::Changed { .. }
            | Problem::Broken { .. }
            | Problem::NoWriter { .. }
            | Problem::Checkpoint { is_newer: false, .. } => Severity::Damaged,
        };
        let mut words = with_causes(problem);
        if is_replaced {
            words += "; a repair has named its segments again";
        } else if is_rolled_up {
            words += "; its facts are rolled up, so nothing is lost";
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
            What::Unusable { too_new: true, .. } => Severity::TooNew,
            What::Unusable { .. } => Severity::Damaged,
            What::Catalog { severity, .. } => *severity,
            What::Orphan { .. } | What::Foreign => Severity::Note,
        }
    }

    /// The part of the segment that stays readable, as text; none if that does not apply.
    pub fn readable(&self) -> Option<&'static str> {
        let (layer, whole) = match &self.what {
            What::Missing(layer) | What::Unusable { layer, .. } => (*layer, true),
            What::Length { layer, .. } | What::Changed { layer, .. } => (*layer, false),
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
            (Layer::Added(_), true) => "all other layers",
            (Layer::Added(_), false) => "all but the rows in the damaged pages",
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
                write!(
                    f,
                    "{}: its length is {found} instead of the committed {committed}",
                    self.object
                )
            }
            What::Changed { places, .. } => {
                write!(f, "{}: its bytes differ from the written ones: {places}", self.object)
            }
            What::Unusable { why, .. } => write!(f, "{}: {why}", self.object),
            // These texts name their object.
            What::Catalog { problem, .. } => f.write_str(problem),
            What::Orphan { bytes, young: true } => write!(
                f,
                "{}: orphan of {}: an upload in progress, or one that was interrupted less than a \
                 day ago",
                self.object,
                count(*bytes, "byte")
            ),
            What::Orphan { bytes, young: false } => {
                write!(f, "{}: orphan of {}", self.object, count(*bytes, "byte"))
            }
            What::Foreign => write!(f, "{}: not an object of Capstan", self.object),
        }
    }
}
