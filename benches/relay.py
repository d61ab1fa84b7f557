"""The relay under load: 10 000 items of a scripted DA server at 100 ms to one subscriber. Run by `scripts/bench relay`.

    relay.py PROGRAM [ITEMS [INTERVAL_MS]]         default: 10000 100

    worker ──► relay (the one that is measured) ──► this program

PROGRAM is examples/fake_da.rs, the relay without COM on this machine; or one of vedette-da-relay.exe with the feature da-test-server,
under Wine, where COM is between the worker and its DA server.

    cost       CPU time of the relay's process for each value, from the worker's pipe to the client's socket
    latency    from the DA server's timestamp to the time at which the relay put the value into the queues of subscriptions
    age        from the DA server's timestamp to the arrival here, with the shortest publishing interval there is; both of a tenth
               of the items
    browse     of a folder of 50 000 items: when the first 1000 are here, and when all
    reconnect  from the end of the worker to a good value of every item

Fails if a value costs more than 5 us, if the latency's median is more than 5 ms, if values are lost, or if the reconnect takes more than
5 s. In a run by hand a build without optimisation is several times slower.
"""

import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = Path(sys.argv[1]).resolve()
ITEMS = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
INTERVAL_MS = int(sys.argv[3]) if len(sys.argv) > 3 else 100
SPAN = 20

sys.argv = sys.argv[:1]
sys.path.insert(0, str(Path(__file__).resolve().parent / "ua"))
from asyncua import ua  # noqa: E402
from bench_client import Published, Wire  # noqa: E402
from collect import EPOCH, take, values, whole  # noqa: E402
from servers import ROOT, cpu_seconds, free_port, kill_at_exit, memory, wait_until  # noqa: E402

IS_WINDOWS = PROGRAM.suffix == ".exe"
NODE, FOLDER = ("ns=2;s=Ramps.Ramp{}", "Many") if IS_WINDOWS else ("ns=2;s=Wave.{}", "Big")
NODES = [NODE.format(number) for number in range(ITEMS)]
MANY = 50_000

CONFIG = """
listen = "127.0.0.1:PORT"
data_dir = 'FOLDER'
insecure_on_loopback = true
anonymous = "operator"
discover = false
[[server]]
prog_id = "Bench"
"""
SCRIPT = f"""
da = 3
ramps = {ITEMS}
many = {MANY}
fastest = {INTERVAL_MS}
"""


def path(of: Path) -> str:
    """As the relay's machine has it."""
    return "Z:" + str(of).replace("/", "\\") if IS_WINDOWS else str(of)


class Relay:
    def __init__(self, folder: Path):
        self.port, config, self.log = free_port(), folder / "relay.toml", folder / "log"
        (folder / "data").mkdir()
        config.write_text(CONFIG.replace("PORT", str(self.port)).replace("FOLDER", path(folder / "data")))
        command = [PROGRAM, "relay", config]
        if IS_WINDOWS:
            script = folder / "server.toml"
            script.write_text(SCRIPT)
            command = [ROOT / "scripts/wine", PROGRAM, "run", "--config", path(config), "--test-server", f"Bench={path(script)}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, stdout=log)
        kill_at_exit(self.process)
        wait_until("the DA server is there", lambda: "The DA server is there." in self.log.read_text(errors="replace"), 300)
        self.pid, self.url = self.process.pid, f"opc.tcp://127.0.0.1:{self.port}"

    def worker(self) -> int:
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            words = process.read_bytes().split(b"\0")
            if b"worker" in words and any(PROGRAM.name.encode() in word for word in words):
                return int(process.parent.name)
        raise SystemExit("FAILED: there is no worker")


def begin(relay: Relay, nodes, publishing):
    wire = Wire(relay.url)
    subscription = wire.subscribe(nodes, publishing, INTERVAL_MS, queue_size=5)
    for _ in range(3):
        wire.publish()
    take(wire, subscription, 3)
    return wire, subscription


def cost(relay: Relay) -> list[str]:
    wire, subscription = begin(relay, NODES, INTERVAL_MS)
    worker = relay.worker()
    cpu, of_worker, began = cpu_seconds(relay.pid), cpu_seconds(worker), time.monotonic()
    counts, _ = take(wire, subscription, SPAN)
    seconds, cpu, of_worker = time.monotonic() - began, cpu_seconds(relay.pid) - cpu, cpu_seconds(worker) - of_worker
    total = sum(counts.values())
    fewest, most = min(counts.values()), max(counts.values())
    print(f"{ITEMS} items at {INTERVAL_MS} ms: {total / seconds:.0f} values/s ({fewest} to {most} of each of "
          f"{len(counts)} items), {100 * cpu / seconds:.0f} % of a core, {1e6 * cpu / total:.2f} us a value, "
          f"{memory(relay.pid)['Rss']:.1f} MiB resident; the worker and its DA server {100 * of_worker / seconds:.0f} %", flush=True)
    reconnect = comes_back(relay, wire, subscription)
    print(f"reconnect: {reconnect:.2f} s from the end of the worker to a good value of each of {ITEMS} items", flush=True)
    wire.close()
    return [
        *(["a value costs more than 5 us"] if cpu / total > 5e-6 else []),
        *(["values were lost"] if len(counts) != ITEMS or most - fewest > 3 else []),
        *(["the reconnect took too long"] if reconnect > 5 else []),
    ]


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


def age(relay: Relay) -> list[str]:
    wire, subscription = begin(relay, NODES[: ITEMS // 10], 20)
    ages, latencies, until = [], [], time.monotonic() + SPAN
    while time.monotonic() < until:
        body, now = whole(wire), time.time_ns() // 100 + EPOCH
        published = Published(body)
        wire.publish([(subscription, published.sequence_number)] if published.notifications else ())
        if published.notifications:
            # Handle, mask, type, value, source and server timestamp of a good Double (OPC 10000-6, 5.2.2.17).
            at = body.index(struct.pack("<BBH", 1, 0, 811)) + 13
            part = body[at:at + 30 * published.notifications]
            found = list(struct.iter_unpack("<IBBdqq", part)) if len(part) == 30 * published.notifications else []
            # With an overflow bit they have other places; there are enough without.
            if all(mask == 0x0D for _, mask, *_ in found):
                ages.extend((now - source) / 1e4 for *_, source, _ in found)
                latencies.extend((server - source) / 1e4 for *_, source, server in found)
    wire.close()
    shown = {"latency": latencies, "age with 20 ms publishing interval": ages}
    if IS_WINDOWS:
        # The ramps of the DA server there are stamped by their steps, and its groups call back when it is their time.
        del shown["latency"]
    for name, all_of_them in shown.items():
        all_of_them.sort()
        at = lambda part: all_of_them[int(len(all_of_them) * part)]  # noqa: B023, E731
        print(f"{name}: median {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms of {len(all_of_them)} values", flush=True)
    return ["the latency is more than 5 ms"] if not IS_WINDOWS and latencies[len(latencies) // 2] > 5 else []


def browse(relay: Relay) -> list[str]:
    wire = Wire(relay.url)

    def page(request, response_type):
        response = wire.call(request, response_type)
        # asyncua has the results of the one in the response itself, those of the other in its parameters.
        (result,) = getattr(response, "Parameters", response).Results
        result.StatusCode.check()
        return result.References, result.ContinuationPoint

    def first(node):
        request = ua.BrowseRequest()
        request.Parameters.View.Timestamp = ua.get_win_epoch()
        request.Parameters.RequestedMaxReferencesPerNode = 1000
        request.Parameters.NodesToBrowse = [ua.BrowseDescription(node, ResultMask=63)]
        return page(request, ua.BrowseResponse)

    references, _ = first(ua.NodeId(1, 2))
    (folder,) = [one.NodeId for one in references if one.BrowseName.Name == FOLDER]
    began = time.monotonic()
    references, point = first(ua.NodeId(folder.Identifier, folder.NamespaceIndex, folder.NodeIdType))
    seconds, count = time.monotonic() - began, len(references)
    while point:
        request = ua.BrowseNextRequest()
        # asyncua's default would release it.
        request.Parameters.ReleaseContinuationPoints = False
        request.Parameters.ContinuationPoints = [point]
        references, point = page(request, ua.BrowseNextResponse)
        count += len(references)
    print(f"browse: the first 1000 after {seconds:.2f} s, {count} references after {time.monotonic() - began:.2f} s", flush=True)
    wire.close()
    return [] if count >= MANY else ["items are missing in the browse"]


def main(folder: Path):
    relay = Relay(folder)
    failed = [*cost(relay), *age(relay), *browse(relay)]
    if failed:
        raise SystemExit(f"FAILED: {', '.join(failed)}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
