"""FORMATS.md §1 to §4 in another language and on other libraries: signatures by jwcrypto, X25519 sealing by pyhpke, X-Wing
sealing and AES-GCM by pyca/cryptography, hashes by hashlib. Frames (§5) stand in frames.py.

It shares no code with the Rust side and is written from FORMATS.md alone. Does no I/O. Raises where a verifier refuses.
"""
import base64
import datetime
import hashlib
import json
import struct
import uuid

from cryptography import x509
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives import hashes, hpke, serialization
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, utils, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from jwcrypto import jwk, jws
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey

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
