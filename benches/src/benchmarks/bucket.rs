//! Records a busy interface into an S3 bucket, while tcpdump and dumpcap record it to files.

use capstan_model::Failure;

use super::live;
use crate::bench::{Bench, Outcome};

pub(super) fn run(bench: &mut Bench) -> Result<Outcome, Failure> {
    live::run_into(bench, live::Into::Bucket)
}
