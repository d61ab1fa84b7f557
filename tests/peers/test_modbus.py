"""Modbus as a source: by TCP and by RTU, with devices that behave and devices that do not, seen through our UA server."""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from asyncua import ua
from conftest import free_port, wait_until
from pymodbus.client import ModbusTcpClient
from test_reload import reload

SERVER = """
[ua_server]
listen = "127.0.0.1:{port}"
insecure_on_loopback = true
anonymous = "operator"
mdns = false
[cameras]
discover = false
"""
D = ModbusTcpClient.DATATYPE


def line(place, units, **keys):
    """A [[modbus]] table named plc; `units` as the file has them."""
    keys = {"interval": "50ms", "timeout": "300ms"} | keys
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return SERVER + "\n".join(['[[modbus]]', 'name = "plc"', place, *lines, units]) + "\n"


def tcp(port):
    return f'url = "tcp://127.0.0.1:{port}"'


def unit(*tags, **keys):
    keys = ({} if "ids" in keys else {"id": 1}) | keys
    head = "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
    return f"[[modbus.unit]]\n{head}\ntag = [\n" + ",\n".join(f"  {{ {tag} }}" for tag in tags) + "\n]\n"


def node(client, tag):
    return client.get_node(ua.NodeId(f"Tags/plc/{tag}", 2))


def look(client, tag):
    return node(client, tag).read_data_value(raise_on_bad_status=False)


def value(client, tag):
    seen = look(client, tag)
    return seen.Value.Value if seen.StatusCode.is_good() else None


def status(client, tag):
    return ua.StatusCode(look(client, tag).StatusCode.value & 0xFFFF0000).name


def write(client, tag, new, kind):
    node(client, tag).write_value(ua.DataValue(ua.Variant(new, kind)))


def refused(client, tag, new, kind):
    with pytest.raises(ua.UaStatusCodeError) as error:
        write(client, tag, new, kind)
    return ua.StatusCode(error.value.code).name


class Device:
    """pymodbus as a server, in a process of its own."""

    def __init__(self, place, units):
        self.place, self.spec = place, json.dumps(place | {"units": units})
        self.process = None

    def start(self):
        program = Path(__file__).with_name("modbus_device.py")
        self.process = subprocess.Popen([sys.executable, program, self.spec], stderr=subprocess.DEVNULL)
        if "tcp" in self.place:
            wait_until("the device listens", lambda: self.listens() or self.process.poll() is not None)
        return self

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.place["tcp"])) == 0

    def signal(self, number):
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()

    def client(self):
        client = ModbusTcpClient("127.0.0.1", port=self.place["tcp"])
        assert client.connect()
        return client


@pytest.fixture
def device():
    made = []

    def factory(units, **place):
        made.append(Device(place or {"tcp": free_port()}, units))
        return made[-1].start()

    yield factory
    for one in made:
        one.process.kill()
        one.process.wait()


class Raw:
    """A device made by hand: `answer(unit, pdu, transaction)` gives the bytes to send, or None, or "close"."""

    def __init__(self, answer):
        self.answer, self.asked, self.connections = answer, [], 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer):
        with peer:
            try:
                while header := peer.recv(6, socket.MSG_WAITALL):
                    transaction, _, length = struct.unpack(">HHH", header)
                    body = peer.recv(length, socket.MSG_WAITALL)
                    self.asked.append((body[0], body[1:]))
                    for part in self.answer(body[0], body[1:], transaction) or []:
                        if part == "close":
                            return
                        if isinstance(part, float):
                            time.sleep(part)
                        else:
                            peer.sendall(part)
            except OSError:
                pass


@pytest.fixture
def raw():
    made = []

    def factory(answer):
        made.append(Raw(answer))
        return made[-1]

    yield factory
    for one in made:
        one.listener.close()


def frame(transaction, unit, pdu):
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


def registers(pdu):
    """The right answer of a device whose registers have their own address as value."""
    function, address, count = struct.unpack(">BHH", pdu[:5])
    return bytes([function, count * 2]) + b"".join(struct.pack(">H", address + n) for n in range(count))


def right(unit_id, pdu, transaction):
    return [frame(transaction, unit_id, registers(pdu))]


def crc(data):
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return struct.pack("<H", value)


def test_all_types_in_all_orders(make, device):
    convert = ModbusTcpClient.convert_to_registers
    numbers = [
        ("Int16", D.INT16, -1234), ("UInt16", D.UINT16, 54321), ("Int32", D.INT32, -123456789), ("UInt32", D.UINT32, 3210987654),
        ("Int64", D.INT64, -(2**60) - 5), ("UInt64", D.UINT64, 2**63 + 7), ("Float", D.FLOAT32, 1.5e-3), ("Double", D.FLOAT64, -1e300),
    ]
    swap = lambda words: [word >> 8 | (word & 0xFF) << 8 for word in words]
    content, tags, expected, at = [], [], {}, 100
    for kind, pymodbus_kind, number in numbers:
        for order in ["ABCD", "CDAB", "BADC", "DCBA"]:
            words = convert(number, pymodbus_kind, "little" if order in ("CDAB", "DCBA") else "big")
            words = swap(words) if order in ("BADC", "DCBA") else words
            tags.append(f'name = "{kind}_{order}", address = {at}, type = "{kind}", order = "{order}"')
            expected[f"{kind}_{order}"] = number
            content += words
            at += len(words)
    more = [
        ('name = "text", address = 0, length = 11', "Pumpe 7", "String", convert("Pumpe 7\0\0\0\0\0", D.STRING)),
        ('name = "array", address = 10, type = "Int16", count = 3', [1, -2, 3], "Int16", convert([1, -2, 3], D.INT16)),
        ('name = "scaled", address = 20, scale = 0.1, offset = -10', 2.5, "Double", [125]),
        ('name = "bit0", address = 30, bit = 0', True, "Boolean", [0x8001]),
        ('name = "bit1", address = 30, bit = 1', False, "Boolean", []),
        ('name = "bit15", address = 30, bit = 15', True, "Boolean", []),
        ('name = "bcd", address = 40, type = "BCD32"', 12345678, "UInt32", [0x1234, 0x5678]),
        ('name = "manual", register = 40051, type = "Int16"', -5, "Int16", [0xFFFB]),
    ]
    blocks = {int(t.split("address = ")[1].split(",")[0]) if "address" in t else 50: words for t, _, _, words in more if words}
    tables = {
        "holding": [[100, content], *[[start, words] for start, words in blocks.items()]],
        "input": [[7, [99]]],
        "coil": [[0, [True, False, True, False] * 4]],
        "discrete": [[3, [False, True] * 8]],
    }
    tags += [tag for tag, *_ in more]
    tags += [
        'name = "input", table = "input", address = 7', 'name = "input2", register = 30008', 'name = "coils", table = "coil", address = 0, count = 3',
        'name = "coil2", register = "00003"', 'name = "discrete", register = 10005',
    ]
    plc = device({1: tables})
    vedette = make(line(tcp(plc.place["tcp"]), unit(*tags, name="u"))).start()
    expected |= {tag.split('"')[1]: wanted for tag, wanted, *_ in more}
    expected |= {"input": 99, "input2": 99, "coils": [True, False, True], "coil2": True, "discrete": True}
    with vedette.client() as client:
        for name, wanted in expected.items():
            wait_until(f"{name} is read", lambda: look(client, f"u/{name}").StatusCode.is_good())
            got = value(client, f"u/{name}")
            assert got == (pytest.approx(wanted, rel=1e-6) if isinstance(wanted, float) else wanted), name
        kinds = {name.split("_")[0]: name for name in expected if "_" in name}
        for kind, name in kinds.items():
            assert node(client, f"u/{name}").read_data_type_as_variant_type().name == kind
        for tag, _, kind, _ in more:
            assert node(client, "u/" + tag.split('"')[1]).read_data_type_as_variant_type().name == kind, tag
        assert node(client, "u/array").read_value_rank() == 1
        seen = look(client, "u/bit0")
        assert seen.SourceTimestamp is not None, "the time of the answer"
        assert value(client, "status/connected") is True and value(client, "u/status/connected") is True


def test_writes_reach_the_device_and_come_back(make, device):
    tables = {"coil": [[0, [False] * 16]], "holding": [[0, [0] * 60]], "input": [[0, [1]]]}
    plc = device({1: tables})
    tags = [
        'name = "coil", table = "coil", address = 2', 'name = "coils", table = "coil", address = 4, count = 3', 'name = "word", address = 0',
        'name = "float", address = 2, type = "Float", order = "CDAB"', 'name = "bit", address = 5, bit = 9', 'name = "all", address = 5',
        'name = "scaled", address = 6, type = "Int16", scale = 0.1, range = [-100, 100], unit = "°C"', 'name = "text", address = 10, length = 8',
        'name = "array", address = 20, type = "UInt32", count = 2', 'name = "missing", address = 500', 'name = "bcd", address = 30, type = "BCD16"',
    ]
    tags = [f"{tag}, writable = true" for tag in tags] + ['name = "fixed", address = 1', 'name = "input", table = "input", address = 0']
    # Only what is written is read back before the next hour.
    vedette = make(line(tcp(plc.place["tcp"]), unit(*tags, name="u"), interval="1h")).start()
    kinds = ua.VariantType
    with vedette.client() as client:
        wait_until("it is read", lambda: value(client, "u/all") == 0)
        for name, new, kind, address, words in [
            ("word", 4711, kinds.UInt16, 0, [4711]), ("float", 1.5, kinds.Float, 2, [0, 0x3FC0]), ("bit", True, kinds.Boolean, 5, [0x0200]),
            ("scaled", -12.34, kinds.Double, 6, [0x10000 - 123]), ("text", "Grüß", kinds.String, 10, [0x4772, 0xC3BC, 0xC39F, 0]),
            ("array", [1, 0x20003], kinds.UInt32, 20, [0, 1, 2, 3]), ("bcd", 1234, kinds.UInt16, 30, [0x1234]),
        ]:
            write(client, f"u/{name}", new, kind)
            got = value(client, f"u/{name}")
            assert got == (-12.3 if name == "scaled" else new), f"{name} is read back before the answer"
            other = plc.client()
            assert other.read_holding_registers(address, count=len(words), device_id=1).registers == words, name
            other.close()
        other = plc.client()
        other.write_register(5, 0xFFFF, device_id=1)
        write(client, "u/bit", False, kinds.Boolean)
        assert other.read_holding_registers(5, count=1, device_id=1).registers == [0xFDFF], "the other bits stay"
        write(client, "u/coil", True, kinds.Boolean)
        write(client, "u/coils", [True, False, True], kinds.Boolean)
        assert other.read_coils(0, count=8, device_id=1).bits[:8] == [False, False, True, False, True, False, True, False]
        other.close()
        assert refused(client, "u/scaled", 101.0, kinds.Double) == "BadOutOfRange"
        assert refused(client, "u/scaled", float("nan"), kinds.Double) == "BadOutOfRange"
        assert refused(client, "u/bcd", 10000, kinds.UInt16) == "BadOutOfRange"
        assert refused(client, "u/text", "ninebytes", kinds.String) == "BadOutOfRange"
        assert refused(client, "u/array", [1], kinds.UInt32) == "BadOutOfRange"
        assert refused(client, "u/word", 1.0, kinds.Double) == "BadTypeMismatch"
        assert refused(client, "u/missing", 1, kinds.UInt16) == "BadNotWritable"
        assert refused(client, "u/fixed", 1, kinds.UInt16) in ("BadNotWritable", "BadUserAccessDenied")
        plc.signal(signal.SIGKILL)
        wait_until("it is noticed", lambda: status(client, "u/word") == "BadNotConnected")
        assert refused(client, "u/word", 1, kinds.UInt16) == "BadNotConnected"


def test_a_register_that_does_not_exist_is_bad_alone(make, device):
    plc = device({1: {"holding": [[0, list(range(50))], [51, list(range(51, 100))]]}})
    tags = [f'name = "r{n}", address = {n}' for n in range(100)]
    vedette = make(line(tcp(plc.place["tcp"]), unit(*tags, name="u"))).start()
    with vedette.client() as client:
        wait_until("it is found", lambda: status(client, "u/r50") == "BadConfigurationError")
        for n in [*range(50), *range(51, 100)]:
            wait_until(f"{n} is good", lambda: value(client, f"u/r{n}") == n)
        assert value(client, "u/status/connected") is True
        requests = value(client, "status/requests")
        # It goes on with few requests, not with one for each register.
        assert requests < 1000
        assert "illegal data address" in value(client, "status/last_error")


def test_a_server_that_is_killed_frozen_and_restarted(make, device):
    plc = device({1: {"holding": [[0, [7]]]}, 2: {"holding": [[0, [8]]]}})
    vedette = make(line(tcp(plc.place["tcp"]), unit('name = "t", address = 0', ids="1,2", name="u{id}"))).start()
    with vedette.client() as client:
        both = lambda: [value(client, f"u{n}/t") for n in (1, 2)]
        wait_until("it works", lambda: both() == [7, 8])
        plc.signal(signal.SIGKILL)
        wait_until("it is noticed", lambda: status(client, "u1/t") == status(client, "u2/t") == "BadNotConnected")
        assert value(client, "status/connected") is False
        assert vedette.says("The line is lost") and "refused" in value(client, "status/last_error")
        plc.start()
        wait_until("it is back", lambda: both() == [7, 8])
        plc.signal(signal.SIGSTOP)
        wait_until("that it is frozen is noticed", lambda: status(client, "u1/t") == status(client, "u2/t") == "BadNotConnected")
        plc.signal(signal.SIGCONT)
        wait_until("it is back again", lambda: both() == [7, 8])


def test_a_cold_start_without_the_device(make, device):
    port = free_port()
    vedette = make(line(tcp(port), unit('name = "t", address = 0', name="u"))).start()
    with vedette.client() as client:
        wait_until("it is said", lambda: status(client, "u/t") == "BadNotConnected")
        device({1: {"holding": [[0, [7]]]}}, tcp=port)
        wait_until("it works", lambda: value(client, "u/t") == 7)


def test_a_dead_unit_does_not_slow_the_others(make, raw):
    plc = raw(lambda u, pdu, t: None if u in (3, 4) else right(u, pdu, t))
    config = line(tcp(plc.port), unit('name = "t", address = 5', ids="1-8", name="u{id}"), interval="100ms", timeout="1s")
    vedette = make(config).start()
    with vedette.client() as client:
        wait_until("the dead ones are known", lambda: {status(client, f"u{n}/t") for n in (3, 4)} == {"BadNoCommunication"})
        wait_until("the others are good", lambda: all(value(client, f"u{n}/t") == 5 for n in (1, 2, 5, 6, 7, 8)))
        plc.asked.clear()
        wait_until("the dead ones were tried", lambda: sum(u in (3, 4) for u, _ in plc.asked) >= 4)
        asked = [u for u, _ in plc.asked]
        dead, living = sum(u in (3, 4) for u in asked), asked.count(1)
        assert living > 4 * dead, (living, dead)
        assert value(client, "status/connected") is True and value(client, "u3/status/connected") is False


def test_an_answer_that_is_late_is_never_taken_for_another(make, raw):
    late = {"left": 3}

    def answer(u, pdu, t):
        if late["left"] and pdu[1:3] == b"\0\x0a":
            late["left"] -= 1
            return [0.6, *right(u, pdu, t)]
        return right(u, pdu, t)

    plc = raw(answer)
    tags = [f'name = "t{n}", address = {n}' for n in (10, 200, 300)]
    vedette = make(line(tcp(plc.port), unit(*tags, name="u"))).start()
    with vedette.client() as client:
        seen = set()

        def all_seen():
            seen.update((n, value(client, f"u/t{n}")) for n in (10, 200, 300))
            return not late["left"] and {(10, 10), (200, 200), (300, 300)} <= seen

        wait_until("all are read", all_seen)
        assert all(got in (None, n) for n, got in seen), seen


WRONG = {
    "another transaction": lambda u, pdu, t: [frame(t + 1 & 0xFFFF, u, registers(pdu))],
    "another unit": lambda u, pdu, t: [frame(t, u + 1, registers(pdu))],
    "another function": lambda u, pdu, t: [frame(t, u, b"\x04" + registers(pdu)[1:])],
    "too short": lambda u, pdu, t: [frame(t, u, registers(pdu)[:-1])],
    "too long": lambda u, pdu, t: [frame(t, u, registers(pdu) + b"\0\0")],
    "a false count": lambda u, pdu, t: [frame(t, u, bytes([3, 250]) + registers(pdu)[2:])],
    "half a frame": lambda u, pdu, t: [frame(t, u, registers(pdu))[:8]],
    "half a frame and the end": lambda u, pdu, t: [frame(t, u, registers(pdu))[:8], "close"],
    "garbage": lambda u, pdu, t: [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    "a flood": lambda u, pdu, t: [b"\xff" * 3_000_000],
    "a flood of frames": lambda u, pdu, t: [frame(t + 7 & 0xFFFF, u, registers(pdu)) * 100_000],
    "an endless length": lambda u, pdu, t: [struct.pack(">HHHB", t, 0, 65535, u) + b"\0" * 70000],
    "no length": lambda u, pdu, t: [struct.pack(">HHH", t, 0, 0)],
    "an empty exception": lambda u, pdu, t: [frame(t, u, b"\x83")],
    "the end at once": lambda u, pdu, t: ["close"],
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_answers_are_bad_and_right_ones_are_good_again(make, raw, kind):
    wrong = {"is": True}
    plc = raw(lambda u, pdu, t: WRONG[kind](u, pdu, t) if wrong["is"] and u == 1 else right(u, pdu, t))
    vedette = make(line(tcp(plc.port), unit('name = "t", address = 5', ids="1,2", name="u{id}"))).start()
    with vedette.client() as client:
        wait_until("it is bad", lambda: status(client, "u1/t") == "BadNoCommunication")
        wait_until("the other is not", lambda: value(client, "u2/t") == 5)
        assert value(client, "u1/status/errors") > 0 and value(client, "u1/status/last_error")
        before = vedette.cpu_seconds()
        began = time.monotonic()
        asked = len(plc.asked)
        wait_until("it is asked again", lambda: sum(u == 1 for u, _ in plc.asked[asked:]) > 1)
        assert vedette.cpu_seconds() - before < 1 + 0.8 * (time.monotonic() - began), "no spinning"
        assert value(client, "u1/t") is None
        wrong["is"] = False
        wait_until("it is good", lambda: value(client, "u1/t") == 5 and value(client, "u2/t") == 5)


def test_a_device_that_closes_after_each_answer(make, raw):
    plc = raw(lambda u, pdu, t: [*right(u, pdu, t), "close"])
    tags = [f'name = "t{n}", address = {n}' for n in (10, 200, 300)]
    vedette = make(line(tcp(plc.port), unit(*tags, name="u"))).start()
    with vedette.client() as client:
        wait_until("all are read", lambda: [value(client, f"u/t{n}") for n in (10, 200, 300)] == [10, 200, 300])
        asked = len(plc.asked)
        wait_until("it goes on", lambda: len(plc.asked) > asked + 30)
        assert [value(client, f"u/t{n}") for n in (10, 200, 300)] == [10, 200, 300]
        assert not vedette.says("The line is lost")


EXCEPTIONS = {1: "BadNotSupported", 2: "BadConfigurationError", 3: "BadConfigurationError", 4: "BadDeviceFailure", 5: "BadResourceUnavailable",
              6: "BadResourceUnavailable", 8: "BadDeviceFailure", 10: "BadNoCommunication", 11: "BadNoCommunication", 99: "BadDeviceFailure"}


@pytest.mark.parametrize("code", EXCEPTIONS)
def test_each_exception_has_its_status(make, raw, code):
    plc = raw(lambda u, pdu, t: [frame(t, u, bytes([pdu[0] | 0x80, code]))] if u == 1 else right(u, pdu, t))
    tag = 'name = "t", address = 5, writable = true'
    vedette = make(line(tcp(plc.port), unit(tag, ids="1,2", name="u{id}"))).start()
    with vedette.client() as client:
        wait_until("it is bad", lambda: status(client, "u1/t") == EXCEPTIONS[code])
        assert value(client, "u2/t") == 5
        wait_until("it is counted", lambda: f"exception {code}" in (value(client, "u1/status/last_error") or ""))
        writing = {1: "BadNotSupported", 2: "BadNotWritable", 3: "BadOutOfRange"} | {c: s for c, s in EXCEPTIONS.items() if c > 3}
        assert refused(client, "u1/t", 1, ua.VariantType.UInt16) == writing[code]


def test_groups_are_read_at_their_own_pace(make, raw):
    plc = raw(right)
    tags = ['name = "often", address = 1', 'name = "seldom", address = 2, group = "slow"']
    config = line(tcp(plc.port), '[[modbus.group]]\nname = "slow"\ninterval = "1s"\n' + unit(*tags, name="u"))
    vedette = make(config).start()
    with vedette.client() as client:
        wait_until("both are read", lambda: value(client, "u/often") == 1 and value(client, "u/seldom") == 2)
        plc.asked.clear()
        count = lambda address: sum(pdu[2] == address for _, pdu in plc.asked)
        wait_until("the slow one three times", lambda: count(2) >= 3)
        assert count(1) > 2 * count(2)


def test_scans_that_are_too_slow_are_counted(make, raw):
    plc = raw(lambda u, pdu, t: [0.1, *right(u, pdu, t)])
    vedette = make(line(tcp(plc.port), unit('name = "t", address = 5', name="u"), interval="20ms")).start()
    with vedette.client() as client:
        wait_until("they are counted", lambda: (value(client, "status/overruns") or 0) > 5)
        assert value(client, "u/t") == 5 and value(client, "status/scan_time") >= 100


def test_a_changed_table_is_taken_in(make, device):
    plc = device({1: {"holding": [[0, [7, 8]]]}})
    place = tcp(plc.place["tcp"])
    vedette = make(line(place, unit('name = "a", address = 0', name="u"))).start()
    with vedette.client() as client:
        wait_until("it is read", lambda: value(client, "u/a") == 7)
        port = {"{port}": str(vedette.port)}
        both = line(place, unit('name = "a", address = 0', 'name = "b", address = 1, scale = 0.5', name="u"))
        reload(vedette, both.replace("{port}", port["{port}"]))
        wait_until("the new one is read", lambda: value(client, "u/b") == 4.0 and value(client, "u/a") == 7)
        only = line(place, unit('name = "b", address = 1', name="u"))
        reload(vedette, only.replace("{port}", port["{port}"]))
        wait_until("of another type", lambda: value(client, "u/b") == 8)
        assert status(client, "u/a") == "BadNodeIdUnknown"
        bad = line(place, unit('name = "b", address = 1, bit = 20', name="u"))
        reload(vedette, bad.replace("{port}", port["{port}"]), "Refused the new configuration")
        assert "[[modbus]] bit: a register has the bits 0 (the lowest) to 15" in vedette.text()
        assert value(client, "u/b") == 8


@pytest.fixture
def pty_pair(tmp_path):
    """Two ends of a serial line."""
    program = shutil.which("socat")
    assert program, "socat is missing: apt-get install socat (scripts/test does)"
    ends = [tmp_path / "ours", tmp_path / "theirs"]
    made = []

    def connect():
        command = [program, *[f"pty,raw,echo=0,link={end}" for end in ends]]
        made.append(subprocess.Popen(command))
        wait_until("the line is there", lambda: all(end.exists() for end in ends))
        return (*ends, made[-1])

    yield connect
    for one in made:
        one.kill()
        one.wait()


def serial(end, **keys):
    return f'device = "{end}"\nparity = "none"\nbaud = 115200'


def test_rtu_with_several_units_one_of_them_dead(make, device, pty_pair):
    ours, theirs, wire = pty_pair()
    tables = {"holding": [[0, [7, 8, 9]]], "coil": [[0, [True, False] * 8]]}
    plc = device({1: tables, 3: tables}, serial=str(theirs))
    tags = ['name = "t", address = 0, writable = true', 'name = "wide", address = 1, type = "UInt32"', 'name = "coil", table = "coil", address = 0, writable = true']
    vedette = make(line(serial(ours), unit(*tags, ids="1-3", name="u{id}"))).start()
    with vedette.client() as client:
        wait_until("two are good", lambda: [value(client, f"u{n}/t") for n in (1, 3)] == [7, 7])
        wait_until("one is not", lambda: status(client, "u2/t") == "BadNoCommunication")
        wait_until("all is read", lambda: value(client, "u3/wide") == 8 << 16 | 9 and value(client, "u3/coil") is True)
        write(client, "u1/t", 1234, ua.VariantType.UInt16)
        assert value(client, "u1/t") == 1234
        write(client, "u3/coil", False, ua.VariantType.Boolean)
        assert value(client, "u3/coil") is False
        assert value(client, "u3/t") == 7
        plc.signal(signal.SIGSTOP)
        wait_until("silence is noticed", lambda: look(client, "u1/t").StatusCode.is_bad() and look(client, "u3/t").StatusCode.is_bad())
        plc.signal(signal.SIGCONT)
        wait_until("they are back", lambda: value(client, "u1/t") == 1234 and value(client, "u3/t") == 7)
        # The adapter is pulled out, and plugged in again.
        wire.kill()
        wire.wait()
        plc.signal(signal.SIGKILL)
        wait_until("the port is gone", lambda: status(client, "u1/t") == "BadNotConnected")
        for end in (ours, theirs):
            end.unlink(missing_ok=True)
        pty_pair()
        plc.start()
        wait_until("it works again", lambda: value(client, "u1/t") == 7 and value(client, "u3/t") == 7)


def test_noise_on_a_serial_line(make, pty_pair):
    """Before, within and after answers; late answers of the same length; an answer of another unit."""
    ours, theirs, _ = pty_pair()
    vedette = make(line(serial(ours), unit('name = "t", address = 5', 'name = "far", address = 500', ids="1,2", name="u{id}"))).start()
    stop, turn, kinds = threading.Event(), [0], 6
    end = os.open(theirs, os.O_RDWR | os.O_NOCTTY)

    def answer():
        pending = b""
        while not stop.is_set():
            try:
                pending += os.read(end, 256)
            except OSError:
                return
            while len(pending) >= 8:
                question, pending = pending[:8], pending[8:]
                body = question[:1] + registers(question[1:6])
                whole = body + crc(body)
                turn[0] += 1
                # Of each kind one, and then three that are right.
                match turn[0] // 4 % kinds if turn[0] % 4 == 0 else None:
                    case 0:
                        whole = b"\x00\xff\x01\x03" + whole
                    case 1:
                        whole = whole[:4]
                    case 2:
                        whole = whole[:-1] + bytes([whole[-1] ^ 1])
                    case 3:
                        other = bytes([9]) + body[1:]
                        whole = other + crc(other) + whole
                    case 4:
                        time.sleep(0.5)
                    case 5:
                        whole = whole + os.urandom(60)
                os.write(end, whole)

    threading.Thread(target=answer, daemon=True).start()
    try:
        with vedette.client() as client:
            names = {f"u{n}/{tag}": wanted for n in (1, 2) for tag, wanted in (("t", 5), ("far", 500))}
            seen = set()

            def watched():
                seen.update((name, value(client, name)) for name in names)
                return turn[0] > 4 * kinds * 3 and set(names.items()) <= seen

            wait_until("all of it was tried", watched, 60)
            assert {got for got in seen if got[1] is not None} == set(names.items()), "never a wrong value"
            assert value(client, "status/errors") > 0
    finally:
        stop.set()


def test_rtu_frames_through_a_network(make, device):
    plc = device({1: {"holding": [[0, [7, 8, 9]]]}}, tcp=free_port(), rtu=True)
    place = f'url = "rtu+tcp://127.0.0.1:{plc.place["tcp"]}"'
    vedette = make(line(place, unit('name = "t", address = 0, writable = true', 'name = "u", address = 2', name="u"))).start()
    with vedette.client() as client:
        wait_until("it is read", lambda: (value(client, "u/t"), value(client, "u/u")) == (7, 9))
        write(client, "u/t", 70, ua.VariantType.UInt16)
        assert value(client, "u/t") == 70
        plc.signal(signal.SIGKILL)
        wait_until("it is noticed", lambda: status(client, "u/t") == "BadNotConnected")


def test_memory_is_flat_while_everything_goes_wrong(make, raw):
    wrong = [answer for name, answer in WRONG.items() if not name.startswith("a flood") and name != "half a frame"]
    kinds = [kind for answer in wrong for kind in [answer, *[right] * 14]]
    turn = [0]

    def answer(u, pdu, t):
        turn[0] += 1
        return kinds[turn[0] % len(kinds)](u, pdu, t)

    plc = raw(answer)
    vedette = make(line(tcp(plc.port), unit('name = "t", address = 5', ids="1-20", name="u{id}"), interval="10ms", timeout="20ms")).start()
    resident = lambda: int(Path(f"/proc/{vedette.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    wait_until("it runs", lambda: turn[0] > 1500, 60)
    before = resident()
    wait_until("it ran long", lambda: turn[0] > 6000, 120)
    assert resident() - before < 3_000_000
    assert not vedette.says("panicked")


def test_what_is_wrong_is_said_by_line_before_anything_starts(make):
    text = line('url = "tcp://127.0.0.1:1"', unit('name = "t", address = 0', 'name = "f", address = 65535, type = "Float"', name="u"))
    vedette = make(text).start(wait=False)
    assert vedette.process.wait(30) == 2
    at = 1 + vedette.config.read_text().splitlines().index('  { name = "f", address = 65535, type = "Float" }')
    assert f"vedette.toml:{at}: [[modbus]] address: it takes 2 registers from 65535 on, but the last one is 65535" in vedette.text()
