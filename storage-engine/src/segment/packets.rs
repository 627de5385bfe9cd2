//! The `packets.parquet` layer: a row per packet, in run, flow and capture order.
//!
//! A packet's header is rebuilt from its template ([`super::template`]), the ends of its flow, and
//! the columns of this layer. Some columns hold deltas to a prediction ([`super::predict`]).

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch};
use arrow::datatypes::{
    Int16Type, Int32Type, Int64Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use capstan_model::packet::Stamp;
use capstan_model::{Direction, Time};

use super::column::{Column, ColumnType, Packing};
use super::index_layer::Section;
use super::predict::{Deltas, Predictor};
use super::template::{Endpoints, FieldValues, Template};
use super::{Corrupt, Directory, TableLayer, Version};
pub use rows::Rows;
pub use writer::{Context, write};

mod rows;
mod writer;

/// Format of the layer, in its footer (see [`super::tabular::FORMAT_KEY`]).
pub const VERSION: Version = (2, 0);

/// Names of the columns.
pub mod column {
    /// Place in capture order within the recorder's generation.
    pub const ORDINAL: &str = "ordinal";
    /// When it was captured.
    pub const TIME: &str = "time";
    /// Raw ticks of a time that nanoseconds cannot say.
    pub const TICKS: &str = "ticks";
    /// Row number of its flow part in `flows.parquet`.
    pub const FLOW: &str = "flow";
    /// From the flow's destination to its source.
    pub const BACKWARD: &str = "backward";
    /// Number of the interface in the recorder's generation.
    pub const INTERFACE: &str = "interface";
    /// Bytes on the wire.
    pub const LENGTH: &str = "length";
    /// Bytes captured where that is not `length`.
    pub const CAPTURED: &str = "captured";
    /// The header template.
    pub const TEMPLATE: &str = "template";
    /// Bytes behind the end of the innermost IP packet.
    pub const TRAILER: &str = "trailer";
    /// See [`super::Deltas::tcp_seq`].
    pub const TCP_SEQ: &str = "tcp_seq_delta";
    /// See [`super::Deltas::tcp_ack`].
    pub const TCP_ACK: &str = "tcp_ack_delta";
    /// TCP flags.
    pub const TCP_FLAGS: &str = "tcp_flags";
    /// TCP window as sent.
    pub const TCP_WINDOW: &str = "tcp_window";
    /// See [`super::Deltas::tcp_timestamp`].
    pub const TCP_TIMESTAMP: &str = "tcp_timestamp_delta";
    /// See [`super::Deltas::tcp_echo`].
    pub const TCP_ECHO: &str = "tcp_echo_delta";
    /// See [`super::Deltas::ip_id`].
    pub const IP_ID: &str = "ip_id_delta";
    /// See [`super::Deltas::outer_ip_id`].
    pub const OUTER_IP_ID: &str = "outer_ip_id_delta";
    /// Checksum of the innermost transport.
    pub const CHECKSUM: &str = "checksum";
    /// UDP checksum of the outer header.
    pub const OUTER_CHECKSUM: &str = "outer_checksum";
    /// Application protocol of the flow.
    pub const PROTOCOL: &str = "protocol";
}

/// The layer as a table. SQL shows a packet with what it has of its flow, so it makes its table `packets` itself.
pub static TABLE: TableLayer = TableLayer {
    name: "packets",
    file: "packets.parquet",
    version: VERSION,
    columns: &COLUMNS,
    directory: Directory::Index {
        tail: Section::PacketsTail,
        pages: Section::PacketsPages,
        entries: Section::PacketsEntries,
    },
    sql: None,
};

/// The columns, in order.
const COLUMNS: [Column; 21] = {
    use ColumnType::{Bool, I16, I32, I64, Label, Time, U8, U16, U32, U64};
    use Packing::{ByteSplit, Delta, Dictionary, Plain};
    [
        Column::new(1, column::ORDINAL, I64, false, Delta),
        Column::new(2, column::TIME, Time, true, Delta),
        Column::new(3, column::TICKS, U64, true, Plain),
        Column::new(4, column::FLOW, I32, false, Delta),
        Column::new(5, column::BACKWARD, Bool, false, Plain),
        Column::new(6, column::INTERFACE, I32, false, Delta),
        Column::new(7, column::LENGTH, U32, false, Dictionary),
        Column::new(8, column::CAPTURED, U32, true, Dictionary).unbounded(),
        Column::new(9, column::TEMPLATE, ColumnType::Template, false, Dictionary).unbounded(),
        Column::new(10, column::TRAILER, I32, false, Delta).unbounded(),
        Column::new(11, column::TCP_SEQ, I32, true, ByteSplit).unbounded(),
        Column::new(12, column::TCP_ACK, I32, true, ByteSplit).unbounded(),
        Column::new(13, column::TCP_FLAGS, U8, true, Dictionary).unbounded(),
        Column::new(14, column::TCP_WINDOW, U16, true, Dictionary).unbounded(),
        Column::new(15, column::TCP_TIMESTAMP, I32, true, ByteSplit).unbounded(),
        Column::new(16, column::TCP_ECHO, I32, true, ByteSplit).unbounded(),
        Column::new(17, column::IP_ID, I16, true, ByteSplit).unbounded(),
        Column::new(18, column::OUTER_IP_ID, I16, true, ByteSplit).unbounded(),
        Column::new(19, column::CHECKSUM, U16, true, ByteSplit).unbounded(),
        Column::new(20, column::OUTER_CHECKSUM, U16, true, ByteSplit).unbounded(),
        Column::new(21, column::PROTOCOL, Label, false, Dictionary).unbounded().or("unknown"),
    ]
};

/// The row of one packet: everything except its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketRow {
    /// Place in capture order within the recorder's generation.
    pub ordinal: u64,
    /// Nanoseconds since 1970; meaningless where `stamp` says so.
    pub time: i64,
    /// Number of its flow part: while building in order of appearance, stored in stored order.
    pub flow: u32,
    /// Number of its template.
    pub template: u32,
    /// Bytes on the wire.
    pub length: u32,
    /// Bytes captured.
    pub captured: u32,
    /// Bytes behind the end of the innermost IP packet.
    pub trailer: i32,
    /// Number of the interface.
    pub interface: u32,
    /// Deltas to the predictions.
    pub deltas: Deltas,
    /// See [`FieldValues::checksum`].
    pub checksum: u16,
    /// See [`FieldValues::outer_checksum`].
    pub outer_checksum: u16,
    /// See [`FieldValues::tcp_window`].
    pub tcp_window: u16,
    /// See [`FieldValues::tcp_flags`].
    pub tcp_flags: u8,
    /// Bit 0: backward. Bits 1 and 2: kind of time stamp.
    bits: u8,
}

const BACKWARD: u8 = 1;
const NO_TIME: u8 = 2;
const HAS_TICKS: u8 = 4;

impl PacketRow {
    /// A row of a packet without its predicted fields.
    pub fn new(ordinal: u64, stamp: Stamp, direction: Direction) -> Self {
        let mut bits = direction as u8;
        if stamp.time().is_none() {
            bits |= NO_TIME;
        }
        if matches!(stamp, Stamp::Raw { .. }) {
            bits |= HAS_TICKS;
        }
        PacketRow {
            ordinal,
            time: stamp.time().map_or(0, |time| time.0),
            flow: 0,
            template: 0,
            length: 0,
            captured: 0,
            trailer: 0,
            interface: 0,
            deltas: Deltas::default(),
            checksum: 0,
            outer_checksum: 0,
            tcp_window: 0,
            tcp_flags: 0,
            bits,
        }
    }

    /// When it was captured, to the nanosecond, if that can be said.
    pub fn time(&self) -> Option<Time> {
        (self.bits & NO_TIME == 0).then_some(Time(self.time))
    }

    /// Whether raw ticks are kept beside (see [`Stamp::Raw`]).
    pub fn has_ticks(&self) -> bool {
        self.bits & HAS_TICKS != 0
    }

    /// Makes it go the other way.
    pub fn turn(&mut self) {
        self.bits ^= BACKWARD;
    }

    /// Which way it goes.
    pub fn direction(&self) -> Direction {
        if self.bits & BACKWARD == 0 { Direction::Forward } else { Direction::Backward }
    }
}

/// TCP payload on the wire as [`Predictor`] wants it.
#[inline]
pub fn wire_payload(length: u32, trailer: i32, prefix: usize) -> u32 {
    let payload = i64::from(length) - i64::from(trailer) - prefix as i64;
    u32::try_from(payload.max(0)).unwrap_or(u32::MAX)
}

/// Templates seen while reading a segment, numbered in order of appearance (not by the writer's numbers).
#[derive(Debug, Default)]
pub struct Templates {
    parsed: Vec<Template>,
}

impl Templates {
    /// The template with this number.
    pub fn get(&self, number: u32) -> Option<&Template> {
        self.parsed.get(number as usize)
    }
}

/// Decodes record batches of the layer into rows and raw ticks.
///
/// Batches must hold whole flow parts or be contiguous, because predictions continue from packet to packet.
#[derive(Debug, Default)]
pub struct RowReader {
    templates: Templates,
    /// Template bytes to number, so that equal ones of several batches share.
    known: std::collections::HashMap<Box<[u8]>, u32>,
}

/// A row read back, with its raw ticks.
#[derive(Debug, Clone, Copy)]
pub struct ReadRow {
    /// The packet.
    pub row: PacketRow,
    /// Raw ticks, if the source's time could not be said in nanoseconds.
    pub ticks: Option<u64>,
}

impl RowReader {
    /// The templates the rows name.
    pub fn templates(&self) -> &Templates {
        &self.templates
    }

    /// Bytes of a row's packet behind its header.
    ///
    /// # Errors
    /// [`Corrupt`] when the row is of another reader, or is shorter than its header.
    pub fn payload_length(&self, row: &PacketRow) -> Result<usize, Corrupt> {
        let template = self.templates.get(row.template).ok_or_else(no_template)?;
        (row.captured as usize).checked_sub(template.prefix_length()).ok_or_else(cut_header)
    }

    /// Appends the rows of `batch` (all columns of the layer) to `rows`.
    pub fn read(&mut self, batch: &RecordBatch, rows: &mut Vec<ReadRow>) -> Result<(), Corrupt> {
        let bad = |what: &str| Corrupt::new("packets", what);
        let get = |name: &'static str| {
            batch.column_by_name(name).ok_or_else(|| bad(&format!("column {name} is missing")))
        };
        macro_rules! typed {
            ($name:expr, $kind:ty) => {
                get($name)?
                    .as_primitive_opt::<$kind>()
                    .ok_or_else(|| bad(&format!("column {} has another type", $name)))?
            };
        }
        let ordinal = typed!(column::ORDINAL, Int64Type);
        let time = typed!(column::TIME, TimestampNanosecondType);
        let ticks = typed!(column::TICKS, UInt64Type);
        let flow = typed!(column::FLOW, Int32Type);
        let backward =
            get(column::BACKWARD)?.as_boolean_opt().ok_or_else(|| bad("column backward"))?;
        let interface = typed!(column::INTERFACE, Int32Type);
        let length = typed!(column::LENGTH, UInt32Type);
        let captured = typed!(column::CAPTURED, UInt32Type);
        let trailer = typed!(column::TRAILER, Int32Type);
        let tcp_seq = typed!(column::TCP_SEQ, Int32Type);
        let tcp_ack = typed!(column::TCP_ACK, Int32Type);
        let tcp_flags = typed!(column::TCP_FLAGS, UInt8Type);
        let tcp_window = typed!(column::TCP_WINDOW, UInt16Type);
        let tcp_timestamp = typed!(column::TCP_TIMESTAMP, Int32Type);
        let tcp_echo = typed!(column::TCP_ECHO, Int32Type);
        let ip_id = typed!(column::IP_ID, Int16Type);
        let outer_ip_id = typed!(column::OUTER_IP_ID, Int16Type);
        let checksum = typed!(column::CHECKSUM, UInt16Type);
        let outer_checksum = typed!(column::OUTER_CHECKSUM, UInt16Type);
        let (template_keys, numbers) = self.template_numbers(get(column::TEMPLATE)?)?;

        rows.reserve(batch.num_rows());
        // A column's null is stored as 0 by the writer and means 0 to the reader.
        macro_rules! at {
            ($array:ident, $i:ident) => {
                if $array.is_null($i) { Default::default() } else { $array.value($i) }
            };
        }
        for i in 0..batch.num_rows() {
            let mut bits = u8::from(backward.value(i));
            if time.is_null(i) {
                bits |= NO_TIME;
            }
            if ticks.is_valid(i) {
                bits |= HAS_TICKS;
            }
            let length = length.value(i);
            let template =
                numbers.get(template_keys.value(i) as usize).copied().ok_or_else(no_template)?;
            let row = PacketRow {
                ordinal: ordinal.value(i) as u64,
                time: at!(time, i),
                flow: flow.value(i) as u32,
                template,
                length,
                captured: if captured.is_null(i) { length } else { captured.value(i) },
                trailer: trailer.value(i),
                interface: interface.value(i) as u32,
                deltas: Deltas {
                    tcp_seq: at!(tcp_seq, i),
                    tcp_ack: at!(tcp_ack, i),
                    ip_id: at!(ip_id, i),
                    outer_ip_id: at!(outer_ip_id, i),
                    tcp_timestamp: at!(tcp_timestamp, i),
                    tcp_echo: at!(tcp_echo, i),
                },
                checksum: at!(checksum, i),
                outer_checksum: at!(outer_checksum, i),
                tcp_window: at!(tcp_window, i),
                tcp_flags: at!(tcp_flags, i),
                bits,
            };
            let prefix = self.templates.parsed[template as usize].prefix_length();
            if (row.captured as usize) < prefix {
                return Err(cut_header());
            }
            rows.push(ReadRow { row, ticks: ticks.is_valid(i).then(|| ticks.value(i)) });
        }
        Ok(())
    }

    /// The template keys of a batch and what number each key has here.
    fn template_numbers<'a>(
        &mut self,
        array: &'a ArrayRef,
    ) -> Result<(&'a Int32Array, Vec<u32>), Corrupt> {
        let bad = || Corrupt::new("packets", "column template has another type");
        let dictionary = array.as_dictionary_opt::<Int32Type>().ok_or_else(bad)?;
        let values = dictionary.values().as_binary_opt::<i32>().ok_or_else(bad)?;
        if dictionary.null_count() > 0 {
            return Err(Corrupt::new("packets", "a packet without a template"));
        }
        let mut numbers = Vec::with_capacity(values.len());
        for bytes in values.iter() {
            let bytes = bytes.unwrap_or_default();
            let number = match self.known.get(bytes) {
                Some(number) => *number,
                None => {
                    let number = self.templates.parsed.len() as u32;
                    self.templates.parsed.push(Template::parse(bytes)?);
                    self.known.insert(bytes.into(), number);
                    number
                }
            };
            numbers.push(number);
        }
        Ok((dictionary.keys(), numbers))
    }
}

fn no_template() -> Corrupt {
    Corrupt::new("packets", "template number")
}

fn cut_header() -> Corrupt {
    Corrupt::new("packets", "captured length below the header's")
}

/// Rebuilds headers of successive packets of one flow part.
#[derive(Debug, Default)]
pub struct Rebuilder {
    predictor: Predictor,
    flow: Option<u32>,
}

impl Rebuilder {
    /// Appends the header of a row's packet, of whose flow `ends` are those forward.
    /// Rows come in stored order.
    ///
    /// # Errors
    /// [`Corrupt`] when the row has no template, or a field cannot be computed.
    #[inline]
    pub fn header(
        &mut self,
        row: &PacketRow,
        templates: &Templates,
        ends: Endpoints,
        into: &mut Vec<u8>,
    ) -> Result<(), Corrupt> {
        let template = templates.get(row.template).ok_or_else(no_template)?;
        let values = self.values(row, template);
        template.fill(&values, &ends.towards(row.direction()), row.length, into)
    }

    /// The values of the fields that the row's template leaves out. Rows come
    /// in stored order; a new flow number starts afresh.
    #[inline]
    fn values(&mut self, row: &PacketRow, template: &Template) -> FieldValues {
        if self.flow != Some(row.flow) {
            self.predictor = Predictor::default();
            self.flow = Some(row.flow);
        }
        let mut values = FieldValues {
            trailer: row.trailer,
            tcp_flags: row.tcp_flags,
            tcp_window: row.tcp_window,
            checksum: row.checksum,
            outer_checksum: row.outer_checksum,
            ..FieldValues::default()
        };
        let payload = wire_payload(row.length, row.trailer, template.prefix_length());
        self.predictor.decode(row.direction(), template.set(), &row.deltas, &mut values, payload);
        values
    }
}

/// The ordinals of a batch that was read with that column.
///
/// # Errors
/// [`Corrupt`] when the column is missing or has another type.
pub fn ordinals(batch: &RecordBatch) -> Result<impl Iterator<Item = u64> + '_, Corrupt> {
    let array = batch
        .column_by_name(column::ORDINAL)
        .and_then(|array| array.as_primitive_opt::<Int64Type>())
        .ok_or_else(|| Corrupt::new("packets", "column ordinal is missing"))?;
    Ok(array.values().iter().map(|ordinal| *ordinal as u64))
}
