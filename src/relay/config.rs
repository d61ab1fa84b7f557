//! The relay's configuration: one file, every key of it optional, so that without a file every DA server of this PC is served.
//!
//! Without anything said nobody comes in who has no user and no trusted certificate, and nothing is written.

use crate::base::configuration::{Fault, Faults, Source};
use crate::base::selection::is_like;
use crate::model::Role;
use crate::opcua::server::limits::Limits;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What clients call the relay. Default: "vedette-da-relay".
    pub name: String,
    /// Certificates, trust list, users, logs. Default: "%ProgramData%\Vedette DA relay".
    pub data_dir: PathBuf,
    /// What is logged: a level, or levels by module. Default: "info".
    pub log: Option<String>,
    /// Bytes of one log file of the service; the one before it is kept. Default: "8MB".
    #[serde(deserialize_with = "crate::base::bytes::deserialize")]
    pub log_bytes: u64,
    /// Address and port. Default: "0.0.0.0:4840", every interface.
    pub listen: SocketAddr,
    /// Also offer SecurityPolicy None. Only allowed while `listen` is a loopback address. Default: false.
    pub insecure_on_loopback: bool,
    /// What somebody without a user may do: "none", "viewer", "operator", "admin". Default: "none".
    #[serde(deserialize_with = "anonymous")]
    pub anonymous: Option<Role>,
    /// Refuse clients whose CA has no current revocation list in the PKI folder's crls/. Default: false.
    pub require_crls: bool,
    /// TCP connections of clients. Default: 100.
    pub connections: usize,
    /// Sessions of clients. Default: 50.
    pub sessions: usize,
    /// Monitored items, all clients together. Default: 200000.
    pub monitored_items: usize,
    /// Serve also the DA servers of this PC that have no `[[server]]`. Default: true.
    pub discover: bool,
    /// The relay of 32 bits, for DA servers of 32 bits. Default: vedette-da-relay-i686.exe beside this program.
    pub worker_32: Option<PathBuf>,
    /// The relay of 64 bits. Default: vedette-da-relay-x86_64.exe beside this program.
    pub worker_64: Option<PathBuf>,
    /// `[[server]]`
    pub server: Vec<Spanned<Server>>,
}

/// `[[server]]`: one DA server.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// As registered, "Vendor.Server.1". One of `prog_id` and `clsid` is needed.
    pub prog_id: Option<String>,
    /// "{F8582CF2-88FB-11D0-B850-00C0F0104305}".
    pub clsid: Option<ClassId>,
    /// Its folder's name, and the beginning of its NodeIds. Default: the ProgID, or the CLSID.
    pub name: Option<String>,
    /// Leaves a server out that would be found. Default: true.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// ItemIDs that may be written, where `*` stands for any characters and `?` for one. Default: none.
    #[serde(default)]
    pub write: Vec<String>,
    /// How far the server's clock is from UTC: "+02:00" if it stamps local time of UTC+2. Default: "+00:00".
    #[serde(default)]
    pub time_offset: Offset,
    /// The fastest rate that the server is asked for; who wants more gets this. Default: "50ms".
    #[serde(default = "fastest", deserialize_with = "crate::base::duration::deserialize")]
    pub fastest: Duration,
    /// Items that the server is asked to watch, of all clients together. Default: 100000.
    #[serde(default = "items")]
    pub items: usize,
    /// Whether a worker of 32 or of 64 bits holds it: "auto" is what it is registered as. Default: "auto".
    #[serde(default)]
    pub worker: Bitness,
    /// How often GetStatus is asked. Default: "2s".
    #[serde(default = "status_interval", deserialize_with = "crate::base::duration::deserialize")]
    pub status_interval: Duration,
    /// After which time without an answer the server is taken for frozen. Default: "5s".
    #[serde(default = "status_timeout", deserialize_with = "crate::base::duration::deserialize")]
    pub status_timeout: Duration,
    /// The same for a read, a write, or anything about groups. Default: "30s".
    #[serde(default = "call_timeout", deserialize_with = "crate::base::duration::deserialize")]
    pub call_timeout: Duration,
    /// For the next part of a browse. Default: "1m".
    #[serde(default = "minute", deserialize_with = "crate::base::duration::deserialize")]
    pub browse_timeout: Duration,
    /// For the server to start. Default: "1m".
    #[serde(default = "minute", deserialize_with = "crate::base::duration::deserialize")]
    pub start_timeout: Duration,
}

fn yes() -> bool {
    true
}

fn fastest() -> Duration {
    Duration::from_millis(50)
}

fn items() -> usize {
    100_000
}

fn status_interval() -> Duration {
    Duration::from_secs(2)
}

fn status_timeout() -> Duration {
    Duration::from_secs(5)
}

fn call_timeout() -> Duration {
    Duration::from_secs(30)
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Bitness {
    #[default]
    #[serde(rename = "auto")]
    Auto,
    #[serde(rename = "32")]
    Bits32,
    #[serde(rename = "64")]
    Bits64,
}

/// A CLSID in the form that the registry has: braces, upper case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ClassId(String);

impl ClassId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ClassId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bare = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(&text);
        let parts: Vec<usize> = bare.split('-').map(str::len).collect();
        if parts == [8, 4, 4, 4, 12] && bare.chars().all(|c| c == '-' || c.is_ascii_hexdigit()) {
            return Ok(Self(format!("{{{}}}", bare.to_ascii_uppercase())));
        }
        Err(format!("{text:?} is no CLSID; write it as in \"{{F8582CF2-88FB-11D0-B850-00C0F0104305}}\""))
    }
}

/// Seconds that a clock is ahead of UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Offset(i64);

impl Offset {
    /// To be added to what the server says.
    pub fn to_utc(self) -> i64 {
        -self.0
    }
}

impl TryFrom<String> for Offset {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no offset from UTC; write it as in \"+02:00\" or \"-05:30\", up to 14 hours");
        let (sign, rest) = match text.split_at_checked(1) {
            Some(("+", rest)) => (1, rest),
            Some(("-", rest)) => (-1, rest),
            _ => return Err(wrong()),
        };
        let (hours, minutes) = rest.split_once(':').ok_or_else(wrong)?;
        let number = |digits: &str| {
            let is_number = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
            is_number.then(|| digits.parse::<i64>().ok()).flatten()
        };
        match (number(hours), number(minutes)) {
            (Some(hours @ 0..=14), Some(minutes @ 0..=59)) => Ok(Self(sign * (hours * 3600 + minutes * 60))),
            _ => Err(wrong()),
        }
    }
}

fn anonymous<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Role>, D::Error> {
    match &*String::deserialize(deserializer)? {
        "none" => Ok(None),
        "viewer" => Ok(Some(Role::Viewer)),
        "operator" => Ok(Some(Role::Operator)),
        "admin" => Ok(Some(Role::Admin)),
        _ => Err(D::Error::custom("write \"none\", \"viewer\", \"operator\" or \"admin\"")),
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "vedette-da-relay".into(),
            data_dir: data_dir(),
            log: None,
            log_bytes: 8_000_000,
            listen: ([0, 0, 0, 0], 4840).into(),
            insecure_on_loopback: false,
            anonymous: None,
            require_crls: false,
            connections: 100,
            sessions: 50,
            monitored_items: 200_000,
            discover: true,
            worker_32: None,
            worker_64: None,
            server: Vec::new(),
        }
    }
}

#[cfg(windows)]
fn data_dir() -> PathBuf {
    let data = std::env::var_os("ProgramData").map_or_else(|| PathBuf::from(r"C:\ProgramData"), PathBuf::from);
    data.join("Vedette DA relay")
}

/// Where the portable parts are tried.
#[cfg(unix)]
fn data_dir() -> PathBuf {
    "/var/lib/vedette-da-relay".into()
}

/// The file that is read if none is named; it need not be there.
pub const FILE: &str = "da-relay.toml";

/// Of a file that was named, or else of the one in the default data folder, or else the defaults.
pub fn load(named: Option<&Path>) -> Result<Config, Faults> {
    let path = named.map_or_else(|| data_dir().join(FILE), Path::to_owned);
    if named.is_none() && !path.exists() {
        return Ok(Config::default());
    }
    check(&Source::read(&path)?)
}

/// Checks what is or might be in a file.
pub fn parse(path: &Path, text: String) -> Result<Config, Faults> {
    check(&Source::new(path, text))
}

fn check(source: &Source) -> Result<Config, Faults> {
    let config: Config = source.parse(|_, _| None)?;
    let faults = config.faults(source);
    if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
}

impl Config {
    /// With what is not the relay's to say at its defaults.
    pub fn limits(&self) -> Limits {
        let &Self { connections, sessions, monitored_items, .. } = self;
        Limits { connections, connections_per_address: connections, sessions, monitored_items, ..Limits::default() }
    }

    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.server.iter().map(Spanned::get_ref)
    }

    /// Nothing when everything is right.
    fn faults(&self, source: &Source) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut add = |key: &str, what: String| faults.push(source.fault("", &(0..0), key, what));
        if self.insecure_on_loopback && !self.listen.ip().is_loopback() {
            let port = self.listen.port();
            add(
                "insecure_on_loopback",
                format!("only on a loopback address; set it to false, or `listen` to \"127.0.0.1:{port}\""),
            );
        }
        if !is_name(&self.name) {
            add("name", format!("{:?} must have characters, and no control characters", self.name));
        }
        if self.log_bytes < 64 * 1024 {
            add("log_bytes", format!("is {}; write \"64KiB\" or more", self.log_bytes));
        }
        if let Some(Err(error)) = self.log.as_deref().map(crate::base::logs::check) {
            add("log", error.to_string());
        }
        let ours = ["connections", "sessions", "monitored_items"];
        for (key, what) in self.limits().check().into_iter().filter(|(key, _)| ours.contains(key)) {
            add(key, what);
        }
        let mut names: Vec<&str> = Vec::new();
        for spanned in &self.server {
            let (span, server) = (spanned.span(), spanned.get_ref());
            let mut found = server.faults();
            if names.contains(&server.title()) {
                let key = if server.name.is_some() { "name" } else { "prog_id" };
                found.push((key, format!("{:?} is there twice; give one of them another `name`", server.title())));
            }
            names.push(server.title());
            faults.extend(found.into_iter().map(|(key, what)| source.fault("[[server]]", &span, key, what)));
        }
        faults
    }
}

impl Server {
    /// The name of its folder.
    pub fn title(&self) -> &str {
        let title = self.name.as_deref().or(self.prog_id.as_deref()).or(self.clsid.as_ref().map(ClassId::as_str));
        title.unwrap_or_default()
    }

    /// Whether it is the one with this CLSID and ProgID. `class`: the CLSID of its own ProgID, if there is one in the registry; a
    /// server has a ProgID for each version and one for all, and any of them may have been written.
    pub fn is(&self, class: Option<&str>, clsid: &str, prog_id: &str) -> bool {
        let own = self.clsid.as_ref().map(ClassId::as_str).or(class);
        let same_name = self.prog_id.as_ref().is_some_and(|id| id.eq_ignore_ascii_case(prog_id));
        own.is_some_and(|id| id.eq_ignore_ascii_case(clsid)) || same_name
    }

    pub fn may_write(&self, item_id: &str) -> bool {
        self.write.iter().any(|pattern| is_like(pattern, item_id))
    }

    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.prog_id.is_some() == self.clsid.is_some() {
            faults.push(("prog_id", "say which server: one of `prog_id` and `clsid`".into()));
        }
        if !is_name(self.title()) {
            faults.push(("name", format!("{:?} must have characters, and no control characters", self.title())));
        }
        if self.write.iter().any(String::is_empty) {
            faults.push(("write", "\"\" is no ItemID; \"*\" is every one".into()));
        }
        if self.items == 0 {
            faults.push(("items", "is 0; write 1 or more, or `enabled = false` to leave the server out".into()));
        }
        let (ms, second, hour) = (Duration::from_millis(1), Duration::from_secs(1), Duration::from_secs(3600));
        let times = [
            ("fastest", self.fastest, ms),
            ("status_interval", self.status_interval, second / 10),
            ("status_timeout", self.status_timeout, second / 10),
            ("call_timeout", self.call_timeout, second),
            ("browse_timeout", self.browse_timeout, second),
            ("start_timeout", self.start_timeout, second),
        ];
        for (key, time, least) in times {
            if !(least..=hour).contains(&time) {
                let [time, least] = [time, least].map(humantime::format_duration);
                faults.push((key, format!("is \"{time}\"; write something from \"{least}\" to \"1h\"")));
            }
        }
        faults
    }
}

fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, String> {
        parse(Path::new("r.toml"), text.into()).map_err(|faults| faults.to_string())
    }

    fn server(keys: &str) -> Result<Server, String> {
        parsed(&format!("[[server]]\n{keys}\n")).map(|config| config.servers().next().unwrap().clone())
    }

    #[test]
    fn nothing_said_is_safe_and_serves_everything() {
        let config = parsed("").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!((config.anonymous, config.insecure_on_loopback, config.discover), (None, false, true));
        let server = server("prog_id = \"A.B.1\"").unwrap();
        assert!(!server.may_write("x") && !server.may_write(""));
        assert_eq!((server.title(), server.enabled, server.time_offset.to_utc()), ("A.B.1", true, 0));
    }

    #[test]
    fn the_shipped_file_says_every_key_with_its_default() {
        let shipped = include_str!("../../config/da-relay.toml");
        assert_eq!(parsed(shipped).unwrap(), Config::default());
        // What is commented out is valid, too, and is the default; of the server's keys `prog_id` has none.
        let all: String = shipped
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#'])).unwrap_or(line))
            .filter(|line| !["data_dir", "worker_32", "worker_64", "clsid"].iter().any(|key| line.starts_with(key)))
            .map(|line| format!("{line}\n"))
            .collect();
        let mut config = parsed(&all).unwrap();
        let given = config.server.remove(0).into_inner();
        let config = Config { log: None, ..config };
        assert_eq!(config, Config::default());
        let bare = server("prog_id = \"Matrikon.OPC.Simulation.1\"").unwrap();
        assert_eq!(Server { name: None, write: Vec::new(), ..given }, bare);
    }

    #[test]
    fn writes_are_for_items_that_are_listed() {
        let server = server("prog_id = \"A\"\nwrite = [\"Line1.*\", \"a/?\"]").unwrap();
        assert!(server.may_write("Line1.x.y") && server.may_write("a/b"));
        assert!(!server.may_write("Line2.x") && !server.may_write("xLine1.x") && !server.may_write("a/bc"));
    }

    #[test]
    fn a_server_is_known_by_any_of_its_names() {
        let class = "{F8582CF2-88FB-11D0-B850-00C0F0104305}";
        let versionless = server("prog_id = \"Vendor.Server\"").unwrap();
        assert!(versionless.is(Some(&class.to_lowercase()), class, "Vendor.Server.1"));
        assert!(!versionless.is(None, class, "Vendor.Server.1"));
        assert!(versionless.is(None, class, "vendor.server"));
        let by_class = server(&format!("clsid = \"{class}\"")).unwrap();
        assert!(by_class.is(None, class, "") && !by_class.is(None, "{0}", "Vendor.Server.1"));
    }

    #[test]
    fn offsets_and_classes_are_read() {
        let offset = |text: &str| Offset::try_from(text.to_owned()).map(Offset::to_utc);
        assert_eq!([offset("+02:00"), offset("-05:30"), offset("+00:00")], [Ok(-7200), Ok(19_800), Ok(0)]);
        for wrong in ["", "2", "+2:00", "02:00", "+15:00", "+02:60", "+-1:00", "é02:00"] {
            assert!(offset(wrong).is_err(), "{wrong:?}");
        }
        let class = |text: &str| ClassId::try_from(text.to_owned()).map(|class| class.0);
        let expected = "{F8582CF2-88FB-11D0-B850-00C0F0104305}".to_owned();
        assert_eq!(class("f8582cf2-88fb-11d0-b850-00c0f0104305"), Ok(expected));
        assert!(class("{F8582CF2}").is_err() && class("G8582CF2-88FB-11D0-B850-00C0F0104305").is_err());
    }

    #[test]
    fn faults_name_line_key_and_way_out() {
        let said = |text: &str| parsed(text).unwrap_err();
        assert_eq!(
            said("listen = \"0.0.0.0:1\"\ninsecure_on_loopback = true\n"),
            "r.toml:2: insecure_on_loopback: only on a loopback address; set it to false, or `listen` to \"127.0.0.1:1\""
        );
        assert_eq!(
            said("[[server]]\nprog_id = \"A\"\nclsid = \"{F8582CF2-88FB-11D0-B850-00C0F0104305}\"\n"),
            "r.toml:2: [[server]] prog_id: say which server: one of `prog_id` and `clsid`"
        );
        assert_eq!(
            said("[[server]]\nprog_id = \"A\"\n[[server]]\nprog_id = \"B\"\nname = \"A\"\n"),
            "r.toml:5: [[server]] name: \"A\" is there twice; give one of them another `name`"
        );
        assert_eq!(
            said("[[server]]\nprog_id = \"A\"\nfastest = \"0ms\"\nitems = 0\n").lines().count(),
            2,
            "all faults of the values at once"
        );
        let unknown = said("[[server]]\nprogid = \"A\"\n");
        assert!(
            unknown.starts_with("r.toml:2: [[server]]: unknown key `progid`; did you mean `prog_id`?"),
            "{unknown}"
        );
        assert!(said("anonymous = \"all\"").contains("write \"none\", \"viewer\""));
        assert!(said("log = \"vedette=loud\"").contains("log"));
        assert!(said("sessions = 0").starts_with("r.toml:1: sessions: is 0; write something from 1"));
    }
}
