//! Caritas diocesana di Bologna: it meets people first, and refers them to whoever can act. It is a private body: it holds no
//! administration's data, and rights to such data need the person's mandate. It receives referrals too, for food, goods and
//! company.
//!
//! It takes a referral back when the answer is a question that only the person could answer, and the person cannot be found.

use tramite_proto::pb::body::v1::{Date, Referral, ReferralUpdate};

use crate::desk::{
    dossier::Answers,
    office::{Conclusion, Office, REFERRALS, Triage},
};

/// The institution's name in the network.
pub const NAME: &str = "caritas";

/// Caritas diocesana di Bologna.
pub static OFFICE: Office = Office {
    name: NAME,
    display_name: "Caritas diocesana di Bologna",
    ipa_code: "",
    codice_fiscale: "",
    sends: REFERRALS,
    answers: REFERRALS,
    holds: &[],
    triage,
    conclude,
    reconsider,
};

/// Whoever comes is taken in.
fn triage(_: &Referral, _: &Date) -> Triage {
    Triage::Take { pause: None, wanted: Vec::new() }
}

/// And helped.
fn conclude(_: &Referral, _: &Answers) -> Conclusion {
    let note = "Welcomed at the day centre; meals and clothes from today.";
    Conclusion::Complete { outcome: "SERVICE_PROVIDED", benefits: Vec::new(), note }
}

/// A question that only the person could answer, and nobody has seen the person since.
fn reconsider(update: &ReferralUpdate) -> Option<&'static str> {
    (update.status == "on_hold" && update.reason == "INSUFFICIENT_INFO").then_some("NO_CONTACT")
}
