//! How a source is imported: anew, on from where an earlier run stopped, or not at all.

use std::sync::atomic::AtomicBool;

use capstan_model::{Failure, FailureKind, RecorderId, TimeRange};
use capstan_storage_engine::catalog::{Catalog, Import, Source};
use capstan_storage_engine::fetch::StoreFetch;
use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::segment::packets::{self, column};
use capstan_storage_engine::store::Store;
use roaring::RoaringTreemap;
use sha2::{Digest, Sha256};

use super::Watch;
use super::identity::{Known, begins_with};

/// What is imported, and under which identity.
#[derive(Debug)]
pub struct Plan {
    pub(super) recorder: RecorderId,
    /// The file; none for a stream.
    pub(super) known: Option<Known>,
    pub(super) name: String,
    /// The import this one goes on with.
    pub(super) before: Option<Import>,
    /// Ordinals that are committed although a lower one is not.
    pub(super) scattered: RoaringTreemap,
}

impl Plan {
    /// What the catalog says of the source.
    pub(super) fn source(&self) -> Option<Source> {
        self.known.as_ref().map(|known| Source {
            name: self.name.clone(),
            bytes: known.bytes,
            sketch: known.sketch.clone(),
        })
    }

    /// Packets that earlier runs committed.
    pub(super) fn packets_before(&self) -> u64 {
        self.before.as_ref().map_or(0, |import| import.packets)
    }
}

/// Decides how a source is imported. `known` is none for a stream.
///
/// # Errors
/// [`FailureKind::AlreadyThere`] if the store has all of it and `again` is not set; what the store says;
/// [`FailureKind::Interrupted`] when `stop` was set while the file was compared to an earlier import.
pub async fn plan(
    store: &Store,
    name: &str,
    known: Option<Known>,
    again: bool,
    stop: &AtomicBool,
    watch: &dyn Watch,
) -> Result<Plan, Failure> {
    let name = name.to_owned();
    let Some(known) = known else {
        // A stream cannot be known before it has ended: it gets an identity of its own.
        let unique = Sha256::digest(format!("stream {}", capstan_storage_engine::store::nonce()));
        let recorder = recorder_of(&unique);
        let scattered = RoaringTreemap::new();
        return Ok(Plan { recorder, known: None, name, before: None, scattered });
    };
    let recorder = recorder_of(&Sha256::digest(format!("import {}", known.sketch)));
    // A file's recorder is made of its sketch, so all that is known of it is in this one's log.
    let catalog = Catalog::load_recorder(store, recorder).await?;
    let mut before = None;
    for import in catalog.imports(&known.sketch) {
        if import.complete && again || before.is_some() && !import.complete {
            continue;
        }
        let same = match &import.source_read {
            Some(mark) if import.complete && mark.bytes != known.bytes => false,
            Some(mark) => begins_with(&known.path, mark, stop, watch)?,
            // Nothing of it was committed.
            None => true,
        };
        if same && import.complete {
            return Err(already_there(store, &name, &import));
        }
        if same {
            before = Some(import);
        }
    }
    let scattered = match &before {
        Some(import) => scattered(store, &catalog, import).await?,
        None => RoaringTreemap::new(),
    };
    Ok(Plan { recorder, known: Some(known), name, before, scattered })
}

fn already_there(store: &Store, name: &str, done: &Import) -> Failure {
    let known = if done.source.name == name {
        String::new()
    } else {
        format!(" (as {})", done.source.name)
    };
    Failure::new(
        FailureKind::AlreadyThere,
        format!(
            "{name} is in {} already{known}: {} packets; --again imports it once more",
            store.place(),
            done.packets
        ),
    )
}

fn recorder_of(digest: &[u8]) -> RecorderId {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    RecorderId(u64::from_be_bytes(bytes))
}

/// Committed ordinals from `import.next_ordinal` on: several segments were open,
/// and some of them were committed before others.
async fn scattered(
    store: &Store,
    catalog: &Catalog,
    import: &Import,
) -> Result<RoaringTreemap, Failure> {
    let mut found = RoaringTreemap::new();
    let lives = import.first_generation..=import.last_generation;
    for segment in catalog.segments(TimeRange::ALL) {
        if segment.recorder != import.recorder
            || !lives.contains(&segment.generation)
            || segment.entry.last_ordinal < import.next_ordinal
        {
            continue;
        }
        let index = store.get(&segment.path(Layer::Index)).await?;
        let opened = segment.entry.open(&index)?;
        let fetch = StoreFetch::new(store, &segment.entry);
        let scan = opened.scan_all(Layer::Packets, Some(&[column::ORDINAL]))?;
        for batch in scan.run(&fetch).await? {
            let ordinals = packets::ordinals(&batch)?;
            found.extend(ordinals.filter(|ordinal| *ordinal >= import.next_ordinal));
        }
    }
    Ok(found)
}
