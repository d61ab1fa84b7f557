//! `vedette.toml` on the boot partition: the table `[provision]`, beside the ordinary tables of a configuration.
//!
//!     bytes ──► text ──► [provision], checked          what is for the system, and what is secret
//!                  └──► the rest, lines in their places   so that its faults have the lines that a person sees
//!
//! Nothing is taken of a file that has a fault anywhere. All faults of values are said at once; one of the shape ends the
//! reading, because what follows may be its consequence.

use super::certificate;
use super::network::Network;
use crate::model::Role;
use crate::users::{self, UserName};
use base64ct::{Base64, Encoding as _};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What a person writes is a few kilobytes; certificates make it more.
pub(super) const LARGEST: u64 = 1 << 20;

/// `[provision]`. What is not in it stays as it was.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Provision {
    /// Example: "line1-gateway". Default: `vedette-` and the end of the serial number.
    pub host_name: Option<Spanned<String>>,
    /// How each cable gets its address. Default: DHCP on every one.
    pub network: Option<Vec<Spanned<Network>>>,
    /// Time servers, asked beside the public pool. Example: ["10.0.0.1"].
    pub ntp: Option<Vec<Spanned<String>>>,
    /// Users of the OPC UA server, added or given another password and role.
    pub user: Vec<Spanned<User>>,
    /// Lines as of authorized_keys; with one of them SSH is on, with an empty list off. Default: off.
    pub ssh_keys: Option<Vec<Spanned<String>>>,
    /// Becomes a file that only the service reads, and `[mqtt] password_file`.
    pub broker_password: Option<Spanned<String>>,
    /// Certificates (PEM) of clients of the OPC UA server, and of CAs, that are trusted.
    pub trusted: Vec<Spanned<String>>,
    /// Files that the configuration names: keys, certificates. They become data_dir/secrets/NAME.
    pub file: Vec<Spanned<File>>,
}

/// `[[provision.user]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub name: UserName,
    pub role: Role,
    pub password: String,
}

/// `[[provision.file]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Example: "ca.pem".
    pub name: String,
    pub content: String,
}

/// What is wrong with the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// From 1; 0 if it is not in a line.
    pub line: usize,
    pub what: String,
}

/// A file without a fault of its own. The ordinary tables are for whoever knows them.
#[derive(Debug)]
pub(super) struct Wanted {
    pub provision: Provision,
    /// The text without `[provision]`, each line in its place; `None` if nothing else is in the file.
    pub configuration: Option<String>,
}

#[derive(Deserialize)]
struct Whole {
    #[serde(default)]
    provision: Provision,
}

pub(super) fn read(bytes: &[u8]) -> Result<Wanted, Vec<Fault>> {
    let text = &*text(bytes).map_err(|fault| vec![fault])?;
    let shape = |error: toml::de::Error| {
        let start = error.span().map(|span| span.start);
        let what = start.and_then(|start| without_brackets(text, start));
        let what = what.unwrap_or_else(|| without_value(&error.message().trim().replace('\n', "; ")));
        vec![Fault { line: start.map_or(0, |start| line_at(text, start)), what }]
    };
    let Whole { provision } = toml::from_str(text).map_err(shape)?;
    let faults = check(&provision, text);
    if !faults.is_empty() {
        return Err(faults);
    }
    let configuration = without_provision(text).map_err(|fault| vec![fault])?;
    Ok(Wanted { provision, configuration })
}

/// Editors on Windows like marks before a text, and sometimes write UTF-16.
fn text(bytes: &[u8]) -> Result<Cow<'_, str>, Fault> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let text = String::from_utf16(&pairs.iter().map(|&pair| unit(pair)).collect::<Vec<_>>()).ok();
        let what = || Fault { line: 0, what: "this file is broken UTF-16; save it as UTF-8".to_owned() };
        text.filter(|_| rest.is_empty()).map(Cow::Owned).ok_or_else(what)
    };
    if let Some(bytes) = bytes.strip_prefix(b"\xff\xfe") {
        return wide(bytes, u16::from_le_bytes);
    }
    if let Some(bytes) = bytes.strip_prefix(b"\xfe\xff") {
        return wide(bytes, u16::from_be_bytes);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        Fault { line, what: "this line is not UTF-8; save the file as UTF-8".to_owned() }
    });
    text.map(Cow::Borrowed)
}

/// What is said of a fault goes upstream and to the console, and what was found may be a password: without its quotes, or in the
/// place of something else. The line says where to look.
fn without_value(what: &str) -> String {
    if let Some((_, right)) = what.rsplit_once(" is no user name: ") {
        return format!("name: must be {}", right.trim_end_matches(" are"));
    }
    let unknown = [("unknown variant `", "must be "), ("unknown field `", "there is no such key: expected ")];
    for (begin, instead) in unknown {
        if what.starts_with(begin)
            && let Some((_, expected)) = what.rsplit_once("`, expected ")
        {
            return format!("{instead}{expected}");
        }
    }
    let rest = what.strip_prefix("invalid type: ").or_else(|| what.strip_prefix("invalid value: "));
    let Some((found, expected)) = rest.and_then(|rest| rest.rsplit_once(", expected ")) else { return what.to_owned() };
    let kind = found.split(['`', '"']).next().unwrap_or_default().trim_end();
    format!("must be {expected}, not {kind}")
}

/// What is wrong with `[provision.user]`, of which there may be several.
fn without_brackets(text: &str, start: usize) -> Option<String> {
    let line = text.lines().nth(line_at(text, start).checked_sub(1)?)?.trim_start();
    let name = ["network", "user", "file"].into_iter().find(|name| line.starts_with(&format!("[provision.{name}]")))?;
    Some(format!("there may be several of these: write [[provision.{name}]], with two brackets at each end"))
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count()
}

fn check(provision: &Provision, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut add = |offset: usize, key: &str, what: String| {
        faults.push(Fault { line: line_at(text, offset), what: format!("[provision] {key}: {what}") });
    };
    if let Some(name) = &provision.host_name
        && !is_host_name(name.get_ref())
    {
        let what = "must be 1 to 63 letters, digits and hyphens, no hyphen at an end, as in \"line1-gateway\"";
        add(name.span().start, "host_name", what.into());
    }
    let networks = provision.network.as_deref().unwrap_or_default();
    for (index, network) in networks.iter().enumerate() {
        let start = network.span().start;
        for what in network.get_ref().faults() {
            add(start, "network", what);
        }
        let same = |other: &Spanned<Network>| other.get_ref().interface == network.get_ref().interface;
        if networks[..index].iter().any(same) {
            let what = "another [[provision.network]] is for the same interface; each needs its own `interface`, as in \"eth0\"";
            add(start, "network", what.into());
        }
    }
    for server in provision.ntp.iter().flatten() {
        let is_fit = |c: char| c.is_ascii_alphanumeric() || ".:-".contains(c);
        let is_name =
            server.get_ref().chars().all(is_fit) && server.get_ref().contains(|c: char| c.is_ascii_alphanumeric());
        if !is_name || server.get_ref().starts_with('-') {
            let what = format!("{:?} is no name or address of a time server, as in \"10.0.0.1\"", server.get_ref());
            add(server.span().start, "ntp", what);
        }
    }
    let mut names = HashSet::new();
    for user in &provision.user {
        let (start, User { name, password, .. }) = (user.span().start, user.get_ref());
        if let Err(error) = users::check(name, password) {
            add(start, "user", format!("{name}: {error}"));
        }
        if !names.insert(name) {
            add(start, "user", format!("{name} is there twice"));
        }
    }
    for key in provision.ssh_keys.iter().flatten().filter(|key| !is_ssh_key(key.get_ref())) {
        let what = "is no public key; it is a line such as that of a file id_ed25519.pub: \"ssh-ed25519 AAAA... me\"";
        add(key.span().start, "ssh_keys", what.into());
    }
    if let Some(password) = &provision.broker_password
        && (password.get_ref().is_empty() || password.get_ref().contains(['\r', '\n']))
    {
        add(password.span().start, "broker_password", "must be one line, and not empty".into());
    }
    for trusted in &provision.trusted {
        if let Err(what) = certificate::from_pem(trusted.get_ref()) {
            add(trusted.span().start, "trusted", what);
        }
    }
    let mut files = HashSet::new();
    for file in &provision.file {
        let (start, name) = (file.span().start, file.get_ref().name.as_str());
        let is_fit = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !(1..=64).contains(&name.len()) || name.starts_with('.') || !name.chars().all(is_fit) {
            add(start, "file", format!("{name:?} is no name of a file, as in \"ca.pem\""));
        }
        if name == super::BROKER_PASSWORD || !files.insert(name) {
            add(start, "file", format!("{name:?} is there twice"));
        }
    }
    faults.sort_by_key(|fault| fault.line);
    faults
}

/// RFC 1123, 2.1: one label.
fn is_host_name(name: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (1..=63).contains(&name.len()) && name.chars().all(is_fit) && !name.starts_with('-') && !name.ends_with('-')
}

/// The kind is said twice: before the key and in it (RFC 4253, 6.6).
fn is_ssh_key(line: &str) -> bool {
    let mut words = line.split(' ');
    let (Some(kind), Some(key)) = (words.next(), words.next()) else { return false };
    let Ok(key) = Base64::decode_vec(key) else { return false };
    let named = [&(kind.len() as u32).to_be_bytes()[..], kind.as_bytes()].concat();
    !line.contains(['\r', '\n'])
        && !kind.is_empty()
        && key.len() > named.len()
        && key.starts_with(&named)
        && is_whole(&key)
}

/// Texts, each behind its length, and nothing after them (RFC 4251, 5): a key that was cut when it was copied is none.
fn is_whole(mut key: &[u8]) -> bool {
    while let Some((length, rest)) = key.split_first_chunk::<4>() {
        let Some(rest) = rest.get(u32::from_be_bytes(*length) as usize..) else { return false };
        key = rest;
    }
    key.is_empty()
}

/// The text with empty lines where `[provision]` and its parts were.
///
/// Headers are looked for by lines, but not within values that have several; and it is proven that what is left is the file without
/// `[provision]` and nothing else.
fn without_provision(text: &str) -> Result<Option<String>, Fault> {
    let mut long = Vec::new();
    if let Ok(table) = DeTable::parse(text) {
        table.get_ref().values().for_each(|value| long_values(value, text, &mut long));
    }
    let mut is_provision = false;
    let mut offset = 0;
    let lines = text.split_inclusive('\n').map(|line| {
        let header = line.trim_start();
        let start = offset + line.len() - header.len();
        offset += line.len();
        if header.starts_with('[') && !long.iter().any(|value| value.contains(&start)) {
            let name = header.trim_start_matches('[').trim_start();
            let rest = name.strip_prefix("provision");
            is_provision = rest.is_some_and(|rest| rest.trim_start().starts_with(['.', ']']));
        }
        if is_provision { "\n" } else { line }
    });
    let rest: String = lines.collect();
    let table = |text: &str| toml::from_str::<toml::Table>(text).ok();
    let whole = table(text).map(|mut whole| {
        whole.remove("provision");
        whole
    });
    if whole.is_none() || whole != table(&rest) {
        let what = "[provision] must be tables of their own, [provision] and [[provision....]], at the end of the file";
        return Err(Fault { line: 0, what: what.into() });
    }
    Ok(whole.filter(|whole| !whole.is_empty()).map(|_| rest))
}

/// Where values are that go over several lines.
fn long_values(value: &Spanned<DeValue<'_>>, text: &str, found: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => table.values().for_each(|value| long_values(value, text, found)),
        // Those of `[[header]]`, and inline ones, whose lines begin with a brace.
        DeValue::Array(array) if array.iter().any(|value| matches!(value.get_ref(), DeValue::Table(_))) => {
            array.iter().for_each(|value| long_values(value, text, found));
        }
        _ => found.extend(Some(value.span()).filter(|span| text[span.clone()].contains('\n'))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJhc2U2NGNoYXJhY3RlcnNhcmV0aGlydHl0d29ieXRl me@pc";

    fn said(text: &str) -> Vec<(usize, String)> {
        read(text.as_bytes()).unwrap_err().into_iter().map(|fault| (fault.line, fault.what)).collect()
    }

    #[test]
    fn a_good_file_is_read_and_what_is_ordinary_keeps_its_lines() {
        let text = format!(
            "\u{feff}[device]\r\nlog = \"info\"\r\n[provision]\nhost_name = \"press-4\"\nntp = [\"10.0.0.1\"]\nssh_keys = [\"{KEY}\"]\n\
             [[provision.network]]\naddress = \"10.0.0.5/24\"\ngateway = \"10.0.0.1\"\n[mqtt]\nbroker = \"mqtt://b\"\n"
        );
        let wanted = read(text.as_bytes()).unwrap();
        assert_eq!(wanted.provision.host_name.unwrap().get_ref(), "press-4");
        let rest = wanted.configuration.unwrap();
        assert_eq!(rest, format!("[device]\r\nlog = \"info\"\r\n{}[mqtt]\nbroker = \"mqtt://b\"\n", "\n".repeat(7)));
        assert!(read(b"[provision]\nntp = []\n").unwrap().configuration.is_none());
        assert!(read(b"").unwrap().configuration.is_none());
    }

    #[test]
    fn every_fault_has_its_line_and_a_way_out() {
        for (text, line, what) in [
            ("[provision]\nhost_name = \"a b\"\n", 2, "host_name: must be 1 to 63 letters"),
            ("[provision]\nhostname = \"a\"\n", 2, "there is no such key: expected one of `host_name`"),
            ("\n[provision\n", 2, "unclosed table"),
            ("[provision]\nntp = [\n\"a b\"]\n", 3, "ntp: \"a b\" is no name"),
            ("[provision]\nssh_keys = [\"ssh-ed25519 AAAA\"]\n", 2, "ssh_keys: is no public key"),
            ("[provision]\nbroker_password = \"\"\n", 2, "broker_password: must be one line"),
            ("[provision]\ntrusted = [\"abc\"]\n", 2, "trusted: is no certificate"),
            ("[[provision.user]]\nname = \"anna\"\nrole = \"boss\"\npassword = \"x\"\n", 3, "must be one of"),
            (
                "[[provision.user]]\nname = \"s3cret/\"\nrole = \"admin\"\npassword = \"x\"\n",
                2,
                "name: must be 1 to 64 letters",
            ),
            ("[provision.network]\ndhcp = true\n", 1, "write [[provision.network]], with two brackets"),
            ("[provision.user]\nname = \"anna\"\n", 1, "write [[provision.user]], with two brackets"),
            (
                "[[provision.user]]\nname = \"anna\"\nrole = \"admin\"\npassword = \"x\"\n",
                1,
                "user: anna: the password has 1",
            ),
            ("[[provision.file]]\nname = \"../a\"\ncontent = \"\"\n", 1, "file: \"../a\" is no name"),
            ("[[provision.network]]\naddress = \"10.0.0.5\"\n", 1, "network: address \"10.0.0.5\""),
            (
                "[[provision.network]]\n[[provision.network]]\ndhcp = true\n",
                2,
                "network: another [[provision.network]] is for the same",
            ),
            ("provision = { ntp = [] }\n", 0, "[provision] must be tables of their own"),
            ("provision.ntp = []\n", 0, "[provision] must be tables of their own"),
            ("[provision]\nntp = [\"---\"]\n", 2, "ntp: \"---\" is no name"),
        ] {
            let said = said(text);
            assert!(said[0].0 == line && said[0].1.contains(what), "{said:?} for {text:?}");
        }
        assert_eq!(read(b"\xff\xfea\0b").unwrap_err()[0].what, "this file is broken UTF-16; save it as UTF-8");
        assert_eq!(read(b"\xfe\xff\xd8\0").unwrap_err()[0].what, "this file is broken UTF-16; save it as UTF-8");
        assert_eq!(read(b"[device]\nname = \"\xe4\"\n").unwrap_err()[0].line, 2);
        assert_eq!(said("[provision]\nhost_name = \"-\"\nntp = [\"\"]\n").len(), 2, "all at once");
    }

    #[test]
    fn what_an_editor_of_windows_writes_is_read() {
        let text = "[provision]\r\nhost_name = \"press-4\"\r\n[device]\r\nname = \"M\u{fc}hle\"\r\n";
        let wide =
            |unit: fn(u16) -> [u8; 2]| "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(unit).collect();
        let marked = format!("\u{feff}{text}").into_bytes();
        for bytes in [text.as_bytes().to_vec(), marked, wide(u16::to_le_bytes), wide(u16::to_be_bytes)] {
            let wanted = read(&bytes).unwrap();
            assert_eq!(wanted.provision.host_name.unwrap().get_ref(), "press-4");
            assert!(wanted.configuration.unwrap().contains("M\u{fc}hle"));
        }
    }

    #[test]
    fn a_text_over_several_lines_may_look_like_headers() {
        let text = "[a]\nb = \"\"\"\n[provision]\n\"\"\"\nc = [\n[1],\n]\n\
                    [[provision.file]]\nname = \"x\"\ncontent = '''\n[section]\nkey = 1\n'''\n[d]\n";
        let wanted = read(text.as_bytes()).unwrap();
        assert_eq!(wanted.provision.file[0].get_ref().content, "[section]\nkey = 1\n");
        let rest = "[a]\nb = \"\"\"\n[provision]\n\"\"\"\nc = [\n[1],\n]\n";
        assert_eq!(wanted.configuration.unwrap(), format!("{rest}{}[d]\n", "\n".repeat(6)));
    }

    #[test]
    fn a_key_that_was_cut_is_none() {
        assert!(is_ssh_key(KEY));
        assert!(!is_ssh_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJhc2U2NGNoYXJhY3RlcnNh me@pc"));
        assert!(!is_ssh_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me@pc"));
    }

    #[test]
    fn a_value_is_not_told_to_others() {
        for (text, what) in [
            ("[provision]\nbroker_password = 12345678\n", "must be a string, not integer"),
            ("[provision]\nbroker_password = true\n", "must be a string, not boolean"),
            (
                "[[provision.user]]\nname = \"anna\"\nrole = \"admin\"\npassword = [\"secret\"]\n",
                "must be a string, not sequence",
            ),
            ("[provision]\nntp = \"secret\"\n", "must be a sequence, not string"),
        ] {
            assert_eq!(said(text)[0].1, what);
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_on_the_card_is_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let _ = read(&bytes);
        }

        #[test]
        fn whatever_looks_like_toml_too(text in "(\\[{0,2}(provision|mqtt|a)(\\.network|\\.user)?\\]{0,2}\n|[a-z_]{1,9} = [\\[\"{]?[a-z0-9./]{0,9}[\\]\"}]?\n){0,12}") {
            let _ = read(text.as_bytes());
        }
    }
}
