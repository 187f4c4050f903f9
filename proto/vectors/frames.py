"""Frames on a stream (FORMATS.md §5): protobuf's wire format written and read by hand, from the numbers in exchange.proto and
statement.proto, and statements put into a frame and let out of it again.

Knows bytes; no generated code, no protobuf library. Does no I/O. Raises ValueError where a frame cannot be read.
"""

# What a field holds: an integer or a bool, text, bytes, or another message; in a list: repeated.
STATEMENT = {1: ("json", bytes), 2: ("jws_index", int), 3: ("index", int), 4: ("path", [bytes])}
MESSAGE = {1: ("origin", STATEMENT), 2: ("enc", bytes), 3: ("ciphertext", bytes), 4: ("traceparent", str)}
REFUSAL = {1: ("reason", str), 2: ("detail", str), 3: ("retryable", int), 4: ("retry_after_ms", int), 5: ("evidence", STATEMENT)}
RESULT = {1: ("accepted", STATEMENT), 2: ("refused", REFUSAL)}
DELIVERY = {1: ("delivery_id", int), 2: ("message", MESSAGE), 3: ("acceptance", STATEMENT), 4: ("attempt", int)}
NOTICE = {1: ("delivery_id", int), 2: ("message_id", str), 3: ("receipt", STATEMENT), 4: ("evidence", STATEMENT), 5: ("attempt", int)}
SETTLED = {1: ("delivery_id", int), 2: ("refused", REFUSAL)}
FRAMES = {
    "SubmitFrame": {1: ("frame_id", int), 2: ("jws", [str]), 3: ("messages", [MESSAGE])},
    "SubmitAnswer": {1: ("frame_id", int), 2: ("jws", [str]), 3: ("results", [RESULT])},
    "ReceiveFrame": {1: ("jws", [str]), 2: ("deliveries", [DELIVERY]), 3: ("notices", [NOTICE]), 4: ("settled", [SETTLED])},
}
VARINT, LENGTH = 0, 2


# -- Protobuf's wire format -------------------------------------------------------------------------------------------


def varint(number):
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def write_field(number, shape, value):
    if shape is int:
        return varint(number << 3 | VARINT) + varint(int(value))
    data = value.encode() if shape is str else value if shape is bytes else write(shape, value)
    return varint(number << 3 | LENGTH) + varint(len(data)) + data


def write(shape, value, order=None):
    """A message with its fields in rising order, or in the given one. What is empty or 0 is left out; a message never is."""
    written = b""
    for number in order or sorted(shape):
        name, kind = shape[number]
        if isinstance(kind, list):
            written += b"".join(write_field(number, kind[0], one) for one in value.get(name, []))
        elif value.get(name) or (isinstance(kind, dict) and name in value):
            written += write_field(number, kind, value[name])
    return written


def read_varint(data, at):
    number = shift = 0
    while True:
        byte = data[at]
        number, shift, at = number | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return number, at


def read(shape, data):
    """A message, with everything that it leaves out. Fields of numbers that are not known here are skipped."""
    value = {name: [] if isinstance(kind, list) else kind() for name, kind in shape.values() if not isinstance(kind, dict)}
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        number, wire = key >> 3, key & 7
        if wire not in (VARINT, LENGTH):
            raise ValueError(f"wire type {wire} of field {number}")
        held, at = read_varint(data, at)
        if wire == LENGTH:
            held, at = data[at : at + held], at + held
            if at > len(data):
                raise ValueError(f"field {number} is cut")
        if number not in shape:
            continue
        name, kind = shape[number]
        one = kind[0] if isinstance(kind, list) else kind
        if (one is int) != (wire == VARINT):
            raise ValueError(f"wire type {wire} of {name}")
        held = held if one is int else bytes(held) if one is bytes else held.decode() if one is str else read(one, held)
        if isinstance(kind, list):
            value[name].append(held)
        else:
            value[name] = held
    return value


# -- Framing ----------------------------------------------------------------------------------------------------------


def put(jws, statement):
    """A stand-alone statement as it stands in a frame whose list is `jws`: its JWS goes there once."""
    if statement["jws"] not in jws:
        jws.append(statement["jws"])
    path = [bytes.fromhex(one) for one in statement["path"]]
    framed = {"json": statement["json"].encode(), "jws_index": jws.index(statement["jws"]), "index": statement["index"]}
    return framed | {"path": path}


def alone(jws, framed):
    """The other way round."""
    if framed["jws_index"] >= len(jws):
        raise ValueError("a statement refers to a batch that the frame does not carry")
    path = [one.hex() for one in framed["path"]]
    return {"json": framed["json"].decode(), "jws": jws[framed["jws_index"]], "index": framed["index"], "path": path}


def framed_in(value):
    """Every framed statement in a frame, in the order in which a reader meets them."""
    for one in value.get("messages", []):
        yield one["origin"]
    for one in value.get("results", []):
        yield one["accepted"] if "accepted" in one else one["refused"].get("evidence")
    for one in value.get("deliveries", []):
        yield from (one["message"]["origin"], one["acceptance"])
    for one in value.get("notices", []):
        yield from (one.get("receipt"), one.get("evidence"))
    for one in value.get("settled", []):
        yield one.get("refused", {}).get("evidence")


def unframe(value):
    """Every statement in a frame, standing alone again."""
    return [alone(value["jws"], framed) for framed in framed_in(value) if framed is not None]
