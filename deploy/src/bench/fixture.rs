//! What the tests of the sender and of the recipients share: everybody's keys in a folder, and statements signed with them.

use bytes::Bytes;
use tempfile::TempDir;
use tramite_certs::{identity, secrets};
use tramite_proto::{
    batch,
    ids::Digest,
    jws::EcdsaSigner,
    pb::statement::v1::FramedStatement,
    statement::{Event, Evidence, Origin},
};

use super::{
    client, network,
    time::{Epoch, now_ns},
    wire::{Role, Setup},
};

/// A folder with keys, and who a process with them is.
pub(super) struct Fixture {
    /// Removed at the end.
    _folder: TempDir,
    pub(super) setup: Setup,
}

impl Fixture {
    /// The sender, two recipients and the gateway.
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let recipients = vec!["recipient-1".to_owned(), "recipient-2".to_owned()];
        let everybody = [network::SENDER].into_iter().chain(recipients.iter().map(String::as_str));
        network::issue(folder.path(), everybody).await.unwrap();
        let setup = Setup {
            role: Role::Sender,
            folder: folder.path().to_owned(),
            address: "127.0.0.1:9".to_owned(),
            epoch_ns: Epoch::of_now().0,
            recipients,
            absent: Vec::new(),
            idle: Vec::new(),
            content: 512,
            part: None,
            gather_ms: 0,
        };
        Self { _folder: folder, setup }
    }

    /// What an institution signs with.
    pub(super) fn pen(&self, name: &str) -> EcdsaSigner {
        client::pen(&self.setup.folder, name).unwrap()
    }

    /// What the gateway signs with.
    pub(super) fn pen_of_the_gateway(&self) -> EcdsaSigner {
        let at = |file: &str| self.setup.folder.join(network::GATEWAY).join(file);
        let (domain, role) = (network::TRUST_DOMAIN.parse().unwrap(), identity::Role::Gateway);
        secrets::load_signing(&at("sign.pem"), &at("sign.key"), &domain, role, network::GATEWAY).unwrap().signer
    }

    /// What the gateway would say of a message.
    pub(super) fn evidence(&self, event: Event, origin: &Origin) -> Evidence {
        Evidence {
            jti: self.setup.epoch().message(now_ns(), 1 << 50),
            iss: network::GATEWAY.parse().unwrap(),
            evt: event,
            mid: origin.jti,
            org_s256: Digest::of(&origin.to_json()),
            from: origin.iss.clone(),
            to: origin.aud.clone(),
            case: origin.case,
            at: origin.iat,
            rsn: None,
            rcp_s256: None,
            peer_s256: (event == Event::SubmissionAcceptance).then_some(Digest([7; 32])),
        }
    }
}

/// A statement under a signature of its own, which joins those of a frame.
pub(super) fn framed(jws: &mut Vec<String>, pen: &EcdsaSigner, iat: i64, json: Bytes) -> FramedStatement {
    let statement = batch::sign(pen, iat, &[json]).unwrap().remove(0);
    jws.push(statement.jws);
    let jws_index = u32::try_from(jws.len() - 1).unwrap();
    FramedStatement { json: statement.json, jws_index, index: statement.index, path: statement.path }
}
