"""The three servers of the benchmarks, each with the same nodes, and what the kernel says of them."""

import atexit
import io
import os
import random
import struct
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests/peers"))
from conftest import BINARY, Vedette, free_port, wait_until  # noqa: E402
from identities import make_identity, trust  # noqa: E402
from PIL import Image  # noqa: E402

DOUBLE = "ns=2;s=Tags/load/set_point"
WAVES = [f"ns=2;s=Tags/load/waves/{wave}" for wave in range(1, 1001)]
IMAGE = "ns=2;s=Cameras/noise/Camera Image"
NAMES = ["vedette", "asyncua", "node-opcua"]
# The same program with `verify_jpeg = false`: like the peers it does not look into pictures.
UNVERIFIED = "vedette-unverified"

# The waves stand still, so that only what a client asks for is measured. The pictures are made elsewhere and are passed
# on as they are, but received from a pipe, and looked through, as from any camera.
CONFIG = """
[device]
name = "vedette-bench"
log = "warn,vedette=info"
[ua_server]
listen = "127.0.0.1:{port}"
insecure_on_loopback = true
[cameras]
discover = false
max_bytes = 2000000
verify_jpeg = VERIFY
[[simulator]]
name = "load"
interval = "1h"
waves = 1000
[[camera]]
name = "noise"
device = "pipe"
command = ['PYTHON', 'SCRIPT', 'PICTURES', 'RATE']
format = "mjpeg"
"""

CAMERA = HERE / "camera.py"


def make_pictures(path: Path, count=4, size=1_000_000):
    """JPEGs of about a megabyte, no two alike: noise, with the quality that comes nearest from below."""
    noise = random.Random(1)
    with path.open("wb") as file:
        for _ in range(count):
            image = Image.frombytes("L", (1280, 960), noise.randbytes(1280 * 960))
            for quality in range(95, 1, -1):
                data = io.BytesIO()
                image.save(data, "JPEG", quality=quality)
                if data.tell() <= size:
                    break
            file.write(struct.pack("<I", data.tell()) + data.getvalue())


class Killed(Vedette):
    """Not left behind by a benchmark that fails."""

    def start(self, *arguments, **options):
        super().start(*arguments, **options)
        kill_at_exit(self.process)
        return self


def kill_at_exit(process: subprocess.Popen):
    atexit.register(lambda: process.poll() is None and process.kill())


class Server:
    """One of them, running. `identity` is the client's, which it trusts."""

    def __init__(self, name: str, folder: Path, identity: Path, pictures: Path, rate: float):
        self.name = name
        self.port = free_port()
        folder.mkdir()
        getattr(self, "_start_" + name.replace("-", "_"))(folder, identity, pictures, rate)
        self.url = f"opc.tcp://127.0.0.1:{self.port}"
        self.pid = self.process.pid

    def _start_vedette(self, folder, identity, pictures, rate, verify="true"):
        config = CONFIG.replace("VERIFY", verify)
        # A camera gives its first picture at once and then stands still, if the rate is 0.
        for word, value in {"PYTHON": sys.executable, "SCRIPT": CAMERA, "PICTURES": pictures, "RATE": rate}.items():
            config = config.replace(word, str(value))
        vedette = Killed(folder, config)
        trust(vedette, identity)
        vedette.start()
        self.process, self.port = vedette.process, vedette.port

    def _start_vedette_unverified(self, *arguments):
        self._start_vedette(*arguments, verify="false")

    def _start_asyncua(self, folder, identity, pictures, rate):
        own = make_identity(folder)
        self._spawn(folder, sys.executable, HERE / "peer_asyncua.py", self.port, own, pictures, rate)

    def _start_node_opcua(self, folder, identity, pictures, rate):
        self._spawn(folder, "node", HERE / "peer_node.js", self.port, folder / "pki", pictures, rate)

    def _spawn(self, folder, *command):
        modules = ROOT / "target/node/node_modules"
        log = folder / "log"
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdout=file, stderr=file, env={**os.environ, "NODE_PATH": str(modules)}
            )
        kill_at_exit(self.process)
        ready = lambda: b"ready\n" in log.read_bytes() or self.process.poll() is not None  # noqa: E731
        wait_until(f"{self.name} is ready", ready, 120)
        assert self.process.poll() is None, log.read_text()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def cpu(self) -> float:
        return cpu_seconds(self.pid)


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads so far, to the nanosecond (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def memory(pid: int) -> dict[str, float]:
    """MiB: Rss, Pss (shared pages by halves), Private_Dirty and so on, by smaps_rollup (proc(5)); the peak is VmHWM."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, amount = line.split(":")
        found[name] = int(amount.split()[0]) / 1024
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(("VmHWM", "Threads")):
            found[line.split(":")[0]] = int(line.split()[1]) / (1024 if line.startswith("Vm") else 1)
    return found
