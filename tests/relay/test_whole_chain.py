"""From DA servers to MQTT: the relay under Wine, the appliance on Linux, a broker; and each of them killed and frozen.

    DA server in its worker ── relay ── UA, signed and encrypted ── appliance ──┬── UA ── asyncua
                                                                                └── MQTT ── mosquitto ── paho

A ramp's value is told by its DA timestamp, so each that is Good at either end is known to be right or wrong.
"""

import contextlib
import datetime
import itertools
import json
import os
import re
import signal
import subprocess
import threading
import time

import paho.mqtt.client as paho
import pytest
from appliance import peers
from asyncua import ua
from conftest import RELAY, WINE
from test_chain import Relay, free_port, wait_until, windows
from worker import program

SERVERS = ("Vedette.Test.1", "Vedette.Test.2")

CONFIG = """
data_dir = '{data}'
listen = "127.0.0.1:{port}"
discover = false
"""
SERVER = """
[[server]]
prog_id = "{name}"
write = ["Control", "Special.*"]
status_interval = "500ms"
status_timeout = "3s"
"""
APPLIANCE = """
[device]
name = "vedette-test"
[ua_server]
listen = "127.0.0.1:{port}"
insecure_on_loopback = true
anonymous = "operator"
[cameras]
discover = false
[mqtt]
broker = "mqtt://127.0.0.1:BROKER"
group = "Plant"
node = "box"
format = "json"
publish_interval = "100ms"
[[ua_client]]
name = "da"
url = "opc.tcp://127.0.0.1:RELAY"
user = "plc"
password = "as long as it takes"
silence = "5s"
[[ua_client.group]]
name = "default"
sampling_interval = "100ms"
publishing_interval = "100ms"
"""
# As `Chain.since` has them.
ENDS = ("MQTT's end", "UA's end")
# Tags of the appliance and where they come from.
TAGS = {
    "ramp": (SERVERS[0], "Ramps.Ramp0"),
    "still": (SERVERS[0], "Special.with[bracket]"),
    "uncertain": (SERVERS[0], "Special.Uncertain"),
    "sick": (SERVERS[0], "Special.Bad"),
    "command": (SERVERS[0], "Control"),
    "other": (SERVERS[1], "Ramps.Ramp0"),
    "other command": (SERVERS[1], "Control"),
}
# Twice the ramp's step and the sampling interval: values that come early are moved to their turn.
SLACK = datetime.timedelta(milliseconds=300)
STEP = datetime.timedelta(milliseconds=50)
BEGIN = datetime.datetime(1601, 1, 1)


def is_right(value, at: datetime.datetime) -> bool:
    """Whether a ramp was at this value at any time near."""
    first, last = (int((time - BEGIN) / STEP) for time in (at - SLACK, at + SLACK))
    return any(step % 1000 == value for step in range(first, last + 1))


class SecureRelay(Relay):
    text = CONFIG + "".join(SERVER.format(name=name) for name in SERVERS)


class Chain:
    def __init__(self, folder, scripts):
        self.relay = SecureRelay(folder, scripts).start()
        (folder / "broker").mkdir()
        self.broker = peers.Broker(folder / "broker").start()
        text = APPLIANCE.replace("BROKER", str(self.broker.port)).replace("RELAY", str(self.relay.port))
        (folder / "box").mkdir()
        self.appliance = peers.Vedette(folder / "box", text)
        self.lock, self.heard, self.seen = threading.Lock(), [], []
        self.client, self.is_listening = None, threading.Event()

    def tool(self, *arguments, say=""):
        """The relay's own command line, on its data folder."""
        command = [*WINE, *arguments, "--config", windows(self.relay.config)]
        done = subprocess.run(command, input=say, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def name_tags(self):
        """The namespaces have the name of the PC in them, as the relay's certificate has."""
        certificate = next((self.relay.data / "pki/own").rglob("*.der")).read_bytes()
        host = re.search(rb"urn:([^:]+):", certificate).group(1).decode()
        tags = [
            f'[[ua_client.tag]]\nname = "{name}"\nnode = "nsu=urn:{host}:vedette-da-relay:{server};s={item}"\n'
            for name, (server, item) in TAGS.items()
        ]
        self.appliance.config.write_text(self.appliance.config.read_text() + "".join(tags))

    def watch(self):
        """Both ends: what is published, and what a UA client is told."""
        self.mqtt = paho.Client("end")
        self.mqtt.on_message = self.hear
        self.mqtt.on_connect = lambda client, *_: client.subscribe("vedette/Plant/box/da/#", 1)
        self.mqtt.on_subscribe = lambda *_: self.is_listening.set()
        self.mqtt.reconnect_delay_set(1, 1)
        self.mqtt.connect("127.0.0.1", self.broker.port)
        self.mqtt.loop_start()
        self.look()

    def look(self):
        if self.client:
            with contextlib.suppress(Exception):
                self.client.disconnect()
        self.client = wait_until("a client", self.connected)
        self.node = lambda name: self.client.get_node(f"ns=2;s=Tags/da/{name}")
        subscription = self.client.create_subscription(100, self)
        subscription.subscribe_data_change([self.node(name) for name in TAGS])

    def connected(self):
        client = self.appliance.client()
        # It would hang up by itself when this machine is slow for four seconds.
        client.aio_obj._watchdog_intervall = 600
        try:
            client.connect()
            return client
        except (ConnectionError, TimeoutError, ua.UaError):
            return None

    def hear(self, _client, _userdata, message):
        name = message.topic.rsplit("/", 1)[-1]
        if message.payload and name in TAGS:
            with self.lock:
                self.heard.append((name, json.loads(message.payload)))

    def status_change_notification(self, _status):
        """A session that ends."""

    def datachange_notification(self, node, _value, data):
        with self.lock:
            self.seen.append((node.nodeid.Identifier.rsplit("/", 1)[-1], data.monitored_item.Value))

    def marks(self):
        with self.lock:
            return len(self.heard), len(self.seen)

    def since(self, marks, name):
        """What came of a tag: (is it good, is it bad, value, time) at MQTT's end, and at UA's."""
        with self.lock:
            heard, seen = self.heard[marks[0] :], self.seen[marks[1] :]
        return [said(payload) for of, payload in heard if of == name], [told(value) for of, value in seen if of == name]

    def flows(self, *names, marks=None):
        """New values that are good, at both ends."""
        marks = marks or self.marks()
        for name, end in itertools.product(names, ENDS):
            wait_until(f"{name} good at {end}", lambda: any(one[0] for one in self.since(marks, name)[ENDS.index(end)]))

    def goes_bad(self, *names, marks):
        for name, end in itertools.product(names, ENDS):
            wait_until(f"{name} bad at {end}", lambda: any(one[1] for one in self.since(marks, name)[ENDS.index(end)]))

    def lasts_bad(self, name):
        return all(end[-1][1] for end in self.since((0, 0), name))

    def command(self, name, word):
        try:
            self.node(name).write_value(ua.Variant(word, ua.VariantType.String))
        except (ua.UaError, TimeoutError):
            # It may well be gone before it can answer.
            pass

    def status(self, name):
        return self.node(f"status/{name}").read_value()

    def judge(self):
        """Whatever was Good at either end was right."""
        for name in ("ramp", "other"):
            for end in self.since((0, 0), name):
                wrong = [one for one in end if one[0] and not (one[3] and is_right(one[2], one[3]))]
                assert end and not wrong, (name, wrong[:5])

    def close(self):
        self.mqtt.loop_stop()
        self.client.disconnect()
        self.appliance.process.kill()
        self.broker.kill()
        self.relay.stop()


def said(payload):
    at = datetime.datetime.fromisoformat(payload["time"]).replace(tzinfo=None)
    return payload["quality"].startswith("Good"), payload["quality"].startswith("Bad"), payload["value"], at


def told(value):
    at = value.SourceTimestamp and value.SourceTimestamp.replace(tzinfo=None)
    return value.StatusCode.is_good(), value.StatusCode.is_bad(), value.Value and value.Value.Value, at


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain")
    script = folder / "server.toml"
    script.write_text("da = 3\n")
    chain = Chain(folder, {name: script for name in SERVERS})
    yield chain
    chain.close()


def test_the_appliance_comes_in_when_both_trust_and_as_who_it_is(chain):
    """A stranger's first evening: each refusal says what helps, and that helps."""
    chain.tool("user", "add", "plc", "--role", "viewer", say="another than he says\n")
    chain.name_tags()
    chain.appliance.start()
    advice = lambda text: wait_until("advice", lambda: re.search(r"`(\S+) trust ([0-9A-F]{40})", text())).groups()
    program, thumbprint = advice(chain.appliance.text)
    assert program == "vedette"
    program = [peers.BINARY, "trust", thumbprint, "--data-dir", chain.appliance.data]
    subprocess.run(program, check=True, capture_output=True)
    program, thumbprint = advice(chain.relay.said)
    assert program == RELAY.stem
    assert thumbprint in chain.tool("trust")
    chain.tool("trust", thumbprint)
    wait_until("it is said that the password is wrong", lambda: "BadUserAccessDenied" in chain.appliance.text())
    chain.tool("user", "add", "plc", "--role", "operator", say="as long as it takes\n")
    chain.watch()
    chain.flows("ramp", "other", marks=(0, 0))
    chain.node("still").write_value(ua.Variant(7.5, ua.VariantType.Double))
    wait_until("it is there", lambda: all(end[-1][2] == 7.5 for end in chain.since((0, 0), "still")))


def test_quality_and_time_are_the_da_servers_at_both_ends(chain):
    chain.flows("ramp", "other")
    for end in chain.since((0, 0), "uncertain"):
        assert [one[:2] for one in end[-1:]] == [(False, False)], "uncertain"
    for end in chain.since((0, 0), "sick"):
        assert end[-1][1], "bad"
    code = lambda name: chain.node(name).read_data_value(raise_on_bad_status=False).StatusCode.value
    high = 1 << 10 | 2 << 8
    assert code("uncertain") == ua.StatusCodes.UncertainEngineeringUnitsExceeded | high
    assert code("sick") == ua.StatusCodes.BadNoCommunication
    chain.judge()


# What is done to one DA server, and with which signal to its worker otherwise.
FAULTS = {"die": None, "freeze": None, "shutdown": None, "killed": signal.SIGKILL, "stopped": signal.SIGSTOP}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_da_server_that_fails_is_bad_alone_and_comes_back(chain, fault):
    chain.flows("ramp", "other")
    workers, marks = chain.relay.workers(), chain.marks()
    if FAULTS[fault] is None:
        chain.command("command", fault)
    else:
        (worker,) = chain.relay.workers(SERVERS[0])
        os.kill(worker, FAULTS[fault])
    chain.goes_bad("ramp", "still", marks=marks)
    good_after = lambda end: [one for one in end[next(i for i, one in enumerate(end) if one[1]) :] if one[0]]
    wait_until("back", lambda: all(good_after(end) for end in chain.since(marks, "ramp")))
    wait_until("what never changes, too", lambda: all(end[-1][0] for end in chain.since(marks, "still")))
    assert not any(one[1] for end in chain.since(marks, "other") for one in end), "the other one felt nothing"
    wait_until("two workers, one of them new", lambda: len(set(chain.relay.workers()) - set(workers)) == 1)
    chain.judge()


@pytest.mark.parametrize("end", [signal.SIGSTOP, signal.SIGKILL])
def test_a_relay_that_is_gone_is_bad_everywhere_and_comes_back(chain, end):
    marks = chain.marks()
    before = chain.status("reconnects")
    workers = chain.relay.workers()
    relay = program(chain.relay.process)
    os.kill(relay, end)
    chain.goes_bad("ramp", "still", "uncertain", "other", marks=marks)
    marks = chain.marks()
    if end == signal.SIGSTOP:
        os.kill(relay, signal.SIGCONT)
    else:
        wait_until("no worker is left behind", lambda: not set(chain.relay.workers()) & set(workers))
        chain.relay.start()
    chain.flows("ramp", "still", "other", marks=marks)
    wait_until("it counts", lambda: chain.status("reconnects") > before)
    chain.judge()


def test_an_appliance_that_is_killed_or_stopped_goes_on(chain):
    for end in (signal.SIGSTOP, signal.SIGKILL):
        marks = chain.marks()
        os.kill(chain.appliance.process.pid, end)
        if end == signal.SIGSTOP:
            # Longer than any of its peers waits for it.
            time.sleep(8)
            os.kill(chain.appliance.process.pid, signal.SIGCONT)
        else:
            chain.appliance.process.wait()
            chain.appliance.start()
        # The client that looked on has had its time.
        chain.look()
        chain.flows("ramp", "other", marks=marks)
    chain.judge()


@pytest.mark.parametrize("end", [signal.SIGSTOP, signal.SIGKILL])
def test_a_broker_that_is_away_loses_nothing(chain, end):
    marks = chain.marks()
    os.kill(chain.broker.process.pid, end)
    time.sleep(3)
    seen = chain.since(marks, "ramp")[1]
    assert seen, "the other end goes on"
    if end == signal.SIGSTOP:
        os.kill(chain.broker.process.pid, signal.SIGCONT)
    else:
        chain.broker.process.wait()
        # The new broker knows no subscription: what comes before that is nobody's. So the appliance comes last.
        os.kill(chain.appliance.process.pid, signal.SIGSTOP)
        chain.is_listening.clear()
        chain.broker.start()
        wait_until("somebody listens", chain.is_listening.is_set)
        os.kill(chain.appliance.process.pid, signal.SIGCONT)
    late = {one[3] for one in seen[5:-5] if one[0]}
    heard = lambda: {one[3] for one in chain.since(marks, "ramp")[0]}
    chain.flows("ramp", marks=chain.marks())
    wait_until("what was published meanwhile comes late", lambda: len(late & heard()) >= len(late) // 2)
    chain.judge()
