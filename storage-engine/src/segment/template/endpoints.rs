//! The ends of a flow, which templates omit.
//!
//! The flow's row in `flows.parquet` holds addresses and ports already. Without them nearly all
//! flows share a few templates, so a reader of one host does not fetch the templates of all others.

use capstan_model::headers::FieldKind;
use capstan_model::{Address, Direction, FlowKey};

use super::{MAX_FIELDS, NAME, numbered};

/// Who sent a packet to whom, as its innermost headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Endpoints {
    /// The sender.
    pub source: Address,
    /// The receiver.
    pub destination: Address,
    /// The sender's port; 0 where there are none.
    pub source_port: u16,
    /// The receiver's port; 0 where there are none.
    pub destination_port: u16,
}

impl Endpoints {
    /// Unspecified ends, which fit every header: for readers that need other fields of it.
    pub fn unspecified() -> Endpoints {
        let nobody = Address::v4([0; 4]);
        Endpoints { source: nobody, destination: nobody, source_port: 0, destination_port: 0 }
    }

    /// Those of a packet that goes forward in the flow of that key.
    pub fn of(key: &FlowKey) -> Endpoints {
        let FlowKey { source, destination, source_port, destination_port, .. } = *key;
        Endpoints { source, destination, source_port, destination_port }
    }

    /// Those of a packet that goes that way, where these are of one that goes forward.
    #[inline]
    #[must_use]
    pub fn towards(self, direction: Direction) -> Endpoints {
        match direction {
            Direction::Forward => self,
            Direction::Backward => Endpoints {
                source: self.destination,
                destination: self.source,
                source_port: self.destination_port,
                destination_port: self.source_port,
            },
        }
    }
}

/// Fields of the ends that a template can leave out. The numbers follow those of [`FieldKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum EndKind {
    /// Both addresses of an IPv4 header, the sender's first.
    V4 = 14,
    /// Both addresses of an IPv6 header, the sender's first.
    V6 = 15,
    /// Both ports, the sender's first.
    Ports = 16,
}

/// Most bytes that an [`EndKind`] stands for.
const WIDEST: usize = 32;

impl EndKind {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [EndKind::V4, EndKind::V6, EndKind::Ports].into_iter().find(|kind| *kind as u8 == number)
    }

    /// Bytes of the header that it stands for.
    pub(super) fn width(self) -> usize {
        match self {
            EndKind::V4 => 8,
            EndKind::V6 => 32,
            EndKind::Ports => 4,
        }
    }

    /// Writes them to the front of `to`; false if no header can have such ends.
    #[inline]
    pub(super) fn write(self, ends: &Endpoints, to: &mut [u8; WIDEST]) -> bool {
        match self {
            EndKind::V4 => {
                for (half, address) in to.chunks_exact_mut(4).zip([ends.source, ends.destination]) {
                    let Some(bytes) = address.0.last_chunk::<4>() else { return false };
                    if Address::v4(*bytes) != address {
                        return false;
                    }
                    half.copy_from_slice(bytes);
                }
            }
            EndKind::V6 => {
                to[..16].copy_from_slice(&ends.source.0);
                to[16..].copy_from_slice(&ends.destination.0);
            }
            EndKind::Ports => {
                to[..2].copy_from_slice(&ends.source_port.to_be_bytes());
                to[2..4].copy_from_slice(&ends.destination_port.to_be_bytes());
            }
        }
        true
    }

    /// Whether they stand at an offset of a prefix.
    fn stands(self, ends: &Endpoints, at: usize, prefix: &[u8]) -> bool {
        let mut bytes = [0; WIDEST];
        self.write(ends, &mut bytes)
            && prefix.get(at..at + self.width()) == Some(&bytes[..self.width()])
    }
}

/// Takes the ends out of a template that [`super::split`] made, as far as they stand where the
/// innermost headers have them: what is left goes into `into` (cleared first).
pub fn without_endpoints(template: &[u8], ends: &Endpoints, into: &mut Vec<u8>) {
    into.clear();
    let names = template.first().map_or(0, |count| NAME * usize::from(*count));
    let Some((names, prefix)) = template.get(1..).and_then(|rest| rest.split_at_checked(names))
    else {
        return into.extend_from_slice(template);
    };
    let (names, _) = names.as_chunks::<NAME>();
    let mut left_out = places(names);
    for place in &mut left_out {
        place.take_if(|(kind, at)| !kind.stands(ends, *at, prefix) || overlaps(names, *kind, *at));
    }

    // Names stay in the order of their offsets.
    let mut all = [([0; NAME], 0); MAX_FIELDS];
    let of_fields = names.iter().map(|name| (*name, numbered(name).1));
    let of_ends = left_out.iter().flatten().map(|(kind, at)| {
        let [low, high] = (*at as u16).to_le_bytes();
        ([*kind as u8, low, high], *at)
    });
    let mut count = 0;
    for name in of_fields.chain(of_ends) {
        let Some(free) = all.get_mut(count) else { return into.extend_from_slice(template) };
        *free = name;
        count += 1;
    }
    let all = &mut all[..count];
    all.sort_by_key(|(_, at)| *at);
    into.push(count as u8);
    all.iter().for_each(|(name, _)| into.extend_from_slice(name));
    let start = into.len();
    into.extend_from_slice(prefix);
    for (kind, at) in left_out.into_iter().flatten() {
        into[start + at..start + at + kind.width()].fill(0);
    }
}

/// Whether one of the fields named reaches into where the ends would be.
fn overlaps(names: &[[u8; NAME]], kind: EndKind, at: usize) -> bool {
    names.iter().any(|name| {
        let (other, start) = numbered(name);
        let end = FieldKind::from_number(other).map_or(usize::MAX, |other| start + other.width());
        start < at + kind.width() && at < end
    })
}

/// Where the innermost headers have the addresses and ports, as the other fields tell.
fn places(names: &[[u8; NAME]]) -> [Option<(EndKind, usize)>; 2] {
    let mut addresses = None;
    let mut ports = None;
    for name in names {
        let (kind, offset) = numbered(name);
        match FieldKind::from_number(kind) {
            // RFC 791: the length is the third byte of the header, the addresses from the 13th on.
            Some(FieldKind::Ipv4Length) => {
                (addresses, ports) = (Some((EndKind::V4, offset + 10)), None);
            }
            // RFC 8200: the fifth, and from the ninth on.
            Some(FieldKind::Ipv6Length) => {
                (addresses, ports) = (Some((EndKind::V6, offset + 4)), None);
            }
            // Both headers begin with the ports (RFC 9293, RFC 768), and have these behind.
            Some(FieldKind::TcpSeq | FieldKind::UdpLength) => {
                ports = offset.checked_sub(4).map(|start| (EndKind::Ports, start));
            }
            _ => {}
        }
    }
    [addresses, ports]
}

#[cfg(test)]
mod tests;
