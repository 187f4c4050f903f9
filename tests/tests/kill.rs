//! Kill tests: a process ends without warning at a named step, comes back, and the accounts are even.
//!
//! One test for each step and each kind of process that passes it, under a small load with retries (`load.rs` says what must
//! come out even). Then processes are killed at moments that nobody chose.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use anyhow::{Context, Result, ensure};
use tramite_tests::{
    load,
    network::{Network, PATIENCE},
};

/// Referrals in one run: enough for every step to be passed often, few enough for one run to take seconds.
const REFERRALS: usize = 8;

/// No destructor runs, no buffer is flushed.
const SIGKILL: i32 = 9;
/// Kills at moments that nobody chose.
const KILLS: usize = 36;
/// Pauses between them: as many as there is no common measure with, so that processes die in every order and while others recover.
const PAUSES_MS: [u64; 13] = [170, 410, 90, 530, 230, 310, 130, 610, 190, 370, 70, 290, 20];

/// Runs the load while `node` ends itself at the `pass`-th pass of a step, and starts it again.
async fn survives_a_kill(node: &str, step: &str, pass: u32) -> Result<()> {
    let network = Network::builder().institutions(&["caritas", "inps"]).prepare()?;
    let armed = format!("{step}:{pass}");
    for name in ["gateway", "caritas", "inps"] {
        let point = (name == node).then_some(armed.as_str());
        network.node(name)?.process.start_to_be_killed_at(point).await?;
    }
    let process = &network.node(node)?.process;
    let trouble = async {
        let status = process.exited(PATIENCE).await.with_context(|| format!("{node} never came to {armed}"))?;
        ensure!(status.signal() == Some(SIGKILL), "{node} was not killed at {armed}: {status}");
        process.start().await
    };
    load::survives(&network, REFERRALS, trouble).await.with_context(|| format!("{node} was killed at {armed}"))
}

macro_rules! kills {
    ($($promise:ident: $node:literal at $step:literal : $pass:literal;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() -> Result<()> {
            survives_a_kill($node, $step, $pass).await
        })+
    };
}

kills! {
    the_gateway_dies_before_it_writes: "gateway" at "journal.before_write":8;
    the_gateway_dies_before_it_syncs: "gateway" at "journal.after_write":8;
    the_gateway_dies_before_it_answers_what_is_durable: "gateway" at "journal.after_sync":8;
    the_gateway_dies_before_its_outbox_follows: "gateway" at "outbox.before_apply":2;
    the_gateway_dies_after_its_outbox_followed: "gateway" at "outbox.after_apply":2;
    the_gateway_dies_before_it_erases: "gateway" at "content.before_erase":1;
    the_gateway_dies_with_a_frame_in_its_hands: "gateway" at "submit.received":3;
    the_gateway_dies_before_its_answer_leaves: "gateway" at "submit.answered":3;
    the_gateway_dies_after_a_delivery_left: "gateway" at "deliver.sent":3;
    the_gateway_dies_with_a_receipt_in_its_hands: "gateway" at "settle.received":3;
    the_gateway_dies_before_a_settlement_is_answered: "gateway" at "settle.answered":3;

    the_sender_dies_before_it_writes: "caritas" at "journal.before_write":8;
    the_sender_dies_before_it_syncs: "caritas" at "journal.after_write":8;
    the_sender_dies_before_it_answers_what_is_durable: "caritas" at "journal.after_sync":8;
    the_sender_dies_before_its_outbox_follows: "caritas" at "outbox.before_apply":2;
    the_sender_dies_after_its_outbox_followed: "caritas" at "outbox.after_apply":2;
    the_sender_dies_before_it_erases: "caritas" at "content.before_erase":1;
    the_sender_dies_after_a_message_left: "caritas" at "outbound.sent":3;
    the_sender_dies_with_an_acceptance_in_its_hands: "caritas" at "outbound.answered":3;

    the_recipient_dies_before_it_writes: "inps" at "journal.before_write":8;
    the_recipient_dies_before_it_syncs: "inps" at "journal.after_write":8;
    the_recipient_dies_before_its_receipt_leaves: "inps" at "journal.after_sync":8;
    the_recipient_dies_with_a_message_in_its_hands: "inps" at "inbound.received":3;
    the_recipient_dies_with_a_message_on_its_disk: "inps" at "inbound.stored":3;
    the_recipient_dies_after_its_receipt_left: "inps" at "inbound.settled":3;
    the_recipient_dies_after_its_back_office_saw_an_item: "inps" at "backoffice.sent":3;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_again_and_again_while_it_recovers_recovers() -> Result<()> {
    let network = Network::of_two().await?;
    let trouble = async {
        for name in ["gateway", "inps", "caritas"] {
            let process = &network.node(name)?.process;
            tokio::time::sleep(Duration::from_millis(200)).await;
            process.kill().await?;
            for step in [
                "journal.before_write:1",
                "journal.after_write:1",
                "journal.after_sync:2",
                "outbox.after_apply:1",
                "outbox.before_apply:1",
            ] {
                process.start_to_be_killed_at(Some(step)).await?;
                process.exited(PATIENCE).await.with_context(|| format!("{name} never came to {step}"))?;
            }
            process.start().await?;
        }
        Ok(())
    };
    load::survives(&network, REFERRALS, trouble).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_killed_at_any_moment_lose_nothing_and_repeat_nothing() -> Result<()> {
    let network = Network::of_two().await?;
    let kills = async {
        for (round, pause_ms) in PAUSES_MS.into_iter().cycle().take(KILLS).enumerate() {
            let name = ["gateway", "inps", "caritas", "gateway"][round % 4];
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            network.node(name)?.process.kill().await?;
            network.node(name)?.process.start().await?;
        }
        Ok(())
    };
    load::survives(&network, 60, kills).await
}
