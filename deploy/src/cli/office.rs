//! Arguments of the commands for an office: send, inbox, cases, documents.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::AdapterAddress;

#[derive(Debug, Args)]
pub(crate) struct Send {
    #[command(flatten)]
    pub(crate) address: AdapterAddress,
    /// The message as JSON; `-` reads standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Request id: the same id and content is one message. Without it: made of the file's content.
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Inbox {
    #[command(flatten)]
    pub(crate) address: AdapterAddress,
    /// Go on with what arrives, until Ctrl-C.
    #[arg(long)]
    pub(crate) watch: bool,
    /// Keep each item as JSON, with its attachments as files, in this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) save: Option<PathBuf>,
    /// Acknowledge each item once it is shown (and saved): it is never shown again.
    #[arg(long)]
    pub(crate) acknowledge: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Cases {
    #[command(flatten)]
    pub(crate) address: AdapterAddress,
    /// Only cases that have not ended.
    #[arg(long)]
    pub(crate) open: bool,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Case {
    #[command(flatten)]
    pub(crate) address: AdapterAddress,
    /// Case id, or its first or last characters (at least four).
    #[arg(value_name = "CASE")]
    pub(crate) case: String,
}

#[derive(Debug, Args)]
pub(crate) struct Documents {
    #[command(subcommand)]
    pub(crate) command: DocumentsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DocumentsCommand {
    /// Ask a holder for documents about a person.
    #[command(after_help = "Examples:
  tramite documents request --to comune --document STATO_FAMIGLIA \\
      --codice-fiscale RSSMRA80A01A944I
  tramite documents request --to comune --document RESIDENZA --mode verify \\
      --statement 'Resident for five years' --codice-fiscale RSSMRA80A01A944I

Ask for the least that serves: yes or no (verify), then the datum (value), then
a copy.
Next: `tramite inbox --watch` shows the answer; then confirm it with `tramite
send`.")]
    Request(Box<RequestDocuments>),
    /// List the document codes.
    Kinds,
}

#[derive(Debug, Args)]
pub(crate) struct RequestDocuments {
    #[command(flatten)]
    pub(crate) address: AdapterAddress,
    /// The holder's name, e.g. comune.
    #[arg(long, value_name = "INSTITUTION")]
    pub(crate) to: String,
    /// The person's codice fiscale, any of its omocode forms.
    #[arg(long, value_name = "CODE")]
    pub(crate) codice_fiscale: String,
    /// Document code, e.g. RESIDENZA; give it again for more (at most 20). `tramite documents kinds` lists them.
    #[arg(long = "document", value_name = "CODE", required = true)]
    pub(crate) documents: Vec<String>,
    /// How it may be answered.
    #[arg(long, value_enum, default_value_t = ModeWord::Value)]
    pub(crate) mode: ModeWord,
    /// With verify: the statement to be confirmed.
    #[arg(long, value_name = "TEXT", required_if_eq("mode", "verify"))]
    pub(crate) statement: Option<String>,
    /// The referral for which they are needed.
    #[arg(long, value_name = "CASE")]
    pub(crate) for_case: Option<String>,
    /// The benefit for which they are needed, e.g. ADI.
    #[arg(long, value_name = "CODE")]
    pub(crate) benefit: Option<String>,
    /// Why the data may be used.
    #[arg(long, value_name = "CODE", default_value = "DOCUMENT_ACQUISITION")]
    pub(crate) purpose: String,
    /// On which legal basis.
    #[arg(long, value_name = "CODE", default_value = "DPR-445-43")]
    pub(crate) legal_basis: String,
    /// Request id: the same id and content is one message. Without it: made of what is asked.
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
}

/// How a holder may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeWord {
    /// Yes or no to a statement.
    Verify,
    /// The datum.
    Value,
    /// A copy of the document.
    Copy,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) address: AdapterAddress,
}

#[derive(Debug, Args)]
pub(crate) struct ConfirmClock {
    #[command(flatten)]
    pub(crate) address: AdapterAddress,
    /// Why the clock is right; kept in the adapter's journal.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Institutions {
    #[command(flatten)]
    pub(crate) address: AdapterAddress,
}

#[derive(Debug, Args)]
pub(crate) struct Codes {
    /// Which list; without it: all.
    #[arg(value_enum, value_name = "LIST")]
    pub(crate) list: Option<CodeList>,
}

/// A vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CodeList {
    /// Why data may be used.
    Purposes,
    /// On which law.
    LegalBases,
    /// Benefits and rights.
    Benefits,
    /// What a person needs besides.
    Needs,
    /// Documents that can be asked for.
    Documents,
    /// Reasons of a referral's states.
    Reasons,
    /// Reasons of a document request's states.
    DocumentReasons,
    /// What came of a referral.
    Outcomes,
    /// Who declined.
    DeclinedBy,
    /// Conditions of disadvantage.
    Disadvantages,
    /// Relations in a household.
    Relations,
    /// Kinds of mandate.
    Mandates,
}

impl CodeList {
    /// Every one.
    pub(crate) const ALL: [Self; 12] = [
        Self::Purposes,
        Self::LegalBases,
        Self::Benefits,
        Self::Needs,
        Self::Documents,
        Self::Reasons,
        Self::DocumentReasons,
        Self::Outcomes,
        Self::DeclinedBy,
        Self::Disadvantages,
        Self::Relations,
        Self::Mandates,
    ];

    /// As it is written on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Purposes => "purposes",
            Self::LegalBases => "legal-bases",
            Self::Benefits => "benefits",
            Self::Needs => "needs",
            Self::Documents => "documents",
            Self::Reasons => "reasons",
            Self::DocumentReasons => "document-reasons",
            Self::Outcomes => "outcomes",
            Self::DeclinedBy => "declined-by",
            Self::Disadvantages => "disadvantages",
            Self::Relations => "relations",
            Self::Mandates => "mandates",
        }
    }
}
