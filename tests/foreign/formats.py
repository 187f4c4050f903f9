"""Statements, batches and sealing after proto/FORMATS.md: a second implementation, with libraries that others wrote.

Knows the formats. Does no I/O. Raises Refused where the document says that a verifier refuses.
"""

import base64
import hashlib
import json
import struct

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.x509.oid import ObjectIdentifier
from jwcrypto import jwk, jws
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey

SUITE = "X25519-SHA256-AES256GCM"
DOCUMENT_SIGNING = ObjectIdentifier("1.3.6.1.5.5.7.3.36")
INFO = b"tramite/v1 hpke-body"


class Refused(Exception):
    """A check of the document that did not hold."""


def check(holds, why):
    if not holds:
        raise Refused(why)


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sha256(data):
    return hashlib.sha256(data).digest()


def dump(value):
    return json.dumps(value, separators=(",", ":")).encode()


# Section 1: statement and batch.

def leaf_hash(data):
    return sha256(b"\x00" + data)


def root_from_path(leaf, index, count, path):
    """RFC 9162 section 2.1.3.2, for the last tree of `count` leaves."""
    place, last, node = index, count - 1, leaf
    for sibling in path:
        check(last > 0, "path too long")
        if place & 1 or place == last:
            node = sha256(b"\x01" + sibling + node)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            node = sha256(b"\x01" + node + sibling)
        place, last = place >> 1, last >> 1
    check(last == 0, "path too short")
    return node


class Signer:
    """A signing certificate and its key."""

    def __init__(self, issuer, chain_pem, key_pem):
        self.issuer = issuer
        self.chain = x509.load_pem_x509_certificates(chain_pem)
        self._key = jwk.JWK.from_pem(key_pem)

    def sign(self, statement, now):
        """A batch of one: the JWS over the only leaf."""
        protected = {"alg": "ES256", "typ": "tramite-batch+jwt", "x5t#S256": b64(sha256(der(self.chain[0])))}
        payload = {"v": 1, "iss": self.issuer, "iat": now, "n": 1, "root": b64(leaf_hash(statement))}
        token = jws.JWS(dump(payload))
        token.add_signature(self._key, None, dump(protected).decode(), None)
        return token.serialize(compact=True)


def verify(statement, certificate, issuer):
    """Checks a stand-alone statement against one certificate and gives back its JSON object."""
    token = jws.JWS()
    token.allowed_algs = ["ES256"]
    token.deserialize(statement.jws, jwk.JWK.from_pyca(certificate.public_key()))
    header, payload = json.loads(token.objects["protected"]), json.loads(token.payload)
    check(set(header) == {"alg", "typ", "x5t#S256"} and header["typ"] == "tramite-batch+jwt", "header")
    check(header["x5t#S256"] == b64(sha256(der(certificate))), "the batch names another certificate")
    check(set(payload) == {"v", "iss", "iat", "n", "root"} and payload["v"] == 1, "payload")
    check(1 <= payload["n"] <= 64 and statement.index < payload["n"], "bounds")
    root = root_from_path(leaf_hash(statement.json), statement.index, payload["n"], list(statement.path))
    check(b64(root) == payload["root"], "the path does not lead to the root")
    value = json.loads(statement.json)
    check(payload["iss"] == issuer == value["iss"], "issuer")
    return value


def der(certificate):
    return certificate.public_bytes(serialization.Encoding.DER)


def check_chain(chain, root, role, name, trust_domain):
    """A signing certificate chains to the pinned root, carries its holder's name and no TLS usage."""
    leaf = chain[0]
    for certificate, above in zip(chain, [*chain[1:], root]):
        if der(certificate) != der(root):
            certificate.verify_directly_issued_by(above)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    check(list(names) == [x509.UniformResourceIdentifier(f"spiffe://{trust_domain}/{role}/{name}")], f"SAN {list(names)}")
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    check(list(usage) == [DOCUMENT_SIGNING], f"usage {list(usage)}")
    return leaf


def key_record(statement, root, name, trust_domain, now):
    """Verifies a key record and gives back (record, signing certificate)."""
    claimed = json.loads(statement.json)
    chain = [x509.load_der_x509_certificate(unb64(one)) for one in claimed["x5c"]]
    leaf = check_chain(chain, root, "institution", name, trust_domain)
    record = verify(statement, leaf, name)
    check(record["typ"] == "key" and record["v"] == 1 and record["alg"] == "ES256", "kind")
    check(record["nbf"] <= now < record["exp"], "not valid now")
    return record, leaf


# Section 3: sealed body.

def lp(data):
    return struct.pack(">H", len(data)) + data


def aad(origin, kid):
    ids = [bytes.fromhex(origin[name].replace("-", "")) for name in ("jti", "cid", "case")]
    names = [origin["iss"].encode(), origin["aud"].encode(), origin["mt"].encode(), kid.encode()]
    return b"".join(map(lp, [b"tramite-aad-v1", *ids, *names, struct.pack(">Q", origin["exp"])]))


def pad(body, salt):
    plain = salt + struct.pack(">I", len(body)) + body
    size = 512
    while size < len(plain):
        size *= 2
    check(size <= 65536, "too long for one body")
    return plain.ljust(size, b"\x00")


def commitment(body, salt):
    return sha256(b"tramite-ptc-v1\x00" + salt + body)


def seal(public, body, salt, context):
    """HPKE, mode Base: (enc, ciphertext)."""
    suite = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
    key = KEMKey.from_pyca_cryptography_key(X25519PublicKey.from_public_bytes(public))
    enc, sender = suite.create_sender_context(key, info=INFO)
    return enc, sender.seal(pad(body, salt), aad=context)
