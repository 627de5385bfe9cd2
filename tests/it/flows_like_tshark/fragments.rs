//! IP reassembly, as much of it as stream counts need.

use std::collections::HashMap;

use capstan_dissect::walk::Next;
use capstan_model::Address;
use capstan_model::headers::Fragment;

/// What the pieces of one datagram have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DatagramKey {
    /// Sender and receiver.
    pub(crate) addresses: (Address, Address),
    /// What the datagram carries.
    pub(crate) next: Next,
    /// Its identification.
    pub(crate) id: u32,
}

/// Datagrams of which pieces are missing.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    waiting: HashMap<(Address, Address, u32), Vec<Datagram>>,
}

#[derive(Debug)]
struct Datagram {
    next: Next,
    pieces: Vec<(u32, Vec<u8>)>,
    /// Where the last piece ends, once it came.
    length: Option<usize>,
}

impl Fragments {
    /// Takes a piece; gives the datagram if that was the last one missing.
    /// Where pieces overlap, the one that starts first wins.
    pub(crate) fn add(
        &mut self,
        key: DatagramKey,
        fragment: Fragment,
        bytes: &[u8],
    ) -> Option<Vec<u8>> {
        let (source, destination) = key.addresses;
        let waiting = self.waiting.entry((source, destination, key.id)).or_default();
        let at = waiting.iter().position(|datagram| datagram.next == key.next);
        let at = at.unwrap_or_else(|| {
            waiting.push(Datagram { next: key.next, pieces: Vec::new(), length: None });
            waiting.len() - 1
        });
        let datagram = &mut waiting[at];
        datagram.pieces.push((fragment.offset, bytes.to_vec()));
        if !fragment.more {
            datagram.length = Some(fragment.offset as usize + bytes.len());
        }
        let whole = datagram.whole()?;
        waiting.remove(at);
        Some(whole)
    }
}

impl Datagram {
    fn whole(&mut self) -> Option<Vec<u8>> {
        let length = self.length?;
        self.pieces.sort_by_key(|(offset, _)| *offset);
        let mut whole = Vec::with_capacity(length);
        for (offset, bytes) in &self.pieces {
            let offset = *offset as usize;
            if offset > whole.len() {
                return None;
            }
            let seen = whole.len() - offset;
            whole.extend_from_slice(bytes.get(seen..).unwrap_or_default());
        }
        whole.truncate(length);
        (whole.len() == length).then_some(whole)
    }
}
