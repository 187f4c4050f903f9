//! `incoming/`: what arrives, as a JSON file with its attachments as files beside it.
//!
//! Knows how an item is written. What a crash leaves behind, step by step (files first stand in `.partial`, on the same file system):
//! 1. while they are written: a part of them in `.partial`, and no whole JSON; thrown away at the next start, the item is written anew;
//! 2. all synced (the JSON is written last), the item not yet acknowledged: acknowledged and renamed at the next start;
//! 3. acknowledged, not yet renamed: the renames are done at the next start;
//! 4. attachments renamed, the JSON not: the same.
//!
//! Invariants: the JSON appears last and once, and goes first when its attachments are written again; an item is acknowledged by its
//! JSON only while they are what it says; an item that a person took away from the folder never comes back.

use std::{fs, io, path::Path, sync::Arc};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;
use tramite_proto::{
    parts::PLAIN_MAX,
    pb::backoffice::v1::{self as pb, inbox_item::Kind},
    reason::Reason,
};

use super::{Folders, outgoing::pretty};
use crate::{
    backoff::Backoff,
    files, json,
    office::{Office, Shown},
};

/// Items written at a time.
const ITEMS_MAX: usize = 16;
/// Items set aside before no new ones are taken: so many that fail are the disk's doing, and each has its body in memory.
const ASIDE_MAX: usize = 256;
/// Characters of an attachment's name; file systems take 255 bytes.
const NAME_MAX: usize = 120;

/// An item on its way to its file.
#[derive(Debug)]
struct Pending {
    shown: Shown,
    /// Its files are whole and it is acknowledged: only the names are missing, and its attachments are erased elsewhere.
    acknowledged: bool,
    /// Its failure was told.
    told: bool,
}

/// The half that receives.
#[derive(Debug)]
pub(super) struct Incoming {
    folders: Folders,
    office: Arc<Office>,
}

impl Incoming {
    pub(super) fn new(folders: Folders, office: Arc<Office>) -> Self {
        Self { folders, office }
    }

    pub(super) async fn run(self, stop: CancellationToken) {
        if let Err(error) = self.recover().await {
            tracing::error!(%error, "what a crash left in the spool could not be put in order");
        }
        let mut backoff = Backoff::new(self.office.entropy());
        let mut aside = Vec::new();
        loop {
            let round = tokio::select! {
                () = stop.cancelled() => return,
                round = self.round(&mut aside) => round,
            };
            if let Err(error) = round {
                if backoff.is_fresh() {
                    tracing::warn!(%error, "arrivals could not be written to the spool; they are tried again");
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = backoff.pause() => {}
                }
            } else {
                backoff.reset();
            }
        }
    }

    /// Finishes what is whole, throws away what is not. One that cannot be finished holds up no other, and stays for the next start.
    pub(super) async fn recover(&self) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folders.partial)? {
            let path = entry?.path();
            let Some(stem) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".item.json"))
            else {
                continue;
            };
            if let Err(error) = self.finish(&path, stem).await {
                tracing::error!(item = stem, %error, "an item could not be finished; that is tried again at the next start");
                kept.extend([self.folders.partial.join(stem), path]);
            }
        }
        // Whatever is left belongs to an item that will be offered again.
        for entry in fs::read_dir(&self.folders.partial)? {
            let path = entry?.path();
            if kept.contains(&path) {
                continue;
            }
            if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        }
        Ok(())
    }

    /// Acknowledges an item that is whole and gives it its name; leaves one that is not.
    async fn finish(&self, path: &Path, stem: &str) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let bytes = fs::read(path)?;
        // What can be read to its closing brace is whole.
        let item: Option<Value> = serde_json::from_slice(&bytes).ok();
        let Some((item, id)) = item.as_ref().and_then(|item| Some((item, item.get("item_id")?.as_str()?))) else {
            return Ok(());
        };
        if let Some(index) = self.damaged(item)? {
            if self.is_offered(item, index).await? {
                return files::remove_if_there(path);
            }
            tracing::error!(
                item = id,
                index,
                "an attachment is not what was written; there is no other, and it is shown as it is"
            );
        }
        self.office.inbox().acknowledge(&[id.to_owned()]).await.map_err(io::Error::other)?;
        self.publish(stem)
    }

    /// The first attachment that is not what the JSON says, whether it has its place yet or not.
    fn damaged(&self, item: &Value) -> io::Result<Option<u32>> {
        let shown = item.pointer("/message/attachments").and_then(Value::as_array);
        for (index, shown) in (0_u32..).zip(shown.into_iter().flatten()) {
            let text = |member: &str| shown.get(member).and_then(Value::as_str).unwrap_or_default();
            let path = Path::new(text("file"));
            let file = files::open_below(&self.folders.partial, path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => files::open_below(&self.folders.incoming, path),
                _ => Err(error),
            });
            let whole = match file {
                Ok(file) => files::digest(&file, PLAIN_MAX + 1)?.to_hex() == text("sha256"),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => false,
                Err(error) => return Err(error),
            };
            if !whole {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Whether the office still has an attachment, and with it the item; what was acknowledged it has no more.
    async fn is_offered(&self, item: &Value, index: u32) -> io::Result<bool> {
        let message_id = item.pointer("/message/message_id").and_then(Value::as_str).unwrap_or_default();
        match self.office.attachment(message_id, index).await {
            Ok(_) => Ok(true),
            Err(refused) if refused.reason == Reason::AttachmentUnknown => Ok(false),
            Err(refused) => Err(io::Error::other(refused)),
        }
    }

    /// Waits for items and writes them. One that fails is set aside, still this reader's, and tried again in each round: it holds up no
    /// other.
    async fn round(&self, aside: &mut Vec<Pending>) -> io::Result<()> {
        let inbox = self.office.inbox();
        if aside.len() < ASIDE_MAX {
            let items = inbox.lease(ITEMS_MAX).await.map_err(io::Error::other)?;
            if items.is_empty() && aside.is_empty() {
                inbox.arrival().await;
                return Ok(());
            }
            aside.extend(items.into_iter().map(|shown| Pending { shown, acknowledged: false, told: false }));
        }
        let mut failed = Ok(());
        for mut pending in std::mem::take(aside) {
            let Err(error) = self.write(&mut pending).await else { continue };
            if !pending.told {
                pending.told = true;
                tracing::error!(item = pending.shown.sequence, %error, "an item could not be written to the spool; it is set aside");
            }
            failed = Err(error);
            aside.push(pending);
        }
        failed
    }

    /// One item: files, acknowledgement, names.
    async fn write(&self, pending: &mut Pending) -> io::Result<()> {
        let stem = stem_of(&pending.shown.item);
        if !pending.acknowledged {
            self.write_files(&pending.shown.item, &stem).await?;
            pending.acknowledged = true;
        }
        self.publish(&stem)
    }

    /// Files that are whole, and the acknowledgement.
    async fn write_files(&self, item: &pb::InboxItem, stem: &str) -> io::Result<()> {
        let path = self.folders.partial.join(format!("{stem}.item.json"));
        // One of an earlier attempt would vouch for attachments that are only being written.
        files::remove_if_there(&path)?;
        let mut object = json::inbox_item_to_json(item);
        if let Some(Kind::Message(message)) = &item.kind {
            let names = self.write_attachments(message, stem).await?;
            if let Some(list) = object.pointer_mut("/message/attachments").and_then(Value::as_array_mut) {
                for (shown, name) in list.iter_mut().zip(names) {
                    if let Value::Object(shown) = shown {
                        shown.insert("file".into(), json!(format!("{stem}/{name}")));
                    }
                }
            }
        }
        files::write_synced(&path, &pretty(&object))?;
        files::sync_dir(&self.folders.partial)?;
        self.office.inbox().acknowledge(std::slice::from_ref(&item.item_id)).await.map_err(io::Error::other)?;
        Ok(())
    }

    /// Attachments as files; their names in the order of the body.
    async fn write_attachments(&self, message: &pb::ReceivedMessage, stem: &str) -> io::Result<Vec<String>> {
        let attachments = message.body.as_ref().map_or(&[][..], |body| &body.attachments);
        let mut names: Vec<String> = Vec::with_capacity(attachments.len());
        if attachments.is_empty() {
            return Ok(names);
        }
        let folder = self.folders.partial.join(stem);
        files::create_private_dir(&folder)?;
        for (index, attachment) in (0_u32..).zip(attachments) {
            let mut name = safe_name(&attachment.name);
            if names.contains(&name) || name.is_empty() {
                name = format!("{index}-{name}");
            }
            let mut file = tokio::fs::File::from_std(files::create_private_file(&folder.join(&name))?);
            let mut reading = self.office.attachment(&message.message_id, index).await.map_err(io::Error::other)?;
            while let Some(bytes) = reading.next().await.map_err(io::Error::other)? {
                file.write_all(&bytes).await?;
            }
            file.flush().await?;
            file.sync_all().await?;
            names.push(name);
        }
        files::sync_dir(&folder)?;
        Ok(names)
    }

    /// Gives the synced files their names, the JSON last.
    fn publish(&self, stem: &str) -> io::Result<()> {
        files::rename_if_there(&self.folders.partial.join(stem), &self.folders.incoming.join(stem))?;
        let json = self.folders.incoming.join(format!("{stem}.json"));
        files::rename(&self.folders.partial.join(format!("{stem}.item.json")), &json)
    }
}

/// A message: its id. A notice: the id of the message that it is about, its own, and its kind; there may be two of one kind.
pub(super) fn stem_of(item: &pb::InboxItem) -> String {
    match &item.kind {
        Some(Kind::Message(message)) => safe_name(&message.message_id),
        Some(Kind::Notice(notice)) => {
            let about = if notice.message_id.is_empty() { &notice.case_id } else { &notice.message_id };
            safe_name(&format!("{about}.{}.{}", item.item_id, notice.kind.to_ascii_lowercase()))
        }
        None => safe_name(&item.item_id),
    }
}

/// A file name out of a name that somebody else chose: no separators, no control characters, not hidden, not too long.
pub(super) fn safe_name(name: &str) -> String {
    let base = Path::new(name).file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let clean: String = base
        .chars()
        .map(|c| if c.is_control() || "/\\:*?\"<>|".contains(c) { '_' } else { c })
        .take(NAME_MAX)
        .collect();
    clean.trim_start_matches('.').trim_end_matches([' ', '.']).to_owned()
}
