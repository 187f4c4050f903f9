//! A gateway that lies: right certificates, right protocol, and in every answer exactly what a test wants it to say.
//!
//! A real adapter dials it. It shows what it was sent, and never checks anything. Its TLS is the product's own, so that an
//! adapter's refusal comes from the lie and from nothing else.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use tramite_certs::{
    limits::Limits,
    listen::Listener,
    tls::{ServerTls, TlsFiles},
};
use tramite_proto::{
    clock::SystemClock,
    pb::{
        directory::v1::{self as dir, directory_server},
        exchange::v1::{self as ex, exchange_server, submit_result},
        statement::v1::{FramedStatement, Statement},
    },
};

use crate::{
    config::GATEWAY,
    forge::{Object, Pen, b64, now_s, sha256, uuid7},
    network::{Network, PATIENCE},
    pki::TRUST_DOMAIN,
};

/// Frames that wait for an adapter.
const FRAMES_MAX: usize = 16;

/// A message that the adapter submitted.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// Its origin's bytes.
    pub json: Vec<u8>,
    /// Its ciphertext.
    pub ciphertext: Vec<u8>,
}

impl Submitted {
    /// What the origin says, as JSON.
    #[must_use]
    pub fn origin(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// The key id that it was sealed to.
    #[must_use]
    pub fn key_id(&self) -> String {
        self.origin().pointer("/ct/kid").and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

/// What an adapter said of a delivery or notice: its id, and the receipt's JSON when it gave one.
#[derive(Debug, Clone)]
pub struct Said {
    /// The delivery's or notice's id.
    pub delivery_id: u64,
    /// Receipt, retry or acknowledgement.
    pub outcome: ex::settlement::Outcome,
}

impl Said {
    /// The receipt as JSON; null when it gave none.
    #[must_use]
    pub fn receipt(&self) -> Value {
        match &self.outcome {
            ex::settlement::Outcome::Receipt(framed) => serde_json::from_slice(&framed.json).unwrap_or_default(),
            _ => Value::Null,
        }
    }
}

#[derive(Default)]
struct State {
    keys: BTreeMap<String, Vec<Statement>>,
    submitted: Vec<Submitted>,
    published: Vec<Statement>,
    said: Vec<Said>,
    down: Option<mpsc::Sender<Result<ex::ReceiveFrame, Status>>>,
}

struct Stage {
    pen: Pen,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

/// The stage as tonic serves it: a stream outlives the call that opened it.
struct Served(Arc<Stage>);

impl std::ops::Deref for Served {
    type Target = Arc<Stage>;
    fn deref(&self) -> &Arc<Stage> {
        &self.0
    }
}

/// A lying gateway, until dropped.
pub struct Liar {
    stage: Arc<Stage>,
    _stop: DropGuard,
}

impl fmt::Debug for Liar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Liar").finish_non_exhaustive()
    }
}

impl Liar {
    /// Serves where the network's gateway would, with the certificates of a bundle.
    ///
    /// # Errors
    /// When it cannot serve.
    pub async fn start(network: &Network, bundle: &str) -> Result<Self> {
        let files = TlsFiles::in_bundle(&network.pki.bundle(bundle));
        let tls = ServerTls::load(files, TRUST_DOMAIN.parse()?, Arc::new(SystemClock))?;
        let listener = Listener::bind(network.address().parse()?, tls, Limits::default(), Arc::new(())).await?;
        let stop = CancellationToken::new();
        let incoming = listener.incoming(&stop);
        let pen = network.pki.pen(GATEWAY)?;
        let stage = Arc::new(Stage { pen, state: Mutex::default(), changed: watch::channel(()).0 });
        let server = Server::builder()
            .add_service(exchange_server::ExchangeServer::new(Served(Arc::clone(&stage))))
            .add_service(directory_server::DirectoryServer::new(Served(Arc::clone(&stage))))
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        tokio::spawn(server);
        Ok(Self { stage, _stop: stop.drop_guard() })
    }

    /// The pen with which it signs its evidence.
    #[must_use]
    pub fn pen(&self) -> &Pen {
        &self.stage.pen
    }

    /// From now on, the directory gives these key records for an institution.
    pub fn shows(&self, name: &str, keys: Vec<Statement>) {
        self.stage.lock().keys.insert(name.to_owned(), keys);
    }

    /// The messages that were submitted.
    #[must_use]
    pub fn submitted(&self) -> Vec<Submitted> {
        self.stage.lock().submitted.clone()
    }

    /// The key record that the adapter published last.
    #[must_use]
    pub fn published(&self) -> Option<Statement> {
        self.stage.lock().published.last().cloned()
    }

    /// What the adapter said of a delivery or notice, once it said something.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn said_of(&self, delivery_id: u64) -> Result<Said> {
        let said = |state: &State| state.said.iter().find(|said| said.delivery_id == delivery_id).cloned();
        self.stage.until(said).await.with_context(|| format!("nothing was said of {delivery_id}"))
    }

    /// The messages submitted, once there are so many.
    ///
    /// # Errors
    /// When there are not in time.
    pub async fn takes(&self, count: usize) -> Result<Vec<Submitted>> {
        let enough = |state: &State| (state.submitted.len() >= count).then(|| state.submitted.clone());
        self.stage.until(enough).await.with_context(|| format!("{count} messages do not come"))
    }

    /// Sends a frame down the open `Receive` stream, once there is one.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn sends(&self, frame: ex::ReceiveFrame) -> Result<()> {
        let down = self.stage.until(|state: &State| state.down.clone().filter(|down| !down.is_closed())).await?;
        down.send(Ok(frame)).await.ok().context("the stream closed")
    }

    /// The adapter's key record, once it was published.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn key_of_adapter(&self) -> Result<Statement> {
        self.stage.until(|state: &State| state.published.last().cloned()).await.context("no key record was published")
    }

    /// Evidence of an event about a message, as a true gateway would write it.
    #[must_use]
    pub fn evidence(event: &str, origin_json: &[u8]) -> Object {
        let origin: Value = serde_json::from_slice(origin_json).unwrap_or_default();
        let text = |name: &str| origin.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Object::of("evidence")
            .with("jti", uuid7().to_string())
            .with("iss", GATEWAY)
            .with("evt", event)
            .with("mid", text("jti"))
            .with("org_s256", b64(&sha256(origin_json)))
            .with("from", text("iss"))
            .with("to", text("aud"))
            .with("case", text("case"))
            .with("at", now_s())
    }
}

/// One statement as the `place`-th batch of a frame.
#[must_use]
pub fn framed(statement: &Statement, place: u32) -> FramedStatement {
    let (json, path) = (statement.json.clone(), statement.path.clone());
    FramedStatement { json, jws_index: place, index: statement.index, path }
}

impl Stage {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.send_replace(());
    }

    async fn until<T>(&self, look: impl Fn(&State) -> Option<T>) -> Result<T> {
        let mut changed = self.changed.subscribe();
        let found = timeout(PATIENCE, async {
            loop {
                if let Some(found) = look(&self.lock()) {
                    return found;
                }
                // The sender lives in `self`, so the channel cannot close.
                let _ = changed.changed().await;
            }
        });
        found.await.with_context(|| format!("not within {PATIENCE:?}"))
    }

    /// Takes a message and vouches for it.
    fn accept(&self, message: &ex::FramedMessage) -> Result<Statement, Status> {
        let json = message.origin.as_ref().map(|origin| origin.json.to_vec()).unwrap_or_default();
        let evidence = Liar::evidence("SubmissionAcceptance", &json).with("peer_s256", b64(&[0; 32]));
        let statement = self.pen.statement(&evidence.json()).map_err(|error| Status::internal(error.to_string()))?;
        let ciphertext = message.ciphertext.to_vec();
        self.note(|state| state.submitted.push(Submitted { json, ciphertext }));
        Ok(statement)
    }

    fn institution(&self, name: &str) -> dir::Institution {
        dir::Institution {
            name: name.to_owned(),
            display_name: name.to_owned(),
            kind: dir::InstitutionKind::Private.into(),
            accepts: vec!["tramite.body.v1.Referral".into(), "tramite.body.v1.ReferralUpdate".into()],
            keys: self.lock().keys.get(name).cloned().unwrap_or_default(),
            online: true,
            ..dir::Institution::default()
        }
    }
}

#[tonic::async_trait]
impl directory_server::Directory for Served {
    async fn list_institutions(
        &self,
        _: Request<dir::ListInstitutionsRequest>,
    ) -> Result<Response<dir::ListInstitutionsResponse>, Status> {
        let names: Vec<String> = self.lock().keys.keys().cloned().collect();
        let institutions = names.iter().map(|name| self.institution(name)).collect();
        let gateway_chain = self.pen.chain.iter().map(|one| one.clone().into()).collect();
        Ok(Response::new(dir::ListInstitutionsResponse { institutions, gateway_chain }))
    }

    async fn get_institution(
        &self,
        request: Request<dir::GetInstitutionRequest>,
    ) -> Result<Response<dir::GetInstitutionResponse>, Status> {
        let institution = Some(self.institution(&request.into_inner().name));
        Ok(Response::new(dir::GetInstitutionResponse { institution }))
    }

    async fn publish_key(
        &self,
        request: Request<dir::PublishKeyRequest>,
    ) -> Result<Response<dir::PublishKeyResponse>, Status> {
        let key = request.into_inner().key.unwrap_or_default();
        self.note(|state| state.published.push(key));
        Ok(Response::new(dir::PublishKeyResponse { published: true }))
    }
}

#[tonic::async_trait]
impl exchange_server::Exchange for Served {
    type SubmitStream = ReceiverStream<Result<ex::SubmitAnswer, Status>>;
    type ReceiveStream = ReceiverStream<Result<ex::ReceiveFrame, Status>>;
    type GetPartStream = ReceiverStream<Result<ex::GetPartResponse, Status>>;

    async fn submit(
        &self,
        request: Request<Streaming<ex::SubmitFrame>>,
    ) -> Result<Response<Self::SubmitStream>, Status> {
        let (answers, down) = mpsc::channel(FRAMES_MAX);
        let (stage, mut frames) = (Arc::clone(&self.0), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                if answers.send(stage.answer(&frame)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(down)))
    }

    async fn receive(
        &self,
        request: Request<Streaming<ex::ReceiveRequest>>,
    ) -> Result<Response<Self::ReceiveStream>, Status> {
        let (frames, down) = mpsc::channel(FRAMES_MAX);
        self.note(|state| state.down = Some(frames.clone()));
        let (stage, mut requests) = (Arc::clone(&self.0), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let settled = stage.settle(request);
                if !settled.is_empty() {
                    let answer = ex::ReceiveFrame { settled, ..ex::ReceiveFrame::default() };
                    let _ = frames.send(Ok(answer)).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(down)))
    }

    async fn put_part(
        &self,
        request: Request<Streaming<ex::PutPartRequest>>,
    ) -> Result<Response<ex::PutPartResponse>, Status> {
        let mut frames = request.into_inner();
        while frames.message().await?.is_some() {}
        Ok(Response::new(ex::PutPartResponse { stored: true }))
    }

    async fn get_part(&self, _: Request<ex::GetPartRequest>) -> Result<Response<Self::GetPartStream>, Status> {
        Err(Status::not_found("this gateway has no parts"))
    }

    async fn submit_one(
        &self,
        request: Request<ex::SubmitOneRequest>,
    ) -> Result<Response<ex::SubmitOneResponse>, Status> {
        let message = request.into_inner().message.unwrap_or_default();
        let origin = message.origin.map(|origin| framed(&origin, 0));
        let (enc, ciphertext) = (message.enc, message.ciphertext);
        let framed = ex::FramedMessage { origin, enc, ciphertext, traceparent: String::new() };
        Ok(Response::new(ex::SubmitOneResponse { acceptance: Some(self.accept(&framed)?) }))
    }
}

impl Stage {
    fn answer(&self, frame: &ex::SubmitFrame) -> Result<ex::SubmitAnswer, Status> {
        let mut answer = ex::SubmitAnswer { frame_id: frame.frame_id, ..ex::SubmitAnswer::default() };
        for (place, message) in (0u32..).zip(&frame.messages) {
            let acceptance = self.accept(message)?;
            let result = Some(submit_result::Result::Accepted(framed(&acceptance, place)));
            answer.results.push(ex::SubmitResult { result, ..Default::default() });
            answer.jws.push(acceptance.jws);
        }
        Ok(answer)
    }

    /// Notes what was said, and agrees to all of it.
    fn settle(&self, request: ex::ReceiveRequest) -> Vec<ex::SettlementAnswer> {
        let mut answers = Vec::new();
        for settlement in request.settlements {
            let delivery_id = settlement.delivery_id;
            let retry = matches!(settlement.outcome, Some(ex::settlement::Outcome::Retry(_)));
            if let Some(outcome) = settlement.outcome {
                self.note(|state| state.said.push(Said { delivery_id, outcome }));
            }
            answers.push(ex::SettlementAnswer { delivery_id, refused: None, retry });
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::Draft;

    #[tokio::test]
    async fn a_liar_takes_whatever_a_hand_made_peer_sends() {
        let network = Network::builder().played(&["caritas", "inps"]).prepare().unwrap();
        let liar = Liar::start(&network, GATEWAY).await.unwrap();
        let (peer, pen) = (network.peer("caritas").await.unwrap(), network.pki.pen("caritas").unwrap());
        let draft = Draft::blind("caritas", "inps");
        let acceptance = peer.submit(draft.signed(&pen).unwrap()).await.unwrap();
        assert!(String::from_utf8_lossy(&acceptance.json).contains(draft.id()));
        assert_eq!(liar.takes(1).await.unwrap()[0].key_id(), "blind-1");
    }
}
