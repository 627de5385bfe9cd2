//! Appending to a log of one's own.

use bytes::Bytes;
use capstan_model::{Failure, FailureKind, Generation, RecorderId};
use futures::TryStreamExt;

use super::chain::Chain;
use super::entry::{Commit, CommitDraft, FORMAT, Writer, WriterInfo, to_json};
use crate::store::{Created, Store, names};

/// A recorder in one of its lives: the only one who may append to its log.
#[derive(Debug)]
pub struct Recorder {
    store: Store,
    chain: Chain,
    /// A commit that was sent and whose fate is not known.
    pending: Option<Pending>,
    /// Another process has written into this log.
    lost: bool,
}

#[derive(Debug)]
struct Pending {
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
                    let chain = Chain::new(recorder, generation, Some(&bytes));
                    let store = store.clone();
                    return Ok(Recorder { store, chain, pending: None, lost: false });
                }
                Created::Lost => generation = Generation(generation.0 + 1),
            }
        }
    }

    /// Who it is.
    pub fn recorder(&self) -> RecorderId {
        self.chain.owner().0
    }

    /// In which life.
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
            let same = pending.commit.content == draft;
            if let Some(commit) = self.settle().await?.filter(|_| same) {
                return Ok(commit);
            }
        }
        let commit = self.chain.next_commit(draft, self.store.now(), self.store.nonce()).map_err(
            |error| {
                let (recorder, generation) = self.chain.owner();
                Failure::caused_by(
                    FailureKind::Usage,
                    format!(
                        "the next commit of recorder {recorder} generation {generation} is wrong"
                    ),
                    error,
                )
            },
        )?;
        let bytes = to_json(&commit)?;
        self.pending = Some(Pending { commit, bytes });
        self.settle().await?.ok_or_else(|| self.not_ours())
    }

    /// Creates the pending commit, if there is one, and learns whose the number is.
    async fn settle(&mut self) -> Result<Option<Commit>, Failure> {
        let Some(Pending { commit, bytes }) = &self.pending else { return Ok(None) };
        let (recorder, generation) = self.chain.owner();
        let path = names::commit(recorder, generation, commit.seq);
        match self.store.create(&path, bytes.clone()).await? {
            Created::Lost => {
                self.lost = true;
                self.pending = None;
                Err(self.not_ours())
            }
            Created::Created => {
                let mut problems = Vec::new();
                let followed = self.chain.follow(commit.seq, bytes, &mut problems);
                self.pending = None;
                match (followed, problems.pop()) {
                    (Some(commit), None) => Ok(Some(commit)),
                    (_, Some(problem)) => Err(Failure::caused_by(
                        FailureKind::Damaged,
                        format!("the commit {path} just written is wrong"),
                        problem,
                    )),
                    (None, None) => Ok(None),
                }
            }
        }
    }

    fn not_ours(&self) -> Failure {
        let (recorder, generation) = self.chain.owner();
        Failure::new(
            FailureKind::AlreadyThere,
            format!(
                "another process writes the log of recorder {recorder} generation {generation} in {}, or \
                 has ended it after a day without a commit: this one stops committing; start it again \
                 for a generation of its own",
                self.store.place()
            ),
        )
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
