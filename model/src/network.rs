//! Blocks of addresses, in CIDR notation (RFC 4632, RFC 4291 section 2.3).

use std::fmt;
use std::str::FromStr;

use crate::Address;

/// Bits of an address before the four bytes of a mapped IPv4 address.
const MAPPED: u8 = 96;

/// Bits of an address.
const BITS: u8 = 128;

/// All addresses with the same first bits. A block of IPv4 addresses is the block of their mapped addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    first: Address,
    /// Bits that are the same in all addresses, of 128.
    bits: u8,
}

/// Why a text is no block of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It does not start with an address.
    #[error("'{0}' is not an IP address or a network such as 10.0.0.0/8")]
    Address(String),
    /// The text after the slash is not a number, or the number is too large.
    #[error("'{text}': the length after the slash is a number from 0 to {most}")]
    Length {
        /// The text.
        text: String,
        /// The largest length for such an address.
        most: u8,
    },
    /// The address has bits after the prefix.
    #[error("'{text}' is an address inside of the network {network}: write the network")]
    Inside {
        /// The text.
        text: String,
        /// The network that the address is in.
        network: Network,
    },
}

impl Network {
    /// The block that an address is in: the addresses with the same first `bits` bits, of 128. More bits than there
    /// are mean all.
    pub fn of(address: Address, bits: u8) -> Self {
        let bits = bits.min(BITS);
        let first = Address((u128::from_be_bytes(address.0) & mask(bits)).to_be_bytes());
        Network { first, bits }
    }

    /// Its first address.
    pub fn first(&self) -> Address {
        self.first
    }

    /// Its last address.
    pub fn last(&self) -> Address {
        Address((u128::from_be_bytes(self.first.0) | !mask(self.bits)).to_be_bytes())
    }

    /// How many bits its addresses share, of 128: 96 more than IPv4 notation says.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: Address) -> bool {
        Network::of(address, self.bits) == *self
    }

    /// The one address in it; none if it has several.
    pub fn address(&self) -> Option<Address> {
        (self.bits == BITS).then_some(self.first)
    }

    /// The block with exactly the addresses from the first to the last one; none if no block is.
    pub fn between(first: Address, last: Address) -> Option<Self> {
        let [low, high] = [first, last].map(|address| u128::from_be_bytes(address.0));
        // At most 128 bits.
        let network = Network::of(first, (low ^ high).leading_zeros() as u8);
        (network.first == first && network.last() == last).then_some(network)
    }
}

fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(u32::from(BITS - bits)).unwrap_or(0)
}

impl From<Address> for Network {
    fn from(address: Address) -> Self {
        Network { first: address, bits: BITS }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_v4 = self.first.ip().is_ipv4() && self.bits >= MAPPED;
        match self.bits {
            BITS => self.first.fmt(f),
            bits if is_v4 => write!(f, "{}/{}", self.first, bits - MAPPED),
            // The standard library writes the first address of a block round the mapped ones as IPv4.
            bits => write!(f, "{}/{bits}", std::net::Ipv6Addr::from(self.first.0)),
        }
    }
}

/// An address, or an address and the length of a prefix: `10.0.0.0/8`, `2001:db8::/32`.
impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let ip: std::net::IpAddr =
            address.parse().map_err(|_| NetworkError::Address(text.to_owned()))?;
        let address = Address::from(ip);
        let Some(length) = length else { return Ok(Network::from(address)) };
        let (before, most) = if ip.is_ipv4() { (MAPPED, BITS - MAPPED) } else { (0, BITS) };
        let digits = length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse::<u8>().ok().filter(|length| digits && *length <= most);
        let Some(length) = length else {
            return Err(NetworkError::Length { text: text.to_owned(), most });
        };
        let network = Network::of(address, before + length);
        if network.first != address {
            return Err(NetworkError::Inside { text: text.to_owned(), network });
        }
        Ok(network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect(text)
    }

    #[test]
    fn text_goes_there_and_back() {
        for text in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "10.1.2.3",
            "10.1.2.2/31",
            "2001:db8::/32",
            "::/0",
            "::1",
            "::ffc0:0:0/90",
        ] {
            assert_eq!(network(text).to_string(), text);
        }
        assert_eq!(network("10.1.2.3/32"), network("10.1.2.3"));
        assert_eq!(network("::ffff:10.0.0.0/104"), network("10.0.0.0/8"));
    }

    #[test]
    fn it_has_the_addresses_with_its_first_bits() {
        let block = network("10.244.0.0/16");
        assert_eq!(block.first(), Address::v4([10, 244, 0, 0]));
        assert_eq!(block.last(), Address::v4([10, 244, 255, 255]));
        assert!(block.contains(Address::v4([10, 244, 7, 9])));
        assert!(!block.contains(Address::v4([10, 245, 0, 0])));
        assert!(!block.contains("2001:db8::1".parse().expect("an address")));
        assert!(network("0.0.0.0/0").contains(Address::v4([1, 2, 3, 4])));
        assert!(!network("0.0.0.0/0").contains("2001:db8::1".parse().expect("an address")));
        assert!(network("::/0").contains(Address::v4([1, 2, 3, 4])));
        assert_eq!(network("::/0").last(), Address([0xff; 16]));
    }

    #[test]
    fn a_range_is_a_block_or_none() {
        for text in ["10.0.0.0/8", "::/0", "10.1.2.3", "2001:db8::/33"] {
            let block = network(text);
            assert_eq!(Network::between(block.first(), block.last()), Some(block), "{text}");
        }
        let v4 = |last| Address::v4([10, 0, 0, last]);
        assert_eq!(Network::between(v4(1), v4(2)), None);
        assert_eq!(Network::between(v4(0), v4(2)), None);
        assert_eq!(Network::between(v4(2), v4(0)), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("", "not an IP address"),
            ("10.0.0/8", "not an IP address"),
            ("shop/8", "not an IP address"),
            ("10.0.0.0/", "0 to 32"),
            ("10.0.0.0/33", "0 to 32"),
            ("10.0.0.0/+8", "0 to 32"),
            ("10.0.0.0/8/8", "0 to 32"),
            ("10.0.0.0/-1", "0 to 32"),
            ("::/129", "0 to 128"),
            ("10.0.0.1/8", "network 10.0.0.0/8"),
            ("2001:db8::1/32", "network 2001:db8::/32"),
        ] {
            let error = text.parse::<Network>().expect_err(text);
            assert!(error.to_string().contains(word), "{text}: {error}");
        }
    }
}
