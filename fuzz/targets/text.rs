//! Text that people write: times, addresses, protocols.
#![no_main]

use capstan_model::{Address, Protocol, Time};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(time) = Time::parse(text, Time(1_700_000_000_000_000_000)) {
        assert_eq!(Time::parse(&time.to_string(), Time(0)), Ok(time));
    }
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(protocol) = text.parse::<Protocol>() {
        assert_eq!(protocol.name().parse(), Ok(protocol));
    }
});
