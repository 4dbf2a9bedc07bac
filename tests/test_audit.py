"""The audit log: which decisions it has, one line each, and what happens if a line cannot be written."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from harness import RecordingApp, bearer, call, protect, token
from hypothesis import given
from hypothesis import strategies as st

from asgi_mcp_auth import AuthInfo, ConfigurationError, Decision, Operation, ScopePolicy
from asgi_mcp_auth._telemetry.audit import audit_line
from asgi_mcp_auth.errors import printable
from asgi_mcp_auth.testing import Issuer, running

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("AU-5")]

JSON: tuple[str, str | bytes] = ("content-type", "application/json")


def message(method: str = "tools/call", **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        pytest.param([], ["refused"], id="refusals always"),
        pytest.param(["tools/call purge*"], ["refused", "purge_all"], id="by name"),
        pytest.param(["tools/call"], ["refused", "purge_all", "list"], id="by method"),
        pytest.param(["tools/list"], ["refused"], id="another method"),
        pytest.param(["*"], ["refused", "purge_all", "list", "GET"], id="everything"),
    ],
)
async def test_allowed_requests_are_written_by_operation(
    operations: list[str], expected: list[str], issuer: Issuer
) -> None:
    lines: list[str] = []
    app = protect(issuer, RecordingApp(), audit="required", audit_sink=lines.append, audit_operations=operations)
    await call(app, "POST", "/mcp", [JSON], body=message(name="purge_all"))
    headers: list[tuple[str, str | bytes]] = [*bearer(token(issuer)), JSON]
    for name in ("purge_all", "list"):
        assert (await call(app, "POST", "/mcp", headers, body=message(name=name))).status == 200
    await call(app, "GET", "/mcp", bearer(token(issuer)))
    await call(app, "GET", "/.well-known/oauth-protected-resource/mcp")
    found = [json.loads(line) for line in lines]
    named = [one["operations"][0]["name"] if "operations" in one else one["method"] for one in found]
    assert [found[0]["outcome"], *named[1:]] == expected


@pytest.mark.requirement("AU-3")
async def test_a_line_has_no_secret_and_is_one_line_whatever_a_tool_is_called(issuer: Issuer) -> None:
    lines: list[str] = []
    policy = ScopePolicy(tools={"*": ["mcp:read"]})
    app = protect(
        issuer, RecordingApp(), audit="best_effort", audit_sink=lines.append, audit_operations=["*"], policy=policy
    )
    text = token(issuer, jti="secret-jti", email="secret@example.com")
    headers: list[tuple[str, str | bytes]] = [*bearer(text), JSON, ("mcp-session-id", "secret-session")]
    body = message(name="a\nb\u2028" + "x" * 5000, arguments={"pin": "secret-pin"})
    assert (await call(app, "POST", "/mcp", headers, body=body, query=b"secret=1")).status == 200
    [line] = lines
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 3000
    assert "secret" not in line
    assert text not in line
    found = json.loads(line)
    assert found["operations"][0]["name"].startswith("a\\nb")
    assert (found["subject"], found["cache_hit"], found["alg"]) == ("alice", False, "RS256")


@pytest.mark.parametrize(
    ("mode", "status", "calls"),
    [
        pytest.param("required", 503, 0, id="required: the app does not run"),
        pytest.param("best_effort", 200, 1, id="best effort: the failure is logged"),
    ],
)
async def test_a_sink_that_raises(
    mode: str, status: int, calls: int, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    def full(line: str) -> None:
        raise OSError("disk full")

    inner = RecordingApp()
    app = protect(issuer, inner, audit=mode, audit_sink=full, audit_operations=["*"])
    answer = await call(app, "GET", "/mcp", bearer(token(issuer)))
    assert (answer.status, inner.calls) == (status, calls)
    assert (await call(app, "GET", "/mcp")).status == 401
    assert any("The audit sink failed" in text and "disk full" in text for text in caplog.messages)


async def test_a_required_log_refuses_public_operations_that_it_cannot_record(issuer: Issuer) -> None:
    def full(line: str) -> None:
        raise OSError

    inner = RecordingApp()
    policy = ScopePolicy(public_methods=["tools/list"])
    app = protect(issuer, inner, audit="required", audit_sink=full, audit_operations=["*"], policy=policy)
    assert (await call(app, "POST", "/mcp", [JSON], body=message("tools/list"))).status == 503
    assert inner.calls == 0


@pytest.mark.parametrize(("is_required", "status"), [(True, 503), (False, 200)])
async def test_a_required_log_refuses_identified_callers_of_public_paths_too(
    is_required: bool, status: int, issuer: Issuer
) -> None:
    def full(line: str) -> None:
        raise OSError

    inner = RecordingApp()
    options: dict[str, Any] = {"public_paths": ["/open"], "identify_public": True, "audit_operations": ["*"]}
    audit = "required" if is_required else "best_effort"
    app = protect(issuer, inner, audit=audit, audit_sink=full, **options)
    assert (await call(app, "GET", "/open", bearer(token(issuer)))).status == status
    assert inner.calls == (not is_required)


@pytest.mark.parametrize(
    ("level", "options", "expected"),
    [
        pytest.param(logging.WARNING, {}, 1, id="the logger drops the lines"),
        pytest.param(logging.INFO, {}, 0, id="the logger writes the lines"),
        pytest.param(logging.WARNING, {"audit_sink": print}, 0, id="a sink"),
        pytest.param(logging.WARNING, {"audit": None}, 0, id="no audit log"),
    ],
)
@pytest.mark.requirement("AU-7")
async def test_a_warning_at_start_says_that_the_audit_log_goes_nowhere(
    level: int, options: dict[str, Any], expected: int, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(level, "asgi_mcp_auth.audit")
    settings: dict[str, Any] = {"audit": "best_effort", "require_warm_up": True, **options}
    async with running(protect(issuer, RecordingApp(), **settings)):
        pass
    warnings = [text for text in caplog.messages if "which drops records of level INFO" in text]
    assert len(warnings) == expected


@pytest.mark.requirement("AU-6")
async def test_no_line_is_built_for_a_logger_that_writes_none(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def build(_: Decision) -> str:
        raise AssertionError("built")

    caplog.set_level(logging.WARNING, "asgi_mcp_auth.audit")
    monkeypatch.setattr("asgi_mcp_auth._telemetry.audit.audit_line", build)
    await call(protect(issuer, RecordingApp(), audit="best_effort"), "GET", "/mcp")
    assert "sink failed" not in caplog.text


names = st.text(min_size=1, max_size=300)


@pytest.mark.requirement("AU-3")
@given(
    names, names, names, st.lists(names, max_size=3), st.lists(names, max_size=3), st.none() | names, st.none() | names
)
def test_every_line_is_json_of_one_line(  # noqa: PLR0917 - texts from the network
    issuer: str, subject: str, tool: str, scopes: list[str], actors: list[str], kid: str | None, request_id: str | None
) -> None:
    act: dict[str, Any] | None = None
    for actor in actors:
        act = {"sub": actor, "act": act}
    info = AuthInfo(issuer=issuer, subject=subject, scopes=scopes, claims={"act": act, "jti": tool})
    operation = Operation(method=tool, kind="tool", name=tool)
    decision = Decision(
        "allowed",
        subject,
        tool,
        auth_info=info,
        operations=(operation,),
        kid=kid,
        scopes_needed=tuple(scopes),
        time=1.5,
    )
    line = audit_line(
        decision._replace(cache_hit=True, verify_seconds=1e-7, request_id=request_id and printable(request_id))
    )
    assert line.isascii()
    assert line.isprintable()
    found = json.loads(line)
    assert (found["time"], found["cache_hit"], found["verify_seconds"]) == (1.5, True, 1e-7)
    assert (found["issuer"], found["subject"]) == (printable(issuer, 512), printable(subject, 256))
    assert found["operations"] == [{"method": printable(tool), "kind": "tool", "name": printable(tool, 256)}]
    assert found.get("scopes_granted", []) == [printable(scope) for scope in scopes]
    assert found.get("actors", []) == [printable(actor, 256) for actor in reversed(actors)]
    assert found.get("kid") == (kid and printable(kid))
    assert found.get("request_id") == (request_id and printable(request_id))


async def test_without_a_sink_lines_go_to_a_logger(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asgi_mcp_auth.audit")
    await call(protect(issuer, RecordingApp(), audit="best_effort"), "GET", "/mcp")
    [record] = [one for one in caplog.records if one.name == "asgi_mcp_auth.audit"]
    assert json.loads(record.getMessage())["reason"] == "no_credential"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"audit": "always"}, id="no such mode"),
        pytest.param({"audit": []}, id="unhashable"),
        pytest.param({"audit": "required"}, id="required without a sink: logging handlers swallow errors"),
        pytest.param({"audit_operations": ["*"]}, id="without a mode"),
        pytest.param({"audit": "best_effort", "audit_sink": 5}, id="sink"),
        pytest.param({"audit": "best_effort", "audit_operations": "*"}, id="operations as text"),
    ],
)
def test_a_wrong_option_is_a_configuration_error(options: dict[str, Any], issuer: Issuer) -> None:
    with pytest.raises(ConfigurationError, match="audit"):
        protect(issuer, RecordingApp(), **options)
