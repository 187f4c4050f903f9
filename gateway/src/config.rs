//! `gateway.toml`: everything that an installation decides, in one struct. Read once, checked whole, then never changed while
//! the gateway runs. An unknown name is an error, a wrong value gets one sentence that says what and where, all of them at once.
//! Relative paths are relative to the file. No secret stands in it, only the paths of key files.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr as _,
};

use serde::Deserialize;
use tramite_certs::{identity::TrustDomain, limits::Limits, secrets::SigningFiles, tls::TlsFiles};
use tramite_proto::{
    ids::InstitutionName,
    states::MessageType,
    vocabulary::{LegalBasis, Purpose},
};

use crate::policy::full_name;

/// Names that no institution may have: they name holds that are not about an institution.
const RESERVED: [&str; 1] = ["clock"];

/// Ten years: so long may be asked whether and when something was delivered (ordinary limitation, art. 2946 of the Italian civil code).
const RETENTION_DAYS_DEFAULT: u32 = 3_653;
/// A hundred years; more is never.
const RETENTION_DAYS_MAX: u32 = 36_525;

/// The gateway's configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The gateway's name: the last part of its certificates' SAN URI, and the issuer of its evidence.
    pub name: String,
    /// The authority's trust domain, e.g. `tramite.example`.
    pub trust_domain: TrustDomain,
    /// Where the journal, the outbox and the parts are.
    pub data: PathBuf,
    /// Address of the gRPC listener; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Certificate and key of the listener, the pinned roots, the revocation list.
    pub tls: TlsFiles,
    /// Certificate and key of the evidence.
    pub signing: SigningFiles,
    /// Who takes part.
    #[serde(default, rename = "institution")]
    pub institutions: Vec<Institution>,
    /// Who may send what to whom.
    #[serde(default, rename = "allow")]
    pub rules: Vec<Allow>,
    /// How deliveries are repeated and given up.
    #[serde(default)]
    pub delivery: Delivery,
    /// What the listener carries at most.
    #[serde(default)]
    pub limits: Limits,
    /// The store.
    #[serde(default)]
    pub store: StoreOptions,
    /// The clock.
    #[serde(default)]
    pub clock: ClockOptions,
    /// gRPC reflection.
    #[serde(default)]
    pub reflection: Reflection,
    /// The Prometheus page.
    #[serde(default)]
    pub metrics: MetricsOptions,
    /// Traces.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// Logs.
    #[serde(default)]
    pub log: Log,
}

/// One participant.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Institution {
    /// The last part of its certificates' SAN URI.
    pub name: String,
    /// How people call it.
    pub display_name: String,
    /// Public administration or private body.
    pub kind: InstitutionKind,
    /// Code in the Indice delle Pubbliche Amministrazioni.
    #[serde(default)]
    pub ipa_code: String,
    /// The body's own codice fiscale, 11 digits.
    #[serde(default)]
    pub codice_fiscale: String,
    /// eIDAS organizationIdentifier.
    #[serde(default)]
    pub organization_identifier: String,
    /// Sealed parts of its messages that may lie here at a time, in MiB.
    #[serde(default = "quota_default")]
    pub quota_parts_mib: u64,
    /// Sealed bodies of its messages that may wait here at a time, in MiB.
    #[serde(default = "quota_default")]
    pub quota_content_mib: u64,
}

/// What kind of body it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum InstitutionKind {
    /// A public administration: has an IPA code.
    Pa,
    /// A private body.
    Private,
}

/// One rule: each of `from` may send each of `types` to each of `to`, for `purposes`, on `legal_bases`. `*` stands for all.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// Issuers.
    pub from: Vec<String>,
    /// Audiences.
    pub to: Vec<String>,
    /// Message types: `Referral` or `tramite.body.v1.Referral`.
    pub types: Vec<String>,
    /// Purpose codes.
    pub purposes: Vec<String>,
    /// Legal basis codes.
    pub legal_bases: Vec<String>,
}

/// How deliveries are repeated and given up.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delivery {
    /// A recipient has so long to settle what it was sent; then it is offered again.
    pub lease_s: u64,
    /// Wait before the second attempt; doubled for each further one.
    pub retry_initial_ms: u64,
    /// The longest wait.
    pub retry_max_ms: u64,
    /// After so many attempts a message is given up: a dead letter.
    pub attempts_max: u32,
}

/// The store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreOptions {
    /// Size of a journal segment, preallocated, in MiB.
    pub segment_mib: u32,
    /// A case that has ended, and every fact of it, goes so many days after the last of them; 0: never.
    pub retention_days: u32,
}

/// The clock.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClockOptions {
    /// True: go on although more than a day lies between the last record and the clock. Otherwise an operator releases `clock`.
    pub accept_gap: bool,
}

/// gRPC reflection.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reflection {
    /// Off: tools need the .proto files.
    pub enabled: bool,
}

/// The Prometheus page.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsOptions {
    /// Address of a plain HTTP listener with `/metrics`; keep it on a private address. Absent: none.
    pub listen: Option<SocketAddr>,
}

/// Traces.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// OTLP endpoint over gRPC, e.g. `http://127.0.0.1:4317`. Absent: no traces.
    pub otlp: Option<String>,
}

/// Logs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A filter such as `info` or `info,tramite_gateway=debug`.
    pub level: String,
    /// How lines are written.
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object for each line: nothing in a value can begin a line of its own.
    Json,
    /// For people.
    Text,
}

impl Default for Delivery {
    fn default() -> Self {
        // Twenty attempts from 1 s, doubled up to 15 min, are over two hours of trouble at the recipient's own side. A recipient
        // that is not connected costs no attempts: nothing is sent to it.
        Self { lease_s: 60, retry_initial_ms: 1_000, retry_max_ms: 900_000, attempts_max: 20 }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { segment_mib: 64, retention_days: RETENTION_DAYS_DEFAULT }
    }
}

impl Default for Reflection {
    fn default() -> Self {
        Self { enabled: true }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Json }
    }
}

/// Forty messages with the largest attachments, or sixteen thousand with the largest bodies.
fn quota_default() -> u64 {
    1_024
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read: name another one.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no TOML, or a name or a type is wrong: the source says the line.
    #[error("the configuration is not right")]
    Syntax(#[from] toml::de::Error),
    /// Its values do not fit: every sentence says one thing to put right.
    #[error("the configuration is not right: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

impl Config {
    /// Reads and checks a file; relative paths become relative to its directory.
    ///
    /// # Errors
    /// [`ConfigError`], in words for whoever wrote the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("")))
    }

    /// Reads and checks a text; relative paths become relative to `base`.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] and [`ConfigError::Invalid`].
    pub fn parse(text: &str, base: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text)?;
        config.resolve(base);
        let problems = config.problems();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(problems)) }
    }

    /// The participant of that name.
    #[must_use]
    pub fn institution(&self, name: &str) -> Option<&Institution> {
        self.institutions.iter().find(|institution| institution.name == name)
    }

    fn resolve(&mut self, base: &Path) {
        self.data = base.join(&self.data);
        self.signing = self.signing.relative_to(base);
        self.tls = self.tls.relative_to(base);
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if InstitutionName::from_str(&self.name).is_err() {
            problems.push(format!(
                "name = {:?} is not a name: lower-case letters, digits and hyphens, at most 63",
                self.name
            ));
        }
        self.check_institutions(&mut problems);
        for (place, rule) in self.rules.iter().enumerate() {
            self.check_rule(place + 1, rule, &mut problems);
        }
        self.check_numbers(&mut problems);
        problems
    }

    fn check_institutions(&self, problems: &mut Vec<String>) {
        let mut seen = BTreeSet::new();
        for institution in &self.institutions {
            let name = &institution.name;
            if InstitutionName::from_str(name).is_err() || RESERVED.contains(&name.as_str()) {
                problems.push(format!("[[institution]] name = {name:?} is not a name that an institution may have"));
            }
            if !seen.insert(name) {
                problems.push(format!("[[institution]] {name} stands there twice"));
            }
            if institution.kind == InstitutionKind::Pa && institution.ipa_code.is_empty() {
                problems.push(format!("[[institution]] {name} is a PA: give its ipa_code"));
            }
            let code = &institution.codice_fiscale;
            if !code.is_empty() && (code.len() != 11 || !code.bytes().all(|byte| byte.is_ascii_digit())) {
                problems.push(format!("[[institution]] {name}: codice_fiscale of a body is 11 digits"));
            }
            if institution.quota_parts_mib == 0 {
                problems.push(format!("[[institution]] {name}: quota_parts_mib = 0 would refuse every attachment"));
            }
            if institution.quota_content_mib == 0 {
                problems.push(format!("[[institution]] {name}: quota_content_mib = 0 would refuse every message"));
            }
        }
    }

    fn check_rule(&self, place: usize, rule: &Allow, problems: &mut Vec<String>) {
        let lists = [
            ("from", &rule.from),
            ("to", &rule.to),
            ("types", &rule.types),
            ("purposes", &rule.purposes),
            ("legal_bases", &rule.legal_bases),
        ];
        for (field, list) in lists {
            if list.is_empty() {
                problems.push(format!("[[allow]] number {place}: {field} is empty, so the rule allows nothing"));
            }
            for word in list.iter().filter(|word| *word != "*") {
                let known = match field {
                    "from" | "to" => self.institution(word).is_some(),
                    "types" => MessageType::from_str(&full_name(word)).is_ok(),
                    "purposes" => Purpose::from_str(word).is_ok(),
                    _ => LegalBasis::from_str(word).is_ok(),
                };
                if !known {
                    problems.push(format!("[[allow]] number {place}: {field} names {word:?}, which there is not"));
                }
            }
        }
    }

    fn check_numbers(&self, problems: &mut Vec<String>) {
        let delivery = &self.delivery;
        if delivery.lease_s == 0 || delivery.lease_s > 3_600 {
            problems.push("[delivery] lease_s is 1 to 3600".to_owned());
        }
        if delivery.retry_initial_ms == 0 || delivery.retry_initial_ms > delivery.retry_max_ms {
            problems.push("[delivery] retry_initial_ms is at least 1 and at most retry_max_ms".to_owned());
        }
        if delivery.retry_max_ms > 86_400_000 {
            problems.push("[delivery] retry_max_ms is at most a day (86400000)".to_owned());
        }
        // Each attempt is a fact that stays.
        if delivery.attempts_max == 0 || delivery.attempts_max > 1_000 {
            problems.push("[delivery] attempts_max is 1 to 1000".to_owned());
        }
        let limits = &self.limits;
        if limits.connections == 0 || limits.connections_per_certificate == 0 || limits.connections_per_address == 0 {
            problems.push("[limits] each limit is at least 1".to_owned());
        }
        if self.store.segment_mib == 0 || self.store.segment_mib > 1_024 {
            problems.push("[store] segment_mib is 1 to 1024".to_owned());
        }
        if self.store.retention_days > RETENTION_DAYS_MAX {
            problems.push("[store] retention_days is at most 36525; 0 stands for ever".to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
