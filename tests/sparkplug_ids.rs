//! Each normative statement of Sparkplug 3.0.0 that applies to an edge node has a test that carries its id, and no test carries an id
//! that does not exist.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Ids as test names have them: who proves each that applies; `None` if it does not apply.
fn listed() -> BTreeMap<String, Option<String>> {
    let text = fs::read_to_string(root().join("tests/fixtures/sparkplug-ids.txt")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let read = |line: &str| {
        let [id, applies, more] = line.split(" | ").collect::<Vec<_>>().try_into().unwrap();
        let proof = match (applies, more) {
            ("yes", "unit" | "peer") => Some(more.to_owned()),
            ("no", why) if why.len() > 5 => None,
            _ => panic!("{line}"),
        };
        (id.replace('-', "_").to_lowercase(), proof)
    };
    let listed: Vec<_> = lines.map(read).collect();
    let unique: BTreeMap<_, _> = listed.iter().cloned().collect();
    assert_eq!(unique.len(), listed.len(), "an id stands there twice");
    unique
}

/// The names of tests in a file: `tck_id_...` up to whatever ends the word, where one is defined.
fn named(file: &Path, before: &[&str]) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let of_line = |line: &str| {
        let line = line.trim_start();
        let rest = before.iter().find_map(|before| line.strip_prefix(before))?;
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        name.starts_with("tck_id_").then_some(name)
    };
    text.lines().filter_map(of_line).collect()
}

fn unit_tests() -> Vec<String> {
    let folder = root().join("src/sinks/mqtt/sparkplug/session/tests/tck");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.flat_map(|file| named(&file, &[""])).collect()
}

fn peer_tests() -> Vec<String> {
    named(&root().join("tests/peers/test_sparkplug.py"), &["def test_"])
}

#[test]
fn each_id_that_applies_has_a_test_and_no_test_has_an_id_that_does_not_exist() {
    let listed = listed();
    assert_eq!(listed.len(), 299, "the ids of the specification");
    for (who, tests) in [("unit", unit_tests()), ("peer", peer_tests())] {
        let unique: BTreeSet<&String> = tests.iter().collect();
        assert_eq!(unique.len(), tests.len(), "a name stands there twice");
        for test in &tests {
            match listed.get(test) {
                None => panic!("{test} is no id of the specification"),
                Some(proof) => assert!(proof.is_some(), "{test} does not apply to an edge node, says the list"),
            }
        }
        let missing: Vec<&String> = listed
            .iter()
            .filter(|(id, proof)| proof.as_deref() == Some(who) && !unique.contains(id))
            .map(|(id, _)| id)
            .collect();
        assert!(missing.is_empty(), "without a test ({who}): {missing:#?}");
    }
    let applying = listed.values().flatten().count();
    assert_eq!((applying, unit_tests().len()), (185, 179), "README says these numbers");
}
