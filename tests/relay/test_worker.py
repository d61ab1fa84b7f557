"""The worker of the relay: one DA server, through the worker's own pipes."""

import struct
import time

import pytest
from worker import Error, text, varint

BADRIGHTS, UNKNOWN, INVALID, BADTYPE, RANGE = 0xC0040006, 0xC0040007, 0xC0040008, 0xC0040004, 0xC004000B
CLAMP, UNSUPPORTED_RATE = 0x4000E, 0x4000D
OVERFLOW, MISMATCH = 0x8002000A, 0x80020005

VALUES = {
    "Types.Bool": ("Bool", False),
    "Types.I1": ("I1", -128),
    "Types.UI1": ("U1", 255),
    "Types.I2": ("I2", -32768),
    "Types.UI2": ("U2", 65535),
    "Types.I4": ("I4", -(2**31)),
    "Types.UI4": ("U4", 2**32 - 1),
    "Types.I8": ("I8", -(2**63)),
    "Types.UI8": ("U8", 2**64 - 1),
    "Types.R4": ("R4", -0.5),
    "Types.R8": ("R8", 1e300),
    "Types.CY": ("Cy", -98765),
    "Types.DATE": ("Date", 45000.75),
    "Types.BSTR": ("Text", "Ω and \U0001f600"),
    "Types.ERROR": ("Error", -7),
    "Types.DECIMAL": ("Decimal", 1024.125),
    "Types.EMPTY": ("I4", 5),
    "Types.Arrays.Bool": ("Array", [3], "Bool", [True, False, True]),
    "Types.Arrays.I1": ("Array", [2], "I1", [-128, 127]),
    "Types.Arrays.UI1": ("Array", [2], "U1", [0, 255]),
    "Types.Arrays.I2": ("Array", [2], "I2", [-5, 5]),
    "Types.Arrays.UI2": ("Array", [1], "U2", [65535]),
    "Types.Arrays.I4": ("Array", [2], "I4", [-5, 5]),
    "Types.Arrays.UI4": ("Array", [1], "U4", [2**32 - 1]),
    "Types.Arrays.I8": ("Array", [2], "I8", [-(2**63), 1]),
    "Types.Arrays.UI8": ("Array", [1], "U8", [2**64 - 1]),
    "Types.Arrays.R4": ("Array", [2], "R4", [0.25, -2.0]),
    "Types.Arrays.R8": ("Array", [2], "R8", [0.25, -2e200]),
    "Types.Arrays.CY": ("Array", [2], "Cy", [10001, -1]),
    "Types.Arrays.DATE": ("Array", [1], "Date", [45000.5]),
    "Types.Arrays.BSTR": ("Array", [3], "Text", ["", "ü", "long" * 100]),
    "Types.Arrays.ERROR": ("Array", [1], "Error", [-1]),
    "Types.Arrays.VARIANT": ("Array", [2], "Variant", [("Bool", True), ("Array", [2], "R8", [1.0, 2.0])]),
    "Types.Arrays.Matrix": ("Array", [2, 3], "I4", [6, 5, 4, 3, 2, 1]),
    "Types.Arrays.Cube": ("Array", [2, 2, 2], "R8", [float(n) for n in range(8)]),
    "Types.Arrays.None": ("Array", [0], "I4", []),
}


@pytest.mark.parametrize("da", [2, 3])
def test_every_type_goes_there_and_back(worker, da):
    server = worker(da=da)
    items = list(VALUES)
    assert not any(isinstance(value, Error) for value in server.read(*items))
    assert server.write(*VALUES.items()) == [0] * len(VALUES)
    for item, reading in zip(items, server.read(*items)):
        assert (item, reading["value"], reading["quality"]) == (item, VALUES[item], 0xC0)
    # The same by callback.
    server.group("AddGroup", 1)
    server.add_items(1, dict(enumerate(items)))
    seen = server.values_until(lambda seen: len(seen) == len(items))
    assert {items[handle]: value["value"] for (_, handle), value in seen.items()} == VALUES


def test_what_it_says_at_first(worker, start):
    assert worker(da=2).events is not None
    for da, has in [(2, False), (3, True)]:
        server = start(da=da)
        can = server.next("Started")
        assert (can["browse3"], can["item_io"], can["browse2"], can["properties"]) == (has, has, True, True)
        status = server.status()
        assert (status["state"], status["vendor"], status["major"]) == (1, "Vedette's test server", 1)
    missing = start(server="Nobody.Server.1")
    assert missing.next("NotStarted") == {"call": "CLSIDFromProgID", "hresult": 0x800401F3}
    assert missing.process.wait(60) == 1


def test_writes_are_brought_to_the_items_type(worker):
    server = worker()
    cases = [
        ("Types.R4", ("Text", "12.5"), 0),
        ("Types.I2", ("R8", 7.0), 0),
        ("Types.BSTR", ("I4", 42), 0),
        ("Types.Arrays.I2", ("Array", [2], "R8", [1.0, 2.0]), 0),
        ("Types.I2", ("I4", 70000), OVERFLOW),
        ("Types.I4", ("Text", "many"), MISMATCH),
        ("Types.I4", ("Array", [1], "I4", [1]), MISMATCH),
        ("Special.ReadOnly", ("R8", 1.0), BADRIGHTS),
        ("Special.WriteOnly", ("R8", 1.0), 0),
        ("Special.Clamped", ("R8", 500.0), CLAMP),
        ("Special.Clamped", ("R8", 5000.0), RANGE),
        ("Nowhere", ("R8", 1.0), UNKNOWN),
    ]
    assert server.write(*[(item, value) for item, value, _ in cases]) == [result for *_, result in cases]
    read = server.read("Types.R4", "Types.I2", "Types.BSTR", "Types.Arrays.I2", "Special.Clamped")
    expected = [("R4", 12.5), ("I2", 7), ("Text", "42"), ("Array", [2], "I2", [1, 2]), ("R8", 100.0)]
    assert [reading["value"] for reading in read] == expected
    assert server.read("Special.WriteOnly", "Nowhere") == [Error(BADRIGHTS), Error(UNKNOWN)]


@pytest.mark.parametrize("da", [2, 3])
def test_qualities_and_times_are_as_the_server_says(worker, da):
    server = worker(da=da)
    items = ["Special.Bad", "Special.Uncertain", "Special.Override", "Special.Vendor"]
    assert [reading["quality"] for reading in server.read(*items)] == [0x18, 0x56, 0xD8, 0x12C0]
    times = [reading["time"] for reading in server.read("Special.Time1601", "Special.Time2300", "Special.TimeMax")]
    assert times == [0, 220_580_000_000_000_000, 2**64 - 1]
    # One after the other: the first has nothing in the cache yet.
    for _ in range(2):
        assert server.read("Types.I4", cache=True)[0]["value"] == ("I4", -2_000_000_000)


TREE = ["Types", "Ramps", "Many", "Special", "Control"]


@pytest.mark.parametrize("keys", [{"da": 2}, {"da": 3}, {"da": 2, "climbs": True}, {"da": 2, "flat_lies": True}])
def test_a_tree_is_browsed(worker, keys):
    server = worker(**keys)
    root = server.browse()
    assert sorted(entry["name"] for entry in root) == sorted(TREE)
    assert [entry["is_item"] for entry in root if entry["name"] == "Control"] == [True]
    special = {entry["name"]: entry for entry in server.browse("Special")}
    for name in ["With spaces", "with/slash", "with.dot", "with[bracket]", "Gäste-Öl"]:
        assert special[name] == {"name": name, "item_id": f"Special.{name}", "is_branch": False, "is_item": True}
    assert special["Twin"] == {"name": "Twin", "item_id": "Special.Twin", "is_branch": True, "is_item": True}
    assert [entry["item_id"] for entry in server.browse("Special", "Twin")] == ["Special.Twin.Inner"]
    # From there to another branch, and back up.
    assert len(server.browse("Types", "Arrays")) == 19
    assert len(server.browse("Ramps")) == 10
    assert len(server.browse()) == len(TREE)


def test_a_branch_that_is_not_there_fails_alone(worker):
    for da, calls in [(2, "ChangeBrowsePosition"), (3, "Browse")]:
        server = worker(da=da)
        failed = server.ask("Browse", server.browse_body("Types", "Nothing"), "Failed")
        assert failed["call"].startswith(calls), failed
        assert len(server.browse("Types", "Arrays")) == 19


@pytest.mark.parametrize("da", [2, 3])
def test_what_ends_earlier_for_the_server_is_no_item(worker, da):
    server = worker(da=da)
    item = "Types.I4\0.Setpoint"
    assert server.read(item, "Types.I4")[0] == Error(INVALID)
    assert server.read("Types.I4", item)[0]["value"] == ("I4", -2_000_000_000)
    assert server.write((item, ("I4", 5)), ("Types.I2", ("I2", 7))) == [INVALID, 0]
    assert server.read("Types.I4", "Types.I2")[0]["value"] == ("I4", -2_000_000_000)
    assert server.properties([item, "Special.Analog", item])[::2] == [Error(INVALID)] * 2
    server.group("AddGroup", 1)
    assert server.add_items(1, {1: item, 2: "Types.I4"})[0] == Error(INVALID)
    assert set(server.values_until(lambda seen: seen)) == {(1, 2)}
    failed = server.ask("Browse", server.browse_body("Types\0x", item_id="Types\0x"), "Failed")
    assert failed["hresult"] == INVALID


FLAT = [
    {"flat": True},
    {"only_flat": True},
    {"only_flat": True, "flat_lies": True},
    {"flat": True, "ignores_kind": True},
    {"flat": True, "ignores_kind": True, "no_organization": True},
    {"flat": True, "ignores_kind": True, "no_organization": True, "stays": True},
    {"flat": True, "ignores_kind": True, "no_item_ids": True},
    {"flat": True, "no_flat": True, "no_item_ids": True},
]


@pytest.mark.parametrize("keys", FLAT)
def test_a_flat_space_is_browsed(worker, keys):
    server = worker(many=10, **keys)
    root = server.browse()
    assert all(entry["is_item"] and not entry["is_branch"] for entry in root), root
    names = {entry["item_id"] for entry in root}
    assert {"Types.I4", "Many.Item00009", "Special.With spaces", "Control"} <= names
    assert not names & {"Types", "Many", "Special"}


@pytest.mark.parametrize("da", [2, 3])
def test_many_items_stream(worker, da):
    server = worker(da=da, many=50_000)
    replies = server.wait(server.send("Browse", server.browse_body("Many", item_id="Many")), 120)
    pieces = [body["entries"] for _, _, body in replies]
    assert sum(map(len, pieces)) == 50_000 and len(pieces) > 40
    assert {len(entry["item_id"]) for piece in pieces for entry in piece} == {len("Many.Item00000")}


@pytest.mark.parametrize("more", [{}, {"no_organization": True}])
def test_a_tree_whose_lists_are_the_same_for_all_kinds_is_no_flat_one(worker, more):
    server = worker(ignores_kind=True, **more)
    assert {entry["name"] for entry in server.browse() if entry["is_branch"]} == set(TREE)
    assert len(server.browse("Ramps")) == 10


@pytest.mark.parametrize("keys", [{"no_points": True}, {"one_point": True}])
def test_a_level_is_whole_whatever_its_continuation_points_are(worker, keys):
    server = worker(da=3, many=3500, **keys)
    names = [entry["name"] for entry in server.browse("Many", item_id="Many")]
    assert names == [f"Item{n:05}" for n in range(3500)]


def test_reads_without_a_group_that_fail_are_made_with_one(worker):
    server = worker(da=3, item_io_fails=True)
    assert [reading["value"] for reading in server.read("Types.I4", "Types.R8")] == [("I4", -2_000_000_000), ("R8", 2.25)]


def test_one_bad_item_spoils_no_other(worker):
    server = worker(all_or_none=True, many=1000)
    server.group("AddGroup", 1)
    items = {n: f"Many.Item{n:05}" for n in range(1000)} | {77: "Nowhere", 901: "Nowhere too"}
    added = server.add_items(1, items)
    assert {n for n, answer in enumerate(added) if isinstance(answer, Error)} == {77, 901}
    seen = server.values_until(lambda seen: len(seen) == 998)
    assert seen[1, 999]["value"] == ("I4", 999)
    # More of them than can be told apart: not for ever, and no other answer than the server's.
    assert set(server.add_items(1, {n: f"Nowhere {n}" for n in range(5000, 6000)})) == {Error(0x80070057)}


def test_items_that_the_server_forgot_are_added_again(worker):
    server = worker()
    assert server.read("Types.I4")[0]["value"] == ("I4", -2_000_000_000)
    for _ in range(2):
        server.command("forget")
        time.sleep(0.3)
        assert server.read("Types.I4", "Nowhere", "Types.R8")[::2][0]["value"] == ("I4", -2_000_000_000)
        server.command("forget")
        time.sleep(0.3)
        assert server.write(("Types.R8", ("R8", 4.5))) == [0]


@pytest.mark.parametrize("da", [2, 3])
def test_properties(worker, da):
    server = worker(da=da)
    analog, unknown = server.properties(["Special.Analog", "Nowhere"])
    assert unknown == Error(UNKNOWN)
    values = {one["id"]: one["value"] for one in analog}
    assert values[100] == ("Text", "°C") and values[102] == ("R8", 150.0) and values[5000] == ("U1", 7)
    assert values[1] == ("I2", 5) and values[5] == ("I4", 3)
    assert {one["id"]: one["description"] for one in analog}[103] == "Low EU"
    (some,) = server.properties(["Special.MultiState"], [8, 101])
    assert [one["id"] for one in some if not isinstance(one["value"], Error)] == [8]
    assert some[0]["value"] == ("Array", [3], "Text", ["off", "slow", "fast"])


def test_groups_call_back(worker):
    server = worker(da=3)
    assert server.group("AddGroup", 7, rate=10) == {"revised_rate": 50, "result": UNSUPPORTED_RATE}
    assert server.group("AddGroup", 8, rate=200) == {"revised_rate": 200, "result": 0}
    added = server.add_items(7, {70: "Ramps.Ramp0", 71: "Nowhere", 72: "Special.Bad"})
    assert added == [{"canonical_type": 5, "access_rights": 1}, Error(UNKNOWN), {"canonical_type": 5, "access_rights": 3}]
    server.add_items(8, {80: "Ramps.Ramp1"})
    first = server.values_until(lambda seen: {(7, 70), (7, 72), (8, 80)} <= set(seen))
    assert first[7, 72]["quality"] == 0x18
    later = server.values_until(lambda seen: seen.get((7, 70), first[7, 70])["time"] > first[7, 70]["time"])
    # What does not change is not told again, unless asked for.
    assert (7, 72) not in later
    server.ask("Refresh", varint(7), "Done")
    server.values_until(lambda seen: (7, 72) in seen)
    server.remove_items(7, [70])
    server.ask("RemoveGroup", varint(8), "Done")
    assert server.silent_for(2)
    # An empty event is the group's sign of life.
    server.add_items(7, {73: "Ramps.Ramp2"})
    server.values_until(lambda seen: (7, 73) in seen)
    server.group("SetGroup", 7, rate=100, active=False)
    assert server.silent_for(2)
    failed = server.ask("Refresh", varint(7), "Failed")
    assert failed == {"call": "Refresh2", "hresult": 0x80004005}
    assert server.ask("Refresh", varint(99), "Failed")["hresult"] == 0xC0040001


def test_a_quiet_group_keeps_alive(worker):
    server = worker(da=3)
    server.group("AddGroup", 1)
    server.add_items(1, {1: "Types.I4"})
    server.values_until(lambda seen: (1, 1) in seen)
    assert server.next("Data") == {"group": 1, "values": []}


def test_a_deadband_is_the_servers_to_keep(worker):
    server = worker()
    server.group("AddGroup", 1, deadband=10.0)
    server.add_items(1, {1: "Special.Analog", 2: "Special.TwoState"})
    server.values_until(lambda seen: len(seen) == 2)
    server.write(("Special.Analog", ("R8", 20.0)))
    assert server.silent_for(2)
    server.write(("Special.Analog", ("R8", 60.0)))
    assert server.values_until(lambda seen: (1, 1) in seen)[1, 1]["value"] == ("R8", 60.0)


def test_a_server_that_cannot_call_back_is_polled(worker):
    server = worker(mute=True)
    server.group("AddGroup", 1, rate=100)
    server.add_items(1, {1: "Ramps.Ramp0", 2: "Types.I4"})
    assert "polled" in server.next("Said")
    first = server.values_until(lambda seen: {(1, 1), (1, 2)} <= set(seen))
    later = server.values_until(lambda seen: seen.get((1, 1), first[1, 1])["value"] != first[1, 1]["value"])
    assert (1, 2) not in later
    server.ask("Refresh", varint(1), "Done")
    server.values_until(lambda seen: (1, 2) in seen)


def test_a_group_is_polled_if_that_is_wanted(worker):
    server = worker(never_calls=True)
    server.group("AddGroup", 1, rate=100)
    server.add_items(1, {1: "Ramps.Ramp0"})
    assert server.silent_for(2)
    server.group("PollGroup", 1, rate=100)
    server.add_items(1, {2: "Ramps.Ramp0"})
    first = server.values_until(lambda seen: (1, 2) in seen)
    server.values_until(lambda seen: seen.get((1, 2), first[1, 2])["value"] != first[1, 2]["value"])


def test_a_slow_browse_delays_nothing_else(worker):
    server = worker(many=100)
    server.command("slow 50")
    browse = server.send("Browse", server.browse_body("Many"))
    for _ in range(3):
        server.status()
        server.read("Types.I4")
    assert server.wait(browse, 0) is None, "the browse was too fast to tell"
    assert len(server.wait(browse)) >= 1


def test_a_frozen_server_freezes_only_who_asks(worker):
    server = worker()
    server.group("AddGroup", 1)
    server.add_items(1, {1: "Ramps.Ramp0"})
    server.values_until(lambda seen: seen)
    server.command("freeze")
    assert server.silent_for(1)
    assert server.wait(server.send("Status"), 3) is None
    assert server.process.poll() is None
    # The end of its input is the end of it all the same.
    server.close()


def test_a_server_that_dies_takes_its_worker_along(worker):
    server = worker()
    number = server.send("Write", varint(1) + text("Control") + b"\x0f" + text("die"))
    assert server.wait(number) is None and server.ended
    assert server.process.wait(60) != 0


def test_a_server_says_goodbye_or_nothing(worker):
    server = worker()
    server.group("AddGroup", 1)
    server.add_items(1, {1: "Ramps.Ramp0"})
    server.command("silence")
    assert server.silent_for(2)
    assert server.status()["state"] == 1
    server.command("shutdown")
    assert server.next("Shutdown") == "told to"
    assert server.close() == 0


@pytest.mark.parametrize("garbage", [b"\xff" * 64, struct.pack("<I", 5) + b"\xff" * 5, b"\x01\x00"])
def test_garbage_ends_the_worker(worker, garbage):
    server = worker()
    server.process.stdin.write(garbage)
    server.process.stdin.flush()
    if len(garbage) < 4:
        server.process.stdin.close()
    assert server.process.wait(60) == 0


@pytest.mark.parametrize("da", [2, 3])
def test_memory_stays_as_it_is(worker, da):
    server = worker(da=da, ramps=1000, many=100)
    items = [item for item in VALUES] * 10
    server.group("AddGroup", 1)
    server.add_items(1, {n: f"Ramps.Ramp{n}" for n in range(1000)})

    def use(rounds):
        """360 values, 36 writes, some browsing and properties a round, and 20 000 callbacks a second beside."""
        for _ in range(rounds):
            server.read(*items)
            server.write(*VALUES.items())
            server.browse("Special")
            server.properties(["Special.Analog", "Special.MultiState", "Nowhere"])
            while not server.events.empty():
                server.events.get()

    use(60)
    before = server.memory()
    use(280)
    grown = server.memory() - before
    assert grown < 1 << 20, f"{grown} bytes after 100 000 values"


# What comes of values that nobody means; None: whatever it is.
HOSTILE = {
    "Infinite": ("R4", float("-inf")),
    "Record": ("Unsupported", 36),
    "Records": ("Empty",),
    "Object": ("Unsupported", 9),
    "Nowhere": ("Unsupported", 0x4003),
    "Type": ("Unsupported", 0x0FFF),
    "Deep": None,
    "Huge": ("Text", "h" * (1 << 20)),
    "Quality": ("I4", 5),
    "n" * (1 << 16): ("I4", 5),
}


@pytest.mark.parametrize("da", [2, 3])
def test_what_no_honest_server_says_harms_nobody(worker, da):
    server = worker(da=da, hostile=True)
    items = [f"Hostile.{name}" for name in HOSTILE]
    server.group("AddGroup", 1)
    server.add_items(1, dict(enumerate(items)))
    called = server.values_until(lambda seen: len(seen) == len(items))
    for values in (server.read(*items), [called[1, n] for n in range(len(items))]):
        for reading, (name, expected) in zip(values, HOSTILE.items()):
            assert expected is None or reading["value"] == expected, name[:20]
            assert reading["quality"] == (0xFFBF if name == "Quality" else 0xC0), name[:20]
    (nan,) = server.read("Hostile.NaN")
    assert nan["value"][1] != nan["value"][1]
    # What it counts cannot be: nothing of that is believed, and what is asked next is answered.
    assert server.properties(["Hostile.Counts"]) in ([[]], [Error(0x80004003)])
    assert len(server.browse("Hostile")) == len(HOSTILE) + 2
    assert server.read("Types.I4")[0]["value"] == ("I4", -2_000_000_000)
    assert server.close() == 0


def test_a_server_that_dies_when_it_is_to_call_back_takes_its_worker_along(worker):
    server = worker(dies_in_advise=True)
    number = server.send("AddGroup", varint(1) + varint(100) + struct.pack("<f", 0) + b"\x01")
    assert server.wait(number) is None and server.ended
