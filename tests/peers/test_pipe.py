"""Pipe cameras: the pictures of a program, which runs only while somebody wants them."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from conftest import picture, wait_until
from test_cli import run
from test_ua import Changes, image_of, state_of

# Writes JPEGs at 25 a second, each with its number as comment; every third damaged if asked. Its own child would stay
# behind if only the program itself were ended.
CAMERA = """
import io, itertools, subprocess, sys, time
from PIL import Image

subprocess.Popen(["sleep", "1000"])
print("starting", file=sys.stderr, flush=True)
start = time.monotonic()
for number in itertools.count(1):
    file = io.BytesIO()
    image = Image.effect_noise((320, 240), 50).convert("RGB")
    image.save(file, "jpeg", quality=80, comment=str(number).encode())
    data = file.getvalue()
    if "damaged" in sys.argv and number % 3 == 0:
        # In turns: cut short, header broken, start missing.
        data = [data[:-500], data[:2] + b"\\0" + data[3:], data[2:]][number // 3 % 3]
    if "multipart" in sys.argv:
        data = b"--frame\\r\\nContent-Type: image/jpeg\\r\\nContent-Length: %d\\r\\n\\r\\n%s\\r\\n" % (len(data), data)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    time.sleep(max(0, start + number / 25 - time.monotonic()))
"""

CONFIG = """
[ua_server]
listen = "127.0.0.1:{port}"
insecure_on_loopback = true
[cameras]
discover = false
linger = "500ms"
[[camera]]
name = "csi"
device = "pipe"
command = [COMMAND]
rate = 25.0
WITH
"""


def quoted(words):
    return ", ".join(f"'{word}'" for word in words)


@pytest.fixture
def pipe(make, tmp_path):
    """Starts the firmware with a pipe camera named csi. At the end it is stopped, not killed, for its program's sake."""
    started = []
    script = tmp_path / "camera.py"
    script.write_text(CAMERA)

    def factory(*arguments, command=None, more=""):
        words = command or [sys.executable, script, *arguments]
        started.append(make(CONFIG.replace("COMMAND", quoted(words)).replace("WITH", more)).start())
        return started[-1]

    yield factory
    for vedette in started:
        assert vedette.stop() == 0


def processes() -> list[tuple[int, str, int, int]]:
    """Number, state, parent, group of all processes (proc(5))."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            found.append((int(entry.name), fields[0], int(fields[1]), int(fields[2])))
    return found


def programs(vedette) -> list[int]:
    """What the firmware has started, zombies included."""
    return [pid for pid, _, parent, _ in processes() if parent == vedette.process.pid]


def family(pid: int) -> list[int]:
    """All of the program's process group, without zombies."""
    return [member for member, state, _, group in processes() if group == pid and state != "Z"]


def number_of(data: bytes) -> int:
    return int(picture(data).info["comment"])


def test_the_program_runs_only_while_somebody_wants_pictures(pipe):
    vedette = pipe()
    with vedette.client() as client:
        assert state_of(client, "State", "csi") == "idle"
        assert not programs(vedette), "not started before somebody asks"
        image = image_of(client, "csi")
        data = image.read_value()
        assert picture(data).size == (320, 240)
        [pid] = programs(vedette)
        assert len(family(pid)) == 2, "the program and its child"
        assert state_of(client, "Driver", "csi") == "pipe"
        assert state_of(client, "Card", "csi") == sys.executable
        assert state_of(client, "Format", "csi") == "MJPG 320x240 25 fps", "by the pictures, not by the default"
        assert state_of(client, "Encoder", "csi") == "camera"
        # Fresh pictures of the same run; on a busy machine the program takes its time for the next.
        wait_until("a newer picture", lambda: number_of(image.read_value()) > number_of(data))
        assert programs(vedette) == [pid]

        wait_until("ended with its child", lambda: not family(pid))
        wait_until("idle", lambda: state_of(client, "State", "csi") == "idle")
        assert not programs(vedette), "not even as a zombie"

        changes = Changes()
        subscription = client.create_subscription(100, changes)
        subscription.subscribe_data_change(image)
        wait_until("pictures", lambda: len(changes.values) > 5)
        numbers = [number_of(value.Value.Value) for value in changes.values]
        assert numbers == sorted(set(numbers))
        [pid] = programs(vedette)
        time.sleep(1)
        assert family(pid), "it runs as long as it is wanted"
        subscription.delete()
        wait_until("ended after the subscription", lambda: not family(pid))


def test_the_stop_of_the_firmware_ends_the_program(pipe):
    vedette = pipe()
    with vedette.client() as client:
        client.create_subscription(100, Changes()).subscribe_data_change(image_of(client, "csi"))
        wait_until("streaming", lambda: state_of(client, "State", "csi") == "streaming")
        [pid] = programs(vedette)
        assert vedette.stop() == 0
    assert not family(pid)


def test_a_program_that_dies_is_a_reason_and_starts_again(pipe):
    vedette = pipe()
    with vedette.client() as client:
        changes = Changes()
        client.create_subscription(50, changes).subscribe_data_change(image_of(client, "csi"), sampling_interval=50)
        wait_until("pictures", lambda: len(changes.values) > 3)
        [pid] = programs(vedette)
        os.kill(pid, signal.SIGKILL)
        wait_until("bad", lambda: any(not value.StatusCode.is_good() for value in changes.values))
        expected = f"`{sys.executable}` was ended by signal 9: starting"
        assert state_of(client, "LastError", "csi") == expected
        seen = len(changes.values)
        wait_until("pictures again", lambda: sum(v.StatusCode.is_good() for v in changes.values[seen:]) > 3)
        assert programs(vedette) != [pid]
        assert not family(pid), "its child went with it"


def test_old_pictures_do_not_wait_in_the_pipe(pipe):
    """Somebody who reads once in a while gets the picture of now."""
    vedette = pipe()
    with vedette.client() as client:
        image = image_of(client, "csi")
        first = number_of(image.read_value())
        running = programs(vedette)
        start = time.monotonic()
        # Slow enough that pictures would pile up, fast enough that the camera stays on.
        for _ in range(10):
            time.sleep(0.3)
            number = number_of(image.read_value())
        assert programs(vedette) == running, "whoever reads now and then keeps it running"
        expected = first + (time.monotonic() - start) * 25
        assert abs(number - expected) < 15, (number, expected)


@pytest.mark.parametrize("form", ["plain", "multipart"])
def test_damaged_frames_are_counted_and_never_handed_on(pipe, form):
    with pipe("damaged", form).client() as client:
        changes = Changes()
        client.create_subscription(50, changes).subscribe_data_change(image_of(client, "csi"), sampling_interval=0)
        wait_until("pictures", lambda: len(changes.values) > 40)
        good = [value.Value.Value for value in changes.values if value.StatusCode.is_good()]
        numbers = [number_of(data) for data in good]
        # A damaged header may take the next frame with it; a damaged frame itself never comes.
        assert not any(number % 3 == 0 for number in numbers), numbers
        corrupt = wait_until("counted", lambda: state_of(client, "FramesCorrupt", "csi"))
        assert corrupt >= 10


def test_raw_frames_have_their_colours(pipe, tmp_path):
    script = tmp_path / "red.py"
    # Two pixels of YUYV are four bytes: red by BT.601 in limited range.
    script.write_text(
        "import sys, time\n"
        "while True:\n"
        "    sys.stdout.buffer.write(bytes([81, 90, 81, 240]) * (64 * 48 // 2))\n"
        "    sys.stdout.buffer.flush()\n"
        "    time.sleep(0.04)\n"
    )
    more = 'format = "yuyv"\nwidth = 64\nheight = 48\nrange = "limited"'
    with pipe(command=[sys.executable, script], more=more).client() as client:
        image = picture(image_of(client, "csi").read_value())
        assert image.size == (64, 48)
        red, green, blue = image.convert("RGB").getpixel((32, 24))
        assert red > 250 and green < 5 and blue < 5
        assert state_of(client, "Format", "csi") == "YUYV 64x48 25 fps"
        assert state_of(client, "Encoder", "csi") == "turbojpeg"


def test_what_cannot_be_started_is_said(pipe):
    with pipe(command=["no-such-program"]).client() as client:
        value = image_of(client, "csi").read_data_value(raise_on_bad_status=False)
        assert value.StatusCode.name == "BadConfigurationError"
        wait_until("failed", lambda: state_of(client, "State", "csi") == "failed")
        assert state_of(client, "Reason", "csi").startswith("`no-such-program` is not in PATH (")
    with pipe(command=["sh", "-c", "echo ERROR: no cameras available >&2; exit 255"]).client() as client:
        value = image_of(client, "csi").read_data_value(raise_on_bad_status=False)
        assert value.StatusCode.name == "BadDeviceFailure"
        assert state_of(client, "Reason", "csi") == "`sh` ended with status 255: ERROR: no cameras available"


def test_bad_keys_are_refused_with_their_line(make):
    config = CONFIG.replace("COMMAND", "").replace("WITH", "stride = 64")
    done = run("check", "--config", make(config).config)
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert ":11: [[camera]] command: it names no program; write the program and its arguments" in said[0]
    assert ":13: [[camera]] stride: it is of raw frames; remove it" in said[1]
