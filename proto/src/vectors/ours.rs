//! The other direction: what is made here, the second implementation (proto/vectors/make.py --check) verifies and opens.
//!
//! Needs Python with the packages that make.py names: from TRAMITE_PYTHON, or `python3`. Without them it says so and passes, unless
//! TRAMITE_REQUIRE_ALL=1. TRAMITE_VECTORS_OUT keeps the file that was checked.
use std::{env, fs, path::Path, process::Command};

use super::{frames, pattern};
use crate::{
    batch,
    ids::{CaseId, Digest, MessageId},
    jws::EcdsaSigner,
    parts::PartSealer,
    pb::statement::v1::Statement,
    seal::{self, Context, PrivateKey, Suite},
    statement::Receipt,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde_json::{Value, json};

const AT: i64 = 1_795_400_000;

fn message(n: u8) -> MessageId {
    MessageId::new(AT * 1000, [n; 10])
}

/// Batches of many sizes by the test key of the vectors.
fn statements(signer: &EcdsaSigner) -> Vec<Statement> {
    let mut made = Vec::new();
    for n in [1_u8, 2, 3, 7, 33, 64] {
        let jsons: Vec<Bytes> = (0..n)
            .map(|i| {
                let receipt = Receipt {
                    jti: message(i),
                    iss: "caritas".parse().unwrap(),
                    aud: "inps".parse().unwrap(),
                    mid: message(n),
                    org_s256: Digest::of(&[i]),
                    ct_s256: Digest::of(b"ct"),
                    ptc: Digest::of(b"ptc"),
                    at: AT,
                    opened: true,
                    rsn: None,
                    sj: vec![],
                    lcp: None,
                };
                receipt.to_json()
            })
            .collect();
        made.extend(batch::sign(signer, AT, &jsons).unwrap());
    }
    made
}

/// A statement as make.py reads it.
pub(super) fn told(one: &Statement) -> Value {
    let path: Vec<_> = one.path.iter().map(hex::encode).collect();
    json!({"json": String::from_utf8(one.json.to_vec()).unwrap(), "jws": one.jws, "index": one.index, "path": path})
}

fn sealed() -> Vec<Value> {
    let mut made = Vec::new();
    for suite in Suite::all() {
        let key = PrivateKey::generate(suite).unwrap();
        let public = key.public_key("key-1".parse().unwrap());
        for length in [0, 476, 477, 20_000, 65_500] {
            let (jti, cid) = (message(9), "0b1e3f8a-7c55-4c8e-9d3f-2a6b1c0d9e8f".parse().unwrap());
            let (case, iss, aud) = (CaseId::from(message(8)), "caritas".parse().unwrap(), "inps".parse().unwrap());
            let mt = "tramite.body.v1.ReferralUpdate";
            let context = Context {
                jti: &jti,
                cid: &cid,
                case: &case,
                iss: &iss,
                aud: &aud,
                mt,
                kid: public.kid(),
                exp: AT + 99,
            };
            let salt = [u8::try_from(length % 251).unwrap(); 32];
            let sealed = seal::seal(&public, &context, &pattern(length), salt).unwrap();
            made.push(json!({
                "suite": suite.as_str(), "test_private_key": hex::encode(*key.to_bytes()), "public_key": hex::encode(public.as_bytes()),
                "context": {"jti": jti, "cid": cid, "case": case, "iss": iss, "aud": aud, "mt": mt, "kid": public.kid(), "exp": AT + 99},
                "aad": hex::encode(context.aad()), "salt": hex::encode(salt), "body_length": length, "ptc": sealed.ptc.to_hex(),
                "enc": hex::encode(&sealed.enc), "ciphertext": URL_SAFE_NO_PAD.encode(&sealed.ciphertext),
            }));
        }
    }
    made
}

fn parts() -> Vec<Value> {
    let (key, jti) = ([7; 32], message(5));
    let lengths = [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000];
    (0_u32..)
        .zip(lengths)
        .map(|(part, length)| {
            let mut sealer = PartSealer::new(&key, &jti, part).unwrap();
            let mut sealed = Vec::new();
            for piece in pattern(length).chunks(10_007) {
                sealed.extend(sealer.push(piece).unwrap());
            }
            let (last, said) = sealer.finish().unwrap();
            sealed.extend(last);
            json!({
                "test_content_key": hex::encode(key), "jti": jti, "part": part, "length": length,
                "sealed": URL_SAFE_NO_PAD.encode(&sealed), "sealed_sha256": said.s256.to_hex(),
            })
        })
        .collect()
}

fn made_here(vectors: &Path) -> Value {
    let signers: Value = serde_json::from_str(&fs::read_to_string(vectors.join("signers.json")).unwrap()).unwrap();
    let field = |name: &str| hex::decode(signers["caritas"][name].as_str().unwrap()).unwrap();
    let (certificate, pkcs8) = (field("certificate"), field("test_signing_key_pkcs8"));
    let signer = EcdsaSigner::from_pkcs8("caritas", &certificate, &pkcs8).unwrap();
    let statements = statements(&signer);
    // The last ones of a batch of 7, one of 33 and the first of one of 64: a frame holds no more than 64.
    let in_frames = frames::made_here(&statements[8..72]);
    json!({
        "issuer": "caritas", "certificate": hex::encode(certificate), "frames": in_frames,
        "statements": statements.iter().map(told).collect::<Vec<_>>(), "sealed": sealed(), "parts": parts(),
    })
}

/// The Python that has what make.py needs; none when there is no such Python.
fn python() -> Option<String> {
    let python = env::var("TRAMITE_PYTHON").unwrap_or_else(|_| "python3".into());
    let needs = "import jwcrypto, pyhpke, cryptography.hazmat.primitives.hpke";
    let has = Command::new(&python).args(["-c", needs]).output().is_ok_and(|output| output.status.success());
    has.then_some(python)
}

#[test]
fn what_is_made_here_is_verified_and_opened_by_the_second_implementation() {
    let Some(python) = python() else {
        assert!(
            env::var("TRAMITE_REQUIRE_ALL").as_deref() != Ok("1"),
            "no Python with jwcrypto, pyhpke and cryptography"
        );
        println!("skipped: no Python with jwcrypto, pyhpke and cryptography (TRAMITE_PYTHON names one)");
        return;
    };
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let directory = tempfile::tempdir().unwrap();
    let file = env::var_os("TRAMITE_VECTORS_OUT").map_or_else(|| directory.path().join("made.json"), Into::into);
    let run = |content: &Value| {
        fs::write(&file, serde_json::to_vec(content).unwrap()).unwrap();
        let output =
            Command::new(&python).arg("-B").arg(vectors.join("make.py")).arg("--check").arg(&file).output().unwrap();
        // What it finds; what Python itself has to say goes elsewhere.
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned(), output.stderr)
    };
    let mut made = made_here(&vectors);
    let (held, said, warned) = run(&made);
    assert!(held, "{said}{}", String::from_utf8_lossy(&warned));
    // The check can fail: one thing changed in each list is found, and nothing else.
    made["statements"][3]["json"] = made["statements"][4]["json"].clone();
    made["sealed"][1]["context"]["exp"] = json!(AT + 98);
    made["parts"][2]["part"] = json!(6);
    made["frames"][1]["statements"][5]["index"] = json!(9);
    let (held, said, _) = run(&made);
    assert!(!held);
    let found: Vec<_> = said.lines().filter_map(|line| line.split_once(':')).map(|(what, _)| what).collect();
    assert_eq!(found, ["statement 3", "sealed 1", "part 2", "frame 1"], "{said}");
}
