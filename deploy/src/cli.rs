//! The command line: what can be asked, and the help that teaches it. No behaviour.
//!
//! Invariant: every subcommand has a sentence on what it does, an example, and what to do next.

mod bench;
mod certs;
mod office;
mod ops;
mod store;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::{
    bench::{Bench, BenchClient},
    certs::{Certs, CertsCommand, Issue, RoleWord},
    office::{
        Case, Cases, CodeList, Codes, ConfirmClock, Documents, DocumentsCommand, Inbox, Institutions, ModeWord,
        RequestDocuments, Send, Status,
    },
    ops::{Decision, Ops, OpsCommand, Page},
    store::{Store, StoreCommand},
};

const LONG_ABOUT: &str = "\
Tramite carries messages between institutions that must act together for one person: referrals, document requests and their \
answers, signed, sealed, durable and receipted.

An institution runs an adapter, which speaks typed and clear to its own back office and sealed to the outside. A gateway in the \
middle accepts, delivers and proves, and never sees content.";

const AFTER_HELP: &str = "\
First steps:
  tramite demo                    play the whole protocol, with invented persons
  tramite certs init …            make an authority for a network of your own
  tramite gateway --config FILE   run the hub
  tramite adapter --config FILE   run an institution's adapter
  tramite status                  how your adapter stands
  tramite institutions            whom it may write to
  tramite send FILE               send a message through your adapter

Environment:
  TRAMITE_ADAPTER   address of your adapter: unix:/run/tramite/backoffice.sock
  TRAMITE_GATEWAY   address of the gateway: gateway.example:7443
  TRAMITE_CERTS     folder with your certificate, made by `tramite certs issue`
  NO_COLOR          set and not empty: no colours

Exit codes:
   0  done
   1  refused, not found, or not as expected
  64  wrong arguments
  65  the content of a file is wrong; a node that starts: its store is damaged
  66  a file cannot be read
  69  the adapter or the gateway cannot be reached, or is not ready
  70  a fault of the program or the machine
  73  a file cannot be written
  77  not allowed: certificate, role or policy
  78  a configuration is wrong";

/// Tramite: messages between institutions that act together for one person.
#[derive(Debug, Parser)]
#[command(name = "tramite", version, long_about = LONG_ABOUT, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Cli {
    /// Answer in JSON, for programs: one value on each line; failures on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Play the whole protocol on this machine: gateway, four institutions, invented persons.
    #[command(after_help = "Examples:
  tramite demo                  stays up until Ctrl-C, for you to try
  tramite demo --once           ends by itself; 0 only if all ended as expected
  tramite demo --once --chaos   the same, with SIGKILL for gateway and adapters

Next: read the folder that it prints: certificates, configurations and logs as a
real site has them.")]
    Demo(Demo),
    /// Run the gateway, the hub of a network.
    #[command(after_help = "Example:
  tramite gateway --config /etc/tramite/gateway.toml

SIGTERM and SIGINT end it within 30 s and lose nothing. Certificates and
revocation lists are read again when their files change. A commented sample of
the configuration stands in deploy/examples/gateway.toml.
Next: `tramite ops overview` shows how it stands.")]
    Gateway(Serve),
    /// Run an institution's adapter.
    #[command(after_help = "Example:
  tramite adapter --config /etc/tramite/adapter.toml

Signals and certificates: as the gateway. A commented sample of the
configuration stands in deploy/examples/adapter.toml.
Next: `tramite inbox --watch` shows what arrives.")]
    Adapter(Serve),
    /// Make and look after the certificates of a network.
    Certs(Certs),
    /// Send a message from a file through your adapter.
    #[command(after_help = "Examples:
  tramite send referral.json
  tramite send adapters/samples/04-family-with-minors.json  any sample as it is
  tramite send - < referral.json
A sample goes through the adapter of its `from`: Caritas, unless it says
otherwise (16 to 18 are not all Caritas'), e.g. --adapter
unix:PATH/comune/backoffice.sock.

The file is JSON, the same as in the spool folder: kind, to, purpose,
legal_basis, and the body under the name of its kind; `attachments` names files
beside it. The same file sent twice is one message: the second time the first
answer comes back.
Next: `tramite case CASE` shows what becomes of it.")]
    Send(Send),
    /// Show what arrived at your institution and is not yet acknowledged.
    #[command(after_help = "Examples:
  tramite inbox                          what waits now
  tramite inbox --watch                  and then what arrives, until Ctrl-C
  tramite inbox --save DIR --acknowledge keep each as files, then acknowledge it

Kept files are named by message; a file with other content is never replaced,
and its item then not acknowledged. An item stays until it is acknowledged;
after that it is never shown again, and its content is erased at the adapter.")]
    Inbox(Inbox),
    /// List the cases of your institution, most recently moved first.
    #[command(after_help = "Example:
  tramite cases --open

Next: `tramite case CASE` shows one with its timeline.")]
    Cases(Cases),
    /// Show one case with its timeline: business states, deliveries and receipts.
    #[command(after_help = "Example:
  tramite case 3f2a9c1b4d5e

The first or last characters of its id are enough, as long as only one case
fits.")]
    Case(Case),
    /// Ask another institution for documents about a person.
    Documents(Documents),
    /// Show how your adapter stands: connected or why not, and what waits.
    #[command(after_help = "Example:
  tramite status

Next: `tramite inbox` shows what waits for you, `tramite institutions` whom you
may write to.")]
    Status(Status),
    /// Say that your adapter's date and time are right, after `tramite status` asked for it.
    #[command(after_help = "Example:
  tramite confirm-clock --reason 'the office was closed over Easter'

An adapter whose clock is more than a day from its last record deletes nothing
and lets nothing expire: the machine was off, or its clock is wrong, and only a
person can tell. Look at the date and time first (`date`). If they are wrong,
set them, and then confirm.
Next: `tramite status` no longer speaks of the clock.")]
    ConfirmClock(ConfirmClock),
    /// List whom your institution may write to, and what each accepts from it.
    #[command(after_help = "Example:
  tramite institutions

Next: `tramite send FILE`, with one of the names in its `to`.")]
    Institutions(Institutions),
    /// List the codes that messages are written with: purposes, legal bases, benefits, needs, documents, reasons …
    #[command(after_help = "Examples:
  tramite codes                  every list
  tramite codes legal-bases      one of them
  tramite codes benefits --json

Next: write them into a message; `tramite send FILE` sends it.")]
    Codes(Codes),
    /// Operate the gateway: queues, messages, dead letters.
    Ops(Ops),
    /// Check, measure and repair the store of a node that is stopped.
    Store(Store),
    Bench(Bench),
    /// A process of the bench.
    #[command(hide = true)]
    BenchClient(BenchClient),
    /// Print the completion script for a shell.
    #[command(after_help = "Examples:
  tramite completion bash > /etc/bash_completion.d/tramite
  tramite completion zsh > ~/.zfunc/_tramite
  tramite completion fish > ~/.config/fish/completions/tramite.fish")]
    Completion(Completion),
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// End when every case has ended; exit code 0 only if each ended as expected and nobody saw anything twice.
    #[arg(long)]
    pub(crate) once: bool,
    /// Kill the gateway and an adapter with SIGKILL in the middle, and start them again.
    #[arg(long)]
    pub(crate) chaos: bool,
    /// Folder for keys, configurations, data and logs; must be empty or not exist. Without it: a new temporary one.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Send traces of every process to this OpenTelemetry collector (OTLP over gRPC), e.g. http://127.0.0.1:4317.
    #[arg(long, value_name = "URL")]
    pub(crate) otlp: Option<String>,
    /// Milliseconds that a clerk takes for one item.
    #[arg(long, value_name = "MS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub(crate) pace: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// End when standard input ends: for a parent that holds its other end.
    #[arg(long, hide = true)]
    pub(crate) exit_with_parent: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

/// How to reach one's own adapter.
#[derive(Debug, Args, Clone)]
pub(crate) struct AdapterAddress {
    /// Address of your adapter: unix:PATH of its socket, the path of its adapter.toml, or host:port (needs --certs).
    #[arg(long, value_name = "ADDRESS", env = "TRAMITE_ADAPTER")]
    pub(crate) adapter: Option<String>,
    /// Folder with your certificate, when the adapter is called over the network.
    #[arg(long, value_name = "DIR", env = "TRAMITE_CERTS")]
    pub(crate) certs: Option<PathBuf>,
}

/// How to reach the gateway.
#[derive(Debug, Args, Clone)]
pub(crate) struct GatewayAddress {
    /// Address of the gateway: host:port.
    #[arg(long, global = true, value_name = "HOST:PORT", env = "TRAMITE_GATEWAY")]
    pub(crate) gateway: Option<String>,
    /// Folder with your certificate: tls.pem, tls.key, root.pem, crl.pem.
    #[arg(long, global = true, value_name = "DIR", env = "TRAMITE_CERTS")]
    pub(crate) certs: Option<PathBuf>,
    /// The gateway's name in its certificate.
    #[arg(long, global = true, value_name = "NAME", default_value = "gateway", env = "TRAMITE_GATEWAY_NAME")]
    pub(crate) gateway_name: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        fn check(command: &clap::Command, path: &str) {
            for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
                let path = format!("{path} {}", inner.get_name());
                assert!(inner.get_about().is_some(), "{path} has no about");
                for argument in inner.get_arguments().filter(|argument| !argument.is_hide_set()) {
                    assert!(argument.get_help().is_some(), "{path}: {} has no help", argument.get_id());
                }
                check(inner, &path);
            }
        }
        check(&Cli::command(), "tramite");
    }

    /// Shows a command and all below it.
    fn each(command: &clap::Command, show: &mut dyn FnMut(&clap::Command, &str)) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        show(command, &help);
        command.get_subcommands().filter(|inner| inner.get_name() != "help").for_each(|inner| each(inner, show));
    }

    #[test]
    fn no_line_of_a_help_is_torn_at_80_columns() {
        each(&Cli::command(), &mut |command, help| {
            let long = help.lines().find(|line| line.chars().count() > 80);
            assert!(long.is_none(), "{}: {long:?}", command.get_name());
        });
    }

    #[test]
    fn every_command_of_operators_stores_and_authorities_has_an_example_and_says_what_comes_next() {
        let all = Cli::command();
        for group in ["ops", "store", "certs"] {
            for inner in all.find_subcommand(group).unwrap().get_subcommands() {
                each(inner, &mut |command, help| {
                    let taught = help.contains("Example") && help.contains("Next: ");
                    assert!(taught || command.get_name() == "help", "{}: {help}", command.get_name());
                });
            }
        }
    }

    #[test]
    fn documented_exit_codes_are_those_of_the_program() {
        use crate::failure::Exit;
        let codes = [Exit::Failed, Exit::Usage, Exit::Data, Exit::NoInput, Exit::Unavailable, Exit::Internal];
        for code in codes.into_iter().chain([Exit::CannotCreate, Exit::NoPermission, Exit::Config]) {
            assert!(AFTER_HELP.contains(&format!("{} ", code as u8)), "{code:?}");
        }
    }
}
