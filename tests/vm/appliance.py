"""The firmware in an emulated machine, seen by a UA client from outside: what the tests in this folder share.

asyncua is the client. It is used through its blocking interface: its own thread then keeps the session alive while
a test waits for the emulated machine.

The binary under test: VEDETTE_BINARY, or what scripts/cross left at target/dist/vedette-aarch64.
"""

import contextlib
import datetime
import io
import os
import socket
import threading
import time
from collections.abc import Iterator
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
from PIL import Image

# How long the camera runs on after its last lease; the firmware's default.
LINGER = 2.0
# From a slow host's point of view: opening the camera, the first frames, JPEG in software, all emulated.
START = 15.0
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


# -- The whole


class Camera:
    """A camera's nodes below Objects/Cameras."""

    def __init__(self, node: SyncNode):
        self.node = node
        self.image = child(node, "Camera Image")
        self.state = child(node, "State")

    def tag(self, name: str):
        return child(self.node, name).read_value()

    def read(self) -> ua.DataValue:
        """A new picture, or why there is none."""
        return self.image.read_data_value(raise_on_bad_status=False)

    def wait_state(self, state: str, timeout: float = START):
        wait_until(lambda: self.state.read_value() == state, timeout, f"the state is {state!r}")


class Appliance:
    """The machine, and a session with the server on it; new_session() makes further ones."""

    def __init__(self, machine: Machine, new_session: Callable[[], Client]):
        self.machine = machine
        self.new_session = new_session
        self.client = new_session()

    def cameras(self) -> dict[str, Camera]:
        """All that are there now."""
        folders = {node.read_browse_name().Name: node for node in self.client.nodes.objects.get_children()}
        if "Cameras" not in folders:
            return {}
        return {node.read_browse_name().Name: Camera(node) for node in folders["Cameras"].get_children()}

    def camera(self, name: str) -> Camera:
        return Camera(child(self.client.nodes.objects, "Cameras", name))

    @contextlib.contextmanager
    def subscribed(self, node: SyncNode, interval: float = 200.0) -> Iterator[Notifications]:
        """A subscription of its own with one monitored item, whose reports are given."""
        seen = Notifications()
        subscription = self.client.create_subscription(100, seen)
        try:
            # A queue, so that a Bad that lasts less than a publishing interval is not lost behind the Good after it.
            subscription.subscribe_data_change(node, queuesize=10, sampling_interval=interval)
            yield seen
        finally:
            subscription.delete()


@contextlib.contextmanager
def appliance_with(
    folder: Path,
    config: str,
    drivers: str | None = None,
    with_ustreamer: bool = False,
    **options,
) -> Iterator[Appliance]:
    """Boots the firmware with a configuration and gives a session with it.

    `drivers`: shell commands that load other cameras than the one vivid, before the firmware starts; "" for none.
    `options` are Machine's.
    """
    binary = Path(os.environ.get("VEDETTE_BINARY") or ROOT / "target/dist/vedette-aarch64")
    if not binary.is_file():
        pytest.fail(f"there is no binary at {binary}: make one with scripts/cross aarch64")

    certificate = make_certificate(folder)
    overlay = folder / "overlay"
    (overlay / "etc").mkdir(parents=True)
    (overlay / "data/pki/trusted").mkdir(parents=True)
    (overlay / "etc/vedette.toml").write_text(config)
    if drivers is not None:
        (overlay / "etc/drivers").write_text(drivers)
    (overlay / "data/pki/trusted" / certificate.file_name).write_bytes(certificate.der.read_bytes())
    image = build_image(folder / "initramfs.cpio.gz", binary, overlay, with_ustreamer)

    with Machine(image, **options) as machine, ThreadLoop() as tloop:
        machine.wait_ready()
        url = f"opc.tcp://127.0.0.1:{machine.ports[4840]}"

        def new_session() -> Client:
            client = Client(url, timeout=30, tloop=tloop)
            client.application_uri = APPLICATION_URI
            client.set_security(SecurityPolicyBasic256Sha256, str(certificate.der), str(certificate.key))
            client.connect()
            return client

        try:
            # The first start makes a key of its own, which takes its time under emulation.
            wait_for_server(url, tloop, 120)
            appliance = Appliance(machine, new_session)
        except Exception as error:
            raise MachineError(f"{error!r}; the firmware's log:\n{machine.firmware_log()}") from error
        try:
            yield appliance
        finally:
            with contextlib.suppress(Exception):
                appliance.client.disconnect()
