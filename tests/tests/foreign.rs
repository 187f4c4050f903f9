//! A client in another language: grpcio with reflection only, no generated code, submits a signed and sealed referral and
//! receives its receipt from a real adapter.

use std::{env, process::Stdio};

use anyhow::{Context, Result, ensure};
use tokio::{process::Command, time::timeout};
use tramite_tests::{
    clerk::Clerk,
    component,
    network::{Network, PATIENCE},
    pki::TRUST_DOMAIN,
    source,
};

/// What the client imports; all of it is in `tests/foreign/requirements.txt`.
const IMPORTS: &str = "import grpc, grpc_reflection, jwcrypto, pyhpke, cryptography";

/// The interpreter, or nothing when it or its packages are missing here.
async fn interpreter() -> Result<Option<String>> {
    let python = env::var("TRAMITE_PYTHON").unwrap_or_else(|_| "python3".into());
    let tried = Command::new(&python).args(["-c", IMPORTS]).stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    if tried.is_ok_and(|status| status.success()) {
        return Ok(Some(python));
    }
    let why = format!("{python} with the packages of tests/foreign/requirements.txt is not installed");
    component::missing("a client in another language", &why)?;
    Ok(None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_in_another_language_sends_a_referral_and_receives_its_receipt() -> Result<()> {
    let Some(python) = interpreter().await? else { return Ok(()) };
    let network = Network::builder().institutions(&["inps"]).played(&["caritas"]).start().await?;
    let work = Clerk::reads(&network.desk("inps")?);
    let mut client = Command::new(python);
    client.arg("-B").arg(source::workspace().join("tests/foreign/client.py"));
    client.args(["--gateway", &network.address(), "--institution", "caritas", "--trust-domain", TRUST_DOMAIN]);
    client.args(["--to", "inps", "--server-name", "localhost", "--surname", "Straniera"]);
    client.arg("--folder").arg(network.pki.bundle("caritas")).kill_on_drop(true);
    let output = timeout(PATIENCE * 2, client.output()).await.context("the client does not end")??;
    let told = String::from_utf8_lossy(&output.stdout);
    let failed = || format!("{told}\n{}\n{}", String::from_utf8_lossy(&output.stderr), network.logs());
    ensure!(output.status.success() && told.contains(r#""step": "closed""#), "{}", failed());
    work.until("the referral", PATIENCE, |seen| seen.situations().len() == 1).await?;
    let seen = work.seen();
    let person = seen.messages().next().and_then(|message| message.body.as_ref()?.kind.clone());
    ensure!(format!("{person:?}").contains("Straniera"), "{person:?}");
    Ok(())
}
