//! Comune di Bologna: it registers residence (the fictitious street for people without abode included), finds shelter, and holds
//! what the register of the population knows: family status, residence and its history, permits as entered there, attestations of
//! disadvantage.
//!
//! Between administrations what it gives is data, not a certificate (DPR 445/2000 art. 43). Its copy of a residence history is a
//! scan of the paper register, several MiB long. Rules of a demo; never advice about anybody's rights.

use tramite_proto::pb::body::v1::{Date, Referral, person_identifier::Kind};

use crate::desk::{
    dossier::Answers,
    office::{Conclusion, Copy, EVERY, Holding, Office, Triage, needs, never_cancels},
};

/// The institution's name in the network.
pub const NAME: &str = "comune";

/// Comune di Bologna.
pub static OFFICE: Office = Office {
    name: NAME,
    display_name: "Comune di Bologna",
    ipa_code: "c_a944",
    codice_fiscale: "01232710374",
    sends: EVERY,
    answers: EVERY,
    holds: &[
        Holding { document: "RESIDENZA", title: "Dati di residenza", copy: Copy::Pdf },
        Holding { document: "STORICO_RESIDENZA", title: "Storico di residenza, registro cartaceo", copy: Copy::Scan },
        Holding { document: "STATO_FAMIGLIA", title: "Stato di famiglia", copy: Copy::Pdf },
        Holding { document: "CITTADINANZA", title: "Cittadinanza", copy: Copy::Pdf },
        Holding { document: "PERMESSO_SOGGIORNO", title: "Permesso di soggiorno, come annotato", copy: Copy::Pdf },
        Holding {
            document: "ATTESTAZIONE_SVANTAGGIO",
            title: "Attestazione della condizione di svantaggio",
            copy: Copy::Pdf,
        },
    ],
    triage,
    conclude,
    reconsider: never_cancels,
};

/// At first sight. The housing office is closed in the demo: nobody opens what comes in there.
fn triage(referral: &Referral, _: &Date) -> Triage {
    if needs(referral, "HOUSING") {
        return Triage::Unattended;
    }
    // A bed for somebody whose ENI code must be checked first waits a little.
    let pause = (needs(referral, "SHELTER") && holds_eni(referral)).then_some("SERVICE_UNAVAILABLE");
    Triage::Take { pause, wanted: Vec::new() }
}

/// True when the person is known by an ENI code.
fn holds_eni(referral: &Referral) -> bool {
    let mut identifiers = referral.person.iter().flat_map(|person| &person.identifiers);
    identifiers.any(|identifier| matches!(identifier.kind, Some(Kind::Eni(_))))
}

/// The health part of a need is for the health service, which is not in this network.
fn conclude(referral: &Referral, _: &Answers) -> Conclusion {
    let (outcome, note) = if needs(referral, "HEALTH") {
        ("PARTIALLY_PROVIDED", "A bed from tonight. For health the person has an appointment with the health service.")
    } else if needs(referral, "RESIDENCE") {
        ("SERVICE_PROVIDED", "Registered as resident; without an abode, in the fictitious street.")
    } else {
        ("SERVICE_PROVIDED", "Done.")
    };
    Conclusion::Complete { outcome, benefits: Vec::new(), note }
}
