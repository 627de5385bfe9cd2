//! Link headers, VLAN tags, LLC, MPLS and PPP.

use capstan_model::LinkType;

use super::{HeaderKind, Next, Stop, Visit, Walk};
use capstan_model::bytes::be16;

/// Ethertypes that are decoded.
pub(in crate::walk) mod ethertype {
    pub(in crate::walk) const IPV4: u16 = 0x0800;
    pub(in crate::walk) const ARP: u16 = 0x0806;
    /// Reverse ARP (RFC 903): packets of the same form.
    pub(in crate::walk) const REVERSE_ARP: u16 = 0x8035;
    pub(in crate::walk) const ETHERNET: u16 = 0x6558;
    pub(in crate::walk) const VLAN: u16 = 0x8100;
    pub(in crate::walk) const IPV6: u16 = 0x86dd;
    pub(in crate::walk) const PPP: u16 = 0x880b;
    pub(in crate::walk) const MPLS: u16 = 0x8847;
    pub(in crate::walk) const MPLS_MULTICAST: u16 = 0x8848;
    pub(in crate::walk) const PPPOE_SESSION: u16 = 0x8864;
    pub(in crate::walk) const SERVICE_VLAN: u16 = 0x88a8;
    pub(in crate::walk) const ERSPAN: u16 = 0x88be;
    pub(in crate::walk) const ERSPAN3: u16 = 0x22eb;
    pub(in crate::walk) const OLD_VLAN: u16 = 0x9100;
}

/// Smaller values in an ethertype's place are lengths (IEEE 802.3 clause 3.2.6).
const SMALLEST_ETHERTYPE: u16 = 0x0600;

impl Walk<'_> {
    #[inline]
    pub(super) fn link(&mut self, visit: &mut impl Visit, link: LinkType) -> Result<Next, Stop> {
        match link {
            LinkType::ETHERNET => self.ethernet(visit),
            LinkType::LINUX_SLL => self.cooked(visit, 16, 14),
            LinkType::LINUX_SLL2 => self.cooked(visit, 20, 0),
            LinkType::NULL | LinkType::LOOP => self.loopback(visit),
            LinkType::RAW | LinkType::RAW_BSD | LinkType::RAW_OPENBSD => self.ip(visit),
            LinkType::IPV4 => self.ipv4(visit),
            LinkType::IPV6 => self.ipv6(visit),
            LinkType::PPP | LinkType::PPP_HDLC => self.framed_ppp(visit),
            LinkType::PPP_ETHER => self.pppoe(visit),
            _ => Err(Stop::Payload),
        }
    }

    #[inline]
    pub(super) fn ethernet(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let header = self.need::<14>()?;
        let ethertype = u16::from_be_bytes([header[12], header[13]]);
        self.note_ethertype(ethertype);
        self.give(visit, 14, HeaderKind::Link)?;
        Ok(Next::Ethertype(ethertype))
    }

    /// Linux cooked capture: `length` bytes with the protocol at `protocol_at`.
    /// What stands there is an ethertype, or a Linux number below 0x600 of
    /// which only 4 (LLC) is decoded.
    fn cooked(
        &mut self,
        visit: &mut impl Visit,
        length: usize,
        protocol_at: usize,
    ) -> Result<Next, Stop> {
        self.check(length)?;
        let protocol = be16(self.data, self.offset + protocol_at).ok_or(Stop::Truncated)?;
        let state = if protocol == 4 { Ok(Next::Llc) } else { named(protocol) };
        self.note_ethertype(protocol);
        self.give(visit, length, HeaderKind::Link)?;
        state
    }

    /// BSD loopback: an address family of four bytes, in the byte order of the host that captured
    /// (NULL) or of the network (LOOP). All families are small, so the order tells itself. Old
    /// versions of libpcap put an ethertype there.
    fn loopback(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let family = *self.need::<4>()?;
        let family = u32::from_le_bytes(family).min(u32::from_be_bytes(family));
        let state = match family {
            2 => Ok(Next::Ipv4),
            // NetBSD and OpenBSD, FreeBSD, Darwin.
            24 | 28 | 30 => Ok(Next::Ipv6),
            // Linux, Windows; BSD has other protocols under these numbers.
            10 | 23 if self.peek(4).is_none_or(|byte| byte >> 4 == 6) => Ok(Next::Ipv6),
            _ => u16::try_from(family).map_or(Err(Stop::Payload), named),
        };
        if let Ok(Next::Ethertype(ethertype)) = state {
            self.note_ethertype(ethertype);
        }
        self.give(visit, 4, HeaderKind::Link)?;
        state
    }

    #[inline]
    pub(super) fn by_ethertype(
        &mut self,
        visit: &mut impl Visit,
        ethertype: u16,
    ) -> Result<Next, Stop> {
        match ethertype {
            ethertype::IPV4 => self.ipv4(visit),
            ethertype::IPV6 => self.ipv6(visit),
            ethertype::ARP | ethertype::REVERSE_ARP => self.arp(visit),
            ethertype::VLAN | ethertype::SERVICE_VLAN | ethertype::OLD_VLAN => self.vlan(visit),
            ethertype::MPLS | ethertype::MPLS_MULTICAST => self.mpls(visit),
            ethertype::PPPOE_SESSION => self.pppoe(visit),
            ethertype::ETHERNET => self.ethernet(visit),
            ethertype::PPP => self.ppp(visit),
            0..SMALLEST_ETHERTYPE => {
                // The length names the end: what follows is padding.
                self.limit = self.limit.min(self.offset + usize::from(ethertype));
                self.llc(visit)
            }
            _ => Err(Stop::Payload),
        }
    }

    fn vlan(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let tag = self.need::<4>()?;
        let ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        self.note_ethertype(ethertype);
        self.give(
            visit,
            4,
            HeaderKind::Vlan { id: u16::from_be_bytes([tag[0], tag[1]]) & 0x0fff },
        )?;
        Ok(Next::Ethertype(ethertype))
    }

    /// LLC is a header of its own only with SNAP behind it and an ethertype in
    /// that; everything else on LLC is payload.
    pub(super) fn llc(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        match self.need::<8>() {
            Ok(&[0xaa, 0xaa, 0x03, 0x00, 0x00, oui, high, low]) if oui == 0x00 || oui == 0xf8 => {
                let ethertype = u16::from_be_bytes([high, low]);
                self.note_ethertype(ethertype);
                self.give(visit, 8, HeaderKind::Snap)?;
                named(ethertype)
            }
            _ => Err(Stop::Payload),
        }
    }

    pub(super) fn mpls(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let entry = u32::from_be_bytes(*self.need::<4>()?);
        let bottom = entry & 0x100 != 0;
        self.give(visit, 4, HeaderKind::Mpls { label: entry >> 12 })?;
        Ok(if bottom { Next::MplsPayload } else { Next::Mpls })
    }

    /// After the bottom of the stack nothing says what follows. IP tells itself
    /// by its version; a pseudowire carries Ethernet, with a control word that
    /// begins with a zero nibble or without one (RFC 4928 section 3).
    pub(super) fn mpls_payload(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let first = self.peek(0).ok_or(Stop::Truncated)?;
        let fits = |length: u16| self.offset.saturating_add(usize::from(length)) <= self.limit;
        let length_at = |at| be16(self.data, self.offset + at);
        match first >> 4 {
            0 if self.surely_ethernet(4) => {
                self.need::<4>()?;
                self.give(visit, 4, HeaderKind::ControlWord)?;
                Ok(Next::Ethernet)
            }
            4 if length_at(2).is_none_or(fits) => self.ipv4(visit),
            6 if length_at(4).is_none_or(fits) => self.ipv6(visit),
            _ if self.surely_ethernet(0) => self.ethernet(visit),
            _ => Err(Stop::Payload),
        }
    }

    /// Whether `skip` bytes further stands an Ethernet header whose ethertype
    /// the bytes behind it bear out.
    fn surely_ethernet(&self, skip: usize) -> bool {
        let mut at = self.offset.saturating_add(skip).saturating_add(12);
        for _ in 0..3 {
            let (Some(ethertype), Some(byte)) = (be16(self.data, at), self.data.get(at + 2)) else {
                return false;
            };
            match ethertype {
                ethertype::IPV4 => return (0x45..=0x4f).contains(byte),
                ethertype::IPV6 => return byte >> 4 == 6,
                ethertype::ARP => {
                    let hardware_and_protocol = self.data.get(at + 2..at + 6);
                    return hardware_and_protocol == Some(&[0x00, 0x01, 0x08, 0x00]);
                }
                ethertype::VLAN | ethertype::SERVICE_VLAN => at += 4,
                _ => return false,
            }
        }
        false
    }

    fn pppoe(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let header = self.need::<6>()?;
        let [version_and_type, code, _, _, high, low] = *header;
        if version_and_type != 0x11 {
            return Err(Stop::Malformed);
        }
        // Codes other than 0 are discovery, which carries no packets.
        let state = if code == 0 { Ok(Next::PppProtocol) } else { Err(Stop::Payload) };
        let end = self.offset + 6 + usize::from(u16::from_be_bytes([high, low]));
        self.limit = self.limit.min(end);
        self.give(visit, 6, HeaderKind::Pppoe)?;
        state
    }

    /// Address and control fields (all stations, unnumbered information) may
    /// have been agreed away.
    pub(super) fn ppp(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        match (self.peek(0), self.peek(1)) {
            (Some(0xff), Some(0x03)) => {
                self.need::<2>()?;
                self.ppp_from(visit, 2)
            }
            _ => self.ppp_from(visit, 0),
        }
    }

    pub(super) fn ppp_protocol(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        self.ppp_from(visit, 0)
    }

    /// PPP in HDLC-like framing, or Cisco's framing with an ethertype, told
    /// apart by the address byte.
    fn framed_ppp(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        match *self.need::<4>()? {
            [0x0f | 0x8f, 0x00, high, low] => {
                let ethertype = u16::from_be_bytes([high, low]);
                self.note_ethertype(ethertype);
                self.give(visit, 4, HeaderKind::Link)?;
                named(ethertype)
            }
            _ => self.ppp(visit),
        }
    }

    /// The protocol field `skip` bytes further: two bytes, or one odd one where
    /// compression was agreed (RFC 1661 section 6.5).
    fn ppp_from(&mut self, visit: &mut impl Visit, skip: usize) -> Result<Next, Stop> {
        let first = self.peek(skip).ok_or(Stop::Truncated)?;
        let (protocol, length) = if first & 1 == 1 {
            (u16::from(first), skip + 1)
        } else {
            let second = self.peek(skip + 1).ok_or(Stop::Truncated)?;
            (u16::from_be_bytes([first, second]), skip + 2)
        };
        self.check(length)?;
        let state = match protocol {
            0x0021 => Ok(Next::Ipv4),
            0x0057 => Ok(Next::Ipv6),
            0x0281 | 0x0283 => Ok(Next::Mpls),
            _ => Err(Stop::Payload),
        };
        self.give(visit, length, HeaderKind::Link)?;
        state
    }

    #[inline]
    pub(super) fn note_ethertype(&mut self, value: u16) {
        if value >= SMALLEST_ETHERTYPE {
            self.ethertype = value;
        }
    }
}

/// What an ethertype leads to where a length cannot stand in its place.
#[inline]
pub(super) fn named(ethertype: u16) -> Result<Next, Stop> {
    match ethertype {
        SMALLEST_ETHERTYPE.. => Ok(Next::Ethertype(ethertype)),
        _ => Err(Stop::Payload),
    }
}
