"""What no honest client does: broken, endless and oversized messages, silence, greed. After each the server answers a
normal client, has not panicked, and has not grown."""

import asyncio
import hashlib
import random
import re
import socket
import struct
import time
from pathlib import Path

import pytest
from asyncua import ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.ua.ua_binary import struct_to_binary
from conftest import DEMO, picture, wait_until
from identities import URI, make_identity, trust
from wire import (
    CLO,
    HEL,
    MSG,
    NONE,
    OPN,
    Closed,
    Fault,
    Refused,
    Wire,
    frame,
    hello,
    open_channel,
    open_request,
    read_request,
    string,
)

TIME = ua.NodeId(ua.ObjectIds.Server_ServerStatus_CurrentTime)
# What a batch may add to the resident memory: caches and stacks that were not used before, not what was thrown.
GROWTH_KIB = 48 * 1024


def resident_kib(vedette, word="VmRSS") -> int:
    return int(re.search(rf"{word}:\s+(\d+)", Path(f"/proc/{vedette.process.pid}/status").read_text())[1])


class Watch:
    """Holds the server to its promises around a batch."""

    def __init__(self, vedette, make_client=None):
        self.vedette = vedette
        self.make_client = make_client or vedette.client
        self.answers()
        self.before = resident_kib(vedette)
        # The peak counts from here on (proc(5)).
        Path(f"/proc/{vedette.process.pid}/clear_refs").write_text("5")

    def answers(self):
        with self.make_client() as client:
            client.get_node(TIME).read_value()

    def check(self, growth=GROWTH_KIB):
        assert not self.vedette.ended(), self.vedette.text()[-3000:]
        self.answers()
        text = self.vedette.text()
        assert "panic" not in text, text[text.index("panic") - 500 : text.index("panic") + 1500]
        grown = resident_kib(self.vedette, "VmHWM") - self.before
        assert grown < growth, f"{grown} KiB more than before, at the most"


@pytest.fixture
def watch(vedette):
    watch = Watch(vedette)
    yield watch
    watch.check()


def said(wire: Wire) -> str:
    """How the server ends it: the name of the Error, or "closed"; or that it answered."""
    try:
        wire.response()
        return "answered"
    except (Refused, Fault) as said:
        return said.name
    except Closed:
        return "closed"


def thrown(port: int, data: bytes, finish=True) -> str:
    """What comes back for bytes on a fresh connection."""
    with Wire(port) as wire:
        try:
            wire.send(data)
            if finish:
                wire.socket.shutdown(socket.SHUT_WR)
            kind, _, _ = wire.receive()
            return kind.decode()
        except Refused as refused:
            return refused.name
        except (Closed, OSError):
            return "closed"


def requests(wire: Wire) -> dict[str, bytes]:
    """One of each service, as an honest client would send them."""
    node = ua.ReadValueId(TIME, ua.AttributeIds.Value)
    value = ua.DataValue(ua.Variant([1, 2, 3], ua.VariantType.Int32))
    found = {}

    def add(request, **fields):
        for name, field in fields.items():
            setattr(request.Parameters, name, field)
        found[type(request).__name__] = wire.encode(request)

    add(ua.GetEndpointsRequest(), EndpointUrl="opc.tcp://x/", ProfileUris=["a", "b"])
    add(ua.FindServersRequest(), EndpointUrl="opc.tcp://x/", LocaleIds=["de"])
    add(ua.CreateSessionRequest(), EndpointUrl="opc.tcp://x/", SessionName="s", RequestedSessionTimeout=1000.0)
    add(ua.ReadRequest(), NodesToRead=[node] * 3)
    add(ua.WriteRequest(), NodesToWrite=[ua.WriteValue(TIME, ua.AttributeIds.Value, None, value)])
    add(ua.BrowseRequest(), NodesToBrowse=[ua.BrowseDescription(NodeId=ua.NodeId(85))], View=ua.ViewDescription())
    path = ua.RelativePath([ua.RelativePathElement(TargetName=ua.QualifiedName("Server"))])
    add(ua.TranslateBrowsePathsToNodeIdsRequest())
    wanted = ua.TranslateBrowsePathsToNodeIdsRequest()
    wanted.Parameters.BrowsePaths = [ua.BrowsePath(ua.NodeId(85), path)]
    found["TranslateBrowsePathsToNodeIdsRequest"] = wire.encode(wanted)
    add(ua.CallRequest())
    call = ua.CallRequest()
    call.Parameters.MethodsToCall = [ua.CallMethodRequest(ua.NodeId(2253), ua.NodeId(11492), [ua.Variant(1)])]
    found["CallRequest"] = wire.encode(call)
    add(ua.CreateSubscriptionRequest(), RequestedPublishingInterval=100.0, RequestedLifetimeCount=30)
    parameters = ua.MonitoringParameters(ClientHandle=1, SamplingInterval=100.0, QueueSize=1)
    parameters.Filter = ua.DataChangeFilter(ua.DataChangeTrigger.StatusValue, 1, 0.5)
    item = ua.MonitoredItemCreateRequest(node, ua.MonitoringMode.Reporting, parameters)
    add(ua.CreateMonitoredItemsRequest(), SubscriptionId=1, ItemsToCreate=[item])
    add(ua.PublishRequest(), SubscriptionAcknowledgements=[ua.SubscriptionAcknowledgement(1, 2)])
    add(ua.RegisterNodesRequest(), NodesToRegister=[TIME])
    add(ua.TransferSubscriptionsRequest(), SubscriptionIds=[1])
    return found


class Attacker:
    """Comes back with the same session each time it was thrown out."""

    def __init__(self, port: int):
        self.port = port
        self.wire = Wire(port).session()
        self.authentication = self.wire.authentication

    def throw(self, body: bytes, **wrong) -> str:
        try:
            self.wire.send(self.wire.message(body, **wrong))
            outcome = said(self.wire)
        except TimeoutError:
            outcome = "silence"
        except (Closed, OSError):
            outcome = "closed"
        if outcome != "answered":
            self.wire.close()
            self.wire = Wire(self.port).open()
            self.wire.authentication = self.authentication
            try:
                self.wire.activate()
            except Fault:
                # The message was a CloseSession, or close enough.
                self.wire.create().activate()
                self.authentication = self.wire.authentication
        return outcome


def test_a_hello_that_is_cut_short_or_wrong_is_refused(vedette, watch):
    good = hello(vedette.port)
    assert thrown(vedette.port, good) == "ACK"
    for length in range(1, len(good)):
        assert thrown(vedette.port, good[:length]) in ("closed", "BadTimeout"), length
        body = good[8:length] if length > 8 else b""
        assert thrown(vedette.port, frame(HEL, body)) not in ("ACK", "closed"), length
    wrong = {
        hello(vedette.port, url=b"opc.tcp://x/" + b"a" * 4096): "BadTcpEndpointUrlInvalid",
        hello(vedette.port, url=b"http://127.0.0.1/"): "BadTcpEndpointUrlInvalid",
        hello(vedette.port, url=b"opc.tcp://h/other"): "BadTcpEndpointUrlInvalid",
        hello(vedette.port, url=b"\xff\xfe"): "BadTcpEndpointUrlInvalid",
        hello(vedette.port, buffers=(8191, 65535)): "BadConnectionRejected",
        hello(vedette.port, buffers=(0, 0)): "BadConnectionRejected",
        frame(HEL, good[8:], chunk=b"C"): "BadTcpMessageTypeInvalid",
        frame(HEL, good[8:], chunk=b"\0"): "BadTcpMessageTypeInvalid",
        frame(HEL, good[8:], size=0xFFFFFFFF): "BadTcpMessageTooLarge",
        frame(HEL, good[8:], size=0): "BadDecodingError",
        frame(HEL, good[8:], size=7): "BadDecodingError",
        frame(HEL, struct.pack("<5Ii", 0, 65535, 65535, 0, 0, 2**31 - 1)): "BadDecodingError",
        frame(HEL, struct.pack("<5Ii", 0, 65535, 65535, 0, 0, -2)): "BadDecodingError",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n": "BadTcpMessageTypeInvalid",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": "BadTcpMessageTypeInvalid",
        frame(MSG, b"\0" * 40): "BadTcpMessageTypeInvalid",
        frame(b"RHE", string(b"urn:x") + string(b"opc.tcp://x/")): "BadTcpMessageTypeInvalid",
        frame(b"ACK", b"\0" * 20): "BadTcpMessageTypeInvalid",
    }
    for data, expected in wrong.items():
        assert thrown(vedette.port, data, finish=False) == expected, data[:40]


def test_a_hello_of_a_newer_version_is_answered_in_ours(vedette):
    with Wire(vedette.port) as wire:
        assert struct.unpack_from("<I", wire.greet(version=7))[0] == 0


def test_an_open_secure_channel_that_is_cut_short_or_wrong_is_refused(vedette, watch):
    good = open_channel(open_request())
    head = len(good) - len(open_request())

    def opened(data: bytes) -> str:
        with Wire(vedette.port) as wire:
            wire.greet()
            wire.send(data)
            wire.socket.shutdown(socket.SHUT_WR)
            try:
                return wire.receive()[0].decode()
            except (Refused, Fault) as refused:
                return refused.name
            except Closed:
                return "closed"

    assert opened(good) == "OPN"
    for length in range(8, len(good)):
        assert opened(good[:length]) == "closed", length
        assert opened(frame(OPN, good[8:length])) not in ("OPN", "closed"), length
    dice = random.Random(4840)
    for _ in range(300):
        broken = bytearray(good)
        broken[dice.randrange(8, len(good))] ^= 1 << dice.randrange(8)
        opened(bytes(broken))
    base = NONE.rsplit(b"#", 1)[0]
    noise = bytes(range(256))
    wrong = {
        open_channel(noise, policy=base + b"#Basic128Rsa15", certificate=noise, thumbprint=noise[:20]): (
            "BadSecurityPolicyRejected"
        ),
        open_channel(noise, policy=base + b"#Basic256", certificate=noise): "BadSecurityPolicyRejected",
        open_channel(noise, policy=b"x" * 10_000): "BadSecurityPolicyRejected",
        open_channel(noise, policy=None): "BadSecurityPolicyRejected",
        # 248 bytes are no block of a 2048 bit key.
        open_channel(noise[8:], policy=base + b"#Basic256Sha256", certificate=noise, thumbprint=noise[:20]): "OPN?",
        open_channel(noise, policy=base + b"#Basic256Sha256", certificate=noise, thumbprint=noise[:19]): (
            "BadDecodingError"
        ),
        open_channel(noise, policy=base + b"#Basic256Sha256", certificate=None, thumbprint=noise[:20]): "refused",
        open_channel(noise, policy=base + b"#Basic256Sha256", certificate=noise * 200, thumbprint=noise[:20]): "refused",
        frame(OPN, good[8:], chunk=b"C"): "BadTcpMessageTypeInvalid",
        frame(MSG, good[8:]): "BadTcpMessageTypeInvalid",
        good[:head] + open_request(request_type=0)[:4] + b"\xff" * 60: None,
    }
    for data, expected in wrong.items():
        outcome = opened(data)
        assert outcome != "OPN", data[:80]
        if expected and expected.startswith("Bad"):
            assert outcome == expected, data[:80]


def test_every_request_cut_short_or_with_a_flipped_bit(vedette, watch):
    attacker = Attacker(vedette.port)
    corpus = requests(attacker.wire)
    for name, body in corpus.items():
        for length in range(len(body)):
            assert attacker.throw(body[:length]) in ("BadDecodingError", "closed", "BadServiceUnsupported"), (name, length)
    dice = random.Random(62541)
    for name, body in corpus.items():
        if name in ("PublishRequest", "CreateSessionRequest"):
            continue
        for _ in range(60):
            broken = bytearray(body)
            for _ in range(dice.randint(1, 4)):
                broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
            attacker.throw(bytes(broken))
    watch.check()


def bombs(wire: Wire) -> dict[str, bytes]:
    """Small on the wire, large or deep for whoever decodes it."""
    write = ua.WriteRequest()
    write.Parameters.NodesToWrite = [ua.WriteValue(TIME, ua.AttributeIds.Value, None, ua.DataValue())]
    # Ends with a DataValue: a mask for value and status, a null Variant, a status.
    head = wire.encode(write).removesuffix(b"\x03\x00\x00\x00\x00\x00")
    assert head.endswith(b"\xff\xff\xff\xff"), "the IndexRange"
    room = 250_000 - len(head)
    read = wire.encode(read_request())[:-4]
    # The AdditionalHeader is the last of the RequestHeader: three zeros before MaxAge, TimestampsToReturn, NodesToRead.
    before_additional = wire.encode(read_request())[: -3 - 8 - 4 - 4]
    xml = before_additional + b"\x01\x00\x39\x00\x02" + struct.pack("<i", 2**31 - 1)
    diagnostics = b"\x01\x19" + b"\x40" * room
    return {
        "Variants in Variants": head + b"\x01" + b"\x18" * room,
        "arrays of Variants": head + b"\x01" + b"\x98\x01\x00\x00\x00" * (room // 5),
        "DataValues in Variants": head + b"\x01" + b"\x17\x01" * (room // 2),
        "DiagnosticInfos": head + diagnostics,
        "DiagnosticInfos, well formed": head + diagnostics[: room // 2] + b"\0" + b"\0" * 40,
        "ExtensionObjects": head + b"\x01" + (b"\x16\x01\x00\xa2\x02\x01" + struct.pack("<i", 1000)) * (room // 10),
        "a huge ByteString": head + b"\x01\x0f" + struct.pack("<i", 2**31 - 1),
        "a huge array": head + b"\x01\x86" + struct.pack("<i", 2**31 - 1),
        "a million values": head + b"\x01\x86" + struct.pack("<i", 1_000_000),
        "a negative array": head + b"\x01\x86" + struct.pack("<i", -5),
        "dimensions": head + b"\x01\xc6" + struct.pack("<ii", 1, 7) + struct.pack("<iIII", 3, 2**31, 2**31, 4),
        "huge nodes to read": read + struct.pack("<i", 2**31 - 1),
        "many nodes to read": read + struct.pack("<i", 999_999),
        "a huge XML body": xml,
        "a huge body": before_additional + b"\x01\x00\x39\x00\x01" + struct.pack("<i", 2**31 - 1),
        # Its ValueRank says how many dimensions it has: a gigabyte of them.
        "an Argument": head
        + b"\x01\x16\x01\x00\x2a\x01\x01"
        + struct.pack("<i", 19)
        + string(None)
        + b"\x00\x00"
        + struct.pack("<iii", 2**28, 0, 0),
        "a filter that lies about its length": head
        + b"\x01\x16\x01\x00\xd4\x02\x01"
        + struct.pack("<i", 1)
        + b"\x00" * 30,
    }


def test_bombs_cost_neither_memory_nor_stack(vedette, watch):
    attacker = Attacker(vedette.port)
    for name, body in bombs(attacker.wire).items():
        # A message in one chunk is 64 KiB at most; the rest goes in further ones.
        parts = [body[at : at + 60_000] for at in range(0, len(body), 60_000)]
        try:
            for part in parts[:-1]:
                attacker.wire.send(attacker.wire.message(part, chunk=b"C"))
        except Closed:
            pass
        outcome = attacker.throw(parts[-1])
        assert outcome != "silence", name
    watch.check()


def test_a_request_may_not_be_too_large_or_endless(vedette, watch):
    def endless(parts: int, size: int) -> str:
        with Wire(vedette.port).session() as wire:
            body = wire.encode(read_request(TIME))
            try:
                wire.send(wire.message(body, chunk=b"C"))
                for _ in range(parts):
                    wire.send(wire.message(b"\0" * size, chunk=b"C"))
                wire.send(wire.message(b"\0" * 8))
            except Closed:
                pass
            return said(wire)

    assert endless(3, 60_000) == "answered", "below the limit, whatever stands behind the last field"
    assert endless(5, 60_000) == "BadTcpMessageTooLarge"
    assert endless(100_000, 0) == "BadTcpMessageTooLarge"
    with Wire(vedette.port).session() as wire:
        wire.send(wire.message(b"", size=65_536))
        assert said(wire) == "BadTcpMessageTooLarge"


def test_an_aborted_request_is_forgotten(vedette, watch):
    with Wire(vedette.port).session() as wire:
        wire.send(wire.message(wire.encode(read_request(TIME))[:30], chunk=b"C"))
        wire.send(wire.message(struct.pack("<I", 0x80000000) + string(b"never mind"), chunk=b"A"))
        # The UA crate does not count the chunk that aborts. When it does, this can be an answer to the next request.
        with pytest.raises(Refused, match="BadSequenceNumberInvalid"):
            wire.ask(read_request(TIME))


def test_numbers_that_are_wrong_end_the_connection(vedette, watch):
    attacker = Attacker(vedette.port)
    body = attacker.wire.encode(read_request(TIME))
    for wrong in [
        {"sequence": 0},
        {"sequence": 1},
        {"sequence": 2**32 - 1},
        {"channel": 0},
        {"channel": 2**32 - 1},
    ]:
        assert attacker.throw(body, **wrong) not in ("answered", "silence"), wrong
    for kind in (HEL, OPN, b"ACK", b"ERR", b"XYZ"):
        with Wire(vedette.port).session() as wire:
            wire.send(wire.message(body, kind=kind))
            assert said(wire) in ("BadTcpMessageTypeInvalid", "BadDecodingError", "BadSecurityPolicyRejected"), kind
    # A channel without security cannot be renewed into another one.
    with Wire(vedette.port).session() as wire:
        policy = NONE.replace(b"#None", b"#Basic256Sha256")
        wire.send(open_channel(bytes(256), channel=wire.channel, policy=policy, certificate=b"x", thumbprint=bytes(20)))
        assert said(wire).startswith("BadSecurity") or said(wire) == "closed"


def test_random_bytes(vedette, watch):
    dice = random.Random(7)
    for _ in range(200):
        thrown(vedette.port, dice.randbytes(dice.randint(1, 4000)))
    for _ in range(100):
        kind = dice.choice([HEL, OPN, MSG, CLO])
        thrown(vedette.port, hello(vedette.port) + frame(kind, dice.randbytes(dice.randint(1, 4000))))
    attacker = Attacker(vedette.port)
    for _ in range(200):
        attacker.throw(dice.randbytes(dice.randint(0, 2000)), kind=dice.choice([MSG, CLO]))


TIMES = """
[ua_server.limits]
hello_timeout = "1s"
channel_timeout = "2s"
request_timeout = "1s"
stall_timeout = "2s"
idle_timeout = "3s"
"""


@pytest.fixture
def hasty(make):
    return make(DEMO + TIMES).start()


def test_the_slow_and_the_silent_are_sent_away(hasty):
    def is_sent_away(wire: Wire, began: float, configured: float):
        """`began` before whatever the server counts from; what follows it is not the server's to answer for."""
        listening = time.monotonic()
        assert said(wire) == "BadTimeout"
        ended = time.monotonic()
        assert ended - began + 0.05 >= configured and ended - listening <= configured + 0.8

    began = time.monotonic()
    with Wire(hasty.port) as silent:
        is_sent_away(silent, began, 1)
    began = time.monotonic()
    with Wire(hasty.port) as greeted:
        greeted.greet()
        is_sent_away(greeted, began, 2)
    # A byte now and then is not progress.
    with Wire(hasty.port) as loris:
        began = time.monotonic()
        with pytest.raises(OSError):
            for byte in hello(hasty.port):
                loris.socket.sendall(bytes([byte]))
                time.sleep(0.1)
        assert time.monotonic() - began < 4
    with Wire(hasty.port).session() as wire:
        message = wire.message(wire.encode(read_request(TIME)))
        began = time.monotonic()
        wire.send(message[:-1])
        is_sent_away(wire, began, 1)
    with Wire(hasty.port).session() as wire:
        began = time.monotonic()
        wire.send(wire.message(wire.encode(read_request(TIME)), chunk=b"C"))
        is_sent_away(wire, began, 1)
    began = time.monotonic()
    with Wire(hasty.port).session() as idle:
        is_sent_away(idle, began, 3)
    Watch(hasty).check()


def test_five_hundred_that_only_connect_keep_nobody_out(vedette, watch):
    idle = []
    try:
        for _ in range(500):
            idle.append(socket.create_connection(("127.0.0.1", vedette.port)))
        for _ in range(5):
            watch.answers()
        for half_open in idle[::2]:
            try:
                half_open.sendall(hello(vedette.port))
            except OSError:
                # It had to make room.
                pass
        for _ in range(5):
            watch.answers()
    finally:
        for connection in idle:
            connection.close()
    watch.check()


def test_one_address_gets_so_many_connections(make):
    limits = "[ua_server.limits]\nconnections_per_address = 3\n"
    vedette = make(DEMO + limits).start()
    inside = [Wire(vedette.port).open() for _ in range(3)]
    with Wire(vedette.port) as fourth:
        assert said(fourth) == "BadTcpNotEnoughResources"
    inside.pop().close()
    wait_until("there is room again", lambda: said_hello(vedette.port))


def said_hello(port: int) -> bool:
    try:
        with Wire(port) as wire:
            return bool(wire.greet())
    except (Refused, Closed):
        return False


def test_so_many_connections_in_all(make):
    limits = "[ua_server.limits]\nconnections = 2\n"
    vedette = make(DEMO + limits).start()
    inside = [Wire(vedette.port).open() for _ in range(2)]
    with Wire(vedette.port) as third:
        assert said(third) == "BadTcpServerTooBusy"
    assert inside


PICTURES = """
[device]
name = "vedette-test"
[ua_server]
listen = "127.0.0.1:{port}"
insecure_on_loopback = true
[ua_server.limits]
stall_timeout = "3s"
[cameras]
discover = false
max_bytes = 1000000
[[camera]]
name = "line1"
device = "test-pattern"
width = 1920
height = 1080
quality = 97
"""


def test_who_never_reads_costs_little_and_hurts_nobody(make):
    vedette = make(PICTURES).start()
    image = ua.NodeId("Cameras/line1/Camera Image", 2)
    with vedette.client() as client:
        node = client.get_node(image)
        # Several pictures in each response, which so has about a megabyte.
        pictures = 8
        size = pictures * len(node.read_value())
        assert size > 800_000
        watch = Watch(vedette)
        greedy = Wire(vedette.port).session()
        greedy.socket.settimeout(1)
        sent = 0
        try:
            while sent < 2000:
                greedy.socket.sendall(greedy.message(greedy.encode(read_request(*[image] * pictures)), request_id=sent))
                sent += 1
        except OSError:
            pass
        # The others are served meanwhile, and the memory stays below what was asked for.
        began = time.monotonic()
        for _ in range(5):
            assert picture(node.read_value()).size == (1920, 1080)
        assert time.monotonic() - began < 10
        most = (resident_kib(vedette) - watch.before) * 1024
        assert most < 64 * 2 * size + GROWTH_KIB * 1024, f"{most} bytes more, with {sent} pictures asked for"
        wait_until("it is cut off", lambda: vedette.says("the client does not take its responses"))
        node.read_value()
    watch.check(growth=160 * 1024)


def test_sessions_that_are_never_activated_do_not_last(make):
    limits = '[ua_server.limits]\nsessions = 20\nsession_timeout = "5s"\n'
    vedette = make(DEMO + limits).start()
    wire = Wire(vedette.port).open()
    for _ in range(20):
        wire.create()
    with pytest.raises(Fault, match="BadTooManySessions"):
        wire.create()
    wire.close()

    def answers() -> bool:
        try:
            with vedette.client() as client:
                client.get_node(TIME).read_value()
            return True
        except ua.UaStatusCodeError:
            return False

    began = time.monotonic()
    wait_until("a session can be had", answers, patience=15)
    assert time.monotonic() - began < 8


def test_each_limit_has_its_status_code(make):
    limits = """
[ua_server.limits]
subscriptions_per_session = 2
monitored_items_per_subscription = 5
monitored_items = 7
publish_requests = 2
requests_in_flight = 10
nodes_per_read = 4
nodes_per_write = 3
nodes_per_browse = 2
nodes_per_call = 2
nodes_per_translate = 2
nodes_per_register = 2
monitored_items_per_call = 6
continuation_points = 1
queue_size = 3
min_sampling_interval = "100ms"
min_publishing_interval = "200ms"
session_timeout = "30s"
"""
    vedette = make(DEMO + limits).start()
    wire = Wire(vedette.port).session()

    def fault(request, **fields) -> str:
        for name, field in fields.items():
            setattr(request.Parameters, name, field)
        try:
            wire.ask(request)
            return "Good"
        except Fault as fault:
            return fault.name

    node = ua.ReadValueId(TIME, ua.AttributeIds.Value)
    assert fault(ua.ReadRequest(), NodesToRead=[node] * 4) == "Good"
    assert fault(ua.ReadRequest(), NodesToRead=[node] * 5) == "BadTooManyOperations"
    write = ua.WriteValue(TIME, ua.AttributeIds.Value, None, ua.DataValue(ua.Variant(1)))
    assert fault(ua.WriteRequest(), NodesToWrite=[write] * 4) == "BadTooManyOperations"
    browse = ua.BrowseDescription(NodeId=ua.NodeId(85))
    assert fault(ua.BrowseRequest(), NodesToBrowse=[browse] * 3) == "BadTooManyOperations"
    path = ua.BrowsePath(ua.NodeId(85), ua.RelativePath([ua.RelativePathElement(TargetName=ua.QualifiedName("x"))]))
    assert fault(ua.TranslateBrowsePathsToNodeIdsRequest(), BrowsePaths=[path] * 3) == "BadTooManyOperations"
    call = ua.CallMethodRequest(ua.NodeId(2253), ua.NodeId(11492), [])
    request = ua.CallRequest()
    request.Parameters.MethodsToCall = [call] * 3
    assert fault(request) == "BadTooManyOperations"
    assert fault(ua.RegisterNodesRequest(), NodesToRegister=[TIME] * 3) == "BadTooManyOperations"

    with vedette.client() as client:
        # Of two nodes with more references than were asked for only one gets a continuation point.
        many = ua.BrowseParameters(RequestedMaxReferencesPerNode=1)
        many.NodesToBrowse = [ua.BrowseDescription(NodeId=ua.NodeId(85), ReferenceTypeId=ua.NodeId(33))] * 2
        for description in many.NodesToBrowse:
            description.ResultMask = ua.BrowseResultMask.All
        many.View.Timestamp = ua.get_win_epoch()
        results = client.tloop.post(client.aio_obj.uaclient.browse(many))
        assert {result.StatusCode.name for result in results} == {"Good", "BadNoContinuationPoints"}

    for _ in range(2):
        assert fault(ua.CreateSubscriptionRequest(), RequestedPublishingInterval=1.0) == "Good"
    assert fault(ua.CreateSubscriptionRequest(), RequestedPublishingInterval=1.0) == "BadTooManySubscriptions"

    # Items: in one call, in one subscription, in all. Subscriptions of `wire` are 1 and 2.
    tag = ua.ReadValueId(ua.NodeId("Tags/demo/sine", 2), ua.AttributeIds.Value)

    def items(subscription: int, count: int) -> str | list[str]:
        parameters = ua.MonitoringParameters(SamplingInterval=1.0, QueueSize=1000)
        item = ua.MonitoredItemCreateRequest(tag, ua.MonitoringMode.Reporting, parameters)
        request = ua.CreateMonitoredItemsRequest()
        request.Parameters.SubscriptionId = subscription
        request.Parameters.ItemsToCreate = [item] * count
        try:
            answer = wire.ask(request)
        except Fault as fault:
            return fault.name
        # After the ResponseHeader the results: status, id, interval, queue size, an empty filter result.
        assert struct.unpack_from("<i", answer, 24)[0] == count
        results = [struct.unpack_from("<IIdI", answer, 28 + 23 * index) for index in range(count)]
        good = [(interval, queue) for status, _, interval, queue in results if status == 0]
        assert set(good) <= {(100.0, 3)}, "revised to what is allowed"
        return [ua.status_codes.get_name_and_doc(status)[0] for status, *_ in results]

    assert items(1, 7) == "BadTooManyOperations"
    assert items(1, 5) == ["Good"] * 5
    assert items(1, 1) == "BadTooManyMonitoredItems"
    assert items(2, 3) == ["Good", "Good", "BadTooManyMonitoredItems"]

    for request_id in (71, 72, 73):
        wire.send(wire.message(wire.encode(ua.PublishRequest()), request_id=request_id))
    with pytest.raises(Fault, match="BadTooManyPublishRequests"):
        for _ in range(3):
            wire.response()


SECURE = """
[device]
name = "vedette-test"
[ua_server]
listen = "127.0.0.1:{port}"
[cameras]
discover = false
[[simulator]]
name = "demo"
"""


@pytest.fixture
def secure(make, tmp_path):
    """A server without None, and a client that it trusts."""
    vedette = make(SECURE)
    identity = make_identity(tmp_path)
    trust(vedette, identity)
    return vedette.start(), identity


@pytest.fixture
def secure_watch(secure):
    vedette, identity = secure
    watch = Watch(vedette, lambda: secure_client(vedette, identity))
    yield watch
    watch.check()


def secure_client(vedette, identity, mode=ua.MessageSecurityMode.SignAndEncrypt):
    client = vedette.client()
    client.application_uri = URI
    client.set_security(SecurityPolicyBasic256Sha256, identity / "cert.der", identity / "key.pem", mode=mode)
    return client


class SecureAttacker:
    """Says what it likes on a channel that is signed and encrypted as it should be, or nearly."""

    def __init__(self, make_client):
        self.make_client = make_client
        self.connect()

    def connect(self):
        self.client = self.make_client()
        self.client.connect()
        self.protocol = self.client.aio_obj.uaclient.protocol
        self.connection = self.protocol._connection
        self.authentication = self.client.aio_obj.uaclient.session.authentication_token

    def encode(self, request) -> bytes:
        request.RequestHeader.AuthenticationToken = self.authentication
        return struct_to_binary(request)

    def throw(self, body: bytes, change=lambda data: data):
        """Sends it, and looks whether the connection is still of use; if not, makes another."""
        loop = self.client.tloop.loop

        def send():
            self.protocol._request_id += 1
            data = self.connection.message_to_binary(body, request_id=self.protocol._request_id)
            self.protocol.transport.write(change(bytearray(data)))

        try:
            asyncio.run_coroutine_threadsafe(call(send), loop).result(10)
            self.client.get_node(TIME).read_value()
        except Exception:
            try:
                self.client.disconnect()
            except Exception:
                pass
            self.connect()

    def close(self):
        self.client.disconnect()


async def call(function):
    return function()


@pytest.mark.parametrize("mode", [ua.MessageSecurityMode.Sign, ua.MessageSecurityMode.SignAndEncrypt])
def test_a_trusted_client_that_goes_mad(secure, secure_watch, mode):
    vedette, identity = secure
    attacker = SecureAttacker(lambda: secure_client(vedette, identity, mode))
    dice = random.Random(256)
    corpus = {name: body for name, body in requests(attacker).items() if name != "PublishRequest"}
    for body in corpus.values():
        for _ in range(3):
            attacker.throw(body[: dice.randrange(len(body))])
            broken = bytearray(body)
            broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
            attacker.throw(bytes(broken))
    # What is around the body: bits flipped, cut off with and without the size corrected, down to nothing.
    read = attacker.encode(read_request(TIME))
    for _ in range(20):
        place = dice.random()

        def flip(data):
            data[int(place * len(data))] ^= 1 << dice.randrange(8)
            return data

        attacker.throw(read, flip)
    for length in [*range(8, 80, 7), 90, 100, 101, 102, 103]:

        def cut(data):
            return data[:4] + struct.pack("<I", length) + data[8:length]

        attacker.throw(read, cut)
    attacker.close()
    secure_watch.check()


def test_bombs_of_a_trusted_client_do_not_bring_it_down(secure):
    vedette, identity = secure
    # The body is encrypted, so that the decoder behind meets it; its stack is as deep as a request can be long.
    watch = Watch(vedette, lambda: secure_client(vedette, identity))
    attacker = SecureAttacker(lambda: secure_client(vedette, identity))
    for body in bombs(attacker).values():
        attacker.throw(body)
    attacker.close()
    # The stack stays with each thread that needed it once.
    watch.check(growth=1024 * 1024)


def test_an_open_secure_channel_is_not_decrypted_for_everybody(secure, secure_watch):
    vedette, identity = secure
    trusted = (identity / "cert.der").read_bytes()
    with secure_client(vedette, identity) as client:
        ours = client.aio_obj.security_policy.peer_certificate
    thumbprint = hashlib.sha1(ours).digest()
    policy = NONE.replace(b"#None", b"#Basic256Sha256")
    dice = random.Random(11)

    def outcome(body: bytes, certificate, thumb=thumbprint) -> str:
        with Wire(vedette.port) as wire:
            wire.greet()
            head = struct.pack("<I", 0) + string(policy) + string(certificate) + string(thumb)
            wire.send(frame(OPN, head + body))
            return said(wire)

    # A trusted certificate is no secret; what belongs to it is not decrypted unless it can be.
    for length in (8, 255, 257, 511, 513):
        assert outcome(dice.randbytes(length), trusted) == "BadSecurityChecksFailed", length
    for length in (256, 512, 1024):
        assert outcome(dice.randbytes(length), trusted) not in ("answered", "OPN"), length
    assert outcome(dice.randbytes(256), trusted, bytes(20)) not in ("answered", "OPN")
    assert outcome(dice.randbytes(256), dice.randbytes(900)) == "BadSecurityChecksFailed"
    assert outcome(dice.randbytes(256), trusted[:-5]) == "BadSecurityChecksFailed"
    assert outcome(dice.randbytes(256), None) == "BadSecurityChecksFailed"


def test_without_security_there_is_discovery_and_nothing_else(secure, secure_watch):
    vedette, _ = secure
    with Wire(vedette.port).open() as wire:
        endpoints = ua.GetEndpointsRequest()
        endpoints.Parameters.EndpointUrl = f"opc.tcp://127.0.0.1:{vedette.port}/"
        assert b"Basic256Sha256" in wire.ask(endpoints)
        assert b"urn:" in wire.ask(ua.FindServersRequest())
        with pytest.raises(Fault, match="BadSecurityPolicyRejected"):
            wire.create()
        with pytest.raises((Closed, Refused)):
            wire.ask(endpoints)
    with Wire(vedette.port).open() as wire:
        # Bodies of types of their own are not for strangers: the decoder behind would look into them.
        for name, body in bombs(wire).items():
            if len(body) > 8000:
                body = body[:8000]
            assert Throwaway(vedette.port).throw(body) not in ("answered", "silence", "closed"), name
    with Wire(vedette.port).open() as wire:
        with pytest.raises(Refused, match="BadTcpMessageTooLarge"):
            wire.send(wire.message(bytes(9000)))
            wire.response()
    with Wire(vedette.port).open() as wire, pytest.raises(Refused, match="BadTcpServerTooBusy"):
        for _ in range(100):
            wire.ask(endpoints)


class Throwaway:
    def __init__(self, port: int):
        self.wire = Wire(port).open()

    def throw(self, body: bytes) -> str:
        with self.wire as wire:
            wire.send(wire.message(body))
            return said(wire)


def test_every_request_for_discovery_cut_short_or_with_a_flipped_bit(secure, secure_watch):
    vedette, _ = secure
    dice = random.Random(12)
    with Wire(vedette.port) as wire:
        corpus = {name: body for name, body in requests(wire).items() if name in ("GetEndpointsRequest", "FindServersRequest")}
    for name, body in corpus.items():
        for length in range(0, len(body), 3):
            assert Throwaway(vedette.port).throw(body[:length]) not in ("answered", "silence"), (name, length)
        for _ in range(60):
            broken = bytearray(body)
            broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
            Throwaway(vedette.port).throw(bytes(broken))
