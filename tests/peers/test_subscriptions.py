"""Subscriptions and monitored items, with Publish requests sent by hand.

The tests named canary assert what the UA crate (0.19) does wrong and what cannot be mended from outside. When one fails, upstream
has mended it: strike the fault from docs/upstream.md and assert the right behaviour, which each names.
"""

import asyncio
import shutil
import time

import pytest
from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from conftest import DEMO
from raw import Subscription, call, data_filter, read, send, write
from test_security import identity, secure_client  # noqa: F401 (a fixture)

O, A, T = ua.ObjectIds, ua.AttributeIds, ua.DataChangeTrigger
ABSOLUTE, PERCENT = ua.DeadbandType.Absolute, ua.DeadbandType.Percent
OVERFLOW = 0x080
INFO_TYPE = 0xC00


def tag(name):
    return ua.NodeId(f"Tags/demo/{name}", 2)


IMAGE = ua.NodeId("Cameras/line1/Camera Image", 2)


def double(*values):
    if len(values) == 1:
        return ua.Variant(values[0], ua.VariantType.Double)
    return ua.Variant(list(values), ua.VariantType.Double, is_array=True)


def numbers(values):
    return [value.Value.Value for value in values]


def put(client, value, name="set_point"):
    assert write(client, tag(name), value if isinstance(value, ua.Variant) else double(value)) == "Good"
    # Longer than the fastest sampling, so that each is a sample.
    time.sleep(0.06)


# Filters


def test_deadbands_hold_back_what_is_too_small(vedette):
    with vedette.client() as client:
        subscription = Subscription(client)
        point, profile = tag("set_point"), tag("profile")
        put(client, 50.0)
        absolute, _ = subscription.monitor(point, queue=10, filter=data_filter(deadband=ABSOLUTE, size=5.0))
        percent, _ = subscription.monitor(point, queue=10, filter=data_filter(deadband=PERCENT, size=10.0))
        array, _ = subscription.monitor(profile, queue=10, filter=data_filter(deadband=ABSOLUTE, size=5.0))
        for value in [54.0, 56.0, 62.0, 60.0, 50.0]:
            put(client, value)
        for values in [(12.0, 20.0, 30.0, 20.0, 10.0), (12.0, 20.0, 30.0, 26.0, 10.0), (1.0, 2.0)]:
            put(client, double(*values), "profile")
        found = subscription.collect(4)
        assert numbers(found[absolute]) == [50.0, 56.0, 62.0, 50.0]
        assert numbers(found[percent]) == [50.0, 62.0, 50.0]
        assert [len(value) for value in numbers(found[array])] == [5, 5, 2], "any element, or the length"


def test_filters_that_do_not_fit_are_refused(vedette):
    events = ua.EventFilter()
    with vedette.client() as client:
        subscription = Subscription(client)

        def refused(node, filter, **wanted):
            return subscription.monitor(node, filter=filter, **wanted)[1].StatusCode.name

        for name in ["switch", "text", "bytes"]:
            assert refused(tag(name), data_filter(deadband=ABSOLUTE, size=1.0)) == "BadFilterNotAllowed", name
        assert refused(IMAGE, data_filter(deadband=ABSOLUTE, size=1.0)) == "BadFilterNotAllowed"
        assert refused(ua.NodeId(O.Server_ServerArray), data_filter(deadband=ABSOLUTE, size=1.0)) == "BadFilterNotAllowed"
        assert refused(tag("set_point/EURange"), data_filter(deadband=ABSOLUTE, size=1.0)) == "BadFilterNotAllowed"
        # No EURange, no hundred percent.
        assert refused(tag("counter"), data_filter(deadband=PERCENT, size=1.0)) == "BadDeadbandFilterInvalid"
        for kind, size in [(ABSOLUTE, -1.0), (PERCENT, -1.0), (PERCENT, 101.0), (ABSOLUTE, float("nan")), (PERCENT, float("nan"))]:
            assert refused(tag("set_point"), data_filter(deadband=kind, size=size)) == "BadDeadbandFilterInvalid", (kind, size)
        assert refused(tag("set_point"), data_filter(deadband=7, size=1.0)) == "BadDeadbandFilterInvalid"
        for node in [tag("set_point"), IMAGE, ua.NodeId(O.Server_ServerStatus_State)]:
            assert refused(node, events) == "BadFilterNotAllowed"
        assert refused(tag("set_point"), None, timestamps=ua.TimestampsToReturn.Invalid) == "BadTimestampsToReturnInvalid"


def test_triggers(make, tmp_path):
    """Status alone, with value, with timestamp: of a tag that keeps its value and gets new timestamps."""
    with make(DEMO).start().client() as client:
        subscription = Subscription(client)
        handles = {t: subscription.monitor(tag("set_point"), queue=10, filter=data_filter(t))[0] for t in T}
        for value in [50.0, 50.0, 60.0]:
            put(client, value)
        found = subscription.collect(4)
        assert numbers(found[handles[T.Status]]) == [50.0]
        assert numbers(found[handles[T.StatusValue]]) == [50.0, 60.0]
        assert numbers(found[handles[T.StatusValueTimestamp]]) == [50.0, 50.0, 50.0, 60.0]


# Parts, attributes, other nodes


def test_an_index_range_is_applied_once(vedette):
    """Not from the beginning, so that applying it twice would show."""
    names = ua.NodeId(O.Server_NamespaceArray)
    with vedette.client() as client:
        subscription = Subscription(client)
        nodes = {"profile": (tag("profile"), "3:4"), "bytes": (tag("bytes"), "4:6"), "picture": (IMAGE, "6:9"), "names": (names, "2")}
        handles = {k: subscription.monitor(n, index_range=r, queue=5, sampling=100)[0] for k, (n, r) in nodes.items()}
        put(client, double(1.0, 2.0, 3.0, 4.0, 5.0), "profile")
        put(client, ua.Variant(b"VEDETTE"), "bytes")
        found = subscription.collect(5)
        assert numbers(found[handles["profile"]]) == [[20.0, 10.0], [4.0, 5.0]]
        assert numbers(found[handles["bytes"]]) == [b"tte", b"TTE"]
        assert set(numbers(found[handles["picture"]])) == {b"JFIF"}
        assert numbers(found[handles["names"]]) == [["urn:vedette:nodes"]]


def test_half_a_character_is_no_data_and_no_panic(vedette):
    """The crate would end in a panic, in the task that brings values to everybody."""
    with vedette.client() as client:
        subscription = Subscription(client)
        half, _ = subscription.monitor(tag("text"), index_range="1", queue=5)
        other, _ = subscription.monitor(tag("counter"), queue=5)
        for text in ["abc", "äöü", "abd"]:
            put(client, ua.Variant(text), "text")
        found = subscription.collect(5)
        assert [v.StatusCode.name if v.StatusCode.is_bad() else v.Value.Value for v in found[half]][-3:] == ["b", "BadIndexRangeNoData", "b"]
        assert found[other] and "panicked" not in vedette.text()


def test_the_status_of_a_part_of_nothing_is_the_reason(vedette):
    with vedette.client() as client:
        subscription = Subscription(client)
        absent = ua.NodeId("Cameras/absent/Camera Image", 2)
        handle, _ = subscription.monitor(absent, index_range="0:1", sampling=100)
        assert subscription.collect(2)[handle][0].StatusCode.name == "BadNotConnected"


def test_other_attributes_and_nodes_of_the_server(vedette):
    with vedette.client() as client:
        subscription = Subscription(client, interval=100)
        name, _ = subscription.monitor(tag("sine"), attribute=A.DisplayName)
        euro, _ = subscription.monitor(tag("sine/EURange"))
        state, _ = subscription.monitor(ua.NodeId(O.Server_ServerStatus_State))
        status, _ = subscription.monitor(ua.NodeId(O.Server_ServerStatus), queue=5)
        clock, _ = subscription.monitor(ua.NodeId(O.Server_ServerStatus_CurrentTime), sampling=100, queue=5)
        sessions, _ = subscription.monitor(
            ua.NodeId(O.Server_ServerDiagnostics_ServerDiagnosticsSummary_CurrentSessionCount), sampling=100
        )
        found = subscription.collect(4)
        assert found[name][0].Value.Value.Text == "sine" and found[euro][0].Value.Value.High == 1.0
        assert found[state][0].Value.Value == 0
        assert found[status][-1].Value.Value.CurrentTime > found[status][0].Value.Value.CurrentTime
        times = numbers(found[clock])
        assert len(times) >= 3 and times == sorted(set(times))
        assert numbers(found[sessions]) == [1]
        with vedette.client() as other:
            other.get_namespace_array()
            assert numbers(subscription.collect(3)[sessions]) == [2]
        for node in [ua.NodeId("none", 2), ua.NodeId(987654321), ua.NodeId("x", 99)]:
            assert subscription.monitor(node)[1].StatusCode.name == "BadNodeIdUnknown"
        assert subscription.monitor(ua.NodeId(O.Server))[1].StatusCode.name == "BadAttributeIdInvalid"


# Queues


def test_queues_hold_what_they_say(vedette):
    with vedette.client() as client:
        subscription = Subscription(client, interval=1000)
        point = tag("set_point")
        put(client, 50.0)
        newest, result = subscription.monitor(point, queue=3, oldest=True)
        oldest, _ = subscription.monitor(point, queue=3, oldest=False)
        large, revised = subscription.monitor(point, queue=100_000)
        assert result.RevisedQueueSize == 3 and revised.RevisedQueueSize < 100_000
        subscription.collect(1)
        for value in [1.0, 2.0, 3.0, 4.0, 5.0]:
            put(client, value)
        found = subscription.collect(1)
        assert numbers(found[large]) == [1.0, 2.0, 3.0, 4.0, 5.0]
        assert not any(value.StatusCode.value & OVERFLOW for value in found[large])
        assert numbers(found[newest]) == [3.0, 4.0, 5.0]
        # The newest takes the place of the last one, and says so (OPC 10000-4, 5.13.1.5).
        assert numbers(found[oldest]) == [1.0, 2.0, 5.0]
        assert [value.StatusCode.value & OVERFLOW for value in found[oldest]] == [0, 0, OVERFLOW]


def test_canary_the_overflow_bit(vedette):
    """Right: none at queue size 1; with DiscardOldest on the oldest value that is left (OPC 10000-4, 5.13.1.5); with the
    InfoType DataValue (0x400), without which the bit means nothing (OPC 10000-4, 7.39)."""
    with vedette.client() as client:
        subscription = Subscription(client, interval=1000)
        put(client, 50.0)
        one, _ = subscription.monitor(tag("set_point"), queue=1)
        three, _ = subscription.monitor(tag("set_point"), queue=3)
        subscription.collect(1)
        for value in [1.0, 2.0, 3.0, 4.0, 5.0]:
            put(client, value)
        found = subscription.collect(1)
        assert numbers(found[one]) == [5.0]
        assert [value.StatusCode.value & OVERFLOW for value in found[one]] == [OVERFLOW]
        assert [value.StatusCode.value & OVERFLOW for value in found[three]] == [0, OVERFLOW, OVERFLOW]
        assert {value.StatusCode.value & INFO_TYPE for value in found[three]} == {0}


# Modes


def test_modes_and_triggering(vedette):
    with vedette.client() as client:
        subscription = Subscription(client)
        put(client, 50.0)
        sampled, one = subscription.monitor(tag("set_point"), mode=ua.MonitoringMode.Sampling, queue=5)
        trigger, two = subscription.monitor(tag("switch"), queue=5)
        disabled, three = subscription.monitor(tag("mode"), mode=ua.MonitoringMode.Disabled)
        found = subscription.collect(2)
        assert (list(found), numbers(found[trigger])) == ([trigger], [False])
        request = ua.SetTriggeringRequest()
        request.Parameters.SubscriptionId, request.Parameters.TriggeringItemId = subscription.id, two.MonitoredItemId
        request.Parameters.LinksToAdd = [one.MonitoredItemId, 4711]
        results = send(client, request, ua.SetTriggeringResponse).Parameters.AddResults
        assert [result.name for result in results] == ["Good", "BadMonitoredItemIdInvalid"]
        put(client, 51.0)
        assert subscription.collect(2) == {}, "a sampling item waits for its trigger"
        put(client, ua.Variant(True), "switch")
        found = subscription.collect(2)
        assert numbers(found[trigger]) == [True] and numbers(found[sampled]) == [50.0, 51.0]
        put(client, ua.Variant(1, ua.VariantType.UInt32), "mode")
        assert subscription.set_mode(ua.MonitoringMode.Reporting, three.MonitoredItemId, 4711)[1].name == "BadMonitoredItemIdInvalid"
        assert numbers(subscription.collect(2)[disabled]) == [1]


def test_items_can_be_modified(vedette):
    with vedette.client() as client:
        subscription = Subscription(client)
        put(client, 50.0)
        handle, created = subscription.monitor(tag("set_point"), sampling=500, queue=2)
        assert created.RevisedSamplingInterval == 500.0
        result = subscription.modify(created.MonitoredItemId, 77, sampling=50, queue=4, filter=data_filter(deadband=ABSOLUTE, size=5.0))
        assert (result.RevisedSamplingInterval, result.RevisedQueueSize) == (50.0, 4)
        subscription.collect(1)
        for value in [52.0, 60.0]:
            put(client, value)
        assert {h: numbers(v) for h, v in subscription.collect(3).items()} == {77: [60.0]}
        fastest = subscription.modify(created.MonitoredItemId, 77, sampling=0)
        assert fastest.RevisedSamplingInterval == 10.0, "MinSupportedSampleRate"
        assert subscription.modify(4711, 1).StatusCode.name == "BadMonitoredItemIdInvalid"


@pytest.mark.parametrize("before, after", [(1000, 100), (1000, 1000), (1000, -1), (3000, 1000)])
def test_a_change_that_is_held_back_survives_modify(vedette, before, after):
    with vedette.client() as client:
        subscription = Subscription(client)
        put(client, 50.0)
        handle, created = subscription.monitor(tag("set_point"), sampling=before, queue=5)
        values = subscription.collect(1)[handle]
        time.sleep(before / 1000 + 0.2)
        put(client, 51.0)
        values += subscription.collect(1)[handle]
        put(client, 52.0)
        assert subscription.modify(created.MonitoredItemId, handle, sampling=after, queue=4).StatusCode.is_good()
        end = time.monotonic() + 15
        while numbers(values)[-1] != 52.0 and time.monotonic() < end:
            values += subscription.collect(1)[handle]
        assert numbers(values) == [50.0, 51.0, 52.0]


def test_canary_modify_cannot_be_refused_by_the_node(vedette):
    """Right: BadFilterNotAllowed for a deadband on a text and on a picture, and a queue of pictures revised to 1."""
    with vedette.client() as client:
        subscription = Subscription(client)
        for node in [tag("text"), IMAGE]:
            handle, created = subscription.monitor(node, sampling=1000)
            result = subscription.modify(created.MonitoredItemId, handle, 1000, 5, filter=data_filter(deadband=ABSOLUTE, size=1.0))
            assert (result.StatusCode.name, result.RevisedQueueSize) == ("Good", 5)


def test_canary_percent_after_creation(vedette):
    """Right: Good. The crate looks for the EURange only when an item is created with a percent deadband."""
    with vedette.client() as client:
        subscription = Subscription(client)
        handle, created = subscription.monitor(tag("set_point"))
        result = subscription.modify(created.MonitoredItemId, handle, filter=data_filter(deadband=PERCENT, size=1.0))
        assert result.StatusCode.name == "BadDeadbandFilterInvalid"


def test_canary_an_item_that_is_enabled_again(vedette):
    """Right: the first sample is reported, also if it is what the client has (OPC 10000-4, 5.13.1.3)."""
    with vedette.client() as client:
        subscription = Subscription(client)
        handle, created = subscription.monitor(tag("set_point"))
        assert len(subscription.collect(2)[handle]) == 1
        for mode in [ua.MonitoringMode.Disabled, ua.MonitoringMode.Reporting]:
            subscription.set_mode(mode, created.MonitoredItemId)
            time.sleep(0.2)
        assert subscription.collect(2) == {}


def test_canary_no_timestamp_at_the_publishing_interval(vedette):
    """Right: the source timestamp of each value. The crate would give all of them that of the first one, so they have none."""
    with vedette.client() as client:
        subscription = Subscription(client)
        handle, created = subscription.monitor(tag("counter"), sampling=-1, queue=5)
        assert created.RevisedSamplingInterval == -1.0
        values = subscription.collect(4)[handle]
        assert len(values) > 2 and {value.SourceTimestamp for value in values[1:]} == {None}


# Publishing


def test_parameters_are_revised(vedette):
    with vedette.client() as client:
        created = Subscription(client, interval=0, keep_alive=0, lifetime=0).created
        assert created.RevisedPublishingInterval == 20.0
        assert created.RevisedMaxKeepAliveCount > 0
        assert created.RevisedLifetimeCount >= 3 * created.RevisedMaxKeepAliveCount


def test_keep_alives_and_sequence_numbers(vedette):
    with vedette.client() as client:
        subscription = Subscription(client, interval=50, keep_alive=4)
        first = subscription.publish().NotificationMessage
        assert not first.NotificationData and first.SequenceNumber == 1, "the number that comes next"
        handle, _ = subscription.monitor(tag("set_point"))
        assert subscription.publish().NotificationMessage.SequenceNumber == 1
        start = time.monotonic()
        keep_alive = subscription.publish().NotificationMessage
        assert not keep_alive.NotificationData and keep_alive.SequenceNumber == 2
        assert 0.1 < time.monotonic() - start < 2.0


def test_large_answers_come_in_parts(vedette):
    with vedette.client() as client:
        subscription = Subscription(client, most=2)
        subscription.create(*[subscription.item(tag("set_point")) for _ in range(5)])
        sizes, more = [], []
        for _ in range(3):
            response = subscription.publish()
            sizes.append(sum(len(data.MonitoredItems) for data in response.NotificationMessage.NotificationData))
            more.append(response.MoreNotifications)
        assert (sizes, more) == ([2, 2, 1], [True, True, False])


def test_what_was_not_acknowledged_is_sent_again(vedette):
    with vedette.client() as client:
        subscription = Subscription(client)
        subscription.monitor(tag("set_point"))
        response = subscription.publish(acknowledge=False)
        message = response.NotificationMessage
        assert message.SequenceNumber in response.AvailableSequenceNumbers
        again = client.tloop.post(client.aio_obj.uaclient.session.republish(subscription.id, message.SequenceNumber))
        assert again.SequenceNumber == message.SequenceNumber
        assert [i.Value for d in again.NotificationData for i in d.MonitoredItems] == [
            i.Value for d in message.NotificationData for i in d.MonitoredItems
        ]
        with pytest.raises(ua.uaerrors.BadMessageNotAvailable):
            client.tloop.post(client.aio_obj.uaclient.session.republish(subscription.id, 4711))
        with pytest.raises(ua.uaerrors.BadSubscriptionIdInvalid):
            client.tloop.post(client.aio_obj.uaclient.session.republish(4711, 1))
        ack = ua.SubscriptionAcknowledgement()
        ack.SubscriptionId, ack.SequenceNumber = subscription.id, message.SequenceNumber
        subscription.acks = [ack, ack]
        put(client, 51.0)
        assert [result.name for result in subscription.publish().Results] == ["Good", "BadSequenceNumberUnknown"]
        with pytest.raises(ua.uaerrors.BadMessageNotAvailable):
            client.tloop.post(client.aio_obj.uaclient.session.republish(subscription.id, message.SequenceNumber))


def test_publishing_can_be_switched_off(vedette):
    with vedette.client() as client:
        subscription = Subscription(client, enabled=False)
        subscription.monitor(tag("set_point"))
        assert subscription.collect(2) == {}
        request = ua.SetPublishingModeRequest()
        request.Parameters.PublishingEnabled, request.Parameters.SubscriptionIds = True, [subscription.id, 4711]
        results = send(client, request, ua.SetPublishingModeResponse).Parameters.Results
        assert [result.name for result in results] == ["Good", "BadSubscriptionIdInvalid"]
        assert len(subscription.collect(2)) == 1


def test_data_is_sent_again_when_asked_for(vedette):
    with vedette.client() as client:
        subscription = Subscription(client)
        handle, created = subscription.monitor(tag("set_point"))
        before = subscription.collect(2)[handle]
        number = ua.Variant(subscription.id, ua.VariantType.UInt32)
        assert call(client, ua.NodeId(O.Server), ua.NodeId(O.Server_ResendData), number).StatusCode.is_good()
        assert numbers(subscription.collect(2)[handle]) == numbers(before)
        told = call(client, ua.NodeId(O.Server), ua.NodeId(O.Server_GetMonitoredItems), number).OutputArguments
        assert [value.Value for value in told] == [[created.MonitoredItemId], [handle]]


def test_an_anonymous_subscription_without_security_stays_with_its_session(vedette):
    """OPC 10000-4, 5.14.7: anonymous clients may transfer only if they are known by a signed channel."""
    with vedette.client() as client, vedette.client() as other:
        subscription = Subscription(client)
        request = ua.TransferSubscriptionsRequest()
        request.Parameters.SubscriptionIds, request.Parameters.SendInitialValues = [subscription.id, 4711], True
        results = send(other, request, ua.TransferSubscriptionsResponse).Parameters.Results
        assert [r.StatusCode.name for r in results] == ["BadUserAccessDenied", "BadSubscriptionIdInvalid"]


def test_canary_the_lowest_priority_goes_first(vedette):
    """Right: the subscription with the higher priority gets the Publish request (OPC 10000-4, 5.14.2)."""
    with vedette.client() as client:
        low, high = Subscription(client, priority=1), Subscription(client, priority=200)
        for subscription in [low, high]:
            subscription.monitor(tag("set_point"))
        time.sleep(0.5)
        assert low.publish().SubscriptionId == low.id


def test_a_subscription_is_transferred_with_its_values(make, identity):  # noqa: F811
    vedette = make(DEMO).start()
    known = [secure_client(vedette, identity, SecurityPolicyBasic256Sha256, ua.MessageSecurityMode.Sign) for _ in range(3)]
    with pytest.raises(ua.UaError), known.pop():
        pass
    for rejected in (vedette.data / "pki/rejected").iterdir():
        shutil.move(rejected, vedette.data / "pki/trusted")
    clients = known
    with clients[0] as client, clients[1] as other:
        subscription = Subscription(client)
        handle, _ = subscription.monitor(tag("set_point"))
        unacknowledged = subscription.publish(acknowledge=False).NotificationMessage.SequenceNumber
        request = ua.TransferSubscriptionsRequest()
        request.Parameters.SubscriptionIds, request.Parameters.SendInitialValues = [subscription.id], True
        result = send(other, request, ua.TransferSubscriptionsResponse).Parameters.Results[0]
        assert result.StatusCode.is_good() and result.AvailableSequenceNumbers == [unacknowledged]
        assert numbers(subscription.collect(2, other)[handle]) == [50.0]
        again = other.tloop.post(other.aio_obj.uaclient.session.republish(subscription.id, unacknowledged))
        assert again.SequenceNumber == unacknowledged
        put(other, 51.0)
        assert numbers(subscription.collect(2, other)[handle]) == [51.0], "it goes on"
        # A canary. Right: a StatusChangeNotification with GoodSubscriptionTransferred (OPC 10000-4, 5.14.7).
        response = subscription.client.tloop.post
        with pytest.raises(ua.uaerrors.BadNoSubscription):
            response(client.aio_obj.uaclient.session.publish([]))


def test_a_subscription_made_right_after_the_last_was_deleted_stays_and_is_served(vedette):
    """Seen before: of some thousand, a few vanished, and a few were never heard of by a client that had stopped to ask."""

    class Values:
        def __init__(self):
            self.came = asyncio.Event()

        def datachange_notification(self, *_):
            self.came.set()

    async def renew(node, times):
        async with Client(vedette.url, timeout=30) as client:
            for _ in range(times):
                values = Values()
                subscription = await client.create_subscription(50, values)
                await subscription.subscribe_data_change(client.get_node(node))
                await asyncio.wait_for(values.came.wait(), 30)
                await subscription.delete()

    async def crowd():
        # Many, so that the server's ticks take long enough to be met; of two node managers.
        nodes = [ua.NodeId(O.Server_ServerStatus_CurrentTime), tag("set_point")]
        await asyncio.gather(*(renew(nodes[n % 2], 80) for n in range(16)))

    asyncio.run(crowd())


def test_canary_a_parked_value_has_a_false_timestamp(vedette):
    """Right: the time that the source gave. The crate moves it to the next sampling time."""
    with vedette.client() as client:
        subscription = Subscription(client)
        put(client, 50.0)
        handle, _ = subscription.monitor(tag("set_point"), sampling=1000)
        subscription.collect(1)
        put(client, 51.0)
        told = read(client, tag("set_point"))[0].SourceTimestamp
        values = []
        for _ in range(8):
            values += subscription.collect(1)[handle]
        assert numbers(values) == [51.0] and values[0].SourceTimestamp > told
