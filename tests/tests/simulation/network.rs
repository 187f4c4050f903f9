//! The simulated network as the product sees it: turmoil's TCP behind the seam of `tramite_certs`. TLS runs over it, so that every
//! identity in the simulation is proved by a certificate, as everywhere.

use std::{io, net::SocketAddr, sync::Arc};

use tramite_certs::network::{Network, Pending, Port, Socket};
use turmoil::net::{TcpListener, TcpStream};

/// The network of the current simulation.
#[derive(Debug)]
struct Simulated;

/// A listener on it.
struct SimulatedPort(TcpListener);

pub(crate) fn simulated() -> Arc<dyn Network> {
    Arc::new(Simulated)
}

impl Network for Simulated {
    fn connect<'a>(&'a self, address: &'a str) -> Pending<'a, Socket> {
        Box::pin(async move { Ok(Box::new(TcpStream::connect(address).await?) as Socket) })
    }

    fn bind(&self, address: SocketAddr) -> Pending<'_, Box<dyn Port>> {
        Box::pin(async move { Ok(Box::new(SimulatedPort(TcpListener::bind(address).await?)) as Box<dyn Port>) })
    }
}

impl Port for SimulatedPort {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn accept(&self) -> Pending<'_, (Socket, SocketAddr)> {
        Box::pin(async move {
            let (stream, remote) = self.0.accept().await?;
            Ok((Box::new(stream) as Socket, remote))
        })
    }
}
