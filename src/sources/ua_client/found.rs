//! What a look has found becomes tags.
//!
//! A tag of a rule belongs to its node: by the URI of its namespace and its identifier, never by its name. So a node that
//! was seen keeps its tag, whatever comes beside it or below it and whatever the server's indices are after a restart; and
//! a tag never shows another node. Rules with one folder share the tag of a node that both find.

use super::learn::Learned;
use super::look::Seen;
use super::rules::{self, Found, Harvest, Rest};
use super::source::{Item, Origin, UaClient};
use super::watch::Wish;
use crate::hub::RegisterError;
use crate::model::{DataType, TagId, TagName, TagSpec};
use crate::opcua::client::ServiceError;
use ::opcua::types::{NodeId, StatusCode};
use std::collections::HashSet;
use tracing::info;

/// The first rule with the folder, and the node's identity.
pub(super) type Key = (usize, String);

/// A variable without a tag yet.
struct New {
    rule: usize,
    key: Key,
    found: Found,
}

/// Names of tags that are listed in one line of the log.
const LISTED: usize = 5;

impl UaClient {
    /// Takes over what a look has found; gives what is to be monitored, and whether nothing is missing.
    pub(super) fn apply(&mut self, seen: Seen) -> (Vec<Wish>, bool) {
        let mut wishes = Vec::new();
        let mut respecs = Vec::new();
        let mut is_complete = true;
        for (row, found) in seen.tags {
            match found {
                Ok((node, learned)) => wishes.extend(self.adopt(row, node, learned, &mut respecs)),
                Err(status) => {
                    is_complete = false;
                    self.refuse(row, status);
                }
            }
        }
        // The next look takes their items away.
        seen.gone.iter().for_each(|&row| self.refuse(row, StatusCode::BadNodeIdUnknown));
        let mut present = HashSet::new();
        let mut new: Vec<New> = Vec::new();
        let mut states = Vec::with_capacity(seen.rules.len());
        for (rule, harvest) in seen.rules {
            let (found, state) = self.judge(rule, harvest);
            states.push((rule, state));
            let folder = self.folder(rule);
            let (known, mut unknown): (Vec<Found>, Vec<Found>) =
                found.into_iter().partition(|found| self.by_node.contains_key(&(folder, found.identity.clone())));
            for found in known {
                let row = self.by_node[&(folder, found.identity)];
                if present.insert(row) {
                    wishes.extend(self.adopt(row, found.node, found.learned, &mut respecs));
                }
            }
            // Those that are gone count too, or a server that makes new NodeIds all the time would fill the memory.
            let is_own = |item: &&Item| matches!(item.origin, Origin::Rule(of) if of == rule);
            let room = self.rule(rule).at_most.saturating_sub(self.items.iter().filter(is_own).count());
            if unknown.len() > room {
                self.say_cut(rule, Rest::TooMany);
                unknown.truncate(room);
            }
            new.extend(unknown.into_iter().map(|found| New { rule, key: (folder, found.identity.clone()), found }));
        }
        // Before new ones come, which have no items yet either.
        for (rule, state) in states {
            is_complete &= state == StatusCode::Good;
            let status = if state == StatusCode::Good { StatusCode::BadNodeIdUnknown } else { state };
            is_complete &= self.miss(rule, &present, status);
        }
        wishes.extend(self.name(new));
        self.tags.respec(respecs);
        (wishes, is_complete)
    }

    fn rule(&self, number: usize) -> &super::config::RuleConfig {
        self.config.rule[number].get_ref()
    }

    /// Of a rule, as the number of the first rule that has the same.
    fn folder(&self, rule: usize) -> usize {
        let folder = &self.rule(rule).folder;
        self.config.rule.iter().position(|other| other.get_ref().folder == *folder).unwrap_or(rule)
    }

    fn say_cut(&mut self, rule: usize, rest: Rest) {
        let below = &self.rule(rule).below;
        self.tell_once(match rest {
            Rest::TooMany => format!("there are more variables below {below} than at_most; the rest is left out"),
            Rest::TooDeep => format!(
                "there are nodes more than {} levels below {below}; they are left out, and need a rule of their own",
                rules::DEEPEST
            ),
        });
    }

    /// What a rule has found that can have a name, and how it went.
    fn judge(&mut self, rule: usize, harvest: Result<Harvest, ServiceError>) -> (Vec<Found>, StatusCode) {
        let below = self.rule(rule).below.clone();
        let Harvest { found, rest } = match harvest {
            Ok(harvest) => harvest,
            Err(error) => {
                self.tell_once(format!("nothing can be found below {below}: {error}"));
                return (Vec::new(), error.status);
            }
        };
        if let Some(rest) = rest {
            self.say_cut(rule, rest);
        }
        let (fit, unfit): (Vec<Found>, Vec<Found>) =
            found.into_iter().partition(|one| self.tag_name(&one.path).is_some());
        if !unfit.is_empty() {
            let some = unfit.iter().take(LISTED).map(|one| one.path.as_str()).collect::<Vec<_>>().join(", ");
            self.tell_once(format!("{} variables below {below} have no name that a tag can have: {some}", unfit.len()));
        }
        (fit, StatusCode::Good)
    }

    fn tag_name(&self, path: &str) -> Option<TagName> {
        TagName::new(&format!("{}/{path}", self.config.name)).ok()
    }

    /// The node behind a tag is known; `None` if it is monitored already.
    fn adopt(
        &mut self,
        row: usize,
        node: NodeId,
        learned: Learned,
        respecs: &mut Vec<(TagId, TagSpec)>,
    ) -> Option<Wish> {
        let item = &mut self.items[row];
        if item.seat.is_some() {
            return None;
        }
        item.node = Some(node.clone());
        let before = self.hub.spec(item.tag);
        if learned.data_type == DataType::Variant {
            self.inbox.untyped(row);
        }
        let wish = Wish { row, group: item.group, node, is_number: learned.data_type.is_number() };
        let mut spec = spec(before.name.clone(), learned);
        if spec.data_type == DataType::Variant && before.data_type != DataType::Variant {
            // What the first value of an earlier session told holds until that of this one.
            (spec.data_type, spec.is_array) = (before.data_type, before.is_array);
        }
        if spec != *before {
            respecs.push((item.tag, spec));
        }
        Some(wish)
    }

    /// Tags for variables that are seen for the first time.
    fn name(&mut self, mut new: Vec<New>) -> Vec<Wish> {
        if new.is_empty() {
            return Vec::new();
        }
        // The configuration gives a name to one node: the rule's is left out, also if it is that very node.
        let configured: HashSet<&str> = self.config.tag.iter().map(|tag| tag.get_ref().name.as_str()).collect();
        let mut seen = HashSet::new();
        let mut twice = Vec::new();
        new.retain(|one| {
            let is_free = !configured.contains(one.found.path.as_str());
            if !is_free {
                twice.push(one.found.path.clone());
            }
            is_free && seen.insert(one.key.clone())
        });
        if let Some(first) = twice.first() {
            let others = twice.len();
            self.tell_once(format!("{others} variables that rules have found get no tag, because a [[ua_client.tag]] has the name, as {first} does"));
        }
        // Who gets the plain name must not hang on the order in which the server tells them.
        new.sort_by(|one, other| (&one.found.path, &one.key.1).cmp(&(&other.found.path, &other.key.1)));
        let paths: Vec<String> = new.iter().map(|one| one.found.path.clone()).collect();
        let named = self.names.give(&paths).into_iter().zip(new);
        let mut of_rules: Vec<Vec<(String, TagName, New)>> = self.config.rule.iter().map(|_| Vec::new()).collect();
        for (path, one) in named {
            match self.tag_name(&path) {
                Some(name) => of_rules[one.rule].push((path, name, one)),
                None => {
                    self.names.release(&path);
                    self.tell_once(format!("a variable that a rule has found gets no tag: {path} is too long"));
                }
            }
        }
        of_rules.into_iter().flat_map(|new| self.create(new)).collect()
    }

    /// Of one rule.
    fn create(&mut self, mut new: Vec<(String, TagName, New)>) -> Vec<Wish> {
        let Some((.., New { rule, .. })) = new.first() else { return Vec::new() };
        let rule = *rule;
        let spec_of = |(_, name, one): &(String, TagName, New)| spec(name.clone(), one.found.learned.clone());
        while let Err(error) = self.tags.extend(new.iter().map(spec_of).collect()) {
            let (RegisterError::Duplicate { name, .. } | RegisterError::Folder { name, .. }) = &error;
            self.tell_once(format!("a variable that a rule has found gets no tag: {error}"));
            let Some(at) = new.iter().position(|(_, one, _)| one == name) else { return Vec::new() };
            let (path, ..) = new.remove(at);
            self.names.release(&path);
        }
        if new.is_empty() {
            return Vec::new();
        }
        info!(source = self.config.name, count = new.len(), "Tags from a rule.");
        let group = self.group(self.rule(rule).group.clone().as_deref());
        let first = self.tags.tags().len() - new.len();
        let tags: Vec<TagId> = self.tags.tags()[first..].to_vec();
        let mut wishes = Vec::with_capacity(new.len());
        for (tag, (.., New { key, found: Found { node, learned, .. }, .. })) in tags.into_iter().zip(new) {
            let row = self.add(tag, group, Origin::Rule(rule));
            self.by_node.insert(key, row);
            if learned.data_type == DataType::Variant {
                self.inbox.untyped(row);
            }
            self.items[row].node = Some(node.clone());
            wishes.push(Wish { row, group, node, is_number: learned.data_type.is_number() });
        }
        wishes
    }

    /// Tags of a rule whose variable is not there (now). Whether there are none.
    fn miss(&mut self, rule: usize, present: &HashSet<usize>, status: StatusCode) -> bool {
        let is_missing = |(row, item): (usize, &Item)| {
            let is_of_rule = matches!(item.origin, Origin::Rule(number) if number == rule);
            (is_of_rule && item.seat.is_none() && !present.contains(&row)).then_some(row)
        };
        let missing: Vec<usize> = self.items.iter().enumerate().filter_map(is_missing).collect();
        missing.iter().for_each(|&row| self.refuse(row, status));
        missing.is_empty()
    }
}

fn spec(name: TagName, learned: Learned) -> TagSpec {
    let Learned { data_type, is_array, is_writable, description, unit, range, states } = learned;
    TagSpec { is_array, writable: is_writable, description, unit, range, states, ..TagSpec::new(name, data_type) }
}
