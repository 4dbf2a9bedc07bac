"""Compiling where client certificates come from: the ASGI TLS extension, or a field of a trusted proxy. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from asgi_mcp_auth._oauth.certificates import (
    MAX_FIELD,
    read_client_cert,
    read_escaped_pem,
    read_pem,
    read_xfcc,
    write_field,
)
from asgi_mcp_auth._oauth.json_types import unchecked
from asgi_mcp_auth._policy.problems import Problems, show
from asgi_mcp_auth._policy.trusted_fields import TrustedField, compile_field, compile_peers
from asgi_mcp_auth._request import Scope
from asgi_mcp_auth.config import ClientCertificates

__all__ = ("CertificateSource", "compile_certificates")

FORMATS: Final = {"rfc9440": read_client_cert, "xfcc": read_xfcc, "escaped-pem": read_escaped_pem}
UNTRUSTED: Final = (
    "The field of client_certificates came twice, or from a peer that proxies= does not list, and was dropped. If the "
    "peer is a proxy of yours, list the address that the server reports for it, and let it replace the field."
)
KNOWN_FIELDS: Final = {"client-cert": "rfc9440", "x-forwarded-client-cert": "xfcc"}


@dataclass(frozen=True, slots=True)
class CertificateSource:
    """Where the certificate of a client comes from.

    Attributes:
        field: The field of a trusted proxy; None for the TLS extension.
        form: The format of the field.
    """

    field: TrustedField | None
    form: str

    def drop_untrusted(self, scope: Scope) -> tuple[Scope, str | None]:
        """Return the scope without fields that must not be believed, and a warning if there were any.

        These are fields of other peers, and repeated ones: one of them may be the client's, if the proxy adds its field
        instead of replacing that of the client.
        """
        lines = 0 if self.field is None else len(self.field.values(scope))
        if self.field is None or not lines or (lines == 1 and self.field.peers.include(scope)):
            return scope, None
        return self.field.remove(scope), UNTRUSTED

    def as_reported(self, pem: str) -> Scope:
        """Return the parts of a scope that report a certificate, as the server or a trusted proxy would."""
        if self.field is None:
            return {"headers": [], "extensions": {"tls": {"client_cert_chain": [pem]}}}
        return {"headers": [(min(self.field.names), write_field(pem, self.form).encode("ascii"))]}

    def thumbprint(self, scope: Scope) -> str | None:
        """Return the thumbprint of the client's certificate, or None if there is no certificate.

        `scope` has gone through `drop_untrusted`. Raises `ValueError` if the certificate cannot be read.
        """
        if self.field is None:
            return _from_extension(scope)
        values = self.field.values(scope)
        if not values:
            return None
        if len(values[0]) > MAX_FIELD:
            raise ValueError("more bytes than a certificate has")
        # Proxies send nothing or "-" for a client without a certificate.
        return FORMATS[self.form](values[0]) if values[0].strip(b" \t-") else None


def _from_extension(scope: Scope) -> str | None:
    """Return the thumbprint of the first certificate in the ASGI TLS extension: the client's own."""
    extensions: Mapping[str, Mapping[str, Any]] = scope.get("extensions") or {}
    tls = extensions.get("tls")
    if tls is None:
        raise ValueError("no ASGI TLS extension: the server does not report certificates")
    chain: Iterable[str] = tls.get("client_cert_chain") or ()
    first = next(iter(chain), None)
    return None if first is None else read_pem(first.encode("ascii", "replace"))


def compile_certificates(given: object, problems: Problems) -> CertificateSource | None:
    """Return where certificates come from; None if there is no source. Every problem is added to `problems`."""
    where = "client_certificates"
    if given is None:
        return None
    if not isinstance(given, ClientCertificates):
        fix = 'Pass ClientCertificates(header="Client-Cert", proxies=[...]), or ClientCertificates() for the extension.'
        problems.add(where, f"{show(given)} is not a ClientCertificates.", fix)
        return None
    form = unchecked(given.format)
    if unchecked(given.header) is None:
        peers = compile_peers(given.proxies, f"{where}.proxies", problems)
        if form is not None or peers.networks or peers.unix:
            fix = "Set header to the name of the field, or remove format and proxies."
            problems.add(where, "format and proxies are for a header field, and there is none.", fix)
        return CertificateSource(None, "")
    field = compile_field(given.header, given.proxies, where, problems, member="header", example="Client-Cert")
    if field is None:
        return None
    form = KNOWN_FIELDS.get(str(given.header).lower()) if form is None else form
    if not isinstance(form, str) or form not in FORMATS:
        fix = f"Set one of {', '.join(FORMATS)}."
        what = f"{show(form)} is not a format of certificates." if form is not None else "The format is missing."
        problems.add(f"{where}.format", what, fix)
        return None
    return CertificateSource(field, form)
