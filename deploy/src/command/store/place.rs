//! Where a store is, and whether who asks may: itself, in a node's data folder, or named by a configuration.
//!
//! Invariant: what cannot be seen is never said to be missing; nobody but its owner makes files in a store, as the node could not open
//! them.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::failure::{Exit, Failure, chain};

/// The accounts of this machine: `name:password:uid:…`.
const ACCOUNTS: &str = "/etc/passwd";

/// What was asked for, to be repeated in advice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) command: &'static str,
    pub(super) path: &'a Path,
}

impl Asked<'_> {
    /// The store that the path means.
    pub(super) fn find(self) -> Result<PathBuf, Failure> {
        let about = fs::metadata(self.path).map_err(|error| self.unreadable(self.path, &error))?;
        let data = if about.is_file() { self.configured()? } else { self.path.to_owned() };
        if data != self.path {
            fs::metadata(&data).map_err(|error| self.unreadable(&data, &error))?;
        }
        for place in [data.clone(), data.join("store")] {
            match fs::metadata(place.join("store.toml")) {
                Ok(_) => return Ok(place),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(self.unreadable(&place, &error)),
            }
        }
        let sentence =
            format!("there is no store in {}: neither it nor its folder `store` has a store.toml", data.display());
        Err(Failure::new(Exit::NoInput, sentence, "Give the folder that `data` in the node's configuration names."))
    }

    /// The data folder that a configuration names.
    fn configured(self) -> Result<PathBuf, Failure> {
        let wrong = |what: String| {
            let sentence = format!("{} is no configuration of a node: {what}", self.path.display());
            Failure::new(Exit::Config, sentence, "Give gateway.toml, adapter.toml, or the node's data folder.")
        };
        let text = match fs::read_to_string(self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(wrong("it is not text".into())),
            Err(error) => return Err(self.unreadable(self.path, &error)),
        };
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(chain(&error)))?;
        let data = table.get("data").and_then(toml::Value::as_str).ok_or_else(|| wrong("it has no `data`".into()))?;
        Ok(self.path.parent().unwrap_or(Path::new("")).join(data))
    }

    /// A path that cannot be looked at: it is not there, or not for who asks.
    pub(super) fn unreadable(self, path: &Path, error: &io::Error) -> Failure {
        let shown = path.display();
        if is_missing(error) {
            let advice = "Give the node's data folder, or its configuration file.";
            return Failure::new(Exit::NoInput, format!("{shown}: no such file or folder"), advice);
        }
        if error.kind() != io::ErrorKind::PermissionDenied {
            return Failure::new(Exit::NoInput, format!("{shown} cannot be read: {error}"), "Look at the disk.");
        }
        Failure::new(Exit::NoPermission, format!("{shown}: permission denied"), self.as_owner(path))
    }

    /// Refuses who does not own the store.
    pub(super) fn only_owner(self, store: &Path) -> Result<(), Failure> {
        let about = fs::metadata(store).map_err(|error| self.unreadable(store, &error))?;
        if about.uid() == rustix::process::geteuid().as_raw() {
            return Ok(());
        }
        let sentence =
            format!("{} belongs to {}, who could not open what you make in it", store.display(), name(about.uid()));
        Err(Failure::new(Exit::NoPermission, sentence, self.as_owner(store)))
    }

    /// The command as the owner of a path gives it. Of a path that cannot be seen: as the owner of what it is in.
    fn as_owner(self, path: &Path) -> String {
        let owner = path.ancestors().find_map(|above| fs::metadata(above).ok()).map(|about| name(about.uid()));
        let (owner, path) = (owner.unwrap_or_else(|| "USER".into()), self.path.display());
        format!("Run it as the user that owns it: sudo -u {owner} tramite store {} {path}", self.command)
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The name of an account, or its number as sudo takes it.
fn name(uid: u32) -> String {
    let accounts = fs::read_to_string(ACCOUNTS).unwrap_or_default();
    let found = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| format!("'#{uid}'"))
}
