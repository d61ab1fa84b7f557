"""Requests as they are on the wire, through asyncua's encoder: what its comfortable calls would not send."""

from asyncua import ua


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
