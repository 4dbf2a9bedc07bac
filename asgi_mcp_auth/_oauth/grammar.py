"""Grammar rules that several RFCs share, once: as classes and expressions for `re`, and as predicates."""

from __future__ import annotations

import re
from typing import Final

__all__ = ("JSON_TYPE", "NQCHAR", "NQSCHAR", "QUOTED_STRING", "TCHAR", "TOKEN", "is_scope", "is_token68")

TCHAR: Final = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
"""The characters of a token, for a character class (RFC 9110 section 5.6.2)."""

TOKEN: Final = f"[{TCHAR}]+"
"""A token: the name of a field, an authentication scheme or a parameter (RFC 9110 section 5.6.2)."""

QUOTED_STRING: Final = r'"(?:[^"\\]|\\.)*"'
"""A quoted string, control characters included, since real senders include them (RFC 9110 section 5.6.4)."""

NQCHAR: Final = r"\x21\x23-\x5B\x5D-\x7E"
"""Printable ASCII without space, quote and backslash, for a character class (RFC 6749 appendix A)."""

NQSCHAR: Final = rf"\x20{NQCHAR}"
"""The same with the space (RFC 6749 appendix A)."""

JSON_TYPE: Final = r"(?i)application/(?:[a-z0-9.+-]+\+)?json[ \t]*(?:;|\Z)"
"""The beginning of a `Content-Type` that says JSON, or a format that is made of JSON (RFC 6839 section 3.1)."""

_SCOPE = re.compile(f"[{NQCHAR}]+")
_TOKEN68 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"


def is_scope(text: object) -> bool:
    """Return whether `text` is one scope-token (RFC 6749 section 3.3)."""
    return isinstance(text, str) and _SCOPE.fullmatch(text) is not None


def is_token68(text: bytes) -> bool:
    """Return whether `text` is token68: letters, digits and `-._~+/`, then padding (RFC 9110 section 11.2)."""
    body = text.rstrip(b"=")
    return body != b"" and not body.translate(None, _TOKEN68)
