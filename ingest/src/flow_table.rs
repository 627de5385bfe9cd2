//! Which flow a packet belongs to.
//!
//! The key is the inner VLAN and VNI and the inner 5-tuple. Everything else:
//!
//! * Source and destination: who sent the SYN; without one the end whose port
//!   looks like a service is the destination; else who sent the first packet.
//! * A SYN after FIN, RST or time-out opens a new flow; so does a SYN with
//!   another sequence number than the flow's own, or one into a flow that was
//!   joined in its middle: the end of the old connection was not seen.
//! * A later fragment belongs to the flow of the datagram's first fragment if
//!   that came within 30 s before, else to a portless flow of the datagram.
//! * What is not IP belongs to a pseudo-flow of interface, link type and
//!   ethertype; ARP to a flow of its two addresses.
//!
//! The table's size is bounded: when it is full, the flows idle for longest leave.

mod key;

use std::collections::HashMap;

use capstan_model::headers::{Network, tcp_flags};
use capstan_model::{
    Direction, FlowEnd, FlowId, FlowKey, Generation, Headers, LinkType, Protocol, RecorderId, Time,
};
use capstan_storage_engine::segment::builder::PartNumber;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use key::{FragmentKey, Key};

/// How long a flow may be silent before the next packet opens a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connections that are open, nanoseconds.
    pub tcp: i64,
    /// TCP connections that were closed or reset.
    pub tcp_closed: i64,
    /// Everything else.
    pub other: i64,
    /// How long a first fragment is remembered.
    pub fragment: i64,
}

const SECOND: i64 = 1_000_000_000;

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            tcp: 3_600 * SECOND,
            tcp_closed: 30 * SECOND,
            other: 300 * SECOND,
            fragment: 30 * SECOND,
        }
    }
}

/// Most flows remembered at a time.
pub(crate) const MAX_FLOWS: usize = 256 * 1024;
/// Most first fragments remembered at a time.
const MAX_FRAGMENTS: usize = 16 * 1024;
/// Flows are swept for time-outs whenever packet time has moved this far.
const SWEEP_EVERY: i64 = 10 * SECOND;

/// A place in the table; valid until the next packet is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowSlot(u32);

/// A flow that is remembered.
#[derive(Debug)]
pub struct Flow {
    /// Its name for ever.
    pub id: FlowId,
    /// Who talks to whom.
    pub key: FlowKey,
    /// What it speaks, as far as is known; what only the transport tells at first.
    pub protocol: Protocol,
    /// Payload packets that may still be looked at to tell what it speaks.
    pub label_tries: u8,
    /// Where its last packet went.
    pub last_part: Option<LastPart>,
    lookup: Key,
    source_is_low: bool,
    last: i64,
    syn_seq: Option<u32>,
    /// FIN seen, by direction.
    fin: [bool; 2],
    reset: bool,
}

/// Payload packets of a flow that are looked at to tell what it speaks.
const LABEL_TRIES: u8 = 8;

/// What looking a packet up gave.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Its flow.
    pub slot: FlowSlot,
    /// Which way the packet goes.
    pub direction: Direction,
    /// The flow begins with this packet.
    pub new: bool,
    /// The flow whose place it took, and why that ended: only its last part is left of it.
    pub ended: Option<(FlowId, FlowEnd)>,
}

/// The flows a recorder follows.
#[derive(Debug)]
pub struct FlowTable {
    recorder: RecorderId,
    generation: Generation,
    next_counter: u64,
    timeouts: Timeouts,
    flows: Vec<Option<Flow>>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
    hasher: RandomState,
    fragments: HashMap<FragmentKey, (Key, bool, i64), RandomState>,
    newest: i64,
    swept: i64,
    evicted: u64,
    /// The last parts of flows forgotten before their time, until somebody takes them.
    evicted_parts: Vec<LastPart>,
}

/// The segment (by serial number) and part that a flow's last packet went to.
pub type LastPart = (u64, PartNumber);

impl FlowTable {
    /// An empty table; flow ids carry `generation` and count from 0.
    pub fn new(recorder: RecorderId, generation: Generation, timeouts: Timeouts) -> Self {
        FlowTable {
            recorder,
            generation,
            next_counter: 0,
            timeouts,
            flows: Vec::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            hasher: RandomState::default(),
            fragments: HashMap::default(),
            newest: i64::MIN,
            swept: i64::MIN,
            evicted: 0,
            evicted_parts: Vec::new(),
        }
    }

    /// Flows remembered now.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether none are.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Flows opened so far: the next flow's counter.
    pub fn opened(&self) -> u64 {
        self.next_counter
    }

    /// Flows forgotten because the table was full.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The last parts of the flows that were forgotten since this was asked before, because the
    /// table was full and not because they ended. Only a packet that opens a flow makes some.
    pub fn take_evicted(&mut self) -> impl Iterator<Item = LastPart> + '_ {
        self.evicted_parts.drain(..)
    }

    /// The flow in a slot that [`FlowTable::find`] just gave.
    pub fn flow_mut(&mut self, slot: FlowSlot) -> &mut Flow {
        self.flows[slot.0 as usize].as_mut().expect("a slot just found holds a flow")
    }

    /// Finds or opens the flow of a packet.
    pub fn find(
        &mut self,
        headers: &Headers,
        link_type: LinkType,
        interface: u32,
        time: Option<Time>,
    ) -> Found {
        // A packet without a time belongs where the newest one is.
        let now = time.map_or(self.newest, |time| time.0);
        if now > self.newest {
            self.newest = now;
            if self.swept == i64::MIN {
                self.swept = now;
            } else if now.saturating_sub(self.swept) >= SWEEP_EVERY {
                self.sweep(now);
            }
        }
        let (key, source_low) = self.key_of(headers, link_type, interface, now);
        let hash = self.hash(&key);
        let flows = &self.flows;
        let known = self
            .by_key
            .find(hash, |slot| {
                flows[*slot as usize].as_ref().is_some_and(|flow| flow.lookup == key)
            })
            .copied();
        let mut ended = None;
        if let Some(slot) = known {
            match self.end_before(slot, headers, now, source_low) {
                None => return self.meet(slot, headers, now, source_low),
                Some(end) => ended = self.forget(slot).map(|id| (id, end)),
            }
        }
        if self.by_key.len() >= MAX_FLOWS {
            self.evict(now);
        }
        let slot = self.open(key, hash, headers, link_type, interface, source_low, now);
        Found { new: true, ended, ..self.meet(slot, headers, now, source_low) }
    }

    fn hash(&self, key: &Key) -> u64 {
        use std::hash::BuildHasher;
        self.hasher.hash_one(key)
    }

    /// The lookup key of a packet and whether its source is the key's low end.
    fn key_of(
        &mut self,
        headers: &Headers,
        link_type: LinkType,
        interface: u32,
        now: i64,
    ) -> (Key, bool) {
        let Some(fragment) = headers.fragment else {
            return Key::of(headers, link_type, interface, None);
        };
        let name = FragmentKey::of(headers, fragment.id);
        if fragment.offset == 0 {
            let (key, low) = Key::of(headers, link_type, interface, None);
            if self.fragments.len() >= MAX_FRAGMENTS {
                let oldest = now.saturating_sub(self.timeouts.fragment);
                self.fragments.retain(|_, (.., seen)| *seen >= oldest);
                if self.fragments.len() >= MAX_FRAGMENTS {
                    // A flood of fragments: later ones go to portless flows instead.
                    self.fragments.clear();
                }
            }
            self.fragments.insert(name, (key, low, now));
            return (key, low);
        }
        match self.fragments.get(&name) {
            Some((key, low, seen)) if now.saturating_sub(*seen) <= self.timeouts.fragment => {
                (*key, *low)
            }
            _ => Key::of(headers, link_type, interface, Some(fragment.id)),
        }
    }

    /// Whether the flow in `slot` is over before this packet, and why.
    fn end_before(
        &self,
        slot: u32,
        headers: &Headers,
        now: i64,
        source_low: bool,
    ) -> Option<FlowEnd> {
        let flow = self.flows[slot as usize].as_ref()?;
        if now.saturating_sub(flow.last) > self.timeout(flow) {
            return Some(flow.end().unwrap_or(FlowEnd::Timeout));
        }
        let tcp = headers.tcp?;
        if tcp.flags & (tcp_flags::SYN | tcp_flags::ACK) != tcp_flags::SYN {
            return None;
        }
        if flow.fin[0] || flow.fin[1] || flow.reset {
            return Some(flow.end().unwrap_or(FlowEnd::Replaced));
        }
        // A repeated SYN of the same connection is no new one; nor is the
        // second SYN of a simultaneous open, which comes from the other side.
        let from_source = source_low == flow.source_is_low;
        match flow.syn_seq {
            Some(seq) if seq == tcp.seq || !from_source => None,
            _ => Some(FlowEnd::Replaced),
        }
    }

    fn timeout(&self, flow: &Flow) -> i64 {
        match flow.key.ip_protocol {
            key::TCP if flow.reset || (flow.fin[0] && flow.fin[1]) => self.timeouts.tcp_closed,
            key::TCP => self.timeouts.tcp,
            _ => self.timeouts.other,
        }
    }

    #[allow(clippy::too_many_arguments)] // One caller, which has just computed them all.
    fn open(
        &mut self,
        lookup: Key,
        hash: u64,
        headers: &Headers,
        link_type: LinkType,
        interface: u32,
        source_low: bool,
        now: i64,
    ) -> u32 {
        let from_source = key::sent_by_source(headers);
        let id = FlowId::new(self.recorder, self.generation, self.next_counter);
        self.next_counter += 1;
        let flow = Flow {
            id,
            key: lookup.flow_key(headers, link_type, interface, from_source),
            protocol: capstan_dissect::fallback(headers.network, headers.ip_protocol),
            label_tries: LABEL_TRIES,
            last_part: None,
            lookup,
            source_is_low: source_low == from_source,
            last: now,
            syn_seq: None,
            fin: [false; 2],
            reset: false,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.flows[slot as usize] = Some(flow);
                slot
            }
            None => {
                self.flows.push(Some(flow));
                (self.flows.len() - 1) as u32
            }
        };
        let (flows, hasher) = (&self.flows, &self.hasher);
        self.by_key.insert_unique(hash, slot, |slot| {
            use std::hash::BuildHasher;
            flows[*slot as usize].as_ref().map_or(0, |flow| hasher.hash_one(flow.lookup))
        });
        slot
    }

    /// Takes note of a packet of the flow in `slot`.
    fn meet(&mut self, slot: u32, headers: &Headers, now: i64, source_low: bool) -> Found {
        let flow = self.flow_mut(FlowSlot(slot));
        flow.last = flow.last.max(now);
        let direction =
            if source_low == flow.source_is_low { Direction::Forward } else { Direction::Backward };
        if let Some(tcp) = headers.tcp {
            flow.reset |= tcp.flags & tcp_flags::RST != 0;
            flow.fin[direction as usize] |= tcp.flags & tcp_flags::FIN != 0;
            if tcp.flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN
                && direction == Direction::Forward
            {
                flow.syn_seq = Some(tcp.seq);
            }
        }
        Found { slot: FlowSlot(slot), direction, new: false, ended: None }
    }

    fn forget(&mut self, slot: u32) -> Option<FlowId> {
        let flow = self.flows[slot as usize].take()?;
        let hash = self.hash(&flow.lookup);
        if let Ok(entry) = self.by_key.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        self.free.push(slot);
        Some(flow.id)
    }

    fn sweep(&mut self, now: i64) {
        self.swept = now;
        self.remove_where(|table, flow| now.saturating_sub(flow.last) > table.timeout(flow));
        let oldest = now.saturating_sub(self.timeouts.fragment);
        self.fragments.retain(|_, (.., seen)| *seen >= oldest);
    }

    /// Makes room: ever shorter time-outs until a quarter of the table is free.
    fn evict(&mut self, now: i64) {
        let before = self.by_key.len();
        let mut parts = std::mem::take(&mut self.evicted_parts);
        let mut shift = 1;
        while self.by_key.len() > MAX_FLOWS / 4 * 3 && shift < 63 {
            self.remove_where(|table, flow| {
                let (idle, timeout) = (now.saturating_sub(flow.last), table.timeout(flow));
                let over = idle >= timeout >> shift;
                if over && idle <= timeout && flow.end().is_none() {
                    parts.extend(flow.last_part);
                }
                over
            });
            shift += 1;
        }
        self.evicted_parts = parts;
        self.evicted += (before - self.by_key.len()) as u64;
    }

    fn remove_where(&mut self, mut over: impl FnMut(&Self, &Flow) -> bool) {
        for slot in 0..self.flows.len() as u32 {
            if self.flows[slot as usize].as_ref().is_some_and(|flow| over(self, flow)) {
                self.forget(slot);
            }
        }
    }
}

impl Flow {
    /// How the flow ended by its own packets, if it did.
    pub fn end(&self) -> Option<FlowEnd> {
        if self.reset {
            Some(FlowEnd::Reset)
        } else if self.fin[0] && self.fin[1] {
            Some(FlowEnd::Fin)
        } else {
            None
        }
    }

    /// Whether its packets should still be looked at to tell what it speaks.
    pub fn wants_label(&self) -> bool {
        self.label_tries > 0
    }
}

/// Whether a packet has a network layer whose flow can be labelled.
pub fn can_be_labelled(headers: &Headers) -> bool {
    matches!(headers.network, Network::V4 | Network::V6) && headers.transport_payload > 0
}

#[cfg(test)]
mod tests;
