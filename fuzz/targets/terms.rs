//! The term index: untrusted bytes, and an index built from the same bytes.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use capstan_fuzz::input::Take;
use capstan_index::filter::{FlowFilter, Term};
use capstan_index::{Field, TermIndex, TermIndexBuilder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    if kind & 1 == 0 { read(bytes) } else { build(bytes) }
});

/// What is listed is found, in order, and no ordinal is beyond the flows.
fn read(bytes: &[u8]) {
    let Ok(index) = TermIndex::open(bytes) else { return };
    let mut listed = 0;
    for field in Field::ALL {
        let Ok(terms) = index.terms(*field) else { continue };
        let mut last: Option<Vec<u8>> = None;
        for term in terms {
            let Ok(term) = term else { break };
            assert!(last.as_ref().is_none_or(|last| *last < term.value), "out of order");
            if let Ok(postings) = term.postings.load() {
                assert!(postings.max().is_none_or(|max| max < index.flows()));
                // A roaring bitmap is kept as it lies there; anything else costs a bit an ordinal.
                assert!(postings.serialized_size() <= 64 + bytes.len() * 16, "memory");
            }
            listed += 1;
            last = Some(term.value);
        }
        for prefix in [&b""[..], b"\0", b"10."] {
            let _ = index.prefix(*field, prefix).map(Iterator::count);
        }
        for term in [
            Term::suffix(*field, &b"."[..]),
            Term::range(*field, [0; 2], [9; 2]),
            Term::one_of(*field, [vec![0], vec![1, 2]]),
        ] {
            if let Ok(matches) = FlowFilter::from(term).evaluate(&index) {
                assert!(matches.flows.is_disjoint(&matches.unknown));
                assert!(matches.flows.max().is_none_or(|max| max < index.flows()));
            }
        }
        let _ = index.postings(*field, &bytes[..bytes.len().min(20)]);
        let _ = last.map(|value| index.postings(*field, &value));
    }
    assert!(listed <= index.len());
}

fn build(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let flows = 1 + take.u32() % (1 << (take.u8() % 25));
    let (mut builder, mut model) = (TermIndexBuilder::new(), BTreeMap::new());
    while !take.is_empty() {
        let field = Field::ALL[usize::from(take.u8()) % Field::ALL.len()];
        let length = usize::from(take.u8());
        let value = take.at_most(length);
        let (first, step, count) = (take.u32() % flows, take.u16(), take.u8());
        for n in 0..=u32::from(count) {
            let ordinal = (first + n * u32::from(step)) % flows;
            builder.add(field, value, ordinal);
            model.entry((field, value)).or_insert_with(BTreeSet::new).insert(ordinal);
        }
    }
    let built = builder.finish(flows).expect("small");
    let index = TermIndex::open(&built).expect("just built");
    assert_eq!(index.len() as usize, model.len());
    for ((field, value), ordinals) in &model {
        let postings = index.postings(*field, value).expect("just built");
        assert!(postings.iter().eq(ordinals.iter().copied()), "{field:?} {value:?}");
    }
    for field in Field::ALL {
        let listed =
            index.terms(*field).expect("just built").map(|term| term.expect("just built").value);
        let expected = model.keys().filter(|(known, _)| known == field);
        assert!(listed.eq(expected.map(|(_, value)| value.to_vec())));
    }
}
