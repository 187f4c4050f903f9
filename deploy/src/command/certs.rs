//! `tramite certs …`: the authority of a network, and what its certificates say.

mod revoke;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::json;
use tramite_certs::{
    authority::{
        Authority, AuthorityError, Bundle, BundleOptions, CertificateShown, CrlShown, Renewal, Shown, State, Subject,
        issue_bundle, renew, show_file,
    },
    identity::{Role, TrustDomain},
    secrets::{self, SecretError},
};
use tramite_proto::{
    clock::{Clock as _, SystemClock},
    ids::InstitutionName,
    seal::Suite,
};

use crate::{
    cli::{Certs, CertsCommand, Issue, RoleWord},
    failure::{Exit, Failure, chain},
    output::{Output, Tone, short_id},
    sheet::Step,
};

/// With less than this left, a certificate is shown as one to renew.
const SOON_DAYS: i64 = 14;

/// Does what is asked.
pub(crate) fn run(asked: &Certs, output: &Output) -> Result<Exit, Failure> {
    match &asked.command {
        CertsCommand::Init { at, trust_domain } => init(&at.dir, trust_domain, *output),
        CertsCommand::Issue(asked) => issue(asked, *output),
        CertsCommand::Renew { at, folder, within } => {
            let bundle = renew(&mut open(&at.dir)?, folder, Renewal::All, *within).map_err(|error| failed(&error))?;
            let has = |name: &str| bundle.files.iter().any(|file| file.ends_with(name));
            let next = match (has("tls.pem"), has("sign.pem")) {
                (false, false) => "No certificate was due: only root and revocation list were written again.",
                (_, false) => "Running nodes take it up by themselves.",
                (_, true) => "Running nodes take it up by themselves; an adapter then publishes its new key record.",
            };
            written(&bundle, next, *output);
            Ok(Exit::Ok)
        }
        CertsCommand::RotateEncryptionKey { folder, suite } => rotate(folder, suite.as_deref(), *output),
        CertsCommand::Revoke { at, what, reason, publish } => revoke::run(&at.dir, what, reason, publish, *output),
        CertsCommand::Crl { at, days, publish } => {
            members(publish)?;
            let mut authority = open(&at.dir)?;
            let list = authority.crl(*days).map_err(|error| failed(&error))?;
            authority.publish_crl(publish).map_err(|error| failed(&error))?;
            let path = authority.crl_path();
            output.answer(
                &json!({"number": list.number, "next_update": list.next_update, "path": path, "published": publish}),
                || {
                    let to = if publish.is_empty() { "each member's folder" } else { "every other member's folder" };
                    output.folded(&format!(
                        "Revocation list number {} is written:\n{}\nPut it into {to} as crl.pem before its {days} days are over.",
                        list.number,
                        lists(&path, publish),
                    ))
                },
            );
            Ok(Exit::Ok)
        }
        CertsCommand::Show { paths } => show(paths, *output),
    }
}

/// Refuses folders that are no member's, before anything is written: a list in the wrong place counts nowhere.
fn members(folders: &[PathBuf]) -> Result<(), Failure> {
    let is_member = |folder: &PathBuf| ["tls.pem", "root.pem"].iter().any(|name| folder.join(name).is_file());
    folders.iter().find(|folder| !is_member(folder)).map_or(Ok(()), |stranger| {
        let sentence = format!("{} is no member's folder: it has neither tls.pem nor root.pem", stranger.display());
        Err(Failure::new(Exit::NoInput, sentence, "Name folders that `tramite certs issue` made; nothing was written."))
    })
}

/// Where a list was written, a line each.
fn lists(path: &Path, folders: &[PathBuf]) -> String {
    let all = std::iter::once(path.to_owned()).chain(folders.iter().map(|folder| folder.join("crl.pem")));
    all.map(|file| format!("  {}", file.display())).collect::<Vec<_>>().join("\n")
}

fn init(dir: &Path, trust_domain: &str, output: Output) -> Result<Exit, Failure> {
    let domain: TrustDomain = trust_domain.parse().map_err(|error| {
        Failure::usage(format!("{trust_domain} is no trust domain: {error}"), "Give for example tramite.example.")
    })?;
    let authority = Authority::init(dir, domain, Arc::new(SystemClock)).map_err(|error| failed(&error))?;
    let folder = dir.join("authority");
    output.answer(&json!({"trust_domain": authority.trust_domain().as_str(), "folder": folder}), || {
        let folder = folder.display();
        format!(
            "The authority of {trust_domain} is made: {folder}\n\
             Keep {folder}/root.key where nobody else reads it; hand {folder}/root.pem to each member, out of band.\n\
             Next: tramite certs issue --dir {} --role gateway --name gateway --dns HOST --out DIR",
            dir.display()
        )
    });
    Ok(Exit::Ok)
}

fn issue(asked: &Issue, output: Output) -> Result<Exit, Failure> {
    let name: InstitutionName = asked.name.parse().map_err(|_| {
        Failure::usage(
            format!("{} is not a name", asked.name),
            "Use lower-case letters, digits and hyphens, at most 63.",
        )
    })?;
    let suite = suite_of(&asked.suite)?;
    let role = match asked.role {
        RoleWord::Institution => Role::Institution,
        RoleWord::Operator => Role::Operator,
        RoleWord::Auditor => Role::Auditor,
        RoleWord::Gateway => Role::Gateway,
    };
    let options = BundleOptions {
        subject: Subject {
            display_name: asked.display_name.clone(),
            organization_identifier: asked.organization_identifier.clone(),
        },
        dns: asked.dns.clone(),
        addresses: asked.address.clone(),
        tls_days: asked.days,
        suite,
        ..BundleOptions::default()
    };
    let mut authority = open(&asked.at.dir)?;
    let was_there = asked.out.exists();
    let bundle = issue_bundle(&mut authority, role, &name, &asked.out, &options).map_err(|error| {
        if !was_there {
            // Only an empty folder can be removed so: what was written stays.
            drop(fs::remove_dir(&asked.out));
        }
        failed(&error)
    })?;
    let next = match role {
        Role::Institution => {
            "Hand the folder over in person; its adapter.toml names these files (deploy/examples/adapter.toml)."
        }
        Role::Gateway => "The gateway.toml names these files (deploy/examples/gateway.toml).",
        Role::Operator | Role::Auditor => "Its holder sets TRAMITE_CERTS to the folder.",
    };
    written(&bundle, next, output);
    Ok(Exit::Ok)
}

fn suite_of(word: &str) -> Result<Suite, Failure> {
    word.parse().map_err(|_| {
        Failure::usage(format!("{word} is not a suite"), "Use X25519-SHA256-AES256GCM or XWING-SHA256-AES256GCM.")
    })
}

fn rotate(folder: &Path, suite: Option<&str>, output: Output) -> Result<Exit, Failure> {
    let suite = suite.map(suite_of).transpose()?;
    let (kid, path) = secrets::rotate_encryption_key(folder, suite).map_err(|error| {
        let (exit, advice) = match &error {
            SecretError::Weaker { .. } => (Exit::Usage, "Leave --suite out, or name a stronger one."),
            SecretError::NoRandomness => (Exit::Internal, "Report it."),
            _ => (
                Exit::NoInput,
                "Name the folder that [encryption] keys of adapter.toml names; check its owner and mode.",
            ),
        };
        Failure::new(exit, chain(&error), advice)
    })?;
    output.answer(&json!({"folder": folder, "key_id": kid.as_str(), "file": path}), || {
        format!(
            "Written:\n  {}\nA running adapter takes it up by itself and publishes its new key record. Keep the older enc-*.key files: \
             what was sealed to them may still be on its way.",
            path.display()
        )
    });
    Ok(Exit::Ok)
}

fn written(bundle: &Bundle, next: &str, output: Output) {
    output.answer(&json!({"folder": bundle.directory, "files": bundle.files}), || {
        let files = bundle.files.iter().map(|file| format!("  {}", file.display()));
        format!("Written:\n{}\n{next}", files.collect::<Vec<_>>().join("\n"))
    });
}

fn show(paths: &[PathBuf], output: Output) -> Result<Exit, Failure> {
    let (mut certificates, mut lists) = (Vec::new(), Vec::new());
    for path in paths {
        if path.join("authority/root.pem").is_file() || path.join("issued.jsonl").is_file() {
            let dir = if path.join("issued.jsonl").is_file() { path.parent().unwrap_or(Path::new("")) } else { path };
            let network = open(dir)?.show().map_err(|error| failed(&error))?;
            certificates.push(("root.pem".to_owned(), network.root));
            certificates.extend(network.certificates.into_iter().map(|shown| (String::new(), shown)));
            lists.extend(network.crl.map(|list| ("crl.pem".to_owned(), list)));
            continue;
        }
        for file in files_of(path)? {
            let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
            match show_file(&file, SystemClock.now_s()).map_err(|error| failed(&error))? {
                // The first is the holder's own; what follows in a chain is the authority's.
                Shown::Certificates(chain) => {
                    certificates.extend(chain.into_iter().take(1).map(|shown| (name.clone(), shown)))
                }
                Shown::Crl(list) => lists.push((name, list)),
            }
        }
    }
    let value = json!({
        "certificates": certificates.iter().map(|(file, shown)| json!({"file": file, "certificate": shown})).collect::<Vec<_>>(),
        "revocation_lists": lists.iter().map(|(file, shown)| json!({"file": file, "list": shown})).collect::<Vec<_>>(),
    });
    output.answer(&value, || page(&certificates, &lists, output));
    Ok(Exit::Ok)
}

/// The PEM files of a folder that hold something to show, or the file itself.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let files: Vec<PathBuf> = ["tls.pem", "sign.pem", "root.pem", "crl.pem"]
        .map(|name| path.join(name))
        .into_iter()
        .filter(|file| file.is_file())
        .collect();
    if files.is_empty() {
        let sentence = format!("{} holds no certificates", path.display());
        return Err(Failure::new(
            Exit::NoInput,
            sentence,
            "Name a folder as `tramite certs init` or `tramite certs issue` makes it.",
        ));
    }
    Ok(files)
}

fn page(certificates: &[(String, CertificateShown)], lists: &[(String, CrlShown)], output: Output) -> String {
    let mut table = output
        .table(&["file", "for", "holder", "dialled as", "ends", "days left", "state", "serial"])
        .steps(&[Step::Flow(3), Step::Head(5, "days"), Step::Short(7, short_id), Step::Drop(3), Step::Flow(2)]);
    for (file, shown) in certificates {
        let kind = shown.kind.map_or("root", |kind| match kind {
            tramite_certs::authority::Kind::Tls => "connections",
            tramite_certs::authority::Kind::Signing => "statements",
        });
        let holder = shown.role.map_or_else(|| shown.name.clone(), |role| format!("{role}/{}", shown.name));
        let tone = match shown.state {
            State::Valid => Tone::Good,
            State::NotYetValid => Tone::Warn,
            State::Expired | State::Revoked => Tone::Bad,
        };
        let left = if shown.days_left < SOON_DAYS { Tone::Warn } else { Tone::Plain };
        table.add_row([
            output.cell(file, Tone::Plain),
            output.cell(kind, Tone::Plain),
            output.cell(holder, Tone::Plain),
            output.cell(shown.dialled_as.join(", "), Tone::Plain),
            output.cell(shown.not_after.split('T').next().unwrap_or_default(), Tone::Plain),
            output.cell(shown.days_left, left),
            output.cell(shown.state.as_str(), tone),
            output.cell(&shown.serial, Tone::Faint),
        ]);
    }
    let mut text = table.to_string();
    for (file, list) in lists {
        text = format!(
            "{text}\n{file}: revocation list number {}, {} revoked, counts until {} ({} days left)",
            list.number, list.revoked, list.next_update, list.days_left
        );
    }
    text
}

fn open(dir: &Path) -> Result<Authority, Failure> {
    Authority::open(dir, Arc::new(SystemClock)).map_err(|error| failed(&error))
}

fn failed(error: &AuthorityError) -> Failure {
    let (exit, advice) = match error {
        AuthorityError::Exists { .. } => {
            (Exit::CannotCreate, "Give another --dir, or go on with `tramite certs issue`.")
        }
        AuthorityError::None { .. } => (Exit::NoInput, "Give the --dir that `tramite certs init` was given."),
        AuthorityError::InUse { .. } => (Exit::Unavailable, "Try again when that one has ended."),
        AuthorityError::Ledger { .. } => (Exit::Data, "Nothing is issued from a damaged ledger."),
        AuthorityError::File(_) | AuthorityError::Secret(_) => {
            (Exit::NoInput, "Check the path, its owner and its mode.")
        }
        AuthorityError::Identity(_) => (Exit::Data, "Name a certificate that this authority issued."),
        AuthorityError::Request(_) => (Exit::Usage, "`tramite certs --help` shows how a network is made."),
        AuthorityError::UnknownSerial(_) => {
            (Exit::Failed, "`tramite certs show --help` says how to list what was issued.")
        }
        AuthorityError::AlreadyRevoked { .. } => (
            Exit::Failed,
            "`tramite certs crl --dir DIR --publish FOLDER` puts the revocation list into a member's folder.",
        ),
        AuthorityError::Making(_) => (Exit::Internal, "Report it."),
    };
    Failure::new(exit, chain(error), advice)
}
