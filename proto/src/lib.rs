//! What is said between institutions: contracts, vocabulary, statements, sealing. Pure: no I/O, no clock, no environment.
pub mod pb;
