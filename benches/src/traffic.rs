//! Frames like those of a busy machine: some hundred flows at a time, TCP and UDP, that begin and
//! end; text and what does not compress; segments of a bulk transfer, acknowledgements, calls.
//!
//! Frames have right lengths and checksums. They are made while they are sent, from a header that
//! is filled in and a slice of a pool of payload, so that this costs little.

use std::io::IoSlice;
use std::ops::Range;

/// Flows at a time.
const FLOWS: usize = 200;

/// Every so-manieth flow is UDP, and every so-manieth carries what does not compress.
const UDP_EVERY: usize = 5;
const RANDOM_EVERY: usize = 2;

/// Packets that a TCP connection lives for; then another takes its place, from another port.
const LIFE: u32 = 512;

/// Payload to take from: the first half text, the second random, bytes.
const POOL: usize = 32 << 20;

/// The longest frame, bytes; and the headers before a payload.
const LONGEST: usize = 1514;
const TCP_HEADERS: usize = 66;
const UDP_HEADERS: usize = 42;

/// Where in a frame what begins.
const IP: usize = 14;
const TRANSPORT: usize = 34;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const PUSH_ACK: u8 = 0x18;

/// Numbers that look random and are the same each time (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in a range that is not empty.
    fn within(&mut self, range: Range<usize>) -> usize {
        range.start + (self.next() % range.len() as u64) as usize
    }
}

/// Payload, and the sums over it that checksums need.
pub(crate) struct Pool {
    bytes: Vec<u8>,
    /// Before each 16-bit word, the sum of all words before it, modulo 65,535.
    sums: Vec<u16>,
}

impl Pool {
    pub(crate) fn new(length: usize) -> Pool {
        let mut random = Random::new(1);
        let mut bytes = Vec::with_capacity(length + 256);
        while bytes.len() < length / 2 {
            write_text(&mut bytes, &mut random);
        }
        bytes.truncate(length / 2);
        while bytes.len() < length {
            bytes.extend(random.next().to_le_bytes());
        }
        let mut sums = vec![0];
        let mut sum = 0_u32;
        for word in bytes.as_chunks::<2>().0 {
            sum = (sum + u32::from(u16::from_be_bytes(*word))) % 65_535;
            sums.push(sum as u16);
        }
        Pool { bytes, sums }
    }

    /// The half of the pool that a flow takes from.
    fn half(&self, random: bool) -> Range<usize> {
        let middle = self.bytes.len() / 2;
        if random { middle..self.bytes.len() } else { 0..middle }
    }

    /// The sum of the words of a payload that begins at an even place.
    fn sum(&self, at: Range<usize>) -> u32 {
        let whole = at.len() / 2 * 2;
        let (start, end) = (at.start / 2, (at.start + whole) / 2);
        let sum = 65_535 + u32::from(self.sums[end]) - u32::from(self.sums[start]);
        // A last single byte is the upper half of a word.
        let odd = if whole < at.len() { u32::from(self.bytes[at.end - 1]) << 8 } else { 0 };
        sum + odd
    }
}

/// A line of a log in JSON, like those that services send and write.
fn write_text(into: &mut Vec<u8>, random: &mut Random) {
    const PATHS: [&str; 6] = ["items", "orders", "users", "carts", "search", "health"];
    const WORDS: [&str; 10] = [
        "accepted", "cache", "client", "deadline", "evicted", "queue", "replica", "retry",
        "upstream", "written",
    ];
    let mut pick = |words: &[&'static str]| words[random.within(0..words.len())];
    let (path, first, second) = (pick(&PATHS), pick(&WORDS), pick(&WORDS));
    let (id, trace) = (random.within(0..1_000_000), random.next());
    let line = format!(
        "{{\"level\":\"info\",\"path\":\"/api/v1/{path}/{id}\",\"status\":200,\"micros\":{},\
         \"trace\":\"{trace:016x}\",\"text\":\"{first} {second}\"}}\n",
        random.within(50..90_000)
    );
    into.extend(line.as_bytes());
}

/// One of the conversations that go on at a time.
struct Flow {
    is_udp: bool,
    /// Addresses and ports of client and server.
    ends: [([u8; 4], u16); 2],
    /// The next sequence number of client and server.
    next: [u32; 2],
    /// Packets since the connection began.
    age: u32,
    /// What begins or ends the connection next, if it is not in its middle.
    phase: Phase,
    /// The half of the pool it takes from, and where in it.
    half: Range<usize>,
    at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Running,
    Close,
}

/// What a packet is to be: how long, and of which flow which way.
#[derive(Debug, Clone, Copy)]
struct Plan {
    flow: u16,
    payload: u16,
    from_server: bool,
}

/// All that goes on.
pub(crate) struct Traffic {
    pool: Pool,
    flows: Vec<Flow>,
    plans: Vec<Plan>,
    sent: usize,
}

/// A frame: its headers, and where in the pool its payload lies.
pub(crate) struct Frame {
    headers: [u8; TCP_HEADERS],
    length: usize,
    payload: Range<usize>,
}

impl Default for Frame {
    fn default() -> Frame {
        Frame { headers: [0; TCP_HEADERS], length: 0, payload: 0..0 }
    }
}

impl Frame {
    /// Its length, bytes.
    pub(crate) fn len(&self) -> usize {
        self.length + self.payload.len()
    }
}

impl Traffic {
    pub(crate) fn new() -> Traffic {
        let pool = Pool::new(POOL);
        let mut random = Random::new(2);
        let flows = (0..FLOWS).map(|number| Flow::new(number, &pool, &mut random)).collect();
        let plans = plans(&mut random, 1 << 16);
        Traffic { pool, flows, plans, sent: 0 }
    }

    /// Makes the next frame, at a time in milliseconds.
    pub(crate) fn fill(&mut self, frame: &mut Frame, millis: u32) {
        let plan = self.plans[self.sent % self.plans.len()];
        self.sent += 1;
        self.flows[usize::from(plan.flow)].write(plan, frame, &self.pool, self.sent, millis);
    }

    /// The two parts of a frame.
    pub(crate) fn parts<'a>(&'a self, frame: &'a Frame) -> [IoSlice<'a>; 2] {
        [
            IoSlice::new(&frame.headers[..frame.length]),
            IoSlice::new(&self.pool.bytes[frame.payload.clone()]),
        ]
    }
}

/// Which packets come, over and over. Of a hundred about 44 are bare acknowledgements, 30 full
/// segments, 14 small and 12 large messages, so that frames have 625 bytes on average. A few flows
/// have most of them: the chance of the n-th of its kind goes with 1/n.
fn plans(random: &mut Random, count: usize) -> Vec<Plan> {
    let kinds: [Vec<usize>; 2] =
        [false, true].map(|udp| (0..FLOWS).filter(|flow| is_udp(*flow) == udp).collect());
    let pick = |udp: bool, random: &mut Random| {
        let kind = &kinds[usize::from(udp)];
        // exp(uniform) is log-uniform, whose density goes with 1/n.
        let uniform = random.within(0..1 << 20) as f64 / f64::from(1 << 20);
        let place = (uniform * (kind.len() as f64 + 1.0).ln()).exp() as usize - 1;
        kind[place.min(kind.len() - 1)] as u16
    };
    let mut plans = Vec::with_capacity(count);
    for _ in 0..count {
        let (udp, length, from_server) = match random.within(0..100) {
            0..44 => (false, TCP_HEADERS, false),
            44..74 => (false, LONGEST, true),
            74..88 => (random.within(0..2) == 0, random.within(100..401), random.within(0..2) == 0),
            _ => (random.within(0..2) == 0, random.within(600..1_181), true),
        };
        let headers = if udp { UDP_HEADERS } else { TCP_HEADERS };
        plans.push(Plan {
            flow: pick(udp, random),
            payload: (length - headers) as u16,
            from_server,
        });
    }
    plans
}

fn is_udp(flow: usize) -> bool {
    flow.is_multiple_of(UDP_EVERY)
}

impl Flow {
    fn new(number: usize, pool: &Pool, random: &mut Random) -> Flow {
        const PORTS: [u16; 8] = [80, 443, 5432, 6379, 8080, 8443, 9092, 3306];
        let is_udp = is_udp(number);
        let half = pool.half(number.is_multiple_of(RANDOM_EVERY));
        let port = if is_udp { 4433 } else { PORTS[random.within(0..PORTS.len())] };
        let client = [10, 0, (number / 50) as u8, (number % 50 + 1) as u8];
        let server = [10, 1, 0, random.within(1..30) as u8];
        let at = half.start + random.within(0..half.len() / 2) * 2;
        Flow {
            is_udp,
            ends: [(client, 32_768 + number as u16), (server, port)],
            next: [random.next() as u32, random.next() as u32],
            age: random.within(0..LIFE as usize) as u32,
            phase: Phase::Running,
            half,
            at,
        }
    }

    fn write(&mut self, plan: Plan, frame: &mut Frame, pool: &Pool, number: usize, millis: u32) {
        let payload = self.take(usize::from(plan.payload));
        let from = usize::from(plan.from_server);
        let to = 1 - from;
        let (source, destination) = (self.ends[from], self.ends[to]);
        frame.length = if self.is_udp { UDP_HEADERS } else { TCP_HEADERS };
        let ip_length = (frame.length - IP + payload.len()) as u16;

        let headers = &mut frame.headers;
        for (at, end) in [(0, destination.0), (6, source.0)] {
            headers[at..at + 2].copy_from_slice(&[2, 0]);
            headers[at + 2..at + 6].copy_from_slice(&end);
        }
        headers[12..14].copy_from_slice(&[8, 0]);
        headers[IP..IP + 2].copy_from_slice(&[0x45, 0]);
        put(headers, IP + 2, ip_length);
        put(headers, IP + 4, number as u16);
        headers[IP + 6..IP + 10].copy_from_slice(&[0x40, 0, 64, if self.is_udp { 17 } else { 6 }]);
        put(headers, IP + 10, 0);
        headers[IP + 12..IP + 16].copy_from_slice(&source.0);
        headers[IP + 16..IP + 20].copy_from_slice(&destination.0);
        let sum = words(&headers[IP..TRANSPORT]);
        put(headers, IP + 10, checksum(sum));

        put(headers, TRANSPORT, source.1);
        put(headers, TRANSPORT + 2, destination.1);
        // The pseudo-header: addresses, protocol, length behind the IP header.
        let length = ip_length - 20;
        let protocol = u32::from(headers[IP + 9]);
        let pseudo = words(&headers[IP + 12..IP + 20]) + protocol + u32::from(length);
        if self.is_udp {
            put(headers, TRANSPORT + 4, length);
            put(headers, TRANSPORT + 6, 0);
            let sum = pseudo + words(&headers[TRANSPORT..UDP_HEADERS]) + pool.sum(payload.clone());
            put(headers, TRANSPORT + 6, checksum(sum));
        } else {
            let flags = self.advance(payload.len());
            headers[TRANSPORT + 4..TRANSPORT + 8].copy_from_slice(&self.next[from].to_be_bytes());
            let acknowledged = if flags & ACK == 0 { 0 } else { self.next[to] };
            headers[TRANSPORT + 8..TRANSPORT + 12].copy_from_slice(&acknowledged.to_be_bytes());
            headers[TRANSPORT + 12..TRANSPORT + 14].copy_from_slice(&[0x80, flags]);
            put(headers, TRANSPORT + 14, 502);
            headers[TRANSPORT + 16..TRANSPORT + 24].copy_from_slice(&[0, 0, 0, 0, 1, 1, 8, 10]);
            headers[TRANSPORT + 24..TRANSPORT + 28].copy_from_slice(&millis.to_be_bytes());
            let echo = millis.wrapping_sub(1);
            headers[TRANSPORT + 28..TRANSPORT + 32].copy_from_slice(&echo.to_be_bytes());
            // The ports of a new connection are known only now.
            put(headers, TRANSPORT + 2 * from, self.ends[0].1);
            let sum = pseudo + words(&headers[TRANSPORT..TCP_HEADERS]) + pool.sum(payload.clone());
            put(headers, TRANSPORT + 16, checksum(sum));
            let counts = payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
            self.next[from] = self.next[from].wrapping_add(counts);
        }
        frame.payload = payload;
    }

    /// The next payload of this flow: at an even place, as [`Pool::sum`] wants it.
    fn take(&mut self, length: usize) -> Range<usize> {
        if self.at + length > self.half.end {
            self.at = self.half.start;
        }
        let payload = self.at..self.at + length;
        self.at += length.next_multiple_of(2);
        payload
    }

    /// The flags of the next segment. Connections begin and end with segments that have no
    /// payload, which come from the client.
    fn advance(&mut self, payload: usize) -> u8 {
        self.age += 1;
        if payload > 0 {
            return PUSH_ACK;
        }
        match self.phase {
            Phase::Running if self.age < LIFE => ACK,
            Phase::Running => {
                self.phase = Phase::Close;
                ACK
            }
            Phase::Close => {
                self.phase = Phase::Open;
                FIN | ACK
            }
            Phase::Open => {
                self.phase = Phase::Running;
                self.age = 0;
                let port = self.ends[0].1;
                let step = FLOWS as u16;
                self.ends[0].1 = port.checked_add(step).unwrap_or(32_768 + port % step);
                self.next = self.next.map(|next| next.wrapping_add(0x1234_5678));
                SYN
            }
        }
    }
}

fn put(headers: &mut [u8], at: usize, value: u16) {
    headers[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The sum of 16-bit words.
fn words(bytes: &[u8]) -> u32 {
    bytes.as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum()
}

/// The Internet checksum of a sum of words (RFC 1071).
fn checksum(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests;
