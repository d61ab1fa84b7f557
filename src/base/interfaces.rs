//! Under which addresses this machine can be reached.

use std::net::IpAddr;

/// Addresses that are ours and stay: without loopback, without link-local ones, which mean nothing to another network, and
/// without the temporary ones of IPv6 (RFC 8981), which are gone tomorrow, as far as the system tells them apart.
pub fn addresses() -> Vec<IpAddr> {
    imp::addresses()
}

#[cfg(target_os = "linux")]
mod imp {
    //! As the kernel lists them in /proc/net.

    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    pub fn addresses() -> Vec<IpAddr> {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let mut found: Vec<IpAddr> = local_v4(&read("/proc/net/fib_trie")).into_iter().map(IpAddr::V4).collect();
        found.extend(global_v6(&read("/proc/net/if_inet6")).into_iter().map(IpAddr::V6));
        found
    }

    /// The kernel's routing table: an address, and in the next line that it is a host's and our own.
    ///
    ///     |-- 192.168.1.5
    ///        /32 host LOCAL
    pub(super) fn local_v4(trie: &str) -> Vec<Ipv4Addr> {
        let mut found = Vec::new();
        let mut last = None;
        for line in trie.lines().map(str::trim) {
            if let Some(address) = line.strip_prefix("|-- ") {
                last = address.parse::<Ipv4Addr>().ok();
            } else if line == "/32 host LOCAL"
                && let Some(address) = last
                && !address.is_loopback()
                && !address.is_link_local()
                && !found.contains(&address)
            {
                found.push(address);
            }
        }
        found
    }

    /// Address, index, prefix, scope, flags, name, all but the last in hex. Scope 0 is global; flag 1 is temporary.
    pub(super) fn global_v6(table: &str) -> Vec<Ipv6Addr> {
        let address = |line: &str| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let flags = u32::from_str_radix(columns.get(4)?, 16).ok()?;
            let is_lasting = columns.get(3) == Some(&"00") && flags & 0x01 == 0;
            let bits = u128::from_str_radix(columns.first()?, 16).ok()?;
            is_lasting.then(|| Ipv6Addr::from_bits(bits))
        };
        table.lines().filter_map(address).collect()
    }
}

#[cfg(windows)]
mod imp {
    use std::net::IpAddr;

    pub fn addresses() -> Vec<IpAddr> {
        let all = if_addrs::get_if_addrs().unwrap_or_default();
        all.iter().filter(|found| !found.is_loopback() && !found.is_link_local()).map(|found| found.ip()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::addresses;
    use super::imp::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn what_stays_is_told_from_what_does_not() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 127.0.0.1\n        \
                    /32 host LOCAL\n     |-- 169.254.3.4\n        /32 host LOCAL\n     |-- 192.168.1.0\n        /24 link \
                    UNICAST\n     |-- 192.168.1.5\n        /32 host LOCAL\nLocal:\n     |-- 192.168.1.5\n        /32 host \
                    LOCAL\n     |-- 192.168.1.255\n        /32 link BROADCAST\n";
        assert_eq!(local_v4(trie), [Ipv4Addr::new(192, 168, 1, 5)]);
        let table = "00000000000000000000000000000001 01 80 10 80 lo\nfe80000000000000021122fffe334455 02 40 20 80 eth0\n\
                     20010db8000000000000000000000005 02 40 00 00 eth0\n20010db800000000abcdef0123456789 02 40 00 01 eth0\n";
        assert_eq!(global_v6(table), ["2001:db8::5".parse::<Ipv6Addr>().unwrap()]);
        assert!(local_v4("").is_empty() && global_v6("x").is_empty());
    }

    #[test]
    fn this_machine_has_no_loopback_among_them() {
        assert!(addresses().iter().all(|address| !address.is_loopback()));
    }
}
