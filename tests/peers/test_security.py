"""Which doors are open, and to whom."""

import datetime
import shutil
import stat

import pytest
from asyncua import ua
from asyncua.crypto.security_policies import (
    SecurityPolicyAes128Sha256RsaOaep,
    SecurityPolicyAes256Sha256RsaPss,
    SecurityPolicyBasic256Sha256,
)
from conftest import child, picture
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

URI = "urn:vedette-test:client"
SECURE = """
[ua_server]
listen = "127.0.0.1:{port}"
[cameras]
discover = false
[[camera]]
name = "line1"
device = "test-pattern"
width = 320
height = 240
"""


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    """A client's certificate and key, as files."""
    folder = tmp_path_factory.mktemp("client")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tester")])
    now = datetime.datetime.now(datetime.timezone.utc)
    usage = x509.KeyUsage(True, True, True, True, False, False, False, False, False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(URI)]), critical=False)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.der").write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(pem)
    return folder


def secure_client(vedette, identity, policy, mode):
    client = vedette.client()
    client.application_uri = URI
    client.set_security(policy, identity / "cert.der", identity / "key.pem", mode=mode)
    return client


def test_without_being_asked_to_it_offers_nothing_insecure(make):
    vedette = make(SECURE).start()
    endpoints = vedette.client().connect_and_get_server_endpoints()
    offered = {(e.SecurityPolicyUri.split("#")[1], e.SecurityMode.name) for e in endpoints}
    policies = ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"]
    assert offered == {(policy, mode) for policy in policies for mode in ["Sign", "SignAndEncrypt"]}
    with pytest.raises(Exception):
        vedette.client().connect()


def test_the_application_certificate_fits_the_server(make):
    vedette = make(SECURE).start()
    endpoint = vedette.client().connect_and_get_server_endpoints()[0]
    certificate = x509.load_der_x509_certificate(endpoint.ServerCertificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert endpoint.Server.ApplicationUri in names.get_values_for_type(x509.UniformResourceIdentifier)
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    key = vedette.data / "pki/private/private.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    serialization.load_pem_private_key(key.read_bytes(), None)


@pytest.mark.parametrize(
    "policy",
    [SecurityPolicyBasic256Sha256, SecurityPolicyAes128Sha256RsaOaep, SecurityPolicyAes256Sha256RsaPss],
)
def test_an_unknown_client_is_kept_out_until_it_is_trusted(make, identity, policy):
    vedette = make(SECURE).start()
    mode = ua.MessageSecurityMode.SignAndEncrypt
    with pytest.raises(Exception):
        secure_client(vedette, identity, policy, mode).connect()
    rejected = list((vedette.data / "pki/rejected").iterdir())
    assert len(rejected) == 1 and rejected[0].read_bytes() == (identity / "cert.der").read_bytes()

    shutil.move(rejected[0], vedette.data / "pki/trusted")
    with secure_client(vedette, identity, policy, mode) as client:
        data = child(client.nodes.objects, "Cameras", "line1", "Camera Image").read_value()
        assert picture(data).size == (320, 240)
