//! INPS, Direzione regionale Emilia-Romagna: it receives referrals for national benefits, asks the holders for what the
//! applications need, and reports the outcome. It refers a person on when somebody else must act first: without a residence there
//! is no Assegno di Inclusione.
//!
//! Knows the documents that INPS holds (ISEE, contribution statement, disability report) and a demo's rules. Sources of the
//! rules: DL 48/2023 art. 2 and 12, D.Lgs. 150/2015 art. 19, L. 335/1995 art. 3 c. 6, L. 118/1971. Never advice about anybody's
//! rights.

use tramite_proto::pb::body::v1::{BenefitState, Date, Referral, address};

use crate::{
    citta_metropolitana, comune,
    desk::{
        dossier::{Answer, Answers},
        office::{Conclusion, Copy, EVERY, Holding, Office, Triage, Wanted, asks, copy, never_cancels, value, verify},
    },
};

/// The institution's name in the network.
pub const NAME: &str = "inps";

/// INPS.
pub static OFFICE: Office = Office {
    name: NAME,
    display_name: "INPS, Direzione regionale Emilia-Romagna",
    ipa_code: "inps",
    codice_fiscale: "80078750587",
    sends: EVERY,
    answers: EVERY,
    holds: &[
        Holding { document: "ISEE", title: "Attestazione ISEE", copy: Copy::Json },
        Holding { document: "ESTRATTO_CONTRIBUTIVO", title: "Estratto conto contributivo", copy: Copy::Pdf },
        Holding { document: "VERBALE_INVALIDITA", title: "Verbale di invalidità civile", copy: Copy::Pdf },
    ],
    triage,
    conclude,
    reconsider: never_cancels,
};

/// Benefits that have ended: the law that introduced what came instead is named to the referrer.
const ENDED: [&str; 3] = ["RDC", "PDC", "REM"];
/// Citizens of these states need no permit (a demo's short list, not the Union's members).
const WITHOUT_PERMIT: [&str; 6] = ["IT", "RO", "BG", "PL", "DE", "FR"];

/// At first sight.
fn triage(referral: &Referral, _: &Date) -> Triage {
    if referral.benefits.is_empty() {
        let note = "No benefit is named, and the situation does not say enough to find one. Please ask the person.";
        return Triage::Hold { reason: "INSUFFICIENT_INFO", note };
    }
    if referral.benefits.iter().all(|benefit| ENDED.contains(&benefit.as_str())) {
        let note = "This benefit ended on 31 December 2023 (DL 48/2023). Please look at ADI or SFL instead.";
        return Triage::Reject { by: "PROVIDER", reason: "NOT_ELIGIBLE", note };
    }
    if asks(referral, "ADI") && !has_residence(referral) {
        let note = "ADI asks for a residence. The Comune can register a person without abode in the fictitious street.";
        return Triage::Reroute { to: comune::NAME, benefits: &["RESIDENZA_SFD"], needs: &["RESIDENCE"], note };
    }
    Triage::Take { pause: None, wanted: wanted(referral) }
}

/// True when the person is registered anywhere, the fictitious street included.
fn has_residence(referral: &Referral) -> bool {
    let addresses = referral.person.iter().flat_map(|person| &person.addresses);
    addresses
        .into_iter()
        .any(|place| matches!(place.kind(), address::Kind::Residence | address::Kind::FictitiousStreet))
}

/// What the applications need, each document once.
fn wanted(referral: &Referral) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    let mut want = |document: Wanted| {
        if !wanted.contains(&document) {
            wanted.push(document);
        }
    };
    for benefit in &referral.benefits {
        match benefit.as_str() {
            "ADI" => {
                want(value(comune::NAME, "STATO_FAMIGLIA"));
                want(copy(comune::NAME, "RESIDENZA"));
                if needs_permit(referral) {
                    let statement = "The permit of stay is valid on the day of the application.";
                    want(verify(comune::NAME, "PERMESSO_SOGGIORNO", statement));
                }
                if referral.disadvantages.iter().any(|code| code == "HOMELESS_IN_CARE") {
                    want(copy(comune::NAME, "ATTESTAZIONE_SVANTAGGIO"));
                    want(copy(citta_metropolitana::NAME, "DID"));
                }
            }
            "SFL" => {
                want(value(comune::NAME, "STATO_FAMIGLIA"));
                want(verify(comune::NAME, "RESIDENZA", "Resident in Italy for at least five years."));
                want(copy(citta_metropolitana::NAME, "DID"));
                want(copy(citta_metropolitana::NAME, "PATTO_SERVIZIO"));
            }
            "NASPI" => {
                want(value(comune::NAME, "STATO_FAMIGLIA"));
                want(copy(citta_metropolitana::NAME, "DID"));
            }
            "AUU" => want(value(comune::NAME, "STATO_FAMIGLIA")),
            "ASSEGNO_SOCIALE" => want(copy(comune::NAME, "STORICO_RESIDENZA")),
            _ => want(value(comune::NAME, "RESIDENZA")),
        }
    }
    wanted
}

/// True when every citizenship known is one that needs a permit.
fn needs_permit(referral: &Referral) -> bool {
    let known = referral.person.as_ref().map(|person| person.citizenships.as_slice()).unwrap_or_default();
    !known.is_empty() && known.iter().all(|state| !WITHOUT_PERMIT.contains(&state.as_str()))
}

/// With every answer on the table.
fn conclude(referral: &Referral, answers: &Answers) -> Conclusion {
    if answers.values().any(|answer| *answer == Answer::Confirmed(false)) {
        let note = "The holder does not confirm a requirement. The person may apply again when that has changed.";
        return Conclusion::Fail { reason: "NOT_ELIGIBLE", note };
    }
    let missing = answers.values().any(|answer| matches!(answer, Answer::Unavailable(_)));
    let (outcome, state, note) = if missing {
        (
            "PARTIALLY_PROVIDED",
            "INTEGRAZIONE",
            "Applied for; one document is not held by anybody asked and is still to come.",
        )
    } else {
        ("SERVICE_PROVIDED", "PROTOCOLLATA", "Applied for; the person will hear from us by post or at the desk.")
    };
    let benefits = referral.benefits.iter().map(|benefit| BenefitState {
        benefit: benefit.clone(),
        state: state.to_owned(),
        ..BenefitState::default()
    });
    Conclusion::Complete { outcome, benefits: benefits.collect(), note }
}

#[cfg(test)]
mod tests {
    use tramite_proto::pb::body::v1::{Address, Person};

    use super::*;

    const TODAY: Date = Date { year: 2026, month: 11, day: 23 };

    fn referral(benefits: &[&str], residence: address::Kind, citizenship: &str) -> Referral {
        let addresses = vec![Address { kind: residence.into(), ..Address::default() }];
        let citizenships = vec![citizenship.to_owned()];
        Referral {
            person: Some(Person { addresses, citizenships, ..Person::default() }),
            benefits: benefits.iter().map(|&code| code.to_owned()).collect(),
            ..Referral::default()
        }
    }

    #[test]
    fn without_a_residence_a_person_is_referred_on_to_the_comune() {
        let decided = triage(&referral(&["ADI"], address::Kind::UsualPlace, "IT"), &TODAY);
        assert!(matches!(decided, Triage::Reroute { to: "comune", .. }), "{decided:?}");
        let street = triage(&referral(&["ADI"], address::Kind::FictitiousStreet, "IT"), &TODAY);
        assert!(matches!(street, Triage::Take { .. }), "the fictitious street is a residence: {street:?}");
    }

    #[test]
    fn only_citizens_of_other_states_are_asked_for_a_permit() {
        let asked = |state| {
            wanted(&referral(&["ADI"], address::Kind::Residence, state))
                .iter()
                .any(|w| w.document == "PERMESSO_SOGGIORNO")
        };
        assert!(asked("MA"));
        assert!(!asked("IT"));
    }

    #[test]
    fn each_document_is_asked_for_once_whatever_the_benefits() {
        let wanted = wanted(&referral(&["ADI", "AUU", "NASPI"], address::Kind::Residence, "IT"));
        assert_eq!(wanted.iter().filter(|w| w.document == "STATO_FAMIGLIA").count(), 1);
    }

    #[test]
    fn what_a_holder_does_not_confirm_fails_the_case() {
        let answers = Answers::from([("PERMESSO_SOGGIORNO".to_owned(), Answer::Confirmed(false))]);
        let concluded = conclude(&referral(&["ADI"], address::Kind::Residence, "MA"), &answers);
        assert!(matches!(concluded, Conclusion::Fail { reason: "NOT_ELIGIBLE", .. }), "{concluded:?}");
    }
}
