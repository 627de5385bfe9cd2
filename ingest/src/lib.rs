//! From packets to segments: sources, flow table, segment building, upload.

pub mod flow_table;
pub mod pipeline;
pub mod source;
