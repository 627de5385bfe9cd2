//! Addresses as they are stored: always 16 bytes, IPv4 mapped into IPv6.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IPv4 (as `::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2) or IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// No address: what a packet without a network layer has.
    pub const NONE: Address = Address([0; 16]);

    /// Maps four bytes of IPv4.
    pub fn v4(bytes: [u8; 4]) -> Self {
        let mut all = [0; 16];
        all[10] = 0xff;
        all[11] = 0xff;
        all[12..].copy_from_slice(&bytes);
        Address(all)
    }

    /// Takes sixteen bytes of IPv6 as they are.
    pub fn v6(bytes: [u8; 16]) -> Self {
        Address(bytes)
    }

    /// The address as the standard library knows it, mapped ones as IPv4.
    pub fn ip(self) -> IpAddr {
        Ipv6Addr::from(self.0).to_canonical()
    }
}

/// The sixteen bytes.
impl AsRef<[u8]> for Address {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Address::v4(v4.octets()),
            IpAddr::V6(v6) => Address(v6.octets()),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(ip: Ipv4Addr) -> Self {
        Address::v4(ip.octets())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl FromStr for Address {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<IpAddr>().map(Address::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in ["10.0.0.1", "255.255.255.255", "::1", "2001:db8::7"] {
            let address: Address = text.parse().expect("an address");
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_one() {
        let mapped: Address = "::ffff:10.0.0.1".parse().expect("an address");
        assert_eq!(mapped, Address::v4([10, 0, 0, 1]));
    }
}
