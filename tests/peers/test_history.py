"""HistoryRead, seen by asyncua and node-opcua: samples, aggregates and pictures, over restarts and a kill."""

import math
import signal
import time
from datetime import datetime, timedelta, timezone

import pytest
from asyncua import ua
from conftest import DEMO, ROOT, child, picture, wait_until

HISTORY = """
[store]
commit_interval = "50ms"
[history]
tags = ["demo/**", "system/uptime"]
cameras = ["line1"]
snapshots = 3
"""

SINE = ("Tags", "demo", "sine")


@pytest.fixture
def vedette(make):
    return make(DEMO + HISTORY).start()


def service(client, details, node, point=None, release=False, timestamps=ua.TimestampsToReturn.Both, index_range=""):
    """The bare service: a HistoryReadResult for each node."""
    nodes = node if isinstance(node, list) else [node]
    params = ua.HistoryReadParameters()
    params.HistoryReadDetails = details
    params.TimestampsToReturn = timestamps
    params.ReleaseContinuationPoints = release
    for each in nodes:
        value = ua.HistoryReadValueId()
        value.NodeId = each.nodeid
        value.IndexRange = index_range
        value.ContinuationPoint = point
        params.NodesToRead.append(value)
    results = client.tloop.post(client.aio_obj.uaclient.history_read(params))
    return results if isinstance(node, list) else results[0]


def raw(start=None, end=None, number=0, bounds=False, modified=False):
    details = ua.ReadRawModifiedDetails()
    details.IsReadModified = modified
    details.StartTime = start or ua.get_win_epoch()
    details.EndTime = end or ua.get_win_epoch()
    details.NumValuesPerNode = number
    details.ReturnBounds = bounds
    return details


def processed(start, end, interval, *aggregates):
    details = ua.ReadProcessedDetails()
    details.StartTime, details.EndTime, details.ProcessingInterval = start, end, interval
    details.AggregateType = [ua.NodeId(getattr(ua.ObjectIds, f"AggregateFunction_{name}")) for name in aggregates]
    details.AggregateConfiguration.UseServerCapabilitiesDefaults = True
    return details


def values(result):
    return result.HistoryData.DataValues


def times(result):
    return [value.SourceTimestamp for value in (values(result) if hasattr(result, "HistoryData") else result)]


LONG_AGO = datetime(2000, 1, 1, tzinfo=timezone.utc)


def far():
    return datetime.now(timezone.utc) + timedelta(hours=1)


def whole(client, *path):
    return child(client.nodes.objects, *path).read_raw_history(LONG_AGO, far(), 0, False)


def filled(client, count=40, path=SINE):
    """A span with so many samples: the node, the samples, and begin and end of it, just outside: asyncua
    rounds times by way of a float, to a microsecond or two. src/sinks/ua_server/history/raw.rs tests the exact ends."""
    node = child(client.nodes.objects, *path)
    wait_until(f"{count} samples", lambda: len(whole(client, *path)) >= count)
    kept = whole(client, *path)[:count]
    margin = timedelta(microseconds=10)
    return node, kept, kept[0].SourceTimestamp - margin, kept[-1].SourceTimestamp + margin


def status(result):
    return ua.status_codes.get_name_and_doc(result.StatusCode.value)[0]


def test_samples_are_all_there_in_order_and_backward_too(vedette):
    with vedette.client() as client:
        node, kept, first, last = filled(client)
        assert all(a < b for a, b in zip(times(kept), times(kept)[1:])), "in order"
        gaps = [(b - a).total_seconds() for a, b in zip(times(kept), times(kept)[1:])]
        assert sum(gaps) / len(gaps) < 0.2, f"each of the samples, which come every 100 ms: {gaps}"
        assert all(value.StatusCode.is_good() and value.ServerTimestamp for value in kept)

        assert times(service(client, raw(first, last), node)) == times(kept)
        assert times(service(client, raw(last, first), node)) == times(kept)[::-1]
        assert times(service(client, raw(first, number=5), node)) == times(kept)[:5]
        assert times(service(client, raw(end=last, number=5), node)) == times(kept)[:-6:-1]


def test_pages_give_the_same_and_can_be_given_up(vedette):
    with vedette.client() as client:
        node, kept, first, last = filled(client)
        for start, end, expected in [(first, last, times(kept)), (last, first, times(kept)[::-1])]:
            details, got, point, pages = raw(start, end, 7), [], None, 0
            while True:
                result = service(client, details, node, point)
                got += times(result)
                pages += 1
                point = result.ContinuationPoint
                if not point:
                    break
                assert len(values(result)) == 7
            assert got == expected and pages == 6
        # Given up.
        details = raw(first, last, 7)
        point = service(client, details, node).ContinuationPoint
        assert status(service(client, details, node, point, release=True)) == "Good"
        assert status(service(client, details, node, point)) == "BadContinuationPointInvalid"
        # As many as the server says, and no more.
        limit = client.get_node(ua.NodeId(ua.ObjectIds.Server_ServerCapabilities_MaxHistoryContinuationPoints)).read_value()
        said = [status(service(client, details, node)) for _ in range(limit + 1)]
        assert said == ["Good"] * limit + ["BadNoContinuationPoints"]


def test_bounds(vedette):
    with vedette.client() as client:
        node, kept, first, last = filled(client)
        tick = timedelta(milliseconds=1)
        # The neighbours.
        between = raw(kept[1].SourceTimestamp + tick, kept[3].SourceTimestamp + tick, bounds=True)
        assert times(service(client, between, node)) == times(kept)[1:5]
        backward = raw(kept[3].SourceTimestamp + tick, kept[1].SourceTimestamp + tick, bounds=True)
        assert times(service(client, backward, node)) == times(kept)[4:0:-1]
        # Nothing outside.
        before = service(client, raw(LONG_AGO, kept[1].SourceTimestamp - tick, bounds=True), node)
        none = values(before)[0]
        assert none.SourceTimestamp == LONG_AGO and none.Value.Value is None
        assert ua.status_codes.get_name_and_doc(none.StatusCode.value)[0] == "BadBoundNotFound"
        assert times(before)[1:] == times(kept)[:2]
        pages = service(client, raw(kept[1].SourceTimestamp + tick, kept[3].SourceTimestamp - tick, 2, bounds=True), node)
        rest = service(client, raw(kept[1].SourceTimestamp + tick, kept[3].SourceTimestamp - tick, 2, bounds=True), node,
                       pages.ContinuationPoint)
        assert times(pages) + times(rest) == times(kept)[1:4] and not rest.ContinuationPoint


def test_what_cannot_be_asked_is_refused_with_its_reason(vedette):
    with vedette.client() as client:
        node, kept, first, last = filled(client, 10)
        assert status(service(client, raw(first), node)) == "BadHistoryOperationInvalid"
        assert status(service(client, raw(number=5), node)) == "BadHistoryOperationInvalid"
        assert status(service(client, raw(first, last, modified=True), node)) == "BadHistoryOperationUnsupported"
        nothing = service(client, raw(LONG_AGO, LONG_AGO + timedelta(1)), node)
        assert (status(nothing), values(nothing)) == ("GoodNoData", [])
        neither = service(client, raw(first, last), node, timestamps=ua.TimestampsToReturn.Neither)
        assert status(neither) == "BadTimestampsToReturnInvalid"
        source = values(service(client, raw(first, last), node, timestamps=ua.TimestampsToReturn.Source))[0]
        assert source.SourceTimestamp and not source.ServerTimestamp
        server = values(service(client, raw(first, last), node, timestamps=ua.TimestampsToReturn.Server))[0]
        assert server.ServerTimestamp and not server.SourceTimestamp
        other = child(client.nodes.objects, "Tags", "system", "memory", "total")
        assert not status(service(client, raw(first, last), other)).startswith("Good")

        def refused(details, *nodes):
            return status(service(client, details, list(nodes) or [node])[0])

        assert refused(processed(first, last, 100, "AnnotationCount")) == "BadAggregateNotSupported"
        assert refused(processed(first, last, 100, "Average", "Count")) != "Good"
        assert refused(processed(first, last, 100, "Average"), node, node) == "BadAggregateListMismatch"
        assert refused(processed(first, first, 100, "Average")) == "BadInvalidArgument"
        assert refused(processed(first, last, -1, "Average")) == "BadInvalidArgument"
        details = processed(first, last, 100, "Average")
        details.AggregateConfiguration.UseServerCapabilitiesDefaults = False
        details.AggregateConfiguration.PercentDataGood = 10
        details.AggregateConfiguration.PercentDataBad = 10
        assert refused(details) == "BadAggregateConfigurationRejected"


def test_aggregates_are_what_the_samples_give(vedette):
    with vedette.client() as client:
        node, kept, first, _ = filled(client, 60)
        first = first.replace(microsecond=0) + timedelta(seconds=1)
        length, count = timedelta(seconds=1), 4
        end = first + count * length

        def inside(index):
            begin = first + index * length
            return [v.Value.Value for v in kept if begin <= v.SourceTimestamp < begin + length]

        expected = {
            "Average": lambda all: sum(all) / len(all),
            "Minimum": min,
            "Maximum": max,
            "Count": len,
            "Range": lambda all: max(all) - min(all),
            "Start": lambda all: all[0],
            "End": lambda all: all[-1],
            "DurationGood": lambda all: 1000.0,
            "PercentGood": lambda all: 100.0,
        }
        nodes = [node] * len(expected)
        for name, result in zip(expected, service(client, processed(first, end, 1000, *expected), nodes)):
            got = [value.Value.Value for value in values(result)]
            wanted = [expected[name](inside(index)) for index in range(count)]
            assert got == pytest.approx(wanted), name
            if name not in ("Start", "End"):
                assert times(result) == [first + index * length for index in range(count)]
        bits = values(service(client, processed(first, end, 1000, "Average"), node))[0].StatusCode.value
        assert bits == 0x401, "Good, Calculated"

        # Between two samples, on the line.
        at = kept[20].SourceTimestamp + (kept[21].SourceTimestamp - kept[20].SourceTimestamp) / 2
        found = values(service(client, processed(at, at + length, 1000, "Interpolative"), node))[0]
        middle = (kept[20].Value.Value + kept[21].Value.Value) / 2
        assert found.Value.Value == pytest.approx(middle, abs=1e-5) and found.StatusCode.value == 0x402

        # Backward the later end is the beginning, and belongs to it.
        back = service(client, processed(end, first, 1000, "Count"), node)
        assert times(back) == [end - index * length for index in range(count)]
        # More intervals than a response has.
        details = processed(LONG_AGO, end, 3_600_000, "Count")
        point, intervals = None, 0
        while True:
            result = service(client, details, node, point)
            intervals += len(values(result))
            point = result.ContinuationPoint
            if not point:
                break
        assert intervals == math.ceil((end - LONG_AGO) / timedelta(hours=1))


def test_history_survives_a_restart_and_a_kill(make):
    vedette = make(DEMO + HISTORY).start()
    with vedette.client() as client:
        _, before, _, _ = filled(client)
    assert vedette.stop() == 0
    vedette.start()
    with vedette.client() as client:
        assert times(whole(client, *SINE))[: len(before)] == times(before)
        count = len(whole(client, *SINE))
        wait_until("more samples", lambda: len(whole(client, *SINE)) >= count + 20)
        before = whole(client, *SINE)
    vedette.process.send_signal(signal.SIGKILL)
    vedette.process.wait()
    vedette.start()
    with vedette.client() as client:
        after = wait_until("the store is open", lambda: opened(client))
        assert times(after)[: len(before)] == times(before)
        assert len(set(times(after))) == len(after), "none twice"
        state = child(client.nodes.objects, "Tags", "store", "State")
        wait_until("it is written", lambda: state.read_value() == "writing")


def opened(client):
    """The store opens its files beside the rest of the start."""
    try:
        return whole(client, *SINE)
    except ua.uaerrors.BadResourceUnavailable:
        return None


def test_the_nodes_say_what_there_is(vedette):
    with vedette.client() as client:
        node = child(client.nodes.objects, *SINE)
        read = ua.AccessLevel.HistoryRead
        assert read in node.get_access_level() and read in node.get_user_access_level()
        assert node.read_attribute(ua.AttributeIds.Historizing).Value.Value is True
        configuration = node.get_referenced_nodes(ua.ObjectIds.HasHistoricalConfiguration)
        assert [each.read_browse_name().Name for each in configuration] == ["HA Configuration"]
        assert child(configuration[0], "Stepped").read_value() is False
        assert child(configuration[0], "AggregateConfiguration", "PercentDataGood").read_value() == 100
        other = child(client.nodes.objects, "Tags", "system", "memory", "total")
        assert read not in other.get_access_level()

        def capability(name):
            return client.get_node(ua.NodeId(getattr(ua.ObjectIds, f"HistoryServerCapabilities_{name}"))).read_value()

        assert capability("AccessHistoryDataCapability") is True
        assert capability("AccessHistoryEventsCapability") is False
        assert capability("MaxReturnDataValues") == 10_000
        assert capability("ServerTimestampSupported") is True
        functions = client.get_node(ua.NodeId(ua.ObjectIds.HistoryServerCapabilities_AggregateFunctions))
        names = {each.read_browse_name().Name for each in functions.get_referenced_nodes(ua.ObjectIds.Organizes)}
        assert {"Average", "Minimum", "Maximum", "Count", "Interpolative"} <= names


def test_the_last_pictures_of_a_camera(vedette):
    with vedette.client() as client:
        camera = child(client.nodes.objects, "Cameras", "line1")
        image = child(camera, "Camera Image")
        assert ua.AccessLevel.HistoryRead in image.get_access_level()
        assert values(service(client, raw(LONG_AGO, far()), image)) == []
        taken = []
        for _ in range(5):
            taken.append(camera.call_method(child(camera, "Snapshot")))
            time.sleep(0.1)
        kept = values(service(client, raw(LONG_AGO, far()), image))
        assert [value.Value.Value for value in kept] == taken[2:], "the last three, as they were given"
        assert picture(kept[0].Value.Value).size == (640, 480)
        newest = service(client, raw(end=far(), number=1), image)
        assert [value.Value.Value for value in values(newest)] == taken[4:]
        page = service(client, raw(LONG_AGO, far(), 2), image)
        rest = service(client, raw(LONG_AGO, far(), 2), image, page.ContinuationPoint)
        assert [value.Value.Value for value in values(page) + values(rest)] == taken[2:]
        assert status(service(client, raw(LONG_AGO, far(), bounds=True), image)) == "BadBoundNotSupported"
        assert status(service(client, processed(LONG_AGO, far(), 0, "Count"), image)) == "BadAggregateNotSupported"


def test_a_reload_changes_what_is_kept(make):
    vedette = make(DEMO).start()
    with vedette.client() as client:
        assert ua.AccessLevel.HistoryRead not in child(client.nodes.objects, *SINE).get_access_level()
    vedette.config.write_text(vedette.config.read_text() + HISTORY)
    vedette.process.send_signal(signal.SIGHUP)
    wait_until("it is applied", lambda: vedette.says("[history] changed"))
    wait_until("served anew", lambda: vedette.text().count("Serving OPC UA") == 2)
    with vedette.client() as client:
        filled(client, 10)
    vedette.config.write_text(vedette.config.read_text().replace("commit_interval = \"50ms\"", "max_age = \"1h\""))
    vedette.process.send_signal(signal.SIGHUP)
    wait_until("served once more", lambda: vedette.text().count("Serving OPC UA") == 3)
    with vedette.client() as client:
        wait_until("the new store is open", lambda: opened(client))
        filled(client, 20)
    assert not vedette.says("cannot be written"), vedette.text()


def test_live_data_flows_while_history_is_read(vedette):
    with vedette.client() as client, vedette.client() as reader:
        _, _, first, _ = filled(client, 30)
        node = child(reader.nodes.objects, *SINE)
        details = processed(LONG_AGO, far(), 60_000, "Average")
        began = time.monotonic()
        slowest = 0.0
        while time.monotonic() - began < 3:
            service(reader, details, [node] * 1)
            at = time.monotonic()
            child(client.nodes.objects, *SINE).read_value()
            slowest = max(slowest, time.monotonic() - at)
        assert slowest < 2, "a read beside them"


def test_node_opcua_reads_history(vedette, node):
    with vedette.client() as client:
        _, kept, first, last = filled(client)
    script = """
        const start = new Date(args.start), end = new Date(args.end);
        const result = await session.readHistoryValue(args.id, start, end, {returnBounds: false});
        const aggregate = await session.readAggregateValue(
            {nodeId: args.id}, start, end, ua.AggregateFunction.Count, end - start);
        return [result.historyData.dataValues.length, result.statusCode.name, aggregate.historyData.dataValues[0].value.value];
    """
    # JavaScript's times have milliseconds.
    start, end = first - timedelta(milliseconds=1), last + timedelta(milliseconds=1)
    got = node(vedette).run(script, id="ns=2;s=Tags/demo/sine", start=start.isoformat(), end=end.isoformat())
    assert got == [len(kept), "Good", len(kept)]


def test_the_nodes_of_history_fit_together(vedette, node):
    found = node(vedette).run("return await require(args.crawl)(session)", crawl=str(ROOT / "tests/peers/node/crawl.js"))
    assert [fault for fault in found["faults"] if "HA Configuration" in fault or "Aggregate" in fault] == []
