//! A network for a test: an authority, a gateway on a port of its own, and a clock that flows and can be moved.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tramite_certs::{
    authority::{Authority, BundleOptions, CRL_DAYS_MAX, Renewal, RevocationReason, issue_bundle, renew},
    connect::{Expected, channel},
    identity::{Role, TrustDomain},
    tls::{ClientTls, TlsFiles},
};
use tramite_proto::{
    clock::{Clock, SystemClock},
    ids::InstitutionName,
    pb::operations::v1::operations_client::OperationsClient,
};

use tramite_store::{
    disk::{Disk, SimulatedDisk},
    map::{Maps, MemoryMaps},
};

use super::log;
use crate::{Config, Ended, Gateway, Running, StartError, Surroundings};

/// How long a test waits for what must come.
pub(super) const SOON: Duration = Duration::from_secs(60);

/// No test sets its clock further than this.
const STEP_MAX_S: i64 = 400 * 86_400;

/// The system's clock and an offset.
#[derive(Debug, Clone, Default)]
pub(super) struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub(super) fn advance_s(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        SystemClock.now_ms() + self.0.load(Ordering::SeqCst)
    }
}

pub(super) struct World {
    pub(super) clock: TestClock,
    pub(super) config: Config,
    pub(super) metrics: Option<std::net::SocketAddr>,
    disk: Option<Arc<dyn Disk>>,
    maps: Option<Arc<dyn Maps>>,
    directory: TempDir,
    authority: Mutex<Authority>,
    running: Option<(Running, CancellationToken)>,
    address: String,
}

const CONFIG: &str = r#"
name = "gateway"
trust_domain = "tramite.test"
data = "data"
listen = "127.0.0.1:0"
[tls]
cert = "gateway/tls.pem"
key = "gateway/tls.key"
roots = "gateway/root.pem"
crl = "gateway/crl.pem"
[signing]
cert = "gateway/sign.pem"
key = "gateway/sign.key"
[[institution]]
name = "caritas"
display_name = "Caritas di prova"
kind = "PRIVATE"
quota_parts_mib = 1
[[institution]]
name = "inps"
display_name = "INPS di prova"
kind = "PA"
ipa_code = "inps"
[[institution]]
name = "comune"
display_name = "Comune di prova"
kind = "PA"
ipa_code = "c_a944"
[[allow]]
from = ["caritas"]
to = ["inps"]
types = ["Referral", "ReferralUpdate"]
purposes = ["*"]
legal_bases = ["*"]
[[allow]]
from = ["inps"]
to = ["caritas", "comune"]
types = ["*"]
purposes = ["*"]
legal_bases = ["*"]
[delivery]
lease_s = 30
retry_initial_ms = 10
retry_max_ms = 600000
attempts_max = 3
[store]
segment_mib = 1
[metrics]
listen = "127.0.0.1:0"
"#;

pub(super) fn name(text: &str) -> InstitutionName {
    text.parse().unwrap()
}

fn domain() -> TrustDomain {
    "tramite.test".parse().unwrap()
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut world = Self::prepare(change);
        world.start().await;
        world
    }

    /// With its journal on that disk.
    pub(super) async fn on(disk: Arc<dyn Disk>) -> Self {
        let mut world = Self::prepare(|_| {});
        world.disk = Some(disk);
        world.start().await;
        world
    }

    /// With journal and outbox where reading can be made to fail.
    pub(super) async fn simulated(disk: &SimulatedDisk, maps: &MemoryMaps) -> Self {
        let mut world = Self::prepare(|_| {});
        world.disk = Some(Arc::new(disk.clone()));
        world.maps = Some(Arc::new(maps.clone()));
        world.start().await;
        world
    }

    fn prepare(change: impl FnOnce(&mut Config)) -> Self {
        log::be_heard();
        let clock = TestClock::default();
        let directory = tempfile::tempdir().unwrap();
        // Roots and a revocation list that count wherever a test sets the clock.
        clock.advance_s(-STEP_MAX_S);
        let mut authority = Authority::init(&directory.path().join("ca"), domain(), Arc::new(clock.clone())).unwrap();
        clock.advance_s(STEP_MAX_S * 2);
        authority.crl(CRL_DAYS_MAX).unwrap();
        clock.advance_s(-STEP_MAX_S);
        let options = BundleOptions {
            dns: vec!["localhost".to_owned()],
            addresses: vec!["127.0.0.1".parse().unwrap()],
            ..BundleOptions::default()
        };
        let out = directory.path().join("gateway");
        issue_bundle(&mut authority, Role::Gateway, &name("gateway"), &out, &options).unwrap();
        let mut config = Config::parse(CONFIG, directory.path()).unwrap();
        change(&mut config);
        Self {
            clock,
            config,
            metrics: None,
            disk: None,
            maps: None,
            directory,
            authority: Mutex::new(authority),
            running: None,
            address: String::new(),
        }
    }

    pub(super) async fn start(&mut self) {
        self.try_start().await.unwrap();
    }

    pub(super) async fn try_start(&mut self) -> Result<(), StartError> {
        let stop = CancellationToken::new();
        let mut around = Surroundings::real(Arc::new(self.clock.clone()));
        if let Some(disk) = &self.disk {
            around.disk = Arc::clone(disk);
        }
        around.maps.clone_from(&self.maps);
        let running = Gateway::start_in(self.config.clone(), around, stop.clone()).await?;
        self.address = running.address.to_string();
        self.metrics = running.metrics_address;
        self.running = Some((running, stop));
        Ok(())
    }

    /// Stops it and starts it, so that nothing is in its memory.
    pub(super) async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    pub(super) async fn stop(&mut self) {
        if let Some((running, stop)) = self.running.take() {
            stop.cancel();
            running.wait().await.unwrap();
        }
    }

    /// Gives the gateway a TLS certificate that counts at this hour.
    pub(super) fn renew(&self) {
        let out = self.directory.path().join("gateway");
        renew(&mut self.authority.lock().unwrap(), &out, Renewal::Tls, None).unwrap();
    }

    /// How it ended by itself.
    pub(super) async fn ended(&mut self) -> Ended {
        let (running, _stop) = self.running.take().unwrap();
        tokio::time::timeout(SOON, running.wait()).await.unwrap().unwrap_err()
    }

    /// A certificate bundle of that role and name.
    pub(super) fn bundle(&self, role: Role, who: &str) -> std::path::PathBuf {
        let out = self.directory.path().join(role.as_str()).join(who);
        std::fs::create_dir_all(out.parent().unwrap()).unwrap();
        if !out.exists() {
            let mut authority = self.authority.lock().unwrap();
            issue_bundle(&mut authority, role, &name(who), &out, &BundleOptions::default()).unwrap();
        }
        out
    }

    /// Gives an institution a signing certificate for a day only.
    pub(super) fn sign_for_a_day(&self, who: &str) {
        let options = BundleOptions { signing_days: 1, ..BundleOptions::default() };
        let out = self.directory.path().join(Role::Institution.as_str()).join(who);
        std::fs::create_dir_all(out.parent().unwrap()).unwrap();
        issue_bundle(&mut self.authority.lock().unwrap(), Role::Institution, &name(who), &out, &options).unwrap();
    }

    /// Gives an institution another signing certificate.
    pub(super) fn sign_anew(&self, who: &str) {
        let bundle = self.bundle(Role::Institution, who);
        renew(&mut self.authority.lock().unwrap(), &bundle, Renewal::Signing, None).unwrap();
    }

    /// Revokes an institution's signing certificate; the gateway learns it soon.
    pub(super) fn revoke(&self, who: &str, reason: RevocationReason) {
        let file = self.bundle(Role::Institution, who).join("sign.pem");
        let mut authority = self.authority.lock().unwrap();
        authority.revoke_file(&file, reason).unwrap();
        authority.publish_crl(&[self.directory.path().join("gateway")]).unwrap();
    }

    /// A channel with the certificate of that bundle.
    pub(super) fn channel(&self, bundle: &Path) -> Channel {
        let tls = ClientTls::load(TlsFiles::in_bundle(bundle), domain(), Arc::new(self.clock.clone())).unwrap();
        channel(&self.address, tls, Expected::gateway(name("gateway"))).unwrap()
    }

    pub(super) fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel(&self.bundle(Role::Operator, "prova")))
    }

    /// The sum of a metric over all labels that hold `label`.
    /// Until a metric is so; whoever waits for what never comes is ended by the test's own patience.
    pub(super) async fn until(&self, series: &str, label: &str, value: f64) {
        let reached = async {
            while self.metric(series, label).await != value {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, reached).await.unwrap_or_else(|_| panic!("{series} does not become {value}"));
    }

    pub(super) async fn metric(&self, series: &str, label: &str) -> f64 {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.metrics.unwrap()).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        let lines =
            page.lines().filter(|line| line.starts_with(&format!("tramite_gateway_{series}")) && line.contains(label));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}
