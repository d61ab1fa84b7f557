//! One level of a DA server's address space, in pieces as they come: through `IOPCBrowse` where the server has it, else through
//! `IOPCBrowseServerAddressSpace`.

use super::connection::Connection;
use super::{E_NOINTERFACE, Failure, browse2, browse3};
use crate::relay::hresults::is_gone;
use crate::relay::protocol::{Branch, Entry};

/// Takes a piece; false if nobody wants more.
pub type Pieces<'a> = &'a mut dyn FnMut(Vec<Entry>) -> bool;

impl Connection {
    pub fn browse(&mut self, branch: &Branch, pieces: Pieces<'_>) -> Result<(), Failure> {
        let mut is_begun = false;
        let mut counted = |entries: Vec<Entry>| {
            is_begun = true;
            pieces(entries)
        };
        let first = match self.browse3.clone() {
            Some(browse) => browse3::level(&browse, branch, &mut counted),
            None if self.browse2.is_some() => return browse2::level(self, branch, pieces),
            None => Err(Failure { call: "QueryInterface IOPCBrowseServerAddressSpace".into(), hresult: E_NOINTERFACE }),
        };
        match first {
            // Some offer DA 3 and cannot do it.
            Err(failure) if !is_begun && !is_gone(failure.hresult) && self.browse2.is_some() => {
                browse2::level(self, branch, pieces).map_err(|_| failure)
            }
            other => other,
        }
    }
}
