//! Configuration files of a test network, as an operator would write them, with room for what one promise changes.
//!
//! Knows the names in `gateway.toml` and `adapter.toml`. Times are short, so that what a network does in minutes happens in a
//! test; nothing else differs from an installation.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::pki::TRUST_DOMAIN;

/// The gateway's name in every test network.
pub const GATEWAY: &str = "gateway";

/// The gateway's configuration: keys in `keys/`, data in `data/`, both beside the file.
///
/// # Errors
/// When the text below is no TOML.
pub fn gateway(listen: &str, metrics: &str, institutions: &[&str]) -> Result<Table> {
    let mut text = format!(
        r#"
        name = "{GATEWAY}"
        trust_domain = "{TRUST_DOMAIN}"
        data = "data"
        listen = "{listen}"
        tls = {{ cert = "keys/tls.pem", key = "keys/tls.key", roots = "keys/root.pem", crl = "keys/crl.pem" }}
        signing = {{ cert = "keys/sign.pem", key = "keys/sign.key" }}
        metrics = {{ listen = "{metrics}" }}
        log = {{ level = "info", format = "json" }}
        store = {{ segment_mib = 1 }}
        delivery = {{ lease_s = 3, retry_initial_ms = 50, retry_max_ms = 500, attempts_max = 20 }}
        [[allow]]
        from = ["*"]
        to = ["*"]
        types = ["*"]
        purposes = ["RIGHTS_SCREENING"]
        legal_bases = ["GDPR-6-1-E"]
        "#
    );
    for name in institutions {
        text.push_str(&format!(
            "\n[[institution]]\nname = \"{name}\"\ndisplay_name = \"{name}\"\nkind = \"PRIVATE\"\n"
        ));
    }
    text.parse().context("the gateway's configuration")
}

/// An adapter's configuration: keys in `keys/`, data in `data/`, its socket at `socket`, all beside the file.
///
/// # Errors
/// When the text below is no TOML.
pub fn adapter(institution: &str, gateway: &str, metrics: &str) -> Result<Table> {
    let text = format!(
        r#"
        institution = "{institution}"
        trust_domain = "{TRUST_DOMAIN}"
        data = "data"
        gateway = {{ address = "{gateway}", name = "{GATEWAY}" }}
        tls = {{ cert = "keys/tls.pem", key = "keys/tls.key", roots = "keys/root.pem", crl = "keys/crl.pem" }}
        signing = {{ cert = "keys/sign.pem", key = "keys/sign.key" }}
        encryption = {{ keys = "keys" }}
        backoffice = {{ socket = "socket" }}
        metrics = {{ listen = "{metrics}" }}
        log = {{ level = "info", format = "json" }}
        store = {{ segment_mib = 1 }}
        "#
    );
    text.parse().context("an adapter's configuration")
}

/// Puts what one promise changes over a configuration: tables are merged, everything else is replaced.
pub fn change(config: &mut Table, change: Table) {
    for (name, value) in change {
        match (config.get_mut(&name), value) {
            (Some(Value::Table(old)), Value::Table(new)) => self::change(old, new),
            (_, value) => {
                config.insert(name, value);
            }
        }
    }
}

/// Writes a configuration.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, config: &Table) -> Result<()> {
    fs::write(path, toml::to_string(config)?).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_replaces_what_it_names_and_nothing_else() {
        let mut config = gateway("127.0.0.1:1", "127.0.0.1:2", &["caritas"]).unwrap();
        change(&mut config, "[log]\nlevel = \"trace\"".parse().unwrap());
        let log = config.get("log").and_then(Value::as_table).unwrap();
        assert_eq!(log.get("level").and_then(Value::as_str), Some("trace"));
        assert_eq!(log.get("format").and_then(Value::as_str), Some("json"));
    }
}
