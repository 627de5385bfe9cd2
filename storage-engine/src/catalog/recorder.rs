//! Appending to a log of one's own.
//!
//! A recorder that was away for more than a day finds that its log was [ended](super::fold::seal). It begins a new life then, and
//! commits there what it still has to. What it captures stays of the life in which it began: ids of packets go on
//! from where they were, and each segment says whose it is.

use bytes::Bytes;
use capstan_model::{Failure, FailureKind, Generation, RecorderId};
use futures::TryStreamExt;
use object_store::path::Path;

use super::chain::Chain;
use super::entry::{
    self, Commit, CommitDraft, EntryError, FORMAT, Owner, Writer, WriterInfo, to_json,
};
use super::fold::seal;
use crate::store::{Created, Store, names};

/// A recorder in one of its lives: the only one who may append to its log.
#[derive(Debug)]
pub struct Recorder {
    store: Store,
    info: WriterInfo,
    /// The life in which it began, to which what it captures belongs.
    first: Generation,
    chain: Chain,
    /// A commit that was sent and whose fate is not known.
    pending: Option<Pending>,
    /// Another process has written into this log.
    lost: bool,
}

#[derive(Debug)]
struct Pending {
    /// What was to be committed, as it was given.
    draft: CommitDraft,
    commit: Commit,
    bytes: Bytes,
}

impl Recorder {
    /// Begins a life: takes the next generation that nobody has.
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
        let (store, first) = (store.clone(), chain.owner().1);
        Ok(Recorder { store, info, first, chain, pending: None, lost: false })
    }

    /// Who it is.
    pub fn recorder(&self) -> RecorderId {
        self.chain.owner().0
    }

    /// In which life it began: what it captures is named by it.
    pub fn began(&self) -> Generation {
        self.first
    }

    /// In which life: another one after its log was ended while it was away.
    pub fn generation(&self) -> Generation {
        self.chain.owner().1
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
    /// [`FailureKind::AlreadyThere`] if another process writes this log, after which nothing
    /// can be committed in this life; else what the store says.
    pub async fn commit(&mut self, draft: CommitDraft) -> Result<Commit, Failure> {
        if self.lost {
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

    /// A draft as the next commit of the life that it is in now.
    fn next(&self, draft: CommitDraft) -> Result<Pending, Failure> {
        let (recorder, generation) = self.chain.owner();
        let mut content = draft.clone();
        if generation != self.first {
            let owner = Owner { recorder, generation: self.first };
            content.segments.iter_mut().for_each(|of| of.owner = of.owner.or(Some(owner)));
            if self.chain.next() == 0 && content.note.is_empty() {
                content.note = format!("goes on from a log that was {}", seal::NOTE);
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
            let (recorder, generation) = self.chain.owner();
            let path = names::commit(recorder, generation, commit.seq);
            match self.store.create(&path, bytes.clone()).await? {
                Created::Lost if self.was_ended(&path).await? => self.begin_again().await?,
                Created::Lost => {
                    self.lost = true;
                    self.pending = None;
                    return Err(self.not_ours());
                }
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

    /// Whether a folder has ended the log with this entry, as nothing was committed for a day.
    async fn was_ended(&self, path: &Path) -> Result<bool, Failure> {
        let bytes = self.store.get(path).await?;
        let commit = entry::read::<Commit>(&bytes);
        Ok(commit.is_ok_and(|of| of.content.finished.is_some() && of.content.note == seal::NOTE))
    }

    /// Begins a new life, whose first commit is the pending one.
    async fn begin_again(&mut self) -> Result<(), Failure> {
        let (recorder, before) = self.chain.owner();
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
        let (recorder, generation) = self.chain.owner();
        Failure::new(
            FailureKind::AlreadyThere,
            format!(
                "another process writes the log of recorder {recorder} generation {generation} in {}: \
                 this one stops committing; start it again for a generation of its own",
                self.store.place()
            ),
        )
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
        if generation > Generation::MAX {
            return Err(Failure::new(
                FailureKind::Full,
                format!("recorder {recorder} has used up its generations: give it another id"),
            ));
        }
        let writer = Writer {
            format: FORMAT,
            recorder,
            generation,
            info: info.clone(),
            capstan_version: env!("CARGO_PKG_VERSION").to_owned(),
            nonce: store.nonce(),
        };
        let bytes = to_json(&writer)?;
        match store.create(&names::writer(recorder, generation), bytes.clone()).await? {
            Created::Created => {
                // Whoever looks for logs finds this one before its first commit.
                store.put_new(&names::open(recorder, generation), Vec::new()).await?;
                return Ok(Chain::new(recorder, generation, Some(&bytes)));
            }
            Created::Lost => generation = Generation(generation.0 + 1),
        }
    }
}

/// One more than the highest generation there is.
async fn next_generation(store: &Store, recorder: RecorderId) -> Result<Generation, Failure> {
    let taken: Vec<_> = store.list(&names::writers(Some(recorder))).try_collect().await?;
    let highest = taken
        .iter()
        .filter_map(|listed| names::parse_writer(&listed.path))
        .map(|(_, generation)| generation.0)
        .max();
    Ok(Generation(highest.map_or(1, |highest| highest.saturating_add(1))))
}
