use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;

use capstan_model::link::Interface;
use capstan_model::{Failure, FailureKind, LinkType};

use super::testing::{Network, Sender, drop_rights, tun};
use super::*;

/// A packet, kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    interface: u32,
    time: Time,
    length: u32,
    data: Vec<u8>,
}

/// All that a source gave.
#[derive(Debug, Default)]
struct Heard {
    interfaces: Vec<Interface>,
    packets: Vec<Kept>,
    lost: u64,
    loss_ranges: Vec<(Time, Time)>,
    idle: Vec<Time>,
    closed: Vec<u32>,
    error: Option<SourceError>,
}

impl Heard {
    /// Reads until the end, or until `enough` says so.
    fn until(&mut self, source: &mut LiveSource, enough: impl Fn(&Heard) -> bool) {
        while !enough(self) {
            match source.next_event() {
                Ok(Some(Event::Interface(interface))) => self.interfaces.push(interface),
                Ok(Some(Event::Packet(packet))) => {
                    assert!((packet.interface as usize) < self.interfaces.len());
                    // All from before what was heard was given before that was said.
                    let heard = self.idle.last().copied().unwrap_or(Time::MIN);
                    assert!(packet.stamp.time().unwrap() >= heard, "{:?} {heard}", packet.stamp);
                    self.packets.push(Kept {
                        interface: packet.interface,
                        time: packet.stamp.time().unwrap(),
                        length: packet.length,
                        data: packet.data.to_vec(),
                    });
                }
                Ok(Some(Event::Lost(lost))) => {
                    assert!(lost.live && lost.interface.is_some() && lost.packets > 0);
                    self.lost += lost.packets;
                    self.loss_ranges.push((lost.since.unwrap(), lost.noticed.unwrap()));
                }
                Ok(Some(Event::Idle(at))) => {
                    self.idle.push(at);
                    assert!(self.idle.len() < 100, "waited in vain");
                }
                Ok(Some(Event::Opened { interface, .. })) => {
                    assert_eq!(self.interfaces.len(), interface as usize + 1);
                }
                Ok(Some(Event::Closed { interface, .. })) => self.closed.push(interface),
                Ok(Some(Event::Block(block))) => panic!("{block:?}"),
                Ok(Some(Event::Cut(cut))) => panic!("{cut:?}"),
                Ok(None) => return,
                Err(error) => {
                    self.error = Some(error);
                    return;
                }
            }
        }
    }

    /// Stops the source and reads what is left.
    fn finish(mut self, source: &mut LiveSource) -> Heard {
        source.stop_handle().stop();
        self.until(source, |_| false);
        assert!(self.error.is_none(), "{:?}", self.error);
        assert!(source.next_event().unwrap().is_none());
        self
    }

    fn frames_of(&self, interface: u32) -> Vec<&[u8]> {
        let on = self.packets.iter().filter(|packet| packet.interface == interface);
        on.map(|packet| packet.data.as_slice()).collect()
    }

    fn name(&self, interface: u32) -> &str {
        self.interfaces[interface as usize].name.as_deref().unwrap()
    }
}

fn named(names: &[&str]) -> LiveOptions {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    LiveOptions::new(Interfaces::from_names(names))
}

/// A frame of `length` bytes whose content depends on `seed`.
fn frame(seed: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xFF; 6];
    bytes.extend_from_slice(&[2, 0, 0, 0, 0, 1, 0x88, 0xB5]);
    bytes.extend_from_slice(&seed.to_be_bytes());
    let mut state = u64::from(seed) | 1 << 40;
    bytes.resize_with(length.max(18), || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    bytes
}

#[test]
fn every_packet_arrives_bit_for_bit() {
    let Some(network) = Network::with_cable(1500) else { return };
    network.within(|| {
        let mut source = LiveSource::open(named(&["b"])).unwrap();
        let sender = Sender::new("a");
        let sent: Vec<Vec<u8>> = (0..5000).map(|n| frame(n, 18 + n as usize % 1497)).collect();
        let before = store::now();
        sent.iter().for_each(|frame| sender.send(frame));
        let heard = Heard::default().finish(&mut source);
        assert_eq!(heard.lost, 0);
        assert_eq!(heard.frames_of(0), sent);
        let times: Vec<Time> = heard.packets.iter().map(|packet| packet.time).collect();
        assert!(times.is_sorted() && before <= times[0] && times[4999] <= store::now());
        assert!(times.iter().any(|time| time.0 % 1000 != 0), "nanoseconds");
        assert!(heard.packets.iter().all(|packet| packet.length as usize == packet.data.len()));
        let statistics = Statistics { captured: 5000, dropped: 0, freezes: 0 };
        assert_eq!(source.statistics(), statistics);

        let [interface] = &heard.interfaces[..] else { panic!("{:?}", heard.interfaces) };
        assert_eq!(interface.link_type, LinkType::ETHERNET);
        assert_eq!((interface.name.as_deref(), interface.resolution), (Some("b"), 9));
        assert_eq!((interface.options.len(), &interface.options[..4]), (12, &[6, 0, 6, 0][..]));
    });
}

#[test]
fn vlan_tags_are_where_they_were_on_the_wire() {
    let Some(network) = Network::with_cable(1500) else { return };
    network.within(|| {
        let mut source = LiveSource::open(named(&["a", "b"])).unwrap();
        let sender = Sender::new("a");
        let tagged = |tags: &[u8]| {
            let mut bytes = frame(1, 100);
            bytes.splice(12..12, tags.iter().copied());
            bytes
        };
        let sent = [
            tagged(&[]),
            tagged(&[0x81, 0, 0x60, 5]),
            tagged(&[0x88, 0xA8, 0x0F, 0xFE]),
            tagged(&[0x88, 0xA8, 0, 7, 0x81, 0, 0, 8]),
            tagged(&[0x81, 0, 0, 0]),
        ];
        sent.iter().for_each(|frame| sender.send(frame));
        let heard = Heard::default().finish(&mut source);
        assert_eq!(heard.frames_of(0), sent, "on {}", heard.name(0));
        assert_eq!(heard.frames_of(1), sent, "on {}", heard.name(1));
        assert!(heard.packets.iter().all(|packet| packet.length as usize == packet.data.len()));
    });
}

#[test]
fn frames_of_64_kib_are_whole() {
    let Some(network) = Network::with_cable(65535) else { return };
    network.within(|| {
        // Also in the smallest ring.
        for ring_bytes in [64 << 20, 0] {
            let mut source = LiveSource::open(LiveOptions { ring_bytes, ..named(&["b"]) }).unwrap();
            let sender = Sender::new("a");
            let sent = [frame(1, 65535 + 14), frame(2, 65536), frame(3, 60), frame(4, 65535)];
            sent.iter().for_each(|frame| sender.send(frame));
            let heard = Heard::default().finish(&mut source);
            assert_eq!(heard.frames_of(0), sent);
        }
    });
}

#[test]
fn the_loopback_shows_a_datagram_once() {
    let Some(network) = Network::new() else { return };
    network.within(|| {
        let mut source = LiveSource::open(named(&["lo"])).unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sent: Vec<Vec<u8>> = (0..200).map(|n| frame(n, 65_507 - 300 * n as usize)).collect();
        for payload in &sent {
            sender.send_to(payload, receiver.local_addr().unwrap()).unwrap();
            let mut buffer = vec![0; 65_536];
            assert_eq!(receiver.recv(&mut buffer).unwrap(), payload.len());
        }
        let heard = Heard::default().finish(&mut source);
        let payloads: Vec<&[u8]> = heard.frames_of(0).iter().map(|frame| &frame[42..]).collect();
        assert_eq!(payloads, sent);
        assert_eq!(heard.interfaces[0].link_type, LinkType::ETHERNET);
    });
}

#[test]
fn large_segments_of_tcp_are_whole() {
    const TOTAL: usize = 8 << 20;
    let Some(network) = Network::new() else { return };
    network.within(|| {
        let mut source = LiveSource::open(named(&["lo"])).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let data = frame(9, TOTAL);
        thread::scope(|scope| {
            scope.spawn(|| TcpStream::connect(to).unwrap().write_all(&data).unwrap());
            let mut received = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
            assert_eq!(received, data);
        });
        let heard = Heard::default().finish(&mut source);
        assert_eq!(heard.lost, 0);
        // Lay every segment where its sequence number says; the SYN has the first.
        let mut stream = vec![0u8; TOTAL];
        let mut first = None;
        let mut longest = 0;
        for packet in &heard.packets {
            assert_eq!(packet.data.len(), packet.length as usize);
            let segment = &packet.data[34..];
            if segment[2..4] != to.port().to_be_bytes() {
                continue;
            }
            let sequence = u32::from_be_bytes(segment[4..8].try_into().unwrap());
            let payload = &segment[usize::from(segment[12] >> 4) * 4..];
            let start: u32 = *first.get_or_insert(sequence.wrapping_add(1));
            if !payload.is_empty() {
                let at = sequence.wrapping_sub(start) as usize;
                stream[at..at + payload.len()].copy_from_slice(payload);
            }
            longest = longest.max(payload.len());
        }
        assert!(stream == data, "the stream differs");
        assert!(longest > 32 << 10, "no segment was large: {longest}");
    });
}

#[test]
fn packets_dropped_by_a_full_ring_are_counted() {
    let Some(network) = Network::with_cable(1500) else { return };
    // On the loopback each packet passes twice, but only one counts.
    for (from, to) in [("a", "b"), ("lo", "lo")] {
        network.within(|| overrun(from, to));
    }
}

/// Sends far more than the ring of `to` holds while nobody reads.
fn overrun(from: &str, to: &str) {
    let mut source = LiveSource::open(LiveOptions { ring_bytes: 0, ..named(&[to]) }).unwrap();
    let sender = Sender::new(from);
    let mut heard = Heard::default();
    let began = store::now();
    // 1 MiB of ring holds about 900 of them.
    (0..20_000).for_each(|n| sender.send(&frame(n, 1000)));
    let sent = store::now();
    heard.until(&mut source, |heard| heard.lost > 0 && heard.packets.len() > 500);
    thread::sleep(Duration::from_millis(100));
    (20_000..20_100).for_each(|n| sender.send(&frame(n, 1000)));
    let heard = heard.finish(&mut source);

    assert!(heard.lost > 15_000, "{}", heard.lost);
    assert_eq!(heard.packets.len() as u64 + heard.lost, 20_100);
    let statistics = source.statistics();
    assert_eq!(statistics.captured, heard.packets.len() as u64);
    assert_eq!(statistics.dropped, heard.lost);
    assert!(statistics.freezes > 0);
    // They were lost while they were sent, and the loss is said to be then.
    let (first, last) = (heard.loss_ranges[0].0, heard.loss_ranges[0].1);
    assert!(first <= began && sent <= last && last <= store::now(), "{first} {last}");
    // What did arrive is right, and in order.
    let seeds = heard.packets.iter().map(|packet| {
        let seed = u32::from_be_bytes(packet.data[14..18].try_into().unwrap());
        assert_eq!(packet.data, frame(seed, 1000));
        seed
    });
    assert!(seeds.is_sorted());
}

#[test]
fn busy_reader_loses_no_packet_and_reports_the_time() {
    let Some(network) = Network::with_cable(1500) else { return };
    let sent = 200_000;
    network.within(|| {
        let mut source = LiveSource::open(named(&["b"])).unwrap();
        let sender = Sender::new("a");
        let stop = source.stop_handle();
        thread::scope(|scope| {
            scope.spawn(move || {
                (0..sent).for_each(|n| sender.send(&frame(n, 64)));
                stop.stop();
            });
            let (mut count, mut lost) = (0, 0);
            let mut last_idle = Instant::now();
            while let Some(event) = source.next_event().unwrap() {
                match event {
                    Event::Packet(packet) => {
                        assert_eq!(packet.data[14..18], u32::to_be_bytes(count));
                        count += 1;
                    }
                    Event::Lost(missing) => lost += missing.packets,
                    Event::Idle(_) => {
                        assert!(last_idle.elapsed() < Duration::from_secs(2));
                        last_idle = Instant::now();
                    }
                    _ => {}
                }
            }
            assert_eq!((count, lost), (sent, 0));
        });
    });
}

#[test]
fn packets_in_the_ring_are_not_covered_yet() {
    let Some(network) = Network::with_cable(1500) else { return };
    network.within(|| {
        let mut source = LiveSource::open(named(&["a", "b"])).unwrap();
        let sender = Sender::new("a");
        let mut heard = Heard::default();
        for round in 0..3 {
            // Nobody reads for longer than it takes until the clock is told.
            sender.send(&frame(round, 100));
            thread::sleep(2 * IDLE_EVERY);
            let idle = heard.idle.len();
            // That no packet comes that is older than what was heard is checked there.
            heard.until(&mut source, |heard| heard.idle.len() >= idle + 2);
        }
        assert_eq!(heard.frames_of(1).len(), 3);
        let late = store::now().0 - heard.idle.last().unwrap().0;
        assert!(late < 5_000_000_000, "what was heard goes on: {late} ns");
    });
}

#[test]
fn silence_is_reported_and_a_stop_ends_the_wait() {
    let Some(network) = Network::with_cable(1500) else { return };
    network.within(|| {
        let mut source = LiveSource::open(named(&["b"])).unwrap();
        let stop = source.stop_handle();
        let mut heard = Heard::default();
        let (asked, ended) = thread::scope(|scope| {
            let asked = scope.spawn(move || {
                thread::sleep(Duration::from_millis(1100));
                stop.stop();
                assert!(stop.is_stopped());
                Instant::now()
            });
            heard.until(&mut source, |_| false);
            (asked.join().unwrap(), Instant::now())
        });
        assert!(ended.duration_since(asked) < Duration::from_millis(600));
        assert!((3..=6).contains(&heard.idle.len()), "{:?}", heard.idle);
        assert!(heard.idle.is_sorted() && heard.packets.is_empty() && heard.error.is_none());
    });
}

#[test]
fn stop_wakes_a_waiting_source() {
    let Some(network) = Network::new() else { return };
    // Without being woken it would see the stop 200 ms later. The best of
    // several is taken: this machine may be busy.
    let best = (0..5).map(|_| {
        network.within(|| {
            let mut source = LiveSource::open(named(&["lo"])).unwrap();
            let stop = source.stop_handle();
            thread::scope(|scope| {
                let asked = scope.spawn(move || {
                    thread::sleep(Duration::from_millis(50));
                    stop.stop();
                    Instant::now()
                });
                Heard::default().until(&mut source, |_| false);
                asked.join().unwrap().elapsed()
            })
        })
    });
    assert!(best.min() < Some(Duration::from_millis(180)));
}

#[test]
fn any_follows_interfaces_that_come_and_go() {
    let Some(network) = Network::with_cable(1500) else { return };
    network.within(|| {
        let options = LiveOptions { ring_bytes: 8 << 20, ..named(&["any"]) };
        let mut source = LiveSource::open(options).unwrap();
        let mut heard = Heard::default();
        heard.until(&mut source, |heard| heard.idle.len() == 1);
        let mut names: Vec<&str> = (0..3).map(|number| heard.name(number)).collect();
        names.sort_unstable();
        assert_eq!((names, heard.interfaces.len()), (vec!["a", "b", "lo"], 3));

        network.add_cable("c", "d", 1500);
        heard.until(&mut source, |heard| heard.interfaces.len() == 5);
        let late = Sender::new("c");
        late.send(&frame(1, 100));
        heard.until(&mut source, |heard| heard.packets.len() == 2);

        // What was in the rings of interfaces that go away is not lost.
        late.send(&frame(2, 100));
        network.ip("link del dev c");
        let idle = heard.idle.len();
        heard.until(&mut source, |heard| heard.idle.len() > idle + 4);
        assert_eq!(source.captures.len(), 3);
        let early = Sender::new("a");
        early.send(&frame(3, 100));
        let heard = heard.finish(&mut source);
        for number in 0..5 {
            let seeds: &[u32] = match heard.name(number) {
                "a" | "b" => &[3],
                "c" | "d" => &[1, 2],
                _ => &[],
            };
            let expected: Vec<Vec<u8>> = seeds.iter().map(|seed| frame(*seed, 100)).collect();
            assert_eq!(heard.frames_of(number), expected, "on {}", heard.name(number));
        }
    });
}

#[test]
fn interface_survives_down_and_up_and_removal_ends_the_capture() {
    let Some(network) = Network::with_cable(1500) else { return };
    network.within(|| {
        let mut source = LiveSource::open(named(&["b"])).unwrap();
        let sender = Sender::new("a");
        let mut heard = Heard::default();
        network.ip("link set dev b down");
        heard.until(&mut source, |heard| heard.idle.len() == 2);
        network.switch_on(["a", "b"]);
        sender.send(&frame(1, 100));
        heard.until(&mut source, |heard| heard.packets.len() == 1);
        assert_eq!(heard.frames_of(0), [frame(1, 100)]);

        sender.send(&frame(2, 100));
        network.ip("link del dev b");
        heard.until(&mut source, |heard| heard.idle.len() > 20);
        assert_eq!(heard.packets.len(), 2);
        assert_eq!(heard.closed, [0]);
        let failure = Failure::from(heard.error.expect("it ends"));
        assert_eq!(failure.kind(), FailureKind::NotFound, "{failure}");
        assert!(failure.to_string().contains("interface b"), "{failure}");
        assert!(source.next_event().unwrap().is_none());
    });
}

#[test]
fn returning_interface_is_captured_again() {
    let Some(network) = Network::with_cable(1500) else { return };
    network.within(|| {
        let mut source = LiveSource::open(named(&["lo", "b"])).unwrap();
        let mut heard = Heard::default();
        network.ip("link del dev b");
        heard.until(&mut source, |heard| heard.idle.len() == 4);
        network.add_cable("a", "b", 1500);
        heard.until(&mut source, |heard| heard.interfaces.len() == 3);
        assert_eq!(heard.name(2), "b");
        Sender::new("a").send(&frame(1, 100));
        let heard = heard.finish(&mut source);
        // The stop ends the others, too.
        assert_eq!(heard.closed.first(), Some(&1));
        assert_eq!(heard.frames_of(2), [frame(1, 100)]);
    });
}

#[test]
fn interfaces_without_ethernet_give_raw_ip_or_cooked_packets() {
    const PPP: u16 = 512;
    let Some(network) = Network::new() else { return };
    network.within(|| {
        let raw = tun("raw0", libc::ARPHRD_NONE);
        let odd = tun("odd0", PPP);
        network.ip("link set dev raw0 up");
        network.ip("link set dev odd0 up");
        network.ip("address add 198.51.100.1/24 dev raw0");
        let mut source = LiveSource::open(named(&["raw0", "odd0"])).unwrap();
        // A UDP datagram over IPv4, from 198.51.100.2, to nobody.
        let mut incoming = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
        incoming.extend_from_slice(&[198, 51, 100, 2, 198, 51, 100, 77, 0, 9, 0, 9, 0, 12, 0, 0]);
        incoming.extend_from_slice(&[1, 2, 3, 4]);
        (&raw).write_all(&incoming).unwrap();
        (&odd).write_all(&incoming).unwrap();
        let socket = UdpSocket::bind("198.51.100.1:0").unwrap();
        socket.send_to(b"outgoing", "198.51.100.2:7").unwrap();

        let heard = Heard::default().finish(&mut source);
        let number = |name: &str| (0..2).find(|number| heard.name(*number) == name).unwrap();
        let (raw, odd) = (number("raw0"), number("odd0"));
        assert_eq!(heard.interfaces[raw as usize].link_type, LinkType::RAW);
        let frames = heard.frames_of(raw);
        assert_eq!(frames[0], incoming);
        assert_eq!((frames[1][0], &frames[1][28..], frames.len()), (0x45, &b"outgoing"[..], 2));

        assert_eq!(heard.interfaces[odd as usize].link_type, LinkType::LINUX_SLL2);
        let [cooked] = heard.frames_of(odd)[..] else { panic!("one packet") };
        assert_eq!((&cooked[..4], &cooked[20..]), (&[8, 0, 0, 0][..], incoming.as_slice()));
        assert_eq!(cooked[8..10], PPP.to_be_bytes());
        let kept = heard.packets.iter().find(|packet| packet.interface == odd).unwrap();
        assert_eq!(kept.length as usize, cooked.len());
    });
}

#[test]
fn promiscuous_mode_is_on_where_named_and_off_when_closed() {
    let Some(network) = Network::with_cable(1500) else { return };
    network.within(|| {
        let mode = || network.ip("-d link show dev b").contains("promiscuity 1");
        for (options, expected) in [
            (named(&["b"]), true),
            (LiveOptions { promiscuous: Some(false), ..named(&["b"]) }, false),
            (LiveOptions { ring_bytes: 0, ..named(&["any"]) }, false),
        ] {
            let source = LiveSource::open(options).unwrap();
            assert_eq!(mode(), expected);
            drop(source);
            assert!(!mode());
        }
    });
}

#[test]
fn source_can_move_to_another_thread() {
    fn may_move<T: Send>() {}
    may_move::<LiveSource>();
    may_move::<StopHandle>();
}

#[test]
fn unknown_interface_error_lists_existing_interfaces() {
    let refused = LiveSource::open(named(&["no-such-if0"])).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("'no-such-if0'") && text.contains("lo"), "{text}");
    assert_eq!(Failure::from(refused).kind(), FailureKind::NotFound);
    let refused = LiveSource::open(named(&[])).unwrap_err();
    assert_eq!(Failure::from(refused).kind(), FailureKind::Usage);
}

#[test]
fn missing_permission_error_says_how_to_get_it() {
    let Some(network) = Network::new() else { return };
    network.within(|| {
        drop_rights();
        for options in [named(&["lo"]), named(&["any"])] {
            let refused = LiveSource::open(options).unwrap_err();
            assert!(refused.to_string().contains("setcap cap_net_raw"), "{refused}");
            assert_eq!(Failure::from(refused).kind(), FailureKind::Permission);
        }
    });
}
