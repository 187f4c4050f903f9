//! What the demo promises about its processes; what it promises about cases is tested with the other promises.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Processes whose command line names a file below this folder.
fn processes_of(folder: &Path) -> usize {
    let folder = folder.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(&format!("{folder}/"))).count()
}

#[test]
fn no_process_outlives_the_demo_even_when_it_is_killed() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("demo");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_tramite"))
        .args(["demo", "--dir", folder.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    // The first referral is on its way: every process is up, and in the middle of its work.
    assert!(lines.by_ref().any(|line| line.unwrap().contains("refers a person")), "the demo ended before it began");
    assert_eq!(processes_of(&folder), 5, "a gateway and four adapters");
    demo.kill().unwrap();
    demo.wait().unwrap();
    let begun = Instant::now();
    while processes_of(&folder) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(40), "{} processes are left", processes_of(&folder));
        thread::sleep(Duration::from_millis(50));
    }
}
