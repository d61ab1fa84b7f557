"""Requests as they are on the wire, through asyncua's encoder: what its comfortable calls would not send."""

import collections
import itertools

from asyncua import ua
from asyncua.ua.ua_binary import struct_from_binary


def read(client, *ids, max_age=0, timestamps=ua.TimestampsToReturn.Both):
    """ReadValueIds, or NodeIds of which the Value is read."""
    parameters = ua.ReadParameters()
    parameters.MaxAge = max_age
    parameters.TimestampsToReturn = timestamps
    parameters.NodesToRead = [i if isinstance(i, ua.ReadValueId) else ua.ReadValueId(i, ua.AttributeIds.Value) for i in ids]
    return client.tloop.post(client.aio_obj.uaclient.read(parameters))


def value_id(node_id, attribute=ua.AttributeIds.Value, index_range=None, encoding=None):
    result = ua.ReadValueId(node_id, attribute)
    result.IndexRange = index_range
    if encoding is not None:
        result.DataEncoding = ua.QualifiedName(encoding, 0)
    return result


def write(client, node_id, value, index_range=None, attribute=ua.AttributeIds.Value):
    """The status, by name."""
    parameters = ua.WriteParameters()
    item = ua.WriteValue()
    item.NodeId, item.AttributeId, item.IndexRange = node_id, attribute, index_range
    item.Value = value if isinstance(value, ua.DataValue) else ua.DataValue(value)
    parameters.NodesToWrite = [item]
    return client.tloop.post(client.aio_obj.uaclient.write(parameters))[0].name


def browse(client, node_id, direction=ua.BrowseDirection.Forward, reference=None, subtypes=True, classes=0, mask=63, most=0):
    """The BrowseResult."""
    parameters = ua.BrowseParameters()
    # asyncua's default is now, and no view.
    parameters.View.Timestamp = ua.get_win_epoch()
    parameters.RequestedMaxReferencesPerNode = most
    description = ua.BrowseDescription()
    description.NodeId, description.BrowseDirection = node_id, direction
    description.ReferenceTypeId = reference if reference is not None else ua.NodeId()
    description.IncludeSubtypes, description.NodeClassMask, description.ResultMask = subtypes, classes, mask
    parameters.NodesToBrowse = [description]
    return client.tloop.post(client.aio_obj.uaclient.browse(parameters))[0]


def browse_next(client, point, release=False):
    parameters = ua.BrowseNextParameters()
    parameters.ReleaseContinuationPoints = release
    parameters.ContinuationPoints = [point]
    return client.tloop.post(client.aio_obj.uaclient.browse_next(parameters))[0]


def translate(client, start, *elements):
    """(reference, is inverse, subtypes, target) each; the BrowsePathResult."""
    path = ua.BrowsePath()
    path.StartingNode = start
    for reference, inverse, subtypes, target in elements:
        element = ua.RelativePathElement()
        element.ReferenceTypeId, element.IsInverse = ua.NodeId(reference), inverse
        element.IncludeSubtypes, element.TargetName = subtypes, target
        path.RelativePath.Elements.append(element)
    return client.tloop.post(client.aio_obj.uaclient.translate_browsepaths_to_nodeids([path]))[0]


def call(client, object_id, method_id, *arguments):
    request = ua.CallMethodRequest()
    request.ObjectId, request.MethodId, request.InputArguments = object_id, method_id, list(arguments)
    return client.tloop.post(client.aio_obj.uaclient.call([request]))[0]


def send(client, request, answer):
    """Any request; the response, once its service result is Good."""

    async def run():
        data = await client.aio_obj.uaclient.session._send_request(request)
        response = struct_from_binary(answer, data)
        response.ResponseHeader.ServiceResult.check()
        return response

    return client.tloop.post(run())


class Subscription:
    """One whose Publish requests are sent only when the test says so."""

    def __init__(self, client, interval=100, keep_alive=5, lifetime=600, most=0, enabled=True, priority=0):
        self.client, self.handles, self.acks = client, itertools.count(1), []
        request = ua.CreateSubscriptionRequest()
        request.Parameters = ua.CreateSubscriptionParameters(interval, lifetime, keep_alive, most, enabled, priority)
        self.created = send(client, request, ua.CreateSubscriptionResponse).Parameters
        self.id = self.created.SubscriptionId

    def item(self, node_id, attribute=ua.AttributeIds.Value, index_range=None, sampling=0, queue=1, oldest=True, filter=None):
        request = ua.MonitoredItemCreateRequest()
        request.ItemToMonitor = value_id(node_id, attribute, index_range)
        request.MonitoringMode = ua.MonitoringMode.Reporting
        wanted = request.RequestedParameters
        wanted.ClientHandle = next(self.handles)
        wanted.SamplingInterval, wanted.QueueSize, wanted.DiscardOldest = sampling, queue, oldest
        if filter is not None:
            wanted.Filter = filter
        return request

    def create(self, *items, timestamps=ua.TimestampsToReturn.Both):
        parameters = ua.CreateMonitoredItemsParameters()
        parameters.SubscriptionId, parameters.TimestampsToReturn = self.id, timestamps
        parameters.ItemsToCreate = list(items)
        return self.client.tloop.post(self.client.aio_obj.uaclient.create_monitored_items(parameters))

    def monitor(self, node_id, mode=ua.MonitoringMode.Reporting, timestamps=ua.TimestampsToReturn.Both, **wanted):
        """(client handle, result) of one item."""
        item = self.item(node_id, **wanted)
        item.MonitoringMode = mode
        return item.RequestedParameters.ClientHandle, self.create(item, timestamps=timestamps)[0]

    def modify(self, item_id, handle, sampling=0, queue=1, oldest=True, filter=None):
        item = ua.MonitoredItemModifyRequest()
        item.MonitoredItemId = item_id
        wanted = item.RequestedParameters
        wanted.ClientHandle, wanted.SamplingInterval, wanted.QueueSize, wanted.DiscardOldest = handle, sampling, queue, oldest
        if filter is not None:
            wanted.Filter = filter
        parameters = ua.ModifyMonitoredItemsParameters()
        parameters.SubscriptionId, parameters.ItemsToModify = self.id, [item]
        parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        return self.client.tloop.post(self.client.aio_obj.uaclient.modify_monitored_items(parameters))[0]

    def set_mode(self, mode, *item_ids):
        parameters = ua.SetMonitoringModeParameters()
        parameters.SubscriptionId, parameters.MonitoringMode, parameters.MonitoredItemIds = self.id, mode, list(item_ids)
        request = ua.SetMonitoringModeRequest()
        request.Parameters = parameters
        return send(self.client, request, ua.SetMonitoringModeResponse).Parameters.Results

    def publish(self, client=None, acknowledge=True):
        """The next response; a keep-alive has no NotificationData."""
        client = client or self.client
        acks, self.acks = self.acks, []
        response = client.tloop.post(client.aio_obj.uaclient.session.publish(acks)).Parameters
        if acknowledge and response.NotificationMessage.NotificationData:
            ack = ua.SubscriptionAcknowledgement()
            ack.SubscriptionId, ack.SequenceNumber = response.SubscriptionId, response.NotificationMessage.SequenceNumber
            self.acks.append(ack)
        return response

    def collect(self, publishes=3, client=None):
        """What that many Publish requests bring, as {client handle: [DataValue]}; the first may be a keep-alive."""
        found = collections.defaultdict(list)
        for _ in range(publishes):
            for handle, value in values_of(self.publish(client).NotificationMessage):
                found[handle].append(value)
        return found


def values_of(message):
    return [
        (item.ClientHandle, item.Value)
        for data in message.NotificationData or []
        if isinstance(data, ua.DataChangeNotification)
        for item in data.MonitoredItems
    ]


def data_filter(trigger=ua.DataChangeTrigger.StatusValue, deadband=ua.DeadbandType.None_, size=0.0):
    result = ua.DataChangeFilter()
    result.Trigger, result.DeadbandType, result.DeadbandValue = trigger, deadband, size
    return result
