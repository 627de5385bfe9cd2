//! What the fuzz targets share: how bytes become structured input, and what must hold of
//! whatever comes out of the code under test.
//!
//! * [`input`]: numbers and byte strings off the front of a fuzzer's bytes
//! * [`capture`]: reading a capture to its end
//! * [`packets`]: a sequence of packets, through the pipeline and back
//! * [`segment`]: a segment whose layers nobody vouches for, read in every way there is
//! * [`tables`]: Parquet layers to be damaged
//!
//! A target is a file in `targets/`; `scripts/fuzz` builds and runs them. Seeds come from
//! `src/bin/seeds.rs`, which needs captures to make them from.

#![forbid(unsafe_code)]

pub mod capture;
pub mod input;
pub mod packets;
pub mod segment;
pub mod tables;
