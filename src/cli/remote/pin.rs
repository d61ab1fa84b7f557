//! Which servers are believed to be who they say: as ssh does it, with UA's own trust list beside it.
//!
//!     known for this host and port, the same certificate    yes
//!     known, another one     yes if the trust list has it or its CA, with a note; else shouted about and asked for
//!     unknown                yes if the trust list has it or its CA; else shown and asked for
//!     no terminal to ask     no, with the option that accepts exactly this certificate
//!     made again after a loss     the same, also with a terminal: it may be drawn on, and nobody waits there to be asked
//!
//! What was accepted is a file `<pki>/servers/<host>_<port>.der`. It holds also when the certificate has expired: it was
//! this certificate that somebody looked at. To forget one, remove its file.

use crate::cli::show;
use crate::model::Timestamp;
use crate::opcua::client::{ServerCertificate, ServerTrust, Untrusted};
use crate::opcua::trust::x509::Cert;
use crate::opcua::trust::{Rules, TrustList};
use ring::digest::{SHA256, digest};
use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[derive(Clone)]
pub(super) struct Pins {
    pki: PathBuf,
    accept: Option<String>,
    /// Otherwise what is not known is refused, and nothing is printed.
    may_ask: bool,
}

const SERVERS: &str = "servers";

impl Pins {
    pub(super) fn new(pki: PathBuf, accept: Option<String>) -> Self {
        // As other tools write them.
        let accept = accept.map(|text| text.chars().filter(char::is_ascii_hexdigit).collect());
        Self { pki, accept, may_ask: true }
    }

    /// For a connection that is made again, when the terminal is used for something else and signals end nothing.
    pub(super) fn that_never_ask(&self) -> Self {
        Self { may_ask: false, ..self.clone() }
    }

    fn file(&self, url: &str) -> PathBuf {
        self.pki.join(SERVERS).join(format!("{}.der", place(url)))
    }

    /// By the trust list, which is the same as the UA server's.
    fn is_listed(&self, shown: &ServerCertificate<'_>, now: SystemTime) -> bool {
        let list = TrustList::open(&self.pki, Rules { of_servers: true, ..Rules::default() });
        match list {
            Ok(list) => list.check(shown.chain, now).is_ok(),
            Err(error) => {
                eprintln!("vedette: {error}");
                false
            }
        }
    }

    fn is_accepted_by_option(&self, shown: &Cert) -> bool {
        let is_meant = |accept: &String| {
            accept.eq_ignore_ascii_case(shown.thumbprint()) || accept.eq_ignore_ascii_case(&sha256(shown.der()))
        };
        self.accept.as_ref().is_some_and(is_meant)
    }

    fn remember(&self, file: &Path, shown: &Cert) {
        let folder = self.pki.join(SERVERS);
        let beside = folder.join(format!(".new-{}", std::process::id()));
        let kept = std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&beside, shown.der()))
            .and_then(|()| std::fs::rename(&beside, file));
        if let Err(error) = kept {
            eprintln!("vedette: cannot remember the certificate in {}: {error}", file.display());
        }
    }
}

impl ServerTrust for Pins {
    fn judge(&self, shown: &ServerCertificate<'_>, now: SystemTime) -> Result<(), Untrusted> {
        let file = self.file(shown.url);
        let known = match std::fs::read(&file) {
            Ok(known) => Some(known),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // Not to be taken for a server that was never seen.
            Err(error) => return Err(refused(&shown.leaf, format!("{}: {error}", file.display()))),
        };
        if known.as_deref() == Some(shown.leaf.der()) {
            return Ok(());
        }
        let is_changed = known.is_some();
        if self.is_listed(shown, now) {
            if is_changed && self.may_ask {
                eprintln!("vedette: {} has another certificate than before; it is on the trust list", shown.url);
            }
            self.remember(&file, &shown.leaf);
            return Ok(());
        }
        if self.is_accepted_by_option(&shown.leaf) {
            self.remember(&file, &shown.leaf);
            return Ok(());
        }
        let head = match &known {
            None => format!("The certificate of {} is not known here.", shown.url),
            Some(before) => shout(shown.url, before, &file),
        };
        let about = show::lines(&format!("{head}\n{}", describe(&shown.leaf, now)), "");
        let way_out = format!("--accept-certificate {}", shown.leaf.thumbprint());
        let what = if is_changed { "it has changed" } else { "it is not known" };
        if !self.may_ask {
            let reason = format!("{what}; if it is the right one, add {way_out}\n{about}");
            return Err(refused(&shown.leaf, reason));
        }
        eprintln!("{about}");
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            let reason = format!("{what}, and there is no terminal to ask; if it is the right one, add {way_out}");
            return Err(refused(&shown.leaf, reason));
        }
        match ask() {
            true => {
                self.remember(&file, &shown.leaf);
                eprintln!("Remembered in {}.", file.display());
                Ok(())
            }
            false => Err(refused(&shown.leaf, format!("it was not accepted; {way_out} accepts it without asking"))),
        }
    }
}

fn refused(shown: &Cert, reason: String) -> Untrusted {
    let status = crate::model::Status::BAD_CERTIFICATE_UNTRUSTED;
    Untrusted { status, reason, thumbprint: shown.thumbprint().to_owned(), is_new: true }
}

/// Ctrl-C ends the program here: signals are taken over only once the first connection is there.
/// The whole word, so that nobody says it by leaning on a key.
fn ask() -> bool {
    eprint!("Is this the right server? Accept and remember its certificate (yes/no)? ");
    let mut answer = String::new();
    // What cannot be asked is a no.
    let is_read = io::stderr().flush().and_then(|()| io::stdin().lock().read_line(&mut answer)).is_ok();
    is_read && answer.trim().eq_ignore_ascii_case("yes")
}

fn shout(url: &str, before: &[u8], file: &Path) -> String {
    let line = "@".repeat(78);
    let before = match Cert::from_der(before) {
        Ok(before) => format!("{} {}", before.thumbprint(), before.title()),
        Err(error) => format!("unreadable ({error})"),
    };
    format!(
        "{line}\n@  THE CERTIFICATE OF THIS SERVER HAS CHANGED{}@\n{line}\n\
         {url} had another one until now. Either it was replaced there, or somebody in between\n\
         pretends to be this server and would read passwords and change values. Ask whoever runs it.\n\
         \x20 before          {before}\n\
         \x20 remembered in   {}\n\
         Now it shows:",
        " ".repeat(78 - 46),
        file.display()
    )
}

fn describe(shown: &Cert, now: SystemTime) -> String {
    let mut text = String::new();
    let (from, until) = (Timestamp::from(shown.not_before()), Timestamp::from(shown.not_after()));
    let validity = match (now < shown.not_before(), now > shown.not_after()) {
        (true, _) => "  NOT VALID YET",
        (_, true) => "  EXPIRED",
        _ => "",
    };
    let issuer = if shown.is_self_issued() { "itself".to_owned() } else { shown.issuer_title() };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  subject         {}", shown.title());
    let _ = writeln!(text, "  issued by       {issuer}");
    let _ = writeln!(text, "  ApplicationUri  {}", shown.application_uri().unwrap_or("none"));
    let _ = writeln!(text, "  valid           {from} to {until}{validity}");
    let _ = writeln!(text, "  SHA-1           {}", shown.thumbprint());
    let _ = write!(text, "  SHA-256         {}", sha256(shown.der()));
    text
}

fn sha256(der: &[u8]) -> String {
    digest(&SHA256, der).as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Host and port of a URL, as a name of a file.
fn place(url: &str) -> String {
    let host = url.trim_start_matches("opc.tcp://").split('/').next().unwrap_or_default().to_lowercase();
    let has_port =
        host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    let host = if has_port { host } else { format!("{host}:4840") };
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' };
    host.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::opcua::certificate::{Application, OwnCertificate};

    fn certificate(folder: &Path, name: &str) -> Vec<u8> {
        let application =
            Application { name: name.into(), uri: format!("urn:{name}"), hosts: vec!["localhost".into()] };
        let own = OwnCertificate::open(&folder.join(name), application, Clock::real().now()).unwrap();
        std::fs::read(own.files().0).unwrap()
    }

    fn judge(pins: &Pins, der: &[u8]) -> Result<(), Untrusted> {
        let leaf = Cert::from_der(der).unwrap();
        pins.judge(&ServerCertificate { url: "opc.tcp://plc", chain: der, leaf }, Clock::real().now())
    }

    /// Tests have no terminal.
    #[test]
    fn a_server_is_accepted_once_and_another_certificate_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (certificate(folder.path(), "one"), certificate(folder.path(), "other"));
        let pki = folder.path().join("pki");
        let none = Pins::new(pki.clone(), None);
        let thumbprint = crate::opcua::trust::x509::thumbprint(&one);
        let said = judge(&none, &one).unwrap_err().reason;
        assert!(said.ends_with(&format!("add --accept-certificate {thumbprint}")), "{said}");
        let spelled: Vec<String> =
            sha256(&one).to_lowercase().as_bytes().chunks(2).map(|b| String::from_utf8_lossy(b).into()).collect();
        judge(&Pins::new(pki.clone(), Some(spelled.join(":"))), &one).unwrap();
        judge(&none, &one).unwrap();
        assert!(judge(&none, &other).unwrap_err().reason.starts_with("it has changed"));
        // Unless somebody trusts it.
        std::fs::write(pki.join("trusted/other.der"), &other).unwrap();
        judge(&none, &other).unwrap();
        assert_eq!(std::fs::read(pki.join("servers/plc_4840.der")).unwrap(), other);
    }

    #[test]
    fn a_connection_that_is_made_again_asks_nobody_and_says_all() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (certificate(folder.path(), "one\u{1b}[31m"), certificate(folder.path(), "other"));
        let thumbprint = crate::opcua::trust::x509::thumbprint(&other);
        let pins = Pins::new(folder.path().join("pki"), Some(crate::opcua::trust::x509::thumbprint(&one)));
        judge(&pins, &one).unwrap();
        let said = judge(&pins.that_never_ask(), &other).unwrap_err().reason;
        for part in [&format!("add --accept-certificate {thumbprint}"), "HAS CHANGED", "urn:other"] {
            assert!(said.starts_with("it has changed") && said.contains(part), "{said}");
        }
        assert!(!said.contains('\u{1b}'), "{said}");
    }

    #[test]
    fn places_are_hosts_with_ports() {
        assert_eq!(place("opc.tcp://PLC/path"), "plc_4840");
        assert_eq!(place("opc.tcp://plc:4841/a:1"), "plc_4841");
        assert_eq!(place("opc.tcp://[::1]:4841"), "___1__4841");
        assert_eq!(place("opc.tcp://../../x"), ".._4840");
    }
}
