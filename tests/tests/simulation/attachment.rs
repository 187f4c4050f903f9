//! An attachment whose name says what its bytes must be, so that whoever reads it can tell without asking its sender; and what a power cut
//! does to the folder where an adapter keeps it until its message is sent.

use std::{fs, io, ops::Range, path::Path};

use tramite_tests::sample;

use super::dice::Dice;

/// From one chunk to several.
const BYTES: Range<u64> = 10_000..100_000;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attachment {
    length: u64,
    seed: u64,
}

impl Attachment {
    pub(crate) fn thrown(dice: &Dice) -> Self {
        Self { length: dice.within(BYTES), seed: dice.throw() }
    }

    /// What answers a request for documents: half of the answers have one, always the same.
    pub(crate) fn answering(case_id: &str) -> Option<Self> {
        let dice = Dice::of(case_id);
        dice.chance(50).then(|| Self::thrown(&dice))
    }

    pub(crate) fn name(self) -> String {
        format!("{}-{}.pdf", self.length, self.seed)
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        let (length, seed) = name.strip_suffix(".pdf")?.split_once('-')?;
        Some(Self { length: length.parse().ok()?, seed: seed.parse().ok()? })
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        sample::bytes(usize::try_from(self.length).expect("a length in memory"), self.seed)
    }
}

/// An attachment is synced by the time its description is there, as a party does both in one step. Of the bytes of all others the seed
/// decides: whole, cut short, or gone. (What was removed and comes back is not played: nobody looks at it again.)
pub(crate) fn lose_power(folder: &Path, seed: u64) -> io::Result<()> {
    let dice = Dice::new(seed);
    let mut names: Vec<String> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    names.sort();
    for name in names {
        let path = folder.join(&name);
        // The key was synced before its adapter began to serve.
        if !name.ends_with(".data") || path.with_extension("about").exists() {
            continue;
        }
        match dice.within(0..3) {
            0 => fs::remove_file(path)?,
            1 => fs::OpenOptions::new().write(true).open(path)?.set_len(dice.within(0..100))?,
            _ => {}
        }
    }
    Ok(())
}
