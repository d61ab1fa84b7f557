"""The uplink, seen by mosquitto and by pysparkplug's decoder."""

import pytest
from asyncua import ua
from conftest import DEMO, child, wait_until
from pysparkplug import DataType, MessageType, NBirth, NDeath
from sparkplug import GROUP, MQTT, NODE, Host


@pytest.fixture
def host(broker):
    host = Host(broker.port)
    wait_until("subscribed", host.client.is_connected)
    yield host
    host.close()


@pytest.fixture
def vedette(make, broker, host):
    return make(DEMO + MQTT.format(broker=broker.port)).start()


def test_every_tag_is_born(vedette, host):
    birth = host.born()[0]
    assert (birth.topic.group_id, birth.topic.edge_node_id, birth.retain) == (GROUP, NODE, False)
    assert isinstance(birth.payload, NBirth) and birth.payload.seq == 0
    host.born(MessageType.DBIRTH, count=2)
    born = set()
    for place, payload in host.births.items():
        born |= {"/".join((*place, metric.name)) for metric in payload.metrics}
    with vedette.client() as client:

        def tags(node, path=""):
            for below in node.get_children():
                name = f"{path}{below.read_browse_name().Name}"
                if below.read_node_class() == ua.NodeClass.Object:
                    yield from tags(below, name + "/")
                else:
                    yield name

        names = set(tags(child(client.nodes.objects, "Tags")))

    def said(name):
        first, _, rest = name.partition("/")
        return {"cameras": rest, "device": f"Properties/{rest}"}.get(first) or (
            f"Properties/{name}" if first in ("system", "store", "mqtt") else name
        )

    assert len(names) > 10 and {said(name) for name in names} <= born
    metrics = {metric.name: metric for metric in birth.payload.metrics}
    assert metrics["Node Control/Rebirth"].value is False
    assert metrics["bdSeq"].datatype == DataType.INT64


def test_a_clean_stop_and_a_kill_are_both_a_death(vedette, host):
    host.born()
    assert vedette.stop() == 0
    death = wait_until("a death", lambda: host.of(MessageType.NDEATH))[0]
    assert isinstance(death.payload, NDeath)
    before = len(host.of(MessageType.NDEATH))
    vedette.start()
    host.born(count=2)
    vedette.process.kill()
    deaths = wait_until("the will", lambda: len(host.of(MessageType.NDEATH)) > before and host.of(MessageType.NDEATH))
    birth = host.born(count=2)[-1]
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
    host.born()
    broker.kill()
    broker.start()
    host.born(count=2)
    host.close()
