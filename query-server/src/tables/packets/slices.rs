//! Positions of the packets and the payload of flows, and slices of flows whose payload is unpacked together, so
//! that memory does not grow with a segment.

use std::ops::Range;

use capstan_model::{Failure, FlowId, FlowKey, FlowPart};
use capstan_storage_engine::segment::flows::{FlowRow, Placement};
use capstan_storage_engine::segment::template::Endpoints;

use crate::tables::flow_rows::FlowRows;

/// Payload that is unpacked at a time, bytes, unless one flow alone has more.
const SLICE_BYTES: u64 = 8 << 20;

/// Packets whose payload is put together at a time, unless one flow alone has more.
const SLICE_PACKETS: u64 = 32 << 10;

/// Positions of a flow part's packets and payload, as far as they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Rows it has in `packets.parquet`.
    pub(super) packets: u64,
    placement: Placement,
    /// The ends of its forward packets; unspecified if not read.
    ends: Endpoints,
}

impl Place {
    /// Its payload, bytes.
    pub(super) fn payload(&self) -> u64 {
        self.placement.body_bytes.saturating_add(u64::from(self.placement.head_bytes))
    }
}

/// A sum that saturates: a damaged segment must not overflow it.
pub(super) fn total(places: &[Place], of: fn(&Place) -> u64) -> u64 {
    places.iter().map(of).fold(0, u64::saturating_add)
}

/// The positions of the packets of some flows.
///
/// # Errors
/// The needed columns were not read.
pub(super) fn places(flows: &FlowRows) -> Result<Vec<Place>, Failure> {
    let first_row = flows.small_numbers("first_row")?;
    let forward = flows.numbers("packets_forward")?;
    let backward = flows.numbers("packets_backward")?;
    let payload = match flows.small_numbers("head_bytes") {
        Ok(head_bytes) => Some((
            flows.numbers("head_offset")?,
            head_bytes,
            flows.numbers("body_offset")?,
            flows.numbers("body_bytes")?,
        )),
        Err(_) => None,
    };
    let ends = match payload {
        Some(_) => flows.ends()?,
        None => Vec::new(),
    };
    let place = |row: usize| {
        let mut placement =
            Placement { first_row: first_row.value(row) as u32, ..Placement::default() };
        if let Some((head_offset, head_bytes, body_offset, body_bytes)) = payload {
            placement.head_offset = head_offset.value(row) as u64;
            placement.head_bytes = head_bytes.value(row) as u32;
            placement.body_offset = body_offset.value(row) as u64;
            placement.body_bytes = body_bytes.value(row) as u64;
        }
        // A negative count is damage. It becomes zero packets, which then does not fit the rows.
        let count = |count: i64| u64::from(u32::try_from(count).unwrap_or(0));
        let packets = count(forward.value(row)) + count(backward.value(row));
        Place { packets, placement, ends: ends.get(row).copied().unwrap_or_default() }
    };
    Ok((0..flows.len()).map(place).collect())
}

/// Flow rows with only the positions of packets and payload, and the ends: what a segment needs to read them.
pub(super) fn flow_rows(places: &[Place]) -> Vec<FlowRow> {
    let row = |place: &Place| {
        let Endpoints { source, destination, source_port, destination_port } = place.ends;
        let key = FlowKey {
            source,
            destination,
            source_port,
            destination_port,
            ip_protocol: 0,
            vlan: None,
            vni: None,
            ethertype: 0,
            pseudo: None,
            fragment_id: None,
        };
        let mut part = FlowPart::new(FlowId([0; 16]), key);
        part.packets = [place.packets, 0];
        FlowRow { part, placement: place.placement }
    };
    places.iter().map(row).collect()
}

/// Flows whose payload is unpacked together.
pub(super) fn slices(flows: &[Place]) -> Vec<Range<usize>> {
    let mut slices = Vec::new();
    let (mut start, mut bytes, mut packets) = (0, 0_u64, 0_u64);
    for (at, flow) in flows.iter().enumerate() {
        let full = bytes.saturating_add(flow.payload()) > SLICE_BYTES
            || packets.saturating_add(flow.packets) > SLICE_PACKETS;
        if at > start && full {
            slices.push(start..at);
            (start, bytes, packets) = (at, 0, 0);
        }
        bytes = bytes.saturating_add(flow.payload());
        packets = packets.saturating_add(flow.packets);
    }
    if start < flows.len() {
        slices.push(start..flows.len());
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(packets: u64, payload: u64) -> Place {
        let placement = Placement { body_bytes: payload, ..Placement::default() };
        Place { packets, placement, ends: Endpoints::default() }
    }

    #[test]
    fn a_slice_is_small_unless_a_flow_is_large() {
        let half = SLICE_BYTES / 2;
        let flows: Vec<_> =
            [1, half, half, half, 5 * half, 1, 1].map(|bytes| flow(1, bytes)).into();
        assert_eq!(slices(&flows), [0..2, 2..4, 4..5, 5..7]);
        let many: Vec<_> = (0..5).map(|_| flow(SLICE_PACKETS / 2, 0)).collect();
        assert_eq!(slices(&many), [0..2, 2..4, 4..5]);
        assert!(slices(&[]).is_empty());
        let odd = [flow(u64::MAX, u64::MAX), flow(1, u64::MAX)];
        assert_eq!(slices(&odd), [0..1, 1..2]);
        assert_eq!(total(&odd, Place::payload), u64::MAX);
    }
}
