//! Who may send what to whom, for which purpose, on which legal basis: the `[[allow]]` rules of the configuration.
//! What no rule allows is refused. A rule names lists; `*` in a list stands for all. Rules only add: there is no "deny",
//! so the order of rules never matters and a reader needs no more than one matching rule to see why something passed.

use tramite_proto::{
    reason::{Reason, Refused},
    states::MessageType,
};

use crate::config::Allow;

/// The package that a short type name of the configuration belongs to.
const PACKAGE: &str = "tramite.body.v1.";

/// What a message asks to be allowed.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its issuer.
    pub from: &'a str,
    /// Its audience.
    pub to: &'a str,
    /// Its type, the body's full name.
    pub message_type: &'a str,
    /// Its purpose code.
    pub purpose: &'a str,
    /// Its legal basis code.
    pub legal_basis: &'a str,
}

/// The rules in force.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    rules: Vec<Allow>,
}

impl Policy {
    /// The rules as configured; the configuration has checked the names in them.
    #[must_use]
    pub fn new(rules: &[Allow]) -> Self {
        let full = |name: &String| full_name(name);
        let rules =
            rules.iter().map(|rule| Allow { types: rule.types.iter().map(full).collect(), ..rule.clone() }).collect();
        Self { rules }
    }

    /// Whether some rule allows it.
    ///
    /// # Errors
    /// `POLICY_DENIED` when no rule lets `from` send this type to `to`; `PURPOSE_NOT_ALLOWED` when one would, but for another
    /// purpose; `LEGAL_BASIS_NOT_ALLOWED` when only the legal basis does not fit.
    pub fn check(&self, asked: &Asked<'_>) -> Result<(), Refused> {
        let mut nearest = Reason::PolicyDenied;
        for rule in self.routes(asked.from, asked.to).filter(|rule| has(&rule.types, asked.message_type)) {
            if !has(&rule.purposes, asked.purpose) {
                if nearest == Reason::PolicyDenied {
                    nearest = Reason::PurposeNotAllowed;
                }
            } else if !has(&rule.legal_bases, asked.legal_basis) {
                nearest = Reason::LegalBasisNotAllowed;
            } else {
                return Ok(());
            }
        }
        let Asked { from, to, message_type, purpose, legal_basis } = asked;
        let (detail, field) = match nearest {
            Reason::PurposeNotAllowed => {
                (format!("{from} may not send {message_type} to {to} for purpose {purpose}"), "pur")
            }
            Reason::LegalBasisNotAllowed => {
                (format!("{from} may not send {message_type} to {to} for {purpose} on legal basis {legal_basis}"), "lb")
            }
            _ => (format!("no rule lets {from} send {message_type} to {to}"), "mt"),
        };
        Err(Refused::new(nearest, detail).field(field))
    }

    /// The message types that `to` accepts from `from`, in the order of their table.
    #[must_use]
    pub fn accepted(&self, from: &str, to: &str) -> Vec<String> {
        let allowed = |kind: &MessageType| self.routes(from, to).any(|rule| has(&rule.types, kind.as_str()));
        MessageType::all().filter(allowed).map(|kind| kind.as_str().to_owned()).collect()
    }

    fn routes<'a>(&'a self, from: &'a str, to: &'a str) -> impl Iterator<Item = &'a Allow> {
        self.rules.iter().filter(move |rule| has(&rule.from, from) && has(&rule.to, to))
    }
}

/// A type of the configuration with its package: `Referral` is `tramite.body.v1.Referral`.
#[must_use]
pub fn full_name(name: &str) -> String {
    if name == "*" || name.contains('.') { name.to_owned() } else { format!("{PACKAGE}{name}") }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|entry| entry == "*" || entry == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    fn policy() -> Policy {
        Policy::new(&[
            Allow {
                from: words(&["caritas"]),
                to: words(&["inps"]),
                types: words(&["Referral", "ReferralUpdate"]),
                purposes: words(&["REFERRAL"]),
                legal_bases: words(&["CONSENT"]),
            },
            Allow {
                from: words(&["inps"]),
                to: words(&["*"]),
                types: words(&["*"]),
                purposes: words(&["*"]),
                legal_bases: words(&["PUBLIC_TASK"]),
            },
        ])
    }

    fn asked<'a>(from: &'a str, to: &'a str, kind: &'a str, purpose: &'a str, legal_basis: &'a str) -> Asked<'a> {
        Asked { from, to, message_type: kind, purpose, legal_basis }
    }

    #[test]
    fn what_no_rule_allows_is_refused_with_the_nearest_reason() {
        let referral = "tramite.body.v1.Referral";
        let cases = [
            (asked("caritas", "inps", referral, "REFERRAL", "CONSENT"), None),
            (asked("inps", "comune-bologna", "tramite.body.v1.DocumentRequest", "ANY", "PUBLIC_TASK"), None),
            (asked("caritas", "comune-bologna", referral, "REFERRAL", "CONSENT"), Some(Reason::PolicyDenied)),
            (asked("comune-bologna", "inps", referral, "REFERRAL", "CONSENT"), Some(Reason::PolicyDenied)),
            (
                asked("caritas", "inps", "tramite.body.v1.DocumentRequest", "REFERRAL", "CONSENT"),
                Some(Reason::PolicyDenied),
            ),
            (asked("caritas", "inps", referral, "STATISTICS", "CONSENT"), Some(Reason::PurposeNotAllowed)),
            (asked("caritas", "inps", referral, "REFERRAL", "PUBLIC_TASK"), Some(Reason::LegalBasisNotAllowed)),
        ];
        for (asked, expected) in cases {
            assert_eq!(policy().check(&asked).err().map(|refused| refused.reason), expected, "{asked:?}");
        }
    }

    #[test]
    fn an_institution_sees_which_types_another_accepts_from_it() {
        let accepted = policy().accepted("caritas", "inps");
        assert_eq!(accepted, ["tramite.body.v1.Referral", "tramite.body.v1.ReferralUpdate"]);
        assert!(policy().accepted("caritas", "comune-bologna").is_empty());
        assert_eq!(policy().accepted("inps", "caritas").len(), MessageType::CODES.len());
    }

    #[test]
    fn without_rules_nothing_passes() {
        let refused = Policy::default().check(&asked("a", "b", "c", "d", "e")).unwrap_err();
        assert_eq!(refused.reason, Reason::PolicyDenied);
    }
}
