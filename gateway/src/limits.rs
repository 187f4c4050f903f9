//! What the gateway never exceeds, each with its reason. The transport's defaults leave many of these open: no cap on
//! streams, on connections, on what a client makes the server reset, no deadline before the first byte.
//! What an operator may wish to change is in the configuration (`[limits]`, `[delivery]`); what stands here is not a taste.

use std::time::Duration;

use tramite_proto::{batch, commitment, parts, seal, statement};

/// Messages, deliveries, notices or settlements in one frame: a batch holds no more (FORMATS.md §5).
pub const FRAME_ITEMS_MAX: usize = batch::BATCH_MAX;
/// Batches in one frame: at worst each of its messages comes in a batch of its own.
pub const FRAME_BATCHES_MAX: usize = FRAME_ITEMS_MAX;
/// Bytes of one frame, decoded (FORMATS.md §5).
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// Bytes of a call that carries no messages: a key record with four certificates and its path is below 32 KiB.
pub const CALL_BYTES_MAX: usize = 64 << 10;
/// Bytes of an answer that carries no messages: what a client takes by default.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Bytes of one frame of deliveries, contents and statements together: clearly below the 4 MiB that a gRPC client takes unless it is told
/// otherwise. One message is far below it.
pub const DELIVERY_FRAME_BYTES_MAX: usize = 3 << 20;
/// Bytes of one SubmitOne: a sealed body of 64 KiB, a statement and its batch.
pub const SUBMIT_ONE_BYTES_MAX: usize = 128 << 10;
/// Bytes of one message of PutPart and GetPart: the data of a frame or the header, and their framing.
pub const PART_CALL_BYTES_MAX: usize = PART_FRAME_BYTES_MAX + 4_096;
/// Bytes of the frames of one Submit stream that wait for the disk: what comes after is left in the connection's window. With one frame
/// more and the streams that an institution may have, a certificate holds some 48 MiB at most.
pub const SUBMIT_BYTES_IN_FLIGHT_MAX: usize = 4 << 20;
/// Key records that are kept and listed for one institution: a year of monthly ones, and some more. A list of them for every reader
/// stays small, and so does the journal's table.
pub const KEY_RECORDS_MAX: usize = 16;
/// Key records of one institution, one after the other without a pause: each is a chain to verify and a fact.
pub const KEY_RECORDS_BURST: u32 = 8;
/// Between two of them from then on.
pub const KEY_RECORDS_INTERVAL: Duration = Duration::from_secs(1);
/// The longest wait after streams that were lost one after the other. Each loss is a fact for every message that was on its way: five days of
/// nothing else are some five hundred for a message. Whoever comes back after a bad day waits no longer than this.
pub const LOST_WAIT_MAX_MS: u64 = 900_000;
/// The least wait between two attempts at a notice once it was put off as often as a message may be: it is never given up, and each
/// attempt is a fact. It doubles from here.
pub const NOTICE_WAIT_MIN_MS: u64 = 60_000;
/// The longest: a year of a notice that nobody ever takes is some four hundred facts, and a recipient that was put right has its news
/// within a day.
pub const NOTICE_WAIT_MAX_MS: u64 = 86_400_000;
/// Messages of one Submit stream that are checked and wait for the disk, in however many frames: a group of the journal takes no more.
pub const SUBMIT_MESSAGES_IN_FLIGHT_MAX: usize = 512;
/// Requests of one Receive stream whose settlements wait for the disk: as many as its outstanding deliveries fill (1,024 in sixty-fours).
pub const SETTLEMENTS_IN_FLIGHT_MAX: usize = 16;
/// Submit streams of one institution: one is enough, a second takes over; each may hold its frames in flight in memory.
pub const SUBMIT_STREAMS_MAX: usize = 4;
/// Frames that wait for a slow reader of a response stream.
pub const FRAMES_OUT_MAX: usize = 4;
/// Deliveries and notices that one recipient may have outstanding; more credit than this counts as this much.
pub const CREDIT_MAX: u32 = 1_024;
/// Sealed bytes of a message: 64 KiB of padded plaintext and a tag of 16 bytes.
pub const CIPHERTEXT_BYTES_MAX: usize = commitment::PADDED_MAX + parts::TAG;
/// The least padded plaintext and a tag.
pub const CIPHERTEXT_BYTES_MIN: usize = commitment::PADDED_MIN + parts::TAG;
/// An encapsulated key: 32 bytes for X25519, 1,120 for X-Wing.
pub const ENC_BYTES_MAX: usize = seal::Suite::XWing.enc_len();
/// Bytes of a part in one frame of PutPart and GetPart.
pub const PART_FRAME_BYTES_MAX: usize = parts::FRAME_MAX;
/// Parts of one institution that may lie here: 1,024 messages with all the parts that a message may have. Each is a file and a record,
/// however small it is.
pub const PARTS_WAITING_MAX: u64 = 16_384;
/// What a part counts at least: a block of the file system.
pub const PART_BYTES_MIN: u64 = 4_096;
/// What a part counts beside its bytes: its record, and the file's own entry.
pub const PART_BYTES_BESIDE: u64 = 512;
/// Parts that one institution may be sending at the same time: each holds a file open.
pub const PART_UPLOADS_MAX: usize = 8;
/// Parts that one institution may be fetching at the same time: each holds a file open and some frames in memory.
pub const PART_DOWNLOADS_MAX: usize = 16;
/// Rows of one page of a listing.
pub const PAGE_ROWS_MAX: u32 = 1_000;
/// Rows of one page when the caller names no number.
pub const PAGE_ROWS_DEFAULT: u32 = 100;
/// Messages of a queue that are looked at to count those that wait for their next attempt: an overview must stay cheap.
pub const RETRYING_SCAN_MAX: usize = 1_000;
/// Characters of an operator's reason.
pub const OPERATOR_REASON_CHARS_MAX: usize = 500;
/// Characters kept of a peer's own words in the history of attempts.
pub const DETAIL_CHARS_MAX: usize = 300;
/// Messages and cases ended by one pass of the clock, or attempts recorded together: what one group of the journal holds; the next one takes
/// the rest.
pub const CHANGES_AT_ONCE_MAX: usize = 256;
/// An id is remembered so much longer than its message lives: later repeats are refused as expired.
pub const REMEMBER_AFTER_EXPIRY_MS: i64 = statement::REMEMBERED_MS;

/// Streams of one connection. tonic passes "no limit" to hyper; an adapter needs three and its part transfers.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 64;
/// Requests of one connection that run at the same time; further ones are refused at once (load shed), not queued.
pub const REQUESTS_PER_CONNECTION_MAX: usize = 32;
/// Streams that a client reset before we accepted them (CVE-2023-44487): hyper's own default, written down.
pub const PENDING_RESETS_MAX: usize = 20;
/// Streams that a client makes *us* reset (RUSTSEC-2024-0003): tonic's default is no limit.
pub const PROVOKED_RESETS_MAX: usize = 256;
/// Header list: error details travel in headers too, and CONTINUATION floods are bounded by this.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// Window of one stream: enough for a full delivery frame in a few round trips, streams x connections bounded in memory.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Window of a connection. Below 1 MiB h2's budget for small frames ends whole connections (`too_many_data_frames`).
pub const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
/// A connection that says nothing is asked this often.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// And closed when it does not answer within this.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Age at which a connection is asked to go: long enough to be no burden, and no certificate's connection lasts for ever.
/// No grace period is set: tonic then skips the announcement and cuts calls that are still running.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(3_600);
/// A unary call, and a streaming call until it begins to answer.
pub const CALL_MAX: Duration = Duration::from_secs(20);
/// Between two frames of PutPart: a sender that stops in the middle holds a file open.
pub const PART_IDLE_MAX: Duration = Duration::from_secs(30);
/// The whole of PutPart: 25 MiB at 256 kbit/s take 14 minutes.
pub const PART_UPLOAD_MAX: Duration = Duration::from_secs(900);
/// How long an ended stream may take to give back what it held, before the one that takes over goes on without it.
pub const HANDOVER_MAX: Duration = Duration::from_secs(5);
/// How long open calls may take to end when the gateway stops.
pub const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Between two sweeps of the records of parts that are gone.
pub const PART_SWEEP_INTERVAL: Duration = Duration::from_secs(3_600);
/// Between two looks for what has expired.
pub const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);
