//! What `adapter.toml` promises: paths beside the file, one sentence for each mistake, no unknown name.

use super::*;

const GOOD: &str = r#"
institution = "caritas"
trust_domain = "tramite.example"
data = "data"
[gateway]
address = "gateway.example:7443"
name = "gateway"
[tls]
cert = "tls.pem"
key = "tls.key"
roots = "root.pem"
crl = "crl.pem"
[signing]
cert = "sign.pem"
key = "sign.key"
[encryption]
keys = "."
[backoffice]
socket = "run/backoffice.sock"
[spool]
directory = "spool"
"#;

fn wrong(text: &str) -> String {
    match Config::parse(text, Path::new("/base")) {
        Err(ConfigError::Syntax(error)) => error.to_string(),
        Err(error) => error.to_string(),
        Ok(_) => panic!("must be refused"),
    }
}

#[test]
fn paths_are_relative_to_the_file() {
    let config = Config::parse(GOOD, Path::new("/base")).expect("a good file");
    assert_eq!(config.data, Path::new("/base/data"));
    assert_eq!(config.tls.crl.as_deref(), Some(Path::new("/base/crl.pem")));
    assert_eq!(
        config.backoffice.and_then(|office| office.socket).as_deref(),
        Some(Path::new("/base/run/backoffice.sock"))
    );
    assert_eq!(config.spool.map(|spool| spool.directory).as_deref(), Some(Path::new("/base/spool")));
    assert_eq!(config.defaults.expires_s, EXPIRES_DEFAULT_S);
}

#[test]
fn an_unknown_name_is_refused_with_its_line() {
    let said = wrong(&GOOD.replace("crl =", "clr ="));
    assert!(said.contains("clr") && said.contains("line"), "{said}");
}

#[test]
fn every_mistake_is_said_at_once() {
    let text = GOOD.replace("\"caritas\"", "\"Caritas!\"").replace("gateway.example:7443", "gateway.example");
    let said = wrong(&format!("{text}\n[defaults]\nloa = \"sure\"\nexpires_s = 0\n"));
    for part in ["institution = \"Caritas!\"", "[gateway] address", "loa = \"sure\"", "expires_s is 1 to"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn an_adapter_that_nobody_can_reach_is_refused() {
    let (text, _) = GOOD.split_once("[backoffice]").expect("a section");
    assert!(wrong(text).contains("neither [backoffice] nor [spool]"));
    assert!(wrong(&format!("{text}[backoffice]\n")).contains("neither socket nor listen"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nowhere/adapter.toml")).expect_err("no such file");
    assert!(error.to_string().contains("/nowhere/adapter.toml"));
}
