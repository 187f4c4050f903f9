//! A peer that somebody wrote by hand: any certificate or none, any statement, any bytes. For attacks and for what a client in
//! another language would do.
//!
//! Knows TLS and the generated clients. Trusts whatever server answers: a thief does not check certificates.

use std::sync::Arc;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use tramite_proto::pb::{
    directory::v1::directory_client::DirectoryClient,
    exchange::v1::{ReceiveFrame, ReceiveRequest, SubmitOneRequest, exchange_client::ExchangeClient},
    operations::v1::operations_client::OperationsClient,
    statement::v1::{SealedMessage, Statement},
};

use crate::pki::Badge;

/// Room for a whole delivery frame.
const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Requests that wait in an open stream.
const REQUESTS_MAX: usize = 64;

/// Accepts every server, but proves that it holds its key: otherwise the handshake would not be one.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A TLS client that shows a badge, or none.
///
/// # Errors
/// When the badge's key does not fit its certificate.
pub fn client_config(badge: Option<&Badge>) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut config = match badge {
        None => builder.with_no_client_auth(),
        Some(badge) => {
            let chain = badge.chain.iter().map(|one| CertificateDer::from(one.clone())).collect();
            let key = PrivateKeyDer::try_from(badge.key.clone()).ok().context("a key in DER")?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// A TLS connection and nothing on it yet.
///
/// # Errors
/// When nobody answers, or the server ends the handshake.
pub async fn connect(address: &str, config: ClientConfig) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    // Without it a small frame waits for the other side's delayed acknowledgement.
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
}

/// A connection to the gateway in the name of a badge.
#[derive(Debug, Clone)]
pub struct RawPeer {
    channel: Channel,
}

impl RawPeer {
    /// Connects. With TLS 1.3 a client learns only from its first call that its certificate was refused.
    ///
    /// # Errors
    /// When nobody answers, or the server ends the handshake.
    pub async fn connect(address: &str, badge: Option<&Badge>) -> Result<Self> {
        let config = client_config(badge)?;
        let to = address.to_owned();
        let connector = tower::service_fn(move |_| {
            let (to, config) = (to.clone(), config.clone());
            async move { connect(&to, config).await.map(TokioIo::new).map_err(std::io::Error::other) }
        });
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect_with_connector(connector).await?;
        Ok(Self { channel })
    }

    /// The channel itself, for calls that no generated client would make.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The exchange.
    #[must_use]
    pub fn exchange(&self) -> ExchangeClient<Channel> {
        ExchangeClient::new(self.channel.clone()).max_decoding_message_size(FRAME_BYTES_MAX)
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> DirectoryClient<Channel> {
        DirectoryClient::new(self.channel.clone())
    }

    /// Operations, which only operators may call.
    #[must_use]
    pub fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone())
    }

    /// Submits one message and gives back its acceptance.
    ///
    /// # Errors
    /// The gateway's refusal.
    pub async fn submit(&self, message: SealedMessage) -> Result<Statement, Status> {
        let answer = self.exchange().submit_one(SubmitOneRequest { message: Some(message) }).await?;
        answer.into_inner().acceptance.ok_or_else(|| Status::internal("no acceptance"))
    }

    /// Opens `Receive` with some credit; what is sent into the first half goes up, what comes down is in the second.
    ///
    /// # Errors
    /// The gateway's refusal.
    pub async fn receive(
        &self,
        credit: u32,
    ) -> Result<(tokio::sync::mpsc::Sender<ReceiveRequest>, Streaming<ReceiveFrame>), Status> {
        let (up, requests) = tokio::sync::mpsc::channel(REQUESTS_MAX);
        let first = ReceiveRequest { credit, ..ReceiveRequest::default() };
        up.send(first).await.map_err(|_| Status::internal("the channel is ours"))?;
        let frames = self.exchange().receive(ReceiverStream::new(requests)).await?.into_inner();
        Ok((up, frames))
    }
}
