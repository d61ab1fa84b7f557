//! One object of a DA server, and what it can do. Belongs to the thread that made it.

use super::abi::*;
use super::class::Class;
use super::memory::{Out, OutText, wide};
use super::sinks::{Advice, Listener, ShutdownSink};
use super::{Failure, check, query};
use crate::relay::protocol::{Capabilities, Hresult, ServerStatus};
use windows_core::Interface;

pub struct Connection {
    pub(super) server: IOPCServer,
    pub(super) browse3: Option<IOPCBrowse>,
    pub(super) browse2: Option<IOPCBrowseServerAddressSpace>,
    pub(super) properties: Option<IOPCItemProperties>,
    pub(super) item_io: Option<IOPCItemIO>,
    /// Where browse2 stands, which is the connection's state: names from the root. None: nobody knows.
    pub(super) position: Option<Vec<String>>,
    class: Class,
    _goodbye: Option<Advice>,
}

impl Connection {
    /// `listener` hears the server's goodbye.
    pub fn open(class: Class, listener: Option<Listener>) -> Result<Self, Failure> {
        let server = class.create_server()?;
        if let Ok(common) = query::<IOPCCommon>(&server) {
            let name = wide("vedette-da-relay");
            // Only for the server's own lists, so its answer does not matter.
            // SAFETY: a text with its zero.
            let _ = unsafe { common.SetClientName(name.as_ptr()) };
        }
        let goodbye = listener.and_then(|listener| {
            let sink = ShutdownSink::unknown(listener);
            // A server of DA 1 has none.
            Advice::new(&server, &IOPCShutdown::IID, sink).ok()
        });
        Ok(Self {
            browse3: query(&server).ok(),
            browse2: query(&server).ok(),
            properties: query(&server).ok(),
            item_io: query(&server).ok(),
            position: None,
            class,
            server,
            _goodbye: goodbye,
        })
    }

    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            clsid: self.class.to_string(),
            prog_id: self.class.prog_id(),
            browse3: self.browse3.is_some(),
            browse2: self.browse2.is_some(),
            properties: self.properties.is_some(),
            item_io: self.item_io.is_some(),
            wide: cfg!(target_pointer_width = "64"),
        }
    }

    pub fn status(&self) -> Result<ServerStatus, Failure> {
        let mut status = Out::<OPCSERVERSTATUS>::new(1);
        // SAFETY: a place for the structure, which is ours afterwards.
        let result = unsafe { self.server.GetStatus(status.slot()) }.0;
        status.after(result);
        check("GetStatus", result)?;
        let Some(status) = status.as_slice().first() else {
            return Err(Failure { call: "GetStatus".into(), hresult: super::E_POINTER });
        };
        Ok(ServerStatus {
            start: status.start.into(),
            current: status.current.into(),
            last_update: status.last_update.into(),
            state: status.state,
            groups: status.groups,
            bandwidth: status.bandwidth,
            version: (status.major, status.minor, status.build),
            // SAFETY: a text of the structure, or null.
            vendor: unsafe { super::memory::text(status.vendor) },
        })
    }

    /// What the server itself says of one of its HRESULTs.
    pub fn error_text(&self, hresult: Hresult) -> Option<String> {
        let mut text = OutText::new();
        // SAFETY: a place for the text, which is ours afterwards.
        let result = unsafe { self.server.GetErrorString(hresult, 0x0409, text.slot()) }.0;
        text.after(result);
        let text = text.text().trim().to_owned();
        (result >= 0 && !text.is_empty()).then_some(text)
    }
}
