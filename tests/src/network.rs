//! A whole network on loopback: one gateway and an adapter for each institution, as processes of the real binary, with keys and
//! certificates made for it, in a folder of its own.
//!
//! Invariants: nothing outlives the network (processes, ports, files); every wait has an end and then shows the logs.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;
use toml::Table;

use crate::{
    config::{self, GATEWAY},
    desk::Desk,
    loop_disk::LoopDisk,
    metrics::Metrics,
    pki::Pki,
    ports::Port,
    process::Process,
    raw::RawPeer,
};

/// A debug build on a busy machine opens its store and makes its first connection within this.
pub const START_MAX: Duration = Duration::from_secs(40);
/// What a network does at its leisure is done within this.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One process of the network and where it lives.
#[derive(Debug)]
pub struct Node {
    /// Its name: `gateway`, or the institution's.
    pub name: String,
    /// Its folder: configuration, keys, data, socket.
    pub folder: PathBuf,
    /// Its process.
    pub process: Process,
    metrics: Port,
}

impl Node {
    /// What it counts, now.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<Metrics> {
        Metrics::read(&self.metrics.address()).await
    }
}

/// A running network.
#[derive(Debug)]
pub struct Network {
    /// Certificates and pens.
    pub pki: Pki,
    /// The gateway.
    pub gateway: Node,
    adapters: BTreeMap<String, Node>,
    port: Port,
    // Last: the processes end before their folder goes.
    folder: TempDir,
}

/// What a network shall be.
#[derive(Debug, Default)]
pub struct Builder {
    institutions: Vec<String>,
    without_adapter: Vec<String>,
    gateway: Table,
    adapters: Table,
    own: BTreeMap<String, Table>,
    entrances: BTreeMap<String, Vec<OsString>>,
}

impl Builder {
    /// Institutions, each with an adapter of its own.
    #[must_use]
    pub fn institutions(mut self, names: &[&str]) -> Self {
        self.institutions.extend(names.iter().map(ToString::to_string));
        self
    }

    /// Institutions that are configured and certified, but whose adapter the test plays.
    #[must_use]
    pub fn played(mut self, names: &[&str]) -> Self {
        self.without_adapter.extend(names.iter().map(ToString::to_string));
        self
    }

    /// Changes the gateway's configuration.
    ///
    /// # Errors
    /// When the text is no TOML.
    pub fn gateway(mut self, text: &str) -> Result<Self> {
        config::change(&mut self.gateway, text.parse()?);
        Ok(self)
    }

    /// Changes every adapter's configuration.
    ///
    /// # Errors
    /// When the text is no TOML.
    pub fn adapters(mut self, text: &str) -> Result<Self> {
        config::change(&mut self.adapters, text.parse()?);
        Ok(self)
    }

    /// Changes the configuration of one institution's adapter.
    ///
    /// # Errors
    /// When the text is no TOML.
    pub fn adapter(mut self, name: &str, text: &str) -> Result<Self> {
        config::change(self.own.entry(name.to_owned()).or_default(), text.parse()?);
        Ok(self)
    }

    /// Puts the data of a node on a disk of its own; everything else of it stays where it is.
    ///
    /// # Errors
    /// When the disk has a path that no configuration can hold.
    pub fn on(mut self, name: &str, disk: &LoopDisk) -> Result<Self> {
        let data = disk.path().join(name);
        let data = data.to_str().context("a path in UTF-8")?;
        let place = Table::from_iter([("data".to_owned(), data.into())]);
        let settings = if name == GATEWAY { &mut self.gateway } else { self.own.entry(name.to_owned()).or_default() };
        config::change(settings, place);
        self.entrances.insert(name.to_owned(), disk.entrance());
        Ok(self)
    }

    /// Makes keys and files; starts nothing.
    ///
    /// # Errors
    /// When something cannot be made.
    pub fn prepare(mut self) -> Result<Network> {
        let folder = TempDir::with_prefix("tramite")?;
        let all: Vec<&str> = self.institutions.iter().chain(&self.without_adapter).map(String::as_str).collect();
        let pki = Pki::make(&folder.path().join("pki"), &all)?;
        let (port, metrics) = (Port::reserve()?, Port::reserve()?);
        let mut settings = config::gateway(&port.address(), &metrics.address(), &all)?;
        config::change(&mut settings, self.gateway);
        let mut gateway = node(folder.path(), &pki, GATEWAY, "gateway", &settings, metrics)?;
        gateway.process = gateway.process.through(self.entrances.remove(GATEWAY).unwrap_or_default());
        let mut adapters = BTreeMap::new();
        for name in &self.institutions {
            let metrics = Port::reserve()?;
            let mut settings = config::adapter(name, &port.address(), &metrics.address())?;
            config::change(&mut settings, self.adapters.clone());
            config::change(&mut settings, self.own.get(name).cloned().unwrap_or_default());
            let mut adapter = node(folder.path(), &pki, name, "adapter", &settings, metrics)?;
            adapter.process = adapter.process.through(self.entrances.remove(name).unwrap_or_default());
            adapters.insert(name.clone(), adapter);
        }
        Ok(Network { pki, gateway, adapters, port, folder })
    }

    /// Makes and starts everything, and waits until every adapter is connected and knows its correspondents.
    ///
    /// # Errors
    /// When something does not come up; with the logs.
    pub async fn start(self) -> Result<Network> {
        let network = self.prepare()?;
        network.gateway.process.start().await?;
        for node in network.adapters.values() {
            node.process.start().await?;
        }
        network.ready().await?;
        Ok(network)
    }
}

fn node(root: &Path, pki: &Pki, name: &str, command: &str, settings: &Table, metrics: Port) -> Result<Node> {
    let folder = root.join(format!("{command}-{name}"));
    fs::create_dir_all(&folder)?;
    // Whoever may enter may speak for the institution: an adapter refuses a socket in an open folder.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    // A copy: what is reloaded in a test is this node's own file.
    let keys = folder.join("keys");
    copy(&pki.bundle(name), &keys)?;
    let file = folder.join(format!("{command}.toml"));
    config::write(&file, settings)?;
    let arguments: Vec<OsString> = vec![command.into(), "--config".into(), file.into(), "--exit-with-parent".into()];
    Ok(Node { name: name.to_owned(), folder, process: Process::new(name, arguments), metrics })
}

/// Copies a bundle with its files' modes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

impl Network {
    /// A network to be described.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Two institutions and nothing special.
    ///
    /// # Errors
    /// When something does not come up.
    pub async fn of_two() -> Result<Self> {
        Self::builder().institutions(&["caritas", "inps"]).start().await
    }

    /// Waits until every adapter is connected and knows the keys of its correspondents.
    ///
    /// # Errors
    /// When one is not in time; with its log.
    pub async fn ready(&self) -> Result<()> {
        for (name, node) in &self.adapters {
            let connected = self.desk(name)?.connected(START_MAX).await;
            connected.with_context(|| {
                let (theirs, gateway) = (node.process.log().tail(30), self.gateway.process.log().tail(30));
                format!("{name} does not come up; its log:\n{theirs}\nthe gateway's:\n{gateway}")
            })?;
        }
        Ok(())
    }

    /// The adapter of an institution.
    ///
    /// # Errors
    /// When it has none here.
    pub fn adapter(&self, name: &str) -> Result<&Node> {
        self.adapters.get(name).with_context(|| format!("{name} has no adapter here"))
    }

    /// The node of a name: the gateway or an adapter.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        if name == GATEWAY { Ok(&self.gateway) } else { self.adapter(name) }
    }

    /// A back office at an institution's adapter.
    ///
    /// # Errors
    /// When it has no adapter here.
    pub fn desk(&self, name: &str) -> Result<Desk> {
        Desk::at(&self.adapter(name)?.folder.join("socket"))
    }

    /// The gateway's address.
    #[must_use]
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// A hand-made peer with an institution's own badge.
    ///
    /// # Errors
    /// When it cannot connect.
    pub async fn peer(&self, name: &str) -> Result<RawPeer> {
        RawPeer::connect(&self.address(), Some(&self.pki.badge(name)?)).await
    }

    /// The folder of the whole network.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The last lines of every log, for a failure's message.
    #[must_use]
    pub fn logs(&self) -> String {
        let nodes = std::iter::once(&self.gateway).chain(self.adapters.values());
        nodes.map(|node| format!("== {}\n{}\n", node.name, node.process.log().tail(25))).collect()
    }
}
