//! Why data may be used: purposes, legal bases, mandates. Every message names one purpose and one legal basis, signed.
//!
//! Knows: the codes. Never knows: which institution may use which (that is the gateway's policy).
use crate::codes::codes;

codes! {
    /// What the data are for.
    pub enum Purpose("a purpose code") {
        RightsScreening = "RIGHTS_SCREENING", "finding rights that were never claimed";
        BenefitApplication = "BENEFIT_APPLICATION", "applying for a benefit and deciding on it";
        DocumentAcquisition = "DOCUMENT_ACQUISITION", "acquiring documents ex officio for a procedure";
        ResidenceRegistration = "RESIDENCE_REGISTRATION", "registering a residence";
        SocialCare = "SOCIAL_CARE", "taking a person in charge (presa in carico)";
        JobPlacement = "JOB_PLACEMENT", "finding work or training";
        EmergencyAid = "EMERGENCY_AID", "food, shelter, care that cannot wait";
        CaseFollowUp = "CASE_FOLLOW_UP", "telling what came of a case";
    }
}

codes! {
    /// On which ground the data may be used.
    pub enum LegalBasis("a legal basis code") {
        Consent = "GDPR-6-1-A", "GDPR art. 6(1)(a): consent of the person";
        LegalObligation = "GDPR-6-1-C", "GDPR art. 6(1)(c): legal obligation";
        VitalInterests = "GDPR-6-1-D", "GDPR art. 6(1)(d): vital interests";
        PublicTask = "GDPR-6-1-E", "GDPR art. 6(1)(e): task in the public interest (Codice privacy art. 2-ter)";
        ExplicitConsent = "GDPR-9-2-A", "GDPR art. 9(2)(a): explicit consent to the use of special categories";
        SubstantialPublicInterest = "GDPR-9-2-G", "GDPR art. 9(2)(g): substantial public interest (Codice privacy art. 2-sexies)";
        ExOfficio = "DPR-445-43", "DPR 445/2000 art. 43: acquisition ex officio between administrations";
        DataAvailability = "CAD-50-2", "CAD art. 50 c. 2: data of one administration that another needs for its tasks";
    }
}

codes! {
    /// What the person agreed to.
    pub enum MandateKind("a kind of mandate") {
        Consent = "CONSENT", "consent";
        Mandate = "MANDATE", "mandate to act";
        Guardianship = "GUARDIANSHIP", "guardianship";
        NoneNeeded = "NONE_NEEDED", "none is needed";
    }
}
