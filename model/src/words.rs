//! Counts with nouns for messages.

/// A count with its noun: "1 packet", "2 packets", "3 stretches", "4 entries".
pub fn count(number: u64, noun: &str) -> String {
    if number == 1 {
        return format!("1 {noun}");
    }
    let ends = |ends: &[&str]| ends.iter().any(|end| noun.ends_with(end));
    match noun.strip_suffix('y') {
        Some(stem) if !ends(&["ay", "ey", "oy", "uy"]) => format!("{number} {stem}ies"),
        _ if ends(&["s", "x", "ch", "sh"]) => format!("{number} {noun}es"),
        _ => format!("{number} {noun}s"),
    }
}

/// The form that goes with a number: `agree(n, "is", "are")`.
pub fn agree<'a>(number: u64, one: &'a str, several: &'a str) -> &'a str {
    if number == 1 { one } else { several }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_and_verbs_agree_in_number() {
        for (number, noun, expected) in [
            (0, "packet", "0 packets"),
            (1, "packet", "1 packet"),
            (2, "packet", "2 packets"),
            (2, "flow part", "2 flow parts"),
            (2, "more stretch", "2 more stretches"),
            (2, "entry", "2 entries"),
            (2, "day", "2 days"),
            (2, "address", "2 addresses"),
            (1, "address", "1 address"),
        ] {
            assert_eq!(count(number, noun), expected);
        }
        assert_eq!((agree(1, "is", "are"), agree(0, "is", "are")), ("is", "are"));
    }
}
