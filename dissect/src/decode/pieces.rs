//! Lists the datagrams whose first fragment is in a packet.

use capstan_model::headers::{Datagram, Fragment};
use capstan_model::{Headers, LinkType};

use super::{Fold, State};
use crate::walk::{HeaderKind, Visit, Walk};

/// Calls `visit` with each datagram whose first fragment is in a packet, outer datagrams of tunnels
/// included: their later fragments have none of the inner headers. There are some if
/// [`Headers::outer_fragments`] is set, or [`Headers::fragment`] with the offset 0.
pub fn first_fragments(
    link: LinkType,
    data: &[u8],
    wire_length: u32,
    mut visit: impl FnMut(Datagram),
) {
    let mut headers = Headers::default();
    let mut fold = Fold { headers: &mut headers, state: State::default() };
    for header in Walk::new(link, data, wire_length) {
        fold.header(header, data.len());
        // Later fragments are identified by the headers up to here. Inner headers would add to that.
        let begins = |fragment: Option<Fragment>| fragment.is_some_and(|piece| piece.offset == 0);
        if let HeaderKind::Ipv4 { fragment, .. } | HeaderKind::FragmentExtension { fragment, .. } =
            header.kind
            && begins(fragment)
            && let Some(datagram) = fold.headers.datagram()
        {
            visit(datagram);
        }
    }
}
