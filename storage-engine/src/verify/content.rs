//! Compares the bytes of a layer with its checksums, to locate changes.

use std::ops::Range;

use crate::segment::Layer;

/// Locates the changes in a layer that differs from its committed hash. `parts` are its blocks or pages with their
/// CRC32C, if its directory is usable.
pub fn places(layer: Layer, bytes: &[u8], parts: Option<&[(Range<u64>, u32)]>) -> String {
    let Some(parts) = parts else {
        return match layer {
            Layer::Added(_) => "the position is unknown without its directory",
            Layer::Body | Layer::Head | Layer::Packets | Layer::Flows | Layer::Index => {
                "the position is unknown without the index layer"
            }
        }
        .to_owned();
    };
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
        Layer::Packets | Layer::Flows | Layer::Added(_) | Layer::Index => "page",
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
