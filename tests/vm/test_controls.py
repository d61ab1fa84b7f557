"""A camera's controls as UA variables: vivid has one of every type, and v4l2-ctl is the other who looks and changes."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from appliance import START, appliance_with, child, is_bad, is_good, status_of
from asyncua import ua
from machine import wait_until

# How long a change may take from the driver to a client, over an emulated machine with 200 ms of sampling.
SOON = 1.0
# The firmware closes a device this long after the last who asked for its controls.
LINGER = 3.0

# v4l2-ctl's word for a type, and what that is in UA.
TYPES = {
    "int": (ua.ObjectIds.Int32, ua.ObjectIds.AnalogItemType),
    "int64": (ua.ObjectIds.Int64, ua.ObjectIds.AnalogItemType),
    "bool": (ua.ObjectIds.Boolean, ua.ObjectIds.TwoStateDiscreteType),
    "button": (ua.ObjectIds.Boolean, ua.ObjectIds.BaseDataVariableType),
    "menu": (ua.ObjectIds.UInt32, ua.ObjectIds.MultiStateDiscreteType),
    "intmenu": (ua.ObjectIds.UInt32, ua.ObjectIds.MultiStateDiscreteType),
    "bitmask": (ua.ObjectIds.UInt32, ua.ObjectIds.BaseDataVariableType),
    "str": (ua.ObjectIds.String, ua.ObjectIds.BaseDataVariableType),
    "u8": (ua.ObjectIds.Byte, ua.ObjectIds.AnalogItemType),
    "u16": (ua.ObjectIds.UInt16, ua.ObjectIds.AnalogItemType),
    "u32": (ua.ObjectIds.UInt32, ua.ObjectIds.AnalogItemType),
    "area": (ua.ObjectIds.UInt32, ua.ObjectIds.AnalogItemType),
}


@dataclass
class Listed:
    """A control in the list of v4l2-ctl."""

    kind: str
    facts: dict[str, str]
    flags: set[str]
    entries: dict[int, str]
    dimensions: list[int]


def listed(text: str) -> dict[str, Listed]:
    """Reads `v4l2-ctl -L`: `name 0x00980900 (int) : min=0 max=255 ... flags=slider`, and the entries of menus."""
    found, last = {}, None
    for line in text.splitlines():
        if control := re.match(r" +(\w+) 0x[0-9a-f]+ \((\w+)\) *: (.*)", line):
            name, kind, rest = control.groups()
            facts = dict(re.findall(r"(\w+)=('[^']*'|[^ ]+)", rest))
            flags = set(rest.partition("flags=")[2].split(", "))
            dimensions = [int(size) for size in re.findall(r"\[(\d+)\]", rest)]
            last = found[name] = Listed(kind, facts, flags, {}, dimensions)
        elif entry := re.match(r"\t+(\d+): (.*)", line):
            # Behind a number v4l2-ctl says it again, in hexadecimal.
            last.entries[int(entry[1])] = entry[2].partition(" (0x")[0] if last.kind == "intmenu" else entry[2]
    return found


class Controls:
    """The variables below Controls, by the names that v4l2-ctl makes of theirs."""

    def __init__(self, appliance):
        self.machine, self.client, self.subscribed = appliance.machine, appliance.client, appliance.subscribed
        folder = wait_until(lambda: self._folder(), START, "the camera has controls")
        self.names = {node.read_browse_name().Name: node for node in folder.get_children()}
        self.nodes = {re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"): node for name, node in self.names.items()}

    def _folder(self):
        camera = child(self.client.nodes.objects, "Cameras", "line1")
        return {node.read_browse_name().Name: node for node in camera.get_children()}.get("Controls")

    def __getitem__(self, name):
        return self.nodes[name]

    def read(self, name):
        return self[name].read_value()

    def status(self, name) -> str:
        return status_of(self[name].read_data_value(raise_on_bad_status=False)).name

    def write(self, name, value) -> str:
        """Writes with the type of the variable: the name of the status."""
        node = self[name]
        kind = node.read_data_type_as_variant_type()
        try:
            node.write_value(ua.DataValue(ua.Variant(value, kind)))
        except ua.UaStatusCodeError as error:
            return ua.StatusCode(error.code).name
        return "Good"

    def driver(self, name) -> str:
        """What the driver has, as v4l2-ctl shows it."""
        return self.machine.check(f"v4l2-ctl -d /dev/video0 -C {name}").split(":", 1)[1].strip()

    def set(self, **values):
        """Sets controls behind the firmware's back."""
        self.machine.set_controls(**values)


@pytest.fixture(scope="module")
def controls(tmp_path_factory):
    config = Path(__file__).with_name("vedette.toml").read_text()
    with appliance_with(tmp_path_factory.mktemp("vm"), config) as appliance:
        yield Controls(appliance)


@pytest.fixture(autouse=True)
def log(controls):
    yield
    # pytest shows this for a test that failed.
    print(f"the firmware's log:\n{controls.machine.firmware_log()[-4000:]}")


def property_of(node, name):
    found = {prop.read_browse_name().Name: prop for prop in node.get_properties()}.get(name)
    return found and found.read_value()


def test_every_control_of_the_driver_is_a_variable_with_its_type_and_limits(controls):
    driver = listed(controls.machine.check("v4l2-ctl -d /dev/video0 -L"))
    assert {control.kind for control in driver.values()} == set(TYPES), "vivid has one of each"
    assert set(controls.nodes) == set(driver)
    for name, control in driver.items():
        node = controls[name]
        data_type, variable_type = TYPES[control.kind]
        assert node.read_data_type() == ua.NodeId(data_type), name
        assert node.read_type_definition() == ua.NodeId(variable_type), name
        is_array = bool(control.dimensions) or control.kind == "area"
        assert node.read_value_rank() == (ua.ValueRank.OneDimension if is_array else ua.ValueRank.Scalar), name
        writable = ua.AccessLevel.CurrentWrite in node.get_access_level()
        assert writable == ("read-only" not in control.flags), name
        span = property_of(node, "EURange")
        if variable_type == ua.ObjectIds.AnalogItemType and control.kind != "area":
            assert (span.Low, span.High) == (float(control.facts["min"]), float(control.facts["max"])), name
        if control.kind == "bool":
            assert [property_of(node, f"{state}State").Text for state in ("False", "True")] == ["off", "on"], name
        states = property_of(node, "EnumStrings")
        if control.entries:
            gaps = {index: "" for index in range(max(control.entries) + 1)}
            assert dict(enumerate(state.Text or "" for state in states)) == gaps | control.entries, name
        else:
            assert states is None, name


def test_node_ids_are_the_names(controls):
    assert controls["brightness"].nodeid.Identifier == "Cameras/line1/Controls/Brightness"
    assert controls["gain_automatic"].nodeid.Identifier == "Cameras/line1/Controls/Gain, Automatic"


def test_the_values_are_the_drivers(controls):
    driver = listed(controls.machine.check("v4l2-ctl -d /dev/video0 -L"))
    numbers = {name: control for name, control in driver.items() if control.kind in ("int", "int64", "menu", "intmenu")}
    assert len(numbers) > 30
    for name, control in numbers.items():
        if "volatile" not in control.flags:
            assert controls.read(name) == int(control.facts["value"]), name
    assert controls.read("bitmask") == 0x80002000
    assert controls.read("string") == "  "
    assert controls.read("area") == [1000, 2000]
    for name in ("u32_1_element_array", "u16_8x16_matrix", "u8_2x3x4x5_array"):
        size = 1
        for dimension in driver[name].dimensions:
            size *= dimension
        assert list(controls.read(name)) == [24] * size, name
    assert controls.read("boolean") is True and controls.read("button") is False


@pytest.mark.parametrize(
    "name, value, shown",
    [
        ("brightness", 77, "77"),
        ("hue", -128, "-128"),
        ("mute", True, "1"),
        ("menu", 4, "4"),
        ("integer_menu", 8, "8"),
        ("integer_64_bits", -(2**63), str(-(2**63))),
        ("integer_32_bits", 2**31 - 1, str(2**31 - 1)),
        ("bitmask", 0x80400010, "0x80400010"),
        ("string", "abc", "'abc'"),
        ("area", [640, 480], "640x480"),
    ],
)
def test_what_is_written_is_what_the_driver_has(controls, name, value, shown):
    assert controls.write(name, value) == "Good"
    # v4l2-ctl shows some as a number, some in hexadecimal, and a name behind it in brackets.
    driver = controls.driver(name).split(" (")[0]
    assert driver == shown or (name == "bitmask" and int(driver, 0) & 0xFFFFFFFF == value), driver
    assert controls.read(name) == value


@pytest.mark.parametrize(
    "name, value",
    [
        ("u32_1_element_array", [131072]),
        ("u16_8x16_matrix", [16 + index for index in range(8 * 16)]),
        ("u8_2x3x4x5_array", [16 + index % 17 for index in range(120)]),
        ("u32_dynamic_array", [10, 90, 11]),
        ("u32_dynamic_array", [20]),
    ],
)
def test_arrays_are_written_and_read_back(controls, name, value):
    assert controls.write(name, value) == "Good"
    # The firmware closes the device, so that the next read is one of the driver.
    wait_closed(controls)
    assert [int(element) for element in controls.read(name)] == value


@pytest.mark.parametrize(
    "name, value, status",
    [
        ("brightness", 256, "BadOutOfRange"),
        ("brightness", -1, "BadOutOfRange"),
        ("hue", 129, "BadOutOfRange"),
        ("menu", 2, "BadOutOfRange"),
        ("menu", 0, "BadOutOfRange"),
        ("menu", 5, "BadOutOfRange"),
        ("integer_menu", 1, "BadOutOfRange"),
        ("bitmask", 1, "BadOutOfRange"),
        ("string", "a", "BadOutOfRange"),
        ("string", "abcde", "BadOutOfRange"),
        ("area", [0, 5], "BadOutOfRange"),
        ("area", [5], "BadOutOfRange"),
        ("u32_1_element_array", [15], "BadOutOfRange"),
        ("u32_1_element_array", [16, 16], "BadOutOfRange"),
        ("u8_2x3x4x5_array", [16] * 119, "BadOutOfRange"),
        ("u32_dynamic_array", [50] * 101, "BadOutOfRange"),
        ("dv_timings_signal_mode", 1, "BadInvalidState"),
        ("gain", 5, "BadInvalidState"),
        ("read_only_integer_32_bits", 5, "BadNotWritable"),
    ],
)
def test_what_a_control_does_not_take_is_refused_with_a_fitting_status(controls, name, value, status):
    before = controls.read(name)
    assert controls.write(name, value) == status
    if name != "gain":
        assert controls.read(name) == before


def test_another_type_is_refused(controls):
    for value in (ua.Variant(5.0, ua.VariantType.Double), ua.Variant([5], ua.VariantType.Int32), ua.Variant()):
        with pytest.raises(ua.UaStatusCodeError) as refused:
            controls["brightness"].write_value(ua.DataValue(value))
        assert refused.value.code == ua.StatusCodes.BadTypeMismatch


def test_a_change_by_others_is_reported_within_a_fraction_of_a_second(controls):
    for name, value, expected in [
        ("brightness", 11, 11),
        ("menu", 1, 1),
        ("string", "zz", "zz"),
        ("u32_1_element_array", 999, [999]),
    ]:
        with controls.subscribed(controls[name]) as seen:
            seen.wait_for(is_good, 5, f"first value of {name}")
            started = time.monotonic()
            controls.set(**{name: value})
            done = time.monotonic()
            change = seen.wait_for(lambda one: one.value.Value.Value == expected, 5, f"{name} = {expected}", started)
            took = change.arrived - done
            print(f"{name}: {took:.3f} s after v4l2-ctl had ended, which took {done - started:.3f} s")
            assert took < SOON


def test_a_volatile_control_is_read_live_and_another_control_makes_it_writable(controls):
    # vivid's gain goes up by one each second while it is automatic.
    controls.set(gain_automatic=1)
    first = controls.read("gain")
    wait_until(lambda: controls.read("gain") != first, 5, "another gain is read")
    with controls.subscribed(controls["gain"]) as seen:
        seen.wait_for(is_good, 5, "first gain")
        time.sleep(5)
        values = {one.value.Value.Value for one in seen.since(0)}
        assert len(values) >= 4, f"a monitored one is looked at each second, but: {values}"

        assert controls.write("gain_automatic", False) == "Good"
        assert controls.write("gain", 200) == "Good"
        assert (controls.driver("gain"), controls.read("gain")) == ("200", 200)
        seen.wait_for(lambda one: one.value.Value.Value == 200, 5, "gain 200")
    assert controls.write("gain_automatic", True) == "Good"
    assert controls.write("gain", 5) == "BadInvalidState"


def test_a_button_is_pressed_by_true(controls):
    wait = "v4l2-ctl -d /dev/video0 --wait-for-event=ctrl=button >/tmp/pressed 2>&1"
    controls.machine.check(f"{wait} & echo $! >/tmp/waiter; sleep 1")
    assert controls.write("button", False) == "Good"
    time.sleep(1)
    assert controls.machine.sh("kill -0 $(cat /tmp/waiter)").code == 0, "false presses nothing"
    assert controls.write("button", True) == "Good"
    wait_until(lambda: controls.machine.sh("kill -0 $(cat /tmp/waiter)").code != 0, 5, "the event")
    assert controls.read("button") is False


def held_open(controls) -> bool:
    """Whether the firmware has the camera open."""
    return controls.machine.sh("ls -l /proc/$(pidof vedette)/fd | grep -q /dev/video0").code == 0


def wait_closed(controls):
    wait_until(lambda: not held_open(controls), LINGER + 5, "the firmware has closed the camera")


def test_a_camera_is_open_while_its_controls_are_monitored_and_closed_else(controls):
    with controls.subscribed(controls["brightness"]) as seen:
        seen.wait_for(is_good, 5, "first value")
        end = time.monotonic() + 2 * LINGER
        while time.monotonic() < end:
            assert held_open(controls)
    wait_closed(controls)
    # What changes meanwhile is read by whoever wants it.
    controls.set(brightness=33)
    assert controls.read("brightness") == 33
    wait_closed(controls)
    assert controls.write("brightness", 34) == "Good"
    assert controls.driver("brightness") == "34"


def test_a_lost_camera_is_bad_within_a_second_and_comes_back(controls):
    with controls.subscribed(controls["brightness"]) as seen:
        seen.wait_for(is_good, 5, "first value")
        pressed = time.monotonic()
        assert controls.write("disconnect", True) == "Good"
        # vivid brings it back when the last who had it open has closed it: so it was closed.
        lost = seen.wait_for(is_bad, 5, "Bad", since=pressed)
        assert lost.status.name == "BadNotConnected"
        assert lost.arrived - pressed < SOON
        back = seen.wait_for(is_good, 5, "Good again", since=lost.arrived)
        print(f"Bad after {lost.arrived - pressed:.3f} s, Good again after {back.arrived - pressed:.3f} s")
    assert controls.write("brightness", 99) == "Good"


def test_a_driver_may_be_unloaded_and_loaded_again(controls):
    wait_closed(controls)
    before = {name: node.nodeid for name, node in controls.names.items()}
    controls.machine.check("rmmod vivid")
    wait_until(lambda: controls.status("brightness") == "BadNotConnected", 2, "Bad without a driver")
    assert controls.write("brightness", 5) == "BadNotConnected"
    controls.machine.check("modprobe vivid n_devs=1 node_types=0x1 no_error_inj=0", timeout=60)
    wait_until(lambda: controls.status("brightness") == "Good", 5, "Good again")
    assert controls.read("brightness") == 128
    after = child(controls.client.nodes.objects, "Cameras", "line1", "Controls").get_children()
    assert {node.read_browse_name().Name: node.nodeid for node in after} == before
