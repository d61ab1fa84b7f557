//! Network interfaces, from /sys/class/net (Documentation/ABI/testing/sysfs-class-net): all but loopback and those of
//! containers and virtual machines, which get a new name with each start.

use super::found::{Found, spec};
use super::read::{Reading, number, text};
use crate::model::{DataType, Quality, Status, Value};
use std::fs;
use std::net::IpAddr;
use std::path::Path;

const MOST: usize = 32;
/// What Docker, Podman, Calico and libvirt call their ends.
const PASSING: [&str; 3] = ["veth", "cali", "vnet"];

/// The addresses that the kernel has for each interface.
pub(super) fn addresses() -> Vec<(String, IpAddr)> {
    // Without them the tags say so.
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    all.into_iter().map(|one| (one.name.clone(), one.ip())).collect()
}

pub(super) fn look(sys: &Path, addresses: &[(String, IpAddr)]) -> Vec<Found> {
    let entries = fs::read_dir(sys.join("class/net")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name != "lo" && !is_passing(name));
    names.sort();
    names.iter().take(MOST).flat_map(|name| interface(sys, name, addresses)).collect()
}

/// Of a container or a virtual machine, or the bridge that Docker makes for a network (`br-` and 12 digits of its id).
fn is_passing(name: &str) -> bool {
    let is_id = |id: &str| id.len() == 12 && id.bytes().all(|c| c.is_ascii_hexdigit());
    PASSING.iter().any(|prefix| name.starts_with(prefix)) || name.strip_prefix("br-").is_some_and(is_id)
}

fn interface(sys: &Path, name: &str, addresses: &[(String, IpAddr)]) -> Vec<Found> {
    let folder = sys.join("class/net").join(name);
    let count = |file: &str| number(&folder.join("statistics").join(file)).map(Value::UInt64);
    let all = [
        (("up", DataType::Boolean, "", "There is a link"), is_up(&folder)),
        (("addresses", DataType::String, "", "Its IP addresses, with commas between them"), own(name, addresses)),
        (("speed", DataType::UInt64, "Mbit/s", "Of the link"), speed(&folder)),
        (("rx_bytes", DataType::UInt64, "B", "Received"), count("rx_bytes")),
        (("tx_bytes", DataType::UInt64, "B", "Sent"), count("tx_bytes")),
        (("rx_errors", DataType::UInt64, "", "Packets that were received damaged"), count("rx_errors")),
        (("tx_errors", DataType::UInt64, "", "Packets that could not be sent"), count("tx_errors")),
    ];
    let folder = format!("network/{name}");
    let found = |(tag, reading)| Some(Found { spec: spec(&folder, tag)?, reading });
    all.into_iter().filter_map(found).collect()
}

/// Tunnels have no state of operation, but a carrier while they are up.
fn is_up(folder: &Path) -> Reading {
    let state = text(&folder.join("operstate"))?;
    let has_carrier = || number(&folder.join("carrier")).is_ok_and(|carrier| carrier == 1);
    Ok(Value::Boolean(match state.trim() {
        "up" => true,
        "unknown" => has_carrier(),
        _ => false,
    }))
}

fn own(name: &str, addresses: &[(String, IpAddr)]) -> Reading {
    let own = addresses.iter().filter(|(interface, _)| interface == name);
    Ok(Value::string(own.map(|(_, address)| address.to_string()).collect::<Vec<_>>().join(", ")))
}

/// Without a link, and with what has none of its own (a bridge, radio), it cannot be read or is -1.
fn speed(folder: &Path) -> Reading {
    let unknown = || Quality::new(Status::BAD_NOT_SUPPORTED, "it has no link, or none with a fixed speed");
    number(&folder.join("speed")).map(Value::UInt64).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::super::read::tests::recorded;
    use super::*;

    fn shown(found: Vec<Found>) -> Vec<String> {
        let value = |reading: Reading| match reading {
            Ok(Value::Boolean(value)) => value.to_string(),
            Ok(Value::String(Some(text))) => text.to_string(),
            Ok(Value::UInt64(value)) => value.to_string(),
            Ok(other) => panic!("{other:?}"),
            Err(quality) => quality.status.to_string(),
        };
        found.into_iter().map(|one| format!("{} {}", one.spec.name, value(one.reading))).collect()
    }

    #[test]
    fn a_gateway_with_a_cable_and_a_tunnel_is_understood() {
        let (_folder, root) = recorded(&[
            ("sys/class/net/lo/operstate", "unknown\n"),
            ("sys/class/net/br-0123456789ab/operstate", "up\n"),
            ("sys/class/net/veth1a2b3c4/operstate", "up\n"),
            ("sys/class/net/eth0/operstate", "up\n"),
            ("sys/class/net/eth0/speed", "1000\n"),
            ("sys/class/net/eth0/statistics/rx_bytes", "18446744073709551615\n"),
            ("sys/class/net/eth0/statistics/tx_bytes", "2\n"),
            ("sys/class/net/eth0/statistics/rx_errors", "3\n"),
            ("sys/class/net/eth0/statistics/tx_errors", "4\n"),
            ("sys/class/net/wg0/operstate", "unknown\n"),
            ("sys/class/net/wg0/carrier", "1\n"),
            ("sys/class/net/wg0/speed", "-1\n"),
        ]);
        let addresses = ["192.168.1.5", "fe80::1"].map(|text| ("eth0".to_owned(), text.parse().unwrap()));
        let found = shown(look(&root.sys, &addresses));
        let eth0 = [
            "system/network/eth0/up true",
            "system/network/eth0/addresses 192.168.1.5, fe80::1",
            "system/network/eth0/speed 1000",
            "system/network/eth0/rx_bytes 18446744073709551615",
            "system/network/eth0/tx_bytes 2",
            "system/network/eth0/rx_errors 3",
            "system/network/eth0/tx_errors 4",
        ];
        assert_eq!(found[..7], eth0);
        let wg0 = [
            "system/network/wg0/up true",
            "system/network/wg0/addresses ",
            "system/network/wg0/speed BadNotSupported",
            "system/network/wg0/rx_bytes BadNotSupported",
        ];
        assert_eq!(found[7..11], wg0);
        assert_eq!(found.len(), 14, "none of the containers'");
        assert!(!is_passing("br-lan") && !is_passing("tap0"));
    }

    #[test]
    fn this_machine_has_a_loopback_address() {
        assert!(addresses().iter().any(|(_, address)| address.is_loopback()));
    }
}
