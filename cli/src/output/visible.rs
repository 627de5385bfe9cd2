//! Makes untrusted text safe to display.
//!
//! Names in captures and catalogs may hold anything: terminal control characters, and characters that reverse
//! the direction of a line or are invisible. In output for people these are escaped.

use std::borrow::Cow;

/// Which control characters are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Nothing: a cell, a name, a field.
    Nothing,
    /// Line feeds and tabs: text of several lines.
    Lines,
}

/// The text with everything that is not to be seen written as an escape: `\n`, `\t`, `\x1b`,
/// `\u{202e}`.
pub(crate) fn visible(text: &str, keep: Keep) -> Cow<'_, str> {
    if !text.chars().any(|c| is_hidden(c, keep)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !is_hidden(c, keep) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(out)
}

fn is_hidden(c: char, keep: Keep) -> bool {
    match c {
        '\n' | '\t' => keep == Keep::Nothing,
        c if c.is_control() => true,
        // What Unicode calls format characters (general category Cf: zero width, direction, tags), and its
        // separators of lines and paragraphs.
        '\u{ad}'
        | '\u{600}'..='\u{605}'
        | '\u{61c}'
        | '\u{6dd}'
        | '\u{70f}'
        | '\u{890}'..='\u{891}'
        | '\u{8e2}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{110bd}'
        | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

/// Escapes such characters in the strings of JSON text; its value stays the same.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_hidden(c, Keep::Lines)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c, Keep::Lines) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_escaped() {
        for (text, expected) in [
            ("plain, ünïcödé, 漢字, 🦀", "plain, ünïcödé, 漢字, 🦀"),
            ("\u{1b}[31mred", "\\x1b[31mred"),
            ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
            ("\0\u{7f}\u{9b}31m\u{85}", "\\x00\\x7f\\x9b31m\\x85"),
            ("evil\u{202e}gpj.exe", "evil\\u{202e}gpj.exe"),
            ("\u{2066}\u{2069}\u{200b}\u{feff}\u{ad}", "\\u{2066}\\u{2069}\\u{200b}\\u{feff}\\xad"),
            ("\u{2028}\u{e0041}", "\\u{2028}\\u{e0041}"),
        ] {
            assert_eq!(visible(text, Keep::Nothing), expected);
        }
        assert_eq!(visible("a\n\tb\r\u{1b}", Keep::Lines), "a\n\tb\\r\\x1b");
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = "\u{1b}[31m \u{7f}\u{9b}\u{202e}\u{e0041}\n";
        let text = serde_json::to_string_pretty(&[value]).unwrap();
        let shown = json(&text);
        assert!(shown.chars().all(|c| !is_hidden(c, Keep::Lines)), "{shown}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), [value]);
        assert_eq!(json("{\"a\": 1}\n"), "{\"a\": 1}\n");
    }
}
