"""The power goes, at random moments, while samples are written: what was committed arrives at the broker, once it can.

The machine has a disk of its own, with ext4, that outlives it; pulling the plug is killing the emulator, so whatever the
guest had not synced is gone. During every other life there is no broker. VEDETTE_CUTS is how often (10).

What arrives is told apart by the simulator's counter, which begins anew with each life: the values of a life must have
no hole, and its end must be no longer ago than what was not committed yet.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from datetime import datetime
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from machine import ROOT, Machine, build_image, free_port, wait_until

CUTS = int(os.environ.get("VEDETTE_CUTS", "10"))
# Seconds that a life lasts after the firmware was started.
LIFE = (6.0, 14.0)
# A commit each half second, and as long for a slow host; a store that commits much later than it says loses more.
UNCOMMITTED = 5.0

CONFIG = """
[device]
name = "vedette-vm"
[cameras]
discover = false
[store]
commit_interval = "500ms"
[mqtt]
broker = "mqtt://10.0.2.2:{broker}"
format = "json"
publish_interval = "200ms"
keep_alive = "5s"
tags = ["load/**"]
[mqtt.json]
topic = "cuts"
layout = "batch"
[[simulator]]
name = "load"
interval = "50ms"
waves = 50
"""
DRIVERS = """
modprobe virtio_blk
modprobe crc32c_generic
modprobe ext4
mount -t ext4 /dev/vda /data
"""


class Broker:
    def __init__(self, folder: Path):
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
        self._process = None

    def start(self):
        self._process = subprocess.Popen(["mosquitto", "-c", str(self._config)])

    def stop(self):
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


class Collector:
    """Keeps the counter's values with their times, as often as they come."""

    def __init__(self, port: int):
        self.rows: list[tuple[float, int]] = []
        self.last_historical = time.monotonic()
        self._lock = threading.Lock()
        self._client = paho.Client("collector")
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("cuts/data", 1)
        self._client.on_message = self._on_message
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    def _on_message(self, _client, _userdata, message):
        for row in json.loads(message.payload)["values"]:
            if row.get("historical"):
                self.last_historical = time.monotonic()
            if row["tag"] == "load/counter" and row["quality"] == "Good":
                with self._lock:
                    self.rows.append((datetime.fromisoformat(row["time"]).timestamp(), row["value"]))

    def lives(self) -> list[list[tuple[float, int]]]:
        """The values of each life in their order, each once."""
        with self._lock:
            rows = sorted(set(self.rows))
        lives = []
        for row in rows:
            if not lives or row[1] <= lives[-1][-1][1]:
                lives.append([])
            lives[-1].append(row)
        return lives

    def close(self):
        self._client.loop_stop()
        self._client.disconnect()


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path)
    yield broker
    broker.stop()


def cut(machine: Machine):
    """`timeout` leads a process group with the emulator in it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(machine._process.pid, signal.SIGKILL)


def test_what_was_committed_arrives_whenever_the_power_goes(tmp_path, broker):
    binary = Path(os.environ.get("VEDETTE_BINARY") or ROOT / "target/dist/vedette-aarch64")
    overlay = tmp_path / "overlay"
    (overlay / "etc").mkdir(parents=True)
    (overlay / "etc/vedette.toml").write_text(CONFIG.format(broker=broker.port))
    (overlay / "etc/drivers").write_text(DRIVERS)
    image = build_image(tmp_path / "initramfs.cpio.gz", binary, overlay)
    disk = tmp_path / "disk"
    with open(disk, "wb") as file:
        file.truncate(256 << 20)
    mke2fs = shutil.which("mke2fs", path=os.environ["PATH"] + ":/sbin:/usr/sbin")
    subprocess.run([mke2fs, "-q", "-t", "ext4", str(disk)], check=True)
    more = ("-drive", f"file={disk},if=virtio,format=raw")

    seed = int(os.environ.get("VEDETTE_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"VEDETTE_SEED={seed}")
    chance = random.Random(seed)
    broker.start()
    collector = Collector(broker.port)
    ended = []
    try:
        for life in range(CUTS):
            if life % 2:
                broker.stop()
            with Machine(image, more=more, forward=()) as machine:
                machine.wait_ready()
                time.sleep(chance.uniform(*LIFE))
                cut(machine)
                ended.append(time.time())
            if life % 2:
                broker.start()
        with Machine(image, more=more, forward=()) as machine:
            machine.wait_ready()
            wait_until(lambda: len(collector.lives()) > CUTS, 120, "the last life is heard")
            collector.last_historical = time.monotonic()
            wait_until(lambda: time.monotonic() > collector.last_historical + 10, 300, "nothing is owed any more", 1)
            assert "damaged" not in machine.firmware_log(), machine.firmware_log()
            cut(machine)
    finally:
        collector.close()

    lives = collector.lives()
    assert len(lives) == CUTS + 1, [len(life) for life in lives]
    for number, (life, end) in enumerate(zip(lives, ended)):
        values = [value for _, value in life]
        assert values == list(range(values[0], values[-1] + 1)), f"life {number} has holes"
        assert values[0] <= 1, f"life {number} begins with {values[0]}"
        lost = end - life[-1][0]
        assert lost < UNCOMMITTED, f"of life {number} the last {lost:.1f} s are lost"
    often = {}
    for row in collector.rows:
        often[row] = often.get(row, 0) + 1
    # What was sent and not yet acknowledged goes again with the next life: once for each cut, at most.
    twice = sum(count - 1 for count in often.values())
    print(f"{CUTS} cuts: {len(often)} values, {twice} of them twice")
    assert twice <= 40 * CUTS, twice
