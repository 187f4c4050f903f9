//! What is known of the cases, from what the desks say: how each was opened, where it stands, and whether it ended as it must.
//! Pure: it is told events with their times, and answers questions. Invariant: a case's story is its opener's, because that is
//! who must be told.

use std::collections::BTreeMap;

use tramite_adapters::desk::{
    event::{Event, What},
    office::{DOCUMENT_REQUEST, REFERRAL},
    sample::{Expected, Sample},
};

/// One status that a case was moved to, as its opener learned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// Milliseconds since the board began.
    pub(super) at_ms: i64,
    pub(super) status: String,
    /// Reason or outcome; empty: none.
    pub(super) reason: String,
}

/// What is known of a case.
#[derive(Debug, Clone, Default)]
pub(super) struct CaseView {
    pub(super) case_id: String,
    /// Which sample it plays; none for what follows from one.
    pub(super) sample: Option<usize>,
    pub(super) kind: &'static str,
    pub(super) opener: String,
    pub(super) responder: String,
    /// The case that it serves or continues; empty: none.
    pub(super) parent: String,
    pub(super) opened_ms: i64,
    /// Attachment bytes that came with the answers.
    pub(super) bytes: u64,
    said: Vec<(String, Step)>,
}

impl CaseView {
    /// Its story, as its opener knows it.
    pub(super) fn story(&self) -> impl Iterator<Item = &Step> {
        self.said.iter().filter(|(desk, _)| *desk == self.opener).map(|(_, step)| step)
    }

    /// The last status that its opener knows.
    pub(super) fn status(&self) -> &str {
        self.story().last().map_or("requested", |step| step.status.as_str())
    }

    /// Milliseconds from its opening to its last move.
    pub(super) fn lasted_ms(&self) -> i64 {
        self.story().last().map_or(0, |step| step.at_ms - self.opened_ms)
    }

    /// The step that decided it.
    fn passed(&self, status: &str) -> Option<&Step> {
        self.story().find(|step| step.status == status)
    }
}

/// The cases, and what went wrong.
#[derive(Debug)]
pub(super) struct Board {
    samples: Vec<Sample>,
    cases: BTreeMap<String, CaseView>,
    /// Cases in the order of their opening.
    order: Vec<String>,
    /// Moves seen, by whichever desk made them: what the chaos counts.
    pub(super) moves: usize,
    /// What was shown again after it was acknowledged.
    pub(super) seen_again: Vec<String>,
    /// What was not to happen, in words.
    pub(super) troubles: Vec<String>,
}

impl Board {
    pub(super) fn new(samples: Vec<Sample>) -> Self {
        Self {
            samples,
            cases: BTreeMap::new(),
            order: Vec::new(),
            moves: 0,
            seen_again: Vec::new(),
            troubles: Vec::new(),
        }
    }

    /// Notes what a desk said.
    pub(super) fn note(&mut self, event: &Event, at_ms: i64) {
        if event.case_id.is_empty() {
            self.note_caseless(event);
            return;
        }
        let case = self.cases.entry(event.case_id.clone()).or_default();
        case.case_id.clone_from(&event.case_id);
        match &event.what {
            What::Opened { kind, to, parent, request_id } => {
                if case.opener.is_empty() {
                    self.order.push(event.case_id.clone());
                    case.opened_ms = at_ms;
                }
                case.kind = kind;
                case.opener.clone_from(&event.desk);
                case.responder.clone_from(to);
                case.parent.clone_from(parent);
                let name = request_id.strip_prefix("sample-");
                case.sample = name.and_then(|name| self.samples.iter().position(|sample| sample.name == name));
            }
            What::Moved { status, reason } | What::Learned { status, reason } => {
                let step = Step { at_ms, status: status.clone(), reason: reason.clone() };
                case.said.push((event.desk.clone(), step));
                self.moves += usize::from(matches!(event.what, What::Moved { .. }));
            }
            What::Documents { bytes, .. } => case.bytes += bytes,
            What::Receipt => {}
            What::SeenAgain { .. } | What::Trouble { .. } => self.note_caseless(event),
        }
    }

    fn note_caseless(&mut self, event: &Event) {
        let sentence = format!("{} {}", event.desk, event.what.sentence());
        match event.what {
            What::SeenAgain { .. } => self.seen_again.push(sentence),
            What::Trouble { .. } => self.troubles.push(if event.case_id.is_empty() {
                sentence
            } else {
                format!("{sentence} (case {})", event.case_id)
            }),
            _ => {}
        }
    }

    pub(super) fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The cases in the order of their opening.
    pub(super) fn cases(&self) -> impl Iterator<Item = &CaseView> {
        self.order.iter().filter_map(|id| self.cases.get(id))
    }

    /// The case that plays a sample.
    pub(super) fn case_of(&self, sample: usize) -> Option<&CaseView> {
        self.cases().find(|case| case.sample == Some(sample))
    }

    /// The cases that follow from a case.
    pub(super) fn following<'a>(&'a self, case_id: &'a str, kind: &'a str) -> impl Iterator<Item = &'a CaseView> {
        self.cases().filter(move |case| case.parent == case_id && case.kind == kind)
    }

    /// How many samples have ended as they must.
    pub(super) fn ended(&self) -> usize {
        (0..self.samples.len()).filter(|&sample| self.missing(sample).is_none()).count()
    }

    /// What is still missing until a sample has ended as it must, in one sentence; none when it has.
    pub(super) fn missing(&self, sample: usize) -> Option<String> {
        let expected = &self.samples.get(sample)?.expected;
        let Some(case) = self.case_of(sample) else { return Some("it was never sent".to_owned()) };
        if let Some(missing) = short_of(case, &expected.status, &expected.via, &expected.reason, &expected.outcome) {
            return Some(missing);
        }
        self.missing_documents(case, expected).or_else(|| self.missing_onward(case, expected))
    }

    fn missing_documents(&self, case: &CaseView, expected: &Expected) -> Option<String> {
        let requests: Vec<&CaseView> = self.following(&case.case_id, DOCUMENT_REQUEST).collect();
        if requests.len() != expected.documents {
            return Some(format!(
                "{} document requests were made for it, {} were expected",
                requests.len(),
                expected.documents
            ));
        }
        let open = requests.iter().find(|request| !matches!(request.status(), "confirmed" | "refused"))?;
        Some(format!("the documents asked of {} are {}, not confirmed", open.responder, open.status()))
    }

    fn missing_onward(&self, case: &CaseView, expected: &Expected) -> Option<String> {
        let onward = expected.onward.as_ref()?;
        match self.following(&case.case_id, REFERRAL).next() {
            None => Some(format!("it was not referred on to {}", onward.to)),
            Some(next) if next.responder != onward.to => {
                Some(format!("it was referred on to {}, not to {}", next.responder, onward.to))
            }
            Some(next) => short_of(next, &onward.status, &onward.via, "", &onward.outcome)
                .map(|missing| format!("at {}, where it was referred on: {missing}", onward.to)),
        }
    }
}

/// In what a case falls short of its end.
fn short_of(case: &CaseView, status: &str, via: &str, reason: &str, outcome: &str) -> Option<String> {
    let Some(step) = case.passed(via) else {
        return Some(format!(
            "it stands at {}, {via} was expected (opened by {}, to act: {})",
            case.status(),
            case.opener,
            case.responder
        ));
    };
    let wanted = if reason.is_empty() { outcome } else { reason };
    if !wanted.is_empty() && step.reason != wanted {
        return Some(format!(
            "it was {via} with {}, {wanted} was expected",
            if step.reason.is_empty() { "no reason" } else { &step.reason }
        ));
    }
    (case.status() != status).then(|| format!("it stands at {}, {status} was expected", case.status()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(name: &str) -> Board {
        let mut samples = tramite_adapters::desk::sample::all().unwrap();
        samples.retain(|sample| sample.name.starts_with(name));
        Board::new(samples)
    }

    fn event(desk: &str, case: &str, what: What) -> Event {
        Event { desk: desk.to_owned(), case_id: case.to_owned(), what }
    }

    fn opened(board: &mut Board) {
        let (to, from) = (board.samples()[0].request.to.clone(), board.samples()[0].from.clone());
        let request_id = format!("sample-{}", board.samples()[0].name);
        let what = What::Opened { kind: REFERRAL, to, parent: String::new(), request_id };
        board.note(&event(&from, "case-1", what), 0);
    }

    fn learned(status: &str, reason: &str) -> What {
        What::Learned { status: status.to_owned(), reason: reason.to_owned() }
    }

    #[test]
    fn a_case_that_ends_as_expected_misses_nothing() {
        let mut board = board("11");
        opened(&mut board);
        assert!(board.missing(0).is_some());
        board.note(&event("caritas", "case-1", learned("rejected", "DUPLICATE")), 10);
        assert!(board.missing(0).unwrap().contains("closed was expected"));
        board.note(&event("caritas", "case-1", What::Moved { status: "closed".to_owned(), reason: String::new() }), 20);
        assert_eq!(board.missing(0), None);
        assert_eq!(board.ended(), 1);
    }

    #[test]
    fn another_reason_or_another_end_is_told() {
        let mut board = board("11");
        opened(&mut board);
        board.note(&event("caritas", "case-1", learned("rejected", "NO_CAPACITY")), 10);
        assert!(board.missing(0).unwrap().contains("DUPLICATE was expected"));
    }

    #[test]
    fn a_missing_document_request_is_told() {
        let mut board = board("03");
        opened(&mut board);
        board.note(&event("caritas", "case-1", learned("completed", "SERVICE_PROVIDED")), 10);
        board.note(&event("caritas", "case-1", learned("closed", "")), 20);
        assert!(board.missing(0).unwrap().contains("0 document requests"), "{:?}", board.missing(0));
    }

    #[test]
    fn what_a_desk_says_before_the_opening_is_known_is_kept() {
        let mut board = board("11");
        board.note(
            &event(
                "citta-metropolitana",
                "case-1",
                What::Moved { status: "received".to_owned(), reason: String::new() },
            ),
            1,
        );
        opened(&mut board);
        assert_eq!(board.cases().count(), 1);
        assert_eq!(board.moves, 1);
    }

    #[test]
    fn what_was_shown_again_and_what_was_not_to_happen_is_kept_for_the_verdict() {
        let mut board = board("11");
        opened(&mut board);
        board.note(&event("caritas", "", What::SeenAgain { item: "message 1".to_owned() }), 1);
        board.note(&event("caritas", "case-1", What::Trouble { sentence: "was refused".to_owned() }), 2);
        assert_eq!(board.seen_again.len(), 1);
        assert!(board.troubles[0].contains("case-1"), "{:?}", board.troubles);
    }
}
