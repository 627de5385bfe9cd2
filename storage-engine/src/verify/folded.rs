//! The folded catalog: its objects by themselves, versions after each other, and what they say
//! against the logs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use capstan_model::{Failure, FailureKind, Generation, RecorderId, TimeRange};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use super::finding::{Finding, Severity, What};
use crate::catalog::facts::Facts;
use crate::catalog::manifest::Manifest;
use crate::catalog::root::Root;
use crate::catalog::versions::{self, Versioned};
use crate::catalog::{Catalog, Segment, Slot};
use crate::store::{Listed, Store, names};

/// Objects that are read at a time.
const AT_ONCE: usize = 16;

/// A fact, as far as it is compared: who says it, in which commit, and what.
type Said = (RecorderId, Generation, u64, String);

/// What the folded catalog came to.
#[derive(Debug, Default)]
pub(super) struct Folded {
    pub(super) findings: Vec<Finding>,
    /// Its objects.
    pub(super) objects: u64,
    /// Segments that it names.
    pub(super) segments: Vec<Arc<Segment>>,
    /// How many commits of a log it has all facts of.
    known: BTreeMap<(RecorderId, Generation), u64>,
}

impl Folded {
    /// Whether what a commit said is folded, so that the commit itself is not missed.
    pub(super) fn has(&self, recorder: RecorderId, generation: Generation, seq: u64) -> bool {
        self.known.get(&(recorder, generation)).is_some_and(|known| seq < *known)
    }

    fn add(&mut self, object: &Path, problem: String, severity: Severity) {
        let object = object.to_string();
        let what = What::Catalog { problem: format!("{object}: {problem}"), severity };
        self.findings.push(Finding { object, what });
    }

    /// Takes an object that was read; none if it cannot be.
    fn take<T>(
        &mut self,
        path: &Path,
        read: Result<Option<T>, Failure>,
    ) -> Result<Option<T>, Failure> {
        match read {
            Ok(Some(value)) => Ok(Some(value)),
            // It was removed since it was listed.
            Ok(None) => Ok(None),
            Err(failure) => {
                let severity = match failure.kind() {
                    FailureKind::Damaged => Severity::Damaged,
                    FailureKind::TooNew => Severity::TooNew,
                    _ => return Err(failure),
                };
                let cause = std::error::Error::source(&failure);
                let why = cause.map_or_else(|| failure.to_string(), ToString::to_string);
                self.add(path, why, severity);
                Ok(None)
            }
        }
    }
}

/// Reads all of it.
pub(super) async fn check(store: &Store, logs: &Catalog) -> Result<Folded, Failure> {
    let mut folded = Folded::default();
    let (mut roots, mut manifests, mut parts) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let prefixes = [names::catalog(), names::open_logs(), names::boundaries()];
    let mut listed = stream::iter(prefixes).map(|prefix| store.list(&prefix)).flatten();
    while let Some(Listed { path, bytes, modified }) = listed.try_next().await? {
        folded.objects += 1;
        if let Some(version) = names::parse_root(&path) {
            let read = folded.take(&path, versions::read_root(store, version).await)?;
            roots.extend(read.map(|root| (version, root)));
        } else if let Some((slot, version)) = names::parse_manifest(&path) {
            manifests.entry(slot).or_insert_with(BTreeSet::new).insert(version);
        } else if let Some((recorder, generation)) = names::parse_ended(&path) {
            let read = versions::read_ended(store, recorder, generation).await;
            let life = folded.take(&path, read)?;
            folded.known.extend(life.map(|life| (life.owner(), life.chain().next())));
        } else if let Some(number) = names::parse_boundary(&path) {
            folded.take(&path, versions::read_boundary(store, number).await)?;
        } else if let Some(part) = names::parse_part(&path) {
            parts.insert(part, Listed { path, bytes, modified });
        } else if names::parse_open(&path).is_none() {
            let object = path.to_string();
            folded.findings.push(Finding { object, what: What::Foreign });
        }
    }
    drop(listed);
    follow(&mut folded, &roots, names::root, |root| &root.previous);
    let newest = roots.last_key_value().map(|(_, root)| &root.value);
    for log in newest.into_iter().flat_map(|root| &root.logs) {
        folded.known.insert(log.life.owner(), log.life.chain().next());
    }
    let mut expected = expected(logs, &folded);
    for (slot, versions) in manifests {
        let expected = expected.remove(&slot).unwrap_or_default();
        check_slot(store, slot, versions, expected, newest, &mut parts, &mut folded).await?;
    }
    for (slot, missing) in expected {
        let first = names::manifest(slot, 1);
        folded.add(
            &first,
            format!("it is missing, and {} facts with it", missing.len()),
            Severity::Damaged,
        );
    }
    // Somebody may be about to name them.
    folded.findings.extend(parts.into_values().map(|part| {
        let young = store.now() < part.modified.saturating_add(super::listing::YOUNG);
        let what = What::Orphan { bytes: part.bytes, young };
        Finding { object: part.path.to_string(), what }
    }));
    Ok(folded)
}

/// Compares versions with the hashes that the ones after them hold.
fn follow<T>(
    folded: &mut Folded,
    versions: &BTreeMap<u64, Versioned<T>>,
    name: impl Fn(u64) -> Path,
    previous: impl Fn(&T) -> &str,
) {
    for ((before, then), (version, now)) in versions.iter().zip(versions.iter().skip(1)) {
        if *version != before + 1 || previous(&now.value) == then.sha256 {
            continue;
        }
        let path = name(*version);
        let what = "it or the version before it was changed: it does not follow".to_owned();
        folded.add(&path, what, Severity::Damaged);
    }
}

/// What manifests must say, as the logs do: facts of commits that are folded, by slot.
fn expected(logs: &Catalog, folded: &Folded) -> BTreeMap<Slot, BTreeSet<Said>> {
    let mut expected: BTreeMap<Slot, BTreeSet<Said>> = BTreeMap::new();
    let mut add = |slots: Vec<Slot>, said: Said| {
        if folded.has(said.0, said.1, said.2) {
            for slot in slots {
                expected.entry(slot).or_default().insert(said.clone());
            }
        }
    };
    for of in logs.segments(TimeRange::ALL) {
        let said = (of.by.0, of.by.1, of.seq, of.entry.name.clone());
        add(Slot::of_segment(&of.entry), said);
    }
    for of in logs.coverage(TimeRange::ALL) {
        let said = (of.recorder, of.generation, of.seq, format!("{:?}", of.what));
        add(Slot::of_range(&of.what.range), said);
    }
    for of in logs.losses(TimeRange::ALL) {
        let said = (of.recorder, of.generation, of.seq, format!("{:?}", of.what));
        add(Slot::of_range(&of.what.range), said);
    }
    expected
}

/// Checks the manifests of a slot, and what the newest one says.
async fn check_slot(
    store: &Store,
    slot: Slot,
    there: BTreeSet<u64>,
    mut expected: BTreeSet<Said>,
    root: Option<&Root>,
    parts: &mut BTreeMap<(Slot, String), Listed>,
    folded: &mut Folded,
) -> Result<(), Failure> {
    let mut read = BTreeMap::new();
    let mut reading = stream::iter(there)
        .map(
            |version| async move { (version, versions::read_manifest(store, slot, version).await) },
        )
        .buffered(AT_ONCE);
    while let Some((version, manifest)) = reading.next().await {
        let manifest = folded.take(&names::manifest(slot, version), manifest)?;
        read.extend(manifest.map(|manifest| (version, manifest)));
    }
    drop(reading);
    follow(folded, &read, |version| names::manifest(slot, version), |of| &of.previous);
    // What is wrong with each of them is told.
    let Some((version, newest)) = read.pop_last() else { return Ok(()) };
    let path = names::manifest(slot, version);
    if root.and_then(|root| root.slot(slot)).is_some_and(|named| named > version) {
        folded.add(
            &path,
            "the root names a newer version, which cannot be read".to_owned(),
            Severity::Damaged,
        );
    }
    // Older versions name some of them, too.
    for part in read.values().flat_map(|older| &older.value.parts) {
        parts.remove(&(slot, part.name.clone()));
    }
    let manifest = newest.value;
    take_facts(&manifest, &manifest.held, &mut expected, folded);
    for part in &manifest.parts {
        parts.remove(&(slot, part.name.clone()));
        let path = names::part(slot, &part.name);
        match versions::read_part(store, slot, part).await {
            Ok(content) => {
                if !manifest.includes(part.holds, &content.facts) {
                    let what = "questions about some addresses pass its segments over".to_owned();
                    folded.add(&path, what, Severity::Damaged);
                }
                take_facts(&manifest, &content.facts, &mut expected, folded);
            }
            Err(failure) if failure.kind() == FailureKind::NotFound => {
                folded.add(&path, "it is missing".to_owned(), Severity::Damaged);
            }
            Err(failure) => {
                folded.take::<()>(&path, Err(failure))?;
            }
        }
    }
    if let Some((recorder, generation, seq, what)) = expected.first() {
        let commit = names::commit(*recorder, *generation, *seq);
        let many = expected.len();
        let what =
            format!("{many} facts of folded commits are missing in it, as '{what}' of {commit}");
        folded.add(&path, what, Severity::Damaged);
    }
    Ok(())
}

/// Ticks off what facts say.
fn take_facts(
    manifest: &Manifest,
    facts: &Facts,
    expected: &mut BTreeSet<Said>,
    folded: &mut Folded,
) {
    let owner = |by| manifest.owner(by).map(|of| (of.recorder, of.generation));
    for of in &facts.segments {
        let Some((recorder, generation)) = owner(of.by) else { continue };
        expected.remove(&(recorder, generation, of.seq, of.fact.name.clone()));
        let entry = of.fact.clone();
        folded.segments.push(Arc::new(Segment::of(recorder, generation, of.seq, entry)));
    }
    let listened = facts.listened.iter().map(|of| (of.by, of.seq, format!("{:?}", of.fact)));
    let losses = facts.losses.iter().map(|of| (of.by, of.seq, format!("{:?}", of.fact)));
    for (by, seq, what) in listened.chain(losses) {
        let Some((recorder, generation)) = owner(by) else { continue };
        expected.remove(&(recorder, generation, seq, what));
    }
}
