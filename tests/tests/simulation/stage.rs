//! What all simulations share: an authority, everybody's certificates, and the configurations. Making keys takes longer
//! than a simulation does, and they differ in no decision.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use tempfile::TempDir;
use tonic::transport::Channel;
use tramite_certs::{
    authority::{Authority, BundleOptions, CRL_DAYS_MAX, issue_bundle},
    connect::{Expected, channel_over},
    identity::{Role, TrustDomain},
    tls::{ClientTls, TlsFiles},
};
use tramite_proto::clock::{Clock, ManualClock};

use super::{network, operator::OPERATORS, storm::STEP_DAYS};

/// When every simulation begins.
pub(crate) const T0_MS: i64 = 1_800_000_000_000;
pub(crate) const GATEWAY: &str = "gateway";
pub(crate) const INSTITUTIONS: [&str; 3] = ["caritas", "comune", "inps"];

/// Certificates and configurations in a folder of their own.
pub(crate) struct Stage {
    folder: PathBuf,
    /// What a simulation leaves in real folders: attachments whose message is not sent yet, and the keys to them.
    data: TempDir,
    /// Who made the folder keeps it as long as it is used.
    _made: Option<TempDir>,
}

/// A folder in memory where there is one: no thread ever waits for a device.
fn in_memory() -> Result<TempDir> {
    Ok(TempDir::new_in("/dev/shm").or_else(|_| TempDir::new())?)
}

fn domain() -> Result<TrustDomain> {
    Ok("tramite.test".parse()?)
}

impl Stage {
    pub(crate) fn new() -> Result<Self> {
        let folder = TempDir::new()?;
        let clock = ManualClock::new(T0_MS);
        let mut authority = Authority::init(&folder.path().join("authority"), domain()?, Arc::new(clock.clone()))?;
        // A list that counts wherever a storm sets a clock: a party that was started with another hour is to run.
        clock.advance(i64::from(STEP_DAYS) * 86_400_000);
        authority.crl(CRL_DAYS_MAX)?;
        clock.set(T0_MS);
        let members = INSTITUTIONS.iter().map(|name| (Role::Institution, *name));
        for (role, name) in members.chain([(Role::Gateway, GATEWAY), (Role::Operator, OPERATORS)]) {
            let options = BundleOptions { dns: vec![name.to_owned()], ..BundleOptions::default() };
            issue_bundle(&mut authority, role, &name.parse()?, &folder.path().join(name), &options)?;
        }
        Ok(Self { folder: folder.path().to_owned(), data: in_memory()?, _made: Some(folder) })
    }

    /// The certificates of a stage that was made.
    pub(crate) fn at(folder: PathBuf) -> Result<Self> {
        Ok(Self { folder, data: in_memory()?, _made: None })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where an adapter keeps attachments whose message is not sent yet.
    pub(crate) fn attachments(&self, name: &str) -> PathBuf {
        self.data.path().join(name).join("attachments")
    }

    fn data(&self, name: &str) -> String {
        self.data.path().join(name).display().to_string()
    }

    fn bundle(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The gateway's configuration: retries in seconds, so that what a network does in an hour happens in a minute.
    pub(crate) fn gateway(&self) -> Result<tramite_gateway::Config> {
        let data = self.data(GATEWAY);
        let mut text = format!(
            r#"
            name = "{GATEWAY}"
            trust_domain = "tramite.test"
            data = "{data}"
            listen = "0.0.0.0:7443"
            tls = {{ cert = "tls.pem", key = "tls.key", roots = "root.pem", crl = "crl.pem" }}
            signing = {{ cert = "sign.pem", key = "sign.key" }}
            reflection = {{ enabled = false }}
            store = {{ segment_mib = 1 }}
            delivery = {{ lease_s = 5, retry_initial_ms = 200, retry_max_ms = 2000, attempts_max = 1000 }}
            [[allow]]
            from = ["*"]
            to = ["*"]
            types = ["*"]
            purposes = ["*"]
            legal_bases = ["*"]
            "#
        );
        for name in INSTITUTIONS {
            text.push_str(&format!(
                "\n[[institution]]\nname = \"{name}\"\ndisplay_name = \"{name}\"\nkind = \"PA\"\nipa_code = \"{name}\"\n"
            ));
        }
        tramite_gateway::Config::parse(&text, &self.bundle(GATEWAY)).context("the gateway's configuration")
    }

    pub(crate) fn adapter(&self, name: &str) -> Result<tramite_adapters::Config> {
        let data = self.data(name);
        let text = format!(
            r#"
            institution = "{name}"
            trust_domain = "tramite.test"
            data = "{data}"
            gateway = {{ address = "{GATEWAY}:7443", name = "{GATEWAY}" }}
            tls = {{ cert = "tls.pem", key = "tls.key", roots = "root.pem", crl = "crl.pem" }}
            signing = {{ cert = "sign.pem", key = "sign.key" }}
            encryption = {{ keys = "." }}
            backoffice = {{ listen = "0.0.0.0:7000", reflection = false }}
            store = {{ segment_mib = 1 }}
            "#
        );
        tramite_adapters::Config::parse(&text, &self.bundle(name)).context("an adapter's configuration")
    }

    /// A back office's line to its own adapter.
    pub(crate) fn line(&self, name: &str, clock: Arc<dyn Clock>) -> Result<Channel> {
        self.channel(name, clock, (Role::Institution, name), 7000)
    }

    /// The operators' line to the gateway.
    pub(crate) fn operations(&self, clock: Arc<dyn Clock>) -> Result<Channel> {
        self.channel(OPERATORS, clock, (Role::Gateway, GATEWAY), 7443)
    }

    fn channel(&self, who: &str, clock: Arc<dyn Clock>, (role, name): (Role, &str), port: u16) -> Result<Channel> {
        let tls = ClientTls::load(TlsFiles::in_bundle(&self.bundle(who)), domain()?, clock)?;
        let expected = Expected { role, name: name.parse()? };
        Ok(channel_over(network::simulated(), &format!("{name}:{port}"), tls, expected)?)
    }
}
