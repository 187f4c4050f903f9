//! Arguments of the bench.

use std::{ops::RangeInclusive, path::PathBuf};

use clap::{Args, builder::RangedI64ValueParser};

/// The content's default: a referral's body, padded to 2 KiB.
const CONTENT: u64 = 2_048;

/// Measure a gateway on this machine: messages a second, latencies, CPU, memory, and the limits of the machine beside them.
#[derive(Debug, Args)]
#[command(after_help = "\
What runs: a gateway on a fresh store, a process that sends and a process that
receives for every recipient, each a process of its own over mutual TLS on the
loopback. Every message is a referral in a case and a conversation of its own;
contents are sealed before the clock starts, and nothing is opened. Within the
clock: origins are written, hashed and signed (one signature a frame); the
gateway checks, signs, syncs; acceptances are verified; recipients check
digests, origin and acceptance, sign receipts, and wait for the word that they
stand; the sender checks and acknowledges the notices that tell it.

In flight: at most so many messages are submitted and not yet acknowledged, as a
broker's unconfirmed publishes; and at most --unsettled of them without the
notice of their receipt. With --in-flight 1 the next message begins when the one
before has come back with its receipt. Whole frames make up what is in flight:
of 100 they have 50 messages, and not 64. Every run says its load.

A content of more than 64 KiB (--content 20MiB) travels as a sealed part beside
a body of 2 KiB. It is sealed once before the clock starts, and the same bytes
are put anew for every message (PutPart). In flight begins with its first frame,
at most 8 at a time; frames have one message each; at most 512 MiB wait at the
gateway, unless --unsettled says otherwise. The recipient gets the part
(GetPart) and checks its digest before it signs a receipt. The limits are then
the same part written and synced, and put over a bare stream, which carries it
once where the gateway carries it in and out: half of the bare stream's bytes a
second is to be reached. --backlog has no parts.

With --backlog or --idle every load is also run before anything waits and
anybody is idle, which takes the time of a run more each; the ratio to that rate
says what they cost (rate_to_before).

At the end the accounts are checked: every message was acknowledged, delivered
once, settled and noticed. The exit code is 1 when they do not come out even.

Journal groups (journal_groups) are what the gateway's metrics page counts
(tramite_gateway_store_groups), one fdatasync each; what is synced for parts is
not among them. A message has three facts: accepted, settled, notice settled.
A histogram has the end of each bucket in microseconds, and its count.

Examples:
  tramite bench                              1 and 256 in flight, 10 s each
  tramite bench --in-flight 256 --frame 1    a signature for each message
  tramite bench --backlog 1000000 --kill     a million waiting; then a SIGKILL
  tramite bench --content 20MiB              long contents: MiB a second
  tramite bench --idle 996 --json            a thousand connected, for a program

Next: compare the ratios, not the figures: another machine has another disk. In
the source, tests/peers/compare.py runs this and the brokers that are installed,
and prints one table.")]
pub(crate) struct Bench {
    /// Messages submitted and not yet acknowledged; may be given several times, a run each [default: 1 and 256].
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) in_flight: Vec<u32>,
    /// Messages submitted and not yet receipted [default: 1 with 1 in flight, else 16 times as many, at least 1024].
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) unsettled: Option<u32>,
    /// Messages in one frame, under one signature; fewer, where so many do not divide those in flight.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) frame: u32,
    /// Seconds that count, of each run.
    #[arg(long, value_name = "S", allow_negative_numbers = true, default_value_t = 10, value_parser = seconds(1..=3_600))]
    pub(crate) duration: u64,
    /// Seconds before them that do not.
    #[arg(long, value_name = "S", allow_negative_numbers = true, default_value_t = 2, value_parser = seconds(0..=60))]
    pub(crate) warm_up: u64,
    /// Institutions that receive, in turns.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) recipients: u32,
    /// Bytes of a padded body, a power of two from 512 to 64KiB (what is sealed has 16 more); or of a longer content, up to 20MiB,
    /// which travels as a part.
    #[arg(long, value_name = "BYTES", default_value_t = CONTENT, value_parser = bytes)]
    pub(crate) content: u64,
    /// Messages accepted for absent recipients, and waiting, before the runs.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0, value_parser = whole(0..=20_000_000))]
    pub(crate) backlog: u64,
    /// Further institutions, connected and idle.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=5_000))]
    pub(crate) idle: u32,
    /// After the runs, kill the gateway with SIGKILL, measure how long it takes to serve again, and fail when not as much waits at it
    /// as before.
    #[arg(long)]
    pub(crate) kill: bool,
    /// Milliseconds for which receipts, and acknowledgements of notices, gather, up to 64 of them [default: 2]; not with 1 in flight, where nothing gathers.
    #[arg(long, value_name = "MS", allow_negative_numbers = true, value_parser = whole(0..=1_000))]
    pub(crate) gather: Option<u64>,
    /// Keep the folder, and say where it is.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Folder for keys, configuration, data and logs, on the disk to be measured; must be empty or not exist. Without it: a new
    /// temporary one.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// A whole number in a range; one below zero is told the range too.
fn whole(range: RangeInclusive<i64>) -> RangedI64ValueParser<u64> {
    RangedI64ValueParser::new().range(range)
}

/// Whole seconds in a range: `10` or `10s`.
fn seconds(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, String> + Clone {
    move |text| {
        let asked = text.strip_suffix('s').unwrap_or(text).parse().ok().filter(|seconds| range.contains(seconds));
        asked.ok_or_else(|| format!("whole seconds from {} to {}, as 10 or 10s", range.start(), range.end()))
    }
}

/// A number of bytes: `2048`, `64KiB`, `20MiB`.
fn bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("", 1)];
    let parsed = units
        .into_iter()
        .find_map(|(unit, bytes): (_, u64)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(bytes));
    parsed.ok_or_else(|| "it is no number of bytes: write 2048, 64KiB or 20MiB".to_owned())
}

/// A process of the bench; its orders come on standard input.
#[derive(Debug, Args)]
pub(crate) struct BenchClient {}
