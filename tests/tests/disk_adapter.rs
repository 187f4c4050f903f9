//! An adapter whose disk is full, or fails: its back office gets no answer that is not durable, what is there is shown and acknowledged
//! all the same, and what was answered is there afterwards, once.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use tramite_tests::{
    attack::reason,
    binary::said,
    clerk::Clerk,
    desk::{Desk, insist, passing},
    failing_disk::{self, Fault},
    network::{Network, PATIENCE, START_MAX},
    sample,
    small_disk::SmallDisk,
};

/// Mebibytes of a disk that is full soon.
const DISK_MIB: u64 = 16;
/// Of which somebody else has all but this, so that the test takes less time.
const LEFT_BYTES: u64 = 7 * 1024 * 1024;
/// More referrals than such a disk holds.
const REFERRALS_MAX: usize = 2_000;
/// What the inbox holds before the disk is full.
const ITEMS: usize = 8;
/// Between two looks at what the gateway counts.
const PAUSE: Duration = Duration::from_millis(100);
/// The call of a thread that fails: the adapter's keys are recorded before, and some referrals.
const FAILING: u32 = 16;

/// A referral that was answered.
struct Sent {
    request_id: String,
    situation: String,
    message_id: String,
}

/// Words that no other referral has, sealed in 32 KiB.
fn situation(number: usize) -> String {
    format!("{number:08} {}", "€".repeat(7_900))
}

/// Refers until it is refused. Says what was answered, and the refusal.
async fn refer_until_refused(caritas: &Desk, most: usize) -> Result<(Vec<Sent>, Sent, Status)> {
    let mut sent = Vec::new();
    while sent.len() < most {
        let (request_id, situation) = (format!("request-{}", sent.len()), situation(sent.len()));
        let answer = caritas.refer("inps", &request_id, &situation).await;
        let one = |message_id| Sent { request_id, situation, message_id };
        match answer {
            Ok(answer) => sent.push(one(answer.message_id)),
            Err(status) => return Ok((sent, one(String::new()), status)),
        }
    }
    anyhow::bail!("all of {most} referrals were answered")
}

/// Every repeat gets its first answer.
async fn repeats_are_answered(caritas: &Desk, sent: &[Sent]) -> Result<()> {
    for Sent { request_id, situation, message_id } in sent {
        let again = caritas.refer("inps", request_id, situation).await?;
        ensure!(again.repeated && again.message_id == *message_id, "a repeat of {request_id} got another answer");
    }
    Ok(())
}

/// Everything that was answered comes to its recipient, and nothing twice.
async fn arrive(inps: &Clerk, sent: &[Sent]) -> Result<()> {
    let all = |situations: &[String]| sent.iter().all(|one| situations.contains(&one.situation));
    inps.until("every referral", PATIENCE * 2, |seen| all(&seen.situations())).await?;
    let situations = inps.seen().situations();
    ensure!(situations.iter().collect::<BTreeSet<_>>().len() == situations.len(), "a referral came twice");
    Ok(())
}

fn is_full(status: &Status) -> Result<()> {
    ensure!(status.code() == Code::ResourceExhausted && reason(status) == "STORE_FULL", "{status:?}");
    ensure!(status.message().contains("makes room"), "it does not say what to do: {status:?}");
    Ok(())
}

/// What `tramite store verify` says.
async fn is_sound(store: &Path) -> Result<()> {
    said(&["store", "verify", &store.display().to_string()]).await.map(drop)
}

/// What `tramite status` says of caritas.
async fn standing(network: &Network) -> Result<String> {
    let socket = network.adapter("caritas")?.folder.join("socket");
    let said = said(&["status", "--adapter", &format!("unix:{}", socket.display())]).await?;
    // Lines are folded.
    Ok(said.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The inbox as it is, when it holds so many items.
async fn items(caritas: &Desk, count: usize) -> Result<Vec<String>> {
    let ids = insist(PATIENCE, || async {
        let items = caritas.waiting().await?;
        if items.len() == count { Ok(items) } else { Err(Status::unavailable(format!("{} items", items.len()))) }
    });
    Ok(ids.await?.into_iter().map(|item| item.item_id).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_on_a_full_disk_takes_nothing_shows_and_acknowledges_what_it_has_and_goes_on_by_itself() -> Result<()>
{
    let Some(disk) = SmallDisk::mount(DISK_MIB)? else { return Ok(()) };
    let data = disk.path().join("data");
    let network =
        Network::builder().institutions(&["caritas", "inps"]).adapter("caritas", &format!("data = {data:?}"))?;
    let network = network.start().await?;
    let (caritas, inps, process) =
        (network.desk("caritas")?, network.desk("inps")?, &network.adapter("caritas")?.process);
    for number in 0..ITEMS {
        let (request_id, situation) = (format!("item-{number}"), format!("item {number}"));
        insist(PATIENCE, || inps.refer("caritas", &request_id, &situation)).await?;
    }
    items(&caritas, ITEMS).await?;
    let told = || network.logs();
    // Nothing leaves it.
    network.gateway.process.terminate(PATIENCE).await?;
    let id = process.id().await;
    let others = disk.fill("others", LEFT_BYTES)?;
    let (sent, refused, status) = refer_until_refused(&caritas, REFERRALS_MAX).await.with_context(told)?;
    is_full(&status).with_context(told)?;
    ensure!(sent.len() > 20, "only {} were answered", sent.len());
    // From here on there is no room at all.
    let rest = disk.fill("rest", 0)?;
    repeats_are_answered(&caritas, &sent).await.with_context(told)?;
    let again = caritas.refer("inps", &refused.request_id, &refused.situation).await.err().context("it was taken")?;
    is_full(&again)?;
    let attached = caritas.attach("family.pdf", &[7; 300_000]).await.err().context("an attachment was taken")?;
    is_full(&attached)?;
    ensure!(caritas.status().await?.store_troubles.len() == 1, "its status does not say so");
    let said = standing(&network).await?;
    ensure!(said.contains("the disk is full") && said.contains("make room"), "{said}");
    let shown = items(&caritas, ITEMS).await.with_context(told)?;
    let (first, left) = shown.split_at(ITEMS / 2);
    ensure!(caritas.acknowledge(first).await.with_context(told)? as usize == first.len(), "not all were new");
    ensure!(items(&caritas, left.len()).await.with_context(told)? == left, "other items are left");
    // What it has goes out.
    network.gateway.process.start().await?;
    let reader = Clerk::reads(&inps);
    arrive(&reader, &sent).await.with_context(told)?;
    disk.free(&others)?;
    disk.free(&rest)?;
    let answer = insist(PATIENCE, || caritas.refer("inps", &refused.request_id, &refused.situation));
    let refused = Sent { message_id: answer.await.with_context(told)?.message_id, ..refused };
    arrive(&reader, &[refused]).await.with_context(told)?;
    ensure!(process.id().await == id, "it was started anew");
    process.log().wait_for(0, &["new messages are accepted"], PATIENCE).await?;
    ensure!(!standing(&network).await?.contains("full"), "its status still says so");
    repeats_are_answered(&caritas, &sent).await.with_context(told)?;
    process.terminate(PATIENCE).await?;
    is_sound(&data.join("store")).await
}

/// Attempts that the gateway makes before the disk gets room.
const ATTEMPTS: f64 = 3.0;
/// Large referrals, of which a segment of 1 MiB holds thirty.
const LARGE: usize = 36;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recipient_on_a_full_disk_puts_off_what_comes_and_takes_it_once_when_there_is_room() -> Result<()> {
    let Some(disk) = SmallDisk::mount(DISK_MIB)? else { return Ok(()) };
    let data = disk.path().join("data");
    let network = Network::builder().institutions(&["caritas", "inps"]);
    let network = network.gateway("delivery = { attempts_max = 1000 }")?;
    let network = network.adapter("inps", &format!("data = {data:?}"))?.start().await?;
    let (caritas, inps, process) = (network.desk("caritas")?, network.desk("inps")?, &network.adapter("inps")?.process);
    let told = || network.logs();
    let (id, lines) = (process.id().await, process.log().lines().len());
    let others = disk.fill("others", 0)?;
    let file: Vec<u8> = sample::bytes(300_000, 7);
    let attached = [insist(PATIENCE, || caritas.attach("family.pdf", &file)).await?.attachment_id];
    let with_file = insist(PATIENCE, || caritas.refer_with("inps", "with-file", "with a file", &attached)).await?;
    let mut sent = vec![Sent {
        request_id: "with-file".into(),
        situation: "with a file".into(),
        message_id: with_file.message_id.clone(),
    }];
    for number in 0..LARGE {
        let (request_id, situation) = (format!("large-{number}"), situation(number));
        let message_id = insist(PATIENCE, || caritas.refer("inps", &request_id, &situation)).await?.message_id;
        sent.push(Sent { request_id, situation, message_id });
    }
    // Put off, again and again: not taken, not refused, not given up.
    let until = Instant::now() + PATIENCE;
    while network.gateway.metrics().await?.sum("tramite_gateway_retries_total", &[]) < ATTEMPTS {
        ensure!(Instant::now() < until, "nothing was put off\n{}", network.logs());
        sleep(PAUSE).await;
    }
    process.log().wait_for(lines, &["STORE_FULL"], PATIENCE).await?;
    let shown = inps.waiting().await.with_context(told)?;
    ensure!(shown.len() < sent.len(), "everything was taken on a full disk");
    let shows = |of: &str| shown.iter().any(|item| format!("{item:?}").contains(of));
    ensure!(!shows(&with_file.message_id), "it was shown without room for its file");
    let news = caritas.waiting().await.with_context(told)?;
    let of_it = news.iter().filter(|item| format!("{item:?}").contains(&with_file.message_id)).collect::<Vec<_>>();
    ensure!(of_it.is_empty(), "its sender was told: {of_it:?}");
    disk.free(&others)?;
    // Whole, as long as it is not acknowledged.
    let expected = (with_file.message_id.clone(), file);
    let reader = Clerk::works(&inps, move |desk, item| {
        let (id, file) = expected.clone();
        async move {
            if format!("{item:?}").contains(&id) {
                ensure!(insist(PATIENCE, || desk.attachment(&id, 0)).await? == file, "its file is another");
            }
            Ok(())
        }
    });
    arrive(&reader, &sent).await.with_context(told)?;
    ensure!(reader.seen().failed.is_empty(), "{:?}", reader.seen().failed);
    ensure!(process.id().await == id, "it was started anew");
    let sender = Clerk::reads(&caritas);
    sender.until("every receipt", PATIENCE, |seen| seen.notices_of("OPENED") == sent.len()).await.with_context(told)?;
    process.terminate(PATIENCE).await?;
    is_sound(&data.join("store")).await
}

/// The adapter's journal fails once; `file` is in its folder.
async fn a_failing_disk(file: &str, call: &'static str) -> Result<()> {
    if !failing_disk::can_be_had()? {
        return Ok(());
    }
    let network = Network::of_two().await?;
    let (caritas, inps, node) = (network.desk("caritas")?, network.desk("inps")?, network.adapter("caritas")?);
    node.process.terminate(PATIENCE).await?;
    let store = node.folder.join("data/store");
    let fault = Fault::eio(&store.join("journal").join(file), call, FAILING, &network.folder().join("strace"));
    node.process.start_under(&fault.tracer()).await?;
    caritas.connected(START_MAX).await?;
    let lines = node.process.log().lines().len();
    let told = || network.logs();
    let (sent, unanswered, status) = refer_until_refused(&caritas, 50).await.with_context(told)?;
    ensure!(passing(&status), "refused for good: {status:?}");
    ensure!(!sent.is_empty(), "it failed too early\n{}", network.logs());
    let ended = node.process.exited(PATIENCE).await?;
    ensure!(!ended.success(), "it ended with {ended}");
    node.process.log().wait_for(lines, &["the store failed", file, "start again"], PATIENCE).await?;
    fault.was_the_last_call()?;
    is_sound(&store).await?;
    node.process.start().await?;
    caritas.connected(START_MAX).await?;
    repeats_are_answered(&caritas, &sent).await.with_context(told)?;
    // It may be there or not; it is there once now.
    let Sent { request_id, situation, .. } = &unanswered;
    let message_id = insist(PATIENCE, || caritas.refer("inps", request_id, situation)).await?.message_id;
    let reader = Clerk::reads(&inps);
    arrive(&reader, &sent).await.with_context(told)?;
    arrive(&reader, &[Sent { message_id, ..unanswered }]).await.with_context(told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_stops_the_adapter_is_never_tried_again_and_nothing_of_its_group_is_answered() -> Result<()> {
    a_failing_disk("0000000000000001.seg", "fdatasync").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_fails_stops_the_adapter_and_nothing_of_its_group_is_answered() -> Result<()> {
    a_failing_disk("0000000000000001.seg", "pwrite64").await
}
