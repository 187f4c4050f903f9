//! What is an institution's own: whom it serves, what it decides about a referral, which documents it holds and in which form it
//! gives them. Pure data and pure functions; no I/O. The decisions are plain rules of a demo, never advice about anybody's
//! rights.

use tramite_proto::pb::body::v1::{AnswerMode, BenefitState, Date, Referral, ReferralUpdate};

use super::dossier::Answers;

/// The kind of a case that a referral opens.
pub const REFERRAL: &str = "REFERRAL";
/// The kind of a case that a document request opens.
pub const DOCUMENT_REQUEST: &str = "DOCUMENT_REQUEST";

/// Message types of a body that deals in referrals alone.
pub const REFERRALS: &[&str] = &["tramite.body.v1.Referral", "tramite.body.v1.ReferralUpdate"];
/// Every message type.
pub const EVERY: &[&str] = &[
    "tramite.body.v1.Referral",
    "tramite.body.v1.ReferralUpdate",
    "tramite.body.v1.DocumentRequest",
    "tramite.body.v1.DocumentResponse",
    "tramite.body.v1.DocumentRequestUpdate",
];

/// An institution, as far as the network and its desk need to know it.
#[derive(Debug)]
pub struct Office {
    /// The name in its certificate.
    pub name: &'static str,
    /// The name for people.
    pub display_name: &'static str,
    /// Code in the Indice delle Pubbliche Amministrazioni; empty: a private body.
    pub ipa_code: &'static str,
    /// The body's codice fiscale; empty: not published.
    pub codice_fiscale: &'static str,
    /// Message types that it sends.
    pub sends: &'static [&'static str],
    /// Message types that it receives and answers.
    pub answers: &'static [&'static str],
    /// Documents that it holds.
    pub holds: &'static [Holding],
    /// What is to be done with a referral that arrived.
    pub triage: fn(&Referral, &Date) -> Triage,
    /// What came of it, once every document asked for was answered.
    pub conclude: fn(&Referral, &Answers) -> Conclusion,
    /// Whether a referral of its own is to be cancelled after this news: with which reason.
    pub reconsider: fn(&ReferralUpdate) -> Option<&'static str>,
}

impl Office {
    /// The document kind, when this office holds it.
    #[must_use]
    pub fn holding(&self, document: &str) -> Option<&'static Holding> {
        self.holds.iter().find(|holding| holding.document == document)
    }
}

/// A document kind that an institution holds.
#[derive(Debug, Clone, Copy)]
pub struct Holding {
    /// Document code, e.g. `RESIDENZA`.
    pub document: &'static str,
    /// Title on the paper.
    pub title: &'static str,
    /// The form of a copy.
    pub copy: Copy,
}

/// The form in which a copy of a document leaves the office.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    /// A PDF of one page, text only.
    Pdf,
    /// A PDF of scanned pages: several MiB.
    Scan,
    /// A JSON file.
    Json,
}

/// What is done with a referral at first sight.
#[derive(Debug, Clone, PartialEq)]
pub enum Triage {
    /// Nobody is there: it is left lying, and expires.
    Unattended,
    /// Refused.
    Reject {
        /// `PROVIDER` or `PERSON`.
        by: &'static str,
        /// Reason code.
        reason: &'static str,
        /// For people.
        note: &'static str,
    },
    /// Somebody else must act first: a new referral goes there, and this case ends as rerouted.
    Reroute {
        /// The institution.
        to: &'static str,
        /// Benefits asked of it.
        benefits: &'static [&'static str],
        /// Needs stated to it.
        needs: &'static [&'static str],
        /// For people.
        note: &'static str,
    },
    /// Accepted, and on hold until the referrer does something.
    Hold {
        /// Reason code.
        reason: &'static str,
        /// For people.
        note: &'static str,
    },
    /// Accepted; concluded when every document is there.
    Take {
        /// A pause on the way, with its reason code.
        pause: Option<&'static str>,
        /// Documents to be asked for.
        wanted: Vec<Wanted>,
    },
}

/// A document to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its holder.
    pub from: &'static str,
    /// Document code.
    pub document: &'static str,
    /// The least that serves.
    pub mode: AnswerMode,
    /// With `Verify`: the statement to be confirmed; otherwise empty.
    pub statement: &'static str,
}

/// Asks for the datum.
#[must_use]
pub const fn value(from: &'static str, document: &'static str) -> Wanted {
    Wanted { from, document, mode: AnswerMode::Value, statement: "" }
}

/// Asks for a copy.
#[must_use]
pub const fn copy(from: &'static str, document: &'static str) -> Wanted {
    Wanted { from, document, mode: AnswerMode::Copy, statement: "" }
}

/// Asks for yes or no to a statement.
#[must_use]
pub const fn verify(from: &'static str, document: &'static str, statement: &'static str) -> Wanted {
    Wanted { from, document, mode: AnswerMode::Verify, statement }
}

/// What came of a referral.
#[derive(Debug, Clone, PartialEq)]
pub enum Conclusion {
    /// Done.
    Complete {
        /// Outcome code.
        outcome: &'static str,
        /// Benefits claimed.
        benefits: Vec<BenefitState>,
        /// For people.
        note: &'static str,
    },
    /// It could not be done.
    Fail {
        /// Reason code.
        reason: &'static str,
        /// For people.
        note: &'static str,
    },
}

/// True when the referral names this need.
#[must_use]
pub fn needs(referral: &Referral, need: &str) -> bool {
    referral.needs.iter().any(|stated| stated == need)
}

/// True when the referral names this benefit.
#[must_use]
pub fn asks(referral: &Referral, benefit: &str) -> bool {
    referral.benefits.iter().any(|asked| asked == benefit)
}

/// Nothing to cancel, whatever the news: for offices that never take a referral back.
#[must_use]
pub fn never_cancels(_: &ReferralUpdate) -> Option<&'static str> {
    None
}
