//! The process: it ends when its store fails, and says what it cannot start with.

use std::{
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, atomic::Ordering},
};

use tokio_util::sync::CancellationToken;
use tramite_certs::{
    keyring::Keyring,
    trust::{Trust, TrustFiles},
};
use tramite_proto::{
    pb::{
        directory::v1::{ListInstitutionsRequest, directory_client::DirectoryClient},
        exchange::v1::SubmitOneRequest,
    },
    reason::Reason,
};
use tramite_store::disk::SimulatedDisk;

use crate::{Ended, Gateway, StartError, Surroundings};

use super::{adapter::two, world::World};

#[tokio::test]
async fn a_store_that_cannot_write_accepts_nothing_and_ends_the_gateway_with_a_clear_message() {
    let disk = SimulatedDisk::new();
    let mut world = World::on(Arc::new(disk.clone())).await;
    let (caritas, inps) = two(&world).await;
    caritas.refer(&inps).await;
    disk.faults().sync_fails_from.store(1, Ordering::SeqCst);
    let refused = caritas.submit(&caritas.message(&caritas.draft("inps"), &inps)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::StoreFailed);
    let ended = world.ended().await;
    assert!(matches!(ended, Ended::Store(_)), "{ended:?}");
    assert!(ended.to_string().contains("start again once the disk is well"), "{ended}");
}

#[tokio::test]
async fn what_was_acknowledged_before_a_power_cut_is_delivered_after_it() {
    let disk = SimulatedDisk::new();
    let mut world = World::on(Arc::new(disk.clone())).await;
    let (caritas, inps) = two(&world).await;
    let draft = caritas.refer(&inps).await;
    world.stop().await;
    disk.cut_power(7);
    world.start().await;
    let inps = super::adapter::Adapter::of(&world, "inps");
    assert_eq!(inps.receive(8).await.delivery().await.origin.jti, draft.id);
}

#[tokio::test]
async fn evidence_verifies_by_the_chain_that_the_directory_gives_and_the_pinned_root() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let files = TrustFiles::from(&world.config.tls);
    let trust = Trust::load(files, world.config.trust_domain.clone(), Arc::new(world.clock.clone())).unwrap();
    let keyring = Keyring::new(trust);
    let now_ms = tramite_proto::clock::Clock::now_ms(&world.clock);
    let mut directory = DirectoryClient::new(caritas.channel.clone());
    let list = directory.list_institutions(ListInstitutionsRequest {}).await.unwrap().into_inner();
    keyring.admit_gateway(&list.gateway_chain, now_ms).unwrap();
    let request = SubmitOneRequest { message: Some(caritas.message(&caritas.draft("inps"), &inps)) };
    let acceptance = caritas.exchange().submit_one(request).await.unwrap().into_inner().acceptance.unwrap();
    keyring.verify(&acceptance, now_ms, Some("gateway")).unwrap();
}

#[tokio::test]
async fn a_key_that_others_can_read_and_an_address_in_use_stop_the_start_with_the_reason() {
    let world = World::new().await;
    let start =
        |config| Gateway::start_in(config, Surroundings::real(Arc::new(world.clock.clone())), CancellationToken::new());
    let mut config = world.config.clone();
    config.listen = world.metrics.unwrap();
    assert!(matches!(start(config).await, Err(StartError::Listen { .. })));
    // Refused before the store is touched, so that none is left open.
    let mut config = world.config.clone();
    config.metrics.listen = world.metrics;
    config.data = world.config.data.join("other");
    assert!(matches!(start(config.clone()).await, Err(StartError::Listen { .. })));
    assert!(!config.data.exists());
    // The same directory is in use by the gateway that runs.
    assert!(matches!(start(world.config.clone()).await, Err(StartError::Store(_))));
    std::fs::set_permissions(&world.config.signing.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(start(world.config.clone()).await, Err(StartError::Signing(_))));
}
