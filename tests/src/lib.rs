//! What we promise: harness, end-to-end promises, faults, security.
