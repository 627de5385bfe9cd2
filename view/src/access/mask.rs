//! Masks: which flows a principal may see.

use capstan_index::Field;
use capstan_index::filter::FlowFilter;
use capstan_model::{Failure, FailureKind};

use super::flow_ids::{FlowIdCipher, KEY_BYTES};

/// A mask shows the flows that certainly match its filter. A flow of which the index does not know whether it matches
/// is hidden: its ends may be ones that the principal must not see.
///
/// It is evaluated for each part of a flow, so it has only conditions on what all parts of a flow have in common: what
/// belongs to the flow key, and identities of ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    shown: FlowFilter,
    flow_ids: FlowIdCipher,
}

impl Mask {
    /// A mask that shows the flows which match `shown`. The key enciphers flow ids; it is secret, and the same in all
    /// servers of a store, so that each knows the ids that another one gave.
    ///
    /// # Errors
    /// Of kind `Usage`: the filter has a field in which parts of one flow may differ; the text names the field.
    pub fn new(shown: FlowFilter, key: [u8; KEY_BYTES]) -> Result<Mask, Failure> {
        check(&shown)?;
        Ok(Mask { shown, flow_ids: FlowIdCipher::new(key) })
    }

    /// The flows that it shows.
    pub fn shown(&self) -> &FlowFilter {
        &self.shown
    }

    /// The flow ids that it shows.
    pub fn flow_ids(&self) -> &FlowIdCipher {
        &self.flow_ids
    }

    /// What a principal asks for, with the ids that are stored.
    pub fn asked(&self, flows: &FlowFilter) -> FlowFilter {
        self.flow_ids.decipher_all(flows)
    }

    /// The flows that match both the mask and what a principal asks for.
    pub fn narrowed(&self, flows: &FlowFilter) -> FlowFilter {
        FlowFilter::And(vec![self.shown.clone(), self.asked(flows)])
    }
}

/// Refuses fields that are not allowed in masks.
fn check(shown: &FlowFilter) -> Result<(), Failure> {
    match shown {
        FlowFilter::Term(term) => match unsuitable(term.field) {
            None => Ok(()),
            Some(why) => {
                let words = format!(
                    "a mask cannot have a condition on {}: {why}. Use ip, ip_protocol, vlan, ether_type, flow_id \
                     or identities",
                    term.field.name()
                );
                Err(Failure::new(FailureKind::Usage, words))
            }
        },
        FlowFilter::And(filters) | FlowFilter::Or(filters) => filters.iter().try_for_each(check),
        FlowFilter::Not(filter) => check(filter),
    }
}

/// Why a field is not allowed in masks; none if it is.
fn unsuitable(field: Field) -> Option<&'static str> {
    match field {
        // Of the flow key.
        Field::Ip | Field::IpProtocol | Field::Vlan | Field::EtherType | Field::Flow => None,
        // Where the identity is unknown, a part does not match for certain, and is hidden.
        Field::Namespace
        | Field::Pod
        | Field::Service
        | Field::Workload
        | Field::Node
        | Field::Process => None,
        Field::Protocol | Field::Sni | Field::Alpn => {
            Some("it is recorded only in those parts of a flow whose packets tell it")
        }
        Field::OuterIp | Field::Vni => {
            Some("parts of a flow may have come through different tunnels")
        }
        Field::Port => Some(
            "it includes ports of tunnels, and parts of a flow may have come through different \
             tunnels",
        ),
        Field::Interface | Field::Known => Some("it is not a property of flows"),
    }
}

#[cfg(test)]
mod tests {
    use capstan_index::filter::Term;
    use capstan_model::Address;

    use super::*;

    #[test]
    fn mask_has_no_field_that_differs_between_parts_of_a_flow() {
        let key = [7; KEY_BYTES];
        let allowed = |field| {
            let term = || FlowFilter::from(Term::new(field, [1]));
            let alone = Mask::new(term(), key).is_ok();
            for inside in [
                !term(),
                FlowFilter::And(vec![Term::ip_protocol(6).into(), term()]),
                FlowFilter::Or(vec![Term::ip_protocol(6).into(), !term()]),
            ] {
                assert_eq!(Mask::new(inside, key).is_ok(), alone, "{field:?}");
            }
            alone
        };
        let refused: Vec<_> = Field::ALL.iter().filter(|field| !allowed(**field)).collect();
        assert_eq!(
            refused,
            [
                &Field::OuterIp,
                &Field::Port,
                &Field::Protocol,
                &Field::Vni,
                &Field::Sni,
                &Field::Alpn,
                &Field::Interface,
                &Field::Known,
            ]
        );
        // A host is also the end of a tunnel.
        let host = Mask::new(FlowFilter::host(Address::v4([10, 0, 0, 1])), key).unwrap_err();
        assert_eq!(host.kind(), FailureKind::Usage);
        assert!(host.to_string().contains("outer_ip"), "{host}");
        assert!(Mask::new(FlowFilter::all(), key).is_ok());
    }
}
