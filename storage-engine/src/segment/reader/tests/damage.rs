//! Flips every byte of every layer, and shortens and lengthens layers. A read then returns what was written, or an
//! error.

use super::*;

/// A packet as it comes back: ordinal, time, ticks, length on the wire, bytes.
type Read = (u64, Option<Time>, Option<u64>, u32, Vec<u8>);

/// All of a segment's layers but for `index`.
pub(super) fn objects(sealed: &SealedSegment) -> Objects {
    let layers = [Layer::Body, Layer::Head, Layer::Packets, Layer::Flows];
    Objects(layers.map(|layer| (layer, bytes(sealed, layer))).into_iter().collect())
}

/// Reads every packet.
pub(super) async fn packets(segment: &Segment, fetch: &dyn Fetch) -> Result<Vec<Read>, Failure> {
    let all = segment.all_flows();
    let flows = segment.read_flows(fetch, &all).await?;
    let rows = segment.read_packets(fetch, &flows).await?;
    let payload = segment.read_payload(fetch, &segment.plan_payload(&flows)).await?;
    let mut read = Vec::new();
    rows.assemble(&all, &flows, &payload, |found, data| {
        let row = &found.row;
        read.push((row.ordinal, row.time(), found.ticks, row.length, data.to_vec()));
    })?;
    Ok(read)
}

/// A segment in memory that can be read whole.
struct Whole {
    layers: Vec<(Layer, Bytes)>,
    segment: Segment,
    packets: Vec<Read>,
    meta: Meta,
    extras: Extras,
}

impl Whole {
    async fn of(sealed: &SealedSegment) -> Whole {
        let layers = Layer::SEALED.map(|layer| (layer, bytes(sealed, layer))).to_vec();
        let segment = Segment::open(&bytes(sealed, Layer::Index)).unwrap();
        Whole {
            packets: packets(&segment, &Objects(layers.clone())).await.unwrap(),
            meta: segment.meta().clone(),
            extras: segment.extras().unwrap(),
            segment,
            layers,
        }
    }

    /// Reads everything with one layer replaced; whether that was refused.
    async fn refuses(&self, layer: Layer, bytes: Vec<u8>, what: &str) -> bool {
        let mut layers = self.layers.clone();
        for (known, object) in &mut layers {
            if *known == layer {
                *object = bytes.clone().into();
            }
        }
        let read = async {
            let opened;
            let segment = if layer == Layer::Index {
                opened = Segment::open(&layers[4].1)?;
                &opened
            } else {
                &self.segment
            };
            let packets = packets(segment, &Objects(layers)).await?;
            Ok::<_, Failure>((packets, segment.meta().clone(), segment.extras()?))
        };
        match read.await {
            Ok((packets, meta, extras)) => {
                assert!(packets == self.packets, "{what}: other packets");
                assert!(meta == self.meta && extras == self.extras, "{what}: something else");
                false
            }
            Err(failure) => {
                // A major number that was flipped cannot be told from a newer one.
                let may_be_newer = layer == Layer::Index && bytes.get(8..10) != Some(&[2, 0]);
                let kinds = [FailureKind::Damaged, FailureKind::TooNew];
                let allowed = &kinds[..1 + usize::from(may_be_newer)];
                assert!(allowed.contains(&failure.kind()), "{what}: {failure}");
                true
            }
        }
    }
}

/// Flips every byte of one layer, of which a read needs all but so many.
async fn flip(layer: Layer, unread: impl Fn(&Segment, &Bytes) -> usize) {
    let whole = Whole::of(&sealed()).await;
    assert_eq!(whole.packets.len(), 43);
    let good = &whole.layers.iter().find(|(known, _)| *known == layer).unwrap().1;
    let mut passed = 0;
    for at in 0..good.len() {
        let mut bytes = good.to_vec();
        // Another bit each time, and all of them now and then.
        bytes[at] ^= if at % 9 == 8 { 0xff } else { 1 << (at % 9) };
        let refused = whole.refuses(layer, bytes, &format!("{layer:?} at {at}")).await;
        passed += usize::from(!refused);
    }
    assert_eq!(passed, unread(&whole.segment, good), "{layer:?} of {} bytes", good.len());
}

// What no read needs is what `index` says, too: headers of files and blocks, magic bytes, where pages are,
// tails.

#[tokio::test]
async fn flipped_byte_of_a_body_never_gives_other_packets() {
    flip(Layer::Body, |_, _| 16 + 16).await;
}

#[tokio::test]
async fn flipped_byte_of_a_head_never_gives_other_packets() {
    flip(Layer::Head, |_, _| 16 + 16).await;
}

#[tokio::test]
async fn flipped_byte_of_a_packet_table_never_gives_other_packets() {
    flip(Layer::Packets, |segment, object| beside_pages(segment, Layer::Packets, object)).await;
}

#[tokio::test]
async fn flipped_byte_of_a_flow_table_never_gives_other_packets() {
    flip(Layer::Flows, |segment, object| beside_pages(segment, Layer::Flows, object)).await;
}

#[tokio::test]
async fn flipped_byte_of_an_index_never_gives_other_packets() {
    flip(Layer::Index, |_, _| 0).await;
}

#[tokio::test]
async fn truncated_or_extended_layer_never_gives_other_packets() {
    let whole = Whole::of(&sealed()).await;
    for (layer, good) in &whole.layers {
        for length in (0..good.len()).step_by(7).chain([good.len() - 1]) {
            whole.refuses(*layer, good[..length].to_vec(), &format!("{layer:?} to {length}")).await;
        }
        for more in [1, 20, good.len()] {
            let grown = [&good[..], &vec![0x43; more]].concat();
            let refused =
                whole.refuses(*layer, grown, &format!("{layer:?} with {more} more")).await;
            assert_eq!(refused, *layer == Layer::Index);
            // Bytes put before all others move all others.
            let moved = [&vec![0x43; more], &good[..]].concat();
            assert!(whole.refuses(*layer, moved, &format!("{layer:?} after {more} more")).await);
        }
        assert!(whole.refuses(*layer, Vec::new(), &format!("no {layer:?}")).await);
    }
}

/// A fetch that gives another number of answers than there were questions.
struct Miscounted(Objects, bool);

#[async_trait]
impl Fetch for Miscounted {
    async fn fetch(&self, layer: Layer, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Failure> {
        let mut bytes = self.0.fetch(layer, ranges).await?;
        if self.1 {
            bytes.push(Bytes::new());
        } else {
            bytes.pop();
        }
        Ok(bytes)
    }
}

#[tokio::test]
async fn wrong_number_of_fetched_ranges_is_refused() {
    let sealed = sealed();
    let segment = Segment::open(&bytes(&sealed, Layer::Index)).unwrap();
    for more in [false, true] {
        let failure = packets(&segment, &Miscounted(objects(&sealed), more)).await.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Damaged);
    }
}
