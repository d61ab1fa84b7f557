"""Events, alarms and conditions, and the methods for operation, seen by asyncua, the old `opcua` package and node-opcua."""

import datetime
import sys

import pytest
from asyncua import ua
from conftest import DEMO, child, wait_until
from opcua import Client as OldClient
from test_pipe import CAMERA

CONFIG = """
[device]
name = "vedette-test"
[ua_server]
listen = "127.0.0.1:{port}"
insecure_on_loopback = true
anonymous = "ROLE"
[cameras]
discover = false
linger = "300ms"
[[camera]]
name = "line1"
device = "pipe"
command = ["PROGRAM"]
[[camera]]
name = "line2"
device = "test-pattern"
[system]
interval = "200ms"
SYSTEM
"""

CONDITION_REFRESH, CONDITION_REFRESH_2 = ua.NodeId(3875), ua.NodeId(12912)
ACKNOWLEDGE, ADD_COMMENT, ENABLE, DISABLE = ua.NodeId(9111), ua.NodeId(9029), ua.NodeId(9027), ua.NodeId(9028)


class Events:
    """Collects the events of a subscription."""

    def __init__(self):
        self.events = []

    def event_notification(self, event):
        self.events.append(event)

    def datachange_notification(self, node, value, data):
        """The crate's BadWaitingForInitialData of an item on events; see docs/upstream.md."""

    def of(self, source=None, kind=None):
        """Names of the types, or the events of one type."""
        found = [event for event in self.events if source is None or event.SourceName == source]
        return [event for event in found if name(event) == kind] if kind else [name(event) for event in found]


def name(event) -> str:
    """Of its type."""
    identifier = event.EventType.Identifier
    return identifier if isinstance(identifier, str) else ua.ObjectIdNames[identifier]


class Line:
    """The firmware with a camera whose program can be taken away and put back: unplugged, plugged in."""

    def __init__(self, make, folder, more="", role="admin"):
        self.program = folder / "camera"
        self.hidden = folder / "unplugged"
        self.program.write_text(f"#!{sys.executable}\n{CAMERA}")
        self.program.chmod(0o755)
        if "disk_nearly_full" not in more:  # else it is the machine's own disk that decides what the tests see
            more = f"disk_nearly_full = 100.0\n{more}"
        config = CONFIG.replace("PROGRAM", str(self.program)).replace("SYSTEM", more).replace("ROLE", role)
        self.vedette = make(config)

    def unplug(self):
        self.program.rename(self.hidden)

    def plug_in(self):
        self.hidden.rename(self.program)


@pytest.fixture
def line(make, tmp_path):
    line = Line(make, tmp_path)
    line.vedette.start()
    return line


def subscribe(client, node=ua.ObjectIds.Server, types=ua.ObjectIds.BaseEventType, interval=50, **more):
    events = Events()
    subscription = client.create_subscription(interval, events)
    handle = subscription.subscribe_events(node, types, **more)
    return events, subscription, handle


def alarms(client, **more):
    return subscribe(client, types=ua.ObjectIds.AlarmConditionType, **more)


def refresh(client, subscription):
    number = ua.Variant(subscription.aio_obj.subscription_id, ua.VariantType.UInt32)
    client.get_node(ua.ObjectIds.ConditionType).call_method(CONDITION_REFRESH, number)


def of_camera(client, camera, *path):
    return child(client.nodes.objects, "Cameras", camera, *path)


def event_id(value):
    return ua.Variant(value, ua.VariantType.ByteString)


def state(condition):
    """(active, acknowledged, retained)"""
    ids = (("ActiveState", "Id"), ("AckedState", "Id"), ("Retain",))
    return tuple(child(condition, *path).read_value() for path in ids)


def test_a_camera_that_comes_and_goes_is_an_event_for_who_looks_at_it_or_above(line):
    with line.vedette.client() as client:
        server, _, _ = subscribe(client)
        cameras, _, _ = subscribe(client, child(client.nodes.objects, "Cameras"))
        line1, _, _ = subscribe(client, of_camera(client, "line1"))
        line2, _, _ = subscribe(client, of_camera(client, "line2"))
        device, _, _ = subscribe(client, child(client.nodes.objects, "Device"))
        line.unplug()
        wait_until("the loss", lambda: "CameraDisconnectedEventType" in line1.of())
        line.plug_in()
        wait_until("the return", lambda: "CameraConnectedEventType" in line1.of())
        for events in (server, cameras):
            wait_until("all of it above", lambda events=events: events.of("line1") == line1.of())
        assert line1.of() == [
            "OffNormalAlarmType", "CameraDisconnectedEventType", "OffNormalAlarmType", "CameraConnectedEventType",
        ]
        assert line2.events == [] and device.events == []
        lost = line1.of(kind="CameraDisconnectedEventType")[0]
        assert lost.Severity == 700 and str(line.program) in lost.Message.Text
        assert lost.SourceNode == of_camera(client, "line1").nodeid and len(lost.EventId) == 16
        assert abs(datetime.datetime.now(datetime.timezone.utc) - lost.Time) < datetime.timedelta(seconds=30)
        assert line1.of(kind="CameraConnectedEventType")[0].Severity == 100
        assert len({event.EventId for event in server.events}) == len(server.events)


def test_a_camera_that_flaps_is_no_storm(line):
    with line.vedette.client() as client:
        events, _, _ = subscribe(client, of_camera(client, "line1"))
        for _ in range(5):
            line.unplug()
            wait_until("gone", lambda: of_camera(client, "line1", "State").read_value() == "failed")
            line.plug_in()
            wait_until("back", lambda: of_camera(client, "line1", "State").read_value() == "idle")
        # One was said at the start: that it is connected.
        said = [kind for kind in events.of() if kind.startswith("Camera")]
        assert said == ["CameraDisconnectedEventType", "CameraConnectedEventType"]
        assert not of_camera(client, "line1", "CameraLost", "ActiveState", "Id").read_value(), "and it is as it was said"


def test_a_condition_is_active_acknowledged_and_over(line):
    with line.vedette.client() as client:
        events, _, _ = alarms(client)
        condition = of_camera(client, "line1", "CameraLost")
        assert state(condition) == (False, True, False)
        line.unplug()
        wait_until("the alarm", lambda: events.events)
        lost = events.events[0]
        assert (lost.NodeId, lost.ConditionName, lost.Retain) == (condition.nodeid, "CameraLost", True)
        assert (getattr(lost, "ActiveState/Id"), getattr(lost, "AckedState/Id")) == (True, False)
        assert (lost.ActiveState.Text, lost.AckedState.Text, lost.EnabledState.Text) == (
            "Active", "Unacknowledged", "Enabled",
        )
        assert (lost.BranchId, lost.SuppressedOrShelved, lost.Severity) == (ua.NodeId(), False, 700)
        assert lost.InputNode == of_camera(client, "line1", "State").nodeid
        assert state(condition) == (True, False, True)

        with pytest.raises(ua.uaerrors.BadEventIdUnknown):
            condition.call_method(ACKNOWLEDGE, event_id(b"x" * 16), ua.LocalizedText("?"))
        with pytest.raises(ua.uaerrors.BadArgumentsMissing):
            condition.call_method(ACKNOWLEDGE, event_id(lost.EventId))
        condition.call_method(ACKNOWLEDGE, event_id(lost.EventId), ua.LocalizedText("seen", "en"))
        acked = wait_until("the acknowledgement", lambda: events.events[1:])[0]
        assert getattr(acked, "AckedState/Id") and acked.Comment.Text == "seen" and acked.Retain
        with pytest.raises(ua.uaerrors.BadConditionBranchAlreadyAcked):
            condition.call_method(ACKNOWLEDGE, event_id(acked.EventId), ua.LocalizedText("again"))
        line.plug_in()
        over = wait_until("the end", lambda: events.events[2:])[0]
        assert not getattr(over, "ActiveState/Id") and not over.Retain
        assert state(condition) == (False, True, False)
        # By the method's own place below the instance, too.
        with pytest.raises(ua.uaerrors.BadConditionBranchAlreadyAcked):
            found = condition.get_child(["0:Acknowledge"])
            condition.call_method(found.nodeid, event_id(over.EventId), ua.LocalizedText("again"))


def test_a_condition_can_be_commented_and_disabled(line):
    with line.vedette.client() as client:
        events, _, _ = alarms(client)
        condition = of_camera(client, "line1", "CameraLost")
        with pytest.raises(ua.uaerrors.BadConditionAlreadyEnabled):
            condition.call_method(ENABLE)
        condition.call_method(DISABLE)
        wait_until("that it is disabled", lambda: events.events)
        assert events.events[0].EnabledState.Text == "Disabled"
        line.unplug()
        wait_until("gone", lambda: of_camera(client, "line1", "State").read_value() == "failed")
        condition.call_method(ENABLE)
        enabled = wait_until("that it is enabled", lambda: events.events[1:])[0]
        assert getattr(enabled, "ActiveState/Id") and enabled.Retain, "what happened meanwhile is not forgotten"
        condition.call_method(ADD_COMMENT, event_id(enabled.EventId), ua.LocalizedText("on its way"))
        assert wait_until("the comment", lambda: events.events[2:])[0].Comment.Text == "on its way"
        with pytest.raises(ua.uaerrors.BadNodeIdUnknown):
            of_camera(client, "line1").call_method(ENABLE)


def test_who_comes_later_is_shown_what_is_off_normal(line):
    line.unplug()
    with line.vedette.client() as client:
        wait_until("the alarm", lambda: of_camera(client, "line1", "CameraLost", "Retain").read_value())
    with line.vedette.client() as client:
        asked, subscription, handle = subscribe(client)
        other, _, _ = subscribe(client)
        on_line2, _, _ = subscribe(client, of_camera(client, "line2"))
        refresh(client, subscription)
        expected = ["RefreshStartEventType", "OffNormalAlarmType", "RefreshEndEventType"]
        wait_until("the conditions", lambda: asked.of() == expected)
        assert asked.events[1].SourceName == "line1"
        # A filter that wants alarms only gets the start and the end all the same.
        filtered, subscription2, handle2 = alarms(client)
        numbers = [ua.Variant(n, ua.VariantType.UInt32) for n in (subscription2.aio_obj.subscription_id, handle2)]
        client.get_node(ua.ObjectIds.ConditionType).call_method(CONDITION_REFRESH_2, *numbers)
        wait_until("the conditions", lambda: filtered.of() == expected)
        assert other.events == [] and on_line2.events == [] and len(asked.events) == 3
        with pytest.raises(ua.uaerrors.BadSubscriptionIdInvalid):
            wrong = ua.Variant(99999, ua.VariantType.UInt32)
            client.get_node(ua.ObjectIds.ConditionType).call_method(CONDITION_REFRESH, wrong)
        with pytest.raises(ua.uaerrors.BadMonitoredItemIdInvalid):
            client.get_node(ua.ObjectIds.ConditionType).call_method(CONDITION_REFRESH_2, numbers[0], wrong)


def element(operator, *operands):
    part = ua.ContentFilterElement()
    part.FilterOperator = operator
    part.FilterOperands = list(operands)
    return part


def field(*path, kind=ua.ObjectIds.BaseEventType, attribute=ua.AttributeIds.Value):
    operand = ua.SimpleAttributeOperand()
    operand.TypeDefinitionId = ua.NodeId(kind) if isinstance(kind, int) else kind
    operand.BrowsePath = [ua.QualifiedName(name, 0) for name in path]
    operand.AttributeId = attribute
    return operand


def literal(value, kind=None):
    return ua.LiteralOperand(Value=ua.Variant(value, kind))


def event_filter(select, *elements):
    made = ua.EventFilter()
    made.SelectClauses = list(select)
    made.WhereClause.Elements = list(elements)
    return made


OPERATOR = ua.FilterOperator
SELECT = [field("EventType"), field("SourceName"), field("Severity")]
CAMERA_LOST = ua.NodeId("CameraDisconnectedEventType", 2)


@pytest.mark.parametrize("where, wanted", [
    ([element(OPERATOR.OfType, literal(CAMERA_LOST))], ["CameraDisconnectedEventType"]),
    ([element(OPERATOR.OfType, literal(ua.NodeId(ua.ObjectIds.DeviceFailureEventType)))], ["CameraDisconnectedEventType"]),
    ([element(OPERATOR.OfType, literal(ua.NodeId(ua.ObjectIds.ConditionType)))], ["OffNormalAlarmType"] * 2),
    ([element(OPERATOR.GreaterThan, field("Severity"), literal(699, ua.VariantType.UInt16))],
     ["OffNormalAlarmType", "CameraDisconnectedEventType", "OffNormalAlarmType"]),
    ([element(OPERATOR.LessThanOrEqual, field("Severity"), literal(100, ua.VariantType.Int32))], ["CameraConnectedEventType"]),
    ([element(OPERATOR.Equals, field("EventType"), literal(CAMERA_LOST))], ["CameraDisconnectedEventType"]),
    ([element(OPERATOR.Equals, field("SourceName"), literal("line2"))], []),
    ([element(OPERATOR.Like, field("Message"), literal("%is connect__"))], ["CameraConnectedEventType"]),
    ([element(OPERATOR.And, ua.ElementOperand(1), ua.ElementOperand(2)),
      element(OPERATOR.Equals, field("SourceName"), literal("line1")),
      element(OPERATOR.Not, ua.ElementOperand(3)),
      element(OPERATOR.OfType, literal(ua.NodeId(ua.ObjectIds.ConditionType)))],
     ["CameraDisconnectedEventType", "CameraConnectedEventType"]),
    ([element(OPERATOR.Equals, field("ActiveState", "Id", kind=ua.ObjectIds.AlarmConditionType), literal(True))],
     ["OffNormalAlarmType"]),
])
def test_filters_let_through_what_they_say(line, where, wanted):
    with line.vedette.client() as client:
        plain, _, _ = subscribe(client)
        filtered, _, _ = subscribe(client, evfilter=event_filter(SELECT, *where))
        line.unplug()
        wait_until("the loss", lambda: len(plain.events) == 2)
        line.plug_in()
        wait_until("the return", lambda: len(plain.events) == 4)
        wait_until(f"{wanted}, not {filtered.of()}", lambda: filtered.of() == wanted)


def create(client, evfilter, attribute=ua.AttributeIds.EventNotifier, node=ua.ObjectIds.Server):
    """A monitored item as the service answers it."""
    subscription = client.create_subscription(50, Events())
    request = ua.MonitoredItemCreateRequest()
    request.ItemToMonitor = ua.ReadValueId(ua.NodeId(node), attribute)
    request.MonitoringMode = ua.MonitoringMode.Reporting
    request.RequestedParameters.Filter = evfilter
    request.RequestedParameters.QueueSize = 10
    parameters = ua.CreateMonitoredItemsParameters()
    parameters.SubscriptionId = subscription.aio_obj.subscription_id
    parameters.ItemsToCreate = [request]
    return client.tloop.post(client.aio_obj.uaclient.create_monitored_items(parameters))[0]


def test_a_bad_filter_is_refused_and_says_where(line):
    with line.vedette.client() as client:
        one_operand = element(OPERATOR.Equals, field("Severity"))
        good = element(OPERATOR.OfType, literal(CAMERA_LOST))
        outside = element(OPERATOR.Not, ua.ElementOperand(9))
        for where, place in (([one_operand], 0), ([good, one_operand], 1), ([outside], 0)):
            result = create(client, event_filter(SELECT, *where))
            assert result.StatusCode.is_bad()
            parts = result.FilterResult.WhereClauseResult.ElementResults
            assert [part.StatusCode.is_good() for part in parts] == [n != place for n in range(len(where))]
        unknown = create(client, event_filter([field("Severity", kind=ua.NodeId("nothing", 2))]))
        assert unknown.FilterResult.SelectClauseResults[0].name == "BadNodeIdUnknown"


def test_what_an_event_does_not_have_is_null_and_shifts_nothing(line):
    with line.vedette.client() as client:
        select = [
            field("NoSuchField"),
            field("SourceName"),
            field("Retain", kind=ua.ObjectIds.ConditionType),
            # Inherited, and asked of a type that does not declare it itself.
            field("Severity", kind=ua.ObjectIds.DeviceFailureEventType),
        ]
        events, _, _ = subscribe(client, evfilter=event_filter(select))
        line.unplug()
        wait_until("both", lambda: len(events.events) == 2)
        alarm, lost = ([value.Value for value in event.event_fields] for event in events.events)
        assert alarm == [None, "line1", True, None] and lost == [None, "line1", None, 700]


def test_a_short_queue_loses_nothing_and_an_overflow_is_said(line):
    line.unplug()
    with line.vedette.client() as client:
        condition = of_camera(client, "line1", "CameraLost")
        wait_until("the alarm", lambda: condition.get_child(["0:Retain"]).read_value())
        current = condition.get_child(["0:EventId"])
        # The client asks for queues of 0 and of 1; all that happens in one publishing interval comes, in order.
        slow, _, _ = alarms(client, interval=300)
        one, _, _ = alarms(client, interval=300, queuesize=1)
        silent, subscription, _ = alarms(client, interval=50, queuesize=10)
        texts = [str(n) for n in range(8)]
        for text in texts:
            condition.call_method(ADD_COMMENT, event_id(current.read_value()), ua.LocalizedText(text))
        for events in (slow, one):
            wait_until("all comments", lambda events=events: [e.Comment.Text for e in events.events] == texts)
        wait_until("the first comments", lambda: len(silent.events) == 8)
        parameters = ua.SetPublishingModeParameters()
        parameters.SubscriptionIds = [subscription.aio_obj.subscription_id]
        parameters.PublishingEnabled = False
        client.tloop.post(client.aio_obj.uaclient.set_publishing_mode(parameters))
        for n in range(300):
            condition.call_method(ADD_COMMENT, event_id(current.read_value()), ua.LocalizedText(str(n)))
        parameters.PublishingEnabled = True
        client.tloop.post(client.aio_obj.uaclient.set_publishing_mode(parameters))
        wait_until("the last", lambda: silent.events[-1].Comment and silent.events[-1].Comment.Text == "299")
        kinds = silent.of()[8:]
        assert kinds.count("EventQueueOverflowEventType") == 1 and len(kinds) < 300


def test_what_happened_can_be_read_later(line):
    line.vedette.stop()
    (line.vedette.data / "version").write_text("0.0.1")
    line.vedette.start()
    with line.vedette.client() as client:
        line.unplug()
        lines = child(client.nodes.objects, "Device", "Events")
        wait_until("the loss", lambda: any("CameraDisconnected" in text for text in lines.read_value()))
        said = "\n".join(lines.read_value())
        assert "ConfigurationApplied" in said and "UpdateInstalled" in said and "CameraLost of cameras/line1" in said
        server = client.nodes.server
        began, now = datetime.datetime(2026, 1, 1), datetime.datetime.now(datetime.timezone.utc)
        history = server.read_event_history(began, now)
        assert [e.Message.Text for e in history] and len(history) == len(lines.read_value())
        update = [e for e in history if name(e) == "UpdateInstalledEventType"][0]
        assert update.SourceName == "system" and "0.0.1" in update.Message.Text and update.Severity == 200
        newest_first = server.read_event_history(endtime=now, numvalues=1000)
        assert [e.EventId for e in newest_first] == [e.EventId for e in history][::-1]
        alarms_only = server.read_event_history(began, now, evtypes=ua.ObjectIds.AlarmConditionType)
        assert [e.ConditionName for e in alarms_only] == ["CameraLost"]
        assert len(server.read_event_history(began, numvalues=2)) == 2
        with pytest.raises(ua.uaerrors.BadHistoryOperationInvalid):
            server.read_event_history(began)
    assert (line.vedette.data / "version").read_text().count(".") == 2


def test_a_disk_that_is_nearly_full_is_an_alarm(make, tmp_path):
    line = Line(make, tmp_path, "disk_nearly_full = 2.0")
    line.vedette.start()
    with line.vedette.client() as client:
        condition = child(client.nodes.objects, "Device", "DiskNearlyFull")
        wait_until("the alarm", lambda: state(condition) == (True, False, True))
        assert child(condition, "Message").read_value().Text.endswith("is more than 2 % full")
        assert child(condition, "SourceName").read_value() == "system"
        assert state(child(client.nodes.objects, "Device", "ClockNotSet"))[0] is False
    line = Line(make, tmp_path, "disk_nearly_full = 100.0")
    line.vedette.start()
    with line.vedette.client() as client:
        assert state(child(client.nodes.objects, "Device", "DiskNearlyFull")) == (False, True, False)


def test_a_broker_that_is_lost_and_back_is_two_events_and_a_condition(make, tmp_path, broker):
    line = Line(make, tmp_path, f'[mqtt]\nbroker = "mqtt://127.0.0.1:{broker.port}"')
    line.vedette.start()
    wait_until("the uplink", lambda: line.vedette.says("Connected to the MQTT broker"))
    with line.vedette.client() as client:
        events, _, _ = subscribe(client, child(client.nodes.objects, "Device"))
        condition = child(client.nodes.objects, "Device", "UplinkDown")
        assert state(condition) == (False, True, False)
        broker.kill()
        lost = wait_until("the loss", lambda: events.of("mqtt", "UplinkLostEventType"))[0]
        assert lost.Severity == 700 and str(broker.port) in lost.Message.Text
        assert state(condition) == (True, False, True)
        broker.start()
        wait_until("the return", lambda: events.of("mqtt", "UplinkBackEventType"))
        assert state(condition) == (False, False, True), "nobody has seen it yet"


def test_a_camera_is_restarted_and_says_if_that_does_not_help(line):
    with line.vedette.client() as client:
        camera = of_camera(client, "line1")
        assert camera.call_method("2:Restart") is None
        starts = line.vedette.text().count("Restarting the camera")
        assert starts == 1 and line.vedette.says("Capturing.")
        line.unplug()
        with pytest.raises(ua.uaerrors.BadConfigurationError):
            camera.call_method("2:Restart")
        with pytest.raises(ua.uaerrors.BadTooManyArguments):
            camera.call_method("2:Restart", 1)


def test_a_reload_is_answered_and_takes_conditions_with_it(make, tmp_path):
    line = Line(make, tmp_path, '[mqtt]\nbroker = "mqtt://127.0.0.1:1"')
    line.vedette.start()
    line.unplug()
    with line.vedette.client() as client:
        device = child(client.nodes.objects, "Device")
        names = lambda node: {c.read_browse_name().Name for c in node.get_children()}  # noqa: E731
        wait_until("the alarm of the uplink", lambda: state(child(device, "UplinkDown"))[0])
        lost = of_camera(client, "line1", "CameraLost")
        wait_until("the alarm of the camera", lambda: state(lost)[0])
        (events, _, _), (over, _, _) = subscribe(client), alarms(client)
        text = line.vedette.config.read_text()
        line.vedette.config.write_text(text.replace("[cameras]", "[camera]"))
        applied, message = device.call_method("2:ReloadConfiguration")
        assert applied is False and "vedette.toml" in message
        wait_until("that it was refused", lambda: events.of(kind="ConfigurationRefusedEventType"))
        head, rest = text.split("[[camera]]", 1)
        rest = "[[camera]]" + rest.split("[[camera]]", 1)[1]
        line.vedette.config.write_text((head + rest).split("[mqtt]")[0])
        applied, message = device.call_method("2:ReloadConfiguration")
        assert applied is True, message
        wait_until("that it was applied", lambda: events.of(kind="ConfigurationAppliedEventType"))
        wait_until("both are over", lambda: {e.ConditionName for e in over.events if not e.Retain} ==
                   {"CameraLost", "UplinkDown"})
        wait_until("no more instance", lambda: "UplinkDown" not in names(device))
        wait_until("no more camera", lambda: names(child(client.nodes.objects, "Cameras")) == {"line2"})


def test_each_method_wants_its_role(make, tmp_path):
    denied = ua.uaerrors.BadUserAccessDenied
    for role in ("viewer", "operator"):
        (tmp_path / role).mkdir()
        line = Line(make, tmp_path / role, role=role)
        line.vedette.start()
        with line.vedette.client() as client:
            camera, condition = of_camera(client, "line2"), of_camera(client, "line2", "CameraLost")
            assert camera.call_method("2:Snapshot")
            events, subscription, _ = subscribe(client)
            refresh(client, subscription)
            wait_until("the conditions", lambda: len(events.events) == 2)
            with pytest.raises(denied):
                child(client.nodes.objects, "Device").call_method("2:ReloadConfiguration")
            if role == "viewer":
                for method, arguments in ((DISABLE, []), (ACKNOWLEDGE, [event_id(b"x" * 16), ua.LocalizedText("?")])):
                    with pytest.raises(denied):
                        condition.call_method(method, *arguments)
                with pytest.raises(denied):
                    camera.call_method("2:Restart")
            else:
                camera.call_method("2:Restart")
                condition.call_method(DISABLE)


def test_of_what_one_may_not_read_one_does_not_hear(make, tmp_path):
    rules = '[[ua_server.access]]\npath = "Cameras/line1"\nread = "admin"\ncall = "admin"'
    line = Line(make, tmp_path, rules, role="operator")
    line.vedette.start()
    line.unplug()
    wait_until("the loss", lambda: line.vedette.says("Camera lost"))
    with line.vedette.client() as client:
        events, subscription, _ = subscribe(client)
        line.plug_in()
        with pytest.raises(ua.uaerrors.BadUserAccessDenied):
            of_camera(client, "line1", "CameraLost").call_method(DISABLE)
        of_camera(client, "line2", "CameraLost").call_method(DISABLE)
        wait_until("that of the other camera", lambda: events.of("line2"))
        refresh(client, subscription)
        wait_until("the end of the refresh", lambda: "RefreshEndEventType" in events.of())
        assert events.of("line1") == []
        began, now = datetime.datetime(2026, 1, 1), datetime.datetime.now(datetime.timezone.utc)
        sources = {event.SourceName for event in client.nodes.server.read_event_history(began, now)}
        assert "line2" in sources and "line1" not in sources


def test_the_tree_shows_types_notifiers_and_conditions(line):
    with line.vedette.client() as client:
        failures = client.get_node(ua.ObjectIds.DeviceFailureEventType).get_children(ua.ObjectIds.HasSubtype)
        names = {node.read_browse_name().Name for node in failures}
        assert {"CameraDisconnectedEventType", "CameraNoSignalEventType", "SourceLostEventType"} <= names
        notifiers = client.nodes.server.get_referenced_nodes(ua.ObjectIds.HasNotifier)
        assert {node.read_browse_name().Name for node in notifiers} >= {"Cameras", "Device"}
        camera = of_camera(client, "line1")
        assert camera.read_attribute(ua.AttributeIds.EventNotifier).Value.Value == 1
        assert client.nodes.server.read_attribute(ua.AttributeIds.EventNotifier).Value.Value == 1 | 4
        condition = camera.get_referenced_nodes(ua.ObjectIds.HasCondition)[0]
        assert condition.nodeid.to_string() == "ns=2;s=Cameras/line1/CameraLost"
        assert condition.read_type_definition() == ua.NodeId(ua.ObjectIds.OffNormalAlarmType)
        assert child(condition, "Time").read_data_type() == ua.NodeId(ua.ObjectIds.UtcTime)
        assert child(condition, "Severity").read_data_type() == ua.NodeId(ua.ObjectIds.UInt16)


def test_the_old_client_sees_events(line):
    client = OldClient(line.vedette.url)
    client.connect()
    try:
        events = Events()
        subscription = client.create_subscription(50, events)
        subscription.subscribe_events()
        line.unplug()
        wait_until("the loss", lambda: len(events.events) == 2)
        assert {event.Severity for event in events.events} == {700}
        assert {event.SourceName for event in events.events} == {"line1"}
        subscription.delete()
    finally:
        client.disconnect()
