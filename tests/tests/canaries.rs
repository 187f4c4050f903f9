//! The hub holds no content: strings that are found nowhere else go through it, and then everything it has is searched: its disk,
//! its logs at TRACE, its metrics, its memory while messages wait. Nor does any log of an adapter hold them, or a private key.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use tramite_proto::pb::{
    backoffice::v1::SendReferralRequest,
    body::v1::{Person, PersonIdentifier, person_identifier::Kind},
};
use tramite_tests::{
    canary,
    clerk::Clerk,
    desk::insist,
    network::{Network, PATIENCE},
    sample,
};

const NAME: &str = "Zwrtlkanarina";
const SITUATION: &str = "qvx-situazione-8841-canarino";
/// Of nobody, and in no help text.
const CODE: &str = "CNRZRT77E41A944T";
const FILE: &str = "kqz-allegato-canarino.pdf";

/// Every secret of a bundle as it could stand somewhere: as bytes, and as a line of its PEM.
fn secrets(folder: &std::path::Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut secrets = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "key") {
            let bytes = fs::read(&path)?;
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            // The last full line holds key material; a first line of PKCS#8 is the same for everybody.
            let line = text.lines().rfind(|line| !line.starts_with("-----") && line.len() >= 24);
            secrets.push((name, line.map_or(bytes.clone(), |line| line.as_bytes().to_vec())));
        }
    }
    Ok(secrets)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_and_keys_are_found_nowhere_at_the_gateway_and_in_no_log() -> Result<()> {
    let builder = Network::builder().institutions(&["caritas", "inps"]);
    let network = builder.gateway("log.level = \"trace\"")?.adapters("log.level = \"trace\"")?.start().await?;
    let (caritas, inps) = (network.desk("caritas")?, network.desk("inps")?);
    // The recipient learns its correspondents, and then is away: messages wait at the gateway.
    network.adapter("inps")?.process.terminate(PATIENCE).await?;
    let file: Vec<u8> = std::iter::repeat_n(SITUATION.as_bytes(), 3000).flatten().copied().collect();
    for number in 0..3 {
        let attached = insist(PATIENCE, || caritas.attach(FILE, &file)).await?.attachment_id;
        let mut referral = sample::referral(SITUATION);
        let identifiers =
            vec![PersonIdentifier { kind: Some(Kind::CodiceFiscale(CODE.into())), ..PersonIdentifier::default() }];
        referral.person = Some(Person { identifiers, ..sample::person(NAME) });
        let request = SendReferralRequest {
            sending: Some(sample::sending(&format!("r-{number}"), &[attached])),
            to: "inps".into(),
            referral: Some(referral),
            conversation_id: String::new(),
        };
        insist(PATIENCE, || {
            let (mut client, request) = (caritas.client(), request.clone());
            async move { client.send_referral(request).await }
        })
        .await?;
    }
    let until = tokio::time::Instant::now() + PATIENCE;
    while caritas.status().await?.outbox > 0 {
        ensure!(tokio::time::Instant::now() < until, "the gateway does not take them:\n{}", network.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let words = [("name", NAME), ("situation", SITUATION), ("codice fiscale", CODE), ("file name", FILE)];
    let words: Vec<(&'static str, Vec<u8>)> = words.map(|(what, word)| (what, word.as_bytes().to_vec())).into();
    search_gateway(&network, &words, "while messages wait").await?;

    network.adapter("inps")?.process.start().await?;
    let work = Clerk::reads(&inps);
    work.until("what waited", PATIENCE, |seen| seen.situations().len() == 3).await.with_context(|| network.logs())?;
    let news = Clerk::reads(&caritas);
    news.until("receipts", PATIENCE, |seen| seen.notices_of("OPENED") == 3).await.with_context(|| network.logs())?;
    search_gateway(&network, &words, "after delivery").await?;

    let mut needles: Vec<(String, Vec<u8>)> =
        words.iter().map(|(what, word)| ((*what).to_owned(), word.clone())).collect();
    for name in ["gateway", "caritas", "inps"] {
        let secrets = secrets(&network.node(name)?.folder.join("keys"))?;
        ensure!(!secrets.is_empty(), "{name} has no key files");
        needles.extend(secrets);
    }
    let mut found = BTreeSet::new();
    for name in ["gateway", "caritas", "inps"] {
        let node = network.node(name)?;
        let lines = node.process.log().lines();
        ensure!(lines.iter().any(|line| line.contains("TRACE")), "{name} does not log at TRACE");
        let log = lines.join("\n");
        found.extend(
            needles
                .iter()
                .filter(|(_, needle)| canary::holds(log.as_bytes(), needle))
                .map(|(what, _)| format!("{what} in {name}'s log")),
        );
        // The data folders hold no private key either; they are copied into backups.
        let keys: Vec<(&str, Vec<u8>)> =
            needles.iter().skip(words.len()).map(|(what, key)| (what.as_str(), key.clone())).collect();
        found.extend(
            canary::in_directory(&node.folder.join("data"), &keys)?
                .into_iter()
                .map(|(path, what)| format!("{what} in {}", path.display())),
        );
    }
    ensure!(found.is_empty(), "{found:#?}");
    Ok(())
}

/// Disk, metrics and memory of the gateway.
async fn search_gateway(network: &Network, words: &[(&'static str, Vec<u8>)], when: &str) -> Result<()> {
    let gateway = &network.gateway;
    let on_disk = canary::in_directory(&gateway.folder.join("data"), words)?;
    ensure!(on_disk.is_empty(), "{when}, on the gateway's disk: {on_disk:?}");
    let page = gateway.metrics().await?.text;
    ensure!(!words.iter().any(|(_, word)| canary::holds(page.as_bytes(), word)), "{when}, in the metrics");
    // What must be found shows that the search can find.
    let mut words = words.to_vec();
    words.push(("control", b"SubmissionAcceptance".to_vec()));
    let id = gateway.process.id().await.context("the gateway runs")?;
    let (in_memory, looked_at) = tokio::task::spawn_blocking(move || canary::in_memory(id, &words)).await??;
    ensure!(looked_at > 1_000_000, "only {looked_at} bytes of memory could be read");
    ensure!(in_memory == ["control"], "{when}, in the gateway's memory: {in_memory:?} (of {looked_at} bytes)");
    Ok(())
}
