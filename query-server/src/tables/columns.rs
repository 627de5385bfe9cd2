//! The columns of the tables: stable names and types. `docs/sql.md` says what each one means.
//!
//! Counts and lengths are `BIGINT`, small numbers `INTEGER`, times nanoseconds in UTC: what
//! DuckDB, pandas and BI drivers take without a cast. Text is held as views, which group,
//! compare and repeat without copying, and travels as plain text.

use std::sync::Arc;

use capstan_storage_engine::segment::column::ColumnType;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Nanoseconds since 1970 UTC.
pub(super) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

macro_rules! columns {
    ($(#[$doc:meta])* $name:ident: $($variant:ident = $text:literal, $data_type:expr, $nullable:literal;)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(super) enum $name {
            $(
                #[doc = concat!("`", $text, "`")]
                $variant,
            )*
        }

        impl $name {
            /// Every column, in the order of `SELECT *`.
            pub(super) const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// Its name in SQL.
            pub(super) fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)*
                }
            }

            /// Its name, type, and whether it can be null.
            pub(super) fn field(self) -> Field {
                let (data_type, nullable) = match self {
                    $($name::$variant => ($data_type, $nullable),)*
                };
                Field::new(self.name(), data_type, nullable)
            }

            /// The schema of some columns.
            pub(super) fn schema(columns: &[$name]) -> SchemaRef {
                let fields: Vec<Field> = columns.iter().map(|column| column.field()).collect();
                Arc::new(Schema::new(fields))
            }
        }
    };
}

columns! {
    /// A column of `packets`.
    PacketColumn:
    Time = "time", timestamp(), true;
    Recorder = "recorder", DataType::Utf8View, false;
    Generation = "generation", DataType::Int32, false;
    Ordinal = "ordinal", DataType::Int64, false;
    Observer = "observer", DataType::Utf8View, false;
    FlowId = "flow_id", DataType::Utf8View, false;
    Direction = "direction", DataType::Utf8View, false;
    Interface = "interface", DataType::Int32, false;
    InterfaceName = "interface_name", DataType::Utf8View, true;
    LinkType = "link_type", DataType::Int32, true;
    Length = "length", DataType::Int64, false;
    CapturedLength = "captured_length", DataType::Int64, false;
    SourceIp = "source_ip", DataType::Utf8View, true;
    DestinationIp = "destination_ip", DataType::Utf8View, true;
    SourcePort = "source_port", DataType::Int32, true;
    DestinationPort = "destination_port", DataType::Int32, true;
    IpProtocol = "ip_protocol", DataType::Int32, true;
    Protocol = "protocol", DataType::Utf8View, false;
    Vlan = "vlan", DataType::Int32, true;
    Vni = "vni", DataType::Int64, true;
    OuterSourceIp = "outer_source_ip", DataType::Utf8View, true;
    OuterDestinationIp = "outer_destination_ip", DataType::Utf8View, true;
    TcpFlags = "tcp_flags", DataType::Int32, true;
    TcpSeq = "tcp_seq", DataType::Int64, true;
    TcpAck = "tcp_ack", DataType::Int64, true;
    TcpWindow = "tcp_window", DataType::Int32, true;
    Header = "header", DataType::Binary, false;
    Payload = "payload", DataType::Binary, true;
    Data = "data", DataType::Binary, true;
    Identity = "identity", DataType::Utf8View, false;
    SourceNamespace = "source_namespace", DataType::Utf8View, true;
    SourcePod = "source_pod", DataType::Utf8View, true;
    DestinationNamespace = "destination_namespace", DataType::Utf8View, true;
    DestinationPod = "destination_pod", DataType::Utf8View, true;
    Segment = "segment", DataType::Utf8View, false;
}

/// The type in which SQL shows a stored column.
pub(super) fn shown_type(of: ColumnType) -> DataType {
    match of {
        ColumnType::Bool => DataType::Boolean,
        ColumnType::U8 | ColumnType::U16 | ColumnType::I16 | ColumnType::I32 => DataType::Int32,
        ColumnType::U32 | ColumnType::U64 | ColumnType::I64 => DataType::Int64,
        ColumnType::Time => timestamp(),
        ColumnType::Text | ColumnType::Label => DataType::Utf8View,
        ColumnType::Bytes16 | ColumnType::Template => DataType::Binary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_table_names_a_column_twice() {
        let mut names: Vec<_> = PacketColumn::ALL.iter().map(|column| column.name()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
