//! Read, Write and Call's plainer sisters, cut into pieces that the server takes.

use super::connection::{Connection, value_of};
use super::error::ServiceError;
use opcua::client::Session;
use opcua::types::{
    BrowsePath, BrowsePathResult, DataValue, DateTime, ReadValueId, StatusCode, TimestampsToReturn, VariableId,
    Variant, WriteValue,
};
use std::time::Duration;

impl Connection {
    /// Attributes of nodes, with both timestamps. `max_age` zero asks for a new look at the device.
    pub async fn read(&self, wanted: &[ReadValueId], max_age: Duration) -> Result<Vec<DataValue>, ServiceError> {
        let (session, age) = (&self.session, max_age.as_secs_f64() * 1000.0);
        let call = |some: Vec<_>| async move { session.read(&some, TimestampsToReturn::Both, age).await };
        self.limits().read.chunked("Read", wanted, call).await
    }

    /// Each has a status of its own.
    pub async fn write(&self, values: Vec<WriteValue>) -> Result<Vec<StatusCode>, ServiceError> {
        let session = &self.session;
        let call = |some: Vec<_>| async move { session.write(&some).await };
        self.limits().write.chunked("Write", &values, call).await
    }

    pub async fn translate(&self, paths: &[BrowsePath]) -> Result<Vec<BrowsePathResult>, ServiceError> {
        let session = &self.session;
        let call = |some: Vec<_>| async move { session.translate_browse_paths_to_node_ids(&some).await };
        self.limits().translate.chunked("TranslateBrowsePathsToNodeIds", paths, call).await
    }

    /// What the server's clock shows.
    pub async fn clock(&self) -> Result<Option<DateTime>, ServiceError> {
        let wanted = [value_of(VariableId::Server_ServerStatus_CurrentTime.into())];
        let found = self.read(&wanted, Duration::ZERO).await?;
        Ok(match found.into_iter().next().and_then(|value| value.value) {
            Some(Variant::DateTime(time)) => Some(*time),
            _ => None,
        })
    }

    /// The crate's session, for what is not here.
    pub fn session(&self) -> &Session {
        &self.session
    }
}
