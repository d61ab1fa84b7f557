//! What the system is told at each start, because its own folders are read-only or in memory.
//!
//!     data/provision/system.json ──► the kernel's host name
//!                                ──► run/systemd/network/10-vedette-N.network    before systemd-networkd starts
//!                                ──► run/vedette/ntp.d/provisioned.sources       before chrony
//!     [ua_server] of the configuration ──► run/vedette/nftables.d/ports.nft      before nftables, and after each change of it

use super::Places;
use super::network::Network;
use crate::base::files;
use serde::{Deserialize, Serialize};
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The port of OPC UA, where a configuration names none (OPC 10000-6, 7.2).
const UA_PORT: u16 = 4840;
const MDNS_PORT: u16 = 5353;
const SSH_PORT: u16 = 22;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct System {
    /// Chosen at the first start and kept: what it is made of may not be there as early at the next.
    pub own_name: String,
    /// As somebody wants it.
    pub host_name: Option<String>,
    pub network: Vec<Network>,
    pub ntp: Vec<String>,
}

impl System {
    /// Nothing, if it was never written: then the device has its defaults. What this release does not know is left out: another one,
    /// that the device fell back from, wrote it.
    pub(super) fn load(path: &Path) -> io::Result<Self> {
        let json = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            json => json?,
        };
        let mut kept: serde_json::Value = serde_json::from_slice(&json)?;
        let networks = kept.get_mut("network").and_then(serde_json::Value::as_array_mut);
        for network in networks.into_iter().flatten().filter_map(serde_json::Value::as_object_mut) {
            network.retain(|key, _| Network::KEYS.contains(&key.as_str()));
        }
        Ok(serde_json::from_value(kept)?)
    }

    /// For [`System::load`].
    pub(super) fn stage(&self, path: &Path) -> io::Result<files::Staged> {
        files::stage(path, 0o600, None, &serde_json::to_vec_pretty(self)?)
    }

    /// That of this device: as somebody wants it, or its own.
    pub(super) fn name(&self) -> &str {
        self.host_name.as_ref().unwrap_or(&self.own_name)
    }

    /// What went wrong.
    pub(super) fn apply(&self, places: &Places, configuration: &str) -> Vec<String> {
        let mut said = Vec::new();
        let mut tried = |what: &str, outcome: io::Result<()>| {
            if let Err(error) = outcome {
                said.push(format!("{what} ({error})"));
            }
        };
        tried("the host name cannot be set", fs::write(&places.host_name, self.name()));
        tried("the network cannot be written", self.write_network(&places.run.join("systemd/network")));
        let sources: String = self.ntp.iter().map(|server| format!("server {server} iburst\n")).collect();
        let ntp = replace(&places.run.join("vedette/ntp.d"), "provisioned.sources", &sources);
        tried("the time servers cannot be written", ntp);
        tried("the open ports cannot be written", write_ports(places, configuration));
        said
    }

    fn write_network(&self, folder: &Path) -> io::Result<()> {
        files::make_folder(folder, 0o755)?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("10-vedette-") {
                files::remove(&entry.path())?;
            }
        }
        // A name before a pattern, a pattern before what is for all: networkd takes the first that fits.
        let mut networks: Vec<&Network> = self.network.iter().collect();
        networks.sort_by_key(|network| match &network.interface {
            None => 2,
            Some(name) if name.contains(['*', '?']) => 1,
            Some(_) => 0,
        });
        for (index, network) in networks.into_iter().enumerate() {
            replace(folder, &format!("10-vedette-{index:02}.network"), &network.unit())?;
        }
        Ok(())
    }
}

pub(super) fn write_ports(places: &Places, configuration: &str) -> io::Result<()> {
    // vedette-ssh.socket asks the same; it adds its port by itself, but what is written here replaces all of them.
    let has_ssh = fs::metadata(places.data.join("ssh/authorized_keys")).is_ok_and(|about| about.len() > 0);
    replace(&places.run.join("vedette/nftables.d"), "ports.nft", &ports(configuration, has_ssh)?)
}

/// For services that are not root, whatever the umask is.
fn replace(folder: &Path, name: &str, content: &str) -> io::Result<()> {
    files::make_folder(folder, 0o755)?;
    let path = folder.join(name);
    files::write_whole(&path, 0o644, content.as_bytes())?;
    fs::set_permissions(path, Permissions::from_mode(0o644))
}

/// What config/device/root/etc/nftables.conf includes. Of a configuration that cannot be read there is no answer: while the program
/// runs it goes on with its last one, and so does the firewall.
fn ports(configuration: &str, has_ssh: bool) -> io::Result<String> {
    let (mut tcp, mut udp) = (has_ssh.then_some(SSH_PORT).into_iter().collect::<Vec<_>>(), Vec::new());
    let table: toml::Table = toml::from_str(configuration).map_err(io::Error::other)?;
    if let Some(server) = table.get("ua_server").and_then(toml::Value::as_table) {
        let listen = server.get("listen").and_then(toml::Value::as_str).and_then(|text| text.parse().ok());
        let listen = listen.unwrap_or(SocketAddr::from(([0, 0, 0, 0], UA_PORT)));
        if !listen.ip().is_loopback() {
            tcp.push(listen.port());
            let is_announced = server.get("mdns") != Some(&toml::Value::Boolean(false));
            udp.extend(is_announced.then_some(MDNS_PORT));
        }
    }
    let set = |name: &str, ports: &[u16]| {
        let add = ports.iter().map(|port| format!("add element inet vedette {name} {{ {port} }}\n"));
        format!("flush set inet vedette {name}\n{}", add.collect::<String>())
    };
    Ok(set("tcp_ports", &tcp) + &set("udp_ports", &udp))
}

/// `vedette-` and six digits that stay with the device: of the board's serial number, of the address of its first cable, of what the
/// first start made up.
pub(super) fn own_name(root: &Path) -> String {
    let serial = fs::read_to_string(root.join("sys/firmware/devicetree/base/serial-number"));
    let digits = |text: &str| text.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_lowercase();
    let machine = || fs::read_to_string(root.join("etc/machine-id")).ok();
    let candidates = [serial.ok(), first_address(root), machine()];
    let of = |text: String| {
        let digits = digits(&text);
        // Boards without a number say zeros.
        (digits.len() >= 6 && digits.chars().any(|digit| digit != '0')).then(|| digits[digits.len() - 6..].to_owned())
    };
    let tail = candidates.into_iter().flatten().find_map(of);
    format!("vedette-{}", tail.unwrap_or_else(|| "device".into()))
}

/// Of the first network card that is one: it has a device behind it.
fn first_address(root: &Path) -> Option<String> {
    let entries = fs::read_dir(root.join("sys/class/net")).ok()?;
    let mut cards: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    cards.retain(|card| card.join("device").exists());
    cards.sort();
    cards.iter().find_map(|card| fs::read_to_string(card.join("address")).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_made_of_what_stays() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        assert_eq!(own_name(root.path()), "vedette-device");
        write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        assert_eq!(own_name(root.path()), "vedette-abcdef");
        write("sys/class/net/eth0/address", "b8:27:eb:12:34:56\n");
        write("sys/class/net/br0/address", "b8:27:eb:12:34:99\n");
        write("sys/class/net/eth0/device/x", "");
        assert_eq!(own_name(root.path()), "vedette-123456");
        write("sys/firmware/devicetree/base/serial-number", "0000000000000000\0");
        assert_eq!(own_name(root.path()), "vedette-123456");
        write("sys/firmware/devicetree/base/serial-number", "100000001234ABCD\0");
        assert_eq!(own_name(root.path()), "vedette-34abcd");
    }

    #[test]
    fn what_is_configured_is_open_and_nothing_else() {
        let none = "flush set inet vedette tcp_ports\nflush set inet vedette udp_ports\n";
        let ports = |configuration, has_ssh| super::ports(configuration, has_ssh).unwrap();
        assert_eq!(ports("[mqtt]\n", false), none);
        assert!(super::ports("not toml", false).is_err(), "what is open stays so");
        assert_eq!(ports("[ua_server]\nlisten = \"127.0.0.1:4840\"\n", false), none);
        // Whoever is there by SSH stays there.
        assert!(ports("[ua_server]\n", true).starts_with(
            "flush set inet vedette tcp_ports\nadd element inet vedette tcp_ports { 22 }\nadd element inet vedette tcp_ports { 4840 }\n"
        ));
        let open = ports("[ua_server]\nlisten = \"0.0.0.0:4841\"\nmdns = false\n", false);
        assert_eq!(
            open,
            "flush set inet vedette tcp_ports\nadd element inet vedette tcp_ports { 4841 }\nflush set inet vedette udp_ports\n"
        );
        assert!(ports("[ua_server]\n", false).ends_with("add element inet vedette udp_ports { 5353 }\n"));
    }
}
