"""Attacks that worked on an earlier version, each with real routers or the behaviour of a real server."""

from __future__ import annotations

import sys
import traceback
from types import ModuleType
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from harness import ISS, Clock, R, RecordingApp, bearer, call, http_scope, protect, send_scope, token
from litestar import Litestar, get
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from asgi_mcp_auth import (
    AuthInfo,
    AuthServerConfig,
    Credential,
    Decision,
    MCPAuth,
    MCPAuthMiddleware,
    Refusal,
    RequestInfo,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
    Verified,
    current_auth,
)
from asgi_mcp_auth._oauth.credentials import has_query_token
from asgi_mcp_auth._oauth.jwk_set import SMALL_ORDER, parse_key_set
from asgi_mcp_auth._oauth.resource_metadata import check_signed_metadata
from asgi_mcp_auth.errors import InvalidServerMetadata, Reason
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio


def site(issuer: Issuer, app: Any, policy: ScopePolicy, **options: Any) -> MCPAuthMiddleware:
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[ISS])
    config = ResourceServerConfig(metadata=metadata, policy=policy)
    auth = MCPAuth(config, http_client=issuer.http_client, clock=issuer.clock, **options)
    return auth.wrap(app)


async def endpoint(request: StarletteRequest) -> PlainTextResponse:
    return PlainTextResponse("served")


def starlette_app() -> Any:
    return Starlette(routes=[Route("/mcp/export", endpoint), Route("/export", endpoint)])


def fastapi_app() -> Any:
    app = FastAPI()
    app.add_api_route("/mcp/export", endpoint, methods=["GET"])
    return app


def litestar_app() -> Any:
    @get("/mcp/export", media_type="text/plain", sync_to_thread=False)
    def export() -> str:
        return "served"

    @get("/secret", media_type="text/plain", sync_to_thread=False)
    def secret() -> str:
        return "served"

    return Litestar([export, secret], logging_config=None)


RULE = ScopePolicy(default=["mcp:read"], paths={"/mcp/export": ["mcp:export"]})


@pytest.mark.parametrize("build", [starlette_app, fastapi_app, litestar_app])
@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/mcp/export", 403, id="RS-2 as it is written"),
        pytest.param("/mcp/export\n", 400, id="RS-2 a newline at the end"),
        pytest.param("/mcp/export%0A", 400, id="RS-2 an encoded newline at the end"),
        pytest.param("/mcp\x00/export", 400, id="RS-2 NUL"),
        pytest.param("//mcp/export/x/..", 400, id="RS-2 merged but not resolved"),
        pytest.param("/x/..//mcp/export", 400, id="RS-2 resolved and merged"),
    ],
)
async def test_no_spelling_escapes_a_rule(issuer: Issuer, build: Any, path: str, status: int) -> None:
    protected = site(issuer, build(), RULE)
    raw = path.encode().replace(b"\n", b"%0A").replace(b"\x00", b"%00")
    assert (await call(protected, "GET", path, bearer(token(issuer)), raw_path=raw)).status == status


@pytest.mark.parametrize(
    ("build", "path", "root_path", "status"),
    [
        pytest.param(starlette_app, "/api/export", "/api", 403, id="RS-2 with the root path"),
        pytest.param(starlette_app, "/export", "/api", 403, id="RS-2 without it, as hypercorn gives it"),
        pytest.param(starlette_app, "/x/api/export", "/api", 400, id="RS-2 the root path inside"),
        pytest.param(litestar_app, "/pub/api/secret", "/api", 400, id="RS-2 Litestar cuts at the root path anywhere"),
    ],
)
async def test_a_root_path_hides_no_rule(issuer: Issuer, build: Any, path: str, root_path: str, status: int) -> None:
    policy = ScopePolicy(default=["mcp:read"], paths={"/api/export": ["mcp:export"]})
    protected = site(issuer, build(), policy, public_paths=["/pub/*"])
    assert (await call(protected, "GET", path, bearer(token(issuer)), root_path=root_path)).status == status


async def test_a_rule_written_without_the_root_path_does_not_fail_open(issuer: Issuer) -> None:
    protected = site(issuer, starlette_app(), RULE)
    assert (await call(protected, "GET", "/x/mcp/export", bearer(token(issuer)), root_path="/x")).status == 400


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/api/mcp/export", 403, id="RS-2 nothing was cut off"),
        pytest.param("/mcp/export", 400, id="RS-2 a front segment"),
        pytest.param("/export", 400, id="RS-2 the whole path of the resource"),
        pytest.param("//mcp/export", 400, id="RS-2 and spelled in another way"),
        pytest.param("/", 400, id="RS-2 all of it"),
        pytest.param("/mcp/other", 200, id="RS-2 no rule would apply"),
        pytest.param("/api/mcp/api/mcp/export", 200, id="RS-2 further inside"),
    ],
)
async def test_a_proxy_that_cuts_paths_hides_no_rule(issuer: Issuer, path: str, status: int) -> None:
    """`location /api/ { proxy_pass http://upstream/; }`, and a server that does not know the cut prefix."""
    resource = "https://mcp.example.com/api/mcp"
    rules = {"/api/mcp/export": ["mcp:export"], "/api/mcp": ["mcp:read"], "POST /api/mcp/*": ["mcp:write"]}
    metadata = ResourceServerMetadata(resource=resource, authorization_servers=[ISS])
    config = ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=["mcp:read"], paths=rules))
    protected = MCPAuth(config, http_client=issuer.http_client, clock=issuer.clock).wrap(RecordingApp())
    headers = bearer(token(issuer, aud=resource))
    assert (await call(protected, "GET", path, headers)).status == status


@pytest.mark.parametrize(
    ("path", "root_path", "more", "daphne", "statuses"),
    [
        pytest.param("/mcp/export", "/pub", {}, True, (400, 400), id="RS-2 in front of the path it would be public"),
        pytest.param("/pub/mcp/export", "/pub", {}, True, (400, 400), id="RS-2 cut off the path it would be another"),
        pytest.param("/pub/mcp/export", "/pub/", {}, True, (400, 400), id="RS-2 with a slash"),
        pytest.param("/export", "/other", {}, True, (401, 200), id="RS-2 it makes no difference"),
        pytest.param("/pub/x", "/mcp", {}, True, (401, 200), id="RS-2 the configuration says so too"),
        pytest.param("/healthz", "/mcp", {}, True, (400, 400), id="RS-2 but nothing becomes public"),
        pytest.param("/both", "/mcp", {}, True, (200, 200), id="RS-2 public either way"),
        pytest.param("/mcp", "/mcp/upload", {}, True, (400, 400), id="RS-2 its body would be none of ours"),
        pytest.param("/sub/x", "/sub", {"app_root_path": ""}, True, (401, 200), id="RS-2 a mount of Starlette's"),
        pytest.param(
            "/pub/sub/x", "/pub/sub", {"app_root_path": "/pub"}, True, (400, 400), id="RS-2 a mount below a claim"
        ),
        pytest.param("/tools", "/other", {}, True, (400, 400), id="RS-2 a proxy's cut, hidden by another root path"),
        pytest.param("/mcp/tools", "/other", {}, True, (400, 400), id="RS-2 a rule, hidden by another root path"),
        pytest.param("/mcp/tools", "/mcp/mcp", {}, True, (400, 400), id="RS-2 a rule, hidden by a longer root path"),
        pytest.param("/tools", "/mcp", {}, True, (401, 403), id="RS-2 a prefix that a proxy cut, in the root path"),
        pytest.param("/mcp/export", "/pub", {}, False, (200, 200), id="a root path that the operator configured"),
    ],
)
async def test_a_root_path_that_the_client_chose_opens_no_protected_path(  # noqa: PLR0917
    issuer: Issuer,
    path: str,
    root_path: str,
    more: dict[str, Any],
    daphne: bool,
    statuses: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Daphne takes the root path from a header field of the request; test_stacks runs a real Daphne."""
    monkeypatch.delitem(sys.modules, "daphne.server", raising=False)
    if daphne:
        monkeypatch.setitem(sys.modules, "daphne.server", ModuleType("daphne.server"))
    policy = ScopePolicy(
        default=["mcp:read"],
        paths={"/mcp/tools": ["mcp:tools"]},
        non_mcp_paths=["/mcp/upload/*"],
        rpc_methods={"x": ["mcp:x"]},
    )
    protected = site(issuer, RecordingApp(), policy, public_paths=["/pub/*", "/mcp/healthz", "/both", "/mcp/both"])
    answers = [
        await call(protected, "GET", path, headers, root_path=root_path, **more)
        for headers in ([], bearer(token(issuer)))
    ]
    assert tuple(answer.status for answer in answers) == statuses


@pytest.mark.parametrize(
    ("method", "path", "root_path", "status"),
    [
        pytest.param("GET", "/api/x", "/api", 200, id="RS-2 the general rule"),
        pytest.param("GET", "/x", "/api", 200, id="RS-2 the general rule, its front cut off"),
        pytest.param("GET", "/api/admin", "/api", 403, id="RS-2 the stricter rule"),
        pytest.param("GET", "/api/api/admin", "/api", 400, id="RS-2 the stricter rule, under a claimed root path"),
        pytest.param("POST", "/api/api", "/api", 400, id="RS-2 the endpoint's rule, under a claimed root path"),
        pytest.param("GET", "/api/b", "/api", 401, id="RS-2 another resource's path"),
        pytest.param("GET", "/api/api/b", "/api", 400, id="RS-2 another resource, under a claimed root path"),
    ],
)
async def test_a_claimed_root_path_leads_to_no_weaker_rule(  # noqa: PLR0917
    issuer: Issuer, method: str, path: str, root_path: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starlette and Django cut the root path off and route the rest, which may belong to another rule or resource."""
    monkeypatch.setitem(sys.modules, "daphne.server", ModuleType("daphne.server"))
    outer, inner = "https://mcp.example.com/api", "https://mcp.example.com/api/b"
    rules = {"/api/*": ["mcp:read"], "POST /api": ["mcp:write"], "/api/admin": ["mcp:admin"]}
    auth = MCPAuth(
        [
            ResourceServerConfig(
                metadata=ResourceServerMetadata(resource=resource, authorization_servers=[ISS]), policy=policy
            )
            for resource, policy in ((outer, ScopePolicy(paths=rules)), (inner, ScopePolicy()))
        ],
        http_client=issuer.http_client,
        clock=issuer.clock,
    )
    headers = bearer(token(issuer, aud=outer))
    assert (await call(auth.wrap(RecordingApp()), method, path, headers, root_path=root_path)).status == status


@pytest.mark.parametrize(
    ("path", "root_path", "status"),
    [
        pytest.param("/m/x", "", {403}, id="RS-2 nothing claimed"),
        pytest.param("/evil/m/x", "/evil", {400}, id="RS-2 before the mount"),
        pytest.param("/m/m/x", "/m", {400, 403}, id="RS-2 the mount itself"),
        pytest.param("/m/x", "/evil", {400}, id="RS-2 in front of the path"),
    ],
)
@pytest.mark.parametrize("below", ["https://mcp.example.com/m", "https://mcp.example.com/"])
async def test_a_claimed_root_path_before_a_mount_leads_to_no_weaker_rule(  # noqa: PLR0917
    issuer: Issuer, below: str, path: str, root_path: str, status: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starlette cuts off the claimed root path and the mount: the path without the claim decides."""
    monkeypatch.setitem(sys.modules, "daphne.server", ModuleType("daphne.server"))
    metadata = ResourceServerMetadata(resource=below, authorization_servers=[ISS])
    policy = ScopePolicy(paths={"/m/*": ["mcp:read"]})
    auth = MCPAuth(
        ResourceServerConfig(metadata=metadata, policy=policy), http_client=issuer.http_client, clock=issuer.clock
    )
    inside = Starlette(routes=[Route("/x", endpoint)])
    app = Starlette(routes=[Mount("/m", auth.wrap(inside))])
    headers = bearer(token(issuer, aud=below, scope="other"))
    assert (await call(app, "GET", path, headers, root_path=root_path)).status in status


@pytest.mark.requirement("RS-104")
async def test_a_claimed_root_path_leads_to_no_other_resource(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token for one resource is rejected for another."""
    monkeypatch.setitem(sys.modules, "daphne.server", ModuleType("daphne.server"))
    resources = ["https://mcp.example.com/", "https://mcp.example.com/m"]
    auth = MCPAuth(
        [
            ResourceServerConfig(metadata=ResourceServerMetadata(resource=one, authorization_servers=[ISS]))
            for one in resources
        ],
        http_client=issuer.http_client,
        clock=issuer.clock,
    )
    app = Starlette(routes=[Mount("/m", auth.wrap(Starlette(routes=[Route("/x", endpoint)])))])
    asked = [("/m/x", "", resources[1]), ("/m/x", "", resources[0]), ("/evil/m/x", "/evil", resources[0])]
    found = [
        (await call(app, "GET", path, bearer(token(issuer, aud=audience)), root_path=root_path)).status
        for path, root_path, audience in asked
    ]
    assert found == [200, 401, 400]


async def test_a_root_path_that_fastapi_sets_itself_hides_no_rule(issuer: Issuer) -> None:
    app = FastAPI()
    app.root_path = "/api"  # what FastAPI(root_path=...), which is deprecated, does
    app.add_api_route("/mcp/export", endpoint, methods=["GET"])
    protected = site(issuer, app, RULE)
    assert (await call(protected, "GET", "/api/mcp/export", bearer(token(issuer)))).status == 400


async def test_the_root_path_attribute_of_quart_is_a_folder_and_is_ignored(issuer: Issuer) -> None:
    class Quart(RecordingApp):
        root_path = "/srv/app"  # the folder of the app in Flask and Quart

    protected = protect(issuer, Quart(), public_paths=["/healthz"])
    assert (await call(protected, "GET", "/healthz")).status == 200


async def test_a_path_with_much_repeated_encoding_is_refused(issuer: Issuer) -> None:
    app = RecordingApp()
    path = "/mcp/" + "%" * 60_000 + "%2525252525252541"
    assert (await call(protect(issuer, app), "GET", path, raw_path=b"/mcp/x")).status == 400


async def test_a_public_path_has_no_caller(issuer: Issuer) -> None:
    """uvicorn starts a pipelined request in the context of the previous request."""
    seen: list[AuthInfo | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current_auth())
        if scope["path"] != "/healthz":  # what a pipelined request would be: in the same context, without a token
            await send_scope(protected, http_scope("GET", "/healthz"))
            seen.append(current_auth())
        await RecordingApp()(scope, receive, send)

    protected = protect(issuer, app, public_paths=["/healthz"])
    assert (await call(protected, headers=bearer(token(issuer)))).status == 200
    assert [info and info.subject for info in seen] == ["alice", None, "alice"]


@pytest.mark.parametrize("together", [pytest.param(False, id="one by one"), pytest.param(True, id="at once")])
async def test_republishing_has_the_rate_limits_of_the_key_set(issuer: Issuer, together: bool) -> None:
    protected = protect(issuer, RecordingApp(), republish_server_metadata=True)
    place = "/.well-known/oauth-authorization-server"
    issuer.metadata["issuer"] = "https://another.example"  # unusable: every probe fails
    if together:
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(call, protected, "GET", place)
    else:
        for _ in range(100):
            assert (await call(protected, "GET", place)).status == 503
    assert sum(issuer.requests.values()) == 2  # two probes, once


async def test_republishing_keeps_an_old_document_through_an_outage(issuer: Issuer, clock: Clock) -> None:
    protected = protect(issuer, RecordingApp(), republish_server_metadata=True)
    place = "/.well-known/oauth-authorization-server"
    good = (await call(protected, "GET", place)).json()
    assert good["issuer"] == ISS
    clock.now += 3601
    issuer.metadata["issuer"] = "https://another.example"
    issuer.requests.clear()
    for _ in range(50):
        assert (await call(protected, "GET", place)).json() == good
    assert sum(issuer.requests.values()) <= 3  # two probes and the key set, once


class Odd:
    def __init__(self, result: Any) -> None:
        self.result = result

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified | Refusal:
        result: Verified | Refusal = self.result
        return result


@pytest.mark.parametrize("result", [None, True, "alice", (AuthInfo(issuer=ISS, subject="a"), None, ())])
async def test_a_verifier_result_of_a_wrong_type_admits_no_request(issuer: Issuer, result: Any) -> None:
    app = RecordingApp()
    answer = await call(protect(issuer, app, verifier=Odd(result)), headers=bearer("x"))
    assert (answer.status, app.calls) == (503, 0)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"scopes": [["x"]]}, id="scopes"),
        pytest.param({"client_id": 5}, id="client_id"),
        pytest.param({"client_id": ""}, id="an empty client_id"),
        pytest.param({"expires_at": float("inf")}, id="never"),
        pytest.param({"expires_at": float("nan")}, id="no number"),
        pytest.param({"subject": ""}, id="no subject"),
        pytest.param({"issuer": None}, id="no issuer"),
    ],
)
async def test_an_auth_info_with_invalid_fields_cannot_be_made(fields: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"issuer": ISS, "subject": "alice"} | fields
    with pytest.raises(ValueError, match="AuthInfo"):
        AuthInfo(**whole)


class Quoting:
    async def verify(self, credential: Credential, request: RequestInfo) -> Verified | Refusal:
        msg = f"no such token: {credential.token.decode()}"
        raise ValueError(msg)


@pytest.mark.parametrize("verifier", [pytest.param(None, id="RS-241 JWT"), pytest.param(Quoting(), id="RS-241 own")])
async def test_a_refusal_has_no_reference_to_the_token(issuer: Issuer, verifier: Any) -> None:
    decisions: list[Decision] = []
    protected = protect(issuer, RecordingApp(), on_decision=[decisions.append], verifier=verifier)
    raw = token(issuer, aud="https://other.example")
    await call(protected, headers=bearer(raw))
    (refusal,) = [decision.refusal for decision in decisions]
    assert refusal is not None
    formatted = "".join(traceback.TracebackException.from_exception(refusal, capture_locals=True).format())
    assert raw not in formatted
    assert (refusal.__traceback__, refusal.__context__, refusal.__cause__) == (None, None, None)


async def test_allowed_clients_apply_to_a_custom_verification(issuer: Issuer) -> None:
    server = AuthServerConfig(issuer=ISS, allowed_clients=["good"])
    auth = MCPAuth(
        ResourceServerConfig(metadata=ResourceServerMetadata(resource=R, authorization_servers=[server])),
        http_client=issuer.http_client,
    )

    async def verify(raw: str) -> AuthInfo:
        return AuthInfo(issuer=ISS, subject="alice", client_id=raw, audience=R)

    protected = auth.bearer_auth_middleware(verify)(RecordingApp())
    statuses = [(await call(protected, headers=bearer(client))).status for client in ("good", "evil")]
    assert statuses == [200, 401]


@pytest.mark.parametrize(
    "query",
    [
        pytest.param(b"access_token=x", id="RS-14 plain"),
        pytest.param(b"access%5Ftoken=x", id="RS-14 encoded"),
        pytest.param(b"%61ccess_token=x", id="RS-14 encoded elsewhere"),
        pytest.param(b"a=1;access_token=x", id="RS-14 another separator"),
    ],
)
async def test_a_token_in_the_uri_is_found(query: bytes) -> None:
    assert has_query_token(query)


async def test_keys_under_which_anyone_can_sign_are_refused() -> None:
    import base64

    for point in SMALL_ORDER:
        x = base64.urlsafe_b64encode(point).rstrip(b"=").decode()
        with pytest.raises(InvalidServerMetadata, match=r"weak|invalid"):
            parse_key_set({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k"}]})


@pytest.mark.parametrize("alg", ["none", "HS256"])
async def test_metadata_that_anyone_could_have_signed_is_refused(issuer: Issuer, alg: str) -> None:
    members = {"resource": R}
    signed = issuer.sign({"alg": alg}, {"iss": R, **members})
    assert check_signed_metadata(signed, members) == f"is not signed with an asymmetric algorithm ({alg})"


async def test_the_reason_of_an_ambiguous_path_is_reported(issuer: Issuer) -> None:
    decisions: list[Decision] = []
    protected = site(issuer, RecordingApp(), RULE, on_decision=[decisions.append])
    await call(protected, "GET", "/mcp/export\n", raw_path=b"/mcp/export%0A")
    assert [decision.reason for decision in decisions] == [Reason.AMBIGUOUS_PATH]


async def test_a_token_cannot_write_log_fields(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    kid = 'x" alg=RS256 expected=ok'
    await call(protect(issuer, RecordingApp()), headers=bearer(issuer.mint(R, header={"kid": kid}, iat=0)))
    (line,) = [record.getMessage() for record in caplog.records if record.name == "asgi_mcp_auth.decisions"]
    assert line.endswith(f"""issuer={ISS} kid="x' alg=RS256 expected=ok" alg=RS256 client_address=loopback""")


async def test_republishing_that_fails_does_not_touch_the_keys(issuer: Issuer, clock: Clock) -> None:
    server = AuthServerConfig(issuer=ISS, jwks_uri=f"{ISS}/jwks")
    protected = protect(issuer, RecordingApp(), authorization_servers=[server], republish_server_metadata=True)
    issuer.metadata["issuer"] = "https://another.example"
    assert (await call(protected, "GET", "/.well-known/oauth-authorization-server")).status == 503
    assert (await call(protected, headers=bearer(token(issuer)))).status == 200
    clock.now += 2 * 86_400  # beyond every clock of the key set: it has to be fetched again
    assert (await call(protected, headers=bearer(token(issuer)))).status == 200
