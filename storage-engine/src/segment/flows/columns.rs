//! The columns of the layer, each declared once.

use capstan_index::End;
use capstan_model::identity::Identity;
use capstan_model::{Address, FlowEnd, FlowId, LinkType, Protocol};

use super::FlowRow;
use super::access::Access;
use crate::segment::column::{Column, Meaning, Merge, Packing};

/// A column and how the rows of the layer have it.
#[derive(Debug)]
pub struct FlowColumn {
    /// What it is.
    pub column: Column,
    pub(super) access: Access,
}

/// A column that every row has a value of.
const fn full(id: i32, name: &'static str, access: Access, packing: Packing) -> FlowColumn {
    let column = Column::new(id, name, access.column_type(), false, packing);
    FlowColumn { column, access }
}

/// A column that can be null.
const fn sparse(id: i32, name: &'static str, access: Access, packing: Packing) -> FlowColumn {
    let column = Column::new(id, name, access.column_type(), true, packing);
    FlowColumn { column, access }
}

impl FlowColumn {
    /// As SQL shows it, under the name of the column.
    const fn shown(self, merge: Merge) -> Self {
        let name = self.column.name;
        self.shown_as(name, Meaning::Plain, merge)
    }

    const fn shown_as(self, name: &'static str, meaning: Meaning, merge: Merge) -> Self {
        FlowColumn { column: self.column.shown(name, meaning).merged(merge), ..self }
    }

    const fn or(self, label: &'static str) -> Self {
        FlowColumn { column: self.column.or(label), ..self }
    }
}

/// The columns, in the order in which SQL shows them. They are only ever added to.
///
/// `source_namespace` to `destination_pod` are null where the identity of the end is not known. The columns do not tell
/// what is not known from what is not there, so they are not read back.
pub static COLUMNS: [FlowColumn; 38] = {
    use Access::{Bool, Bytes16, I32, I64, Label, Text, U8, U16, U32};
    use Packing::{Delta, Dictionary, Plain};
    [
        full(
            1,
            "flow_id",
            Bytes16(|row| Some(row.part.id.0), |row, id| row.part.id = FlowId(id)),
            Plain,
        )
        .shown_as("flow_id", Meaning::FlowId, Merge::Id),
        sparse(
            18,
            "first_time",
            Access::Time(|row| row.part.first, |row, time| row.part.first = Some(time)),
            Plain,
        )
        .shown(Merge::Min),
        sparse(
            19,
            "last_time",
            Access::Time(|row| row.part.last, |row, time| row.part.last = Some(time)),
            Plain,
        )
        .shown(Merge::Max),
        full(
            2,
            "source",
            Bytes16(|row| Some(row.part.key.source.0), |row, of| row.part.key.source = Address(of)),
            Dictionary,
        )
        .shown_as("source_ip", Meaning::End, Merge::Same),
        full(
            3,
            "destination",
            Bytes16(
                |row| Some(row.part.key.destination.0),
                |row, of| row.part.key.destination = Address(of),
            ),
            Dictionary,
        )
        .shown_as("destination_ip", Meaning::End, Merge::Same),
        full(
            4,
            "source_port",
            U16(|row| Some(row.part.key.source_port), |row, port| row.part.key.source_port = port),
            Plain,
        )
        .shown_as("source_port", Meaning::Port, Merge::Same),
        full(
            5,
            "destination_port",
            U16(
                |row| Some(row.part.key.destination_port),
                |row, port| row.part.key.destination_port = port,
            ),
            Dictionary,
        )
        .shown_as("destination_port", Meaning::Port, Merge::Same),
        full(
            6,
            "ip_protocol",
            U8(|row| Some(row.part.key.ip_protocol), |row, of| row.part.key.ip_protocol = of),
            Dictionary,
        )
        .shown_as("ip_protocol", Meaning::IpProtocol, Merge::Same),
        full(
            15,
            "protocol",
            Label(
                |row| row.part.protocol.name(),
                |row, name| row.part.protocol = name.parse().unwrap_or(Protocol::Unknown),
            ),
            Dictionary,
        )
        .or("unknown")
        .shown(Merge::LastKnown),
        sparse(
            16,
            "sni",
            Text(|row| row.part.sni.as_deref(), |row, name| row.part.sni = Some(name.to_owned())),
            Dictionary,
        )
        .shown(Merge::First),
        sparse(
            17,
            "alpn",
            Text(|row| row.part.alpn.as_deref(), |row, name| row.part.alpn = Some(name.to_owned())),
            Dictionary,
        )
        .shown(Merge::First),
        full(
            20,
            "packets_forward",
            I64(|row| row.part.packets[0] as i64, |row, of| row.part.packets[0] = of as u64),
            Delta,
        )
        .shown(Merge::Sum),
        full(
            21,
            "packets_backward",
            I64(|row| row.part.packets[1] as i64, |row, of| row.part.packets[1] = of as u64),
            Delta,
        )
        .shown(Merge::Sum),
        full(
            22,
            "bytes_forward",
            I64(|row| row.part.bytes[0] as i64, |row, of| row.part.bytes[0] = of as u64),
            Delta,
        )
        .shown(Merge::Sum),
        full(
            23,
            "bytes_backward",
            I64(|row| row.part.bytes[1] as i64, |row, of| row.part.bytes[1] = of as u64),
            Delta,
        )
        .shown(Merge::Sum),
        full(
            24,
            "payload_forward",
            I64(|row| row.part.payload[0] as i64, |row, of| row.part.payload[0] = of as u64),
            Delta,
        )
        .shown(Merge::Sum),
        full(
            25,
            "payload_backward",
            I64(|row| row.part.payload[1] as i64, |row, of| row.part.payload[1] = of as u64),
            Delta,
        )
        .shown(Merge::Sum),
        full(
            26,
            "tcp_flags_forward",
            U8(|row| Some(row.part.tcp_flags[0]), |row, flags| row.part.tcp_flags[0] = flags),
            Dictionary,
        )
        .shown(Merge::BitOr),
        full(
            27,
            "tcp_flags_backward",
            U8(|row| Some(row.part.tcp_flags[1]), |row, flags| row.part.tcp_flags[1] = flags),
            Dictionary,
        )
        .shown(Merge::BitOr),
        full(
            28,
            "opened",
            Bool(|row| row.part.opened, |row, opened| row.part.opened = opened),
            Plain,
        )
        .shown(Merge::Or),
        full(
            29,
            "end",
            Label(
                |row| row.part.end.name(),
                |row, name| {
                    let known = FlowEnd::ALL.into_iter().find(|end| end.name() == name);
                    row.part.end = known.unwrap_or_default();
                },
            ),
            Dictionary,
        )
        .shown_as("ended", Meaning::Plain, Merge::Last),
        full(
            9,
            "ethertype",
            U16(|row| Some(row.part.key.ethertype), |row, of| row.part.key.ethertype = of),
            Dictionary,
        )
        .shown(Merge::Same),
        sparse(
            10,
            "link_type",
            U16(
                |row| row.part.key.pseudo.map(|(link, _)| link.0),
                |row, link| row.part.key.pseudo = Some((LinkType(link), 0)),
            ),
            Dictionary,
        )
        .shown(Merge::Same),
        // Filled in after the link type, without which it says nothing.
        sparse(
            11,
            "interface",
            U32(
                |row| row.part.key.pseudo.map(|(_, interface)| interface),
                |row, of| {
                    if let Some((_, interface)) = &mut row.part.key.pseudo {
                        *interface = of;
                    }
                },
            ),
            Dictionary,
        )
        .shown(Merge::Same),
        sparse(
            12,
            "fragment_id",
            U32(|row| row.part.key.fragment_id, |row, of| row.part.key.fragment_id = Some(of)),
            Plain,
        )
        .shown(Merge::Same),
        sparse(
            7,
            "vlan",
            U16(|row| row.part.key.vlan, |row, vlan| row.part.key.vlan = Some(vlan)),
            Dictionary,
        )
        .shown(Merge::Same),
        sparse(
            8,
            "vni",
            U32(|row| row.part.key.vni, |row, vni| row.part.key.vni = Some(vni)),
            Dictionary,
        )
        .shown(Merge::Same),
        sparse(
            13,
            "outer_source",
            Bytes16(
                |row| row.part.outer.map(|outer| outer.0.0),
                |row, of| row.part.outer = Some((Address(of), Address::NONE)),
            ),
            Dictionary,
        )
        .shown_as("outer_source_ip", Meaning::TunnelEnd, Merge::First),
        // Filled in after the source, without which it says nothing.
        sparse(
            14,
            "outer_destination",
            Bytes16(
                |row| row.part.outer.map(|outer| outer.1.0),
                |row, of| {
                    if let Some((_, destination)) = &mut row.part.outer {
                        *destination = Address(of);
                    }
                },
            ),
            Dictionary,
        )
        .shown_as("outer_destination_ip", Meaning::TunnelEnd, Merge::First),
        sparse(
            35,
            "source_namespace",
            Text(|row| end(row, End::Source)?.namespace.value(), |_, _| ()),
            Dictionary,
        )
        .shown(Merge::First),
        sparse(
            36,
            "source_pod",
            Text(|row| end(row, End::Source)?.pod.value(), |_, _| ()),
            Dictionary,
        )
        .shown(Merge::First),
        sparse(
            37,
            "destination_namespace",
            Text(|row| end(row, End::Destination)?.namespace.value(), |_, _| ()),
            Dictionary,
        )
        .shown(Merge::First),
        sparse(
            38,
            "destination_pod",
            Text(|row| end(row, End::Destination)?.pod.value(), |_, _| ()),
            Dictionary,
        )
        .shown(Merge::First),
        full(
            30,
            "first_row",
            I32(
                |row| row.placement.first_row as i32,
                |row, first| row.placement.first_row = first as u32,
            ),
            Delta,
        ),
        full(
            31,
            "head_offset",
            I64(
                |row| row.placement.head_offset as i64,
                |row, offset| row.placement.head_offset = offset as u64,
            ),
            Delta,
        ),
        full(
            32,
            "head_bytes",
            I32(
                |row| row.placement.head_bytes as i32,
                |row, bytes| row.placement.head_bytes = bytes as u32,
            ),
            Delta,
        ),
        full(
            33,
            "body_offset",
            I64(
                |row| row.placement.body_offset as i64,
                |row, offset| row.placement.body_offset = offset as u64,
            ),
            Delta,
        ),
        full(
            34,
            "body_bytes",
            I64(
                |row| row.placement.body_bytes as i64,
                |row, bytes| row.placement.body_bytes = bytes as u64,
            ),
            Delta,
        ),
    ]
};

/// What is known of one end.
fn end(row: &FlowRow, end: End) -> Option<&Identity> {
    Some(&row.part.identity.as_ref()?[end as usize])
}

/// The declarations alone.
pub(super) static DECLARED: [Column; COLUMNS.len()] = {
    let mut columns = [COLUMNS[0].column; COLUMNS.len()];
    let mut at = 0;
    while at < columns.len() {
        columns[at] = COLUMNS[at].column;
        at += 1;
    }
    columns
};
