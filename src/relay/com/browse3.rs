//! Browsing with `IOPCBrowse` of DA 3: by the branch's ItemID, in pieces with a continuation point.

use super::abi::*;
use super::browse::Pieces;
use super::memory::{Out, OutText, text, wide, wide_name};
use super::{Failure, check};
use crate::relay::protocol::{Branch, Entry, Hresult};
use std::collections::HashSet;

/// So many elements are asked for at once.
const PIECE: u32 = 1000;

/// A level that is longer has no end.
const MOST_ELEMENTS: usize = 2_000_000;

/// OPC_E_UNKNOWNITEMID
const UNKNOWN: Hresult = 0xC004_0007_u32 as Hresult;

pub(super) fn level(browse: &IOPCBrowse, branch: &Branch, pieces: Pieces<'_>) -> Result<(), Failure> {
    let item_id = match &branch.item_id {
        Some(item_id) => item_id.clone(),
        None => find(browse, &branch.names)?,
    };
    each(browse, &item_id, pieces)
}

/// The ItemID of a branch of which only the names are known.
fn find(browse: &IOPCBrowse, names: &[String]) -> Result<String, Failure> {
    let mut item_id = String::new();
    for name in names {
        let mut found = None;
        each(browse, &item_id, &mut |entries| {
            found = entries.into_iter().find(|entry| entry.is_branch && entry.name == *name);
            found.is_none()
        })?;
        item_id = found
            .and_then(|entry| entry.item_id)
            .ok_or_else(|| Failure { call: format!("Browse {name:?}"), hresult: UNKNOWN })?;
    }
    Ok(item_id)
}

fn each(browse: &IOPCBrowse, item_id: &str, pieces: Pieces<'_>) -> Result<(), Failure> {
    let item_id = wide_name(item_id).map_err(|hresult| Failure { call: "Browse".into(), hresult })?;
    let no_filter = wide("");
    // Proxies stumble over null, also where it stands for no properties.
    let no_property = 0_u32;
    // Ours at first, then whatever the server puts there; null is the beginning.
    let mut continuation = OutText::new();
    // Of a server without continuation points all is asked for at once, in which the first `skip` are known.
    let (mut seen, mut skip, mut longest) = (0, 0, PIECE);
    let mut beginnings = HashSet::new();
    loop {
        let (mut more, mut count) = (0, 0);
        let mut elements = Out::<OPCBROWSEELEMENT>::new(0);
        // SAFETY: texts with their zeros; an [in, out] text, which the server frees when it gives another; what comes back is ours.
        let result = unsafe {
            browse.Browse(
                item_id.as_ptr(),
                continuation.slot(),
                longest,
                OPC_BROWSE_FILTER_ALL,
                no_filter.as_ptr(),
                no_filter.as_ptr(),
                0,
                0,
                0,
                &raw const no_property,
                &raw mut more,
                &raw mut count,
                elements.slot(),
            )
        }
        .0;
        elements.after(result);
        continuation.after(result);
        check("Browse", result)?;
        elements.set_count(count);
        let entries: Vec<Entry> = elements.as_slice().iter().skip(skip).map(entry).collect();
        // A server that goes round in circles gives nothing, or what there was before. The same continuation point says nothing:
        // some keep the place themselves.
        let is_new =
            entries.first().is_some_and(|first| beginnings.insert((first.name.clone(), first.item_id.clone())));
        if !is_new {
            return Ok(());
        }
        seen += entries.len();
        if !pieces(entries) || seen > MOST_ELEMENTS {
            return Ok(());
        }
        if continuation.text().is_empty() {
            if more == 0 || longest == 0 {
                return Ok(());
            }
            (skip, longest) = (seen, 0);
        }
    }
}

fn entry(element: &OPCBROWSEELEMENT) -> Entry {
    // SAFETY: texts of an element of an [out] array of ours, or null.
    let (name, item_id) = unsafe { (text(element.name), text(element.item_id)) };
    let is_item = element.flags & OPC_BROWSE_ISITEM != 0;
    // What is neither is a branch with nothing below it.
    let is_branch = element.flags & OPC_BROWSE_HASCHILDREN != 0 || !is_item;
    Entry { name, item_id: (!item_id.is_empty()).then_some(item_id), is_branch, is_item }
}
