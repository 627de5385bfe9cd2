//! End-to-end tests of Capstan on real captures and real services, and what they share with the
//! tests of other crates.

#![forbid(unsafe_code)]

pub mod proxy;
pub mod s3;

use proxy::Way;

/// Says why a test has nothing to look at.
#[allow(clippy::print_stdout)] // The runner shows it beside the test.
pub fn skipped(why: &str) {
    println!("skipped: {why}");
}

/// A variable that says how the S3 server of the tests is reached, if it is set; a line if not.
pub fn s3_variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        skipped(&format!("{name} is not set; scripts/ceph starts a server and says what to set"));
    }
    value
}

/// The way to the S3 server of the tests, for a proxy; a line if there can be none.
pub fn way_to_s3() -> Option<Way> {
    let endpoint = s3_variable("CAPSTAN_S3_ENDPOINT")?;
    let address = endpoint.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    if address.is_none() {
        skipped("the server is not reached by http, which the proxy speaks");
    }
    address.map(Way::to)
}
