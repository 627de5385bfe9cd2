//! The log of a repair: the segments that it names, and the commits that it replaces.

use capstan_model::{Failure, RecorderId};
use sha2::{Digest, Sha256};

use super::Options;
use crate::catalog::{CommitDraft, Fact, Finished, Recorder, SegmentEntry, WriterInfo, WriterKind};
use crate::store::Store;

/// Segments in one commit.
const SEGMENTS: usize = 64;

/// The log in which a repair names segments. It begins with the first segment.
pub(super) struct RepairLog<'a> {
    store: &'a Store,
    options: &'a Options,
    recorder: Option<Recorder>,
    /// Entries that are in no commit yet.
    waiting: Vec<SegmentEntry>,
    /// Number of named segments, and their packets.
    named: (u64, u64),
}

impl<'a> RepairLog<'a> {
    pub(super) fn new(store: &'a Store, options: &'a Options) -> Self {
        RepairLog { store, options, recorder: None, waiting: Vec::new(), named: (0, 0) }
    }

    /// Names a segment that no commit names.
    pub(super) async fn name(&mut self, entry: SegmentEntry) -> Result<(), Failure> {
        self.count(&entry);
        self.waiting.push(entry);
        if self.waiting.len() >= SEGMENTS {
            let facts = std::mem::take(&mut self.waiting).into_iter().map(Fact::Segment).collect();
            self.commit(CommitDraft { facts, ..CommitDraft::default() }).await?;
        }
        Ok(())
    }

    fn count(&mut self, entry: &SegmentEntry) {
        let (segments, packets) = &mut self.named;
        *segments += 1;
        *packets = packets.saturating_add(entry.packets);
    }

    /// Commits the waiting entries, and the list of replaced commits; returns whether there was anything to commit.
    /// `in_doubt`: segments that the replaced commits name. They are in the same commit as that list, so that readers
    /// always find each such segment once.
    pub(super) async fn end(
        mut self,
        in_doubt: impl Iterator<Item = SegmentEntry>,
        replaces: Vec<String>,
    ) -> Result<bool, Failure> {
        let in_doubt: Vec<SegmentEntry> = in_doubt.collect();
        in_doubt.iter().for_each(|entry| self.count(entry));
        if self.named.0 == 0 && replaces.is_empty() {
            return Ok(false);
        }
        let mut segments = std::mem::take(&mut self.waiting);
        segments.extend(in_doubt);
        let facts = segments.into_iter().map(Fact::Segment).collect();
        let finished = Some(Finished { complete: true, packets_total: self.named.1 });
        self.commit(CommitDraft { facts, replaces, finished, ..CommitDraft::default() }).await?;
        Ok(true)
    }

    async fn commit(&mut self, draft: CommitDraft) -> Result<(), Failure> {
        if self.options.dry_run {
            return Ok(());
        }
        let recorder = match &mut self.recorder {
            Some(recorder) => recorder,
            none => {
                let info = WriterInfo {
                    kind: WriterKind::Repair,
                    description: "segments whose commits are lost".to_owned(),
                    host: self.options.host.clone(),
                    source: None,
                    resumes: None,
                    started_at: self.store.now(),
                };
                none.insert(Recorder::start(self.store, repairer(self.store), info).await?)
            }
        };
        recorder.commit(draft).await?;
        Ok(())
    }
}

/// Recorder id of a cluster's repairs.
pub(super) fn repairer(store: &Store) -> RecorderId {
    let digest = Sha256::digest(format!("repair {}", store.format().cluster));
    let mut id = [0; 8];
    id.copy_from_slice(&digest[..8]);
    RecorderId(u64::from_be_bytes(id))
}
