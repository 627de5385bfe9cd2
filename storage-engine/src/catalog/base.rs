//! The root that a view begins with: the newest root, or an older one if the newest is unreadable.
//!
//! Facts that an older root does not know are in the logs that it names and in the open logs. One case remains
//! unknown: a generation that was admitted after that root and has ended since. Its commits may or may not be rolled
//! up. The root that admits a log is never the root that ends it, so the loss of a single root leaves no such
//! generation.

use capstan_model::Failure;
use capstan_model::failure::with_causes;
use futures::TryStreamExt;

use super::gap::{About, Gap, GapKind};
use super::load::FIRST_FORMAT;
use super::root::Root;
use super::slot::TimeSlot;
use super::versions::{self, Versioned};
use crate::catalog::names;
use crate::store::Store;

/// Number of older roots that are tried when the newest is unreadable.
const OLDER_ROOTS: usize = 8;

/// A base. See the module.
#[derive(Debug)]
pub(super) struct Base {
    /// The newest readable root; an empty root if none is readable.
    pub(super) root: Versioned<Root>,
    /// Newer roots that exist or existed.
    pub(super) newer: Option<Newer>,
    /// Facts that the missing roots may hide.
    pub(super) gap: Option<Gap>,
    /// A fault that hides no facts, as text.
    pub(super) note: Option<String>,
}

/// Facts about the unreadable roots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newer {
    /// Version of the newest root.
    pub(super) version: u64,
    /// Version of the newest manifest of the wide slot.
    pub(super) wide: Option<u64>,
}

impl Base {
    fn of(root: Versioned<Root>) -> Base {
        Base { root, newer: None, gap: None, note: None }
    }

    /// Finds the root. `known` is a root that was read before.
    ///
    /// # Errors
    /// Errors of the store.
    pub(super) async fn find(
        store: &Store,
        known: Option<Versioned<Root>>,
    ) -> Result<Base, Failure> {
        match versions::newest_root(store, known).await {
            Ok(root) if root.value.version > 0 || !is_rolled_up(store).await? => Ok(Base::of(root)),
            Ok(none) => {
                // Another process may have made the first rollup just now.
                let again = versions::newest_root(store, None).await?;
                if again.value.version > 0 {
                    return Ok(Base::of(again));
                }
                let what = "all roots of the catalog are missing".to_owned();
                let gap = Gap::new(&names::roots(), GapKind::Missing, About::AnyTime, what);
                let newer = Newer { version: u64::MAX, wide: newest_wide(store).await? };
                Ok(Base { root: none, newer: Some(newer), gap: Some(gap), note: None })
            }
            Err(failure) => match unreadable(&failure) {
                Some(kind) => Base::older(store, kind, failure).await,
                None => Err(failure),
            },
        }
    }

    /// The newest readable root, when the newest root, or a boundary after it, is unreadable.
    async fn older(store: &Store, kind: GapKind, failure: Failure) -> Result<Base, Failure> {
        let listed = versions::listed_roots(store).await?;
        let newest = listed.last().map_or(0, |(version, _)| *version);
        let mut readable = None;
        let mut worst = kind;
        for (version, _) in listed.iter().rev().take(OLDER_ROOTS) {
            match versions::read_root(store, *version).await {
                Ok(Some(root)) => {
                    readable = Some(root);
                    break;
                }
                Ok(None) => {}
                Err(failure) => worst = unreadable(&failure).ok_or(failure)?,
            }
        }
        let root =
            readable.unwrap_or_else(|| Versioned { value: Root::empty(), sha256: String::new() });
        let (version, what) = (root.value.version, with_causes(&failure));
        if version == newest {
            return Ok(Base { note: Some(what), ..Base::of(root) });
        }
        let newer = Some(Newer { version: newest, wide: newest_wide(store).await? });
        let what = match version {
            0 => format!("{what}, and no older root can be read"),
            _ => format!("{what}: using version {version} and the logs after it"),
        };
        if worst == GapKind::Damaged && version > 0 && version + 1 == newest {
            return Ok(Base { newer, note: Some(what), ..Base::of(root) });
        }
        let gap = Gap::new(&names::root(newest), worst, About::AnyTime, what);
        Ok(Base { newer, gap: Some(gap), ..Base::of(root) })
    }
}

/// Why an object that is there is unreadable; none if it may be readable.
fn unreadable(failure: &Failure) -> Option<GapKind> {
    GapKind::of(failure).filter(|kind| *kind != GapKind::Missing)
}

/// Whether the catalog has rolled-up objects although it has no root.
async fn is_rolled_up(store: &Store) -> Result<bool, Failure> {
    if store.format().format < FIRST_FORMAT {
        return Ok(false);
    }
    // Lists objects, not folder names: a crash may leave an empty folder in a folder store.
    let mut objects = store.list(&names::catalog());
    while let Some(object) = objects.try_next().await? {
        if !object.path.prefix_matches(&names::roots()) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn newest_wide(store: &Store) -> Result<Option<u64>, Failure> {
    Ok(versions::listed_manifests(store, TimeSlot::Wide).await?.pop().map(|(version, _)| version))
}
