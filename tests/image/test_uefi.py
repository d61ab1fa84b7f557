"""A generic gateway: the same device, started by UEFI firmware and GRUB, from the disks that such machines have.

A first start from NVMe, and an update by somebody at the device. With VEDETTE_LONG=1 what may break, as test_long.py has it for
U-Boot; what GRUB has of its own, its counters; and the other disks.
"""

import json
import os
import random

import pytest
import test_long
from device import DISKS, UEFI, Bundles, Device, run
from machine import wait_until
from test_device import OTHER, answers, confirmed, first, install, is_whole  # noqa: F401 first is a fixture

ATTACHED = "nvme0n1"
long = pytest.mark.skipif(not os.environ.get("VEDETTE_LONG"), reason="only with VEDETTE_LONG=1")
COUNTERS = "EFI/BOOT/grubenv"


@pytest.fixture(scope="module")
def bundles(bundles) -> Bundles:
    return Bundles(bundles.folder.parent, UEFI)


def rauc_status(device) -> tuple[str, str, dict[str, tuple[str, str]]]:
    """What it is, which slot runs, and of each whether it runs and is good."""
    said = json.loads(device.ssh("rauc status --output-format=json"))
    slots = {name: slot for entry in said["slots"] for name, slot in entry.items() if slot["class"] == "rootfs"}
    return said["compatible"], said["booted"], {slot["bootname"]: (slot["state"], slot["boot_status"]) for slot in slots.values()}


def test_a_gateway_starts_from_its_disk(device, first):
    assert device.starts() == ["A"]
    assert device.ssh("readlink /run/vedette/disk/root-a; cat /sys/firmware/efi/fw_platform_size").split() == ["/dev/nvme0n1p5", "64"]
    assert set(device.boot_partition()) == device.board.shipped
    assert rauc_status(device) == ("vedette-generic", "A", {"A": ("booted", "good"), "B": ("inactive", "bad")})
    # A device that just runs never writes them.
    assert device.counters() == {"BOOT_ORDER": "A B", "BOOT_A_LEFT": "100", "BOOT_B_LEFT": "0"}
    answers(device)


def test_an_update_is_tried_and_kept(device, first):
    assert install(device) == "B"
    assert device.counters() == {"BOOT_ORDER": "B A", "BOOT_A_LEFT": "100", "BOOT_B_LEFT": "3"}
    device.reboot()
    confirmed(device, "B")
    assert device.starts()[-1] == "B 2"
    assert rauc_status(device) == ("vedette-generic", "B", {"A": ("inactive", "good"), "B": ("booted", "good")})
    is_whole(device, first)


# -- As with U-Boot

test_a_new_slot_whose_root_is_destroyed_is_given_up_at_once = long(test_long.test_a_new_slot_whose_root_is_destroyed_is_given_up_at_once)
test_a_new_slot_whose_kernel_is_damaged_is_not_started = long(test_long.test_a_new_slot_whose_kernel_is_damaged_is_not_started)
test_a_confirmed_slot_whose_root_is_destroyed_gives_way_too = long(test_long.test_a_confirmed_slot_whose_root_is_destroyed_gives_way_too)
test_a_kernel_that_panics_on_trial_is_counted = long(test_long.test_a_kernel_that_panics_on_trial_is_counted)
test_a_system_that_hangs_is_reset_by_the_hardware = long(test_long.test_a_system_that_hangs_is_reset_by_the_hardware)


# -- What GRUB has of its own


@long
def test_counters_that_are_damaged_are_made_again_when_they_are_needed(device, first):
    slot = device.slot()
    device.ssh("sync")
    device.cut()
    device.put_on_boot_partition(COUNTERS, random.randbytes(1024))
    device.power_on()
    # Without counters A is taken; it is whole.
    device.wait_for_slot("A")
    assert "no valid boot counters" in device.console()
    if slot == "A":
        is_whole(device, first)
    new = install(device)
    assert device.counters() == {"BOOT_ORDER": "B A", "BOOT_A_LEFT": "100", "BOOT_B_LEFT": "3"}
    device.reboot()
    confirmed(device, new)
    is_whole(device, first)


@long
def test_without_counters_the_slot_that_is_whole_is_found(device, first):
    """A's kernel is gone, and so are the counters that said that B is the good one."""
    new = install(device)
    if new == "A":
        device.reboot()
        confirmed(device, new)
        install(device)
    device.reboot()
    confirmed(device, "B")
    device.ssh("dd if=/dev/zero of=/run/vedette/disk/kernel-a bs=1M count=8; sync")
    device.cut()
    device.put_on_boot_partition(COUNTERS, bytes(1024))
    device.power_on()
    confirmed(device, "B")
    # What marked it good has made them again.
    device.reboot()
    device.wait_for_slot("B")
    assert device.console().count("no valid boot counters") == 1
    is_whole(device, first)


# QEMU's firmware for arm64 finds nothing to start from on these.
unknown = pytest.mark.skip(reason="QEMU's firmware does not know such disks")
ATTACHABLE = [pytest.param(disk, marks=unknown if disk in ("sda", "mmcblk0") else ()) for disk in sorted(set(DISKS) - {ATTACHED})]


@long
@pytest.mark.parametrize("attached", ATTACHABLE)
def test_a_gateway_starts_from_any_disk(tmp_path, bundles, attached):
    device = Device(tmp_path, bundles, attached)
    try:
        device.provide()
        device.power_on()
        device.wait_for_slot("A")
        assert device.ssh("readlink /run/vedette/disk/root-a").startswith(f"/dev/{'sda' if attached == 'usb' else attached}")
        answers(device)
    finally:
        device.close()
