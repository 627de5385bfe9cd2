//! The flow table: finds or opens the flow of each packet.
//!
//! The key is the inner 5-tuple plus its encapsulation: VLAN tags, tunnel endpoints and, per
//! direction, network identifiers and MPLS labels. The other rules:
//!
//! * Source and destination: the sender of the SYN, or the receiver of the SYN-ACK, is the source.
//!   Without either, the end with a service port is the destination. Otherwise the sender of the
//!   first packet is the source.
//! * A SYN or SYN-ACK belongs to its flow if its number is the sender's initial sequence number
//!   (`start`), even if it arrives late. Any other SYN opens a new flow. So does any packet after
//!   the time-out.
//! * The two directions of a flow may have different network identifiers and labels (`pairs`).
//! * A later fragment belongs to the flow of the first fragment if that arrived within 30 s before.
//!   It includes fragments of a tunnel's outer datagram. Otherwise it belongs to a flow without
//!   ports, one per datagram.
//! * A non-IP packet belongs to a pseudo-flow of interface, link type and ethertype. ARP belongs to
//!   a flow of its two addresses.
//!
//! The table size is bounded: a full table evicts the flow whose idle time is the largest fraction of its time-out
//! (`queue`, `forget`).

mod forget;
mod fragments;
mod key;
mod pairs;
mod queue;
mod start;

use capstan_model::headers::{Datagram, Network, Outer, tcp_flags};
use capstan_model::ip_protocol::TCP;
use capstan_model::{
    Direction, FlowEnd, FlowId, FlowKey, Generation, Headers, LinkType, Protocol, RecorderId, Time,
};
use capstan_storage_engine::segment::builder::PartNumber;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use fragments::Datagrams;
use key::Key;
use pairs::Pairs;
use queue::{Queue, Queues};
use start::Starts;

/// Idle time-outs: after this long without a packet, the next packet opens a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connections that are open, nanoseconds.
    pub tcp: i64,
    /// TCP connections that were closed or reset.
    pub tcp_closed: i64,
    /// Everything else.
    pub other: i64,
    /// How long the table remembers a first fragment.
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

/// Memory that a flow takes, with all that refers to it in the table, bytes.
const BYTES_PER_FLOW: usize = 384;

/// The most flows in a table of so many bytes.
pub(crate) fn flows_within(memory: usize) -> usize {
    (memory / BYTES_PER_FLOW).max(1)
}

/// A slot in the table. Valid until the next lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowSlot(u32);

/// A flow in the table.
#[derive(Debug)]
pub struct Flow {
    /// Its permanent id.
    pub id: FlowId,
    /// Its flow key.
    pub key: FlowKey,
    /// Its protocol label so far. At first it is the transport protocol.
    pub protocol: Protocol,
    /// Payload packets left to inspect for the label.
    pub label_tries: u8,
    /// The segment and part of its last packet.
    pub last_part: Option<LastPart>,
    /// How many parts it has, in open and sealed segments.
    pub parts: u32,
    lookup: Key,
    /// Network identifiers and labels per direction. They tell flows with the same key apart. A
    /// direction without packets has the value of the other one.
    circuits: [u64; 2],
    /// Directions with at least one packet. In arrays here, direction 1 starts at the key's lower end.
    seen: [bool; 2],
    source_is_low: bool,
    /// A SYN or SYN-ACK confirmed the source.
    source_is_sure: bool,
    /// A packet arrived since the flow entered its queue.
    used: bool,
    /// FIN seen.
    fin: [bool; 2],
    reset: bool,
    last: i64,
    starts: Starts,
}

/// Payload packets of a flow to inspect for its label.
const LABEL_TRIES: u8 = 8;

/// The result of a flow lookup.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Its flow.
    pub slot: FlowSlot,
    /// The direction of the packet.
    pub direction: Direction,
    /// The packet opens the flow.
    pub new: bool,
    /// The packet shows that source and destination of the flow are swapped. The caller calls
    /// [`Flow::turn`] if no sealed segment says otherwise.
    pub turned: bool,
}

/// The flow table of a recorder.
#[derive(Debug)]
pub struct FlowTable {
    recorder: RecorderId,
    generation: Generation,
    next_counter: u64,
    timeouts: Timeouts,
    /// The most flows.
    most: usize,
    flows: Vec<Option<Flow>>,
    free: Vec<u32>,
    /// An entry for each circuit of each flow.
    by_key: HashTable<Entry>,
    pairs: Pairs,
    hasher: RandomState,
    queues: Queues,
    datagrams: Datagrams,
    /// Times of the last three packets, the latest first.
    times: Option<[i64; 3]>,
    /// The time-out clock, and the number of packets in a row that were earlier.
    clock: i64,
    behind: u32,
    swept: i64,
    evicted: u64,
    /// Last part and end reason of removed flows, until [`FlowTable::take_ended`].
    ended: Vec<(LastPart, FlowEnd)>,
}

/// A flow's slot, and the direction whose circuit this entry has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    slot: u32,
    way: u8,
}

/// The segment (by serial number) and part that a flow's last packet went to.
pub type LastPart = (u64, PartNumber);

impl FlowTable {
    /// An empty table; flow ids carry `generation` and count from 0. `memory` limits the flows, bytes.
    pub fn new(
        recorder: RecorderId,
        generation: Generation,
        timeouts: Timeouts,
        memory: usize,
    ) -> Self {
        FlowTable {
            recorder,
            generation,
            next_counter: 0,
            timeouts,
            most: flows_within(memory),
            flows: Vec::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            pairs: Pairs::default(),
            hasher: RandomState::default(),
            queues: Queues::new(),
            datagrams: Datagrams::default(),
            times: None,
            clock: 0,
            behind: 0,
            swept: 0,
            evicted: 0,
            ended: Vec::new(),
        }
    }

    /// Number of flows in the table.
    pub fn len(&self) -> usize {
        self.flows.len() - self.free.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Flows opened so far: the next flow's counter.
    pub fn opened(&self) -> u64 {
        self.next_counter
    }

    /// Flows evicted because the table was full.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Whether flows ended since the last call of [`FlowTable::take_ended`].
    #[inline]
    pub fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// The end reasons and last parts of flows removed since the last call: by eviction, by
    /// time-out, or replaced by another flow.
    pub fn take_ended(&mut self) -> impl Iterator<Item = (LastPart, FlowEnd)> + '_ {
        self.ended.drain(..)
    }

    /// The flow in a slot from the latest [`FlowTable::find`].
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
        let now = self.moment(time);
        let Some(datagram) = headers.datagram() else {
            return self.find_flow(headers, link_type, interface, now, None);
        };
        if headers.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return match self.follow(&datagram, now) {
                Some(found) => found,
                None => self.find_flow(headers, link_type, interface, now, Some(datagram.id)),
            };
        }
        let found = self.find_flow(headers, link_type, interface, now, None);
        self.expect_fragments(&found, datagram, &[]);
        found
    }

    /// Registers `datagram`: its later fragments belong to the flow just found. `tunnels` are the
    /// tunnels of the packet, outermost first.
    pub fn expect_fragments(&mut self, found: &Found, datagram: Datagram, tunnels: &[Outer]) {
        let flow = self.flow_mut(found.slot).id;
        let now = self.times.map_or(0, |times| times[0]);
        let first = (found.slot, flow, found.direction);
        self.datagrams.expect(datagram, first, tunnels, now, self.timeouts.fragment);
    }

    /// The tunnels of a later fragment of an outer datagram, outermost first. The fragment itself
    /// does not show the inner ones.
    pub fn tunnels_of(&self, headers: &Headers) -> &[Outer] {
        let now = self.times.map_or(0, |times| times[0]);
        let first = headers
            .datagram()
            .and_then(|datagram| self.datagrams.first(&datagram, now, self.timeouts.fragment));
        first.map_or(&[], |first| &first.tunnels)
    }

    /// The flow of a later fragment, found by its first fragment.
    fn follow(&mut self, datagram: &Datagram, now: i64) -> Option<Found> {
        let first = self.datagrams.first(datagram, now, self.timeouts.fragment)?;
        let flow = self.flows.get_mut(first.slot.0 as usize)?.as_mut()?;
        if flow.id != first.flow {
            return None;
        }
        flow.last = flow.last.max(now);
        flow.used = true;
        Some(Found { slot: first.slot, direction: first.direction, new: false, turned: false })
    }

    fn find_flow(
        &mut self,
        headers: &Headers,
        link_type: LinkType,
        interface: u32,
        now: i64,
        fragment: Option<u32>,
    ) -> Found {
        let (key, source_low) = Key::of(headers, link_type, interface, fragment);
        let circuit = key::circuit(headers);
        let way = usize::from(source_low);
        let mut known = self.lookup(&key, circuit, way);
        if known.is_none() && !(circuit == 0 && self.pairs.is_empty()) {
            known = self.pair(&key, circuit, way, headers);
        }
        if let Some(slot) = known {
            match self.end_before(slot, headers, now, way) {
                None => return self.meet(slot, headers, now, source_low),
                Some(end) => self.end(slot, end),
            }
        }
        if self.len() >= self.most {
            self.evict(now);
        }
        let slot = self.open(key, circuit, headers, link_type, interface, source_low, now);
        Found { new: true, turned: false, ..self.meet(slot, headers, now, source_low) }
    }

    /// The flow with this key and this circuit in this direction.
    #[inline]
    fn lookup(&self, key: &Key, circuit: u64, way: usize) -> Option<u32> {
        let hash = key.hash(&self.hasher, circuit);
        let is_it = |entry: &Entry| {
            let flow = self.flows[entry.slot as usize].as_ref();
            flow.is_some_and(|flow| flow.circuits[way] == circuit && flow.lookup == *key)
        };
        self.by_key.find(hash, is_it).map(|entry| entry.slot)
    }

    /// The only flow that can have this packet as its other direction. The packet's circuit becomes
    /// the circuit of that direction.
    #[cold]
    fn pair(&mut self, key: &Key, circuit: u64, way: usize, headers: &Headers) -> Option<u32> {
        let plain = if circuit == 0 { None } else { self.lookup(key, 0, way) };
        let plain = plain.filter(|slot| self.lacks(*slot, way));
        let slot = match (plain, self.pairs.only(key, way)) {
            (Some(plain), Ok(None)) => plain,
            (None, Ok(Some(only))) => only,
            // There is none, or several are possible.
            _ => return None,
        };
        let flow = self.flows[slot as usize].as_ref()?;
        let fits = match headers.tcp {
            Some(tcp) => flow.starts.is_answered_by(tcp, way, headers.transport_payload),
            None => flow.lookup.is_of_two_ends(),
        };
        if !fits {
            return None;
        }
        let entry = Entry { slot, way: way as u8 };
        self.saw(slot, way);
        let hash = key.hash(&self.hasher, circuit);
        self.flows[slot as usize].as_mut()?.circuits[way] = circuit;
        self.insert(hash, entry);
        Some(slot)
    }

    /// Whether a flow has no packet in this direction yet.
    fn lacks(&self, slot: u32, way: usize) -> bool {
        self.flows[slot as usize].as_ref().is_some_and(|flow| !flow.seen[way])
    }

    /// Records a packet of a flow in this direction.
    #[inline]
    fn saw(&mut self, slot: u32, way: usize) {
        let Some(flow) = self.flows[slot as usize].as_mut() else { return };
        if std::mem::replace(&mut flow.seen[way], true) {
            return;
        }
        if flow.circuits[1 - way] != 0 {
            self.pairs.complete(&flow.lookup, way, slot);
        }
    }

    fn insert(&mut self, hash: u64, entry: Entry) {
        let (flows, hasher) = (&self.flows, &self.hasher);
        self.by_key.insert_unique(hash, entry, |entry| {
            flows[entry.slot as usize]
                .as_ref()
                .map_or(0, |flow| flow.lookup.hash(hasher, flow.circuits[usize::from(entry.way)]))
        });
    }

    /// Whether the flow in `slot` ended before this packet, and why.
    fn end_before(&self, slot: u32, headers: &Headers, now: i64, way: usize) -> Option<FlowEnd> {
        let flow = self.flows[slot as usize].as_ref()?;
        if now.saturating_sub(flow.last) > self.timeouts.of(flow.queue()) {
            return Some(flow.end().unwrap_or(FlowEnd::Timeout));
        }
        let tcp = headers.tcp?;
        if tcp.flags & tcp_flags::SYN == 0 {
            return None;
        }
        let closed = flow.fin[0] || flow.fin[1] || flow.reset;
        let own = flow.starts.owns_syn(tcp, way, headers.transport_payload, closed);
        (!own).then(|| flow.end().unwrap_or(FlowEnd::Replaced))
    }

    #[allow(clippy::too_many_arguments)] // One caller, which has just computed them all.
    fn open(
        &mut self,
        lookup: Key,
        circuit: u64,
        headers: &Headers,
        link_type: LinkType,
        interface: u32,
        source_low: bool,
        now: i64,
    ) -> u32 {
        let from_source = key::sent_by_source(headers);
        let id = FlowId::new(self.recorder, self.generation, self.next_counter);
        self.next_counter += 1;
        let mut flow = Flow {
            id,
            key: lookup.flow_key(headers, link_type, interface, from_source),
            protocol: capstan_dissect::fallback(headers.network, headers.ip_protocol),
            label_tries: LABEL_TRIES,
            last_part: None,
            parts: 0,
            lookup,
            circuits: [circuit; 2],
            seen: [false; 2],
            source_is_low: source_low == from_source,
            source_is_sure: false,
            used: false,
            fin: [false; 2],
            reset: false,
            last: now,
            starts: Starts::default(),
        };
        let way = usize::from(source_low);
        flow.seen[way] = true;
        let queue = flow.queue();
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
        self.queues.push(slot, queue);
        if circuit != 0 {
            self.pairs.open(&lookup, way, slot);
        }
        let hash = lookup.hash(&self.hasher, circuit);
        self.insert(hash, Entry { slot, way: way as u8 });
        slot
    }

    /// Records a packet of the flow in `slot`.
    #[inline]
    fn meet(&mut self, slot: u32, headers: &Headers, now: i64, source_low: bool) -> Found {
        let way = usize::from(source_low);
        self.saw(slot, way);
        let flow = self.flow_mut(FlowSlot(slot));
        flow.last = flow.last.max(now);
        flow.used = true;
        let mut turned = false;
        if let Some(tcp) = headers.tcp {
            flow.starts.meet(tcp, way);
            if tcp.flags & tcp_flags::SYN != 0 {
                let source_is_low = source_low == (tcp.flags & tcp_flags::ACK == 0);
                turned = !flow.source_is_sure && source_is_low != flow.source_is_low;
                flow.source_is_sure = true;
            }
            if tcp.flags & (tcp_flags::RST | tcp_flags::FIN) != 0 {
                flow.reset |= tcp.flags & tcp_flags::RST != 0;
                flow.fin[way] |= tcp.flags & tcp_flags::FIN != 0;
                let queue = flow.queue();
                if self.queues.of(slot) != queue {
                    self.queues.remove(slot);
                    self.queues.push(slot, queue);
                }
            }
        }
        let flow = self.flow_mut(FlowSlot(slot));
        Found { slot: FlowSlot(slot), direction: flow.direction(way), new: false, turned }
    }

    /// Removes a flow and keeps its end reason.
    fn end(&mut self, slot: u32, end: FlowEnd) {
        let Some(flow) = self.flows[slot as usize].take() else { return };
        for way in [0, 1] {
            // Two entries if the directions have different circuits, else one.
            let hash = flow.lookup.hash(&self.hasher, flow.circuits[way]);
            if let Ok(entry) = self.by_key.find_entry(hash, |entry| entry.slot == slot) {
                entry.remove();
            }
            if !flow.seen[way] && flow.circuits[1 - way] != 0 {
                self.pairs.complete(&flow.lookup, way, slot);
            }
        }
        self.queues.remove(slot);
        self.free.push(slot);
        // An end by FIN or RST is stored with the packets.
        if flow.end().is_none()
            && let Some(part) = flow.last_part
        {
            self.ended.push((part, end));
        }
    }
}

impl Flow {
    /// How the flow ended by FIN or RST, if it did.
    pub fn end(&self) -> Option<FlowEnd> {
        if self.reset {
            Some(FlowEnd::Reset)
        } else if self.fin[0] && self.fin[1] {
            Some(FlowEnd::Fin)
        } else {
            None
        }
    }

    /// Whether its packets still need inspection for the label.
    pub fn wants_label(&self) -> bool {
        self.label_tries > 0
    }

    /// Swaps source and destination.
    pub fn turn(&mut self) {
        self.source_is_low = !self.source_is_low;
        self.key = self.key.reversed();
    }

    /// The time-out queue of the flow.
    fn queue(&self) -> Queue {
        match self.key.ip_protocol {
            TCP if self.end().is_some() => Queue::Closed,
            TCP => Queue::Tcp,
            _ => Queue::Other,
        }
    }

    fn direction(&self, way: usize) -> Direction {
        if (way == 1) == self.source_is_low { Direction::Forward } else { Direction::Backward }
    }
}

/// Whether a packet has a network layer that allows a label.
pub fn can_be_labelled(headers: &Headers) -> bool {
    matches!(headers.network, Network::V4 | Network::V6) && headers.transport_payload > 0
}

#[cfg(test)]
mod tests;
