"""API keys in addition to access tokens: the file, the store, the two ways to send one, and the command."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from harness import INVALID, ISS, Clock, R, RecordingApp, bearer, call, chr_, cht, protect, token

from asgi_mcp_auth import (
    ApiKeys,
    AuthServerConfig,
    Choose,
    ConfigurationError,
    Decision,
    Introspection,
    MCPAuth,
    MCPAuthMiddleware,
    MemoryStore,
    Principal,
)
from asgi_mcp_auth._policy.api_key_file import (
    API_KEY_ISSUER,
    ApiKeyRecord,
    FaultyRecordError,
    digest_of,
    parse_record,
)
from asgi_mcp_auth.cli import main
from asgi_mcp_auth.testing import Issuer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("blocking_calls")]  # the file is read at construction

KEY = "pat_abcdefghijklmnopqrstuvwxyz0123456789"
PEPPER = "a pepper of this server"
REFUSED = (401, cht(INVALID))
PASSED = (200, None)


def record(key: str = KEY, *, pepper: str | None = None, **changes: Any) -> ApiKeyRecord:
    digest = digest_of(key.encode(), pepper)
    kind = "sha256" if pepper is None else "hmac_sha256"
    members: dict[str, Any] = {"id": "k1", "subject": "alice", "scopes": ("mcp:read",), kind: digest}
    return ApiKeyRecord(**(members | changes))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    write(path, record())
    return path


def write(path: Path, *records: ApiKeyRecord) -> None:
    path.write_text("# our keys\n\n" + "\n".join(found.line() for found in records) + "\n")


def spoil(path: Path, text: str | None) -> None:
    path.unlink()
    if text is not None:
        path.write_text(text)


def guard(
    issuer: Issuer, file: Path | None, *, clock: Any = None, app: Any = None, options: Any = None, **settings: Any
) -> MCPAuthMiddleware:
    keys = ApiKeys(file=None if file is None else str(file), **settings)
    verifier = Choose(keys=keys, opaque=Introspection(client_id="rs", client_secret="s"))
    return protect(issuer, app or RecordingApp(), clock=clock, verifier=verifier, **(options or {}))


async def outcome(guarded: Any, headers: Any, **more: Any) -> tuple[int, str | None]:
    answer = await call(guarded, headers=headers, **more)
    return answer.status, answer.challenge or answer.header("retry-after")


def field(key: str = KEY, name: str = "x-api-key") -> list[tuple[str, str | bytes]]:
    return [(name, key)]


@pytest.mark.requirement("AU-1", "CK-1", "CK-3")
async def test_api_keys_stand_beside_oauth_on_one_resource(issuer: Issuer, file: Path) -> None:
    app, seen = RecordingApp(), list[Decision]()
    guarded = guard(issuer, file, app=app, options={"on_decision": [seen.append]})
    assert await outcome(guarded, bearer(KEY)) == PASSED
    assert await outcome(guarded, field()) == PASSED
    assert [(one.outcome, one.credential) for one in seen] == [("allowed", "bearer"), ("allowed", "api_key")]
    assert issuer.requests == {}  # neither metadata nor introspection
    assert await outcome(guarded, bearer(token(issuer))) == PASSED
    assert await outcome(guarded, bearer(issuer.mint_opaque(R, scope="mcp:read"))) == PASSED
    info = app.scopes[0]["state"]["mcp_auth"]
    assert info.principal == Principal(issuer=API_KEY_ISSUER, subject="alice", client_id=None)
    assert (info.scopes, info.claims["api_key_id"], info.token) == (("mcp:read",), "k1", None)


@pytest.mark.requirement("CK-3")
@pytest.mark.parametrize(
    ("changes", "sent"),
    [
        pytest.param({}, "pat_unknown", id="unknown"),
        pytest.param({"revoked": True}, KEY, id="revoked"),
        pytest.param({"expires_at": 1_800_000_000}, KEY, id="expired"),
        pytest.param({"resource": "https://other.example/mcp"}, KEY, id="for another resource"),
    ],
)
async def test_unknown_revoked_and_expired_keys_look_alike(
    issuer: Issuer, clock: Clock, file: Path, changes: dict[str, Any], sent: str
) -> None:
    write(file, record(**changes))
    decisions: list[Decision] = []
    guarded = guard(issuer, file, clock=clock, options={"on_decision": [decisions.append]})
    answers = [await call(guarded, headers=headers) for headers in (bearer(sent), field(sent))]
    assert [(answer.status, answer.challenge) for answer in answers] == [REFUSED] * 2
    assert (
        answers[0].body
        == answers[1].body
        == b'{"error":"invalid_token","error_description":"The access token is invalid"}'
    )
    assert {decision.reason for decision in decisions} == {"invalid_api_key"}
    assert sent not in repr(decisions)


@pytest.mark.requirement("CK-3")
async def test_a_key_needs_the_scopes_of_the_policy(issuer: Issuer, file: Path) -> None:
    write(file, record(scopes=("other",)))
    assert (await outcome(guard(issuer, file), field()))[0] == 403


@pytest.mark.requirement("CK-4")
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([*bearer(KEY), *field()], id="a bearer token and a key"),
        pytest.param([("authorization", "Basic eDp5"), *field()], id="another scheme and a key"),
        pytest.param([*field(), *field("pat_other")], id="two keys"),
        pytest.param([*field(), *field(name="x_api_key")], id="two spellings"),
    ],
)
async def test_two_credentials_are_a_bad_request(issuer: Issuer, file: Path, headers: Any) -> None:
    assert await outcome(guard(issuer, file), headers) == (400, chr_("More than one credential"))


@pytest.mark.requirement("CK-3")
async def test_a_key_in_the_query_or_without_its_prefix_is_no_key(issuer: Issuer, file: Path) -> None:
    write(file, record("plainkey"))
    guarded = guard(issuer, file)
    assert (await call(guarded, query=b"x-api-key=plainkey&access_token=plainkey")).status == 401
    assert await outcome(guarded, bearer("plainkey")) == REFUSED
    assert await outcome(guarded, field("plainkey")) == PASSED
    assert await outcome(guard(issuer, file, header=None), field("plainkey")) == (
        401,
        cht().partition('error="')[0]
        + 'scope="mcp:read", resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp"',
    )


@pytest.mark.requirement("CK-3")
async def test_the_app_never_sees_the_key(issuer: Issuer, file: Path) -> None:
    app = RecordingApp()
    guarded = guard(issuer, file, app=app, options={"expose_token": True})
    for headers in (field(), field(name="X_Api_Key"), bearer(KEY)):
        assert await outcome(guarded, headers) == PASSED
    assert KEY not in repr(app.scopes)


@pytest.mark.requirement("CK-3")
async def test_a_revocation_in_the_file_is_effective_within_a_second(issuer: Issuer, clock: Clock, file: Path) -> None:
    guarded = guard(issuer, file, clock=clock)
    assert await outcome(guarded, field()) == PASSED
    write(file, record(revoked=True))
    assert await outcome(guarded, field()) == PASSED
    clock.now += 1
    assert await outcome(guarded, field()) == REFUSED


@pytest.mark.requirement("CK-3")
async def test_a_file_that_becomes_unusable_is_a_503(issuer: Issuer, clock: Clock, file: Path) -> None:
    guarded = guard(issuer, file, clock=clock)
    clock.now += 1
    spoil(file, "{}")
    assert await outcome(guarded, field()) == (503, "1")
    spoil(file, None)
    assert await outcome(guarded, field()) == (503, "1")
    write(file, record())
    assert await outcome(guarded, field()) == PASSED


@pytest.mark.requirement("CK-3")
async def test_keys_in_a_store(issuer: Issuer) -> None:
    store = MemoryStore()
    stored = record(pepper=PEPPER)
    await store.put(f"api-key:{stored.hmac_sha256}", stored.line().encode(), 60)
    guarded = guard(issuer, None, store=store, pepper=PEPPER)
    assert await outcome(guarded, bearer(KEY)) == PASSED
    assert await outcome(guarded, field("pat_unknown")) == REFUSED
    digest = digest_of(b"pat_wrong", PEPPER)
    await store.put(f"api-key:{digest}", stored.line().encode(), 60)  # a record of another key
    assert await outcome(guarded, field("pat_wrong")) == REFUSED
    await store.put(f"api-key:{stored.hmac_sha256}", b"{}", 60)
    assert await outcome(guarded, field()) == (503, "1")


class BrokenStore(MemoryStore):
    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        raise ConnectionError(keys)


@pytest.mark.requirement("CK-3")
async def test_a_store_that_fails_is_a_503_and_the_log_has_no_key(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    assert await outcome(guard(issuer, None, store=BrokenStore()), field()) == (503, "1")
    assert KEY not in caplog.text


@pytest.mark.requirement("CK-3")
@pytest.mark.parametrize(
    ("settings", "where"),
    [
        pytest.param({}, "verifier.keys", id="neither file nor store"),
        pytest.param({"file": "missing"}, "verifier.keys.file", id="no such file"),
        pytest.param({"store": 1}, "verifier.keys.store", id="no store"),
        pytest.param({"store": MemoryStore(), "prefix": "a b"}, "verifier.keys.prefix", id="prefix"),
        pytest.param({"store": MemoryStore(), "prefix": "eyJ"}, "verifier.keys.prefix", id="the beginning of JWTs"),
        pytest.param(
            {"store": MemoryStore(), "prefix": None, "header": None}, "verifier.keys", id="no way to send one"
        ),
        pytest.param({"store": MemoryStore(), "header": "Authorization"}, "verifier.keys.header", id="authorization"),
        pytest.param({"store": MemoryStore(), "header": "mcp_session_id"}, "verifier.keys.header", id="a field of MCP"),
        pytest.param({"store": MemoryStore(), "header": "x key"}, "verifier.keys.header", id="no field name"),
        pytest.param({"store": MemoryStore(), "pepper": "short"}, "verifier.keys.pepper", id="pepper"),
    ],
)
def test_settings_that_cannot_work_are_problems(issuer: Issuer, settings: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        protect(issuer, RecordingApp(), verifier=Choose(keys=ApiKeys(**settings)))
    assert [problem.where for problem in caught.value.problems] == [where]


@pytest.mark.requirement("CK-3")
def test_no_issuer_can_have_the_issuer_of_api_keys(issuer: Issuer) -> None:
    server = AuthServerConfig(issuer=ISS, token_issuers=[API_KEY_ISSUER])
    with pytest.raises(ConfigurationError, match="is the issuer of API keys"):
        protect(issuer, RecordingApp(), authorization_servers=[server])


GOOD = json.loads(record().line())


@pytest.mark.requirement("CK-3")
@pytest.mark.parametrize(
    "members",
    [
        pytest.param(GOOD | {"key": KEY}, id="an unknown member"),
        pytest.param(GOOD | {"id": ""}, id="no id"),
        pytest.param(GOOD | {"subject": 1}, id="subject"),
        pytest.param(GOOD | {"sha256": "abc"}, id="digest"),
        pytest.param(GOOD | {"hmac_sha256": GOOD["sha256"]}, id="two digests"),
        pytest.param(GOOD | {"scopes": "mcp:read"}, id="scopes"),
        pytest.param(GOOD | {"expires_at": "soon"}, id="expires_at"),
        pytest.param(GOOD | {"revoked": "no"}, id="revoked"),
    ],
)
def test_a_record_of_another_form_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(FaultyRecordError):
        parse_record(json.dumps(members).encode())
    assert parse_record(json.dumps(GOOD).encode()) == record()


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("CK-3")
async def test_the_command_makes_lists_and_revokes_keys(
    issuer: Issuer, clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys"
    arguments = ["--subject", "bob", "--scope", "mcp:read", "--file", str(file)]
    assert main(["api-key", "new", *arguments, "--expires-in-days", "3650"]) == 0
    key = capsys.readouterr().out.strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (key.startswith("pat_"), len(key) > 40, key in file.read_text()) == (True, True, False)
    file.write_text("# ours\n" + file.read_text().rstrip("\n"))
    assert main(["api-key", "new", *arguments]) == 0
    second = capsys.readouterr().out.strip()
    assert main(["api-key", "list", str(file)]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert ["bob" in line for line in listed] == [True, True]
    auth = MCPAuth.from_mapping(
        {
            "resource": R,
            "authorization_servers": [ISS],
            "required_scopes": ["mcp:read"],
            "verifier": {"keys": {"file": str(file)}},
        },
        clock=clock,
    )
    guarded = auth.wrap(RecordingApp())
    assert [await outcome(guarded, bearer(sent)) for sent in (key, second)] == [PASSED, PASSED]
    assert main(["api-key", "revoke", str(file), listed[0].split()[0]]) == 0
    assert main(["api-key", "revoke", str(file), "missing"]) == 1
    clock.now += 1
    assert [await outcome(guarded, bearer(sent)) for sent in (key, second)] == [REFUSED, PASSED]
    assert file.read_text().startswith("# ours\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.requirement("CK-3")
def test_a_revocation_keeps_the_mode_and_the_owner_of_the_file(tmp_path: Path) -> None:
    """A server that runs as another user must still be able to read the file."""
    file = tmp_path / "keys"
    assert main(["api-key", "new", "--subject", "bob", "--file", str(file)]) == 0
    file.chmod(0o640)
    if os.geteuid() == 0:  # only root can give a file away
        os.chown(file, 65534, 65534)
    before = file.stat()
    assert main(["api-key", "revoke", str(file), json.loads(file.read_text())["id"]]) == 0
    after = file.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


@pytest.mark.requirement("CK-3")
def test_a_revocation_that_cannot_be_written_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    assert main(["api-key", "new", "--subject", "bob", "--file", str(file)]) == 0
    before = file.read_text()

    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("asgi_mcp_auth.dev._files.os.fsync", no_space)
    assert main(["api-key", "revoke", str(file), json.loads(before)["id"]]) == 1
    assert "cannot be written: No space left on device. No key was revoked." in " ".join(
        capsys.readouterr().err.split()
    )
    assert (file.read_text(), list(tmp_path.iterdir())) == (before, [file])


@pytest.mark.requirement("CK-3")
def test_a_key_with_a_pepper_is_stored_as_hmac(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["api-key", "new", "--subject", "bob", "--pepper-env", "PEPPER"]) == 2
    monkeypatch.setenv("PEPPER", PEPPER)
    assert main(["api-key", "new", "--subject", "bob", "--pepper-env", "PEPPER"]) == 0
    key, line = capsys.readouterr().out.splitlines()[-2:]
    assert json.loads(line)["hmac_sha256"] == digest_of(key.encode(), PEPPER)
    assert main(["api-key", "new", "--subject", "bob", "--scope", "a b"]) == 2


async def test_without_api_keys_the_field_is_the_apps(issuer: Issuer) -> None:
    app = RecordingApp()
    assert await outcome(protect(issuer, app), [*bearer(token(issuer)), *field()]) == PASSED
    assert (b"x-api-key", KEY.encode()) in app.scopes[0]["headers"]
