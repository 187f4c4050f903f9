"""A segment of the journal with one group, the mark behind it, and the same segment packed (FORMATS.md §6), from that page and journal.proto alone.

Knows bytes; CRC-32C by its polynomial. Does no I/O.
"""
import struct
import zlib

from frames import write

STATEMENT = {1: ("json", bytes), 2: ("jws", str), 3: ("index", int)}
CONTENT = {1: ("length", int), 2: ("crc32c", int)}
ACCEPTED = {
    1: ("queue", str), 2: ("id", bytes), 3: ("digest", bytes), 5: ("expires_ms", int), 6: ("remember_ms", int),
    9: ("statement", STATEMENT), 10: ("evidence", STATEMENT), 13: ("content", CONTENT),
}  # fmt: skip
RECORDED = {1: ("name", str), 2: ("value", bytes)}
FACT = {1: ("at_ms", int), 2: ("accepted", ACCEPTED), 7: ("recorded", RECORDED)}

STORE = bytes([7]) * 16
SEGMENT_BYTES = 1 << 20
AT_MS = 1_800_000_000_000


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def checked(data):
    return data + struct.pack("<I", crc32c(data))


def segment_header(first):
    return checked((b"TRMJSEG1" + struct.pack("<II", 1, SEGMENT_BYTES) + STORE + struct.pack("<Q", first)).ljust(60, b"\0"))


def group(first, number, batches, facts, contents):
    counted = [struct.pack("<I", len(one)) + one for one in [*batches, *(write(FACT, fact) for fact in facts)]]
    section = struct.pack("<I", len(batches)) + b"".join(counted)
    header = b"TRMG" + struct.pack("<IIIQQ", len(section), len(contents), len(facts), first, number)
    header += struct.pack("<I", crc32c(STORE + section))
    header += struct.pack("<I", crc32c(STORE + header))
    whole = header + section + contents
    return whole + bytes(-len(whole) % 8)


def packed_header(first, size, end, first_group, groups):
    fields = b"TRMJSEG1" + struct.pack("<II", 2, size) + STORE + struct.pack("<QQQI", first, end, first_group, groups)
    return checked(fields)


def block(first, end, first_group, groups, plain, contents, level=3):
    stored = zlib.compress(plain, level)
    header = b"TRMP" + struct.pack("<IIIQQQI", len(stored), len(plain), len(contents), first, end, first_group, groups)
    header += struct.pack("<II", crc32c(STORE + stored), 0)
    header += struct.pack("<I", crc32c(STORE + header))
    whole = header + stored + contents
    return whole + bytes(-len(whole) % 8)


def packed_group(first, batches, facts):
    """`facts`: (sequence, whether its content is there, bytes)."""
    counted = b"".join(struct.pack("<I", len(one)) + one for one in batches)
    entries = (struct.pack("<II", (at - first) * 2 + there, len(one)) + one for at, there, one in facts)
    return struct.pack("<QII", first, len(facts), len(batches)) + counted + b"".join(entries)


def vectors():
    """Two batches, an acceptance with a statement by each and a content, and a record; packed with both, and with the record alone."""
    accepted = {
        "queue": "inps", "id": bytes(range(16)), "digest": b"\xaa" * 32, "expires_ms": 1_900_000_000_000,
        "remember_ms": 1_900_000_000_001, "statement": {"json": b"{}", "jws": "#0"},
        "evidence": {"json": b"[]", "jws": "#1", "index": 1}, "content": {"length": 4, "crc32c": crc32c(b"seal")},
    }  # fmt: skip
    facts = [{"at_ms": AT_MS, "accepted": accepted}, {"at_ms": AT_MS, "recorded": {"name": "n", "value": b"v"}}]
    segment, written = segment_header(1), group(1, 1, [b"a.b.c", b"d.e.f"], facts, b"seal")
    mark = checked(struct.pack("<QQQ", 1, len(segment) + len(written), 1))
    accepted, recorded = (write(FACT, fact) for fact in facts)
    whole = packed_group(1, [b"a.b.c", b"d.e.f"], [(1, 1, accepted), (2, 0, recorded)])
    left = packed_group(1, [b"", b""], [(2, 0, recorded)])
    blocks = {"packed": block(1, 3, 1, 1, whole, b"seal"), "packed_left": block(1, 3, 1, 1, left, b"")}
    files = {name: (packed_header(1, 64 + len(one), 3, 1, 1) + one).hex() for name, one in blocks.items()}
    plain = {"packed_plain": whole.hex(), "packed_left_plain": left.hex()}
    return {"segment": segment.hex(), "group": written.hex(), "mark": mark.hex(), **files, **plain}
