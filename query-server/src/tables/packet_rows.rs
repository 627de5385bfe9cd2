//! Converts batches of `packets.parquet` to SQL columns: values of the flow are looked up, header fields are
//! rebuilt, others are stored.

mod access;
mod stored;

use std::collections::HashMap;
use std::sync::Arc;

use capstan_model::link::Interface;
use capstan_model::{Address, Failure, LinkType};
use capstan_storage_engine::segment::Corrupt;
use capstan_storage_engine::segment::packets::{ReadRow, Rebuilder, RowReader, column};
use capstan_storage_engine::segment::template::Endpoints;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Int32Array, Int64Array, RecordBatch,
    StringViewArray, UInt32Array, new_null_array,
};
use datafusion::arrow::compute::{cast, concat, take};
use datafusion::arrow::datatypes::{
    DataType, Int32Type, Int64Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type,
};

use self::access::{backward, bad, get, or_zero, typed};
use self::stored::{OfFlow, of_flow};
pub(super) use self::stored::{flow_columns, is_bytes, stored};
use super::columns::PacketColumn;
use super::flow_rows::{Constants, FlowRows, addresses, unexpected};
use super::templates::{Front, Stored, TcpFields, TcpReader, Templates};
use super::window::Window;

/// What a capture point's packets have in common.
#[derive(Debug)]
struct Interfaces {
    numbers: Vec<i32>,
    links: Vec<LinkType>,
    names: StringViewArray,
}

impl Interfaces {
    fn of(described: &[(u32, Interface)]) -> Self {
        let mut known: Vec<_> = described.iter().collect();
        known.sort_unstable_by_key(|(number, _)| *number as i32);
        Interfaces {
            numbers: known.iter().map(|(number, _)| *number as i32).collect(),
            links: known.iter().map(|(_, interface)| interface.link_type).collect(),
            names: known.iter().map(|(_, interface)| interface.name.as_deref()).collect(),
        }
    }

    fn place(&self, number: i32) -> Option<usize> {
        // Nearly always there is one.
        match self.numbers.as_slice() {
            [only] => (*only == number).then_some(0),
            numbers => numbers.binary_search(&number).ok(),
        }
    }

    fn link(&self, number: i32) -> Option<LinkType> {
        self.place(number).map(|place| self.links[place])
    }
}

/// Values of flows by position, those of the other end behind them where packets have both.
#[derive(Debug)]
struct Lookup {
    column: PacketColumn,
    values: ArrayRef,
    ends: bool,
}

/// Converts batches of one segment, in stored order, into columns.
#[derive(Debug)]
pub(super) struct Decoder {
    columns: Vec<PacketColumn>,
    constants: Constants,
    interfaces: Interfaces,
    directions: StringViewArray,
    lookups: Vec<Lookup>,
    /// Flow numbers by position.
    flows: Vec<u32>,
    /// Ends of forward packets, by position; empty if no header is needed.
    ends: Vec<Endpoints>,
    templates: Templates,
    tcp: TcpReader,
    reader: RowReader,
    rebuilder: Rebuilder,
}

/// Some packets as columns; those of captured bytes are still to be put in.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) rows: usize,
    pub(super) columns: Vec<Option<ArrayRef>>,
    /// Which rows lie in the window; all if none.
    pub(super) inside: Option<BooleanArray>,
    /// Length of each packet's header, bytes; empty if not needed.
    pub(super) prefixes: Vec<u32>,
}

impl Decoder {
    /// For the packets of `flows`, all of the segment's if none.
    pub(super) fn new(
        columns: &[PacketColumn],
        interfaces: &[(u32, Interface)],
        constants: Constants,
        flows: Option<&FlowRows>,
    ) -> Result<Decoder, Failure> {
        let mut lookups = Vec::new();
        let (mut numbers, mut ends) = (Vec::new(), Vec::new());
        if let Some(flows) = flows {
            numbers = flows.ordinals.iter().collect();
            if columns.contains(&PacketColumn::Header) {
                ends = flows.ends()?;
            }
            for column in columns {
                let Some(of) = of_flow(*column) else { continue };
                let (values, ends) = match of {
                    OfFlow::Same(one) => (flows.show(one, &constants)?, false),
                    OfFlow::Ends(one, other) => {
                        let (one, other) =
                            (flows.show(one, &constants)?, flows.show(other, &constants)?);
                        (concat(&[&one, &other]).map_err(unexpected)?, true)
                    }
                };
                lookups.push(Lookup { column: *column, values, ends });
            }
        }
        Ok(Decoder {
            columns: columns.to_vec(),
            constants,
            interfaces: Interfaces::of(interfaces),
            directions: StringViewArray::from(vec!["forward", "backward"]),
            lookups,
            flows: numbers,
            ends,
            templates: Templates::default(),
            tcp: TcpReader::default(),
            reader: RowReader::default(),
            rebuilder: Rebuilder::default(),
        })
    }

    fn wants(&self, column: PacketColumn) -> bool {
        self.columns.contains(&column)
    }

    /// The next batch. With `prefixes` it includes the lengths of headers.
    pub(super) fn decode(
        &mut self,
        batch: &RecordBatch,
        window: Option<&Window>,
        prefixes: bool,
    ) -> Result<Decoded, Failure> {
        let inside = match window {
            Some(window) => inside(batch, window)?,
            None => None,
        };
        let needs_templates = prefixes
            || self.columns.iter().any(|column| stored(*column).contains(&column::TEMPLATE));
        let templates = if needs_templates { self.templates.of_rows(batch)? } else { Vec::new() };
        let tcp = self.tcp_fields(batch, &templates)?;
        let fronts = self.fronts(batch, &templates)?;
        let positions = if self.lookups.is_empty() { None } else { Some(self.positions(batch)?) };
        let columns = self
            .columns
            .iter()
            .map(|column| match column {
                _ if is_bytes(*column) => Ok(None),
                PacketColumn::Vni => {
                    let of_flow = self.column(PacketColumn::Vni, batch, positions.as_ref())?;
                    vnis(&fronts, &of_flow, batch).map(Some)
                }
                PacketColumn::OuterSourceIp => {
                    repeated(fronts.iter().map(|front| front.outer.map(|ends| ends.0))).map(Some)
                }
                PacketColumn::OuterDestinationIp => {
                    repeated(fronts.iter().map(|front| front.outer.map(|ends| ends.1))).map(Some)
                }
                PacketColumn::TcpFlags => Ok(tcp.as_deref().map(|tcp| {
                    integers(tcp.iter().map(|tcp| tcp.map(|tcp| i32::from(tcp.flags))))
                })),
                PacketColumn::TcpWindow => Ok(tcp.as_deref().map(|tcp| {
                    integers(tcp.iter().map(|tcp| tcp.map(|tcp| i32::from(tcp.window))))
                })),
                PacketColumn::TcpSeq => Ok(tcp.as_deref().map(|tcp| {
                    long_integers(tcp.iter().map(|tcp| tcp.map(|tcp| i64::from(tcp.seq))))
                })),
                PacketColumn::TcpAck => Ok(tcp.as_deref().map(|tcp| {
                    long_integers(tcp.iter().map(|tcp| tcp.map(|tcp| i64::from(tcp.ack))))
                })),
                column => self.column(*column, batch, positions.as_ref()).map(Some),
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let prefixes = if prefixes {
            let length = |number: &u32| {
                let template = self.templates.get(*number)?;
                Ok(u32::try_from(template.prefix_length()).unwrap_or(u32::MAX))
            };
            templates.iter().map(length).collect::<Result<_, Corrupt>>()?
        } else {
            Vec::new()
        };
        Ok(Decoded { rows: batch.num_rows(), columns, inside, prefixes })
    }

    /// The headers of the packets of a batch that has all columns.
    pub(super) fn headers(&mut self, batch: &RecordBatch) -> Result<ArrayRef, Failure> {
        let places = self.places(batch)?;
        let mut rows: Vec<ReadRow> = Vec::with_capacity(batch.num_rows());
        self.reader.read(batch, &mut rows)?;
        let mut headers = BinaryBuilder::with_capacity(rows.len(), rows.len() * 64);
        let mut header = Vec::new();
        for (ReadRow { row, .. }, place) in rows.iter().zip(places) {
            let ends = self.ends.get(place as usize).ok_or_else(|| bad("no end is known"))?;
            header.clear();
            self.rebuilder.header(row, self.reader.templates(), *ends, &mut header)?;
            headers.append_value(&header);
        }
        Ok(Arc::new(headers.finish()))
    }

    fn column(
        &self,
        column: PacketColumn,
        batch: &RecordBatch,
        positions: Option<&Positions>,
    ) -> Result<ArrayRef, Failure> {
        let rows = batch.num_rows();
        let one = |name: &'static str| get(batch, name).map_err(Failure::from);
        match column {
            PacketColumn::Recorder | PacketColumn::Observer => Ok(self.constants.recorder(rows)),
            PacketColumn::Generation => Ok(self.constants.generation(rows)),
            PacketColumn::Segment => Ok(self.constants.segment(rows)),
            PacketColumn::Identity => Ok(self.constants.identity(rows)),
            PacketColumn::Ordinal if self.constants.is_masked() => {
                Ok(new_null_array(column.field().data_type(), rows))
            }
            PacketColumn::Direction => {
                let backward = backward(batch)?;
                let at: UInt32Array = backward.values().iter().map(u32::from).collect();
                take(&self.directions, &at, None).map_err(unexpected)
            }
            PacketColumn::InterfaceName => {
                let numbers: &Int32Array = typed::<Int32Type>(batch, column::INTERFACE)?;
                let place = |number: &i32| self.interfaces.place(*number).map(|at| at as u32);
                let at: UInt32Array = numbers.values().iter().map(place).collect();
                take(&self.interfaces.names, &at, None).map_err(unexpected)
            }
            PacketColumn::LinkType => {
                let numbers: &Int32Array = typed::<Int32Type>(batch, column::INTERFACE)?;
                let link =
                    |number: &i32| self.interfaces.link(*number).map(|link| i32::from(link.0));
                Ok(integers(numbers.values().iter().map(link)))
            }
            PacketColumn::CapturedLength => {
                let length = typed::<UInt32Type>(batch, column::LENGTH)?;
                let captured = typed::<UInt32Type>(batch, column::CAPTURED)?;
                let lengths = length.values().iter().zip(captured.iter());
                let lengths =
                    lengths.map(|(length, captured)| i64::from(captured.unwrap_or(*length)));
                Ok(Arc::new(Int64Array::from_iter_values(lengths)))
            }
            column => match self.lookups.iter().find(|lookup| lookup.column == column) {
                Some(lookup) => {
                    let positions = positions.ok_or_else(|| bad("no flow is known"))?;
                    let at = if lookup.ends { positions.ends()? } else { &positions.flows };
                    take(&lookup.values, at, None).map_err(unexpected)
                }
                None => {
                    let name = stored(column).first().copied().unwrap_or_default();
                    shown(one(name)?, column.field().data_type())
                }
            },
        }
    }

    /// Where each row's flow stands among those that were asked for.
    fn places(&self, batch: &RecordBatch) -> Result<Vec<u32>, Corrupt> {
        let numbers = typed::<Int32Type>(batch, column::FLOW)?;
        let mut flows = Vec::with_capacity(numbers.len());
        // Packets of a flow follow each other, and flows their numbers.
        let mut at = 0;
        for number in numbers.values() {
            let number = *number as u32;
            if self.flows.get(at) != Some(&number) {
                at = match self.flows.get(at + 1) {
                    Some(next) if *next == number => at + 1,
                    _ => self.flows.binary_search(&number).map_err(|_| {
                        bad(format!("a packet of flow {number}, which was not asked for"))
                    })?,
                };
            }
            flows.push(at as u32);
        }
        Ok(flows)
    }

    /// Where each row's flow stands in the lookups.
    fn positions(&self, batch: &RecordBatch) -> Result<Positions, Corrupt> {
        let flows = self.places(batch)?;
        let ends = if self.lookups.iter().any(|lookup| lookup.ends) {
            let behind = self.flows.len() as u32;
            let backward = backward(batch)?;
            let pairs = flows.iter().zip(backward.values().iter());
            let ends = pairs.map(|(at, backward)| at + u32::from(backward) * behind);
            Some(UInt32Array::from_iter_values(ends))
        } else {
            None
        };
        Ok(Positions { flows: UInt32Array::from(flows), ends })
    }

    fn tcp_fields(
        &mut self,
        batch: &RecordBatch,
        templates: &[u32],
    ) -> Result<Option<Vec<Option<TcpFields>>>, Corrupt> {
        use PacketColumn as P;
        if ![P::TcpFlags, P::TcpSeq, P::TcpAck, P::TcpWindow].iter().any(|c| self.wants(*c)) {
            return Ok(None);
        }
        let flow = typed::<Int32Type>(batch, column::FLOW)?;
        let backward = backward(batch)?;
        let length = typed::<UInt32Type>(batch, column::LENGTH)?;
        let trailer = typed::<Int32Type>(batch, column::TRAILER)?;
        let interface = typed::<Int32Type>(batch, column::INTERFACE)?;
        let flags = typed::<UInt8Type>(batch, column::TCP_FLAGS)?;
        let windows = typed::<UInt16Type>(batch, column::TCP_WINDOW)?;
        let seq = typed::<Int32Type>(batch, column::TCP_SEQ)?;
        let ack = typed::<Int32Type>(batch, column::TCP_ACK)?;
        let mut fields = Vec::with_capacity(batch.num_rows());
        for (row, template) in templates.iter().enumerate() {
            let stored = Stored {
                flow: flow.value(row),
                backward: backward.value(row),
                length: length.value(row),
                trailer: trailer.value(row),
                flags: or_zero(flags, row),
                window: or_zero(windows, row),
                seq_delta: or_zero(seq, row),
                ack_delta: or_zero(ack, row),
            };
            let link = self.interfaces.link(interface.value(row)).unwrap_or(LinkType(u16::MAX));
            fields.push(self.tcp.next(&mut self.templates, *template, link, &stored)?);
        }
        Ok(Some(fields))
    }

    /// The header fields around each packet; empty if not needed.
    fn fronts(&mut self, batch: &RecordBatch, templates: &[u32]) -> Result<Vec<Front>, Failure> {
        use PacketColumn as P;
        if ![P::Vni, P::OuterSourceIp, P::OuterDestinationIp].iter().any(|c| self.wants(*c)) {
            return Ok(Vec::new());
        }
        let length = typed::<UInt32Type>(batch, column::LENGTH)?;
        let trailer = typed::<Int32Type>(batch, column::TRAILER)?;
        let interface = typed::<Int32Type>(batch, column::INTERFACE)?;
        let mut fronts = Vec::with_capacity(batch.num_rows());
        for (row, template) in templates.iter().enumerate() {
            let stored = Stored {
                length: length.value(row),
                trailer: trailer.value(row),
                ..Stored::default()
            };
            let link = self.interfaces.link(interface.value(row)).unwrap_or(LinkType(u16::MAX));
            fronts.push(self.templates.front(*template, link, &stored)?);
        }
        Ok(fronts)
    }
}

/// The network identifier of each packet. A tunnel header without an inner network is recognised by its port,
/// which is not in the template. Then the flow has the identifier, and its source is the sender into the tunnel.
fn vnis(fronts: &[Front], of_flow: &ArrayRef, batch: &RecordBatch) -> Result<ArrayRef, Failure> {
    let of_flow = of_flow.as_primitive::<Int64Type>();
    let backward = backward(batch)?;
    Ok(long_integers(fronts.iter().enumerate().map(|(row, front)| {
        let says_flow = !backward.value(row) && of_flow.is_valid(row);
        let innermost = || says_flow && front.outer.is_none() && !front.is_fragment;
        front.vni.map(i64::from).or_else(|| innermost().then(|| of_flow.value(row)))
    })))
}

/// Rows' places in the lookups.
struct Positions {
    flows: UInt32Array,
    /// With the other end's behind, for packets that go back.
    ends: Option<UInt32Array>,
}

impl Positions {
    fn ends(&self) -> Result<&UInt32Array, Corrupt> {
        self.ends.as_ref().ok_or_else(|| bad("no direction is known"))
    }
}

/// Which rows lie in the window; none if all do.
fn inside(batch: &RecordBatch, window: &Window) -> Result<Option<BooleanArray>, Corrupt> {
    let times = typed::<TimestampNanosecondType>(batch, column::TIME)?;
    let inside: BooleanArray = times
        .iter()
        .map(|time| Some(time.is_some_and(|time| window.first <= time && time <= window.last)))
        .collect();
    Ok((inside.true_count() < inside.len()).then_some(inside))
}

/// Addresses of which there are few different ones, as text.
fn repeated(ends: impl Iterator<Item = Option<Address>>) -> Result<ArrayRef, Failure> {
    let mut places: HashMap<Address, u32> = HashMap::new();
    let mut distinct = Vec::new();
    let at: UInt32Array = ends
        .map(|end| {
            end.map(|end| {
                *places.entry(end).or_insert_with(|| {
                    distinct.push(Some(end));
                    distinct.len() as u32 - 1
                })
            })
        })
        .collect();
    take(&addresses(distinct.into_iter()), &at, None).map_err(unexpected)
}

/// A stored column as it is shown. Of a dictionary only the few texts are cast, not each row's.
fn shown(stored: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, Failure> {
    let Some(dictionary) = stored.as_dictionary_opt::<Int32Type>() else {
        return cast(stored, data_type).map_err(unexpected);
    };
    let texts = cast(dictionary.values(), data_type).map_err(unexpected)?;
    take(&texts, dictionary.keys(), None).map_err(unexpected)
}

fn integers(values: impl Iterator<Item = Option<i32>>) -> ArrayRef {
    Arc::new(values.collect::<Int32Array>())
}

fn long_integers(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<Int64Array>())
}
