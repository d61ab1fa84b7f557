"""The life of a device: first start, an update that is bad, one that is good, a power cut in the middle of the next.

The tests build on each other, as the years of a device do. What needs more time is in test_long.py.
"""

import random
import threading
import time

import paho.mqtt.client as paho
import pytest
from appliance import child, decode
from asyncua.sync import ThreadLoop
from device import BOOT
from machine import wait_until

KEPT = "/data/vedette/kept"


class Reports:
    """What the device says to the broker."""

    def __init__(self, port: int):
        self.topics: set[str] = set()
        self._client = paho.Client("reports")
        self._client.on_connect = lambda client, *_: client.subscribe("image/#", 1)
        self._client.on_message = lambda _client, _data, message: self.topics.add(message.topic)
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    def close(self):
        self._client.loop_stop()
        self._client.disconnect()


def identity(device) -> list[str]:
    """What must be the same as long as the device lives."""
    return device.ssh("cat /etc/machine-id; sha256sum </data/vedette/pki/own/cert.der; cat /data/ssh/host_ed25519.pub").splitlines()


@pytest.fixture(scope="module")
def first(device):
    """The identity that the device made for itself at its first start."""
    device.provide()
    device.power_on()
    device.wait_for_slot("A")
    device.ssh(f"echo kept >{KEPT}; sync")
    return identity(device)


def answers(device):
    with ThreadLoop() as loop:
        client = device.session(loop)
        objects = client.nodes.objects
        image = child(objects, "Cameras", "line1", "Camera Image")
        assert decode(image.read_data_value(raise_on_bad_status=False)).size == (640, 480)
        assert child(objects, "Tags", "load", "counter").read_value() > 0
        client.disconnect()


def test_a_new_device_answers_and_reports(device, first):
    reports = Reports(device.broker_port)
    try:
        answers(device)
        wait_until(lambda: reports.topics, 120, "the device reports")
    finally:
        reports.close()


def test_a_new_device_has_taken_what_was_on_the_boot_partition(device, first):
    assert device.ssh("ls /boot").strip() == "", "not mounted any more"
    assert "::/boot.scr" in device.boot_partition()
    assert not [name for name in device.boot_partition() if "vedette.toml" in name]


def test_a_new_device_uses_the_whole_disk_and_writes_nowhere_else(device, first):
    size = int(device.ssh("stat -f -c '%b %S' /data | { read -r blocks size; echo $((blocks * size)); }"))
    assert size > 1_300_000_000
    assert "No errors detected" in device.ssh("sfdisk --verify /dev/vda")
    assert device.try_ssh("touch /usr/x || touch /etc/x").returncode
    assert device.ssh("findmnt -n -o SOURCE,FSTYPE /data").split()[1] == "ext4"


def test_a_new_device_is_closed(device, first):
    sockets = [line.split() for line in device.ssh("ss -Hlntu").splitlines()]
    open_to_all = {row[0] + row[4].rsplit(":", 1)[1] for row in sockets if not row[4].startswith("127.0.0.1")}
    # The DHCP client's 68 is open to its server alone.
    assert open_to_all - {"udp68"} == {"tcp22", "tcp4840", "udp5353"}
    assert device.ssh("systemctl --failed --no-legend") == ""
    assert device.ssh("nft list chain inet vedette input").count("policy drop") == 1
    # Nobody has a password.
    passwords = {line.split(":")[1] for line in device.ssh("cat /etc/passwd /etc/shadow").splitlines()}
    assert passwords <= {"*", "x", "!", "!*"}
    assert "rauc.slot=A" in device.ssh("cat /proc/cmdline") and "vedette.trial" not in device.ssh("cat /proc/cmdline")


def test_an_update_that_is_not_healthy_is_taken_back(device, first):
    device.put(device.bundles.broken)
    assert "succeeded" in device.ssh("rauc install /data/update.raucb", 600)
    device.reboot()
    device.wait_for_slot("A", 4 * BOOT)
    # Three tries, and then what was there before; hexadecimal 64 is what a confirmed slot has.
    assert device.starts()[-4:] == ["B 2", "B 1", "B 0", "A"], device.starts()
    assert device.counters() == {"BOOT_ORDER": "B A", "BOOT_A_LEFT": "64", "BOOT_B_LEFT": "0"}
    assert identity(device) == first
    answers(device)


def test_an_update_that_is_healthy_is_kept(device, first):
    device.put(device.bundles.good)
    assert "succeeded" in device.ssh("rauc install /data/update.raucb", 600)
    device.reboot()
    device.wait_for_slot("B")
    wait_until(lambda: device.counters().get("BOOT_B_LEFT") == "64", 120, "the slot is marked good")
    assert device.ssh(f"cat {KEPT}") == "kept\n"
    assert identity(device) == first
    answers(device)


def test_the_power_goes_in_the_middle_of_an_update(device, first):
    """And while the firmware writes what it sees to its store."""
    after = random.uniform(1, 25)
    print(f"the power goes after {after:.1f} s")
    cut_during_update(device, after)
    device.power_on()
    device.wait_for_slot("B")
    assert device.ssh(f"cat {KEPT}") == "kept\n"
    assert identity(device) == first
    answers(device)


def cut_during_update(device, after: float):
    install = threading.Thread(target=lambda: device.try_ssh("rauc install /data/update.raucb", 600), daemon=True)
    install.start()
    time.sleep(after)
    device.cut()
    install.join(60)
