//! The ingest pipeline: decode, flow lookup, label, segment builder, seal. One thread, no locks, no
//! IO. Sealed segments go to a [`Sink`].
//!
//! ```text
//! packet source -> decode -> flow table -> label -> segment builder -> sink
//! ```

mod open;
mod policy;

use std::sync::Arc;

use capstan_dissect::label as labels;
use capstan_model::block::block_type;
use capstan_model::headers::Outer;
use capstan_model::link::{Interface, LinkType};
use capstan_model::{Block, Direction, Generation, GenerationId, Headers, Packet, Protocol};
use capstan_storage_engine::segment::builder::SegmentBuilder;

use crate::flow_table::{Flow, FlowTable, Found, Timeouts, can_be_labelled};
use open::OpenSegments;
pub use policy::SealPolicy;

/// Receiver of complete open segments.
pub trait Sink {
    /// The error that stops the pipeline.
    type Error;

    /// Takes a complete segment. It may block: this is the only back-pressure. `resume` holds once
    /// this segment and all earlier ones are committed.
    fn take(&mut self, segment: SegmentBuilder, resume: Resume) -> Result<(), Self::Error>;
}

/// The point where a later run resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resume {
    /// Every packet with a lower ordinal has left the pipeline.
    pub next_ordinal: u64,
    /// Flows opened so far.
    pub next_flow: u64,
}

/// Why the pipeline stopped.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError<E> {
    /// The sink could not take a segment.
    #[error(transparent)]
    Sink(E),
    /// The compression library has no memory.
    #[error("a segment could not be opened")]
    Open(#[from] std::io::Error),
}

/// Settings of a pipeline.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The recorder and the generation that packet ids carry.
    pub writer: GenerationId,
    /// The generation that flow ids carry: an import that goes on keeps its first one.
    pub flow_generation: Generation,
    /// When open segments are sealed.
    pub policy: SealPolicy,
    /// Flow idle time-outs.
    pub timeouts: Timeouts,
    /// Memory of the flow table, bytes.
    pub flow_memory: usize,
}

/// Packet counters of a generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Packets received, stored or skipped.
    pub packets: u64,
    /// Packets not stored again because an earlier run committed them.
    pub skipped: u64,
    /// Captured bytes received.
    pub captured_bytes: u64,
}

/// Turns packets into segments.
#[derive(Debug)]
pub struct Pipeline<S> {
    settings: Settings,
    table: FlowTable,
    interfaces: Vec<Arc<Interface>>,
    /// Number of interfaces that a segment describes already, even without packets.
    described: usize,
    segments: OpenSegments,
    /// The tunnels of the current packet, outermost first, if it has more than its headers record.
    tunnels: Vec<Outer>,
    /// Blocks since the last packet. They are stored with the next one.
    blocks: Vec<Block>,
    /// The header of the current section, and its number from 1 on; 0 if there is none.
    section: Option<Block>,
    sections: u32,
    progress: Progress,
    sink: S,
}

impl<S: Sink> Pipeline<S> {
    /// A new pipeline without packets.
    pub fn new(settings: Settings, sink: S) -> Self {
        let Settings { writer, flow_generation, timeouts, flow_memory, .. } = settings;
        let table = FlowTable::new(writer.recorder, flow_generation, timeouts, flow_memory);
        let segments = OpenSegments::new(settings.writer, settings.policy);
        Pipeline {
            settings,
            table,
            interfaces: Vec::new(),
            described: 0,
            segments,
            tunnels: Vec::new(),
            blocks: Vec::new(),
            section: None,
            sections: 0,
            progress: Progress::default(),
            sink,
        }
    }

    /// Counters so far.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The interfaces so far, by number.
    pub fn interfaces(&self) -> &[Arc<Interface>] {
        &self.interfaces
    }

    /// The segment sink.
    pub fn sink_mut(&mut self) -> &mut S {
        &mut self.sink
    }

    /// Flows opened, and flows evicted because the table was full.
    pub fn flows(&self) -> (u64, u64) {
        (self.table.opened(), self.table.evicted())
    }

    /// Adds an interface. Its number is its position.
    pub fn interface(&mut self, interface: Interface) {
        self.interfaces.push(Arc::new(interface));
    }

    /// A pcapng block that is not a packet.
    pub fn block(&mut self, block: Block) {
        if block.block_type == block_type::SECTION_HEADER {
            self.section = Some(block.clone());
            self.sections += 1;
        }
        self.blocks.push(block);
    }

    /// Processes a packet of a known interface. Its ordinal is the number of packets before it. With
    /// `store` unset it only updates the flow table: an earlier run committed the packet.
    ///
    /// # Errors
    /// [`PipelineError`]; the packet may or may not have been taken.
    pub fn packet(
        &mut self,
        packet: &Packet<'_>,
        store: bool,
    ) -> Result<(), PipelineError<S::Error>> {
        let ordinal = self.progress.packets;
        self.progress.packets += 1;
        self.progress.captured_bytes += packet.data.len() as u64;
        let link_type = self.interfaces[packet.interface as usize].link_type;
        let mut headers = Headers::EMPTY;
        capstan_dissect::decode_into(&mut headers, link_type, packet.data, packet.length);
        let time = packet.stamp.time();
        let mut found = self.table.find(&headers, link_type, packet.interface, time);
        self.tunnels.clear();
        if headers.between {
            self.note_tunnels(packet, link_type);
        }
        if headers.outer_fragments || headers.fragment.is_some() {
            self.follow_fragments(&found, packet, link_type, &mut headers);
        }
        if found.turned && self.segments.turn_flow(self.table.flow_mut(found.slot)) {
            found.direction = found.direction.reverse();
        }
        self.tell_ended();
        let hour = packet.hour();
        if store && let Some(full) = self.segments.make_room(hour) {
            // This packet is in no segment yet.
            self.hand_over(full, ordinal)?;
        }
        let flow = self.table.flow_mut(found.slot);
        let tls = if flow.wants_label() && can_be_labelled(&headers) {
            label(flow, packet, &headers, found.direction)
        } else {
            None
        };
        if !store {
            // It has a part in a segment.
            flow.parts = flow.parts.saturating_add(1);
            self.progress.skipped += 1;
            return Ok(());
        }

        let open = self.segments.of_hour(hour)?;
        if open.section != self.sections {
            // Each segment records the section of its packets.
            open.section = self.sections;
            let comes = |block: &Block| block.block_type == block_type::SECTION_HEADER;
            if !self.blocks.iter().any(comes) {
                self.section.iter().for_each(|header| open.builder.push_block(header.clone()));
            }
        }
        for block in self.blocks.drain(..) {
            open.builder.push_block(block);
        }
        describe(&self.interfaces, &mut self.described, &mut open.builder);
        open.builder
            .describe_interface(packet.interface, &self.interfaces[packet.interface as usize]);
        let part = open.part_of(flow);
        let stored = open.builder.part_mut(part);
        stored.protocol = flow.protocol;
        stored.opened |= found.new;
        if let Some(end) = flow.end() {
            stored.end = end;
        }
        if let Some(Hello { sni, alpn }) = tls {
            stored.sni = stored.sni.take().or(sni);
            stored.alpn = stored.alpn.take().or(alpn);
        }
        open.builder.push(part, packet, &headers, found.direction, ordinal);
        for tunnel in &self.tunnels {
            open.builder.meet_tunnel(part, tunnel);
        }
        if let Some(full) = self.segments.after_packet(hour, packet.data.len()) {
            self.hand_over(full, ordinal + 1)?;
        }
        Ok(())
    }

    /// Registers a first fragment so that later ones join its flow.
    #[cold]
    fn follow_fragments(
        &mut self,
        found: &Found,
        packet: &Packet<'_>,
        link_type: LinkType,
        headers: &mut Headers,
    ) {
        let begins = headers.fragment.is_some_and(|fragment| fragment.offset == 0);
        if headers.outer_fragments || begins {
            self.note_tunnels(packet, link_type);
            let (table, tunnels) = (&mut self.table, &self.tunnels);
            capstan_dissect::first_fragments(link_type, packet.data, packet.length, |datagram| {
                table.expect_fragments(found, datagram, tunnels);
            });
        } else {
            self.tunnels.extend_from_slice(self.table.tunnels_of(headers));
            headers.outer = headers.outer.or(self.tunnels.first().copied());
        }
    }

    /// Records all tunnels of a packet.
    #[cold]
    fn note_tunnels(&mut self, packet: &Packet<'_>, link_type: LinkType) {
        self.tunnels.clear();
        capstan_dissect::tunnels(link_type, packet.data, packet.length, |tunnel| {
            self.tunnels.push(tunnel);
        });
    }

    /// Records the end reasons of flows that left the table.
    #[inline]
    fn tell_ended(&mut self) {
        if self.table.has_ended() {
            for (part, end) in self.table.take_ended() {
                self.segments.end_part(part, end);
            }
        }
    }

    /// The resume point once every segment handed to the sink is committed.
    pub fn resume(&self) -> Resume {
        self.resume_before(self.progress.packets)
    }

    fn resume_before(&self, next: u64) -> Resume {
        let next_ordinal = self.segments.first_ordinal().unwrap_or(next);
        Resume { next_ordinal, next_flow: self.table.opened() }
    }

    fn hand_over(
        &mut self,
        segment: SegmentBuilder,
        next: u64,
    ) -> Result<(), PipelineError<S::Error>> {
        let resume = self.resume_before(next);
        self.sink.take(segment, resume).map_err(PipelineError::Sink)
    }

    /// Seals segments older than the policy's age. Call it now and then. `now` is the recorder's
    /// monotonic clock.
    ///
    /// # Errors
    /// The sink's error.
    pub fn tick(&mut self, now: std::time::Instant) -> Result<(), PipelineError<S::Error>> {
        while let Some(old) = self.segments.take_old(now) {
            self.hand_over(old, self.progress.packets)?;
        }
        Ok(())
    }

    /// Seals all open segments. The pipeline can continue afterwards.
    ///
    /// # Errors
    /// The sink's error. The remaining segments stay open.
    pub fn flush(&mut self) -> Result<(), PipelineError<S::Error>> {
        self.table.sweep_now();
        self.tell_ended();
        if let Some(open) = self.segments.any() {
            describe(&self.interfaces, &mut self.described, open);
            for block in self.blocks.drain(..) {
                open.push_block(block);
            }
        }
        while let Some(segment) = self.segments.take_any() {
            self.hand_over(segment, self.progress.packets)?;
        }
        Ok(())
    }

    /// Blocks of a source without any packet. No segment stores them, so the caller reports them.
    pub fn homeless_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The generation flow ids carry.
    pub fn flow_generation(&self) -> Generation {
        self.settings.flow_generation
    }

    /// Ends the pipeline and gives the sink back.
    pub fn into_sink(self) -> S {
        self.sink
    }

    /// Captured bytes in the open segments.
    pub fn open_bytes(&self) -> u64 {
        self.segments.captured_bytes()
    }

    /// Segments that are open now.
    pub fn open_segments(&self) -> usize {
        self.segments.len()
    }
}

/// Describes interfaces that have no description in a segment yet.
#[inline]
fn describe(all: &[Arc<Interface>], described: &mut usize, segment: &mut SegmentBuilder) {
    while let Some(interface) = all.get(*described) {
        segment.describe_interface(*described as u32, interface);
        *described += 1;
    }
}

/// SNI and ALPN of a TLS ClientHello.
struct Hello {
    sni: Option<String>,
    alpn: Option<String>,
}

/// Inspects a payload packet for the flow's label.
fn label(
    flow: &mut Flow,
    packet: &Packet<'_>,
    headers: &Headers,
    direction: Direction,
) -> Option<Hello> {
    let start = usize::from(headers.prefix);
    let end = start.saturating_add(headers.transport_payload as usize).min(packet.data.len());
    let payload = packet.data.get(start..end).unwrap_or_default();
    if payload.is_empty() || headers.fragment.is_some_and(|fragment| fragment.offset > 0) {
        return None;
    }
    flow.label_tries -= 1;
    let told = labels::label(
        headers.ip_protocol,
        headers.source_port,
        headers.destination_port,
        direction == Direction::Forward,
        payload,
    )?;
    flow.protocol = told;
    flow.label_tries = 0;
    if told != Protocol::Tls {
        return None;
    }
    let hello = labels::tls::client_hello(payload)?;
    let text = |bytes: &[u8]| Some(String::from_utf8_lossy(bytes).into_owned());
    Some(Hello {
        sni: hello.server_name.map(str::to_ascii_lowercase),
        alpn: hello.alpn().next().and_then(text),
    })
}

#[cfg(test)]
mod tests;
