//! What the command line promises to whoever types it: a documented exit code, one sentence, what to do, and nothing like a debug
//! dump.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

fn tramite(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tramite"));
    for name in ["TRAMITE_ADAPTER", "TRAMITE_GATEWAY", "TRAMITE_CERTS"] {
        command.env_remove(name);
    }
    command.args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn answered(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One line that says what is wrong, perhaps one that says what to do; no debug output.
fn is_plain(text: &str) {
    assert!((1..=2).contains(&text.trim_end().lines().count()), "not a sentence and an advice:\n{text}");
    for sign in ["panicked", "Error {", "Some(", "Err(", "\u{1b}["] {
        assert!(!text.contains(sign), "{sign} in:\n{text}");
    }
}

#[test]
fn a_wrong_argument_is_64_and_points_to_the_help() {
    for arguments in [&["nonsense"][..], &["ops"], &["demo", "--twice"], &["cases", "--limit", "many"], &["gateway"]] {
        let output = tramite(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", said(&output));
        assert!(
            said(&output).contains("--help") || said(&output).contains("Usage"),
            "{arguments:?}: {}",
            said(&output)
        );
    }
}

#[test]
fn help_teaches_and_is_no_failure() {
    let output = tramite(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for word in ["tramite demo", "TRAMITE_ADAPTER", "Exit codes", "64"] {
        assert!(answered(&output).contains(word), "{word}");
    }
    let output = tramite(&["send", "--help"]);
    assert!(answered(&output).contains("Examples"), "{}", answered(&output));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = tramite(&["send", "/nowhere/message.json"]);
    assert_eq!(output.status.code(), Some(66));
    assert!(said(&output).contains("/nowhere/message.json"), "{}", said(&output));
    is_plain(&said(&output));
}

#[test]
fn a_file_that_is_no_message_says_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("message.json");
    for (text, part) in
        [("{", "line 1"), (r#"{"kind":"poem"}"#, "poem"), (r#"{"kind":"referral","referral":{}}"#, "to")]
    {
        fs::write(&file, text).unwrap();
        let output = tramite(&["send", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(65), "{text}: {}", said(&output));
        assert!(said(&output).contains(part), "{text}: {}", said(&output));
        is_plain(&said(&output));
    }
}

#[test]
fn nobody_named_and_nobody_there_are_two_things() {
    let output = tramite(&["cases"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(said(&output).contains("TRAMITE_ADAPTER"), "{}", said(&output));
    is_plain(&said(&output));
    let output = tramite(&["cases", "--adapter", "unix:/nowhere/backoffice.sock"]);
    assert_eq!(output.status.code(), Some(69));
    assert!(said(&output).contains("/nowhere/backoffice.sock"), "{}", said(&output));
    is_plain(&said(&output));
}

#[test]
fn a_wrong_configuration_is_78_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    fs::write(&file, "name = \"gateway\"\nnonsense = 1\n").unwrap();
    for role in ["gateway", "adapter"] {
        let output = tramite(&[role, "--config", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(78), "{}", said(&output));
        is_plain(&said(&output));
        let output = tramite(&[role, "--config", "/nowhere/tramite.toml"]);
        assert_eq!(output.status.code(), Some(78), "{}", said(&output));
        assert!(said(&output).contains("/nowhere/tramite.toml"), "{}", said(&output));
        is_plain(&said(&output));
    }
}

#[test]
fn failures_are_json_for_programs() {
    let output = tramite(&["--json", "cases", "--adapter", "unix:/nowhere/backoffice.sock"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(value["error"]["exit"], 69);
    assert!(value["error"]["message"].as_str().unwrap().contains("/nowhere"));
    assert!(output.stdout.is_empty());
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let output = tramite(&["completion", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(answered(&output).contains("dead-letters"), "{shell}");
    }
}

#[test]
fn document_codes_can_be_listed() {
    let output = tramite(&["documents", "kinds", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let codes: Vec<&str> =
        value["documents"].as_array().unwrap().iter().map(|row| row["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"STATO_FAMIGLIA"));
}

#[test]
fn a_network_is_made_shown_revoked_and_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let inps = folder.path().join("inps");
    let made = tramite(&["certs", "init", "--dir", dir, "--trust-domain", "test.example"]);
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    let issued = tramite(&[
        "certs",
        "issue",
        "--dir",
        dir,
        "--role",
        "institution",
        "--name",
        "inps",
        "--out",
        inps.to_str().unwrap(),
    ]);
    assert_eq!(issued.status.code(), Some(0), "{}", said(&issued));
    assert_eq!(mode(&inps.join("tls.key")), 0o600);
    let again = tramite(&["certs", "init", "--dir", dir, "--trust-domain", "test.example"]);
    assert_eq!(again.status.code(), Some(73), "{}", said(&again));
    is_plain(&said(&again));

    let shown = tramite(&["certs", "show", inps.to_str().unwrap(), "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(value["certificates"][0]["certificate"]["name"], "inps");
    let renewed = tramite(&["certs", "renew", "--dir", dir, inps.to_str().unwrap()]);
    assert_eq!(renewed.status.code(), Some(0), "{}", said(&renewed));

    let tls = inps.join("tls.pem");
    let revoke = ["certs", "revoke", "--dir", dir, tls.to_str().unwrap(), "--reason", "superseded", "--publish"];
    let revoked = tramite(&[&revoke[..], &[inps.to_str().unwrap()]].concat());
    assert_eq!(revoked.status.code(), Some(0), "{}", said(&revoked));
    let list = tramite(&["certs", "show", inps.join("crl.pem").to_str().unwrap(), "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(value["revocation_lists"][0]["list"]["revoked"], 1);
    let network = tramite(&["certs", "show", dir]);
    assert!(answered(&network).contains("revoked"), "{}", answered(&network));
}

#[test]
fn a_folder_with_something_in_it_is_no_place_for_a_demo() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine.txt"), "mine").unwrap();
    let output = tramite(&["demo", "--once", "--dir", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    is_plain(&said(&output));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was written");
}

#[test]
fn a_wrong_line_is_json_for_programs_too() {
    for arguments in [&["--json", "nonsense"][..], &["cases", "--limit", "many", "--json"]] {
        let output = tramite(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let value: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(value["error"]["exit"], 64);
        assert!(!value["error"]["message"].as_str().unwrap().contains('\n'));
    }
}

#[test]
fn who_accepts_and_never_answers_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("silent.sock");
    // It listens, and nobody ever reads.
    let _silent = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let begun = std::time::Instant::now();
    let commands: [&[&str]; 3] = [&["status"], &["inbox", "--watch"], &["cases"]];
    let address = format!("unix:{}", path.display());
    std::thread::scope(|scope| {
        for command in commands {
            let address = address.as_str();
            scope.spawn(move || {
                let output = tramite(&[command, &["--adapter", address]].concat());
                assert_eq!(output.status.code(), Some(69), "{command:?}: {}", said(&output));
                assert!(said(&output).contains("10 seconds"), "{}", said(&output));
                is_plain(&said(&output));
            });
        }
    });
    assert!(begun.elapsed() < std::time::Duration::from_secs(40), "{:?}", begun.elapsed());
}

#[test]
fn every_vocabulary_is_listed_with_labels_and_whole_lines() {
    let all: serde_json::Value = serde_json::from_slice(&tramite(&["codes", "--json"]).stdout).unwrap();
    for list in ["purposes", "legal-bases", "benefits", "needs", "documents", "reasons", "outcomes"] {
        let rows = all[list].as_array().unwrap();
        assert!(rows.iter().all(|row| !row["label"].as_str().unwrap().is_empty()), "{list}");
        let shown = tramite(&["codes", list]);
        assert_eq!(answered(&shown).lines().count(), rows.len() + 2, "{list}: a head, a rule, a line for each");
    }
}

#[test]
fn what_is_no_object_is_told_what_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("message.json");
    fs::write(&file, "[]").unwrap();
    let output = tramite(&["send", file.to_str().unwrap()]);
    assert!(said(&output).contains("one JSON object is expected"), "{}", said(&output));
    assert_eq!(said(&output).matches("not a message").count(), 1, "{}", said(&output));
}

#[test]
fn a_list_is_published_although_the_certificate_was_revoked_before() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let (inps, late) = (folder.path().join("inps"), folder.path().join("late"));
    fs::create_dir(&late).unwrap();
    fs::write(late.join("root.pem"), "its own").unwrap();
    tramite(&["certs", "init", "--dir", dir, "--trust-domain", "test.example"]);
    let issue = ["certs", "issue", "--dir", dir, "--role", "institution", "--name", "inps", "--out"];
    assert_eq!(tramite(&[&issue[..], &[inps.to_str().unwrap()]].concat()).status.code(), Some(0));
    fs::copy(inps.join("tls.pem"), folder.path().join("old.pem")).unwrap();
    let renewed = tramite(&["certs", "renew", "--dir", dir, inps.to_str().unwrap(), "--within", "1"]);
    assert!(answered(&renewed).contains("No certificate was due"), "{}", answered(&renewed));
    assert!(!answered(&renewed).contains("key record"), "{}", answered(&renewed));
    tramite(&["certs", "renew", "--dir", dir, inps.to_str().unwrap()]);

    let old = folder.path().join("old.pem");
    let revoke = ["certs", "revoke", "--dir", dir, old.to_str().unwrap(), "--reason", "key-compromise"];
    let revoked = tramite(&revoke);
    assert_eq!(revoked.status.code(), Some(0), "{}", said(&revoked));
    assert!(answered(&revoked).contains("also valid: "), "{}", answered(&revoked));
    let again = tramite(&revoke);
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("tramite certs crl"), "{}", said(&again));
    let published = tramite(&[&revoke[..], &["--publish", late.to_str().unwrap()]].concat());
    assert_eq!(published.status.code(), Some(0), "{}", said(&published));
    assert!(late.join("crl.pem").is_file());
}

#[test]
fn a_list_goes_only_into_the_folders_of_members_and_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, inps, stray) = (folder.path(), folder.path().join("inps"), folder.path().join("stray"));
    fs::create_dir(&stray).unwrap();
    let dir = dir.to_str().unwrap();
    tramite(&["certs", "init", "--dir", dir, "--trust-domain", "test.example"]);
    let issue = ["certs", "issue", "--dir", dir, "--role", "institution", "--name", "inps", "--out"];
    assert_eq!(tramite(&[&issue[..], &[inps.to_str().unwrap()]].concat()).status.code(), Some(0));
    let before = fs::read(inps.join("crl.pem")).unwrap();
    let publish = |to: &[&Path]| {
        let to: Vec<&str> = to.iter().flat_map(|folder| ["--publish", folder.to_str().unwrap()]).collect();
        tramite(&[&["certs", "crl", "--dir", dir][..], &to].concat())
    };
    let refused = publish(&[&inps, &stray]);
    assert_eq!(refused.status.code(), Some(66), "{}", answered(&refused));
    assert!(said(&refused).contains("stray is no member's folder"), "{}", said(&refused));
    is_plain(&said(&refused));
    assert!(!stray.join("crl.pem").exists() && fs::read(inps.join("crl.pem")).unwrap() == before, "it was written");
    let published = publish(&[&inps]);
    assert!(answered(&published).contains(inps.join("crl.pem").to_str().unwrap()), "{}", answered(&published));
    assert_ne!(fs::read(inps.join("crl.pem")).unwrap(), before);
}

#[test]
fn what_is_refused_leaves_no_empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, out) = (folder.path().to_str().unwrap(), folder.path().join("gateway"));
    tramite(&["certs", "init", "--dir", dir, "--trust-domain", "test.example"]);
    // A gateway needs a name or an address to be dialled at.
    let issue =
        ["certs", "issue", "--dir", dir, "--role", "gateway", "--name", "gateway", "--out", out.to_str().unwrap()];
    assert_ne!(tramite(&issue).status.code(), Some(0));
    assert!(!out.exists());
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
