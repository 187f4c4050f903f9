//! `tramite demo`: the whole protocol on one machine. A gateway and the adapters of four institutions run as separate processes of
//! this binary, with the same files that real sites would have; the institutions' desks work in this process, on the records of
//! the samples.
//!
//! Knows what must come of each record, and says so at the end. Invariants: no process outlives the demo; every wait has an end,
//! with a sentence on what was waited for; `--once` ends with 0 only if every case ended as it must and no desk saw anything
//! again after acknowledging it.

mod board;
mod chaos;
mod folder;
mod live;
mod network;
pub(crate) mod process;
pub(crate) mod site;
mod table;
mod verdict;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tramite_adapters::desk::{self, Desk, event::Event, sample};
use tramite_proto::{
    clock::{Clock as _, SystemClock},
    pb::body::v1::Date,
};

use self::{board::Board, chaos::Chaos, folder::Folder, live::Live, network::Network, site::Site};
use crate::{
    cli,
    failure::{Exit, Failure},
    output::{Output, Tone},
    signals,
};

/// No desk has said anything for so long: nothing more will happen. Longer than any single wait in the protocol (an expiry, a
/// reconnection).
const SILENCE: Duration = Duration::from_secs(60);
/// The whole, whatever happens.
const WHOLE: Duration = Duration::from_secs(300);

/// Plays it.
pub(crate) async fn run(asked: cli::Demo, output: &Output) -> Result<Exit, Failure> {
    let samples = sample::all().map_err(|error| Failure::internal("a sample cannot be read").because(&error))?;
    let stop = CancellationToken::new();
    signals::stop_on_signals(stop.clone())?;
    let folder = Folder::make(asked.dir.as_deref())?;
    output.line(&format!("Making keys, certificates and configurations in {}", folder.path().display()));
    let site = Site::make(&folder, &samples, asked.otlp.as_deref())?;
    let mut network = Network::start(&site)?;
    let played = play(&asked, *output, samples, &site, &mut network, &stop).await;
    network.end().await;
    let exit = played?;
    if exit == Exit::Ok && asked.once && folder.remove() {
        output.line(
            "All as it must be; the temporary folder is removed. Without --once the network stays up for you to try.",
        );
    } else {
        output.line(&format!("Everything is kept in {}", folder.path().display()));
    }
    Ok(exit)
}

/// From the first referral to the verdict; without `--once`, to Ctrl-C.
async fn play(
    asked: &cli::Demo,
    output: Output,
    samples: Vec<sample::Sample>,
    site: &Site,
    network: &mut Network,
    stop: &CancellationToken,
) -> Result<Exit, Failure> {
    output.line("Starting the gateway and four adapters, each a process of its own");
    tokio::select! {
        ready = network.ready() => ready?,
        () = stop.cancelled() => return Ok(Exit::Failed),
    }
    output.line("Everybody is connected; the desks open");
    let (events, mut said) = mpsc::channel(desk::EVENTS_MAX);
    let closing = CancellationToken::new();
    let desks = open_desks(asked, &samples, network, &events, &closing)?;
    drop(events);

    let names: Vec<&str> = network.members.iter().map(|member| member.office.name).collect();
    let mut watch = Watch {
        live: Live::new(output, samples.len(), &names),
        board: Board::new(samples),
        begun: Instant::now(),
        chaos: asked.chaos.then(Chaos::default),
    };
    let ended = watch.until_ended(&mut said, network, stop).await;
    let Watch { live, mut board, begun, .. } = watch;
    live.end();
    let silent = ended?;
    let lasted_ms = millis(begun);
    let mut wrong = if stop.is_cancelled() {
        vec!["it was interrupted".to_owned()]
    } else {
        verdict::judge(&mut board, &mut said, lasted_ms, network).await
    };
    wrong.extend(silent.filter(|_| !wrong.is_empty()));
    table::print(&board, output);
    output.line(&table::sum(&board, lasted_ms));
    for sentence in &wrong {
        output.line(&output.word(sentence, Tone::Bad));
    }
    output.value(&table::value(&board, &wrong, site, lasted_ms));
    if !asked.once && !stop.is_cancelled() {
        output.line(&format!("\n{}", table::next(&board, site)));
        stay(&Live::plain(output), &mut said, &mut board, begun, network, stop).await?;
    }
    closing.cancel();
    desks.wait().await;
    Ok(if wrong.is_empty() { Exit::Ok } else { Exit::Failed })
}

/// Opens the four desks; each first sends what it refers itself.
fn open_desks(
    asked: &cli::Demo,
    samples: &[sample::Sample],
    network: &Network,
    events: &mpsc::Sender<Event>,
    closing: &CancellationToken,
) -> Result<TaskTracker, Failure> {
    let today = today()?;
    let desks = TaskTracker::new();
    for member in &network.members {
        let name = member.office.name;
        let options = desk::Options {
            office: member.office,
            channel: member.channel.clone(),
            register: Arc::new(sample::register(samples, name)),
            events: events.clone(),
            today,
            pace: Duration::from_millis(asked.pace),
        };
        let mut desk = Desk::open(options, closing.clone());
        let own: Vec<_> =
            samples.iter().filter(|sample| sample.from == name).map(|sample| sample.request.clone()).collect();
        desks.spawn(async move {
            for request in own {
                if desk.refer(request).await.is_err() {
                    return;
                }
            }
            desk.run().await;
        });
    }
    desks.close();
    Ok(desks)
}

/// Who follows the desks.
struct Watch {
    live: Live,
    board: Board,
    begun: Instant,
    chaos: Option<Chaos>,
}

impl Watch {
    /// Follows the desks until every case has ended. Returns a sentence when they fell silent before that.
    async fn until_ended(
        &mut self,
        said: &mut mpsc::Receiver<Event>,
        network: &mut Network,
        stop: &CancellationToken,
    ) -> Result<Option<String>, Failure> {
        while self.board.ended() < self.board.samples().len()
            || self.chaos.as_ref().is_some_and(|chaos| !chaos.is_over())
        {
            if self.begun.elapsed() > WHOLE {
                return Ok(Some(format!("after {} s not every case had ended", WHOLE.as_secs())));
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                event = timeout(SILENCE, said.recv()) => match event {
                    Ok(Some(event)) => {
                        let at_ms = millis(self.begun);
                        self.board.note(&event, at_ms);
                        self.live.event(&self.board, &event, at_ms);
                    }
                    Ok(None) => return Ok(Some("every desk has closed".to_owned())),
                    Err(_) => return Ok(Some(format!("no desk did anything for {} s", SILENCE.as_secs()))),
                },
            }
            if let Some(chaos) = &mut self.chaos
                && let Some(sentence) = chaos.strike(network, self.board.moves).await?
            {
                self.live.say(millis(self.begun), &sentence, Tone::Warn);
            }
            network.check()?;
        }
        Ok(None)
    }
}

/// Keeps the network up until Ctrl-C; the desks go on working on what users send.
async fn stay(
    live: &Live,
    said: &mut mpsc::Receiver<Event>,
    board: &mut Board,
    begun: Instant,
    network: &mut Network,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            event = timeout(Duration::from_secs(1), said.recv()) => {
                if let Ok(Some(event)) = event {
                    let at_ms = millis(begun);
                    board.note(&event, at_ms);
                    live.event(board, &event, at_ms);
                }
                network.check()?;
            }
        }
    }
}

fn millis(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX)
}

/// The date on the desks' calendars.
fn today() -> Result<Date, Failure> {
    let now = time::OffsetDateTime::from_unix_timestamp(SystemClock.now_s())
        .map_err(|error| Failure::internal("this machine's clock says no date").because(&error))?
        .date();
    if now.year() < 2024 {
        let sentence = format!("this machine's clock says {now}; certificates made now would not be valid elsewhere");
        return Err(Failure::new(Exit::Failed, sentence, "Set the clock."));
    }
    Ok(Date { year: now.year(), month: i32::from(u8::from(now.month())), day: i32::from(now.day()) })
}
