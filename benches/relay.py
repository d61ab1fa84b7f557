"""The relay under load: 10 000 items of a scripted DA server at 100 ms to one subscriber. Run by `scripts/bench relay`.

    relay.py FAKE_DA [ITEMS [INTERVAL_MS]]         default: 10000 100

    worker (examples/fake_da.rs) ──► relay (the one that is measured) ──► this program

    cost       CPU time of the relay's process for each value, from the worker's pipe to the client's socket
    age        from the worker's timestamp to the arrival here, with the shortest publishing interval there is, of a tenth of the items
    reconnect  from the end of the worker to a good value of every item

Fails if a value costs more than 5 us, or if the reconnect takes more than 5 s. In a run by hand a build without optimisation is several
times slower.
"""

import collections
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FAKE = Path(sys.argv[1]).resolve()
ITEMS = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
INTERVAL_MS = int(sys.argv[3]) if len(sys.argv) > 3 else 100
SPAN = 20

sys.argv = sys.argv[:1]
sys.path.insert(0, str(Path(__file__).resolve().parent / "ua"))
from bench_client import Published, Wire  # noqa: E402
from collect import EPOCH, take, values, whole  # noqa: E402
from servers import cpu_seconds, free_port, kill_at_exit, memory, wait_until  # noqa: E402

NODES = [f"ns=2;s=Wave.{number}" for number in range(ITEMS)]

CONFIG = """
listen = "127.0.0.1:PORT"
data_dir = 'FOLDER'
insecure_on_loopback = true
anonymous = "operator"
[[server]]
prog_id = "Bench"
"""


class Relay:
    def __init__(self, folder: Path):
        self.port, config, self.log = free_port(), folder / "relay.toml", folder / "log"
        config.write_text(CONFIG.replace("PORT", str(self.port)).replace("FOLDER", str(folder / "data")))
        with self.log.open("wb") as log:
            command = [FAKE, "relay", config]
            self.process = subprocess.Popen(command, stderr=log, stdout=log)
        kill_at_exit(self.process)
        wait_until("the DA server is there", lambda: "The DA server is there." in self.log.read_text(), 60)
        self.pid, self.url = self.process.pid, f"opc.tcp://127.0.0.1:{self.port}"

    def worker(self) -> int:
        found = subprocess.run(["pgrep", "-P", str(self.pid)], capture_output=True, text=True, check=True)
        return int(found.stdout.split()[0])


def begin(relay: Relay, nodes, publishing):
    wire = Wire(relay.url)
    subscription = wire.subscribe(nodes, publishing, INTERVAL_MS, queue_size=5)
    for _ in range(3):
        wire.publish()
    take(wire, subscription, 3)
    return wire, subscription


def cost(relay: Relay) -> float:
    wire, subscription = begin(relay, NODES, INTERVAL_MS)
    cpu, began = cpu_seconds(relay.pid), time.monotonic()
    counts, ages = take(wire, subscription, SPAN)
    seconds, cpu = time.monotonic() - began, cpu_seconds(relay.pid) - cpu
    total = sum(counts.values())
    print(f"{ITEMS} items at {INTERVAL_MS} ms: {total / seconds:.0f} values/s ({min(counts.values())} to {max(counts.values())} of each of "
          f"{len(counts)} items), {100 * cpu / seconds:.0f} % of a core, {1e6 * cpu / total:.2f} us a value, "
          f"{memory(relay.pid)['Rss']:.1f} MiB resident", flush=True)
    assert len(counts) == ITEMS, "items without a value"
    reconnect = comes_back(relay, wire, subscription)
    print(f"reconnect: {reconnect:.2f} s from the end of the worker to a good value of each of {ITEMS} items", flush=True)
    wire.close()
    if reconnect > 5:
        raise SystemExit("FAILED: the reconnect took too long")
    return cpu / total


def comes_back(relay: Relay, wire: Wire, subscription: int) -> float:
    os.kill(relay.worker(), signal.SIGKILL)
    began, since = time.monotonic(), time.time_ns() // 100 + EPOCH
    good = set()
    while len(good) < ITEMS:
        assert time.monotonic() < began + 60, f"{len(good)} items came back"
        body = whole(wire)
        published = Published(body)
        wire.publish([(subscription, published.sequence_number)] if published.notifications else ())
        if published.notifications:
            # What is bad has no timestamp.
            good.update(handle for handle, stamp in values(body, published.notifications) if stamp > since)
    return time.monotonic() - began


def age(relay: Relay):
    wire, subscription = begin(relay, NODES[: ITEMS // 10], 20)
    _, ages = take(wire, subscription, SPAN)
    ages = sorted(ages)
    at = lambda part: 1000 * ages[int(len(ages) * part)]  # noqa: E731
    print(f"age of a value at the client, with 20 ms publishing interval: median {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms", flush=True)
    wire.close()


def main(folder: Path):
    relay = Relay(folder)
    a_value = cost(relay)
    age(relay)
    if a_value > 5e-6:
        raise SystemExit("FAILED: a value costs more than 5 us")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
