//! The table of reasons: every word, once.
//!
//! Knows: word, status, retry, meaning. Never knows: where a reason is used, nor the finer words that the accept loop logs for
//! connections that came to nothing. To add one, add its line here and write
//! REASONS.md anew (the test says how).
use tonic::Code::{
    Aborted, AlreadyExists, FailedPrecondition, Internal, InvalidArgument, NotFound, PermissionDenied,
    ResourceExhausted, Unauthenticated, Unavailable, Unimplemented,
};

use super::{
    Retry::{AfterMs, Never},
    Row,
};

macro_rules! reasons {
    ($($heading:literal { $($Reason:ident = $word:literal, $code:expr, $retry:expr, $meaning:literal;)+ })+) => {
        /// Why something was refused, given up or put off.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $meaning] $Reason,)+)+
        }

        impl Reason {
            /// The table, by heading.
            pub const GROUPS: &'static [(&'static str, &'static [Row])] =
                &[$(($heading, &[$(Reason::$Reason.row()),+])),+];
            /// The table, in the order of the enum.
            pub const ROWS: &'static [Row] = &[$($(Reason::$Reason.row(),)+)+];

            /// Its row of the table.
            pub(super) const fn row(self) -> Row {
                match self {
                    $($(Reason::$Reason => {
                        Row { reason: Reason::$Reason, word: $word, code: $code, retry: $retry, meaning: $meaning }
                    })+)+
                }
            }
        }
    };
}

reasons! {
    "Statements and batches (FORMATS.md §1, §2)" {
        BatchMalformed = "BATCH_MALFORMED", InvalidArgument, Never, "The JWS is too long, not three parts, not canonical base64url, or has a header or payload other than specified.";
        BatchBounds = "BATCH_BOUNDS", InvalidArgument, Never, "Version, n, index or path length is outside what a batch may have.";
        SignerUnknown = "SIGNER_UNKNOWN", FailedPrecondition, AfterMs(5_000), "No key record of the issuer has the certificate that signed; publish it first.";
        CertificateInvalid = "CERTIFICATE_INVALID", PermissionDenied, Never, "The signing certificate's chain, purpose, name or validity does not hold at the time that counts.";
        SignatureInvalid = "SIGNATURE_INVALID", PermissionDenied, Never, "The signature is not that of the certificate over these bytes.";
        InclusionInvalid = "INCLUSION_INVALID", PermissionDenied, Never, "The path does not lead from the statement to the batch's root.";
        IssuerMismatch = "ISSUER_MISMATCH", PermissionDenied, Never, "Issuer of batch, statement, certificate and peer are not the same institution.";
        StatementMalformed = "STATEMENT_MALFORMED", InvalidArgument, Never, "The statement's JSON has an unknown, missing, duplicate or ill-formed member, or another kind than asked for.";
        StatementTooLarge = "STATEMENT_TOO_LARGE", InvalidArgument, Never, "The statement's JSON is over 16 KiB.";
        IssuedInFuture = "ISSUED_IN_FUTURE", FailedPrecondition, AfterMs(60_000), "The statement was issued more than 300 s ahead of the verifier's clock; check the clocks.";
        EvidenceInvalid = "EVIDENCE_INVALID", PermissionDenied, Never, "The gateway's evidence is not about this message, or not by this gateway.";
    }
    "Keys and sealing (FORMATS.md §2.4, §3)" {
        KeyRecordInvalid = "KEY_RECORD_INVALID", InvalidArgument, Never, "The key record does not check: chain, name, purpose, validity or its own signature.";
        KeyRolledBack = "KEY_ROLLED_BACK", FailedPrecondition, Never, "A key record with a lower sequence than one seen before, or the same sequence with other bytes.";
        KeyWeakerSuite = "KEY_WEAKER_SUITE", FailedPrecondition, Never, "A key record with a weaker suite than the strongest seen of this institution.";
        KeyUnknown = "KEY_UNKNOWN", FailedPrecondition, Never, "The message is sealed to a key that the recipient does not have; fetch its key record and seal anew under a new id.";
        KeyExpired = "KEY_EXPIRED", FailedPrecondition, Never, "The key record is past its expiry, or not valid yet.";
        DecryptionFailed = "DECRYPTION_FAILED", InvalidArgument, Never, "The ciphertext does not open under the named key and this context.";
        CommitmentMismatch = "COMMITMENT_MISMATCH", InvalidArgument, Never, "The plaintext, its padding or its length is not what the origin committed to.";
        BodyMismatch = "BODY_MISMATCH", InvalidArgument, Never, "The body's kind, status, reason or number of attachments is not what the origin says.";
        EncMismatch = "ENC_MISMATCH", InvalidArgument, Never, "The encapsulated key is not the one whose digest the origin names.";
        CiphertextMismatch = "CIPHERTEXT_MISMATCH", InvalidArgument, Never, "The ciphertext is not the one whose digest and length the origin names.";
        DigestMismatch = "DIGEST_MISMATCH", InvalidArgument, Never, "Bytes do not have the digest that was promised for them.";
        SchemaInvalid = "SCHEMA_INVALID", InvalidArgument, Never, "The body is not a well-formed message of its type.";
    }
    "Parts and attachments (FORMATS.md §4)" {
        PartMissing = "PART_MISSING", FailedPrecondition, AfterMs(1_000), "A part that the origin names is not stored yet; put it, then submit again.";
        PartMismatch = "PART_MISMATCH", InvalidArgument, Never, "A part's length, digest, message or audience is not what was announced, or a chunk does not open.";
        PartUnknown = "PART_UNKNOWN", NotFound, Never, "There is no such part for the caller.";
        AttachmentUnknown = "ATTACHMENT_UNKNOWN", NotFound, Never, "There is no such attachment; it was never put, or is older than 24 hours, or its message is acknowledged.";
        PayloadTooLarge = "PAYLOAD_TOO_LARGE", InvalidArgument, Never, "Body, part, frame or sum of attachments is over its limit.";
        QuotaExceeded = "QUOTA_EXCEEDED", ResourceExhausted, AfterMs(60_000), "The institution's parts that wait have used up its quota.";
    }
    "Identity" {
        CertificateMissing = "CERTIFICATE_MISSING", Unauthenticated, Never, "The call came over a connection without a certificate.";
        CertificateUntrusted = "CERTIFICATE_UNTRUSTED", Unauthenticated, Never, "The certificate does not chain to this network's authority.";
        CertificateExpired = "CERTIFICATE_EXPIRED", Unauthenticated, Never, "The certificate is expired, or not valid yet.";
        CertificateRevoked = "CERTIFICATE_REVOKED", Unauthenticated, Never, "The certificate is revoked.";
        RevocationUnknown = "REVOCATION_UNKNOWN", Unauthenticated, AfterMs(60_000), "The revocation list is missing or past its date, so nobody is let in on its word.";
        IdentityMissing = "IDENTITY_MISSING", Unauthenticated, Never, "The certificate has not exactly one SPIFFE name of this trust domain, with a known role.";
        PurposeMissing = "PURPOSE_MISSING", Unauthenticated, Never, "The certificate is not for this use: clientAuth or serverAuth is missing.";
        HandshakeFailed = "HANDSHAKE_FAILED", Unauthenticated, Never, "The TLS handshake failed: another version, no common suite, or bytes that are no TLS.";
        HandshakeTimeout = "HANDSHAKE_TIMEOUT", Unavailable, AfterMs(1_000), "The TLS handshake, or the first bytes after it, took too long.";
        ConnectionsExceeded = "CONNECTIONS_EXCEEDED", ResourceExhausted, AfterMs(1_000), "Too many connections: in all, of this certificate, or from this address.";
        NotAuthorized = "NOT_AUTHORIZED", PermissionDenied, Never, "The peer's role may not call this.";
        UnknownInstitution = "UNKNOWN_INSTITUTION", NotFound, Never, "No participant of that name.";
    }
    "Policy" {
        PolicyDenied = "POLICY_DENIED", PermissionDenied, Never, "The policy does not let this institution send this type to that one.";
        PurposeNotAllowed = "PURPOSE_NOT_ALLOWED", PermissionDenied, Never, "The policy does not allow this purpose here, or it is no purpose code.";
        LegalBasisNotAllowed = "LEGAL_BASIS_NOT_ALLOWED", PermissionDenied, Never, "The policy does not allow this legal basis here, or it is no legal basis code.";
        UnknownRecipient = "UNKNOWN_RECIPIENT", NotFound, Never, "The audience is no participant.";
    }
    "Messages" {
        MessageExpired = "MESSAGE_EXPIRED", FailedPrecondition, Never, "The message was past its expiry when it came.";
        ExpiryInvalid = "EXPIRY_INVALID", InvalidArgument, Never, "The expiry is not after the issue, or more than 60 days after it.";
        IdReused = "ID_REUSED", AlreadyExists, Never, "The id was accepted before with other content.";
        IdExpired = "ID_EXPIRED", FailedPrecondition, Never, "The id is so old that it is no longer remembered.";
        RequestIdReused = "REQUEST_ID_REUSED", AlreadyExists, Never, "The request id was used before with other content.";
        UnknownMessage = "UNKNOWN_MESSAGE", NotFound, Never, "No such message for the caller.";
        FrameInvalid = "FRAME_INVALID", InvalidArgument, Never, "The frame is empty, over its limits, out of order, or refers to a batch that it does not carry.";
        FieldInvalid = "FIELD_INVALID", InvalidArgument, Never, "A field is missing, too long, or not of its form; the details name it.";
    }
    "Cases" {
        CaseUnknown = "CASE_UNKNOWN", NotFound, Never, "No such case between these institutions.";
        CaseExists = "CASE_EXISTS", AlreadyExists, Never, "The case was opened already.";
        CaseNotParty = "CASE_NOT_PARTY", PermissionDenied, Never, "Only the institution that opened the case and the one it was opened with may move it, towards each other.";
        CaseTransitionInvalid = "CASE_TRANSITION_INVALID", FailedPrecondition, Never, "The case may not move there from where it is, or not by this party (STATES.md).";
        CaseReasonInvalid = "CASE_REASON_INVALID", InvalidArgument, Never, "The status needs a reason code and has none, or the code is not one for this kind of case.";
        CaseMismatch = "CASE_MISMATCH", InvalidArgument, Never, "The message's type, conversation or the message it answers does not belong to the case.";
        CaseExpired = "CASE_EXPIRED", FailedPrecondition, Never, "The case passed its deadline before anybody took it up.";
    }
    "Delivery" {
        RecipientUnreachable = "RECIPIENT_UNREACHABLE", Unavailable, AfterMs(5_000), "The recipient is not connected.";
        ConnectionLost = "CONNECTION_LOST", Unavailable, AfterMs(1_000), "The connection broke before the delivery was settled.";
        LeaseTimeout = "LEASE_TIMEOUT", Unavailable, AfterMs(1_000), "The delivery was not settled in time.";
        NackTransient = "NACK_TRANSIENT", Unavailable, AfterMs(5_000), "The recipient cannot take the message now.";
        NackPermanent = "NACK_PERMANENT", FailedPrecondition, Never, "The recipient will never take the message.";
        DirectoryUnavailable = "DIRECTORY_UNAVAILABLE", Unavailable, AfterMs(5_000), "The recipient could not fetch the key record that it needs.";
        InboxFull = "INBOX_FULL", ResourceExhausted, AfterMs(60_000), "The recipient's inbox is full until its back office acknowledges.";
        AttemptsExhausted = "ATTEMPTS_EXHAUSTED", FailedPrecondition, Never, "Every attempt that the policy grants was spent; an operator decides.";
        TtlExpired = "TTL_EXPIRED", FailedPrecondition, Never, "The message's expiry passed before it was delivered.";
        Recalled = "RECALLED", FailedPrecondition, Never, "The sender took the message back before it was delivered.";
        RecipientSuspended = "RECIPIENT_SUSPENDED", FailedPrecondition, AfterMs(60_000), "Deliveries to the recipient are held by an operator.";
        Discarded = "DISCARDED", FailedPrecondition, Never, "An operator ended the message after it was given up.";
        NotDeadLettered = "NOT_DEAD_LETTERED", FailedPrecondition, Never, "Only a dead letter can be redriven or discarded.";
        ReceiptMismatch = "RECEIPT_MISMATCH", InvalidArgument, Never, "The receipt is not about this message, or not by its recipient.";
        ReceiptAfterEnd = "RECEIPT_AFTER_END", FailedPrecondition, Never, "The receipt came when the message was final already; it is recorded and changes nothing.";
        DeliveryUnknown = "DELIVERY_UNKNOWN", NotFound, Never, "No such delivery or notice waits for the caller.";
        CreditExceeded = "CREDIT_EXCEEDED", InvalidArgument, Never, "More credit is outstanding than a stream may have, or the first request carries none.";
        Superseded = "SUPERSEDED", Aborted, Never, "A newer Receive stream of the same institution took over.";
    }
    "The service itself" {
        RateLimited = "RATE_LIMITED", ResourceExhausted, AfterMs(1_000), "Too many requests; slow down.";
        ShuttingDown = "SHUTTING_DOWN", Unavailable, AfterMs(1_000), "The node is stopping; connect again.";
        GatewayUnavailable = "GATEWAY_UNAVAILABLE", Unavailable, AfterMs(5_000), "The adapter has no connection to its gateway and needs one for this.";
        StoreFull = "STORE_FULL", ResourceExhausted, AfterMs(60_000), "The node's disk or queue is full; nothing was accepted. Try later: whoever runs the node makes room.";
        StoreFailed = "STORE_FAILED", Unavailable, AfterMs(5_000), "The disk failed a write; nothing was accepted and the node stops.";
        ClockHeld = "CLOCK_HELD", Unavailable, AfterMs(5_000), "The node does not believe its clock: it signs, ends and refuses nothing by it until somebody sets or confirms it.";
        Internal = "INTERNAL", Internal, AfterMs(5_000), "A fault of the node itself; its log says more.";
        AuditNotYetServed = "AUDIT_NOT_YET_SERVED", Unimplemented, Never, "The audit log is not served by this version.";
        ScreeningNotYetServed = "SCREENING_NOT_YET_SERVED", Unimplemented, Never, "The catalogue of benefits is not served by this version.";
    }
}
