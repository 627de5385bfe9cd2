//! The terms of one flow.

use std::convert::Infallible;

use capstan_model::identity::{Identity, Knowledge};
use capstan_model::{Address, FlowPart};

use super::bounds::Bounds;
use super::source::TermSource;
use super::term::Term;
use crate::field::{End, Field, flow_value};

/// The two ends of a tunnel around a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelEnds {
    /// The addresses of its ends.
    pub addresses: (Address, Address),
    /// Their ports; 0 where there are none.
    pub ports: (u16, u16),
}

/// A flow part with everything that it can be found by. The index of its segment has these terms, and a filter can be
/// evaluated over it before there is a segment, as far as its packets tell until then.
#[derive(Debug, Clone, Copy)]
pub struct FlowTerms<'a> {
    /// Its key, labels and identities.
    pub part: &'a FlowPart,
    /// The tunnels that packets of it came in.
    pub tunnels: &'a [TunnelEnds],
    /// Virtual network identifiers of its packets.
    pub vnis: &'a [u32],
}

impl FlowTerms<'_> {
    /// Calls a function with each term, some of them several times. An address of sixteen zeros is none.
    pub fn each(&self, mut term: impl FnMut(Field, &[u8])) {
        let (part, key) = (self.part, &self.part.key);
        for address in [key.source, key.destination] {
            if address != Address::NONE {
                term(Field::Ip, &address.0);
            }
        }
        if key.source_port != 0 || key.destination_port != 0 {
            term(Field::Port, &key.source_port.to_be_bytes());
            term(Field::Port, &key.destination_port.to_be_bytes());
        }
        for TunnelEnds { addresses, ports } in self.tunnels {
            term(Field::OuterIp, &addresses.0.0);
            term(Field::OuterIp, &addresses.1.0);
            if *ports != (0, 0) {
                term(Field::Port, &ports.0.to_be_bytes());
                term(Field::Port, &ports.1.to_be_bytes());
            }
        }
        term(Field::Protocol, &[part.protocol as u8]);
        term(Field::IpProtocol, &[key.ip_protocol]);
        term(Field::EtherType, &key.ethertype.to_be_bytes());
        if let Some(vlan) = key.vlan {
            term(Field::Vlan, &vlan.to_be_bytes());
        }
        for vni in self.vnis {
            term(Field::Vni, &vni.to_be_bytes());
        }
        if let Some(sni) = &part.sni {
            term(Field::Sni, sni.as_bytes());
        }
        if let Some(alpn) = &part.alpn {
            term(Field::Alpn, alpn.as_bytes());
        }
        let (counter, from) = flow_value(part.id);
        term(Field::Flow, counter.get(from..).unwrap_or_default());
        self.each_of_identity(term);
    }

    fn each_of_identity(&self, mut term: impl FnMut(Field, &[u8])) {
        let Some(identity) = &self.part.identity else { return };
        for (end, identity) in End::BOTH.into_iter().zip(identity.iter()) {
            for (field, known) in fields(identity) {
                if known.is_known() {
                    term(Field::Known, &[field.number(), end as u8]);
                }
                if let Some(value) = known.value() {
                    term(field, value.as_bytes());
                }
            }
        }
    }

    /// Whether it is known of both ends what they have in a field of identities.
    fn is_known(&self, field: Field) -> bool {
        self.part.identity.as_ref().is_some_and(|ends| {
            ends.iter().all(|end| fields(end).iter().any(|(of, is)| *of == field && is.is_known()))
        })
    }
}

fn fields(of: &Identity) -> [(Field, &Knowledge); 6] {
    [
        (Field::Namespace, &of.namespace),
        (Field::Pod, &of.pod),
        (Field::Service, &of.service),
        (Field::Workload, &of.workload),
        (Field::Node, &of.node),
        (Field::Process, &of.process),
    ]
}

/// The one flow: of it all terms are known, except for identities of its ends.
impl TermSource for FlowTerms<'_> {
    type Flows = bool;
    type Error = Infallible;

    fn all(&self) -> bool {
        true
    }

    fn bounds(&self, Term { field, values }: &Term) -> Result<Bounds<bool>, Infallible> {
        if *field == Field::Flow {
            return Ok(Bounds::known(values.contains(&self.part.id.0)));
        }
        let mut found = false;
        self.each(|of, value| found |= of == *field && values.contains(value));
        let is_open = field.is_identity() && !self.is_known(*field);
        Ok(Bounds { sure: found, possible: found || is_open })
    }
}

#[cfg(test)]
mod tests;
