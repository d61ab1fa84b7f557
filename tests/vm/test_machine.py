"""The emulated machine keeps its own promises: what test_vivid.py relies on, shown without the firmware.

v4l2-ctl plays the part of whoever uses the camera.
"""

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
