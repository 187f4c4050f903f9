//! Attachments: up to 25 MiB on a message, whole or not at all, and never whole in anyone's memory.

use std::fs;

use anyhow::{Context, Result, ensure};
use tonic::Code;
use tramite_proto::pb::backoffice::v1::{PutAttachmentRequest, put_attachment_request::Frame};
use tramite_tests::{
    attack::reason,
    clerk::{Clerk, Seen},
    desk::insist,
    forge::sha256,
    network::{Network, Node, PATIENCE},
    sample,
};

const MIB: usize = 1024 * 1024;
/// What a process may have grown by while a message of more than this went through it; with all of it in memory it would be that and what it grows by anyway.
const GROWTH_MAX_KIB: u64 = 24 * 1024;

/// The most memory that a process had so far, in KiB.
async fn peak_kib(node: &Node) -> Result<u64> {
    let id = node.process.id().await.with_context(|| format!("{} does not run", node.name))?;
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no peak in /proc")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_five_mib_go_through_and_are_never_whole_in_memory() -> Result<()> {
    let network = Network::of_two().await?;
    let (caritas, inps) = (network.desk("caritas")?, network.desk("inps")?);
    // A small one first: what each process needs anyway is there.
    let first = [insist(PATIENCE, || caritas.attach("small.pdf", b"small")).await?.attachment_id];
    insist(PATIENCE, || caritas.refer_with("inps", "r-0", "small", &first)).await?;
    let seen = Clerk::reads(&inps);
    seen.until("the small one", PATIENCE, |seen| seen.acknowledged() == 1).await.with_context(|| network.logs())?;
    drop(seen);
    let mut before = Vec::new();
    for name in ["gateway", "caritas", "inps"] {
        before.push((name, peak_kib(network.node(name)?).await?));
    }

    let files = [sample::bytes(15 * MIB, 1), sample::bytes(10 * MIB, 2)];
    let mut attached = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let name = format!("scan-{number}.pdf");
        attached.push(insist(PATIENCE, || caritas.attach(&name, file)).await?.attachment_id);
    }
    insist(PATIENCE, || caritas.refer_with("inps", "r-1", "large", &attached)).await?;
    let expected = files.map(|file| sha256(&file));
    let work = Clerk::works(&inps, move |desk, item| async move {
        use tramite_proto::pb::backoffice::v1::inbox_item::Kind;
        let Some(Kind::Message(message)) = item.kind else { return Ok(()) };
        for (index, hash) in (0..).zip(expected) {
            ensure!(
                sha256(&desk.attachment(&message.message_id, index).await?) == hash,
                "attachment {index} is another"
            );
        }
        Ok(())
    });
    let done = |seen: &Seen| seen.acknowledged() == 1;
    work.until("the large one", PATIENCE, done).await.with_context(|| network.logs())?;
    ensure!(work.seen().failed.is_empty(), "{:?}", work.seen().failed);
    for (name, before) in before {
        let grown = peak_kib(network.node(name)?).await?.saturating_sub(before);
        ensure!(grown < GROWTH_MAX_KIB, "{name} grew by {grown} KiB for 25 MiB that only go through it");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_twenty_five_mib_or_too_large_a_frame_is_refused_with_a_reason() -> Result<()> {
    let network = Network::of_two().await?;
    let caritas = network.desk("caritas")?;
    let mut attached = Vec::new();
    for number in 0..2 {
        let (name, file) = (format!("scan-{number}.pdf"), sample::bytes(13 * MIB, number));
        attached.push(insist(PATIENCE, || caritas.attach(&name, &file)).await?.attachment_id);
    }
    // The recipient's key must be known before the sum is looked at.
    insist(PATIENCE, || caritas.refer("inps", "r-0", "nothing attached")).await?;
    let sum = caritas.refer_with("inps", "r-1", "26 MiB", &attached).await.err().context("26 MiB were taken")?;
    ensure!(reason(&sum) == "PAYLOAD_TOO_LARGE", "{sum:?}");
    let one =
        caritas.attach("huge.pdf", &sample::bytes(26 * MIB, 3)).await.err().context("26 MiB in one were taken")?;
    ensure!(reason(&one) == "PAYLOAD_TOO_LARGE", "{one:?}");
    let unknown = caritas.refer_with("inps", "r-2", "unknown", &["no-such".into()]).await.err().context("taken")?;
    ensure!(["ATTACHMENT_UNKNOWN", "FIELD_INVALID"].contains(&reason(&unknown)), "{unknown:?}");
    let no_header = [PutAttachmentRequest { frame: Some(Frame::Data(vec![1].into())) }];
    let status =
        caritas.client().put_attachment(tokio_stream::iter(no_header)).await.err().context("taken without a name")?;
    ensure!(status.code() == Code::InvalidArgument, "{status:?}");
    let path = caritas.attach("../../keys/tls.key", b"x").await.err().context("a path for a name")?;
    ensure!(reason(&path) == "FIELD_INVALID", "{path:?}");
    Ok(())
}
