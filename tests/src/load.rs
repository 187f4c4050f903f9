//! A small load with everything in it, and the accounts that must come out even: referrals go out (some with an attachment), are
//! accepted, and every receipt comes back, while something else kills processes.
//!
//! Knows what a sound back office does: it repeats a call under the same request id until there is an answer, and acknowledges
//! only what it has worked off. Invariant checked at the end: every message once, nothing lost, nothing shown again.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tramite_proto::pb::backoffice::v1::{SendReferralRequest, inbox_item::Kind};

use crate::{
    clerk::{Clerk, Seen},
    desk::{Desk, insist},
    network::{Network, PATIENCE},
    sample,
};

/// A trouble that does not come is a failure of its own; the load need not grow with the wait for it.
const REFERRALS_MAX: usize = 200;
/// Every so many referrals carry an attachment.
const ATTACHMENT_EACH: usize = 3;
/// More than one chunk, less than a frame.
const ATTACHMENT_BYTES: usize = 100_000;
/// Senders at a time.
const SENDERS: usize = 2;

/// Sends referrals from caritas to inps, at least so many and until `trouble` is over, and checks the accounts.
///
/// # Errors
/// When anything is missing, double, or shown again; with what and with the logs.
pub async fn survives(network: &Network, least: usize, trouble: impl Future<Output = Result<()>>) -> Result<()> {
    survives_with(network, least, "situation", trouble).await
}

/// The same with other words before each referral's number, so that it is as large as a test likes.
///
/// # Errors
/// The same.
pub async fn survives_with(
    network: &Network,
    least: usize,
    words: &str,
    trouble: impl Future<Output = Result<()>>,
) -> Result<()> {
    let (sender, recipient) = (network.desk("caritas")?, network.desk("inps")?);
    let (news, work) = (Clerk::reads(&sender), accepting(&recipient));
    let numbers =
        Arc::new(Numbers { next: AtomicUsize::new(0), least, over: AtomicBool::new(false), words: words.to_owned() });
    let sent = send(&sender, &numbers);
    let trouble = async {
        let ended = trouble.await;
        numbers.over.store(true, Ordering::Relaxed);
        ended
    };
    let (sent, trouble) = tokio::join!(sent, trouble);
    trouble.with_context(|| network.logs())?;
    let sent = sent.with_context(|| network.logs())?;
    let count = sent.len();
    let all = |seen: &Seen| seen.situations().len() >= count && seen.notices_of("OPENED") >= count;
    work.until("every referral and every receipt of an answer", PATIENCE, all).await.with_context(|| network.logs())?;
    let all = |seen: &Seen| seen.messages().count() >= count && seen.notices_of("OPENED") >= count;
    news.until("every answer and every receipt", PATIENCE, all).await.with_context(|| network.logs())?;
    quiet(&sender).await.with_context(|| network.logs())?;
    quiet(&recipient).await.with_context(|| network.logs())?;
    even(&news.seen(), &work.seen(), &sent, count)
}

/// Accepts every referral once its attachments were read and found whole.
fn accepting(desk: &Desk) -> Clerk {
    Clerk::works(desk, |desk, item| async move {
        let Some(Kind::Message(message)) = item.kind else { return Ok(()) };
        if !message.r#type.ends_with(".Referral") {
            return Ok(());
        }
        let attached = message.body.as_ref().map(|body| body.attachments.clone()).unwrap_or_default();
        for (index, attachment) in (0u32..).zip(attached) {
            let content = insist(PATIENCE, || desk.attachment(&message.message_id, index)).await?;
            ensure!(crate::forge::sha256(&content)[..] == attachment.sha256[..], "attachment {index} is another");
        }
        let request_id = format!("answer-{}", message.message_id);
        insist(PATIENCE, || desk.move_referral(&message.case_id, &request_id, "accepted")).await?;
        Ok(())
    })
}

/// Which referral is sent next.
struct Numbers {
    next: AtomicUsize,
    least: usize,
    over: AtomicBool,
    words: String,
}

impl Numbers {
    /// None: enough were sent and the trouble is over.
    fn next(&self) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let enough = number >= self.least && self.over.load(Ordering::Relaxed);
        (!enough && number < REFERRALS_MAX).then_some(number)
    }
}

/// Message ids in the order of the request numbers.
async fn send(desk: &Desk, numbers: &Arc<Numbers>) -> Result<Vec<String>> {
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let (desk, numbers) = (desk.clone(), Arc::clone(numbers));
        let conversation = uuid::Uuid::new_v4().to_string();
        senders.spawn(async move {
            let mut sent = Vec::new();
            while let Some(number) = numbers.next() {
                sent.push((number, send_one(&desk, &conversation, &numbers.words, number).await?));
            }
            Ok::<_, anyhow::Error>(sent)
        });
    }
    let mut sent = Vec::new();
    while let Some(some) = senders.join_next().await {
        sent.extend(some??);
    }
    sent.sort();
    Ok(sent.into_iter().map(|(_, id)| id).collect())
}

async fn send_one(desk: &Desk, conversation: &str, words: &str, number: usize) -> Result<String> {
    let mut attached = Vec::new();
    if number.is_multiple_of(ATTACHMENT_EACH) {
        let content = sample::bytes(ATTACHMENT_BYTES, u64::try_from(number)?);
        attached.push(insist(PATIENCE, || desk.attach("family.pdf", &content)).await?.attachment_id);
    }
    let request = SendReferralRequest {
        sending: Some(sample::sending(&format!("load-{number}"), &attached)),
        to: "inps".into(),
        referral: Some(sample::referral(&format!("{words} {number}"))),
        conversation_id: conversation.to_owned(),
    };
    let first = insist(PATIENCE, || desk.send_referral(request.clone())).await?;
    let again = insist(PATIENCE, || desk.send_referral(request.clone())).await?;
    ensure!(again.repeated && again.message_id == first.message_id, "a retry made another referral: {again:?}");
    Ok(first.message_id)
}

/// Waits until nothing waits at an adapter.
async fn quiet(desk: &Desk) -> Result<()> {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let status = insist(PATIENCE, || desk.status()).await?;
        if status.outbox == 0 && status.inbox == 0 {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < until, "something waits for ever: {status:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn even(news: &Seen, work: &Seen, sent: &[String], count: usize) -> Result<()> {
    for seen in [news, work] {
        ensure!(seen.failed.is_empty(), "work failed: {:?}", seen.failed);
        ensure!(seen.shown_again.is_empty(), "shown again after its acknowledgement: {:?}", seen.shown_again);
    }
    let ids: BTreeSet<&String> = sent.iter().collect();
    ensure!(ids.len() == count, "{count} requests made {} messages", ids.len());
    let situations: BTreeSet<String> = work.situations().into_iter().collect();
    ensure!(work.situations().len() == count && situations.len() == count, "arrived: {:?}", work.situations());
    in_order(work)?;
    let arrived: BTreeSet<&String> = work.messages().map(|message| &message.message_id).collect();
    ensure!(arrived == ids, "sent {ids:?}, arrived {arrived:?}");
    let opened: Vec<&String> = news.notices().map(|notice| &notice.message_id).collect();
    ensure!(
        opened.len() == count && opened.iter().all(|id| ids.contains(*id)),
        "receipts: {:?}",
        news.notices().collect::<Vec<_>>()
    );
    ensure!(news.messages().count() == count, "{} answers to {count} referrals", news.messages().count());
    ensure!(work.notices_of("OPENED") == count, "{} receipts of {count} answers", work.notices_of("OPENED"));
    Ok(())
}

/// Within a conversation, referrals arrive in the order in which they were sent.
fn in_order(work: &Seen) -> Result<()> {
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for (message, situation) in work.messages().zip(work.situations()) {
        let number: usize = situation.rsplit(' ').next().unwrap_or_default().parse()?;
        let before = last.insert(&message.conversation_id, number);
        ensure!(before.is_none_or(|before| before < number), "{number} came after {before:?} of its conversation");
    }
    Ok(())
}
