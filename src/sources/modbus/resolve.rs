//! From a checked configuration to lines that can run: which tags there are, and who reads them.

use super::SourceError;
use super::config::{Config, Endpoint, Tag, Unit as UnitConfig};
use super::line::Line;
use super::link::Link;
use super::plan::Limits;
use super::status::{self, Counts, Status};
use super::unit::{Habits, Health, Job, Point, Unit};
use crate::hub::{Hub, Registration};
use crate::model::{TagId, TagName, TagNameError, TagSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Units that share a wire. Their tags' ids come after the tags are registered.
struct Draft<'a> {
    label: String,
    endpoint: Endpoint,
    units: Vec<(&'a UnitConfig, u8)>,
}

impl Config {
    /// Registers all tags and makes the lines that own them.
    pub(super) fn lines(&self, hub: &Hub) -> Result<(Registration, Vec<Line>), SourceError> {
        let drafts = self.drafts();
        let mut specs = Vec::new();
        for draft in &drafts {
            for &(unit, id) in &draft.units {
                self.specs(&self.folder(unit, id), unit, &mut specs)?;
                if draft.has_units() {
                    specs.extend(status::specs(&self.folder(unit, id), false)?);
                }
            }
            specs.extend(status::specs(&draft.label, true)?);
        }
        let registration = hub.register(&format!("modbus {}", self.name), specs)?;
        let mut tags = registration.tags().iter().copied();
        let lines = drafts.into_iter().map(|draft| self.line(draft, hub, &mut tags)).collect();
        Ok((registration, lines))
    }

    /// The line of the table, and one for each unit that is reached elsewhere.
    fn drafts(&self) -> Vec<Draft<'_>> {
        let units = || self.unit.iter().map(|unit| unit.get_ref());
        let each = |unit: &'_ UnitConfig| unit.ids().unwrap_or_default();
        let mut drafts = Vec::new();
        if let Some(Ok(endpoint)) = self.endpoint() {
            let own = units().filter(|unit| unit.url.is_none());
            let units: Vec<_> = own.flat_map(|unit| each(unit).into_iter().map(move |id| (unit, id))).collect();
            if !units.is_empty() {
                drafts.push(Draft { label: self.name.clone(), endpoint, units });
            }
        }
        for (unit, id) in units().flat_map(|unit| each(unit).into_iter().map(move |id| (unit, id))) {
            if let Some(Ok(endpoint)) = unit.endpoint(id) {
                drafts.push(Draft { label: self.folder(unit, id), endpoint, units: vec![(unit, id)] });
            }
        }
        drafts
    }

    fn folder(&self, unit: &UnitConfig, id: u8) -> String {
        format!("{}/{}", self.name, unit.name_of(id))
    }

    pub(super) fn model<'a>(&'a self, unit: &UnitConfig) -> Option<&'a UnitConfig> {
        let like = unit.like.as_ref()?;
        self.unit.iter().map(|unit| unit.get_ref()).find(|other| other.name == *like)
    }

    fn tags<'a>(&'a self, unit: &'a UnitConfig) -> impl Iterator<Item = &'a Tag> {
        let model = self.model(unit).into_iter();
        model.chain([unit]).flat_map(|unit| &unit.tag).map(|tag| tag.get_ref())
    }

    fn specs(&self, folder: &str, unit: &UnitConfig, specs: &mut Vec<TagSpec>) -> Result<(), TagNameError> {
        for tag in self.tags(unit) {
            let Ok((area, _)) = tag.place() else { continue };
            let layout = tag.layout(area, self.order);
            let name = TagName::new(&format!("{folder}/{}", tag.name))?;
            specs.push(TagSpec {
                is_array: layout.count.is_some(),
                writable: tag.writable,
                range: tag.span(),
                states: tag.states.iter().map(|state| state.as_str().into()).collect(),
                ..TagSpec::new(name, layout.data_type()).unit(&*tag.unit).described(&*tag.description)
            });
        }
        Ok(())
    }

    /// `tags` gives the ids in the order of the specs.
    fn line(&self, draft: Draft<'_>, hub: &Hub, tags: &mut impl Iterator<Item = TagId>) -> Line {
        let has_units = draft.has_units();
        let unit = |&(unit, id): &(&UnitConfig, u8)| self.unit(unit, id, has_units, tags);
        let units = draft.units.iter().map(unit).collect();
        let own: Vec<TagId> = tags.take(status::count(true)).collect();
        Line {
            label: draft.label,
            hub: hub.clone(),
            link: Link::new(draft.endpoint, self.request_gap, self.timeout),
            timeout: self.timeout,
            retries: self.retries,
            limits: self.limits(),
            units,
            counts: Counts::default(),
            status: Status::new(&own),
            unanswered: (BTreeSet::new(), 0),
            probe_after: Instant::now(),
            told: Instant::now(),
            lost: None,
        }
    }

    fn limits(&self) -> Limits {
        Limits { registers: self.max_registers, bits: self.max_bits, gap: self.max_gap }
    }

    fn unit(&self, unit: &UnitConfig, id: u8, has_status: bool, tags: &mut impl Iterator<Item = TagId>) -> Unit {
        let model = self.model(unit);
        let order = unit.order.or(model.and_then(|model| model.order)).unwrap_or(self.order);
        let group = unit.group.as_ref().or(model.and_then(|model| model.group.as_ref()));
        let (mut points, mut by_interval) = (Vec::new(), BTreeMap::<Duration, Vec<usize>>::new());
        for tag in self.tags(unit) {
            let (Ok((area, address)), Some(id)) = (tag.place(), tags.next()) else { continue };
            by_interval.entry(self.interval_of(tag.group.as_ref().or(group))).or_default().push(points.len());
            points.push(Point { tag: id, area, address, layout: tag.layout(area, order), range: tag.span() });
        }
        let job = |(interval, own): (_, Vec<usize>)| {
            Job::new(interval, own.into_iter().map(|point| (point, points[point].extent())))
        };
        let jobs = by_interval.into_iter().map(job).collect();
        let own: Vec<TagId> = tags.take(if has_status { status::count(false) } else { 0 }).collect();
        Unit {
            id,
            folder: self.folder(unit, id),
            jobs,
            points,
            health: Health::Good,
            unanswered: 0,
            pace: None,
            habits: Habits::default(),
            counts: Counts::default(),
            status: Status::new(&own),
        }
    }

    fn interval_of(&self, group: Option<&String>) -> Duration {
        let own = group.and_then(|name| self.group.iter().find(|group| group.get_ref().name == *name));
        own.map_or(self.interval, |group| group.get_ref().interval)
    }
}

impl Draft<'_> {
    /// Whether its units are told apart from it: one that is reached elsewhere is a line of its own, with its name.
    fn has_units(&self) -> bool {
        self.units.iter().all(|(unit, _)| unit.url.is_none())
    }
}
