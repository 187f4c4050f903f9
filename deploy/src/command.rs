//! The commands, one file each: read the arguments, call, show the answer.

pub(crate) mod cases;
pub(crate) mod certs;
pub(crate) mod codes;
pub(crate) mod completion;
pub(crate) mod documents;
pub(crate) mod inbox;
mod keep;
pub(crate) mod network;
pub(crate) mod ops;
pub(crate) mod send;
pub(crate) mod store;
