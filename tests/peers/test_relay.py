"""The relay, seen by asyncua: DA servers that are scripted, behind workers that die, freeze and lie.

The DA servers are examples/fake_da.rs; what is tested is all that stands before COM.
"""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from asyncua import ua
from asyncua.sync import Client
from conftest import BINARY, PATIENCE, ROOT, Vedette, client_loop, free_port, wait_until

FAKE = ROOT / "target/debug/examples/fake_da"
PLANT = "Fake.Plant"

CONFIG = """
listen = "127.0.0.1:PORT"
data_dir = 'FOLDER'
insecure_on_loopback = true
anonymous = "operator"
"""
SERVER = """
[[server]]
prog_id = "NAME"
write = ["Level", "ReadOnly", "Do", "Types.*"]
status_interval = "500ms"
status_timeout = "2s"
"""


class Relay:
    def __init__(self, folder, *servers, more=""):
        self.folder, self.port, self.process = folder, free_port(), None
        self.config = folder / "relay.toml"
        tables = [SERVER.replace("NAME", server) for server in servers or (PLANT,)]
        config = CONFIG.replace("PORT", str(self.port)).replace("FOLDER", str(folder / "data"))
        self.config.write_text(config + "".join(tables) + more)
        self.log = folder / "relay.log"

    def start(self):
        with self.log.open("ab") as log:
            command = [FAKE, "relay", self.config]
            self.process = subprocess.Popen(command, stderr=log, stdout=log)
        wait_until("the relay serves", lambda: "Serving OPC UA." in self.text() or self.process.poll() is not None)
        assert self.process.poll() is None, self.text()
        return self

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.unlink(missing_ok=True)

    def text(self):
        return self.log.read_text() if self.log.exists() else ""

    def workers(self):
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def client(self):
        return Session(self.port)


class Session(Client):
    """A client that knows the namespaces of DA servers."""

    def __init__(self, port):
        super().__init__(f"opc.tcp://127.0.0.1:{port}", timeout=PATIENCE, tloop=client_loop())

    def namespace(self, server=PLANT):
        return self.get_namespace_index(f"urn:{platform.node()}:vedette-da-relay:{server}")

    def item(self, item, server=PLANT):
        return self.get_node(ua.NodeId(item, self.namespace(server), ua.NodeIdType.String))

    def folder(self, server=PLANT):
        return self.get_node(ua.NodeId(1, self.namespace(server)))

    def state(self, name, server=PLANT):
        namespace = self.namespace(server)
        return self.folder(server).get_child([f"{namespace}:{name}"])

    def read(self, item, server=PLANT):
        return self.item(item, server).read_data_value(raise_on_bad_status=False)

    def browse(self, node, at_most=0):
        description = ua.BrowseDescription(
            NodeId=node.nodeid, ReferenceTypeId=ua.NodeId(ua.ObjectIds.Organizes), IncludeSubtypes=True, ResultMask=63
        )
        parameters = ua.BrowseParameters(RequestedMaxReferencesPerNode=at_most, NodesToBrowse=[description])
        parameters.View.Timestamp = ua.get_win_epoch()
        return self.tloop.post(self.aio_obj.uaclient.browse(parameters))[0]

    def until_running(self, server=PLANT):
        wait_until(f"{server} is there", lambda: self.state("Connected", server).read_value())
        return self


class Changes:
    def __init__(self):
        self.values = {}

    def datachange_notification(self, node, value, data):
        self.values[node.nodeid.Identifier] = [*self.values.get(node.nodeid.Identifier, []), data.monitored_item.Value]

    def last(self, item):
        return self.values.get(item, [None])[-1]

    def status(self, item):
        return self.last(item) and status(self.last(item))

    def was(self, item, *statuses):
        """Whether it ever was one of them."""
        return any(status(value) in statuses for value in self.values.get(item, []))


def status(data_value):
    """Without the bits that say how it was queued, or which limit it is at."""
    return ua.status_codes.get_name_and_doc(data_value.StatusCode.value & 0xFFFF0000)[0]


@pytest.fixture
def make(tmp_path):
    relays = []

    def make(*servers, more=""):
        relays.append(Relay(tmp_path, *servers, more=more))
        return relays[-1].start()

    yield make
    for relay in relays:
        print(relay.text())
        relay.stop()


@pytest.fixture
def relay(make):
    return make()


@pytest.fixture
def client(relay):
    with relay.client() as client:
        yield client.until_running()


def test_an_item_is_there_before_any_browse(client):
    for item in ("Ramp.1", "a b.c/d[1]"):
        assert status(client.read(item)) == "Good", item
    assert client.namespace() == 2, "1 is the relay's own"
    assert status(client.read("No.Such.Item")) == "BadNodeIdUnknown"
    with pytest.raises(ua.uaerrors.BadNodeIdUnknown):
        client.item("No.Such.Item").read_browse_name()
    assert client.browse(client.item("No.Such.Item")).StatusCode.name == "BadNodeIdUnknown"


def test_every_type_comes_as_what_it_is(client):
    kinds = ua.VariantType
    expected = {
        "Bool": (kinds.Boolean, True), "I1": (kinds.SByte, -1), "U1": (kinds.Byte, 1), "I2": (kinds.Int16, -2),
        "U2": (kinds.UInt16, 2), "I4": (kinds.Int32, -4), "U4": (kinds.UInt32, 4), "I8": (kinds.Int64, -8),
        "U8": (kinds.UInt64, 8), "R4": (kinds.Float, 0.5), "R8": (kinds.Double, 0.25), "Cy": (kinds.Double, 12.3456),
        "Text": (kinds.String, "Süd"), "I4s": (kinds.Int32, [1, 2, 3]), "Texts": (kinds.String, ["a", "b"]),
        "Matrix": (kinds.Double, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
    }
    for name, (kind, value) in expected.items():
        read = client.read(f"Types.{name}")
        assert (read.Value.VariantType, read.Value.Value) == (kind, value), name
    assert client.read("Types.Date").Value.Value.replace(tzinfo=UTC) == datetime(2026, 1, 1, 18, tzinfo=UTC)
    empty = client.read("Types.Empty")
    assert (status(empty), empty.Value.Value) == ("Bad", None)


def test_qualities_and_times_are_judged(client):
    assert status(client.read("Quality.D8")) == "GoodLocalOverride"
    assert status(client.read("Quality.1C")) == "BadOutOfService"
    limited = client.read("Quality.56").StatusCode.value
    assert limited == ua.StatusCodes.UncertainEngineeringUnitsExceeded | 1 << 10 | 2 << 8
    now = datetime.now(UTC)
    for nonsense in ("0", "220000000000000000"):
        at = client.read(f"Time.{nonsense}").SourceTimestamp.replace(tzinfo=UTC)
        assert abs(at - now) < timedelta(minutes=5), "that of its arrival"


def test_viewers_only_look(tmp_path):
    relay = Relay(tmp_path)
    relay.config.write_text(relay.config.read_text().replace('"operator"', '"viewer"'))
    relay.start()
    try:
        with relay.client() as client:
            client.until_running()
            with pytest.raises(ua.uaerrors.BadUserAccessDenied):
                client.item("Level").write_value(1.0)
            level = client.item("Level")
            assert ua.AccessLevel.CurrentWrite not in level.get_user_access_level()
    finally:
        relay.stop()


def test_local_time_is_brought_to_utc(make):
    with make(PLANT, more='time_offset = "+01:00"').client() as client:
        client.until_running()
        at = client.read("Ramp.1").SourceTimestamp.replace(tzinfo=UTC)
        assert timedelta(minutes=55) < datetime.now(UTC) - at < timedelta(minutes=65)


def test_the_hierarchy_and_the_types_of_its_items(client):
    folder, namespace = client.folder(), client.namespace()
    assert folder in client.nodes.objects.get_children()
    names = [child.read_browse_name().Name for child in folder.get_children(ua.ObjectIds.Organizes)]
    assert names == ["Plant", "Big", "Level", "Valve", "Valve"], "one name is a branch and an item"
    ramp = client.nodes.objects.get_child([f"{namespace}:{name}" for name in (PLANT, "Plant", "Ramp")])
    assert ramp == client.item("Ramp.1")
    kinds = {"Level": "AnalogItemType", "Valve": "TwoStateDiscreteType", "Mode": "MultiStateDiscreteType", "Ramp.1": "DataItemType"}
    for item, kind in kinds.items():
        assert client.item(item).read_type_definition() == ua.NodeId(getattr(ua.ObjectIds, kind)), item
    branches = [child for child in folder.get_children() if child.nodeid.NodeIdType == ua.NodeIdType.ByteString]
    assert branches[0].get_parent() == folder
    references = folder.get_references(ua.ObjectIds.Organizes, ua.BrowseDirection.Forward)
    assert {reference.TypeDefinition.Identifier for reference in references} >= {ua.ObjectIds.AnalogItemType, ua.ObjectIds.FolderType}


def test_properties_become_what_ua_calls_them(client):
    level = client.item("Level")
    eu_range = level.get_child(["0:EURange"]).read_value()
    assert (eu_range.Low, eu_range.High) == (0, 100)
    assert level.get_child(["0:EngineeringUnits"]).read_value().DisplayName.Text == "bar"
    assert level.get_child([f"{client.namespace()}:Property 5001"]).read_value() == "made by nobody"
    assert level.read_description().Text == "About Level"
    assert level.read_data_type() == ua.NodeId(ua.ObjectIds.Double)
    assert level.read_attribute(ua.AttributeIds.MinimumSamplingInterval).Value.Value == 50
    access = {ua.AccessLevel.CurrentRead}
    assert client.item("ReadOnly").get_access_level() == access
    assert level.get_access_level() == access | {ua.AccessLevel.CurrentWrite}
    assert client.item("Valve").get_child(["0:TrueState"]).read_value().Text == "open"
    names = client.item("Mode").get_child(["0:EnumStrings"]).read_value()
    assert [name.Text for name in names] == ["off", "hand", "auto"]
    vendor = client.item("Quality.A5C0").get_child([f"{client.namespace()}:VendorQuality"])
    assert vendor.read_value() == 0xA5


def test_a_large_level_comes_page_by_page(client):
    big = client.folder().get_child([f"{client.namespace()}:Big"])
    first = client.browse(big, at_most=400)
    assert len(first.References) == 400 and first.ContinuationPoint, "long before the level is whole"
    items = {child.nodeid.Identifier for child in big.get_children()}
    assert items == {f"Big.{number}" for number in range(50_000)}


def test_writes_go_where_they_may(client):
    level = client.item("Level")
    level.write_value(42.5)
    assert level.read_value() == 42.5
    write = lambda node, value: client.tloop.post(client.aio_obj.uaclient.write(ua.WriteParameters([
        ua.WriteValue(node.nodeid, ua.AttributeIds.Value, Value=value)
    ])))[0].name
    value = lambda value: ua.DataValue(ua.Variant(value))
    assert write(level, value(1e9)) == "GoodClamped"
    assert level.read_value() == 100
    assert write(level, value("text")) == "BadTypeMismatch"
    assert write(level, ua.DataValue(ua.Variant(1.0), StatusCode=ua.StatusCode(ua.StatusCodes.Bad))) == "BadWriteNotSupported"
    assert write(client.item("ReadOnly"), value(1)) == "BadNotWritable"
    assert write(client.item("Ramp.1"), value(1)) == "BadNotWritable", "not on the list"
    assert write(client.folder(), value(1)) == "BadNotWritable"


def test_changes_come_as_they_are(client):
    changes = Changes()
    subscription = client.create_subscription(50, changes)
    subscription.subscribe_data_change([client.item("Ramp.1"), client.item("Static.5")], sampling_interval=100)
    wait_until("they come", lambda: len(changes.values.get("Ramp.1", [])) >= 20)
    values = [value for value in changes.values["Ramp.1"] if value.StatusCode.is_good()]
    steps = [(b.SourceTimestamp - a.SourceTimestamp).total_seconds() for a, b in zip(values, values[1:])]
    assert min(steps) > 0, "none is taken twice"
    assert all(b.Value.Value > a.Value.Value for a, b in zip(values, values[1:]))
    assert [value.Value.Value for value in changes.values["Static.5"] if value.StatusCode.is_good()] == [5]
    old = datetime.now(UTC) - changes.last("Static.5").SourceTimestamp.replace(tzinfo=UTC)
    assert old > timedelta(minutes=55), "when it changed, and not when it was read"
    with pytest.raises(ua.uaerrors.BadNodeIdUnknown):
        subscription.subscribe_data_change(client.item("No.Such.Item"))


@pytest.mark.parametrize("asked", [0, 50, 130, 1000])
def test_timestamps_are_those_of_the_da_server(client, asked):
    changes = Changes()
    subscription = client.create_subscription(50, changes)
    handle = subscription.subscribe_data_change(client.item("Stamp"), queuesize=10, sampling_interval=asked)
    good = lambda: [value for value in changes.values.get("Stamp", []) if value.StatusCode.is_good()]
    wait_until("they come", lambda: len(good()) >= 8)
    assert [value.SourceTimestamp for value in good()] == [ua.win_epoch_to_datetime(value.Value.Value) for value in good()]
    # Who modifies his item gets true ones or none.
    client.tloop.post(subscription.aio_obj.modify_monitored_item(handle, 100))
    before = len(good())
    wait_until("they come", lambda: len(good()) >= before + 20)
    both = [(value.SourceTimestamp, ua.win_epoch_to_datetime(value.Value.Value)) for value in good()]
    assert all(said in (None, true) for said, true in both), both
    assert any(said for said, _ in both[before:]) and len(both) == len({true for _, true in both})


def test_the_da_server_says_when_there_is_a_value(client):
    subscription = client.create_subscription(50, Changes())
    value = ua.ReadValueId(client.item("Ramp.1").nodeid, ua.AttributeIds.Value)
    items = [
        ua.MonitoredItemCreateRequest(
            value, ua.MonitoringMode.Reporting, ua.MonitoringParameters(ClientHandle=1, SamplingInterval=asked, QueueSize=1)
        )
        for asked in (0, 10, 1234.5, -1)
    ]
    parameters = ua.CreateMonitoredItemsParameters(subscription.aio_obj.subscription_id, ua.TimestampsToReturn.Both, items)
    results = client.tloop.post(client.aio_obj.uaclient.create_monitored_items(parameters))
    assert [result.RevisedSamplingInterval for result in results] == [0, 0, 0, -1]


def test_many_clients_share_one_group(relay, client):
    with relay.client() as other:
        for session in (client, other):
            subscription = session.create_subscription(50, Changes())
            subscription.subscribe_data_change([session.item(f"Ramp.{n}") for n in range(50)], sampling_interval=200)
        wait_until("it says so", lambda: client.state("Groups").read_value() == 1)
    client.create_subscription(50, Changes()).subscribe_data_change(client.item("Ramp.1"), sampling_interval=500)
    wait_until("another rate is another group", lambda: client.state("Groups").read_value() == 2)


@pytest.mark.parametrize(
    "what, why", [("die", "BadNotConnected"), ("garbage", "BadNotConnected"), ("shutdown", "BadNotConnected"), ("freeze", "BadNoCommunication"),
                  ("lost", "BadNotConnected")]
)
def test_a_server_that_fails_comes_back(client, what, why):
    changes = Changes()
    subscription = client.create_subscription(50, changes)
    subscription.subscribe_data_change([client.item(f"Ramp.{n}") for n in range(1500)] + [client.item("Static.5")])
    wait_until("all are there", lambda: sum(changes.status(f"Ramp.{n}") == "Good" for n in range(1500)) == 1500)
    wait_until("the other too", lambda: changes.status("Static.5") == "Good")
    try:
        client.item("Do").write_value(what)
    except ua.UaError:
        pass
    wait_until("they go bad", lambda: changes.was("Ramp.7", why) and changes.was("Static.5", why))
    assert status(client.read("No.Such.Item")) not in ("BadNodeIdUnknown", "Good") or client.state("Connected").read_value()
    wait_until("all come back", lambda: all(changes.status(f"Ramp.{n}") == "Good" for n in range(1500)))
    wait_until("what never changes as well", lambda: changes.status("Static.5") == "Good")
    assert client.state("Reconnects").read_value() == 1
    assert client.state("LastError").read_value()


def test_a_worker_that_is_killed_is_replaced(relay, client):
    changes = Changes()
    client.create_subscription(50, changes).subscribe_data_change(client.item("Ramp.1"))
    wait_until("it is there", lambda: changes.status("Ramp.1") == "Good")
    (worker,) = relay.workers()
    os.kill(worker, 9)
    wait_until("it goes bad", lambda: changes.was("Ramp.1", "BadNotConnected"))
    wait_until("it comes back", lambda: changes.status("Ramp.1") == "Good")
    assert relay.workers() != [worker]


def test_what_is_down_is_bad_and_never_unknown(make):
    relay = make(PLANT, "Fake.absent", "Fake.liar", "Fake.huge")
    with relay.client() as client:
        for server in ("Fake.absent", "Fake.liar", "Fake.huge"):
            read = status(client.read("Any.Item", server))
            assert read in ("BadNotConnected", "BadWaitingForInitialData"), server
            assert client.item("Any.Item", server).read_node_class() == ua.NodeClass.Variable
            changes = Changes()
            client.create_subscription(50, changes).subscribe_data_change(client.item("Any.Item", server))
            wait_until("it is bad", lambda: changes.was("Any.Item", "BadNotConnected", "BadWaitingForInitialData"))
            assert len(client.folder(server).get_children(ua.ObjectIds.HasComponent)) > 10, "it tells of itself"
        wait_until("why", lambda: "80080005" in client.state("LastError", "Fake.absent").read_value())
        # None of it concerns another.
        client.until_running()
        assert status(client.read("Ramp.1")) == "Good"


def test_a_client_that_comes_right_after_a_restart_needs_no_browse(make, tmp_path):
    relay = make("Fake.late")
    for _ in range(2):
        with relay.client() as client:
            changes = Changes()
            subscription = client.create_subscription(50, changes)
            subscription.subscribe_data_change([client.item("Ramp.1", "Fake.late"), client.item("Static.5", "Fake.late")])
            for item in ("Ramp.1", "Static.5"):
                wait_until("it comes", lambda: changes.status(item) == "Good")
        relay.stop()
        relay.start()


def test_a_new_server_in_the_place_of_the_old_has_no_items_of_before(relay, client):
    with relay.client() as other:
        other.create_subscription(50, Changes()).subscribe_data_change(other.item("Ramp.1"), sampling_interval=700)
        wait_until("it is a group", lambda: client.state("Groups").read_value() == 1)
    wait_until("it is gone with its client", lambda: client.state("Groups").read_value() == 0)


def references(node, direction=ua.BrowseDirection.Inverse):
    return [(reference.NodeId, reference.BrowseName.Name) for reference in node.get_references(direction=direction)]


def test_there_is_a_way_back_from_what_was_browsed(client):
    namespace = client.namespace()
    ramp, odd_name = client.item("Ramp.1"), client.item("a b.c/d[1]")
    assert references(ramp) == [] and ramp.read_browse_name().Name == "Ramp.1", "nobody has seen it yet"
    plant = client.folder().get_child(f"{namespace}:Plant")
    below = {child.nodeid.Identifier: child for child in plant.get_children()}
    assert references(ramp) == [(plant.nodeid, "Plant")] and ramp.get_parent() == plant
    assert ramp.read_browse_name().Name == ramp.read_display_name().Text == "Ramp", "as the browse called it"
    assert odd_name == below["a b.c/d[1]"] and odd_name.read_browse_name().Name == "c/d[1]"
    assert odd_name == plant.get_child([ua.QualifiedName("c/d[1]", namespace)])
    assert references(plant) == [(client.folder().nodeid, PLANT)]
    assert references(client.state("Vendor")) == [(client.folder().nodeid, PLANT)]
    level = client.item("Level")
    assert references(level.get_child("0:EURange"))[0][0] == level.nodeid
    # One name, twice: below the branch is an item, and the item has properties.
    twins = [child for child in client.folder().get_children() if child.read_browse_name().Name == "Valve"]
    assert {twin.read_node_class() for twin in twins} == {ua.NodeClass.Object, ua.NodeClass.Variable}
    assert client.folder().get_child([f"{namespace}:Valve", f"{namespace}:ReadOnly"]) == client.item("ReadOnly")
    assert client.folder().get_child([f"{namespace}:Valve", "0:TrueState"]).read_value().Text == "open"


def test_types_are_right_while_a_level_streams(client):
    big = client.folder().get_child(f"{client.namespace()}:Big")
    first = client.browse(big, at_most=150)
    assert {reference.TypeDefinition.Identifier for reference in first.References} == {ua.ObjectIds.AnalogItemType}
    assert first.ContinuationPoint
    # And a path does not wait for all of it.
    assert big.get_child(f"{client.namespace()}:49999") == client.item("Big.49999")
    with pytest.raises(ua.uaerrors.BadNoMatch):
        big.get_child(f"{client.namespace()}:50000")


def test_a_read_of_all_attributes_is_answered_one_by_one(client):
    nodes = [client.folder(), client.item("Level"), client.item("No.Such.Item"), client.item("Ramp.1")]
    wanted = [ua.ReadValueId(node.nodeid, ua.AttributeIds(number)) for node in nodes for number in range(1, 28)]
    values = client.tloop.post(client.aio_obj.uaclient.read(ua.ReadParameters(NodesToRead=wanted)))
    by_node = [values[at : at + 27] for at in range(0, len(values), 27)]
    assert [len(part) for part in by_node] == [27] * 4
    assert all(value.StatusCode.name in ("Good", "BadAttributeIdInvalid") for part in by_node[:2] for value in part)
    assert {value.StatusCode.name for value in by_node[2]} <= {"BadNodeIdUnknown"}
    assert by_node[1][12].Value.Value == client.read("Level").Value.Value
    with pytest.raises(ua.uaerrors.BadHistoryOperationUnsupported):
        client.item("Level").read_raw_history()


def test_thousands_of_unknown_items_are_taken_while_the_server_is_away(make):
    with make("Fake.absent", PLANT).client() as client:
        changes = Changes()
        subscription = client.create_subscription(200, changes)
        nodes = [client.item(f"Unknown.{number}", "Fake.absent") for number in range(5000)]
        for at in range(0, len(nodes), 500):
            items = subscription.subscribe_data_change(nodes[at : at + 500])
            assert [item for item in items if not isinstance(item, int)] == [], "each was taken"
        away = ("BadNotConnected", "BadWaitingForInitialData")
        wait_until("each is bad", lambda: all(changes.status(node.nodeid.Identifier) in away for node in nodes))
        # None of it concerns another.
        client.until_running()
        assert status(client.read("Ramp.1")) == "Good"


@pytest.mark.parametrize("what, states", [("freeze", {"frozen", "running"}), ("die", {"waiting", "running"})])
def test_the_state_is_told_as_it_is(client, what, states):
    changes = Changes()
    state, connected = client.state("State"), client.state("Connected")
    client.create_subscription(50, changes).subscribe_data_change([state, connected])
    seen = lambda node: [value.Value.Value for value in changes.values.get(node.nodeid.Identifier, [])]
    wait_until("it runs", lambda: "running" in seen(state))
    try:
        client.item("Do").write_value(what)
    except ua.UaError:
        pass
    wait_until("it says so", lambda: states <= set(seen(state)) and False in seen(connected))
    wait_until("and runs again", lambda: seen(state)[-1] == "running" and seen(connected)[-1])
    assert set(seen(state)) <= states | {"starting"}


def memory(relay) -> int:
    status = open(f"/proc/{relay.process.pid}/status").read()
    return int(status.split("VmRSS:")[1].split()[0]) << 10


def test_what_no_honest_server_says_harms_nobody(make):
    relay = make(PLANT, "Fake.other")
    with relay.client() as client:
        client.until_running()
        client.until_running("Fake.other")
        for name, expected in {
            "NaN": "Good", "Infinite": "Good", "Date": "Good", "Error": "Good", "Record": "BadNotSupported", "Deep": "Good",
            "Lies": "Good", "Nothing": "Good", "Huge": "Good", "Zeros": "Good", "Quality": "Bad", "Time": "Good",
        }.items():
            assert status(client.read(f"Odd.{name}")) == expected, name
        assert client.read("Odd.Lies").Value.Value == [1, 2, 3]
        changes, others = Changes(), Changes()
        odd = [client.item(f"Odd.{name}") for name in ("NaN", "Huge", "Deep", "Record", "Quality")]
        client.create_subscription(50, changes).subscribe_data_change([*odd, client.item("Ramp.1")])
        client.create_subscription(50, others).subscribe_data_change(client.item("Ramp.1", "Fake.other"))
        # Circles end; what is too long for a node is not there, what is long has a short name.
        namespace, node, depth = client.namespace(), client.folder().get_child(f"{client.namespace()}:Plant"), 0
        node = node.get_child(f"{namespace}:Odd")
        names = [len(child.read_browse_name().Name or "") for child in node.get_children()]
        assert sorted(names) == [0, 4, 5, 7, 512]
        while True:
            deeper = [below for below in client.browse(node).References if below.BrowseName.Name == "again"]
            if not deeper:
                break
            node, depth = client.get_node(deeper[0].NodeId), depth + 1
            assert depth < 1000
        assert depth > 20
        # Properties of 6 MB in all.
        assert len(client.item("Odd.Error").get_properties()) > 90
        # A million: the first are there at once, and the last is found.
        million = client.folder().get_child([f"{namespace}:{name}" for name in ("Plant", "Odd", "million")])
        assert len(client.browse(million, at_most=100).References) == 100

        def last():
            try:
                return million.get_child(f"{namespace}:999999")
            except ua.uaerrors.BadTimeout:
                return None

        assert wait_until("the last", last, 120) == client.item("Big.999999")
        # Callbacks without end: the newest still comes, here and elsewhere, and nothing piles up.
        client.item("Do").write_value("storm")
        before, seen = memory(relay), len(others.values["Ramp.1"])
        wait_until("others' values", lambda: len(others.values["Ramp.1"]) > seen + 50)
        now = changes.last("Ramp.1").Value.Value
        wait_until("its own", lambda: changes.last("Ramp.1").Value.Value > now)
        assert memory(relay) < before + (200 << 20)
        assert status(client.read("Level", "Fake.other")) == "Good"
        assert client.state("Reconnects", "Fake.other").read_value() == 0


APPLIANCE = """
[device]
name = "vedette-test"
[ua_server]
listen = "127.0.0.1:{port}"
insecure_on_loopback = true
anonymous = "operator"
[cameras]
discover = false
[[ua_client]]
name = "da"
url = "opc.tcp://127.0.0.1:RELAY"
user = "plc"
password = "as long as it takes"
[[ua_client.tag]]
name = "level"
node = "/Objects/Fake.Plant/Level"
"""


def test_the_appliance_comes_in_only_as_who_may(tmp_path, make_vedette):
    """Certificates first, then the password, then the role; each refusal says what helps."""
    relay = Relay(tmp_path)
    text = relay.config.read_text().replace('insecure_on_loopback = true\nanonymous = "operator"', "")
    relay.config.write_text(text)
    relay.start()
    tool = lambda *words, say="": subprocess.run(
        [FAKE, *words, "--config", relay.config], input=say, capture_output=True, text=True, check=True
    ).stdout
    vedette = make_vedette(APPLIANCE.replace("RELAY", str(relay.port)))
    try:
        vedette.start()
        advice = lambda text: wait_until("advice", lambda: re.search(r"`(\S+) trust ([0-9A-F]{40})", text())).groups()
        program, thumbprint = advice(vedette.text)
        assert program == "vedette"
        subprocess.run([BINARY, "trust", thumbprint, "--data-dir", vedette.data], check=True, capture_output=True)
        program, thumbprint = advice(relay.text)
        assert program == "fake_da" and thumbprint in tool("trust")
        wait_until("what to do there", lambda: "move it from its rejected to its trusted folder" in vedette.text())
        tool("trust", thumbprint)
        wait_until("nobody knows him", lambda: "BadUserAccessDenied" in vedette.text())
        tool("user", "add", "plc", "--role", "viewer", say="as long as it takes\n")
        with vedette.client() as client:
            level = client.get_node("ns=2;s=Tags/da/level")
            read = lambda: level.read_data_value(raise_on_bad_status=False)
            wait_until("the value", lambda: read().StatusCode.is_good() and read().Value.Value == 50.0)
            with pytest.raises(ua.UaStatusCodeError):
                level.write_value(ua.Variant(60.0, ua.VariantType.Double))
            tool("user", "remove", "plc")
            wait_until("he is out", lambda: read().StatusCode.is_bad())
        tool("user", "add", "plc", "--role", "operator", say="as long as it takes\n")
        # What it may it learns when it connects.
        vedette.stop()
        vedette.start()
        with vedette.client() as client:
            level = client.get_node("ns=2;s=Tags/da/level")
            wait_until("the value", lambda: read().StatusCode.is_good() and read().Value.Value == 50.0)
            level.write_value(ua.Variant(60.0, ua.VariantType.Double))
            wait_until("it is there", lambda: read().Value.Value == 60.0)
    finally:
        relay.stop()


@pytest.fixture
def make_vedette(tmp_path):
    made = []

    def make(config):
        folder = tmp_path / "box"
        folder.mkdir()
        made.append(Vedette(folder, config))
        return made[-1]

    yield make
    for vedette in made:
        vedette.stop()
