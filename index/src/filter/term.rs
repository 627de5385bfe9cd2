//! A condition on one field.

use std::ops::RangeInclusive;

use capstan_model::{Address, FlowId, Network, Protocol};

use super::values::Values;
use crate::Field;

/// A flow has one of these values in a field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Term {
    /// Which field.
    pub field: Field,
    /// Which values.
    pub values: Values,
}

impl Term {
    /// One value, as [`Field`] says that it is written.
    pub fn new(field: Field, value: impl Into<Vec<u8>>) -> Self {
        Term { field, values: Values::One(value.into()) }
    }

    /// One of several values.
    pub fn one_of(field: Field, values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Term { field, values: Values::several(values) }
    }

    /// Values that begin with these bytes.
    pub fn prefix(field: Field, prefix: impl Into<Vec<u8>>) -> Self {
        Term { field, values: Values::Prefix(prefix.into()) }
    }

    /// Values that end with these bytes.
    pub fn suffix(field: Field, suffix: impl Into<Vec<u8>>) -> Self {
        Term { field, values: Values::Suffix(suffix.into()) }
    }

    /// Values of the length of `low` that are neither below it nor above `high`: a range of numbers, big-endian.
    pub fn range(field: Field, low: impl Into<Vec<u8>>, high: impl Into<Vec<u8>>) -> Self {
        Term { field, values: Values::Range(low.into(), high.into()) }
    }

    /// Either end of the flow itself.
    pub fn ip(address: Address) -> Self {
        Term::new(Field::Ip, address.0)
    }

    /// Either end of a tunnel around it.
    pub fn outer_ip(address: Address) -> Self {
        Term::new(Field::OuterIp, address.0)
    }

    /// Either end of the flow itself is in the network.
    pub fn ip_in(network: Network) -> Self {
        Term::network(Field::Ip, network)
    }

    /// Either end of a tunnel around it is in the network.
    pub fn outer_ip_in(network: Network) -> Self {
        Term::network(Field::OuterIp, network)
    }

    fn network(field: Field, network: Network) -> Self {
        match network.address() {
            Some(address) => Term::new(field, address.0),
            None => Term::range(field, network.first().0, network.last().0),
        }
    }

    /// Either port is one of these, of the flow or of a tunnel around it.
    pub fn ports(ports: RangeInclusive<u16>) -> Self {
        match ports.into_inner() {
            (low, high) if low == high => Term::port(low),
            (low, high) => Term::range(Field::Port, low.to_be_bytes(), high.to_be_bytes()),
        }
    }

    /// Either port, of the flow or of a tunnel around it.
    pub fn port(port: u16) -> Self {
        Term::new(Field::Port, port.to_be_bytes())
    }

    /// The application protocol label.
    pub fn protocol(protocol: Protocol) -> Self {
        Term::new(Field::Protocol, [protocol as u8])
    }

    /// The IP protocol number.
    pub fn ip_protocol(number: u8) -> Self {
        Term::new(Field::IpProtocol, [number])
    }

    /// The innermost VLAN identifier.
    pub fn vlan(identifier: u16) -> Self {
        Term::new(Field::Vlan, identifier.to_be_bytes())
    }

    /// The innermost virtual network identifier.
    pub fn vni(identifier: u32) -> Self {
        Term::new(Field::Vni, identifier.to_be_bytes())
    }

    /// The flow with this id.
    pub fn flow(id: FlowId) -> Self {
        Term::new(Field::Flow, id.0)
    }

    /// The Kubernetes namespace of either end.
    pub fn namespace(name: &str) -> Self {
        Term::new(Field::Namespace, name)
    }

    /// The pod of either end, `namespace/name`.
    pub fn pod(name: &str) -> Self {
        Term::new(Field::Pod, name)
    }
}
