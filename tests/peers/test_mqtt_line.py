"""The line to the broker: both versions of MQTT, TLS with right and wrong certificates, secrets. Against mosquitto."""

import datetime
import ipaddress
import subprocess

import pytest
from conftest import DEMO, Broker, wait_until
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOUR = datetime.timedelta(hours=1)
HERE = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]


class Authority:
    """A certificate authority, and what it signs, as files that only their owner reads."""

    def __init__(self, folder, name="Plant CA"):
        self.folder = folder
        folder.mkdir(parents=True)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self.sign(self.name, self.key.public_key(), ca=True)
        self.file = self.write("ca.pem", self.certificate.public_bytes(serialization.Encoding.PEM))

    def sign(self, subject, public_key, ca=False, names=(), start=-24 * HOUR, end=720 * HOUR, usage=None):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + start)
            .not_valid_after(now + end)
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, name, **options):
        """The files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self.sign(subject, key.public_key(), **options)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return (
            self.write(f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM)),
            self.write(f"{name}.key", pem),
        )

    def write(self, name, content):
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


@pytest.fixture
def tls(tmp_path):
    """Makes a mosquitto with TLS; stopped at the end."""
    made = []

    def factory(certificate, key, more="") -> Broker:
        folder = tmp_path / f"tls{len(made)}"
        folder.mkdir()
        made.append(Broker(folder))
        configure(made[-1], certificate, key, more)
        return made[-1].start()

    yield factory
    for broker in made:
        broker.kill()


def configure(broker, certificate, key, more=""):
    # As root it would become a user who cannot read the files of a test.
    broker.config.write_text(
        f"user root\nlistener {broker.port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        f"certfile {certificate}\nkeyfile {key}\n{more}"
    )


def config(broker, more="", scheme="mqtts", host="127.0.0.1"):
    return DEMO + f'[mqtt]\nbroker = "{scheme}://{host}:{broker.port}"\npublish_interval = "100ms"\n{more}'


def connected(vedette):
    wait_until("connected", lambda: vedette.says("Connected to the MQTT broker"))


def fails(vedette, words):
    wait_until(words, lambda: vedette.says(words))
    assert not vedette.says("Connected to the MQTT broker")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_both_versions_over_tls_with_a_client_certificate(make, tls, authority, protocol, host):
    served = authority.issue("broker", names=HERE, usage=ExtendedKeyUsageOID.SERVER_AUTH)
    certificate, key = authority.issue("device", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    broker = tls(*served, f"cafile {authority.file}\nrequire_certificate true\n")
    more = (
        f'protocol = "{protocol}"\nca_file = "{authority.file}"\n'
        f'client_cert_file = "{certificate}"\nclient_key_file = "{key}"\n'
    )
    vedette = make(config(broker, more, host=host)).start()
    connected(vedette)
    version = {"5": "p5", "3.1.1": "p2"}[protocol]
    log = broker.folder / "mosquitto.log"
    wait_until("the broker's word", lambda: f"({version}, c1, k30" in log.read_text())


@pytest.mark.parametrize(
    "options, words",
    [
        ({"names": HERE, "start": -48 * HOUR, "end": -HOUR}, "the broker's certificate expired at 20"),
        ({"names": HERE, "start": 24 * HOUR}, "if that is wrong, set the clock"),
        ({"names": [x509.DNSName("other.example")]}, "is for \"other.example\", not for \"127.0.0.1\""),
        ({}, "the broker's certificate names no host"),
        ({"names": HERE, "usage": ExtendedKeyUsageOID.CLIENT_AUTH}, "is not for servers"),
        ({"names": HERE, "ca": True}, "shows an authority's certificate (CA:TRUE) as its own"),
    ],
    ids=["expired", "future", "name", "nameless", "purpose", "authority"],
)
def test_a_wrong_certificate_is_said_and_retried(make, tls, authority, options, words):
    broker = tls(*authority.issue("broker", **options))
    vedette = make(config(broker, f'ca_file = "{authority.file}"\n')).start()
    said = words.replace('"', '\\"')
    wait_until(words, lambda: vedette.says(words) or vedette.says(said))
    assert not vedette.says("Connected to the MQTT broker")
    # One message, and when the certificate is renewed the device is there.
    broker.kill()
    configure(broker, *authority.issue("renewed", names=HERE))
    broker.start()
    connected(vedette)
    assert vedette.text().count(words) + vedette.text().count(said) <= 2


def test_an_unknown_authority_is_named(make, tls, authority, tmp_path):
    other = Authority(tmp_path / "other", "Other CA")
    broker = tls(*other.issue("broker", names=HERE))
    vedette = make(config(broker, f'ca_file = "{authority.file}"\n')).start()
    fails(vedette, "the broker's certificate is not signed by ca_file = ")
    assert vedette.says("authority/ca.pem")
    without = make(config(broker)).start()
    fails(without, "name its file in ca_file")


def test_an_older_authority_of_the_same_name(make, tls, authority, tmp_path):
    older = Authority(tmp_path / "older")
    broker = tls(*authority.issue("broker", names=HERE))
    vedette = make(config(broker, f'ca_file = "{older.file}"\n')).start()
    fails(vedette, "perhaps that is an older authority of the same name")


def test_a_client_certificate_that_is_missing_or_refused(make, tls, authority, tmp_path):
    other = Authority(tmp_path / "other", "Other CA")
    served = authority.issue("broker", names=HERE)
    broker = tls(*served, f"cafile {authority.file}\nrequire_certificate true\n")
    more = f'ca_file = "{authority.file}"\n'
    fails(make(config(broker, more)).start(), "the broker wants a client certificate")
    for issuer, options in [(other, {}), (authority, {"start": -48 * HOUR, "end": -HOUR})]:
        certificate, key = issuer.issue("device", **options)
        files = f'client_cert_file = "{certificate}"\nclient_key_file = "{key}"\n'
        fails(make(config(broker, more + files)).start(), "the broker refuses client_cert_file = ")


def test_tls_where_none_is_and_none_where_it_is(make, tls, broker, authority):
    fails(make(config(broker)).start(), "does not speak TLS")
    secured = tls(*authority.issue("broker", names=HERE))
    fails(make(config(secured, scheme="mqtt")).start(), "write mqtts://")
    fails(make(config(secured, 'protocol = "3.1.1"\n', scheme="mqtt")).start(), "write mqtts://")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_passwords_are_needed_and_kept_secret(make, broker, tmp_path, protocol):
    users = tmp_path / "users"
    # mosquitto's plain text, which it hashes itself.
    users.write_text("device:correct horse\n")
    subprocess.run(["mosquitto_passwd", "-U", users], check=True)
    broker.kill()
    broker.config.write_text(
        f"user root\nlistener {broker.port} 127.0.0.1\nallow_anonymous false\npassword_file {users}\n"
    )
    broker.start()
    password = tmp_path / "password"
    password.write_text("wrong battery\n")
    password.chmod(0o600)
    more = f'protocol = "{protocol}"\nusername = "device"\npassword_file = "{password}"\n'
    vedette = make(config(broker, more, scheme="mqtt")).start("--log", "trace")
    fails(vedette, "refuses the connection: not authorised; many brokers say so of a wrong user name")
    password.write_text("correct horse\n")
    connected(vedette)
    assert "battery" not in vedette.text() and "horse" not in vedette.text()


def test_secrets_that_others_can_read_are_refused(make, broker, tls, authority, tmp_path):
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o640)
    more = f'username = "device"\npassword_file = "{password}"\n'
    vedette = make(config(broker, more, scheme="mqtt")).start()
    fails(vedette, f"(mode 640); chmod 600 {password}")
    password.chmod(0o600)
    connected(vedette)
    certificate, key = authority.issue("device")
    key.chmod(0o644)
    secured = tls(*authority.issue("broker", names=HERE))
    files = f'ca_file = "{authority.file}"\nclient_cert_file = "{certificate}"\nclient_key_file = "{key}"\n'
    vedette = make(config(secured, files)).start()
    fails(vedette, f"(mode 644); chmod 600 {key}")


def test_a_credential_of_systemd(make, broker, tmp_path, monkeypatch):
    folder = tmp_path / "credentials"
    folder.mkdir()
    more = 'username = "device"\npassword_file = "credential:broker"\n'
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    fails(make(config(broker, more, scheme="mqtt")).start(), "add LoadCredential=broker:FILE")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    (folder / "broker").write_text("secret")
    (folder / "broker").chmod(0o440)
    connected(make(config(broker, more, scheme="mqtt")).start())
