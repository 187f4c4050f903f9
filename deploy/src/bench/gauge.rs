//! What the system and the gateway say of themselves: CPU and memory from /proc, everything else from the metrics page.

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

/// The gateway's metrics page, read once.
#[derive(Debug)]
pub(super) struct Page(String);

impl Page {
    /// Asks for it.
    pub(super) async fn read(from: SocketAddr) -> Result<Self, Failure> {
        let failed =
            |error: std::io::Error| Failure::internal("the gateway's metrics page does not answer").because(&error);
        let mut stream = TcpStream::connect(from).await.map_err(failed)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: gateway\r\n\r\n").await.map_err(failed)?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.map_err(failed)?;
        Ok(Self(text))
    }

    /// Groups of the journal since the gateway's start, each with one `fdatasync`.
    pub(super) fn groups(&self) -> Result<u64, Failure> {
        self.sum("tramite_gateway_store_groups")
    }

    /// Facts in those groups.
    pub(super) fn facts(&self) -> Result<u64, Failure> {
        self.sum("tramite_gateway_store_facts")
    }

    /// Messages and notices that wait, of everybody.
    pub(super) fn waiting(&self) -> Result<u64, Failure> {
        self.sum("tramite_gateway_queue_waiting")
    }

    /// Streams on which institutions receive, open now.
    pub(super) fn receive_streams(&self) -> Result<u64, Failure> {
        self.sum("tramite_gateway_receive_streams")
    }

    /// The sum of a gauge over its labels. A gauge that the page does not know is an error, one that nothing has set yet is 0.
    fn sum(&self, name: &str) -> Result<u64, Failure> {
        let known =
            self.0.lines().any(|line| line.strip_prefix("# TYPE ").is_some_and(|kind| kind == format!("{name} gauge")));
        let values = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit_once(' '))?
        });
        let sum = values.map(|(_, value)| value.parse::<u64>()).sum::<Result<u64, _>>();
        sum.ok().filter(|_| known).ok_or_else(|| Failure::internal(format!("the gateway's metrics page has no {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_summed_over_its_labels_and_one_that_is_missing_is_no_zero() {
        let page = "# TYPE tramite_gateway_queue_waiting gauge\ntramite_gateway_queue_waiting{institution=\"a b\"} 3\n\
                    tramite_gateway_queue_waiting{institution=\"c\"} 4\ntramite_gateway_queue_waiting_long 9\n\
                    # TYPE tramite_gateway_store_groups gauge\ntramite_gateway_store_groups x\n\
                    # TYPE tramite_gateway_receive_streams gauge\n";
        let page = Page(page.to_owned());
        assert_eq!(page.waiting().unwrap(), 7);
        assert_eq!(page.receive_streams().unwrap(), 0);
        page.groups().unwrap_err();
        page.facts().unwrap_err();
    }
}
