"""Who is let in by its certificate: strangers, CAs, revocation, time; and the server's own certificate.

The certificates are made by `cryptography`, the client is asyncua.
"""

import datetime
import json
import subprocess

import pytest
from asyncua import ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from conftest import BINARY, wait_until
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

URI = "urn:vedette-test:client"
CONFIG = """
[device]
name = "gateway 7"
[ua_server]
listen = "127.0.0.1:{port}"
[cameras]
discover = false
[[simulator]]
name = "demo"
"""
DAY = datetime.timedelta(days=1)
SIGN = (True, True, True, True, False, False, False, False, False)
ISSUE = (False, False, False, False, False, True, True, False, False)


def name(common, organization="Plant"):
    parts = [(NameOID.ORGANIZATION_NAME, organization), (NameOID.COMMON_NAME, common)]
    return x509.Name([x509.NameAttribute(*part) for part in parts])


class Party:
    """A certificate with its key, and what it issues."""

    def __init__(self, common, issuer=None, ca=False, begin=-DAY, end=30 * DAY, uri=URI, organization="Plant"):
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.name = name(common, organization)
        issuer = issuer or self
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begin)
            .not_valid_after(now + end)
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(x509.KeyUsage(*(ISSUE if ca else SIGN)), critical=True)
        )
        if not ca:
            names = [x509.UniformResourceIdentifier(uri), x509.DNSName("localhost")]
            purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), False)
        self.certificate = builder.sign(issuer.key, hashes.SHA256())

    @property
    def der(self):
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self):
        form = serialization.PrivateFormat.TraditionalOpenSSL
        return self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())

    @property
    def thumbprint(self):
        return self.certificate.fingerprint(hashes.SHA1()).hex().upper()

    def crl(self, *revoked):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(now - DAY).next_update(now + DAY)
        for party in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(party.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now - DAY).build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def client(tmp_path):
    """Makes a client of a server with a certificate."""

    def make(vedette, party):
        folder = tmp_path / party.thumbprint
        folder.mkdir(exist_ok=True)
        (folder / "cert.der").write_bytes(party.der)
        (folder / "key.pem").write_bytes(party.key_pem)
        client = vedette.client()
        client.application_uri = URI
        mode = ua.MessageSecurityMode.SignAndEncrypt
        client.set_security(SecurityPolicyBasic256Sha256, folder / "cert.der", folder / "key.pem", mode=mode)
        return client

    return make


def is_let_in(client) -> bool:
    try:
        with client:
            return client.nodes.server_state.read_value() == 0
    except Exception:
        return False


def trust(vedette, *arguments):
    command = [BINARY, "trust", "--data-dir", vedette.data, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def pki(vedette, *path):
    return vedette.data.joinpath("pki", *path)


@pytest.fixture
def running(make):
    return make(CONFIG).start()


@pytest.fixture
def stopped(make):
    """One that has run, so that its folders are there."""
    vedette = make(CONFIG).start()
    vedette.stop()
    return vedette


def test_a_stranger_is_kept_named_once_and_trusted_from_the_command_line(running, client):
    stranger = Party("panel")
    for _ in range(3):
        assert not is_let_in(client(running, stranger))
    [kept] = pki(running, "rejected").iterdir()
    assert kept.read_bytes() == stranger.der
    assert running.text().count(stranger.thumbprint) == 1

    listing = trust(running).stdout
    assert stranger.thumbprint in listing and URI in listing and "CN=panel" in listing
    wrong = trust(running, "00112233")
    assert wrong.returncode == 1 and stranger.thumbprint in wrong.stderr
    done = trust(running, stranger.thumbprint[:10].lower())
    assert done.returncode == 0 and stranger.thumbprint in done.stdout
    assert is_let_in(client(running, stranger))
    assert not list(pki(running, "rejected").iterdir())
    assert trust(running, stranger.thumbprint).returncode == 1


def test_trust_that_is_taken_back_ends_an_open_session(running, client):
    panel = Party("panel")
    pki(running, "trusted/panel.der").write_bytes(panel.der)
    with client(running, panel) as session:
        node = session.nodes.server_state
        node.read_value()
        assert trust(running, "--remove", panel.thumbprint).returncode == 0

        def is_over():
            try:
                node.read_value()
            except Exception:
                return True

        wait_until("the session ends", is_over)
    assert not is_let_in(client(running, panel))


def test_a_ca_lets_its_clients_in_at_once_and_revokes_them(running, client):
    root = Party("root", ca=True)
    middle = Party("middle", root, ca=True)
    direct, below = Party("direct", root), Party("below", middle)
    assert not is_let_in(client(running, direct))
    pki(running, "trusted/root.pem").write_bytes(root.pem)
    assert is_let_in(client(running, direct))
    assert not is_let_in(client(running, below))
    pki(running, "issuers/middle.crt").write_bytes(middle.der)
    assert is_let_in(client(running, below))
    assert not is_let_in(client(running, Party("other", Party("root", ca=True))))

    pki(running, "crls/middle.pem").write_bytes(middle.crl())
    with client(running, below) as session:
        node = session.nodes.server_state
        node.read_value()
        pki(running, "crls/middle.pem").write_bytes(middle.crl(below))

        def is_over():
            try:
                node.read_value()
            except Exception:
                return True

        wait_until("the session ends", is_over)
    assert not is_let_in(client(running, below))
    assert running.says("was revoked by")
    assert is_let_in(client(running, direct))
    pki(running, "crls/root.pem").write_bytes(root.crl(direct))
    assert not is_let_in(client(running, direct))


def test_time_is_judged_and_said(running, client):
    expired, early = Party("late", begin=-9 * DAY, end=-DAY), Party("early", begin=DAY)
    for party in (expired, early):
        pki(running, "trusted", party.thumbprint).write_bytes(party.der)
        assert not is_let_in(client(running, party))
    assert running.says("CN=late expired at") or running.says("expired at")
    assert running.says("this device's clock says")
    # They are trusted; nobody has to decide.
    assert not list(pki(running, "rejected").iterdir())


def test_garbage_in_place_of_a_revocation_list_is_no_start(stopped):
    pki(stopped, "crls/x.der").write_text("garbage")
    stopped.start(wait=False)
    assert stopped.process.wait(30) == 1
    assert "pki/crls/x.der" in stopped.text() and "repair it or take it away" in stopped.text()
    assert not stopped.says("Serving OPC UA")


@pytest.mark.parametrize("folder", ["trusted", "issuers"])
def test_garbage_in_place_of_a_certificate_shuts_nobody_out(stopped, client, folder):
    panel = Party("panel")
    pki(stopped, "trusted/panel.der").write_bytes(panel.der)
    pki(stopped, folder, "x.der").write_text("garbage")
    stopped.start()
    assert is_let_in(client(stopped, panel))
    assert not is_let_in(client(stopped, Party("stranger")))
    assert stopped.text().count(f"pki/{folder}/x.der") == 1 and "repair it or take it away" in stopped.text()


def test_garbage_later_is_said_once_and_changes_nothing(running, client):
    panel = Party("panel")
    pki(running, "trusted/panel.der").write_bytes(panel.der)
    pki(running, "trusted/x.der").write_text("garbage")
    assert is_let_in(client(running, panel))
    assert is_let_in(client(running, panel))
    assert running.text().count("trusted/x.der") == 1


def broken_certificate(vedette):
    pki(vedette, "own/cert.der").write_bytes(b"garbage")
    return "own/cert.der"


def key_of_another(vedette):
    pki(vedette, "private/private.pem").write_bytes(Party("another").key_pem)
    return "are not a pair"


def no_key(vedette):
    pki(vedette, "private/private.pem").unlink()
    return "its key is not"


@pytest.mark.parametrize("spoil", [broken_certificate, key_of_another, no_key])
def test_a_broken_certificate_is_no_start(stopped, spoil):
    words = spoil(stopped)
    stopped.start(wait=False)
    assert stopped.process.wait(30) == 1
    assert words in stopped.text() and not stopped.says("Serving OPC UA"), stopped.text()


def served(vedette):
    endpoint = vedette.client().connect_and_get_server_endpoints()[0]
    return x509.load_der_x509_certificate(endpoint.ServerCertificate), endpoint.Server.ApplicationUri


def test_a_certificate_put_there_counts_without_a_restart(running, client):
    panel, ca = Party("panel"), Party("root", ca=True)
    pki(running, "trusted/panel.der").write_bytes(panel.der)
    first = pki(running, "own/cert.der").read_bytes()
    theirs = Party("device", ca, uri="urn:plant:gateway:7")
    pki(running, "own/plant.pem").write_bytes(theirs.pem + ca.pem)
    pki(running, "private/plant.key").write_bytes(theirs.key_pem)
    wait_until("it counts", lambda: running.text().count("Serving OPC UA") == 2)
    assert served(running) == (theirs.certificate, "urn:plant:gateway:7")
    assert is_let_in(client(running, panel))
    assert pki(running, "own/cert.der").read_bytes() == first
    assert running.process.poll() is None

    # One that is broken changes nothing but the log.
    pki(running, "own/plant.pem").write_text("garbage")
    wait_until("it is said", lambda: running.says("certificate from before holds"))
    assert served(running)[0] == theirs.certificate
    assert is_let_in(client(running, panel))


def test_ours_is_renewed_and_theirs_is_not(stopped, client):
    ours = Party("gateway 7", organization="Vedette", end=20 * DAY, uri="urn:the:same")
    pki(stopped, "own/cert.der").write_bytes(ours.der)
    pki(stopped, "private/private.pem").write_bytes(ours.key_pem)
    stopped.start()
    assert stopped.says("Renewing the application certificate")
    certificate, uri = served(stopped)
    assert certificate.not_valid_after_utc > datetime.datetime.now(datetime.timezone.utc) + 1000 * DAY
    assert certificate.public_key() == ours.certificate.public_key() and uri == "urn:the:same"
    assert certificate.serial_number != ours.certificate.serial_number
    certificate.verify_directly_issued_by(certificate)
    stopped.stop()

    theirs = Party("gateway 7", end=20 * DAY)
    pki(stopped, "own/theirs.der").write_bytes(theirs.der)
    pki(stopped, "private/theirs.pem").write_bytes(theirs.key_pem)
    stopped.start()
    wait_until("its end is said", lambda: stopped.says("own/theirs.der expires at"))
    assert served(stopped) == (theirs.certificate, URI)


def test_the_certificate_names_this_machine(running):
    certificate, uri = served(running)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    host = subprocess.run(["uname", "-n"], capture_output=True, text=True).stdout.strip()
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [uri] == [f"urn:{host}:vedette:gateway-7"]
    assert {host, "localhost"} <= set(names.get_values_for_type(x509.DNSName))
    addresses = json.loads(subprocess.run(["ip", "-j", "address"], capture_output=True, text=True).stdout)
    mine = {a["local"] for link in addresses for a in link["addr_info"] if a["scope"] == "global" and "temporary" not in a}
    assert mine | {"127.0.0.1"} <= {str(address) for address in names.get_values_for_type(x509.IPAddress)}
