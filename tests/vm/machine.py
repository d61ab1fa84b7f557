"""An emulated arm64 machine with Debian's kernel and virtual cameras, driven over its serial console.

    with Machine(image) as machine:
        machine.wait_ready()
        code, output = machine.sh("v4l2-ctl -D")

Two drivers make cameras, and there may be several of each:

- vivid draws pictures in every raw format and has controls and buttons for all that can go wrong; /init loads one.
- v4l2loopback makes a camera of what is written into it: play() shows it Motion JPEG, whole or broken.

QEMU runs as a child under `timeout`, so a test that hangs cannot leave a machine behind. The console is QEMU's stdin
and stdout: a thread collects what comes, and sh() talks to guest/console-agent. Network: ports of the guest, on
127.0.0.1 of the host, and from the guest 10.0.2.2 is the host. Only the standard library is used here.
"""

import base64
import contextlib
import hashlib
import re
import shlex
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Callable, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
KERNEL = ROOT / "target/vm/vmlinuz"

# The camera that /init has loaded.
CAMERA = "/dev/video0"
# Frames that v4l2loopback keeps: what its max_buffers says in the tests.
DRIVER_BUFFERS = 8
# What a slow host may take on top of what the guest was given to run a command.
CONSOLE_LATENCY = 20.0
# Below the terminal's limit for one line, 4096 bytes.
LINE = 1024


class Result(NamedTuple):
    code: int
    output: str


class MachineError(AssertionError):
    """The machine did not do what was asked; carries the end of its console."""


def build_image(
    output: Path, binary: Path | None = None, overlay: Path | None = None, with_ustreamer: bool = False
) -> Path:
    """Makes an initramfs with scripts/vm. The first call fetches Debian's packages.

    What the overlay has at etc/drivers is run by /init's shell instead of loading its one vivid.
    """
    command = [str(ROOT / "scripts/vm"), "image", "-o", str(output)]
    if binary:
        command += ["--binary", str(binary)]
    if overlay:
        command += ["--overlay", str(overlay)]
    if with_ustreamer:
        command.append("--with-ustreamer")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise MachineError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return output


def free_port() -> int:
    """A TCP port on 127.0.0.1 that is free now; QEMU cannot be asked which it took, were it to choose itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition: Callable[[], object], timeout: float, what: str, every: float = 0.2):
    """Waits until condition() is true and returns what it gave; for states that can only be asked for."""
    end = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= end:
            raise MachineError(f"not within {timeout:g} s: {what}")
        time.sleep(every)


class Machine:
    # Those of vivid that break something for whoever streams; the first two for one frame or call.
    BUTTONS = (
        "inject_v4l2_buf_flag_error",
        "inject_vidioc_qbuf_error",
        "inject_vidioc_reqbufs_error",
        "inject_vidioc_streamon_error",
        "inject_fatal_streaming_error",
        "disconnect",
    )

    def __init__(
        self,
        image: Path,
        kernel: Path = KERNEL,
        lifetime: int = 900,
        forward: tuple[int, ...] = (4840,),
        count_instructions: bool = False,
        more: tuple[str, ...] = (),
    ):
        """Starts booting `image`; after `lifetime` seconds the machine is killed, whatever it does.

        `forward`: ports of the guest that shall be reached from here, at 127.0.0.1:ports[...].
        `count_instructions`: the guest's clock goes by the instructions it has executed, two nanoseconds each, so that
        CPU times in it do not depend on what else this host does. It is slower than ours then, and never faster.
        `more`: further options of QEMU, such as other devices.
        """
        self.ports = {port: free_port() for port in forward}
        self._console = b""
        self._ended = False
        self._changed = threading.Condition()
        self._asked = 0
        forwards = [f"hostfwd=tcp:127.0.0.1:{here}-:{there}" for there, here in self.ports.items()]
        self._process = subprocess.Popen(
            ["timeout", "--kill-after=5", str(lifetime), "qemu-system-aarch64"]
            # No accelerator of the host's CPU: the same machine everywhere. The same options stand in scripts/vm.
            + ["-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "1024", "-accel"]
            + (["tcg,thread=single", "-icount", "shift=1"] if count_instructions else ["tcg,thread=multi"])
            + ["-nographic", "-no-reboot", "-monitor", "none", "-serial", "stdio"]
            + ["-nic", ",".join(["user,model=virtio-net-pci", *forwards]), *more]
            + ["-kernel", str(kernel), "-initrd", str(image), "-append", "console=ttyAMA0 panic=-1 quiet"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._collect, name="console", daemon=True)
        self._reader.start()

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_):
        self.close()

    def wait_ready(self, timeout: float = 120):
        """Waits until the guest's /init has loaded the drivers and started the firmware, and the console answers.

        Says nothing about the firmware: the emulated network accepts TCP before anything in the guest listens.
        """
        self._wait_for(rb"vm: ready", 0, timeout)
        start = len(self._console)
        self._send("exec console-agent\n")
        self._wait_for(rb"agent: ready", start, CONSOLE_LATENCY)
        self.sh("true")

    def sh(self, command: str, timeout: float = 30) -> Result:
        """Runs a shell command in the guest: its exit code and what it wrote to stdout and stderr."""
        self._asked += 1
        ident = self._asked
        encoded = base64.b64encode(command.encode()).decode()
        lines = [encoded[i : i + LINE] for i in range(0, len(encoded), LINE)]
        question = "\n".join([f"{ident} {max(1, round(timeout))}", *lines, ".", ""])
        started = time.monotonic()
        for _ in range(3):
            start = len(self._console)
            self._send(question)
            answer = self._wait_for(
                rb"<%d (\d+) ([0-9a-f]{32})\r?\n(.*?)>%d\r?\n" % (ident, ident), start, timeout + CONSOLE_LATENCY
            )
            with contextlib.suppress(ValueError):
                output = base64.b64decode(re.sub(rb"\s", b"", answer[3]), validate=True)
                if hashlib.md5(output).hexdigest().encode() == answer[2]:
                    break
            question = f"{ident}\n"
        else:
            raise MachineError(self._with_console(f"the answer to {command!r} arrived damaged three times"))
        result = Result(int(answer[1]), output.decode(errors="replace"))
        # What busybox's and other `timeout` commands end with when they had to end something.
        if result.code in (124, 143) and time.monotonic() - started >= timeout - 1:
            raise MachineError(f"{command!r} did not end within {timeout:g} s, so far it said:\n{result.output}")
        return result

    def check(self, command: str, timeout: float = 30) -> str:
        """Like sh(), for a command that must succeed: its output."""
        code, output = self.sh(command, timeout)
        if code:
            raise MachineError(f"{command!r} ended with {code}:\n{output}")
        return output

    # Drivers and devices. The guest has no udev: nodes come and go with devtmpfs, and there are no links by-id.

    def load(self, driver: str, **options):
        """Loads a driver with its options; a list is one value for each device: n_devs=2, multiplanar=[1, 2]."""
        values = {key: value if isinstance(value, (list, tuple)) else [value] for key, value in options.items()}
        words = [f"{key}={','.join(map(str, value))}" for key, value in values.items()]
        self.check(" ".join(["modprobe", driver, *map(shlex.quote, words)]))

    def unload(self, driver: str, timeout: float = 10):
        """Unloads a driver as soon as nobody has its devices open, as an idle firmware that looks after a camera has
        it for a moment now and then.
        """
        wait_until(lambda: self.sh(f"rmmod {driver}").code == 0, timeout, f"{driver} is unloaded")

    def unplug(self, device: str = "vivid.0"):
        """Takes the hardware away from its driver while others use it, as pulling the plug does: all nodes of it vanish
        from /dev at once, and who has one open gets an error. All devices of vivid are one piece of hardware.
        """
        self.check(f"echo {device} >/sys/bus/platform/drivers/{device.split('.')[0]}/unbind")

    def plug(self, device: str = "vivid.0"):
        """Brings back what unplug() took; its controls have their defaults again."""
        self.check(f"echo {device} >/sys/bus/platform/drivers/{device.split('.')[0]}/bind")

    def play(
        self, frames: list[bytes], device: str, size: tuple[int, int], rate: float = 10.0, fourcc: str = "MJPG"
    ) -> "Player":
        """Shows frames in turn on a device of v4l2loopback until the player that this gives is closed.

        Load the driver with exclusive_caps=1 for a device that is a camera while it is played to, and an output else;
        without, it is both all the time, and refuses to stream while nobody plays.
        """
        return Player(self, frames, device, f"width={size[0]},height={size[1]},pixelformat={fourcc}", rate)

    # The virtual camera, from outside of whoever uses it.

    def set_controls(self, device: str = CAMERA, **controls: int):
        """Sets controls of the camera, for instance test_pattern=13. Needs no stream and disturbs none."""
        self.check(f"v4l2-ctl -d {device} -c " + ",".join(f"{name}={value}" for name, value in controls.items()))

    def press(self, button: str, device: str = CAMERA):
        """Presses one of vivid's buttons, for instance `disconnect`; BUTTONS has those that inject errors.

        After `disconnect` every call on the camera fails with ENODEV, for those who have it open and those who open
        it, until the last who had it open has closed it: only then does vivid bring it back, and then at once. If
        nobody has it open, it is away for the length of this call only.
        """
        self.check(f"v4l2-ctl -d {device} -c {button}=1")

    def menu(self, control: str, device: str = CAMERA) -> dict[str, int]:
        """The entries of a menu control and the values to set them with."""
        listing = self.check(f"v4l2-ctl -d {device} -L")
        found = re.search(rf"^ *{control} 0x\S+ \(menu\).*\n((?:\t+\d+: .*\n?)*)", listing, re.MULTILINE)
        if not found:
            raise MachineError(f"the camera has no menu {control}:\n{listing}")
        return {name: int(value) for value, name in re.findall(r"^\t+(\d+): (.*)$", found[1], re.MULTILINE)}

    def choose(self, control: str, entry: str, device: str = CAMERA):
        """Sets a menu control by its entry's name."""
        self.set_controls(device, **{control: self.menu(control, device)[entry]})

    def is_streaming(self, instance: int = 0) -> bool:
        """Whether somebody streams from the camera, as the driver itself knows: vivid runs a kernel thread that draws
        the pictures from STREAMON to STREAMOFF or close, and at no other time. Asking does not touch the camera.
        """
        return self.sh(f"grep -q '^vivid-{instance:03}-vid-c' /proc/[0-9]*/comm").code == 0

    def holds_buffers(self) -> bool:
        """Whether somebody has buffers of the camera allocated, streaming or not: then its format cannot be set.

        The format asked for is the one it has, so where nobody has buffers nothing changes.
        """
        code, output = self.sh(
            "format=$(v4l2-ctl -d /dev/video0 -V | sed -n \"s/.*Pixel Format.*'\\(....\\)'.*/\\1/p\")\n"
            "v4l2-ctl -d /dev/video0 -v pixelformat=$format"
        )
        if "busy" in output:
            return True
        if code or "failed" in output:
            raise MachineError(f"setting the camera's own format ended with {code}:\n{output}")
        return False

    def log_stream_calls(self):
        """Makes the kernel log every ioctl on the camera, for stream_calls()."""
        self.check("echo 1 >/sys/class/video4linux/video0/dev_debug; dmesg -c >/dev/null")

    def stream_calls(self) -> list[str]:
        """The STREAMON and STREAMOFF calls on the camera since the last time this was asked, in their order."""
        return re.findall(r"video0: VIDIOC_(STREAMON|STREAMOFF)\b", self.check("dmesg -c"))

    def cpu_seconds(self, pid: int) -> float:
        """What a process has used so far, in user and kernel, as the guest's kernel counts (in hundredths)."""
        # The name in field 2 may have blanks; fields 14 and 15 of proc(5).
        fields = self.check(f"cat /proc/{pid}/stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def firmware_log(self) -> str:
        return self.sh("cat /tmp/vedette.log").output

    def console(self, characters: int = 4000) -> str:
        """The end of what the console showed."""
        return self._console[-characters:].decode(errors="replace")

    def close(self):
        """Ends the machine; nothing in it is worth an orderly shutdown."""
        if self._process.poll() is None:
            # `timeout` passes it on to QEMU.
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(5)
        self._process.stdin.close()
        self._process.stdout.close()

    def _collect(self):
        while chunk := self._process.stdout.read1(65536):
            with self._changed:
                self._console += chunk
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _send(self, text: str):
        try:
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise MachineError(self._with_console("the machine has ended")) from None

    def _wait_for(self, pattern: bytes, start: int, timeout: float) -> re.Match[bytes]:
        """Waits until the console from byte `start` on matches."""
        compiled = re.compile(pattern, re.DOTALL)
        end = time.monotonic() + timeout
        with self._changed:
            while True:
                if found := compiled.search(self._console, start):
                    return found
                if self._ended:
                    raise MachineError(self._with_console("the machine ended"))
                left = end - time.monotonic()
                if left <= 0:
                    raise MachineError(self._with_console(f"no {pattern!r} on the console within {timeout:g} s"))
                self._changed.wait(left)

    def _with_console(self, what: str) -> str:
        return f"{what}; its console ended with:\n{self.console()}"


class Player:
    """Somebody who shows frames to a device of v4l2loopback; see Machine.play()."""

    def __init__(self, machine: Machine, frames: list[bytes], device: str, fmt: str, rate: float):
        self.played = 0
        self._machine = machine
        self._interval = 1 / rate
        self._names: dict[bytes, str] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._running = threading.Event()
        self._running.set()
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(CONSOLE_LATENCY)
            port = server.getsockname()[1]
            self._log = f"/tmp/player.{port}.log"
            command = f"player {device} {fmt} {port} >{self._log} 2>&1 & echo $!"
            self._pid = int(machine.check(command))
            self._connection, _ = server.accept()
        self._thread = threading.Thread(target=self._run, name=f"player {device}", daemon=True)
        self._frames, self._next = frames, 0
        self._thread.start()
        self.show(frames)

    def __enter__(self) -> "Player":
        return self

    def __exit__(self, *_):
        self.close()

    def show(self, frames: list[bytes]):
        """Shows these from now on, and returns when no older frame is left in the driver.

        The driver hands old frames, as if they were new, to those who begin to stream.
        """
        with self._lock:
            self._frames, self._next = frames, 0
            enough = self.played + DRIVER_BUFFERS + 1
        if self._thread.is_alive():
            wait_until(lambda: self.played >= enough, enough * self._interval + CONSOLE_LATENCY, "frames are played")

    def pause(self):
        """Shows nothing; the device stays a camera."""
        self._running.clear()

    def resume(self):
        self._running.set()

    def log(self) -> str:
        return self._machine.sh(f"cat {self._log}").output

    def close(self):
        """Ends the show; the device is closed when this returns."""
        self._stop.set()
        self._thread.join()
        self._connection.close()
        wait_until(lambda: self._machine.sh(f"kill -0 {self._pid}").code, CONSOLE_LATENCY, "the player has ended")

    def _put(self, frame: bytes):
        if frame not in self._names:
            self._names[frame] = str(len(self._names))
            self._connection.sendall(f"put {self._names[frame]} {len(frame)}\n".encode() + frame)

    def _run(self):
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            if not self._running.is_set():
                due = time.monotonic() + self._interval
                continue
            with self._lock:
                frame = self._frames[self._next % len(self._frames)]
                self._next += 1
                try:
                    self._put(frame)
                    self._connection.sendall(f"show {self._names[frame]}\n".encode())
                except OSError:
                    # The player has ended; whoever looks for its frames finds its log.
                    return
            self.played += 1
            due += self._interval
