"""API keys as they are stored: one JSON object for each key, with its digest and never the key itself. Pure."""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Final

from asgi_mcp_auth._oauth.grammar import is_scope
from asgi_mcp_auth._oauth.json_types import is_list, is_number
from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object

__all__ = (
    "API_KEY_ISSUER",
    "MAX_FILE_BYTES",
    "ApiKeyRecord",
    "FaultyRecordError",
    "digest_of",
    "parse_lines",
    "parse_record",
    "read_keys",
)

API_KEY_ISSUER: Final = "urn:asgi-mcp-auth:api-key"
"""The issuer of every principal that an API key names. No authorization server can have it: issuers are URLs."""

MAX_FILE_BYTES: Final = 16 * 1024 * 1024
DIGEST_DIGITS: Final = 64


class FaultyRecordError(ValueError):
    """A record that cannot be used. The message says why, without the digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyRecord:
    """What is stored of one API key.

    Attributes:
        id: The name of the key, for people.
        sha256: The SHA-256 of the key in hexadecimal; empty if there is an HMAC instead.
        hmac_sha256: The HMAC-SHA-256 of the key with the pepper in hexadecimal; empty if there is a plain digest.
        subject: The subject of its principal.
        scopes: The granted scopes.
        expires_at: The end of the key in seconds since the epoch; None without an end.
        resource: The only resource that accepts the key; None for every resource with this file or store.
        revoked: Whether the key is refused for good.
    """

    id: str
    subject: str
    sha256: str = ""
    hmac_sha256: str = ""
    scopes: tuple[str, ...] = ()
    expires_at: float | None = None
    resource: str | None = None
    revoked: bool = False

    def line(self) -> str:
        """Return the record as one line of a file, which `parse_lines` reads."""
        members = {name: value for name, value in asdict(self).items() if value not in ("", None, False)}
        return json.dumps(members)

    def __repr__(self) -> str:
        return f"<ApiKeyRecord {self.id!r} of {self.subject!r}>"


def digest_of(key: bytes, pepper: str | None) -> str:
    """Return what is stored of a key: its SHA-256, or with a pepper its HMAC-SHA-256, in hexadecimal."""
    return sha256(key).hexdigest() if pepper is None else hmac.digest(pepper.encode(), key, "sha256").hex()


def parse_record(data: bytes) -> ApiKeyRecord:
    """Parse one record.

    Raises:
        FaultyRecordError: A member is unknown, missing, or of another form.
    """
    try:
        members = load_object(data)
    except JSONRefused as error:
        raise FaultyRecordError(f"it is refused: {error}") from None
    unknown = sorted(members.keys() - ApiKeyRecord.__slots__)
    if unknown:
        raise FaultyRecordError(f"it has the unknown member {unknown[0]!r}")
    digests = [members.get(name) for name in ("sha256", "hmac_sha256") if name in members]
    checks = {
        "id": _is_text(members.get("id")),
        "subject": _is_text(members.get("subject")),
        "sha256": len(digests) == 1 and _is_digest(digests[0]),
        "scopes": _are_scopes(members.get("scopes", [])),
        "expires_at": members.get("expires_at") is None or _is_time(members["expires_at"]),
        "resource": members.get("resource") is None or _is_text(members["resource"]),
        "revoked": isinstance(members.get("revoked", False), bool),
    }
    wrong = [name for name, is_good in checks.items() if not is_good]
    if wrong:
        raise FaultyRecordError(f"its {wrong[0]} is missing or malformed")
    values: dict[str, Any] = dict(members)
    values["scopes"] = tuple(values.get("scopes", ()))
    return ApiKeyRecord(**values)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == DIGEST_DIGITS and not value.strip("0123456789abcdef")


def _are_scopes(value: object) -> bool:
    return is_list(value) and all(map(is_scope, value))


def _is_time(value: object) -> bool:
    return is_number(value) and math.isfinite(value)


def parse_lines(data: bytes) -> Iterator[tuple[int, ApiKeyRecord]]:
    """Yield the number and the record of each line; empty lines and lines that begin with `#` are comments.

    Raises:
        FaultyRecordError: A line is no record; the message names the line.
    """
    for number, line in enumerate(data.split(b"\n"), 1):
        text = line.strip()
        if text and not text.startswith(b"#"):
            try:
                yield number, parse_record(text)
            except FaultyRecordError as error:
                raise FaultyRecordError(f"line {number}: {error}") from None


def read_keys(data: bytes, *, with_pepper: bool) -> dict[str, ApiKeyRecord]:
    """Return the records of a file by their digests.

    Raises:
        FaultyRecordError: A line is no record, repeats the digest or the id of another line, or has a digest of the
            other kind.
    """
    found: dict[str, ApiKeyRecord] = {}
    names: set[str] = set()
    for number, record in parse_lines(data):
        digest = record.hmac_sha256 if with_pepper else record.sha256
        if not digest:
            missing = "hmac_sha256, because a pepper is set" if with_pepper else "sha256, because no pepper is set"
            raise FaultyRecordError(f"line {number}: it needs {missing}")
        if digest in found or record.id in names:
            raise FaultyRecordError(f"line {number}: the key or its id is listed more than once")
        found[digest] = record
        names.add(record.id)
    return found
