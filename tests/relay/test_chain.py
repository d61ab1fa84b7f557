"""The whole relay: the program under Wine, its worker with a DA server, and asyncua as its client."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from asyncua import ua
from asyncua.sync import Client
from conftest import RELAY, WINE
from worker import PATIENCE, words_of

CONFIG = """
data_dir = '{data}'
listen = "127.0.0.1:{port}"
insecure_on_loopback = true
anonymous = "operator"
discover = false
[[server]]
prog_id = "Vedette.Test.1"
write = ["Special.*", "Types.*"]
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def windows(path: Path) -> str:
    return "Z:" + str(path).replace("/", "\\")


def wait_until(what, condition):
    deadline = time.monotonic() + PATIENCE
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.1)


class Relay:
    """The program with its data folder; `servers` are scripts of DA servers for tests, by their ProgIDs."""

    text = CONFIG

    def __init__(self, folder: Path, servers: dict[str, Path], text: str | None = None):
        self.port, self.servers = free_port(), servers
        self.config, self.data = folder / "relay.toml", folder / "data"
        self.data.mkdir()
        self.config.write_text((text or self.text).format(data=windows(self.data), port=self.port))
        self.log = folder / "relay.log"

    def start(self):
        with self.log.open("wb") as log:
            command = [*WINE, "run", "--config", windows(self.config)]
            for name, script in self.servers.items():
                command += ["--test-server", f"{name}={windows(script)}"]
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        ready = lambda: self.said().count("The DA server is there") >= len(self.servers) and "Serving OPC" in self.said()
        wait_until("serving", lambda: ready() or self.process.poll() is not None)
        assert self.process.poll() is None, self.said()
        return self

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def client(self):
        return Client(f"opc.tcp://127.0.0.1:{self.port}", timeout=PATIENCE)

    def workers(self, server="") -> list[int]:
        """Processes of Wine are processes of this machine."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            words = words_of(process.name)
            is_ours = any(RELAY.name.encode() in word for word in words) and b"worker" in words
            if is_ours and (not server or server.encode() in words):
                found.append(int(process.name))
        return found

    def stop(self):
        for end in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, end)
                self.process.wait(10)
                return
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


@pytest.fixture
def relay(tmp_path, script):
    relay = Relay(tmp_path, {"Vedette.Test.1": script(da=3)})
    yield relay.start()
    relay.stop()


class Changes:
    def __init__(self):
        self.seen = []

    def datachange_notification(self, node, value, data):
        self.seen.append((value, data.monitored_item.Value.StatusCode.name))


def item(client, item_id):
    return client.get_node(ua.NodeId(item_id, 2))


def test_items_are_read_by_their_item_ids_without_any_browse(relay):
    with relay.client() as client:
        for item_id, status in [
            ("Special.With spaces", "Good"),
            ("Special.with/slash", "Good"),
            ("Special.with[bracket]", "Good"),
            ("Special.Gäste-Öl", "Good"),
            ("Special.Uncertain", "Uncertain"),
            ("Special.Override", "GoodLocalOverride"),
            ("Special.Bad", "BadNoCommunication"),
            ("Special.WriteOnly", "BadNotReadable"),
            ("No such item", "BadNodeIdUnknown"),
        ]:
            value = item(client, item_id).read_data_value(raise_on_bad_status=False)
            assert value.StatusCode.name == status, item_id
        assert item(client, "Special.with/slash").read_value() == 12.5
        # FILETIMEs of 1601 are nonsense: the time of arrival is said.
        arrived = item(client, "Special.Time1601").read_data_value().SourceTimestamp
        assert arrived.year >= 2026


def test_the_hierarchy_is_browsed(relay):
    with relay.client() as client:
        folder = client.get_node(ua.NodeId(1, 2))
        assert folder.read_browse_name().Name == "Vedette.Test.1"
        below = {node.read_browse_name().Name: node for node in folder.get_children()}
        assert below["Connected"].read_value() is True
        special = {node.nodeid.Identifier for node in below["Special"].get_children()}
        assert {"Special.With spaces", "Special.Twin", "Special.Analog"} <= special


def test_writes_are_done_limited_or_refused(relay):
    with relay.client() as client:

        def write(item_id, value):
            node = item(client, item_id)
            value = ua.DataValue(ua.Variant(value, ua.VariantType.Double))
            parameters = ua.WriteParameters([ua.WriteValue(node.nodeid, ua.AttributeIds.Value, None, value)])
            (status,) = client.tloop.post(client.aio_obj.uaclient.write(parameters))
            return status.name

        assert write("Special.Clamped", 500.0) == "GoodClamped"
        assert write("Special.Clamped", 5000.0) == "BadOutOfRange"
        assert write("Special.ReadOnly", 1.0) == "BadNotWritable"
        assert write("Many.Item00001", 1.0) in ("BadNotWritable", "BadUserAccessDenied"), "not on the list"
        assert write("Special.With spaces", 7.5) == "Good"
        wait_until("the new value", lambda: item(client, "Special.With spaces").read_value() == 7.5)


def test_a_killed_worker_is_bad_values_and_comes_back(relay):
    with relay.client() as client:
        folder = client.get_node(ua.NodeId(1, 2))
        below = {node.read_browse_name().Name: node for node in folder.get_children()}
        ramp = below["Ramps"].get_children()[0]
        changes = Changes()
        subscription = client.create_subscription(100, changes)
        subscription.subscribe_data_change(ramp)
        wait_until("values", lambda: len(changes.seen) > 3 and changes.seen[-1][1] == "Good")
        before = len(changes.seen)
        (worker,) = relay.workers()
        os.kill(worker, signal.SIGKILL)
        bad = wait_until("bad", lambda: [status for _, status in changes.seen[before:] if status.startswith("Bad")])
        # Bad alone is VT_EMPTY, as a DA server that has just started has it.
        assert set(bad) <= {"BadNoCommunication", "BadNotConnected", "BadWaitingForInitialData", "Bad"}
        wait_until("back", lambda: len(changes.seen) > before + 2 and changes.seen[-1][1] == "Good")
        assert below["Reconnects"].read_value() >= 1
        assert relay.workers() != [worker]
        subscription.delete()


def test_a_zero_in_an_item_id_opens_nothing(relay):
    with relay.client() as client:

        def write(item_id, value):
            value = ua.DataValue(ua.Variant(value, ua.VariantType.Int32))
            parameters = ua.WriteParameters([ua.WriteValue(ua.NodeId(item_id, 2), ua.AttributeIds.Value, None, value)])
            (status,) = client.tloop.post(client.aio_obj.uaclient.write(parameters))
            return status.name

        # `Many.*` is not on the list; what the whole is like would be.
        assert write("Many.Item00001\0Special.x", 77) == "BadNodeIdUnknown"
        assert item(client, "Many.Item00001").read_value() == 1
        read = item(client, "Types.I4\0x").read_data_value(raise_on_bad_status=False)
        assert read.StatusCode.name == "BadNodeIdUnknown"


def test_a_server_whose_callbacks_never_come_is_polled(tmp_path, script):
    relay = Relay(tmp_path, {"Vedette.Test.1": script(never_calls=True, no_refresh=True, no_properties=True)})
    try:
        with relay.start().client() as client:
            changes = Changes()
            subscription = client.create_subscription(100, changes)
            subscription.subscribe_data_change(item(client, "Ramps.Ramp0"))
            good = lambda: [value for value, status in changes.seen if status == "Good"]
            wait_until("values", lambda: len(set(good())) > 3)
            assert "its cache is polled" in relay.said()
            # It has no properties, and its items are items all the same.
            assert item(client, "Types.I4").read_browse_name().Name == "Types.I4"
            assert item(client, "Types.I4").read_attribute(ua.AttributeIds.DataType).StatusCode.name == "Good"
    finally:
        relay.stop()


# What no other test has in the registry.
CLASS = "{3C1A6E0B-7F5D-4B52-8D9E-5A0C4B7E9F21}"
OF_DA_2 = "{63D5F432-CFE4-11D1-B2C8-0060083BA1FB}"
KEYS = {
    "Absent.Server\\CLSID": CLASS,
    "Absent.Server.1\\CLSID": CLASS,
    f"CLSID\\{CLASS}": "An absent server",
    f"CLSID\\{CLASS}\\ProgID": "Absent.Server.1",
    f"CLSID\\{CLASS}\\VersionIndependentProgID": "Absent.Server",
    f"CLSID\\{CLASS}\\LocalServer32": "C:\\absent.exe",
    f"CLSID\\{CLASS}\\Implemented Categories\\{OF_DA_2}": "",
}
REGISTERED = """
data_dir = '{data}'
listen = "127.0.0.1:{port}"
insecure_on_loopback = true
anonymous = "operator"
"""


@pytest.fixture
def registered():
    registry = lambda *arguments: subprocess.run([WINE[0], "reg", *arguments], capture_output=True).returncode == 0
    for key, value in KEYS.items():
        assert registry("add", f"HKLM\\Software\\Classes\\{key}", "/ve", "/d", value, "/f"), key
    yield
    # While the relay that goes still looks through them Wine may refuse.
    for key in ("Absent.Server", "Absent.Server.1", f"CLSID\\{CLASS}"):
        path = f"HKLM\\Software\\Classes\\{key}"
        wait_until(f"{key} is gone", lambda: registry("delete", path, "/f") or not registry("query", path))


@pytest.mark.parametrize(
    "table, folders",
    [
        ("", {"Absent.Server.1"}),
        ("[[server]]\nprog_id = 'Absent.Server'\n", {"Absent.Server"}),
        ("[[server]]\nprog_id = 'Absent.Server'\nenabled = false\n", set()),
        (f"[[server]]\nclsid = '{CLASS}'\nname = 'Mine'\n", {"Mine"}),
        ("worker_32 = 'nowhere.exe'\n[[server]]\nprog_id = 'Absent.Server'\nworker = '32'\n", {"Absent.Server"}),
    ],
)
def test_a_registered_server_is_served_once_by_whatever_name(tmp_path, registered, table, folders):
    relay = Relay(tmp_path, {}, REGISTERED + table.replace("{", "{{").replace("}", "}}"))
    try:
        with relay.start().client() as client:
            below = {node.read_browse_name().Name for node in client.nodes.objects.get_children()}
            assert {name for name in below if name not in ("Server", "Aliases", "Locations")} == folders
            if folders:
                # It cannot be started, and is known all the same.
                read = item(client, "Line1.Speed").read_data_value(raise_on_bad_status=False)
                assert read.StatusCode.name in ("BadNotConnected", "BadWaitingForInitialData")
    finally:
        relay.stop()
