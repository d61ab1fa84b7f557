"""What a driver can do to the firmware: vivid's buttons that inject errors, frames it drops, and an HDMI input whose
cable, signal or timings go, seen by a UA client.
"""

import time

import pytest
from appliance import START, appliance_with, decode, is_bad, is_good, status_of
from machine import Machine, wait_until

CONFIG = """
[device]
name = "vedette-vm"

[ua_server]
listen = "0.0.0.0:4840"

[cameras]
discover = false
linger = "500ms"

[[camera]]
name = "webcam"
device = "/dev/video0"
width = 640
height = 480
rate = 25.0

[[camera]]
name = "hdmi"
device = "/dev/video1"
"""
# A camera with one webcam input, and one with one HDMI input.
DRIVERS = "modprobe vivid n_devs=2 node_types=0x1,0x1 num_inputs=1,1 input_types=0x0,0x3 no_error_inj=0"


@pytest.fixture(scope="module")
def appliance(tmp_path_factory):
    with appliance_with(tmp_path_factory.mktemp("vm"), CONFIG, DRIVERS) as appliance:
        yield appliance


@pytest.fixture(autouse=True)
def log(appliance):
    yield
    print(f"the firmware's log:\n{appliance.machine.firmware_log()[-4000:]}")


@pytest.mark.parametrize("button", Machine.BUTTONS)
def test_after_an_injected_error_pictures_go_on(appliance, button):
    camera = appliance.camera("webcam")
    with appliance.subscribed(camera.image) as images:
        images.wait_for(is_good, START, "image")
        pressed = time.monotonic()
        appliance.machine.press(button)
        # Some break the stream, some only the next call of those that begin one: both must end in pictures.
        time.sleep(2)
        good = images.wait_for(is_good, START, "image", since=pressed + 2)
        decode(good.value)
        camera.wait_state("streaming")
        assert camera.tag("Reason") == ""
    camera.wait_state("idle")
    # What was injected for the beginning of a stream is met now, and by one read only.
    wait_until(lambda: status_of(camera.read()).is_good(), START, "a picture")


def test_a_damaged_buffer_is_dropped_and_counted(appliance):
    camera = appliance.camera("webcam")
    with appliance.subscribed(camera.image) as images:
        images.wait_for(is_good, START, "image")
        before = camera.tag("FramesCorrupt")
        for _ in range(3):
            appliance.machine.press("inject_v4l2_buf_flag_error")
        wait_until(lambda: camera.tag("FramesCorrupt") >= before + 3, START, "three damaged frames are counted")
        assert not [seen for seen in images.since(0) if is_bad(seen)]
    camera.wait_state("idle")


def test_frames_that_the_driver_drops_are_counted(appliance):
    camera, machine = appliance.camera("webcam"), appliance.machine
    machine.set_controls("/dev/video0", percentage_of_dropped_buffers=50)
    try:
        before = camera.tag("FramesDropped")
        with appliance.subscribed(camera.image) as images:
            images.wait_for(is_good, START, "image")
            wait_until(lambda: camera.tag("FramesDropped") > before + 3, START, "dropped frames are counted")
            assert not [seen for seen in images.since(0) if is_bad(seen)]
    finally:
        machine.set_controls("/dev/video0", percentage_of_dropped_buffers=0)
    camera.wait_state("idle")


@pytest.mark.parametrize(
    "mode, states",
    # vivid without a signal has no power at its input either.
    [("No Signal", {"no cable"}), ("No Lock", {"no sync"}), ("Out of Range", {"no sync", "not supported"})],
)
def test_an_hdmi_input_says_what_is_wrong_with_its_signal_and_comes_back(appliance, mode, states):
    camera, machine = appliance.camera("hdmi"), appliance.machine
    with appliance.subscribed(camera.image) as images:
        images.wait_for(is_good, START, "image")
        went = time.monotonic()
        machine.choose("dv_timings_signal_mode", mode, "/dev/video1")
        try:
            lost = images.wait_for(is_bad, START, "Bad status", since=went)
            wait_until(lambda: camera.state.read_value() in states, START, f"the state is one of {states}")
            assert len(camera.tag("Reason").split()) >= 2
        finally:
            machine.choose("dv_timings_signal_mode", "Current DV Timings", "/dev/video1")
        images.wait_for(is_good, START, "image", since=lost.arrived)
        camera.wait_state("streaming")
    camera.wait_state("idle")
