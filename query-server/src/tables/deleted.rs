//! Records what retention deleted of the tables that a statement reads. The answer has everything else, and is no
//! error: its schema says what it lacks (`flight::notes`).

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use capstan_view::Deleted;
use datafusion::catalog::Session;

/// Most lines of an answer.
const LINES: usize = 32;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Deletions {
    /// In words. A table that is read twice has its lines once.
    lines: Mutex<BTreeSet<String>>,
}

impl Deletions {
    fn all(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // The data is valid between statements, so a poisoned lock may be used.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the answer lacks, in words; of many lines the first.
    pub(crate) fn lines(&self) -> Vec<String> {
        let all = self.all();
        let mut lines: Vec<String> = all.iter().take(LINES).cloned().collect();
        if all.len() > LINES {
            lines.push("retention deleted more than that".to_owned());
        }
        lines
    }
}

/// Records what a scan lacks for a statement that is being planned: a table may answer from the catalog
/// alone, and then no scan runs that could record it.
pub(super) fn note(session: &dyn Session, deleted: &Deleted) {
    if let Some(deletions) = session.config().get_extension::<Deletions>() {
        deletions.all().extend(deleted.words());
    }
}
