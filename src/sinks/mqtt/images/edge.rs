//! When a tag becomes something: each time, also between two looks.
//!
//! An edge is a good value that is the wanted one after a good value that was not. Values that are not good are passed over,
//! so a source that comes back with the value it had is no edge, and what a tag is at the start is none either.

use crate::hub::{Every, Hub};
use crate::model::{DataType, Sample, TagId, TagName, Value};
use tokio::sync::watch;
use tracing::{info, warn};

/// Batches of all tags that wait while this task is busy. When full the hub drops some, and the tag is read instead.
const BATCHES: usize = 1024;

pub struct Edges {
    hub: Hub,
    name: TagName,
    wanted: Wanted,
    every: Every,
    structure: watch::Receiver<u64>,
    /// Since there is a tag of that name.
    tag: Option<(TagId, DataType)>,
    /// Whether its last good value was the wanted one.
    was: Option<bool>,
    /// Samples that did not reach this reader.
    lost: u64,
    /// Edges that were seen and not yet given out.
    edges: u64,
}

#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    Boolean(bool),
    Number(f64),
    Text(String),
}

impl Wanted {
    /// [`Config::validate`](crate::sinks::mqtt::Config::validate) lets nothing else through.
    fn new(becomes: &toml::Value) -> Self {
        match becomes {
            toml::Value::Boolean(value) => Wanted::Boolean(*value),
            toml::Value::Integer(value) => Wanted::Number(*value as f64),
            toml::Value::Float(value) => Wanted::Number(*value),
            other => Wanted::Text(other.as_str().unwrap_or_default().to_owned()),
        }
    }

    fn is(&self, value: &Value) -> bool {
        match (self, value) {
            (Wanted::Boolean(wanted), Value::Boolean(value)) => wanted == value,
            (Wanted::Number(_), Value::Boolean(_)) => false,
            (Wanted::Number(wanted), value) => value.as_f64() == Some(*wanted),
            (Wanted::Text(wanted), Value::String(Some(value))) => **wanted == **value,
            _ => false,
        }
    }

    /// Whether a tag of that type can ever be it.
    fn fits(&self, data_type: DataType) -> bool {
        match self {
            _ if data_type == DataType::Variant => true,
            Wanted::Boolean(_) => data_type == DataType::Boolean,
            Wanted::Number(_) => data_type.is_number(),
            Wanted::Text(_) => data_type == DataType::String,
        }
    }
}

impl Edges {
    pub fn new(hub: &Hub, name: &TagName, becomes: &toml::Value) -> Self {
        let wanted = Wanted::new(becomes);
        let current = || {
            let sample = hub.read(hub.find(name)?);
            sample.quality.is_good().then(|| wanted.is(&sample.value))
        };
        let structure = hub.structure();
        // What the tag is and what comes after that: nothing may come between the two.
        let (every, was) = loop {
            let was = current();
            let every = hub.every(BATCHES);
            if current() == was {
                break (every, was);
            }
        };
        let (hub, name) = (hub.clone(), name.clone());
        let mut edges = Self { hub, name, wanted, every, structure, tag: None, was, lost: 0, edges: 0 };
        edges.find();
        if edges.tag.is_none() {
            warn!(tag = %edges.name, "No tag has the name that is to bring pictures about; waiting for it.");
        }
        edges
    }

    /// Returns with each edge. Cancel safe.
    pub async fn next(&mut self) {
        while self.edges == 0 {
            tokio::select! {
                biased;
                changed = self.structure.changed() => {
                    changed.expect("this task holds the hub");
                    self.find();
                }
                batch = self.every.next() => {
                    self.take_in(&batch.expect("this task holds the hub"));
                    self.catch_up();
                }
            }
        }
        self.edges -= 1;
    }

    fn find(&mut self) {
        // A tag that was taken away keeps its id for the next of its name.
        let Some(id) = self.hub.find(&self.name) else { return };
        let data_type = self.hub.spec(id).data_type;
        let before = self.tag.replace((id, data_type));
        if before.is_some_and(|(_, before)| before == data_type) {
            return;
        }
        if !self.wanted.fits(data_type) {
            let (tag, becomes) = (&self.name, &self.wanted);
            warn!(%tag, %data_type, ?becomes, "A tag never becomes what is to bring pictures about: it is of another type.");
        } else if before.is_none() {
            info!(tag = %self.name, "Watching a tag that is to bring pictures about.");
        }
    }

    fn take_in(&mut self, batch: &[Sample]) {
        let Some((tag, _)) = self.tag else { return };
        for sample in batch.iter().filter(|sample| sample.tag == tag && sample.quality.is_good()) {
            self.look(&sample.value);
        }
    }

    fn look(&mut self, value: &Value) {
        let is = self.wanted.is(value);
        if is && self.was == Some(false) {
            self.edges += 1;
        }
        self.was = Some(is);
    }

    /// What was lost may have been an edge: at least the value that stayed counts.
    fn catch_up(&mut self) {
        if self.every.lost() == self.lost {
            return;
        }
        while let Some(batch) = self.every.try_next() {
            self.take_in(&batch);
        }
        self.lost = self.every.lost();
        warn!(tag = %self.name, samples = self.lost, "Samples came too fast to see each; a picture may be missing.");
        let Some((tag, _)) = self.tag else { return };
        let sample = self.hub.read(tag);
        if sample.quality.is_good() {
            self.look(&sample.value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::hub::Registration;
    use crate::model::{Quality, Status, TagSpec};
    use futures_util::FutureExt;

    fn hub() -> Hub {
        Hub::new(Clock::real())
    }

    fn name() -> TagName {
        TagName::new("plc/LineStop").unwrap()
    }

    fn register(hub: &Hub, data_type: DataType) -> Registration {
        hub.register("plc", vec![TagSpec::new(name(), data_type)]).unwrap()
    }

    fn edges(hub: &Hub) -> Edges {
        Edges::new(hub, &name(), &true.into())
    }

    fn publish(hub: &Hub, tag: TagId, values: &[bool]) {
        let sample = |value: &bool| Sample::good(tag, Value::Boolean(*value), hub.now());
        hub.publish(values.iter().map(sample).collect());
    }

    fn count(edges: &mut Edges) -> u32 {
        let mut count = 0;
        while edges.next().now_or_never().is_some() {
            count += 1;
        }
        count
    }

    #[tokio::test]
    async fn each_edge_counts_also_between_two_looks() {
        let hub = hub();
        let registration = register(&hub, DataType::Boolean);
        let tag = registration.tags()[0];
        publish(&hub, tag, &[false]);
        let mut edges = edges(&hub);
        publish(&hub, tag, &[false, true, true, false, true]);
        publish(&hub, tag, &[false]);
        assert_eq!(count(&mut edges), 2);
        publish(&hub, tag, &[true]);
        assert_eq!(count(&mut edges), 1);
    }

    #[tokio::test]
    async fn what_it_is_at_the_start_is_no_edge() {
        let hub = hub();
        let registration = register(&hub, DataType::Boolean);
        let tag = registration.tags()[0];
        let mut before_the_first = edges(&hub);
        publish(&hub, tag, &[true]);
        let mut after_it = edges(&hub);
        publish(&hub, tag, &[true]);
        assert_eq!((count(&mut before_the_first), count(&mut after_it)), (0, 0));
        publish(&hub, tag, &[false, true]);
        assert_eq!((count(&mut before_the_first), count(&mut after_it)), (1, 1));
    }

    #[tokio::test]
    async fn what_is_not_good_is_passed_over() {
        let hub = hub();
        let registration = register(&hub, DataType::Boolean);
        let tag = registration.tags()[0];
        publish(&hub, tag, &[false]);
        let mut edges = edges(&hub);
        let lost = Quality::new(Status::BAD_NOT_CONNECTED, "unplugged");
        hub.publish(vec![Sample { value: Value::Boolean(true), ..Sample::bad(tag, lost.clone(), hub.now()) }]);
        assert_eq!(count(&mut edges), 0);
        publish(&hub, tag, &[true]);
        assert_eq!(count(&mut edges), 1, "it was false before");
        hub.degrade(&[tag], &lost);
        publish(&hub, tag, &[true]);
        assert_eq!(count(&mut edges), 0, "it was true before");
    }

    #[tokio::test]
    async fn a_tag_that_comes_later_is_found() {
        let hub = hub();
        let mut edges = edges(&hub);
        assert_eq!(count(&mut edges), 0);
        let registration = register(&hub, DataType::Boolean);
        publish(&hub, registration.tags()[0], &[false, true]);
        assert_eq!(count(&mut edges), 1);
        drop(registration);
        hub.retire();
        let registration = register(&hub, DataType::Boolean);
        publish(&hub, registration.tags()[0], &[false, true]);
        assert_eq!(count(&mut edges), 1, "and found again");
    }

    #[tokio::test]
    async fn what_was_lost_in_a_flood_is_read() {
        let hub = hub();
        let registration = register(&hub, DataType::Boolean);
        let tag = registration.tags()[0];
        publish(&hub, tag, &[false]);
        let mut edges = edges(&hub);
        for _ in 0..BATCHES {
            publish(&hub, tag, &[false]);
        }
        publish(&hub, tag, &[true]);
        assert_eq!(count(&mut edges), 1);
        publish(&hub, tag, &[true]);
        assert_eq!(count(&mut edges), 0);
    }

    #[test]
    fn values_are_compared_by_what_they_are() {
        let wanted = |toml: &str| Wanted::new(&toml::from_str::<toml::Table>(&format!("x = {toml}")).unwrap()["x"]);
        assert!(wanted("3").is(&Value::UInt16(3)) && wanted("3").is(&Value::Double(3.0)));
        assert!(wanted("2.5").is(&Value::Float(2.5)) && !wanted("2.5").is(&Value::Float(2.0)));
        assert!(!wanted("1").is(&Value::Boolean(true)) && !wanted("true").is(&Value::Byte(1)));
        assert!(wanted("'stop'").is(&Value::string("stop")) && !wanted("'stop'").is(&Value::string("Stop")));
        assert!(!wanted("'stop'").is(&Value::Empty) && !wanted("nan").is(&Value::Double(f64::NAN)));
        assert!(!wanted("true").fits(DataType::Byte) && wanted("1").fits(DataType::Byte));
        assert!(wanted("'x'").fits(DataType::Variant) && !wanted("'x'").fits(DataType::Boolean));
    }
}
