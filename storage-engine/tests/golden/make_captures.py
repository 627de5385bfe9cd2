#!/usr/bin/env python3
"""Writes the captures that golden stores are made of, and what is in them as text.

    make_captures.py FOLDER

Every packet is made up here. FOLDER gets `NAME.pcapng` or `NAME.pcap`, and `NAME.txt`: what an
import of it must hold, known from here and not from any reader. A line of that is

    packet ORDINAL INTERFACE TIME TICKS LENGTH OPTIONS BYTES
    block TYPE BEFORE BODY
    interface NUMBER LINKTYPE SNAPLEN RESOLUTION NAME

TIME in nanoseconds since 1970, TICKS only where TIME cannot say it all, LENGTH on the wire,
OPTIONS, BYTES and BODY in hex; `-` where there is none. Files that are there stay as they are.
"""

import struct
import sys
from pathlib import Path

NOON = 1_790_942_400  # 2026-10-02 12:00 UTC, seconds since 1970


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def v4(text: str) -> bytes:
    return bytes(int(part) for part in text.split("."))


def ethernet(payload: bytes, ethertype: int = 0x0800, back: bool = False) -> bytes:
    ends = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
    source, destination = reversed(ends) if back else ends
    return destination + source + struct.pack("!H", ethertype) + payload


def ipv4(protocol: int, source: str, destination: str, payload: bytes, ident: int = 1, fragment: int = 0x4000) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), ident, fragment, 64, protocol, 0)
    header += v4(source) + v4(destination)
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def ipv6(protocol: int, payload: bytes, back: bool = False) -> bytes:
    ends = bytes.fromhex("fd00" + "00" * 13 + "01"), bytes.fromhex("fd00" + "00" * 13 + "02")
    source, destination = reversed(ends) if back else ends
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + source + destination + payload


def udp(source: int, destination: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", source, destination, 8 + len(payload), 0x1234) + payload


def tcp(source: int, destination: int, seq: int, ack: int, flags: int, payload: bytes = b"", stamp=None, window=0x7210) -> bytes:
    options = b"" if stamp is None else b"\x01\x01\x08\x0a" + struct.pack("!II", *stamp)
    offset = (20 + len(options)) // 4 << 4
    header = struct.pack("!HHIIBBHHH", source, destination, seq, ack, offset, flags, window, 0xBEEF, 0)
    return header + options + payload


SYN, FIN, RST, PSH, ACK = 2, 1, 4, 8, 16


def client_hello(name: bytes, protocol: bytes) -> bytes:
    """TLS 1.2 (RFC 5246, RFC 6066, RFC 7301), nothing in it but what names the server."""
    sni = struct.pack("!HBH", len(name) + 3, 0, len(name)) + name
    alpn = struct.pack("!HB", len(protocol) + 1, len(protocol)) + protocol
    extensions = b"".join(struct.pack("!HH", kind, len(body)) + body for kind, body in ((0, sni), (16, alpn)))
    body = b"\x03\x03" + bytes(range(32)) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    body += struct.pack("!H", len(extensions)) + extensions
    handshake = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + struct.pack("!H", len(handshake)) + handshake


def dns(answer: bool) -> bytes:
    question = b"\x06golden\x07example\0" + b"\0\x01\0\x01"
    header = struct.pack("!HHHHHH", 0x4242, 0x8180 if answer else 0x0100, 1, int(answer), 0, 0)
    record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x02"
    return header + question + (record if answer else b"")


def noise(length: int, seed: int) -> bytes:
    """Bytes that no compression makes fewer."""
    state, out = seed, bytearray()
    while len(out) < length:
        state = (state * 6_364_136_223_846_793_005 + 1) % 2**64
        out.append(state >> 56)
    return bytes(out)


def frames():
    """The packets of a link of Ethernet, one after the other."""
    client, server = "10.0.0.1", "10.0.0.2"

    def http(flags, seq, ack, payload=b"", back=False, number=0):
        ends = (server, client, 80, 40000) if back else (client, server, 40000, 80)
        stamp = (9000 + number, 5000 + number) if back else (5000 + number, 9000 + number)
        segment = tcp(ends[2], ends[3], seq, ack, flags, payload, stamp)
        return ethernet(ipv4(6, ends[0], ends[1], segment, 100 + number), back=back)

    yield http(SYN, 1000, 0)
    yield http(SYN | ACK, 7000, 1001, back=True)
    yield http(ACK, 1001, 7001, number=1)
    yield http(PSH | ACK, 1001, 7001, b"GET /a HTTP/1.1\r\nHost: golden.example\r\n\r\n", number=2)
    # More than a head holds: the rest goes to the body.
    text = b"HTTP/1.1 200 OK\r\nContent-Length: 18000\r\n\r\n" + b"one line and another one\r\n" * 720
    for number, at in enumerate(range(0, len(text), 1400)):
        part = text[at : at + 1400]
        yield http(ACK, 7001 + at, 1043, part, back=True, number=3 + number)
    yield http(FIN | ACK, 7001 + len(text), 1043, back=True, number=20)
    yield http(RST, 1043, 0, number=21)

    hello = client_hello(b"golden.example", b"h2")
    for flags, seq, ack, payload, back in (
        (SYN, 50, 0, b"", False),
        (SYN | ACK, 90, 51, b"", True),
        (PSH | ACK, 51, 91, hello, False),
        (PSH | ACK, 91, 51 + len(hello), b"\x17\x03\x03\x01\0" + noise(256, 7), True),
    ):
        ends = (server, "10.0.0.3", 443, 51000) if back else ("10.0.0.3", server, 51000, 443)
        yield ethernet(ipv4(6, ends[0], ends[1], tcp(ends[2], ends[3], seq, ack, flags, payload)), back=back)

    vlan = struct.pack("!HH", 42, 0x0800)
    yield ethernet(vlan + ipv4(17, client, "10.0.0.53", udp(33333, 53, dns(False))), 0x8100)
    yield ethernet(vlan + ipv4(17, "10.0.0.53", client, udp(53, 33333, dns(True))), 0x8100, back=True)
    # A padded frame, and one inside two VLANs.
    short = ethernet(ipv4(17, client, server, udp(5000, 5001, b"ab")))
    yield short + bytes(60 - len(short))
    yield ethernet(struct.pack("!HHHH", 7, 0x8100, 8, 0x0800) + ipv4(17, client, server, udp(1, 2, b"")), 0x88A8)

    for number in range(3):
        inner = ethernet(ipv4(6, "192.168.0.1", "192.168.0.2", tcp(1111, 6379, 10 + number * 4, 5, ACK, b"PING")))
        vxlan = struct.pack("!II", 0x08000000, 77 << 8) + inner
        yield ethernet(ipv4(17, "10.1.0.1", "10.1.0.2", udp(55555, 4789, vxlan), 30 + number, 0))
    gre = struct.pack("!HHI", 0x2000, 0x0800, 99) + ipv4(1, "172.16.0.1", "172.16.0.2", b"\x08\0\xf7\xff\0\x07\0\x01")
    yield ethernet(ipv4(47, "10.1.0.3", "10.1.0.4", gre))

    arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    yield ethernet(arp + bytes.fromhex("020000000001") + v4(client) + bytes(6) + v4(server), 0x0806)
    yield ethernet(ipv6(6, tcp(2222, 22, 1, 0, SYN)), 0x86DD)
    yield ethernet(ipv6(6, tcp(22, 2222, 8, 2, SYN | ACK), back=True), 0x86DD, back=True)

    datagram = udp(4000, 4001, noise(1200, 3))
    yield ethernet(ipv4(17, client, server, datagram[:800], 777, 0x2000))
    yield ethernet(ipv4(17, client, server, datagram[800:], 777, 100))
    # Checksums and lengths that are wrong, and frames that are not IP.
    broken = bytearray(ethernet(ipv4(17, client, server, udp(9, 9, b"wrong sum"))))
    broken[24] ^= 0xFF
    yield bytes(broken)
    yield ethernet(b"\x02\x07\x04\x02\0\0\0\0\x01\x04\x04\x05\x31\x06\x02\0\x78\0\0", 0x88CC)
    yield bytes.fromhex("0180c2000000020000000009") + b"\0\x26\x42\x42\x03" + bytes(35)
    yield ethernet(noise(30, 5), 0xFFFF)
    yield ethernet(b"\x45\0", 0x0800)
    yield b""


class Pcapng:
    """A little-endian pcapng file (draft-ietf-opsawg-pcapng) and its text."""

    def __init__(self):
        self.bytes, self.lines, self.packets, self.interfaces = b"", [], 0, 0
        self.block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))

    def put(self, kind: int, body: bytes):
        body += bytes(-len(body) % 4)
        self.bytes += struct.pack("<II", kind, 12 + len(body)) + body + struct.pack("<I", 12 + len(body))

    @staticmethod
    def option(code: int, value: bytes) -> bytes:
        return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)

    def interface(self, link: int, snap: int, resolution: int, name: str):
        options = self.option(2, name.encode()) + self.option(9, bytes([resolution])) + self.option(0, b"")
        self.put(1, struct.pack("<HHI", link, 0, snap) + options)
        self.lines.append(f"interface {self.interfaces} {link} {snap} {resolution} {name}")
        self.interfaces += 1

    def packet(self, interface: int, ticks: int, data: bytes, length=None, nanoseconds=None, options=b""):
        length = len(data) if length is None else length
        body = struct.pack("<IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(data), length) + data
        body += bytes(-len(data) % 4) + (options + self.option(0, b"") if options else b"")
        self.put(6, body)
        time = ticks if nanoseconds is None else nanoseconds
        self.line(interface, time, "-", length, data, options)

    def line(self, interface, time, ticks, length, data, options=b""):
        shown = [part.hex() or "-" for part in (options, data)]
        self.lines.append(f"packet {self.packets} {interface} {time} {ticks} {length} {shown[0]} {shown[1]}")
        self.packets += 1

    def block(self, kind: int, body: bytes):
        self.put(kind, body)
        self.lines.append(f"block {kind} {self.packets} {(body + bytes(-len(body) % 4)).hex()}")


def mixed() -> Pcapng:
    """Every kind of packet, on three interfaces, with all a pcapng file may have beside."""
    file = Pcapng()
    file.interface(1, 0, 9, "eth0")
    file.interface(101, 65535, 6, "tun0")
    file.interface(1, 262144, 10, "eth1")
    names = struct.pack("<HH", 1, 19) + v4("10.0.0.2") + b"golden.example\0" + b"\0" + bytes(4)
    file.block(4, names)
    start = NOON * 10**9
    for number, frame in enumerate(frames()):
        options = Pcapng.option(1, b"the first one") if number == 0 else b""
        file.packet(0, start + number * 1_000_001, frame, options=options)
        if number == 4:
            file.block(0x0BAD, struct.pack("<I", 32473) + b"a block of somebody's own")
    # Less captured than there was, in the payload and in the header.
    long = ethernet(ipv4(17, "10.0.0.1", "10.0.0.2", udp(6000, 6001, bytes(1000))))
    file.packet(0, start + 10**9, long[:200], len(long))
    file.packet(0, start + 10**9 + 1, long[:30], len(long))
    # Microseconds on a link without a header of its own.
    for number in range(2):
        inner = ipv4(1, "172.16.1.1", "172.16.1.2", b"\x08\0" + bytes([number, 0, 0, 9, 0, number]))
        ticks = (NOON + 2) * 10**6 + number
        file.packet(1, ticks, ipv4(4, "10.2.0.1", "10.2.0.2", inner), nanoseconds=ticks * 1000)
    # Tenths of nanoseconds, of which one packet has some.
    for tenths in (0, 7):
        ticks = (NOON + 3) * 10**10 + tenths
        data = ethernet(ipv6(17, udp(7000, 7001, b"tenths")), 0x86DD)
        body = struct.pack("<IIIII", 2, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data)) + data
        file.put(6, body + bytes(-len(data) % 4))
        file.line(2, ticks // 10, ticks if tenths else "-", len(data), data)
    # A packet without a time (simple packet block), of the first interface.
    data = ethernet(ipv4(17, "10.0.0.1", "10.0.0.2", udp(8000, 8001, b"timeless")))
    file.put(3, struct.pack("<I", len(data)) + data)
    file.line(0, "-", "-", len(data), data)
    # The next hour.
    file.packet(0, start + 3600 * 10**9, long[:60], len(long))
    file.block(5, struct.pack("<III", 0, 0, 0) + Pcapng.option(4, struct.pack("<Q", 99)) + bytes(4))
    return file


def classic() -> tuple[bytes, list[str]]:
    """A pcap file of the big-endian kind, nanoseconds, cut at 96 bytes a packet."""
    out = struct.pack("!IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 96, 1)
    lines = ["interface 0 1 96 9 -"]
    for number in range(40):
        back = number % 2 == 1
        ends = ("10.9.0.2", "10.9.0.1", 5432, 40001) if back else ("10.9.0.1", "10.9.0.2", 40001, 5432)
        segment = tcp(ends[2], ends[3], 1 + number * 100, 1, ACK, noise(100, number), (number, number))
        frame = ethernet(ipv4(6, ends[0], ends[1], segment, number), back=back)
        seconds, nanoseconds = NOON + 7200 + number, 999_999_000 + number
        out += struct.pack("!IIII", seconds, nanoseconds, 96, len(frame)) + frame[:96]
        time = seconds * 10**9 + nanoseconds
        lines.append(f"packet {number} 0 {time} - {len(frame)} - {frame[:96].hex()}")
    return out, lines


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    one, (two, lines) = mixed(), classic()
    for name, data, text in (("mixed.pcapng", one.bytes, one.lines), ("classic.pcap", two, lines)):
        described = (folder / name).with_suffix(".txt")
        for path, content in ((folder / name, data), (described, ("\n".join(sorted(text)) + "\n").encode())):
            try:
                with path.open("xb") as file:
                    file.write(content)
            except FileExistsError:
                print(f"{path} is there already and stays as it is", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
