//! Keys that change, and who may call the back office over TLS.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tramite_certs::{
    connect::{self, Expected},
    identity::Role,
    secrets,
    tls::{ClientTls, TlsFiles},
};
use tramite_proto::{
    pb::{
        backoffice::v1::{self as pb, back_office_client::BackOfficeClient},
        exchange::v1::settlement::Outcome,
    },
    seal::Suite,
    statement::{KeyRecord, Receipt},
};

use super::{
    delivery::{origin_of, pair},
    network::{Network, reason, referral, until},
    stand_in,
};
use crate::{Adapter, config};

#[tokio::test]
async fn a_new_key_is_published_and_an_older_record_never_believed_again() {
    let network = Network::new();
    let (mut gateway, mut caritas, inps) = pair(&network).await;
    caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent");
    let (before, _) = origin_of(&gateway.message(0).await);
    inps.stop().await;
    // A stronger suite: it becomes the active key by itself.
    let (kid, key) = secrets::generate_encryption_key(Suite::XWing).expect("a key");
    secrets::save_encryption_key(&network.path("inps"), &kid, &key).expect("saved");
    let inps = network.start("inps", gateway.port()).await;
    let records = until(async || {
        let records = gateway.state.keys.lock().expect("lock").get("inps").cloned().unwrap_or_default();
        (records.len() == 2).then_some(records)
    })
    .await;
    let seq = |n: usize| KeyRecord::parse(&records[n].json).expect("a record").seq;
    assert!(seq(1) > seq(0), "the sequence rises");
    caritas.stop().await;
    let mut caritas = network.start("caritas", gateway.port()).await;
    let sealed_to = async |office: &mut super::network::Office, n: usize| {
        office.send_referral(referral(&format!("r-n{n}"), "inps")).await.expect("sent");
        origin_of(&gateway.message(n).await).0.ct.kid
    };
    until(async || {
        let known =
            caritas.office.list_institutions(pb::ListInstitutionsRequest {}).await.expect("a list").into_inner();
        (known.institutions.len() == 1).then_some(())
    })
    .await;
    until(async || {
        let status = caritas.office.get_status(pb::GetStatusRequest {}).await.expect("a status").into_inner();
        status.connected.then_some(())
    })
    .await;
    assert_eq!(sealed_to(&mut caritas.office, 1).await, kid);
    caritas.stop().await;
    // The directory shows the old record only.
    gateway.state.keys.lock().expect("lock").insert("inps".into(), vec![records[0].clone()]);
    let mut caritas = network.start("caritas", gateway.port()).await;
    assert_eq!(sealed_to(&mut caritas.office, 2).await, kid, "what was seen once is not forgotten");
    // What was sealed to the old key still opens.
    let first = gateway.message(0).await;
    assert_ne!(before.ct.kid, kid);
    let acceptance = gateway.state.acceptance(&first);
    gateway.send("inps", stand_in::delivery(1, &first, Some(&acceptance))).await;
    let receipt = gateway.settlement("inps").await.0.expect("a receipt");
    assert!(Receipt::parse(&receipt.json).expect("a receipt").opened);
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn the_back_office_over_tls_is_for_the_institution_itself() {
    let network = Network::new();
    let mut config = network.config("caritas", 1);
    config.backoffice = Some(config::BackOffice {
        socket: None,
        listen: Some("127.0.0.1:0".parse().expect("an address")),
        tls: None,
        reflection: true,
    });
    let stop = CancellationToken::new();
    let running = Adapter::start(config, Arc::new(network.clock.clone()), stop.clone()).await.expect("starts");
    let address = running.address.expect("an address").to_string();
    let channel = |name: &str| {
        let files = TlsFiles::in_bundle(&network.path(name));
        let domain = "tramite.example".parse().expect("a domain");
        let tls = ClientTls::load(files, domain, Arc::new(network.clock.clone())).expect("tls");
        let expected = Expected { role: Role::Institution, name: "caritas".parse().expect("a name") };
        connect::channel(&address, tls, expected).expect("a channel")
    };
    let own = channel("caritas");
    let status = BackOfficeClient::new(own.clone()).get_status(pb::GetStatusRequest {}).await.expect("a status");
    assert_eq!(status.into_inner().institution, "caritas");
    let service = "tramite.backoffice.v1.BackOffice".to_owned();
    let health = HealthClient::new(own).check(HealthCheckRequest { service }).await.expect("a health");
    assert_eq!(health.into_inner().status, 1);
    let refused =
        BackOfficeClient::new(channel("inps")).get_status(pb::GetStatusRequest {}).await.expect_err("another member");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "NOT_AUTHORIZED"));
    stop.cancel();
    running.wait().await.expect("ends in order");
}

#[tokio::test]
async fn a_socket_that_others_could_open_is_not_served() {
    use std::os::unix::fs::PermissionsExt as _;
    let network = Network::new();
    let folder = network.path("caritas/run");
    std::fs::create_dir(&folder).expect("made");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("set");
    let start = async || {
        let clock = Arc::new(network.clock.clone());
        Adapter::start(network.config("caritas", 1), clock, CancellationToken::new()).await
    };
    let error = start().await.expect_err("others may enter the folder");
    let source = std::error::Error::source(&error).expect("a source").to_string();
    assert!(source.contains("chmod 700"), "{source}");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).expect("set");
    let caritas = network.start("caritas", 1).await;
    let mode = std::fs::metadata(folder.join("backoffice.sock")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    caritas.stop().await;
}

#[tokio::test]
async fn what_is_sealed_to_a_key_whose_file_is_away_is_put_off_until_it_is_back() {
    let network = Network::new();
    let (mut gateway, mut caritas, inps) = pair(&network).await;
    caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent");
    let message = gateway.message(0).await;
    let acceptance = gateway.state.acceptance(&message);
    inps.stop().await;
    let (origin, _) = origin_of(&message);
    let (kid, key) = secrets::generate_encryption_key(Suite::X25519).expect("a key");
    secrets::save_encryption_key(&network.path("inps"), &kid, &key).expect("saved");
    let file = network.path("inps").join(format!("enc-{}.key", origin.ct.kid));
    let away = file.with_extension("away");
    std::fs::rename(&file, &away).expect("moved away");
    let inps = network.start("inps", gateway.port()).await;
    gateway.send("inps", stand_in::delivery(1, &message, Some(&acceptance))).await;
    match gateway.settlement("inps").await.1 {
        Outcome::Retry(later) => assert_eq!(later.reason, "KEY_UNKNOWN"),
        outcome => panic!("not put off: {outcome:?}"),
    }
    inps.stop().await;
    std::fs::rename(&away, &file).expect("moved back");
    let inps = network.start("inps", gateway.port()).await;
    gateway.send("inps", stand_in::delivery(1, &message, Some(&acceptance))).await;
    let receipt = gateway.settlement("inps").await.0.expect("a receipt");
    assert!(Receipt::parse(&receipt.json).expect("a receipt").opened);
    caritas.stop().await;
    inps.stop().await;
}
