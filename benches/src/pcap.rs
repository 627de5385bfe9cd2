//! Reads pcap files (draft-ietf-opsawg-pcap) in batches, and counts the packets of pcapng files
//! (draft-ietf-opsawg-pcapng). It has only what measuring needs, and shares no code with the readers of Capstan, so
//! that it can check them.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use capstan_model::{Failure, FailureKind};

/// Bytes of a file that are held at a time; small, see [`crate::measure`].
const BATCH: usize = 4 << 20;

/// The header before the first record, bytes.
const FILE_HEADER: usize = 24;

/// The header before each packet, bytes.
const RECORD_HEADER: usize = 16;

/// The pcapng block types of a section header, and of a packet: enhanced, simple, obsolete.
const SECTION: u32 = 0x0a0d_0d0a;
const PACKET_BLOCKS: [u32; 3] = [6, 3, 2];

/// Whether a file begins like a pcap file of the usual dialect.
pub(crate) fn is_pcap(first: [u8; 4]) -> bool {
    byte_order(first).is_some()
}

/// The byte order that a pcap file's first four bytes tell.
fn byte_order(first: [u8; 4]) -> Option<Order> {
    let magics = [0xa1b2_c3d4, 0xa1b2_3c4d];
    if magics.contains(&u32::from_le_bytes(first)) {
        Some(Order::Little)
    } else if magics.contains(&u32::from_be_bytes(first)) {
        Some(Order::Big)
    } else {
        None
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Order {
    /// The number in the first four bytes; 0 where there are fewer.
    fn u32(self, bytes: &[u8]) -> u32 {
        let Some(&bytes) = bytes.first_chunk() else { return 0 };
        match self {
            Order::Little => u32::from_le_bytes(bytes),
            Order::Big => u32::from_be_bytes(bytes),
        }
    }
}

/// One packet of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    /// Its captured bytes.
    pub(crate) data: &'a [u8],
    /// Its length before capturing cut it, bytes.
    pub(crate) wire: u32,
}

/// A pcap file that is read from start to end.
pub(crate) struct Pcap<R> {
    source: R,
    order: Order,
    /// LINKTYPE_ number of its packets.
    pub(crate) link_type: u16,
    buffer: Vec<u8>,
    /// What of `buffer` was read and not given out.
    rest: Range<usize>,
    /// Where in `buffer` the packets of the batch lie, and their lengths on the wire.
    packets: Vec<(Range<usize>, u32)>,
}

impl Pcap<File> {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read; it is no pcap file.
    pub(crate) fn open(path: &Path) -> Result<Pcap<File>, Failure> {
        File::open(path).and_then(Pcap::new).map_err(|error| cannot_read(path, error))
    }
}

impl<R: Read> Pcap<R> {
    fn new(mut source: R) -> io::Result<Pcap<R>> {
        let mut header = [0; FILE_HEADER];
        source.read_exact(&mut header)?;
        let [a, b, c, d, ..] = header;
        let order = byte_order([a, b, c, d]).ok_or_else(|| damaged("this is no pcap file"))?;
        // The upper half says whether frames end with a check sequence.
        let link_type = (order.u32(&header[20..]) & 0xffff) as u16;
        let buffer = vec![0; BATCH];
        Ok(Pcap { source, order, link_type, buffer, rest: 0..0, packets: Vec::new() })
    }

    /// The next packets, as many as fit the memory; none at the end.
    ///
    /// # Errors
    /// The file cannot be read, ends in a packet, or has one longer than the memory.
    pub(crate) fn next_batch(&mut self) -> io::Result<impl ExactSizeIterator<Item = Packet<'_>>> {
        self.buffer.copy_within(self.rest.clone(), 0);
        self.rest = 0..self.rest.len();
        while self.rest.end < self.buffer.len() {
            match self.source.read(&mut self.buffer[self.rest.end..])? {
                0 => break,
                count => self.rest.end += count,
            }
        }
        self.packets.clear();
        while let Some((packet, wire)) = self.record() {
            self.rest.start = packet.end;
            self.packets.push((packet, wire));
        }
        if self.packets.is_empty() && !self.rest.is_empty() {
            return Err(damaged("it ends within a packet, or a packet is too long"));
        }
        let buffer = &self.buffer;
        Ok(self.packets.iter().map(|(at, wire)| Packet { data: &buffer[at.clone()], wire: *wire }))
    }

    /// Where the next packet lies, if all of it was read.
    fn record(&self) -> Option<(Range<usize>, u32)> {
        let (header, _) = self.buffer[self.rest.clone()].split_first_chunk::<RECORD_HEADER>()?;
        let length = usize::try_from(self.order.u32(&header[8..])).ok()?;
        let start = self.rest.start + RECORD_HEADER;
        let end = start.checked_add(length).filter(|end| *end <= self.rest.end)?;
        Some((start..end, self.order.u32(&header[12..])))
    }
}

/// Counts the packets of a pcap or pcapng file.
///
/// # Errors
/// It cannot be read; it is neither; it is damaged.
pub(crate) fn count_packets(path: &Path) -> Result<u64, Failure> {
    let mut file = File::open(path).map_err(|error| cannot_read(path, error))?;
    let counted = (|| {
        let mut first = [0; 4];
        file.read_exact(&mut first)?;
        file.rewind()?;
        if u32::from_le_bytes(first) == SECTION {
            return count_blocks(BufReader::with_capacity(1 << 20, file));
        }
        let mut pcap = Pcap::new(file)?;
        let mut count = 0;
        loop {
            match pcap.next_batch()?.len() {
                0 => return Ok(count),
                more => count += more as u64,
            }
        }
    })();
    counted.map_err(|error| cannot_read(path, error))
}

/// Counts the packet blocks of a pcapng file.
fn count_blocks<R: Read + Seek>(mut source: BufReader<R>) -> io::Result<u64> {
    let mut order = Order::Little;
    let mut count = 0;
    let mut header = [0; 12];
    let length = source.seek(SeekFrom::End(0))?;
    let mut at = source.seek(SeekFrom::Start(0))?;
    while at < length {
        // No block is shorter than 12 bytes.
        source.read_exact(&mut header)?;
        let kind = order.u32(&header);
        if kind == SECTION {
            // The number 0x1a2b3c4d, as the section's writer has it.
            order = if header[8] == 0x4d { Order::Little } else { Order::Big };
        }
        let block = u64::from(order.u32(&header[4..]));
        if block < 12 || block > length - at {
            return Err(damaged("a pcapng block has an impossible length"));
        }
        count += u64::from(PACKET_BLOCKS.contains(&kind));
        at += block;
        source.seek_relative(i64::try_from(block).map_err(io::Error::other)? - 12)?;
    }
    Ok(count)
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The failure of reading a capture file.
pub(crate) fn cannot_read(path: &Path, error: io::Error) -> Failure {
    let what = format!("cannot read {}", path.display());
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Failure::caused_by(FailureKind::Damaged, what, error)
        }
        _ => Failure::io(what, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pcap(order: Order, packets: &[(&[u8], u32)]) -> Vec<u8> {
        let number = |value: u32| match order {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        };
        let mut file = Vec::new();
        for field in [0xa1b2_c3d4, 0x0002_0004, 0, 0, 65535, 1] {
            file.extend(number(field));
        }
        for (data, wire) in packets {
            for field in [1, 2, data.len() as u32, *wire] {
                file.extend(number(field));
            }
            file.extend(*data);
        }
        file
    }

    fn read(file: &[u8]) -> io::Result<Vec<(Vec<u8>, u32)>> {
        let mut pcap = Pcap::new(file)?;
        let mut all = Vec::new();
        loop {
            let before = all.len();
            all.extend(pcap.next_batch()?.map(|packet| (packet.data.to_vec(), packet.wire)));
            if all.len() == before {
                return Ok(all);
            }
        }
    }

    #[test]
    fn packets_come_back_in_both_byte_orders() {
        for order in [Order::Little, Order::Big] {
            let file = pcap(order, &[(b"one", 3), (b"", 0), (b"three", 1500)]);
            let expected = vec![(b"one".to_vec(), 3), (vec![], 0), (b"three".to_vec(), 1500)];
            assert_eq!(read(&file).unwrap(), expected);
        }
    }

    #[test]
    fn packets_lie_across_batches() {
        let long: &[u8] = &[7; 1_000_000];
        let file = pcap(Order::Little, &[(long, 1_000_000); 11]);
        let packets = read(&file).unwrap();
        assert_eq!(packets.len(), 11);
        assert!(packets.iter().all(|(data, _)| data == long));
    }

    #[test]
    fn damage_is_an_error() {
        let file = pcap(Order::Little, &[(b"one", 3), (b"two", 3)]);
        assert!(read(&file[..file.len() - 1]).is_err());
        assert!(read(&file[..10]).is_err());
        assert!(read(&[0; 100]).is_err());
        let endless = pcap(Order::Little, &[(&vec![0; BATCH], 1)]);
        assert!(read(&endless).is_err());
    }

    fn pcapng(blocks: &[(u32, &[u8])]) -> Vec<u8> {
        let mut file = Vec::new();
        for (kind, body) in blocks {
            let length = 12 + body.len() as u32;
            file.extend([kind.to_le_bytes(), length.to_le_bytes()].concat());
            file.extend(*body);
            file.extend(length.to_le_bytes());
        }
        file
    }

    #[test]
    fn packet_blocks_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let section = 0x1a2b_3c4d_u32.to_le_bytes();
        let file =
            pcapng(&[(SECTION, &section), (1, &[0; 8]), (6, &[0; 40]), (5, &[]), (6, &[0; 20])]);
        std::fs::write(&path, &file).unwrap();
        assert_eq!(count_packets(&path).unwrap(), 2);
        std::fs::write(&path, &file[..file.len() - 4]).unwrap();
        assert!(count_packets(&path).is_err());
        std::fs::write(&path, pcap(Order::Big, &[(b"one", 3)])).unwrap();
        assert_eq!(count_packets(&path).unwrap(), 1);
    }
}
