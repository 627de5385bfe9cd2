//! Application protocol label of a flow, from the first payload bytes of one direction and the ports.
//!
//! Content beats ports. Each protocol has a strict test for any port, and some have a looser one for
//! the protocol's own port only. Bytes that pass neither have no label. A wrong label in the index
//! misleads every later query, while a missing one only makes queries slower.
//!
//! The label describes the bytes at hand. HTTP/1 that is upgraded to HTTP/2 is [`Protocol::Http`] by
//! its request and [`Protocol::Http2`] by its response.

mod amqp;
mod dns;
mod http;
mod http2;
mod kafka;
mod mongodb;
mod mysql;
mod postgresql;
mod quic;
mod redis;
pub mod tls;

use capstan_model::Protocol;
use capstan_model::headers::Network;
use capstan_model::ip_protocol::{TCP, UDP};

pub use tls::{ClientHello, client_hello};

/// The label that the first payload bytes of one direction show; none if they show none.
///
/// `ip_protocol` is the transport: 6 or 17, others have no label of this kind.
/// `payload_from_initiator` says whether the side that opened the flow sent `payload`. The payload
/// may be truncated anywhere.
pub fn label(
    ip_protocol: u8,
    source_port: u16,
    destination_port: u16,
    payload_from_initiator: bool,
    payload: &[u8],
) -> Option<Protocol> {
    let ports = Ports { source: source_port, destination: destination_port };
    match ip_protocol {
        TCP => by_content(payload, payload_from_initiator, ports)
            .or_else(|| by_port(payload, payload_from_initiator, ports)),
        UDP => datagram(payload, ports),
        _ => None,
    }
}

/// The label of a flow whose content is not recognised: its transport.
pub fn fallback(network: Network, ip_protocol: u8) -> Protocol {
    match (network, ip_protocol) {
        (Network::None, _) => Protocol::Unknown,
        (Network::Arp, _) => Protocol::Arp,
        (_, TCP) => Protocol::Tcp,
        (_, UDP) => Protocol::Udp,
        (_, 132) => Protocol::Sctp,
        (Network::V4, 1) | (Network::V6, 58) => Protocol::Icmp,
        _ => Protocol::Ip,
    }
}

#[derive(Clone, Copy)]
struct Ports {
    source: u16,
    destination: u16,
}

impl Ports {
    fn either(self, port: u16) -> bool {
        self.source == port || self.destination == port
    }

    fn any(self, ports: &[u16]) -> bool {
        ports.iter().any(|port| self.either(*port))
    }
}

/// A protocol and a test of payload.
type Test = (Protocol, fn(&[u8]) -> bool);

/// The label of TCP payload by strict tests, on any port.
fn by_content(payload: &[u8], from_initiator: bool, ports: Ports) -> Option<Protocol> {
    const TESTS: [Test; 9] = [
        (Protocol::Tls, tls::is_sure),
        (Protocol::Http2, http2::is_sure),
        (Protocol::Http, http::is_sure),
        (Protocol::Postgresql, postgresql::is_sure),
        (Protocol::Redis, redis::is_sure),
        (Protocol::Mongodb, mongodb::is_sure),
        (Protocol::Amqp, amqp::is_sure),
        (Protocol::Kafka, kafka::is_sure),
        (Protocol::Dns, dns::is_sure_in_stream),
    ];
    // Only a server sends a greeting. If the start of the flow was not captured, the port shows which end is the server.
    if (!from_initiator || ports.source == mysql::PORT) && mysql::is_greeting(payload) {
        return Some(Protocol::Mysql);
    }
    TESTS.iter().find(|(_, is_sure)| is_sure(payload)).map(|(protocol, _)| *protocol)
}

/// The label of TCP payload by looser tests, on the port of the protocol.
fn by_port(payload: &[u8], from_initiator: bool, ports: Ports) -> Option<Protocol> {
    const TESTS: [(&[u16], Test); 8] = [
        (tls::PORTS, (Protocol::Tls, tls::is_plausible)),
        (&[53], (Protocol::Dns, dns::is_plausible_in_stream)),
        (redis::PORTS, (Protocol::Redis, redis::is_plausible)),
        (&[mysql::PORT], (Protocol::Mysql, mysql::is_plausible)),
        (&[postgresql::PORT], (Protocol::Postgresql, postgresql::is_plausible)),
        (&[mongodb::PORT], (Protocol::Mongodb, mongodb::is_plausible)),
        (amqp::PORTS, (Protocol::Amqp, amqp::is_plausible)),
        (http::PORTS, (Protocol::Http, http::is_plausible)),
    ];
    if !from_initiator && ports.either(kafka::PORT) && kafka::is_plausible_answer(payload) {
        return Some(Protocol::Kafka);
    }
    if ports.either(kafka::PORT) && kafka::is_plausible(payload) {
        return Some(Protocol::Kafka);
    }
    TESTS
        .iter()
        .find(|(known, (_, is_plausible))| ports.any(known) && is_plausible(payload))
        .map(|(_, (protocol, _))| *protocol)
}

fn datagram(payload: &[u8], ports: Ports) -> Option<Protocol> {
    // NetBIOS names (RFC 1002) share DNS's message format, not its meaning.
    const NETBIOS_NAMES: u16 = 137;
    if quic::is_sure(payload) {
        return Some(Protocol::Quic);
    }
    let is_dns = if ports.either(53) {
        dns::is_plausible(payload)
    } else {
        !ports.either(NETBIOS_NAMES) && dns::is_sure(payload)
    };
    is_dns.then_some(Protocol::Dns)
}

#[cfg(test)]
mod tests;
