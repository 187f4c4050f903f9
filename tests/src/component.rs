//! What a machine may lack: root, a loop device, strace, a compiler, packages. A test that needs one and does not find it says so and goes on.
//!
//! Knows `TRAMITE_REQUIRE_ALL`. Never knows how a component is looked for. Invariant: what was not shown is said where a person sees it, also
//! when the test passes: past the harness, which keeps what passing tests print to itself.

use std::{env, io::Write as _};

use anyhow::{Result, bail};

/// Set to 1 where nothing may be skipped.
const REQUIRE_ALL: &str = "TRAMITE_REQUIRE_ALL";

/// Says that a test goes on without something, and why.
///
/// # Errors
/// Where nothing may be skipped.
pub fn missing(what: &str, why: &str) -> Result<()> {
    if env::var(REQUIRE_ALL).is_ok_and(|value| value == "1") {
        bail!("required here: {what}; {why}");
    }
    say(&format!("skipped: {what}; {why}"));
    Ok(())
}

/// Writes a line to standard error itself.
pub fn say(line: &str) {
    // Nobody may be listening; that is no fault of what is tested.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
