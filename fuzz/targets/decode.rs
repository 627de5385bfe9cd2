//! Packet headers: link type (u16), length on the wire (u32), bytes.
#![no_main]

use capstan_dissect::walk::{Header, Visit, Walk};
use capstan_fuzz::input::Take;
use capstan_model::LinkType;
use capstan_storage_engine::segment::template::{self, Endpoints, Template};
use libfuzzer_sys::fuzz_target;

struct Collect(Vec<Header>);

impl Visit for Collect {
    fn header(&mut self, header: Header, _limit: usize) {
        self.0.push(header);
    }
}

fuzz_target!(|input: &[u8]| {
    let mut take = Take::new(input);
    let (link, wire_length) = (LinkType(take.u16()), take.u32());
    let data = take.rest();
    let headers = capstan_dissect::decode(link, data, wire_length);
    let prefix = usize::from(headers.prefix);
    assert!(prefix <= data.len());

    let mut end = 0;
    for field in headers.fields() {
        let offset = usize::from(field.offset);
        assert!(offset >= end, "fields out of order");
        end = offset + field.kind.width();
        assert!(end <= prefix, "a field outside the prefix");
    }

    // Header by header is the same as all at once.
    let (mut all, mut step) = (Collect(Vec::new()), Walk::new(link, data, wire_length));
    let mut walk = Walk::new(link, data, wire_length);
    let stop = walk.run(&mut all);
    let stepped: Vec<Header> = step.by_ref().collect();
    assert_eq!(stepped, all.0);
    assert_eq!((step.state(), step.offset()), (Err(stop), walk.offset()));
    assert_eq!(walk.offset(), prefix);

    let mut bytes = Vec::new();
    let (values, set) = template::split(&headers, data, wire_length, &mut bytes);
    let ends = Endpoints {
        source: headers.source,
        destination: headers.destination,
        source_port: headers.source_port,
        destination_port: headers.destination_port,
    };
    let mut shared = Vec::new();
    template::without_endpoints(&bytes, &ends, &mut shared);
    for bytes in [bytes, shared] {
        let template = Template::parse(&bytes).expect("just cut");
        assert_eq!((template.set(), template.prefix_length()), (set, prefix));
        let mut back = Vec::new();
        template.fill(&values, &ends, wire_length, &mut back).expect("just cut");
        assert_eq!(back, data[..prefix], "the prefix does not come back");
    }
});
