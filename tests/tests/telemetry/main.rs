//! What operations see: traces from back office to back office, a Prometheus page, log lines. None of them says anything of a person,
//! none of them holds up a message.
//!
//! Every promise is held on the real processes: `traces` and `endpoint` with a collector, `page` with a reader of OpenMetrics (and
//! promtool where there is one), `lines` with what the processes write.

mod endpoint;
mod exposition;
mod lines;
mod page;
mod sockets;
mod traces;
