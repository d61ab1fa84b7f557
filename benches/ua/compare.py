"""Vedette beside the servers of asyncua and node-opcua: CPU time of each server for each operation, and memory. Run by
`scripts/bench ua`.

All three run at once and are asked in turn, a few rounds, and the best round of each counts: another job of the machine
disturbs one round of one server, not the comparison. The servers' CPU time is the kernel's account of their processes;
the client (bench_client.py) is the same for all.
"""

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from servers import DOUBLE, IMAGE, NAMES, UNVERIFIED, WAVES, Server, make_identity, make_pictures, memory  # noqa: E402
from bench_client import Wire  # noqa: E402

ROUNDS = 3
# Of one operation, one server, one round.
SPAN = 1.0
SUBSCRIBERS = 10
RATE = 5.0
# Any picture will do, so none is made for the read.
ANY_AGE = 1e12


def reads(server, wire, body, least):
    """Reads for a span. (CPU s, wall s) for each, and the size of the answer."""
    send = wire.repeated(body)
    send()
    size = wire.skip()
    times, cpu, begin = [], server.cpu(), time.perf_counter()
    while time.perf_counter() - begin < SPAN or len(times) < least:
        at = time.perf_counter()
        send()
        wire.skip()
        times.append(time.perf_counter() - at)
    return (server.cpu() - cpu) / len(times), statistics.median(times), size


OPERATIONS = [
    ("read of one Double", [DOUBLE], 1, 200),
    ("read of 1000 Doubles, a value", WAVES, 1000, 20),
    ("read of a 1 MB ByteString", [IMAGE], 1, 20),
]


def check(servers, wires):
    """All three say the same, in full."""
    answers = [(wire.read([DOUBLE]), len(wire.read(WAVES)), wire.read([IMAGE], ANY_AGE)) for wire in wires]
    for server, answer in zip(servers, answers):
        assert answer == answers[0] and answer[:2] == ([50.0], 1000), f"{server.name} answers otherwise"


def compare_reads(servers, identity):
    wires = [Wire(server.url, identity) for server in servers]
    check(servers, wires)
    for name, nodes, each, least in OPERATIONS:
        best = {}
        for _ in range(ROUNDS):
            for server, wire in zip(servers, wires):
                cpu, wall, size = reads(server, wire, wire.read_request(nodes, ANY_AGE), least)
                old = best.get(server.name, (9e9, 9e9))
                best[server.name] = min(old[0], cpu / each), min(old[1], wall / each)
        show(name, best)
    for wire in wires:
        wire.close()


class Subscriber(threading.Thread):
    """One session that takes each picture and acknowledges it."""

    def __init__(self, url, identity):
        super().__init__(daemon=True)
        self.wire = Wire(url, identity)
        self.subscription = self.wire.subscribe([IMAGE], publishing=50, sampling=1000 / RATE / 2)
        self.count, self.fault = 0, None

    def run(self):
        try:
            for _ in range(2):
                self.wire.publish()
            while True:
                published = self.wire.published()
                self.wire.publish([(self.subscription, published.sequence_number)] if published.notifications else [])
                self.count += published.notifications
        except Exception as fault:  # noqa: BLE001: told by who waits for the pictures
            self.fault = fault


def compare_pictures(servers, identity):
    name, best = f"1 MB image at {RATE:g} Hz to {SUBSCRIBERS} subscribers, a delivery", {}
    everybody = {server: [Subscriber(server.url, identity) for _ in range(SUBSCRIBERS)] for server in servers}
    for server in servers:
        # One server after the other, because ten times five megabytes a second are work for the client too.
        subscribers = everybody[server]
        for subscriber in subscribers:
            subscriber.start()
        for turn in range(ROUNDS + 1):
            before, cpu, begin = [s.count for s in subscribers], server.cpu(), time.perf_counter()
            time.sleep(3)
            seconds, cpu = time.perf_counter() - begin, server.cpu() - cpu
            counts = [s.count - b for s, b in zip(subscribers, before)]
            assert all(s.fault is None for s in subscribers), [s.fault for s in subscribers]
            # In the first turn they are still beginning.
            if turn and sum(counts):
                rate = sum(counts) / SUBSCRIBERS / seconds
                old = best.get(server.name, (9e9, 0.0))
                best[server.name] = min(old[0], cpu / sum(counts)), max(old[1], rate)
        for subscriber in subscribers:
            subscriber.wire.close()
        server.stop()
    show(name, best, lambda rate: f"{rate:.1f}/s")


def micro(seconds):
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-4 else f"{seconds * 1e6:.0f} us"


def show(name, best, second=micro):
    ours = best[NAMES[0]][0]
    cells = [f"{peer} {micro(cpu)} ({second(other)})" for peer, (cpu, other) in best.items()]
    ratios = [f"{best[peer][0] / ours:.1f}x {peer}" for peer in NAMES[1:]]
    print(f"  {name}: {'; '.join(cells)}; ours is {', '.join(ratios)}", flush=True)


def main(folder):
    identity_folder = folder / "client"
    identity_folder.mkdir()
    identity = make_identity(identity_folder)
    pictures = folder / "pictures"
    make_pictures(pictures)
    for policy, who in [("None", None), ("Basic256Sha256, SignAndEncrypt", identity)]:
        place = folder / policy
        place.mkdir()
        print(f"{policy}: server CPU an operation (median wall time at the client, or rate)", flush=True)
        servers = [Server(name, place / name, identity, pictures, 0) for name in NAMES]
        time.sleep(2)
        if not who:
            print("  memory before the first client, MiB: " + line_of_memory(servers), flush=True)
        compare_reads(servers, who)
        if not who:
            print("  memory after the reads, MiB: " + line_of_memory(servers), flush=True)
        for server in servers:
            server.stop()
        servers = [Server(name, place / f"{name}-pictures", identity, pictures, RATE) for name in [*NAMES, UNVERIFIED]]
        compare_pictures(servers, who)


def line_of_memory(servers):
    figures = {server.name: memory(server.pid) for server in servers}
    return "; ".join(f"{name} {found['Rss']:.1f} resident, {found['Private_Dirty']:.1f} its own" for name, found in figures.items())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
