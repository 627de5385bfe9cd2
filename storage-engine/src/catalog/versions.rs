//! Reads and writes versions: roots, manifests, parts, ended generations. Only this module creates packed objects.
//!
//! Every version is checked against its predecessor before it is sent.

use bytes::Bytes;
use capstan_model::{Failure, FailureKind, GenerationId};
use futures::TryStreamExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::entry::sha256_hex;
use super::generation::GenerationState;
use super::hours::Hours;
use super::invariants::Broken;
use super::manifest::{self, Manifest};
use super::part::{Part, PartContent};
use super::root::{self, Root};
use super::slot::TimeSlot;
use crate::catalog::names;
use crate::store::{Created, Listed, Store, checked};

/// A version, and the SHA-256 of its bytes, hex: the next version names that hash.
#[derive(Debug, Clone)]
pub(crate) struct Versioned<T> {
    pub(crate) value: T,
    pub(crate) sha256: String,
}

/// A boundary: `boundary/<number>`. A process that creates a version of the root looks for the next boundary
/// afterwards: if it exists, versions were removed and the created one may be far behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Boundary {
    pub(crate) format: u32,
    /// Versions of the root below this may be gone.
    pub(crate) below: u64,
    pub(crate) nonce: String,
}

/// The newest format of ended generations. It is written for a BLAKE3 hash of the source, which older readers do not
/// know; 2 was never written.
const ENDED_FORMAT: u32 = 3;

/// An ended generation: `catalog/lives/<recorder>/<generation>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) format: u32,
    #[serde(rename = "life")]
    pub(crate) state: GenerationState,
    pub(crate) nonce: String,
}

/// The failure for an unreadable object.
fn unreadable(path: &Path, error: checked::Unpacked) -> Failure {
    let (kind, what) = match error {
        checked::Unpacked::TooNew { .. } => {
            (FailureKind::TooNew, format!("{path} was written by a newer version"))
        }
        _ => (FailureKind::Damaged, format!("{path} is damaged")),
    };
    Failure::caused_by(kind, what, error)
}

fn broken(path: &Path, error: Broken) -> Failure {
    let what =
        format!("{path} violates an invariant and was not written: this is a bug in Capstan");
    Failure::caused_by(FailureKind::Other, what, error)
}

fn packed(path: &Path, value: &impl Serialize) -> Result<Bytes, Failure> {
    checked::pack(value).map(Bytes::from).map_err(|error| {
        Failure::caused_by(FailureKind::Other, format!("{path} cannot be written"), error)
    })
}

/// Reads a packed object; none if it does not exist.
pub(super) async fn read<T: serde::de::DeserializeOwned>(
    store: &Store,
    path: &Path,
    format: u32,
) -> Result<Option<Versioned<T>>, Failure> {
    let Some(bytes) = store.get_if_present(path).await? else { return Ok(None) };
    let value = checked::unpack(&bytes, format).map_err(|error| unreadable(path, error))?;
    Ok(Some(Versioned { value, sha256: sha256_hex(&bytes) }))
}

/// Creates a packed object; none if the name is taken.
pub(super) async fn create<T: Serialize>(
    store: &Store,
    path: &Path,
    value: T,
) -> Result<Option<Versioned<T>>, Failure> {
    let bytes = packed(path, &value)?;
    let sha256 = sha256_hex(&bytes);
    Ok(match store.create(path, bytes).await? {
        Created::Created => Some(Versioned { value, sha256 }),
        Created::Lost => None,
    })
}

/// A version of the root, if it is there.
pub(crate) async fn read_root(
    store: &Store,
    version: u64,
) -> Result<Option<Versioned<Root>>, Failure> {
    let path = names::root(version);
    let Some(read) = read::<Root>(store, &path, root::FORMAT).await? else { return Ok(None) };
    check_name(&path, read.value.version == version)?;
    Ok(Some(read))
}

/// Refuses an object whose content names another object.
fn check_name(path: &Path, is_right: bool) -> Result<(), Failure> {
    if is_right {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Damaged, format!("{path} contains another name")))
}

/// The newest root. `known` is one that was read before.
pub(crate) async fn newest_root(
    store: &Store,
    known: Option<Versioned<Root>>,
) -> Result<Versioned<Root>, Failure> {
    let mut newest = match known {
        Some(known) if newest_boundary(store, &known.value).await?.is_some() => known,
        _ => listed_root(store).await?,
    };
    while let Some(next) = read_root(store, newest.value.version.saturating_add(1)).await? {
        newest = next;
    }
    Ok(newest)
}

/// The newest boundary; none if versions after `root` were removed, so that it may be far behind. After a crash, the
/// newest boundary may be one that no root names yet.
pub(crate) async fn newest_boundary(store: &Store, root: &Root) -> Result<Option<u64>, Failure> {
    #[cfg(feature = "planted")]
    if store.planted(crate::store::Planted::NoBoundary) {
        return Ok(Some(root.boundary));
    }
    let mut newest = root.boundary;
    while let Some(below) = read_boundary(store, newest.saturating_add(1)).await? {
        if root.version < below {
            return Ok(None);
        }
        newest += 1;
    }
    Ok(Some(newest))
}

/// The versions in a listing, ascending.
async fn listed(
    store: &Store,
    prefix: &Path,
    parse: impl Fn(&Path) -> Option<u64>,
) -> Result<Vec<(u64, Listed)>, Failure> {
    let listed: Vec<Listed> = store.list(prefix).try_collect().await?;
    let versions = listed.into_iter().filter_map(|object| Some((parse(&object.path)?, object)));
    let mut versions: Vec<_> = versions.collect();
    versions.sort_unstable_by_key(|(version, _)| *version);
    Ok(versions)
}

/// The existing versions of the root, ascending.
pub(crate) async fn listed_roots(store: &Store) -> Result<Vec<(u64, Listed)>, Failure> {
    listed(store, &names::roots(), names::parse_root).await
}

/// The existing versions of a slot's manifest, ascending.
pub(crate) async fn listed_manifests(
    store: &Store,
    slot: TimeSlot,
) -> Result<Vec<(u64, Listed)>, Failure> {
    let version = |path: &Path| names::parse_manifest(path).map(|(_, version)| version);
    listed(store, &names::slot(slot), version).await
}

/// The hours that have a manifest, from a listing of all manifests.
pub(crate) async fn hours(store: &Store) -> Result<Hours, Failure> {
    let mut hours = Hours::default();
    let mut listed = store.list(&names::catalog());
    while let Some(object) = listed.try_next().await? {
        if let Some((TimeSlot::Hour(hour), _)) = names::parse_manifest(&object.path) {
            hours.insert(hour);
        }
    }
    Ok(hours)
}

/// The ended generations, from a listing.
pub(crate) async fn listed_ended(store: &Store) -> Result<Vec<GenerationId>, Failure> {
    let listed = store.list(&names::ended_generations());
    let named = listed.try_filter_map(async |object| Ok(names::parse_ended(&object.path)));
    named.try_collect().await
}

/// The newest root in a listing.
async fn listed_root(store: &Store) -> Result<Versioned<Root>, Failure> {
    let none = || Versioned { value: Root::empty(), sha256: String::new() };
    let Some((version, _)) = listed_roots(store).await?.pop() else { return Ok(none()) };
    read_root(store, version).await?.ok_or_else(|| {
        let what = format!("{} is listed but does not exist", names::root(version));
        Failure::new(FailureKind::Unavailable, what)
    })
}

/// Writes the root that follows `before`; none if another process wrote it first.
pub(crate) async fn put_root(
    store: &Store,
    before: &Root,
    next: Root,
) -> Result<Option<Versioned<Root>>, Failure> {
    let path = names::root(next.version);
    let next = Root { format: next.needed_format(), ..next };
    next.check(before).map_err(|error| broken(&path, error))?;
    create(store, &path, next).await
}

/// Writes a root that does not follow a readable one; none if the number is taken.
pub(crate) async fn put_mended_root(
    store: &Store,
    next: Root,
) -> Result<Option<Versioned<Root>>, Failure> {
    let next = Root { format: next.needed_format(), ..next };
    create(store, &names::root(next.version), next).await
}

/// Raises a boundary; false if that number is taken: then another process raised it, maybe to a lower value.
pub(crate) async fn put_boundary(store: &Store, number: u64, below: u64) -> Result<bool, Failure> {
    let boundary = Boundary { format: root::PLAIN, below, nonce: store.nonce() };
    Ok(create(store, &names::boundary(number), boundary).await?.is_some())
}

/// Reads a boundary, if it exists.
pub(crate) async fn read_boundary(store: &Store, number: u64) -> Result<Option<u64>, Failure> {
    let read = read::<Boundary>(store, &names::boundary(number), root::FORMAT).await?;
    Ok(read.map(|boundary| boundary.value.below))
}

/// A version of a manifest, if it is there.
pub(crate) async fn read_manifest(
    store: &Store,
    slot: TimeSlot,
    version: u64,
) -> Result<Option<Versioned<Manifest>>, Failure> {
    let path = names::manifest(slot, version);
    let read = read::<Manifest>(store, &path, manifest::FORMAT).await?;
    if let Some(Versioned { value, .. }) = &read {
        check_name(&path, (value.slot, value.version) == (slot, version))?;
    }
    Ok(read)
}

/// The newest manifest of a slot, starting from a version that is not newer: 0 if none is known.
pub(crate) async fn newest_manifest(
    store: &Store,
    slot: TimeSlot,
    known: u64,
) -> Result<Versioned<Manifest>, Failure> {
    let listed = || async {
        let newest = listed_manifests(store, slot).await?.pop();
        Ok::<_, Failure>(newest.map_or(0, |(version, _)| version))
    };
    let mut version = if known == 0 { listed().await? } else { known };
    let mut newest = match version {
        0 => Some(Versioned { value: Manifest::empty(slot), sha256: String::new() }),
        _ => read_manifest(store, slot, version).await?,
    };
    if newest.is_none() {
        // It was removed, so newer ones exist.
        version = listed().await?;
        newest = read_manifest(store, slot, version).await?;
    }
    let mut newest = newest.ok_or_else(|| {
        let what = format!("{} is listed but does not exist", names::manifest(slot, version));
        Failure::new(FailureKind::Unavailable, what)
    })?;
    while let Some(next) =
        read_manifest(store, slot, newest.value.version.saturating_add(1)).await?
    {
        newest = next;
    }
    Ok(newest)
}

/// The failure when a manifest and all newer ones are missing.
pub(crate) fn gone(slot: TimeSlot, version: u64) -> Failure {
    let what = format!("{} is missing", names::manifest(slot, version));
    Failure::new(FailureKind::NotFound, what)
}

/// Writes the manifest that follows `before`, with its facts moved into parts if there are many; none if another
/// process wrote it first.
pub(crate) async fn put_manifest(
    store: &Store,
    before: &Manifest,
    mut next: Manifest,
) -> Result<Option<Versioned<Manifest>>, Failure> {
    let path = names::manifest(next.slot, next.version);
    let nonce = next.nonce.clone();
    for (holds, content) in next.overflow() {
        let bytes = packed(&path, &content)?;
        let part = Part {
            name: format!("{nonce}-{}", holds.name()),
            bytes: bytes.len() as u64,
            sha256: sha256_hex(&bytes),
            facts: content.facts.len() as u64,
            holds,
            span: content.facts.span(),
        };
        store.put_new(&names::part(next.slot, &part.name), vec![bytes]).await?;
        next.parts.push(part);
    }
    next.format = next.needed_format();
    next.check(before).map_err(|error| broken(&path, error))?;
    create(store, &path, next).await
}

/// The facts of a part.
pub(crate) async fn read_part(
    store: &Store,
    slot: TimeSlot,
    part: &Part,
) -> Result<PartContent, Failure> {
    let path = names::part(slot, &part.name);
    let bytes = store.get(&path).await?;
    let read = checked::unpack(&bytes, manifest::FORMAT);
    let is_newer = matches!(read, Err(checked::Unpacked::TooNew { .. }));
    if sha256_hex(&bytes) != part.sha256 && !is_newer {
        let what = format!("{path} is damaged: its checksum differs");
        return Err(Failure::new(FailureKind::Damaged, what));
    }
    read.map_err(|error| unreadable(&path, error))
}

/// Reads an ended generation, if it is stored.
pub(crate) async fn read_ended(
    store: &Store,
    of: GenerationId,
) -> Result<Option<GenerationState>, Failure> {
    let path = names::ended_generation(of);
    let Some(read) = read::<Ended>(store, &path, ENDED_FORMAT).await? else { return Ok(None) };
    check_name(&path, read.value.state.id() == of)?;
    Ok(Some(read.value.state))
}

/// Stores an ended generation. Concurrent writers write the same content.
pub(crate) async fn put_ended(store: &Store, state: &GenerationState) -> Result<(), Failure> {
    let path = names::ended_generation(state.id());
    let format = if state.has_blake3() { ENDED_FORMAT } else { manifest::BEFORE_CHANGES };
    let ended = Ended { format, state: state.clone(), nonce: store.nonce() };
    create(store, &path, ended).await.map(|_| ())
}
