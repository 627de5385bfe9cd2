//! What a column of a Parquet layer is: one declaration, from which its writer, its readers, its table in SQL and the
//! merge of its rows follow.

use arrow::datatypes::{DataType, TimeUnit};

/// The type of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// True or false.
    Bool,
    /// Unsigned, 8 bits.
    U8,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 16 bits.
    I16,
    /// Signed, 32 bits.
    I32,
    /// Signed, 64 bits.
    I64,
    /// Nanoseconds since 1970 UTC.
    Time,
    /// UTF-8.
    Text,
    /// UTF-8, with few different values.
    Label,
    /// 16 bytes: an address or a flow id.
    Bytes16,
    /// Bytes, with few different values.
    Template,
}

impl ColumnType {
    /// The Arrow type.
    pub fn data_type(self) -> DataType {
        let dictionary = |of| DataType::Dictionary(Box::new(DataType::Int32), Box::new(of));
        match self {
            ColumnType::Bool => DataType::Boolean,
            ColumnType::U8 => DataType::UInt8,
            ColumnType::U16 => DataType::UInt16,
            ColumnType::U32 => DataType::UInt32,
            ColumnType::U64 => DataType::UInt64,
            ColumnType::I16 => DataType::Int16,
            ColumnType::I32 => DataType::Int32,
            ColumnType::I64 => DataType::Int64,
            ColumnType::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
            ColumnType::Text => DataType::Utf8,
            ColumnType::Label => dictionary(DataType::Utf8),
            ColumnType::Bytes16 => DataType::FixedSizeBinary(16),
            ColumnType::Template => dictionary(DataType::Binary),
        }
    }
}

/// How a column's values are laid out before compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Few distinct values.
    Dictionary,
    /// Rising, or slowly changing.
    Delta,
    /// Small numbers in wide types.
    ByteSplit,
    /// Anything else.
    Plain,
}

/// How the values of a flow's parts become the flow's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Merge {
    /// It identifies the flow.
    Id,
    /// The same in all parts.
    Same,
    /// The sum.
    Sum,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The union of all bits.
    BitOr,
    /// Whether it is true of one.
    Or,
    /// Of the parts in time order, the first that has one.
    First,
    /// Of the parts in time order, the last.
    Last,
    /// Of the parts in time order, the last that is not the column's default.
    LastKnown,
}

/// How a stored value is shown in SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Meaning {
    /// As it is.
    Plain,
    /// The id of a flow.
    FlowId,
    /// The address of an end; a flow of packets that are neither IP nor ARP has none.
    End,
    /// The address of an end of a tunnel.
    TunnelEnd,
    /// The port of an end; null where the protocol has no ports, or where a fragment hid them.
    Port,
    /// An IP protocol number; null for packets that are not IP.
    IpProtocol,
}

/// A column of one of our Parquet files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name; never re-used for another meaning.
    pub name: &'static str,
    /// Its Parquet field id, from 1; never re-used.
    pub id: i32,
    /// The type of its values.
    pub of: ColumnType,
    /// Whether it can be null.
    pub nullable: bool,
    /// See [`Packing`].
    pub packing: Packing,
    /// Whether the file tells the least and the greatest value of each page, for readers that
    /// look for a range of values.
    pub bounds: bool,
    /// The label it reads as in a file that was written before the column was there. Without one such a file reads as
    /// null, or is not whole if the column cannot be null.
    pub default: Option<&'static str>,
    /// Its name in SQL, and what its values mean there; none if SQL does not show it.
    pub shown: Option<(&'static str, Meaning)>,
    /// How it is merged over the parts of a flow; none if it belongs to one part alone.
    pub merge: Option<Merge>,
}

impl Column {
    /// A column that SQL does not show.
    pub const fn new(
        id: i32,
        name: &'static str,
        of: ColumnType,
        nullable: bool,
        packing: Packing,
    ) -> Self {
        let (default, shown, merge) = (None, None, None);
        Column { name, id, of, nullable, packing, bounds: true, default, shown, merge }
    }

    /// The column without bounds of its values: no query needs them.
    #[must_use]
    pub const fn unbounded(self) -> Self {
        Column { bounds: false, ..self }
    }

    /// The column, a [`ColumnType::Label`], as a file without it is read.
    #[must_use]
    pub const fn or(self, label: &'static str) -> Self {
        Column { default: Some(label), ..self }
    }

    /// The column as SQL shows it, under this name.
    #[must_use]
    pub const fn shown(self, name: &'static str, meaning: Meaning) -> Self {
        Column { shown: Some((name, meaning)), ..self }
    }

    /// The column with its merge.
    #[must_use]
    pub const fn merged(self, merge: Merge) -> Self {
        Column { merge: Some(merge), ..self }
    }

    /// Whether a file may lack it: it then reads as its default, or as null.
    pub const fn may_be_absent(&self) -> bool {
        self.nullable || self.default.is_some()
    }
}
