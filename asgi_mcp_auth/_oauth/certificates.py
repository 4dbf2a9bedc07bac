"""Client certificates in the forms in which servers and proxies report them, down to their thumbprint.

The thumbprint is that of `cnf.x5t#S256` (RFC 8705 section 3.1): the SHA-256 digest of the certificate in DER. Nothing
else of a certificate is read: a token is bound to the certificate itself, not to its issuer (RFC 8705 section 6.2).
Every function raises `ValueError` with what is wrong, and never with the value.
"""

from __future__ import annotations

import binascii
import re
from hashlib import sha256
from urllib.parse import quote, unquote_to_bytes

from asgi_mcp_auth._oauth.jws import encode_base64url

__all__ = ("MAX_FIELD", "read_client_cert", "read_escaped_pem", "read_pem", "read_xfcc", "thumbprint_of", "write_field")

MAX_FIELD = 32 * 1024
"""Bytes of a header field; the largest certificates in use, with post-quantum signatures, have about 10 KB of DER."""

MAX_ELEMENTS = 16
BEGIN, END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
SEQUENCE, LONG_FORM, MAX_LENGTH_BYTES = 0x30, 0x80, 4

# Envoy quotes a value with `,`, `;` or `=`, and writes `"` as `\"` in it.
_PAIR = re.compile(rb'([A-Za-z]{1,16})=(?:"((?:[^"\\]|\\.)*)"|([^",;=]*))([,;]|\Z)')
_HASH = re.compile(rb"[0-9A-Fa-f]{64}")


def thumbprint_of(der: bytes) -> str:
    """Return the thumbprint of one certificate in DER."""
    if not _is_one_sequence(der):
        raise ValueError("no certificate in DER")
    return encode_base64url(sha256(der).digest())


def read_pem(text: bytes) -> str:
    """Return the thumbprint of the one certificate in a PEM text (RFC 7468), as the ASGI TLS extension contains it."""
    body = text.strip(b" \t\r\n")
    if len(body) > MAX_FIELD:
        raise ValueError("more bytes than a certificate has")
    if not body.startswith(BEGIN) or not body.endswith(END) or len(body) < len(BEGIN) + len(END):
        raise ValueError("no certificate in PEM")
    return thumbprint_of(_decode(b"".join(body[len(BEGIN) : -len(END)].split())))


def read_client_cert(value: bytes) -> str:
    """Return the thumbprint of the certificate in `Client-Cert` (RFC 9440 section 2.2): a byte sequence in colons."""
    text = value.strip(b" ")
    if len(text) < 3 or text[:1] != b":" or text[-1:] != b":":  # noqa: PLR2004 - two colons and something in between
        raise ValueError("no byte sequence (RFC 8941 section 3.3.5)")
    return thumbprint_of(_decode(text[1:-1]))


def read_escaped_pem(value: bytes) -> str:
    """Return the thumbprint of a certificate in percent-encoded PEM, such as nginx's `$ssl_client_escaped_cert`."""
    return read_pem(unquote_to_bytes(value))


def read_xfcc(value: bytes) -> str:
    """Return the thumbprint of the certificate in `X-Forwarded-Client-Cert` of Envoy and Istio: `Hash`, or `Cert`.

    The field has one element for each proxy that appended its own client. Which element is of the client that sends the
    token depends on the deployment, so several elements are ambiguous.
    """
    elements = _read_elements(value)
    if len(elements) > 1:
        raise ValueError(f"{len(elements)} elements: the outermost proxy has to replace the field (SANITIZE_SET)")
    element = elements[0]
    digest, certificate = element.get(b"hash"), element.get(b"cert")
    if digest is not None and _HASH.fullmatch(digest) is None:
        raise ValueError("a Hash that is no SHA-256 digest")
    hashed = None if digest is None else encode_base64url(bytes.fromhex(digest.decode("ascii")))
    found = hashed if certificate is None else read_escaped_pem(certificate)
    if found is None:
        raise ValueError("an element without Hash and Cert")
    if hashed not in (None, found):
        raise ValueError("a Hash that is not of Cert")
    return found


def write_field(pem: str, form: str) -> str:
    """Return a certificate in PEM as a header field reports it: `"rfc9440"`, `"xfcc"` or `"escaped-pem"`."""
    if form == "escaped-pem":
        return quote(pem, safe="")
    der = _decode("".join(pem.strip().splitlines()[1:-1]).encode("ascii", "replace"))
    if form == "xfcc":
        return f"Hash={sha256(der).hexdigest()}"
    return f":{binascii.b2a_base64(der, newline=False).decode('ascii')}:"


def _read_elements(value: bytes) -> list[dict[bytes, bytes]]:
    """Return the elements, each by its keys in lower case; keys may repeat (`URI`, `DNS`), but not Hash and Cert."""
    elements: list[dict[bytes, bytes]] = [{}]
    position, ended = 0, False
    while not ended:
        found = _PAIR.match(value, position)
        if found is None or len(elements) > MAX_ELEMENTS:
            raise ValueError("no list of key=value")
        key, quoted, plain, separator = found.groups()
        name, element = key.lower(), elements[-1]
        if name in element and name in (b"hash", b"cert"):
            raise ValueError("a key that is repeated")
        element[name] = plain if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted, flags=re.DOTALL)
        position, ended = found.end(), separator == b""
        if separator == b",":
            elements.append({})
    return elements


def _decode(text: bytes) -> bytes:
    """Decode canonical base64 with padding (RFC 4648 section 4)."""
    if len(text) > MAX_FIELD:
        raise ValueError("more bytes than a certificate has")
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        data = b""
    if not data or binascii.b2a_base64(data, newline=False) != text:
        raise ValueError("not canonical base64")
    return data


def _is_one_sequence(der: bytes) -> bool:
    """Return whether the bytes are one SEQUENCE of definite length in its shortest form, and nothing after it."""
    if len(der) < 2 or der[0] != SEQUENCE:  # noqa: PLR2004 - tag and length
        return False
    first = der[1]
    if first < LONG_FORM:
        return len(der) == 2 + first
    octets = der[2 : 2 + first - LONG_FORM]
    length = int.from_bytes(octets)
    is_shortest = 1 <= first - LONG_FORM <= MAX_LENGTH_BYTES and octets[:1] != b"\0" and length >= LONG_FORM
    return is_shortest and len(der) == 2 + len(octets) + length
