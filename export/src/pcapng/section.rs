//! Section headers: the file's own options, and those of the source sections of its packets.

use capstan_model::Block;
use capstan_model::block::block_type;

use super::bytes::{self, Options};

/// Options of a section header (draft, section 4.1).
mod code {
    pub(super) const HARDWARE: u16 = 2;
    pub(super) const OS: u16 = 3;
    pub(super) const APPLICATION: u16 = 4;
}

/// Bytes of a section header's body before its options.
const FIXED: usize = 16;

/// The options of a section header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// The machine that captured.
    pub hardware: Option<String>,
    /// Its operating system.
    pub os: Option<String>,
    /// The program that wrote the file.
    pub application: Option<String>,
    /// Further remarks, such as how complete the file is.
    pub comments: Vec<String>,
}

/// The options of a section header that came with a source, little-endian, without end mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSection(Vec<u8>);

impl SourceSection {
    /// Reads them from a block. None if it is not a section header, or its options are damaged.
    pub fn of(block: &Block) -> Option<SourceSection> {
        if block.block_type != block_type::SECTION_HEADER || block.big_endian {
            return None;
        }
        let options = bytes::without_end(block.body.get(FIXED..)?);
        bytes::are_options(options).then(|| SourceSection(options.to_vec()))
    }

    /// The values of an option.
    fn values(&self, of: u16) -> impl Iterator<Item = &[u8]> {
        bytes::each(&self.0).filter(move |(code, _)| *code == of).map(|(_, value)| value)
    }
}

/// Writes the options of a section whose packets come from these source sections.
///
/// Of one source section all options are written unchanged. Of several, common values are written as options,
/// and differing ones as comments: one section has one machine.
pub(super) fn options(section: &Section, sources: &[SourceSection], out: &mut Vec<u8>) {
    let mut options = Options::new(out);
    let Section { hardware, os, application, comments } = section;
    comments.iter().for_each(|comment| options.comment(comment));
    let own = [
        (code::HARDWARE, "hardware", hardware),
        (code::OS, "operating system", os),
        (code::APPLICATION, "application", application),
    ];
    for (code, name, own) in own {
        let mut values: Vec<&[u8]> =
            sources.iter().flat_map(|of| of.values(code).take(1)).collect();
        let all = values.len() == sources.len();
        values.dedup();
        match (&values[..], own) {
            ([], Some(own)) => options.text(code, own),
            ([], None) => {}
            ([one], own) if all => {
                options.push(code, one);
                if let Some(own) = own {
                    options.comment(&format!("exported by {own}"));
                }
            }
            (several, own) => {
                if let Some(own) = own {
                    options.text(code, own);
                }
                for value in several {
                    options.comment(&format!("{name}: {}", String::from_utf8_lossy(value)));
                }
            }
        }
    }
    let mut written: Vec<(u16, &[u8])> = Vec::new();
    for source in sources {
        for (code, value) in bytes::each(&source.0) {
            let own = matches!(code, code::HARDWARE | code::OS | code::APPLICATION);
            if !own && (sources.len() == 1 || !written.contains(&(code, value))) {
                options.push(code, value);
                written.push((code, value));
            }
        }
    }
    options.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(options: &[(u16, &str)]) -> SourceSection {
        let mut out = vec![0; FIXED];
        let mut list = Options::new(&mut out);
        options.iter().for_each(|(code, text)| list.text(*code, text));
        list.end();
        let block_type = block_type::SECTION_HEADER;
        let block = Block { block_type, body: out, big_endian: false, before: 0 };
        SourceSection::of(&block).expect("a section header")
    }

    fn written(sources: &[SourceSection]) -> Vec<(u16, String)> {
        let section = Section {
            application: Some("capstan".to_owned()),
            comments: vec!["complete".to_owned()],
            ..Section::default()
        };
        let mut out = Vec::new();
        options(&section, sources, &mut out);
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        bytes::each(bytes::without_end(&out)).map(|(code, value)| (code, text(value))).collect()
    }

    fn expected(options: &[(u16, &str)]) -> Vec<(u16, String)> {
        options.iter().map(|(code, text)| (*code, (*text).to_owned())).collect()
    }

    #[test]
    fn section_options_are_restored_and_distinguished_by_source() {
        assert_eq!(written(&[]), expected(&[(1, "complete"), (4, "capstan")]));
        let one = source(&[(1, "mine"), (2, "PDP-11"), (3, "V7"), (4, "tap"), (32_769, "xyz")]);
        let alone = [
            (1, "complete"),
            (2, "PDP-11"),
            (3, "V7"),
            (4, "tap"),
            (1, "exported by capstan"),
            (1, "mine"),
            (32_769, "xyz"),
        ];
        assert_eq!(written(std::slice::from_ref(&one)), expected(&alone));
        let other = source(&[(1, "mine"), (2, "VAX"), (3, "V7")]);
        let both = [
            (1, "complete"),
            (1, "hardware: PDP-11"),
            (1, "hardware: VAX"),
            (3, "V7"),
            (4, "capstan"),
            (1, "application: tap"),
            (1, "mine"),
            (32_769, "xyz"),
        ];
        assert_eq!(written(&[one, other]), expected(&both));
    }

    #[test]
    fn damaged_options_are_none() {
        let block = |body: &[u8]| Block {
            block_type: block_type::SECTION_HEADER,
            body: [&[0; FIXED], body].concat(),
            big_endian: false,
            before: 0,
        };
        assert_eq!(SourceSection::of(&block(&[1, 0, 9, 0, 1])), None);
        assert_eq!(SourceSection::of(&block(&[])), Some(SourceSection(Vec::new())));
        let other = Block { block_type: 5, ..block(&[]) };
        assert_eq!(SourceSection::of(&other), None);
    }
}
