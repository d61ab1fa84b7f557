//! Browsing with `IOPCBrowse` of DA 3: by the branch's ItemID, in pieces with a continuation point.

use super::abi::*;
use super::browse::Pieces;
use super::memory::{Out, OutText, text, wide};
use super::{Failure, check};
use crate::relay::protocol::{Branch, Entry, Hresult};
use std::ptr;

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
    let (item_id, no_filter) = (wide(item_id), wide(""));
    // Ours at first, then whatever the server puts there; null is the beginning.
    let mut continuation = OutText::new();
    let mut seen = 0;
    loop {
        let before = continuation.text();
        let (mut more, mut count) = (0, 0);
        let mut elements = Out::<OPCBROWSEELEMENT>::new(0);
        // SAFETY: texts with their zeros; an [in, out] text, which the server frees when it gives another; what comes back is ours.
        let result = unsafe {
            browse.Browse(
                item_id.as_ptr(),
                continuation.slot(),
                PIECE,
                OPC_BROWSE_FILTER_ALL,
                no_filter.as_ptr(),
                no_filter.as_ptr(),
                0,
                0,
                0,
                ptr::null(),
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
        let entries: Vec<Entry> = elements.as_slice().iter().map(entry).collect();
        seen += entries.len();
        let is_end = entries.is_empty() || seen > MOST_ELEMENTS;
        if !entries.is_empty() && !pieces(entries) {
            return Ok(());
        }
        let next = continuation.text();
        // A server that goes round in circles gives nothing, or the same place again.
        if next.is_empty() || is_end || next == before {
            return Ok(());
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
