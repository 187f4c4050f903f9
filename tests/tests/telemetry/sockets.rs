//! Whom a process dials, as the system knows it: its TCP and UDP sockets, from `/proc`.
//!
//! Invariant: a process that cannot be looked at is an error, never "dials nobody".

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, ensure};

/// The state of a listening TCP socket in `/proc/<id>/net/tcp`.
const LISTENING: &str = "0A";

/// One row of the system's table.
struct Row {
    local: u16,
    remote: u16,
    listening: bool,
    inode: String,
}

/// The remote ports of the connections that a process made (not of those that it took), now.
///
/// # Errors
/// When the process cannot be looked at, or has a UDP socket: nothing here needs one.
pub(crate) fn dialled(process_id: u32) -> Result<BTreeSet<u16>> {
    let own = inodes(process_id)?;
    ensure!(!own.is_empty(), "process {process_id} has no socket at all");
    let udp: Vec<Row> = ours(rows(process_id, &["udp", "udp6"])?, &own);
    ensure!(udp.is_empty(), "process {process_id} has {} UDP sockets", udp.len());
    let tcp = ours(rows(process_id, &["tcp", "tcp6"])?, &own);
    let listens: BTreeSet<u16> = tcp.iter().filter(|row| row.listening).map(|row| row.local).collect();
    Ok(tcp.iter().filter(|row| !row.listening && !listens.contains(&row.local)).map(|row| row.remote).collect())
}

fn ours(rows: Vec<Row>, own: &BTreeSet<String>) -> Vec<Row> {
    rows.into_iter().filter(|row| own.contains(&row.inode)).collect()
}

/// The inodes of all sockets that a process has open.
fn inodes(process_id: u32) -> Result<BTreeSet<String>> {
    let folder = format!("/proc/{process_id}/fd");
    // A file that was closed since the folder was read is not open any more.
    let names = fs::read_dir(&folder).context(folder)?.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let inode =
        |name: std::path::PathBuf| name.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(ToOwned::to_owned);
    Ok(names.filter_map(inode).collect())
}

fn rows(process_id: u32, tables: &[&str]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for table in tables {
        let path = format!("/proc/{process_id}/net/{table}");
        let text = match fs::read_to_string(&path) {
            // A machine without IPv6.
            Err(_) if table.ends_with('6') => continue,
            text => text.context(path)?,
        };
        for line in text.lines().skip(1) {
            rows.push(row(line).with_context(|| line.to_owned())?);
        }
    }
    Ok(rows)
}

fn row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let port = |field: &str| u16::from_str_radix(field.rsplit_once(':')?.1, 16).ok();
    Some(Row {
        local: port(fields.get(1)?)?,
        remote: port(fields.get(2)?)?,
        listening: *fields.get(3)? == LISTENING,
        inode: (*fields.get(9)?).to_owned(),
    })
}
