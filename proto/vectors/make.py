#!/usr/bin/env python3
"""The second implementation of FORMATS.md §1 to §4, in another language and on other libraries.

make.py            writes the vectors beside this file, which the Rust tests read: signatures by jwcrypto, X25519 sealing by
                   pyhpke, X-Wing sealing and AES-GCM by pyca/cryptography, hashes by hashlib.
make.py --check F  reads what the Rust implementation made (a JSON file) and verifies and opens all of it; says each thing that
                   does not hold and ends with 1.

It shares no code with the Rust side and is written from FORMATS.md alone. Keys named test_* are made from fixed words for these
vectors and protect nothing. ECDSA and HPKE are randomised: running it again gives other vectors, as valid as these.
"""
import argparse
import base64
import datetime
import hashlib
import json
import pathlib
import struct
import sys
import uuid

from cryptography import x509
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives import hashes, hpke, serialization
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, utils, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from jwcrypto import jwk, jws
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey

HERE = pathlib.Path(__file__).resolve().parent
X25519, XWING = "X25519-SHA256-AES256GCM", "XWING-SHA256-AES256GCM"
INFO = b"tramite/v1 hpke-body"
CHUNK = 65536
AT = 1_795_400_000


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if b64(data) != text:
        raise ValueError("base64url that is not canonical")
    return data


def sha256(data):
    return hashlib.sha256(data).digest()


def seed(words):
    """A test key: the digest of some words."""
    return sha256(b"tramite test vector: " + words.encode())


def v7(ms, words):
    raw = bytearray(struct.pack(">Q", ms)[2:] + seed(words)[:10])
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(raw)))


# -- Merkle trees (§1) ------------------------------------------------------------------------------------------------


def leaf(data):
    return sha256(b"\x00" + data)


def split(n):
    """The largest power of two below n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def root(leaves):
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return sha256(b"\x01" + root(leaves[:k]) + root(leaves[k:]))


def path(leaves, index):
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if index < k:
        return path(leaves[:k], index) + [root(leaves[k:])]
    return path(leaves[k:], index - k) + [root(leaves[:k])]


def root_from_path(hashed, index, n, siblings):
    """From the top: which half the leaf is in says on which side the last sibling stands."""
    if n == 1:
        if siblings:
            raise ValueError("path too long")
        return hashed
    if not siblings:
        raise ValueError("path too short")
    k, top = split(n), siblings[-1]
    if index < k:
        return sha256(b"\x01" + root_from_path(hashed, index, k, siblings[:-1]) + top)
    return sha256(b"\x01" + top + root_from_path(hashed, index - k, n - k, siblings[:-1]))


# -- Signers and batches (§1) -----------------------------------------------------------------------------------------


class Signer:
    def __init__(self, name, more=()):
        self.name, self.more = name, more
        order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
        self.key = ec.derive_private_key(int.from_bytes(seed(f"signing {name}"), "big") % order, ec.SECP256R1())
        self.der = self.certificate()

    def certificate(self):
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{self.name} signing (test vector)")])
        start = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
        uri = x509.UniformResourceIdentifier(f"spiffe://vectors.example/institution/{self.name}")
        document_signing = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self.key.public_key())
            .serial_number(int.from_bytes(seed(f"serial {self.name}")[:8], "big") >> 1)
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=36500))
            .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([document_signing]), critical=False)
        )
        for extension in self.more:
            builder = builder.add_extension(extension, critical=False)
        signed = builder.sign(self.key, hashes.SHA256(), ecdsa_deterministic=True)
        return signed.public_bytes(serialization.Encoding.DER)

    def pkcs8(self):
        encoding, form = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(encoding, form, serialization.NoEncryption())

    def jws(self, protected, payload):
        token = jws.JWS(payload)
        token.add_signature(jwk.JWK.from_pyca(self.key), None, protected, None)
        return token.serialize(compact=True)

    def jws_of_any_header(self, protected, payload):
        """An ES256 signature over whatever the header says: jwcrypto would refuse to lie."""
        signed = f"{b64(protected.encode())}.{b64(payload.encode())}"
        r, s = utils.decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def batch(self, jsons, iat=AT):
        leaves = [leaf(item) for item in jsons]
        protected = {"alg": "ES256", "typ": "tramite-batch+jwt", "x5t#S256": b64(sha256(self.der))}
        payload = {"v": 1, "iss": self.name, "iat": iat, "n": len(jsons), "root": b64(root(leaves))}
        compact = {"separators": (",", ":")}
        signed = self.jws(json.dumps(protected, **compact), json.dumps(payload, **compact))
        return [
            {"json": item.decode(), "jws": signed, "index": i, "path": [h.hex() for h in path(leaves, i)]}
            for i, item in enumerate(jsons)
        ]


def verify_statement(statement, der, issuer):
    """All of §1 that does not need a chain."""
    key = x509.load_der_x509_certificate(der).public_key()
    token = jws.JWS()
    token.allowed_algs = ["ES256"]
    token.deserialize(statement["jws"], jwk.JWK.from_pyca(key))
    header, payload = json.loads(token.objects["protected"]), json.loads(token.payload)
    expected = {"alg": "ES256", "typ": "tramite-batch+jwt", "x5t#S256": b64(sha256(der))}
    if header != expected:
        raise ValueError(f"protected header {header}")
    if set(payload) != {"v", "iss", "iat", "n", "root"} or payload["v"] != 1 or payload["iss"] != issuer:
        raise ValueError(f"payload {payload}")
    siblings = [bytes.fromhex(h) for h in statement["path"]]
    data = statement["json"].encode()
    if b64(root_from_path(leaf(data), statement["index"], payload["n"], siblings)) != payload["root"]:
        raise ValueError("the path does not lead to the root")
    if json.loads(data)["iss"] != issuer:
        raise ValueError("the statement is of another issuer")


# -- Sealed bodies (§3) -----------------------------------------------------------------------------------------------


def lp(data):
    return struct.pack(">H", len(data)) + data


def aad(c):
    ids = b"".join(lp(uuid.UUID(c[name]).bytes) for name in ("jti", "cid", "case"))
    texts = b"".join(lp(c[name].encode()) for name in ("iss", "aud", "mt", "kid"))
    return lp(b"tramite-aad-v1") + ids + texts + lp(struct.pack(">Q", c["exp"]))


def commitment(salt, body):
    return sha256(b"tramite-ptc-v1" + b"\x00" + salt + body)


def plaintext(salt, body):
    data = salt + struct.pack(">I", len(body)) + body
    size = 512
    while size < len(data):
        size *= 2
    return data + bytes(size - len(data))


def unpad(data):
    salt, (length,) = data[:32], struct.unpack(">I", data[32:36])
    body = data[36 : 36 + length]
    if plaintext(salt, body) != data:
        raise ValueError("padding")
    return salt, body


class Recipient:
    def __init__(self, suite, private):
        self.suite, self.private = suite, private
        raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        if suite == X25519:
            self.key = x25519.X25519PrivateKey.from_private_bytes(self.private)
            self.public = self.key.public_key().public_bytes(*raw)
        else:
            # X-Wing's private key is a seed: SHAKE256 gives the seed of ML-KEM-768 (64) and the X25519 key (32).
            wide = hashlib.shake_256(self.private).digest(96)
            lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(wide[:64])
            curve = x25519.X25519PrivateKey.from_private_bytes(wide[64:])
            self.key = hpke.MLKEM768X25519PrivateKey(lattice, curve)
            self.public = lattice.public_key().public_bytes(*raw) + curve.public_key().public_bytes(*raw)

    def seal(self, data, bound):
        if self.suite == X25519:
            suite = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
            enc, sender = suite.create_sender_context(KEMKey.from_pyca_cryptography_key(self.key.public_key()), INFO)
            return enc, sender.seal(data, bound)
        joined = openssl.hpke._encrypt_with_aad(xwing(), data, self.key.public_key(), INFO, bound)
        return joined[:1120], joined[1120:]

    def open(self, enc, ciphertext, bound):
        if self.suite == X25519:
            suite = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
            recipient = suite.create_recipient_context(enc, KEMKey.from_pyca_cryptography_key(self.key), INFO)
            return recipient.open(ciphertext, bound)
        return openssl.hpke._decrypt_with_aad(xwing(), enc + ciphertext, self.key, INFO, bound)


def xwing():
    return hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


# -- Parts (§4) -------------------------------------------------------------------------------------------------------


def pattern(length):
    """A file of this length that both sides can make."""
    block = bytes((i * 7 + (i >> 8) * 13) % 251 for i in range(CHUNK))
    return (block * (length // CHUNK + 1))[:length]


def chunks(data):
    return [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)] or [b""]


def part_aad(jti, part, position, last):
    place = struct.pack(">IQB", part, position, 1 if last else 0)
    return lp(b"tramite-part-v1") + lp(uuid.UUID(jti).bytes) + place


def seal_part(key, jti, part, data):
    cut, aead = chunks(data), AESGCM(key)
    return b"".join(
        aead.encrypt(struct.pack(">IQ", part, i), chunk, part_aad(jti, part, i, i + 1 == len(cut)))
        for i, chunk in enumerate(cut)
    )


def open_part(key, jti, part, sealed):
    size, aead = CHUNK + 16, AESGCM(key)
    cut = [sealed[i : i + size] for i in range(0, len(sealed), size)]
    return b"".join(
        aead.decrypt(struct.pack(">IQ", part, i), chunk, part_aad(jti, part, i, i + 1 == len(cut)))
        for i, chunk in enumerate(cut)
    )


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


def write(name, content):
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (HERE / name).write_text(text + "\n")


def make():
    signers = {name: Signer(name) for name in ("caritas", "inps", "gateway")}
    filler = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), bytes(4096))
    written = signers | {"over_4_kib": Signer("over-4-kib", [filler])}
    write("signers.json", {
        name: {"certificate": s.der.hex(), "test_signing_key_pkcs8": s.pkcs8().hex()} for name, s in written.items()
    })  # fmt: skip
    write("merkle.json", merkle_vectors())
    write("batches.json", {"issuer": "caritas", "batches": batch_vectors(signers["caritas"]), "refused": refused_batches(signers["caritas"])})
    write("statements.json", statement_vectors(signers))
    write("sealed.json", {"opened": sealed_vectors(), "refused": hostile_vectors()})
    write("parts.json", part_vectors())


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


def check(file):
    made, failed, count = json.loads(pathlib.Path(file).read_text()), 0, 0
    der = bytes.fromhex(made["certificate"])
    checks = [("statement", lambda item: verify_statement(item, der, made["issuer"]), made["statements"])]
    checks += [("sealed", check_sealed, made["sealed"]), ("part", check_part, made["parts"])]
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
    arguments.add_argument("--check", metavar="FILE", help="verify what the Rust implementation made")
    given = arguments.parse_args()
    sys.exit(check(given.check) if given.check else make())
