#!/usr/bin/env python3
"""Reads a store's Parquet layers with pyarrow and DuckDB, as people do who have no Capstan.

    parquet_layers.py --store DIR [--cluster NAME] [--capstan BINARY] [--format docs/format.md]

The objects are those that `capstan files` lists. Their bytes must be what the listing says, their
columns what docs/format.md says (field id, name, type, nullable or not), in both readers; and both
must find as many rows, and the same sums, as `capstan sql`. The store must be a folder.

Prints a line for each check. Exits with 0 if all hold, 1 if one does not, and 77 if what is
needed is not installed.
"""

import argparse
import csv
import hashlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

try:
    import duckdb
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

LAYERS = ["packets", "flows"]

# Types of docs/format.md, as pyarrow and DuckDB name them.
TYPES = {
    "BOOLEAN": (pa.bool_(), "BOOLEAN"),
    "BYTE_ARRAY": (pa.binary(), "BLOB"),
    "FIXED(16)": (pa.binary(16), "BLOB"),
    "INT16": (pa.int16(), "SMALLINT"),
    "INT32": (pa.int32(), "INTEGER"),
    "INT64": (pa.int64(), "BIGINT"),
    "STRING": (pa.string(), "VARCHAR"),
    "TIMESTAMP(NANOS, UTC)": (pa.timestamp("ns", tz="UTC"), "TIMESTAMP"),
    "UINT8": (pa.uint8(), "UTINYINT"),
    "UINT16": (pa.uint16(), "USMALLINT"),
    "UINT32": (pa.uint32(), "UINTEGER"),
    "UINT64": (pa.uint64(), "UBIGINT"),
}

# The same sums by three readers: capstan's SQL, pyarrow's columns, DuckDB's SQL.
SUMS = {
    "packets": "SELECT count(*), sum(length), sum(captured_length), min(ordinal), max(ordinal) FROM packets",
    "flows": "SELECT count(*), sum(packets), sum(bytes), count(first_time), count(sni) FROM flow_parts",
}
DUCK_SUMS = {
    "packets": "SELECT count(*), sum(length), sum(coalesce(captured, length)), min(ordinal), max(ordinal) FROM layer",
    "flows": "SELECT count(*), sum(packets_forward + packets_backward), sum(bytes_forward + bytes_backward), "
             "count(first_time), count(sni) FROM layer",
}
PROTOCOLS = "SELECT protocol, count(*) FROM {} GROUP BY 1 ORDER BY 1"


class Capstan:
    """The command over the store."""

    def __init__(self, options):
        self.binary = options.capstan
        self.store = ["--store", options.store, "--cluster", options.cluster]

    def run(self, command, *arguments):
        ran = subprocess.run([self.binary, command, *self.store, *arguments], capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            raise AssertionError(f"capstan {command}: exit code {ran.returncode}: {ran.stderr}")
        return ran.stdout

    def rows(self, sql):
        rows = csv.reader(io.StringIO(self.run("sql", "--format", "csv", sql)))
        return [tuple(row) for row in rows][1:]


def documented(text, layer):
    """The columns of a layer by docs/format.md: field id, name, type, nullable."""
    section = text.split(f"\n## `{layer}.parquet`\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]
    columns = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or not cells[0][:1].isdigit():
            continue
        ids = [int(number) for number in re.findall(r"\d+", cells[0])]
        if " to " in cells[0]:
            ids = list(range(ids[0], ids[1] + 1))
        names = re.findall(r"`(\w+)`", cells[1])
        types = re.findall(r"[A-Z_]+\d*(?:\([^)]*\))?\??", cells[2])
        types = types * len(names) if len(types) == 1 else types
        if not len(ids) == len(names) == len(types):
            raise AssertionError(f"not understood: {line}")
        columns += [(i, n, t.rstrip("?"), t.endswith("?")) for i, n, t in zip(ids, names, types)]
    return columns


def by_pyarrow(path):
    """The columns of a file: field id, name, type, nullable."""
    schema = pq.ParquetFile(path).schema_arrow
    return [(int(f.metadata[b"PARQUET:field_id"]), f.name, f.type, f.nullable) for f in schema]


def by_duckdb(path):
    """The columns of a file as DuckDB tells them: field id, name, nullable; and their types in SQL."""
    schema = duckdb.sql(f"SELECT field_id, name, repetition_type FROM parquet_schema('{path}') WHERE field_id IS NOT NULL")
    described = duckdb.sql(f"DESCRIBE SELECT * FROM read_parquet('{path}', hive_partitioning = false)").fetchall()
    # Whether a time in UTC has nanoseconds depends on DuckDB's version, and so its type's name.
    types = {name: "TIMESTAMP" if kind.startswith("TIMESTAMP") else kind for name, kind, *_ in described}
    return [(number, name, types[name], optional == "OPTIONAL") for number, name, optional in schema.fetchall()]


def equal(found, expected, what):
    if found != expected:
        raise AssertionError(f"{what}: {found} is not {expected}")


def check_objects(objects, folder):
    for listed in objects:
        data = (folder / listed["path"]).read_bytes()
        equal(len(data), listed["bytes"], listed["path"])
        equal(hashlib.sha256(data).hexdigest(), listed["sha256"], listed["path"])
    return f"{len(objects)} objects are what the listing says"


def check_columns(files, columns):
    for path in files:
        equal(by_pyarrow(path), [(i, n, TYPES[t][0], o) for i, n, t, o in columns], f"pyarrow, {path}")
        equal(by_duckdb(path), [(i, n, TYPES[t][1], o) for i, n, t, o in columns], f"DuckDB, {path}")
    return f"{len(columns)} columns in each of {len(files)} files, as documented"


def check_rows(layer, files, capstan):
    expected = tuple(int(value) for value in capstan.rows(SUMS[layer])[0])
    with_duckdb = duckdb.from_parquet(files, hive_partitioning=False)
    duckdb.register("layer", with_duckdb)
    equal(duckdb.sql(DUCK_SUMS[layer]).fetchall(), [expected], "DuckDB")
    table = pa.concat_tables(pq.read_table(path) for path in files)
    total = lambda *names: sum(pc.sum(table[name]).as_py() for name in names)
    if layer == "packets":
        captured = pc.sum(pc.coalesce(table["captured"], table["length"])).as_py()
        ordinals = pc.min_max(table["ordinal"]).as_py()
        found = (table.num_rows, total("length"), captured, ordinals["min"], ordinals["max"])
    else:
        known = [table.num_rows - table[name].null_count for name in ["first_time", "sni"]]
        found = (table.num_rows, total("packets_forward", "packets_backward"), total("bytes_forward", "bytes_backward"), *known)
    equal(found, expected, "pyarrow")
    labels = [(name, str(count)) for name, count in duckdb.sql(PROTOCOLS.format("layer")).fetchall()]
    asked = capstan.rows(PROTOCOLS.format("packets" if layer == "packets" else "flow_parts"))
    equal(labels, asked, "labels")
    return f"{expected[0]} rows, {len(labels)} labels"


def check_segments(objects, capstan, folder):
    rows = {(o["segment"], o["layer"]): pq.ParquetFile(folder / o["path"]).metadata.num_rows
            for o in objects if o["layer"] in LAYERS}
    told = capstan.rows("SELECT segment, packets, flow_parts FROM segments")
    for segment, packets, parts in told:
        equal((rows[segment, "packets"], rows[segment, "flows"]), (int(packets), int(parts)), segment)
    return f"{len(told)} segments have as many rows as the catalog says"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="the store's folder")
    parser.add_argument("--cluster", default="default", help="the cluster's name in it")
    parser.add_argument("--capstan", default="capstan", help="the command")
    parser.add_argument("--format", default=Path(__file__).parents[2] / "docs" / "format.md", type=Path,
                        help="the page that describes the columns")
    options = parser.parse_args()
    capstan, folder = Capstan(options), Path(options.store)
    objects = json.loads(capstan.run("files", "--format", "json"))
    text = options.format.read_text()
    checks = [("objects", lambda: check_objects(objects, folder)),
              ("segments", lambda: check_segments(objects, capstan, folder))]
    for layer in LAYERS:
        listed = capstan.run("files", "--layer", layer).splitlines()
        files = [str(folder / path) for path in listed]
        columns = documented(text, layer)
        checks.append((f"{layer}: columns", lambda f=files, c=columns: check_columns(f, c)))
        checks.append((f"{layer}: rows", lambda n=layer, f=files: check_rows(n, f, capstan)))
    failed = 0
    for name, check in checks:
        try:
            print(f"ok      {name}: {check()}")
        except AssertionError as error:
            failed += 1
            print(f"FAILED  {name}: {error}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
