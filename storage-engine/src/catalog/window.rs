//! The facts about a range of time, collected from manifests and logs.

use std::collections::BTreeMap;
use std::sync::Arc;

use capstan_index::filter::FlowFilter;
use capstan_model::coverage::{Listened, Loss};
use capstan_model::{GenerationId, Time, TimeRange};

use super::entry::{WriterInfo, WriterKind};
use super::fact::Change;
use super::facts::Attributed;
use super::gap::Gap;
use super::segment_state::{self, Segment};
use super::state::KnownFact;

/// A request to the catalog.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The time range.
    pub range: TimeRange,
    /// Selects segments that may have such flows. The window may have others, too.
    pub flows: Option<&'a FlowFilter>,
    /// Whether coverage and losses are requested; otherwise the window has none.
    pub statements: bool,
}

impl Asked<'_> {
    /// Everything about a range.
    pub fn all(range: TimeRange) -> Self {
        Asked { range, flows: None, statements: true }
    }
}

/// The facts about a range of time.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// Segments that may hold packets of the range: by recorder, generation and commit, and in the order of the
    /// commit.
    pub segments: Vec<Arc<Segment>>,
    /// Segments with decryption secrets that packets of the range may need, at any time.
    pub secrets: Vec<Arc<Segment>>,
    /// Coverage statements that touch the range; they are not cut to it.
    pub listened: Vec<Attributed<Listened>>,
    /// Losses in the range. A loss at a single moment has a range of one nanosecond or zero length.
    pub losses: Vec<Attributed<Loss>>,
    /// Changes of segments.
    pub(super) changes: Vec<Change>,
    /// The writers of all these; none if the description is unreadable.
    pub writers: BTreeMap<GenerationId, Option<WriterInfo>>,
    /// Segments pruned by the filter of a manifest. A segment that touches several hours counts in each.
    pub pruned_by_manifest: u64,
    /// Gaps: facts that are missing because catalog objects are unusable.
    pub gaps: Vec<Gap>,
    /// Generations with facts in its hours that were admitted after its root, and the version that admitted each.
    pub(super) newcomers: BTreeMap<GenerationId, u64>,
}

impl Window {
    /// Whether the generation records live traffic, as opposed to an existing capture. True if unknown: then times
    /// without coverage are reported.
    pub fn is_live(&self, of: GenerationId) -> bool {
        let info = self.writers.get(&of).and_then(Option::as_ref);
        info.is_none_or(|info| info.kind == WriterKind::Live)
    }

    /// Adds a gap that affects a question about the range. One object is reported once.
    pub(super) fn add_gap(&mut self, gap: Option<&Gap>, asked: &TimeRange) {
        let concerns = |gap: &&Gap| {
            gap.about.touches(asked) && self.gaps.iter().all(|known| known.object != gap.object)
        };
        if let Some(gap) = gap.filter(concerns) {
            self.gaps.push(gap.clone());
        }
    }

    /// Adds a fact, if it is requested.
    pub(super) fn take(&mut self, fact: &KnownFact, asked: Asked<'_>) {
        let range = asked.range;
        match fact {
            KnownFact::Segment(segment) => {
                if segment.entry.touches(&range) {
                    self.segments.push(Arc::clone(segment));
                }
                if segment.entry.secrets {
                    self.secrets.push(Arc::clone(segment));
                }
            }
            KnownFact::Change(said) => self.changes.push(said.fact.clone()),
            KnownFact::Listened(said) if asked.statements => {
                if said.fact.range.intersect(&range).is_some() {
                    self.listened.push(said.clone());
                }
            }
            KnownFact::Loss(said) if asked.statements => {
                if said.fact.touches(&range) {
                    self.losses.push(said.clone());
                }
            }
            KnownFact::Listened(_) | KnownFact::Loss(_) => {}
        }
    }

    /// Sorts, removes duplicates from several slots, and sets the state of each segment.
    pub(super) fn put_in_order(&mut self) {
        fn segment(of: &Segment) -> (GenerationId, u64, u64, &str) {
            (of.of, of.by.seq, of.entry.first_ordinal, &of.entry.name)
        }
        let changes = std::mem::take(&mut self.changes);
        for segments in [&mut self.segments, &mut self.secrets] {
            segments.sort_by(|a, b| segment(a).cmp(&segment(b)));
            segments.dedup_by(|a, b| segment(a) == segment(b));
            segment_state::apply(segments, &changes);
        }
        fn said<T>(of: &Attributed<T>, range: &TimeRange) -> (GenerationId, u64, Time, Time) {
            (of.by, of.seq, range.start, range.end)
        }
        self.listened.sort_by_key(|of| (said(of, &of.fact.range), of.fact.interfaces.clone()));
        self.listened.dedup();
        self.losses.sort_by_key(|of| {
            (said(of, &of.fact.range), of.fact.interface, of.fact.cause.name(), of.fact.packets)
        });
        self.losses.dedup();
    }
}
