"""What config/device says, read for whoever compares with it: the quick image's tests and those of yocto/."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEVICE = ROOT / "config/device"
UNITS = DEVICE / "root/usr/lib/systemd/system"
LINKS = "/run/vedette/disk/"


def read(name: str) -> str:
    return (DEVICE / name).read_text()


def partitions() -> dict[str, tuple[int, str]]:
    """Size in MiB and content, by label, in order."""
    rows = [line.split() for line in read("partitions").splitlines() if line and not line.startswith("#")]
    return {label: (int(size), content) for label, size, content, *_ in rows}


def system_conf() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read_string(read("root/etc/rauc/system.conf"))
    return parser


def boot_script() -> str:
    """Without its comments."""
    return re.sub(r"^\s*#.*$", "", read("boot/boot.cmd"), flags=re.MULTILINE)
