//! What the spool's files promise; the whole connector is tested with an adapter around it (`crate::tests`).

use tramite_proto::pb::backoffice::v1::{self as pb, inbox_item::Kind};

use super::{
    incoming::{safe_name, stem_of},
    outgoing::request_id,
};
use crate::files;

#[test]
fn a_request_id_stands_for_name_and_content() {
    let id = request_id("a", b"content");
    assert_eq!(id, request_id("a", b"content"), "the same file is the same request");
    assert_ne!(id, request_id("b", b"content"));
    assert_ne!(id, request_id("a", b"other"));
    assert!(id.parse::<tramite_proto::ids::RequestId>().is_ok(), "{id}");
    assert!(request_id("un nome con spazi è/così", b"").parse::<tramite_proto::ids::RequestId>().is_ok());
}

#[test]
fn a_name_that_somebody_else_chose_stays_in_its_folder() {
    for (given, safe) in [
        ("stato di famiglia.pdf", "stato di famiglia.pdf"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        (".bashrc", "bashrc"),
        ("a\u{0}b\nc", "a_b_c"),
        ("..", ""),
        ("c:\\windows", "c__windows"),
        ("a. ", "a"),
    ] {
        assert_eq!(safe_name(given), safe, "{given:?}");
    }
    assert!(safe_name(&"x".repeat(500)).len() <= 120);
}

#[test]
fn a_rename_replaces_what_a_crash_left() {
    let folder = tempfile::tempdir().expect("a directory");
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    files::create_private_dir(&from).expect("made");
    files::create_private_dir(&to).expect("made");
    std::fs::write(from.join("new"), "new").expect("written");
    std::fs::write(to.join("old"), "old").expect("written");
    files::rename(&from, &to).expect("renamed");
    assert!(to.join("new").exists() && !to.join("old").exists() && !from.exists());
    files::rename_if_there(&from, &to).expect("nothing to do");
}

#[test]
fn a_whole_file_is_private_and_leaves_no_partial_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a directory");
    let (partial, path) = (folder.path().join("partial"), folder.path().join("whole"));
    files::write_whole(&partial, &path, b"content").expect("written");
    assert_eq!(std::fs::read(&path).expect("there"), b"content");
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(!partial.exists());
}

#[test]
fn two_notices_of_one_kind_are_two_files() {
    let notice = |item_id: &str| pb::InboxItem {
        item_id: item_id.into(),
        kind: Some(Kind::Notice(pb::Notice {
            kind: "DEAD_LETTERED".into(),
            message_id: "a-message".into(),
            ..Default::default()
        })),
        ..Default::default()
    };
    assert_eq!(stem_of(&notice("7")), "a-message.7.dead_lettered");
    assert_ne!(stem_of(&notice("7")), stem_of(&notice("8")));
}

#[test]
fn nothing_is_opened_through_a_link_or_outside_its_folder() {
    let folder = tempfile::tempdir().expect("a directory");
    let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
    for made in [&inside, &outside, &inside.join("sub")] {
        files::create_private_dir(made).expect("made");
    }
    std::fs::write(outside.join("secret"), "secret").expect("written");
    std::fs::write(inside.join("sub/file"), "file").expect("written");
    std::os::unix::fs::symlink(outside.join("secret"), inside.join("link")).expect("linked");
    std::os::unix::fs::symlink(&outside, inside.join("folder")).expect("linked");
    let kind =
        |path: &str| files::open_below(&inside, std::path::Path::new(path)).map(drop).map_err(|error| error.kind());
    assert_eq!(kind("sub/file"), Ok(()));
    for path in ["link", "folder/secret", "../out/secret", "sub", "sub/file/x"] {
        assert_eq!(kind(path), Err(std::io::ErrorKind::InvalidInput), "{path}");
    }
    assert_eq!(kind("none"), Err(std::io::ErrorKind::NotFound));
}
