//! What is wrong with a `[[modbus]]`: by table within the table and by key, with what would be right.

use super::Finding;
use super::config::{Config, Endpoint, Found, MOST_BITS, MOST_REGISTERS, Tag, Unit};
use super::layout::Type;
use super::plan::Area;
use crate::model::{DataType, TagName};
use std::collections::BTreeSet;
use std::time::Duration;
use toml::Spanned;

const SHORTEST: Duration = Duration::from_millis(10);
/// Between two readings.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// More, and a unit that is frozen is known to be too late.
const MOST_RETRIES: u8 = 10;
/// Of one request (Modbus Application Protocol V1.1b3, 6.11 and 6.12).
const MOST_WRITTEN_REGISTERS: u32 = 123;
const MOST_WRITTEN_COILS: u32 = 1968;

impl Config {
    pub(super) fn faults(&self) -> Vec<Finding> {
        let mut found: Vec<Finding> = self.check_line().into_iter().map(Finding::from).collect();
        for group in &self.group {
            found.extend(check_interval(group.get_ref().interval).map(|one| at(group, one)));
        }
        let mut names = BTreeSet::new();
        for (index, spanned) in self.unit.iter().enumerate() {
            let unit = spanned.get_ref();
            found.extend(self.check_unit(index, unit).into_iter().map(|one| at(spanned, one)));
            let own = unit.ids().unwrap_or_default().into_iter().map(|id| unit.name_of(id)).collect::<BTreeSet<_>>();
            if let Some(name) = own.iter().find(|name| !names.insert((*name).clone())) {
                found.push(at(spanned, ("name", format!("there is another unit {name:?}; each needs its own"))));
            }
            let model = self.model(unit).filter(|model| !std::ptr::eq(*model, unit));
            let mut tags: BTreeSet<&str> =
                model.iter().flat_map(|model| &model.tag).map(|tag| &*tag.get_ref().name).collect();
            for tag in &unit.tag {
                let name = &tag.get_ref().name;
                if !tags.insert(name) {
                    let whose = match model {
                        Some(model) => format!("this unit, or {:?}, which it is like,", model.name),
                        None => "this unit".into(),
                    };
                    found.push(at(tag, ("name", format!("{whose} has another tag {name:?}; give it another name"))));
                }
                found.extend(self.check_tag(unit, tag.get_ref()).into_iter().map(|one| at(tag, one)));
            }
        }
        found
    }

    fn check_line(&self) -> Vec<Found> {
        let mut found = Vec::new();
        match self.endpoint() {
            Some(Err(error)) => found.push(error),
            None if self.unit.iter().any(|unit| unit.get_ref().url.is_none()) => {
                let what = "says not where the units are; add url = \"tcp://ADDRESS\" or device = \"/dev/ttyUSB0\"";
                found.push(("url", what.into()));
            }
            Some(Ok(_)) | None => {}
        }
        if self.device.as_ref().is_some_and(|device| !device.is_absolute()) {
            found.push(("device", "write its path, as in \"/dev/ttyUSB0\"".into()));
        }
        if !(50..=4_000_000).contains(&self.baud) {
            found.push(("baud", format!("{} is no usual speed; use one as 9600, 19200 or 115200", self.baud)));
        }
        if !(1..=2).contains(&self.stop_bits) {
            found.push(("stop_bits", "it is 1 or 2".into()));
        }
        found.extend(check_interval(self.interval));
        if self.timeout < SHORTEST {
            found.push(("timeout", "it is too short; use \"10ms\" or more".into()));
        }
        if self.timeout > Duration::from_secs(60) {
            found.push(("timeout", "it is too long; use \"60s\" or less".into()));
        }
        if self.retries > MOST_RETRIES {
            found.push(("retries", format!("it goes from 0 to {MOST_RETRIES}")));
        }
        if self.request_gap.is_some_and(|gap| gap > Duration::from_secs(1)) {
            found.push(("request_gap", "it is too long; use \"1s\" or less".into()));
        }
        if !(1..=MOST_REGISTERS).contains(&self.max_registers) {
            found.push(("max_registers", format!("it goes from 1 to {MOST_REGISTERS}")));
        }
        if !(1..=MOST_BITS).contains(&self.max_bits) {
            found.push(("max_bits", format!("it goes from 1 to {MOST_BITS}")));
        }
        if self.unit.is_empty() {
            found.push(("unit", "it has no units; add a table [[modbus.unit]] with id = 1, for example".into()));
        }
        found
    }

    fn check_unit(&self, index: usize, unit: &Unit) -> Vec<Found> {
        let mut found = Vec::new();
        let ids = unit.ids();
        match &ids {
            Err(error) => found.push(error.clone()),
            Ok(ids) => {
                let endpoints = ids.iter().map(|id| unit.endpoint(*id)).collect::<Option<Result<Vec<_>, _>>>();
                let is_tcp = match &endpoints {
                    Some(Err(error)) => {
                        found.push(error.clone());
                        true
                    }
                    Some(Ok(own)) => own.iter().all(|endpoint| matches!(endpoint, Endpoint::Tcp(_))),
                    None => matches!(self.endpoint(), Some(Ok(Endpoint::Tcp(_)))),
                };
                if let Some(id) = ids.iter().find(|id| !is_tcp && !(1..=247).contains(*id)) {
                    let key = if unit.ids.is_some() { "ids" } else { "id" };
                    found.push((key, format!("{id} is out of range; on a line of RTU frames ids go from 1 to 247")));
                }
                if ids.len() > 1 && !unit.name.contains("{id}") {
                    found.push((
                        "name",
                        format!("all have the same; write {{id}} in it, as in \"{}{{id}}\"", unit.name),
                    ));
                } else if let Some(Err(error)) = ids.first().map(|id| TagName::new(&unit.name_of(*id))) {
                    found.push(("name", error.to_string()));
                }
            }
        }
        if let Some(group) = &unit.group {
            found.extend(self.check_group(group));
        }
        match &unit.like {
            Some(like) => match self.unit.iter().position(|other| other.get_ref().name == *like) {
                Some(other) if self.unit[other].get_ref().like.is_some() => {
                    found.push(("like", format!("{like:?} is itself like another; name that one")));
                }
                Some(other) if other != index => {}
                _ => found.push(("like", format!("there is no other unit {like:?} in this [[modbus]]"))),
            },
            None if unit.tag.is_empty() => {
                let what =
                    "it has no tags; add a table [[modbus.unit.tag]], or like = \"NAME\" for those of another unit";
                found.push(("tag", what.into()));
            }
            None => {}
        }
        found
    }

    fn check_group(&self, group: &str) -> Option<Found> {
        let is_known = self.group.iter().any(|known| known.get_ref().name == group);
        let what =
            || format!("there is no group {group:?}; add a table [[modbus.group]] with that name and an interval");
        (!is_known).then(|| ("group", what()))
    }

    fn check_tag(&self, unit: &Unit, tag: &Tag) -> Vec<Found> {
        let mut found = Vec::new();
        if let Err(error) = TagName::new(&tag.name) {
            found.push(("name", error.to_string()));
        }
        if let Some(group) = &tag.group {
            found.extend(self.check_group(group));
        }
        let (area, address) = match tag.place() {
            Ok(place) => place,
            Err(error) => {
                found.push(error);
                return found;
            }
        };
        found.extend(tag.check_type(area));
        if !found.is_empty() {
            return found;
        }
        let layout = tag.layout(area, unit.order.unwrap_or(self.order));
        let size = layout.size();
        let (most, what) = match area.is_bits() {
            true => (self.max_bits, "bits"),
            false => (self.max_registers, "registers"),
        };
        if size == 0 || size > most.into() {
            let key = match (layout.kind, layout.count) {
                (Type::String, _) => "length",
                (_, Some(_)) => "count",
                (_, None) => "type",
            };
            found.push((
                key,
                format!("it takes {size} {what}; one request reads 1 to {most}, and a tag is read in one"),
            ));
        } else if u32::from(address) + size > 65_536 {
            let key = if tag.register.is_some() { "register" } else { "address" };
            found.push((key, format!("it takes {size} {what} from {address} on, but the last one is 65535")));
        }
        if tag.writable {
            let what = match area {
                Area::Input | Area::Discrete => {
                    Some("inputs cannot be written; only tables \"coil\" and \"holding\" can")
                }
                Area::Holding if size > MOST_WRITTEN_REGISTERS => Some("one request writes 123 registers at most"),
                Area::Coil if size > MOST_WRITTEN_COILS => Some("one request writes 1968 coils at most"),
                Area::Holding | Area::Coil => None,
            };
            found.extend(what.map(|what| ("writable", what.to_owned())));
            if layout.kind == Type::String && layout.text % 2 == 1 {
                let what = "a text that is written fills whole registers of two bytes; make the length even";
                found.push(("length", what.into()));
            }
        }
        found
    }
}

impl Tag {
    fn check_type(&self, area: Area) -> Vec<Found> {
        let kind = self.kind(area);
        let is_scaled = self.scale.is_some() || self.offset.is_some();
        let mut found = Vec::new();
        let mut refuse = |is_wrong: bool, key, what: &str| {
            if is_wrong {
                found.push((key, what.to_owned()));
            }
        };
        let is_boolean = kind == Type::Boolean;
        refuse(area.is_bits() && !is_boolean, "type", "coils and discrete inputs are of type \"Boolean\"");
        refuse(area.is_bits() && self.bit.is_some(), "bit", "coils and discrete inputs are bits already; take it away");
        refuse(!area.is_bits() && self.bit.is_some() && !is_boolean, "type", "a bit is of type \"Boolean\"");
        let no_bit = !area.is_bits() && is_boolean && self.bit.is_none();
        refuse(no_bit, "type", "a Boolean in a register needs to know which bit; add bit = 0 (the lowest) to 15");
        refuse(self.bit.is_some_and(|bit| bit > 15), "bit", "a register has the bits 0 (the lowest) to 15");
        refuse(
            self.bit.is_some() && self.count.is_some(),
            "count",
            "a bit of a register is no array; make a tag for each",
        );
        refuse(
            kind == Type::String && self.length.is_none(),
            "type",
            "a String needs its length in bytes; add length = 16",
        );
        refuse(kind == Type::String && self.count.is_some(), "count", "texts are no arrays; make a tag for each");
        refuse(
            kind != Type::String && self.length.is_some(),
            "length",
            "only a String has a length; arrays have a count",
        );
        refuse(is_scaled && !kind.is_number(), "scale", "only numbers are scaled");
        let is_usable = |factor: f64| factor.is_finite() && factor != 0.0;
        refuse(self.scale.is_some_and(|scale| !is_usable(scale)), "scale", "it must be a number other than 0");
        refuse(self.offset.is_some_and(|offset| !offset.is_finite()), "offset", "it must be a number");
        refuse(self.range.is_some() && !kind.is_number(), "range", "only numbers have a range");
        let is_backward = self.range.is_some_and(|[low, high]| !low.is_finite() || !high.is_finite() || low >= high);
        refuse(is_backward, "range", "write the lower end first, as in [0, 100]");
        refuse(!self.unit.is_empty() && !kind.is_number(), "unit", "only numbers have a unit");
        let is_choice =
            matches!(kind.data_type(), DataType::UInt16 | DataType::UInt32 | DataType::UInt64) && !is_scaled;
        refuse(
            !self.states.is_empty() && !is_boolean && !is_choice,
            "states",
            "only a Boolean and an unsigned number without scale have states",
        );
        refuse(
            is_boolean && !matches!(self.states.len(), 0 | 2),
            "states",
            "a Boolean has two: what false means, then true",
        );
        found
    }
}

fn check_interval(interval: Duration) -> Option<Found> {
    let what = match interval {
        short if short < SHORTEST => "it is too short; use \"10ms\" or more",
        long if long > LONGEST => "it is too long; use \"1day\" or less",
        _ => return None,
    };
    Some(("interval", what.into()))
}

/// Of a table within the table.
fn at<T>(table: &Spanned<T>, (key, what): Found) -> Finding {
    Finding { at: Some(table.span()), key, what }
}
