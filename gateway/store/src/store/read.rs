//! Looking things up: messages, facts, cases, queues, records, what is due.
//!
//! Knows: which rows answer which question. Never changes anything. Lists are bounded: by the caller's limit, and where there is none
//! by a constant here.

use std::sync::Arc;

use bytes::Bytes;
use tramite_proto::{
    ids::{CaseId, Digest},
    pb::journal::v1::{Accepted, Fact, Outcome, fact::Kind},
};

use super::Store;
use crate::{
    answer::{Attempt, CaseRow, Due, MessageRow, MessageState, QueueStats, RecordRow},
    clock,
    error::{MapError, ReadError},
    map::Pair,
    overlay::{Rows as _, successor},
    project::{Facts as _, row},
    rows::{self, CaseValue, IdRow, ItemRow, QueueRow, RequestRow},
};

/// Facts of one case, attempts of one message, queues of one store: beyond it something else is wrong.
const LIST_MAX: usize = 10_000;
/// Records under one prefix: institutions times key records.
const RECORDS_MAX: usize = 100_000;
/// Rows looked at in one go.
const LOOK_AT_ONCE: usize = 256;
/// Messages that cannot be read and are asked for again at each look for what is due.
const UNREADABLE_MAX: u64 = 10_000;

fn case_row(case_id: &[u8], value: CaseValue) -> Result<CaseRow, ReadError> {
    let case_id = CaseId::from_bytes(case_id).map_err(|e| MapError(format!("a case's row: {e}")))?;
    Ok(CaseRow {
        case_id,
        kind: value.kind,
        opener: value.opener,
        responder: value.responder,
        status: value.status,
        reason: value.reason,
        conversation: value.conversation,
        deadline_ms: value.deadline_ms,
        opened_sequence: value.opened_sequence,
        moved_sequence: value.moved_sequence,
        opened_ms: value.opened_ms,
        moved_ms: value.moved_ms,
    })
}

impl Store {
    fn row<T: prost::Message + Default>(&self, key: &[u8]) -> Result<Option<T>, ReadError> {
        Ok(row(&self.shared.outbox, key)?)
    }

    fn prefixed(&self, prefix: &[u8], limit: usize) -> Result<Vec<Pair>, ReadError> {
        Ok(self.shared.outbox.scan(prefix, &rows::after(prefix), limit)?)
    }

    /// What was accepted under an id, as long as it is remembered.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn message(&self, id: &[u8]) -> Result<Option<MessageRow>, ReadError> {
        let Some(row) = self.row::<IdRow>(&rows::id(id))? else { return Ok(None) };
        self.message_of(row)
    }

    /// What was accepted for a request id.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn request(&self, request_id: &str) -> Result<Option<MessageRow>, ReadError> {
        match self.row::<RequestRow>(&rows::request(request_id))? {
            Some(request) => self.message_at(request.sequence),
            None => Ok(None),
        }
    }

    /// What was accepted under a sequence, as long as its id is remembered; none for facts of other kinds.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn message_at(&self, sequence: u64) -> Result<Option<MessageRow>, ReadError> {
        match &self.fact(sequence)?.kind {
            Some(Kind::Accepted(accepted)) => {
                let row = self.row::<IdRow>(&rows::id(&accepted.id))?.filter(|row| row.sequence == sequence);
                row.map_or(Ok(None), |row| self.message_of(row))
            }
            _ => Ok(None),
        }
    }

    /// None: it was forgotten meanwhile.
    fn message_of(&self, mut id: IdRow) -> Result<Option<MessageRow>, ReadError> {
        let fact = self.fact(id.sequence)?;
        let Some(Kind::Accepted(accepted)) = &fact.kind else {
            return Err(self.shared.outbox.distrust("an id's row names another fact").into());
        };
        let item = self.row::<ItemRow>(&rows::item(&accepted.queue, id.sequence))?;
        if item.is_none() && id.final_sequence == 0 {
            // It ended between the two looks: now its id says how.
            let now = self.row::<IdRow>(&rows::id(&accepted.id))?.filter(|now| now.sequence == id.sequence);
            let Some(now) = now else { return Ok(None) };
            id = now;
        }
        self.message_row(id.sequence, fact.at_ms, accepted, item.as_ref(), &id).map(Some)
    }

    fn message_row(
        &self,
        sequence: u64,
        accepted_ms: i64,
        accepted: &Accepted,
        item: Option<&ItemRow>,
        id: &IdRow,
    ) -> Result<MessageRow, ReadError> {
        let state = match item {
            None => MessageState::Final(Outcome::try_from(id.outcome).unwrap_or_default()),
            Some(item) if item.dead => MessageState::DeadLettered,
            Some(_) if self.shared.lanes.lane(&accepted.queue).is_leased(sequence) => MessageState::Leased,
            Some(_) => MessageState::Waiting,
        };
        let digest = Digest::from_bytes(&accepted.digest).map_err(|e| MapError(format!("a message's digest: {e}")))?;
        Ok(MessageRow {
            sequence,
            id: accepted.id.clone(),
            digest,
            queue: accepted.queue.clone(),
            order: accepted.order.clone(),
            case_id: CaseId::from_bytes(&accepted.case_id).ok(),
            state,
            attempts: item.map_or(id.attempts, |item| item.attempts),
            due_ms: item.map_or(0, |item| item.due_ms),
            expires_ms: accepted.expires_ms,
            accepted_ms,
            final_sequence: id.final_sequence,
        })
    }

    /// A fact.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn fact(&self, sequence: u64) -> Result<Arc<Fact>, ReadError> {
        self.shared.fact(sequence)
    }

    /// Facts after a sequence, in order, of the next so many sequences; those that retention took are left out.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn facts(&self, after: u64, limit: usize) -> Result<Vec<(u64, Arc<Fact>)>, ReadError> {
        let to = self.sequence().min(after.saturating_add(limit as u64));
        let facts = (after + 1..=to).filter_map(|sequence| match self.fact(sequence) {
            Err(ReadError::NoFact(_)) => None,
            fact => Some(fact.map(|fact| (sequence, fact))),
        });
        facts.collect()
    }

    /// The content behind a fact; empty when it has none.
    ///
    /// # Errors
    /// See [`ReadError`]; `Erased` when its message is final.
    pub fn content(&self, sequence: u64) -> Result<Bytes, ReadError> {
        self.shared.fact_and_content(sequence).map(|(_, content)| content)
    }

    /// Every failed attempt and redrive of a message, oldest first; the attempt at which it was given up among them.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn history(&self, sequence: u64) -> Result<Vec<Attempt>, ReadError> {
        let to = rows::history(sequence, u64::MAX);
        let found = self.shared.outbox.scan(&rows::history(sequence, 0), &to, LIST_MAX)?;
        let mut attempts = Vec::with_capacity(found.len());
        for (key, _) in found {
            let sequence = rows::number_at_end(&key);
            let fact = self.fact(sequence)?;
            let at_ms = fact.at_ms;
            match &fact.kind {
                Some(Kind::AttemptFailed(failed)) => attempts.push(Attempt {
                    sequence,
                    at_ms,
                    attempt: failed.attempt,
                    reason: failed.reason.clone(),
                    detail: failed.detail.clone(),
                    due_ms: failed.due_ms,
                }),
                Some(Kind::Redriven(redriven)) => attempts.push(Attempt {
                    sequence,
                    at_ms,
                    attempt: 0,
                    reason: redriven.reason.clone(),
                    detail: redriven.by.clone(),
                    due_ms: 0,
                }),
                Some(Kind::Settled(given_up)) => attempts.push(Attempt {
                    sequence,
                    at_ms,
                    attempt: attempts.last().map_or(0, |before| before.attempt).saturating_add(1),
                    reason: given_up.reason.clone(),
                    detail: given_up.detail.clone(),
                    due_ms: 0,
                }),
                _ => return Err(self.shared.outbox.distrust("a history row names another fact").into()),
            }
        }
        Ok(attempts)
    }

    /// A queue at a glance; zeros for one that never held anything.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn queue(&self, queue: &str) -> Result<QueueStats, ReadError> {
        let counts: QueueRow = self.row(&rows::queue(queue))?.unwrap_or_default();
        let oldest = self.shared.outbox.scan(&rows::item(queue, 0), &rows::item(queue, u64::MAX), 1)?;
        let oldest = oldest.into_iter().next().map(|(_, value)| rows::decode::<ItemRow>(value)).transpose()?;
        Ok(QueueStats {
            queue: queue.to_owned(),
            waiting: counts.waiting,
            dead_letters: counts.dead,
            leased: self.shared.lanes.lane(queue).leased(),
            oldest_ms: oldest.map_or(0, |item| item.accepted_ms),
            accepted: counts.accepted,
            settled: counts.settled,
        })
    }

    /// All queues that ever held something.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn queues(&self) -> Result<Vec<QueueStats>, ReadError> {
        let found = self.prefixed(&rows::queue(""), LIST_MAX)?;
        let name = |key: &[u8]| String::from_utf8_lossy(rows::rest(key)).into_owned();
        found.iter().map(|(key, _)| self.queue(&name(key))).collect()
    }

    /// Messages of a queue that are not final, dead letters included, notices and damaged records left out, after a sequence.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn messages(&self, queue: &str, after: u64, limit: usize) -> Result<Vec<MessageRow>, ReadError> {
        let to = rows::item(queue, u64::MAX);
        let mut from = rows::item(queue, after.saturating_add(1));
        let mut messages = Vec::new();
        loop {
            let found = self.shared.outbox.scan(&from, &to, LOOK_AT_ONCE)?;
            for (key, _) in &found {
                if messages.len() >= limit {
                    return Ok(messages);
                }
                messages.extend(self.unless_damaged(queue, rows::number_at_end(key))?);
            }
            match found.last() {
                Some((key, _)) if found.len() == LOOK_AT_ONCE => from = successor(key),
                _ => return Ok(messages),
            }
        }
    }

    /// Dead letters of a queue, after a sequence.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn dead_letters(&self, queue: &str, after: u64, limit: usize) -> Result<Vec<MessageRow>, ReadError> {
        let from = rows::dead(queue, after.saturating_add(1));
        let found = self.shared.outbox.scan(&from, &rows::dead(queue, u64::MAX), limit)?;
        found.iter().filter_map(|(key, _)| self.unless_damaged(queue, rows::number_at_end(key)).transpose()).collect()
    }

    /// A case.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn case(&self, id: CaseId) -> Result<Option<CaseRow>, ReadError> {
        let value = self.row::<CaseValue>(&rows::case(id.as_bytes()))?;
        value.map(|value| case_row(id.as_bytes(), value)).transpose()
    }

    /// Cases after an id, in the order of their ids, which is that of their opening.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn cases(&self, after: Option<CaseId>, limit: usize) -> Result<Vec<CaseRow>, ReadError> {
        let all = rows::case(&[]);
        let from = after.map_or_else(|| all.clone(), |id| successor(&rows::case(id.as_bytes())));
        let found = self.shared.outbox.scan(&from, &rows::after(&all), limit)?;
        found.into_iter().map(|(key, value)| case_row(rows::rest(&key), rows::decode(value)?)).collect()
    }

    /// The facts of a case, oldest first.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn timeline(&self, id: CaseId) -> Result<Vec<(u64, Arc<Fact>)>, ReadError> {
        let (mut timeline, mut after, to) = (Vec::new(), 0, rows::timeline(id.as_bytes(), u64::MAX));
        loop {
            let found = self.shared.outbox.scan(&rows::timeline(id.as_bytes(), after + 1), &to, LIST_MAX)?;
            for (key, _) in &found {
                after = rows::number_at_end(key);
                timeline.push((after, self.fact(after)?));
            }
            if found.len() < LIST_MAX {
                return Ok(timeline);
            }
        }
    }

    /// A named record.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn record(&self, name: &str) -> Result<Option<RecordRow>, ReadError> {
        let found = self.shared.outbox.get(&rows::record(name))?;
        found.map(|value| self.record_at(name, rows::number_at_end(&value))).transpose()
    }

    /// The records whose names begin so, in the order of their names.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn records(&self, prefix: &str) -> Result<Vec<RecordRow>, ReadError> {
        let found = self.prefixed(&rows::record(prefix), RECORDS_MAX)?;
        let name = |key: &[u8]| String::from_utf8_lossy(rows::rest(key)).into_owned();
        found.iter().map(|(key, value)| self.record_at(&name(key), rows::number_at_end(value))).collect()
    }

    fn record_at(&self, name: &str, sequence: u64) -> Result<RecordRow, ReadError> {
        let fact = self.fact(sequence)?;
        match &fact.kind {
            Some(Kind::Recorded(recorded)) if recorded.name == name => Ok(RecordRow {
                name: recorded.name.clone(),
                value: recorded.value.clone().unwrap_or_default(),
                sequence,
                at_ms: fact.at_ms,
                by: recorded.by.clone(),
                reason: recorded.reason.clone(),
            }),
            _ => Err(self.shared.outbox.distrust("a record's row names another fact").into()),
        }
    }

    /// A message, unless its record is damaged: then it is set aside, and those beside it are listed and end in their time. One of which
    /// only the content is damaged is listed and ends as any other.
    fn unless_damaged(&self, queue: &str, sequence: u64) -> Result<Option<MessageRow>, ReadError> {
        match self.message_at(sequence) {
            Err(error @ (ReadError::Damaged(_) | ReadError::NoFact(_))) => {
                if !self.shared.lanes.lane(queue).is_set_aside(sequence) {
                    self.shared.lanes.set_aside(queue, sequence, &error);
                }
                Ok(None)
            }
            read => read,
        }
    }

    /// What has passed its time: at most `limit` messages and as many cases. Leased messages, dead letters and damaged records are left
    /// out. Nothing has, by a clock that is not believed.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn due(&self, now_ms: i64, limit: usize) -> Result<Due, ReadError> {
        let mut due = Due::default();
        if !clock::is_believed(&self.shared.outbox, now_ms)? {
            return Ok(due);
        }
        let to = rows::expiry(now_ms.saturating_add(1), 0);
        let mut from = rows::expiry(0, 0);
        while due.messages.len() < limit && due.unreadable < UNREADABLE_MAX {
            let found = self.shared.outbox.scan(&from, &to, LOOK_AT_ONCE)?;
            for (key, queue) in &found {
                match self.unless_damaged(&rows::decode::<String>(queue.clone())?, rows::number_at_end(key)) {
                    Err(error @ ReadError::Io { .. }) => {
                        due.unreadable += 1;
                        due.why.get_or_insert(error);
                    }
                    message => due.messages.extend(message?.filter(|message| message.state == MessageState::Waiting)),
                }
            }
            match found.last() {
                Some((key, _)) if found.len() == LOOK_AT_ONCE => from = successor(key),
                _ => break,
            }
        }
        due.messages.truncate(limit);
        let to = rows::deadline(now_ms.saturating_add(1), &[]);
        for (key, _) in self.shared.outbox.scan(&rows::deadline(0, &[]), &to, limit)? {
            let case_id = rows::case_of_deadline(&key);
            let value = self.row::<CaseValue>(&rows::case(case_id))?;
            due.cases.extend(value.map(|value| case_row(case_id, value)).transpose()?);
        }
        Ok(due)
    }
}
