//! Places that keep the guarantee, and servers that break it in each known way.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::*;
use crate::store::env::{SystemEnv, jitter_of};
use crate::store::place::Place;
use crate::store::unreliable::{Mishap, Unreliable};

/// How a server lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Yes to every create.
    Overwrites,
    /// It looks whether the name is free and writes a while later: of calls that do not overlap
    /// one wins. Calls reach it at different times.
    LooksThenWrites { reach_within: Duration, writes_after: Duration },
    /// The first is told that it won; what the others wrote is kept.
    KeepsTheLast,
}

#[derive(Debug)]
struct Lying {
    inner: InMemory,
    lie: Lie,
}

impl Lying {
    fn new(lie: Lie) -> Lying {
        Lying { inner: InMemory::new(), lie }
    }
}

impl fmt::Display for Lying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.lie)
    }
}

fn taken(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "412".into() }
}

#[async_trait::async_trait]
impl ObjectStore for Lying {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        options.mode = PutMode::Overwrite;
        let is_taken = async || self.inner.head(location).await.is_ok();
        match self.lie {
            Lie::Overwrites => self.inner.put_opts(location, payload, options).await,
            Lie::LooksThenWrites { reach_within, writes_after } => {
                tokio::time::sleep(jitter_of(&SystemEnv, reach_within * 2) - reach_within).await;
                if is_taken().await {
                    return Err(taken(location));
                }
                tokio::time::sleep(writes_after).await;
                self.inner.put_opts(location, payload, options).await
            }
            Lie::KeepsTheLast => {
                let was_taken = is_taken().await;
                let put = self.inner.put_opts(location, payload, options).await;
                if was_taken { Err(taken(location)) } else { put }
            }
        }
    }
    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }
    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A store on these objects that is not made yet, with little patience.
fn store_on(objects: Arc<dyn ObjectStore>) -> Store {
    Place::simulated(objects, Arc::new(SystemEnv)).hurried().cluster("prod")
}

async fn probed(objects: Arc<dyn ObjectStore>) -> std::result::Result<(), Failure> {
    probe(&store_on(objects), &Path::from("probe"), MANY).await
}

#[tokio::test]
async fn store_with_one_winner_passes_the_probe_without_leftovers() {
    let store = Arc::new(InMemory::new());
    probed(Arc::clone(&store) as _).await.unwrap();
    assert!(store.list_with_delimiter(None).await.unwrap().common_prefixes.is_empty());
}

#[tokio::test]
async fn correct_store_behind_a_bad_network_passes_the_probe() {
    use Mishap::*;
    for mishaps in [
        vec![SentTwice; 3 * WRITERS],
        // Whoever won does not know.
        vec![AnswerLost; 3 * WRITERS],
        // Nobody has written anything.
        vec![RequestLost; 2 * WRITERS],
        vec![Conflict; 2 * WRITERS],
        [AnswerLost, Conflict, RequestLost].repeat(WRITERS),
    ] {
        let store = Arc::new(Unreliable::default());
        store.will(mishaps.clone());
        probed(Arc::clone(&store) as _).await.unwrap_or_else(|failure| {
            panic!("{mishaps:?}: {failure}");
        });
        assert!(store.list_with_delimiter(None).await.unwrap().common_prefixes.is_empty());
    }
}

#[tokio::test]
async fn store_with_all_answers_lost_is_not_judged() {
    let store = Arc::new(Unreliable::default());
    store.will(vec![Mishap::RequestLost; 100 * WRITERS]);
    let failure = probed(store).await.expect_err("nobody can tell");
    assert_eq!(failure.kind(), FailureKind::Unavailable);
    assert!(failure.to_string().contains("too many lost answers"), "{failure}");
}

#[test]
fn probe_judges_a_race_by_answers_and_stored_object() {
    use Told::{Nothing, Taken, Won};
    let broken = |told: &[Told], kept| match judge(told, kept) {
        Verdict::Broken(words) => words,
        other => panic!("{told:?} {kept:?}: {other:?}"),
    };
    for (told, kept, expected) in [
        ([Won, Taken, Taken], Some(0), Verdict::Held),
        ([Won, Nothing, Taken], Some(0), Verdict::Held),
        ([Nothing, Nothing, Taken], Some(1), Verdict::Held),
        ([Taken, Taken, Taken], Some(2), Verdict::Held),
        ([Nothing, Nothing, Nothing], None, Verdict::Void),
        ([Taken, Taken, Taken], None, Verdict::Void),
    ] {
        assert_eq!(judge(&told, kept), expected, "{told:?} {kept:?}");
    }
    assert!(broken(&[Won, Taken], Some(1)).contains("another's object"));
    assert!(broken(&[Won, Nothing], Some(1)).contains("another's object"));
    assert!(broken(&[Won, Taken], None).contains("its object does not exist"));
    assert!(broken(&[Won, Won], Some(1)).starts_with("2 got success"));
}

/// Makes a store on honest objects, and opens it for writing where the server lies like that.
async fn opened_for_writing(lie: Option<Lie>) -> std::result::Result<Store, Failure> {
    let honest = Arc::new(InMemory::new());
    let made = Store::on(Arc::clone(&honest) as _, "prod").await.unwrap();
    let before = made.get(&names::format()).await.unwrap();
    let objects: Arc<dyn ObjectStore> = match lie {
        None => honest,
        Some(lie) => Arc::new(Lying { inner: honest.fork(), lie }),
    };
    let opened = Store::on(Arc::clone(&objects), "prod").await;
    let after = store_on(Arc::clone(&objects)).get(&names::format()).await.unwrap();
    assert_eq!(before, after, "what was there is there");
    let there = store_on(objects).names_below(&Path::default()).await.unwrap();
    assert_eq!((there.0.len(), there.1.len()), (0, 1), "and nothing else: {there:?}");
    opened
}

#[tokio::test]
async fn server_without_if_none_match_is_detected_at_open_for_writing() {
    let opened = opened_for_writing(None).await.unwrap();
    let asked = opened.requests();
    assert_eq!((asked.gets, asked.puts, asked.heads, asked.lists, asked.deletes), (1, 1, 0, 0, 0));
    let failure = opened_for_writing(Some(Lie::Overwrites)).await.expect_err("it overwrites");
    assert_eq!(failure.kind(), FailureKind::Usage);
    assert!(failure.to_string().contains("ignores If-None-Match"), "{failure}");
}

#[tokio::test]
async fn lost_answers_and_missing_permissions_are_not_ignored_conditions() {
    use Mishap::*;
    for mishaps in [vec![AnswerLost; 3], vec![RequestLost; 3], vec![Conflict], vec![Forbidden]] {
        let objects = Arc::new(Unreliable::default());
        Store::on(Arc::clone(&objects) as _, "prod").await.unwrap();
        objects.will(mishaps.clone());
        let place = Place::simulated(objects, Arc::new(SystemEnv)).hurried();
        place
            .open_or_create("prod")
            .await
            .unwrap_or_else(|failure| panic!("{mishaps:?}: {failure}"));
    }
}

#[tokio::test]
async fn overwriting_store_is_refused() {
    let failure = probed(Arc::new(Lying::new(Lie::Overwrites))).await.expect_err("overwrites");
    assert_eq!(failure.kind(), FailureKind::Usage);
    assert!(failure.to_string().contains("8 got success"), "{failure}");
}

#[tokio::test]
async fn store_that_keeps_the_last_write_is_refused() {
    let failure =
        probed(Arc::new(Lying::new(Lie::KeepsTheLast))).await.expect_err("keeps the last");
    assert_eq!(failure.kind(), FailureKind::Usage);
    assert!(failure.to_string().contains("another's object"), "{failure}");
}

/// If its second call of eight comes after the first has written, a race finds nothing. Where that takes
/// a tenth of the time within which the calls arrive, that is a chance of 0.9 to the eighth power, and
/// of 1 in 25,000 for twelve races; with the quarter of this test there is none worth a number.
#[tokio::test]
async fn store_that_honours_if_none_match_only_sequentially_is_refused() {
    let lie = Lie::LooksThenWrites {
        reach_within: Duration::from_millis(20),
        writes_after: Duration::from_millis(5),
    };
    let store = Lying::new(lie);
    let path = Path::from("in-turn");
    for expected in [true, false, false] {
        let put = store.put_opts(&path, "x".into(), PutMode::Create.into()).await;
        assert_eq!(put.is_ok(), expected, "one after the other it keeps the promise");
    }
    let failures = join_all((0..20).map(|_| async {
        probed(Arc::new(Lying::new(lie))).await.expect_err("it lets several win")
    }))
    .await;
    for failure in failures {
        assert_eq!(failure.kind(), FailureKind::Usage);
        assert!(failure.to_string().contains("got success instead of one"), "{failure}");
    }
}
