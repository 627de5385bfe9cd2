//! What a capture holds beside packets: pcapng blocks other than packets.

use serde::{Deserialize, Serialize};

/// A pcapng block that is not a packet, kept so that an export can give it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The block type number (draft-ietf-opsawg-pcapng section 10.1).
    pub block_type: u32,
    /// The body between the two length fields. It is little-endian if the fields of the block are known (name
    /// resolution, secrets, statistics, section header), otherwise as in the file.
    pub body: Vec<u8>,
    /// The body is big-endian, and the fields of the block are not known. So it cannot be converted: it can be listed,
    /// but not written into another file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub big_endian: bool,
    /// Number of packets of the source before it.
    pub before: u64,
}

/// Block type numbers.
pub mod block_type {
    /// Section header.
    pub const SECTION_HEADER: u32 = 0x0A0D_0D0A;
    /// Interface description.
    pub const INTERFACE: u32 = 1;
    /// Packet block: obsolete, but files still have it.
    pub const PACKET: u32 = 2;
    /// Simple packet.
    pub const SIMPLE_PACKET: u32 = 3;
    /// Name resolution.
    pub const NAME_RESOLUTION: u32 = 4;
    /// Interface statistics.
    pub const INTERFACE_STATISTICS: u32 = 5;
    /// Enhanced packet.
    pub const ENHANCED_PACKET: u32 = 6;
    /// Decryption secrets.
    pub const DECRYPTION_SECRETS: u32 = 0x0A;
    /// Custom, may be copied.
    pub const CUSTOM: u32 = 0x0BAD;
    /// Custom, must not be copied.
    pub const CUSTOM_NO_COPY: u32 = 0x4000_0BAD;
}
