//! Whether the demo ended as it must, from three sides: what the desks saw, what both adapters of each case say, and what still
//! waits.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tramite_adapters::desk::event::Event;

use super::{
    board::{Board, CaseView},
    network::Network,
};

/// After the last case ended, so long for the last acknowledgements to pass through.
const SETTLE: Duration = Duration::from_secs(30);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(150);

/// What is wrong, in sentences; empty when everything is as it must be.
pub(super) async fn judge(
    board: &mut Board,
    said: &mut mpsc::Receiver<Event>,
    at_ms: i64,
    network: &Network,
) -> Vec<String> {
    let mut wrong: Vec<String> = settled(network).await.into_iter().collect();
    // What the desks said while the last items passed through.
    while let Ok(event) = said.try_recv() {
        board.note(&event, at_ms);
    }
    for (number, sample) in board.samples().iter().enumerate() {
        if let Some(missing) = board.missing(number) {
            let case = board.case_of(number).map_or_else(String::new, |case| format!(" (case {})", case.case_id));
            wrong.push(format!("{}{case}: {missing}", sample.name));
        }
    }
    wrong.extend(board.seen_again.iter().cloned());
    wrong.extend(board.troubles.iter().cloned());
    if wrong.is_empty() {
        for case in board.cases() {
            wrong.extend(agreed(case, network).await);
        }
    }
    wrong
}

/// Waits until nothing waits anywhere; says what does when that takes too long.
async fn settled(network: &Network) -> Option<String> {
    let begun = Instant::now();
    loop {
        let waiting = network.waiting().await?;
        if begun.elapsed() > SETTLE {
            return Some(format!("after {} s something still waits: {waiting}", SETTLE.as_secs()));
        }
        sleep(LOOK).await;
    }
}

/// Both adapters of a case must say what its opener knows. The last move may still be on its way to the other side.
async fn agreed(case: &CaseView, network: &Network) -> Option<String> {
    let begun = Instant::now();
    loop {
        let mut differing = None;
        for institution in [&case.opener, &case.responder] {
            let status =
                network.case(institution, &case.case_id).await.map_or_else(|| "unknown".to_owned(), |case| case.status);
            if status != case.status() {
                differing = Some(format!(
                    "case {}: {institution} has it as {status}, {} was expected",
                    case.case_id,
                    case.status()
                ));
            }
        }
        let differing = differing?;
        if begun.elapsed() > SETTLE {
            return Some(differing);
        }
        sleep(LOOK).await;
    }
}
