"""A client in another language: submits a signed and sealed referral, receives its receipt.

Uses grpcio with reflection only, and libraries for JOSE and HPKE; no generated code and nothing of Tramite's own. Told where
the gateway is and where its institution's certificates are; everything else it finds out. Prints one JSON line for each step;
exit code 0 when the loop is closed.
"""

import argparse
import json
import os
import pathlib
import queue
import secrets
import sys
import time
import uuid

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import formats
from reflected import Reflected

EXCHANGE = "tramite.exchange.v1.Exchange"
DIRECTORY = "tramite.directory.v1.Directory"
# The recipient opens, stores and signs; far more than it takes on a slow machine.
PATIENCE_S = 60


def say(step, **facts):
    print(json.dumps({"step": step, **facts}), flush=True)


def uuid7(now_ms):
    """RFC 9562 section 5.7."""
    value = (now_ms << 80) | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62))


class Institution:
    """Who this client is: its certificates, and the gateway as it shows itself to them."""

    def __init__(self, options):
        folder = pathlib.Path(options.folder)
        read = lambda name: (folder / name).read_bytes()
        self.name, self.trust_domain = options.institution, options.trust_domain
        self.root = x509.load_pem_x509_certificates(read("root.pem"))[0]
        self.signer = formats.Signer(self.name, read("sign.pem"), read("sign.key"))
        credentials = grpc.ssl_channel_credentials(read("root.pem"), read("tls.key"), read("tls.pem"))
        named = [("grpc.ssl_target_name_override", options.server_name)] if options.server_name else []
        self.server = Reflected(grpc.secure_channel(options.gateway, credentials, options=named))

    def statement(self, value):
        now, data = int(time.time()), formats.dump(value)
        kind = "tramite.statement.v1.Statement"
        return self.server.message(kind, json=data, jws=self.signer.sign(data, now))

    def publish_key(self):
        """A key record of our own, so that others can verify what we sign."""
        now = int(time.time())
        public = X25519PrivateKey.generate().public_key()
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        record = {
            "typ": "key", "v": 1, "iss": self.name, "seq": now, "iat": now, "nbf": now - 60, "exp": now + 86400,
            "x5c": [formats.b64(formats.der(one)) for one in self.signer.chain], "alg": "ES256",
            "enc": {"kid": "foreign-1", "suite": formats.SUITE, "pub": formats.b64(raw)},
        }
        request = self.server.message("tramite.directory.v1.PublishKeyRequest", key=self.statement(record))
        answer = self.server.call(DIRECTORY, "PublishKey", request)
        say("published", new=answer.published)

    def recipient(self, name):
        """The recipient's newest key record and signing certificate, verified against the pinned root."""
        until = time.monotonic() + PATIENCE_S
        request = self.server.message("tramite.directory.v1.GetInstitutionRequest", name=name)
        while True:
            found = self.server.call(DIRECTORY, "GetInstitution", request).institution
            if found.keys or time.monotonic() > until:
                break
            time.sleep(0.2)  # The recipient's adapter publishes its key when it first connects.
        formats.check(found.keys, f"{name} has published no key")
        record, leaf = formats.key_record(found.keys[0], self.root, name, self.trust_domain, int(time.time()))
        say("recipient", name=name, seq=record["seq"], suite=record["enc"]["suite"])
        return record, leaf

    def gateway_certificate(self):
        request = self.server.message("tramite.directory.v1.ListInstitutionsRequest")
        answer = self.server.call(DIRECTORY, "ListInstitutions", request)
        chain = [x509.load_der_x509_certificate(one) for one in answer.gateway_chain]
        name = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value[0].value.rsplit("/", 1)[1]
        return formats.check_chain(chain, self.root, "gateway", name, self.trust_domain), name

    def referral(self, surname):
        body = self.server.message("tramite.body.v1.Body")
        body.referral.person.surname = surname
        body.referral.person.given_name = "Elvira"
        body.referral.person.homeless = True
        body.referral.benefits.append("ADI")
        body.referral.situation = "Sleeps at the station; never asked for anything."
        body.referral.mandate.kind = "CONSENT"
        return body.SerializeToString()

    def seal(self, to, record, body):
        """A sealed message to one recipient: (message, origin as JSON object, its bytes)."""
        formats.check(record["enc"]["suite"] == formats.SUITE, "a suite that this client does not have")
        now, salt, jti = int(time.time()), secrets.token_bytes(32), uuid7(time.time_ns() // 1_000_000)
        origin = {
            "typ": "origin", "v": 1, "jti": jti, "cid": str(uuid.uuid4()), "case": jti, "iss": self.name, "aud": to,
            "mt": "tramite.body.v1.Referral", "cs": "requested", "iat": now, "exp": now + 3600, "pri": "routine",
            "pur": "RIGHTS_SCREENING", "lb": "GDPR-6-1-E", "agr": "inps-per-tutti-2021", "op": "foreign-client",
            "loc": "desk-1", "loa": "substantial",
        }
        kid = record["enc"]["kid"]
        public = formats.unb64(record["enc"]["pub"])
        enc, ciphertext = formats.seal(public, body, salt, formats.aad(origin, kid))
        origin["ct"] = {
            "suite": record["enc"]["suite"], "kid": kid, "enc_s256": formats.b64(formats.sha256(enc)),
            "s256": formats.b64(formats.sha256(ciphertext)), "len": len(ciphertext),
        }
        origin["ptc"] = formats.b64(formats.commitment(body, salt))
        statement = self.statement(origin)
        kind = "tramite.exchange.v1.SubmitOneRequest"
        request = self.server.message(kind)
        request.message.origin.CopyFrom(statement)
        request.message.enc, request.message.ciphertext = enc, ciphertext
        return request, origin, statement.json

    def submit(self, request, origin_json, gateway):
        certificate, name = gateway
        first = self.server.call(EXCHANGE, "SubmitOne", request).acceptance
        evidence = formats.verify(first, certificate, name)
        formats.check(evidence["evt"] == "SubmissionAcceptance", evidence["evt"])
        formats.check(evidence["org_s256"] == formats.b64(formats.sha256(origin_json)), "accepts another message")
        again = self.server.call(EXCHANGE, "SubmitOne", request).acceptance
        formats.check(again.json == first.json, "a repeat got another acceptance")
        say("accepted", message=evidence["mid"], event=evidence["evt"])

    def receive(self, origin):
        """Waits for the notice about a message, acknowledges it, and gives back its framed receipt."""
        requests = queue.Queue()
        kind = "tramite.exchange.v1.ReceiveRequest"
        requests.put(self.server.message(kind, credit=16))
        stream = self.server.call(EXCHANGE, "Receive", iter(requests.get, None), timeout=PATIENCE_S)
        wanted, receipt = None, None
        for frame in stream:
            for notice in frame.notices:
                acknowledged = self.server.message(kind, credit=1)
                acknowledged.settlements.add(delivery_id=notice.delivery_id).notice.SetInParent()
                requests.put(acknowledged)
                if notice.message_id == origin["jti"] and notice.HasField("receipt"):
                    wanted, framed = notice.delivery_id, notice.receipt
                    receipt = self.server.message(
                        "tramite.statement.v1.Statement", json=framed.json, jws=frame.jws[framed.jws_index],
                        index=framed.index, path=list(framed.path))
            if any(answer.delivery_id == wanted and not answer.HasField("refused") for answer in frame.settled):
                requests.put(None)
                stream.cancel()
                return receipt
        raise formats.Refused("the stream ended without a receipt")


def check_receipt(receipt, leaf, to, origin, origin_json, ciphertext):
    """The recipient's own word, bound to exactly what was sent."""
    value = formats.verify(receipt, leaf, to)
    expected = {
        "typ": "receipt", "iss": to, "aud": origin["iss"], "mid": origin["jti"], "opened": True, "ptc": origin["ptc"],
        "org_s256": formats.b64(formats.sha256(origin_json)), "ct_s256": formats.b64(formats.sha256(ciphertext)),
    }
    for name, wanted in expected.items():
        formats.check(value.get(name) == wanted, f"{name} is {value.get(name)!r}, not {wanted!r}")
    say("receipt", message=value["mid"], opened=value["opened"], by=value["iss"])


def main():
    options = argparse.ArgumentParser(description=__doc__)
    for name in ("gateway", "folder", "institution", "trust-domain", "to"):
        options.add_argument(f"--{name}", required=True)
    options.add_argument("--server-name", default="", help="name in the gateway's certificate, when it is not its address")
    options.add_argument("--surname", default="Prova")
    options = options.parse_args()
    us = Institution(options)
    say("services", names=us.server.services())
    us.publish_key()
    record, leaf = us.recipient(options.to)
    request, origin, origin_json = us.seal(options.to, record, us.referral(options.surname))
    us.submit(request, origin_json, us.gateway_certificate())
    receipt = us.receive(origin)
    check_receipt(receipt, leaf, options.to, origin, origin_json, request.message.ciphertext)
    say("closed", message=origin["jti"])


if __name__ == "__main__":
    try:
        main()
    except formats.Refused as refused:
        say("refused", why=str(refused))
        sys.exit(1)
    except grpc.RpcError as failed:
        say("failed", code=str(failed.code()), why=failed.details())
        sys.exit(1)
