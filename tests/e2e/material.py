"""Certificates and API keys, as an operator makes them."""

import datetime
import re
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """A CA and what it has signed, in cert-manager's layout."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = signed("e2e CA", self.key.public_key(), "e2e CA", self.key, authority=True)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, name):
        """tls.crt, tls.key, ca.crt, by the names `Cluster.secret` takes, and the SHA-256 of the certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = signed(name, key.public_key(), "e2e CA", self.key)
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        files = {"tls__crt": certificate.public_bytes(serialization.Encoding.PEM), "tls__key": private, "ca__crt": self.pem}
        return files, certificate.fingerprint(hashes.SHA256()).hex()


def signed(subject, public_key, issuer, key, authority=False):
    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(public_key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=2))
    builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(subject.replace(" ", "-"))]), critical=False)
    return builder.sign(key, hashes.SHA256())


class Keys:
    """The file of API keys, kept by `doorward keys`."""

    def __init__(self, binary, work):
        self.binary, self.file, self.configuration = binary, work / "api-keys.yaml", work / "keys.yaml"
        self.file.write_text("keys: []\n")
        self.file.chmod(0o600)
        self.configuration.write_text(
            "listen: { address: 127.0.0.1:8443, insecure_plaintext: true }\n"
            "upstream: { address: http://127.0.0.1:50051 }\n"
            f"authentication: {{ api_keys: {{ file: {self.file} }} }}\n"
            "authorization: { roles: { viewer: [users:read], admin: ['users:*'] } }\n"
        )

    def create(self, id, role):
        arguments = ["keys", "create", "--config", str(self.configuration), "--id", id, "--client-id", id, "--role", role, "--expires", "1d"]
        output = subprocess.run([str(self.binary), *arguments], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return re.search(r"\S+$", output.stdout.strip()).group()

    def content(self):
        return Path(self.file).read_bytes()
