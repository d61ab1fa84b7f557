"""A device with the quick image in QEMU: from the boot loader on as it would be on a table, with a disk that outlives its machine.

    device.power_on()
    device.ssh("rauc status")
    device.cut()              # the emulator is killed: whatever the guest had not written is gone

What boards have of their own, how they are started and where they count, is a Board: UBOOT, UEFI.
The root has tests/image/overlay on top, which is nothing but a camera: vivid. All else is as anybody gets it. Broker and bundles are
on this host (upstream.py), the disk has 2 GB. Deadlines are for a loaded host, where a boot takes two minutes.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Callable, NamedTuple

import pytest
from appliance import APPLICATION_URI, Certificate, make_certificate, wait_for_server
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.sync import Client, ThreadLoop
from layout import partitions
from machine import ROOT, MachineError, free_port, wait_until
from upstream import GROUP, NODE, Broker, BundleServer, Host

HERE = Path(__file__).parent
BOOT = 420.0
USB = ["-device", "qemu-xhci", "-device", "usb-storage,drive=stick", "-drive"]
# The first partition begins behind 1 MiB.
BOOT_PARTITION = "@@1M"

# No port of a device.
CLOSED = 9999
PASSWORD = "a password that nobody may find on the card"
CONFIG = f"""
[provision]
host_name = "{NODE}"
broker_password = "{PASSWORD}"
[[provision.user]]
name = "anna"
role = "admin"
password = "{PASSWORD}"

[ua_server]
[cameras]
discover = false
[[camera]]
name = "line1"
device = "/dev/video0"
width = 640
height = 480
[mqtt]
broker = "mqtt://10.0.2.2:@BROKER@"
group = "{GROUP}"
username = "{NODE}"
commands = "admin"
[history]
tags = ["**"]
[system]
[[simulator]]
name = "load"
interval = "100ms"
"""


def run(*command, **options) -> subprocess.CompletedProcess:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode:
        raise MachineError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


class Board(NamedTuple):
    """One of `scripts/image --board`."""

    name: str
    # On the boot partition, at its top.
    shipped: set[str]
    # What that partition's boot script has in it.
    script: str
    # The tries that a slot has left which is confirmed, as the counters say it.
    confirmed: str
    # QEMU's options for the firmware, with a folder for what that keeps.
    firmware: Callable[[Path], list[str]]
    counters: Callable[["Device"], dict[str, str]]


def aavmf(folder: Path) -> list[str]:
    """UEFI, whose variables outlive the machine, too."""
    variables = folder / "vars.fd"
    if not variables.exists():
        shutil.copy("/usr/share/AAVMF/AAVMF_VARS.fd", variables)
    flash = "if=pflash,format=raw,file="
    return ["-drive", f"{flash}/usr/share/AAVMF/AAVMF_CODE.fd,readonly=on", "-drive", f"{flash}{variables}"]


UBOOT = Board(
    name="qemu",
    shipped={"boot.scr", "vedette-example.toml"},
    script="setenv BOOT_A_LEFT",
    confirmed="64",
    firmware=lambda _: ["-bios", "/usr/lib/u-boot/qemu_arm64/u-boot.bin"],
    counters=lambda device: settings(device.ssh("fw_printenv")),
)
UEFI = Board(
    name="generic",
    shipped={"EFI/", "vedette-example.toml"},
    script="set BOOT_A_LEFT",
    confirmed="100",
    firmware=aavmf,
    counters=lambda device: settings(device.on_boot_partition("EFI/BOOT/grubenv")),
)


def settings(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


# How a disk is attached, by the name that the system gives it.
DISKS = {
    "vda": ["-device", "virtio-blk-pci,drive=disk,bootindex=0"],
    "nvme0n1": ["-device", "nvme,drive=disk,serial=vedette,bootindex=0"],
    # AHCI.
    "sda": ["-device", "ich9-ahci,id=sata", "-device", "ide-hd,bus=sata.0,drive=disk,bootindex=0"],
    # USB; as a machine without another disk has it.
    "usb": ["-device", "qemu-xhci", "-device", "usb-storage,drive=disk,bootindex=0"],
    # A card, in a reader on PCI (SDHCI).
    "mmcblk0": ["-device", "sdhci-pci", "-device", "sd-card,drive=disk"],
}


def offset_of(label: str) -> int:
    """Where a partition begins, in bytes."""
    sizes = {name: size for name, (size, _) in partitions().items()}
    before = list(sizes)[: list(sizes).index(label)]
    return (1 + sum(sizes[name] for name in before)) << 20


class Bundles:
    """The image, and bundles for it; each is made when it is asked for first."""

    def __init__(self, folder: Path, board: Board = UBOOT):
        self.folder = folder / board.name
        self.folder.mkdir(exist_ok=True)
        self.board = board
        self.key = folder / "id"
        if not self.key.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
        self.certificate: Certificate = make_certificate(folder)

    @property
    def image(self) -> Path:
        return self._make("good") / f"vedette-{self.board.name}.img"

    def __getitem__(self, version: str) -> Path:
        """`good` is what the image has; of the others, what is different is in tests/image/VERSION."""
        bundle = self.folder / f"{version}.raucb"
        if not bundle.exists():
            os.link(self._make(version) / f"vedette-{self.board.name}.raucb", bundle)
        return bundle

    def _make(self, version: str) -> Path:
        overlay, out = self.folder / f"overlay-{version}", self.folder / version
        if (out / "SHA256SUMS").exists():
            return out
        for layer in (HERE / "overlay", HERE / version):
            if layer.is_dir():
                shutil.copytree(layer, overlay, symlinks=True, dirs_exist_ok=True)
        # As it is: scripts/image would have it made anew each time.
        binary = Path(os.environ.get("VEDETTE_BINARY") or ROOT / "target/dist/vedette-aarch64")
        # Packed quickly instead of small.
        run(ROOT / "scripts/image", "--board", self.board.name, "--size", "2G", "--overlay", overlay, "--ssh-key", f"{self.key}.pub",
            "--version", version, *(["--binary", binary] if binary.exists() else []), "-o", out, env=os.environ | {"VEDETTE_ZSTD": "1"})  # fmt: skip
        return out


class Device:
    def __init__(self, folder: Path, bundles: Bundles, attached: str = "vda"):
        """`attached`: its disk, one of DISKS."""
        self.folder = folder
        # Of SSH's connection: the whole name of a socket has at most 107 bytes (unix(7)), and that of a test's folder may have 70.
        self.sockets = Path(tempfile.mkdtemp(prefix="vedette-"))
        self.bundles = bundles
        self.board = bundles.board
        self.attached = attached
        self.disk = folder / "disk.img"
        # What is not written is not there in the file either.
        run("cp", "--sparse=always", bundles.image, self.disk)
        self.broker = Broker(folder, PASSWORD)
        self.host = Host(self.broker, PASSWORD)
        self.server = BundleServer()
        self.ports: dict[int, int] = {}
        self.life = 0
        self._process = None

    def put_on_boot_partition(self, name: str, content: bytes):
        """As somebody who has the card in his computer does."""
        file = self.folder / "put"
        file.write_bytes(content)
        run("mcopy", "-o", "-i", f"{self.disk}{BOOT_PARTITION}", file, f"::{name}")

    def boot_partition(self) -> list[str]:
        return [name.removeprefix("::/") for name in run("mdir", "-b", "-i", f"{self.disk}{BOOT_PARTITION}", "::").stdout.splitlines()]

    def on_boot_partition(self, name: str) -> str:
        return run("mtype", "-i", f"{self.disk}{BOOT_PARTITION}", f"::{name}").stdout

    def provide(self):
        """What this device is to be, and the client that these tests are."""
        self.put_on_boot_partition("vedette.toml", CONFIG.replace("@BROKER@", str(self.broker.port)).encode())
        self.put_on_boot_partition("client.der", self.bundles.certificate.der.read_bytes())

    def power_on(self, count_instructions: bool = False, stick: Path | None = None):
        """`stick` is in its USB socket. `count_instructions`: the guest's clock goes by what it has executed, 2 ns each, so that
        times do not depend on this host."""
        self.life += 1
        tcg = ["tcg,thread=single", "-icount", "shift=1"] if count_instructions else ["tcg,thread=multi"]
        # Others each time, because meanwhile somebody may have taken one.
        self.ports = {port: free_port() for port in (22, 4840, CLOSED)}
        self._console = self.folder / f"console-{self.life}"
        forwards = [f"hostfwd=tcp:127.0.0.1:{here}-:{there}" for there, here in self.ports.items()]
        with open(self._console, "wb") as console:
            self._process = subprocess.Popen(
                # A reset is a new process: for each page that is written QEMU goes through all that was ever translated of it, which
                # after a reset in one and the same has made minutes of seconds.
                ["timeout", "--kill-after=5", "7200", "sh", "-c", 'while "$@"; do :; done', "sh"]
                + ["qemu-system-aarch64", "-no-reboot", "-M", "virt", "-cpu", "cortex-a72"]
                + ["-accel", *tcg, "-smp", "2", "-m", "1024", "-nographic", "-monitor", "none"]
                + ["-serial", "stdio", "-device", "i6300esb", *self.board.firmware(self.folder)]
                + ["-drive", f"file={self.disk},format=raw,if=none,id=disk", *DISKS[self.attached]]
                + (USB + [f"file={stick},format=raw,if=none,id=stick"] if stick else [])
                + ["-nic", ",".join(["user,model=virtio-net-pci", *forwards])],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # What it does not understand, or is not installed, it says at once; nobody has to wait for a device then.
        time.sleep(1)
        if self._process.poll() is not None:
            raise MachineError(f"the emulator has ended:\n{self.console()}")

    def cut(self):
        if self._process and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def finds_on_disk(self, label: str, text: str) -> int:
        """How often a partition has that text, also where no file is any more."""
        start, size = offset_of(label), partitions()[label][0] << 20
        with open(self.disk, "rb") as disk:
            disk.seek(start)
            return disk.read(size).count(text.encode())

    def close(self):
        self.cut()
        self.host.close()
        self.server.close()
        self.broker.stop()
        shutil.rmtree(self.sockets)
        self.disk.unlink()

    def console(self) -> str:
        return self._console.read_text(errors="replace")

    def starts(self) -> list[str]:
        """The slots that the boot loader has started in this life, as `A` or, on trial, `B 2`."""
        found = re.findall(r"vedette: slot ([AB]) (?:vedette\.trial=(\d))?", self.console())
        return [" ".join(filter(None, start)) for start in found]

    def ssh(self, command: str, timeout: float = 300, stdin=subprocess.DEVNULL) -> str:
        """What a command says that succeeds."""
        done = self.try_ssh(command, timeout, stdin)
        if done.returncode:
            raise MachineError(f"{command!r} ended with {done.returncode}:\n{done.stdout}\n{self.console()[-2000:]}")
        return done.stdout

    def try_ssh(self, command: str, timeout: float = 300, stdin=subprocess.DEVNULL) -> subprocess.CompletedProcess:
        # One connection for all, because each handshake costs the emulated machine seconds.
        options = "StrictHostKeyChecking=no UserKnownHostsFile=/dev/null LogLevel=ERROR ConnectTimeout=30 ControlMaster=auto"
        options += f" ControlPersist=20m ControlPath={self.sockets}/%C ServerAliveInterval=5 ServerAliveCountMax=6 KexAlgorithms=curve25519-sha256"
        command = ["ssh", "-F", "none", "-i", str(self.bundles.key), "-p", str(self.ports[22]), "root@127.0.0.1", command]
        command[1:1] = [word for option in options.split() for word in ("-o", option)]
        try:
            # The connection that stays keeps stderr open, so that nobody may wait for its end.
            return subprocess.run(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise MachineError(f"{command[-1]!r} did not end within {timeout:g} s; {self.console()[-2000:]}") from error

    def wait_for_slot(self, slot: str, timeout: float = BOOT):
        """Waits until that slot runs and the gate has spoken."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise MachineError(f"the emulator has ended:\n{self.console()[-2000:]}")
            ask = "grep -o 'rauc.slot=.' /proc/cmdline; systemctl is-active boot-complete.target"
            if self._listens() and self.try_ssh(ask).stdout.split() == [f"rauc.slot={slot}", "active"]:
                return
            time.sleep(2)
        said = self.try_ssh("systemctl --failed; systemctl list-jobs; journalctl -b -n 40 --no-pager").stdout
        raise MachineError(f"slot {slot} is not up within {timeout:g} s: {self.starts()}\n{said}\n{self.console()[-3000:]}")

    def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            # On a busy host sshd takes long to begin.
            return self.hears(22, 60).startswith(b"SSH-")
        return False

    def hears(self, port: int, within: float = 10) -> bytes:
        """What somebody in the network hears who connects; the emulated network accepts before the guest does."""
        with contextlib.suppress(TimeoutError), socket.create_connection(("127.0.0.1", self.ports[port]), within) as connection:
            return connection.recv(100)
        return b""

    def wait_for_server(self, timeout: float = BOOT):
        with ThreadLoop() as loop:
            wait_for_server(f"opc.tcp://127.0.0.1:{self.ports[4840]}", loop, timeout)

    def slot(self) -> str:
        """The one that runs."""
        return self.ssh("grep -o 'rauc.slot=.' /proc/cmdline").strip()[-1]

    def counters(self) -> dict[str, str]:
        return self.board.counters(self)

    def update(self, version: str) -> str:
        """Begins an update, as a host does; the command's id."""
        return self.host.send("update", **self.server.offer(self.bundles[version], version))

    def reboot(self):
        self.try_ssh("systemctl --no-block start reboot.target", 60)
        wait_until(lambda: self.try_ssh("true").returncode, 180, "the device goes down")

    def session(self, loop: ThreadLoop) -> Client:
        url = f"opc.tcp://127.0.0.1:{self.ports[4840]}"
        wait_for_server(url, loop, BOOT)
        certificate = self.bundles.certificate
        client = Client(url, timeout=60, tloop=loop)
        client.application_uri = APPLICATION_URI
        client.set_user("anna")
        client.set_password(PASSWORD)
        client.set_security(SecurityPolicyBasic256Sha256, str(certificate.der), str(certificate.key))
        client.connect()
        return client


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> Bundles:
    """VEDETTE_IMAGES names a folder that keeps them, for whoever runs these tests again and again."""
    folder = Path(os.environ.get("VEDETTE_IMAGES") or tmp_path_factory.mktemp("bundles"))
    folder.mkdir(exist_ok=True)
    return Bundles(folder)


@pytest.fixture(scope="module")
def device(tmp_path_factory, request, bundles):
    """ATTACHED in a file of tests: how the disk is, if it is not as virtio. Another board's file has its own `bundles`."""
    device = Device(tmp_path_factory.mktemp("device"), bundles, getattr(request.module, "ATTACHED", "vda"))
    try:
        yield device
    finally:
        device.close()
