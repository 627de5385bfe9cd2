//! Capture files that the tests generate, and their packets in a store.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::capstan::{answer, numeric, over};

/// A pcap file that is being written: Ethernet, nanoseconds.
pub(crate) struct Pcap(BufWriter<File>);

impl Pcap {
    pub(crate) fn create(path: &Path) -> Pcap {
        let mut out = BufWriter::new(File::create(path).expect("a scratch file"));
        for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 262_144, 1] {
            out.write_all(&word.to_le_bytes()).expect("a scratch file");
        }
        Pcap(out)
    }

    /// A packet at this many nanoseconds since 1970.
    pub(crate) fn packet(&mut self, time: u64, length: u32, data: &[u8]) {
        let captured = u32::try_from(data.len()).expect("a frame");
        let seconds = u32::try_from(time / 1_000_000_000).expect("before 2106");
        for word in [seconds, (time % 1_000_000_000) as u32, captured, length] {
            self.0.write_all(&word.to_le_bytes()).expect("a scratch file");
        }
        self.0.write_all(data).expect("a scratch file");
    }

    pub(crate) fn finish(mut self) {
        self.0.flush().expect("a scratch file");
    }
}

/// Midnight of a day, nanoseconds since 1970.
pub(crate) const MIDNIGHT: u64 = 1_700_006_400 * 1_000_000_000;
/// An hour, nanoseconds.
pub(crate) const HOUR: u64 = 3_600 * 1_000_000_000;

/// Traffic that does not get smaller when it is stored: UDP datagrams with [`PAYLOAD`] bytes of noise
/// between two hosts, in 50 flows, each of which has packets in every hour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Noise {
    pub(crate) hours: u64,
    pub(crate) packets_an_hour: u64,
}

impl Noise {
    /// How many packets it is.
    pub(crate) fn packets(self) -> u64 {
        self.hours * self.packets_an_hour
    }

    /// Writes it as a capture file.
    pub(crate) fn write(self, path: &Path) {
        self.write_from(path, 0);
    }

    /// The same, so many hours later.
    pub(crate) fn write_from(self, path: &Path, first_hour: u64) {
        let mut file = Pcap::create(path);
        let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
        let mut frame = datagram(0);
        for number in 0..self.packets() {
            let (hour, place) = (number / self.packets_an_hour, number % self.packets_an_hour);
            frame[..HEADERS].copy_from_slice(&datagram(number)[..HEADERS]);
            for eight in frame[HEADERS..].chunks_exact_mut(8) {
                // xorshift64, by George Marsaglia.
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                eight.copy_from_slice(&noise.to_le_bytes());
            }
            let time =
                MIDNIGHT + (first_hour + hour) * HOUR + place * (HOUR / self.packets_an_hour);
            file.packet(time, frame.len() as u32, &frame);
        }
        file.finish();
    }
}

/// Packets of noise in a store, all of which can be read to their last byte, each once.
pub(crate) fn readable(store: &Path) -> u64 {
    answer(&mut over(store, "status"));
    let sql = "select count(*), count(distinct recorder || '/' || ordinal), count(distinct time), \
               coalesce(sum(octet_length(data)), 0) from packets";
    let [packets, names, times, bytes] = numeric(store, sql)[..] else { panic!("four columns") };
    assert_eq!((names, times), (packets, packets), "packets are there twice");
    assert_eq!(bytes, packets * (HEADERS + PAYLOAD) as u64);
    packets
}

/// Ethernet, IPv4, UDP.
const HEADERS: usize = 14 + 20 + 8;
/// Bytes of noise in each packet.
const PAYLOAD: usize = 1_000;
const FLOWS: u64 = 50;

/// A datagram of flow `number % FLOWS`; checksums are left out.
fn datagram(number: u64) -> Vec<u8> {
    let mut frame = vec![0; HEADERS + PAYLOAD];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    let port = 1_000 + (number % FLOWS) as u16;
    let length = (frame.len() - 14) as u16;
    frame[14..34].copy_from_slice(&[
        0x45,
        0,
        (length >> 8) as u8,
        length as u8,
        (number >> 8) as u8,
        number as u8,
        0,
        0,
        64,
        17,
        0,
        0,
        10,
        0,
        0,
        1,
        10,
        0,
        0,
        2,
    ]);
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    frame[36..38].copy_from_slice(&9_999_u16.to_be_bytes());
    frame[38..40].copy_from_slice(&(length - 20).to_be_bytes());
    frame
}
