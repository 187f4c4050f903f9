#!/usr/bin/env python3
"""The second implementation of FORMATS.md §1 to §6 against the first; of §1 to §5 in both directions.

make.py [FILE …]   writes the vectors beside this file, which the Rust tests read, or only the files named: by
                   formats.py (§1 to §4), frames.py (§5) and journal.py (§6).
make.py --check F  reads what the Rust implementation made (a JSON file) and verifies and opens all of it; says each thing that
                   does not hold and ends with 1.

Keys named test_* are made from fixed words for these
vectors and protect nothing. ECDSA and HPKE are randomised: running it again gives other vectors, as valid as these.
"""
import argparse
import base64
import json
import pathlib
import struct
import sys
import uuid

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from jwcrypto import jwk, jws

import frames
import journal
from formats import (
    AT, CHUNK, X25519, XWING, Recipient, Signer, aad, b64, commitment, leaf, open_part, path, pattern, plaintext, root, seal_part,
    seed, sha256, unb64, unpad, v7, verify_statement,
)  # fmt: skip

HERE = pathlib.Path(__file__).resolve().parent


# -- What is written --------------------------------------------------------------------------------------------------


def context(words, mt="tramite.body.v1.Referral"):
    jti = v7(AT * 1000, words)
    return {
        "jti": jti, "cid": str(uuid.UUID(bytes=seed(f"{words} conversation")[:16], version=4)), "case": jti,
        "iss": "caritas", "aud": "inps", "mt": mt, "kid": "inps-2026-11", "exp": AT + 30 * 86400,
    }  # fmt: skip


def dumps(members, **how):
    return json.dumps(members, ensure_ascii=False, **({"separators": (",", ":")} | how)).encode()


def origin(c, suite, sealed, ptc, **more):
    enc, ciphertext = sealed
    ct = {"suite": suite, "kid": c["kid"], "enc_s256": b64(sha256(enc)), "s256": b64(sha256(ciphertext)), "len": len(ciphertext)}
    head = {"typ": "origin", "v": 1} | {name: c[name] for name in ("jti", "cid", "case", "iss", "aud", "mt")}
    return head | {
        "cs": "requested", "iat": AT, "exp": c["exp"], "pri": "routine", "pur": "RIGHTS_SCREENING", "lb": "GDPR-6-1-E",
        "agr": "protocollo-2021", "op": "op-7f3a", "loc": "caritas/sportello-1", "loa": "substantial", "ct": ct, "ptc": b64(ptc),
    } | more  # fmt: skip


def sealed_vectors():
    made = []
    for suite in (X25519, XWING):
        recipient = Recipient(suite, seed(f"encryption inps {suite}"))
        for size in (0, 5, 476, 477, 3000, 65500):
            c, salt, body = context(f"sealed {suite} {size}"), seed(f"salt {size}"), pattern(size)
            enc, ciphertext = recipient.seal(plaintext(salt, body), aad(c))
            made.append({
                "suite": suite, "context": c, "aad": aad(c).hex(), "test_private_key": recipient.private.hex(),
                "public_key": recipient.public.hex(), "salt": salt.hex(), "body_length": size,
                "body_sha256": sha256(body).hex(), "ptc": commitment(salt, body).hex(), "enc": enc.hex(),
                "ciphertext": b64(ciphertext),
            })  # fmt: skip
    return made


def hostile_vectors():
    """Bodies that open, and are refused for their padding or commitment."""
    recipient, made = Recipient(X25519, seed("encryption inps hostile")), []
    salt, body = seed("salt hostile"), b"a body"
    honest, ptc = plaintext(salt, body), commitment(salt, body)
    cases = [
        ("padding that is not zero", honest[:-1] + b"\x01", ptc),
        ("padding longer than the least", honest + bytes(512), ptc),
        ("length beyond the plaintext", salt + struct.pack(">I", 477) + honest[36:], ptc),
        ("length at its greatest", salt + b"\xff" * 4 + honest[36:], ptc),
        ("commitment to another body", honest, commitment(salt, b"another")),
        ("commitment under another salt", honest, commitment(bytes(32), body)),
    ]
    for why, data, committed in cases:
        c = context(f"hostile {why}")
        enc, ciphertext = recipient.seal(data, aad(c))
        made.append({
            "why": why, "suite": X25519, "context": c, "test_private_key": recipient.private.hex(), "ptc": committed.hex(),
            "enc": enc.hex(), "ciphertext": b64(ciphertext),
        })  # fmt: skip
    return made


def statement_vectors(signers):
    caritas, inps, gateway = (signers[name] for name in ("caritas", "inps", "gateway"))
    salt, body, made = seed("salt statement"), b"body", []
    for suite in (X25519, XWING):
        recipient, c = Recipient(suite, seed(f"encryption inps {suite}")), context(f"statement {suite}")
        sealed = recipient.seal(plaintext(salt, body), aad(c))
        made.append(("origin", caritas, dumps(origin(c, suite, sealed, commitment(salt, body)))))
        key = {"kid": c["kid"], "suite": suite, "pub": b64(recipient.public)}
        record = {"typ": "key", "v": 1, "iss": "inps", "seq": 3, "iat": AT, "nbf": AT - 60, "exp": AT + 300 * 86400,
                  "x5c": [b64(inps.der)], "alg": "ES256", "enc": key}  # fmt: skip
        made.append(("key", inps, dumps(record)))
    more = {
        "ref": v7(AT * 1000 - 5000, "answered"), "rsn": "NO_CAPACITY", "dl": AT + 86400, "pri": "urgent", "cs": "rejected",
        "case": v7(AT * 1000 - 9000, "opened"), "parts": [{"len": 16, "s256": b64(sha256(b"part 0"))}, {"len": 65552 + 17, "s256": b64(sha256(b"part 1"))}],
        "sj": [{"ep": 2026, "tag": b64(seed("tag")[:16])}], "lcp": {"size": 70000, "root": b64(seed("root"))},
    }  # fmt: skip
    full = origin(c, suite, sealed, commitment(salt, body), **more)
    made.append(("origin", caritas, dumps(full)))
    # Another spelling of the same members, with spaces and in another order behind typ and v: another statement, as valid.
    spaced = {"typ": "origin", "v": 1} | dict(sorted(full.items(), reverse=True))
    made.append(("origin", caritas, dumps(spaced, separators=(", ", ": "), indent=1)))
    about = {"mid": c["jti"], "org_s256": b64(sha256(made[0][2]))}
    receipt = {"typ": "receipt", "v": 1, "jti": v7(AT * 1000 + 1, "receipt"), "iss": "inps", "aud": "caritas", **about,
               "ct_s256": b64(seed("ct")), "ptc": b64(seed("ptc")), "at": AT + 1, "opened": True}  # fmt: skip
    made.append(("receipt", inps, dumps(receipt)))
    made.append(("receipt", inps, dumps(receipt | {"opened": False, "rsn": "DECRYPTION_FAILED", "sj": more["sj"], "lcp": more["lcp"]})))
    base = {"typ": "evidence", "v": 1, "jti": v7(AT * 1000 + 2, "evidence"), "iss": "gateway"}
    tail = {**about, "from": "caritas", "to": "inps", "case": c["case"], "at": AT}
    peer, rcp, rsn = {"peer_s256": b64(seed("peer"))}, {"rcp_s256": b64(seed("rcp"))}, {"rsn": "TTL_EXPIRED"}
    for event, extra in [
        ("SubmissionAcceptance", peer), ("SubmissionRejection", rsn | peer), ("ContentConsignmentFailure", rsn),
        ("ContentHandover", rcp), ("ContentHandoverFailure", rsn | rcp), ("ContentHandoverFailure", rsn), ("AcceptanceRejectionExpiry", {}),
    ]:  # fmt: skip
        made.append(("evidence", gateway, dumps(base | {"evt": event} | tail | extra)))
    written = []
    for kind, signer, data in made:
        statement = signer.batch([data])[0]
        written.append({"kind": kind, "issuer": signer.name, "identity": sha256(data).hex(), "statement": statement})
    return written


def batch_vectors(signer):
    made = []
    for n in (1, 2, 5, 64):
        jsons = []
        for i in range(n):
            c = {"typ": "receipt", "v": 1, "jti": v7(AT * 1000 + i, f"batch {n} {i}"), "iss": signer.name, "aud": "inps",
                 "mid": v7(AT * 1000 - i, f"message {n} {i}"), "org_s256": b64(seed(f"org {i}")), "ct_s256": b64(seed(f"ct {i}")),
                 "ptc": b64(seed(f"ptc {i}")), "at": AT + i, "opened": True}  # fmt: skip
            jsons.append(dumps(c))
        statements = signer.batch(jsons)
        # The signature stands once; those who read join it to each statement.
        made.append({"n": n, "jws": statements[0]["jws"], "statements": [{k: v for k, v in s.items() if k != "jws"} for s in statements]})
    return made


def refused_batches(signer):
    """Batches with a good signature over something that is not allowed to be signed."""
    data = b'{"typ":"receipt","v":1}'
    good = {"alg": "ES256", "typ": "tramite-batch+jwt", "x5t#S256": b64(sha256(signer.der))}
    body = {"v": 1, "iss": signer.name, "iat": AT, "n": 1, "root": b64(leaf(data))}
    h, p = json.dumps(good), json.dumps(body)
    own_key = jwk.JWK.from_pyca(signer.key).export_public(as_dict=True)
    cases = [
        ("header with kid", json.dumps(good | {"kid": "1"}), p, "BATCH_MALFORMED"),
        ("header with jwk", json.dumps(good | {"jwk": own_key}), p, "BATCH_MALFORMED"),
        ("header with jku", json.dumps(good | {"jku": "https://example.org"}), p, "BATCH_MALFORMED"),
        ("header with x5u", json.dumps(good | {"x5u": "https://example.org"}), p, "BATCH_MALFORMED"),
        ("header with x5c", json.dumps(good | {"x5c": [base64.b64encode(signer.der).decode()]}), p, "BATCH_MALFORMED"),
        ("another typ", json.dumps(good | {"typ": "JWT"}), p, "BATCH_MALFORMED"),
        ("no typ", json.dumps({k: v for k, v in good.items() if k != "typ"}), p, "BATCH_MALFORMED"),
        ("no x5t#S256", json.dumps({k: v for k, v in good.items() if k != "x5t#S256"}), p, "BATCH_MALFORMED"),
        ("short x5t#S256", json.dumps(good | {"x5t#S256": b64(bytes(31))}), p, "BATCH_MALFORMED"),
        ("padded x5t#S256", json.dumps(good | {"x5t#S256": good["x5t#S256"] + "="}), p, "BATCH_MALFORMED"),
        ("duplicate alg", h[:-1] + ',"alg":"ES256"}', p, "BATCH_MALFORMED"),
        ("another certificate", json.dumps(good | {"x5t#S256": b64(bytes(32))}), p, "SIGNER_UNKNOWN"),
        ("payload with an unknown name", h, json.dumps(body | {"x": 1}), "BATCH_MALFORMED"),
        ("payload with a duplicate name", h, p[:-1] + ',"n":1}', "BATCH_MALFORMED"),
        ("payload without iat", h, json.dumps({k: v for k, v in body.items() if k != "iat"}), "BATCH_MALFORMED"),
        ("payload with null", h, json.dumps(body | {"iat": None}), "BATCH_MALFORMED"),
        ("payload that is a list", h, json.dumps(list(body.values())), "BATCH_MALFORMED"),
        ("payload with bytes behind it", h, p + " {}", "BATCH_MALFORMED"),
        ("payload with a fraction", h, json.dumps(body | {"iat": 1.5}), "BATCH_MALFORMED"),
        ("issuer that is no name", h, json.dumps(body | {"iss": "Caritas"}), "BATCH_MALFORMED"),
        ("root of 31 bytes", h, json.dumps(body | {"root": b64(bytes(31))}), "BATCH_MALFORMED"),
        ("v of 2", h, json.dumps(body | {"v": 2}), "BATCH_BOUNDS"),
        ("n of 0", h, json.dumps(body | {"n": 0}), "BATCH_BOUNDS"),
        ("n of 65", h, json.dumps(body | {"n": 65}), "BATCH_BOUNDS"),
    ]
    made = [{"why": why, "jws": signer.jws(header, payload), "reason": reason} for why, header, payload, reason in cases]
    # A secret-key algorithm, with the public key for the secret: the oldest trick with JWS.
    point = signer.key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    token = jws.JWS(p)
    token.add_signature(jwk.JWK(kty="oct", k=b64(point)), None, json.dumps(good | {"alg": "HS256"}), None)
    made.append({"why": "HS256 under the public key", "jws": token.serialize(compact=True), "reason": "BATCH_MALFORMED"})
    none = b64(json.dumps(good | {"alg": "none"}).encode()) + "." + b64(p.encode()) + "."
    made.append({"why": "no signature", "jws": none, "reason": "BATCH_MALFORMED"})
    for alg in ("none", "ES384", "HS256", "es256"):
        lie = signer.jws_of_any_header(json.dumps(good | {"alg": alg}), p)
        made.append({"why": f"alg {alg} over a good ES256 signature", "jws": lie, "reason": "BATCH_MALFORMED"})
    crit = signer.jws_of_any_header(json.dumps(good | {"crit": ["exp"], "exp": AT}), p)
    made.append({"why": "header with crit", "jws": crit, "reason": "BATCH_MALFORMED"})
    other = Signer("impostor")
    made.append({"why": "another's signature", "jws": other.jws(h, p), "reason": "SIGNATURE_INVALID"})
    return made


def part_vectors():
    key, jti, made = seed("content key"), v7(AT * 1000, "parts"), []
    for part, length in enumerate((0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 4321)):
        sealed = seal_part(key, jti, part, pattern(length))
        vector = {"part": part, "length": length, "plain_sha256": sha256(pattern(length)).hex(), "sealed_length": len(sealed),
                  "sealed_sha256": sha256(sealed).hex()}  # fmt: skip
        made.append(vector | ({"sealed": sealed.hex()} if length <= 1000 else {}))
    return {"test_content_key": key.hex(), "jti": jti, "parts": made}


def merkle_vectors():
    made = []
    for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64):
        leaves = [leaf(f"leaf {i}".encode()) for i in range(n)]
        places = sorted({0, 1, n // 2, n - 2, n - 1} & set(range(n)))
        paths = {str(i): [h.hex() for h in path(leaves, i)] for i in places}
        made.append({"n": n, "root": root(leaves).hex(), "paths": paths})
    return {"leaf_data": "leaf <index>", "trees": made}


def frame_vectors(signers):
    """Frames as a sender, the gateway's answer and the gateway's delivery would be: statements of several batches, each once."""
    recipient, salt = Recipient(X25519, seed(f"encryption inps {X25519}")), seed("salt frame")
    contexts, origins, contents = [], [], []
    for i in range(5):
        c, body = context(f"frame {i}"), pattern(10 * i)
        sealed = recipient.seal(plaintext(salt, body), aad(c))
        contexts.append(c)
        contents.append({"enc": sealed[0], "ciphertext": sealed[1]})
        origins.append(dumps(origin(c, X25519, sealed, commitment(salt, body))))
    said = {i: {"mid": c["jti"], "org_s256": b64(sha256(data))} for i, (c, data) in enumerate(zip(contexts, origins))}
    of = {"from": "caritas", "to": "inps", "at": AT, "peer_s256": b64(seed("peer"))}

    def evidence(i, event, **more):
        jti = v7(AT * 1000 + 2, f"frame evidence {event} {i}")
        head = {"typ": "evidence", "v": 1, "jti": jti, "iss": "gateway", "evt": event}
        return dumps(head | said[i] | {"case": contexts[i]["case"]} | of | more)

    receipt = {"typ": "receipt", "v": 1, "jti": v7(AT * 1000 + 1, "frame receipt"), "iss": "inps", "aud": "caritas", **said[4],
               "ct_s256": b64(sha256(contents[4]["ciphertext"])), "ptc": b64(seed("ptc")), "at": AT + 1, "opened": True}  # fmt: skip
    # Two batches, whose messages stand mixed in the frame.
    first, second = signers["caritas"].batch(origins[:3]), signers["caritas"].batch(origins[3:])
    sent = [second[0], first[2], first[0], second[1], first[1]]
    which = [3, 2, 0, 4, 1]
    accepted = signers["gateway"].batch([evidence(i, "SubmissionAcceptance") for i in (3, 2)])
    rejected = signers["gateway"].batch([evidence(0, "SubmissionRejection", rsn="POLICY_DENIED")])
    handed = {"rcp_s256": b64(sha256(dumps(receipt)))}
    del of["peer_s256"]
    handover = signers["gateway"].batch([evidence(4, "ContentHandover", **handed)])
    received = signers["inps"].batch([dumps(receipt)])
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    def message(jws, place, **more):
        return {"origin": frames.put(jws, sent[place])} | contents[which[place]] | more

    made, submit, answer, receive = [], [], [], []
    submitted = [message(submit, 0, traceparent=trace)] + [message(submit, place) for place in range(1, 5)]
    made.append(("SubmitFrame", {"frame_id": 1 << 40, "jws": submit, "messages": submitted}))
    refusal = {"reason": "POLICY_DENIED", "detail": "Not agreed: è così.", "evidence": frames.put(answer, rejected[0])}
    later = {"reason": "RATE_LIMITED", "detail": "Slow down.", "retryable": True, "retry_after_ms": 1500}
    results = [{"accepted": frames.put(answer, one)} for one in accepted] + [{"refused": refusal}, {"refused": later}]
    made.append(("SubmitAnswer", {"frame_id": 1 << 40, "jws": answer, "results": results}))
    deliveries = [
        {"delivery_id": 300 + i, "message": message(receive, i), "acceptance": frames.put(receive, accepted[i]), "attempt": i + 1}
        for i in range(2)
    ]
    notice = {"delivery_id": 7, "message_id": contexts[4]["jti"], "receipt": frames.put(receive, received[0]),
              "evidence": frames.put(receive, handover[0]), "attempt": 1}  # fmt: skip
    settled = [{"delivery_id": 1}, {"delivery_id": 2, "refused": {"reason": "DELIVERY_UNKNOWN", "detail": "Not yours."}}]
    made.append(("ReceiveFrame", {"jws": receive, "deliveries": deliveries, "notices": [notice], "settled": settled}))
    return {
        "read": [frame_vector(kind, value) for kind, value in made],
        "refused": refused_frames(made[0][1]),
    }


def frame_vector(kind, value):
    statements = [{"issuer": json.loads(one["json"])["iss"], **one} for one in frames.unframe(value)]
    # In the order of the statements that are origins.
    contents = value.get("messages") or [one["message"] for one in value.get("deliveries", [])]
    contents = [{"enc": one["enc"].hex(), "ciphertext_sha256": sha256(one["ciphertext"]).hex()} for one in contents]
    shape = frames.FRAMES[kind]
    # Every reader of protobuf takes it for the same frame: its last fields first, and fields of a later version around them.
    later = frames.write_field(1000, str, "of a later version") + frames.write_field(1001, int, 1 << 63)
    other = later + frames.write(shape, value, sorted(shape, reverse=True)) + later
    return {
        "kind": kind, "frame": frames.write(shape, value).hex(), "same": other.hex(), "jws": value["jws"],
        "statements": statements, "contents": contents,
    }  # fmt: skip


def refused_frames(value):
    def pointing_at(place):
        message = value["messages"][1]
        message = message | {"origin": message["origin"] | {"jws_index": place}}
        return frames.write(frames.FRAMES["SubmitFrame"], value | {"messages": [message]}).hex()

    return [
        {"why": "the batch behind the last one", "frame": pointing_at(len(value["jws"])), "reason": "FRAME_INVALID"},
        {"why": "the greatest place", "frame": pointing_at((1 << 32) - 1), "reason": "FRAME_INVALID"},
        {"why": "another batch of the frame", "frame": pointing_at(0), "reason": "BATCH_BOUNDS"},
    ]


def write(name, content):
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (HERE / name).write_text(text + "\n")


def make(names):
    signers = {name: Signer(name) for name in ("caritas", "inps", "gateway")}
    filler = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), bytes(4096))
    written = signers | {"over_4_kib": Signer("over-4-kib", [filler])}
    caritas = signers["caritas"]
    files = {
        "signers.json": lambda: {
            name: {"certificate": s.der.hex(), "test_signing_key_pkcs8": s.pkcs8().hex()} for name, s in written.items()
        },
        "merkle.json": merkle_vectors,
        "batches.json": lambda: {"issuer": "caritas", "batches": batch_vectors(caritas), "refused": refused_batches(caritas)},
        "statements.json": lambda: statement_vectors(signers),
        "sealed.json": lambda: {"opened": sealed_vectors(), "refused": hostile_vectors()},
        "parts.json": part_vectors,
        "frames.json": lambda: frame_vectors(signers),
        "journal.json": journal.vectors,
    }
    for name in names or files:
        write(name, files[name]())


# -- What is checked --------------------------------------------------------------------------------------------------


def check_sealed(item):
    recipient = Recipient(item["suite"], bytes.fromhex(item["test_private_key"]))
    if recipient.public.hex() != item["public_key"]:
        raise ValueError("the public key is another")
    if aad(item["context"]).hex() != item["aad"]:
        raise ValueError("the aad is another")
    salt, body = unpad(recipient.open(bytes.fromhex(item["enc"]), unb64(item["ciphertext"]), aad(item["context"])))
    if body != pattern(item["body_length"]) or salt.hex() != item["salt"]:
        raise ValueError("another body or salt")
    if commitment(salt, body).hex() != item["ptc"]:
        raise ValueError("another commitment")


def check_part(item):
    sealed = unb64(item["sealed"])
    opened = open_part(bytes.fromhex(item["test_content_key"]), item["jti"], item["part"], sealed)
    if opened != pattern(item["length"]) or sha256(sealed).hex() != item["sealed_sha256"]:
        raise ValueError("another file or digest")


def check_frame(item, der, issuer):
    shape, data = frames.FRAMES[item["kind"]], bytes.fromhex(item["frame"])
    value = frames.read(shape, data)
    if frames.write(shape, value) != data:
        raise ValueError("written here, it is other bytes")
    if len(set(value["jws"])) != len(value["jws"]):
        raise ValueError("a batch stands in it twice")
    statements = frames.unframe(value)
    if not statements or statements != item["statements"]:
        raise ValueError("other statements")
    for statement in statements:
        verify_statement(statement, der, issuer)


def check(file):
    made, failed, count = json.loads(pathlib.Path(file).read_text()), 0, 0
    der = bytes.fromhex(made["certificate"])
    checks = [("statement", lambda item: verify_statement(item, der, made["issuer"]), made["statements"])]
    checks += [("sealed", check_sealed, made["sealed"]), ("part", check_part, made["parts"])]
    checks += [("frame", lambda item: check_frame(item, der, made["issuer"]), made["frames"])]
    for what, one, items in checks:
        for place, item in enumerate(items):
            count += 1
            try:
                one(item)
            except Exception as error:
                failed += 1
                print(f"{what} {place}: {type(error).__name__}: {error}")
    print(f"{count - failed} of {count} hold")
    return 1 if failed or not count else 0


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("files", metavar="FILE", nargs="*", help="vectors to write, by their names; none: all of them")
    arguments.add_argument("--check", metavar="FILE", help="verify what the Rust implementation made")
    given = arguments.parse_args()
    sys.exit(check(given.check) if given.check else make(given.files))
