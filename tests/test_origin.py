"""asgi_mcp_auth/_oauth/origin.py: Origin, CORS and Host, compared as whole values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from harness import R, RecordingApp, call, http_scope, protect
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_mcp_auth._oauth.origin import (
    EXPOSED_HEADERS,
    MAX_ECHOED,
    PREFLIGHT_HEADERS,
    Cors,
    HostCheck,
    OriginCheck,
    is_preflight,
    normal_origin,
    parse_authority,
)
from asgi_mcp_auth._oauth.urls import Url, parse_url
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.errors import ConfigurationError, Misdirected, OriginNotAllowed, Reason
from asgi_mcp_auth.testing import Issuer

APP = "https://app.example"
LOOPBACK = "http://127.0.0.1:8000/mcp"


def url(text: str) -> Url:
    parsed = parse_url(text)
    assert parsed is not None
    return parsed


def request(*headers: tuple[bytes, bytes], method: str = "POST") -> RequestInfo:
    return RequestInfo(http_scope(method) | {"headers": list(headers)})


def check(origins: list[bytes], allowed: list[str], resource: str = R) -> Cors | OriginNotAllowed | None:
    return OriginCheck(url(resource), allowed).check(request(*((b"origin", origin) for origin in origins)))


# --- Origin ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "allowed", "resource"),
    [
        pytest.param(b"https://app.example", [APP], R, id="RS-221 exactly"),
        pytest.param(b"https://APP.example:443", [APP], R, id="RS-221 case and default port"),
        pytest.param(b"HTTPS://app.example", [APP], R, id="RS-221 case of the scheme"),
        pytest.param(b"https://mcp.example.com", [], R, id="RS-220 the resource's own"),
        pytest.param(b"https://mcp.example.com:443", [], R, id="RS-220 the resource's own with its port"),
        pytest.param(b"vscode-webview://abc", ["vscode-webview://abc"], R, id="RS-221 another scheme"),
        pytest.param(b"http://localhost:3000", [], LOOPBACK, id="RS-220 loopback for a loopback resource"),
        pytest.param(b"http://127.0.0.1:6274", [], LOOPBACK, id="RS-220 another loopback port"),
        pytest.param(b"https://[::1]", [], LOOPBACK, id="RS-220 loopback over IPv6"),
    ],
)
def test_allowed_origins(origin: bytes, allowed: list[str], resource: str) -> None:
    found = check([origin], allowed, resource)
    assert found == Cors(((b"access-control-allow-origin", origin), (b"vary", b"Origin")))


@pytest.mark.parametrize(
    ("origins", "resource"),
    [
        pytest.param([b"https://evil.example"], R, id="RS-220 another"),
        pytest.param([b"https://app.example.evil.com"], R, id="RS-221 RS-224 a prefix"),
        pytest.param([b"https://evilapp.example"], R, id="RS-224 a suffix"),
        pytest.param([b"https://x.app.example"], R, id="RS-224 a subdomain"),
        pytest.param([b"http://app.example"], R, id="RS-221 another scheme"),
        pytest.param([b"https://app.example:8443"], R, id="RS-221 another port"),
        pytest.param([b"null"], R, id="RS-221 null"),
        pytest.param([b""], R, id="RS-221 empty"),
        pytest.param([b"*"], R, id="RS-221 asterisk"),
        pytest.param([b"https://app.example/"], R, id="RS-221 with a path"),
        pytest.param([b"https://app.example?x"], R, id="RS-221 with a query"),
        pytest.param([b"https://app.example#x"], R, id="RS-221 with a fragment"),
        pytest.param([b"https://u@app.example"], R, id="RS-221 with user information"),
        pytest.param([b"https://app.example:99999"], R, id="RS-221 an impossible port"),
        pytest.param([b"https://app.example\n"], R, id="RS-221 a newline at the end"),
        pytest.param([b" https://app.example"], R, id="RS-221 a space"),
        pytest.param(["https://äpp.example".encode()], R, id="RS-221 not ASCII"),
        pytest.param([b"https://app.example", b"https://app.example"], R, id="RS-221 two lines"),
        pytest.param([b"https://app.example, https://app.example"], R, id="RS-221 two on one line"),
        pytest.param([b"https://app.example https://x.example"], R, id="RS-221 a list of the old kind"),
        pytest.param([b"http://localhost:3000"], R, id="RS-220 loopback for a public resource"),
        pytest.param([b"http://localhost.evil.com"], LOOPBACK, id="RS-224 begins like localhost"),
        pytest.param([b"http://127.0.0.1.nip.io"], LOOPBACK, id="RS-224 begins like 127.0.0.1"),
        pytest.param([b"http://evil-localhost"], LOOPBACK, id="RS-224 ends like localhost"),
        pytest.param([b"http://evil.example"], LOOPBACK, id="RS-223 rebinding"),
        pytest.param([b"file://localhost"], LOOPBACK, id="RS-220 loopback under another scheme"),
    ],
)
def test_refused_origins(origins: list[bytes], resource: str) -> None:
    found = check(origins, [APP], resource)
    assert isinstance(found, OriginNotAllowed)
    assert (found.reason, found.status, found.description) == (Reason.ORIGIN_NOT_ALLOWED, 403, "Origin not allowed")
    assert found.found == b", ".join(origins).decode("latin-1")


@pytest.mark.requirement("RS-222")
@pytest.mark.parametrize("allowed", [pytest.param([], id="none listed"), pytest.param(["*"], id="any")])
def test_no_origin_is_no_browser(allowed: list[str]) -> None:
    assert check([], allowed) is None


@pytest.mark.requirement("RS-224")
@pytest.mark.parametrize(
    "origin",
    [pytest.param(b"https://evil.example", id="RS-220 a web page"), pytest.param(b"vscode://x", id="any scheme")],
)
def test_any_origin_is_answered_with_an_asterisk(origin: bytes) -> None:
    """An unlisted origin is never reflected."""
    assert check([origin], ["*"]) == Cors(((b"access-control-allow-origin", b"*"),))


def test_any_origin_is_still_one_origin() -> None:
    assert isinstance(check([b"https://a.example", b"https://b.example"], ["*"]), OriginNotAllowed)


def test_an_allowed_origin_is_of_its_own_resource() -> None:
    assert isinstance(check([b"https://mcp.example.com"], [], "https://other.example.com/mcp"), OriginNotAllowed)


near_origins = st.lists(
    st.sampled_from(
        [b"https://", b"http://", b"app.example", b"mcp.example.com", b":443", b":8443", b"/", b"@", b".evil"]
    )
    | st.sampled_from([b"null", b"\r\n", b" ", b",", b"\xff", b"localhost", b"[::1]", b"127.0.0.1", b"#", b"?"]),
    max_size=5,
).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=30) | near_origins, st.sampled_from([R, LOOPBACK]))
@example(b"https://app.example\r\nx: y", R)
def test_any_origin_bytes(origin: bytes, resource: str) -> None:
    found = check([origin], [APP], resource)
    assert isinstance(found, (Cors, OriginNotAllowed))
    if isinstance(found, Cors):
        normal = normal_origin(origin.decode("ascii"))
        if resource == R:
            assert normal in (APP, "https://mcp.example.com")
        else:
            assert normal == APP or url(normal or "").host in ("localhost", "127.0.0.1", "[::1]")
        assert found.allowed[0] == (b"access-control-allow-origin", origin)


# --- CORS -----------------------------------------------------------------------------------------------------------

ALLOWED = Cors(((b"access-control-allow-origin", APP.encode()), (b"vary", b"Origin")))


@pytest.mark.requirement("RS-226")
def test_every_response_to_an_allowed_origin() -> None:
    """A browser can read the challenge."""
    assert ALLOWED.response == (*ALLOWED.allowed, (b"access-control-expose-headers", EXPOSED_HEADERS))
    assert EXPOSED_HEADERS == b"WWW-Authenticate, Mcp-Session-Id, DPoP-Nonce"


BASE = (
    "authorization, content-type, accept, mcp-protocol-version, mcp-method, mcp-name, mcp-session-id, last-event-id, dpop, "
    "traceparent, tracestate, baggage, x-request-id"
)


def preflight(
    *headers: tuple[bytes, bytes], resource: str = R, methods: Sequence[str] = (), names: Sequence[str] = ()
) -> dict[str, str]:
    """The fields of the answer to a preflight of an allowed origin."""
    answer = OriginCheck(url(resource), [APP], methods, names).preflight(request(*headers, method="OPTIONS"), ALLOWED)
    return {name.decode(): value.decode() for name, value in answer}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param([], BASE, id="RS-225 nothing asked"),
        pytest.param([b"authorization, content-type"], BASE, id="RS-225 known ones"),
        pytest.param([b"Mcp-Param-Region"], f"{BASE}, mcp-param-region", id="RS-225 a parameter field"),
        pytest.param([b"mcp-param-b,mcp-param-a"], f"{BASE}, mcp-param-b, mcp-param-a", id="RS-225 two, in order"),
        pytest.param([b"mcp-param-a, MCP-PARAM-A"], f"{BASE}, mcp-param-a", id="RS-225 each once"),
        pytest.param([b"mcp-param-a", b"mcp-param-b"], f"{BASE}, mcp-param-a, mcp-param-b", id="RS-225 two lines"),
        pytest.param([b"x-evil, cookie, mcp-param-"], BASE, id="RS-225 others are not allowed"),
        pytest.param([b"mcp-param-a\r\nset-cookie: x"], BASE, id="RS-225 no line break is echoed"),
        pytest.param(["mcp-param-é".encode()], BASE, id="RS-225 not a field name"),
    ],
)
def test_preflight(asked: list[bytes], expected: str) -> None:
    fields = [(b"access-control-request-headers", line) for line in asked]
    assert preflight(*fields) == {
        "access-control-allow-origin": APP,
        "vary": "Origin",
        "access-control-allow-methods": "GET, POST, DELETE",
        "access-control-allow-headers": expected,
        "access-control-max-age": "600",
    }
    assert ", ".join(PREFLIGHT_HEADERS) == BASE


@pytest.mark.parametrize(
    ("listed", "asked", "expected"),
    [
        pytest.param(["PUT", "PATCH"], b"PUT", "GET, POST, DELETE, PUT, PATCH", id="RS-225 listed methods"),
        pytest.param(["GET"], b"GET", "GET, POST, DELETE", id="RS-225 each once"),
        pytest.param([], b"PUT", "GET, POST, DELETE", id="RS-225 a method that is not listed"),
        pytest.param(["*"], b"PROPFIND", "GET, POST, DELETE, PROPFIND", id="RS-225 any method"),
        pytest.param(["*"], b"POST", "GET, POST, DELETE", id="RS-225 any method, one that is listed"),
        pytest.param(["*"], b"P\r\nx: y", "GET, POST, DELETE", id="RS-225 any method, but no line break"),
    ],
)
def test_methods_of_preflights(listed: list[str], asked: bytes, expected: str) -> None:
    answer = preflight((b"access-control-request-method", asked), methods=listed)
    assert answer["access-control-allow-methods"] == expected


@pytest.mark.parametrize(
    ("listed", "asked", "expected"),
    [
        pytest.param(["x-tenant-id"], b"x-tenant-id, x-evil", f"{BASE}, x-tenant-id", id="RS-225 listed fields"),
        pytest.param(["*"], b"x-a, X-B,authorization", f"{BASE}, x-a, x-b", id="RS-225 any field"),
        pytest.param(["*"], b"x-a\r\nset-cookie: x, y z, x-b", f"{BASE}, x-b", id="RS-225 any field, but names only"),
        pytest.param(["*"], b"x" * 200, BASE, id="RS-225 any field, but no long name"),
        pytest.param(["*"], b"", BASE, id="RS-225 any field, nothing asked"),
    ],
)
def test_fields_of_preflights(listed: list[str], asked: bytes, expected: str) -> None:
    answer = preflight((b"access-control-request-headers", asked), names=listed)
    assert answer["access-control-allow-headers"] == expected


@pytest.mark.requirement("RS-225")
def test_a_preflight_echoes_a_bounded_number_of_fields() -> None:
    """At most 64 of the requested fields."""
    asked = b",".join(b"x-%d" % index for index in range(10_000))
    answer = preflight((b"access-control-request-headers", asked), names=["*"])
    assert len(answer["access-control-allow-headers"].split(", ")) == len(PREFLIGHT_HEADERS) + MAX_ECHOED


@pytest.mark.parametrize(
    ("resource", "asked", "expected"),
    [
        pytest.param(LOOPBACK, [b"true"], "true", id="RS-225 a loopback resource"),
        pytest.param(LOOPBACK, [], None, id="RS-225 not asked"),
        pytest.param(LOOPBACK, [b"false"], None, id="RS-225 asked otherwise"),
        pytest.param(R, [b"true"], None, id="RS-225 a public resource"),
    ],
)
def test_private_network_access_of_a_loopback_resource(resource: str, asked: list[bytes], expected: str | None) -> None:
    fields = [(b"access-control-request-private-network", value) for value in asked]
    assert preflight(*fields, resource=resource).get("access-control-allow-private-network") == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=30) | st.just(b"mcp-param-x"), max_size=4))
def test_a_preflight_echoes_field_names_only(asked: list[bytes]) -> None:
    fields = [(b"access-control-request-headers", line) for line in asked]
    names = preflight(*fields)["access-control-allow-headers"].split(", ")
    known = len(PREFLIGHT_HEADERS)
    assert ", ".join(names[:known]) == BASE
    assert all(name.startswith("mcp-param-") and name.isprintable() for name in names[known:])


ACRM = (b"access-control-request-method", b"POST")


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        pytest.param("OPTIONS", [ACRM], True, id="RS-225 a preflight"),
        pytest.param("OPTIONS", [], False, id="RS-225 a plain OPTIONS"),
        pytest.param("POST", [ACRM], False, id="RS-225 another method"),
        pytest.param("options", [ACRM], False, id="RS-225 methods are case-sensitive"),
    ],
)
def test_what_a_preflight_is(method: str, headers: list[tuple[bytes, bytes]], expected: bool) -> None:
    assert is_preflight(request(*headers, method=method)) is expected


# --- normal forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("HTTPS://App.Example:443", "https://app.example", id="RS-221 folded"),
        pytest.param("https://app.example:8443", "https://app.example:8443", id="RS-221 port kept"),
        pytest.param("http://app.example:443", "http://app.example:443", id="RS-221 another scheme's port kept"),
        pytest.param("tauri://localhost", "tauri://localhost", id="RS-221 any scheme"),
        pytest.param("http://[::1]:80", "http://[::1]", id="RS-221 IPv6"),
        pytest.param("null", None, id="RS-221 null"),
        pytest.param("https://app.example/", None, id="RS-221 path"),
        pytest.param("app.example", None, id="RS-221 no scheme"),
        pytest.param("https://*.example", None, id="RS-224 wildcard"),
        pytest.param("", None, id="RS-221 empty"),
    ],
)
def test_normal_origin(text: str, expected: str | None) -> None:
    assert normal_origin(text) == expected
    if expected is not None:
        assert normal_origin(expected) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("MCP.example.com", ("mcp.example.com", None), id="RS-223 folded"),
        pytest.param("mcp.example.com:8443", ("mcp.example.com", 8443), id="RS-223 with a port"),
        pytest.param("[::1]:8000", ("[::1]", 8000), id="RS-223 IPv6"),
        pytest.param("", None, id="RS-223 empty"),
        pytest.param(":8000", None, id="RS-223 a port alone"),
        pytest.param("mcp.example.com/", None, id="RS-223 path"),
        pytest.param("u@mcp.example.com", None, id="RS-223 user information"),
        pytest.param("mcp.example.com:0", None, id="RS-223 port 0"),
        pytest.param("mcp.example.com:x", None, id="RS-223 no port"),
        pytest.param("*.example.com", None, id="RS-224 wildcard"),
        pytest.param("999.0.0.1", None, id="RS-223 no address"),
        pytest.param("a, b", None, id="RS-223 two"),
    ],
)
def test_parse_authority(text: str, expected: tuple[str, int | None] | None) -> None:
    assert parse_authority(text) == expected


# --- Host -----------------------------------------------------------------------------------------------------------


def host_check(resources: list[str], allowed: list[str]) -> HostCheck:
    authorities = [parse_authority(text) for text in allowed]
    return HostCheck(map(url, resources), [known for known in authorities if known is not None])


@pytest.mark.parametrize(
    ("resource", "allowed", "host"),
    [
        pytest.param(R, [], b"evil.example", id="RS-223 off by default for a public resource"),
        pytest.param(R, ["x.example"], b"mcp.example.com", id="RS-223 the resource's own"),
        pytest.param(R, ["x.example"], b"MCP.example.com:443", id="RS-223 with its default port"),
        pytest.param(R, ["x.example"], b"x.example", id="RS-223 listed"),
        pytest.param(R, ["x.example"], b"x.example:9000", id="RS-223 listed without a port, any port"),
        pytest.param(R, ["x.example:9000"], b"x.example:9000", id="RS-223 listed with a port"),
        pytest.param("https://h.example:8443/mcp", ["x"], b"h.example:8443", id="RS-223 the resource's own port"),
        pytest.param(LOOPBACK, [], b"127.0.0.1:8000", id="RS-223 loopback"),
        pytest.param(LOOPBACK, [], b"localhost:8000", id="RS-223 another loopback name"),
        pytest.param(LOOPBACK, [], b"[::1]:8000", id="RS-223 loopback over IPv6"),
        pytest.param(LOOPBACK, [], b"localhost:1", id="RS-223 loopback with any port"),
        pytest.param(LOOPBACK, [], b"localhost", id="RS-223 loopback without a port"),
    ],
)
def test_hosts_that_pass(resource: str, allowed: list[str], host: bytes) -> None:
    assert host_check([resource], allowed).refuse(request((b"host", host))) is None


@pytest.mark.parametrize(
    ("resource", "allowed", "hosts"),
    [
        pytest.param(LOOPBACK, [], [b"evil.example.com"], id="RS-223 rebinding"),
        pytest.param(LOOPBACK, [], [b"localhost.evil.com"], id="RS-224 begins like localhost"),
        pytest.param(LOOPBACK, [], [b"127.0.0.1.nip.io:8000"], id="RS-224 begins like 127.0.0.1"),
        pytest.param(LOOPBACK, [], [b"evil.localhost"], id="RS-224 ends like localhost"),
        pytest.param(LOOPBACK, [], [], id="RS-223 missing"),
        pytest.param(LOOPBACK, [], [b"localhost", b"localhost"], id="RS-223 duplicate"),
        pytest.param(LOOPBACK, [], [b""], id="RS-223 empty"),
        pytest.param(LOOPBACK, [], [b"localhost/"], id="RS-223 with a path"),
        pytest.param(LOOPBACK, [], [b"u@localhost"], id="RS-223 with user information"),
        pytest.param(LOOPBACK, [], [b"\xff"], id="RS-223 not ASCII"),
        pytest.param(R, ["x.example:9000"], [b"x.example"], id="RS-223 listed with a port, none given"),
        pytest.param(R, ["x.example:9000"], [b"x.example:9001"], id="RS-223 another port"),
        pytest.param(R, ["x.example"], [b"mcp.example.com:8443"], id="RS-223 the resource's host, another port"),
        pytest.param(R, ["x.example"], [b"a.x.example"], id="RS-224 a subdomain"),
        pytest.param(R, ["x.example"], [b"localhost"], id="RS-223 loopback for a public resource"),
        pytest.param("https://h.example:8443/mcp", ["x"], [b"h.example"], id="RS-223 the resource's port is missing"),
    ],
)
def test_hosts_that_do_not(resource: str, allowed: list[str], hosts: list[bytes]) -> None:
    refusal = host_check([resource], allowed).refuse(request(*((b"host", host) for host in hosts)))
    assert isinstance(refusal, Misdirected)
    assert (refusal.reason, refusal.status) == (Reason.HOST_NOT_ALLOWED, 421)
    assert refusal.found == b", ".join(hosts).decode("latin-1")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=30) | near_origins)
def test_any_host_bytes(host: bytes) -> None:
    refusal = host_check([LOOPBACK], []).refuse(request((b"host", host)))
    if refusal is None:
        authority = parse_authority(host.decode("ascii"))
        assert authority is not None
        assert authority[0] == "localhost" or authority[0] == "[::1]" or authority[0].startswith("127.")


def test_one_loopback_resource_turns_the_check_on_for_all() -> None:
    hosts = host_check([R, LOOPBACK], [])
    assert hosts.refuse(request((b"host", b"mcp.example.com"))) is None
    refused: Any = hosts.refuse(request((b"host", b"evil.example")))
    assert refused.reason is Reason.HOST_NOT_ALLOWED


# --- through the middleware -----------------------------------------------------------------------------------------


@pytest.mark.requirement("RS-225")
@pytest.mark.anyio
async def test_listed_methods_and_fields_are_allowed(issuer: Issuer) -> None:
    app = protect(issuer, RecordingApp(), allowed_origins=[APP], cors_methods=["put"], cors_headers=["X-Tenant-Id"])
    asked = {"access-control-request-method": "PUT", "access-control-request-headers": "x-tenant-id"}
    answer = await call(app, "OPTIONS", headers={"origin": APP, **asked})
    assert answer.status == 204
    assert answer.header("access-control-allow-methods") == "GET, POST, DELETE, PUT"
    assert answer.header("access-control-allow-headers") == f"{BASE}, x-tenant-id"


@pytest.mark.requirement("RS-225")
@pytest.mark.anyio
async def test_private_network_preflight_of_a_page_that_is_not_allowed(issuer: Issuer) -> None:
    """403, and nothing is granted."""
    asked = {"access-control-request-method": "POST", "access-control-request-private-network": "true"}
    for origin, status, granted in ((APP, 204, "true"), ("https://evil.example", 403, None)):
        app = protect(issuer, RecordingApp(), resource=LOOPBACK, allowed_origins=[APP])
        answer = await call(app, "OPTIONS", headers={"origin": origin, **asked}, host="127.0.0.1:8000")
        assert (answer.status, answer.header("access-control-allow-private-network")) == (status, granted)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        pytest.param({"cors_methods": ["GET, PUT"]}, "cors_methods", id="RS-225 two methods in one text"),
        pytest.param({"cors_methods": "PUT"}, "cors_methods", id="RS-225 a text for a list of methods"),
        pytest.param({"cors_headers": ["x tenant"]}, "cors_headers", id="RS-225 not a field name"),
        pytest.param({"cors_headers": [""]}, "cors_headers", id="RS-225 an empty field name"),
        pytest.param({"cors_headers": [5]}, "cors_headers", id="RS-225 a number for a field name"),
    ],
)
def test_methods_and_fields_are_checked(options: dict[str, Any], where: str, issuer: Issuer) -> None:
    with pytest.raises(ConfigurationError) as caught:
        protect(issuer, RecordingApp(), **options)
    assert [problem.where for problem in caught.value.problems] == [where]
