//! Orphan segments: decides which of them to name, and makes their entries.

use std::collections::BTreeMap;
use std::fmt;

use capstan_model::{Failure, FailureKind, Generation, GenerationId, Hour, Time};

use crate::catalog::entry::sha256_hex;
use crate::catalog::names;
use crate::catalog::{LayerEntry, SegmentEntry, WriterKind};
use crate::fetch::StoreFetch;
use crate::segment::index_layer::Meta;
use crate::segment::reader::Segment;
use crate::segment::{Layer, Layers};
use crate::store::{Listed, Store};
use crate::term_filters::Summary;

/// Why a segment is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It has no `index` layer: its upload was interrupted.
    NoIndex,
    /// Its `index` layer is unusable, or another required layer is missing.
    Unreadable(String),
    /// It is less than a day old: its writer may be about to commit it.
    Young,
    /// Another segment has its packets.
    Double {
        /// The other segment.
        segment: String,
    },
    /// Another segment has some of its packets; the rest may be in no segment.
    Overlaps {
        /// The other segment.
        segment: String,
    },
    /// Another segment has packets with the same ordinals and times. Whether they are the same packets is unknown:
    /// the writer's description is lost.
    MayBeDouble {
        /// The other segment.
        segment: String,
    },
    /// Of an interrupted import: importing the file again resumes it.
    Unfinished,
    /// Its log is intact, and ended without naming it.
    Unwanted,
}

impl Why {
    /// Whether removing it loses no data.
    pub fn is_waste(&self) -> bool {
        match self {
            Why::NoIndex | Why::Double { .. } | Why::Unfinished => true,
            Why::Unreadable(_)
            | Why::Young
            | Why::Unwanted
            | Why::Overlaps { .. }
            | Why::MayBeDouble { .. } => false,
        }
    }

    /// Whether answers may lack its packets, and a repair cannot fix that.
    pub fn is_beyond(&self) -> bool {
        matches!(self, Why::Unreadable(_) | Why::Overlaps { .. } | Why::MayBeDouble { .. })
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NoIndex => f.write_str("its upload was interrupted: it has no index layer"),
            Why::Unreadable(why) => write!(f, "it cannot be used: {why}"),
            Why::Young => {
                f.write_str("it is less than a day old, and its writer may be about to commit it")
            }
            Why::Double { segment } => write!(f, "its packets are in segment {segment}"),
            Why::Overlaps { segment } => {
                write!(
                    f,
                    "segment {segment} has some of its packets; the others may be in no segment"
                )
            }
            Why::MayBeDouble { segment } => write!(
                f,
                "it may be a duplicate of segment {segment}: the description of its writer is lost"
            ),
            Why::Unfinished => f.write_str(
                "its import was interrupted before the commit: import the file again to resume",
            ),
            Why::Unwanted => f.write_str("its recorder ended without committing it"),
        }
    }
}

/// Facts about the log that should name a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// Kind of the writer, if readable.
    pub kind: Option<WriterKind>,
    /// First generation of its import, if known.
    pub import: Option<Generation>,
    /// One of its commits is missing or damaged, and its facts are not rolled up or are lost since.
    pub has_hole: bool,
    /// Its last commits are missing or damaged, and their facts are not rolled up.
    pub is_cut: bool,
    /// It has a last commit that declares it finished.
    pub finished: bool,
    /// Every packet with a lower ordinal is declared committed.
    pub next_ordinal: u64,
}

/// Packets of a named segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its name.
    pub segment: String,
    /// Generation of the recorder that created it.
    pub generation: Generation,
    /// First generation of its import, if known.
    pub import: Option<Generation>,
    /// Lowest ordinal.
    pub first: u64,
    /// Highest ordinal.
    pub last: u64,
    /// Times of its earliest and latest packet, if any packet has a time.
    pub times: Option<(Time, Time)>,
}

/// Facts about an orphan segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unnamed {
    /// Its packets.
    pub holds: Taken,
    /// It is less than a day old.
    pub young: bool,
    /// A commit in doubt names it.
    pub is_in_doubt: bool,
}

/// Decides whether to name an orphan segment. `log` is none if nothing of its log exists; `taken` are the packets of
/// other segments of the same recorder. Pure.
///
/// # Errors
/// Why it is left alone.
pub fn judge(unnamed: &Unnamed, log: Option<&Log>, taken: &[Taken]) -> Result<(), Why> {
    let Unnamed { holds, young, is_in_doubt } = unnamed;
    let (kind, import) = (log.and_then(|log| log.kind), log.and_then(|log| log.import));
    // Each packet of one generation is in one segment. A later generation of the same import may have read it again,
    // with the same ordinal and time. The packets of other imports are different, even of a file with the same
    // beginning or of the same file again. A recorder on an interface restarts at 0 in each generation: its packets
    // are different, too.
    let is_other = |of: &Taken| of.import.zip(import).is_some_and(|(theirs, ours)| theirs != ours);
    let may_share = |of: &&Taken| {
        of.generation != holds.generation
            && !is_other(of)
            && of.first <= holds.last
            && holds.first <= of.last
            && is_same_time(of.times, holds.times)
    };
    // The other segment has all packets of this ordinal range in these hours.
    let has_all = |of: &&Taken| of.first <= holds.first && holds.last <= of.last;
    let shared = || taken.iter().filter(may_share);
    let other = match kind {
        Some(WriterKind::Live) => None,
        _ => shared().find(has_all).or_else(|| shared().next()),
    };
    if let Some(of) = other {
        let segment = of.segment.clone();
        let is_same = of.import.is_some() && of.import == import;
        return Err(match is_same {
            true if has_all(&of) => Why::Double { segment },
            true => Why::Overlaps { segment },
            false => Why::MayBeDouble { segment },
        });
    }
    if *is_in_doubt {
        return Ok(());
    }
    let Some(log) = log else {
        return if *young { Err(Why::Young) } else { Ok(()) };
    };
    // A later commit declares these packets committed, or a missing commit may have.
    if log.is_cut || log.has_hole && holds.last < log.next_ordinal {
        return Ok(());
    }
    if log.finished && !log.has_hole {
        return Err(Why::Unwanted);
    }
    if *young {
        return Err(Why::Young);
    }
    match log.kind {
        Some(WriterKind::Import) if !log.finished => Err(Why::Unfinished),
        _ => Ok(()),
    }
}

/// Whether two segments may have packets of the same time; packets without a time match any.
fn is_same_time(a: Option<(Time, Time)>, b: Option<(Time, Time)>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.0 <= b.1 && b.0 <= a.1,
        _ => true,
    }
}

/// An orphan segment.
#[derive(Debug)]
pub(super) struct Stray {
    pub(super) name: String,
    pub(super) hour: Hour,
    pub(super) objects: Vec<Listed>,
}

impl Stray {
    /// Time of its newest object.
    pub(super) fn put(&self) -> Time {
        self.objects.iter().map(|object| object.modified).max().unwrap_or(Time(i64::MIN))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.bytes).sum()
    }

    fn object(&self, layer: Layer) -> Option<&Listed> {
        let path = names::layer(self.hour, &self.name, layer.file());
        self.objects.iter().find(|object| object.path == path)
    }

    /// Opens it through its `index` layer. The inner error is the reason to leave it alone.
    ///
    /// # Errors
    /// Errors of the store.
    pub(super) async fn open(&self, store: &Store) -> Result<Result<Opened, Why>, Failure> {
        let Some(index) = self.object(Layer::Index) else { return Ok(Err(Why::NoIndex)) };
        let Some(bytes) = store.get_if_present(&index.path).await? else {
            return Ok(Err(Why::NoIndex));
        };
        let unusable = |why: String| Ok(Err(Why::Unreadable(why)));
        let segment = match Segment::open(&bytes) {
            Ok(segment) => segment,
            Err(corrupt) => return unusable(corrupt.to_string()),
        };
        let meta = segment.meta();
        if meta.name != self.name {
            return unusable(format!("its index layer has the name of segment {}", meta.name));
        }
        let Ok(recorder) = meta.recorder.parse() else {
            return unusable(format!("'{}' is no recorder", meta.recorder));
        };
        let owner = GenerationId::new(recorder, Generation(meta.generation));
        let (layers, absent) = self.layers(meta, sha256_hex(&bytes), bytes.len() as u64);
        if absent.contains(&Layer::Flows) {
            return unusable("its flows layer is missing, or has another length".to_owned());
        }
        Ok(Ok(Opened { segment, owner, layers, absent }))
    }

    /// The layers that exist with their original length, and the others.
    fn layers(&self, meta: &Meta, sha256: String, bytes: u64) -> (Vec<LayerEntry>, Vec<Layer>) {
        let (mut layers, mut absent) = (Vec::new(), Vec::new());
        for known in &meta.layers {
            let Some(layer) = Layers::KNOWN.named(&known.layer) else { continue };
            match self.object(layer) {
                Some(object) if object.bytes == known.bytes => {
                    layers.push(LayerEntry::new(&known.layer, known.bytes, &known.sha256));
                }
                _ => absent.push(layer),
            }
        }
        layers.push(LayerEntry::new(Layer::Index.name(), bytes, sha256));
        (layers, absent)
    }
}

/// An opened orphan segment.
#[derive(Debug)]
pub(super) struct Opened {
    segment: Segment,
    pub(super) owner: GenerationId,
    layers: Vec<LayerEntry>,
    /// Original layers that are missing or changed.
    pub(super) absent: Vec<Layer>,
}

impl Opened {
    pub(super) fn owner(&self) -> GenerationId {
        self.owner
    }

    /// The hours of its packets.
    pub(super) fn hours(&self) -> Vec<Hour> {
        self.segment.meta().hours.iter().copied().map(Hour).collect()
    }

    /// Its packets.
    pub(super) fn holds(&self) -> Taken {
        let meta = self.segment.meta();
        Taken {
            segment: meta.name.clone(),
            generation: self.owner.generation,
            import: None,
            first: meta.first_ordinal,
            last: meta.last_ordinal,
            times: meta.first.map(Time).zip(meta.last.map(Time)),
        }
    }

    /// Makes its entry for a commit.
    ///
    /// # Errors
    /// Errors of the store; of kind `Damaged` if its flows are unreadable.
    pub(super) async fn entry(&self, store: &Store, hour: Hour) -> Result<SegmentEntry, Failure> {
        let meta = self.segment.meta();
        let summary = self.summary()?;
        let generation = Generation(meta.flow_generation);
        let mut entry = SegmentEntry {
            layers: self.layers.clone(),
            secrets: self.segment.extras()?.has_secrets(),
            address_filter: summary.address_filter(),
            flow_ids: summary.flow_ids(self.owner.recorder, generation),
            term_filters: summary.filters,
            owner: Some(self.owner),
            ..SegmentEntry::of_meta(meta, hour)
        };
        let fetch = StoreFetch::new(store, &entry);
        let all = self.segment.all_flows();
        let mut protocols = BTreeMap::<String, u64>::new();
        for row in self.segment.read_flows(&fetch, &all).await? {
            let packets = protocols.entry(row.part.protocol.name().to_owned()).or_default();
            *packets = packets.saturating_add(row.packets());
        }
        entry.protocols = protocols;
        Ok(entry)
    }

    /// What its terms are.
    fn summary(&self) -> Result<Summary, Failure> {
        Summary::of(self.segment.terms()).map_err(|error| {
            let what = format!("the terms of segment {}", self.segment.meta().name);
            Failure::caused_by(FailureKind::Damaged, what, error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(generation: u32, first: u64, last: u64) -> Taken {
        let (segment, times) = ("other".to_owned(), Some((Time(first as i64), Time(last as i64))));
        let (generation, import) = (Generation(generation), Some(Generation(1)));
        Taken { segment, generation, import, first, last, times }
    }

    /// What is said of a segment of generation 2 with the packets 100 to 199.
    fn judged(young: bool, log: Option<&Log>, others: &[Taken]) -> Result<(), Why> {
        judge(&Unnamed { holds: taken(2, 100, 199), young, is_in_doubt: false }, log, others)
    }

    fn log(kind: WriterKind, has_hole: bool, finished: bool) -> Log {
        let import = Some(Generation(1));
        Log { kind: Some(kind), import, has_hole, is_cut: false, finished, next_ordinal: 150 }
    }

    #[test]
    fn segments_of_a_lost_commit_are_adopted() {
        let holed = Log { next_ordinal: 200, ..log(WriterKind::Live, true, false) };
        assert_eq!(judged(true, Some(&holed), &[]), Ok(()));
        // Of the log's end nobody says that it was committed.
        let end = log(WriterKind::Live, true, false);
        assert_eq!(judged(true, Some(&end), &[]), Err(Why::Young));
        assert_eq!(judged(false, Some(&end), &[]), Ok(()));
        assert_eq!(judged(false, None, &[]), Ok(()));
        assert_eq!(judged(true, None, &[]), Err(Why::Young));
    }

    #[test]
    fn segments_after_the_last_commit_of_a_damaged_log_are_adopted() {
        let cut = Log { is_cut: true, ..log(WriterKind::Import, true, false) };
        assert_eq!(judged(true, Some(&cut), &[]), Ok(()));
        let double = Err(Why::Double { segment: "other".to_owned() });
        assert_eq!(judged(true, Some(&cut), &[taken(3, 100, 300)]), double);
    }

    #[test]
    fn uncommitted_segments_of_an_ended_recorder_are_adopted() {
        let died = log(WriterKind::Live, false, false);
        assert_eq!(judged(true, Some(&died), &[]), Err(Why::Young));
        assert_eq!(judged(false, Some(&died), &[]), Ok(()));
        let ended = log(WriterKind::Live, false, true);
        assert_eq!(judged(false, Some(&ended), &[]), Err(Why::Unwanted));
        // The file has it.
        let import = log(WriterKind::Import, false, false);
        assert_eq!(judged(false, Some(&import), &[]), Err(Why::Unfinished));
    }

    #[test]
    fn repair_adopts_no_packet_twice() {
        let may_be_double = Err(Why::MayBeDouble { segment: "other".to_owned() });
        assert_eq!(judged(false, None, &[taken(3, 199, 300)]), may_be_double);
        let double = Err(Why::Double { segment: "other".to_owned() });
        let import = log(WriterKind::Import, true, false);
        assert_eq!(judged(false, Some(&import), &[taken(1, 0, 300)]), double);
        let overlaps = Err(Why::Overlaps { segment: "other".to_owned() });
        assert_eq!(judged(false, Some(&import), &[taken(1, 0, 198)]), overlaps);
        assert_eq!(judged(false, Some(&import), &[taken(1, 101, 300)]), overlaps);
        let both = [taken(1, 0, 198), taken(3, 100, 199)];
        assert_eq!(judged(false, Some(&import), &both), double, "one has all");
        // Other imports by the same recorder are of other packets, and of which import it is may be lost.
        let other = Taken { import: Some(Generation(3)), ..taken(3, 0, 300) };
        let lost = Log { is_cut: true, ..import.clone() };
        assert_eq!(judged(false, Some(&lost), &[other]), Ok(()));
        let unknown = Taken { import: None, ..taken(3, 0, 300) };
        assert_eq!(judged(false, Some(&import), &[unknown]), may_be_double);
        let nameless = Log { import: None, ..import.clone() };
        assert_eq!(judged(false, Some(&nameless), &[taken(1, 0, 300)]), may_be_double);
        let no_time = Taken { times: None, ..taken(1, 0, 300) };
        assert_eq!(judged(false, Some(&import), &[no_time]), double);
        // Generations of a recorder on an interface have the same ordinals, and other packets.
        let live = log(WriterKind::Live, false, false);
        assert_eq!(judged(false, Some(&live), &[taken(1, 0, 300)]), Ok(()));
        // The same packet has the same time.
        let later = Taken { times: Some((Time(200), Time(300))), ..taken(1, 0, 300) };
        assert_eq!(judged(false, None, &[later]), Ok(()));
        assert_eq!(judged(false, None, &[taken(3, 200, 300), taken(1, 0, 99)]), Ok(()));
        // Hours of one generation that are open at once share ranges, and no packet.
        assert_eq!(judged(false, None, &[taken(2, 50, 300)]), Ok(()));
    }

    #[test]
    fn segments_of_a_doubtful_commit_are_adopted_unless_duplicate() {
        let unnamed = Unnamed { holds: taken(2, 100, 199), young: true, is_in_doubt: true };
        for finished in [false, true] {
            let import = log(WriterKind::Import, false, finished);
            assert_eq!(judge(&unnamed, Some(&import), &[]), Ok(()));
            let double = judge(&unnamed, Some(&import), &[taken(1, 0, 300)]);
            assert!(matches!(double, Err(Why::Double { .. })), "{double:?}");
        }
    }

    #[test]
    fn only_useless_segments_are_waste() {
        let segment = || "other".to_owned();
        assert!(Why::Double { segment: segment() }.is_waste());
        assert!(!Why::MayBeDouble { segment: segment() }.is_waste());
        assert!(Why::MayBeDouble { segment: segment() }.is_beyond());
        assert!(!Why::Overlaps { segment: segment() }.is_waste());
        assert!(Why::Overlaps { segment: segment() }.is_beyond());
    }
}
