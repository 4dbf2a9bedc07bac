"""`MCPAuthMiddleware`: the story of one request, in the order of the ten steps below.

    1. Host                      → 421        6. read the credential     → 400, 401
    2. a metadata path of ours   → answered   7. verify it               → 401, 503
    3. a public path             → the app    8. sender constraint       (within 7: a bound token is refused)
    4. which resource owns it    → 404        9. scopes, of the operation → 403, 401; 400, 413, 415 for its body
    5. Origin, CORS preflight    → 403, 204  10. the app, on a copied scope; its errors are its own

Everything called here is a pure function of `_protocol`, or one of the few objects of `_remote` that wait.
Nothing about a request is kept on `self`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Unpack, cast

from asgi_mcp_auth._asgi.admission import Admitted, Answer, Permission, report
from asgi_mcp_auth._asgi.authorizer import Authorizer
from asgi_mcp_auth._asgi.identity import sdk_bridge
from asgi_mcp_auth._asgi.mount_check import MountCheck
from asgi_mcp_auth._asgi.response import incoming, send_response
from asgi_mcp_auth._asgi.run import AppContext, run_app, run_public
from asgi_mcp_auth._asgi.usual import Asking, Undecided, usual_requests
from asgi_mcp_auth._keys.background import spawn
from asgi_mcp_auth._keys.remote_jwks import RemoteJWKS
from asgi_mcp_auth._oauth.challenge import BEARER
from asgi_mcp_auth._oauth.credentials import Credential, has_query_token, read_credential
from asgi_mcp_auth._oauth.origin import Cors, is_preflight
from asgi_mcp_auth._policy.compile import CompiledResource, is_well_known
from asgi_mcp_auth._policy.paths import Verdict
from asgi_mcp_auth._policy.problems import show
from asgi_mcp_auth._policy.responses import Header, Response, json_response, refusal_response
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._shorthand import auth_for_one
from asgi_mcp_auth._verify.verifier import Verified, Verifier, hook_failed
from asgi_mcp_auth.auth import MCPAuth, MCPAuthOptions
from asgi_mcp_auth.config import AuthServerConfig, IssuerResolver, ServerMetadataPaths
from asgi_mcp_auth.errors import (
    BadRequest,
    ConfigurationError,
    DiscoveryError,
    Forbidden,
    NoCredential,
    NotFound,
    OriginNotAllowed,
    Problem,
    Reason,
    Refusal,
    Unavailable,
)

__all__ = ("MCPAuthMiddleware",)

logger = logging.getLogger("asgi_mcp_auth")

BEARER_KEY = BEARER.key
REPUBLISHED_PATH = ServerMetadataPaths.OAUTH.encode("ascii")
ANY_ORIGIN: Header = (b"access-control-allow-origin", b"*")


class MCPAuthMiddleware:
    """Makes any ASGI app an OAuth 2.1 protected resource for the Model Context Protocol.

    Either `auth=MCPAuth(...)`, or the shorthand for one resource:

        app = MCPAuthMiddleware(
            app,
            resource="https://api.example.com/mcp",
            authorization_servers=["https://auth.example.com"],
            required_scopes=["notes:read"],
        )

    Args:
        app: Any ASGI 3 app.
        auth: A compiled configuration; it may serve several middlewares.
        resource: The resource identifier: the URL clients use and tokens must name.
        authorization_servers: The issuers to trust.
        required_scopes: The scopes every request needs.
        options: Those of `MCPAuth`, with the shorthand only.

    Raises:
        ConfigurationError: With every problem of the configuration at once.
    """

    def __init__(
        self,
        app: Any,
        auth: MCPAuth | None = None,
        *,
        resource: str | None = None,
        authorization_servers: Sequence[str | AuthServerConfig | IssuerResolver] = (),
        required_scopes: Sequence[str] = (),
        **options: Unpack[MCPAuthOptions],
    ) -> None:
        if auth is not None and (resource is not None or authorization_servers or required_scopes or options):
            fix = "Put everything into MCPAuth(...)."
            raise ConfigurationError([Problem("auth", "It stands beside settings of the shorthand.", fix)])
        if not callable(cast("object", app)):
            raise ConfigurationError([Problem("app", f"{show(app)} is no ASGI app.", "Give the app to protect.")])
        if auth is None:
            auth = auth_for_one(resource, authorization_servers, required_scopes, options)
        elif not isinstance(cast("object", auth), MCPAuth):
            raise ConfigurationError([Problem("auth", f"{show(auth)} is no MCPAuth.", "Write auth=MCPAuth(...).")])
        self.app = app
        self.auth = auth
        self.show_error_details = False
        self._site = auth.site
        self._verifiers = auth.verifiers
        self._gates = tuple(Authorizer(resource, auth) for resource in auth.site.resources)
        self._placement = MountCheck(app, auth)
        self._root_path = self._placement.own_root_path
        self._usual = usual_requests(auth, self._gates, self._root_path)
        tell = None if auth.expose_token else self._app_answered_401
        self._running = AppContext(app, sdk_bridge(), auth.clock, tell, expose_token=auth.expose_token)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one ASGI connection."""
        usual = self._usual.judge(scope) if scope["type"] == "http" else None
        if isinstance(usual, tuple):  # all is decided: 1 to 9 at once
            verified, headers = usual
            await run_app(self._running, verified, None, scope, receive, send, headers=headers)
            return
        receive = incoming(scope, receive)
        if isinstance(usual, Asking):  # all but what the body asks for
            caller, gate, headers = usual.caller, usual.endpoint.gate, usual.headers
            passage = await gate.admit_message(headers, usual.path, receive, caller, usual.fields)
            if isinstance(passage, Permission):
                receive, wrap_send = passage.receive, passage.wrap_send
                await run_app(self._running, caller, None, scope, receive, send, wrap_send, headers=headers)
                return
            usual = Undecided(passage, b"", usual.endpoint)
        if scope["type"] not in ("http", "websocket"):
            await self._start_up(scope, receive, send)
            return
        if scope.get("root_path"):
            self._placement.check(scope["root_path"])
        if not isinstance(scope["headers"], (list, tuple)):
            scope = {**scope, "headers": list(scope["headers"])}
        request = RequestInfo(scope)
        decided: Answer | Admitted
        if usual is None:
            decided = await self._decide(request, receive)
        elif isinstance(usual.decided, Refusal):
            decided = self._refuse(usual.decided, usual.endpoint.resource, used=BEARER_KEY)
        else:
            at, credential = usual.endpoint, Credential(BEARER_KEY, usual.token)
            decided = await self._admit(request, receive, at.verdict, at.resource, None, credential, usual.decided)
        report(self.auth, request, decided)
        if isinstance(decided, Answer):
            await send_response(decided.response, request, receive, send)
            return
        passage = decided.passage
        scope, receive = passage.scope or scope, passage.receive or receive
        if decided.verified is None:
            await run_public(self._running, decided.cors, scope, receive, send, passage.wrap_send)
        else:
            await run_app(self._running, decided.verified, decided.cors, scope, receive, send, passage.wrap_send)

    async def _decide(self, request: RequestInfo, receive: Any) -> Answer | Admitted:  # noqa: C901, PLR0912 - nine steps, each with its exits
        """Steps 1 to 9; the numbers are those of the module's docstring."""
        site, auth = self._site, self.auth
        if (misdirected := site.hosts.refuse(request)) is not None:  # 1
            return self._refuse(misdirected)
        if request.may_be_well_known and not request.is_websocket:  # 2
            document = site.documents.get(request.well_known_path)
            if document is not None:
                return Answer("metadata", document.answer(request))
            if auth.republished is not None and request.well_known_path == REPUBLISHED_PATH:
                return Answer("metadata", await self._republish(auth.republished))
        try:
            root_path = self._root_path or request.root_path
            claimed = self._placement.claimed_root_path(request.scope) if request.root_path else ""
            verdict = site.paths.judge(request.method, request.path, root_path, claimed)
        except BadRequest as ambiguous:
            return self._refuse(ambiguous)
        if verdict.public:  # 3
            return Admitted("public")
        if verdict.owner is None or is_well_known(request.path, request.root_path):  # 4
            return self._refuse(NotFound(Reason.NO_SUCH_RESOURCE, response_headers=(ANY_ORIGIN,)))
        resource = site.resources[verdict.owner]
        cors = resource.origins.check(request)  # 5
        if isinstance(cors, OriginNotAllowed):
            return self._refuse(cors, resource)
        if cors is not None and is_preflight(request):
            return Answer("preflight", Response(204, cors.preflight(request)), resource)
        if request.is_websocket and not auth.websockets:
            return self._refuse(Forbidden(Reason.WEBSOCKETS_DISABLED), resource, cors)
        if auth.reject_query_token and has_query_token(request.query_string):
            return self._refuse(BadRequest(Reason.TOKEN_IN_URI, description="Token in URI"), resource, cors)
        credential = read_credential(request.fields.get(b"authorization"), resource.schemes)  # 6
        gate = self._gates[verdict.owner]
        if isinstance(credential, Refusal):
            if gate.public_methods and isinstance(credential, NoCredential):
                unasked = await gate.admit_public(request, verdict.plain, receive)
                if unasked is not None:
                    return Admitted("public", resource, None, cors, unasked)
            return self._refuse(credential, resource, cors)
        verified = await self._verify(self._verifiers[verdict.owner], credential, request)  # 7, 8
        return await self._admit(request, receive, verdict, resource, cors, credential, verified)  # 9

    async def _admit(  # noqa: PLR0917 - the request and what is known of it
        self,
        request: RequestInfo,
        receive: Any,
        verdict: Verdict,
        resource: CompiledResource,
        cors: Cors | None,
        credential: Credential,
        verified: Verified | Refusal,
    ) -> Answer | Admitted:
        """Step 9, if it gets there."""
        if isinstance(verified, Refusal):
            return self._refuse(verified, resource, cors, used=credential.scheme)
        gate = self._gates[cast("int", verdict.owner)]
        passage = await gate.admit(request, verdict.rule, verdict.plain, receive, verified, credential.token)
        if isinstance(passage, Refusal):
            return self._refuse(passage, resource, cors, used=credential.scheme)
        return Admitted("allowed", resource, verified, cors, passage)

    async def _verify(self, verifier: Verifier, credential: Credential, request: RequestInfo) -> Verified | Refusal:
        try:
            verified = await verifier.verify(credential, request)
            if isinstance(cast("object", verified), (Verified, Refusal)):
                return verified
            msg = f"verify() returned {type(verified).__name__}"
            raise TypeError(msg)  # noqa: TRY301 - as if the verifier had raised it
        except Refusal as refusal:
            return refusal.without_traceback()
        except Exception as error:  # noqa: BLE001 - a verifier's mistake is no pass, and not the caller's fault
            return hook_failed("The verifier", error, credential.token)

    def _refuse(
        self,
        refusal: Refusal,
        resource: CompiledResource | None = None,
        cors: Cors | None = None,
        *,
        used: bytes | None = None,
    ) -> Answer:
        if resource is not None and isinstance(refusal, NoCredential):
            response = resource.no_credential
        else:
            source = None if resource is None else resource.challenge
            response = refusal_response(refusal, source, used=used, details=self.show_error_details)
        if cors is not None:
            response = response.with_headers(cors.response)
        return Answer("refused", response, resource, refusal)

    async def _republish(self, issuer: RemoteJWKS) -> Response:
        """The issuer's own metadata, for clients of MCP 2025-03-26, which know no other place."""
        try:
            metadata = await issuer.metadata()
        except DiscoveryError as error:
            unavailable = Unavailable(Reason.METADATA_UNAVAILABLE, found=error.message)
            return refusal_response(unavailable, None).with_headers((ANY_ORIGIN,))
        return json_response(200, metadata.to_dict(), (ANY_ORIGIN,))

    async def _start_up(self, scope: Any, receive: Any, send: Any) -> None:
        """The lifespan passes through; the key sets warm up beside the app's own start-up, never around it."""
        if scope["type"] != "lifespan":
            msg = f"asgi_mcp_auth cannot protect an ASGI connection of type {scope['type']!r}"
            raise NotImplementedError(msg)
        self._running.bridge = sdk_bridge()
        if scope.get("root_path"):  # from a framework above: no server tells it before the first request
            self._placement.check(scope["root_path"])
        if self.auth.warm_up_timeout is not None:
            failed = await self.auth.require_keys(self.auth.warm_up_timeout)
            if failed and self.auth.exit_when_cold:  # before the app starts what only a shutdown event would stop
                await receive()
                message = f"asgi_mcp_auth: no keys of {', '.join(failed)}"
                await send({"type": "lifespan.startup.failed", "message": message})
                return
        else:
            spawn(self._warm_up)
        await self.app(scope, receive, send)

    async def _warm_up(self) -> None:
        await self.auth.warm_up()

    def _app_answered_401(self) -> None:
        self.auth.warn_once(
            logger,
            "The app answered 401 to a request that was authenticated here. If it looks for the Authorization "
            "header itself: it is hidden, unless expose_token=True.",
        )
