//! Import plan: start fresh, resume a stopped import, continue at the old end of a grown file, or skip.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capstan_model::{Failure, FailureKind, Generation, RecorderId, TimeRange};
use capstan_storage_engine::catalog::succession::{self, Standing};
use capstan_storage_engine::catalog::{Catalog, GenerationState, Import, Source, SourceMark};
use capstan_storage_engine::segment::Layer;
use capstan_storage_engine::store::Store;
use roaring::RoaringTreemap;
use sha2::{Digest, Sha256};

use super::identity::{Known, begins_with};
use super::stored::{self, Stored};
use super::{ImportOptions, Watch};

/// Interval at which the stop flag is checked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The source of an import and its identity.
#[derive(Debug)]
pub struct Plan {
    pub(super) recorder: RecorderId,
    /// The generation of this import, unless another process takes it first. None for a stream.
    pub(super) next: Option<Generation>,
    /// The file; none for a stream.
    pub(super) known: Option<Known>,
    pub(super) name: String,
    /// The earlier import that this one continues.
    pub(super) before: Option<Import>,
    /// Committed ordinals above the first uncommitted one.
    pub(super) scattered: RoaringTreemap,
}

impl Plan {
    /// The source as the catalog records it.
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

/// A recorder with earlier imports of a file. All its generations have ended.
struct Writers {
    recorder: RecorderId,
    catalog: Catalog,
    stored: Stored,
    next: Generation,
}

/// Decides how to import a source. `known` is none for a stream.
///
/// # Errors
/// [`FailureKind::AlreadyThere`] if the store has all of it and the caller does not ask for it
/// again; [`FailureKind::Busy`] if another process imports it now; store errors;
/// [`FailureKind::Interrupted`] if stopped while the file was compared to an earlier import.
pub async fn plan(
    store: &Store,
    name: &str,
    known: Option<Known>,
    options: &ImportOptions,
    watch: &dyn Watch,
) -> Result<Plan, Failure> {
    let name = name.to_owned();
    let Some(known) = known else {
        // A stream has no identity before its end, so it gets a unique one.
        let unique = Sha256::digest(format!("stream {}", capstan_storage_engine::store::nonce()));
        let recorder = recorder_of(&unique);
        let scattered = RoaringTreemap::new();
        return Ok(Plan { recorder, next: None, known: None, name, before: None, scattered });
    };
    let writers = recorders_of(&known)
        .into_iter()
        .map(|recorder| ended(store, &name, recorder, options, watch));
    let mut writers = futures::future::try_join_all(writers).await?;
    for writer in &writers {
        if let (Stored::InPart(ordinals), false) = (&writer.stored, options.again)
            && let Some(plan) = in_part(store, &name, &known, writer, ordinals, options, watch)?
        {
            return Ok(plan);
        }
    }
    let all: Vec<(usize, Import)> = (0..writers.len())
        .flat_map(|place| writers[place].catalog.imports().into_iter().map(move |of| (place, of)))
        .collect();
    let imports: Vec<&(usize, Import)> =
        all.iter().filter(|(_, of)| may_be_of(of, known.bytes, options.again)).collect();
    let begun = begun(&known, imports.iter().map(|(_, of)| of), options, watch)?;
    // An import without a mark committed nothing.
    let same = begun.into_iter().map(|begun| begun.unwrap_or(true));
    let of_it: Vec<&(usize, Import)> =
        imports.into_iter().zip(same).filter_map(|(of, same)| same.then_some(of)).collect();
    if let Some((_, done)) = of_it.iter().find(|(_, of)| of.complete && read_of(of) == known.bytes)
    {
        return Err(already_there(store, &name, done));
    }
    if of_it.is_empty()
        && !options.again
        && let Some(done) = outgrown(&known, &all, options, watch)?
    {
        return Err(already_there(store, &name, done));
    }
    let before = farthest(of_it, |(_, import)| import);
    let place = before.map_or(writers.len() - 1, |(place, _)| *place);
    let scattered = match before {
        Some((_, import)) => scattered(store, &writers[place].catalog, import).await?,
        None => RoaringTreemap::new(),
    };
    let before = before.map(|(_, import)| import.clone());
    if before.is_none() && !options.again {
        let most = all.iter().map(|(_, import)| import).max_by_key(|import| import.packets);
        if let Some(other) = most.filter(|of| of.packets > 0) {
            watch.alike(&other.source.name, other.packets);
        }
    }
    let Writers { recorder, next, .. } = writers.swap_remove(place);
    Ok(Plan { recorder, next: Some(next), known: Some(known), name, before, scattered })
}

/// Whether the file begins with the bytes of each import. None for an import without a mark.
fn begun<'a>(
    known: &Known,
    imports: impl Iterator<Item = &'a Import> + Clone,
    options: &ImportOptions,
    watch: &dyn Watch,
) -> Result<Vec<Option<bool>>, Failure> {
    let marks: Vec<&SourceMark> =
        imports.clone().filter_map(|of| of.source_read.as_ref()).collect();
    let mut begins = begins_with(&known.path, &marks, &options.stop, watch)?.into_iter();
    Ok(imports.map(|of| of.source_read.as_ref().and_then(|_| begins.next())).collect())
}

/// The import that had the whole file and later continued with a longer version of it.
fn outgrown<'a>(
    known: &Known,
    imports: &'a [(usize, Import)],
    options: &ImportOptions,
    watch: &dyn Watch,
) -> Result<Option<&'a Import>, Failure> {
    let earlier = imports.iter().flat_map(|(_, of)| of.earlier.iter().map(move |mark| (of, mark)));
    let earlier: Vec<_> = earlier.filter(|(_, mark)| mark.bytes == known.bytes).collect();
    let marks: Vec<&SourceMark> = earlier.iter().map(|(_, mark)| *mark).collect();
    let begins = begins_with(&known.path, &marks, &options.stop, watch)?;
    Ok(earlier.into_iter().zip(begins).find_map(|((of, _), begins)| begins.then_some(of)))
}

/// The import with the most progress. The first of several.
fn farthest<'a, T>(
    found: impl IntoIterator<Item = &'a T>,
    import: impl Fn(&T) -> &Import,
) -> Option<&'a T> {
    found.into_iter().reduce(|best, other| {
        if read_of(import(best)) < read_of(import(other)) { other } else { best }
    })
}

/// The possible recorders of an import of a file. A new import gets the last one.
///
/// That one is derived from the first packet, so all imports of the file meet there, even while it
/// grows. Earlier versions derived it from the sketch. A file without a packet still uses the
/// sketch.
fn recorders_of(known: &Known) -> Vec<RecorderId> {
    let by_sketch = recorder_of(&Sha256::digest(format!("import {}", known.sketch)));
    let by_beginning = known.beginning.as_ref().map(|beginning| {
        recorder_of(&Sha256::digest(format!("import of what begins with {beginning}")))
    });
    [Some(by_sketch), by_beginning].into_iter().flatten().collect()
}

/// Ensures that no other process imports under this recorder now.
async fn ended(
    store: &Store,
    name: &str,
    recorder: RecorderId,
    options: &ImportOptions,
    watch: &dyn Watch,
) -> Result<Writers, Failure> {
    let waiting = |state: &GenerationState, at_most| {
        let info = state.writer().map(|writer| &writer.info);
        watch.waiting(
            info.map_or("", |info| &info.host),
            info.map(|info| info.started_at),
            at_most,
        );
    };
    let segments = |catalog: &Catalog| catalog.segments(TimeRange::ALL).count();
    loop {
        // Load first, then end the generation: its last commit would hide a missing one.
        let log = Catalog::load_recorder(store, recorder).await?;
        let stored = Stored::look(store, name, recorder, &log).await?;
        let look = succession::look(store, recorder, options.dead_after, &waiting);
        let standing = tokio::select! {
            biased;
            standing = look => standing?,
            () = until_set(&options.stop) => {
                let what = format!("stopped before anything of {name} was imported");
                return Err(Failure::new(FailureKind::Interrupted, what));
            }
        };
        match standing {
            Standing::Free { catalog, next } if segments(&catalog) == segments(&log) => {
                return Ok(Writers { recorder, catalog, stored, next });
            }
            // Another commit arrived meanwhile.
            Standing::Free { .. } => {}
            Standing::Alive(state) => return Err(busy(store, name, &state)),
        }
    }
}

/// Waits until the stop flag is set.
async fn until_set(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether an import can be of a file of `bytes` bytes.
fn may_be_of(import: &Import, bytes: u64, again: bool) -> bool {
    let is_wanted = !(import.complete && again);
    is_wanted && read_of(import) <= bytes
}

/// Bytes of its file that an import has read.
fn read_of(import: &Import) -> u64 {
    import.source_read.as_ref().map_or(0, |mark| mark.bytes)
}

fn busy(store: &Store, name: &str, state: &GenerationState) -> Failure {
    let mut what = format!("{name} is being imported into {} by another process", store.place());
    if let Some(writer) = state.writer() {
        what += &format!(" on {}, since {}", writer.info.host, writer.info.started_at);
        if let Some(source) = writer.info.source.as_ref().filter(|source| source.name != name) {
            what += &format!(", as {}", source.name);
        }
    }
    what += &format!(
        "; it has committed {} packets so far. This process imported nothing",
        state.packets()
    );
    Failure::new(FailureKind::Busy, what)
}

/// The error if another process took the planned generation.
pub(super) fn overtaken(store: &Store, name: &str) -> Failure {
    let what = format!(
        "another process started to import {name} into {} at the same time. This process imported \
         nothing",
        store.place()
    );
    Failure::new(FailureKind::Busy, what)
}

/// Plan for a file whose earlier import is partly unreadable: readable packets are not stored again.
/// None if the import is of another file.
fn in_part(
    store: &Store,
    name: &str,
    known: &Known,
    writer: &Writers,
    ordinals: &stored::Ordinals,
    options: &ImportOptions,
    watch: &dyn Watch,
) -> Result<Option<Plan>, Failure> {
    let Writers { recorder, catalog, next, .. } = writer;
    let imports = catalog.imports();
    let begun = begun(known, imports.iter(), options, watch)?;
    let is_same = |import: &Import, begun: Option<bool>| {
        begun.unwrap_or(import.source.sketch == known.sketch)
            && may_be_of(import, known.bytes, false)
    };
    let of_it: Vec<&Import> = imports
        .iter()
        .zip(begun)
        .filter_map(|(import, begun)| is_same(import, begun).then_some(import))
        .collect();
    let found = farthest(of_it.iter(), |of| of).map(|of| (*of).clone());
    if found.is_none() && !imports.is_empty() {
        return Ok(None);
    }
    let source = Source { name: name.to_owned(), bytes: known.bytes, sketch: known.sketch.clone() };
    let import = found.unwrap_or_else(|| stored::nameless(*recorder, source));
    // A generation without a writer record belongs to an unknown import, unless there is only one import.
    let generations: RangeInclusive<Generation> = match imports.len() {
        0 | 1 => stored::all_generations(catalog)
            .unwrap_or(import.first_generation..=import.last_generation),
        _ => import.first_generation..=import.last_generation,
    };
    let mut scattered = RoaringTreemap::new();
    for (_, of) in ordinals.iter().filter(|(generation, _)| generations.contains(generation)) {
        scattered |= of;
    }
    let packets = scattered.len();
    let before = stored::in_part(import, &generations, packets);
    if stored::total(catalog, &generations) == Some(packets) {
        return Err(already_there(store, name, &before));
    }
    Ok(Some(Plan {
        recorder: *recorder,
        next: Some(*next),
        known: Some(known.clone()),
        name: name.to_owned(),
        before: Some(before),
        scattered,
    }))
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
            "{name} is already in {}{known}: {} packets; --again imports it once more",
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

/// Committed ordinals from `import.next_ordinal` on. They exist because several segments were open
/// and commits were out of order.
async fn scattered(
    store: &Store,
    catalog: &Catalog,
    import: &Import,
) -> Result<RoaringTreemap, Failure> {
    let mut found = RoaringTreemap::new();
    let generations = import.first_generation..=import.last_generation;
    for segment in catalog.segments(TimeRange::ALL) {
        if segment.of.recorder != import.recorder
            || !generations.contains(&segment.of.generation)
            || segment.entry.last_ordinal < import.next_ordinal
        {
            continue;
        }
        let index = store.get(&segment.path(Layer::Index)).await?;
        let opened = segment.entry.open(&index)?;
        let ordinals = stored::ordinals(store, segment, &opened).await?.into_iter();
        found.extend(ordinals.filter(|ordinal| *ordinal >= import.next_ordinal));
    }
    Ok(found)
}
