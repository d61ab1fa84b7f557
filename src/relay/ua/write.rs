//! Writes: values of items on the allow-list, nothing else (OPC 10000-4, 5.11.4).
//!
//! A DA server says by itself how good a value is and when it was, so a status other than Good and a server timestamp are
//! BadWriteNotSupported. A source timestamp is let pass: clients that send one with every write could write nothing.

use super::ids::Address;
use super::nodes::RelayNodes;
use crate::opcua::server::ranges;
use crate::relay::map;
use crate::relay::protocol::{DaValue, Origin};
use ::opcua::server::address_space::AccessLevel;
use ::opcua::server::node_manager::{ParsedWriteValue, RequestContext, WriteNode};
use ::opcua::types::{AttributeId, NumericRange, StatusCode, Variant};
use futures_util::future::join_all;

/// ItemIDs that may be written.
#[derive(Clone, Debug, Default)]
pub struct Writable(Vec<String>);

impl Writable {
    /// In a pattern `*` stands for any characters and `?` for one.
    pub fn new(patterns: Vec<String>) -> Self {
        Self(patterns)
    }

    pub fn allows(&self, item: &str) -> bool {
        self.0.iter().any(|pattern| crate::base::selection::is_like(pattern, item))
    }
}

impl RelayNodes {
    pub(super) async fn write_values(&self, context: &RequestContext, nodes: &mut [&mut WriteNode]) {
        let mut writes: Vec<Vec<((String, DaValue), &mut WriteNode)>> = self.das().map(|_| Vec::new()).collect();
        for node in nodes.iter_mut() {
            match self.check(context, node.value()).await {
                Ok((place, item, value)) => writes[place].push(((item, value), node)),
                Err(status) => node.set_status(status),
            }
        }
        join_all(self.das().zip(writes).map(|(da, writes)| async move {
            let (items, nodes): (Vec<_>, Vec<_>) = writes.into_iter().unzip();
            for (node, status) in nodes.into_iter().zip(da.write(items).await) {
                node.set_status(status);
            }
        }))
        .await;
    }

    /// The place of its DA server, the ItemID and what is to be written.
    async fn check(
        &self,
        context: &RequestContext,
        write: &ParsedWriteValue,
    ) -> Result<(usize, String, DaValue), StatusCode> {
        let (_, da, address) = self.find(&write.node_id).ok_or(StatusCode::BadNodeIdUnknown)?;
        let Address::Item(item) = address else { return Err(StatusCode::BadNotWritable) };
        if write.attribute_id != AttributeId::Value || !da.served.writable.allows(&item) {
            return Err(StatusCode::BadNotWritable);
        }
        let level = Self::level(context, AccessLevel::CURRENT_WRITE, &write.node_id);
        if !level.contains(AccessLevel::CURRENT_WRITE) {
            return Err(StatusCode::BadUserAccessDenied);
        }
        let given = &write.value;
        if given.server_timestamp.is_some() || given.status.is_some_and(|status| status != StatusCode::Good) {
            return Err(StatusCode::BadWriteNotSupported);
        }
        let part = given.value.as_ref().filter(|value| **value != Variant::Empty).ok_or(StatusCode::BadTypeMismatch)?;
        let whole = if write.index_range == NumericRange::None {
            part.clone()
        } else {
            let now = da.read(vec![item.clone()], Origin::Device).await.pop().unwrap_or_default();
            if now.status().is_bad() {
                return Err(now.status());
            }
            ranges::replaced(&now.value.unwrap_or_default(), &write.index_range, part)?
        };
        let value = map::da_value(&whole).ok_or(StatusCode::BadTypeMismatch)?;
        let place = self.das().position(|other| std::sync::Arc::ptr_eq(other, da)).unwrap_or_default();
        Ok((place, item, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_writable_that_is_not_on_the_list() {
        assert!(!Writable::default().allows("a"));
        let list = Writable::new(vec!["Line1.*.Setpoint".into(), "Reset?".into()]);
        assert!(list.allows("Line1.Oven.Setpoint") && list.allows("Reset1"));
        assert!(!list.allows("Line1.Oven.Setpoints") && !list.allows("Reset12") && !list.allows(""));
    }
}
