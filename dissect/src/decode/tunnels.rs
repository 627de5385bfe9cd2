//! Lists the tunnels of a packet.

use capstan_model::headers::{Network, Outer, Tunnel};
use capstan_model::{Headers, LinkType};

use super::{Fold, State};
use crate::walk::{HeaderKind, Visit, Walk};

/// Calls `visit` with the ends of every tunnel that a packet is in, outermost first. There are more than one if
/// [`Headers::between`] is set; at most [`crate::walk::MAX_IP_HEADERS`] less one.
pub fn tunnels(link: LinkType, data: &[u8], wire_length: u32, mut visit: impl FnMut(Outer)) {
    let mut headers = Headers::default();
    let mut fold = Fold { headers: &mut headers, state: State::default() };
    for header in Walk::new(link, data, wire_length) {
        let is_network = matches!(
            header.kind,
            HeaderKind::Ipv4 { .. }
                | HeaderKind::Ipv6 { .. }
                | HeaderKind::Arp { addresses: Some(_) }
        );
        // The network header before this one is that of a tunnel.
        if is_network && matches!(fold.headers.network, Network::V4 | Network::V6) {
            visit(Outer {
                source: fold.headers.source,
                destination: fold.headers.destination,
                source_port: fold.headers.source_port,
                destination_port: fold.headers.destination_port,
                tunnel: fold.state.tunnel.unwrap_or(Tunnel::IpInIp),
            });
        }
        fold.header(header, data.len());
    }
}
