//! Names in `outgoing/`: which of them stand for a message, and under which name one leaves.
//!
//! Knows what a file system takes as a name. Never knows what is in a file. Invariant: whatever ends as a message's file does has a
//! stem under which it can leave, so that nothing stays for ever because of its name.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::Path,
};

use tramite_proto::ids::Digest;

/// A message's file ends so, in any case: not everybody's system tells upper from lower.
const ENDING: &str = ".json";
/// Bytes of a stem: file systems take 255 as a name, and this is the longest that is added to one.
const STEM_BYTES_MAX: usize = 255 - "-01234567.result.json".len();
/// Bytes that are kept of a name that cannot be used: enough to know it again.
const KEPT_BYTES_MAX: usize = 80;

/// A file that stands for a message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    /// Its name in `outgoing`.
    pub(super) file: OsString,
    /// The name without its ending, under which it leaves and after which its attachments' folder is named.
    pub(super) stem: String,
    /// Why it cannot be a message, whatever is in it.
    pub(super) unfit: Option<String>,
}

impl Found {
    /// None for what has another ending, and for what is still being written.
    pub(super) fn of(file: &OsStr) -> Option<Self> {
        let bytes = file.as_encoded_bytes();
        let (stem, ending) = bytes.split_at_checked(bytes.len().checked_sub(ENDING.len())?)?;
        if stem.is_empty() || stem.starts_with(b".") || !ending.eq_ignore_ascii_case(ENDING.as_bytes()) {
            return None;
        }
        let file = file.to_owned();
        Some(match str::from_utf8(stem) {
            Ok(stem) if stem.len() <= STEM_BYTES_MAX => Self { file, stem: stem.to_owned(), unfit: None },
            Ok(_) => {
                let most = STEM_BYTES_MAX + ENDING.len();
                let why = format!("its name is too long: it has {} bytes and may have {most}", bytes.len());
                Self { stem: shortened(stem), unfit: Some(said(&file, &why)), file }
            }
            Err(_) => Self { stem: shortened(stem), unfit: Some(said(&file, "its name is not text in UTF-8")), file },
        })
    }
}

fn said(file: &OsStr, why: &str) -> String {
    format!("not a message: {why}; rename it and put it back. Its name was: {}", file.to_string_lossy())
}

/// Another stem for each other name: its beginning, and its hash.
fn shortened(stem: &[u8]) -> String {
    let mut kept = String::new();
    for c in String::from_utf8_lossy(stem).chars().take_while(|c| !c.is_control()) {
        if kept.len() + c.len_utf8() > KEPT_BYTES_MAX {
            break;
        }
        kept.push(c);
    }
    let hash: String = Digest::of(stem).to_hex().chars().take(16).collect();
    format!("{kept}-{hash}")
}

/// Those of a folder, sorted. Hidden ones are still being written.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        found.extend(Found::of(&entry?.file_name()));
    }
    found.sort();
    Ok(found)
}

/// The stem beside one that is taken by another message.
pub(super) fn beside(stem: &str, request_id: &str) -> Option<String> {
    let tail = request_id.get(request_id.len().saturating_sub(8)..)?;
    Some(format!("{stem}-{tail}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn every_name_with_the_ending_has_a_stem_that_fits_and_no_two_have_the_same() {
        let long = "è".repeat(122);
        for (file, stem) in [("a.json", Some("a")), ("A.JSON", Some("A")), ("a.b.Json", Some("a.b"))] {
            let found = Found::of(OsStr::new(file));
            assert_eq!(
                found.map(|found| (found.stem, found.unfit)),
                stem.map(|stem| (stem.to_owned(), None)),
                "{file}"
            );
        }
        for file in ["a.txt", ".json", ".a.json", "json", "", "a.json.partial"] {
            assert_eq!(Found::of(OsStr::new(file)), None, "{file}");
        }
        let names: Vec<OsString> = vec![
            format!("{long}1.json").into(),
            format!("{long}2.json").into(),
            OsStr::from_bytes(b"perch\xe8.json").to_owned(),
            OsStr::from_bytes(b"perch\xe9.json").to_owned(),
        ];
        let mut stems: Vec<String> = names
            .iter()
            .map(|name| {
                let found = Found::of(name).expect("it has the ending");
                assert!(found.unfit.is_some() && found.stem.len() <= STEM_BYTES_MAX, "{found:?}");
                found.stem
            })
            .collect();
        stems.sort();
        stems.dedup();
        assert_eq!(stems.len(), names.len());
    }
}
