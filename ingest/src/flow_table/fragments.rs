//! First fragments of datagrams. Later fragments have no ports, and those of an outer datagram have
//! no inner headers.

use std::collections::HashMap;

use capstan_model::Direction;
use capstan_model::FlowId;
use capstan_model::headers::{Datagram, Outer};
use foldhash::fast::RandomState;

use super::FlowSlot;

/// Maximum number of datagrams in memory.
const MAX_DATAGRAMS: usize = 16 * 1024;

/// The flow and tunnels of later fragments.
#[derive(Debug)]
pub(super) struct First {
    pub(super) slot: FlowSlot,
    /// The flow that had the slot at that time.
    pub(super) flow: FlowId,
    pub(super) direction: Direction,
    /// The tunnels of the first fragment's packet, outermost first.
    pub(super) tunnels: Box<[Outer]>,
    seen: i64,
}

/// Datagrams with later fragments to come.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    firsts: HashMap<Datagram, First, RandomState>,
}

impl Datagrams {
    /// Accepts later fragments of `datagram` for `within` nanoseconds after `seen`.
    pub(super) fn expect(
        &mut self,
        datagram: Datagram,
        (slot, flow, direction): (FlowSlot, FlowId, Direction),
        tunnels: &[Outer],
        seen: i64,
        within: i64,
    ) {
        if self.firsts.len() >= MAX_DATAGRAMS {
            self.sweep(seen, within);
            if self.firsts.len() >= MAX_DATAGRAMS {
                // A fragment flood: later fragments go to flows without ports.
                self.firsts.clear();
            }
        }
        self.firsts
            .insert(datagram, First { slot, flow, direction, tunnels: tunnels.into(), seen });
    }

    /// The first fragment of a datagram, if it came within `within` nanoseconds of `now`.
    pub(super) fn first(&self, datagram: &Datagram, now: i64, within: i64) -> Option<&First> {
        let first = self.firsts.get(datagram)?;
        (now.saturating_sub(first.seen) <= within).then_some(first)
    }

    /// Removes datagrams past their time-out.
    pub(super) fn sweep(&mut self, now: i64, within: i64) {
        let oldest = now.saturating_sub(within);
        self.firsts.retain(|_, first| first.seen >= oldest);
    }
}
