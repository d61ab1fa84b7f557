//! The methods of conditions (OPC 10000-9, 5.5.3 to 5.5.7 and 5.7.3).
//!
//! Clients call them by the ids that the standard gives the methods of the types, on an instance, or for a refresh on
//! ConditionType; those ids belong to the namespace of the standard, so `manager.rs` brings the calls here. A refresh needs
//! a viewer, all else an operator (asked before they come here).

use super::delivery::{Delivery, To};
use super::filters::Reader;
use super::nodes::{METHODS, condition_id};
use super::refresh;
use crate::hub::{Act, ActError, Hub};
use crate::sinks::ua_server::access::Action;
use ::opcua::server::MonitoredItemHandle;
use ::opcua::server::node_manager::{MethodCall, RequestContext};
use ::opcua::types::{AttributeId, MethodId, NodeId, ObjectTypeId, StatusCode, Variant};
use std::cmp::Ordering;

/// Which of ours a node is.
pub(super) fn ours(id: &NodeId) -> Option<MethodId> {
    id.as_method_id().ok().filter(|method| METHODS.contains(method))
}

/// Answers a call of one of them.
pub(super) fn call(hub: &Hub, delivery: &Delivery, namespace: u16, context: &RequestContext, call: &mut MethodCall) {
    let status = match ours(call.method_id()) {
        _ if !context.authenticator.is_user_executable(&context.token, call.method_id()) => {
            StatusCode::BadUserAccessDenied
        }
        Some(method) => answer(hub, delivery, namespace, context, method, call).err().unwrap_or(StatusCode::Good),
        None => StatusCode::BadMethodInvalid,
    };
    call.set_status(status);
}

fn answer(
    hub: &Hub,
    delivery: &Delivery,
    namespace: u16,
    context: &RequestContext,
    method: MethodId,
    call: &MethodCall,
) -> Result<(), StatusCode> {
    let mut conditions = hub.conditions().into_iter();
    let may = |action| delivery.access().may(&context.token, action, call.object_id());
    // One that may not be seen is not there.
    let condition = conditions
        .find(|condition| condition_id(condition, namespace) == *call.object_id())
        .filter(|_| may(Action::Browse));
    let arguments = call.arguments();
    check_count(arguments.len(), argument_count(method))?;
    if is_refresh(method) {
        // On ConditionType, whatever the instance (OPC 10000-9, 5.5.7); some call it on an instance.
        if condition.is_none() && *call.object_id() != ObjectTypeId::ConditionType {
            return Err(StatusCode::BadNodeIdUnknown);
        }
        return match arguments {
            [Variant::UInt32(subscription)] => {
                let to = To::Subscription(*subscription);
                send_conditions(hub, delivery, namespace, context, *subscription, to)
            }
            [Variant::UInt32(subscription), Variant::UInt32(item)] => {
                let handle = MonitoredItemHandle { subscription_id: *subscription, monitored_item_id: *item };
                send_conditions(hub, delivery, namespace, context, *subscription, To::Item(handle))
            }
            _ => Err(StatusCode::BadInvalidArgument),
        };
    }
    let condition = condition.ok_or(StatusCode::BadNodeIdUnknown)?;
    if !may(Action::Call) {
        return Err(StatusCode::BadUserAccessDenied);
    }
    let user = if context.token.is_anonymous() { "" } else { &context.token.0 };
    hub.act(condition.kind, &condition.source, act(method, arguments)?, user).map_err(status)
}

fn is_refresh(method: MethodId) -> bool {
    matches!(method, MethodId::ConditionType_ConditionRefresh | MethodId::ConditionType_ConditionRefresh2)
}

fn argument_count(method: MethodId) -> usize {
    match method {
        MethodId::ConditionType_Enable | MethodId::ConditionType_Disable => 0,
        MethodId::ConditionType_ConditionRefresh => 1,
        _ => 2,
    }
}

fn check_count(found: usize, wanted: usize) -> Result<(), StatusCode> {
    match found.cmp(&wanted) {
        Ordering::Less => Err(StatusCode::BadArgumentsMissing),
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(StatusCode::BadTooManyArguments),
    }
}

fn act(method: MethodId, arguments: &[Variant]) -> Result<Act, StatusCode> {
    Ok(match method {
        MethodId::ConditionType_Enable => Act::Enable,
        MethodId::ConditionType_Disable => Act::Disable,
        MethodId::AcknowledgeableConditionType_Acknowledge => {
            let (id, comment) = id_and_comment(arguments)?;
            Act::Acknowledge { id, comment }
        }
        MethodId::ConditionType_AddComment => {
            let (id, comment) = id_and_comment(arguments)?;
            Act::Comment { id, comment: comment.unwrap_or_default() }
        }
        _ => return Err(StatusCode::BadMethodInvalid),
    })
}

/// A comment that is null leaves what is there; one that is empty replaces it (OPC 10000-9, 5.7.3).
fn id_and_comment(arguments: &[Variant]) -> Result<([u8; 16], Option<String>), StatusCode> {
    let (id, comment) = match arguments {
        [Variant::ByteString(id), Variant::LocalizedText(comment)] => (id, comment),
        _ => return Err(StatusCode::BadInvalidArgument),
    };
    let bytes = id.value.as_deref().unwrap_or_default();
    let id = bytes.try_into().map_err(|_| StatusCode::BadEventIdUnknown)?;
    Ok((id, comment.text.value().clone()))
}

fn status(error: ActError) -> StatusCode {
    match error {
        ActError::Unknown => StatusCode::BadNodeIdUnknown,
        ActError::UnknownChange => StatusCode::BadEventIdUnknown,
        ActError::AlreadyAcked => StatusCode::BadConditionBranchAlreadyAcked,
        ActError::Disabled => StatusCode::BadConditionDisabled,
        ActError::AlreadyEnabled => StatusCode::BadConditionAlreadyEnabled,
        ActError::AlreadyDisabled => StatusCode::BadConditionAlreadyDisabled,
    }
}

/// To a subscription of the session that calls, or to one of its items.
fn send_conditions(
    hub: &Hub,
    delivery: &Delivery,
    namespace: u16,
    context: &RequestContext,
    subscription: u32,
    to: To,
) -> Result<(), StatusCode> {
    {
        let session = context.subscriptions.get_session_subscriptions(context.session_id);
        let session = session.ok_or(StatusCode::BadSubscriptionIdInvalid)?;
        let session = session.lock();
        let subscription = session.get(subscription).ok_or(StatusCode::BadSubscriptionIdInvalid)?;
        if let To::Item(handle) = to {
            let item = subscription.get(&handle.monitored_item_id);
            let is_for_events = item.map(|item| item.item_to_monitor().attribute_id == AttributeId::EventNotifier);
            if is_for_events != Some(true) {
                return Err(StatusCode::BadMonitoredItemIdInvalid);
            }
        }
    }
    let news = refresh(hub, namespace, to);
    delivery.send(&context.subscriptions, &Reader(context.type_tree.read()), &news);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::opcua::types::{ByteString, LocalizedText};

    #[test]
    fn a_null_comment_is_none_and_an_empty_one_is_empty() {
        let id = || Variant::ByteString(ByteString::from(vec![7; 16]));
        let arguments = |comment: LocalizedText| [id(), Variant::from(comment)];
        assert_eq!(id_and_comment(&arguments(LocalizedText::null())), Ok(([7; 16], None)));
        assert_eq!(id_and_comment(&arguments(LocalizedText::new("", "seen"))), Ok(([7; 16], Some("seen".into()))));
        let short = [Variant::ByteString(ByteString::from(vec![7])), LocalizedText::null().into()];
        assert_eq!(id_and_comment(&short), Err(StatusCode::BadEventIdUnknown));
        assert_eq!(id_and_comment(&[id()]), Err(StatusCode::BadInvalidArgument));
    }
}
