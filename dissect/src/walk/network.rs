//! ARP, IPv4, IPv6 and its extension headers.

use capstan_model::headers::Fragment;
use capstan_model::ip_protocol;

use super::{HeaderKind, MAX_IP_HEADERS, Next, Stop, Visit, Walk};

impl Walk<'_> {
    pub(super) fn arp(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let header = self.need::<8>()?;
        let (hardware, protocol) = (usize::from(header[4]), usize::from(header[5]));
        let is_ipv4 = header[2..4] == [0x08, 0x00] && protocol == 4;
        let length = 8 + 2 * (hardware + protocol);
        self.check(length)?;
        let sender_at = self.offset + 8 + hardware;
        let target_at = sender_at + protocol + hardware;
        let addresses = match (self.four(sender_at), self.four(target_at)) {
            (Some(sender), Some(target)) if is_ipv4 => Some((sender, target)),
            _ => None,
        };
        self.give(visit, length, HeaderKind::Arp { addresses })?;
        Err(Stop::Payload)
    }

    pub(super) fn ip(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        match self.peek(0).ok_or(Stop::Truncated)? >> 4 {
            4 => self.ipv4(visit),
            6 => self.ipv6(visit),
            _ => Err(Stop::Malformed),
        }
    }

    #[inline]
    pub(super) fn ipv4(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let header = self.need::<20>()?;
        let header_length = usize::from(header[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        // A total length of 0 is what segmentation offload leaves in a packet
        // that was captured before the network card cut it: the frame decides.
        if header[0] >> 4 != 4 || header_length < 20 || (total != 0 && total < header_length) {
            return Err(Stop::Malformed);
        }
        self.check(header_length)?;
        self.enter_ip()?;
        if total != 0 {
            self.limit = self.offset + total;
        }
        let flags_and_offset = u16::from_be_bytes([header[6], header[7]]);
        let fragment = fragment(
            u32::from(u16::from_be_bytes([header[4], header[5]])),
            u32::from(flags_and_offset & 0x1fff) * 8,
            flags_and_offset & 0x2000 != 0,
        );
        let protocol = header[9];
        self.give(
            visit,
            header_length,
            HeaderKind::Ipv4 {
                source: u32::from_be_bytes(part(header, 12)),
                destination: u32::from_be_bytes(part(header, 16)),
                protocol,
                fragment,
            },
        )?;
        after_fragment(fragment, Next::Ipv4Payload(protocol))
    }

    #[inline]
    pub(super) fn ipv6(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let header = self.need::<40>()?;
        if header[0] >> 4 != 6 {
            return Err(Stop::Malformed);
        }
        self.enter_ip()?;
        let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
        // 0: a jumbogram (RFC 2675) or offload; the frame decides.
        if payload != 0 {
            self.limit = self.offset + 40 + payload;
        }
        let (source, destination) = (part(header, 8), part(header, 24));
        let protocol = header[6];
        self.give(visit, 40, HeaderKind::Ipv6 { source, destination, protocol })?;
        Ok(Next::Ipv6Payload(protocol))
    }

    #[inline]
    pub(super) fn by_protocol(
        &mut self,
        visit: &mut impl Visit,
        protocol: u8,
        in_ipv6: bool,
    ) -> Result<Next, Stop> {
        match protocol {
            ip_protocol::TCP => self.tcp(visit),
            ip_protocol::UDP => self.udp(visit),
            ip_protocol::SCTP => self.sctp(visit),
            ip_protocol::ICMP if !in_ipv6 => self.icmp(visit, [0, 8]),
            ip_protocol::ICMPV6 if in_ipv6 => self.icmp(visit, [128, 129]),
            ip_protocol::GRE => self.gre(visit),
            ip_protocol::IPV4 => self.ipv4(visit),
            ip_protocol::IPV6 => self.ipv6(visit),
            // Length in units of 4 bytes, not counting two of them (RFC 4302 section 2.2).
            ip_protocol::AUTHENTICATION => self.extension(visit, 4, 8, in_ipv6),
            ip_protocol::HOP_BY_HOP | ip_protocol::ROUTING | ip_protocol::DESTINATION_OPTIONS
                if in_ipv6 =>
            {
                self.extension(visit, 8, 8, true)
            }
            ip_protocol::FRAGMENT if in_ipv6 => self.fragment_extension(visit),
            _ => Err(Stop::Payload),
        }
    }

    /// An extension header whose second byte counts `unit` bytes past `base`.
    fn extension(
        &mut self,
        visit: &mut impl Visit,
        unit: usize,
        base: usize,
        in_ipv6: bool,
    ) -> Result<Next, Stop> {
        let &[protocol, count] = self.need::<2>()?;
        let length = base + usize::from(count) * unit;
        self.check(length)?;
        let next = if in_ipv6 { Next::Ipv6Payload(protocol) } else { Next::Ipv4Payload(protocol) };
        self.give(visit, length, HeaderKind::Extension { protocol })?;
        Ok(next)
    }

    fn fragment_extension(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let &[protocol, _, high, low, a, b, c, d] = self.need::<8>()?;
        let offset_and_more = u16::from_be_bytes([high, low]);
        let fragment = fragment(
            u32::from_be_bytes([a, b, c, d]),
            u32::from(offset_and_more & 0xfff8),
            offset_and_more & 1 != 0,
        );
        self.give(visit, 8, HeaderKind::FragmentExtension { protocol, fragment })?;
        after_fragment(fragment, Next::Ipv6Payload(protocol))
    }

    #[inline]
    fn enter_ip(&mut self) -> Result<(), Stop> {
        if self.ip_headers >= MAX_IP_HEADERS {
            return Err(Stop::TooDeep);
        }
        self.ip_headers += 1;
        Ok(())
    }

    fn four(&self, at: usize) -> Option<[u8; 4]> {
        self.data.get(at..)?.first_chunk().copied()
    }
}

/// `N` bytes of a header of fixed length; `at` is a constant where it is called.
#[inline(always)]
fn part<const N: usize, const M: usize>(header: &[u8; M], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}

/// A datagram whose only piece is itself is none (RFC 6946).
#[inline]
fn fragment(id: u32, offset: u32, more: bool) -> Option<Fragment> {
    (more || offset != 0).then_some(Fragment { id, offset, more })
}

/// A later fragment's data is the middle of something: no header starts there.
#[inline]
fn after_fragment(fragment: Option<Fragment>, next: Next) -> Result<Next, Stop> {
    match fragment {
        Some(Fragment { offset: 1.., .. }) => Err(Stop::Payload),
        _ => Ok(next),
    }
}
