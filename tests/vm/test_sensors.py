"""A real sensor driver, seen by a UA client: the thermometer of QEMU's NVMe disk, which is pulled out and put back.

Debian's kernel has neither iio_dummy nor i2c-stub, and QEMU's machine no I²C bus, so hwmon is what can be had.
"""

import pytest
from appliance import START, appliance_with, child, status_of
from machine import wait_until

CONFIG = """
[device]
name = "vedette-vm"
[ua_server]
listen = "0.0.0.0:4840"
[system]
interval = "500ms"
[[sensors]]
name = "sensors"
interval = "500ms"
"""


@pytest.fixture
def appliance(tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    more = ("-drive", f"file={disk},if=none,id=disk,format=raw", "-device", "nvme,serial=one,drive=disk")
    folder = tmp_path / "appliance"
    folder.mkdir()
    with appliance_with(folder, CONFIG, "modprobe nvme\n", more=more) as appliance:
        yield appliance


def status(node) -> str:
    return status_of(node.read_data_value(raise_on_bad_status=False)).name


def test_the_thermometer_of_a_disk_that_comes_and_goes(appliance):
    tags = child(appliance.client.nodes.objects, "Tags")

    def below(*path):
        node = tags
        for name in path:
            found = {one.read_browse_name().Name: one for one in node.get_children()}
            if name not in found:
                return None
            node = found[name]
        return node

    composite = wait_until(lambda: below("sensors", "hwmon", "nvme", "Composite"), 4 * START, "it is found")
    wait_until(lambda: status(composite) == "Good", START, "a reading")
    # QEMU's says 323 K.
    assert abs(composite.read_value() - 49.85) < 0.5
    size = wait_until(lambda: below("system", "storage", "nvme0n1", "size"), START, "the disk")
    assert size.read_value() == 1 << 20

    appliance.machine.check("for d in /sys/class/nvme/nvme0/device; do echo 1 >$(readlink -f $d)/remove; done")
    wait_until(lambda: status(composite) == "BadNotConnected", START, "it is lost")
    wait_until(lambda: status(size) == "BadNotConnected", START, "and so is the disk")
    appliance.machine.check("echo 1 >/sys/bus/pci/rescan")
    wait_until(lambda: status(composite) == "Good", 4 * START, "it is back")
