//! The law of the architecture, held by reading the source: which module may use which, which may use which crate, and
//! where `unsafe` may stand. README has the picture.
//!
//! `crate::X` in a file of module Y is a use of X by Y, wherever it stands outside of comments and of
//! tests. Names are looked for as text, which is crude and so cannot be fooled by cleverness.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Module, what of this crate it may use, which crates with a say in the architecture it may use.
const LAW: &[(&str, &[&str], &[&str])] = &[
    ("model", &[], &[]),
    ("base", &[], &["tokio", "toml"]),
    ("hub", &["model", "base"], &["tokio"]),
    ("store", &["model", "base"], &["redb", "tokio"]),
    ("opcua", &["model", "base"], &["opcua", "tokio"]),
    ("mqtt", &["model", "base"], &["tokio", "rumqttc", "rumqttc_v4"]),
    ("users", &["model", "base", "opcua"], &["tokio", "toml", "argon2"]),
    // `users` because provisioning makes them; `hub` for the words in which an update is told.
    ("device", &["model", "base", "hub", "users"], &["tokio", "toml", "zbus", "ureq"]),
    ("cameras", &["model", "base", "hub"], &["tokio", "v4l", "turbojpeg"]),
    ("sources", &["model", "base", "hub", "opcua"], &["tokio", "opcua", "toml"]),
    ("sinks", &["model", "base", "hub", "store", "opcua", "users", "mqtt"], &["tokio", "opcua", "toml"]),
    ("config", &["base", "store", "cameras", "sources", "sinks"], &["toml"]),
    // `mqtt` for the simulation of many devices, which counts what goes over their lines.
    (
        "app",
        &["model", "base", "hub", "store", "opcua", "mqtt", "device", "cameras", "sources", "sinks", "config"],
        &["tokio", "toml"],
    ),
    ("cli", &["model", "base", "app", "device", "cameras", "opcua", "users", "mqtt"], &["tokio", "clap", "opcua"]),
    ("relay", &["model", "base", "opcua", "users"], &["tokio", "opcua", "toml", "clap"]),
    ("main", &["cli"], &[]),
    ("bin", &["relay"], &[]),
    ("lib", &[], &[]),
];

/// Crates that only the modules named above may use.
const WATCHED: &[&str] =
    &["tokio", "opcua", "rumqttc", "rumqttc_v4", "redb", "v4l", "turbojpeg", "toml", "clap", "argon2", "zbus", "ureq"];

/// Folders whose children must not know each other.
const STRANGERS: &[&str] = &["sources", "sinks"];

/// Where `unsafe` may stand: files, and folders as a whole, which end with a slash.
const UNSAFE: &[&str] =
    &["cameras/v4l2/ioctl.rs", "cameras/v4l2/buffers.rs", "cameras/v4l2/control_calls.rs", "relay/com/"];

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.push((name, code(&fs::read_to_string(path).unwrap())));
            }
        }
    }
    assert!(files.len() > 30, "the source was not found");
    files
}

/// Without comments and without what follows `#[cfg(test)]`, which by this project's custom ends the file.
fn code(text: &str) -> String {
    let before_tests = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let lines = before_tests.lines().map(|line| line.split("//").next().unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn module_of(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

fn law_for(file: &str) -> &'static (&'static str, &'static [&'static str], &'static [&'static str]) {
    let module = module_of(file);
    let law = LAW.iter().find(|(name, ..)| *name == module);
    law.unwrap_or_else(|| panic!("src/{file}: module `{module}` has no place in the law; give it one"))
}

/// The words that follow `prefix::` in `text`, also in `prefix::{a, b}`.
fn after(text: &str, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    let marker = format!("{prefix}::");
    for (at, _) in text.match_indices(&marker) {
        let is_word = text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
        if is_word {
            continue;
        }
        let rest = &text[at + marker.len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(top_level_names(list)),
            None => found.push(word(rest)),
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn top_level_names(list: &str) -> Vec<String> {
    let (mut depth, mut names, mut is_start) = (0, Vec::new(), true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_start = true,
            c if is_start && depth == 0 && !c.is_whitespace() => {
                names.push(word(&list[at..]));
                is_start = false;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn modules_use_only_what_the_law_allows() {
    for (file, text) in sources() {
        let (module, allowed, _) = law_for(&file);
        // The program sees the library by its name; all others are inside it.
        let own_name = if file == "main.rs" || file.starts_with("bin/") { "vedette" } else { "crate" };
        for used in after(&text, own_name) {
            let is_allowed = used == *module || allowed.contains(&used.as_str()) || used.is_empty();
            // Paths such as `crate::Thing` in main and lib are not modules.
            let is_module = LAW.iter().any(|(name, ..)| *name == used);
            assert!(is_allowed || !is_module, "src/{file}: `{module}` must not use `{used}`");
        }
    }
}

#[test]
fn crates_are_used_only_where_the_law_allows() {
    for (file, text) in sources() {
        let (module, _, allowed) = law_for(&file);
        for name in WATCHED.iter().filter(|name| !allowed.contains(name)) {
            // `crate::opcua` is our module; a bare or a leading `::` is the crate.
            let bare = after(&text, name).len() + text.matches(&format!("use ::{name}::")).count();
            assert!(bare == 0, "src/{file}: `{module}` must not use the crate `{name}`");
        }
    }
}

#[test]
fn sources_and_sinks_do_not_know_their_neighbours() {
    for (file, text) in sources() {
        let mut path = file.split('/');
        let (Some(group), Some(own)) = (path.next(), path.next()) else { continue };
        if !STRANGERS.contains(&group) || own == "mod.rs" {
            continue;
        }
        for used in after(&text, &format!("crate::{group}")) {
            assert_eq!(used, own, "src/{file}: one of `{group}` must not use another");
        }
        assert!(!text.contains("super::super::"), "src/{file}: write the path from `crate`, so that it can be checked");
    }
}

#[test]
fn unsafe_stands_only_where_it_may() {
    for (file, text) in sources() {
        let has_unsafe = text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
        let may = UNSAFE.iter().any(|place| file == *place || (place.ends_with('/') && file.starts_with(place)));
        assert!(!has_unsafe || may, "src/{file}: no `unsafe` here");
    }
}

#[test]
fn files_open_with_their_design() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (file, _) in sources() {
        let text = fs::read_to_string(root.join(&file)).unwrap();
        assert!(text.starts_with("//!"), "src/{file}: begin with what it is for (//!)");
    }
}

#[test]
fn the_readers_of_this_law_work() {
    assert_eq!(after("use crate::hub::Hub; crate::base::x()", "crate"), ["hub", "base"]);
    assert_eq!(after("use crate::{hub::{a, b}, model, base::Stop};", "crate"), ["hub", "model", "base"]);
    assert_eq!(after("mycrate::x ::crate::y", "crate"), Vec::<String>::new());
    assert_eq!(code("a // crate::b\n#[cfg(test)]\nmod tests {\ncrate::c").trim(), "a");
}
