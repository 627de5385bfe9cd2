//! Makes the fuzz targets' seeds from real captures: `seeds CAPTURES CORPUS` reads every small
//! capture under the first folder and writes a folder a target into the second one.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Error, Result};
use std::path::{Path, PathBuf};

use capstan_fuzz::input::Put;
use capstan_fuzz::packets::{self, compose};
use capstan_fuzz::segment::Parts;
use capstan_fuzz::tables;
use capstan_ingest::source::{self, Event, PacketSource};
use capstan_model::LinkType;
use capstan_storage_engine::segment::{Layer, template};
// What the targets are built with calls into it; nothing here does.
use libfuzzer_sys as _;

/// Captures longer than this are no seeds: the fuzzer would be slow with them.
const LONGEST: u64 = 16 * 1024;

/// Longest seed of a target that takes single packets.
const PACKET: usize = 1_600;

/// Captures whose packets become whole segments.
const SEGMENTS: usize = 60;

/// Seeds of one target, at most.
const MOST: usize = 4_000;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(captures), Some(corpus)) = (arguments.next(), arguments.next()) else {
        return Err(Error::other("usage: seeds CAPTURES CORPUS"));
    };
    let mut seeds = Seeds { corpus, written: BTreeMap::new(), known: HashSet::new() };
    let mut files = Vec::new();
    list(&captures, &mut files)?;
    // The small ones first, for each target has room for so many.
    files.sort_unstable();
    for (_, file) in &files {
        seeds.capture(file)?;
    }
    seeds.fixed()?;
    for (target, count) in &seeds.written {
        eprintln!("{target}: {count} seeds");
    }
    Ok(())
}

fn list(folder: &Path, files: &mut Vec<(u64, PathBuf)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let about = fs::metadata(&path)?;
        let is_data =
            path.extension().is_none_or(|extension| extension != "json" && extension != "md");
        if about.is_dir() {
            list(&path, files)?;
        } else if about.len() <= LONGEST && is_data {
            files.push((about.len(), path));
        }
    }
    Ok(())
}

struct Seeds {
    corpus: PathBuf,
    written: BTreeMap<&'static str, usize>,
    known: HashSet<(&'static str, u64)>,
}

impl Seeds {
    fn add(&mut self, target: &'static str, bytes: &[u8]) -> Result<()> {
        let count = self.written.entry(target).or_default();
        let mut hash = DefaultHasher::new();
        bytes.hash(&mut hash);
        if *count >= MOST || !self.known.insert((target, hash.finish())) {
            return Ok(());
        }
        let folder = self.corpus.join(target);
        if *count == 0 {
            fs::create_dir_all(&folder)?;
        }
        *count += 1;
        fs::write(folder.join(format!("seed-{:016x}", hash.finish())), bytes)
    }

    fn capture(&mut self, path: &Path) -> Result<()> {
        let bytes = fs::read(path)?;
        match bytes.first_chunk() {
            Some([0x0a, 0x0d, 0x0d, 0x0a]) => self.add("pcapng", &bytes)?,
            Some([0x1f, 0x8b, ..] | [0x28, 0xb5, ..] | [4, 0x22, ..]) => {
                self.add("compressed", &bytes)?;
            }
            _ => self.add("pcap", &bytes)?,
        }
        if bytes.len() <= PACKET {
            for how in 0..3 {
                self.add("compressed", &[&[how], &bytes[..]].concat())?;
            }
        }
        let packets = read(path);
        for (link, wire, data) in &packets {
            self.packet(*link, *wire, data)?;
        }
        if let Some((link, ..)) = packets.first() {
            let same: Vec<_> = packets
                .iter()
                .filter(|(other, ..)| other == link)
                .map(|(_, wire, data)| (1_000_000, *wire, data.clone()))
                .collect();
            let input = compose(self.known.len() as u8, *link, &same);
            self.add("pipeline", &input)?;
            if self.written.get("segment").copied().unwrap_or(0) < SEGMENTS {
                self.segment(&compose(0, *link, &same))?;
            }
        }
        Ok(())
    }

    fn packet(&mut self, link: LinkType, wire: u32, data: &[u8]) -> Result<()> {
        let data = &data[..data.len().min(PACKET)];
        let mut put = Put::default();
        put.raw(&link.0.to_le_bytes()).raw(&wire.to_le_bytes()).raw(data);
        self.add("decode", &put.0)?;
        let headers = capstan_dissect::decode(link, data, wire);
        let mut bytes = Vec::new();
        template::split(&headers, data, wire, &mut bytes);
        let mut put = Put::default();
        put.raw(&wire.to_le_bytes()).raw(&[0; 12]).raw(&bytes);
        self.add("template", &put.0)?;
        let payload = data.get(usize::from(headers.prefix)..).unwrap_or_default();
        if payload.is_empty() || !matches!(headers.ip_protocol, 6 | 17) {
            return Ok(());
        }
        for side in [0, 1] {
            let mut put = Put::default();
            put.raw(&[headers.ip_protocol]).raw(&headers.source_port.to_le_bytes());
            put.raw(&headers.destination_port.to_le_bytes()).raw(&[side]).raw(payload);
            self.add("label", &put.0)?;
        }
        Ok(())
    }

    /// What a sealed segment consists of, each part for its own target.
    fn segment(&mut self, input: &[u8]) -> Result<()> {
        let recording = packets::parse(input);
        let Some(sealed) = packets::seal(&recording).into_iter().next() else { return Ok(()) };
        let parts = Parts::of(&sealed).map_err(Error::other)?;
        self.add("segment", &parts.to_input())?;
        if let Some(index) = sealed.layers.iter().find(|sealed| sealed.layer == Layer::Index) {
            self.add("index_layer", &index.bytes())?;
        }
        self.add("terms", &[&[0], &parts.sections[1][..]].concat())?;
        for (directory, layer) in [(2, 1), (3, 0)] {
            let blocks = &parts.sections[directory];
            let (Some(header), layer) = (blocks.get(..16), &parts.objects.0[layer]) else {
                continue;
            };
            let mut put = Put::default();
            put.raw(header).short(layer.get(32..).unwrap_or_default()).raw(blocks);
            self.add("block", &put.0)?;
        }
        for forms in tables::tables(&recording) {
            self.tables(&forms)?;
        }
        Ok(())
    }

    fn tables(&mut self, pair: &[tables::Table; 2]) -> Result<()> {
        for (which, table) in (0..).zip(pair) {
            let mut put = Put::default();
            let tail = (table.bytes.len() - table.tail) as u32;
            put.raw(&[which]).raw(&tail.to_le_bytes()).long(&table.pages).raw(&table.bytes);
            self.add("footer", &put.0)?;
        }
        Ok(())
    }

    /// Seeds that need no capture.
    fn fixed(&mut self) -> Result<()> {
        for (form, pair) in (0..).zip(tables::reference()) {
            self.tables(pair)?;
            for (which, table) in (0..).zip(pair) {
                let pages = &table.bytes[..table.tail];
                self.add("pages", &[&[form * 2 + which], pages].concat())?;
            }
        }
        for text in ["2026-11-21T14:23:00+01:00", "-15m", "now", "10.0.0.7", "2001:db8::7", "h2"] {
            self.add("text", text.as_bytes())?;
        }
        for json in [
            r#"{"export":{}}"#,
            r#"{"export":{"from":"-15m","to":1700000000000000000,"ips":["10.0.0.7","::1"],"ports":[443],"protocols":["TLS","h2"],"order":"recorded"}}"#,
        ] {
            self.add("export_request", json.as_bytes())?;
        }
        self.rows()?;
        self.catalog()
    }

    /// Flow parts of two packets each, whose headers and payload fit together.
    fn rows(&mut self) -> Result<()> {
        for parts in 1..4_u8 {
            let mut put = Put::default();
            put.raw(&[1]).short(&b"abcdefgh".repeat(usize::from(parts))).raw(&[0]);
            put.raw(&[0, parts * 2, parts]).short(b"\0hd").raw(&[0, 0]);
            for packet in 0..parts * 2 {
                put.raw(&[packet % 2 * 4]).raw(&u64::from(packet).to_le_bytes());
                // Ordinal, flow, template, both lengths; trailer and interface; flags; deltas.
                put.raw(&[packet, packet / 2, 0, 6, 6]).raw(&[0, 0]).raw(&[0]).raw(&[0, 0, 0]);
            }
            for part in 0..parts {
                // Packets and bytes each way, then rows, head and body.
                put.raw(&[1, 1, 6, 6]).raw(&[part * 2, part * 8, 8, 0, 0]);
            }
            self.add("rows", &put.0)?;
        }
        Ok(())
    }

    /// A writer and a log of two commits, with everything that can be in one.
    fn catalog(&mut self) -> Result<()> {
        let sha = "0".repeat(64);
        let writer = format!(
            r#"{{"format":1,"recorder":"0000000000000007","generation":1,"kind":"import","description":"d","host":"h","source":{{"name":"n","bytes":5,"sketch":"{sha}"}},"resumes":1,"started_at":5,"capstan_version":"0","nonce":"n"}}"#
        );
        let commit = |seq: u32| {
            format!(
                r#"{{"format":1,"recorder":"0000000000000007","generation":1,"seq":{seq},"previous":"{sha}","nonce":"n","committed_at":7,"segments":[{{"name":"s{seq}","hour":3,"hours":[3,4],"first":1,"last":9,"first_ordinal":0,"last_ordinal":4,"packets":5,"flow_parts":1,"captured_bytes":10,"wire_bytes":10,"layers":[{{"layer":"index","bytes":9,"sha256":"{sha}"}}],"protocols":{{"dns":5}},"addresses":"{sha}"}}],"listened":[{{"range":{{"start":0,"end":9}},"interfaces":[0]}}],"losses":[{{"range":{{"start":0,"end":9}},"interface":0,"cause":"kernel-drop","packets":1,"bytes":2,"note":"x"}}],"next_ordinal":5,"next_flow":1,"finished":{{"complete":true,"packets_total":5}},"source_read":{{"bytes":5,"sha256":"{sha}"}},"note":"n"}}"#
            )
        };
        let mut put = Put::default();
        put.raw(&[0]).short(writer.as_bytes());
        put.raw(&[4]).short(commit(0).as_bytes());
        put.raw(&[0x14]).short(commit(1).as_bytes());
        put.raw(&[0x3c]).raw(&[0x4]).short(commit(4).as_bytes());
        self.add("catalog", &put.0)
    }
}

/// The packets of a capture, as far as it can be read: link type, length on the wire, bytes.
fn read(path: &Path) -> Vec<(LinkType, u32, Vec<u8>)> {
    let mut packets = Vec::new();
    let Ok(mut source) = source::open(path) else { return packets };
    let mut links = Vec::new();
    while let Ok(Some(event)) = source.next_event() {
        match event {
            Event::Interface(interface) => links.push(interface.link_type),
            Event::Packet(packet) => {
                let link = links.get(packet.interface as usize).copied();
                let data = packet.data.to_vec();
                packets.push((link.unwrap_or(LinkType::ETHERNET), packet.length, data));
            }
            _ => {}
        }
    }
    packets
}
