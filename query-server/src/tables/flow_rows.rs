//! Some flow parts of one segment as columns. Reads only the needed columns of `flows.parquet`, and converts
//! them to SQL columns.

use std::sync::Arc;

use capstan_model::{Address, Failure, FlowId, GenerationId};
use capstan_storage_engine::segment::Corrupt;
use capstan_storage_engine::segment::column::{Column, Meaning};
use capstan_storage_engine::segment::reader::Fetch;
use capstan_storage_engine::segment::template::Endpoints;
use capstan_view::access::FlowIdCipher;
use capstan_view::{ScopedSegment, VisibleFlows};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch,
    RecordBatchOptions, StringViewArray, StringViewBuilder, UInt16Array, UInt32Array,
};
use datafusion::arrow::compute::kernels::numeric::add;
use datafusion::arrow::compute::{cast, concat_batches, filter_record_batch, take};
use datafusion::arrow::datatypes::{
    Int32Type, Int64Type, Schema, TimestampNanosecondType, UInt8Type, UInt16Type,
};
use roaring::RoaringBitmap;

use super::flow_columns::{FlowColumn, Made};
use super::window::Window;

/// Ethertypes of ARP and reverse ARP.
const ARP: [u16; 2] = [0x0806, 0x8035];

/// IP protocols whose packets have ports: TCP, UDP, SCTP.
const WITH_PORTS: [u8; 3] = [6, 17, 132];

/// The stored columns that packets' headers want of their flow: templates leave them out.
pub(super) const ENDS: [&str; 4] = ["source", "destination", "source_port", "destination_port"];

/// Selected flow parts of a segment, in stored order.
#[derive(Debug)]
pub(super) struct FlowRows {
    /// Row numbers in `flows.parquet`, which are the flow numbers of `packets.parquet`.
    pub(super) ordinals: RoaringBitmap,
    /// The stored columns that were asked for.
    batch: RecordBatch,
}

impl FlowRows {
    /// Reads some columns of some flow parts; of a window, those parts that touch it.
    pub(super) async fn read(
        segment: &ScopedSegment,
        fetch: &dyn Fetch,
        visible: VisibleFlows,
        window: Option<&Window>,
        columns: &[&str],
    ) -> Result<FlowRows, Failure> {
        let mut wanted: Vec<&str> = columns.to_vec();
        if window.is_some() {
            wanted.extend(["first_time", "last_time"]);
        }
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            let ordinals = visible.into_ordinals();
            let rows = usize::try_from(ordinals.len()).unwrap_or(usize::MAX);
            return Ok(FlowRows { ordinals, batch: empty_columns(rows)? });
        }
        let batches = segment.scan_flows(&visible, Some(&wanted))?.run(fetch).await?;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let batch = match batches.first() {
            Some(first) => concat_batches(&first.schema(), &batches).map_err(unexpected)?,
            None => empty_columns(0)?,
        };
        if rows as u64 != visible.len() {
            let what = format!("{} rows are wanted and {rows} are there", visible.len());
            return Err(bad(what).into());
        }
        let all = FlowRows { ordinals: visible.into_ordinals(), batch };
        match window {
            Some(window) => all.touching(window),
            None => Ok(all),
        }
    }

    /// Those that may have a packet in the window, by their first and last times.
    fn touching(self, window: &Window) -> Result<FlowRows, Failure> {
        if self.len() == 0 {
            return Ok(self);
        }
        let time = |name| {
            self.column(name)?
                .as_primitive_opt::<TimestampNanosecondType>()
                .ok_or_else(|| another_type(name))
        };
        let (first, last) = (time("first_time")?, time("last_time")?);
        let inside: BooleanArray = first
            .iter()
            .zip(last)
            .map(|ends| {
                Some(matches!(ends, (Some(first), Some(last)) if window.touches(first, last)))
            })
            .collect();
        if inside.true_count() == inside.len() {
            return Ok(self);
        }
        let ordinals = self
            .ordinals
            .iter()
            .zip(inside.iter())
            .filter_map(|(ordinal, inside)| (inside == Some(true)).then_some(ordinal))
            .collect();
        let batch = filter_record_batch(&self.batch, &inside).map_err(unexpected)?;
        Ok(FlowRows { ordinals, batch })
    }

    /// How many parts there are.
    pub(super) fn len(&self) -> usize {
        self.batch.num_rows()
    }

    fn column(&self, name: &str) -> Result<&ArrayRef, Corrupt> {
        self.batch.column_by_name(name).ok_or_else(|| bad(format!("column {name} is missing")))
    }

    /// A stored column of 64-bit numbers.
    pub(super) fn numbers(&self, name: &'static str) -> Result<&Int64Array, Corrupt> {
        self.column(name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| another_type(name))
    }

    /// A stored column of 32-bit numbers.
    pub(super) fn small_numbers(&self, name: &'static str) -> Result<&Int32Array, Corrupt> {
        self.column(name)?.as_primitive_opt::<Int32Type>().ok_or_else(|| another_type(name))
    }

    /// The ends of the packets that go forward, which [`ENDS`] say.
    pub(super) fn ends(&self) -> Result<Vec<Endpoints>, Corrupt> {
        if self.len() == 0 {
            return Ok(Vec::new());
        }
        let (source, destination) = (self.bytes16("source")?, self.bytes16("destination")?);
        let (source_port, destination_port) =
            (self.ports("source_port")?, self.ports("destination_port")?);
        let ends = |row: usize| Endpoints {
            source: address(source.value(row)),
            destination: address(destination.value(row)),
            source_port: source_port.value(row),
            destination_port: destination_port.value(row),
        };
        Ok((0..self.len()).map(ends).collect())
    }

    /// A column as SQL shows it.
    pub(super) fn show(&self, column: FlowColumn, of: &Constants) -> Result<ArrayRef, Failure> {
        if self.len() == 0 {
            return Ok(datafusion::arrow::array::new_empty_array(&column.data_type()));
        }
        match column.made {
            Made::Stored(Column { name, .. }, meaning) => match meaning {
                Meaning::Plain => cast(self.column(name)?, &column.data_type()).map_err(unexpected),
                Meaning::FlowId => Ok(Arc::new(self.ids(name, of.flow_ids.as_ref())?)),
                Meaning::End => self.address(name),
                Meaning::TunnelEnd => self.outer(name),
                Meaning::Port => self.port(name),
                Meaning::IpProtocol => self.ip_protocol(),
            },
            Made::Sum(one, other) => {
                add(&self.numbers(one)?, &self.numbers(other)?).map_err(unexpected)
            }
            Made::Recorder => Ok(of.recorder(self.len())),
            Made::Generation => Ok(of.generation(self.len())),
            Made::Identity => Ok(of.identity(self.len())),
            Made::Segment => Ok(of.segment(self.len())),
            Made::Order => Ok(repeat(&of.order, self.len())),
        }
    }

    fn bytes16(
        &self,
        name: &str,
    ) -> Result<&datafusion::arrow::array::FixedSizeBinaryArray, Corrupt> {
        self.column(name)?
            .as_fixed_size_binary_opt()
            .filter(|array| array.value_length() == 16)
            .ok_or_else(|| another_type(name))
    }

    /// Flow ids in hexadecimal digits.
    fn ids(&self, name: &str, cipher: Option<&FlowIdCipher>) -> Result<StringViewArray, Corrupt> {
        let mut texts = StringViewBuilder::with_capacity(self.len());
        let mut text = [0_u8; 32];
        for bytes in self.bytes16(name)?.iter() {
            let Some(bytes) = bytes else {
                texts.append_null();
                continue;
            };
            let id = FlowId(<[u8; 16]>::try_from(bytes).unwrap_or_default());
            let FlowId(bytes) = cipher.map_or(id, |cipher| cipher.encipher(id));
            for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(&bytes) {
                *pair = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            }
            texts.append_value(std::str::from_utf8(&text).unwrap_or_default());
        }
        Ok(texts.finish())
    }

    /// The end of a flow; a pseudo-flow of packets without a network layer has none.
    fn address(&self, name: &str) -> Result<ArrayRef, Failure> {
        let (array, pseudo) = (self.bytes16(name)?, self.column("link_type")?);
        let text = |row: usize| pseudo.is_null(row).then(|| address(array.value(row)));
        Ok(addresses((0..self.len()).map(text)))
    }

    fn outer(&self, name: &str) -> Result<ArrayRef, Failure> {
        let array = self.bytes16(name)?;
        Ok(addresses(array.iter().map(|bytes| bytes.map(address))))
    }

    fn ports(&self, name: &'static str) -> Result<&UInt16Array, Corrupt> {
        self.column(name)?.as_primitive_opt::<UInt16Type>().ok_or_else(|| another_type(name))
    }

    /// A port; null where the protocol has none, or where a fragment hid it.
    fn port(&self, name: &'static str) -> Result<ArrayRef, Failure> {
        let ports = self.ports(name)?;
        let protocols = self.ip_protocols()?;
        let fragments = self.column("fragment_id")?;
        let port = |row: usize| {
            let port = ports.value(row);
            let has = WITH_PORTS.contains(&protocols.value(row)) && fragments.is_null(row);
            (has || port != 0).then_some(i32::from(port))
        };
        Ok(Arc::new((0..self.len()).map(port).collect::<Int32Array>()))
    }

    fn ip_protocols(
        &self,
    ) -> Result<&datafusion::arrow::array::PrimitiveArray<UInt8Type>, Corrupt> {
        self.column("ip_protocol")?
            .as_primitive_opt::<UInt8Type>()
            .ok_or_else(|| another_type("ip_protocol"))
    }

    /// The IP protocol number; null for what is not IP.
    fn ip_protocol(&self) -> Result<ArrayRef, Failure> {
        let protocols = self.ip_protocols()?;
        let ethertypes = self
            .column("ethertype")?
            .as_primitive_opt::<UInt16Type>()
            .ok_or_else(|| another_type("ethertype"))?;
        let pseudo = self.column("link_type")?;
        let number = |row: usize| {
            let ip = pseudo.is_null(row) && !ARP.contains(&ethertypes.value(row));
            ip.then(|| i32::from(protocols.value(row)))
        };
        Ok(Arc::new((0..self.len()).map(number).collect::<Int32Array>()))
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn address(bytes: &[u8]) -> Address {
    Address(<[u8; 16]>::try_from(bytes).unwrap_or_default())
}

/// Addresses as text.
pub(super) fn addresses(addresses: impl Iterator<Item = Option<Address>>) -> ArrayRef {
    use std::fmt::Write;
    let mut texts = StringViewBuilder::new();
    let mut text = String::new();
    for address in addresses {
        match address {
            Some(address) => {
                text.clear();
                // Writing into a String cannot fail.
                let _ = write!(text, "{address}");
                texts.append_value(&text);
            }
            None => texts.append_null(),
        }
    }
    Arc::new(texts.finish())
}

/// A batch of so many rows and no column.
pub(super) fn empty_columns(rows: usize) -> Result<RecordBatch, Failure> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
        .map_err(unexpected)
}

/// What is the same for all rows of a segment.
#[derive(Debug, Clone)]
pub(super) struct Constants {
    recorder: StringViewArray,
    generation: i32,
    /// Null under a mask.
    segment: StringViewArray,
    /// The name of the segment.
    order: StringViewArray,
    identity: StringViewArray,
    /// Under a mask, the cipher of flow ids.
    flow_ids: Option<FlowIdCipher>,
}

impl Constants {
    /// Of a segment of this generation.
    ///
    /// # Errors
    /// The segment is damaged.
    pub(super) fn new(of: &GenerationId, segment: &ScopedSegment) -> Result<Self, Corrupt> {
        let one = |text: &str| StringViewArray::from(vec![text]);
        // A recorder numbers its segments, and how many there are depends on all flows.
        let name = (!segment.is_masked()).then(|| segment.entry().name.as_str());
        Ok(Constants {
            recorder: one(&of.recorder.to_string()),
            generation: i32::try_from(of.generation.0).unwrap_or(i32::MAX),
            segment: StringViewArray::from(vec![name]),
            order: one(&segment.entry().name),
            identity: one(if segment.is_identified()? { "known" } else { "unknown" }),
            flow_ids: segment.flow_ids(),
        })
    }

    /// Whether some flows may be hidden.
    pub(super) fn is_masked(&self) -> bool {
        self.flow_ids.is_some()
    }

    pub(super) fn recorder(&self, rows: usize) -> ArrayRef {
        repeat(&self.recorder, rows)
    }

    pub(super) fn generation(&self, rows: usize) -> ArrayRef {
        Arc::new(Int32Array::from_value(self.generation, rows))
    }

    pub(super) fn segment(&self, rows: usize) -> ArrayRef {
        repeat(&self.segment, rows)
    }

    pub(super) fn identity(&self, rows: usize) -> ArrayRef {
        repeat(&self.identity, rows)
    }
}

/// The value repeated; the text itself is stored once.
fn repeat(one: &StringViewArray, rows: usize) -> ArrayRef {
    // Row 0 is there, so every number is one of a row.
    take(one, &UInt32Array::from_value(0, rows), None).unwrap_or_else(|_| Arc::new(one.slice(0, 0)))
}

pub(super) fn bad(what: impl Into<String>) -> Corrupt {
    Corrupt::new("flows", what)
}

fn another_type(name: &str) -> Corrupt {
    bad(format!("column {name} has another type"))
}

/// A computation on columns that fails only if a table is not what its schema says.
pub(super) fn unexpected(error: datafusion::arrow::error::ArrowError) -> Failure {
    Failure::caused_by(
        capstan_model::FailureKind::Other,
        "a stored table cannot be turned into rows",
        error,
    )
}
