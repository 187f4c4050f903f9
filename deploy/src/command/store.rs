//! `tramite store …`: the store of a node that is stopped, checked, measured, repaired.
//!
//! Knows where a node keeps its store, and how findings are shown. Never judges bytes: the store's own crate does.

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tramite_store::{OpenError, QueueSize, Recovery, Size, Stat, Verification};

use crate::{
    cli::{Store, StoreCommand},
    failure::{Exit, Failure, chain},
    output::{Output, Tone, bytes, clock_time},
};

/// A bar is drawn anew after so many groups.
const DRAW_EVERY: u64 = 64;

/// Does what is asked.
pub(crate) fn run(asked: &Store, output: &Output) -> Result<Exit, Failure> {
    match &asked.command {
        StoreCommand::Verify(at) => verify(&find(&at.store)?, *output),
        StoreCommand::Rebuild(at) => rebuild(&find(&at.store)?, *output),
        StoreCommand::Stat(at) => stat(&find(&at.store)?, *output),
    }
}

/// The store that a path means: itself, the one in an adapter's data folder, or the one that a configuration names.
fn find(path: &Path) -> Result<PathBuf, Failure> {
    let data = if path.is_file() { configured(path)? } else { path.to_owned() };
    let places = [data.clone(), data.join("store")];
    let found = places.into_iter().find(|place| place.join("store.toml").is_file());
    found.ok_or_else(|| {
        let sentence =
            format!("there is no store in {}: neither it nor its folder `store` has a store.toml", data.display());
        Failure::new(Exit::NoInput, sentence, "Give the folder that `data` in the node's configuration names.")
    })
}

/// The data folder that a configuration names.
fn configured(file: &Path) -> Result<PathBuf, Failure> {
    let wrong = |what: String| {
        let sentence = format!("{} is no configuration of a node: {what}", file.display());
        Failure::new(Exit::Config, sentence, "Give gateway.toml, adapter.toml, or the node's data folder.")
    };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(chain(&error)))?;
    let data = table.get("data").and_then(toml::Value::as_str).ok_or_else(|| wrong("it has no `data`".into()))?;
    Ok(file.parent().unwrap_or(Path::new("")).join(data))
}

fn failed(error: &OpenError) -> Failure {
    let (exit, advice) = match error {
        OpenError::InUse(_) => (Exit::Unavailable, "Stop the gateway or adapter that runs on it, then ask again."),
        OpenError::Damaged(_) => {
            (Exit::Failed, "`tramite store verify` reads on as far as it can and says what is sound.")
        }
        OpenError::Io { .. } => (Exit::NoInput, "Ask as the user to whom the store belongs, and look at the disk."),
        _ => (Exit::NoInput, "Give the folder that `data` in the node's configuration names."),
    };
    Failure::new(exit, chain(error), advice)
}

fn verify(store: &Path, output: Output) -> Result<Exit, Failure> {
    let bar = output.is_terminal().then(|| {
        let style = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}  {msg}");
        ProgressBar::new(1).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    });
    let mut watch = |found: &Verification| {
        if let Some(bar) = bar.as_ref().filter(|_| found.groups.is_multiple_of(DRAW_EVERY)) {
            bar.set_length(found.all_bytes);
            bar.set_position(found.read_bytes);
            bar.set_message(format!("{} facts", found.facts));
        }
    };
    let found = tramite_store::verify_watched(store, &mut watch);
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    let found = found.map_err(|error| failed(&error))?;
    output.answer(&verified_value(store, &found), || verified_text(store, &found, output));
    Ok(if found.problems.is_empty() { Exit::Ok } else { Exit::Failed })
}

fn verified_value(store: &Path, found: &Verification) -> Value {
    let problem = |finding: &tramite_store::Finding| {
        json!({
            "file": finding.file, "offset": finding.offset, "what": finding.what,
            "sound_before": { "groups": finding.groups, "facts": finding.facts, "contents": finding.contents },
        })
    };
    let torn = found.torn.as_ref();
    json!({
        "store": store, "role": found.role, "sound": found.problems.is_empty(), "clean": found.clean,
        "groups": found.groups, "facts": found.facts, "retired": found.retired, "contents": found.contents, "erased": found.erased,
        "not_yet_erased": found.leftover, "parts": found.parts, "outbox_rows": found.rows,
        "torn_tail": torn.map(|cut| json!({ "file": cut.file, "offset": cut.offset, "bytes": cut.bytes })),
        "problems": found.problems.iter().map(problem).collect::<Vec<_>>(),
    })
}

fn verified_text(store: &Path, found: &Verification, output: Output) -> String {
    let mut lines = Vec::new();
    let counted = format!(
        "{} groups, {} facts, {} contents and {} parts that are needed; {} contents erased",
        found.groups, found.facts, found.contents, found.parts, found.erased
    );
    match found.problems.as_slice() {
        [] => {
            lines.push(format!("{} {} ({}): {counted}", output.word("sound", Tone::Good), store.display(), found.role))
        }
        [first, rest @ ..] => {
            lines.push(format!("{} {first}", output.word("damaged", Tone::Bad)));
            lines.push(format!(
                "  sound before it: {} groups, {} facts, {} contents",
                first.groups, first.facts, first.contents
            ));
            lines.extend(rest.iter().map(|finding| format!("{} {finding}", output.word("also", Tone::Bad))));
            lines.push(format!("  read in all: {counted}"));
        }
    }
    if let Some(cut) = &found.torn {
        let (file, offset, bytes) = (cut.file.display(), cut.offset, cut.bytes);
        lines.push(format!(
            "  a tail of {bytes} bytes at offset {offset} of {file} was never acknowledged: the next start cuts it"
        ));
    }
    if found.retired > 0 {
        lines.push(format!("  {} facts more are gone at the end of their retention", found.retired));
    }
    if found.leftover > 0 {
        lines.push(format!(
            "  {} contents of final messages are still there: the next start erases them",
            found.leftover
        ));
    }
    lines.push(match found.clean {
        true => format!("  outbox: {} rows compared with the journal", found.rows),
        false => {
            "  outbox: not left clean, so the next start completes it from the journal, or makes it anew".to_owned()
        }
    });
    lines.join("\n")
}

fn rebuild(store: &Path, output: Output) -> Result<Exit, Failure> {
    let done = tramite_store::rebuild(store).map_err(|error| failed(&error))?;
    let Recovery { cut, sequence, last_ms, .. } = &done;
    let torn = cut.as_ref().map(|cut| json!({ "file": cut.file, "offset": cut.offset, "bytes": cut.bytes }));
    output.answer(&json!({ "store": store, "rebuilt": true, "facts": sequence, "last_ms": last_ms, "cut": torn }), || {
        let mut text = format!("the outbox of {} was made anew from {sequence} facts, and left clean", store.display());
        if let Some(cut) = cut {
            let (file, offset, bytes) = (cut.file.display(), cut.offset, cut.bytes);
            text = format!("{text}\na tail of {bytes} bytes at offset {offset} of {file}, which was never acknowledged, was cut");
        }
        text
    });
    Ok(Exit::Ok)
}

fn stat(store: &Path, output: Output) -> Result<Exit, Failure> {
    let found = tramite_store::stat(store).map_err(|error| failed(&error))?;
    output.answer(&stat_value(store, &found), || stat_text(store, &found, output));
    Ok(Exit::Ok)
}

fn stat_value(store: &Path, found: &Stat) -> Value {
    let size = |size: &Size| json!({ "files": size.files, "length": size.length, "allocated": size.allocated });
    let queue = |queue: &QueueSize| {
        json!({
            "queue": queue.queue, "waiting": queue.waiting, "dead_letters": queue.dead_letters,
            "oldest_ms": queue.oldest_ms,
        })
    };
    let facts: Map<String, Value> =
        found.facts.iter().map(|(kind, count)| ((*kind).to_owned(), json!(count))).collect();
    json!({
        "store": store, "role": found.role, "clean": found.clean, "segments": size(&found.segments), "packed": size(&found.packed),
        "reserve": size(&found.reserve), "outbox": size(&found.outbox), "parts": size(&found.parts),
        "groups": found.groups, "facts": facts,
        "contents": {
            "waiting": { "count": found.waiting.count, "bytes": found.waiting.bytes },
            "erased": { "count": found.erased.count, "bytes": found.erased.bytes },
        },
        "queues": found.queues.iter().map(queue).collect::<Vec<_>>(),
        "last_sequence": found.last_sequence, "last_ms": found.last_ms,
    })
}

fn stat_text(store: &Path, found: &Stat, output: Output) -> String {
    let left = if found.clean {
        "stopped in order"
    } else {
        "not stopped in order: the next start completes its outbox from the journal, or makes it anew"
    };
    let last = if found.last_sequence == 0 { String::new() } else { format!(" at {}", clock_time(found.last_ms)) };
    let mut files = output.table(&["files", "number", "length", "on the disk"]);
    let sizes = [
        ("journal segments", &found.segments),
        ("packed segments", &found.packed),
        ("kept in reserve", &found.reserve),
        ("outbox", &found.outbox),
        ("parts", &found.parts),
    ];
    for (name, size) in sizes {
        let cells = [name.to_owned(), size.files.to_string(), bytes(size.length), bytes(size.allocated)];
        files.add_row(cells.map(|cell| output.cell(cell, Tone::Plain)));
    }
    let kinds: Vec<String> =
        found.facts.iter().map(|(kind, count)| format!("{} {count}", kind.replace('_', " "))).collect();
    let kinds = if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") };
    let mut queues = output.table(&["queue", "waiting", "dead letters", "oldest"]);
    for queue in &found.queues {
        let oldest = if queue.oldest_ms == 0 { String::new() } else { clock_time(queue.oldest_ms) };
        let dead = if queue.dead_letters == 0 { Tone::Plain } else { Tone::Bad };
        queues.add_row([
            output.cell(&queue.queue, Tone::Plain),
            output.cell(queue.waiting, Tone::Plain),
            output.cell(queue.dead_letters, dead),
            output.cell(oldest, Tone::Faint),
        ]);
    }
    format!(
        "{} ({}), {left}\nlast sequence {}{last}, in {} groups\nfacts: {kinds}\ncontents: {} waiting ({}), {} erased ({})\n\n{files}\n\n{queues}",
        store.display(),
        found.role,
        found.last_sequence,
        found.groups,
        found.waiting.count,
        bytes(found.waiting.bytes),
        found.erased.count,
        bytes(found.erased.bytes),
    )
}
