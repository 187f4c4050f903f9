//! `outgoing/`: a JSON file that is put there is sent, and moved with its result beside it.
//!
//! Knows when a file is whole (size and time of it and of its attachments are the same at two looks), and how a result is written.
//! What a crash leaves behind, step by step: the request id is the file's name and SHA-256, so
//! 1. before the message is on the store's disk: the file in `outgoing`, sent at the next start;
//! 2. after that, before the result is written: the file in `outgoing`, answered at the next start as the first time;
//! 3. after the result, before the renames: the result tells which file it is of, and the renames are done at the next start.
//!
//! Invariant: a file leaves `outgoing` only for `sent` (its message is durable) or for `rejected` (with the reason beside it).

use std::{
    collections::HashMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, time::sleep};
use tokio_util::sync::CancellationToken;
use tramite_proto::{
    ids::Digest,
    pb::backoffice::v1 as pb,
    reason::{Reason, Refused},
};

use super::Folders;
use crate::{
    files,
    json::{self, FileToAttach, SendRequest, TEXT_MAX},
    office::Office,
};

/// Files of one look; a folder with more is worked off in the looks to come.
const FILES_MAX: usize = 1_000;
/// A file that must wait for the gateway or the disk is tried again after so many looks.
const LOOKS_UNTIL_RETRY: u32 = 10;
/// Bytes read from an attachment at a time.
const READ_BYTES: usize = 64 * 1024;

/// Size and time of a file and of everything in its folder.
type Fingerprint = Vec<(PathBuf, u64, Option<SystemTime>)>;

/// What became of a file at this look.
enum Outcome {
    /// It is on the store's disk.
    Sent(pb::SendResponse),
    /// It never will be, and why.
    Rejected(String),
    /// Not now, and why.
    Later(String),
}

/// The half that sends.
#[derive(Debug)]
pub(super) struct Outgoing {
    folders: Folders,
    office: Arc<Office>,
    poll: Duration,
    seen: HashMap<String, Fingerprint>,
    waiting: HashMap<String, u32>,
}

impl Outgoing {
    pub(super) fn new(folders: Folders, office: Arc<Office>, poll: Duration) -> Self {
        Self { folders, office, poll, seen: HashMap::new(), waiting: HashMap::new() }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(self.poll) => self.look().await,
            }
        }
    }

    /// One look at the folder.
    pub(super) async fn look(&mut self) {
        let names = match list(&self.folders.outgoing) {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(%error, "the spool's outgoing folder cannot be listed");
                return;
            }
        };
        self.seen.retain(|name, _| names.contains(name));
        self.waiting.retain(|name, _| names.contains(name));
        for name in names {
            if self.is_whole(&name) && self.is_due(&name) {
                self.take(&name).await;
            }
        }
    }

    /// True when nothing of it changed since the last look.
    fn is_whole(&mut self, name: &str) -> bool {
        let Ok(now) = self.fingerprint(name) else { return false };
        let before = self.seen.insert(name.to_owned(), now.clone());
        before.is_some_and(|before| before == now)
    }

    fn is_due(&mut self, name: &str) -> bool {
        let Some(looks) = self.waiting.get_mut(name) else { return true };
        *looks = looks.saturating_sub(1);
        *looks == 0
    }

    fn fingerprint(&self, name: &str) -> io::Result<Fingerprint> {
        let mut found = Fingerprint::new();
        let own = self.folders.outgoing.join(name);
        // Never through a symbolic link: it could lead anywhere.
        let mut folders: Vec<PathBuf> =
            fs::symlink_metadata(&own).is_ok_and(|data| data.is_dir()).then_some(own).into_iter().collect();
        add(&mut found, self.folders.outgoing.join(format!("{name}.json")))?;
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() { folders.push(entry.path()) } else { add(&mut found, entry.path())? }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Sends one file and moves it, or says why not.
    async fn take(&mut self, name: &str) {
        let done = match self.read(name) {
            Ok(bytes) => {
                let request_id = request_id(name, &bytes);
                self.take_bytes(name, &request_id, &bytes).await
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.turn_down(name, "", &format!("not a message: {error}"))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            // Names of files may be names of people: they stand in no log.
            tracing::warn!(%error, "a spool file could not be moved; it is tried again");
        }
    }

    /// A file's bytes; of one that is too long, one more than a message may have.
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = files::open_below(&self.folders.outgoing, Path::new(&format!("{name}.json")))?;
        let mut bytes = Vec::new();
        file.take(TEXT_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    async fn take_bytes(&mut self, name: &str, request_id: &str, bytes: &[u8]) -> io::Result<()> {
        // The same content under the same name was sent before a crash: only the renames are missing, or some of them.
        for stem in [Some(name.to_owned()), beside(name, request_id)].into_iter().flatten() {
            if result_of(&self.result_path(&stem)).is_some_and(|sent| sent == request_id) {
                return self.finish(name, &stem);
            }
        }
        match self.send(name, request_id, bytes).await {
            Outcome::Sent(sent) => {
                fail::fail_point!("spool.persisted");
                let stem = self.stem(name, request_id);
                let mut result = json::sent_to_json(&sent);
                if let Value::Object(object) = &mut result {
                    object.insert("request_id".into(), request_id.into());
                }
                let partial = self.folders.partial.join(format!("{stem}.result.json"));
                files::write_whole(&partial, &self.result_path(&stem), &pretty(&result))?;
                self.finish(name, &stem)?;
                self.office.metrics().spool_sent.inc();
                tracing::info!(
                    request_id,
                    message_id = sent.message_id,
                    case_id = sent.case_id,
                    "a spool file was sent"
                );
                Ok(())
            }
            Outcome::Rejected(why) => self.turn_down(name, request_id, &why),
            Outcome::Later(why) => {
                if self.waiting.insert(name.to_owned(), LOOKS_UNTIL_RETRY).is_none() {
                    tracing::warn!(request_id, why, "a spool file waits");
                }
                Ok(())
            }
        }
    }

    fn turn_down(&mut self, name: &str, request_id: &str, why: &str) -> io::Result<()> {
        self.reject(name, why)?;
        self.office.metrics().spool_rejected.inc();
        // Why it was rejected may repeat what stands in the file: that is for the folder, not for the log.
        tracing::warn!(request_id, "a spool file was rejected; the reason stands beside it");
        Ok(())
    }

    async fn send(&self, name: &str, request_id: &str, bytes: &[u8]) -> Outcome {
        if bytes.len() > TEXT_MAX {
            return Outcome::Rejected(format!("not a message: it is too long; a message has at most {TEXT_MAX} bytes"));
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.trim_start_matches('\u{feff}'),
            Err(_) => return Outcome::Rejected("not a message: the file is not text in UTF-8".to_owned()),
        };
        let SendRequest { mut request, files } = match json::parse_send(text) {
            Ok(read) => read,
            Err(error) => return Outcome::Rejected(error.to_string()),
        };
        let mut sending = request.sending();
        if !sending.request_id.is_empty() {
            return Outcome::Rejected(
                "request_id: does not belong into a spool file: its name and content are its id".to_owned(),
            );
        }
        sending.request_id = request_id.to_owned();
        for file in &files {
            match self.attach(name, file).await {
                Ok(stored) => sending.attachments.push(stored.attachment_id),
                Err(refused) => return outcome_of(&refused),
            }
        }
        request.set_sending(sending);
        match self.office.send(request).await {
            Ok(sent) => Outcome::Sent(sent),
            Err(refused) => outcome_of(&refused),
        }
    }

    /// Stores a file as an attachment: from the message's own folder, or else from `outgoing` itself.
    async fn attach(&self, name: &str, file: &FileToAttach) -> Result<pb::PutAttachmentResponse, Refused> {
        let open = |path: &Path| files::open_below(&self.folders.outgoing, path);
        let source = open(&Path::new(name).join(&file.file)).or_else(|own| match open(Path::new(&file.file)) {
            // What stands in the message's own folder is what was meant.
            Err(beside) if beside.kind() == io::ErrorKind::NotFound => Err(own),
            source => source,
        });
        let mut source = tokio::fs::File::from_std(source.map_err(|error| {
            let detail = match error.kind() {
                io::ErrorKind::NotFound => format!(
                    "attachment `{}` was not found: put it into outgoing/{name}/ before the JSON file goes into outgoing/",
                    file.file
                ),
                _ => format!("attachment `{}` cannot be read: {error}", file.file),
            };
            Refused::new(Reason::FieldInvalid, detail).field("attachments")
        })?);
        let header = pb::AttachmentHeader {
            name: file.name.clone(),
            media_type: file.media_type.clone(),
            document: file.document.clone(),
        };
        let mut target = self.office.attachments().begin(header)?;
        let mut buffer = vec![0_u8; READ_BYTES];
        loop {
            let count = source
                .read(&mut buffer)
                .await
                .map_err(|error| Refused::new(Reason::StoreFailed, format!("an attachment cannot be read: {error}")))?;
            match buffer.get(..count) {
                Some(bytes) if !bytes.is_empty() => target.write(bytes).await?,
                _ => return target.finish().await,
            }
        }
    }

    /// The name under which it goes to `sent`: its own, unless that is taken by another message.
    fn stem(&self, name: &str, request_id: &str) -> String {
        let taken = self.folders.sent.join(format!("{name}.json")).exists() || self.result_path(name).exists();
        beside(name, request_id).filter(|_| taken).unwrap_or_else(|| name.to_owned())
    }

    /// The attachments' folder first, the file last: as long as the file is in `outgoing`, a restart comes here again.
    fn finish(&mut self, name: &str, stem: &str) -> io::Result<()> {
        files::rename_if_there(&self.folders.outgoing.join(name), &self.folders.sent.join(stem))?;
        fail::fail_point!("spool.renamed");
        let json = format!("{name}.json");
        files::rename(&self.folders.outgoing.join(json), &self.folders.sent.join(format!("{stem}.json")))?;
        self.forget(name);
        Ok(())
    }

    /// The attachments stay where they are, so that only the corrected file has to be put back.
    fn reject(&mut self, name: &str, why: &str) -> io::Result<()> {
        let reason = self.folders.rejected.join(format!("{name}.reason.txt"));
        files::write_whole(
            &self.folders.partial.join(format!("{name}.reason.txt")),
            &reason,
            format!("{why}\n").as_bytes(),
        )?;
        let json = format!("{name}.json");
        files::rename(&self.folders.outgoing.join(&json), &self.folders.rejected.join(&json))?;
        self.forget(name);
        Ok(())
    }

    fn forget(&mut self, name: &str) {
        self.seen.remove(name);
        self.waiting.remove(name);
    }

    fn result_path(&self, stem: &str) -> PathBuf {
        self.folders.sent.join(format!("{stem}.result.json"))
    }
}

fn outcome_of(refused: &Refused) -> Outcome {
    let field = refused.field.as_ref().map(|field| format!(" ({field})")).unwrap_or_default();
    let words = format!("{}: {}{field}", refused.reason.as_str(), refused.detail);
    if refused.retryable() { Outcome::Later(words) } else { Outcome::Rejected(words) }
}

/// Names of the JSON files in a folder, without their ending, sorted. Hidden ones are still being written.
fn list(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".json"))
            && !stem.starts_with('.')
            && !stem.is_empty()
        {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    names.truncate(FILES_MAX);
    Ok(names)
}

fn add(found: &mut Fingerprint, path: PathBuf) -> io::Result<()> {
    let data = fs::symlink_metadata(&path)?;
    found.push((path, data.len(), data.modified().ok()));
    Ok(())
}

/// The file's name and SHA-256, as one hash: a name may hold characters that a request id may not.
pub(super) fn request_id(name: &str, bytes: &[u8]) -> String {
    let mut all = name.as_bytes().to_vec();
    all.push(0);
    all.extend(Digest::of(bytes).to_hex().into_bytes());
    format!("spool:{}", Digest::of(&all).to_hex())
}

/// The name beside one that is taken.
fn beside(name: &str, request_id: &str) -> Option<String> {
    let tail = request_id.get(request_id.len().saturating_sub(8)..)?;
    Some(format!("{name}-{tail}"))
}

/// Of which file a result is.
fn result_of(path: &Path) -> Option<String> {
    let result: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    result.get("request_id").and_then(Value::as_str).map(str::to_owned)
}

/// For people, with a closing newline.
pub(super) fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_else(|_| json!({}).to_string().into_bytes());
    text.push(b'\n');
    text
}
