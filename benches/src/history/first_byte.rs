//! Time to the first packets of an export of a whole history, from a bucket where each request takes 20 ms before its
//! first byte. Each export is a process of its own that starts with nothing.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use capstan_model::{Failure, FailureKind};

use crate::bench::without_settings;
use crate::distant::Distant;

/// Bytes read of each export: more than its header.
const FIRST: usize = 256 << 10;

/// Time to the first [`FIRST`] bytes of an export of a store in this order, or to its end.
///
/// `capstan` is the binary; `place` is the folder of the store.
pub(super) fn first_bytes(
    capstan: &Path,
    place: &Path,
    cluster: &str,
    order: &str,
) -> Result<Duration, Failure> {
    let cannot = |error| Failure::io("cannot measure the first bytes of an export", error);
    let distant = Distant::start(place)?;
    let mut export = distant.reached(without_settings(capstan));
    export.args(["export", "--order", order]);
    export.args(["--cluster", cluster, "-o", "-", "--store"]).arg(distant.store());
    let began = Instant::now();
    let mut child = export
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(cannot)?;
    let mut first = Vec::with_capacity(FIRST);
    let read = match child.stdout.take() {
        Some(output) => output.take(FIRST as u64).read_to_end(&mut first),
        None => Ok(0),
    };
    let took = began.elapsed();
    // It may have ended by itself, which is as good.
    let _ = child.kill();
    child.wait().map_err(cannot)?;
    match read.map_err(cannot)? {
        0 => Err(Failure::new(
            FailureKind::Other,
            format!("the export in {order} order gave nothing"),
        )),
        _ => Ok(took),
    }
}
