//! Compares the bytes of a layer with its checksums, to locate changes.

use std::ops::Range;

use crate::segment::Layer;
use crate::segment::reader::Segment;

/// Locates the changes in a layer that differs from its committed hash. `segment` is the content of its `index`
/// layer, if usable.
pub fn places(layer: Layer, bytes: &[u8], segment: Option<&Segment>) -> String {
    let Some(segment) = segment else {
        return "the position is unknown without the index layer".to_owned();
    };
    let parts = segment.parts(layer);
    let bad: Vec<&Range<u64>> = parts
        .iter()
        .filter(|(range, crc)| {
            let part = bytes.get(range.start as usize..range.end as usize);
            part.is_none_or(|part| crc32c::crc32c(part) != *crc)
        })
        .map(|(range, _)| range)
        .collect();
    let noun = match layer {
        Layer::Body | Layer::Head => "block",
        Layer::Packets | Layer::Flows | Layer::Index => "page",
    };
    match bad.as_slice() {
        [] => format!("outside of its {noun}s, which are all readable"),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { "" } else { ", the first" };
            format!(
                "{} of {} {noun}s{more} at bytes {} to {}",
                bad.len(),
                parts.len(),
                first.start,
                first.end
            )
        }
    }
}
