//! The demo's network: a gateway and four adapters, each a process of its own, and how the demo reaches them.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tramite_adapters::desk::office::Office;
use tramite_proto::pb::backoffice::v1::{self as bo, back_office_client::BackOfficeClient};

use super::{process::Process, site::Site};
use crate::{
    connect,
    failure::{Exit, Failure},
};

/// From the start of the processes until every adapter is connected: generous, because machines that build are busy.
const READY: Duration = Duration::from_secs(90);
/// How often it is looked whether they are.
const LOOK: Duration = Duration::from_millis(100);
/// A process has so long to end in order, a little more than its own drain takes when nothing hangs.
const END: Duration = Duration::from_secs(10);

/// An institution's adapter, as the demo reaches it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) office: &'static Office,
    pub(super) channel: Channel,
    pub(super) process: Process,
}

/// The network.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) gateway: Process,
    pub(super) members: Vec<Member>,
}

impl Network {
    /// Starts every process.
    pub(super) fn start(site: &Site) -> Result<Self, Failure> {
        let gateway = Process::start("gateway", "gateway", &site.gateway_config, site.log("gateway"))?;
        let mut members = Vec::new();
        for member in &site.members {
            let name = member.office.name;
            let process = Process::start(name, "adapter", &member.config, site.log(name))?;
            let channel = connect::unix(&member.socket)?;
            members.push(Member { office: member.office, channel, process });
        }
        Ok(Self { gateway, members })
    }

    /// Waits until every adapter is connected to the gateway.
    pub(super) async fn ready(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            self.check()?;
            let Some((name, problem)) = self.first_not_ready().await else { return Ok(()) };
            if begun.elapsed() > READY {
                let sentence = format!("the adapter of {name} is not connected after {} s: {problem}", READY.as_secs());
                return Err(Failure::new(Exit::Unavailable, sentence, "Look at the logs in the folder of the demo."));
            }
            sleep(LOOK).await;
        }
    }

    /// Fails when a process has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        self.gateway.check()?;
        self.members.iter_mut().try_for_each(|member| member.process.check())
    }

    async fn first_not_ready(&self) -> Option<(&'static str, String)> {
        for member in &self.members {
            match status(member).await {
                Ok(status) if status.connected => {}
                Ok(status) => return Some((member.office.name, status.problem)),
                Err(problem) => return Some((member.office.name, problem.message().to_owned())),
            }
        }
        None
    }

    /// What still waits anywhere, in one sentence; none when every message was delivered and every item acknowledged.
    pub(super) async fn waiting(&self) -> Option<String> {
        for member in &self.members {
            let name = member.office.name;
            match status(member).await {
                Ok(status) if status.outbox == 0 && status.inbox == 0 => {}
                Ok(status) => {
                    return Some(format!(
                        "{name}: {} messages wait for the gateway, {} items for the desk",
                        status.outbox, status.inbox
                    ));
                }
                Err(status) => return Some(format!("{name}: its adapter does not answer ({})", status.message())),
            }
        }
        None
    }

    /// A case as an institution's adapter has it.
    pub(super) async fn case(&self, institution: &str, case_id: &str) -> Option<bo::Case> {
        let member = self.members.iter().find(|member| member.office.name == institution)?;
        let request = bo::GetCaseRequest { case_id: case_id.to_owned() };
        BackOfficeClient::new(member.channel.clone()).get_case(request).await.ok().map(tonic::Response::into_inner)
    }

    /// Ends every process in order: adapters first, so that they leave the gateway properly.
    pub(super) async fn end(mut self) {
        let members = self.members.iter_mut().map(|member| member.process.end(END));
        futures_util::future::join_all(members).await;
        self.gateway.end(END).await;
    }
}

async fn status(member: &Member) -> Result<bo::Status, tonic::Status> {
    let mut client = BackOfficeClient::new(member.channel.clone());
    Ok(client.get_status(bo::GetStatusRequest {}).await?.into_inner())
}
