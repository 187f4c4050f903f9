//! What was measured, what follows from it, and whether the accounts come out even.

use tokio::time::sleep_until;

use super::{
    gauge::{self, Page},
    histogram::Histogram,
    machine::Ground,
    network::Network,
    time::instant,
    wire::{Load, Received, Sent, Window},
};
use crate::failure::{Exit, Failure};

/// A fact in the journal, its statements and signatures with it; measured: 960 bytes in frames of 64.
const FACT_BYTES: u64 = 1_024;
/// What sealing adds to a body, with the encapsulated key.
const SEALED_BYTES: u64 = 48;

/// The processes that are watched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Processes {
    pub(super) gateway: Option<u32>,
    pub(super) sender: Option<u32>,
    pub(super) recipients: Option<u32>,
    pub(super) idle: Option<u32>,
}

/// CPU in microseconds, by process.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cpu {
    pub(super) gateway: u64,
    pub(super) sender: u64,
    pub(super) recipients: u64,
    pub(super) idle: u64,
}

impl Processes {
    fn cpu(self) -> Result<Cpu, Failure> {
        Ok(Cpu {
            gateway: gauge::cpu_us(self.gateway)?,
            sender: gauge::cpu_us(self.sender)?,
            recipients: gauge::cpu_us(self.recipients)?,
            idle: self.idle.map_or(Ok(0), |idle| gauge::cpu_us(Some(idle)))?,
        })
    }
}

/// KiB of the gateway's own memory where a window begins, at most, and where it ends; absent what could not be read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MemoryKib {
    pub(super) begin: Option<u64>,
    pub(super) peak: Option<u64>,
    pub(super) end: Option<u64>,
}

/// What the system and the gateway say of a window.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Samples {
    pub(super) cpu: Cpu,
    pub(super) memory: MemoryKib,
    /// Groups of the journal, each with one `fdatasync`.
    pub(super) groups: u64,
    /// Facts in them.
    pub(super) facts: u64,
    /// Open where the window begins and where it ends: the fewer of the two.
    pub(super) receive_streams: u64,
}

/// Looks where the window begins and where it ends.
pub(super) async fn sample(pids: Processes, network: &Network, window: Window) -> Result<Samples, Failure> {
    let looked = async |at_ns| {
        sleep_until(instant(at_ns)).await;
        Ok::<_, Failure>((Page::read(network.metrics).await?, pids.cpu()?))
    };
    let (before, first) = looked(window.count_ns).await?;
    let (after, last) = looked(window.end_ns).await?;
    Ok(Samples {
        cpu: Cpu {
            gateway: last.gateway - first.gateway,
            sender: last.sender - first.sender,
            recipients: last.recipients - first.recipients,
            idle: last.idle - first.idle,
        },
        memory: MemoryKib {
            begin: network.memory.at_kib(window.count_ns),
            peak: network.memory.peak_kib(window.count_ns..window.end_ns),
            end: network.memory.at_kib(window.end_ns),
        },
        groups: after.groups()? - before.groups()?,
        facts: after.facts()? - before.facts()?,
        receive_streams: after.receive_streams()?.min(before.receive_streams()?),
    })
}

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) load: Load,
    pub(super) seconds: u64,
    /// Bytes of the sealed part of each message, when contents travel as parts.
    pub(super) part: Option<u64>,
    pub(super) sent: Sent,
    pub(super) received: Received,
    pub(super) samples: Samples,
    /// What was reached before anything waited and anybody was idle, where that was measured.
    pub(super) rate_before: Option<f64>,
}

/// The machine's limits beside a run.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Bytes of a group in the run.
    pub(super) group_bytes: u64,
    /// One write and one `fdatasync` of as many.
    pub(super) disk: Histogram,
    pub(super) stream: Sent,
    pub(super) stream_cpu_us: u64,
    /// How long each was measured.
    pub(super) for_ns: u64,
}

/// How long the gateway took to serve again, and what waited at it then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Restart {
    pub(super) seconds: f64,
    pub(super) waiting: u64,
}

impl Restart {
    /// Whether as much waits as was acknowledged to the sender, and as waited before the kill.
    pub(super) fn even(&self, acknowledged: u64, before: u64) -> Result<(), Failure> {
        if (before, self.waiting) == (acknowledged, acknowledged) {
            return Ok(());
        }
        let sentence = format!(
            "{acknowledged} messages were acknowledged and wait for absent recipients; the gateway counted {before} before it was \
             killed, and {} after it was started again",
            self.waiting
        );
        Err(Failure::new(Exit::Failed, sentence, "Something was lost, or came back: nothing that was measured counts."))
    }
}

/// Whether anything was finished within the window.
pub(super) fn finished(sent: &Sent, received: &Received, seconds: u64) -> Result<(), Failure> {
    if sent.window > 0 && received.window > 0 {
        return Ok(());
    }
    let sentence = format!("nothing was finished within the {seconds} s that count");
    Err(Failure::new(Exit::Failed, sentence, "Give a longer --duration."))
}

/// Whether everybody who should be is connected, from the begin of the window to its end.
pub(super) fn connected(samples: &Samples, expected: u64) -> Result<(), Failure> {
    if samples.receive_streams >= expected {
        return Ok(());
    }
    let sentence = format!("only {} of {expected} institutions were connected", samples.receive_streams);
    Err(Failure::new(Exit::Failed, sentence, "Nothing that was measured counts."))
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Whole {
    pub(super) ground: Ground,
    pub(super) runs: Vec<(Run, Limits)>,
    /// Seconds that filling took.
    pub(super) backlog: Option<f64>,
    /// The most of the gateway's own memory from its start to its end.
    pub(super) memory_peak_kib: Option<u64>,
    pub(super) restart: Option<Restart>,
}

/// Of nothing it is not a number, which JSON has as null.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
pub(super) fn ratio(of: u64, to: u64) -> f64 {
    if to == 0 { f64::NAN } else { of as f64 / to as f64 }
}

impl Run {
    /// Messages a second whose receipt stands.
    pub(super) fn rate(&self) -> f64 {
        ratio(self.received.window, self.seconds)
    }

    /// Microseconds of CPU a message.
    pub(super) fn each_us(&self, cpu_us: u64) -> f64 {
        ratio(cpu_us, self.received.window)
    }

    /// MiB of parts a second, from the first frame to a receipt that stands; none when contents travel as bodies.
    pub(super) fn mib_rate(&self) -> Option<f64> {
        self.part.map(|part| self.rate() * ratio(part, 1 << 20))
    }

    /// Bytes that are synced at a time, near enough for the disk: a part; else a group of the journal, the contents of what was
    /// accepted, and its facts.
    pub(super) fn group_bytes(&self, content: u64) -> u64 {
        if let Some(part) = self.part {
            return part;
        }
        let bytes = self.sent.window * (content + SEALED_BYTES) + self.samples.facts * FACT_BYTES;
        bytes / self.samples.groups.max(1)
    }

    /// Facts that a group of the journal has, on average.
    pub(super) fn facts_a_group(&self) -> f64 {
        ratio(self.samples.facts, self.samples.groups)
    }
}

impl Limits {
    /// Groups a second that the disk takes.
    pub(super) fn disk_rate(&self) -> f64 {
        ratio(self.disk.total() * 1_000_000_000, self.for_ns)
    }

    /// Messages a second that the bare stream carries one way, with an answer for each.
    pub(super) fn stream_rate(&self) -> f64 {
        ratio(self.stream.window * 1_000_000_000, self.for_ns)
    }

    /// MiB of parts a second that the bare stream carries one way.
    pub(super) fn stream_mib_rate(&self) -> f64 {
        ratio(self.stream.window_bytes * 1_000, self.for_ns) * ratio(1_000_000, 1 << 20)
    }

    /// MiB a second that the disk takes.
    pub(super) fn disk_mib_rate(&self) -> f64 {
        self.disk_rate() * ratio(self.group_bytes, 1 << 20)
    }

    /// Microseconds of CPU a message of the bare stream, both ends.
    pub(super) fn stream_each_us(&self) -> f64 {
        ratio(self.stream_cpu_us, self.stream.submitted)
    }
}

/// Whether everything that went out came back, once.
pub(super) fn even(sent: &Sent, received: &Received, part: Option<u64>) -> Result<(), Failure> {
    let counted = sent.submitted - sent.absent;
    let accounts = [
        ("acknowledged", sent.acknowledged, sent.submitted),
        ("delivered", received.delivered, counted),
        ("settled", received.settled, counted),
        ("noticed", sent.noticed, counted),
    ];
    let part_bytes = counted * part.unwrap_or(0);
    match accounts.into_iter().find(|(_, is, must)| is != must) {
        None if received.part_bytes != part_bytes => {
            let sentence = format!("{} bytes of parts came, not {part_bytes}", received.part_bytes);
            Err(Failure::new(Exit::Failed, sentence, "Nothing that was measured counts."))
        }
        None => Ok(()),
        Some((what, is, must)) => {
            let sentence = format!("the accounts do not come out even: {is} messages were {what}, not {must}");
            Err(Failure::new(Exit::Failed, sentence, "Nothing that was measured counts."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kill_lost_or_brought_back_fails_the_bench() {
        let restart = |waiting| Restart { seconds: 0.1, waiting };
        restart(16).even(16, 16).unwrap();
        for (before, after) in [(16, 15), (16, 17), (15, 15), (17, 16), (0, 0)] {
            restart(after).even(16, before).unwrap_err();
        }
    }

    #[test]
    fn a_window_in_which_nothing_was_finished_fails_the_bench() {
        let (sent, received) = (Sent { window: 1, ..Sent::default() }, Received { window: 1, ..Received::default() });
        finished(&sent, &received, 1).unwrap();
        finished(&Sent::default(), &received, 1).unwrap_err();
        finished(&sent, &Received::default(), 1).unwrap_err();
    }

    #[test]
    fn an_institution_that_is_not_connected_fails_the_bench() {
        let samples = Samples { receive_streams: 5, ..Samples::default() };
        connected(&samples, 5).unwrap();
        connected(&samples, 6).unwrap_err();
    }

    #[test]
    fn a_message_that_is_lost_or_comes_twice_fails_the_bench() {
        let sent = Sent { submitted: 10, absent: 2, acknowledged: 10, noticed: 8, ..Sent::default() };
        let received = Received { delivered: 8, settled: 8, ..Received::default() };
        even(&sent, &received, None).unwrap();
        even(&Sent { acknowledged: 9, ..sent.clone() }, &received, None).unwrap_err();
        even(&Sent { noticed: 7, ..sent.clone() }, &received, None).unwrap_err();
        even(&sent, &Received { settled: 7, ..received.clone() }, None).unwrap_err();
        even(&sent, &Received { delivered: 9, ..received.clone() }, None).unwrap_err();
        even(&sent, &Received { part_bytes: 800, ..received.clone() }, Some(100)).unwrap();
        even(&sent, &Received { part_bytes: 700, ..received }, Some(100)).unwrap_err();
    }
}
