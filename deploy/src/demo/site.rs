//! The demo's sites: an authority, and for the gateway, each institution and an operator the very files that a real site has.
//!
//! Invariant: keys are made here, at run time, and live in the demo's folder only.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use tramite_adapters::{
    caritas, citta_metropolitana, comune,
    desk::{office::Office, sample::Sample},
    inps,
};
use tramite_certs::{
    authority::{Authority, AuthorityError, BundleOptions, Subject, issue_bundle},
    identity::Role,
};
use tramite_proto::{clock::SystemClock, ids::InstitutionName};

use super::folder::Folder;
use crate::failure::{Failure, chain};

/// The demo's network.
const TRUST_DOMAIN: &str = "demo.tramite.example";
/// Who takes part, in the order of the story.
const OFFICES: [&Office; 4] = [&caritas::OFFICE, &comune::OFFICE, &citta_metropolitana::OFFICE, &inps::OFFICE];

/// An institution's site.
#[derive(Debug)]
pub(super) struct MemberSite {
    pub(super) office: &'static Office,
    pub(super) config: PathBuf,
    pub(super) socket: PathBuf,
}

/// Everything that was made.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) folder: PathBuf,
    pub(super) gateway_config: PathBuf,
    pub(super) metrics: SocketAddr,
    pub(super) members: Vec<MemberSite>,
    logs: PathBuf,
}

impl Site {
    /// Makes keys, certificates and configurations.
    pub(super) fn make(folder: &Folder, samples: &[Sample], otlp: Option<&str>) -> Result<Self, Failure> {
        let traces = traces_toml(otlp)?;
        let [listen, metrics] = free_ports()?;
        let mut authority =
            Authority::init(folder.path(), domain()?, Arc::new(SystemClock)).map_err(|error| failed(&error))?;
        let logs = folder.below("logs")?;
        bundle(&mut authority, folder, Role::Gateway, "gateway", "The demo's gateway", vec![listen.ip()])?;
        bundle(&mut authority, folder, Role::Operator, "operator", "The demo's operator", Vec::new())?;
        let gateway_config = folder.write("gateway/gateway.toml", &(gateway_toml(listen, metrics) + &traces))?;
        let mut members = Vec::new();
        for office in OFFICES {
            bundle(&mut authority, folder, Role::Institution, office.name, office.display_name, Vec::new())?;
            let config =
                folder.write(&format!("{}/adapter.toml", office.name), &(adapter_toml(office, listen) + &traces))?;
            let socket = folder.path().join(office.name).join("backoffice.sock");
            members.push(MemberSite { office, config, socket });
        }
        let site = Self { folder: folder.path().to_owned(), gateway_config, metrics, members, logs };
        folder.below("messages")?;
        for sample in samples {
            folder.write(&format!("messages/{}.json", sample.name), &sample.message)?;
        }
        folder.write("env.sh", &site.environment(listen))?;
        Ok(site)
    }

    /// The log of a process.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// What another terminal needs to be Caritas' back office and an operator.
    fn environment(&self, gateway: SocketAddr) -> String {
        let folder = self.folder.display();
        // The very binary that runs the demo is found as `tramite`.
        let program =
            std::env::current_exe().ok().and_then(|path| path.parent().map(|parent| parent.display().to_string()));
        format!(
            "# Read by a shell: . {folder}/env.sh\n\
             # For another institution: export TRAMITE_ADAPTER=unix:{folder}/inps/backoffice.sock\n\
             # As by the protocol, Caritas refers people and asks nobody for documents: `tramite documents request` is INPS's.\n\
             export TRAMITE_ADAPTER='unix:{folder}/caritas/backoffice.sock'\n\
             export TRAMITE_GATEWAY='{gateway}'\n\
             export TRAMITE_CERTS='{folder}/operator'\n\
             export PATH='{}':\"$PATH\"\n",
            program.unwrap_or_default(),
        )
    }
}

fn domain() -> Result<tramite_certs::identity::TrustDomain, Failure> {
    TRUST_DOMAIN.parse().map_err(|error| Failure::internal("the demo's trust domain is none").because(&error))
}

fn bundle(
    authority: &mut Authority,
    folder: &Folder,
    role: Role,
    name: &str,
    display_name: &str,
    addresses: Vec<IpAddr>,
) -> Result<(), Failure> {
    let holder: InstitutionName =
        name.parse().map_err(|error| Failure::internal("a name of the demo is none").because(&error))?;
    let subject = Subject { display_name: Some(display_name.to_owned()), ..Subject::default() };
    let options = BundleOptions { subject, addresses, ..BundleOptions::default() };
    issue_bundle(authority, role, &holder, &folder.below(name)?, &options).map(drop).map_err(|error| failed(&error))
}

fn failed(error: &AuthorityError) -> Failure {
    Failure::internal(format!("the demo's certificates cannot be made: {}", chain(error)))
}

/// Ports that nobody holds now, on the loopback. They are taken a moment later by the gateway, which must find them free again
/// after a restart: hence chosen here, not by the system at each start.
pub(crate) fn free_ports() -> Result<[SocketAddr; 2], Failure> {
    let failed = |error: std::io::Error| Failure::internal("no free port on 127.0.0.1").because(&error);
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    // Both are held until both are known, so that they differ.
    let (first, second) = (bind().map_err(failed)?, bind().map_err(failed)?);
    Ok([first.local_addr().map_err(failed)?, second.local_addr().map_err(failed)?])
}

/// The gateway's configuration. Every participant, and who may send what to whom.
fn gateway_toml(listen: SocketAddr, metrics: SocketAddr) -> String {
    let institutions: String = OFFICES
        .iter()
        .map(|office| {
            let kind = if office.ipa_code.is_empty() { "PRIVATE" } else { "PA" };
            format!(
                "[[institution]]\nname = \"{}\"\ndisplay_name = \"{}\"\nkind = \"{kind}\"\nipa_code = \"{}\"\ncodice_fiscale = \"{}\"\n\n",
                office.name, office.display_name, office.ipa_code, office.codice_fiscale
            )
        })
        .collect();
    format!(
        r#"# The gateway of the demo; deploy/examples/gateway.toml explains every setting.
name = "gateway"
trust_domain = "{TRUST_DOMAIN}"
data = "data"
listen = "{listen}"

[tls]
cert = "tls.pem"
key = "tls.key"
roots = "root.pem"
crl = "crl.pem"

[signing]
cert = "sign.pem"
key = "sign.key"

{institutions}# Everybody may refer a person to everybody else, and say what became of it.
[[allow]]
from = ["*"]
to = ["*"]
types = ["Referral", "ReferralUpdate"]
purposes = ["*"]
legal_bases = ["GDPR-6-1-A", "GDPR-6-1-E", "GDPR-9-2-G"]

# Data held by administrations goes to administrations, ex officio.
[[allow]]
from = ["comune", "citta-metropolitana", "inps"]
to = ["comune", "citta-metropolitana", "inps"]
types = ["DocumentRequest", "DocumentResponse", "DocumentRequestUpdate"]
purposes = ["DOCUMENT_ACQUISITION"]
legal_bases = ["DPR-445-43", "CAD-50-2"]

[delivery]
retry_initial_ms = 200
retry_max_ms = 2000

[store]
segment_mib = 16

[metrics]
listen = "{metrics}"

[log]
format = "text"
"#
    )
}

/// Where traces go, when they go anywhere.
fn traces_toml(otlp: Option<&str>) -> Result<String, Failure> {
    let Some(url) = otlp else { return Ok(String::new()) };
    if !url.starts_with("http://") || url.contains(['"', '\\', '\n']) {
        let advice = "Give the address of a collector's gRPC port, for example --otlp http://127.0.0.1:4317.";
        return Err(Failure::usage(format!("{url} is no address of a collector"), advice));
    }
    Ok(format!("\n[telemetry]\notlp = \"{url}\"\n"))
}

/// An institution's configuration.
fn adapter_toml(office: &Office, gateway: SocketAddr) -> String {
    format!(
        r#"# The adapter of {display} in the demo; deploy/examples/adapter.toml explains every setting.
institution = "{name}"
trust_domain = "{TRUST_DOMAIN}"
data = "data"

[gateway]
address = "{gateway}"
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
socket = "backoffice.sock"

[defaults]
agreement = "INPS-PER-TUTTI-2021"
operator = "desk-1"
location = "{name}"
loa = "substantial"

[store]
segment_mib = 4

[log]
format = "text"
"#,
        display = office.display_name,
        name = office.name,
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_configurations_that_it_writes_are_valid() {
        let [listen, metrics] = free_ports().unwrap();
        let gateway =
            tramite_gateway::config::Config::parse(&gateway_toml(listen, metrics), Path::new("/demo")).unwrap();
        assert_eq!(gateway.institutions.len(), 4);
        for office in OFFICES {
            let adapter =
                tramite_adapters::config::Config::parse(&adapter_toml(office, listen), Path::new("/demo")).unwrap();
            assert_eq!(adapter.institution, office.name);
        }
    }
}
