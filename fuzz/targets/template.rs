//! Header templates as a segment holds them: field values, then the template.
#![no_main]

use capstan_fuzz::input::Take;
use capstan_storage_engine::segment::template::{Endpoints, FieldValues, Template};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut take = Take::new(input);
    let wire_length = take.u32();
    let values = FieldValues {
        trailer: take.u32().cast_signed(),
        ip_id: take.u16(),
        tcp_seq: take.u32(),
        checksum: take.u16(),
        ..FieldValues::default()
    };
    let ends = Endpoints { source_port: take.u16(), ..Endpoints::default() };
    let Ok(template) = Template::parse(take.rest()) else { return };
    let mut back = vec![1, 2, 3];
    if template.fill(&values, &ends, wire_length, &mut back).is_ok() {
        assert_eq!(back.len(), 3 + template.prefix_length());
    }
    assert_eq!(back[..3], [1, 2, 3], "what was there before");
});
