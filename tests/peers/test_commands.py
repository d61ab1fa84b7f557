"""A device that is steered over MQTT, through mosquitto: commands and their answers, roles by the broker's access list, and
a configuration that cannot cut the device off."""

import json
import os
import re
import socket
import subprocess
import threading
import uuid

import paho.mqtt.client as paho
import pytest
from conftest import DEMO, ROOT, free_port, picture, wait_until
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

BASE = "vedette/Plant/line1"
MQTT = """
[mqtt]
broker = "mqtt://127.0.0.1:{broker}"
group = "Plant"
node = "line1"
publish_interval = "100ms"
commands = "admin"
"""


class Fleet:
    """Somebody who steers devices."""

    def __init__(self, port, username=None):
        self.answers = []
        self.pictures = []
        self.lock = threading.Lock()
        self.client = paho.Client(f"fleet-{uuid.uuid4()}", protocol=paho.MQTTv5)
        if username:
            self.client.username_pw_set(username, username)
        self.client.on_connect = lambda client, *_: client.subscribe([(f"{BASE}/answer/#", 1), (f"{BASE}/image/#", 1), ("own/#", 1)])
        self.client.on_message = self.on_message
        self.client.reconnect_delay_set(1, 1)
        self.subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self.subscribed.wait(30)

    def on_message(self, _client, _userdata, message):
        with self.lock:
            if "/image/" in message.topic:
                self.pictures.append(message)
                self.answers.append({"id": None, "picture": message.payload})
            else:
                self.answers.append(json.loads(message.payload) | {"topic": message.topic, "message": message})

    def send(self, command, role="admin", id=None, retain=False, properties=None, **args):
        id = id or str(uuid.uuid4())
        payload = json.dumps({"id": id, "command": command, "args": args})
        self.client.publish(f"{BASE}/command/{role}", payload, 1, retain, properties)
        return id

    def of(self, id):
        with self.lock:
            return [answer for answer in self.answers if answer["id"] == id]

    def states(self, id):
        return [answer["state"] for answer in self.of(id)]

    def end(self, id):
        wait_until(f"the end of {id}", lambda: self.states(id)[-1:] in (["done"], ["failed"]))
        return self.of(id)[-1]

    def ask(self, command, role="admin", **args):
        """The last answer, after `accepted`."""
        end = self.end(id := self.send(command, role, **args))
        if end["state"] == "done":
            assert self.states(id)[0] == "accepted"
        return end

    def done(self, command, role="admin", **args):
        end = self.ask(command, role, **args)
        assert end["state"] == "done", end
        return end.get("result")

    def failed(self, words, command, role="admin", **args):
        end = self.ask(command, role, **args)
        assert end["state"] == "failed" and words in end["reason"], end

    def close(self):
        self.client.loop_stop()
        self.client.disconnect()


@pytest.fixture
def fleet(broker):
    fleet = Fleet(broker.port)
    yield fleet
    fleet.close()


@pytest.fixture
def vedette(make, broker, fleet):
    vedette = make(DEMO + MQTT.format(broker=broker.port)).start()
    connected(vedette)
    return vedette


def connected(vedette, times=1):
    wait_until("connected", lambda: vedette.text().count("Connected to the MQTT broker") >= times or vedette.ended())
    assert not vedette.ended(), vedette.text()


def test_who_looks_sees_the_device_its_tags_its_log_and_a_picture(vedette, fleet):
    status = fleet.done("status", "viewer")
    assert re.fullmatch(r"\d+\.\d+\.\d+", status["version"]) and status["lost_sources"] == {}
    tags = status["tags"]
    assert tags["device/Version"] == status["version"] and tags["device/BootReason"] == "first start"
    assert tags["device/Sources/demo/State"] == "running" and tags["system/memory/total"] > 0
    assert re.fullmatch(r"[0-9a-f]{64}", tags["device/Configuration/Hash"])
    assert tags["device/Certificates/UA"] > "2027"

    rows = {row["name"]: row for row in fleet.done("list", "viewer", pattern="demo/**")}
    point = rows["demo/set_point"]
    assert (point["type"], point["writable"], point["quality"]) == ("Double", True, "Good")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", point["time"])
    assert "system/uptime" not in rows
    assert fleet.done("read", "viewer", tags=["demo/counter"])[0]["value"] >= 0
    fleet.failed("no tag demo/nothing", "read", "viewer", tags=["demo/nothing"])

    id = fleet.send("snapshot", "viewer", camera="line1", max_bytes=60000)
    result = fleet.end(id)["result"]
    with fleet.lock:
        kinds = ["picture" if answer["id"] is None else answer["state"] for answer in fleet.answers[-3:]]
    assert kinds == ["accepted", "picture", "done"]
    sent = fleet.pictures[0]
    assert (sent.topic, len(sent.payload)) == (result["topic"], result["bytes"]) and len(sent.payload) <= 60000
    assert picture(sent.payload).width > 0
    fleet.failed("/dev/video99 does not exist", "snapshot", "viewer", camera="absent")
    assert any("Vedette is up." in line["text"] for line in fleet.done("log", "viewer", lines=1000))


def test_an_operator_writes_and_every_word_of_it_is_written_down(vedette, fleet):
    assert fleet.done("write", "operator", tag="demo/set_point", value=42.5) is None
    wait_until("the value", lambda: fleet.done("read", "viewer", tags=["demo/set_point"])[0]["value"] == 42.5)
    assert "write demo/set_point = 42.5" in vedette.text()
    fleet.failed("is no Double", "write", "operator", tag="demo/set_point", value="hot")
    fleet.failed("read-only", "write", "operator", tag="demo/sine", value=1)
    fleet.done("rebirth", "operator")
    end = fleet.ask("identify", "operator", seconds=1)
    # Whether this machine has an LED that may be used is not known.
    assert end["state"] == "done" or "LED" in end["reason"], end


def test_who_may_not_is_told_so_and_nonsense_is_answered_or_ignored(make, broker, fleet):
    text = DEMO + MQTT.format(broker=broker.port).replace('"admin"', '"operator"')
    vedette = make(text).start()
    connected(vedette)
    fleet.failed("needs the role operator", "write", "viewer", tag="demo/set_point", value=1)
    fleet.failed('[mqtt] commands = "operator"', "reboot")
    fleet.failed("there is no command", "selfdestruct")
    fleet.failed("takes args such as", "read", "viewer", tag="demo/sine")
    for payload in [b"", b"\x00\xff", b"[" * 100_000, b'{"id": 1}', b"{}" * 3000, os.urandom(5000)]:
        fleet.client.publish(f"{BASE}/command/viewer", payload, 1)
    large = json.dumps({"id": "large", "command": "config.apply", "args": {"toml": "x" * 300_000}})
    fleet.client.publish(f"{BASE}/command/admin", large, 1)
    assert "too large" in fleet.end("large")["reason"]
    # A retained one would come again at each connect.
    retained = fleet.send("write", "operator", retain=True, tag="demo/set_point", value=66)
    broker.kill()
    broker.start()
    connected(vedette, 2)
    fleet.subscribed.clear()
    wait_until("back", fleet.client.is_connected)
    fleet.done("status", "viewer")
    assert len(fleet.states(retained)) <= 2, "done when it came, not again"


def test_an_answer_goes_where_it_is_wanted_and_a_request_is_done_once(vedette, fleet):
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = "own/7"
    properties.CorrelationData = b"\x00c"
    id = fleet.send("status", "viewer", properties=properties)
    answer = fleet.end(id)
    assert answer["topic"] == "own/7" and answer["message"].properties.CorrelationData == b"\x00c"
    for _ in range(3):
        fleet.send("write", "operator", id="twice", tag="demo/set_point", value=1)
    wait_until("answered", lambda: len(fleet.of("twice")) >= 4)
    assert vedette.text().count("id twice") == 1
    # Nobody may have this device command others, or itself.
    properties.ResponseTopic = f"{BASE}/command/admin"
    fleet.send("reboot", "viewer", id="own", properties=properties)
    fleet.done("status", "viewer")
    assert fleet.of("own") == []


def test_the_log_is_louder_for_a_while_and_an_update_without_slots_is_refused(vedette, fleet):
    fleet.done("log_level", filter="debug", seconds=2)
    wait_until("back", lambda: vedette.says("The log is as configured again."))
    fleet.failed("is not understood", "log_level", filter="a=b=c")
    update = {"url": "https://updates.example/v2.raucb", "sha256": "0" * 64, "version": "2.0.0"}
    fleet.failed("no update slots", "update", **update)
    fleet.failed("64 hexadecimal digits", "update", **update | {"sha256": "00"})


@pytest.mark.parametrize("answer", ["exit 0", "echo 'Access denied' >&2; exit 1"])
def test_a_reboot_is_asked_of_the_system_and_answered(make, broker, fleet, tmp_path, monkeypatch, answer):
    program = tmp_path / "systemctl"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n{answer}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    vedette = make(DEMO + MQTT.format(broker=broker.port)).start()
    connected(vedette)
    end = fleet.ask("reboot")
    assert (tmp_path / "asked").read_text().split()[-1] == "reboot"
    if answer == "exit 0":
        assert end["state"] == "done"
    else:
        assert end["state"] == "failed" and "Access denied" in end["reason"]


def test_the_watchdog_of_the_service_is_answered(make, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "500000")
        make(DEMO).start()
        said = ""
        while said.count("WATCHDOG=1") < 3:
            said += systemd.recv(4096).decode()
    assert "READY=1" in said


def text_of(vedette):
    return vedette.config.read_text()


def files(vedette):
    return sorted(path.name for path in vedette.folder.iterdir() if path.name.startswith("vedette.toml"))


def progress(fleet, id):
    wait_until("on trial", lambda: "progress" in fleet.states(id) or fleet.states(id)[-1:] == ["failed"])
    answer = next(answer for answer in fleet.of(id) if answer["state"] != "accepted")
    assert answer["state"] == "progress" and answer["reason"].startswith("applied; confirm until "), answer


def test_a_configuration_is_confirmed_over_the_connection_that_it_made(vedette, fleet):
    before = text_of(vedette)
    assert fleet.done("config.get")["toml"] == before
    # Another interval: the uplink says goodbye and comes back.
    after = before.replace('publish_interval = "100ms"', 'publish_interval = "200ms"')
    id = fleet.send("config.apply", toml=after, confirm_within="1m")
    progress(fleet, id)
    assert files(vedette) == ["vedette.toml", "vedette.toml.before", "vedette.toml.trial"]
    assert fleet.done("status", "viewer")["tags"]["device/Configuration/PendingUntil"] > "2026"
    fleet.failed("another configuration is on trial", "config.apply", toml=before)
    confirm(fleet, id)
    assert fleet.end(id)["state"] == "done" and fleet.states(id) == ["accepted", "progress", "done"]
    assert text_of(vedette) == after and files(vedette) == ["vedette.toml"]
    assert vedette.stop() == 0
    vedette.start()
    assert not vedette.says("rolled back") and text_of(vedette) == after


def confirm(fleet, id):
    own = str(uuid.uuid4())
    payload = json.dumps({"id": own, "command": "config.confirm", "args": {"id": id}})
    fleet.client.publish(f"{BASE}/command/admin", payload, 1)
    assert fleet.end(own)["state"] == "done", fleet.of(own)


def test_what_is_wrong_is_refused_with_its_line(vedette, fleet):
    before = text_of(vedette)
    wrong = before.replace('publish_interval = "100ms"', 'publish_interwal = "100ms"')
    line = wrong[: wrong.index("publish_interwal")].count("\n") + 1
    fleet.failed(f"vedette.toml:{line}: [mqtt]: unknown key", "config.apply", toml=wrong)
    assert text_of(vedette) == before and files(vedette) == ["vedette.toml"]
    vedette.config.write_text(before + "# not done yet\n")
    fleet.failed("somebody is editing it", "config.apply", toml=before)


@pytest.mark.parametrize("cut", ["wrong broker", "no uplink", "no commands"])
def test_no_edit_from_afar_cuts_a_device_off(vedette, fleet, cut):
    before = text_of(vedette)
    table = before[before.index("[mqtt]") :]
    after = {
        "wrong broker": before.replace(re.search(r"mqtt://127.0.0.1:\d+", before)[0], f"mqtt://127.0.0.1:{free_port()}"),
        "no uplink": before.replace(table, ""),
        "no commands": before.replace('commands = "admin"', 'commands = "none"'),
    }[cut]
    assert after != before
    id = fleet.send("config.apply", toml=after, confirm_within="4s")
    wait_until("tried", lambda: text_of(vedette) == after)
    if cut == "no commands":
        progress(fleet, id)
    end = fleet.end(id)
    assert (end["state"], end["reason"]) == ("failed", "not confirmed; rolled back")
    assert text_of(vedette) == before and files(vedette) == ["vedette.toml"]
    fleet.done("status", "viewer")


def test_a_power_cut_during_a_trial_brings_the_old_configuration_back(vedette, fleet):
    before = text_of(vedette)
    after = before.replace(re.search(r"mqtt://127.0.0.1:\d+", before)[0], f"mqtt://127.0.0.1:{free_port()}")
    id = fleet.send("config.apply", toml=after, confirm_within="1h")
    wait_until("on trial", lambda: vedette.says("it must be confirmed"))
    assert text_of(vedette) == after
    vedette.process.kill()
    vedette.process.wait()
    vedette.start()
    assert text_of(vedette) == before and files(vedette) == ["vedette.toml"]
    end = fleet.end(id)
    assert end["state"] == "failed" and end["reason"].startswith("not confirmed; "), end
    assert fleet.done("status", "viewer")["tags"]["device/BootReason"] == "program failed"


def test_a_clean_restart_during_a_trial_does_so_too(vedette, fleet):
    before = text_of(vedette)
    id = fleet.send("config.apply", toml=before.replace('"100ms"', '"150ms"'), confirm_within="1h")
    progress(fleet, id)
    assert vedette.stop() == 0
    vedette.start()
    assert text_of(vedette) == before
    assert fleet.end(id)["state"] == "failed"
    assert fleet.done("status", "viewer")["tags"]["device/BootReason"] == "program restarted"


def test_the_brokers_access_list_decides_who_has_which_role(make, broker, tmp_path):
    """The list is the one of docs/fleet.md."""
    text = (ROOT / "docs/fleet.md").read_text()
    acl = re.search(r"```\n(# mosquitto: .*?)```", text, re.S)[1]
    (broker.folder / "acl").write_text(acl)
    passwords = broker.folder / "passwords"
    names = ["line1", "anna", "omar", "ada"]
    passwords.write_text("".join(f"{name}:{name}\n" for name in names))
    subprocess.run(["mosquitto_passwd", "-U", passwords], check=True)
    config = broker.config.read_text().replace("allow_anonymous true", "allow_anonymous false")
    # Started by root it would become somebody who may not read these files.
    broker.config.write_text(config + f"user root\npassword_file {passwords}\nacl_file {broker.folder / 'acl'}\n")
    broker.kill()
    broker.start()
    table = MQTT.format(broker=broker.port) + f'username = "line1"\npassword_file = "{tmp_path}/password"\n'
    (tmp_path / "password").write_text("line1\n")
    (tmp_path / "password").chmod(0o600)
    vedette = make(DEMO + table).start()
    connected(vedette)
    people = {name: Fleet(broker.port, name) for name in names[1:]}
    try:
        requests = {"viewer": ("status", {}), "operator": ("write", {"tag": "demo/set_point", "value": 5}), "admin": ("config.get", {})}
        for person, fleet in people.items():
            for role, (command, args) in requests.items():
                may = list(people).index(person) >= list(requests).index(role)
                id = fleet.send(command, role, id=f"{person}-{role}", **args)
                if may:
                    assert fleet.end(id)["state"] == "done"
        for fleet in people.values():
            fleet.done("status", "viewer")
        for refused in ["anna-operator", "anna-admin", "omar-admin"]:
            assert people["ada"].of(refused) == [] and f"id {refused}" not in vedette.text()
        assert people["ada"].states("anna-viewer") == ["accepted", "done"]
        for person, secret in [("anna", "omar-operator"), ("anna", "ada-admin"), ("omar", "ada-admin")]:
            assert people[person].of(secret) == [], "answers to another role"
    finally:
        for fleet in people.values():
            fleet.close()
