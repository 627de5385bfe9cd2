//! Rights: which kinds of questions a principal may ask.

use std::fmt;

/// One right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Right {
    /// Rows of flows and packets without payload, and coverage.
    FlowsRead,
    /// Payload: the columns `payload` and `data`, and everything in an export.
    PayloadRead,
    /// PCAPNG files.
    Export,
    /// What the catalog says about all flows together: segments, objects, writers, problems, status, metrics, costs.
    CatalogRead,
}

impl Right {
    /// All rights.
    pub const ALL: [Right; 4] =
        [Right::FlowsRead, Right::PayloadRead, Right::Export, Right::CatalogRead];

    /// Its name in configuration and in error messages.
    pub fn name(self) -> &'static str {
        match self {
            Right::FlowsRead => "flows:read",
            Right::PayloadRead => "payload:read",
            Right::Export => "export",
            Right::CatalogRead => "catalog:read",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rights(u8);

impl Rights {
    /// All rights.
    pub fn all() -> Rights {
        Rights::of(Right::ALL)
    }

    /// These rights.
    pub fn of(rights: impl IntoIterator<Item = Right>) -> Rights {
        Rights(rights.into_iter().fold(0, |bits, right| bits | right.bit()))
    }

    /// These rights but for one.
    #[must_use]
    pub fn without(self, right: Right) -> Rights {
        Rights(self.0 & !right.bit())
    }

    /// Whether it has a right.
    pub fn has(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_independent() {
        for right in Right::ALL {
            let others = Rights::all().without(right);
            assert!(!others.has(right), "{right}");
            assert!(Right::ALL.into_iter().all(|other| other == right || others.has(other)));
            assert_eq!(
                Rights::of([right]),
                Rights::of(Right::ALL.into_iter().filter(|r| *r == right))
            );
        }
        assert_eq!(Rights::default(), Rights::of([]));
    }
}
