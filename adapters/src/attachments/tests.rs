//! What staged attachments promise: they come back whole, sealed on the disk, and not forever.

use tramite_proto::clock::ManualClock;

use super::*;

const NOW: i64 = 1_790_000_000_000;

fn open(directory: &Path, clock: &ManualClock) -> Attachments {
    Attachments::open(directory, Arc::new(clock.clone()), Entropy::of_the_system()).expect("a folder")
}

fn header(name: &str) -> pb::AttachmentHeader {
    pb::AttachmentHeader { name: name.into(), media_type: "application/pdf".into(), document: String::new() }
}

async fn put(attachments: &Attachments, content: &[u8]) -> pb::PutAttachmentResponse {
    let mut writing = attachments.begin(header("foglio.pdf"), true).expect("begun");
    for piece in content.chunks(100_000) {
        writing.write(piece).expect("written");
    }
    writing.finish().expect("kept")
}

async fn read(attachments: &Attachments, id: &str) -> Vec<u8> {
    let (id, about) = attachments.about(id).expect("known");
    let mut reading = attachments.read(&id, &about).expect("there");
    let mut content = Vec::new();
    while let Some(bytes) = reading.next().expect("whole") {
        content.extend(bytes);
    }
    content
}

#[tokio::test]
async fn a_file_comes_back_whole_even_after_a_restart() {
    let folder = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(NOW);
    let content: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let stored = put(&open(folder.path(), &clock), &content).await;
    assert_eq!(stored.length, 300_000);
    assert_eq!(stored.sha256, Digest::of(&content).as_bytes().as_slice());
    assert_eq!(read(&open(folder.path(), &clock), &stored.attachment_id).await, content);
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let folder = tempfile::tempdir().expect("a directory");
    let attachments = open(folder.path(), &ManualClock::new(NOW));
    let stored = put(&attachments, b"").await;
    assert_eq!(read(&attachments, &stored.attachment_id).await, b"");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_now_is_not_called_unknown() {
    let folder = tempfile::tempdir().expect("a directory");
    let attachments = open(folder.path(), &ManualClock::new(NOW));
    let stored = put(&attachments, b"whole").await;
    let about = folder.path().join(format!("{}.about", stored.attachment_id));
    // A folder in its place: reading it fails, as on a disk that is gone.
    fs::remove_file(&about).expect("removed");
    fs::create_dir(&about).expect("a folder");
    let refused = attachments.about(&stored.attachment_id).expect_err("it cannot be read");
    assert_eq!(refused.reason, Reason::StoreFailed);
}

#[tokio::test]
async fn nothing_stands_in_clear_on_the_disk() {
    let folder = tempfile::tempdir().expect("a directory");
    let attachments = open(folder.path(), &ManualClock::new(NOW));
    put(&attachments, b"CANARY-CONTENT").await;
    for entry in fs::read_dir(folder.path()).expect("a listing") {
        let bytes = fs::read(entry.expect("an entry").path()).expect("a file");
        let has = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
        assert!(!has(b"CANARY-CONTENT") && !has(b"foglio.pdf"));
    }
}

#[tokio::test]
async fn a_file_over_25_mib_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a directory");
    let attachments = open(folder.path(), &ManualClock::new(NOW));
    let mut writing = attachments.begin(header("a.pdf"), true).expect("begun");
    let piece = vec![0_u8; 1 << 20];
    for _ in 0..25 {
        writing.write(&piece).expect("within the limit");
    }
    assert_eq!(writing.write(b"x").expect_err("over the limit").reason, Reason::PayloadTooLarge);
    drop(writing);
    assert_eq!(fs::read_dir(folder.path()).expect("a listing").count(), 1, "only the key is left");
}

#[tokio::test]
async fn a_file_is_forgotten_after_a_day() {
    let folder = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(NOW);
    let attachments = open(folder.path(), &clock);
    let stored = put(&attachments, b"short").await;
    attachments.sweep(NOW.saturating_add_unsigned(KEEP_MS)).expect("swept");
    assert!(attachments.about(&stored.attachment_id).is_ok());
    attachments.sweep(NOW.saturating_add_unsigned(KEEP_MS) + 1).expect("swept");
    assert_eq!(attachments.about(&stored.attachment_id).expect_err("gone").reason, Reason::AttachmentUnknown);
}

#[tokio::test]
async fn a_file_put_by_a_clock_that_is_not_believed_is_kept_for_a_day_whatever_it_said() {
    let folder = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(NOW);
    let mut writing = open(folder.path(), &clock).begin(header("foglio.pdf"), false).expect("begun");
    writing.write(b"short").expect("written");
    let stored = writing.finish().expect("kept");
    // Another run, and another year.
    let attachments = open(folder.path(), &clock);
    let right = NOW + 400 * 86_400_000;
    attachments.sweep(right).expect("swept");
    assert_eq!(read(&attachments, &stored.attachment_id).await, b"short");
    attachments.sweep(right.saturating_add_unsigned(KEEP_MS) + 1).expect("swept");
    assert_eq!(attachments.about(&stored.attachment_id).expect_err("gone").reason, Reason::AttachmentUnknown);
    assert_eq!(fs::read_dir(folder.path()).expect("a listing").count(), 1, "only the key is left");
}

#[test]
fn a_name_with_a_path_is_refused() {
    let folder = tempfile::tempdir().expect("a directory");
    let attachments = open(folder.path(), &ManualClock::new(NOW));
    for name in ["", "../a", "a/b", "a\\b", ".hidden", "a\nb"] {
        assert!(attachments.begin(header(name), true).is_err(), "{name:?}");
    }
    assert!(attachments.about("not-an-id").is_err());
}

#[test]
fn what_a_send_would_refuse_is_refused_at_once() {
    let folder = tempfile::tempdir().expect("a directory");
    let attachments = open(folder.path(), &ManualClock::new(NOW));
    let of_type = |media_type: &str| pb::AttachmentHeader { media_type: media_type.into(), ..header("a.pdf") };
    let of_document = pb::AttachmentHeader { document: "NO-SUCH".into(), ..header("a.pdf") };
    for (header, field) in [
        (header("con.pdf"), "header.name"),
        (header("a?.pdf"), "header.name"),
        (of_type("pdf"), "header.media_type"),
        (of_type("application/pdf; q=1"), "header.media_type"),
        (of_document, "header.document"),
    ] {
        let refused = attachments.begin(header.clone(), true).err().expect("refused");
        assert_eq!((refused.reason, refused.field.as_deref()), (Reason::FieldInvalid, Some(field)), "{header:?}");
    }
}

#[tokio::test]
async fn a_key_that_a_crash_left_half_written_is_made_anew() {
    use std::os::unix::fs::PermissionsExt as _;
    for left in [0, 1, 31] {
        let folder = tempfile::tempdir().expect("a directory");
        let clock = ManualClock::new(NOW);
        let path = folder.path().join("staging.key");
        fs::write(&path, vec![7; left]).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        let stored = put(&open(folder.path(), &clock), b"content").await;
        assert_eq!(fs::read(&path).expect("a key").len(), 32);
        assert_eq!(fs::metadata(&path).expect("a key").permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&open(folder.path(), &clock), &stored.attachment_id).await, b"content");
        assert!(!folder.path().join("staging.key.new").exists());
    }
}

#[test]
fn a_key_that_others_could_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(NOW);
    drop(open(folder.path(), &clock));
    fs::set_permissions(folder.path().join("staging.key"), fs::Permissions::from_mode(0o640)).expect("set");
    let error =
        Attachments::open(folder.path(), Arc::new(clock), Entropy::of_the_system()).expect_err("others can read it");
    assert!(error.to_string().contains("chmod 600"), "{error}");
}
