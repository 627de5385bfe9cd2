//! Header fields that are stored in a packet's template, and fields that are rebuilt from the packets before it.

use std::collections::HashMap;

use capstan_dissect::decode;
use capstan_model::headers::FieldKind;
use capstan_model::{Address, Direction, LinkType};
use capstan_storage_engine::segment::Corrupt;
use capstan_storage_engine::segment::packets::wire_payload;
use capstan_storage_engine::segment::predict::{Deltas, Predictor};
use capstan_storage_engine::segment::template::{Endpoints, FieldValues, Template};
use datafusion::arrow::array::{Array, AsArray, BinaryArray, RecordBatch};
use datafusion::arrow::datatypes::Int32Type;

/// Templates of one segment, by numbers assigned here.
#[derive(Debug, Default)]
pub(super) struct Templates {
    all: Vec<Known>,
    numbers: HashMap<Box<[u8]>, u32>,
    /// The dictionary met last and the numbers of its values: batches of one page share it.
    last: Option<(BinaryArray, Vec<u32>)>,
}

#[derive(Debug)]
struct Known {
    template: Template,
    /// The decoded headers, by link type: nearly always one.
    read: Vec<(LinkType, Front)>,
}

/// Header fields of a template that are the same for all its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Front {
    /// Ends of the outermost IP header, if tunnelled: sender, receiver.
    pub(super) outer: Option<(Address, Address)>,
    /// The network identifier of the innermost tunnel.
    pub(super) vni: Option<u32>,
    /// It is a later fragment, which has no headers behind its IP header.
    pub(super) is_fragment: bool,
    /// The TCP header, where there is one. Fields the template leaves out are 0.
    tcp: Option<capstan_model::headers::Tcp>,
}

/// The TCP header fields of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TcpFields {
    pub(super) flags: u8,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) window: u16,
}

/// The column values of a packet that are needed here.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stored {
    pub(super) flow: i32,
    pub(super) backward: bool,
    pub(super) length: u32,
    pub(super) trailer: i32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) seq_delta: i32,
    pub(super) ack_delta: i32,
}

impl Templates {
    /// The number of each row's template.
    ///
    /// # Errors
    /// The column is missing, of another type, or has a value that is not a template.
    pub(super) fn of_rows(&mut self, batch: &RecordBatch) -> Result<Vec<u32>, Corrupt> {
        let bad = |what: &str| Corrupt::new("packets", what);
        let dictionary = batch
            .column_by_name("template")
            .and_then(|array| array.as_dictionary_opt::<Int32Type>())
            .ok_or_else(|| bad("column template is missing or has another type"))?;
        let values = dictionary
            .values()
            .as_binary_opt::<i32>()
            .ok_or_else(|| bad("column template has another type"))?;
        if dictionary.null_count() > 0 {
            return Err(bad("a packet without a template"));
        }
        let shared = self.last.as_ref().is_some_and(|(last, _)| same_buffers(last, values));
        if !shared {
            let numbers = values
                .iter()
                .map(|bytes| self.number(bytes.unwrap_or_default()))
                .collect::<Result<Vec<u32>, Corrupt>>()?;
            self.last = Some((values.clone(), numbers));
        }
        let numbers = self.last.as_ref().map_or(&[][..], |(_, numbers)| numbers);
        dictionary
            .keys()
            .values()
            .iter()
            .map(|key| {
                let at = usize::try_from(*key).ok();
                at.and_then(|at| numbers.get(at)).copied().ok_or_else(|| bad("template number"))
            })
            .collect()
    }

    fn number(&mut self, bytes: &[u8]) -> Result<u32, Corrupt> {
        if let Some(number) = self.numbers.get(bytes) {
            return Ok(*number);
        }
        let number = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.all.push(Known { template: Template::parse(bytes)?, read: Vec::new() });
        self.numbers.insert(bytes.into(), number);
        Ok(number)
    }

    /// The template with this number.
    pub(super) fn get(&self, number: u32) -> Result<&Template, Corrupt> {
        self.all
            .get(number as usize)
            .map(|known| &known.template)
            .ok_or_else(|| Corrupt::new("packets", "template number"))
    }

    /// Its header fields, decoded once; `row` is any packet of it.
    pub(super) fn front(
        &mut self,
        number: u32,
        link: LinkType,
        row: &Stored,
    ) -> Result<Front, Corrupt> {
        let known = self
            .all
            .get_mut(number as usize)
            .ok_or_else(|| Corrupt::new("packets", "template number"))?;
        if let Some((_, front)) = known.read.iter().find(|(of, _)| *of == link) {
            return Ok(*front);
        }
        let values = FieldValues { trailer: row.trailer, ..FieldValues::default() };
        let mut prefix = Vec::with_capacity(known.template.prefix_length());
        // These fields do not depend on the innermost ends.
        known.template.fill(&values, &Endpoints::unspecified(), row.length, &mut prefix)?;
        let headers = decode(link, &prefix, row.length);
        let outer = headers.outer.map(|outer| (outer.source, outer.destination));
        let is_fragment = headers.fragment.is_some_and(|fragment| fragment.offset > 0);
        let front = Front { outer, vni: headers.vni, is_fragment, tcp: headers.tcp };
        known.read.push((link, front));
        Ok(front)
    }
}

/// Whether two arrays are the same bytes in memory.
fn same_buffers(one: &BinaryArray, other: &BinaryArray) -> bool {
    one.len() == other.len()
        && one.value_offsets().as_ptr() == other.value_offsets().as_ptr()
        && one.value_data().as_ptr() == other.value_data().as_ptr()
}

/// Follows the packets of a segment in stored order and rebuilds each one's TCP fields.
#[derive(Debug, Default)]
pub(super) struct TcpReader {
    predictor: Predictor,
    flow: Option<i32>,
}

impl TcpReader {
    /// The TCP fields of the next packet; none without a TCP header.
    ///
    /// # Errors
    /// Its template is invalid.
    pub(super) fn next(
        &mut self,
        templates: &mut Templates,
        number: u32,
        link: LinkType,
        row: &Stored,
    ) -> Result<Option<TcpFields>, Corrupt> {
        if self.flow != Some(row.flow) {
            self.predictor = Predictor::default();
            self.flow = Some(row.flow);
        }
        let template = templates.get(number)?;
        let (set, prefix) = (template.set(), template.prefix_length());
        let deltas = Deltas { tcp_seq: row.seq_delta, tcp_ack: row.ack_delta, ..Deltas::default() };
        let mut values = FieldValues { tcp_flags: row.flags, ..FieldValues::default() };
        let direction = if row.backward { Direction::Backward } else { Direction::Forward };
        let payload = wire_payload(row.length, row.trailer, prefix);
        self.predictor.decode(direction, set, &deltas, &mut values, payload);
        let cut = |kind| set.has(kind);
        let all = [FieldKind::TcpSeq, FieldKind::TcpAck, FieldKind::TcpFlags, FieldKind::TcpWindow];
        if all.into_iter().all(cut) {
            return Ok(Some(TcpFields {
                flags: row.flags,
                seq: values.tcp_seq,
                ack: values.tcp_ack,
                window: row.window,
            }));
        }
        // Not TCP; or so deep inside tunnels that the fields stayed in the template.
        let Some(tcp) = templates.front(number, link, row)?.tcp else { return Ok(None) };
        let pick = |kind, stored: u32, literal: u32| if cut(kind) { stored } else { literal };
        Ok(Some(TcpFields {
            flags: pick(FieldKind::TcpFlags, row.flags.into(), tcp.flags.into()) as u8,
            seq: pick(FieldKind::TcpSeq, values.tcp_seq, tcp.seq),
            ack: pick(FieldKind::TcpAck, values.tcp_ack, tcp.ack),
            window: pick(FieldKind::TcpWindow, row.window.into(), tcp.window.into()) as u16,
        }))
    }
}
