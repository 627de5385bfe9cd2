//! What a column of `packets` is made of.

use capstan_storage_engine::segment::packets::column;

use crate::tables::columns::PacketColumn;
use crate::tables::flow_columns::FlowColumn;

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
    let same = |name| Some(OfFlow::Same(FlowColumn::named(name)?));
    let ends = |one, other| Some(OfFlow::Ends(FlowColumn::named(one)?, FlowColumn::named(other)?));
    match column {
        PacketColumn::FlowId => same("flow_id"),
        PacketColumn::IpProtocol => same("ip_protocol"),
        PacketColumn::Vlan => same("vlan"),
        // Only where the tunnel header is the innermost: see the decoder.
        PacketColumn::Vni => same("vni"),
        PacketColumn::SourceIp => ends("source_ip", "destination_ip"),
        PacketColumn::DestinationIp => ends("destination_ip", "source_ip"),
        PacketColumn::SourcePort => ends("source_port", "destination_port"),
        PacketColumn::DestinationPort => ends("destination_port", "source_port"),
        PacketColumn::SourceNamespace => ends("source_namespace", "destination_namespace"),
        PacketColumn::DestinationNamespace => ends("destination_namespace", "source_namespace"),
        PacketColumn::SourcePod => ends("source_pod", "destination_pod"),
        PacketColumn::DestinationPod => ends("destination_pod", "source_pod"),
        PacketColumn::Time
        | PacketColumn::Recorder
        | PacketColumn::Generation
        | PacketColumn::Ordinal
        | PacketColumn::Observer
        | PacketColumn::Direction
        | PacketColumn::Interface
        | PacketColumn::InterfaceName
        | PacketColumn::LinkType
        | PacketColumn::Length
        | PacketColumn::CapturedLength
        | PacketColumn::Protocol
        | PacketColumn::OuterSourceIp
        | PacketColumn::OuterDestinationIp
        | PacketColumn::TcpFlags
        | PacketColumn::TcpSeq
        | PacketColumn::TcpAck
        | PacketColumn::TcpWindow
        | PacketColumn::Header
        | PacketColumn::Payload
        | PacketColumn::Data
        | PacketColumn::Identity
        | PacketColumn::Segment => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_follow_from_a_flow_are_looked_up_in_it() {
        let looked_up = |column: &&PacketColumn| of_flow(**column).is_some();
        let names: Vec<_> =
            PacketColumn::ALL.iter().filter(looked_up).map(|of| of.name()).collect();
        let ends = ["ip", "port", "namespace", "pod"];
        let ends = ends.iter().flat_map(|of| [format!("source_{of}"), format!("destination_{of}")]);
        let mut expected: Vec<_> = ends.collect();
        expected.extend(["flow_id", "ip_protocol", "vlan", "vni"].map(str::to_owned));
        assert_eq!(names.len(), expected.len());
        assert!(expected.iter().all(|name| names.contains(&name.as_str())), "{names:?}");
    }
}
