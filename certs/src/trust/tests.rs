//! What trust in signing certificates promises: chain, purpose, name, validity and revocation, each at the time that counts.
use std::fs;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::*;
use crate::{
    authority::RevocationReason,
    files,
    testing::{DAY_S, Fields, NOW_S, Stage, name, stranger},
};

const INPS: &str = "spiffe://tramite.test/institution/inps";
const NOW_MS: i64 = NOW_S * 1000;

fn chain(fields: &Fields, issuer: &Issuer<'_, KeyPair>) -> Vec<Vec<u8>> {
    fields.signed_by(issuer).chain.iter().map(|der| der.to_vec()).collect()
}

fn verify(trust: &Trust, chain: &[Vec<u8>], at_ms: i64) -> Result<VerifyingKey, Refused> {
    trust.verify_signing(chain, Role::Institution, &name("inps"), at_ms)
}

/// Refused with CERTIFICATE_INVALID and these words.
fn refused(result: Result<VerifyingKey, Refused>, words: &str) {
    let refused = result.map(drop).unwrap_err();
    assert_eq!(refused.reason, Reason::CertificateInvalid);
    assert!(refused.detail.contains(words), "{}", refused.detail);
}

#[test]
fn a_signing_certificate_of_the_authority_counts_for_its_holder_alone() {
    let mut stage = Stage::new();
    let bundle = stage.bundle(Role::Institution, "inps");
    let chain: Vec<Vec<u8>> =
        files::certificates(&bundle.join("sign.pem")).unwrap().iter().map(|der| der.to_vec()).collect();
    let trust = stage.trust();
    let key = verify(&trust, &chain, NOW_MS).unwrap();
    assert_eq!(key.x5t(), Some(tramite_proto::ids::Digest::of(&chain[0])));
    refused(trust.verify_signing(&chain, Role::Institution, &name("comune"), NOW_MS), "not of institution/comune");
    refused(trust.verify_signing(&chain, Role::Gateway, &name("inps"), NOW_MS), "not of gateway/inps");
}

#[test]
fn what_is_not_a_signing_certificate_of_this_authority_is_refused() {
    let mut stage = Stage::new();
    let bundle = stage.bundle(Role::Institution, "inps");
    let tls: Vec<Vec<u8>> =
        files::certificates(&bundle.join("tls.pem")).unwrap().iter().map(|der| der.to_vec()).collect();
    let (trust, issuer) = (stage.trust(), stage.issuer());
    refused(verify(&trust, &tls, NOW_MS), "documentSigning");
    refused(verify(&trust, &chain(&Fields::signing(INPS), &stranger(&stage)), NOW_MS), "another authority");
    let both = [Fields::signing(INPS).usages, vec![ExtendedKeyUsagePurpose::ClientAuth]].concat();
    refused(verify(&trust, &chain(&Fields { usages: both, ..Fields::signing(INPS) }, &issuer), NOW_MS), "no TLS usage");
    let none = Fields { usages: vec![], ..Fields::signing(INPS) };
    refused(verify(&trust, &chain(&none, &issuer), NOW_MS), "documentSigning");
    refused(verify(&trust, &[], NOW_MS), "empty");
    let good = chain(&Fields::signing(INPS), &issuer).remove(0);
    refused(verify(&trust, &vec![good.clone(); 5], NOW_MS), "more than 4");
    refused(verify(&trust, &[good[..good.len() - 1].to_vec()], NOW_MS), "cannot be read");
    let mut changed = good;
    let last = changed.len() - 1;
    changed[last] ^= 1;
    refused(verify(&trust, &[changed], NOW_MS), "signing certificate of institution/inps");
}

#[test]
fn a_certificate_counts_between_its_beginning_and_its_end() {
    let stage = Stage::new();
    let (trust, fields) = (stage.trust(), Fields::signing(INPS));
    let chain = chain(&fields, &stage.issuer());
    for at_s in [fields.from_s, NOW_S, fields.to_s] {
        verify(&trust, &chain, at_s * 1000).unwrap();
    }
    refused(verify(&trust, &chain, (fields.from_s - 1) * 1000), "not valid yet");
    refused(verify(&trust, &chain, (fields.to_s + 1) * 1000), "past its end");
}

#[test]
fn a_revoked_certificate_counts_before_its_revocation_unless_its_key_was_compromised() {
    let mut stage = Stage::new();
    let trust = stage.trust();
    for (who, reason, before_counts) in
        [("inps", RevocationReason::Superseded, true), ("comune", RevocationReason::KeyCompromise, false)]
    {
        let bundle = stage.bundle(Role::Institution, who);
        let chain: Vec<Vec<u8>> =
            files::certificates(&bundle.join("sign.pem")).unwrap().iter().map(|der| der.to_vec()).collect();
        let at = |at_s: i64| trust.verify_signing(&chain, Role::Institution, &name(who), at_s * 1000);
        stage.clock.set((NOW_S + 3600) * 1000);
        at(NOW_S + 3600).unwrap();
        stage.authority.revoke_file(&bundle.join("sign.pem"), reason).unwrap();
        trust.reload().unwrap();
        refused(at(NOW_S + 3600), "revoked");
        assert_eq!(at(NOW_S).is_ok(), before_counts, "{who}");
        stage.clock.set(NOW_MS);
    }
}

#[test]
fn with_a_list_past_its_end_nothing_new_is_trusted() {
    let mut stage = Stage::new();
    let (trust, fields) = (stage.trust(), Fields { to_s: NOW_S + 30 * DAY_S, ..Fields::signing(INPS) });
    let chain = chain(&fields, &stage.issuer());
    stage.clock.advance(7 * DAY_S * 1000);
    refused(verify(&trust, &chain, NOW_MS), "revocation list");
    trust.reload().unwrap_err();
    stage.authority.crl(7).unwrap();
    trust.reload().unwrap();
    verify(&trust, &chain, NOW_MS + 7 * DAY_S * 1000).unwrap();
}

#[test]
fn lists_that_are_forged_older_or_unreadable_are_not_taken() {
    let mut stage = Stage::new();
    let (trust, path) = (stage.trust(), stage.authority.crl_path());
    let older = fs::read(&path).unwrap();
    let bundle = stage.bundle(Role::Institution, "inps");
    stage.authority.revoke_file(&bundle.join("sign.pem"), RevocationReason::KeyCompromise).unwrap();
    let newer = fs::read(&path).unwrap();
    trust.reload().unwrap();
    fs::write(&path, &older).unwrap();
    assert!(matches!(trust.reload(), Err(AnchorError::CrlRolledBack { offered: 1, known: 2, .. })));
    let other = Stage::new();
    fs::write(&path, fs::read(other.authority.crl_path()).unwrap()).unwrap();
    assert!(matches!(trust.reload(), Err(AnchorError::CrlForeign { .. })));
    fs::write(&path, &newer[..newer.len() / 2]).unwrap();
    assert!(matches!(trust.reload(), Err(AnchorError::File(_))));
    let chain: Vec<Vec<u8>> =
        files::certificates(&bundle.join("sign.pem")).unwrap().iter().map(|der| der.to_vec()).collect();
    refused(verify(&trust, &chain, NOW_MS), "revoked");
}

#[test]
fn a_leaf_is_no_root() {
    let mut stage = Stage::new();
    let bundle = stage.bundle(Role::Institution, "inps");
    let files = TrustFiles { roots: bundle.join("sign.pem"), crl: None };
    let loaded = Trust::load(files, crate::testing::domain(), Arc::new(stage.clock.clone()));
    assert!(matches!(loaded, Err(AnchorError::NotARoot { .. })));
}

#[test]
fn a_chain_over_an_intermediate_counts_as_long_as_all_of_it_does() {
    let stage = Stage::new();
    let (trust, root) = (stage.trust(), stage.issuer());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = time::OffsetDateTime::from_unix_timestamp(NOW_S - 10).unwrap();
    params.not_after = time::OffsetDateTime::from_unix_timestamp(NOW_S + 10).unwrap();
    let key = KeyPair::generate().unwrap();
    let intermediate = params.signed_by(&key, &root).unwrap().der().to_vec();
    let issuer = Issuer::new(params, key);
    let leaf = chain(&Fields::signing(INPS), &issuer).remove(0);
    let whole = [leaf.clone(), intermediate];
    verify(&trust, &whole, NOW_MS).unwrap();
    refused(verify(&trust, &[leaf], NOW_MS), "another authority");
    let judged = trust.judge(&whole, Role::Institution, Some(&name("inps")), NOW_MS).unwrap();
    assert_eq!((judged.not_before_s, judged.not_after_s), (NOW_S - 10, NOW_S + 10));
    judged.check_at((NOW_S + 11) * 1000).unwrap_err();
}
