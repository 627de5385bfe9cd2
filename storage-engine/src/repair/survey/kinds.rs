//! The kinds of writers.

use std::collections::BTreeMap;

use capstan_model::{Generation, GenerationId};

use super::Survey;
use crate::catalog::{GenerationState, WriterKind};

/// The kind of each generation's writer, and the generation that it continues.
#[derive(Debug, Default)]
pub(in crate::repair) struct Kinds(
    pub(super) BTreeMap<GenerationId, (WriterKind, Option<Generation>)>,
);

impl Kinds {
    /// The kind of a generation's writer, if known.
    pub(in crate::repair) fn of(&self, owner: &GenerationId) -> Option<WriterKind> {
        self.0.get(owner).map(|(kind, _)| *kind)
    }

    /// The first generation of the import of a generation; none if the description of a generation in between is
    /// lost.
    pub(in crate::repair) fn import(&self, of: GenerationId) -> Option<Generation> {
        let mut first = of.generation;
        while let Some(before) = self.0.get(&GenerationId::new(of.recorder, first))?.1 {
            // A generation continues an earlier one.
            first = Some(before).filter(|before| *before < first)?;
        }
        Some(first)
    }
}

impl Survey {
    /// Collects the kinds of the generations' writers.
    pub(super) fn take_kinds(&mut self) {
        let of_root = self.roots.readable.iter().flat_map(|root| &root.logs).map(|log| &log.state);
        let known = self
            .logs
            .generations
            .values()
            .chain(of_root)
            .chain(self.generations.values().flatten());
        let kind = |state: &GenerationState| {
            let info = &state.writer()?.info;
            Some((state.id(), (info.kind, info.resumes)))
        };
        self.kinds = Kinds(known.filter_map(kind).collect());
    }
}
