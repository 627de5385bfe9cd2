//! The `flows.parquet` layer: a row per flow part, in stored order, with mergeable counters and the
//! location of its packets and payload.
//!
//! [`COLUMNS`] declares each column once. Writer, reader, the tables `flows` and `flow_parts` of SQL, and the merge of
//! parts follow from it. A new column is a line there, and in `docs/format.md` and `docs/sql.md`.

use arrow::array::RecordBatch;
use capstan_model::{FlowId, FlowKey, FlowPart};
use parquet::errors::ParquetError;

use super::column::Column;
use super::index_layer::Section;
use super::tabular::{self, Written};
use super::{Corrupt, Directory, TableLayer, Version};
pub use columns::COLUMNS;

mod access;
mod columns;

/// Format of the layer, in its footer (see [`tabular::FORMAT_KEY`]).
pub const VERSION: Version = (1, 0);

/// The layer as a table. SQL reads it with what the index selects, so it makes its tables itself.
pub static TABLE: TableLayer = TableLayer {
    name: "flows",
    file: "flows.parquet",
    version: VERSION,
    columns: &columns::DECLARED,
    directory: Directory::Index {
        tail: Section::FlowsTail,
        pages: Section::FlowsPages,
        entries: Section::FlowsEntries,
    },
    sql: None,
};

/// Where a flow part's packets and payload lie in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placement {
    /// First row in `packets.parquet`; it has as many rows as packets.
    pub first_row: u32,
    /// Raw offset of its payload in `head`.
    pub head_offset: u64,
    /// Payload bytes in `head`.
    pub head_bytes: u32,
    /// Raw offset of the rest of its payload in `body`.
    pub body_offset: u64,
    /// Payload bytes in `body`.
    pub body_bytes: u64,
}

/// A row of the layer.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowRow {
    /// Who, what and how much.
    pub part: FlowPart,
    /// Where.
    pub placement: Placement,
}

impl FlowRow {
    /// Packets of the part, both ways: rows it has in `packets.parquet`.
    pub fn packets(&self) -> u64 {
        // Stored counters may say anything.
        self.part.packets[0].saturating_add(self.part.packets[1])
    }
}

/// Rows of which all columns are filled before those of the next: few enough to stay in a processor's cache.
const AT_ONCE: usize = 256;

/// Writes the layer. The first `first_group` rows, those of quiet hosts, are a row group of their own.
///
/// # Errors
/// None that a caller can cause; the Parquet library's own are passed on.
pub fn write(rows: &[FlowRow], first_group: usize) -> Result<Written, ParquetError> {
    let mut stored: Vec<_> = COLUMNS.iter().collect();
    stored.sort_unstable_by_key(|declared| declared.column.id);
    let columns: Vec<Column> = stored.iter().map(|declared| declared.column).collect();
    let arrays = stored.iter().map(|declared| declared.access.array(rows));
    tabular::write(VERSION, &columns, arrays.collect::<Result<_, _>>()?, first_group)
}

/// Reads the rows of a batch (all columns of the layer) back.
///
/// # Errors
/// [`Corrupt`] when a column is missing or has another type.
pub fn read(batch: &RecordBatch) -> Result<Vec<FlowRow>, Corrupt> {
    let bad = |what: String| Corrupt::new("flows", what);
    let columns = COLUMNS.iter().map(|declared| {
        let name = declared.column.name;
        let array = batch.column_by_name(name);
        let array = array.ok_or_else(|| bad(format!("column {name} is missing")))?;
        let reader = declared.access.reader(array);
        reader.ok_or_else(|| bad(format!("column {name} has another type")))
    });
    let columns: Vec<_> = columns.collect::<Result<_, _>>()?;
    let empty = FlowPart::new(FlowId([0; 16]), FlowKey::default());
    let empty = FlowRow { part: empty, placement: Placement::default() };
    let mut rows = vec![empty; batch.num_rows()];
    for (number, rows) in rows.chunks_mut(AT_ONCE).enumerate() {
        for column in &columns {
            column.fill(number * AT_ONCE, rows);
        }
    }
    Ok(rows)
}
