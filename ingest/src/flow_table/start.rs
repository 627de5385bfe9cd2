//! Initial sequence numbers of a TCP connection. They decide whether a SYN belongs to the connection
//! (late or retransmitted), or opens a new one between the same ports.

use capstan_model::headers::{Tcp, tcp_flags};

/// Knowledge about the initial sequence number of one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Start {
    #[default]
    Unknown,
    /// The lowest sequence number sent or acknowledged. The capture missed the SYN.
    Lowest(u32),
    /// The SYN's number, from the SYN or from a SYN-ACK that acknowledges it.
    Syn(u32),
}

impl Start {
    /// Whether a SYN with this number and this many payload bytes (TCP Fast Open) is the initial SYN
    /// of this end. None if unknown.
    fn is_from(self, number: u32, bytes: u32) -> Option<bool> {
        let begins = |first: u32| {
            let behind = number.wrapping_add(1);
            first == behind || first == behind.wrapping_add(bytes)
        };
        match self {
            Start::Unknown => None,
            Start::Lowest(first) => Some(begins(first)),
            Start::Syn(own) => Some(own == number || begins(own.wrapping_add(1))),
        }
    }

    fn meet(&mut self, number: u32) {
        match self {
            Start::Syn(_) => {}
            Start::Lowest(lowest) if number.wrapping_sub(*lowest) < 1 << 31 => {}
            _ => *self = Start::Lowest(number),
        }
    }
}

/// The starts of both ends. Index 1 is the key's lower end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Starts([Start; 2]);

/// A packet answers an end if its acknowledgement is at most this far past that end's start, bytes.
const ANSWER_WITHIN: u32 = 1 << 28;

impl Starts {
    /// Records a packet from an end.
    #[inline]
    pub(super) fn meet(&mut self, tcp: Tcp, from: usize) {
        let syn = tcp.flags & tcp_flags::SYN != 0;
        if !syn && matches!(self.0, [Start::Syn(_), Start::Syn(_)]) {
            return;
        }
        if syn {
            self.0[from] = Start::Syn(tcp.seq);
        } else if tcp.flags & tcp_flags::RST == 0 {
            self.0[from].meet(tcp.seq);
        }
        if tcp.flags & tcp_flags::ACK != 0 {
            let other = &mut self.0[1 - from];
            match other {
                Start::Syn(_) => {}
                _ if syn => *other = Start::Syn(tcp.ack.wrapping_sub(1)),
                _ => other.meet(tcp.ack),
            }
        }
    }

    /// Whether a SYN packet from an end belongs to this connection. `closed` is whether a FIN or RST
    /// arrived. `bytes` is the payload length.
    pub(super) fn owns_syn(&self, tcp: Tcp, from: usize, bytes: u32, closed: bool) -> bool {
        let (own, other) = (self.0[from], self.0[1 - from]);
        let known = own.is_from(tcp.seq, bytes);
        if tcp.flags & tcp_flags::ACK == 0 {
            // The second SYN of a simultaneous open is the first information about its end.
            return known.unwrap_or(!closed && matches!(other, Start::Syn(_)));
        }
        // A server that lost its first SYN-ACK may choose another number for the second.
        let answers = matches!(other, Start::Syn(syn) if syn.wrapping_add(1) == tcp.ack);
        answers || known.unwrap_or(!closed)
    }

    /// Whether a packet from an end without known start can belong to this connection.
    pub(super) fn is_answered_by(&self, tcp: Tcp, from: usize, bytes: u32) -> bool {
        if tcp.flags & tcp_flags::ACK == 0 {
            return self.0[from].is_from(tcp.seq, bytes) == Some(true);
        }
        let behind = |number: u32| tcp.ack.wrapping_sub(number);
        match self.0[1 - from] {
            Start::Unknown => false,
            // The SYN and its possible payload.
            Start::Syn(syn) if tcp.flags & tcp_flags::SYN != 0 => {
                (1..=u32::from(u16::MAX)).contains(&behind(syn))
            }
            Start::Lowest(number) | Start::Syn(number) => behind(number) < ANSWER_WITHIN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: u8 = tcp_flags::SYN;
    const ACK: u8 = tcp_flags::ACK;
    const RST: u8 = tcp_flags::RST;
    const CLIENT: usize = 1;
    const SERVER: usize = 0;

    fn tcp(flags: u8, seq: u32, ack: u32) -> Tcp {
        Tcp { seq, ack, flags, window: 0 }
    }

    fn after(packets: &[(usize, Tcp)]) -> Starts {
        let mut starts = Starts::default();
        packets.iter().for_each(|(from, tcp)| starts.meet(*tcp, *from));
        starts
    }

    #[test]
    fn syn_belongs_to_its_connection_by_sequence_number() {
        let (client, server) = (u32::MAX - 3, 7_000);
        let syn = (CLIENT, tcp(SYN, client, 0));
        let syn_ack = (SERVER, tcp(SYN | ACK, server, client.wrapping_add(1)));
        let shake = (CLIENT, tcp(ACK, client.wrapping_add(1), server + 1));
        let request = (CLIENT, tcp(ACK, client.wrapping_add(101), server + 1));
        let greeting = (SERVER, tcp(ACK, server + 1, client.wrapping_add(1)));
        let reset = (SERVER, tcp(RST | ACK, 0, client.wrapping_add(1)));
        type Case<'a> = (&'a str, &'a [(usize, Tcp)], (usize, Tcp), bool);
        let cases: &[Case<'_>] = &[
            ("sent again", &[syn, syn_ack, shake], syn, true),
            ("behind its answer", &[syn_ack], syn, true),
            ("behind all but its answer", &[shake, request], syn, true),
            ("behind the server's first bytes", &[greeting], syn, true),
            ("the lowest number counts", &[request, shake, request], syn, true),
            ("refused", &[reset], syn, true),
            ("another number", &[syn, syn_ack], (CLIENT, tcp(SYN, 1, 0)), false),
            ("another than was answered", &[syn_ack], (CLIENT, tcp(SYN, 1, 0)), false),
            ("joined in the middle", &[request], syn, false),
            ("the other end, joined", &[request], (SERVER, tcp(SYN, 1, 0)), false),
            ("simultaneous open", &[syn], (SERVER, tcp(SYN, server, 0)), true),
            ("its answer", &[syn, (SERVER, tcp(SYN, server, 0))], syn_ack, true),
            ("the answer late", &[shake, request, greeting], syn_ack, true),
            ("another's answer", &[shake], (SERVER, tcp(SYN | ACK, 1, 1)), false),
            ("another cookie", &[syn, syn_ack], (SERVER, tcp(SYN | ACK, 1, syn_ack.1.ack)), true),
            ("nothing is known", &[], syn, false),
        ];
        for (name, before, (from, tcp), own) in cases {
            assert_eq!(after(before).owns_syn(*tcp, *from, 0, false), *own, "{name}");
        }
        // After an end was seen, only numbers that are known count.
        assert!(after(&[syn, syn_ack]).owns_syn(syn.1, CLIENT, 0, true));
        assert!(!after(&[syn]).owns_syn(tcp(SYN, server, 0), SERVER, 0, true));
        assert!(!after(&[syn]).owns_syn(tcp(SYN | ACK, server, 1), SERVER, 0, true));
    }

    #[test]
    fn bytes_in_a_syn_may_be_acknowledged_with_it() {
        let syn_ack = (SERVER, tcp(SYN | ACK, 9, 1_000 + 1 + 50));
        let starts = after(&[syn_ack]);
        assert!(starts.owns_syn(tcp(SYN, 1_000, 0), CLIENT, 50, false));
        assert!(!starts.owns_syn(tcp(SYN, 1_000, 0), CLIENT, 49, false));
    }

    #[test]
    fn an_answer_acknowledges_what_was_sent() {
        let starts = after(&[(CLIENT, tcp(SYN, 1_000, 0))]);
        assert!(starts.is_answered_by(tcp(SYN | ACK, 5, 1_001), SERVER, 0));
        assert!(!starts.is_answered_by(tcp(SYN | ACK, 5, 900), SERVER, 0));
        assert!(!starts.is_answered_by(tcp(SYN | ACK, 5, 90_000), SERVER, 0));
        assert!(starts.is_answered_by(tcp(ACK, 5, 90_000), SERVER, 0));
        assert!(!starts.is_answered_by(tcp(RST, 5, 0), SERVER, 0));
        assert!(!Starts::default().is_answered_by(tcp(ACK, 5, 5), SERVER, 0));
    }
}
