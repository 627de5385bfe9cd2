//! Real packets for tests: the classic pcap files among the shared captures.

// Each test binary uses a part of it; that it is skipped must be seen.
#![allow(dead_code, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use capstan_model::LinkType;

/// One packet of a capture.
pub(crate) struct Packet {
    /// Its place in the file, from 1.
    pub(crate) number: usize,
    /// Its link type.
    pub(crate) link: LinkType,
    /// Its length on the wire, bytes.
    pub(crate) wire_length: u32,
    /// What was captured of it.
    pub(crate) data: Vec<u8>,
}

/// The shared captures, where there are any; says so if there are none.
pub(crate) fn folder() -> Option<PathBuf> {
    let shared = std::env::var_os("CAPSTAN_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let captures = shared.join("captures");
    if !captures.is_dir() {
        println!("skipped: no shared captures (set CAPSTAN_SHARED)");
        return None;
    }
    Some(captures)
}

/// Every classic pcap file under `folder`, by name, with its packets.
pub(crate) fn files(folder: &Path) -> impl Iterator<Item = (String, Vec<Packet>)> {
    let mut paths = Vec::new();
    for origin in fs::read_dir(folder).unwrap() {
        let origin = origin.unwrap().path();
        let is_results = origin.ends_with("expected") || origin.ends_with("published");
        if origin.is_dir() && !is_results {
            paths.extend(fs::read_dir(origin).unwrap().map(|file| file.unwrap().path()));
        }
    }
    paths.sort();
    let folder = folder.to_owned();
    paths.into_iter().filter_map(move |path| {
        let name = path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
        Some((name, packets(&fs::read(&path).unwrap())?))
    })
}

/// The packets of a classic pcap file up to its end or its first damage.
pub(crate) fn packets(file: &[u8]) -> Option<Vec<Packet>> {
    let number: fn([u8; 4]) -> u32 = match file.first_chunk()? {
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => u32::from_le_bytes,
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => u32::from_be_bytes,
        _ => return None,
    };
    let at = |at: usize| file.get(at..)?.first_chunk().copied().map(number);
    let link = LinkType((at(20)? & 0xffff) as u16);
    let mut packets = Vec::new();
    let mut offset = 24;
    while let (Some(length), Some(wire_length)) = (at(offset + 8), at(offset + 12)) {
        let start = offset + 16;
        let Some(data) = file.get(start..start.saturating_add(length as usize)) else {
            break;
        };
        let number = packets.len() + 1;
        packets.push(Packet { number, link, wire_length, data: data.to_vec() });
        offset = start + data.len();
    }
    Some(packets)
}
