//! A card that is set up, with the power going at each step.

#![allow(clippy::unwrap_used, reason = "a test")]

use super::*;
use crate::users::UsersFile;
use std::os::unix::fs::PermissionsExt as _;

const GOOD: &str = r#"[device]
log = "info"

[mqtt]
broker = "mqtt://broker"
username = "press-4"

[provision]
host_name = "press-4"
ntp = ["10.0.0.1"]
ssh_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJhc2U2NGNoYXJhY3RlcnNhcmV0aGlydHl0d29ieXRl me@pc"]
broker_password = "br0ker-s3cret"

[[provision.network]]
interface = "eth0"
address = "10.0.0.5/24"
gateway = "10.0.0.1"

[[provision.user]]
name = "anna"
role = "admin"
password = "anna-s3cret-word"

[[provision.file]]
name = "ca.pem"
content = "a certificate"
"#;

/// A certificate.
const ROOT: &[u8] = include_bytes!("../../../tests/fixtures/pki/root.der");

struct Card {
    folder: tempfile::TempDir,
    places: Places,
}

impl Card {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let places =
            Places { boot: at("boot"), data: at("data"), run: at("run"), host_name: at("hostname"), root: at("root") };
        fs::create_dir_all(&places.boot).unwrap();
        fs::create_dir_all(at("root/etc")).unwrap();
        fs::write(at("root/etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        Self { folder, places }
    }

    fn put(&self, text: &str) {
        fs::write(self.places.boot.join(FILE), text).unwrap();
    }

    /// A start. Whoever checks a configuration does not like the word "wrong".
    fn start(&self) -> Vec<String> {
        let check = |path: &Path, text: &str| match text.lines().position(|line| line.contains("wrong")) {
            Some(at) => Err(vec![format!("{}:{}: wrong", path.display(), at + 1)]),
            None => Ok(()),
        };
        run(&self.places, &check)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.folder.path().join(name)).unwrap().permissions().mode() & 0o777
    }

    fn boot(&self) -> Vec<String> {
        let names = fs::read_dir(&self.places.boot).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Everything that a good file leads to, whatever was before.
    fn is_provisioned(&self) {
        assert!(self.boot().is_empty(), "{:?}", self.boot());
        assert_eq!(self.read("hostname"), "press-4");
        let config = self.read("data/vedette/vedette.toml");
        let password_file = self.places.data.join("vedette/secrets/broker-password");
        let table = table(&config);
        assert_eq!(table["device"]["name"].as_str(), Some("press-4"));
        assert_eq!(table["device"]["data_dir"].as_str(), self.places.data.join("vedette").to_str());
        assert_eq!(table["mqtt"]["password_file"].as_str(), password_file.to_str());
        assert!(!config.contains("provision") && !config.contains("s3cret"), "{config}");
        assert_eq!(self.read("data/vedette/secrets/broker-password"), "br0ker-s3cret\n");
        assert_eq!(self.read("data/vedette/secrets/ca.pem"), "a certificate");
        for name in ["data/vedette/vedette.toml", "data/vedette/secrets/broker-password", "data/vedette/users.toml"] {
            assert_eq!(self.mode(name), 0o600, "{name}");
        }
        let users = UsersFile::new(&self.places.data.join("vedette")).load().unwrap();
        assert_eq!((users.len(), users[0].name.as_str()), (1, "anna"));
        assert!(users[0].password.as_ref().unwrap().starts_with("$argon2id$"));
        assert!(self.read("data/ssh/authorized_keys").starts_with("ssh-ed25519 "));
        assert_eq!(self.mode("data/ssh/authorized_keys"), 0o600);
        assert!(self.read("run/systemd/network/10-vedette-00.network").contains("Address=10.0.0.5/24"));
        assert_eq!(self.read("run/vedette/ntp.d/provisioned.sources"), "server 10.0.0.1 iburst\n");
        // There is no [ua_server], but a key for SSH.
        let ports = self.read("run/vedette/nftables.d/ports.nft");
        assert!(ports.matches("add").count() == 1 && ports.contains("tcp_ports { 22 }"), "{ports}");
        assert!(self.read("data/vedette/provisioning").starts_with("taken, SHA-256 "));
        assert!(!self.places.data.join("provision/taken").exists());
    }
}

#[test]
fn a_first_start_without_a_file_has_safe_defaults_and_keeps_its_name() {
    let card = Card::new();
    assert!(card.start().is_empty());
    assert_eq!(card.read("hostname"), "vedette-abcdef");
    let config = card.read("data/vedette/vedette.toml");
    assert_eq!(table(&config)["device"]["name"].as_str(), Some("vedette-abcdef"));
    assert!(card.read("run/vedette/nftables.d/ports.nft").contains("{ 4840 }"));
    assert!(!card.places.data.join("vedette/users.toml").exists(), "no default password");
    assert!(!card.places.data.join("ssh").exists() && card.boot().is_empty());
    assert!(fs::read_dir(card.places.run.join("systemd/network")).unwrap().next().is_none(), "the image's DHCP");
    // What it was made of is not there any more.
    fs::remove_file(card.places.root.join("etc/machine-id")).unwrap();
    card.start();
    assert_eq!(card.read("hostname"), "vedette-abcdef");
    assert_eq!(card.read("data/vedette/vedette.toml"), config);
}

#[test]
fn a_good_file_is_taken_erased_and_in_force_at_each_start() {
    let card = Card::new();
    card.put(GOOD);
    assert_eq!(card.start(), ["the file is taken"]);
    card.is_provisioned();
    fs::remove_dir_all(&card.places.run).unwrap();
    fs::remove_file(&card.places.host_name).unwrap();
    assert!(card.start().is_empty());
    card.is_provisioned();
    // Only what is in a file changes.
    card.put("[provision]\nssh_keys = []\nnetwork = []\n[[provision.user]]\nname = \"anna\"\nrole = \"viewer\"\npassword = \"another-word\"\n");
    card.start();
    assert!(!card.places.data.join("ssh/authorized_keys").exists());
    assert!(!card.places.run.join("systemd/network/10-vedette-00.network").exists());
    assert_eq!(card.read("hostname"), "press-4");
    assert!(card.read("data/vedette/users.toml").contains("viewer"));
    assert_eq!(table(&card.read("data/vedette/vedette.toml"))["device"]["log"].as_str(), Some("info"));
}

#[test]
fn a_bad_file_is_refused_as_a_whole_and_said_where_its_writer_looks() {
    let card = Card::new();
    let bad = GOOD.replace("log = \"info\"", "log = \"wrong\"");
    card.put(&bad);
    let said = card.start();
    assert_eq!(said[0], "vedette.toml:2: wrong");
    assert!(said[1].contains("refused as a whole"), "{said:?}");
    assert!(card.read("boot/vedette-errors.txt").contains("\r\nvedette.toml:2: wrong\r\n"));
    assert_eq!(card.read("boot/vedette.toml"), bad, "it is there to be corrected");
    assert_eq!(card.read("hostname"), "vedette-abcdef");
    assert!(!card.places.data.join("vedette/users.toml").exists());
    assert!(outcome(&card.places.data.join("vedette")).starts_with("refused: vedette.toml:2: wrong"));
    card.put(&GOOD.replace("10.0.0.5/24", "10.0.0.5"));
    assert!(card.start()[0].starts_with("vedette.toml:14: [provision] network: address"), "{:?}", card.start());
    card.put(GOOD);
    card.start();
    card.is_provisioned();
    // What was good goes on beside a bad one, and the complaint ends with the file.
    card.put("[provision]\nhost = 1\n");
    assert!(card.start()[0].starts_with("vedette.toml:2: there is no such key: expected one of"));
    assert_eq!(card.read("hostname"), "press-4");
    fs::remove_file(card.places.boot.join(FILE)).unwrap();
    card.start();
    assert!(card.boot().is_empty());
    assert!(!outcome(&card.places.data.join("vedette")).starts_with(REFUSED));
}

#[test]
fn certificates_beside_the_file_are_trusted() {
    let card = Card::new();
    fs::write(card.places.boot.join("scada.DER"), ROOT).unwrap();
    fs::write(card.places.boot.join("note.der"), b"hello").unwrap();
    fs::write(card.places.boot.join("cut.der"), &ROOT[..100]).unwrap();
    fs::write(card.places.boot.join("._scada.der"), b"of a Mac").unwrap();
    let said = card.start();
    assert!(said[0].starts_with("cut.der: it is no whole certificate (100 of "), "{said:?}");
    assert!(said[1].starts_with("note.der: it is no certificate in DER; export"), "{said:?}");
    assert_eq!(said[2..], ["scada.DER is trusted"]);
    let trusted: Vec<_> = fs::read_dir(card.places.data.join("vedette/pki/trusted")).unwrap().collect();
    assert_eq!(trusted.len(), 1);
    assert!(card.read("boot/vedette-errors.txt").contains("note.der: it is no certificate"));
    let mut left = card.boot();
    left.sort();
    assert_eq!(
        left,
        ["._scada.der", "cut.der", "note.der", "vedette-errors.txt"],
        "what is not trusted stays to be seen"
    );
}

#[test]
fn a_broker_password_needs_a_broker_and_one_place() {
    let card = Card::new();
    for (text, what) in [
        ("[provision]\nbroker_password = \"a\"\n", "no [mqtt]"),
        ("[device]\n[provision]\nbroker_password = \"a\"\n", "no [mqtt]"),
        ("[mqtt]\npassword_file = \"/x\"\n[provision]\nbroker_password = \"a\"\n", "leave one of the two out"),
    ] {
        card.put(text);
        assert!(card.start()[0].contains(what), "{text}");
    }
}

/// What is on the disk after each step is what a cut there leaves: the steps before it are whole, and the file is still there.
#[test]
fn after_a_cut_at_any_step_the_next_start_ends_where_it_would_have() {
    let whole = Card::new();
    whole.put(GOOD);
    whole.start();
    let steps = [
        "vedette/secrets/ca.pem",
        "vedette/secrets/broker-password",
        "vedette/users.toml",
        "ssh/authorized_keys",
        "provision/system.json",
        "vedette/vedette.toml",
    ];
    for cut in 0..=steps.len() {
        let card = Card::new();
        card.put(GOOD);
        for step in &steps[..cut] {
            let to = card.places.data.join(step);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(whole.places.data.join(step), to).unwrap();
        }
        // Half of the next one, beside its place.
        if let Some(next) = steps.get(cut).map(Path::new) {
            let beside = card.places.data.join(next.parent().unwrap());
            fs::create_dir_all(&beside).unwrap();
            fs::write(beside.join(format!(".{}.new", next.file_name().unwrap().to_str().unwrap())), "half").unwrap();
        }
        card.start();
        card.is_provisioned();
    }
}

#[test]
fn a_cut_while_it_is_erased_takes_nothing_twice() {
    let card = Card::new();
    card.put(GOOD);
    card.start();
    // Cut after it was noted that the file is taken: meanwhile nothing else has changed it.
    card.put(GOOD);
    fs::write(card.places.data.join("provision/taken"), hash(GOOD.as_bytes())).unwrap();
    fs::write(card.places.data.join("vedette/vedette.toml"), "[device]\nname = \"mine\"\n").unwrap();
    card.start();
    assert!(card.boot().is_empty() && !card.places.data.join("provision/taken").exists());
    assert_eq!(card.read("data/vedette/vedette.toml"), "[device]\nname = \"mine\"\n");
    // Cut while it was overwritten.
    let mut half = GOOD.as_bytes().to_vec();
    half[..256].fill(0);
    fs::write(card.places.boot.join(FILE), &half).unwrap();
    fs::write(card.places.data.join("provision/taken"), hash(GOOD.as_bytes())).unwrap();
    assert!(card.start().is_empty());
    assert!(card.boot().is_empty());
    assert_eq!(card.read("data/vedette/vedette.toml"), "[device]\nname = \"mine\"\n");
    // Cut after its name had gone, and what became of the file before it was a fault.
    for half in [None, Some(&b"\0\0"[..]), Some(b""), Some(GOOD.as_bytes())] {
        if let Some(half) = half {
            fs::write(card.places.boot.join(FILE), half).unwrap();
        }
        fs::write(card.places.data.join("provision/taken"), hash(GOOD.as_bytes())).unwrap();
        fs::write(card.places.data.join("vedette/provisioning"), "refused: because").unwrap();
        assert!(card.start().is_empty());
        assert_eq!(card.read("data/vedette/provisioning"), outcome_of(&hash(GOOD.as_bytes())), "{half:?}");
        assert!(card.boot().is_empty() && !card.places.data.join("provision/taken").exists());
    }
}

#[test]
fn an_empty_file_is_said_and_stays() {
    let card = Card::new();
    for text in ["", "\r\n  "] {
        card.put(text);
        assert!(card.start()[0].starts_with("vedette.toml: it is empty; write it again"), "{:?}", card.start());
        assert!(card.places.boot.join(FILE).exists());
        assert!(card.read("boot/vedette-errors.txt").contains("eject the card"));
    }
}

/// As app/commit.rs leaves a configuration from afar that nobody has confirmed when the power goes.
#[test]
fn whoever_stands_at_the_device_ends_a_trial() {
    let trial = |text: &str| {
        let card = Card::new();
        card.start();
        let before = card.read("data/vedette/vedette.toml");
        let service = card.places.data.join("vedette");
        fs::write(service.join("vedette.toml.before"), &before).unwrap();
        fs::write(service.join("vedette.toml.trial"), "{}").unwrap();
        fs::write(service.join("vedette.toml"), before.replace("[system]", "[simulator]")).unwrap();
        card.put(text);
        let said = card.start();
        (card, said, before)
    };
    let left = |card: &Card| {
        ["before", "trial"].map(|name| card.places.data.join(format!("vedette/vedette.toml.{name}")).exists())
    };
    let (card, said, _) = trial(GOOD);
    assert!(said[0].contains("was on trial; that is over"), "{said:?}");
    card.is_provisioned();
    assert_eq!(left(&card), [false, false]);
    // The name is changed of the one that comes back.
    let (card, _, before) = trial("[provision]\nhost_name = \"press-4\"\n");
    assert_eq!(card.read("data/vedette/vedette.toml"), before.replace("vedette-abcdef", "press-4"));
    assert_eq!(left(&card), [false, false]);
    // What says nothing of the configuration leaves the trial to the service.
    let (card, ..) = trial("[provision]\nntp = []\n");
    assert_eq!(left(&card), [true, true]);
    assert!(card.read("data/vedette/vedette.toml").contains("[simulator]"));
}

#[test]
fn what_cannot_be_written_leaves_all_as_it_was() {
    let old = "[mqtt]\nusername = \"old\"\n[provision]\nhost_name = \"press-3\"\nntp = [\"10.0.0.9\"]\nbroker_password = \"old\"\n";
    let kept = |card: &Card| {
        let names =
            ["vedette/secrets/broker-password", "vedette/vedette.toml", "provision/system.json", "ssh/authorized_keys"];
        names.map(|name| card.read(&format!("data/{name}")))
    };
    // A folder beside the place of the last one, and users that cannot be read.
    for (block, content) in [("vedette/.vedette.toml.new", None), ("vedette/users.toml", Some("broken"))] {
        let card = Card::new();
        card.put(old);
        card.start();
        let before = kept(&card);
        assert!(before[0] == "old\n" && before[3].is_empty());
        let path = card.places.data.join(block);
        match content {
            None => fs::create_dir(&path).unwrap(),
            Some(content) => fs::write(&path, content).unwrap(),
        }
        card.put(GOOD);
        let said = card.start();
        assert!(said.iter().any(|said| said.contains("refused as a whole")), "{said:?}");
        assert_eq!(kept(&card), before);
        assert_eq!(card.read("hostname"), "press-3");
        let service = fs::read_dir(card.places.data.join("vedette/secrets")).unwrap();
        assert_eq!(service.count(), 1, "nothing beside it");
        assert_eq!(card.read("boot/vedette.toml"), GOOD);
        content.map_or_else(|| fs::remove_dir(&path), |_| fs::remove_file(&path)).unwrap();
        card.start();
        card.is_provisioned();
    }
}

#[test]
fn what_fails_in_between_is_said_as_what_it_is() {
    let card = Card::new();
    card.start();
    // Nothing can be put into this place.
    let config = card.places.data.join("vedette/vedette.toml");
    fs::remove_file(&config).unwrap();
    fs::create_dir(&config).unwrap();
    card.put(GOOD);
    let said = card.start();
    assert!(said[0].starts_with("taken in part, the rest is tried at the next start: the configuration"), "{said:?}");
    assert!(card.read("data/vedette/provisioning").starts_with("taken in part"));
    assert_eq!((card.read("hostname"), card.read("boot/vedette.toml")), ("press-4".into(), GOOD.into()));
    fs::remove_dir(&config).unwrap();
    card.start();
    card.is_provisioned();
}

#[test]
fn what_the_system_was_told_is_not_lost_by_what_cannot_be_read() {
    let card = Card::new();
    card.put(GOOD);
    card.start();
    let path = card.places.data.join("provision/system.json");
    // Another release has a key more.
    let newer = card.read("data/provision/system.json").replace("\"interface\"", "\"vlan\": 5, \"interface\"");
    let newer = newer.replacen('{', "{\"more\": [1],", 1);
    fs::write(&path, &newer).unwrap();
    assert!(card.start().is_empty());
    card.is_provisioned();
    assert_eq!(card.read("data/provision/system.json"), newer);
    fs::write(&path, "{\"own_name\": \"vede").unwrap();
    let said = card.start();
    assert!(
        said[0].contains("system.json cannot be read") && said[0].contains("until a file tells them again"),
        "{said:?}"
    );
    assert_eq!(card.read("data/provision/system.json.bad"), "{\"own_name\": \"vede");
    assert_eq!(card.read("hostname"), "vedette-abcdef");
    // Nor is it read later what cannot be read now.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(card.start()[0].contains("cannot be read"));
    assert!(path.is_dir());
}

#[test]
fn headers_may_be_written_in_any_way_that_is_one() {
    let card = Card::new();
    for (text, name) in [
        ("[ device ]\nlog = \"info\"\n[ mqtt ]\nusername = \"a\"\n", "press-4"),
        ("mqtt.username = \"a\"\n", ""),
        ("device.log = \"info\"\n[mqtt]\nusername = \"a\"\n", ""),
        ("camera = []\n[mqtt]\nusername = \"a\"\n", "press-5"),
    ] {
        card.put(
            &format!("{text}[provision]\nbroker_password = \"a-word\"\nhost_name = \"{name}\"\n")
                .replace("host_name = \"\"\n", ""),
        );
        let said = card.start();
        if name.is_empty() {
            assert!(said[0].contains("on a line of its own"), "{said:?}");
            continue;
        }
        assert_eq!(said, ["the file is taken"]);
        let table = table(&card.read("data/vedette/vedette.toml"));
        assert_eq!(table["device"]["name"].as_str(), Some(name));
        assert!(table["mqtt"].get("password_file").is_some() && table["device"].get("data_dir").is_some());
    }
    // The password stays with the next one that has a user and none of its own.
    card.put("[mqtt]\nusername = \"a\"\n");
    card.start();
    assert!(table(&card.read("data/vedette/vedette.toml"))["mqtt"].get("password_file").is_some());
    card.put("[mqtt]\n");
    card.start();
    assert!(table(&card.read("data/vedette/vedette.toml"))["mqtt"].get("password_file").is_none());
}

/// The card was pulled before its PC had written what the name and the length promise.
#[test]
fn zeros_that_nobody_here_wrote_are_a_fault_and_stay() {
    let card = Card::new();
    fs::write(card.places.boot.join(FILE), [0; 300]).unwrap();
    assert!(card.start()[0].contains("zeros in it instead of text"));
    assert!(card.read("boot/vedette-errors.txt").contains("eject the card"));
    assert!(card.places.boot.join(FILE).exists() && card.read("data/vedette/provisioning").starts_with(REFUSED));
}

#[test]
fn a_file_stays_where_what_is_made_of_it_would_not() {
    let card = Card::new();
    card.put(GOOD);
    fs::write(card.places.boot.join("scada.der"), ROOT).unwrap();
    let mark = card.places.run.join(MARK);
    fs::create_dir_all(mark.parent().unwrap()).unwrap();
    fs::write(&mark, "bad superblock").unwrap();
    let said = card.start();
    assert!(said[0].starts_with("taken for this start only") && said[0].ends_with("bad superblock"), "{said:?}");
    assert_eq!(card.read("hostname"), "press-4", "it is obeyed");
    assert_eq!(card.boot(), ["scada.der", "vedette.toml"]);
    assert_eq!(card.read("boot/vedette.toml"), GOOD);
    // Another card, or the same one mended.
    fs::remove_file(mark).unwrap();
    fs::remove_dir_all(&card.places.data).unwrap();
    card.start();
    card.is_provisioned();
}

#[test]
fn a_host_name_renames_what_nobody_had_named() {
    let card = Card::new();
    card.start();
    let rename = |name: &str| {
        card.put(&format!("[provision]\nhost_name = \"{name}\"\n"));
        card.start();
        (
            card.read("hostname"),
            table(&card.read("data/vedette/vedette.toml"))["device"]["name"].as_str().map(str::to_owned),
        )
    };
    assert_eq!(rename("press-4"), ("press-4".into(), Some("press-4".into())));
    assert_eq!(rename("press-5"), ("press-5".into(), Some("press-5".into())));
    let config = card.places.data.join("vedette/vedette.toml");
    fs::write(config, "# name\n[device]\nname = \"Press of hall 3\"\n").unwrap();
    assert_eq!(rename("press-6"), ("press-6".into(), Some("Press of hall 3".into())));
}

/// What a PC makes of the name, and a configuration that is changed later.
#[test]
fn a_file_of_windows_is_taken_and_ports_follow_the_configuration() {
    let card = Card::new();
    let wide = |text: &str| {
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect::<Vec<_>>()
    };
    fs::write(card.places.boot.join("VEDETTE.TOML.txt"), wide(&GOOD.replace('\n', "\r\n"))).unwrap();
    assert_eq!(card.start(), ["the file is taken"]);
    card.is_provisioned();
    let config = card.places.data.join("vedette/vedette.toml");
    fs::write(&config, "[ua_server]\nlisten = \"0.0.0.0:4999\"\n").unwrap();
    write_ports(&card.places).unwrap();
    assert!(card.read("run/vedette/nftables.d/ports.nft").contains("tcp_ports { 4999 }"));
    fs::remove_file(config).unwrap();
    assert!(write_ports(&card.places).is_err());
    assert!(
        card.read("run/vedette/nftables.d/ports.nft").contains("tcp_ports { 4999 }"),
        "nothing is closed by a fault"
    );
}

#[test]
fn what_is_no_ordinary_file_is_refused_and_left_alone() {
    let card = Card::new();
    let secret = card.places.boot.join("secret");
    fs::write(&secret, GOOD).unwrap();
    let file = card.places.boot.join(FILE);
    std::os::unix::fs::symlink(&secret, &file).unwrap();
    assert_eq!(card.start()[0], "vedette.toml: cannot read it (it is no ordinary file)");
    assert_eq!(card.read("boot/secret"), GOOD);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(card.start()[0].contains("no ordinary file"));
    fs::remove_dir(&file).unwrap();
    fs::write(&file, vec![b'#'; (file::LARGEST + 1) as usize]).unwrap();
    assert!(card.start()[0].contains("more than 1 MiB"));
}

/// Every key of the shipped example, as somebody has it who takes away each `#` before one.
#[test]
fn the_shipped_example_is_good_with_all_that_it_shows() {
    let example = include_str!("../../../config/device/provision.toml");
    assert!(file::read(example.as_bytes()).unwrap().configuration.is_none());
    let is_shown = |line: &str| !line.is_empty() && !line.starts_with(' ');
    let shown = example.lines().map(|line| line.strip_prefix('#').filter(|line| is_shown(line)).unwrap_or(line));
    let shown = shown.collect::<Vec<_>>().join("\n");
    // A certificate that nobody has the key of is not shipped; what stands for it is refused.
    let [fault] = file::read(shown.as_bytes()).unwrap_err().try_into().unwrap();
    assert!(fault.what.starts_with("[provision] trusted: it is no "), "{fault:?}");
    let pem = x509_cert::der::pem::encode_string("CERTIFICATE", Default::default(), ROOT).unwrap();
    let shown = shown.replace("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", &pem);
    let Wanted { provision, configuration } =
        file::read(shown.as_bytes()).unwrap_or_else(|faults| panic!("{faults:?}"));
    let Provision { host_name, network, ntp, user, ssh_keys, broker_password, trusted, file } = provision;
    assert!(
        host_name.is_some() && network.is_some() && ntp.is_some() && ssh_keys.is_some() && broker_password.is_some()
    );
    assert!(user.len() == 1 && trusted.len() == 1 && file.len() == 1);
    assert!(table(&configuration.unwrap()).contains_key("mqtt"));
}
