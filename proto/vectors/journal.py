"""A segment of the journal with one group, and the mark behind it (FORMATS.md §6), from that page and journal.proto alone.

Knows bytes; CRC-32C by its polynomial. Does no I/O.
"""
import struct

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


def vectors():
    """Two batches, an acceptance with a statement by each and a content, and a record."""
    accepted = {
        "queue": "inps", "id": bytes(range(16)), "digest": b"\xaa" * 32, "expires_ms": 1_900_000_000_000,
        "remember_ms": 1_900_000_000_001, "statement": {"json": b"{}", "jws": "#0"},
        "evidence": {"json": b"[]", "jws": "#1", "index": 1}, "content": {"length": 4, "crc32c": crc32c(b"seal")},
    }  # fmt: skip
    facts = [{"at_ms": AT_MS, "accepted": accepted}, {"at_ms": AT_MS, "recorded": {"name": "n", "value": b"v"}}]
    segment, written = segment_header(1), group(1, 1, [b"a.b.c", b"d.e.f"], facts, b"seal")
    mark = checked(struct.pack("<QQQ", 1, len(segment) + len(written), 1))
    return {"segment": segment.hex(), "group": written.hex(), "mark": mark.hex()}
