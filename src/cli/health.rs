//! `vedette health`: the gate that a new slot must pass before it is kept (`device::health`).
//!
//! Looked at again and again until nothing is missed or the time is over: cameras and brokers take theirs to be found.

use super::DEFAULT_CONFIG;
use super::remote::{self, Failure};
use crate::app;
use crate::base::duration;
use crate::device::health::State;
use crate::device::{self, keys};
use crate::opcua::client::offers;
use clap::Args;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Where an image has it.
const OF_IMAGE: &str = "/data/vedette";

const LOOK: Duration = Duration::from_secs(2);
/// What fails a while after its start had better do that before it is kept.
const STEADY: Duration = Duration::from_secs(60);
/// How long a program that does not answer has to come back.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of the UA server, which a small machine that has just started is slow to give.
const ANSWER: Duration = Duration::from_secs(15);

#[derive(Args)]
pub(super) struct Arguments {
    /// The configuration. Default: /data/vedette/vedette.toml, where an image has it, or /etc/vedette/vedette.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the running vedette keeps its data. Default: /data/vedette, or what [device] data_dir says.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How long it may take until all is well.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration::parse)]
    within: Duration,
    /// For how long nothing may be missed, in one run of the service. Default: 1m on a slot that is on trial, else not at all.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    steady: Option<Duration>,
    /// Look at nothing: tell the running vedette that this slot is kept.
    #[arg(long, conflicts_with_all = ["within", "steady"])]
    kept: bool,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    remote::run(gate(arguments))
}

/// On an image, unless somebody says otherwise.
pub(super) fn places(config: Option<PathBuf>, data_dir: Option<PathBuf>) -> Result<(PathBuf, PathBuf), Failure> {
    let of_image = Path::new(OF_IMAGE).join("vedette.toml");
    let is_image = of_image.exists();
    let config = config.unwrap_or_else(|| if is_image { of_image } else { DEFAULT_CONFIG.into() });
    if is_image && data_dir.is_none() {
        return Ok((config, OF_IMAGE.into()));
    }
    let data_dir =
        app::data_folder(&config, data_dir.as_deref()).map_err(|faults| Failure::Wrong(faults.to_string()))?;
    Ok((config, data_dir))
}

#[allow(clippy::print_stdout, reason = "the answer to the command")]
async fn gate(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { config, data_dir, within, steady, kept } = arguments;
    let (config, data_dir) = places(config, data_dir)?;
    if kept {
        return tell_kept(&data_dir).await;
    }
    let steady = steady.unwrap_or(if device::is_on_trial() { STEADY } else { Duration::ZERO });
    let (began, before) = (Instant::now(), State::load(&data_dir));
    if let Some(warning) = keys::warning(&keys::kind(Path::new(keys::KEYRING))) {
        println!("WARNING: {warning}");
    }
    // It can have been a release that does not know the disk; and without its data a device misses nothing of what it had.
    if let Some(why) = device::data_lost() {
        return Err(Failure::failed(format!("not healthy: {why}; it runs from memory")));
    }
    if !before.is_known() {
        println!("nothing is known of before: cameras, sources and the uplink are not missed");
    }
    let (mut said, mut well) = (Vec::new(), None);
    loop {
        let (process, missed) = look(&config, &data_dir, &before).await;
        match well {
            _ if !missed.is_empty() => well = None,
            Some((since, whose)) if whose == process => {
                if Instant::now() - since >= steady {
                    println!("healthy, {} s after it was first looked at", began.elapsed().as_secs());
                    return Ok(());
                }
            }
            _ => {
                if well.is_some() {
                    println!("not yet healthy: the program was restarted");
                }
                well = Some((Instant::now(), process));
                if !steady.is_zero() {
                    println!("nothing is missed; it has to stay so for {}", humantime::format_duration(steady));
                }
                continue;
            }
        }
        if missed != said {
            missed.iter().for_each(|what| println!("not yet healthy: {what}"));
            said.clone_from(&missed);
        }
        if began.elapsed() >= within && (well.is_none() || began.elapsed() >= within + steady) {
            let hint =
                if app::is_clock_set() { "" } else { " (the clock is not set, so certificates may not be valid yet)" };
            let missed = if missed.is_empty() { "it does not stay well".into() } else { missed.join("; ") };
            return Err(Failure::failed(format!("not healthy: {missed}{hint}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// After the boot loader has been told. The program may just be starting anew.
async fn tell_kept(data_dir: &Path) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let asked = data_dir.to_owned();
        let told = tokio::task::spawn_blocking(move || app::tell_passed(&asked)).await;
        let error = match told {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if began.elapsed() >= PATIENCE {
            return Err(Failure::failed(error));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Who was asked, and what is missed now: all of it, as far as it can be asked.
async fn look(config: &Path, data_dir: &Path, before: &State) -> (u32, Vec<String>) {
    let asked = data_dir.to_owned();
    let present = tokio::task::spawn_blocking(move || app::ask_for_health(&asked)).await;
    let (process, mut missed) = match present {
        Ok(Ok(present)) => (present.process, present.judge(before)),
        Ok(Err(error)) => return (0, vec![error.to_string()]),
        Err(error) => return (0, vec![error.to_string()]),
    };
    match app::ua_server_address(config) {
        Ok(None) => {}
        Ok(Some(address)) => {
            let url = format!("opc.tcp://{}", reachable(address));
            if let Err(error) = offers(&url, ANSWER).await {
                missed.push(format!("the OPC UA server does not answer: {error}"));
            }
        }
        Err(faults) => missed.push(faults.to_string()),
    }
    (process, missed)
}

/// What listens on all addresses answers on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        // A system may have it listen for this family alone.
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_asked_where_it_can_be_reached() {
        for (listens, asked) in [
            ("0.0.0.0:4840", "127.0.0.1:4840"),
            ("[::]:4841", "[::1]:4841"),
            ("10.0.0.5:4840", "10.0.0.5:4840"),
            ("[fd00::5]:4840", "[fd00::5]:4840"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), asked);
        }
    }
}
