//! What reading keys promises: files that others can read are refused, and nothing of a key is ever shown.
use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn a_key_that_others_may_read_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let (kid, key) = generate_encryption_key(Suite::X25519).unwrap();
    let path = save_encryption_key(directory.path(), &kid, &key).unwrap();
    load_encryption_key(&path).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o777] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = load_encryption_key(&path).err().unwrap();
        assert!(matches!(error, SecretError::Mode { .. }), "{mode:o}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    load_encryption_key(&path).unwrap();
}

#[test]
fn encryption_keys_come_back_as_they_were_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut made = Vec::new();
    for suite in Suite::all() {
        let (kid, key) = generate_encryption_key(suite).unwrap();
        save_encryption_key(directory.path(), &kid, &key).unwrap();
        made.push((kid.clone(), key.public_key(kid)));
    }
    fs::write(directory.path().join("sign.key"), "another kind of key").unwrap();
    made.sort_by(|one, other| one.0.cmp(&other.0));
    let read = load_encryption_keys(directory.path()).unwrap();
    let read: Vec<_> = read.into_iter().map(|(kid, key)| (kid.clone(), key.public_key(kid))).collect();
    assert_eq!(read, made);
}

#[test]
fn a_damaged_encryption_key_is_refused_without_its_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let (kid, key) = generate_encryption_key(Suite::X25519).unwrap();
    let path = save_encryption_key(directory.path(), &kid, &key).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let secret = text.lines().last().unwrap().to_owned();
    for damaged in [
        text.replace(" v1", " v2"),
        text.replace("suite X", "suite Y"),
        format!("{text}more\n"),
        text.replace("key ", "key A"),
    ] {
        fs::write(&path, damaged).unwrap();
        let error = load_encryption_key(&path).err().unwrap();
        assert!(matches!(error, SecretError::Malformed { .. }));
        assert!(!format!("{error:?} {error}").contains(&secret));
    }
}

#[test]
fn a_log_key_is_ed25519_and_private() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.key");
    generate_log_key(&path).unwrap();
    load_log_key(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_rotation_puts_a_key_beside_the_old_ones_and_never_a_weaker_one() {
    let directory = tempfile::tempdir().unwrap();
    let rotate = |suite| rotate_encryption_key(directory.path(), suite);
    assert!(matches!(rotate(None), Err(SecretError::NoKey { .. })));
    let (old, key) = generate_encryption_key(Suite::X25519).unwrap();
    save_encryption_key(directory.path(), &old, &key).unwrap();
    let (new, path) = rotate(None).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(load_encryption_key(&path).unwrap().1.suite(), Suite::X25519);
    let (strong, _) = rotate(Some(Suite::XWing)).unwrap();
    assert!(rotate(Some(Suite::X25519)).unwrap_err().to_string().contains("weaker"));
    let (follows, path) = rotate(None).unwrap();
    assert_eq!(load_encryption_key(&path).unwrap().1.suite(), Suite::XWing);
    let mut kids: Vec<_> = load_encryption_keys(directory.path()).unwrap().into_iter().map(|(kid, _)| kid).collect();
    let mut all = vec![old, new, strong, follows];
    kids.sort();
    all.sort();
    assert_eq!(kids, all);
    while rotate(None).is_ok() {}
    assert!(rotate(None).unwrap_err().to_string().contains("move those away"));
    assert_eq!(load_encryption_keys(directory.path()).unwrap().len(), ENCRYPTION_KEYS_MAX);
}
