//! Catalog entries: writers and commits of two recorders, as objects with their names.
#![no_main]

use capstan_fuzz::input::Take;
use capstan_model::{Generation, GenerationId, RecorderId, Time, TimeRange};
use capstan_storage_engine::catalog::{Catalog, Layer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut take = Take::new(input);
    let mut catalog = Catalog::new();
    while !take.is_empty() {
        let kind = take.u8();
        let recorder = RecorderId(u64::from(kind & 1) + 7);
        let of = GenerationId::new(recorder, Generation(u32::from(kind >> 1 & 1) + 1));
        let seq = u64::from(kind >> 4);
        // The last number there is, too.
        let seq = if seq == 15 { u64::MAX } else { seq };
        match kind >> 2 & 3 {
            0 => catalog.add_writer(of, take.short()),
            1 | 2 => catalog.add_commit(of, seq, take.short()),
            _ => catalog.add_missing(of, seq),
        }
    }
    ask(&catalog);
});

/// Every question a reader puts.
fn ask(catalog: &Catalog) {
    for problem in catalog.problems() {
        let _ = problem.to_string();
    }
    let middle = TimeRange { start: Time(0), end: Time(1 << 60) };
    let some = catalog.segments(middle).count();
    assert!(some <= catalog.segments(TimeRange::ALL).count());
    for segment in catalog.segments(TimeRange::ALL) {
        let _ = segment.hours().iter().map(|hour| hour.path().len()).sum::<usize>();
        for layer in Layer::SEALED {
            let path = segment.path(layer).to_string();
            assert!(path.starts_with("data/") && path.split('/').count() == 5, "{path}");
        }
        if let Some(filter) = &segment.entry.address_filter {
            let _ = filter.may_hold(capstan_model::Address::v4([10, 0, 0, 1]));
        }
    }
    for range in [middle, TimeRange::ALL] {
        let totals = catalog.totals(range);
        assert!(totals.segments <= catalog.segments(TimeRange::ALL).count() as u64);
        let _ = (catalog.coverage(range).count(), catalog.losses(range).count());
    }
    for (of, state) in catalog.generations() {
        assert!(catalog.state(of).is_some());
        let _ = (state.commits(), state.packets(), state.last_commit(), state.notes().len());
    }
    assert!(catalog.imports().len() <= catalog.generations().count());
    assert!(catalog.open_logs().count() <= catalog.generations().count());
}
