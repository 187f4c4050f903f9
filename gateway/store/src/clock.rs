//! Whether the clock is believed: the hold on everything that it would end or delete.
//!
//! Sequence orders, the clock only dates. Each fact carries the time that the clock showed; a row keeps how far facts have come, in steps
//! of a day at most. A clock that is further from there than a day may be wrong, or the machine was off: nobody but a person knows. So
//! nothing is due, no id is forgotten and no part that nobody named is removed until somebody says that the clock is right. One that is
//! before the facts, or months behind them, cannot be right: with it nothing is signed either.
//!
//! Knows: how far the facts have come, the record that holds and the one that confirms. Never knows: what expires, nor who asks.
//! Invariants: what is believed is a function of the facts and of the hour that is asked about, so that a restart, a crash and a rebuild
//! come to the same; a hold ends by a record that says who and why, and by nothing else, not by a clock that comes back either.

use std::sync::atomic::Ordering;

use tramite_proto::{clock::minute_text, pb::journal::v1::Recorded, statement};

use crate::{
    change::{Change, Rejected},
    error::{MapError, ReadError},
    overlay::Rows,
    project::row,
    rows::{self, ClockRow},
    store::Store,
};

/// A clock further than this from the last fact is not believed.
pub const CLOCK_GAP_MAX_MS: i64 = 24 * 60 * MINUTE_MS;
/// A machine may have been off for so long; what is signed by a clock that is wrong by less waits no longer than a message may live.
const AHEAD_MAX_MINUTES: i64 = statement::LIFETIME_S_MAX / 60;
/// The record that holds what the clock decides; its reason says why.
pub const CLOCK_HELD: &str = "hold/clock";
/// The record by which an operator says that the clock is right.
pub const CLOCK_CONFIRMED: &str = "clock/confirmed";
/// The record that says only what time it is.
const CLOCK_SEEN: &str = "clock/seen";
/// Nothing is put off for longer: the longest wait of any policy. What seems to be was put off by a clock that stood elsewhere.
pub(crate) const PUT_OFF_MAX_MS: i64 = CLOCK_GAP_MAX_MS;
/// A store to which nothing happens is told the time so often: a quiet weekend is no gap. Four a day leave room for one to fail.
const SEEN_EVERY_MINUTES: i64 = 6 * 60;
pub(crate) const MINUTE_MS: i64 = 60_000;

/// How the clock stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockState {
    /// What it says may end and delete.
    Believed,
    /// It is held, by a record.
    Held {
        /// By this very look, because it is too far from the facts.
        began: bool,
    },
}

/// Whether a clock that shows this minute goes on from where the facts have come. 0: there is no fact yet.
pub(crate) fn goes_on(reached: i64, minute: i64) -> bool {
    reached == 0 || minute.saturating_sub(reached).saturating_abs() <= CLOCK_GAP_MAX_MS / MINUTE_MS
}

/// Whether an hour can be the time: it is not before facts that are there, and not so far behind them that no machine was off for so
/// long. A hold that nobody ends must not stop a machine that runs on: then the facts signed meanwhile count, too.
pub(crate) fn can_date(clock: &ClockRow, now_ms: i64) -> bool {
    let minute = now_ms.div_euclid(MINUTE_MS);
    let follows = |reached: i64| (0..=AHEAD_MAX_MINUTES).contains(&minute.saturating_sub(reached));
    goes_on(clock.minute, minute)
        || [clock.minute, clock.dated].into_iter().any(|reached| reached > 0 && follows(reached))
}

/// Whether a record holds the clock.
pub(crate) fn is_held(rows: &(impl Rows + ?Sized)) -> Result<bool, MapError> {
    Ok(rows.get(&rows::record(CLOCK_HELD))?.is_some())
}

/// How far the clock has come with the facts.
pub(crate) fn clock_row(rows: &(impl Rows + ?Sized)) -> Result<ClockRow, MapError> {
    Ok(row(rows, rows::CLOCK)?.unwrap_or_default())
}

/// The same, after a fact of that hour.
pub(crate) fn after(clock: ClockRow, minute: i64, word: Word) -> ClockRow {
    let dated = if can_date(&clock, minute.saturating_mul(MINUTE_MS)) { minute.max(clock.dated) } else { clock.dated };
    match word {
        // Be it before where a wrong clock had led: else what is new would be forgotten as soon as it ends.
        Word::Confirmed => ClockRow { minute, dated: minute, ..clock },
        Word::None if goes_on(clock.minute, minute) => ClockRow { minute: minute.max(clock.minute), dated, ..clock },
        Word::None | Word::Held => ClockRow { dated, ..clock },
    }
}

/// What a person has said of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// By this very fact: it is right.
    Confirmed,
    /// Nothing since it was held.
    Held,
    /// Nothing.
    None,
}

/// Whether what the clock says at that hour may end or delete anything.
pub(crate) fn is_believed(rows: &(impl Rows + ?Sized), now_ms: i64) -> Result<bool, MapError> {
    Ok(goes_on(clock_row(rows)?.minute, now_ms.div_euclid(MINUTE_MS)) && !is_held(rows)?)
}

impl Store {
    /// Whether what the clock says at that hour may end or delete anything. Not, when the rows cannot be read.
    #[must_use]
    pub fn believes(&self, now_ms: i64) -> bool {
        is_believed(&self.shared.outbox, now_ms).unwrap_or(false)
    }

    /// Whether anything may be signed with that hour. Not, when it cannot be the time: nothing that is signed then would be taken anywhere.
    #[must_use]
    pub fn can_date(&self, now_ms: i64) -> bool {
        clock_row(&self.shared.outbox).is_ok_and(|clock| can_date(&clock, now_ms))
    }

    /// Why the clock is held; none when it is not.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn clock_hold(&self) -> Result<Option<String>, ReadError> {
        Ok(self.record(CLOCK_HELD)?.map(|held| held.reason))
    }

    /// Looks at the clock, which somebody does each second: one that is too far from the facts is held, and one that goes on is recorded
    /// now and then, and as long as there are ids to be forgotten, which go with facts. `by` is written down for who held.
    ///
    /// # Errors
    /// The record was not written, or the rows cannot be read; until it is, [`believes`](Self::believes) says the same.
    pub async fn look_at_clock(&self, by: &str) -> Result<ClockState, Rejected> {
        let unreadable = |error: MapError| Rejected::Unreadable(error.into());
        if is_held(&self.shared.outbox).map_err(unreadable)? {
            return Ok(ClockState::Held { began: false });
        }
        let now_ms = self.shared.clock.now_ms();
        let ClockRow { minute: reached, forgetting, .. } = clock_row(&self.shared.outbox).map_err(unreadable)?;
        let minute = now_ms.div_euclid(MINUTE_MS);
        if !goes_on(reached, minute) {
            let (record, clock) = (minute_text(reached * MINUTE_MS), minute_text(now_ms));
            let reason = format!("the last record is of {record}, the clock says {clock}");
            self.record_clock(vec![hold(by, &reason)]).await?;
            return Ok(ClockState::Held { began: true });
        }
        // On a full disk what room there is belongs to what waits.
        let forgets = !forgetting.is_empty() && !self.shared.tight.load(Ordering::Relaxed);
        if minute.saturating_sub(reached) >= SEEN_EVERY_MINUTES || forgets {
            let seen = recorded(CLOCK_SEEN, Some(&now_ms.to_string()), "", "");
            self.record_clock(vec![seen]).await?;
        }
        Ok(ClockState::Believed)
    }

    /// Holds what the clock decides.
    ///
    /// # Errors
    /// It was not written.
    pub async fn hold_clock(&self, by: &str, reason: &str) -> Result<(), Rejected> {
        self.record_clock(vec![hold(by, reason)]).await
    }

    /// An operator says that the clock is right as it is: what was held goes on from here. Both records stand in one group.
    ///
    /// # Errors
    /// It was not written, and nothing has changed.
    pub async fn confirm_clock(&self, by: &str, reason: &str) -> Result<(), Rejected> {
        let now = self.shared.clock.now_ms().to_string();
        let released = recorded(CLOCK_HELD, None, by, reason);
        self.record_clock(vec![released, recorded(CLOCK_CONFIRMED, Some(&now), by, reason)]).await
    }

    async fn record_clock(&self, facts: Vec<Recorded>) -> Result<(), Rejected> {
        let changes = facts.into_iter().map(|fact| Change::Record { fact: Box::new(fact), begins: false }).collect();
        self.commit(changes).await.into_iter().try_for_each(|done| done.map(drop))
    }
}

fn hold(by: &str, reason: &str) -> Recorded {
    recorded(CLOCK_HELD, Some(reason), by, reason)
}

fn recorded(name: &str, value: Option<&str>, by: &str, reason: &str) -> Recorded {
    Recorded {
        name: name.to_owned(),
        value: value.map(|value| value.to_owned().into()),
        by: by.to_owned(),
        reason: reason.to_owned(),
    }
}
