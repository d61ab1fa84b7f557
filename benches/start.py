"""How long from start to the first picture, how much memory, how much CPU time while idle. Run by scripts/bench.

Times are wall time on this machine; CPU and memory are the kernel's own accounts of the process.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/peers"))
from asyncua.sync import Client  # noqa: E402
from conftest import BINARY, Vedette, child, picture  # noqa: E402

CONFIG = (Path(__file__).resolve().parents[1] / "config/demo.toml").read_text().replace("4840", "{port}")
IDLE = 30.0


def memory(pid, field):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def once(folder, first_start):
    vedette = Vedette(folder, CONFIG.replace('broker = "mqtt://127.0.0.1:1883"', 'broker = "mqtt://127.0.0.1:1"'))
    if not first_start:
        vedette.start().stop()
    begin = time.monotonic()
    vedette.start(wait=False)
    while not vedette.says("Serving OPC UA"):
        assert not vedette.ended(), vedette.text()
        time.sleep(0.001)
    up = time.monotonic()
    client = Client(vedette.url)
    client.connect()
    image = child(client.nodes.objects, "Camera Device", "Camera Image")
    connected = time.monotonic()
    picture(image.read_value())
    first = time.monotonic()
    client.disconnect()
    return vedette, up - begin, first - begin, first - connected


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name, first_start in [("first start (makes its keys)", True), ("later start", False)]:
            place = folder / name
            place.mkdir()
            vedette, up, first, read = once(place, first_start)
            print(f"{name}: serving after {up * 1000:.0f} ms, first picture {first * 1000:.0f} ms after start "
                  f"(the read itself {read * 1000:.0f} ms; the rest is the client's connecting and browsing)")
            if first_start:
                vedette.stop()
        time.sleep(4)
        before = vedette.cpu_seconds()
        time.sleep(IDLE)
        cpu = (vedette.cpu_seconds() - before) / IDLE
        print(f"idle, demo configuration, {BINARY.stat().st_size} bytes of binary: {memory(vedette.process.pid, 'VmRSS'):.1f} MiB resident "
              f"(peak {memory(vedette.process.pid, 'VmHWM'):.1f}), {cpu * 100:.2f} % of one core")
        vedette.stop()


if __name__ == "__main__":
    main()
