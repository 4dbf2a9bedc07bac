"""Client certificates for tests of certificate-bound tokens (RFC 8705)."""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from asgi_mcp_auth._credential_settings import CertificateFormat
from asgi_mcp_auth._oauth.certificates import read_pem, write_field

__all__ = ("ClientCertificate",)

LIFETIME = dt.timedelta(days=365)


class ClientCertificate:
    """A new self-signed client certificate.

    A token is bound to the certificate by `cnf={"x5t#S256": certificate.thumbprint}`.

    Args:
        name: The common name.

    Attributes:
        pem: The certificate, as the ASGI TLS extension contains it.
        private_key: The private key in PEM, for a client with real TLS.
        thumbprint: The SHA-256 thumbprint.
    """

    def __init__(self, name: str = "client") -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now, serial = dt.datetime.now(dt.UTC), x509.random_serial_number()
        builder = x509.CertificateBuilder(subject, subject, key.public_key(), serial, now - LIFETIME, now + LIFETIME)
        self.pem = builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode("ascii")
        self.private_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
        self.thumbprint = read_pem(self.pem.encode("ascii"))

    def field(self, form: CertificateFormat = "rfc9440") -> str:
        """Return the value of the header field in which a proxy reports this certificate."""
        return write_field(self.pem, form)
