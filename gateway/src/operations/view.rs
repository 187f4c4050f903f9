//! What operators see: queues, messages, attempts, from the store's rows and facts. Reads only; shows no content and nothing of a person.

use std::collections::BTreeMap;

use tramite_proto::{
    ids::MessageId,
    pb::{
        journal::v1::Outcome,
        operations::v1::{Attempt, Message, Overview, Queue},
    },
    reason::{Reason, Refused},
    states::delivery::State,
};
use tramite_store::{MessageRow, MessageState, QueueStats, ReadError, accepted};

use crate::{holds, hub::Hub, limits, metrics};

/// Which messages to list.
#[derive(Debug, Clone, Copy)]
pub(super) enum Listing {
    /// Those that are not final.
    Waiting,
    /// Those that were given up.
    DeadLetters,
}

/// The state of the whole.
pub(super) fn overview(hub: &Hub) -> Result<Overview, Refused> {
    let queues = queues(hub)?;
    let uptime_ms = hub.clock.now_ms().saturating_sub(hub.started_ms);
    Ok(Overview {
        gateway: hub.config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: u64::try_from(uptime_ms / 1_000).unwrap_or(0),
        sequence: hub.store.sequence(),
        waiting: queues.iter().map(|queue| queue.waiting).sum(),
        dead_letters: queues.iter().map(|queue| queue.dead_letters).sum(),
        accepted: hub.metrics.totals.accepted(),
        delivered: hub.metrics.totals.delivered(),
        refused: hub.metrics.totals.refused(),
        queues,
        clock_held: hub.store.clock_hold().map_err(|error| hub.read_failed(&error))?.unwrap_or_default(),
        store_troubles: hub.store.health().troubles(),
    })
}

/// One row for each institution, those that are no longer configured but still have something included.
pub(super) fn queues(hub: &Hub) -> Result<Vec<Queue>, Refused> {
    let stats = hub.store.queues().map_err(|error| hub.read_failed(&error))?;
    let mut rows: BTreeMap<String, QueueStats> = stats.into_iter().map(|stats| (stats.queue.clone(), stats)).collect();
    for institution in &hub.config.institutions {
        rows.entry(institution.name.clone()).or_default();
    }
    rows.into_iter().map(|(name, stats)| queue(hub, name, &stats)).collect()
}

fn queue(hub: &Hub, name: String, stats: &QueueStats) -> Result<Queue, Refused> {
    let now_ms = hub.clock.now_ms();
    let retrying = if stats.waiting == 0 {
        0
    } else {
        let first = hub.store.messages(&name, 0, limits::RETRYING_SCAN_MAX).map_err(|error| hub.read_failed(&error))?;
        first.iter().filter(|row| row.state == MessageState::Waiting && row.due_ms > now_ms).count()
    };
    let held = hub.holds.is_held(&name);
    Ok(Queue {
        online: hub.presence.is_online(&name),
        held,
        held_because: if held { held_because(hub, &name)? } else { String::new() },
        institution: name,
        waiting: stats.waiting,
        leased: stats.leased,
        retrying: u64::try_from(retrying).unwrap_or(u64::MAX),
        dead_letters: stats.dead_letters,
        oldest_accepted_ms: stats.oldest_ms,
    })
}

/// What the operator said who holds it; of one whose record says it with more than its name.
fn held_because(hub: &Hub, name: &str) -> Result<String, Refused> {
    let record = format!("{}{name}", holds::RECORD_PREFIX);
    let found = hub.store.records(&record).map_err(|error| hub.read_failed(&error))?;
    let value = found.into_iter().find(|row| row.name == record).map(|row| row.value).unwrap_or_default();
    Ok(String::from_utf8_lossy(&value).into_owned())
}

/// Brings the gauges of queues and store up to date, for whoever reads them next.
pub(crate) fn refresh_gauges(hub: &Hub) {
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let health = hub.store.health();
    hub.metrics.store_groups.set(gauge(health.groups));
    hub.metrics.store_facts.set(gauge(health.facts));
    hub.metrics.store_set_aside.set(gauge(health.set_aside));
    hub.metrics.store_not_erased.set(gauge(health.not_erased));
    hub.metrics.store_rebuilds.set(gauge(health.rebuilds));
    hub.metrics.store_full.set(i64::from(health.full));
    let queues = match hub.store.queues() {
        Ok(queues) => queues,
        Err(error) => {
            return tracing::error!(%error, "how much waits cannot be read: the metrics show what did before; look at the disk");
        }
    };
    for stats in queues {
        let label = metrics::institution(&stats.queue);
        hub.metrics.waiting.get_or_create(&label).set(gauge(stats.waiting));
        hub.metrics.dead_waiting.get_or_create(&label).set(gauge(stats.dead_letters));
    }
}

/// A page of messages, oldest first within each institution, and the token of the next page (empty: none).
pub(super) fn page(
    hub: &Hub,
    listing: Listing,
    institution: &str,
    page_size: u32,
    token: &str,
) -> Result<(Vec<Message>, String), Refused> {
    let size = if page_size == 0 { limits::PAGE_ROWS_DEFAULT } else { page_size.min(limits::PAGE_ROWS_MAX) };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let (from, mut after) = read_token(token)?;
    let names: Vec<String> = if institution.is_empty() {
        queues(hub)?.into_iter().map(|queue| queue.institution).filter(|name| *name >= from).collect()
    } else {
        vec![institution.to_owned()]
    };
    let mut messages = Vec::new();
    for name in names {
        if name != from {
            after = 0;
        }
        let wanted = size - messages.len();
        let rows = match listing {
            Listing::Waiting => hub.store.messages(&name, after, wanted),
            Listing::DeadLetters => hub.store.dead_letters(&name, after, wanted),
        };
        let rows = rows.map_err(|error| hub.read_failed(&error))?;
        let last = rows.last().map(|row| row.sequence);
        for row in &rows {
            if let Some(mut message) = of_row(hub, row)? {
                message.attempts = attempts(hub, row)?;
                messages.push(message);
            }
        }
        if let Some(last) = last.filter(|_| messages.len() >= size) {
            return Ok((messages, format!("{name}/{last}")));
        }
    }
    Ok((messages, String::new()))
}

fn read_token(token: &str) -> Result<(String, u64), Refused> {
    if token.is_empty() {
        return Ok((String::new(), 0));
    }
    let invalid =
        || Refused::new(Reason::FieldInvalid, "It is the token that the page before gave.").field("page_token");
    let (name, after) = token.split_once('/').ok_or_else(invalid)?;
    Ok((name.to_owned(), after.parse().map_err(|_| invalid())?))
}

/// One message with the history of every attempt.
pub(super) fn message(hub: &Hub, id: &str) -> Result<Message, Refused> {
    let row = row(hub, id)?;
    let mut message = of_row(hub, &row)?.ok_or_else(|| Refused::because(Reason::UnknownMessage))?;
    message.attempts = attempts(hub, &row)?;
    Ok(message)
}

/// Every attempt that failed, and last that it is set aside, which is no fact.
fn attempts(hub: &Hub, row: &MessageRow) -> Result<Vec<Attempt>, Refused> {
    let history = hub.store.history(row.sequence).map_err(|error| hub.read_failed(&error))?;
    let shown = |attempt: tramite_store::Attempt| Attempt {
        number: attempt.attempt,
        at_ms: attempt.at_ms,
        reason: attempt.reason,
        detail: attempt.detail,
    };
    Ok(history.into_iter().map(shown).chain(set_aside(hub, row)).collect())
}

/// That a message waits in vain: the store sets aside what is damaged.
fn set_aside(hub: &Hub, row: &MessageRow) -> Option<Attempt> {
    // Contents are read from the disk, which nobody need do for what is well.
    if row.state != MessageState::Waiting || hub.store.health().set_aside == 0 {
        return None;
    }
    let Err(ReadError::Damaged(_)) = hub.store.content(row.sequence) else { return None };
    Some(Attempt {
        number: row.attempts.saturating_add(1),
        at_ms: hub.clock.now_ms(),
        reason: Reason::StoreFailed.as_str().to_owned(),
        detail: "its content is damaged: it is not offered any more and ends with its expiry; look at the disk"
            .to_owned(),
    })
}

/// The row of a message by the text of its id.
pub(super) fn row(hub: &Hub, id: &str) -> Result<MessageRow, Refused> {
    let unknown = || Refused::because(Reason::UnknownMessage).field("message_id");
    let id: MessageId = id.parse().map_err(|_| unknown())?;
    let row = hub.store.message(id.as_bytes()).map_err(|error| hub.read_failed(&error))?;
    row.ok_or_else(unknown)
}

/// None: it went at the end of its retention since its row was read.
fn of_row(hub: &Hub, row: &MessageRow) -> Result<Option<Message>, Refused> {
    let consigned = match hub.consigned(row.sequence) {
        Err(Refused { reason: Reason::DeliveryUnknown, .. }) => return Ok(None),
        consigned => consigned?,
    };
    let origin = &consigned.origin;
    let Some(accepted) = accepted(&consigned.fact) else { return Ok(None) };
    let erased = matches!(row.state, MessageState::Final(_));
    let parts: u64 = accepted.parts.iter().map(|part| part.length).sum();
    let body = accepted.content.as_ref().map_or(0, |content| u64::from(content.length));
    Ok(Some(Message {
        message_id: origin.jti.to_string(),
        conversation_id: origin.cid.to_string(),
        case_id: origin.case.to_string(),
        issuer: origin.iss.to_string(),
        audience: origin.aud.to_string(),
        r#type: origin.mt.clone(),
        state: state(hub, row).as_str().to_owned(),
        accepted_ms: row.accepted_ms,
        expires_ms: row.expires_ms,
        due_ms: if row.due_ms > hub.clock.now_ms() { row.due_ms } else { 0 },
        attempts: Vec::new(),
        sequence: row.sequence,
        size: if erased { 0 } else { body + parts },
    }))
}

fn state(hub: &Hub, row: &MessageRow) -> State {
    match row.state {
        MessageState::Leased => State::Leased,
        MessageState::DeadLettered => State::DeadLettered,
        MessageState::Waiting if hub.holds.is_held(&row.queue) => State::Held,
        MessageState::Waiting if row.due_ms > hub.clock.now_ms() => State::RetryWait,
        MessageState::Waiting => State::Queued,
        MessageState::Final(Outcome::Refused) => State::Refused,
        MessageState::Final(Outcome::Expired) => State::Expired,
        MessageState::Final(Outcome::Discarded) => State::Discarded,
        MessageState::Final(_) => State::Delivered,
    }
}
