//! `vedette discover`: which servers there are.
//!
//!     no HOST   what announces itself by mDNS, and what the discovery server of this machine knows
//!     HOST      its ports that usually have a server, each asked for the servers it knows (FindServers)
//!
//! Then each server that was found is asked for its endpoints. Only a host that is named is ever scanned.

mod mdns;

use super::remote::{self, Failure, Output, explain};
use super::show::printable;
use crate::base::duration;
use crate::opcua::client::{ConnectError, Offer, find_servers, offers};
use crate::opcua::trust::x509::thumbprint;
use futures_util::StreamExt;
use opcua::types::ApplicationDescription;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpStream;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A host to look at: its name or address, with or without a port, or a whole URL. Without it: the network by mDNS,
    /// and the discovery server of this machine.
    host: Option<String>,
    /// Ports to look at: 4840-4850,48010. Default: those that servers usually have.
    #[arg(long, value_name = "PORTS", value_parser = ports, requires = "host")]
    ports: Option<Ports>,
    /// How long to listen to the network, and to wait for each answer.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration::parse)]
    timeout: Duration,
    /// For scripts: one JSON object for each server.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Ports(Vec<RangeInclusive<u16>>);

/// 4840 is OPC UA's own (IANA), 4843 its over TLS; then the defaults of widespread servers and SDKs.
const USUAL: [RangeInclusive<u16>; 11] = [
    4840..=4860,
    4870..=4871,
    4885..=4885,
    4897..=4897,
    12686..=12686,
    16664..=16664,
    26543..=26543,
    48010..=48060,
    49320..=49321,
    51210..=51212,
    53530..=53530,
];
/// Sockets at once.
const AT_ONCE: usize = 32;
/// Of servers that a discovery server can make us ask.
const MOST: usize = 500;

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    remote::run(discover(arguments))
}

/// By URL, with how it was found.
type Places = BTreeMap<String, Place>;

#[derive(Default)]
struct Place {
    name: String,
    uri: String,
    found: Vec<&'static str>,
}

async fn discover(arguments: &Arguments) -> Result<(), Failure> {
    let mut output = Output::new(arguments.json);
    let mut places = Places::new();
    match &arguments.host {
        Some(host) => scan(host, arguments, &mut places, &mut output).await?,
        None => look_around(arguments, &mut places, &mut output).await,
    }
    let timeout = arguments.timeout;
    let asked = futures_util::stream::iter(places.into_iter().take(MOST).map(|(url, place)| async move {
        let offered = offers(&url, timeout).await;
        (url, place, offered)
    }));
    let mut asked = asked.buffered(8);
    let mut count = 0;
    while let Some((url, place, offered)) = asked.next().await {
        count += 1;
        match output.is_json {
            true => output.json(&object(&url, &place, offered.as_deref()))?,
            false => output.line(&describe(&url, &place, offered.as_deref()))?,
        }
    }
    if count == 0 {
        output.note(match &arguments.host {
            Some(_) => "no server answers there; --ports looks at other ports",
            None => {
                "no server was found; servers need not announce themselves: `vedette discover HOST` looks at one host"
            }
        });
        return Err(Failure::Said);
    }
    Ok(())
}

async fn look_around(arguments: &Arguments, places: &mut Places, output: &mut Output) {
    output.progress.tell(|| "listening for mDNS".into());
    match mdns::listen(arguments.timeout).await {
        Ok(heard) => {
            for (url, name) in heard {
                let place = places.entry(url).or_default();
                place.name = name;
                place.found.push("mDNS");
            }
        }
        Err(error) => output.note(&format!("cannot listen for mDNS: {error}")),
    }
    // Where there is none nothing is wrong.
    if let Ok(servers) = find_servers("opc.tcp://localhost:4840", arguments.timeout).await {
        learn(places, servers);
    }
}

/// The ports of one host that take a connection, and what a server on one of them knows.
async fn scan(host: &str, arguments: &Arguments, places: &mut Places, output: &mut Output) -> Result<(), Failure> {
    let host = host.strip_prefix("opc.tcp://").unwrap_or(host);
    let authority = host.split('/').next().unwrap_or(host);
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') && !name.contains("::") => match port.parse::<u16>() {
            Ok(port) => (name, Some(port)),
            Err(_) => return Err(Failure::Wrong(format!("{port:?} is no port"))),
        },
        _ => (authority, None),
    };
    let ports: Vec<u16> = match (&arguments.ports, port) {
        (Some(ports), _) => ports.0.iter().cloned().flatten().collect(),
        (None, Some(port)) => vec![port],
        (None, None) => USUAL.into_iter().flatten().collect(),
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']').to_owned();
    if let Err(error) = tokio::net::lookup_host((bare.as_str(), 0)).await {
        return Err(Failure::failed(format!(
            "{name}: {error}\nthe name of the host is not known: is it spelled right?"
        )));
    }
    let (all, timeout) = (ports.len(), arguments.timeout);
    let knocks = futures_util::stream::iter(ports.into_iter().map(|port| {
        let bare = bare.as_str();
        async move {
            let knock = tokio::time::timeout(timeout, TcpStream::connect((bare, port))).await;
            matches!(knock, Ok(Ok(_))).then_some(port)
        }
    }));
    let mut knocks = knocks.buffer_unordered(AT_ONCE);
    let (mut open, mut done) = (Vec::new(), 0);
    while let Some(port) = knocks.next().await {
        done += 1;
        output.progress.tell(|| format!("{done} of {all} ports of {name}, {} open", open.len()));
        open.extend(port);
    }
    open.sort_unstable();
    for port in open {
        let url = format!("opc.tcp://{name}:{port}");
        match find_servers(&url, timeout).await {
            Ok(servers) => {
                let place = places.entry(url).or_default();
                place.found.push("scan");
                // The only one it knows is itself.
                if let [server] = servers.as_slice() {
                    place.name = printable(server.application_name.text.as_ref());
                    place.uri = printable(server.application_uri.as_ref());
                }
                learn(places, servers);
            }
            // Something else listens there.
            Err(error) => output.note(&format!("{url} is open, but no OPC UA: {error}")),
        }
    }
    Ok(())
}

fn learn(places: &mut Places, servers: Vec<ApplicationDescription>) {
    for server in servers.into_iter().take(MOST) {
        let (name, uri) = (server.application_name.text.to_string(), server.application_uri.to_string());
        let urls = server.discovery_urls.into_iter().flatten().map(|url| url.to_string());
        for url in urls.filter(|url| url.starts_with("opc.tcp://")) {
            let place = places.entry(url.trim_end_matches('/').to_owned()).or_default();
            if place.name.is_empty() {
                place.name = printable(&name);
            }
            place.uri = printable(&uri);
            if !place.found.contains(&"FindServers") {
                place.found.push("FindServers");
            }
        }
    }
}

fn describe(url: &str, place: &Place, offered: Result<&[Offer], &ConnectError>) -> String {
    let mut text = format!("{}  {}  ({})", printable(url), place.name, place.found.join(", "));
    if !place.uri.is_empty() {
        text += &format!("\n    ApplicationUri  {}", place.uri);
    }
    match offered {
        Err(error) => {
            for line in explain(error).lines() {
                text += &format!("\n    {line}");
            }
        }
        Ok(offers) => {
            let certificate = offers.iter().map(|offer| offer.description.server_certificate.as_ref());
            if let Some(der) = certificate.into_iter().find(|der| !der.is_empty()) {
                text += &format!("\n    certificate     {}", thumbprint(der));
            }
            for offer in offers {
                let logins = offer.logins.join(", ");
                text += &format!("\n    {:<24}{:<16}{logins}", printable(&offer.policy), printable(&offer.mode));
            }
        }
    }
    text
}

fn object(url: &str, place: &Place, offered: Result<&[Offer], &ConnectError>) -> Json {
    let mut object = json!({ "url": url, "name": place.name, "applicationUri": place.uri, "found": place.found });
    match offered {
        Err(error) => object["error"] = json!(error.to_string()),
        Ok(offers) => {
            let endpoint = |offer: &Offer| {
                let certificate = offer.description.server_certificate.as_ref();
                json!({
                    "url": offer.url,
                    "policy": offer.policy,
                    "mode": offer.mode,
                    "logins": offer.logins,
                    "level": offer.level,
                    "thumbprint": (!certificate.is_empty()).then(|| thumbprint(certificate)),
                })
            };
            object["endpoints"] = offers.iter().map(endpoint).collect();
        }
    }
    object
}

/// `4840-4850,48010`
fn ports(text: &str) -> Result<Ports, String> {
    let wrong = || format!("{text:?} are no ports; write them as in 4840-4850,48010");
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    let range = |part: &str| match part.split_once('-') {
        Some((from, to)) => Ok(port(from)?..=port(to)?),
        None => port(part).map(|port| port..=port),
    };
    let ranges = text.split(',').map(range).collect::<Result<Vec<_>, String>>()?;
    if ranges.iter().any(RangeInclusive::is_empty) { Err(wrong()) } else { Ok(Ports(ranges)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_and_ranges() {
        assert_eq!(ports("4840"), Ok(Ports(vec![4840..=4840])));
        assert_eq!(ports("4840-4850, 48010"), Ok(Ports(vec![4840..=4850, 48010..=48010])));
        for wrong in ["", "0", "x", "5-4", "1-", "70000"] {
            assert!(ports(wrong).unwrap_err().contains("4840-4850,48010"), "{wrong}");
        }
    }
}
