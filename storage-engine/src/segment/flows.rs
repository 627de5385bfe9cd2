//! The `flows.parquet` layer: a row per flow part, in stored order, with mergeable counters and the
//! location of its packets and payload.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampNanosecondArray, TypedDictionaryArray, UInt8Array,
    UInt16Array, UInt32Array,
};
use arrow::datatypes::{
    DataType, Int32Type, Int64Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type,
};
use capstan_index::End;
use capstan_model::identity::{Identity, Knowledge};
use capstan_model::{Address, FlowEnd, FlowId, FlowKey, FlowPart, LinkType, Protocol, Time};
use parquet::errors::ParquetError;

use super::Corrupt;
use super::tabular::{self, Column, Packing, Version, Written};

/// Format of the layer, in its footer (see [`tabular::FORMAT_KEY`]).
pub const VERSION: Version = (1, 0);

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

/// The columns, in order. They are only ever added to.
///
/// `source_namespace` to `destination_pod` are null where the identity of the end is not known.
pub fn columns() -> Vec<Column> {
    use DataType::{Boolean, FixedSizeBinary, Int32, Int64, UInt8, UInt16, UInt32, Utf8};
    use Packing::{Delta, Dictionary, Plain};
    let (time, label) = (tabular::timestamp(), tabular::label());
    vec![
        Column::new(1, "flow_id", FixedSizeBinary(16), false, Plain),
        Column::new(2, "source", FixedSizeBinary(16), false, Dictionary),
        Column::new(3, "destination", FixedSizeBinary(16), false, Dictionary),
        Column::new(4, "source_port", UInt16, false, Plain),
        Column::new(5, "destination_port", UInt16, false, Dictionary),
        Column::new(6, "ip_protocol", UInt8, false, Dictionary),
        Column::new(7, "vlan", UInt16, true, Dictionary),
        Column::new(8, "vni", UInt32, true, Dictionary),
        Column::new(9, "ethertype", UInt16, false, Dictionary),
        Column::new(10, "link_type", UInt16, true, Dictionary),
        Column::new(11, "interface", UInt32, true, Dictionary),
        Column::new(12, "fragment_id", UInt32, true, Plain),
        Column::new(13, "outer_source", FixedSizeBinary(16), true, Dictionary),
        Column::new(14, "outer_destination", FixedSizeBinary(16), true, Dictionary),
        Column::new(15, "protocol", label.clone(), false, Dictionary).or("unknown"),
        Column::new(16, "sni", Utf8, true, Dictionary),
        Column::new(17, "alpn", Utf8, true, Dictionary),
        Column::new(18, "first_time", time.clone(), true, Plain),
        Column::new(19, "last_time", time, true, Plain),
        Column::new(20, "packets_forward", Int64, false, Delta),
        Column::new(21, "packets_backward", Int64, false, Delta),
        Column::new(22, "bytes_forward", Int64, false, Delta),
        Column::new(23, "bytes_backward", Int64, false, Delta),
        Column::new(24, "payload_forward", Int64, false, Delta),
        Column::new(25, "payload_backward", Int64, false, Delta),
        Column::new(26, "tcp_flags_forward", UInt8, false, Dictionary),
        Column::new(27, "tcp_flags_backward", UInt8, false, Dictionary),
        Column::new(28, "opened", Boolean, false, Plain),
        Column::new(29, "end", label, false, Dictionary),
        Column::new(30, "first_row", Int32, false, Delta),
        Column::new(31, "head_offset", Int64, false, Delta),
        Column::new(32, "head_bytes", Int32, false, Delta),
        Column::new(33, "body_offset", Int64, false, Delta),
        Column::new(34, "body_bytes", Int64, false, Delta),
        Column::new(35, "source_namespace", Utf8, true, Dictionary),
        Column::new(36, "source_pod", Utf8, true, Dictionary),
        Column::new(37, "destination_namespace", Utf8, true, Dictionary),
        Column::new(38, "destination_pod", Utf8, true, Dictionary),
    ]
}

/// Writes the layer. The first `first_group` rows, those of quiet hosts, are a row group of their own.
///
/// # Errors
/// None that a caller can cause; the Parquet library's own are passed on.
pub fn write(rows: &[FlowRow], first_group: usize) -> Result<Written, ParquetError> {
    macro_rules! all {
        ($array:ty, $value:expr) => {
            Arc::new(rows.iter().map($value).collect::<$array>()) as ArrayRef
        };
    }
    let bytes16 = |value: &dyn Fn(&FlowRow) -> Option<[u8; 16]>| -> Result<ArrayRef, ParquetError> {
        let array =
            FixedSizeBinaryArray::try_from_sparse_iter_with_size(rows.iter().map(value), 16)?;
        Ok(Arc::new(array))
    };
    let times = |value: fn(&FlowPart) -> Option<Time>| -> ArrayRef {
        let array: TimestampNanosecondArray =
            rows.iter().map(|row| value(&row.part).map(|time| time.0)).collect();
        Arc::new(array.with_timezone("UTC"))
    };
    let labels = |value: fn(&FlowPart) -> &'static str| -> ArrayRef {
        let array: arrow::array::DictionaryArray<Int32Type> =
            rows.iter().map(|row| value(&row.part)).collect();
        Arc::new(array)
    };
    let of_end = |end: End, value: fn(&Identity) -> &Knowledge| -> ArrayRef {
        let value = |row: &FlowRow| -> Option<String> {
            let identity = &row.part.identity.as_ref()?[end as usize];
            value(identity).value().map(str::to_owned)
        };
        Arc::new(rows.iter().map(value).collect::<StringArray>())
    };
    let arrays: Vec<ArrayRef> = vec![
        bytes16(&|row| Some(row.part.id.0))?,
        bytes16(&|row| Some(row.part.key.source.0))?,
        bytes16(&|row| Some(row.part.key.destination.0))?,
        all!(UInt16Array, |row| Some(row.part.key.source_port)),
        all!(UInt16Array, |row| Some(row.part.key.destination_port)),
        all!(UInt8Array, |row| Some(row.part.key.ip_protocol)),
        all!(UInt16Array, |row| row.part.key.vlan),
        all!(UInt32Array, |row| row.part.key.vni),
        all!(UInt16Array, |row| Some(row.part.key.ethertype)),
        all!(UInt16Array, |row| row.part.key.pseudo.map(|(link, _)| link.0)),
        all!(UInt32Array, |row| row.part.key.pseudo.map(|(_, interface)| interface)),
        all!(UInt32Array, |row| row.part.key.fragment_id),
        bytes16(&|row| row.part.outer.map(|outer| outer.0.0))?,
        bytes16(&|row| row.part.outer.map(|outer| outer.1.0))?,
        labels(|part| part.protocol.name()),
        all!(StringArray, |row| row.part.sni.as_deref()),
        all!(StringArray, |row| row.part.alpn.as_deref()),
        times(|part| part.first),
        times(|part| part.last),
        all!(Int64Array, |row| Some(row.part.packets[0] as i64)),
        all!(Int64Array, |row| Some(row.part.packets[1] as i64)),
        all!(Int64Array, |row| Some(row.part.bytes[0] as i64)),
        all!(Int64Array, |row| Some(row.part.bytes[1] as i64)),
        all!(Int64Array, |row| Some(row.part.payload[0] as i64)),
        all!(Int64Array, |row| Some(row.part.payload[1] as i64)),
        all!(UInt8Array, |row| Some(row.part.tcp_flags[0])),
        all!(UInt8Array, |row| Some(row.part.tcp_flags[1])),
        all!(BooleanArray, |row| Some(row.part.opened)),
        labels(|part| part.end.name()),
        all!(Int32Array, |row| Some(row.placement.first_row as i32)),
        all!(Int64Array, |row| Some(row.placement.head_offset as i64)),
        all!(Int32Array, |row| Some(row.placement.head_bytes as i32)),
        all!(Int64Array, |row| Some(row.placement.body_offset as i64)),
        all!(Int64Array, |row| Some(row.placement.body_bytes as i64)),
        of_end(End::Source, |end| &end.namespace),
        of_end(End::Source, |end| &end.pod),
        of_end(End::Destination, |end| &end.namespace),
        of_end(End::Destination, |end| &end.pod),
    ];
    tabular::write(VERSION, &columns(), arrays, first_group)
}

/// Reads the rows of a batch (all columns of the layer) back.
///
/// # Errors
/// [`Corrupt`] when a column is missing or has another type.
pub fn read(batch: &RecordBatch) -> Result<Vec<FlowRow>, Corrupt> {
    let bad = |what: String| Corrupt::new("flows", what);
    let get = |name: &str| {
        batch.column_by_name(name).ok_or_else(|| bad(format!("column {name} is missing")))
    };
    macro_rules! typed {
        ($name:literal, $kind:ty) => {
            get($name)?
                .as_primitive_opt::<$kind>()
                .ok_or_else(|| bad(format!("column {} has another type", $name)))?
        };
    }
    let bytes16 = |name: &str| {
        get(name)?
            .as_fixed_size_binary_opt()
            .filter(|array| array.value_length() == 16)
            .ok_or_else(|| bad(format!("column {name} has another type")))
    };
    let labels = |name: &str| {
        get(name)?
            .as_dictionary_opt::<Int32Type>()
            .and_then(|array| array.downcast_dict::<StringArray>())
            .ok_or_else(|| bad(format!("column {name} has another type")))
    };
    let strings = |name: &str| {
        get(name)?
            .as_string_opt::<i32>()
            .ok_or_else(|| bad(format!("column {name} has another type")))
    };
    let flow_id = bytes16("flow_id")?;
    let (source, destination) = (bytes16("source")?, bytes16("destination")?);
    let source_port = typed!("source_port", UInt16Type);
    let destination_port = typed!("destination_port", UInt16Type);
    let ip_protocol = typed!("ip_protocol", UInt8Type);
    let vlan = typed!("vlan", UInt16Type);
    let vni = typed!("vni", UInt32Type);
    let ethertype = typed!("ethertype", UInt16Type);
    let link_type = typed!("link_type", UInt16Type);
    let interface = typed!("interface", UInt32Type);
    let fragment_id = typed!("fragment_id", UInt32Type);
    let outer = (bytes16("outer_source")?, bytes16("outer_destination")?);
    let protocol = labels("protocol")?;
    let (sni, alpn) = (strings("sni")?, strings("alpn")?);
    let first = typed!("first_time", TimestampNanosecondType);
    let last = typed!("last_time", TimestampNanosecondType);
    let packets = [typed!("packets_forward", Int64Type), typed!("packets_backward", Int64Type)];
    let bytes = [typed!("bytes_forward", Int64Type), typed!("bytes_backward", Int64Type)];
    let payload = [typed!("payload_forward", Int64Type), typed!("payload_backward", Int64Type)];
    let tcp_flags =
        [typed!("tcp_flags_forward", UInt8Type), typed!("tcp_flags_backward", UInt8Type)];
    let opened = get("opened")?.as_boolean_opt().ok_or_else(|| bad("column opened".to_owned()))?;
    let end = labels("end")?;
    let first_row = typed!("first_row", Int32Type);
    let head_offset = typed!("head_offset", Int64Type);
    let head_bytes = typed!("head_bytes", Int32Type);
    let body_offset = typed!("body_offset", Int64Type);
    let body_bytes = typed!("body_bytes", Int64Type);

    let address = |array: &FixedSizeBinaryArray, i: usize| {
        Address(<[u8; 16]>::try_from(array.value(i)).unwrap_or_default())
    };
    macro_rules! opt {
        ($array:expr, $i:expr) => {
            $array.is_valid($i).then(|| $array.value($i))
        };
    }
    macro_rules! pair {
        ($arrays:expr, $i:expr, $to:ty) => {
            [$arrays[0].value($i) as $to, $arrays[1].value($i) as $to]
        };
    }
    let row = |i: usize| FlowRow {
        part: FlowPart {
            id: FlowId(<[u8; 16]>::try_from(flow_id.value(i)).unwrap_or_default()),
            key: FlowKey {
                source: address(source, i),
                destination: address(destination, i),
                source_port: source_port.value(i),
                destination_port: destination_port.value(i),
                ip_protocol: ip_protocol.value(i),
                vlan: opt!(vlan, i),
                vni: opt!(vni, i),
                ethertype: ethertype.value(i),
                pseudo: opt!(link_type, i)
                    .map(|link| (LinkType(link), opt!(interface, i).unwrap_or_default())),
                fragment_id: opt!(fragment_id, i),
            },
            outer: outer.0.is_valid(i).then(|| (address(outer.0, i), address(outer.1, i))),
            protocol: label(protocol, i)
                .and_then(|name| name.parse().ok())
                .unwrap_or(Protocol::Unknown),
            sni: opt!(sni, i).map(str::to_owned),
            alpn: opt!(alpn, i).map(str::to_owned),
            first: opt!(first, i).map(Time),
            last: opt!(last, i).map(Time),
            packets: pair!(packets, i, u64),
            bytes: pair!(bytes, i, u64),
            payload: pair!(payload, i, u64),
            tcp_flags: pair!(tcp_flags, i, u8),
            opened: opened.value(i),
            end: label(end, i)
                .and_then(|name| FlowEnd::ALL.into_iter().find(|end| end.name() == name))
                .unwrap_or_default(),
            // The columns do not tell what is not known from what is not there.
            identity: None,
        },
        placement: Placement {
            first_row: first_row.value(i) as u32,
            head_offset: head_offset.value(i) as u64,
            head_bytes: head_bytes.value(i) as u32,
            body_offset: body_offset.value(i) as u64,
            body_bytes: body_bytes.value(i) as u64,
        },
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

/// The text of a dictionary column; none where it is null.
fn label<'a>(
    array: TypedDictionaryArray<'a, Int32Type, StringArray>,
    row: usize,
) -> Option<&'a str> {
    let key = usize::try_from(array.keys().value(row)).ok()?;
    (array.keys().is_valid(row) && key < array.values().len()).then(|| array.values().value(key))
}
