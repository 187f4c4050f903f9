//! Arguments of the commands for a network's authority.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};

/// Make and look after the certificates of a network.
#[derive(Debug, Args)]
#[command(after_help = "A network from nothing:
  tramite certs init --dir network --trust-domain tramite.example
  tramite certs issue --dir network --role gateway --name gateway \\
      --dns gateway.example --out gateway/certs
  tramite certs issue --dir network --role institution --name inps \\
      --out inps/certs
  tramite certs issue --dir network --role operator --name anna --out anna
  tramite certs crl --dir network --publish gateway/certs --publish inps/certs

The authority is then in network/authority. A revocation list counts for seven
days, and after that nobody gets in: a timer writes a new one before that
(deploy/systemd/tramite-crl.timer). The authority's key never leaves its
directory, which belongs on a machine of its own. Each member pins root.pem,
which it gets out of band. Key files have mode 0600 and are refused otherwise.
An institution changes its encryption key by itself: tramite certs
rotate-encryption-key DIR")]
pub(crate) struct Certs {
    #[command(subcommand)]
    pub(crate) command: CertsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// Make an authority: root, ledger, first revocation list.
    #[command(after_help = "Example:
  tramite certs init --dir network --trust-domain tramite.example

Next: `tramite certs issue` for the gateway, then for each institution.")]
    Init {
        #[command(flatten)]
        at: AuthorityDir,
        /// Name of the network, in every certificate, e.g. tramite.example.
        #[arg(long, value_name = "DOMAIN")]
        trust_domain: String,
    },
    /// Issue everything that a member needs into a folder: certificates, keys, root, revocation list.
    #[command(after_help = "Examples:
  tramite certs issue --dir network --role institution --name inps \\
      --out inps/certs
  tramite certs issue --dir network --role operator --name anna --out anna

Next: hand the folder over in person; `tramite certs show DIR` says when its
certificates end.")]
    Issue(Issue),
    /// Renew certificates of a member's folder with new keys, and its revocation list.
    #[command(after_help = "Example:
  tramite certs renew --dir network --within 30 inps/certs

Next: put the folder back where it is used; running nodes take it up by
themselves.")]
    Renew {
        #[command(flatten)]
        at: AuthorityDir,
        /// The member's folder.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Only what ends within so many days.
        #[arg(long, value_name = "DAYS")]
        within: Option<u32>,
    },
    /// Put a new encryption key into an institution's folder; the old ones stay for what is on its way.
    #[command(after_help = "Run it at the institution, as its adapter's user, on the folder that
[encryption] keys of adapter.toml names. Example:
  tramite certs rotate-encryption-key /etc/tramite/certs

It needs no authority: the new key is certified by the key record that the
adapter signs and publishes. A running adapter takes it up within seconds (at
once at SIGHUP), and others seal to it as soon as they have the record. What was
sealed to an old key still opens as long as its file is there: keep it until its
record is past its expiry, a year at most. Where adapter.toml names one with
[encryption] active, change that too.
Next: the gateway's log says `published a key record`, with the institution.")]
    RotateEncryptionKey {
        /// The folder with the institution's enc-KEY-ID.key.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// A suite at least as strong as that of the key in use; that one when it is left out.
        #[arg(long, value_name = "SUITE")]
        suite: Option<String>,
    },
    /// Revoke a certificate for good, and write a new revocation list.
    #[command(after_help = "Example:
  tramite certs revoke --dir network inps/certs/tls.pem \\
      --reason key-compromise --publish gateway/certs

Next: the list counts where it is: `tramite certs crl --publish DIR` for every
other member.")]
    Revoke {
        #[command(flatten)]
        at: AuthorityDir,
        /// Serial in hexadecimal, or the path of the certificate.
        #[arg(value_name = "SERIAL|FILE")]
        what: String,
        /// Why: key-compromise, affiliation-changed, superseded, cessation-of-operation, privilege-withdrawn.
        #[arg(long, value_name = "REASON")]
        reason: String,
        /// Folders of members that get the new list at once; running nodes take it up by themselves.
        #[arg(long, value_name = "DIR")]
        publish: Vec<PathBuf>,
    },
    /// Write a new revocation list.
    #[command(after_help = "Example:
  tramite certs crl --dir network --publish gateway/certs --publish inps/certs

Next: a timer that does it every day (deploy/systemd/tramite-crl.timer).")]
    Crl {
        #[command(flatten)]
        at: AuthorityDir,
        /// Valid for so many days; after that nobody gets in until there is a new one.
        #[arg(long, value_name = "DAYS", default_value_t = 7)]
        days: u32,
        /// Folders of members that get it at once; running nodes take it up by themselves.
        #[arg(long, value_name = "DIR")]
        publish: Vec<PathBuf>,
    },
    /// Show certificates and revocation lists, and when they end.
    #[command(after_help = "Examples:
  tramite certs show network           all that was issued
  tramite certs show inps/certs        what one member has

Next: `tramite certs renew` what ends soon, `tramite certs crl` before the list
does.")]
    Show {
        /// An authority's folder, a member's folder, or files.
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AuthorityDir {
    /// The network's folder; the authority is kept in the folder `authority` within it.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Issue {
    #[command(flatten)]
    pub(crate) at: AuthorityDir,
    /// What the member is in the network.
    #[arg(long, value_enum)]
    pub(crate) role: RoleWord,
    /// Its name: lower-case letters, digits and hyphens, at most 63.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// Folder for what is issued; made when it is not there.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// DNS name under which it is dialled; again for more. A gateway needs one, or an address.
    #[arg(long, value_name = "NAME")]
    pub(crate) dns: Vec<String>,
    /// Address under which it is dialled; again for more.
    #[arg(long, value_name = "IP")]
    pub(crate) address: Vec<IpAddr>,
    /// Name for people, in the certificate.
    #[arg(long, value_name = "TEXT")]
    pub(crate) display_name: Option<String>,
    /// eIDAS organizationIdentifier, e.g. VATIT-01234567890.
    #[arg(long, value_name = "ID")]
    pub(crate) organization_identifier: Option<String>,
    /// Validity of the TLS certificate in days.
    #[arg(long, value_name = "DAYS", default_value_t = 90)]
    pub(crate) days: u32,
    /// Suite of an institution's encryption key: X25519-SHA256-AES256GCM, or XWING-SHA256-AES256GCM (post-quantum).
    #[arg(long, value_name = "SUITE", default_value = "X25519-SHA256-AES256GCM")]
    pub(crate) suite: String,
}

/// A role of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleWord {
    /// Sends and receives messages through its adapter.
    Institution,
    /// Sees and mends queues.
    Operator,
    /// Reads and proves the log.
    Auditor,
    /// The hub.
    Gateway,
}
