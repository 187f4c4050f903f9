//! A process of the bench as its parent sees it: lines of orders in, lines of news out.
//!
//! Invariant: it ends with its parent, whose end closes its standard input.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::wire::{Order, Role, Said, Setup};
use crate::failure::{Exit, Failure};

/// A running process.
#[derive(Debug)]
pub(super) struct Client {
    name: &'static str,
    child: Child,
    orders: ChildStdin,
    news: Lines<BufReader<ChildStdout>>,
}

impl Client {
    /// Starts it in its role, and waits until it is connected; where it listens, if it does.
    pub(super) async fn connected(name: &'static str, role: Role, setup: &Setup) -> Result<(Self, String), Failure> {
        let mut client = Self::start(name, &Setup { role, ..setup.clone() }).await?;
        loop {
            if let Said::Ready { address } = client.hear().await? {
                return Ok((client, address));
            }
        }
    }

    /// Starts it and tells it who it is.
    async fn start(name: &'static str, setup: &Setup) -> Result<Self, Failure> {
        let failed =
            |error: &dyn std::error::Error| Failure::internal(format!("{name} cannot be started")).because(error);
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut child = Command::new(program)
            .arg("bench-client")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        let (Some(orders), Some(news)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::internal(format!("{name} has no standard input and output")));
        };
        let mut client = Self { name, child, orders, news: BufReader::new(news).lines() };
        client.line(&serde_json::to_string(setup).map_err(|error| failed(&error))?).await?;
        Ok(client)
    }

    /// Its process id.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Tells it what to do.
    pub(super) async fn tell(&mut self, order: &Order) -> Result<(), Failure> {
        let line = serde_json::to_string(order);
        let line = line.map_err(|error| Failure::internal("an order cannot be written").because(&error))?;
        self.line(&line).await
    }

    async fn line(&mut self, line: &str) -> Result<(), Failure> {
        let written = self.orders.write_all(format!("{line}\n").as_bytes()).await;
        written.map_err(|error| Failure::internal(format!("{} takes no orders", self.name)).because(&error))
    }

    /// What it says next; fails with its own sentence when it cannot go on.
    pub(super) async fn hear(&mut self) -> Result<Said, Failure> {
        let wrong = |error: &dyn std::error::Error| {
            Failure::internal(format!("{} says nothing sensible", self.name)).because(error)
        };
        let line = self.news.next_line().await.map_err(|error| wrong(&error))?;
        let Some(line) = line else {
            return Err(Failure::internal(format!("{} ended by itself", self.name)));
        };
        match serde_json::from_str(&line).map_err(|error| wrong(&error))? {
            Said::Failed { sentence } => {
                let advice = "The accounts do not come out even: nothing that was measured counts.";
                Err(Failure::new(Exit::Failed, format!("{}: {sentence}", self.name), advice))
            }
            said => Ok(said),
        }
    }
}
