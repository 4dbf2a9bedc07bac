"""The doctor at live resources: the middleware and servers with one fault over real HTTP, with the code of each fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from clinic import OAUTH, PRM, ASGIApp, Clinic, answering, diagnose, hello, names, problems
from mcp.server import MCPServer
from mcp.server.auth.settings import AuthSettings
from processes import free_port
from pydantic import AnyHttpUrl

from asgi_mcp_auth import MCPAuth, MCPAuthMiddleware, ResourceServerConfig, ResourceServerMetadata
from asgi_mcp_auth.doctor import Severity, examine

ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
JSON = ("content-type", "application/json")
ANY_ORIGIN = ("access-control-allow-origin", "*")


def test_a_healthy_resource_has_no_error_and_no_warning(clinic: Clinic) -> None:
    report = diagnose(clinic.resource)
    assert report.kind == "resource"
    assert problems(report) == set()
    assert names(report.findings, Severity.OK) == {
        *("protected", "bad_token_refused", "resource_metadata_found"),
        *("metadata_found", "pkce_supported", "registration_supported", "keys_usable"),
    }
    assert names(report.findings, INFO) == {"resource_parameter_unknown"}


def test_its_issuers_are_examined_once(clinic: Clinic) -> None:
    clinic.issuer.metadata["code_challenge_methods_supported"] = []
    report = diagnose(clinic.issuer.url, clinic.resource)
    assert problems(report) == {"pkce_not_supported"}
    assert clinic.issuer.requests["/jwks"] == 1


def test_a_resource_that_republishes_metadata_is_no_issuer(clinic: Clinic) -> None:
    clinic.server.app = MCPAuthMiddleware(
        hello, resource=clinic.server.url, authorization_servers=[clinic.issuer.url], republish_server_metadata=True
    )
    report = diagnose(clinic.server.url)
    assert report.kind == "resource"
    assert problems(report) == set()


def test_a_url_without_resource_and_issuer_is_not_recognised(clinic: Clinic) -> None:
    clinic.server.app = answering(404)
    report = diagnose(clinic.resource)
    assert (report.kind, problems(report)) == (None, {"not_recognised"})


def test_a_server_without_protection_is_not_taken_for_a_wrong_url(clinic: Clinic) -> None:
    clinic.server.app = answering(200)
    (finding,) = diagnose(clinic.resource).findings
    assert (finding.code.name, finding.evidence) == ("not_recognised", "POST got 200; no well-known document")
    assert finding.fix.startswith("If this is your MCP server, it is not protected: wrap the whole app")


@pytest.mark.parametrize("target", ["https://user@example.com", "https://", "ftp://x y", "://"])
def test_a_target_that_is_no_url_is_not_recognised(target: str) -> None:
    assert problems(diagnose(target)) == {"not_recognised"}


def test_a_server_with_the_protection_of_the_mcp_sdk(clinic: Clinic) -> None:
    """The SDK adds a slash to the issuer, sends an error without a token, and checks the token before `Host` and
    preflights.
    """

    class NoTokens:
        async def verify_token(self, token: str) -> None: ...

    settings = AuthSettings(
        issuer_url=AnyHttpUrl(clinic.issuer.url),
        resource_server_url=AnyHttpUrl(clinic.resource),
        required_scopes=["mcp:read"],
        validate_token_resource=True,
    )
    server = MCPServer("notes", auth=settings, token_verifier=NoTokens())
    clinic.server.app = server.streamable_http_app()
    report = diagnose(clinic.resource)
    assert report.kind == "resource"
    assert problems(report) == {
        *("issuer_trailing_slash", "error_without_token", "host_not_checked", "preflight_refused"),
    }
    assert not any("authorization_servers=" in finding.fix for finding in report.findings)


def test_a_server_that_does_not_run_is_unreachable() -> None:
    assert problems(diagnose(f"http://127.0.0.1:{free_port()}/mcp", kind="resource")) == {"unreachable"}


@pytest.mark.requirement("RS-7")
@pytest.mark.anyio
async def test_a_resource_without_tls() -> None:
    """http is only for loopback."""

    def client() -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(app=answering(401)))

    (report,) = await examine(["http://mcp.example.com/mcp"], "resource", http_client=client)
    assert {"not_https", "no_challenge"} <= names(report.findings, ERROR)


# --- responses without a token -------------------------------------------------------------------------------------


def challenged(clinic: Clinic, *values: str, status: int = 401, **more: Any) -> ASGIApp:
    """Return a server with good metadata, and with these challenges in every other response."""
    document = {"resource": clinic.resource, "authorization_servers": [clinic.issuer.url]}
    metadata = metadata_app(document)
    fields = [*(("www-authenticate", value) for value in values), ("cache-control", "no-store")]
    return answering(status, fields, but={f"{PRM}/mcp": metadata, PRM: metadata} | more)


def metadata_app(document: Any, *fields: tuple[str, str]) -> ASGIApp:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    allowed = ("access-control-allow-headers", "mcp-protocol-version")
    return answering(200, fields or (JSON, ANY_ORIGIN, allowed), body)


GOOD = 'Bearer scope="a", resource_metadata="{metadata}"'

# description, challenges, code, severity
CHALLENGES: list[tuple[str, list[str], str, Severity]] = [
    ("RS-30 none", [], "no_challenge", ERROR),
    ("RS-30 bare", ["Bearer"], "bare_challenge", ERROR),
    ("RS-30 unreadable", ['Bearer scope="a'], "challenge_unreadable", ERROR),
    ("RS-30 punctuation", ["=,="], "challenge_unreadable", ERROR),
    ("RS-30 endless", ["Bearer " + '"' * 5000], "challenge_unreadable", ERROR),
    ("RS-30 Basic only", ['Basic realm="x"'], "no_bearer_challenge", ERROR),
    ("RS-31 no resource_metadata", ['Bearer scope="a"'], "no_resource_metadata", WARNING),
    ("RS-31 relative", ['Bearer resource_metadata="/.well-known/x"'], "resource_metadata_elsewhere", ERROR),
    ("RS-31 the root URL", ['Bearer resource_metadata="{root}"'], "resource_metadata_elsewhere", WARNING),
    ("RS-32 no scope", ['Bearer resource_metadata="{metadata}"'], "no_scope", INFO),
    ("RS-13 an error without a token", ['Bearer error="invalid_token", ' + GOOD[7:]], "error_without_token", WARNING),
    ("RS-34 unquoted", ['Bearer scope=a, resource_metadata="{metadata}"'], "unquoted_parameter", WARNING),
    ("RS-34 twice", ['Bearer scope="b", ' + GOOD[7:]], "repeated_parameter", ERROR),
    ("RS-35 a backslash", [GOOD + ', error_description="\\\\"'], "forbidden_characters", WARNING),
    ("RS-35 a quote in a scope", ['Bearer scope="a\\"b", resource_metadata="{metadata}"'], "challenge_misread", ERROR),
    ("RS-35 Latin in a scope", ['Bearer scope="\xe9", resource_metadata="{metadata}"'], "forbidden_characters", WARNING),
    ("RS-35 Latin", [GOOD + ', error_description="\xe9"'], "forbidden_characters", WARNING),
    ("RS-36 an empty scope", ['Bearer scope="", resource_metadata="{metadata}"'], "empty_scope", ERROR),
    ("RS-37 scope in the description", ['Bearer error_description="needs scope=foo", ' + GOOD[7:]], "challenge_misread", ERROR),
    ("RS-37 = in the description", [GOOD + ', error_description="a=b"'], "equals_in_description", WARNING),
    ("RS-38 Bearer second", ['DPoP algs="ES256"', GOOD], "bearer_not_first", WARNING),
    ("RS-139 DPoP that the metadata does not announce", [GOOD, 'DPoP algs="ES256"'], "dpop_inconsistent", WARNING),
    ("RS-139 DPoP only", ['DPoP algs="ES256", scope="a", resource_metadata="{metadata}"'], "dpop_only", INFO),
    ("RS-60 offline_access", ['Bearer scope="a offline_access", resource_metadata="{metadata}"'], "offline_access_asked", WARNING),
]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "code", "severity"), [pytest.param(*rest, id=description) for description, *rest in CHALLENGES]
)
def test_a_bad_challenge(clinic: Clinic, values: list[str], code: str, severity: Severity) -> None:
    urls = {"metadata": f"{clinic.server.url}{PRM}/mcp", "root": f"{clinic.server.url}{PRM}"}
    clinic.server.app = challenged(clinic, *(value.format_map(urls) for value in values))
    report = diagnose(clinic.resource, kind="resource")
    assert code in names(report.findings, severity)
    assert ("protected" in names(report.findings, Severity.OK)) is (severity is not ERROR)


# description, status, fields, code
FIRST: list[tuple[str, int, list[tuple[str, str]], str]] = [
    ("RS-44 served", 200, [JSON], "not_protected"),
    ("RS-41 a login page", 302, [("location", "/login")], "login_redirect"),
    ("a redirect that adds a slash", 307, [("location", "/mcp/")], "login_redirect"),
    ("403 without a token", 403, [], "wrong_status"),
    ("400 without a token", 400, [], "wrong_status"),
    ("406 before 401", 406, [], "wrong_status"),
    ("an error", 500, [], "wrong_status"),
]


@pytest.mark.parametrize(
    ("status", "fields", "code"), [pytest.param(*rest, id=description) for description, *rest in FIRST]
)
def test_another_status_without_a_token(clinic: Clinic, status: int, fields: list[tuple[str, str]], code: str) -> None:
    clinic.server.app = answering(status, fields)
    assert code in names(diagnose(clinic.resource, kind="resource").findings, ERROR)


Choose = Callable[[str, dict[bytes, bytes]], ASGIApp | None]


def by_request(choose: Choose, usual: ASGIApp) -> ASGIApp:
    """Return an app that asks `choose` for the app of each request, by method and header fields."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        chosen = choose(scope["method"], dict(scope["headers"])) if scope["path"] == "/mcp" else None
        await (chosen or usual)(scope, receive, send)

    return app


def with_token(status: int, *fields: tuple[str, str]) -> Choose:
    return lambda method, sent: answering(status, fields) if b"authorization" in sent else None


def of_method(name: str, status: int) -> Choose:
    return lambda method, sent: answering(status) if method == name else None


def of_origin(*fields: tuple[str, str]) -> Choose:
    return lambda method, sent: answering(401, fields) if sent.get(b"origin") == b"https://client.invalid" else None


# description, another response, code, severity
OTHERWISE: list[tuple[str, Choose, str, Severity]] = [
    ("RS-78 a made-up token is served", with_token(200), "bad_token_accepted", ERROR),
    ("RS-17 400 for a made-up token", with_token(400), "bad_token_wrong_status", ERROR),
    ("RS-17 403 for a made-up token", with_token(403), "bad_token_wrong_status", ERROR),
    ("RS-9 500 for a made-up token", with_token(500), "bad_token_wrong_status", ERROR),
    ("RS-6 503 for a made-up token", with_token(503), "bad_token_wrong_status", WARNING),
    ("RS-33 no invalid_token", with_token(401, ("www-authenticate", 'Bearer realm="x"')), "bad_token_without_error", WARNING),
    ("RS-30 no challenge for a made-up token", with_token(401), "no_challenge", ERROR),
    ("RS-3 GET is open", of_method("GET", 200), "method_not_protected", ERROR),
    ("RS-3 DELETE is open", of_method("DELETE", 204), "method_not_protected", ERROR),
    ("RS-225 a preflight needs a token", of_method("OPTIONS", 401), "preflight_refused", WARNING),
    ("RS-220 foreign origins are not checked", of_origin(), "origin_not_refused", INFO),
    (
        "RS-224 foreign origins are echoed",
        of_origin(("access-control-allow-origin", "https://client.invalid"), ("access-control-allow-credentials", "true")),
        "any_origin_with_credentials",
        ERROR,
    ),
    (
        "RS-226 nothing is exposed",
        lambda method, sent: answering(401, [ANY_ORIGIN, ("www-authenticate", "Bearer a=b")])
        if method == "POST" and sent.get(b"origin", b"").startswith(b"http://127")
        else None,
        "challenge_not_exposed",
        WARNING,
    ),
    (
        "RS-223 any Host",
        lambda method, sent: answering(401) if sent.get(b"host") == b"rebinding.invalid" else None,
        "host_not_checked",
        WARNING,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("choose", "code", "severity"), [pytest.param(*rest, id=description) for description, *rest in OTHERWISE]
)
def test_a_server_with_one_fault(clinic: Clinic, choose: Choose, code: str, severity: Severity) -> None:
    clinic.server.app = by_request(choose, clinic.auth().wrap(hello))
    report = diagnose(clinic.resource, kind="resource")
    assert code in names(report.findings, severity)
    assert problems(report) <= {code, "no_challenge"}


def test_a_stream_that_does_not_end_is_not_read(clinic: Clinic) -> None:
    endless = answering(200, [("content-type", "text/event-stream")], b": " * 10_000)
    clinic.server.app = by_request(lambda method, sent: endless if method == "GET" else None, clinic.auth().wrap(hello))
    assert problems(diagnose(clinic.resource, kind="resource")) == {"method_not_protected"}


@pytest.mark.parametrize("status", [200, 302, 404, 500])
def test_nothing_is_deleted_where_nothing_is_protected(clinic: Clinic, status: int) -> None:
    asked: list[str] = []

    def choose(method: str, sent: dict[bytes, bytes]) -> ASGIApp:
        asked.append(method)
        return answering(status)

    clinic.server.app = by_request(choose, hello)
    assert problems(diagnose(clinic.resource, kind="resource"))
    assert set(asked) == {"POST"}


# --- its metadata ---------------------------------------------------------------------------------------------------


def document(clinic: Clinic, **members: Any) -> dict[str, Any]:
    return {"resource": clinic.resource, "authorization_servers": [clinic.issuer.url], **members}


# description, changed members, code, severity
DOCUMENTS: list[tuple[str, dict[str, Any], str, Severity]] = [
    ("RS-57 another resource", {"resource": "https://other.example.com/mcp"}, "resource_mismatch", ERROR),
    ("RS-57 a slash more", {"resource": "{resource}/"}, "resource_mismatch", ERROR),
    ("RS-57 no resource", {"resource": None}, "resource_mismatch", ERROR),
    ("RS-58 no servers", {"authorization_servers": []}, "no_authorization_servers", ERROR),
    ("RS-58 one text", {"authorization_servers": "https://a.example"}, "no_authorization_servers", ERROR),
    ("RS-58 no URL", {"authorization_servers": ["auth"]}, "authorization_server_invalid", ERROR),
    ("RS-58 a number", {"authorization_servers": [1]}, "authorization_server_invalid", ERROR),
    ("RS-59 an empty member", {"scopes_supported": []}, "empty_member", WARNING),
    ("RS-59 null", {"jwks_uri": None}, "empty_member", WARNING),
    ("RS-60 offline_access", {"scopes_supported": ["a", "offline_access"]}, "offline_access_asked", WARNING),
    ("no header", {"bearer_methods_supported": ["body"]}, "header_not_supported", ERROR),
]


@pytest.mark.parametrize(
    ("members", "code", "severity"), [pytest.param(*rest, id=description) for description, *rest in DOCUMENTS]
)
def test_a_bad_document(clinic: Clinic, members: dict[str, Any], code: str, severity: Severity) -> None:
    members = {n: v.format(resource=clinic.resource) if isinstance(v, str) else v for n, v in members.items()}
    good = clinic.auth().wrap(hello)
    bad = metadata_app(document(clinic, **members))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (bad if scope["path"].startswith(PRM) else good)(scope, receive, send)

    clinic.server.app = app
    report = diagnose(clinic.resource, kind="resource")
    assert code in names(report.findings, severity)
    assert problems(report) <= {code, "empty_member"}


# description, answers by path, codes
URLS: list[tuple[str, dict[str, ASGIApp], set[str]]] = [
    ("RS-50 nowhere", {f"{PRM}/mcp": answering(404), PRM: answering(404)}, {"resource_metadata_not_found"}),
    ("RS-50 needs a token", {f"{PRM}/mcp": answering(401), PRM: answering(401)}, {"resource_metadata_not_found"}),
    ("RS-54 HTML for anything", {f"{PRM}/mcp": answering(200, [], b"<html>"), PRM: answering(404)}, {"html_instead_of_json"}),
    ("RS-56 as text", {f"{PRM}/mcp": answering(200, [("content-type", "text/plain"), ANY_ORIGIN])}, {"wrong_content_type"}),
    ("RS-62 not for browsers", {f"{PRM}/mcp": answering(200, [JSON])}, {"no_cors"}),
]  # fmt: skip


@pytest.mark.parametrize(("answers", "codes"), [pytest.param(*rest, id=description) for description, *rest in URLS])
def test_metadata_that_clients_cannot_read(clinic: Clinic, answers: dict[str, ASGIApp], codes: set[str]) -> None:
    good = clinic.auth().wrap(hello)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answers.get(scope["path"], good)(scope, receive, send)

    clinic.server.app = app
    assert codes <= problems(diagnose(clinic.resource, kind="resource"))


def test_metadata_at_the_root_url_only(clinic: Clinic) -> None:
    good = clinic.auth().wrap(hello)
    nothing = answering(404)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (nothing if scope["path"] == f"{PRM}/mcp" else good)(scope, receive, send)

    clinic.server.app = app
    report = diagnose(clinic.resource, kind="resource")
    assert "resource_metadata_path_missing" in names(report.findings, WARNING)
    assert "resource_metadata_found" in names(report.findings, Severity.OK)


def test_an_authorization_server_that_does_not_answer(clinic: Clinic) -> None:
    clinic.issuer.answer(OAUTH, {}, status=404)
    clinic.issuer.answer("/.well-known/openid-configuration", {}, status=404)
    assert problems(diagnose(clinic.resource)) == {"metadata_not_found"}


@pytest.mark.requirement("DC-6")
def test_authorization_servers_inside_the_users_network_are_not_asked(clinic: Clinic) -> None:
    """The server wrote the document, not the user."""
    good = clinic.auth().wrap(hello)
    inside = metadata_app(document(clinic, authorization_servers=["https://192.168.0.1"]))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (inside if scope["path"].startswith(PRM) else good)(scope, receive, send)

    clinic.server.app = app
    assert "not_asked" in names(diagnose(clinic.resource, kind="resource").findings, WARNING)


# --- servers that use this library ----------------------------------------------------------------------------------


def test_a_missing_resource_metadata_is_an_error_without_metadata_at_a_well_known_url(clinic: Clinic) -> None:
    absent: dict[str, Any] = {f"{PRM}/mcp": answering(404), PRM: answering(404)}
    clinic.server.app = challenged(clinic, 'Bearer scope="a"', **absent)
    assert {"no_resource_metadata", "resource_metadata_not_found"} <= names(
        diagnose(clinic.resource, kind="resource").findings, ERROR
    )


def test_errors_are_listed_first(clinic: Clinic) -> None:
    clinic.issuer.metadata["code_challenge_methods_supported"] = []
    clinic.issuer.cache_control = "max-age=2592000"
    severities = [finding.severity for finding in diagnose(clinic.resource).findings]
    assert severities == sorted(severities, key=list(Severity).index)
    assert severities[:2] == [ERROR, WARNING]


def protecting(clinic: Clinic, app: ASGIApp = hello, **options: Any) -> ASGIApp:
    settings: dict[str, Any] = {"resource": clinic.resource, "authorization_servers": [clinic.issuer.url], **options}
    return MCPAuthMiddleware(app, **settings)


# description, options, path of the URL that is examined, code, fix
OWN: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("another path", {"resource": "{server}"}, "/mcp", "resource_mismatch", 'Set resource="{server}/mcp"'),
    ("a slash", {"resource": "{server}/mcp/"}, "/mcp", "resource_mismatch", 'Set resource="{server}/mcp"'),
    ("an unknown path", {"resource": "{server}/other"}, "/mcp", "resource_metadata_elsewhere", 'Set resource="{server}/mcp"'),
    ("an unknown host", {"allowed_hosts": ["a.example"], "resource": "https://a.example/mcp"}, "/mcp", "wrong_status", "allowed_hosts="),
    ("no scopes", {}, "/mcp", "no_scope", "Set required_scopes="),
    ("an issuer with a slash", {"authorization_servers": ["{issuer}/"]}, "/mcp", "issuer_trailing_slash", 'Set authorization_servers=["{issuer}"]'),
]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "path", "code", "fix"), [pytest.param(*rest, id=description) for description, *rest in OWN]
)
def test_fixes_name_the_settings_of_this_library_if_the_server_uses_it(
    clinic: Clinic, options: dict[str, Any], path: str, code: str, fix: str
) -> None:
    urls = {"server": clinic.server.url, "issuer": clinic.issuer.url}

    def with_urls(value: Any) -> Any:
        return value.format(**urls) if isinstance(value, str) else [item.format(**urls) for item in value]

    clinic.server.app = protecting(clinic, **{name: with_urls(value) for name, value in options.items()})
    report = diagnose(f"{clinic.server.url}{path}", kind="resource")
    assert fix.format(**urls) in next(finding.fix for finding in report.findings if finding.code.name == code)


@pytest.mark.parametrize(
    ("paths", "hosts"),
    [
        pytest.param(["/a", "/b"], [], id="an unknown path"),
        pytest.param(["/mcp"], ["a.example"], id="an unknown host"),
    ],
)
def test_a_url_that_this_library_does_not_serve_is_explained(
    clinic: Clinic, paths: list[str], hosts: list[str]
) -> None:
    configs = [
        ResourceServerConfig(
            metadata=ResourceServerMetadata(
                resource=f"{'https://a.example' if hosts else clinic.server.url}{path}",
                authorization_servers=[clinic.issuer.url],
            )
        )
        for path in paths
    ]
    clinic.server.app = MCPAuth(configs, allowed_hosts=hosts).wrap(hello)
    (finding,) = diagnose(clinic.resource).findings
    assert finding.code.name == "not_recognised"
    assert f'Set resource="{clinic.resource}"' in finding.fix
    assert ("allowed_hosts=" in finding.fix) is bool(hosts)


# --- the app behind, with a valid token -----------------------------------------------------------------------------

# description, response of the app, code, severity
APPS: list[tuple[str, ASGIApp, str, Severity]] = [
    ("C4 200", answering(200), "app_reached", Severity.OK),
    ("C4 a redirect that adds a slash", answering(307, [("location", "/mcp/")]), "app_redirects_slash", ERROR),
    ("C4 404", answering(404), "app_not_found", ERROR),
    ("C4 404 of MCP", answering(404, [], b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -32601}}'), "app_reached", Severity.OK),
    ("C4 another redirect", answering(302, [("location", "/login")]), "app_wrong_status", WARNING),
    ("C4 500", answering(500), "app_wrong_status", WARNING),
]  # fmt: skip


@pytest.mark.parametrize(
    ("app", "code", "severity"), [pytest.param(*rest, id=description) for description, *rest in APPS]
)
def test_the_app_behind_the_middleware_is_checked_with_a_token(
    clinic: Clinic, app: ASGIApp, code: str, severity: Severity
) -> None:
    clinic.server.app = protecting(clinic, app)
    report = diagnose(clinic.resource, token=clinic.issuer.mint(clinic.resource))
    assert code in names(report.findings, severity)
    assert problems(report) <= {code}


def test_a_rejected_token_is_reported(clinic: Clinic) -> None:
    report = diagnose(clinic.resource, token=clinic.issuer.mint("https://other.example.com"))
    assert problems(report) == {"token_rejected"}


def test_the_token_is_sent_to_the_resource_only_and_never_shown(clinic: Clinic) -> None:
    token, received = clinic.issuer.mint(clinic.resource), list[str]()

    def spy(app: ASGIApp, name: str) -> ASGIApp:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            if any(token in value.decode("latin-1") for _, value in scope["headers"]):
                received.append(f"{name} {scope['method']} {scope['path']}")
            await app(scope, receive, send)

        return wrapped

    clinic.server.app = spy(protecting(clinic, answering(302, [("location", f"/?token={token}")])), "resource")
    clinic.authority.app = spy(clinic.issuer, "issuer")
    report = diagnose(clinic.resource, token=token)
    assert received == ["resource POST /mcp"]
    assert token not in json.dumps(report.to_dict())
    received.clear()
    clinic.server.app = spy(answering(200), "resource")
    diagnose(clinic.resource, kind="resource", token=token)
    assert not received
