"""nginx as a process, with a certificate authority for the tests; and the skip message for a missing program."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import ipaddress
import os
import re
import shutil
import ssl
from collections.abc import Generator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from processes import Process, running

README = (Path(__file__).parent.parent / "asgi_mcp_auth" / "README.md").read_text("utf-8")

MAIN = """\
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
{user}
events {{}}
http {{
    access_log off;
    {temporary}
{server}
}}
"""
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def require_program(name: str, package: str) -> str:
    """Return the path of a program; if it is missing, skip the test with the package to install, and fail in CI."""
    # Debian installs nginx in a directory that is on the PATH of root only.
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is not None:
        return found
    message = f"This test needs {name}: apt-get install --no-install-recommends {package}"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def readme_block(language: str, containing: str) -> str:
    """Return the only code block of the README in this language that contains the text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    [block] = [block for block in blocks if containing in block]
    return str(block)


@contextlib.contextmanager
def nginx(server: str, port: int, directory: Path) -> Generator[Process]:
    """Run nginx with a `server` block that listens on this port of 127.0.0.1; its files are below `directory`."""
    program = require_program("nginx", "nginx-light")
    temporary = "\n    ".join(f"{name}_temp_path {directory}/{name};" for name in TEMPORARY)
    user = "user root;" if os.geteuid() == 0 else ""  # the default user cannot write to the directories of the tests
    config = directory / "nginx.conf"
    config.write_text(MAIN.format(directory=directory, temporary=temporary, user=user, server=server))
    argv = [program, "-e", "stderr", "-p", str(directory), "-c", str(config)]
    with running(argv, ready_port=port, cwd=directory) as process:
        yield process


def certificates(directory: Path) -> ssl.SSLContext:
    """Make a certificate for 127.0.0.1 (`server.pem`, `server.key`); return a context that trusts only `root.pem`."""
    authority = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = _name("the tests' authority")
    root = (
        _certificate(issuer, issuer, authority.public_key(), authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(authority, hashes.SHA256())
    )
    leaf = (
        _certificate(_name("127.0.0.1"), issuer, key.public_key(), authority.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(authority, hashes.SHA256())
    )
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (directory / "root.pem").write_bytes(root.public_bytes(pem))
    (directory / "server.pem").write_bytes(leaf.public_bytes(pem))
    (directory / "server.key").write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
    return ssl.create_default_context(cadata=root.public_bytes(pem).decode("ascii"))


def client_certificate(directory: Path, name: str) -> tuple[str, str, str]:
    """Make a self-signed client certificate; return the paths of certificate and key, and its thumbprint (RFC 8705)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    made = _certificate(subject, subject, key.public_key(), key.public_key()).sign(key, hashes.SHA256())
    paths = directory / f"{name}.pem", directory / f"{name}.key"
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    paths[0].write_bytes(made.public_bytes(pem))
    paths[1].write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
    digest = base64.urlsafe_b64encode(made.fingerprint(hashes.SHA256())).rstrip(b"=").decode("ascii")
    return str(paths[0]), str(paths[1]), digest


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, authority: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
