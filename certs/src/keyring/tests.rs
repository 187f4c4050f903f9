//! What the keyring promises: only key records and statements that chain to the pinned root count, and never an older or weaker one.
use std::path::Path;

use bytes::Bytes;
use tampering::Changed;
use tramite_proto::{
    clock::Clock as _,
    jws::{EcdsaSigner, Signer as _},
    seal::{PrivateKey, Suite},
    statement::{Event, Evidence},
};

use super::*;
use crate::{
    authority::RevocationReason,
    secrets,
    testing::{DAY_S, Fields, NOW_S, Stage, domain, name, stranger},
};

const NOW_MS: i64 = NOW_S * 1000;
const MID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// Ways to change a statement without knowing its key.
mod tampering {
    use tramite_proto::pb::statement::v1::Statement;

    pub(super) enum Changed {
        Json,
        Signature,
        Path,
    }

    impl Changed {
        pub(super) fn of(&self, statement: &Statement) -> Statement {
            let mut changed = statement.clone();
            match self {
                Self::Json => {
                    let text = String::from_utf8(changed.json.to_vec()).unwrap();
                    changed.json = text.replace("\"at\":1", "\"at\":2").into();
                }
                Self::Signature => {
                    let at = changed.jws.rfind('.').unwrap() + 5;
                    let other = if changed.jws.as_bytes()[at] == b'A' { "B" } else { "A" };
                    changed.jws.replace_range(at..=at, other);
                }
                Self::Path => {
                    let mut element = changed.path[0].to_vec();
                    element[7] ^= 1;
                    changed.path[0] = element.into();
                }
            }
            assert_ne!(changed, *statement);
            changed
        }
    }
}

/// A member with its signing files.
struct Signing {
    signer: EcdsaSigner,
    chain: Vec<Bytes>,
    name: InstitutionName,
}

impl Signing {
    fn of(bundle: &Path, role: Role, text: &str) -> Self {
        let loaded =
            secrets::load_signing(&bundle.join("sign.pem"), &bundle.join("sign.key"), &domain(), role, text).unwrap();
        Self { signer: loaded.signer, chain: loaded.chain.into_iter().map(Bytes::from).collect(), name: name(text) }
    }

    fn issued(stage: &mut Stage, text: &str) -> Self {
        let bundle = stage.bundle(Role::Institution, text);
        Self::of(&bundle, Role::Institution, text)
    }

    /// With a certificate that our authority would not write.
    fn forged(fields: &Fields, issuer: &rcgen::Issuer<'_, rcgen::KeyPair>, text: &str) -> Self {
        let (certificate, key) = fields.signed_with_key(issuer);
        let signer = EcdsaSigner::from_pkcs8(text, &certificate, &key.serialize_der()).unwrap();
        Self { signer, chain: vec![certificate.to_vec().into()], name: name(text) }
    }

    fn record(&self, seq: u64, suite: Suite) -> KeyRecord {
        let kid = format!("k{seq}").parse().unwrap();
        KeyRecord {
            iss: self.name.clone(),
            seq,
            iat: NOW_S,
            nbf: NOW_S - 300,
            exp: NOW_S + 30 * DAY_S,
            x5c: self.chain.clone(),
            enc: PrivateKey::generate(suite).unwrap().public_key(kid),
        }
    }

    fn sign(&self, json: Bytes) -> Proof {
        batch::sign(&self.signer, NOW_S, &[json]).unwrap().remove(0)
    }

    fn key(&self, seq: u64) -> Proof {
        self.sign(self.record(seq, Suite::X25519).to_json())
    }

    fn evidence(&self, iss: &str) -> Bytes {
        let evidence = Evidence {
            jti: MID.parse().unwrap(),
            iss: name(iss),
            evt: Event::SubmissionAcceptance,
            mid: MID.parse().unwrap(),
            org_s256: Digest::of(b"o"),
            from: name("caritas"),
            to: name("inps"),
            case: MID.parse().unwrap(),
            at: NOW_S,
            rsn: None,
            rcp_s256: None,
            peer_s256: Some(Digest::of(b"p")),
        };
        evidence.to_json()
    }

    fn receipt(&self) -> Bytes {
        tramite_proto::statement::Receipt {
            jti: MID.parse().unwrap(),
            iss: self.name.clone(),
            aud: name("caritas"),
            mid: MID.parse().unwrap(),
            org_s256: Digest::of(b"o"),
            ct_s256: Digest::of(b"c"),
            ptc: Digest::of(b"p"),
            at: NOW_S,
            opened: true,
            rsn: None,
            sj: Vec::new(),
            lcp: None,
        }
        .to_json()
    }
}

fn reason<T: std::fmt::Debug>(result: Result<T, Refused>) -> Reason {
    result.unwrap_err().reason
}

const ANY: Option<&str> = None;

#[test]
fn what_a_member_signed_is_verified_by_its_record() {
    let mut stage = Stage::new();
    let (keyring, inps) = (Keyring::new(stage.trust()), Signing::issued(&mut stage, "inps"));
    let entry = keyring.admit(&inps.key(1), NOW_MS).unwrap();
    assert_eq!(keyring.signer("inps", &inps.signer.x5t()).unwrap().identity(), entry.identity());
    assert_eq!(keyring.recipient("inps", NOW_MS).unwrap(), entry.record().unwrap().enc);
    let jsons: Vec<Bytes> = (0..64).map(|_| inps.receipt()).collect();
    for statement in batch::sign(&inps.signer, NOW_S, &jsons).unwrap() {
        let verified = keyring.verify(&statement, NOW_MS, Some("inps")).unwrap();
        assert_eq!((verified.identity, verified.header.n), (identity(&statement.json), 64));
    }
    assert_eq!(reason(keyring.verify(&inps.sign(inps.receipt()), NOW_MS, Some("comune"))), Reason::IssuerMismatch);
}

#[test]
fn a_changed_byte_is_refused_with_its_own_reason() {
    let mut stage = Stage::new();
    let (keyring, inps) = (Keyring::new(stage.trust()), Signing::issued(&mut stage, "inps"));
    keyring.admit(&inps.key(1), NOW_MS).unwrap();
    let statement = batch::sign(&inps.signer, NOW_S, &[inps.receipt(), inps.receipt()]).unwrap().remove(0);
    // Once before anything is cached, once after.
    for _ in 0..2 {
        for (change, expected) in [
            (Changed::Json, Reason::InclusionInvalid),
            (Changed::Path, Reason::InclusionInvalid),
            (Changed::Signature, Reason::SignatureInvalid),
        ] {
            assert_eq!(reason(keyring.verify(&change.of(&statement), NOW_MS, ANY)), expected);
        }
        let wrong = [
            Proof { index: 2, ..statement.clone() },
            Proof { path: vec![], ..statement.clone() },
            Proof { path: vec![vec![0; 31].into()], ..statement.clone() },
        ];
        for wrong in wrong {
            assert_eq!(reason(keyring.verify(&wrong, NOW_MS, ANY)), Reason::BatchBounds);
        }
        assert_eq!(
            reason(keyring.verify(&Proof { jws: "a.b".into(), ..statement.clone() }, NOW_MS, ANY)),
            Reason::BatchMalformed
        );
        keyring.verify(&statement, NOW_MS, ANY).unwrap();
    }
}

#[test]
fn a_statement_by_another_members_key_is_refused() {
    let mut stage = Stage::new();
    let keyring = Keyring::new(stage.trust());
    let (inps, comune) = (Signing::issued(&mut stage, "inps"), Signing::issued(&mut stage, "comune"));
    keyring.admit(&inps.key(1), NOW_MS).unwrap();
    keyring.admit(&comune.key(1), NOW_MS).unwrap();
    // In its own name, over the other's statement.
    assert_eq!(reason(keyring.verify(&comune.sign(inps.receipt()), NOW_MS, ANY)), Reason::IssuerMismatch);
    // In the other's name.
    let pkcs8 = stage.directory.path().join("institution-comune");
    let key = secrets::load_tls_key(&pkcs8.join("sign.key")).unwrap();
    let liar = EcdsaSigner::from_pkcs8("inps", &comune.chain[0], key.secret_der()).unwrap();
    let statement = batch::sign(&liar, NOW_S, &[inps.receipt()]).unwrap().remove(0);
    assert_eq!(reason(keyring.verify(&statement, NOW_MS, ANY)), Reason::SignerUnknown);
    // A record in the other's name, signed with the own key and chain.
    let record = KeyRecord { x5c: comune.chain.clone(), ..inps.record(2, Suite::X25519) };
    let statement = batch::sign(&liar, NOW_S, &[record.to_json()]).unwrap().remove(0);
    assert_eq!(reason(keyring.admit(&statement, NOW_MS)), Reason::CertificateInvalid);
    assert_eq!(
        reason(keyring.admit(&comune.sign(inps.record(2, Suite::X25519).to_json()), NOW_MS)),
        Reason::IssuerMismatch
    );
}

#[test]
fn a_swapped_certificate_is_refused() {
    let mut stage = Stage::new();
    let (keyring, inps) = (Keyring::new(stage.trust()), Signing::issued(&mut stage, "inps"));
    let uri = "spiffe://tramite.test/institution/inps";
    // A record whose chain begins with another certificate of the same institution.
    let other = Signing::forged(&Fields::signing(uri), &stage.issuer(), "inps");
    let swapped = KeyRecord { x5c: other.chain.clone(), ..inps.record(1, Suite::X25519) };
    assert_eq!(reason(keyring.admit(&inps.sign(swapped.to_json()), NOW_MS)), Reason::KeyRecordInvalid);
    // One of an authority that only bears the same name.
    let foreign = Signing::forged(&Fields::signing(uri), &stranger(&stage), "inps");
    assert_eq!(reason(keyring.admit(&foreign.key(1), NOW_MS)), Reason::CertificateInvalid);
    // One that is for connections.
    let tls = Signing::forged(&Fields::client(uri), &stage.issuer(), "inps");
    assert_eq!(reason(keyring.admit(&tls.key(1), NOW_MS)), Reason::CertificateInvalid);
    // A record that was signed by nobody.
    let unsigned = Changed::Signature.of(&inps.key(1));
    assert_eq!(reason(keyring.admit(&unsigned, NOW_MS)), Reason::SignatureInvalid);
    assert!(keyring.newest("inps").is_none());
}

#[test]
fn a_record_that_was_rolled_back_is_refused_also_after_a_restart() {
    let mut stage = Stage::new();
    let inps = Signing::issued(&mut stage, "inps");
    let (first, second, third) = (inps.key(1), inps.key(2), inps.key(3));
    let keyring = Keyring::new(stage.trust());
    keyring.admit(&second, NOW_MS).unwrap();
    assert_eq!(reason(keyring.admit(&first, NOW_MS)), Reason::KeyRolledBack);
    // The same record again is no change; the same sequence with other bytes is.
    keyring.admit(&second, NOW_MS).unwrap();
    assert_eq!(reason(keyring.admit(&inps.key(2), NOW_MS)), Reason::KeyRolledBack);
    keyring.admit(&third, NOW_MS).unwrap();
    // An older one that was admitted then is known still, and does not come to the front.
    keyring.admit(&second, NOW_MS).unwrap();
    assert_eq!(keyring.newest("inps").unwrap().seq(), Some(3));
    // A new keyring has no memory but what it is given, however late.
    let restarted = Keyring::new(stage.trust());
    stage.clock.advance(6 * DAY_S * 1000);
    restarted.restore(&second).unwrap();
    assert_eq!(reason(restarted.admit(&first, stage.clock.now_ms())), Reason::KeyRolledBack);
}

#[test]
fn a_weaker_suite_is_refused() {
    let mut stage = Stage::new();
    let (keyring, inps) = (Keyring::new(stage.trust()), Signing::issued(&mut stage, "inps"));
    keyring.admit(&inps.sign(inps.record(1, Suite::X25519).to_json()), NOW_MS).unwrap();
    keyring.admit(&inps.sign(inps.record(2, Suite::XWing).to_json()), NOW_MS).unwrap();
    assert_eq!(
        reason(keyring.admit(&inps.sign(inps.record(3, Suite::X25519).to_json()), NOW_MS)),
        Reason::KeyWeakerSuite
    );
    assert_eq!(keyring.recipient("inps", NOW_MS).unwrap().suite(), Suite::XWing);
    // The sequence of what was refused is not taken.
    keyring.admit(&inps.sign(inps.record(3, Suite::XWing).to_json()), NOW_MS).unwrap();
}

#[test]
fn a_record_counts_only_within_its_time() {
    let mut stage = Stage::new();
    let (keyring, inps) = (Keyring::new(stage.trust()), Signing::issued(&mut stage, "inps"));
    let with = |change: fn(&mut KeyRecord)| {
        let mut record = inps.record(1, Suite::X25519);
        change(&mut record);
        inps.sign(record.to_json())
    };
    assert_eq!(reason(keyring.admit(&with(|r| r.exp = NOW_S), NOW_MS)), Reason::KeyExpired);
    assert_eq!(reason(keyring.admit(&with(|r| r.nbf = NOW_S + 1), NOW_MS)), Reason::KeyExpired);
    assert_eq!(reason(keyring.admit(&with(|r| r.iat = NOW_S + 301), NOW_MS)), Reason::IssuedInFuture);
    keyring.admit(&with(|r| r.exp = NOW_S + 1), NOW_MS).unwrap();
    assert!(keyring.recipient("inps", NOW_MS).is_some());
    assert!(keyring.recipient("inps", NOW_MS + 1000).is_none());
    assert_eq!(reason(keyring.recipient_at("inps", NOW_MS + 1000)), Reason::KeyExpired);
    assert_eq!(reason(keyring.recipient_at("comune", NOW_MS)), Reason::KeyUnknown);
}

#[test]
fn a_forged_gateway_is_refused() {
    let mut stage = Stage::new();
    let keyring = Keyring::new(stage.trust());
    let bundle = stage.bundle(Role::Gateway, "gateway");
    let gateway = Signing::of(&bundle, Role::Gateway, "gateway");
    // An institution that is called like the gateway, and honestly certified as such.
    let namesake = Signing::issued(&mut stage, "gateway");
    keyring.admit(&namesake.key(1), NOW_MS).unwrap();
    assert_eq!(
        reason(keyring.verify(&namesake.sign(namesake.evidence("gateway")), NOW_MS, Some("gateway"))),
        Reason::SignerUnknown
    );
    assert_eq!(reason(keyring.admit_gateway(&namesake.chain, NOW_MS)), Reason::CertificateInvalid);
    let uri = "spiffe://tramite.test/gateway/gateway";
    let foreign = Signing::forged(&Fields::signing(uri), &stranger(&stage), "gateway");
    assert_eq!(reason(keyring.admit_gateway(&foreign.chain, NOW_MS)), Reason::CertificateInvalid);
    keyring.admit_gateway(&gateway.chain, NOW_MS).unwrap();
    keyring.verify(&gateway.sign(gateway.evidence("gateway")), NOW_MS, Some("gateway")).unwrap();
    assert_eq!(reason(keyring.verify(&foreign.sign(gateway.evidence("gateway")), NOW_MS, ANY)), Reason::SignerUnknown);
    // Another gateway of the network is not the one that was asked for.
    let bundle = stage.bundle(Role::Gateway, "second");
    let second = Signing::of(&bundle, Role::Gateway, "second");
    keyring.admit_gateway(&second.chain, NOW_MS).unwrap();
    let statement = second.sign(second.evidence("second"));
    assert_eq!(reason(keyring.verify(&statement, NOW_MS, Some("gateway"))), Reason::IssuerMismatch);
    // The gateway's certificate is good for evidence alone: it cannot sign in an institution's name, be it called like one.
    let receipt = tramite_proto::statement::Receipt::parse(&namesake.receipt()).unwrap().to_json();
    assert_eq!(reason(keyring.verify(&gateway.sign(receipt), NOW_MS, ANY)), Reason::SignerUnknown);
}

#[test]
fn a_revocation_counts_from_the_next_reload_on_also_for_what_is_cached() {
    let mut stage = Stage::new();
    let (keyring, inps) = (Keyring::new(stage.trust()), Signing::issued(&mut stage, "inps"));
    keyring.admit(&inps.key(1), NOW_MS).unwrap();
    let statement = inps.sign(inps.receipt());
    keyring.verify(&statement, NOW_MS, ANY).unwrap();
    stage.clock.advance(60_000);
    let path = stage.directory.path().join("institution-inps/sign.pem");
    stage.authority.revoke_file(&path, RevocationReason::CessationOfOperation).unwrap();
    keyring.verify(&statement, NOW_MS + 60_000, ANY).unwrap();
    keyring.trust().reload().unwrap();
    // What was accepted before the revocation still counts; nothing from it on.
    keyring.verify(&statement, NOW_MS + 59_000, ANY).unwrap();
    assert_eq!(reason(keyring.verify(&statement, NOW_MS + 60_000, ANY)), Reason::CertificateInvalid);
    assert!(keyring.recipient("inps", NOW_MS + 60_000).is_none());
    assert_eq!(reason(keyring.admit(&inps.key(2), NOW_MS + 60_000)), Reason::CertificateInvalid);
}

#[test]
fn an_older_record_still_verifies_what_was_signed_under_it() {
    let mut stage = Stage::new();
    let keyring = Keyring::new(stage.trust());
    let old = Signing::issued(&mut stage, "inps");
    let new = Signing::forged(&Fields::signing("spiffe://tramite.test/institution/inps"), &stage.issuer(), "inps");
    keyring.admit(&old.key(1), NOW_MS).unwrap();
    keyring.admit(&new.key(2), NOW_MS).unwrap();
    keyring.verify(&old.sign(old.receipt()), NOW_MS, Some("inps")).unwrap();
    keyring.verify(&new.sign(old.receipt()), NOW_MS, Some("inps")).unwrap();
    let at = |kid: &str| keyring.encryption_key(&name("inps"), &kid.parse().unwrap(), NOW_MS);
    assert!(at("k1").is_some() && at("k2").is_some() && at("k3").is_none());
    // Outside the certificate's own time nothing counts.
    let before = (NOW_S - 2 * DAY_S) * 1000;
    assert_eq!(reason(keyring.verify(&new.sign(old.receipt()), before, ANY)), Reason::CertificateInvalid);
}
