"""`_protocol.metadata`: the protected resource metadata document, and how it is served."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from harness import ISS, PRM, R, http_scope
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata, ScopePolicy
from asgi_mcp_auth._oauth.origin import PREFLIGHT_HEADERS
from asgi_mcp_auth._oauth.resource_metadata import (
    build_members,
    check_signed_metadata,
    compile_document,
    is_language_tag,
)
from asgi_mcp_auth._oauth.responses import Response
from asgi_mcp_auth._oauth.urls import PROTECTED_RESOURCE, insert_well_known, parse_url
from asgi_mcp_auth._request import RequestInfo

EMPTY: dict[str, Any] = {}
DEFAULT: dict[str, Any] = {
    "resource": R,
    "authorization_servers": [ISS],
    "scopes_supported": ["mcp:read"],
    "bearer_methods_supported": ["header"],
}


def request(method: str = "GET", *headers: tuple[bytes, bytes]) -> RequestInfo:
    return RequestInfo(http_scope(method) | {"headers": list(headers)})


# --- where ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        pytest.param("https://mcp.example.com", "https://mcp.example.com" + PROTECTED_RESOURCE, id="RS-50 bare origin"),
        pytest.param("https://mcp.example.com/", "https://mcp.example.com" + PROTECTED_RESOURCE, id="RS-50 root slash"),
        pytest.param(R, PRM, id="RS-50 a path"),
        pytest.param(f"{R}/", f"{PRM}/", id="RS-51 a trailing slash stays"),
        pytest.param(
            "https://mcp.example.com/server/mcp",
            "https://mcp.example.com/.well-known/oauth-protected-resource/server/mcp",
            id="RS-50 two segments",
        ),
        pytest.param(
            "https://mcp.example.com:8443/mcp",
            "https://mcp.example.com:8443/.well-known/oauth-protected-resource/mcp",
            id="RS-50 a port",
        ),
        pytest.param("https://mcp.example.com:443/mcp", PRM, id="RS-50 the default port"),
        pytest.param("HTTPS://MCP.Example.com/mcp", PRM, id="RS-50 case"),
        pytest.param(
            "https://mcp.example.com/a%2Fb",
            "https://mcp.example.com/.well-known/oauth-protected-resource/a%2Fb",
            id="RS-50 percent-encoding",
        ),
        pytest.param(
            "http://localhost:8000/mcp",
            "http://localhost:8000/.well-known/oauth-protected-resource/mcp",
            id="RS-50 loopback",
        ),
    ],
)
def test_the_metadata_url(resource: str, expected: str) -> None:
    url = parse_url(resource)
    assert url is not None
    assert insert_well_known(url, PROTECTED_RESOURCE) == expected


def places(*resources: str) -> dict[bytes, Any]:
    """Raw path → the `resource` of the document there."""
    configs = [
        ResourceServerConfig(metadata=ResourceServerMetadata(resource=resource, authorization_servers=[ISS]))
        for resource in resources
    ]
    return {
        path: document.members["resource"] for path, document in MCPAuth(configs)._protection.config.documents.items()
    }


WK = b"/.well-known/oauth-protected-resource"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        pytest.param(
            [R],
            {WK + b"/mcp": R, WK + b"/mcp/": R, WK: R, WK + b"/": R},
            id="RS-51 RS-52 with and without a slash, and at the root",
        ),
        pytest.param(
            ["https://mcp.example.com"],
            {WK: "https://mcp.example.com", WK + b"/": "https://mcp.example.com"},
            id="RS-51 RS-57 a bare origin",
        ),
        pytest.param(
            ["https://h/a", "https://h/b"],
            {
                WK + b"/a": "https://h/a",
                WK + b"/a/": "https://h/a",
                WK + b"/b": "https://h/b",
                WK + b"/b/": "https://h/b",
            },
            id="RS-52 none at the root for two",
        ),
        pytest.param(
            ["https://h/", "https://h/b"],
            {WK: "https://h/", WK + b"/": "https://h/", WK + b"/b": "https://h/b", WK + b"/b/": "https://h/b"},
            id="RS-52 the root place belongs to a root resource",
        ),
        pytest.param(
            ["https://h/a%2Fb"],
            {
                WK + b"/a%2Fb": "https://h/a%2Fb",
                WK + b"/a%2Fb/": "https://h/a%2Fb",
                WK: "https://h/a%2Fb",
                WK + b"/": "https://h/a%2Fb",
            },
            id="RS-50 the raw path",
        ),
    ],
)
def test_the_places_of_documents(resources: list[str], expected: dict[bytes, str]) -> None:
    assert places(*resources) == expected


# --- what -----------------------------------------------------------------------------------------------------------


def members(scopes: list[str], issuers: list[str], **fields: Any) -> dict[str, Any]:
    metadata = ResourceServerMetadata(resource="https://ignored.example", **fields)
    return build_members(metadata, resource=R, issuers=issuers, scopes=scopes, senders={})


@pytest.mark.parametrize(
    ("scopes", "fields", "expected"),
    [
        pytest.param(["mcp:read"], {}, DEFAULT, id="RS-56 the default"),
        pytest.param(
            [],
            {},
            {"resource": R, "authorization_servers": [ISS], "bearer_methods_supported": ["header"]},
            id="RS-59 no scopes",
        ),
        pytest.param(
            ["mcp:read"],
            {
                "resource_signing_alg_values_supported": [],
                "authorization_details_types_supported": (),
                "resource_name": None,
                "extra": {"a": [], "b": None, "c": ()},
            },
            DEFAULT,
            id="RS-59 empty arrays and nulls",
        ),
        pytest.param(
            ["mcp:read"],
            {"extra": {"x_flag": False, "x_zero": 0, "x_text": "", "x_object": EMPTY}},
            DEFAULT | {"x_flag": False, "x_zero": 0, "x_text": "", "x_object": EMPTY},
            id="RS-59 false, 0, an empty text and an empty object stay",
        ),
        pytest.param(
            ["mcp:read"],
            {"resource_name": {"": "Files", "it": "Archivio"}},
            DEFAULT | {"resource_name": "Files", "resource_name#it": "Archivio"},
            id="RS-64 languages",
        ),
        pytest.param(
            ["mcp:read"],
            {
                "resource_name": "Files",
                "resource_documentation": "https://d.example",
                "resource_policy_uri": {"": "https://p.example", "zh-Hant-TW": "https://p.example/zh"},
                "resource_tos_uri": "https://t.example",
                "jwks_uri": "https://mcp.example.com/jwks",
                "resource_signing_alg_values_supported": ["ES256"],
                "authorization_details_types_supported": ["payment"],
            },
            DEFAULT
            | {
                "jwks_uri": "https://mcp.example.com/jwks",
                "resource_signing_alg_values_supported": ["ES256"],
                "resource_name": "Files",
                "resource_documentation": "https://d.example",
                "resource_policy_uri": "https://p.example",
                "resource_policy_uri#zh-Hant-TW": "https://p.example/zh",
                "resource_tos_uri": "https://t.example",
                "authorization_details_types_supported": ["payment"],
            },
            id="RS-56 everything",
        ),
    ],
)
def test_members(scopes: list[str], fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert members(scopes, [ISS], **fields) == expected


@pytest.mark.requirement("RS-58")
def test_issuers_are_published_byte_for_byte_in_order() -> None:
    issuers = ["https://x.eu.auth0.com/", "https://auth.example.com", "https://AUTH.example.com"]
    assert members([], issuers)["authorization_servers"] == issuers


@pytest.mark.parametrize(
    "resource",
    [
        pytest.param("https://mcp.example.com", id="RS-57 no slash is added to an origin"),
        pytest.param("https://mcp.example.com/", id="RS-57 none is taken from one"),
        pytest.param(R, id="RS-57 none is added to a path"),
        pytest.param(f"{R}/", id="RS-57 none is taken from a path"),
    ],
)
def test_the_published_resource_is_the_configured_one(resource: str) -> None:
    assert set(places(resource).values()) == {resource}


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        pytest.param("it", True, id="RS-64 language"),
        pytest.param("en-GB", True, id="RS-64 region"),
        pytest.param("zh-Hant-TW", True, id="RS-64 script and region"),
        pytest.param("sl-rozaj-biske-1994", True, id="RS-64 variants"),
        pytest.param("", False, id="RS-64 empty"),
        pytest.param("en_GB", False, id="RS-64 underscore"),
        pytest.param("en-", False, id="RS-64 a hyphen at the end"),
        pytest.param("en#x", False, id="RS-64 a number sign"),
        pytest.param("é", False, id="RS-64 not ASCII"),
        pytest.param("it\n", False, id="RS-64 a newline"),
        pytest.param("1a", False, id="RS-64 a digit first"),
    ],
)
def test_language_tags(tag: str, expected: bool) -> None:
    assert is_language_tag(tag) is expected


# --- serving --------------------------------------------------------------------------------------------------------

DOCUMENT = compile_document(DEFAULT)
BODY = json.dumps(DEFAULT, separators=(",", ":")).encode()
OK = Response(
    200,
    (
        (b"content-type", b"application/json"),
        (b"content-length", str(len(BODY)).encode()),
        (b"cache-control", b"public, max-age=3600"),
        (b"etag", DOCUMENT.etag),
        (b"access-control-allow-origin", b"*"),
    ),
    BODY,
)
NOT_MODIFIED = Response(
    304,
    (
        (b"cache-control", b"public, max-age=3600"),
        (b"etag", DOCUMENT.etag),
        (b"access-control-allow-origin", b"*"),
    ),
)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        pytest.param("GET", [], id="RS-56 GET"),
        pytest.param("HEAD", [], id="RS-61 HEAD has the same fields"),
        pytest.param("GET", [(b"accept", b"text/html")], id="RS-56 whatever it accepts"),
        pytest.param("GET", [(b"accept-language", b"it")], id="RS-64 no negotiation"),
        pytest.param("GET", [(b"origin", b"https://evil.example")], id="RS-62 any origin"),
        pytest.param("GET", [(b"authorization", b"Bearer x y")], id="RS-56 any credential"),
        pytest.param("GET", [(b"x-forwarded-host", b"evil.example"), (b"host", b"evil.example")], id="RS-8 any host"),
        pytest.param("GET", [(b"if-none-match", b'"other"')], id="RS-61 another ETag"),
        pytest.param("GET", [(b"if-none-match", b"")], id="RS-61 no ETag"),
        pytest.param("GET", [(b"if-none-match", DOCUMENT.etag.strip(b'"'))], id="RS-61 an ETag without quotes"),
    ],
)
def test_get(method: str, headers: list[tuple[bytes, bytes]]) -> None:
    assert DOCUMENT.answer(request(method, *headers)) == OK


@pytest.mark.parametrize(
    ("method", "value"),
    [
        pytest.param("GET", DOCUMENT.etag, id="RS-61 the same"),
        pytest.param("HEAD", DOCUMENT.etag, id="RS-61 HEAD"),
        pytest.param("GET", b"W/" + DOCUMENT.etag, id="RS-61 weak comparison"),
        pytest.param("GET", b'"a", ' + DOCUMENT.etag + b' , "b"', id="RS-61 one of a list"),
        pytest.param("GET", b"*", id="RS-61 any"),
    ],
)
def test_not_modified(method: str, value: bytes) -> None:
    assert DOCUMENT.answer(request(method, (b"if-none-match", value))) == NOT_MODIFIED
    assert DOCUMENT.answer(request(method, (b"if-none-match", b'"x"'), (b"if-none-match", value))) == NOT_MODIFIED


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param([], ", ".join(PREFLIGHT_HEADERS).encode(), id="RS-62 nothing asked"),
        pytest.param([b"mcp-protocol-version"], b"mcp-protocol-version", id="RS-62 what was asked"),
        pytest.param([b"a, b"], b"a, b", id="RS-62 two"),
        pytest.param([b"a", b"b"], b"a, b", id="RS-62 two lines"),
        pytest.param(
            [b"a\r\nset-cookie: x"], ", ".join(PREFLIGHT_HEADERS).encode(), id="RS-62 no line break is echoed"
        ),
        pytest.param(["é".encode()], ", ".join(PREFLIGHT_HEADERS).encode(), id="RS-62 no field name"),
        pytest.param([b"a" * 5000], ", ".join(PREFLIGHT_HEADERS).encode(), id="RS-62 too long"),
    ],
)
def test_options(asked: list[bytes], expected: bytes) -> None:
    fields = [(b"access-control-request-headers", line) for line in asked]
    assert DOCUMENT.answer(request("OPTIONS", *fields)) == Response(
        204,
        (
            (b"access-control-allow-origin", b"*"),
            (b"access-control-allow-methods", b"GET, HEAD, OPTIONS"),
            (b"access-control-allow-headers", expected),
            (b"access-control-max-age", b"86400"),
            (b"allow", b"GET, HEAD, OPTIONS"),
        ),
    )


@pytest.mark.parametrize(
    "method", [pytest.param(m, id=f"RS-61 {m}") for m in ("POST", "PUT", "DELETE", "PATCH", "get")]
)
def test_other_methods(method: str) -> None:
    found = DOCUMENT.answer(request(method))
    body = b'{"error":"invalid_request","error_description":"Method not allowed"}'
    assert found == Response(
        405,
        (
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"allow", b"GET, HEAD, OPTIONS"),
            (b"access-control-allow-origin", b"*"),
        ),
        body,
    )


@pytest.mark.requirement("RS-61", "RS-65")
def test_the_etag_changes_exactly_when_the_document_does() -> None:
    assert compile_document(dict(DEFAULT)).etag == DOCUMENT.etag
    assert compile_document(DEFAULT | {"authorization_servers": ["https://new.example"]}).etag != DOCUMENT.etag
    assert compile_document(DEFAULT | {"authorization_servers": [ISS, ISS + "/"]}).etag != DOCUMENT.etag
    assert DOCUMENT.etag.startswith(b'"')
    assert DOCUMENT.etag.endswith(b'"')


def test_a_document_keeps_no_reference_to_what_it_was_given() -> None:
    content = dict(DEFAULT)
    document = compile_document(content)
    content["resource"] = "https://evil.example"
    assert document.members["resource"] == R
    assert json.loads(document.response.body) == DEFAULT


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_if_none_match(value: bytes) -> None:
    assert DOCUMENT.answer(request("GET", (b"if-none-match", value))) in (OK, NOT_MODIFIED)


# --- signed_metadata ------------------------------------------------------------------------------------------------


def jws(payload: Any, header: Any = None) -> str:
    parts = [json.dumps(header or {"alg": "ES256"}), json.dumps(payload), "signature"]
    return ".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in parts)


GOOD = DEFAULT | {"iss": R}


@pytest.mark.parametrize(
    ("signed", "expected"),
    [
        pytest.param(jws(GOOD), None, id="RS-63 all members and iss"),
        pytest.param(jws(GOOD | {"iat": 1}), None, id="RS-63 more claims"),
        pytest.param(jws(DEFAULT), "has no iss claim", id="RS-63 no iss"),
        pytest.param(jws(GOOD | {"iss": ""}), "has no iss claim", id="RS-63 an empty iss"),
        pytest.param(jws(GOOD | {"iss": 5}), "has no iss claim", id="RS-63 a number as iss"),
        pytest.param(jws(GOOD | {"signed_metadata": "x"}), "nests a signed_metadata claim", id="RS-63 nested"),
        pytest.param(
            jws(GOOD | {"resource": "https://evil.example"}),
            "does not assert the published resource",
            id="RS-63 differs",
        ),
        pytest.param(
            jws({"iss": R, "resource": R}),
            "does not assert the published authorization_servers, bearer_methods_supported, scopes_supported",
            id="RS-63 members missing",
        ),
        pytest.param(
            jws(GOOD | {"authorization_servers": ISS}),
            "does not assert the published authorization_servers",
            id="RS-63 another type",
        ),
        pytest.param(None, "is not a string", id="RS-63 None"),
        pytest.param(jws(GOOD).encode(), "is not a string", id="RS-63 bytes"),
    ],
)
def test_signed_metadata(signed: object, expected: str | None) -> None:
    assert check_signed_metadata(signed, DEFAULT) == expected


@pytest.mark.parametrize(
    "signed",
    [
        pytest.param("", id="RS-63 empty"),
        pytest.param("a.b", id="RS-63 two parts"),
        pytest.param(jws(GOOD) + ".x.y", id="RS-63 five parts"),
        pytest.param(jws([1]), id="RS-63 not an object"),
        pytest.param(jws(GOOD) + "é", id="RS-63 not ASCII"),
        pytest.param(jws(GOOD, {"alg": "ES256", "crit": ["x"]}), id="RS-63 crit"),
    ],
)
def test_signed_metadata_that_is_no_jws(signed: str) -> None:
    assert str(check_signed_metadata(signed, DEFAULT)).startswith("is not a compact JWS (")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.binary(max_size=60) | st.none() | st.integers())
def test_any_signed_metadata(signed: object) -> None:
    assert isinstance(check_signed_metadata(signed, DEFAULT), str)


@pytest.mark.requirement("RS-63")
def test_the_signer_is_given_what_is_published() -> None:
    """`metadata_signer` is asked once, with the members and `iss`; the result is published beside them."""
    asked: list[dict[str, Any]] = []

    def sign(claims: dict[str, Any]) -> str:
        asked.append(dict(claims))
        return jws(claims)

    metadata = ResourceServerMetadata(
        resource=R, authorization_servers=[ISS], jwks_uri="https://mcp.example.com/jwks", resource_name="Files"
    )
    config = ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=["mcp:read"]))
    auth = MCPAuth(config, metadata_signer=sign)
    plain = DEFAULT | {"jwks_uri": "https://mcp.example.com/jwks", "resource_name": "Files"}
    assert asked == [plain | {"iss": R}]
    assert auth._protection.config.resources[0].document.members == plain | {"signed_metadata": jws(asked[0])}
