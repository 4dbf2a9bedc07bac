"""The state file of the development authorization server: keys, clients and grants survive a restart."""

from __future__ import annotations

import functools
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from dev import BASE, M2M, MCP, Session, dev_server, error_of
from harness import Clock, RecordingApp, bearer, call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgi_mcp_auth import MCPAuthMiddleware
from asgi_mcp_auth.dev import DevServer
from asgi_mcp_auth.errors import ConfigurationError

pytestmark = pytest.mark.anyio

POSIX = pytest.mark.skipif(os.name != "posix", reason="file modes")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


async def started(path: Path, **options: Any) -> DevServer:
    """Return a server with a state file. It is constructed in a thread, because the file is read without await."""
    return await anyio.to_thread.run_sync(lambda: dev_server(state=path, **options))


async def read(path: Path) -> dict[str, Any]:
    """Return the members of a state file."""
    members: dict[str, Any] = json.loads(await anyio.Path(path).read_bytes())
    return members


def kids(server: DevServer) -> list[str]:
    return [key["kid"] for key in server.jwks()["keys"]]


async def status(server: DevServer, token: str) -> int:
    """Return the status with which a protected app answers a token."""
    app = MCPAuthMiddleware(
        RecordingApp(), resource=MCP, authorization_servers=[server.url], http_client=server.http_client
    )
    return (await call(app, headers=bearer(token), host="localhost:8000")).status


async def test_clients_tokens_and_keys_survive_a_restart(path: Path) -> None:
    async with Session(await started(path)) as session:
        client = await session.register(token_endpoint_auth_method="client_secret_post")
        client_id, secret = client["client_id"], client["client_secret"]
        code = (await session.authorize(client_id, scope="mcp:read offline_access"))["code"]
        tokens = (await session.exchange(client_id, code, client_secret=secret)).json()
        before = kids(session.server)
    async with Session(await started(path)) as session:
        assert kids(session.server) == before
        assert await status(session.server, tokens["access_token"]) == 200
        form = {"token": tokens["access_token"], "client_id": client_id, "client_secret": secret}
        assert (await session.post("/introspect", data=form)).json()["active"] is True
        refreshed = await session.refresh(client_id, tokens["refresh_token"], client_secret=secret)
        assert refreshed.json()["scope"] == "mcp:read"
        assert (await session.exchange(client_id, code, client_secret=secret)).status_code == 400, "codes are not kept"
        again = await session.authorize(client_id)
        assert "code" in again


async def test_without_a_state_file_nothing_survives() -> None:
    async with Session(dev_server()) as session:
        client_id = (await session.register())["client_id"]
        before = kids(session.server)
    async with Session(dev_server()) as session:
        assert not set(kids(session.server)) & set(before)
        assert (await session.get("/authorize", params=session.request(client_id))).status_code == 400


@pytest.mark.requirement("AS-35")
async def test_reuse_of_a_refresh_token_is_detected_after_a_restart(path: Path) -> None:
    async with Session(await started(path)) as session:
        client_id = (await session.register())["client_id"]
        first = (await session.login(client_id))["refresh_token"]
        second = (await session.refresh(client_id, first)).json()["refresh_token"]
    async with Session(await started(path)) as session:
        assert error_of(await session.refresh(client_id, first)) == (400, "invalid_grant")
    async with Session(await started(path)) as session:
        assert error_of(await session.refresh(client_id, second)) == (400, "invalid_grant")


@pytest.mark.parametrize("revoked", ["refresh_token", "access_token"])
async def test_revocation_survives_a_restart(path: Path, revoked: str) -> None:
    async with Session(await started(path)) as session:
        client_id = (await session.register())["client_id"]
        tokens = await session.login(client_id)
        await session.post("/revoke", data={"token": tokens[revoked], "client_id": client_id})
    async with Session(await started(path)) as session:
        assert not await session.is_active(tokens[revoked], client_id)


async def test_rotation_and_forgetting_survive_a_restart(path: Path, clock: Clock) -> None:
    async with Session(await started(path, clock=clock, token_lifetime=100)) as session:
        client_id = (await session.register())["client_id"]
        rotated = (await session.post("/dev/rotate", json={})).json()["kids"]
        await session.post("/dev/forget", json={})
    async with Session(await started(path, clock=clock, token_lifetime=100)) as session:
        assert kids(session.server) == rotated
        assert (await session.get("/authorize", params=session.request(client_id))).status_code == 400
        clock.now += 101
        assert kids(session.server) == rotated[:1], "the old key is removed as without a restart"


async def test_expired_tokens_are_not_kept(path: Path, clock: Clock) -> None:
    async with Session(await started(path, clock=clock, refresh_lifetime=700)) as session:
        client_id = (await session.register())["client_id"]
        await session.login(client_id)
        clock.now += 600
        await session.register()
        stored = await read(path)
        assert (len(stored["access_tokens"]), len(stored["refresh_tokens"]), len(stored["grants"])) == (0, 1, 1)
        clock.now += 100
        await session.register()
        stored = await read(path)
    assert (stored["access_tokens"], stored["refresh_tokens"], stored["grants"]) == ([], [], [])


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"resources": ["http://localhost:8001/mcp"]}, id="another resource"),
        pytest.param({"scopes": ["files:write"]}, id="other scopes"),
        pytest.param({"users": ["bob"]}, id="other users"),
    ],
)
async def test_grants_that_the_options_no_longer_allow_are_dropped(path: Path, options: dict[str, Any]) -> None:
    async with Session(await started(path)) as session:
        client_id = (await session.register())["client_id"]
        tokens = await session.login(client_id)
    async with Session(await started(path, **options)) as session:
        assert error_of(await session.refresh(client_id, tokens["refresh_token"])) == (400, "invalid_grant")
        assert not await session.is_active(tokens["access_token"], client_id)


async def test_grants_of_removed_clients_are_dropped(path: Path) -> None:
    rs = {"client_id": "rs", "client_secret": "rs-secret", "grant_types": ["client_credentials"]}
    async with Session(await started(path, clients=[M2M, rs])) as session:
        token = (await session.token("client_credentials", auth=("m2m", "m2m-secret"))).json()["access_token"]
    for clients, active in (([M2M, rs], True), ([rs], False)):
        async with Session(await started(path, clients=clients)) as session:
            response = await session.post("/introspect", data={"token": token}, auth=("rs", "rs-secret"))
            assert response.json()["active"] is active


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"])
async def test_keys_of_every_algorithm_survive_a_restart(path: Path, alg: str) -> None:
    before = await started(path, algorithms=[alg])
    after = await started(path, algorithms=[alg])
    assert after.jwks() == before.jwks()
    assert await status(before, after.mint(MCP)) == 200


def test_new_algorithms_get_keys_and_old_keys_stay_published(path: Path, clock: Clock) -> None:
    (old,) = kids(dev_server(state=path, algorithms=["ES256"], clock=clock))
    server = dev_server(state=path, algorithms=["ES384"], clock=clock, token_lifetime=100)
    assert [key.alg for key in server.keys] == ["ES384", "ES256"]
    assert kids(server)[1] == old
    clock.now += 101
    assert [key["alg"] for key in server.jwks()["keys"]] == ["ES384"]
    again = dev_server(state=path, algorithms=["ES256", "ES384"], clock=clock)
    assert [key["alg"] for key in again.jwks()["keys"]] == ["ES256", "ES384"]
    assert kids(again)[1] == kids(server)[0]


async def test_the_file_has_mode_0600_and_no_token(path: Path) -> None:
    async with Session(await started(path)) as session:
        client_id = (await session.register())["client_id"]
        tokens = await session.login(client_id)
    found = await anyio.Path(path).stat()
    assert os.name != "posix" or stat.S_IMODE(found.st_mode) == 0o600
    text = await anyio.Path(path).read_text("ascii")
    assert tokens["access_token"] not in text
    assert tokens["refresh_token"] not in text
    assert os.listdir(path.parent) == [path.name], "no temporary file remains"  # noqa: PTH208


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(ConfigurationError) as refused:
        dev_server(state=path, **options)
    (problem,) = refused.value.problems
    assert problem.where == "state"
    assert str(path) in problem.what, "the message names the file"
    assert problem.fix
    return problem.what


@POSIX
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o666, 0o601])
def test_a_file_that_others_may_use_is_refused(path: Path, mode: int) -> None:
    dev_server(state=path)
    path.chmod(mode)
    assert f"mode {mode:04o}" in refusal(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@POSIX
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(os.mkdir, id="a directory"),
        pytest.param(os.mkfifo, id="a FIFO"),
        pytest.param(functools.partial(os.symlink, "other"), id="a symbolic link"),
    ],
)
def test_what_is_not_a_regular_file_is_refused(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    refusal(path)


def test_a_file_in_a_missing_directory_is_refused(tmp_path: Path) -> None:
    assert "cannot be written" in refusal(tmp_path / "missing" / "state.json")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A state with an entry in every list."""
    path: Path = tmp_path_factory.mktemp("full") / "state.json"

    async def use() -> None:
        async with Session(await started(path)) as session:
            await session.login((await session.register())["client_id"])

    anyio.run(use)
    members: dict[str, Any] = json.loads(path.read_bytes())
    return members


def changed(**members: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content | members


def as_list(content: dict[str, Any]) -> list[Any]:
    return [content]


def changed_entry(name: str, **members: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content | {name: [content[name][0] | members, *content[name][1:]]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(as_list, "is not JSON", id="a list"),
        pytest.param(changed(format="x"), "format is not", id="another format"),
        pytest.param(changed(version=2), "version is 2, but this release reads version 1", id="another version"),
        pytest.param(changed(version=True), "version has the wrong type", id="a version that is a boolean"),
        pytest.param(changed(issuer=f"{BASE}/t1"), "belongs to the issuer", id="another issuer"),
        pytest.param(changed(keys={}), "keys has the wrong type", id="keys no list"),
        pytest.param(changed(keys=["x"]), "keys[0]: the entry has the wrong type", id="a key no object"),
        pytest.param(changed_entry("keys", pem="x"), "keys[0]: pem is not a private key", id="no PEM"),
        pytest.param(changed_entry("keys", pem="é"), "keys[0]: pem is not a private key", id="PEM not ASCII"),
        pytest.param(changed_entry("keys", alg="RS256"), "keys[0]: pem is not a private key", id="another kind of key"),
        pytest.param(changed_entry("keys", alg="ES384"), "keys[0]: pem is not a private key", id="another curve"),
        pytest.param(changed_entry("keys", alg="HS256"), "keys[0]: pem is not a private key", id="a shared secret"),
        pytest.param(changed_entry("keys", kid=None), "keys[0]: kid has the wrong type", id="no kid"),
        pytest.param(changed_entry("clients", client_id=1), "clients[0]: client_id", id="a client id no text"),
        pytest.param(changed_entry("clients", metadata=[]), "clients[0]: metadata", id="metadata no object"),
        pytest.param(
            changed_entry("clients", metadata={"redirect_uris": ["ssh://x"]}),
            "clients[0]: redirect_uris[0] has the scheme ssh",
            id="a redirect URI that is refused",
        ),
        pytest.param(
            changed_entry("clients", metadata={"redirect_uris": [BASE], "token_endpoint_auth_method": "client_secret_post"}),
            "clients[0]: secret is missing",
            id="no secret",
        ),
        pytest.param(changed_entry("grants", scopes="a"), "grants[0]: scopes has the wrong type", id="scopes no list"),
        pytest.param(changed_entry("grants", resources=[1]), "grants[0]: resources", id="a resource no text"),
        pytest.param(changed_entry("grants", offline=1), "grants[0]: offline", id="a number for a boolean"),
        pytest.param(changed_entry("refresh_tokens", grant=9), "refresh_tokens[0]: grant is not an index", id="no grant"),
        pytest.param(changed_entry("refresh_tokens", grant=-1), "refresh_tokens[0]: grant is not an index", id="minus one"),
        pytest.param(changed_entry("refresh_tokens", sha256="00"), "refresh_tokens[0]: sha256", id="a short digest"),
        pytest.param(changed_entry("access_tokens", sha256="x" * 64), "access_tokens[0]: sha256", id="a digest not hexadecimal"),
        pytest.param(changed_entry("access_tokens", claims={}), "access_tokens[0]: exp", id="claims without exp"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_named(
    path: Path, full: dict[str, Any], change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    path.touch(0o600)
    path.write_text(json.dumps(change(full)))
    before = path.read_bytes()
    assert said in refusal(path)
    assert path.read_bytes() == before, "the file is not overwritten"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"format":1,"format":2}', b"[" * 100_000])
def test_a_file_that_is_not_json_is_named(path: Path, content: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(content)
    assert "is not JSON" in refusal(path)


json_values: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
lists = st.sampled_from(["keys", "clients", "grants", "refresh_tokens", "access_tokens"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=lists, entries=st.lists(json_values, max_size=3))
def test_any_entries_load_or_are_refused(path: Path, full: dict[str, Any], name: str, entries: list[Any]) -> None:
    path.touch(0o600)
    path.write_text(json.dumps(full | {name: entries}))
    if entries:
        refusal(path)  # no entry that hypothesis makes has all members
    elif name != "grants":
        dev_server(state=path)


async def test_changes_by_methods_are_saved_at_shutdown(path: Path) -> None:
    server = await started(path)
    queue = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        message = queue.pop(0)
        if not queue:
            server.rotate()
        return message

    async def send(message: Any) -> None:
        stored = [entry["kid"] for entry in (await read(path))["keys"]]
        assert message["type"] == "lifespan.startup.complete" or stored == kids(server)

    await server({"type": "lifespan"}, receive, send)
    assert len(kids(server)) == 2


async def test_a_state_that_cannot_be_saved_is_a_503(path: Path) -> None:
    """A client must not rely on a registration or a token that a restart would lose."""
    async with Session(await started(path)) as session:
        await anyio.Path(path).unlink()
        await anyio.Path(path).mkdir()
        refused = await session.post("/register", json={"redirect_uris": ["http://localhost/cb"]})
        assert error_of(refused) == (503, "temporarily_unavailable")
        await anyio.Path(path).rmdir()
        assert (await session.register())["client_id"]
    assert len((await read(path))["clients"]) == 2


async def test_the_file_is_written_only_after_changes(path: Path) -> None:
    async with Session(await started(path)) as session:
        await anyio.Path(path).unlink()
        await session.get("/jwks")
        await session.post("/token", data={})
        assert not await anyio.Path(path).exists()
        await session.register()
        assert await anyio.Path(path).exists()
