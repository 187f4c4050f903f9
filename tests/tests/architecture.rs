//! The layering as a table, held against every `Cargo.toml` and every source file.
//!
//! `proto <- certs, store <- gateway, adapters <- deploy`; gateway and adapters never name each other. The tests
//! drive the real binary and so name only what a peer would have: the contracts and the certificates. The simulation alone composes
//! the product anew, on a simulated network and disk, and names what `deploy` names, and the store for its disk.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, ensure};
use tramite_tests::source::{self, SourceFile};

/// One room: its folder, its crate, and which of our crates it may name.
struct Room {
    folder: &'static str,
    name: &'static str,
    may_name: &'static [&'static str],
}

const ROOMS: [Room; 8] = [
    Room { folder: "proto", name: "tramite-proto", may_name: &[] },
    Room { folder: "certs", name: "tramite-certs", may_name: &["tramite-proto"] },
    Room { folder: "gateway/store", name: "tramite-store", may_name: &["tramite-proto"] },
    Room { folder: "gateway", name: "tramite-gateway", may_name: &["tramite-proto", "tramite-certs", "tramite-store"] },
    Room {
        folder: "adapters",
        name: "tramite-adapters",
        may_name: &["tramite-proto", "tramite-certs", "tramite-store"],
    },
    Room {
        folder: "deploy",
        name: "tramite",
        may_name: &["tramite-proto", "tramite-certs", "tramite-store", "tramite-gateway", "tramite-adapters"],
    },
    Room { folder: "tests", name: "tramite-tests", may_name: &["tramite-proto", "tramite-certs"] },
    Room {
        folder: SIMULATION,
        name: "tramite-tests",
        may_name: &["tramite-proto", "tramite-certs", "tramite-store", "tramite-gateway", "tramite-adapters"],
    },
];

/// A folder of the tests with a row of its own; its crates are dev-dependencies of theirs.
const SIMULATION: &str = "tests/tests/simulation";

/// Crates of others that stand for a decision, and the only rooms that may name them.
const ONLY_IN: [(&str, &[&str]); 12] = [
    ("sled", &["gateway/store"]),
    ("crc32c", &["gateway/store"]),
    ("hpke", &["proto"]),
    ("rcgen", &["certs", "tests"]),
    ("rustls", &["certs", "tests"]),
    ("tokio-rustls", &["certs", "tests"]),
    ("rustls-webpki", &["certs", "proto"]),
    ("x509-parser", &["certs"]),
    ("anyhow", &["deploy", "tests"]),
    ("clap", &["deploy"]),
    ("tracing-subscriber", &["deploy"]),
    ("opentelemetry-otlp", &["deploy"]),
];

/// What a room never does, by the text that would do it. Checked outside test code.
const NEVER: [(&str, &[&str]); 3] = [
    // Pure: whoever holds the contracts needs no disk, no net, no clock but the one passed in.
    ("proto/src", &["std::fs", "std::net", "std::env", "tokio::", "Instant::now"]),
    ("certs/src", &["std::env::var"]),
    // Configuration comes from its file, in `deploy` and from there by value.
    ("gateway", &["std::env::var", "println!", "eprintln!"]),
];

/// The system's clock is read in one file; everybody else is given a `Clock`.
const CLOCK: &str = "proto/src/clock.rs";

/// Crates named by the given dependency tables of a manifest.
fn dependencies(manifest: &str, tables: &[&str]) -> Result<BTreeSet<String>> {
    let parsed: toml::Table = manifest.parse().context("not TOML")?;
    let mut names = BTreeSet::new();
    for table in tables {
        if let Some(entries) = parsed.get(*table).and_then(toml::Value::as_table) {
            names.extend(entries.keys().cloned());
        }
    }
    Ok(names)
}

/// Our crates named by source text, as package names.
fn named(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("tramite_") {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        let word: String = code[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let rest = &code[at + word.len()..];
        if !(before.is_ascii_alphanumeric() || before == '_') && (rest.starts_with("::") || rest.starts_with(';')) {
            names.insert(word.replace('_', "-"));
        }
    }
    names
}

/// The room that a file belongs to: the deepest folder that holds it.
fn room_of(path: &str) -> Option<&'static Room> {
    ROOMS
        .iter()
        .filter(|room| path.strip_prefix(room.folder).is_some_and(|rest| rest.starts_with('/')))
        .max_by_key(|room| room.folder.len())
}

/// Everything that a source file names and may not.
fn breaches(file: &SourceFile) -> Vec<String> {
    let Some(room) = room_of(&file.path) else { return Vec::new() };
    named(&source::without_comments(&file.text))
        .into_iter()
        .filter(|name| name != room.name && !room.may_name.contains(&name.as_str()))
        .filter(|name| ROOMS.iter().any(|other| other.name == name))
        .map(|name| format!("{}: {} may not name {name}", file.path, room.name))
        .collect()
}

/// Source without comments and without what stands behind `#[cfg(test)]` (by custom, the end of a file).
fn production(file: &SourceFile) -> String {
    let code = source::without_comments(&file.text);
    code.split_once("#[cfg(test)]\nmod tests {").map_or(code.clone(), |(before, _)| before.to_owned())
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

#[test]
fn every_manifest_keeps_to_the_table() -> Result<()> {
    let mut wrong = Vec::new();
    let simulated = ROOMS.iter().filter(|room| room.folder == SIMULATION).flat_map(|room| room.may_name);
    for room in ROOMS.iter().filter(|room| room.folder != SIMULATION) {
        let path = source::workspace().join(room.folder).join("Cargo.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let for_tests = dependencies(&text, &["dev-dependencies"])?;
        for name in dependencies(&text, &["dependencies", "build-dependencies", "dev-dependencies"])? {
            let in_simulation =
                room.folder == "tests" && for_tests.contains(&name) && simulated.clone().any(|may| *may == name);
            if name.starts_with("tramite") && !room.may_name.contains(&name.as_str()) && !in_simulation {
                wrong.push(format!("{}/Cargo.toml: may not depend on {name}", room.folder));
            }
        }
        // What tests alone use decides nothing.
        for name in dependencies(&text, &["dependencies"])? {
            if ONLY_IN.iter().any(|(only, rooms)| *only == name && !rooms.contains(&room.folder)) {
                wrong.push(format!("{}/Cargo.toml: {name} belongs to another room", room.folder));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_member_of_the_workspace_is_a_room() -> Result<()> {
    let manifest: toml::Table = fs::read_to_string(source::workspace().join("Cargo.toml"))?.parse()?;
    let members: BTreeSet<&str> = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("members"))
        .and_then(toml::Value::as_array)
        .context("no members")?
        .iter()
        .filter_map(toml::Value::as_str)
        .collect();
    let rooms: BTreeSet<&str> = ROOMS.iter().map(|room| room.folder).filter(|folder| *folder != SIMULATION).collect();
    ensure!(members == rooms, "members {members:?}, rooms {rooms:?}");
    Ok(())
}

#[test]
fn every_source_file_names_only_what_its_room_may_name() -> Result<()> {
    let wrong: Vec<String> =
        source::text_files()?.iter().filter(|file| file.ending() == "rs").flat_map(breaches).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn a_room_does_nothing_that_belongs_to_another() -> Result<()> {
    let mut wrong = Vec::new();
    for file in source::text_files()?.iter().filter(|file| file.ending() == "rs" && !is_test_file(&file.path)) {
        let code = production(file);
        for (folder, words) in NEVER {
            if file.path.starts_with(&format!("{folder}/")) && file.path != CLOCK {
                wrong.extend(words.iter().filter(|w| code.contains(**w)).map(|w| format!("{}: {w}", file.path)));
            }
        }
        if file.path != CLOCK && ["SystemTime::now", "now_utc"].iter().any(|word| code.contains(word)) {
            wrong.push(format!("{}: reads the system's clock; take a Clock", file.path));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn the_check_finds_a_breach() {
    let file = |path: &str, text: &str| SourceFile { path: path.into(), text: text.into() };
    let found = |path: &str, text: &str| breaches(&file(path, &text.replace('#', "tramite_"))).len();
    assert_eq!(found("gateway/src/a.rs", "use #adapters::Config;"), 1);
    assert_eq!(found("adapters/src/a.rs", "fn f() { #gateway::run() }"), 1);
    assert_eq!(found("gateway/store/src/a.rs", "use #certs::tls;"), 1);
    assert_eq!(found("gateway/src/a.rs", "use #store::Store; // #adapters::no"), 0);
    assert_eq!(found("proto/src/a.rs", "//! #gateway::Gateway"), 0);
    assert_eq!(found("tests/tests/a.rs", "use #gateway::Gateway;"), 1);
    assert_eq!(found("tests/tests/simulation/a.rs", "use #gateway::Gateway;"), 0);
    assert_eq!(dependencies("[dependencies]\nsled.workspace = true\n", &["dependencies"]).unwrap().len(), 1);
}
