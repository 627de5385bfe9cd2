#!/usr/bin/env python3
"""Asks a Capstan server as people's tools do: pyarrow.flight and the ADBC Flight SQL driver.

    flight_clients.py --server grpc://127.0.0.1:7070 [--table packets] [--empty-table flows]

Prints a line for each check. Exits with 0 if all hold, 1 if one does not, and 77
if pyarrow or the driver is not installed. Nothing is assumed of the store but
that it has the tables named on the command line.
"""

import argparse
import datetime
import json
import sys
import traceback
import warnings

try:
    import adbc_driver_manager
    import pyarrow as pa
    import pyarrow.flight as flight
    from adbc_driver_flightsql import dbapi
    from flight_sql import sql_command
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

UTC_NANOSECONDS = pa.timestamp("ns", tz="UTC")
PCAPNG_MAGIC = bytes([0x0A, 0x0D, 0x0D, 0x0A])

# One row with every kind of value that packets have.
LITERALS = (
    "SELECT arrow_cast(1700000000123456789, 'Timestamp(Nanosecond, Some(\"UTC\"))') AS time, "
    "X'00ff80' AS payload, 'ä' AS text, arrow_cast('10.0.0.1', 'Utf8View') AS ip, "
    "arrow_cast('a', 'Dictionary(Int32, Utf8)') AS observer, CAST(NULL AS BIGINT) AS nothing, "
    "arrow_cast(443, 'UInt16') AS port"
)
LITERAL_TYPES = [
    ("time", UTC_NANOSECONDS),
    ("payload", pa.binary()),
    ("text", pa.string()),
    ("ip", pa.string()),
    ("observer", pa.string()),
    ("nothing", pa.int64()),
    ("port", pa.uint16()),
]

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def equal(found, expected):
    if found != expected:
        raise AssertionError(f"{found!r} is not {expected!r}")


def refused(kind, words, call):
    """The call fails with this kind of error, and says why."""
    try:
        call()
    except kind as error:
        text = str(error)
        if words.lower() not in text.lower():
            raise AssertionError(f"'{words}' is not in: {text}") from error
        return
    raise AssertionError(f"no {kind.__name__}")


def types(schema):
    return [(field.name, field.type) for field in schema]


class Clients:
    def __init__(self, options):
        self.options = options
        self.flight = flight.connect(options.server)
        self.adbc = dbapi.connect(options.server, autocommit=True)

    def close(self):
        self.adbc.close()
        self.flight.close()

    def ask(self, sql):
        """By pyarrow alone: the endpoint's whole answer."""
        info = self.flight.get_flight_info(sql_command(sql))
        table = self.flight.do_get(info.endpoints[0].ticket).read_all()
        equal(table.schema, info.schema)
        return table

    def query(self, sql, parameters=None):
        """By ADBC."""
        with self.adbc.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetch_arrow_table()


@check
def pyarrow_values(clients):
    table = clients.ask(LITERALS)
    equal(types(table.schema), LITERAL_TYPES)
    equal(table["time"].cast(pa.int64()).to_pylist(), [1700000000123456789])
    row = table.drop_columns("time").to_pylist()[0]
    equal(list(row.values()), [b"\x00\xff\x80", "ä", "10.0.0.1", "a", None, 443])


@check
def pyarrow_schema_alone(clients):
    schema = clients.flight.get_schema(sql_command(LITERALS)).schema
    equal(types(schema), LITERAL_TYPES)


@check
def pyarrow_empty_answer_has_columns(clients):
    table = clients.ask(f"SELECT * FROM {clients.options.table} WHERE 1 = 0")
    equal(table.num_rows, 0)
    if not table.schema.names:
        raise AssertionError("no columns")


@check
def pyarrow_errors(clients):
    table = clients.options.table
    refused(pa.ArrowInvalid, "nosuch", lambda: clients.ask(f"SELECT nosuch FROM {table}"))
    refused(pa.ArrowInvalid, "nosuch", lambda: clients.ask("SELECT * FROM nosuch"))
    refused(pa.ArrowInvalid, "SELEC", lambda: clients.ask("SELEC 1"))
    refused(pa.ArrowInvalid, "refused", lambda: clients.ask(f"DROP TABLE {table}"))
    nonsense = flight.FlightDescriptor.for_command(b"nonsense")
    refused(pa.ArrowInvalid, "Flight SQL", lambda: clients.flight.get_flight_info(nonsense))


@check
def pyarrow_many_rows(clients):
    table = clients.ask("SELECT value, repeat('x', 100) AS pad FROM generate_series(1, 200000)")
    equal(table.num_rows, 200000)
    equal(sum(table["value"].to_pylist()), 200000 * 200001 // 2)


@check
def pyarrow_given_up(clients):
    info = clients.flight.get_flight_info(sql_command("SELECT * FROM generate_series(1, 1000000000)"))
    reader = clients.flight.do_get(info.endpoints[0].ticket)
    reader.read_chunk()
    reader.cancel()
    # The server still answers others.
    equal(clients.ask("SELECT 1 AS one")["one"].to_pylist(), [1])


@check
def pyarrow_export(clients):
    command = json.dumps({"export": {"order": "time"}}).encode()
    info = clients.flight.get_flight_info(flight.FlightDescriptor.for_command(command))
    equal(types(info.schema), [("pcapng", pa.binary())])
    size, head = 0, b""
    for chunk in clients.flight.do_get(info.endpoints[0].ticket):
        for piece in chunk.data["pcapng"].to_pylist():
            if len(piece) > 1 << 20:
                raise AssertionError(f"a row of {len(piece)} bytes")
            head = head or piece[:4]
            size += len(piece)
    equal(head, PCAPNG_MAGIC)
    wrong = flight.FlightDescriptor.for_command(b'{"export": {"ports": [70000]}}')
    refused(pa.ArrowInvalid, "70000", lambda: clients.flight.get_flight_info(wrong))


@check
def adbc_values(clients):
    table = clients.query(LITERALS)
    equal(types(table.schema), LITERAL_TYPES)
    equal(table["payload"].to_pylist(), [b"\x00\xff\x80"])
    equal(table["nothing"].to_pylist(), [None])


@check
def adbc_rows_of_python_values(clients):
    with clients.adbc.cursor() as cursor:
        cursor.execute("SELECT * FROM (VALUES (1, 'a'), (2, NULL)) AS t(number, text) ORDER BY 1")
        equal([column[0] for column in cursor.description], ["number", "text"])
        equal(cursor.fetchall(), [(1, "a"), (2, None)])


@check
def adbc_parameters(clients):
    sql = "SELECT * FROM (VALUES (1, 'a'), (2, 'b'), (3, NULL)) AS t(number, text) WHERE number >= ?"
    equal(clients.query(sql + " AND text = ?", (1, "b"))["number"].to_pylist(), [2])
    equal(clients.query(sql, (2,))["text"].to_pylist(), ["b", None])
    equal(clients.query(sql, (None,)).num_rows, 0)
    equal(clients.query("SELECT $2::text AS a, $1::bigint AS b", (7, "x")).to_pylist(), [{"a": "x", "b": 7}])
    moment = datetime.datetime(2026, 11, 21, 14, 23, tzinfo=datetime.timezone.utc)
    found = clients.query("SELECT ?::timestamp > TIMESTAMP '2026-11-21T14:22:59' AS later", (moment,))
    equal(found["later"].to_pylist(), [True])
    equal(clients.query("SELECT ?::bytea AS b", (b"\x00\xff",))["b"].to_pylist(), [b"\x00\xff"])


@check
def adbc_a_statement_again_with_other_values(clients):
    with clients.adbc.cursor() as cursor:
        parameters = cursor.adbc_prepare("SELECT value FROM generate_series(1, 10) WHERE value > ?")
        equal(types(parameters), [("$1", pa.int64())])
        for above in (3, 8):
            cursor.execute("SELECT value FROM generate_series(1, 10) WHERE value > ?", (above,))
            equal(len(cursor.fetchall()), 10 - above)


@check
def adbc_schema_alone(clients):
    with clients.adbc.cursor() as cursor:
        equal(types(cursor.adbc_execute_schema(LITERALS)), LITERAL_TYPES)


@check
def adbc_empty_table(clients):
    name = clients.options.empty_table
    if name is None:
        return
    table = clients.query(f"SELECT * FROM {name}")
    equal(table.num_rows, 0)
    equal(types(table.schema), types(clients.adbc.adbc_get_table_schema(name)))


@check
def adbc_stream(clients):
    with clients.adbc.cursor() as cursor:
        cursor.execute("SELECT value FROM generate_series(1, 100000)")
        reader = cursor.fetch_record_batch()
        equal(sum(batch.num_rows for batch in reader), 100000)


@check
def adbc_tables(clients):
    wanted = clients.options.table
    found = clients.adbc.adbc_get_objects(depth="tables", table_name_filter=wanted).read_all().to_pylist()
    catalogs = [catalog for catalog in found if catalog["catalog_db_schemas"]]
    names = [
        table["table_name"]
        for catalog in catalogs
        for schema in catalog["catalog_db_schemas"]
        for table in schema["db_schema_tables"] or []
    ]
    equal(names, [wanted])
    if "TABLE" not in clients.adbc.adbc_get_table_types():
        raise AssertionError("no table type TABLE")


@check
def adbc_columns_are_those_of_the_answer(clients):
    wanted = clients.options.table
    answer = clients.query(f"SELECT * FROM {wanted} LIMIT 1")
    equal(types(answer.schema), types(clients.adbc.adbc_get_table_schema(wanted)))
    found = clients.adbc.adbc_get_objects(depth="columns", table_name_filter=wanted).read_all().to_pylist()
    schema = next(s for c in found for s in c["catalog_db_schemas"] or [] if s["db_schema_tables"])
    columns = [column["column_name"] for column in schema["db_schema_tables"][0]["table_columns"]]
    equal(columns, answer.schema.names)


@check
def adbc_information_schema(clients):
    found = clients.query("SELECT table_name FROM information_schema.tables WHERE table_name = ?", (clients.options.table,))
    equal(found["table_name"].to_pylist(), [clients.options.table])
    if clients.query("SHOW TABLES").num_rows == 0:
        raise AssertionError("no tables")
    if clients.query(f"EXPLAIN SELECT * FROM {clients.options.table}").num_rows == 0:
        raise AssertionError("no plan")


@check
def adbc_about_the_server(clients):
    equal(clients.adbc.adbc_get_info()["vendor_name"], "Capstan")


@check
def adbc_errors(clients):
    kind = adbc_driver_manager.Error
    table = clients.options.table
    refused(kind, "nosuch", lambda: clients.query(f"SELECT nosuch FROM {table}"))
    refused(kind, "nosuch", lambda: clients.query("SELECT * FROM nosuch"))
    refused(kind, "SELEC", lambda: clients.query("SELEC 1"))
    refused(kind, "refused", lambda: clients.query("CREATE TABLE t AS SELECT 1"))
    refused(kind, "refused", lambda: clients.query(f"DELETE FROM {table}"))
    refused(kind, "2 parameters and 1 value", lambda: clients.query("SELECT ?::int + ?::int", (1,)))
    refused(kind, "no value", lambda: clients.query("SELECT ?::int"))


@check
def adbc_as_it_connects_by_itself(clients):
    with warnings.catch_warnings():
        # "Cannot disable autocommit": there are no transactions to be in.
        warnings.simplefilter("ignore")
        connection = dbapi.connect(clients.options.server)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        equal(cursor.fetchone(), (1,))


@check
def adbc_password(clients):
    def connect():
        dbapi.connect(clients.options.server, {"username": "u", "password": "p"}, autocommit=True).close()

    refused(adbc_driver_manager.Error, "no authentication: connect without user and password", connect)


@check
def adbc_writes(clients):
    def ingest():
        with clients.adbc.cursor() as cursor:
            cursor.adbc_ingest("t", pa.table({"a": [1]}))

    def update():
        with clients.adbc.cursor() as cursor:
            cursor.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])

    refused(adbc_driver_manager.Error, "", ingest)
    refused(adbc_driver_manager.Error, "", update)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="grpc://host:port")
    parser.add_argument("--table", default="packets", help="a table that is there")
    parser.add_argument("--empty-table", help="a table that is there and has no rows")
    clients = Clients(parser.parse_args())
    failures = 0
    for function in CHECKS:
        name = function.__name__.replace("_", " ")
        try:
            function(clients)
            print(f"ok      {name}")
        except Exception:  # Whatever it is, the other checks still tell something.
            failures += 1
            print(f"FAILED  {name}")
            traceback.print_exc(limit=2, file=sys.stdout)
    print(f"{len(CHECKS) - failures} of {len(CHECKS)} checks hold")
    clients.close()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
