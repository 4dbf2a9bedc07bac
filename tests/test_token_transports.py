"""Tokens outside of `Authorization`: the field of a trusted proxy, and a websocket subprotocol."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from harness import CH0, ISS, R, RecordingApp, bearer, call, cht, protect, token, websocket
from hypothesis import given
from hypothesis import strategies as st

from asgi_mcp_auth import ApiKeys, Choose, ConfigurationError, MCPAuth, TrustedTokenHeader
from asgi_mcp_auth._policy.problems import Problems
from asgi_mcp_auth._policy.token_transports import TokenTransports, compile_transports
from asgi_mcp_auth._policy.trusted_fields import compile_peers
from asgi_mcp_auth.cli import main
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio

FIELD = "Cf-Access-Jwt-Assertion"
PROXY, CLIENT = ("10.0.0.7", 4711), ("203.0.113.9", 4711)
BEARER = ("Authorization", "Bearer {good}")
HEADER = TrustedTokenHeader(name=FIELD, proxies=["10.0.0.0/8", "2001:db8::1"])


def peers(*listed: str) -> Any:
    problems = Problems()
    compiled = compile_peers(listed, "proxies", problems)
    problems.raise_if_any()
    return compiled


# ---------------------------------------------------------------------------------------------------- trusted peers


@pytest.mark.requirement("CK-6")
@pytest.mark.parametrize(
    ("listed", "scope", "trusted"),
    [
        pytest.param(["10.0.0.0/8"], {"client": PROXY}, True, id="an address of the network"),
        pytest.param(["10.0.0.7"], {"client": PROXY}, True, id="the address"),
        pytest.param(["10.0.0.0/8"], {"client": ("::ffff:10.0.0.7", 1)}, True, id="IPv4 on a socket of both families"),
        pytest.param(["2001:db8::/32"], {"client": ("2001:DB8::5", 1)}, True, id="IPv6"),
        pytest.param(["10.0.0.0/8"], {"client": CLIENT}, False, id="another address"),
        pytest.param(["10.0.0.0/8"], {"client": ("10.0.0.7.evil.example", 1)}, False, id="a name"),
        pytest.param(["10.0.0.0/8"], {"client": None}, False, id="no address"),
        pytest.param(["10.0.0.0/8"], {}, False, id="no client"),
        pytest.param(["unix"], {"client": None, "server": ("/run/app.sock", None)}, True, id="a Unix socket"),
        pytest.param(
            ["unix"], {"client": None, "server": None}, True, id="a Unix socket that the server does not name"
        ),
        pytest.param(
            ["unix"], {"client": None, "server": ("127.0.0.1", 8000)}, False, id="a TCP connection without peer"
        ),
        pytest.param(["unix"], {"client": PROXY}, False, id="TCP where only a Unix socket is trusted"),
    ],
)
def test_a_peer_is_trusted_by_its_address_alone(listed: list[str], scope: dict[str, Any], trusted: bool) -> None:
    assert peers(*listed).include(scope) is trusted


# ------------------------------------------------------------------------------------------- the field of a proxy


@pytest.mark.requirement("CK-6")
@pytest.mark.parametrize(
    ("client", "fields", "status", "challenge"),
    [
        pytest.param(PROXY, [(FIELD, "{good}")], 200, None, id="a token of the proxy"),
        pytest.param(PROXY, [(FIELD.replace("-", "_"), "{good}")], 200, None, id="with underscores"),
        pytest.param(CLIENT, [(FIELD, "{good}")], 401, CH0, id="the field from a client"),
        pytest.param(CLIENT, [(FIELD, "x"), BEARER], 200, None, id="a client's field is not read"),
        pytest.param(PROXY, [(FIELD, "{bad}")], 401, cht(), id="a bad token of the proxy"),
        pytest.param(PROXY, [(FIELD, "{good}"), (FIELD, "{good}")], 400, None, id="two fields"),
        pytest.param(PROXY, [(FIELD, "{good}"), BEARER], 400, None, id="a field and Authorization"),
        pytest.param(PROXY, [(FIELD, ""), BEARER], 400, None, id="an empty field and Authorization"),
        pytest.param(PROXY, [(FIELD, "")], 400, None, id="an empty field"),
        pytest.param(PROXY, [(FIELD, "Bearer {good}")], 400, None, id="with a scheme"),
        pytest.param(PROXY, [BEARER], 200, None, id="Authorization alone"),
    ],
)
async def test_a_token_of_a_trusted_proxy_is_verified_and_removed(
    issuer: Issuer, client: tuple[str, int], fields: list[tuple[str, str]], status: int, challenge: str | None
) -> None:
    app = RecordingApp()
    protected = protect(issuer, app, trusted_token_header=HEADER)
    good, bad = token(issuer), token(issuer, aud="https://other.example/")
    headers = [(name, value.format(good=good, bad=bad)) for name, value in fields]
    answer = await call(protected, headers=headers, client=client)
    assert answer.status == status
    if challenge is not None:
        assert answer.challenge == challenge
    for seen in app.scopes:
        names = {name.replace(b"_", b"-") for name, _ in seen["headers"]}
        assert not names & {b"authorization", FIELD.lower().encode()}


@pytest.mark.requirement("CK-6")
async def test_a_field_of_another_peer_is_dropped_with_one_warning(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    app = RecordingApp()
    protected = protect(issuer, app, trusted_token_header=HEADER)
    headers: list[tuple[str, str | bytes]] = [(FIELD, "x"), *bearer(token(issuer))]
    with caplog.at_level(logging.WARNING, "asgi_mcp_auth"):
        assert (await call(protected, headers=headers, client=CLIENT)).status == 200
        assert (await call(protected, headers=headers, client=CLIENT)).status == 200
    assert [record.getMessage()[:58] for record in caplog.records] == [
        "The field of trusted_token_header came from a peer that pr"
    ]


@pytest.mark.requirement("CK-6")
@pytest.mark.parametrize(
    ("options", "identified"),
    [
        pytest.param({}, False, id="public paths are not touched"),
        pytest.param({"identify_public": True}, True, id="with identify_public the token is verified and removed"),
    ],
)
async def test_public_paths_read_the_field_only_if_they_identify_callers(
    issuer: Issuer, options: dict[str, Any], identified: bool
) -> None:
    app = RecordingApp()
    protected = protect(issuer, app, public_paths=["/open"], trusted_token_header=HEADER, **options)
    answer = await call(protected, path="/open", headers=[(FIELD, token(issuer))], client=PROXY)
    assert answer.status == 200
    [seen] = app.scopes
    assert ("mcp_auth" in seen.get("state", {})) is identified
    assert (FIELD.lower().encode() in dict(seen["headers"])) is not identified


@pytest.mark.requirement("CK-6")
@pytest.mark.parametrize(
    ("header", "options", "problems"),
    [
        pytest.param("X-Token", {}, ["trusted_token_header"], id="no TrustedTokenHeader"),
        pytest.param(TrustedTokenHeader(name="x-t", proxies=[]), {}, ["trusted_token_header.proxies"], id="no proxy"),
        pytest.param(
            TrustedTokenHeader(name="Authorization", proxies=["10.1.0.0/8", "all"]),
            {},
            ["trusted_token_header.name", *["trusted_token_header.proxies"] * 3],
            id="everything at once",
        ),
        pytest.param(
            TrustedTokenHeader(name="x-t", proxies=["0.0.0.0/0"]),
            {},
            ["trusted_token_header.proxies"],
            id="every client",
        ),
        pytest.param(
            TrustedTokenHeader(name="x-a-b-c-d-e-f-g-h-i", proxies=["unix"]),
            {},
            ["trusted_token_header.name"],
            id="a field with too many spellings",
        ),
        pytest.param(
            TrustedTokenHeader(name="X-Api-Key", proxies=["unix"]),
            {"verifier": Choose(keys=ApiKeys(file="/dev/null"))},
            ["trusted_token_header.name"],
            id="the field of API keys",
        ),
    ],
)
def test_faulty_settings_are_reported_at_construction(
    issuer: Issuer, header: Any, options: dict[str, Any], problems: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        protect(issuer, RecordingApp(), trusted_token_header=header, **options)
    assert [problem.where for problem in raised.value.problems] == problems


# ------------------------------------------------------------------------------------------ websocket subprotocols


@pytest.mark.requirement("CK-6")
@pytest.mark.parametrize(
    ("offers", "more", "status", "seen"),
    [
        pytest.param(["mcp", "bearer.{t}"], [], 200, ["mcp"], id="a token and a protocol"),
        pytest.param(["bearer.{t}", "mcp", "v2"], [], 200, ["mcp", "v2"], id="in any order"),
        pytest.param(["bearer.{t}"], [], 200, [], id="a token alone"),
        pytest.param(["mcp"], [], 401, None, id="no token"),
        pytest.param(["mcp", "bearer.bad"], [], 401, None, id="a bad token"),
        pytest.param(["bearer.{t}", "bearer.{t}"], [], 400, None, id="two tokens"),
        pytest.param(["mcp", "bearer."], [], 400, None, id="an empty token"),
        pytest.param(["mcp", "bearer.{t}"], ["authorization"], 400, None, id="a token in Authorization too"),
        pytest.param(["mcp", "Bearer.{t}"], [], 200, ["mcp"], id="a token in another case"),
    ],
)
async def test_a_subprotocol_token_is_verified_and_not_forwarded(
    issuer: Issuer, offers: list[str], more: list[str], status: int, seen: list[str] | None
) -> None:
    app = RecordingApp()
    protected = protect(issuer, app, websocket_subprotocol_tokens=True)
    offered = [offer.format(t=token(issuer)) for offer in offers]
    headers: list[tuple[str, str | bytes]] = [("sec-websocket-protocol", ", ".join(offered))]
    headers += bearer(token(issuer)) if more else []
    answer = await websocket(protected, headers=headers, subprotocols=offered)
    assert answer.accepted is (seen is not None)
    if seen is None:
        assert answer.denial is not None
        assert answer.denial.status == status
        assert app.scopes == []
        return
    [scope] = app.scopes
    assert scope["subprotocols"] == seen
    lines = [value for name, value in scope["headers"] if name == b"sec-websocket-protocol"]
    assert lines == ([", ".join(seen).encode()] if seen else [])
    assert "bearer." not in repr(scope["headers"]).lower()
    assert b"authorization" not in dict(scope["headers"])


@pytest.mark.requirement("CK-6")
async def test_without_the_option_a_subprotocol_is_no_credential(issuer: Issuer) -> None:
    offered = ["mcp", f"bearer.{token(issuer)}"]
    headers = [("sec-websocket-protocol", ", ".join(offered))]
    answer = await websocket(protect(issuer, RecordingApp()), headers=headers, subprotocols=offered)
    assert answer.denial is not None
    assert (answer.denial.status, answer.denial.challenge) == (401, CH0)


@pytest.mark.requirement("CK-6")
async def test_http_requests_have_no_subprotocols(issuer: Issuer) -> None:
    protected = protect(issuer, RecordingApp(), websocket_subprotocol_tokens=True)
    headers = [("sec-websocket-protocol", f"bearer.{token(issuer)}")]
    assert (await call(protected, headers=headers)).status == 401


VALUES = st.lists(st.sampled_from([b"bearer.a", b"bearer.", b"mcp", b" ", b",", b"\xff", b"Bearer.x"]), max_size=6)


@given(VALUES, VALUES)
def test_no_subprotocol_token_stays_in_the_header(first: list[bytes], second: list[bytes]) -> None:
    compiled = compile_transports(None, True, Problems())
    assert isinstance(compiled, TokenTransports)
    lines = [(b"sec-websocket-protocol", b",".join(first)), (b"sec_websocket_protocol", b", ".join(second))]
    offered = [part.decode("latin-1") for part in (*first, *second)]
    moved, _ = compiled.move_tokens({"type": "websocket", "headers": lines, "subprotocols": offered})
    kept = b",".join(value for name, value in moved["headers"] if name != b"authorization")
    assert not any(part.strip(b" \t").lower().startswith(b"bearer.") for part in kept.split(b","))
    tokens = [value for name, value in moved["headers"] if name == b"authorization"]
    assert len(tokens) == sum(
        part.strip(b" \t").lower().startswith(b"bearer.") for _, v in lines for part in v.split(b",")
    )
    assert not any(offer.lower().startswith("bearer.") for offer in moved["subprotocols"])


@pytest.mark.requirement("CK-6")
async def test_a_file_and_the_environment_switch_the_transports_on(
    issuer: Issuer, tmp_path: Path, capsys: pytest.CaptureFixture[str], blocking_calls: None
) -> None:
    file = tmp_path / "auth.toml"
    file.write_text(
        f'resource = "{R}"\nauthorization_servers = ["{ISS}"]\nwebsocket_subprotocol_tokens = true\n'
        f'[trusted_token_header]\nname = "{FIELD}"\nproxies = ["10.0.0.0/8"]\n'
    )
    variables = {
        "MCP_AUTH_RESOURCE": R,
        "MCP_AUTH_AUTHORIZATION_SERVERS": ISS,
        "MCP_AUTH_TRUSTED_TOKEN_HEADER": f'{{"name": "{FIELD}", "proxies": ["10.0.0.0/8"]}}',
    }
    options: dict[str, Any] = {"http_client": issuer.http_client, "clock": issuer.clock}
    for auth in (MCPAuth.from_toml(file, **options), MCPAuth.from_env(variables, **options)):
        app = auth.wrap(RecordingApp())
        for client, status in ((PROXY, 200), (CLIENT, 401)):
            assert (await call(app, headers=[(FIELD, token(issuer))], client=client)).status == status
    assert main(["check-config", str(file)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "trusted_token_header" in shown
    assert "websocket_subprotocol_tokens = true" in shown
