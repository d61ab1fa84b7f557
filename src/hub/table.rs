//! The table: what is known of each tag, its current sample, and who owns it.

use super::Hub;
use crate::model::{Quality, Sample, Status, TagId, TagName, TagSpec, Timestamp, Value};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Writes come from people and from slow loops. When an owner lets this many requests wait, further ones wait as well,
/// until [`super::Hub::write`] or [`super::Hub::refresh`] gives up.
const PENDING_REQUESTS: usize = 64;

/// What the owner of tags is asked for.
#[derive(Debug)]
pub enum Request {
    Write(WriteRequest),
    /// Only for live tags: publish those whose sample is not what a look at them would show, then drop `done`.
    Refresh {
        tags: Vec<TagId>,
        done: oneshot::Sender<()>,
    },
}

/// A write on its way to the owner of the tag. The type of the value is already the tag's.
#[derive(Debug)]
pub struct WriteRequest {
    pub tag: TagId,
    pub value: Value,
    pub reply: oneshot::Sender<Result<(), Quality>>,
}

#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("tag {name} of {owner} exists already: {holder} has it")]
    Duplicate { name: TagName, owner: String, holder: String },
    #[error("tag {name} of {owner} and tag {other} exclude each other: one is the folder of the other")]
    Folder { name: TagName, owner: String, other: TagName },
}

#[derive(Default)]
pub(super) struct Table {
    rows: Vec<Row>,
    names: HashMap<TagName, TagId>,
    /// Each folder with one tag below it, to keep a tag and a folder from having one name.
    folders: HashMap<String, TagId>,
}

struct Row {
    spec: Arc<TagSpec>,
    owner: Arc<str>,
    requests: mpsc::Sender<Request>,
    current: Sample,
}

impl Table {
    /// All of them or, if one is refused, none.
    fn add(&mut self, registration: &Registration, specs: Vec<TagSpec>) -> Result<Vec<TagId>, RegisterError> {
        let Registration { hub, owner, sender, .. } = registration;
        self.check(owner, &specs)?;
        let now = hub.now();
        let mut tags = Vec::with_capacity(specs.len());
        for spec in specs {
            let tag = TagId(u32::try_from(self.rows.len()).expect("memory ends before 2^32 tags"));
            self.names.insert(spec.name.clone(), tag);
            for folder in folders(spec.name.as_str()) {
                self.folders.entry(folder.to_owned()).or_insert(tag);
            }
            let waiting = Quality::from(Status::BAD_WAITING_FOR_INITIAL_DATA);
            self.rows.push(Row {
                spec: Arc::new(spec),
                owner: owner.clone(),
                requests: sender.clone(),
                current: Sample::bad(tag, waiting, now),
            });
            tags.push(tag);
        }
        Ok(tags)
    }

    fn check(&self, owner: &str, specs: &[TagSpec]) -> Result<(), RegisterError> {
        let mut own: HashMap<&str, &TagName> = HashMap::new();
        let mut own_folders: HashMap<&str, &TagName> = HashMap::new();
        for TagSpec { name, .. } in specs {
            let holder = match self.names.get(name) {
                Some(&tag) => Some(self.rows[tag.index()].owner.to_string()),
                None => own.insert(name.as_str(), name).map(|_| owner.to_owned()),
            };
            if let Some(holder) = holder {
                return Err(RegisterError::Duplicate { name: name.clone(), owner: owner.into(), holder });
            }
            own_folders.extend(folders(name.as_str()).map(|folder| (folder, name)));
        }
        for TagSpec { name, .. } in specs {
            let taken = self.folders.get(name.as_str()).map(|&tag| self.rows[tag.index()].spec.name.clone());
            let taken = taken.or_else(|| own_folders.get(name.as_str()).map(|&other| other.clone()));
            let above = || folders(name.as_str()).find_map(|folder| self.names.get_key_value(folder));
            if let Some(other) = taken.or_else(|| above().map(|(other, _)| other.clone())) {
                return Err(RegisterError::Folder { name: name.clone(), owner: owner.into(), other });
            }
        }
        Ok(())
    }

    pub(super) fn store(&mut self, sample: &Sample) {
        self.rows[sample.tag.index()].current = sample.clone();
    }

    pub(super) fn current(&self, tag: TagId) -> &Sample {
        &self.rows[tag.index()].current
    }

    pub(super) fn spec(&self, tag: TagId) -> Arc<TagSpec> {
        self.rows[tag.index()].spec.clone()
    }

    pub(super) fn owner(&self, tag: TagId) -> mpsc::Sender<Request> {
        self.rows[tag.index()].requests.clone()
    }

    /// Those of `tags` that are live and whose sample is not of the time `fresh`, by owner.
    pub(super) fn stale(
        &self,
        tags: &[TagId],
        fresh: &RangeInclusive<Timestamp>,
    ) -> Vec<(mpsc::Sender<Request>, Vec<TagId>)> {
        let mut owners: Vec<(mpsc::Sender<Request>, Vec<TagId>)> = Vec::new();
        for &tag in tags {
            let row = &self.rows[tag.index()];
            if !row.spec.live || fresh.contains(&row.current.server_time) {
                continue;
            }
            match owners.iter_mut().find(|(owner, _)| owner.same_channel(&row.requests)) {
                Some((_, tags)) => tags.push(tag),
                None => owners.push((row.requests.clone(), vec![tag])),
            }
        }
        owners
    }

    pub(super) fn find(&self, name: &TagName) -> Option<TagId> {
        self.names.get(name).copied()
    }

    pub(super) fn specs_from(&self, first: usize) -> Vec<(TagId, Arc<TagSpec>)> {
        let rows = self.rows.iter().skip(first);
        rows.map(|row| (row.current.tag, row.spec.clone())).collect()
    }
}

/// All folders above a name: `a` and `a/b` for `a/b/c`.
fn folders(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}

/// Held by the owner of tags. When it is dropped, its tags go bad: whoever could say their value is gone.
pub struct Registration {
    hub: Hub,
    owner: Arc<str>,
    tags: Vec<TagId>,
    /// For the rows of tags that are added later.
    sender: mpsc::Sender<Request>,
    requests: mpsc::Receiver<Request>,
}

impl Registration {
    pub(super) fn new(hub: Hub, owner: &str) -> Self {
        let (sender, requests) = mpsc::channel(PENDING_REQUESTS);
        Self { hub, owner: owner.into(), tags: Vec::new(), sender, requests }
    }

    /// Makes the holder the owner of further tags; their ids come after those it has.
    pub fn extend(&mut self, specs: Vec<TagSpec>) -> Result<(), RegisterError> {
        let added = self.hub.write_table().add(self, specs)?;
        self.hub.announce(&added);
        self.tags.extend(added);
        Ok(())
    }

    /// The ids, in the order of the specs.
    pub fn tags(&self) -> &[TagId] {
        &self.tags
    }

    /// The next request for one of these tags. Dropping a write unanswered counts as BadNoCommunication. Cancel safe.
    pub async fn next_request(&mut self) -> Request {
        self.requests.recv().await.expect("this holds a sender itself")
    }

    /// The next write, for owners without live tags. Cancel safe.
    pub async fn next_write(&mut self) -> WriteRequest {
        loop {
            if let Request::Write(request) = self.next_request().await {
                return request;
            }
        }
    }

    /// A write that waits already, if there is one.
    pub fn try_next_write(&mut self) -> Option<WriteRequest> {
        loop {
            if let Request::Write(request) = self.requests.try_recv().ok()? {
                return Some(request);
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let reason = format!("{} has stopped", self.owner);
        self.hub.degrade(&self.tags, &Quality::new(Status::BAD_NO_COMMUNICATION, reason));
    }
}
