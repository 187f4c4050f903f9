//! What single members must be, and how members of one statement agree.
use super::*;

/// Texts that are not ids, digests, names, codes.
fn not_uuids() -> Vec<String> {
    let good = "019a0c3e-5c00-7abc-8def-0123456789ab";
    [&good.to_uppercase(), &good.replace('-', ""), &format!("{{{good}}}"), &format!("urn:uuid:{good}"), &good[1..]]
        .map(quoted)
        .into()
}

#[test]
fn ids_have_one_spelling_and_message_ids_are_v7() {
    let v4 = quoted("019a0c3e-5c00-4abc-8def-0123456789ab");
    let variant = quoted("019a0c3e-5c00-7abc-cdef-0123456789ab");
    for (kind, messages, others) in [
        ("origin", vec!["jti", "case", "ref"], vec!["cid"]),
        ("receipt", vec!["mid"], vec!["jti"]),
        ("evidence", vec!["mid", "case"], vec!["jti"]),
    ] {
        let json = fullest(kind);
        for member in messages.iter().chain(&others) {
            not_uuids().iter().for_each(|wrong| refused(&set(&json, member, wrong)));
        }
        for member in messages {
            refused(&set(&json, member, &v4));
            refused(&set(&json, member, &variant));
        }
        for member in others {
            Statement::parse(set(&json, member, &v4).as_bytes()).unwrap();
        }
    }
}

#[test]
fn names_of_institutions_are_dns_labels() {
    let long = "a".repeat(64);
    for (kind, members) in [
        ("origin", vec!["iss", "aud"]),
        ("receipt", vec!["iss", "aud"]),
        ("evidence", vec!["iss", "from", "to"]),
        ("key", vec!["iss"]),
    ] {
        for member in members {
            for wrong in ["Caritas", "-a", "a-", "a_b", "a.b", "à", " a", &long] {
                refused(&set(&fullest(kind), member, &quoted(wrong)));
            }
            Statement::parse(set(&fullest(kind), member, &quoted(&long[1..])).as_bytes()).unwrap();
        }
    }
}

#[test]
fn digests_are_canonical_base64url_of_32_bytes() {
    let good = strict::encode(&[1; 32]);
    let wrong = [
        good.clone() + "=",
        strict::encode(&[1; 31]),
        strict::encode(&[1; 33]),
        format!("{}F", &good[..42]),
        hex::encode([1; 32]),
        good.replacen('A', "+", 1),
    ];
    for (kind, members) in [
        ("origin", vec!["ct.enc_s256", "ct.s256", "ptc", "parts[0].s256", "lcp.root"]),
        ("receipt", vec!["org_s256", "ct_s256", "ptc", "lcp.root"]),
        ("evidence", vec!["org_s256"]),
    ] {
        for member in members {
            Statement::parse(set(&fullest(kind), member, &quoted(&good)).as_bytes()).unwrap();
            wrong.iter().for_each(|wrong| refused(&set(&fullest(kind), member, &quoted(wrong))));
        }
    }
}

#[test]
fn codes_and_tokens_keep_their_alphabet() {
    let (fits, long) = ("a".repeat(64), "a".repeat(65));
    for (kind, members) in
        [("origin", vec!["rsn", "pur", "lb", "agr", "op", "loc"]), ("receipt", vec!["rsn"]), ("evidence", vec!["rsn"])]
    {
        for member in members {
            for good in ["a", "A-z0.9_:/", &fits] {
                Statement::parse(set(&fullest(kind), member, &quoted(good)).as_bytes()).unwrap();
            }
            for wrong in ["", " ", "a b", "a\n", "è", "a,b", &long] {
                refused(&set(&fullest(kind), member, &quoted(wrong)));
            }
        }
    }
    let json = fullest("origin");
    for wrong in ["", "Rejected", "in process", "1st", "_a", "in-process", &long] {
        refused(&set(&json, "cs", &quoted(wrong)));
    }
    for wrong in ["Referral", "", ".", "a.", ".a", "a..b", "1a.b", "a.b c", "a.b-c", &format!("a.{}", "b".repeat(127))]
    {
        refused(&set(&json, "mt", &quoted(wrong)));
    }
    for (member, wrong) in [
        ("pri", "high"),
        ("pri", "Routine"),
        ("loa", "none"),
        ("loa", "LOW"),
        ("ct.suite", "X25519"),
        ("ct.kid", ".a"),
        ("ct.kid", "a/b"),
    ] {
        refused(&set(&json, member, &quoted(wrong)));
    }
}

#[test]
fn an_origin_is_not_for_its_issuer() {
    let json = fullest("origin");
    refused(&set(&json, "aud", "\"caritas\""));
    refused(&set(&fullest("receipt"), "aud", "\"inps\""));
}

#[test]
fn an_origin_expires_after_its_issue_and_within_60_days() {
    let json = set(&fullest("origin"), "iat", "1000000");
    let expires = |exp: i64| Origin::parse(set(&json, "exp", &exp.to_string()).as_bytes());
    expires(1_000_001).unwrap();
    expires(1_000_000 + LIFETIME_S_MAX).unwrap();
    for exp in [0, 999_999, 1_000_000, 1_000_001 + LIFETIME_S_MAX, (1 << 53) - 1] {
        let refused = expires(exp).unwrap_err();
        assert_eq!((refused.reason, refused.field.as_deref()), (Reason::ExpiryInvalid, Some("exp")));
    }
}

#[test]
fn a_message_that_opens_its_case_moves_it_to_requested() {
    let json = valid().into_iter().find(|(kind, json)| kind == "origin" && json.contains("requested")).unwrap().1;
    assert!(Origin::parse(json.as_bytes()).unwrap().opens_case());
    assert_eq!(refusal(&set(&json, "cs", "\"accepted\"")).reason, Reason::CaseTransitionInvalid);
    assert!(!Origin::parse(fullest("origin").as_bytes()).unwrap().opens_case());
}

#[test]
fn lengths_are_those_that_sealed_bytes_can_have() {
    let json = fullest("origin");
    for good in [1024 + 16, 65_536 + 16] {
        Origin::parse(set(&json, "ct.len", &good.to_string()).as_bytes()).unwrap();
    }
    for wrong in [0, 15, 16, 256 + 16, 511 + 16, 513 + 16, 600, 131_072 + 16, (1_u64 << 53) - 1] {
        refused(&set(&json, "ct.len", &wrong.to_string()));
    }
    for wrong in [0, 15, 65_553, 65_568, (1_u64 << 53) - 1] {
        refused(&set(&json, "parts[0].len", &wrong.to_string()));
    }
}

#[test]
fn parts_are_at_most_16_and_25_mib() {
    let part = |plain: u64| {
        format!("{{\"len\":{},\"s256\":{}}}", crate::parts::sealed_len(plain), quoted(strict::encode(&[1; 32])))
    };
    let with = |parts: Vec<String>| set(&fullest("origin"), "parts", &format!("[{}]", parts.join(",")));
    assert_eq!(Origin::parse(with(vec![part(9); 16]).as_bytes()).unwrap().parts.len(), 16);
    refused(&with(vec![part(9); 17]));
    let mib = 1024 * 1024;
    Origin::parse(with(vec![part(12 * mib), part(13 * mib)]).as_bytes()).unwrap();
    refused(&with(vec![part(12 * mib), part(13 * mib + 1)]));
}

#[test]
fn subject_tags_are_at_most_8_of_16_bytes_with_a_year() {
    let tag = |ep: u32, length: usize| format!("{{\"ep\":{ep},\"tag\":{}}}", quoted(strict::encode(&vec![1; length])));
    for kind in ["origin", "receipt"] {
        let with = |tags: Vec<String>| set(&fullest(kind), "sj", &format!("[{}]", tags.join(",")));
        Statement::parse(with(vec![tag(2027, 16); 8]).as_bytes()).unwrap();
        refused(&with(vec![tag(2027, 16); 9]));
        for wrong in [tag(2027, 15), tag(2027, 17), tag(1999, 16), tag(10_000, 16), tag(67_562, 16)] {
            refused(&with(vec![wrong]));
        }
    }
}

#[test]
fn an_empty_log_has_the_root_of_nothing() {
    let json = fullest("origin");
    let empty =
        |root: &[u8; 32]| set(&json, "lcp", &format!("{{\"size\":0,\"root\":{}}}", quoted(strict::encode(root))));
    Origin::parse(empty(&merkle::root(&[])).as_bytes()).unwrap();
    refused(&empty(&[1; 32]));
}

#[test]
fn a_receipt_gives_a_reason_exactly_when_it_was_not_opened() {
    let not_opened = fullest("receipt");
    refused(&without(&not_opened, "rsn"));
    refused(&set(&not_opened, "opened", "true"));
    Receipt::parse(set(&without(&not_opened, "rsn"), "opened", "true").as_bytes()).unwrap();
    refused(&without(&not_opened, "opened"));
}

#[test]
fn each_event_has_the_members_of_its_kind() {
    let digest = quoted(strict::encode(&[1; 32]));
    let members = [("rsn", "\"TTL_EXPIRED\""), ("rcp_s256", &digest), ("peer_s256", &digest)];
    let base = valid().into_iter().find(|(_, json)| json.contains("AcceptanceRejectionExpiry")).unwrap().1;
    // For each event: which sets of members (bit 0 rsn, bit 1 rcp_s256, bit 2 peer_s256) are right.
    let right = [
        ("SubmissionAcceptance", vec![0b100]),
        ("SubmissionRejection", vec![0b101]),
        ("ContentConsignmentFailure", vec![0b001]),
        ("ContentHandover", vec![0b010]),
        ("ContentHandoverFailure", vec![0b001, 0b011]),
        ("AcceptanceRejectionExpiry", vec![0b000, 0b001]),
    ];
    assert_eq!(right.len(), Event::all().len());
    for (event, right) in right {
        for mask in 0..8_u32 {
            let mut json = base.replace("AcceptanceRejectionExpiry", event);
            for (bit, (name, value)) in members.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0) {
                assert!(bit < 3);
                json = format!("{},\"{name}\":{value}}}", &json[..json.len() - 1]);
            }
            assert_eq!(Evidence::parse(json.as_bytes()).is_ok(), right.contains(&mask), "{event} {mask:03b}");
        }
    }
    refused(&set(&base, "evt", "\"NotificationForAcceptance\""));
}

#[test]
fn a_key_record_is_valid_at_most_400_days() {
    let json = set(&fullest("key"), "nbf", "1000000");
    let expires = |exp: i64| set(&json, "exp", &exp.to_string());
    KeyRecord::parse(expires(1_000_001).as_bytes()).unwrap();
    KeyRecord::parse(expires(1_000_000 + VALIDITY_S_MAX).as_bytes()).unwrap();
    for exp in [0, 1_000_000, 1_000_001 + VALIDITY_S_MAX] {
        refused(&expires(exp));
    }
}

#[test]
fn a_key_record_carries_1_to_4_certificates_with_a_p256_leaf() {
    let leaf = quoted(strict::encode(&certificate("inps")));
    let chain = |certificates: &[&str]| set(&fullest("key"), "x5c", &format!("[{}]", certificates.join(",")));
    let [a, b, c, d] = [1, 2, 3, 4].map(|n| quoted(strict::encode(&[0x30, n])));
    let record = KeyRecord::parse(chain(&[&leaf, &a, &b, &c]).as_bytes()).unwrap();
    assert_eq!(record.verifying_key().unwrap().x5t(), Some(Digest::of(&certificate("inps"))));
    let long = quoted(strict::encode(&[0x30; 4097]));
    for wrong in [
        chain(&[&leaf, &a, &b, &c, &d]),
        chain(&[&leaf, &a, &a]),
        chain(&["\"AAAA\""]),
        chain(&["\"\""]),
        chain(&[&leaf, "\"A\""]),
        chain(&[&leaf, "\"\""]),
        chain(&[&leaf, &long]),
        chain(&[&leaf, "1"]),
    ] {
        refused(&wrong);
    }
}

#[test]
fn a_key_record_has_a_key_of_its_suite() {
    let json = fullest("key");
    refused(&set(&json, "alg", "\"ES384\""));
    refused(&set(&json, "enc.suite", "\"X25519-SHA256-AES256GCM\""));
    refused(&set(&json, "enc.suite", "\"P256-SHA256-AES256GCM\""));
    refused(&set(&json, "enc.kid", "\"../x\""));
    refused(&set(&json, "enc.pub", &quoted(strict::encode(&[1; 32]))));
    refused(&set(&json, "enc.pub", &quoted(strict::encode(&[0xff; 1216]))));
}
