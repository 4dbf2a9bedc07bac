"""The doctor's judgements of whatever a server may answer: never an exception, never more than is bounded, no gaps in the list."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asgi_mcp_auth.doctor
from asgi_mcp_auth.config import AuthorizationServerMetadata
from asgi_mcp_auth.doctor import CODES, Finding, Severity, examine
from asgi_mcp_auth.doctor.catalogue import GROUPS
from asgi_mcp_auth.doctor.challenge import check_challenge, metadata_parameter
from asgi_mcp_auth.doctor.documents import cors, lifetime, preflight, read_document
from asgi_mcp_auth.doctor.findings import found
from asgi_mcp_auth.doctor.keys import check_keys, check_lifetime
from asgi_mcp_auth.doctor.resource import judge_first, judge_foreign, judge_made_up
from asgi_mcp_auth.doctor.resource_metadata import MAX_SERVERS, judge_resource_metadata, metadata_places
from asgi_mcp_auth.doctor.server import check_provider, check_server, read_metadata, same_issuer
from asgi_mcp_auth.doctor.web import Answer

SOURCES = Path(str(asgi_mcp_auth.doctor.__file__)).parent

URL = "https://mcp.example.com/mcp"
TEXT = st.text(max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
MEMBERS = (
    *("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri", "registration_endpoint", "scopes_supported"),
    *("response_types_supported", "grant_types_supported", "code_challenge_methods_supported", "protected_resources"),
    *("client_id_metadata_document_supported", "token_endpoint_auth_methods_supported", "resource"),
    *("authorization_servers", "bearer_methods_supported", "keys"),
)
DOCUMENTS = st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=8) | st.dictionaries(TEXT, JSON, max_size=4)
KEYS = st.dictionaries(
    st.sampled_from(("kty", "kid", "alg", "use", "key_ops", "crv", "n", "e", "x", "y", "d", "issuer")),
    JSON | st.sampled_from(("RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "RS256", "sig", "AQAB")),
)
FIELDS = st.lists(
    st.tuples(
        st.sampled_from(
            (
                *("www-authenticate", "content-type", "cache-control", "location", "access-control-allow-origin"),
                *("access-control-allow-headers", "content-encoding", "expires", "age"),
            )
        ),
        TEXT
        | st.text(alphabet='Bearer scope="=,\\ error_description', max_size=80)
        | st.sampled_from(("*", 'Bearer scope="a"', "Bearer", "application/json", "text/html", "max-age=1")),
    ),
    max_size=6,
).map(tuple)
ANSWERS = st.builds(
    Answer,
    url=st.just(URL) | TEXT,
    status=st.sampled_from((0, 200, 204, 301, 401, 403, 404, 500, 503)),
    fields=FIELDS,
    body=st.none() | st.binary(max_size=60) | DOCUMENTS.map(lambda document: json.dumps(document).encode()),
    failure=st.none() | TEXT,
    withheld=st.booleans(),
)


def hold(findings: Iterable[Finding]) -> None:
    """What is promised of every finding."""
    for finding in findings:
        assert finding.code in CODES
        for text in (finding.subject, finding.evidence):
            assert len(text) <= 500
            assert text.isascii()
            assert text.isprintable()
        json.dumps(finding.to_dict())


@settings(deadline=None)
@given(ANSWERS)
def test_any_answer(answer: Answer) -> None:
    read = read_document(answer)
    hold(read.findings)
    assert (read.document is None) <= bool(read.findings)
    hold(cors(answer, "it"))
    hold(preflight(answer, "it", "x"))
    hold(check_lifetime(lifetime(answer), answer.url))
    for url in (URL, answer.url):
        for sent in (False, True):
            hold(check_challenge(answer, url, token_sent=sent))
        hold(judge_first(answer, url))
        hold(judge_made_up(answer, url))
        hold(judge_foreign(answer, url))
    metadata_parameter(answer)


def test_no_document_floods_a_report() -> None:
    servers = [f"http://{number}.example.com" for number in range(10_000)]
    document = {"resource": URL, "authorization_servers": servers}
    assert len(list(judge_resource_metadata(document, URL, URL))) == MAX_SERVERS


@settings(deadline=None)
@given(DOCUMENTS, TEXT)
def test_any_document(document: dict[str, Any], text: str) -> None:
    hold(same_issuer(document, text, URL))
    metadata = read_metadata({"issuer": "https://a.example", **document}, URL)
    if isinstance(metadata, AuthorizationServerMetadata):
        hold(check_server(metadata, URL, [text]))
    else:
        hold([metadata])
    for resource in (URL, text):
        hold(judge_resource_metadata(document, resource, URL))
    hold(check_provider(text))
    metadata_places(text)


@settings(deadline=None)
@given(JSON | st.lists(KEYS, max_size=5))
def test_any_key_set(keys: Any) -> None:
    hold(check_keys({"keys": keys}, URL))


@settings(max_examples=60, deadline=None)
@given(st.lists(ANSWERS, min_size=1, max_size=5), st.sampled_from((None, "issuer", "resource")))
def test_whatever_a_server_answers_there_is_a_report(answers: list[Answer], kind: Any) -> None:
    turns = itertools.cycle(answers)

    def respond(request: httpx.Request) -> httpx.Response:
        answer = next(turns)
        if answer.failure is not None:
            raise httpx.ReadError(answer.failure, request=request)
        fields = [(name.encode(), value.encode("latin-1", "replace")) for name, value in answer.fields]
        return httpx.Response(answer.status or 200, headers=fields, stream=httpx.ByteStream(answer.body or b""))

    def client() -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(respond))

    (report,) = anyio.run(lambda: examine([URL], kind, http_client=client))
    assert report.findings
    hold(report.findings)


def test_a_long_challenge_is_quick() -> None:
    for piece in ('"', "\\", 'a="', "a=", "a ", '"\\'):
        hold(check_challenge(Answer(URL, 401, (("www-authenticate", "Bearer " + piece * 30_000),)), URL))


def test_codes_are_unique_and_complete() -> None:
    names = [code.name for code in CODES]
    assert len(set(names)) == len(names)
    for code in CODES:
        assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", code.name)
        assert code.means
        assert (code.severity in (Severity.OK, Severity.INFO)) or code.fix
    assert sum(map(len, GROUPS.values())) == len(CODES)


def test_every_code_that_is_written_down_is_on_the_list() -> None:
    """Each constant of the two modules of codes is in a group, and is used by a check."""
    checks = "".join(path.read_text("utf-8") for path in SOURCES.glob("*.py") if not path.name.endswith("_codes.py"))
    for module in ("issuer_codes", "key_codes", "resource_codes"):
        text = (SOURCES / f"{module}.py").read_text("utf-8")
        for name in re.findall(r"^([A-Z0-9_]+): Final = Code\(", text, re.MULTILINE):
            assert getattr(getattr(asgi_mcp_auth.doctor, module), name) in CODES
            assert re.search(rf"codes\.{name}\b|import {name}\b", checks), f"{module}.{name} is never found"


def test_a_finding_cannot_be_changed() -> None:
    finding: Any = found(CODES[0], URL, "\x1b[2J" * 300)
    with pytest.raises(AttributeError):
        finding.evidence = ""
    assert finding.evidence.endswith("...")


def test_importing_the_doctor_prints_nothing_and_needs_no_extra() -> None:
    unwanted = [
        "uvicorn",
        "starlette",
        "mcp",
        "asgi_mcp_auth.cli",
        "asgi_mcp_auth.testing",
    ]  # httpx brings click itself
    program = f"import sys, asgi_mcp_auth.doctor; print([m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
