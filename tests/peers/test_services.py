"""The services view, attribute and method, with requests that a comfortable client would not send."""

import datetime

import pytest
from asyncua import ua
from conftest import picture
from raw import browse, browse_next, call, read, translate, value_id, write

O, A = ua.ObjectIds, ua.AttributeIds
NOWHERE = [ua.NodeId("Tags/no/such", 2), ua.NodeId(987654321, 0), ua.NodeId("x", 99)]
DEMO = "Tags/demo"


def ours(path):
    return ua.NodeId(path, 2)


def tag(name):
    return ours(f"{DEMO}/{name}")


def double(*values):
    if len(values) == 1:
        return ua.Variant(values[0], ua.VariantType.Double)
    return ua.Variant(list(values), ua.VariantType.Double, is_array=True)


def statuses(values):
    return [value.StatusCode.name for value in values]


# View


@pytest.mark.parametrize("most", [1, 2, 3, 7])
@pytest.mark.parametrize("start", [ours("Cameras/line1"), ours("Device"), ours("Device/ClockNotSet"), ua.NodeId(O.Server), ua.NodeId(O.ObjectsFolder), ua.NodeId(O.Server_Namespaces)])
def test_browse_in_parts_brings_all_references_once(vedette, start, most):
    def key(reference):
        return reference.ReferenceTypeId.to_string(), reference.IsForward, reference.NodeId.to_string()

    with vedette.client() as client:
        whole = browse(client, start, ua.BrowseDirection.Both).References
        part = browse(client, start, ua.BrowseDirection.Both, most=most)
        found = list(part.References)
        while part.ContinuationPoint:
            assert len(part.References) <= most
            old = part.ContinuationPoint
            part = browse_next(client, part.ContinuationPoint)
            assert part.StatusCode.is_good()
            found += part.References
            assert browse_next(client, old).StatusCode.name == "BadContinuationPointInvalid", "each is good once"
        assert sorted(map(key, found)) == sorted(map(key, whole))


def test_a_continuation_point_can_be_released(vedette):
    with vedette.client() as client:
        point = browse(client, ours("Cameras/line1"), most=1).ContinuationPoint
        released = browse_next(client, point, release=True)
        assert released.StatusCode.is_good() and not released.References and not released.ContinuationPoint
        assert browse_next(client, point).StatusCode.name == "BadContinuationPointInvalid"


def test_browse_filters(vedette):
    with vedette.client() as client:
        camera = ours("Cameras/line1")
        names = lambda **filters: {r.BrowseName.Name for r in browse(client, camera, **filters).References}
        everything = names()
        methods = names(classes=ua.NodeClass.Method.value)
        assert methods == {"Snapshot", "Restart"}
        assert names(classes=ua.NodeClass.Variable.value | ua.NodeClass.Method.value) == everything - {"CameraType", "CameraLost"}
        assert names(reference=ua.NodeId(O.HasTypeDefinition)) == {"CameraType"}
        assert names(reference=ua.NodeId(O.HierarchicalReferences)) == everything - {"CameraType"}
        assert names(reference=ua.NodeId(O.HierarchicalReferences), subtypes=False) == set()
        assert names(direction=ua.BrowseDirection.Inverse) == {"Cameras"}
        only = browse(client, camera, mask=ua.BrowseResultMask.BrowseName.value).References[0]
        assert only.BrowseName.Name and not only.DisplayName.Text and only.TypeDefinition.is_null()
        assert only.NodeClass == ua.NodeClass.Unspecified and only.ReferenceTypeId.is_null()


def test_what_cannot_be_browsed_is_said(vedette):
    with vedette.client() as client:
        for node in NOWHERE:
            assert browse(client, node).StatusCode.name == "BadNodeIdUnknown", node
        camera = ours("Cameras/line1")
        assert browse(client, camera, reference=ua.NodeId(O.Server)).StatusCode.name == "BadReferenceTypeIdInvalid"
        assert browse(client, camera, reference=ours("none")).StatusCode.name == "BadReferenceTypeIdInvalid"


def test_paths_are_translated_in_both_directions(vedette):
    with vedette.client() as client:
        def found(start, *elements):
            result = translate(client, start, *elements)
            return result.StatusCode.name, [target.TargetId for target in result.Targets or []]

        def name(text, index=2):
            return ua.QualifiedName(text, index)

        image = ours("Cameras/line1/Camera Image")
        down = [(O.Organizes, False, True, name("Cameras")), (O.Organizes, False, True, name("line1"))]
        last = (O.HasComponent, False, True, name("Camera Image"))
        assert found(ua.NodeId(O.ObjectsFolder), *down, last) == ("Good", [image])
        any_way = [(O.HierarchicalReferences, False, True, e[3]) for e in [*down, last]]
        assert found(ua.NodeId(O.ObjectsFolder), *any_way) == ("Good", [image])
        exactly = [(O.HierarchicalReferences, False, False, e[3]) for e in [*down, last]]
        assert found(ua.NodeId(O.ObjectsFolder), *exactly) == ("BadNoMatch", [])
        assert found(image, (O.HasComponent, True, True, name("line1")), (O.Organizes, True, True, name("Cameras"))) == (
            "Good",
            [ours("Cameras")],
        )
        assert found(image, (O.HasProperty, False, True, name("EURange", 0)))[1] == [ours("Cameras/line1/Camera Image/EURange")]
        assert found(image, (O.HasProperty, False, True, name("EURange", 2))) == ("BadNoMatch", [])
        # From a type of ours up into namespace 0, and from namespace 0 down to it.
        up = (O.HasSubtype, True, True, name("BaseObjectType", 0))
        assert found(ours("CameraType"), up) == ("Good", [ua.NodeId(O.BaseObjectType)])
        assert found(ua.NodeId(O.BaseObjectType), (O.HasSubtype, False, True, name("CameraType")))[1] == [ours("CameraType")]
        for node in NOWHERE:
            assert found(node, last)[0] == "BadNodeIdUnknown"
        assert found(ua.NodeId(O.ObjectsFolder))[0] == "BadNothingToDo"
        assert found(image, (O.HasProperty, False, True, ua.QualifiedName()))[0] == "BadBrowseNameInvalid"


def test_registered_nodes_are_as_many_as_asked_for(vedette):
    nodes = [tag("sine"), ua.NodeId("x", 99), ua.NodeId(O.Server)]
    with vedette.client() as client:
        registered = client.tloop.post(client.aio_obj.uaclient.register_nodes(nodes))
        assert list(registered) == nodes
        assert read(client, registered[0])[0].StatusCode.is_good()
        client.tloop.post(client.aio_obj.uaclient.unregister_nodes(nodes))


# Attribute


ATTRIBUTES = {
    ua.NodeClass.Object: {A.EventNotifier},
    ua.NodeClass.Variable: {A.Value, A.DataType, A.ValueRank, A.AccessLevel, A.UserAccessLevel, A.Historizing},
    ua.NodeClass.Method: {A.Executable, A.UserExecutable},
    ua.NodeClass.ObjectType: {A.IsAbstract},
    ua.NodeClass.VariableType: {A.DataType, A.ValueRank, A.IsAbstract},
    ua.NodeClass.ReferenceType: {A.IsAbstract, A.Symmetric},
    ua.NodeClass.DataType: {A.IsAbstract},
}
OF_ALL = {A.NodeId, A.NodeClass, A.BrowseName, A.DisplayName}


@pytest.mark.parametrize(
    "node",
    [ours("Cameras/line1"), tag("sine"), ours("Cameras/line1/Snapshot"), ours("CameraType")]
    + [ua.NodeId(i) for i in [O.AnalogItemType, O.HasComponent, O.Double, O.Server, O.Server_ServerStatus_State, O.Server_GetMonitoredItems]],
)
def test_mandatory_attributes_can_be_read_and_foreign_ones_cannot(vedette, node):
    with vedette.client() as client:
        everything = [a for a in A if a != A.Value]
        found = dict(zip(everything, read(client, *[value_id(node, a) for a in everything])))
        good = {a for a, value in found.items() if value.StatusCode.is_good()}
        node_class = ua.NodeClass(found[A.NodeClass].Value.Value)
        mandatory = (OF_ALL | ATTRIBUTES[node_class]) - {A.Value}
        assert mandatory <= good, mandatory - good
        foreign = set().union(*ATTRIBUTES.values()) - ATTRIBUTES[node_class] - {A.Value}
        assert {found[a].StatusCode.name for a in foreign} == {"BadAttributeIdInvalid"}
        assert found[A.NodeId].Value.Value == node


def test_read_refuses_what_it_should(vedette):
    with vedette.client() as client:
        sine, camera = tag("sine"), ours("Cameras/line1")
        assert statuses(read(client, *NOWHERE)) == ["BadNodeIdUnknown"] * 3
        assert statuses(read(client, camera, value_id(sine, 999))) == ["BadAttributeIdInvalid"] * 2
        with pytest.raises(ua.uaerrors.BadMaxAgeInvalid):
            read(client, sine, max_age=-1)
        with pytest.raises(ua.uaerrors.BadTimestampsToReturnInvalid):
            read(client, sine, timestamps=ua.TimestampsToReturn.Invalid)
        with pytest.raises(ua.uaerrors.BadNothingToDo):
            read(client)
        refused = ["BadDataEncodingInvalid", "BadDataEncodingUnsupported"]
        state = ua.NodeId(O.Server_ServerStatus_State)
        for encoding in ["Default XML", "Default JSON", "nonsense"]:
            values = read(client, value_id(sine, encoding=encoding), value_id(state, encoding=encoding))
            assert all(name in refused for name in statuses(values)), encoding
        assert read(client, value_id(sine, encoding="Default Binary"))[0].StatusCode.is_good()


def test_timestamps_come_as_asked_for(vedette):
    T = ua.TimestampsToReturn
    with vedette.client() as client:
        for node in [tag("sine"), ours("Cameras/line1/Camera Image"), tag("set_point/EURange"), ua.NodeId(O.Server_ServerArray)]:
            for asked, source, server in [(T.Source, 1, 0), (T.Server, 0, 1), (T.Both, 1, 1), (T.Neither, 0, 0)]:
                value = read(client, node, timestamps=asked)[0]
                assert (value.SourceTimestamp is not None, value.ServerTimestamp is not None) == (source, server), (node, asked)


def test_index_ranges_are_read(vedette):
    profile, text, data = tag("profile"), tag("text"), tag("bytes")
    names = ua.NodeId(O.Server_NamespaceArray)
    with vedette.client() as client:
        def part(node, index_range):
            value = read(client, value_id(node, index_range=index_range))[0]
            return value.Value.Value if value.StatusCode.is_good() else value.StatusCode.name

        assert part(profile, "1:3") == [20.0, 30.0, 20.0]
        assert part(profile, "2") == [30.0]
        assert part(profile, "3:99") == [20.0, 10.0]
        assert part(profile, "5:6") == "BadIndexRangeNoData"
        assert part(data, "0:2") == b"ved" and part(data, "99") == "BadIndexRangeNoData"
        assert part(text, "0") == "F" and part(text, "1:2") == "ü"
        assert part(text, "1") == "BadIndexRangeNoData", "half a character, and no panic"
        assert part(names, "2") == ["urn:vedette:nodes"] and part(names, "9") == "BadIndexRangeNoData"
        assert part(ours("Cameras/line1/Camera Image"), "0:1") == b"\xff\xd8"
        assert part(tag("mode/EnumStrings"), "1")[0].Text == "slow"
        for scalar in ["sine", "switch"]:
            assert part(tag(scalar), "0") in ("BadIndexRangeInvalid", "BadIndexRangeNoData", "BadIndexRangeDataMismatch")
        on_a_name = read(client, value_id(profile, A.BrowseName, "0"))[0].StatusCode.name
        assert on_a_name in ("BadIndexRangeInvalid", "BadIndexRangeNoData", "BadIndexRangeDataMismatch")


def test_writes_follow_the_rules(vedette):
    point = tag("set_point")
    now = datetime.datetime.now(datetime.timezone.utc)
    with vedette.client() as client:
        assert write(client, point, double(10.0)) == "Good"
        for value, name in [
            (ua.Variant(1, ua.VariantType.Int32), "BadTypeMismatch"),
            (ua.Variant("1", ua.VariantType.String), "BadTypeMismatch"),
            (ua.Variant(1.0, ua.VariantType.Float), "BadTypeMismatch"),
            (double(1.0, 2.0), "BadTypeMismatch"),
            (ua.Variant(), "BadTypeMismatch"),
            (ua.DataValue(), "BadTypeMismatch"),
            (double(101.0), "BadOutOfRange"),
            (double(float("nan")), "BadOutOfRange"),
            (ua.DataValue(double(1.0), ServerTimestamp=now), "BadWriteNotSupported"),
            (ua.DataValue(double(1.0), ua.StatusCode(ua.StatusCodes.UncertainInitialValue)), "BadWriteNotSupported"),
            (ua.DataValue(double(1.0), ua.StatusCode(ua.StatusCodes.BadSensorFailure)), "BadWriteNotSupported"),
        ]:
            assert write(client, point, value) == name, (value, name)
        assert read(client, point)[0].Value.Value == 10.0
        assert write(client, point, ua.DataValue(double(11.0), ua.StatusCode(0))) == "Good"
        # Taken, for clients that cannot do otherwise; the time is that of the source all the same.
        old = now - datetime.timedelta(days=1)
        assert write(client, point, ua.DataValue(double(12.0), SourceTimestamp=old)) == "Good"
        assert read(client, point)[0].SourceTimestamp >= now
        assert write(client, tag("sine"), double(0.0)) == "BadNotWritable"
        assert write(client, point, ua.Variant("x", ua.VariantType.String), attribute=A.Description) == "BadNotWritable"
        assert write(client, ua.NodeId(O.Server_ServerStatus_State), ua.Variant(1, ua.VariantType.Int32)) == "BadNotWritable"
        assert [write(client, node, double(1.0)) for node in NOWHERE] == ["BadNodeIdUnknown"] * 3
        assert write(client, tag("switch"), ua.Variant(True)) == "Good"
        assert write(client, tag("mode"), ua.Variant(2, ua.VariantType.UInt32)) == "Good"
        assert write(client, tag("mode"), ua.Variant(3, ua.VariantType.UInt32)) == "BadOutOfRange"
        assert write(client, tag("text"), ua.Variant("Süd")) == "Good" and read(client, tag("text"))[0].Value.Value == "Süd"


def test_parts_are_written(vedette):
    profile, data = tag("profile"), tag("bytes")
    with vedette.client() as client:
        assert write(client, profile, double(5.0, 6.0), "1:2") == "Good"
        assert read(client, profile)[0].Value.Value == [10.0, 5.0, 6.0, 20.0, 10.0]
        assert write(client, profile, double(5.0, 6.0), "4:5") == "BadIndexRangeNoData"
        assert write(client, profile, double(5.0, 6.0), "0:2") == "BadIndexRangeDataMismatch"
        assert write(client, profile, double(5.0, 600.0), "0:1") == "BadOutOfRange"
        assert write(client, profile, double(1.0), "0") == "BadTypeMismatch"
        assert write(client, data, ua.Variant(b"V"), "0") == "Good" and read(client, data)[0].Value.Value == b"Vedette"
        assert write(client, tag("set_point"), double(1.0), "0") in ("BadWriteNotSupported", "BadIndexRangeInvalid")


def test_canary_a_malformed_index_range(vedette):
    """UA crate 0.19: a fault of the whole service. When this fails, upstream says BadIndexRangeInvalid for the one node:
    strike it from docs/upstream.md and ask for that here."""
    with vedette.client() as client:
        for bad in ["3:1", "1:1", "a", ":", "-1", "1,", "1:2:3"]:
            with pytest.raises(ua.uaerrors.BadDecodingError):
                read(client, value_id(tag("profile"), index_range=bad))


# Method


def test_calls_say_which_argument_is_wrong(vedette):
    camera, snapshot = ours("Cameras/line1"), ours("Cameras/line1/Snapshot")
    number = lambda value: ua.Variant(value, ua.VariantType.UInt32)
    good = [number(320), number(0), number(50), ua.Variant("jpeg")]
    with vedette.client() as client:
        result = call(client, camera, snapshot, *good)
        assert result.StatusCode.is_good() and picture(result.OutputArguments[0].Value).size == (320, 240)
        assert call(client, camera, snapshot, *good, number(1)).StatusCode.name == "BadTooManyArguments"
        wrong = call(client, camera, snapshot, number(1), ua.Variant("x"), number(101), ua.Variant("png"))
        assert wrong.StatusCode.name == "BadInvalidArgument"
        assert [r.name for r in wrong.InputArgumentResults] == ["Good", "BadTypeMismatch", "BadOutOfRange", "BadOutOfRange"]
        assert call(client, camera, ours("Cameras/absent/Snapshot")).StatusCode.name == "BadMethodInvalid"
        assert call(client, camera, ours("Cameras/line1/State")).StatusCode.name == "BadMethodInvalid"
        assert call(client, camera, ours("none")).StatusCode.name == "BadMethodInvalid"
        assert call(client, camera, ua.NodeId("x", 99)).StatusCode.name == "BadMethodInvalid"
        absent = call(client, ours("Cameras/absent"), ours("Cameras/absent/Snapshot"))
        assert absent.StatusCode.name == "BadNotConnected"


def test_the_methods_of_the_server(vedette):
    server, monitored = ua.NodeId(O.Server), ua.NodeId(O.Server_GetMonitoredItems)
    with vedette.client() as client:
        subscription = client.create_subscription(100, None)
        number = ua.Variant(subscription.aio_obj.subscription_id, ua.VariantType.UInt32)
        result = call(client, server, monitored, number)
        assert result.StatusCode.is_good() and [len(v.Value or []) for v in result.OutputArguments] == [0, 0]
        wrong = call(client, server, monitored, ua.Variant(4711, ua.VariantType.UInt32))
        assert wrong.StatusCode.name == "BadSubscriptionIdInvalid"
        assert call(client, server, monitored, number, number).StatusCode.name == "BadTooManyArguments"
        assert call(client, server, ua.NodeId(O.Server_ResendData), number).StatusCode.is_good()
