//! `vedette-da-relay watch`: a line for each change, as the server calls back. Where it does not, its cache is polled, as by the relay.

use super::Target;
use super::output::{Failed, line, note, refuse};
use super::walk;
use crate::base::duration;
use crate::relay::com::{Connection, Group, Listener};
use crate::relay::hresults;
use crate::relay::lanes::Polled;
use crate::relay::protocol::{Event, GroupSettings, NewItem};
use crate::relay::show;
use serde_json::json;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Callbacks that may wait to be printed; more are dropped, and said.
const QUEUE: usize = 1024;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    /// ItemIDs; with * and ?, all items that fit.
    #[arg(value_name = "ITEM", required = true)]
    items: Vec<String>,
    /// How often the server looks for changes; it may choose another.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = duration::parse)]
    rate: Duration,
    /// Changes of analog items that are smaller than so many percent of their range are not told.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    deadband: f32,
    /// End after so many lines.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time.
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    time: Option<Duration>,
    /// For scripts: one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failed> {
    let (sender, events) = sync_channel(QUEUE);
    let listener: Listener = Arc::new(move |event| {
        if sender.try_send(event).is_err() {
            note("changes were dropped: they came faster than they are printed");
        }
    });
    let class = arguments.target.server()?.class()?;
    let mut connection = Connection::open(class, Some(Arc::clone(&listener)))?;
    let (items, is_whole) = walk::items(&mut connection, &arguments.items)?;
    let rate = u32::try_from(arguments.rate.as_millis()).unwrap_or(u32::MAX);
    let settings = GroupSettings { rate, deadband: arguments.deadband, active: true };
    let (mut group, revised, mut polled) = match Group::add(&connection, settings, Some((0, listener))) {
        Ok((group, revised)) => (group, revised, None),
        Err(failure) if failure.call == "AddGroup" || hresults::is_gone(failure.hresult) => return Err(failure.into()),
        Err(failure) => {
            let why = hresults::explained(failure.hresult);
            note(&format!("the server does not call back ({}: {why}); its cache is polled", failure.call));
            let (group, revised) = Group::add(&connection, settings, None)?;
            (group, revised, Some(Polled::new(revised.rate, true, Instant::now())))
        }
    };
    if revised.rate != rate {
        note(&format!("the server updates every {} ms", revised.rate));
    }
    let new: Vec<NewItem> =
        items.iter().zip(0..).map(|(item, handle)| NewItem { handle, item_id: item.clone() }).collect();
    let mut refused = usize::from(!is_whole);
    let mut taken = 0;
    for (item, added) in items.iter().zip(group.add_items(&new)?) {
        match added {
            Ok(_) => taken += 1,
            Err(error) => {
                refused += 1;
                refuse(item, error, arguments.json)?;
            }
        }
    }
    if taken == 0 {
        return Err(Failed::Said);
    }
    let end = arguments.time.map(|time| Instant::now() + time);
    let mut lines = 0;
    while arguments.count != Some(lines) {
        let rest = end.map_or(Duration::from_secs(3600), |end| end.saturating_duration_since(Instant::now()));
        let until_poll = polled.as_ref().map_or(rest, |polled| polled.wait(Instant::now()));
        let values = match events.recv_timeout(rest.min(until_poll)) {
            Ok(Event::Data { values, .. }) => values,
            Ok(Event::Shutdown { reason }) => {
                return Err(Failed::Because(format!("the server goes away and says: {reason:?}")));
            }
            Ok(_) => continue,
            Err(RecvTimeoutError::Timeout) if end.is_none_or(|end| Instant::now() < end) => {
                let Some(polled) = &mut polled else { continue };
                if polled.is_due(Instant::now()) { polled.changed(group.poll()?) } else { continue }
            }
            Err(_) => break,
        };
        for (handle, value) in values {
            let Some(item) = items.get(handle as usize).filter(|_| arguments.count != Some(lines)) else { continue };
            lines += 1;
            match value {
                Ok(reading) if arguments.json => {
                    let mut object = show::reading_json(&reading);
                    object["item"] = json!(item);
                    line(&object.to_string())?;
                }
                Ok(reading) => line(&format!("{item} = {}", show::reading(&reading)))?,
                Err(error) => refuse(item, error, arguments.json)?,
            }
        }
    }
    if refused == 0 { Ok(()) } else { Err(Failed::Said) }
}
