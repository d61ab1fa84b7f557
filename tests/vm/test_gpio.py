"""Lines of a real GPIO chip, seen by a UA client: the PL061 of QEMU's machine, whose line 3 is the power button.

Debian's kernel has neither gpio-sim nor gpio-mockup. QEMU presses the button when it is told to (system_powerdown): line 3
goes high for a moment, which are real edges with the kernel's timestamps.
"""

import json
import socket

import pytest
from appliance import START, Notifications, appliance_with, child, is_good, status_of
from asyncua import ua
from machine import wait_until

CHIP = "9030000.pl061"
CONFIG = f"""
[device]
name = "vedette-vm"
[ua_server]
listen = "0.0.0.0:4840"
anonymous = "operator"
[[gpio]]
name = "io"
chip = "{CHIP}"
interval = "200ms"
[[gpio.line]]
name = "button"
line = 3
count = true
states = ["released", "pressed"]
[[gpio.line]]
name = "lamp"
line = 5
direction = "out"
initial = true
[[gpio.line]]
name = "dark lamp"
line = 4
direction = "out"
active_low = true
[[gpio.line]]
name = "taken"
line = 6
[[gpio.line]]
name = "missing"
line = "NOPE"
"""
# Somebody else has line 6 before the firmware starts.
DRIVERS = """
mount -t debugfs none /sys/kernel/debug
base=$(cat /sys/class/gpio/gpiochip*/base)
echo $((base + 6)) >/sys/class/gpio/export
"""


@pytest.fixture
def monitor(tmp_path):
    return tmp_path / "qmp"


@pytest.fixture
def appliance(tmp_path, monitor):
    folder = tmp_path / "appliance"
    folder.mkdir()
    with appliance_with(folder, CONFIG, DRIVERS, more=("-qmp", f"unix:{monitor},server=on,wait=off")) as appliance:
        yield appliance


def press(monitor):
    """The power button, for a tenth of a second."""
    with socket.socket(socket.AF_UNIX) as qmp:
        qmp.connect(str(monitor))
        lines = qmp.makefile("rw")
        lines.readline()
        for command in ("qmp_capabilities", "system_powerdown"):
            lines.write(json.dumps({"execute": command}) + "\n")
            lines.flush()
            while "return" not in json.loads(lines.readline()):
                pass


def status(node) -> str:
    return status_of(node.read_data_value(raise_on_bad_status=False)).name


def kernel_says(appliance, number: int) -> str:
    """What the kernel itself says of a line of ours: `out hi`."""
    base = int(appliance.machine.check("cat /sys/class/gpio/gpiochip*/base"))
    lines = appliance.machine.check("cat /sys/kernel/debug/gpio").splitlines()
    line = next((line for line in lines if f"gpio-{base + number} " in line), "")
    assert "vedette" in line, lines
    return " ".join(line.split(")", 1)[1].split()[:2])


def test_lines_of_a_chip(appliance, monitor):
    io = child(appliance.client.nodes.objects, "Tags", "io")
    button, count, lamp, dark, taken, missing = (
        child(io, name) for name in ("button", "button_count", "lamp", "dark lamp", "taken", "missing")
    )

    # Edges, with the kernel's times.
    wait_until(lambda: status(button) == "Good", START, "the button is there")
    assert button.read_value() is False and count.read_value() == 0
    with appliance.subscribed(button, 0.0) as seen:
        assert isinstance(seen, Notifications)
        press(monitor)
        pressed = seen.wait_for(lambda one: is_good(one) and one.value.Value.Value, START, "press")
        released = seen.wait_for(
            lambda one: is_good(one) and not one.value.Value.Value, START, "release", since=pressed.arrived
        )
        assert released.value.SourceTimestamp > pressed.value.SourceTimestamp
        wait_until(lambda: count.read_value() == 2, START, "both edges are counted")
    press(monitor)
    wait_until(lambda: count.read_value() == 4, START, "the next two as well")

    # Outputs, as the kernel sees them.
    assert lamp.read_value() is True and kernel_says(appliance, 5) == "out hi"
    lamp.write_value(ua.DataValue(False))
    assert lamp.read_value() is False and kernel_says(appliance, 5) == "out lo"
    assert dark.read_value() is False and kernel_says(appliance, 4) == "out hi"
    with pytest.raises(ua.UaStatusCodeError):
        button.write_value(ua.DataValue(True))

    # One that is somebody else's, until it is free; one that there is not.
    assert status(taken) == "BadResourceUnavailable" and status(missing) == "BadConfigurationError"
    log = appliance.machine.firmware_log()
    appliance.machine.check("echo $(($(cat /sys/class/gpio/gpiochip*/base) + 6)) >/sys/class/gpio/unexport")
    wait_until(lambda: status(taken) == "Good", START, "the line is ours")

    # The chip is pulled out and plugged in again.
    driver = "/sys/bus/amba/drivers/pl061_gpio"
    appliance.machine.check(f"echo {CHIP} >{driver}/unbind")
    for node in (button, count, lamp, taken):
        wait_until(lambda node=node: status(node) == "BadNotConnected", START, "it is lost")
    with pytest.raises(ua.UaStatusCodeError):
        lamp.write_value(ua.DataValue(True))
    appliance.machine.check(f"echo {CHIP} >{driver}/bind")
    wait_until(lambda: status(lamp) == "Good" and lamp.read_value() is True, START, "it is back, with its initial value")
    assert kernel_says(appliance, 5) == "out hi"
    wait_until(lambda: status(count) == "Good" and count.read_value() == 4, START, "the count goes on")
    press(monitor)
    wait_until(lambda: count.read_value() == 6, START, "edges are told again")
    assert "panicked" not in log + appliance.machine.firmware_log()
