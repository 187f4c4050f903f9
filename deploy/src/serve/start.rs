//! Why a node did not start: what whoever runs it does about that, and whether a supervisor may try again.
//!
//! Knows the errors of the store and the system, wherever in a chain of causes they stand. Invariant: only what can pass by itself (a
//! port, a store or room that something else holds) has the exit code that a unit starts again after.

use std::{error::Error, io, path::PathBuf};

use tramite_store::{OpenError, ReadError};

use crate::failure::{Exit, Failure, chain};

/// A store needs the segment that is written, the one that is kept for what must always be possible, and the one made when the first
/// is nearly full.
const SEGMENTS_LEAST: u64 = 3;
/// The outbox, and what the journal leaves free on its disk.
const BESIDE_MIB: u64 = 8;

/// What is told about a node that does not start.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) data: PathBuf,
    pub(super) segment_mib: u32,
}

impl Node {
    /// One sentence, what to do, and the exit code.
    pub(super) fn not_started(&self, error: &(dyn Error + 'static)) -> Failure {
        let (exit, advice) = self.remedy(error);
        Failure::new(exit, format!("{} does not start: {}", self.name, chain(error)), advice)
    }

    fn remedy(&self, error: &(dyn Error + 'static)) -> (Exit, String) {
        let data = self.data.display();
        let in_chain = || std::iter::successors(Some(error), |&error| error.source());
        let store = in_chain().find_map(|error| error.downcast_ref::<OpenError>());
        let read = in_chain().find_map(|error| error.downcast_ref::<ReadError>());
        let system = in_chain().find_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind);
        match (store, read, system) {
            (Some(OpenError::Damaged(_)), ..) | (_, Some(ReadError::Damaged(_)), _) => (
                Exit::Data,
                format!("`tramite store verify {data}`, as the user that owns it, says what is damaged and what to do."),
            ),
            (Some(OpenError::InUse(_)), ..) => {
                (Exit::Unavailable, "Wait until that process has ended, or stop it; then start this one again.".into())
            }
            (.., Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) => (
                Exit::Unavailable,
                format!(
                    "Make room on the disk of {data}: a store needs {} MiB at least, three journal segments of {} MiB and its outbox.",
                    u64::from(self.segment_mib) * SEGMENTS_LEAST + BESIDE_MIB,
                    self.segment_mib
                ),
            ),
            (.., Some(io::ErrorKind::AddrInUse)) => (
                Exit::Unavailable,
                "Another process listens there (`ss -ltnp` shows which): end it, or give another address in the configuration.".into(),
            ),
            (.., Some(io::ErrorKind::AddrNotAvailable)) => (
                Exit::Unavailable,
                "Give an address of this machine in the configuration, or wait until its network is up.".into(),
            ),
            (.., Some(io::ErrorKind::PermissionDenied)) => (
                Exit::NoPermission,
                format!("The user that runs it must be able to read its keys, and own {data} with everything in it: chown -R USER {data}"),
            ),
            (Some(OpenError::Io { .. } | OpenError::Outbox(_)), ..) | (_, Some(_), _) => {
                (Exit::Unavailable, "Look at the disk and the system's log, put that right and start it again.".into())
            }
            _ => (Exit::Config, "Put that right and start it again.".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tramite_gateway::StartError;
    use tramite_store::Damage;

    use super::*;

    fn said(error: &StartError) -> Failure {
        Node { name: "the gateway", data: "data".into(), segment_mib: 64 }.not_started(error)
    }

    fn system(kind: io::ErrorKind) -> StartError {
        OpenError::Io { action: "make", path: "data/journal".into(), source: kind.into() }.into()
    }

    #[test]
    fn each_reason_not_to_start_has_its_advice_and_only_what_passes_is_tried_again() {
        let damage = Damage { file: "data/journal/1.seg".into(), offset: 7, what: "a checksum is wrong".into() };
        let listen = |kind: io::ErrorKind| StartError::Listen {
            address: std::net::SocketAddr::from(([127, 0, 0, 1], 7443)),
            source: kind.into(),
        };
        let cases = [
            (OpenError::Damaged(damage.clone()).into(), Exit::Data, "tramite store verify data"),
            (StartError::Unreadable(ReadError::Damaged(damage)), Exit::Data, "tramite store verify data"),
            (OpenError::InUse("data".into()).into(), Exit::Unavailable, "that process"),
            (system(io::ErrorKind::StorageFull), Exit::Unavailable, "200 MiB"),
            (system(io::ErrorKind::PermissionDenied), Exit::NoPermission, "chown -R USER data"),
            (listen(io::ErrorKind::AddrInUse), Exit::Unavailable, "Another process listens"),
            (listen(io::ErrorKind::AddrNotAvailable), Exit::Unavailable, "an address of this machine"),
            (OpenError::Foreign { directory: "data".into(), what: "x".into() }.into(), Exit::Config, "Put that right"),
        ];
        for (error, exit, advice) in cases {
            let failure = said(&error);
            assert!(failure.exit == exit && failure.advice.contains(advice), "{failure:?}");
        }
    }
}
