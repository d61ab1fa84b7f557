//! One DA server, as the nodes of its namespace see it: asked in chunks, its answers in OPC UA's words.
//!
//! Descriptions of items are kept for a while, because each attribute that a client reads wants one. Only what is asked for is
//! asked of the DA server: a browse wants the types of its items and nothing else of them.

use super::Served;
use super::items::Items;
use super::levels::Levels;
use super::{status_of_ask, status_of_phase};
use crate::base::{Clock, Stop};
use crate::relay::map::{self, Description, Times};
use crate::relay::protocol::{
    DESCRIBED_PER_CALL, DaValue, Hresult, ITEMS_PER_CALL, Origin, Property, Reading, Reply, Request,
};
use crate::relay::worker::{self, Phase, Questions, Worker};
use ::opcua::types::{DataValue, DateTime, StatusCode};
use futures_util::future::join_all;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

pub struct Da {
    pub(super) served: Served,
    pub(super) worker: Worker,
    pub(super) items: Items,
    pub(super) levels: Levels,
    described: Mutex<Descriptions>,
}

#[derive(Default)]
struct Descriptions {
    of: HashMap<String, Described>,
    bytes: usize,
}

struct Described {
    at: Instant,
    /// With all properties, and not only those that make its type.
    is_whole: bool,
    description: Result<Arc<Description>, StatusCode>,
    bytes: usize,
}

/// Bytes of descriptions that are kept, about; beyond them all are forgotten.
const DESCRIBED_BYTES: usize = 128 << 20;
/// What a DA server would not tell of an item is not asked for so long: a client reads a dozen attributes, one after the other.
const REFUSED: Duration = Duration::from_secs(2);

/// Whether a server that was asked for the properties of an item says that there is none: OPC_E_UNKNOWNITEMID, OPC_E_INVALIDITEMID.
fn is_no_item(hresult: Hresult) -> bool {
    matches!(hresult as u32, 0xC004_0007 | 0xC004_0008)
}

impl Da {
    pub fn new(served: Served) -> (Arc<Self>, Questions) {
        let (worker, questions) = Worker::new();
        let times = Times::new(served.launch.server.clone(), served.time_offset);
        let levels = Levels::new(served.launch.server.clone(), served.keep);
        let (items, described) = (Items::new(times), Mutex::default());
        (Arc::new(Self { served, worker, items, levels, described }), questions)
    }

    /// Until the stop.
    pub async fn run(&self, questions: &mut Questions, clock: &Clock, stop: &Stop) {
        let supervise = worker::supervise(&self.served.launch, questions, &self.items, clock, stop);
        tokio::join!(supervise, super::feed::run(&self.served.launch.server, &self.items, &self.worker, stop));
    }

    /// The status of whatever only the DA server could tell, if it is not there.
    pub(super) fn absent(&self) -> Option<StatusCode> {
        let phase = self.worker.state().phase;
        (phase != Phase::Running).then(|| status_of_phase(phase))
    }

    /// Values, in the order of `items`.
    pub(super) async fn read(&self, items: Vec<String>, from: Origin) -> Vec<DataValue> {
        let now = DateTime::now();
        let value = |reading: &Result<Reading, Hresult>| map::data_value(reading, self.items.times(), now);
        self.readings(items, from)
            .await
            .iter()
            .map(|reading| match reading {
                Ok(reading) => value(reading),
                Err(status) => map::bad(*status, now),
            })
            .collect()
    }

    /// As the DA server gives them, or why it does not.
    pub(super) async fn readings(
        &self,
        items: Vec<String>,
        from: Origin,
    ) -> Vec<Result<Result<Reading, Hresult>, StatusCode>> {
        let mut readings = self.read_once(items.clone(), from).await;
        if from == Origin::Cache {
            // Of items that nobody monitors a cache may have nothing.
            let is_unread = |reading: &Reading| matches!(reading.quality & 0xFC, 0x1C | 0x20);
            let unread = |reading: &Result<Result<Reading, Hresult>, _>| matches!(reading, Ok(Ok(reading)) if is_unread(reading));
            let places: Vec<usize> = (0..readings.len()).filter(|at| unread(&readings[*at])).collect();
            if !places.is_empty() {
                let items = places.iter().map(|at| items[*at].clone()).collect();
                let again = self.read_once(items, Origin::Device).await;
                places.into_iter().zip(again).for_each(|(at, reading)| readings[at] = reading);
            }
        }
        readings
    }

    async fn read_once(&self, items: Vec<String>, from: Origin) -> Vec<Result<Result<Reading, Hresult>, StatusCode>> {
        let ask = |items: &[String]| {
            let (items, count) = (items.to_vec(), items.len());
            async move {
                match self.worker.ask(Request::Read { items, from }).await {
                    Ok(Reply::Values(values)) => values.into_iter().map(Ok).collect(),
                    Ok(_) => vec![Err(StatusCode::BadInternalError); count],
                    Err(error) => vec![Err(status_of_ask(&error)); count],
                }
            }
        };
        join_all(items.chunks(ITEMS_PER_CALL).map(ask)).await.concat()
    }

    /// What became of each write, in the order of `items`.
    pub(super) async fn write(&self, items: Vec<(String, DaValue)>) -> Vec<StatusCode> {
        let mut results = Vec::with_capacity(items.len());
        for items in items.chunks(ITEMS_PER_CALL) {
            match self.worker.ask(Request::Write { items: items.to_vec() }).await {
                Ok(Reply::Written(written)) => results.extend(written.into_iter().map(map::status_of_hresult)),
                Ok(_) => results.extend(items.iter().map(|_| StatusCode::BadInternalError)),
                Err(error) => results.extend(items.iter().map(|_| status_of_ask(&error))),
            }
        }
        results
    }

    fn described(&self) -> MutexGuard<'_, Descriptions> {
        self.described.lock().expect("no code that holds the descriptions panics")
    }

    /// What is known of an item without asking.
    pub(super) fn known(&self, item: &str, whole: bool) -> Option<Result<Arc<Description>, StatusCode>> {
        let described = self.described();
        let known = described.of.get(item)?;
        let keep = if known.description.is_ok() { self.served.keep } else { REFUSED };
        let is_new = known.at.elapsed() < keep && (known.is_whole || !whole);
        is_new.then(|| known.description.clone())
    }

    /// What the items are, in their order. `whole`: with all of their properties.
    pub(super) async fn describe(&self, items: &[&str], whole: bool) -> Vec<Result<Arc<Description>, StatusCode>> {
        let mut found: Vec<_> = items.iter().map(|item| self.known(item, whole)).collect();
        let missing: Vec<usize> = (0..items.len()).filter(|at| found[*at].is_none()).collect();
        if !missing.is_empty() {
            let asked: Vec<String> = missing.iter().map(|at| items[*at].to_owned()).collect();
            let described = self.ask_to_describe(asked, whole).await;
            missing.into_iter().zip(described).for_each(|(at, description)| found[at] = Some(description));
        }
        found.into_iter().flatten().collect()
    }

    async fn ask_to_describe(&self, items: Vec<String>, whole: bool) -> Vec<Result<Arc<Description>, StatusCode>> {
        if let Some(status) = self.absent() {
            return vec![Err(status); items.len()];
        }
        let can = self.worker.state().capabilities.clone();
        if !(can.properties || can.browse3) {
            return vec![Ok(Arc::default()); items.len()];
        }
        let mut all = Vec::with_capacity(items.len());
        for items in items.chunks(DESCRIBED_PER_CALL) {
            let ids = (!whole).then(|| map::OF_TYPE.to_vec());
            let answer = self.worker.ask(Request::Properties { items: items.to_vec(), ids }).await;
            match answer {
                Ok(Reply::Properties(answers)) => {
                    let described = items.iter().zip(answers);
                    all.extend(described.map(|(item, answer)| self.keep(item, answer, whole)));
                }
                Ok(_) => all.resize(all.len() + items.len(), Err(StatusCode::BadInternalError)),
                Err(error) => all.resize(all.len() + items.len(), Err(status_of_ask(&error))),
            }
        }
        all
    }

    fn keep(
        &self,
        item: &str,
        answer: Result<Vec<Property>, Hresult>,
        is_whole: bool,
    ) -> Result<Arc<Description>, StatusCode> {
        let bytes =
            |property: &Property| 200 + property.description.len() + property.value.as_ref().map_or(0, DaValue::bytes);
        let bytes = 500 + answer.iter().flatten().map(bytes).sum::<usize>();
        let description = match answer {
            Ok(properties) => Ok(Arc::new(map::describe(&properties))),
            Err(hresult) if is_no_item(hresult) => Err(map::status_of_failure(hresult)),
            // Many a server has no properties and says so with whatever failure it likes; the item is there all the same.
            Err(_) => Ok(Arc::default()),
        };
        let mut kept = self.described();
        if kept.bytes + bytes > DESCRIBED_BYTES {
            *kept = Descriptions::default();
        }
        kept.bytes += bytes;
        let new = Described { at: Instant::now(), is_whole, description: description.clone(), bytes };
        if let Some(old) = kept.of.insert(item.to_owned(), new) {
            kept.bytes -= old.bytes;
        }
        description
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::ua::Writable;
    use crate::relay::worker::{Launch, Patience};

    #[test]
    fn what_has_no_properties_is_an_item_all_the_same() {
        let patience = Patience::default();
        let launch = Launch { server: "test".into(), program: "none".into(), arguments: Vec::new(), patience };
        let (da, _questions) = Da::new(Served {
            launch,
            uri: "urn:test".into(),
            text: String::new(),
            time_offset: 0,
            writable: Writable::default(),
            fastest: Duration::ZERO,
            items: 10,
            keep: Duration::from_secs(60),
        });
        let kept = |item: &str, hresult: u32| {
            let answer = da.keep(item, Err(hresult as Hresult), true);
            assert_eq!(da.known(item, true), Some(answer.clone()), "{hresult:08X}");
            answer
        };
        assert_eq!(kept("gone", 0xC004_0007), Err(StatusCode::BadNodeIdUnknown));
        assert_eq!(kept("wrong", 0xC004_0008), Err(StatusCode::BadNodeIdInvalid));
        for other in [0x8000_4001, 0x8000_4005, 0x8007_0005, 0xC004_0203] {
            assert_eq!(kept("there", other), Ok(Arc::default()), "{other:08X}");
        }
    }
}
