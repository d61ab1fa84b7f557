"""Computed tags with alarms, and sensors found in a made sysfs tree, seen by asyncua."""

import shutil
import signal

import pytest
from asyncua import ua
from conftest import DEMO, child, wait_until
from test_events import Events, alarms, name, refresh, state

CALC = """
[[computed]]
name = "calc"
interval = "50ms"
[[computed.tag]]
name = "power"
expression = "{demo/set_point} * 2 + 0 * {demo/sine}"
unit = "kW"
range = [0, 200]
limit = { high_high = 150, high = 120, hysteresis = 10, severity = 333 }
[[computed.tag]]
name = "ratio"
expression = "{calc/power} / ({demo/set_point} - 50)"
[[computed.tag]]
name = "label"
expression = 'if({demo/switch}, "on ", "off ") + text({demo/mode})'
[[computed.tag]]
name = "later"
expression = "{more stuff/counter} > 0"
"""
MORE = '[[simulator]]\nname = "more stuff"\ninterval = "100ms"\n'


def tag(client, *path):
    return child(client.nodes.objects, "Tags", *path)


def status(node) -> str:
    value = node.read_data_value(raise_on_bad_status=False)
    return value.StatusCode.name if value.StatusCode else "Good"


def write(node, value, kind=ua.VariantType.Double):
    node.write_value(ua.DataValue(ua.Variant(value, kind)))


def reload(vedette, config: str):
    vedette.config.write_text(config.replace("{port}", str(vedette.port)))
    vedette.process.send_signal(signal.SIGHUP)


def test_computed_tags_follow_what_they_need(make):
    vedette = make(DEMO + CALC).start()
    with vedette.client() as client:
        power, ratio, label = (tag(client, "calc", one) for one in ("power", "ratio", "label"))
        wait_until("the first values", lambda: status(power) == "Good" and power.read_value() == 100.0)
        assert child(power, "EngineeringUnits").read_value().DisplayName.Text == "kW"
        assert child(power, "EURange").read_value().High == 200.0
        wait_until("a division by zero", lambda: status(ratio) == "BadOutOfRange")
        write(tag(client, "demo", "set_point"), 40.0)
        wait_until("both in one go", lambda: status(ratio) == "Good" and ratio.read_value() == -8.0)
        assert label.read_data_type_as_variant_type() == ua.VariantType.String
        assert label.read_value() == "off 0"
        write(tag(client, "demo", "switch"), True, ua.VariantType.Boolean)
        write(tag(client, "demo", "mode"), 2, ua.VariantType.UInt32)
        wait_until("the text", lambda: label.read_value() == "on 2")
        with pytest.raises(ua.UaStatusCodeError):
            write(power, 1.0)

        # A tag that comes and goes with its source.
        later = tag(client, "calc", "later")
        assert status(later) == "BadNodeIdUnknown"
        reload(vedette, DEMO + CALC + MORE)
        wait_until("what came later", lambda: status(later) == "Good" and later.read_value() is True)
        reload(vedette, DEMO + CALC)
        wait_until("what went again", lambda: status(later) == "BadNodeIdUnknown")
        assert power.read_value() == 80.0, "the rest went on"

        # Refused as a whole, with the cycle named.
        reload(vedette, (DEMO + CALC).replace('"{demo/set_point} * 2', '"{calc/ratio} * 2'))
        wait_until("the fault", lambda: vedette.says("it needs itself: calc/power -> calc/ratio -> calc/power"))
        assert power.read_value() == 80.0 and status(power) == "Good"


def test_a_limit_is_an_event_and_a_condition(make):
    vedette = make(DEMO + CALC).start()
    with vedette.client() as client:
        power = tag(client, "calc", "power")
        limit = child(client.nodes.objects, "Device", "calc/power Limit")
        assert limit.read_type_definition() == ua.NodeId(ua.ObjectIds.ExclusiveLevelAlarmType)
        assert child(limit, "HighHighLimit").read_value() == 150.0 and child(limit, "HighLimit").read_value() == 120.0
        assert state(limit) == (False, True, False)
        assert child(limit, "InputNode").read_value() == power.nodeid
        assert limit in power.get_referenced_nodes(refs=ua.ObjectIds.HasCondition)
        # No limit, no node.
        assert "LowLimit" not in [one.read_browse_name().Name for one in limit.get_children()]

        events, subscription, _ = alarms(client)
        write(tag(client, "demo", "set_point"), 65.0)
        wait_until("the alarm", lambda: events.of("calc/power"))
        event = events.of("calc/power", "ExclusiveLevelAlarmType")[0]
        assert event.Severity == 333 and event.SourceNode == power.nodeid
        assert event.Message.Text == "calc/power is above its high limit of 120 kW: 130"
        wait_until("it is active", lambda: state(limit) == (True, False, True))
        assert child(limit, "LimitState", "CurrentState").read_value().Text == "High"
        limit.call_method(
            ua.NodeId(9111), ua.Variant(event.EventId, ua.VariantType.ByteString), ua.LocalizedText("seen")
        )
        wait_until("acknowledged", lambda: state(limit) == (True, True, True))

        # Another tag of the table becomes another: the alarm goes on, and nobody has to see it again.
        other = CALC.replace('"on "', '"On "')
        reload(vedette, DEMO + other)
        write(tag(client, "demo", "switch"), True, ua.VariantType.Boolean)
        label = tag(client, "calc", "label")
        wait_until("the other text", lambda: status(label) == "Good" and label.read_value().startswith("On"))
        wait_until("the same value", lambda: status(power) == "Good" and power.read_value() == 130.0)
        assert state(limit) == (True, True, True) and said(events) == {event.Message.Text}
        # Another limit is another alarm.
        reload(vedette, DEMO + other.replace("high = 120", "high = 110, low = 1"))
        wait_until("its limits", lambda: "LowLimit" in names(limit))
        wait_until("it is active anew", lambda: state(limit) == (True, False, True))
        wait_until("why", lambda: "its limits have changed" in said(events))
        reload(vedette, DEMO + CALC)
        wait_until("as it was", lambda: "HighLimit" in names(limit) and "LowLimit" not in names(limit))
        wait_until("active again", lambda: state(limit) == (True, False, True))
        # Only one table may look after a tag.
        twice = '[[computed]]\nname = "more"\n[[computed.limit]]\ntag = "calc/power"\nhigh = 5\n'
        reload(vedette, DEMO + CALC + twice)
        wait_until("the fault", lambda: vedette.says("calc/power has limits already"))
        last = child(limit, "EventId").read_value()
        limit.call_method(
            ua.NodeId(9111), ua.Variant(last, ua.VariantType.ByteString), ua.LocalizedText("seen")
        )
        wait_until("acknowledged again", lambda: state(limit) == (True, True, True))

        write(tag(client, "demo", "set_point"), 80.0)
        wait_until("worse", lambda: state(limit) == (True, False, True))
        assert child(limit, "LimitState", "CurrentState", "Id").read_value() == ua.NodeId(9329)
        # Who comes later is told.
        late = Events()
        later = client.create_subscription(50, late)
        later.subscribe_events(ua.ObjectIds.Server, ua.ObjectIds.ExclusiveLevelAlarmType)
        refresh(client, later)
        wait_until("the refresh", lambda: [one for one in late.events if name(one) == "ExclusiveLevelAlarmType"])

        # Within the hysteresis it stays.
        write(tag(client, "demo", "set_point"), 56.0)
        wait_until("milder", lambda: child(limit, "LimitState", "CurrentState").read_value().Text == "High")
        write(tag(client, "demo", "set_point"), 50.0)
        wait_until("over", lambda: state(limit) == (False, False, True))
        assert child(limit, "LimitState", "CurrentState", "Id").read_value() in (None, ua.NodeId())

        # Gone with its table, and there again with another limit.
        reload(vedette, DEMO)
        wait_until("it is gone", lambda: "calc/power Limit" not in of_device(client))
        reload(vedette, DEMO + CALC.replace("high = 120", "high = 90"))
        wait_until("it is there", lambda: "calc/power Limit" in of_device(client))
        limit = child(client.nodes.objects, "Device", "calc/power Limit")
        wait_until("it is active", lambda: state(limit) == (True, False, True))
        assert child(limit, "HighLimit").read_value() == 90.0


def said(events):
    return {one.Message.Text for one in events.of("calc/power", "ExclusiveLevelAlarmType")}


def names(node):
    """Of its children, in one request, because they may go."""
    return [one.BrowseName.Name for one in node.get_children_descriptions()]


def of_device(client):
    return names(child(client.nodes.objects, "Device"))


def test_sensors_are_found_and_come_and_go(make, tmp_path):
    sysfs = tmp_path / "sys"

    def tree(files):
        for path, text in files.items():
            file = sysfs / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    board = {"class/hwmon/hwmon2/name": "nct6775\n", "class/hwmon/hwmon2/temp1_input": "48500\n"}
    tree(board | {"class/hwmon/hwmon2/temp1_label": "CPU / VRM\n", "class/hwmon/hwmon2/fan1_input": "1200\n"})
    converter = {
        "bus/iio/devices/iio:device0/name": "ads1115\n",
        "bus/iio/devices/iio:device0/in_voltage0_raw": "1000\n",
        "bus/iio/devices/iio:device0/in_voltage_scale": "3.0\n",
    }
    config = f'{DEMO}[[sensors]]\nname = "found"\ninterval = "100ms"\nsysfs = "{sysfs}"\nexclude = ["**/fan*"]\n'
    vedette = make(config).start()
    with vedette.client() as client:
        cpu = tag(client, "found", "hwmon", "nct6775", "CPU - VRM")
        wait_until("a reading", lambda: status(cpu) == "Good" and cpu.read_value() == 48.5)
        assert child(cpu, "EngineeringUnits").read_value().DisplayName.Text == "°C"
        assert len(tag(client, "found", "hwmon", "nct6775").get_children()) == 1

        events = Events()
        client.create_subscription(50, events).subscribe_events(ua.ObjectIds.Server, ua.ObjectIds.BaseEventType)
        tree(converter)
        wait_until("a new device", lambda: "iio" in [one.read_browse_name().Name for one in tag(client, "found").get_children()])
        voltage = tag(client, "found", "iio", "ads1115", "voltage0")
        wait_until("its value", lambda: status(voltage) == "Good" and voltage.read_value() == 3.0)

        shutil.rmtree(sysfs / "bus/iio/devices/iio:device0")
        wait_until("it is lost", lambda: status(voltage) == "BadNotConnected")
        wait_until("the event", lambda: events.of(kind="SourceLostEventType"))
        assert status(cpu) == "Good"
        tree(converter | {"bus/iio/devices/iio:device0/in_voltage0_raw": "500\n"})
        wait_until("it is back", lambda: status(voltage) == "Good" and voltage.read_value() == 1.5)
        wait_until("its event", lambda: events.of(kind="SourceBackEventType"))
        tree({"class/hwmon/hwmon2/temp1_fault": "1"})
        reload(vedette, config.replace("100ms", "200ms", 2))
        wait_until("the fault", lambda: status(cpu) == "BadSensorFailure")


def test_the_device_tells_of_its_network_disks_and_cameras(make):
    vedette = make().start()
    with vedette.client() as client:
        slot = tag(client, "system", "firmware", "slot")
        wait_until("a look", lambda: status(slot) != "BadWaitingForInitialData")
        cameras = {one: tag(client, "system", "cameras", one) for one in ("idle", "disconnected")}
        wait_until("the cameras", lambda: [one.read_value() for one in cameras.values()] == [1, 1])
        assert tag(client, "system", "disk", "read_only").read_value() is False
        # Whatever interfaces this machine has, and none of its own.
        folders = {one.read_browse_name().Name: one for one in tag(client, "system").get_children()}
        if "network" in folders:
            for interface in folders["network"].get_children():
                assert child(interface, "up").read_value() in (True, False)
                assert interface.read_browse_name().Name != "lo"
