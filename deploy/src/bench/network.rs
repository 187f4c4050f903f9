//! The bench's network: an authority, a gateway on a fresh store, and as many institutions as are asked for.
//!
//! Knows files and the gateway's process. Invariant: keys are made here, at run time, and live in the bench's folder only.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};
use tramite_certs::{
    authority::{Authority, BundleOptions, issue_bundle},
    identity::Role,
};
use tramite_proto::{
    batch,
    clock::{Clock as _, SystemClock},
    pb::directory::v1::{GetInstitutionRequest, PublishKeyRequest, directory_client::DirectoryClient},
    statement::KeyRecord,
};

use super::{client, memory::Memory};
use crate::{
    demo::{process::Process, site::free_ports},
    failure::Failure,
};

/// The bench's network.
pub(super) const TRUST_DOMAIN: &str = "bench.tramite.example";
/// The hub.
pub(super) const GATEWAY: &str = "gateway";
/// Who sends.
pub(super) const SENDER: &str = "sender";
/// Institutions that never come, when something shall wait.
const ABSENT: u32 = 4;
/// A key record is good for a day.
const RECORD_S: i64 = 86_400;
/// From its start until the gateway serves: a store with a million messages is read again in this time.
const READY: Duration = Duration::from_secs(120);
/// How often it is looked whether it does.
const LOOK: Duration = Duration::from_millis(20);
/// The gateway has so long to end in order.
const END: Duration = Duration::from_secs(30);

/// The network.
#[derive(Debug)]
pub(super) struct Network {
    folder: PathBuf,
    pub(super) address: SocketAddr,
    pub(super) metrics: SocketAddr,
    pub(super) recipients: Vec<String>,
    pub(super) absent: Vec<String>,
    pub(super) idle: Vec<String>,
    pub(super) gateway: Process,
    pub(super) memory: Memory,
}

/// How many there are of each kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) recipients: u32,
    pub(super) idle: u32,
    pub(super) backlog: bool,
}

impl Network {
    /// Makes everything, and starts the gateway.
    pub(super) async fn start(path: &Path, size: Size) -> Result<Self, Failure> {
        let [address, metrics] = free_ports()?;
        let names = |kind: &str, count: u32| (1..=count).map(|n| format!("{kind}-{n}")).collect::<Vec<_>>();
        let recipients = names("recipient", size.recipients);
        let absent = names("absent", if size.backlog { ABSENT } else { 0 });
        let idle = names("idle", size.idle);
        let everybody =
            || std::iter::once(SENDER).chain([&recipients, &absent, &idle].into_iter().flatten().map(String::as_str));
        issue(path, everybody()).await?;
        let config = path.join(GATEWAY).join("gateway.toml");
        fs::write(&config, gateway_toml(address, metrics, everybody()))
            .map_err(|error| failed("the configuration", &error))?;
        let gateway = Process::start(GATEWAY, "gateway", &config, path.join("gateway.log"))?;
        let memory = Memory::of(gateway.id());
        Ok(Self { folder: path.to_owned(), address, metrics, recipients, absent, idle, gateway, memory })
    }

    /// Waits until the gateway serves, and publishes the keys of everybody who sends or is sent to.
    pub(super) async fn open(&mut self) -> Result<(), Failure> {
        self.ready().await?;
        for name in
            [SENDER].into_iter().chain([&self.recipients, &self.absent].into_iter().flatten().map(String::as_str))
        {
            self.publish(name).await?;
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// Waits until the gateway answers the sender.
    async fn ready(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            self.gateway.check()?;
            let channel = client::channel(self.path(), SENDER, &self.address.to_string());
            let channel = channel.map_err(|trouble| Failure::internal(trouble.to_string()))?;
            let mut client = DirectoryClient::new(channel);
            match client.get_institution(GetInstitutionRequest { name: SENDER.to_owned() }).await {
                Ok(_) => return Ok(()),
                Err(status) if begun.elapsed() > READY => return Err(Failure::status("the gateway", &status)),
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    /// Publishes the key record of an institution, as its adapter would.
    async fn publish(&self, name: &str) -> Result<(), Failure> {
        let trouble = |trouble: client::Trouble| Failure::internal(trouble.to_string());
        let signer = client::signer(self.path(), name).map_err(trouble)?;
        let key = client::encryption_key(self.path(), name).map_err(trouble)?;
        let now_s = SystemClock.now_s();
        let record = KeyRecord {
            iss: name.parse().map_err(|error| failed("a name", &error))?,
            seq: 1,
            iat: now_s,
            nbf: now_s - 60,
            exp: now_s + RECORD_S,
            x5c: signer.chain.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
            enc: key,
        };
        let signed = batch::sign(&signer.signer, now_s, &[record.to_json()]);
        let key = signed.map_err(|error| failed("a key record", &error))?.pop();
        let channel = client::channel(self.path(), name, &self.address.to_string()).map_err(trouble)?;
        let published = DirectoryClient::new(channel).publish_key(PublishKeyRequest { key }).await;
        published.map(drop).map_err(|status| Failure::status("the gateway", &status))
    }

    /// Kills the gateway with SIGKILL and starts it again; how long from the kill until it serves.
    pub(super) async fn kill(&mut self) -> Result<Duration, Failure> {
        let begun = Instant::now();
        self.gateway.kill().await?;
        self.gateway.restart()?;
        self.memory.goes_on_in(self.gateway.id());
        self.ready().await?;
        Ok(begun.elapsed())
    }

    /// Ends the gateway in order.
    pub(super) async fn end(mut self) {
        self.gateway.end(END).await;
    }
}

fn failed(what: &str, error: &dyn std::error::Error) -> Failure {
    Failure::internal(format!("{what} of the bench cannot be made")).because(error)
}

/// Makes an authority, and the keys and certificates of the gateway and of institutions, a folder for each.
pub(super) async fn issue(path: &Path, institutions: impl Iterator<Item = &str>) -> Result<(), Failure> {
    let domain = TRUST_DOMAIN.parse().map_err(|error| failed("the trust domain", &error))?;
    let authority = Authority::init(path, domain, Arc::new(SystemClock));
    let mut authority = authority.map_err(|error| failed("the authority", &error))?;
    bundle(&mut authority, path, Role::Gateway, GATEWAY)?;
    for name in institutions {
        bundle(&mut authority, path, Role::Institution, name)?;
        // A thousand take a while: whoever waits may want to stop.
        yield_now().await;
    }
    Ok(())
}

fn bundle(authority: &mut Authority, folder: &Path, role: Role, name: &str) -> Result<(), Failure> {
    let addresses = if role == Role::Gateway { vec![Ipv4Addr::LOCALHOST.into()] } else { Vec::new() };
    let options = BundleOptions { addresses, ..BundleOptions::default() };
    let holder = name.parse().map_err(|error| failed("a name", &error))?;
    issue_bundle(authority, role, &holder, &folder.join(name), &options)
        .map(drop)
        .map_err(|error| failed("a certificate", &error))
}

/// The gateway as a site would have it, but for what would be in the way: quotas and connections of one address are as high as the
/// bench goes, and only warnings are logged.
fn gateway_toml<'a>(listen: SocketAddr, metrics: SocketAddr, names: impl Iterator<Item = &'a str>) -> String {
    let institutions: String = names
        .map(|name| {
            format!(
                "[[institution]]\nname = \"{name}\"\ndisplay_name = \"{name}\"\nkind = \"PRIVATE\"\n\
                 quota_content_mib = 1000000\nquota_parts_mib = 1000000\n\n"
            )
        })
        .collect();
    format!(
        r#"# The gateway of the bench; deploy/examples/gateway.toml explains every setting.
name = "{GATEWAY}"
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

{institutions}[[allow]]
from = ["*"]
to = ["*"]
types = ["*"]
purposes = ["*"]
legal_bases = ["*"]

[limits]
connections = 8192
connections_per_address = 8192

[metrics]
listen = "{metrics}"

[log]
level = "warn"
format = "text"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_that_it_writes_is_valid() {
        let [listen, metrics] = free_ports().unwrap();
        let text = gateway_toml(listen, metrics, [SENDER, "recipient-1"].into_iter());
        let config = tramite_gateway::config::Config::parse(&text, Path::new("/bench")).unwrap();
        assert_eq!(config.institutions.len(), 2);
    }
}
