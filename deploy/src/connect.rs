//! How a command reaches its adapter or the gateway: from a flag, from the environment, or from the adapter's own configuration.
//!
//! Invariant: whoever is called has a name for people (`whom`), so that a failure says who could not be reached.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tonic::{
    body::Body,
    codegen::{BoxFuture, Service, StdError, http},
    transport::{Channel, Endpoint},
};
use tramite_certs::{
    connect::{self, Expected},
    files,
    identity::{self, Role},
    tls::{ClientTls, TlsFiles},
};
use tramite_proto::{
    clock::SystemClock,
    ids::InstitutionName,
    pb::{backoffice::v1::back_office_client::BackOfficeClient, operations::v1::operations_client::OperationsClient},
};

use crate::{
    cli::{AdapterAddress, GatewayAddress},
    failure::{Exit, Failure, chain},
};

/// A local socket that does not answer in this time does not answer.
const CONNECT: Duration = Duration::from_secs(5);
/// Who connects and gives no first answer in this time gives none: nobody waits longer before a terminal without knowing why.
const DEADLINE: Duration = Duration::from_secs(10);
/// The answer to an upload comes at its end: the largest attachment over a slow line.
const UPLOAD_DEADLINE: Duration = Duration::from_secs(1_800);
/// The largest answer: a page of a thousand rows.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// A service, and how it is called in sentences.
#[derive(Debug, Clone)]
pub(crate) struct Reached<C> {
    pub(crate) client: C,
    pub(crate) whom: String,
}

impl<C> Reached<C> {
    /// A refusal or a failed call, with who was called.
    pub(crate) fn failed(&self, status: &tonic::Status) -> Failure {
        Failure::status(&self.whom, status)
    }
}

/// The institution's own adapter, and a client for it.
pub(crate) type Adapter = Reached<BackOfficeClient<Patient>>;
/// The gateway, and a client for its operations.
pub(crate) type Gateway = Reached<OperationsClient<Patient>>;

/// A channel whose calls, connecting included, must begin to be answered before [`DEADLINE`]. What is answered as a stream may then
/// take as long as it likes.
#[derive(Debug, Clone)]
pub(crate) struct Patient(Channel);

impl Service<http::Request<Body>> for Patient {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<Self::Response, StdError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Service::poll_ready(&mut self.0, context).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let deadline = if request.uri().path().ends_with("/PutAttachment") { UPLOAD_DEADLINE } else { DEADLINE };
        let answer = Service::call(&mut self.0, request);
        Box::pin(async move {
            match tokio::time::timeout(deadline, answer).await {
                Ok(answer) => answer.map_err(Into::into),
                Err(_) => {
                    let sentence = format!("no answer within {} seconds", deadline.as_secs());
                    Err(tonic::Status::deadline_exceeded(sentence).into())
                }
            }
        })
    }
}

/// The institution's own adapter.
pub(crate) async fn adapter(address: &AdapterAddress) -> Result<Adapter, Failure> {
    let Some(given) = address.adapter.as_deref().filter(|given| !given.is_empty()) else {
        let advice = "Give --adapter unix:PATH or --adapter PATH/adapter.toml, or set TRAMITE_ADAPTER; `tramite demo` prints one to try.";
        return Err(Failure::usage("no adapter was named", advice));
    };
    let (channel, whom) = match (given.strip_prefix("unix:"), given.rsplit_once(':')) {
        (Some(path), _) => {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            (local(&path).await?, format!("the adapter at unix:{}", path.display()))
        }
        (None, Some((_, port))) if port.parse::<u16>().is_ok() => {
            (over_tls(given, address.certs.as_deref(), None)?, format!("the adapter at {given}"))
        }
        (None, _) => {
            let path = socket_of(Path::new(given))?;
            (local(&path).await?, format!("the adapter at unix:{}", path.display()))
        }
    };
    Ok(Reached { client: BackOfficeClient::new(Patient(channel)).max_decoding_message_size(ANSWER_MAX), whom })
}

/// The gateway, for an operator.
pub(crate) fn operations(address: &GatewayAddress) -> Result<Gateway, Failure> {
    let Some(given) = address.gateway.as_deref().filter(|given| !given.is_empty()) else {
        let advice = "Give --gateway host:port, or set TRAMITE_GATEWAY; `tramite demo` prints one to try.";
        return Err(Failure::usage("no gateway was named", advice));
    };
    let channel = over_tls(given, address.certs.as_deref(), Some(&address.gateway_name))?;
    Ok(Reached {
        client: OperationsClient::new(Patient(channel)).max_decoding_message_size(ANSWER_MAX),
        whom: format!("the gateway at {given}"),
    })
}

/// A channel to a Unix socket, made at the first call and again whenever it was lost.
pub(crate) fn unix(path: &Path) -> Result<Channel, Failure> {
    let wrong = |error: tonic::transport::Error| {
        Failure::usage(format!("{} is not the path of a socket: {}", path.display(), chain(&error)), "Give unix:PATH.")
    };
    let endpoint = Endpoint::from_shared(format!("unix:{}", path.display())).map_err(wrong)?;
    Ok(endpoint.connect_timeout(CONNECT).connect_lazy())
}

/// The same, when there is a socket at all.
async fn local(path: &Path) -> Result<Channel, Failure> {
    let connected = tokio::time::timeout(CONNECT, tokio::net::UnixStream::connect(path)).await;
    if let Err(error) = connected.map_err(std::io::Error::from).and_then(|inner| inner) {
        let sentence = format!("no adapter answers at unix:{}: {error}", path.display());
        let advice = "Is the adapter running, is the path right, and may you open the socket?";
        return Err(Failure::new(Exit::Unavailable, sentence, advice));
    }
    unix(path)
}

/// The socket that an adapter's configuration names, or the path itself when it is no configuration.
fn socket_of(path: &Path) -> Result<PathBuf, Failure> {
    if path.extension().is_none_or(|extension| extension != "toml") {
        return Ok(path.to_owned());
    }
    let config = tramite_adapters::config::Config::load(path).map_err(|error| {
        let sentence = format!("{} is no adapter's configuration: {}", path.display(), chain(&error));
        Failure::new(Exit::Config, sentence, "Name the adapter.toml of your institution.")
    })?;
    config.backoffice.and_then(|office| office.socket).ok_or_else(|| {
        let sentence = format!("{} opens no Unix socket for back offices", path.display());
        Failure::new(Exit::Config, sentence, "Give --adapter host:port with --certs, or add [backoffice] socket to it.")
    })
}

/// A channel over mutual TLS to a gateway of this name, or (without a name) to the adapter of the caller's own institution.
fn over_tls(address: &str, certs: Option<&Path>, gateway: Option<&str>) -> Result<Channel, Failure> {
    let Some(folder) = certs else {
        let advice = "Give --certs DIR, or set TRAMITE_CERTS: a folder as `tramite certs issue` writes it.";
        return Err(Failure::usage(format!("calling {address} needs a certificate"), advice));
    };
    let bad = |error: &dyn std::error::Error| {
        let advice = "`tramite certs show DIR` shows what is in the folder; `tramite certs issue` makes a new one.";
        Failure::new(
            Exit::Config,
            format!("the certificates in {} cannot be used: {}", folder.display(), chain(error)),
            advice,
        )
    };
    let chain_of = files::certificates(&folder.join("tls.pem")).map_err(|error| bad(&error))?;
    let leaf = chain_of.first().map(|leaf| leaf.as_ref()).unwrap_or_default();
    let own = identity::holder_of(leaf).map_err(|error| bad(&error))?;
    let expected = match gateway {
        Some(name) => Expected::gateway(name.parse::<InstitutionName>().map_err(|_| {
            Failure::usage(
                format!("{name} is not a name"),
                "Give --gateway-name as it stands in the gateway's certificate.",
            )
        })?),
        None => Expected { role: Role::Institution, name: own.name },
    };
    let files = TlsFiles::in_bundle(folder);
    let tls = ClientTls::load(files, own.trust_domain, Arc::new(SystemClock)).map_err(|error| bad(&error))?;
    connect::channel(address, tls, expected).map_err(|error| Failure::usage(chain(&error), "Give host:port."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_nobody_gave_is_asked_for() {
        let failure = adapter(&AdapterAddress { adapter: None, certs: None }).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.advice.contains("TRAMITE_ADAPTER"));
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_named() {
        let address = AdapterAddress { adapter: Some("unix:/nowhere/at.sock".to_owned()), certs: None };
        let failure = adapter(&address).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unavailable);
        assert!(failure.sentence.contains("/nowhere/at.sock"), "{failure}");
    }

    #[tokio::test]
    async fn calling_over_the_network_asks_for_a_certificate() {
        let address = AdapterAddress { adapter: Some("adapter.example:7444".to_owned()), certs: None };
        let failure = adapter(&address).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.advice.contains("--certs"));
    }
}
