"""The firmware in an emulated arm64 machine, its camera a real V4L2 driver, seen by a UA client from outside.

asyncua is the client. It is used through its blocking interface: its own thread then keeps the session alive while
a test waits for the emulated machine.

The binary under test: VEDETTE_BINARY, or what scripts/cross left at target/dist/vedette-aarch64.
"""

import contextlib
import datetime
import io
import os
import shutil
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import pytest
from asyncua import ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.sync import Client, SyncNode, ThreadLoop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from machine import ROOT, Machine, MachineError, build_image, wait_until
from PIL import Image, ImageStat

# How long the camera runs on after its last lease; the firmware's default.
LINGER = 2.0
# From a slow host's point of view: opening the camera, the first frames, JPEG in software, all emulated.
START = 15.0
# JPEG and the way through YCbCr, but not another colour.
COLOUR_TOLERANCE = 24
APPLICATION_URI = "urn:vedette-test:client"


# -- Getting in: certificates, session, nodes


@dataclass
class Certificate:
    """A UA client's application instance certificate (OPC 10000-6, 6.2.2), signed by itself."""

    der: Path
    key: Path
    # How the server's trust list calls it: common name and SHA-1 thumbprint.
    file_name: str


def make_certificate(folder: Path, common_name: str = "vedette-test") -> Certificate:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    # The guest takes its clock from the host when it boots; the hour is for hosts that correct theirs.
    now = datetime.datetime.now(datetime.timezone.utc)
    usage = dict.fromkeys(
        ["key_cert_sign", "key_agreement", "crl_sign", "encipher_only", "decipher_only"], False
    ) | dict.fromkeys(["digital_signature", "content_commitment", "key_encipherment", "data_encipherment"], True)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(APPLICATION_URI), x509.DNSName(socket.gethostname())]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    der, pem = folder / "client.der", folder / "client.pem"
    der.write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return Certificate(der, pem, f"CN={common_name} [{certificate.fingerprint(hashes.SHA1()).hex()}].der")


def wait_for_server(url: str, tloop: ThreadLoop, timeout: float) -> list[ua.EndpointDescription]:
    """Waits for an answer in OPC UA: QEMU's network accepts TCP before anything in the guest listens."""
    end = time.monotonic() + timeout
    while True:
        try:
            return Client(url, timeout=5, tloop=tloop).connect_and_get_server_endpoints()
        # Whatever goes wrong before the server is up, from a closed socket to half a message.
        except Exception as error:
            if time.monotonic() >= end:
                raise MachineError(f"no UA server within {timeout:g} s, at last: {error!r}") from error
            time.sleep(0.5)


def child(node: SyncNode, *path: str) -> SyncNode:
    """Goes down by browse names, whatever namespace they are in."""
    for name in path:
        children = {found.read_browse_name().Name: found for found in node.get_children()}
        assert name in children, f"{node.read_browse_name().Name} has no {name!r}, only {sorted(children)}"
        node = children[name]
    return node


def status_of(value: ua.DataValue) -> ua.StatusCode:
    """A status that is Good is not sent (OPC 10000-6, 5.2.2.17)."""
    return value.StatusCode or ua.StatusCode(ua.StatusCodes.Good)


def decode(value: ua.DataValue) -> Image.Image:
    """The picture in a value, decoded to the end."""
    assert status_of(value).is_good(), status_of(value).name
    assert value.Value.VariantType == ua.VariantType.ByteString
    picture = Image.open(io.BytesIO(value.Value.Value))
    assert picture.format == "JPEG"
    picture.load()
    return picture


# -- What a subscriber saw


@dataclass
class Notification:
    # On this host's monotonic clock.
    arrived: float
    value: ua.DataValue

    @property
    def status(self) -> ua.StatusCode:
        return status_of(self.value)

    def __repr__(self) -> str:
        value = self.value.Value.Value if self.value.Value else None
        shown = f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)
        return f"[{self.arrived:.3f} {self.status.name} {shown}]"


class Notifications:
    """Collects what arrives for one monitored item; asyncua calls it from its own thread."""

    def __init__(self):
        self._all: list[Notification] = []
        self._changed = threading.Condition()

    def datachange_notification(self, _node, _value, data):
        with self._changed:
            self._all.append(Notification(time.monotonic(), data.monitored_item.Value))
            self._changed.notify_all()

    def since(self, moment: float) -> list[Notification]:
        with self._changed:
            return [seen for seen in self._all if seen.arrived >= moment]

    def wait_for(
        self, condition: Callable[[Notification], bool], timeout: float, what: str, since: float = 0.0
    ) -> Notification:
        """The first notification from `since` on that fits."""
        end = time.monotonic() + timeout
        with self._changed:
            while True:
                seen = [one for one in self._all if one.arrived >= since]
                if found := next(filter(condition, seen), None):
                    return found
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"no {what} within {timeout:g} s, only {seen[:25]}")
                self._changed.wait(left)


def is_good(seen: Notification) -> bool:
    return seen.status.is_good()


def is_bad(seen: Notification) -> bool:
    return seen.status.is_bad()


def text_of(seen: Notification) -> str:
    return str(seen.value.Value.Value) if seen.value.Value else ""


class Appliance:
    """The machine, a session with the server on it, and the nodes of its camera line1."""

    def __init__(self, machine: Machine, client: Client):
        self.machine = machine
        self.client = client
        objects = client.nodes.objects
        self.image = child(objects, "Cameras", "line1", "Camera Image")
        self.state = child(objects, "Cameras", "line1", "State")

    def show(self, pattern: str, text: str = "None"):
        """Lets the camera see a test pattern, and over it the text that changes with every frame, or not."""
        self.machine.set_controls(
            test_pattern=self.machine.menu("test_pattern")[pattern],
            osd_text_mode=self.machine.menu("osd_text_mode")[text],
        )

    def read(self) -> ua.DataValue:
        return self.image.read_data_value(raise_on_bad_status=False)

    @contextlib.contextmanager
    def subscribed(self, node: SyncNode, interval: float = 200.0):
        """A subscription of its own with one monitored item, whose reports are given."""
        seen = Notifications()
        subscription = self.client.create_subscription(100, seen)
        try:
            # A queue, so that a Bad that lasts less than a publishing interval is not lost behind the Good after it.
            subscription.subscribe_data_change(node, queuesize=10, sampling_interval=interval)
            yield seen
        finally:
            subscription.delete()

    def wait_idle(self):
        wait_until(lambda: not self.machine.is_streaming(), START, "the camera is not streaming")


@pytest.fixture(scope="module")
def appliance(tmp_path_factory):
    binary = Path(os.environ.get("VEDETTE_BINARY") or ROOT / "target/dist/vedette-aarch64")
    if not binary.is_file():
        pytest.fail(f"there is no binary at {binary}: make one with scripts/cross aarch64")

    folder = tmp_path_factory.mktemp("vm")
    certificate = make_certificate(folder)
    overlay = folder / "overlay"
    (overlay / "etc").mkdir(parents=True)
    (overlay / "data/pki/trusted").mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("vedette.toml"), overlay / "etc")
    shutil.copy(certificate.der, overlay / "data/pki/trusted" / certificate.file_name)
    image = build_image(folder / "initramfs.cpio.gz", binary, overlay)

    with Machine(image) as machine, ThreadLoop() as tloop:
        machine.wait_ready()
        url = f"opc.tcp://127.0.0.1:{machine.port}"
        try:
            # The first start makes a key of its own, which takes its time under emulation.
            wait_for_server(url, tloop, 120)
            client = Client(url, timeout=30, tloop=tloop)
            client.application_uri = APPLICATION_URI
            client.set_security(SecurityPolicyBasic256Sha256, str(certificate.der), str(certificate.key))
            client.connect()
        except Exception as error:
            raise MachineError(f"{error!r}; the firmware's log:\n{machine.firmware_log()}") from error
        try:
            yield Appliance(machine, client)
        finally:
            with contextlib.suppress(Exception):
                client.disconnect()


@pytest.fixture(autouse=True)
def from_idle(appliance):
    """Every test starts with a camera that nobody uses and that shows moving text over colour bars."""
    appliance.wait_idle()
    appliance.show("75% Colorbar", text="All")
    yield
    # pytest shows this for a test that failed.
    print(f"the firmware's log:\n{appliance.machine.firmware_log()[-4000:]}")


# -- The promises


def test_only_secure_endpoints_are_offered_on_the_network(appliance):
    endpoints = appliance.client.get_endpoints()
    assert endpoints
    assert all(endpoint.SecurityMode != ua.MessageSecurityMode.None_ for endpoint in endpoints), endpoints
    weak = ("#None", "#Basic128Rsa15", "#Basic256")
    assert not [e.SecurityPolicyUri for e in endpoints if e.SecurityPolicyUri.endswith(weak)]


def test_the_image_is_one_node_with_the_type_clients_show_as_a_picture(appliance):
    assert child(appliance.client.nodes.objects, "Camera Device", "Camera Image").nodeid == appliance.image.nodeid
    assert appliance.image.read_data_type() == ua.NodeId(ua.ObjectIds.ImageJPG)
    assert appliance.image.read_value_rank() == ua.ValueRank.Scalar


def test_reading_the_image_gives_a_picture_of_the_configured_size(appliance):
    assert decode(appliance.read()).size == (640, 480)


@pytest.mark.parametrize(
    "pattern, colour", [("100% Red", (255, 0, 0)), ("100% Green", (0, 255, 0)), ("100% Blue", (0, 0, 255))]
)
def test_the_picture_shows_what_the_camera_sees(appliance, pattern, colour):
    # The camera is idle, so the one read that follows cannot be answered by a picture from before.
    appliance.show(pattern)
    mean = ImageStat.Stat(decode(appliance.read()).convert("RGB")).mean
    assert mean == pytest.approx(colour, abs=COLOUR_TOLERANCE)


@pytest.mark.parametrize("pattern, level", [("100% Black", 0), ("100% White", 255)])
def test_black_is_black_and_white_is_white(appliance, pattern, level):
    # Cameras deliver luma from 16 to 235, JPEG has 0 to 255 (JFIF 1.02): unconverted, every picture is washed out.
    appliance.show(pattern)
    mean = ImageStat.Stat(decode(appliance.read()).convert("RGB")).mean
    assert mean == pytest.approx((level,) * 3, abs=8)


def test_without_reader_and_subscriber_the_camera_is_left_alone(appliance):
    machine = appliance.machine
    machine.log_stream_calls()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        assert not machine.is_streaming()
    assert machine.stream_calls() == []
    assert not machine.holds_buffers()
    assert appliance.state.read_value() == "idle"


def test_the_camera_streams_while_somebody_subscribes_and_stops_after_the_linger(appliance):
    machine = appliance.machine
    with appliance.subscribed(appliance.image) as images:
        images.wait_for(is_good, START, "image")
        wait_until(machine.is_streaming, START, "the camera streams")
        assert appliance.state.read_value() == "streaming"

        # Longer than the linger: it is the subscription that keeps the camera running.
        time.sleep(LINGER + 1)
        assert machine.is_streaming()
        pictures = [decode(seen.value) for seen in images.since(time.monotonic() - LINGER - 1)]
        assert len(pictures) >= 2, "a picture with moving text changes"
        assert all(picture.size == (640, 480) for picture in pictures)
    wait_until(lambda: not machine.is_streaming(), LINGER + 3, "the camera has stopped after the linger")
    wait_until(lambda: appliance.state.read_value() == "idle", 5, "the state says idle")


def test_a_lost_camera_is_a_bad_status_within_a_second_and_comes_back_by_itself(appliance):
    machine = appliance.machine
    with appliance.subscribed(appliance.image) as images, appliance.subscribed(appliance.state) as states:
        images.wait_for(is_good, START, "image")
        states.wait_for(lambda seen: text_of(seen) == "streaming", START, "state `streaming`")

        pressed = time.monotonic()
        machine.press("disconnect")
        # The camera went at some moment while the press was on its way; counted from the first of those moments, the
        # second that was promised may be as much longer.
        allowed = 1.0 + (time.monotonic() - pressed)
        lost = images.wait_for(is_bad, 20, "image with a Bad status", since=pressed)

        back = images.wait_for(is_good, 60, "good image after the loss", since=lost.arrived)
        assert decode(back.value).size == (640, 480)
        state = states.wait_for(lambda seen: text_of(seen) == "disconnected", 5, "state `disconnected`", since=pressed)
        states.wait_for(
            lambda seen: text_of(seen) == "streaming", START, "state `streaming` again", since=state.arrived
        )
        reason = child(appliance.client.nodes.objects, "Cameras", "line1", "LastError").read_value()
        assert len(reason.split()) >= 2, f"{reason!r} tells a person nothing"
        assert machine.is_streaming()
    took = lost.arrived - pressed
    print(f"Bad after {took:.3f} s (allowed {allowed:.3f}), good again after {back.arrived - pressed:.3f} s: {reason}")
    assert took <= allowed

    # The session and the camera have survived it.
    appliance.wait_idle()
    assert decode(appliance.read()).size == (640, 480)
