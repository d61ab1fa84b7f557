//! Browsing with `IOPCBrowseServerAddressSpace` of DA 1 and 2, whose place in the tree is the connection's.
//!
//! Branches come first, which is cheap, and are kept back until it is known which of their names are leaves too. Leaves are streamed
//! as they are listed, one call for each ItemID.
//!
//! Flat spaces have no branches, whatever they answer: for them the specification has the kind of a list ignored, so that a list of
//! branches is one of all items, and each item could be browsed again without end. A space is flat if the server says so, if its root
//! has neither branches nor leaves, or if the two lists are the same and nothing else is found below the first branches. Then the
//! flat list is taken. Some put branches into that, so only what can be added to a group is taken from it; if that is nothing, the
//! leaves are. A name that has no ItemID is one, there.

use super::abi::*;
use super::browse::Pieces;
use super::connection::Connection;
use super::group::Group;
use super::memory::{OutText, wide, wide_name};
use super::{Failure, check, found};
use crate::relay::hresults::is_gone;
use crate::relay::protocol::{Branch, Entry, GroupSettings};
use std::collections::HashSet;
use std::ptr;

/// So many names are asked for at once.
const NAMES_PER_CALL: usize = 512;

/// So many entries are sent at once; each cost a call.
const PIECE: usize = 200;

/// A list that is longer has no end.
const MOST_NAMES: usize = 2_000_000;

/// So many names of a root whose branches are its leaves are tried for a way down.
const TRIED: usize = 20;

/// Deeper than anybody's tree.
const DEEPEST: usize = 256;

pub(super) fn level(connection: &mut Connection, branch: &Branch, pieces: Pieces<'_>) -> Result<(), Failure> {
    let Some(browse) = connection.browse2.clone() else { return Ok(()) };
    let is_root = branch.names.is_empty();
    if is_root && is_flat(&browse)? {
        return whole(connection, &browse, pieces);
    }
    go(connection, &browse, branch)?;
    let branches = match names(&browse, OPC_BRANCH) {
        Err(failure) if is_gone(failure.hresult) => return Err(failure),
        // A flat server may refuse the question.
        Err(_) => Vec::new(),
        Ok(branches) => branches,
    };
    if is_root && goes_round(connection, &browse, &branches)? {
        return whole(connection, &browse, pieces);
    }
    let mut rest: HashSet<&String> = branches.iter().collect();
    let mut count = 0;
    let listed = each(&browse, OPC_LEAF, &mut |names| {
        for piece in names.chunks(PIECE) {
            let mut entries = Vec::with_capacity(piece.len());
            for name in piece {
                let item_id = own_item_id(&browse, name)?;
                entries.push(Entry { name: name.clone(), item_id, is_branch: rest.remove(name), is_item: true });
            }
            count += entries.len();
            if !pieces(entries) {
                return Ok(false);
            }
        }
        Ok(true)
    });
    match listed {
        Ok(false) => return Ok(()),
        Ok(true) => {}
        // The root of a flat server again.
        Err(failure) if !is_root || count > 0 || is_gone(failure.hresult) => return Err(failure),
        Err(_) => {}
    }
    if is_root && branches.is_empty() && count == 0 {
        return send_flat(connection, &browse, pieces).map(|_| ());
    }
    let left = branches.iter().filter(|name| rest.contains(name));
    let left: Vec<Entry> =
        left.map(|name| Entry { name: name.clone(), item_id: None, is_branch: true, is_item: false }).collect();
    for piece in left.chunks(PIECE) {
        if !pieces(piece.to_vec()) {
            break;
        }
    }
    Ok(())
}

/// What the server says of itself. One that cannot say it is looked at.
fn is_flat(browse: &IOPCBrowseServerAddressSpace) -> Result<bool, Failure> {
    let mut organization = 0;
    // SAFETY: a place for the answer.
    match check("QueryOrganization", unsafe { browse.QueryOrganization(&raw mut organization) }.0) {
        Err(failure) if is_gone(failure.hresult) => Err(failure),
        answer => Ok(answer == Ok(0) && organization == OPC_NS_FLAT),
    }
}

/// Whether what the root calls its branches are its leaves, with the same below them or nothing. Some that are not flat ignore the kind
/// of a list, too: there one name may lead down where the first does not.
fn goes_round(
    connection: &mut Connection,
    browse: &IOPCBrowseServerAddressSpace,
    branches: &[String],
) -> Result<bool, Failure> {
    if branches.is_empty() {
        return Ok(false);
    }
    let is_lost = |failure: &Failure| is_gone(failure.hresult);
    let leaves = match names(browse, OPC_LEAF) {
        Err(failure) if is_lost(&failure) => return Err(failure),
        leaves => leaves.unwrap_or_default(),
    };
    if !are_same(&leaves, branches) {
        return Ok(false);
    }
    connection.position = None;
    let mut is_round = true;
    for name in branches.iter().take(TRIED) {
        match change(browse, OPC_BROWSE_DOWN, name).and_then(|()| names(browse, OPC_BRANCH)) {
            Err(failure) if is_lost(&failure) => return Err(failure),
            Err(_) => {}
            Ok(below) => {
                is_round = are_same(&below, branches);
                break;
            }
        }
    }
    match go(connection, browse, &Branch::default()) {
        // A flat server has no place to go to.
        Err(failure) if !is_round || is_lost(&failure) => Err(failure),
        _ => Ok(is_round),
    }
}

fn are_same(one: &[String], other: &[String]) -> bool {
    one.len() == other.len() && one.iter().collect::<HashSet<_>>() == other.iter().collect()
}

/// All items of a flat space.
fn whole(
    connection: &mut Connection,
    browse: &IOPCBrowseServerAddressSpace,
    pieces: Pieces<'_>,
) -> Result<(), Failure> {
    connection.position = None;
    match send_flat(connection, browse, pieces) {
        Ok(0) => {}
        Err(failure) if is_gone(failure.hresult) => return Err(failure),
        Err(_) => {}
        Ok(_) => return Ok(()),
    }
    each(browse, OPC_LEAF, &mut |names| {
        for piece in names.chunks(PIECE) {
            let mut entries = Vec::with_capacity(piece.len());
            for name in piece {
                let item_id = own_item_id(browse, name)?.unwrap_or_else(|| name.clone());
                let (name, item_id) = (name.clone(), Some(item_id));
                entries.push(Entry { name, item_id, is_branch: false, is_item: true });
            }
            if !pieces(entries) {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .map(|_| ())
}

/// How many there are.
fn send_flat(
    connection: &Connection,
    browse: &IOPCBrowseServerAddressSpace,
    pieces: Pieces<'_>,
) -> Result<usize, Failure> {
    let mut count = 0;
    let settings = GroupSettings { rate: 1000, deadband: 0.0, active: false };
    let (group, _) = Group::add(connection, settings, None)?;
    let listed = each(browse, OPC_FLAT, &mut |names| {
        let mut item_ids = Vec::with_capacity(names.len());
        for name in names {
            // A flat list's names are ItemIDs already, by the specification.
            item_ids.push(own_item_id(browse, name)?.unwrap_or_else(|| name.clone()));
        }
        let wanted: Vec<(u32, &str)> = item_ids.iter().map(|item_id| (0, item_id.as_str())).collect();
        let added = group.add_each(&wanted)?;
        let items = names.iter().zip(&item_ids).zip(added).filter(|(_, added)| added.is_ok());
        let entries: Vec<Entry> = items
            .map(|((name, item_id), _)| Entry {
                name: name.clone(),
                item_id: Some(item_id.clone()),
                is_branch: false,
                is_item: true,
            })
            .collect();
        count += entries.len();
        Ok(entries.is_empty() || pieces(entries))
    });
    match listed {
        Err(failure) if count == 0 || is_gone(failure.hresult) => Err(failure),
        // What was sent is not sent again in another way.
        _ => Ok(count),
    }
}

/// To the branch; afterwards the connection knows where it stands, or that it does not know.
fn go(connection: &mut Connection, browse: &IOPCBrowseServerAddressSpace, branch: &Branch) -> Result<(), Failure> {
    let here = connection.position.take();
    let known = here.filter(|here| branch.names.starts_with(here));
    let depth = match known {
        Some(known) => known.len(),
        None => {
            to_root(browse)?;
            0
        }
    };
    for name in &branch.names[depth..] {
        if let Err(failure) = change(browse, OPC_BROWSE_DOWN, name) {
            // Some know the way only by the branch's own ItemID.
            let Some(item_id) = &branch.item_id else { return Err(failure) };
            return change(browse, OPC_BROWSE_TO, item_id).map_err(|_| failure);
        }
    }
    connection.position = Some(branch.names.clone());
    Ok(())
}

/// DA 2 can jump; DA 1 can only climb, until it cannot.
fn to_root(browse: &IOPCBrowseServerAddressSpace) -> Result<(), Failure> {
    let Err(failure) = change(browse, OPC_BROWSE_TO, "") else { return Ok(()) };
    if is_gone(failure.hresult) {
        return Err(failure);
    }
    for _ in 0..DEEPEST {
        match change(browse, OPC_BROWSE_UP, "") {
            Err(failure) if is_gone(failure.hresult) => return Err(failure),
            Err(_) => return Ok(()),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn change(browse: &IOPCBrowseServerAddressSpace, direction: u32, name: &str) -> Result<(), Failure> {
    let name = wide_name(name).map_err(|hresult| Failure { call: "ChangeBrowsePosition".into(), hresult })?;
    // SAFETY: a text with its zero.
    check("ChangeBrowsePosition", unsafe { browse.ChangeBrowsePosition(direction, name.as_ptr()) }.0).map(|_| ())
}

fn names(browse: &IOPCBrowseServerAddressSpace, kind: u32) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    each(browse, kind, &mut |names| {
        all.extend_from_slice(names);
        Ok(true)
    })?;
    Ok(all)
}

/// All names of one kind at this place, without doubles, some at a time, until `some` wants no more. Whether it wanted all.
fn each(
    browse: &IOPCBrowseServerAddressSpace,
    kind: u32,
    some: &mut dyn FnMut(&[String]) -> Result<bool, Failure>,
) -> Result<bool, Failure> {
    let no_filter = wide("");
    let mut list = ptr::null_mut();
    // SAFETY: a text with its zero, and a place for the object.
    let result = unsafe { browse.BrowseOPCItemIDs(kind, no_filter.as_ptr(), VT_EMPTY, 0, &raw mut list) };
    check("BrowseOPCItemIDs", result.0)?;
    if list.is_null() {
        return Ok(true);
    }
    // SAFETY: given by a call that succeeded.
    let list: IEnumString = unsafe { found("BrowseOPCItemIDs", list) }?;
    let mut seen = HashSet::new();
    loop {
        let mut place: Vec<OutText> = (0..NAMES_PER_CALL).map(|_| OutText::new()).collect();
        let mut fetched = 0;
        // SAFETY: `OutText` is a pointer and nothing else, so these are as many places as are said; texts are ours afterwards.
        let result = unsafe { list.Next(NAMES_PER_CALL as u32, place.as_mut_ptr().cast(), &raw mut fetched) }.0;
        if result < 0 {
            place.iter_mut().for_each(|text| text.after(result));
            check("IEnumString Next", result)?;
        }
        let fetched = (fetched as usize).min(NAMES_PER_CALL);
        let mut names: Vec<String> = place.iter().take(fetched).map(OutText::text).collect();
        names.retain(|name| seen.insert(name.clone()));
        let is_old = names.is_empty();
        if !is_old && !some(&names)? {
            return Ok(false);
        }
        // S_FALSE is the end; so is nothing, nothing new, and more than there can be.
        if result != 0 || is_old || seen.len() > MOST_NAMES {
            return Ok(true);
        }
    }
}

/// None if the server does not say it; fails only if the server is lost.
fn own_item_id(browse: &IOPCBrowseServerAddressSpace, name: &str) -> Result<Option<String>, Failure> {
    match item_id(browse, name) {
        Err(failure) if is_gone(failure.hresult) => Err(failure),
        answer => Ok(answer.ok().filter(|item_id| !item_id.is_empty())),
    }
}

fn item_id(browse: &IOPCBrowseServerAddressSpace, name: &str) -> Result<String, Failure> {
    let name = wide_name(name).map_err(|hresult| Failure { call: "GetItemID".into(), hresult })?;
    let mut item_id = OutText::new();
    // SAFETY: a text with its zero, and a place for the text, which is ours afterwards.
    let result = unsafe { browse.GetItemID(name.as_ptr(), item_id.slot()) }.0;
    item_id.after(result);
    check("GetItemID", result)?;
    Ok(item_id.text())
}
