"""`MCPAuth` and `MCPAuthMiddleware`: all problems of a configuration at once, each with its option and its fix."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping
from typing import Any, get_type_hints

import httpx
import pytest
from harness import ISS, PRM, R, RecordingApp
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_mcp_auth import (
    AuthorizationServerMetadata,
    AuthServerConfig,
    ConfigurationError,
    Decision,
    MCPAuth,
    MCPAuthError,
    MCPAuthMiddleware,
    MemoryStore,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
)
from asgi_mcp_auth._options import MCPAuthOptions, MiddlewareOptions
from asgi_mcp_auth.errors import NoCredential, Reason
from asgi_mcp_auth.testing import SigningKey

META, POLICY = "protected_resources[0].metadata", "protected_resources[0].policy"
SERVERS = f"{META}.authorization_servers"
SERVER = f"{SERVERS}[0]"

Changes = Mapping[str, Any]


def config(
    resource: str = R, *, metadata: Changes | None = None, policy: Changes | None = None, server: Changes | None = None
) -> ResourceServerConfig:
    """Return the configuration of the requirements with changes."""
    own: dict[str, Any] = {"issuer": ISS} | dict(server or {})
    servers = [ISS] if server is None else [AuthServerConfig(**own)]
    members: dict[str, Any] = {"resource": resource, "authorization_servers": servers} | dict(metadata or {})
    rules: dict[str, Any] = {"default": ["mcp:read"]} | dict(policy or {})
    return ResourceServerConfig(metadata=ResourceServerMetadata(**members), policy=ScopePolicy(**rules))


def refused(*configs: Any, **options: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        MCPAuth(configs, **options)
    error = caught.value
    assert isinstance(error, (ValueError, MCPAuthError))
    assert all(problem.where and problem.what and problem.fix for problem in error.problems)
    assert str(error) == "\n  - ".join(
        [f"{len(error.problems)} configuration problem{'s' * (len(error.problems) > 1)}", *map(str, error.problems)]
    )
    return error


def places(error: ConfigurationError) -> list[str]:
    return [problem.where for problem in error.problems]


# --- the resource identifier ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "resource",
    [
        pytest.param("mcp.example.com", id="RS-7 no scheme"),
        pytest.param("", id="RS-7 empty"),
        pytest.param("/mcp", id="RS-7 relative"),
        pytest.param("http://mcp.example.com/mcp", id="RS-7 http"),
        pytest.param("http://localhost.evil.com/mcp", id="RS-7 begins like localhost"),
        pytest.param("http://127.0.0.1.nip.io/mcp", id="RS-7 begins like 127.0.0.1"),
        pytest.param("http://192.168.0.1/mcp", id="RS-7 http in a private network"),
        pytest.param("ws://127.0.0.1/mcp", id="RS-7 another scheme on loopback"),
        pytest.param("https://mcp.example.com#f", id="RS-7 a fragment"),
        pytest.param("https://mcp.example.com/mcp#", id="RS-7 an empty fragment"),
        pytest.param("https://u@h/mcp", id="RS-7 user information"),
        pytest.param("https://mcp.example.com/mcp?tenant=a", id="RS-7 a query"),
        pytest.param("https://mcp.example.com/?", id="RS-7 an empty query"),
        pytest.param("urn:x:mcp", id="RS-7 a URN"),
        pytest.param("api://guid", id="RS-7 an application id"),
        pytest.param("https://", id="RS-7 no host"),
        pytest.param("https://mcp.example.com:99999/mcp", id="RS-7 an impossible port"),
        pytest.param("https://mcp.example.com/a b", id="RS-7 a space"),
        pytest.param("https://mcp.example.com/é", id="RS-7 not ASCII"),
        pytest.param("https://mcp.example.com/mcp\n", id="RS-7 a newline"),
        pytest.param("https://mcp.example.com//mcp", id="RS-7 two slashes"),
        pytest.param("https://mcp.example.com/a/../mcp", id="RS-7 dot segments"),
        pytest.param(None, id="RS-7 None"),
        pytest.param(5, id="RS-7 a number"),
    ],
)
def test_resources_that_are_refused(resource: Any) -> None:
    assert places(refused(config(resource))) == [f"{META}.resource"]


@pytest.mark.parametrize(
    ("resource", "warned"),
    [
        pytest.param(R, False, id="RS-7 https"),
        pytest.param("https://mcp.example.com", False, id="RS-7 an origin"),
        pytest.param("https://mcp.example.com/", False, id="RS-7 the root"),
        pytest.param("http://127.0.0.1:8000/mcp", False, id="RS-7 http on loopback"),
        pytest.param("http://127.8.9.1/mcp", False, id="RS-7 http anywhere on loopback"),
        pytest.param("http://localhost:8000/mcp", False, id="RS-7 http on localhost"),
        pytest.param("http://[::1]:8000/mcp", False, id="RS-7 http on loopback over IPv6"),
        pytest.param("https://mcp.example.com/a%2Fb", False, id="RS-50 percent-encoding"),
        pytest.param("https://mcp.example.com/mcp/", True, id="RS-51 a slash at the end"),
        pytest.param("https://mcp.example.com:443/mcp", True, id="RS-50 the default port"),
        pytest.param("HTTPS://MCP.example.com/mcp", True, id="RS-50 case"),
    ],
)
def test_resources_that_are_accepted(resource: str, warned: bool) -> None:
    auth = MCPAuth(config(resource))
    assert len(auth._protection.config.resources) == 1
    assert [warning.startswith(f"{META}.resource: ") for warning in auth.warnings] == [True] * warned


def test_http_is_accepted_if_it_is_dangerously_allowed() -> None:
    changed = config("http://mcp.internal/mcp", server={"issuer": "http://auth.internal", "jwks_uri": "http://a/jwks"})
    auth = MCPAuth(changed, dangerously_allow_http=True)
    assert auth._protection.config.resources[0].identifier == "http://mcp.internal/mcp"
    problems = refused(changed)
    assert places(problems) == [f"{META}.resource", SERVER, f"{SERVER}.jwks_uri"]
    assert all("dangerously_allow_http=True" in problem.fix for problem in problems.problems)


def test_ignored_members_of_fetched_metadata_are_a_warning() -> None:
    metadata = AuthorizationServerMetadata.from_dict(
        {"issuer": ISS, "jwks_uri": f"{ISS}/k", "ui_locales_supported": "en"}
    )
    auth = MCPAuth(config(server={"metadata": metadata}))
    assert [warning for warning in auth.warnings if "ui_locales_supported" in warning] != []


# --- one problem each -----------------------------------------------------------------------------------------------

SERVER_METADATA = AuthorizationServerMetadata(issuer=ISS, jwks_uri=f"{ISS}/jwks")
WITH_HTTP_KEYS = AuthorizationServerMetadata(issuer=ISS, jwks_uri="http://auth.example.com/jwks")


@pytest.mark.parametrize(
    ("changes", "where", "value"),
    [
        pytest.param({"default": ["a b"]}, f"{POLICY}.default", "'a b'", id="RS-117 a space"),
        pytest.param({"default": ["é"]}, f"{POLICY}.default", "'é'", id="RS-117 not ASCII"),
        pytest.param({"default": [""]}, f"{POLICY}.default", "''", id="RS-117 empty"),
        pytest.param({"default": ['a"b']}, f"{POLICY}.default", "'a\"b'", id="RS-35 RS-117 a quote"),
        pytest.param({"default": ["a\\b"]}, f"{POLICY}.default", "'a\\\\b'", id="RS-35 RS-117 a backslash"),
        pytest.param({"default": "mcp:read"}, f"{POLICY}.default", "'mcp:read'", id="RS-117 a text for a list"),
        pytest.param({"default": None}, f"{POLICY}.default", "None", id="RS-117 None"),
        pytest.param({"default": [5]}, f"{POLICY}.default", "5", id="RS-117 a number"),
        pytest.param(
            {"challenge_scopes": ["a b"]}, f"{POLICY}.challenge_scopes", "'a b'", id="RS-117 challenge_scopes"
        ),
        pytest.param({"challenge_scopes": "a"}, f"{POLICY}.challenge_scopes", "'a'", id="RS-116 challenge_scopes text"),
        pytest.param({"implies": {"a b": ["c"]}}, f"{POLICY}.implies", "'a b'", id="RS-117 implies from"),
        pytest.param({"implies": {"a": ["b c"]}}, f"{POLICY}.implies['a']", "'b c'", id="RS-117 implies to"),
        pytest.param({"implies": {"a": "b"}}, f"{POLICY}.implies['a']", "'b'", id="RS-110 implies a text"),
        pytest.param({"implies": {"a": ["b"], "b": ["a"]}}, f"{POLICY}.implies", "'a'", id="RS-110 a cycle"),
        pytest.param({"implies": {"a": ["a"]}}, f"{POLICY}.implies", "'a'", id="RS-110 itself"),
        pytest.param(
            {"request_scope_names": {"a": "b c"}}, f"{POLICY}.request_scope_names['a']", "'b c'", id="RS-117 wire name"
        ),
        pytest.param(
            {"request_scope_names": {"a b": "c"}},
            f"{POLICY}.request_scope_names['a b']",
            "'a b'",
            id="RS-117 wire names from",
        ),
        pytest.param({"paths": {"x": ["a"]}}, f"{POLICY}.paths", "'x'", id="a relative path"),
        pytest.param({"paths": {"/x/": ["a"]}}, f"{POLICY}.paths", "'/x/'", id="a slash at the end"),
        pytest.param({"paths": {"/x*": ["a"]}}, f"{POLICY}.paths", "'/x*'", id="a wildcard inside"),
        pytest.param({"paths": {"/a%2Fb": ["a"]}}, f"{POLICY}.paths", "'/a%2Fb'", id="an encoded path"),
        pytest.param({"paths": {"GET,POST /x": ["a"]}}, f"{POLICY}.paths", "'GET,POST /x'", id="two methods"),
        pytest.param({"paths": {"GET /x": ["a"], "get /x": ["a"]}}, f"{POLICY}.paths", "'get /x'", id="one rule twice"),
        pytest.param({"paths": {"/x": ["a b"]}}, f"{POLICY}.paths['/x']", "'a b'", id="RS-117 a path's scope"),
        pytest.param({"paths": {"/x": "a"}}, f"{POLICY}.paths['/x']", "'a'", id="a path's scopes as a text"),
    ],
)
def test_a_bad_policy_is_a_problem_at_its_field(changes: Changes, where: str, value: str) -> None:
    (problem,) = refused(config(policy=changes)).problems
    assert problem.where == where
    assert value in problem.what


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        pytest.param({"authorization_servers": []}, SERVERS, id="RS-58 none"),
        pytest.param({"authorization_servers": ISS}, SERVERS, id="RS-58 a text for a list"),
        pytest.param({"authorization_servers": None}, SERVERS, id="RS-58 None"),
        pytest.param({"authorization_servers": [5]}, SERVER, id="RS-58 a number"),
        pytest.param({"authorization_servers": [ISS, ISS]}, f"{SERVERS}[1]", id="RS-58 one twice"),
        pytest.param(
            {"authorization_servers": [ISS, AuthServerConfig(issuer=ISS)]}, f"{SERVERS}[1]", id="RS-58 twice, two forms"
        ),
        pytest.param({"authorization_servers": ["http://auth.example.com"]}, SERVER, id="RS-7 an issuer over http"),
        pytest.param({"authorization_servers": ["auth.example.com"]}, SERVER, id="RS-7 an issuer without scheme"),
        pytest.param({"authorization_servers": [f"{ISS}?x"]}, SERVER, id="RS-7 an issuer with a query"),
        pytest.param({"authorization_servers": [f"{ISS}#x"]}, SERVER, id="RS-7 an issuer with a fragment"),
        pytest.param({"authorization_servers": [""]}, SERVER, id="RS-7 an empty issuer"),
        pytest.param({"scopes_supported": ["a b"]}, f"{META}.scopes_supported", id="RS-117 scopes_supported"),
        pytest.param({"scopes_supported": "a"}, f"{META}.scopes_supported", id="RS-117 scopes_supported as a text"),
        pytest.param({"bearer_methods_supported": ["body"]}, f"{META}.bearer_methods_supported", id="RS-15 body"),
        pytest.param(
            {"bearer_methods_supported": ["header", "query"]}, f"{META}.bearer_methods_supported", id="RS-14 query"
        ),
        pytest.param({"bearer_methods_supported": []}, f"{META}.bearer_methods_supported", id="RS-59 no methods"),
        pytest.param(
            {"dpop_bound_access_tokens_required": True}, f"{META}.dpop_bound_access_tokens_required", id="RS-139 DPoP"
        ),
        pytest.param(
            {"dpop_signing_alg_values_supported": ["ES256"]},
            f"{META}.dpop_signing_alg_values_supported",
            id="RS-139 DPoP algorithms",
        ),
        pytest.param(
            {"tls_client_certificate_bound_access_tokens": True},
            f"{META}.tls_client_certificate_bound_access_tokens",
            id="RS-56 mTLS without the mechanism",
        ),
        pytest.param(
            {"resource_signing_alg_values_supported": ["ES256", "none"]},
            f"{META}.resource_signing_alg_values_supported",
            id="RS-56 none is no algorithm",
        ),
        pytest.param({"jwks_uri": "http://mcp.example.com/jwks"}, f"{META}.jwks_uri", id="RS-56 keys over http"),
        pytest.param({"resource_name": {"it": "Archivio"}}, f"{META}.resource_name", id="RS-64 no default"),
        pytest.param({"resource_name": {"": "F", "en_GB": "x"}}, f"{META}.resource_name", id="RS-64 no language tag"),
        pytest.param({"resource_tos_uri": {"": ""}}, f"{META}.resource_tos_uri", id="RS-64 an empty default"),
        pytest.param({"extra": {"resource": "https://evil.example"}}, f"{META}.extra", id="RS-57 resource in extra"),
        pytest.param({"extra": {"resource_name#it": "x"}}, f"{META}.extra", id="RS-64 a variant in extra"),
        pytest.param({"extra": {"signed_metadata": "x.y.z"}}, f"{META}.extra", id="RS-63 signed metadata in extra"),
        pytest.param(
            {"jwks_uri": "https://mcp.example.com/jwks", "signed_metadata": "x.y.z"},
            f"{META}.signed_metadata",
            id="RS-63 no JWS",
        ),
    ],
)
def test_bad_metadata_is_a_problem_at_its_field(changes: Changes, where: str) -> None:
    assert places(refused(config(metadata=changes))) == [where]


PRIVATE = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ", "kid": "k"}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        pytest.param({"issuer": None}, SERVER, id="no issuer"),
        pytest.param({"issuer": "https://x.example", "metadata": SERVER_METADATA}, SERVER, id="DC-2 two issuers"),
        pytest.param({"type": "saml"}, f"{SERVER}.type", id="an unknown type"),
        pytest.param({"profile": "rfc9068"}, f"{SERVER}.profile", id="an unknown profile"),
        pytest.param({"leeway": -1}, f"{SERVER}.leeway", id="RS-81 a negative leeway"),
        pytest.param({"leeway": 301}, f"{SERVER}.leeway", id="RS-81 a leeway too long"),
        pytest.param({"leeway": float("nan")}, f"{SERVER}.leeway", id="RS-81 no number"),
        pytest.param({"leeway": True}, f"{SERVER}.leeway", id="RS-81 a flag for a number"),
        pytest.param({"max_keys_without_kid": 0}, f"{SERVER}.max_keys_without_kid", id="RS-76 none"),
        pytest.param({"max_keys_without_kid": 5}, f"{SERVER}.max_keys_without_kid", id="RS-76 too many"),
        pytest.param({"algorithms": []}, f"{SERVER}.algorithms", id="RS-71 no algorithm"),
        pytest.param({"algorithms": ["RS256", "none"]}, f"{SERVER}.algorithms", id="RS-71 none"),
        pytest.param({"algorithms": ["HS256"]}, f"{SERVER}.algorithms", id="RS-71 a shared secret"),
        pytest.param({"algorithms": ["rs256"]}, f"{SERVER}.algorithms", id="RS-71 case"),
        pytest.param({"extra_audiences": "api://x"}, f"{SERVER}.extra_audiences", id="RS-102 a text for a list"),
        pytest.param({"extra_audiences": [""]}, f"{SERVER}.extra_audiences", id="RS-102 an empty audience"),
        pytest.param({"scope_claims": "scope"}, f"{SERVER}.scope_claims", id="RS-86 a text for a list"),
        pytest.param({"allowed_clients": "c1"}, f"{SERVER}.allowed_clients", id="a client as a text"),
        pytest.param({"jwks_uri": "http://auth.example.com/jwks"}, f"{SERVER}.jwks_uri", id="DC-4 keys over http"),
        pytest.param(
            {"metadata_url": "http://auth.example.com/m"}, f"{SERVER}.metadata_url", id="DC-4 metadata over http"
        ),
        pytest.param({"metadata": WITH_HTTP_KEYS}, f"{SERVER}.metadata.jwks_uri", id="DC-4 metadata's keys over http"),
        pytest.param({"jwks": {}}, f"{SERVER}.jwks", id="a key set without keys"),
        pytest.param({"jwks": {"keys": []}}, f"{SERVER}.jwks", id="an empty key set"),
        pytest.param({"jwks": {"keys": [PRIVATE]}}, f"{SERVER}.jwks", id="RS-71 a key set of secrets"),
        pytest.param({"jwks": {"keys": [{"kty": "RSA"}] * 101}}, f"{SERVER}.jwks", id="too many keys"),
    ],
)
def test_a_bad_server_is_a_problem_at_its_field(changes: Changes, where: str) -> None:
    assert places(refused(config(server=changes))) == [where]


@pytest.mark.parametrize(
    ("changes", "required", "wheres"),
    [
        pytest.param({}, ["mcp:read"], [f"{SERVER}.allowed_clients", f"{SERVER}.profile"], id="RS-91 nothing else"),
        pytest.param({}, [f"{R}/read"], [f"{SERVER}.allowed_clients"], id="RS-91 no clients"),
        pytest.param({"allowed_clients": ["c1"]}, ["mcp:read"], [f"{SERVER}.profile"], id="RS-91 a scope of anybody"),
        pytest.param(
            {"allowed_clients": ["c1"]},
            ["https://mcp.example.comx/read"],
            [f"{SERVER}.profile"],
            id="RS-91 a longer name",
        ),
        pytest.param({"allowed_clients": ["c1"]}, [f"{R}/read"], [], id="RS-91 both"),
    ],
)
def test_tokens_without_an_audience_need_clients_and_a_scope_of_the_resource(
    changes: Changes, required: list[str], wheres: list[str]
) -> None:
    changed = config(server={"profile": "no-aud"} | dict(changes), policy={"default": required})
    if wheres:
        assert places(refused(changed)) == wheres
    else:
        (warning,) = MCPAuth(changed).warnings
        assert warning.startswith(f"{SERVER}.profile: Tokens without an audience are accepted.")


@pytest.mark.parametrize(
    ("options", "where"),
    [
        pytest.param({"public_paths": "/healthz"}, "public_paths", id="RS-2 a text for a list"),
        pytest.param({"public_paths": [5]}, "public_paths", id="RS-2 a number"),
        pytest.param({"public_paths": ["healthz"]}, "public_paths", id="RS-2 relative"),
        pytest.param({"public_paths": ["/healthz/"]}, "public_paths", id="RS-2 a slash at the end"),
        pytest.param({"public_paths": ["/a%2Fb"]}, "public_paths", id="RS-2 encoded"),
        pytest.param({"public_paths": ["GET /healthz"]}, "public_paths", id="RS-2 a method"),
        pytest.param({"public_paths": ["/x*"]}, "public_paths", id="RS-2 a wildcard inside"),
        pytest.param({"public_paths": ["/*"]}, "public_paths", id="RS-2 everything"),
        pytest.param({"public_paths": ["/mcp"]}, "public_paths", id="RS-2 the resource itself"),
        pytest.param({"public_paths": ["/mcp/*"]}, "public_paths", id="RS-2 the resource and all below"),
        pytest.param({"allowed_origins": "https://a.example"}, "allowed_origins", id="RS-221 a text for a list"),
        pytest.param({"allowed_origins": ["https://a.example/"]}, "allowed_origins", id="RS-221 a path"),
        pytest.param({"allowed_origins": ["a.example"]}, "allowed_origins", id="RS-221 no scheme"),
        pytest.param({"allowed_origins": ["https://*.example"]}, "allowed_origins", id="RS-224 a wildcard"),
        pytest.param({"allowed_origins": ["null"]}, "allowed_origins", id="RS-221 null"),
        pytest.param({"allowed_origins": [5]}, "allowed_origins", id="RS-221 a number"),
        pytest.param({"allowed_hosts": "a.example"}, "allowed_hosts", id="RS-223 a text for a list"),
        pytest.param({"allowed_hosts": ["https://a.example"]}, "allowed_hosts", id="RS-223 a URL"),
        pytest.param({"allowed_hosts": ["*.example"]}, "allowed_hosts", id="RS-224 a wildcard host"),
        pytest.param({"allowed_hosts": ["*"]}, "allowed_hosts", id="RS-224 any host"),
        pytest.param({"allowed_hosts": [None]}, "allowed_hosts", id="RS-223 None"),
    ],
)
def test_a_bad_option_is_a_problem_at_its_name(options: Changes, where: str) -> None:
    assert places(refused(config(), **options)) == [where]


# --- wrong types, as a TOML file or an environment variable may contain them -----------------------------------------


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        pytest.param("policy", "paths", ["/x"], id="paths as a list"),
        pytest.param("policy", "implies", ["a"], id="implies as a list"),
        pytest.param("policy", "request_scope_names", "a", id="request_scope_names as a text"),
        pytest.param("policy", "paths", {5: ["a"]}, id="a number as a path"),
        pytest.param("server", "leeway", "30", id="RS-81 leeway as a text"),
        pytest.param("server", "leeway", None, id="RS-81 leeway as None"),
        pytest.param("server", "jwks", "jwks.json", id="jwks as a file name"),
        pytest.param("server", "jwks", [1], id="jwks as a list"),
        pytest.param("server", "metadata", {"issuer": ISS}, id="metadata as a dict"),
        pytest.param("server", "jwks_uri", 5, id="jwks_uri as a number"),
        pytest.param("server", "algorithms", "RS256", id="algorithms as a text"),
        pytest.param("metadata", "jwks_uri", 5, id="the resource's jwks_uri as a number"),
        pytest.param("metadata", "resource_name", 5, id="resource_name as a number"),
        pytest.param("metadata", "resource_signing_alg_values_supported", 5, id="algorithms as a number"),
        pytest.param("metadata", "bearer_methods_supported", 5, id="bearer methods as a number"),
        pytest.param("metadata", "extra", {"x": object()}, id="extra that is no JSON"),
        pytest.param("metadata", "extra", {"x": float("nan")}, id="RS-56 extra that is no JSON number"),
        pytest.param("metadata", "extra", ["x"], id="extra as a list"),
    ],
)
def test_wrong_types_are_configuration_errors_too(part: str, name: str, value: Any) -> None:
    parts: dict[str, Any] = {part: {name: value}}
    error = refused(config(**parts))
    assert any(f".{name}" in where for where in places(error))


@pytest.mark.parametrize("given", [pytest.param(None, id="None"), pytest.param(5, id="a number")])
def test_resources_of_a_wrong_type_are_a_problem(given: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MCPAuth(given)
    assert places(caught.value) == ["protected_resources"]


# --- all at once ----------------------------------------------------------------------------------------------------


def test_every_problem_is_reported_at_once() -> None:
    bad = ResourceServerConfig(
        metadata=ResourceServerMetadata(
            resource="http://mcp.example.com/mcp",
            authorization_servers=["auth.example.com", AuthServerConfig(issuer=ISS, algorithms=["none"], leeway=999)],
            bearer_methods_supported=["body"],
            dpop_bound_access_tokens_required=True,
        ),
        policy=ScopePolicy(default=["a b"], paths={"x": ["a"]}, implies={"a": ["a"]}),
    )
    error = refused(bad, "no config", public_paths=["x"], allowed_origins=["x"], allowed_hosts=["/"])
    assert sorted(places(error)) == sorted(
        [
            "public_paths",
            "allowed_origins",
            "allowed_hosts",
            "protected_resources[1]",
            f"{META}.resource",
            f"{META}.bearer_methods_supported",
            f"{META}.dpop_bound_access_tokens_required",
            f"{POLICY}.default",
            f"{POLICY}.paths",
            f"{POLICY}.implies",
            SERVER,
            f"{SERVERS}[1].algorithms",
            f"{SERVERS}[1].leeway",
        ]
    )


def test_republishing_is_checked_together_with_other_problems() -> None:
    two = config(metadata={"authorization_servers": [ISS, "https://other.example"]})
    assert places(refused(two, republish_server_metadata=True)) == ["republish_server_metadata"]
    error = refused(two, republish_server_metadata=True, public_paths=["x"])
    assert sorted(places(error)) == ["public_paths", "republish_server_metadata"]


@pytest.mark.requirement("RS-55")
def test_two_resources_with_one_issuer_can_republish() -> None:
    two = [config("https://mcp.example.com/a"), config("https://mcp.example.com/b")]
    assert MCPAuth(two, republish_server_metadata=True)._protection.republished is not None
    assert MCPAuth(two)._protection.republished is None


@pytest.mark.requirement("RS-55")
def test_republishing_works_with_a_custom_verifier() -> None:
    """The single issuer is republished with a custom verifier too."""

    class Own:
        async def verify(self, credential: Any, request: Any) -> Any:
            raise NotImplementedError

    assert MCPAuth(config(), verifier=Own(), republish_server_metadata=True)._protection.republished is not None


# --- several resources ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: MCPAuth(config()), id="one"),
        pytest.param(lambda: MCPAuth([config()]), id="a list of one"),
        pytest.param(lambda: MCPAuth(protected_resources=(config(),)), id="a tuple by name"),
        pytest.param(lambda: MCPAuth(iter([config()])), id="an iterator"),
    ],
)
def test_one_resource_or_several_are_accepted(build: Any) -> None:
    assert [resource.identifier for resource in build()._protection.config.resources] == [R]


@pytest.mark.parametrize(
    ("second", "count"),
    [
        pytest.param(R, 1, id="RS-104 the same"),
        pytest.param("https://MCP.example.com:443/mcp", 1, id="RS-104 the same, written otherwise"),
        pytest.param(f"{R}/", 1, id="RS-104 the same path with a slash"),
        pytest.param("https://other.example.com/mcp", 1, id="RS-104 the same path on another host"),
        pytest.param("https://mcp.example.com/%6dcp", 1, id="RS-104 the same path, encoded"),
    ],
)
def test_two_resources_with_the_same_path_are_a_problem(second: str, count: int) -> None:
    error = refused(config(), config(second))
    assert places(error) == ["protected_resources[1]"] * count
    assert "has the same path as" in error.problems[0].what


def test_no_resource_is_a_problem() -> None:
    assert places(refused()) == ["protected_resources"]


def test_a_value_that_is_not_a_resource_is_a_problem() -> None:
    assert places(refused(config(), ResourceServerMetadata(resource=R))) == ["protected_resources[1]"]


def test_a_rule_below_another_resource_is_a_problem() -> None:
    ruled = config("https://mcp.example.com/a", policy={"paths": {"/b/x": ["s"]}})
    error = refused(ruled, config("https://mcp.example.com/b"))
    (problem,) = error.problems
    assert problem.where.endswith("policy.paths")
    assert "'/b/x'" in problem.what
    assert "https://mcp.example.com/a" in problem.what


def test_resources_may_be_nested() -> None:
    auth = MCPAuth([config("https://h.example"), config("https://h.example/notes")])
    assert [resource.owned_prefix for resource in auth._protection.config.resources] == ["/", "/notes"]
    assert [resource.metadata_url for resource in auth._protection.config.resources] == [
        "https://h.example/.well-known/oauth-protected-resource",
        "https://h.example/.well-known/oauth-protected-resource/notes",
    ]


# --- published and requested scopes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "metadata", "published", "asked"),
    [
        pytest.param({}, {}, ["mcp:read"], ["mcp:read"], id="RS-116 the baseline"),
        pytest.param({"default": []}, {}, None, [], id="RS-36 RS-59 nothing"),
        pytest.param({}, {"scopes_supported": []}, None, ["mcp:read"], id="RS-59 nothing published"),
        pytest.param({}, {"scopes_supported": ["a", "b"]}, ["a", "b"], ["mcp:read"], id="RS-114 published by hand"),
        pytest.param({"challenge_scopes": ["a"]}, {}, ["mcp:read"], ["a"], id="RS-116 another first challenge"),
        pytest.param({"challenge_scopes": []}, {}, ["mcp:read"], [], id="RS-36 an empty first challenge"),
        pytest.param(
            {"request_scope_names": {"mcp:read": "api://x/r"}},
            {},
            ["api://x/r"],
            ["api://x/r"],
            id="RS-111 names on the wire",
        ),
        pytest.param({"default": ["mcp:read", "offline_access"]}, {}, ["mcp:read"], ["mcp:read"], id="RS-60 required"),
        pytest.param({}, {"scopes_supported": ["offline_access", "a"]}, ["a"], ["mcp:read"], id="RS-60 published"),
        pytest.param(
            {"challenge_scopes": ["a", "offline_access"]}, {}, ["mcp:read"], ["a"], id="RS-60 in the first challenge"
        ),
    ],
)
def test_published_scopes_and_challenge_scopes(
    policy: Changes, metadata: Changes, published: list[str] | None, asked: list[str]
) -> None:
    auth = MCPAuth(config(policy=policy, metadata=metadata))
    (resource,) = auth._protection.config.resources
    assert resource.document.members.get("scopes_supported") == published
    assert list(resource.challenge.scope) == asked
    scope = f'scope="{" ".join(asked)}", ' if asked else ""
    answer = resource.challenge.respond(NoCredential(Reason.NO_CREDENTIAL))
    assert dict(answer.headers)[b"www-authenticate"].decode() == f'Bearer {scope}resource_metadata="{PRM}"'
    offline = "offline_access" in str((policy, metadata))
    assert [re.sub(r".*\.(\w+): .*", r"\1", warning) for warning in auth.warnings] == (
        [next(iter({**policy, **metadata}))] if offline else []
    )


def test_metadata_that_announces_an_unenforced_mechanism_is_refused() -> None:
    """Metadata announces only mechanisms that are enforced; a member that announces nothing is accepted."""
    harmless = {
        "bearer_methods_supported": ["header"],
        "dpop_bound_access_tokens_required": False,
        "tls_client_certificate_bound_access_tokens": False,
        "dpop_signing_alg_values_supported": [],
    }
    members = MCPAuth(config(metadata=harmless))._protection.config.resources[0].document.members
    assert members == MCPAuth(config())._protection.config.resources[0].document.members


@pytest.mark.requirement("RS-63")
def test_signed_metadata_needs_a_published_key() -> None:

    def sign(claims: dict[str, Any]) -> str:
        return "not a jws"

    error = refused(config(), metadata_signer=sign)
    assert places(error) == [f"{META}.jwks_uri", f"{META}.signed_metadata"]


# --- warnings -------------------------------------------------------------------------------------------------------


def test_warnings_are_kept_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "asgi_mcp_auth.config")
    auth = MCPAuth(config(f"{R}/", policy={"default": ["offline_access"]}))
    assert auth.warnings == (
        f"{META}.resource: '{R}/' ends with a slash. Remove the slash if possible: some clients drop it.",
        f"{POLICY}.default: offline_access is not asked for. Remove it: clients add it themselves.",
    )
    found = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert found == [("asgi_mcp_auth.config", "WARNING", warning) for warning in auth.warnings]


def test_metadata_without_keys_is_a_warning() -> None:
    by_hand = AuthorizationServerMetadata(issuer=ISS)
    (warning,) = MCPAuth(config(server={"issuer": None, "metadata": by_hand})).warnings
    assert warning.startswith(f"{SERVER}.metadata: It has no jwks_uri: it is discovered on first use.")
    assert MCPAuth(config(server={"issuer": None, "metadata": SERVER_METADATA})).warnings == ()
    assert MCPAuth(config(server={"metadata": by_hand, "jwks_uri": f"{ISS}/jwks"})).warnings == ()


def test_a_good_configuration_has_no_warnings(caplog: pytest.LogCaptureFixture) -> None:
    auth = MCPAuth(config(), public_paths=["/healthz", "/static/*"], allowed_origins=["*"], allowed_hosts=["a:1", "b"])
    assert (auth.warnings, caplog.records) == ((), [])


def test_a_well_known_path_can_be_public() -> None:
    """A well-known path belongs to no resource unless it is public."""
    auth = MCPAuth(config(), public_paths=["/.well-known/security.txt", "/.well-known/acme-challenge/*"])
    table = auth._protection.config.paths
    paths = ("/.well-known/security.txt", "/.well-known/acme-challenge/x", "/.well-known/other")
    assert [table.resolve("GET", path).public for path in paths] == [True, True, False]


# --- the content of messages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"metadata": {"authorization_servers": [object()]}}, id="an object for a server"),
        pytest.param({"metadata": {"scopes_supported": object()}}, id="an object for scopes"),
        pytest.param({"policy": {"default": [lambda: None]}}, id="a function for a scope"),
        pytest.param({"server": {"algorithms": object()}}, id="an object for algorithms"),
        pytest.param({"resource": object()}, id="an object for a resource"),
    ],
)
def test_messages_have_no_addresses(given: dict[str, Any]) -> None:
    """Messages are the same in every run, so that they can be searched for."""
    assert re.search(r"0x[0-9a-f]{6,}", str(refused(config(**given)))) is None


def test_messages_have_no_secrets() -> None:
    secret = SigningKey("ES256").jwk | {"d": "c3VwZXItc2VjcmV0"}
    server: Any = {"issuer": ISS, "jwks": {"keys": [secret]}}
    first = refused(config(metadata={"authorization_servers": [server]}))
    second = refused(config(server={"jwks": {"keys": [secret]}}))
    third = refused(config("https://user:hunter2@mcp.example.com/mcp"))
    fourth = refused(config(server={"jwks_uri": "https://user:hunter2@auth.example.com/jwks"}))
    messages = [str(error) for error in (first, second, third, fourth)]
    assert [("c3VwZXItc2VjcmV0" in text, "hunter2" in text) for text in messages] == [(False, False)] * 4


def test_messages_are_short() -> None:
    """A long value, for example the content of a file, is cut."""
    error = refused(config("x" * 100_000), allowed_origins=["y" * 100_000], public_paths=["z" * 100_000])
    assert len(str(error)) < 5_000


# --- the middleware -------------------------------------------------------------------------------------------------


def test_the_shorthand_is_the_same_configuration() -> None:
    short = MCPAuthMiddleware(
        RecordingApp(), resource=R, authorization_servers=[ISS], required_scopes=["mcp:read"], public_paths=["/x"]
    )
    long = MCPAuth(config(), public_paths=["/x"])
    assert short.auth.configs == long.configs
    assert short.auth._protection.config.resources[0].document == long._protection.config.resources[0].document
    assert long.wrap(RecordingApp()).auth is long


@pytest.mark.parametrize(
    ("settings_beside", "wheres"),
    [
        pytest.param({"resource": R}, ["auth"], id="a resource"),
        pytest.param({"authorization_servers": [ISS]}, ["auth"], id="servers"),
        pytest.param({"required_scopes": ["a"]}, ["auth"], id="scopes"),
        pytest.param({"public_paths": ["/x"]}, ["auth"], id="an option"),
        pytest.param({"websockets": True}, ["auth"], id="an option with its default value"),
    ],
)
def test_auth_excludes_the_shorthand_arguments(settings_beside: Any, wheres: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MCPAuthMiddleware(RecordingApp(), auth=MCPAuth(config()), **settings_beside)
    assert places(caught.value) == wheres


def test_a_middleware_without_arguments_is_a_problem() -> None:
    with pytest.raises(ConfigurationError) as caught:
        MCPAuthMiddleware(RecordingApp())
    assert places(caught.value) == ["resource", "authorization_servers"]


def test_an_unknown_option_is_a_problem() -> None:
    """A misspelt option is a problem of the configuration like any other problem."""
    options: Any = {"public_path": ["/x"], "required_scope": ["a"]}
    with pytest.raises(ConfigurationError) as caught:
        MCPAuthMiddleware(RecordingApp(), resource=R, authorization_servers=[ISS], **options)
    assert [str(problem) for problem in caught.value.problems] == [
        "public_path: Unknown option. Did you mean public_paths?",
        "required_scope: Unknown option. Did you mean required_scopes?",
    ]


def test_the_options_are_those_of_mcpauth() -> None:
    assert set(MCPAuthOptions.__annotations__) < set(MiddlewareOptions.__annotations__)
    assert not MiddlewareOptions.__required_keys__


@pytest.mark.parametrize(
    "annotated",
    [
        pytest.param(MCPAuthOptions, id="options"),
        pytest.param(MCPAuth.__init__, id="MCPAuth"),
        pytest.param(MCPAuthMiddleware.__init__, id="MCPAuthMiddleware"),
    ],
)
def test_annotations_are_resolvable_at_run_time(annotated: Any) -> None:
    """Frameworks that inject dependencies and documentation tools resolve annotations."""
    assert get_type_hints(annotated)


def test_mcpauth_documents_every_parameter() -> None:
    documented = re.findall(r"^    (\w+): ", inspect.getdoc(MCPAuth) or "", re.MULTILINE)
    assert documented == [
        "protected_resources",
        *MCPAuthOptions.__annotations__,
        *("configs", "warnings"),
        "ConfigurationError",
    ]


def test_the_middleware_documents_every_parameter() -> None:
    documented = re.findall(r"^    (\w+): ", inspect.getdoc(MCPAuthMiddleware) or "", re.MULTILINE)
    assert documented == ["app", "auth", *MiddlewareOptions.__annotations__, "auth", "ConfigurationError"]


# --- any text -------------------------------------------------------------------------------------------------------

urls = (
    st.sampled_from([R, ISS, "http://127.0.0.1:1/x", "https://", "http://h", "urn:x", "", "https://h/../x"]) | st.text()
)


@settings(max_examples=150, deadline=None)
@given(urls, urls, st.lists(st.text(max_size=5), max_size=2), st.tuples(*[st.text(max_size=8)] * 3))
def test_any_text_is_accepted_or_is_a_configuration_error(
    resource: str, issuer: str, scopes: list[str], texts: tuple[str, str, str]
) -> None:
    path, origin, host = texts
    changed = config(
        resource, metadata={"authorization_servers": [issuer]}, policy={"default": scopes, "paths": {path: ()}}
    )
    try:
        auth = MCPAuth(changed, public_paths=[path], allowed_origins=[origin], allowed_hosts=[host])
    except ConfigurationError as error:
        assert error.problems  # noqa: PT017 - the other outcome is asserted below
        return
    answer = auth._protection.config.resources[0].challenge.respond(NoCredential(Reason.NO_CREDENTIAL))
    challenge = dict(answer.headers)[b"www-authenticate"]
    assert challenge.isascii()


@pytest.mark.parametrize(
    ("resource", "host", "warned"),
    [
        pytest.param("http://127.0.0.1:8000/mcp", "0.0.0.0", True, id="RS-227 every interface"),
        pytest.param("http://localhost:8000/mcp", "::", True, id="RS-227 every IPv6 interface"),
        pytest.param("http://127.0.0.1:8000/mcp", "192.0.2.1", True, id="RS-227 one of the network"),
        pytest.param("http://127.0.0.1:8000/mcp", "127.0.0.1", False, id="RS-227 loopback"),
        pytest.param("http://127.0.0.1:8000/mcp", "::1", False, id="RS-227 IPv6 loopback"),
        pytest.param("http://127.0.0.1:8000/mcp", "localhost", False, id="RS-227 localhost"),
        pytest.param("https://mcp.example.com/mcp", "0.0.0.0", False, id="RS-227 a public resource"),
    ],
)
def test_a_loopback_resource_on_a_public_address_is_a_warning(
    resource: str, host: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    auth = MCPAuth(config(resource))
    caplog.clear()
    warning = auth.check_bind(host)
    expected = f"{resource} is a loopback resource, but other machines can connect to {host}." if warned else None
    assert warning == expected
    assert [record.getMessage() for record in caplog.records] == ([warning] if warned else [])


def test_a_resource_with_repeated_percent_encoding_is_a_problem() -> None:
    (problem,) = refused(config("https://mcp.example.com/%" + "25" * 20 + "41")).problems
    assert problem.where.endswith(".metadata.resource")
    assert "canonical" in problem.what


@pytest.mark.parametrize(
    "scope", [pytest.param("x?scope=y", id="RS-37 scope"), pytest.param("error=a", id="RS-37 error")]
)
def test_a_scope_that_looks_like_a_challenge_parameter_is_a_warning(scope: str) -> None:
    warnings = MCPAuth(config(policy={"default": [scope]})).warnings
    assert any("looks like a parameter of a challenge" in warning for warning in warnings)


async def async_observer(decision: Decision) -> None: ...


@pytest.mark.parametrize(
    ("options", "where"),
    [
        pytest.param({"on_decision": print}, "on_decision", id="one callable for a list"),
        pytest.param({"on_decision": [5]}, "on_decision", id="an observer that cannot be called"),
        pytest.param({"on_decision": [async_observer]}, "on_decision", id="an observer that would never be awaited"),
        pytest.param({"is_revoked": MemoryStore()}, "is_revoked", id="RS-88 a store"),
        pytest.param({"is_revoked": RecordingApp}, "is_revoked", id="RS-88 the class"),
        pytest.param({"verifier": print}, "verifier", id="RS-9 a function for a verifier"),
        pytest.param({"http_client": httpx.Client()}, "http_client", id="DC-7 a client for a factory"),
        pytest.param({"metadata_signer": "key"}, "metadata_signer", id="RS-63 a key"),
        pytest.param({"clock": 5.0}, "clock", id="a number for a clock"),
        pytest.param({"token_cache_size": -1}, "token_cache_size", id="RS-89 a negative size"),
        pytest.param({"token_cache_size": "many"}, "token_cache_size", id="RS-89 a text"),
        pytest.param({"websockets": "no"}, "websockets", id="RS-4 a text for a switch"),
        pytest.param({"expose_token": 1}, "expose_token", id="RS-240 a number for a switch"),
    ],
)
def test_a_hook_switch_or_size_of_a_wrong_type_is_a_problem(options: Changes, where: str) -> None:
    assert places(refused(config(), **options)) == [where]


def test_a_value_that_is_not_a_configuration_is_one_problem() -> None:
    given: Any = R
    with pytest.raises(ConfigurationError) as caught:
        MCPAuth(given)
    assert places(caught.value) == ["protected_resources"]


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        pytest.param((None,), "app", id="no app"),
        pytest.param((RecordingApp(), config()), "auth", id="a configuration for an MCPAuth"),
    ],
)
def test_wrong_arguments_of_the_middleware_are_problems(arguments: tuple[Any, ...], where: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MCPAuthMiddleware(*arguments)
    assert places(caught.value) == [where]


def test_the_url_of_a_metadata_document_is_not_an_issuer() -> None:
    (problem,) = refused(
        config(metadata={"authorization_servers": [f"{ISS}/.well-known/openid-configuration"]})
    ).problems
    assert (problem.where, "metadata document" in problem.what) == (SERVER, True)


@pytest.mark.parametrize(
    ("path", "warned"),
    [
        pytest.param("/export", True, id="beside the resource"),
        pytest.param("/mcpx", True, id="a longer name"),
        pytest.param("/mcp/export", False, id="below the resource"),
        pytest.param("/mcp", False, id="the resource itself"),
    ],
)
def test_a_path_rule_outside_a_single_resource_is_a_warning(path: str, warned: bool) -> None:
    warnings = MCPAuth(config(policy={"paths": {path: ["x"]}})).warnings
    assert any(warning.startswith("policy.paths") for warning in warnings) == warned


def test_an_unknown_method_in_a_rule_is_a_problem() -> None:
    """A rule for an unknown method would never apply."""
    assert places(refused(config(policy={"paths": {"PSOT /mcp": ["x"]}}))) == [f"{POLICY}.paths"]


def test_a_signer_that_raises_is_a_problem() -> None:
    def fail(claims: dict[str, Any]) -> str:
        raise RuntimeError(min(claims))

    (problem,) = refused(config(), metadata_signer=fail).problems
    assert (problem.where, problem.what) == (
        "metadata_signer",
        "The signer raised RuntimeError: 'authorization_servers'.",
    )
