//! Whether what was found to be over still is, now that nothing changes between the question and the answer.

use bytes::Bytes;
use tramite_proto::pb::journal::v1::{Counted, Retired, fact::Kind};

use super::{Answer, Group, Stop, Verdict};
use crate::{
    change::{Dossier, Rejected, Retirement},
    clock,
    overlay::Rows as _,
    project::row,
    rows::{self, CaseValue, ClockRow, QueueRow},
};

impl Group<'_> {
    /// Retires what is as it was found. A case to which something came meanwhile stays.
    pub(super) fn retire(&mut self, found: Retirement) -> Result<Verdict, Stop> {
        let Retirement { cases, messages, mut ids, before, mark, done } = found;
        let mut over = Vec::with_capacity(cases.len());
        for dossier in cases {
            if self.is_as_found(&dossier, before)? {
                over.push(dossier.case);
                ids.extend(dossier.ids);
            }
        }
        if !clock::is_believed(&self.draft, self.now_ms)? {
            return Err(Rejected::ClockHeld.into());
        }
        if !mark && over.is_empty() && messages.is_empty() {
            return Err(Stop::Verdict(Verdict::Already(before)));
        }
        let ClockRow { minute, dated, forgetting } = self.draft.clock()?;
        // How far ids are forgotten depends on how many facts there were, and of those some will be gone.
        if !forgetting.is_empty() {
            return Err(Rejected::ClockHeld.into());
        }
        let (counts, issuers) = (self.counts()?, self.issuers()?);
        let fact = Retired { minute, dated, mark, counts, issuers, cases: over, messages, ids, before, done };
        self.take(Kind::Retired(fact), Bytes::new(), Vec::new(), Answer::Recorded)
    }

    fn is_as_found(&self, dossier: &Dossier, before: u64) -> Result<bool, Stop> {
        let (from, to) = (rows::timeline(&dossier.case, 0), rows::timeline(&dossier.case, u64::MAX));
        let timeline = self.draft.scan(&from, &to, dossier.timeline.len() + 1)?;
        let same = timeline.iter().map(|(key, _)| rows::number_at_end(key)).eq(dossier.timeline.iter().copied());
        let case = row::<CaseValue>(&self.draft, &rows::case(&dossier.case))?;
        Ok(same && case.is_none_or(|case| case.moved_sequence < before))
    }

    fn issuers(&self) -> Result<Vec<String>, Stop> {
        let prefix = rows::charge("");
        let charges = self.draft.scan(&prefix, &rows::after(&prefix), usize::MAX)?;
        Ok(charges.iter().map(|(key, _)| String::from_utf8_lossy(rows::rest(key)).into_owned()).collect())
    }

    /// What every queue has counted.
    fn counts(&self) -> Result<Vec<Counted>, Stop> {
        let prefix = rows::queue("");
        let mut counts = Vec::new();
        for (key, value) in self.draft.scan(&prefix, &rows::after(&prefix), usize::MAX)? {
            let row: QueueRow = rows::decode(value)?;
            let queue = String::from_utf8_lossy(rows::rest(&key)).into_owned();
            counts.push(Counted { queue, accepted: row.accepted, settled: row.settled });
        }
        Ok(counts)
    }
}
