"""`ProtectedApp`: the story of one request, in the order of the ten steps below.

    1. Host                      → 421        6. read the credential     → 400, 401
    2. a metadata path of ours   → answered   7. verify it               → 401, 503
    3. a public path             → the app    8. sender constraint       (part of 7: a bound token is rejected)
    4. the owning resource       → 404        9. scopes, the operation    → 403, 401; 400, 413, 415 for its body
    5. Origin, CORS preflight    → 403, 204  10. the app, on a copied scope; its own errors pass through

Whatever can be decided before a request is compiled (`Protection`); a request looks it up. Nothing about a request is
kept on `self`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter

from asgi_mcp_auth._asgi.app_check import refuse_wsgi_call
from asgi_mcp_auth._asgi.asgi_types import ASGIApp, Message, Receive, Scope, Send
from asgi_mcp_auth._asgi.authorizer import Admission
from asgi_mcp_auth._asgi.identity import sdk_bridge
from asgi_mcp_auth._asgi.mount_check import MountCheck
from asgi_mcp_auth._asgi.response import Incoming, send_response
from asgi_mcp_auth._asgi.run import AppContext, run_app, run_exchanging, run_public
from asgi_mcp_auth._asgi.streams import OnExpiry
from asgi_mcp_auth._compat.asgi_servers import BREAKS_ON_LATE_BODY
from asgi_mcp_auth._keys.background import spawn
from asgi_mcp_auth._keys.remote_jwks import RemoteJWKS
from asgi_mcp_auth._oauth.credentials import has_query_token, used_scheme
from asgi_mcp_auth._oauth.origin import Cors, is_preflight
from asgi_mcp_auth._oauth.responses import Response, json_response, refusal_response
from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._policy.routes import NO_RESOURCE, Route
from asgi_mcp_auth._protection import Protection
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._request import Scope as ReadOnlyScope
from asgi_mcp_auth._telemetry.reporting import NOTHING_FOUND, Findings
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.decisions import Outcome
from asgi_mcp_auth.errors import (
    BadRequest,
    DiscoveryError,
    Forbidden,
    Misdirected,
    NoCredential,
    Reason,
    Refusal,
    Unavailable,
)

__all__ = ("ProtectedApp",)

HTTP_2 = BREAKS_ON_LATE_BODY.marker
ANY_ORIGIN = ((b"access-control-allow-origin", b"*"),)


class ProtectedApp:
    """An ASGI app that checks credentials, serves metadata, and runs another app for the admitted requests.

    Args:
        app: Any ASGI 3 app.
        protection: The compiled configuration; several apps may share one.
    """

    def __init__(self, app: ASGIApp, protection: Protection) -> None:
        self.app = app
        self._protection = protection
        self._resources = protection.config.resources
        self._hosts = protection.config.hosts
        self._transports = protection.config.transports
        self._certificates = protection.config.certificates
        self._authenticators = protection.authenticators
        self._authorizers = protection.authorizers
        self._checks_transport = self._hosts.on or protection.reject_query_token or not protection.websockets
        self._report = protection.reporter
        self._mistakes = protection.mistakes
        self._is_observed = protection.reporter.consumes
        self._mount_check = MountCheck(app, protection.config, protection.warnings)
        checks_messages = [authorizer.looks_inside for authorizer in protection.authorizers]
        self._routes = protection.config.routes(checks_messages, self._mount_check.own_root_path)
        self._context = AppContext(
            app,
            sdk_bridge(),
            protection.clock,
            self._check_app_response,
            expose_token=protection.expose_token,
            post_stream_grace=protection.post_stream_grace,
            revocations=protection.revocations,
        )

        self._run_app: Callable[..., Awaitable[None]] = run_app
        if protection.exchanger is not None:
            self._run_app = partial(run_exchanging, protection.exchanger, self._answer_failure)

    @refuse_wsgi_call
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._run_lifespan(scope, receive, send)
            return
        route, request = self._route(scope)
        receive = Incoming(receive) if scope.get("http_version") == HTTP_2 else receive
        if route.resource is None:  # 1 to 4
            await self._serve_unprotected(route, request, receive, send)
            return
        resource = self._resources[route.resource]
        cors = None
        if self._checks_transport or b"origin" in request.fields:  # 1, 5
            answer, cors = self._check_transport(resource, request)
            if answer is not None:
                findings = NOTHING_FOUND if isinstance(answer, Misdirected) else Findings(resource, route)
                await self._answer_early(answer, request, receive, send, findings, cors)
                return
        started = perf_counter() if self._is_observed else 0.0
        identity = self._authenticators[route.resource].check(request)  # 6, 7, 8
        if not isinstance(identity, Verified):
            identity = identity if isinstance(identity, Refusal) else await identity
            if isinstance(identity, Refusal):
                findings = Findings(resource, route, None, perf_counter() - started if self._is_observed else None)
                if isinstance(identity, NoCredential) and self._authorizers[route.resource].admits_anonymous:
                    await self._serve_anonymous(identity, findings, route, request, receive, send, cors)
                else:
                    self._mistakes.check(identity, request)
                    await self._refuse(identity, request, receive, send, findings, cors)
                return
        self._mistakes.streak = 0
        seconds = perf_counter() - started if self._is_observed else None
        authorizer = self._authorizers[route.resource]
        if route.checks_message:  # 9
            admission = await authorizer.admit_message(route, request, receive, identity)
        else:
            admission = authorizer.admit_path(route, request, identity)
        on_expiry = None
        if self._is_observed and not isinstance(admission, Refusal):
            findings = Findings(resource, route, identity, seconds, admission.named, admission.needed)
            admission, on_expiry = self._report_admission(admission, request, findings)
        if isinstance(admission, Refusal):
            await self._refuse(admission, request, receive, send, Findings(resource, route, identity, seconds), cors)
            return
        overrides = admission.overrides
        del admission  # holds the parsed body
        await self._run_app(self._context, identity, cors, request, receive, send, overrides, on_expiry)  # 10

    def _route(self, scope: Scope) -> tuple[Route, RequestInfo]:
        """Return the route of a request, and the request as the route reads it."""
        if not isinstance(scope["headers"], (list, tuple)):  # an iterable that can be read only once
            scope = {**scope, "headers": list(scope["headers"])}
        claimed = self._mount_check.check_request(scope) if scope.get("root_path") else ""
        route = self._routes.match(scope, claimed)
        read: ReadOnlyScope = scope
        if self._certificates is not None:
            read = self._warn(*self._certificates.drop_untrusted(read))
        if self._transports is not None and (self._protection.identify_public or not route.is_public):
            read = self._warn(*self._transports.move_tokens(read))
        return route, RequestInfo(read, route.reads)

    def _warn(self, scope: ReadOnlyScope, warning: str | None) -> ReadOnlyScope:
        """Log a warning about a scope once, and return the scope."""
        if warning is not None:
            self._protection.warnings.warn_once(warning)
        return scope

    def _report_admission(
        self, admission: Admission, request: RequestInfo, findings: Findings
    ) -> tuple[Admission | Refusal, OnExpiry]:
        """Report an allowed request. Return the refusal instead of the admission if the audit log requires that.

        Return in addition what reports the end of a stream with its token, and does not hold the parsed body.
        """
        unrecorded = self._report("allowed", request, findings)
        return unrecorded or admission, partial(self._report, "expired", request, findings)

    def _check_transport(
        self, resource: CompiledResource, request: RequestInfo
    ) -> tuple[Refusal | Response | None, Cors | None]:
        """Check the host, the origin, and what the configuration does not accept.

        Return the refusal or the answer to a preflight; and the CORS fields for an allowed origin.
        """
        misdirected = self._hosts.refuse(request)
        if misdirected is not None:
            return misdirected, None
        cors = resource.origins.check(request)
        if isinstance(cors, Refusal):
            return cors, None
        if cors is not None and is_preflight(request):
            return Response(204, resource.origins.preflight(request, cors)), None
        if not self._protection.websockets and request.is_websocket:
            return Forbidden(Reason.WEBSOCKETS_DISABLED), cors
        if self._protection.reject_query_token and has_query_token(request.query_string):
            return BadRequest(Reason.TOKEN_IN_URI, description="Token in URI"), cors
        return None, cors

    async def _answer_early(  # noqa: PLR0917 - ASGI's two, and what is known about the request
        self,
        answer: Refusal | Response,
        request: RequestInfo,
        receive: Receive,
        send: Send,
        findings: Findings,
        cors: Cors | None,
    ) -> None:
        """Send what `_check_transport` returned."""
        if isinstance(answer, Refusal):
            await self._refuse(answer, request, receive, send, findings, cors)
        else:
            await self._answer("preflight", answer, request, receive, send, findings)

    async def _serve_unprotected(self, route: Route, request: RequestInfo, receive: Receive, send: Send) -> None:
        """Serve a request that no resource owns: a document, a public path, or a refusal."""
        if route.is_public:  # health checks call by address, so the Host of public paths is not checked
            await self._serve_public(route, request, receive, send)
        elif (misdirected := self._hosts.refuse(request)) is not None:
            await self._refuse(misdirected, request, receive, send)
        elif route.document is not None:
            await self._answer("metadata", route.document.answer(request), request, receive, send)
        elif route.is_republished and self._protection.republished is not None:
            republished = await _republish(self._protection.republished)
            await self._answer("metadata", republished, request, receive, send)
        else:
            await self._refuse(route.refusal or NO_RESOURCE, request, receive, send)

    async def _serve_public(self, route: Route, request: RequestInfo, receive: Receive, send: Send) -> None:
        """Run the app for a public path, with the caller's identity if `identify_public` is set and there is one."""
        index = self._routes.owner_of(request) if self._protection.identify_public else None
        started = perf_counter()
        identity = None if index is None else await self._authenticators[index].verify(request)
        seconds = perf_counter() - started if self._is_observed else None
        if index is None or identity is None or _is_missing(identity):
            self._report("public", request)
            await run_public(self._context, None, request.scope, receive, send)
            return
        if isinstance(identity, Refusal):
            await self._refuse(identity, request, receive, send, Findings(self._resources[index], route, None, seconds))
            return
        findings = Findings(self._resources[index], route, identity, seconds)
        unrecorded = self._report("public", request, findings)
        if unrecorded is None:
            on_expiry = partial(self._report, "expired", request, findings) if self._is_observed else None
            await self._run_app(self._context, identity, None, request, receive, send, on_expiry=on_expiry)
        else:
            await self._refuse(unrecorded, request, receive, send, findings)

    async def _serve_anonymous(  # noqa: PLR0917 - ASGI's two, and what is known about the request
        self,
        refusal: NoCredential,
        findings: Findings,
        route: Route,
        request: RequestInfo,
        receive: Receive,
        send: Send,
        cors: Cors | None,
    ) -> None:
        """Run the app without an identity if every operation is public; else refuse."""
        admission = await self._authorizers[route.resource or 0].admit_anonymous(refusal, route, request, receive)
        if isinstance(admission, Refusal):
            self._mistakes.check(refusal, request)
            await self._refuse(admission, request, receive, send, findings, cors)
            return
        if self._is_observed:
            findings = findings._replace(operations=admission.named)
            unrecorded = self._report("public", request, findings)
            if unrecorded is not None:
                await self._refuse(unrecorded, request, receive, send, findings, cors)
                return
        overrides = admission.overrides
        del admission  # holds the parsed body
        await run_public(self._context, cors, request.scope, receive, send, overrides)

    def _refuse(  # noqa: PLR0917 - ASGI's two, and what is known about the request
        self,
        refusal: Refusal,
        request: RequestInfo,
        receive: Receive,
        send: Send,
        findings: Findings = NOTHING_FOUND,
        cors: Cors | None = None,
    ) -> Awaitable[None]:
        """Report a refusal, and return the sending of its response."""
        details, resource = self._protection.show_error_details, findings.resource
        if resource is None:
            response = refusal_response(refusal, None, details=details)
        else:
            used = used_scheme(request.fields.get(b"authorization"), resource.schemes)
            response = resource.challenge.respond(refusal, used=used, details=details)
        if cors is not None:
            response = response.with_headers(cors.response)
        self._report("refused", request, findings, refusal=refusal, status=response.status)
        return send_response(response, request, receive, send)

    async def _answer_failure(  # noqa: PLR0917 - ASGI's two, and what is known about the request
        self,
        refusal: Refusal,
        identity: Verified,
        cors: Cors | None,
        request: RequestInfo,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer an exception of the app. The request has been reported as allowed."""
        challenges = [one.challenge for one in self._resources if one.identifier == identity.auth_info.resource]
        challenge = challenges[0] if challenges else self._resources[0].challenge
        response = challenge.respond(refusal, details=self._protection.show_error_details)
        await send_response(response if cors is None else response.with_headers(cors.response), request, receive, send)

    def _answer(  # noqa: PLR0917 - ASGI's two, and what is known about the request
        self,
        outcome: Outcome,
        response: Response,
        request: RequestInfo,
        receive: Receive,
        send: Send,
        findings: Findings = NOTHING_FOUND,
    ) -> Awaitable[None]:
        """Report an answer of this library, and return the sending of the answer."""
        self._report(outcome, request, findings, status=response.status)
        return send_response(response, request, receive, send)

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the lifespan through. Key sets warm up in the background of the app's own start-up, never around it."""
        if scope["type"] != "lifespan":
            raise NotImplementedError(f"asgi_mcp_auth cannot protect an ASGI connection of type {scope['type']!r}")
        self._context.bridge = sdk_bridge()
        if scope.get("root_path"):  # set by a framework above; servers do not report it before the first request
            self._mount_check.check_request(scope)
        if self._protection.revocations is not None:
            self._protection.revocations.start()
        if self._protection.poller is not None:
            self._protection.poller.start()
        if self._protection.warm_up_timeout is not None:
            failed = await self._protection.key_sets.warm_up_within(self._protection.warm_up_timeout)
            await self._protection.probe_store()
            self._protection.log_start()
            if failed and self._protection.exit_when_cold:  # before the app starts anything that it would have to stop
                await receive()
                message = f"asgi_mcp_auth: no keys of {', '.join(failed)}"
                await send({"type": "lifespan.startup.failed", "message": message})
                return
        else:
            spawn(self._warm_up)
        try:
            await self.app(scope, receive, send)
        finally:
            await self._protection.close_store()

    async def _warm_up(self) -> None:
        await self._protection.key_sets.warm_up()
        await self._protection.probe_store()
        self._protection.log_start()

    def _check_app_response(self, start: Message, scope: Scope, send: Send) -> Send:
        """Warn if an error or a redirect of the app shows a mistake, and return the `send` for the response."""
        if start["status"] != 401:  # noqa: PLR2004
            return self._mount_check.check_response(start, scope, send)
        if not self._protection.expose_token:
            self._protection.warnings.warn_once(
                "The app answered 401 to an authenticated request. The app may look for the Authorization header, "
                "which is hidden. Set expose_token=True to pass it on, or remove the app's own authentication."
            )
        return send


def _is_missing(identity: Verified | Refusal) -> bool:
    return isinstance(identity, NoCredential) and identity.reason is Reason.NO_CREDENTIAL


async def _republish(issuer: RemoteJWKS) -> Response:
    """Return the issuer's own metadata, for clients of MCP 2025-03-26, which look for it at the resource's host."""
    try:
        metadata = await issuer.metadata()
    except DiscoveryError as error:
        unavailable = Unavailable(Reason.METADATA_UNAVAILABLE, found=error.message)
        return refusal_response(unavailable, None).with_headers(ANY_ORIGIN)
    return json_response(200, metadata.to_dict(), ANY_ORIGIN)
