//! The binary `tramite`: reads the command line, makes the clock, the logs and the run time, and calls what was asked for.
//!
//! The composition root: the only place where environment, clock and signals come in. Knows every other crate; is known by none.
//! Invariant: every way out is one documented exit code, and every failure one sentence with what to do.

mod allocator;
mod bench;
mod cli;
mod command;
mod connect;
mod demo;
mod failure;
mod output;
mod serve;
mod sheet;
mod signals;
mod telemetry;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{
    cli::{Cli, Command},
    failure::{Exit, Failure},
    output::Output,
};

fn main() -> ExitCode {
    allocator::limit_arenas();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = !error.use_stderr();
            // The line could not be read: whether a program asks is seen from the word alone.
            if !asked && std::env::args_os().skip(1).any(|word| word == "--json") {
                Output::new(true).failure(&usage(&error));
                return Exit::Usage.into();
            }
            // A closed pipe leaves nobody to tell.
            drop(error.print());
            return if asked { Exit::Ok } else { Exit::Usage }.into();
        }
    };
    let output = Output::new(cli.json);
    let ended = run(cli, &output);
    match ended.and_then(|exit| output::unwritten().map_or(Ok(exit), Err)) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output.failure(&failure);
            failure.exit.into()
        }
    }
}

/// What clap says about a wrong line, in one sentence.
fn usage(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let about =
        text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let sentence = about.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let sentence = sentence.strip_prefix("error: ").unwrap_or(&sentence).to_owned();
    Failure::usage(sentence, "`tramite --help` and the --help of every command say what can be asked.")
}

/// Makes the run time and calls what was asked for.
fn run(cli: Cli, output: &Output) -> Result<Exit, Failure> {
    if let Command::Completion(asked) = &cli.command {
        return command::completion::run(asked, output);
    }
    if let Command::Certs(asked) = &cli.command {
        return command::certs::run(asked, output);
    }
    if let Command::BenchClient(_) = &cli.command {
        return bench::client();
    }
    if let Command::Codes(asked) = &cli.command {
        return command::codes::run(asked, output);
    }
    if let Command::Store(asked) = &cli.command {
        return command::store::run(asked, output);
    }
    kill_points()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::internal("the run time does not start").because(&error))?;
    let ended = runtime.block_on(async {
        match cli.command {
            Command::Demo(asked) => demo::run(asked, output).await,
            Command::Gateway(asked) => serve::gateway(asked).await,
            Command::Adapter(asked) => serve::adapter(asked).await,
            Command::Send(asked) => command::send::run(asked, output).await,
            Command::Inbox(asked) => command::inbox::run(asked, output).await,
            Command::Cases(asked) => command::cases::list(asked, output).await,
            Command::Case(asked) => command::cases::show(asked, output).await,
            Command::Documents(asked) => command::documents::run(asked, output).await,
            Command::Status(asked) => command::network::status(asked, output).await,
            Command::ConfirmClock(asked) => command::network::confirm_clock(asked, output).await,
            Command::Institutions(asked) => command::network::institutions(asked, output).await,
            Command::Ops(asked) => command::ops::run(asked, output).await,
            Command::Bench(asked) => bench::run(asked, output).await,
            Command::BenchClient(_)
            | Command::Codes(_)
            | Command::Completion(_)
            | Command::Certs(_)
            | Command::Store(_) => Ok(Exit::Ok),
        }
    });
    // What still blocks a thread (a write to a slow disk) has had its 30 seconds; the process ends without it.
    runtime.shutdown_background();
    ended
}

/// Test builds only: `TRAMITE_KILL_AT=step:n` ends the process, as SIGKILL would, at the n-th pass of a named step, and
/// `TRAMITE_WITHOUT_SYNC=1` takes the store's syncs out, so that power cuts can show what they are for.
#[cfg(feature = "killpoints")]
fn kill_points() -> Result<(), Failure> {
    if std::env::var_os("TRAMITE_WITHOUT_SYNC").is_some() {
        let taken_out = fail::cfg("disk.sync", "return");
        taken_out.map_err(|error| Failure::usage(format!("TRAMITE_WITHOUT_SYNC: {error}"), "Leave it out."))?;
    }
    let Ok(wish) = std::env::var("TRAMITE_KILL_AT") else { return Ok(()) };
    let wrong = || {
        Failure::usage(
            format!("TRAMITE_KILL_AT={wish} is not step:n"),
            "Write for example TRAMITE_KILL_AT=journal.after_sync:3.",
        )
    };
    let (step, pass) = wish.rsplit_once(':').ok_or_else(wrong)?;
    let pass: usize = pass.parse().map_err(|_| wrong())?;
    let passed = std::sync::atomic::AtomicUsize::new(0);
    fail::cfg_callback(step, move || {
        if passed.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1 == pass {
            // As abrupt as SIGKILL: no destructor, no flush, no exit handler.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    })
    .map_err(|error| Failure::usage(format!("TRAMITE_KILL_AT: {error}"), "Name a step that there is."))
}

/// Without the feature there are no steps to stop at.
#[cfg(not(feature = "killpoints"))]
#[expect(clippy::unnecessary_wraps, reason = "the other build of it can fail")]
fn kill_points() -> Result<(), Failure> {
    Ok(())
}
