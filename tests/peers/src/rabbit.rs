//! RabbitMQ: a quorum queue for each recipient, persistent messages, publisher confirms, an acknowledgement for each message.

use std::{fs, sync::Arc, time::Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Confirmation, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    tcp::{OwnedIdentity, OwnedTLSConfig},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::{
    sync::{Barrier, Semaphore},
    task::JoinSet,
};

use crate::{Load, meter::Meter};

/// Messages on their way to a recipient.
const PREFETCH: u16 = 256;
/// Kept on disk.
const PERSISTENT: u8 = 2;

fn queue(recipient: usize) -> ShortString {
    format!("outbox.r{recipient}").into()
}

async fn connect(load: &Load) -> Result<Connection> {
    let read = |name: &str| fs::read(load.certs.join(name)).with_context(|| name.to_owned());
    let identity = OwnedIdentity::PKCS8 { pem: read("client.pem")?, key: read("client.key")? };
    let config = OwnedTLSConfig { identity: Some(identity), cert_chain: Some(String::from_utf8(read("ca.pem")?)?) };
    let port = load.address.rsplit(':').next().context("an address has a port")?;
    let address = format!("amqps://bench:bench@localhost:{port}/%2f");
    let properties = ConnectionProperties::default();
    Ok(Connection::connect_with_config(&address, properties, config, lapin::runtime::default_runtime()?).await?)
}

pub(crate) async fn run(load: Load) -> Result<()> {
    let admin = connect(&load).await?;
    let channel = admin.create_channel().await?;
    let meter = Meter::new(&load);
    let ready = Arc::new(Barrier::new(load.recipients + 1));
    let mut recipients = JoinSet::new();
    for recipient in 0..load.recipients {
        // There may be none.
        let _ = channel.queue_delete(queue(recipient), QueueDeleteOptions::default()).await;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue(recipient), options, arguments).await?;
        recipients.spawn(consume(load.clone(), recipient, Arc::clone(&meter), Arc::clone(&ready)));
    }
    ready.wait().await;
    let publisher = connect(&load).await?.create_channel().await?;
    publisher.confirm_select(ConfirmSelectOptions::default()).await?;
    let room = Arc::new(Semaphore::new(load.in_flight));
    let mut confirmations = JoinSet::new();
    let begun = Instant::now();
    for number in 0..load.messages {
        let place = Arc::clone(&room).acquire_owned().await?;
        let since = Instant::now();
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let to = queue(number % load.recipients);
        let confirm = publisher.basic_publish("".into(), to, options, &meter.payload(number), properties).await?;
        let meter = Arc::clone(&meter);
        confirmations.spawn(async move {
            let confirmed = confirm.await?;
            ensure!(matches!(confirmed, Confirmation::Ack(None)), "a message was not confirmed: {confirmed:?}");
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
    meter.finish("RabbitMQ, quorum queues", begun)
}

async fn consume(load: Load, recipient: usize, meter: Arc<Meter>, ready: Arc<Barrier>) -> Result<()> {
    let channel = connect(&load).await?.create_channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let tag = format!("r{recipient}").into();
    let consumer = channel.basic_consume(queue(recipient), tag, BasicConsumeOptions::default(), FieldTable::default());
    let mut deliveries = consumer.await?;
    ready.wait().await;
    let mut left = meter.share(recipient);
    while left > 0 {
        let delivery = deliveries.next().await.context("the stream of a recipient ended")??;
        left -= usize::from(meter.arrived(&delivery.data)?);
        delivery.ack(BasicAckOptions::default()).await?;
    }
    // Acknowledgements are not answered: what comes after them on the channel is.
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue(recipient), options, FieldTable::default()).await?;
    Ok(())
}
