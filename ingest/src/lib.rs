//! From packets to segments: sources, flow table, segment building, upload.

pub mod source;
