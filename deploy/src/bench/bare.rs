//! The limit of the transport: the same frames over the same mutual TLS, to a server that answers each at once and looks at nothing.
//!
//! It speaks the exchange's own `Submit`, and `PutPart` for contents that travel as parts, so that sizes, encodings and settings are
//! those of the real thing; an answer is as large as a real one.

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::{sync::mpsc, task::JoinSet, time::sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};
use tramite_certs::{
    connect::{CONNECTION_WINDOW, STREAM_WINDOW},
    limits::Limits,
    listen::Listener,
    tls::{ServerTls, TlsFiles},
};
use tramite_proto::{
    clock::SystemClock,
    ids::InstitutionName,
    pb::{
        exchange::v1::{
            FramedMessage, GetPartRequest, GetPartResponse, PutPartRequest, PutPartResponse, ReceiveFrame,
            ReceiveRequest, SubmitAnswer, SubmitFrame, SubmitOneRequest, SubmitOneResponse, SubmitResult,
            exchange_server::{Exchange, ExchangeServer},
            submit_result,
        },
        statement::v1::FramedStatement,
    },
};

use super::{
    client::{self, Trouble, say},
    letter::Letter,
    network::{GATEWAY, SENDER, TRUST_DOMAIN},
    part::Part,
    time::{instant, now_ns},
    wire::{Load, Order, Said, Sent, Setup, Window},
};

/// As a gateway's acceptance: its JSON, its batch, the elements of its path.
const JSON: usize = 420;
const JWS: usize = 480;
/// Frames that wait for the line.
const AHEAD: usize = 1_024;
/// The largest frame.
const FRAME_MAX: usize = 8 << 20;

/// Answers at once.
struct Echo;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Exchange for Echo {
    type SubmitStream = Answers<SubmitAnswer>;
    type ReceiveStream = Answers<ReceiveFrame>;
    type GetPartStream = Answers<GetPartResponse>;

    async fn submit(&self, request: Request<Streaming<SubmitFrame>>) -> Result<Response<Self::SubmitStream>, Status> {
        let json = Bytes::from(vec![b'x'; JSON]);
        let hash = Bytes::from(vec![b'x'; 32]);
        let answers = request.into_inner().map(move |frame| {
            let frame = frame?;
            let path = vec![hash.clone(); frame.messages.len().next_power_of_two().trailing_zeros() as usize];
            let one = || {
                let framed = FramedStatement { json: json.clone(), jws_index: 0, index: 0, path: path.clone() };
                SubmitResult { result: Some(submit_result::Result::Accepted(framed)), ..SubmitResult::default() }
            };
            let results = frame.messages.iter().map(|_| one()).collect();
            Ok(SubmitAnswer { frame_id: frame.frame_id, jws: vec!["x".repeat(JWS)], results })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn receive(&self, _: Request<Streaming<ReceiveRequest>>) -> Result<Response<Self::ReceiveStream>, Status> {
        Err(Status::unimplemented("the bare stream only answers"))
    }

    async fn put_part(&self, request: Request<Streaming<PutPartRequest>>) -> Result<Response<PutPartResponse>, Status> {
        let mut frames = request.into_inner();
        while frames.message().await?.is_some() {}
        Ok(Response::new(PutPartResponse { stored: true }))
    }

    async fn get_part(&self, _: Request<GetPartRequest>) -> Result<Response<Self::GetPartStream>, Status> {
        Err(Status::unimplemented("the bare stream only answers"))
    }

    async fn submit_one(&self, _: Request<SubmitOneRequest>) -> Result<Response<SubmitOneResponse>, Status> {
        Err(Status::unimplemented("the bare stream only answers"))
    }
}

/// Serves until standard input ends.
pub(super) async fn serve(setup: Setup, mut orders: mpsc::Receiver<Order>) -> Result<(), Trouble> {
    let domain = TRUST_DOMAIN.parse().map_err(|error| Trouble::of("the trust domain", &error))?;
    let files = TlsFiles::in_bundle(&setup.folder.join(GATEWAY));
    let tls = ServerTls::load(files, domain, Arc::new(SystemClock)).map_err(|error| Trouble::of("TLS", &error))?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Listener::bind(any, tls, Limits::default(), Arc::new(())).await;
    let listener = listener.map_err(|error| Trouble::of("listening", &error))?;
    let address = listener.local_addr().map_err(|error| Trouble::of("listening", &error))?;
    let stop = CancellationToken::new();
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .add_service(ExchangeServer::new(Echo).max_decoding_message_size(FRAME_MAX))
        .serve_with_incoming(listener.incoming(&stop));
    say(&Said::Ready { address: address.to_string() });
    tokio::pin!(server);
    loop {
        tokio::select! {
            ended = &mut server => return ended.map_err(|error| Trouble::of("the bare stream", &error)),
            order = orders.recv() => if order.is_none() { return Ok(()) },
        }
    }
}

/// Loads the bare stream for a window.
pub(super) async fn load(
    setup: &Setup,
    address: &str,
    window: Window,
    load: Load,
    letters: &[Letter],
) -> Result<Sent, Trouble> {
    let (frames, frames_out) = mpsc::channel(AHEAD);
    let mut client = client::exchange(&setup.folder, SENDER, address)?;
    let answers = client.submit(ReceiverStream::new(frames_out)).await;
    let mut answers = answers.map_err(|status| Trouble::status("the bare stream", &status))?.into_inner();
    let epoch = setup.epoch();
    let (mut sent, mut unanswered) = (Sent::default(), std::collections::VecDeque::new());
    let count = load.frame;
    let mut letters = letters.iter().cycle();
    sleep_until(instant(window.begin_ns)).await;
    loop {
        let now = now_ns();
        // While there is room on the line: waiting for it before any answer is read, both sides would wait for ever.
        while now < window.end_ns
            && sent.submitted - sent.acknowledged + count <= load.in_flight
            && frames.capacity() > 0
        {
            let (at_ns, frame_id) = (now_ns(), sent.submitted);
            let messages = (frame_id..frame_id + count).zip(&mut letters).map(|(number, letter)| {
                let json = letter.write(
                    &epoch.message(at_ns, number),
                    &epoch.conversation(at_ns, number),
                    epoch.unix_s(at_ns),
                );
                framed(letter, json, count)
            });
            let frame = SubmitFrame { frame_id, jws: vec!["x".repeat(JWS)], messages: messages.collect() };
            sent.submitted += count;
            unanswered.push_back(at_ns);
            if frames.send(frame).await.is_err() {
                return Err(Trouble::new("the bare stream ended".to_owned()));
            }
        }
        let Some(submitted_ns) = unanswered.pop_front() else { return Ok(sent) };
        let answer = answers.message().await.map_err(|status| Trouble::status("the bare stream", &status))?;
        let answer = answer.ok_or_else(|| Trouble::new("the bare stream ended".to_owned()))?;
        let now = now_ns();
        let answered = answer.results.len() as u64;
        sent.acknowledged += answered;
        if window.counts(now) {
            sent.window += answered;
            (0..answered).for_each(|_| sent.acknowledgement.record(now.saturating_sub(submitted_ns)));
        }
    }
}

/// Loads it with parts instead: one call for each, as many at a time as the load says.
pub(super) async fn put(
    setup: &Setup,
    address: &str,
    window: Window,
    load: Load,
    part: &Part,
) -> Result<Sent, Trouble> {
    let client = client::exchange(&setup.folder, SENDER, address)?;
    let to: InstitutionName = GATEWAY.parse().map_err(|error| Trouble::of("the gateway's name", &error))?;
    let (epoch, carried) = (setup.epoch(), Arc::new(AtomicU64::new(0)));
    let (mut sent, mut puts) = (Sent::default(), JoinSet::new());
    sleep_until(instant(window.begin_ns)).await;
    loop {
        while now_ns() < window.end_ns && sent.submitted - sent.acknowledged < load.in_flight {
            let (at_ns, carried) = (now_ns(), Arc::clone(&carried));
            let passed = move |bytes| {
                if window.counts(now_ns()) {
                    carried.fetch_add(bytes, Ordering::Relaxed);
                }
            };
            let put = part.clone().put(client.clone(), epoch.message(at_ns, sent.submitted), to.clone(), passed);
            puts.spawn(async move { put.await.map(|()| at_ns) });
            sent.submitted += 1;
        }
        let Some(put) = puts.join_next().await else { break };
        let begun_ns = put.map_err(|error| Trouble::of("the bare stream", &error))??;
        let now = now_ns();
        sent.acknowledged += 1;
        if window.counts(now) {
            sent.window += 1;
            sent.acknowledgement.record(now.saturating_sub(begun_ns));
        }
    }
    sent.window_bytes = carried.load(Ordering::Relaxed);
    Ok(sent)
}

/// A message as the gateway gets it, with a proof of the same size that proves nothing.
fn framed(letter: &Letter, json: Bytes, count: u64) -> FramedMessage {
    let hash = Bytes::from_static(&[b'x'; 32]);
    let path = vec![hash; count.next_power_of_two().trailing_zeros() as usize];
    FramedMessage {
        origin: Some(FramedStatement { json, jws_index: 0, index: 0, path }),
        enc: letter.enc.clone(),
        ciphertext: letter.ciphertext.clone(),
        traceparent: String::new(),
    }
}
