//! The words that institutions agree on: benefits, documents, needs, purposes, legal bases, reasons, outcomes.
//!
//! Knows: every code, its name for people, and for benefits and documents the facts that do not change from year to year (legal
//! source, SIUSS code, holder). Never knows: amounts, thresholds, who is entitled to what (dated data, not vocabulary).
//! Invariant: a code is never given another meaning; benefits that ended stay, because cases about them do.
use crate::codes::codes;

mod benefit;
mod document;
mod law;
pub use crate::codes::UnknownCode;
pub use benefit::{Benefit, BenefitFacts, BenefitStage};
pub use document::{Document, DocumentFacts};
pub use law::{LegalBasis, MandateKind, Purpose};

codes! {
    /// What a person needs, besides or before a benefit.
    pub enum Need("a need code") {
        Residence = "RESIDENCE", "registration of residence";
        IdentityDocuments = "IDENTITY_DOCUMENTS", "identity documents, codice fiscale, permit";
        Shelter = "SHELTER", "a place to sleep tonight";
        Housing = "HOUSING", "a home";
        Food = "FOOD", "meals, food";
        Goods = "GOODS", "clothes, medicines, other goods of first need";
        Hygiene = "HYGIENE", "showers, laundry";
        Health = "HEALTH", "health care, a doctor";
        Disability = "DISABILITY", "recognition of a disability";
        Employment = "EMPLOYMENT", "work";
        Training = "TRAINING", "training, school";
        Language = "LANGUAGE", "Italian classes, interpreting";
        Income = "INCOME", "money to live on";
        Debt = "DEBT", "debts, arrears";
        Family = "FAMILY", "care of children or relatives";
        Legal = "LEGAL", "legal advice";
        Protection = "PROTECTION", "protection from violence or trafficking";
        Company = "COMPANY", "company, support against isolation";
    }
}

codes! {
    /// Why a referral was rejected, put on hold, failed, cancelled or corrected.
    pub enum ReferralReason("a referral reason") {
        NotEligible = "NOT_ELIGIBLE", "the person does not meet the conditions";
        NoCapacity = "NO_CAPACITY", "no place, no appointment, no staff";
        OutOfArea = "OUT_OF_AREA", "another territory is competent";
        WrongService = "WRONG_SERVICE", "another service is competent";
        InsufficientInfo = "INSUFFICIENT_INFO", "what is known is not enough to act";
        Duplicate = "DUPLICATE", "the same referral is being worked on already";
        NoContact = "NO_CONTACT", "the person cannot be reached";
        PersonDeclined = "PERSON_DECLINED", "the person does not want it";
        NoLegalBasis = "NO_LEGAL_BASIS", "the data may not be used for this";
        ServiceUnavailable = "SERVICE_UNAVAILABLE", "the service does not exist at present";
        Other = "OTHER", "another reason, in the note";
    }
}

codes! {
    /// What came of a completed referral.
    pub enum Outcome("an outcome") {
        ServiceProvided = "SERVICE_PROVIDED", "the person has what the referral was for";
        PartiallyProvided = "PARTIALLY_PROVIDED", "the person has a part of it";
        ReferredOn = "REFERRED_ON", "the person was referred on to another service";
        NotProvided = "NOT_PROVIDED", "the person does not have it";
    }
}

codes! {
    /// Who declined, when a referral was rejected.
    pub enum DeclinedBy("who declined") {
        Provider = "PROVIDER", "the institution";
        Person = "PERSON", "the person";
    }
}

codes! {
    /// Why a document request was refused, waits, or is disputed: the codes of the EU's Once-Only exchange and three of our own.
    pub enum DocumentReason("a document reason") {
        Authentication = "EDM:ERR:0001", "authentication: the requester is not recognised by the holder's own service";
        Authorization = "EDM:ERR:0002", "authorization: a preview, consent or permission is needed first";
        InvalidRequest = "EDM:ERR:0003", "invalid request: it breaks a rule, which the detail names";
        ObjectNotFound = "EDM:ERR:0004", "object not found: the holder has no such document about the person";
        Timeout = "EDM:ERR:0005", "timeout: not found in the time that there was";
        UnresolvedReference = "EDM:ERR:0006", "unresolved reference: a person, case or benefit named does not exist there";
        UnsupportedCapability = "EDM:ERR:0007", "unsupported capability: the holder cannot answer in this mode";
        Query = "EDM:ERR:0008", "query: the holder's register failed";
        DigestMismatch = "DIGEST_MISMATCH", "what came does not have the digest that was named";
        SubjectMismatch = "SUBJECT_MISMATCH", "what came is about another person";
        RepeatedRequestId = "REPEATED_REQUEST_ID", "the request was answered before under this id";
    }
}

codes! {
    /// Conditions of disadvantage that open the Assegno di Inclusione to a household, certified by a public administration
    /// (DM 154/2023 art. 3). Its letters differ between editions, hence words.
    pub enum Disadvantage("a disadvantage code") {
        MentalDisorderInCare = "MENTAL_DISORDER_IN_CARE", "mental disorder, in the care of health and social services";
        DisabilityInCare = "DISABILITY_IN_CARE", "disability of 46 % or more that needs integrated care";
        AddictionInCare = "ADDICTION_IN_CARE", "addiction, in a programme of treatment";
        TraffickingVictim = "TRAFFICKING_VICTIM", "victim of trafficking";
        GenderViolenceVictim = "GENDER_VIOLENCE_VICTIM", "victim of gender violence, in the care of services";
        FormerPrisoner = "FORMER_PRISONER", "released less than a year ago, or serving a sentence outside prison";
        SocialFragility = "SOCIAL_FRAGILITY", "specific social fragility, housed in a shelter or in a housing emergency";
        HomelessInCare = "HOMELESS_IN_CARE", "homeless in poverty, in the charge of social services";
        CareLeaver = "CARE_LEAVER", "18 to 21 years old, out of the family by order of a court";
    }
}

codes! {
    /// Relation of a member of the household to the person referred.
    pub enum Relation("a relation") {
        Spouse = "SPOUSE", "spouse or civil partner";
        Partner = "PARTNER", "partner";
        Child = "CHILD", "child";
        Parent = "PARENT", "parent";
        Sibling = "SIBLING", "brother or sister";
        Other = "OTHER", "other";
    }
}

#[cfg(test)]
mod tests;
