"""Client certificates in every form of a header field, down to the thumbprint of RFC 8705 section 3.1."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_mcp_auth._oauth.certificates import (
    MAX_FIELD,
    read_client_cert,
    read_escaped_pem,
    read_pem,
    read_xfcc,
    thumbprint_of,
)


def certificate(name: str = "client") -> x509.Certificate:
    key, subject = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]),
    )
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, start, start + dt.timedelta(days=9))
    return builder.sign(key, hashes.SHA256())


CERT: Final = certificate()
DER: Final = CERT.public_bytes(serialization.Encoding.DER)
PEM: Final = CERT.public_bytes(serialization.Encoding.PEM)
THUMBPRINT: Final = base64.urlsafe_b64encode(hashlib.sha256(DER).digest()).rstrip(b"=").decode()
HEX: Final = hashlib.sha256(DER).hexdigest()
ESCAPED: Final = quote(PEM, safe="").encode()
B64: Final = base64.b64encode(DER)
OTHER: Final = quote(certificate("other").public_bytes(serialization.Encoding.PEM), safe="")

# RFC 9440, appendix A, figure 2.
RFC_9440 = (
    b":MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZBgNVBAMMEkxBIEludGVybWVkaWF"
    b"0ZSBDQTAeFw0yMDAxMTQyMjU1MzNaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAMMAkJDMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YnXXfaUgm"
    b"nMtOXU/IncWalRhebrXmckC8vdgJ1p5Be5F/3YC8OthxM4+k1M6aEAEFcGzkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSMEGDAWgBRm3"
    b"WjLa38lbEYCuiCPct0ZaSED2DAOBgNVHQ8BAf8EBAMCBsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0RAQH/BBMwEYEPYmRjQGV4YW1wbGUuY29t"
    b"MAoGCCqGSM49BAMCA0gAMEUCIBHda/r1vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiEAx/kHSB4urmiZ0NX5r5XarmPk0wmuydBVoU4hBVZ1yhk=:"
)

READ = [
    pytest.param(thumbprint_of, DER, id="DER"),
    pytest.param(read_pem, PEM, id="PEM"),
    pytest.param(read_pem, PEM.replace(b"\n", b"\r\n"), id="PEM with CRLF"),
    pytest.param(read_pem, PEM.rstrip(), id="PEM without the last newline"),
    pytest.param(read_client_cert, b":" + B64 + b":", id="Client-Cert"),
    pytest.param(read_client_cert, b" :" + B64 + b": ", id="Client-Cert with spaces"),
    pytest.param(read_escaped_pem, ESCAPED, id="nginx"),
    pytest.param(read_escaped_pem, quote(PEM).encode(), id="nginx, with slashes that are not escaped"),
    pytest.param(read_xfcc, f"Hash={HEX}".encode(), id="Envoy, Hash"),
    pytest.param(read_xfcc, f"By=spiffe://a/b;Hash={HEX.upper()};URI=spiffe://c".encode(), id="Envoy, By and URI"),
    pytest.param(
        read_xfcc, f'hash={HEX};Subject="CN=\\"a, b\\";O=c";DNS=a;DNS=b'.encode(), id="Envoy, a quoted subject"
    ),
    pytest.param(read_xfcc, b'Cert="' + ESCAPED + b'"', id="Envoy, Cert"),
    pytest.param(read_xfcc, f'Hash={HEX};Cert="'.encode() + ESCAPED + b'";Chain="x"', id="Envoy, Hash, Cert and Chain"),
    pytest.param(read_xfcc, f'Subject="";Hash={HEX}'.encode(), id="Envoy, an empty subject"),
]


@pytest.mark.requirement("RS-150", "RS-151")
@pytest.mark.parametrize(("read", "value"), READ)
def test_the_thumbprint_is_the_digest_of_the_certificate(read: Callable[[bytes], str], value: bytes) -> None:
    assert read(value) == THUMBPRINT


@pytest.mark.requirement("RS-151")
def test_the_example_of_rfc_9440_is_read() -> None:
    der = base64.b64decode(RFC_9440.strip(b":"))
    assert x509.load_der_x509_certificate(der).subject.rfc4514_string() == "CN=BC"
    assert read_client_cert(RFC_9440) == thumbprint_of(der)


REFUSED = [
    pytest.param(thumbprint_of, b"", id="nothing"),
    pytest.param(thumbprint_of, DER[:-1], id="DER that is cut"),
    pytest.param(thumbprint_of, DER + b"\0", id="DER with a byte more"),
    pytest.param(thumbprint_of, b"\x31" + DER[1:], id="DER of another tag"),
    pytest.param(thumbprint_of, b"\x30\x80\0\0", id="an indefinite length"),
    pytest.param(thumbprint_of, b"\x30\x81\x01\0", id="a length that is not in its shortest form"),
    pytest.param(thumbprint_of, b"\x30\xff" + bytes(200), id="a length of 127 bytes"),
    pytest.param(read_pem, PEM + PEM, id="two PEM texts"),
    pytest.param(read_pem, b"x" + PEM, id="PEM with a prefix"),
    pytest.param(read_pem, PEM.replace(b"CERTIFICATE", b"PRIVATE KEY"), id="PEM of another thing"),
    pytest.param(read_pem, b"-----BEGIN CERTIFICATE-----END CERTIFICATE-----", id="PEM whose ends overlap"),
    pytest.param(read_pem, b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", id="PEM without content"),
    pytest.param(read_pem, B64, id="PEM without its lines"),
    pytest.param(read_client_cert, B64, id="Client-Cert without colons"),
    pytest.param(read_client_cert, b":", id="Client-Cert of one colon"),
    pytest.param(read_client_cert, b"::", id="Client-Cert, empty"),
    pytest.param(read_client_cert, b":" + B64, id="Client-Cert with one colon"),
    pytest.param(read_client_cert, b":" + B64 + b":, :" + B64 + b":", id="Client-Cert, a list"),
    pytest.param(read_client_cert, b":" + B64 + b":;a=1", id="Client-Cert with a parameter"),
    pytest.param(read_client_cert, b":" + B64[:-1] + b":", id="Client-Cert, cut"),
    pytest.param(read_client_cert, b":" + B64 + b"AAAA:", id="Client-Cert with more after the padding"),
    pytest.param(read_client_cert, b":" + base64.urlsafe_b64encode(b"\x30\x02\xff\xff") + b":", id="base64url"),
    pytest.param(read_client_cert, b":" + ESCAPED + b":", id="Client-Cert with PEM"),
    pytest.param(read_client_cert, b":" + base64.b64encode(bytes(MAX_FIELD)) + b":", id="Client-Cert, too large"),
    pytest.param(read_escaped_pem, PEM.replace(b" ", b"+"), id="form encoding"),
    pytest.param(read_escaped_pem, ESCAPED + b"%2", id="half an escape"),
    pytest.param(read_escaped_pem, quote(ESCAPED).encode(), id="escaped twice"),
    pytest.param(read_escaped_pem, b"", id="nginx without a certificate"),
    pytest.param(read_escaped_pem, ESCAPED + b"%20" * MAX_FIELD + b"x", id="nginx, too large"),
    pytest.param(read_xfcc, b"", id="Envoy, empty"),
    pytest.param(read_xfcc, f"Hash={HEX},Hash={HEX}".encode(), id="Envoy, two elements"),
    pytest.param(read_xfcc, f"By=a,Hash={HEX}".encode(), id="Envoy, two elements, one with Hash"),
    pytest.param(read_xfcc, f"Hash={HEX};Hash={HEX}".encode(), id="Envoy, Hash twice"),
    pytest.param(read_xfcc, f"Hash={HEX};HASH={HEX}".encode(), id="Envoy, Hash twice in other case"),
    pytest.param(read_xfcc, f"Hash={HEX};".encode(), id="Envoy, an empty pair"),
    pytest.param(read_xfcc, f"Hash={HEX[:-2]}".encode(), id="Envoy, a short Hash"),
    pytest.param(read_xfcc, f"Hash={HEX[:-1]}\u0665".encode(), id="Envoy, a Hash with another digit"),
    pytest.param(read_xfcc, f'Hash={HEX};Cert="{OTHER}"'.encode(), id="Envoy, Hash of another certificate"),
    pytest.param(read_xfcc, f'Hash={HEX};Cert=""'.encode(), id="Envoy, an empty Cert"),
    pytest.param(read_xfcc, b"By=a;URI=b", id="Envoy, without Hash and Cert"),
    pytest.param(read_xfcc, f'Hash="{HEX}'.encode(), id="Envoy, a quote that does not end"),
    pytest.param(read_xfcc, f'Subject="a"b;Hash={HEX}'.encode(), id="Envoy, text after a quote"),
    pytest.param(read_xfcc, f"Subject=CN=a;Hash={HEX}".encode(), id="Envoy, = without quotes"),
    pytest.param(read_xfcc, f" Hash={HEX}".encode(), id="Envoy, a space"),
    pytest.param(read_xfcc, b"By=a," * 100_000, id="Envoy, many elements"),
]


@pytest.mark.requirement("RS-150", "RS-151")
@pytest.mark.parametrize(("read", "value"), REFUSED)
def test_another_value_is_refused_without_being_quoted(read: Callable[[bytes], str], value: bytes) -> None:
    with pytest.raises(ValueError, match=r"^[A-Za-z0-9].{5,100}$") as refused:
        read(value)
    assert len(value) < 3 or value.decode("latin-1") not in str(refused.value)


READERS = [thumbprint_of, read_pem, read_client_cert, read_escaped_pem, read_xfcc]


@pytest.mark.requirement("RS-151")
@given(st.sampled_from(READERS), st.binary(max_size=60) | st.text('Hash=Cert;,"\\:%20aF-', max_size=60).map(str.encode))
@example(read_xfcc, b'Hash="\\')
@example(read_pem, b"-----BEGIN CERTIFICATE-----")
def test_any_bytes_are_refused_or_have_a_thumbprint(read: Callable[[bytes], str], value: bytes) -> None:
    try:
        found = read(value)
    except ValueError:
        return
    assert len(base64.urlsafe_b64decode(found + "=")) == hashlib.sha256().digest_size


@pytest.mark.requirement("RS-150")
@given(st.binary(min_size=1, max_size=400))
def test_all_forms_of_one_certificate_have_one_thumbprint(content: bytes) -> None:
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x81, size]) if size < 256 else b"\x82" + size.to_bytes(2)
    der = b"\x30" + length + content
    text = base64.b64encode(der)
    pem = b"-----BEGIN CERTIFICATE-----\n" + text + b"\n-----END CERTIFICATE-----\n"
    escaped = quote(pem, safe="").encode()
    found = {thumbprint_of(der), read_pem(pem), read_client_cert(b":" + text + b":"), read_escaped_pem(escaped)}
    found |= {read_xfcc(b'Cert="' + escaped + b'"'), read_xfcc(b"Hash=" + hashlib.sha256(der).hexdigest().encode())}
    assert len(found) == 1
