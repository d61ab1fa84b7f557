"""The firmware with one camera, a real V4L2 driver that draws pictures, seen by a UA client from outside."""

import time
from pathlib import Path

import pytest
from appliance import LINGER, START, Appliance, appliance_with, child, decode, is_bad, is_good, text_of
from asyncua import ua
from machine import wait_until
from PIL import ImageStat

# JPEG and the way through YCbCr, but not another colour.
COLOUR_TOLERANCE = 24


class Line1(Appliance):
    """The appliance and the nodes of its one camera."""

    def __init__(self, appliance: Appliance):
        self.machine, self.client = appliance.machine, appliance.client
        camera = self.camera("line1")
        self.image, self.state, self.read = camera.image, camera.state, camera.read

    def show(self, pattern: str, text: str = "None"):
        """Lets the camera see a test pattern, and over it the text that changes with every frame, or not."""
        self.machine.choose("test_pattern", pattern)
        self.machine.choose("osd_text_mode", text)

    def wait_idle(self):
        wait_until(lambda: not self.machine.is_streaming(), START, "the camera is not streaming")


@pytest.fixture(scope="module")
def appliance(tmp_path_factory):
    config = Path(__file__).with_name("vedette.toml").read_text()
    with appliance_with(tmp_path_factory.mktemp("vm"), config) as appliance:
        yield Line1(appliance)


@pytest.fixture(autouse=True)
def from_idle(appliance):
    """Every test starts with a camera that nobody uses and that shows moving text over colour bars."""
    appliance.wait_idle()
    appliance.show("75% Colorbar", text="All")
    yield
    # pytest shows this for a test that failed.
    print(f"the firmware's log:\n{appliance.machine.firmware_log()[-4000:]}")


# -- The promises


def test_only_secure_endpoints_are_offered_on_the_network(appliance):
    endpoints = appliance.client.get_endpoints()
    assert endpoints
    assert all(endpoint.SecurityMode != ua.MessageSecurityMode.None_ for endpoint in endpoints), endpoints
    weak = ("#None", "#Basic128Rsa15", "#Basic256")
    assert not [e.SecurityPolicyUri for e in endpoints if e.SecurityPolicyUri.endswith(weak)]


def test_the_image_is_one_node_with_the_type_clients_show_as_a_picture(appliance):
    assert child(appliance.client.nodes.objects, "Camera Device", "Camera Image").nodeid == appliance.image.nodeid
    assert appliance.image.read_data_type() == ua.NodeId(ua.ObjectIds.ImageJPG)
    assert appliance.image.read_value_rank() == ua.ValueRank.Scalar


def test_reading_the_image_gives_a_picture_of_the_configured_size(appliance):
    assert decode(appliance.read()).size == (640, 480)


@pytest.mark.parametrize(
    "pattern, colour", [("100% Red", (255, 0, 0)), ("100% Green", (0, 255, 0)), ("100% Blue", (0, 0, 255))]
)
def test_the_picture_shows_what_the_camera_sees(appliance, pattern, colour):
    # The camera is idle, so the one read that follows cannot be answered by a picture from before.
    appliance.show(pattern)
    mean = ImageStat.Stat(decode(appliance.read()).convert("RGB")).mean
    assert mean == pytest.approx(colour, abs=COLOUR_TOLERANCE)


@pytest.mark.parametrize("pattern, level", [("100% Black", 0), ("100% White", 255)])
def test_black_is_black_and_white_is_white(appliance, pattern, level):
    # Cameras deliver luma from 16 to 235, JPEG has 0 to 255 (JFIF 1.02): unconverted, every picture is washed out.
    appliance.show(pattern)
    mean = ImageStat.Stat(decode(appliance.read()).convert("RGB")).mean
    assert mean == pytest.approx((level,) * 3, abs=8)


def test_without_reader_and_subscriber_the_camera_is_left_alone(appliance):
    machine = appliance.machine
    machine.log_stream_calls()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        assert not machine.is_streaming()
    assert machine.stream_calls() == []
    assert not machine.holds_buffers()
    assert appliance.state.read_value() == "idle"


def test_the_camera_streams_while_somebody_subscribes_and_stops_after_the_linger(appliance):
    machine = appliance.machine
    with appliance.subscribed(appliance.image) as images:
        images.wait_for(is_good, START, "image")
        wait_until(machine.is_streaming, START, "the camera streams")
        assert appliance.state.read_value() == "streaming"

        # Longer than the linger: it is the subscription that keeps the camera running.
        time.sleep(LINGER + 1)
        assert machine.is_streaming()
        pictures = [decode(seen.value) for seen in images.since(time.monotonic() - LINGER - 1)]
        assert len(pictures) >= 2, "a picture with moving text changes"
        assert all(picture.size == (640, 480) for picture in pictures)
    wait_until(lambda: not machine.is_streaming(), LINGER + 3, "the camera has stopped after the linger")
    wait_until(lambda: appliance.state.read_value() == "idle", 5, "the state says idle")


def test_a_lost_camera_is_a_bad_status_within_a_second_and_comes_back_by_itself(appliance):
    machine = appliance.machine
    with appliance.subscribed(appliance.image) as images, appliance.subscribed(appliance.state) as states:
        images.wait_for(is_good, START, "image")
        states.wait_for(lambda seen: text_of(seen) == "streaming", START, "state `streaming`")

        pressed = time.monotonic()
        machine.press("disconnect")
        # The camera went at some moment while the press was on its way; counted from the first of those moments, the
        # second that was promised may be as much longer.
        allowed = 1.0 + (time.monotonic() - pressed)
        lost = images.wait_for(is_bad, 20, "image with a Bad status", since=pressed)

        back = images.wait_for(is_good, 60, "good image after the loss", since=lost.arrived)
        assert decode(back.value).size == (640, 480)
        state = states.wait_for(lambda seen: text_of(seen) == "disconnected", 5, "state `disconnected`", since=pressed)
        states.wait_for(
            lambda seen: text_of(seen) == "streaming", START, "state `streaming` again", since=state.arrived
        )
        reason = child(appliance.client.nodes.objects, "Cameras", "line1", "LastError").read_value()
        assert len(reason.split()) >= 2, f"{reason!r} tells a person nothing"
        assert machine.is_streaming()
    took = lost.arrived - pressed
    print(f"Bad after {took:.3f} s (allowed {allowed:.3f}), good again after {back.arrived - pressed:.3f} s: {reason}")
    assert took <= allowed

    # The session and the camera have survived it.
    appliance.wait_idle()
    assert decode(appliance.read()).size == (640, 480)
