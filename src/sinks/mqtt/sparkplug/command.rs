//! What NCMD and DCMD ask for.
//!
//! A metric is meant by its name, or by its alias if aliases are in use; a member of an instance by `INSTANCE/MEMBER`, or inside a
//! template value. A message that is partly wrong is done as far as it is right, and told about once. Times are
//! not looked at: not every host sends them.

use super::layout::{Layout, NODE_CONTROL, Place};
use super::{data, metric};
use crate::model::{DataType, Role, TagId, Value};
use crate::mqtt::sparkplug::proto::payload::{Metric, metric as wire};
use crate::mqtt::sparkplug::{codec, read};
use crate::sinks::mqtt::dialect::Ask;

pub(super) const REBIRTH: &str = "Rebirth";

/// What else a node can be told, and who may. The names follow `Node Control/`. Nothing for admins: an NCMD does not say which
/// role its sender has, and whoever may ask for a rebirth or write a tag may send one.
pub(super) const CONTROLS: [(&str, Role); 1] = [("Identify", Role::Operator)];

/// Fields of one command: some 20 MB of memory at worst, and more metrics than a device has.
const PARTS: usize = 65_536;

pub(super) struct Commands {
    /// The most that a command may do.
    pub(super) role: Option<Role>,
    pub(super) aliases: bool,
}

impl Commands {
    pub(super) fn allow(&self, role: Role) -> bool {
        self.role.is_some_and(|most| most >= role)
    }

    pub(super) fn read(&self, layout: &Layout, place: &Place, payload: &[u8]) -> Vec<Ask> {
        let mut asks = Asks::default();
        match read(payload, PARTS) {
            Ok(payload) => payload.metrics.iter().for_each(|metric| self.metric(layout, place, metric, &mut asks)),
            Err(error) => asks.refuse(|| error.to_string()),
        }
        asks.finish()
    }

    fn metric(&self, layout: &Layout, place: &Place, metric: &Metric, asks: &mut Asks) {
        let by_alias = || self.by_alias(layout, place, metric.alias?);
        let Some(name) = metric.name.clone().filter(|name| !name.is_empty()).or_else(by_alias) else {
            return asks.refuse(|| match metric.alias {
                Some(alias) => format!("there is no metric with the alias {alias}"),
                None => "a metric has neither name nor alias".into(),
            });
        };
        match (place, name.strip_prefix(NODE_CONTROL)) {
            (Place::Node, Some(control)) => self.control(control, metric, asks),
            _ => match &metric.value {
                Some(wire::Value::TemplateValue(template)) => {
                    for member in &template.metrics {
                        self.write(layout, place, &format!("{name}/{}", member.name()), member, asks);
                    }
                }
                _ => self.write(layout, place, &name, metric, asks),
            },
        }
    }

    /// The name that a command by name would use.
    fn by_alias(&self, layout: &Layout, place: &Place, alias: u64) -> Option<String> {
        if !self.aliases {
            return None;
        }
        let is_meant = |entry: &&super::layout::Entry| entry.place == *place;
        let tag = u32::try_from(alias.checked_sub(1)?).ok().map(TagId);
        if let Some(entry) = tag.and_then(|tag| layout.entries.get(&tag)).filter(is_meant) {
            return entry.instance.is_none().then(|| entry.name.clone());
        }
        let first = u32::try_from(alias.checked_sub(data::alias_of_instance(TagId(0)))?).ok().map(TagId)?;
        let instance = layout.entries.get(&first).filter(is_meant)?.instance.as_ref()?;
        (instance.first == first).then(|| instance.name.clone())
    }

    fn control(&self, control: &str, metric: &Metric, asks: &mut Asks) {
        let name = || format!("{NODE_CONTROL}{control}");
        let role = CONTROLS.iter().find(|(name, _)| *name == control).map(|(_, role)| *role);
        let ask = match (control, role) {
            (REBIRTH, _) => Ask::Birth,
            (_, Some(role)) if self.allow(role) => Ask::Control(control.to_owned()),
            (_, Some(role)) => {
                return asks.refuse(|| format!("{}: it takes mqtt.commands = \"{role}\"", name()));
            }
            (_, None) => return asks.refuse(|| format!("{}: there is no such metric", name())),
        };
        match codec::decode(metric, DataType::Boolean, false) {
            Ok(Value::Boolean(true)) if asks.asks.contains(&ask) => {}
            Ok(Value::Boolean(true)) => asks.asks.push(ask),
            // As the birth has it: nobody asks for anything.
            Ok(_) => {}
            Err(error) => asks.refuse(|| format!("{}: {error}", name())),
        }
    }

    fn write(&self, layout: &Layout, place: &Place, name: &str, metric: &Metric, asks: &mut Asks) {
        let Some(tag) = layout.metric(place, name) else {
            return asks.refuse(|| format!("{name}: there is no such metric"));
        };
        let spec = &layout.entries[&tag].spec;
        if !self.allow(Role::Operator) {
            return asks.refuse(|| format!("{name}: writing takes mqtt.commands = \"{}\"", Role::Operator));
        }
        if !spec.writable {
            return asks.refuse(|| format!("{name}: it is read-only"));
        }
        match codec::decode(metric, spec.data_type, spec.is_array) {
            Ok(value) => {
                debug_assert!(metric::fits(spec, &value), "what was decoded is of the tag's type");
                asks.asks.push(Ask::Write(tag, value));
            }
            Err(error) => asks.refuse(|| format!("{name}: {error}")),
        }
    }
}

/// What one message asks for. However many faults it has, it is one line in the log.
#[derive(Default)]
struct Asks {
    asks: Vec<Ask>,
    first_fault: Option<String>,
    faults: usize,
}

impl Asks {
    fn refuse(&mut self, why: impl FnOnce() -> String) {
        self.faults += 1;
        self.first_fault.get_or_insert_with(why);
    }

    fn finish(mut self) -> Vec<Ask> {
        if let Some(fault) = self.first_fault {
            self.asks.push(Ask::Refused(match self.faults {
                1 => fault,
                faults => format!("{fault}; and {} more", faults - 1),
            }));
        }
        self.asks
    }
}
