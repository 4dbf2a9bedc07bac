"""An authorization server for tests: keys, metadata, a token endpoint, and faults on demand."""

from __future__ import annotations

import base64
import json
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote_plus, urlsplit

import anyio

from asgi_mcp_auth._asgi.response import send_response
from asgi_mcp_auth._oauth.dpop_proof import Expected, ProofSettings, check_proof
from asgi_mcp_auth._oauth.introspection_response import JWT_TYPE
from asgi_mcp_auth._oauth.jwk_set import parse_key_set
from asgi_mcp_auth._oauth.jws import ALGORITHMS, parse_compact
from asgi_mcp_auth._oauth.responses import Response, json_response
from asgi_mcp_auth._oauth.token_exchange import ACCESS_TOKEN, EXCHANGE_GRANT
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.config import ServerMetadataPaths
from asgi_mcp_auth.errors import Refusal
from asgi_mcp_auth.testing._client import client_of
from asgi_mcp_auth.testing._faults import Fault, Faults, send_slowly, stall
from asgi_mcp_auth.testing._keys import SigningKey
from asgi_mcp_auth.testing._proofs import present, prove

__all__ = ("Issuer",)

MAX_COUNTED = 1000
MAX_COUNTED_LENGTH = 1000
BODY_SECONDS = 30.0
PROOFS = ProofSettings(frozenset(ALGORITHMS), 300.0)


class Issuer:
    """An authorization server that mints any token, valid or not, and publishes its metadata and keys.

    Args:
        url: The issuer identifier.
        algorithms: The algorithms of its keys, one key each. The first key signs by default.
        clock: A function that returns seconds since the epoch.

    Attributes:
        keys: The published keys. Change the list to rotate keys manually.
        proof_key: The key of the client that `prove` signs for.
        metadata: The published metadata document. Change it to publish wrong metadata.
        requests: The number of requests per path, including requests that met a fault.
        exchanges: The forms of the token exchanges that authenticated clients requested, at most 1,000.
        cache_control: The `Cache-Control` of the metadata and the key set; None to omit the field.

    Faults: `fail`, `answer`, `stall`, `trickle` and `cut` activate a fault, `heal` ends it. A fault applies to paths
    that match its pattern: `*` matches any characters (`"/jwks"`, `"*/.well-known/*"`), the default is all paths. It
    applies to the next `times` requests, by default to all. If several faults match a path, the newest applies.
    """

    MAX_BODY: ClassVar[int] = 64 * 1024
    """The number of bytes that are read of a request body."""

    def __init__(
        self,
        url: str = "https://auth.example.com",
        *,
        algorithms: tuple[str, ...] = ("RS256",),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.url = url
        self.clock = clock
        self.keys = [SigningKey(alg) for alg in algorithms]
        self.proof_key = SigningKey("ES256")
        self.requests: Counter[str] = Counter()
        self.exchanges: list[dict[str, list[str]]] = []
        self.cache_control: str | None = "no-store"
        self._faults = Faults()
        base = url.rstrip("/")
        self._path = urlsplit(base).path
        self.metadata: dict[str, Any] = {
            "issuer": url,
            "token_endpoint": f"{base}/token",
            "jwks_uri": f"{base}/jwks",
            "introspection_endpoint": f"{base}/introspect",
            "response_types_supported": [],
            "grant_types_supported": ["client_credentials", EXCHANGE_GRANT],
            "dpop_signing_alg_values_supported": list(ALGORITHMS),
        }
        self._opaque: dict[str, dict[str, Any]] = {}

    def jwks(self) -> dict[str, Any]:
        """Return the published key set."""
        return {"keys": [key.jwk for key in self.keys]}

    def rotate(self, *, keep: bool = True) -> SigningKey:
        """Add a new signing key of the same algorithm and return it; with `keep`, the old keys stay published."""
        key = SigningKey(self.keys[0].alg)
        self.keys = [key, *(self.keys if keep else ())]
        return key

    def sign(
        self, header: bytes | Mapping[str, Any], payload: bytes | Mapping[str, Any], *, key: SigningKey | None = None
    ) -> str:
        """Return a compact JWS over exactly these parts, without checking them."""
        return (key or self.keys[0]).sign(header, payload)

    def claims(self, audience: str | list[str] | None, **changes: Any) -> dict[str, Any]:
        """Return the claims of an RFC 9068 access token (section 2.2), with changes; `...` removes a claim."""
        now = int(self.clock())
        claims: dict[str, Any] = {
            "iss": self.url,
            "sub": "alice",
            "aud": audience,
            "client_id": "c1",
            "iat": now,
            "exp": now + 300,
            "jti": secrets.token_urlsafe(12),
        } | changes
        return {name: value for name, value in present(claims).items() if name != "aud" or value is not None}

    def event(
        self,
        audience: str | list[str] | None,
        event_type: str,
        subject: Mapping[str, Any],
        *,
        typ: str | None = "secevent+jwt",
        key: SigningKey | None = None,
        payload: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Return a signed Security Event Token (RFC 8417), as Shared Signals transmitters send it.

        Args:
            audience: The `aud` claim: the receiver.
            event_type: The URI of the event, for example
                `https://schemas.openid.net/secevent/caep/event-type/session-revoked`.
            subject: The `sub_id`, for example `{"format": "iss_sub", "iss": issuer.url, "sub": "alice"}`.
            typ: The `typ` header member; None for a header without it.
            key: The signing key. Default: the first key.
            payload: The members of the event.
            claims: Claims to add or replace; the value `...` removes a claim.
        """
        members = {"sub_id": dict(subject), "events": {event_type: dict(payload or {})}}
        defaults: dict[str, Any] = dict.fromkeys(("sub", "client_id", "exp"), ...)
        return self.mint(audience, typ=typ, key=key, **(defaults | members | claims))

    def logout_token(self, client_id: str, *, typ: str | None = "logout+jwt", **claims: Any) -> str:
        """Return a signed logout token (OpenID Connect Back-Channel Logout section 2.4) about `sub` or `sid`.

        Args:
            client_id: The `aud` claim.
            typ: The `typ` header member; None for a header without it.
            claims: Claims to add or replace, such as `sub="alice"`; the value `...` removes a claim.
        """
        events: dict[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}
        defaults: dict[str, Any] = {"sub": ..., "client_id": ..., "events": events}
        return self.mint(client_id, typ=typ, **(defaults | claims))

    def mint(
        self,
        audience: str | list[str] | None,
        *,
        typ: str | None = "at+jwt",
        key: SigningKey | None = None,
        header: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Return a signed access token.

        Args:
            audience: The `aud` claim; None for a token without it.
            typ: The `typ` header member; None for a header without it.
            key: The signing key. Default: the first key.
            header: Header members to add or replace.
            claims: Claims to add or replace, such as `scope="notes:read"`; the value `...` removes a claim.
        """
        signer = key or self.keys[0]
        members: dict[str, Any] = {"alg": signer.alg, "kid": signer.kid}
        if typ is not None:
            members["typ"] = typ
        return self.sign(members | dict(header or {}), self.claims(audience, **claims), key=signer)

    def prove(
        self,
        method: str,
        url: str,
        token: str | None = None,
        *,
        key: SigningKey | None = None,
        nonce: str | None = None,
        header: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Return a DPoP proof for one request, as the client that holds `key` signs it (RFC 9449 section 4).

        A token is bound to the key by `cnf={"jkt": issuer.proof_key.thumbprint}`.

        Args:
            method: The method of the request.
            url: The URL of the request; query and fragment are left out of `htu`.
            token: The access token of the request, for `ath`; None for a request to a token endpoint.
            key: The key of the client. Default: `proof_key`.
            nonce: The last nonce of the server.
            header: Header members to add or replace; the value `...` removes a member.
            claims: Claims to add or replace, such as `iat=0`; the value `...` removes a claim.
        """
        signer = key or self.proof_key
        return prove(signer, method, url, token, now=self.clock(), nonce=nonce, header=header or {}, claims=claims)

    def mint_opaque(self, audience: str | list[str] | None, **claims: Any) -> str:
        """Return an opaque access token, which `/introspect` knows; the arguments are those of `mint`."""
        token = secrets.token_urlsafe(24)
        self._opaque[token] = self.claims(audience, **({"active": True, "token_type": "Bearer"} | claims))
        return token

    def revoke(self, token: str) -> None:
        """Make an opaque token inactive."""
        self._opaque.pop(token, None)

    def http_client(self) -> Any:
        """Return a client whose requests reach this issuer in process: `MCPAuth(http_client=issuer.http_client)`."""
        return client_of(self, self.is_cut)

    def fail(self, path: str = "*", *, status: int = 500, times: int | None = None) -> None:
        """Answer matching requests with an error."""
        self.answer(path, {"error": "fault"}, status=status, times=times)

    def answer(
        self,
        path: str,
        body: object,
        *,
        status: int = 200,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        times: int | None = None,
    ) -> None:
        """Answer matching requests with this body (bytes unchanged, other values as JSON), without a Content-Length."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode("utf-8")
        fields = {"content-type": content_type, **(headers or {})}
        lines = tuple((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields.items())
        self._faults.add(Fault(path=path, times=times, instead=Response(status, lines, data)))

    def stall(self, path: str = "*", *, seconds: float = math.inf, times: int | None = None) -> None:
        """Delay the normal response by some seconds, at most until the fault is healed."""
        self._faults.add(Fault(path=path, times=times, stall=seconds))

    def trickle(self, path: str = "*", *, seconds: float = 1.0, times: int | None = None) -> None:
        """Send the normal response byte by byte, with a pause after each byte. Visible through a real server only."""
        self._faults.add(Fault(path=path, times=times, trickle=seconds))

    def cut(self, path: str = "*", *, times: int | None = None) -> None:
        """Refuse connections of `http_client`. A real server closes the connection after an incomplete response."""
        self._faults.add(Fault(path=path, times=times, cut=True))

    def heal(self, path: str = "*") -> None:
        """End the faults whose own path matches, by default all. Stalled requests get their response."""
        self._faults.heal(path)

    def is_cut(self, path: str) -> bool:
        """Return whether an in-process connection has to fail now; if so, count it as a request."""
        fault = self._faults.find(path)
        if fault is None or not fault.cut:
            return False
        self._faults.meet(path)
        self._count(path)
        return True

    def _count(self, path: str) -> None:
        if path in self.requests or (len(self.requests) < MAX_COUNTED and len(path) <= MAX_COUNTED_LENGTH):
            self.requests[path] += 1

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve metadata at its well-known URLs, the key set at `/jwks`, tokens at `/token`, and `/introspect`."""
        if scope["type"] != "http":
            raise NotImplementedError(f"an issuer serves http, not {scope['type']}")
        request = RequestInfo(scope)
        self._count(request.path)
        body = await _read_body(receive, self.MAX_BODY) if request.method not in ("GET", "HEAD") else b""
        fault = self._faults.meet(request.path)
        if fault is None:
            await send_response(await self._respond(request, body), request, receive, send)
            return
        if fault.stall:
            await stall(fault, receive)
        answer = await self._respond(request, body) if fault.instead is None else fault.instead
        await send_slowly(answer, fault, send)

    async def _respond(self, request: RequestInfo, body: bytes) -> Response:
        """Return the response without faults; `body` may be cut after `MAX_BODY` bytes."""
        path = request.path
        if path in (ServerMetadataPaths.OAUTH + self._path, self._path + ServerMetadataPaths.OIDC):
            return self.document(self.metadata)
        if path == f"{self._path}/jwks":
            return self.document(self.jwks())
        if path == f"{self._path}/token" and request.method == "POST":
            form = parse_qs(body.decode("ascii", "replace"))
            if form.get("grant_type") == [EXCHANGE_GRANT]:
                return self._exchange(request, form)
            return self._token({name: values[0] for name, values in form.items()}, request.fields.get(b"dpop"))
        if path == f"{self._path}/introspect" and request.method == "POST":
            return self._introspect(request, parse_qs(body.decode("ascii", "replace")))
        return json_response(404, {"error": "not_found"})

    def _introspect(self, request: RequestInfo, form: Mapping[str, list[str]]) -> Response:
        """Answer as RFC 7662 section 2.2, or signed (RFC 9701) if `Accept` asks for it."""
        fields = {name.lower(): value for name, value in request.scope["headers"]}
        client_id = _client_of(request, form)
        if client_id is None:
            return json_response(401, {"error": "invalid_client"})
        content = self._opaque.get(form.get("token", [""])[0], {"active": False})
        if content.get("exp", math.inf) <= self.clock():
            content = {"active": False}
        if JWT_TYPE.encode("ascii") not in fields.get(b"accept", b""):
            return json_response(200, content)
        header = {"alg": self.keys[0].alg, "kid": self.keys[0].kid, "typ": "token-introspection+jwt"}
        claims = {"iss": self.url, "aud": client_id, "iat": int(self.clock()), "token_introspection": content}
        signed = self.sign(header, claims).encode("ascii")
        return Response(200, ((b"content-type", JWT_TYPE.encode("ascii")),), signed)

    def _exchange(self, request: RequestInfo, form: Mapping[str, list[str]]) -> Response:
        """Exchange a token of this issuer (RFC 8693): every client that authenticates may act for every subject."""
        client_id = _client_of(request, form)
        if client_id is None:
            return json_response(401, {"error": "invalid_client"})
        if len(self.exchanges) < MAX_COUNTED:
            self.exchanges.append(dict(form))
        subject = self._claims_of(form.get("subject_token", [""])[0])
        if subject is None or form.get("subject_token_type") != [ACCESS_TOKEN]:
            return json_response(400, {"error": "invalid_request"})
        audience = [*form.get("resource", ()), *form.get("audience", ())]
        if not audience:
            return json_response(400, {"error": "invalid_target"})
        scope = form.get("scope", [str(subject.get("scope", ""))])[0]
        expires_at = min(int(self.clock()) + 300, subject.get("exp", math.inf))
        act = {"sub": client_id} | ({"act": subject["act"]} if "act" in subject else {})
        claims: dict[str, Any] = {
            "sub": subject["sub"],
            "client_id": client_id,
            "scope": scope,
            "exp": expires_at,
            "act": act,
        }
        answer = {
            "access_token": self.mint(audience[0] if len(audience) == 1 else audience, **claims),
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": expires_at - int(self.clock()),
            "scope": scope,
        }
        return json_response(200, answer)

    def _claims_of(self, token: str) -> dict[str, Any] | None:
        """Return the claims of an unexpired token of this issuer."""
        claims = self._opaque.get(token)
        if claims is None:
            with suppress(Refusal):
                jws = parse_compact(token.encode("ascii", "replace"))
                keys = [key for key in parse_key_set(self.jwks()).keys if key.kid == jws.header.kid]
                if any(key.verify(jws.header.alg, jws.signing_input, jws.signature) for key in keys):
                    claims = jws.claims
        expires_at = math.inf if claims is None else claims.get("exp", math.inf)
        return claims if isinstance(expires_at, (int, float)) and expires_at > self.clock() else None

    def document(self, content: dict[str, Any]) -> Response:
        """Return a response with a JSON document and the `cache_control` of this issuer."""
        held = () if self.cache_control is None else ((b"cache-control", self.cache_control.encode("latin-1")),)
        return json_response(200, content, held, store=True)

    def _token(self, form: dict[str, str], proofs: list[bytes] | None) -> Response:
        """Grant client credentials (RFC 6749 section 4.4) with a resource indicator (RFC 8707).

        A request with a DPoP proof gets a token that is bound to its key (RFC 9449 section 5).
        """
        if form.get("grant_type") != "client_credentials":
            return json_response(400, {"error": "unsupported_grant_type"})
        if "resource" not in form:
            return json_response(400, {"error": "invalid_target"})
        client_id, scope = form.get("client_id", "demo"), form.get("scope", "")
        cnf: Any = ...
        if proofs is not None:
            expected = Expected("POST", self.metadata["token_endpoint"], None, None)
            try:
                proof = check_proof(proofs, expected, PROOFS, self.clock(), lambda _: None)
            except Refusal as refused:
                return json_response(400, {"error": "invalid_dpop_proof", "error_description": str(refused.found)})
            cnf = {"jkt": proof.key.thumbprint}
        token = self.mint(form["resource"], sub=client_id, client_id=client_id, scope=scope, cnf=cnf)
        kind = "Bearer" if proofs is None else "DPoP"
        answer = {"access_token": token, "token_type": kind, "expires_in": 300, "scope": scope}
        return json_response(200, answer)


def _client_of(request: RequestInfo, form: Mapping[str, list[str]]) -> str | None:
    """Return the id of the client that sends a request, with any credentials; None without credentials."""
    secret = b"".join(request.fields.get(b"authorization", ())).decode("latin-1")
    if secret.startswith("Basic "):
        return unquote_plus(base64.b64decode(secret[6:]).decode("utf-8").partition(":")[0])
    return form.get("client_id", [None])[0] or ("" if secret else None)


async def _read_body(receive: Any, limit: int) -> bytes:
    """Return the body: at most `limit` + 1 bytes, and only what arrives within `BODY_SECONDS`."""
    body, more = bytearray(), True
    with anyio.move_on_after(BODY_SECONDS):
        while more and len(body) <= limit:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
    return bytes(body[: limit + 1])
