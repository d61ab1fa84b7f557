"""The address space by its types: CameraType, Data Access, units, and what the server says of itself."""

import datetime

import pytest
from asyncua import ua
from conftest import DEMO, child, wait_until
from raw import browse, read, value_id

O = ua.ObjectIds
MANDATORY, OPTIONAL = ua.NodeId(O.ModellingRule_Mandatory), ua.NodeId(O.ModellingRule_Optional)


def ours(path):
    return ua.NodeId(path, 2)


def type_of(client, node_id):
    found = browse(client, node_id, reference=ua.NodeId(O.HasTypeDefinition)).References
    assert len(found) == 1, found
    return found[0].NodeId


def members(client, node_id):
    """By browse name, "index:name": reference, node class and type definition of what is directly below."""
    result = browse(client, node_id, reference=ua.NodeId(O.HierarchicalReferences))
    assert result.StatusCode.is_good()
    return {
        r.BrowseName.to_string(): (r.ReferenceTypeId, r.NodeClass, r.TypeDefinition, r.NodeId)
        for r in result.References
        if r.ReferenceTypeId != ua.NodeId(O.HasSubtype)
    }


def rule_of(client, node_id):
    return browse(client, node_id, reference=ua.NodeId(O.HasModellingRule)).References[0].NodeId


def test_cameras_are_instances_of_their_type(vedette):
    """Each mandatory declaration is on each instance, the same in class, reference, type and attributes; and no more."""
    attributes = [ua.AttributeIds.DataType, ua.AttributeIds.ValueRank, ua.AttributeIds.AccessLevel]
    with vedette.client() as client:
        camera_type = ours("CameraType")
        up = browse(client, camera_type, ua.BrowseDirection.Inverse, ua.NodeId(O.HasSubtype)).References
        assert [r.NodeId for r in up] == [ua.NodeId(O.BaseObjectType)]
        down = browse(client, ua.NodeId(O.BaseObjectType), reference=ua.NodeId(O.HasSubtype)).References
        assert camera_type in [r.NodeId for r in down]
        declared = members(client, camera_type)
        assert {f"2:{name}" for name in ["Camera Image", "Snapshot", "State", "Format", "Controls"]} <= set(declared)
        for camera in ["line1", "absent"]:
            instance = ours(f"Cameras/{camera}")
            assert type_of(client, instance) == camera_type
            found = members(client, instance)
            assert set(found) <= set(declared)
            for name, (reference, node_class, definition, declaration) in declared.items():
                if rule_of(client, declaration) != MANDATORY:
                    assert name in ("2:Controls", "2:CameraLost") and rule_of(client, declaration) == OPTIONAL
                    continue
                assert found[name][:3] == (reference, node_class, definition), name
                if node_class == ua.NodeClass.Variable:
                    ids = [declaration, found[name][3]]
                    told = [[v.Value.Value for v in read(client, *[value_id(i, a) for a in attributes])] for i in ids]
                    assert told[0] == told[1], name
                    properties = [set(members(client, i)) for i in ids]
                    assert properties[0] == properties[1], name


@pytest.mark.parametrize(
    "tag, definition, properties",
    [
        ("demo/set_point", O.AnalogItemType, {"EURange", "EngineeringUnits"}),
        ("demo/profile", O.AnalogItemType, {"EURange", "EngineeringUnits"}),
        ("demo/sine", O.AnalogItemType, {"EURange"}),
        ("demo/switch", O.TwoStateDiscreteType, {"FalseState", "TrueState"}),
        ("demo/mode", O.MultiStateDiscreteType, {"EnumStrings"}),
        ("demo/counter", O.BaseDataVariableType, set()),
        ("system/memory/total", 17497, {"EngineeringUnits"}),
    ],
)
def test_tags_have_the_types_of_data_access(vedette, tag, definition, properties):
    with vedette.client() as client:
        node = ours(f"Tags/{tag}")
        assert type_of(client, node) == ua.NodeId(definition)
        found = members(client, node)
        assert set(found) == {f"0:{name}" for name in properties}
        for reference, node_class, kind, _ in found.values():
            assert (reference, kind) == (ua.NodeId(O.HasProperty), ua.NodeId(O.PropertyType))
            assert node_class == ua.NodeClass.Variable


def test_properties_say_what_the_tag_is(vedette):
    with vedette.client() as client:
        demo = child(client.nodes.objects, "Tags", "demo")

        def told(*path):
            node = child(demo, *path)
            return node.read_value(), node.read_data_type(), node.read_value_rank()

        unit, data_type, rank = told("set_point", "EngineeringUnits")
        assert (unit.UnitId, unit.DisplayName.Text, unit.Description.Text) == (20529, "%", "percent")
        assert unit.NamespaceUri == "http://www.opcfoundation.org/UA/units/un/cefact"
        assert (data_type, rank) == (ua.NodeId(O.EUInformation), -1)
        names, data_type, rank = told("mode", "EnumStrings")
        assert [name.Text for name in names] == ["stopped", "slow", "fast"]
        assert (data_type, rank) == (ua.NodeId(O.LocalizedText), 1)
        assert child(demo, "mode", "EnumStrings").read_attribute(ua.AttributeIds.ArrayDimensions).Value.Value == [3]
        assert told("switch", "TrueState")[0].Text == "on" and told("switch", "FalseState")[0].Text == "off"
        interval = child(demo, "sine").read_attribute(ua.AttributeIds.MinimumSamplingInterval)
        assert interval.Value.Value == 10.0
        profile = child(demo, "profile")
        assert (profile.read_value_rank(), profile.read_array_dimensions()) == (1, [0])


def test_namespaces_stay_where_they_are(make):
    """Over a restart and a changed configuration; ids are made of names."""
    vedette = make().start()
    ids = ["Tags/demo/sine", "Tags/demo/set_point/EURange", "Cameras/line1/Camera Image", "CameraType/State"]

    def told():
        with vedette.client() as client:
            known = [read(client, value_id(ours(i), ua.AttributeIds.BrowseName))[0].StatusCode.is_good() for i in ids]
            return client.get_namespace_array(), known

    before = told()
    assert before[0][2] == "urn:vedette:nodes" and len(before[0]) == 3 and all(before[1])
    assert vedette.stop() == 0
    other = vedette.config.read_text() + '[[simulator]]\nname = "another"\n[[camera]]\nname = "aa"\ndevice = "test-pattern"\n'
    vedette.config.write_text(other)
    vedette.start()
    assert told() == before


def test_each_namespace_is_described(vedette):
    with vedette.client() as client:
        array = client.get_namespace_array()
        metadata = client.get_node(ua.NodeId(O.Server_Namespaces)).get_children()
        names = [node.read_browse_name() for node in metadata]
        assert sorted((name.NamespaceIndex, name.Name) for name in names) == list(enumerate(array))
        for node, name in zip(metadata, names):
            assert type_of(client, node.nodeid) == ua.NodeId(O.NamespaceMetadataType)
            assert child(node, "NamespaceUri").read_value() == name.Name
            assert child(node, "IsNamespaceSubset").read_value() is False
            assert child(node, "NamespaceUri").read_node_class() == ua.NodeClass.Variable
        own = metadata[[name.Name for name in names].index("urn:vedette:nodes")]
        assert child(own, "NamespaceVersion").read_value()
        assert child(own, "NamespacePublicationDate").read_value() > datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
        assert child(own, "StaticNodeIdTypes").read_value() == [1], "IdType String"
        assert child(own, "StaticStringNodeIdPattern").read_value() == "CameraType%"


def server_value(client, object_id, timestamps=ua.TimestampsToReturn.Both):
    return read(client, ua.NodeId(object_id), timestamps=timestamps)[0]


def test_the_server_status_is_true(vedette):
    with vedette.client() as client:
        first = server_value(client, O.Server_ServerStatus).Value.Value
        assert first.State == ua.ServerState.Running
        now = datetime.datetime.now(datetime.timezone.utc)
        assert abs(now - first.CurrentTime) < datetime.timedelta(seconds=5)
        assert now - first.StartTime < datetime.timedelta(seconds=60)
        wait_until("time goes on", lambda: server_value(client, O.Server_ServerStatus).Value.Value.CurrentTime > first.CurrentTime)
        assert first.BuildInfo.ProductName == "Vedette" and first.BuildInfo.BuildDate.year >= 2026
        assert server_value(client, O.Server_ServerStatus_SecondsTillShutdown).Value.Value == 0
        current = server_value(client, O.Server_ServerStatus_CurrentTime)
        assert abs(current.SourceTimestamp - current.Value.Value) < datetime.timedelta(seconds=1)
        state = server_value(client, O.Server_ServerStatus_State)
        assert abs(state.ServerTimestamp - now) < datetime.timedelta(seconds=10), "when it was asked, not when it started"
        neither = server_value(client, O.Server_ServerStatus_State, ua.TimestampsToReturn.Neither)
        assert (neither.SourceTimestamp, neither.ServerTimestamp) == (None, None)


def test_no_variable_of_the_server_is_null(vedette):
    """What is not there is not shown; what is shown has a value of its DataType, or says why not."""
    unsupported = {O.Server_ServerDiagnostics_SubscriptionDiagnosticsArray, O.Server_ServerDiagnostics_SamplingIntervalDiagnosticsArray}
    unsupported |= {O.Server_ServerDiagnostics_SessionsDiagnosticsSummary_SessionDiagnosticsArray}
    unsupported |= {O.Server_ServerDiagnostics_SessionsDiagnosticsSummary_SessionSecurityDiagnosticsArray}
    with vedette.client() as client:
        todo, seen, nulls = [ua.NodeId(O.Server)], set(), []
        while todo:
            node = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            for r in browse(client, node, reference=ua.NodeId(O.HierarchicalReferences)).References:
                # Server is also notifier of our cameras, whose variables may be bad.
                if r.NodeId.NamespaceIndex != 0:
                    continue
                todo.append(r.NodeId)
                if r.NodeClass != ua.NodeClass.Variable or r.NodeId.Identifier in unsupported:
                    continue
                value, kind = read(client, r.NodeId, value_id(r.NodeId, ua.AttributeIds.DataType))
                # Optional: no rule of ours holds for the whole of namespace 0 (OPC 10000-5, 6.3.13).
                if r.BrowseName.Name in ("DefaultRolePermissions", "DefaultUserRolePermissions", "DefaultAccessRestrictions"):
                    continue
                if not value.StatusCode.is_good() or value.Value.VariantType == ua.VariantType.Null:
                    nulls.append((r.BrowseName.Name, r.NodeId, value.StatusCode.name))
                if kind.Value.Value == ua.NodeId(O.Duration):
                    assert value.Value.VariantType == ua.VariantType.Double, r.BrowseName
        assert nulls == []
        for node in unsupported:
            assert server_value(client, node).StatusCode.name == "BadNotSupported"


def test_capabilities_are_what_the_server_enforces(vedette):
    with vedette.client() as client:
        def limit(name):
            return server_value(client, getattr(O, f"Server_ServerCapabilities_{name}")).Value.Value

        assert limit("LocaleIdArray") == ["en"]
        assert "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary" in limit("ServerProfileArray")
        most = limit("OperationLimits_MaxNodesPerRead")
        # A short id: so many long ones are more than a request may have (`request_bytes`).
        node = ua.NodeId(O.Server)
        assert len(read(client, *[value_id(node, ua.AttributeIds.NodeId)] * most)) == most
        with pytest.raises(ua.uaerrors.BadTooManyOperations):
            read(client, *[value_id(node, ua.AttributeIds.NodeId)] * (most + 1))
        for _ in range(limit("MaxSubscriptionsPerSession")):
            client.create_subscription(1000, None)
        with pytest.raises(ua.uaerrors.BadTooManySubscriptions):
            client.create_subscription(1000, None)


def test_diagnostics_count(vedette):
    def summary(client):
        return server_value(client, O.Server_ServerDiagnostics_ServerDiagnosticsSummary).Value.Value

    with vedette.client() as client:
        assert server_value(client, O.Server_ServerDiagnostics_EnabledFlag).Value.Value is True
        before = summary(client)
        assert before.CurrentSessionCount == 1
        with vedette.client() as other:
            other.get_namespace_array()
            subscription = other.create_subscription(500, None)
            during = summary(client)
            assert (during.CurrentSessionCount, during.CurrentSubscriptionCount) == (2, 1)
            assert during.PublishingIntervalCount == 1
            assert during.CumulatedSessionCount == before.CumulatedSessionCount + 1
            assert during.CumulatedSubscriptionCount == before.CumulatedSubscriptionCount + 1
            subscription.delete()
        after = summary(client)
        assert (after.CurrentSessionCount, after.CurrentSubscriptionCount) == (1, 0)
        alone = server_value(client, O.Server_ServerDiagnostics_ServerDiagnosticsSummary_CurrentSessionCount)
        assert alone.Value.Value == 1
