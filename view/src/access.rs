//! Who asks, and what they may see: principals, rights and masks. Pure.
//!
//! * [`Principal`]: who asks a question. Each question carries one
//! * [`Rights`]: which kinds of questions a principal may ask
//! * [`Mask`]: which flows a principal may see
//! * `flow_ids`: flow ids under a mask do not tell how many other flows there are
//! * `facts`, `failure`: the statements of the catalog, and failures, as a masked principal gets them
//!
//! [`StoreView::scoped`](crate::StoreView::scoped) applies them: a view gives no flow without a principal.
//! `docs/access.md` says what a masked principal sees of each table, export and metric.

mod facts;
mod failure;
mod flow_ids;
mod mask;
mod rights;

use std::sync::Arc;

use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind};

pub use self::facts::hidden_gap;
pub(crate) use self::facts::{statements, visible};
pub use self::flow_ids::{FlowIdCipher, KEY_BYTES};
pub use self::mask::Mask;
pub use self::rights::{Right, Rights};

/// Who asks a question.
///
/// A principal with a mask never has [`Right::CatalogRead`]: the catalog counts all flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    name: String,
    rights: Rights,
    mask: Option<Mask>,
}

impl Principal {
    /// A principal. With a mask it sees only the flows that certainly match, and [`Right::CatalogRead`] is taken away.
    pub fn new(name: impl Into<String>, rights: Rights, mask: Option<Mask>) -> Arc<Principal> {
        let rights = match mask {
            Some(_) => rights.without(Right::CatalogRead),
            None => rights,
        };
        Arc::new(Principal { name: name.into(), rights, mask })
    }

    /// The principal of every question as long as nobody is told apart: it has all rights and no mask.
    pub fn everything() -> Arc<Principal> {
        Principal::new("everybody", Rights::all(), None)
    }

    /// Its name, for logs and error messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its mask; none if it sees all flows.
    pub fn mask(&self) -> Option<&Mask> {
        self.mask.as_ref()
    }

    /// Whether some flows may be hidden from it.
    pub fn is_masked(&self) -> bool {
        self.mask.is_some()
    }

    /// A failure of the store as the principal gets it. Under a mask its text may be about hidden flows, so it is
    /// replaced, and the log gets the whole.
    pub fn told(&self, failure: Failure) -> Failure {
        if !self.is_masked() || failure.is_redacted() {
            return failure;
        }
        self.log(&failure);
        failure::redacted(&failure)
    }

    /// A failure about the memory that queries share, as the principal gets it. Its text is about other queries, too.
    pub fn told_of_memory(&self, failure: Failure) -> Failure {
        if !self.is_masked() || failure.is_redacted() {
            return failure;
        }
        self.log(&failure);
        failure::limited()
    }

    /// Logs what a masked principal is not told. Its own cancellation is no error.
    fn log(&self, failure: &Failure) {
        if failure.kind() != FailureKind::Interrupted {
            let failure = with_causes(failure);
            tracing::warn!(who = self.name, failure, "a question of a masked principal failed");
        }
    }

    /// Refuses a question that needs a right which the principal lacks.
    ///
    /// # Errors
    /// Of kind `Permission`; the text names what was asked, and the missing right.
    pub fn require(&self, right: Right, what: &str) -> Result<(), Failure> {
        if self.rights.has(right) {
            return Ok(());
        }
        let why = match (right, self.is_masked()) {
            (Right::CatalogRead, true) => ": it sees only some flows, and the catalog counts all",
            _ => "",
        };
        let words = format!("{what} needs the right {right}; '{}' lacks it{why}", self.name);
        Err(Failure::new(FailureKind::Permission, words))
    }
}

#[cfg(test)]
mod tests {
    use capstan_index::filter::Term;

    use super::*;

    fn mask() -> Mask {
        Mask::new(Term::ip_protocol(17).into(), [7; KEY_BYTES]).expect("a mask")
    }

    #[test]
    fn refusal_names_the_missing_right() {
        let rights = Rights::of([Right::FlowsRead]);
        let viewer = Principal::new("dana", rights, None);
        assert!(viewer.require(Right::FlowsRead, "the table flows").is_ok());
        let refused = viewer.require(Right::PayloadRead, "the column payload").unwrap_err();
        assert_eq!(refused.kind(), FailureKind::Permission);
        assert_eq!(
            refused.to_string(),
            "the column payload needs the right payload:read; 'dana' lacks it"
        );
        assert!(Principal::everything().require(Right::CatalogRead, "status").is_ok());
    }

    #[test]
    fn masked_principal_never_reads_the_catalog() {
        let masked = Principal::new("team", Rights::all(), Some(mask()));
        let refused = masked.require(Right::CatalogRead, "the table segments").unwrap_err();
        assert!(refused.to_string().contains("catalog:read"), "{refused}");
        for right in Right::ALL.into_iter().filter(|right| *right != Right::CatalogRead) {
            assert!(masked.require(right, "it").is_ok(), "{right}");
        }
    }
}
