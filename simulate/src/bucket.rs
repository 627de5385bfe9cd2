//! A simulated bucket with worst-case behaviour.
//!
//! Requests are slow or lost, or take effect while their response is lost. A request may arrive long
//! after its sender is gone. Creates fail spuriously, responses are truncated, listings are
//! unordered and show new or removed objects late. Two guarantees hold: only one create of a name
//! succeeds, and stored objects are never lost.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use capstan_model::Time;
use chrono::DateTime;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};

use crate::chance::{Chance, Clock};

/// How bad a bucket is, each of a thousand requests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Requests that never arrive.
    pub(crate) lost: u64,
    /// Answers that never arrive.
    pub(crate) unanswered: u64,
    /// 503.
    pub(crate) unavailable: u64,
    /// Creates that are turned away with 409 though nobody has the name.
    pub(crate) conflict: u64,
    /// Answers that end in their middle.
    pub(crate) cut: u64,
    /// Requests that take a minute or several.
    pub(crate) slow: u64,
    /// How long listings may not show what happened.
    pub(crate) lag: Duration,
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    made: Time,
    /// Listings show it from then on.
    seen_from: Time,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    /// Removed objects that listings still show, until then.
    ghosts: BTreeMap<String, (Time, u64, Time)>,
    requests: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Bucket {
    state: Arc<Mutex<State>>,
    faults: Arc<Mutex<Faults>>,
    chance: Chance,
    clock: Clock,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(kind: std::io::ErrorKind, what: &'static str) -> Error {
    Error::Generic { store: "bucket", source: std::io::Error::new(kind, what).into() }
}

fn missing(path: &Path) -> Error {
    Error::NotFound { path: path.to_string(), source: "404".into() }
}

impl Bucket {
    pub(crate) fn new(chance: Chance, clock: Clock) -> Bucket {
        Bucket { state: Arc::default(), faults: Arc::default(), chance, clock }
    }

    /// From now on it is that bad.
    pub(crate) fn be(&self, faults: Faults) {
        *lock(&self.faults) = faults;
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        lock(&self.state).requests
    }

    /// A number that is another one if anything stored is.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut sum = 0xcbf2_9ce4_8422_2325_u64;
        let mut take = |bytes: &[u8]| {
            for byte in bytes {
                sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        for (name, object) in &lock(&self.state).objects {
            take(name.as_bytes());
            take(&object.bytes);
        }
        sum
    }

    /// The names of all objects below one, past all faults.
    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        let state = lock(&self.state);
        let below = state.objects.range(prefix.to_owned()..);
        below
            .take_while(|(name, _)| name.starts_with(prefix))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// What somebody sees who does not see some objects, past all faults.
    pub(crate) fn without(&self, hidden: impl Fn(&str) -> bool) -> Bucket {
        let bucket = Bucket::new(Chance::new(self.chance.next()), self.clock);
        let state = lock(&self.state);
        let shown = state.objects.iter().filter(|(name, _)| !hidden(name));
        let shown = shown.map(|(name, object)| (name.clone(), object.clone()));
        lock(&bucket.state).objects = shown.collect();
        drop(state);
        bucket
    }

    /// An object is no more, and no request was to blame.
    pub(crate) fn lose(&self, name: &str) {
        lock(&self.state).objects.remove(name);
    }

    /// A byte of an object is another one.
    pub(crate) fn spoil(&self, name: &str) {
        let place = self.chance.next();
        if let Some(object) = lock(&self.state).objects.get_mut(name)
            && !object.bytes.is_empty()
        {
            let mut bytes = object.bytes.to_vec();
            let place = place as usize % bytes.len();
            bytes[place] ^= 0x10;
            object.bytes = bytes.into();
        }
    }

    /// The way of a request there, and whether it arrives.
    async fn arrive(&self) -> Result<()> {
        lock(&self.state).requests += 1;
        let faults = *lock(&self.faults);
        let wait = if self.chance.per_mille(faults.slow) { 20_000..200_000 } else { 1..30 };
        tokio::time::sleep(self.chance.millis(wait)).await;
        if self.chance.per_mille(faults.lost) {
            return Err(failed(std::io::ErrorKind::TimedOut, "the request got lost"));
        }
        if self.chance.per_mille(faults.unavailable) {
            return Err(failed(std::io::ErrorKind::ConnectionReset, "status code: 503"));
        }
        Ok(())
    }

    /// The way of an answer back.
    async fn answer<T>(&self, answer: Result<T>) -> Result<T> {
        tokio::time::sleep(self.chance.millis(1..10)).await;
        if self.chance.per_mille(lock(&self.faults).unanswered) {
            return Err(failed(std::io::ErrorKind::TimedOut, "the answer got lost"));
        }
        answer
    }

    fn lagging(&self, now: Time) -> Time {
        let lag = lock(&self.faults).lag.as_millis() as u64;
        let lag = if lag == 0 { Duration::ZERO } else { self.chance.millis(0..lag) };
        now.saturating_add(lag)
    }

    fn put(&self, path: &Path, bytes: Bytes, mode: &PutMode) -> Result<PutResult> {
        let conflict = self.chance.per_mille(lock(&self.faults).conflict);
        let now = self.clock.now();
        let seen_from = self.lagging(now);
        let mut state = lock(&self.state);
        let taken = || Error::AlreadyExists { path: path.to_string(), source: "412".into() };
        match mode {
            PutMode::Create if conflict => {
                return Err(Error::AlreadyExists { path: path.to_string(), source: "409".into() });
            }
            PutMode::Create if state.objects.contains_key(path.as_ref()) => return Err(taken()),
            PutMode::Create => {}
            // Nothing in a store is ever written over.
            PutMode::Overwrite | PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "overwrite".to_owned(),
                    implementer: "bucket".to_owned(),
                });
            }
        }
        state.ghosts.remove(path.as_ref());
        state.objects.insert(path.to_string(), Object { bytes, made: now, seen_from });
        Ok(PutResult { e_tag: None, version: None })
    }

    fn delete(&self, path: &Path) -> Result<()> {
        let until = self.lagging(self.clock.now());
        let mut state = lock(&self.state);
        if let Some(gone) = state.objects.remove(path.as_ref()) {
            let ghost = (until, gone.bytes.len() as u64, gone.made);
            state.ghosts.insert(path.to_string(), ghost);
        }
        // S3 says the same of what was not there.
        Ok(())
    }

    /// What a listing of a prefix shows, in no order.
    fn listed(&self, prefix: Option<&Path>) -> Vec<ObjectMeta> {
        let now = self.clock.now();
        let state = lock(&self.state);
        let prefix = prefix.map(|prefix| format!("{prefix}/")).unwrap_or_default();
        let prefix = if prefix == "/" { String::new() } else { prefix };
        let there = state
            .objects
            .range(prefix.clone()..)
            .take_while(|(name, _)| name.starts_with(&prefix))
            .filter(|(_, object)| object.seen_from <= now)
            .map(|(name, object)| (name, object.bytes.len() as u64, object.made));
        let gone = state
            .ghosts
            .range(prefix.clone()..)
            .take_while(|(name, _)| name.starts_with(&prefix))
            .filter(|(_, (until, ..))| *until > now)
            .map(|(name, (_, bytes, made))| (name, *bytes, *made));
        let mut found: Vec<ObjectMeta> = there
            .chain(gone)
            .map(|(name, bytes, made)| meta(&Path::from(name.as_str()), bytes, made))
            .collect();
        drop(state);
        self.shuffle(&mut found);
        found
    }

    fn shuffle<T>(&self, of: &mut [T]) {
        for place in (1..of.len()).rev() {
            of.swap(place, self.chance.of(0..place as u64 + 1) as usize);
        }
    }
}

fn meta(path: &Path, size: u64, made: Time) -> ObjectMeta {
    ObjectMeta {
        location: path.clone(),
        last_modified: DateTime::from_timestamp_nanos(made.0),
        size,
        e_tag: None,
        version: None,
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a simulated bucket")
    }
}

/// What the world shares.
#[derive(Debug, Clone)]
pub(crate) struct Shared(pub(crate) Arc<Bucket>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Runs what goes on in the bucket whatever becomes of who asked for it.
async fn apart<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let broken = |_| failed(std::io::ErrorKind::Other, "the bucket broke");
    tokio::spawn(work).await.map_err(broken)?
}

#[async_trait]
impl ObjectStore for Shared {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let (bucket, path) = (Arc::clone(&self.0), location.clone());
        apart(async move {
            bucket.arrive().await?;
            let answer = bucket.put(&path, payload.into(), &options.mode);
            bucket.answer(answer).await
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented {
            operation: "multipart".to_owned(),
            implementer: "bucket".to_owned(),
        })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.arrive().await?;
        let found = {
            let state = lock(&self.0.state);
            let object = state.objects.get(location.as_ref());
            object.map(|object| (object.bytes.clone(), object.made))
        };
        let answer = found.ok_or_else(|| missing(location));
        let (bytes, made) = self.0.answer(answer).await?;
        let length = bytes.len() as u64;
        let range = match &options.range {
            None => 0..length,
            Some(range) => range
                .as_range(length)
                .map_err(|error| Error::Generic { store: "bucket", source: error.into() })?,
        };
        let body = bytes.slice(range.start as usize..range.end as usize);
        let cut = self.0.chance.per_mille(lock(&self.0.faults).cut);
        let end = cut.then(|| Err(failed(std::io::ErrorKind::ConnectionReset, "the answer ends")));
        let body = if cut { body.slice(..body.len() / 2) } else { body };
        let payload = stream::iter([Ok(body)].into_iter().chain(end)).boxed();
        Ok(GetResult {
            payload: GetResultPayload::Stream(payload),
            meta: meta(location, length, made),
            range,
            attributes: Attributes::new(),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let bucket = Arc::clone(&self.0);
        let removed = async move {
            let mut paths: Vec<Path> = locations.try_collect().await?;
            // A request for many objects has no order.
            bucket.shuffle(&mut paths);
            Ok::<_, Error>(stream::iter(paths).then(move |path| {
                let bucket = Arc::clone(&bucket);
                apart(async move {
                    bucket.arrive().await?;
                    let answer = bucket.delete(&path);
                    bucket.answer(answer).await.map(|()| path)
                })
            }))
        };
        stream::once(removed).try_flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (bucket, prefix) = (Arc::clone(&self.0), prefix.cloned());
        stream::once(async move {
            bucket.arrive().await?;
            let found = bucket.listed(prefix.as_ref());
            let found = bucket.answer(Ok(found)).await?;
            Ok::<_, Error>(stream::iter(found.into_iter().map(Ok)))
        })
        .try_flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.arrive().await?;
        let depth = prefix.map_or(0, |prefix| prefix.parts().count());
        let mut below = BTreeMap::new();
        let mut objects = Vec::new();
        for found in self.0.listed(prefix) {
            let parts: Vec<_> = found.location.parts().take(depth + 1).collect();
            if found.location.parts().count() > depth + 1 {
                below.insert(parts.into_iter().collect::<Path>(), ());
            } else {
                objects.push(found);
            }
        }
        let common_prefixes = below.into_keys().collect();
        self.0.answer(Ok(ListResult { common_prefixes, objects })).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented {
            operation: "copy".to_owned(),
            implementer: "bucket".to_owned(),
        })
    }
}
