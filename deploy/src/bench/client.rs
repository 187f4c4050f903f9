//! A process of the bench: reads who it is, connects, does as it is told.
//!
//! Knows standard input and output, and how to dial. Invariants: one thread does everything (measured: with two cores for all
//! processes, a run time with more threads only adds wake-ups); it ends when its standard input ends.

use std::{
    error::Error as _,
    fmt,
    io::{self, BufRead as _, Write as _},
    path::Path,
    sync::Arc,
    thread,
};

use tokio::sync::mpsc;
use tonic::{Status, transport::Channel};
use tramite_certs::{
    connect::{self, Expected},
    identity::Role as CertificateRole,
    secrets,
    tls::{ClientTls, TlsFiles},
};
use tramite_proto::{
    clock::SystemClock, jws::EcdsaSigner, pb::exchange::v1::exchange_client::ExchangeClient, reason::Refused,
    seal::PublicKey,
};

use super::{
    bare, idle,
    network::{GATEWAY, TRUST_DOMAIN},
    recipients, sender,
    wire::{Order, Role, Said, Setup},
};
use crate::failure::{Exit, Failure, chain};

/// Orders that wait: there is one at a time.
const ORDERS_MAX: usize = 4;
/// The largest frame of deliveries that a gateway makes is 3 MiB.
const FRAME_MAX: usize = 4 << 20;

/// Why a process cannot go on, in one sentence.
#[derive(Debug, Clone)]
pub(super) struct Trouble(String);

impl Trouble {
    pub(super) fn new(sentence: String) -> Self {
        Self(sentence)
    }

    /// Something failed.
    pub(super) fn of(what: &str, error: &dyn std::error::Error) -> Self {
        Self(format!("{what}: {}", chain(error)))
    }

    /// The gateway, or a check of ours, refused.
    pub(super) fn refused(what: &str, refused: &Refused) -> Self {
        Self(format!("{what} was refused ({}): {}", refused.reason.as_str(), refused.detail))
    }

    /// A stream broke.
    pub(super) fn status(what: &str, status: &Status) -> Self {
        match Refused::from_status(status) {
            Some(refused) => Self::refused(what, &refused),
            None => {
                // The top of the chain says only "transport error"; its bottom says why.
                let innermost = std::iter::successors(status.source(), |cause| (*cause).source()).last();
                let why = innermost.map_or_else(|| status.message().to_owned(), ToString::to_string);
                Self(format!("{what} broke: {why}"))
            }
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs the process until its standard input ends.
pub(crate) fn run() -> Result<Exit, Failure> {
    let failed =
        |error: &dyn std::error::Error| Failure::internal("a process of the bench cannot start").because(error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    let mut first = String::new();
    io::stdin().lock().read_line(&mut first).map_err(|error| failed(&error))?;
    let setup: Setup = serde_json::from_str(&first).map_err(|error| failed(&error))?;
    let ended = runtime.block_on(serve(setup));
    runtime.shutdown_background();
    if let Err(trouble) = ended {
        // The bench says it to whoever looks on.
        say(&Said::Failed { sentence: trouble.to_string() });
        return Ok(Exit::Failed);
    }
    Ok(Exit::Ok)
}

async fn serve(setup: Setup) -> Result<(), Trouble> {
    let orders = orders();
    match setup.role {
        Role::Sender => sender::run(setup, orders).await,
        Role::Recipients => recipients::run(setup, orders).await,
        Role::Idle => idle::run(setup, orders).await,
        Role::Bare => bare::serve(setup, orders).await,
    }
}

/// The orders, read by a thread of its own: a read of standard input cannot be taken back.
fn orders() -> mpsc::Receiver<Order> {
    let (out, orders) = mpsc::channel(ORDERS_MAX);
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str(&line) else { return };
            if out.blocking_send(order).is_err() {
                return;
            }
        }
    });
    orders
}

/// One line to the bench. When nobody reads any more, standard input ends too.
pub(super) fn say(said: &Said) {
    if let Ok(line) = serde_json::to_string(said) {
        let mut out = io::stdout().lock();
        drop(writeln!(out, "{line}"));
        drop(out.flush());
    }
}

/// A channel of an institution to an address where the gateway's certificate answers.
pub(super) fn channel(folder: &Path, name: &str, address: &str) -> Result<Channel, Trouble> {
    let domain = TRUST_DOMAIN.parse().map_err(|error| Trouble::of("the trust domain", &error))?;
    let tls = ClientTls::load(TlsFiles::in_bundle(&folder.join(name)), domain, Arc::new(SystemClock));
    let tls = tls.map_err(|error| Trouble::of("TLS", &error))?;
    let gateway = GATEWAY.parse().map_err(|error| Trouble::of("the gateway's name", &error))?;
    connect::channel(address, tls, Expected::gateway(gateway)).map_err(|error| Trouble::of("the address", &error))
}

/// A client of the exchange for an institution.
pub(super) fn exchange(folder: &Path, name: &str, address: &str) -> Result<ExchangeClient<Channel>, Trouble> {
    let client = ExchangeClient::new(channel(folder, name, address)?);
    Ok(client.max_decoding_message_size(FRAME_MAX).max_encoding_message_size(2 * FRAME_MAX))
}

/// What an institution signs with.
pub(super) fn signer(folder: &Path, name: &str) -> Result<secrets::LoadedSigner, Trouble> {
    let domain = TRUST_DOMAIN.parse().map_err(|error| Trouble::of("the trust domain", &error))?;
    let at = |file: &str| folder.join(name).join(file);
    let role = CertificateRole::Institution;
    secrets::load_signing(&at("sign.pem"), &at("sign.key"), &domain, role, name)
        .map_err(|error| Trouble::of("a signing key", &error))
}

/// The signer alone.
pub(super) fn pen(folder: &Path, name: &str) -> Result<EcdsaSigner, Trouble> {
    signer(folder, name).map(|loaded| loaded.signer)
}

/// What is sealed to an institution is sealed to this.
pub(super) fn encryption_key(folder: &Path, name: &str) -> Result<PublicKey, Trouble> {
    let keys = secrets::load_encryption_keys(&folder.join(name));
    let keys = keys.map_err(|error| Trouble::of("an encryption key", &error))?;
    let key = keys.into_iter().next().map(|(kid, key)| key.public_key(kid));
    key.ok_or_else(|| Trouble::new(format!("{name} has no encryption key")))
}
