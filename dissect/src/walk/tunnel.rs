//! VXLAN, GENEVE, GRE and ERSPAN: headers that carry another packet.

use super::link::{ethertype, named};
use super::{HeaderKind, Next, Stop, Visit, Walk};

/// UDP ports of tunnels. 8472 is the default of Linux for VXLAN, and that of flannel and Cilium.
mod port {
    pub(super) const VXLAN: u16 = 4789;
    pub(super) const VXLAN_LINUX: u16 = 8472;
    pub(super) const GENEVE: u16 = 6081;
}

/// GRE flag bits (RFC 2784, 2890, 1701 for routing).
mod gre {
    pub(super) const CHECKSUM: u16 = 0x8000;
    pub(super) const ROUTING: u16 = 0x4000;
    pub(super) const KEY: u16 = 0x2000;
    pub(super) const SEQUENCE: u16 = 0x1000;
    /// Acknowledgement present, version 1 only.
    pub(super) const ACKNOWLEDGEMENT: u16 = 0x0080;
    pub(super) const VERSION: u16 = 0x0007;
}

impl Walk<'_> {
    #[inline]
    pub(super) fn by_port(&mut self, visit: &mut impl Visit, port: u16) -> Result<Next, Stop> {
        match port {
            port::VXLAN | port::VXLAN_LINUX => self.vxlan(visit),
            port::GENEVE => self.geneve(visit),
            _ => Err(Stop::Payload),
        }
    }

    /// A datagram sent to a tunnel's port may be something else: it is a tunnel
    /// header only if the bits that must be so are so.
    fn vxlan(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        const VNI_IS_VALID: u8 = 0x08;
        let header = self.tunnel_header()?;
        if header[0] & VNI_IS_VALID == 0 {
            return Err(Stop::Payload);
        }
        self.give(
            visit,
            8,
            HeaderKind::Vxlan { vni: u32::from_be_bytes([0, header[4], header[5], header[6]]) },
        )?;
        Ok(Next::Ethernet)
    }

    fn geneve(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let header = self.tunnel_header()?;
        let version = header[0] >> 6;
        let length = 8 + usize::from(header[0] & 0x3f) * 4;
        if version != 0 {
            return Err(Stop::Payload);
        }
        self.check(length)?;
        let ethertype = u16::from_be_bytes([header[2], header[3]]);
        self.note_ethertype(ethertype);
        self.give(
            visit,
            length,
            HeaderKind::Geneve { vni: u32::from_be_bytes([0, header[4], header[5], header[6]]) },
        )?;
        named(ethertype)
    }

    /// The 8 bytes VXLAN and GENEVE begin with. A datagram that is shorter by
    /// its own account is no tunnel; one that was cut is.
    fn tunnel_header(&self) -> Result<[u8; 8], Stop> {
        if self.limit < self.offset.saturating_add(8) {
            return Err(Stop::Payload);
        }
        self.need::<8>().copied()
    }

    pub(super) fn gre(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let &[a, b, c, d] = self.need::<4>()?;
        let (flags, ethertype) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        match flags & gre::VERSION {
            0 => self.gre_version0(visit, flags, ethertype),
            1 => self.gre_version1(visit, flags, ethertype),
            _ => Err(Stop::Payload),
        }
    }

    fn gre_version0(
        &mut self,
        visit: &mut impl Visit,
        flags: u16,
        ethertype: u16,
    ) -> Result<Next, Stop> {
        if flags & gre::ROUTING != 0 {
            // Source routes (RFC 1701) are a list of unknown length nobody sends.
            return Err(Stop::Payload);
        }
        let mut length = 4;
        if flags & gre::CHECKSUM != 0 {
            length += 4;
        }
        let key_at = length;
        if flags & gre::KEY != 0 {
            length += 4;
        }
        if flags & gre::SEQUENCE != 0 {
            length += 4;
        }
        self.check(length)?;
        let key = match flags & gre::KEY {
            0 => None,
            _ => capstan_model::bytes::be32(self.data, self.offset + key_at),
        };
        let state = match (ethertype, flags & gre::SEQUENCE) {
            // Type I has no header of its own, and no sequence number either.
            (ethertype::ERSPAN, 0) => Ok(Next::Ethernet),
            (ethertype::ERSPAN, _) => Ok(Next::Erspan2),
            (ethertype::ERSPAN3, _) => Ok(Next::Erspan3),
            _ => named(ethertype),
        };
        self.note_ethertype(ethertype);
        self.give(visit, length, HeaderKind::Gre { key })?;
        state
    }

    /// PPTP's variant: the key is a length and a call number, which differ by
    /// packet and direction, so it is no identifier of a network.
    fn gre_version1(
        &mut self,
        visit: &mut impl Visit,
        flags: u16,
        ethertype: u16,
    ) -> Result<Next, Stop> {
        let mut length = 8;
        let has_payload = flags & gre::SEQUENCE != 0;
        if has_payload {
            length += 4;
        }
        if flags & gre::ACKNOWLEDGEMENT != 0 {
            length += 4;
        }
        self.check(length)?;
        let state = match ethertype {
            ethertype::PPP if has_payload => Ok(Next::Ppp),
            // Clouds send IP in this version, too.
            _ => named(ethertype),
        };
        self.note_ethertype(ethertype);
        self.give(visit, length, HeaderKind::Gre { key: None })?;
        state
    }

    pub(super) fn erspan2(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let kind = erspan(self.need::<8>()?);
        self.give(visit, 8, kind)?;
        Ok(Next::Ethernet)
    }

    /// The last bit of the header announces 8 bytes more; the field before it
    /// says what kind of frame follows, 0 being Ethernet.
    pub(super) fn erspan3(&mut self, visit: &mut impl Visit) -> Result<Next, Stop> {
        let header = self.need::<12>()?;
        let flags = u16::from_be_bytes([header[10], header[11]]);
        let length = if flags & 1 == 1 { 20 } else { 12 };
        self.check(length)?;
        let state = match (flags >> 10) & 0x1f {
            0 => Ok(Next::Ethernet),
            2 => Ok(Next::Ip),
            _ => Err(Stop::Payload),
        };
        self.give(visit, length, erspan(header))?;
        state
    }
}

/// What the first four bytes of both kinds of ERSPAN header say.
fn erspan<const N: usize>(header: &[u8; N]) -> HeaderKind {
    let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    HeaderKind::Erspan { session: half(2) & 0x03ff, vlan: half(0) & 0x0fff }
}
