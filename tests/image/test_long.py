"""Faults that take their time: run by `scripts/test --long image` (VEDETTE_LONG=1)."""

import os
import random
import time

import pytest
from device import BOOT, run
from machine import ROOT, wait_until
from test_device import KEPT, answers, cut_during_update, first, identity  # noqa: F401 first is a fixture

pytestmark = pytest.mark.skipif(not os.environ.get("VEDETTE_LONG"), reason="only with VEDETTE_LONG=1")
CUTS = int(os.environ.get("VEDETTE_CUTS", "6"))


def offset_of(label: str) -> int:
    """Where a partition begins, in bytes."""
    start = 1
    for line in (ROOT / "config/device/partitions").read_text().splitlines():
        if line and not line.startswith("#"):
            name, size, *_ = line.split()
            if name == label:
                return start << 20
            start += int(size)
    raise KeyError(label)


def overwrite(device, label: str, content: bytes, at: int = 0):
    """As a card does that forgets; the device is off."""
    with open(device.disk, "r+b") as disk:
        disk.seek(offset_of(label) + at)
        disk.write(content)


def restart(device, slot: str, timeout: float = BOOT):
    device.cut()
    device.power_on()
    device.wait_for_slot(slot, timeout)


def update(device, bundle):
    device.put(bundle)
    assert "succeeded" in device.ssh("rauc install /data/update.raucb", 600)


def test_a_new_slot_whose_root_is_destroyed_is_given_up_at_once(device, first):
    update(device, device.bundles.good)
    device.ssh("dd if=/dev/zero of=/run/vedette/disk/root-b bs=1M count=4; sync")
    device.reboot()
    device.wait_for_slot("A", 2 * BOOT)
    # The kernel is whole; the initramfs writes that there is no try left.
    assert device.starts()[-2:] == ["B 2", "A"]
    assert device.counters()["BOOT_B_LEFT"] == "0"


def test_a_new_slot_whose_kernel_is_damaged_is_not_started(device, first):
    update(device, device.bundles.good)
    device.ssh("dd if=/dev/urandom of=/run/vedette/disk/kernel-b bs=1M seek=4 count=2; sync")
    device.reboot()
    device.wait_for_slot("A", 2 * BOOT)
    assert "slot B cannot be loaded" in device.console()


def test_a_confirmed_slot_whose_root_is_destroyed_gives_way_too(device, first):
    update(device, device.bundles.good)
    device.reboot()
    device.wait_for_slot("B")
    wait_until(lambda: device.counters().get("BOOT_B_LEFT") == "64", 120, "the slot is marked good")
    device.cut()
    overwrite(device, "root-b", bytes(4 << 20))
    device.power_on()
    device.wait_for_slot("A", 2 * BOOT)
    assert device.ssh(f"cat {KEPT}") == "kept\n"


def test_a_kernel_that_panics_on_trial_is_counted(device, first):
    update(device, device.bundles.good)
    device.reboot()
    # Before the gate has spoken.
    wait_until(lambda: device.try_ssh("echo c >/proc/sysrq-trigger", 20).returncode == 255, BOOT, "the kernel panics", 2)
    device.wait_for_slot("B", 2 * BOOT)
    assert device.starts()[-2:] == ["B 2", "B 1"]


def test_boot_counters_that_are_damaged_start_what_there_is(device, first):
    device.cut()
    for copy in (0, 0x80000):
        overwrite(device, "env", random.randbytes(64), copy)
    device.power_on()
    # Without counters A is taken; it is whole.
    device.wait_for_slot("A")
    assert "no valid boot counters" in device.console()


def test_data_that_is_damaged_is_mended_and_the_device_comes_up(device, first):
    device.cut()
    kept = device.disk.with_suffix(".kept")
    run("cp", "--sparse=always", device.disk, kept)
    overwrite(device, "data", bytes(64 << 10))
    restart(device, "A")
    assert "/data is damaged, mending it" in device.console()
    assert device.ssh(f"cat {KEPT}") == "kept\n"
    device.cut()
    kept.rename(device.disk)
    restart(device, "A")


def test_power_cuts_at_any_moment(device, first):
    seed = int(os.environ.get("VEDETTE_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"VEDETTE_SEED={seed}")
    chance = random.Random(seed)
    running = device.ssh("grep -o 'rauc.slot=.' /proc/cmdline").strip()[-1]
    for cut in range(CUTS):
        if cut % 2:
            # While it starts: growing, provisioning, making keys, mounting.
            device.cut()
            device.power_on()
            time.sleep(chance.uniform(5, 60))
        else:
            device.put(device.bundles.good)
            cut_during_update(device, chance.uniform(1, 30))
        restart(device, running)
        assert device.ssh(f"cat {KEPT}") == "kept\n"
        assert identity(device) == first
    answers(device)
