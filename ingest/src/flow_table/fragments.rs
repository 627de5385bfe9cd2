//! Datagrams whose first fragment was seen: later ones have no ports, and of an outer datagram
//! none of the headers inside it.

use std::collections::HashMap;

use capstan_model::Direction;
use capstan_model::FlowId;
use capstan_model::headers::{Datagram, Outer};
use foldhash::fast::RandomState;

use super::FlowSlot;

/// Most datagrams remembered at a time.
const MAX_DATAGRAMS: usize = 16 * 1024;

/// What later fragments belong to.
#[derive(Debug)]
pub(super) struct First {
    pub(super) slot: FlowSlot,
    /// The flow that was in the slot then.
    pub(super) flow: FlowId,
    pub(super) direction: Direction,
    /// The tunnels that its packet is in, outermost first.
    pub(super) tunnels: Box<[Outer]>,
    seen: i64,
}

/// The datagrams of which later fragments are expected.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    firsts: HashMap<Datagram, First, RandomState>,
}

impl Datagrams {
    /// Later fragments of `datagram` may come for `within` nanoseconds from `seen` on.
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
                // A flood of fragments: later ones go to portless flows instead.
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

    /// Forgets those of which nothing is expected any more.
    pub(super) fn sweep(&mut self, now: i64, within: i64) {
        let oldest = now.saturating_sub(within);
        self.firsts.retain(|_, first| first.seen >= oldest);
    }
}
