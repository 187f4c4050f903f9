//! A member of the network that turns on it below gRPC: floods, lies and silence in HTTP/2, with a right certificate. Its own
//! connection ends, or its stream is refused, at the limit that the listener has set; another institution is served all the while; and
//! what the attacked process holds in memory stays within what the limits allow.
//!
//! The numbers are those of `gateway/src/limits.rs` and of `adapters/src/backoffice/listener.rs`, under the same names: a listener
//! without the limit, or with a far higher one, fails here.

use std::{cell::Cell, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::{task::JoinSet, time::timeout};
use tramite_tests::{
    attack::{Player, adapter_with_office, gateway_and},
    forge::Draft,
    http2::{Seen, Wire, call, cancel, code, field, flag, frame, kind, message, setting, settings},
    network::Network,
    pki::Badge,
    witness::{Report, unharmed},
};

/// Streams of one connection.
const STREAMS_PER_CONNECTION_MAX: usize = 64;
/// Requests of one connection that run at the same time.
const REQUESTS_PER_CONNECTION_MAX: usize = 32;
/// Streams of one connection that the server resets for the client's fault.
const PROVOKED_RESETS_MAX: usize = 256;
/// Bytes of a header list.
const HEADER_LIST_BYTES_MAX: usize = 16 << 10;
/// STALL_MAX (`certs/src/limits.rs`), and room for a busy machine.
const DEAF_MAX: Duration = Duration::from_secs(120);
/// Far more than any of the limits, far less than what would take long.
const FLOOD: usize = 10_000;
/// An attack is repeated so often at least: what one leaves behind adds up.
const ROUNDS_MIN: usize = 6;
/// Frames that go out together: a TLS record is not much longer.
const TOGETHER: usize = 100;
/// The server acts on what it read; this is for a busy machine.
const ACTS_WITHIN: Duration = Duration::from_secs(20);
/// One connection holds at most its window of 2 MiB, the header lists of its 64 streams (1 MiB), and for each of its 32 requests what
/// hyper keeps to be sent (400 KiB, 12.5 MiB in all): 16 MiB with what the honest client's messages leave. Seen are 2 to 7 MiB. Without
/// limits a single flood of streams takes 187 MB.
const GROWTH_KIB: u64 = 16 << 10;
/// Four deaf peers at once hold four windows, and each the answers that it does not take; seen are 15 MiB.
const DEAF_GROWTH_KIB: u64 = 24 << 10;

const SUBMIT: &str = "/tramite.exchange.v1.Exchange/Submit";
const SUBMIT_ONE: &str = "/tramite.exchange.v1.Exchange/SubmitOne";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const GET_STATUS: &str = "/tramite.backoffice.v1.BackOffice/GetStatus";
const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// A gateway, the certificate of the member that attacks it, and an honest member.
struct Siege {
    network: Network,
    badge: Badge,
    honest: Player,
    farewells: Farewells,
}

impl Siege {
    async fn lay() -> Result<Self> {
        let (network, [honest, _caritas]) = gateway_and(["inps", "caritas"], "").await?;
        let badge = network.pki.badge("caritas")?;
        Ok(Self { network, badge, honest, farewells: Farewells::default() })
    }

    async fn wire(&self) -> Result<Wire> {
        Wire::open(&self.network.address(), &self.badge, &[]).await
    }

    /// Attacks again and again, each time on a new connection, while the other institution submits.
    async fn round_by_round(&self, mut attack: impl AsyncFnMut(Wire) -> Result<()>) -> Result<Report> {
        self.unharmed(ROUNDS_MIN, GROWTH_KIB, async || attack(self.wire().await?).await).await
    }

    async fn unharmed(
        &self,
        rounds_min: usize,
        growth_kib: u64,
        attack: impl AsyncFnMut() -> Result<()>,
    ) -> Result<Report> {
        let honest = async || {
            let message = Draft::blind("inps", "caritas").signed(&self.honest.pen)?;
            self.honest.peer.submit(message).await?;
            Ok(())
        };
        let report = unharmed(&self.network.gateway, growth_kib, rounds_min, honest, attack).await?;
        self.farewells.were_said()?;
        let panics = self.network.gateway.metrics().await?.sum("tramite_gateway_handler_panics_total", &[]);
        ensure!(panics == 0.0, "{panics} handlers panicked");
        Ok(report)
    }
}

/// How connections that were ended took their leave: most say why, and at least one must have.
#[derive(Default)]
struct Farewells {
    ended: Cell<usize>,
    told: Cell<usize>,
}

impl Farewells {
    /// Waits until a connection is ended at a limit, for the reason that h2 has for it.
    async fn of(&self, wire: &mut Wire, limit: &str, words: &str) -> Result<Seen> {
        let seen = wire.until(limit, ACTS_WITHIN, |seen| seen.ended_for(words)).await?;
        self.ended.update(|ended| ended + 1);
        self.told.update(|told| told + usize::from(seen.farewell.is_some()));
        Ok(seen)
    }

    fn were_said(&self) -> Result<()> {
        let (ended, told) = (self.ended.get(), self.told.get());
        ensure!(ended == 0 || told > 0, "{ended} connections ended, and none with a reason");
        Ok(())
    }
}

/// So many pieces of a flood, `TOGETHER` at a time.
fn pieces(count: usize, mut one: impl FnMut() -> Vec<u8>) -> impl Iterator<Item = Vec<u8>> {
    (0..count.div_ceil(TOGETHER)).map(move |_| (0..TOGETHER).flat_map(|_| one()).collect())
}

/// Streams are opened and cancelled at once (CVE-2023-44487).
async fn rapid_reset(mut wire: Wire, path: &str, farewells: &Farewells) -> Result<()> {
    let first = wire.stream();
    let streams = (first..).step_by(2);
    let block = call(path);
    let mut opened =
        streams.map(|stream| [frame(kind::HEADERS, flag::END_HEADERS, stream, &block), cancel(stream)].concat());
    wire.flood(pieces(FLOOD, || opened.next().unwrap_or_default())).await;
    farewells.of(&mut wire, "PENDING_RESETS_MAX", "too_many_resets").await?;
    Ok(())
}

/// Streams are opened and left open.
async fn stream_flood(mut wire: Wire, path: &str, farewells: &Farewells) -> Result<()> {
    let block = call(path);
    let mut opened = (wire.stream()..).step_by(2).map(|stream| frame(kind::HEADERS, flag::END_HEADERS, stream, &block));
    wire.flood(pieces(FLOOD, || opened.next().unwrap_or_default())).await;
    let limits = "STREAMS_PER_CONNECTION_MAX and PROVOKED_RESETS_MAX";
    let seen = farewells.of(&mut wire, limits, "too_many_internal_resets").await?;
    let refused = seen.resets_of(code::REFUSED_STREAM);
    ensure!((1..=PROVOKED_RESETS_MAX).contains(&refused), "PROVOKED_RESETS_MAX: {refused} refused");
    Ok(())
}

/// As many streams as are allowed and some more, on a connection that keeps to everything else.
async fn refused_beyond(wire: &mut Wire, path: &str, more: usize) -> Result<()> {
    let announced = |seen: &Seen| !seen.settings.is_empty();
    let seen = wire.until("SETTINGS", ACTS_WITHIN, announced).await?;
    let streams = seen.settings.get(&setting::MAX_CONCURRENT_STREAMS).copied();
    ensure!(streams == u32::try_from(STREAMS_PER_CONNECTION_MAX).ok(), "STREAMS_PER_CONNECTION_MAX: {streams:?}");
    let all: Vec<u8> = (0..STREAMS_PER_CONNECTION_MAX + more).flat_map(|_| wire.call(path, flag::NONE).1).collect();
    wire.send(&all).await?;
    let refused = |seen: &Seen| seen.resets_of(code::REFUSED_STREAM) == more;
    wire.until("STREAMS_PER_CONNECTION_MAX", ACTS_WITHIN, refused).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rapid_reset_ends_its_own_connection_and_nothing_else() -> Result<()> {
    let siege = Siege::lay().await?;
    siege.round_by_round(async |wire| rapid_reset(wire, SUBMIT_ONE, &siege.farewells).await).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_makes_the_gateway_reset_streams_is_shown_out() -> Result<()> {
    let siege = Siege::lay().await?;
    // The length says 5 and nothing follows; it says 1 and 6 follow; a field that HTTP/2 forbids.
    let lies: [fn(u32) -> Vec<u8>; 3] = [
        |stream| {
            let block = [call(SUBMIT_ONE), field("content-length", "5")].concat();
            frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, &block)
        },
        |stream| {
            let block = [call(SUBMIT_ONE), field("content-length", "1")].concat();
            [
                frame(kind::HEADERS, flag::END_HEADERS, stream, &block),
                frame(kind::DATA, flag::END_STREAM, stream, b"\0\0\0\0\x01x"),
            ]
            .concat()
        },
        |stream| {
            let block = [call(SUBMIT_ONE), field("connection", "close")].concat();
            frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, &block)
        },
    ];
    let mut turn = lies.iter().cycle();
    let attack = async |mut wire: Wire| {
        let (lie, first) = (turn.next().context("a cycle")?, wire.stream());
        let mut streams = (first..).step_by(2);
        wire.flood(pieces(FLOOD, || streams.next().map(lie).unwrap_or_default())).await;
        let seen = siege.farewells.of(&mut wire, "PROVOKED_RESETS_MAX", "too_many_internal_resets").await?;
        let resets = seen.resets_of(code::PROTOCOL_ERROR);
        // The last ones may not have been written before the end.
        ensure!(resets <= PROVOKED_RESETS_MAX, "PROVOKED_RESETS_MAX: {resets} resets");
        Ok(())
    };
    siege.round_by_round(attack).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_streams_is_refused_beyond_what_was_announced_and_then_shown_out() -> Result<()> {
    let siege = Siege::lay().await?;
    let mut wire = siege.wire().await?;
    refused_beyond(&mut wire, SUBMIT_ONE, 36).await?;
    // Of those that were taken, half wait for their bodies, and half are answered at once that there are too many.
    let answered = STREAMS_PER_CONNECTION_MAX - REQUESTS_PER_CONNECTION_MAX;
    let seen = wire.until("REQUESTS_PER_CONNECTION_MAX", ACTS_WITHIN, |seen| seen.ok == answered).await?;
    ensure!(!seen.ended, "{seen:?}");
    siege.round_by_round(async |wire| stream_flood(wire, SUBMIT_ONE, &siege.farewells).await).await?;
    let seen = wire.seen();
    ensure!(seen.ok == answered && !seen.ended, "REQUESTS_PER_CONNECTION_MAX: {seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_without_an_end_end_their_connection() -> Result<()> {
    let siege = Siege::lay().await?;
    let attack = async |mut wire: Wire| {
        let stream = wire.stream();
        wire.send(&frame(kind::HEADERS, flag::NONE, stream, &call(SUBMIT_ONE))).await?;
        // What fits into HEADER_LIST_BYTES_MAX needs one more frame; h2 allows five. Ten small ones are no header list of that size.
        let more = frame(kind::CONTINUATION, flag::NONE, stream, &field("x", "y"));
        wire.flood(vec![more; 10]).await;
        siege.farewells.of(&mut wire, "HEADER_LIST_BYTES_MAX", "too_many_continuations").await?;
        Ok(())
    };
    siege.round_by_round(attack).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_list_that_is_too_long_is_refused_and_a_far_longer_one_ends_its_connection() -> Result<()> {
    let siege = Siege::lay().await?;
    let attack = async |mut wire: Wire| {
        let announced = |seen: &Seen| !seen.settings.is_empty();
        let seen = wire.until("SETTINGS", ACTS_WITHIN, announced).await?;
        let bytes = seen.settings.get(&setting::MAX_HEADER_LIST_SIZE).copied();
        ensure!(bytes == u32::try_from(HEADER_LIST_BYTES_MAX).ok(), "HEADER_LIST_BYTES_MAX: {bytes:?}");
        // In two frames: each keeps to the size of a frame, the list does not to its own.
        let long = "x".repeat(HEADER_LIST_BYTES_MAX / 2 + 1_000);
        for _ in 0..40 {
            let stream = wire.stream();
            let first = frame(kind::HEADERS, flag::NONE, stream, &[call(HEALTH), field("x-1", &long)].concat());
            let second = frame(kind::CONTINUATION, flag::END_HEADERS, stream, &field("x-2", &long));
            wire.send(&[first, second, message(stream, flag::END_STREAM, b"")].concat()).await?;
        }
        // A right call behind them is answered, and it alone.
        let (stream, right) = wire.call(HEALTH, flag::NONE);
        wire.send(&[right, message(stream, flag::END_STREAM, b"")].concat()).await?;
        let seen = wire.until("HEADER_LIST_BYTES_MAX", ACTS_WITHIN, |seen| seen.ok > 0).await?;
        ensure!(seen.ok == 1 && !seen.ended, "HEADER_LIST_BYTES_MAX: {seen:?}");
        let stream = wire.stream();
        let far = "x".repeat(HEADER_LIST_BYTES_MAX - 200);
        let first = frame(kind::HEADERS, flag::NONE, stream, &[call(HEALTH)].concat());
        let more = (0..100).map(|n| frame(kind::CONTINUATION, flag::NONE, stream, &field(&format!("x-{n}"), &far)));
        wire.flood(std::iter::once(first).chain(more)).await;
        wire.until("HEADER_LIST_BYTES_MAX", ACTS_WITHIN, |seen| seen.ended).await?;
        Ok(())
    };
    siege.round_by_round(attack).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_settings_and_pings_cost_nobody_else_anything() -> Result<()> {
    let siege = Siege::lay().await?;
    let attack = async |mut wire: Wire| {
        // No limit of ours: h2 answers each before it reads the next, so that nothing gathers.
        let window = settings(&[(setting::INITIAL_WINDOW_SIZE, 65_535)]);
        wire.flood(pieces(FLOOD, || window.clone())).await;
        wire.flood(pieces(FLOOD, || frame(kind::PING, flag::NONE, 0, b"a flood!"))).await;
        let all = |seen: &Seen| seen.settings_acked > FLOOD && seen.pings_answered >= FLOOD;
        wire.until("every SETTINGS and PING answered", ACTS_WITHIN, all).await?;
        let (stream, right) = wire.call(HEALTH, flag::NONE);
        wire.send(&[right, message(stream, flag::END_STREAM, b"")].concat()).await?;
        wire.until("a right call behind them", ACTS_WITHIN, |seen| seen.ok == 1).await?;
        Ok(())
    };
    siege.round_by_round(attack).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_empty_data_ends_its_own_connection() -> Result<()> {
    let siege = Siege::lay().await?;
    let mut sizes = [0_usize, 1].iter().cycle();
    let attack = async |mut wire: Wire| {
        let (stream, opened) = wire.call(SUBMIT, flag::NONE);
        wire.send(&opened).await?;
        let data = vec![0; *sizes.next().context("a cycle")?];
        wire.flood(pieces(FLOOD, || frame(kind::DATA, flag::NONE, stream, &data))).await;
        siege.farewells.of(&mut wire, "h2's budget for small frames", "too_many_data_frames").await?;
        Ok(())
    };
    siege.round_by_round(attack).await?;
    Ok(())
}

/// Asks for the contracts of the exchange, which are longer than anything else that is answered so cheaply.
fn asks_for_contracts(stream: u32) -> Vec<u8> {
    let symbol = b"tramite.exchange.v1.Exchange";
    let file_containing_symbol = [&[0x22, u8::try_from(symbol.len()).unwrap_or_default()][..], symbol].concat();
    message(stream, flag::NONE, &file_containing_symbol)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_do_not_gather() -> Result<()> {
    let siege = Siege::lay().await?;
    let closed = [(setting::INITIAL_WINDOW_SIZE, 0)];
    let attack = async |wire: Wire| {
        drop(wire);
        let mut wire = Wire::open(&siege.network.address(), &siege.badge, &closed).await?;
        for _ in 0..REQUESTS_PER_CONNECTION_MAX {
            let (stream, opened) = wire.call(REFLECTION, flag::NONE);
            wire.send(&opened).await?;
            wire.flood((0..20).map(|_| asks_for_contracts(stream))).await;
        }
        let begun = |seen: &Seen| seen.ok == REQUESTS_PER_CONNECTION_MAX;
        let seen = wire.until("answers that begin", ACTS_WITHIN, begun).await?;
        ensure!(seen.data == 0, "more than the window: {seen:?}");
        Ok(())
    };
    siege.round_by_round(attack).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_reads_is_let_go() -> Result<()> {
    let siege = Siege::lay().await?;
    // Asks and pings and reads nothing: the answers stand in the sockets' buffers, and behind them the server reads no more.
    let attack = async || {
        let mut deaf = JoinSet::new();
        for _ in 0..4 {
            let mut wire = Wire::deaf(&siege.network.address(), &siege.badge, &[]).await?;
            let (stream, opened) = wire.call(REFLECTION, flag::NONE);
            wire.send(&[opened, asks_for_contracts(stream)].concat()).await?;
            let endless = std::iter::repeat_with(|| frame(kind::PING, flag::NONE, 0, b"a flood!").repeat(TOGETHER));
            // Ends when the server has ended the connection.
            deaf.spawn(async move { wire.flood(endless).await });
        }
        let gone = timeout(DEAF_MAX, deaf.join_all()).await;
        gone.context("STALL_MAX: they are still connected")?;
        Ok(())
    };
    siege.unharmed(1, DEAF_GROWTH_KIB, attack).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_back_office_that_floods_its_adapter_ends_its_own_connection_and_nothing_else() -> Result<()> {
    let (network, port) = adapter_with_office("caritas", &["inps"]).await?;
    let (badge, desk) = (network.pki.badge("caritas")?, network.desk("caritas")?);
    let mut polite = Wire::open(&port.address(), &badge, &[]).await?;
    refused_beyond(&mut polite, GET_STATUS, 36).await?;
    let (farewells, mut flood) = (Farewells::default(), [false, true].into_iter().cycle());
    let attack = async || {
        let wire = Wire::open(&port.address(), &badge, &[]).await?;
        match flood.next() {
            Some(true) => stream_flood(wire, GET_STATUS, &farewells).await,
            _ => rapid_reset(wire, GET_STATUS, &farewells).await,
        }
    };
    let honest = async || {
        desk.status().await?;
        Ok(())
    };
    unharmed(network.adapter("caritas")?, GROWTH_KIB, ROUNDS_MIN, honest, attack).await?;
    farewells.were_said()?;
    ensure!(!polite.seen().ended, "{:?}", polite.seen());
    Ok(())
}
