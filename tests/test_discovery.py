"""Discovery of authorization server metadata: which URLs are requested, what is accepted, how failures are reported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from harness import Clock, R, RecordingApp, bearer, call, protect, token

from asgi_mcp_auth import (
    AuthorizationServerMetadata,
    AuthServerConfig,
    AuthServerType,
    ConfigurationError,
    DiscoveryError,
    fetch_server_config,
    fetch_server_config_async,
    fetch_server_config_by_well_known_url,
    fetch_server_config_by_well_known_url_async,
)
from asgi_mcp_auth._keys.discovery import discover
from asgi_mcp_auth._keys.http import Fetcher
from asgi_mcp_auth._policy.problems import Referenced
from asgi_mcp_auth.errors import InvalidServerMetadata
from asgi_mcp_auth.testing import Issuer, SigningKey

pytestmark = pytest.mark.anyio

ROOT = "https://auth.example.com"
TENANT = f"{ROOT}/tenant1"
OAUTH, OIDC = AuthServerType.OAUTH, AuthServerType.OIDC
INSERTED = f"{ROOT}/.well-known/oauth-authorization-server/tenant1"
OPENID_INSERTED = f"{ROOT}/.well-known/openid-configuration/tenant1"
APPENDED = f"{TENANT}/.well-known/openid-configuration"
ROOT_INSERTED = f"{ROOT}/.well-known/oauth-authorization-server"
ROOT_APPENDED = f"{ROOT}/.well-known/openid-configuration"


def document(issuer: str = TENANT, **members: Any) -> dict[str, Any]:
    return {"issuer": issuer, "jwks_uri": f"{ROOT}/keys", "token_endpoint": f"{ROOT}/token"} | members


class Web(httpx.AsyncBaseTransport):
    """URLs to answers: a document, a whole response, or an exception; anything else is 404."""

    def __init__(self, pages: dict[str, Any]) -> None:
        self.pages = pages
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = str(request.url)
        self.asked.append(url)
        page = self.pages.get(url, 404)
        if isinstance(page, Exception):
            raise page
        if isinstance(page, int):
            return httpx.Response(page, stream=httpx.ByteStream(b"{}"))
        body = page if isinstance(page, bytes) else json.dumps(page).encode()
        return httpx.Response(200, stream=httpx.ByteStream(body))

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=self)


# --- By issuer ---

FOUND: list[Any] = [
    pytest.param(TENANT, OAUTH, INSERTED, [INSERTED], id="DC-1 OAUTH inserts"),
    pytest.param(TENANT, OIDC, APPENDED, [APPENDED], id="DC-1 OIDC appends"),
    pytest.param(TENANT, None, INSERTED, [INSERTED], id="DC-1 None, first place"),
    pytest.param(TENANT, None, OPENID_INSERTED, [INSERTED, OPENID_INSERTED], id="DC-1 None, second place"),
    pytest.param(TENANT, None, APPENDED, [INSERTED, OPENID_INSERTED, APPENDED], id="DC-1 None, third place"),
    pytest.param(TENANT + "/", OAUTH, INSERTED, [INSERTED], id="DC-1 OAUTH, trailing slash"),
    pytest.param(TENANT + "/", OIDC, APPENDED, [APPENDED], id="DC-1 OIDC, trailing slash"),
    pytest.param(ROOT, OAUTH, ROOT_INSERTED, [ROOT_INSERTED], id="DC-1 OAUTH without a path"),
    pytest.param(ROOT + "/", OAUTH, ROOT_INSERTED, [ROOT_INSERTED], id="DC-1 OAUTH with only a slash"),
    pytest.param(ROOT, None, ROOT_APPENDED, [ROOT_INSERTED, ROOT_APPENDED], id="DC-1 two places without a path"),
    pytest.param(ROOT + "/", None, ROOT_APPENDED, [ROOT_INSERTED, ROOT_APPENDED], id="DC-1 two places with a slash"),
]


@pytest.mark.parametrize(("issuer", "kind", "place", "asked"), FOUND)
async def test_by_issuer(issuer: str, kind: AuthServerType | None, place: str, asked: list[str]) -> None:
    web = Web({place: document(issuer, x_more={"kept": True})})
    config = await fetch_server_config_async(issuer, kind, http_client=web.client)
    metadata = AuthorizationServerMetadata.from_dict(document(issuer, x_more={"kept": True}))
    assert config == AuthServerConfig(issuer=issuer, type=kind, metadata=metadata)
    assert metadata.to_dict() == document(issuer, x_more={"kept": True})
    assert web.asked == asked


@pytest.mark.parametrize(("issuer", "kind", "place", "asked"), FOUND)
def test_by_issuer_now(issuer: str, kind: AuthServerType | None, place: str, asked: list[str]) -> None:
    web = Web({place: document(issuer)})
    config = fetch_server_config(issuer, kind, http_client=web.client)
    metadata = AuthorizationServerMetadata.from_dict(document(issuer))
    assert config == AuthServerConfig(issuer=issuer, type=kind, metadata=metadata)
    assert web.asked == asked


NEXT: list[Any] = [
    pytest.param(b"<html>login</html>", id="DC-3 HTML"),
    pytest.param(b"[]", id="DC-3 array"),
    pytest.param(b"", id="DC-3 nothing"),
    pytest.param({}, id="DC-3 no issuer"),
    pytest.param(404, id="DC-3 404"),
    pytest.param(302, id="DC-5 redirect"),
    pytest.param(503, id="DC-3 503"),
    pytest.param(httpx.ConnectTimeout("slow"), id="DC-3 time-out"),
    pytest.param(document(TENANT + "/"), id="DC-2 an added slash"),
    pytest.param(document(ROOT), id="DC-2 the parent"),
    pytest.param(document("https://AUTH.example.com/tenant1"), id="DC-2 case"),
    pytest.param(document("https://honest.example"), id="DC-2 another issuer"),
    pytest.param(document(5), id="DC-2 no string"),  # type: ignore[arg-type]
    pytest.param(document(jwks_uri="http://auth.example.com/k"), id="DC-4 keys over http"),
    pytest.param(document(jwks_uri="/keys"), id="DC-4 relative key URL"),
    pytest.param(document(jwks_uri="https://u:p@auth.example.com/k"), id="DC-4 user information"),
    pytest.param(document(jwks_uri=["x"]), id="DC-3 jwks_uri of a wrong type"),
    pytest.param(b'{"issuer": "x", "issuer": "%s"}' % TENANT.encode(), id="DC-2 issuer twice"),
]


@pytest.mark.parametrize("bad", NEXT)
async def test_a_bad_probe_moves_on_to_the_next(bad: Any) -> None:
    web = Web({INSERTED: bad, OPENID_INSERTED: document()})
    config = await fetch_server_config_async(TENANT, http_client=web.client)
    assert config.metadata == AuthorizationServerMetadata.from_dict(document())
    assert web.asked == [INSERTED, OPENID_INSERTED]


ALL = (INSERTED, OPENID_INSERTED, APPENDED)


@pytest.mark.parametrize(
    ("pages", "kind", "transient", "said"),
    [
        pytest.param({}, DiscoveryError, False, "answered 404.", id="DC-3 nowhere"),
        pytest.param(dict.fromkeys(ALL, 503), DiscoveryError, True, "answered 503.", id="DC-3 unavailable"),
        pytest.param({APPENDED: 503}, DiscoveryError, True, "answered 503.", id="DC-3 one of them unavailable"),
        pytest.param({INSERTED: 503}, DiscoveryError, True, "answered 503.", id="DC-3 the first unavailable"),
        pytest.param(
            {INSERTED: httpx.ReadTimeout("slow"), APPENDED: document(ROOT)},
            DiscoveryError,
            True,
            "ReadTimeout",
            id="DC-3 a time-out outweighs a mismatch",
        ),
        pytest.param(
            {INSERTED: document("https://honest.example")},
            InvalidServerMetadata,
            False,
            "has the issuer https://honest.example, not https://auth.example.com/tenant1.",
            id="DC-2 both named",
        ),
        pytest.param(
            {APPENDED: document(jwks_uri="http://auth.example.com/k")},
            InvalidServerMetadata,
            False,
            "The jwks_uri http://auth.example.com/k in https://auth.example.com/tenant1/.well-known/openid-configuration "
            "is not https.",
            id="DC-4 keys over http",
        ),
        pytest.param({INSERTED: {}}, InvalidServerMetadata, False, "has no issuer", id="DC-3 no issuer"),
    ],
)
async def test_when_no_probe_succeeds(
    pages: dict[str, Any], kind: type[DiscoveryError], transient: bool, said: str
) -> None:
    web = Web(pages)
    with pytest.raises(DiscoveryError) as caught:
        await fetch_server_config_async(TENANT, http_client=web.client)
    assert type(caught.value) is kind
    assert caught.value.transient is transient
    assert caught.value.message.startswith("No metadata for issuer https://auth.example.com/tenant1. ")
    assert said in caught.value.message
    assert web.asked == list(ALL)


@pytest.mark.parametrize(
    "issuer",
    [
        pytest.param("http://auth.example.com", id="DC-4 http"),
        pytest.param("auth.example.com", id="DC-4 no scheme"),
        pytest.param("https://auth.example.com#f", id="DC-4 fragment"),
        pytest.param("https://u@auth.example.com", id="DC-4 user information"),
        pytest.param("ftp://auth.example.com", id="DC-4 another scheme"),
        pytest.param("", id="DC-4 empty"),
    ],
)
async def test_an_issuer_that_cannot_be_asked(issuer: str) -> None:
    web = Web({})
    with pytest.raises(ConfigurationError, match="issuer: "):
        await fetch_server_config_async(issuer, http_client=web.client)
    with pytest.raises(ConfigurationError, match="well_known_url: "):
        await fetch_server_config_by_well_known_url_async(issuer, http_client=web.client)
    assert web.asked == []


@pytest.mark.parametrize(
    "host", [pytest.param("localhost", id="DC-4 localhost"), pytest.param("[::1]:8080", id="DC-4 IPv6 loopback")]
)
async def test_http_on_loopback(host: str) -> None:
    issuer = f"http://{host}"
    web = Web({f"{issuer}/.well-known/oauth-authorization-server": document(issuer, jwks_uri=f"{issuer}/k")})
    config = await fetch_server_config_async(issuer, http_client=web.client)
    assert config.metadata is not None
    assert config.metadata.jwks_uri == f"{issuer}/k"


@pytest.mark.requirement("DC-3")
@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"self": "x"}, id="self"),
        pytest.param({"cls": "x"}, id="cls"),
        pytest.param({"members": "x"}, id="members"),
        pytest.param({"_members": {}}, id="_members"),
        pytest.param({"": 1}, id="an empty name"),
        pytest.param({"__class__": "x", "to_dict": "x"}, id="names of Python"),
        pytest.param({"é ü": None}, id="null under any name"),
    ],
)
async def test_members_with_odd_names_are_kept(members: dict[str, Any]) -> None:
    """Any document that names its issuer can be read."""
    web = Web({ROOT_INSERTED: document(ROOT) | members})
    config = await fetch_server_config_async(ROOT, http_client=web.client)
    assert config.metadata is not None
    kept = {name: value for name, value in members.items() if value is not None}
    assert config.metadata.to_dict() == document(ROOT) | kept


# --- By URL ---

ELSEWHERE = "https://login.example.com/custom/metadata.json"


async def test_by_url_the_document_names_the_issuer() -> None:
    web = Web({ELSEWHERE: document("https://other.example")})
    config = await fetch_server_config_by_well_known_url_async(ELSEWHERE, OIDC, http_client=web.client)
    assert config == AuthServerConfig(
        issuer="https://other.example",
        type=OIDC,
        metadata=AuthorizationServerMetadata.from_dict(document("https://other.example")),
        metadata_url=ELSEWHERE,
    )
    assert web.asked == [ELSEWHERE]


def test_by_url_now() -> None:
    web = Web({ELSEWHERE: document("https://other.example")})
    config = fetch_server_config_by_well_known_url(ELSEWHERE, OIDC, http_client=web.client)
    assert (config.issuer, config.metadata_url, config.type) == ("https://other.example", ELSEWHERE, OIDC)
    assert web.asked == [ELSEWHERE]


@pytest.mark.requirement("DC-2")
@pytest.mark.parametrize("issuer", ["https://other.example/", "https://OTHER.example", ROOT])
async def test_by_url_with_a_named_issuer(issuer: str) -> None:
    web = Web({ELSEWHERE: document("https://other.example")})
    fetch = partial(fetch_server_config_by_well_known_url_async, ELSEWHERE, http_client=web.client)
    with pytest.raises(InvalidServerMetadata, match=r"has the issuer https://other\.example, not"):
        await fetch(issuer=issuer)
    assert (await fetch(issuer="https://other.example")).issuer == "https://other.example"


@pytest.mark.parametrize(
    ("page", "kind", "transient"),
    [
        pytest.param(404, DiscoveryError, False, id="DC-3 404"),
        pytest.param(503, DiscoveryError, True, id="DC-3 503"),
        pytest.param(b"<html>", DiscoveryError, False, id="DC-3 HTML"),
        pytest.param({}, InvalidServerMetadata, False, id="DC-3 no issuer"),
        pytest.param({"issuer": ""}, InvalidServerMetadata, False, id="DC-2 empty issuer"),
        pytest.param({"issuer": None}, InvalidServerMetadata, False, id="DC-2 null issuer"),
        pytest.param(document(jwks_uri="http://x.example/k"), InvalidServerMetadata, False, id="DC-4 keys over http"),
    ],
)
async def test_by_url_failing(page: Any, kind: type[DiscoveryError], transient: bool) -> None:
    web = Web({ELSEWHERE: page, ROOT_INSERTED: document(ROOT)})
    with pytest.raises(DiscoveryError) as caught:
        await fetch_server_config_by_well_known_url_async(ELSEWHERE, http_client=web.client)
    assert (type(caught.value), caught.value.transient) == (kind, transient)
    assert web.asked == [ELSEWHERE]
    with pytest.raises(kind):
        await anyio.to_thread.run_sync(
            partial(fetch_server_config_by_well_known_url, ELSEWHERE, http_client=web.client)
        )


# --- transpile_data ---


def conforming(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "issuer": TENANT, "conforming": True}


async def conforming_later(data: dict[str, Any]) -> dict[str, Any]:
    await anyio.lowlevel.checkpoint()
    return conforming(data)


Transpile = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize("transpile", [conforming, conforming_later])
async def test_transpile_data_comes_before_the_check(transpile: Transpile) -> None:
    web = Web({INSERTED: {"Issuer": "wrong"}, ELSEWHERE: {"Issuer": "wrong"}})
    config = await fetch_server_config_async(TENANT, OAUTH, transpile, http_client=web.client)
    expected = AuthorizationServerMetadata.from_dict({"Issuer": "wrong", "issuer": TENANT, "conforming": True})
    assert config == AuthServerConfig(issuer=TENANT, type=OAUTH, metadata=expected)
    by_url = await fetch_server_config_by_well_known_url_async(ELSEWHERE, OAUTH, transpile, http_client=web.client)
    assert by_url == AuthServerConfig(issuer=TENANT, type=OAUTH, metadata=expected, metadata_url=ELSEWHERE)


@pytest.mark.parametrize("transpile", [conforming, conforming_later])
def test_transpile_data_now(transpile: Transpile) -> None:
    web = Web({INSERTED: {}, ELSEWHERE: {}})
    assert fetch_server_config(TENANT, OAUTH, transpile, http_client=web.client).issuer == TENANT
    by_url = fetch_server_config_by_well_known_url(ELSEWHERE, OAUTH, transpile, http_client=web.client)
    assert by_url.issuer == TENANT


def raising(data: dict[str, Any]) -> dict[str, Any]:
    raise KeyError("authorization_endpoint")


def nothing(data: dict[str, Any]) -> None:
    """Forgot to return."""


def a_number(data: dict[str, Any]) -> int:
    return 5


def somebody_else(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "issuer": "https://evil.example"}


async def raising_later(data: dict[str, Any]) -> dict[str, Any]:
    raise KeyError("authorization_endpoint")


@pytest.mark.parametrize(
    ("transpile", "said"),
    [
        pytest.param(raising, "failed for https://auth.example.com/.well-known/oauth", id="raising"),
        pytest.param(raising_later, "with KeyError", id="raising later"),
        pytest.param(nothing, "with TypeError", id="nothing returned"),
        pytest.param(a_number, "with TypeError", id="a number"),
        pytest.param(somebody_else, "has the issuer", id="DC-2 a wrong issuer"),
    ],
)
async def test_transpile_data_that_fails(transpile: Transpile, said: str, caplog: pytest.LogCaptureFixture) -> None:
    web = Web({INSERTED: document()})
    with pytest.raises(InvalidServerMetadata) as caught:
        await fetch_server_config_async(TENANT, OAUTH, transpile, http_client=web.client)
    assert said in caught.value.message
    assert caught.value.transient is False
    assert ("transpile_data failed" in caplog.text) is ("transpile_data" in caught.value.message)


# --- Synchronous and asynchronous together ---


SCRIPT = """
import asyncio
from asgi_mcp_auth import fetch_server_config, fetch_server_config_by_well_known_url
from asgi_mcp_auth.testing import Issuer, SigningKey

issuer = Issuer("https://auth.example.com", algorithms=())

async def main():
    first = fetch_server_config(issuer.url, http_client=issuer.http_client)
    url = "https://auth.example.com/.well-known/openid-configuration"
    return first.metadata, fetch_server_config_by_well_known_url(url, http_client=issuer.http_client).metadata

first, second = asyncio.run(main())
assert first == second, (first, second)
print(first.to_dict() == issuer.metadata, dict(issuer.requests))
"""


def test_synchronous_inside_a_running_event_loop() -> None:
    """In a process of its own, because here a blocking call inside an event loop is an error."""
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=30, check=False)
    counts = {"/.well-known/oauth-authorization-server": 1, "/.well-known/openid-configuration": 1}
    assert (ran.stdout, ran.stderr, ran.returncode) == (f"True {counts}\n", "", 0)


@pytest.mark.every_loop
async def test_synchronous_beside_an_event_loop() -> None:
    web = Web({ROOT_INSERTED: document(ROOT)})
    config = await anyio.to_thread.run_sync(partial(fetch_server_config, ROOT, http_client=web.client))
    assert config.issuer == ROOT


# --- discover, and the lazy form ---


async def test_discover_from_a_metadata_url_asks_nowhere_else() -> None:
    web = Web({ELSEWHERE: 404, INSERTED: document()})
    config = AuthServerConfig(issuer=TENANT, metadata_url=ELSEWHERE)
    with pytest.raises(DiscoveryError, match="answered 404"):
        await discover(Fetcher(web.client), config, allow_http=False)
    assert web.asked == [ELSEWHERE]


@pytest.mark.parametrize(
    ("allow_http", "expected"),
    [
        pytest.param(True, f"{ROOT.replace('https', 'http')}/k", id="DC-4 dangerously allowed"),
        pytest.param(False, None, id="DC-4"),
    ],
)
async def test_discover_with_keys_over_http(allow_http: bool, expected: str | None) -> None:
    keys = "http://auth.example.com/k"
    web = Web({ROOT_INSERTED: document(ROOT, jwks_uri=keys)})
    work = discover(Fetcher(web.client), AuthServerConfig(issuer=ROOT, type=OAUTH), allow_http=allow_http)
    if expected is not None:
        assert (await work).metadata.jwks_uri == expected
        return
    with pytest.raises(InvalidServerMetadata, match="is not https"):
        await work


@pytest.mark.parametrize("transpile", [conforming, conforming_later])
async def test_the_lazy_form_does_all_of_it_on_first_use(transpile: Transpile, issuer: Issuer) -> None:
    issuer.url = TENANT
    web = Web({ELSEWHERE: {"jwks_uri": f"{ROOT}/keys"}, f"{ROOT}/keys": issuer.jwks()})
    server = AuthServerConfig(issuer=TENANT, metadata_url=ELSEWHERE, transpile_data=transpile)
    guarded = protect(issuer, RecordingApp(), authorization_servers=[server], http_client=web.client)
    assert web.asked == []
    assert (await call(guarded, headers=bearer(token(issuer)))).status == 200
    assert web.asked == [ELSEWHERE, f"{ROOT}/keys"]


@pytest.mark.parametrize(
    ("server", "asked"),
    [
        pytest.param(
            AuthServerConfig(issuer=TENANT, jwks_uri=f"{ROOT}/keys"), [f"{ROOT}/keys"], id="DC-1 explicit jwks_uri"
        ),
        pytest.param(
            AuthServerConfig(metadata=AuthorizationServerMetadata(issuer=TENANT, jwks_uri=f"{ROOT}/keys")),
            [f"{ROOT}/keys"],
            id="DC-1 metadata by hand",
        ),
        pytest.param(
            AuthServerConfig(metadata=AuthorizationServerMetadata(issuer=TENANT), type=OIDC),
            [APPENDED, f"{ROOT}/keys"],
            id="DC-1 metadata by hand without jwks_uri",
        ),
        pytest.param(AuthServerConfig(issuer=TENANT, type=OAUTH), [INSERTED, f"{ROOT}/keys"], id="DC-1 OAUTH"),
    ],
)
async def test_where_a_token_leads(server: AuthServerConfig, asked: list[str], issuer: Issuer) -> None:
    issuer.url = TENANT
    pages = dict.fromkeys((INSERTED, APPENDED), document())
    web = Web({**pages, f"{ROOT}/keys": issuer.jwks()})
    guarded = protect(issuer, RecordingApp(), authorization_servers=[server], http_client=web.client)
    assert (await call(guarded, headers=bearer(token(issuer, aud=R)))).status == 200
    assert web.asked == asked


@pytest.mark.parametrize(
    "member",
    [
        pytest.param(b'"ui_locales_supported": "en"', id="DC-3 a wrong type"),
        pytest.param(b'"userinfo_endpoint": false', id="DC-3 a wrong type, false"),
        pytest.param(b'"response_types_supported": [null]', id="DC-3 a list with null"),
        pytest.param(b'"x_note": 1, "x_note": 2', id="DC-3 a repeated member"),
        pytest.param(b'"x_note": NaN', id="DC-3 NaN"),
    ],
)
async def test_a_faulty_member_costs_one_warning_and_no_request(
    member: bytes, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = b"\xef\xbb\xbf" + json.dumps(document(ROOT)).encode()[:-1] + b", " + member + b"}"
    issuer.url = ROOT
    web = Web({ROOT_INSERTED: metadata, f"{ROOT}/keys": issuer.jwks()})
    clock = Clock()
    guarded = protect(issuer, RecordingApp(), http_client=web.client, clock=clock)
    for _ in range(2):
        now = {"iat": int(clock.now), "exp": int(clock.now) + 60}
        assert (await call(guarded, headers=bearer(token(issuer, **now)))).status == 200
        clock.now += 200_000
    warned = [record.getMessage() for record in caplog.records if getattr(record, "event", "") == "metadata_unfit"]
    name = member.split(b'"')[1].decode()
    ignored = f"Members of a wrong type, or not valid JSON, are ignored: {name}."
    assert [message for message in warned if "ignored" in message] == [f"The metadata of {ROOT}: {ignored}"]
    assert web.asked.count(ROOT_INSERTED) == 2


async def test_a_listed_kid_that_cannot_be_used_is_401_at_once_and_causes_no_fetch(issuer: Issuer) -> None:
    issuer.url = ROOT
    bad, good = SigningKey("ES256", "bad"), SigningKey("ES256", "good")
    web = Web({ROOT_INSERTED: document(ROOT), f"{ROOT}/keys": {"keys": [bad.jwk | {"use": "enc"}, good.jwk]}})
    clock = Clock()
    guarded = protect(issuer, RecordingApp(), http_client=web.client, clock=clock)
    for key, status in [(good, 200), (bad, 401), (bad, 401)]:
        clock.now += 40
        now = {"iat": int(clock.now), "exp": int(clock.now) + 60}
        assert (await call(guarded, headers=bearer(token(issuer, key=key, **now)))).status == status
    assert web.asked == [ROOT_INSERTED, f"{ROOT}/keys"]


async def test_a_referenced_url_is_in_no_record_no_status_and_no_error(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    url = Referenced("https://keys.example.com/s3cret/jwks?code=s3cret", "from_env = 'JWKS'")
    server = AuthServerConfig(issuer=issuer.url, jwks_uri=url)
    guarded = protect(issuer, RecordingApp(), authorization_servers=[server], http_client=Web({}).client)
    assert (await call(guarded, headers=bearer(token(issuer)))).status == 503
    (status,) = guarded.auth.status().issuers
    assert status.key_set.last_error == "(from_env = 'JWKS') answered 404."
    assert "s3cret" not in caplog.text + repr(guarded.auth.status())
