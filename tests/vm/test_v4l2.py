"""Drivers other than a plain camera, all played by vivid: multi-planar buffers, an HDMI bridge, an analog input, and
nodes that are no cameras.
"""

import json
import time

import pytest
from appliance import START, appliance_with, decode, is_bad, is_good, status_of, text_of
from machine import wait_until
from PIL import ImageStat

# One instance each: multi-planar, HDMI, S-Video, and one with output and metadata nodes. Without crop, compose and
# scaler (ccs_cap_mode) an instance gives the size of its signal and no other, as bridges do.
DRIVERS = (
    "modprobe vivid n_devs=4 node_types=0x1,0x1,0x1,0x60101 multiplanar=2,1,1,1 num_inputs=1,1,1,1"
    " input_types=0x0,0x3,0x2,0x0 ccs_cap_mode=-1,0,0,-1 no_error_inj=0\n"
)
CONFIG = """
[device]
name = "vedette-vm"

[ua_server]
listen = "0.0.0.0:4840"

[cameras]
discover = false

[[camera]]
name = "mplane"
device = "/dev/video0"
width = 640
height = 480

[[camera]]
name = "hdmi"
device = "/dev/video1"

[[camera]]
name = "svideo"
device = "/dev/video2"
width = 720
height = 576
"""
HDMI = "/dev/video1"
SVIDEO = "/dev/video2"


@pytest.fixture(scope="module")
def appliance(tmp_path_factory):
    with appliance_with(tmp_path_factory.mktemp("v4l2"), CONFIG, DRIVERS) as appliance:
        yield appliance


@pytest.fixture(autouse=True)
def log(appliance):
    yield
    # pytest shows this for a test that failed.
    print(f"the firmware's log:\n{appliance.machine.firmware_log()[-4000:]}")


def test_a_multi_planar_driver_is_a_camera_as_any_other(appliance):
    machine, camera = appliance.machine, appliance.camera("mplane")
    assert "Video Capture Multiplanar" in machine.check("v4l2-ctl -d /dev/video0 -D")
    machine.choose("test_pattern", "100% Red")
    machine.choose("osd_text_mode", "None")
    picture = decode(camera.read())
    assert picture.size == (640, 480)
    assert ImageStat.Stat(picture.convert("RGB")).mean == pytest.approx((255, 0, 0), abs=24)


def test_nodes_that_are_no_cameras_are_told_apart(appliance):
    nodes = {node["path"]: node for node in json.loads(appliance.machine.check("vedette cameras --json"))}
    assert [nodes[f"/dev/video{number}"]["kind"] for number in range(4)] == ["camera"] * 4
    # Behind it in brackets is the card's name.
    others = {node["what"].split(" (")[0] for node in nodes.values() if node["kind"] == "other"}
    assert others == {"video output", "metadata of a camera", "metadata output"}, nodes
    assert all("fault" not in node for node in nodes.values())


def test_the_size_follows_the_signal_and_each_thing_missing_has_its_word(appliance):
    machine, camera = appliance.machine, appliance.camera("hdmi")

    modes = machine.menu("dv_timings_signal_mode", HDMI)

    def signal(mode):
        # What follows from it may be there before the command has returned.
        before = time.monotonic()
        machine.set_controls(HDMI, dv_timings_signal_mode=modes[mode])
        return before

    with appliance.subscribed(camera.image) as images, appliance.subscribed(camera.state) as states:
        first = images.wait_for(is_good, START, "image")
        size = decode(first.value).size
        for mode, state, word in [
            ("No Signal", "no cable", "cable"),
            ("No Lock", "no sync", "lock"),
            ("Out of Range", "not supported", "cannot take"),
        ]:
            lost = signal(mode)
            images.wait_for(is_bad, START, f"Bad image at {mode}", since=lost)
            states.wait_for(lambda seen: text_of(seen) == state, START, f"state {state!r}", since=lost)
            assert word in camera.tag("Reason")
            back = signal("Current DV Timings")
            good = images.wait_for(is_good, START, f"image after {mode}", since=back)
            print(f"{mode}: good again after {good.arrived - back:.2f} s")
            assert decode(good.value).size == size

        # Another source, of another size: no error in between is needed, a picture of that size is.
        timings = machine.menu("dv_timings", HDMI)
        entry = next(name for name in timings if name.startswith("640x480p"))
        machine.set_controls(HDMI, dv_timings=timings[entry])
        changed = signal("Selected DV Timings")
        images.wait_for(
            lambda seen: is_good(seen) and decode(seen.value).size == (640, 480), START, "640x480", since=changed
        )
        assert "640x480" in camera.tag("Format")
    signal("Current DV Timings")


def test_an_analog_input_without_signal_says_so(appliance):
    machine, camera = appliance.machine, appliance.camera("svideo")
    assert decode(camera.read()).size in [(720, 576), (720, 480)]
    for mode, state in [("No Signal", "no signal"), ("No Lock", "no sync")]:
        machine.choose("standard_signal_mode", mode, SVIDEO)
        # Each read is an attempt; nobody else asks.
        wait_until(lambda: status_of(camera.read()).is_bad() and camera.state.read_value() == state, START, state)
    machine.choose("standard_signal_mode", "Current Standard", SVIDEO)
    wait_until(lambda: status_of(camera.read()).is_good(), START, "the image is good again")
