//! What is well formed and still looks wrong: for a case worker to look at, never a reason to refuse.
//!
//! Knows: that an assigned code can differ from what names and birth give, and that old cases name old benefits.
use super::FieldProblem;
use crate::{
    pb::body::v1::{Body, Person, body::Kind, person_identifier},
    person::CodiceFiscale,
    vocabulary::Benefit,
};

/// What looks wrong in a body.
#[must_use]
pub fn warnings(body: &Body) -> Vec<FieldProblem> {
    let mut found = Vec::new();
    match &body.kind {
        Some(Kind::Referral(referral)) => {
            if let Some(it) = &referral.person {
                person(&mut found, "referral.person", it);
            }
            for (place, it) in referral.household.iter().enumerate() {
                if let Some(it) = &it.person {
                    person(&mut found, &format!("referral.household[{place}].person"), it);
                }
            }
            for (place, code) in referral.benefits.iter().enumerate() {
                if let Some(year) = code.parse::<Benefit>().ok().and_then(|benefit| benefit.facts().ended) {
                    let problem = format!("this benefit ended in {year}");
                    found.push(FieldProblem { field: format!("referral.benefits[{place}]"), problem });
                }
            }
        }
        Some(Kind::DocumentRequest(request)) => {
            if let Some(it) = &request.person {
                person(&mut found, "document_request.person", it);
            }
        }
        Some(Kind::ReferralUpdate(_) | Kind::DocumentResponse(_) | Kind::DocumentRequestUpdate(_)) | None => {}
    }
    found
}

fn person(found: &mut Vec<FieldProblem>, path: &str, person: &Person) {
    for identifier in &person.identifiers {
        let Some(person_identifier::Kind::CodiceFiscale(text)) = &identifier.kind else { continue };
        let Ok(code) = text.parse::<CodiceFiscale>() else { continue };
        for field in code.disagreements(person) {
            let problem = "does not agree with the codice fiscale; one of the two may be mistyped".to_owned();
            found.push(FieldProblem { field: format!("{path}.{field}"), problem });
        }
    }
}
