//! The hub: identify, permit, accept, deliver, settle, prove.
