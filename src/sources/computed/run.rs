//! Computes what an input has changed for, and looks after limits.
//!
//!     hub: tags that changed ──► which expressions use them ──► in order: value, quality ──► one publish ──► limits
//!
//! After each round it rests for `interval`; what changes meanwhile is looked at once, then. A tag that needs another of
//! the same table is computed in the same round, after it. A constant is computed once.

use super::evaluate::{Outcome, evaluate};
use super::expression::Expression;
use super::limits::Watch;
use super::order::order;
use super::{Config, TagConfig};
use super::{Source, SourceError};
use crate::base::Stop;
use crate::hub::{Hub, Registration};
use crate::model::{DataType, Quality, Sample, Status, TagId, TagName};
use async_trait::async_trait;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

pub(super) struct Computed {
    interval: Duration,
    hub: Hub,
    tags: Registration,
    own: HashSet<TagId>,
    /// Each after those that it needs.
    items: Vec<Item>,
    watches: Vec<Watch>,
    links: Links,
}

struct Item {
    tag: TagId,
    data_type: DataType,
    expression: Expression,
    /// Those that exist.
    inputs: Vec<Option<TagId>>,
}

/// Which items and watches look at a tag.
#[derive(Default)]
struct Links {
    items: HashMap<TagId, Vec<usize>>,
    watches: HashMap<TagId, Vec<usize>>,
}

impl Computed {
    pub(super) fn register(config: &Config, hub: &Hub) -> Result<Self, SourceError> {
        let tags: Vec<&TagConfig> = config.tag.iter().map(toml::Spanned::get_ref).collect();
        // The configuration was checked, so all of them can be read and none is missing here.
        let expressions = tags.iter().map(|tag| Expression::parse(&tag.expression));
        let expressions: Vec<Expression> = expressions.filter_map(Result::ok).collect();
        let specs = tags.iter().zip(&expressions).map(|(tag, expression)| tag.spec(&config.name, expression));
        let specs = specs.collect::<Result<Vec<_>, _>>()?;
        let places: HashMap<TagName, usize> = specs.iter().zip(0..).map(|(spec, at)| (spec.name.clone(), at)).collect();
        let needs =
            expressions.iter().map(|one| one.inputs.iter().filter_map(|name| places.get(name).copied()).collect());
        let ordered = order(&needs.collect::<Vec<_>>()).unwrap_or_else(|_| (0..specs.len()).collect());
        let own =
            tags.iter().zip(&specs).filter_map(|(tag, spec)| Some(Watch::new(tag.limit.clone()?, spec.name.clone())));
        let mut watches: Vec<Watch> = own.collect();
        for limit in config.limit.iter().map(toml::Spanned::get_ref) {
            let tag = TagName::new(limit.tag.as_deref().unwrap_or_default())?;
            watches.push(Watch::new(limit.clone(), tag));
        }
        let types: Vec<DataType> = specs.iter().map(|spec| spec.data_type).collect();
        let tags = hub.register(&format!("computed {}", config.name), specs)?;
        // Already here, so that an alarm of the table before is taken over.
        for watch in &mut watches {
            watch.declare(hub, hub.find(&watch.tag).is_some());
        }
        let item = |at: usize| {
            let (expression, tag, data_type) = (expressions[at].clone(), tags.tags()[at], types[at]);
            Item { tag, data_type, inputs: vec![None; expression.inputs.len()], expression }
        };
        let items = ordered.into_iter().map(item).collect();
        let (own, links) = (tags.tags().iter().copied().collect(), Links::default());
        Ok(Self { interval: config.interval, hub: hub.clone(), tags, own, items, watches, links })
    }

    /// Finds the tags by their names. Which items have others than before.
    fn resolve(&mut self) -> Vec<bool> {
        self.links = Links::default();
        let mut is_other = Vec::with_capacity(self.items.len());
        for (at, item) in self.items.iter_mut().enumerate() {
            let inputs: Vec<Option<TagId>> = item.expression.inputs.iter().map(|name| self.hub.find(name)).collect();
            for tag in inputs.iter().flatten() {
                self.links.items.entry(*tag).or_default().push(at);
            }
            is_other.push(item.inputs != inputs);
            item.inputs = inputs;
        }
        for (at, watch) in self.watches.iter_mut().enumerate() {
            let tag = self.hub.find(&watch.tag);
            watch.declare(&self.hub, tag.is_some());
            if let Some(tag) = tag {
                self.links.watches.entry(tag).or_default().push(at);
            }
        }
        is_other
    }

    /// Computes the items that are marked, and those that need them.
    fn compute(&mut self, mut marked: Vec<bool>) -> HashSet<TagId> {
        let now = self.hub.now();
        let mut batch: Vec<Sample> = Vec::new();
        let mut fresh: HashMap<TagId, usize> = HashMap::new();
        for (at, item) in self.items.iter().enumerate() {
            if !marked[at] {
                continue;
            }
            let known = |tag: TagId| fresh.get(&tag).map_or_else(|| self.hub.read(tag), |&at| batch[at].clone());
            let samples: Vec<Option<Sample>> = item.inputs.iter().map(|tag| tag.map(known)).collect();
            let Outcome { value, quality, time } = evaluate(&item.expression, &samples, item.data_type);
            // Bad, and the last value is kept.
            let value = value.unwrap_or_else(|_| self.hub.read(item.tag).value);
            fresh.insert(item.tag, batch.len());
            batch.push(Sample { tag: item.tag, value, quality, source_time: time.or(Some(now)), server_time: now });
            for &user in self.links.items.get(&item.tag).into_iter().flatten() {
                marked[user] = true;
            }
        }
        self.hub.publish(batch);
        fresh.into_keys().collect()
    }

    fn watch(&mut self, changed: &HashSet<TagId>) {
        let now = Instant::now();
        for (tag, watches) in &self.links.watches {
            for &at in watches {
                let watch = &mut self.watches[at];
                if changed.contains(tag) || watch.due().is_some_and(|due| due <= now) {
                    let Sample { value, quality, .. } = self.hub.read(*tag);
                    let value = value.as_f64().filter(|value| !quality.is_bad() && !value.is_nan());
                    watch.see(&self.hub, value, &self.hub.spec(*tag).unit, now);
                }
            }
        }
    }

    /// One round: `changed` by others.
    fn round(&mut self, changed: Vec<TagId>, mut marked: Vec<bool>) {
        // Our own changes were taken in when they were made.
        let mut changed: HashSet<TagId> = changed.into_iter().filter(|tag| !self.own.contains(tag)).collect();
        for tag in &changed {
            for &at in self.links.items.get(tag).into_iter().flatten() {
                marked[at] = true;
            }
        }
        changed.extend(self.compute(marked));
        self.watch(&changed);
    }
}

#[async_trait]
impl Source for Computed {
    async fn run(&mut self, stop: &Stop) {
        let (mut latest, mut structure) = (self.hub.latest(), self.hub.structure());
        self.resolve();
        let watched = self.links.watches.keys().copied().collect();
        self.round(watched, vec![true; self.items.len()]);
        loop {
            if !stop.sleep(self.interval).await {
                return;
            }
            let due = self.watches.iter().filter_map(Watch::due).min();
            let (mut changed, mut marked) = (Vec::new(), vec![false; self.items.len()]);
            tokio::select! {
                tags = latest.changed() => changed = tags,
                Ok(()) = structure.changed() => {
                    marked = self.resolve();
                    changed.extend(self.links.watches.keys());
                }
                () = until(due) => {}
                () = stop.stopped() => return,
                write = self.tags.next_write() => {
                    let what = Quality::new(Status::BAD_NOT_WRITABLE, "it is computed");
                    // Whoever asked may have given up.
                    let _ = write.reply.send(Err(what));
                }
            }
            self.round(changed, marked);
        }
    }
}

impl Drop for Computed {
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.release(&self.hub);
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;
    use crate::base::{Clock, Tasks};
    use crate::model::{TagSpec, Timestamp, Value};
    use std::time::UNIX_EPOCH;

    const CALC: &str = "
name = 'calc'
interval = '10ms'
[[tag]]
name = 'twice'
expression = '{calc/sum} * 2'
[[tag]]
name = 'sum'
expression = '{plc 1/a.b} + {later/x}'
limit = { high = 10 }
[[limit]]
tag = 'plc 1/a.b'
low = 0
delay = '5s'
";

    fn name(name: &str) -> TagName {
        TagName::new(name).unwrap()
    }

    async fn settle() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_follows_its_inputs_also_those_that_come_later() {
        let hub = Hub::new(Clock::simulated(UNIX_EPOCH + Duration::from_secs(100)));
        let mut computed = Computed::register(&config(CALC), &hub).unwrap();
        let plc = hub.register("plc", vec![TagSpec::new(name("plc 1/a.b"), DataType::Int16)]).unwrap();
        let set = |tag, value, seconds: i64| {
            let time = Timestamp::from_millis(seconds * 1000);
            hub.publish(vec![Sample { source_time: Some(time), ..Sample::good(tag, value, hub.now()) }]);
        };
        let read = |tag: &str| hub.read(hub.find(&name(tag)).unwrap());
        let condition = |tag: &str| hub.conditions().into_iter().find(|one| *one.source == *format!("tags/{tag}"));
        set(plc.tags()[0], Value::Int16(3), 50);

        let tasks = Tasks::new("test");
        let stop = tasks.stop_signal();
        let story = async {
            settle().await;
            assert_eq!(read("calc/sum").quality.to_string(), "BadNodeIdUnknown: there is no tag later/x (yet)");
            assert!(read("calc/twice").quality.to_string().starts_with("BadNodeIdUnknown: calc/sum: "));

            let later = hub.register("later", vec![TagSpec::new(name("later/x"), DataType::Double)]).unwrap();
            settle().await;
            assert_eq!(read("calc/sum").quality.status, Status::BAD_WAITING_FOR_INITIAL_DATA);
            set(later.tags()[0], Value::Double(4.0), 60);
            settle().await;
            assert_eq!((read("calc/sum").value, read("calc/twice").value), (Value::Double(7.0), Value::Double(14.0)));
            assert_eq!(read("calc/twice").source_time, Some(Timestamp::from_millis(60_000)));
            assert!(!condition("calc/sum").unwrap().is_active);

            set(later.tags()[0], Value::Double(8.0), 61);
            settle().await;
            assert!(condition("calc/sum").unwrap().is_active);
            drop(later);
            settle().await;
            let lost = read("calc/twice");
            assert_eq!((lost.quality.status, lost.value), (Status::BAD_NO_COMMUNICATION, Value::Double(22.0)));
            assert!(condition("calc/sum").unwrap().is_active, "a bad value says nothing");

            set(plc.tags()[0], Value::Int16(-1), 62);
            settle().await;
            assert!(!condition("plc 1/a.b").unwrap().is_active, "not for long enough");
            tokio::time::sleep(Duration::from_secs(6)).await;
            assert!(condition("plc 1/a.b").unwrap().is_active, "though the value did not change again");
            let error = hub.write(hub.find(&name("calc/sum")).unwrap(), Value::Double(1.0)).await.unwrap_err();
            assert_eq!(error.status, Status::BAD_NOT_WRITABLE);
        };
        tokio::select! {
            () = computed.run(&stop) => panic!("ended"),
            () = story => {}
        }
        drop(computed);
        assert!(condition("plc 1/a.b").unwrap().is_active, "it may go on");
        let computed = Computed::register(&config(CALC), &hub).unwrap();
        hub.retire();
        assert!(condition("plc 1/a.b").unwrap().is_active, "though it was declared by a register only");
        drop(computed);
        hub.retire();
        assert!(hub.conditions().is_empty());
    }
}
