//! The methods of conditions (OPC 10000-9, 5.5.3 to 5.5.7 and 5.7.3).
//!
//! Clients call them by the ids that the standard gives the methods of the types, on an instance, or for a refresh on
//! ConditionType; those ids belong to the namespace of the standard, so `standard.rs` brings the calls here.

use super::delivery::{Delivery, To};
use super::filters::Reader;
use super::nodes::condition_id;
use super::refresh;
use crate::hub::{Act, ActError, Hub};
use crate::model::Role;
use ::opcua::server::MonitoredItemHandle;
use ::opcua::server::node_manager::{MethodCall, RequestContext};
use ::opcua::types::{AttributeId, MethodId, StatusCode, Variant};

/// Who may call which, if it is one of ours.
pub(in crate::sinks::ua_server) fn role(method: MethodId) -> Option<Role> {
    match method {
        MethodId::ConditionType_ConditionRefresh | MethodId::ConditionType_ConditionRefresh2 => Some(Role::Viewer),
        MethodId::AcknowledgeableConditionType_Acknowledge
        | MethodId::ConditionType_AddComment
        | MethodId::ConditionType_Enable
        | MethodId::ConditionType_Disable => Some(Role::Operator),
        _ => None,
    }
}

/// Answers a call of one of them.
pub(in crate::sinks::ua_server) fn call(
    hub: &Hub,
    delivery: &Delivery,
    namespace: u16,
    context: &RequestContext,
    method: MethodId,
    call: &mut MethodCall,
) {
    let outcome = match (method, call.arguments()) {
        (MethodId::ConditionType_ConditionRefresh, [Variant::UInt32(subscription)]) => {
            let to = To::Subscription(*subscription);
            send_conditions(hub, delivery, namespace, context, *subscription, to)
        }
        (MethodId::ConditionType_ConditionRefresh2, [Variant::UInt32(subscription), Variant::UInt32(item)]) => {
            let handle = MonitoredItemHandle { subscription_id: *subscription, monitored_item_id: *item };
            send_conditions(hub, delivery, namespace, context, *subscription, To::Item(handle))
        }
        (MethodId::ConditionType_ConditionRefresh | MethodId::ConditionType_ConditionRefresh2, _) => {
            Err(StatusCode::BadInvalidArgument)
        }
        _ => act(method, call.arguments()).and_then(|act| {
            let mut conditions = hub.conditions().into_iter();
            let condition = conditions.find(|condition| condition_id(condition, namespace) == *call.object_id());
            let condition = condition.ok_or(StatusCode::BadNodeIdUnknown)?;
            let user = if context.token.is_anonymous() { "" } else { &context.token.0 };
            hub.act(condition.kind, &condition.source, act, user).map_err(status)
        }),
    };
    call.set_status(outcome.err().unwrap_or(StatusCode::Good));
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
