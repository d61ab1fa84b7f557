//! A bus of our own, and somebody on it who says that he is RAUC.

#![allow(clippy::unwrap_used, reason = "a test")]

use super::*;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// dbus-daemon, for as long as this lives.
pub(crate) struct Bus {
    daemon: Child,
    _folder: tempfile::TempDir,
    pub(crate) address: String,
}

impl Bus {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("bus.conf");
        let text = format!(
            "<busconfig><type>session</type><listen>unix:dir={}</listen><auth>EXTERNAL</auth><policy context='default'>\
             <allow send_destination='*' eavesdrop='true'/><allow eavesdrop='true'/><allow own='*'/></policy></busconfig>",
            folder.path().display()
        );
        std::fs::write(&config, text).unwrap();
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address=1"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon is installed (Debian: dbus-daemon)");
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { daemon, _folder: folder, address: address.trim().to_owned() }
    }

    async fn connect(&self) -> Connection {
        zbus::connection::Builder::address(self.address.as_str()).build().await.unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// How it ends.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum End {
    Good,
    Bad,
    /// It refuses at once.
    Refused,
    /// Its service dies and comes back, and knows nothing.
    Forgets,
    /// It never ends by itself.
    Dies,
    /// Neither the old nor the new way of asking for a bundle's version is there.
    Silent,
    /// Only the new one.
    New,
    /// The bundle is for another board.
    Other,
    /// It hangs when it looks at a bundle; when it is to install it; while it installs it.
    HangsAtInfo,
    HangsAtInstall,
    Hangs,
    /// It is deaf while it installs, and does it all the same.
    Deaf,
}

#[derive(Default)]
struct Now {
    operation: String,
    last_error: String,
    progress: (i32, String, i32),
    installed: Vec<String>,
}

/// Plays RAUC.
pub(crate) struct Rauc {
    now: Arc<Mutex<Now>>,
    end: End,
}

#[zbus::interface(name = "de.pengutronix.rauc.Installer")]
impl Rauc {
    async fn install_bundle(
        &self,
        source: String,
        _args: HashMap<String, zbus::OwnedVariant>,
        #[zbus(connection)] bus: &Connection,
    ) -> zbus::fdo::Result<()> {
        if self.end == End::Refused {
            return Err(refusal());
        }
        if self.end == End::HangsAtInstall {
            std::future::pending().await
        }
        let (now, end, bus) = (self.now.clone(), self.end, bus.clone());
        {
            let mut now = now.lock().unwrap();
            now.operation = "installing".into();
            now.progress = (40, "Copying image to rootfs.1".into(), 3);
            now.installed.push(source);
        }
        if matches!(end, End::Dies | End::Hangs) {
            return Ok(());
        }
        #[allow(clippy::disallowed_methods, reason = "a test")]
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            {
                let mut now = now.lock().unwrap();
                now.operation = "idle".into();
                now.progress = (100, "Installing done.".into(), 1);
                if end == End::Bad {
                    now.last_error = "Failed updating slot rootfs.1: no space".into();
                }
            }
            if end != End::Forgets {
                let emitter = zbus::object_server::SignalEmitter::new(&bus, "/").unwrap();
                let _ = Self::completed(&emitter, i32::from(end == End::Bad)).await;
            }
        });
        Ok(())
    }

    async fn info(&self, _bundle: String) -> zbus::fdo::Result<(String, String)> {
        match self.end {
            End::HangsAtInfo => std::future::pending().await,
            End::Silent | End::New => Err(zbus::fdo::Error::UnknownMethod("no Info".into())),
            End::Refused => Err(refusal()),
            End::Other => Ok(("vedette-rpi4".into(), "2.0".into())),
            _ => Ok(("vedette-qemu".into(), "2.0".into())),
        }
    }

    fn inspect_bundle(
        &self,
        _bundle: String,
        _args: HashMap<String, zbus::OwnedVariant>,
    ) -> zbus::fdo::Result<HashMap<String, zbus::OwnedVariant>> {
        if self.end != End::New {
            return Err(zbus::fdo::Error::UnknownMethod("no InspectBundle".into()));
        }
        let word = |text: &str| zbus::OwnedVariant::from(zbus::Str::from(text.to_owned()));
        let update = HashMap::from([("compatible", word("vedette-qemu")), ("version", word("2.0"))]);
        let update: HashMap<String, zbus::OwnedVariant> =
            update.into_iter().map(|(key, word)| (key.to_owned(), word)).collect();
        Ok(HashMap::from([("update".to_owned(), update.into())]))
    }

    #[zbus(property)]
    fn compatible(&self) -> String {
        "vedette-qemu".into()
    }

    #[zbus(property)]
    async fn operation(&self) -> String {
        if matches!(self.end, End::Hangs | End::Deaf) && !self.now.lock().unwrap().installed.is_empty() {
            return std::future::pending().await;
        }
        let operation = self.now.lock().unwrap().operation.clone();
        if operation.is_empty() { "idle".into() } else { operation }
    }

    #[zbus(property)]
    async fn last_error(&self) -> String {
        if self.end == End::Hangs {
            return std::future::pending().await;
        }
        self.now.lock().unwrap().last_error.clone()
    }

    #[zbus(property)]
    fn progress(&self) -> (i32, String, i32) {
        self.now.lock().unwrap().progress.clone()
    }

    #[zbus(signal)]
    async fn completed(emitter: &zbus::object_server::SignalEmitter<'_>, result: i32) -> zbus::Result<()>;
}

fn refusal() -> zbus::fdo::Error {
    zbus::fdo::Error::Failed("signature verification failed: self-signed certificate".into())
}

/// What was installed, and what must be held for RAUC to be there.
pub(crate) async fn play(bus: &Bus, end: End) -> (Connection, impl Fn() -> Vec<String>) {
    let now = Arc::new(Mutex::new(Now::default()));
    let rauc = Rauc { now: now.clone(), end };
    let builder = zbus::connection::Builder::address(bus.address.as_str());
    let connection = builder.name("de.pengutronix.rauc").serve_at("/", rauc).build().await.unwrap();
    (connection, move || now.lock().unwrap().installed.clone())
}

async fn try_to(end: End) -> (Result<(), RaucError>, Vec<(i32, String)>, Vec<String>) {
    let bus = Bus::start();
    let (_rauc, installed) = play(&bus, end).await;
    let mut told = Vec::new();
    let mut tell = |percent: i32, what: &str| told.push((percent, what.to_owned()));
    let outcome = install(&bus.connect().await, Path::new("/data/b.raucb"), &mut tell).await;
    (outcome, told, installed())
}

#[tokio::test]
async fn a_good_bundle_is_installed_and_it_is_said_how_far_it_is() {
    let (outcome, told, installed) = try_to(End::Good).await;
    outcome.unwrap();
    assert!(told.contains(&(40, "Copying image to rootfs.1".into())), "{told:?}");
    assert_eq!(installed, ["/data/b.raucb"]);
}

#[tokio::test]
async fn what_rauc_says_against_it_is_said() {
    let (outcome, ..) = try_to(End::Bad).await;
    assert_eq!(outcome.unwrap_err().to_string(), "RAUC could not install it: Failed updating slot rootfs.1: no space");
    let (outcome, ..) = try_to(End::Refused).await;
    let said = outcome.unwrap_err().to_string();
    assert_eq!(said, "RAUC refuses this bundle: signature verification failed: self-signed certificate");
    let (outcome, ..) = try_to(End::Forgets).await;
    assert_eq!(outcome.unwrap_err().to_string(), "RAUC could not install it: it ended without saying why");
}

#[tokio::test]
async fn a_bundle_says_what_it_is_to_old_and_new_versions_of_rauc() {
    for end in [End::Good, End::New] {
        let bus = Bus::start();
        let _rauc = play(&bus, end).await;
        let about = inspect(&bus.connect().await, Path::new("/data/b.raucb")).await.unwrap().unwrap();
        assert_eq!((about.compatible.as_str(), about.version.as_str()), ("vedette-qemu", "2.0"));
        assert!(About::check(Some(about), Some("2.0")).is_ok());
    }
    let bus = Bus::start();
    let _rauc = play(&bus, End::Silent).await;
    assert_eq!(inspect(&bus.connect().await, Path::new("/data/b.raucb")).await.unwrap(), None);
    assert!(About::check(None, None).is_ok() && About::check(None, Some("2.0")).is_err());
}

#[test]
fn the_reason_is_behind_its_log() {
    let said = "rauc-Message: 07:06:48.156: Reading bundle: x\nrauc-Message: 07: Verifying bundle signature... \n\
                signature verification failed: Verify error: unable to get local issuer certificate\n\n";
    let wanted = "signature verification failed: Verify error: unable to get local issuer certificate";
    assert_eq!(last_words(said).as_deref(), Some(wanted));
    assert_eq!(last_words("rauc-Message: x\n"), None);
}

#[tokio::test]
async fn a_bus_without_rauc_is_said() {
    let bus = Bus::start();
    let outcome = install(&bus.connect().await, Path::new("/data/b.raucb"), &mut |_, _| {}).await;
    let said = outcome.unwrap_err().to_string();
    assert!(said.starts_with("RAUC cannot be reached"), "{said}");
}

/// A RAUC that hangs kept everybody from updating for as long as it hung.
#[tokio::test]
async fn one_that_hangs_is_not_waited_for() {
    for end in [End::HangsAtInfo, End::HangsAtInstall, End::Hangs] {
        let bus = Bus::start();
        let _rauc = play(&bus, end).await;
        let bus = connect(Some(&bus.address), Duration::from_millis(300)).await.unwrap();
        let bundle = Path::new("/data/b.raucb");
        let work = async {
            inspect(&bus, bundle).await?;
            install(&bus, bundle, &mut |_, _| {}).await
        };
        let outcome = timeout(Duration::from_secs(30), work).await.expect("it is not waited for");
        let said = outcome.unwrap_err().to_string();
        assert!(said.starts_with("RAUC runs and does not answer, so it hangs: restart it"), "{said}");
    }
}

#[tokio::test]
async fn its_last_word_is_heard_while_another_answer_is_waited_for() {
    let bus = Bus::start();
    let _rauc = play(&bus, End::Deaf).await;
    let bus = connect(Some(&bus.address), Duration::from_secs(3600)).await.unwrap();
    let work =
        timeout(Duration::from_secs(30), async { install(&bus, Path::new("/data/b.raucb"), &mut |_, _| {}).await });
    work.await.expect("it said that it was done").unwrap();
}
