//! How a cable gets its address, as a person writes it and as systemd-networkd reads it (systemd.network(5)).

use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::net::IpAddr;

/// `[[provision.network]]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Network {
    /// Which cables, by their names: "eth0", "en*". Default: every one.
    pub interface: Option<String>,
    /// Default: true without an address.
    pub dhcp: Option<bool>,
    /// With its prefix: "10.0.0.5/24".
    pub address: Option<String>,
    pub gateway: Option<String>,
    pub dns: Vec<String>,
}

impl Network {
    /// All that it has.
    pub(super) const KEYS: [&str; 5] = ["interface", "dhcp", "address", "gateway", "dns"];

    /// What is wrong, each as a sentence with what would be right.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let is_fit = |c: char| c.is_ascii_alphanumeric() || "*?-_.".contains(c);
        if self.interface.as_ref().is_some_and(|name| !(1..=15).contains(&name.len()) || !name.chars().all(is_fit)) {
            faults.push("interface must be a name, as in \"eth0\" or \"en*\"".into());
        }
        let address = self.address.as_deref().map(prefix);
        match (&address, self.dhcp) {
            (None, Some(false)) => faults.push("without dhcp an address is needed, as in \"10.0.0.5/24\"".into()),
            (Some(_), Some(true)) => faults.push("address and dhcp = true exclude each other; leave one out".into()),
            (Some(Err(what)), _) => faults.push(what.clone()),
            _ => {}
        }
        if let Some(Ok((own, bits))) = &address
            && let Some(what) = no_host(*own, *bits)
        {
            faults.push(format!("address {own}/{bits} is {what}; write that of this device, as in \"10.0.0.5/24\""));
        }
        if let Some(text) = &self.gateway {
            match (text.parse::<IpAddr>(), address) {
                (Err(_), _) => faults.push(format!("gateway {text:?} is no address, as in \"10.0.0.1\"")),
                (Ok(_), None) => faults.push("gateway needs an address; with DHCP it comes by itself".into()),
                // Else nothing beyond the cable is reached, and nobody there can say why.
                (Ok(gateway), Some(Ok((own, bits)))) if !is_in(gateway, own, bits) => {
                    faults.push(format!("gateway {gateway} is not in the network of address {own}/{bits}"));
                }
                (Ok(gateway), Some(Ok((own, _)))) if gateway == own => {
                    faults.push(format!("gateway {gateway} is the address of this device itself; write the router's"));
                }
                _ => {}
            }
        }
        for text in self.dns.iter().filter(|text| text.parse::<IpAddr>().is_err()) {
            faults.push(format!("dns {text:?} is no address, as in \"10.0.0.1\""));
        }
        faults
    }

    /// The file for systemd-networkd.
    pub(super) fn unit(&self) -> String {
        let mut unit = "# Written by vedette provision at each start.\n[Match]\n".to_owned();
        match &self.interface {
            Some(name) => drop(writeln!(unit, "Name={name}")),
            // With its kind, or bridges and the like that somebody makes later would be taken as well.
            None => unit.push_str("Type=ether\n"),
        }
        unit.push_str("\n[Network]\nLinkLocalAddressing=yes\nLLMNR=no\nMulticastDNS=no\n");
        match &self.address {
            Some(address) => drop(writeln!(unit, "DHCP=no\nAddress={address}")),
            None => unit.push_str("DHCP=yes\n"),
        }
        if let Some(gateway) = &self.gateway {
            let _ = writeln!(unit, "Gateway={gateway}");
        }
        for dns in &self.dns {
            let _ = writeln!(unit, "DNS={dns}");
        }
        if self.address.is_none() {
            unit.push_str("\n[DHCPv4]\nUseDomains=yes\nClientIdentifier=mac\n");
        }
        unit
    }
}

fn prefix(text: &str) -> Result<(IpAddr, u8), String> {
    let parsed = text.split_once('/').and_then(|(address, bits)| Some((address.parse().ok()?, bits.parse().ok()?)));
    let longest = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let parsed = parsed.filter(|(address, bits): &(IpAddr, u8)| (1..=longest(*address)).contains(bits));
    parsed.ok_or_else(|| format!("address {text:?} must be an address with its prefix, as in \"10.0.0.5/24\""))
}

/// What an address is that no device can have.
fn no_host(own: IpAddr, bits: u8) -> Option<&'static str> {
    if own.is_unspecified() || own.is_loopback() || own.is_multicast() {
        return Some("none that a device can have on a cable");
    }
    // RFC 3021: with two addresses and with one, both are for hosts.
    let (IpAddr::V4(own), 1..=30) = (own, bits) else { return None };
    let hosts = u32::MAX >> bits;
    match u32::from(own) & hosts {
        0 => Some("that of the network itself"),
        host if host == hosts => Some("the one by which all of its network are meant"),
        _ => None,
    }
}

fn is_in(gateway: IpAddr, own: IpAddr, bits: u8) -> bool {
    match (gateway, own) {
        (IpAddr::V4(gateway), IpAddr::V4(own)) => {
            (u32::from(gateway) ^ u32::from(own)) >> (32 - u32::from(bits)).min(31) == 0
        }
        // A link-local gateway is on every cable.
        (IpAddr::V6(gateway), _) if gateway.is_unicast_link_local() => true,
        (IpAddr::V6(gateway), IpAddr::V6(own)) => {
            (u128::from(gateway) ^ u128::from(own)) >> (128 - u32::from(bits)).min(127) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: Option<&str>, gateway: Option<&str>) -> Network {
        Network { address: address.map(Into::into), gateway: gateway.map(Into::into), ..Network::default() }
    }

    #[test]
    fn what_would_cut_the_device_off_is_found() {
        for (address, gateway, fault) in [
            (Some("10.0.0.5/24"), Some("10.0.0.1"), None),
            (Some("fd00::5/64"), Some("fe80::1"), None),
            (Some("10.0.0.5/32"), Some("10.0.0.4"), Some("is not in the network")),
            (Some("10.0.0.5/24"), Some("10.0.1.1"), Some("is not in the network")),
            (Some("10.0.0.5/24"), Some("fd00::1"), Some("is not in the network")),
            (Some("10.0.0.4/31"), Some("10.0.0.5"), None),
            (Some("10.0.0.5/24"), Some("10.0.0.5"), Some("is the address of this device itself")),
            (Some("10.0.0.0/24"), None, Some("is that of the network itself")),
            (Some("10.0.0.255/24"), None, Some("by which all of its network are meant")),
            (Some("0.0.0.0/24"), None, Some("none that a device can have")),
            (Some("127.0.0.5/8"), None, Some("none that a device can have")),
            (Some("224.0.0.5/24"), None, Some("none that a device can have")),
            (Some("::1/64"), None, Some("none that a device can have")),
            (Some("10.0.0.5/33"), None, Some("must be an address with its prefix")),
            (Some("10.0.0.5/24"), Some("router"), Some("is no address")),
            (None, Some("10.0.0.1"), Some("needs an address")),
            (None, None, None),
        ] {
            let faults = network(address, gateway).faults();
            assert_eq!(faults.is_empty(), fault.is_none(), "{faults:?}");
            assert!(fault.is_none_or(|fault| faults[0].contains(fault)), "{faults:?}");
        }
        assert_eq!(Network { dhcp: Some(false), ..Network::default() }.faults().len(), 1);
        assert_eq!(
            Network { interface: Some("a\nb".into()), dns: vec!["x".into()], ..Network::default() }.faults().len(),
            2
        );
    }

    #[test]
    fn its_keys_are_all_that_it_has() {
        let json = serde_json::to_value(Network::default()).unwrap();
        let mut keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut known = Network::KEYS;
        keys.sort_unstable();
        known.sort_unstable();
        assert_eq!(keys, known);
    }

    #[test]
    fn the_units_say_it_to_networkd() {
        let mut fixed = network(Some("10.0.0.5/24"), Some("10.0.0.1"));
        fixed.dns = vec!["10.0.0.2".into()];
        let unit = fixed.unit();
        assert!(unit.contains("DHCP=no\nAddress=10.0.0.5/24\nGateway=10.0.0.1\nDNS=10.0.0.2\n"), "{unit}");
        let moving = Network { interface: Some("eth1".into()), ..Network::default() }.unit();
        assert!(moving.contains("[Match]\nName=eth1\n") && moving.contains("DHCP=yes"), "{moving}");
    }
}
