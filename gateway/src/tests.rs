//! Promises of the whole gateway, over real TLS on loopback, with adapters made by hand.

mod adapter;
mod cases;
mod clock;
mod delivery;
mod ends;
mod gate;
mod log;
mod parts;
mod refusals;
mod repeats;
mod running;
mod services;
mod submission;
mod unreadable;
mod world;
