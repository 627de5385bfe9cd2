//! Assembles packets: header from template and columns, then payload.

use roaring::RoaringBitmap;

use super::payload::Payload;
use crate::segment::Corrupt;
use crate::segment::flows::FlowRow;
use crate::segment::packets::{ReadRow, Rebuilder, RowReader};
use crate::segment::template::Endpoints;

/// Packet rows of some flow parts, in stored order, and their templates.
#[derive(Debug)]
pub struct PacketRows {
    pub(super) reader: RowReader,
    /// The rows.
    pub rows: Vec<ReadRow>,
}

impl PacketRows {
    /// Rebuilds every packet and hands it to `each`: its row and its captured
    /// bytes. `flows` are the parts the rows were read for, ascending. Of a packet whose payload retention deleted there
    /// are fewer bytes than it had when it was captured.
    ///
    /// # Errors
    /// [`Corrupt`] when header or payload do not fit together.
    pub fn assemble(
        &self,
        flow_ordinals: &RoaringBitmap,
        flows: &[FlowRow],
        payload: &Payload,
        mut each: impl FnMut(&ReadRow, &[u8]),
    ) -> Result<(), Corrupt> {
        let bad = |what: &str| Corrupt::new("packets", what);
        let mut rebuilder = Rebuilder::default();
        let mut packet = Vec::new();
        let mut at = 0;
        for (ordinal, flow) in flow_ordinals.iter().zip(flows) {
            let (place, ends) = (&flow.placement, Endpoints::of(&flow.part.key));
            let head = payload
                .head(place.head_offset, u64::from(place.head_bytes))
                .ok_or_else(|| bad("head payload is missing"))?;
            let body = payload
                .body(place.body_offset, place.body_bytes)
                .ok_or_else(|| bad("body payload is missing"))?;
            let (mut head, mut body) = (head, body);
            let count = usize::try_from(flow.packets()).unwrap_or(usize::MAX);
            let rows = at_most(&self.rows, at, count).ok_or_else(|| bad("rows are missing"))?;
            at += count;
            for read in rows {
                if read.row.flow != ordinal {
                    return Err(bad("a row of another flow"));
                }
                packet.clear();
                rebuilder.header(&read.row, self.reader.templates(), ends, &mut packet)?;
                let length = self.reader.payload_length(&read.row)?;
                let from_head = length.min(head.len());
                packet.extend_from_slice(&head[..from_head]);
                head = &head[from_head..];
                let from_body = match body.get(..length - from_head) {
                    Some(from_body) => from_body,
                    None if payload.is_cut() => body,
                    None => return Err(bad("payload ends before its packets")),
                };
                packet.extend_from_slice(from_body);
                body = &body[from_body.len()..];
                each(read, &packet);
            }
            if !head.is_empty() || !body.is_empty() {
                return Err(bad("payload behind the last packet"));
            }
        }
        Ok(())
    }
}

fn at_most<T>(rows: &[T], at: usize, count: usize) -> Option<&[T]> {
    rows.get(at..at.checked_add(count)?)
}
