//! `tramite store …`: the store of a node that is stopped, checked, measured, repaired.
//!
//! Knows how findings are shown. Never judges bytes: the store's own crate does.

mod place;
mod remedy;

use std::{
    io,
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tramite_store::{Finding, OpenError, QueueSize, Recovery, Size, Stat, Verification};

use self::{place::Asked, remedy::remedies};
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
        StoreCommand::Verify(at) => verify(Asked { command: "verify", path: &at.store }, *output),
        StoreCommand::Rebuild(at) => rebuild(Asked { command: "rebuild", path: &at.store }, *output),
        StoreCommand::Stat(at) => stat(Asked { command: "stat", path: &at.store }, *output),
    }
}

/// The store, to be read. Reading changes nothing, but where no node ever ran (a copy that was brought back) it makes the file of its lock.
fn to_read(asked: Asked<'_>) -> Result<PathBuf, Failure> {
    let store = asked.find()?;
    if !store.join("LOCK").exists() {
        asked.only_owner(&store)?;
    }
    Ok(store)
}

fn failed(asked: Asked<'_>, error: &OpenError) -> Failure {
    let (exit, advice) = match error {
        OpenError::InUse(_) => (Exit::Unavailable, "Stop the gateway or adapter that runs on it, then ask again."),
        OpenError::Damaged(_) => {
            (Exit::Failed, "`tramite store verify` reads on as far as it can and says what is sound.")
        }
        OpenError::Io { path, .. } if *path == std::env::temp_dir() => {
            (Exit::CannotCreate, "Set TMPDIR to a folder that you may write to, with as much room as the outbox has.")
        }
        OpenError::Io { path, source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            return asked.unreadable(path, source);
        }
        OpenError::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => (
            Exit::CannotCreate,
            "Its disk is mounted to be read only: mount it so that it can be written, or ask of a copy.",
        ),
        OpenError::Io { .. } => (Exit::NoInput, "Look at the disk."),
        OpenError::Outbox(_) => (
            Exit::CannotCreate,
            "Look at the room on the disk, and on that of the folder for temporary files (TMPDIR).",
        ),
        _ => (Exit::NoInput, "Give the folder that `data` in the node's configuration names."),
    };
    Failure::new(exit, chain(error), advice)
}

fn verify(asked: Asked<'_>, output: Output) -> Result<Exit, Failure> {
    let store = to_read(asked)?;
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
    let found = tramite_store::verify_watched(&store, &mut watch);
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    let found = found.map_err(|error| failed(asked, &error))?;
    let remedies = remedies(&store, &found.role, &found.problems);
    output.answer(&verified_value(&store, &found, &remedies), || {
        let mut text = verified_text(&store, &found, output);
        remedies.iter().for_each(|remedy| text = format!("{text}\nnext: {remedy}"));
        output.folded(&text)
    });
    Ok(if found.problems.is_empty() { Exit::Ok } else { Exit::Failed })
}

fn verified_value(store: &Path, found: &Verification, remedies: &[String]) -> Value {
    let problem = |finding: &Finding| {
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
        "problems": found.problems.iter().map(problem).collect::<Vec<_>>(), "next": remedies,
    })
}

fn verified_text(store: &Path, found: &Verification, output: Output) -> String {
    let mut lines = Vec::new();
    let counted = format!(
        "{}, {}, {} and {} that are needed; {} erased",
        count(found.groups, "group"),
        count(found.facts, "fact"),
        count(found.contents, "content"),
        count(found.parts, "part"),
        count(found.erased, "content"),
    );
    match found.problems.as_slice() {
        [] => {
            lines.push(format!("{} {} ({}): {counted}", output.word("sound", Tone::Good), store.display(), found.role))
        }
        [first, rest @ ..] => {
            lines.push(format!("{} {}", output.word("damaged", Tone::Bad), finding(first)));
            lines.push(format!(
                "  sound before it: {}, {}, {}",
                count(first.groups, "group"),
                count(first.facts, "fact"),
                count(first.contents, "content"),
            ));
            lines.extend(rest.iter().map(|other| format!("{} {}", output.word("also", Tone::Bad), finding(other))));
            lines.push(format!("  read in all: {counted}"));
        }
    }
    if let Some(cut) = &found.torn {
        let (file, offset, bytes) = (cut.file.display(), cut.offset, count(cut.bytes, "byte"));
        lines.push(format!(
            "  a tail of {bytes} at offset {offset} of {file} was never acknowledged: the next start cuts it"
        ));
    }
    if found.retired > 0 {
        lines.push(format!("  gone at the end of their retention: {}", count(found.retired, "fact")));
    }
    // After a clean stop that is a finding, with what to do about it.
    if found.leftover > 0 && !found.clean {
        lines.push(format!(
            "  still there although the message is final: {}; the next start erases that",
            count(found.leftover, "content")
        ));
    }
    lines.push(match found.clean {
        _ if found.rows == 0 && !found.problems.is_empty() => "  outbox: not compared with the journal".to_owned(),
        true => format!("  outbox: {} compared with the journal", count(found.rows, "row")),
        false => {
            "  outbox: not left clean, so the next start completes it from the journal, or makes it anew".to_owned()
        }
    });
    lines.join("\n")
}

fn finding(found: &Finding) -> String {
    let (file, what) = (found.file.display(), &found.what);
    match found.offset {
        Some(offset) => format!("{file} at offset {offset}: {what}"),
        None => format!("{file}: {what}"),
    }
}

/// A number and its noun.
fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

fn rebuild(asked: Asked<'_>, output: Output) -> Result<Exit, Failure> {
    let store = asked.find()?;
    asked.only_owner(&store)?;
    let done = tramite_store::rebuild(&store).map_err(|error| failed(asked, &error))?;
    let Recovery { cut, sequence, last_ms, .. } = &done;
    let torn = cut.as_ref().map(|cut| json!({ "file": cut.file, "offset": cut.offset, "bytes": cut.bytes }));
    output.answer(
        &json!({ "store": store, "rebuilt": true, "facts": sequence, "last_ms": last_ms, "cut": torn }),
        || {
            let facts = count(*sequence, "fact");
            let mut text = format!("the outbox of {} was made anew from {facts}, and left clean", store.display());
            if let Some(cut) = cut {
                let (file, offset, bytes) = (cut.file.display(), cut.offset, count(cut.bytes, "byte"));
                text = format!(
                    "{text}\na tail of {bytes} at offset {offset} of {file}, which was never acknowledged, was cut"
                );
            }
            output.folded(&format!("{text}\nnext: `tramite store verify`, then start the node"))
        },
    );
    Ok(Exit::Ok)
}

fn stat(asked: Asked<'_>, output: Output) -> Result<Exit, Failure> {
    let store = to_read(asked)?;
    let found = tramite_store::stat(&store).map_err(|error| failed(asked, &error))?;
    output.answer(&stat_value(&store, &found), || stat_text(&store, &found, output));
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
        found.facts.iter().map(|(kind, number)| format!("{} {number}", kind.replace('_', " "))).collect();
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
    let (waiting, erased) = (&found.waiting, &found.erased);
    let head = format!(
        "{} ({}), {left}\nlast sequence {}{last}, in {}\nfacts: {kinds}\ncontents: {} waiting ({}), {} erased ({})",
        store.display(),
        found.role,
        found.last_sequence,
        count(found.groups, "group"),
        waiting.count,
        bytes(waiting.bytes),
        erased.count,
        bytes(erased.bytes),
    );
    format!("{}\n\n{files}\n\n{queues}", output.folded(&head))
}
