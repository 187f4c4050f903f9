//! The operators: they see a clock that is wrong, put it right, and say so. What the clock would end waits for their word.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use tokio::time::sleep;
use tonic::Status;
use tramite_proto::{
    clock::ManualClock,
    pb::{
        backoffice::v1::ConfirmClockRequest,
        operations::v1::{GetOverviewRequest, ReleaseRequest, operations_client::OperationsClient},
    },
};
use tramite_tests::desk::Desk;

use super::{
    stage::{GATEWAY, Stage, T0_MS},
    storm::{Act, Storm},
};

pub(crate) const OPERATORS: &str = "operators";
const REASON: &str = "the clock was set right";
/// Who has put a clock right looks a little later at what the party makes of it.
const LOOK_AFTER: Duration = Duration::from_secs(2);
/// Between two tries at a party that is down.
const PAUSE: Duration = Duration::from_millis(500);

/// Says of every clock that it is right, as soon as it is.
pub(crate) async fn run(stage: Arc<Stage>, storm: Storm) -> Result<()> {
    let mut now = Duration::ZERO;
    for (at, act) in storm {
        let Act::Clock(name, 0) = act else { continue };
        let look = at + LOOK_AFTER;
        sleep(look.saturating_sub(now)).await;
        now = look;
        let stage = Arc::clone(&stage);
        tokio::spawn(async move {
            while confirm(&stage, name).await.is_err() {
                sleep(PAUSE).await;
            }
        });
    }
    std::future::pending().await
}

async fn confirm(stage: &Stage, name: &'static str) -> Result<(), Status> {
    let clock = Arc::new(ManualClock::new(T0_MS));
    let line = |line: Result<_>| line.map_err(|error| Status::internal(format!("{error:#}")));
    if name == GATEWAY {
        let mut gateway = OperationsClient::new(line(stage.operations(clock))?);
        if !gateway.get_overview(GetOverviewRequest {}).await?.into_inner().clock_held.is_empty() {
            gateway.release(ReleaseRequest { institution: "clock".into(), reason: REASON.into() }).await?;
        }
    } else {
        let desk = Desk::over(line(stage.line(name, clock))?);
        if !desk.status().await?.clock_held.is_empty() {
            desk.client().confirm_clock(ConfirmClockRequest { reason: REASON.into() }).await?;
        }
    }
    Ok(())
}
