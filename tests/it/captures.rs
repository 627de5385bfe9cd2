//! The shared captures, and the contents of a capture file.

use std::path::{Path, PathBuf};

use capstan_ingest::source::{self, Event, PacketSource};
use capstan_model::packet::Stamp;
use capstan_model::{LinkType, Time};

use crate::tools::skipped;

/// The folder of real captures with expected results, if it is there.
pub(crate) fn shared() -> Option<PathBuf> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository");
    let shared =
        std::env::var_os("CAPSTAN_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from);
    if shared.join("captures/index.json").is_file() {
        return Some(shared);
    }
    skipped(&format!("no captures in {} (set CAPSTAN_SHARED)", shared.display()));
    None
}

/// A capture of the collection.
#[derive(Debug, Clone)]
pub(crate) struct Capture {
    /// Its name in the collection.
    pub(crate) name: String,
    /// What is in it, in the collection's words.
    pub(crate) tags: Vec<String>,
}

/// The captures of the collection.
pub(crate) fn captures(shared: &Path) -> Vec<Capture> {
    let text = std::fs::read_to_string(shared.join("captures/index.json")).expect("the index");
    let index: serde_json::Value = serde_json::from_str(&text).expect("the index is JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let files = index.as_array().expect("the index is a list").iter();
    files
        .map(|file| Capture {
            name: text(&file["file"]),
            tags: file["tags"].as_array().into_iter().flatten().map(text).collect(),
        })
        .collect()
}

/// What must be the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seen {
    pub(crate) link_type: LinkType,
    pub(crate) time: Option<Time>,
    pub(crate) ticks: Option<u64>,
    pub(crate) length: u32,
    pub(crate) data: Vec<u8>,
}

/// The packets of a capture file up to the end or the damage, one by one.
pub(crate) fn read(path: &Path) -> impl Iterator<Item = Seen> {
    let mut source = source::open(path).ok();
    let mut links = Vec::new();
    std::iter::from_fn(move || {
        loop {
            match source.as_mut()?.next_event().ok()?? {
                Event::Interface(interface) => links.push(interface.link_type),
                Event::Packet(packet) => {
                    return Some(Seen {
                        link_type: links[packet.interface as usize],
                        time: packet.stamp.time(),
                        ticks: match packet.stamp {
                            Stamp::Raw { ticks, .. } => Some(ticks),
                            _ => None,
                        },
                        length: packet.length,
                        data: packet.data.to_vec(),
                    });
                }
                _ => {}
            }
        }
    })
}

/// All packets of a capture file up to the end or the damage.
pub(crate) fn packets(path: &Path) -> Vec<Seen> {
    read(path).collect()
}
