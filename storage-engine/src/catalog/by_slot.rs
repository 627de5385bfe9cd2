//! Records sorted by slot, kept in a temporary file until their slot is processed.
//!
//! Logs are read one after the other, but the comparison goes hour by hour. The records wait on disk, so memory stays
//! bounded.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;

use capstan_model::{Failure, FailureKind, Hour};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::commit_id::CommitId;
use super::fact::Fact;
use super::facts::split;
use super::segment_entry::SegmentEntry;
use super::slot::TimeSlot;
use super::state::KnownFact;
use super::walk::Met;

/// Bytes that are buffered in memory before a write.
const BUFFERED: usize = 16 << 20;

/// zstd level of the file: it is read once, soon.
const LEVEL: i32 = 1;

/// The facts of one commit about one slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Logged {
    /// The commit.
    pub(crate) by: CommitId,
    /// SHA-256 of the commit's bytes, hex.
    pub(crate) sha256: String,
    /// The facts.
    pub(crate) facts: Vec<Fact>,
    /// The objects of these segments lie in this slot, but its manifest does not list them: the segments are wide.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) only_objects: bool,
}

impl Logged {
    /// The facts of kinds that this version knows.
    pub(crate) fn into_facts(self) -> impl Iterator<Item = KnownFact> {
        let Logged { by, facts, .. } = self;
        facts.into_iter().filter_map(move |fact| KnownFact::of(by, fact))
    }
}

/// Records of type `T`, by slot. See the module.
#[derive(Debug)]
pub(crate) struct BySlot<T> {
    /// The file has no name, so a crash leaves nothing behind.
    file: File,
    end: u64,
    slots: BTreeMap<TimeSlot, Kept>,
    buffered: usize,
    records: PhantomData<T>,
}

/// The records of one slot.
#[derive(Debug, Default)]
struct Kept {
    /// Lines of JSON that are not written yet.
    buffer: Vec<u8>,
    /// Offset and length of each block in the file.
    blocks: Vec<(u64, u32)>,
}

fn failed(error: std::io::Error) -> Failure {
    Failure::io("cannot use a temporary file for catalog facts", error)
}

impl<T: Serialize + DeserializeOwned> BySlot<T> {
    /// Creates an empty set.
    ///
    /// # Errors
    /// The temporary file cannot be created.
    pub(crate) fn new() -> Result<BySlot<T>, Failure> {
        let file = tempfile::tempfile().map_err(failed)?;
        Ok(BySlot { file, end: 0, slots: BTreeMap::new(), buffered: 0, records: PhantomData })
    }

    /// Adds a record.
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

    /// All records of a slot, in the order in which they were added.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub(crate) fn read(&self, slot: TimeSlot) -> Result<Vec<T>, Failure> {
        self.slots.get(&slot).map_or_else(|| Ok(Vec::new()), |kept| self.read_kept(kept))
    }

    /// Like [`BySlot::read`], but also removes the records of the slot.
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
    /// Adds the facts of a commit.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub(crate) fn keep(&mut self, met: Met) -> Result<(), Failure> {
        let by = met.id;
        for entry in met.commit.content.segments() {
            self.keep_far_objects(by, entry)?;
        }
        for (slot, facts) in split(met.commit.content.facts) {
            let sha256 = met.sha256.clone();
            self.push(slot, &Logged { by, sha256, facts, only_objects: false })?;
        }
        Ok(())
    }

    /// Adds facts about wide segments to the hour in which their objects lie: the manifest of that hour does not list
    /// them.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub(crate) fn keep_objects(&mut self, wide: Vec<KnownFact>) -> Result<(), Failure> {
        let mut hours: BTreeMap<&str, Hour> = BTreeMap::new();
        for fact in &wide {
            if let KnownFact::Segment(segment) = fact {
                self.keep_far_objects(segment.by, &segment.entry)?;
                hours.insert(&segment.entry.name, segment.entry.hour);
            }
        }
        for fact in &wide {
            let KnownFact::Change(change) = fact else { continue };
            let Some(hour) = hours.get(change.fact.segment.as_str()) else { continue };
            if !change.fact.slots.contains(&TimeSlot::Hour(*hour)) {
                let facts = vec![Fact::Change(change.fact.clone())];
                self.keep_far(fact.commit(), *hour, facts)?;
            }
        }
        Ok(())
    }

    fn keep_far_objects(&mut self, by: CommitId, entry: &SegmentEntry) -> Result<(), Failure> {
        if entry.slots().contains(&TimeSlot::Hour(entry.hour)) {
            return Ok(());
        }
        self.keep_far(by, entry.hour, vec![Fact::Segment(entry.clone())])
    }

    fn keep_far(&mut self, by: CommitId, hour: Hour, facts: Vec<Fact>) -> Result<(), Failure> {
        let logged = Logged { by, sha256: String::new(), facts, only_objects: true };
        self.push(TimeSlot::Hour(hour), &logged)
    }
}

fn read_lines<T: DeserializeOwned>(lines: &[u8], into: &mut Vec<T>) -> Result<(), Failure> {
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let read = serde_json::from_slice(line).map_err(|error| {
            Failure::caused_by(FailureKind::Other, "a temporary file is damaged", error)
        })?;
        into.push(read);
    }
    Ok(())
}
