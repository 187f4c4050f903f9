//! A network for tests: an authority, bundles, adapters in their own directories.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tramite_certs::{
    authority::{Authority, BundleOptions, CRL_DAYS_MAX, Renewal, issue_bundle, renew},
    identity::{Role, TrustDomain},
};
use tramite_proto::{
    clock::{Clock as _, ManualClock, SystemClock},
    pb::{
        backoffice::v1::{self as pb, back_office_client::BackOfficeClient},
        body::v1 as body,
    },
    reason::Reason,
};

use tramite_store::{disk::SimulatedDisk, map::MemoryMaps};

use crate::{Adapter, Config, Running, Surroundings, core::Core, metrics};

pub(super) type Office = BackOfficeClient<Channel>;

/// Waits longer than this are failures.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// No test sets its clock further than this.
const STEP_MAX_MS: i64 = 400 * 86_400_000;

pub(super) struct Network {
    folder: TempDir,
    pub(super) clock: ManualClock,
}

/// An adapter that runs.
pub(super) struct Institution {
    pub(super) office: Office,
    running: Running,
    stop: CancellationToken,
}

impl Institution {
    /// What its tasks share; let go of it before it is stopped.
    pub(super) fn core(&self) -> Arc<Core> {
        self.running.core.upgrade().expect("it runs")
    }

    /// How often something was put off for that reason.
    pub(super) fn retries(&self, reason: Reason) -> u64 {
        self.core().metrics.retries.get_or_create(&metrics::reason(reason.as_str())).get()
    }

    /// Waits until it knows another institution.
    pub(super) async fn knows(&mut self, name: &str) {
        until(async || {
            let known = self.office.list_institutions(pb::ListInstitutionsRequest {}).await.expect("a list");
            known.into_inner().institutions.iter().any(|known| known.name == name).then_some(())
        })
        .await;
    }

    /// Stops it in order.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.running.wait().await.expect("ends in order");
    }
}

impl Network {
    /// An authority with a gateway and three institutions.
    pub(super) fn new() -> Self {
        let folder = TempDir::new().expect("a directory");
        let clock = ManualClock::new(SystemClock.now_ms());
        let domain: TrustDomain = "tramite.example".parse().expect("a domain");
        // Roots and a revocation list that count wherever a test sets the clock.
        clock.advance(-STEP_MAX_MS);
        let mut authority = Authority::init(folder.path(), domain, Arc::new(clock.clone())).expect("an authority");
        clock.advance(STEP_MAX_MS * 2);
        authority.crl(CRL_DAYS_MAX).expect("a list");
        clock.advance(-STEP_MAX_MS);
        for (role, name) in [
            (Role::Gateway, "gateway"),
            (Role::Institution, "caritas"),
            (Role::Institution, "inps"),
            (Role::Institution, "comune"),
        ] {
            let addresses = vec!["127.0.0.1".parse().expect("an address")];
            let options = BundleOptions { addresses, ..BundleOptions::default() };
            let out = folder.path().join(name);
            issue_bundle(&mut authority, role, &name.parse().expect("a name"), &out, &options).expect("a bundle");
        }
        Self { folder, clock }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives an institution a TLS certificate that counts at this hour.
    pub(super) fn renew(&self, name: &str) {
        let authority = Authority::open(self.folder.path(), Arc::new(self.clock.clone()));
        renew(&mut authority.expect("the authority"), &self.path(name), Renewal::Tls, None).expect("renewed");
    }

    /// The adapter's configuration; `port` of the gateway.
    pub(super) fn config(&self, name: &str, port: u16) -> Config {
        let text = format!(
            r#"
institution = "{name}"
trust_domain = "tramite.example"
data = "data"
[gateway]
address = "127.0.0.1:{port}"
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
poll_ms = 20
[store]
segment_mib = 1
"#
        );
        let mut config = Config::parse(&text, &self.path(name)).expect("a configuration");
        // Only the tests of the spool want it: it would take items from the inbox.
        config.spool = config.spool.filter(|_| name == "comune");
        config
    }

    /// Starts an adapter.
    pub(super) async fn start(&self, name: &str, port: u16) -> Institution {
        self.start_with(self.config(name, port)).await
    }

    /// Starts an adapter with a configuration of its own.
    pub(super) async fn start_with(&self, config: Config) -> Institution {
        self.start_in(config, Surroundings::real(Arc::new(self.clock.clone()))).await
    }

    /// Starts an adapter with journal and outbox where reading can be made to fail.
    pub(super) async fn start_on(&self, name: &str, port: u16, disk: &SimulatedDisk, maps: &MemoryMaps) -> Institution {
        self.start_in(self.config(name, port), self.around(disk, maps)).await
    }

    /// Surroundings where reading can be made to fail.
    pub(super) fn around(&self, disk: &SimulatedDisk, maps: &MemoryMaps) -> Surroundings {
        let (disk, maps) = (Arc::new(disk.clone()), Arc::new(maps.clone()));
        let around = Surroundings::real(Arc::new(self.clock.clone()));
        Surroundings { disk, maps: Some(maps), ..around }
    }

    /// Starts an adapter with a configuration and surroundings of its own.
    pub(super) async fn start_in(&self, config: Config, around: Surroundings) -> Institution {
        let stop = CancellationToken::new();
        let running = Adapter::start_in(config, around, stop.clone()).await;
        let running = running.expect("starts");
        let office = office(running.socket.as_deref().expect("a socket")).await;
        Institution { office, running, stop }
    }
}

/// A client of the socket.
pub(super) async fn office(socket: &Path) -> Office {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://backoffice").connect_with_connector(connector).await;
    BackOfficeClient::new(channel.expect("connects"))
}

/// A referral of an invented person.
pub(super) fn referral(request_id: &str, to: &str) -> pb::SendReferralRequest {
    let identifier = body::PersonIdentifier {
        kind: Some(body::person_identifier::Kind::CodiceFiscale("RSSMRA80A01A944I".into())),
        ..Default::default()
    };
    let person = body::Person {
        identifiers: vec![identifier],
        surname: "Prova".into(),
        given_name: "Esempio".into(),
        ..Default::default()
    };
    pb::SendReferralRequest {
        sending: Some(sending(request_id)),
        to: to.into(),
        referral: Some(body::Referral {
            person: Some(person),
            benefits: vec!["ADI".into()],
            situation: "Invented for a test.".into(),
            mandate: Some(body::Mandate { kind: "CONSENT".into(), reference: "file 1".into(), given: None }),
            ..Default::default()
        }),
        conversation_id: String::new(),
    }
}

pub(super) fn sending(request_id: &str) -> pb::Sending {
    pb::Sending {
        request_id: request_id.into(),
        purpose: "RIGHTS_SCREENING".into(),
        legal_basis: "GDPR-6-1-E".into(),
        ..Default::default()
    }
}

/// The stable reason of a refused call.
pub(super) fn reason(status: &tonic::Status) -> String {
    let refused = tramite_proto::reason::Refused::from_status(status);
    refused.unwrap_or_else(|| panic!("no reason in {status:?}")).reason.as_str().to_owned()
}

/// Asks again until it gives something; for what has no event to wait for.
pub(super) async fn until<T, F: AsyncFnMut() -> Option<T>>(mut ask: F) -> T {
    let asked = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("in time")
}
