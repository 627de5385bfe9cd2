//! TCP, UDP, SCTP and ICMP.

use capstan_model::headers::Tcp;

use super::{HeaderKind, Next, Stop, Visit, Walk};

/// TCP option kinds (RFC 9293 section 3.1, RFC 7323 section 3.2).
const OPTION_END: u8 = 0;
const OPTION_NONE: u8 = 1;
const OPTION_TIMESTAMP: u8 = 8;
const TIMESTAMP_LENGTH: u8 = 10;

impl Walk<'_> {
    #[inline]
    pub(super) fn tcp(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let header = match self.need::<20>() {
            Ok(header) => header,
            Err(stop) => return Err(self.ports_alone(visit, stop)),
        };
        let length = usize::from(header[12] >> 4) * 4;
        let whole = if length < 20 { Err(Stop::Malformed) } else { self.check(length) };
        if let Err(stop) = whole {
            return Err(self.ports_alone(visit, stop));
        }
        let start = self.offset;
        let options = self.data.get(start + 20..start + length).unwrap_or_default();
        let timestamp = timestamp_option(options).map(|at| start + 20 + at);
        let kind = HeaderKind::Tcp {
            source_port: u16::from_be_bytes([header[0], header[1]]),
            destination_port: u16::from_be_bytes([header[2], header[3]]),
            tcp: Tcp {
                seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
                ack: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
                flags: header[13],
                window: u16::from_be_bytes([header[14], header[15]]),
            },
            timestamp,
        };
        self.give(visit, length, kind)?;
        Err(Stop::Payload)
    }

    #[inline]
    pub(super) fn udp(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let header = match self.need::<8>() {
            Ok(header) => header,
            Err(stop) => return Err(self.ports_alone(visit, stop)),
        };
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        // 0: a jumbogram or offload, as in IP. Longer than the IP packet is
        // right in a first fragment; elsewhere it is odd, but the ports stand.
        if length != 0 && length < 8 {
            return Err(self.ports_alone(visit, Stop::Malformed));
        }
        let destination_port = u16::from_be_bytes([header[2], header[3]]);
        self.give(
            visit,
            8,
            HeaderKind::Udp {
                source_port: u16::from_be_bytes([header[0], header[1]]),
                destination_port,
            },
        )?;
        Ok(Next::UdpPayload(destination_port))
    }

    pub(super) fn sctp(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let header = match self.need::<12>() {
            Ok(header) => header,
            Err(stop) => return Err(self.ports_alone(visit, stop)),
        };
        self.give(
            visit,
            12,
            HeaderKind::Sctp {
                source_port: u16::from_be_bytes([header[0], header[1]]),
                destination_port: u16::from_be_bytes([header[2], header[3]]),
            },
        )?;
        Err(Stop::Payload)
    }

    /// Shows the ports at the front of a header that is cut, or cannot be right: they are what a
    /// filter on ports looks at, and a first fragment may end behind them. The header stays payload.
    #[cold]
    fn ports_alone(&mut self, visit: &mut impl Visit, stop: Stop) -> Stop {
        let Ok(&[high, low, other_high, other_low]) = self.need::<4>() else {
            return stop;
        };
        let kind = HeaderKind::Ports {
            source_port: u16::from_be_bytes([high, low]),
            destination_port: u16::from_be_bytes([other_high, other_low]),
        };
        self.give(visit, 0, kind).err().unwrap_or(stop)
    }

    /// Type, code and checksum; the rest is per message and payload. The echo
    /// identifier is looked up there because it tells pings apart.
    pub(super) fn icmp(
        &mut self,
        visit: &mut impl Visit,
        echo_types: [u8; 2],
    ) -> Result<Next, Stop> {
        let header = self.need::<4>()?;
        let echo = match (echo_types.contains(&header[0]), self.peek(4), self.peek(5)) {
            (true, Some(high), Some(low)) => Some(u16::from_be_bytes([high, low])),
            _ => None,
        };
        self.give(visit, 4, HeaderKind::Icmp { echo })?;
        Err(Stop::Payload)
    }
}

/// Offset of the time stamp's value within the options.
#[inline]
fn timestamp_option(options: &[u8]) -> Option<usize> {
    // The way nearly every sender lays it out (RFC 7323 appendix A).
    if let [OPTION_NONE, OPTION_NONE, OPTION_TIMESTAMP, TIMESTAMP_LENGTH, rest @ ..] = options {
        return (rest.len() >= 8).then_some(4);
    }
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        match kind {
            OPTION_END => return None,
            OPTION_NONE => at += 1,
            _ => {
                let length = *options.get(at + 1)?;
                let end = at + usize::from(length);
                if length < 2 || end > options.len() {
                    return None;
                }
                if kind == OPTION_TIMESTAMP && length == TIMESTAMP_LENGTH {
                    return Some(at + 2);
                }
                at = end;
            }
        }
    }
    None
}
