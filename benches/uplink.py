"""The uplink under load: 20 000 samples a second through Sparkplug B to mosquitto, while what was kept during an outage drains
beside them. Run by `scripts/bench uplink`.

    outage   no broker for OUTAGE seconds: all goes to the disk
    live     the broker is there: samples that arrive, live and historical, and CPU time for each of them, with making them
             (the simulator), logging them to the disk, and encoding
    peer     pysparkplug publishes as many waves at the same interval, with making the metrics and without a disk

The broker and the listener, which only counts metrics, are not in the CPU times. Fails if a value of the counter is missing.
"""

import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import paho.mqtt.client as paho
from pysparkplug._protobuf import sparkplug_b_pb2

sys.path.insert(0, str(Path(__file__).resolve().parent / "ua"))
from servers import Killed, cpu_seconds, free_port, kill_at_exit, memory, wait_until  # noqa: E402

WAVES = 2000
INTERVAL_MS = 100
OUTAGE = 20
LIVE = 40
PEER_SECONDS = 20

CONFIG = f"""
[device]
name = "vedette-load"
log = "warn,vedette=info"
[cameras]
discover = false
[[simulator]]
name = "load"
interval = "{INTERVAL_MS}ms"
waves = {WAVES}
[store]
max_bytes = "1GiB"
[mqtt]
broker = "mqtt://127.0.0.1:BROKER"
node = "load"
backlog_rate = 20000
"""


class Broker:
    def __init__(self, folder: Path):
        self.port = free_port()
        self.config = folder / "mosquitto.conf"
        self.config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")

    def start(self):
        self.process = subprocess.Popen(["mosquitto", "-c", self.config], stderr=subprocess.DEVNULL)
        kill_at_exit(self.process)


class Listener:
    """Counts metrics, and knows which values of the counter it has seen."""

    def __init__(self, port: int):
        self.live = self.historical = self.messages = self.bytes = 0
        self.counter = set()
        self.client = paho.Client("listener")
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe("spBv1.0/#", 0)
        self.client.on_subscribe = lambda *_: self.is_subscribed.set()
        self.is_subscribed = threading.Event()
        self.client.on_message = self.on_message
        self.client.connect_async("127.0.0.1", port)
        self.client.loop_start()

    def on_message(self, _client, _userdata, message):
        payload = sparkplug_b_pb2.Payload.FromString(message.payload)
        self.messages += 1
        self.bytes += len(message.payload)
        data = "DATA/" in message.topic
        historical = sum(metric.is_historical for metric in payload.metrics)
        if data:
            self.historical += historical
            self.live += len(payload.metrics) - historical
        self.counter.update(getattr(metric, metric.WhichOneof("value")) for metric in payload.metrics if metric.name == "counter")

    def counts(self):
        return self.live, self.historical, self.messages, self.bytes


def vedette(folder: Path):
    broker = Broker(folder)
    program = Killed(folder, CONFIG.replace("BROKER", str(broker.port))).start(wait=False)
    time.sleep(OUTAGE)
    pid = program.process.pid
    cpu = cpu_seconds(pid)
    print(f"no broker for {OUTAGE} s: {100 * cpu / OUTAGE:.0f} % of a core, {memory(pid)['Rss']:.1f} MiB resident", flush=True)
    listener = Listener(broker.port)
    # What is sent at QoS 0 before the listener is there nobody can hear.
    program.process.send_signal(signal.SIGSTOP)
    broker.start()
    if not listener.is_subscribed.wait(30):
        raise SystemExit("FAILED: the listener cannot subscribe")
    program.process.send_signal(signal.SIGCONT)
    # The waits between attempts have grown during the outage.
    wait_until("a sample", lambda: listener.live, 100)
    began, cpu, before = time.monotonic(), cpu_seconds(pid), listener.counts()
    time.sleep(LIVE)
    seconds, cpu = time.monotonic() - began, cpu_seconds(pid) - cpu
    live, historical, messages, size = (now - then for now, then in zip(listener.counts(), before))
    each = 1e6 * cpu / (live + historical)
    print(f"live {live / seconds:.0f} samples/s, backlog {historical / seconds:.0f} samples/s: {100 * cpu / seconds:.0f} % of a core, "
          f"{each:.2f} us a sample, {messages / seconds:.1f} messages/s, {size / seconds / 1e6:.2f} MB/s, {memory(pid)['Rss']:.1f} MiB resident",
          flush=True)
    program.stop()
    time.sleep(2)
    missing = set(range(min(listener.counter), max(listener.counter))) - listener.counter
    if missing:
        raise SystemExit(f"FAILED: {len(missing)} values of the counter are missing, as {sorted(missing)[:5]}")
    print(f"each of {len(listener.counter)} values of the counter has arrived, from {min(listener.counter)} on", flush=True)
    broker.process.kill()
    return each


PEER = """
import sys, time
from pysparkplug import DataType, EdgeNode, Metric, get_current_timestamp
port, count, interval, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
def metrics(value):
    now = get_current_timestamp()
    return [Metric(timestamp=now, name=f"load/waves/{n}", datatype=DataType.DOUBLE, value=value + n) for n in range(count)]
node = EdgeNode("Plant", "peer", metrics(0.0))
node.connect("127.0.0.1", port=port, blocking=False)
time.sleep(2)
cpu, begin, round = time.process_time(), time.monotonic(), 0
while round * interval < seconds:
    node.update(metrics(float(round)))
    round += 1
    time.sleep(max(0.0, begin + round * interval - time.monotonic()))
time.sleep(1)
print(time.process_time() - cpu, flush=True)
node.disconnect()
"""


def peer(folder: Path):
    """The same samples at the same rate, without a disk."""
    broker = Broker(folder)
    broker.start()
    listener = Listener(broker.port)
    wait_until("the listener", listener.client.is_connected)
    command = [sys.executable, "-c", PEER, broker.port, WAVES, INTERVAL_MS / 1000, PEER_SECONDS]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True, timeout=90)
    cpu, samples = float(done.stdout.split()[-1]), listener.live
    each = 1e6 * cpu / samples
    print(f"pysparkplug: {samples / PEER_SECONDS:.0f} samples/s arrive: {100 * cpu / PEER_SECONDS:.0f} % of a core, {each:.2f} us a sample", flush=True)
    broker.process.kill()
    return each


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        ours, theirs = vedette(Path(one)), peer(Path(other))
    print(f"pysparkplug takes {theirs / ours:.1f} times the CPU time of a sample")
