//! `tramite inbox`: what arrived, one item after the other; kept as files and acknowledged when that is asked for.
//! Invariant: an item is acknowledged only after it and its attachments are on the disk, when they are to be kept.

use tramite_adapters::json::inbox_item_to_json;
use tramite_proto::pb::{
    backoffice::v1::{self as bo, inbox_item::Kind},
    body::v1::body,
};

use super::keep::keep;
use crate::{
    cli, connect,
    failure::{Exit, Failure},
    output::{Output, Tone, clock_time},
};

/// Shows it.
pub(crate) async fn run(asked: cli::Inbox, output: &Output) -> Result<Exit, Failure> {
    let mut adapter = connect::adapter(&asked.address).await?;
    // Items that are not acknowledged fill the window: without acknowledging, the largest one shows the most.
    let request = bo::WatchInboxRequest { follow: asked.watch, window: 1_000 };
    let answer = adapter.client.watch_inbox(request).await.map_err(|status| adapter.failed(&status))?;
    let mut items = answer.into_inner();
    let mut shown = 0_u64;
    if asked.watch {
        output.line(&output.word("Watching the inbox; Ctrl-C ends.", Tone::Faint));
    }
    loop {
        let item = tokio::select! {
            item = items.message() => item.map_err(|status| adapter.failed(&status))?,
            _ = tokio::signal::ctrl_c() => break,
        };
        let Some(item) = item else { break };
        shown += 1;
        output.answer(&inbox_item_to_json(&item), || line(&item, *output));
        if let Some(folder) = &asked.save {
            let kept = keep(&mut adapter, folder, &item).await?;
            output.line(&format!("    kept as {}", kept.display()));
        }
        if asked.acknowledge {
            let request = bo::AcknowledgeRequest { item_ids: vec![item.item_id.clone()] };
            adapter.client.acknowledge(request).await.map_err(|status| adapter.failed(&status))?;
        }
    }
    if shown == 0 && !asked.watch {
        output.line("Nothing waits. `tramite inbox --watch` waits for what arrives.");
    } else if !asked.acknowledge && !asked.watch {
        output.line("Not acknowledged: it will be shown again. --acknowledge says that it is safe with you.");
    }
    Ok(Exit::Ok)
}

/// An item in a few lines. A person's data is not printed: terminals keep what they show.
fn line(item: &bo::InboxItem, output: Output) -> String {
    let time = output.word(&clock_time(item.received_ms), Tone::Faint);
    match &item.kind {
        Some(Kind::Message(message)) => {
            let files = message.body.as_ref().map_or(0, |body| body.attachments.len());
            let files = match files {
                0 => String::new(),
                1 => ", 1 attachment".to_owned(),
                _ => format!(", {files} attachments"),
            };
            format!(
                "{time}  {} from {}{files}\n    case {}  message {}",
                what(message),
                message.from,
                message.case_id,
                message.message_id
            )
        }
        Some(Kind::Notice(notice)) => {
            let tone = if notice.kind == "OPENED" { Tone::Good } else { Tone::Warn };
            let reason = if notice.reason.is_empty() {
                String::new()
            } else {
                format!(" ({}: {})", notice.reason, notice.detail)
            };
            let kind = output.word(&notice.kind, tone);
            format!(
                "{time}  {kind} at {}{reason}\n    case {}  message {}",
                notice.to, notice.case_id, notice.message_id
            )
        }
        None => format!("{time}  an item of a kind that this version does not know"),
    }
}

/// What a message is, and what it moves its case to.
fn what(message: &bo::ReceivedMessage) -> String {
    match message.body.as_ref().and_then(|body| body.kind.as_ref()) {
        Some(body::Kind::Referral(referral)) => {
            let about = referral.benefits.iter().chain(&referral.needs).map(String::as_str).collect::<Vec<_>>();
            format!("referral ({})", about.join(", "))
        }
        Some(body::Kind::ReferralUpdate(update)) => format!("referral {}", update.status),
        Some(body::Kind::DocumentRequest(request)) => {
            let codes = request.documents.iter().map(|wanted| wanted.document.as_str()).collect::<Vec<_>>();
            format!("document request ({})", codes.join(", "))
        }
        Some(body::Kind::DocumentResponse(response)) => format!("documents {}", response.status),
        Some(body::Kind::DocumentRequestUpdate(update)) => format!("document request {}", update.status),
        None => "message".to_owned(),
    }
}
