//! A sequence of packets as structured input, and its way through the pipeline into sealed
//! segments and back.
//!
//! A byte says when segments are sealed, two how many of the first packets are passed over
//! (as an import does that goes on), two and two which link types the two interfaces have.
//! Records follow:
//!
//! | byte | record |
//! | --- | --- |
//! | bits 0 and 1 | time stamp: nanoseconds after the one before (u32), a moment (u64), raw ticks (u64) with the moment before, raw ticks (u64) without |
//! | bit 2 | the length on the wire follows (u32); else it is the captured one |
//! | bit 3 | the bytes of the packet before, with one of them (u16) changed (u8); else own bytes (u16, bytes) |
//! | bit 4 | options follow (u8, bytes) |
//! | bit 5 | of the second interface |
//! | bits 6 and 7 both | a block instead (u32 type; u16, bytes) |
//! | bits 6 and 7 = 1, 2 | no time stamp; the flow's clock jumps an hour on |

use capstan_ingest::flow_table::Timeouts;
use capstan_ingest::pipeline::{Pipeline, Resume, SealPolicy, Settings, Sink};
use capstan_model::block::block_type;
use capstan_model::link::Interface;
use capstan_model::packet::Stamp;
use capstan_model::time::HOUR_NANOS;
use capstan_model::{
    Block, Generation, GenerationId, IngestShares, LinkType, Packet, RecorderId, Time,
};
use capstan_storage_engine::segment::builder::{SealedSegment, SegmentBuilder};

use crate::input::{Put, Take};
use crate::segment::{self, Stored};

/// Bytes of all packets together, at most: enough to fill blocks of both payload layers.
const MOST_BYTES: usize = 6 << 20;

/// Packets of one input, at most.
const MOST_PACKETS: usize = 1_000;

/// One packet of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Interface 0 or 1.
    pub interface: u32,
    /// When.
    pub stamp: Stamp,
    /// Length on the wire.
    pub length: u32,
    /// What was captured.
    pub data: Vec<u8>,
    /// pcapng options.
    pub options: Vec<u8>,
}

/// What a pipeline is given.
#[derive(Debug, Clone)]
pub enum Record {
    /// A packet.
    Packet(Recorded),
    /// A block between packets.
    Block(Block),
}

/// A whole input.
#[derive(Debug, Clone)]
pub struct Recording {
    /// When segments are sealed.
    pub policy: SealPolicy,
    /// Packets that an earlier run has stored.
    pub skip: u64,
    /// Link types of the two interfaces.
    pub links: [LinkType; 2],
    /// Packets and blocks in order.
    pub records: Vec<Record>,
}

/// Reads any bytes as a recording.
pub fn parse(bytes: &[u8]) -> Recording {
    let mut take = Take::new(bytes);
    let policy = policy(take.u8());
    let skip = u64::from(take.u16());
    let links = [LinkType(take.u16()), LinkType(take.u16())];
    let mut records = Vec::new();
    let (mut time, mut total, mut packets) = (Time(0), 0, 0);
    let mut last = Vec::new();
    while !take.is_empty() && packets < MOST_PACKETS && total < MOST_BYTES {
        let control = take.u8();
        if control >> 6 == 3 {
            // A section's header is said again in each segment: it is not counted here.
            let block_type = match take.u32() {
                block_type::SECTION_HEADER => block_type::CUSTOM,
                other => other,
            };
            let body = take.short().to_vec();
            total += body.len();
            records.push(Record::Block(Block {
                block_type,
                body,
                big_endian: false,
                before: packets as u64,
            }));
            continue;
        }
        let stamp = match (control >> 6, control & 3) {
            (1, _) => Stamp::None,
            (2, _) => {
                time = Time(time.0.wrapping_add(HOUR_NANOS));
                Stamp::At(time)
            }
            (_, 0) => {
                time = Time(time.0.wrapping_add(i64::from(take.u32())));
                Stamp::At(time)
            }
            (_, 1) => {
                time = Time(take.u64().cast_signed());
                Stamp::At(time)
            }
            (_, 2) => Stamp::Raw { ticks: take.u64(), time: Some(time) },
            _ => Stamp::Raw { ticks: take.u64(), time: None },
        };
        let wire = (control & 4 != 0).then(|| take.u32());
        if control & 8 != 0 {
            let (at, change) = (usize::from(take.u16()), take.u8());
            if let Some(byte) = last.get_mut(at) {
                *byte ^= change;
            }
        } else {
            last = take.short().to_vec();
        }
        let options = if control & 16 != 0 {
            let length = usize::from(take.u8());
            take.at_most(length).to_vec()
        } else {
            Vec::new()
        };
        total += last.len();
        packets += 1;
        records.push(Record::Packet(Recorded {
            interface: u32::from(control >> 5 & 1),
            stamp,
            length: wire.unwrap_or(last.len() as u32),
            data: last.clone(),
            options,
        }));
    }
    Recording { policy, skip, links, records }
}

fn policy(choice: u8) -> SealPolicy {
    let mut policy = SealPolicy::import();
    if choice & 1 != 0 {
        policy.span = None;
    }
    if choice & 2 != 0 {
        policy.bytes = 4_000;
    }
    if choice & 4 != 0 {
        policy.hours = 2;
    }
    if choice & 8 != 0 {
        policy.span = policy.span.map(|_| 1_000);
    }
    if choice & 16 != 0 {
        policy.memory = 60_000;
    }
    policy
}

/// The input in which packets of one link type come as they are, nanoseconds apart.
pub fn compose(choice: u8, link: LinkType, packets: &[(u32, u32, Vec<u8>)]) -> Vec<u8> {
    let mut put = Put::default();
    put.raw(&[choice, 0, 0]).raw(&link.0.to_le_bytes()).raw(&link.0.to_le_bytes());
    for (after, wire, data) in packets {
        put.raw(&[4]).raw(&after.to_le_bytes()).raw(&wire.to_le_bytes()).short(data);
    }
    put.0
}

/// Seals at once, keeps everything, and watches what is said of going on later.
#[derive(Default)]
struct Keep {
    sealed: Vec<SealedSegment>,
    resumes: Vec<Resume>,
}

impl Sink for Keep {
    type Error = std::convert::Infallible;

    fn take(&mut self, segment: SegmentBuilder, resume: Resume) -> Result<(), Self::Error> {
        let name = format!("segment-{}", self.sealed.len());
        self.sealed.push(segment.seal(name, GENERATION).expect("memory suffices"));
        self.resumes.push(resume);
        Ok(())
    }
}

const GENERATION: Generation = Generation(1);

/// Seals a recording.
pub fn seal(recording: &Recording) -> Vec<SealedSegment> {
    run(recording).0.sealed
}

fn run(recording: &Recording) -> (Keep, usize) {
    let settings = Settings {
        writer: GenerationId { recorder: RecorderId(7), generation: GENERATION },
        flow_generation: GENERATION,
        policy: recording.policy,
        timeouts: Timeouts::default(),
        flow_memory: IngestShares::default().flows,
    };
    let mut pipeline = Pipeline::new(settings, Keep::default());
    for link_type in recording.links {
        pipeline.interface(Interface {
            link_type,
            snap_length: 0,
            name: None,
            resolution: 9,
            offset_seconds: 0,
            options: Vec::new(),
        });
    }
    for record in &recording.records {
        match record {
            Record::Block(block) => pipeline.block(block.clone()),
            Record::Packet(packet) => {
                let store = pipeline.progress().packets >= recording.skip;
                let packet = Packet {
                    interface: packet.interface,
                    stamp: packet.stamp,
                    length: packet.length,
                    data: &packet.data,
                    options: &packet.options,
                };
                pipeline.packet(&packet, store).expect("the sink takes everything");
            }
        }
    }
    pipeline.flush().expect("the sink takes everything");
    assert_eq!(pipeline.open_segments(), 0);
    let homeless = pipeline.homeless_blocks();
    (pipeline.into_sink(), homeless)
}

/// Sends a recording through the pipeline and reads every segment back.
///
/// # Panics
/// When anything is lost, changed or contradicts itself.
pub fn round_trip(recording: &Recording) {
    let (keep, homeless) = run(recording);
    let mut back: Vec<Stored> = Vec::new();
    let mut blocks = 0;
    for sealed in &keep.sealed {
        let read = segment::read_sealed(sealed);
        assert_eq!(read.packets.len() as u64, sealed.meta.packets);
        blocks += read.extras.blocks.len();
        back.extend(read.packets);
    }
    back.sort_by_key(|stored| stored.ordinal);

    let mut expected = Vec::new();
    let (mut ordinal, mut given_blocks) = (0, 0);
    for record in &recording.records {
        match record {
            Record::Block(_) => given_blocks += 1,
            Record::Packet(packet) => {
                if ordinal >= recording.skip {
                    expected.push(Stored {
                        ordinal,
                        interface: packet.interface,
                        time: packet.stamp.time(),
                        ticks: match packet.stamp {
                            Stamp::Raw { ticks, .. } => Some(ticks),
                            _ => None,
                        },
                        length: packet.length,
                        data: packet.data.clone(),
                        options: packet.options.clone(),
                    });
                }
                ordinal += 1;
            }
        }
    }
    assert_eq!(back.len(), expected.len(), "packets");
    for (back, expected) in back.iter().zip(&expected) {
        assert_eq!(back, expected);
    }
    assert_eq!(blocks + homeless, given_blocks, "blocks");
    check_resumes(&keep);
}

/// Every packet below what a segment says to go on from is in it or in an earlier one.
fn check_resumes(keep: &Keep) {
    let mut flows = 0;
    for (at, resume) in keep.resumes.iter().enumerate() {
        let later = keep.sealed[at + 1..].iter().map(|sealed| sealed.meta.first_ordinal);
        assert!(later.min().is_none_or(|first| resume.next_ordinal <= first), "a gap");
        assert!(resume.next_flow >= flows);
        flows = resume.next_flow;
    }
}
