#!/usr/bin/env python3
"""Reads a Capstan store without code of Capstan: an independent implementation of docs/format.md.

    second_reader.py STORE OUT.pcap              write every packet to a pcap file
    second_reader.py STORE compare CAPTURE...    compare with the files that were imported

STORE is a folder with one cluster in it, or the folder of a cluster. Redundant data of the store is
compared: hashes and checksums, counters and rows, terms and flows, address filters and flows.
CAPTURE is pcap or pcapng, plain or compressed with gzip. The store must return exactly its packets, in its
order, with their times to the nanosecond, lengths on the wire and bytes.

Prints a line for each segment and each capture. Exits with 0 if everything matches, 1 at the first
mismatch, 2 for a wrong command line, and 77 if pyarrow or blake3 is not installed.
"""

import datetime
import gzip
import hashlib
import io
import json
import struct
import sys
from collections import Counter
from pathlib import Path

try:
    import blake3
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as missing:
    print(f"second_reader: {missing}", file=sys.stderr)
    sys.exit(77)


class Wrong(Exception):
    """The store contradicts docs/format.md, itself or a capture."""


def check(holds: bool, what: object) -> None:
    if not holds:
        raise Wrong(str(what))


# --- bytes ---------------------------------------------------------------------------------------


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = crc_table()


def crc32c(data: bytes) -> int:
    """Castagnoli's polynomial, reflected, as iSCSI has it (RFC 3720 section 12.1)."""
    crc, table = 0xFFFFFFFF, CRC_TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def unpack(codec: int, stored: bytes, raw: int) -> bytes:
    """Stored bytes of a block or section as they were: 0 stored, 1 LZ4 block, 2 zstd."""
    check(codec in (0, 1, 2), f"codec {codec}")
    if codec == 0:
        check(len(stored) == raw, "stored and raw length differ")
        return stored
    return pa.decompress(stored, decompressed_size=raw, codec=("lz4_raw", "zstd")[codec - 1], asbytes=True)


def internet_checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


# --- head and body -------------------------------------------------------------------------------


def payload_layer(data: bytes, directory: bytes) -> bytes:
    """The raw content of `head` or `body`, each block against its checksum and the directory in `index`."""
    check(data[:8] == b"CAPSBLK\0", "not a payload layer")
    major, _, zero = struct.unpack_from("<HHI", data, 8)
    check(major == 1 and zero == 0, f"payload format {major}")
    at, headers, raw = 16, b"", []
    while at < len(data):
        codec, key, zero, length, stored, crc = struct.unpack_from("<BBHIII", data, at)
        check(key == 0 and zero == 0 and length <= 8 << 20, f"block header at {at}")
        headers += data[at : at + 16]
        body = data[at + 16 : at + 16 + stored]
        check(len(body) == stored and crc32c(body) == crc, f"checksum of the block at {at}")
        raw.append(unpack(codec, body, length))
        at += 16 + stored
    check(headers == directory, "block directory")
    return b"".join(raw)


# --- index ---------------------------------------------------------------------------------------


def index_layer(data: bytes) -> tuple[int, dict[int, bytes]]:
    """The format of an `index` layer, and its sections by kind."""
    check(data[:8] == b"CAPSIDX\0", "not an index layer")
    major, _, count = struct.unpack_from("<HHI", data, 8)
    check(major in (1, 2), f"index format {major}")
    end = 16 + 20 * count
    check(crc32c(data[:end]) == struct.unpack_from("<I", data, end)[0], "checksum of the section directory")
    at, sections = end + 4, {}
    for number in range(count):
        kind, codec, zero, raw, stored, crc, zeros = struct.unpack_from("<HBBIIII", data, 16 + 20 * number)
        check(zero == 0 and zeros == 0, f"section {kind}: reserved bytes")
        body = data[at : at + stored]
        check(len(body) == stored and crc32c(body) == crc, f"section {kind}: checksum")
        sections[kind] = unpack(codec, body, raw)
        at += stored
    check(at == len(data), "bytes behind the last section")
    return major, sections


def pieces(major: int, section: bytes) -> tuple[int, list[tuple[int, int]]]:
    """Rows of a page (0 if that is not said), length and checksum of each piece of a Parquet layer."""
    if major == 1:
        return 0, list(struct.iter_unpack("<II", section))
    rows, count = struct.unpack_from("<II", section)
    check(len(section) == 8 + 8 * count, "length of the pages")
    planes = [section[8 + count * byte : 8 + count * (byte + 1)] for byte in range(4)]
    lengths = [int.from_bytes(length, "little") for length in zip(*planes)]
    return rows, list(zip(lengths, struct.unpack_from(f"<{count}I", section, 8 + 4 * count)))


# Of a Parquet layer: the sections of its tail and its pages (format 1, format 2), its newest format.
TABLES = {"packets": (5, {1: 8, 2: 10}, 2), "flows": (6, {1: 9, 2: 11}, 1)}


def table(data: bytes, index: tuple[int, dict[int, bytes]], layer: str, folder: Path) -> pq.ParquetFile:
    """A Parquet layer: its tail is the one in `index`, every byte before has a checksum there."""
    what = f"{folder}: {layer}"
    (major, sections), (of_tail, of_pages, newest) = index, TABLES[layer]
    tail = sections[of_tail]
    check(data.endswith(tail), f"{what}: tail")
    page_rows, known = pieces(major, sections.get(of_pages[major], b""))
    at, bounds = 0, [0]
    for length, crc in known:
        check(crc32c(data[at : at + length]) == crc, f"{what}: checksum of the page at {at}")
        at += length
        bounds.append(at)
    check(at == len(data) - len(tail), f"{what}: checksums end at {at}")
    file = pq.ParquetFile(io.BytesIO(data))
    version = (file.metadata.metadata or {}).get(b"capstan.format", b"").decode()
    number, _, minor = version.partition(".")
    check(number.isdigit() and 1 <= int(number) <= newest and minor.isdigit(), f"{what}: format '{version}'")
    if major > 1:
        footer = struct.unpack_from("<I", tail, len(tail) - 8)[0]
        check(len(tail) == footer + 8, f"{what}: a tail from the footer on")
    check(file.metadata.num_row_groups in (1, 2), f"{what}: row groups")
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    for group, number in ((group, number) for group in groups for number in range(group.num_columns)):
        column = group.column(number)
        start = data_start = column.data_page_offset
        if column.has_dictionary_page:
            start = min(start, column.dictionary_page_offset)
        end = start + column.total_compressed_size
        check({4, start, data_start, end} <= set(bounds), f"{what}: pages of column {number}")
        if major > 1:
            first, last = bounds.index(data_start), bounds.index(end)
            check(first - bounds.index(start) == column.has_dictionary_page, f"{what}: dictionary of column {number}")
            check(last - first == -(-group.num_rows // page_rows), f"{what}: pages of column {number}")
            check(last < len(known), f"{what}: the page index is a piece")
    for number, field in enumerate(file.schema_arrow, 1):
        check(int(field.metadata[b"PARQUET:field_id"]) == number, f"{what}: {field.name}'s id")
    return file


def rows_of(file: pq.ParquetFile) -> list[dict]:
    """Rows, times as nanoseconds since 1970."""
    read = file.read()
    for number, field in enumerate(read.schema):
        if pa.types.is_timestamp(field.type):
            check(field.type.unit == "ns" and field.type.tz == "UTC", f"{field.name}: {field.type}")
            read = read.set_column(number, field.name, read[field.name].cast("int64"))
    return read.to_pylist()


# --- term index ----------------------------------------------------------------------------------


class Bits:
    """A bit string, least significant bit of each byte first."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def bit(self) -> int:
        value = self.data[self.at >> 3] >> (self.at & 7) & 1
        self.at += 1
        return value

    def bits(self, count: int) -> int:
        return sum(self.bit() << place for place in range(count))

    def zeros(self) -> int:
        count = 0
        while not self.bit():
            count += 1
        return count

    def gamma(self) -> int:
        count = self.zeros()
        return 1 << count | self.bits(count)

    def rice(self, k: int) -> int:
        return self.zeros() << k | self.bits(k)


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def short_list(bits: Bits, width: int) -> list[int]:
    more, k = bits.gamma(), bits.bits(5)
    ordinals = [bits.bits(width)]
    for _ in range(more):
        ordinals.append(ordinals[-1] + 1 + bits.rice(k))
    return ordinals


def roaring(data: bytes) -> list[int]:
    """github.com/RoaringBitmap/RoaringFormatSpec."""
    (cookie,) = struct.unpack_from("<I", data)
    at = 4
    if cookie & 0xFFFF == 12347:
        count = (cookie >> 16) + 1
        runs = data[at : at + (count + 7) // 8]
        at, offsets = at + len(runs), count >= 4
    else:
        check(cookie == 12346, f"roaring cookie {cookie}")
        (count,) = struct.unpack_from("<I", data, at)
        runs, at, offsets = bytes((count + 7) // 8), at + 4, True
    heads = [struct.unpack_from("<HH", data, at + 4 * number) for number in range(count)]
    at += 4 * count * (2 if offsets else 1)
    out = []
    for number, (key, cardinality) in enumerate(heads):
        base = key << 16
        if runs[number >> 3] >> (number & 7) & 1:
            (pairs,) = struct.unpack_from("<H", data, at)
            for start, length in struct.iter_unpack("<HH", data[at + 2 : at + 2 + 4 * pairs]):
                out += range(base + start, base + start + length + 1)
            at += 2 + 4 * pairs
        elif cardinality < 4096:
            out += [base + low for low in struct.unpack_from(f"<{cardinality + 1}H", data, at)]
            at += 2 * (cardinality + 1)
        else:
            bitmap = int.from_bytes(data[at : at + 8192], "little")
            out += [base + low for low in range(65536) if bitmap >> low & 1]
            at += 8192
    check(at == len(data), "bytes behind a roaring bitmap")
    return out


def term_index(data: bytes) -> tuple[int, dict[bytes, list[int]]]:
    """How many flow parts there are, and the ordinals of each key (field number and value)."""
    check(data[:3] == b"CTI" and data[3] in (1, 2), "not a term index")
    flows, terms, count, *lengths = struct.unpack_from("<6I", data, 4)
    check(count == -(-terms // 64), "blocks of a term index")
    at = 28 + 8 * count
    top = list(struct.iter_unpack("<II", data[28:at]))
    firsts, blocks, longs = (data[at + sum(lengths[:n]) : at + sum(lengths[: n + 1])] for n in range(3))
    check(at + sum(lengths) == len(data), "length of a term index")
    top.append((len(firsts), len(blocks)))
    width = (flows - 1).bit_length() if flows else 0
    found: dict[bytes, list[int]] = {}
    last = b""
    for number in range(count):
        key = firsts[top[number][0] : top[number + 1][0]]
        block = blocks[top[number][1] : top[number + 1][1]]
        area, at = varint(block, 0)
        long_at, at = varint(block, at)
        end, keys = at + area, [key]
        others = min(64, terms - 64 * number) - 1
        if data[3] == 2 and others and block[at] < 16:
            k, gaps = block[at], Bits(block[at + 1 : end])
            for _ in range(others):
                value = int.from_bytes(key[1:], "big") + 1 + gaps.rice(k)
                key = key[:1] + value.to_bytes(len(key) - 1, "big")
                keys.append(key)
            at, others = end, 0
        for _ in range(others):
            shared, more = block[at] & 15, block[at] >> 4
            at += 1
            if shared == 15:
                extra, at = varint(block, at)
                shared += extra
            if more == 15:
                extra, at = varint(block, at)
                more += extra
            key = key[:shared] + block[at : at + more]
            at += more
            keys.append(key)
        check(at == end, "key area of a term block")
        bits = Bits(block[end:])
        for key in keys:
            check(key > last, "keys of a term index ascend")
            last = key
            if bits.bit():
                found[key] = [bits.bits(width)]
            elif not bits.bit():
                found[key] = short_list(bits, width)
            else:
                length = bits.gamma()
                body = longs[long_at : long_at + length]
                long_at += length
                found[key] = roaring(body[1:]) if body[0] == 1 else short_list(Bits(body[1:]), width)
    return flows, found


# --- address filter ------------------------------------------------------------------------------


def may_hold(filter_hex: str | None, address: bytes) -> bool:
    if filter_hex is None:
        return True
    held, last, number, shift = set(), 0, 0, 0
    for byte in bytes.fromhex(filter_hex):
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            last += number
            check(last not in held and last < 1 << 24, "fingerprints in ascending order")
            held.add(last)
            number = shift = 0
    check(shift == 0, "the last fingerprint is whole")
    return int.from_bytes(hashlib.sha256(address).digest()[:3], "big") in held


# --- packets -------------------------------------------------------------------------------------

# Fields that a template leaves out: number -> its column. 0 to 3 are computed, 14 to 16 are of the flow.
COLUMNS = {
    4: "ip_id_delta", 5: "outer_ip_id_delta", 6: "tcp_seq_delta", 7: "tcp_ack_delta", 8: "tcp_flags",
    9: "tcp_window", 10: "checksum", 11: "tcp_timestamp_delta", 12: "tcp_echo_delta", 13: "outer_checksum",
}  # fmt: skip
WIDTHS = {6: 4, 7: 4, 8: 1, 11: 4, 12: 4}
M16, M32 = 0xFFFF, 0xFFFFFFFF


def new_state() -> list[dict]:
    return [{"seq": 0, "ip_id": 0, "outer_ip_id": 0, "timestamp": 0} for _ in range(2)]


def header(row: dict, flow: dict, state: list[dict]) -> bytes:
    """The header prefix of a packet. `state` is that of its flow part, by direction."""
    template = row["template"]
    count = template[0]
    fields = [struct.unpack_from("<BH", template, 1 + 3 * number) for number in range(count)]
    prefix = bytearray(template[1 + 3 * count :])
    kinds = {kind for kind, _ in fields}
    check(count <= 24 and kinds <= {0, 1, 2, 3, 14, 15, 16, *COLUMNS}, "fields of a template")
    check(fields == sorted(fields, key=lambda field: field[1]), "order of a template's fields")
    for kind, column in COLUMNS.items():
        check((row[column] is not None) == (kind in kinds), f"packet {row['ordinal']}: {column}")
    check(bool(kinds & {0, 1, 2}) or row["trailer"] == 0, f"packet {row['ordinal']}: trailer")

    own, other = state[row["backward"]], state[not row["backward"]]
    value = {kind: row[column] or 0 for kind, column in COLUMNS.items()}
    value[4] = own["ip_id"] + 1 + value[4] & M16
    value[5] = own["outer_ip_id"] + 1 + value[5] & M16
    value[6] = own["seq"] + value[6] & M32
    value[7] = other["seq"] + value[7] & M32
    value[11] = own["timestamp"] + value[11] & M32
    value[12] = other["timestamp"] + value[12] & M32
    end = row["length"] - row["trailer"]
    if 6 in kinds:
        flags = value[8]
        following = value[6] + max(0, end - len(prefix)) + (flags & 1) + (flags >> 1 & 1) & M32
        if (following - own["seq"] & M32) < 1 << 31 or own["seq"] == 0:
            own["seq"] = following
    for kind, name in ((4, "ip_id"), (5, "outer_ip_id"), (11, "timestamp")):
        if kind in kinds:
            own[name] = value[kind]

    sides = ("destination", "source") if row["backward"] else ("source", "destination")
    ends = {
        14: b"".join(flow[side][12:] for side in sides),
        15: b"".join(flow[side] for side in sides),
        16: b"".join(flow[side + "_port"].to_bytes(2, "big") for side in sides),
    }
    for kind, at in fields:
        if kind in ends:
            check(not any(prefix[at : at + len(ends[kind])]), "zeros in place of a flow's ends")
            prefix[at : at + len(ends[kind])] = ends[kind]
            continue
        width = WIDTHS.get(kind, 2)
        base = {0: 2, 1: 4 - 40, 2: 4}
        number = end - at + base[kind] if kind in base else value.get(kind, 0)
        prefix[at : at + width] = number.to_bytes(width, "big")
    for at in (at for kind, at in fields if kind == 3):
        start = at - 10
        length = (prefix[start] & 15) * 4
        prefix[at : at + 2] = internet_checksum(bytes(prefix[start : start + length])).to_bytes(2, "big")
    return bytes(prefix)


def check_flow(flow: dict, ordinal: int, rows: list[dict], meta: dict, entry: dict, terms: dict) -> None:
    """Counters of a flow part against its packets, and the ways to find it."""
    what = f"{entry['name']}: flow {ordinal}"
    lengths, times = [0, 0], [row["time"] for row in rows if row["time"] is not None]
    for row in rows:
        check(row["flow"] == ordinal and row["protocol"] == flow["protocol"], f"{what}: its packets")
        lengths[row["backward"]] += row["length"]
    ordinals = [row["ordinal"] for row in rows]
    check(ordinals == sorted(set(ordinals)), f"{what}: order of its packets")
    check(lengths == [flow["bytes_forward"], flow["bytes_backward"]], f"{what}: bytes")
    span = (min(times), max(times)) if times else (None, None)
    check(span == (flow["first_time"], flow["last_time"]), f"{what}: times")
    check(flow["flow_id"][:8].hex() == meta["recorder"], f"{what}: recorder in its id")
    check(int.from_bytes(flow["flow_id"][8:11], "big") == meta["flow_generation"], f"{what}: generation in its id")

    def found(field: int, value: bytes) -> None:
        check(ordinal in terms.get(bytes([field]) + value, ()), f"{what}: field {field} is not {value.hex()}")

    for end in ("source", "destination"):
        for field, address in ((1, flow[end]), (2, flow["outer_" + end])):
            if address is not None and any(address):
                found(field, address)
                check(may_hold(entry.get("address_filter"), address), f"{what}: address filter")
        if flow["source_port"] or flow["destination_port"]:
            found(3, flow[end + "_port"].to_bytes(2, "big"))
    found(5, bytes([flow["ip_protocol"]]))
    found(15, flow["ethertype"].to_bytes(2, "big"))
    for field, name, width in ((6, "vlan", 2), (7, "vni", 4)):
        if flow[name] is not None:
            found(field, flow[name].to_bytes(width, "big"))
    for field, name in ((13, "sni"), (14, "alpn")):
        if flow[name]:
            found(field, flow[name].encode())


def segment(folder: Path, entry: dict) -> list[dict]:
    """All packets of a segment, as rows with their bytes beside."""
    data = {}
    for layer in entry["layers"]:
        file = {"packets": "packets.parquet", "flows": "flows.parquet"}.get(layer["layer"], layer["layer"])
        data[layer["layer"]] = content = (folder / file).read_bytes()
        check(len(content) == layer["bytes"] and sha256(content) == layer["sha256"], f"{folder / file}: SHA-256")
    index = index_layer(data["index"])
    _, sections = index
    meta, extras = json.loads(sections[1]), json.loads(sections[7])
    for name in ("name", "first_ordinal", "last_ordinal", "packets", "flow_parts", "captured_bytes", "wire_bytes"):
        check(meta[name] == entry[name], f"{folder}: {name}")
    check((meta["first"], meta["last"]) == (entry.get("first"), entry.get("last")), f"{folder}: times")
    check(all(layer in entry["layers"] for layer in meta["layers"]), f"{folder}: layers")
    head = payload_layer(data["head"], sections.get(3, b""))
    body = payload_layer(data["body"], sections.get(4, b""))
    packets = rows_of(table(data["packets"], index, "packets", folder))
    flows = rows_of(table(data["flows"], index, "flows", folder))
    count, terms = term_index(sections[2])
    check(len(packets) == entry["packets"], f"{folder}: rows of packets")
    check(len(flows) == entry["flow_parts"] == count, f"{folder}: rows of flows")

    interfaces = dict(meta["interfaces"])
    options = dict(extras["packet_options"])
    protocols: Counter = Counter()
    for ordinal, flow in enumerate(flows):
        first, many = flow["first_row"], flow["packets_forward"] + flow["packets_backward"]
        rows = packets[first : first + many]
        check(len(rows) == many, f"{folder}: rows of flow {ordinal}")
        check_flow(flow, ordinal, rows, meta, entry, terms)
        protocols[flow["protocol"]] += many
        at, more = flow["head_offset"], flow["body_offset"]
        payload = head[at : at + flow["head_bytes"]] + body[more : more + flow["body_bytes"]]
        check(len(payload) == flow["head_bytes"] + flow["body_bytes"], f"{folder}: payload of flow {ordinal}")
        check(not flow["body_bytes"] or flow["head_bytes"] == 16384, f"{folder}: cut of flow {ordinal}")
        state, used = new_state(), 0
        for row in rows:
            prefix = header(row, flow, state)
            captured = row["length"] if row["captured"] is None else row["captured"]
            rest = payload[used : used + captured - len(prefix)]
            used += len(rest)
            row["data"] = prefix + rest
            row["options"] = bytes(options.get(row["ordinal"], []))
            row["described"] = interfaces[row["interface"]]
            check(len(row["data"]) == captured, f"{folder}: packet {row['ordinal']} is truncated")
        check(used == len(payload), f"{folder}: payload left over of flow {ordinal}")
    check(dict(protocols) == entry["protocols"], f"{folder}: protocols")
    check(sum(row["length"] for row in packets) == entry["wire_bytes"], f"{folder}: bytes on the wire")
    check(sum(len(row["data"]) for row in packets) == entry["captured_bytes"], f"{folder}: captured bytes")
    print(f"{entry['name']}: {len(packets)} packets in {len(flows)} flow parts")
    return packets


# --- catalog -------------------------------------------------------------------------------------


def place(hour: int) -> str:
    if hour == -(1 << 31):
        return "date=unknown/hour=unknown"
    time = datetime.datetime(1970, 1, 1) + datetime.timedelta(hours=hour)
    return time.strftime("date=%Y-%m-%d/hour=%H")


def checked_json(path: Path, content: bytes) -> dict:
    """A JSON object of the catalog, whose last field is a checksum of all before it."""
    known = json.loads(content)
    formats = (1, 2, 3) if path.name == "format" else (1, 2, 3, 4)
    check(known["format"] in formats, f"{path}: format {known['format']}")
    if known["format"] >= 2:
        digits = f"{crc32c(content[:-21]):08x}"
        check(content[-21:] == f',"crc32c":"{digits}"}}'.encode(), f"{path}: checksum")
    return known


def packed(path: Path) -> dict:
    """An object of the rolled-up catalog: a zstd frame of JSON, and a checksum."""
    content = path.read_bytes()
    check(content[-12:-4] == bytes.fromhex("5c2a4d1804000000"), f"{path}: no checksum")
    check(struct.unpack("<I", content[-4:])[0] == crc32c(content[:-4]), f"{path}: checksum")
    known = json.loads(pa.CompressedInputStream(pa.BufferReader(content[:-12]), "zstd").read())
    check(known["format"] in (1, 2, 3), f"{path}: format {known['format']}")
    return known


def newest(folder: Path) -> dict | None:
    """The newest version in a folder. Each version must hold the hash of its predecessor."""
    versions = sorted(path for path in folder.glob("*") if len(path.name) == 20 and path.name.isdigit())
    for before, path in zip(versions, versions[1:]):
        follows = packed(path)["previous"] == sha256(before.read_bytes())
        check(int(path.name) != int(before.name) + 1 or follows, f"{path}: does not follow")
    known = packed(versions[-1]) if versions else None
    check(known is None or known["version"] == int(versions[-1].name), f"{folder}: version")
    return known


def segments_of_manifest(root: Path, slot: str) -> dict[tuple, dict]:
    """The segments in the newest manifest of a slot, by generation, commit and name."""
    folder = root / "catalog" / slot
    manifest = newest(folder)
    if manifest is None:
        return {}
    check(manifest["slot"] == slot, f"{folder}: slot")
    facts = [manifest["held"]]
    for part in manifest["parts"]:
        path = folder / f"part-{part['name']}"
        check(sha256(path.read_bytes()) == part["sha256"], f"{path}: hash")
        facts.append(packed(path)["facts"])
    found = {}
    for stated in (stated for of in facts for stated in of["segments"]):
        by = manifest["contributors"][stated["by"]]
        check(stated["seq"] < by["next"], f"{folder}: counts fewer commits than it has")
        found[by["recorder"], by["generation"], stated["seq"], stated["fact"]["name"]] = stated["fact"]
    return found


def check_rolled_up(root: Path) -> int:
    """Compares the manifests with the logs; returns the number of compared segments."""
    known = newest(root / "catalog" / "roots")
    if known is None:
        return 0
    chains = [log["life"]["chain"] for log in known["logs"]]
    chains += [packed(path)["life"]["chain"] for path in (root / "catalog" / "lives").glob("*/*")]
    manifests: dict[str, dict] = {}
    compared = 0
    for chain in chains:
        logs = sorted((root / "log" / chain["recorder"] / f"{chain['generation']:08}").glob("*"))
        for log in logs[: chain["next"]]:
            commit = json.loads(log.read_bytes())
            for entry in commit["segments"]:
                hours = entry.get("hours") or [entry["hour"]]
                slots = [place(hour) for hour in hours] if len(hours) <= 24 else ["wide"]
                slots += ["wide"] if entry.get("secrets") and len(hours) <= 24 else []
                for slot in slots:
                    if slot not in manifests:
                        manifests[slot] = segments_of_manifest(root, slot)
                    key = (commit["recorder"], commit["generation"], commit["seq"], entry["name"])
                    check(manifests[slot].get(key) == entry, f"{log}: {slot} has not {entry['name']}")
                    compared += 1
    return compared


def generation(root: Path, path: Path) -> tuple[dict, list[dict]]:
    """A generation of a recorder: its writer object and its packets."""
    content = path.read_bytes()
    writer = checked_json(path, content)
    check(writer["recorder"] == path.parent.name and writer["generation"] == int(path.name), path)
    previous, packets = sha256(content), []
    for number, log in enumerate(sorted((root / "log" / path.parent.name / path.name).glob("*"))):
        content = log.read_bytes()
        commit = checked_json(log, content)
        check(log.name == f"{number:020}", log)
        check(commit["seq"] == number and commit["previous"] == previous, f"{log}: does not follow")
        previous = sha256(content)
        writer["source_read"] = commit.get("source_read")
        for entry in commit["segments"]:
            check(entry["hour"] == min(entry.get("hours") or [entry["hour"]]), f"{log}: hour")
            packets += segment(root / "data" / place(entry["hour"]) / entry["name"], entry)
    packets.sort(key=lambda row: row["ordinal"])
    return writer, packets


def check_recorder(writer: dict, packets: list[dict]) -> None:
    """The recorder id of an imported file is a hash of its first packet, or of its sketch."""
    if writer["kind"] != "import" or "source" not in writer:
        return
    texts = [f"import {writer['source']['sketch']}"]
    if packets and packets[0]["ordinal"] == 0:
        first = packets[0]
        stamp = (2, 0) if first["time"] is None else (0, first["time"])
        stamp = stamp if first.get("ticks") is None else (1, first["ticks"])
        beginning = struct.pack("<BQI", stamp[0], stamp[1] & (2**64 - 1), first["length"]) + first["data"]
        texts.append(f"import of what begins with {sha256(beginning)}")
    recorders = [sha256(text.encode())[:16] for text in texts]
    check(writer["recorder"] in recorders, f"{writer['recorder']}: recorder of its source")


def cluster(store: Path) -> Path:
    """The folder of the only cluster in a store."""
    if (store / "format").is_file():
        return store
    found = [path.parent for path in store.glob("*/format")]
    check(len(found) == 1, f"{store}: {len(found)} clusters")
    return found[0]


def read(store: Path) -> list[tuple[dict, list[dict]]]:
    """All recordings. A generation that resumes an import is appended to it."""
    root = cluster(store)
    known = checked_json(root / "format", (root / "format").read_bytes())
    check(known["store"] == "capstan", f"{root}: {known}")
    print(f"{check_rolled_up(root)} segments of the manifests match the logs")
    recordings: list[tuple[dict, list[dict]]] = []
    for path in sorted((root / "writers").glob("*/*")):
        writer, packets = generation(root, path)
        if "resumes" in writer and recordings:
            check(recordings[-1][0]["recorder"] == writer["recorder"], f"{path}: resumes nothing")
            recordings[-1][1].extend(packets)
            recordings[-1][1].sort(key=lambda row: row["ordinal"])
        else:
            recordings.append((writer, packets))
    for writer, packets in recordings:
        check_recorder(writer, packets)
    return recordings


# --- capture files -------------------------------------------------------------------------------


def captured(path: Path):
    """Time in nanoseconds (none if it has none), length on the wire and bytes of each packet."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    yield from pcapng(content) if content[:4] == b"\n\r\r\n" else pcap(content)


def pcap(content: bytes):
    magics = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}
    order = next((o for o in "<>" if struct.unpack_from(o + "I", content)[0] in magics), None)
    check(order is not None, "neither pcap nor pcapng")
    scale = magics[struct.unpack_from(order + "I", content)[0]]
    at = 24
    while at < len(content):
        seconds, fraction, length, wire = struct.unpack_from(order + "IIII", content, at)
        yield seconds * 10**9 + fraction * scale, wire, content[at + 16 : at + 16 + length]
        at += 16 + length


def pcapng(content: bytes):
    at, order, interfaces = 0, "<", []
    while at < len(content):
        if content[at : at + 4] == b"\n\r\r\n":
            order = "<" if content[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            interfaces = []
        kind, length = struct.unpack_from(order + "II", content, at)
        body = content[at + 8 : at + length - 4]
        at += length
        if kind == 1:
            snap, resolution, offset, place = struct.unpack_from(order + "I", body, 4)[0], 6, 0, 8
            while place + 4 <= len(body):
                code, size = struct.unpack_from(order + "HH", body, place)
                value = body[place + 4 : place + 4 + size]
                if code == 9:
                    resolution = value[0]
                elif code == 14:
                    (offset,) = struct.unpack(order + "q", value)
                place += 4 + (size + 3) // 4 * 4
            ticks = 2 ** (resolution & 127) if resolution & 128 else 10**resolution
            interfaces.append((snap, ticks, offset))
        elif kind in (2, 6):
            number, high, low, size, wire = struct.unpack_from(order + ("HxxIIII" if kind == 2 else "IIIII"), body)
            _, ticks, offset = interfaces[number]
            yield (high << 32 | low) * 10**9 // ticks + offset * 10**9, wire, body[20 : 20 + size]
        elif kind == 3:
            (wire,) = struct.unpack_from(order + "I", body)
            size = min(wire, interfaces[0][0] or wire, len(body) - 4)
            yield None, wire, body[4 : 4 + size]


def write(recordings: list[tuple[dict, list[dict]]], path: Path) -> None:
    """A pcap file with nanoseconds; packets without a time get 1970."""
    packets = [row for _, rows in recordings for row in rows]
    links = {row["described"]["link_type"] for row in packets}
    check(len(links) <= 1, f"link types {sorted(links)}: a pcap file has one")
    packets.sort(key=lambda row: row["time"] or 0)
    with path.open("wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, links.pop() if links else 1))
        for row in packets:
            seconds, nanoseconds = divmod(row["time"] or 0, 10**9)
            check(0 <= seconds <= M32, f"packet {row['ordinal']}: pcap cannot say its time")
            out.write(struct.pack("<IIII", seconds, nanoseconds, len(row["data"]), row["length"]) + row["data"])


def sketch(content: bytes) -> str:
    length, sample = len(content), 65_536
    parts = [content]
    if length > 16 * sample:
        starts = [(length - sample) * number // 15 for number in range(16)]
        parts = [content[start : start + sample] for start in starts]
    return sha256(length.to_bytes(8, "little") + b"".join(parts))


def compare(recordings: list[tuple[dict, list[dict]]], path: Path) -> None:
    content = path.read_bytes()
    hashes = ({"blake3": blake3.blake3(content).hexdigest()}, {"sha256": sha256(content)})
    whole = [{"bytes": len(content), **known} for known in hashes]
    found = [rows for writer, rows in recordings if writer.get("source", {}).get("sketch") == sketch(content)]
    check(bool(found), f"{path}: no import of it")
    check(any(writer["source_read"] in whole for writer, _ in recordings), f"{path}: not read whole")
    for rows in found:
        count = 0
        for number, (time, wire, data) in enumerate(captured(path)):
            check(number < len(rows), f"{path}: packet {number} is not in the store")
            row = rows[number]
            what = f"{path}: packet {number}"
            check(row["ordinal"] == number, f"{what}: has ordinal {row['ordinal']}")
            check(row["time"] == time, f"{what}: time {row['time']}, not {time}")
            check(row["length"] == wire and row["data"] == data, f"{what}: other bytes")
            count += 1
        check(len(rows) == count, f"{path}: {len(rows) - count} packets that it does not have")
        print(f"{path.name}: {count} packets, all as captured")


def main() -> int:
    arguments = sys.argv[1:]
    if len(arguments) < 2 or (arguments[1] == "compare") != (len(arguments) > 2):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        recordings = read(Path(arguments[0]))
        if arguments[1] == "compare":
            for name in arguments[2:]:
                compare(recordings, Path(name))
        else:
            write(recordings, Path(arguments[1]))
    except (Wrong, OSError, ValueError, KeyError, IndexError, struct.error) as error:
        print(f"second_reader: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
