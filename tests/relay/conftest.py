"""Starts the relay's program under Wine, with the DA server for tests that it brings when it is built with that feature.

The program: VEDETTE_RELAY, or what `scripts/cross relay --profile dev -- --features da-test-server` left in target/dist.
"""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from worker import PATIENCE, Worker

ROOT = Path(__file__).resolve().parents[2]
RELAY = Path(os.environ.get("VEDETTE_RELAY", ROOT / "target/dist/vedette-da-relay-x86_64-dev.exe"))
WINE = [os.environ.get("VEDETTE_WINE", ROOT / "scripts/wine"), RELAY]


@pytest.fixture(scope="session", autouse=True)
def windows():
    """One Wine for all tests: to start its services takes seconds each time."""
    subprocess.run([ROOT / "scripts/wine"], check=True)
    server, environment = "/usr/lib/wine/wineserver", {**os.environ, "WINEPREFIX": str(ROOT / "target/wine/prefix")}
    # Only one that begins can be told to stay. To end takes it a moment, and it fails if there is none.
    subprocess.run([server, "-k"], env=environment)
    deadline = time.monotonic() + PATIENCE
    while subprocess.run([server, "-p"], env=environment).returncode:
        assert time.monotonic() < deadline, "never: an end of the Wine from before"
        time.sleep(0.5)
    # Its services begin with the first program, and would keep a pipe that they got from that open for good.
    subprocess.run([*WINE, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    yield
    subprocess.run([server, "-k"], env=environment)


class Ended:
    def __init__(self, done: subprocess.CompletedProcess):
        self.code = done.returncode
        self.out = done.stdout.decode().replace("\r\n", "\n")
        self.error = done.stderr.decode().replace("\r\n", "\n")
        self.lines = self.out.splitlines()

    def json(self) -> list:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def script(tmp_path):
    """Makes a file that says what the DA server for tests does."""

    def write(**keys) -> Path:
        file = tmp_path / "server.toml"
        value = lambda value: str(value).lower() if isinstance(value, bool) else repr(value)
        file.write_text("".join(f"{key} = {value(keys[key])}\n" for key in keys))
        return file

    return write


@pytest.fixture
def tool(script):
    """Runs a command on the DA server for tests: tool("read", "Types.R8", da=3)."""

    def run(command: str, *arguments: str, **keys) -> Ended:
        # What begins with a slash is a path of this machine, which Wine's programs see as drive Z.
        target = ["test", "--test-server", f"Z:{script(**keys)}"] if keys is not None else []
        done = subprocess.run([*WINE, command, *target, *arguments], capture_output=True, timeout=2 * PATIENCE)
        return Ended(done)

    return run


@pytest.fixture
def plain():
    """Runs a command as it is."""

    def run(*arguments: str) -> Ended:
        return Ended(subprocess.run([*WINE, *arguments], capture_output=True, timeout=2 * PATIENCE))

    return run


@pytest.fixture
def start(script, tmp_path):
    """Starts workers; all are ended at the end."""
    started = []

    def begin(server="test", **keys) -> Worker:
        file = script(**keys)
        log = open(tmp_path / f"worker{len(started)}.log", "wb")
        arguments = ["--test-server", f"Z:{file}"] if server == "test" else []
        started.append(Worker([*WINE, "worker", server, *arguments], log))
        return started[-1]

    yield begin
    for number, worker in enumerate(started):
        code = worker.process.poll()
        worker.kill()
        # Seen only when the test failed.
        print(f"worker {number}: {'ran' if code is None else f'ended with {code}'}, its log:")
        print((tmp_path / f"worker{number}.log").read_text(errors="replace")[-4000:])


@pytest.fixture
def worker(start):
    """A worker that has started."""

    def begin(**keys) -> Worker:
        worker = start(**keys)
        assert worker.next("Started"), "the worker did not start"
        return worker

    return begin
