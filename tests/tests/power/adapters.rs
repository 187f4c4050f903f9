//! Power cuts of adapters, and of a network as a whole.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::{Instant, sleep, timeout};
use tramite_proto::pb::backoffice::v1::Notice;
use tramite_tests::{
    clerk::Clerk,
    cuts::Promise,
    desk::{Desk, insist, passing},
    load,
    loop_disk::{self, LoopDisk},
    network::{Network, PATIENCE, START_MAX},
    process::Process,
    sample,
    upon::{self, EARLY, OPEN, Upon, segments},
};

use super::{CUTS_OF_ONE, LARGE_PART_BYTES, MORE_MAX, PART_BYTES, SECOND, SOON, say_lost};

/// Referrals of which a segment of 1 MiB holds thirty: three bytes to a letter.
const LARGE_LETTERS: usize = 7_900;
/// More items than an adapter keeps groups of its journal in memory.
const ITEMS: usize = 12;
/// A network of which some nodes are on a disk that can be cut off.
struct Machines {
    network: Network,
    disk: LoopDisk,
    on_disk: &'static [&'static str],
}

impl Machines {
    async fn start(on_disk: &'static [&'static str]) -> Result<Self> {
        let machines = Self::prepare(on_disk)?;
        for name in ["gateway", "caritas", "inps"] {
            machines.network.node(name)?.process.start().await?;
        }
        machines.network.ready().await?;
        Ok(machines)
    }

    /// Nothing runs yet.
    fn prepare(on_disk: &'static [&'static str]) -> Result<Self> {
        let disk = LoopDisk::make()?;
        let mut builder = Network::builder().institutions(&["caritas", "inps"]);
        for name in on_disk {
            builder = builder.on(name, &disk)?;
        }
        Ok(Self { network: builder.prepare()?, disk, on_disk })
    }

    /// Power goes and comes back.
    async fn cut(&self) -> Result<()> {
        self.power_goes().await?;
        self.power_comes_back().await
    }

    async fn power_goes(&self) -> Result<()> {
        self.disk.cut()?;
        for name in self.on_disk {
            self.network.node(name)?.process.kill().await?;
        }
        Ok(())
    }

    /// An adapter's store, as it is seen from outside the disk's own namespace.
    fn store(&self, name: &str) -> PathBuf {
        self.disk.seen_from_here().join(name).join("store")
    }

    async fn power_comes_back(&self) -> Result<()> {
        self.disk.mount_again()?;
        for name in self.on_disk {
            self.network.node(name)?.process.start().await?;
        }
        Ok(())
    }
}

/// Referrals with attachments and their answers, while the power goes at moments that nobody chose (`load.rs` says what must come
/// out even).
async fn a_network_survives(promise: Option<Promise>, on_disk: &'static [&'static str]) -> Result<()> {
    let Some(mut promise) = promise else { return Ok(()) };
    for cuts in promise.networks(CUTS_OF_ONE) {
        let machines = Machines::start(on_disk).await?;
        let moments: Vec<Duration> = (0..cuts).map(|_| promise.dice.within(SOON)).collect();
        let trouble = async {
            for moment in moments {
                sleep(moment).await;
                machines.cut().await?;
                machines.network.ready().await?;
            }
            Ok(())
        };
        let survived = load::survives(&machines.network, 8, trouble).await;
        survived.with_context(|| promise.failed(&machines.network))?;
    }
    promise.kept(format!("on the disk: {on_disk:?}"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adapters_survive_a_power_cut() -> Result<()> {
    a_network_survives(Promise::of(9, "both adapters at once")?, &["caritas", "inps"]).await
}

/// Large referrals, until a cut has come upon each of these at each adapter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adapters_survive_power_cuts_while_segments_change_and_contents_are_erased() -> Result<()> {
    let Some(mut promise) = Promise::of(13, "while adapters change segments and erase")? else { return Ok(()) };
    let machines = Machines::start(&["caritas", "inps"]).await?;
    let mut seen = Vec::new();
    let trouble = async {
        let changed =
            |seen: &[(&str, Upon)], name| seen.iter().any(|(of, upon)| *of == name && upon.changed_segments());
        let erasing = |seen: &[(&str, Upon)]| seen.iter().any(|(_, upon)| upon.was_erasing());
        let all = |seen: &[(&str, Upon)]| changed(seen, "caritas") && changed(seen, "inps") && erasing(seen);
        for _ in 0..MORE_MAX {
            if all(&seen) {
                break;
            }
            let before = [segments(&machines.store("caritas"))?, segments(&machines.store("inps"))?];
            sleep(SOON + promise.dice.within(SOON)).await;
            machines.power_goes().await?;
            machines.disk.mount_again()?;
            for (name, before) in ["caritas", "inps"].into_iter().zip(&before) {
                seen.push((name, Upon::found(&machines.store(name), before).await?));
            }
            machines.power_comes_back().await?;
            machines.network.ready().await?;
        }
        ensure!(all(&seen), "no cut came upon what this is about: {seen:?}");
        Ok(())
    };
    let survived = load::survives_with(&machines.network, 8, &"€".repeat(LARGE_LETTERS), trouble).await;
    survived.with_context(|| promise.failed(&machines.network))?;
    promise.kept(seen);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_while_adapters_recover_from_a_power_cut_take_nothing() -> Result<()> {
    let Some(mut promise) = Promise::of(14, "while adapters recover")? else { return Ok(()) };
    let mut early = 0;
    for cuts in promise.networks(CUTS_OF_ONE) {
        let machines = Machines::start(&["caritas", "inps"]).await?;
        let processes = [&machines.network.node("caritas")?.process, &machines.network.node("inps")?.process];
        let trouble = async {
            for _ in 0..cuts {
                sleep(promise.dice.within(SOON)).await;
                machines.power_goes().await?;
                let (begun, lines) = (Instant::now(), processes.map(|process| process.log().lines().len()));
                machines.power_comes_back().await?;
                processes[0].log().wait_for(lines[0], &[OPEN], START_MAX).await?;
                let opening = begun.elapsed();
                for _ in 0..EARLY {
                    machines.power_goes().await?;
                    let lines = processes.map(|process| process.log().lines().len());
                    machines.power_comes_back().await?;
                    sleep(promise.dice.within(opening)).await;
                    machines.power_goes().await?;
                    let open = |(process, from): (&Process, usize)| {
                        process.log().lines()[from..].iter().any(|line| line.contains(OPEN))
                    };
                    early += processes.into_iter().zip(lines).filter(|pair| !open(*pair)).count();
                }
                machines.power_comes_back().await?;
                machines.network.ready().await?;
            }
            Ok(())
        };
        let survived = load::survives(&machines.network, 8, trouble).await;
        survived.with_context(|| promise.failed(&machines.network))?;
    }
    ensure!(early > 0, "every recovery was over before the next cut");
    promise.kept(format!("{early} recoveries were cut off"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adapters_survive_power_cuts_while_their_directories_are_made_and_in_their_first_second() -> Result<()> {
    let Some(mut promise) = Promise::of(15, "an adapter's first second")? else { return Ok(()) };
    let (mut early, mut answered, mut round) = (0, 0, 0);
    while round < promise.cuts() || (round < promise.cuts() + MORE_MAX && (early == 0 || answered == 0)) {
        round += 1;
        let machines = Machines::prepare(&["caritas"])?;
        machines.network.gateway.process.start().await?;
        machines.network.adapter("inps")?.process.start().await?;
        let folder = machines.disk.seen_from_here().join("caritas");
        let process = &machines.network.adapter("caritas")?.process;
        let kept = async {
            let cuts = upon::cut_while_it_is_made(&machines.disk, process, &folder, &mut promise.dice).await?;
            early += cuts;
            let answered = first_second_of_an_adapter(&machines, round).await?;
            // One that was open before had its first second then.
            anyhow::Ok(if cuts == EARLY { answered } else { 0 })
        };
        let kept = kept.await;
        answered += kept.with_context(|| promise.failed(&machines.network))?;
    }
    ensure!(early > 0 && answered > 0, "{early} cuts while it was made, {answered} answers within the first second");
    promise.kept(format!("{early} cuts while it was made, {answered} answers within the first second"));
    Ok(())
}

/// An attachment and a referral, as soon as each is taken, and a cut right after either or a second after the store was opened. Says how
/// many were answered within that second.
async fn first_second_of_an_adapter(machines: &Machines, round: u64) -> Result<usize> {
    let (sender, recipient) = (machines.network.desk("caritas")?, machines.network.desk("inps")?);
    let process = &machines.network.adapter("caritas")?.process;
    let file = sample::bytes(usize::try_from(PART_BYTES)?, round);
    let lines = process.log().lines().len();
    process.start().await?;
    process.log().wait_for(lines, &[OPEN], START_MAX).await?;
    let (mut attached, mut sent) = (None, None);
    let work = async {
        let id = [insist(PATIENCE, || sender.attach("family.pdf", &file)).await?.attachment_id];
        attached = Some(id.clone());
        sent = Some(insist(PATIENCE, || sender.refer_with("inps", "early", "early", &id)).await?);
        anyhow::Ok(())
    };
    if let Ok(early) = timeout(SECOND, work).await {
        early?;
    }
    let answered = usize::from(attached.is_some()) + usize::from(sent.is_some());
    machines.cut().await?;
    machines.network.ready().await?;
    // What was answered is there; what was not is done now.
    let id = match attached {
        Some(id) => id,
        None => [insist(PATIENCE, || sender.attach("family.pdf", &file)).await?.attachment_id],
    };
    let again = insist(PATIENCE, || sender.refer_with("inps", "early", "early", &id)).await?;
    if let Some(sent) = sent {
        ensure!(again.repeated && again.message_id == sent.message_id, "a repeat made another referral: {again:?}");
    }
    waiting(&recipient, &again.message_id).await?;
    let content = insist(PATIENCE, || recipient.attachment(&again.message_id, 0)).await?;
    ensure!(content == file, "the attachment is another");
    Ok(answered)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_of_gateway_and_adapters_together_takes_nothing() -> Result<()> {
    a_network_survives(Promise::of(10, "everything at once")?, &["gateway", "caritas", "inps"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_adapter_answers_its_back_office_survives_a_power_cut_right_after() -> Result<()> {
    let Some(promise) = Promise::of(11, "an adapter's last answer")? else { return Ok(()) };
    let mut figures = (0, 0);
    for cuts in promise.networks(CUTS_OF_ONE) {
        let machines = Machines::start(&["caritas", "inps"]).await?;
        for round in 0..cuts {
            let kept = answers_stand(&machines, round).await.with_context(|| promise.failed(&machines.network))?;
            figures = (figures.0 + kept, figures.1 + 1);
        }
    }
    promise.kept(format!("{} messages with an attachment, {} acknowledgements", figures.0, figures.0));
    Ok(())
}

/// `PutAttachment`, `SendReferral` and `Acknowledge`, each with a cut right after its answer. Returns how many messages there were.
async fn answers_stand(machines: &Machines, round: u64) -> Result<usize> {
    let (sender, recipient) = (machines.network.desk("caritas")?, machines.network.desk("inps")?);
    let length = if round == 0 { LARGE_PART_BYTES } else { PART_BYTES };
    let file = sample::bytes(usize::try_from(length)?, round);
    let attached = insist(PATIENCE, || sender.attach("family.pdf", &file)).await?.attachment_id;
    machines.cut().await?;

    let (request, situation) = (format!("round-{round}"), format!("situation {round}"));
    let attached = [attached];
    let sent = insist(PATIENCE, || sender.refer_with("inps", &request, &situation, &attached)).await?;
    machines.cut().await?;
    let again = insist(PATIENCE, || sender.refer_with("inps", &request, &situation, &attached)).await?;
    ensure!(again.repeated && again.message_id == sent.message_id, "a repeat made another referral: {again:?}");

    let item = waiting(&recipient, &sent.message_id).await?;
    let content = insist(PATIENCE, || recipient.attachment(&sent.message_id, 0)).await?;
    ensure!(content == file, "the attachment is another");
    insist(PATIENCE, || recipient.acknowledge(std::slice::from_ref(&item))).await?;
    machines.cut().await?;

    let left = insist(PATIENCE, || recipient.waiting()).await?;
    ensure!(left.is_empty(), "shown after it was acknowledged: {left:?}");
    let news = Clerk::reads(&sender);
    // Others may come again: a clerk that goes home early has not acknowledged the last one.
    let receipt = |notice: &Notice| notice.kind == "OPENED" && notice.message_id == sent.message_id;
    news.until("the receipt", PATIENCE, |seen| seen.notices().any(receipt)).await?;
    Ok(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_whose_disk_is_gone_answers_for_nothing() -> Result<()> {
    if !loop_disk::is_here()? {
        return Ok(());
    }
    let machines = Machines::start(&["caritas", "inps"]).await?;
    let (sender, recipient) = (machines.network.desk("caritas")?, machines.network.desk("inps")?);
    let attached = [insist(PATIENCE, || sender.attach("family.pdf", b"whole")).await?.attachment_id];
    for number in 0..ITEMS {
        let request = format!("request-{number}");
        insist(PATIENCE, || sender.refer("inps", &request, "situation")).await?;
    }
    let work = Clerk::works(&recipient, |_, _| std::future::pending());
    work.until("the first item", PATIENCE, |seen| !seen.items.is_empty()).await?;
    let first = [work.seen().items[0].item_id.clone()];
    drop(work);
    // Started again, so that nothing of it is in memory.
    machines.cut().await?;
    machines.network.ready().await?;

    machines.disk.cut()?;
    let acknowledged = recipient.acknowledge(&first).await;
    let sent = sender.refer_with("inps", "request-late", "situation", &attached).await;
    for process in machines.on_disk {
        machines.network.node(process)?.process.kill().await?;
    }
    let refused = acknowledged.err().context("an acknowledgement was answered without a disk")?;
    ensure!(passing(&refused), "refused for good: {refused:?}");
    let refused = sent.err().context("a referral was answered without a disk")?;
    ensure!(passing(&refused), "refused for good: {refused:?}");

    machines.power_comes_back().await?;
    insist(PATIENCE, || sender.refer_with("inps", "request-late", "situation", &attached)).await?;
    let left = insist(PATIENCE, || recipient.waiting()).await?;
    ensure!(left.iter().any(|item| item.item_id == first[0]), "what was never acknowledged is gone");
    Ok(())
}

/// Waits for a message to arrive. Returns its item.
async fn waiting(desk: &Desk, message_id: &str) -> Result<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let items = insist(PATIENCE, || desk.waiting()).await?;
        ensure!(items.len() < 2, "more than one item: {items:?}");
        if let Some(item) = items.into_iter().next() {
            ensure!(format!("{item:?}").contains(message_id), "another item: {item:?}");
            return Ok(item.item_id);
        }
        ensure!(Instant::now() < until, "the referral never arrived");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_sync_a_power_cut_loses_what_an_adapter_answered() -> Result<()> {
    if !loop_disk::is_here()? {
        return Ok(());
    }
    let machines = Machines::start(&["caritas"]).await?;
    let (sender, process) = (machines.network.desk("caritas")?, &machines.network.node("caritas")?.process);
    for round in 0..3 {
        process.terminate(PATIENCE).await?;
        process.start_without_sync().await?;
        machines.network.ready().await?;
        let request = format!("round-{round}");
        let sent = insist(PATIENCE, || sender.refer("inps", &request, "unsynced")).await?;
        machines.cut().await?;
        let again = insist(PATIENCE, || sender.refer("inps", &request, "unsynced")).await?;
        if again.message_id != sent.message_id {
            say_lost(1, 1);
            return Ok(());
        }
    }
    bail!("no cut takes anything that was not synced: the cuts of these tests prove nothing")
}
