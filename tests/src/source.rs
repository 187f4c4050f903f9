//! The workspace's own source as data: which files there are, and what stands in them.
//!
//! Knows where the workspace is and which folders hold nothing written by hand. Never judges: the rules are in
//! `tests/architecture.rs` and `tests/tidy.rs`. Files are listed in a stable order.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Folders in which nothing is written by hand.
const NOT_SOURCE: [&str; 4] = [".git", "target", "__pycache__", "node_modules"];

/// One text file of the workspace.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Relative to the workspace, with `/`.
    pub path: String,
    /// What stands in it.
    pub text: String,
}

impl SourceFile {
    /// The file name's ending, without the dot.
    #[must_use]
    pub fn ending(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(_, ending)| ending)
    }
}

/// The folder of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Names that stand at the top of the workspace, sorted.
///
/// # Errors
/// When the folder cannot be read.
pub fn top_level() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Every text file under the workspace, sorted by path; files that are not UTF-8 are left out.
///
/// # Errors
/// When a folder or file cannot be read.
pub fn text_files() -> Result<Vec<SourceFile>> {
    let root = workspace();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            if NOT_SOURCE.iter().any(|skipped| name == *skipped) {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let bytes = fs::read(entry.path())?;
                if let Ok(text) = String::from_utf8(bytes) {
                    let path = entry.path().strip_prefix(&root)?.to_string_lossy().replace('\\', "/");
                    found.push(SourceFile { path, text });
                }
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// The text without line comments, so that words in documentation do not count as code.
#[must_use]
pub fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    for line in text.lines() {
        let trimmed = line.trim_start();
        if !trimmed.starts_with("//") {
            code.push_str(line.split_once(" // ").map_or(line, |(before, _)| before));
        }
        code.push('\n');
    }
    code
}
