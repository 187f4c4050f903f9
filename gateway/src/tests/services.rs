//! The other services: who may call what, what the directory says, what operators see.

use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tramite_certs::identity::Role;
use tramite_proto::{
    pb::{
        audit::v1::{GetCheckpointRequest, audit_client::AuditClient},
        directory::v1::{GetInstitutionRequest, ListInstitutionsRequest, directory_client::DirectoryClient},
        exchange::v1::{GetPartRequest, SubmitOneRequest, SubmitOneResponse, exchange_client::ExchangeClient},
        operations::v1::{
            GetOverviewRequest, ListMessagesRequest, ListQueuesRequest, WatchRequest,
            operations_client::OperationsClient,
        },
        statement::v1::SealedMessage,
    },
    reason::{Reason, Refused},
};

use super::{
    adapter::{Adapter, two},
    world::World,
};

fn reason(status: tonic::Status) -> Reason {
    Refused::from_status(&status).unwrap_or_else(|| panic!("{status:?}")).reason
}

#[tokio::test]
async fn each_role_may_call_its_own_service_and_no_other() {
    let world = World::new().await;
    let caritas = Adapter::of(&world, "caritas");
    let operator = world.channel(&world.bundle(Role::Operator, "prova"));
    let auditor = world.channel(&world.bundle(Role::Auditor, "prova"));
    for channel in [&operator, &auditor] {
        let answer = ExchangeClient::new(channel.clone()).get_part(GetPartRequest::default()).await;
        assert_eq!(reason(answer.unwrap_err()), Reason::NotAuthorized);
    }
    for channel in [&caritas.channel, &auditor] {
        let answer = OperationsClient::new(channel.clone()).get_overview(GetOverviewRequest {}).await;
        assert_eq!(reason(answer.unwrap_err()), Reason::NotAuthorized);
    }
    for (channel, expected) in [(&caritas.channel, Reason::NotAuthorized), (&auditor, Reason::AuditNotYetServed)] {
        let answer = AuditClient::new(channel.clone()).get_checkpoint(GetCheckpointRequest {}).await;
        assert_eq!(reason(answer.unwrap_err()), expected);
    }
    for channel in [&caritas.channel, &operator, &auditor] {
        DirectoryClient::new(channel.clone()).list_institutions(ListInstitutionsRequest {}).await.unwrap();
    }
    assert_eq!(world.metric("refused_total", "NOT_AUTHORIZED").await, 5.0);
}

#[tokio::test]
async fn an_institution_with_a_good_certificate_that_is_not_configured_takes_no_part() {
    let world = World::new().await;
    let stranger = Adapter::of(&world, "prefettura");
    assert_eq!(stranger.publish(1).await.unwrap_err().reason, Reason::UnknownInstitution);
    let status = stranger.exchange().get_part(GetPartRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(reason(status), Reason::UnknownInstitution);
}

#[tokio::test]
async fn the_directory_says_who_takes_part_with_which_keys_and_what_they_accept_from_the_caller() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    assert!(!caritas.publish(1).await.unwrap() || cfg!(not(test)), "the same record again is no news");
    let _receiving = inps.receive(1).await;
    let mut directory = DirectoryClient::new(caritas.channel.clone());
    let list = directory.list_institutions(ListInstitutionsRequest {}).await.unwrap().into_inner();
    assert!(!list.gateway_chain.is_empty());
    let names: Vec<_> = list.institutions.iter().map(|institution| institution.name.as_str()).collect();
    assert_eq!(names, ["caritas", "comune", "inps"]);
    let request = GetInstitutionRequest { name: "inps".to_owned() };
    let found = directory.get_institution(request).await.unwrap().into_inner().institution.unwrap();
    assert_eq!(found.accepts, ["tramite.body.v1.Referral", "tramite.body.v1.ReferralUpdate"]);
    assert_eq!((found.keys.len(), found.ipa_code.as_str(), found.online), (1, "inps", true));
    let unknown = directory.get_institution(GetInstitutionRequest { name: "nobody".to_owned() }).await;
    assert_eq!(reason(unknown.unwrap_err()), Reason::UnknownInstitution);
}

#[tokio::test]
async fn a_key_record_rises_and_never_falls_even_over_a_restart() {
    let mut world = World::new().await;
    let inps = Adapter::join(&world, "inps").await;
    assert!(inps.publish(3).await.unwrap());
    assert_eq!(inps.publish(2).await.unwrap_err().reason, Reason::KeyRolledBack);
    world.stop().await;
    world.start().await;
    let inps = Adapter::of(&world, "inps");
    assert_eq!(inps.publish(2).await.unwrap_err().reason, Reason::KeyRolledBack);
    assert!(inps.publish(4).await.unwrap());
    // In another's name.
    let caritas = Adapter { name: "caritas".to_owned(), ..inps };
    assert_eq!(caritas.publish(1).await.unwrap_err().reason, Reason::IssuerMismatch);
}

#[tokio::test]
async fn operators_see_what_waits_page_by_page_and_no_content() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let mut drafts = Vec::new();
    for _ in 0..5 {
        drafts.push(caritas.refer(&inps).await.id.to_string());
    }
    let mut operations = world.operations();
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListMessagesRequest { institution: String::new(), page_size: 2, page_token };
        let page = operations.list_messages(request).await.unwrap().into_inner();
        listed.extend(page.messages);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed.iter().map(|message| message.message_id.clone()).collect::<Vec<_>>(), drafts);
    assert!(listed.iter().all(|message| message.state == "QUEUED" && message.audience == "inps" && message.size > 500));
    let queues = operations.list_queues(ListQueuesRequest {}).await.unwrap().into_inner().queues;
    let inps = queues.iter().find(|queue| queue.institution == "inps").unwrap();
    assert_eq!((inps.waiting, inps.online, inps.held), (5, false, false));
    assert_eq!(queues.len(), 3);
    let wrong = ListMessagesRequest { page_token: "x".to_owned(), ..ListMessagesRequest::default() };
    assert_eq!(reason(operations.list_messages(wrong).await.unwrap_err()), Reason::FieldInvalid);
}

#[tokio::test]
async fn a_watcher_hears_of_a_change() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let mut watch = world.operations().watch(WatchRequest {}).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!((first.waiting, first.accepted), (0, 0));
    caritas.refer(&inps).await;
    loop {
        let next = watch.message().await.unwrap().unwrap();
        if next.waiting == 1 {
            assert!(next.accepted == 1 && next.sequence > first.sequence);
            break;
        }
    }
}

#[tokio::test]
async fn health_says_that_it_serves_and_reflection_lists_what_is_served_and_can_be_off() {
    for enabled in [true, false] {
        let world = World::with(|config| config.reflection.enabled = enabled).await;
        let caritas = Adapter::of(&world, "caritas");
        let health = HealthClient::new(caritas.channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
        assert_eq!(health.into_inner().status(), ServingStatus::Serving);
        let asked = MessageRequest::ListServices(String::new());
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(asked) };
        let answer = ServerReflectionClient::new(caritas.channel.clone())
            .server_reflection_info(tokio_stream::once(request))
            .await;
        if !enabled {
            assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
            continue;
        }
        let listed = answer.unwrap().into_inner().message().await.unwrap().unwrap().message_response.unwrap();
        let MessageResponse::ListServicesResponse(listed) = listed else { panic!("a list") };
        let mut listed: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
        listed.sort();
        let served = [
            "grpc.health.v1.Health",
            "tramite.audit.v1.Audit",
            "tramite.directory.v1.Directory",
            "tramite.exchange.v1.Exchange",
            "tramite.operations.v1.Operations",
        ];
        assert_eq!(listed, served, "what is served here, and nothing that the adapter serves");
    }
}

#[tokio::test]
async fn key_records_come_at_a_pace_and_no_more_than_sixteen_are_kept() {
    let mut world = World::new().await;
    let inps = Adapter::of(&world, "inps");
    let mut refused = None;
    for seq in 1..=64 {
        if let Err(error) = inps.publish(seq).await {
            refused = Some((error.reason, error.retryable()));
            break;
        }
    }
    assert_eq!(refused, Some((Reason::RateLimited, true)));
    for seq in 101..=140 {
        world.clock.advance_s(1);
        inps.publish(seq).await.unwrap();
    }
    let newest = async |by: &Adapter| {
        let mut directory = DirectoryClient::new(by.channel.clone());
        let request = GetInstitutionRequest { name: "inps".to_owned() };
        let found = directory.get_institution(request).await.unwrap().into_inner().institution.unwrap();
        let first = tramite_proto::statement::KeyRecord::parse(&found.keys[0].json).unwrap();
        (found.keys.len(), first.seq)
    };
    assert_eq!(newest(&inps).await, (16, 140));
    world.stop().await;
    world.start().await;
    let inps = Adapter::of(&world, "inps");
    assert_eq!(newest(&inps).await, (16, 140));
    assert_eq!(inps.publish(101).await.unwrap_err().reason, Reason::KeyRolledBack);
}

#[tokio::test]
async fn a_chain_that_names_a_certificate_twice_is_no_key_record() {
    let world = World::new().await;
    let inps = Adapter::of(&world, "inps");
    let chain = vec![inps.chain[0].clone(), inps.chain[0].clone()];
    let twice = Adapter { chain, ..inps };
    assert_eq!(twice.publish(1).await.unwrap_err().reason, Reason::StatementMalformed);
}

#[tokio::test]
async fn who_may_not_submit_is_refused_before_anything_of_the_message_is_read() {
    let world = World::new().await;
    let operator = world.channel(&world.bundle(Role::Operator, "prova"));
    let mut client = tonic::client::Grpc::new(operator);
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/tramite.exchange.v1.Exchange/SubmitOne");
    let codec = tonic_prost::ProstCodec::<SubmitOneRequest, SubmitOneResponse>::default();
    // A message that never comes: only who does not wait for it can answer.
    let request = tonic::Request::new(tokio_stream::pending::<SubmitOneRequest>());
    let answer =
        tokio::time::timeout(std::time::Duration::from_secs(10), client.client_streaming(request, path, codec));
    assert_eq!(reason(answer.await.expect("an answer without the message").unwrap_err()), Reason::NotAuthorized);
}

#[tokio::test]
async fn a_message_for_one_call_has_the_size_of_one_message() {
    let world = World::new().await;
    let caritas = Adapter::of(&world, "caritas");
    let large = SealedMessage { ciphertext: vec![0; 200 << 10].into(), ..SealedMessage::default() };
    let request = SubmitOneRequest { message: Some(large) };
    assert_eq!(caritas.exchange().submit_one(request).await.unwrap_err().code(), Code::OutOfRange);
}
