//! The demo's last page: a table of the cases with states and times, what went wrong if anything did, and what to try next.

use serde_json::{Value, json};
use tramite_adapters::desk::{
    office::{DOCUMENT_REQUEST, REFERRAL},
    sample::Sample,
};

use super::{
    board::{Board, CaseView, Step},
    live::short,
    site::Site,
};
use crate::{
    output::{Output, Tone, bytes, span},
    sheet,
};

/// Prints the table.
pub(super) fn print(board: &Board, output: Output) {
    let mut table = output
        .table(&["person", "way", "states, at second", "documents", "case", ""])
        .steps(&[2, 1, 3, 0].map(sheet::Step::Flow));
    for (number, sample) in board.samples().iter().enumerate() {
        let Some(case) = board.case_of(number) else {
            let bad = output.cell("never sent", Tone::Bad);
            table.add_row([output.cell(title(sample), Tone::Plain), output.cell("", Tone::Plain), bad]);
            continue;
        };
        let good = board.missing(number).is_none();
        let end = if good { output.cell("✓", Tone::Good) } else { output.cell("✗", Tone::Bad) };
        table.add_row([
            output.cell(title(sample), Tone::Plain),
            output.cell(way(case), Tone::Plain),
            output.cell(states(case), Tone::Plain),
            output.cell(documents(board, case), Tone::Plain),
            output.cell(short(&case.case_id), Tone::Faint),
            end,
        ]);
        for onward in board.following(&case.case_id, REFERRAL) {
            table.add_row([
                output.cell("   … referred on", Tone::Faint),
                output.cell(way(onward), Tone::Plain),
                output.cell(states(onward), Tone::Plain),
                output.cell(documents(board, onward), Tone::Plain),
                output.cell(short(&onward.case_id), Tone::Faint),
                output.cell("", Tone::Plain),
            ]);
        }
    }
    output.line(&table.to_string());
}

/// The number of a sample's file, and its title.
fn title(sample: &Sample) -> String {
    let number = sample.name.split('-').next().unwrap_or_default();
    format!("{number} {}", sample.title)
}

fn way(case: &CaseView) -> String {
    format!("{} → {}", case.opener, case.responder)
}

/// Each state with the time at which its opener learned it.
fn states(case: &CaseView) -> String {
    let steps = case.story().map(|step| {
        let after = (step.at_ms - case.opened_ms).max(0);
        let reason = if step.reason.is_empty() { String::new() } else { format!(" {}", step.reason) };
        format!("{}{}{}.{}{reason}", step.status, sheet::JOINED, after / 1000, after % 1000 / 100)
    });
    steps.collect::<Vec<_>>().join(" · ")
}

/// Who was asked, how that ended, how much came.
fn documents(board: &Board, case: &CaseView) -> String {
    let requests = board.following(&case.case_id, DOCUMENT_REQUEST).map(|request| {
        let size = if request.bytes == 0 { String::new() } else { format!(", {}", bytes(request.bytes)) };
        let disputed = if request.story().any(|step| step.status == "disputed") { "disputed, " } else { "" };
        format!("{}:\n{disputed}{}{size}", request.responder, request.status())
    });
    requests.collect::<Vec<_>>().join("\n")
}

/// The whole as JSON.
pub(super) fn value(board: &Board, wrong: &[String], site: &Site, lasted_ms: i64) -> Value {
    let cases: Vec<Value> = board
        .cases()
        .map(|case| {
            let sample = case.sample.and_then(|number| board.samples().get(number));
            json!({
                "case_id": case.case_id, "kind": case.kind, "opener": case.opener, "responder": case.responder,
                "parent": case.parent, "sample": sample.map(|sample| &sample.name), "status": case.status(),
                "lasted_ms": case.lasted_ms(), "attachment_bytes": case.bytes,
                "states": case.story().map(step_value).collect::<Vec<_>>(),
                "as_expected": case.sample.map(|number| board.missing(number).is_none()),
            })
        })
        .collect();
    json!({
        "ok": wrong.is_empty(), "wrong": wrong, "cases": cases, "lasted_ms": lasted_ms,
        "samples": board.samples().len(), "ended_as_expected": board.ended(), "moves": board.moves,
        "seen_again": board.seen_again.len(), "folder": site.folder,
    })
}

fn step_value(step: &Step) -> Value {
    json!({"status": step.status, "reason": step.reason, "at_ms": step.at_ms})
}

/// One sentence about the whole.
pub(super) fn sum(board: &Board, lasted_ms: i64) -> String {
    let requests = board.cases().filter(|case| case.kind == DOCUMENT_REQUEST).count();
    let size = board.cases().map(|case| case.bytes).sum();
    format!(
        "{} of {} persons' cases ended as expected in {}; {requests} document requests, {} of attachments, {} moves; {} shown again after acknowledgement.",
        board.ended(),
        board.samples().len(),
        span(lasted_ms),
        bytes(size),
        board.moves,
        if board.seen_again.is_empty() { "nothing".to_owned() } else { format!("{} items", board.seen_again.len()) },
    )
}

/// What to try while the network stays up.
pub(super) fn next(board: &Board, site: &Site) -> String {
    let case = board
        .cases()
        .find(|case| case.opener == "caritas")
        .map_or_else(|| "CASE".to_owned(), |case| short(&case.case_id));
    let folder = site.folder.display();
    let tries = [
        (format!(". {folder}/env.sh"), "be Caritas' back office, and an operator of the gateway"),
        ("tramite cases".to_owned(), "its cases, the last moved first"),
        (format!("tramite case {case}"), "one with its timeline: states, deliveries, receipts"),
        (
            format!("tramite send {folder}/messages/04-family-with-minors.json"),
            "one more referral; watch the desks act on it here",
        ),
        ("tramite ops queues".to_owned(), "what waits for whom at the gateway"),
        ("tramite ops dead-letters".to_owned(), "what was given up: nothing, when all is well"),
        (format!("tramite certs show {folder}/inps"), "an institution's certificates, and when they end"),
        (format!("curl http://{}/metrics", site.metrics), "what the gateway counts"),
    ];
    let tries = tries.iter().map(|(command, meaning)| format!("  {command}\n      {meaning}"));
    format!(
        "The network stays up until Ctrl-C. From another terminal:\n\n{}\n\nConfigurations, certificates, data and logs: {folder}",
        tries.collect::<Vec<_>>().join("\n"),
    )
}
