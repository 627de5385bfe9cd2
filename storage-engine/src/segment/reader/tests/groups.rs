//! A segment with quiet hosts: its tables have two row groups.

use capstan_model::Address;

use super::*;

/// Twenty thousand packets of two busy hosts in two parts, and five of a quiet one with each of these.
fn sealed() -> SealedSegment {
    let mut builder = SegmentBuilder::new(WRITER).unwrap();
    let [one, two, quiet] = [1, 2, 3].map(|last| Address::v4([10, 0, 0, last]));
    let ends = [(one, two, 5_000), (quiet, one, 6_000), (two, one, 7_000), (quiet, two, 8_000)];
    let parts = ends.map(|(source, destination, source_port)| {
        let id = FlowId::new(WRITER.recorder, WRITER.generation, source_port);
        let source_port = source_port as u16;
        builder.open_part(id, FlowKey { source, destination, source_port, ..key() })
    });
    for number in 0..20_010_u64 {
        let part = match number {
            n if n % 4_000 == 1 => 1,
            n if n % 4_000 == 3 => 3,
            n => (n % 2 * 2) as usize,
        };
        let data = [&[0; 14][..], &number.to_le_bytes()].concat();
        let mut headers = Headers::default();
        headers.prefix = 14;
        let stamp = Stamp::At(Time(number as i64));
        let packet = Packet { interface: 0, stamp, length: 22, data: &data, options: &[] };
        builder.push(parts[part], &packet, &headers, Direction::Forward, number);
    }
    builder.seal("segment".to_owned(), WRITER.generation).unwrap()
}

#[tokio::test]
async fn rows_of_both_row_groups_come_in_one_fetch() {
    let sealed = sealed();
    let segment = Segment::open(&bytes(&sealed, Layer::Index)).unwrap();
    let layers = [Layer::Flows, Layer::Packets, Layer::Head, Layer::Body];
    let objects = Objects(layers.map(|layer| (layer, bytes(&sealed, layer))).to_vec());
    let flows = segment.read_flows(&objects, &segment.all_flows()).await.unwrap();
    let ports: Vec<u16> = flows.iter().map(|flow| flow.part.key.source_port).collect();
    assert_eq!(&ports[..2], [6_000, 8_000], "the quiet host comes first");
    let groups = |table: &Table| table.metadata.metadata().num_row_groups();
    assert_eq!((groups(&segment.flows), groups(&segment.packets)), (2, 2));
    // Of the quiet host alone, of others alone, of both.
    for places in [0..2, 2..4, 1..3, 0..4] {
        let some = &flows[places.clone()];
        let mut scan = segment.scan_packets(some, None).unwrap();
        let Step::Needs(ranges) = scan.step().unwrap() else { panic!("nothing is needed") };
        let got = objects.fetch(Layer::Packets, &ranges).await.unwrap();
        assert!(scan.give(ranges.clone(), got[1..].to_vec()).is_err());
        scan.give(ranges, got).unwrap();
        let mut rows = 0;
        loop {
            match scan.step().unwrap() {
                Step::Rows(batch) => rows += batch.num_rows() as u64,
                Step::Needs(more) => panic!("{places:?}: {more:?} are needed later"),
                Step::End => break,
            }
        }
        assert_eq!(rows, some.iter().map(FlowRow::packets).sum::<u64>(), "{places:?}");
        let read = segment.read_packets(&objects, some).await.unwrap();
        let payload = segment.read_payload(&objects, &segment.plan_payload(some)).await.unwrap();
        let ordinals = (places.start as u32..places.end as u32).collect();
        let mut packets = 0;
        read.assemble(&ordinals, some, &payload, |read, data| {
            assert_eq!(data[14..], read.row.ordinal.to_le_bytes());
            packets += 1;
        })
        .unwrap();
        assert_eq!(packets, rows, "{places:?}");
    }
}
