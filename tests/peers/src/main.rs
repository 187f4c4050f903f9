//! Loads one peer as the bench loads a gateway: one publisher, some recipients, so many messages unconfirmed at a time, mutual TLS.
//!
//! A message counts when it was confirmed durable, arrived, and its consumption was acknowledged. One line of JSON is the answer.
//! What a peer does not do, and Tramite does, is not asked of it: nobody signs, seals, or gives a receipt.

mod meter;
mod nats;
mod postgres;
mod rabbit;

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Load a message broker, or an outbox in a database, and print one line of JSON.")]
struct Asked {
    #[command(subcommand)]
    peer: Peer,
}

#[derive(Subcommand)]
enum Peer {
    /// NATS JetStream: a work queue on disk, a subject for each recipient.
    Nats(Load),
    /// RabbitMQ: a quorum queue for each recipient.
    Rabbit(Load),
    /// PostgreSQL: an outbox that recipients poll with SKIP LOCKED, an insert for each message.
    Postgres(Load),
}

#[derive(Args, Clone)]
struct Load {
    /// Where it listens: host:port.
    #[arg(long)]
    address: String,
    /// Folder with ca.pem, client.pem and client.key.
    #[arg(long)]
    certs: PathBuf,
    /// Messages in all.
    #[arg(long, default_value_t = 20_000)]
    messages: usize,
    /// Published and not confirmed, at most.
    #[arg(long, default_value_t = 256, value_parser = in_flight)]
    in_flight: usize,
    /// Bytes of each.
    #[arg(long, default_value_t = 2_048)]
    content: usize,
    /// Who gets them, in turns.
    #[arg(long, default_value_t = 4)]
    recipients: usize,
}

fn in_flight(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| (1..=65_536).contains(number)).ok_or_else(|| "a number from 1 to 65536".into())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let installed = rustls::crypto::ring::default_provider().install_default();
    installed.map_err(|_| anyhow!("there is a provider of cryptography already"))?;
    match Asked::parse().peer {
        Peer::Nats(load) => nats::run(load).await,
        Peer::Rabbit(load) => rabbit::run(load).await,
        Peer::Postgres(load) => postgres::run(load).await,
    }
}
