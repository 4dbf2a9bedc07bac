"""The usual request, told from the raw scope: an endpoint, one bearer token or none, no other field that decides.

Most requests are like that, and for them the ten steps of `middleware` come to a few look-ups: 6 µs instead of 10.
Whatever is not so plain, or has to wait, is `None` here and goes through the steps. That the two never differ is a
property that is tested (`tests/test_usual.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from asgi_mcp_auth._asgi.gate import Gate
from asgi_mcp_auth._protocol.credentials import is_token
from asgi_mcp_auth._protocol.paths import Verdict
from asgi_mcp_auth._protocol.request import CREDENTIAL_FIELDS, WELL_KNOWN
from asgi_mcp_auth._protocol.resource import CompiledResource
from asgi_mcp_auth._protocol.scopes import Requirement
from asgi_mcp_auth._protocol.site import is_well_known
from asgi_mcp_auth._remote.jwt_verifier import JWTVerifier
from asgi_mcp_auth._remote.verifiers import Verified
from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.errors import NoCredential, Reason, Refusal

__all__ = ("Endpoint", "Undecided", "UsualRequests", "usual_requests")

DECIDING = CREDENTIAL_FIELDS | {b"origin"}
BEARER = b"Bearer "
NO_CREDENTIAL = NoCredential(Reason.NO_CREDENTIAL)


class Endpoint(NamedTuple):
    """What has a say about requests for it: the token, and the scopes it needs; the gate, where there are none."""

    resource: CompiledResource
    verdict: Verdict
    gate: Gate
    requirement: Requirement | None
    recall: Callable[[bytes], Verified | None]
    verify_new: Callable[[bytes, bytes], Verified | Refusal | None]


class Undecided:
    """Who is calling, or why not, and the token: answering, or step 9, is left to the middleware."""

    __slots__ = ("decided", "endpoint", "token")

    def __init__(self, decided: Verified | Refusal, token: bytes, endpoint: Endpoint) -> None:
        self.decided = decided
        self.token = token
        self.endpoint = endpoint


Caller = tuple[Verified, list[Any]]
"""Who may go on to the app, and the header fields without the token. A plain tuple saves 0.3 µs."""


class UsualRequests:
    """The endpoints, by method and path, where requests can be usual ones."""

    def __init__(self, endpoints: Mapping[tuple[str, str], Endpoint]) -> None:
        self._endpoints = dict(endpoints)

    def judge(self, scope: Any) -> Caller | Undecided | None:
        """The decision about an http request, or None for one that is to be judged step by step."""
        endpoint = self._endpoints.get((scope["method"], scope["path"]))
        fields: list[Any] = scope["headers"]
        if endpoint is None or fields.__class__ is not list:  # it may be an iterable that can be read only once
            return None
        if scope.get("root_path") or (scope.get("raw_path") or b"").startswith(WELL_KNOWN):
            return None
        line: bytes | None = None
        others: list[Any] = []
        for field in fields:
            if field[0] not in DECIDING:
                others.append(field)
            elif line is not None or field[0] != b"authorization":
                return None
            else:
                line = field[1]
        if line is None:
            return None if endpoint.gate.public_methods else Undecided(NO_CREDENTIAL, b"", endpoint)
        if line[:7] != BEARER:
            return None
        token = line[7:]
        digest = sha256(token).digest()
        decided = endpoint.recall(digest) or _verify_new(endpoint, token, digest)
        if decided is None:
            return None
        needed = endpoint.requirement
        if needed is None or not isinstance(decided, Verified):
            return Undecided(decided, token, endpoint)
        return (decided, others) if needed.met_by(decided.auth_info.scopes) else None


def _verify_new(endpoint: Endpoint, token: bytes, digest: bytes) -> Verified | Refusal | None:
    """The decision about a token that is not remembered, or None where the steps have to make it."""
    if not is_token(token):
        return None
    try:
        return endpoint.verify_new(token, digest)
    except Exception:  # noqa: BLE001 - the steps meet it too, and answer 503
        return None


def usual_requests(auth: MCPAuth, gates: tuple[Gate, ...], own_root_path: str) -> UsualRequests:
    """Compile them: none where every request has to be told, or looked at in ways that are not here."""
    endpoints: dict[tuple[str, str], Endpoint] = {}
    if auth.observers or auth.reject_query_token or auth.site.hosts.on or own_root_path:
        return UsualRequests(endpoints)
    for (method, path), verdict in auth.site.paths.endpoints.items():
        if verdict.public or verdict.owner is None or is_well_known(path):
            continue
        verifier, gate = auth.verifiers[verdict.owner], gates[verdict.owner]
        if isinstance(verifier, JWTVerifier):
            endpoints[method, path] = Endpoint(
                resource=auth.site.resources[verdict.owner],
                verdict=verdict,
                gate=gate,
                requirement=gate.by_path_alone(verdict.rule, verdict.plain),
                recall=verifier.cache.recall,
                verify_new=verifier.verify_new,
            )
    return UsualRequests(endpoints)
