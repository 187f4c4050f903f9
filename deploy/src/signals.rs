//! When to stop and when to read certificates again: SIGTERM and SIGINT (or, for children of the demo, the end of standard input)
//! stop; SIGHUP reloads.

use std::{io, thread, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// A service has so long to end what it began after it was told to stop: below the 90 s after which systemd kills.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);

/// Cancels the token at the first SIGTERM or SIGINT; a second one ends the process at once.
pub(crate) fn stop_on_signals(stop: CancellationToken) -> Result<(), Failure> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Told twice: whoever asks does not want to wait. What was acknowledged is on the disk, so nothing is lost.
        std::process::exit(130);
    });
    Ok(())
}

/// Cancels the token when standard input ends: the parent that held its other end is gone, however it ended.
///
/// A thread of its own, because a read of standard input cannot be taken back and would hold up the end of the run time.
pub(crate) fn stop_with_parent(stop: CancellationToken) {
    thread::spawn(move || {
        // Whatever a parent writes is ignored; an error is an end.
        drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
        stop.cancel();
        thread::sleep(DRAIN);
        std::process::exit(0);
    });
}

/// An ear for SIGHUP.
pub(crate) struct Hangup(Signal);

/// Listens for SIGHUP from now on: without a listener the signal would end a process that is still starting.
pub(crate) fn hangup() -> Result<Hangup, Failure> {
    listen(SignalKind::hangup()).map(Hangup)
}

/// Reloads at each SIGHUP, one that came before included. The files are also looked at each second; this is for whoever will not wait.
pub(crate) fn reload_at(mut hangup: Hangup, reload: impl Fn() + Send + 'static) {
    tokio::spawn(async move {
        while hangup.0.recv().await.is_some() {
            tracing::info!("SIGHUP: certificates, roots and revocation lists are read again");
            reload();
        }
    });
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::internal("signals cannot be listened for").because(&error))
}
