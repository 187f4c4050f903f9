//! HTTP/2 as nobody's library would speak it (RFC 9113): frames written by hand and sent as they are, and what comes back counted.
//!
//! Knows frames, and of HPACK (RFC 7541) only the literal that is never indexed, which needs no state. Never knows what an answer
//! says. Invariant: whatever the server does to the connection is an event to wait for, never an error of the test.

use std::{collections::BTreeMap, io, time::Duration};

use anyhow::{Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use crate::{pki::Badge, raw};

/// The first bytes of every connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `:status: 200` as the first field of a header block (RFC 7541, appendix A, index 8).
const STATUS_200: u8 = 0x88;

/// Frame types (RFC 9113 §6).
pub mod kind {
    /// DATA.
    pub const DATA: u8 = 0;
    /// HEADERS.
    pub const HEADERS: u8 = 1;
    /// RST_STREAM.
    pub const RST_STREAM: u8 = 3;
    /// SETTINGS.
    pub const SETTINGS: u8 = 4;
    /// PING.
    pub const PING: u8 = 6;
    /// GOAWAY.
    pub const GOAWAY: u8 = 7;
    /// WINDOW_UPDATE.
    pub const WINDOW_UPDATE: u8 = 8;
    /// CONTINUATION.
    pub const CONTINUATION: u8 = 9;
}

/// Flags.
pub mod flag {
    /// None.
    pub const NONE: u8 = 0;
    /// ACK, of SETTINGS and PING.
    pub const ACK: u8 = 1;
    /// END_STREAM, of DATA and HEADERS.
    pub const END_STREAM: u8 = 1;
    /// END_HEADERS, of HEADERS and CONTINUATION.
    pub const END_HEADERS: u8 = 4;
}

/// Settings (RFC 9113 §6.5.2).
pub mod setting {
    /// SETTINGS_MAX_CONCURRENT_STREAMS.
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    /// SETTINGS_INITIAL_WINDOW_SIZE.
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    /// SETTINGS_MAX_HEADER_LIST_SIZE.
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Error codes (RFC 9113 §7).
pub mod code {
    /// PROTOCOL_ERROR.
    pub const PROTOCOL_ERROR: u32 = 1;
    /// REFUSED_STREAM.
    pub const REFUSED_STREAM: u32 = 7;
    /// CANCEL.
    pub const CANCEL: u32 = 8;
    /// ENHANCE_YOUR_CALM.
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// One frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    // 24 bits: every payload that is made here is far shorter.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = length.into_iter().skip(1).collect::<Vec<u8>>();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// SETTINGS.
#[must_use]
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        values.iter().flat_map(|(name, value)| name.to_be_bytes().into_iter().chain(value.to_be_bytes())).collect();
    frame(kind::SETTINGS, flag::NONE, 0, &payload)
}

/// RST_STREAM as a client that changed its mind.
#[must_use]
pub fn cancel(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, flag::NONE, stream, &code::CANCEL.to_be_bytes())
}

/// One field, literal, never indexed (RFC 7541 §6.2.3).
#[must_use]
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0x10];
    for text in [name, value] {
        field.extend(length(text.len()));
        field.extend(text.as_bytes());
    }
    field
}

/// A length in seven bits and as many more as it needs (RFC 7541 §5.1).
fn length(length: usize) -> Vec<u8> {
    if length < 127 {
        return vec![u8::try_from(length).unwrap_or(126)];
    }
    let (mut rest, mut bytes) = (length - 127, vec![127]);
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap_or(0) | 0x80);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap_or(0));
    bytes
}

/// The fields of a gRPC call, as a right client would write them.
#[must_use]
pub fn call(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// A gRPC message in a DATA frame.
#[must_use]
pub fn message(stream: u32, flags: u8, protobuf: &[u8]) -> Vec<u8> {
    let mut payload = vec![0];
    payload.extend(u32::try_from(protobuf.len()).unwrap_or(u32::MAX).to_be_bytes());
    payload.extend(protobuf);
    frame(kind::DATA, flags, stream, &payload)
}

/// What came back so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// What the server announced.
    pub settings: BTreeMap<u16, u32>,
    /// SETTINGS of ours that it acknowledged.
    pub settings_acked: usize,
    /// PINGs of ours that it answered.
    pub pings_answered: usize,
    /// Streams that it reset, by error code.
    pub resets: BTreeMap<u32, usize>,
    /// Answers that began with `:status 200`, whatever gRPC says in them.
    pub ok: usize,
    /// Bytes of DATA.
    pub data: usize,
    /// Error code and words of its GOAWAY.
    pub farewell: Option<(u32, String)>,
    /// It ended the connection.
    pub ended: bool,
}

impl Seen {
    /// Streams that were reset with a code.
    #[must_use]
    pub fn resets_of(&self, code: u32) -> usize {
        self.resets.get(&code).copied().unwrap_or_default()
    }

    /// The connection was ended, and not for another reason than these words. A server that closes while more is coming may
    /// lose its own farewell on the way: then nothing was said.
    #[must_use]
    pub fn ended_for(&self, words: &str) -> bool {
        let fits = |(code, said): &(u32, String)| *code == code::ENHANCE_YOUR_CALM && said == words;
        self.ended && self.farewell.as_ref().is_none_or(fits)
    }

    fn take(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        let number = |at: usize| payload.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes);
        match kind {
            kind::DATA => self.data += payload.len(),
            kind::HEADERS => self.ok += usize::from(payload.first() == Some(&STATUS_200)),
            kind::RST_STREAM => *self.resets.entry(number(0).unwrap_or_default()).or_default() += 1,
            kind::SETTINGS if flags & flag::ACK != 0 => self.settings_acked += 1,
            kind::SETTINGS => {
                for one in payload.chunks_exact(6) {
                    if let [a, b, value @ ..] = one {
                        let value = value.try_into().map(u32::from_be_bytes).unwrap_or_default();
                        self.settings.insert(u16::from_be_bytes([*a, *b]), value);
                    }
                }
            }
            kind::PING if flags & flag::ACK != 0 => self.pings_answered += 1,
            kind::GOAWAY => {
                let words = String::from_utf8_lossy(payload.get(8..).unwrap_or_default()).into_owned();
                self.farewell = Some((number(4).unwrap_or_default(), words));
            }
            _ => {}
        }
    }
}

/// A connection on which anything can be sent.
#[derive(Debug)]
pub struct Wire {
    writing: WriteHalf<TlsStream<TcpStream>>,
    seen: watch::Receiver<Seen>,
    reading: JoinHandle<()>,
    next: u32,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Wire {
    /// Connects, says hello with some settings, and reads whatever comes.
    ///
    /// # Errors
    /// When nobody answers, or the server ends the handshake.
    pub async fn open(address: &str, badge: &Badge, values: &[(u16, u32)]) -> Result<Self> {
        Self::begin(address, badge, values, true).await
    }

    /// The same, but never reads a byte.
    ///
    /// # Errors
    /// When nobody answers, or the server ends the handshake.
    pub async fn deaf(address: &str, badge: &Badge, values: &[(u16, u32)]) -> Result<Self> {
        Self::begin(address, badge, values, false).await
    }

    async fn begin(address: &str, badge: &Badge, values: &[(u16, u32)], reads: bool) -> Result<Self> {
        let stream = raw::connect(address, raw::client_config(Some(badge))?).await?;
        let (read, mut writing) = tokio::io::split(stream);
        let (tell, seen) = watch::channel(Seen::default());
        let reading = tokio::spawn(async move {
            if reads {
                follow(read, &tell).await;
                tell.send_modify(|seen| seen.ended = true);
            } else {
                // The half lives as long as the connection does.
                std::future::pending::<()>().await;
                drop((read, tell));
            }
        });
        writing.write_all(&[PREFACE, &settings(values)].concat()).await?;
        writing.flush().await?;
        Ok(Self { writing, seen, reading, next: 1 })
    }

    /// The id of a new stream.
    pub fn stream(&mut self) -> u32 {
        let stream = self.next;
        self.next += 2;
        stream
    }

    /// HEADERS of a new stream that opens a call; its id and the frame.
    pub fn call(&mut self, path: &str, flags: u8) -> (u32, Vec<u8>) {
        let stream = self.stream();
        (stream, frame(kind::HEADERS, flag::END_HEADERS | flags, stream, &call(path)))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the server ended the connection.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writing.write_all(bytes).await?;
        self.writing.flush().await
    }

    /// Sends pieces one after the other until the server has ended the connection, or there are no more.
    pub async fn flood(&mut self, pieces: impl IntoIterator<Item = Vec<u8>>) {
        for piece in pieces {
            // Nothing is written to a connection that the server ended.
            if self.seen.borrow().ended || self.send(&piece).await.is_err() {
                return;
            }
        }
    }

    /// What came back so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until what came back fits.
    ///
    /// # Errors
    /// When it does not in time; with what came.
    pub async fn until(&mut self, what: &str, within: Duration, fits: impl Fn(&Seen) -> bool) -> Result<Seen> {
        // An end of the connection is seen, too, before nothing more can come.
        let came = timeout(within, self.seen.wait_for(|seen| fits(seen))).await.is_ok_and(|seen| seen.is_ok());
        let seen = self.seen();
        ensure!(came, "{what}: not within {within:?}; what came: {seen:?}");
        Ok(seen)
    }
}

async fn follow(mut read: ReadHalf<TlsStream<TcpStream>>, tell: &watch::Sender<Seen>) {
    let mut head = [0; 9];
    while read.read_exact(&mut head).await.is_ok() {
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        if read.read_exact(&mut payload).await.is_err() {
            return;
        }
        tell.send_modify(|seen| seen.take(kind, flags, &payload));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_fields_are_those_of_the_specifications() {
        assert_eq!(frame(kind::PING, flag::ACK, 1, b"12345678"), b"\x00\x00\x08\x06\x01\x00\x00\x00\x0112345678");
        assert_eq!(settings(&[(4, 0)]), [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
        // RFC 7541 C.2.3: the same field, there without Huffman, too.
        assert_eq!(field("password", "secret"), b"\x10\x08password\x06secret");
        // RFC 7541 C.1.2, with a prefix of seven bits: 1337 = 127 + 1210.
        assert_eq!((length(10), length(127), length(1337)), (vec![10], vec![127, 0], vec![127, 186, 9]));
    }

    #[test]
    fn what_the_server_says_is_read() {
        let mut seen = Seen::default();
        seen.take(kind::SETTINGS, flag::NONE, &[0, 3, 0, 0, 0, 64]);
        seen.take(kind::RST_STREAM, flag::NONE, &7u32.to_be_bytes());
        seen.take(kind::GOAWAY, flag::NONE, b"\0\0\0\x01\0\0\0\x0btoo_many_resets");
        seen.ended = true;
        assert_eq!(seen.settings.get(&setting::MAX_CONCURRENT_STREAMS), Some(&64));
        assert_eq!(seen.resets_of(code::REFUSED_STREAM), 1);
        assert!(seen.ended_for("too_many_resets") && !seen.ended_for("too_many_data_frames"));
    }
}
