//! NATS JetStream: one stream with a work queue's retention, a durable pull consumer for each recipient.

use std::{sync::Arc, time::Duration, time::Instant};

use anyhow::{Context as _, Result, anyhow};
use async_nats::{
    Client, ConnectOptions, ServerAddr,
    jetstream::{
        self,
        consumer::{AckPolicy, pull},
        context::ContextBuilder,
        stream::{Config, RetentionPolicy, StorageType},
    },
};
use futures_util::StreamExt as _;
use tokio::{
    sync::{Barrier, Semaphore},
    task::JoinSet,
};

use crate::{
    Load,
    meter::{Meter, tls},
};

const STREAM: &str = "OUTBOX";
/// Messages asked for at a time.
const BATCH: usize = 256;

async fn connect(load: &Load) -> Result<Client> {
    let address: ServerAddr = format!("tls://{}", load.address).parse()?;
    Ok(ConnectOptions::new().require_tls(true).tls_client_config(tls(&load.certs)?).connect(address).await?)
}

pub(crate) async fn run(load: Load) -> Result<()> {
    let admin = connect(&load).await?;
    let version = admin.server_info().version;
    let context = jetstream::new(admin);
    // There may be none.
    let _ = context.delete_stream(STREAM).await;
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec!["outbox.*".to_owned()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        ..Config::default()
    };
    let stream = context.create_stream(config).await?;
    let meter = Meter::new(&load);
    let ready = Arc::new(Barrier::new(load.recipients + 1));
    let mut recipients = JoinSet::new();
    for recipient in 0..load.recipients {
        let consumer = stream.create_consumer(pull::Config {
            durable_name: Some(format!("r{recipient}")),
            filter_subject: format!("outbox.r{recipient}"),
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: 1_000,
            ..pull::Config::default()
        });
        consumer.await?;
        recipients.spawn(consume(load.clone(), recipient, Arc::clone(&meter), Arc::clone(&ready)));
    }
    ready.wait().await;
    let patience = Duration::from_secs(30);
    let context = ContextBuilder::new().max_ack_inflight(100_000).timeout(patience).build(connect(&load).await?);
    let room = Arc::new(Semaphore::new(load.in_flight));
    let mut confirmations = JoinSet::new();
    let begun = Instant::now();
    for number in 0..load.messages {
        let place = Arc::clone(&room).acquire_owned().await?;
        let since = Instant::now();
        let subject = format!("outbox.r{}", number % load.recipients);
        let confirmation = context.publish(subject, meter.payload(number).into()).await?;
        let meter = Arc::clone(&meter);
        confirmations.spawn(async move {
            confirmation.await.map_err(|error| anyhow!("a message was not confirmed: {error}"))?;
            meter.confirmed(number, since);
            drop(place);
            anyhow::Ok(())
        });
        while let Some(done) = confirmations.try_join_next() {
            done??;
        }
    }
    while let Some(done) = confirmations.join_next().await {
        done??;
    }
    while let Some(done) = recipients.join_next().await {
        done??;
    }
    meter.finish(&format!("NATS JetStream {version}"), begun)
}

async fn consume(load: Load, recipient: usize, meter: Arc<Meter>, ready: Arc<Barrier>) -> Result<()> {
    let client = connect(&load).await?;
    let stream = jetstream::new(client.clone()).get_stream(STREAM).await?;
    let consumer =
        stream.get_consumer::<pull::Config>(&format!("r{recipient}")).await.map_err(|error| anyhow!("{error}"))?;
    let mut messages = consumer.stream().max_messages_per_batch(BATCH).messages().await?;
    ready.wait().await;
    let mut left = meter.share(recipient);
    while left > 0 {
        let message = messages.next().await.context("the stream of a recipient ended")??;
        left -= usize::from(meter.arrived(&message.payload)?);
        message.ack().await.map_err(|error| anyhow!("{error}"))?;
    }
    // Acknowledgements are sent and not answered: this one is.
    Ok(client.flush().await?)
}
