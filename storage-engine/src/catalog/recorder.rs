//! Appending to a log of one's own.
//!
//! An import whose log was ended stops: another process may go on with it ([`succession`]). A recorder that was away for more than a day finds that its log was [ended](super::rollup::silent). It begins a new generation then, and
//! commits there what it still has to. What it captures stays of the generation in which it began: ids of packets go on
//! from where they were, and each segment says whose it is.

use bytes::Bytes;
use capstan_model::{Failure, FailureKind, Generation, GenerationId, RecorderId};
use futures::TryStreamExt;
use object_store::path::Path;

use super::chain::Chain;
use super::entry::{
    self, BEFORE_CHANGES, Commit, CommitDraft, EntryError, Finished, Writer, WriterInfo, to_json,
};
use super::fact::Fact;
use super::rollup::silent;
use super::succession;
use crate::store::{Created, Store, names};

/// A recorder in one of its generations: the only one who may append to its log.
#[derive(Debug)]
pub struct Recorder {
    store: Store,
    info: WriterInfo,
    /// The generation in which it began, to which what it captures belongs.
    first: Generation,
    chain: Chain,
    /// A commit that was sent and whose fate is not known.
    pending: Option<Pending>,
    /// Another process has written into this log: why nothing more can be committed.
    lost: Option<String>,
    /// What is done when others have ended its log.
    when_ended: WhenEnded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WhenEnded {
    /// It goes on in a new generation: nobody else can record what it has.
    BeginAgain,
    /// It stops: what it has not committed can be read again, and another process may be doing so.
    Stop,
}

#[derive(Debug)]
struct Pending {
    /// What was to be committed, as it was given.
    draft: CommitDraft,
    commit: Commit,
    bytes: Bytes,
}

impl Recorder {
    /// Begins a generation: takes the next generation that nobody has.
    ///
    /// # Errors
    ///
    /// What the store says; [`FailureKind::Full`] when all 16 million generations are used.
    pub async fn start(
        store: &Store,
        recorder: RecorderId,
        info: WriterInfo,
    ) -> Result<Recorder, Failure> {
        let chain = register(store, recorder, &info).await?;
        Ok(Recorder::of(store, info, chain, WhenEnded::BeginAgain))
    }

    /// Begins the generation with this number, after [`succession::look`] has found that all earlier ones have ended; none if another
    /// process was faster. Its work can be gone on with by others, so it must show a [sign of life](Recorder::sign)
    /// every [`succession::SIGN_EVERY`].
    ///
    /// # Errors
    ///
    /// As [`Recorder::start`].
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

    /// Whether others may go on with its work while this process lives.
    pub fn may_be_succeeded(&self) -> bool {
        self.when_ended == WhenEnded::Stop
    }

    /// Whether its last commit is made.
    pub fn is_finished(&self) -> bool {
        self.chain.finished()
    }

    /// Commits that it lives, and nothing else.
    ///
    /// # Errors
    ///
    /// As [`Recorder::commit`].
    pub async fn sign(&mut self) -> Result<(), Failure> {
        let next_ordinal = self.chain.next_ordinal();
        self.commit(CommitDraft { next_ordinal, ..CommitDraft::default() }).await.map(drop)
    }

    /// Who it is.
    pub fn recorder(&self) -> RecorderId {
        self.chain.id().recorder
    }

    /// In which generation it began: what it captures is named by it.
    pub fn began(&self) -> Generation {
        self.first
    }

    /// In which generation: another one after its log was ended while it was away.
    pub fn generation(&self) -> Generation {
        self.chain.id().generation
    }

    /// Appends a commit. The layers of its segments must be in the store already.
    ///
    /// If this fails and it cannot be told whether the commit is there, it stays pending: call
    /// again with the same draft and it is settled, not written twice. Another draft is
    /// appended after the pending one.
    ///
    /// # Errors
    ///
    /// [`FailureKind::Usage`] if the draft contradicts itself or the log is finished;
    /// [`FailureKind::Busy`] if another process writes or has ended this log, after which nothing
    /// can be committed in this generation; else what the store says.
    pub async fn commit(&mut self, draft: CommitDraft) -> Result<Commit, Failure> {
        if self.lost.is_some() {
            return Err(self.not_ours());
        }
        if let Some(pending) = &self.pending {
            let same = pending.draft == draft;
            if let Some(commit) = self.settle().await?.filter(|_| same) {
                return Ok(commit);
            }
        }
        self.pending = Some(self.next(draft)?);
        self.settle().await?.ok_or_else(|| self.not_ours())
    }

    /// Commits that nothing follows, though not all is committed that was to be.
    ///
    /// # Errors
    ///
    /// As [`Recorder::commit`].
    pub async fn give_up(&mut self) -> Result<(), Failure> {
        let finished = Some(Finished { complete: false, packets_total: 0 });
        let next_ordinal = self.chain.next_ordinal();
        let draft = CommitDraft { next_ordinal, finished, ..CommitDraft::default() };
        self.commit(draft).await.map(drop)
    }

    /// A draft as the next commit of the generation that it is in now.
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
                content.note = format!("goes on from a log that was {}", silent::NOTE);
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

    /// Creates the pending commit, if there is one, and learns whose the number is.
    async fn settle(&mut self) -> Result<Option<Commit>, Failure> {
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

    /// What another process noted that has ended the log with this entry; none if it is anything else.
    async fn ended_by(&self, path: &Path) -> Result<Option<String>, Failure> {
        let bytes = self.store.get(path).await?;
        let ended = entry::read::<Commit>(&bytes).ok().filter(|of| of.content.finished.is_some());
        Ok(ended.map(|of| of.content.note))
    }

    /// Why nothing more can be committed: the note of who has ended the log, if that is what happened.
    fn why_lost(&self, note: Option<String>) -> String {
        let GenerationId { recorder, generation } = self.chain.id();
        let place = self.store.place();
        match note {
            Some(note) if note == silent::NOTE || note.starts_with(succession::NOTE) => format!(
                "generation {generation} of recorder {recorder} in {place} was {note}: this process was paused or cut off \
                 from the store, and commits nothing more"
            ),
            _ => format!(
                "another process writes the log of recorder {recorder} generation {generation} in {place}: this one stops \
                 committing; start it again for a generation of its own"
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
            "nothing was committed for a day, and generation {before} of recorder {recorder} was ended meanwhile: \
             going on as generation {}, and nothing is lost",
            self.generation()
        );
        Ok(())
    }

    fn not_ours(&self) -> Failure {
        let what = self.lost.clone().unwrap_or_else(|| self.why_lost(None));
        Failure::new(FailureKind::Busy, what)
    }
}

/// Takes the next generation that nobody has: its log, before its first commit.
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
            format!("recorder {recorder} has used up its generations: give it another id"),
        ));
    }
    let writer = Writer {
        format: BEFORE_CHANGES,
        recorder,
        generation,
        info: info.clone(),
        capstan_version: env!("CARGO_PKG_VERSION").to_owned(),
        nonce: store.nonce(),
    };
    let bytes = to_json(&writer)?;
    match store.create(&names::writer(of), bytes.clone()).await? {
        Created::Created => {
            // Whoever looks for logs finds this one before its first commit.
            store.put_new(&names::open(of), Vec::new()).await?;
            Ok(Some(Chain::new(of, Some(&bytes))))
        }
        Created::Lost => Ok(None),
    }
}

/// One more than the highest generation there is.
async fn next_generation(store: &Store, recorder: RecorderId) -> Result<Generation, Failure> {
    let taken: Vec<_> = store.list(&names::writers(Some(recorder))).try_collect().await?;
    let highest = taken
        .iter()
        .filter_map(|listed| names::parse_writer(&listed.path))
        .map(|of| of.generation.0)
        .max();
    Ok(Generation(highest.map_or(1, |highest| highest.saturating_add(1))))
}
