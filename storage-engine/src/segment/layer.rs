//! The kinds of layers.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use super::column::Column;
use super::index_layer::Section;

/// A format number: major (a reader refuses a newer one) and minor.
pub type Version = (u16, u16);

/// One object of a segment. Degrading a segment deletes layers: `body` first,
/// then `head`, then `packets`; `index` goes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// Payload past the head cutoff.
    Body,
    /// The first payload bytes of each flow part.
    Head,
    /// A row a packet.
    Packets,
    /// A row a flow part.
    Flows,
    /// A table that is added to a sealed segment.
    Added(&'static TableLayer),
    /// Terms, directories and footers.
    Index,
}

impl Layer {
    /// The layers with which a segment is sealed, in the order in which they may be deleted.
    pub const SEALED: [Layer; 5] =
        [Layer::Body, Layer::Head, Layer::Packets, Layer::Flows, Layer::Index];

    /// Its name in catalog entries and SQL.
    pub const fn name(self) -> &'static str {
        match self {
            Layer::Body => "body",
            Layer::Head => "head",
            Layer::Packets => "packets",
            Layer::Flows => "flows",
            Layer::Added(table) => table.name,
            Layer::Index => "index",
        }
    }

    /// Its object's last path element.
    pub const fn file(self) -> &'static str {
        match self {
            Layer::Packets => "packets.parquet",
            Layer::Flows => "flows.parquet",
            Layer::Added(table) => table.file,
            Layer::Body | Layer::Head | Layer::Index => self.name(),
        }
    }
}

/// A layer that is a Parquet table.
#[derive(Debug, Clone, Copy)]
pub struct TableLayer {
    /// Its name in catalog entries and SQL: lower case letters, digits and `-`. No two layers have one name.
    pub name: &'static str,
    /// Its object's last path element: the name and `.parquet`.
    pub file: &'static str,
    /// The newest format that is read, and the one that is written.
    pub version: Version,
    /// Its columns, in the order in which SQL shows them. They are only ever added to.
    pub columns: &'static [Column],
    /// Where its directory is: its footer and the checksums of its pages.
    pub directory: Directory,
    /// Its table in SQL, if that has a row for each row of the layer and the columns that are shown; none if the table
    /// is made in another way.
    pub sql: Option<&'static str>,
}

/// Where the footer of a table and the checksums of its pages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directory {
    /// In sections of the `index` layer: the table is sealed with the segment.
    Index {
        /// The footer; in earlier stores the page index before it, too.
        tail: Section,
        /// The checksums.
        pages: Section,
        /// The checksums as earlier stores have them.
        entries: Section,
    },
    /// At the end of its own object: the table is added later, when `index` cannot be changed any more.
    Own,
}

impl TableLayer {
    /// Its columns in the order in which the object has them.
    pub fn stored_columns(&self) -> Vec<Column> {
        let mut columns = self.columns.to_vec();
        columns.sort_unstable_by_key(|column| column.id);
        columns
    }

    /// The column with this name in the object.
    pub fn column(&self, name: &str) -> Option<&'static Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// Layers are equal if their names are.
impl PartialEq for TableLayer {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for TableLayer {}

impl Hash for TableLayer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl PartialOrd for TableLayer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TableLayer {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(other.name)
    }
}
