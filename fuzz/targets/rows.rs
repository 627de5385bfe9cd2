//! Untrusted rows in well-formed tables: payload, templates, packet rows, flow rows.
#![no_main]

use std::collections::HashMap;

use bytes::Bytes;
use capstan_fuzz::input::Take;
use capstan_fuzz::segment::{Objects, Parts, SECTIONS, explore, index_over};
use capstan_fuzz::tables::{Table, tolerate_parquet};
use capstan_index::{Field, TermIndexBuilder};
use capstan_model::packet::Stamp;
use capstan_model::{Address, Direction, FlowId, FlowKey, FlowPart, Time};
use capstan_storage_engine::segment::block::{BlockDirectory, Encoder, file_header};
use capstan_storage_engine::segment::flows::{self, FlowRow, Placement};
use capstan_storage_engine::segment::index_layer::IndexLayer;
use capstan_storage_engine::segment::index_layer::Section;
use capstan_storage_engine::segment::packets::{self, Context, PacketRow};
use capstan_storage_engine::segment::predict::Deltas;
use capstan_storage_engine::segment::template::{Dictionary, FieldSet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: tolerate_parquet(), |input: &[u8]| {
    let mut take = Take::new(input);
    let (head, head_blocks) = payload(&mut take);
    let (body, body_blocks) = payload(&mut take);
    let counts =
        (usize::from(take.u8() % 8), usize::from(take.u8() % 32), u32::from(take.u8() % 16));
    let mut templates = Dictionary::default();
    for _ in 0..=counts.0 {
        let template = take.short();
        templates.number_of(template, FieldSet(take.u16()));
    }
    let rows: Vec<PacketRow> = (0..counts.1).map(|_| packet(&mut take, templates.len())).collect();
    let flow_rows: Vec<FlowRow> = (0..counts.2).map(|number| flow(&mut take, number)).collect();

    let ticks: HashMap<u64, u64> = rows.iter().map(|row| (row.ordinal, 5)).collect();
    // The writer takes a longer group for all rows.
    let first_group = 4 * counts.0;
    let context = Context { templates, ticks: &ticks, flows: &flow_rows, first_group };
    let (Ok(packets), Ok(flows)) =
        (packets::write(rows.iter().copied(), context), flows::write(&flow_rows, counts.0))
    else {
        return;
    };
    let (packets, flows) = (Table::from(packets), Table::from(flows));
    let objects = Objects([body, head, packets.bytes.clone().into(), flows.bytes.clone().into()]);
    // What the index says of its segment, from one without payload.
    let plain = index_over(&packets, &flows, &objects, [counts.1 as u64, u64::from(counts.2)]);
    let plain = IndexLayer::open(&plain).expect("just written");
    let mut terms = TermIndexBuilder::new();
    (0..counts.2).for_each(|ordinal| terms.add(Field::Ip, &[ordinal as u8], ordinal));
    let sections = SECTIONS.map(|kind| match kind {
        Section::Terms => std::mem::take(&mut terms).finish(counts.2).expect("small"),
        Section::HeadBlocks => head_blocks.clone(),
        Section::BodyBlocks => body_blocks.clone(),
        kind => plain.section(kind).expect("just written").to_vec(),
    });
    let mut parts = Parts { sections, objects };
    let index = parts.index();
    explore(&index, &parts.objects);
});

/// A payload layer and its directory.
fn payload(take: &mut Take<'_>) -> (Bytes, Vec<u8>) {
    let (mut layer, mut directory) = (file_header().to_vec(), BlockDirectory::new());
    let mut encoder = Encoder::new().expect("memory suffices");
    for _ in 0..take.u8() % 4 {
        let block = encoder.encode(take.short().to_vec().into(), true);
        layer.extend_from_slice(&block.header.to_bytes());
        layer.extend_from_slice(&block.bytes());
        directory.push(block.header);
    }
    (layer.into(), directory.to_bytes())
}

/// Small most of the time, so that numbers fit each other now and then.
fn number(take: &mut Take<'_>) -> u64 {
    match take.u8() {
        255 => take.u64(),
        254 => u64::from(take.u32()),
        small => u64::from(small),
    }
}

fn packet(take: &mut Take<'_>, templates: usize) -> PacketRow {
    let kind = take.u8();
    let stamp = match kind & 3 {
        0 => Stamp::At(Time(take.u64().cast_signed())),
        1 => Stamp::Raw { ticks: 5, time: None },
        _ => Stamp::None,
    };
    let direction = if kind & 4 == 0 { Direction::Forward } else { Direction::Backward };
    let mut row = PacketRow::new(number(take), stamp, direction);
    row.flow = number(take) as u32;
    row.template = number(take) as u32 % templates as u32;
    row.length = number(take) as u32;
    row.captured = number(take) as u32;
    row.trailer = number(take) as i32;
    row.interface = number(take) as u32;
    row.tcp_flags = take.u8();
    row.deltas = Deltas {
        tcp_seq: number(take) as i32,
        tcp_ack: number(take) as i32,
        ip_id: number(take) as i16,
        ..Deltas::default()
    };
    row
}

fn flow(take: &mut Take<'_>, ordinal: u32) -> FlowRow {
    let key = FlowKey {
        source: Address([1; 16]),
        destination: Address::NONE,
        source_port: 1,
        destination_port: 2,
        ip_protocol: 6,
        vlan: None,
        vni: None,
        ethertype: 0,
        pseudo: None,
        fragment_id: None,
    };
    let mut part = FlowPart::new(FlowId([ordinal as u8; 16]), key);
    part.packets = [number(take), number(take)];
    part.bytes = [number(take), number(take)];
    let placement = Placement {
        first_row: number(take) as u32,
        head_offset: number(take),
        head_bytes: number(take) as u32,
        body_offset: number(take),
        body_bytes: number(take),
    };
    FlowRow { part, placement }
}
