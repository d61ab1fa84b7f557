"""Tags of other OPC UA servers, through our program, as one of its own clients sees them."""

import re
import subprocess
import time

import pytest
from asyncua import ua
from asyncua.ua.uaerrors import UaStatusCodeError
from conftest import BINARY, free_port, wait_until
from ua_plant import NodePlant, Plant

SOURCE = """
[device]
name = "vedette-test"
[ua_server]
listen = "127.0.0.1:{port}"
insecure_on_loopback = true
anonymous = "operator"
[cameras]
discover = false
[[ua_client]]
name = "plant"
url = "PLANT"
silence = "3s"
"""
CLEAR = 'security_policy = "None"\n'
GROUP = """
[[ua_client.group]]
name = "default"
sampling_interval = "50ms"
publishing_interval = "100ms"
"""


def tag(name, node=None, more=""):
    return f'[[ua_client.tag]]\nname = "{name}"\nnode = "{node or "nsu=urn:plant;s=" + name}"\n{more}\n'


@pytest.fixture
def plant(tmp_path):
    folder = tmp_path / "plant"
    folder.mkdir()
    plant = Plant(folder, free_port())
    yield plant
    if plant.process:
        plant.thaw()
    plant.kill()


@pytest.fixture
def node_plant(tmp_path):
    folder = tmp_path / "node-plant"
    folder.mkdir()
    plant = NodePlant(folder, free_port())
    yield plant
    plant.kill()


class Eye:
    """Looks at tags of ours."""

    def __init__(self, vedette):
        self.client = vedette.client()
        self.client.connect()

    def node(self, name):
        return self.client.get_node(f"ns=2;s=Tags/plant/{name}")

    def look(self, name) -> ua.DataValue:
        try:
            return self.node(name).read_data_value(raise_on_bad_status=False)
        except UaStatusCodeError as error:
            return ua.DataValue(StatusCode=ua.StatusCode(error.code))

    def value(self, name):
        seen = self.look(name)
        return seen.Value.Value if seen.StatusCode is None or seen.StatusCode.is_good() else None

    def status(self, name) -> str:
        return self.look(name).StatusCode.name

    def waits_for(self, name, value, patience=30):
        wait_until(f"{name} is {value}, not {self.look(name)}", lambda: self.value(name) == value, patience)

    def waits_until_bad(self, name, *statuses, patience=30):
        is_so = lambda: self.look(name).StatusCode.is_bad() and (not statuses or self.status(name) in statuses)
        wait_until(f"{name} is bad ({statuses})", is_so, patience)
        return self.status(name)


@pytest.fixture
def eyes():
    made = []

    def factory(vedette):
        made.append(Eye(vedette))
        return made[-1]

    yield factory
    for eye in made:
        eye.client.disconnect()


@pytest.fixture
def run(make, plant, eyes):
    """Starts the program with these lines of [[ua_client]]."""

    def factory(lines, plant=plant):
        vedette = make(SOURCE.replace("PLANT", plant.url) + lines).start()
        return vedette, eyes(vedette)

    return factory


def test_values_come_with_type_unit_and_time_and_writes_go(run, plant):
    plant.start()
    tags = tag("Speed") + tag("by path", "/Objects/Plant/Count") + tag("Text") + tag("Profile") + tag("Loose")
    _, eye = run(CLEAR + GROUP + tags)
    eye.waits_for("Speed", 1.5)
    eye.waits_for("by path", 7)
    eye.waits_for("Text", "Füllstand")
    eye.waits_for("Profile", [1.0, 2.0])
    eye.waits_for("Loose", 3)
    speed = eye.node("Speed")
    assert speed.read_data_type() == ua.NodeId(11)
    assert speed.get_child("0:EURange").read_value() == ua.Range(0, 100)
    assert speed.get_child("0:EngineeringUnits").read_value().DisplayName.Text == "rpm"
    assert speed.read_description().Text == "How fast it turns"
    assert eye.node("by path").read_data_type() == ua.NodeId(7)
    wait_until("the first value told the type", lambda: eye.node("Loose").read_data_type() == ua.NodeId(4))
    # Its time is that of the server.
    plant.do(
        "import datetime\n"
        "time = datetime.datetime(1999, 12, 31, 12, tzinfo=datetime.timezone.utc)\n"
        "await plant.nodes['Count'].write_value(ua.DataValue(ua.Variant(8, ua.VariantType.UInt32), SourceTimestamp=time))"
    )
    eye.waits_for("by path", 8)
    assert eye.look("by path").SourceTimestamp.year == 1999
    # Writes.
    speed.write_value(ua.DataValue(ua.Variant(42.5, ua.VariantType.Double)))
    assert plant.do("return await plant.nodes['Speed'].read_value()") == 42.5
    eye.waits_for("Speed", 42.5)
    with pytest.raises(UaStatusCodeError) as refused:
        eye.node("by path").write_value(ua.DataValue(ua.Variant(1, ua.VariantType.UInt32)))
    assert refused.value.code in (ua.StatusCodes.BadNotWritable, ua.StatusCodes.BadUserAccessDenied)
    # A status is the server's.
    plant.do(
        "await plant.nodes['Count'].write_value(ua.DataValue(ua.Variant(9, ua.VariantType.UInt32),"
        " StatusCode=ua.StatusCode(ua.StatusCodes.BadSensorFailure)))"
    )
    eye.waits_until_bad("by path", "BadSensorFailure")
    assert eye.value("status/connected") is True
    wait_until("the counts", lambda: (eye.value("status/items_good"), eye.value("status/items_bad")) == (4, 1))
    wait_until("the clocks agree", lambda: abs(eye.value("status/clock_offset") or 99) < 5)


def test_a_server_is_believed_when_its_certificate_is(run, plant):
    plant.start(secure=True, users=True)
    (plant.folder / "password").write_text("secret\n")
    login = f'user = "op"\npassword_file = "{plant.folder}/password"\n'
    vedette, eye = run(login + GROUP + tag("Speed"))
    wait_until("it says how to trust", lambda: re.search(r"vedette trust ([0-9A-F]{40})", vedette.text()))
    assert eye.look("Speed").StatusCode.is_bad()
    thumbprint = re.search(r"vedette trust ([0-9A-F]{40})", vedette.text()).group(1)
    time.sleep(5)
    assert vedette.text().count(thumbprint) == 1, "said more than once"
    subprocess.run([BINARY, "trust", thumbprint, "--config", vedette.config, "--data-dir", vedette.data], check=True)
    eye.waits_for("Speed", 1.5)
    eye.node("Speed").write_value(ua.DataValue(ua.Variant(2.5, ua.VariantType.Double)))
    eye.waits_for("Speed", 2.5)


def test_a_wrong_password_is_said_and_none_is_never_chosen(run, plant):
    plant.start()
    vedette, eye = run(tag("Speed"))
    wait_until("the reason", lambda: vedette.says("offers no endpoint with"))
    assert "None" in vedette.text() and eye.look("Speed").StatusCode.is_bad()


def test_a_rule_finds_all_and_bad_nodes_are_alone(run, plant):
    plant.start(tags=120)
    rule = '[[ua_client.rule]]\nbelow = "/Objects/Plant"\nmatch = "*Temp*"\ntypes = ["Double"]\nfolder = "all"\n'
    vedette, eye = run(CLEAR + GROUP + rule + tag("absent", "nsu=urn:plant;s=Nowhere") + tag("Speed") + tag("no", "/Objects/No"))
    eye.waits_for("Speed", 1.5)
    eye.waits_for("all/Temperatures/Temp119", 119.0)
    assert eye.waits_until_bad("absent") == "BadNodeIdUnknown"
    assert eye.waits_until_bad("no") == "BadNoMatch"
    wait_until("the counts", lambda: (eye.value("status/items_good"), eye.value("status/items_bad")) == (121, 2))
    # What comes later is there later, without a restart of anybody.
    plant.do("await add('Nowhere', 5.0, ua.VariantType.Double)")
    eye.waits_for("absent", 5.0, patience=60)


def test_a_restart_with_other_indices_and_late_nodes_changes_nothing(run, plant):
    plant.start(tags=3)
    rule = '[[ua_client.rule]]\nbelow = "nsu=urn:plant;s=Temperatures"\n'
    vedette, eye = run(CLEAR + GROUP + rule + tag("Speed") + tag("Count", "/Objects/Plant/Count"))
    eye.waits_for("Speed", 1.5)
    eye.waits_for("Temp2", 2.0)
    plant.kill()
    eye.waits_until_bad("Speed")
    eye.waits_until_bad("Temp2")
    assert eye.look("status/connected").Value.Value is False
    assert eye.value("status/last_error")
    plant.start(before=["urn:another", "urn:third"], bare=True, tags=0)
    wait_until("it is back", lambda: eye.value("status/connected"))
    eye.waits_until_bad("Speed", "BadNodeIdUnknown")
    plant.do("await add('Speed', 6.5, ua.VariantType.Double)")
    plant.do("await add('Count', 9, ua.VariantType.UInt32)")
    plant.do(
        "temperatures = server.get_node(ua.NodeId('Temperatures', plant.index))\n"
        "await add('Temp2', 22.0, ua.VariantType.Double, temperatures)"
    )
    eye.waits_for("Speed", 6.5, patience=60)
    eye.waits_for("Count", 9, patience=60)
    eye.waits_for("Temp2", 22.0, patience=60)
    assert eye.value("status/reconnects") == 1
    assert vedette.process.poll() is None


TWIN = """
index = await server.register_namespace("urn:{uri}")
folder = server.get_node(ua.NodeId("{below}", plant.index))
await folder.add_variable(ua.NodeId("{below}.{id}", index), f"{{index}}:{id}", {value})
"""


def test_rules_that_come_to_one_name_make_tags_of_their_own(run, plant):
    """Two rules; two namespaces; a restart in another order, and one where the first is missing."""
    plant.start(bare=True)
    plant.do("await plant.folder.add_folder(ua.NodeId('Other', plant.index), f'{plant.index}:Other')")
    a = TWIN.format(uri="a", below="Temperatures", id="Temp", value=1.0)
    b = TWIN.format(uri="b", below="Temperatures", id="Temp", value=2.0)
    c = TWIN.format(uri="b", below="Other", id="Temp", value=3.0)
    plant.do(c), plant.do(b), plant.do(a)
    rules = "".join(f'[[ua_client.rule]]\nbelow = "nsu=urn:plant;s={one}"\n' for one in ("Temperatures", "Other"))
    _, eye = run('rescan = "2s"\n' + CLEAR + GROUP + rules)
    # By URI and identifier: Other.Temp of b is before Temperatures.Temp of b.
    expected = {"Temp": 1.0, "Temp~2": 3.0, "Temp~3": 2.0}
    for name, value in expected.items():
        eye.waits_for(name, value)
    plant.kill()
    eye.waits_until_bad("Temp")
    plant.start(bare=True, before=["urn:b"])
    plant.do("await plant.folder.add_folder(ua.NodeId('Other', plant.index), f'{plant.index}:Other')")
    plant.do(b), plant.do(c)
    eye.waits_for("Temp~3", 2.0, patience=60)
    assert eye.waits_until_bad("Temp") == "BadNodeIdUnknown"
    plant.do(a)
    for name, value in expected.items():
        eye.waits_for(name, value, patience=60)


def test_a_variable_that_gets_children_keeps_its_tag(run, plant):
    plant.start(bare=True)
    plant.do("await add('b', 5.0, ua.VariantType.Double)")
    _, eye = run('rescan = "2s"\n' + CLEAR + GROUP + ALL)
    eye.waits_for("b", 5.0)
    plant.kill()
    eye.waits_until_bad("b")
    plant.start(bare=True)
    plant.do("await add('c', 7.0, ua.VariantType.Double, await add('b', 6.0, ua.VariantType.Double))")
    eye.waits_for("b", 6.0, patience=60)
    eye.waits_for("b~2/c", 7.0, patience=60)


def test_a_namespace_that_comes_late_is_known(run, plant):
    plant.start(bare=True)
    _, eye = run(CLEAR + GROUP + tag("late", "nsu=urn:late;s=Temperatures.late"))
    assert eye.waits_until_bad("late", "BadNodeIdUnknown")
    plant.do(TWIN.format(uri="late", below="Temperatures", id="late", value=42.0))
    eye.waits_for("late", 42.0, patience=60)
    assert eye.value("status/reconnects") == 0


def events(eye):
    return eye.client.get_node("ns=2;s=Device/Events").read_value()


def test_a_large_value_is_taken_and_one_that_is_too_large_is_no_storm(run, plant):
    plant.start()
    plant.do("await add('big', [1] * 1_200_000, ua.VariantType.Byte)")
    vedette, eye = run(CLEAR + GROUP + tag("big") + tag("Speed"))
    eye.waits_for("Speed", 1.5)
    wait_until("the large value", lambda: len(eye.value("big") or b"") == 1_200_000)
    before = vedette.text().count("Connected.")
    plant.do("await plant.nodes['big'].write_value(ua.Variant([1] * 5_000_000, ua.VariantType.Byte))")
    eye.waits_until_bad("Speed")
    wait_until("it has tried again", lambda: vedette.text().count("Connected.") >= before + 3, 60)
    assert sum("is lost" in line for line in events(eye)) == 1
    assert not any("is back" in line for line in events(eye))
    plant.do("await plant.nodes['big'].write_value(ua.Variant([1, 2], ua.VariantType.Byte))")
    eye.waits_for("Speed", 1.5, patience=60)
    wait_until("it is said", lambda: sum("is back" in line for line in events(eye)) == 1)


def test_events_that_are_refused_once_come_later(run, plant):
    plant.start()
    plant.do(
        "from asyncua.server.subscription_service import SubscriptionService as S\n"
        "plant.generator, plant.refused, original = await server.get_event_generator(), 0, S.create_subscription\n"
        "async def create(self, params, *a, **k):\n"
        "    if params.RequestedPublishingInterval == 1000 and not plant.refused:\n"
        "        plant.refused += 1\n"
        "        raise ua.uaerrors.BadTooManySubscriptions\n"
        "    return await original(self, params, *a, **k)\n"
        "S.create_subscription = create"
    )
    vedette, eye = run(CLEAR + "events = true\n" + GROUP + tag("Speed"))
    eye.waits_for("Speed", 1.5)
    wait_until("it is said", lambda: vedette.says("does not tell its events"))

    def told():
        plant.do("plant.generator.event.Message = ua.LocalizedText('the belt is torn')\nawait plant.generator.trigger()")
        return any("the belt is torn" in line for line in events(eye))

    wait_until("the event", told, 60)
    assert plant.do("return plant.refused") == 1


def test_a_frozen_server_is_noticed_and_comes_back(run, plant):
    plant.start()
    vedette, eye = run(CLEAR + GROUP + tag("Speed"))
    eye.waits_for("Speed", 1.5)
    plant.freeze()
    eye.waits_until_bad("Speed")
    assert vedette.says("silent")
    plant.thaw()
    eye.waits_for("Speed", 1.5)


def test_a_start_before_the_server_works(run, plant):
    vedette, eye = run(CLEAR + GROUP + tag("Speed"))
    assert eye.look("Speed").StatusCode.is_bad()
    wait_until("it is said", lambda: vedette.says("cannot reach"))
    plant.start()
    eye.waits_for("Speed", 1.5)
    assert vedette.stop() == 0


def test_a_session_that_delivers_nothing_is_made_anew(run, plant):
    """It answers reads, but never a Publish."""
    plant.start()
    vedette, eye = run(CLEAR + GROUP + tag("Speed"))
    eye.waits_for("Speed", 1.5)
    plant.do(
        "from asyncua.server.internal_subscription import InternalSubscription as S\n"
        "plant.publish = S.publish_results\n"
        "async def nothing(self, *a, **k): pass\n"
        "S.publish_results = nothing"
    )
    eye.waits_until_bad("Speed", patience=60)
    assert vedette.says("delivers nothing")
    plant.do("from asyncua.server.internal_subscription import InternalSubscription as S\nS.publish_results = plant.publish")
    eye.waits_for("Speed", 1.5, patience=60)


ALL = '[[ua_client.rule]]\nbelow = "nsu=urn:plant;s=Plant"\n'

LOSSY = """
from asyncua.server.uaprocessor import UaProcessor
plant.forward, plant.skip = UaProcessor.forward_publish_response, 0
async def forward(self, result, requestdata):
    if plant.skip and result.NotificationMessage.NotificationData:
        plant.skip -= 1
        response = ua.ServiceFault()
        response.ResponseHeader.ServiceResult = ua.StatusCode(ua.StatusCodes.BadResponseTooLarge)
        self.send_response(requestdata.requesthdr.RequestHandle, requestdata.seqhdr, response)
        return
    return await plant.forward(self, result, requestdata)
UaProcessor.forward_publish_response = forward
"""


def test_a_notification_that_is_lost_is_noticed(run, plant):
    plant.start()
    plant.do(LOSSY)
    vedette, eye = run(CLEAR + GROUP + tag("Speed") + tag("Count"))
    eye.waits_for("Speed", 1.5)
    eye.waits_for("Count", 7)
    plant.do("plant.skip = 1\nawait plant.nodes['Speed'].write_value(99.0)")
    # Nothing else changes: the next sign of life says which number should have come.
    eye.waits_for("Speed", 99.0, patience=30)
    assert vedette.says("a notification was lost on the way")
    assert eye.value("status/reconnects") == 1


def test_a_node_that_goes_without_a_word_is_missed(run, plant):
    plant.start()
    plant.do("await add('N0', 1.0, ua.VariantType.Double)")
    _, eye = run('rescan = "3s"\n' + CLEAR + GROUP + ALL + tag("one", "nsu=urn:plant;s=N0"))
    eye.waits_for("N0", 1.0)
    eye.waits_for("one", 1.0)
    plant.do(
        "node = server.iserver.aspace._nodes[plant.nodes['N0'].nodeid]\n"
        "node.attributes[ua.AttributeIds.Value].datachange_callbacks.clear()\n"
        "await server.delete_nodes([plant.nodes['N0']])"
    )
    assert eye.waits_until_bad("N0") == eye.waits_until_bad("one") == "BadNodeIdUnknown"
    plant.do("await add('N0', 'other', ua.VariantType.String)")
    eye.waits_for("N0", "other", patience=60)
    eye.waits_for("one", "other", patience=60)


def test_a_server_that_takes_little_at_once_is_served_little(run, node_plant):
    limits = {
        "maxNodesPerRead": 3, "maxNodesPerBrowse": 2, "maxNodesPerWrite": 1, "maxMonitoredItemsPerCall": 5,
        "maxNodesPerTranslateBrowsePathsToNodeIds": 1,
    }
    node_plant.start(tags=150, limits=limits)
    _, eye = run(CLEAR + GROUP + ALL + tag("by path", "/Objects/Plant/Temp7"), node_plant)
    eye.waits_for("Temp149", 149.0, patience=60)
    eye.waits_for("by path", 7.0)
    wait_until("all", lambda: (eye.value("status/items_good"), eye.value("status/items_bad")) == (153, 0))


def test_a_full_queue_and_a_strange_clock_are_shown(run, node_plant):
    years = 1000 * 3600 * 24 * 365 * 3
    node_plant.start(clock=years)
    group = GROUP.replace('publishing_interval = "100ms"', 'publishing_interval = "1s"') + "queue_size = 2\n"
    vedette, eye = run(CLEAR + group + tag("Fast"), node_plant)
    eye.waits_for("Fast", 0.0)
    node_plant.do(
        "let value = 0;"
        "setInterval(() => nodes.Fast.setValueFromSource({ dataType: ua.DataType.Double, value: ++value }), 60);"
    )
    wait_until("overflows", lambda: (eye.value("status/overflows") or 0) > 3)
    wait_until("the offset", lambda: abs((eye.value("status/clock_offset") or 0) - years / 1000) < 60)
    assert vedette.says("clock is far")
    wait_until("their time", lambda: eye.look("Fast").SourceTimestamp.year >= time.gmtime().tm_year + 2)


def test_small_changes_stay_away_where_a_deadband_is_taken(run, node_plant):
    node_plant.start()
    _, eye = run(CLEAR + GROUP + 'deadband = "10%"\n' + tag("Level") + tag("Fast"), node_plant)
    eye.waits_for("Level", 50.0)
    # It has no range, so its deadband is left away.
    eye.waits_for("Fast", 0.0)
    level = "nodes.Level.setValueFromSource({{ dataType: ua.DataType.Double, value: {} }})"
    node_plant.do(level.format(55))
    node_plant.do("nodes.Fast.setValueFromSource({ dataType: ua.DataType.Double, value: 1 })")
    eye.waits_for("Fast", 1.0)
    assert eye.value("Level") == 50.0
    node_plant.do(level.format(65))
    eye.waits_for("Level", 65.0)


def test_events_of_the_server_are_ours(run, node_plant):
    node_plant.start()
    vedette, eye = run(CLEAR + "events = true\n" + GROUP + tag("Level"), node_plant)
    eye.waits_for("Level", 50.0)

    def told():
        node_plant.do(
            "server.engine.addressSpace.rootFolder.objects.server.raiseEvent('SystemEventType', {"
            " message: { dataType: ua.DataType.LocalizedText, value: { text: 'the belt is torn' } },"
            " severity: { dataType: ua.DataType.UInt16, value: 812 } });"
        )
        lines = eye.client.get_node("ns=2;s=Device/Events").read_value()
        return any("the belt is torn" in line for line in lines)

    wait_until("the event", told)


def test_a_write_is_read_back_where_that_is_wanted(run, plant):
    plant.start()
    _, eye = run(CLEAR + "read_back = true\n" + GROUP + tag("Speed"))
    eye.waits_for("Speed", 1.5)
    eye.node("Speed").write_value(ua.DataValue(ua.Variant(2.0, ua.VariantType.Double)))
    # A server that takes it and thinks otherwise.
    plant.do(
        "from asyncua.server.address_space import AttributeService as S\n"
        "async def write(self, params, *a, **k): return [ua.StatusCode()] * len(params.NodesToWrite)\n"
        "S.write = write"
    )
    with pytest.raises(UaStatusCodeError) as refused:
        eye.node("Speed").write_value(ua.DataValue(ua.Variant(3.0, ua.VariantType.Double)))
    assert refused.value.code == ua.StatusCodes.BadInvalidState


def test_one_certificate_may_be_named_and_then_no_other_will_do(run, plant):
    plant.start(secure=True)
    pinned = f'security_mode = "Sign"\nserver_certificate = "{plant.folder}/named.pem"\n'
    vedette, eye = run(pinned + GROUP + tag("Speed"))
    wait_until("it is missing", lambda: vedette.says("named.pem"))
    (plant.folder / "named.pem").write_bytes((vedette.data / "pki/own/cert.der").read_bytes())
    wait_until("it is another", lambda: vedette.says("not the one in `server_certificate`"))
    (plant.folder / "named.pem").write_bytes((plant.folder / "cert.der").read_bytes())
    eye.waits_for("Speed", 1.5)
