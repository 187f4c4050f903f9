//! What the set-up of TLS promises: TLS 1.3 only, mutual, revocation enforced, bad new files leave the old ones in use.
use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use super::*;
use crate::{
    authority::{Renewal, RevocationReason, renew},
    identity::Role,
    testing::{DAY_S, NOW_S, Stage, domain},
};

#[test]
fn files_that_do_not_serve_are_refused_at_the_start_in_words() {
    let mut stage = Stage::new();
    let (gateway, inps) = (stage.bundle(Role::Gateway, "gateway"), stage.bundle(Role::Institution, "inps"));
    let load = |files: TlsFiles| ServerTls::load(files, domain(), Arc::new(stage.clock.clone()));
    let good = TlsFiles::in_bundle(&gateway);
    let status = load(good.clone()).unwrap().status();
    assert_eq!((status.crl_ends_s, status.generation, status.last_error), (Some(NOW_S + 7 * DAY_S), 0, None));
    // A client's certificate on the listening side, and one of statements.
    let client = TlsFiles { cert: inps.join("tls.pem"), key: inps.join("tls.key"), ..good.clone() };
    assert!(matches!(load(client), Err(TlsError::Identity { .. })));
    let signing = TlsFiles { cert: gateway.join("sign.pem"), key: gateway.join("sign.key"), ..good.clone() };
    assert!(matches!(load(signing), Err(TlsError::Identity { .. })));
    let pair = TlsFiles { key: gateway.join("sign.key"), ..good.clone() };
    assert!(matches!(load(pair), Err(TlsError::Pair { .. })));
    let elsewhere = ServerTls::load(good.clone(), "other.test".parse().unwrap(), Arc::new(stage.clock.clone()));
    assert!(matches!(elsewhere, Err(TlsError::Identity { .. })));
    let other = Stage::new();
    let foreign = TlsFiles { roots: other.directory.path().join("authority/root.pem"), crl: None, ..good.clone() };
    assert!(matches!(load(foreign), Err(TlsError::Own { .. })));
    stage.clock.advance(7 * DAY_S * 1000);
    assert!(matches!(load(good.clone()), Err(TlsError::Anchors(AnchorError::CrlExpired { .. }))));
    stage.clock.advance(90 * DAY_S * 1000);
    assert!(matches!(load(TlsFiles { crl: None, ..good.clone() }), Err(TlsError::Own { .. })));
    fs::set_permissions(gateway.join("tls.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = load(TlsFiles { crl: None, ..good }).unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn bad_new_files_keep_what_was_in_use_and_do_not_hold_up_the_rest() {
    let mut stage = Stage::new();
    let gateway = stage.bundle(Role::Gateway, "gateway");
    let tls = stage.server(&gateway);
    fs::write(gateway.join("tls.pem"), "half of a certif").unwrap();
    stage.authority.crl(9).unwrap();
    stage.authority.publish_crl(std::slice::from_ref(&gateway)).unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::File(_))));
    let status = tls.status();
    // The new list counts although the certificate does not.
    assert_eq!(status.crl_ends_s, Some(NOW_S + 9 * DAY_S));
    assert!(status.last_error.unwrap().contains("tls.pem"));
    assert_eq!(tls.own().name().as_str(), "gateway");
    // And the other way round.
    let mut other = Stage::new();
    let fresh = other.bundle(Role::Gateway, "gateway");
    fs::copy(fresh.join("crl.pem"), gateway.join("crl.pem")).unwrap();
    renew_files(&mut stage, &gateway);
    fs::copy(fresh.join("crl.pem"), gateway.join("crl.pem")).unwrap();
    let before = tls.own().fingerprint();
    assert!(matches!(tls.reload(), Err(TlsError::Anchors(AnchorError::CrlForeign { .. }))));
    assert_ne!(tls.own().fingerprint(), before);
    assert_eq!(tls.status().crl_ends_s, Some(NOW_S + 9 * DAY_S));
}

/// Renews although the certificate's file is damaged: from a copy that the authority's ledger knows.
fn renew_files(stage: &mut Stage, gateway: &Path) {
    let other = stage.directory.path().join("again");
    let options =
        crate::authority::BundleOptions { addresses: vec!["127.0.0.1".parse().unwrap()], ..Default::default() };
    crate::authority::issue_bundle(&mut stage.authority, Role::Gateway, &"gateway".parse().unwrap(), &other, &options)
        .unwrap();
    for file in ["tls.pem", "tls.key"] {
        fs::copy(other.join(file), gateway.join(file)).unwrap();
    }
}

#[test]
fn a_list_that_names_ourselves_is_taken_nevertheless() {
    let mut stage = Stage::new();
    let gateway = stage.bundle(Role::Gateway, "gateway");
    let tls = stage.server(&gateway);
    stage.authority.revoke_file(&gateway.join("tls.pem"), RevocationReason::KeyCompromise).unwrap();
    stage.authority.publish_crl(std::slice::from_ref(&gateway)).unwrap();
    tls.reload().unwrap();
    assert_eq!(tls.status().generation, 1);
}

#[tokio::test]
async fn changed_files_are_taken_up_without_being_told() {
    let mut stage = Stage::new();
    let gateway = stage.bundle(Role::Gateway, "gateway");
    let tls = stage.server(&gateway);
    let (before, stop, mut changes) = (tls.own().fingerprint(), CancellationToken::new(), tls.changes());
    let running = tokio::spawn(tls.clone().run(stop.clone()));
    renew(&mut stage.authority, &gateway, Renewal::Tls, None).unwrap();
    tokio::time::timeout(Duration::from_secs(30), changes.changed()).await.unwrap().unwrap();
    assert_ne!(tls.own().fingerprint(), before);
    stop.cancel();
    running.await.unwrap();
}

#[test]
fn the_hybrid_key_exchange_is_offered_first_and_no_old_suite_at_all() {
    let provider = provider();
    assert_eq!(provider.kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    assert!(provider.cipher_suites.iter().all(|suite| suite.tls13().is_some()));
    assert_eq!(provider.cipher_suites.len(), 3);
}
