//! What this device calls itself as an application of OPC UA, as server and as client alike: there is one certificate.

use super::Application;
use crate::base::interfaces;
use std::net::IpAddr;

impl Application {
    /// The hosts are every name and address by which a client may come, as things are when the certificate is made, and
    /// whatever the server is told to listen on. Addresses may change later, and then a client that compares them needs a
    /// name: a new certificate for each would have to be trusted anew by all.
    pub fn of_device(device_name: &str, listen: Option<IpAddr>) -> Self {
        let host = host_name();
        // What mDNS calls it.
        let local = (!host.contains('.')).then(|| format!("{host}.local"));
        let mut hosts: Vec<String> = [host].into_iter().chain(local).collect();
        hosts.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        hosts.extend(interfaces::addresses().iter().map(ToString::to_string));
        // It may stand on an interface that is not up yet.
        hosts.extend(listen.filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()));
        Self { name: device_name.into(), uri: application_uri(device_name), hosts }
    }
}

/// `urn:<host>:vedette:<device>`, so that two devices in one plant differ (OPC 10000-4, 7.2: globally unique).
fn application_uri(device_name: &str) -> String {
    format!("urn:{}:vedette:{}", uri_part(&host_name()), uri_part(device_name))
}

/// A URI has only ASCII, and so has the certificate that carries it.
fn uri_part(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' }).collect()
}

/// Of this machine.
pub fn host_name() -> String {
    let name = imp::host_name();
    if name.is_empty() { "localhost".into() } else { name }
}

#[cfg(unix)]
mod imp {
    pub fn host_name() -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }
}

#[cfg(windows)]
mod imp {
    /// Every process is told; a service, too.
    pub fn host_name() -> String {
        std::env::var("COMPUTERNAME").unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_uri_has_no_blanks() {
        let uri = application_uri("Linie 1 / Süd");
        assert!(uri.starts_with("urn:") && uri.ends_with(":vedette:Linie-1---S-d"), "{uri}");
    }
}
