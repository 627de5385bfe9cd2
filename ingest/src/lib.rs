//! From packets to segments in a store.
//!
//! ```text
//! source -> pipeline (decode, flow_table, label, segment builder) -> upload -> catalog commit
//! ```
//!
//! * [`source`]: capture files, streams, live interfaces
//! * [`flow_table`]: which flow a packet belongs to
//! * [`pipeline`]: packets into open segments
//! * [`upload`]: sealing, uploading, committing
//! * [`import`]: a capture file from one end to the other
//! * [`memory`]: what is asked of the allocator; an allocator that counts
//! * [`process`]: a recorder, and the server beside it
//! * [`record`]: a live interface, for as long as it is wanted

pub mod flow_table;
pub mod import;
pub mod memory;
pub mod pipeline;
pub mod process;
pub mod record;
pub mod source;
pub mod upload;
