//! `tramite certs revoke`: ends a certificate, and says what else is needed for that to count.

use std::path::{Path, PathBuf};

use serde_json::json;
use tramite_certs::authority::{Authority, AuthorityError, RevocationReason};
use tramite_proto::clock::{Clock as _, SystemClock};

use super::{failed, lists, members, open};
use crate::{
    failure::{Exit, Failure, chain},
    output::Output,
};

/// Revokes by serial or file.
pub(super) fn run(dir: &Path, what: &str, reason: &str, publish: &[PathBuf], output: Output) -> Result<Exit, Failure> {
    let reason: RevocationReason =
        reason.parse().map_err(|error: AuthorityError| Failure::usage(error.to_string(), ""))?;
    members(publish)?;
    let mut authority = open(dir)?;
    let path = Path::new(what);
    let revoked = if path.is_file() { authority.revoke_file(path, reason) } else { authority.revoke(what, reason) };
    let serial = match revoked {
        Ok(revoked) => revoked.serial,
        Err(error @ AuthorityError::AlreadyRevoked { .. }) => {
            return already_revoked(&authority, &error, publish, output);
        }
        Err(error) => return Err(failed(&error)),
    };
    authority.publish_crl(publish).map_err(|error| failed(&error))?;
    let list = authority.crl_path();
    let also = also_valid(&authority, &serial);
    let value =
        json!({"serial": serial, "reason": reason.as_str(), "crl": list, "published": publish, "also_valid": also});
    output.answer(&value, || {
        let also = if also.is_empty() {
            String::new()
        } else {
            format!("\nalso valid: {}; revoke them too if the key may be lost", also.join(", "))
        };
        let to = if publish.is_empty() { "each member's folder" } else { "every other member's folder" };
        output.folded(&format!(
            "{serial} is revoked ({}). The new revocation list:\n{}\nIt counts where it is: put it into {to} as crl.pem \
             (`tramite certs crl --dir {} --publish DIR`), the gateway's first; open connections of the revoked one are \
             then cut within a minute.{also}",
            reason.as_str(),
            lists(&list, publish),
            dir.display(),
        ))
    });
    Ok(Exit::Ok)
}

/// Revoked before: with folders given the list goes there all the same, since that is what was wanted.
fn already_revoked(
    authority: &Authority,
    error: &AuthorityError,
    publish: &[PathBuf],
    output: Output,
) -> Result<Exit, Failure> {
    if publish.is_empty() {
        return Err(failed(error));
    }
    authority.publish_crl(publish).map_err(|error| failed(&error))?;
    let said = chain(error);
    let value = json!({"already_revoked": true, "message": said, "crl": authority.crl_path(), "published": publish});
    output.answer(&value, || {
        let lists = lists(&authority.crl_path(), publish);
        format!("{said}. The revocation list was put into the folders given all the same:\n{lists}")
    });
    Ok(Exit::Ok)
}

/// The other serials of the same holder and kind that still count, the newest first.
fn also_valid(authority: &Authority, serial: &str) -> Vec<String> {
    let ledger = authority.ledger();
    let Some(one) = ledger.find(serial) else { return Vec::new() };
    let now_s = SystemClock.now_s();
    let others = ledger.certificates().rev().filter(|other| {
        (other.role, &other.name, other.kind) == (one.role, &one.name, one.kind)
            && other.not_after > now_s
            && ledger.revocation(&other.serial).is_none()
    });
    others.map(|other| other.serial.clone()).collect()
}
