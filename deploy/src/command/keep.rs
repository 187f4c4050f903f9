//! Keeping an inbox item as files: the item as JSON, its attachments in a folder beside it.
//!
//! Knows names, modes and what must be on the disk before anybody may acknowledge. Invariants: a file appears under its name only
//! when it is whole and synced; a file that is there is never replaced by other content; when [`keep`] returns, files and folders
//! are on the disk.

use std::{
    collections::BTreeSet,
    fs as blocking,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use tokio::{fs, io::AsyncWriteExt as _};
use tramite_adapters::json::inbox_item_to_json;
use tramite_proto::pb::backoffice::v1::{self as bo, inbox_item::Kind};

use crate::{
    connect::Adapter,
    failure::{Exit, Failure, chain},
};

/// Bytes that are compared at once.
const BLOCK: usize = 64 * 1024;
/// The longest name of an attachment that file systems take, with room for a number before it.
const NAME_MAX: usize = 200;

/// Keeps an item in `folder`; returns the path of its JSON.
pub(super) async fn keep(adapter: &mut Adapter, folder: &Path, item: &bo::InboxItem) -> Result<PathBuf, Failure> {
    own_folder(folder).await.map_err(|error| cannot(folder, &error))?;
    let name = name_of(item);
    if let Some(Kind::Message(message)) = &item.kind {
        let attachments = message.body.as_ref().map(|body| body.attachments.as_slice()).unwrap_or_default();
        let beside = folder.join(&name);
        if !attachments.is_empty() {
            own_folder(&beside).await.map_err(|error| cannot(&beside, &error))?;
        }
        let mut taken = BTreeSet::new();
        for (index, attachment) in (0_u32..).zip(attachments) {
            let path = beside.join(free_name(&mut taken, &attachment.name, index));
            keep_attachment(adapter, &message.message_id, index, &path).await?;
        }
        if !attachments.is_empty() {
            sync_folder(&beside).await.map_err(|error| cannot(&beside, &error))?;
        }
    }
    let path = folder.join(format!("{name}.json"));
    // Whether it was shown before is no part of what is kept: shown again, it is the same.
    let kept = bo::InboxItem { repeated: false, ..item.clone() };
    let text = serde_json::to_vec_pretty(&inbox_item_to_json(&kept))
        .map_err(|error| Failure::internal(format!("an item cannot be written as JSON: {}", chain(&error))))?;
    let (mut file, temporary) = begin(&path).await.map_err(|error| cannot(&path, &error))?;
    file.write_all(&text).await.map_err(|error| cannot(&path, &error))?;
    finish(file, temporary, &path).await?;
    sync_folder(folder).await.map_err(|error| cannot(folder, &error))?;
    Ok(path)
}

/// A message is known by its id; a message has several notices, so that a notice is known by kind and item, too.
fn name_of(item: &bo::InboxItem) -> String {
    match &item.kind {
        Some(Kind::Message(message)) => file_name(&message.message_id),
        Some(Kind::Notice(notice)) => {
            file_name(&format!("{}-{}-{}", notice.message_id, notice.kind.to_lowercase(), item.item_id))
        }
        None => file_name(&format!("item-{}", item.item_id)),
    }
}

/// An id as part of a path.
fn file_name(id: &str) -> String {
    id.chars().map(|letter| if letter.is_ascii_alphanumeric() || letter == '-' { letter } else { '_' }).collect()
}

/// A name comes from the other side: only its last part, never one that leads anywhere, and each once in a folder.
fn free_name(taken: &mut BTreeSet<String>, given: &str, index: u32) -> String {
    let last = Path::new(given).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut plain: String = last.chars().map(|letter| if letter.is_control() { '_' } else { letter }).collect();
    while plain.len() > NAME_MAX {
        plain.pop();
    }
    if plain.is_empty() || plain.starts_with('.') {
        plain = format!("attachment-{index}{plain}");
    }
    // Names that differ in nothing but case are one on some file systems.
    if taken.insert(plain.to_lowercase()) {
        return plain;
    }
    let numbered = format!("{index}-{plain}");
    taken.insert(numbered.to_lowercase());
    numbered
}

async fn keep_attachment(adapter: &mut Adapter, message: &str, index: u32, path: &Path) -> Result<(), Failure> {
    let request = bo::GetAttachmentRequest { message_id: message.to_owned(), index };
    let answer = adapter.client.get_attachment(request).await.map_err(|status| adapter.failed(&status))?;
    let mut frames = answer.into_inner();
    let (mut file, temporary) = begin(path).await.map_err(|error| cannot(path, &error))?;
    while let Some(frame) = frames.message().await.map_err(|status| adapter.failed(&status))? {
        file.write_all(&frame.data).await.map_err(|error| cannot(path, &error))?;
    }
    finish(file, temporary, path).await
}

/// A new file beside `path` that goes away when it is not finished. Mode 0600: what is kept is about people.
async fn begin(path: &Path) -> io::Result<(fs::File, tempfile::TempPath)> {
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let made = tokio::task::spawn_blocking(move || {
        tempfile::Builder::new().prefix(".keeping-").tempfile_in(folder).map(tempfile::NamedTempFile::into_parts)
    });
    let (file, path) = made.await.map_err(io::Error::other)??;
    Ok((fs::File::from_std(file), path))
}

/// Syncs the file and gives it its name, unless another stands there.
async fn finish(mut file: fs::File, temporary: tempfile::TempPath, path: &Path) -> Result<(), Failure> {
    file.flush().await.map_err(|error| cannot(path, &error))?;
    file.sync_all().await.map_err(|error| cannot(path, &error))?;
    drop(file);
    let target = path.to_owned();
    let named = tokio::task::spawn_blocking(move || match temporary.persist_noclobber(&target) {
        Ok(()) => Ok(true),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => same(&error.path, &target),
        Err(error) => Err(error.error),
    });
    match named.await.map_err(io::Error::other).and_then(|inner| inner) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(
            Exit::CannotCreate,
            format!(
                "{} is there with other content; it was left as it is and the item was not acknowledged",
                path.display()
            ),
            "Give an empty folder with --save, or put that file elsewhere.",
        )),
        Err(error) => Err(cannot(path, &error)),
    }
}

/// True when two files hold the same; the one that was there before is synced then, since it is now what was kept.
fn same(new: &Path, old: &Path) -> io::Result<bool> {
    let (mut new, kept) = (blocking::File::open(new)?, blocking::File::open(old)?);
    if !kept.metadata()?.is_file() || new.metadata()?.len() != kept.metadata()?.len() {
        return Ok(false);
    }
    let mut reader = &kept;
    let limit = u64::try_from(BLOCK).unwrap_or(u64::MAX);
    loop {
        let (mut left, mut right) = (Vec::with_capacity(BLOCK), Vec::with_capacity(BLOCK));
        (&mut new).take(limit).read_to_end(&mut left)?;
        reader.by_ref().take(limit).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            kept.sync_all()?;
            return Ok(true);
        }
    }
}

/// A folder that nobody else reads.
async fn own_folder(path: &Path) -> io::Result<()> {
    if fs::metadata(path).await.is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).await?;
    // Its own name stands in its parent.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_folder(parent).await
}

/// Names are on the disk when their folder is.
async fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path).await?.sync_all().await
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    let sentence = format!("{} cannot be written", path.display());
    Failure::new(Exit::CannotCreate, sentence, "Give a folder that you may write to with --save.").because(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    async fn write(path: &Path, text: &str) -> Result<(), Failure> {
        let (mut file, temporary) = begin(path).await.unwrap();
        file.write_all(text.as_bytes()).await.unwrap();
        finish(file, temporary, path).await
    }

    #[tokio::test]
    async fn a_file_is_never_replaced_by_other_content() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("kept");
        own_folder(&folder).await.unwrap();
        assert_eq!(blocking::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        let path = folder.join("message.json");
        write(&path, "one").await.unwrap();
        assert_eq!(blocking::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        write(&path, "one").await.unwrap();
        let refused = write(&path, "two").await.unwrap_err();
        assert_eq!(refused.exit, Exit::CannotCreate);
        assert!(refused.sentence.contains("not acknowledged"), "{refused}");
        assert_eq!(blocking::read_to_string(&path).unwrap(), "one");
        assert_eq!(blocking::read_dir(&folder).unwrap().count(), 1, "nothing temporary is left");
    }

    #[test]
    fn a_message_and_its_notices_have_names_of_their_own() {
        let item = |item_id: &str, kind| bo::InboxItem {
            item_id: item_id.to_owned(),
            kind: Some(kind),
            ..bo::InboxItem::default()
        };
        let notice = |kind: &str| {
            Kind::Notice(bo::Notice { kind: kind.to_owned(), message_id: "0198".to_owned(), ..bo::Notice::default() })
        };
        let message =
            Kind::Message(bo::ReceivedMessage { message_id: "0198".to_owned(), ..bo::ReceivedMessage::default() });
        assert_eq!(name_of(&item("7", message)), "0198");
        assert_eq!(name_of(&item("8", notice("OPENED"))), "0198-opened-8");
        assert_eq!(name_of(&item("9", notice("OPENED"))), "0198-opened-9");
    }

    #[test]
    fn names_from_the_other_side_lead_nowhere_and_do_not_collide() {
        let mut taken = BTreeSet::new();
        assert_eq!(free_name(&mut taken, "../../etc/passwd", 0), "passwd");
        assert_eq!(free_name(&mut taken, "passwd", 1), "1-passwd");
        assert_eq!(free_name(&mut taken, "..", 2), "attachment-2");
        assert_eq!(free_name(&mut taken, ".profile", 3), "attachment-3.profile");
    }
}
