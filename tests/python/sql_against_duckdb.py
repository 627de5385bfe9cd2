#!/usr/bin/env python3
"""Asks a store in SQL in every way there is, and DuckDB about the same Parquet files.

    sql_against_duckdb.py --store DIR [--cluster NAME] --server grpc://127.0.0.1:7070
                          [--capstan BINARY] [--capture FILE]...

Each question goes to the server by pyarrow.flight, by ADBC and by `capstan sql --server`, and to
the store by `capstan sql`. All must give the same rows. DuckDB is asked the same about the Parquet
layers that `capstan files` lists, and about the bytes of the packets in the pcap files that were
imported (--capture); its rows must be the same, too, but for the few questions whose answer is in
neither. The store must be a folder, and nothing may be written to it meanwhile.

Prints a line for each question. Exits with 0 if all hold, 1 if one does not, and 77 if what is
needed is not installed.
"""

import argparse
import datetime
import hashlib
import io
import ipaddress
import json
import math
import struct
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

try:
    import adbc_driver_manager
    import duckdb
    import pyarrow as pa
    import pyarrow.flight as flight
    from adbc_driver_flightsql import dbapi
    from flight_sql import sql_command
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)


# --- DuckDB's tables -------------------------------------------------------------------------

PORTS = """CASE WHEN {port} <> 0 OR (f.ip_protocol IN (6, 17, 132) AND f.fragment_id IS NULL)
           THEN {port}::INTEGER END"""
ADDRESS = "CASE WHEN f.link_type IS NULL THEN address({end}) END"
# Not a cast, because that rounds.
MICROS = "make_timestamptz(epoch_ns({time}) // 1000)"
LAST_KNOWN = "coalesce(last(protocol ORDER BY {time}) FILTER (protocol <> 'unknown'), 'unknown')"
# A template is a count of fields, three bytes for each, and the header.
HEADER = "(octet_length(p.template) - 1 - 3 * ('0x' || hex(p.template)[1:2])::INTEGER)"
TIME_ORDER = "first_time NULLS FIRST, last_time NULLS FIRST, segment"


def as_text(address):
    """An address as the tables show it."""
    parsed = ipaddress.IPv6Address(address)
    return str(parsed.ipv4_mapped or parsed)


def frames(path):
    """The packets of a little-endian pcap file, each with the name of who imports it and its place."""
    whole = path.read_bytes()
    if whole[:4] not in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"):
        return
    digest = hashlib.sha256(f"import {hashlib.sha256(whole).hexdigest()}".encode())
    at, ordinal = 24, 0
    while at + 16 <= len(whole):
        length = struct.unpack_from("<I", whole, at + 8)[0]
        yield digest.hexdigest()[:16], ordinal, whole[at + 16 : at + 16 + length]
        at, ordinal = at + 16 + length, ordinal + 1


def objects(options, layer):
    """The files of a layer: those that are committed, or without the command all there are."""
    store = Path(options.store)
    if not options.capstan:
        return sorted(map(str, (store / options.cluster / "data").glob(f"*/*/*/{layer}.parquet")))
    listed = subprocess.run(
        [options.capstan, "files", "--layer", layer, "--store", options.store, "--cluster", options.cluster],
        capture_output=True, text=True, check=True)
    return [str(store / line) for line in listed.stdout.splitlines()]


def duck(options):
    """A DuckDB with tables of the layers and captures, columns named as the tables name them."""
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    for layer in ["packets", "flows"]:
        files = objects(options, layer)
        db.execute(
            f"""CREATE VIEW {layer}_layer AS
                SELECT *, parse_path(filename)[-2] AS segment
                FROM read_parquet({files}, filename = true, file_row_number = true,
                                  hive_partitioning = false)"""
        )
    read = [frame for path in options.capture for frame in frames(Path(path))]
    recorders, ordinals, datas = map(list, zip(*read)) if read else ([], [], [])
    captured = pa.table({
        "recorder": pa.array(recorders, pa.string()),
        "ordinal": pa.array(ordinals, pa.int64()),
        "data": pa.array(datas, pa.binary()),
    })
    db.register("captured", captured)
    # As a table, because functions in Python need numpy.
    ends = " UNION ".join(f"SELECT {end} FROM flows_layer WHERE {end} IS NOT NULL"
                          for end in ["source", "destination", "outer_source", "outer_destination"])
    known = [(address, as_text(address)) for (address,) in db.sql(ends).fetchall()]
    db.execute("CREATE TABLE addresses (bytes BLOB, text VARCHAR)")
    if known:
        db.executemany("INSERT INTO addresses VALUES (?, ?)", known)
    db.execute("CREATE MACRO address(of_bytes) AS (SELECT text FROM addresses WHERE bytes = of_bytes)")
    ends = {
        "source_port": PORTS.format(port="f.source_port"),
        "destination_port": PORTS.format(port="f.destination_port"),
        "source_ip": ADDRESS.format(end="f.source"),
        "destination_ip": ADDRESS.format(end="f.destination"),
    }
    db.execute(
        f"""CREATE TABLE flow_parts AS SELECT
            lower(hex(flow_id)) AS flow_id,
            {MICROS.format(time="first_time")} AS first_time, {MICROS.format(time="last_time")} AS last_time,
            {ends["source_ip"]} AS source_ip, {ends["destination_ip"]} AS destination_ip,
            {ends["source_port"]} AS source_port, {ends["destination_port"]} AS destination_port,
            CASE WHEN link_type IS NULL AND ethertype <> 2054 THEN ip_protocol::INTEGER END AS ip_protocol,
            protocol, sni, alpn,
            packets_forward + packets_backward AS packets, packets_forward, packets_backward,
            bytes_forward + bytes_backward AS bytes, bytes_forward, bytes_backward,
            payload_forward, payload_backward,
            tcp_flags_forward::INTEGER AS tcp_flags_forward,
            tcp_flags_backward::INTEGER AS tcp_flags_backward,
            opened, "end" AS ended, vlan::INTEGER AS vlan, vni::BIGINT AS vni,
            address(outer_source) AS outer_source_ip, address(outer_destination) AS outer_destination_ip,
            ethertype::INTEGER AS ethertype, link_type::INTEGER AS link_type, interface::BIGINT AS interface,
            fragment_id::BIGINT AS fragment_id, source_namespace, source_pod, destination_namespace,
            destination_pod, split_part(segment, '-', 1) AS recorder, split_part(segment, '-', 2)::INTEGER AS generation,
            head_bytes + body_bytes AS payload_bytes, segment, file_row_number AS row
            FROM flows_layer f"""
    )
    db.execute(
        f"""CREATE TABLE packets AS SELECT
            {MICROS.format(time="p.time")} AS time, p.ordinal, f.flow_id,
            CASE WHEN p.backward THEN 'backward' ELSE 'forward' END AS direction,
            p.interface, p.length::BIGINT AS length,
            coalesce(p.captured, p.length)::BIGINT AS captured_length,
            CASE WHEN p.backward THEN f.destination_ip ELSE f.source_ip END AS source_ip,
            CASE WHEN p.backward THEN f.source_ip ELSE f.destination_ip END AS destination_ip,
            CASE WHEN p.backward THEN f.destination_port ELSE f.source_port END AS source_port,
            CASE WHEN p.backward THEN f.source_port ELSE f.destination_port END AS destination_port,
            f.ip_protocol, p.protocol, f.vlan, f.vni, p.tcp_flags::INTEGER AS tcp_flags,
            p.tcp_window::INTEGER AS tcp_window, f.source_namespace, f.source_pod,
            f.destination_namespace, f.destination_pod, f.recorder, f.generation, p.segment,
            c.data, c.data[:{HEADER}] AS header, c.data[{HEADER} + 1:] AS payload
            FROM packets_layer p JOIN flow_parts f ON p.segment = f.segment AND p.flow = f.row
            LEFT JOIN captured c ON c.recorder = f.recorder AND c.ordinal = p.ordinal"""
    )
    sums = ["packets", "packets_forward", "packets_backward", "bytes", "bytes_forward",
            "bytes_backward", "payload_forward", "payload_backward"]
    same = ["source_ip", "destination_ip", "source_port", "destination_port", "ip_protocol",
            "vlan", "vni", "ethertype", "link_type", "interface", "fragment_id"]
    first = ["sni", "alpn", "outer_source_ip", "outer_destination_ip", "source_namespace", "source_pod",
             "destination_namespace", "destination_pod"]
    db.execute(
        f"""CREATE TABLE flows AS SELECT flow_id,
            min(first_time) AS first_time, max(last_time) AS last_time,
            {", ".join(f"any_value({name}) AS {name}" for name in same)},
            {", ".join(f"sum({name})::BIGINT AS {name}" for name in sums)},
            {LAST_KNOWN.format(time=TIME_ORDER)} AS protocol,
            {", ".join(f"first({name} ORDER BY {TIME_ORDER}) FILTER ({name} IS NOT NULL) AS {name}" for name in first)},
            bit_or(tcp_flags_forward) AS tcp_flags_forward,
            bit_or(tcp_flags_backward) AS tcp_flags_backward,
            bool_or(opened) AS opened, last(ended ORDER BY {TIME_ORDER}) AS ended
            FROM flow_parts GROUP BY flow_id"""
    )
    return db


# --- Rows, whoever gives them ----------------------------------------------------------------


def moment(value):
    """A time as microseconds since 1970: DuckDB knows no less."""
    return ("time", value)


def plain(value):
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.9g}")
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    return value


def rows_of_arrow(table):
    columns = []
    for column in table.columns:
        if pa.types.is_timestamp(column.type):
            per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
            ticks = column.cast(pa.int64()).to_pylist()
            micros = [t if t is None else t * 10**6 // per_second for t in ticks]
            columns.append([None if m is None else moment(m) for m in micros])
        elif pa.types.is_decimal(column.type):
            # DuckDB's sums of BIGINT do not fit into a BIGINT.
            columns.append([None if v is None else int(v) for v in column.to_pylist()])
        else:
            columns.append([plain(value) for value in column.to_pylist()])
    return [tuple(row) for row in zip(*columns)] if columns else []


def printed(run):
    """What a command printed, if it ended well."""
    if run.returncode != 0:
        raise AssertionError(f"exit code {run.returncode}: {run.stderr.decode()}")
    return run.stdout


def arrow_of(run):
    """What `capstan sql --format arrow` printed."""
    return pa.ipc.open_stream(io.BytesIO(printed(run))).read_all()


def rows_of_json(run, schema):
    """Rows that `capstan sql --format json` printed; a null is a column that is not there."""
    rows = []
    for line in printed(run).splitlines():
        cells = json.loads(line)
        row = []
        for field in schema:
            value = cells.get(field.name)
            if value is not None and pa.types.is_timestamp(field.type):
                value = moment(micros(value))
            if value is not None and pa.types.is_binary(field.type):
                value = bytes.fromhex(value)
            row.append(plain(value))
        rows.append(tuple(row))
    return rows


def micros(text):
    """Microseconds since 1970 of what is written with any number of decimals."""
    whole, _, rest = text.rstrip("Z").partition(".")
    seconds = datetime.datetime.fromisoformat(whole + "+00:00").timestamp()
    return int(seconds) * 10**6 + int((rest + "000000")[:6])


def sort_key(row):
    return tuple((value is not None, str(type(value)), value) for value in row)


class Ways:
    """The ways to ask."""

    def __init__(self, options):
        self.options = options
        self.flight = flight.connect(options.server)
        self.adbc = dbapi.connect(options.server, autocommit=True)

    def close(self):
        self.adbc.close()
        self.flight.close()

    def by_flight(self, sql):
        info = self.flight.get_flight_info(sql_command(sql))
        table = self.flight.do_get(info.endpoints[0].ticket).read_all()
        if table.schema != info.schema:
            raise AssertionError(f"{table.schema} is not {info.schema}, as was told")
        return table

    def by_adbc(self, sql):
        with self.adbc.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetch_arrow_table()

    def command(self, here, form, sql):
        """`capstan sql`, here over the store or by the server."""
        place = ["--server", self.options.server.replace("grpc://", "http://")]
        if here:
            place = ["--store", self.options.store, "--cluster", self.options.cluster]
        ask = [self.options.capstan, "sql", "--format", form, *place, sql]
        return subprocess.run(ask, capture_output=True, check=False)

    def ask(self, sql):
        """The rows, the same by all ways."""
        table = self.by_flight(sql)
        rows = sorted(rows_of_arrow(table), key=sort_key)
        ways = {
            "ADBC": lambda: self.rows(self.by_adbc(sql), table.schema),
        }
        commands = {
            "capstan sql": lambda: self.rows(arrow_of(self.command(True, "arrow", sql)), table.schema),
            "capstan sql --server": lambda: rows_of_json(self.command(False, "json", sql), table.schema),
        }
        if self.options.capstan:
            ways |= commands
        for name, way in ways.items():
            others = sorted(way(), key=sort_key)
            if others != rows:
                raise AssertionError(f"by {name}: {first_difference(others, rows)}")
        return rows

    def rows(self, table, schema):
        """Its rows, if its columns are those of another way."""
        if table.schema != schema:
            raise AssertionError(f"{table.schema} is not {schema}")
        return rows_of_arrow(table)

    def refused(self, sql, words):
        """By all ways: a mistake in the question, and what it is."""
        for call in [self.by_flight, self.by_adbc]:
            try:
                call(sql)
            except (pa.ArrowInvalid, adbc_driver_manager.ProgrammingError) as error:
                text = str(error)
            else:
                raise AssertionError("it was not refused")
            if words.lower() not in text.lower():
                raise AssertionError(f"'{words}' is not in: {text}")
        for here in [True, False] if self.options.capstan else []:
            run = self.command(here, "json", sql)
            if run.returncode != 2 or words.lower() not in run.stderr.decode().lower() or run.stdout:
                raise AssertionError(f"exit code {run.returncode}: {run.stderr.decode()}")


def first_difference(found, expected):
    if len(found) != len(expected):
        return f"{len(found)} rows are not {len(expected)}: {found[:3]} and {expected[:3]}"
    different = [pair for pair in zip(found, expected) if pair[0] != pair[1]]
    return f"{len(different)} rows differ, such as {different[0][0]} and {different[0][1]}"


# --- The questions ---------------------------------------------------------------------------

# Asked of both in the same words.
SAME = [
    "SELECT count(*) AS n FROM packets",
    "SELECT count(*) AS n, sum(length) AS l, sum(captured_length) AS c, min(time) AS f, max(time) AS t FROM packets",
    "SELECT protocol, count(*) AS n, sum(length) AS l FROM packets GROUP BY protocol",
    "SELECT direction, interface, count(*) AS n FROM packets GROUP BY direction, interface",
    "SELECT source_ip, destination_ip, count(*) AS n, avg(length) AS a FROM packets GROUP BY 1, 2",
    "SELECT source_port, count(DISTINCT flow_id) AS n FROM packets GROUP BY source_port",
    "SELECT destination_port, max(length) AS n FROM packets WHERE ip_protocol = 17 GROUP BY 1",
    "SELECT ip_protocol, vlan, count(*) AS n FROM packets GROUP BY ALL",
    "SELECT tcp_flags, count(*) AS n, min(tcp_window) AS least, max(tcp_window) AS most FROM packets GROUP BY 1",
    "SELECT time, ordinal, flow_id, length FROM packets WHERE captured_length <> length",
    "SELECT segment, count(*) AS n, min(ordinal) AS f, max(ordinal) AS l FROM packets GROUP BY segment",
    "SELECT date_trunc('minute', time) AS m, count(*) AS n FROM packets GROUP BY 1",
    "SELECT count(*) AS n FROM packets WHERE time IS NULL",
    "SELECT count(*) AS n FROM packets WHERE source_ip LIKE '10.%' OR destination_ip LIKE '%:%'",
    "SELECT count(*) AS n FROM packets WHERE protocol NOT IN ('tcp', 'udp') AND length BETWEEN 60 AND 200",
    "SELECT count(*) AS n FROM packets WHERE protocol <> 'dns' OR source_port = 53",
    "SELECT flow_id, source_ip, destination_ip, source_port, destination_port, ip_protocol, protocol, sni, "
    "packets, packets_forward, packets_backward, bytes, bytes_forward, bytes_backward, payload_forward, "
    "payload_backward, tcp_flags_forward, tcp_flags_backward, opened, ended, vlan, vni, first_time, last_time "
    "FROM flows",
    "SELECT flow_id, packets, bytes, first_time, last_time, segment, outer_source_ip, outer_destination_ip, alpn "
    "FROM flow_parts",
    "SELECT ended, opened, count(*) AS n, sum(bytes) AS b FROM flows GROUP BY 1, 2",
    "SELECT sni, count(*) AS n FROM flows WHERE sni IS NOT NULL GROUP BY sni",
    "SELECT protocol, count(*) AS n, max(packets) AS most FROM flows GROUP BY protocol HAVING count(*) > 1",
    "SELECT f.protocol, count(*) AS n, sum(p.length) AS l FROM packets p JOIN flows f ON p.flow_id = f.flow_id "
    "GROUP BY f.protocol",
    "SELECT a.flow_id FROM flows a LEFT JOIN packets p ON a.flow_id = p.flow_id WHERE p.flow_id IS NULL",
    "SELECT a.source_ip, count(*) AS n FROM flows a JOIN flows b ON a.source_ip = b.destination_ip "
    "WHERE a.flow_id < b.flow_id GROUP BY 1",
    "WITH big AS (SELECT flow_id FROM flows WHERE bytes > 1000) SELECT count(*) AS n FROM packets "
    "WHERE flow_id IN (SELECT flow_id FROM big)",
    "SELECT flow_id, n FROM (SELECT flow_id, count(*) AS n, row_number() OVER (ORDER BY count(*) DESC, flow_id) AS r "
    "FROM packets GROUP BY flow_id) t WHERE r <= 10",
    "SELECT count(*) AS n FROM packets WHERE time >= '1970-01-01T00:00:00Z' AND time < '2200-01-01T00:00:00Z'",
    "SELECT count(*) AS n FROM packets WHERE time < '1960-01-01T00:00:00Z'",
    "SELECT * FROM (SELECT flow_id, bytes FROM flows) f WHERE bytes < 0",
    "SELECT sum(length) AS l, count(*) AS n FROM packets WHERE source_ip = 'nobody'",
]


def busiest(db):
    """A host and a port that many packets have, and a moment in the middle."""
    host = db.sql("SELECT source_ip FROM packets WHERE source_ip IS NOT NULL AND source_ip <> '::' "
                  "GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1").fetchall()[0]
    port = db.sql("SELECT destination_port FROM packets WHERE destination_port > 0 AND ip_protocol IN (6, 17) "
                  "GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1").fetchall()[0]
    half = db.sql("SELECT epoch_us(quantile_disc(time, 0.5)) FROM packets").fetchall()[0]
    return host[0], port[0], half[0]


def different(db):
    """Asked of each in its own words."""
    host, port, half = busiest(db)
    stamp = datetime.datetime.fromtimestamp(half // 10**6, datetime.timezone.utc)
    whole = stamp.strftime("%Y-%m-%dT%H:%M:%S")
    shifted = (stamp + datetime.timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S")
    # The outer ends and ports are those of the first tunnelled packet only, in the layer.
    ends = (f"(f.source_ip = '{host}' OR f.destination_ip = '{host}' OR f.outer_source_ip = '{host}' "
            f"OR f.outer_destination_ip = '{host}')")
    join = "packets p JOIN flow_parts f ON p.segment = f.segment AND p.flow_id = f.flow_id"
    ports = f"({port} IN (f.source_port, f.destination_port))"
    yield (f"SELECT count(*) AS n, sum(length) AS l FROM packets WHERE host('{host}')",
           f"SELECT count(*), sum(length) FROM {join} WHERE {ends}")
    yield (f"SELECT count(*) AS n FROM packets WHERE NOT host('{host}')",
           f"SELECT count(*) FROM {join} WHERE NOT coalesce({ends}, false)")
    yield (f"SELECT count(*) AS n FROM packets WHERE source_port = {port} AND host('{host}')",
           f"SELECT count(*) FROM {join} WHERE p.source_port = {port} AND {ends}")
    yield (f"SELECT flow_id, packets FROM flow_parts f WHERE host('{host}') AND source_port = {port}",
           f"SELECT flow_id, packets FROM flow_parts f WHERE {ends} AND source_port = {port}")
    for compare in [">=", "<"]:
        for zone, text in [("Z", whole), ("+02:00", shifted), ("", whole)]:
            # Without an offset a time is UTC.
            yield (f"SELECT count(*) AS n, max(time) AS t FROM packets WHERE time {compare} '{text}{zone}'",
                   f"SELECT count(*), max(time) FROM packets WHERE time {compare} '{whole}Z'::TIMESTAMPTZ")
    window = f"last_time >= '{whole}Z' AND first_time < '{whole}Z'::TIMESTAMPTZ + INTERVAL '1 second'"
    ours = window.replace("::TIMESTAMPTZ", "::TIMESTAMP")
    yield (f"SELECT flow_id, packets, bytes FROM flows WHERE {ours}",
           f"SELECT flow_id, sum(packets), sum(bytes) FROM flow_parts WHERE {window} GROUP BY 1")
    # Every byte of payload is in head and body, and nothing else is.
    yield ("SELECT flow_id, segment, sum(octet_length(payload)) AS n FROM packets GROUP BY 1, 2",
           "SELECT flow_id, segment, payload_bytes FROM flow_parts")
    yield ("SELECT count(*) AS n, sum(octet_length(data)) AS d FROM packets",
           "SELECT count(*), sum(captured_length) FROM packets")
    yield ("SELECT count(*) AS n FROM packets WHERE octet_length(header) + octet_length(payload) <> captured_length",
           "SELECT 0")
    yield ("SELECT sum(packets) AS p, sum(wire_bytes) AS w, sum(captured_bytes) AS c, sum(flow_parts) AS f, "
           "count(*) AS n FROM segments",
           "SELECT count(*), sum(length), sum(captured_length), (SELECT count(*) FROM flow_parts), "
           "count(DISTINCT segment) FROM packets")
    # Unknown is not nobody: neither this pod nor another one.
    yield ("SELECT count(*) AS n FROM packets WHERE source_pod = 'shop/cart' OR source_pod <> 'shop/cart'", "SELECT 0")
    yield ("SELECT count(*) AS n FROM flows WHERE identity = 'unknown' AND source_namespace IS NULL",
           "SELECT count(*) FROM flows")


# About the bytes of packets of certain recorders.
BYTES = [
    "SELECT recorder, ordinal, data FROM packets WHERE {}",
    "SELECT recorder, ordinal, header, payload FROM packets WHERE {}",
    "SELECT time, source_ip, destination_ip, payload FROM packets WHERE protocol = 'dns' AND {}",
    "SELECT ordinal, header, payload FROM packets WHERE source_port = 53 AND {}",
    "SELECT protocol, sum(octet_length(payload)) AS n FROM packets WHERE {} GROUP BY 1",
    "SELECT protocol, count(DISTINCT payload) AS n FROM packets WHERE {} GROUP BY 1",
    "SELECT count(*) AS n FROM packets WHERE octet_length(payload) = 0 AND {}",
    "SELECT flow_id, max(octet_length(data)) AS n FROM packets WHERE vni IS NOT NULL AND {} GROUP BY 1",
]

# How many rows at most: what these tables say is in the catalog, not in Parquet.
WAYS_ONLY = [
    ("SELECT * FROM segments", 1000),
    ("SELECT recorder, generation, interface, kind, start_time, end_time, cause, packets, note FROM coverage", 1000),
    ("SELECT kind, count(*) AS n, min(start_time) AS f, max(end_time) AS t FROM coverage GROUP BY kind", 2),
    ("SELECT interface_name, link_type, count(*) AS n FROM packets GROUP BY 1, 2", 100),
    ("SELECT flow_id, min(tcp_seq) AS s, max(tcp_ack) AS a FROM packets WHERE ip_protocol = 6 GROUP BY 1", 10000),
    ("SELECT outer_source_ip, outer_destination_ip, count(*) AS n FROM packets GROUP BY 1, 2", 1000),
    ("SELECT * FROM coverage WHERE kind = 'lost' AND packets < 0", 0),
    ("SHOW TABLES", 100),
    ("DESCRIBE packets", 100),
    ("SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'", 1000),
]

MISTAKES = [
    ("SELECT nosuch FROM packets", "nosuch"),
    ("SELECT * FROM nosuch", "nosuch"),
    ("SELEC 1", "SELEC"),
    ("DELETE FROM packets", "refused"),
    ("SELECT * FROM packets WHERE host('example.org')", "not an IP address"),
    ("SELECT * FROM packets WHERE port(70000)", "not a port"),
    ("SELECT host('10.0.0.1') FROM packets", "use it in WHERE"),
    ("SELECT * FROM packets WHERE time > 'teatime'", "teatime"),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="the store's folder")
    parser.add_argument("--cluster", default="default", help="the cluster's name in it")
    parser.add_argument("--server", required=True, help="grpc://host:port of a server over it")
    parser.add_argument("--capstan", help="the command; without it only the server is asked")
    parser.add_argument("--capture", action="append", default=[], metavar="FILE",
                        help="a pcap file that was imported, to compare bytes of packets")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    db = duck(options)
    ways = Ways(options)

    def compare(sql, theirs):
        def run():
            expected = sorted(rows_of_arrow(db.sql(theirs).to_arrow_table()), key=sort_key)
            found = ways.ask(sql)
            if found != expected:
                raise AssertionError(first_difference(found, expected))
            return f"{len(found)} rows"
        return run

    def agree(sql, most):
        def run():
            found = ways.ask(sql)
            if len(found) > most or not found and most:
                raise AssertionError(f"{len(found)} rows")
            return f"{len(found)} rows by all ways"
        return run

    def refuse(sql, words):
        def run():
            ways.refused(sql, words)
            return "refused with words"
        return run

    checks = [(sql, compare(sql, sql)) for sql in SAME]
    checks += [(sql, compare(sql, theirs)) for sql, theirs in different(db)]
    recorders = db.sql("SELECT DISTINCT recorder FROM captured ORDER BY 1").fetchall()
    if recorders:
        known = "recorder IN (" + ", ".join(f"'{recorder}'" for (recorder,) in recorders) + ")"
        checks += [(sql.format(known), compare(sql.format(known), sql.format(known))) for sql in BYTES]
    checks += [(sql, agree(sql, rows)) for sql, rows in WAYS_ONLY]
    checks += [(sql, refuse(sql, words)) for sql, words in MISTAKES]
    failed = 0
    for sql, run in checks:
        shown = sql if len(sql) <= 110 else sql[:107] + "..."
        try:
            print(f"ok      {shown}: {run()}")
        except Exception as error:  # whatever it is, the others are asked, too
            failed += 1
            print(f"FAILED  {sql}\n        {error}")
            if not isinstance(error, AssertionError):
                traceback.print_exc()
    ways.close()
    print(f"{len(checks)} questions, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
