//! Flow ids under a mask.
//!
//! A flow id ends with the number of the flow in its generation, so the ids of two flows tell how many other flows
//! began between them. Under a mask this number is enciphered: the recorder and the generation stay, the number
//! becomes another one of 40 bits. The cipher is a Feistel network (Luby and Rackoff 1988) of [`ROUNDS`] rounds over
//! two halves of 20 bits; its round function is keyed BLAKE3. It is a permutation, so a condition on an id is
//! deciphered and then finds its flow by the index.

use capstan_index::Field;
use capstan_index::filter::{FlowFilter, Term, Values};
use capstan_model::FlowId;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// Rounds of the network.
const ROUNDS: u8 = 10;

/// Bits of a half.
const HALF: u32 = 20;

const HALF_MASK: u64 = (1 << HALF) - 1;

/// A cipher of flow ids; see the module.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FlowIdCipher {
    key: [u8; KEY_BYTES],
}

/// The key is a secret.
impl std::fmt::Debug for FlowIdCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowIdCipher").finish_non_exhaustive()
    }
}

impl FlowIdCipher {
    pub(super) fn new(key: [u8; KEY_BYTES]) -> FlowIdCipher {
        FlowIdCipher { key }
    }

    /// The id that a masked principal gets for a flow.
    pub fn encipher(&self, id: FlowId) -> FlowId {
        let counter = id.counter();
        let (mut left, mut right) = (counter >> HALF, counter & HALF_MASK);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.round(&id, round, right));
        }
        joined(&id, left, right)
    }

    /// The stored id of the flow for which a masked principal got `id`.
    pub fn decipher(&self, id: FlowId) -> FlowId {
        let counter = id.counter();
        let (mut left, mut right) = (counter >> HALF, counter & HALF_MASK);
        for round in (0..ROUNDS).rev() {
            (left, right) = (right ^ self.round(&id, round, left), left);
        }
        joined(&id, left, right)
    }

    /// The round function. Generations have ciphers of their own.
    fn round(&self, id: &FlowId, round: u8, half: u64) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&id.recorder().0.to_be_bytes());
        hasher.update(&id.generation().0.to_be_bytes());
        hasher.update(&[round]);
        hasher.update(&half.to_be_bytes());
        let hash = hasher.finalize();
        let first = hash.as_bytes().first_chunk::<8>().copied().unwrap_or_default();
        u64::from_be_bytes(first) & HALF_MASK
    }

    /// The same conditions with stored ids in place of enciphered ones. Others stay as they are.
    pub(super) fn decipher_all(&self, flows: &FlowFilter) -> FlowFilter {
        let all = |filters: &[FlowFilter]| filters.iter().map(|of| self.decipher_all(of)).collect();
        match flows {
            FlowFilter::Term(term) => FlowFilter::Term(self.decipher_term(term)),
            FlowFilter::And(filters) => FlowFilter::And(all(filters)),
            FlowFilter::Or(filters) => FlowFilter::Or(all(filters)),
            FlowFilter::Not(filter) => !self.decipher_all(filter),
        }
    }

    fn decipher_term(&self, term: &Term) -> Term {
        let id = |bytes: &Vec<u8>| match <[u8; 16]>::try_from(bytes.as_slice()) {
            Ok(id) => self.decipher(FlowId(id)).0.to_vec(),
            // It is the id of no flow.
            Err(_) => bytes.clone(),
        };
        match (term.field, &term.values) {
            (Field::Flow, Values::One(one)) => Term::new(Field::Flow, id(one)),
            (Field::Flow, Values::Several(several)) => {
                Term::one_of(Field::Flow, several.iter().map(id))
            }
            // A prefix, a suffix and a range of ids are no sets of flows, and no segment decides them.
            (_, Values::One(_) | Values::Several(_))
            | (_, Values::Prefix(_) | Values::Suffix(_) | Values::Range(..)) => term.clone(),
        }
    }
}

fn joined(id: &FlowId, left: u64, right: u64) -> FlowId {
    FlowId::new(id.recorder(), id.generation(), left << HALF | right)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use capstan_model::{Generation, RecorderId};
    use proptest::prelude::*;

    use super::*;

    fn id(generation: u32, counter: u64) -> FlowId {
        FlowId::new(RecorderId(3), Generation(generation), counter)
    }

    #[test]
    fn neighbours_have_unrelated_ids() {
        let cipher = FlowIdCipher::new([1; KEY_BYTES]);
        let shown: Vec<u64> = (0..1_000).map(|n| cipher.encipher(id(1, n)).counter()).collect();
        assert_eq!(shown.iter().collect::<BTreeSet<_>>().len(), 1_000);
        assert!(!shown.is_sorted());
        let close = shown.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 1 << 24).count();
        assert!(close < 10, "{close} of 999");
        let others = (0..1_000).map(|n| cipher.encipher(id(2, n)).counter());
        assert_eq!(shown.iter().zip(others).filter(|(a, b)| *a == b).count(), 0);
    }

    #[test]
    fn conditions_on_ids_are_deciphered() {
        let cipher = FlowIdCipher::new([1; KEY_BYTES]);
        let (one, other) = (id(1, 7), id(1, 8));
        let shown = |of: FlowId| Term::flow(cipher.encipher(of));
        let both = Term::one_of(Field::Flow, [one, other].map(|of| cipher.encipher(of).0.to_vec()));
        let asked = FlowFilter::And(vec![
            FlowFilter::Or(vec![shown(one).into(), both.into()]),
            !FlowFilter::from(shown(other)),
            FlowFilter::port(53),
        ]);
        let stored = FlowFilter::And(vec![
            FlowFilter::Or(vec![
                Term::flow(one).into(),
                Term::one_of(Field::Flow, [one, other].map(|of| of.0.to_vec())).into(),
            ]),
            !FlowFilter::from(Term::flow(other)),
            FlowFilter::port(53),
        ]);
        assert_eq!(cipher.decipher_all(&asked), stored);
    }

    proptest! {
        #[test]
        fn deciphered_id_is_the_stored_one(key: [u8; KEY_BYTES], bytes: [u8; 16]) {
            let (cipher, id) = (FlowIdCipher::new(key), FlowId(bytes));
            let shown = cipher.encipher(id);
            prop_assert_eq!(cipher.decipher(shown), id);
            prop_assert_eq!(cipher.encipher(cipher.decipher(id)), id);
            prop_assert_eq!(&shown.0[..11], &id.0[..11]);
        }
    }
}
