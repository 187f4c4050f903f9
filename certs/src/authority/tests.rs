//! What the authority promises: leaves with the right names and purposes, a ledger that survives, revocation, renewal.
use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _};

use rustls_pki_types::CertificateDer;

use super::*;
use crate::{
    identity::{Peer, Usage},
    testing::{DAY_S, NOW_S, Stage, domain, name},
};

fn tls(role: Role, text: &str) -> TlsRequest {
    TlsRequest { role, name: name(text), subject: Subject::default(), dns: vec![], addresses: vec![], days: TLS_DAYS }
}

fn leaf(pem: &str) -> CertificateDer<'static> {
    use rustls_pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn an_authority_is_made_once_and_opened_by_one_process_at_a_time() {
    let stage = Stage::new();
    let dir = stage.directory.path().to_owned();
    let clock: Arc<dyn Clock> = Arc::new(stage.clock.clone());
    assert!(matches!(Authority::init(&dir, domain(), Arc::clone(&clock)), Err(AuthorityError::Exists { .. })));
    assert!(matches!(Authority::open(&dir, Arc::clone(&clock)), Err(AuthorityError::InUse { .. })));
    drop(stage.authority);
    Authority::open(&dir, Arc::clone(&clock)).unwrap();
    assert!(matches!(Authority::open(&dir.join("elsewhere"), clock), Err(AuthorityError::None { .. })));
}

#[test]
fn private_files_are_private_from_the_beginning() {
    let mut stage = Stage::new();
    stage.bundle(Role::Institution, "inps");
    stage.bundle(Role::Gateway, "gateway");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut keys = 0;
    for folder in ["authority", "institution-inps", "gateway-gateway"] {
        let folder = stage.directory.path().join(folder);
        assert_eq!(mode(&folder), 0o700);
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let private = path.extension().is_some_and(|extension| extension == "key" || extension == "jsonl");
            // What is public is as readable as this account makes its files.
            let (mode, most) = (mode(&path), if private { 0o600 } else { 0o644 });
            assert_eq!((mode & 0o600, mode & !most), (0o600, 0), "{}", path.display());
            keys += usize::from(private);
        }
    }
    assert_eq!(keys, 8);
}

#[test]
fn a_root_key_that_others_may_read_is_refused() {
    let stage = Stage::new();
    let dir = stage.directory.path().to_owned();
    drop(stage.authority);
    fs::set_permissions(dir.join("authority/root.key"), fs::Permissions::from_mode(0o640)).unwrap();
    let error = Authority::open(&dir, Arc::new(stage.clock.clone())).unwrap_err();
    assert!(matches!(error, AuthorityError::Secret(SecretError::Mode { .. })));
}

#[test]
fn each_leaf_has_the_usages_of_its_kind_and_one_identity() {
    let mut stage = Stage::new();
    let read = |pem: &str, usage| Peer::from_certificate(&leaf(pem), &domain(), usage);
    for role in [Role::Institution, Role::Operator, Role::Auditor] {
        let issued = stage.authority.issue_tls(&tls(role, "x")).unwrap();
        assert_eq!(read(&issued.certificate_pem, Usage::Client).unwrap().role(), role);
        read(&issued.certificate_pem, Usage::Server).unwrap_err();
        read(&issued.certificate_pem, Usage::Signing).unwrap_err();
    }
    stage.authority.issue_tls(&tls(Role::Gateway, "gateway")).unwrap_err();
    let dialled = TlsRequest { dns: vec!["gateway.example".into()], ..tls(Role::Gateway, "gateway") };
    let issued = stage.authority.issue_tls(&dialled).unwrap();
    read(&issued.certificate_pem, Usage::Server).unwrap();
    read(&issued.certificate_pem, Usage::Client).unwrap_err();
    let office = TlsRequest { addresses: vec!["127.0.0.1".parse().unwrap()], ..tls(Role::Institution, "inps") };
    let issued = stage.authority.issue_tls(&office).unwrap();
    read(&issued.certificate_pem, Usage::Server).unwrap();
    read(&issued.certificate_pem, Usage::Client).unwrap();
    let request =
        SigningRequest { role: Role::Institution, name: name("inps"), subject: Subject::default(), days: 400 };
    let issued = stage.authority.issue_signing(&request).unwrap();
    assert_eq!(read(&issued.certificate_pem, Usage::Signing).unwrap().not_after_s(), NOW_S - 300 + 400 * DAY_S);
    read(&issued.certificate_pem, Usage::Client).unwrap_err();
    stage.authority.issue_signing(&SigningRequest { role: Role::Operator, ..request }).unwrap_err();
}

#[test]
fn a_subject_carries_the_organization_identifier() {
    let mut stage = Stage::new();
    let subject = Subject {
        display_name: Some("Ente Esempio".into()),
        organization_identifier: Some("VATIT-01234567890".into()),
    };
    let issued = stage.authority.issue_tls(&TlsRequest { subject, ..tls(Role::Institution, "esempio") }).unwrap();
    let der = leaf(&issued.certificate_pem);
    let certificate = identity::parse(&der).unwrap();
    let found: Vec<_> = certificate
        .subject()
        .iter_attributes()
        .map(|attribute| (attribute.attr_type().to_id_string(), attribute.as_str().unwrap().to_owned()))
        .collect();
    assert!(found.contains(&("2.5.4.97".into(), "VATIT-01234567890".into())), "{found:?}");
    assert!(found.contains(&("2.5.4.10".into(), "Ente Esempio".into())));
    let wrong = Subject { display_name: Some("x".repeat(65)), organization_identifier: None };
    stage.authority.issue_tls(&TlsRequest { subject: wrong, ..tls(Role::Institution, "esempio") }).unwrap_err();
}

#[test]
fn requests_out_of_bounds_are_refused_in_words() {
    let mut stage = Stage::new();
    for days in [0, TLS_DAYS_MAX + 1] {
        stage.authority.issue_tls(&TlsRequest { days, ..tls(Role::Institution, "inps") }).unwrap_err();
    }
    let signing =
        |days| SigningRequest { role: Role::Institution, name: name("inps"), subject: Subject::default(), days };
    stage.authority.issue_signing(&signing(SIGNING_DAYS + 1)).unwrap_err();
    stage.authority.crl(CRL_DAYS_MAX + 1).unwrap_err();
    let error =
        stage.authority.issue_tls(&TlsRequest { dns: vec!["not a name".into()], ..tls(Role::Gateway, "gateway") });
    assert!(error.unwrap_err().to_string().contains("not a name"));
    assert!("boredom".parse::<RevocationReason>().unwrap_err().to_string().contains("key-compromise"));
    let before = stage.authority.ledger().certificates().count();
    assert_eq!(before, 0);
}

#[test]
fn a_certificate_ends_no_later_than_the_root() {
    let mut stage = Stage::new();
    stage.clock.set((NOW_S + i64::from(ROOT_DAYS) * DAY_S - 10 * DAY_S) * 1000);
    let issued = stage.authority.issue_tls(&tls(Role::Institution, "inps")).unwrap();
    assert_eq!(issued.entry.not_after, stage.authority.root_ends_s);
    stage.clock.advance(11 * DAY_S * 1000);
    stage.authority.issue_tls(&tls(Role::Institution, "inps")).unwrap_err();
}

#[test]
fn a_revocation_needs_a_known_serial_and_happens_once() {
    let mut stage = Stage::new();
    let bundle = stage.bundle(Role::Institution, "inps");
    let revoked = stage.authority.revoke_file(&bundle.join("tls.pem"), RevocationReason::Superseded).unwrap();
    assert!(matches!(
        stage.authority.revoke(&revoked.serial, RevocationReason::KeyCompromise),
        Err(AuthorityError::AlreadyRevoked { .. })
    ));
    assert!(matches!(
        stage.authority.revoke("00ff", RevocationReason::Superseded),
        Err(AuthorityError::UnknownSerial(_))
    ));
    let Shown::Crl(crl) = show_file(&stage.authority.crl_path(), NOW_S).unwrap() else { panic!("a list") };
    assert_eq!((crl.revoked, crl.number.as_str(), crl.days_left), (1, "2", 7));
}

#[test]
fn the_ledger_survives_and_a_half_written_line_is_cut() {
    let mut stage = Stage::new();
    let bundle = stage.bundle(Role::Institution, "inps");
    stage.authority.revoke_file(&bundle.join("sign.pem"), RevocationReason::KeyCompromise).unwrap();
    let (before, dir) = (stage.authority.show().unwrap(), stage.directory.path().to_owned());
    drop(stage.authority);
    let path = dir.join("authority/issued.jsonl");
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"event\":\"issued\",\"serial\":\"4").unwrap();
    let clock: Arc<dyn Clock> = Arc::new(stage.clock.clone());
    let mut authority = Authority::open(&dir, Arc::clone(&clock)).unwrap();
    assert_eq!(authority.show().unwrap(), before);
    assert_eq!(authority.crl(1).unwrap().number, 3);
    drop(authority);
    file.write_all(b"nonsense\n").unwrap();
    assert!(matches!(Authority::open(&dir, clock), Err(AuthorityError::Ledger { .. })));
}

#[test]
fn renewing_makes_new_keys_for_the_same_holder_and_never_for_a_revoked_one() {
    let mut stage = Stage::new();
    let bundle = stage.bundle(Role::Gateway, "gateway");
    let read = |file: &str| fs::read(bundle.join(file)).unwrap();
    let before = ["tls.pem", "tls.key", "sign.pem", "sign.key", "log.key", "root.pem"].map(read);
    assert_eq!(renew(&mut stage.authority, &bundle, Renewal::All, Some(30)).unwrap().files.len(), 1);
    assert_eq!(read("tls.pem"), before[0]);
    stage.clock.advance(61 * DAY_S * 1000);
    renew(&mut stage.authority, &bundle, Renewal::All, Some(30)).unwrap();
    let after = ["tls.pem", "tls.key", "sign.pem", "sign.key", "log.key", "root.pem"].map(read);
    let same: Vec<bool> = before.iter().zip(&after).map(|(one, other)| one == other).collect();
    assert_eq!(same, [false, false, true, true, true, true]);
    let shown = show_file(&bundle.join("tls.pem"), NOW_S + 61 * DAY_S).unwrap();
    let Shown::Certificates(shown) = shown else { panic!("certificates") };
    assert_eq!(
        (shown[0].days_left, shown[0].name.as_str(), shown[0].dialled_as.clone()),
        (89, "gateway", vec!["127.0.0.1".to_owned()])
    );
    stage.authority.revoke_file(&bundle.join("tls.pem"), RevocationReason::CessationOfOperation).unwrap();
    let error = renew(&mut stage.authority, &bundle, Renewal::Tls, None).unwrap_err();
    assert!(error.to_string().contains("revoked"), "{error}");
}

#[test]
fn a_bundle_is_not_written_over_another() {
    let mut stage = Stage::new();
    let bundle = stage.bundle(Role::Institution, "inps");
    issue_bundle(&mut stage.authority, Role::Institution, &name("inps"), &bundle, &BundleOptions::default())
        .unwrap_err();
}

#[test]
fn show_tells_what_is_left_and_what_is_revoked() {
    let mut stage = Stage::new();
    let bundle = stage.bundle(Role::Institution, "inps");
    stage.authority.revoke_file(&bundle.join("tls.pem"), RevocationReason::KeyCompromise).unwrap();
    stage.clock.advance(100 * DAY_S * 1000);
    let shown = stage.authority.show().unwrap();
    let [signing, tls] = &shown.certificates[..] else { panic!("two certificates") };
    assert_eq!((signing.kind, signing.state, signing.days_left), (Some(Kind::Signing), State::Valid, 299));
    assert_eq!((tls.kind, tls.state, tls.days_left), (Some(Kind::Tls), State::Revoked, -11));
    assert_eq!(tls.revoked.as_ref().unwrap().reason, Some(RevocationReason::KeyCompromise));
    assert_eq!((shown.root.role, shown.root.state, shown.root.name.as_str()), (None, State::Valid, "tramite.test"));
    let json = serde_json::to_value(&shown).unwrap();
    assert_eq!(json["certificates"][1]["revoked"]["reason"], "key-compromise");
    assert_eq!(json["crl"]["days_left"], -93);
}
