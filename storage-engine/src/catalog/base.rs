//! The root that a view begins with: the newest one; where that cannot be read, an older one and what can be
//! told without.
//!
//! What an older root does not know is in the logs that it names and in those that are open. Only of generations
//! that were taken in after it and have ended since nobody can tell whether all of their commits could be
//! rolled up. The root that takes a log in is never the one that says it ended, so with a single root lost there
//! are no such generations.

use capstan_model::failure::with_causes;
use capstan_model::{Failure, FailureKind};
use futures::TryStreamExt;

use super::gap::{About, Gap, GapKind};
use super::rollup::FIRST_FORMAT;
use super::root::Root;
use super::slot::TimeSlot;
use super::versions::{self, Versioned};
use crate::store::{Store, names};

/// Roots that are tried when the newest ones cannot be read.
const OLDER_ROOTS: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Base {
    /// The newest root that can be read; an empty one if none can.
    pub(super) root: Versioned<Root>,
    /// There are, or were, newer ones.
    pub(super) newer: Option<Newer>,
    /// Facts that may be hidden by that.
    pub(super) gap: Option<Gap>,
    /// What is wrong and hides nothing, in words.
    pub(super) note: Option<String>,
}

/// What is known of roots that cannot be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newer {
    /// The version of the newest.
    pub(super) version: u64,
    /// The newest manifest of the wide slot.
    pub(super) wide: Option<u64>,
}

impl Base {
    fn of(root: Versioned<Root>) -> Base {
        Base { root, newer: None, gap: None, note: None }
    }

    /// Finds it. `known` is a root that was read before.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn find(
        store: &Store,
        known: Option<Versioned<Root>>,
    ) -> Result<Base, Failure> {
        match versions::newest_root(store, known).await {
            Ok(root) if root.value.version > 0 || !is_rolled_up(store).await? => Ok(Base::of(root)),
            Ok(none) => {
                // Somebody may just have rolled up for the first time.
                let again = versions::newest_root(store, None).await?;
                if again.value.version > 0 {
                    return Ok(Base::of(again));
                }
                let what = "the roots of the catalog are gone".to_owned();
                let gap = Gap::new(&names::roots(), GapKind::Missing, About::AnyTime, what);
                let newer = Newer { version: u64::MAX, wide: newest_wide(store).await? };
                Ok(Base { root: none, newer: Some(newer), gap: Some(gap), note: None })
            }
            Err(failure)
                if matches!(failure.kind(), FailureKind::Damaged | FailureKind::TooNew) =>
            {
                Base::older(store, failure).await
            }
            Err(failure) => Err(failure),
        }
    }

    /// The newest root that can be read, as the newest one, or a boundary after it, cannot be.
    async fn older(store: &Store, failure: Failure) -> Result<Base, Failure> {
        let listed = versions::listed_roots(store).await?;
        let newest = listed.last().map_or(0, |(version, _)| *version);
        let mut readable = None;
        let mut worst = failure.kind();
        for (version, _) in listed.iter().rev().take(OLDER_ROOTS) {
            match versions::read_root(store, *version).await {
                Ok(Some(root)) => {
                    readable = Some(root);
                    break;
                }
                Ok(None) => {}
                Err(failure)
                    if matches!(failure.kind(), FailureKind::Damaged | FailureKind::TooNew) =>
                {
                    worst = failure.kind();
                }
                Err(failure) => return Err(failure),
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
            _ => format!("{what}: version {version} is used, and the logs after it"),
        };
        if worst == FailureKind::Damaged && version > 0 && version + 1 == newest {
            return Ok(Base { newer, note: Some(what), ..Base::of(root) });
        }
        let kind = if worst == FailureKind::TooNew { GapKind::TooNew } else { GapKind::Damaged };
        let gap = Gap::new(&names::root(newest), kind, About::AnyTime, what);
        Ok(Base { newer, gap: Some(gap), ..Base::of(root) })
    }
}

/// Whether anything of the catalog is there although no root is.
async fn is_rolled_up(store: &Store) -> Result<bool, Failure> {
    if store.format().format < FIRST_FORMAT {
        return Ok(false);
    }
    // Objects and not names of folders: in a folder store an empty one may be left by a crash.
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
