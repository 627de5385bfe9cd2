//! Compares existing objects with the catalog.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use capstan_model::Time;

use super::finding::{Finding, What};
use crate::catalog::Segment;
use crate::segment::{Layer, Layers};
use crate::store::Listed;

/// An orphan older than this belongs to no upload in progress.
pub(crate) const YOUNG: Duration = Duration::from_secs(24 * 3_600);

/// Result of the comparison for the objects of an hour.
#[derive(Debug)]
pub struct Compared {
    /// The mismatches.
    pub findings: Vec<Finding>,
    /// Names of objects that are missing or have another length: their bytes need no check.
    pub unfit: BTreeSet<String>,
}

/// Compares the objects in an hour's folder with the segments that the catalog assigns to it. `layers` are those that
/// this build knows: only their objects are judged.
pub fn compare<'a>(
    layers: &Layers,
    segments: impl IntoIterator<Item = &'a Arc<Segment>>,
    found: &[Listed],
    now: Time,
) -> Compared {
    let mut left: BTreeMap<&str, &Listed> =
        found.iter().map(|object| (object.path.as_ref(), object)).collect();
    let (mut findings, mut unfit) = (Vec::new(), BTreeSet::new());
    for segment in segments {
        for layer in layers.all() {
            let object = segment.path(layer).to_string();
            let Some(committed) = segment.layer(layer) else {
                // A retired layer is deleted some time later.
                if segment.retired(layer).is_some() {
                    left.remove(object.as_str());
                }
                continue;
            };
            let what = match left.remove(object.as_str()) {
                None => What::Missing(layer),
                Some(found) if found.bytes != committed.bytes => {
                    What::Length { layer, found: found.bytes, committed: committed.bytes }
                }
                Some(_) => continue,
            };
            unfit.insert(object.clone());
            findings.push(Finding { object, what });
        }
        // The segment has layers of a newer version, unknown here.
        if segment.layers().any(|entry| layers.named(&entry.layer).is_none()) {
            let index = segment.path(Layer::Index);
            let folder = index.as_ref().strip_suffix(Layer::Index.file()).unwrap_or_default();
            left.retain(|object, _| !object.starts_with(folder));
        }
    }
    findings.extend(left.into_values().map(|object| Finding {
        object: object.path.to_string(),
        what: What::Orphan {
            bytes: object.bytes,
            young: now < object.modified.saturating_add(YOUNG),
        },
    }));
    Compared { findings, unfit }
}
