"""What a picture costs: CPU time of this firmware against ustreamer's, in the emulated machine. Run by scripts/bench.

Both get the same cameras: vivid, 640x480 YUYV at 25 frames a second, which has to be encoded, and v4l2loopback, which
plays Motion JPEG of that size and rate, to be passed on. Each program has them to itself, one after the other, and is
measured without a client, with one that takes every frame, and with ten. Clients run on the host: of ustreamer, HTTP
streams; of ours, UA sessions with one monitored item each, its sampling interval that of the frames.

CPU time is the guest kernel's own account of the server's process (utime + stime), divided by the pictures that arrived
at all clients together; without clients, by seconds. The guest's clock counts instructions, so that the load of this
host is not in it. An instruction is not a cycle, and what the figures say about milliseconds on a board is little:
what counts is the ratio. ustreamer speaks plain HTTP; UA is measured as it is offered on the network, signed and
encrypted, so that a ratio is that of the whole and not of the cameras' part alone.

ustreamer's options, where they are not its defaults:
  --format, --resolution, --desired-fps   the camera's mode, so that both read the same frames
  --quality 80                            of the encoder, which is ours too
  --drop-same-frames 0                    sends every frame (its default; stated because the other costs and saves)
  --host 0.0.0.0                          clients are outside of the guest
Workers: its default, one for each core.

With SPAN, RATE and CLIENTS in the environment a run can be made shorter: SPAN=5 CLIENTS="0 1".
"""

import logging
import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/vm"))
import jpegs  # noqa: E402
from appliance import appliance_with, child  # noqa: E402
from machine import DRIVER_BUFFERS, Machine, wait_until  # noqa: E402

SIZE = (640, 480)
RATE = int(os.environ.get("RATE", 25))
HTTP = 8080
# Seconds of the guest that each figure is taken over, after the clients have had some to get going.
SPAN = float(os.environ.get("SPAN", 10))
SETTLE = 3.0
CLIENTS = [int(count) for count in os.environ.get("CLIENTS", "0 1 10").split()]
CAMERAS = {"vivid YUYV": ("raw", "/dev/video0", "YUYV"), "loopback MJPG": ("mjpg", "/dev/video8", "MJPEG")}
DRIVERS = f"""
modprobe vivid n_devs=1 node_types=0x1
modprobe v4l2loopback video_nr=8 card_label=Loop exclusive_caps=1 max_buffers={DRIVER_BUFFERS}
"""


def config() -> str:
    cameras = "".join(
        f"""
[[camera]]
name = "{name}"
device = "{device}"
width = {SIZE[0]}
height = {SIZE[1]}
rate = {RATE}.0
quality = 80
"""
        for name, device, _ in CAMERAS.values()
    )
    return f"""
[device]
name = "vedette-vm"

[ua_server]
listen = "0.0.0.0:4840"

[cameras]
discover = false
{cameras}"""


class Streams:
    """HTTP clients of ustreamer, each in a thread of its own."""

    BOUNDARY = b"--boundarydonotcross"

    def __init__(self, port: int, count: int):
        self.pictures = 0
        self._stop = False
        self._threads = [threading.Thread(target=self._run, args=(port,), daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, port: int):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(b"GET /stream HTTP/1.0\r\nHost: guest\r\n\r\n")
            tail = b""
            while not self._stop and (chunk := connection.recv(1 << 16)):
                data = tail + chunk
                self.pictures += data.count(self.BOUNDARY)
                # Less than a boundary, so that none is counted twice.
                tail = data[-len(self.BOUNDARY) + 1 :]

    def close(self):
        self._stop = True
        for thread in self._threads:
            thread.join()


class Sessions:
    """UA clients, each with a session and a subscription of its own."""

    def __init__(self, new_session, camera: str, count: int):
        self.pictures = 0
        # First all sessions, then all pictures: connecting takes time too, the more the more pictures there are.
        self._clients = [new_session() for _ in range(count)]
        images = [child(client.nodes.objects, "Cameras", camera, "Camera Image") for client in self._clients]
        subscriptions = [client.create_subscription(20, self) for client in self._clients]
        for subscription, image in zip(subscriptions, images):
            subscription.subscribe_data_change(image, queuesize=4, sampling_interval=1000 / RATE)

    def datachange_notification(self, _node, value, _data):
        self.pictures += value is not None

    def status_change_notification(self, status):
        print(f"a subscription has ended: {status}", file=sys.stderr)

    def close(self):
        for client in self._clients:
            client.disconnect()


def now(machine: Machine) -> float:
    """Seconds on the guest's clock, which is slower than ours: see Machine's `count_instructions`."""
    return float(machine.check("cat /proc/uptime").split()[0])


def pause(machine: Machine, seconds: float):
    """Waits for so long on the guest's clock."""
    end = now(machine) + seconds
    while (left := end - now(machine)) > 0:
        time.sleep(max(left, 1))


def measured(machine: Machine, pid: int, clients) -> tuple[float, float]:
    """CPU seconds and pictures, both per second."""
    pause(machine, SETTLE)
    cpu, pictures, begin = machine.cpu_seconds(pid), clients.pictures, now(machine)
    pause(machine, SPAN)
    cpu, pictures, span = machine.cpu_seconds(pid) - cpu, clients.pictures - pictures, now(machine) - begin
    clients.close()
    print(f"  {type(clients).__name__.lower()}: {cpu / span * 100:.1f} % of a core, {pictures / span:.1f} pictures/s",
          file=sys.stderr)
    return cpu / span, pictures / span


def ustreamer(machine: Machine) -> dict:
    found = {}
    for camera, (_, device, fmt) in CAMERAS.items():
        command = (
            f"ustreamer --device {device} --format {fmt} --resolution {SIZE[0]}x{SIZE[1]} --desired-fps {RATE} "
            f"--quality 80 --drop-same-frames 0 --host 0.0.0.0 --port {HTTP}"
        )
        pid = int(machine.check(f"{command} >/tmp/ustreamer.log 2>&1 & echo $!"))
        wait_until(lambda: f":{HTTP}" in machine.check("netstat -ltn"), 20, "ustreamer listens")
        for count in CLIENTS:
            found[camera, count] = measured(machine, pid, Streams(machine.ports[HTTP], count))
        machine.check(f"kill {pid}")
        wait_until(lambda: machine.sh(f"kill -0 {pid}").code, 20, "ustreamer has ended")
    return found


def firmware(machine: Machine, new_session) -> dict:
    found = {}
    pid = int(machine.check("pidof vedette"))
    for camera, (name, _, _) in CAMERAS.items():
        for count in CLIENTS:
            found[camera, count] = measured(machine, pid, Sessions(new_session, name, count))
    return found


def boot(folder: Path):
    return appliance_with(
        folder,
        config(),
        DRIVERS,
        with_ustreamer=True,
        forward=(4840, HTTP),
        count_instructions=True,
        lifetime=3600,
    )


def playing(machine: Machine):
    return machine.play([jpegs.whole(seed, SIZE) for seed in range(8)], "/dev/video8", SIZE, RATE)


def show(ours: dict, theirs: dict):
    print(f"{'camera':15} {'clients':>7} {'ustreamer':>24} {'vedette':>24} {'ours/theirs':>12}")
    for (camera, count), (cpu, rate) in theirs.items():
        own_cpu, own_rate = ours[camera, count]
        if count:
            cells = [f"{c / max(r, 1e-9) * 1000:8.2f} ms at {r:5.1f}/s" for c, r in ((cpu, rate), (own_cpu, own_rate))]
            ratio = (own_cpu / max(own_rate, 1e-9)) / (cpu / rate)
        else:
            cells = [f"{c * 1000:8.2f} ms per second" for c in (cpu, own_cpu)]
            ratio = own_cpu / cpu
        print(f"{camera:15} {count:7} {cells[0]:>24} {cells[1]:>24} {ratio:12.2f}")


def main():
    # It speaks of each session's timeout, and at length of what it had to give up at the end.
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        with boot(Path(folder)) as appliance, playing(appliance.machine):
            theirs = ustreamer(appliance.machine)
            ours = firmware(appliance.machine, appliance.new_session)
    show(ours, theirs)


main()
