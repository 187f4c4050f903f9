//! The last page: tables and a picture for people, everything in JSON for programs.

use std::{fmt::Write as _, path::Path};

use serde_json::{Value, json};

use super::{
    figures::{Limits, Run, Whole, ratio},
    histogram::Histogram,
    machine::Ground,
};
use crate::{
    cli,
    output::{Output, Tone},
};

/// A picture has at most so many bars.
const BARS_MAX: usize = 24;
/// Characters of the longest bar.
const BAR: u64 = 40;

/// A line of the page: what it is, the figure, and a note on it.
type Row = (String, String, String);

/// For people.
pub(super) fn text(output: Output, whole: &Whole, kept: Option<&Path>) -> String {
    let (mut all, mut pictures) = (Vec::new(), String::new());
    for (run, limits) in &whole.runs {
        all.push(Row::default());
        all.extend(rows(run, limits));
        picture(&mut pictures, run.load.in_flight, &run.received.handover);
    }
    let mut text = format!(
        "tramite {}, a {} build, on {}\n",
        env!("CARGO_PKG_VERSION"),
        build(&whole.ground),
        whole.ground.file_system
    );
    for warning in whole.ground.warnings() {
        let _ = writeln!(text, "{}", output.word(&output.folded(warning), Tone::Warn));
    }
    text.push_str(&page(output, &all));
    text.push_str(&pictures);
    if let Some(seconds) = whole.backlog {
        let _ = write!(text, "\nThe backlog was filled in {seconds:.1} s.");
    }
    let peak = mib(whole.memory_peak_kib);
    let _ = write!(text, "\nThe gateway had at most {peak} of its own (RssAnon) from its start to its end.");
    if let Some(restart) = &whole.restart {
        let _ = write!(
            text,
            "\nKilled with SIGKILL, the gateway served again after {:.2} s; {} messages wait at it, as before.",
            restart.seconds, restart.waiting
        );
    }
    if let Some(kept) = kept {
        let _ = write!(text, "\nEverything is kept in {}", kept.display());
    }
    text
}

fn build(ground: &Ground) -> &'static str {
    if ground.debug { "debug" } else { "release" }
}

/// Each note behind its figure; under it, where the terminal is too narrow for both.
fn page(output: Output, rows: &[Row]) -> String {
    let chars = |text: &String| text.chars().count();
    let widest = |of: fn(&Row) -> &String| rows.iter().map(|row| chars(of(row))).max().unwrap_or(0);
    let (names, figures) = (widest(|row| &row.0), widest(|row| &row.1));
    let mut page = String::new();
    for (name, figure, note) in rows {
        let strong = if figure.is_empty() { String::new() } else { output.word(figure, Tone::Strong) };
        let first = format!("{name:<names$}  {strong}");
        let fits = output.width().is_none_or(|width| names + figures + chars(note) + 4 <= width);
        let line = match (note.is_empty(), fits) {
            (true, _) => first.trim_end().to_owned(),
            (_, true) => {
                let blanks = " ".repeat(figures.saturating_sub(chars(figure)));
                format!("{first}{blanks}  {}", output.word(note, Tone::Faint))
            }
            (_, false) => {
                let note = output.folded(&format!("      {note}"));
                format!("{first}\n{}", output.word(&note, Tone::Faint))
            }
        };
        let _ = writeln!(page, "{line}");
    }
    page
}

fn rows(run: &Run, limits: &Limits) -> Vec<Row> {
    let load = run.load;
    let mut rows =
        vec![(format!("{} in flight, frames of {}", load.in_flight, load.frame), String::new(), String::new())];
    let mut row = |name: &str, figure: String, note: &str| rows.push((format!("  {name}"), figure, note.to_owned()));
    row("messages a second", figure(run.rate()), "from submission to a receipt that stands");
    if let Some(mib_rate) = run.mib_rate() {
        row("MiB a second", figure(mib_rate), "the same, of sealed parts");
    }
    for (what, histogram) in latencies(run) {
        row(what, pair(histogram), "p50 / p99");
    }
    let cpu = run.samples.cpu;
    let all = cpu.gateway + cpu.sender + cpu.recipients + cpu.idle;
    let mut sides = vec![("gateway", cpu.gateway), ("sender", cpu.sender), ("recipients", cpu.recipients)];
    if cpu.idle > 0 {
        sides.push(("idle", cpu.idle));
    }
    let parts: Vec<String> =
        sides.into_iter().map(|(side, cpu_us)| format!("{side} {}", figure(run.each_us(cpu_us)))).collect();
    row("CPU a message", format!("{} µs", figure(run.each_us(all))), &parts.join(", "));
    let memory = run.samples.memory;
    let note = format!("RssAnon, peak; {} at the begin, {} at the end", mib(memory.begin), mib(memory.end));
    row("gateway's memory", mib(memory.peak), &note);
    row("receiving", run.samples.receive_streams.to_string(), "institutions connected, from begin to end");
    row("journal groups", run.samples.groups.to_string(), &groups(run, limits));
    let disk = format!("{} a second, {} MiB/s", figure(limits.disk_rate()), figure(limits.disk_mib_rate()));
    row("limit: append + fdatasync", pair(&limits.disk), &disk);
    let rate = match run.part {
        None => format!("{} messages a second", figure(limits.stream_rate())),
        Some(_) => format!("{} MiB a second", figure(limits.stream_mib_rate())),
    };
    let stream = format!("{rate}, {} µs of CPU a message", figure(limits.stream_each_us()));
    row("limit: bare stream", pair(&limits.stream.acknowledgement), &stream);
    for ratio in ratios(run, limits) {
        row(&format!("ratio: {}", ratio.name), figure(ratio.value), ratio.note);
    }
    rows
}

/// As many digits as a measurement has: three, or all before the point; a dash where nothing was measured.
fn figure(value: f64) -> String {
    match value {
        _ if !value.is_finite() => "–".to_owned(),
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn mib(kib: Option<u64>) -> String {
    kib.map_or_else(|| "–".to_owned(), |kib| format!("{} MiB", kib / 1_024))
}

fn latencies(run: &Run) -> [(&'static str, &Histogram); 4] {
    [
        ("to acknowledgement", &run.sent.acknowledgement),
        ("to delivery", &run.received.delivery),
        ("to handover", &run.received.handover),
        ("to notice", &run.sent.notice),
    ]
}

fn pair(histogram: &Histogram) -> String {
    let millis = |permille| figure(histogram.permille_us(permille) / 1_000.0);
    format!("{} / {} ms", millis(500), millis(990))
}

/// What was in a group of the journal: a message has three facts, as it is accepted, settled, and its notice settled.
fn groups(run: &Run, limits: &Limits) -> String {
    let facts = figure(run.facts_a_group());
    match run.part {
        None => format!("one fdatasync each; {facts} facts and about {} bytes in each", limits.group_bytes),
        Some(_) => format!("one fdatasync each; {facts} facts in each; every part has a sync of its own besides"),
    }
}

/// What counts on any machine.
struct Ratio {
    /// In the JSON answer.
    key: &'static str,
    /// For people.
    name: &'static str,
    note: &'static str,
    value: f64,
}

fn ratios(run: &Run, limits: &Limits) -> Vec<Ratio> {
    let p50 = |histogram: &Histogram| histogram.permille_us(500);
    let floor = p50(&limits.stream.acknowledgement) + p50(&limits.disk);
    let acknowledgement = Ratio {
        key: "acknowledgement_to_limits",
        name: "acknowledgement",
        note: "acknowledgement p50 to (bare round trip + append and fdatasync)",
        value: p50(&run.sent.acknowledgement) / floor,
    };
    let [to_stream, to_disk] = match run.mib_rate() {
        None => [
            Ratio {
                key: "rate_to_stream",
                name: "to the stream",
                note: "messages a second to those of the bare stream",
                value: run.rate() / limits.stream_rate(),
            },
            Ratio {
                key: "groups_to_disk",
                name: "to the disk",
                note: "groups a second to those that the disk takes",
                value: ratio(run.samples.groups, run.seconds) / limits.disk_rate(),
            },
        ],
        Some(mib) => [
            Ratio {
                key: "bytes_to_stream",
                name: "to the stream",
                note: "bytes a second to those of the bare stream, which carries them once",
                value: mib / limits.stream_mib_rate(),
            },
            Ratio {
                key: "bytes_to_disk",
                name: "to the disk",
                note: "bytes a second to those that the disk takes",
                value: mib / limits.disk_mib_rate(),
            },
        ],
    };
    let to_before = run.rate_before.map(|before| Ratio {
        key: "rate_to_before",
        name: "to the rate before",
        note: "messages a second to those before anything waited and anybody was idle",
        value: run.rate() / before,
    });
    [acknowledgement, to_stream, to_disk].into_iter().chain(to_before).collect()
}

/// Bars as fine as the page has room for: eight, four, two or one for each doubling.
fn picture(text: &mut String, in_flight: u64, histogram: &Histogram) {
    let finest = [8, 4, 2].into_iter().map(|bars| histogram.bars(bars)).find(|bars| bars.len() <= BARS_MAX);
    let bars = finest.unwrap_or_else(|| histogram.bars(1));
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let _ = write!(text, "\nSubmission to handover of {}, {in_flight} in flight:\n", histogram.total());
    for (end_us, count) in bars {
        let bar = "█".repeat(usize::try_from((count * BAR).div_ceil(most)).unwrap_or(0));
        let line = format!("  < {:>5} ms {count:>9} {bar}", figure(end_us / 1_000.0));
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// For programs.
pub(super) fn value(asked: &cli::Bench, whole: &Whole, kept: Option<&Path>) -> Value {
    let runs: Vec<Value> = whole.runs.iter().map(|(run, limits)| run_value(run, limits)).collect();
    json!({
        "content_bytes": asked.content, "recipients": asked.recipients, "idle": asked.idle, "backlog": asked.backlog,
        "measured_on": {
            "file_system": whole.ground.file_system, "build": build(&whole.ground), "version": env!("CARGO_PKG_VERSION"),
        },
        "folder": kept, "gateway_rss_anon_peak_kib": whole.memory_peak_kib,
        "backlog_filled_s": whole.backlog, "runs": runs,
        "restart_s": whole.restart.map(|restart| restart.seconds),
        "waiting_at_restart": whole.restart.map(|restart| restart.waiting),
    })
}

fn run_value(run: &Run, limits: &Limits) -> Value {
    let spread = |histogram: &Histogram| {
        json!({
            "p50": histogram.permille_us(500), "p90": histogram.permille_us(900), "p99": histogram.permille_us(990),
            "p999": histogram.permille_us(999), "count": histogram.total(), "histogram": histogram.buckets_us(),
        })
    };
    let cpu = run.samples.cpu;
    let ratios: serde_json::Map<String, Value> =
        ratios(run, limits).into_iter().map(|ratio| (ratio.key.to_owned(), json!(ratio.value))).collect();
    json!({
        "in_flight": run.load.in_flight, "unsettled": run.load.unsettled, "frame": run.load.frame,
        "seconds": run.seconds, "receive_streams": run.samples.receive_streams, "messages": run.received.window, "messages_per_s": run.rate(),
        "part_bytes": run.part, "mib_per_s": run.mib_rate(),
        "acknowledgement_us": spread(&run.sent.acknowledgement), "delivery_us": spread(&run.received.delivery),
        "handover_us": spread(&run.received.handover), "notice_us": spread(&run.sent.notice),
        "cpu_us_per_message": {
            "gateway": run.each_us(cpu.gateway), "sender": run.each_us(cpu.sender),
            "recipients": run.each_us(cpu.recipients), "idle": run.each_us(cpu.idle),
        },
        "gateway_rss_anon_begin_kib": run.samples.memory.begin,
        "gateway_rss_anon_peak_kib": run.samples.memory.peak,
        "gateway_rss_anon_end_kib": run.samples.memory.end,
        "journal_groups": run.samples.groups, "bytes_per_group": limits.group_bytes, "facts": run.samples.facts,
        "facts_per_group": run.facts_a_group(),
        "accounts": {
            "submitted": run.sent.submitted, "acknowledged": run.sent.acknowledged, "delivered": run.received.delivered,
            "part_bytes": run.received.part_bytes, "settled": run.received.settled, "noticed": run.sent.noticed, "absent": run.sent.absent,
        },
        "verified_batches": {"sender": run.sent.batches, "recipients": run.received.batches},
        "receipt_batches_signed": run.received.receipts_signed,
        "limits": {
            "append_fdatasync_us": spread(&limits.disk), "append_fdatasync_per_s": limits.disk_rate(),
            "stream_us": spread(&limits.stream.acknowledgement), "stream_messages_per_s": limits.stream_rate(),
            "stream_cpu_us_per_message": limits.stream_each_us(),
            "append_fdatasync_mib_per_s": limits.disk_mib_rate(),
            "stream_mib_per_s": run.part.map(|_| limits.stream_mib_rate()),
        },
        "ratios": ratios,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{
        figures::{Cpu, Restart, Samples},
        wire::{Load, Received, Sent},
    };

    fn of(us: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        us.iter().for_each(|us| histogram.record(us * 1_000));
        histogram
    }

    /// A run in which no notice came within the window.
    fn run() -> Run {
        Run {
            load: Load { in_flight: 8, unsettled: 1_024, frame: 8 },
            seconds: 2,
            part: None,
            sent: Sent { window: 100, acknowledgement: of(&[300; 3]), ..Sent::default() },
            received: Received {
                window: 100,
                delivery: of(&[400]),
                handover: of(&[900, 900, 3_000]),
                ..Received::default()
            },
            samples: Samples {
                cpu: Cpu { gateway: 1_000, sender: 2_000, recipients: 0, idle: 1_000 },
                groups: 20,
                facts: 300,
                receive_streams: 5,
                ..Samples::default()
            },
            rate_before: Some(40.0),
        }
    }

    fn whole() -> Whole {
        let stream = Sent { window: 400, submitted: 400, acknowledgement: of(&[100]), ..Sent::default() };
        let limits =
            Limits { group_bytes: 2_048, disk: of(&[100; 50]), stream, stream_cpu_us: 800, for_ns: 1_000_000_000 };
        Whole {
            ground: Ground { file_system: "tmpfs".to_owned(), debug: false },
            runs: vec![(run(), limits)],
            backlog: Some(1.5),
            memory_peak_kib: Some(20 << 10),
            restart: Some(Restart { seconds: 0.25, waiting: 16 }),
        }
    }

    #[test]
    fn the_page_has_every_figure_beside_its_name_and_a_picture() {
        let page = text(Output::to_a_pipe(), &whole(), Some(Path::new("/kept/here")));
        let has = |name: &str, figures: &[&str]| {
            let line = page.lines().find(|line| line.contains(name));
            assert!(line.is_some_and(|line| figures.iter().all(|figure| line.contains(figure))), "{name} in\n{page}");
        };
        has("a release build", &["on tmpfs"]);
        has("a sync costs nothing", &[]);
        has("messages a second ", &["50.0", "from submission"]);
        has("to acknowledgement", &["0.30 / 0.30 ms", "p50 / p99"]);
        has("to notice", &["– / – ms"]);
        has("CPU a message", &["40.0 µs", "gateway 10.0, sender 20.0, recipients 0.00, idle 10.0"]);
        has("receiving", &["5"]);
        has("journal groups", &["20", "15.0 facts"]);
        has("limit: append + fdatasync", &["50.0 a second"]);
        has("limit: bare stream", &["400 messages a second", "2.00 µs"]);
        has("ratio: acknowledgement", &["1.5"]);
        has("ratio: to the rate before", &["1.25"]);
        has("handover of 3, 8 in flight", &[]);
        has("<  0.92 ms", &["2", &"█".repeat(40)]);
        has("<  3.15 ms", &["1", &"█".repeat(20)]);
        has("filled in 1.5 s", &[]);
        has("at most 20 MiB", &[]);
        has("served again after 0.25 s", &["16 messages wait"]);
        has("/kept/here", &["Everything is kept in"]);
    }

    #[test]
    fn what_was_not_measured_is_null_for_a_program() {
        let (_, limits) = &whole().runs[0];
        let value = run_value(&run(), limits);
        assert_eq!(value["notice_us"]["p50"], Value::Null);
        assert_eq!(value["gateway_rss_anon_peak_kib"], Value::Null);
        let unlimited = Limits { stream: Sent::default(), ..limits.clone() };
        assert_eq!(run_value(&run(), &unlimited)["ratios"]["rate_to_stream"], Value::Null);
        let ends: Vec<u64> =
            value["handover_us"]["histogram"].as_array().unwrap().iter().filter_map(|pair| pair[1].as_u64()).collect();
        assert_eq!(ends, [2, 1]);
    }
}
