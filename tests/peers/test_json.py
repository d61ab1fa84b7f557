"""JSON over mosquitto, as any MQTT client sees it, and what Home Assistant is told, by its documentation."""

import datetime
import json
import re
import socket
import threading

import paho.mqtt.client as paho
import pytest
from asyncua import ua
from conftest import DEMO, child, wait_until

ROOT = "vedette/Plant/line1"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.(\d{3}|\d{7})Z")

JSON = """
[mqtt]
broker = "mqtt://127.0.0.1:{broker}"
group = "Plant"
node = "line1"
format = "json"
publish_interval = "100ms"
"""


class Listener:
    """Keeps every message, in order."""

    def __init__(self, port, *filters, name="listener"):
        self.messages = []
        self.lock = threading.Lock()
        self.client = paho.Client(name)
        self.client.on_message = self.on_message
        self.client.on_connect = lambda client, *_: client.subscribe([(f, 1) for f in filters or ("#",)])
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def on_message(self, _client, _userdata, message):
        with self.lock:
            self.messages.append(message)

    def of(self, topic):
        """The payloads there, as JSON; an empty one is None."""
        with self.lock:
            found = [m for m in self.messages if m.topic == topic]
        return [json.loads(m.payload) if m.payload else None for m in found]

    def tag(self, name):
        return self.of(f"{ROOT}/{name}")

    def all(self):
        with self.lock:
            return list(self.messages)

    def publish(self, topic, payload, retain=False):
        self.client.publish(topic, payload, 1, retain)

    def close(self):
        self.client.loop_stop()
        self.client.disconnect()


@pytest.fixture
def listen(broker):
    made = []

    def factory(*filters):
        made.append(Listener(broker.port, *filters, name=f"listener{len(made)}"))
        wait_until("connected", made[-1].client.is_connected)
        return made[-1]

    yield factory
    for listener in made:
        listener.close()


@pytest.fixture
def start(make, broker):
    return lambda more="": make(DEMO + JSON.format(broker=broker.port) + more).start()


def states(listener):
    """Without repetitions: the goodbye may be said by the device and by its will."""
    said = [status["state"] for status in listener.tag("status")]
    return [state for at, state in enumerate(said) if at == 0 or said[at - 1] != state]


def test_every_tag_is_said_and_its_changes_follow(start, listen):
    listener = listen()
    vedette = start()
    wait_until("values", lambda: len(listener.tag("demo/counter")) >= 5)
    with vedette.client() as client:
        # Below Tags, as paths.
        def tags(node, path=""):
            for below in node.get_children():
                name = f"{path}{below.read_browse_name().Name}"
                if below.read_node_class() == ua.NodeClass.Object:
                    yield from tags(below, name + "/")
                else:
                    yield name

        names = set(tags(child(client.nodes.objects, "Tags")))
    said = {m.topic[len(ROOT) + 1 :] for m in listener.all() if m.topic.startswith(ROOT)}
    assert len(names) > 10 and names <= said
    assert {"status", "cameras/line1/State"} <= said

    def whole():
        """What came before the birth follows it as history, so for a moment some are missing."""
        numbers = sorted(count["value"] for count in listener.tag("demo/counter"))
        assert len(numbers) == len(set(numbers)), "each once"
        return numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    wait_until("every value", whole)
    counts = listener.tag("demo/counter")
    now = datetime.datetime.now(datetime.timezone.utc)
    for message in listener.all():
        if message.topic == f"{ROOT}/status":
            continue
        assert not message.retain
        payload = json.loads(message.payload)
        assert {"time", "value", "quality"} <= set(payload) <= {"time", "value", "quality", "unit", "reason", "historical"}
        assert TIME.fullmatch(payload["time"]), payload
        assert payload["quality"].startswith(("Good", "Uncertain", "Bad"))
        assert payload["value"] is None or not payload["quality"].startswith("Bad")
    last = datetime.datetime.fromisoformat(counts[-1]["time"][:23] + "+00:00")
    assert abs((now - last).total_seconds()) < 60


def test_a_stop_and_a_kill_are_both_offline(start, listen):
    listener = listen(f"{ROOT}/status")
    vedette = start()
    wait_until("online", lambda: states(listener) == ["online"])
    assert vedette.stop() == 0
    wait_until("offline", lambda: states(listener) == ["online", "offline"])
    assert any(TIME.fullmatch(status.get("time", "")) for status in listener.tag("status") if status["state"] == "offline")
    vedette.start()
    wait_until("online again", lambda: states(listener) == ["online", "offline", "online"])
    vedette.process.kill()
    wait_until("the will", lambda: states(listener) == ["online", "offline", "online", "offline"])
    late = listen(f"{ROOT}/status")
    wait_until("retained", lambda: states(late) == ["offline"])


def test_writes_are_answered_by_the_value(start, listen):
    listener = listen(f"{ROOT}/#")
    vedette = start()
    wait_until("born", lambda: listener.tag("demo/set_point"))
    first = listener.tag("demo/set_point")[0]["value"]
    for payload, wanted in [("77.5", 77.5), ('{"value": 78}', 78)]:
        listener.publish(f"{ROOT}/demo/set_point/set", payload)
        wait_until("the new value", lambda: listener.tag("demo/set_point")[-1]["value"] == wanted)
    said = len(listener.tag("demo/set_point"))
    for payload in ["hot", '"79"', "{}", "[1]"]:
        listener.publish(f"{ROOT}/demo/set_point/set", payload)
        said += 1
        wait_until("the value as it is", lambda: len(listener.tag("demo/set_point")) == said)
        assert listener.tag("demo/set_point")[-1]["value"] == 78 != first
    wait_until("the log says so", lambda: vedette.text().count("Ignored a command") >= 4)
    with vedette.client() as client:
        assert child(client.nodes.objects, "Tags", "demo", "set_point").read_value() == 78


def test_a_retained_write_is_not_done(start, listen):
    listener = listen(f"{ROOT}/#")
    listener.publish(f"{ROOT}/demo/set_point/set", "55", retain=True)
    vedette = start()
    wait_until("refused", lambda: vedette.says("a retained write would be done again at each connect"))
    with vedette.client() as client:
        assert child(client.nodes.objects, "Tags", "demo", "set_point").read_value() != 55


def test_a_viewer_cannot_write(start, listen):
    listener = listen(f"{ROOT}/#")
    start('commands = "viewer"\n')
    wait_until("born", lambda: listener.tag("demo/set_point"))
    listener.publish(f"{ROOT}/demo/set_point/set", "55")
    counted = len(listener.tag("demo/counter"))
    wait_until("life goes on", lambda: len(listener.tag("demo/counter")) > counted + 10)
    assert all(said["value"] != 55 for said in listener.tag("demo/set_point"))


def test_a_batch_has_many_values(start, listen):
    listener = listen(f"{ROOT}/#")
    start('[mqtt.json]\nlayout = "batch"\n')
    wait_until("batches", lambda: len(listener.tag("data")) >= 5)
    assert {m.topic for m in listener.all()} == {f"{ROOT}/status", f"{ROOT}/data"}
    first = {value["tag"]: value for value in listener.tag("data")[0]["values"]}
    assert {"demo/counter", "demo/set_point", "cameras/line1/State"} <= set(first)

    def whole():
        """What came before the birth follows it as history, so for a moment some are missing."""
        counts = sorted(v["value"] for batch in listener.tag("data") for v in batch["values"] if v["tag"] == "demo/counter")
        assert len(counts) == len(set(counts)), "each once"
        return counts == list(range(counts[0], counts[0] + len(counts)))

    wait_until("every value", whole)
    assert all(len(m.payload) <= 96 * 1024 for m in listener.all())


def test_retained_values_are_there_for_who_comes_late(start, listen):
    listener = listen(f"{ROOT}/#")
    start("[mqtt.json]\nretain = true\n")
    wait_until("born", lambda: listener.tag("demo/counter"))
    late = listen(f"{ROOT}/demo/#")
    wait_until("retained", lambda: late.tag("demo/set_point"))
    with late.lock:
        assert late.messages[0].retain


# What the documentation of Home Assistant's MQTT integration says, as far as it is used here: for each component the keys it
# must have, and the further ones it may have.
COMMON = {
    "name", "unique_id", "device", "origin", "availability_topic", "availability_template", "qos", "value_template",
}  # fmt: skip
COMPONENTS = {
    "sensor": ({"state_topic"}, {"unit_of_measurement", "device_class", "state_class"}),
    "binary_sensor": ({"state_topic"}, {"device_class", "payload_on", "payload_off"}),
    "switch": (
        {"command_topic"},
        {"state_topic", "payload_on", "payload_off", "state_on", "state_off", "retain", "device_class"},
    ),
    "number": (
        {"command_topic"},
        {"state_topic", "min", "max", "step", "mode", "unit_of_measurement", "device_class", "retain"},
    ),
    "camera": ({"topic"}, {"image_encoding"}),
}
# Classes of sensors and numbers, with the units that each allows.
CLASSES = {
    "temperature": {"°C", "°F", "K"},
    "pressure": {"cbar", "bar", "hPa", "mmHg", "inHg", "inH2O", "kPa", "mbar", "mPa", "Pa", "psi"},
    "voltage": {"V", "mV", "µV", "kV", "MV"},
    "current": {"A", "mA"},
    "power": {"mW", "W", "kW", "MW", "GW", "TW"},
    "frequency": {"Hz", "kHz", "MHz", "GHz"},
    "illuminance": {"lx"},
    "data_size": {"bit", "kbit", "Mbit", "Gbit", "B", "kB", "MB", "GB", "TB", "PB", "KiB", "MiB", "GiB", "TiB"},
    "data_rate": {"bit/s", "kbit/s", "Mbit/s", "Gbit/s", "B/s", "kB/s", "MB/s", "GB/s", "KiB/s", "MiB/s", "GiB/s"},
    "duration": {"d", "h", "min", "s", "ms", "µs"},
    "distance": {"km", "m", "cm", "mm", "mi", "nmi", "yd", "in"},
    "speed": {"ft/s", "in/d", "in/h", "in/s", "km/h", "kn", "m/s", "mph", "mm/d", "mm/s"},
    "weight": {"kg", "g", "mg", "µg", "oz", "lb", "st"},
    "timestamp": {None},
}


def check_config(topic, config):
    prefix, component, device, entity, last = topic.split("/")
    assert (prefix, last) == ("homeassistant", "config")
    assert re.fullmatch(r"[A-Za-z0-9_-]+", device) and re.fullmatch(r"[A-Za-z0-9_-]+", entity)
    must, may = COMPONENTS[component]
    assert must <= set(config) <= COMMON | must | may, (topic, config)
    assert isinstance(config["name"], str) and isinstance(config["unique_id"], str)
    assert config["device"]["identifiers"] and config["device"]["sw_version"] and config["origin"]["name"]
    for key, value in config.items():
        if key.endswith("topic"):
            assert isinstance(value, str) and not re.search(r"[+#\0]", value), (key, value)
    if "device_class" in config:
        assert config.get("unit_of_measurement") in CLASSES[config["device_class"]], config
    if "state_class" in config:
        assert config["state_class"] == "measurement" and config.get("device_class") != "timestamp"
    if component == "number":
        assert config["min"] < config["max"] and config["step"] >= 0.001 and config["mode"] in ("auto", "box", "slider")


HOME = """
[mqtt.json]
home_assistant = "homeassistant"
retain = true
[[mqtt.image]]
camera = "line1"
interval = "1s"
"""


def test_home_assistant_understands_what_it_is_told(start, listen):
    listener = listen()
    start(HOME)
    wait_until("values", lambda: len(listener.tag("demo/counter")) >= 3)
    late = listen("homeassistant/#")
    wait_until("retained", lambda: len(late.all()) > 10)
    configs = {m.topic: json.loads(m.payload) for m in listener.all() if m.topic.startswith("homeassistant/")}
    for topic, config in configs.items():
        check_config(topic, config)
    ids = [config["unique_id"] for config in configs.values()]
    assert len(ids) == len(set(ids))
    by_name = {(topic.split("/")[1], config["name"]): config for topic, config in configs.items()}
    set_point = by_name["number", "demo/set_point"]
    listener.publish(set_point["command_topic"], "12.5")
    wait_until("set", lambda: listener.of(set_point["state_topic"])[-1]["value"] == 12.5)
    camera = by_name["camera", "line1"]
    pictures = lambda: [m.payload for m in listener.all() if m.topic == camera["topic"]]  # noqa: E731
    assert wait_until("a picture", pictures)[0].startswith(b"\xff\xd8")


def test_home_assistant_forgets_what_is_gone(start, make, broker, listen):
    listener = listen()
    vedette = start(HOME)
    topic = wait_until(
        "announced",
        lambda: next((m.topic for m in listener.all() if m.topic.endswith("demo__counter/config")), None),
    )
    assert vedette.stop() == 0
    without = DEMO.replace('[[simulator]]\nname = "demo"\ninterval = "100ms"\n', "")
    make(without + JSON.format(broker=broker.port) + HOME).start()
    wait_until("taken away", lambda: listener.of(topic)[-1] is None)
    late = listen("homeassistant/#")
    wait_until("the others", lambda: late.all())
    assert topic not in {m.topic for m in late.all()}


class Cable:
    """Between the device and the broker; can be pulled."""

    def __init__(self, port):
        self.port = port
        self.is_in = True
        self.ends = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            device, _ = self.listener.accept()
            if not self.is_in:
                device.close()
                continue
            broker = socket.create_connection(("127.0.0.1", self.port))
            self.ends += [device, broker]
            for source, sink in [(device, broker), (broker, device)]:
                threading.Thread(target=self.carry, args=(source, sink), daemon=True).start()

    def carry(self, source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            end.close()

    def pull(self):
        self.is_in = False
        for end in self.ends:
            # The threads are in recv; only this wakes them.
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def test_what_happened_while_the_line_was_cut_is_said_as_history(make, broker, listen):
    listener = listen(f"{ROOT}/#")
    cable = Cable(broker.port)
    vedette = make(DEMO + JSON.format(broker=cable.listener.getsockname()[1])).start()
    wait_until("values", lambda: len(listener.tag("demo/counter")) >= 5)
    cable.pull()
    wait_until("lost", lambda: vedette.says("Lost the MQTT broker"))
    # The broker has all that it got before it sends the will; what of this the device does not know comes once more.
    wait_until("the will", lambda: states(listener)[-1] == "offline")
    before = len(listener.tag("demo/counter"))
    seen = listener.tag("demo/counter")[-1]["value"]
    with vedette.client() as client:
        counter = child(client.nodes.objects, "Tags", "demo", "counter")
        wait_until("life goes on", lambda: counter.read_value() > seen + 20)
    cable.is_in = True

    def whole():
        values = sorted({count["value"] for count in listener.tag("demo/counter")})
        return values[-1] > seen + 30 and values == list(range(values[0], values[-1] + 1))

    wait_until("each value", whole, patience=60)
    old = [count for count in listener.tag("demo/counter")[before:] if count.get("historical")]
    assert sum(count["value"] > seen for count in old) >= 10
    assert [count["time"] for count in old] == sorted(count["time"] for count in old)
