//! What the system and the gateway say of themselves: CPU and memory from /proc, groups and bytes from the metrics page.

use std::{fs, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::failure::Failure;

/// Microseconds of CPU that a process has used, in its own code and in the kernel's for it.
pub(super) fn cpu_us(pid: Option<u32>) -> u64 {
    let stat = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok()).unwrap_or_default();
    // Behind the name, which may hold anything, in brackets: state is the third field, utime the 14th, stime the 15th.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks * (1_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

/// KiB of memory of its own (RssAnon) that a process has now.
pub(super) fn anonymous_kib(pid: Option<u32>) -> u64 {
    let status = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok()).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// What the gateway has written since its start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Written {
    /// Groups of the journal, each with one `fdatasync`.
    pub(super) groups: u64,
    pub(super) facts: u64,
}

/// Asks the metrics page.
pub(super) async fn written(page: SocketAddr) -> Result<Written, Failure> {
    let failed =
        |error: std::io::Error| Failure::internal("the gateway's metrics page does not answer").because(&error);
    let mut stream = TcpStream::connect(page).await.map_err(failed)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: gateway\r\n\r\n").await.map_err(failed)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.map_err(failed)?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    };
    Ok(Written { groups: value("tramite_gateway_store_groups"), facts: value("tramite_gateway_store_facts") })
}
