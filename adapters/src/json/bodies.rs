//! The JSON form of the five bodies.
//!
//! Knows the shape alone. Never knows what a field may hold, which is checked where a message is sent. A value in a document's answer stands as JSON
//! itself, not as a string of JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tramite_proto::pb::body::v1 as body;

use super::{
    form::{Day, Form, Hex, Problem, form, word},
    person::{HouseholdMember, Mandate, Person, read_day},
};

word!(
    /// `verify`, `value`, `copy`: the least that serves comes first.
    AnswerMode => body::AnswerMode, "ANSWER_MODE_"
);

form!(
    /// An amount of money.
    Money => body::Money { amount: String, currency: String }
);

form!(
    /// Opens a case: this person may have these rights; please act.
    Referral => body::Referral {
        person: Person,
        household: Vec<HouseholdMember>,
        benefits: Vec<String>,
        needs: Vec<String>,
        situation: String,
        mandate: Mandate,
        disadvantages: Vec<String>,
        continues_case: String,
    }
);

form!(
    /// How far the application for one benefit is.
    BenefitState => body::BenefitState { benefit: String, state: String, protocol_number: String, since: Day, monthly: Money }
);

form!(
    /// Moves a referral.
    ReferralUpdate => body::ReferralUpdate {
        status: String,
        reason: String,
        by: String,
        outcome: String,
        note: String,
        rerouted_to: String,
        rerouted_case: String,
        review: Day,
        benefits: Vec<BenefitState>,
    }
);

form!(
    /// One document or fact asked for.
    DocumentWanted => body::DocumentWanted { document: String, mode: AnswerMode, statement: String, as_of: Day }
);

form!(
    /// Opens a case of its own: asks the holder for documents.
    DocumentRequest => body::DocumentRequest {
        person: Person,
        documents: Vec<DocumentWanted>,
        for_case: String,
        benefit: String,
        note: String,
        mandate: Mandate,
    }
);

form!(
    /// Moves a document request, by its holder.
    DocumentResponse => body::DocumentResponse {
        status: String,
        reason: String,
        detail: String,
        documents: Vec<DocumentProvided>,
        action_url: String,
        available_at: i64,
    }
);

form!(
    /// Moves a document request, by its requester.
    DocumentRequestUpdate => body::DocumentRequestUpdate { status: String, reason: String, note: String }
);

form!(
    /// A document that travels as a sealed part; only ever shown.
    Attachment => body::Attachment { name: String, media_type: String, length: u64, sha256: Hex, document: String }
);

/// One answer to one document wanted: one of `confirmed`, `value`, `attachment`, `unavailable`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DocumentProvided {
    /// Document code.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) document: String,
    /// To `verify`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) confirmed: Option<bool>,
    /// To `value`: a JSON object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<Value>,
    /// To `copy`: place in `attachments`, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attachment: Option<u32>,
    /// Reason code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unavailable: Option<String>,
    /// Date of the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) issued: Option<Day>,
    /// Until when it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) valid_until: Option<Day>,
}

impl Form<body::DocumentProvided> for DocumentProvided {
    fn show(value: body::DocumentProvided) -> Option<Self> {
        use body::document_provided::Answer;
        let mut form = Self {
            document: value.document,
            issued: Form::show(value.issued),
            valid_until: Form::show(value.valid_until),
            ..Self::default()
        };
        match value.answer {
            Some(Answer::Confirmed(yes)) => form.confirmed = Some(yes),
            // What is not JSON after all is shown as the text that it is.
            Some(Answer::ValueJson(text)) => {
                form.value = Some(serde_json::from_str(&text).unwrap_or(Value::String(text)));
            }
            Some(Answer::Attachment(index)) => form.attachment = Some(index),
            Some(Answer::Unavailable(reason)) => form.unavailable = Some(reason),
            None => {}
        }
        Some(form)
    }

    fn read(self) -> Result<body::DocumentProvided, Problem> {
        use body::document_provided::Answer;
        let answers = [
            self.confirmed.map(Answer::Confirmed),
            self.value.map(|value| Answer::ValueJson(value.to_string())),
            self.attachment.map(Answer::Attachment),
            self.unavailable.map(Answer::Unavailable),
        ];
        let mut given: Vec<Answer> = answers.into_iter().flatten().collect();
        if given.len() != 1 {
            return Err(Problem::new("an answer has exactly one of confirmed, value, attachment, unavailable"));
        }
        Ok(body::DocumentProvided {
            document: self.document,
            answer: given.pop(),
            issued: read_day(self.issued, "issued")?,
            valid_until: read_day(self.valid_until, "valid_until")?,
        })
    }
}
