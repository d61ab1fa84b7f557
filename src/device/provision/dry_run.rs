//! What a file would do, or what is wrong with it: for whoever writes one, without a device (`vedette provision --check FILE`).
//!
//! Looked at by the same code as on a device that was told nothing yet. Nothing is written, and no secret is told.

use super::boot::read_bounded;
use super::file::{self, Fault, Provision};
use super::system::System;
use super::{BROKER_PASSWORD, Check, FILE, Places, Provisioning, in_words, table};
use std::path::Path;

/// What it would do, in sentences; or its faults.
pub fn dry_run(path: &Path, check: Check<'_>) -> Result<Vec<String>, Vec<String>> {
    let bytes = read_bounded(path).map_err(|error| vec![format!("{}: cannot read it ({error})", path.display())])?;
    let faults = |faults: Vec<Fault>| faults.iter().map(in_words).collect::<Vec<_>>();
    let wanted = file::read(&bytes).map_err(faults)?;
    let mut told = told(&wanted.provision);
    let files: Vec<String> = wanted.provision.file.iter().map(|file| file.get_ref().name.clone()).collect();
    // As they are on a device.
    let places = Places {
        boot: "/boot".into(),
        data: "/data".into(),
        run: "/run".into(),
        host_name: "/proc/sys/kernel/hostname".into(),
        root: "/".into(),
    };
    let provisioning = Provisioning { places: &places, check, said: Vec::new(), faults: Vec::new(), data_lost: None };
    let system = System { own_name: "vedette-123456".into(), ..System::default() };
    let (_, configuration) = provisioning.complete(wanted, &system)?;
    let Some(text) = configuration else {
        told.push("configuration: stays as it is; on a new device the defaults".into());
        return Ok(told);
    };
    let tables: Vec<String> = table(&text).keys().map(|name| format!("[{name}]")).collect();
    told.push(format!("configuration, as a whole: {}", tables.join(" ")));
    let secrets = format!("{}/", provisioning.service().join(super::SECRETS).display());
    for rest in text.split(&secrets).skip(1) {
        let name = rest.split(['"', '\'']).next().unwrap_or_default();
        if name != BROKER_PASSWORD && !files.iter().any(|file| file == name) {
            told.push(format!(
                "NOTE: {secrets}{name} is no [[provision.file]] of this file; the device must have it already"
            ));
        }
    }
    if !path.file_name().is_some_and(|name| name.eq_ignore_ascii_case(FILE)) {
        told.push(format!("NOTE: on the boot partition it must be called {FILE}"));
    }
    Ok(told)
}

fn told(provision: &Provision) -> Vec<String> {
    let mut told = Vec::new();
    let mut tell = |what: &str, values: Vec<String>, none: &str| {
        told.push(format!("{what}: {}", if values.is_empty() { none.to_owned() } else { values.join(", ") }));
    };
    if let Some(name) = &provision.host_name {
        tell("host name", vec![name.get_ref().clone()], "");
    }
    if let Some(networks) = &provision.network {
        let networks = networks.iter().map(|network| {
            let network = network.get_ref();
            let interface = network.interface.as_deref().unwrap_or("every cable");
            format!("{interface} {}", network.address.as_deref().unwrap_or("by DHCP"))
        });
        tell("network", networks.collect(), "DHCP on every cable");
    }
    if let Some(ntp) = &provision.ntp {
        tell("time servers", ntp.iter().map(|server| server.get_ref().clone()).collect(), "the public pool alone");
    }
    if !provision.user.is_empty() {
        let users = provision.user.iter().map(|user| format!("{} ({:?})", user.get_ref().name, user.get_ref().role));
        tell("users", users.collect(), "");
    }
    if let Some(keys) = &provision.ssh_keys {
        // The comment is what a person knows a key by.
        let keys = keys.iter().map(|key| key.get_ref().split(' ').nth(2).unwrap_or("a key without a name").to_owned());
        tell("SSH as root for", keys.collect(), "nobody, it is off");
    }
    if provision.broker_password.is_some() {
        tell("the broker's password", vec!["is in it".into()], "");
    }
    if !provision.trusted.is_empty() {
        tell("trusted certificates", vec![provision.trusted.len().to_string()], "");
    }
    if !provision.file.is_empty() {
        tell("secret files", provision.file.iter().map(|file| file.get_ref().name.clone()).collect(), "");
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_looked_at_without_a_device_and_no_secret_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("press-4.toml");
        let check = |_: &Path, text: &str| {
            if text.contains("wrong") { Err(vec!["vedette.toml:2: no".to_owned()]) } else { Ok(()) }
        };
        let text = "[provision]\nhost_name = \"press-4\"\nbroker_password = \"s3cret-of-it\"\nssh_keys = []\n\
                    [[provision.user]]\nname = \"anna\"\nrole = \"admin\"\npassword = \"s3cret-of-hers\"\n\
                    [mqtt]\nbroker = \"mqtts://b\"\nca_file = \"/data/vedette/secrets/ca.pem\"\n";
        fs::write(&file, text).unwrap();
        assert_eq!(
            dry_run(&file, &check).unwrap(),
            [
                "host name: press-4",
                "users: anna (Admin)",
                "SSH as root for: nobody, it is off",
                "the broker's password: is in it",
                "configuration, as a whole: [device] [mqtt]",
                "NOTE: /data/vedette/secrets/ca.pem is no [[provision.file]] of this file; the device must have it already",
                "NOTE: on the boot partition it must be called vedette.toml",
            ]
        );
        fs::write(&file, "[provision]\nhost_name = \"a b\"\n").unwrap();
        assert!(dry_run(&file, &check).unwrap_err()[0].starts_with("vedette.toml:2: [provision] host_name: must be"));
        fs::write(&file, "[mqtt]\nwrong = 1\n").unwrap();
        assert_eq!(dry_run(&file, &check).unwrap_err(), ["vedette.toml:2: no"]);
        let missing = dry_run(&folder.path().join("none"), &check).unwrap_err();
        assert!(missing[0].contains("cannot read it"), "{missing:?}");
    }
}
