"""Percent deadbands on pictures, and the method Snapshot, with scenes that the test sets.

The camera is a pipe: raw frames of one brightness, with a box of another in a corner, as the file `scene` says.
"""

import subprocess
import sys
import time

import pytest
from asyncua import ua
from conftest import child, picture, wait_until
from PIL import ImageStat
from test_ua import Changes, image_of, state_of

CAMERA = """
import os, sys, time
from pathlib import Path

width, height, scene = 320, 240, Path(sys.argv[1])
while True:
    text = scene.read_text()
    if text == "noise":
        luma = os.urandom(width * height)
    else:
        background, box = map(int, text.split())
        luma = bytearray([background]) * (width * height)
        for line in range(0, 60):
            luma[line * width : line * width + 80] = bytes([box]) * 80
    sys.stdout.buffer.write(luma + b"\\x80" * (width * height // 2))
    sys.stdout.buffer.flush()
    time.sleep(0.04)
"""

CONFIG = """
[ua_server]
listen = "127.0.0.1:{port}"
insecure_on_loopback = true
[cameras]
discover = false
linger = "500ms"
COMMON
[[camera]]
name = "scene"
device = "pipe"
command = ['PYTHON', 'SCRIPT', 'SCENE']
format = "yuv420"
width = 320
height = 240
rate = 25.0
MORE
"""

# After a change of the scene: until a picture that is wanted has arrived, and one that is not would have.
SETTLED = 1.6


class Stage:
    def __init__(self, make, folder):
        self.make, self.folder, self.scene = make, folder, folder / "scene"
        (folder / "camera.py").write_text(CAMERA)
        self.show(100)

    def start(self, more="", common=""):
        words = {"PYTHON": sys.executable, "SCRIPT": self.folder / "camera.py", "SCENE": self.scene, "MORE": more, "COMMON": common}
        config = CONFIG
        for word, value in words.items():
            config = config.replace(word, str(value))
        return self.make(config).start()

    def show(self, background, box=None):
        """The whole in one brightness, or with a box of a sixteenth of the picture in another."""
        self.write(f"{background} {background if box is None else box}")

    def write(self, text):
        new = self.folder / "new"
        new.write_text(text)
        new.replace(self.scene)


@pytest.fixture
def stage(make, tmp_path):
    return Stage(make, tmp_path)


def deadband(percent, kind=ua.DeadbandType.Percent):
    return ua.DataChangeFilter(
        Trigger=ua.DataChangeTrigger.StatusValue, DeadbandType=int(kind), DeadbandValue=float(percent)
    )


def monitor(client, node, changes, interval, mfilter=None):
    """A subscription that publishes fast, with one item; returns both."""
    subscription = client.create_subscription(50, changes)
    request = subscription.aio_obj._make_monitored_item_request(
        node.aio_obj, ua.AttributeIds.Value, mfilter, 1, ua.MonitoringMode.Reporting, interval
    )
    return subscription, client.tloop.post(subscription.aio_obj.create_monitored_items([request]))[0]


def luma(value):
    return round(ImageStat.Stat(picture(value.Value.Value).convert("L")).mean[0])


def test_two_clients_get_what_each_asked_for_and_not_more(stage):
    vedette = stage.start()
    with vedette.client() as one, vedette.client() as other:
        fine, coarse = Changes(), Changes()
        monitor(one, image_of(one, "scene"), fine, 200, deadband(5))
        monitor(other, image_of(other, "scene"), coarse, 1000, deadband(30))
        got = []
        # 255 is 100 %. Against what each client has: 5 % is 13, 30 % is 77.
        for brightness in [100, 108, 112, 116, 140, 178, 179, 180, 100]:
            stage.show(brightness)
            time.sleep(SETTLED)
            got.append(([luma(v) for v in fine.values], [luma(v) for v in coarse.values]))
            fine.values.clear()
            coarse.values.clear()
        assert got == [
            ([100], [100]),
            ([], []),
            ([], []),
            ([116], []),
            ([140], []),
            ([178], [178]),
            ([], []),
            ([], []),
            ([100], [100]),
        ]
        # Judged before any encoding: what nobody gets is not encoded.
        assert state_of(one, "FramesEncoded", "scene") <= 8
        assert state_of(one, "FramesCaptured", "scene") > 100


def test_a_small_object_counts_by_its_area(stage):
    vedette = stage.start()
    with vedette.client() as client:
        changes = Changes()
        monitor(client, image_of(client, "scene"), changes, 100, deadband(3))
        wait_until("the first picture", lambda: changes.values)
        stage.show(100, 220)  # 120 / 255 of a sixteenth: 2.9 %
        time.sleep(SETTLED)
        assert len(changes.values) == 1
        meter = child(client.nodes.objects, "Cameras", "scene", "Difference")
        wait_until("the meter", lambda: meter.read_value() == pytest.approx(2.94, abs=0.05))
        assert meter.get_child(["0:EURange"]).read_value().High == 100
        stage.show(100, 230)  # 3.2 %
        wait_until("the second picture", lambda: len(changes.values) == 2)


def test_brightness_is_ignored_if_the_configuration_says_so(stage):
    vedette = stage.start(more="ignore_brightness = true")
    with vedette.client() as client:
        changes = Changes()
        monitor(client, image_of(client, "scene"), changes, 100, deadband(1))
        wait_until("the first picture", lambda: changes.values)
        for brightness in [120, 180, 60]:
            stage.show(brightness)
            time.sleep(0.7)
        assert [luma(value) for value in changes.values] == [100]
        stage.show(60, 200)
        wait_until("the object", lambda: len(changes.values) == 2)


def test_a_heartbeat_comes_anyway_and_noise_does_not(stage):
    vedette = stage.start(more='heartbeat = "1s"\nnoise_floor = 5.0')
    with vedette.client() as client:
        changes = Changes()
        monitor(client, image_of(client, "scene"), changes, 100, deadband(1))
        wait_until("the first picture", lambda: changes.values)
        stage.show(110)
        wait_until("heartbeats", lambda: len(changes.values) >= 4)
        stamps = [value.SourceTimestamp for value in changes.values]
        gaps = [(b - a).total_seconds() for a, b in zip(stamps, stamps[1:])]
        assert all(gap > 0.9 for gap in gaps), "4 % is below the noise floor, so nothing but the heartbeat"


def test_a_deadband_can_be_changed(stage):
    vedette = stage.start()
    with vedette.client() as client:
        changes = Changes()
        subscription, item = monitor(client, image_of(client, "scene"), changes, 100, deadband(90))
        wait_until("the first picture", lambda: changes.values)
        stage.show(150)
        time.sleep(SETTLED)
        assert len(changes.values) == 1
        modify(client, subscription, item, 100, deadband(10))
        wait_until("the difference that had been there", lambda: len(changes.values) == 2)
        assert luma(changes.values[1]) == 150


def modify(client, subscription, item, interval, mfilter=None):
    request = ua.MonitoredItemModifyRequest(
        MonitoredItemId=item,
        RequestedParameters=ua.MonitoringParameters(
            ClientHandle=subscription.aio_obj._client_handle,
            SamplingInterval=float(interval),
            QueueSize=1,
            DiscardOldest=True,
            Filter=mfilter,
        ),
    )
    parameters = ua.ModifyMonitoredItemsParameters(
        SubscriptionId=subscription.aio_obj.subscription_id,
        TimestampsToReturn=ua.TimestampsToReturn.Both,
        ItemsToModify=[request],
    )
    results = client.tloop.post(client.aio_obj.uaclient.modify_monitored_items(parameters))
    assert [result.StatusCode.name for result in results] == ["Good"]


@pytest.mark.parametrize(
    "kind, value, code",
    [
        (ua.DeadbandType.Absolute, 5, "BadFilterNotAllowed"),
        (ua.DeadbandType.Percent, 101, "BadDeadbandFilterInvalid"),
        (ua.DeadbandType.Percent, -1, "BadDeadbandFilterInvalid"),
        (ua.DeadbandType.Percent, float("nan"), "BadDeadbandFilterInvalid"),
    ],
)
def test_other_deadbands_on_a_picture_are_refused(stage, kind, value, code):
    vedette = stage.start()
    with vedette.client() as client:
        _, result = monitor(client, image_of(client, "scene"), Changes(), 100, deadband(value, kind))
        assert result.name == code
        assert state_of(client, "Leases", "scene") == 0


def test_no_picture_is_stamped_in_the_future_and_none_waits_for_an_old_interval(stage):
    vedette = stage.start()
    with vedette.client() as client:
        changes = Changes()
        subscription, item = monitor(client, image_of(client, "scene"), changes, 500)
        # Pictures that are equal are no change, so the scene changes all the time.
        for brightness in range(100, 140):
            stage.show(brightness)
            time.sleep(0.05)
        modify(client, subscription, item, 20000)
        for brightness in range(140, 160):
            stage.show(brightness)
            time.sleep(0.05)

        def set_mode(mode):
            client.tloop.post(subscription.aio_obj.set_monitoring_mode(mode))

        set_mode(ua.MonitoringMode.Disabled)
        before = len(changes.values)
        stage.show(200)
        time.sleep(0.5)
        set_mode(ua.MonitoringMode.Reporting)
        wait_until("a picture as soon as it is enabled", lambda: len(changes.values) > before, 10)
        for value in changes.values:
            if value.SourceTimestamp:
                assert (value.SourceTimestamp - value.ServerTimestamp).total_seconds() < 0.2


def test_after_a_recovery_readers_and_slow_items_see_it_at_once(stage):
    vedette = stage.start()
    with vedette.client() as client:
        image, changes = image_of(client, "scene"), Changes()
        monitor(client, image, changes, 3600000)
        wait_until("the first picture", lambda: changes.values)
        camera = stage.folder / "camera.py"
        camera.rename(stage.folder / "gone.py")
        subprocess.run(["pkill", "-KILL", "-f", str(camera)], check=True)
        wait_until("the loss", lambda: changes.values[-1].StatusCode.is_bad())
        assert state_of(client, "InUse", "scene") is True, "somebody still wants pictures"
        (stage.folder / "gone.py").rename(camera)
        wait_until("a picture", lambda: changes.values[-1].StatusCode.is_good())
        assert picture(image.read_value())
        assert state_of(client, "State", "scene") == "streaming"


def test_pictures_are_not_handed_to_everybody_without_end(stage):
    vedette = stage.start()
    with vedette.client() as client:
        image, subscription = image_of(client, "scene"), None
        results = []
        for _ in range(2):
            subscription = client.create_subscription(1000, Changes())
            results += client.tloop.post(
                subscription.aio_obj.create_monitored_items(
                    [
                        subscription.aio_obj._make_monitored_item_request(
                            image.aio_obj, ua.AttributeIds.Value, None, 1, ua.MonitoringMode.Reporting, 1000
                        )
                        for _ in range(100)
                    ]
                )
            )
        refused = [result for result in results if isinstance(result, ua.StatusCode)]
        assert {status.name for status in refused} == {"BadTooManyMonitoredItems"}
        assert len(refused) == 200 - 128
        subscription.delete()
        wait_until("room again", lambda: not isinstance(
            monitor(client, image, Changes(), 1000)[1], ua.StatusCode))


def test_a_snapshot_comes_in_the_size_and_quality_asked_for(stage):
    vedette = stage.start()
    with vedette.client() as client:
        camera = child(client.nodes.objects, "Cameras", "scene")
        method = child(camera, "Snapshot")

        def snapshot(*arguments):
            return camera.call_method(method, *arguments)

        def unsigned(value):
            return ua.Variant(value, ua.VariantType.UInt32)

        whole = snapshot(unsigned(0), unsigned(0), unsigned(0), "jpeg")
        assert picture(whole).size == (320, 240)
        assert picture(snapshot()).size == (320, 240), "what is left out is as it is"
        assert picture(snapshot(unsigned(100), unsigned(0), unsigned(0), "")).size == (100, 75)
        assert picture(snapshot(0, 33)).size == (44, 33), "any integer will do"
        assert picture(snapshot(100, 100)).size == (100, 100)
        stage.show(10, 250)
        time.sleep(0.5)
        assert len(snapshot(0, 0, 5)) < len(snapshot(0, 0, 95))
        for arguments, code in [
            ((321, 0), ua.uaerrors.BadOutOfRange),
            ((0, 0, 101), ua.uaerrors.BadInvalidArgument),
            ((0, 0, 0, "png"), ua.uaerrors.BadInvalidArgument),
            ((1.5,), ua.uaerrors.BadInvalidArgument),
            ((0, 0, 0, "", 0), ua.uaerrors.BadTooManyArguments),
        ]:
            with pytest.raises(code):
                snapshot(*arguments)
        names = [argument.Name for argument in child(method, "InputArguments").read_value()]
        assert names == ["Width", "Height", "Quality", "Format"]


def test_a_snapshot_is_not_larger_than_a_picture_may_be(stage):
    vedette = stage.start(common="max_bytes = 20000")
    stage.write("noise")
    with vedette.client() as client:
        camera = child(client.nodes.objects, "Cameras", "scene")
        time.sleep(0.5)
        for quality in [0, 100]:
            size = len(camera.call_method(child(camera, "Snapshot"), 300, 0, quality))
            assert 5000 < size <= 20000


def test_what_a_camera_says_of_itself(stage):
    vedette = stage.start()
    with vedette.client() as client:
        changes = Changes()
        monitor(client, image_of(client, "scene"), changes, 0)
        wait_until("streaming", lambda: state_of(client, "State", "scene") == "streaming")
        wait_until("a rate", lambda: 15 < state_of(client, "FrameRate", "scene") < 30)
        assert state_of(client, "InUse", "scene") is True
        assert state_of(client, "Leases", "scene") == 1
        assert (state_of(client, "Width", "scene"), state_of(client, "Height", "scene")) == (320, 240)
        assert state_of(client, "Formats", "scene")
        assert state_of(client, "Encoder", "scene") == "turbojpeg"
        assert state_of(client, "LastFrameTime", "scene") > changes.values[0].SourceTimestamp
    with vedette.client() as client:
        wait_until("idle", lambda: state_of(client, "State", "scene") == "idle", 60)
        assert (state_of(client, "InUse", "scene"), state_of(client, "FrameRate", "scene")) == (False, 0)
