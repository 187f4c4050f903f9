//! The spool folder, with an adapter around it.

use std::{fs, path::Path};

use serde_json::Value;

use super::{
    delivery::{next_item, origin_of, put},
    network::{Institution, Network, referral, until},
    stand_in::{self, StandIn},
};
use crate::Config;

const REFERRAL: &str = r#"{
  "kind": "referral", "to": "inps", "purpose": "RIGHTS_SCREENING", "legal_basis": "GDPR-6-1-E", "attachments": ["delega.pdf"],
  "referral": {"person": {"surname": "Prova"}, "benefits": ["ADI"], "mandate": {"kind": "CONSENT", "reference": "file 1"}}
}"#;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("there")).expect("JSON")
}

#[tokio::test]
async fn a_file_is_sent_with_its_attachments_and_its_result_stands_beside_it() {
    let network = Network::new();
    let gateway = StandIn::start(&network).await;
    let inps = network.start("inps", gateway.port()).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("inps").then_some(())).await;
    let comune = network.start("comune", gateway.port()).await;
    let spool = network.path("comune/spool");
    fs::create_dir(spool.join("outgoing/una richiesta")).expect("made");
    fs::write(spool.join("outgoing/una richiesta/delega.pdf"), vec![7_u8; 100_000]).expect("written");
    fs::write(spool.join("outgoing/una richiesta.json"), REFERRAL).expect("written");
    let sent = spool.join("sent/una richiesta.json");
    until(async || sent.exists().then_some(())).await;
    let result = json(&spool.join("sent/una richiesta.result.json"));
    assert!(spool.join("sent/una richiesta/delega.pdf").exists());
    assert!(!spool.join("outgoing/una richiesta.json").exists() && !spool.join("outgoing/una richiesta").exists());
    let (origin, _) = origin_of(&gateway.message(0).await);
    assert_eq!(result["message_id"], origin.jti.to_string());
    assert_eq!(origin.parts.len(), 1);

    // A crash between the result and the renames: the file is back, its result is there. It is moved, and nothing is sent.
    fs::rename(spool.join("sent/una richiesta"), spool.join("outgoing/una richiesta")).expect("moved");
    fs::rename(&sent, spool.join("outgoing/una richiesta.json")).expect("moved");
    until(async || sent.exists().then_some(())).await;
    // A crash before the result: the same request id, the answer of the first time.
    fs::remove_file(spool.join("sent/una richiesta.result.json")).expect("removed");
    fs::rename(spool.join("sent/una richiesta"), spool.join("outgoing/una richiesta")).expect("moved");
    fs::rename(&sent, spool.join("outgoing/una richiesta.json")).expect("moved");
    until(async || sent.exists().then_some(())).await;
    let again = json(&spool.join("sent/una richiesta.result.json"));
    assert_eq!((&again["message_id"], &again["repeated"]), (&result["message_id"], &Value::Bool(true)));
    assert_eq!(gateway.state.submitted.lock().expect("lock").len(), 1, "sent once");
    comune.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn a_bad_file_is_rejected_with_the_reason_in_words_and_one_that_must_wait_stays() {
    let network = Network::new();
    let comune = network.start("comune", 1).await;
    let spool = network.path("comune/spool");
    let put = |name: &str, text: &str| fs::write(spool.join("outgoing").join(name), text).expect("written");
    put("wrong.json", &REFERRAL.replace("ADI", "NO-SUCH"));
    put("broken.json", "{");
    put("missing.json", REFERRAL);
    put("waits.json", &REFERRAL.replace(r#", "attachments": ["delega.pdf"]"#, ""));
    put(".hidden.json", "{");
    put("note.txt", "not a message");
    let reason = async |name: &str| {
        let path = spool.join("rejected").join(format!("{name}.reason.txt"));
        until(async || spool.join("rejected").join(format!("{name}.json")).exists().then_some(())).await;
        fs::read_to_string(path).expect("a reason")
    };
    assert!(reason("wrong").await.starts_with("FIELD_INVALID: "));
    assert!(reason("broken").await.starts_with("not a message: "));
    assert!(reason("missing").await.contains("`delega.pdf` was not found"));
    for name in ["waits.json", ".hidden.json", "note.txt"] {
        assert!(spool.join("outgoing").join(name).exists(), "{name}");
    }
    comune.stop().await;
}

#[tokio::test]
async fn a_file_that_must_wait_keeps_no_copies_of_its_attachments() {
    let network = Network::new();
    let comune = network.start("comune", 1).await;
    let spool = network.path("comune/spool");
    fs::create_dir(spool.join("outgoing/waits")).expect("made");
    fs::write(spool.join("outgoing/waits/delega.pdf"), vec![7_u8; 100_000]).expect("written");
    fs::write(spool.join("outgoing/waits.json"), REFERRAL).expect("written");
    // Each takes two looks: the one that waits is tried at every tenth.
    for n in 0..30 {
        let rejected = spool.join(format!("rejected/{n}.json"));
        fs::write(spool.join(format!("outgoing/{n}.json")), "{").expect("written");
        until(async || rejected.exists().then_some(())).await;
        let staged = fs::read_dir(network.path("comune/data/attachments")).expect("a listing").count();
        assert!(staged <= 3, "more than the key and one file: {staged}");
    }
    assert!(spool.join("outgoing/waits.json").exists());
    comune.stop().await;
}

#[tokio::test]
async fn a_thousand_files_that_must_wait_hold_up_no_other() {
    let network = Network::new();
    let gateway = StandIn::start(&network).await;
    let inps = network.start("inps", gateway.port()).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("inps").then_some(())).await;
    let spool = network.path("comune/spool");
    fs::create_dir_all(spool.join("outgoing")).expect("made");
    let can_go = REFERRAL.replace(r#", "attachments": ["delega.pdf"]"#, "");
    // It has no key yet.
    let must_wait = can_go.replace(r#""inps""#, r#""caritas""#);
    for n in 0..1_000 {
        fs::write(spool.join(format!("outgoing/{n}.json")), &must_wait).expect("written");
    }
    fs::write(spool.join("outgoing/z.json"), can_go).expect("written");
    let comune = network.start("comune", gateway.port()).await;
    until(async || spool.join("sent/z.json").exists().then_some(())).await;
    assert_eq!(fs::read_dir(spool.join("outgoing")).expect("a listing").count(), 1_000);
    comune.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn what_arrives_becomes_files_once() {
    let network = Network::new();
    let mut gateway = StandIn::start(&network).await;
    let comune = network.start("comune", gateway.port()).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("comune").then_some(())).await;
    let mut caritas = network.start("caritas", gateway.port()).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("caritas").then_some(())).await;
    let sent = caritas.office.send_referral(referral("r-1", "comune")).await.expect("sent").into_inner();
    let message = gateway.message(0).await;
    let acceptance = gateway.state.acceptance(&message);
    gateway.send("comune", stand_in::delivery(1, &message, Some(&acceptance))).await;
    assert!(gateway.settlement("comune").await.0.is_some());
    let spool = network.path("comune/spool");
    let arrived = spool.join("incoming").join(format!("{}.json", sent.message_id));
    until(async || arrived.exists().then_some(())).await;
    let item = json(&arrived);
    assert_eq!(item["message"]["from"], "caritas");
    assert_eq!(item["message"]["referral"]["person"]["surname"], "Prova");
    comune.stop().await;

    // A crash after the acknowledgement and before the name: the restart gives it its name.
    fs::rename(&arrived, spool.join(".partial").join(format!("{}.item.json", sent.message_id))).expect("moved");
    fs::write(spool.join(".partial/half.item.json"), "{\"item_id\": \"1").expect("written");
    let comune = network.start("comune", gateway.port()).await;
    until(async || arrived.exists().then_some(())).await;
    until(async || (fs::read_dir(spool.join(".partial")).expect("a listing").count() == 0).then_some(())).await;
    // A person takes it away: it does not come back.
    fs::remove_file(&arrived).expect("taken away");
    gateway.send("comune", stand_in::delivery(1, &message, Some(&acceptance))).await;
    assert!(gateway.settlement("comune").await.0.is_some());
    comune.stop().await;
    let comune = network.start("comune", gateway.port()).await;
    let mut office = comune.office.clone();
    assert!(super::delivery::waiting(&mut office).await.is_empty());
    assert!(!arrived.exists());
    comune.stop().await;
    caritas.stop().await;
}

#[tokio::test]
async fn a_file_sent_under_another_name_is_known_again_after_a_crash_between_its_renames() {
    let network = Network::new();
    let gateway = StandIn::start(&network).await;
    let inps = network.start("inps", gateway.port()).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("inps").then_some(())).await;
    let comune = network.start("comune", gateway.port()).await;
    let spool = network.path("comune/spool");
    let put = |what: &str| {
        fs::create_dir(spool.join("outgoing/a")).expect("made");
        fs::write(spool.join("outgoing/a/delega.pdf"), what).expect("written");
        fs::write(spool.join("outgoing/a.json"), REFERRAL.replace("file 1", what)).expect("written");
    };
    put("first");
    until(async || spool.join("sent/a.json").exists().then_some(())).await;
    put("second");
    let gone = async || until(async || (!spool.join("outgoing/a.json").exists()).then_some(())).await;
    gone().await;
    let names = fs::read_dir(spool.join("sent")).expect("a listing").map(|entry| entry.expect("an entry").path());
    let second = names
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .find(|path| path.file_stem().is_some_and(|s| s != "a" && !s.to_string_lossy().ends_with(".result")))
        .expect("the second one");
    // The kill came when the attachments had their place and the JSON had not.
    fs::rename(&second, spool.join("outgoing/a.json")).expect("moved");
    gone().await;
    assert!(second.exists(), "it is what was sent");
    assert_eq!(fs::read_dir(spool.join("rejected")).expect("a listing").count(), 0);
    assert_eq!(gateway.state.submitted.lock().expect("lock").len(), 2);
    comune.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn what_was_sent_stays_as_it_was_sent_when_its_json_comes_back_with_other_attachments() {
    let network = Network::new();
    let gateway = StandIn::start(&network).await;
    let inps = network.start("inps", gateway.port()).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("inps").then_some(())).await;
    let comune = network.start("comune", gateway.port()).await;
    let spool = network.path("comune/spool");
    let (out, sent, rejected) = (spool.join("outgoing"), spool.join("sent"), spool.join("rejected"));
    let put = |attachment: &str, what: &str| {
        let path = out.join(attachment);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, what).expect("written");
        fs::write(out.join("a.json"), REFERRAL).expect("written");
    };
    let gone = async || until(async || (!out.join("a.json").exists()).then_some(())).await;
    let unchanged = |what: &str| {
        assert_eq!(fs::read_to_string(sent.join("a/delega.pdf")).expect("there"), "first", "{what}");
        assert_eq!(gateway.state.submitted.lock().expect("lock").len(), 1, "{what}");
    };
    put("a/delega.pdf", "first");
    gone().await;
    gateway.message(0).await;
    // The same once more is what was sent.
    put("a/delega.pdf", "first");
    gone().await;
    unchanged("the same");
    assert!(!rejected.join("a.json").exists() && !out.join("a").exists());
    // In its folder, beside it, and when its result was taken away.
    for (attachment, result) in [("a/delega.pdf", true), ("delega.pdf", true), ("a/delega.pdf", false)] {
        if !result {
            fs::remove_file(sent.join("a.result.json")).expect("taken away");
        }
        put(attachment, "other");
        gone().await;
        unchanged(attachment);
        let reason = fs::read_to_string(rejected.join("a.reason.txt")).expect("a reason");
        assert!(reason.contains("with other attachments"), "{reason}");
        fs::remove_file(rejected.join("a.json")).expect("it was moved there");
        fs::remove_file(out.join(attachment)).expect("it stays, to be put right");
        drop(fs::remove_dir(out.join("a")));
    }
    // Nothing is there: they went to `sent` before a kill.
    fs::rename(sent.join("a.json"), out.join("a.json")).expect("moved");
    put("a/delega.pdf", "first");
    gone().await;
    fs::rename(sent.join("a.json"), out.join("a.json")).expect("moved");
    gone().await;
    unchanged("only the JSON");
    assert!(sent.join("a.json").exists() && !rejected.join("a.json").exists());
    comune.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn a_link_or_a_pipe_is_rejected_in_words_and_holds_up_nothing() {
    let network = Network::new();
    let comune = network.start("comune", 1).await;
    let spool = network.path("comune/spool");
    let secret = network.path("secret");
    fs::write(&secret, "{}").expect("written");
    let out = spool.join("outgoing");
    std::os::unix::fs::symlink(&secret, out.join("link.json")).expect("linked");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, out.join("pipe.json"), rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
    std::os::unix::fs::symlink(&secret, out.join("delega.pdf")).expect("linked");
    fs::write(out.join("through.json"), REFERRAL).expect("written");
    fs::write(out.join("long.json"), " ".repeat(300_000)).expect("written");
    for (name, words) in
        [("link", "symbolic link"), ("pipe", "not a regular file"), ("through", "symbolic link"), ("long", "too long")]
    {
        let path = spool.join("rejected").join(format!("{name}.json"));
        until(async || fs::symlink_metadata(&path).is_ok().then_some(())).await;
        let reason = fs::read_to_string(spool.join("rejected").join(format!("{name}.reason.txt"))).expect("a reason");
        assert!(reason.contains(words), "{name}: {reason}");
    }
    comune.stop().await;
}

#[tokio::test]
async fn what_can_never_be_a_message_leaves_with_a_reason_whatever_it_is_called() {
    let network = Network::new();
    let comune = network.start("comune", 1).await;
    let spool = network.path("comune/spool");
    let (out, rejected) = (spool.join("outgoing"), spool.join("rejected"));
    let folder = |content: &str| {
        fs::create_dir(network.path("making")).expect("made");
        fs::write(network.path("making/file"), content).expect("written");
        fs::rename(network.path("making"), out.join("folder.json")).expect("put there");
    };
    // What stands there already is a file, and stays one.
    fs::write(rejected.join("folder.json"), "an older one").expect("written");
    folder("first");
    let long = "n".repeat(250);
    fs::write(out.join(format!("{long}.json").get(5..).expect("ASCII")), REFERRAL).expect("written");
    fs::write(out.join("UPPER.JSON"), "{").expect("written");
    let latin = std::os::unix::ffi::OsStrExt::from_bytes(b"perch\xe8.json");
    fs::write(out.join::<&std::ffi::OsStr>(latin), REFERRAL).expect("written");
    until(async || fs::read_dir(&out).expect("a listing").next().is_none().then_some(())).await;
    let reasons = || -> Vec<(String, String)> {
        let names = fs::read_dir(&rejected).expect("a listing").map(|entry| entry.expect("an entry").path());
        let reasons = names.filter(|path| path.extension().is_some_and(|ending| ending == "txt"));
        reasons.map(|path| (path.display().to_string(), fs::read_to_string(path).expect("a reason"))).collect()
    };
    let said = reasons();
    assert_eq!(said.len(), 4, "{said:?}");
    for words in ["not a regular file", &long[..245], "not text in UTF-8", "line 1"] {
        let (path, _) =
            said.iter().find(|(_, said)| said.contains(words)).unwrap_or_else(|| panic!("{words}: {said:?}"));
        let json = path.replace(".reason.txt", ".json");
        assert!(fs::symlink_metadata(&json).is_ok(), "{json}");
    }
    assert_eq!(fs::read_to_string(rejected.join("folder.json")).expect("there"), "an older one");
    // And once more: the first one is still there.
    folder("second");
    until(async || (reasons().len() == 5).then_some(())).await;
    until(async || fs::read_dir(&out).expect("a listing").next().is_none().then_some(())).await;
    for (number, content) in [(1, "first"), (2, "second")] {
        let path = rejected.join(format!("folder-{number}.json/file"));
        assert_eq!(fs::read_to_string(path).expect("there"), content);
    }
    comune.stop().await;
}

#[tokio::test]
async fn an_item_that_cannot_be_written_holds_up_no_other_and_comes_when_it_can() {
    let network = Network::new();
    let mut gateway = StandIn::start(&network).await;
    let comune = network.start("comune", gateway.port()).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("comune").then_some(())).await;
    let mut caritas = network.start("caritas", gateway.port()).await;
    let spool = network.path("comune/spool");
    let mut arrived = Vec::new();
    for n in 0..2 {
        let sent =
            caritas.office.send_referral(referral(&format!("r-{n}"), "comune")).await.expect("sent").into_inner();
        arrived.push(spool.join("incoming").join(format!("{}.json", sent.message_id)));
        if n == 0 {
            fs::create_dir(spool.join(".partial").join(format!("{}.item.json", sent.message_id))).expect("in the way");
        }
        let message = gateway.message(n).await;
        let acceptance = gateway.state.acceptance(&message);
        gateway.send("comune", stand_in::delivery(1, &message, Some(&acceptance))).await;
        assert!(gateway.settlement("comune").await.0.is_some());
    }
    until(async || arrived[1].exists().then_some(())).await;
    assert!(!arrived[0].exists());
    for entry in fs::read_dir(spool.join(".partial")).expect("a listing") {
        fs::remove_dir(entry.expect("an entry").path()).expect("out of the way");
    }
    until(async || arrived[0].exists().then_some(())).await;
    comune.stop().await;
    caritas.stop().await;
}

/// A message with one attachment for `comune`, taken in by it; its id.
async fn arrives(gateway: &mut StandIn, caritas: &mut Institution, content: &[u8], before: impl Fn(&str)) -> String {
    let stored = put(&mut caritas.office, content).await;
    let mut request = referral("r-1", "comune");
    request.sending.as_mut().expect("sending").attachments = vec![stored.attachment_id];
    let sent = caritas.office.send_referral(request).await.expect("sent").into_inner();
    before(&sent.message_id);
    let message = gateway.message(0).await;
    let acceptance = gateway.state.acceptance(&message);
    gateway.send("comune", stand_in::delivery(1, &message, Some(&acceptance))).await;
    assert!(gateway.settlement("comune").await.0.is_some());
    sent.message_id
}

#[tokio::test]
async fn an_attachment_that_a_kill_cut_is_written_again_while_it_can_be_and_shown_as_it_is_when_not() {
    let network = Network::new();
    let mut gateway = StandIn::start(&network).await;
    let config = Config { spool: None, ..network.config("comune", gateway.port()) };
    let mut comune = network.start_with(config).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("comune").then_some(())).await;
    let mut caritas = network.start("caritas", gateway.port()).await;
    let content: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let id = arrives(&mut gateway, &mut caritas, &content, |_| ()).await;
    let mut item = crate::json::inbox_item_to_json(&next_item(&mut comune.office).await);
    item["message"]["attachments"][0]["file"] = format!("{id}/delega.pdf").into();
    comune.stop().await;

    // The item waits; an earlier attempt left a whole JSON, and this one was killed in the middle of the attachment.
    let spool = network.path("comune/spool");
    let (partial, incoming) = (spool.join(".partial"), spool.join("incoming"));
    let (json, attachment) = (incoming.join(format!("{id}.json")), incoming.join(&id).join("delega.pdf"));
    let cut = |item: &[u8]| {
        fs::create_dir_all(partial.join(&id)).expect("made");
        fs::write(partial.join(&id).join("delega.pdf"), &content[..100_000]).expect("written");
        fs::write(partial.join(format!("{id}.item.json")), item).expect("written");
    };
    cut(&serde_json::to_vec(&item).expect("JSON"));
    let comune = network.start("comune", gateway.port()).await;
    until(async || json.exists().then_some(())).await;
    assert!(fs::read(&attachment).expect("there") == content, "the whole attachment");
    comune.stop().await;

    // Acknowledged: nobody has another one, and what there is is not thrown away.
    let item = fs::read(&json).expect("there");
    fs::remove_file(&json).expect("removed");
    fs::remove_dir_all(incoming.join(&id)).expect("removed");
    cut(&item);
    let comune = network.start("comune", gateway.port()).await;
    until(async || json.exists().then_some(())).await;
    assert_eq!(fs::read(&attachment).expect("there").len(), 100_000);
    comune.stop().await;
    caritas.stop().await;
}

#[tokio::test]
async fn the_json_of_an_earlier_attempt_is_gone_before_its_attachments_are_written_again() {
    let network = Network::new();
    let mut gateway = StandIn::start(&network).await;
    let comune = network.start("comune", gateway.port()).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("comune").then_some(())).await;
    let mut caritas = network.start("caritas", gateway.port()).await;
    let spool = network.path("comune/spool");
    let earlier = |id: &str| spool.join(format!(".partial/{id}.item.json"));
    let id = arrives(&mut gateway, &mut caritas, b"whole", |id| {
        // The attachment cannot be written: something stands in the way.
        fs::create_dir_all(spool.join(".partial").join(id).join("delega.pdf")).expect("in the way");
        fs::write(earlier(id), r#"{"item_id": "1"}"#).expect("written");
    })
    .await;
    until(async || (!earlier(&id).exists()).then_some(())).await;
    fs::remove_dir(spool.join(".partial").join(&id).join("delega.pdf")).expect("out of the way");
    until(async || spool.join(format!("incoming/{id}.json")).exists().then_some(())).await;
    assert_eq!(fs::read(spool.join("incoming").join(&id).join("delega.pdf")).expect("there"), b"whole");
    comune.stop().await;
    caritas.stop().await;
}
