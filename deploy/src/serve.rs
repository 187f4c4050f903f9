//! `tramite gateway` and `tramite adapter`: read the configuration, begin logs and traces, start, wait for a signal, drain, end.
//!
//! Invariant: after a signal the process ends within the drain's limit, with 0 when it ended in order.

mod start;

use std::{future::Future, path::Path, sync::Arc};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tramite_proto::clock::SystemClock;

use self::start::Node;
use crate::{
    cli::Serve,
    failure::{Exit, Failure, chain},
    signals,
    telemetry::{self, Wish},
};

/// Runs a gateway.
pub(crate) async fn gateway(asked: Serve) -> Result<Exit, Failure> {
    use tramite_gateway::{Config, Gateway, config::LogFormat};
    let config = Config::load(&asked.config).map_err(|error| wrong_config(&asked.config, &error))?;
    let telemetry = telemetry::begin(&Wish {
        service: format!("tramite-gateway/{}", config.name),
        level: &config.log.level,
        json: config.log.format == LogFormat::Json,
        otlp: config.telemetry.otlp.as_deref(),
    })?;
    let (stop, hangup) = watch_signals(&asked)?;
    let node = Node { name: "the gateway", data: config.data.clone(), segment_mib: config.store.segment_mib };
    let running = Gateway::start(config, Arc::new(SystemClock), stop.clone()).await;
    let running = running.map_err(|error| node.not_started(&error));
    let ended = match running {
        Ok(running) => {
            signals::reload_at(hangup, running.reloader());
            until_ended("the gateway", running.wait(), stop).await
        }
        Err(failure) => Err(failure),
    };
    end(telemetry, ended).await
}

/// Runs an adapter.
pub(crate) async fn adapter(asked: Serve) -> Result<Exit, Failure> {
    use tramite_adapters::{Adapter, Config, config::LogFormat};
    let config = Config::load(&asked.config).map_err(|error| wrong_config(&asked.config, &error))?;
    let telemetry = telemetry::begin(&Wish {
        service: format!("tramite-adapter/{}", config.institution),
        level: &config.log.level,
        json: config.log.format == LogFormat::Json,
        otlp: config.telemetry.otlp.as_deref(),
    })?;
    let (stop, hangup) = watch_signals(&asked)?;
    let node = Node { name: "the adapter", data: config.data.clone(), segment_mib: config.store.segment_mib };
    let running = Adapter::start(config, Arc::new(SystemClock), stop.clone()).await;
    let running = running.map_err(|error| node.not_started(&error));
    let ended = match running {
        Ok(running) => {
            signals::reload_at(hangup, running.reloader());
            until_ended("the adapter", running.wait(), stop).await
        }
        Err(failure) => Err(failure),
    };
    end(telemetry, ended).await
}

/// The token that a signal to end cancels, and the ear for SIGHUP.
fn watch_signals(asked: &Serve) -> Result<(CancellationToken, signals::Hangup), Failure> {
    let stop = CancellationToken::new();
    signals::stop_on_signals(stop.clone())?;
    if asked.exit_with_parent {
        signals::stop_with_parent(stop.clone());
    }
    Ok((stop, signals::hangup()?))
}

/// Waits for the end; after the signal, no longer than the drain may take.
async fn until_ended<E: std::error::Error>(
    what: &str,
    ended: impl Future<Output = Result<(), E>>,
    stop: CancellationToken,
) -> Result<Exit, Failure> {
    tokio::pin!(ended);
    let by_itself = tokio::select! {
        done = &mut ended => Some(done),
        () = stop.cancelled() => None,
    };
    let done = match by_itself {
        Some(done) => done,
        None => match timeout(signals::DRAIN, ended).await {
            Ok(done) => done,
            Err(_) => {
                let sentence = format!("{what} did not end within {} s and is cut off", signals::DRAIN.as_secs());
                return Err(Failure::new(Exit::Internal, sentence, "Nothing that was acknowledged is lost."));
            }
        },
    };
    done.map(|()| Exit::Ok).map_err(|error| {
        let sentence = format!("{what} ended: {}", chain(&error));
        Failure::new(Exit::Internal, sentence, "Nothing that was acknowledged is lost; the log says more.")
    })
}

/// Sends the last spans, then lets the process end.
async fn end(telemetry: telemetry::Telemetry, ended: Result<Exit, Failure>) -> Result<Exit, Failure> {
    if let Err(failure) = &ended {
        tracing::error!("{failure}");
    }
    // It may wait for a collector, which a thread of the run time must not.
    drop(tokio::task::spawn_blocking(move || telemetry.end()).await);
    ended
}

fn wrong_config(path: &Path, error: &dyn std::error::Error) -> Failure {
    let (path, said) = (path.display().to_string(), chain(error));
    let sentence = if said.contains(&path) { said } else { format!("{path}: {said}") };
    Failure::new(Exit::Config, sentence, "Commented samples stand in deploy/examples.")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: &str = include_str!("../examples/gateway.toml");
    const ADAPTER: &str = include_str!("../examples/adapter.toml");

    #[test]
    fn the_example_configurations_are_valid() {
        let gateway = tramite_gateway::Config::parse(GATEWAY, Path::new("/etc/tramite")).unwrap();
        assert_eq!(gateway.institutions.len(), 4);
        let adapter = tramite_adapters::config::Config::parse(ADAPTER, Path::new("/etc/tramite")).unwrap();
        assert_eq!(adapter.tls.cert, Path::new("/etc/tramite/certs/tls.pem"));
    }

    #[test]
    fn a_configuration_that_is_wrong_gets_one_sentence() {
        let text = GATEWAY.replace("lease_s", "lease_seconds");
        let error = tramite_gateway::Config::parse(&text, Path::new("")).unwrap_err();
        let failure = wrong_config(Path::new("gateway.toml"), &error);
        assert_eq!(failure.exit, Exit::Config);
        assert!(failure.sentence.contains("lease_seconds") && !failure.sentence.contains('\n'), "{failure}");
    }

    #[test]
    fn the_unit_of_the_revocation_list_runs_what_there_is() {
        let unit = include_str!("../systemd/tramite-crl.service");
        let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).unwrap();
        <crate::cli::Cli as clap::Parser>::try_parse_from(command.split(' ')).unwrap();
    }

    #[test]
    fn the_units_run_what_there_is_and_stop_after_the_drain() {
        for unit in
            [include_str!("../systemd/tramite-gateway.service"), include_str!("../systemd/tramite-adapter.service")]
        {
            let value = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let command: Vec<&str> = value("ExecStart=/usr/bin/").split(' ').collect();
            <crate::cli::Cli as clap::Parser>::try_parse_from(command).unwrap();
            assert!(value("TimeoutStopSec=").parse::<u64>().unwrap() > signals::DRAIN.as_secs());
            let stays_down: Vec<&str> = value("RestartPreventExitStatus=").split(' ').collect();
            for exit in [Exit::Usage, Exit::Data, Exit::NoPermission, Exit::Config] {
                assert!(stays_down.contains(&(exit as u8).to_string().as_str()), "{exit:?}");
            }
            assert!(
                !stays_down.contains(&(Exit::Unavailable as u8).to_string().as_str()),
                "what passes is tried again"
            );
        }
    }
}
