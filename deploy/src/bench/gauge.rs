//! What the system and the gateway say of themselves: CPU and memory from /proc, everything else from the metrics page.

use std::{fs, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::failure::Failure;

/// Microseconds of CPU that a process has used, in its own code and in the kernel's for it.
pub(super) fn cpu_us(pid: Option<u32>) -> Result<u64, Failure> {
    let stat = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    let ticks = stat.as_deref().and_then(ticks);
    let ticks =
        ticks.ok_or_else(|| Failure::internal("/proc does not say what CPU a process of the bench has used"))?;
    Ok(ticks * (1_000_000 / rustix::param::clock_ticks_per_second().max(1)))
}

/// Behind the name, which may hold anything, in brackets: state is the third field, utime the 14th, stime the 15th.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// KiB of memory of its own (RssAnon) that a process has now, if it can be read.
pub(super) fn anonymous_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_whitespace().next()?.parse().ok()
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
    fn what_cannot_be_read_of_a_process_is_no_zero() {
        assert!(anonymous_kib(std::process::id()).is_some_and(|kib| kib > 0));
        assert_eq!(anonymous_kib(0), None);
        cpu_us(Some(std::process::id())).unwrap();
        cpu_us(None).unwrap_err();
        assert_eq!(ticks("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 30 12 0"), Some(42));
        assert_eq!(ticks("7 (a"), None);
    }

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
