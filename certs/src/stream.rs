//! A peer's stream: TLS over a connection, with a deadline for its first bytes and an end that others can bring about.
//!
//! Knows the peer and when to stop. Never knows what is read or written. Invariants: after the cut every read and write fails; until
//! the HTTP/2 preface has come, a silent peer is dropped at the deadline; a peer that takes nothing of what is written is dropped, too.
use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tokio_rustls::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::{
    farewell::{Farewell, Farewells},
    identity::Peer,
    limits::{PREFACE_LEN, STALL_MAX},
    network::Socket,
    refusal::Refusal,
    registry::Slot,
};

/// What a stream holds for as long as it lives.
pub(crate) enum Keep {
    /// Its place at the listener.
    Slot(Slot),
    /// The watch over it at the dialling side, which ends with it.
    Watch(#[expect(dead_code, reason = "held for its drop")] DropGuard),
}

/// An open connection to a peer whose certificate was verified.
pub struct PeerStream {
    io: TlsStream<Socket>,
    peer: Arc<Peer>,
    cut: CancellationToken,
    until_cut: Pin<Box<WaitForCancellationFutureOwned>>,
    first: Option<First>,
    /// Since nothing can be written: by when it must.
    stalled: Option<Pin<Box<Sleep>>>,
    keep: Keep,
    /// At the dialling side, until the server has said anything.
    unheard: Option<Farewells>,
}

/// The wait for the preface.
struct First {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl PeerStream {
    pub(crate) fn new(
        io: TlsStream<Socket>,
        peer: Arc<Peer>,
        cut: CancellationToken,
        first_bytes: Option<Duration>,
        keep: Keep,
    ) -> Self {
        let first =
            first_bytes.map(|within| First { missing: PREFACE_LEN, deadline: Box::pin(tokio::time::sleep(within)) });
        Self {
            io,
            peer,
            until_cut: Box::pin(cut.clone().cancelled_owned()),
            cut,
            first,
            stalled: None,
            keep,
            unheard: None,
        }
    }

    /// Tells how the server ends the connection, if it does before it says anything.
    pub(crate) fn telling(mut self, farewells: Farewells) -> Self {
        self.unheard = Some(farewells);
        self
    }

    /// The first thing that came from the server, or its end.
    fn heard(&mut self, farewell: Option<Farewell>) {
        if let Some(farewells) = self.unheard.take() {
            farewells.note(farewell);
        }
    }

    /// What can be written no more may have been answered by an alert that nobody has read yet.
    fn hear_out(&mut self, cx: &mut Context<'_>) {
        if self.unheard.is_none() {
            return;
        }
        let mut byte = [0; 1];
        match Pin::new(&mut self.io).poll_read(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Err(error)) => self.heard(Some(Farewell::of_io(&error))),
            Poll::Ready(Ok(())) | Poll::Pending => self.heard(Some(Farewell::Closed)),
        }
    }

    /// Looks at what became of a write, which may not wait for ever.
    fn wrote<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match result {
            Poll::Ready(Ok(_)) => self.stalled = None,
            Poll::Ready(Err(_)) => self.hear_out(cx),
            Poll::Pending => return self.poll_stalled(cx).map(Err),
        }
        result
    }

    /// hyper reads nothing while it cannot write: then the cut must be seen here, too.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.until_cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(aborted());
        }
        let deadline = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL_MAX)));
        std::task::ready!(deadline.as_mut().poll(cx));
        tracing::warn!(peer = %self.peer, "connection ended: the peer takes nothing of what is sent to it");
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing of what is sent to it"))
    }

    /// Who it is.
    #[must_use]
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// The cipher suite and the key exchange that were agreed on, for logs.
    #[must_use]
    pub fn agreed(&self) -> String {
        let (_, tls) = self.io.get_ref();
        let group = tls.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()));
        let suite = tls.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
        format!("{} {}", group.unwrap_or_default(), suite.unwrap_or_default())
    }

    /// Counts what came of the preface.
    fn came(&mut self, bytes: usize) {
        if let Some(first) = &mut self.first {
            first.missing = first.missing.saturating_sub(bytes);
            // Nothing is the end of the stream, which hyper deals with.
            if first.missing == 0 || bytes == 0 {
                self.first = None;
            }
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(first) = &mut self.first else { return Poll::Pending };
        std::task::ready!(first.deadline.as_mut().poll(cx));
        self.first = None;
        if let Keep::Slot(slot) = &self.keep {
            slot.refused(Refusal::NoFirstBytes, "no HTTP/2 preface after the handshake");
        }
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 preface in time"))
    }
}

fn aborted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the peer's certificate no longer counts")
}

impl Connected for PeerStream {
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.cut.is_cancelled() {
            return Poll::Ready(Err(aborted()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let bytes = buf.filled().len() - before;
                this.came(bytes);
                this.heard((bytes == 0).then_some(Farewell::Closed));
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                this.heard(Some(Farewell::of_io(&error)));
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                if this.until_cut.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(aborted()));
                }
                this.poll_deadline(cx).map(Err)
            }
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.cut.is_cancelled() {
            return Poll::Ready(Err(aborted()));
        }
        let result = Pin::new(&mut this.io).poll_write(cx, buf);
        this.wrote(cx, result)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_flush(cx);
        this.wrote(cx, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_shutdown(cx);
        this.wrote(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.cut.is_cancelled() {
            return Poll::Ready(Err(aborted()));
        }
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl fmt::Debug for PeerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerStream").field("peer", &self.peer).finish_non_exhaustive()
    }
}
