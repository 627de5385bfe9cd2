//! Fields of terms, and the encoding of values as term bytes.

use std::borrow::Cow;

use capstan_model::FlowId;
use sha2::{Digest, Sha256};

/// The longest value a term holds as it is, bytes.
pub const MAX_VALUE: usize = 255;

/// How many bytes of a value longer than [`MAX_VALUE`] are kept before its hash:
/// prefixes up to this long are found exactly in every term.
pub const PREFIX_EXACT: usize = MAX_VALUE - HASH;

/// Bytes of SHA-256 that stand for the rest of a long value.
const HASH: usize = 16;

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// The field of a term. The number is stored and never changes its meaning. New ones are added at the
        /// end, and a reader ignores numbers that it does not know.
        ///
        /// Numbers are big-endian (`port.to_be_bytes()`), so that terms sort by number.
        /// Text is UTF-8 as it is to be matched (names lower-cased by who adds them).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Field {
            $($(#[$doc])* $name = $number,)*
        }

        impl Field {
            /// Every field, by number.
            pub const ALL: &'static [Field] = &[$(Field::$name,)*];

            /// The number that is stored.
            pub fn number(self) -> u8 {
                self as u8
            }

            /// The field with this number, if this version knows it.
            pub fn from_number(number: u8) -> Option<Field> {
                Field::ALL.iter().copied().find(|field| field.number() == number)
            }

            /// The name used in filters and listings.
            pub fn name(self) -> &'static str {
                match self {
                    $(Field::$name => $text,)*
                }
            }
        }
    };
}

fields! {
    /// Either address of the flow, 16 bytes (`capstan_model::Address`).
    Ip = 1, "ip";
    /// Either address of each tunnel around the flow, 16 bytes. Apart from [`Field::Ip`],
    /// because "between these pods" and "between these nodes" are different questions.
    OuterIp = 2, "outer_ip";
    /// Either port, u16, of the flow *and* of each tunnel around it. It is one field, because every condition on
    /// a port is about both, and a second field would double the lookups.
    Port = 3, "port";
    /// Application protocol label, u8 (`capstan_model::Protocol`).
    Protocol = 4, "protocol";
    /// IP protocol number, u8.
    IpProtocol = 5, "ip_protocol";
    /// VLAN identifier, u16.
    Vlan = 6, "vlan";
    /// VXLAN or Geneve network identifier, or GRE key, u32.
    Vni = 7, "vni";
    /// Kubernetes namespace of either end.
    Namespace = 8, "namespace";
    /// `namespace/name` of the pod of either end.
    Pod = 9, "pod";
    /// `namespace/name` of the service of either end.
    Service = 10, "service";
    /// Node of either end.
    Node = 11, "node";
    /// Command name of the process of either end.
    Process = 12, "process";
    /// TLS server name.
    Sni = 13, "sni";
    /// First application protocol (ALPN) that a TLS client offers.
    Alpn = 14, "alpn";
    /// Ethertype, u16.
    EtherType = 15, "ether_type";
    /// Interface number within the recorder's generation, u32.
    Interface = 16, "interface";
    /// `namespace/kind/name` of the workload of either end.
    Workload = 17, "workload";
    /// The flow's identity is known: the number of an identity field and an [`End`], each u8.
    Known = 18, "known";
    /// The flow. In the index: its counter, u32, or of five bytes if it is larger; the segment says which recorder and
    /// generation its flows are of. In a filter: the whole id, 16 bytes (`capstan_model::FlowId`).
    Flow = 19, "flow_id";
}

impl Field {
    /// Whether it is about the identity of an end, which may become known after packets are recorded.
    pub fn is_identity(self) -> bool {
        matches!(
            self,
            Field::Namespace
                | Field::Pod
                | Field::Service
                | Field::Workload
                | Field::Node
                | Field::Process
        )
    }
}

/// An end of a flow. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// The source.
    Source = 0,
    /// The destination.
    Destination = 1,
}

impl End {
    /// Both of them.
    pub const BOTH: [End; 2] = [End::Source, End::Destination];
}

/// The counter of a flow as the index has it: these bytes from that place on.
pub fn flow_value(id: FlowId) -> ([u8; 8], usize) {
    let counter = id.counter();
    (counter.to_be_bytes(), if counter >> 32 == 0 { 4 } else { 3 })
}

/// The bytes a value has in a term: itself up to [`MAX_VALUE`] bytes; longer ones are cut
/// to [`PREFIX_EXACT`] bytes and 16 bytes of the SHA-256 of the whole value follow.
pub(crate) fn term_value(value: &[u8]) -> Cow<'_, [u8]> {
    if value.len() <= MAX_VALUE {
        return Cow::Borrowed(value);
    }
    let mut cut = Vec::with_capacity(MAX_VALUE);
    cut.extend_from_slice(&value[..PREFIX_EXACT]);
    cut.extend_from_slice(&Sha256::digest(value)[..HASH]);
    Cow::Owned(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_terms_round_trip_and_are_dense() {
        for (place, field) in Field::ALL.iter().enumerate() {
            assert_eq!(usize::from(field.number()), place + 1);
            assert_eq!(Field::from_number(field.number()), Some(*field));
        }
        assert_eq!(Field::from_number(0), None);
        assert_eq!(Field::from_number(200), None);
    }

    #[test]
    fn long_values_stay_apart() {
        let long = vec![b'a'; 300];
        let mut other = long.clone();
        other[299] = b'b';
        let cut = term_value(&long);
        assert_eq!(cut.len(), MAX_VALUE);
        assert_eq!(cut[..PREFIX_EXACT], long[..PREFIX_EXACT]);
        assert_ne!(cut, term_value(&other));
        assert_eq!(term_value(&long[..MAX_VALUE]).as_ref(), &long[..MAX_VALUE]);
    }
}
