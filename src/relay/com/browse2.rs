//! Browsing with `IOPCBrowseServerAddressSpace` of DA 1 and 2, whose place in the tree is the connection's.
//!
//! Names of branches and leaves come first, which is cheap; then the ItemIDs, one call for each leaf, streamed as they come. What a
//! server says of its organization is a hint: one that says it is flat and lists branches is taken for a tree, and one whose root
//! has neither is asked for its flat list. Some put branches into that, so only what can be added to a group is taken from it.

use super::abi::*;
use super::browse::Pieces;
use super::connection::Connection;
use super::group::Group;
use super::memory::{OutText, wide};
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

/// Deeper than anybody's tree.
const DEEPEST: usize = 256;

pub(super) fn level(connection: &mut Connection, branch: &Branch, pieces: Pieces<'_>) -> Result<(), Failure> {
    let Some(browse) = connection.browse2.clone() else { return Ok(()) };
    go(connection, &browse, branch)?;
    let branches = match names(&browse, OPC_BRANCH) {
        Err(failure) if is_gone(failure.hresult) => return Err(failure),
        // A flat server may refuse the question.
        Err(_) => Vec::new(),
        Ok(branches) => branches,
    };
    let is_root = branch.names.is_empty();
    let leaves = match names(&browse, OPC_LEAF) {
        Err(failure) if !is_root || is_gone(failure.hresult) => return Err(failure),
        Err(_) => Vec::new(),
        Ok(leaves) => leaves,
    };
    if is_root && branches.is_empty() && (leaves.is_empty() || is_flat(&browse)) {
        match names(&browse, OPC_FLAT) {
            Ok(flat) if flat.len() > leaves.len() => return send_flat(connection, &browse, &flat, pieces),
            Err(failure) if is_gone(failure.hresult) => return Err(failure),
            _ => {}
        }
    }
    send(&browse, &branches, &leaves, pieces)
}

fn send(
    browse: &IOPCBrowseServerAddressSpace,
    branches: &[String],
    leaves: &[String],
    pieces: Pieces<'_>,
) -> Result<(), Failure> {
    let as_branch: HashSet<&String> = branches.iter().collect();
    let as_leaf: HashSet<&String> = leaves.iter().collect();
    let only_branches = branches.iter().filter(|name| !as_leaf.contains(name));
    let entries: Vec<Entry> = only_branches
        .map(|name| Entry { name: name.clone(), item_id: None, is_branch: true, is_item: false })
        .collect();
    for piece in entries.chunks(PIECE) {
        if !pieces(piece.to_vec()) {
            return Ok(());
        }
    }
    for piece in leaves.chunks(PIECE) {
        let mut entries = Vec::with_capacity(piece.len());
        for name in piece {
            let item_id = match item_id(browse, name) {
                Err(failure) if is_gone(failure.hresult) => return Err(failure),
                answer => answer.ok().filter(|item_id| !item_id.is_empty()),
            };
            entries.push(Entry { name: name.clone(), item_id, is_branch: as_branch.contains(name), is_item: true });
        }
        if !pieces(entries) {
            return Ok(());
        }
    }
    Ok(())
}

fn send_flat(
    connection: &Connection,
    browse: &IOPCBrowseServerAddressSpace,
    names: &[String],
    pieces: Pieces<'_>,
) -> Result<(), Failure> {
    let settings = GroupSettings { rate: 1000, deadband: 0.0, active: false };
    let (group, _) = Group::add(connection, settings, None)?;
    for piece in names.chunks(PIECE) {
        let mut item_ids = Vec::with_capacity(piece.len());
        for name in piece {
            item_ids.push(match item_id(browse, name) {
                Err(failure) if is_gone(failure.hresult) => return Err(failure),
                // A flat list's names are ItemIDs already, by the specification.
                answer => answer.ok().filter(|item_id| !item_id.is_empty()).unwrap_or_else(|| name.clone()),
            });
        }
        let wanted: Vec<(u32, &str)> = item_ids.iter().map(|item_id| (0, item_id.as_str())).collect();
        let added = group.add_each(&wanted)?;
        let items = piece.iter().zip(&item_ids).zip(added).filter(|(_, added)| added.is_ok());
        let entries: Vec<Entry> = items
            .map(|((name, item_id), _)| Entry {
                name: name.clone(),
                item_id: Some(item_id.clone()),
                is_branch: false,
                is_item: true,
            })
            .collect();
        if !entries.is_empty() && !pieces(entries) {
            return Ok(());
        }
    }
    Ok(())
}

fn is_flat(browse: &IOPCBrowseServerAddressSpace) -> bool {
    let mut organization = 0;
    // SAFETY: a place for the answer.
    let result = unsafe { browse.QueryOrganization(&raw mut organization) }.0;
    result >= 0 && organization == OPC_NS_FLAT
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
    let name = wide(name);
    // SAFETY: a text with its zero.
    check("ChangeBrowsePosition", unsafe { browse.ChangeBrowsePosition(direction, name.as_ptr()) }.0).map(|_| ())
}

/// All names of one kind at this place, without doubles.
fn names(browse: &IOPCBrowseServerAddressSpace, kind: u32) -> Result<Vec<String>, Failure> {
    let no_filter = wide("");
    let mut list = ptr::null_mut();
    // SAFETY: a text with its zero, and a place for the object.
    let result = unsafe { browse.BrowseOPCItemIDs(kind, no_filter.as_ptr(), VT_EMPTY, 0, &raw mut list) };
    check("BrowseOPCItemIDs", result.0)?;
    if list.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: given by a call that succeeded.
    let list: IEnumString = unsafe { found("BrowseOPCItemIDs", list) }?;
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
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
        for text in place.iter().take(fetched) {
            let name = text.text();
            if seen.insert(name.clone()) {
                all.push(name);
            }
        }
        // S_FALSE is the end; so is nothing, and more than there can be.
        if result != 0 || fetched == 0 || all.len() > MOST_NAMES {
            return Ok(all);
        }
    }
}

fn item_id(browse: &IOPCBrowseServerAddressSpace, name: &str) -> Result<String, Failure> {
    let name = wide(name);
    let mut item_id = OutText::new();
    // SAFETY: a text with its zero, and a place for the text, which is ours afterwards.
    let result = unsafe { browse.GetItemID(name.as_ptr(), item_id.slot()) }.0;
    item_id.after(result);
    check("GetItemID", result)?;
    Ok(item_id.text())
}
