//! Truncated logs: how readers, checks and later generations see them, and what a killed truncation leaves.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use capstan_model::coverage::{Listened, Loss, LossCause};
use capstan_model::{Generation, Hour, RecorderId, Time, TimeRange};
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::*;
use crate::catalog::rollup::tests::{HOUR, recorder};
use crate::catalog::rollup::{Outcome, Stay};
use crate::catalog::tests::{RECORDER, draft, live, seconds};
use crate::catalog::{
    Catalog, CatalogView, Change, CommitDraft, Fact, Finished, Recorder, SegmentEntry, TimeSlot,
    What, WriterInfo,
};
use crate::verify::{self, Finding, Severity};

mod repaired;

const ALL: Limits = Limits { least: 1, most: 10_000 };

/// Objects in memory; after some changes every request fails, as if the process were killed.
#[derive(Debug)]
struct Killed {
    objects: Arc<InMemory>,
    /// Changes until then.
    left: Arc<AtomicU64>,
}

/// Counts a change.
fn change(left: &AtomicU64) -> Result<(), Error> {
    let less = |left: u64| left.checked_sub(1);
    match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::PermissionDenied { path: String::new(), source: "killed".into() }),
    }
}

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("killed")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Killed {
    async fn put_opts(
        &self,
        at: &Path,
        what: PutPayload,
        how: PutOptions,
    ) -> Result<PutResult, Error> {
        change(&self.left)?;
        self.objects.put_opts(at, what, how).await
    }
    async fn put_multipart_opts(
        &self,
        at: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>, Error> {
        self.objects.put_multipart_opts(at, how).await
    }
    async fn get_opts(&self, at: &Path, how: GetOptions) -> Result<GetResult, Error> {
        self.objects.get_opts(at, how).await
    }
    fn delete_stream(
        &self,
        of: BoxStream<'static, Result<Path, Error>>,
    ) -> BoxStream<'static, Result<Path, Error>> {
        let (objects, left) = (Arc::clone(&self.objects), Arc::clone(&self.left));
        let removed = async move {
            let mut paths: Vec<Path> = of.try_collect().await?;
            // A request for many has no order: by their last digits there are holes all over the log.
            paths.sort_by_key(|path| path.as_ref().bytes().rev().collect::<Vec<_>>());
            Ok::<_, Error>(stream::iter(paths).then(move |path| {
                let (objects, left) = (Arc::clone(&objects), Arc::clone(&left));
                async move {
                    change(&left)?;
                    objects.delete(&path).await.map(|()| path)
                }
            }))
        };
        stream::once(removed).try_flatten().boxed()
    }
    fn list(&self, below: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta, Error>> {
        self.objects.list(below)
    }
    async fn list_with_delimiter(&self, below: Option<&Path>) -> Result<ListResult, Error> {
        self.objects.list_with_delimiter(below).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<(), Error> {
        self.objects.copy_opts(from, to, how).await
    }
}

async fn on(objects: &Arc<InMemory>) -> Store {
    Store::on(Arc::clone(objects) as Arc<dyn ObjectStore>, "prod").await.unwrap()
}

async fn empty() -> (Arc<InMemory>, Store) {
    let objects = Arc::new(InMemory::new());
    let store = on(&objects).await;
    (objects, store)
}

/// A segment, what was listened to, and a loss.
fn facts(name: &str, first: i64) -> CommitDraft {
    let mut draft = draft(name, first);
    let range = seconds(first, first + 1);
    draft.facts.push(Fact::Listened(Listened { range, interfaces: Vec::new() }));
    draft.facts.push(Fact::Loss(Loss {
        range,
        interface: None,
        cause: LossCause::KernelDrop,
        packets: 3,
        bytes: 0,
        note: String::new(),
    }));
    draft
}

fn end() -> Option<Finished> {
    Some(Finished { complete: true, packets_total: 0 })
}

fn of(number: u64) -> GenerationId {
    GenerationId::new(RecorderId(RECORDER.0 + number), Generation(1))
}

async fn claimed(store: &Store) -> Rollup {
    Rollup::claim(store, "test", Stay::Keeps).await.unwrap()
}

async fn step(rollup: &mut Rollup) {
    assert!(matches!(rollup.roll_up_all().await.unwrap(), Outcome::Done(_)));
}

/// Makes roots until none has a reader that was made before.
async fn settle(store: &Store, rollup: &mut Rollup) {
    for _ in 0..5 {
        assert!(rollup.advance(Step { boundary: None, ..Step::default() }).await.unwrap().is_ok());
    }
    let replaced = store.clock().await.unwrap();
    while store.clock().await.unwrap() <= replaced {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    rollup.sweep(Duration::ZERO).await.unwrap();
}

/// Two logs of recorders, one of them ended, all rolled up, and some commits more.
async fn made(store: &Store) -> (Rollup, Recorder) {
    let (mut goes_on, mut ends) = (recorder(store, 0).await, recorder(store, 1).await);
    let mut rollup = claimed(store).await;
    for number in 0..30 {
        let first = number * 200;
        goes_on.commit(facts(&format!("a{number}"), first)).await.unwrap();
        ends.commit(facts(&format!("b{number}"), first)).await.unwrap();
        if number % 7 == 0 {
            step(&mut rollup).await;
        }
    }
    ends.commit(CommitDraft { finished: end(), ..facts("end", 30 * 200) }).await.unwrap();
    step(&mut rollup).await;
    step(&mut rollup).await;
    settle(store, &mut rollup).await;
    for number in 30..33 {
        goes_on.commit(facts(&format!("a{number}"), number * 200)).await.unwrap();
    }
    step(&mut rollup).await;
    goes_on.commit(facts("last", 7_000)).await.unwrap();
    (rollup, goes_on)
}

fn states(logs: &Catalog) -> Vec<(GenerationId, GenerationState)> {
    logs.generations().map(|(of, state)| (of, state.clone())).collect()
}

/// All that a reader sees, and that nothing is wrong.
async fn seen(store: &Store) -> Vec<String> {
    let view = CatalogView::load(store).await.unwrap();
    assert_eq!(view.notes().collect::<Vec<_>>(), [""; 0]);
    let mut seen = Vec::new();
    for range in [TimeRange::ALL, Hour(0).range().unwrap(), Hour(1).range().unwrap()] {
        let window = view.window(range).await.unwrap();
        assert_eq!(window.gaps, []);
        seen.extend(window.segments.iter().map(|of| format!("{:?} {}", of.by, of.entry.name)));
        seen.extend(window.listened.iter().map(|of| format!("{of:?}")));
        seen.extend(window.losses.iter().map(|of| format!("{of:?}")));
    }
    let generations = view.generations().await.unwrap();
    assert_eq!(generations.gaps, []);
    seen.extend(generations.generations.iter().map(|of| format!("{of:?}")));
    seen
}

/// What a check of the catalog finds, and its report. No segment here has objects.
async fn checked(store: &Store) -> (verify::Report, Vec<Finding>) {
    #[derive(Default)]
    struct Heard(std::sync::Mutex<Vec<Finding>>);
    impl verify::Watch for Heard {
        fn found(&self, finding: &Finding) {
            self.0.lock().unwrap().push(finding.clone());
        }
    }
    let heard = Heard::default();
    let range = Hour(1_000).range().unwrap();
    let layers = crate::segment::Layers::KNOWN;
    let options = verify::Options { range, deep: false, layers };
    let report = verify::verify(store, &options, &heard).await.unwrap();
    (report, heard.0.into_inner().unwrap())
}

async fn commits(store: &Store, of: GenerationId) -> Vec<u64> {
    let listed: Vec<_> = store.list(&names::log_of(of)).try_collect().await.unwrap();
    listed.iter().map(|object| names::parse_commit(&object.path).unwrap().seq).collect()
}

#[tokio::test]
async fn truncated_logs_lose_no_fact() {
    let (_, store) = empty().await;
    let (mut rollup, mut goes_on) = made(&store).await;
    let before = seen(&store).await;
    let logs = states(&Catalog::load(&store).await.unwrap());
    let whole = checked(&store).await;
    assert_eq!((whole.0.truncated, &whole.1[..]), (0, &[][..]));

    let done = rollup.truncate(ALL).await.unwrap();
    assert_eq!(done, Truncated { logs: 2, commits: 29 + 30 });
    assert_eq!(commits(&store, of(0)).await, [29, 30, 31, 32, 33]);
    assert_eq!(commits(&store, of(1)).await, [30]);
    assert_eq!(seen(&store).await, before);
    assert_eq!(states(&Catalog::load(&store).await.unwrap()), logs);
    let (report, findings) = checked(&store).await;
    assert_eq!(findings, []);
    assert_eq!((report.truncated, report.commits), (59, whole.0.commits));
    assert_eq!(rollup.root().untruncated, Some(Vec::new()));
    assert_eq!(rollup.truncate(ALL).await.unwrap(), Truncated::default());

    // The log goes on, and is truncated again: the checkpoint before the last one is removed.
    for round in 0..3 {
        for number in 0..20 {
            let name = format!("c{round}-{number}");
            goes_on.commit(facts(&name, HOUR + round * 20 + number)).await.unwrap();
        }
        step(&mut rollup).await;
        settle(&store, &mut rollup).await;
        let before = seen(&store).await;
        assert_eq!(rollup.truncate(ALL).await.unwrap().commits, if round == 0 { 24 } else { 20 });
        assert_eq!(commits(&store, of(0)).await.len(), 1);
        assert_eq!(seen(&store).await, before);
        assert_eq!(checked(&store).await.1, []);
    }
    assert_eq!(checkpoint::numbers(&store, of(0)).await.unwrap().len(), 2);
    assert_eq!(Catalog::load(&store).await.unwrap().problems().len(), 0);
}

#[tokio::test]
async fn a_log_is_truncated_behind_every_existing_root() {
    let (objects, store) = empty().await;
    let (mut rollup, _) = made(&store).await;
    let before = seen(&store).await;
    rollup.truncate(ALL).await.unwrap();
    // A reader takes an older root when the newest ones are gone. All of them find every commit.
    let roots: Vec<_> = store.list(&names::roots()).try_collect().await.unwrap();
    for newest in roots.iter().skip(1).rev() {
        objects.delete(&Path::from(format!("prod/{}", newest.path))).await.unwrap();
        let view = CatalogView::load(&store).await.unwrap();
        let window = view.window(TimeRange::ALL).await.unwrap();
        let all = window.segments.iter().map(|of| format!("{:?} {}", of.by, of.entry.name));
        let all: Vec<_> = all.collect();
        assert_eq!(all[..], before[..all.len()], "without {}", newest.path);
        assert_eq!(all.len(), 65);
    }
}

#[tokio::test]
async fn killed_truncation_is_harmless_and_completed() {
    let limits = Limits { least: 1, most: 20 };
    for kill in 0.. {
        let (objects, store) = empty().await;
        drop(made(&store).await);
        let before = seen(&store).await;
        let whole = states(&Catalog::load(&store).await.unwrap());
        let left = Arc::new(AtomicU64::new(10_000));
        let killed = Killed { objects: Arc::clone(&objects), left: Arc::clone(&left) };
        let dies = Store::on(Arc::new(killed), "prod").await.unwrap();
        let mut rollup = claimed(&dies).await;
        let (roots, view) = (rollup.root().version, CatalogView::load(&store).await.unwrap());
        left.store(kill, Ordering::Relaxed);
        let died = async {
            for _ in 0..5 {
                rollup.truncate(limits).await?;
            }
            Ok::<_, Failure>(())
        };
        let has_died = died.await.is_err();
        assert_eq!(seen(&store).await, before, "killed after {kill} changes");
        assert_eq!(checked(&store).await.1, [], "killed after {kill} changes");
        // An import that goes on reads the logs of its recorder.
        let logs = Catalog::load(&store).await.unwrap();
        assert!(logs.problems().is_empty(), "killed after {kill} changes: {:?}", logs.problems());
        assert_eq!(states(&logs), whole, "killed after {kill} changes");
        assert!(view.refresh().await.unwrap().root().version >= roots);
        let mut next = claimed(&store).await;
        for _ in 0..5 {
            next.truncate(limits).await.unwrap();
        }
        assert_eq!(seen(&store).await, before, "killed after {kill} changes, and completed");
        assert_eq!(commits(&store, of(0)).await, [29, 30, 31, 32, 33]);
        assert_eq!(commits(&store, of(1)).await, [30]);
        assert_eq!(checked(&store).await.1, []);
        if !has_died {
            assert!(kill > 60, "{kill}");
            break;
        }
    }
}

#[tokio::test]
async fn a_lost_commit_after_the_checkpoint_is_lost_and_before_it_truncated() {
    let (objects, store) = empty().await;
    let (mut rollup, mut goes_on) = made(&store).await;
    rollup.truncate(ALL).await.unwrap();
    goes_on.commit(facts("later", 7_100)).await.unwrap();
    // The one that the checkpoint covers last stays, and is not needed.
    for (seq, kind) in [(29, None), (31, Some(Severity::Note)), (33, Some(Severity::Lost))] {
        let path = names::commit(of(0), seq);
        objects.delete(&Path::from(format!("prod/{path}"))).await.unwrap();
        let (_, findings) = checked(&store).await;
        let of_it = findings.iter().find(|of| of.object == path.as_ref());
        assert_eq!(of_it.map(Finding::severity), kind, "{findings:?}");
    }
}

#[tokio::test]
async fn damaged_checkpoint_is_found_and_written_again() {
    let (objects, store) = empty().await;
    let (mut rollup, _) = made(&store).await;
    rollup.truncate(ALL).await.unwrap();
    let before = seen(&store).await;
    let checkpoints: Vec<_> = store.list(&names::checkpoints()).try_collect().await.unwrap();
    assert_eq!(checkpoints.len(), 2);
    for object in checkpoints {
        let full = Path::from(format!("prod/{}", object.path));
        let mut bytes = objects.get(&full).await.unwrap().bytes().await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        objects.put(&full, bytes.into()).await.unwrap();
        assert_eq!(seen(&store).await, before);
        let (_, findings) = checked(&store).await;
        assert_eq!(findings[0].object, object.path.as_ref(), "{findings:?}");
        assert_eq!((findings.len(), findings[0].severity()), (1, Severity::Damaged));
        struct Silent;
        impl crate::repair::Watch for Silent {}
        let options = crate::repair::Options::default();
        let report = crate::repair::repair(&store, &options, &Silent).await.unwrap();
        assert_eq!((report.repaired, report.adopted), (1, (0, 0)), "{report:?}");
        assert_eq!(checked(&store).await.1, []);
        let before: Vec<_> = before.iter().filter(|of| !of.starts_with("Generation")).collect();
        let after = seen(&store).await;
        let after: Vec<_> = after.iter().filter(|of| !of.starts_with("Generation")).collect();
        assert_eq!(after, before);
    }
}

#[tokio::test]
async fn manifests_without_facts_of_removed_commits_are_found() {
    let (objects, store) = empty().await;
    let (mut rollup, _) = made(&store).await;
    rollup.truncate(ALL).await.unwrap();
    for slot in [0, 1] {
        let slot = TimeSlot::Hour(Hour(slot));
        let (version, _) = versions::listed_manifests(&store, slot).await.unwrap().pop().unwrap();
        let full = Path::from(format!("prod/{}", names::manifest(slot, version)));
        let good = objects.get(&full).await.unwrap().bytes().await.unwrap();
        let mut json: serde_json::Value = crate::store::checked::unpack(&good, 99).unwrap();
        json["held"]["segments"].as_array_mut().unwrap().remove(0);
        let bad = crate::store::checked::pack(&json).unwrap();
        objects.put(&full, bad.into()).await.unwrap();
        let (report, findings) = checked(&store).await;
        assert_eq!(report.worst(), Some(Severity::Lost), "{findings:?}");
        assert!(findings[0].object.starts_with("checkpoint/"), "{findings:?}");
        objects.put(&full, good.into()).await.unwrap();
    }
    assert_eq!(checked(&store).await.1, []);
}

#[tokio::test]
async fn changes_repairs_and_what_follows_lost_commits_stay() {
    let (objects, store) = empty().await;
    let kind = |kind| WriterInfo { kind, ..live() };
    let mut changes = recorder(&store, 0).await;
    let mut repairs =
        Recorder::start(&store, of(1).recorder, kind(WriterKind::Repair)).await.unwrap();
    let (mut hides, mut plain) = (recorder(&store, 2).await, recorder(&store, 3).await);
    for number in 0..5 {
        let name = |of: &str| format!("{of}{number}");
        for (recorder, of) in [(&mut repairs, "r"), (&mut hides, "h"), (&mut plain, "p")] {
            recorder.commit(facts(&name(of), number)).await.unwrap();
        }
        let mut draft = facts(&name("c"), number);
        let entry: SegmentEntry = draft.segments().next().unwrap().clone();
        draft.facts.push(Fact::Change(Change {
            segment: entry.name.clone(),
            slots: entry.slots(),
            at: Time(0),
            what: What::LayersRetired { layers: entry.layers.clone(), why: "test".to_owned() },
        }));
        changes.commit(draft).await.unwrap();
    }
    // What comes before the lost commit is rolled up, and what comes after it may depend on it.
    let lost = names::commit(of(2), 2);
    objects.delete(&Path::from(format!("prod/{lost}"))).await.unwrap();
    let mut rollup = claimed(&store).await;
    step(&mut rollup).await;
    settle(&store, &mut rollup).await;
    assert_eq!(rollup.truncate(ALL).await.unwrap(), Truncated { logs: 2, commits: 1 + 4 });
    assert_eq!(commits(&store, of(0)).await, [0, 1, 2, 3, 4]);
    assert_eq!(commits(&store, of(1)).await, [0, 1, 2, 3, 4]);
    assert_eq!(commits(&store, of(2)).await, [1, 3, 4]);
    assert_eq!(commits(&store, of(3)).await, [4]);
}

#[tokio::test]
async fn a_log_stays_whole_while_manifests_lack_its_facts() {
    let (objects, store) = empty().await;
    let (mut rollup, _) = made(&store).await;
    let (version, _) =
        versions::listed_manifests(&store, TimeSlot::Hour(Hour(0))).await.unwrap().pop().unwrap();
    let full = Path::from(format!("prod/{}", names::manifest(TimeSlot::Hour(Hour(0)), version)));
    let good = objects.get(&full).await.unwrap().bytes().await.unwrap();
    let mut json: serde_json::Value = crate::store::checked::unpack(&good, 99).unwrap();
    json["held"]["losses"].as_array_mut().unwrap().remove(0);
    let lacks = crate::store::checked::pack(&json).unwrap();
    for bad in [lacks, good[1..].to_vec()] {
        objects.put(&full, bad.into()).await.unwrap();
        let done = rollup.truncate(ALL).await.unwrap();
        assert!(done.logs < 2, "{done:?}");
        assert!(commits(&store, of(0)).await.len().max(commits(&store, of(1)).await.len()) > 30);
    }
    objects.put(&full, good.into()).await.unwrap();
    rollup.truncate(ALL).await.unwrap();
    assert_eq!((commits(&store, of(0)).await.len(), commits(&store, of(1)).await.len()), (5, 1));
}

#[tokio::test]
async fn outdated_view_of_a_truncated_log_begins_again() {
    let (_, store) = empty().await;
    let (mut rollup, _) = made(&store).await;
    let mut old = Catalog::new();
    old.add_writer(of(0), &store.get(&names::writer(of(0))).await.unwrap());
    for seq in 0..27 {
        old.add_commit(of(0), seq, &store.get(&names::commit(of(0), seq)).await.unwrap());
    }
    assert!(old.clone().follow(&store, true).await.unwrap());
    rollup.truncate(ALL).await.unwrap();
    assert!(!old.follow(&store, true).await.unwrap(), "it would miss truncated commits");
}
