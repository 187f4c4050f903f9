//! Institutions that are connected, have given credit, and get nothing.

use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tramite_proto::pb::exchange::v1::ReceiveRequest;

use super::{
    client::{self, Trouble, say},
    wire::{Order, Said, Setup},
};

/// What an adapter gives.
const CREDIT: u32 = 256;

/// Connects them all, and holds the streams until standard input ends.
pub(super) async fn run(setup: Setup, mut orders: mpsc::Receiver<Order>) -> Result<(), Trouble> {
    let mut held = Vec::with_capacity(setup.idle.len());
    let mut streams = JoinSet::new();
    for name in &setup.idle {
        let (requests, requests_out) = mpsc::channel(1);
        let first = ReceiveRequest { credit: CREDIT, ..ReceiveRequest::default() };
        // There is room: nothing was sent yet.
        drop(requests.send(first).await);
        let mut client = client::exchange(&setup.folder, name, &setup.address)?;
        let frames = client.receive(ReceiverStream::new(requests_out)).await;
        let mut frames = frames.map_err(|status| Trouble::status("a stream of an idle one", &status))?.into_inner();
        held.push(requests);
        streams.spawn(async move { frames.message().await.map(|frame| frame.is_some()) });
        if held.len() % 50 == 0 {
            say(&Said::Progress { count: held.len() as u64 });
        }
    }
    say(&Said::Ready { address: String::new() });
    loop {
        tokio::select! {
            order = orders.recv() => if order.is_none() { return Ok(()) },
            Some(ended) = streams.join_next() => {
                return Err(match ended {
                    Ok(Ok(true)) => Trouble::new("an idle institution got something".to_owned()),
                    Ok(Err(status)) => Trouble::status("the stream of an idle institution", &status),
                    _ => Trouble::new("the gateway ended the stream of an idle institution".to_owned()),
                });
            }
        }
    }
}
