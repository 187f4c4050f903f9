//! What `tramite store verify` says of a store that nobody runs.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::process::Command;

/// Asks in JSON; what is wrong is said in the answer.
///
/// # Errors
/// When it does not answer.
pub async fn verify(store: &Path) -> Result<Value> {
    let binary = tokio::task::spawn_blocking(crate::binary::path).await??;
    let said = Command::new(binary).args(["--json", "store", "verify"]).arg(store).kill_on_drop(true).output().await?;
    serde_json::from_slice(&said.stdout).with_context(|| String::from_utf8_lossy(&said.stderr).into_owned())
}
