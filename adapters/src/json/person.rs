//! The JSON form of a person: who it is, as far as anybody knows.
//!
//! Knows the shape alone. Never checks a code: that is the vocabulary's business. Invariant: an identifier has exactly one kind.

use serde::{Deserialize, Serialize};
use tramite_proto::pb::body::v1 as body;

use super::form::{Day, Form, Problem, form, word};

word!(
    /// `male`, `female`, `not_stated`.
    Sex => body::Sex, "SEX_"
);
word!(
    /// `declared`, `document_seen`, `verified`.
    Assurance => body::Assurance, "ASSURANCE_"
);
word!(
    /// `residence`, `fictitious_street`, `elected_domicile`, `shelter`, `usual_place`.
    AddressKind => body::address::Kind, "KIND_"
);

form!(
    /// Where a person can be found.
    Address => body::Address {
        kind: AddressKind,
        street: String,
        postal_code: String,
        municipality: String,
        municipality_code: String,
        country: String,
    }
);

form!(
    /// How to reach a person.
    Contact => body::Contact { phone: String, email: String, through: String }
);

form!(
    /// A person, as far as known.
    Person => body::Person {
        identifiers: Vec<Identifier>,
        surname: String,
        given_name: String,
        sex: Sex,
        born: Day,
        birth_place: String,
        citizenships: Vec<String>,
        addresses: Vec<Address>,
        contact: Contact,
        homeless: bool,
        languages: Vec<String>,
    }
);

form!(
    /// Somebody of the same household.
    HouseholdMember => body::HouseholdMember { person: Person, relation: String, minor: bool, disabled: bool }
);

form!(
    /// What the person agreed to.
    Mandate => body::Mandate { kind: String, reference: String, given: Day }
);

/// One identifier: one of the first six members, and what is known about it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Identifier {
    /// 16 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) codice_fiscale: Option<String>,
    /// 11 digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) provisional_numeric: Option<String>,
    /// `STP` and 13 digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stp: Option<String>,
    /// `ENI` and 13 digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) eni: Option<String>,
    /// ANPR's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id_anpr: Option<String>,
    /// `<institution>/<number>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) local_case: Option<String>,
    /// Who issued or assigned it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) issuer: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) issued: Option<Day>,
    /// Until when it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<Day>,
    /// How sure it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) assurance: Option<Assurance>,
}

impl Form<body::PersonIdentifier> for Identifier {
    fn show(value: body::PersonIdentifier) -> Option<Self> {
        use body::person_identifier::Kind;
        let mut form = Self {
            issuer: Form::show(value.issuer),
            issued: Form::show(value.issued),
            expires: Form::show(value.expires),
            assurance: Form::show(value.assurance),
            ..Self::default()
        };
        match value.kind {
            Some(Kind::CodiceFiscale(code)) => form.codice_fiscale = Some(code),
            Some(Kind::ProvisionalNumeric(code)) => form.provisional_numeric = Some(code),
            Some(Kind::Stp(code)) => form.stp = Some(code),
            Some(Kind::Eni(code)) => form.eni = Some(code),
            Some(Kind::IdAnpr(code)) => form.id_anpr = Some(code),
            Some(Kind::LocalCase(code)) => form.local_case = Some(code),
            None => {}
        }
        Some(form)
    }

    fn read(self) -> Result<body::PersonIdentifier, Problem> {
        use body::person_identifier::Kind;
        let kinds = [
            self.codice_fiscale.map(Kind::CodiceFiscale),
            self.provisional_numeric.map(Kind::ProvisionalNumeric),
            self.stp.map(Kind::Stp),
            self.eni.map(Kind::Eni),
            self.id_anpr.map(Kind::IdAnpr),
            self.local_case.map(Kind::LocalCase),
        ];
        let mut given: Vec<Kind> = kinds.into_iter().flatten().collect();
        if given.len() != 1 {
            return Err(Problem::new(
                "an identifier has exactly one of codice_fiscale, provisional_numeric, stp, eni, id_anpr, local_case",
            ));
        }
        Ok(body::PersonIdentifier {
            kind: given.pop(),
            issuer: self.issuer.unwrap_or_default(),
            issued: read_day(self.issued, "issued")?,
            expires: read_day(self.expires, "expires")?,
            assurance: match self.assurance {
                Some(word) => word.read().map_err(|p| p.within("assurance"))?,
                None => 0,
            },
        })
    }
}

/// A date that may be absent.
pub(super) fn read_day(day: Option<Day>, member: &str) -> Result<Option<body::Date>, Problem> {
    match day {
        Some(day) => day.read().map_err(|p| p.within(member)),
        None => Ok(None),
    }
}
