"""Faults that take their time: run by `scripts/test --long image` (VEDETTE_LONG=1). First what breaks a new slot, then what breaks
what runs, then the power, at any moment."""

import contextlib
import os
import random
import re
import time

import pytest
from device import BOOT, PASSWORD, Device, offset_of, partitions, run
from machine import ROOT, MachineError, wait_until
from test_device import KEPT, OTHER, UPDATE, confirmed, first, identity, install, is_whole  # noqa: F401 first is a fixture

pytestmark = pytest.mark.skipif(not os.environ.get("VEDETTE_LONG"), reason="only with VEDETTE_LONG=1")
CUTS = int(os.environ.get("VEDETTE_CUTS", "3"))


@pytest.fixture(scope="module")
def chance() -> random.Random:
    seed = int(os.environ.get("VEDETTE_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"VEDETTE_SEED={seed}")
    return random.Random(seed)


def overwrite(device, label: str, content: bytes, at: int = 0):
    """As a card does that forgets; the device is off."""
    with open(device.disk, "r+b") as disk:
        disk.seek(offset_of(label) + at)
        disk.write(content)


def restart(device, slot: str, timeout: float = BOOT):
    device.cut()
    device.power_on()
    device.wait_for_slot(slot, timeout)


def last_words(device, command: str):
    """After which there may be nobody who answers."""
    with contextlib.suppress(MachineError):
        device.try_ssh(command, 20)


def both_slots_are_good(device):
    """What runs is in one, and the other can be gone back to."""
    # One that has tries left is none: its kernel may be damaged.
    if device.counters().get(f"BOOT_{OTHER[device.slot()]}_LEFT") != device.board.confirmed:
        new = install(device)
        device.reboot()
        confirmed(device, new)


# -- Updates


def make_bundle(device, name: str, compatible: str = "vedette-qemu", keys: str = "target/image/keys"):
    """A signed bundle that says something else about itself; what is in it does not matter, because it must not get so far."""
    folder = device.folder / name
    folder.mkdir()
    for image in ("rootfs.img", "kernel.img"):
        (folder / image).write_bytes(random.randbytes(1 << 16))
    manifest = f"[update]\ncompatible={compatible}\nversion={name}\n[bundle]\nformat=verity\n"
    manifest += "[image.rootfs]\nfilename=rootfs.img\n[image.kernel]\nfilename=kernel.img\n"
    (folder / "manifest.raucm").write_text(manifest)
    bundle = folder.with_suffix(".raucb")
    run("rauc", "bundle", f"--cert={keys}/signing.cert.pem", f"--key={keys}/signing.key.pem", folder, bundle, cwd=ROOT)
    return bundle


def other_keys(folder):
    """Of somebody else, as good as ours."""
    folder.mkdir()
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
        "/CN=somebody else", "-keyout", folder / "signing.key.pem", "-out", folder / "signing.cert.pem")  # fmt: skip
    return folder


def test_updates_that_are_not_for_this_device_are_refused(device, first):
    before, slot = device.counters(), device.slot()
    good = device.server.offer(device.bundles["good"], "good")
    offers = {
        "signature": device.server.offer(make_bundle(device, "foreign", keys=other_keys(device.folder / "keys")), "foreign"),
        "vedette-rpi": device.server.offer(make_bundle(device, "pi", compatible="vedette-rpi"), "pi"),
        "version": good | {"version": "2.0"},
        "SHA-256": good | {"sha256": "0" * 64},
        "404": good | {"url": good["url"] + ".old"},
    }
    half = device.folder / "half.raucb"
    half.write_bytes(device.bundles["good"].read_bytes()[: 20 << 20])
    offers["half"] = device.server.offer(half, "good")
    for what, offer in offers.items():
        end = device.host.end(device.host.send("update", **offer), UPDATE)
        assert end["state"] == "failed", (what, end)
        assert what == "half" or what.lower() in end["reason"].lower(), (what, end)
    assert (device.counters(), device.slot()) == (before, slot)
    assert device.ssh("find /data/vedette/update -size +1000k") == "", "what was fetched is gone"


def test_an_update_that_loses_the_camera_is_taken_back(device, first):
    # What worked before is kept a minute after the start.
    wait_until(lambda: '"line1":""' in device.try_ssh("cat /data/vedette/health.json").stdout, 240, "what works is kept", 2)
    slot = device.slot()
    end = device.host.end(device.update("blind"), UPDATE + 4 * BOOT)
    assert end["state"] == "failed" and f"slot {slot} runs again" in end["reason"], end
    device.wait_for_slot(slot)
    assert "camera line1 worked before and does not now" in device.console()
    is_whole(device, first)


def test_an_update_goes_on_after_a_power_cut_in_its_download(device, first):
    slot = device.slot()
    device.server.stop_at = 30 << 20
    id = device.update("good")
    wait_until(lambda: device.host.said(id, "downloading"), 300, "it is under way")
    # On the disk is what the guest has written.
    wait_until(lambda: int(device.ssh("stat -c %s /data/vedette/update/bundle.raucb || echo 0")) > 20 << 20, 300, "half is here", 1)
    device.ssh("sync")
    device.cut()
    device.server.stop_at = None
    device.power_on()
    end = device.host.end(id, UPDATE + BOOT)
    assert end["state"] == "done", end
    assert device.server.ranges and int(re.search(r"\d+", device.server.ranges[-1])[0]) > 10 << 20, device.server.ranges
    confirmed(device, OTHER[slot])
    is_whole(device, first)


def test_an_update_begins_anew_after_a_power_cut_while_it_is_written(device, first):
    slot = device.slot()
    id = device.update("good")
    wait_until(lambda: device.host.said(id, "installing: "), UPDATE, "it is written")
    time.sleep(3)
    device.cut()
    device.power_on()
    end = device.host.end(id, UPDATE + BOOT)
    assert end["state"] == "done", end
    confirmed(device, OTHER[slot])
    is_whole(device, first)


def test_a_stick_with_a_bundle_updates_the_device_once(device, first):
    slot, stick = device.slot(), device.folder / "stick.img"
    with open(stick, "wb") as file:
        file.truncate(256 << 20)
    run("mkfs.vfat", "-n", "STICK", stick)
    # Another version than the one that runs, which nobody would install again.
    run("mcopy", "-i", stick, device.bundles["next"], "::vedette-next.raucb")
    device.ssh("sync")
    device.cut()
    device.power_on(stick=stick)
    confirmed(device, OTHER[slot])
    is_whole(device, first)
    # It is still in its socket.
    device.reboot()
    device.wait_for_slot(OTHER[slot])
    wait_until(lambda: "not taken again" in device.ssh("journalctl -b -u 'vedette-usb@*'"), 240, "the stick is looked at", 2)
    assert device.starts()[-1] == OTHER[slot]


def test_a_new_slot_whose_root_is_destroyed_is_given_up_at_once(device, first):
    slot, new = device.slot(), install(device)
    device.ssh(f"dd if=/dev/zero of=/run/vedette/disk/root-{new.lower()} bs=1M count=4; sync")
    device.reboot()
    device.wait_for_slot(slot, 2 * BOOT)
    # The kernel is whole; the initramfs writes that there is no try left.
    assert device.starts()[-2:] == [f"{new} 2", slot]
    assert device.counters()[f"BOOT_{new}_LEFT"] == "0"


def test_a_new_slot_whose_kernel_is_damaged_is_not_started(device, first):
    slot, new = device.slot(), install(device)
    device.ssh(f"dd if=/dev/urandom of=/run/vedette/disk/kernel-{new.lower()} bs=1M seek=4 count=2; sync")
    device.reboot()
    device.wait_for_slot(slot, 2 * BOOT)
    assert f"slot {new} cannot be loaded" in device.console()


def test_a_kernel_that_panics_on_trial_is_counted(device, first):
    new = install(device)
    device.reboot()

    def is_counted():
        # Before the gate has spoken, which wants to see it well for a minute.
        if device.starts()[-1] == f"{new} 2":
            last_words(device, "echo c >/proc/sysrq-trigger")
        return device.starts()[-2:] == [f"{new} 2", f"{new} 1"]

    wait_until(is_counted, BOOT, "the kernel panics and is started again", 2)
    device.wait_for_slot(new, 2 * BOOT)
    confirmed(device, new)


def test_a_release_whose_start_hangs_is_taken_back(device, first):
    slot, new = device.slot(), install(device, "stuck")
    device.reboot()
    device.wait_for_slot(slot, 5 * BOOT)
    assert device.starts()[-4:] == [f"{new} 2", f"{new} 1", f"{new} 0", slot], device.starts()
    assert "this slot is not healthy, rebooting" in device.console()
    is_whole(device, first)


def test_a_release_that_cannot_be_waited_for_is_tried_again_instead_of_asking_for_a_password(device, first):
    # As systemd does when what everything waits for has failed; whoever says so is cut off.
    last_words(device, "systemctl --no-block isolate emergency.target")
    wait_until(lambda: "the system did not come up, rebooting" in device.console(), 120, "it says so")
    device.wait_for_slot(device.starts()[-1][0], 2 * BOOT)
    is_whole(device, first)


# -- What runs breaks


def test_a_confirmed_slot_whose_root_is_destroyed_gives_way_too(device, first):
    both_slots_are_good(device)
    slot = device.slot()
    device.cut()
    overwrite(device, f"root-{slot.lower()}", bytes(4 << 20))
    device.power_on()
    device.wait_for_slot(OTHER[slot], 2 * BOOT)
    is_whole(device, first)
    # And is mended by the next update.
    device.host.end(device.update("good"), UPDATE)
    confirmed(device, slot)


def test_a_confirmed_slot_that_is_damaged_in_its_middle_gives_way_too(device, first):
    both_slots_are_good(device)
    slot = device.slot()
    device.cut()
    # Its mount does not notice; and whatever is there, it is read only after the last run was cut.
    overwrite(device, f"root-{slot.lower()}", random.randbytes(64 << 10), 20 << 20)
    device.power_on()
    device.wait_for_slot(OTHER[slot], 2 * BOOT)
    assert f"the root of slot {slot} is damaged" in device.console()
    is_whole(device, first)
    # The only one that is left is started whatever it looks like, because there is nothing better.
    device.cut()
    overwrite(device, f"root-{OTHER[slot].lower()}", bytes([0x5A]), 30 << 20)
    device.power_on()
    wait_until(lambda: "is damaged, but there is no other" in device.console(), BOOT, "it is started all the same")
    device.cut()
    root = device.bundles.image
    with open(root, "rb") as image:
        image.seek(offset_of("root-a"))
        overwrite(device, f"root-{OTHER[slot].lower()}", image.read(partitions()["root-a"][0] << 20))
    device.power_on()
    device.wait_for_slot(OTHER[slot])
    device.host.end(device.update("good"), UPDATE)
    confirmed(device, slot)


def test_an_update_is_taken_by_a_device_without_a_clock(device, first):
    # As on a board without a battery, in a plant without time servers: years before the bundle was signed.
    device.ssh("systemctl stop chrony vedette-clock; date -s 2023-01-01")
    new = install(device)
    device.reboot()
    confirmed(device, new)
    is_whole(device, first)


def test_boot_counters_that_are_damaged_start_what_there_is_and_are_made_again(device, first):
    device.ssh("sync")
    device.cut()
    for copy in (0, 0x80000):
        overwrite(device, "env", random.randbytes(64), copy)
    device.power_on()
    # Without counters A is taken; it is whole.
    device.wait_for_slot("A")
    assert "no valid boot counters" in device.console()
    assert device.counters()["BOOT_A_LEFT"] == device.board.confirmed
    end = device.host.end(device.update("good"), UPDATE)
    assert end["state"] == "done", end
    confirmed(device, "B")


def test_data_that_is_damaged_is_mended_and_the_device_comes_up(device, first):
    slot = device.slot()
    # Its superblock and the descriptors behind it, which have copies. What comes next is the root folder: without it all would be
    # there, but below lost+found.
    device.cut()
    overwrite(device, "data", bytes(32 << 10))
    restart(device, slot)
    assert "/data is damaged, mending it" in device.console()
    is_whole(device, first)


def test_folders_that_have_lost_their_names_are_found_again(device, first):
    slot = device.slot()
    device.cut()
    place = f"{device.disk}?offset={offset_of('data')}"
    blocks = run("debugfs", "-R", "blocks <2>", place).stdout.split()
    overwrite(device, "data", bytes(4096), int(blocks[0]) * 4096)
    restart(device, slot)
    assert "found again: /data/vedette" in device.console()
    is_whole(device, first)


def test_data_that_is_lost_for_good_leaves_a_device_that_can_be_asked(device, first):
    device.cut()
    kept = device.disk.with_suffix(".kept")
    run("cp", "--sparse=always", device.disk, kept)
    # The superblock has copies at each 128 MiB (blocks of 4 KiB), of which e2fsck knows.
    for group in range((device.disk.stat().st_size - offset_of("data")) >> 27):
        overwrite(device, "data", random.randbytes(1 << 20), group << 27)
    device.power_on()
    births = len(device.host.births)
    try:
        device.wait_for_server()
        assert "/data cannot be mounted: running from memory" in device.console()
    finally:
        device.cut()
        kept.rename(device.disk)
        device.power_on()
    device.host.wait_for_birth(BOOT, more_than=births)
    is_whole(device, first)


def test_a_firmware_that_hangs_is_started_again(device, first):
    device.wait_for_slot(device.slot())
    device.ssh("kill -STOP $(systemctl show vedette -p MainPID --value)")
    restarts = lambda: device.ssh("systemctl show vedette -p NRestarts --value").strip()
    wait_until(lambda: restarts() == "1", 240, "systemd's watchdog bites", 3)
    device.wait_for_server()


def test_a_system_that_hangs_is_reset_by_the_hardware(device, first):
    slot = device.slot()
    starts = len(device.starts())
    # systemd freezes when it crashes, and kicks nobody any more.
    last_words(device, "kill -SEGV 1")
    wait_until(lambda: len(device.starts()) > starts, 240, "the watchdog resets the machine", 1)
    device.wait_for_slot(slot)
    is_whole(device, first)


# -- Who may come in


def test_ssh_is_for_whom_a_key_is_provisioned_and_for_nobody_without(device, first):
    slot, key = device.slot(), device.bundles.key.with_suffix(".pub").read_text().strip()
    device.cut()
    device.put_on_boot_partition("vedette.toml", b"[provision]\r\nssh_keys = []\r\n")
    device.power_on()
    device.wait_for_server()
    assert device.hears(22) == b""
    device.cut()
    device.put_on_boot_partition("vedette.toml", f'[provision]\nssh_keys = ["{key}"]\n'.encode())
    device.power_on()
    device.wait_for_slot(slot)
    is_whole(device, first)


# -- The power


def test_power_cuts_at_any_moment_of_an_update(device, first, chance):
    slot = device.slot()
    for _ in range(CUTS):
        id = device.update("good")
        time.sleep(chance.uniform(1, 90))
        device.cut()
        device.power_on()
        end = device.host.end(id, 2 * UPDATE)
        assert end["state"] == "done", end
        slot = OTHER[slot]
        confirmed(device, slot)
        is_whole(device, first)


def test_power_cuts_while_it_starts(device, first, chance):
    slot = device.slot()
    for _ in range(CUTS):
        device.cut()
        device.power_on()
        time.sleep(chance.uniform(5, 60))
        restart(device, slot)
        is_whole(device, first)


def test_power_cuts_under_load(device, first, chance):
    slot = device.slot()
    for _ in range(CUTS):
        write = "while :; do dd if=/dev/urandom of=/data/vedette/load.$1 bs=64k count=200; rm -f /data/vedette/load.$1; done"
        device.ssh(f"for n in 1 2 3; do setsid sh -c '{write}' sh $n >/dev/null 2>&1 </dev/null & done")
        for _ in range(3):
            device.host.send("snapshot", camera="line1", max_bytes=60000)
        time.sleep(chance.uniform(5, 40))
        births = len(device.host.births)
        restart(device, slot)
        device.ssh("rm -f /data/vedette/load.*")
        assert int(device.ssh("du -sm /var/log/journal").split()[0]) <= 50
        is_whole(device, first)
        birth = device.host.wait_for_birth(BOOT, more_than=births)
        assert birth["Properties/store/State"] == "writing", birth["Properties/store/State"]


def test_power_cuts_while_a_device_is_provisioned(tmp_path, bundles, chance):
    device = Device(tmp_path, bundles)
    try:
        device.provide()
        for _ in range(2 * CUTS):
            device.power_on()
            time.sleep(chance.uniform(10, 50))
            device.cut()
        device.power_on()
        device.wait_for_slot("A")
        device.ssh(f"echo kept >{KEPT}")
        is_whole(device, identity(device))
        device.host.wait_for_birth(BOOT)
        assert device.finds_on_disk("boot", PASSWORD) == 0
    finally:
        device.close()


# -- How long it takes


def of_systemd(device, unit: str) -> float:
    """Seconds of the processor for a unit with the same sandbox and nothing in it."""
    others = "Exec|Type|Restart|Watchdog|RuntimeDirectory|After|Before|Wants|Conflicts|DefaultDependencies|OnFailure|StartLimit|Standard"
    # It stays, or systemd would forget it with its figures.
    device.ssh(
        f"cd /run/systemd/system; systemctl cat {unit} | grep -vE '^({others})[A-Za-z]*=' >empty-{unit}.service; "
        f"printf '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/bin/true\\n' >>empty-{unit}.service; "
        f"systemctl daemon-reload; systemctl start empty-{unit}"
    )
    return int(device.ssh(f"systemctl show empty-{unit} -p CPUUsageNSec --value")) / 1e9


def test_the_firmware_starts_within_its_budget(tmp_path, bundles):
    """By counted instructions, 2 ns each, because this host's own speed says nothing."""
    device = Device(tmp_path, bundles)
    try:
        device.provide()
        for start in ("first", "second"):
            device.power_on(count_instructions=True)
            device.wait_for_slot("A", 3 * BOOT)
            seconds = lambda what: int(re.search(r"\d+", device.ssh(what))[0]) / 1e6
            used = {
                "vedette": seconds("grep usage_usec /run/cpu-when-ready"),
                "vedette-provision": seconds("systemctl show vedette-provision -p CPUUsageNSec --value") / 1e3,
            }
            sandbox = {unit: of_systemd(device, unit) for unit in used}
            ready = seconds("systemctl show vedette -p ActiveEnterTimestampMonotonic --value")
            print(f"{start} start: ready {ready:.1f} s after the kernel; processor {used}, of that systemd's sandbox {sandbox}")
            print(device.ssh("systemd-analyze time; systemd-analyze blame | head -12"))
            device.ssh("sync")
            device.cut()
        # The second; the first one makes keys and hashes passwords.
        assert sum(used.values()) - sum(sandbox.values()) < 1.0
    finally:
        device.close()
