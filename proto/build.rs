//! Compiles the contracts with protox, so that no protoc is needed; keeps the descriptor set for reflection.
use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["statement", "exchange", "directory", "operations", "audit", "body", "backoffice", "journal"]
        .map(|name| format!("tramite/{name}/v1/{name}.proto"));
    println!("cargo::rerun-if-changed=tramite");
    let descriptors = protox::compile(&files, ["."])?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("tramite_descriptor.bin"), descriptors.encode_to_vec())?;
    // Bytes, not Vec: what is passed on unchanged (statements, ciphertext) is never copied on the way.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
