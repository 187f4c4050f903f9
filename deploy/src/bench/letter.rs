//! What a message and a receipt say, written fast: the text is written once as [`Origin`] and [`Receipt`] write it, and then only ids,
//! digests and times are put in their places. Each template is held against the real writer when it is made.
//!
//! Contents are sealed before the clock starts: a pool of sealed bodies for each recipient, used again and again under other ids. The
//! gateway never opens one, and here nobody does; opening it would fail, because it is bound to the id that it was sealed under.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use prost::Message as _;
use tramite_proto::{
    ids::{CaseId, ConversationId, Digest, InstitutionName, MessageId},
    pb::body::v1::{Body, Referral, body::Kind},
    seal::{self, PublicKey},
    statement::{Content, LevelOfAssurance, Origin, Priority, Receipt, SealedPart},
};

use super::{client::Trouble, time::Epoch};

/// A message lives for a day: longer than any run.
const LIFETIME_S: i64 = 86_400;
/// Characters of a UUID, of a digest in base64url, of unix seconds until the year 2286.
const UUID: usize = 36;
const DIGEST: usize = 43;
const SECONDS: usize = 10;

/// A text with places to be filled.
#[derive(Debug, Clone)]
struct Template {
    text: Vec<u8>,
}

impl Template {
    /// Where the value of that member begins.
    fn place(&self, member: &str, width: usize) -> Result<usize, Trouble> {
        let name = format!("\"{member}\":");
        let found = self.text.windows(name.len()).position(|window| window == name.as_bytes());
        let quoted = usize::from(width != SECONDS);
        let place = found.map(|at| at + name.len() + quoted).filter(|at| at + width <= self.text.len());
        place.ok_or_else(|| Trouble::new(format!("a statement has no place for {member}")))
    }
}

fn put(text: &mut [u8], place: usize, value: &[u8]) {
    // Places were found within this very text.
    if let Some(there) = text.get_mut(place..place + value.len()) {
        there.copy_from_slice(value);
    }
}

fn uuid(bytes: &[u8; 16]) -> [u8; UUID] {
    let mut text = [0; UUID];
    uuid::Uuid::from_bytes(*bytes).hyphenated().encode_lower(&mut text);
    text
}

fn seconds(unix_s: i64) -> [u8; SECONDS] {
    let mut digits = [b'0'; SECONDS];
    let mut rest = u64::try_from(unix_s).unwrap_or(0);
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    digits
}

fn base64(digest: &[u8; 32]) -> [u8; DIGEST] {
    let mut text = [0; DIGEST];
    // 32 bytes are 43 characters.
    let _ = URL_SAFE_NO_PAD.encode_slice(digest, &mut text);
    text
}

/// A sealed body and the origin that goes with it.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) enc: Bytes,
    pub(super) ciphertext: Bytes,
    origin: Template,
    jti: usize,
    cid: usize,
    case: usize,
    iat: usize,
    exp: usize,
}

impl Letter {
    /// Seals a body of `content` bytes, padded, for `to`; the origin names the part too, when there is one.
    pub(super) fn seal(
        from: &InstitutionName,
        to: &InstitutionName,
        key: &PublicKey,
        content: usize,
        filling: &[u8],
        part: Option<&SealedPart>,
    ) -> Result<Self, Trouble> {
        let epoch = Epoch(0);
        let mut origin = origin_of(epoch, from, to, key, 1_000_000_000_000_000_000)?;
        let text = filling.iter().map(|byte| char::from(b'a' + byte % 26)).collect::<String>();
        let referral = Referral { situation: text, ..Referral::default() };
        let body = Body { kind: Some(Kind::Referral(referral)), ..Body::default() }.encode_to_vec();
        let salt = *Digest::of(&body).as_bytes();
        let sealed = seal::seal(key, &origin.context(), &body, salt).map_err(|error| Trouble::of("sealing", &error))?;
        if sealed.ciphertext.len() != content + 16 {
            return Err(Trouble::new(format!("a body was padded to {} bytes, not {content}", sealed.ciphertext.len())));
        }
        origin.ct.enc_s256 = Digest::of(&sealed.enc);
        origin.ct.s256 = Digest::of(&sealed.ciphertext);
        origin.ct.len = sealed.ciphertext.len() as u64;
        origin.ptc = sealed.ptc;
        origin.parts = part.cloned().into_iter().collect();
        let template = Template { text: origin.to_json().to_vec() };
        let letter = Self {
            enc: sealed.enc,
            ciphertext: sealed.ciphertext,
            jti: template.place("jti", UUID)?,
            cid: template.place("cid", UUID)?,
            case: template.place("case", UUID)?,
            iat: template.place("iat", SECONDS)?,
            exp: template.place("exp", SECONDS)?,
            origin: template,
        };
        letter.check(origin)?;
        Ok(letter)
    }

    /// The template must write what the real writer writes.
    fn check(&self, mut origin: Origin) -> Result<(), Trouble> {
        let (epoch, at_ns, number) = (Epoch(0), 1_799_999_999_987_654_321, 12_345);
        origin.jti = epoch.message(at_ns, number);
        origin.case = CaseId::from(origin.jti);
        origin.cid = epoch.conversation(at_ns, number);
        origin.iat = epoch.unix_s(at_ns);
        origin.exp = origin.iat + LIFETIME_S;
        if self.write(&origin.jti, &origin.cid, origin.iat) == origin.to_json() {
            return Ok(());
        }
        Err(Trouble::new("the bench writes another origin than an adapter would".to_owned()))
    }

    /// The origin under these ids.
    pub(super) fn write(&self, jti: &MessageId, cid: &ConversationId, iat: i64) -> Bytes {
        let mut text = self.origin.text.clone();
        let id = uuid(jti.as_bytes());
        put(&mut text, self.jti, &id);
        put(&mut text, self.case, &id);
        put(&mut text, self.cid, &uuid(cid.as_bytes()));
        put(&mut text, self.iat, &seconds(iat));
        put(&mut text, self.exp, &seconds(iat + LIFETIME_S));
        text.into()
    }
}

/// A referral's origin, but for what is sealed.
fn origin_of(
    epoch: Epoch,
    from: &InstitutionName,
    to: &InstitutionName,
    key: &PublicKey,
    at_ns: u64,
) -> Result<Origin, Trouble> {
    let jti = epoch.message(at_ns, 0);
    let token = |text: &str| text.parse().map_err(|error| Trouble::of("a token", &error));
    let none = Digest([0; 32]);
    let iat = epoch.unix_s(at_ns);
    Ok(Origin {
        jti,
        cid: epoch.conversation(at_ns, 0),
        case: CaseId::from(jti),
        in_reply_to: None,
        iss: from.clone(),
        aud: to.clone(),
        mt: "tramite.body.v1.Referral".to_owned(),
        cs: "requested".to_owned(),
        rsn: None,
        iat,
        exp: iat + LIFETIME_S,
        dl: None,
        pri: Priority::Routine,
        pur: "RIGHTS_SCREENING".to_owned(),
        lb: "GDPR-6-1-E".to_owned(),
        agr: token("INPS-PER-TUTTI-2021")?,
        op: token("desk-1")?,
        loc: token("bench")?,
        loa: LevelOfAssurance::Substantial,
        ct: Content { suite: key.suite(), kid: key.kid().clone(), enc_s256: none, s256: none, len: 0 },
        ptc: none,
        parts: Vec::new(),
        sj: Vec::new(),
        lcp: None,
    })
}

/// A recipient's receipt.
#[derive(Debug, Clone)]
pub(super) struct ReceiptForm {
    form: Template,
    jti: usize,
    mid: usize,
    org: usize,
    ct: usize,
    ptc: usize,
    at: usize,
}

impl ReceiptForm {
    /// Of `from`, for what `to` sent.
    pub(super) fn new(from: &InstitutionName, to: &InstitutionName) -> Result<Self, Trouble> {
        let epoch = Epoch(0);
        let none = Digest([0; 32]);
        let mut receipt = Receipt {
            jti: epoch.message(1_000_000_000_000_000_000, 1),
            iss: from.clone(),
            aud: to.clone(),
            mid: epoch.message(1_000_000_000_000_000_000, 2),
            org_s256: none,
            ct_s256: none,
            ptc: none,
            at: 1_000_000_000,
            opened: true,
            rsn: None,
            sj: Vec::new(),
            lcp: None,
        };
        let form = Template { text: receipt.to_json().to_vec() };
        let made = Self {
            jti: form.place("jti", UUID)?,
            mid: form.place("mid", UUID)?,
            org: form.place("org_s256", DIGEST)?,
            ct: form.place("ct_s256", DIGEST)?,
            ptc: form.place("ptc", DIGEST)?,
            at: form.place("at", SECONDS)?,
            form,
        };
        (receipt.jti, receipt.mid) = (epoch.message(1_799_999_999_987_654_321, 3), epoch.message(1, 4));
        (receipt.org_s256, receipt.ct_s256) = (Digest::of(b"origin"), Digest::of(b"ciphertext"));
        (receipt.ptc, receipt.at) = (Digest::of(b"plaintext"), 1_799_999_999);
        let written =
            made.write(&receipt.jti, &receipt.mid, &receipt.org_s256, &receipt.ct_s256, &receipt.ptc, receipt.at);
        if written != receipt.to_json() {
            return Err(Trouble::new("the bench writes another receipt than an adapter would".to_owned()));
        }
        Ok(made)
    }

    /// The receipt for a message.
    pub(super) fn write(
        &self,
        jti: &MessageId,
        mid: &MessageId,
        origin: &Digest,
        ciphertext: &Digest,
        ptc: &Digest,
        at_s: i64,
    ) -> Bytes {
        let mut text = self.form.text.clone();
        put(&mut text, self.jti, &uuid(jti.as_bytes()));
        put(&mut text, self.mid, &uuid(mid.as_bytes()));
        put(&mut text, self.org, &base64(origin.as_bytes()));
        put(&mut text, self.ct, &base64(ciphertext.as_bytes()));
        put(&mut text, self.ptc, &base64(ptc.as_bytes()));
        put(&mut text, self.at, &seconds(at_s));
        text.into()
    }
}
