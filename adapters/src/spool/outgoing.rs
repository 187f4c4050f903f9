//! `outgoing/`: a JSON file that is put there is sent, and moved with its result beside it.
//!
//! Knows when a file is whole (size and time of it and of its attachments are the same at two looks), and how a result is written.
//! What a crash leaves behind, step by step: the request id is the file's name and SHA-256, so
//! 1. before the message is on the store's disk: the file in `outgoing`, sent at the next start;
//! 2. after that, before the result is written: the file in `outgoing`, answered at the next start as the first time;
//! 3. after the result, before the renames: the result tells which file it is of, and the renames are done at the next start;
//! 4. after the attachments' folder has its place: the same, for what is gone from `outgoing` has gone there.
//!
//! The result tells the attachments' digests too: a file that is put back with others is no repeat, whenever that is.
//! Invariants: a file leaves `outgoing` only for `sent` (its message is durable) or for `rejected` (with the reason beside it); what
//! stands in `sent` is what was sent.

use std::{
    collections::HashMap,
    ffi::OsString,
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
    parts::PLAIN_MAX,
    pb::backoffice::v1 as pb,
    reason::{Reason, Refused},
};

use super::{
    Folders,
    name::{self, Found, beside},
};
use crate::{
    attachments::Passing,
    files,
    json::{self, FileToAttach, SendRequest, TEXT_MAX},
    office::Office,
};

/// Files of one look; what is beyond comes in the looks that follow.
const FILES_MAX: usize = 1_000;
/// A file that must wait for the gateway is tried again after so many looks.
const LOOKS_UNTIL_RETRY: u32 = 10;
/// One that cannot be moved waits twice as long each time, up to so many looks: ten minutes, where one look takes half a second. The
/// folder's owner may have put it right, and what nobody puts right costs next to nothing.
const LOOKS_UNTIL_RETRY_MAX: u32 = 1_200;
/// Names that are tried for what is put beside something else of its name in `rejected`.
const NAMES_TRIED_MAX: u32 = 1_000;
/// Bytes read from an attachment at a time.
const READ_BYTES: usize = 64 * 1024;

/// Why what was sent is not sent again with something else: the request id covers name and JSON, so only the attachments can differ.
const SENT_WITH_OTHERS: &str = "REQUEST_ID_REUSED: this very JSON was sent before under this name, with other attachments; what was sent \
    stands in sent/. To send these attachments, give the JSON file and its folder another name";

/// Size and time of a file and of everything in its folder.
type Fingerprint = Vec<(PathBuf, u64, Option<SystemTime>)>;

/// What became of a file at this look.
enum Outcome {
    /// It is on the store's disk; its result.
    Sent(pb::SendResponse, Value),
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
    seen: HashMap<OsString, Fingerprint>,
    waiting: HashMap<OsString, Wait>,
    /// The last file of a look that could not take all; empty after one that could.
    last: OsString,
}

/// A file that could not go yet.
#[derive(Debug, Clone, Copy)]
struct Wait {
    /// Looks that it is still left alone.
    looks: u32,
    /// Looks that it was left alone in all, the last time.
    length: u32,
}

impl Outgoing {
    pub(super) fn new(folders: Folders, office: Arc<Office>, poll: Duration) -> Self {
        Self { folders, office, poll, seen: HashMap::new(), waiting: HashMap::new(), last: OsString::new() }
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
        let files = match name::list(&self.folders.outgoing) {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(%error, "the spool's outgoing folder cannot be listed");
                return;
            }
        };
        let is_there = |file: &OsString| files.binary_search_by(|found| found.file.cmp(file)).is_ok();
        self.seen.retain(|file, _| is_there(file));
        self.waiting.retain(|file, _| is_there(file));
        for found in self.turn(files) {
            match self.is_whole(&found) {
                Ok(true) => self.take(&found).await,
                Ok(false) => {}
                Err(error) => {
                    if self.put_off(&found) {
                        tracing::warn!(%error, "a spool file could not be looked at; it is tried again, less and less often");
                    }
                }
            }
        }
    }

    /// Those that are due, as many as one look takes: it begins behind the last look's end, so that no number of files that must wait
    /// keeps another from its turn.
    fn turn(&mut self, mut files: Vec<Found>) -> Vec<Found> {
        files.retain(|found| self.is_due(found));
        let behind = files.partition_point(|found| found.file <= self.last);
        files.rotate_left(behind);
        let more = files.len() > FILES_MAX;
        files.truncate(FILES_MAX);
        self.last = files.last().filter(|_| more).map(|found| found.file.clone()).unwrap_or_default();
        files
    }

    /// True when nothing of it changed since the last look at it.
    fn is_whole(&mut self, found: &Found) -> io::Result<bool> {
        let now = self.fingerprint(found)?;
        let before = self.seen.insert(found.file.clone(), now.clone());
        Ok(before.is_some_and(|before| before == now))
    }

    fn is_due(&mut self, found: &Found) -> bool {
        let Some(wait) = self.waiting.get_mut(&found.file) else { return true };
        wait.looks = wait.looks.saturating_sub(1);
        wait.looks == 0
    }

    fn fingerprint(&self, found: &Found) -> io::Result<Fingerprint> {
        let mut fingerprint = Fingerprint::new();
        let own = self.folders.outgoing.join(&found.stem);
        // Never through a symbolic link: it could lead anywhere.
        let mut folders: Vec<PathBuf> =
            fs::symlink_metadata(&own).is_ok_and(|data| data.is_dir()).then_some(own).into_iter().collect();
        add(&mut fingerprint, self.folders.outgoing.join(&found.file))?;
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                // Whether it is named by the message, and may be read, is found out where it is opened, and told in words.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let added = match entry.file_type() {
                    Ok(kind) if kind.is_dir() => {
                        folders.push(entry.path());
                        Ok(())
                    }
                    Ok(_) => add(&mut fingerprint, entry.path()),
                    Err(error) => Err(error),
                };
                match added {
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                    added => added?,
                }
            }
        }
        fingerprint.sort();
        Ok(fingerprint)
    }

    /// Sends one file and moves it, or says why not.
    async fn take(&mut self, found: &Found) {
        let done = match (&found.unfit, self.read(found)) {
            (Some(why), _) => self.turn_down(found, "", why),
            (None, Ok(bytes)) => {
                let request_id = request_id(&found.stem, &bytes);
                self.take_bytes(found, &request_id, &bytes).await
            }
            (None, Err(error)) => match error.kind() {
                io::ErrorKind::InvalidInput => self.turn_down(found, "", &format!("not a message: {error}")),
                io::ErrorKind::PermissionDenied => self.turn_down(
                    found,
                    "",
                    "the adapter's user may not read the file: change its mode and put it back",
                ),
                _ => Err(error),
            },
        };
        if let Err(error) = done
            && self.put_off(found)
        {
            // Names of files may be names of people: they stand in no log.
            tracing::warn!(%error, "a spool file could not be moved; it is tried again, less and less often");
        }
    }

    /// Leaves a file alone for longer than the last time; true the first time.
    fn put_off(&mut self, found: &Found) -> bool {
        let before = self.waiting.get(&found.file).copied();
        let length = before.map_or(LOOKS_UNTIL_RETRY, |wait| wait.length.saturating_mul(2).min(LOOKS_UNTIL_RETRY_MAX));
        self.waiting.insert(found.file.clone(), Wait { looks: length, length });
        before.is_none()
    }

    /// A file's bytes; of one that is too long, one more than a message may have.
    fn read(&self, found: &Found) -> io::Result<Vec<u8>> {
        let file = files::open_below(&self.folders.outgoing, Path::new(&found.file))?;
        let mut bytes = Vec::new();
        file.take(TEXT_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    async fn take_bytes(&mut self, found: &Found, request_id: &str, bytes: &[u8]) -> io::Result<()> {
        let name = found.stem.as_str();
        // The same content under the same name was sent before a crash: only the renames are missing, or some of them.
        for stem in [Some(name.to_owned()), beside(name, request_id)].into_iter().flatten() {
            if let Some(result) = result_of(&self.result_path(&stem), request_id) {
                return match self.has_attachments_of(name, bytes, &result)? {
                    true => self.finish(found, &stem),
                    false => self.turn_down(found, request_id, SENT_WITH_OTHERS),
                };
            }
        }
        match self.send(name, request_id, bytes).await {
            Outcome::Sent(sent, result) => {
                fail::fail_point!("spool.persisted");
                let stem = self.stem(name, request_id);
                let partial = self.folders.partial.join(format!("{stem}.result.json"));
                files::write_whole(&partial, &self.result_path(&stem), &pretty(&result))?;
                self.finish(found, &stem)?;
                self.office.metrics().spool_sent.inc();
                tracing::info!(
                    request_id,
                    message_id = sent.message_id,
                    case_id = sent.case_id,
                    "a spool file was sent"
                );
                Ok(())
            }
            Outcome::Rejected(why) => self.turn_down(found, request_id, &why),
            Outcome::Later(why) => {
                let wait = Wait { looks: LOOKS_UNTIL_RETRY, length: LOOKS_UNTIL_RETRY };
                if self.waiting.insert(found.file.clone(), wait).is_none() {
                    tracing::warn!(request_id, why, "a spool file waits");
                }
                Ok(())
            }
        }
    }

    fn turn_down(&mut self, found: &Found, request_id: &str, why: &str) -> io::Result<()> {
        self.reject(found, why)?;
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
        // They go when this ends: what must wait is put there anew each time, and would fill the disk.
        let mut staged = Vec::with_capacity(files.len());
        for file in &files {
            match self.attach(name, file).await {
                Ok(passing) => staged.push(passing),
                Err(refused) => return outcome_of(&refused),
            }
        }
        sending.attachments = staged.iter().map(|passing| passing.stored.attachment_id.clone()).collect();
        request.set_sending(sending);
        match self.office.send(request).await {
            Ok(sent) => {
                let mut result = json::sent_to_json(&sent);
                if let Value::Object(object) = &mut result {
                    object.insert("request_id".into(), request_id.into());
                    let digests = staged.iter().map(|passing| hex::encode(&passing.stored.sha256));
                    object.insert("attachments".into(), digests.collect());
                }
                Outcome::Sent(sent, result)
            }
            Err(refused) if refused.reason == Reason::RequestIdReused => Outcome::Rejected(SENT_WITH_OTHERS.to_owned()),
            Err(refused) => outcome_of(&refused),
        }
    }

    /// Whether the attachments that a message names are those of the result. What is gone went to `sent` with the message's folder.
    fn has_attachments_of(&self, name: &str, bytes: &[u8], result: &Value) -> io::Result<bool> {
        let read = str::from_utf8(bytes).ok().and_then(|text| json::parse_send(text).ok());
        let folder_gone = fs::symlink_metadata(self.folders.outgoing.join(name)).is_err();
        for (number, file) in read.iter().flat_map(|read| &read.files).enumerate() {
            let digest = match self.open(name, file) {
                // One that is longer than any that was sent has another digest.
                Ok(source) => files::digest(&source, PLAIN_MAX + 1)?.to_hex(),
                Err(error) if error.kind() == io::ErrorKind::NotFound && folder_gone => continue,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            };
            if result.pointer(&format!("/attachments/{number}")).and_then(Value::as_str) != Some(digest.as_str()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Opens an attachment: in the message's own folder, or else in `outgoing` itself.
    fn open(&self, name: &str, file: &FileToAttach) -> io::Result<fs::File> {
        let open = |path: &Path| files::open_below(&self.folders.outgoing, path);
        open(&Path::new(name).join(&file.file)).or_else(|own| match open(Path::new(&file.file)) {
            // What stands in the message's own folder is what was meant.
            Err(beside) if beside.kind() == io::ErrorKind::NotFound => Err(own),
            source => source,
        })
    }

    /// Stores a file as an attachment.
    async fn attach(&self, name: &str, file: &FileToAttach) -> Result<Passing, Refused> {
        let mut source = tokio::fs::File::from_std(self.open(name, file).map_err(|error| {
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
        let mut target = self.office.begin_attachment(header)?;
        let mut buffer = vec![0_u8; READ_BYTES];
        loop {
            let count = source
                .read(&mut buffer)
                .await
                .map_err(|error| Refused::new(Reason::StoreFailed, format!("an attachment cannot be read: {error}")))?;
            match buffer.get(..count) {
                Some(bytes) if !bytes.is_empty() => target.write(bytes)?,
                _ => return target.finish_for_one_call(),
            }
        }
    }

    /// The name under which it goes to `sent`: its own, unless that is taken by another message.
    fn stem(&self, name: &str, request_id: &str) -> String {
        let taken = self.folders.sent.join(format!("{name}.json")).exists() || self.result_path(name).exists();
        beside(name, request_id).filter(|_| taken).unwrap_or_else(|| name.to_owned())
    }

    /// The attachments' folder first, the file last: as long as the file is in `outgoing`, a restart comes here again.
    fn finish(&mut self, found: &Found, stem: &str) -> io::Result<()> {
        files::rename_if_there(&self.folders.outgoing.join(&found.stem), &self.folders.sent.join(stem))?;
        fail::fail_point!("spool.renamed");
        files::rename(&self.folders.outgoing.join(&found.file), &self.folders.sent.join(format!("{stem}.json")))?;
        self.forget(found);
        Ok(())
    }

    /// The attachments stay where they are, so that only the corrected file has to be put back.
    fn reject(&mut self, found: &Found, why: &str) -> io::Result<()> {
        let own = self.folders.outgoing.join(&found.file);
        let stem = self.stem_rejected(&own, &found.stem)?;
        let reason = format!("{stem}.reason.txt");
        let (partial, beside) = (self.folders.partial.join(&reason), self.folders.rejected.join(&reason));
        files::write_whole(&partial, &beside, format!("{why}\n").as_bytes())?;
        if let Err(error) = files::rename(&own, &self.folders.rejected.join(format!("{stem}.json"))) {
            let why = format!("{why}\nIt could not be moved here ({error}): take it out of outgoing/.\n");
            files::write_whole(&partial, &beside, why.as_bytes())?;
            return Err(error);
        }
        self.forget(found);
        Ok(())
    }

    /// Its own stem. A file that was rejected again replaces the one before; a folder neither replaces anything nor is replaced.
    fn stem_rejected(&self, own: &Path, stem: &str) -> io::Result<String> {
        let is_dir = |path: &Path| fs::symlink_metadata(path).is_ok_and(|data| data.is_dir());
        let at = |stem: &str| self.folders.rejected.join(format!("{stem}.json"));
        let taken = |path: &Path| fs::symlink_metadata(path).is_ok() && (is_dir(path) || is_dir(own));
        if !taken(&at(stem)) {
            return Ok(stem.to_owned());
        }
        let others = (1..NAMES_TRIED_MAX).map(|number| format!("{stem}-{number}"));
        let free = others.into_iter().find(|stem| fs::symlink_metadata(at(stem)).is_err());
        free.ok_or_else(|| io::Error::other("`rejected` is full of folders of this name: clear it"))
    }

    fn forget(&mut self, found: &Found) {
        self.seen.remove(&found.file);
        self.waiting.remove(&found.file);
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

/// The result of a request, if that is what stands there.
fn result_of(path: &Path, request_id: &str) -> Option<Value> {
    let result: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (result.get("request_id").and_then(Value::as_str) == Some(request_id)).then_some(result)
}

/// For people, with a closing newline.
pub(super) fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_else(|_| json!({}).to_string().into_bytes());
    text.push(b'\n');
    text
}
