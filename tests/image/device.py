"""A device with the quick image in QEMU: from U-Boot on as it would be on a table, with a disk that outlives its machine.

    device.power_on()
    device.ssh("rauc status")
    device.cut()              # the emulator is killed: whatever the guest had not written is gone

What the guest's units call and the program does not have yet stands in tests/image/stand-in. The broker is one of this host,
the camera is vivid, the disk has 2 GB. Deadlines are for a loaded host, where a boot takes two minutes.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from appliance import APPLICATION_URI, Certificate, make_certificate, wait_for_server
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.sync import Client, ThreadLoop
from machine import ROOT, MachineError, free_port, wait_until

UBOOT = "/usr/lib/u-boot/qemu_arm64/u-boot.bin"
BOOT = 420.0
# As config/device/partitions has it: the first partition begins behind 1 MiB.
BOOT_PARTITION = "@@1M"

CONFIG = """
[device]
name = "vedette-image"
[ua_server]
listen = "0.0.0.0:4840"
anonymous = "operator"
[cameras]
discover = false
[[camera]]
name = "line1"
device = "/dev/video0"
width = 640
height = 480
[mqtt]
broker = "mqtt://10.0.2.2:{broker}"
format = "json"
[mqtt.json]
topic = "image"
layout = "batch"
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


class Bundles:
    """The image, its bundle, and the bundle of a system that says that it is not healthy."""

    def __init__(self, folder: Path):
        self.folder = folder
        binary = Path(os.environ.get("VEDETTE_BINARY") or ROOT / "target/dist/vedette-aarch64")
        self.key = folder / "id"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
        self.certificate: Certificate = make_certificate(folder)
        overlay = folder / "overlay"
        shutil.copytree(ROOT / "tests/image/stand-in", overlay)
        (overlay / "usr/lib/vedette").mkdir(parents=True)
        shutil.copyfile(binary, overlay / "usr/lib/vedette/program")
        (overlay / "usr/lib/vedette/program").chmod(0o755)
        self.image, self.good = self._make("good", overlay)
        (overlay / "etc/vedette-broken").touch()
        _, self.broken = self._make("broken", overlay)

    def _make(self, name: str, overlay: Path) -> tuple[Path, Path]:
        out = self.folder / name
        # Packed quickly instead of small.
        run(ROOT / "scripts/image", "--overlay", overlay, "--ssh-key", f"{self.key}.pub", "--version", name, "--size", "2G",
            "-o", out, env=os.environ | {"VEDETTE_ZSTD": "1"})  # fmt: skip
        return out / "vedette-qemu.img", out / "vedette-qemu.raucb"


class Device:
    def __init__(self, folder: Path, bundles: Bundles):
        self.folder = folder
        self.bundles = bundles
        self.disk = folder / "disk.img"
        # What is not written is not there in the file either.
        run("cp", "--sparse=always", bundles.image, self.disk)
        self.broker_port = free_port()
        self.ports = {22: free_port(), 4840: free_port()}
        self.life = 0
        self._process = None

    def put_on_boot_partition(self, name: str, content: bytes):
        """As somebody who has the card in his computer does."""
        file = self.folder / "put"
        file.write_bytes(content)
        run("mcopy", "-o", "-i", f"{self.disk}{BOOT_PARTITION}", file, f"::{name}")

    def boot_partition(self) -> list[str]:
        return run("mdir", "-b", "-i", f"{self.disk}{BOOT_PARTITION}", "::").stdout.split()

    def provide(self):
        """The configuration of these tests, and the client that they are."""
        certificate = self.bundles.certificate
        self.put_on_boot_partition("vedette.toml", CONFIG.format(broker=self.broker_port).encode())
        self.put_on_boot_partition(certificate.file_name, certificate.der.read_bytes())

    def power_on(self):
        self.life += 1
        self._console = self.folder / f"console-{self.life}"
        forwards = [f"hostfwd=tcp:127.0.0.1:{here}-:{there}" for there, here in self.ports.items()]
        with open(self._console, "wb") as console:
            self._process = subprocess.Popen(
                ["timeout", "--kill-after=5", "1500", "qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72"]
                + ["-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024", "-nographic", "-monitor", "none"]
                + ["-serial", "stdio", "-bios", UBOOT, "-device", "i6300esb"]
                + ["-drive", f"file={self.disk},format=raw,if=virtio"]
                + ["-nic", ",".join(["user,model=virtio-net-pci", *forwards])],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def cut(self):
        if self._process and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def console(self) -> str:
        return self._console.read_text(errors="replace")

    def starts(self) -> list[str]:
        """The slots that the boot loader has started in this life, as `A` or, on trial, `B 2`."""
        found = re.findall(r"vedette: slot ([AB]) (?:vedette\.trial=(\d))?", self.console())
        return [" ".join(filter(None, start)) for start in found]

    def ssh(self, command: str, timeout: float = 120, stdin=subprocess.DEVNULL) -> str:
        """What a command says that succeeds."""
        done = self.try_ssh(command, timeout, stdin)
        if done.returncode:
            raise MachineError(f"{command!r} ended with {done.returncode}:\n{done.stdout}\n{self.console()[-2000:]}")
        return done.stdout

    def try_ssh(self, command: str, timeout: float = 120, stdin=subprocess.DEVNULL) -> subprocess.CompletedProcess:
        # One connection for all, because each handshake costs the emulated machine seconds.
        options = "StrictHostKeyChecking=no UserKnownHostsFile=/dev/null LogLevel=ERROR ConnectTimeout=30 ControlMaster=auto"
        options += f" ControlPersist=20m ControlPath={self.folder}/ssh-%C ServerAliveInterval=5 ServerAliveCountMax=6"
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
            ask = "grep -o 'rauc.slot=.' /proc/cmdline; systemctl is-active boot-complete.target"
            if self._listens() and self.try_ssh(ask).stdout.split() == [f"rauc.slot={slot}", "active"]:
                return
            time.sleep(2)
        said = self.try_ssh("systemctl --failed; systemctl list-jobs; journalctl -b -n 40 --no-pager").stdout
        raise MachineError(f"slot {slot} is not up within {timeout:g} s: {self.starts()}\n{said}\n{self.console()[-3000:]}")

    def _listens(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.ports[22]), 5) as probe:
                probe.settimeout(20)
                return probe.recv(4) == b"SSH-"
        except OSError:
            return False

    def counters(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.ssh("fw_printenv").splitlines())

    def put(self, bundle: Path):
        with open(bundle, "rb") as file:
            self.ssh("cat >/data/update.raucb", 300, stdin=file)

    def reboot(self):
        self.try_ssh("systemctl --no-block start reboot.target", 60)
        wait_until(lambda: self.try_ssh("true").returncode, 180, "the device goes down")

    def session(self, loop: ThreadLoop) -> Client:
        url = f"opc.tcp://127.0.0.1:{self.ports[4840]}"
        wait_for_server(url, loop, BOOT)
        certificate = self.bundles.certificate
        client = Client(url, timeout=60, tloop=loop)
        client.application_uri = APPLICATION_URI
        client.set_security(SecurityPolicyBasic256Sha256, str(certificate.der), str(certificate.key))
        client.connect()
        return client


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> Bundles:
    return Bundles(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def device(tmp_path_factory, bundles):
    device = Device(tmp_path_factory.mktemp("device"), bundles)
    config = device.folder / "mosquitto.conf"
    config.write_text(f"listener {device.broker_port} 127.0.0.1\nallow_anonymous true\n")
    mosquitto = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
    broker = subprocess.Popen([mosquitto, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield device
    finally:
        device.cut()
        broker.kill()
        broker.wait()
        device.disk.unlink()
