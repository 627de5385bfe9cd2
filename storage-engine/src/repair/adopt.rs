//! Segments that nothing names: which of them are to be named, and what is said of them.

use std::collections::BTreeMap;
use std::fmt;

use capstan_index::Field;
use capstan_model::{Address, Failure, FailureKind, Generation, Hour, RecorderId, Time};

use crate::catalog::entry::sha256_hex;
use crate::catalog::{AddressFilter, LayerEntry, Owner, SegmentEntry, WriterKind};
use crate::fetch::StoreFetch;
use crate::segment::Layer;
use crate::segment::index_layer::Meta;
use crate::segment::reader::Segment;
use crate::store::{Listed, Store, names};

/// Why a segment is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It has no `index` layer: its upload was broken off.
    NoIndex,
    /// Its `index` layer cannot be used, or what is needed beside it is missing.
    Unreadable(String),
    /// It was put there less than a day ago: who does so may be about to commit it.
    Young,
    /// Packets of it are in another segment.
    Double {
        /// Which.
        segment: String,
    },
    /// Of an import that was broken off: importing the file again goes on with it.
    Unfinished,
    /// Its log is whole, and ended without it.
    Unwanted,
}

impl Why {
    /// Whether nothing is lost if it is removed.
    pub fn is_waste(&self) -> bool {
        match self {
            Why::NoIndex | Why::Double { .. } | Why::Unfinished => true,
            Why::Unreadable(_) | Why::Young | Why::Unwanted => false,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NoIndex => f.write_str("its upload was broken off: it has no index layer"),
            Why::Unreadable(why) => write!(f, "it cannot be used: {why}"),
            Why::Young => f.write_str(
                "it was put there less than a day ago, and who does so may be about to commit it",
            ),
            Why::Double { segment } => write!(f, "its packets are in segment {segment}"),
            Why::Unfinished => f.write_str(
                "its import was broken off before it was committed: importing the file again goes on",
            ),
            Why::Unwanted => f.write_str("its recorder ended, and did not commit it"),
        }
    }
}

/// What is known of the log a segment should be in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// What kind of recorder it is of, if that can be read.
    pub kind: Option<WriterKind>,
    /// A commit of it is missing or damaged.
    pub has_hole: bool,
    /// Its last commit says that it is the last.
    pub finished: bool,
    /// Every packet with a lower ordinal is said to be committed.
    pub next_ordinal: u64,
}

/// Packets that are in a segment that something names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its name.
    pub segment: String,
    /// In which life of the recorder it was made.
    pub generation: Generation,
    /// Lowest ordinal.
    pub first: u64,
    /// Highest ordinal.
    pub last: u64,
}

/// Whether a segment that nothing names is to be named. `log` is none if there is nothing of its log at
/// all; `taken` is what segments of the same recorder hold. Pure.
///
/// # Errors
/// Why it is left as it is.
pub fn judge(
    (generation, first, last): (Generation, u64, u64),
    young: bool,
    log: Option<&Log>,
    taken: &[Taken],
) -> Result<(), Why> {
    // Each packet of one life goes into one segment. A later life of an import may have read it again, with the same
    // ordinal. A recorder on an interface begins at 0 in each life: its packets are others.
    let is_live = log.is_some_and(|log| log.kind == Some(WriterKind::Live));
    let overlaps = |of: &&Taken| {
        !is_live && of.generation != generation && of.first <= last && first <= of.last
    };
    if let Some(other) = taken.iter().find(overlaps) {
        return Err(Why::Double { segment: other.segment.clone() });
    }
    let Some(log) = log else {
        return if young { Err(Why::Young) } else { Ok(()) };
    };
    // A later commit says that these packets were committed.
    if log.has_hole && last < log.next_ordinal {
        return Ok(());
    }
    if log.finished && !log.has_hole {
        return Err(Why::Unwanted);
    }
    if young {
        return Err(Why::Young);
    }
    match log.kind {
        Some(WriterKind::Import) if !log.finished => Err(Why::Unfinished),
        _ => Ok(()),
    }
}

/// A segment that nothing names.
#[derive(Debug)]
pub(super) struct Stray {
    pub(super) name: String,
    pub(super) hour: Hour,
    pub(super) objects: Vec<Listed>,
}

impl Stray {
    /// When the last of its objects was put there.
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

    /// What it says of itself; else why it is left.
    ///
    /// # Errors
    /// What the store says.
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
            return unusable(format!("it says that it is segment {}", meta.name));
        }
        let Ok(recorder) = meta.recorder.parse() else {
            return unusable(format!("'{}' is no recorder", meta.recorder));
        };
        let owner = Owner { recorder, generation: Generation(meta.generation) };
        let (layers, absent) = self.layers(meta, sha256_hex(&bytes), bytes.len() as u64);
        if absent.contains(&Layer::Flows) {
            return unusable("its flows layer is missing, or has another length".to_owned());
        }
        Ok(Ok(Opened { segment, owner, layers, absent }))
    }

    /// The layers that are there with the length that they had, and those that are not.
    fn layers(&self, meta: &Meta, sha256: String, bytes: u64) -> (Vec<LayerEntry>, Vec<Layer>) {
        let (mut layers, mut absent) = (Vec::new(), Vec::new());
        for known in &meta.layers {
            let Some(layer) = Layer::from_name(&known.layer) else { continue };
            match self.object(layer) {
                Some(object) if object.bytes == known.bytes => layers.push(LayerEntry {
                    layer: known.layer.clone(),
                    bytes: known.bytes,
                    sha256: known.sha256.clone(),
                }),
                _ => absent.push(layer),
            }
        }
        layers.push(LayerEntry { layer: Layer::Index.name().to_owned(), bytes, sha256 });
        (layers, absent)
    }
}

/// A segment that nothing names, opened.
#[derive(Debug)]
pub(super) struct Opened {
    segment: Segment,
    pub(super) owner: Owner,
    layers: Vec<LayerEntry>,
    /// Layers it was written with that are not there, or not as they were.
    pub(super) absent: Vec<Layer>,
}

impl Opened {
    pub(super) fn owner(&self) -> (RecorderId, Generation) {
        (self.owner.recorder, self.owner.generation)
    }

    /// The hours of its packets.
    pub(super) fn hours(&self) -> Vec<Hour> {
        self.segment.meta().hours.iter().copied().map(Hour).collect()
    }

    /// Its lowest and highest ordinal.
    pub(super) fn ordinals(&self) -> (u64, u64) {
        (self.segment.meta().first_ordinal, self.segment.meta().last_ordinal)
    }

    /// What a commit is to say of it.
    ///
    /// # Errors
    /// What the store says; of kind `Damaged` if its flows cannot be read.
    pub(super) async fn entry(&self, store: &Store, hour: Hour) -> Result<SegmentEntry, Failure> {
        let meta = self.segment.meta();
        let hours = self.hours();
        let mut entry = SegmentEntry {
            name: meta.name.clone(),
            hour,
            hours: if hours.len() > 1 { hours } else { Vec::new() },
            first: meta.first.map(Time),
            last: meta.last.map(Time),
            first_ordinal: meta.first_ordinal,
            last_ordinal: meta.last_ordinal,
            packets: meta.packets,
            flow_parts: meta.flow_parts,
            captured_bytes: meta.captured_bytes,
            wire_bytes: meta.wire_bytes,
            layers: self.layers.clone(),
            protocols: BTreeMap::new(),
            secrets: self.segment.extras()?.has_secrets(),
            address_filter: self.address_filter()?,
            owner: Some(self.owner),
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

    /// The addresses it may hold: those that its flows can be found by.
    fn address_filter(&self) -> Result<Option<AddressFilter>, Failure> {
        let damaged = |error| {
            let what = format!("the terms of segment {}", self.segment.meta().name);
            Failure::caused_by(FailureKind::Damaged, what, error)
        };
        let mut addresses = Vec::new();
        for field in [Field::Ip, Field::OuterIp] {
            for term in self.segment.terms().terms(field).map_err(damaged)? {
                let value: Result<[u8; 16], _> = term.map_err(damaged)?.value.try_into();
                addresses.extend(value.ok().map(Address));
            }
        }
        Ok(AddressFilter::of(&addresses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: (Generation, u64, u64) = (Generation(2), 100, 199);

    fn log(kind: WriterKind, has_hole: bool, finished: bool) -> Log {
        Log { kind: Some(kind), has_hole, finished, next_ordinal: 150 }
    }

    #[test]
    fn what_a_lost_commit_named_is_named_again() {
        let holed = Log { next_ordinal: 200, ..log(WriterKind::Live, true, false) };
        assert_eq!(judge(NOW, true, Some(&holed), &[]), Ok(()));
        // Of the log's end nobody says that it was committed.
        let end = log(WriterKind::Live, true, false);
        assert_eq!(judge(NOW, true, Some(&end), &[]), Err(Why::Young));
        assert_eq!(judge(NOW, false, Some(&end), &[]), Ok(()));
        assert_eq!(judge(NOW, false, None, &[]), Ok(()));
        assert_eq!(judge(NOW, true, None, &[]), Err(Why::Young));
    }

    #[test]
    fn what_a_recorder_could_not_commit_any_more_is_named() {
        let died = log(WriterKind::Live, false, false);
        assert_eq!(judge(NOW, true, Some(&died), &[]), Err(Why::Young));
        assert_eq!(judge(NOW, false, Some(&died), &[]), Ok(()));
        let ended = log(WriterKind::Live, false, true);
        assert_eq!(judge(NOW, false, Some(&ended), &[]), Err(Why::Unwanted));
        // The file has it.
        let import = log(WriterKind::Import, false, false);
        assert_eq!(judge(NOW, false, Some(&import), &[]), Err(Why::Unfinished));
    }

    #[test]
    fn no_packet_is_named_twice() {
        let taken = |generation, first, last| Taken {
            segment: "other".to_owned(),
            generation: Generation(generation),
            first,
            last,
        };
        let double = Err(Why::Double { segment: "other".to_owned() });
        assert_eq!(judge(NOW, false, None, &[taken(3, 199, 300)]), double);
        let import = log(WriterKind::Import, true, false);
        assert_eq!(judge(NOW, false, Some(&import), &[taken(1, 0, 300)]), double);
        // Lives of a recorder on an interface have the same ordinals, and other packets.
        let live = log(WriterKind::Live, false, false);
        assert_eq!(judge(NOW, false, Some(&live), &[taken(1, 0, 300)]), Ok(()));
        assert_eq!(judge(NOW, false, None, &[taken(3, 200, 300), taken(1, 0, 99)]), Ok(()));
        // Hours of one life that are open at once share ranges, and no packet.
        assert_eq!(judge(NOW, false, None, &[taken(2, 50, 300)]), Ok(()));
    }
}
