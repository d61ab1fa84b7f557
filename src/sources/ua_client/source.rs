//! The tags of a source, and its life: connect, be lost, wait, connect.

use super::access::Access;
use super::config::{Config, DEFAULT_GROUP, GroupConfig};
use super::found::Key;
use super::inbox::{Gaps, Inbox};
use super::session::Ended;
use super::status::{self, Said, Status};
use super::watch::Seat;
use super::{Place, Source, SourceError};
use crate::base::{Backoff, Stop};
use crate::hub::{Hub, Registration};
use crate::model::{self, DataType, Quality, TagId, TagName, TagSpec};
use crate::opcua::client::{ConnectError, Connection, Names, NodeRef, hint, name};
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
    pub(super) by_node: HashMap<Key, usize>,
    /// Given to tags, below the folder of the source.
    pub(super) names: Names,
    pub(super) by_tag: HashMap<TagId, usize>,
    pub(super) inbox: Inbox,
    pub(super) status: Status,
    said: Said,
    access: Access,
    /// What is said on all tags now, while there is no session.
    lost_as: Option<Quality>,
    /// Sessions there were.
    sessions: u32,
    /// The session has delivered for a while, so that the next attempt may follow at once.
    pub(super) is_steady: bool,
    pub(super) gaps: Gaps,
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

/// Why there is no session, in the log, until there has been one for a while.
const REASONS: usize = 20;
/// At most between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// A person may be about to accept the server's certificate.
const WAIT_FOR_TRUST: Duration = Duration::from_secs(3);

#[async_trait]
impl Source for UaClient {
    async fn run(&mut self, stop: &Stop) {
        let mut backoff = Backoff::new(Duration::from_secs(1), LONGEST_WAIT);
        // A server that is half there ends sessions for two reasons in turn.
        let mut said: HashSet<String> = HashSet::new();
        // After a failure of the task nothing of an earlier session is left.
        self.lose(&Quality::new(model::Status::BAD_NOT_CONNECTED, "there is no session with the server yet"));
        self.status.last_error.clear();
        while !stop.is_stopped() {
            self.is_steady = false;
            let outcome = self.run_once(stop).await;
            if self.is_steady {
                backoff.reset();
                said.clear();
            }
            let (quality, hint, is_untrusted) = match outcome {
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
            if said.len() < REASONS && said.insert(reason.clone()) {
                warn!(source = self.config.name, url = self.config.url, %reason, hint, "No session with the server; trying again.");
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
        let mut names = Names::default();
        let folder = config.name.len() + 1;
        specs.iter().for_each(|spec| names.hold(&spec.name.as_str()[folder..]));
        for tag in &config.tag {
            names.hold(&tag.get_ref().name);
            let name = TagName::new(&format!("{}/{}", config.name, tag.get_ref().name))?;
            specs.push(TagSpec::new(name, DataType::Variant));
        }
        let tags = hub.register(&format!("ua_client {}", config.name), specs)?;
        let mut source = Self {
            inbox: Inbox::new(hub.clone()),
            items: Vec::with_capacity(config.tag.len()),
            by_node: HashMap::new(),
            names,
            by_tag: HashMap::new(),
            status: Status::default(),
            said: Said::default(),
            access: Access::default(),
            lost_as: None,
            sessions: 0,
            is_steady: false,
            gaps: Gaps::default(),
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

    pub(super) fn group(&self, name: Option<&str>) -> usize {
        let name = name.unwrap_or(DEFAULT_GROUP);
        self.groups.iter().position(|group| group.name == name).expect("the configuration was checked")
    }

    pub(super) fn add(&mut self, tag: TagId, group: usize, origin: Origin) -> usize {
        let row = self.items.len();
        self.items.push(Item { tag, group, origin, node: None, seat: None });
        self.by_tag.insert(tag, row);
        self.inbox.add(tag);
        row
    }

    /// One attempt, and the session that comes of it. `Ok` is the stop.
    async fn run_once(&mut self, stop: &Stop) -> Result<(), Ended> {
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
