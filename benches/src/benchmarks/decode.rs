//! Decoding the headers of each packet, against etherparse's `SlicedPacket`, in this process.
//!
//! They do not do quite the same: etherparse finds where the headers up to the transport lie; ours
//! goes on into tunnels, and takes addresses, ports and the fields that are stored in columns.

use std::hint::black_box;
use std::time::Duration;

use capstan_dissect::decode_into;
use capstan_model::{Failure, Headers, LinkType};
use etherparse::SlicedPacket;

use crate::bench::{Bench, Measured, Outcome};
use crate::measure::check_interrupted;
use crate::pcap::{Packet, Pcap, cannot_read};
use crate::report::{Figure, Judged, Row, median};
use crate::sys::thread_cpu;

pub(super) fn run(bench: &mut Bench) -> Result<Outcome, Failure> {
    let capture = bench.capture()?;
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        let mut pcap = Pcap::open(&capture.path)?;
        if LinkType(pcap.link_type) != LinkType::ETHERNET {
            return Ok(Outcome::Skipped("etherparse is asked for Ethernet only".to_owned()));
        }
        let mut spent = (Duration::ZERO, Duration::ZERO);
        // Who comes first pays for bringing packets near the processor: that alternates.
        for ours_first in [true, false].into_iter().cycle() {
            check_interrupted()?;
            let batch = pcap.next_batch().map_err(|error| cannot_read(&capture.path, error))?;
            let packets: Vec<Packet<'_>> = batch.collect();
            if packets.is_empty() {
                break;
            }
            if ours_first {
                spent.0 += timed(|| decode(&packets));
            }
            spent.1 += timed(|| slice(&packets));
            if !ours_first {
                spent.0 += timed(|| decode(&packets));
            }
        }
        let each = |spent: Duration| spent.as_nanos() as f64 / capture.packets as f64;
        let (our, their) = (each(spent.0), each(spent.1));
        bench.say(&format!("round {round}: {our:.1} ns a packet, etherparse {their:.1} ns"));
        ours.push(our);
        peer.push(their);
    }
    let (ours, peer) = (median(ours), median(peer));
    Ok(Outcome::Measured(Measured {
        rows: vec![Row {
            work: "decode the headers of a packet".to_owned(),
            ours: Figure::Number(ours, "ns"),
            peers: vec![("etherparse".to_owned(), Figure::Number(peer, "ns"))],
            judged: Judged::unlimited(ours / peer, "CPU ratio"),
        }],
        notes: vec![
            "etherparse's `SlicedPacket::from_ethernet` stops at the first transport header and \
             leaves the fields where they are"
                .to_owned(),
        ],
    }))
}

/// The processor time that something takes.
fn timed(work: impl FnOnce()) -> Duration {
    let before = thread_cpu();
    work();
    thread_cpu().saturating_sub(before)
}

fn decode(packets: &[Packet<'_>]) {
    let mut headers = Headers::default();
    for packet in packets {
        decode_into(&mut headers, LinkType::ETHERNET, packet.data, packet.wire);
        black_box(&headers);
    }
}

fn slice(packets: &[Packet<'_>]) {
    for packet in packets {
        // What it cannot read is an error and takes its time like the rest.
        black_box(&SlicedPacket::from_ethernet(packet.data));
    }
}
