"""Parsers for what browsers and clients send: queries, forms, header fields.

Any bytes yield values or an `OAuthError`. Parameters without a value count as absent, and repeated parameters are
listed (OAuth 2.1 section 3.1). Bytes that are not UTF-8 are accepted in `state` alone, which is returned unchanged.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote_plus

from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.dev._errors import OAuthError

__all__ = ("FORM", "Params", "basic_credentials", "header_values", "media_type", "read_form", "read_params")

FORM: Final = "application/x-www-form-urlencoded"
MAX_PARAMS = 64
REPEATABLE: Final = ("resource",)  # RFC 8707 section 2
VERBATIM: Final = ("state",)


@dataclass(frozen=True, slots=True)
class Params:
    """Parameters by name, without those that have no value."""

    values: Mapping[str, tuple[str, ...]]
    repeated: tuple[str, ...] = ()
    """Names of parameters that occur more than once and must not."""

    def get(self, name: str) -> str | None:
        """Return the value of a parameter, or None."""
        found = self.values.get(name, ())
        return found[0] if found else None

    def all(self, name: str) -> tuple[str, ...]:
        """Return the values of a repeatable parameter."""
        return self.values.get(name, ())

    def required(self, name: str) -> str:
        """Return the value of a parameter.

        Raises:
            OAuthError: `invalid_request`: the parameter is absent.
        """
        value = self.get(name)
        if value is None:
            raise OAuthError("invalid_request", f"The parameter {name} is missing.")
        return value

    def refuse_repeated(self) -> None:
        """Refuse repeated parameters (OAuth 2.1 sections 3.1 and 3.2).

        Raises:
            OAuthError: `invalid_request`: a parameter occurs more than once.
        """
        if self.repeated:
            name = self.repeated[0] if self.repeated[0].isidentifier() and self.repeated[0].isascii() else ""
            which = f"The parameter {name[:64]}" if name else "A parameter"
            raise OAuthError("invalid_request", f"{which} occurs more than once.")


def read_params(data: bytes) -> Params:
    """Parse a query or the body of a form.

    Raises:
        OAuthError: `invalid_request`: not ASCII, too many parameters, or text that is not UTF-8.
    """
    try:
        text = data.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="surrogateescape", max_num_fields=MAX_PARAMS)
    except ValueError:
        what = f"The parameters are not an ASCII form of at most {MAX_PARAMS} fields."
        raise OAuthError("invalid_request", what) from None
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in VERBATIM:
            _refuse_bad_text(name, value)
        values.setdefault(name, []).append(value)
    repeated = tuple(name for name, found in values.items() if len(found) > 1 and name not in REPEATABLE)
    kept = {name: tuple(value for value in found if value) for name, found in values.items()}
    return Params({name: found for name, found in kept.items() if found}, repeated)


def _refuse_bad_text(*texts: str) -> None:
    for text in texts:
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise OAuthError("invalid_request", "A parameter is not UTF-8.")


def read_form(request: RequestInfo, body: bytes) -> Params:
    """Parse the form in a POST request (OAuth 2.1 section 3.2.2).

    Raises:
        OAuthError: `invalid_request`.
    """
    if media_type(request) != FORM:
        raise OAuthError("invalid_request", f"The body has to be {FORM}.")
    params = read_params(body)
    params.refuse_repeated()
    return params


def header_values(request: RequestInfo, name: bytes) -> list[bytes]:
    """Return the values of all header fields with a name."""
    fields: Iterable[tuple[bytes, bytes]] = request.scope["headers"]
    return [value for key, value in fields if key == name]


def media_type(request: RequestInfo) -> str:
    """Return the media type of the body in lower case, without parameters.

    The answer is empty unless the request has exactly one `Content-Type`.
    """
    values = header_values(request, b"content-type")
    return values[0].partition(b";")[0].strip().decode("latin-1").lower() if len(values) == 1 else ""


def basic_credentials(value: bytes) -> tuple[str, str] | None:
    """Return client ID and secret of an `Authorization: Basic` value, or None if the value is malformed.

    Both halves are form-decoded (OAuth 2.1 section 2.4.1).
    """
    scheme, _, encoded = value.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return None
    return (unquote_plus(user), unquote_plus(password)) if colon else None
