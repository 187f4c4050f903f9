//! What the bench promises: it runs everything for real, its accounts come out even, and a program can read what it measured.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStderr, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A bench of a second ends within this on the busiest machine, or never.
const PATIENCE: Duration = Duration::from_secs(120);

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tramite"));
    command.arg("bench").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = Pid::from_child(&child);
    let (ended, output) = mpsc::channel();
    thread::spawn(move || ended.send(child.wait_with_output()));
    output.recv_timeout(PATIENCE).map(Result::unwrap).unwrap_or_else(|_| {
        kill_process(pid, Signal::KILL).unwrap();
        unreachable!("{arguments:?} did not end within {PATIENCE:?}")
    })
}

fn number(value: &Value, pointer: &str) -> u64 {
    let found = value.pointer(pointer).and_then(Value::as_u64);
    assert!(found.is_some(), "no {pointer} in {value:#}");
    found.unwrap()
}

fn is_positive(value: &Value, pointer: &str) {
    let found = value.pointer(pointer).and_then(Value::as_f64);
    assert!(found.is_some_and(|found| found > 0.0), "{pointer} is {found:?} in {value:#}");
}

#[test]
fn every_message_of_a_bench_is_acknowledged_delivered_settled_and_noticed_once() {
    let small = ["--in-flight", "1", "--in-flight", "8", "--recipients", "2", "--backlog", "16"];
    let short = ["--duration", "3", "--warm-up", "0", "--json"];
    let output = bench(&[&small[..], &short[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let page: Value = serde_json::from_slice(&output.stdout).unwrap();
    let runs = page.pointer("/runs").and_then(Value::as_array).unwrap();
    assert_eq!(runs.len(), 2, "{page:#}");
    for run in runs {
        let submitted = number(run, "/accounts/submitted");
        let absent = number(run, "/accounts/absent");
        assert_eq!(absent, 16);
        assert!(submitted > absent, "nothing was sent: {run:#}");
        assert_eq!(number(run, "/accounts/acknowledged"), submitted);
        for account in ["delivered", "settled", "noticed"] {
            assert_eq!(number(run, &format!("/accounts/{account}")), submitted - absent, "{account}");
        }
        for field in [
            "/messages_per_s",
            "/acknowledgement_us/p50",
            "/acknowledgement_us/p99",
            "/handover_us/p50",
            "/handover_us/p99",
            "/gateway_rss_anon_peak_kib",
            "/journal_groups",
            "/limits/append_fdatasync_us/p50",
            "/limits/stream_messages_per_s",
            "/ratios/acknowledgement_to_limits",
            "/ratios/rate_to_stream",
            "/ratios/groups_to_disk",
        ] {
            is_positive(run, field);
        }
        // The system counts it in hundredths of a second: of one message after the other a slow disk leaves too few for that.
        let sides =
            if number(run, "/in_flight") == 1 { &["gateway"][..] } else { &["gateway", "sender", "recipients"] };
        for side in sides {
            is_positive(run, &format!("/cpu_us_per_message/{side}"));
        }
        is_positive(run, "/verified_batches/sender");
        let spread = run.pointer("/handover_us").unwrap();
        let buckets = spread["histogram"].as_array().unwrap();
        assert_eq!(buckets.iter().filter_map(|bucket| bucket[1].as_u64()).sum::<u64>(), number(spread, "/count"));
    }
}

#[test]
fn single_frames_idle_institutions_and_a_kill_leave_the_accounts_even() {
    let asked = ["--in-flight", "4", "--frame", "1", "--recipients", "2", "--idle", "3", "--backlog", "16", "--kill"];
    let output = bench(&[&asked[..], &["--duration", "3", "--warm-up", "0", "--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let page: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((number(&page, "/idle"), number(&page, "/waiting_at_restart")), (3, 16));
    assert_eq!(number(&page, "/runs/0/receive_streams"), 6, "the sender, two recipients, three idle");
    assert!(!page["measured_on"]["file_system"].as_str().unwrap().is_empty());
    assert_eq!(page["measured_on"]["build"].as_str(), Some(if cfg!(debug_assertions) { "debug" } else { "release" }));
    is_positive(&page, "/runs/0/ratios/rate_to_before");
    is_positive(&page, "/restart_s");
    is_positive(&page, "/gateway_rss_anon_peak_kib");
    let peak = number(&page, "/gateway_rss_anon_peak_kib");
    assert!(
        ["begin", "peak", "end"].iter().all(|at| number(&page, &format!("/runs/0/gateway_rss_anon_{at}_kib")) <= peak)
    );
    assert_eq!(number(&page, "/runs/0/frame"), 1);
    let submitted = number(&page, "/runs/0/accounts/submitted");
    assert!(submitted > 16, "nothing was sent: {page:#}");
    let verified = number(&page, "/runs/0/verified_batches/recipients");
    assert!(verified > submitted - 16, "frames of one have a signature each, and the gateway's are more: {page:#}");
    for account in ["delivered", "settled", "noticed"] {
        assert_eq!(number(&page, &format!("/runs/0/accounts/{account}")), submitted - 16, "{account}");
    }
}

#[test]
fn a_folder_that_was_given_must_be_empty_and_what_is_kept_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("new");
    let short = ["--in-flight", "4", "--recipients", "1", "--duration", "3", "--warm-up", "0", "--json", "--dir"];
    let arguments = [&short[..], &[dir.to_str().unwrap()]].concat();
    let output = bench(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let page: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(page["folder"].as_str(), dir.to_str());
    assert!(dir.join("gateway.log").is_file());
    let output = bench(&arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(64) && said.contains("is not empty"), "{said}");
}

/// Starts a bench and waits until it says so; then it goes on by itself.
fn bench_until(line: &str, arguments: &[&str]) -> (Child, BufReader<ChildStderr>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tramite"));
    let mut child = command.arg("bench").args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut next = String::new();
    while !next.starts_with(line) {
        next.clear();
        assert!(said.read_line(&mut next).unwrap() > 0, "it never said: {line}");
    }
    (child, said)
}

#[test]
fn an_interrupt_while_everything_is_made_ends_the_bench_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let (mut child, mut said) = bench_until("Making", &["--idle", "300", "--dir", dir]);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut last = String::new();
    said.read_to_string(&mut last).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(last.contains("interrupted") && last.contains(dir), "{last}");
    assert!(!folder.path().join("gateway.log").exists(), "it went on");
}

#[test]
fn a_gateway_that_ends_by_itself_is_why_and_its_log_is_kept() {
    let (mut child, mut said) = bench_until("Sealing", &["--recipients", "1", "--in-flight", "1"]);
    kill_process(gateway_of(child.id()), Signal::KILL).unwrap();
    let mut last = String::new();
    said.read_to_string(&mut last).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(last.contains("gateway ended by itself"), "{last}");
    let (_, kept) = last.split_once("kept in ").unwrap();
    let (kept, _) = kept.split_once(',').unwrap();
    assert!(Path::new(kept).join("gateway.log").is_file(), "{last}");
    fs::remove_dir_all(kept).unwrap();
}

/// The process of the gateway that this bench started.
fn gateway_of(bench: u32) -> Pid {
    let read = |pid: i32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let mut gateways = pids.filter(|pid| {
        read(*pid, "status").contains(&format!("PPid:\t{bench}\n")) && read(*pid, "cmdline").contains("\0gateway\0")
    });
    Pid::from_raw(gateways.next().unwrap()).unwrap()
}

#[test]
fn a_load_of_more_frames_than_wait_for_the_line_comes_to_an_end() {
    let many = ["--in-flight", "16384", "--frame", "1", "--recipients", "2", "--content", "512"];
    let output = bench(&[&many[..], &["--duration", "2", "--warm-up", "0", "--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let page: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((number(&page, "/runs/0/in_flight"), number(&page, "/runs/0/frame")), (16_384, 1));
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_limit_that_it_passes() {
    let cases: [(&[&str], &str); 4] = [
        (&["--content", "30MiB"], "at most 20MiB"),
        (&["--gather", "5", "--in-flight", "1"], "no receipts gather"),
        (&["--duration", "-1"], "from 1 to 3600"),
        (&["--in-flight", "-4"], "1..=65536"),
    ];
    for (arguments, words) in cases {
        let output = bench(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(64) && said.contains(words), "{arguments:?}: {said}");
    }
}

#[test]
fn a_content_that_is_too_long_for_a_body_is_put_got_and_settled_as_a_part() {
    let small = ["--in-flight", "4", "--recipients", "2", "--content", "1MiB", "--backlog", "16"];
    let short = ["--duration", "3s", "--warm-up", "0", "--json"];
    let output = bench(&[&small[..], &short[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let page: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(number(&page, "/content_bytes"), 1 << 20);
    let run = page.pointer("/runs/0").unwrap();
    let submitted = number(run, "/accounts/submitted");
    assert!(submitted > 16, "nothing was sent: {run:#}");
    for account in ["delivered", "settled", "noticed"] {
        assert_eq!(number(run, &format!("/accounts/{account}")), submitted - 16, "{account}");
    }
    let part_bytes = (1 << 20) + 16 * 16;
    assert_eq!(number(run, "/part_bytes"), part_bytes);
    assert_eq!(number(run, "/accounts/part_bytes"), (submitted - 16) * part_bytes);
    for field in [
        "/mib_per_s",
        "/acknowledgement_us/p50",
        "/handover_us/p50",
        "/gateway_rss_anon_peak_kib",
        "/limits/append_fdatasync_mib_per_s",
        "/limits/stream_mib_per_s",
        "/ratios/acknowledgement_to_limits",
        "/ratios/bytes_to_stream",
        "/ratios/bytes_to_disk",
    ] {
        is_positive(run, field);
    }
}

#[test]
fn a_content_that_nothing_can_carry_or_more_puts_than_a_gateway_lets_in_are_refused_before_anything_starts() {
    for arguments in [
        &["--content", "20971521"][..],
        &["--content", "21MiB"],
        &["--content", "x"],
        &["--content", "18446744073709551615MiB"],
        &["--content", "20MiB", "--in-flight", "9"],
    ] {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    }
}

#[test]
fn a_content_that_no_padded_body_has_is_refused_before_anything_starts() {
    let output = bench(&["--content", "3000"]);
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("power of two"), "{said}");
}
