"""The edge node, seen by hosts of other people and by a broker that keeps each packet."""

import re
import struct

import pytest
from conftest import DEMO, child, wait_until
from pysparkplug import DataType, MessageType
from sparkplug import CONNECT, DISCONNECT, GROUP, MQTT, NODE, PUBLISH, Host, Recorder, Tahu


@pytest.fixture
def host(broker):
    host = Host(broker.port)
    wait_until("subscribed", host.client.is_connected)
    yield host
    host.close()


@pytest.fixture
def tahu():
    tahu = Tahu()
    yield tahu
    tahu.close()


@pytest.fixture
def recorder():
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture
def vedette(make, broker, host):
    return make(DEMO + MQTT.format(broker=broker.port)).start()


def test_sources_and_cameras_are_devices_and_what_the_program_says_of_itself_are_properties(vedette, host):
    node = host.born()[0]
    names = {metric.name for metric in node.payload.metrics}
    assert {"bdSeq", "Node Control/Rebirth"} <= names and any(name.startswith("Properties/system/") for name in names)
    demo = host.born(MessageType.DBIRTH, "demo")[0]
    metrics = {metric.name: metric for metric in demo.payload.metrics}
    assert metrics["counter"].datatype == DataType.INT64, "holds each UInt32, and each host reads it"
    camera = host.born(MessageType.DBIRTH, "line1")[0]
    assert "State" in {metric.name for metric in camera.payload.metrics}
    wait_until("data", lambda: len(host.of(MessageType.DDATA, "demo")) >= 3)
    # What came before the birth follows it as history.
    counts = sorted(host.values(MessageType.DDATA, "counter", "demo") + [metrics["counter"].value])
    assert counts == list(range(counts[0], counts[0] + len(counts))), "every value, once"


def test_seq_goes_over_node_and_devices(vedette, host):
    wait_until("data", lambda: len(host.of(MessageType.DDATA)) >= 20)
    with host.lock:
        seqs = [message.payload.seq for message in host.messages]
    assert seqs == [at % 256 for at in range(len(seqs))]


def test_a_command_to_a_device_writes_and_the_new_value_comes_back(vedette, host):
    host.born(MessageType.DBIRTH, "demo")
    host.command("set_point", DataType.DOUBLE, 77.5, device="demo")
    wait_until("the new value", lambda: 77.5 in host.values(MessageType.DDATA, "set_point", "demo"))
    with vedette.client() as client:
        assert child(client.nodes.objects, "Tags", "demo", "set_point").read_value() == 77.5


def test_a_rebirth_is_a_whole_new_birth_of_the_same_session(vedette, host):
    first = host.born()[0]
    devices = {m.topic.device_id for m in host.born(MessageType.DBIRTH, count=2)}
    host.command("Node Control/Rebirth", DataType.BOOLEAN, True)
    second = host.born(count=2)[1]
    for device in devices:
        host.born(MessageType.DBIRTH, device, count=2)

    def bd_seq(message):
        return next(m.value for m in message.payload.metrics if m.name == "bdSeq")

    assert (bd_seq(second), second.payload.seq) == (bd_seq(first), 0)


def test_a_stop_says_each_device_dead_and_then_the_node(vedette, host):
    devices = {m.topic.device_id for m in host.born(MessageType.DBIRTH, count=2)}
    assert vedette.stop() == 0
    wait_until("a death", lambda: host.of(MessageType.NDEATH))
    assert {m.topic.device_id for m in host.of(MessageType.DDEATH)} == devices


def test_the_authors_own_library_reads_births_and_data_and_its_commands_are_understood(vedette, host, tahu):
    host.born(MessageType.DBIRTH, "demo")
    wait_until("data", lambda: len(host.of(MessageType.DDATA, "demo")) >= 3)
    with host.lock:
        raw = list(host.raw)
    topic = f"spBv1.0/{GROUP}/{{}}/{NODE}/demo"
    birth = tahu.decode(next(payload for name, payload in raw if name == topic.format("DBIRTH")))
    metrics = {metric["name"]: metric for metric in birth["metrics"]}
    assert isinstance(metrics["counter"]["value"], int) and metrics["counter"]["type"] == "Int64"
    types = {name: DataType[metric["type"].upper()].value for name, metric in metrics.items() if metric.get("type")}
    data = [tahu.decode(payload, types) for name, payload in raw if name == topic.format("DDATA")]
    counts = [m["value"] for payload in data for m in payload["metrics"] if m["name"] == "counter"]
    counts = sorted([*counts, metrics["counter"]["value"]])
    assert counts == list(range(counts[0], counts[0] + len(counts))) and counts[0] > 0

    set_point = {"name": "set_point", "type": "Double", "value": 12.5}
    host.client.publish(topic.format("DCMD"), tahu.encode({"timestamp": 1, "metrics": [set_point]}), 1)
    wait_until("the new value", lambda: 12.5 in host.values(MessageType.DDATA, "set_point", "demo"))
    rebirth = {"name": "Node Control/Rebirth", "type": "Boolean", "value": True}
    before = len(host.of(MessageType.NBIRTH))
    host.client.publish(f"spBv1.0/{GROUP}/NCMD/{NODE}", tahu.encode({"metrics": [rebirth]}), 1)
    host.born(count=before + 1)


def recorded(make, recorder, more=""):
    """Started, born, and stopped in good order."""
    vedette = make(DEMO + MQTT.format(broker=recorder.port) + more).start()
    births = re.compile("spBv1.0/.*/DBIRTH/.*")
    wait_until("a birth", lambda: any(births.match(packet.topic) for packet in recorder.of(PUBLISH)))
    assert vedette.stop() == 0
    wait_until("DISCONNECT", lambda: recorder.of(DISCONNECT))
    return recorder


def connect_flags(packet):
    """Protocol level, flags, and properties (of MQTT 5)."""
    level, flags = packet.body[6], packet.body[7]
    size = packet.body[10] if level == 5 else 0
    return level, flags, packet.body[11 : 11 + size]


def test_tck_id_principles_persistence_clean_session_50(make, recorder):
    level, flags, properties = connect_flags(recorded(make, recorder).of(CONNECT)[0])
    assert (level, flags & 2) == (5, 2), "Clean Start"
    # Session Expiry Interval is property 17; 0 is the default.
    at = properties.find(b"\x11")
    assert at < 0 or struct.unpack(">I", properties[at + 1 : at + 5])[0] == 0


def test_tck_id_principles_persistence_clean_session_311(make, recorder):
    recorded(make, recorder, 'protocol = "3.1.1"\n')
    level, flags, _ = connect_flags(recorder.of(CONNECT)[0])
    assert (level, flags & 2) == (4, 2), "Clean Session"


def last_two(recorder):
    assert recorder.packets[-1].kind == DISCONNECT
    return recorder.packets[-2], recorder.packets[-1]


def test_tck_id_operational_behavior_edge_node_intentional_disconnect_packet(make, recorder):
    death, _ = last_two(recorded(make, recorder))
    assert death.topic == f"spBv1.0/{GROUP}/NDEATH/{NODE}"


def test_tck_id_payloads_ndeath_will_message_publisher_disconnect_mqtt50(make, recorder):
    _, disconnect = last_two(recorded(make, recorder))
    assert disconnect.body[0] == 4, "Disconnect with Will Message"


def test_tck_id_payloads_ndeath_will_message_publisher_disconnect_mqtt311(make, recorder):
    death, disconnect = last_two(recorded(make, recorder, 'protocol = "3.1.1"\n'))
    assert (death.topic, disconnect.body) == (f"spBv1.0/{GROUP}/NDEATH/{NODE}", b"")


def test_tck_id_operational_behavior_primary_application_state_with_multiple_servers_single_server(make):
    one, two = Recorder(), Recorder()
    for recorder in (one, two):
        recorder.retained["spBv1.0/STATE/scada"] = b'{"online":true,"timestamp":5}'
    mqtt = MQTT.replace('broker = "mqtt://127.0.0.1:{broker}"', f"brokers = ['mqtt://127.0.0.1:{one.port}', 'mqtt://127.0.0.1:{two.port}']")
    make(DEMO + mqtt + 'primary_host = "scada"\n').start()

    def born(recorder):
        return any("/NBIRTH/" in packet.topic for packet in recorder.of(PUBLISH))

    wait_until("born at the first", lambda: born(one))
    assert not two.connections
    offline = b'{"online":false,"timestamp":5}'
    one.retained["spBv1.0/STATE/scada"] = offline
    one.publish("spBv1.0/STATE/scada", offline)
    wait_until("born at the second", lambda: born(two))
    assert any("/NDEATH/" in packet.topic for packet in one.of(PUBLISH))
    assert one.connections[0][1] is not None and one.connections[0][1] <= two.connections[0][0] + 0.5
    one.close()
    two.close()


def test_a_birth_that_the_broker_finds_too_large_keeps_no_other_from_being_born(make, broker, host):
    broker.kill()
    broker.config.write_text(broker.config.read_text() + "max_packet_size 20000\n")
    broker.start()
    load = '[[simulator]]\nname = "load"\nwaves = 1000\n'
    vedette = make(DEMO + load + MQTT.format(broker=broker.port)).start()
    host.born(MessageType.DBIRTH, "demo")
    wait_until("data", lambda: len(host.of(MessageType.DDATA, "demo")) >= 3)
    assert not host.of(MessageType.DBIRTH, "load") and not host.of(MessageType.DDATA, "load")
    assert vedette.says("so this device is not born; let [mqtt] tags name fewer tags")

    # Where it is the node's own birth there is nothing to do, which is said.
    broker.kill()
    broker.config.write_text(broker.config.read_text().replace("20000", "2000"))
    broker.start()
    wait_until("said", lambda: vedette.says("does not take the birth, spBv1.0/Plant/NBIRTH/line1: it has "))
