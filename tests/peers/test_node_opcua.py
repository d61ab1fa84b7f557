"""OPC UA, seen by node-opcua, the third independent stack."""

import base64

import pytest
from conftest import DEMO, ROOT, picture
from identities import trust

CRAWL = str(ROOT / "tests/peers/node/crawl.js")

IMAGE = "ns=2;s=Cameras/line1/Camera Image"
SIGNED = {"policy": "Basic256Sha256", "mode": "Sign"}
POLICIES = ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"]


@pytest.mark.parametrize("mode", ["Sign", "SignAndEncrypt"])
@pytest.mark.parametrize("policy", POLICIES)
def test_each_policy_and_mode(make, node, node_identity, policy, mode):
    vedette = make()
    trust(vedette, node_identity)
    vedette.start()
    size = node(vedette, policy=policy, mode=mode).run(
        "return (await session.read({nodeId: args.id, attributeId: 13})).value.value.length", id=IMAGE)
    assert size > 10_000


def test_an_unknown_client_is_refused(vedette, node):
    script = "return (await session.read({nodeId: 'i=2259', attributeId: 13})).value.value"
    with pytest.raises(AssertionError, match="(?i)security|rejected|certificate|disconnect"):
        node(vedette, policy="Basic256Sha256", mode="SignAndEncrypt").run(script)
    assert len(list((vedette.data / "pki/rejected").iterdir())) == 1


def test_all_that_there_is_fits_together(vedette, node):
    found = node(vedette).run("return await require(args.crawl)(session)", crawl=CRAWL)
    assert found["faults"] == []
    assert found["nodes"] > 1000 and found["pages"] > found["nodes"]


def test_values_are_read_and_written(vedette, node):
    script = """
        const {NumericRange} = require("node-opcua-numeric-range");
        const id = "ns=2;s=Tags/demo/set_point";
        const write = async (dataType, value) =>
            (await session.write({nodeId: id, attributeId: 13, value: {value: {dataType, value}}})).name;
        const statuses = [
            await write(ua.DataType.Double, 12.5),
            await write(ua.DataType.Double, 100.5),
            await write(ua.DataType.Int32, 5),
        ];
        const range = async (indexRange) => {
            const read = await session.read({nodeId: args.image, attributeId: 13, indexRange: new NumericRange(indexRange)});
            return [read.statusCode.name, read.value.value && read.value.value.toString("hex")];
        };
        return {
            statuses,
            value: (await session.read({nodeId: id, attributeId: 13})).value.value,
            both: (await session.readVariableValue([id, "i=2259"])).map((v) => v.value.value),
            begins: await range("0:1"),
            beyond: await range("99999999"),
            nowhere: (await session.read({nodeId: "ns=2;s=nowhere", attributeId: 13})).statusCode.name,
        };
    """
    found = node(vedette).run(script, image=IMAGE)
    assert found["statuses"] == ["Good", "BadOutOfRange", "BadTypeMismatch"]
    assert (found["value"], found["both"]) == (12.5, [12.5, 0])
    assert found["begins"] == ["Good", "ffd8"]
    assert found["beyond"][0] == "BadIndexRangeNoData"
    assert found["nowhere"] == "BadNodeIdUnknown"


SUBSCRIBE = """
    const subscription = await session.createSubscription2({
        requestedPublishingInterval: args.publishing, requestedLifetimeCount: 1000, requestedMaxKeepAliveCount: 10,
        maxNotificationsPerPublish: 0, publishingEnabled: true, priority: 0,
    });
    const filter = args.deadband && new ua.DataChangeFilter({
        trigger: ua.DataChangeTrigger.StatusValue, deadbandType: ua.DeadbandType[args.deadband], deadbandValue: args.by,
    });
    const item = await subscription.monitor(
        {nodeId: args.id, attributeId: 13},
        {samplingInterval: args.sampling, queueSize: args.queue ?? 1, discardOldest: true, filter},
        ua.TimestampsToReturn.Both,
    );
    if (!item.statusCode.isGood()) return item.statusCode.name;
    const values = [];
    await new Promise((enough) => item.on("changed", (value) => {
        values.push(value);
        if (values.length >= args.count) enough();
    }));
"""
NUMBERS = SUBSCRIBE + "return values.map((v) => [v.value.value, v.statusCode.name, v.sourceTimestamp.getTime()])"


def test_a_queue_keeps_what_was_sampled(vedette, node):
    counter = "ns=2;s=Tags/demo/counter"
    rows = node(vedette).run(NUMBERS, id=counter, publishing=1000, sampling=50, queue=30, count=20)
    counts = [row[0] for row in rows]
    gaps = [b - a for a, b in zip(counts, counts[1:])]
    # They were sent ten at a time; a busy machine may make the source skip one.
    assert all(gap >= 1 for gap in gaps) and gaps.count(1) > len(gaps) / 2, counts
    stamps = [row[2] for row in rows]
    assert stamps == sorted(set(stamps))

    rows = node(vedette).run(NUMBERS, id=counter, publishing=1000, sampling=50, queue=3, count=9)
    assert any("Overflow" in row[1] or row[1] != "Good" for row in rows[1:]), rows


@pytest.mark.parametrize("deadband, by, tag, least", [("Absolute", 5, "counter", 5), ("Percent", 0.5, "ramp", 0.5)])
def test_a_deadband_lets_only_what_is_more_through(vedette, node, deadband, by, tag, least):
    rows = node(vedette).run(
        NUMBERS, id=f"ns=2;s=Tags/demo/{tag}", publishing=50, sampling=50, deadband=deadband, by=by, count=4)
    values = [row[0] for row in rows]
    assert all(abs(b - a) > least for a, b in zip(values, values[1:])), values


def test_a_percent_deadband_needs_a_range(vedette, node):
    counter = "ns=2;s=Tags/demo/counter"
    status = node(vedette).run(NUMBERS, id=counter, publishing=50, sampling=50, deadband="Percent", by=1, count=1)
    assert status == "BadDeadbandFilterInvalid", "it has no EURange (OPC 10000-8, 6.2)"


def test_pictures_come_at_their_interval(vedette, node):
    script = SUBSCRIBE + "return values.map((v) => [v.value.value.toString('base64'), v.sourceTimestamp.getTime()])"
    rows = node(vedette).run(script, id=IMAGE, publishing=50, sampling=200, count=4)
    for data, _ in rows:
        assert picture(base64.b64decode(data)).size == (640, 480)
    stamps = [stamp for _, stamp in rows]
    assert all(b - a >= 199 for a, b in zip(stamps, stamps[1:])), stamps


def test_a_snapshot_is_made_to_measure(vedette, node):
    script = """
        const result = await session.call({
            objectId: "ns=2;s=Cameras/line1", methodId: "ns=2;s=Cameras/line1/Snapshot",
            inputArguments: [args.width, 0, 50].map((value) => ({dataType: ua.DataType.UInt32, value}))
                .concat({dataType: ua.DataType.String, value: "jpeg"}),
        });
        const definition = await session.getArgumentDefinition("ns=2;s=Cameras/line1/Snapshot");
        return {
            status: result.statusCode.name,
            picture: result.outputArguments?.[0]?.value?.toString("base64"),
            inputs: definition.inputArguments.map((argument) => argument.name),
        };
    """
    found = node(vedette).run(script, width=320)
    assert found["status"] == "Good" and picture(base64.b64decode(found["picture"])).size == (320, 240)
    assert found["inputs"] == ["Width", "Height", "Quality", "Format"]


def test_a_subscription_comes_back_after_a_restart_of_the_server(make, node):
    vedette = make(DEMO).start()
    script = SUBSCRIBE.replace("values.push(value);", "values.push(value); say(value.value.value ?? -1);") + "return null"
    client = node(vedette, retries=-1).start(
        script, id="ns=2;s=Tags/demo/counter", publishing=50, sampling=50, count=1_000_000)
    assert [client.hear() for _ in range(20)][-1] >= 19
    assert vedette.stop() == 0
    vedette.start()
    # The count begins anew with the server, and the client makes a new session, subscription and item by itself.
    while client.hear() > 10:
        pass
    assert [client.hear() for _ in range(5)]


@pytest.mark.parametrize("security, outcome", [({}, "BadUserAccessDenied"), (SIGNED, "Good")])
def test_a_subscription_moves_to_another_session(make, node, node_identity, security, outcome):
    """TransferSubscriptions, by hand, because node-opcua does it only for itself. Anybody could be anonymous, so without
    a certificate it is refused (OPC 10000-4, 5.14.7)."""
    vedette = make()
    trust(vedette, node_identity)
    script = """
        const subscription = (await session.createSubscription({
            requestedPublishingInterval: 50, requestedLifetimeCount: 1000, requestedMaxKeepAliveCount: 10,
            maxNotificationsPerPublish: 0, publishingEnabled: true, priority: 0,
        })).subscriptionId;
        await session.createMonitoredItems({
            subscriptionId: subscription, timestampsToReturn: ua.TimestampsToReturn.Both,
            itemsToCreate: [{
                itemToMonitor: {nodeId: "ns=2;s=Tags/demo/counter", attributeId: 13},
                monitoringMode: ua.MonitoringMode.Reporting,
                requestedParameters: {clientHandle: 42, samplingInterval: 50, queueSize: 1, discardOldest: true},
            }],
        });
        const other = await client.createSession();
        const moved = await other.transferSubscriptions({subscriptionIds: [subscription], sendInitialValues: true});
        const status = moved.results[0].statusCode.name;
        if (status !== "Good") return {status};
        const response = await new Promise((done, failed) => other.publish(
            new ua.PublishRequest({}), (error, response) => error ? failed(error) : done(response)));
        const item = response.notificationMessage.notificationData[0].monitoredItems[0];
        await other.close();
        return {status, of: response.subscriptionId === subscription, handle: item.clientHandle};
    """
    found = node(vedette.start(), **security).run(script)
    assert found == {"status": outcome, **({"of": True, "handle": 42} if security else {})}
