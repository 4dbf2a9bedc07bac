"""`asgi-mcp-auth demo`: an issuer and a protected app under uvicorn on loopback, and each step shown over HTTP."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, cast

import httpx

from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.config import ResourceServerConfig, ResourceServerMetadata, ScopePolicy
from asgi_mcp_auth.testing import Issuer, parse_challenges

__all__ = ("Running", "Step", "notes_app", "run_demo")

START_SECONDS = 10.0
OK = 200


async def notes_app(scope: Any, receive: Any, send: Any) -> None:
    """A plain ASGI app that says whom it sees."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    info = scope["state"]["mcp_auth"]
    seen = {
        "path": scope["path"],
        "subject": info.subject,
        "client": info.client_id,
        "claims": scope["state"]["claims"],
    }
    body = json.dumps(seen).encode("utf-8")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


class Running(NamedTuple):
    """The demonstration's two servers."""

    issuer: Issuer
    origin: str

    @property
    def resource(self) -> str:
        """The protected resource."""
        return f"{self.origin}/notes"

    @property
    def metadata_url(self) -> str:
        """Where its metadata is."""
        return f"{self.origin}/.well-known/oauth-protected-resource/notes"


@contextlib.contextmanager
def _serving(app: Any, listener: socket.socket) -> Generator[None]:
    """An app under uvicorn on a bound socket, in a thread."""
    import uvicorn  # noqa: PLC0415 - an extra

    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            msg = "uvicorn did not start"
            raise RuntimeError(msg)
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)


@contextlib.contextmanager
def _running() -> Generator[Running]:
    with contextlib.ExitStack() as stack:
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        issuer_origin, app_origin = (f"http://127.0.0.1:{listener.getsockname()[1]}" for listener in listeners)
        running = Running(Issuer(issuer_origin), app_origin)
        auth = MCPAuth(
            ResourceServerConfig(
                metadata=ResourceServerMetadata(resource=running.resource, authorization_servers=[issuer_origin]),
                policy=ScopePolicy(default=["notes:read"], paths={"/notes/export": ["notes:export"]}),
            )
        )
        stack.enter_context(_serving(running.issuer, listeners[0]))
        stack.enter_context(_serving(auth.wrap(notes_app), listeners[1]))
        yield running


Check = Callable[[httpx.Response], bool]


class Step(NamedTuple):
    """One exchange: what it shows, the request, and what the response must be."""

    title: str
    request: Callable[[httpx.Client], httpx.Response]
    holds: Check


def _body(response: httpx.Response) -> Any:
    """The JSON body, or its text."""
    try:
        return response.json()
    except ValueError:
        return response.text


def _challenged(status: int, **wanted: str | None) -> Check:
    """Whether a response has this status and one Bearer challenge with these parameters."""

    def check(response: httpx.Response) -> bool:
        challenges = parse_challenges(response.headers.get("www-authenticate", ""))
        return (
            response.status_code == status
            and len(challenges) == 1
            and all(challenges[0].params.get(name) == value for name, value in wanted.items())
        )

    return check


def _answered(*path: str, value: str) -> Check:
    """Whether a response is 200 with a JSON body that has this value at this place."""

    def check(response: httpx.Response) -> bool:
        found = _body(response)
        for name in path:
            found = cast("dict[str, Any]", found).get(name) if isinstance(found, dict) else None
        return response.status_code == OK and bool(found == value)

    return check


def _get(url: str, token: str | None = None) -> Callable[[httpx.Client], httpx.Response]:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}

    def request(client: httpx.Client) -> httpx.Response:
        return client.get(url, headers=headers)

    return request


def _token_form(running: Running) -> dict[str, str]:
    grant = {"grant_type": "client_credentials", "client_id": "demo", "scope": "notes:read"}
    return grant | {"resource": running.resource}


def _steps(running: Running, token: str) -> list[Step]:
    issuer, resource = running.issuer, running.resource
    now = int(time.time())
    expired = issuer.mint(resource, scope="notes:read", iat=now - 900, exp=now - 600)
    elsewhere = issuer.mint("https://other.example.com/mcp", scope="notes:read")

    def ask_for_token(client: httpx.Client) -> httpx.Response:
        return client.post(issuer.metadata["token_endpoint"], data=_token_form(running))

    invalid = "The access token is invalid"
    return [
        Step(
            "No token: 401, and where to find out more",
            _get(resource),
            _challenged(401, error=None, scope="notes:read", resource_metadata=running.metadata_url),
        ),
        Step(
            "The protected resource metadata (RFC 9728), which needs no token",
            _get(running.metadata_url),
            _answered("resource", value=resource),
        ),
        Step(
            "The authorization server's metadata (RFC 8414), which it points to",
            _get(f"{issuer.url}/.well-known/oauth-authorization-server"),
            _answered("issuer", value=issuer.url),
        ),
        Step(
            "A token for this resource and the scope notes:read (RFC 8707)",
            ask_for_token,
            _answered("scope", value="notes:read"),
        ),
        Step(
            "With the token: 200, and the claims that the app saw",
            _get(resource, token),
            _answered("claims", "aud", value=resource),
        ),
        Step(
            "A path that needs more: 403, naming every scope the client has to ask for",
            _get(f"{resource}/export", token),
            _challenged(403, error="insufficient_scope", scope="notes:read notes:export"),
        ),
        Step(
            "An expired token: 401",
            _get(resource, expired),
            _challenged(401, error="invalid_token", error_description="The access token expired"),
        ),
        Step(
            "A token for another resource: 401",
            _get(resource, elsewhere),
            _challenged(401, error="invalid_token", error_description=invalid),
        ),
    ]


def _show(number: int, step: Step, response: httpx.Response, *, held: bool) -> None:
    request = response.request
    sent = "  Authorization: Bearer …" if "authorization" in request.headers else ""
    print(f"\n{number}. {step.title}")
    print(f"   → {request.method} {request.url}{sent}")
    print(f"   ← {response.status_code} {response.reason_phrase}")
    for challenge in response.headers.get_list("www-authenticate"):
        print(f"     WWW-Authenticate: {challenge}")
    body = _body(response)
    if isinstance(body, dict) and "access_token" in body:
        body["access_token"] = body["access_token"][:16] + "…"
    print("     " + json.dumps(body, indent=2, ensure_ascii=False).replace("\n", "\n     "))
    if not held:
        print("   ✗ this is not what it should be")


def _walk(running: Running) -> int:
    """Take every step; returns how many did not do what they should."""
    failures = 0
    with httpx.Client(timeout=10.0, trust_env=False) as client:
        granted = client.post(running.issuer.metadata["token_endpoint"], data=_token_form(running)).json()
        for number, step in enumerate(_steps(running, granted["access_token"]), start=1):
            response = step.request(client)
            held = step.holds(response)
            failures += not held
            _show(number, step, response, held=held)
    print("\nEvery step did what it should." if not failures else f"\n{failures} step(s) failed.")
    return failures


def _serve(running: Running) -> None:
    minutes = 60
    now = int(time.time())
    token = running.issuer.mint(running.resource, scope="notes:read notes:export", exp=now + minutes * 60)
    print(f"\nProtected resource   {running.resource}")
    print(f"Its metadata         {running.metadata_url}")
    print(f"Issuer               {running.issuer.url}")
    print(f"\nA call with a token that is good for {minutes} minutes:\n")
    print(f"curl -i -H 'Authorization: Bearer {token}' {running.resource}")
    print("\nPress Ctrl-C to stop.", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def run_demo(*, serve: bool = False) -> int:
    """Show a protected app at work. Exit status 0 only if every step did what it should."""
    if importlib.util.find_spec("uvicorn") is None:
        print("The demo needs uvicorn: pip install 'asgi-mcp-auth[demo]'", file=sys.stderr)
        return 2
    logging.getLogger("asgi_mcp_auth").setLevel(logging.CRITICAL)  # its refusals are the show itself
    with _running() as running:
        failures = _walk(running)
        if serve and not failures:
            _serve(running)
    return 1 if failures else 0
