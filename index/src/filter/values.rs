//! Sets of values of a field.

use crate::field::{MAX_VALUE, PREFIX_EXACT, term_value};

/// Which values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Values {
    /// This one.
    One(Vec<u8>),
    /// Each of these, ascending and without duplicates: see [`Values::several`].
    Several(Vec<Vec<u8>>),
    /// Those that begin with these bytes.
    Prefix(Vec<u8>),
    /// Those that end with these bytes.
    Suffix(Vec<u8>),
    /// Those of the length of the first one that are neither below it nor above the second one, bytewise.
    Range(Vec<u8>, Vec<u8>),
}

impl Values {
    /// Each of several values.
    pub fn several(values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut values: Vec<Vec<u8>> = values.into_iter().collect();
        values.sort_unstable();
        values.dedup();
        match <[Vec<u8>; 1]>::try_from(values) {
            Ok([value]) => Values::One(value),
            Err(values) => Values::Several(values),
        }
    }

    /// Whether a value is among them.
    pub fn contains(&self, value: &[u8]) -> bool {
        match self {
            Values::One(one) => one == value,
            Values::Several(some) => some.binary_search_by(|one| one.as_slice().cmp(value)).is_ok(),
            Values::Prefix(prefix) => value.starts_with(prefix),
            Values::Suffix(suffix) => value.ends_with(suffix),
            Values::Range(low, high) => {
                value.len() == low.len() && (low.as_slice()..=high).contains(&value)
            }
        }
    }

    /// Whether a value is among them, decided from its form in the term index, where long values are truncated.
    /// None if that form does not decide.
    pub(crate) fn contains_indexed(&self, indexed: &[u8]) -> Option<bool> {
        if indexed.len() < MAX_VALUE {
            return Some(self.contains(indexed));
        }
        match self {
            Values::One(one) => Some(*term_value(one) == *indexed),
            Values::Several(some) => Some(some.iter().any(|one| *term_value(one) == *indexed)),
            Values::Prefix(prefix) if prefix.len() <= PREFIX_EXACT => {
                Some(indexed.starts_with(prefix))
            }
            Values::Prefix(prefix) => {
                (indexed[..PREFIX_EXACT] != prefix[..PREFIX_EXACT]).then_some(false)
            }
            Values::Suffix(suffix) => suffix.is_empty().then_some(true),
            Values::Range(low, _) => (low.len() < MAX_VALUE).then_some(false),
        }
    }

    /// The one value, if it is one.
    pub fn one(&self) -> Option<&[u8]> {
        match self {
            Values::One(one) => Some(one),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_told_apart() {
        let range = Values::Range(vec![1, 0], vec![2, 0]);
        for (values, inside, outside) in [
            (Values::One(b"ab".to_vec()), &b"ab"[..], &b"abc"[..]),
            (Values::several([b"b".to_vec(), b"a".to_vec(), b"b".to_vec()]), b"b", b"c"),
            (Values::Prefix(b"a.".to_vec()), b"a.b", b"a"),
            (Values::Suffix(b".b".to_vec()), b"a.b", b"b"),
            (range.clone(), &[1, 255], &[2, 1]),
            (range, &[2, 0], &[1, 0, 0]),
        ] {
            assert!(values.contains(inside), "{values:?}");
            assert!(!values.contains(outside), "{values:?}");
        }
        assert_eq!(Values::several([vec![7], vec![7]]), Values::One(vec![7]));
        assert!(!Values::several([]).contains(b""));
        assert!(!Values::Range(vec![2], vec![1]).contains(&[1]), "an empty range");
    }

    fn some_values() -> impl Strategy<Value = Values> {
        let long = || prop_oneof!["[ab]{0,4}", "a{236,242}", "a{250,260}b?"];
        let bytes = move || long().prop_map(String::into_bytes);
        prop_oneof![
            bytes().prop_map(Values::One),
            prop::collection::vec(bytes(), 0..4).prop_map(Values::several),
            bytes().prop_map(Values::Prefix),
            bytes().prop_map(Values::Suffix),
            (bytes(), bytes()).prop_map(|(low, high)| Values::Range(low, high)),
        ]
    }

    proptest! {
        #[test]
        fn what_the_cut_form_tells_is_true(
            values in some_values(),
            value in prop_oneof!["[ab]{0,4}", "a{236,260}b?"],
        ) {
            let told = values.contains_indexed(&term_value(value.as_bytes()));
            prop_assert!(told.is_none_or(|told| told == values.contains(value.as_bytes())));
            prop_assert!(told.is_some() || value.len() >= MAX_VALUE);
        }
    }
}
