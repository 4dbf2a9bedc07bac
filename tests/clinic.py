"""An issuer and a resource under real HTTP servers on loopback, without faults until a test adds one."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable
from typing import Any

import anyio
from upstream import Upstream

from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata, ScopePolicy
from asgi_mcp_auth.doctor import Finding, Report, Severity, examine
from asgi_mcp_auth.testing import Issuer, SigningKey

OAUTH = "/.well-known/oauth-authorization-server"
OIDC = "/.well-known/openid-configuration"
PRM = "/.well-known/oauth-protected-resource"

ASGIApp = Callable[[Any, Any, Any], Any]


def for_browsers(app: ASGIApp) -> ASGIApp:
    """Wrap an app so that every origin may read its responses, and preflights are allowed."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def send_allowed(message: Any) -> None:
            if message["type"] == "http.response.start":
                fields = [*message["headers"], (b"access-control-allow-origin", b"*")]
                message = {**message, "headers": fields}
            await send(message)

        if scope["method"] == "OPTIONS":
            fields = [
                (b"access-control-allow-origin", b"*"),
                (b"access-control-allow-headers", b"mcp-protocol-version, content-type"),
            ]
            await send({"type": "http.response.start", "status": 204, "headers": fields})
            await send({"type": "http.response.body"})
            return
        await app(scope, receive, send_allowed)

    return wrapped


def answering(
    status: int,
    fields: Iterable[tuple[str, str]] = (),
    body: bytes = b"{}",
    *,
    but: dict[str, ASGIApp] | None = None,
) -> ASGIApp:
    """Return an app with one response to every request, or with another app for the paths in `but`."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if but is not None and scope["path"] in but:
            await but[scope["path"]](scope, receive, send)
            return
        lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": body})

    return app


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """The app behind the middleware."""
    await answering(200)(scope, receive, send)


class Patient(Upstream):
    """A server for one app at a time: the app of a test, or else the issuer."""

    def __init__(self) -> None:
        super().__init__()
        self.app: ASGIApp | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await (self.app or for_browsers(self.issuer))(scope, receive, send)


@dataclasses.dataclass
class Clinic:
    """An issuer and a resource that trusts it."""

    authority: Patient
    server: Patient
    keys: list[SigningKey]

    @property
    def issuer(self) -> Issuer:
        return self.authority.issuer

    @property
    def resource(self) -> str:
        return f"{self.server.url}/mcp"

    def heal(self) -> None:
        """Remove every fault."""
        issuer = self.authority.issuer = Issuer(self.authority.url, algorithms=())
        issuer.keys = list(self.keys)
        issuer.cache_control = "max-age=600"
        base = issuer.url
        issuer.metadata |= {
            "authorization_endpoint": f"{base}/authorize",
            "registration_endpoint": f"{base}/register",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "client_id_metadata_document_supported": True,
            "token_endpoint_auth_methods_supported": ["none"],
            "authorization_response_iss_parameter_supported": True,
        }
        self.authority.app = None
        self.server.app = self.auth().wrap(hello)

    def auth(self) -> MCPAuth:
        """The configuration of the resource."""
        metadata = ResourceServerMetadata(resource=self.resource, authorization_servers=[self.issuer.url])
        return MCPAuth(ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=["mcp:read"])))


@contextlib.contextmanager
def opened() -> Generator[Clinic]:
    """Start the two servers."""
    clinic = Clinic(Patient(), Patient(), [SigningKey("RS256"), SigningKey("ES256")])
    clinic.authority.start()
    clinic.server.start()
    try:
        yield clinic
    finally:
        clinic.authority.stop()
        clinic.server.stop()


def diagnose(*targets: str, kind: Any = None, token: str | None = None) -> Report:
    """Return the doctor's report on the last target."""
    return anyio.run(lambda: examine(targets, kind, token=token))[-1]


def names(findings: Iterable[Finding], *severities: Severity) -> set[str]:
    """Return the codes of findings with these severities; default: all but `ok`."""
    wanted = severities or (Severity.ERROR, Severity.WARNING, Severity.INFO)
    return {finding.code.name for finding in findings if finding.severity in wanted}


def problems(report: Report) -> set[str]:
    """Return the codes of errors and warnings."""
    return names(report.findings, Severity.ERROR, Severity.WARNING)
