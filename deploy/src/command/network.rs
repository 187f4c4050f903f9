//! `tramite status`, `tramite confirm-clock` and `tramite institutions`: how one's adapter stands, and whom it may write to.

use serde_json::json;
use tramite_proto::pb::backoffice::v1 as bo;

use crate::{
    cli, connect,
    failure::{Exit, Failure},
    output::{Output, Tone, clock_time},
    sheet::Step,
};

/// Shows how the adapter stands. Not connected is no failure of the command: what is sent then waits.
pub(crate) async fn status(asked: cli::Status, output: &Output) -> Result<Exit, Failure> {
    let mut adapter = connect::adapter(&asked.address).await?;
    let answer = adapter.client.get_status(bo::GetStatusRequest {}).await;
    let status = answer.map_err(|status| adapter.failed(&status))?.into_inner();
    let value = json!({
        "institution": status.institution, "version": status.version, "connected": status.connected,
        "problem": status.problem, "connected_since_ms": status.connected_since_ms, "outbox": status.outbox,
        "inbox": status.inbox, "refused": status.refused, "clock_held": status.clock_held,
        "store_troubles": status.store_troubles,
    });
    output.answer(&value, || {
        let since = match status.connected_since_ms {
            0 => "never yet".to_owned(),
            ms => format!("last {}", clock_time(ms)),
        };
        let connected = if status.connected {
            output
                .word(&format!("connected to the gateway since {}", clock_time(status.connected_since_ms)), Tone::Good)
        } else if status.problem.is_empty() {
            output.word(&format!("not connected to the gateway ({since})"), Tone::Bad)
        } else {
            output.word(&format!("not connected to the gateway ({since}): {}", status.problem), Tone::Bad)
        };
        let connected = if status.connected && !status.problem.is_empty() {
            format!("{connected}\n{}", output.word(&status.problem, Tone::Warn))
        } else {
            connected
        };
        let clock = if status.clock_held.is_empty() {
            String::new()
        } else {
            let held = format!(
                "the clock is held ({}): nothing expires or is deleted. Look at this machine's date and time, set them if they are wrong, \
                 and say so: tramite confirm-clock --reason '…'",
                status.clock_held
            );
            format!("\n{}", output.word(&held, Tone::Warn))
        };
        let store = output.troubles(&status.store_troubles);
        format!(
            "{}, adapter {}\n{connected}{clock}{store}\n{} to send, {} in the inbox, {} refused for good since start",
            status.institution, status.version, status.outbox, status.inbox, status.refused,
        )
    });
    Ok(Exit::Ok)
}

/// Says that the adapter's clock is right.
pub(crate) async fn confirm_clock(asked: cli::ConfirmClock, output: &Output) -> Result<Exit, Failure> {
    let mut adapter = connect::adapter(&asked.address).await?;
    let answer = adapter.client.confirm_clock(bo::ConfirmClockRequest { reason: asked.reason }).await;
    answer.map_err(|status| adapter.failed(&status))?;
    output.answer(&json!({ "done": "confirmed" }), || {
        "The clock is confirmed. What is past its time by it ends or is deleted now.".to_owned()
    });
    Ok(Exit::Ok)
}

/// Lists whom this institution may write to, and what each accepts from it.
pub(crate) async fn institutions(asked: cli::Institutions, output: &Output) -> Result<Exit, Failure> {
    let mut adapter = connect::adapter(&asked.address).await?;
    let answer = adapter.client.list_institutions(bo::ListInstitutionsRequest {}).await;
    let mut list = answer.map_err(|status| adapter.failed(&status))?.into_inner().institutions;
    list.sort_by(|left, right| left.name.cmp(&right.name));
    let rows = list.iter().map(|institution| {
        json!({"name": institution.name, "display_name": institution.display_name, "accepts": institution.accepts})
    });
    output.answer(&json!({ "institutions": rows.collect::<Vec<_>>() }), || {
        if list.is_empty() {
            return "Nobody: the gateway's policy lets this institution write to no other, or it was not reached yet."
                .to_owned();
        }
        let mut table =
            output.table(&["name", "institution", "accepts from you"]).steps(&[Step::Flow(1), Step::Flow(2)]);
        for institution in &list {
            let accepts = institution.accepts.iter().map(|name| name.rsplit('.').next().unwrap_or(name));
            table.add_row([
                output.cell(&institution.name, Tone::Plain),
                output.cell(&institution.display_name, Tone::Plain),
                output.cell(accepts.collect::<Vec<_>>().join(", "), Tone::Plain),
            ]);
        }
        table.to_string()
    });
    Ok(Exit::Ok)
}
