"""Flight SQL's messages (protocol buffers) for clients that only know Flight."""

from pyarrow import flight


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def protobuf_bytes(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def sql_command(sql):
    """CommandStatementQuery in an Any, as the Flight SQL protocol wants it."""
    name = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    query = protobuf_bytes(1, sql.encode())
    return flight.FlightDescriptor.for_command(protobuf_bytes(1, name) + protobuf_bytes(2, query))
