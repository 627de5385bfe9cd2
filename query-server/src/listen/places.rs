//! The number of connections of a port, and which one is closed when there is no room.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::connection::Connection;

/// Connections beyond the limit, which get only the answer "busy" and health checks.
pub(super) const SPARE: usize = 8;

/// Files that are open anyway: standard streams, listening sockets, the runtime's, and some of the store.
const OWN_FILES: u64 = 64;

/// Number of ports.
const PORTS: u64 = 2;

/// Highest default for the connections of a port.
const MOST: usize = 1_024;

/// Smallest useful number of connections.
const LEAST: usize = 4;

/// The limit of open files in `/proc/self/limits` (proc_pid_limits(5)); none if unlimited.
pub(super) fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Connections per port for a limit of open files. Half of the files are left for the store, the cache and
/// temporary files.
pub(super) fn for_files(limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return MOST };
    let left = limit.saturating_sub((limit / 2).max(OWN_FILES));
    let each = usize::try_from(left / PORTS).unwrap_or(MOST).saturating_sub(SPARE);
    each.clamp(LEAST, MOST)
}

/// What happens to a new connection.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// There is room.
    Enter,
    /// It replaces this one.
    Replace(u64),
    /// All others are busy: it gets the answer "busy".
    Spare,
    /// The same, in place of this older connection beyond the limit.
    SpareFor(u64),
    /// There is no room for an answer.
    Refuse,
}

/// State of an existing connection.
#[derive(Debug, Clone, Copy)]
struct Known {
    number: u64,
    spare: bool,
    /// Since when it is idle; none if it is busy.
    quiet: Option<Instant>,
}

/// The connection that has been idle longest is closed first. Busy ones stay.
fn decide(known: impl Iterator<Item = Known> + Clone, limit: usize) -> Decision {
    let quietest = |spare: bool| {
        let quiet = known.clone().filter(|of| of.spare == spare);
        quiet.filter_map(|of| of.quiet.map(|since| (since, of.number))).min()
    };
    let many = |spare: bool| known.clone().filter(|of| of.spare == spare).count();
    if many(false) < limit {
        return Decision::Enter;
    }
    if let Some((_, number)) = quietest(false) {
        return Decision::Replace(number);
    }
    if many(true) < SPARE {
        return Decision::Spare;
    }
    quietest(true).map_or(Decision::Refuse, |(_, number)| Decision::SpareFor(number))
}

/// The connections of a port.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    connections: BTreeMap<u64, Arc<Connection>>,
}

/// A connection's place, which is free again on drop.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    pub(super) connection: Arc<Connection>,
}

impl Places {
    pub(super) fn new(limit: usize) -> Arc<Places> {
        Arc::new(Places { limit, inside: Mutex::default() })
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A place for a new connection, if there is one.
    pub(super) fn enter(self: &Arc<Places>) -> Option<Place> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let known = inside.connections.iter().map(|(number, connection)| Known {
            number: *number,
            spare: connection.is_spare(),
            quiet: connection.quiet_since(),
        });
        let spare = match decide(known, self.limit) {
            Decision::Enter => false,
            Decision::Replace(number) => {
                inside.end(number);
                false
            }
            Decision::Spare => true,
            Decision::SpareFor(number) => {
                inside.end(number);
                true
            }
            Decision::Refuse => return None,
        };
        let number = inside.next;
        inside.next += 1;
        let connection = Arc::new(Connection::new(spare));
        inside.connections.insert(number, Arc::clone(&connection));
        Some(Place { places: Arc::clone(self), number, connection })
    }

    /// Closes the connection that has been idle longest, if any is idle.
    pub(super) fn make_room(&self) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = inside.connections.iter();
        let quiet = quiet.filter_map(|(number, of)| of.quiet_since().map(|since| (since, *number)));
        if let Some((_, number)) = quiet.min() {
            inside.end(number);
        }
    }
}

impl Inside {
    fn end(&mut self, number: u64) {
        if let Some(connection) = self.connections.remove(&number) {
            connection.end();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.places.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.connections.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn effective_memory_limit_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             96220                96220                processes \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(limits), Some(1_024));
        assert_eq!(open_files(&limits.replace("1024  ", "unlimited")), None);
        assert_eq!(open_files(""), None);
        let own = std::fs::read_to_string("/proc/self/limits").unwrap();
        assert!(open_files(&own).is_none_or(|limit| limit > 8), "{own}");
    }

    #[test]
    fn default_connections_leave_half_of_the_open_files() {
        for (limit, expected) in [
            (Some(0), LEAST),
            (Some(64), LEAST),
            (Some(128), 24),
            (Some(256), 56),
            (Some(1_024), 248),
            (Some(1 << 20), MOST),
            (Some(u64::MAX), MOST),
            (None, MOST),
        ] {
            assert_eq!(for_files(limit), expected, "{limit:?}");
            if let Some(limit) = limit.filter(|limit| *limit >= 128) {
                let taken = PORTS * (for_files(Some(limit)) + SPARE) as u64;
                assert!(taken <= limit / 2, "{limit}: {taken}");
            }
        }
    }

    #[test]
    fn longest_idle_connection_is_closed_first() {
        let now = Instant::now();
        let quiet = |number, seconds| Known {
            number,
            spare: false,
            quiet: Some(now - Duration::from_secs(seconds)),
        };
        let busy = |number| Known { number, spare: false, quiet: None };
        let spare = |of: Known| Known { spare: true, ..of };
        let spares = |many: u64| (100..100 + many).map(|n| spare(quiet(n, n))).collect::<Vec<_>>();
        let all = SPARE as u64;
        for (known, expected) in [
            (vec![], Decision::Enter),
            (vec![busy(1)], Decision::Enter),
            (vec![quiet(1, 5), quiet(2, 9)], Decision::Replace(2)),
            (vec![quiet(1, 5), busy(2)], Decision::Replace(1)),
            (vec![busy(1), busy(2)], Decision::Spare),
            ([vec![busy(1), busy(2)], spares(all - 1)].concat(), Decision::Spare),
            ([vec![busy(1), busy(2)], spares(all)].concat(), Decision::SpareFor(99 + all)),
            ([vec![busy(1)], spares(all)].concat(), Decision::Enter),
            ([vec![busy(1), busy(2)], vec![spare(busy(3)); SPARE]].concat(), Decision::Refuse),
        ] {
            assert_eq!(decide(known.iter().copied(), 2), expected, "{known:?}");
        }
    }

    #[tokio::test]
    async fn connection_slot_is_released_with_its_connection() {
        let places = Places::new(1);
        let first = places.enter().unwrap();
        drop(first);
        let second = places.enter().unwrap();
        let call = second.connection.begin();
        let spare = places.enter().unwrap();
        assert!(spare.connection.is_spare() && !second.connection.is_spare());
        drop(call);
        // The second is quiet now: it makes room for a third, and is told.
        let third = places.enter().unwrap();
        assert!(!third.connection.is_spare());
        second.connection.ended().await;
        places.make_room();
        let told = async {
            tokio::select! { () = third.connection.ended() => {} () = spare.connection.ended() => {} }
        };
        tokio::time::timeout(Duration::from_secs(10), told).await.unwrap();
    }
}
