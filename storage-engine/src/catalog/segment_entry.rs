//! A segment and its layers, as a commit names them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use capstan_model::{Failure, FailureKind, GenerationId, Hour, Time, TimeRange};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::names;
use super::slot::{HOURS, TimeSlot};
use super::unknown_fields::UnknownFields;
use crate::segment::builder::{SealedLayer, SealedSegment};
use crate::segment::index_layer::Meta;
use crate::segment::reader::{AddedTable, Segment};
use crate::segment::{Layer, Layers, TableLayer};
use crate::term_filters::{FlowIds, TermFilter, TermFilters};

/// A segment as the catalog describes it: enough to skip it without opening it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentEntry {
    /// Its name, unique in the store; part of the names of its objects.
    pub name: String,
    /// The hour that its objects lie in.
    pub hour: Hour,
    /// For a segment that spans hours: all hours that it touches, `hour` included. Otherwise empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hours: Vec<Hour>,
    /// Earliest packet; none if no packet has a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Time>,
    /// Latest packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Time>,
    /// Lowest ordinal.
    pub first_ordinal: u64,
    /// Highest ordinal.
    pub last_ordinal: u64,
    /// Packets.
    pub packets: u64,
    /// Flow parts.
    pub flow_parts: u64,
    /// Captured bytes.
    pub captured_bytes: u64,
    /// Bytes on the wire.
    pub wire_bytes: u64,
    /// The objects of the segment.
    pub layers: Vec<LayerEntry>,
    /// Number of packets by protocol name of their flow.
    #[serde(default)]
    pub protocols: BTreeMap<String, u64>,
    /// The segment holds decryption secrets that packets of this recorder in other segments may need.
    #[serde(default, skip_serializing_if = "is_false")]
    pub secrets: bool,
    /// Addresses it may hold; none = any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_filter: Option<TermFilter>,
    /// Other terms it may hold, one filter a group.
    #[serde(default, skip_serializing_if = "TermFilters::is_empty")]
    pub term_filters: TermFilters,
    /// Ids of flows it may hold; none = any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_ids: Option<FlowIds>,
    /// The generation that recorded it, if it differs from the owner of the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<GenerationId>,
}

/// One object of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerEntry {
    /// [`Layer::name`]; readers show layers with unknown names, and do not read them.
    pub layer: String,
    /// Length of the object.
    pub bytes: u64,
    /// SHA-256 of the object, hex.
    pub sha256: String,
    /// Of a table that was added to the segment: its directory. None if the `index` layer has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectoryEntry>,
    /// Fields of a later version.
    #[serde(flatten)]
    pub more: UnknownFields,
}

/// The directory of an added table: the last bytes of its object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryEntry {
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, hex.
    pub sha256: String,
    /// Fields of a later version.
    #[serde(flatten)]
    pub more: UnknownFields,
}

impl LayerEntry {
    /// The entry of a layer that `index` describes.
    pub fn new(layer: impl Into<String>, bytes: u64, sha256: impl Into<String>) -> LayerEntry {
        let (layer, sha256, more) = (layer.into(), sha256.into(), UnknownFields::default());
        LayerEntry { layer, bytes, sha256, directory: None, more }
    }

    /// The entry of a table that is added to a segment: its object, which ends with a directory of so many bytes
    /// ([`Written::with_directory`](crate::segment::tabular::Written::with_directory)).
    pub fn added(layer: &TableLayer, object: &[u8], directory: usize) -> LayerEntry {
        let sha256 = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
        let tail = object.split_at(object.len().saturating_sub(directory)).1;
        let directory = DirectoryEntry {
            bytes: tail.len() as u64,
            sha256: sha256(tail),
            more: UnknownFields::default(),
        };
        LayerEntry {
            directory: Some(directory),
            ..LayerEntry::new(layer.name, object.len() as u64, sha256(object))
        }
    }

    /// Its object's last path element. That of a layer that this version does not know follows from its name, too.
    pub fn file(&self) -> Cow<'_, str> {
        match Layers::KNOWN.named(&self.layer) {
            Some(layer) => layer.file().into(),
            None if self.directory.is_some() => format!("{}.parquet", self.layer).into(),
            None => self.layer.as_str().into(),
        }
    }

    /// Where the directory of an added table is in its object; none if its entry names none.
    pub fn directory_range(&self) -> Option<Range<u64>> {
        let directory = self.directory.as_ref()?;
        Some(self.bytes.checked_sub(directory.bytes)?..self.bytes)
    }
}

impl SegmentEntry {
    /// The entry of a segment that its `index` layer describes so, with its objects in `hour`. Its layers, protocols
    /// and filters, and whether it holds secrets, are not in that description: they are left empty.
    pub(crate) fn of_meta(meta: &Meta, hour: Hour) -> SegmentEntry {
        let hours: Vec<Hour> = meta.hours.iter().copied().map(Hour).collect();
        SegmentEntry {
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
            layers: Vec::new(),
            protocols: BTreeMap::new(),
            secrets: false,
            address_filter: None,
            term_filters: TermFilters::default(),
            flow_ids: None,
            owner: None,
        }
    }

    /// The entry of a sealed segment. `secrets`: see [`SegmentEntry::secrets`].
    pub fn of_sealed(sealed: &SealedSegment, secrets: bool) -> SegmentEntry {
        let layer = |of: &SealedLayer| {
            LayerEntry::new(of.layer.name(), of.length(), hex::encode(of.sha256))
        };
        let protocols = sealed.protocols.iter();
        SegmentEntry {
            layers: sealed.layers.iter().map(layer).collect(),
            protocols: protocols.map(|(of, packets)| (of.name().to_owned(), *packets)).collect(),
            secrets,
            address_filter: TermFilter::of(&sealed.addresses),
            term_filters: sealed.term_filters.clone(),
            flow_ids: sealed.flow_ids,
            ..SegmentEntry::of_meta(
                &sealed.meta,
                sealed.hours.first().copied().unwrap_or(Hour::UNKNOWN),
            )
        }
    }

    /// A layer, if the segment has it.
    pub fn layer(&self, layer: Layer) -> Option<&LayerEntry> {
        self.layers.iter().find(|entry| entry.layer == layer.name())
    }

    /// The name of a layer's object.
    pub fn path(&self, layer: Layer) -> Path {
        names::layer(self.hour, &self.name, layer.file())
    }

    /// The name of the object of one of its layers, which this version need not know.
    pub fn path_of(&self, layer: &LayerEntry) -> Path {
        names::layer(self.hour, &self.name, &layer.file())
    }

    /// The hours that list it.
    pub fn hours(&self) -> &[Hour] {
        if self.hours.is_empty() { std::slice::from_ref(&self.hour) } else { &self.hours }
    }

    /// The slots that it is kept in. A segment with decryption secrets is wide, too: packets of other
    /// hours may need them.
    pub fn slots(&self) -> Vec<TimeSlot> {
        let hours = self.hours();
        let mut slots: Vec<TimeSlot> = hours.iter().copied().map(TimeSlot::Hour).collect();
        if slots.len() as i64 > HOURS {
            slots.clear();
        }
        if slots.is_empty() || self.secrets {
            slots.push(TimeSlot::Wide);
        }
        slots
    }

    /// The name of a layer's object, and its committed length and hash.
    ///
    /// # Errors
    /// Of kind `NotFound`: the segment no longer has that layer. This distinguishes a deleted layer from a missing
    /// object.
    pub fn object(&self, layer: Layer) -> Result<(Path, &LayerEntry), Failure> {
        let entry = self.layer(layer).ok_or_else(|| {
            let what =
                format!("segment {} has no {} layer: it was deleted", self.name, layer.name());
            Failure::new(FailureKind::NotFound, what)
        })?;
        Ok((self.path(layer), entry))
    }

    /// Opens the segment from its `index` layer. Later reads are checked against the index, and the index is checked
    /// against the commit.
    ///
    /// # Errors
    /// The bytes differ from the committed ones; the segment is damaged, or has a newer format.
    pub fn open(&self, index: &Bytes) -> Result<Segment, Failure> {
        self.open_as(&Layers::KNOWN, index)
    }

    /// Opens the segment as a build that knows these layers.
    ///
    /// # Errors
    /// As [`SegmentEntry::open`].
    pub fn open_as(&self, layers: &Layers, index: &Bytes) -> Result<Segment, Failure> {
        let subject = || format!("segment {}", self.name);
        let damaged =
            |what: String| Failure::new(FailureKind::Damaged, format!("{}: {what}", subject()));
        let known = self.layer(Layer::Index).map(|layer| layer.sha256.as_str());
        if known != Some(&*hex::encode(Sha256::digest(index))) {
            return Err(damaged("its index layer differs from the committed one".to_owned()));
        }
        let segment = Segment::open_as(layers, index).map_err(|error| error.of(subject()))?;
        let (name, packets) = (&segment.meta().name, segment.meta().packets);
        if *name != self.name || packets != self.packets {
            return Err(damaged(format!(
                "its index layer is about segment {name} with {packets} packets, not {}",
                self.packets
            )));
        }
        Ok(segment)
    }

    /// Opens a table that was added to the segment, from its directory ([`LayerEntry::directory_range`]). Later reads
    /// are checked against the directory, and the directory is checked against the commit.
    ///
    /// # Errors
    /// The segment has no such layer; the bytes differ from the committed ones; the table is damaged, or has a newer
    /// format.
    pub fn open_added(
        &self,
        layer: &'static TableLayer,
        directory: &Bytes,
    ) -> Result<AddedTable, Failure> {
        let (_, entry) = self.object(Layer::Added(layer))?;
        let damaged = |what: &str| {
            let what =
                format!("segment {}: the directory of its {} layer {what}", self.name, layer.name);
            Failure::new(FailureKind::Damaged, what)
        };
        let Some(known) = &entry.directory else {
            return Err(damaged("is not named by the catalog"));
        };
        if known.sha256 != hex::encode(Sha256::digest(directory)) {
            return Err(damaged("differs from the committed one"));
        }
        AddedTable::open(layer, entry.bytes, directory)
            .map_err(|error| error.of(format_args!("segment {}", self.name)))
    }

    /// Whether one of its packets may lie in the range. Packets without a time match only the range of all time.
    pub fn touches(&self, range: &TimeRange) -> bool {
        match (self.first, self.last) {
            _ if range.is_all() => true,
            (Some(first), Some(last)) => range.touches(first, last),
            _ => false,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_false(flag: &bool) -> bool {
    !flag
}
