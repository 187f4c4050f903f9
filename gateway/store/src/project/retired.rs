//! What a retirement does: the rows of what goes are removed, and what its facts had added up to is carried on.
//!
//! Knows: which rows speak of a case or a message. Never knows: whether its bytes are gone already. Invariant: the same rows are left
//! whether all facts that go are replayed before it, none, or those that were written last.

use bytes::Bytes;
use tramite_proto::pb::journal::v1::Retired;

use super::{Draft, row};
use crate::{
    error::MapError,
    overlay::Rows as _,
    rows::{self, CaseValue, ChargeRow, IdRow, QueueRow},
};

impl Draft<'_> {
    pub(super) fn retired(&mut self, sequence: u64, fact: &Retired) -> Result<(), MapError> {
        for case in &fact.cases {
            self.retire_case(case)?;
        }
        for message in &fact.messages {
            self.retire_history(*message)?;
        }
        for id in &fact.ids {
            if let Some(row) = row::<IdRow>(self, &rows::id(id))? {
                self.forget(id, &row);
            }
        }
        for counted in &fact.counts {
            let key = rows::queue(&counted.queue);
            let counts: QueueRow = row(self, &key)?.unwrap_or_default();
            let counts = QueueRow { accepted: counted.accepted, settled: counted.settled, ..counts };
            self.upper.put(key, rows::encode(&counts));
        }
        for issuer in &fact.issuers {
            let key = rows::charge(issuer);
            if self.get(&key)?.is_none() {
                self.upper.put(key, rows::encode(&ChargeRow::default()));
            }
        }
        let minute = if fact.mark { u64::try_from(fact.minute).unwrap_or(0) } else { 0 };
        self.upper.put(rows::retirement(sequence), rows::number(minute));
        if fact.mark {
            self.retire_marks(fact)?;
        }
        Ok(())
    }

    fn retire_case(&mut self, case: &Bytes) -> Result<(), MapError> {
        for (key, _) in self.scan(&rows::timeline(case, 0), &rows::timeline(case, u64::MAX), usize::MAX)? {
            self.retire_history(rows::number_at_end(&key))?;
            self.upper.remove(key);
        }
        let key = rows::case(case);
        if let Some(value) = row::<CaseValue>(self, &key)? {
            if value.expires {
                self.upper.remove(rows::deadline(value.deadline_ms, case));
            }
            self.upper.remove(key);
        }
        Ok(())
    }

    fn retire_history(&mut self, sequence: u64) -> Result<(), MapError> {
        for (key, _) in self.scan(&rows::history(sequence, 0), &rows::history(sequence, u64::MAX), usize::MAX)? {
            self.upper.remove(key);
        }
        Ok(())
    }

    /// Marks that lie too far back to be asked for, and retirements that are done.
    fn retire_marks(&mut self, fact: &Retired) -> Result<(), MapError> {
        let to = rows::retirement(fact.before.max(fact.done.saturating_add(1)));
        for (key, minute) in self.scan(&rows::retirement(0), &to, usize::MAX)? {
            let (sequence, is_mark) = (rows::number_at_end(&key), rows::number_at_end(&minute) > 0);
            if (is_mark && sequence < fact.before) || (!is_mark && sequence <= fact.done) {
                self.upper.remove(key);
            }
        }
        Ok(())
    }
}
