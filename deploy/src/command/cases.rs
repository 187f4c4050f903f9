//! `tramite cases` and `tramite case ID`: what became of what, with the whole timeline.

use serde_json::json;
use tramite_adapters::json::case_to_json;
use tramite_proto::pb::backoffice::v1 as bo;

use crate::{
    cli,
    connect::{self, Adapter},
    failure::{Exit, Failure},
    output::{Output, Tone, clock_time, short_id, short_time, span},
    sheet::Step,
};

/// A page of a search by a part of an id.
const PAGE: u32 = 1_000;
/// The least of an id that is searched for.
const PART_MIN: usize = 4;
/// Characters of a whole id.
const WHOLE: usize = 36;

/// What became of a message by the doing of its recipient; any other end is the gateway's, its clock's or an operator's.
const BY_RECIPIENT: [&str; 3] = ["OPENED", "REFUSED", "RECEIPT_AFTER_EXPIRY"];

/// What a list of nothing says.
const NONE: &str = "No cases yet. `tramite send FILE` opens one.";

/// Lists them.
pub(crate) async fn list(asked: cli::Cases, output: &Output) -> Result<Exit, Failure> {
    let mut adapter = connect::adapter(&asked.address).await?;
    let request = bo::ListCasesRequest { open_only: asked.open, page_size: asked.limit, page_token: String::new() };
    let answer = adapter.client.list_cases(request).await.map_err(|status| adapter.failed(&status))?.into_inner();
    let more = !answer.next_page_token.is_empty();
    let value = json!({ "cases": answer.cases.iter().map(case_to_json).collect::<Vec<_>>(), "more": more });
    output.answer(&value, || {
        if answer.cases.is_empty() {
            let none =
                if asked.open { "No open cases. Without --open those that have ended are listed, too." } else { NONE };
            return none.to_owned();
        }
        let mut table = output.table(&["case", "kind", "way", "status", "next move", "last move"]).steps(&[
            Step::Short(5, short_time),
            Step::Short(0, short_id),
            Step::Drop(1),
            Step::Flow(2),
            Step::Flow(3),
            Step::Drop(5),
        ]);
        for case in &answer.cases {
            table.add_row([
                output.cell(&case.case_id, Tone::Plain),
                output.cell(kind(case), Tone::Plain),
                output.cell(format!("{} → {}", case.opener, case.responder), Tone::Plain),
                output.cell(status(&case.status, &case.reason), tone(&case.status)),
                output.cell(&case.next, Tone::Plain),
                output.cell(clock_time(case.moved_ms), Tone::Faint),
            ]);
        }
        let more = if more { "\nThere are more: give a larger --limit." } else { "" };
        format!("{table}\n`tramite case CASE` shows one with its timeline.{more}")
    });
    Ok(Exit::Ok)
}

/// Shows one.
pub(crate) async fn show(asked: cli::Case, output: &Output) -> Result<Exit, Failure> {
    let mut adapter = connect::adapter(&asked.address).await?;
    let case_id = whole_id(&mut adapter, &asked.case).await?;
    let request = bo::GetCaseRequest { case_id };
    let case = adapter.client.get_case(request).await.map_err(|status| adapter.failed(&status))?.into_inner();
    output.answer(&case_to_json(&case), || page(&case, *output));
    Ok(Exit::Ok)
}

/// The case on a page.
fn page(case: &bo::Case, output: Output) -> String {
    let mut text = format!(
        "{} {}\n{} → {}, conversation {}\n{}, next move: {}\nopened {}, last move {} ({} later)\n",
        kind(case),
        case.case_id,
        case.opener,
        case.responder,
        case.conversation_id,
        output.word(&status(&case.status, &case.reason), tone(&case.status)),
        if case.next.is_empty() { "nobody" } else { &case.next },
        clock_time(case.opened_ms),
        clock_time(case.moved_ms),
        span(case.moved_ms - case.opened_ms),
    );
    if case.reply_by != 0 {
        text = format!("{text}reply expected by {}\n", clock_time(case.reply_by.saturating_mul(1000)));
    }
    let mut table = output.table(&["time", "event", "from → to", "status", "message"]).steps(&[
        Step::Short(4, short_id),
        Step::Flow(2),
        Step::Flow(3),
        Step::Short(0, short_time),
        Step::Drop(4),
    ]);
    for entry in &case.timeline {
        let way = match (entry.from.is_empty(), entry.to.is_empty()) {
            (false, false) => format!("{} → {}", entry.from, entry.to),
            (false, true) => entry.from.clone(),
            (true, _) if BY_RECIPIENT.contains(&entry.event.as_str()) => format!("by {}", entry.to),
            (true, _) => format!("→ {}", entry.to),
        };
        table.add_row([
            output.cell(clock_time(entry.at_ms), Tone::Faint),
            output.cell(&entry.event, Tone::Plain),
            output.cell(way, Tone::Plain),
            output.cell(status(&entry.status, &entry.reason), tone(&entry.status)),
            output.cell(&entry.message_id, Tone::Faint),
        ]);
    }
    format!("{text}{table}")
}

/// The id of the one case that is meant by the beginning or the end of its id.
pub(crate) async fn whole_id(adapter: &mut Adapter, part: &str) -> Result<String, Failure> {
    let part = part.to_lowercase();
    if part.len() >= WHOLE {
        return Ok(part);
    }
    if part.len() < PART_MIN {
        let sentence = format!("{part} is too short for a case");
        return Err(Failure::usage(
            sentence,
            format!("Give at least {PART_MIN} characters of its id; `tramite cases` lists them."),
        ));
    }
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let request = bo::ListCasesRequest { open_only: false, page_size: PAGE, page_token: token };
        let page = adapter.client.list_cases(request).await.map_err(|status| adapter.failed(&status))?.into_inner();
        let ids = page.cases.into_iter().map(|case| case.case_id);
        found.extend(ids.filter(|id| id.starts_with(&part) || id.ends_with(&part)));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Failure::new(
            Exit::Failed,
            format!("no case begins or ends with {part}"),
            "`tramite cases` lists them.",
        )),
        several => {
            let sentence = format!("{} cases begin or end with {part}", several.len());
            Err(Failure::usage(sentence, format!("Give more of its id: {}", several.join(", "))))
        }
    }
}

fn kind(case: &bo::Case) -> &'static str {
    match case.kind.as_str() {
        "REFERRAL" => "referral",
        "DOCUMENT_REQUEST" => "documents",
        _ => "case",
    }
}

fn status(status: &str, reason: &str) -> String {
    if reason.is_empty() { status.to_owned() } else { format!("{status} ({reason})") }
}

fn tone(status: &str) -> Tone {
    match status {
        "completed" | "closed" | "confirmed" | "provided" => Tone::Good,
        "rejected" | "failed" | "expired" | "refused" | "disputed" => Tone::Bad,
        "on_hold" | "action_required" | "deferred" | "cancelled" => Tone::Warn,
        _ => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_its_recipient_did_is_by_the_recipient() {
        let entry = |event: &str, from: &str| bo::TimelineEntry {
            event: event.to_owned(),
            from: from.to_owned(),
            to: "inps".to_owned(),
            ..bo::TimelineEntry::default()
        };
        let timeline =
            vec![entry("SENT", "caritas"), entry("OPENED", ""), entry("DEAD_LETTERED", ""), entry("DISCARDED", "")];
        let shown = page(&bo::Case { timeline, ..bo::Case::default() }, Output::to_a_pipe());
        let way = |event: &str| shown.lines().find(|line| line.contains(event)).unwrap_or_default();
        assert!(way("SENT").contains("caritas → inps"), "{shown}");
        assert!(way("OPENED").contains("by inps"), "{shown}");
        assert!(["DEAD_LETTERED", "DISCARDED"].iter().all(|event| way(event).contains("→ inps")), "{shown}");
    }
}
