"""The life of a device: a first start with a file that has a fault, one with a good file, an update that is bad, one that is good.

The tests build on each other, as the years of a device do. What needs more time is in test_long.py.
"""

import pytest
from appliance import child, decode
from asyncua.sync import ThreadLoop
from device import BOOT, CLOSED, PASSWORD
from machine import wait_until
from upstream import NODE

KEPT = "/data/vedette/kept"
# From the command to the last word: fetched, installed, started, found healthy.
UPDATE = 600 + BOOT
OTHER = {"A": "B", "B": "A"}


def identity(device) -> list[str]:
    """What must be the same as long as the device lives."""
    return device.ssh("cat /etc/machine-id; sha256sum </data/vedette/pki/own/cert.der; cat /data/ssh/host_ed25519.pub").splitlines()


def provisioned(device) -> list[str]:
    """A device that has been told what it is; its identity."""
    device.provide()
    device.power_on()
    device.wait_for_slot("A")
    device.ssh(f"echo kept >{KEPT}; sync")
    return identity(device)


def answers(device):
    """As a user of the plant sees it: a picture and a number."""
    with ThreadLoop() as loop:
        client = device.session(loop)
        objects = client.nodes.objects
        image = child(objects, "Cameras", "line1", "Camera Image")
        assert decode(image.read_data_value(raise_on_bad_status=False)).size == (640, 480)
        assert child(objects, "Tags", "load", "counter").read_value() > 0
        client.disconnect()


def is_whole(device, first: list[str]):
    """Nothing of what it was told or has kept is lost, and it works."""
    assert device.ssh(f"cat {KEPT}; hostname").split() == ["kept", NODE]
    assert identity(device) == first
    assert device.ssh("test ! -e /run/vedette/data-lost && systemctl --failed --no-legend") == ""
    answers(device)


def install(device, version: str = "good") -> str:
    """By somebody at the device, who chooses the moment of the reboot himself; the slot that is next."""
    bundle = device.server.offer(device.bundles[version], version)
    said = device.ssh(f"vedette update {bundle['url']} --sha256 {bundle['sha256']} --version {version} --no-reboot", 900)
    assert "is installed into the other slot" in said
    return OTHER[device.slot()]


def confirmed(device, slot: str):
    device.wait_for_slot(slot)
    wait_until(lambda: device.counters().get(f"BOOT_{slot}_LEFT") == device.board.confirmed, 120, "the slot is marked good")
    # After that it is noted on /data, and until then no update is taken.
    told = "systemctl show --property ActiveState --value vedette-mark-good.service"
    wait_until(lambda: device.ssh(told).strip() != "activating", 120, "the device knows it")


@pytest.fixture(scope="module")
def first(device):
    """The identity that the device made for itself at its first start."""
    return provisioned(device)


def test_a_file_with_a_fault_is_refused_and_the_device_comes_up(device):
    fault = f'[provision]\nhost_name = "{NODE}"\n[mqtt]\nbrokr = "mqtt://10.0.2.2"\n'
    device.put_on_boot_partition("vedette.toml", fault.encode())
    device.power_on()
    device.wait_for_server()
    wait_until(lambda: "vedette.toml:4" in device.console(), 60, "the console says it, too")
    # The power goes, because somebody wants his card back.
    device.cut()
    assert set(device.boot_partition()) == {*device.board.shipped, "vedette.toml", "vedette-errors.txt"}
    said = device.on_boot_partition("vedette-errors.txt")
    assert "vedette.toml:4" in said and "brokr" in said, said


def test_a_new_device_answers_and_reports(device, first):
    birth = device.host.wait_for_birth(BOOT)
    assert device.host.wait_for_device("load", 60)["counter"] > 0
    # There is no time server in here, and that is not hidden.
    assert birth["Properties/Clock"] == "not set" and birth["Properties/Slot"] == "A", sorted(birth)
    # Our service can read whose signatures are taken, and says that whoever built this image may sign.
    assert birth["Properties/UpdateKeys"] == "development"
    answers(device)


def test_a_new_device_has_taken_what_was_on_the_boot_partition(device, first):
    assert device.ssh("hostname").strip() == NODE
    assert device.ssh("findmnt -n /boot || true") == "", "not mounted any more"
    assert set(device.boot_partition()) == device.board.shipped
    # Its secrets are erased, and not only its name.
    assert device.ssh("readlink -f /etc/vedette/vedette.toml; stat -c '%U %a' /data/vedette/vedette.toml").split() == [
        "/data/vedette/vedette.toml", "vedette", "600"]  # fmt: skip
    assert device.finds_on_disk("boot", PASSWORD) == 0
    assert device.finds_on_disk("boot", device.board.script) > 0, "this looks where files are"


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
    # Whoever listens without having been configured is not heard: a firewall, not good luck.
    device.ssh(f"systemd-run --quiet systemd-socket-activate --accept --inetd --listen={CLOSED} /bin/echo heard")
    wait_until(lambda: f":{CLOSED} " in device.ssh("ss -Hlnt"), 60, "somebody listens")
    assert device.hears(CLOSED) == b""
    device.ssh(f"nft add element inet vedette tcp_ports {{ {CLOSED} }}")
    assert device.hears(CLOSED) == b"heard\n", "this sees what is open"
    device.ssh(f"nft delete element inet vedette tcp_ports {{ {CLOSED} }}")
    # Nobody has a password.
    passwords = {line.split(":")[1] for line in device.ssh("cat /etc/passwd /etc/shadow").splitlines()}
    assert passwords <= {"*", "x", "!", "!*"}
    assert "rauc.slot=A" in device.ssh("cat /proc/cmdline") and "vedette.trial" not in device.ssh("cat /proc/cmdline")


def test_an_update_that_is_not_healthy_is_taken_back(device, first):
    id = device.update("broken")
    # It hears so itself, from the slot that runs again.
    end = device.host.end(id, UPDATE + 3 * BOOT)
    assert end["state"] == "failed" and "slot A runs again" in end["reason"], end
    assert device.host.said(id, "installing: ") and device.host.said(id, "rebooting"), device.host.of(id)
    device.wait_for_slot("A")
    # Three tries, and then what was there before.
    assert device.starts()[-4:] == ["B 2", "B 1", "B 0", "A"], device.starts()
    assert device.counters() == {"BOOT_ORDER": "B A", "BOOT_A_LEFT": device.board.confirmed, "BOOT_B_LEFT": "0"}
    is_whole(device, first)


def test_an_update_that_is_healthy_is_kept(device, first):
    births = len(device.host.births)
    id = device.update("good")
    end = device.host.end(id, UPDATE)
    assert end["state"] == "done" and "in slot B" in end["reason"], end
    device.host.wait_for_birth(60, more_than=births)
    device.wait_for_slot("B")
    wait_until(lambda: device.counters().get("BOOT_B_LEFT") == device.board.confirmed, 120, "the slot is marked good")
    is_whole(device, first)
