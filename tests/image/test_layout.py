"""What must agree across the files of config/device, and what can be said of them without a device.

config/device/partitions is what everything else is compared with.
"""

import re
import shutil
import subprocess

import pytest
from layout import DEVICE, LINKS, ROOT, UNITS, boot_script, partitions, read, system_conf

# Of 10, by `systemd-analyze security`.
EXPOSED_AT_MOST = 2.0


def test_both_slots_are_alike_and_data_is_last_so_that_it_can_grow():
    table = partitions()
    assert list(table) == ["boot", "env", "kernel-a", "kernel-b", "root-a", "root-b", "data"]
    assert table["kernel-a"] == (table["kernel-b"][0], "vfat") and table["root-a"] == (table["root-b"][0], "squashfs")


def test_rauc_knows_the_slots_by_the_labels():
    conf = system_conf()
    slots = {name: dict(conf[name]) for name in conf.sections() if name.startswith("slot.")}
    assert {name: slot["device"] for name, slot in slots.items()} == {
        "slot.rootfs.0": LINKS + "root-a",
        "slot.kernel.0": LINKS + "kernel-a",
        "slot.rootfs.1": LINKS + "root-b",
        "slot.kernel.1": LINKS + "kernel-b",
    }
    assert [slots[f"slot.rootfs.{n}"]["bootname"] for n in (0, 1)] == ["A", "B"]
    assert [slots[f"slot.kernel.{n}"]["parent"] for n in (0, 1)] == ["rootfs.0", "rootfs.1"]
    assert all(slot["device"].removeprefix(LINKS) in partitions() for slot in slots.values())


def test_whoever_names_a_partition_names_one_that_there_is():
    named = {}
    for file in [*DEVICE.rglob("*"), *(ROOT / "config/quick-image").iterdir()]:
        if file.is_file() and not file.is_symlink() and file.name != "partitions":
            for label in re.findall(re.escape(LINKS) + r"([a-z][a-z-]*)", file.read_text()):
                named.setdefault(label, file)
    assert set(named) >= {"boot", "env", "kernel-a", "root-b"}
    assert set(named) <= set(partitions()), named
    assert f"What={LINKS}boot\n" in (UNITS / "boot.mount").read_text()
    script = boot_script()
    assert set(re.findall(r"\b(?:kernel|root|data|boot|env)-[ab]\b", script)) == {"kernel-a", "kernel-b"}
    assert "part start ${devtype} ${devnum} env " in script


def test_boot_script_and_rauc_mean_the_same_counters():
    script, conf = boot_script(), system_conf()["system"]
    copies = [line.split() for line in read("root/etc/fw_env.config").splitlines() if not line.startswith("#")]
    (device, first, size), (other, second, other_size) = copies
    assert device == other == LINKS + "env" and size == other_size
    size, first, second = int(size, 16), int(first, 16), int(second, 16)
    assert first == 0 and second + size <= partitions()["env"][0] << 20
    # In blocks of 512 bytes, and hexadecimal, as everything in U-Boot.
    assert f"setexpr block1 ${{block0}} + {second // 512:x}\n" in script
    assert {int(count, 16) * 512 for count in re.findall(r"\$\{devtype\} (?:read|write) \S+ \S+ (\w+)", script)} == {size}
    # A copy is a CRC of 4 bytes, one byte of sequence, and the variables; without that byte it is what `env` knows.
    assert f"setenv env_bytes {size - 1:x}\n" in script
    assert set(re.findall(r"cp\.b \S+ \S+ (\w+)", script)) == {"4", f"{size - 5:x}"}
    # On trial is what RAUC gives a new slot, at most; confirmed is more.
    trial, good = int(conf["boot-attempts-primary"]), int(conf["boot-attempts"])
    assert f"itest ${{left}} -le {trial:x};" in script and good > trial
    assert f"setenv BOOT_A_LEFT {good:x}\n" in script
    made = (ROOT / "scripts/image").read_text()
    assert rf"BOOT_ORDER=A B\nBOOT_A_LEFT={good:x}\nBOOT_B_LEFT=0" in made


def test_only_a_slot_on_trial_has_consequences():
    assert "vedette.trial=" in boot_script()
    for unit in ("vedette-mark-good.service", "vedette-unhealthy.service", "vedette-trial.timer"):
        assert "\nConditionKernelCommandLine=vedette.trial\n" in (UNITS / unit).read_text()


def test_every_unit_of_ours_is_one_that_the_preset_knows():
    enabled = re.findall(r"^enable (\S+)", read("root/usr/lib/systemd/system-preset/00-vedette.preset"), re.MULTILINE)
    to_install = {unit.name for unit in UNITS.glob("vedette*") if unit.is_file() and "[Install]" in unit.read_text()}
    assert to_install <= set(enabled)
    assert {name for name in enabled if name.startswith("vedette")} == to_install


def test_the_units_are_understood(tmp_path):
    shutil.copytree(UNITS, tmp_path / "units")
    for unit in (tmp_path / "units").rglob("*"):
        if unit.is_file():
            # What they start is on the device only.
            unit.write_text(re.sub(r"^(Exec\w+=).+", r"\1/bin/true", unit.read_text(), flags=re.MULTILINE))
    (tmp_path / "units/chrony.service").write_text("[Service]\nExecStart=/bin/true\n")
    units = [unit for unit in (tmp_path / "units").iterdir() if unit.is_file() and "@" not in unit.name]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True)
    # Of this host's own units it complains as well.
    said = [line for line in done.stderr.splitlines() if "vedette" in line or str(tmp_path) in line]
    assert not said, "\n".join(said)


def test_the_firmware_is_locked_in():
    command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={round(EXPOSED_AT_MOST * 10)}"]
    done = subprocess.run([*command, UNITS / "vedette.service"], capture_output=True, text=True)
    said = done.stdout.splitlines()[-1] if done.stdout else done.stderr
    assert done.returncode == 0, said


@pytest.mark.parametrize("script", ["preinit", "grow"])
def test_scripts_of_the_device_are_posix(script):
    path = DEVICE / "root/usr/lib/vedette" / script
    assert path.read_text().startswith("#!/bin/sh\n") and path.stat().st_mode & 0o111
    assert not subprocess.run(["shellcheck", "-s", "sh", path], capture_output=True, text=True).stdout


def test_both_images_link_the_configuration_to_where_everybody_looks():
    # No link in the tree, because bitbake can make no checksum of one that leads nowhere.
    recipe = ROOT / "yocto/meta-vedette/recipes-vedette/vedette-config/vedette-config_0.1.0.bb"
    for builder in (ROOT / "scripts/image", recipe):
        assert re.search(r'ln -s /data/vedette/vedette\.toml \S+/vedette/vedette\.toml', builder.read_text()), builder


def test_nothing_secret_lies_in_the_tree():
    for file in DEVICE.rglob("*"):
        if file.is_file() and not file.is_symlink():
            assert "PRIVATE KEY" not in file.read_text(), file
