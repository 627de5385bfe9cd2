//! Protocol labels and TLS client hellos: IP protocol, ports, side, payload.
#![no_main]

use capstan_dissect::label::{client_hello, label};
use capstan_fuzz::input::Take;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut take = Take::new(input);
    let (protocol, source, destination) = (take.u8(), take.u16(), take.u16());
    let from_initiator = take.u8() & 1 == 1;
    let payload = take.rest();
    let told = label(protocol, source, destination, from_initiator, payload);
    if !matches!(protocol, 6 | 17) {
        assert_eq!(told, None);
    }
    for protocol in [6, 17] {
        let _ = label(protocol, source, destination, from_initiator, payload);
    }
    if let Some(hello) = client_hello(payload) {
        let names: usize = hello.alpn().map(<[u8]>::len).sum();
        assert!(names + hello.server_name.map_or(0, str::len) <= payload.len());
    }
});
