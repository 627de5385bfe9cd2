//! Appends to the log that this process owns.
//!
//! An import whose log was ended stops: another process may continue it ([`succession`]). A recorder that was offline
//! for more than a day finds its log [ended](super::rollup::silent). It then begins a new generation and commits the
//! rest there. Captured packets keep the generation in which the recorder began: their ids continue, and each segment
//! names that generation.

use bytes::Bytes;
use capstan_model::{Failure, FailureKind, Generation, GenerationId, RecorderId};
use futures::TryStreamExt;
use object_store::path::Path;

use super::chain::Chain;
use super::entry::{
    self, Commit, CommitDraft, EntryError, Finished, PLAIN, Writer, WriterInfo, to_json,
};
use super::fact::Fact;
use super::rollup::silent;
use super::succession;
use crate::catalog::names;
use crate::store::{Created, Store};

/// A recorder in one generation: the only process that may append to its log.
#[derive(Debug)]
pub struct Recorder {
    store: Store,
    info: WriterInfo,
    /// The generation in which the recorder began. Captured packets belong to it.
    first: Generation,
    chain: Chain,
    /// A commit that was sent and whose outcome is unknown.
    pending: Option<Pending>,
    /// Another process has written into this log. The text says why no more commits are possible.
    lost: Option<String>,
    /// What to do when another process has ended the log.
    when_ended: WhenEnded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WhenEnded {
    /// Continue in a new generation: no other process has the captured packets.
    BeginAgain,
    /// Stop: uncommitted packets can be read again, possibly by another process already.
    Stop,
}

#[derive(Debug)]
struct Pending {
    /// The draft, as the caller gave it.
    draft: CommitDraft,
    commit: Commit,
    bytes: Bytes,
}

impl Recorder {
    /// Begins a generation: takes the next free number.
    ///
    /// # Errors
    ///
    /// Errors of the store; [`FailureKind::Full`] when all 16 million generations are used.
    pub async fn start(
        store: &Store,
        recorder: RecorderId,
        info: WriterInfo,
    ) -> Result<Recorder, Failure> {
        let chain = register(store, recorder, &info).await?;
        Ok(Recorder::of(store, info, chain, WhenEnded::BeginAgain))
    }

    /// Begins the generation with this number, after [`succession::look`] has found that all earlier ones have ended.
    /// None if another process created it first. Other processes can take over its work, so it must show a [sign of
    /// life](Recorder::sign) every [`succession::SIGN_EVERY`].
    ///
    /// # Errors
    ///
    /// Like [`Recorder::start`].
    pub async fn succeed(
        store: &Store,
        recorder: RecorderId,
        generation: Generation,
        info: WriterInfo,
    ) -> Result<Option<Recorder>, Failure> {
        let chain = register_as(store, GenerationId::new(recorder, generation), &info).await?;
        Ok(chain.map(|chain| Recorder::of(store, info, chain, WhenEnded::Stop)))
    }

    fn of(store: &Store, info: WriterInfo, chain: Chain, when_ended: WhenEnded) -> Recorder {
        let (store, first) = (store.clone(), chain.id().generation);
        Recorder { store, info, first, chain, pending: None, lost: None, when_ended }
    }

    /// Whether another process may take over its work while this process lives.
    pub fn may_be_succeeded(&self) -> bool {
        self.when_ended == WhenEnded::Stop
    }

    /// Whether it has made its last commit.
    pub fn is_finished(&self) -> bool {
        self.chain.finished()
    }

    /// Appends an empty commit, as a sign of life.
    ///
    /// # Errors
    ///
    /// Like [`Recorder::commit`].
    pub async fn sign(&mut self) -> Result<(), Failure> {
        let next_ordinal = self.chain.next_ordinal();
        self.commit(CommitDraft { next_ordinal, ..CommitDraft::default() }).await.map(drop)
    }

    /// Its id.
    pub fn recorder(&self) -> RecorderId {
        self.chain.id().recorder
    }

    /// The generation in which it began: names of captured data use it.
    pub fn began(&self) -> Generation {
        self.first
    }

    /// The current generation. It differs if the log was ended while the recorder was offline.
    pub fn generation(&self) -> Generation {
        self.chain.id().generation
    }

    /// Appends a commit. The layers of its segments must be in the store already.
    ///
    /// If this fails with an unknown outcome, the commit stays pending. A second call with the same draft settles it
    /// and does not write it twice. Another draft is appended after the pending one.
    ///
    /// # Errors
    ///
    /// [`FailureKind::Usage`] if the draft contradicts itself or the log is finished; [`FailureKind::Busy`] if
    /// another process writes or has ended this log, after which this generation can commit nothing; otherwise errors
    /// of the store.
    pub async fn commit(&mut self, draft: CommitDraft) -> Result<Commit, Failure> {
        if self.lost.is_some() {
            return Err(self.not_ours());
        }
        if let Some(pending) = &self.pending {
            let same = pending.draft == draft;
            if let Some(commit) = self.create_pending().await?.filter(|_| same) {
                return Ok(commit);
            }
        }
        self.pending = Some(self.next(draft)?);
        self.create_pending().await?.ok_or_else(|| self.not_ours())
    }

    /// Ends the log with a last commit that declares the work incomplete.
    ///
    /// # Errors
    ///
    /// Like [`Recorder::commit`].
    pub async fn give_up(&mut self) -> Result<(), Failure> {
        let finished = Some(Finished { complete: false, packets_total: 0 });
        let next_ordinal = self.chain.next_ordinal();
        let draft = CommitDraft { next_ordinal, finished, ..CommitDraft::default() };
        self.commit(draft).await.map(drop)
    }

    /// Turns a draft into the next commit of the current generation.
    fn next(&self, draft: CommitDraft) -> Result<Pending, Failure> {
        let GenerationId { recorder, generation } = self.chain.id();
        let mut content = draft.clone();
        if generation != self.first {
            let owner = GenerationId::new(recorder, self.first);
            for fact in &mut content.facts {
                if let Fact::Segment(entry) = fact {
                    entry.owner = entry.owner.or(Some(owner));
                }
            }
            if self.chain.next() == 0 && content.note.is_empty() {
                content.note = format!("continues a log that was {}", silent::NOTE);
            }
        }
        let wrong = |error: EntryError| {
            let what =
                format!("the next commit of recorder {recorder} generation {generation} is wrong");
            Failure::caused_by(FailureKind::Usage, what, error)
        };
        let (now, nonce) = (self.store.now(), self.store.nonce());
        let commit = self.chain.next_commit(content, now, nonce).map_err(wrong)?;
        let bytes = to_json(&commit)?;
        Ok(Pending { draft, commit, bytes })
    }

    /// Creates the pending commit, if there is one, and finds out which process owns the number.
    async fn create_pending(&mut self) -> Result<Option<Commit>, Failure> {
        loop {
            let Some(Pending { commit, bytes, .. }) = &self.pending else { return Ok(None) };
            let path = names::commit(self.chain.id(), commit.seq);
            match self.store.create(&path, bytes.clone()).await? {
                Created::Lost => match self.ended_by(&path).await? {
                    Some(note) if note == silent::NOTE && !self.may_be_succeeded() => {
                        self.begin_again().await?;
                    }
                    note => {
                        self.lost = Some(self.why_lost(note));
                        self.pending = None;
                        return Err(self.not_ours());
                    }
                },
                Created::Created => {
                    let mut problems = Vec::new();
                    let followed = self.chain.follow(commit.seq, bytes, &mut problems);
                    self.pending = None;
                    return match (followed, problems.pop()) {
                        (Some(commit), None) => Ok(Some(commit)),
                        (_, Some(problem)) => Err(Failure::caused_by(
                            FailureKind::Damaged,
                            format!("the commit {path} just written is wrong"),
                            problem,
                        )),
                        (None, None) => Ok(None),
                    };
                }
            }
        }
    }

    /// The note of another process that has ended the log with this entry; none if the entry is something else.
    async fn ended_by(&self, path: &Path) -> Result<Option<String>, Failure> {
        let bytes = self.store.get(path).await?;
        let ended = entry::read::<Commit>(&bytes).ok().filter(|of| of.content.finished.is_some());
        Ok(ended.map(|of| of.content.note))
    }

    /// Why no more commits are possible: the note of the process that ended the log, if one did.
    fn why_lost(&self, note: Option<String>) -> String {
        let GenerationId { recorder, generation } = self.chain.id();
        let place = self.store.place();
        match note {
            Some(note) if note == silent::NOTE || note.starts_with(succession::NOTE) => format!(
                "generation {generation} of recorder {recorder} in {place} was {note}: this \
                 process was paused or cut off from the store, and stops committing"
            ),
            _ => format!(
                "another process writes the log of recorder {recorder} generation {generation} in \
                 {place}: this process stops committing; restart it to get its own generation"
            ),
        }
    }

    /// Begins a new generation, whose first commit is the pending one.
    async fn begin_again(&mut self) -> Result<(), Failure> {
        let GenerationId { recorder, generation: before } = self.chain.id();
        let info =
            WriterInfo { resumes: Some(before), started_at: self.store.now(), ..self.info.clone() };
        self.chain = register(&self.store, recorder, &info).await?;
        if let Some(pending) = self.pending.take() {
            self.pending = Some(self.next(pending.draft)?);
        }
        tracing::warn!(
            "generation {before} of recorder {recorder} was ended after a day without a commit: \
             continuing as generation {}, and nothing is lost",
            self.generation()
        );
        Ok(())
    }

    fn not_ours(&self) -> Failure {
        let what = self.lost.clone().unwrap_or_else(|| self.why_lost(None));
        Failure::new(FailureKind::Busy, what)
    }
}

/// Takes the next free generation: its log, before its first commit.
async fn register(
    store: &Store,
    recorder: RecorderId,
    info: &WriterInfo,
) -> Result<Chain, Failure> {
    let mut generation = next_generation(store, recorder).await?;
    loop {
        if let Some(chain) =
            register_as(store, GenerationId::new(recorder, generation), info).await?
        {
            return Ok(chain);
        }
        generation = Generation(generation.0 + 1);
    }
}

/// Takes this generation: its log, before its first commit; none if another process has it.
async fn register_as(
    store: &Store,
    of: GenerationId,
    info: &WriterInfo,
) -> Result<Option<Chain>, Failure> {
    let GenerationId { recorder, generation } = of;
    if generation > Generation::MAX {
        return Err(Failure::new(
            FailureKind::Full,
            format!("recorder {recorder} has reached the maximum generation: give it another id"),
        ));
    }
    let writer = Writer {
        format: PLAIN,
        recorder,
        generation,
        info: info.clone(),
        capstan_version: env!("CARGO_PKG_VERSION").to_owned(),
        nonce: store.nonce(),
    };
    let bytes = to_json(&writer)?;
    match store.create(&names::writer(of), bytes.clone()).await? {
        Created::Created => {
            // A process that looks for open logs finds this one before its first commit.
            store.put_new(&names::open(of), Vec::new()).await?;
            Ok(Some(Chain::new(of, Some(&bytes))))
        }
        Created::Lost => Ok(None),
    }
}

/// One more than the highest existing generation.
async fn next_generation(store: &Store, recorder: RecorderId) -> Result<Generation, Failure> {
    let taken: Vec<_> = store.list(&names::writers(Some(recorder))).try_collect().await?;
    let highest = taken
        .iter()
        .filter_map(|listed| names::parse_writer(&listed.path))
        .map(|of| of.generation.0)
        .max();
    Ok(Generation(highest.map_or(1, |highest| highest.saturating_add(1))))
}
