//! Listings, page by page.

use capstan_model::Failure;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore};

use super::error::StoreError;
use super::patience::Waiting;
use super::{Listed, Store, listed};

/// A listing in progress.
struct Listing<'a> {
    store: &'a Store,
    prefix: Path,
    /// The last received name, or the start name.
    after: Option<Path>,
    /// Whether any name was received: without an order, the listing cannot be resumed.
    begun: bool,
    names: Option<BoxStream<'static, Result<ObjectMeta, Error>>>,
    waiting: Waiting<'a>,
}

impl Store {
    /// All objects below a prefix, in the order of their names (a folder gives its own order).
    pub fn list(&self, prefix: &Path) -> BoxStream<'_, Result<Listed, Failure>> {
        self.listing(prefix, None)
    }

    /// All objects below a prefix whose names come after one.
    pub fn list_after(
        &self,
        prefix: &Path,
        after: &Path,
    ) -> BoxStream<'_, Result<Listed, Failure>> {
        self.listing(prefix, Some(after))
    }

    fn listing(
        &self,
        prefix: &Path,
        after: Option<&Path>,
    ) -> BoxStream<'_, Result<Listed, Failure>> {
        let what = format!("list {prefix} of {}", self.place);
        if !self.remote {
            let names = self.names(prefix, after);
            return names
                .map(move |meta| meta.map(listed).map_err(|e| StoreError::of(&what, e).into()))
                .boxed();
        }
        let listing = Listing {
            store: self,
            prefix: prefix.clone(),
            after: after.cloned(),
            begun: false,
            names: None,
            waiting: self.waiting(self.means.patience.listing(), what),
        };
        // A failed listing ends.
        stream::unfold(Some(listing), |listing| async {
            let mut listing = listing?;
            match listing.next().await {
                Ok(meta) => Some((Ok(listed(meta?)), Some(listing))),
                Err(failure) => Some((Err(failure), None)),
            }
        })
        .boxed()
    }

    fn names(
        &self,
        prefix: &Path,
        after: Option<&Path>,
    ) -> BoxStream<'static, Result<ObjectMeta, Error>> {
        match after {
            Some(after) => self.objects.list_with_offset(Some(prefix), after),
            None => self.objects.list(Some(prefix)),
        }
    }
}

impl Listing<'_> {
    async fn next(&mut self) -> Result<Option<ObjectMeta>, Failure> {
        loop {
            let Listing { store, prefix, after, .. } = self;
            let names = self
                .names
                .get_or_insert_with(|| store.names(prefix, after.as_ref()).fuse().boxed());
            match self.waiting.attempt(names.try_next()).await {
                Ok(meta) => {
                    if let Some(meta) = &meta {
                        self.after = self.store.ordered.then(|| meta.location.clone());
                        self.begun = true;
                        self.waiting.progressed();
                    }
                    return Ok(meta);
                }
                Err(tried) if self.begun && !self.store.ordered => return Err(tried.error.into()),
                Err(tried) => {
                    self.waiting.again(tried).await?;
                    self.names = None;
                }
            }
        }
    }
}
