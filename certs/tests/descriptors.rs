//! A process without a free descriptor: the accept loop waits instead of spinning, and goes on when there is one again.
//!
//! A test binary of its own, because the limit on descriptors is the whole process's.
use std::{
    fs::File,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tramite_certs::{
    authority::{Authority, BundleOptions, issue_bundle},
    connect::{Connector, Expected},
    identity::Role,
    limits::Limits,
    listen::Listener,
    tls::{ClientTls, ServerTls, TlsFiles},
};
use tramite_proto::clock::{Clock, SystemClock};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long the loop is watched while it can accept nothing.
const WATCHED: Duration = Duration::from_millis(500);

/// Processor time of this process, in seconds (`/proc/self/stat`, fields 14 and 15, in ticks of 10 ms).
fn processor_s(stat: &mut File) -> Option<f64> {
    use std::io::{Read as _, Seek as _};
    let mut text = String::new();
    stat.rewind().ok()?;
    stat.read_to_string(&mut text).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}

#[tokio::test]
async fn without_a_free_descriptor_the_accept_loop_waits_and_goes_on_later() {
    let directory = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let domain = "tramite.test".parse().unwrap();
    let mut authority = Authority::init(directory.path(), domain, Arc::clone(&clock)).unwrap();
    let addresses = BundleOptions { addresses: vec!["127.0.0.1".parse().unwrap()], ..BundleOptions::default() };
    let mut bundle = |role, name: &str, options: &BundleOptions| {
        let out = directory.path().join(name);
        issue_bundle(&mut authority, role, &name.parse().unwrap(), &out, options).unwrap();
        TlsFiles::in_bundle(&out)
    };
    let gateway = bundle(Role::Gateway, "gateway", &addresses);
    let inps = bundle(Role::Institution, "inps", &BundleOptions::default());
    let domain = || "tramite.test".parse().unwrap();
    let tls = ServerTls::load(gateway, domain(), Arc::clone(&clock)).unwrap();
    let client = ClientTls::load(inps, domain(), clock).unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), tls, Limits::default(), Arc::new(())).await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let mut incoming = listener.incoming(&stop);

    let mut stat = File::open("/proc/self/stat").unwrap();
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum: before.maximum }).unwrap();
    // One is left for the client's own socket, none for the listener's.
    let spare = File::open("/dev/null").unwrap();
    let held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    drop(spare);
    let waiting = TcpStream::connect(address).await.unwrap();
    let (began, spent) = (Instant::now(), processor_s(&mut stat).unwrap());
    assert!(tokio::time::timeout(WATCHED, incoming.next()).await.is_err(), "nothing can be accepted");
    let spent = processor_s(&mut stat).unwrap() - spent;
    assert!(spent < began.elapsed().as_secs_f64() / 2.0, "{spent} s of processor while waiting");

    drop((held, waiting));
    let connector =
        Connector::new(&address.to_string(), client, Expected::gateway("gateway".parse().unwrap())).unwrap();
    let dialled = tokio::spawn(async move { connector.connect().await });
    let stream = tokio::time::timeout(PATIENCE, incoming.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(stream.peer().name().as_str(), "inps");
    dialled.await.unwrap().unwrap();
    setrlimit(Resource::Nofile, before).unwrap();
}
