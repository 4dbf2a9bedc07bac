"""Reading what browsers and clients send: queries, forms, header fields; any bytes give values or an `OAuthError`.

Parameters without a value count as absent, repeated ones are told (OAuth 2.1 section 3.1). Bytes that are no UTF-8
are kept in `state` alone, which goes back as it came.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote_plus

from asgi_mcp_auth._request import RequestInfo as Request
from asgi_mcp_auth.dev.errors import OAuthError

__all__ = ("FORM", "Params", "basic_credentials", "header_lines", "media_type", "read_form", "read_params")

FORM: Final = "application/x-www-form-urlencoded"
MAX_PARAMS = 64
MANY_TIMES: Final = ("resource",)  # RFC 8707 section 2
VERBATIM: Final = ("state",)


@dataclass(frozen=True, slots=True)
class Params:
    """Parameters by name, those without a value left out."""

    values: Mapping[str, tuple[str, ...]]
    repeated: tuple[str, ...] = ()
    """Names that were there more than once though they may not be."""

    def get(self, name: str) -> str | None:
        """The value of a parameter."""
        found = self.values.get(name, ())
        return found[0] if found else None

    def all(self, name: str) -> tuple[str, ...]:
        """The values of a parameter that may be repeated."""
        return self.values.get(name, ())

    def required(self, name: str) -> str:
        """The value of a parameter that has to be there."""
        value = self.get(name)
        if value is None:
            raise OAuthError("invalid_request", f"The parameter {name} is missing.")
        return value

    def refuse_repeated(self) -> None:
        """OAuth 2.1 section 3.1 and 3.2: parameters must not be included more than once."""
        if self.repeated:
            named = self.repeated[0] if self.repeated[0].isidentifier() and self.repeated[0].isascii() else "One"
            raise OAuthError("invalid_request", f"{named[:64]} is there more than once.")


def read_params(data: bytes) -> Params:
    """Read a query or the body of a form.

    Raises:
        OAuthError: `invalid_request`: not ASCII, too many parameters, or text that is no UTF-8.
    """
    try:
        text = data.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="surrogateescape", max_num_fields=MAX_PARAMS)
    except ValueError:
        raise OAuthError("invalid_request", "The parameters are no form of ASCII characters.") from None
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in VERBATIM:
            _refuse_bad_text(name, value)
        values.setdefault(name, []).append(value)
    repeated = tuple(name for name, found in values.items() if len(found) > 1 and name not in MANY_TIMES)
    kept = {name: tuple(value for value in found if value) for name, found in values.items()}
    return Params({name: found for name, found in kept.items() if found}, repeated)


def _refuse_bad_text(*texts: str) -> None:
    for text in texts:
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise OAuthError("invalid_request", "A parameter is no UTF-8.")


def read_form(request: Request, body: bytes) -> Params:
    """Read the form that a POST has to be (OAuth 2.1 section 3.2.2).

    Raises:
        OAuthError: `invalid_request`.
    """
    if media_type(request) != FORM:
        raise OAuthError("invalid_request", f"The body has to be {FORM}.")
    params = read_params(body)
    params.refuse_repeated()
    return params


def header_lines(request: Request, name: bytes) -> list[bytes]:
    """The lines of a header field."""
    fields: Iterable[tuple[bytes, bytes]] = request.scope["headers"]
    return [value for key, value in fields if key == name]


def media_type(request: Request) -> str:
    """The media type of the body in lower case, without parameters; empty where there is not exactly one."""
    lines = header_lines(request, b"content-type")
    return lines[0].partition(b";")[0].strip().decode("latin-1").lower() if len(lines) == 1 else ""


def basic_credentials(line: bytes) -> tuple[str, str] | None:
    """Client id and secret of an `Authorization: Basic` line, each form-decoded (OAuth 2.1 section 2.4.1), or None."""
    scheme, _, encoded = line.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return None
    return (unquote_plus(user), unquote_plus(password)) if colon else None
