//! From a request to a message on the disk: checked, placed, sealed, signed in the store's group.
//!
//! Knows every step and its order. Never knows the network, but for the recipient's key when that is not in the keyring yet.
//! Invariants: when it answers, the exact bytes that will be sent are durable; the same request id with the same content is answered
//! as the first time, and with other content refused, whatever was killed in between.

use std::str::FromStr as _;

use bytes::Bytes;
use prost::Message as _;
use tramite_proto::{
    ids::{ConversationId, Digest, MessageId, RequestId, Token},
    parts::{PARTS_MAX, PLAIN_MAX, PartSealer},
    pb::{
        backoffice::v1 as pb,
        body::v1::{Attachment, Body},
        journal::v1::{Accepted, CaseMove, Part},
    },
    reason::{Reason, Refused},
    seal,
    statement::{Content, LevelOfAssurance, Origin, Priority, REMEMBERED_MS, SealedPart},
    trace, validate,
    vocabulary::{LegalBasis, Purpose},
};
use tramite_store::{Change, Done, Mover, Slot, accepted};

use super::place::{self, Place};
use crate::{
    attachments::{About, Attachments},
    config::EXPIRES_MAX_S,
    core::{BACKOFFICE, Core, GATEWAY, origin, rejected, request_reused, unreadable},
    request::Request,
};

/// A file to attach: its id, and what is known of it.
type Staged = (MessageId, About);

/// Puts a message on the disk, ready to be sent.
///
/// # Errors
/// What is wrong with the request, or that the recipient's key cannot be had now.
#[tracing::instrument(name = "outbound.send", skip_all)]
pub(crate) async fn send(
    core: &Core,
    attachments: &Attachments,
    mut request: Request,
) -> Result<pb::SendResponse, Refused> {
    let sending = request.sending();
    RequestId::from_str(&sending.request_id).map_err(|error| Refused::from(error).field("sending.request_id"))?;
    let as_written = request.digest();
    let before = core.store.request(&sending.request_id).map_err(unreadable)?;
    if let Some(row) = &before
        && let Some(response) = repeated(core, row.sequence, Some(&as_written), None)?
    {
        // A kill may have come between the message and the end of its files.
        sending.attachments.iter().filter_map(|id| id.parse().ok()).for_each(|id| attachments.sent(&id));
        return Ok(response);
    }
    let staged = sending.attachments.iter().map(|id| attachments.about(id)).collect::<Result<Vec<Staged>, _>>();
    let staged = match (staged, &before) {
        // Files that are not there any more cannot be those of another request.
        (Err(refused), Some(_)) if refused.reason == Reason::AttachmentUnknown => return Err(request_reused()),
        (staged, _) => staged?,
    };
    let digest = content_digest(&mut request, &sending, &staged);
    let response = if let Some(row) = before {
        repeated(core, row.sequence, None, Some(&digest))?.ok_or_else(request_reused)?
    } else {
        let composed = compose(core, attachments, &request, &sending, &staged).await?;
        commit(core, composed, &sending, digest, as_written).await?
    };
    // Those of a repeat too: they are the same files again, and their message is on the disk.
    for (id, _) in &staged {
        attachments.sent(id);
    }
    Ok(response)
}

/// What a request stands for whatever ids its files were given: two uploads of one file are the same content.
fn content_digest(request: &mut Request, sending: &pb::Sending, staged: &[Staged]) -> Digest {
    let mut plain = sending.clone();
    plain.attachments = staged
        .iter()
        .map(|(_, about)| format!("{}\n{}\n{}\n{}", about.name, about.media_type, about.document, about.sha256))
        .collect();
    request.set_sending(plain);
    request.digest()
}

/// The answer of the first time, when `sequence` is the same request; `None` when it is another one.
fn repeated(
    core: &Core,
    sequence: u64,
    as_written: Option<&Digest>,
    digest: Option<&Digest>,
) -> Result<Option<pb::SendResponse>, Refused> {
    let fact = core.store.fact(sequence).map_err(unreadable)?;
    let first = accepted(&fact).ok_or_else(|| Refused::because(Reason::Internal))?;
    let same = as_written.is_some_and(|digest| first.extra == digest.as_bytes().as_slice())
        || digest.is_some_and(|digest| first.request_digest == digest.as_bytes().as_slice());
    if !same {
        return Ok(None);
    }
    core.metrics.repeated.inc();
    response(first, true).map(Some)
}

fn response(fact: &Accepted, repeated: bool) -> Result<pb::SendResponse, Refused> {
    let (origin, _) = origin(fact)?;
    Ok(pb::SendResponse {
        message_id: origin.jti.to_string(),
        case_id: origin.case.to_string(),
        conversation_id: origin.cid.to_string(),
        repeated,
    })
}

/// A message, sealed.
struct Composed {
    origin: Origin,
    place: Place,
    enc: Bytes,
    ciphertext: Bytes,
}

async fn compose(
    core: &Core,
    attachments: &Attachments,
    request: &Request,
    sending: &pb::Sending,
    staged: &[Staged],
) -> Result<Composed, Refused> {
    let now_ms = core.clock.now_ms();
    core.check_clock(now_ms)?;
    let jti = MessageId::new(now_ms, core.entropy.random());
    let content_key: [u8; 32] = core.entropy.random();
    let body = body_of(request, staged, &content_key)?;
    validate::body(&body).map_err(Refused::fields)?;
    let place = place::find(core, &request.target(), &body, jti, ConversationId::new(now_ms, core.entropy.random()))?;
    let mut draft = draft(core, sending, &place, jti)?;
    let key = core.recipient(&place.to).await?;
    draft.ct.suite = key.suite();
    draft.ct.kid = key.kid().clone();
    for (number, (id, about)) in (0_u32..).zip(staged) {
        draft.parts.push(put_part(core, attachments, (id, about), &content_key, &jti, number).await?);
    }
    let sealed = seal::seal(&key, &draft.context(), &body.encode_to_vec(), core.entropy.random())
        .map_err(|error| Refused::new(Reason::PayloadTooLarge, error.to_string()))?;
    draft.ct.enc_s256 = Digest::of(&sealed.enc);
    draft.ct.s256 = Digest::of(&sealed.ciphertext);
    draft.ct.len = sealed.ciphertext.len() as u64;
    draft.ptc = sealed.ptc;
    Ok(Composed { origin: draft, place, enc: sealed.enc, ciphertext: sealed.ciphertext })
}

/// The body with its attachments.
fn body_of(request: &Request, staged: &[Staged], content_key: &[u8; 32]) -> Result<Body, Refused> {
    let wrong = |detail: &str| Refused::new(Reason::PayloadTooLarge, detail).field("sending.attachments");
    if staged.len() > PARTS_MAX {
        return Err(wrong("a message has at most 16 attachments"));
    }
    if staged.iter().map(|(_, about)| about.length).sum::<u64>() > PLAIN_MAX {
        return Err(wrong("the attachments of a message have at most 25 MiB in all"));
    }
    let mut body = request.body()?;
    body.attachments = staged
        .iter()
        .map(|(_, about)| Attachment {
            name: about.name.clone(),
            media_type: about.media_type.clone(),
            length: about.length,
            sha256: Bytes::copy_from_slice(about.sha256.as_bytes()),
            document: about.document.clone(),
        })
        .collect();
    if !staged.is_empty() {
        body.content_key = Bytes::copy_from_slice(content_key);
    }
    Ok(body)
}

/// Everything that origin says, but for what is sealed.
fn draft(core: &Core, sending: &pb::Sending, place: &Place, jti: MessageId) -> Result<Origin, Refused> {
    let field = |name: &str, detail: &str| Refused::new(Reason::FieldInvalid, detail).field(format!("sending.{name}"));
    Purpose::from_str(&sending.purpose).map_err(|_| field("purpose", "the purpose is missing or no purpose code"))?;
    LegalBasis::from_str(&sending.legal_basis)
        .map_err(|_| field("legal_basis", "the legal basis is missing or no legal basis code"))?;
    let token = |given: &str, default: &str, name: &str| {
        let text = if given.is_empty() { default } else { given };
        Token::from_str(text).map_err(|error| Refused::from(error).field(format!("sending.{name}")))
    };
    let agr = token(&sending.agreement, &core.defaults.agreement, "agreement")?;
    let op = token(&sending.operator, &core.defaults.operator, "operator")?;
    let expires_in = if sending.expires_in_s == 0 { core.defaults.expires_s } else { sending.expires_in_s };
    let far = || field("expires_in_s", "a message expires within 60 days, and so does the time for its reply");
    if expires_in > EXPIRES_MAX_S || sending.reply_within_s > EXPIRES_MAX_S {
        return Err(far());
    }
    let seconds = |s: u64| i64::try_from(s).map_err(|_| far());
    let iat = core.clock.now_s();
    let exp = iat + seconds(expires_in)?;
    let dl = if sending.reply_within_s == 0 { None } else { Some(iat + seconds(sending.reply_within_s)?) };
    let urgent = sending.priority == pb::Priority::Urgent as i32;
    let none = Digest([0; 32]);
    let kid = "none".parse()?;
    Ok(Origin {
        jti,
        cid: place.conversation,
        case: place.case,
        in_reply_to: place.in_reply_to,
        iss: core.name.clone(),
        aud: place.to.clone(),
        mt: place.kind.as_str().to_owned(),
        cs: place.status.clone(),
        rsn: (!place.reason.is_empty()).then(|| place.reason.clone()),
        iat,
        exp,
        dl,
        pri: if urgent { Priority::Urgent } else { Priority::Routine },
        pur: sending.purpose.clone(),
        lb: sending.legal_basis.clone(),
        agr,
        op,
        loc: token("", &core.defaults.location, "location")?,
        loa: core.defaults.loa.parse().unwrap_or(LevelOfAssurance::Low),
        ct: Content { suite: seal::Suite::X25519, kid, enc_s256: none, s256: none, len: 0 },
        ptc: none,
        parts: Vec::new(),
        sj: Vec::new(),
        lcp: None,
    })
}

/// Seals a staged file as a part of the message. Twice over: a part's digest is announced before its bytes, and sealing is
/// deterministic under one key, message and place.
async fn put_part(
    core: &Core,
    attachments: &Attachments,
    (id, about): (&MessageId, &About),
    content_key: &[u8; 32],
    jti: &MessageId,
    number: u32,
) -> Result<SealedPart, Refused> {
    let sealing = |error: tramite_proto::parts::PartError| Refused::new(Reason::PayloadTooLarge, error.to_string());
    let mut sealer = PartSealer::new(content_key, jti, number).map_err(sealing)?;
    let mut reading = attachments.read(id, about)?;
    while let Some(plain) = reading.next()? {
        sealer.push(&plain).map_err(sealing)?;
    }
    let (_, part) = sealer.finish().map_err(sealing)?;
    let mut writer = core.store.put_part(jti, number, part.len, part.s256).await?;
    let mut sealer = PartSealer::new(content_key, jti, number).map_err(sealing)?;
    let mut reading = attachments.read(id, about)?;
    while let Some(plain) = reading.next()? {
        writer.write(sealer.push(&plain).map_err(sealing)?.into()).await?;
    }
    let (last, _) = sealer.finish().map_err(sealing)?;
    writer.write(last.into()).await?;
    writer.finish().await?;
    Ok(part)
}

/// Has the store sign it and make it durable.
async fn commit(
    core: &Core,
    composed: Composed,
    sending: &pb::Sending,
    digest: Digest,
    as_written: Digest,
) -> Result<pb::SendResponse, Refused> {
    let Composed { origin, place, enc, ciphertext } = composed;
    let json = origin.to_json();
    let bytes = |digest: &Digest| Bytes::copy_from_slice(digest.as_bytes());
    let case_id = Bytes::copy_from_slice(place.case.as_bytes());
    let conversation = Bytes::copy_from_slice(place.conversation.as_bytes());
    let expires_ms = origin.exp.saturating_mul(1_000);
    let parts = (0_u32..)
        .zip(&origin.parts)
        .map(|(part, sealed)| Part { part, length: sealed.len, sha256: bytes(&sealed.s256) })
        .collect();
    let fact = Accepted {
        queue: GATEWAY.to_owned(),
        id: Bytes::copy_from_slice(origin.jti.as_bytes()),
        digest: bytes(&Digest::of(&json)),
        order: conversation.clone(),
        expires_ms,
        remember_ms: expires_ms.saturating_add(REMEMBERED_MS),
        return_to: BACKOFFICE.to_owned(),
        case_move: Some(CaseMove {
            case_id: case_id.clone(),
            kind: place.kind.case_kind().as_str().to_owned(),
            opener: place.opener.to_string(),
            responder: place.responder.to_string(),
            from: String::new(),
            to: place.status,
            reason: place.reason,
            conversation,
            deadline_ms: 0,
        }),
        enc,
        parts,
        traceparent: trace::current_traceparent(),
        request_id: sending.request_id.clone(),
        request_digest: bytes(&digest),
        extra: bytes(&as_written),
        case_id,
        ..Accepted::default()
    };
    let mover = Mover::Institution { issuer: core.name.to_string(), audience: place.to.to_string() };
    let change = Change::Accept {
        fact: Box::new(fact),
        content: ciphertext,
        sign: vec![(Slot::Statement, json)],
        mover: Some(mover),
    };
    match core.store.commit_one(change).await.map_err(rejected)? {
        Done::Accepted { fact, .. } => {
            core.metrics.sent.inc();
            tracing::info!(
                message_id = %origin.jti,
                case_id = %origin.case,
                to = %origin.aud,
                "a message is on the disk, signed and sealed"
            );
            response(accepted(&fact).ok_or_else(|| Refused::because(Reason::Internal))?, false)
        }
        // Another call with the same request id was faster.
        Done::Repeated { fact, .. } => {
            core.metrics.repeated.inc();
            response(accepted(&fact).ok_or_else(|| Refused::because(Reason::Internal))?, true)
        }
        _ => Err(Refused::because(Reason::Internal)),
    }
}
