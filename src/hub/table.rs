//! The table: what is known of each tag, its current sample, and who owns it.

use super::Hub;
use crate::model::{Quality, Sample, Status, TagId, TagName, TagSpec, Timestamp, Value, folders};
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
    /// How many held tags are below each folder, to keep a tag and a folder from having one name.
    folders: HashMap<String, usize>,
    /// Counts registrations and retirements.
    changes: u64,
    /// Counts batches.
    mark: u64,
}

/// A tag that came or became another, with its spec, or that was taken away.
pub type TagChange = (TagId, Option<Arc<TagSpec>>);

struct Row {
    spec: Arc<TagSpec>,
    owner: Arc<str>,
    requests: mpsc::Sender<Request>,
    current: Sample,
    state: State,
    /// Which of the table's changes was the last of this row's spec.
    changed: u64,
}

/// A tag is held, then its owner ends, and either it is registered anew or taken away. Its row stays for its name, which
/// has one id while the process lives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Held,
    Ended,
    Retired,
}

impl Table {
    /// All of them or, if one is refused, none; and whether readers have to know. A tag whose owner has ended gets its old
    /// id.
    fn add(&mut self, registration: &Registration, specs: Vec<TagSpec>) -> Result<(Vec<TagId>, bool), RegisterError> {
        let Registration { hub, owner, sender, .. } = registration;
        self.check(owner, &specs)?;
        let now = hub.now();
        self.changes += 1;
        let mut is_news = false;
        let mut tags = Vec::with_capacity(specs.len());
        for spec in specs {
            let known = self.names.get(&spec.name).copied();
            let next = || TagId(u32::try_from(self.rows.len()).expect("memory ends before 2^32 tags"));
            let tag = known.unwrap_or_else(next);
            for folder in folders(spec.name.as_str()) {
                *self.folders.entry(folder.to_owned()).or_default() += 1;
            }
            let waiting = Quality::from(Status::BAD_WAITING_FOR_INITIAL_DATA);
            let before = known.map(|tag| &self.rows[tag.index()]);
            let is_same = before.is_some_and(|row| row.state == State::Ended && *row.spec == spec);
            is_news |= !is_same;
            let row = Row {
                owner: owner.clone(),
                requests: sender.clone(),
                current: Sample::bad(tag, waiting, now),
                state: State::Held,
                changed: if let (true, Some(before)) = (is_same, before) { before.changed } else { self.changes },
                spec: Arc::new(spec),
            };
            match known {
                Some(tag) => self.rows[tag.index()] = row,
                None => {
                    self.names.insert(row.spec.name.clone(), tag);
                    self.rows.push(row);
                }
            }
            tags.push(tag);
        }
        Ok((tags, is_news))
    }

    /// What is known of a held tag becomes something else but its name. Its sample stays.
    fn respec(&mut self, tag: TagId, spec: TagSpec) -> bool {
        let row = &mut self.rows[tag.index()];
        assert_eq!(row.spec.name, spec.name, "a tag keeps its name");
        if *row.spec == spec {
            return false;
        }
        self.changes += 1;
        row.changed = self.changes;
        row.spec = Arc::new(spec);
        true
    }

    fn check(&self, owner: &str, specs: &[TagSpec]) -> Result<(), RegisterError> {
        let mut own: HashMap<&str, &TagName> = HashMap::new();
        let mut own_folders: HashMap<&str, &TagName> = HashMap::new();
        for TagSpec { name, .. } in specs {
            let holder = match self.held(name.as_str()) {
                Some(row) => Some(row.owner.to_string()),
                None => own.insert(name.as_str(), name).map(|_| owner.to_owned()),
            };
            if let Some(holder) = holder {
                return Err(RegisterError::Duplicate { name: name.clone(), owner: owner.into(), holder });
            }
            own_folders.extend(folders(name.as_str()).map(|folder| (folder, name)));
        }
        for TagSpec { name, .. } in specs {
            let taken = self.held_below(name.as_str()).or_else(|| own_folders.get(name.as_str()).copied());
            let above = || folders(name.as_str()).find_map(|folder| Some(&self.held(folder)?.spec.name));
            if let Some(other) = taken.or_else(above).cloned() {
                return Err(RegisterError::Folder { name: name.clone(), owner: owner.into(), other });
            }
        }
        Ok(())
    }

    fn held(&self, name: &str) -> Option<&Row> {
        let row = &self.rows[self.names.get(name)?.index()];
        (row.state == State::Held).then_some(row)
    }

    fn held_below(&self, folder: &str) -> Option<&TagName> {
        self.folders.get(folder)?;
        let mut held = self.rows.iter().filter(|row| row.state == State::Held).map(|row| &row.spec.name);
        held.find(|name| folders(name.as_str()).any(|above| above == folder))
    }

    /// Their owner ends.
    fn release(&mut self, tags: &[TagId]) {
        for tag in tags {
            let row = &mut self.rows[tag.index()];
            row.state = State::Ended;
            for folder in folders(row.spec.name.as_str()) {
                let Some(count) = self.folders.get_mut(folder) else { continue };
                *count -= 1;
                if *count == 0 {
                    self.folders.remove(folder);
                }
            }
        }
    }

    /// Takes away those of these tags whose owners have ended.
    pub(super) fn retire(&mut self, is_one: impl Fn(TagId) -> bool) -> Vec<TagId> {
        self.changes += 1;
        let changes = self.changes;
        let ended = self.rows.iter_mut().filter(|row| row.state == State::Ended && is_one(row.current.tag));
        let retire = |row: &mut Row| {
            row.state = State::Retired;
            row.changed = changes;
            row.current.tag
        };
        ended.map(retire).collect()
    }

    pub(super) fn since(&self, since: u64) -> (u64, Vec<TagChange>) {
        let changed = self.rows.iter().filter(|row| row.changed > since);
        let spec = |row: &Row| (row.state != State::Retired).then(|| row.spec.clone());
        (self.changes, changed.map(|row| (row.current.tag, spec(row))).collect())
    }

    pub(super) fn mark(&self) -> u64 {
        self.mark
    }

    /// The number of a batch that has been stored.
    pub(super) fn next_mark(&mut self) -> u64 {
        self.mark += 1;
        self.mark
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
        let tag = self.names.get(name).copied()?;
        (self.rows[tag.index()].state != State::Retired).then_some(tag)
    }

    pub(super) fn specs(&self) -> Vec<(TagId, Arc<TagSpec>)> {
        let rows = self.rows.iter().filter(|row| row.state != State::Retired);
        rows.map(|row| (row.current.tag, row.spec.clone())).collect()
    }
}

/// Held by the owner of tags. When it is dropped, its tags go bad: whoever could say their value is gone. They can then be
/// registered anew.
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
        let (added, is_news) = self.hub.write_table().add(self, specs)?;
        self.hub.announce(&added, is_news);
        self.tags.extend(added);
        Ok(())
    }

    /// Says more, or something else, of tags that the holder owns, in one go: as when it learns their types. The names must
    /// be those that the tags have.
    pub fn respec(&mut self, specs: impl IntoIterator<Item = (TagId, TagSpec)>) {
        let changed: Vec<TagId> = {
            let mut table = self.hub.write_table();
            let changed = specs.into_iter().filter_map(|(tag, spec)| table.respec(tag, spec).then_some(tag));
            changed.collect()
        };
        self.hub.announce(&changed, !changed.is_empty());
    }

    /// Ends, and takes its tags away at once: nobody is to take them over.
    pub fn retire(self) {
        let (hub, tags) = (self.hub.clone(), self.tags.clone());
        drop(self);
        hub.retire_tags(|tag| tags.contains(&tag));
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
        self.hub.write_table().release(&self.tags);
    }
}
