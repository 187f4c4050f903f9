//! The records of `adapters/samples/`: plainly invented persons, what is sent about each, what the institutions hold, and how the
//! case must end. Compiled into the program, so that the demo needs no files. Invariant: `send` is a message as the spool and
//! `tramite send` read it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tramite_proto::pb::backoffice::v1::SendReferralRequest;

use super::register::{Record, Register};
use crate::{
    json::{JsonError, parse_send},
    request::Request,
};

/// Why documents are asked for.
pub const DOCUMENT_PURPOSE: &str = "DOCUMENT_ACQUISITION";
/// On which basis: ex officio, between administrations.
pub const DOCUMENT_LEGAL_BASIS: &str = "DPR-445-43";

/// The files, by name.
const FILES: &[(&str, &str)] = &[
    ("01-homeless-without-any-code", include_str!("../../samples/01-homeless-without-any-code.json")),
    ("02-long-term-unemployed", include_str!("../../samples/02-long-term-unemployed.json")),
    ("03-disabled", include_str!("../../samples/03-disabled.json")),
    ("04-family-with-minors", include_str!("../../samples/04-family-with-minors.json")),
    ("05-omocode", include_str!("../../samples/05-omocode.json")),
    ("06-stp-holder", include_str!("../../samples/06-stp-holder.json")),
    ("07-eni-holder", include_str!("../../samples/07-eni-holder.json")),
    ("08-provisional-numeric-code", include_str!("../../samples/08-provisional-numeric-code.json")),
    ("09-neither-surname-nor-date", include_str!("../../samples/09-neither-surname-nor-date.json")),
    ("10-expired-permit", include_str!("../../samples/10-expired-permit.json")),
    ("11-already-in-a-measure", include_str!("../../samples/11-already-in-a-measure.json")),
    ("12-nobody-answers", include_str!("../../samples/12-nobody-answers.json")),
    ("13-lost-from-sight", include_str!("../../samples/13-lost-from-sight.json")),
    ("14-old-age-and-a-long-history", include_str!("../../samples/14-old-age-and-a-long-history.json")),
    ("15-homeless-in-care", include_str!("../../samples/15-homeless-in-care.json")),
    ("16-sent-by-the-comune", include_str!("../../samples/16-sent-by-the-comune.json")),
    ("17-a-benefit-that-has-ended", include_str!("../../samples/17-a-benefit-that-has-ended.json")),
    ("18-sent-to-caritas", include_str!("../../samples/18-sent-to-caritas.json")),
];

/// A person's record, ready to be played.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name of its file.
    pub name: String,
    /// A few words.
    pub title: String,
    /// What is shown by it.
    pub story: String,
    /// Who refers the person.
    pub from: String,
    /// What is sent.
    pub request: SendReferralRequest,
    /// The same as a message file: what `tramite send` and the spool read.
    pub message: String,
    /// What each institution holds about the person.
    pub held: BTreeMap<String, Record>,
    /// How the case must end.
    pub expected: Expected,
}

/// How a case must end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The last status.
    pub status: String,
    /// The status that decided it.
    pub via: String,
    /// Its reason code; empty: none.
    #[serde(default)]
    pub reason: String,
    /// Its outcome code; empty: none.
    #[serde(default)]
    pub outcome: String,
    /// Document requests made for it, each of which must end too.
    #[serde(default)]
    pub documents: usize,
    /// The case to which it is referred on.
    #[serde(default)]
    pub onward: Option<Onward>,
}

/// How the case must end to which a person was referred on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Onward {
    /// Who acts there.
    pub to: String,
    /// The last status.
    pub status: String,
    /// The status that decided it.
    pub via: String,
    /// Its outcome code.
    #[serde(default)]
    pub outcome: String,
}

/// A file of a sample.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    title: String,
    story: String,
    from: String,
    send: Value,
    #[serde(default)]
    held: BTreeMap<String, Record>,
    expected: Expected,
}

/// Why a text is not a sample.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// It is no JSON, or a member is unknown, missing or of the wrong type.
    #[error("sample {0} is not a sample")]
    Syntax(String, #[source] serde_json::Error),
    /// What it sends is not a message.
    #[error("sample {0} sends what is not a message")]
    Message(String, #[source] JsonError),
    /// What it sends is not a referral.
    #[error("sample {0} sends something else than a referral")]
    NoReferral(String),
}

/// Every sample, in order of name.
///
/// # Errors
/// [`SampleError`]: a test shows that none of the files has one.
pub fn all() -> Result<Vec<Sample>, SampleError> {
    FILES.iter().map(|(name, text)| parse(name, text)).collect()
}

/// Reads one sample.
fn parse(name: &str, text: &str) -> Result<Sample, SampleError> {
    let text: Text = serde_json::from_str(text).map_err(|error| SampleError::Syntax(name.to_owned(), error))?;
    let message =
        serde_json::to_string_pretty(&text.send).map_err(|error| SampleError::Syntax(name.to_owned(), error))?;
    let parsed = parse_send(&message).map_err(|error| SampleError::Message(name.to_owned(), error))?;
    let Request::Referral(mut request) = parsed.request else { return Err(SampleError::NoReferral(name.to_owned())) };
    if let Some(sending) = &mut request.sending {
        sending.request_id = format!("sample-{name}");
    }
    let Text { title, story, from, held, expected, .. } = text;
    Ok(Sample { name: name.to_owned(), title, story, from, request, message, held, expected })
}

/// What an institution holds about the persons of the samples.
#[must_use]
pub fn register(samples: &[Sample], institution: &str) -> Register {
    let mut register = Register::default();
    for sample in samples {
        let person = sample.request.referral.as_ref().and_then(|referral| referral.person.as_ref());
        if let (Some(person), Some(record)) = (person, sample.held.get(institution)) {
            register.enter(person, record.clone());
        }
    }
    register
}

/// The message of a sample's file, when the text is one: so that `tramite send` can be tried with a sample.
#[must_use]
pub fn message_in(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    value.get("expected")?;
    Some(value.get("send")?.to_string())
}

#[cfg(test)]
mod tests;
