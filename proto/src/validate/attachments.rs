//! Attachments: names that become file names at the recipient, sizes, digests, and the key that goes with them.
//!
//! Invariant: a name that passes is a file name on every system that people use, unlike any other in the same message.
use std::collections::HashSet;

use super::{ATTACHMENT_BYTES_MAX, ATTACHMENTS_MAX, field::Check};
use crate::{
    pb::body::v1::{Attachment, Body},
    vocabulary::Document,
};

/// Characters of a file name: fits every file system with room for a prefix.
const FILE_NAME_MAX: usize = 120;
/// Characters of a media type (RFC 6838 §4.2 allows 127 on each side; real ones are far shorter).
const MEDIA_TYPE_MAX: usize = 127;

pub(super) fn attachments(check: &mut Check<'_>, body: &Body) {
    check.count("attachments", body.attachments.len(), ATTACHMENTS_MAX);
    let mut names = HashSet::new();
    for (place, it) in body.attachments.iter().take(ATTACHMENTS_MAX).enumerate() {
        let mut check = check.inside(format_args!("attachments[{place}]"));
        attachment(&mut check, it);
        // Two names that differ only by case are one file on many systems.
        if !names.insert(it.name.to_lowercase()) {
            check.problem("name", "stands twice");
        }
    }
    let total = body.attachments.iter().fold(0_u64, |sum, it| sum.saturating_add(it.length));
    if total > ATTACHMENT_BYTES_MAX {
        check.problem("attachments", "over 25 MiB in all");
    }
    match (body.attachments.is_empty(), body.content_key.len()) {
        (true, 0) | (false, 32) => {}
        (true, _) => check.problem("content_key", "only with attachments"),
        (false, _) => check.problem("content_key", "not 32 bytes"),
    }
}

fn attachment(check: &mut Check<'_>, attachment: &Attachment) {
    described(check, &attachment.name, &attachment.media_type, &attachment.document);
    if attachment.sha256.len() != 32 {
        check.problem("sha256", "not 32 bytes");
    }
}

/// What can be judged before a byte of the file is there.
pub(super) fn described(check: &mut Check<'_>, name: &str, media_type: &str, document: &str) {
    if let Some(problem) = file_name_problem(name) {
        check.problem("name", problem);
    }
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&c);
    let well_formed = media_type.split_once('/').is_some_and(|(kind, name)| {
        !kind.is_empty() && !name.is_empty() && kind.bytes().chain(name.bytes()).all(allowed)
    });
    if !well_formed || media_type.len() > MEDIA_TYPE_MAX {
        check.problem("media_type", "not a media type such as application/pdf");
    }
    check.optional_code::<Document>("document", document);
}

/// What is wrong with a file name that a peer or a caller chose; none: it can be written into a folder as it stands.
#[must_use]
pub(super) fn file_name_problem(name: &str) -> Option<&'static str> {
    // Device names of Windows, where many case workers save what they receive.
    const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "com", "lpt"];
    let length = name.chars().count();
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    let device = DEVICES.iter().any(|device| {
        stem.strip_prefix(device).is_some_and(|rest| match *device {
            "com" | "lpt" => rest.len() == 1 && rest.bytes().all(|c| c.is_ascii_digit()),
            _ => rest.is_empty(),
        })
    });
    // Bytes as well as characters: a file system counts bytes, 255 at most.
    if length == 0 || length > FILE_NAME_MAX || name.len() > 2 * FILE_NAME_MAX {
        Some("not 1 to 120 characters")
    } else if name.chars().any(|c| c.is_control() || r#"/\:*?"<>|"#.contains(c) || is_invisible(c)) {
        Some("has a character that a file name may not have")
    } else if name.starts_with(['.', ' ', '-']) || name.ends_with(['.', ' ']) || device {
        Some("is not a plain file name")
    } else {
        None
    }
}

/// Characters that turn the direction of writing or show nothing: `fdp.exe` can be made to look like `exe.pdf` with them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}
