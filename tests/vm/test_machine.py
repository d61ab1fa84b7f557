"""The emulated machine keeps its own promises: what the other tests rely on, shown without the firmware.

v4l2-ctl plays the part of whoever uses the camera.
"""

import errno
import os
import re
import struct
import time

import pytest
from machine import Machine, MachineError, build_image, wait_until

STREAM = "v4l2-ctl -d /dev/video0 --stream-mmap --stream-count=100000 >/tmp/stream.log 2>&1"


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    image = build_image(tmp_path_factory.mktemp("image") / "initramfs.cpio.gz")
    with Machine(image) as machine:
        machine.wait_ready()
        machine.check("v4l2-ctl -d /dev/video0 -v width=640,height=480,pixelformat=YUYV")
        yield machine


@pytest.fixture
def stream(machine):
    """Somebody who streams from the camera for as long as the test runs."""
    machine.check(STREAM + " & echo $! >/tmp/stream.pid")
    wait_until(machine.is_streaming, 10, "v4l2-ctl streams")
    yield
    machine.sh("kill $(cat /tmp/stream.pid)")
    wait_until(lambda: not machine.is_streaming(), 10, "v4l2-ctl has stopped")


def test_commands_give_exit_code_and_output(machine):
    assert machine.sh("echo out; echo err >&2; exit 3") == (3, "out\nerr\n")
    assert machine.sh("printf 'no newline'") == (0, "no newline")
    assert machine.sh("cat <<'E'\n>1\n<1 0 $x \"'\nE") == (0, ">1\n<1 0 $x \"'\n")
    # Longer than a line of the terminal, both ways.
    text = "0123456789" * 2000
    assert machine.check(f"echo {text}; cat /dev/null") == text + "\n"


def test_kernel_messages_do_not_run_into_the_output(machine):
    noise = "for i in $(seq 200); do echo \"<0>noise $i\" >/dev/kmsg; done"
    # Level 0 gets on to the console even though /init silenced it: the worst that there can be.
    assert machine.check(f"{noise} & seq 3000; wait") == "".join(f"{i}\n" for i in range(1, 3001))
    assert "noise" in machine.console(100_000)


def test_a_command_that_hangs_is_given_up_and_the_console_still_works(machine):
    with pytest.raises(MachineError, match="did not end within 2 s"):
        machine.sh("echo before; sleep 60", timeout=2)
    assert machine.sh("echo after") == (0, "after\n")


def test_the_camera_is_vivid_and_delivers_frames(machine):
    assert "Driver name      : vivid" in machine.check("v4l2-ctl -d /dev/video0 -D")
    machine.check("v4l2-ctl -d /dev/video0 --stream-mmap --stream-count=5 --stream-to=/tmp/frames")
    assert machine.check("stat -c %s /tmp/frames").strip() == str(5 * 640 * 480 * 2)


# YCbCr of limited range, ITU-R 601.
@pytest.mark.parametrize(
    "name, y, cb, cr", [("100% Red", 81, 90, 240), ("100% Green", 145, 54, 34), ("100% Blue", 41, 240, 110)]
)
def test_solid_colours_reach_the_frames(machine, name, y, cb, cr):
    machine.set_controls(test_pattern=machine.menu("test_pattern")[name])
    machine.set_controls(osd_text_mode=machine.menu("osd_text_mode")["None"])
    machine.check("v4l2-ctl -d /dev/video0 --stream-mmap --stream-count=1 --stream-to=/tmp/frame")
    # The middle of the picture, two pixels: Y Cb Y Cr.
    got = machine.check("dd if=/tmp/frame bs=1 skip=307840 count=4 2>/dev/null | od -An -tu1").split()
    assert [int(byte) for byte in got] == pytest.approx([y, cb, y, cr], abs=1)


def test_streaming_is_seen_from_outside(machine, stream):
    assert machine.is_streaming()
    assert machine.holds_buffers()
    # Looking on did not end it.
    assert machine.sh("kill -0 $(cat /tmp/stream.pid)").code == 0


def test_nobody_streaming_is_seen_from_outside(machine):
    assert not machine.is_streaming()
    assert not machine.holds_buffers()


def test_the_kernel_logs_when_streaming_starts_and_stops(machine):
    machine.log_stream_calls()
    assert machine.stream_calls() == []
    machine.check("v4l2-ctl -d /dev/video0 --stream-mmap --stream-count=1")
    calls = machine.stream_calls()
    assert calls[0] == "STREAMON" and calls[-1] == "STREAMOFF", calls
    assert machine.stream_calls() == []


def test_a_disconnected_camera_comes_back_when_its_last_user_has_closed_it(machine):
    # A user that does not notice: it has the camera open and does nothing with it.
    machine.check("(exec 3</dev/video0; exec sleep 1000) & echo $! >/tmp/holder.pid")
    wait_until(lambda: machine.check("cat /sys/module/vivid/refcnt").strip() != "0", 5, "the camera is open")
    machine.press("disconnect")
    for _ in range(3):
        code, output = machine.sh("v4l2-ctl -d /dev/video0 -D")
        assert code != 0 and "No such device" in output
        time.sleep(0.5)
    machine.check("kill $(cat /tmp/holder.pid)")
    wait_until(lambda: machine.sh("v4l2-ctl -d /dev/video0 -D").code == 0, 5, "the camera is back")


def test_a_disconnect_ends_a_stream_at_once(machine, stream):
    machine.press("disconnect")
    wait_until(lambda: not machine.is_streaming(), 2, "the stream has ended")
    # v4l2-ctl gives up and closes the camera, so it is back already.
    wait_until(lambda: machine.sh("v4l2-ctl -d /dev/video0 -D").code == 0, 5, "the camera is back")
    machine.check("v4l2-ctl -d /dev/video0 --stream-mmap --stream-count=1")


def test_pulling_the_plug_takes_the_node_away_from_who_streams_and_putting_it_in_brings_it_back(machine, stream):
    machine.unplug()
    assert machine.sh("ls /dev/video0").code != 0
    wait_until(lambda: machine.sh("kill -0 $(cat /tmp/stream.pid)").code, 5, "v4l2-ctl has given up")
    assert "failed" in machine.check("cat /tmp/stream.log")
    machine.plug()
    machine.check("v4l2-ctl -d /dev/video0 --stream-mmap --stream-count=1")


@pytest.fixture
def reloaded(machine):
    """For tests that load vivid in another way."""
    machine.unload("vivid")
    yield
    machine.unload("vivid")
    machine.load("vivid", n_devs=1, node_types="0x1", no_error_inj=0)
    machine.check("v4l2-ctl -d /dev/video0 -v width=640,height=480,pixelformat=YUYV")


def test_several_devices_of_different_kinds(machine, reloaded):
    assert "/dev/video" not in machine.check("ls /dev/video* 2>&1; true").replace("/dev/video*", "")
    # The first with all of its nodes: output, VBI, radio, metadata ...; the last multi-planar.
    machine.load("vivid", n_devs=3, node_types=["0xe1d3d", "0x1", "0x1"], multiplanar=[1, 1, 2])
    described = machine.check("for node in /dev/video*; do v4l2-ctl -d $node -D; done")
    assert described.count("Device Caps") >= 6
    assert {f"platform:vivid-{number:03}" for number in range(3)} == set(re.findall(r"platform:vivid-\d+", described))
    assert "Video Capture Multiplanar" in described and "Metadata Capture" in described


@pytest.mark.parametrize(
    "mode, error",
    [("Current DV Timings", ""), ("No Signal", "ENOLINK"), ("No Lock", "ENOLCK"), ("Out of Range", "ERANGE")],
)
def test_the_cable_of_an_hdmi_input(machine, reloaded, mode, error):
    machine.load("vivid", n_devs=1, node_types="0x1", num_inputs=1, input_types="0x3", no_error_inj=0)
    machine.choose("dv_timings_signal_mode", mode)
    status = re.search(r"Status.*\((.*)\)", machine.check("v4l2-ctl -d /dev/video0 --list-inputs"))[1]
    assert status == {"": "ok", "ENOLINK": "no signal"}.get(error, "no hsync lock")
    failure = re.search(r"failed: (.*)", machine.sh("v4l2-ctl -d /dev/video0 --query-dv-timings").output)
    assert (failure[1] if failure else "") == (error and os.strerror(getattr(errno, error)))


def test_all_buttons_are_there(machine):
    listing = machine.check("v4l2-ctl -d /dev/video0 -L")
    assert not [button for button in machine.BUTTONS if f" {button} " not in listing]


def test_frames_that_are_played_arrive_as_they_are(machine):
    names = ["Cam one", "Cam two"]
    machine.load("v4l2loopback", video_nr=[8, 9], card_label=names, exclusive_caps=[1, 1], max_buffers=8)
    try:
        # With exclusive_caps=1 it is no camera yet.
        assert "Video Output" in machine.check("v4l2-ctl -d /dev/video8 -D")
        # Lengths that no buffer, block or line has; the driver and what lies between look into none of it.
        frames = [bytes([number]) * (1000 + 37 * number) for number in range(3)]
        with machine.play(frames, "/dev/video8", (320, 240), rate=20) as player:
            wait_until(lambda: player.played > 2, 5, "frames are played")
            described = machine.check("v4l2-ctl -d /dev/video8 -D -V")
            assert "Cam one" in described and "Video Capture" in described and "'MJPG'" in described, player.log()
            got = captured(machine, "/dev/video8", 30)
            # The driver forgets the lengths when somebody asks for buffers: the first is a whole buffer, with remains
            # of other frames behind the one that is shown.
            assert len(got) == 30 and set(got[1:]) == set(frames)
            # In turn, without repetition.
            assert all(a != b for a, b in zip(got[1:], got[2:]))
            player.show([b"other"])
            time.sleep(1)
            assert captured(machine, "/dev/video8", 5)[-1] == b"other"
        assert "Video Capture" not in machine.check("v4l2-ctl -d /dev/video8 -D")
        with machine.play(frames, "/dev/video8", (320, 240)):
            machine.check("sleep 1; v4l2-ctl -d /dev/video8 --stream-mmap --stream-count=2")
    finally:
        machine.unload("v4l2loopback")


def captured(machine: Machine, device: str, count: int) -> list[bytes]:
    machine.check(f"v4l2-ctl -d {device} --stream-mmap --stream-count={count} --stream-to-hdr=/tmp/got")
    stream = bytes.fromhex(machine.check("od -An -v -tx1 /tmp/got"))
    frames = []
    while stream:
        # What v4l2-ctl writes before each frame: a magic number and the length.
        magic, length = struct.unpack(">4sI", stream[:8])
        assert magic == b"rdhV"
        frames.append(stream[8 : 8 + length])
        stream = stream[8 + length :]
    return frames
