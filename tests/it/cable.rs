//! A network that only the test sees, and a recorder of it.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use crate::capstan::{answer, numeric, over};
use crate::captures::packets;
use crate::running::Running;
use crate::sandbox::tool;

/// The ends of a cable in a network of its own: what is sent from `a0` comes in at `b0`, of the
/// next cable from `a1` at `b1`.
pub(crate) struct Cable {
    socket: UdpSocket,
    /// Whom datagrams are for.
    to: String,
    /// Where they come in.
    pub(crate) end: String,
    /// Datagrams so far.
    pub(crate) sent: u32,
}

const PAYLOAD: usize = 1_000;
/// Ethernet, IPv4, UDP.
const HEADERS: usize = 14 + 20 + 8;

impl Cable {
    pub(crate) fn new() -> Cable {
        Cable::several(1).remove(0)
    }

    /// So many, in the network of this thread, in which there was nothing.
    pub(crate) fn several(many: u64) -> Vec<Cable> {
        // Without IPv6 nothing is sent that the test does not send.
        for which in ["all", "default"] {
            let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
            let _ = std::fs::write(path, "1");
        }
        tool("ip link set lo up");
        (0..many).map(Cable::numbered).collect()
    }

    fn numbered(number: u64) -> Cable {
        for line in [
            format!("link add name a{number} type veth peer name b{number}"),
            format!("link set dev a{number} up"),
            format!("link set dev b{number} up"),
            format!("addr add 10.9.{number}.1/24 dev a{number}"),
            format!("neigh add 10.9.{number}.2 lladdr 02:00:00:00:00:02 dev a{number}"),
        ] {
            tool(&format!("ip {line}"));
        }
        let socket = UdpSocket::bind(format!("10.9.{number}.1:5000")).expect("an address of ours");
        let (to, end) = (format!("10.9.{number}.2:6000"), format!("b{number}"));
        Cable { socket, to, end, sent: 0 }
    }

    /// Sends so many datagrams, each with its number.
    pub(crate) fn send(&mut self, datagrams: u32) {
        for number in self.sent..self.sent + datagrams {
            let mut payload = [0; PAYLOAD];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            self.socket.send_to(&payload, &self.to).expect("a cable");
        }
        self.sent += datagrams;
    }

    /// Packets that came in at the other end, as the kernel counts them.
    pub(crate) fn arrived(&self) -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/net/dev").expect("a kernel");
        let counts = text.lines().find_map(|line| {
            line.trim().strip_prefix(&self.end).and_then(|rest| rest.strip_prefix(':'))
        });
        let counts = counts.expect("it is there");
        counts.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
    }
}

/// A `capstan record` of the end of the first cable where things come in.
pub(crate) fn record(store: &Path, arguments: &[&str]) -> Command {
    record_of("b0", store, arguments)
}

/// A `capstan record` of an interface.
pub(crate) fn record_of(interface: &str, store: &Path, arguments: &[&str]) -> Command {
    let mut command = over(store, "record");
    command.args(["-i", interface]).args(arguments);
    command
}

/// Starts to record, and waits until it listens.
pub(crate) fn listening(command: &mut Command) -> Running {
    let recorder = Running::start(command);
    is_listening(&recorder.line());
    recorder
}

/// Checks that a recorder's first line says that it listens.
pub(crate) fn is_listening(line: &str) {
    assert!(line.starts_with("recording b") && line.contains(" into "), "{line}");
}

/// How many packets the store says are lost.
pub(crate) fn lost(store: &Path) -> u64 {
    numeric(store, "select coalesce(sum(packets), 0) from coverage where kind = 'lost'")[0]
}

/// The numbers of the datagrams in the store, in their order.
pub(crate) fn numbers(store: &Path, scratch: &Path) -> Vec<u32> {
    let to = scratch.join("all.pcapng");
    answer(over(store, "export").arg("-o").arg(&to));
    let number = |data: &[u8]| {
        assert_eq!(data.len(), HEADERS + PAYLOAD);
        let (_, payload) = data.split_at(HEADERS);
        u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]])
    };
    packets(&to).iter().map(|packet| number(&packet.data)).collect()
}
