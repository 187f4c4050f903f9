//! Whom the sender writes to: sealed bodies, taken in turns, and the batches of who receives them.

use tramite_proto::ids::InstitutionName;

use crate::bench::{
    batches::Batches,
    client::{self, Trouble},
    letter::Letter,
    part::Part,
    wire::Setup,
};

/// Letters for one recipient, and its batches.
pub(super) struct Correspondent {
    pub(super) name: InstitutionName,
    pub(super) letters: Vec<Letter>,
    next: usize,
    pub(super) batches: Batches,
}

impl Correspondent {
    /// Seals `pool` bodies, and reads the keys.
    pub(super) fn new(
        setup: &Setup,
        from: &InstitutionName,
        name: &str,
        pool: usize,
        part: Option<&Part>,
    ) -> Result<Self, Trouble> {
        let to: InstitutionName = name.parse().map_err(|error| Trouble::of("a recipient's name", &error))?;
        let key = client::encryption_key(&setup.folder, name)?;
        let filling = |seed: usize| {
            let seed = u8::try_from(seed % 251).unwrap_or(0);
            vec![seed; setup.content.saturating_sub(64)]
        };
        let part = part.map(|part| &part.facts);
        let letters = (0..pool).map(|seed| Letter::seal(from, &to, &key, setup.content, &filling(seed), part));
        let letters = letters.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { name: to, letters, next: 0, batches: Batches::of(&setup.folder, name)? })
    }

    /// The next one.
    pub(super) fn letter(&mut self) -> Result<&Letter, Trouble> {
        let place = self.next % self.letters.len().max(1);
        self.next = place + 1;
        self.letters.get(place).ok_or_else(|| Trouble::new("no body was sealed".to_owned()))
    }
}
