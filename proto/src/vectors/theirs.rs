//! The vectors of the second implementation (proto/vectors/make.py): what it made is read, verified and opened here, and what it
//! made wrong on purpose is refused with the reason that FORMATS.md names.
use std::{fs, path::Path};

use super::pattern;
use crate::{
    batch, commitment,
    ids::{CaseId, ConversationId, Digest, InstitutionName, KeyId, MessageId},
    jws::{EcdsaSigner, Signer as _, VerifyingKey},
    merkle,
    parts::{self, PartOpener, PartSealer},
    pb,
    seal::{self, Context, PrivateKey, Suite},
    statement::{self, SealedPart, Statement},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde_json::Value;

pub(super) fn vectors(name: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

pub(super) fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

pub(super) fn hex(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).unwrap()
}

pub(super) fn hash(value: &Value) -> [u8; 32] {
    hex(value).try_into().unwrap()
}

fn base64url(value: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text(value)).unwrap()
}

pub(super) fn verifying_key(signer: &str) -> VerifyingKey {
    VerifyingKey::from_certificate(&hex(&vectors("signers.json")[signer]["certificate"])).unwrap()
}

pub(super) fn statement(value: &Value, jws: &Value) -> pb::statement::v1::Statement {
    pb::statement::v1::Statement {
        json: Bytes::copy_from_slice(text(&value["json"]).as_bytes()),
        jws: text(jws).to_owned(),
        index: u32::try_from(number(&value["index"])).unwrap(),
        path: list(&value["path"]).iter().map(|hash| hex(hash).into()).collect(),
    }
}

#[test]
fn roots_and_paths_are_those_of_the_second_implementation() {
    for tree in list(&vectors("merkle.json")["trees"]) {
        let n = number(&tree["n"]);
        let leaves: Vec<_> = (0..n).map(|i| merkle::leaf(format!("leaf {i}").as_bytes())).collect();
        assert_eq!(merkle::root(&leaves), hash(&tree["root"]), "n={n}");
        for (index, path) in tree["paths"].as_object().unwrap() {
            let index: usize = index.parse().unwrap();
            let path: Vec<_> = list(path).iter().map(hash).collect();
            assert_eq!(merkle::path(&leaves, index), path, "n={n} index={index}");
            assert_eq!(merkle::root_from_path(&leaves[index], index as u64, n, &path), Some(hash(&tree["root"])));
        }
    }
}

#[test]
fn batches_of_the_second_implementation_verify() {
    let vectors = vectors("batches.json");
    let key = verifying_key(text(&vectors["issuer"]));
    for made in list(&vectors["batches"]) {
        let header = batch::verify(text(&made["jws"]), &key).unwrap();
        assert_eq!(u64::from(header.n), number(&made["n"]));
        assert_eq!(header.iss, text(&vectors["issuer"]));
        let statements: Vec<_> = list(&made["statements"]).iter().map(|one| statement(one, &made["jws"])).collect();
        assert_eq!(statements.len() as u64, number(&made["n"]));
        for one in &statements {
            batch::check_inclusion(one, &header).unwrap();
            let read = Statement::parse(&one.json).unwrap();
            batch::check_issuer(&header, read.issuer()).unwrap();
        }
    }
}

#[test]
fn batches_made_wrong_are_refused_with_their_reason() {
    let vectors = vectors("batches.json");
    let key = verifying_key(text(&vectors["issuer"]));
    for made in list(&vectors["refused"]) {
        let refused = batch::verify(text(&made["jws"]), &key).unwrap_err();
        assert_eq!(refused.reason.as_str(), text(&made["reason"]), "{}", made["why"]);
    }
}

#[test]
fn a_batch_made_here_has_the_same_root_and_paths() {
    let (vectors, signers) = (vectors("batches.json"), vectors("signers.json"));
    let issuer = text(&vectors["issuer"]);
    let files = &signers[issuer];
    let signer =
        EcdsaSigner::from_pkcs8(issuer, &hex(&files["certificate"]), &hex(&files["test_signing_key_pkcs8"])).unwrap();
    for made in list(&vectors["batches"]) {
        let theirs: Vec<_> = list(&made["statements"]).iter().map(|one| statement(one, &made["jws"])).collect();
        let jsons: Vec<_> = theirs.iter().map(|one| one.json.clone()).collect();
        let header = batch::parse(text(&made["jws"])).unwrap();
        let ours = batch::sign(&signer, header.iat, &jsons).unwrap();
        assert_eq!(batch::parse(&ours[0].jws).unwrap(), header);
        assert_eq!(header.x5t, signer.x5t());
        for (our, their) in ours.iter().zip(&theirs) {
            assert_eq!((our.index, &our.path), (their.index, &their.path));
        }
        // Both sides write protected and payload in the same bytes; only the signature is random.
        let signed = |jws: &str| jws.rsplit_once('.').unwrap().0.to_owned();
        assert_eq!(signed(&ours[0].jws), signed(&theirs[0].jws));
    }
}

#[test]
fn statements_of_the_second_implementation_read_and_write_back_the_same() {
    for made in list(&vectors("statements.json")) {
        let one = statement(&made["statement"], &made["statement"]["jws"]);
        let header = batch::verify(&one.jws, &verifying_key(text(&made["issuer"]))).unwrap();
        batch::check_inclusion(&one, &header).unwrap();
        assert_eq!(statement::identity(&one.json).to_hex(), text(&made["identity"]));
        let read = Statement::parse(&one.json).unwrap();
        assert_eq!(read.kind().as_str(), text(&made["kind"]));
        batch::check_issuer(&header, read.issuer()).unwrap();
        let written = match &read {
            Statement::Origin(origin) => origin.to_json(),
            Statement::Receipt(receipt) => receipt.to_json(),
            Statement::Evidence(evidence) => evidence.to_json(),
            Statement::Key(record) => record.to_json(),
        };
        assert_eq!(Statement::parse(&written).unwrap(), read);
        let compact = !text(&made["statement"]["json"]).contains('\n');
        if compact && !matches!(&read, Statement::Origin(origin) if origin.rsn.is_some()) {
            assert_eq!(written, one.json, "{}", made["kind"]);
        }
    }
}

/// The members of a context, owned.
struct Bound {
    jti: MessageId,
    cid: ConversationId,
    case: CaseId,
    iss: InstitutionName,
    aud: InstitutionName,
    mt: String,
    kid: KeyId,
    exp: i64,
}

impl Bound {
    fn read(value: &Value) -> Self {
        Self {
            jti: text(&value["jti"]).parse().unwrap(),
            cid: text(&value["cid"]).parse().unwrap(),
            case: text(&value["case"]).parse().unwrap(),
            iss: text(&value["iss"]).parse().unwrap(),
            aud: text(&value["aud"]).parse().unwrap(),
            mt: text(&value["mt"]).to_owned(),
            kid: text(&value["kid"]).parse().unwrap(),
            exp: value["exp"].as_i64().unwrap(),
        }
    }

    fn context(&self) -> Context<'_> {
        let Self { jti, cid, case, iss, aud, mt, kid, exp } = self;
        Context { jti, cid, case, iss, aud, mt, kid, exp: *exp }
    }
}

fn open(made: &Value) -> Result<Bytes, crate::reason::Refused> {
    let suite: Suite = text(&made["suite"]).parse().unwrap();
    let key = PrivateKey::from_bytes(suite, &hex(&made["test_private_key"])).unwrap();
    let bound = Bound::read(&made["context"]);
    seal::open(&key, &bound.context(), &hex(&made["enc"]), &base64url(&made["ciphertext"]), &Digest(hash(&made["ptc"])))
}

#[test]
fn bodies_sealed_by_the_second_implementation_open() {
    let vectors = vectors("sealed.json");
    for made in list(&vectors["opened"]) {
        let suite: Suite = text(&made["suite"]).parse().unwrap();
        let bound = Bound::read(&made["context"]);
        assert_eq!(hex::encode(bound.context().aad()), text(&made["aad"]));
        let key = PrivateKey::from_bytes(suite, &hex(&made["test_private_key"])).unwrap();
        assert_eq!(hex::encode(key.public_key(bound.kid.clone()).as_bytes()), text(&made["public_key"]));
        let body = open(made).unwrap();
        assert_eq!(body, pattern(usize::try_from(number(&made["body_length"])).unwrap()));
        assert_eq!(Digest::of(&body).to_hex(), text(&made["body_sha256"]));
        assert_eq!(commitment::commit(&hash(&made["salt"]), &body), Digest(hash(&made["ptc"])));
    }
}

#[test]
fn bodies_with_another_padding_or_commitment_are_refused() {
    let vectors = vectors("sealed.json");
    for made in list(&vectors["refused"]) {
        assert_eq!(open(made).unwrap_err().reason.as_str(), "COMMITMENT_MISMATCH", "{}", made["why"]);
    }
}

#[test]
fn parts_are_sealed_to_the_same_bytes_and_open() {
    let vectors = vectors("parts.json");
    let (key, jti) = (hash(&vectors["test_content_key"]), text(&vectors["jti"]).parse().unwrap());
    for made in list(&vectors["parts"]) {
        let (part, length) = (u32::try_from(number(&made["part"])).unwrap(), number(&made["length"]));
        let file = pattern(usize::try_from(length).unwrap());
        let mut sealer = PartSealer::new(&key, &jti, part).unwrap();
        let mut sealed = sealer.push(&file).unwrap();
        let (last, said) = sealer.finish().unwrap();
        sealed.extend(last);
        assert_eq!(
            said,
            SealedPart { len: number(&made["sealed_length"]), s256: Digest(hash(&made["sealed_sha256"])) }
        );
        assert_eq!((parts::sealed_len(length), parts::plain_len(said.len)), (said.len, Some(length)));
        if let Some(expected) = made.get("sealed") {
            assert_eq!(sealed, hex(expected));
        }
        let mut opener = PartOpener::new(&key, &jti, part, said).unwrap();
        assert_eq!(opener.push(&sealed).unwrap(), file);
        opener.finish().unwrap();
    }
}
