//! The log of a repair: the segments that it names, and the commits that it replaces.

use capstan_model::{Failure, RecorderId};
use sha2::{Digest, Sha256};

use super::Options;
use crate::catalog::{CommitDraft, Finished, Recorder, SegmentEntry, WriterInfo, WriterKind};
use crate::store::Store;

/// Segments in one commit.
const SEGMENTS: usize = 64;

/// The log in which a repair names segments, begun with the first of them.
pub(super) struct RepairLog<'a> {
    store: &'a Store,
    options: &'a Options,
    recorder: Option<Recorder>,
    /// Those that are in no commit yet.
    waiting: Vec<SegmentEntry>,
    /// Those that a commit in doubt names, too.
    in_doubt: Vec<SegmentEntry>,
    /// How many segments, and their packets.
    named: (u64, u64),
}

impl<'a> RepairLog<'a> {
    pub(super) fn new(store: &'a Store, options: &'a Options) -> Self {
        let (waiting, in_doubt) = (Vec::new(), Vec::new());
        RepairLog { store, options, recorder: None, waiting, in_doubt, named: (0, 0) }
    }

    /// Names a segment. If a commit in doubt names it, too, that comes in the commit that says that the one in
    /// doubt is replaced: so readers find the segment once at any time.
    pub(super) async fn name(
        &mut self,
        entry: SegmentEntry,
        is_in_doubt: bool,
    ) -> Result<(), Failure> {
        let (segments, packets) = &mut self.named;
        *segments += 1;
        *packets = packets.saturating_add(entry.packets);
        if is_in_doubt {
            self.in_doubt.push(entry);
            return Ok(());
        }
        self.waiting.push(entry);
        if self.waiting.len() >= SEGMENTS {
            let segments = std::mem::take(&mut self.waiting);
            self.commit(CommitDraft { segments, ..CommitDraft::default() }).await?;
        }
        Ok(())
    }

    /// Names what waits, and says which commits count no more; whether there was any of both.
    pub(super) async fn end(mut self, replaces: Vec<String>) -> Result<bool, Failure> {
        if self.named.0 == 0 && replaces.is_empty() {
            return Ok(false);
        }
        let mut segments = std::mem::take(&mut self.waiting);
        segments.append(&mut self.in_doubt);
        let finished = Some(Finished { complete: true, packets_total: self.named.1 });
        self.commit(CommitDraft { segments, replaces, finished, ..CommitDraft::default() }).await?;
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

/// Who repairs a store.
pub(super) fn repairer(store: &Store) -> RecorderId {
    let digest = Sha256::digest(format!("repair {}", store.format().cluster));
    let mut id = [0; 8];
    id.copy_from_slice(&digest[..8]);
    RecorderId(u64::from_be_bytes(id))
}
