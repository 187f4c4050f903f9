//! Messages with a part: the part is put first, and the message submitted when it is there.
//!
//! Invariant: a message counts as in flight, and its time runs, from the first frame of its part.

use bytes::Bytes;
use tramite_proto::pb::exchange::v1::FramedMessage;

use super::Sender;
use crate::bench::{client::Trouble, part::Part, time::now_ns};

/// A message whose part is at the gateway.
#[derive(Debug)]
pub(super) struct Ready {
    number: u64,
    json: Bytes,
    message: FramedMessage,
}

impl Sender {
    /// Writes the next message, and begins to put its part.
    pub(super) fn put(&mut self, part: Part) -> Result<(), Trouble> {
        let (at_ns, number) = (now_ns(), self.next);
        let (json, message) = self.write(at_ns, number, false)?;
        self.count(1, false);
        let (jti, audience) = (self.epoch.message(at_ns, number), self.audience(number)?);
        let put = part.put(self.client.clone(), jti, audience, |_| {});
        self.puts.spawn(async move { put.await.map(|()| Ready { number, json, message }) });
        Ok(())
    }

    /// Submits a message whose part is there.
    pub(super) async fn submit_put(&mut self, ready: Ready) -> Result<(), Trouble> {
        self.sign_and_send(ready.number, now_ns(), &[ready.json], vec![ready.message]).await
    }
}
