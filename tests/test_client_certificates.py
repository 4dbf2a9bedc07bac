"""Tokens bound to a client certificate (mutual TLS, RFC 8705) through the whole pipeline."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from harness import CH0, PRM_PATH, Clock, R, RecordingApp, bearer, call, cht, lines, protect, token, websocket
from test_certificates import B64, HEX, PEM, THUMBPRINT, certificate

from asgi_mcp_auth import (
    ApiKeys,
    AuthInfo,
    Choose,
    ClientCertificates,
    ConfigurationError,
    Credential,
    Introspection,
    MCPAuth,
    Reason,
    RequestInfo,
    ResourceServerConfig,
    ResourceServerMetadata,
    TrustedTokenHeader,
    Verified,
)
from asgi_mcp_auth.cli import main
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio

PROXY, CLIENT = ("10.0.0.7", 4711), ("203.0.113.9", 4711)
PROXIES: Final = ["10.0.0.0/8"]
FIELD = "Client-Cert"
OWN: Final = f":{B64.decode()}:"
SOURCE: Final = ClientCertificates(header=FIELD, proxies=PROXIES)
NGINX: Final = ClientCertificates(header="X-Client-Cert", format="escaped-pem", proxies=PROXIES)
ENVOY: Final = ClientCertificates(header="X-Forwarded-Client-Cert", proxies=PROXIES)
EXTENSION: Final = ClientCertificates()


def other_pem() -> bytes:

    return certificate("other").public_bytes(Encoding.PEM)


OTHER: Final = other_pem()
ESCAPED: Final = quote(PEM, safe="")


def tls(*chain: bytes) -> dict[str, Any]:
    return {"extensions": {"tls": {"client_cert_chain": [pem.decode() for pem in chain], "client_cert_error": None}}}


@pytest.fixture
def issuer() -> Issuer:
    return Issuer(clock=Clock(), algorithms=("ES256",))


@pytest.fixture
def app() -> RecordingApp:
    return RecordingApp()


def bound(issuer: Issuer, thumbprint: str = THUMBPRINT, **changes: Any) -> str:
    return token(issuer, cnf={"x5t#S256": thumbprint}, **changes)


def headers(access_token: str, *fields: tuple[str, str | bytes]) -> list[tuple[str, str | bytes]]:
    return lines(bearer(access_token), fields)


MISSING, MISMATCH = Reason.CLIENT_CERTIFICATE_MISSING, Reason.CLIENT_CERTIFICATE_MISMATCH

ACCEPTED = [
    pytest.param(SOURCE, PROXY, [(FIELD, OWN)], {}, id="RS-151 Client-Cert"),
    pytest.param(SOURCE, PROXY, [("client_cert", OWN)], {}, id="RS-151 Client-Cert with an underscore"),
    pytest.param(SOURCE, PROXY, [(FIELD, OWN)], tls(OTHER), id="RS-151 the extension is not read if a field is named"),
    pytest.param(NGINX, PROXY, [("X-Client-Cert", ESCAPED)], {}, id="RS-151 nginx"),
    pytest.param(ENVOY, PROXY, [("X-Forwarded-Client-Cert", f"Hash={HEX}")], {}, id="RS-151 Envoy"),
    pytest.param(EXTENSION, CLIENT, [], tls(PEM), id="RS-151 the TLS extension"),
    pytest.param(EXTENSION, CLIENT, [], tls(PEM, OTHER), id="RS-151 the first of a chain"),
    pytest.param(EXTENSION, CLIENT, [(FIELD, ":AAAA:")], tls(PEM), id="RS-151 no field is read with the extension"),
]


@pytest.mark.requirement("RS-150", "RS-153")
@pytest.mark.parametrize(("source", "client", "fields", "scope"), ACCEPTED)
async def test_a_token_with_its_certificate_passes_each_time(
    issuer: Issuer, source: ClientCertificates, client: Any, fields: Any, scope: Any
) -> None:
    app = RecordingApp()
    protected, access = protect(issuer, app, client_certificates=source), bound(issuer)
    for _ in range(2):  # the second time from the token cache
        answer = await call(protected, headers=headers(access, *fields), client=client, **scope)
        assert answer.status == 200
    assert app.calls == 2


REFUSED = [
    pytest.param(SOURCE, PROXY, [], {}, MISSING, id="RS-150 no field"),
    pytest.param(SOURCE, PROXY, [(FIELD, "")], {}, MISSING, id="RS-150 an empty field"),
    pytest.param(SOURCE, PROXY, [(FIELD, f":{B64.decode()}")], {}, MISSING, id="RS-151 a malformed field"),
    pytest.param(SOURCE, PROXY, [(FIELD, OWN), (FIELD, OWN)], {}, MISSING, id="RS-151 two fields"),
    pytest.param(SOURCE, PROXY, [(FIELD, OWN), ("client_cert", OWN)], {}, MISSING, id="RS-151 two spellings"),
    pytest.param(SOURCE, PROXY, [(FIELD, f"{OWN}, {OWN}")], {}, MISSING, id="RS-151 two values"),
    pytest.param(SOURCE, PROXY, [(FIELD, b":" + b"A" * 40_000 + b":")], {}, MISSING, id="RS-151 a huge field"),
    pytest.param(SOURCE, PROXY, [(FIELD, ":MAA=:")], {}, MISMATCH, id="RS-150 another certificate"),
    pytest.param(SOURCE, CLIENT, [(FIELD, OWN)], {}, MISSING, id="RS-151 the field from a client"),
    pytest.param(SOURCE, None, [(FIELD, OWN)], {}, MISSING, id="RS-151 the field from an unknown peer"),
    pytest.param(SOURCE, CLIENT, [], tls(PEM), MISSING, id="RS-151 the extension where a field is configured"),
    pytest.param(NGINX, PROXY, [("X-Client-Cert", "")], {}, MISSING, id="RS-150 nginx without a certificate"),
    pytest.param(NGINX, PROXY, [("X-Client-Cert", OWN)], {}, MISSING, id="RS-151 another format"),
    pytest.param(NGINX, PROXY, [(FIELD, OWN)], {}, MISSING, id="RS-151 another field"),
    pytest.param(
        ENVOY, PROXY, [("X-Forwarded-Client-Cert", f"Hash={HEX},By=a")], {}, MISSING, id="RS-151 Envoy, two elements"
    ),
    pytest.param(
        ENVOY, PROXY, [("X-Forwarded-Client-Cert", f"Hash={'0' * 64}")], {}, MISMATCH, id="RS-150 Envoy, another hash"
    ),
    pytest.param(EXTENSION, CLIENT, [], tls(), MISSING, id="RS-150 the extension without a certificate"),
    pytest.param(EXTENSION, CLIENT, [], {}, MISSING, id="RS-151 no extension"),
    pytest.param(EXTENSION, CLIENT, [], {"extensions": None}, MISSING, id="RS-151 no extensions"),
    pytest.param(EXTENSION, CLIENT, [], tls(OTHER, PEM), MISMATCH, id="RS-150 the second of a chain"),
    pytest.param(EXTENSION, CLIENT, [], tls(b"junk"), MISSING, id="RS-151 a malformed certificate in the extension"),
    pytest.param(EXTENSION, PROXY, [(FIELD, OWN)], tls(), MISSING, id="RS-151 a field where the extension is used"),
]


@pytest.mark.requirement("RS-150")
@pytest.mark.parametrize(("source", "client", "fields", "scope", "reason"), REFUSED)
async def test_a_token_without_its_certificate_is_refused_also_from_the_cache(  # noqa: PLR0917 - the columns of the table
    issuer: Issuer, source: ClientCertificates, client: Any, fields: Any, scope: Any, reason: Reason
) -> None:
    app, seen = RecordingApp(), list[Any]()
    protected, access = protect(issuer, app, client_certificates=source, on_decision=[seen.append]), bound(issuer)
    for _ in range(2):
        answer = await call(protected, headers=headers(access, *fields), client=client, **scope)
        assert (answer.status, answer.challenge) == (401, cht())
    assert [decision.reason for decision in seen] == [reason] * 2
    assert not app.calls
    assert THUMBPRINT not in repr(seen)


@pytest.mark.requirement("RS-150")
async def test_a_token_that_is_bound_to_nothing_needs_no_certificate(issuer: Issuer, app: RecordingApp) -> None:
    protected = protect(issuer, app, client_certificates=SOURCE)
    assert (await call(protected, headers=headers(token(issuer)))).status == 200
    assert (await call(protected)).challenge == CH0


@pytest.mark.requirement("RS-150")
async def test_the_other_checks_of_a_bound_token_remain(issuer: Issuer, app: RecordingApp) -> None:
    protected = protect(issuer, app, client_certificates=SOURCE)
    for access, status in ((bound(issuer, aud="https://other.example/"), 401), (bound(issuer, scope="x"), 403)):
        assert (await call(protected, headers=headers(access, (FIELD, OWN)), client=PROXY)).status == status


@pytest.mark.requirement("RS-150")
async def test_a_token_with_two_bindings_needs_both(issuer: Issuer, app: RecordingApp) -> None:
    cnf = {"x5t#S256": THUMBPRINT, "jkt": issuer.proof_key.thumbprint}
    access = token(issuer, cnf=cnf)
    both = protect(issuer, app, client_certificates=SOURCE, dpop="allowed")
    one, none = protect(issuer, app, client_certificates=SOURCE), protect(issuer, app, dpop="allowed")

    def fields(*more: tuple[str, str]) -> Any:
        return [("authorization", f"DPoP {access}"), ("dpop", issuer.prove("POST", R, access)), *more]

    assert (await call(both, headers=fields((FIELD, OWN)), client=PROXY)).status == 200
    assert (await call(both, headers=fields(), client=PROXY)).status == 401
    assert (await call(both, headers=headers(access, (FIELD, OWN)), client=PROXY)).status == 401
    assert (await call(one, headers=headers(access, (FIELD, OWN)), client=PROXY)).status == 401
    assert (await call(none, headers=fields((FIELD, OWN)), client=PROXY)).status == 401
    assert app.calls == 1


@pytest.mark.requirement("RS-151")
@pytest.mark.parametrize(
    ("client", "fields", "seen"),
    [
        pytest.param(PROXY, [(FIELD, OWN)], 1, id="of the proxy"),
        pytest.param(CLIENT, [(FIELD, OWN)], 0, id="of another peer"),
        pytest.param(CLIENT, [("Client_Cert", "x")], 0, id="of another peer, with an underscore"),
        pytest.param(PROXY, [(FIELD, OWN), (FIELD, "x")], 0, id="twice"),
    ],
)
@pytest.mark.parametrize("path", ["/mcp", "/health"])
async def test_the_app_sees_the_field_only_from_the_proxy(  # noqa: PLR0917 - the columns of the table
    issuer: Issuer, caplog: pytest.LogCaptureFixture, client: Any, fields: Any, seen: int, path: str
) -> None:
    app = RecordingApp()
    protected = protect(issuer, app, client_certificates=SOURCE, public_paths=["/health"])
    with caplog.at_level(logging.WARNING, "asgi_mcp_auth"):
        for _ in range(2):
            answer = await call(protected, path=path, headers=headers(token(issuer), *fields), client=client)
            assert answer.status == 200
    found = [name for name, _ in app.scopes[-1]["headers"] if b"cert" in name]
    assert len(found) == seen
    assert len(caplog.records) == (0 if seen else 1)


@pytest.mark.requirement("RS-150", "RS-151")
async def test_a_websocket_needs_the_certificate_too(issuer: Issuer, app: RecordingApp) -> None:
    protected, access = protect(issuer, app, client_certificates=SOURCE), bound(issuer)
    assert (await websocket(protected, headers=headers(access, (FIELD, OWN)), client=PROXY)).accepted
    refused = await websocket(protected, headers=headers(access, (FIELD, OWN)), client=CLIENT)
    assert refused.denial is not None
    assert refused.denial.status == 401


@pytest.mark.requirement("RS-152")
async def test_the_metadata_announces_certificates_exactly_where_they_are_checked(issuer: Issuer) -> None:
    def resource(path: str, **more: Any) -> ResourceServerConfig:
        url = f"https://mcp.example.com{path}"
        metadata = ResourceServerMetadata(resource=url, authorization_servers=[issuer.url])
        return ResourceServerConfig(metadata=metadata, **more)

    several = [resource("/a"), resource("/b", client_certificates=False), resource("/c", client_certificates=True)]
    auth = MCPAuth(several, client_certificates=SOURCE, http_client=issuer.http_client, clock=issuer.clock)
    protected, member = auth.wrap(RecordingApp()), "tls_client_certificate_bound_access_tokens"
    documents = [(await call(protected, "GET", f"{PRM_PATH[:-4]}/{path}")).json() for path in "abc"]
    assert [document.get(member) for document in documents] == [True, None, True]
    statuses: list[int] = []
    for path in "abc":
        access = issuer.mint(f"https://mcp.example.com/{path}", cnf={"x5t#S256": THUMBPRINT})
        fields = headers(access, (FIELD, OWN))
        statuses.append((await call(protected, path=f"/{path}", headers=fields, client=PROXY)).status)
    assert statuses == [200, 401, 200]
    plain = (await call(protect(issuer, RecordingApp()), "GET", PRM_PATH)).json()
    assert member not in plain


class OwnVerifier:
    def __init__(self, **claims: Any) -> None:
        self.claims = claims

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified:
        del credential, request
        return Verified(AuthInfo(issuer="own", subject="a", scopes=("mcp:read",), claims=self.claims))


@pytest.mark.requirement("RS-150", "IN-2")
async def test_introspection_answers_and_verifiers_of_the_users_own_bind_tokens_too(
    issuer: Issuer, app: RecordingApp
) -> None:
    cnf = {"x5t#S256": THUMBPRINT}
    opaque = issuer.mint_opaque(R, scope="mcp:read", cnf=cnf)
    introspection = Choose(opaque=Introspection(client_id="rs", client_secret="s"))
    for verifier, access in ((introspection, opaque), (OwnVerifier(cnf=cnf), "x")):
        protected = protect(issuer, app, client_certificates=SOURCE, verifier=verifier)
        for fields, status in (((FIELD, OWN),), 200), ((), 401), (((FIELD, ":MAA=:"),), 401):
            answer = await call(protected, headers=headers(access, *fields), client=PROXY)
            assert answer.status == status


CONFIGURATIONS = [
    pytest.param({"client_certificates": True}, "is not a ClientCertificates", id="a bool"),
    pytest.param({"client_certificates": ClientCertificates(proxies=PROXIES)}, "there is none", id="proxies alone"),
    pytest.param({"client_certificates": ClientCertificates(format="xfcc")}, "there is none", id="a format alone"),
    pytest.param({"client_certificates": ClientCertificates(header=FIELD)}, "No proxy may set", id="no proxies"),
    pytest.param(
        {"client_certificates": ClientCertificates(header=FIELD, proxies=["0.0.0.0/0"])}, "trusts every", id="all"
    ),
    pytest.param(
        {"client_certificates": ClientCertificates(header="X-Cert", proxies=PROXIES)}, "format is missing", id="open"
    ),
    pytest.param(
        {"client_certificates": ClientCertificates(header=FIELD, format="pem", proxies=PROXIES)},  # type: ignore[arg-type]
        "is not a format",
        id="another format",
    ),
    pytest.param(
        {"client_certificates": ClientCertificates(header="Authorization", proxies=PROXIES)}, "cannot carry", id="taken"
    ),
    pytest.param(
        {
            "client_certificates": NGINX,
            "trusted_token_header": TrustedTokenHeader(name="x-client-cert", proxies=PROXIES),
        },
        "carries API keys or access tokens",
        id="the field of tokens",
    ),
    pytest.param(
        {
            "client_certificates": ClientCertificates(header="x-api-key", format="xfcc", proxies=PROXIES),
            "verifier": Choose(keys=ApiKeys(file="keys.toml")),
        },
        "carries API keys or access tokens",
        id="the field of API keys",
    ),
]


@pytest.mark.requirement("RS-151", "RS-152")
@pytest.mark.parametrize(("options", "problem"), CONFIGURATIONS)
def test_a_configuration_that_enforces_less_than_it_says_is_an_error(
    issuer: Issuer, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        protect(issuer, RecordingApp(), **options)


@pytest.mark.requirement("RS-152")
@pytest.mark.parametrize("wanted", [True, "yes"])
def test_a_resource_cannot_ask_for_certificates_without_a_source(issuer: Issuer, wanted: Any) -> None:
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
    with pytest.raises(ConfigurationError, match=r"needs a source|is not a bool"):
        MCPAuth(ResourceServerConfig(metadata=metadata, client_certificates=wanted))


@pytest.mark.requirement("RS-151")
async def test_a_file_and_the_environment_configure_the_source(
    issuer: Issuer, tmp_path: Path, capsys: pytest.CaptureFixture[str], blocking_calls: None
) -> None:
    file = tmp_path / "auth.toml"
    file.write_text(
        f'resource = "{R}"\nauthorization_servers = ["{issuer.url}"]\n'
        '[client_certificates]\nheader = "Client-Cert"\nproxies = ["10.0.0.7"]\n'
    )
    variables = {
        "MCP_AUTH_RESOURCE": R,
        "MCP_AUTH_AUTHORIZATION_SERVERS": issuer.url,
        "MCP_AUTH_CLIENT_CERTIFICATES": '{"header": "Client-Cert", "proxies": ["10.0.0.7"]}',
    }
    options: Any = {"http_client": issuer.http_client, "clock": issuer.clock}
    for auth in (MCPAuth.from_toml(file, **options), MCPAuth.from_env(variables, **options)):
        protected = auth.wrap(RecordingApp())
        for client, status in ((PROXY, 200), (CLIENT, 401)):
            fields = headers(bound(issuer), (FIELD, OWN))
            assert (await call(protected, headers=fields, client=client)).status == status
    assert main(["check-config", str(file)]) == 0
    assert 'client_certificates = {"header": "Client-Cert"' in " ".join(capsys.readouterr().out.split())


@pytest.mark.requirement("RS-153")
async def test_a_certificate_that_the_server_does_not_trust_is_as_good_as_any(issuer: Issuer) -> None:
    unverified: Any = {"extensions": {"tls": {"client_cert_chain": [PEM.decode()], "client_cert_error": "self-signed"}}}
    protected = protect(issuer, RecordingApp(), client_certificates=EXTENSION)
    assert (await call(protected, headers=headers(bound(issuer)), **unverified)).status == 200
