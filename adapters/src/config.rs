//! `adapter.toml`: everything that an institution decides about its adapter, in one struct. Read once, checked whole, then never
//! changed while the adapter runs (key files and certificates are watched). An unknown name is an error, a wrong value gets one
//! sentence that says what and where, all of them at once. Relative paths are relative to the file. No secret stands in it, only
//! the paths of key files.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr as _,
};

use serde::Deserialize;
use tramite_certs::{identity::TrustDomain, secrets::SigningFiles, tls::TlsFiles};
use tramite_proto::{ids::InstitutionName, statement::LIFETIME_S_MAX};

/// Five days: what mail servers try before they give up (RFC 5321 §4.5.4.1).
const EXPIRES_DEFAULT_S: u64 = 5 * 86_400;
/// No message waits longer (FORMATS.md §2.1).
pub const EXPIRES_MAX_S: u64 = LIFETIME_S_MAX.unsigned_abs();
/// Ten years: so long may be asked whether and when something was delivered (ordinary limitation, art. 2946 of the Italian civil code).
const RETENTION_DAYS_DEFAULT: u32 = 3_653;
/// A hundred years; more is never.
const RETENTION_DAYS_MAX: u32 = 36_525;
/// A Unix socket's path has 108 bytes with its closing zero.
pub const SOCKET_PATH_MAX: usize = 107;

/// The adapter's configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The institution's name: the last part of its certificates' SAN URI.
    pub institution: String,
    /// The authority's trust domain, e.g. `tramite.example`.
    pub trust_domain: TrustDomain,
    /// Where the journal, the outbox, parts and attachments are.
    pub data: PathBuf,
    /// The gateway that it dials.
    pub gateway: Gateway,
    /// Certificate and key of the connection, the pinned roots, the revocation list.
    pub tls: TlsFiles,
    /// Certificate and key of what the institution signs.
    pub signing: SigningFiles,
    /// Keys with which what arrives is opened.
    pub encryption: Encryption,
    /// The listener for the institution's own systems.
    #[serde(default)]
    pub backoffice: Option<BackOffice>,
    /// The folder for those who have no systems.
    #[serde(default)]
    pub spool: Option<Spool>,
    /// What a request leaves out.
    #[serde(default)]
    pub defaults: Defaults,
    /// The store.
    #[serde(default)]
    pub store: StoreOptions,
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

/// The gateway that it dials.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// `host:port`.
    pub address: String,
    /// Its name: the last part of its certificates' SAN URI.
    pub name: String,
}

/// Keys with which what arrives is opened.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encryption {
    /// Directory with `enc-<key id>.key` files, mode 0600. Old ones stay: what was sealed to them may still be on its way.
    pub keys: PathBuf,
    /// Key id of the one that others shall seal to. Absent: of those with the strongest suite, the file that changed last.
    #[serde(default)]
    pub active: Option<String>,
}

/// The listener for the institution's own systems: a socket, an address, or both.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackOffice {
    /// A Unix socket, mode 0600 in a directory 0700: whoever may open it is the institution.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// A mutual TLS address; port 0 lets the system choose. Clients show a certificate of this very institution.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Certificate, key and roots of that address. Absent: those of the connection to the gateway.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// gRPC reflection.
    #[serde(default = "yes")]
    pub reflection: bool,
}

/// The folder for those who have no systems.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spool {
    /// Holds `outgoing`, `sent`, `rejected` and `incoming`.
    pub directory: PathBuf,
    /// How often `outgoing` is looked at.
    #[serde(default = "poll_default")]
    pub poll_ms: u64,
}

/// What a request leaves out.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// The agreement between the institutions.
    pub agreement: String,
    /// Pseudonym of the operator, as in ModI AUDIT.
    pub operator: String,
    /// Where the operator works, as in ModI AUDIT.
    pub location: String,
    /// Level of assurance of the operator's log-in: `low`, `substantial`, `high`.
    pub loa: String,
    /// An undelivered message expires after so long.
    pub expires_s: u64,
}

/// The store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreOptions {
    /// Size of a journal segment, preallocated, in MiB.
    pub segment_mib: u32,
    /// A case that has ended, and every fact of it, goes so many days after the last of them; 0: never.
    pub retention_days: u32,
    /// Sealed bytes that may wait for the back office, in MiB; what comes then is put off.
    pub inbox_mib: u32,
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
    /// A filter such as `info` or `info,tramite_adapters=debug`.
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

impl Default for Defaults {
    fn default() -> Self {
        Self {
            agreement: "INPS-PER-TUTTI-2021".to_owned(),
            operator: "backoffice".to_owned(),
            location: "office".to_owned(),
            loa: "substantial".to_owned(),
            expires_s: EXPIRES_DEFAULT_S,
        }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        // An office moves far less than the gateway; a smaller segment is preallocated faster and freed sooner.
        // Four GiB are some hundred messages with all the attachments that they may have, and a disk has them.
        Self { segment_mib: 16, inbox_mib: 4_096, retention_days: RETENTION_DAYS_DEFAULT }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Json }
    }
}

fn yes() -> bool {
    true
}

/// A person who puts a file into the folder looks for the result a second later.
fn poll_default() -> u64 {
    500
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

    fn resolve(&mut self, base: &Path) {
        self.tls = self.tls.relative_to(base);
        self.signing = self.signing.relative_to(base);
        let mut paths = vec![&mut self.data, &mut self.encryption.keys];
        if let Some(office) = &mut self.backoffice {
            office.tls = office.tls.as_ref().map(|tls| tls.relative_to(base));
            paths.extend(office.socket.as_mut());
        }
        paths.extend(self.spool.as_mut().map(|spool| &mut spool.directory));
        for path in paths {
            *path = base.join(&path);
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (field, name) in [("institution", &self.institution), ("[gateway] name", &self.gateway.name)] {
            if InstitutionName::from_str(name).is_err() {
                problems.push(format!(
                    "{field} = {name:?} is not a name: lower-case letters, digits and hyphens, at most 63"
                ));
            }
        }
        let port =
            self.gateway.address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        if port.is_none_or(|(host, port)| host.is_empty() || port == 0) {
            problems.push(format!("[gateway] address = {:?} is not host:port", self.gateway.address));
        }
        self.check_office(&mut problems);
        self.check_defaults(&mut problems);
        if self.store.segment_mib == 0 || self.store.segment_mib > 1_024 {
            problems.push("[store] segment_mib is 1 to 1024".to_owned());
        }
        if self.store.retention_days > RETENTION_DAYS_MAX {
            problems.push("[store] retention_days is at most 36525; 0 stands for ever".to_owned());
        }
        // One message with all its parts must fit.
        if self.store.inbox_mib < 32 {
            problems.push("[store] inbox_mib is 32 or more".to_owned());
        }
        problems
    }

    fn check_office(&self, problems: &mut Vec<String>) {
        if let Some(office) = &self.backoffice {
            if office.socket.is_none() && office.listen.is_none() {
                problems
                    .push("[backoffice] has neither socket nor listen: give one, or leave the section out".to_owned());
            }
            if office.socket.as_ref().is_some_and(|path| path.as_os_str().len() > SOCKET_PATH_MAX) {
                problems.push(format!(
                    "[backoffice] socket has a path of more than {SOCKET_PATH_MAX} bytes, too long for a socket"
                ));
            }
        }
        if self.backoffice.is_none() && self.spool.is_none() {
            problems.push("neither [backoffice] nor [spool]: nobody could send or read anything".to_owned());
        }
        if self.spool.as_ref().is_some_and(|spool| spool.poll_ms < 20 || spool.poll_ms > 60_000) {
            problems.push("[spool] poll_ms is 20 to 60000".to_owned());
        }
    }

    fn check_defaults(&self, problems: &mut Vec<String>) {
        let defaults = &self.defaults;
        for (field, value) in
            [("agreement", &defaults.agreement), ("operator", &defaults.operator), ("location", &defaults.location)]
        {
            if !is_reference(value) {
                problems.push(format!(
                    "[defaults] {field} = {value:?} is not 1 to 64 characters of letters, digits and . _ : / -"
                ));
            }
        }
        if !["low", "substantial", "high"].contains(&defaults.loa.as_str()) {
            problems.push(format!("[defaults] loa = {:?} is none of low, substantial, high", defaults.loa));
        }
        if defaults.expires_s == 0 || defaults.expires_s > EXPIRES_MAX_S {
            problems.push(format!("[defaults] expires_s is 1 to {EXPIRES_MAX_S} (60 days)"));
        }
    }
}

/// 1 to 64 characters of `[A-Za-z0-9._:/-]` (FORMATS.md §2.1).
#[must_use]
pub fn is_reference(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/-".contains(&b))
}

#[cfg(test)]
mod tests;
