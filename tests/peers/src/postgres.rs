//! PostgreSQL: a table as an outbox. An insert and a commit for each message, recipients that poll, delete and commit what they took.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{sync::Barrier, task::JoinSet, time::sleep};
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    Load,
    meter::{Meter, tls},
};

/// Connections that publish: more only wait for each other's commits.
const CONNECTIONS: usize = 32;
/// Rows that a recipient takes at a time.
const ROWS: i64 = 100;
/// Between two looks at an empty table.
const LOOK: Duration = Duration::from_millis(1);

const TABLE: &str = "
    DROP TABLE IF EXISTS outbox;
    CREATE TABLE outbox (id bigserial PRIMARY KEY, recipient int NOT NULL, payload bytea NOT NULL);
    ALTER TABLE outbox ALTER COLUMN payload SET STORAGE EXTERNAL;
    CREATE INDEX outbox_recipient ON outbox (recipient, id);
    CHECKPOINT;";
const INSERT: &str = "INSERT INTO outbox (recipient, payload) VALUES ($1, $2)";
const TAKE: &str = "SELECT id, payload FROM outbox WHERE recipient = $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED";
const DELETE: &str = "DELETE FROM outbox WHERE id = ANY($1)";

async fn connect(load: &Load) -> Result<Client> {
    let port = load.address.rsplit(':').next().context("an address has a port")?;
    let address = format!("host=localhost hostaddr=127.0.0.1 port={port} user=bench dbname=bench sslmode=require");
    let (client, connection) = tokio_postgres::connect(&address, MakeRustlsConnect::new(tls(&load.certs)?)).await?;
    // What goes wrong there, the client says too.
    tokio::spawn(connection);
    client.batch_execute("SET synchronous_commit = on").await?;
    Ok(client)
}

pub(crate) async fn run(load: Load) -> Result<()> {
    let admin = connect(&load).await?;
    admin.batch_execute(TABLE).await?;
    let version: String = admin.query_one("SHOW server_version", &[]).await?.try_get(0)?;
    let meter = Meter::new(&load);
    let ready = Arc::new(Barrier::new(load.recipients + 1));
    let mut recipients = JoinSet::new();
    for recipient in 0..load.recipients {
        recipients.spawn(consume(load.clone(), recipient, Arc::clone(&meter), Arc::clone(&ready)));
    }
    let mut pool = Vec::new();
    for _ in 0..CONNECTIONS.min(load.in_flight) {
        let client = connect(&load).await?;
        let insert = client.prepare(INSERT).await?;
        pool.push(Arc::new((client, insert)));
    }
    ready.wait().await;
    let next = Arc::new(AtomicUsize::new(0));
    let mut publishers = JoinSet::new();
    let begun = Instant::now();
    for connection in pool.iter().cycle().take(load.in_flight) {
        let (connection, next, meter, load) =
            (Arc::clone(connection), Arc::clone(&next), Arc::clone(&meter), load.clone());
        publishers.spawn(async move {
            let (client, insert) = &*connection;
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= load.messages {
                    return anyhow::Ok(());
                }
                let since = Instant::now();
                let to = i32::try_from(number % load.recipients)?;
                client.execute(insert, &[&to, &meter.payload(number)]).await?;
                meter.confirmed(number, since);
            }
        });
    }
    while let Some(done) = publishers.join_next().await {
        done??;
    }
    while let Some(done) = recipients.join_next().await {
        done??;
    }
    meter.finish(&format!("PostgreSQL {version}, outbox"), begun)
}

async fn consume(load: Load, recipient: usize, meter: Arc<Meter>, ready: Arc<Barrier>) -> Result<()> {
    let mut client = connect(&load).await?;
    let (take, delete) = (client.prepare(TAKE).await?, client.prepare(DELETE).await?);
    let own = i32::try_from(recipient)?;
    ready.wait().await;
    let mut left = meter.share(recipient);
    while left > 0 {
        let transaction = client.transaction().await?;
        let rows = transaction.query(&take, &[&own, &ROWS]).await?;
        if rows.is_empty() {
            transaction.rollback().await?;
            sleep(LOOK).await;
            continue;
        }
        let mut ids: Vec<i64> = Vec::with_capacity(rows.len());
        for row in &rows {
            ids.push(row.try_get(0)?);
            left -= usize::from(meter.arrived(row.try_get(1)?)?);
        }
        transaction.execute(&delete, &[&ids]).await?;
        transaction.commit().await?;
    }
    Ok(())
}
