//! A device that is steered from afar, without a broker: what is said through the hub, what stands in the files, what runs.

#![allow(clippy::unwrap_used, reason = "a test")]

use super::super::control::Gates;
use super::super::firmware;
use super::*;
use crate::base::Clock;
use crate::device::update::Updates;
use crate::hub::Update;
use crate::model::TagName;
use std::fs;
use std::sync::Arc;

const OLD: &str = "[device]\nname = \"test\"\n[cameras]\ndiscover = false\n[[simulator]]\nname = \"demo\"\n";
const NEW: &str = "[device]\nname = \"test\"\n[cameras]\ndiscover = false\n[[simulator]]\nname = \"other\"\n";

/// Simulated time does not pass by itself while there are threads, and the one that looks for cameras always is.
async fn passing<T>(work: impl Future<Output = T>) -> T {
    let time = async {
        loop {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            tokio::time::advance(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        () = time => unreachable!("it goes on for ever"),
    }
}

struct Device {
    folder: tempfile::TempDir,
    hub: Hub,
    steward: Steward,
}

impl Device {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("vedette.toml"), OLD).unwrap();
        Self::start_in(folder)
    }

    fn start_in(folder: tempfile::TempDir) -> Self {
        let config = folder.path().join("vedette.toml");
        let data_dir = Some(folder.path().join("data"));
        let options = Options { config, data_dir, ua_port: None, log: None };
        let (clock, plan) = (Clock::real(), Plan::load(&options).unwrap());
        let hub = Hub::new(clock.clone());
        let facts = watch::channel(plan.facts(hub.now())).0;
        let running = Running::start(plan, options.clone(), hub.clone(), &clock).unwrap();
        let updates = Updates::for_test(folder.path(), "", "");
        let gates = Gates { healthy: watch::Sender::new(true), failed: Arc::default() };
        let firmware = firmware::open(&hub, folder.path().into(), updates, &gates).0;
        Self { folder, steward: Steward::new(hub.clone(), running, options, facts, firmware), hub }
    }

    async fn ask(&mut self, demand: Demand) -> Outcome {
        let (reply, answer) = oneshot::channel();
        passing(self.steward.answer(DeviceRequest { demand, reply })).await;
        answer.await.unwrap()
    }

    async fn apply(&mut self, id: &str, toml: &str) -> Outcome {
        let confirm_within = Duration::from_secs(120);
        self.ask(Demand::Apply(Apply { id: id.into(), toml: toml.into(), confirm_within, address: format!("to {id}") }))
            .await
    }

    async fn confirm(&mut self, id: &str) -> Outcome {
        self.ask(Demand::Confirm { id: id.into(), heard: Instant::now() }).await
    }

    /// The next report, which is about this id.
    async fn report(&self, id: &str) -> News {
        let report = tokio::time::timeout(Duration::from_secs(1), self.hub.next_report()).await.unwrap();
        assert_eq!(report.address, format!("to {id}"));
        report.arrived.into_iter().for_each(|arrived| arrived.send(()).unwrap());
        report.news
    }

    async fn on_trial(&self, id: &str) {
        let News::Progress(text) = self.report(id).await else { panic!("progress") };
        assert!(text.starts_with("applied; confirm until 2"), "{text}");
    }

    async fn wait(&mut self) {
        passing(self.steward.due()).await;
        passing(self.steward.do_due()).await;
    }

    fn text(&self) -> String {
        fs::read_to_string(self.folder.path().join("vedette.toml")).unwrap()
    }

    fn files(&self) -> usize {
        fs::read_dir(self.folder.path()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file()).count()
    }

    fn runs(&self, source: &str) -> bool {
        self.hub.find(&TagName::new(&format!("{source}/counter")).unwrap()).is_some()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_confirmed_stays() {
    let mut device = Device::start();
    device.apply("1", NEW).await.unwrap();
    device.on_trial("1").await;
    assert!(device.runs("other") && !device.runs("demo"));
    assert_eq!((device.text().as_str(), device.files()), (NEW, 3));
    assert!(device.steward.facts.borrow().pending_until.is_some());
    assert!(device.confirm("2").await.unwrap_err().contains("its id is 1"));
    assert_eq!(device.confirm("1").await, Ok("confirmed".into()));
    assert_eq!(
        device.report("1").await,
        News::Done("confirmed: [[simulator]] demo removed, [[simulator]] other added".into())
    );
    passing(async {
        while device.files() > 1 {
            tokio::task::yield_now().await
        }
    })
    .await;
    assert_eq!(device.text(), NEW);
    assert_eq!(device.confirm("1").await, Ok("it is confirmed already".into()));
    let facts = device.steward.facts.borrow().clone();
    assert_eq!((facts.hash, facts.pending_until), (hash(NEW), None));
    // The request comes once more.
    device.apply("1", NEW).await.unwrap();
    assert!(matches!(device.report("1").await, News::Done(_)));
    device.steward.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_confirmed_just_before_a_crash_is_told_after_it() {
    let mut device = Device::start();
    device.apply("1", NEW).await.unwrap();
    device.on_trial("1").await;
    device.confirm("1").await.unwrap();
    // Taken, and lost with the connection: it comes again.
    for _ in 0..2 {
        let lost = passing(device.hub.next_report()).await;
        assert_eq!(lost.address, "to 1");
    }
    assert_eq!(device.files(), 2);
    let Device { folder, steward, .. } = device;
    steward.stop().await;

    let mut device = Device::start_in(folder);
    assert_eq!(device.confirm("1").await, Ok("it is confirmed already".into()));
    assert_eq!(device.report("1").await, News::Done("confirmed before this start".into()));
    passing(async {
        while device.files() > 1 {
            tokio::task::yield_now().await
        }
    })
    .await;
    assert!(device.text() == NEW && device.runs("other"));
    device.steward.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_confirms_is_rolled_back_and_a_confirmation_from_before_does_not_count() {
    let mut device = Device::start();
    let before = Instant::now();
    device.apply("1", NEW).await.unwrap();
    device.on_trial("1").await;
    let early = device.ask(Demand::Confirm { id: "1".into(), heard: before }).await;
    assert!(early.unwrap_err().contains("proves nothing"));
    fs::write(device.folder.path().join("vedette.toml"), "# mine").unwrap();
    assert!(device.confirm("1").await.unwrap_err().contains("not the configuration on trial any more"));
    let began = Instant::now();
    device.wait().await;
    assert!(began.elapsed() >= Duration::from_secs(120));
    assert_eq!(device.report("1").await, News::Failed("not confirmed; rolled back".into()));
    assert!(device.runs("demo") && !device.runs("other"));
    assert_eq!((device.text().as_str(), device.files()), (OLD, 2), "and what somebody else wrote");
    assert!(device.confirm("1").await.unwrap_err().contains("the configuration before it runs"));
    device.steward.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_refused_with_its_lines_and_touches_nothing() {
    let mut device = Device::start();
    let wrong = device.apply("1", "[device]\nname = \"test\"\n[mqtt]\nbrocker = 1\n").await.unwrap_err();
    assert!(wrong.contains("vedette.toml:4: [mqtt]: unknown key `brocker`"), "{wrong}");
    let hidden = device.apply("2", "[device]\nname = \"<hidden>\"\n").await.unwrap_err();
    assert!(hidden.contains("vedette.toml:2: [device]: it was hidden"), "{hidden}");
    // What only shows when it is put to use is undone at once.
    // A link-local address means nothing without its interface.
    let other = format!("{OLD}[ua_server]\nlisten = \"[fe80::1]:4840\"\n");
    device.apply("3", &other).await.unwrap();
    let News::Failed(why) = device.report("3").await else { panic!("failed") };
    assert!(why.contains("vedette.toml:8: [ua_server] listen"), "{why}");
    assert_eq!((device.text().as_str(), device.files()), (OLD, 1));
    assert!(device.runs("demo") && device.steward.trial.is_none());

    device.apply("4", NEW).await.unwrap();
    device.on_trial("4").await;
    assert!(device.apply("5", OLD).await.unwrap_err().contains("another configuration is on trial until"));
    device.apply("4", NEW).await.unwrap();
    device.on_trial("4").await;
    device.confirm("4").await.unwrap();
    fs::write(device.folder.path().join("vedette.toml"), "# not done yet").unwrap();
    assert!(device.apply("6", OLD).await.unwrap_err().contains("somebody is editing it"));
    device.steward.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_stands_at_the_device_has_the_last_word() {
    let mut device = Device::start();
    device.apply("1", NEW).await.unwrap();
    device.on_trial("1").await;
    assert!(device.ask(Demand::Reload).await.unwrap().contains("nothing"));
    assert!(device.steward.trial.is_some(), "the same text is no change");
    let own = OLD.replace("demo", "mine");
    fs::write(device.folder.path().join("vedette.toml"), &own).unwrap();
    device.ask(Demand::Reload).await.unwrap();
    assert_eq!(device.report("1").await, News::Failed("replaced by a change at the device itself".into()));
    assert_eq!((device.text(), device.files(), device.runs("mine")), (own, 1, true));
    device.steward.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_way_back_that_is_blocked_is_tried_until_it_works() {
    let mut device = Device::start();
    device.apply("1", NEW).await.unwrap();
    device.on_trial("1").await;
    let before = device.folder.path().join("vedette.toml.before");
    let aside = device.folder.path().join("aside");
    fs::rename(&before, &aside).unwrap();
    device.wait().await;
    assert!(device.runs("other") && device.steward.trial.is_some());
    fs::rename(&aside, &before).unwrap();
    device.wait().await;
    assert!(device.runs("demo") && device.steward.trial.is_none());
    device.steward.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_led_goes_out_and_the_log_comes_back_by_themselves() {
    let mut device = Device::start();
    let leds = device.folder.path().join("leds");
    fs::create_dir_all(leds.join("ACT")).unwrap();
    fs::write(leds.join("ACT/trigger"), "none [mmc0] timer").unwrap();
    fs::write(leds.join("ACT/brightness"), "0").unwrap();
    device.steward.leds = leds.clone();
    let lasts = Duration::from_secs(30);
    assert_eq!(device.ask(Demand::Identify { lasts }).await, Ok("the LED ACT blinks for 30 s".into()));
    let log = Demand::Log { filter: "debug".into(), lasts: Some(lasts * 2) };
    assert!(device.ask(log).await.unwrap().contains("for 60 s"));
    // Asked again: it goes on for longer.
    tokio::time::advance(lasts / 2).await;
    device.ask(Demand::Identify { lasts }).await.unwrap();
    let trigger = || fs::read_to_string(leds.join("ACT/trigger")).unwrap();
    assert_eq!(trigger(), "timer");
    let began = Instant::now();
    device.wait().await;
    assert_eq!((trigger().as_str(), began.elapsed() >= lasts), ("mmc0", true));
    assert!(device.steward.log_until.is_some());
    device.wait().await;
    assert!(device.steward.log_until.is_none());
    assert!(device.ask(Demand::Log { filter: "a=b=c".into(), lasts: None }).await.is_err());
    let none = String::new;
    let update = Update { id: none(), url: none(), sha256: none(), version: "2".into(), address: none() };
    assert!(device.ask(Demand::Update(update)).await.unwrap_err().contains("no update slots"));
    assert_eq!(device.ask(Demand::Configuration).await.as_deref(), Ok(OLD));
    device.steward.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_failed_meanwhile_is_not_done_later() {
    let mut device = Device::start();
    let (reply, answer) = oneshot::channel();
    drop(answer);
    let confirm_within = Duration::from_secs(120);
    let apply = Apply { id: "1".into(), toml: NEW.into(), confirm_within, address: "to 1".into() };
    passing(device.steward.answer(DeviceRequest { demand: Demand::Apply(apply), reply })).await;
    assert_eq!((device.text().as_str(), device.files()), (OLD, 1));
    assert!(device.runs("demo") && device.steward.trial.is_none());
}
