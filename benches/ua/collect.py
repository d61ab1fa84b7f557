"""A hundred thousand values a second from one UA server through another: collected by `[[ua_client]]`, through the hub, served
to one subscriber. Run by `scripts/bench collect`.

    collect.py [TAGS [INTERVAL_MS]]         default: 10000 100

    simulator (a vedette) ──► collector (the one that is measured) ──► this program
             └──────────────► an asyncua client that only collects, beside it, in a run of its own

Each value is counted by its tag: of every tag as many have to arrive as the simulator ticked.
The age of a value is from its source timestamp, which the simulator gave it, to its arrival here.
"""

import collections
import multiprocessing
import struct
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from servers import Killed, cpu_seconds, memory  # noqa: E402
from bench_client import HEADERS, Published, Wire  # noqa: E402

TAGS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
INTERVAL_MS = int(sys.argv[2]) if len(sys.argv) > 2 else 100
SPAN = 20
# asyncua loses its session over ten thousand.
PEER_TAGS = 1000
# 100 ns ticks from 1601 to 1970.
EPOCH = 116_444_736_000_000_000

COUNTER = ["ns=2;s=Tags/load/counter"]

SIMULATOR = f"""
[device]
name = "simulator"
[ua_server]
listen = "127.0.0.1:{{port}}"
insecure_on_loopback = true
limits = {{ monitored_items_per_subscription = 200000 }}
[cameras]
discover = false
[[simulator]]
name = "load"
interval = "{INTERVAL_MS}ms"
waves = {TAGS}
"""

COLLECTOR = f"""
[device]
name = "collector"
[ua_server]
listen = "127.0.0.1:{{port}}"
insecure_on_loopback = true
limits = {{ monitored_items_per_subscription = 200000 }}
[cameras]
discover = false
[[ua_client]]
name = "plant"
url = "SIMULATOR"
security_policy = "None"
[[ua_client.group]]
name = "fast"
sampling_interval = "{INTERVAL_MS // 2}ms"
publishing_interval = "{INTERVAL_MS}ms"
queue_size = 10
[[ua_client.rule]]
below = "/Objects/Tags/load/waves"
group = "fast"
at_most = {TAGS}
"""


def whole(wire: Wire) -> bytes:
    """The body of the next response."""
    header, rest = wire._chunk()
    body = bytes(rest[HEADERS - 8:])
    while header[3:4] != b"F":
        header, rest = wire._chunk()
        body += rest[HEADERS - 8:]
    return body


def values(body: bytes, count: int):
    """(handle, source timestamp) of each value of a notification: Doubles, good, with both timestamps (OPC 10000-6, 5.2.2.17)."""
    at = body.index(struct.pack("<BBH", 1, 0, 811)) + 13
    stride, good = 30, 0x0D
    if count and body[at + 4] == good and len(body) >= at + count * stride:
        found = list(struct.iter_unpack("<IBBdqq", body[at:at + count * stride]))
        if all(mask == good for _, mask, *_ in found):
            return [(handle, stamp) for handle, _, _, _, stamp, _ in found]
    found = []
    for _ in range(count):
        handle, mask = struct.unpack_from("<IB", body, at)
        at += 5
        if mask & 1:
            # Double, or nothing while it is bad.
            assert body[at] in (0, 11), f"a value of type {body[at]}"
            at += 9 if body[at] else 1
        at += 4 if mask & 2 else 0
        stamp = struct.unpack_from("<q", body, at)[0] if mask & 4 else 0
        at += (8 if mask & 4 else 0) + (8 if mask & 8 else 0)
        found.append((handle, stamp))
    return found


def take(wire, subscription, seconds):
    """(values by handle, ages in s) of so many seconds; each tenth value's age."""
    counts, ages = collections.Counter(), []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        body = whole(wire)
        now = time.time_ns() // 100 + EPOCH
        published = Published(body)
        wire.publish([(subscription, published.sequence_number)] if published.notifications else ())
        if published.notifications:
            found = values(body, published.notifications)
            counts.update(handle for handle, _ in found)
            ages.extend((now - stamp) / 1e7 for _, stamp in found[::10])
    return counts, ages


def asyncua_collects(url, nodes, seconds, answer):
    """The peer: a plain asyncua client with one subscription on all nodes."""
    import asyncio

    from asyncua import Client, ua

    class Handler:
        count = 0

        def datachange_notification(self, _node, _value, _data):
            self.count += 1

    async def collect():
        async with Client(url, timeout=60) as client:
            handler = Handler()
            parameters = ua.CreateSubscriptionParameters(RequestedPublishingInterval=INTERVAL_MS, RequestedMaxKeepAliveCount=100)
            subscription = await client.create_subscription(parameters, handler)
            items = [client.get_node(node) for node in nodes]
            for at in range(0, len(items), 1000):
                await subscription.subscribe_data_change(items[at:at + 1000], queuesize=10, sampling_interval=INTERVAL_MS / 2)
            await asyncio.sleep(3)
            count, cpu, begin = handler.count, time.process_time(), time.monotonic()
            await asyncio.sleep(seconds)
            answer.put((handler.count - count, time.process_time() - cpu, time.monotonic() - begin))

    asyncio.run(collect())


def main(folder: Path):
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    simulator = Killed(folder / "a", SIMULATOR).start()
    began = time.monotonic()
    collector = Killed(folder / "b", COLLECTOR.replace("SIMULATOR", simulator.url)).start()
    wire, pid = Wire(collector.url), collector.process.pid
    nodes = [f"ns=2;s=Tags/plant/{wave}" for wave in range(1, TAGS + 1)]
    while True:
        try:
            if wire.read(nodes[-1:])[0] is not None:
                break
        except Exception:  # noqa: BLE001: the tag is not there yet
            pass
        assert time.monotonic() < began + 120, collector.text()
        time.sleep(0.1)
    print(f"{TAGS} tags: the last has a value {time.monotonic() - began:.1f} s after the start of the collector", flush=True)
    subscription = wire.subscribe(nodes, INTERVAL_MS, INTERVAL_MS / 2, queue_size=10)
    for _ in range(3):
        wire.publish()
    take(wire, subscription, 3)
    cpu, begin = cpu_seconds(pid), time.monotonic()
    source = cpu_seconds(simulator.process.pid)
    at_simulator = Wire(simulator.url)
    ticks = at_simulator.read(COUNTER)[0]
    counts, ages = take(wire, subscription, SPAN)
    ticks = at_simulator.read(COUNTER)[0] - ticks
    at_simulator.close()
    seconds, cpu = time.monotonic() - begin, cpu_seconds(pid) - cpu
    source = cpu_seconds(simulator.process.pid) - source
    total, ages = sum(counts.values()), sorted(ages)
    ours = cpu / total
    spread = f"{min(counts.values())} to {max(counts.values())} of each tag of {ticks} ticks in {seconds:.1f} s, {len(counts)} tags"
    print(f"collector: {total / seconds:.0f} values/s ({spread}), {100 * cpu / seconds:.0f} % of a core, {1e6 * ours:.2f} us a value, "
          f"{memory(pid)['Rss']:.1f} MiB resident; the simulator {100 * source / seconds:.0f} %")
    print(f"age of a value at the subscriber: median {1000 * ages[len(ages) // 2]:.0f} ms, p99 {1000 * ages[len(ages) * 99 // 100]:.0f} ms, "
          f"at most {1000 * ages[-1]:.0f} ms, with {INTERVAL_MS} ms publishing interval on both ways", flush=True)
    wire.close()
    collector.stop()

    answer = multiprocessing.Queue()
    nodes = [f"ns=2;s=Tags/load/waves/{wave}" for wave in range(1, PEER_TAGS + 1)]
    peer = multiprocessing.Process(target=asyncua_collects, args=(simulator.url, nodes, SPAN, answer), daemon=True)
    peer.start()
    count, cpu, seconds = answer.get(timeout=300)
    theirs = cpu / max(count, 1)
    print(f"asyncua client, collecting only: {count / seconds:.0f} values/s, {100 * cpu / seconds:.0f} % of a core, {1e6 * theirs:.2f} us a value: "
          f"ours is {theirs / ours:.1f}x cheaper")
    simulator.stop()
    # The span begins and ends somewhere between the ticks.
    if ticks - min(counts.values()) > 3 or len(counts) != TAGS:
        raise SystemExit("FAILED: values were lost")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
