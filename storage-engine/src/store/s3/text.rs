//! Validates external text for use in a header: the HTTP library assumes that it is valid.

use capstan_model::{Failure, FailureKind};

/// Trims blanks and checks that the text is visible ASCII, valid in a header. `what` names the variable or file for
/// messages; the text itself may be a secret and is not shown.
pub(super) fn header(what: &str, text: &str) -> Result<String, Failure> {
    let text = text.trim();
    match text.chars().position(|c| !c.is_ascii_graphic()) {
        None => Ok(text.to_owned()),
        Some(at) => {
            let found = text.chars().nth(at).unwrap_or_default();
            let kind = match found {
                '\n' | '\r' => "a line break",
                ' ' | '\t' => "a blank",
                c if c.is_control() => "a control character",
                _ => "a character that is not ASCII",
            };
            let what = format!(
                "{what} has {kind} at position {}, which is not allowed in a header",
                at + 1
            );
            Err(Failure::new(FailureKind::Usage, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_trimmed_and_invalid_ones_refused() {
        for text in ["token", " token\n", "\ttoken\r\n"] {
            assert_eq!(header("x", text).unwrap(), "token");
        }
        assert_eq!(header("x", "a+/=~").unwrap(), "a+/=~");
        for (text, words) in [
            ("to\nken", "a line break at position 3"),
            ("to ken", "a blank"),
            ("to\0ken", "a control character"),
            ("tökén", "not ASCII"),
            ("a\u{7f}", "a control character"),
        ] {
            let failure = header("the token in FILE", text).expect_err(text).to_string();
            assert!(failure.starts_with("the token in FILE has "), "{failure}");
            assert!(failure.contains(words) && !failure.contains(text), "{failure}");
        }
    }
}
