//! A scan of any rows and columns requests whole pages.

use proptest::prelude::*;

use super::*;

/// Rows of [`large`]: pages of every column end in between, and the last one is short.
const ROWS: u64 = 40_000;

/// One flow part of so many packets that each column has many pages.
fn large() -> &'static SealedSegment {
    static SEALED: std::sync::OnceLock<SealedSegment> = std::sync::OnceLock::new();
    SEALED.get_or_init(|| {
        let mut builder = SegmentBuilder::new(WRITER).unwrap();
        let part = builder.open_part(FlowId::new(WRITER.recorder, WRITER.generation, 0), key());
        for number in 0..ROWS {
            let mut headers = Headers::default();
            headers.prefix = 14;
            let data = [(number % 7) as u8; 16];
            let stamp = Stamp::At(Time(number as i64));
            let packet = Packet { interface: 0, stamp, length: 60, data: &data, options: &[] };
            builder.push(part, &packet, &headers, Direction::Forward, number);
        }
        builder.seal("large".to_owned(), WRITER.generation).unwrap()
    })
}

/// Flow rows that pick any rows of the packets.
fn picks(ranges: &[(u64, u64)]) -> Vec<FlowRow> {
    let mut end = 0;
    let mut rows = Vec::new();
    for (gap, length) in ranges {
        let first = end + gap;
        if first + length > ROWS {
            break;
        }
        let mut part = FlowPart::new(FlowId([0; 16]), key());
        part.packets = [*length, 0];
        let placement = Placement { first_row: first as u32, ..Placement::default() };
        rows.push(FlowRow { part, placement });
        end = first + length;
    }
    rows
}

/// Reads a scan, all of whose ranges must pass; rows and bytes that were fetched.
async fn read(mut scan: Scan, object: &Bytes) -> (u64, u64) {
    let (mut rows, mut fetched) = (0, 0);
    loop {
        match scan.step().unwrap() {
            Step::Rows(batch) => rows += batch.num_rows() as u64,
            Step::Needs(ranges) => {
                let slice = |range: &Range<u64>| range.start as usize..range.end as usize;
                let bytes = ranges.iter().map(|range| object.slice(slice(range))).collect();
                fetched += ranges.iter().map(|range| range.end - range.start).sum::<u64>();
                scan.give(ranges, bytes).unwrap();
            }
            Step::End => return (rows, fetched),
        }
    }
}

#[tokio::test]
async fn full_scan_requests_exactly_all_pages() {
    let sealed = large();
    let segment = Segment::open(&bytes(sealed, Layer::Index)).unwrap();
    for (layer, rows) in [(Layer::Packets, ROWS), (Layer::Flows, 1)] {
        let object = bytes(sealed, layer);
        let pages = object.len() - beside_pages(&segment, layer, &object);
        let got = read(segment.scan_all(layer, None).unwrap(), &object).await;
        assert_eq!(got, (rows, pages as u64));
    }
    let all = segment.all_flows();
    let got = read(segment.scan_flows(&all, None).unwrap(), &bytes(sealed, Layer::Flows)).await;
    assert_eq!(got.0, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn partial_scan_requests_whole_pages(
        ranges in proptest::collection::vec((0_u64..20_000, 0_u64..9_000), 0..6),
        names in proptest::option::of(proptest::sample::subsequence(
            packets::TABLE.columns.iter().map(|column| column.name).collect::<Vec<_>>(), 1..21)),
    ) {
        let sealed = large();
        let segment = Segment::open(&bytes(sealed, Layer::Index)).unwrap();
        let flows = picks(&ranges);
        let scan = segment.scan_packets(&flows, names.as_deref()).unwrap();
        let object = bytes(sealed, Layer::Packets);
        let (rows, _) = futures::executor::block_on(read(scan, &object));
        prop_assert_eq!(rows, flows.iter().map(FlowRow::packets).sum::<u64>());
    }
}
