//! Encodes packet rows into the columns of the layer.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BooleanArray, DictionaryArray, PrimitiveArray, StringArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{
    Int16Type, Int32Type, Int64Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use capstan_model::headers::FieldKind;
use capstan_model::{Direction, Protocol};
use parquet::errors::ParquetError;

use super::{BACKWARD, COLUMNS, HAS_TICKS, NO_TIME, PacketRow, VERSION};
use crate::segment::flows::FlowRow;
use crate::segment::tabular::{self, Written};
use crate::segment::template::{Dictionary, Endpoints, FieldSet, without_endpoints};

/// Rows turned into columns at a time: few enough to stay in a processor's cache while every
/// column takes its part.
const BATCH: usize = 1024;

/// Everything the writer needs beside the rows.
#[derive(Debug)]
pub struct Context<'a> {
    /// Templates by number, as [`split`](crate::segment::template::split) makes them.
    pub templates: Dictionary,
    /// Raw ticks of the rows that have them, by ordinal.
    pub ticks: &'a HashMap<u64, u64>,
    /// The flow parts, by stored number.
    pub flows: &'a [FlowRow],
    /// Rows of the first row group, those of quiet hosts; 0 if all rows are one group.
    pub first_group: usize,
}

/// Writes the layer. `rows` come in stored order with stored flow numbers.
///
/// # Errors
/// None that a caller can cause; the Parquet library's own are passed on.
pub fn write(
    mut rows: impl ExactSizeIterator<Item = PacketRow>,
    context: Context<'_>,
) -> Result<Written, ParquetError> {
    let Context { templates, ticks, flows, first_group } = context;
    let count = rows.len();
    let mut shared = SharedTemplates::new(templates, flows);
    let mut values = Values::with_capacity(count);
    let mut batch: Vec<PacketRow> = Vec::with_capacity(BATCH);
    while rows.len() > 0 {
        batch.clear();
        batch.extend(rows.by_ref().take(BATCH));
        for row in &mut batch {
            row.template = shared.number_of(row);
        }
        values.extend(&batch, &shared.templates);
    }
    let arrays = values.into_arrays(shared.templates, ticks, flows)?;
    tabular::write(VERSION, &COLUMNS, arrays, first_group)
}

/// Templates as they are stored, in the order of stored packets: without the ends of the flow.
struct SharedTemplates<'a> {
    cut: Dictionary,
    flows: &'a [FlowRow],
    /// For each template as it was cut the flow and direction it was met in last, and its number in
    /// `templates`. Packets of a flow follow each other, and nearly every flow has its own two.
    met: Vec<Option<(u32, Direction, u32)>>,
    templates: Dictionary,
    scratch: Vec<u8>,
}

impl<'a> SharedTemplates<'a> {
    fn new(cut: Dictionary, flows: &'a [FlowRow]) -> Self {
        let met = vec![None; cut.len()];
        SharedTemplates { cut, flows, met, templates: Dictionary::default(), scratch: Vec::new() }
    }

    /// The number of a row's template in `templates`.
    #[inline]
    fn number_of(&mut self, row: &PacketRow) -> u32 {
        let direction = row.direction();
        match self.met.get(row.template as usize) {
            Some(Some((flow, way, number))) if *flow == row.flow && *way == direction => *number,
            _ => self.meet(row, direction),
        }
    }

    fn meet(&mut self, row: &PacketRow, direction: Direction) -> u32 {
        let ends = self.flows.get(row.flow as usize).map(|flow| Endpoints::of(&flow.part.key));
        let ends = ends.unwrap_or_default().towards(direction);
        let cut = self.cut.get(row.template).unwrap_or_default();
        let set = self.cut.set(row.template).unwrap_or_default();
        without_endpoints(cut, &ends, &mut self.scratch);
        let number = self.templates.number_of(&self.scratch, set);
        if let Some(met) = self.met.get_mut(row.template as usize) {
            *met = Some((row.flow, direction, number));
        }
        number
    }
}

/// What [`Values`] is made of: each column's values as the row has them.
macro_rules! values {
    ($($name:ident: $type:ty = $of:expr;)*) => {
        /// Values of all rows, column by column.
        struct Values {
            /// Which fields each row's template leaves out.
            sets: Vec<FieldSet>,
            $($name: Vec<$type>,)*
        }

        impl Values {
            fn with_capacity(rows: usize) -> Self {
                Values {
                    sets: Vec::with_capacity(rows),
                    $($name: Vec::with_capacity(rows),)*
                }
            }

            fn extend(&mut self, rows: &[PacketRow], templates: &Dictionary) {
                let set = |row: &PacketRow| templates.set(row.template).unwrap_or_default();
                self.sets.extend(rows.iter().map(set));
                $(self.$name.extend(rows.iter().map($of));)*
            }
        }
    };
}

values! {
    bits: u8 = |row| row.bits;
    ordinal: i64 = |row| row.ordinal as i64;
    time: i64 = |row| row.time;
    flow: i32 = |row| row.flow as i32;
    interface: i32 = |row| row.interface as i32;
    length: u32 = |row| row.length;
    captured: u32 = |row| row.captured;
    template: i32 = |row| row.template as i32;
    trailer: i32 = |row| row.trailer;
    tcp_seq: i32 = |row| row.deltas.tcp_seq;
    tcp_ack: i32 = |row| row.deltas.tcp_ack;
    tcp_flags: u8 = |row| row.tcp_flags;
    tcp_window: u16 = |row| row.tcp_window;
    tcp_timestamp: i32 = |row| row.deltas.tcp_timestamp;
    tcp_echo: i32 = |row| row.deltas.tcp_echo;
    ip_id: i16 = |row| row.deltas.ip_id;
    outer_ip_id: i16 = |row| row.deltas.outer_ip_id;
    checksum: u16 = |row| row.checksum;
    outer_checksum: u16 = |row| row.outer_checksum;
}

impl Values {
    /// The columns, in the order of [`COLUMNS`].
    fn into_arrays(
        self,
        templates: Dictionary,
        ticks: &HashMap<u64, u64>,
        flows: &[FlowRow],
    ) -> Result<Vec<ArrayRef>, ParquetError> {
        let rows = self.bits.len();
        let sets = self.sets.as_slice();
        let cut = |kind: FieldKind| BooleanBuffer::collect_bool(rows, |row| sets[row].has(kind));
        let bits = self.bits.as_slice();
        let bit = |bit: u8| BooleanBuffer::collect_bool(rows, |row| bits[row] & bit != 0);
        let is_cut_short =
            BooleanBuffer::collect_bool(rows, |row| self.captured[row] != self.length[row]);

        let tick = |ordinal: &i64| ticks.get(&(*ordinal as u64)).copied();
        let ticks: Vec<u64> = match ticks.is_empty() {
            true => vec![0; rows],
            false => self.ordinal.iter().map(|ordinal| tick(ordinal).unwrap_or(0)).collect(),
        };
        let protocol = |flow: &i32| {
            flows.get(*flow as usize).map_or(Protocol::default(), |flow| flow.part.protocol) as i32
        };
        let protocols = self.flow.iter().map(protocol).collect();
        let names: Vec<&str> = Protocol::ALL.iter().map(|protocol| protocol.name()).collect();
        let templates = templates.into_array()?;
        let times = some::<TimestampNanosecondType>(self.time, !&bit(NO_TIME)).with_timezone("UTC");

        Ok(vec![
            Arc::new(all::<Int64Type>(self.ordinal)),
            Arc::new(times),
            Arc::new(some::<UInt64Type>(ticks, bit(HAS_TICKS))),
            Arc::new(all::<Int32Type>(self.flow)),
            Arc::new(BooleanArray::new(bit(BACKWARD), None)),
            Arc::new(all::<Int32Type>(self.interface)),
            Arc::new(all::<UInt32Type>(self.length)),
            Arc::new(some::<UInt32Type>(self.captured, is_cut_short)),
            Arc::new(DictionaryArray::try_new(
                all::<Int32Type>(self.template),
                Arc::new(templates),
            )?),
            Arc::new(all::<Int32Type>(self.trailer)),
            Arc::new(some::<Int32Type>(self.tcp_seq, cut(FieldKind::TcpSeq))),
            Arc::new(some::<Int32Type>(self.tcp_ack, cut(FieldKind::TcpAck))),
            Arc::new(some::<UInt8Type>(self.tcp_flags, cut(FieldKind::TcpFlags))),
            Arc::new(some::<UInt16Type>(self.tcp_window, cut(FieldKind::TcpWindow))),
            Arc::new(some::<Int32Type>(self.tcp_timestamp, cut(FieldKind::TcpTimestamp))),
            Arc::new(some::<Int32Type>(self.tcp_echo, cut(FieldKind::TcpEcho))),
            Arc::new(some::<Int16Type>(self.ip_id, cut(FieldKind::IpId))),
            Arc::new(some::<Int16Type>(self.outer_ip_id, cut(FieldKind::OuterIpId))),
            Arc::new(some::<UInt16Type>(self.checksum, cut(FieldKind::Checksum))),
            Arc::new(some::<UInt16Type>(self.outer_checksum, cut(FieldKind::OuterChecksum))),
            Arc::new(DictionaryArray::try_new(
                all::<Int32Type>(protocols),
                Arc::new(StringArray::from(names)),
            )?),
        ])
    }
}

/// A column without nulls.
fn all<T: ArrowPrimitiveType>(values: Vec<T::Native>) -> PrimitiveArray<T> {
    PrimitiveArray::new(values.into(), None)
}

/// A column of values that count only where a bit is set.
fn some<T: ArrowPrimitiveType>(values: Vec<T::Native>, valid: BooleanBuffer) -> PrimitiveArray<T> {
    let nulls = NullBuffer::new(valid);
    PrimitiveArray::new(values.into(), Some(nulls).filter(|nulls| nulls.null_count() > 0))
}
