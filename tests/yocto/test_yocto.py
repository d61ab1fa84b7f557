"""What can be said of yocto/ without a build and without a network.

bitbake's parser reads the syntax of every file, but knows nothing of the classes and layers of others: that a recipe
builds, that a task's name exists, that an image boots is not shown here.
"""

import hashlib
import importlib.machinery
import importlib.util
import logging
import os
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest
import yaml
from layout import LINKS, ROOT, boot_script, partitions, system_conf

YOCTO = ROOT / "yocto"
GRUBENV = ROOT / "config/device/boot/grubenv"
LAYER = YOCTO / "meta-vedette"
METADATA = sorted(
    file for kind in ("recipes-*/**/*.bb", "**/*.bbappend", "**/*.inc", "conf/**/*.conf") for file in LAYER.glob(kind)
)
RECIPES = [file for file in METADATA if file.suffix == ".bb"]
KAS = sorted((YOCTO / "kas").glob("*.yml"))
# The Rust of 6.0 "wrynose" is 1.94.1.
NEWEST_RUST = (1, 94)


def name(file: Path) -> str:
    return str(file.relative_to(YOCTO))


def cargo() -> dict:
    return tomllib.loads((ROOT / "Cargo.toml").read_text())


def yocto_crates():
    """scripts/yocto-crates as a module."""
    loader = importlib.machinery.SourceFileLoader("yocto_crates", str(ROOT / "scripts/yocto-crates"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("yocto_crates", loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


def test_the_crates_are_those_of_the_lock():
    done = subprocess.run([ROOT / "scripts/yocto-crates", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (LAYER / "recipes-vedette/vedette/vedette-crates.inc").read_text()
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    fetched = re.findall(r"^    crate://crates\.io/(\S+)/(\S+) \\$", text, re.MULTILINE)
    assert set(fetched) == {(p["name"], p["version"]) for p in locked if "source" in p}
    sums = dict(re.findall(r'^SRC_URI\[(\S+)\.sha256sum\] = "([0-9a-f]{64})"$', text, re.MULTILINE))
    assert sums == {f"{p['name']}-{p['version']}": p["checksum"] for p in locked if "source" in p}


def test_a_crate_from_elsewhere_is_not_passed_over():
    lock = '[[package]]\nname = "a"\nversion = "1.0.0"\nsource = "git+https://example.com/a?rev=1#1"\n'
    with pytest.raises(SystemExit, match="a comes from git"):
        yocto_crates().crates(lock)


def test_versions_are_the_programs():
    version, rust = cargo()["package"]["version"], cargo()["package"]["rust-version"]
    versions = {file.stem.rpartition("_")[2] for file in RECIPES if "_" in file.stem}
    assert versions == {version}
    assert f'DISTRO_VERSION = "{version}"' in (LAYER / "conf/distro/vedette-os.conf").read_text()
    assert tuple(int(part) for part in rust.split(".")[:2]) <= NEWEST_RUST


def test_licence_checksums_are_those_of_the_files():
    named = 0
    for recipe in RECIPES:
        for file, md5 in re.findall(r"file://([^;\s]+);md5=([0-9a-f]{32})", recipe.read_text()):
            named += 1
            assert md5 == hashlib.md5((ROOT / file).read_bytes()).hexdigest(), name(recipe)
    assert named == sum("LIC_FILES_CHKSUM" in recipe.read_text() for recipe in RECIPES) > 0


@pytest.fixture(scope="session")
def bitbake():
    """bitbake's parsers for recipes and for configuration."""
    # The hash server is no part of parsing, and no part of that package.
    for module in ("hashserv", "hashserv.client"):
        sys.modules.setdefault(module, types.ModuleType(module))
    import bb
    import bb.data
    import bb.parse
    from bb.parse.parse_py import BBHandler, ConfHandler

    logging.getLogger("BitBake").setLevel(logging.ERROR)
    return types.SimpleNamespace(bb=bb, recipes=BBHandler, conf=ConfHandler)


def parse(bitbake, file: Path) -> None:
    data = bitbake.bb.data.init()
    data.setVar("TOPDIR", str(file.parent))
    if file.suffix == ".conf":
        data.setVar("LAYERDIR", str(LAYER))
        bitbake.conf.handle(str(file), data, True)
    else:
        base = file.name.split("_")[0].removesuffix(file.suffix)
        bitbake.recipes.get_statements(str(file), str(file), base)


@pytest.mark.parametrize("file", METADATA, ids=name)
def test_bitbake_can_read(bitbake, file):
    parse(bitbake, file)


@pytest.mark.parametrize("text", ['A = "no end\n', "do_install() {\n    true\n", "fetch this\n"])
def test_what_bitbake_cannot_read_is_found(bitbake, tmp_path, text):
    file = tmp_path / "broken_1.0.bb"
    file.write_text(text)
    with pytest.raises(Exception):
        parse(bitbake, file)


def test_the_linter_has_nothing_to_say():
    suppressed = [line.split()[0] for line in (ROOT / "tests/yocto/oelint-suppress").read_text().splitlines() if line[:1] not in "#"]
    options = [option for rule in suppressed for option in ("--suppress", rule)]
    command = [sys.executable, "-m", "oelint_adv", "--release", "wrynose", "--quiet", "--hide", "info", *options, *METADATA]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    # The form of the crates' list is openembedded-core's own.
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip() and "-crates.inc:" not in line]
    assert done.returncode in (0, 1) and not said, "\n".join(said)


@pytest.mark.parametrize("file", KAS, ids=name)
def test_kas_takes(file):
    skip = [f"--skip={step}" for step in ("repo_setup_loop", "finish_setup_repos", "repos_checkout")]
    command = [sys.executable, "-m", "kas", "dump", *skip, file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env={**os.environ, "KAS_WORK_DIR": str(ROOT / "target")})
    assert done.returncode == 0, done.stderr
    for repository, said in (yaml.safe_load(done.stdout).get("repos") or {}).items():
        if "url" in said:
            assert re.fullmatch(r"[0-9a-f]{40}", str(said.get("commit"))), f"{repository} is not pinned"


def wks() -> list[dict[str, str]]:
    """Each partition's options."""
    lines = [line for line in (LAYER / "files/wic/vedette.wks.in").read_text().splitlines() if line.startswith("part ")]
    return [dict(re.findall(r'--([a-z-]+)[= ]("[^"]*"|\S+)', line)) for line in lines]


def test_the_disk_is_the_quick_images():
    table, parts = partitions(), wks()
    assert [part["part-name"] for part in parts] == list(table)
    assert {part["part-name"]: part["fixed-size"] for part in parts} == {label: f"{size}M" for label, (size, _) in table.items()}
    kinds = {"vfat": "vfat", "squashfs": "squashfs", "ext4": "ext4"}
    assert all(kinds[table[part["part-name"]][1]] == part["fstype"] for part in parts if "fstype" in part)
    # As scripts/image has it: the first one at 1 MiB, no gaps, nothing in the second slot.
    assert {part["align"] for part in parts} == {"1024"}
    assert [part["part-name"] for part in parts if part.get("source") == "empty"] == ["kernel-b", "root-b"]
    assert "start=1 script=" in (ROOT / "scripts/image").read_text()


def test_boot_script_and_rauc_know_the_partitions():
    labels = [part["part-name"] for part in wks()]
    slots = [section for title, section in system_conf().items() if title.startswith("slot.")]
    assert len(slots) == 4 and {slot["device"].removeprefix(LINKS) for slot in slots} <= set(labels)
    assert set(re.findall(r"setenv label (\S+);", boot_script())) <= set(labels)
    # The loader of the Raspberry Pi 5 counts from 1.
    numbers = {"A": labels.index("kernel-a") + 1, "B": labels.index("kernel-b") + 1}
    pi5 = LAYER / "recipes-vedette/vedette-boot/vedette-boot/raspberrypi5"
    assert re.findall(r"boot_partition=(\d)", (pi5 / "autoboot.txt").read_text()) == [str(n) for n in numbers.values()]
    config = (pi5 / "config.txt").read_text()
    tryboot = (LAYER / "recipes-vedette/vedette-tryboot/vedette-tryboot/tryboot").read_text()
    for slot, number in numbers.items():
        block = f"[boot_partition={number}]\ncmdline=slot-{slot}.txt\n[tryboot]\ncmdline=trial-{slot}.txt\n[all]\n"
        assert block in config and f"{slot}) echo {number} ;;" in tryboot


def test_a_stick_is_no_disk_of_ours():
    """What the rule for USB sticks would mount, of a device that runs from a USB disk, or of another card in a reader."""
    rule = (ROOT / "config/device/root/usr/lib/udev/rules.d/71-vedette-usb.rules").read_text()
    kinds = re.search(r'ENV\{ID_FS_TYPE\}=="([^"]+)"', rule)[1].split("|")
    ours = [label for label, (_, content) in partitions().items() if content in kinds]
    assert re.search(r'ENV\{ID_PART_ENTRY_NAME\}!="([^"]+)"', rule)[1].split("|") == ours
    unit = re.search(r'ENV\{SYSTEMD_WANTS\}\+="(\S+)%k(\.service)"', rule)
    assert (ROOT / "config/device/root/usr/lib/systemd/system" / (unit[1] + unit[2])).exists()
    script = (ROOT / "config/device/root/usr/lib/vedette/usb").read_text()
    assert f"for kind in {' '.join(kinds)}; do" in script and "-o ro,nosuid,nodev,noexec" in script
    fragment = (LAYER / "recipes-kernel/linux/files/vedette.cfg").read_text()
    quick = (ROOT / "config/quick-image/modules").read_text().split()
    assert all(f"CONFIG_{kind.upper()}_FS=" in fragment for kind in kinds) and {"fs/fat", "fs/exfat", "drivers/usb/storage"} <= set(quick)


def test_grub_chooses_as_u_boot_does():
    """Machines with UEFI firmware: partitions by number, tries as RAUC's system.conf has them for U-Boot."""
    labels = [part["part-name"] for part in wks()]
    script = (ROOT / "config/device/boot/grub.cfg").read_text()
    for slot in "AB":
        number = labels.index(f"kernel-{slot.lower()}") + 1
        assert f'if [ "$slot" = {slot} ]; then set left="$BOOT_{slot}_LEFT"; set partition=gpt{number}; fi' in script
    system = system_conf()["system"]
    trial, good = system["boot-attempts-primary"], system["boot-attempts"]
    assert f'if [ "$left" -le {trial} ]; then' in script and f"set BOOT_A_LEFT={good}\n" in script
    assert f"trial={trial} good={good}\n" in GRUBENV.read_text()
    # What the kernel is told is what U-Boot's script tells it; which disk it is, GRUB does not know.
    assert "rauc.slot=$slot $trial panic=10 quiet" in script and '"rauc.slot=${slot} vedette.disk=${devtype} ${trial} panic=10 quiet' in boot_script()
    recipe = (LAYER / "recipes-vedette/vedette-boot/vedette-boot_0.1.0.bb").read_text()
    assert f"BOOT_ORDER=A B\\nBOOT_A_LEFT={good}\\nBOOT_B_LEFT=0" in recipe
    # Sums of both files are looked at, in both images.
    assert "sha256sum vmlinuz initramfs.img >SHA256SUMS" in recipe and "mcopy -i kernel vmlinuz initramfs.img SHA256SUMS ::" in recipe
    quick = (ROOT / "scripts/image").read_text()
    for name in ("vmlinuz", "initramfs.img", "SHA256SUMS"):
        assert f"($disk,$partition)/{name}" in script and f"::{name}" in quick


def test_grub_takes_its_script():
    done = subprocess.run(["grub-script-check", ROOT / "config/device/boot/grub.cfg"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # What it uses is built in: beside openembedded-core's own list, and in the quick image's.
    ours = set(re.search(r'GRUB_BUILDIN:append:vedette-os = "([^"]+)"', (LAYER / "recipes-bsp/grub/grub-efi_%.bbappend").read_text())[1].split())
    theirs = set("boot linux ext2 fat serial part_msdos part_gpt normal efi_gop iso9660 configfile search loadenv test".split())
    quick = set(re.search(r"local modules=\(([^)]+)\)", (ROOT / "scripts/image").read_text())[1].split())
    assert ours <= quick <= ours | theirs


def test_first_counters_are_the_quick_images():
    counters = r"printf '(BOOT_ORDER=\S+ \S+BOOT_A_LEFT=\S+)' \| mkenvimage (-r -s 0x\d+) "
    quick = re.search(counters, (ROOT / "scripts/image").read_text())
    ours = re.search(counters, (LAYER / "recipes-vedette/vedette-boot/vedette-boot_0.1.0.bb").read_text())
    assert quick.groups() == ours.groups()


def test_system_conf_is_filled_in_alike():
    quick = (ROOT / "scripts/image").read_text()
    ours = (LAYER / "recipes-core/rauc/rauc-conf.bbappend").read_text()
    for placeholder in set(re.findall(r"@[A-Z]+@", (ROOT / "config/device/root/etc/rauc/system.conf").read_text())):
        assert placeholder in quick and placeholder in ours
    # Where RAUC does not know the loader.
    backend = "/usr/lib/vedette/grubenv"
    for image, folder in ((quick, "/usr/lib"), (ours, "${nonarch_libdir}")):
        assert "/^boot-attempts/d" in image and f"[handlers]\\nbootloader-custom-backend={folder}/vedette/" in image
    # It is there, also in the initramfs, which gives up a slot whose root is damaged.
    init = (ROOT / "config/quick-image/initramfs-init").read_text()
    assert backend in init and quick.count('"$DEVICE/boot/grubenv"') >= 3
    assert 'PACKAGE_INSTALL:append:genericarm64 = " vedette-grubenv"' in (LAYER / "recipes-core/images/vedette-initramfs.bb").read_text()
    assert "keyring.pem" in system_conf()["keyring"]["path"] and "${sysconfdir}/rauc/keyring.pem" in ours


def test_the_users_have_the_same_numbers():
    lines = (ROOT / "config/device/root/usr/lib/sysusers.d/00-vedette.conf").read_text().splitlines()
    numbers = {line.split()[1]: line.split()[2] for line in lines if line[:2] in ("u ", "g ")}
    recipe = (LAYER / "recipes-vedette/vedette-config/vedette-config_0.1.0.bb").read_text()
    assert f"--gid {numbers['gpio']} gpio" in recipe and f"--gid {numbers['vedette']} vedette" in recipe
    groups = ",".join(line.split()[2] for line in lines if line.startswith("m vedette"))
    assert f"--uid {numbers['vedette']} --gid vedette --groups {groups} " in recipe


def test_all_of_the_devices_root_is_installed():
    text = (LAYER / "recipes-vedette/vedette-config/vedette-config_0.1.0.bb").read_text()
    taken = [ROOT / "config/device" / path for path in re.findall(r"file://(root/\S+)", text)]
    # system.conf is filled in by rauc-conf.
    taken.append(ROOT / "config/device/root/etc/rauc")
    masks = {ROOT / "config/device/root/etc/systemd" / folder for folder in re.findall(r"vedette_masks\('(\S+)', d\)", text)}
    for file in (ROOT / "config/device/root").rglob("*"):
        if file.is_symlink():
            assert os.readlink(file) == "/dev/null" and file.parent in masks, file
        elif file.is_file():
            assert any(file.is_relative_to(folder) for folder in taken), file


def test_what_recipes_take_from_the_tree_is_there():
    for recipe in RECIPES:
        text = recipe.read_text()
        folders = [recipe.parent / recipe.stem.split("_")[0], recipe.parent / recipe.stem.split("_")[0] / "raspberrypi5"]
        folders += [ROOT / path for path in re.findall(r"\$\{VEDETTE_CHECKOUT\}(?:/([^:\"]+))?:", text) or [""]]
        sources = re.sub(r"LIC_FILES_CHKSUM.*", "", text)
        for file in re.findall(r"file://([A-Za-z0-9._/-]+)", sources):
            assert any((folder / file).exists() for folder in folders), f"{name(recipe)}: {file}"


class Tryboot:
    """The backend with folders of its own instead of a device's."""

    def __init__(self, folder: Path):
        self.boot, self.state, self.parameter = folder / "boot", folder / "state", folder / "systemd/reboot-param"
        for made in (self.boot, self.state, self.parameter.parent, folder / "vedette"):
            made.mkdir()
        source = LAYER / "recipes-vedette/vedette-boot/vedette-boot/raspberrypi5/autoboot.txt"
        (self.boot / "autoboot.txt").write_text(source.read_text())

    def __call__(self, *arguments: str) -> str:
        script = LAYER / "recipes-vedette/vedette-tryboot/vedette-tryboot/tryboot"
        variables = {"VEDETTE_BOOT": self.boot, "VEDETTE_STATE": self.state, "VEDETTE_RUN": self.parameter.parents[1]}
        environment = {**os.environ, **{key: str(value) for key, value in variables.items()}}
        return subprocess.run(["sh", script, *arguments], env=environment, capture_output=True, text=True, check=True).stdout.strip()

    def started_always(self) -> str:
        return re.search(r"\[all\]\n.*boot_partition=(\d)\n\[tryboot\]", (self.boot / "autoboot.txt").read_text(), re.DOTALL)[1]


def test_tryboot_starts_a_new_slot_once_and_keeps_it_when_it_is_good(tmp_path):
    tryboot = Tryboot(tmp_path)
    assert tryboot("get-primary") == "A" and tryboot("get-state", "B") == "good"
    # As `rauc install` does: bad while it is written, then wanted.
    tryboot("set-state", "B", "bad")
    assert tryboot("get-state", "B") == "bad"
    tryboot("set-primary", "B")
    assert (tryboot("get-primary"), tryboot("get-state", "B")) == ("B", "good")
    # Only the next reboot, and only if it is one that asks: what is confirmed is still A.
    assert tryboot.parameter.read_text() == "0 tryboot\n" and tryboot.started_always() == "3"
    tryboot("set-state", "B", "good")
    assert tryboot.started_always() == "4" and tryboot("get-primary") == "B"
    assert "[tryboot]\nboot_partition=3\n" in (tryboot.boot / "autoboot.txt").read_text()


def test_tryboot_goes_back_to_what_was_good(tmp_path):
    tryboot = Tryboot(tmp_path)
    tryboot("set-primary", "B")
    tryboot("set-state", "B", "bad")
    assert tryboot("get-primary") == "A" and not tryboot.parameter.exists() and tryboot.started_always() == "3"


def test_tryboot_refuses_what_it_does_not_know(tmp_path):
    tryboot = Tryboot(tmp_path)
    for wrong in (["set-primary", "C"], ["set-state", "A", "maybe"], ["install"], []):
        with pytest.raises(subprocess.CalledProcessError):
            tryboot(*wrong)


class Grubenv:
    """The backend for GRUB with a folder of its own instead of a device's."""

    def __init__(self, folder: Path):
        self.boot = folder
        (folder / "EFI/BOOT").mkdir(parents=True)

    def __call__(self, *arguments: str) -> str:
        environment = {**os.environ, "VEDETTE_BOOT": str(self.boot)}
        return subprocess.run(["sh", GRUBENV, *arguments], env=environment, capture_output=True, text=True, check=True).stdout.strip()

    def block(self) -> dict[str, str]:
        data = (self.boot / "EFI/BOOT/grubenv").read_bytes()
        assert len(data) == 1024 and data.startswith(b"# GRUB Environment Block\n")
        return dict(line.split("=") for line in data.decode().splitlines() if "=" in line)


def test_grubenv_puts_a_new_slot_on_trial_and_keeps_it_when_it_is_good(tmp_path):
    grubenv = Grubenv(tmp_path)
    assert (grubenv("get-primary"), grubenv("get-state", "A"), grubenv("get-state", "B")) == ("A", "good", "bad")
    grubenv("set-state", "B", "bad")
    grubenv("set-primary", "B")
    assert grubenv.block() == {"BOOT_ORDER": "B A", "BOOT_A_LEFT": "100", "BOOT_B_LEFT": "3"}
    assert (grubenv("get-primary"), grubenv("get-state", "B")) == ("B", "good")
    # GRUB has counted down to nothing.
    file = tmp_path / "EFI/BOOT/grubenv"
    file.write_bytes(file.read_bytes().replace(b"BOOT_B_LEFT=3", b"BOOT_B_LEFT=0"))
    assert (grubenv("get-primary"), grubenv("get-state", "B")) == ("A", "bad")
    grubenv("set-state", "B", "good")
    assert grubenv.block()["BOOT_B_LEFT"] == "100" and grubenv("get-primary") == "B"
    for wrong in (["set-primary", "C"], ["set-state", "A", "maybe"], ["get-state", ""], ["install"], []):
        with pytest.raises(subprocess.CalledProcessError):
            grubenv(*wrong)


def test_grubenv_makes_the_first_counters_and_those_that_are_damaged(tmp_path):
    grubenv = Grubenv(tmp_path)
    file = tmp_path / "EFI/BOOT/grubenv"
    # As scripts/image does, and the recipe.
    grubenv("set-state", "A", "good")
    assert grubenv.block() == {"BOOT_ORDER": "A B", "BOOT_A_LEFT": "100", "BOOT_B_LEFT": "0"}
    recipe = (LAYER / "recipes-vedette/vedette-boot/vedette-boot_0.1.0.bb").read_text()
    assert repr(file.read_text().rstrip("#"))[1:-1] in recipe
    # What a power cut leaves of the one that was being written, and what a card leaves that forgets.
    file.with_name("grubenv.new").write_bytes(b"# GRUB Env")
    for damaged in (b"", bytes(1024), os.urandom(1024), b"# GRUB Environment Block\nBOOT_ORDER=A"):
        file.write_bytes(damaged)
        assert grubenv("get-primary") == "A"
        grubenv("set-state", "A", "bad")
        assert grubenv.block()["BOOT_A_LEFT"] == "0" and not file.with_name("grubenv.new").exists()


@pytest.mark.parametrize("script", [GRUBENV, *sorted(LAYER.glob("recipes-vedette/vedette-*/vedette-*/tryboot"))], ids=lambda file: file.name)
def test_backends_are_clean_scripts(script):
    assert script.stat().st_mode & 0o111
    assert not subprocess.run(["shellcheck", "-s", "sh", script], capture_output=True, text=True).stdout


def test_each_loader_that_rauc_does_not_know_has_its_backend():
    distro = (LAYER / "conf/distro/vedette-os.conf").read_text()
    custom = set(re.findall(r'^VEDETTE_BOOTLOADER:(\w+) = "custom"', distro, re.MULTILINE))
    backends = dict(re.findall(r'^VEDETTE_BACKEND:(\w+) = "(\w+)"', distro, re.MULTILINE))
    assert custom == set(backends)
    for machine, backend in backends.items():
        recipe = (LAYER / f"recipes-vedette/vedette-{backend}/vedette-{backend}_0.1.0.bb").read_text()
        assert f'COMPATIBLE_MACHINE = "^{machine}$"' in recipe and (YOCTO / f"kas/{machine.replace('raspberrypi', 'rpi')}.yml").exists()


def test_papers_are_there():
    readme = (LAYER / "README.md").read_text().lower()
    assert all(word in readme for word in ("maintainer", "patch", "dependencies", "@"))
    # yocto-check-layer looks no further when one names another.
    assert "readme" not in readme
    for folder in (YOCTO, LAYER):
        assert (folder / "SECURITY.md").read_text() and "Permission is hereby granted" in (folder / "COPYING.MIT").read_text()
    assert "Not built, not booted" in (YOCTO / "README.md").read_text()


def test_no_key_lies_in_the_layer():
    for file in YOCTO.rglob("*"):
        if file.is_file():
            assert file.suffix != ".pem" and "PRIVATE KEY" not in file.read_text(), name(file)
