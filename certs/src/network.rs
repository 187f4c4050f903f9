//! The network, as far as connections need one: the seam between TLS and the system's sockets.
//!
//! Knows: how to listen at an address, and how to reach one. Never knows who is there: TLS says that, over whatever network, so a
//! simulated one proves an identity exactly as the system's does. What it gives is a stream of bytes in order, or an error.
use std::{fmt::Debug, io, net::SocketAddr, pin::Pin, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    net::{TcpListener, TcpStream},
};

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// An open connection, before anybody has said who he is.
pub type Socket = Box<dyn Duplex>;

/// What comes of an operation.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// Where connections come from.
pub trait Network: Send + Sync + Debug {
    /// Dials `host:port`.
    fn connect<'a>(&'a self, address: &'a str) -> Pending<'a, Socket>;
    /// Listens at an address; port 0 lets the network choose.
    fn bind(&self, address: SocketAddr) -> Pending<'_, Box<dyn Port>>;
}

/// An address that is listened at.
pub trait Port: Send + Sync {
    /// Which.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// The next who dials it, and from where.
    fn accept(&self) -> Pending<'_, (Socket, SocketAddr)>;
}

/// Taken from a socket at once: TLS itself asks for 4 KiB at a time, which is a call of the system for each message.
const READ_BYTES: usize = 64 * 1024;

/// TCP of the system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Tcp {
    /// For everybody who is given a network.
    #[must_use]
    pub fn shared() -> Arc<dyn Network> {
        Arc::new(Self)
    }
}

impl Network for Tcp {
    fn connect<'a>(&'a self, address: &'a str) -> Pending<'a, Socket> {
        Box::pin(async move {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            Ok(Box::new(BufReader::with_capacity(READ_BYTES, socket)) as Socket)
        })
    }

    fn bind(&self, address: SocketAddr) -> Pending<'_, Box<dyn Port>> {
        Box::pin(async move { Ok(Box::new(TcpListener::bind(address).await?) as Box<dyn Port>) })
    }
}

impl Port for TcpListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }

    fn accept(&self) -> Pending<'_, (Socket, SocketAddr)> {
        Box::pin(async move {
            let (socket, remote) = Self::accept(self).await?;
            // Without it, small frames wait for the peer's delayed acknowledgement: 23 calls a second instead of 5,000. It fails
            // only on a connection that is gone.
            socket.set_nodelay(true).map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, error))?;
            Ok((Box::new(BufReader::with_capacity(READ_BYTES, socket)) as Socket, remote))
        })
    }
}
