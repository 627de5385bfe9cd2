//! Reads an object or a range over connections that may break or stall.
//!
//! Received bytes are kept, and the next request asks for the rest of the same version of the object, by its ETag.
//! The result is returned only when it has every announced byte.

use std::ops::Range;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore};

use super::Store;
use super::error::StoreError;
use super::patience::{Tried, Waiting};

/// Maximum buffer that is allocated up front for an answer in several pieces; the announced length is not trusted.
const MOST_AT_ONCE: u64 = 16 << 20;

/// The received part of an answer.
#[derive(Debug, Default)]
struct Come {
    /// Announced byte range of the object, its version (ETag) and its length.
    of: Option<(Range<u64>, Option<String>, u64)>,
    /// A single piece is returned without a copy.
    first: Option<Bytes>,
    joined: Vec<u8>,
}

impl Come {
    fn len(&self) -> u64 {
        (self.first.as_ref().map_or(0, Bytes::len) + self.joined.len()) as u64
    }

    /// The next request.
    fn rest(&self, wanted: Option<&Range<u64>>) -> GetOptions {
        let range = match &self.of {
            Some((of, ..)) if self.len() > 0 => Some(of.start + self.len()..of.end),
            _ => wanted.cloned(),
        };
        GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() }
    }

    /// Accepts an answer; false if it does not continue where the last one broke off.
    fn goes_on_with(&mut self, answer: &GetResult) -> bool {
        let version = (answer.meta.e_tag.clone(), answer.meta.size);
        match &self.of {
            Some((of, tag, size)) if self.len() > 0 => {
                let rest = of.start + self.len()..of.end;
                rest == answer.range && (tag, *size) == (&version.0, version.1)
            }
            _ => {
                self.of = Some((answer.range.clone(), version.0, version.1));
                true
            }
        }
    }

    fn push(&mut self, piece: Bytes) {
        match self.first.take() {
            None if self.joined.is_empty() => self.first = Some(piece),
            first => {
                if let Some(first) = first {
                    let announced = self.of.as_ref().map_or(0, |(of, ..)| of.end - of.start);
                    let room = announced.min(MOST_AT_ONCE) as usize;
                    self.joined.reserve(room.max(first.len() + piece.len()));
                    self.joined.extend_from_slice(&first);
                }
                self.joined.extend_from_slice(&piece);
            }
        }
    }

    /// All announced bytes; `None` if there are more or fewer.
    fn whole(&mut self) -> Option<Bytes> {
        let (of, ..) = self.of.as_ref()?;
        if self.len() != of.end - of.start {
            return None;
        }
        let joined = std::mem::take(&mut self.joined);
        Some(self.first.take().unwrap_or_else(|| joined.into()))
    }
}

impl Store {
    /// Reads an object, or a range of it.
    pub(super) async fn read(
        &self,
        path: &Path,
        range: Option<Range<u64>>,
    ) -> Result<Bytes, StoreError> {
        let what = match &range {
            None => format!("read {path} of {}", self.place),
            Some(range) => format!("read {path} of {} from {} on", self.place, range.start),
        };
        if !self.remote {
            let options = Come::default().rest(range.as_ref());
            let read = async { self.objects.get_opts(path, options).await?.bytes().await };
            return read.await.map_err(|error| StoreError::of(what, error));
        }
        let mut waiting = self.waiting(self.means.patience.reading(), what);
        let mut come = Come::default();
        loop {
            match self.read_on(path, range.as_ref(), &mut come, &mut waiting).await {
                Ok(bytes) => return Ok(bytes),
                Err(tried) => waiting.again(tried).await?,
            }
        }
    }

    /// Reads the missing bytes.
    async fn read_on(
        &self,
        path: &Path,
        range: Option<&Range<u64>>,
        come: &mut Come,
        waiting: &mut Waiting<'_>,
    ) -> Result<Bytes, Tried> {
        let options = come.rest(range);
        let answer = waiting.attempt(self.objects.get_opts(path, options)).await?;
        if !come.goes_on_with(&answer) {
            *come = Come::default();
            let what = format!("{}: the object changed during the read", waiting.what());
            return Err(Tried::broken_off(what));
        }
        waiting.expects(
            answer.meta.size.min(come.of.as_ref().map_or(0, |(of, ..)| of.end - of.start)),
        );
        let mut pieces = answer.into_stream();
        while let Some(piece) = waiting.attempt(pieces.try_next()).await? {
            if !piece.is_empty() {
                come.push(piece);
                waiting.progressed();
            }
        }
        let (read, of) = (come.len(), come.of.clone());
        come.whole().ok_or_else(|| {
            let announced = of.map_or(0, |(of, ..)| of.end - of.start);
            if read > announced {
                *come = Come::default();
            }
            let what = waiting.what();
            Tried::broken_off(format!("{what}: the answer has {read} of {announced} bytes"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::{Attributes, GetResultPayload, ObjectMeta};

    fn answer(range: Range<u64>, tag: &str, size: u64) -> GetResult {
        let empty = futures::stream::empty();
        GetResult {
            payload: GetResultPayload::Stream(Box::pin(empty)),
            meta: ObjectMeta {
                location: Path::from("x"),
                last_modified: Default::default(),
                size,
                e_tag: Some(tag.to_owned()),
                version: None,
            },
            range,
            attributes: Attributes::default(),
        }
    }

    fn asked(come: &Come, wanted: Option<&Range<u64>>) -> Option<Range<u64>> {
        match come.rest(wanted).range {
            Some(GetRange::Bounded(range)) => Some(range),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn interrupted_body_is_resumed_and_complete_or_an_error() {
        for wanted in [Some(10..20), None] {
            let (start, size) = if wanted.is_some() { (10, 100) } else { (0, 10) };
            let mut come = Come::default();
            assert_eq!(asked(&come, wanted.as_ref()), wanted);
            assert!(come.goes_on_with(&answer(start..start + 10, "a", size)));
            come.push("0123".into());
            assert_eq!(come.whole(), None);
            assert_eq!(asked(&come, wanted.as_ref()), Some(start + 4..start + 10));
            // Another place, another version, all of it again.
            assert!(!come.goes_on_with(&answer(start + 5..start + 10, "a", size)));
            assert!(!come.goes_on_with(&answer(start + 4..start + 10, "b", size)));
            assert!(!come.goes_on_with(&answer(start..start + 10, "a", size)));
            assert!(come.goes_on_with(&answer(start + 4..start + 10, "a", size)));
            come.push("45".into());
            assert_eq!(asked(&come, wanted.as_ref()), Some(start + 6..start + 10));
            come.push("6789".into());
            assert_eq!(come.whole().unwrap(), "0123456789");
        }
    }

    #[test]
    fn body_longer_than_announced_is_refused() {
        let mut come = Come::default();
        assert!(come.goes_on_with(&answer(0..3, "a", 3)));
        come.push("0123".into());
        assert_eq!(come.whole(), None);
    }

    #[test]
    fn empty_object_is_complete_at_once() {
        let mut come = Come::default();
        assert_eq!(come.whole(), None, "nobody has said so");
        assert!(come.goes_on_with(&answer(0..0, "a", 0)));
        assert_eq!(come.whole().unwrap(), "");
    }
}
