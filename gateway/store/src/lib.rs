//! Journal and outbox: what was accepted, and what waits for whom.
