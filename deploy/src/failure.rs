//! How a command fails: one documented exit code, one sentence, and what to do. Never a debug dump.

use std::{error::Error, fmt, process::ExitCode};

use tonic::{Code, Status};
use tramite_proto::{
    reason::{Reason, Refused},
    vocabulary::{LegalBasis, Purpose},
};

/// Exit codes, those of sysexits.h where it has one. Documented in `tramite --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// The command ran, and the answer is no: refused, not found, not as expected.
    Failed = 1,
    /// The command line is wrong.
    Usage = 64,
    /// A file that was given, or the store of a node, is not what it should be.
    Data = 65,
    /// A file that was given cannot be read.
    NoInput = 66,
    /// The adapter or the gateway cannot be reached, or is not ready.
    Unavailable = 69,
    /// A fault of the program or the machine.
    Internal = 70,
    /// A file cannot be written.
    CannotCreate = 73,
    /// Not allowed: certificate, role or policy.
    NoPermission = 77,
    /// A configuration is wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // Every discriminant is below 128.
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What is wrong, in one sentence.
    pub(crate) sentence: String,
    /// What to do; empty when there is nothing to say.
    pub(crate) advice: String,
    /// A stable reason, when the other side gave one.
    pub(crate) reason: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, sentence: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { exit, sentence: sentence.into(), advice: advice.into(), reason: None }
    }

    pub(crate) fn usage(sentence: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Exit::Usage, sentence, advice)
    }

    pub(crate) fn internal(sentence: impl Into<String>) -> Self {
        Self::new(Exit::Internal, sentence, "Look at the log for more; if it happens again, report it with the log.")
    }

    /// Adds the cause, and the causes of the cause, to the sentence.
    pub(crate) fn because(mut self, error: &dyn Error) -> Self {
        self.sentence = format!("{}: {}", self.sentence, chain(error));
        self
    }

    /// A refusal of the adapter or the gateway. `whom` is who was called, e.g. "the adapter at unix:/run/…".
    pub(crate) fn status(whom: &str, status: &Status) -> Self {
        let refused = Refused::from_status(status);
        let reason = refused.as_ref().map(|refused| refused.reason.as_str().to_owned());
        let (exit, advice) = match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted | Code::Aborted => {
                (Exit::Unavailable, "Is it running, and is the address right? Try again in a moment.")
            }
            Code::Unauthenticated | Code::PermissionDenied => {
                (Exit::NoPermission, "Use a certificate of the right role, or ask whoever keeps the gateway's policy.")
            }
            Code::InvalidArgument | Code::OutOfRange => (Exit::Data, "Put that right and send it again."),
            Code::Unimplemented => (Exit::Failed, "Ask a version that serves it."),
            Code::Internal | Code::Unknown | Code::DataLoss => (Exit::Internal, "Look at its log for more."),
            _ => (Exit::Failed, ""),
        };
        let sentence = match &refused {
            Some(refused) => {
                let fields: Vec<String> =
                    refused.problems.iter().map(|p| format!("{}: {}", p.field, p.problem)).collect();
                let detail = if fields.is_empty() { refused.detail.clone() } else { fields.join("; ") };
                format!("{whom} refused ({}): {detail}", refused.reason.as_str())
            }
            None if status.code() == Code::DeadlineExceeded => format!("{whom} does not answer: {}", status.message()),
            None if exit == Exit::Unavailable => format!("{whom} cannot be reached: {}", transport(status)),
            None => format!("{whom} answered: {}", status.message()),
        };
        let own = refused.as_ref().map(advice_for).unwrap_or_default();
        let says_itself = refused.is_some() && !matches!(exit, Exit::Data | Exit::NoPermission | Exit::Unavailable);
        let advice = match own {
            own if !own.is_empty() => own,
            _ if says_itself => String::new(),
            _ => advice.to_owned(),
        };
        Self { exit, sentence, advice, reason }
    }
}

/// What to do about a refusal; empty when it says so itself.
fn advice_for(refused: &Refused) -> String {
    let field = |end: &str| refused.problems.iter().any(|problem| problem.field.ends_with(end));
    let invalid = refused.reason == Reason::FieldInvalid;
    let about = |end: &str, words: &str| invalid && (field(end) || refused.detail.contains(words));
    let one_of = |codes: &[&str], list: &str| {
        format!("It is one of {}; `tramite codes {list}` says what each means.", codes.join(", "))
    };
    let advice = match refused.reason {
        Reason::UnknownInstitution | Reason::UnknownRecipient => {
            "`tramite institutions` lists whom your institution may write to."
        }
        Reason::PolicyDenied => {
            "`tramite institutions` lists whom you may write to, and what; whoever keeps the gateway's policy can allow more."
        }
        Reason::CaseTransitionInvalid => {
            "`tramite case CASE` shows where the case is; proto/STATES.md shows where it may go from there."
        }
        Reason::UnknownMessage => "`tramite ops messages` and `tramite ops dead-letters` list them.",
        _ if about("legal_basis", "legal basis") => return one_of(LegalBasis::CODES, "legal-bases"),
        _ if about("purpose", "the purpose") => return one_of(Purpose::CODES, "purposes"),
        _ if about("benefits", "benefit code") => "`tramite codes benefits` lists the codes.",
        _ if about("needs", "need code") => "`tramite codes needs` lists the codes.",
        _ => "",
    };
    advice.to_owned()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// An error and its causes in one line, each said once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    one_line(&text)
}

/// TOML draws a picture of the place over several lines: the first says where, the last says what.
fn one_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    lines.next_back().map_or_else(|| first.to_owned(), |last| format!("{first}: {last}"))
}

/// What the transport says at the bottom of its chain; its top says only "transport error".
fn transport(status: &Status) -> String {
    let mut said = status.message().to_owned();
    let mut cause = status.source();
    while let Some(next) = cause {
        said = next.to_string();
        cause = next.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_reason_and_its_sentence() {
        let status = Refused::new(Reason::PolicyDenied, "caritas may not send this to inps").to_status();
        let failure = Failure::status("the gateway", &status);
        assert_eq!(failure.exit, Exit::NoPermission);
        assert_eq!(failure.reason.as_deref(), Some("POLICY_DENIED"));
        assert!(failure.sentence.contains("caritas may not send this to inps"), "{failure}");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let advice = |reason, detail: &str| Failure::status("it", &Refused::new(reason, detail).to_status()).advice;
        assert!(advice(Reason::UnknownRecipient, "no such").contains("tramite institutions"));
        assert!(advice(Reason::CaseTransitionInvalid, "not from there").contains("tramite case"));
        let purposes = advice(Reason::FieldInvalid, "the purpose is missing or no purpose code");
        assert!(purposes.contains("RIGHTS_SCREENING") && purposes.contains("tramite codes purposes"), "{purposes}");
    }

    #[test]
    fn who_cannot_be_reached_is_named() {
        let failure = Failure::status("the adapter at unix:/nowhere", &Status::unavailable("tcp connect error"));
        assert_eq!(failure.exit, Exit::Unavailable);
        assert!(failure.sentence.contains("unix:/nowhere"), "{failure}");
        assert!(!failure.advice.is_empty());
    }

    #[test]
    fn a_sentence_has_one_line_whatever_the_cause_draws() {
        let error = toml::from_str::<toml::Table>("a = \n").unwrap_err();
        assert!(!chain(&error).contains('\n'));
    }
}
