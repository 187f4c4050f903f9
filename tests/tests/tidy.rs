//! House style that no compiler checks: what may stand at the top, what every file opens with, what no file may hold.
//!
//! Every rule is a function over one file, so that the last test can show each of them failing.

use anyhow::{Result, ensure};
use tramite_tests::source::{self, SourceFile};

/// At 500 lines a file has a second idea.
const LINES_MAX: usize = 500;
/// The longest line; rustfmt's `max_width` with room for a string that it does not break.
const COLUMNS_MAX: usize = 200;
/// A file that nobody can read in an editor does not belong into the source.
const FILE_BYTES_MAX: usize = 512 * 1024;

/// The rooms, and the files that tools look for at the top.
const TOP: [&str; 13] = [
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "adapters",
    "certs",
    "deploy",
    "gateway",
    "proto",
    "target",
    "tests",
];

/// One complaint about one file, or none.
type Rule = fn(&SourceFile) -> Option<String>;

const RULES: [Rule; 9] =
    [header, length, width, size, exceptions, leftovers, machine_paths, private_keys, skipped_tests];

fn header(file: &SourceFile) -> Option<String> {
    (file.ending() == "rs" && !file.text.starts_with("//! "))
        .then(|| "does not open with `//!`: what it is, knows, never knows".into())
}

fn length(file: &SourceFile) -> Option<String> {
    let lines = file.text.lines().count();
    (file.ending() == "rs" && lines > LINES_MAX)
        .then(|| format!("{lines} lines: at {LINES_MAX} ask what the second idea is"))
}

fn width(file: &SourceFile) -> Option<String> {
    let at = file.text.lines().position(|line| line.chars().count() > COLUMNS_MAX)?;
    (file.ending() == "rs").then(|| format!("line {} is wider than {COLUMNS_MAX}", at + 1))
}

fn size(file: &SourceFile) -> Option<String> {
    (file.text.len() > FILE_BYTES_MAX).then(|| format!("{} bytes", file.text.len()))
}

fn exceptions(file: &SourceFile) -> Option<String> {
    let words = [concat!("#[", "allow("), concat!("#![", "allow(")];
    (file.ending() == "rs" && words.iter().any(|word| file.text.contains(word)))
        .then(|| "an exception is `expect` with a reason".into())
}

fn leftovers(file: &SourceFile) -> Option<String> {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:"), concat!("HA", "CK:")];
    let found = words.iter().find(|word| has_word(&file.text, word))?;
    Some(format!("holds a {found}"))
}

fn machine_paths(file: &SourceFile) -> Option<String> {
    let folders = [concat!("/wo", "rk"), concat!("/ro", "ot"), concat!("/ho", "me"), concat!("/Us", "ers")];
    let found = folders.iter().find(|folder| has_path(&file.text, folder))?;
    Some(format!("names a path of one machine: {found}"))
}

/// A label alone is code that reads keys; a label with a line of base64 below it is a key.
fn private_keys(file: &SourceFile) -> Option<String> {
    let label = concat!("PRIVATE ", "KEY-----");
    let key = |line: &str| line.len() >= 40 && line.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c));
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    lines
        .iter()
        .zip(lines.iter().skip(1))
        .any(|(first, next)| first.ends_with(label) && key(next))
        .then(|| "holds a private key".into())
}

fn skipped_tests(file: &SourceFile) -> Option<String> {
    (file.ending() == "rs" && file.text.contains(concat!("#[", "ignore")))
        .then(|| "holds a test that is skipped".into())
}

/// `word` with nothing of a longer word around it.
fn has_word(text: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(inside) && (word.ends_with(':') || !after.is_some_and(inside))
    })
}

/// `folder` as an absolute path: nothing of a path before it, a slash behind it.
fn has_path(text: &str, folder: &str) -> bool {
    text.match_indices(folder).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let part_of_path = |c: char| c.is_alphanumeric() || "._-/}>)*$".contains(c);
        !before.is_some_and(part_of_path) && text[at + folder.len()..].starts_with('/')
    })
}

/// The crates that a lock file takes from anywhere but the public registry.
fn foreign_sources(lock: &str) -> Vec<&str> {
    lock.lines()
        .filter(|line| line.starts_with("source = "))
        .filter(|line| *line != "source = \"registry+https://github.com/rust-lang/crates.io-index\"")
        .collect()
}

#[test]
fn every_file_keeps_to_the_house_style() -> Result<()> {
    let mut wrong = Vec::new();
    for file in source::text_files()?.iter().filter(|file| file.path != "Cargo.lock") {
        wrong.extend(RULES.iter().filter_map(|rule| rule(file)).map(|what| format!("{}: {what}", file.path)));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn nothing_stands_at_the_top_but_what_is_fixed() -> Result<()> {
    let strangers: Vec<String> =
        source::top_level()?.into_iter().filter(|n| !n.starts_with('.') && !TOP.contains(&n.as_str())).collect();
    ensure!(strangers.is_empty(), "at the top of the workspace: {strangers:?}");
    Ok(())
}

#[test]
fn every_crate_comes_from_the_public_registry() -> Result<()> {
    let lock = std::fs::read_to_string(source::workspace().join("Cargo.lock"))?;
    ensure!(foreign_sources(&lock).is_empty(), "{:?}", foreign_sources(&lock));
    Ok(())
}

#[test]
fn each_rule_finds_its_breach() {
    let long = "x\n".repeat(LINES_MAX + 1);
    let base64 = "A".repeat(64);
    let cases: [(Rule, &str, String); 9] = [
        (header, "a.rs", "fn f() {}".into()),
        (length, "a.rs", long),
        (width, "a.rs", "x".repeat(COLUMNS_MAX + 1)),
        (size, "a.json", "x".repeat(FILE_BYTES_MAX + 1)),
        (exceptions, "a.rs", format!("#[{}(dead_code)]", "allow")),
        (leftovers, "a.md", format!("// {}: later", concat!("TO", "DO"))),
        (machine_paths, "a.toml", format!("key = \"{}/somebody/key\"", concat!("/ho", "me"))),
        (private_keys, "a.txt", format!("-----BEGIN {}\n{base64}\n", concat!("PRIVATE ", "KEY-----"))),
        (skipped_tests, "a.rs", format!("#[{}]", "ignore")),
    ];
    for (rule, path, text) in cases {
        let file = SourceFile { path: path.into(), text };
        assert!(rule(&file).is_some(), "no complaint about {path}: {:.60}", file.text);
    }
    let fine =
        SourceFile { path: "a.rs".into(), text: "//! A room.\nconst P: &str = \"authority/root/key\";\n".into() };
    assert!(RULES.iter().all(|rule| rule(&fine).is_none()));
    assert_eq!(foreign_sources("source = \"registry+https://example.org/index\"\n").len(), 1);
}
