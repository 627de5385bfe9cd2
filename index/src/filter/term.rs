//! A condition on one field.

use capstan_model::{Address, Protocol};

use crate::Field;

/// A value of a field, as the term index has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Term {
    /// Which field.
    pub field: Field,
    /// The value's bytes; [`Field`] says how each is written.
    pub value: Vec<u8>,
}

impl Term {
    /// A term.
    pub fn new(field: Field, value: impl Into<Vec<u8>>) -> Self {
        Term { field, value: value.into() }
    }

    /// Either end of the flow itself.
    pub fn ip(address: Address) -> Self {
        Term::new(Field::Ip, address.0)
    }

    /// Either end of a tunnel around it.
    pub fn outer_ip(address: Address) -> Self {
        Term::new(Field::OuterIp, address.0)
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

    /// The Kubernetes namespace of either end.
    pub fn namespace(name: &str) -> Self {
        Term::new(Field::Namespace, name)
    }

    /// The pod of either end, `namespace/name`.
    pub fn pod(name: &str) -> Self {
        Term::new(Field::Pod, name)
    }
}
