"""The uplink, seen by mosquitto and by pysparkplug's decoder."""

import threading

import paho.mqtt.client as paho
import pytest
from asyncua import ua
from conftest import DEMO, child, wait_until
from pysparkplug import Message, MessageType, Metric, NBirth, NCmd, NData, NDeath, Topic, get_current_timestamp
from pysparkplug import DataType

GROUP, NODE = "Plant", "line1"
MQTT = f"""
[mqtt]
broker = "mqtt://127.0.0.1:{{broker}}"
group = "{GROUP}"
node = "{NODE}"
publish_interval = "100ms"
"""


class Host:
    """Listens to everything and decodes it with somebody else's decoder."""

    def __init__(self, port):
        self.messages = []
        self.birth = None
        self.lock = threading.Lock()
        self.client = paho.Client("host")
        self.client.on_message = self.on_message
        self.client.on_connect = lambda client, *_: client.subscribe("spBv1.0/#", 1)
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def on_message(self, _client, _userdata, message):
        decoded = Message.from_mqtt_message(message, birth=self.birth)
        if decoded.topic.message_type == MessageType.NBIRTH:
            self.birth = decoded.payload
        with self.lock:
            self.messages.append(decoded)

    def of(self, kind):
        with self.lock:
            return [m for m in self.messages if m.topic.message_type == kind]

    def metrics(self, kind):
        return {m.name: m.value for message in self.of(kind) for m in message.payload.metrics}

    def command(self, name, datatype, value):
        topic = Topic(message_type=MessageType.NCMD, group_id=GROUP, edge_node_id=NODE)
        now = get_current_timestamp()
        metric = Metric(timestamp=now, name=name, datatype=datatype, value=value)
        payload = NCmd(timestamp=now, metrics=(metric,)).encode(include_dtypes=True)
        self.client.publish(str(topic), payload, 1)

    def close(self):
        self.client.loop_stop()
        self.client.disconnect()


@pytest.fixture
def host(broker):
    host = Host(broker.port)
    wait_until("subscribed", host.client.is_connected)
    yield host
    host.close()


@pytest.fixture
def vedette(make, broker, host):
    return make(DEMO + MQTT.format(broker=broker.port)).start()


def births(host, count=1):
    return wait_until(f"{count} births", lambda: len(host.of(MessageType.NBIRTH)) >= count and host.of(MessageType.NBIRTH))


def test_every_tag_is_born_and_its_changes_follow(vedette, host):
    birth = births(host)[0]
    assert (birth.topic.group_id, birth.topic.edge_node_id, birth.retain) == (GROUP, NODE, False)
    assert isinstance(birth.payload, NBirth) and birth.payload.seq == 0
    metrics = {metric.name: metric for metric in birth.payload.metrics}
    with vedette.client() as client:

        def tags(node, path=""):
            for below in node.get_children():
                name = f"{path}{below.read_browse_name().Name}"
                if below.read_node_class() == ua.NodeClass.Object:
                    yield from tags(below, name + "/")
                else:
                    yield name

        names = set(tags(child(client.nodes.objects, "Tags")))
    assert len(names) > 10 and names <= set(metrics)
    assert "cameras/line1/State" in metrics
    assert metrics["Node Control/Rebirth"].value is False
    assert metrics["bdSeq"].datatype == DataType.INT64
    assert metrics["demo/counter"].datatype == DataType.UINT32

    wait_until("data", lambda: len(host.of(MessageType.NDATA)) >= 3)
    data = host.of(MessageType.NDATA)
    assert [m.payload.seq for m in data] == [(i + 1) % 256 for i in range(len(data))]
    assert all(isinstance(m.payload, NData) for m in data)
    counts = [m.value for message in data for m in message.payload.metrics if m.name == "demo/counter"]
    assert counts == list(range(counts[0], counts[0] + len(counts))), "every value, in order"


def test_a_rebirth_is_a_new_birth_of_the_same_session(vedette, host):
    first = births(host)[0]
    host.command("Node Control/Rebirth", DataType.BOOLEAN, True)
    second = births(host, 2)[1]

    def bd_seq(message):
        return next(m.value for m in message.payload.metrics if m.name == "bdSeq")

    assert (bd_seq(second), second.payload.seq) == (bd_seq(first), 0)


def test_a_command_writes_a_tag_and_the_new_value_comes_back(vedette, host):
    births(host)
    host.command("demo/set_point", DataType.DOUBLE, 77.5)
    wait_until("the new value", lambda: host.metrics(MessageType.NDATA).get("demo/set_point") == 77.5)
    with vedette.client() as client:
        assert child(client.nodes.objects, "Tags", "demo", "set_point").read_value() == 77.5


def test_a_clean_stop_and_a_kill_are_both_a_death(vedette, host):
    births(host)
    assert vedette.stop() == 0
    death = wait_until("a death", lambda: host.of(MessageType.NDEATH))[0]
    assert isinstance(death.payload, NDeath)
    before = len(host.of(MessageType.NDEATH))
    vedette.start()
    births(host, 2)
    vedette.process.kill()
    deaths = wait_until("the will", lambda: len(host.of(MessageType.NDEATH)) > before and host.of(MessageType.NDEATH))
    birth = births(host, 2)[-1]
    assert deaths[-1].payload.bd_seq_metric.value == next(
        m.value for m in birth.payload.metrics if m.name == "bdSeq"
    ), "the death belongs to the birth"


def test_a_broker_that_is_away_delays_nothing_and_is_found_when_it_is_back(make, broker):
    broker.kill()
    vedette = make(DEMO + MQTT.format(broker=broker.port)).start()
    with vedette.client() as client:
        assert child(client.nodes.objects, "Cameras", "line1", "Camera Image").read_value()
    broker.start()
    host = Host(broker.port)
    births(host)
    broker.kill()
    broker.start()
    births(host, 2)
    host.close()
