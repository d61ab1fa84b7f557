//! The tags of a source, and its life: connect, be lost, wait, connect.

use super::access::Access;
use super::config::{Config, DEFAULT_GROUP, GroupConfig};
use super::inbox::Inbox;
use super::learn::Learned;
use super::look::Seen;
use super::session::Ended;
use super::status::{self, Said, Status};
use super::watch::{Seat, Wish};
use super::{Place, Source, SourceError};
use crate::base::{Backoff, Stop};
use crate::hub::{Hub, RegisterError, Registration};
use crate::model::{self, DataType, Quality, TagId, TagName, TagSpec};
use crate::opcua::client::{ConnectError, Connection, NodeRef, hint, name};
use ::opcua::types::{NodeId, StatusCode};
use async_trait::async_trait;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tracing::{info, warn};

pub(super) struct UaClient {
    pub(super) config: Config,
    place: Place,
    pub(super) hub: Hub,
    /// First those of [`status`], then one for each item.
    pub(super) tags: Registration,
    pub(super) groups: Vec<GroupConfig>,
    /// Row by row as in the inbox.
    pub(super) items: Vec<Item>,
    /// Rows of tags that rules have made.
    by_name: HashMap<TagName, usize>,
    pub(super) by_tag: HashMap<TagId, usize>,
    pub(super) inbox: Inbox,
    pub(super) status: Status,
    said: Said,
    access: Access,
    /// What is said on all tags now, while there is no session.
    lost_as: Option<Quality>,
    /// Sessions there were.
    sessions: u32,
    /// Said in the log already.
    pub(super) told: HashSet<String>,
}

/// A tag and what is behind it.
pub(super) struct Item {
    pub tag: TagId,
    pub group: usize,
    pub origin: Origin,
    /// In this session.
    pub node: Option<NodeId>,
    pub seat: Option<Seat>,
}

/// Why there is the tag.
pub(super) enum Origin {
    Tag(NodeRef),
    /// By its number.
    Rule(usize),
}

/// At most between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// A person may be about to accept the server's certificate.
const WAIT_FOR_TRUST: Duration = Duration::from_secs(3);
/// Names of tags that are listed in one line of the log.
const LISTED: usize = 5;

#[async_trait]
impl Source for UaClient {
    async fn run(&mut self, stop: &Stop) {
        let mut backoff = Backoff::new(Duration::from_secs(1), LONGEST_WAIT);
        let mut said = String::new();
        // After a failure of the task nothing of an earlier session is left.
        self.lose(&Quality::new(model::Status::BAD_NOT_CONNECTED, "there is no session with the server yet"));
        self.status.last_error.clear();
        while !stop.is_stopped() {
            let (quality, hint, is_untrusted) = match self.run_once(stop, &mut backoff).await {
                Ok(()) => return,
                Err(Ended::Connect(error)) => {
                    let untrusted = matches!(error, ConnectError::Untrusted(_));
                    (Quality::new(error.status(), error.to_string()), error.hint(), untrusted)
                }
                Err(Ended::Lost(quality)) => (quality, None, false),
            };
            self.lose(&quality);
            let reason = quality.reason.as_deref().unwrap_or_default().to_owned();
            self.hub.source_lost(&self.config.name, &reason);
            if said != reason {
                warn!(source = self.config.name, url = self.config.url, %reason, hint, "No session with the server; trying again.");
                said = reason;
            }
            let wait = backoff.wait();
            self.refuse_writes(if is_untrusted { wait.min(WAIT_FOR_TRUST) } else { wait }, &quality, stop).await;
        }
    }
}

impl UaClient {
    pub(super) fn register(config: Config, place: Place, hub: &Hub) -> Result<Self, SourceError> {
        let groups = config.groups();
        let mut specs = status::specs(&config.name)?;
        let own = specs.len();
        for tag in &config.tag {
            let name = TagName::new(&format!("{}/{}", config.name, tag.get_ref().name))?;
            specs.push(TagSpec::new(name, DataType::Variant));
        }
        let tags = hub.register(&format!("ua_client {}", config.name), specs)?;
        let mut source = Self {
            inbox: Inbox::new(hub.clone()),
            items: Vec::with_capacity(config.tag.len()),
            by_name: HashMap::new(),
            by_tag: HashMap::new(),
            status: Status::default(),
            said: Said::default(),
            access: Access::default(),
            lost_as: None,
            sessions: 0,
            told: HashSet::new(),
            hub: hub.clone(),
            groups,
            config,
            place,
            tags,
        };
        for index in 0..source.config.tag.len() {
            let tag = source.tags.tags()[own + index];
            let config = source.config.tag[index].get_ref();
            let node = NodeRef::parse(&config.node).expect("the configuration was checked");
            let group = source.group(config.group.as_deref());
            source.add(tag, group, Origin::Tag(node));
        }
        Ok(source)
    }

    fn group(&self, name: Option<&str>) -> usize {
        let name = name.unwrap_or(DEFAULT_GROUP);
        self.groups.iter().position(|group| group.name == name).expect("the configuration was checked")
    }

    fn add(&mut self, tag: TagId, group: usize, origin: Origin) -> usize {
        let row = self.items.len();
        self.items.push(Item { tag, group, origin, node: None, seat: None });
        self.by_tag.insert(tag, row);
        self.inbox.add(tag);
        row
    }

    /// One attempt, and the session that comes of it. `Ok` is the stop.
    async fn run_once(&mut self, stop: &Stop, backoff: &mut Backoff) -> Result<(), Ended> {
        let (target, trust) = self.access.target(&self.config, &self.place).await?;
        let connection = {
            let open = Connection::open(&target, &*trust);
            let refuse = async {
                loop {
                    let quality = Quality::new(model::Status::BAD_NOT_CONNECTED, "the session is just being opened");
                    let _ = self.tags.next_write().await.reply.send(Err(quality));
                }
            };
            tokio::select! {
                opened = open => opened?,
                () = refuse => return Ok(()),
                () = stop.stopped() => return Ok(()),
            }
        };
        let endpoint = connection.endpoint();
        info!(
            source = self.config.name,
            server = %endpoint.server.application_name.text,
            mode = %endpoint.security_mode,
            "Connected."
        );
        self.sessions += 1;
        self.status.reconnects = self.sessions - 1;
        self.status.connected = true;
        self.lost_as = None;
        self.hub.source_back(&self.config.name);
        backoff.reset();
        let outcome = tokio::select! {
            ended = self.serve(&connection) => Err(ended),
            loss = connection.lost() => Err(Ended::Lost(loss.quality())),
            () = stop.stopped() => Ok(()),
        };
        if let Err(Ended::Lost(quality)) = &outcome {
            // Before the good-bye, which may take a moment.
            self.lose(quality);
        }
        connection.close().await;
        outcome
    }

    /// All tags are Bad, and nothing of the session counts any more.
    fn lose(&mut self, quality: &Quality) {
        if self.lost_as.as_ref() == Some(quality) {
            return;
        }
        self.lost_as = Some(quality.clone());
        self.inbox.close(quality);
        for item in &mut self.items {
            (item.node, item.seat) = (None, None);
        }
        self.status.connected = false;
        self.status.clock_offset = None;
        self.status.last_error = quality.to_string();
        self.tell();
    }

    /// Brings the tags below `status` up to date.
    pub(super) fn tell(&mut self) {
        self.status.counts = self.inbox.counts();
        self.said.publish(&self.status, &self.tags, &self.hub);
    }

    async fn refuse_writes(&mut self, wait: Duration, quality: &Quality, stop: &Stop) {
        let wait = stop.sleep(wait);
        tokio::pin!(wait);
        loop {
            tokio::select! {
                _ = &mut wait => return,
                request = self.tags.next_write() => {
                    // Whoever asked may have given up.
                    let _ = request.reply.send(Err(quality.clone()));
                }
            }
        }
    }

    /// Takes over what a look has found; gives what is to be monitored.
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
        for (number, harvest) in seen.rules {
            let below = self.config.rule[number].get_ref().below.clone();
            let harvest = match harvest {
                Ok(harvest) => harvest,
                Err(error) => {
                    is_complete = false;
                    self.tell_once(format!("nothing can be found below {below}: {error}"));
                    self.miss(number, &HashSet::new(), error.status);
                    continue;
                }
            };
            if harvest.is_cut {
                self.tell_once(format!("there are more variables below {below} than at_most; the rest is left out"));
            }
            let group = self.group(self.config.rule[number].get_ref().group.clone().as_deref());
            let mut present = HashSet::new();
            let mut new = Vec::new();
            let mut unfit = Vec::new();
            for found in harvest.found {
                let name = match TagName::new(&format!("{}/{}", self.config.name, found.name)) {
                    Ok(name) => name,
                    Err(_) => {
                        unfit.push(found.name);
                        continue;
                    }
                };
                match self.by_name.get(&name) {
                    Some(&row) => {
                        present.insert(row);
                        wishes.extend(self.adopt(row, found.node, found.learned, &mut respecs));
                    }
                    None => new.push((name, found.node, found.learned)),
                }
            }
            if !unfit.is_empty() {
                let some = unfit.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
                self.tell_once(format!(
                    "{} variables below {below} have no name that a tag can have: {some}",
                    unfit.len()
                ));
            }
            is_complete &= self.miss(number, &present, StatusCode::BadNodeIdUnknown);
            wishes.extend(self.create(number, group, new));
        }
        self.tags.respec(respecs);
        (wishes, is_complete)
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

    /// Tags that a rule has found for the first time.
    fn create(&mut self, rule: usize, group: usize, new: Vec<(TagName, NodeId, Learned)>) -> Vec<Wish> {
        let mut new = new;
        loop {
            let specs: Vec<TagSpec> =
                new.iter().map(|(name, _, learned)| spec(name.clone(), learned.clone())).collect();
            if specs.is_empty() {
                return Vec::new();
            }
            match self.tags.extend(specs) {
                Ok(()) => break,
                Err(error) => {
                    let (RegisterError::Duplicate { name, .. } | RegisterError::Folder { name, .. }) = &error;
                    let before = new.len();
                    new.retain(|(one, ..)| one != name);
                    self.tell_once(format!("a variable that a rule has found gets no tag: {error}"));
                    if new.len() == before {
                        return Vec::new();
                    }
                }
            }
        }
        info!(source = self.config.name, count = new.len(), "Tags from a rule.");
        let first = self.tags.tags().len() - new.len();
        let tags: Vec<TagId> = self.tags.tags()[first..].to_vec();
        let mut wishes = Vec::with_capacity(new.len());
        for (tag, (name, node, learned)) in tags.into_iter().zip(new) {
            let row = self.add(tag, group, Origin::Rule(rule));
            self.by_name.insert(name, row);
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

    /// Says on the tag what the server said of its node.
    pub(super) fn refuse(&self, row: usize, status: StatusCode) {
        let what = match hint(status) {
            Some(hint) => format!("{}: {hint}", name(status)),
            None => name(status),
        };
        self.inbox.refuse(row, &Quality::new(model::Status(status.bits()), what));
    }

    /// In the log, once while the process lives.
    pub(super) fn tell_once(&mut self, what: String) {
        if self.told.len() < 1000 && self.told.insert(what.clone()) {
            warn!(source = self.config.name, "{what}.");
        }
    }
}

fn spec(name: TagName, learned: Learned) -> TagSpec {
    let Learned { data_type, is_array, is_writable, description, unit, range, states } = learned;
    TagSpec { is_array, writable: is_writable, description, unit, range, states, ..TagSpec::new(name, data_type) }
}
