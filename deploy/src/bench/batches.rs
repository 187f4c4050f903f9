//! Batches of one other side, verified once each: the header is kept under the very text of its JWS. Only successes are kept.

use std::{collections::HashMap, path::Path, sync::Arc};

use tramite_certs::files;
use tramite_proto::{
    batch::{self, Header},
    jws::VerifyingKey,
    pb::statement::v1::{FramedStatement, Statement},
};

use super::client::Trouble;

/// A batch is referred to by frames that follow each other closely: those of so many are forgotten together.
const KEPT: usize = 1_024;

/// The batches of one signer.
#[derive(Debug)]
pub(super) struct Batches {
    name: String,
    key: VerifyingKey,
    known: HashMap<String, Arc<Header>>,
    /// Signatures verified.
    pub(super) verified: u64,
}

impl Batches {
    /// Of `name`, whose signing certificate lies in its folder. The bench made that certificate itself a moment ago; its chain is not
    /// what is measured.
    pub(super) fn of(folder: &Path, name: &str) -> Result<Self, Trouble> {
        let path = folder.join(name).join("sign.pem");
        let chain = files::certificates(&path).map_err(|error| Trouble::of("a signing certificate", &error))?;
        let key = chain.first().and_then(|leaf| VerifyingKey::from_certificate(leaf));
        let key = key.ok_or_else(|| Trouble::new(format!("{} holds no P-256 key", path.display())))?;
        Ok(Self { name: name.to_owned(), key, known: HashMap::new(), verified: 0 })
    }

    /// The header of a batch whose signature is this signer's.
    pub(super) fn header(&mut self, jws: &str) -> Result<Arc<Header>, Trouble> {
        if let Some(header) = self.known.get(jws) {
            return Ok(Arc::clone(header));
        }
        let header = batch::verify(jws, &self.key).map_err(|refused| Trouble::refused("a batch", &refused))?;
        if header.iss.as_str() != self.name {
            return Err(Trouble::new(format!("a batch is by {}, not by {}", header.iss, self.name)));
        }
        self.verified += 1;
        let header = Arc::new(header);
        if self.known.len() == KEPT {
            self.known.clear();
        }
        self.known.insert(jws.to_owned(), Arc::clone(&header));
        Ok(header)
    }

    /// Checks that a statement of a frame stands in a batch of this signer; gives its bytes.
    pub(super) fn check(&mut self, jws: &[String], framed: FramedStatement) -> Result<bytes::Bytes, Trouble> {
        let text = usize::try_from(framed.jws_index).ok().and_then(|place| jws.get(place));
        let text = text.ok_or_else(|| Trouble::new("a statement refers to a batch that its frame lacks".to_owned()))?;
        let header = self.header(text)?;
        let FramedStatement { json, index, path, .. } = framed;
        let statement = Statement { json, jws: String::new(), index, path };
        batch::check_inclusion(&statement, &header).map_err(|refused| Trouble::refused("an inclusion", &refused))?;
        Ok(statement.json)
    }
}
