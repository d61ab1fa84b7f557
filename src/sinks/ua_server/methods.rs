//! Our own methods, and the role that each needs unless the configuration says otherwise (asked before they come here).
//!
//!     Cameras/<name>/Snapshot(Width, Height, Quality, Format) -> Picture     viewer     snapshot.rs
//!     Cameras/<name>/Restart()                                               operator
//!     Device/ReloadConfiguration() -> Applied, Message                       admin

use super::snapshot;
use crate::hub::Hub;
use crate::hub::frames::Camera;
use crate::opcua::status_code;
use crate::store::History;
use ::opcua::nodes::MethodBuilder;
use ::opcua::server::address_space::AddressSpace;
use ::opcua::server::node_manager::MethodCall;
use ::opcua::types::{
    Argument, DataTypeId, Identifier, LocalizedText, NodeId, QualifiedName, StatusCode, UAString, Variant,
};
use std::time::Duration;
use tracing::info;

pub(super) const RESTART: &str = "Restart";
pub(super) const RELOAD: &str = "ReloadConfiguration";

/// A camera may need some seconds to come up.
const RESTART_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Clone)]
pub(super) enum Method {
    Snapshot(Camera),
    Restart(Camera),
    Reload,
}

impl Method {
    /// `history` keeps pictures that were taken.
    pub(super) async fn call(&self, hub: &Hub, history: Option<&History>, call: &mut MethodCall) {
        match self {
            Method::Snapshot(camera) => snapshot::call(camera, history, call).await,
            Method::Restart(camera) => match camera.restart(RESTART_TIMEOUT).await {
                Ok(_) => call.set_status(StatusCode::Good),
                Err(quality) => {
                    info!(camera = camera.name(), reason = %quality, "A restart did not help.");
                    call.set_status(status_code(quality.status));
                }
            },
            Method::Reload => {
                let (applied, message) = match hub.reload().await {
                    Ok(message) => (true, message),
                    Err(message) => (false, message),
                };
                call.set_outputs(vec![Variant::Boolean(applied), Variant::from(UAString::from(message))]);
                call.set_status(StatusCode::Good);
            }
        }
    }
}

pub(super) fn add_restart(address_space: &mut AddressSpace, id: &NodeId, name: QualifiedName, camera: &NodeId) {
    MethodBuilder::new(id, name, RESTART)
        .description("Closes the camera's device, opens it again and waits for a picture")
        .executable(true)
        .user_executable(true)
        .component_of(camera.clone())
        .insert(address_space);
}

pub(super) fn add_reload(address_space: &mut AddressSpace, id: &NodeId, name: QualifiedName, device: &NodeId) {
    let outputs = match &id.identifier {
        Identifier::String(path) => NodeId::new(id.namespace, format!("{path}/OutputArguments")),
        _ => unreachable!("all our nodes have string ids"),
    };
    let argument = |name: &str, data_type: DataTypeId, description: &str| Argument {
        name: name.into(),
        data_type: data_type.into(),
        value_rank: -1,
        array_dimensions: None,
        description: LocalizedText::from(description),
    };
    let arguments = [
        argument("Applied", DataTypeId::Boolean, "The configuration is in force now"),
        argument("Message", DataTypeId::String, "What was applied, or why nothing was"),
    ];
    MethodBuilder::new(id, name, RELOAD)
        .description("Reads the configuration file anew and applies it, or says why not")
        .executable(true)
        .user_executable(true)
        .output_args(address_space, &outputs, &arguments)
        .component_of(device.clone())
        .insert(address_space);
}
