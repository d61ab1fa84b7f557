"""What a picture costs the server: to one, ten and a hundred monitored items, and memory over a hundred thousand frames.
Run by `scripts/bench fanout` and `scripts/bench soak`.

The camera is a pipe that writes raw frames. CPU and memory are the kernel's own accounts of the server's process; the
clients, which cost more, are other processes.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/peers"))
from conftest import Vedette, wait_until  # noqa: E402
from start import memory  # noqa: E402
from test_ua import Changes, image_of, state_of  # noqa: E402

# Noise, so that a picture has a few hundred kB; another one each time, so that none is equal to the last.
CAMERA = """
import os, sys, time
width, height, rate = map(int, sys.argv[1:])
noise = os.urandom(width * height + 4096)
chroma = b"\\x80" * (width * height // 2)
begin, count = time.monotonic(), 0
while True:
    sys.stdout.buffer.write(noise[count % 4096 : count % 4096 + width * height] + chroma)
    count += 1
    time.sleep(max(0, begin + count / rate - time.monotonic()))
"""

CONFIG = """
[ua_server]
listen = "127.0.0.1:{port}"
insecure_on_loopback = true
[cameras]
discover = false
[[camera]]
name = "noise"
device = "pipe"
command = ['PYTHON', 'SCRIPT', 'WIDTH', 'HEIGHT', 'RATE']
format = "yuv420"
width = WIDTH
height = HEIGHT
rate = RATE.0
"""

# One session, one subscription, so many items.
CLIENT = """
import asyncio, sys
from asyncua import Client, ua

class Handler:
    def datachange_notification(self, node, value, data): pass

async def main(url, items, interval):
    async with Client(url) as client:
        subscription = await client.create_subscription(interval, Handler())
        node = client.get_node("ns=2;s=Cameras/noise/Camera Image")
        await subscription.subscribe_data_change([node] * items, sampling_interval=interval, queuesize=1)
        print("ready", flush=True)
        await asyncio.sleep(3600)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
"""


def start(folder, width, height, rate):
    script = folder / "camera.py"
    script.write_text(CAMERA)
    config = CONFIG
    words = {"PYTHON": sys.executable, "SCRIPT": script, "WIDTH": width, "HEIGHT": height, "RATE": rate}
    for word, value in words.items():
        config = config.replace(word, str(value))
    return Vedette(folder, config).start()


def fanout(folder):
    """One frame a second of 1280x720 to so many items, for so many seconds."""
    seconds = 30
    print("items  pictures  encoded  kB each  server CPU ms a picture  resident MiB (peak)")
    for items in [0, 1, 10, 100]:
        place = folder / f"fanout{items}"
        place.mkdir()
        vedette = start(place, 1280, 720, 5)
        with vedette.client() as observer:
            client = None
            if items:
                command = [sys.executable, "-c", CLIENT, vedette.url, str(items), "1000"]
                client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                assert client.stdout.readline() == b"ready\n"
                wait_until("pictures", lambda: state_of(observer, "FramesPublished", "noise") >= items)
                time.sleep(2)
            before = vedette.cpu_seconds(), *(state_of(observer, tag, "noise") for tag in COUNTERS)
            time.sleep(seconds)
            after = vedette.cpu_seconds(), *(state_of(observer, tag, "noise") for tag in COUNTERS)
            cpu, published, encoded = (b - a for a, b in zip(before, after))
            size = len(image_of(observer, "noise").read_value()) / 1000
            each = 1000 * cpu / published if published else 0
            pid = vedette.process.pid
            print(f"{items:5}  {published:8}  {encoded:7}  {size:7.0f}  {each:23.2f}  "
                  f"{memory(pid, 'VmRSS'):.1f} ({memory(pid, 'VmHWM'):.1f})")
            if client:
                client.kill()
                client.wait()
        vedette.stop()


COUNTERS = ["FramesPublished", "FramesEncoded"]


def soak(folder):
    """Small frames, as fast as they go, all encoded; one item takes one in ten."""
    frames = 100_000
    vedette = start(folder, 160, 120, 1000)
    with vedette.client() as client:
        subscription = client.create_subscription(100, Changes())
        subscription.subscribe_data_change(image_of(client, "noise"), sampling_interval=10)
        print("frames captured  encoded  resident MiB")
        next_line = 1
        while next_line <= frames:
            captured = state_of(client, "FramesCaptured", "noise")
            if captured >= next_line:
                encoded = state_of(client, "FramesEncoded", "noise")
                print(f"{captured:15}  {encoded:7}  {memory(vedette.process.pid, 'VmRSS'):.1f}", flush=True)
                next_line = max(10_000, captured // 10_000 * 10_000 + 10_000)
            time.sleep(0.5)
    vedette.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        {"fanout": fanout, "soak": soak}[sys.argv[1]](Path(temporary))
