"""Starts the program under test, and the peers it talks to, each on a free loopback port with files of its own.

The program: VEDETTE_BINARY, or what `cargo build` left at target/debug/vedette.
"""

import functools
import io
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from asyncua.sync import Client, ThreadLoop
from identities import make_identity
from node_opcua import Node
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("VEDETTE_BINARY", ROOT / "target/debug/vedette"))

# Generous: a busy machine is no fault of the program.
PATIENCE = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(what, condition, patience=PATIENCE):
    """Until condition() is true; its last value is returned."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


@functools.cache
def client_loop() -> ThreadLoop:
    """One loop for all clients, in a thread that does not keep pytest from ending when a client was never closed."""
    loop = ThreadLoop(timeout=60)
    loop.daemon = True
    loop.start()
    return loop


class Vedette:
    """The program, with its configuration, its data folder and its log."""

    def __init__(self, folder: Path, config: str):
        self.folder = folder
        self.port = free_port()
        self.url = f"opc.tcp://127.0.0.1:{self.port}"
        self.config = folder / "vedette.toml"
        self.config.write_text(config.replace("{port}", str(self.port)))
        self.data = folder / "data"
        self.log = folder / "vedette.log"
        self.process = None

    def start(self, *arguments: str, wait=True) -> "Vedette":
        command = [BINARY, "run", "--config", self.config, "--data-dir", self.data, *arguments]
        # What a start before this one said does not count.
        self.log.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        if wait:
            wait_until("Serving OPC UA", lambda: self.says("Serving OPC UA") or self.ended())
            assert self.process.poll() is None, self.text()
        return self

    def ended(self) -> bool:
        return self.process.poll() is not None

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, words: str) -> bool:
        return words in self.text()

    def stop(self) -> int:
        if self.process and not self.ended():
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def client(self) -> Client:
        # The library's 4 s are what a login that was refused before waits, and little for a busy machine.
        return Client(self.url, timeout=30, tloop=client_loop())

    def cpu_seconds(self) -> float:
        """User and system time so far, by the kernel's count (proc(5))."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


DEMO = """
[device]
name = "vedette-test"
[ua_server]
listen = "127.0.0.1:{port}"
insecure_on_loopback = true
anonymous = "operator"
[cameras]
discover = false
linger = "500ms"
[[camera]]
name = "line1"
device = "test-pattern"
width = 640
height = 480
[[camera]]
name = "absent"
device = "/dev/video99"
[system]
interval = "500ms"
[[simulator]]
name = "demo"
interval = "100ms"
"""


@pytest.fixture
def make(tmp_path):
    """Makes a Vedette from a configuration; all are stopped at the end."""
    made = []

    def factory(config: str = DEMO) -> Vedette:
        folder = tmp_path / f"vedette{len(made)}"
        folder.mkdir()
        made.append(Vedette(folder, config))
        return made[-1]

    yield factory
    for vedette in made:
        if vedette.process and not vedette.ended():
            vedette.process.kill()
            vedette.process.wait()


@pytest.fixture
def vedette(make) -> Vedette:
    return make().start()


@pytest.fixture(scope="session")
def node_identity(tmp_path_factory):
    return make_identity(tmp_path_factory.mktemp("node-identity"))


@pytest.fixture
def node(tmp_path, node_identity):
    """Makes node-opcua clients of a Vedette; all are stopped at the end."""
    made = []

    def factory(vedette: Vedette, **options) -> Node:
        folder = tmp_path / f"node{len(made)}"
        folder.mkdir()
        made.append(Node(vedette.url, folder, **{"identity": str(node_identity), **options}))
        return made[-1]

    yield factory
    for node in made:
        node.kill()


class Broker:
    """A mosquitto of its own on loopback."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.port = free_port()
        program = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
        assert program, "mosquitto is missing: apt-get install mosquitto (scripts/test does)"
        self.program = program
        self.config = folder / "mosquitto.conf"
        self.config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self.process = None

    def start(self) -> "Broker":
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen([self.program, "-c", self.config], stdout=log, stderr=log)
        wait_until("the broker listens", self.listens)
        return self

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def broker(tmp_path):
    folder = tmp_path / "broker"
    folder.mkdir()
    broker = Broker(folder)
    yield broker.start()
    broker.kill()


def line_of(text: str, words: str) -> int:
    """The last line of a configuration that begins with these words, from 1."""
    return max(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(words))


def picture(data: bytes) -> Image.Image:
    """Decoded to the last byte, by somebody else's decoder."""
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.format == "JPEG"
    return image


def child(node, *path: str):
    """By browse names, whatever their namespace."""
    for name in path:
        matching = [c for c in node.get_children() if c.read_browse_name().Name == name]
        assert matching, f"{name} not among {[c.read_browse_name().Name for c in node.get_children()]}"
        node = matching[0]
    return node
