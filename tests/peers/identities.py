"""Certificates and keys of clients, as files."""

import datetime
import shutil
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

URI = "urn:vedette-test:client"


def make_identity(folder: Path, name="tester", uri=URI) -> Path:
    """A self-signed application instance certificate (OPC 10000-6, 6.2.2) in cert.der, and its key in key.pem."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    usage = x509.KeyUsage(True, True, True, True, False, False, False, False, False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.der").write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(pem)
    return folder


def trust(vedette, identity: Path):
    """As a person would who knows the client before it comes: its certificate, under the name that the server gives it."""
    certificate = x509.load_der_x509_certificate((identity / "cert.der").read_bytes())
    name = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    trusted = vedette.data / "pki/trusted"
    trusted.mkdir(parents=True, exist_ok=True)
    shutil.copy(identity / "cert.der", trusted / f"CN={name} [{certificate.fingerprint(hashes.SHA1()).hex()}].der")
