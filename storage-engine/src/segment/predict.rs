//! Predicts header fields from earlier packets of the same flow part, so that columns hold small
//! deltas instead of large numbers.
//!
//! Encoder and decoder run the same state machine over the packets of a flow part in order. The
//! first packet of each part is predicted from zero, so a part can be read without any other.

use capstan_model::Direction;
use capstan_model::headers::{FieldKind, tcp_flags};

use super::template::{FieldSet, FieldValues};

/// State of one flow part, both directions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Predictor {
    ways: [Way; 2],
}

#[derive(Debug, Clone, Copy, Default)]
struct Way {
    /// The sequence number that follows the highest one sent.
    next_seq: u32,
    /// IP identification of the packet before.
    ip_id: u16,
    /// Identification of the outer IP header of the packet before.
    outer_ip_id: u16,
    /// Timestamp option's value of the packet before.
    timestamp: u32,
}

/// Deltas to the prediction, as stored in columns; all arithmetic wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deltas {
    /// Sequence number minus the one expected next in this direction.
    pub tcp_seq: i32,
    /// Acknowledgement number minus the one expected next in the other direction.
    pub tcp_ack: i32,
    /// IP identification minus (the one before in this direction plus 1).
    pub ip_id: i16,
    /// The same of the outer header.
    pub outer_ip_id: i16,
    /// Timestamp value minus the one before in this direction.
    pub tcp_timestamp: i32,
    /// Echo reply minus the last timestamp value of the other direction.
    pub tcp_echo: i32,
}

impl Predictor {
    /// Exchanges the two directions.
    pub fn turn(&mut self) {
        self.ways.reverse();
    }

    /// Turns values into differences. `payload` is the TCP payload's length on
    /// the wire: wire length minus trailer minus prefix.
    #[inline]
    pub fn encode(
        &mut self,
        direction: Direction,
        set: FieldSet,
        values: &FieldValues,
        payload: u32,
    ) -> Deltas {
        let (way, other) = self.ways(direction);
        let deltas = Deltas {
            tcp_seq: values.tcp_seq.wrapping_sub(way.next_seq) as i32,
            tcp_ack: values.tcp_ack.wrapping_sub(other.next_seq) as i32,
            ip_id: values.ip_id.wrapping_sub(way.ip_id).wrapping_sub(1) as i16,
            outer_ip_id: values.outer_ip_id.wrapping_sub(way.outer_ip_id).wrapping_sub(1) as i16,
            tcp_timestamp: values.tcp_timestamp.wrapping_sub(way.timestamp) as i32,
            tcp_echo: values.tcp_echo.wrapping_sub(other.timestamp) as i32,
        };
        self.learn(direction, set, values, payload);
        deltas
    }

    /// Turns differences back into values; `values` holds what is not predicted.
    #[inline]
    pub fn decode(
        &mut self,
        direction: Direction,
        set: FieldSet,
        deltas: &Deltas,
        values: &mut FieldValues,
        payload: u32,
    ) {
        let (way, other) = self.ways(direction);
        values.tcp_seq = way.next_seq.wrapping_add(deltas.tcp_seq as u32);
        values.tcp_ack = other.next_seq.wrapping_add(deltas.tcp_ack as u32);
        values.ip_id = way.ip_id.wrapping_add(1).wrapping_add(deltas.ip_id as u16);
        values.outer_ip_id =
            way.outer_ip_id.wrapping_add(1).wrapping_add(deltas.outer_ip_id as u16);
        values.tcp_timestamp = way.timestamp.wrapping_add(deltas.tcp_timestamp as u32);
        values.tcp_echo = other.timestamp.wrapping_add(deltas.tcp_echo as u32);
        self.learn(direction, set, values, payload);
    }

    #[inline]
    fn ways(&self, direction: Direction) -> (Way, Way) {
        (self.ways[direction as usize], self.ways[direction.reverse() as usize])
    }

    #[inline]
    fn learn(&mut self, direction: Direction, set: FieldSet, values: &FieldValues, payload: u32) {
        let way = &mut self.ways[direction as usize];
        if set.has(FieldKind::TcpSeq) {
            let flags = values.tcp_flags & (tcp_flags::SYN | tcp_flags::FIN);
            let next = values.tcp_seq.wrapping_add(payload).wrapping_add(flags.count_ones());
            // A retransmission does not move what is expected next; a jump of
            // more than half the number space (the first packet) does.
            let ahead = next.wrapping_sub(way.next_seq);
            if ahead < 1 << 31 || way.next_seq == 0 {
                way.next_seq = next;
            }
        }
        if set.has(FieldKind::IpId) {
            way.ip_id = values.ip_id;
        }
        if set.has(FieldKind::OuterIpId) {
            way.outer_ip_id = values.outer_ip_id;
        }
        if set.has(FieldKind::TcpTimestamp) {
            way.timestamp = values.tcp_timestamp;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TCP: FieldSet = FieldSet(0xffff);

    fn without_outer(deltas: Deltas) -> Deltas {
        Deltas { outer_ip_id: 0, ..deltas }
    }

    #[test]
    fn predictions_of_a_steady_conversation_are_exact() {
        let mut predictor = Predictor::default();
        let mut send = |direction, seq, ack, id, payload| {
            let values =
                FieldValues { tcp_seq: seq, tcp_ack: ack, ip_id: id, ..Default::default() };
            predictor.encode(direction, TCP, &values, payload)
        };
        send(Direction::Forward, 1_000, 5_000, 7, 100);
        send(Direction::Backward, 5_000, 1_100, 40, 0);
        let third = send(Direction::Forward, 1_100, 5_000, 8, 50);
        assert_eq!(without_outer(third), Deltas::default());
        let fourth = send(Direction::Backward, 5_000, 1_150, 41, 10);
        assert_eq!(without_outer(fourth), Deltas::default());
    }

    prop_compose! {
        fn packet()(
            backward: bool, set: u16, seq: u32, ack: u32, flags: u8, ip_id: u16, outer_ip_id: u16,
            timestamp: u32, echo: u32, payload: u32,
        ) -> (bool, FieldSet, FieldValues, u32) {
            // Where a field is not cut out its value is zero, as `cut` leaves it.
            let set = FieldSet(set);
            let has = |kind| u32::from(set.has(kind));
            let values = FieldValues {
                tcp_seq: seq * has(FieldKind::TcpSeq),
                tcp_ack: ack * has(FieldKind::TcpAck),
                tcp_flags: flags,
                ip_id: ip_id * has(FieldKind::IpId) as u16,
                outer_ip_id: outer_ip_id * has(FieldKind::OuterIpId) as u16,
                tcp_timestamp: timestamp * has(FieldKind::TcpTimestamp),
                tcp_echo: echo * has(FieldKind::TcpEcho),
                ..FieldValues::default()
            };
            (backward, set, values, payload)
        }
    }

    proptest! {
        #[test]
        fn predictions_round_trip(packets in prop::collection::vec(packet(), 0..40)) {
            let (mut encoder, mut decoder) = (Predictor::default(), Predictor::default());
            for (backward, set, values, payload) in packets {
                let direction = if backward { Direction::Backward } else { Direction::Forward };
                let deltas = encoder.encode(direction, set, &values, payload);
                let mut back = FieldValues { tcp_flags: values.tcp_flags, ..FieldValues::default() };
                decoder.decode(direction, set, &deltas, &mut back, payload);
                prop_assert_eq!(back, values);
            }
        }
    }
}
