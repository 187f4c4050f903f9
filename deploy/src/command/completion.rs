//! `tramite completion SHELL`: the script that teaches a shell the command line.

use std::io::Write as _;

use clap::CommandFactory as _;

use crate::{
    cli::{Cli, Completion},
    failure::{Exit, Failure},
    output::Output,
};

/// Writes the script to standard output.
#[expect(clippy::unnecessary_wraps, reason = "as every command")]
pub(crate) fn run(asked: &Completion, _: &Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut Cli::command(), "tramite", &mut script);
    // A closed pipe leaves nobody to tell.
    drop(std::io::stdout().lock().write_all(&script));
    Ok(Exit::Ok)
}
