//! A disk that is full, or fails: nothing is acknowledged that is not durable, what waits is still delivered and settled, and what
//! was acknowledged is there afterwards.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use tonic::Code;
use tramite_proto::pb::statement::v1::{SealedMessage, Statement};
use tramite_tests::{
    attack::{Player, gateway_and, join, reason},
    binary::said,
    failing_disk::{self, Fault},
    forge::{Draft, b64, content, receipt},
    network::{Network, PATIENCE},
    receiving::Receiving,
    small_disk::SmallDisk,
    submitting::Part,
};

/// Mebibytes of a disk that is full soon.
const DISK_MIB: u64 = 16;
/// More messages than such a disk holds.
const MESSAGES_MAX: usize = 20_000;
/// The last line of a full disk may come a moment after the room itself.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// A message that was acknowledged.
struct Sent {
    draft: Draft,
    message: SealedMessage,
    acceptance: Statement,
}

/// A referral over so many bytes that nobody can open.
fn referral(bytes: usize) -> Draft {
    let draft = Draft::blind("caritas", "inps");
    let ciphertext = vec![0x6d; bytes];
    let origin = draft.origin.clone().with("ct", content("blind-1", &draft.enc, &ciphertext));
    Draft { origin, ciphertext, ..draft }
}

/// Sends until it is refused. Says what was acknowledged, and the refusal.
async fn send_until_refused(caritas: &Player, bytes: usize) -> Result<(Vec<Sent>, tonic::Status)> {
    let mut sent = Vec::new();
    while sent.len() < MESSAGES_MAX {
        let draft = referral(bytes);
        let message = draft.signed(&caritas.pen)?;
        match caritas.peer.submit(message.clone()).await {
            Ok(acceptance) => sent.push(Sent { draft, message, acceptance }),
            Err(status) => return Ok((sent, status)),
        }
    }
    anyhow::bail!("{MESSAGES_MAX} messages were accepted on {DISK_MIB} MiB")
}

/// Receives and settles all of them, in their order.
async fn settle_all(inps: &Player, sent: &[Sent]) -> Result<()> {
    let mut inbox = Receiving::open(&inps.peer, 64).await?;
    for (number, one) in sent.iter().enumerate() {
        let delivered = inbox.delivery().await.with_context(|| format!("message {number} of {}", sent.len()))?;
        ensure!(delivered.origin.json == one.draft.origin.json(), "another message than number {number}");
        let receipt = receipt("inps", &one.draft.origin, &one.draft.ciphertext);
        let answer = inbox.receipt(delivered.delivery.delivery_id, &receipt, &inps.pen).await?;
        ensure!(answer.refused.is_none(), "the settlement of {number} of {}: {answer:?}", sent.len());
    }
    Ok(())
}

/// Every repeat gets its original answer.
async fn repeats_are_answered(caritas: &Player, sent: &[Sent]) -> Result<()> {
    for one in sent {
        ensure!(caritas.peer.submit(one.message.clone()).await? == one.acceptance, "a repeat got another answer");
    }
    Ok(())
}

fn is_full(status: &tonic::Status) -> Result<()> {
    ensure!(status.code() == Code::ResourceExhausted && reason(status) == "STORE_FULL", "{status:?}");
    ensure!(status.message().contains("makes room"), "it does not say what to do: {status:?}");
    Ok(())
}

/// Sends one as soon as it is accepted again.
async fn accepted_again(caritas: &Player, bytes: usize) -> Result<Sent> {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let draft = referral(bytes);
        let message = draft.signed(&caritas.pen)?;
        match caritas.peer.submit(message.clone()).await {
            Ok(acceptance) => return Ok(Sent { draft, message, acceptance }),
            Err(status) if tokio::time::Instant::now() > until => anyhow::bail!("still refused: {status:?}"),
            Err(status) => is_full(&status)?,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn on(disk: &SmallDisk) -> Result<(Network, Player, Player)> {
    let data = disk.path().join("data");
    // Nothing is delivered again, and out of its order, only because a busy machine was slow.
    let settings = format!("data = {data:?}\nstore = {{ segment_mib = 1 }}\ndelivery = {{ lease_s = 120 }}");
    let (network, [caritas, inps]) = gateway_and(["caritas", "inps"], &settings).await?;
    Ok((network, caritas, inps))
}

/// Fills a disk, drains it while it is full, and goes on when there is room.
async fn a_full_disk(bytes: usize) -> Result<()> {
    let Some(disk) = SmallDisk::mount(DISK_MIB)? else { return Ok(()) };
    let (network, caritas, inps) = on(&disk).await?;
    let id = network.gateway.process.id().await;
    // Somebody else has most of the disk, so that the test takes less time.
    let others = disk.fill("others", 6 * 1024 * 1024)?;
    let (sent, status) = send_until_refused(&caritas, bytes).await?;
    is_full(&status)?;
    ensure!(sent.len() > 20, "only {} were accepted", sent.len());
    // From here on there is no room at all.
    let rest = disk.fill("rest", 0)?;
    let told = || format!("{} messages of {bytes} bytes\n{}", sent.len(), network.logs());
    repeats_are_answered(&caritas, &sent).await.with_context(told)?;
    let refused = caritas.peer.submit(referral(bytes).signed(&caritas.pen)?).await.err().context("accepted")?;
    is_full(&refused)?;
    settle_all(&inps, &sent).await.with_context(told)?;
    disk.free(&others)?;
    disk.free(&rest)?;
    let new = accepted_again(&caritas, bytes).await.with_context(told)?;
    settle_all(&inps, std::slice::from_ref(&new)).await.with_context(told)?;
    ensure!(network.gateway.process.id().await == id, "it was started anew");
    network.gateway.process.log().wait_for(0, &["new messages are accepted"], PATIENCE).await?;
    repeats_are_answered(&caritas, &sent).await.with_context(told)?;
    network.gateway.process.terminate(PATIENCE).await?;
    is_sound(&disk.path().join("data")).await?;
    network.gateway.process.start().await?;
    let caritas = join(&network, "caritas").await?;
    repeats_are_answered(&caritas, &sent).await.with_context(told)
}

/// What `tramite store verify` says.
async fn is_sound(store: &Path) -> Result<()> {
    said(&["store", "verify", &store.display().to_string()]).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_full_of_small_messages_delivers_them_and_takes_up_again_by_itself() -> Result<()> {
    a_full_disk(528).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_full_of_large_messages_delivers_them_and_takes_up_again_by_itself() -> Result<()> {
    a_full_disk(32 * 1024 + 16).await
}

/// More records than these tests write.
const SEQUENCES_MAX: u32 = 300;
/// Two frames and more.
const PART_BYTES: u64 = 1024 * 1024;
/// The call of the writer that fails: the players' keys are recorded before, and some messages.
const FAILING: u32 = 8;

/// The gateway's journal fails once; `file` is in its folder.
async fn a_failing_disk(file: &str, call: &'static str) -> Result<()> {
    a_failing_file(&[file.to_owned()], call, FAILING, file).await
}

/// The first of these files that comes to its `when`-th call fails; `said` is in the line that tells of it.
async fn a_failing_file(files: &[String], call: &'static str, when: u32, said: &str) -> Result<()> {
    if !failing_disk::can_be_had()? {
        return Ok(());
    }
    let (network, [caritas, inps]) = gateway_and(["caritas", "inps"], "").await?;
    drop((caritas, inps));
    let process = &network.gateway.process;
    process.terminate(PATIENCE).await?;
    let journal = network.gateway.folder.join("data/journal");
    let files = files.iter().map(|file| if file.is_empty() { journal.clone() } else { journal.join(file) }).collect();
    let fault = Fault::eio_among(files, call, when, &network.folder().join("strace"));
    process.start_under(&fault.tracer()).await?;
    let lines = process.log().lines().len();
    let caritas = join(&network, "caritas").await?;
    let mut sent = Vec::new();
    let unanswered = loop {
        let draft = referral(32 * 1024 + 16);
        let message = draft.signed(&caritas.pen)?;
        match caritas.peer.submit(message.clone()).await {
            Ok(acceptance) => sent.push(Sent { draft, message, acceptance }),
            Err(status) => {
                let told = ["STORE_FAILED", "SHUTTING_DOWN", ""];
                ensure!(told.contains(&reason(&status)), "{status:?}\n{}", network.logs());
                break message;
            }
        }
        ensure!(sent.len() < 50, "nothing has failed\n{}", network.logs());
    };
    ensure!(sent.len() > 2, "it failed too early\n{}", network.logs());
    let status = process.exited(PATIENCE).await?;
    ensure!(!status.success(), "it ended with {status}");
    process.log().wait_for(lines, &["the store failed", said, "start again"], PATIENCE).await?;
    fault.was_the_last_call()?;
    is_sound(&network.gateway.folder.join("data")).await?;
    process.start().await?;
    let caritas = join(&network, "caritas").await?;
    repeats_are_answered(&caritas, &sent).await?;
    // It may be there or not; it is there once now.
    let acceptance = caritas.peer.submit(unanswered.clone()).await?;
    ensure!(caritas.peer.submit(unanswered).await? == acceptance, "a repeat got another answer");
    let inps = join(&network, "inps").await?;
    settle_all(&inps, &sent).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_is_never_tried_again_and_nothing_of_its_group_is_acknowledged() -> Result<()> {
    a_failing_disk("0000000000000001.seg", "fdatasync").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_fails_stops_the_gateway_and_nothing_of_its_group_is_acknowledged() -> Result<()> {
    a_failing_disk("0000000000000001.seg", "pwrite64").await
}

/// Whichever name the second segment gets: that of its first record.
fn later_segments() -> Vec<String> {
    (2..SEQUENCES_MAX).map(|first| format!("{first:016x}.seg")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_in_a_new_segment_stops_the_gateway_and_nothing_of_its_group_is_acknowledged() -> Result<()> {
    a_failing_file(&later_segments(), "fdatasync", 1, ".seg").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_fails_in_a_new_segment_stops_the_gateway_and_nothing_of_its_group_is_acknowledged() -> Result<()>
{
    a_failing_file(&later_segments(), "pwrite64", 1, ".seg").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_synced_stops_the_gateway_when_it_needs_a_segment() -> Result<()> {
    a_failing_file(&[String::new()], "fsync", 1, "begin a segment").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_that_cannot_be_written_stops_the_gateway_and_nothing_behind_it_is_acknowledged() -> Result<()> {
    a_failing_file(&["synced".to_owned()], "pwrite64", FAILING, "the mark").await
}

/// A part of a message that is not sent yet.
fn with_part(plain: u64) -> (Draft, Part) {
    let draft = referral(528);
    let part = Part::of(draft.id(), plain);
    let named = serde_json::json!([{ "len": part.length, "s256": b64(&part.sha256) }]);
    (draft.with("parts", named), part)
}

/// Puts a part and sends its message, and sees both at the recipient.
async fn part_arrives(caritas: &Player, inps: &Player, draft: Draft, part: Part) -> Result<()> {
    ensure!(part.put(&caritas.peer, draft.id(), "inps").await?, "it was there already: an unanswered part was kept");
    let message = draft.signed(&caritas.pen)?;
    let acceptance = caritas.peer.submit(message.clone()).await?;
    ensure!(part.is_there(&inps.peer, draft.id()).await?, "its part is another");
    settle_all(inps, &[Sent { draft, message, acceptance }]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_is_refused_on_a_full_disk_leaves_nothing_there_and_is_taken_when_there_is_room() -> Result<()> {
    let Some(disk) = SmallDisk::mount(DISK_MIB)? else { return Ok(()) };
    let (network, caritas, inps) = on(&disk).await?;
    let id = network.gateway.process.id().await;
    let (draft, part) = with_part(PART_BYTES);
    // No room at all, for half of it, and for all of it but for nothing that would be said of it.
    for left in [0, PART_BYTES / 2, PART_BYTES + PART_BYTES / 2] {
        let others = disk.fill("others", left)?;
        let refused = part.put(&caritas.peer, draft.id(), "inps").await.err().context("a part was taken")?;
        is_full(&refused).with_context(|| network.logs())?;
        let kept = fs::read_dir(disk.path().join("data/parts"))?.count();
        ensure!(kept == 0, "what was refused keeps {kept} files");
        let message = draft.signed(&caritas.pen)?;
        ensure!(caritas.peer.submit(message).await.is_err(), "its message was accepted without it");
        disk.free(&others)?;
    }
    part_arrives(&caritas, &inps, draft, part).await.with_context(|| network.logs())?;
    ensure!(network.gateway.process.id().await == id, "it was started anew");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_whose_sync_fails_is_not_answered_for_is_not_synced_again_and_is_taken_anew() -> Result<()> {
    if !failing_disk::can_be_had()? {
        return Ok(());
    }
    let (network, players) = gateway_and(["caritas", "inps"], "").await?;
    drop(players);
    let process = &network.gateway.process;
    process.terminate(PATIENCE).await?;
    let (draft, part) = with_part(PART_BYTES);
    let parts = network.gateway.folder.join("data/parts");
    let file = parts.join(format!("{}.0.0.tmp", draft.id()));
    let fault = Fault::eio(&file, "fdatasync", 1, &network.folder().join("strace"));
    process.start_under(&fault.tracer()).await?;
    let (caritas, inps) = (join(&network, "caritas").await?, join(&network, "inps").await?);
    let refused = part.put(&caritas.peer, draft.id(), "inps").await.err().context("it was answered for")?;
    ensure!(["STORE_FAILED", "SHUTTING_DOWN"].contains(&reason(&refused)), "{refused:?}\n{}", network.logs());
    fault.was_the_last_call()?;
    ensure!(caritas.peer.submit(draft.signed(&caritas.pen)?).await.is_err(), "its message was accepted without it");
    part_arrives(&caritas, &inps, draft, part).await.with_context(|| network.logs())
}
