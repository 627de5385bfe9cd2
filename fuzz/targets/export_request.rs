//! The export command as it comes over Flight.
#![no_main]

use capstan_model::Time;
use capstan_query_server::flight::ExportRequest;
use libfuzzer_sys::fuzz_target;

const NOW: Time = Time(1_700_000_000_000_000_000);

fuzz_target!(|input: &[u8]| {
    let Ok(request) = ExportRequest::from_json(input, NOW) else { return };
    assert!(request.selection.range.start < request.selection.range.end);
    let json = request.to_json().expect("plain values");
    let again = ExportRequest::from_json(&json, Time(0)).expect("just written");
    assert_eq!(again, request);
});
