//! Città metropolitana di Bologna, with the programme *Insieme per il Lavoro*: it helps people into work, and holds the
//! declaration of immediate availability (DID, D.Lgs. 150/2015 art. 19) and the service pact (art. 20).
//!
//! A person who is already in an active measure cannot enter the programme. Rules of a demo; never advice about anybody's rights.

use tramite_proto::pb::body::v1::{Date, Referral};

use crate::desk::{
    dossier::Answers,
    office::{Conclusion, Copy, EVERY, Holding, Office, Triage, asks, needs, never_cancels},
};

/// The institution's name in the network.
pub const NAME: &str = "citta-metropolitana";

/// Città metropolitana di Bologna.
pub static OFFICE: Office = Office {
    name: NAME,
    display_name: "Città metropolitana di Bologna, Insieme per il Lavoro",
    ipa_code: "cmbo",
    codice_fiscale: "03428581205",
    sends: EVERY,
    answers: EVERY,
    holds: &[
        Holding { document: "DID", title: "Dichiarazione di immediata disponibilità", copy: Copy::Pdf },
        Holding { document: "PATTO_SERVIZIO", title: "Patto di servizio personalizzato", copy: Copy::Json },
    ],
    triage,
    conclude,
    reconsider: never_cancels,
};

/// At first sight.
fn triage(referral: &Referral, _: &Date) -> Triage {
    if !needs(referral, "EMPLOYMENT") {
        let note = "The programme is for work. Please write to the Comune for anything else.";
        return Triage::Reject { by: "PROVIDER", reason: "WRONG_SERVICE", note };
    }
    if asks(referral, "SFL") {
        let note = "The person is in an active measure already (SFL) and is looked after there.";
        return Triage::Reject { by: "PROVIDER", reason: "DUPLICATE", note };
    }
    Triage::Take { pause: None, wanted: Vec::new() }
}

/// After the interview.
fn conclude(_: &Referral, _: &Answers) -> Conclusion {
    let note = "Interviewed; a training place from next month.";
    Conclusion::Complete { outcome: "SERVICE_PROVIDED", benefits: Vec::new(), note }
}
