"""The doctor with configuration files: the file, its issuers, and the resource if it responds."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from clinic import OAUTH, PRM, Clinic, answering, diagnose, for_browsers, names, problems
from processes import free_port

from asgi_mcp_auth import MCPAuth, MCPAuthMiddleware, MemoryStore
from asgi_mcp_auth.doctor import Severity, examine

ERROR, WARNING, INFO, OK = Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.OK


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mcp-auth.toml"


def shorthand(clinic: Clinic, *, resource: str | None = None, scopes: str = "mcp:read", more: str = "") -> str:
    return (
        f'resource = "{resource or clinic.resource}"\nauthorization_servers = ["{clinic.issuer.url}"]\n'
        f'required_scopes = ["{scopes}"]\n{more}'
    )


def test_a_good_file_of_a_running_server(clinic: Clinic, file: Path) -> None:
    file.write_text(shorthand(clinic))
    report = diagnose(str(file))
    assert report.kind == "config"
    assert problems(report) == set()
    assert {"config_good", "metadata_found", "keys_usable", "protected", "resource_metadata_found"} <= names(
        report.findings, OK
    )


def test_every_problem_of_a_file_is_a_finding(file: Path) -> None:
    file.write_text('resource = "mcp.example.com"\nauthorization_server = ["https://auth.example.com"]\n')
    report = diagnose(str(file))
    assert names(report.findings, *Severity) == {"config_invalid"}
    assert len(report.findings) > 1
    assert any(
        f"{file}:2" in finding.evidence and "authorization_servers" in finding.fix for finding in report.findings
    )


@pytest.mark.parametrize("target", ["auth.example.com", "missing.toml"])
def test_no_such_file(target: str) -> None:
    (finding,) = diagnose(target).findings
    assert finding.code.name == "config_invalid"
    assert finding.fix.endswith("A URL begins with https://.")


def test_warnings_are_findings_and_are_not_logged(clinic: Clinic, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text(shorthand(clinic, resource=f"{clinic.resource}/"))
    report = diagnose(str(file))
    assert "config_warning" in names(report.findings, WARNING)
    assert not [record for record in caplog.records if record.name == "asgi_mcp_auth.config"]


def test_a_resource_that_is_not_running(clinic: Clinic, file: Path) -> None:
    file.write_text(shorthand(clinic, resource=f"http://127.0.0.1:{free_port()}/mcp"))
    report = diagnose(str(file))
    assert problems(report) == set()
    assert "resource_not_reachable" in names(report.findings, INFO)


def test_a_server_that_runs_another_configuration(clinic: Clinic, file: Path) -> None:
    file.write_text(shorthand(clinic, scopes="mcp:write"))
    (finding,) = [finding for finding in diagnose(str(file)).findings if finding.severity is WARNING]
    assert finding.code.name == "deployed_differs"
    assert "['mcp:read']" in finding.evidence
    assert "['mcp:write']" in finding.evidence


def test_a_resource_of_the_file_that_is_not_protected(clinic: Clinic, file: Path) -> None:
    file.write_text(shorthand(clinic))
    clinic.server.app = answering(200)
    assert {"not_protected", "resource_mismatch"} <= names(diagnose(str(file)).findings, ERROR)


@pytest.mark.parametrize(("others", "codes"), [([], {"app_not_found"}), (["/other"], set[str]())])
def test_a_token_is_sent_to_the_only_resource_of_a_file(
    clinic: Clinic, file: Path, others: list[str], codes: set[str]
) -> None:
    urls = [clinic.resource, *(f"{clinic.server.url}{path}" for path in others)]
    file.write_text(
        "".join(
            f'[[protected_resources]]\nmetadata = {{resource = "{url}", authorization_servers = ["{clinic.issuer.url}"]}}\n'
            for url in urls
        )
    )
    clinic.server.app = MCPAuth.from_toml(file).wrap(answering(404))
    assert problems(diagnose(str(file), token=clinic.issuer.mint(clinic.resource))) == codes


def test_an_issuer_of_two_resources_is_examined_once(clinic: Clinic, file: Path) -> None:
    blocks = [
        f'[[protected_resources]]\nmetadata = {{resource = "{clinic.server.url}/{name}", '
        f'authorization_servers = ["{clinic.issuer.url}"]}}\n'
        for name in ("a", "b")
    ]
    file.write_text("".join(blocks))
    clinic.server.app = answering(404)
    report = diagnose(str(file))
    assert [finding.code.name for finding in report.findings].count("metadata_found") == 1
    assert clinic.issuer.requests["/jwks"] == 1


@pytest.mark.requirement("DC-1")
@pytest.mark.parametrize(("kind", "codes"), [("oidc", {"type_place_missing"}), ("oauth", set[str]())])
def test_the_url_that_the_type_selects_is_checked(clinic: Clinic, file: Path, kind: str, codes: set[str]) -> None:
    """Clients find the metadata at another URL, the middleware does not."""
    clinic.issuer.answer("/.well-known/openid-configuration", {}, status=404)
    server = f'{{issuer = "{clinic.issuer.url}", type = "{kind}"}}'
    file.write_text(f'resource = "http://127.0.0.1:{free_port()}/mcp"\nauthorization_servers = [{server}]\n')
    assert problems(diagnose(str(file))) == codes


def of_tenants(clinic: Clinic, file: Path, *tenants: str) -> None:
    """Write a file that trusts tenants of a template, with the metadata at `/meta.json`."""
    issuer = f"{clinic.issuer.url}/{{tenant}}"
    clinic.issuer.answer("/meta.json", {**clinic.issuer.metadata, "issuer": issuer})
    server = f'{{issuer = "{issuer}", tenants = {json.dumps(tenants)}, metadata_url = "{clinic.issuer.url}/meta.json"}}'
    file.write_text(f'resource = "http://127.0.0.1:{free_port()}/mcp"\nauthorization_servers = [{server}]\n')


def test_DC_15_tenants_are_examined_as_clients_see_them(clinic: Clinic, file: Path) -> None:  # noqa: N802
    of_tenants(clinic, file, "t1", "t2")
    for tenant in ("t1", "t2"):
        document = {**clinic.issuer.metadata, "issuer": f"{clinic.issuer.url}/{tenant}"}
        clinic.issuer.answer(f"{OAUTH}/{tenant}", document, headers={"access-control-max-age": "0"})
    report = diagnose(str(file))
    assert problems(report) == set()
    assert [finding.code.name for finding in report.findings].count("metadata_found") == 2


def test_DC_15_faults_of_tenants_and_templates(clinic: Clinic, file: Path) -> None:  # noqa: N802
    of_tenants(clinic, file, "t1", "t2", "t3", "t4")
    assert problems(diagnose(str(file))) == {"metadata_not_found"}
    clinic.issuer.answer("/meta.json", clinic.issuer.metadata)
    assert problems(diagnose(str(file))) == {"metadata_not_found", "issuer_mismatch"}
    clinic.issuer.answer("/meta.json", {"issuer": f"{clinic.issuer.url}/{{tenant}}", "jwks_uri": 1})
    assert problems(diagnose(str(file))) == {"metadata_not_found", "metadata_invalid"}
    clinic.issuer.answer("/meta.json", {}, status=500)
    report = diagnose(str(file))
    assert problems(report) == {"metadata_not_found", "error_status"}
    assert [finding.code.name for finding in report.findings].count("metadata_not_found") == 3


def test_values_from_the_environment_are_not_shown(clinic: Clinic, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS_URL", f"{clinic.issuer.url}/jwks?secret=hunter2")
    server = f'{{issuer = "{clinic.issuer.url}", jwks_uri = {{from_env = "KEYS_URL"}}}}'
    file.write_text(f'resource = "{clinic.resource}"\nauthorization_servers = [{server}]\n')
    asked: list[str] = []
    (report,) = anyio.run(lambda: examine([str(file)], progress=asked.append))
    assert "keys_usable" in names(report.findings, OK)
    for shown in (json.dumps(report.to_dict()), " ".join(asked)):
        assert "hunter2" not in shown
        assert "KEYS_URL" in shown


def test_several_targets_each_have_a_report(clinic: Clinic, file: Path) -> None:
    file.write_text(shorthand(clinic))
    clinic.server.app = MCPAuthMiddleware(
        answering(200),
        resource=clinic.resource,
        authorization_servers=[clinic.issuer.url],
        required_scopes=["mcp:read"],
    )
    assert diagnose(clinic.issuer.url, clinic.resource, str(file)).kind == "config"
    (finding,) = diagnose(str(file), f"{clinic.server.url}{PRM}").findings
    assert (finding.code.name, finding.fix) == (
        "not_recognised",
        "Pass the issuer or the resource itself, as the document names it, not the URL of the document.",
    )


class Evicting(MemoryStore):
    async def check(self) -> str | None:
        return "maxmemory-policy is allkeys-lru"


class Failing(MemoryStore):
    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        raise ConnectionError("no route to cache.internal")


@pytest.mark.requirement("FS-5")
@pytest.mark.parametrize(
    ("store", "expected", "evidence"),
    [
        pytest.param("asgi_mcp_auth:MemoryStore()", ("store_good", OK), "", id="works"),
        pytest.param(f"{__name__}:Evicting()", ("store_evicts", WARNING), "allkeys-lru", id="may drop entries"),
        pytest.param(f"{__name__}:Failing()", ("store_fails", ERROR), "no route", id="fails"),
        pytest.param("redis://:hunter2@127.0.0.1:1", ("store_fails", ERROR), "ConnectionError", id="no Redis"),
    ],
)
def test_the_shared_store_is_checked(  # noqa: PLR0917
    store: str,
    expected: tuple[str, Severity],
    evidence: str,
    clinic: Clinic,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    file.write_text(shorthand(clinic, more=f'store = "{store}"\nsession_binding = true\n'))
    report = diagnose(str(file))
    [finding] = [finding for finding in report.findings if finding.code.name.startswith("store_")]
    assert (finding.code.name, finding.severity) == expected
    assert evidence in finding.evidence
    assert "hunter2" not in json.dumps(report.to_dict()) + caplog.text
    assert not [record for record in caplog.records if record.name == "asgi_mcp_auth.stores"]


ANSWERS = {
    "junk is active": answering(200, [("content-type", "application/json")], b'{"active":true}'),
    "wrong credentials": answering(401, [("content-type", "application/json")], b'{"error":"invalid_client"}'),
    "no JSON": answering(200, [("content-type", "text/html")], b"<html>"),
}


@pytest.mark.requirement("RS-160")
@pytest.mark.parametrize(
    ("answer", "expected", "evidence"),
    [
        pytest.param(None, ("introspection_good", OK), "", id="an unknown token is inactive"),
        pytest.param("junk is active", ("introspection_accepts_unknown_token", ERROR), "", id="any token is active"),
        pytest.param("wrong credentials", ("introspection_fails", ERROR), "refused the credentials", id="credentials"),
        pytest.param("no JSON", ("introspection_fails", ERROR), "media type", id="no JSON"),
    ],
)
def test_the_introspection_endpoint_is_asked_about_an_unknown_token(  # noqa: PLR0917
    answer: str | None,
    expected: tuple[str, Severity],
    evidence: str,
    clinic: Clinic,
    file: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if answer is not None:
        issuer, other = for_browsers(clinic.issuer), ANSWERS[answer]

        async def authority(scope: Any, receive: Any, send: Any) -> None:
            await (other if scope["path"] == "/introspect" else issuer)(scope, receive, send)

        clinic.authority.app = authority
    file.write_text(
        shorthand(clinic, more='[verifier.opaque]\nclient_id = "rs"\nclient_secret = "hunter2"\nalways = true\n')
    )
    report = diagnose(str(file))
    [finding] = [finding for finding in report.findings if finding.code.name.startswith("introspection_")]
    assert (finding.code.name, finding.severity) == expected
    assert evidence in finding.evidence
    assert "hunter2" not in json.dumps(report.to_dict()) + caplog.text
    assert not [record for record in caplog.records if record.name == "asgi_mcp_auth.introspection"]
