//! Reads a capture to its end, whatever its content, and checks every event.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Cursor, Read};

use capstan_ingest::source::{Event, PacketSource, open_reader};
use capstan_model::packet::MAX_CAPTURED;

/// What a capture gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Packets.
    pub packets: u64,
    /// Events other than packets.
    pub others: u64,
    /// Hash of every event in order.
    pub hash: u64,
    /// Why it ended before its end, if it did.
    pub error: Option<String>,
}

/// Gives at most a few bytes a call, as a pipe may.
struct Trickle {
    bytes: Cursor<Vec<u8>>,
    most: usize,
}

impl Read for Trickle {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        let few = room.len().min(self.most);
        self.bytes.read(&mut room[..few])
    }
}

/// Reads a capture that comes at most `most` bytes at a time.
///
/// # Panics
/// When an event is not valid, the reader does not come to an end, or goes on after one.
pub fn read(bytes: &[u8], most: usize) -> Seen {
    let reader = Trickle { bytes: Cursor::new(bytes.to_vec()), most: most.max(1) };
    let mut seen = Seen { packets: 0, others: 0, hash: 0, error: None };
    let mut source = match open_reader("fuzz", reader) {
        Ok(source) => source,
        Err(error) => return Seen { error: Some(error.to_string()), ..seen },
    };
    let mut hash = DefaultHasher::new();
    let mut interfaces = 0;
    loop {
        match source.next_event() {
            Ok(Some(Event::Packet(packet))) => {
                assert!(packet.interface < interfaces, "an interface that was not named");
                assert!(packet.data.len() <= MAX_CAPTURED, "longer than is kept");
                check_options(packet.options);
                (packet.interface, packet.length, packet.data, packet.options).hash(&mut hash);
                format!("{:?}", packet.stamp).hash(&mut hash);
                seen.packets += 1;
            }
            Ok(Some(event)) => {
                match &event {
                    Event::Interface(interface) => {
                        interfaces += 1;
                        check_options(&interface.options);
                    }
                    Event::Block(block) => assert!(block.before == seen.packets),
                    Event::Lost(lost) => {
                        assert!(!lost.live && lost.packets > 0);
                        assert!(lost.interface.is_none_or(|number| number < interfaces));
                    }
                    Event::Cut(cut) => {
                        assert!(cut.bytes > 0);
                        assert!(cut.interface.is_none_or(|number| number < interfaces));
                    }
                    Event::Packet(_)
                    | Event::Opened { .. }
                    | Event::Closed { .. }
                    | Event::Idle(_) => {
                        panic!("a file does not give {event:?}")
                    }
                }
                format!("{event:?}").hash(&mut hash);
                seen.others += 1;
            }
            Ok(None) => break,
            Err(error) => {
                seen.error = Some(error.to_string());
                break;
            }
        }
    }
    assert!(matches!(source.next_event(), Ok(None)), "nothing comes after the end");
    if seen.error.is_none() {
        assert_eq!(source.position(), bytes.len() as u64, "an end before the last byte");
    }
    seen.hash = hash.finish();
    seen
}

/// Options are whole: code, length, value, padding to four, and no end mark.
fn check_options(mut options: &[u8]) {
    while let [code_low, code_high, low, high, rest @ ..] = options {
        assert!([*code_low, *code_high] != [0, 0], "an end mark among the options");
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        assert!(length <= rest.len(), "an option that is cut short");
        options = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    assert!(options.is_empty(), "bytes behind the options");
}
