//! Referral and its updates.
//!
//! Knows: what each status asks for (who declined, what came of it, when to look again). Never knows: where the case stands.
use super::{field::Check, person, status_and_reason};
use crate::{
    ids::{CaseId, InstitutionName},
    pb::body::v1::{BenefitState, Referral, ReferralUpdate},
    states::MessageType,
    vocabulary::{Benefit, BenefitStage, DeclinedBy, Disadvantage, Need, Outcome, ReferralReason},
};

/// Codes of one kind in a referral: more than there are of most kinds.
const CODES_MAX: usize = 20;
/// Characters of the situation in words: about three pages.
const SITUATION_MAX: usize = 8_000;
/// Characters of a note.
pub(super) const NOTE_MAX: usize = 4_000;

pub(super) fn referral(check: &mut Check<'_>, referral: &Referral) {
    if let Some(it) = check.required("person", referral.person.as_ref()) {
        person::person(&mut check.inside("person"), it);
    }
    person::household(check, &referral.household);
    if referral.benefits.is_empty() && referral.needs.is_empty() {
        check.problem("benefits", "at least one benefit or one need must be named");
    }
    check.codes::<Benefit>("benefits", &referral.benefits, CODES_MAX);
    check.codes::<Need>("needs", &referral.needs, CODES_MAX);
    check.text("situation", &referral.situation, SITUATION_MAX);
    person::mandate(check, referral.mandate.as_ref());
    check.codes::<Disadvantage>("disadvantages", &referral.disadvantages, CODES_MAX);
    if !referral.continues_case.is_empty() {
        check.parses::<CaseId>("continues_case", &referral.continues_case);
    }
}

pub(super) fn update(check: &mut Check<'_>, update: &ReferralUpdate) {
    status_and_reason::<ReferralReason>(check, MessageType::ReferralUpdate, &update.status, &update.reason);
    only_when(check, "by", &update.by, &update.status, "rejected");
    check.optional_code::<DeclinedBy>("by", &update.by);
    only_when(check, "outcome", &update.outcome, &update.status, "completed");
    check.optional_code::<Outcome>("outcome", &update.outcome);
    check.text("note", &update.note, NOTE_MAX);
    if update.reason == ReferralReason::Other.as_str() && update.note.trim().is_empty() {
        check.problem("note", "the reason OTHER needs a note");
    }
    only_when(check, "rerouted_to", &update.rerouted_to, &update.status, "rerouted");
    if !update.rerouted_to.is_empty() {
        check.parses::<InstitutionName>("rerouted_to", &update.rerouted_to);
    }
    if !update.rerouted_case.is_empty() {
        if update.status != "rerouted" {
            check.problem("rerouted_case", "only with status rerouted");
        }
        check.parses::<CaseId>("rerouted_case", &update.rerouted_case);
    }
    if update.status == "on_hold" && update.review.is_none_or(|date| date.year == 0) {
        check.problem("review", "status on_hold needs a date to look at it again");
    }
    check.date("review", update.review.as_ref());
    check.count("benefits", update.benefits.len(), CODES_MAX);
    for (place, it) in update.benefits.iter().take(CODES_MAX).enumerate() {
        benefit(&mut check.inside(format_args!("benefits[{place}]")), it);
    }
}

/// A field that one status needs and no other has.
fn only_when(check: &mut Check<'_>, field: &str, value: &str, status: &str, wanted: &str) {
    if status == wanted && value.is_empty() {
        check.problem(field, format!("missing: status {wanted} needs it"));
    } else if status != wanted && !value.is_empty() {
        check.problem(field, format!("only with status {wanted}"));
    }
}

fn benefit(check: &mut Check<'_>, state: &BenefitState) {
    check.code::<Benefit>("benefit", &state.benefit);
    check.code::<BenefitStage>("state", &state.state);
    check.text("protocol_number", &state.protocol_number, 64);
    check.date("since", state.since.as_ref());
    check.money("monthly", state.monthly.as_ref());
}
