"""Access tokens outside of `Authorization`: a field of a trusted proxy, a websocket subprotocol. Off by default. Pure.

A token of these transports is moved to `Authorization`, where all tokens are read. So one algorithm decides, and a
token in addition to another one is refused as ambiguous there.
"""

from __future__ import annotations

from dataclasses import dataclass

from asgi_mcp_auth._policy.problems import Problems, show
from asgi_mcp_auth._policy.trusted_fields import TrustedField, compile_field
from asgi_mcp_auth._request import Scope, spellings
from asgi_mcp_auth.config import TrustedTokenHeader

__all__ = ("TokenTransports", "compile_transports")

SUBPROTOCOLS = frozenset(spellings(b"sec-websocket-protocol"))
SUBPROTOCOL_PREFIX = "bearer."
UNTRUSTED = (
    "The field of trusted_token_header came from a peer that proxies= does not list, and was dropped. If the peer is a "
    "proxy of yours, list the address that the server reports for it."
)

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class TokenTransports:
    """The accepted transports of tokens.

    Attributes:
        field: The field in which a trusted proxy sends tokens; None if there is none.
        subprotocol: Whether a websocket may offer a token as a subprotocol.
    """

    field: TrustedField | None
    subprotocol: bool

    def move_tokens(self, scope: Scope) -> tuple[Scope, str | None]:
        """Return the scope with its tokens in `Authorization`, and a warning if a field of another peer was dropped."""
        warning = None
        tokens = [] if self.field is None else self.field.values(scope)
        if self.field is not None and tokens:
            is_trusted = self.field.peers.include(scope)
            scope, warning = self.field.remove(scope), None if is_trusted else UNTRUSTED
            if is_trusted:
                scope = {**scope, "headers": [*scope["headers"], *map(_authorization, tokens)]}
        if self.subprotocol and scope["type"] == "websocket":
            scope = _move_subprotocols(scope)
        return scope, warning


def _authorization(token: bytes) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + token


def _move_subprotocols(scope: Scope) -> Scope:
    """Move the subprotocols `bearer.<token>`, in any case; the app sees the others, and selects one of them."""
    prefix = SUBPROTOCOL_PREFIX.encode("ascii")
    headers: Headers = []
    for name, value in scope["headers"]:
        offered = [part.strip(b" \t") for part in value.split(b",")] if name in SUBPROTOCOLS else []
        tokens = [part[len(prefix) :] for part in offered if part.lower().startswith(prefix)]
        if not tokens:
            headers.append((name, value))
            continue
        headers += map(_authorization, tokens)
        others = [part for part in offered if not part.lower().startswith(prefix)]
        if others:
            headers.append((name, b", ".join(others)))
    others = [offer for offer in scope.get("subprotocols") or () if not offer.lower().startswith(SUBPROTOCOL_PREFIX)]
    return {**scope, "headers": headers, "subprotocols": others}


def compile_transports(header: object, subprotocol: object, problems: Problems) -> TokenTransports | None:
    """Return the transports compiled; None if there are none. Every problem is added to `problems`."""
    field = None
    if isinstance(header, TrustedTokenHeader):
        where, example = "trusted_token_header", "Cf-Access-Jwt-Assertion"
        field = compile_field(header.name, header.proxies, where, problems, member="name", example=example)
    elif header is not None:
        fix = 'Pass TrustedTokenHeader(name="Cf-Access-Jwt-Assertion", proxies=[...]).'
        problems.add("trusted_token_header", f"{show(header)} is not a TrustedTokenHeader.", fix)
    return TokenTransports(field, subprotocol is True) if field is not None or subprotocol is True else None
