//! `tramite ops …`: what is queued, late or failed at the gateway, and putting it right.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tonic::{Response, Status};
use tramite_proto::{
    pb::operations::v1::{self as ops, operations_client::OperationsClient},
    reason::Reason,
};

use crate::{
    cli::{Decision, Ops, OpsCommand, Page},
    connect::{self, Gateway, Patient},
    failure::{Exit, Failure},
    output::{Output, Tone, bytes, clock_time, short_id, short_time, span},
    sheet::{Sheet, Step},
};

/// A page of a search by a part of an id.
const PAGE: u32 = 1_000;
/// The least of an id that is searched for.
const PART_MIN: usize = 4;
/// Characters of a whole id.
const WHOLE: usize = 36;

/// Does what is asked.
pub(crate) async fn run(asked: Ops, output: &Output) -> Result<Exit, Failure> {
    let gateway = connect::operations(&asked.address)?;
    let mut client = gateway.client.clone();
    let mut command = asked.command;
    if let OpsCommand::Message { id }
    | OpsCommand::Redrive(Decision { id, .. })
    | OpsCommand::Discard(Decision { id, .. }) = &mut command
    {
        *id = whole_id(&gateway, id).await?;
    }
    let answer = match command {
        OpsCommand::Overview => overview(&mut client, *output).await,
        OpsCommand::Queues => queues(&mut client, *output).await,
        OpsCommand::Messages(page) => messages(&mut client, page, *output).await,
        OpsCommand::Message { id } => message(&mut client, id, *output).await,
        OpsCommand::DeadLetters(page) => dead_letters(&mut client, page, *output).await,
        OpsCommand::Redrive(asked) => {
            let request = ops::RedriveRequest { message_id: asked.id.clone(), reason: asked.reason };
            client.redrive(request).await.map(|_| done(*output, "redriven", &asked.id, "It is in its queue again."))
        }
        OpsCommand::Discard(asked) => {
            let request = ops::DiscardRequest { message_id: asked.id.clone(), reason: asked.reason };
            client.discard(request).await.map(|_| done(*output, "discarded", &asked.id, "Its sender is told."))
        }
        OpsCommand::Hold(asked) => {
            let request = ops::HoldRequest { institution: asked.institution.clone(), reason: asked.reason };
            let next = match asked.institution.as_str() {
                "clock" => "The clock ends, deletes and gives up nothing; `tramite ops release clock` goes on.",
                _ => "Messages for it are accepted and wait; `tramite ops release` goes on.",
            };
            client.hold(request).await.map(|_| done(*output, "held", &asked.institution, next))
        }
        OpsCommand::Release(asked) => {
            let request = ops::ReleaseRequest { institution: asked.institution.clone(), reason: asked.reason };
            let next = match asked.institution.as_str() {
                "clock" => "What is past its time by the clock ends or is deleted now.",
                _ => "Deliveries go on.",
            };
            client.release(request).await.map(|_| done(*output, "released", &asked.institution, next))
        }
    };
    answered(&gateway, answer)
}

/// The id of the one message that is meant by the beginning or the end of its id: of those that have not ended, and dead letters.
async fn whole_id(gateway: &Gateway, part: &str) -> Result<String, Failure> {
    let part = part.to_lowercase();
    if part.len() >= WHOLE {
        return Ok(part);
    }
    if part.len() < PART_MIN {
        let advice = format!("Give at least {PART_MIN} characters of its id; `tramite ops messages` lists them.");
        return Err(Failure::usage(format!("{part} is too short for a message"), advice));
    }
    let mut found = BTreeSet::new();
    let mut keep = |messages: Vec<ops::Message>| {
        let ids = messages.into_iter().map(|message| message.message_id);
        found.extend(ids.filter(|id| id.starts_with(&part) || id.ends_with(&part)));
    };
    let mut client = gateway.client.clone();
    let (institution, page_size) = (String::new(), PAGE);
    let mut page_token = String::new();
    loop {
        let request = ops::ListMessagesRequest { institution: institution.clone(), page_size, page_token };
        let page = client.list_messages(request).await.map_err(|status| gateway.failed(&status))?.into_inner();
        keep(page.messages);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    loop {
        let request = ops::ListDeadLettersRequest { institution: institution.clone(), page_size, page_token };
        let page = client.list_dead_letters(request).await.map_err(|status| gateway.failed(&status))?.into_inner();
        keep(page.messages);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let found: Vec<String> = found.into_iter().collect();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Failure::new(
            Exit::Failed,
            format!("no message that waits or was given up begins or ends with {part}"),
            "`tramite ops messages` and `tramite ops dead-letters` list them; one that has ended needs its whole id.",
        )),
        several => {
            let sentence = format!("{} messages begin or end with {part}", several.len());
            Err(Failure::usage(sentence, format!("Give more of its id: {}", several.join(", "))))
        }
    }
}

fn answered(gateway: &Gateway, answer: Result<(), Status>) -> Result<Exit, Failure> {
    answer.map(|()| Exit::Ok).map_err(|status| {
        let mut failure = gateway.failed(&status);
        if failure.reason.as_deref() == Some(Reason::UnknownInstitution.as_str()) {
            // An operator has no adapter to ask.
            failure.advice = "`tramite ops queues` lists the institutions; `clock` stands for the clock.".to_owned();
        }
        failure
    })
}

fn done(output: Output, what: &str, whom: &str, next: &str) {
    output.answer(&json!({ "done": what, "id": whom }), || format!("{whom} is {what}. {next}"));
}

async fn overview(client: &mut OperationsClient<Patient>, output: Output) -> Result<(), Status> {
    let answer = client.get_overview(ops::GetOverviewRequest {}).await.map(Response::into_inner)?;
    let value = json!({
        "gateway": answer.gateway, "version": answer.version, "uptime_s": answer.uptime_s, "sequence": answer.sequence,
        "waiting": answer.waiting, "dead_letters": answer.dead_letters, "accepted": answer.accepted,
        "delivered": answer.delivered, "refused": answer.refused, "clock_held": answer.clock_held,
        "store_troubles": answer.store_troubles,
        "queues": answer.queues.iter().map(queue_value).collect::<Vec<_>>(),
    });
    output.answer(&value, || {
        let up = span(i64::try_from(answer.uptime_s).unwrap_or(i64::MAX).saturating_mul(1000));
        let clock = if answer.clock_held.is_empty() {
            String::new()
        } else {
            let held = format!(
                "the clock is held ({}): nothing expires, is deleted or given up. Look at the gateway's date and time, set them if they are \
                 wrong, and say so: tramite ops release clock --reason '…'",
                answer.clock_held
            );
            format!("\n{}", output.word(&held, Tone::Warn))
        };
        let store = output.troubles(&answer.store_troubles);
        format!(
            "{} {}, up {up}, {} facts in its journal{clock}{store}\nwaiting {}, dead letters {}; since start accepted {}, delivered {}, refusals {}\n{}",
            answer.gateway,
            answer.version,
            answer.sequence,
            answer.waiting,
            answer.dead_letters,
            answer.accepted,
            answer.delivered,
            answer.refused,
            queues_page(&answer.queues, output),
        )
    });
    Ok(())
}

async fn queues(client: &mut OperationsClient<Patient>, output: Output) -> Result<(), Status> {
    let answer = client.list_queues(ops::ListQueuesRequest {}).await.map(Response::into_inner)?;
    let value = json!({ "queues": answer.queues.iter().map(queue_value).collect::<Vec<_>>() });
    output.answer(&value, || queues_page(&answer.queues, output));
    Ok(())
}

fn queue_value(queue: &ops::Queue) -> Value {
    json!({
        "institution": queue.institution, "online": queue.online, "held": queue.held, "waiting": queue.waiting,
        "leased": queue.leased, "retrying": queue.retrying, "dead_letters": queue.dead_letters,
        "oldest_accepted_ms": queue.oldest_accepted_ms, "held_because": queue.held_because,
    })
}

/// The table, and why who is held is held.
fn queues_page(queues: &[ops::Queue], output: Output) -> String {
    let held = queues.iter().filter(|queue| queue.held);
    let why: String = held.map(|queue| format!("\n{} is held: {}", queue.institution, queue.held_because)).collect();
    format!("{}{why}", queue_table(queues, output))
}

fn queue_table(queues: &[ops::Queue], output: Output) -> Sheet {
    let mut table = output
        .table(&["institution", "online", "held", "waiting", "sent", "retry", "dead", "oldest"])
        .steps(&[Step::Short(7, short_time), Step::Drop(7), Step::Drop(2)]);
    for queue in queues {
        let oldest = if queue.oldest_accepted_ms == 0 { String::new() } else { clock_time(queue.oldest_accepted_ms) };
        let flag =
            |set: bool, good: Tone, bad: Tone| if set { output.cell("yes", good) } else { output.cell("no", bad) };
        table.add_row([
            output.cell(&queue.institution, Tone::Plain),
            flag(queue.online, Tone::Good, Tone::Bad),
            flag(queue.held, Tone::Warn, Tone::Faint),
            output.cell(queue.waiting, Tone::Plain),
            output.cell(queue.leased, Tone::Plain),
            output.cell(queue.retrying, if queue.retrying == 0 { Tone::Plain } else { Tone::Warn }),
            output.cell(queue.dead_letters, if queue.dead_letters == 0 { Tone::Plain } else { Tone::Bad }),
            output.cell(oldest, Tone::Faint),
        ]);
    }
    table
}

async fn messages(client: &mut OperationsClient<Patient>, page: Page, output: Output) -> Result<(), Status> {
    let request =
        ops::ListMessagesRequest { institution: page.institution, page_size: page.limit, page_token: String::new() };
    let answer = client.list_messages(request).await.map(Response::into_inner)?;
    list(&answer.messages, !answer.next_page_token.is_empty(), "Nothing waits.", output);
    Ok(())
}

async fn dead_letters(client: &mut OperationsClient<Patient>, page: Page, output: Output) -> Result<(), Status> {
    let request =
        ops::ListDeadLettersRequest { institution: page.institution, page_size: page.limit, page_token: String::new() };
    let answer = client.list_dead_letters(request).await.map(Response::into_inner)?;
    list(&answer.messages, !answer.next_page_token.is_empty(), "No dead letters.", output);
    Ok(())
}

fn list(messages: &[ops::Message], more: bool, none: &str, output: Output) {
    let value = json!({ "messages": messages.iter().map(message_value).collect::<Vec<_>>(), "more": more });
    output.answer(&value, || {
        if messages.is_empty() {
            return none.to_owned();
        }
        let table = message_table(messages, output);
        let more = if more { "\nThere are more: give a larger --limit." } else { "" };
        format!("{table}\n`tramite ops message MESSAGE` shows one with every attempt.{more}")
    });
}

/// The state stays at every width: it says whether anything is to be done.
fn message_table(messages: &[ops::Message], output: Output) -> Sheet {
    let mut table = output.table(&["message", "way", "type", "state", "accepted", "attempts", "last reason"]).steps(&[
        Step::Short(0, short_id),
        Step::Short(4, short_time),
        Step::Drop(2),
        Step::Flow(1),
        Step::Drop(4),
    ]);
    for message in messages {
        let last = message.attempts.last().map(|attempt| attempt.reason.clone()).unwrap_or_default();
        table.add_row([
            output.cell(&message.message_id, Tone::Plain),
            output.cell(format!("{} → {}", message.issuer, message.audience), Tone::Plain),
            output.cell(short_type(&message.r#type), Tone::Plain),
            output.cell(&message.state, Tone::Plain),
            output.cell(clock_time(message.accepted_ms), Tone::Faint),
            output.cell(message.attempts.len(), Tone::Plain),
            output.cell(last, Tone::Warn),
        ]);
    }
    table
}

async fn message(client: &mut OperationsClient<Patient>, id: String, output: Output) -> Result<(), Status> {
    let answer = client.get_message(ops::GetMessageRequest { message_id: id }).await.map(Response::into_inner)?;
    output.answer(&message_value(&answer), || {
        let mut table = output.table(&["attempt", "time", "reason", "detail"]).steps(&[Step::Flow(3)]);
        for attempt in &answer.attempts {
            table.add_row([
                output.cell(attempt.number, Tone::Plain),
                output.cell(clock_time(attempt.at_ms), Tone::Faint),
                output.cell(&attempt.reason, Tone::Warn),
                output.cell(&attempt.detail, Tone::Plain),
            ]);
        }
        let attempts = if answer.attempts.is_empty() { "no attempt has failed".to_owned() } else { table.to_string() };
        format!(
            "{} {}\n{} → {}, case {}, conversation {}\n{}, accepted {}, expires {}, {}\n{attempts}",
            short_type(&answer.r#type),
            answer.message_id,
            answer.issuer,
            answer.audience,
            answer.case_id,
            answer.conversation_id,
            answer.state,
            clock_time(answer.accepted_ms),
            clock_time(answer.expires_ms),
            bytes(answer.size),
        )
    });
    Ok(())
}

fn message_value(message: &ops::Message) -> Value {
    let attempts = message.attempts.iter().map(|attempt| {
        json!({"number": attempt.number, "at_ms": attempt.at_ms, "reason": attempt.reason, "detail": attempt.detail})
    });
    json!({
        "message_id": message.message_id, "conversation_id": message.conversation_id, "case_id": message.case_id,
        "issuer": message.issuer, "audience": message.audience, "type": message.r#type, "state": message.state,
        "accepted_ms": message.accepted_ms, "expires_ms": message.expires_ms, "due_ms": message.due_ms,
        "sequence": message.sequence, "size": message.size, "attempts": attempts.collect::<Vec<_>>(),
    })
}

/// A message type without its package.
fn short_type(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_80_columns_what_is_to_be_done_is_still_seen() {
        let (output, longest) = (Output::to_a_pipe(), "citta-metropolitana".to_owned());
        let attempt = ops::Attempt { reason: "RECIPIENT_KEY_UNKNOWN".into(), ..ops::Attempt::default() };
        let message = ops::Message {
            message_id: "01a217b6-3fbc-7d9e-9d6c-9ec3bffa1156".into(),
            issuer: longest.clone(),
            audience: longest.clone(),
            r#type: "Referral".into(),
            state: "DEAD_LETTERED".into(),
            accepted_ms: 1_795_694_149_000,
            attempts: vec![attempt],
            ..ops::Message::default()
        };
        let queue = ops::Queue { institution: longest, oldest_accepted_ms: 1_795_694_149_000, ..ops::Queue::default() };
        for (table, words) in [
            (message_table(&[message], output), ["bffa1156", "DEAD_LETTERED", "RECIPIENT_KEY_UNKNOWN", "attempts"]),
            (queue_table(&[queue], output), ["citta-metropolitana", "online", "dead", "2026-11-26"]),
        ] {
            let text = table.fitted(80);
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
    }

    #[test]
    fn queues_say_why_they_are_held() {
        let (institution, held_because) = ("inps".to_owned(), "maintenance until noon".to_owned());
        let held = ops::Queue { institution, held: true, held_because, ..ops::Queue::default() };
        let free = ops::Queue { institution: "caritas".to_owned(), ..ops::Queue::default() };
        let shown = queues_page(&[free, held], Output::to_a_pipe());
        assert!(shown.ends_with("\ninps is held: maintenance until noon"), "{shown}");
        assert_eq!(shown.matches("held:").count(), 1, "{shown}");
    }
}
