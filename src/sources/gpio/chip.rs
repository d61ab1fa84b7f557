//! Finding a chip and taking lines of it. All of this may block: chips behind I²C or USB answer when the bus has.

use super::line::{Config, Line};
use crate::model::{Quality, Status};
use gpiocdev::chip::{Chip, chips};
use gpiocdev::{Request, line};
use std::path::Path;

/// What other programs see as the user of a line.
const CONSUMER: &str = "vedette";

/// A line that is ours until it is dropped.
pub(super) struct Taken {
    pub(super) request: Request,
    pub(super) offset: u32,
    /// The kernel tells its edges; else it has to be looked at.
    pub(super) tells_edges: bool,
    /// Its level now.
    pub(super) level: bool,
}

/// Each of the lines or why not; or why the whole chip is not there.
pub(super) fn take(chip: &str, lines: &[Config]) -> Result<Vec<Result<Taken, Quality>>, Quality> {
    let chip = find(chip)?;
    Ok(lines.iter().map(|line| take_line(&chip, line)).collect())
}

fn find(wanted: &str) -> Result<Chip, Quality> {
    let cannot = |error: gpiocdev::Error| Quality::new(Status::BAD_NOT_CONNECTED, format!("{wanted}: {error}"));
    let by_name = if wanted.contains('/') { wanted.to_owned() } else { format!("/dev/{wanted}") };
    if Path::new(&by_name).exists() {
        return Chip::from_path(&by_name).map_err(cannot);
    }
    let mut labels = Vec::new();
    for path in chips().unwrap_or_default() {
        // Another chip that cannot be opened is not the one that is looked for.
        let Ok((chip, info)) = Chip::from_path(&path).and_then(|chip| chip.info().map(|info| (chip, info))) else {
            continue;
        };
        if info.label == wanted {
            return Ok(chip);
        }
        labels.push(format!("{} ({})", info.name, info.label));
    }
    let there = if labels.is_empty() { "there is none".to_owned() } else { format!("there are {}", labels.join(", ")) };
    Err(Quality::new(Status::BAD_NOT_CONNECTED, format!("no GPIO chip is called {wanted:?}; {there}")))
}

fn take_line(chip: &Chip, config: &Config) -> Result<Taken, Quality> {
    let info = match &config.line {
        Line::Number(offset) => chip.line_info(*offset).ok(),
        Line::Name(name) => chip.find_line_info(name),
    };
    let info = info.ok_or_else(|| {
        let reason = format!("{} has no line {}; `gpioinfo` shows what it has", chip.name(), config.line);
        Quality::new(Status::BAD_CONFIGURATION_ERROR, reason)
    })?;
    let request = |edges: bool| {
        let mut request = Request::builder();
        request.on_chip(chip.path()).with_consumer(CONSUMER);
        config.ask(info.offset, edges, &mut request);
        request.request()
    };
    // Some chips have no interrupts.
    let (request, tells_edges) = match request(!config.is_output()) {
        Ok(request) => (request, !config.is_output()),
        Err(_) => (request(false).map_err(|error| refused(chip, &info, &error))?, false),
    };
    let level = level(&request, info.offset)?;
    Ok(Taken { request, offset: info.offset, tells_edges, level })
}

fn refused(chip: &Chip, info: &line::Info, error: &gpiocdev::Error) -> Quality {
    let line = match info.name.as_str() {
        "" => format!("line {} of {}", info.offset, chip.name()),
        name => format!("line {} ({name}) of {}", info.offset, chip.name()),
    };
    if info.used {
        let user = if info.consumer.is_empty() { "the kernel" } else { &info.consumer };
        return Quality::new(Status::BAD_RESOURCE_UNAVAILABLE, format!("{line} is in use by {user}"));
    }
    Quality::new(Status::BAD_DEVICE_FAILURE, format!("{line} cannot be taken: {error}"))
}

pub(super) fn level(request: &Request, offset: u32) -> Result<bool, Quality> {
    request.value(offset).map(bool::from).map_err(|error| lost(&error))
}

pub(super) fn lost(error: &gpiocdev::Error) -> Quality {
    Quality::new(Status::BAD_NOT_CONNECTED, format!("the chip does not answer: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_that_is_not_there_is_named() {
        let said = |chip| take(chip, &[]).err().unwrap().to_string();
        let missing = said("no such chip");
        assert!(missing.starts_with("BadNotConnected: no GPIO chip is called \"no such chip\"; there"), "{missing}");
        assert!(said("/dev/null").contains("/dev/null"), "{}", said("/dev/null"));
    }
}
