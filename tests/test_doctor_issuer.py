"""The doctor at authorization servers: over real HTTP, one fault at a time, with the code that each fault must give."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from clinic import OAUTH, OIDC, Clinic, answering, diagnose, for_browsers, names, problems
from processes import authorization_server, free_port, require_authorization_server

from asgi_mcp_auth.doctor import Severity, examine
from asgi_mcp_auth.testing import Issuer, SigningKey

NOTHING: set[str] = set()


@pytest.fixture
def issuer(clinic: Clinic) -> Issuer:
    return clinic.issuer


def test_a_healthy_issuer_has_no_error_and_no_warning(issuer: Issuer) -> None:
    report = diagnose(issuer.url)
    assert report.kind == "issuer"
    assert problems(report) == NOTHING
    assert names(report.findings, Severity.OK) == {
        *("metadata_found", "pkce_supported", "registration_supported", "keys_usable"),
    }
    assert names(report.findings, Severity.INFO) == {"resource_parameter_unknown"}


def member(name: str, value: Any) -> Callable[[Issuer], None]:
    def change(issuer: Issuer) -> None:
        issuer.metadata[name] = value
        if value is None:
            del issuer.metadata[name]

    return change


def published(*keys: Any) -> Callable[[Issuer], None]:
    """Publish a key set with a usable key and these entries."""

    def change(issuer: Issuer) -> None:
        issuer.answer("/jwks", {"keys": [issuer.keys[0].jwk, *keys]}, headers={"cache-control": "max-age=600"})

    return change


def served(path: str, body: object, **options: Any) -> Callable[[Issuer], None]:
    return lambda issuer: issuer.answer(path, body, **options)


def coded(coding: str, body: bytes) -> Callable[[Issuer], None]:
    return served(OAUTH, body, headers={"content-encoding": coding})


def failing(path: str, status: int) -> Callable[[Issuer], None]:
    return lambda issuer: issuer.fail(path, status=status)


def kept(seconds: str | None) -> Callable[[Issuer], None]:
    def change(issuer: Issuer) -> None:
        issuer.cache_control = seconds

    return change


def key(kind: str = "ES256", **members: Any) -> dict[str, Any]:
    changed = {**SigningKey(kind).jwk, **members}
    return {name: value for name, value in changed.items() if value is not ...}


def same_kid(issuer: Issuer) -> None:
    published(key("RS256", kid=issuer.keys[0].kid))(issuer)


def second_url(issuer: Issuer) -> None:
    """Serve the metadata at the second well-known URL only."""
    issuer.answer(OAUTH, {}, status=404)


def slash(issuer: Issuer) -> None:
    issuer.metadata["issuer"] += "/"


ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

# description, fault, code, severity
FAULTS: list[tuple[str, Callable[[Issuer], None], str, Severity]] = [
    ("DC-2 another issuer", member("issuer", "https://other.example"), "issuer_mismatch", ERROR),
    ("DC-2 a slash more", slash, "issuer_trailing_slash", ERROR),
    ("DC-3 a wrong type", member("scopes_supported", "all"), "metadata_invalid", WARNING),
    ("DC-3 a wrong item", member("ui_locales_supported", [None]), "metadata_invalid", WARNING),
    ("DC-3 a jwks_uri that is a number", member("jwks_uri", 1), "metadata_invalid", ERROR),
    ("DC-3 HTML", served(OAUTH, b"<!doctype html>", content_type="text/html"), "html_instead_of_json", ERROR),
    ("DC-3 HTML that says it is JSON", served(OAUTH, b" <html>"), "html_instead_of_json", ERROR),
    ("DC-3 no JSON", served(OAUTH, b"{"), "not_json", ERROR),
    ("DC-3 a list", served(OAUTH, b"[]"), "not_json", ERROR),
    ("DC-3 a member twice", served(OAUTH, b'{"issuer": 1, "issuer": 2}'), "not_json", ERROR),
    ("DC-3 keys with a member twice", served("/jwks", b'{"keys": [], "keys": []}'), "json_not_strict", WARNING),
    ("DC-3 too large", served(OAUTH, b" " * 600_000), "too_large", ERROR),
    ("DC-3 damaged gzip", coded("gzip", b"x"), "content_not_decoded", ERROR),
    ("DC-3 cut gzip", coded("gzip", gzip.compress(b"{}")[:-4]), "content_not_decoded", ERROR),
    ("DC-3 gzip members", coded("gzip", gzip.compress(b"{") + gzip.compress(b"}")), "content_not_decoded", ERROR),
    ("DC-3 an unknown coding", coded("br", b"x"), "content_not_decoded", ERROR),
    ("DC-3 gzip that decodes to too much", coded("gzip", gzip.compress(b" " * 50_000_000)), "too_large", ERROR),
    ("DC-3 5xx", failing(OAUTH, 502), "error_status", ERROR),
    ("DC-5 a redirect", served(OAUTH, b"", status=302, headers={"location": "/x"}), "redirected", ERROR),
    ("DC-1 the second URL only", second_url, "oauth_place_missing", INFO),
    ("DC-16 no PKCE", member("code_challenge_methods_supported", None), "pkce_not_supported", ERROR),
    (
        "DC-16 plain PKCE only",
        member("code_challenge_methods_supported", ["plain"]),
        "s256_code_challenge_method_not_supported",
        ERROR,
    ),
    ("AS-3 no code", member("response_types_supported", ["token"]), "code_response_type_not_supported", ERROR),
    ("no code grant", member("grant_types_supported", ["implicit"]), "authorization_code_grant_not_supported", ERROR),
    ("no authorization endpoint", member("authorization_endpoint", None), "machines_only", INFO),
    ("no token endpoint", member("token_endpoint", None), "no_token_endpoint", ERROR),
    ("AS-49 no documents", member("client_id_metadata_document_supported", None), "client_id_metadata_document_not_supported", INFO),
    ("AS-40 no registration", member("registration_endpoint", None), "dynamic_registration_not_supported", INFO),
    ("AS-49 no method none", member("token_endpoint_auth_methods_supported", ["client_secret_basic"]), "public_clients_not_supported", WARNING),
    ("AS-16 no iss", member("authorization_response_iss_parameter_supported", False), "iss_parameter_not_supported", INFO),
    ("DC-4 an http endpoint", member("token_endpoint", "http://auth.example.com/token"), "not_https", ERROR),
    ("DC-13 no key set", member("jwks_uri", None), "no_jwks_uri", ERROR),
    ("no keys", served("/jwks", {"keys": []}), "key_set_refused", ERROR),
    ("no list of keys", served("/jwks", {}), "key_set_refused", ERROR),
    ("too many keys", served("/jwks", {"keys": [0] * 101}), "key_set_refused", ERROR),
    ("keys in HTML", served("/jwks", b"<html>"), "html_instead_of_json", ERROR),
    ("keys as text", served("/jwks", b'{"keys": []}', content_type="text/plain"), "wrong_content_type", WARNING),
    ("no answer with keys", lambda issuer: issuer.cut("/jwks"), "unreachable", ERROR),
    ("DC-11 a private key", published(key("ES256", d="AA")), "private_key_published", ERROR),
    ("DC-11 only a private key", served("/jwks", {"keys": [key("ES256", d="AA")]}), "private_key_published", ERROR),
    ("DC-11 a shared secret", published({"kty": "oct", "k": "AA", "kid": "s"}), "symmetric_key_published", ERROR),
    ("DC-11 a short key", published(SigningKey("RS256", bits=1024).jwk), "weak_key", WARNING),
    ("DC-11 for encryption", published(key(use="enc", alg="RSA-OAEP")), "encryption_key", INFO),
    ("DC-11 an unknown kind", published({"kty": "AKP", "kid": "pq"}), "unusable_key", INFO),
    ("DC-11 a number", published(1), "unusable_key", INFO),
    ("one kid twice", same_kid, "duplicate_kid", ERROR),
    ("RS-76 a key without kid", published(key("ES256", kid=...)), "key_without_kid", WARNING),
    ("DC-12 a key without alg", published(key(alg=...)), "key_without_alg", INFO),
    ("DC-8 no-store", kept("no-store"), "not_cacheable", INFO),
    ("DC-8 no Cache-Control", kept(None), "not_cacheable", INFO),
    ("DC-8 for a month", kept("max-age=2592000"), "long_lifetime", WARNING),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "code", "severity"), [pytest.param(*rest, id=description) for description, *rest in FAULTS]
)
def test_a_fault_is_found(issuer: Issuer, fault: Callable[[Issuer], None], code: str, severity: Severity) -> None:
    fault(issuer)
    report = diagnose(issuer.url, kind="issuer")
    assert code in names(report.findings, severity)
    (finding, *_) = [finding for finding in report.findings if finding.code.name == code]
    assert finding.subject.startswith(issuer.url)
    assert finding.fix or severity is INFO
    others = problems(report) - {code}
    consequences = {"metadata_not_found", "key_set_refused", "no_registration"}
    assert others <= consequences


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        pytest.param("Identity", bytes, id="Identity"),
        pytest.param("", bytes, id="empty"),
        pytest.param("gzip", gzip.compress, id="gzip"),
        pytest.param("GZIP", gzip.compress, id="GZIP"),
        pytest.param("deflate", zlib.compress, id="deflate"),
    ],
)
def test_content_codings_that_the_middleware_reads_are_no_finding(
    issuer: Issuer, coding: str, encode: Callable[[bytes], bytes]
) -> None:
    coded(coding, encode(json.dumps(issuer.metadata).encode()))(issuer)
    report = diagnose(issuer.url)
    assert problems(report) == NOTHING
    assert "metadata_found" in names(report.findings, Severity.OK)


def test_members_of_a_wrong_type_do_not_hide_other_findings(issuer: Issuer) -> None:
    issuer.metadata |= {"ui_locales_supported": "en", "userinfo_endpoint": False}
    del issuer.metadata["code_challenge_methods_supported"]
    report = diagnose(issuer.url)
    assert problems(report) == {"metadata_invalid", "pkce_not_supported"}
    assert "keys_usable" in names(report.findings, Severity.OK)
    (finding,) = [finding for finding in report.findings if finding.code.name == "metadata_invalid"]
    assert finding.evidence == "wrong JSON type: ui_locales_supported, userinfo_endpoint"


# prefix of the body, prefix of the members
LENIENT = [
    pytest.param("\ufeff", "", id="B1 a byte order mark"),
    pytest.param("", '"x": 1, "x": 2, ', id="B1 a repeated member"),
    pytest.param("", '"x": NaN, ', id="B1 NaN"),
]


@pytest.mark.parametrize(("before", "members"), LENIENT)
def test_json_that_only_strict_parsers_reject_is_a_warning(issuer: Issuer, before: str, members: str) -> None:
    issuer.answer(OAUTH, f"{before}{{{members}{json.dumps(issuer.metadata)[1:]}".encode())
    report = diagnose(issuer.url)
    assert problems(report) == {"json_not_strict"}
    assert "keys_usable" in names(report.findings, Severity.OK)


def test_the_evidence_says_how_many_urls_clients_try(issuer: Issuer) -> None:
    (finding,) = [finding for finding in diagnose(issuer.url).findings if finding.code.name == "metadata_found"]
    assert finding.evidence == "clients try 2 URLs; this is number 1"


def test_an_issuer_without_registration_and_documents(issuer: Issuer) -> None:
    del issuer.metadata["registration_endpoint"], issuer.metadata["client_id_metadata_document_supported"]
    assert problems(diagnose(issuer.url)) == {"no_registration"}


@pytest.mark.parametrize(
    ("path", "what"), [(OAUTH, "metadata"), ("/token", "token endpoint"), ("/register", "registration"), ("/jwks", "key set")]
)  # fmt: skip
def test_AS_5_urls_without_cors_are_reported(clinic: Clinic, path: str, what: str) -> None:  # noqa: N802
    allowed, refused = for_browsers(clinic.issuer), clinic.issuer

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (refused if scope["path"] == path else allowed)(scope, receive, send)

    clinic.authority.app = app
    findings = [f for f in diagnose(clinic.issuer.url).findings if f.code.name == "no_cors"]
    assert [finding.evidence.partition(":")[0] for finding in findings] == [what]
    assert findings[0].severity is (INFO if path == "/jwks" else WARNING)


def test_a_preflight_that_does_not_allow_the_header_is_reported(clinic: Clinic) -> None:
    fields = [("access-control-allow-origin", "*"), ("access-control-allow-headers", "content-type")]
    preflights, usual = answering(204, fields), for_browsers(clinic.issuer)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (preflights if scope["method"] == "OPTIONS" else usual)(scope, receive, send)

    clinic.authority.app = app
    (finding,) = [f for f in diagnose(clinic.issuer.url).findings if f.code.name == "no_cors"]
    assert "does not list mcp-protocol-version" in finding.evidence


def test_a_server_that_rejects_origins_is_asked_without_an_origin(clinic: Clinic) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        refused = any(name == b"origin" for name, _ in scope["headers"])
        await (answering(403) if refused else clinic.issuer)(scope, receive, send)

    clinic.authority.app = app
    report = diagnose(clinic.issuer.url)
    assert "metadata_found" in names(report.findings, Severity.OK)
    assert problems(report) == {"no_cors"}


def test_missing_metadata_lists_every_url_that_was_tried(clinic: Clinic) -> None:
    clinic.authority.app = answering(404)
    report = diagnose(f"{clinic.issuer.url}/tenant", kind="issuer")
    assert names(report.findings, ERROR) == {"metadata_not_found"}
    (finding,) = [finding for finding in report.findings if finding.severity is ERROR]
    base = clinic.issuer.url
    urls = [f"{base}{OAUTH}/tenant", f"{base}{OIDC}/tenant", f"{base}/tenant{OIDC}"]
    assert finding.evidence == ", ".join(f"404 at {url}" for url in urls)


def test_a_server_that_does_not_run_is_unreachable() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    report = diagnose(url, kind="issuer")
    assert [finding.code.name for finding in report.findings if finding.severity is ERROR] == ["unreachable"]
    assert (diagnose(url).kind, problems(diagnose(url))) == (None, {"unreachable"})


def test_a_server_that_never_responds_is_given_up_after_three_requests(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_mcp_auth._keys.http.TOTAL_SECONDS", 0.2)
    clinic.issuer.stall()
    report = diagnose(f"{clinic.issuer.url}/tenant")
    clinic.issuer.heal()
    assert problems(report) == {"unreachable"}
    assert sum(clinic.issuer.requests.values()) == 3


@pytest.mark.requirement("DC-16")
def test_metadata_at_a_url_that_clients_do_not_try(clinic: Clinic, tmp_path: Any) -> None:
    """The configuration names the URL, so tokens can be verified, but clients cannot sign in."""
    clinic.issuer.answer("*/.well-known/*", {}, status=404)
    clinic.issuer.answer("/meta.json", clinic.issuer.metadata)
    file = tmp_path / "mcp-auth.toml"
    server = f'{{issuer = "{clinic.issuer.url}", metadata_url = "{clinic.issuer.url}/meta.json"}}'
    file.write_text(f'resource = "http://127.0.0.1:1/mcp"\nauthorization_servers = [{server}]\n')
    report = diagnose(str(file))
    assert problems(report) == {"metadata_elsewhere"}


@pytest.mark.requirement("DC-6")
def test_a_key_set_at_a_private_address_that_another_host_names(clinic: Clinic) -> None:
    """URLs that the user did not name are not requested inside the user's network."""
    clinic.issuer.metadata["jwks_uri"] = "https://10.1.2.3/jwks"
    (finding,) = [f for f in diagnose(clinic.issuer.url).findings if f.severity is WARNING]
    assert (finding.code.name, finding.subject) == ("not_asked", "https://10.1.2.3/jwks")


# issuer, codes that must be among its findings; nothing answers there
KNOWN = [
    pytest.param("https://login.microsoftonline.com/x/v2.0", {"provider_recognised", "resource_parameter_not_supported"}, id="Entra"),
    pytest.param("https://tenant.eu.auth0.com/", {"provider_recognised", "resource_parameter_setting"}, id="Auth0"),
    pytest.param("https://tenant.logto.app/oidc", {"provider_recognised", "resource_parameter_supported"}, id="Logto"),
    pytest.param("https://accounts.google.com", {"provider_unusable"}, id="Google"),
    pytest.param("https://dev-1.okta.com", {"provider_unusable"}, id="Okta org"),
    pytest.param("https://auth.example.com", {"resource_parameter_unknown"}, id="unknown provider"),
]  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize(("url", "expected"), KNOWN)
async def test_the_provider_is_recognised_by_the_issuer(url: str, expected: set[str]) -> None:
    stand_in = Issuer(url)
    (report,) = await examine([url], "issuer", http_client=stand_in.http_client)
    about_provider = {"provider_recognised", "provider_unusable"} | {
        f"resource_parameter_{word}" for word in ("unknown", "supported", "setting", "not_supported")
    }
    assert names(report.findings, *Severity) & about_provider == expected


@pytest.mark.requirement("DC-14")
@pytest.mark.anyio
async def test_protected_resources_without_the_resource_is_reported(tmp_path: Any) -> None:
    issuer = Issuer()
    issuer.metadata["protected_resources"] = ["https://other.example.com/mcp"]
    file = tmp_path / "mcp-auth.toml"
    file.write_text(f'resource = "https://mcp.example.com/mcp"\nauthorization_servers = ["{issuer.url}"]\n')
    (report,) = await examine([str(file)], http_client=issuer.http_client)
    assert "resource_not_listed" in names(report.findings, WARNING)


# description, the server's scopes_supported, the scopes that are missing there
SCOPES = [
    pytest.param(["openid", "mcp:read"], None, id="D5 all listed"),
    pytest.param(None, None, id="D5 not stated"),
    pytest.param(["openid"], "mcp:read", id="D5 missing"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("supported", "missing"), SCOPES)
async def test_advertised_scopes_that_the_server_does_not_list_are_a_warning(
    tmp_path: Any, supported: list[str] | None, missing: str | None
) -> None:
    issuer = Issuer()
    issuer.metadata["scopes_supported"] = supported
    file = tmp_path / "mcp-auth.toml"
    file.write_text(
        f'resource = "https://mcp.example.com/mcp"\nauthorization_servers = ["{issuer.url}"]\n'
        'required_scopes = ["mcp:read"]\n'
    )
    (report,) = await examine([str(file)], http_client=issuer.http_client)
    unlisted = [finding for finding in report.findings if finding.code.name == "scopes_not_listed"]
    assert [finding.severity for finding in unlisted] == ([] if missing is None else [WARNING])
    assert all(f"advertises {missing};" in f.evidence and "required_scopes=" in f.fix for f in unlisted)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("mode", "listed", "found"),
    [
        pytest.param("required", ["ES256"], False, id="RS-139 an algorithm in common"),
        pytest.param("allowed", ["RS256"], True, id="RS-139 no algorithm in common"),
        pytest.param("allowed", None, True, id="RS-139 no DPoP"),
        pytest.param("off", None, False, id="RS-139 off"),
    ],
)
async def test_a_server_without_dpop_is_a_warning_where_the_resource_accepts_it(
    tmp_path: Any, mode: str, listed: list[str] | None, found: bool
) -> None:
    issuer = Issuer()
    issuer.metadata["dpop_signing_alg_values_supported"] = listed
    file = tmp_path / "mcp-auth.toml"
    file.write_text(
        f'resource = "https://mcp.example.com/mcp"\nauthorization_servers = ["{issuer.url}"]\ndpop = "{mode}"\n'
    )
    (report,) = await examine([str(file)], http_client=issuer.http_client)
    names = [finding.code.name for finding in report.findings if finding.severity is WARNING]
    assert ("issuer_without_dpop" in names) is found


@pytest.mark.anyio
@pytest.mark.requirement("RS-152")
@pytest.mark.parametrize(
    ("accepts", "announced", "found"),
    [(True, True, False), (True, None, True), (True, "true", True), (False, None, False)],
)
async def test_a_server_without_certificates_is_a_warning_where_the_resource_accepts_them(
    tmp_path: Any, accepts: bool, announced: Any, found: bool
) -> None:
    issuer = Issuer()
    issuer.metadata["tls_client_certificate_bound_access_tokens"] = announced
    file = tmp_path / "mcp-auth.toml"
    source = "[client_certificates]" if accepts else ""
    file.write_text(f'resource = "https://mcp.example.com/mcp"\nauthorization_servers = ["{issuer.url}"]\n{source}\n')
    (report,) = await examine([str(file)], http_client=issuer.http_client)
    names = [finding.code.name for finding in report.findings if finding.severity is WARNING]
    assert ("issuer_without_mtls" in names) is found


def test_a_real_authorization_server() -> None:
    """oidc-provider has no CORS by default; nothing else is wrong."""
    require_authorization_server()
    with authorization_server(path="/tenant1") as server:
        report = diagnose(server.issuer)
    assert report.kind == "issuer"
    assert names(report.findings, ERROR) == NOTHING
    assert names(report.findings, WARNING) <= {"no_cors", "no_registration"}
    assert {"metadata_found", "keys_usable"} <= names(report.findings, Severity.OK)


def test_the_evidence_is_escaped_and_bounded(issuer: Issuer) -> None:
    issuer.metadata["issuer"] = "https://\x1b[31m\u202e" + "x" * 2000
    report = diagnose(issuer.url, kind="issuer")
    for finding in report.findings:
        assert len(finding.evidence) <= 500
        assert finding.evidence.isascii()
        assert finding.evidence.isprintable()
    assert any(r"says https://\x1b[31m\u202exx" in finding.evidence for finding in report.findings)


def test_a_configured_static_key_set_is_checked(clinic: Clinic, tmp_path: Any) -> None:
    file = tmp_path / "mcp-auth.toml"
    good, weak = (
        json.dumps(key.jwk).replace('": ', '" = ') for key in (clinic.issuer.keys[0], SigningKey("RS256", bits=1024))
    )
    jwks = f"jwks = {{keys = [{good}, {weak}]}}"
    server = f'{{issuer = "{clinic.issuer.url}", {jwks}}}'
    file.write_text(f'resource = "http://127.0.0.1:1/mcp"\nauthorization_servers = [{server}]\n')
    assert problems(diagnose(str(file))) == {"weak_key"}
