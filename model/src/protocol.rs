//! The application protocol label that is indexed at record time.

use std::fmt;
use std::str::FromStr;

macro_rules! protocols {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// The protocol of a flow, detected from its first bytes and its ports. The number is stored and never
        /// changes its meaning; new ones are added at the end.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        #[repr(u8)]
        pub enum Protocol {
            /// Not known (yet).
            #[default]
            Unknown = 0,
            $($(#[$doc])* $name = $number,)*
        }

        impl Protocol {
            /// Every label, by number.
            pub const ALL: &'static [Protocol] = &[Protocol::Unknown, $(Protocol::$name,)*];

            /// The name used in SQL, filters and the index.
            pub fn name(self) -> &'static str {
                match self {
                    Protocol::Unknown => "unknown",
                    $(Protocol::$name => $text,)*
                }
            }
        }
    };
}

protocols! {
    /// ARP.
    Arp = 1, "arp";
    /// ICMP and ICMPv6.
    Icmp = 2, "icmp";
    /// TCP whose content is not recognised.
    Tcp = 3, "tcp";
    /// UDP whose content is not recognised.
    Udp = 4, "udp";
    /// SCTP.
    Sctp = 5, "sctp";
    /// HTTP/1.0 and HTTP/1.1.
    Http = 6, "http";
    /// HTTP/2 in the clear (prior knowledge or upgrade).
    Http2 = 7, "http2";
    /// TLS.
    Tls = 8, "tls";
    /// DNS over UDP or TCP.
    Dns = 9, "dns";
    /// Redis.
    Redis = 10, "redis";
    /// Apache Kafka.
    Kafka = 11, "kafka";
    /// AMQP 0-9-1 and 1.0.
    Amqp = 12, "amqp";
    /// MySQL and MariaDB.
    Mysql = 13, "mysql";
    /// PostgreSQL.
    Postgresql = 14, "postgresql";
    /// MongoDB.
    Mongodb = 15, "mongodb";
    /// QUIC.
    Quic = 16, "quic";
    /// Any other IP protocol.
    Ip = 17, "ip";
}

impl Protocol {
    /// The label with this number; [`Protocol::Unknown`] for one this version does not know.
    pub fn from_number(number: u8) -> Protocol {
        Protocol::ALL.get(usize::from(number)).copied().unwrap_or_default()
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No protocol has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a protocol Capstan labels; known are: {known}", known = known())]
pub struct UnknownProtocol(pub String);

fn known() -> String {
    let names: Vec<_> = Protocol::ALL.iter().map(|protocol| protocol.name()).collect();
    names.join(", ")
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        let lower = match lower.as_str() {
            "http1" | "http/1" | "http/1.1" => "http",
            "h2" | "h2c" | "http/2" => "http2",
            "postgres" => "postgresql",
            "mongo" => "mongodb",
            other => other,
        };
        Protocol::ALL
            .iter()
            .copied()
            .find(|protocol| protocol.name() == lower)
            .ok_or_else(|| UnknownProtocol(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_round_trip() {
        for (number, protocol) in Protocol::ALL.iter().enumerate() {
            assert_eq!(*protocol as usize, number);
            assert_eq!(Protocol::from_number(number as u8), *protocol);
            assert_eq!(protocol.name().parse(), Ok(*protocol));
        }
        assert_eq!(Protocol::from_number(255), Protocol::Unknown);
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = "gopher".parse::<Protocol>().expect_err("no such protocol");
        assert!(error.to_string().contains("redis"));
    }
}
