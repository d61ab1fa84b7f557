//! What the DA server is to be asked next, so that there is in it what is wanted; and what came of that.
//!
//! A group that says nothing for long is asked for its values (Refresh2), and then
//!
//! - values come: it lives;
//! - none come, though some had before: the DA server is silent, and its worker is ended;
//! - none come, and none ever did: it cannot call back, whatever it said. The group is made anew, to be polled;
//! - the question fails: the server may have lost the group, which is made anew, once. If it fails again, the server has no Refresh2,
//!   and the silence of this group says nothing for this life.

use super::groups::{Group, Probe, State};
use super::member::Standing;
use crate::relay::map;
use crate::relay::protocol::{GroupSettings, ITEMS_PER_CALL, NewItem, Reply, Request};
use crate::relay::ua::status_of_ask;
use crate::relay::worker::AskError;
use ::opcua::types::StatusCode;
use std::time::Duration;
use tokio::time::Instant;

/// What the DA server refused is tried again: it may not have loaded its items yet.
pub const RETRY: Duration = Duration::from_secs(30);
/// So long a group may say nothing, or ten times its rate, before it is asked whether it still lives.
pub const QUIET: Duration = Duration::from_secs(30);
/// So long one that is new, or three times its rate: the first values come by themselves.
pub const FIRST: Duration = Duration::from_secs(3);
/// And so long it may take to say something then.
pub const PROBE: Duration = Duration::from_secs(10);

/// What is to be done in the DA server next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    AddGroup(u32, GroupSettings),
    /// The same for one that does not call back.
    PollGroup(u32, GroupSettings),
    AddItems(u32, Vec<NewItem>),
    RemoveItems(u32, Vec<u32>),
    RemoveGroup(u32),
    Refresh(u32),
    /// Nothing comes any more, though it should.
    Silent,
}

impl Step {
    /// `None` if there is nothing to ask.
    pub fn request(&self) -> Option<Request> {
        Some(match self.clone() {
            Self::AddGroup(group, settings) => Request::AddGroup { group, settings },
            Self::PollGroup(group, settings) => Request::PollGroup { group, settings },
            Self::AddItems(group, items) => Request::AddItems { group, items },
            Self::RemoveItems(group, handles) => Request::RemoveItems { group, handles },
            Self::RemoveGroup(group) => Request::RemoveGroup { group },
            Self::Refresh(group) => Request::Refresh { group },
            Self::Silent => return None,
        })
    }
}

impl Group {
    /// When it is to be asked whether it lives. `None`: never.
    fn is_quiet_at(&self) -> Option<Instant> {
        let rate = u64::from(self.revised.unwrap_or(self.setting.rate));
        let times = |count| Duration::from_millis(rate.saturating_mul(count));
        match self.heard {
            _ if self.added == 0 || self.is_unjudged => None,
            Some(heard) => Some(heard + QUIET.max(times(10))),
            None if self.is_polled => None,
            None => Some(self.filled? + FIRST.max(times(3))),
        }
    }

    fn step_to_add(&self, id: u32) -> Step {
        let settings = self.setting.for_da();
        if self.is_polled { Step::PollGroup(id, settings) } else { Step::AddGroup(id, settings) }
    }
}

impl State {
    pub fn next_step(&mut self, now: Instant) -> Result<(u64, Step), Instant> {
        let mut wait = now + QUIET;
        if self.life == 0 {
            return Err(wait);
        }
        let Self { groups, members, dead, .. } = self;
        groups.retain(|id, group| {
            let is_wanted = !group.by_item.is_empty();
            if !is_wanted && group.is_there {
                dead.push(*id);
            }
            is_wanted
        });
        if let Some(id) = dead.pop() {
            return Ok((self.life, Step::RemoveGroup(id)));
        }
        for (id, group) in groups.iter_mut() {
            match group.retry {
                Some(at) if at > now => wait = wait.min(at),
                Some(_) => {
                    let refused = |handle: &u32| matches!(members[handle].standing, Standing::Refused(_));
                    let again = group.by_item.values().copied().filter(refused);
                    group.to_add.extend(again.filter(|handle| members[handle].is_wanted()));
                    group.retry = None;
                }
                None => {}
            }
            if !group.is_there {
                if group.to_add.is_empty() {
                    continue;
                }
                return Ok((self.life, group.step_to_add(*id)));
            }
            if !group.to_remove.is_empty() {
                let some = group.to_remove.len().min(ITEMS_PER_CALL);
                let handles = group.to_remove.drain(..some).collect();
                return Ok((self.life, Step::RemoveItems(*id, handles)));
            }
            let some = group.to_add.len().min(ITEMS_PER_CALL);
            let mut new = Vec::with_capacity(some);
            for handle in group.to_add.drain(..some) {
                let Some(member) = members.get_mut(&handle).filter(|member| member.is_wanted()) else { continue };
                if matches!(member.standing, Standing::Waiting | Standing::Refused(_)) {
                    member.standing = Standing::Asked;
                    new.push(NewItem { handle, item_id: member.item.to_string() });
                }
            }
            if !new.is_empty() {
                return Ok((self.life, Step::AddItems(*id, new)));
            }
            if std::mem::take(&mut group.to_refresh) && group.added > 0 {
                return Ok((self.life, Step::Refresh(*id)));
            }
            let Some(quiet) = group.is_quiet_at() else { continue };
            match group.probe {
                Probe::No if now >= quiet => {
                    group.probe = Probe::Asked(now);
                    return Ok((self.life, Step::Refresh(*id)));
                }
                Probe::No => wait = wait.min(quiet),
                // Steps are done one after the other.
                Probe::Asked(_) => {}
                Probe::Answered(at) if now < at + PROBE => wait = wait.min(at + PROBE),
                Probe::Answered(_) if group.heard.is_some() => return Ok((self.life, Step::Silent)),
                Probe::Answered(_) => {
                    group.begin(members);
                    group.is_polled = true;
                    return Ok((self.life, group.step_to_add(*id)));
                }
            }
        }
        Err(wait)
    }

    /// Members that were refused, and why.
    pub fn done(&mut self, step: Step, answer: Result<Reply, AskError>) -> Vec<(u32, StatusCode)> {
        let Self { groups, members, .. } = self;
        let mut bad = Vec::new();
        match (step, answer) {
            (Step::AddGroup(id, _) | Step::PollGroup(id, _), Ok(Reply::Group { revised_rate, .. })) => {
                if let Some(group) = groups.get_mut(&id) {
                    (group.is_there, group.revised) = (true, Some(revised_rate));
                } else {
                    self.dead.push(id);
                }
            }
            (Step::AddGroup(id, _) | Step::PollGroup(id, _), Err(error)) => {
                let status = status_of_ask(&error);
                let Some(group) = groups.get_mut(&id) else { return bad };
                group.retry = Some(Instant::now() + RETRY);
                for handle in group.to_add.drain(..) {
                    if let Some(member) = members.get_mut(&handle) {
                        member.standing = Standing::Refused(status);
                        bad.push((handle, status));
                    }
                }
            }
            (Step::AddItems(id, items), answer) => {
                let answers = match answer {
                    Ok(Reply::Added(answers)) => {
                        answers.into_iter().map(|added| added.map_err(map::status_of_failure)).collect()
                    }
                    Ok(_) => vec![Err(StatusCode::BadInternalError); items.len()],
                    Err(error) => vec![Err(status_of_ask(&error)); items.len()],
                };
                for (item, answer) in items.iter().zip(answers) {
                    let group = groups.get_mut(&id);
                    let Some(member) = members.get_mut(&item.handle) else {
                        // It has gone meanwhile.
                        if answer.is_ok()
                            && let Some(group) = group
                        {
                            group.to_remove.push(item.handle);
                        }
                        continue;
                    };
                    let Some(group) = group else { continue };
                    if answer.is_ok() {
                        group.filled = Some(Instant::now());
                    }
                    match answer {
                        Ok(added) if !member.is_wanted() => {
                            member.standing = Standing::There(added);
                            group.added += 1;
                            group.give_up(item.handle, member);
                        }
                        Ok(added) => {
                            group.added += 1;
                            member.standing = Standing::There(added);
                        }
                        Err(status) => {
                            member.standing = Standing::Refused(status);
                            group.retry.get_or_insert(Instant::now() + RETRY);
                            bad.push((item.handle, status));
                        }
                    }
                }
            }
            (Step::Refresh(id), answer) => {
                let Some(group) = groups.get_mut(&id) else { return bad };
                // What is sent again after a reconnect would come by itself as well.
                let Probe::Asked(asked) = group.probe else { return bad };
                group.probe = Probe::No;
                let has_spoken = group.heard.is_some_and(|heard| heard >= asked);
                match answer {
                    _ if has_spoken => {}
                    Err(AskError::Failed(_)) if group.heard.is_some() && !group.is_renewed => {
                        group.begin(members);
                        group.is_renewed = true;
                    }
                    Err(AskError::Failed(_)) if group.heard.is_some() => group.is_unjudged = true,
                    Ok(_) | Err(AskError::Failed(_)) => group.probe = Probe::Answered(Instant::now()),
                    // It ends.
                    Err(_) => {}
                }
            }
            // What could not be removed does no harm; if the server is gone that is heard elsewhere.
            _ => {}
        }
        bad
    }
}
