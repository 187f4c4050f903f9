//! What cannot be read is never taken for not there: it is said, and waits until it can be.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use tramite_certs::{
    keyring::Keyring,
    trust::{Trust, TrustFiles},
};
use tramite_proto::{
    clock::SystemClock,
    ids::{CaseId, ConversationId},
    pb::{
        directory::v1::{ListInstitutionsRequest, directory_client::DirectoryClient},
        exchange::v1::{RetryLater, settlement::Outcome},
        operations::v1::{DiscardRequest, GetOverviewRequest, HoldRequest, ListMessagesRequest, Message},
        statement::v1::Statement,
    },
    reason::Reason,
    statement::Event,
};
use tramite_store::{Notary, Options, Seams, Store, disk::SimulatedDisk, map::MemoryMaps};

use super::{
    adapter::{Adapter, Delivered, Draft, Inbox, random, refused, two},
    log::Log,
    parts::{header, put, sealed, three_put},
    world::World,
};
use crate::{StartError, directory, gateway::held, parts::Parts};

/// Rows of cases, of records and of how far the clock has come, without which no fact is written.
const CASES: u8 = b'c';
const RECORDS: u8 = b'n';
const CLOCK: u8 = b'y';

/// Signs nothing.
#[derive(Debug)]
struct NoPen;

impl Notary for NoPen {
    fn sign(&self, _: i64, _: &[Bytes]) -> Result<Vec<Statement>, String> {
        Ok(Vec::new())
    }
}

fn store(maps: &MemoryMaps) -> Store {
    let seams = Seams::real(Arc::new(SystemClock), Arc::new(NoPen));
    let seams = Seams { disk: Arc::new(SimulatedDisk::new()), maps: Arc::new(maps.clone()), ..seams };
    Options::new("store", "gateway").open(seams).unwrap().0
}

/// The journal's first segment.
fn first_segment(world: &World) -> PathBuf {
    world.config.data.join("journal/0000000000000001.seg")
}

/// So many large messages that what comes next stands in another segment.
async fn fill(caritas: &Adapter, inps: &Adapter) {
    for _ in 0..20 {
        let draft = Draft { body: vec![0x6d; 60_000].into(), ..caritas.draft("inps") };
        caritas.submit(&caritas.message(&draft, inps)).await.unwrap();
    }
}

fn known(world: &World) -> (Adapter, Adapter) {
    (Adapter::of(world, "caritas"), Adapter::of(world, "inps"))
}

#[tokio::test]
async fn a_gateway_that_cannot_read_who_is_held_does_not_start_and_holds_them_when_it_can() {
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let mut world = World::simulated(&disk, &maps).await;
    let (caritas, inps) = two(&world).await;
    let hold = HoldRequest { institution: "inps".to_owned(), reason: "maintenance".to_owned() };
    world.operations().hold(hold).await.unwrap();
    caritas.refer(&inps).await;
    world.stop().await;
    maps.spoil(RECORDS);
    let error = world.try_start().await.unwrap_err();
    assert!(matches!(error, StartError::Unreadable(_)), "{error:?}");
    assert!(error.to_string().contains("start again"), "{error}");
    maps.mend();
    world.start().await;
    assert!(Adapter::of(&world, "inps").receive(8).await.is_quiet().await, "it is held");
}

#[tokio::test]
async fn none_of_what_a_start_reads_is_taken_for_not_there() {
    let (world, maps) = (World::new().await, MemoryMaps::new());
    let files = TrustFiles::from(&world.config.tls);
    let trust = Trust::load(files, world.config.trust_domain.clone(), Arc::new(world.clock.clone())).unwrap();
    let (store, keyring) = (store(&maps), Keyring::new(trust));
    let all = || {
        [held(&store).map(drop), directory::refill(&store, &keyring), Parts::load(&store).map(drop)]
            .map(|read| read.is_ok())
    };
    assert_eq!(all(), [true; 3]);
    maps.spoil(RECORDS);
    assert_eq!(all(), [false; 3]);
}

/// A message of caritas that inps has opened, in a segment that is no more in memory: the notice of it waits.
async fn opened_before_a_restart(world: &mut World) -> Draft {
    let (caritas, inps) = two(world).await;
    let draft = caritas.refer(&inps).await;
    fill(&caritas, &inps).await;
    let mut recipient = inps.receive(1).await;
    let delivery = recipient.delivery().await;
    assert_eq!(delivery.origin.jti, draft.id);
    recipient.opened(&inps, &delivery).await;
    drop(recipient);
    world.restart().await;
    draft
}

#[tokio::test]
async fn a_notice_whose_message_cannot_be_read_is_put_off_and_comes_whole() {
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let mut world = World::simulated(&disk, &maps).await;
    let draft = opened_before_a_restart(&mut world).await;
    disk.spoil(&first_segment(&world));
    let (caritas, _) = known(&world);
    let mut sender = caritas.receive(8).await;
    world.until("retries_total", "STORE_FAILED", 1.0).await;
    assert!(sender.is_quiet().await, "a notice that says of no message");
    disk.mend();
    let notice = sender.notice().await;
    assert_eq!(notice.message_id, draft.id.to_string());
    assert_eq!(notice.evidence.unwrap().evt, Event::ContentHandover);
}

#[tokio::test]
async fn a_notice_that_a_full_disk_does_not_put_off_waits_all_the_same() {
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let mut world = World::simulated(&disk, &maps).await;
    let draft = opened_before_a_restart(&mut world).await;
    let log = Log::listen();
    disk.spoil(&first_segment(&world));
    disk.faults().full.store(1, Ordering::SeqCst);
    let (caritas, _) = known(&world);
    let mut sender = caritas.receive(8).await;
    log.line("an attempt failed").await;
    for _ in 0..20 {
        assert_eq!(world.metric("store_full", "").await, 1.0);
    }
    assert_eq!(log.count("an attempt failed"), 1);
    disk.faults().full.store(0, Ordering::SeqCst);
    disk.mend();
    world.clock.advance_s(30);
    assert_eq!(sender.notice().await.message_id, draft.id.to_string());
}

#[tokio::test]
async fn what_was_not_settled_in_time_is_offered_again_though_that_could_not_be_recorded() {
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let mut world = World::simulated(&disk, &maps).await;
    let (caritas, inps) = two(&world).await;
    let draft = caritas.refer(&inps).await;
    world.config.delivery.lease_s = 3;
    world.restart().await;
    let log = Log::listen();
    let mut recipient = Adapter::of(&world, "inps").receive(8).await;
    assert_eq!(recipient.delivery().await.origin.jti, draft.id);
    maps.spoil(CLOCK);
    log.line("a failed attempt was not recorded").await;
    maps.mend();
    let again = recipient.delivery().await;
    assert_eq!((again.origin.jti, again.attempt), (draft.id, 1));
}

async fn delivery_of(recipient: &mut Inbox, draft: &Draft) -> Delivered {
    loop {
        let delivery = recipient.delivery().await;
        if delivery.origin.jti == draft.id {
            return delivery;
        }
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_given_up_later_and_that_is_said() {
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let mut world = World::simulated(&disk, &maps).await;
    let (caritas, inps) = two(&world).await;
    let draft = caritas.refer(&inps).await;
    fill(&caritas, &inps).await;
    world.restart().await;
    let log = Log::listen();
    let mut recipient = Adapter::of(&world, "inps").receive(64).await;
    // Three attempts are granted.
    for attempt in 1..3 {
        let delivery = delivery_of(&mut recipient, &draft).await;
        assert_eq!(delivery.attempt, attempt);
        recipient.later(&delivery, 0).await;
    }
    let delivery = delivery_of(&mut recipient, &draft).await;
    // Then what was read last is others'.
    world.operations().list_messages(ListMessagesRequest::default()).await.unwrap();
    disk.spoil(&first_segment(&world));
    let later = || Outcome::Retry(RetryLater { reason: "INBOX_FULL".to_owned(), ..RetryLater::default() });
    let refused = recipient.settle(Vec::new(), delivery.id, later()).await.unwrap_err();
    assert!(refused.retryable(), "{refused:?}");
    log.line(&format!("so it is not given up yet: look at the disk sequence={}", delivery.id)).await;
    assert_eq!(world.metric("queue_dead_letters", "inps").await, 0.0);
    disk.mend();
    recipient.settle(Vec::new(), delivery.id, later()).await.unwrap();
    log.line("given up: a dead letter waits for an operator").await;
    assert_eq!(world.metric("queue_dead_letters", "inps").await, 1.0);
    let discard = DiscardRequest { message_id: draft.id.to_string(), reason: "for a test".to_owned() };
    world.operations().discard(discard).await.unwrap();
    assert_eq!(world.metric("queue_dead_letters", "inps").await, 0.0);
}

#[tokio::test]
async fn a_message_whose_content_is_damaged_is_set_aside_counted_and_shown_as_such() {
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let mut world = World::simulated(&disk, &maps).await;
    let (caritas, inps) = two(&world).await;
    let damaged = caritas.draft("inps");
    let message = caritas.message(&damaged, &inps);
    caritas.submit(&message).await.unwrap();
    let draft = caritas.refer(&inps).await;
    fill(&caritas, &inps).await;
    world.stop().await;
    damage(&disk, &first_segment(&world), &message.ciphertext);
    world.start().await;
    assert_eq!(world.metric("store_set_aside", "").await, 0.0);
    let log = Log::listen();
    let next = Adapter::of(&world, "inps").receive(1).await.delivery().await;
    assert_eq!(next.origin.jti, draft.id, "the one behind it");
    log.line("set aside: its record cannot be read").await;
    assert_eq!(world.metric("store_set_aside", "").await, 1.0);
    let listed = world.operations().list_messages(ListMessagesRequest::default()).await.unwrap().into_inner();
    let is_damaged = |message: &&Message| message.attempts.iter().any(|attempt| attempt.reason == "STORE_FAILED");
    let shown: Vec<_> = listed.messages.iter().filter(is_damaged).map(|message| message.message_id.clone()).collect();
    assert_eq!(shown, [damaged.id.to_string()]);
    assert!(matches!(&troubles(&world).await[..], [only] if only.contains("1 that waited")));
}

/// What the overview says of the store.
async fn troubles(world: &World) -> Vec<String> {
    world.operations().get_overview(GetOverviewRequest {}).await.unwrap().into_inner().store_troubles
}

/// Turns a bit of what stands in a file.
fn damage(disk: &SimulatedDisk, file: &Path, what: &[u8]) {
    let mut bytes = disk.bytes(file).unwrap();
    let at = bytes.windows(what.len()).position(|window| window == what).expect("it stands there");
    bytes[at] ^= 1;
    disk.overwrite(file, bytes);
}

#[tokio::test]
async fn what_a_full_disk_puts_off_takes_no_credit_and_is_no_dead_letter() {
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let world = World::simulated(&disk, &maps).await;
    let (caritas, inps) = two(&world).await;
    let drafts = [caritas.refer(&inps).await, caritas.refer(&inps).await];
    disk.faults().full.store(1, Ordering::SeqCst);
    let mut recipient = inps.receive(1).await;
    // As often as it would take for a dead letter: three attempts are granted.
    for _ in 0..5 {
        for draft in &drafts {
            let delivery = recipient.delivery().await;
            assert_eq!((delivery.origin.jti, delivery.attempt), (draft.id, 1), "put off, it makes room for the next");
            // For a wrong clock it would be offered again at once.
            let reason = if draft.id == drafts[0].id { "CLOCK_HELD" } else { "INBOX_FULL" };
            let later = RetryLater { reason: reason.to_owned(), ..RetryLater::default() };
            recipient.settle(Vec::new(), delivery.id, Outcome::Retry(later)).await.unwrap();
        }
        assert!(recipient.is_quiet().await);
        world.clock.advance_s(30);
    }
    assert_eq!(world.metric("queue_dead_letters", "inps").await, 0.0);
    for _ in &drafts {
        let delivery = recipient.delivery().await;
        recipient.opened(&inps, &delivery).await;
    }
}

#[tokio::test]
async fn a_full_disk_is_on_the_page_for_as_long_as_it_is_full() {
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let world = World::simulated(&disk, &maps).await;
    let (caritas, inps) = two(&world).await;
    caritas.refer(&inps).await;
    assert_eq!(world.metric("store_full", "").await, 0.0);
    disk.faults().full.store(1, Ordering::SeqCst);
    // What is set aside for receipts stays for them.
    let submit = async || {
        let draft = Draft { body: vec![0x6d; 60_000].into(), ..caritas.draft("inps") };
        caritas.submit(&caritas.message(&draft, &inps)).await
    };
    let refused = loop {
        if let Err(refused) = submit().await {
            break refused;
        }
    };
    assert_eq!(refused.reason, Reason::StoreFull);
    assert_eq!(world.metric("store_full", "").await, 1.0);
    assert!(matches!(&troubles(&world).await[..], [only] if only.contains("make room")));
    disk.faults().full.store(0, Ordering::SeqCst);
    submit().await.unwrap();
    assert_eq!(world.metric("store_full", "").await, 0.0);
    assert!(troubles(&world).await.is_empty());
}

/// A case that inps has brought to `accepted`, and its next move on its way to caritas.
async fn moved(world: &World) -> (Draft, Draft) {
    let (caritas, inps) = two(world).await;
    let case = Draft { conversation: Some(ConversationId::new(0, random())), ..caritas.draft("inps") };
    caritas.submit(&caritas.message(&case, &inps)).await.unwrap();
    let next = |status| Draft {
        case: Some(CaseId::from(case.id)),
        conversation: case.conversation,
        message_type: "tramite.body.v1.ReferralUpdate",
        status,
        lives_s: 3_600,
        ..inps.draft("caritas")
    };
    inps.submit(&inps.message(&next("accepted"), &caritas)).await.unwrap();
    let mut recipient = caritas.receive(8).await;
    let delivery = recipient.delivery().await;
    recipient.opened(&caritas, &delivery).await;
    let last = next("in_progress");
    inps.submit(&inps.message(&last, &caritas)).await.unwrap();
    (case, last)
}

/// The same move again, as another message.
async fn again(world: &World, last: &Draft) -> Result<(), Reason> {
    let (caritas, inps) = known(world);
    let again = Draft { id: inps.draft("caritas").id, ..last.clone() };
    inps.submit(&inps.message(&again, &caritas)).await.map(drop).map_err(|refused| refused.reason)
}

#[tokio::test]
async fn a_refusal_whose_case_cannot_be_read_is_not_settled_yet_and_then_takes_the_move_back() {
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let mut world = World::simulated(&disk, &maps).await;
    let (_, last) = moved(&world).await;
    world.restart().await;
    let (caritas, _) = known(&world);
    let mut recipient = caritas.receive(8).await;
    let delivery = recipient.delivery().await;
    let receipt = caritas.receipt(&delivery, false);
    maps.spoil(CASES);
    let refused = recipient.sign_for(&caritas, delivery.id, &receipt).await.unwrap_err();
    assert_eq!((refused.reason, refused.retryable()), (Reason::StoreFailed, true));
    maps.mend();
    recipient.sign_for(&caritas, delivery.id, &receipt).await.unwrap();
    assert_eq!(again(&world, &last).await, Ok(()), "the move was taken back");
}

#[tokio::test]
async fn a_message_whose_case_cannot_be_read_expires_later_and_then_takes_its_move_back() {
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let mut world = World::simulated(&disk, &maps).await;
    let (_, last) = moved(&world).await;
    world.restart().await;
    maps.spoil(CASES);
    world.clock.advance_s(3_601);
    world.until("retries_total", "STORE_FAILED", 1.0).await;
    assert_eq!(world.metric("expired_total", "").await, 0.0);
    maps.mend();
    world.until("expired_total", "", 1.0).await;
    assert_eq!(again(&world, &last).await, Ok(()), "the move was taken back");
}

#[tokio::test]
async fn a_referral_whose_case_cannot_be_read_expires_later_and_its_case_with_it() {
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let mut world = World::simulated(&disk, &maps).await;
    let (caritas, inps) = two(&world).await;
    let case = Draft { lives_s: 3_600, conversation: Some(ConversationId::new(0, random())), ..caritas.draft("inps") };
    caritas.submit(&caritas.message(&case, &inps)).await.unwrap();
    world.restart().await;
    maps.spoil(CASES);
    world.clock.advance_s(3_601);
    world.until("retries_total", "STORE_FAILED", 1.0).await;
    maps.mend();
    world.until("expired_total", "", 1.0).await;
    let late = Draft {
        case: Some(CaseId::from(case.id)),
        conversation: case.conversation,
        message_type: "tramite.body.v1.ReferralUpdate",
        status: "accepted",
        ..inps.draft("caritas")
    };
    let (caritas, inps) = known(&world);
    let refused = inps.submit(&inps.message(&late, &caritas)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::CaseTransitionInvalid, "the case is over");
}

#[tokio::test]
async fn a_case_whose_first_message_cannot_be_read_ends_later_and_with_evidence() {
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let mut world = World::simulated(&disk, &maps).await;
    let (caritas, inps) = two(&world).await;
    let case = Draft { deadline_s: Some(3_600), ..caritas.draft("inps") };
    caritas.submit(&caritas.message(&case, &inps)).await.unwrap();
    fill(&caritas, &inps).await;
    let (mut sender, mut recipient) = (caritas.receive(8).await, inps.receive(1).await);
    let delivery = recipient.delivery().await;
    recipient.opened(&inps, &delivery).await;
    let notice = sender.notice().await;
    sender.acknowledge(&notice).await;
    drop((sender, recipient));
    world.restart().await;
    disk.spoil(&first_segment(&world));
    world.clock.advance_s(3_601);
    world.until("retries_total", "STORE_FAILED", 1.0).await;
    assert_eq!(world.metric("cases_expired_total", "").await, 0.0);
    disk.mend();
    let (caritas, _) = known(&world);
    let notice = caritas.receive(8).await.notice().await;
    assert_eq!(notice.evidence.map(|evidence| evidence.evt), Some(Event::AcceptanceRejectionExpiry));
}

#[tokio::test]
async fn a_part_of_which_the_disk_does_not_say_is_neither_missing_nor_forgotten() {
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let world = World::simulated(&disk, &maps).await;
    let (caritas, inps) = two(&world).await;
    let bytes = sealed();
    let draft = three_put(&caritas, &bytes).await;
    let parts = world.config.data.join("parts");
    disk.paths().iter().filter(|path| path.starts_with(&parts)).for_each(|path| disk.spoil(path));
    let submitted = caritas.submit(&caritas.message(&draft, &inps)).await.unwrap_err();
    assert_eq!(submitted.reason, Reason::StoreFailed);
    // For want of room those that are gone are looked for.
    let next = caritas.draft("inps");
    let over = put(&caritas, header(&next, 0, &bytes), &bytes).await.unwrap_err();
    assert_eq!(over.reason, Reason::QuotaExceeded);
    let same = put(&caritas, header(&draft, 0, &bytes), &bytes).await.unwrap_err();
    assert_eq!(same.reason, Reason::StoreFailed);
    disk.mend();
    caritas.submit(&caritas.message(&draft, &inps)).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_cannot_be_read_shows_nobody_without_keys() {
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let mut world = World::simulated(&disk, &maps).await;
    two(&world).await;
    world.restart().await;
    let (caritas, _) = known(&world);
    let mut directory = DirectoryClient::new(caritas.channel.clone());
    maps.spoil(RECORDS);
    let status = directory.list_institutions(ListInstitutionsRequest {}).await.unwrap_err();
    assert_eq!(refused(status).reason, Reason::StoreFailed);
    maps.mend();
    let list = directory.list_institutions(ListInstitutionsRequest {}).await.unwrap().into_inner();
    assert!(list.institutions.iter().any(|institution| !institution.keys.is_empty()));
}
