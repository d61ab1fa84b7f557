"""Ten thousand tags, ten clients that want all of them ten times a second, and a hundred sessions. Run by `scripts/bench
load` (a minute) and `scripts/bench --soak [MINUTES]`.

    start     from the start of the program to the first value of a tag at a client
    sessions  so many at once, each with a subscription
    soak      memory each minute, by regression over the second half; lost messages, lost sessions and refusals end it
"""

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from servers import Killed, cpu_seconds, memory  # noqa: E402
from bench_client import Wire  # noqa: E402

TAGS = 10_000
NODES = [f"ns=2;s=Tags/load/waves/{wave}" for wave in range(1, TAGS + 1)]
CLIENTS = 10
SESSIONS = 100
INTERVAL_MS = 100
# Seconds between two tokens of a secure channel; servers give them lifetimes of minutes.
RENEWAL = 60

CONFIG = f"""
[device]
name = "vedette-load"
log = "warn,vedette=info"
[ua_server]
listen = "127.0.0.1:{{port}}"
insecure_on_loopback = true
[cameras]
discover = false
[[simulator]]
name = "load"
interval = "{INTERVAL_MS}ms"
waves = {TAGS}
"""


class Client(threading.Thread):
    """One session with one subscription; takes what comes and acknowledges it."""

    def __init__(self, url, nodes):
        super().__init__(daemon=True)
        self.wire = Wire(url)
        self.subscription = self.wire.subscribe(nodes, INTERVAL_MS, INTERVAL_MS)
        self.values = self.messages = self.lost = 0
        self.fault = None

    def run(self):
        try:
            for _ in range(3):
                self.wire.publish()
            expected, renewal = None, time.monotonic() + RENEWAL
            while True:
                published = self.wire.published()
                if time.monotonic() >= renewal:
                    self.wire.renew()
                    renewal += RENEWAL
                if not published.notifications:
                    self.wire.publish()
                    continue
                self.wire.publish([(self.subscription, published.sequence_number)])
                if expected is not None:
                    self.lost += published.sequence_number - expected
                expected = published.sequence_number + 1
                self.values += published.notifications
                self.messages += 1
        except Exception as fault:  # noqa: BLE001: told by who waits for the values
            self.fault = fault


def check(clients):
    faults = [repr(client.fault) for client in clients if client.fault]
    lost = sum(client.lost for client in clients)
    if faults or lost:
        raise SystemExit(f"FAILED: {len(faults)} of {len(clients)} sessions ended {faults[:3]}, {lost} messages lost")


def start(folder):
    """Keys are there already; the first start of a device makes them once."""
    times = []
    vedette = Killed(folder, CONFIG).start()
    for _ in range(5):
        vedette.stop()
        begin = time.perf_counter()
        vedette.start(wait=False)
        while True:
            try:
                wire = Wire(vedette.url)
                break
            except OSError:
                time.sleep(0.001)
        assert wire.read(NODES[-1:])[0] is not None
        times.append(time.perf_counter() - begin)
        wire.close()
    idle = memory(vedette.process.pid)
    vedette.stop()
    print(f"start to the first answer with {TAGS} tags: {1000 * min(times):.0f} ms at best, "
          f"{1000 * statistics.median(times):.0f} ms in the middle of {len(times)}; then {idle['Rss']:.1f} MiB resident", flush=True)


def sessions(folder):
    vedette = Killed(folder, CONFIG).start()
    pid = vedette.process.pid
    before = memory(pid)["Rss"]
    begin = time.perf_counter()
    clients = [Client(vedette.url, NODES[10 * n:10 * n + 10]) for n in range(SESSIONS)]
    opened = time.perf_counter() - begin
    for client in clients:
        client.start()
    time.sleep(2)
    values, cpu = [client.values for client in clients], cpu_seconds(pid)
    time.sleep(5)
    check(clients)
    got = [client.values - value for client, value in zip(clients, values)]
    print(f"{SESSIONS} sessions at once, 10 tags each at {INTERVAL_MS} ms: opened in {opened:.1f} s, {min(got)} to {max(got)} values each "
          f"in 5 s (500 wanted), {(cpu_seconds(pid) - cpu) / 5 * 100:.0f} % of a core, "
          f"{memory(pid)['Rss']:.1f} MiB resident ({before:.1f} before)", flush=True)
    vedette.stop()


def slope(points):
    """MiB a minute, by least squares of (minute, MiB)."""
    return statistics.linear_regression(*zip(*points)).slope if len(points) > 1 else 0.0


def soak(folder, minutes):
    vedette = Killed(folder, CONFIG).start()
    pid = vedette.process.pid
    clients = [Client(vedette.url, NODES) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    time.sleep(5)
    wanted = TAGS * CLIENTS * 1000 // INTERVAL_MS
    print(f"{TAGS} tags at {INTERVAL_MS} ms to {CLIENTS} clients: {wanted} values a second wanted")
    print("minute  values/s  messages  CPU us/value  of a core  resident MiB  its own MiB", flush=True)
    points, began = [], time.monotonic()
    for minute in range(1, minutes + 1):
        values, cpu, begin = sum(c.values for c in clients), cpu_seconds(pid), time.monotonic()
        while time.monotonic() < began + 60 * minute:
            time.sleep(1)
            check(clients)
        seconds = time.monotonic() - begin
        values, cpu = sum(c.values for c in clients) - values, cpu_seconds(pid) - cpu
        now = memory(pid)
        points.append((minute, now["Rss"]))
        messages = sum(c.messages for c in clients)
        print(f"{minute:6}  {values / seconds:8.0f}  {messages:8}  {1e6 * cpu / values:12.2f}  {100 * cpu / seconds:7.0f} %  "
              f"{now['Rss']:12.1f}  {now['Private_Dirty']:11.1f}", flush=True)
    half = points[len(points) // 2:]
    grown = slope(half)
    print(f"memory in the second half: {grown:+.3f} MiB a minute at {half[-1][1]:.1f} MiB; no session and no message was lost")
    vedette.stop()
    # What a heap moves by from minute to minute, as it is measured.
    if grown > 0.005 * half[-1][1]:
        raise SystemExit("FAILED: memory is not flat")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        for what in sys.argv[1:]:
            name, _, argument = what.partition("=")
            place = Path(temporary) / name
            place.mkdir()
            {"start": start, "sessions": sessions, "soak": lambda folder: soak(folder, int(argument or 10))}[name](place)
