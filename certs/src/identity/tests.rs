//! What an identity promises: exactly one name, of our trust domain, with the purpose that its use asks for.
use rcgen::ExtendedKeyUsagePurpose;

use super::*;
use crate::testing::{Fields, Stage, domain};

const INPS: &str = "spiffe://tramite.test/institution/inps";

fn read(stage: &Stage, fields: &Fields, usage: Usage) -> Result<Peer, IdentityError> {
    let badge = fields.signed_by(&stage.issuer());
    Peer::from_certificate(&badge.chain[0], &domain(), usage)
}

#[test]
fn one_uri_tells_role_and_name() {
    let stage = Stage::new();
    let peer = read(&stage, &Fields::client(INPS), Usage::Client).unwrap();
    assert_eq!((peer.role(), peer.name().as_str()), (Role::Institution, "inps"));
    assert_eq!(peer.to_string(), "institution/inps");
    // Other kinds of names beside it do not count.
    let beside = Fields { dns: vec!["comune.example".into()], ..Fields::client(INPS) };
    assert_eq!(read(&stage, &beside, Usage::Client).unwrap().name().as_str(), "inps");
}

#[test]
fn what_is_not_exactly_one_uri_of_the_form_is_nobody() {
    let stage = Stage::new();
    let read = |uris: &[&str]| {
        let fields = Fields { uris: uris.iter().map(|uri| (*uri).to_owned()).collect(), ..Fields::client(INPS) };
        read(&stage, &fields, Usage::Client).unwrap_err()
    };
    // The common name says INPS; nobody asks it.
    assert_eq!(read(&[]), IdentityError::NoSan);
    assert_eq!(read(&[INPS, "spiffe://tramite.test/institution/comune"]), IdentityError::AmbiguousSan);
    assert_eq!(read(&[INPS, "https://example.org/"]), IdentityError::AmbiguousSan);
    for uri in [
        "spiffe://other.test/institution/inps",
        "spiffe://tramite.test.evil/institution/inps",
        "spiffe://tramite.test/institution/inps/more",
        "spiffe://tramite.test/institution/",
        "spiffe://tramite.test/institution/*",
        "spiffe://tramite.test/Institution/inps",
        "spiffe://tramite.test/root/inps",
        "spiffe://tramite.test/institution/INPS",
        "spiffe://tramite.test//institution/inps",
        "https://tramite.test/institution/inps",
        "SPIFFE://tramite.test/institution/inps",
    ] {
        assert!(matches!(read(&[uri]), IdentityError::ForeignSan { .. }), "{uri}");
    }
}

#[test]
fn a_usage_that_is_not_stated_is_not_granted() {
    let stage = Stage::new();
    let read =
        |usages: Vec<ExtendedKeyUsagePurpose>, usage| read(&stage, &Fields { usages, ..Fields::client(INPS) }, usage);
    let signing = || ExtendedKeyUsagePurpose::Other(DOCUMENT_SIGNING.to_vec());
    for usage in [Usage::Client, Usage::Server, Usage::Signing] {
        assert!(matches!(read(vec![], usage), Err(IdentityError::Purpose(_))));
        assert!(matches!(read(vec![ExtendedKeyUsagePurpose::Any], usage), Err(IdentityError::Purpose(_))));
        assert!(matches!(read(vec![ExtendedKeyUsagePurpose::CodeSigning], usage), Err(IdentityError::Purpose(_))));
    }
    read(vec![ExtendedKeyUsagePurpose::ServerAuth], Usage::Client).unwrap_err();
    read(vec![ExtendedKeyUsagePurpose::ClientAuth], Usage::Server).unwrap_err();
    read(vec![signing()], Usage::Signing).unwrap();
    for tls in [ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any]
    {
        read(vec![signing(), tls], Usage::Signing).unwrap_err();
    }
}

#[test]
fn bytes_that_are_no_certificate_are_nobody_and_break_nothing() {
    let stage = Stage::new();
    let good = Fields::client(INPS).signed_by(&stage.issuer()).chain[0].to_vec();
    for length in 0..good.len() {
        assert!(Peer::from_certificate(&good[..length], &domain(), Usage::Client).is_err());
    }
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(Peer::from_certificate(&longer, &domain(), Usage::Client), Err(IdentityError::Malformed));
    for place in 0..good.len() {
        let mut changed = good.clone();
        changed[place] ^= 0x55;
        let _ = Peer::from_certificate(&changed, &domain(), Usage::Client);
    }
}

#[test]
fn the_holder_of_an_own_certificate_is_read_in_any_network() {
    let stage = Stage::new();
    let fields = Fields::client("spiffe://other.example/operator/anna");
    let holder = holder_of(&fields.signed_by(&stage.issuer()).chain[0]).unwrap();
    assert_eq!(
        (holder.trust_domain.as_str(), holder.role, holder.name.as_str()),
        ("other.example", Role::Operator, "anna")
    );
    let twice = Fields { uris: vec![INPS.into(), INPS.into()], ..fields };
    assert_eq!(holder_of(&twice.signed_by(&stage.issuer()).chain[0]), Err(IdentityError::AmbiguousSan));
}
