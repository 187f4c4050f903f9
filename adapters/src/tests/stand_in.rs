//! A stand-in for the gateway: serves Directory and Exchange over real mutual TLS, accepts everything, and does what a test tells it,
//! lies included. It keeps nothing on a disk.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use tramite_certs::{
    identity::{Peer, Role},
    limits::Limits,
    listen::Listener,
    secrets::{self, LoadedSigner},
    tls::{ServerTls, TlsFiles},
};
use tramite_proto::{
    batch::{self, Framer},
    clock::Clock as _,
    ids::{Digest, MessageId},
    pb::{
        directory::v1::{self as dir, directory_server},
        exchange::v1::{self as ex, exchange_server},
        statement::v1::{SealedMessage, Statement},
    },
    reason::{Reason, Refused},
    statement::{Event, Evidence, Origin},
};

use super::network::{Network, PATIENCE};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// How it answers a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Accept,
    /// An acceptance of another message.
    AcceptAnother,
    /// An acceptance that an institution signed.
    AcceptByMember,
    /// A refusal for good.
    Refuse(Reason),
    /// A refusal in more words than a store takes.
    Babble(Reason),
}

/// What becomes of calls of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    Served,
    Refused,
    /// Nothing is read or said before that changes.
    Unheard,
}

pub(super) struct StandIn {
    pub(super) address: SocketAddr,
    pub(super) state: Arc<State>,
    requests: mpsc::Receiver<(String, ex::ReceiveRequest)>,
    _stop: DropGuard,
}

pub(super) struct State {
    pub(super) gateway: LoadedSigner,
    pub(super) member: LoadedSigner,
    network: tramite_proto::clock::ManualClock,
    pub(super) keys: Mutex<BTreeMap<String, Vec<Statement>>>,
    pub(super) submitted: Mutex<Vec<SealedMessage>>,
    pub(super) answer: Mutex<Answer>,
    receivers: Mutex<HashMap<String, mpsc::Sender<Result<ex::ReceiveFrame, Status>>>>,
    requests: mpsc::Sender<(String, ex::ReceiveRequest)>,
    pub(super) parts: Mutex<HashMap<(String, u32), Vec<u8>>>,
    /// The directory gives no list.
    pub(super) no_list: AtomicBool,
    /// What it does with the calls of each kind.
    pub(super) put_part: watch::Sender<Calls>,
    pub(super) get_part: watch::Sender<Calls>,
    pub(super) submit: watch::Sender<Calls>,
    /// The next frame is read and never answered.
    pub(super) loses_frame: AtomicBool,
}

impl StandIn {
    pub(super) async fn start(network: &Network) -> Self {
        let domain: tramite_certs::identity::TrustDomain = "tramite.example".parse().expect("a domain");
        let clock = Arc::new(network.clock.clone());
        let tls = ServerTls::load(TlsFiles::in_bundle(&network.path("gateway")), domain.clone(), clock).expect("tls");
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), tls, Limits::default(), Arc::new(()));
        let listener = listener.await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let signer = |name: &str, role| {
            let folder = network.path(name);
            secrets::load_signing(&folder.join("sign.pem"), &folder.join("sign.key"), &domain, role, name)
                .expect("a signer")
        };
        let (sender, requests) = mpsc::channel(256);
        let state = Arc::new(State {
            gateway: signer("gateway", Role::Gateway),
            member: signer("comune", Role::Institution),
            network: network.clock.clone(),
            keys: Mutex::default(),
            submitted: Mutex::default(),
            answer: Mutex::new(Answer::Accept),
            receivers: Mutex::default(),
            requests: sender,
            parts: Mutex::default(),
            no_list: AtomicBool::new(false),
            put_part: watch::Sender::new(Calls::Served),
            get_part: watch::Sender::new(Calls::Served),
            submit: watch::Sender::new(Calls::Served),
            loses_frame: AtomicBool::new(false),
        });
        let stop = CancellationToken::new();
        let incoming = listener.incoming(&stop);
        let (directory, exchange) = (Service(Arc::clone(&state)), Service(Arc::clone(&state)));
        let server = Server::builder()
            .add_service(directory_server::DirectoryServer::new(directory))
            .add_service(exchange_server::ExchangeServer::new(exchange));
        tokio::spawn(server.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()));
        Self { address, state, requests, _stop: stop.drop_guard() }
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Sends a frame to an institution, once it is connected.
    pub(super) async fn send(&self, to: &str, frame: ex::ReceiveFrame) {
        let open =
            async || self.state.receivers.lock().expect("lock").get(to).filter(|open| !open.is_closed()).cloned();
        super::network::until(open).await.send(Ok(frame)).await.expect("the adapter listens");
    }

    /// The next settlement of an institution.
    pub(super) async fn settlement(&mut self, of: &str) -> (Option<Statement>, ex::settlement::Outcome) {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.requests.recv()).await.expect("in time");
            let (from, request) = next.expect("the service lives");
            let Some(settlement) = request.settlements.into_iter().next().filter(|_| from == of) else { continue };
            let outcome = settlement.outcome.expect("an outcome");
            let receipt = match &outcome {
                ex::settlement::Outcome::Receipt(framed) => {
                    Some(batch::unframe(&request.jws, framed.clone()).expect("framed"))
                }
                _ => None,
            };
            return (receipt, outcome);
        }
    }

    /// Ends an institution's stream.
    pub(super) fn hang_up(&self, on: &str) {
        self.state.receivers.lock().expect("lock").remove(on);
    }

    /// Waits for the n-th message that was submitted, from 0.
    pub(super) async fn message(&self, n: usize) -> SealedMessage {
        super::network::until(async || self.state.submitted.lock().expect("lock").get(n).cloned()).await
    }

    pub(super) fn answer(&self, answer: Answer) {
        *self.state.answer.lock().expect("lock") = answer;
    }
}

impl State {
    /// The gateway's word about a message.
    pub(super) fn evidence(&self, event: Event, origin: &Origin, json: &[u8]) -> Evidence {
        Evidence {
            jti: MessageId::new(self.network.now_ms(), crate::Entropy::of_the_system().random()),
            iss: "gateway".parse().expect("a name"),
            evt: event,
            mid: origin.jti,
            org_s256: Digest::of(json),
            from: origin.iss.clone(),
            to: origin.aud.clone(),
            case: origin.case,
            at: self.network.now_s(),
            rsn: None,
            rcp_s256: None,
            peer_s256: (event == Event::SubmissionAcceptance).then(|| Digest::of(b"certificate")),
        }
    }

    pub(super) fn sign(&self, by: &LoadedSigner, json: Bytes) -> Statement {
        batch::sign(&by.signer, self.network.now_s(), &[json]).expect("signed").remove(0)
    }

    pub(super) fn acceptance(&self, message: &SealedMessage) -> Statement {
        let json = &message.origin.as_ref().expect("an origin").json;
        let origin = Origin::parse(json).expect("an origin");
        self.sign(&self.gateway, self.evidence(Event::SubmissionAcceptance, &origin, json).to_json())
    }

    /// Where a message stands in its order, as it came last.
    pub(super) fn place(&self, origin: &[u8]) -> u64 {
        let submitted = self.submitted.lock().expect("lock");
        let is_it = |message: &SealedMessage| message.origin.as_ref().expect("an origin").json == origin;
        submitted.iter().rposition(is_it).map_or(0, |index| 100 + 10 * index as u64)
    }

    fn result(&self, message: &SealedMessage, framer: &mut Framer) -> ex::SubmitResult {
        let json = message.origin.as_ref().expect("an origin").json.clone();
        let origin = Origin::parse(&json).expect("an origin");
        let evidence = self.evidence(Event::SubmissionAcceptance, &origin, &json);
        let accepted =
            |statement: Statement, framer: &mut Framer| ex::submit_result::Result::Accepted(framer.frame(&statement));
        let answer = *self.answer.lock().expect("lock");
        let result = match answer {
            Answer::Accept => accepted(self.sign(&self.gateway, evidence.to_json()), framer),
            Answer::AcceptAnother => {
                let other = Evidence { mid: evidence.jti, ..evidence };
                accepted(self.sign(&self.gateway, other.to_json()), framer)
            }
            Answer::AcceptByMember => accepted(self.sign(&self.member, evidence.to_json()), framer),
            Answer::Refuse(reason) => ex::submit_result::Result::Refused(Refused::because(reason).to_refusal()),
            Answer::Babble(reason) => {
                ex::submit_result::Result::Refused(Refused::new(reason, "word ".repeat(2_000)).to_refusal())
            }
        };
        ex::SubmitResult { result: Some(result), sequence: self.place(&json) }
    }
}

/// A delivery in a frame of its own.
pub(super) fn delivery(id: u64, message: &SealedMessage, acceptance: Option<&Statement>) -> ex::ReceiveFrame {
    let mut framer = Framer::new();
    let framed = ex::FramedMessage {
        origin: message.origin.as_ref().map(|origin| framer.frame(origin)),
        enc: message.enc.clone(),
        ciphertext: message.ciphertext.clone(),
        traceparent: String::new(),
    };
    let acceptance = acceptance.map(|statement| framer.frame(statement));
    let delivery = ex::Delivery { delivery_id: id, message: Some(framed), acceptance, attempt: 1 };
    ex::ReceiveFrame { jws: framer.into_jws(), deliveries: vec![delivery], ..Default::default() }
}

/// A settlement was taken, or not.
pub(super) fn answered(delivery_id: u64, refused: Option<Reason>) -> ex::ReceiveFrame {
    let refused = refused.map(|reason| Refused::because(reason).to_refusal());
    let answer = ex::SettlementAnswer { delivery_id, refused, retry: false };
    ex::ReceiveFrame { settled: vec![answer], ..Default::default() }
}

/// A delivery was put off.
pub(super) fn put_off(delivery_id: u64) -> ex::ReceiveFrame {
    let answer = ex::SettlementAnswer { delivery_id, refused: None, retry: true };
    ex::ReceiveFrame { settled: vec![answer], ..Default::default() }
}

/// A notice in a frame of its own.
pub(super) fn notice(id: u64, mid: &str, evidence: &Statement, receipt: Option<&Statement>) -> ex::ReceiveFrame {
    notice_at(0, id, mid, evidence, receipt)
}

/// The same, of what stands there in the gateway's order.
pub(super) fn notice_at(
    sequence: u64,
    id: u64,
    mid: &str,
    evidence: &Statement,
    receipt: Option<&Statement>,
) -> ex::ReceiveFrame {
    let mut framer = Framer::new();
    let evidence = Some(framer.frame(evidence));
    let receipt = receipt.map(|receipt| framer.frame(receipt));
    let message_id = mid.to_owned();
    let notice = ex::Notice { delivery_id: id, message_id, receipt, evidence, attempt: 1, sequence };
    ex::ReceiveFrame { jws: framer.into_jws(), notices: vec![notice], ..Default::default() }
}

#[derive(Clone)]
struct Service(Arc<State>);

/// Waits until calls are heard.
async fn heard(calls: &watch::Sender<Calls>) -> Result<(), Status> {
    match *calls.subscribe().wait_for(|calls| *calls != Calls::Unheard).await.expect("it lives") {
        Calls::Refused => Err(Status::unavailable("not today")),
        _ => Ok(()),
    }
}

fn caller<T>(request: &Request<T>) -> String {
    request.extensions().get::<Arc<Peer>>().expect("a peer").name().to_string()
}

impl Service {
    fn institution(&self, name: &str) -> dir::Institution {
        let mut keys = self.0.keys.lock().expect("lock").get(name).cloned().unwrap_or_default();
        keys.reverse();
        dir::Institution { name: name.to_owned(), display_name: name.to_uppercase(), keys, ..Default::default() }
    }
}

#[tonic::async_trait]
impl directory_server::Directory for Service {
    async fn list_institutions(
        &self,
        _: Request<dir::ListInstitutionsRequest>,
    ) -> Result<Response<dir::ListInstitutionsResponse>, Status> {
        if self.0.no_list.load(Ordering::Relaxed) {
            return Err(Status::unavailable("no list today"));
        }
        let names: Vec<String> = self.0.keys.lock().expect("lock").keys().cloned().collect();
        let institutions = names.iter().map(|name| self.institution(name)).collect();
        let gateway_chain = self.0.gateway.chain.iter().map(|der| Bytes::copy_from_slice(der)).collect();
        Ok(Response::new(dir::ListInstitutionsResponse { institutions, gateway_chain }))
    }

    async fn get_institution(
        &self,
        request: Request<dir::GetInstitutionRequest>,
    ) -> Result<Response<dir::GetInstitutionResponse>, Status> {
        let name = request.into_inner().name;
        if name == "nobody" {
            return Err(Refused::because(Reason::UnknownInstitution).to_status());
        }
        Ok(Response::new(dir::GetInstitutionResponse { institution: Some(self.institution(&name)) }))
    }

    async fn publish_key(
        &self,
        request: Request<dir::PublishKeyRequest>,
    ) -> Result<Response<dir::PublishKeyResponse>, Status> {
        let name = caller(&request);
        let key = request.into_inner().key.expect("a key");
        let mut keys = self.0.keys.lock().expect("lock");
        let known = keys.entry(name).or_default();
        let published = !known.contains(&key);
        if published {
            known.push(key);
        }
        Ok(Response::new(dir::PublishKeyResponse { published }))
    }
}

#[tonic::async_trait]
impl exchange_server::Exchange for Service {
    type SubmitStream = Answers<ex::SubmitAnswer>;
    type ReceiveStream = Answers<ex::ReceiveFrame>;
    type GetPartStream = Answers<ex::GetPartResponse>;

    async fn submit(
        &self,
        request: Request<Streaming<ex::SubmitFrame>>,
    ) -> Result<Response<Self::SubmitStream>, Status> {
        heard(&self.0.submit).await?;
        let (mut frames, state) = (request.into_inner(), Arc::clone(&self.0));
        let (out, answers) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                if state.loses_frame.swap(false, Ordering::Relaxed) {
                    continue;
                }
                let mut framer = Framer::new();
                let mut results = Vec::new();
                for message in frame.messages {
                    let origin = batch::unframe(&frame.jws, message.origin.expect("an origin")).expect("framed");
                    let message =
                        SealedMessage { origin: Some(origin), enc: message.enc, ciphertext: message.ciphertext };
                    state.submitted.lock().expect("lock").push(message.clone());
                    results.push(state.result(&message, &mut framer));
                }
                let answer = ex::SubmitAnswer { frame_id: frame.frame_id, jws: framer.into_jws(), results };
                if out.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn receive(
        &self,
        request: Request<Streaming<ex::ReceiveRequest>>,
    ) -> Result<Response<Self::ReceiveStream>, Status> {
        let name = caller(&request);
        let (out, frames) = mpsc::channel(16);
        self.0.receivers.lock().expect("lock").insert(name.clone(), out);
        let (mut stream, requests) = (request.into_inner(), self.0.requests.clone());
        tokio::spawn(async move {
            while let Ok(Some(request)) = stream.message().await {
                if requests.send((name.clone(), request)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(frames))))
    }

    async fn put_part(
        &self,
        request: Request<Streaming<ex::PutPartRequest>>,
    ) -> Result<Response<ex::PutPartResponse>, Status> {
        heard(&self.0.put_part).await?;
        let mut frames = request.into_inner();
        let mut header = None;
        let mut bytes = Vec::new();
        while let Some(frame) = frames.message().await? {
            match frame.frame.expect("a frame") {
                ex::put_part_request::Frame::Header(given) => header = Some(given),
                ex::put_part_request::Frame::Data(data) => bytes.extend_from_slice(&data),
            }
        }
        let header = header.expect("a header");
        assert_eq!(header.sha256, Digest::of(&bytes).as_bytes().as_slice(), "the digest that was announced");
        self.0.parts.lock().expect("lock").insert((header.message_id, header.part), bytes);
        Ok(Response::new(ex::PutPartResponse { stored: true }))
    }

    async fn get_part(&self, request: Request<ex::GetPartRequest>) -> Result<Response<Self::GetPartStream>, Status> {
        heard(&self.0.get_part).await?;
        let request = request.into_inner();
        let parts = self.0.parts.lock().expect("lock").clone();
        let bytes = parts.get(&(request.message_id, request.part)).cloned().unwrap_or_default();
        let offset = usize::try_from(request.offset).expect("an offset");
        // The first stream breaks off in the middle: the rest has to be asked for.
        let end = if offset == 0 { bytes.len() / 2 } else { bytes.len() };
        let frames: Vec<Result<ex::GetPartResponse, Status>> = bytes[offset..end]
            .chunks(100_000)
            .map(|data| Ok(ex::GetPartResponse { data: Bytes::copy_from_slice(data) }))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(frames))))
    }

    async fn submit_one(&self, _: Request<ex::SubmitOneRequest>) -> Result<Response<ex::SubmitOneResponse>, Status> {
        Err(Status::unimplemented("adapters stream"))
    }
}
