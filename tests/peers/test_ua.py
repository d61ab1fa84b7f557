"""OPC UA, seen by asyncua: nodes, reads, writes, subscriptions, pictures on demand."""

import subprocess
import sys
import time

import pytest
from asyncua import ua
from conftest import DEMO, child, picture, wait_until


class Changes:
    """Collects the notifications of a subscription."""

    def __init__(self):
        self.values = []

    def datachange_notification(self, node, value, data):
        self.values.append(data.monitored_item.Value)


def image_of(client, camera="line1"):
    return child(client.nodes.objects, "Cameras", camera, "Camera Image")


def state_of(client, name, camera="line1"):
    return child(client.nodes.objects, "Cameras", camera, name).read_value()


def test_the_picture_is_where_users_of_the_sample_look_for_it(vedette):
    with vedette.client() as client:
        image = client.nodes.objects.get_child(["2:Camera Device", "2:Camera Image"])
        assert image == image_of(client), "one node in two places"
        assert picture(image.read_value()).size == (640, 480)
        assert image.read_data_type() == ua.NodeId(ua.ObjectIds.ImageJPG)
        assert image.read_value_rank() == ua.ValueRank.Scalar
        eu_range = image.get_child(["0:EURange"]).read_value()
        assert (eu_range.Low, eu_range.High) == (0, 100)


def test_names_and_node_ids_survive_a_restart(make):
    vedette = make().start()

    def ids():
        with vedette.client() as client:
            tag = child(client.nodes.objects, "Tags", "demo", "sine")
            return client.get_namespace_array(), tag.nodeid.to_string(), image_of(client).nodeid.to_string()

    before = ids()
    assert vedette.stop() == 0
    vedette.start()
    assert ids() == before
    assert before[1:] == ("ns=2;s=Tags/demo/sine", "ns=2;s=Cameras/line1/Camera Image")


def test_a_read_brings_a_new_picture_and_max_age_an_older_one(vedette):
    with vedette.client() as client:
        image = image_of(client)
        first, second = image.read_data_value(), image.read_data_value()
        assert second.SourceTimestamp > first.SourceTimestamp, "MaxAge 0 is a new picture"

        def read(max_age):
            parameters = ua.ReadParameters()
            parameters.MaxAge = max_age
            parameters.NodesToRead = [ua.ReadValueId(image.nodeid, ua.AttributeIds.Value)]
            return client.tloop.post(client.aio_obj.uaclient.read(parameters))[0]

        new = read(0)
        assert read(60_000).SourceTimestamp == new.SourceTimestamp
        assert read(0).SourceTimestamp > new.SourceTimestamp


def test_an_index_range_is_a_part_of_the_picture(vedette):
    with vedette.client() as client:
        image = image_of(client)
        parameters = ua.ReadParameters()
        parameters.NodesToRead = [ua.ReadValueId(image.nodeid, ua.AttributeIds.Value, "0:1")]
        value = client.tloop.post(client.aio_obj.uaclient.read(parameters))[0]
        assert value.Value.Value == b"\xff\xd8"


def test_nobody_watches_nothing_is_captured(vedette):
    with vedette.client() as client:
        assert state_of(client, "State") == "idle"
        image_of(client).read_value()
        assert state_of(client, "State") == "streaming"
        wait_until("idle again", lambda: state_of(client, "State") == "idle")
        captured = state_of(client, "FramesCaptured")
        time.sleep(0.5)
        assert state_of(client, "FramesCaptured") == captured

        changes = Changes()
        subscription = client.create_subscription(100, changes)
        subscription.subscribe_data_change(image_of(client))
        wait_until("pictures", lambda: len(changes.values) > 3)
        assert state_of(client, "State") == "streaming"
        subscription.delete()
        wait_until("idle after the subscription", lambda: state_of(client, "State") == "idle")


DYING_CLIENT = """
import sys, time
from asyncua import ua
from asyncua.sync import Client

class Handler:
    def datachange_notification(self, node, value, data):
        print("picture", flush=True)

client = Client(sys.argv[1])
client.connect()
# A short life: three keep-alives of one interval each.
subscription = client.create_subscription(ua.CreateSubscriptionParameters(100, 3, 1, 0, True, 0), Handler())
subscription.subscribe_data_change(client.nodes.objects.get_child(["2:Camera Device", "2:Camera Image"]))
time.sleep(600)
"""


def test_a_client_that_dies_takes_its_demand_with_it(vedette):
    with subprocess.Popen([sys.executable, "-c", DYING_CLIENT, vedette.url], stdout=subprocess.PIPE) as client:
        for _ in range(2):
            assert client.stdout.readline() == b"picture\n"
        # No goodbye.
        client.kill()
    with vedette.client() as other:
        wait_until("idle", lambda: state_of(other, "State") == "idle", 60)


@pytest.mark.parametrize("interval", [100, 200, 1000])
def test_each_item_gets_pictures_at_its_own_interval(vedette, interval):
    with vedette.client() as client:
        fast, own = Changes(), Changes()
        for changes, sampling in [(fast, 40), (own, interval)]:
            subscription = client.create_subscription(50, changes)
            subscription.subscribe_data_change(image_of(client), sampling_interval=sampling)
        wait_until("pictures", lambda: len(own.values) >= 5)
        stamps = [value.SourceTimestamp for value in own.values]
        gaps = [(b - a).total_seconds() for a, b in zip(stamps, stamps[1:])]
        # Whole intervals on the item's own grid; a busy machine may skip one, but none comes early.
        assert all(gap >= interval / 1000 - 0.001 for gap in gaps), gaps
        assert min(gaps) < 2 * interval / 1000, gaps
        for value in own.values:
            assert picture(value.Value.Value).size == (640, 480)


def test_an_item_at_the_publishing_interval_gets_pictures_and_values(vedette):
    """-1, the default of some clients. The crate would freeze their source timestamps, so they have none."""
    with vedette.client() as client:
        pictures, counts = Changes(), Changes()
        counter = child(client.nodes.objects, "Tags", "demo", "counter")
        for changes, node in [(pictures, image_of(client)), (counts, counter)]:
            client.create_subscription(200, changes).subscribe_data_change(node, sampling_interval=-1)
        wait_until("pictures", lambda: len(pictures.values) >= 4 and len(counts.values) >= 4)
        assert [value.SourceTimestamp for value in pictures.values[1:]] == [None] * (len(pictures.values) - 1)
        server = [value.ServerTimestamp for value in pictures.values]
        assert server == sorted(set(server))
        assert counts.values[-1].Value.Value > counts.values[0].Value.Value


def test_a_disabled_item_wants_no_pictures(vedette):
    with vedette.client() as client:
        changes = Changes()
        subscription = client.create_subscription(100, changes)
        subscription.subscribe_data_change(image_of(client))
        wait_until("pictures", lambda: len(changes.values) > 1)

        def set_mode(mode):
            client.tloop.post(subscription.aio_obj.set_monitoring_mode(mode))

        set_mode(ua.MonitoringMode.Disabled)
        wait_until("idle", lambda: state_of(client, "State") == "idle")
        set_mode(ua.MonitoringMode.Reporting)
        before = len(changes.values)
        wait_until("pictures again", lambda: len(changes.values) > before + 1)


def test_a_camera_that_is_not_there_is_bad_with_a_reason(vedette):
    with vedette.client() as client:
        value = image_of(client, "absent").read_data_value(raise_on_bad_status=False)
        assert value.StatusCode.name == "BadNotConnected"
        assert state_of(client, "State", "absent") == "disconnected"
        assert state_of(client, "Reason", "absent") == "/dev/video99 does not exist"
        assert picture(image_of(client).read_value()), "the other camera is not concerned"


def test_tags_are_read_written_and_monitored(vedette):
    with vedette.client() as client:
        demo = child(client.nodes.objects, "Tags", "demo")
        changes = Changes()
        subscription = client.create_subscription(50, changes)
        subscription.subscribe_data_change(child(demo, "counter"))
        wait_until("counts", lambda: len(changes.values) >= 5)
        counts = [value.Value.Value for value in changes.values]
        assert counts == sorted(set(counts)), counts

        set_point = child(demo, "set_point")
        set_point.write_value(ua.DataValue(ua.Variant(12.5, ua.VariantType.Double)))
        assert set_point.read_value() == 12.5
        wait_until("the echo", lambda: child(demo, "set_point_echo").read_value() == 12.5)

        for value, code in [
            (ua.Variant(100.5, ua.VariantType.Double), ua.uaerrors.BadOutOfRange),
            (ua.Variant(5, ua.VariantType.Int32), ua.uaerrors.BadTypeMismatch),
            (ua.Variant([1.0], ua.VariantType.Double, is_array=True), ua.uaerrors.BadTypeMismatch),
        ]:
            with pytest.raises(code):
                set_point.write_value(ua.DataValue(value))
        with pytest.raises(ua.uaerrors.BadNotWritable):
            child(demo, "sine").write_value(ua.DataValue(ua.Variant(1.0, ua.VariantType.Double)))
        assert set_point.read_value() == 12.5


def test_a_percent_deadband_on_a_tag_is_taken_from_its_range(vedette):
    with vedette.client() as client:
        changes = Changes()
        subscription = client.create_subscription(50, changes)
        set_point = child(client.nodes.objects, "Tags", "demo", "set_point")
        client.tloop.post(subscription.aio_obj.deadband_monitor(set_point.aio_obj, 10, deadbandtype=2))
        for value in [50.0, 55.0, 70.0, 71.0]:
            set_point.write_value(ua.DataValue(ua.Variant(value, ua.VariantType.Double)))
            time.sleep(0.2)
        wait_until("two", lambda: len(changes.values) >= 2)
        assert [value.Value.Value for value in changes.values] == [50.0, 70.0]


def test_the_last_change_is_not_held_back(vedette):
    """Two changes within one sampling interval, then silence: the second must come all the same."""
    with vedette.client() as client:
        changes = Changes()
        subscription = client.create_subscription(50, changes)
        set_point = child(client.nodes.objects, "Tags", "demo", "set_point")
        subscription.subscribe_data_change(set_point, sampling_interval=1000)
        wait_until("the first", lambda: changes.values)
        for value in [60.0, 61.0]:
            time.sleep(0.1)
            set_point.write_value(ua.DataValue(ua.Variant(value, ua.VariantType.Double)))
        wait_until("the last", lambda: changes.values[-1].Value.Value == 61.0, 5)


def test_one_fault_after_another_is_reported(make, tmp_path):
    """The second fault has a null value as the first has; only the status differs."""
    device = tmp_path / "video"
    vedette = make(DEMO.replace("/dev/video99", str(device))).start()
    with vedette.client() as client:
        changes = Changes()
        subscription = client.create_subscription(50, changes)
        subscription.subscribe_data_change(image_of(client, "absent"), sampling_interval=100)

        def statuses():
            return [value.StatusCode.name for value in changes.values]

        wait_until("the first fault", lambda: statuses() == ["BadNotConnected"])
        device.touch()
        wait_until("the second", lambda: statuses()[-1] == "BadConfigurationError")
        device.unlink()
        wait_until("the first again", lambda: statuses()[-1] == "BadNotConnected")


def test_the_system_is_described(vedette):
    with vedette.client() as client:
        system = child(client.nodes.objects, "Tags", "system")
        total = child(system, "memory", "total")
        wait_until("a reading", lambda: total.read_data_value(raise_on_bad_status=False).StatusCode.is_good())
        with open("/proc/meminfo") as meminfo:
            assert total.read_value() == int(meminfo.readline().split()[1]) * 1024
        assert child(total, "EngineeringUnits").read_value().DisplayName.Text == "B"


def test_large_pictures_arrive_whole(make):
    config = """
[ua_server]
listen = "127.0.0.1:{port}"
insecure_on_loopback = true
[cameras]
discover = false
max_bytes = 4000000
[[camera]]
name = "large"
device = "test-pattern"
width = 3840
height = 2160
quality = 100
"""
    with make(config).start().client() as client:
        data = image_of(client, "large").read_value()
        assert len(data) > 250_000
        assert picture(data).size == (3840, 2160)
