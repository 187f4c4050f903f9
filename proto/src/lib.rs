//! What is said between institutions: contracts, vocabulary, statements, sealing. Pure: no I/O, no environment,
//! and no clock but the one passed in ([`clock`]).
pub mod batch;
pub mod clock;
pub mod codes;
pub mod commitment;
pub mod ids;
pub mod jws;
pub mod merkle;
pub mod parts;
pub mod pb;
pub mod person;
pub mod reason;
pub mod seal;
pub mod statement;
pub mod states;
mod strict;
pub mod trace;
pub mod validate;
#[cfg(test)]
mod vectors;
pub mod vocabulary;
