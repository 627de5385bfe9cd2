//! Actors that use the bucket. Each may be killed at any request, or sleep for hours and resume.

mod harm;
mod holder;
mod importer;
mod maintainer;
mod mender;
mod reader;
mod recorder;
mod rollup;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capstan_model::{Failure, Time};
use capstan_storage_engine::store::{Planted, Store};

use self::harm::Harm;
pub(crate) use self::holder::hold;
pub(crate) use self::importer::{import, is_there_once};
pub(crate) use self::maintainer::maintain;
pub(crate) use self::mender::{look, mend, mended};
pub(crate) use self::reader::read;
pub(crate) use self::recorder::record;
pub(crate) use self::rollup::{LIMITS, roll_up};
use crate::bucket::{Bucket, Shared};
use crate::chance::{Chance, Clock, SimulatedEnv};
use crate::truth::Truth;

/// How long a request may be on its way that has met damage.
const FELT: Duration = Duration::from_secs(1_000);

/// What all actors share.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) bucket: Arc<Bucket>,
    pub(crate) clock: Clock,
    pub(crate) truth: Truth,
    /// What became of objects that no request was to blame for.
    wounds: Arc<Mutex<Wounds>>,
    /// What was damaged.
    harm: Arc<Mutex<Harm>>,
    /// What must not be and was seen.
    broken: Arc<Mutex<Vec<String>>>,
    /// What happened, if somebody wants to read it.
    story: Option<Arc<Mutex<Vec<String>>>>,
    planted: Option<Planted>,
    /// Listings are always right.
    pub(crate) is_strict: bool,
}

/// Damage that was done, and whether it is repaired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wounds {
    /// How often.
    many: u64,
    /// It is not repaired.
    open: bool,
    /// Until then requests may have met it.
    felt_until: Option<Time>,
}

impl Scene {
    pub(crate) fn new(
        bucket: Arc<Bucket>,
        clock: Clock,
        planted: Option<Planted>,
        is_strict: bool,
        is_told: bool,
    ) -> Scene {
        Scene {
            bucket,
            clock,
            truth: Truth::default(),
            wounds: Arc::default(),
            harm: Arc::default(),
            broken: Arc::default(),
            story: is_told.then(Arc::default),
            planted,
            is_strict,
        }
    }

    /// The store as a machine sees it whose clock is that far off.
    pub(crate) async fn store(&self, chance: &Chance, skew: i64) -> Result<Store, Failure> {
        let world =
            SimulatedEnv { clock: self.clock, skew, chance: chance.clone(), planted: self.planted };
        Store::simulated(Arc::new(Shared(Arc::clone(&self.bucket))), "sim", Arc::new(world)).await
    }

    /// The store, however long it takes to reach it.
    pub(crate) async fn patient_store(&self, chance: &Chance, skew: i64) -> Store {
        loop {
            match self.store(chance, skew).await {
                Ok(store) => return store,
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }

    /// Something is that must not be.
    pub(crate) fn broken(&self, what: String) {
        self.tell(|| format!("BROKEN: {what}"));
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// What was seen that must not be.
    pub(crate) fn found(&self) -> Vec<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds to the story.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(story) = &self.story {
            let line = format!("{} {}", self.clock.now(), what());
            story.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }

    /// The story so far.
    pub(crate) fn story(&self) -> Vec<String> {
        let told = |story: &Arc<Mutex<Vec<String>>>| {
            story.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        self.story.as_ref().map(told).unwrap_or_default()
    }

    /// What damage there is.
    pub(crate) fn wounds(&self) -> Wounds {
        *self.wounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was damaged.
    pub(crate) fn harm<T>(&self, look: impl FnOnce(&mut Harm) -> T) -> T {
        look(&mut self.harm.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether nothing was ever damaged.
    pub(crate) fn is_unharmed(&self) -> bool {
        self.wounds() == Wounds::default()
    }

    /// Damage is done, or repaired.
    pub(crate) fn is_wounded(&self, open: bool) {
        let mut wounds = self.wounds.lock().unwrap_or_else(PoisonError::into_inner);
        wounds.many += u64::from(open);
        wounds.open = open;
        wounds.felt_until = Some(self.clock.now().saturating_add(FELT));
    }

    /// Whether nobody who began with these wounds can have met damage.
    pub(crate) fn was_sound(&self, since: Wounds) -> bool {
        let now = self.wounds();
        let healed = now.felt_until.is_none_or(|until| until < self.clock.now());
        !since.open && !now.open && now.many == since.many && healed
    }

    /// The same scene over another bucket.
    pub(crate) fn over(&self, bucket: Bucket) -> Scene {
        Scene { bucket: Arc::new(bucket), ..self.clone() }
    }

    /// The same scene for somebody who may see damage: what is wrong is told there alone.
    pub(crate) fn aside(&self) -> Scene {
        Scene { broken: Arc::default(), ..self.clone() }
    }

    /// Takes what was seen aside for true.
    pub(crate) fn believe(&self, aside: &Scene) {
        aside.found().into_iter().for_each(|what| self.broken(what));
    }

    /// A failure that no bucket is to blame for.
    pub(crate) fn check(&self, who: &str, failure: &Failure) {
        use capstan_model::FailureKind::{AlreadyThere, Damaged, NotFound, Unavailable};
        let is_wound = matches!(failure.kind(), Damaged | NotFound);
        if is_wound && !self.was_sound(self.wounds()) {
            self.tell(|| format!("{who}: {failure}"));
        } else if !matches!(failure.kind(), Unavailable | AlreadyThere) {
            let source = std::error::Error::source(failure).map(ToString::to_string);
            self.broken(format!("{who}: {failure} ({})", source.unwrap_or_default()));
        }
    }
}

/// How far a machine's clock is off: most by little, some by hours.
pub(crate) fn skew(chance: &Chance) -> i64 {
    let seconds = match chance.of(0..4) {
        0 => chance.of(0..7_200) as i64 - 3_600,
        _ => chance.of(0..10) as i64 - 5,
    };
    seconds * 1_000_000_000
}
