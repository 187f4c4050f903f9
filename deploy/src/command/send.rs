//! `tramite send FILE`: one message from a file, through the adapter. The same JSON as in the spool folder; a sample's file is
//! taken as well.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use bytes::Bytes;
use tokio::{fs::File, io::AsyncReadExt as _, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tramite_adapters::{
    desk::sample,
    json::{FileToAttach, SendRequest, TEXT_MAX, parse_send, sent_to_json},
    request::Request,
};
use tramite_proto::{ids::Digest, parts::FRAME_MAX, pb::backoffice::v1 as bo};

use crate::{
    cli,
    connect::{self, Adapter},
    failure::{Exit, Failure},
    output::Output,
};

/// Frames that may wait: the file is never whole in memory.
const FRAMES_WAITING: usize = 4;

/// Sends it.
pub(crate) async fn run(asked: cli::Send, output: &Output) -> Result<Exit, Failure> {
    let text = read(&asked.file)?;
    let text = sample::message_in(&text).unwrap_or(text);
    let SendRequest { mut request, files } = parse_send(&text).map_err(|error| {
        let advice = "Look at a sample in adapters/samples, or at adapters/SPOOL.md, for how a message is written.";
        let said = error.to_string();
        let said = match said.strip_prefix("not a message: ") {
            _ if !text.trim_start().starts_with('{') => "one JSON object is expected, { … }",
            Some(rest) => rest,
            None => &said,
        };
        let name = if asked.file == Path::new("-") { "standard input".into() } else { asked.file.to_string_lossy() };
        Failure::new(Exit::Data, format!("{name} is not a message: {said}"), advice)
    })?;
    let mut adapter = connect::adapter(&asked.address).await?;
    let mut sending = request.sending();
    if let Some(id) = asked.request_id {
        sending.request_id = id;
    } else if sending.request_id.is_empty() {
        sending.request_id = request_id("file", &Digest::of(text.as_bytes()));
    }
    let folder = asked.file.parent().unwrap_or(Path::new(""));
    for file in &files {
        sending.attachments.push(attach(&mut adapter, folder, file).await?);
    }
    request.set_sending(sending);
    let sent = submit(&mut adapter, request).await?;
    output.answer(&sent_to_json(&sent), || said(&sent));
    Ok(Exit::Ok)
}

/// A request id made of what is asked: asking the same thing twice asks once.
pub(crate) fn request_id(prefix: &str, digest: &Digest) -> String {
    format!("{prefix}-{}", digest.to_hex().chars().take(32).collect::<String>())
}

/// The answer in words.
pub(crate) fn said(sent: &bo::SendResponse) -> String {
    let first = if sent.repeated {
        "Was sent before; nothing new was sent."
    } else {
        "Safe at your adapter, signed and sealed."
    };
    format!(
        "{first}\n  message {}\n  case    {}\n`tramite case {}` shows what becomes of it.",
        sent.message_id, sent.case_id, sent.case_id
    )
}

/// Calls the method that belongs to the request.
pub(crate) async fn submit(adapter: &mut Adapter, request: Request) -> Result<bo::SendResponse, Failure> {
    let client = &mut adapter.client;
    let answer = match request {
        Request::Referral(request) => client.send_referral(request).await,
        Request::ReferralUpdate(request) => client.update_referral(request).await,
        Request::DocumentRequest(request) => client.request_documents(request).await,
        Request::DocumentResponse(request) => client.provide_documents(request).await,
        Request::DocumentRequestUpdate(request) => client.update_document_request(request).await,
    };
    answer.map(tonic::Response::into_inner).map_err(|status| adapter.failed(&status))
}

fn read(path: &Path) -> Result<String, Failure> {
    let unreadable = |error: io::Error| {
        let advice = "Give the path of a file with a message in JSON, or - for standard input.";
        Failure::new(Exit::NoInput, format!("{} cannot be read: {error}", path.display()), advice)
    };
    // One byte more than a message may have: the parser sees that it is too long, and says so.
    let limit = u64::try_from(TEXT_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        fs::File::open(path).map_err(unreadable)?.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    }
    if bytes.len() > TEXT_MAX {
        // The limit may stand inside a character; what stands for it is no shorter.
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|error| unreadable(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// Stores a file at the adapter; returns its attachment id.
async fn attach(adapter: &mut Adapter, folder: &Path, file: &FileToAttach) -> Result<String, Failure> {
    let path = folder.join(&file.file);
    let unreadable = |error: io::Error| {
        let sentence = format!("the attachment {} cannot be read: {error}", path.display());
        Failure::new(Exit::NoInput, sentence, "Attachments are looked for beside the message's file.")
    };
    let mut opened = File::open(&path).await.map_err(unreadable)?;
    let (frames, stream) = mpsc::channel(FRAMES_WAITING);
    let frame = |frame| bo::PutAttachmentRequest { frame: Some(frame) };
    let header = bo::AttachmentHeader {
        name: file.name.clone(),
        media_type: file.media_type.clone(),
        document: file.document.clone(),
    };
    let feed = async move {
        // The receiver goes when the adapter has refused; its answer says why.
        if frames.send(frame(bo::put_attachment_request::Frame::Header(header))).await.is_err() {
            return Ok(());
        }
        loop {
            let mut data = Vec::with_capacity(FRAME_MAX);
            let limit = u64::try_from(FRAME_MAX).unwrap_or(u64::MAX);
            if (&mut opened).take(limit).read_to_end(&mut data).await? == 0 {
                return Ok(());
            }
            let data = bo::put_attachment_request::Frame::Data(Bytes::from(data));
            if frames.send(frame(data)).await.is_err() {
                return Ok(());
            }
        }
    };
    let mut client = adapter.client.clone();
    let (fed, answer) = tokio::join!(feed, client.put_attachment(ReceiverStream::new(stream)));
    fed.map_err(unreadable)?;
    answer.map(|answer| answer.into_inner().attachment_id).map_err(|status| adapter.failed(&status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_long_is_refused_and_never_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("message.json");
        // Two bytes each, so that the limit stands inside one.
        for text in [" ".repeat(2 * TEXT_MAX), "à".repeat(TEXT_MAX)] {
            fs::write(&path, text).unwrap();
            let refused = parse_send(&read(&path).unwrap()).unwrap_err().to_string();
            assert!(refused.contains("too long"), "{refused}");
        }
        fs::write(&path, b"\xff").unwrap();
        assert!(read(&path).is_err());
    }
}
