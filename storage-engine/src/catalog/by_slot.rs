//! Records that are kept in a temporary file, by slot, until their slot is looked at.
//!
//! Logs are walked one after the other, and what is compared with them goes by hours: one of both has to wait,
//! and memory must not grow with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;

use capstan_model::{Failure, FailureKind, Generation, RecorderId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::entry::{generation_number, recorder_hex};
use super::facts::{SlotFacts, split};
use super::slot::TimeSlot;
use super::state::Segment;
use super::walk::Met;

/// Bytes that wait in memory before they are written.
const BUFFERED: usize = 16 << 20;

/// zstd level of what is written: it is read once, soon.
const LEVEL: i32 = 1;

/// What one commit says of one slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Logged {
    /// Whose commit.
    #[serde(with = "recorder_hex")]
    pub(crate) recorder: RecorderId,
    /// Of which generation.
    #[serde(with = "generation_number")]
    pub(crate) generation: Generation,
    /// Its number.
    pub(crate) seq: u64,
    /// SHA-256 of its bytes, hex.
    pub(crate) sha256: String,
    /// What.
    pub(crate) facts: SlotFacts,
    /// The slot has the segments' objects, and its manifest does not say so: these are too wide.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) only_objects: bool,
}

impl Logged {
    /// The segments that it names.
    pub(crate) fn into_segments(self) -> impl Iterator<Item = Segment> {
        let Logged { recorder, generation, seq, facts, .. } = self;
        let segments = facts.segments.into_iter();
        segments.map(move |entry| Segment::of(recorder, generation, seq, entry))
    }
}

/// Records of type `T`. See the module.
#[derive(Debug)]
pub(crate) struct BySlot<T> {
    /// It has no name, so nothing is left of it.
    file: File,
    end: u64,
    slots: BTreeMap<TimeSlot, Kept>,
    buffered: usize,
    records: PhantomData<T>,
}

/// What there is of a slot.
#[derive(Debug, Default)]
struct Kept {
    /// Lines of JSON that were not written yet.
    buffer: Vec<u8>,
    /// Where those are that were: offset and length.
    blocks: Vec<(u64, u32)>,
}

fn failed(error: std::io::Error) -> Failure {
    Failure::io("a temporary file for what the catalog says cannot be used", error)
}

impl<T: Serialize + DeserializeOwned> BySlot<T> {
    /// With nothing in it.
    ///
    /// # Errors
    /// A temporary file cannot be made.
    pub(crate) fn new() -> Result<BySlot<T>, Failure> {
        let file = tempfile::tempfile().map_err(failed)?;
        Ok(BySlot { file, end: 0, slots: BTreeMap::new(), buffered: 0, records: PhantomData })
    }

    /// Keeps a record.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub(crate) fn push(&mut self, slot: TimeSlot, record: &T) -> Result<(), Failure> {
        let kept = self.slots.entry(slot).or_default();
        let before = kept.buffer.len();
        serde_json::to_writer(&mut kept.buffer, record).map_err(|error| failed(error.into()))?;
        kept.buffer.push(b'\n');
        self.buffered += kept.buffer.len() - before;
        if self.buffered >= BUFFERED {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Failure> {
        for kept in self.slots.values_mut().filter(|kept| !kept.buffer.is_empty()) {
            let bytes = zstd::encode_all(&kept.buffer[..], LEVEL).map_err(failed)?;
            self.file.write_all_at(&bytes, self.end).map_err(failed)?;
            // A buffer is some megabytes at most.
            kept.blocks.push((self.end, u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
            self.end += bytes.len() as u64;
            kept.buffer = Vec::new();
        }
        self.buffered = 0;
        Ok(())
    }

    /// The slots that have records.
    pub(crate) fn slots(&self) -> impl Iterator<Item = TimeSlot> {
        self.slots.keys().copied()
    }

    /// All records of a slot, in the order in which they came.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub(crate) fn read(&self, slot: TimeSlot) -> Result<Vec<T>, Failure> {
        self.slots.get(&slot).map_or_else(|| Ok(Vec::new()), |kept| self.read_kept(kept))
    }

    /// As [`BySlot::read`]; the slot has no records afterwards.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub(crate) fn take(&mut self, slot: TimeSlot) -> Result<Vec<T>, Failure> {
        let Some(kept) = self.slots.remove(&slot) else { return Ok(Vec::new()) };
        self.buffered -= kept.buffer.len();
        self.read_kept(&kept)
    }

    fn read_kept(&self, kept: &Kept) -> Result<Vec<T>, Failure> {
        let mut records = Vec::new();
        for (offset, length) in &kept.blocks {
            let mut bytes = vec![0; *length as usize];
            self.file.read_exact_at(&mut bytes, *offset).map_err(failed)?;
            let mut lines = Vec::new();
            zstd::Decoder::new(&bytes[..])
                .and_then(|mut decoder| decoder.read_to_end(&mut lines))
                .map_err(failed)?;
            read_lines(&lines, &mut records)?;
        }
        read_lines(&kept.buffer, &mut records)?;
        Ok(records)
    }
}

impl BySlot<Logged> {
    /// Keeps what a commit says.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub(crate) fn keep(&mut self, met: Met) -> Result<(), Failure> {
        let (recorder, generation, seq) = met.id;
        for entry in &met.commit.content.segments {
            self.keep_objects(&Segment::of(recorder, generation, seq, entry.clone()))?;
        }
        for (slot, facts) in split(met.commit.content) {
            let sha256 = met.sha256.clone();
            let only_objects = false;
            self.push(slot, &Logged { recorder, generation, seq, sha256, facts, only_objects })?;
        }
        Ok(())
    }

    /// Keeps that a segment's objects lie in an hour, if it is too wide for that hour's manifest to say so.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub(crate) fn keep_objects(&mut self, segment: &Segment) -> Result<(), Failure> {
        let slot = TimeSlot::Hour(segment.entry.hour);
        if TimeSlot::of_segment(&segment.entry).contains(&slot) {
            return Ok(());
        }
        let facts = SlotFacts { segments: vec![segment.entry.clone()], ..SlotFacts::default() };
        let ((recorder, generation), seq) = (segment.by, segment.seq);
        let (sha256, only_objects) = (String::new(), true);
        self.push(slot, &Logged { recorder, generation, seq, sha256, facts, only_objects })
    }
}

fn read_lines<T: DeserializeOwned>(lines: &[u8], into: &mut Vec<T>) -> Result<(), Failure> {
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let read = serde_json::from_slice(line).map_err(|error| {
            Failure::caused_by(
                FailureKind::Other,
                "a temporary file is not what was written",
                error,
            )
        })?;
        into.push(read);
    }
    Ok(())
}
