//! What clients ask, answered from the hub: reads, writes, monitored items.
//!
//! Browse and attributes other than Value are the UA crate's work on the nodes that address_space.rs made. A read of a
//! tag is its current sample (of a live tag, a new one); a read of an image is a new picture (or one not older than MaxAge), which takes as long as
//! the camera takes, and reads of several images run at once.

use super::NodesLock;
use super::access::{Access, Action, denied};
use super::address_space::{NAMESPACE, Nodes, Target};
use super::history::History;
use super::images::{Command, Last, Wish, image_value};
use super::items::{Items, Owner, Sampling as ItemSampling, Wanted};
use super::{Setup, writes};
use crate::hub::Hub;
use crate::hub::frames::{Camera, Terms};
use crate::model::{Sample, TagId};
use crate::opcua::data_value;
use crate::opcua::server::filter::{self, Deadband, deadband, deadband_of_item};
use crate::opcua::server::limits::Limits;
use crate::opcua::server::monitored::{self, saw_session};
use crate::opcua::server::ranges::{self, finish};
use crate::opcua::server::server_nodes::Sessions;
use ::opcua::server::address_space::{AddressSpace, add_namespaces};
use ::opcua::server::diagnostics::NamespaceMetadata;
use ::opcua::server::node_manager::memory::InMemoryNodeManagerImpl;
use ::opcua::server::node_manager::{
    HistoryNode, MethodCall, MonitoredItemRef, MonitoredItemUpdateRef, ParsedReadValueId, RequestContext,
    ServerContext, WriteNode,
};
use ::opcua::server::{CreateMonitoredItem, SubscriptionCache};
use ::opcua::sync::RwLock;
use ::opcua::types::{
    AttributeId, DataValue, MonitoringMode, NodeId, NumericRange, ReadProcessedDetails, ReadRawModifiedDetails,
    StatusCode, TimestampsToReturn, Variant,
};
use async_trait::async_trait;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub(super) use super::images::Sampling;

/// How long a read may wait for a camera that has to start first.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the creation of a monitored item may wait for its first picture; after that it comes as a notification.
const FIRST_PICTURE: Duration = Duration::from_secs(2);

pub(super) struct HubNodes {
    hub: Hub,
    access: Access,
    nodes: NodesLock,
    sampling: Sampling,
    items: Items,
    image_items: Arc<Semaphore>,
    limits: Limits,
    history: Option<History>,
    sessions: Arc<Sessions>,
    /// Index and URI of the application's namespace and of ours.
    namespaces: Vec<(u16, String)>,
}

impl HubNodes {
    pub(super) fn new(
        hub: Hub,
        access: Access,
        sampling: Sampling,
        setup: &Setup,
        sessions: Arc<Sessions>,
        context: &ServerContext,
        address_space: &mut AddressSpace,
    ) -> Self {
        // The application's own is always 1 (OPC 10000-5, 6.3.1).
        let uris = [context.info.application_uri.as_ref(), NAMESPACE];
        let indices = add_namespaces(context, address_space, &uris);
        let namespaces: Vec<(u16, &str)> = indices.into_iter().zip(uris).collect();
        let mut nodes = Nodes::new(&namespaces, &setup.camera_tags, setup.history.clone(), address_space);
        nodes.update(&hub, address_space);
        let namespaces = namespaces.into_iter().map(|(index, uri)| (index, uri.to_owned())).collect();
        let limits = setup.config.limits.clone();
        let image_items = Arc::new(Semaphore::new(limits.image_items));
        let history = setup.history.clone().map(History::new);
        let (nodes, items) = (NodesLock::new(nodes), Items::default());
        Self { hub, access, nodes, sampling, items, image_items, limits, history, sessions, namespaces }
    }

    fn saw(&self, context: &RequestContext) {
        saw_session(context.session_id);
        self.sessions.saw(context);
    }

    /// Hands samples to the monitored items of their tags; `is_change`: for the first time.
    pub(super) fn deliver(&self, samples: &[&Sample], is_change: bool, subscriptions: &SubscriptionCache) {
        let (now, time) = (Instant::now(), self.hub.now());
        let nodes = self.read_nodes();
        // What is gathered goes to the subscriptions when this is dropped, after the items are free again.
        let mut notifier = subscriptions.data_notifier();
        let mut items = self.items.lock();
        for sample in samples {
            // Values that nobody monitors are not even converted.
            if !items.is_monitored(sample.tag) {
                continue;
            }
            let Some(id) = nodes.node_id_of(sample.tag) else { continue };
            let Some(mut batch) = notifier.notify_for(id, AttributeId::Value) else { continue };
            if is_change {
                items.changed(sample, now, time);
            }
            items.give(sample, &data_value(sample), |value, item| batch.data_value_to_item(value, item));
        }
    }

    pub(super) fn namespace(&self) -> u16 {
        self.read_nodes().namespace()
    }

    pub(super) fn items(&self) -> &Items {
        &self.items
    }

    pub(super) fn update(&self, hub: &Hub, address_space: &mut AddressSpace) {
        self.nodes.write().expect("no code that holds the nodes panics").update(hub, address_space);
    }

    fn read_nodes(&self) -> std::sync::RwLockReadGuard<'_, Nodes> {
        self.nodes.read().expect("no code that holds the nodes panics")
    }

    /// Paths of access rules that name nothing.
    pub(super) fn rules_without_node(&self, address_space: &AddressSpace) -> Vec<String> {
        let nodes = self.read_nodes();
        let exists = |path: &str| address_space.node_exists(&nodes.id(path));
        self.access.rules().without_node(exists).into_iter().map(str::to_owned).collect()
    }

    fn owner(&self, context: &RequestContext, item: &CreateMonitoredItem) -> Owner {
        let seat = self.access.seats().seat(item.handle().subscription_id, &context.token);
        let may_read = self.access.may(&context.token, Action::Read, &item.item_to_monitor().node_id);
        Owner { session: context.session_id, seat, may_read }
    }

    /// Judges all monitored items anew, after a change of users.
    pub(super) async fn recheck(&self) {
        {
            let nodes = self.read_nodes();
            let may_read = |token: &_, node| self.access.may(token, Action::Read, node);
            self.items.recheck(|token, tag| nodes.node_id_of(tag).is_some_and(|node| may_read(token, node)));
        }
        self.command(Command::Recheck).await;
    }

    async fn command(&self, command: Command) {
        // An error means that the server is about to end.
        let _ = self.sampling.send(command).await;
    }

    /// Begins sampling of an image and gives the item its first picture.
    async fn monitor_image(&self, context: &RequestContext, camera: Camera, item: &mut CreateMonitoredItem) {
        let deadband = deadband(item.filter());
        // A picture is no number, but a percent deadband means its difference.
        let is_number = matches!(deadband, Deadband::Percent(_));
        if let Err(status) = filter::check(item, is_number) {
            return item.set_status(status);
        }
        let Ok(permit) = self.image_items.clone().try_acquire_owned() else {
            return item.set_status(StatusCode::BadTooManyMonitoredItems);
        };
        let (handle, node) = (item.handle(), item.item_to_monitor().node_id.clone());
        let wish = image_wish(context, handle.subscription_id, item.sampling_interval(), deadband);
        // A queue of pictures is a queue of megabytes, and of old ones.
        item.revise_queue_size(1);
        let (owner, enabled) = (self.owner(context, item), item.monitoring_mode() != MonitoringMode::Disabled);
        if !owner.may_read {
            item.set_initial_value(denied());
        }
        let lease = if !enabled || !owner.may_read {
            None
        } else {
            let mut lease = camera.lease(wish.terms);
            let first = tokio::time::timeout(FIRST_PICTURE, lease.next()).await;
            let last = match &first {
                Ok(Ok(picture)) => Last::At(picture.captured),
                _ => Last::None,
            };
            if let Ok(shot) = first {
                item.set_initial_value(ranges::for_item(image_value(&shot), &item.item_to_monitor().index_range));
            }
            Some((lease, last))
        };
        item.set_status(StatusCode::Good);
        let range = item.item_to_monitor().index_range.clone();
        self.command(Command::Add { handle, owner, node, camera, range, wish, permit, enabled, lease }).await;
    }
}

#[async_trait]
impl InMemoryNodeManagerImpl for HubNodes {
    async fn init(&self, _: &mut AddressSpace, _: ServerContext) {}

    fn name(&self) -> &str {
        "vedette"
    }

    fn namespaces(&self) -> Vec<NamespaceMetadata> {
        // Only for the NamespaceArray; what Server/Namespaces says are nodes of ours.
        let metadata = |(index, uri): &(u16, String)| NamespaceMetadata {
            namespace_uri: uri.clone(),
            namespace_index: *index,
            ..NamespaceMetadata::default()
        };
        self.namespaces.iter().map(metadata).collect()
    }

    async fn read_values(
        &self,
        context: &RequestContext,
        address_space: &RwLock<AddressSpace>,
        nodes: &[&ParsedReadValueId],
        max_age: f64,
        timestamps: TimestampsToReturn,
    ) -> Vec<DataValue> {
        self.saw(context);
        // Pictures and live tags take long, so all are asked for at once; the rest is there already.
        enum Answer {
            Now(DataValue),
            Tag,
            Picture,
        }
        let (mut cameras, mut tags) = (Vec::new(), Vec::new());
        let answers: Vec<Answer> = {
            let (address_space, targets) = (address_space.read(), self.read_nodes());
            let mut answer = |node: &&ParsedReadValueId| match resolve(context, &address_space, &targets, node) {
                Err(status) => Answer::Now(DataValue::new_now_status(Variant::Empty, status)),
                Ok(Some(Target::Image(_))) if cameras.len() >= self.limits.pictures_per_read => {
                    Answer::Now(DataValue::new_now_status(Variant::Empty, StatusCode::BadTooManyOperations))
                }
                Ok(Some(Target::Image(camera))) => {
                    cameras.push(camera);
                    Answer::Picture
                }
                Ok(Some(Target::Tag(tag))) => {
                    tags.push(tag);
                    Answer::Tag
                }
                // A method has no Value, so what is left are nodes with values of their own.
                Ok(Some(Target::Method(_)) | None) => {
                    let whole = ParsedReadValueId { index_range: NumericRange::None, ..(**node).clone() };
                    Answer::Now(address_space.read(context, &whole, 0.0, TimestampsToReturn::Both))
                }
            };
            nodes.iter().map(&mut answer).collect()
        };
        let max_age = milliseconds(max_age);
        let pictures = cameras.iter().map(|camera| camera.snapshot(max_age, READ_TIMEOUT));
        let (pictures, ()) = tokio::join!(join_all(pictures), self.hub.refresh(&tags, max_age));
        let (samples, mut pictures) = (self.hub.read_many(&tags), pictures.iter());
        let mut samples = samples.iter();
        let values = answers.into_iter().map(|answer| match answer {
            Answer::Now(value) => value,
            Answer::Tag => data_value(samples.next().expect("one was read for each")),
            Answer::Picture => image_value(pictures.next().expect("one was taken for each")),
        });
        values.zip(nodes).map(|(value, node)| finish(value, &node.index_range, timestamps)).collect()
    }

    async fn create_value_monitored_items(
        &self,
        context: &RequestContext,
        address_space: &RwLock<AddressSpace>,
        items: &mut [&mut &mut CreateMonitoredItem],
    ) {
        self.saw(context);
        let (mut images, mut tags) = (Vec::new(), Vec::new());
        {
            let (address_space, targets) = (address_space.read(), self.read_nodes());
            for item in items.iter_mut() {
                let wanted = item.item_to_monitor();
                let resolved = match resolve(context, &address_space, &targets, wanted) {
                    // An item on what its user may not read is created, and told so.
                    Err(StatusCode::BadUserAccessDenied) => Ok(targets.target(&wanted.node_id).cloned()),
                    resolved => resolved,
                };
                match resolved {
                    Err(status) => item.set_status(status),
                    Ok(Some(Target::Image(camera))) => images.push((camera, item)),
                    Ok(Some(Target::Tag(tag))) => match filter::check(item, self.hub.spec(tag).data_type.is_number()) {
                        Err(status) => item.set_status(status),
                        Ok(()) => tags.push((tag, item)),
                    },
                    Ok(Some(Target::Method(_)) | None) => {
                        let whole =
                            ParsedReadValueId { index_range: NumericRange::None, ..item.item_to_monitor().clone() };
                        let value = address_space.read(context, &whole, 0.0, TimestampsToReturn::Both);
                        match filter::check(item, value.value.as_ref().is_some_and(filter::is_number)) {
                            Err(status) => item.set_status(status),
                            Ok(()) => {
                                item.set_initial_value(ranges::for_item(value, &whole.index_range));
                                item.set_status(StatusCode::Good);
                            }
                        }
                    }
                }
            }
        }
        // Pictures take their time; the tags are asked after them, so that their values are not old by then.
        join_all(images.into_iter().map(|(camera, item)| self.monitor_image(context, camera, item))).await;
        let monitored: Vec<TagId> = tags.iter().map(|(tag, _)| *tag).collect();
        self.hub.refresh(&monitored, Duration::ZERO).await;
        for (tag, item) in tags {
            if self.items.count() >= self.limits.monitored_items {
                item.set_status(StatusCode::BadTooManyMonitoredItems);
                continue;
            }
            let sample = self.hub.read(tag);
            let wanted = Wanted {
                owner: self.owner(context, item),
                sampling: item_sampling(item.sampling_interval()),
                range: item.item_to_monitor().index_range.clone(),
                has_deadband: deadband(item.filter()) != Deadband::None,
            };
            // Whole, without the IndexRange: the crate applies that to every value of an item by itself.
            let initial = if wanted.owner.may_read { data_value(&sample) } else { denied() };
            item.set_initial_value(ranges::for_item(initial, &wanted.range));
            item.set_status(StatusCode::Good);
            self.items.add(item.handle(), wanted, &sample);
        }
    }

    async fn modify_monitored_items(&self, context: &RequestContext, items: &[&MonitoredItemUpdateRef]) {
        for item in items.iter().filter(|item| item.attribute() == AttributeId::Value) {
            let handle = item.handle();
            let revised = item.update().revised_sampling_interval;
            let deadband = deadband_of_item(&context.subscriptions, context.session_id, handle);
            let has_deadband = deadband != Deadband::None;
            self.items.modify(handle, context.session_id, item_sampling(revised), has_deadband);
            let wish = image_wish(context, handle.subscription_id, revised, deadband);
            self.command(Command::Modify { handle, wish }).await;
        }
    }

    async fn set_monitoring_mode(&self, _: &RequestContext, mode: MonitoringMode, items: &[&MonitoredItemRef]) {
        for item in items.iter().filter(|item| item.attribute() == AttributeId::Value) {
            let enabled = mode != MonitoringMode::Disabled;
            if enabled {
                self.items.resend(item.handle());
            }
            self.command(Command::Enable { handle: item.handle(), enabled }).await;
        }
    }

    async fn delete_monitored_items(&self, context: &RequestContext, items: &[&MonitoredItemRef]) {
        for item in items.iter().filter(|item| item.attribute() == AttributeId::Value) {
            self.items.remove(item.handle());
            self.command(Command::Remove { handle: item.handle() }).await;
        }
        monitored::tidied(context).await;
    }

    async fn call(
        &self,
        context: &RequestContext,
        _: &RwLock<AddressSpace>,
        methods: &mut [&mut &mut MethodCall],
    ) -> Result<(), StatusCode> {
        self.saw(context);
        // One after the other: a picture may have megabytes, and a request many calls.
        for method in methods {
            let target = self.read_nodes().target(method.method_id()).cloned();
            match target {
                Some(Target::Method(target)) => {
                    target.call(&self.hub, self.history.as_ref().map(History::kept), method).await;
                }
                _ => method.set_status(StatusCode::BadMethodInvalid),
            }
        }
        Ok(())
    }

    async fn history_read_raw_modified(
        &self,
        context: &RequestContext,
        details: &ReadRawModifiedDetails,
        nodes: &mut [&mut &mut HistoryNode],
        timestamps: TimestampsToReturn,
    ) -> Result<(), StatusCode> {
        self.saw(context);
        let history = self.history.as_ref().ok_or(StatusCode::BadHistoryOperationUnsupported)?;
        let target = |id: &NodeId| self.read_nodes().target(id).cloned();
        history.read_raw(&self.hub, target, details, nodes, timestamps).await
    }

    async fn history_read_processed(
        &self,
        context: &RequestContext,
        details: &ReadProcessedDetails,
        nodes: &mut [&mut &mut HistoryNode],
        timestamps: TimestampsToReturn,
    ) -> Result<(), StatusCode> {
        self.saw(context);
        let history = self.history.as_ref().ok_or(StatusCode::BadHistoryOperationUnsupported)?;
        let target = |id: &NodeId| self.read_nodes().target(id).cloned();
        history.read_processed(&self.hub, target, details, nodes, timestamps).await
    }

    async fn write(
        &self,
        context: &RequestContext,
        address_space: &RwLock<AddressSpace>,
        nodes: &mut [&mut WriteNode],
    ) -> Result<(), StatusCode> {
        self.saw(context);
        let targets: Vec<Result<TagId, StatusCode>> = {
            let address_space = &mut *address_space.write();
            let type_tree = context.type_tree.read();
            let target = |node: &mut &mut WriteNode| {
                let written = node.value();
                // The crate would say BadUserAccessDenied, as if another user might (OPC 10000-4, 5.11.4).
                let is_read_only = |target: &Target| match target {
                    Target::Tag(tag) => !self.hub.spec(*tag).writable,
                    Target::Image(_) | Target::Method(_) => true,
                };
                if written.attribute_id == AttributeId::Value
                    && self.read_nodes().target(&written.node_id).is_some_and(is_read_only)
                {
                    return Err(StatusCode::BadNotWritable);
                }
                address_space.validate_node_write(context, written, &*type_tree)?;
                match self.read_nodes().target(&written.node_id) {
                    Some(Target::Tag(tag)) if written.attribute_id == AttributeId::Value => Ok(*tag),
                    _ => Err(StatusCode::BadNotWritable),
                }
            };
            nodes.iter_mut().map(target).collect()
        };
        // One after the other, in the order of the request: two writes to one tag must not overtake each other.
        for (node, target) in nodes.iter_mut().zip(targets) {
            let status = match target {
                Ok(tag) => writes::write(&self.hub, tag, node.value()).await,
                Err(status) => status,
            };
            node.set_status(status);
        }
        Ok(())
    }
}

/// Whether the node exists and may be read, and where its value comes from.
fn resolve(
    context: &RequestContext,
    address_space: &AddressSpace,
    targets: &Nodes,
    node: &ParsedReadValueId,
) -> Result<Option<Target>, StatusCode> {
    address_space.validate_node_read(context, node)?;
    Ok(targets.target(&node.node_id).cloned())
}

/// MaxAge: what is not finite or beyond the standard's "any age" counts as for ever, what is negative as nothing.
fn milliseconds(value: f64) -> Duration {
    if value >= f64::from(i32::MAX) {
        return Duration::from_secs(u64::from(u32::MAX));
    }
    Duration::try_from_secs_f64(value / 1000.0).unwrap_or(Duration::ZERO)
}

fn item_sampling(requested: f64) -> ItemSampling {
    if requested < 0.0 { ItemSampling::Publishing } else { ItemSampling::Interval(milliseconds(requested)) }
}

fn image_wish(context: &RequestContext, subscription: u32, sampling: f64, deadband: Deadband) -> Wish {
    let interval = sampling_interval(context, subscription, sampling);
    Wish { terms: Terms { interval, deadband: deadband.percent() }, is_publishing: sampling < 0.0 }
}

/// The interval in force. -1 stands for the publishing interval of the subscription (OPC 10000-4, 7.21).
fn sampling_interval(context: &RequestContext, subscription: u32, requested: f64) -> Duration {
    if requested >= 0.0 {
        return milliseconds(requested);
    }
    let session = context.subscriptions.get_session_subscriptions(context.session_id);
    let publishing = session.and_then(|session| Some(session.lock().get(subscription)?.publishing_interval()));
    publishing.unwrap_or(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_age_of_any_kind_is_a_duration() {
        assert_eq!(milliseconds(0.0), Duration::ZERO);
        assert_eq!(milliseconds(1500.0), Duration::from_millis(1500));
        assert_eq!([f64::NAN, -1.0].map(milliseconds), [Duration::ZERO; 2]);
        assert!(milliseconds(f64::INFINITY) > Duration::from_secs(1 << 30));
    }
}
