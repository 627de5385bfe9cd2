//! What a column of `packets` is made of.

use capstan_storage_engine::segment::packets::column;

use crate::tables::columns::{FlowColumn, PacketColumn};

/// How a column of packets follows from a column of flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfFlow {
    /// It is the same for all packets of the flow.
    Same(FlowColumn),
    /// It is the first one for packets forward and the second one for packets back.
    Ends(FlowColumn, FlowColumn),
}

/// None if it does not follow from a column of flows.
pub(super) fn of_flow(column: PacketColumn) -> Option<OfFlow> {
    use OfFlow::{Ends, Same};
    Some(match column {
        PacketColumn::FlowId => Same(FlowColumn::FlowId),
        PacketColumn::IpProtocol => Same(FlowColumn::IpProtocol),
        PacketColumn::Vlan => Same(FlowColumn::Vlan),
        // Only where the tunnel header is the innermost: see the decoder.
        PacketColumn::Vni => Same(FlowColumn::Vni),
        PacketColumn::SourceIp => Ends(FlowColumn::SourceIp, FlowColumn::DestinationIp),
        PacketColumn::DestinationIp => Ends(FlowColumn::DestinationIp, FlowColumn::SourceIp),
        PacketColumn::SourcePort => Ends(FlowColumn::SourcePort, FlowColumn::DestinationPort),
        PacketColumn::DestinationPort => Ends(FlowColumn::DestinationPort, FlowColumn::SourcePort),
        PacketColumn::SourceNamespace => {
            Ends(FlowColumn::SourceNamespace, FlowColumn::DestinationNamespace)
        }
        PacketColumn::DestinationNamespace => {
            Ends(FlowColumn::DestinationNamespace, FlowColumn::SourceNamespace)
        }
        PacketColumn::SourcePod => Ends(FlowColumn::SourcePod, FlowColumn::DestinationPod),
        PacketColumn::DestinationPod => Ends(FlowColumn::DestinationPod, FlowColumn::SourcePod),
        _ => return None,
    })
}

/// The columns of flows a column of packets is looked up in.
pub(in crate::tables) fn flow_columns(column: PacketColumn) -> Vec<FlowColumn> {
    match of_flow(column) {
        Some(OfFlow::Same(column)) => vec![column],
        Some(OfFlow::Ends(one, other)) => vec![one, other],
        None => Vec::new(),
    }
}

/// The columns of `packets.parquet` a column of SQL is made of. Headers and payload need all
/// of them, and are not listed here.
pub(in crate::tables) fn stored(column: PacketColumn) -> &'static [&'static str] {
    use PacketColumn as P;
    match column {
        P::Time => &[column::TIME],
        P::Ordinal => &[column::ORDINAL],
        P::FlowId | P::IpProtocol | P::Vlan => &[column::FLOW],
        P::SourceIp
        | P::DestinationIp
        | P::SourcePort
        | P::DestinationPort
        | P::SourceNamespace
        | P::SourcePod
        | P::DestinationNamespace
        | P::DestinationPod => &[column::FLOW, column::BACKWARD],
        P::Direction => &[column::BACKWARD],
        P::Interface | P::InterfaceName | P::LinkType => &[column::INTERFACE],
        P::Length => &[column::LENGTH],
        P::CapturedLength => &[column::LENGTH, column::CAPTURED],
        P::Protocol => &[column::PROTOCOL],
        P::OuterSourceIp | P::OuterDestinationIp => {
            &[column::TEMPLATE, column::INTERFACE, column::LENGTH, column::TRAILER]
        }
        P::Vni => &[
            column::TEMPLATE,
            column::INTERFACE,
            column::LENGTH,
            column::TRAILER,
            column::FLOW,
            column::BACKWARD,
        ],
        P::TcpFlags | P::TcpSeq | P::TcpAck | P::TcpWindow => &[
            column::TEMPLATE,
            column::INTERFACE,
            column::LENGTH,
            column::TRAILER,
            column::FLOW,
            column::BACKWARD,
            column::TCP_FLAGS,
            column::TCP_WINDOW,
            column::TCP_SEQ,
            column::TCP_ACK,
        ],
        P::Recorder
        | P::Observer
        | P::Generation
        | P::Segment
        | P::Identity
        | P::Header
        | P::Payload
        | P::Data => &[],
    }
}

/// Whether the column is made of captured bytes.
pub(in crate::tables) fn is_bytes(column: PacketColumn) -> bool {
    matches!(column, PacketColumn::Header | PacketColumn::Payload | PacketColumn::Data)
}
