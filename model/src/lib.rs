//! The data model shared by all crates: identities, time, packets, header fields, flows, coverage
//! and errors. No IO and no async.
//!
//! * [`id`]: recorder, generation, packet id, flow id
//! * [`time`]: nanoseconds since 1970 UTC, hours, ranges, parsing and formatting
//! * [`address`]: 16-byte addresses (IPv4 mapped)
//! * [`network`]: blocks of addresses, in CIDR notation
//! * [`ports`]: ranges of ports
//! * [`ip_protocol`]: IP protocol numbers
//! * [`link`]: link types (LINKTYPE_ numbers) and capture interfaces
//! * [`packet`]: one captured packet, borrowed from the read buffer
//! * [`flow`]: flow keys and flow parts
//! * [`identity`]: who is at an end of a flow
//! * [`headers`]: decoded packet headers
//! * [`bytes`]: numbers at any place of a slice
//! * [`block`]: pcapng blocks other than packets
//! * [`protocol`]: the application protocol label
//! * [`coverage`]: coverage and loss
//! * [`account`]: memory accounting per query
//! * [`memory`]: the memory budget of a process, and its shares
//! * [`metrics`]: counters, gauges, and their text for Prometheus
//! * [`words`]: counts with nouns for messages
//! * [`failure`]: error kinds shared by all crates and their exit codes

#![forbid(unsafe_code)]

pub mod account;
pub mod address;
pub mod block;
pub mod bytes;
pub mod coverage;
pub mod failure;
pub mod flow;
pub mod headers;
pub mod id;
pub mod identity;
pub mod ip_protocol;
pub mod link;
pub mod memory;
pub mod metrics;
pub mod network;
pub mod packet;
pub mod ports;
pub mod protocol;
pub mod time;
pub mod words;

pub use address::Address;
pub use block::Block;
pub use failure::{Failure, FailureKind};
pub use flow::{Direction, FlowEnd, FlowKey, FlowPart};
pub use headers::Headers;
pub use id::{FlowId, Generation, GenerationId, PacketId, RecorderId};
pub use link::LinkType;
pub use memory::{IngestShares, MemoryBudget, ServerShares};
pub use network::{Network, NetworkError};
pub use packet::Packet;
pub use ports::Ports;
pub use protocol::Protocol;
pub use time::{HOUR_NANOS, Hour, Time, TimeRange};
